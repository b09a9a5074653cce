//! JSON that is not YAML: a character beyond U+FFFF, written as a pair of surrogates, as Python's `json.dumps` does.

/// The text with every pair of surrogate escapes replaced by its character; `None` where there is none, or where the text
/// does not look like JSON. Lines stay where they are.
pub(super) fn join_surrogates(text: &str) -> Option<String> {
    if !text.trim_start().starts_with(['{', '[']) {
        return None;
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut joined = false;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        out.push_str(before);
        let (character, length) = match pair(escape) {
            Some(character) => {
                joined = true;
                (Some(character), 12)
            }
            // The character behind the backslash is taken too, so that `\\u…` stays what it is.
            None => (None, 1 + escape.chars().nth(1).map_or(0, char::len_utf8)),
        };
        match character {
            Some(character) => out.push(character),
            None => out.push_str(&escape[..length]),
        }
        rest = &escape[length..];
    }
    out.push_str(rest);
    joined.then_some(out)
}

/// The character of `\uD8xx\uDCxx` at the beginning of the text.
fn pair(text: &str) -> Option<char> {
    let unit = |text: &str| {
        let digits = text.strip_prefix("\\u")?.get(..4)?;
        digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u16::from_str_radix(digits, 16).ok())?
    };
    let units = [unit(text)?, unit(text.get(6..)?)?];
    // A unit that is a character by itself is no part of a pair.
    let mut characters = char::decode_utf16(units);
    match (characters.next(), characters.next()) {
        (Some(Ok(character)), None) => Some(character),
        _ => None,
    }
}
