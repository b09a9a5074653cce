//! Patterns of names: `*` for any part of a DNS name, and `cluster/node` of two such patterns.

/// What `*` stands for, within one name.
const ANY_PART: &str = "[-.0-9a-z]*";
/// What a missing half of `cluster/node` stands for.
const ANY_NAME: &str = r"[-0-9_a-z]+(?:\.[-0-9_a-z]+)*";

/// The expression for a DNS name, not anchored. A final dot and the case do not matter.
pub(super) fn dns_name(pattern: &str) -> Result<String, String> {
    let lower = pattern.trim().to_ascii_lowercase();
    let name = lower.strip_suffix('.').unwrap_or(&lower);
    if name.is_empty() {
        return Err("must not be empty".to_owned());
    }
    if name.ends_with('.') {
        return Err(format!("{pattern:?} ends with more than one dot"));
    }
    let mut made = String::with_capacity(name.len() + 8);
    for letter in name.chars() {
        match letter {
            '.' => made.push_str(r"\."),
            '*' => made.push_str(ANY_PART),
            '-' | '_' | '0'..='9' | 'a'..='z' => made.push(letter),
            other => return Err(format!("{pattern:?}: {other:?} is in no name")),
        }
    }
    Ok(made)
}

/// The expression for `cluster/node`, `cluster/`, `/node` or `node`, not anchored.
pub(super) fn node_name(pattern: &str) -> Result<String, String> {
    if pattern.is_empty() {
        return Err("must not be empty".to_owned());
    }
    let (cluster, node) = pattern.split_once('/').unwrap_or(("", pattern));
    if node.contains('/') {
        return Err(format!("{pattern:?} has more than one slash"));
    }
    let part = |part: &str| if part.is_empty() { Ok(ANY_NAME.to_owned()) } else { dns_name(part) };
    Ok(format!("{}/{}", part(cluster)?, part(node)?))
}
