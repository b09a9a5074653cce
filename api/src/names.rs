//! What a name may look like: Kubernetes' rules for object names, label keys and values, and port names.
//!
//! Each function says what is wrong in words that fit behind the field's path. Sources: Kubernetes
//! `apimachinery/pkg/util/validation` for its documented formats, RFC 1123 section 2.1, RFC 6335 section 5.1.

/// A DNS subdomain of at most 253 bytes: names of most objects.
///
/// # Errors
/// What is wrong with it.
pub fn subdomain(name: &str) -> Result<(), String> {
    if name.len() > 253 {
        return Err(format!("has {} characters, at most 253 are allowed", name.len()));
    }
    if name.split('.').all(is_dns_part) {
        return Ok(());
    }
    Err(format!(
        "{:?} is not a DNS name: lower-case letters, digits, `-` and `.`, each part beginning and ending with a letter or digit",
        shown(name)
    ))
}

/// A DNS label of at most 63 bytes: namespaces, nodes' clusters.
///
/// # Errors
/// What is wrong with it.
pub fn dns_label(name: &str) -> Result<(), String> {
    if name.len() > 63 {
        return Err(format!("has {} characters, at most 63 are allowed", name.len()));
    }
    if is_dns_part(name) {
        return Ok(());
    }
    Err(format!(
        "{:?} is not a DNS label: lower-case letters, digits and `-`, beginning and ending with a letter or digit",
        shown(name)
    ))
}

/// A label key: an optional DNS subdomain and `/`, then a name of at most 63 bytes.
///
/// # Errors
/// What is wrong with it.
pub fn label_key(key: &str) -> Result<(), String> {
    let name = match key.split_once('/') {
        Some((prefix, name)) => {
            subdomain(prefix).map_err(|wrong| format!("the part before `/` {wrong}"))?;
            name
        }
        None => key,
    };
    if name.len() > 63 {
        return Err(format!(
            "the name part of the key has {} characters, at most 63 are allowed",
            name.len()
        ));
    }
    if is_label_text(name) {
        return Ok(());
    }
    Err(format!(
        "{:?} is not a label key: letters, digits, `-`, `_` and `.`, beginning and ending with a letter or digit",
        shown(key)
    ))
}

/// A label value: empty, or at most 63 bytes of letters, digits, `-`, `_` and `.`.
///
/// # Errors
/// What is wrong with it.
pub fn label_value(value: &str) -> Result<(), String> {
    if value.len() > 63 {
        return Err(format!("the value has {} characters, at most 63 are allowed", value.len()));
    }
    if value.is_empty() || is_label_text(value) {
        return Ok(());
    }
    Err(format!(
        "{:?} is not a label value: letters, digits, `-`, `_` and `.`, beginning and ending with a letter or digit",
        shown(value)
    ))
}

/// An IANA service name: at most 15 letters, digits and single hyphens, with a letter among them.
///
/// # Errors
/// What is wrong with it.
pub fn port_name(name: &str) -> Result<(), String> {
    if name.len() > 15 {
        return Err(format!("the port name has {} characters, at most 15 are allowed", name.len()));
    }
    let right =
        name.split('-').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric()))
            && name.bytes().any(|byte| byte.is_ascii_alphabetic());
    if right {
        return Ok(());
    }
    Err(format!(
        "{:?} is neither a port number nor a port name: letters, digits and single `-` between them, with a letter among them",
        shown(name)
    ))
}

fn is_dns_part(part: &str) -> bool {
    let bytes = part.as_bytes();
    let inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
    !bytes.is_empty() && bytes.iter().all(inner) && bytes[0] != b'-' && bytes[bytes.len() - 1] != b'-'
}

fn is_label_text(text: &str) -> bool {
    let bytes = text.as_bytes();
    let inner = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    !bytes.is_empty()
        && bytes.iter().all(inner)
        && bytes[0].is_ascii_alphanumeric()
        && bytes[bytes.len() - 1].is_ascii_alphanumeric()
}

/// As much of a text as a message should carry.
pub(crate) fn shown(text: &str) -> &str {
    up_to(text, 80)
}

/// As much of a key as a path should carry: the longest label key whole.
pub(crate) fn shown_key(key: &str) -> &str {
    up_to(key, 320)
}

fn up_to(text: &str, characters: usize) -> &str {
    match text.char_indices().nth(characters) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}
