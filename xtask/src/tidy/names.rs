//! What files, modules and types are called: nouns of this project, no words that fit everything.

use super::source::Source;

/// Words that say nothing about what they name.
const EMPTY: [&str; 10] =
    ["util", "utils", "common", "manager", "helper", "helpers", "info", "misc", "data", "stuff"];

/// Associated types of other people's traits, which an implementation has to name.
const FOREIGN: [&str; 1] = ["ConnectInfo"];

/// File names, and the names of modules and types.
pub(super) fn check(source: &Source) -> Vec<String> {
    if !source.is_rust() || source.is_generated() {
        return Vec::new();
    }
    let mut problems = Vec::new();
    let file = source.path.rsplit('/').next().unwrap_or_default();
    if file == "mod.rs" {
        problems
            .push(source.problem(1, "is named like any other: call it after its folder, beside the folder"));
    }
    for part in source.path.trim_end_matches(".rs").split('/') {
        if let Some(word) = empty_word(part) {
            problems.push(source.problem(1, &format!("`{word}` in the path names nothing")));
        }
    }
    for (at, line) in source.text.lines().enumerate() {
        if let Some(word) = defined(line).filter(|name| !FOREIGN.contains(name)).and_then(empty_word) {
            problems.push(source.problem(at + 1, &format!("`{word}` in a name names nothing")));
        }
    }
    problems
}

/// The type or module that a line defines.
fn defined(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace().skip_while(|word| word.starts_with("pub") || *word == "unsafe");
    let keyword = words.next()?;
    if !["struct", "enum", "trait", "union", "type", "mod"].contains(&keyword) {
        return None;
    }
    let name = words.next()?;
    let end = name.find(|letter: char| !letter.is_alphanumeric() && letter != '_');
    Some(&name[..end.unwrap_or(name.len())])
}

fn empty_word(name: &str) -> Option<&'static str> {
    let parts = parts(name);
    EMPTY.into_iter().find(|word| parts.iter().any(|part| part == word))
}

/// `PolicyInfo` and `policy_info` are `policy`, `info`.
fn parts(name: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    for letter in name.chars() {
        if letter == '_' || letter == '-' || letter.is_uppercase() {
            parts.push(String::new());
        }
        if letter != '_' && letter != '-' {
            let last = parts.last_mut().expect("there is always a part");
            last.extend(letter.to_lowercase());
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(path: &str, text: &str) -> usize {
        check(&Source::new(path, text)).len()
    }

    #[test]
    fn words_that_fit_everything_are_refused() {
        assert_eq!(count("engine/src/policy_utils.rs", ""), 1);
        assert_eq!(count("engine/src/policy/mod.rs", ""), 1);
        assert_eq!(count("engine/src/policy.rs", "pub(crate) struct PolicyManager<T> {"), 1);
        assert_eq!(count("engine/src/policy.rs", "mod helpers;"), 1);
        assert_eq!(count("engine/src/policy.rs", "    type Data = u8;"), 1);
        assert_eq!(
            count("engine/src/policy.rs", "    type ConnectInfo = ();"),
            0,
            "of a trait that is not ours"
        );
    }

    #[test]
    fn words_that_only_look_alike_are_not() {
        assert_eq!(
            count("bpf/src/datapath.rs", "pub struct Datapath;\nenum Information {\nlet data = 1;"),
            0
        );
        assert_eq!(count("api/src/proto/agent.rs", "// @generated\npub struct NodeInfo {"), 0);
    }
}
