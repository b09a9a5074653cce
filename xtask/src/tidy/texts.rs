//! What every text of this project keeps to: its size, its first words, and what it must not mention.

use super::source::Source;

/// Longer files have become several things.
const MOST_LINES: usize = 800;

/// A file that nobody reads to its end.
pub(super) fn size(source: &Source) -> Vec<String> {
    let lines = source.text.lines().count();
    if source.is_rust() && !source.is_generated() && lines > MOST_LINES {
        return vec![source.problem(lines, &format!("{lines} lines, more than {MOST_LINES}: split it"))];
    }
    Vec::new()
}

/// Longer lines don't fit beside another file; `cargo fmt` wraps code only.
const WIDEST: usize = 125;

/// Comments that nobody has wrapped. Rows of a table can't be.
pub(super) fn comment_width(source: &Source) -> Vec<String> {
    if !source.is_rust() || source.is_generated() {
        return Vec::new();
    }
    lines_with(source, |line| {
        let comment = line.trim_start();
        let is_prose = comment.starts_with("//") && !comment.ends_with('|');
        (is_prose && line.chars().count() > WIDEST)
            .then(|| format!("a comment beyond column {WIDEST}: wrap it"))
    })
}

/// A Rust file that does not say why it exists.
pub(super) fn module_documentation(source: &Source) -> Vec<String> {
    let first = source.text.lines().find(|line| {
        let line = line.trim();
        !line.is_empty() && !line.starts_with("#![")
    });
    let is_documented = first.is_some_and(|line| line.starts_with("//!"));
    // What `foo/tests.rs` is for is plain.
    let is_exempt = source.is_generated() || source.path.ends_with("/tests.rs");
    if source.is_rust() && !is_exempt && !is_documented {
        return vec![source.problem(1, "does not begin with a `//!` that says why it exists")];
    }
    Vec::new()
}

/// Notes to oneself.
pub(super) fn left_to_do(source: &Source) -> Vec<String> {
    // In two halves, so that this file keeps to its own rule.
    let words = [["TO", "DO"], ["FIX", "ME"], ["XX", "X"], ["HA", "CK"]].map(|halves| halves.concat());
    lines_with(source, |line| {
        let word = line
            .split(|letter: char| !letter.is_ascii_alphanumeric())
            .find(|part| words.contains(&(*part).to_owned()))?;
        Some(format!("{word}: do it or say in docs/status.md that it isn't done"))
    })
}

/// Paths of the machine that somebody works on, and names of package mirrors.
pub(super) fn machine(source: &Source) -> Vec<String> {
    let forbidden = [
        ["/wo", "rk/"],
        ["/ro", "ot/"],
        ["/home", "/"],
        ["arti", "factory"],
        ["deb.deb", "ian"],
        ["index.cra", "tes.io"],
        ["proxy.go", "lang"],
    ];
    lines_with(source, |line| {
        let text =
            forbidden.iter().map(|halves| halves.concat()).find(|text| line.contains(text.as_str()))?;
        Some(format!("`{text}` belongs to one machine"))
    })
}

/// What a reader of the repository can't follow: its maker's list of work, and papers that are not in it.
pub(super) fn citations(source: &Source) -> Vec<String> {
    let (work, paper) = (["iss", "ue "].concat(), ["design", ".md"].concat());
    lines_with(source, |line| {
        let numbered = line
            .match_indices(&work)
            .any(|(at, found)| line[at + found.len()..].starts_with(|letter: char| letter.is_ascii_digit()));
        if numbered {
            return Some(format!("`{work}` and a number: say what it asks for"));
        }
        line.contains(&paper).then(|| format!("`{paper}` is not in the repository"))
    })
}

/// Hosts that a text may point a reader at. Nothing is fetched from any of them by name.
const HOSTS: &[&str] = &[
    "cilium.io",
    "datatracker.ietf.org",
    "docs.cilium.io",
    "docs.kernel.org",
    "docs.rs",
    "git.kernel.org",
    "github.com",
    "keepachangelog.com",
    "kubernetes.io",
    "networkpolicy.io",
    "opensource.org",
    "semver.org",
    "www.apache.org",
    "www.cni.dev",
    "www.gnu.org",
    "www.iana.org",
    "www.kernel.org",
    "www.rfc-editor.org",
    "www.rust-lang.org",
];

/// Web addresses whose host nobody has looked at.
pub(super) fn links(source: &Source) -> Vec<String> {
    if source.path == "Cargo.lock" {
        return Vec::new();
    }
    lines_with(source, |line| {
        line.match_indices("://").find_map(|(at, _)| {
            let scheme = &line[..at];
            if !scheme.ends_with("http") && !scheme.ends_with("https") {
                return None;
            }
            let rest = &line[at + 3..];
            let end = rest.find(|letter: char| !letter.is_ascii_alphanumeric() && !"-.".contains(letter));
            let host = rest[..end.unwrap_or(rest.len())].trim_end_matches('.');
            let is_known = HOSTS.contains(&host) || is_example(host);
            (!is_known).then(|| format!("host `{host}` is not in xtask/src/tidy/texts.rs"))
        })
    })
}

/// Names that RFC 2606 keeps for examples, names of the lab, addresses, and what a format string fills in.
fn is_example(host: &str) -> bool {
    let is_address = host.chars().all(|letter| letter.is_ascii_digit() || letter == '.');
    let end = host.rsplit('.').next().unwrap_or_default();
    is_address
        || !host.contains('.')
        || ["example", "invalid", "test", "local"].contains(&end)
        || ["example.com", "example.net", "example.org"].iter().any(|name| host.ends_with(name))
}

/// A test that is left out without a word of why.
pub(super) fn skips(source: &Source) -> Vec<String> {
    if !source.is_rust() {
        return Vec::new();
    }
    lines_with(source, |line| {
        let line = line.trim();
        let is_mute = line == ["#[ign", "ore]"].concat()
            || (line.starts_with("//") && line.contains(&["```ign", "ore"].concat()));
        is_mute.then(|| "says not why this test is left out".to_owned())
    })
}

fn lines_with(source: &Source, problem: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let lines = source.text.lines().enumerate();
    lines.filter_map(|(at, line)| Some(source.problem(at + 1, &problem(line)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rule: fn(&Source) -> Vec<String>, path: &str, text: &str, problems: usize) {
        let found = rule(&Source::new(path, text));
        assert_eq!(found.len(), problems, "{path}: {text}: {found:?}");
    }

    #[test]
    fn a_long_file_is_refused_and_a_generated_one_is_not() {
        check(size, "a/src/b.rs", &"//\n".repeat(800), 0);
        check(size, "a/src/b.rs", &"//\n".repeat(801), 1);
        check(size, "a/src/b.rs", &format!("// @generated\n{}", "//\n".repeat(801)), 0);
        check(size, "docs/long.md", &"x\n".repeat(2000), 0);
    }

    #[test]
    fn a_wide_comment_is_refused_and_wide_code_and_tables_are_not() {
        check(comment_width, "a.rs", &format!("    /// {}", "x".repeat(117)), 0);
        check(comment_width, "a.rs", &format!("    /// {}", "x".repeat(118)), 1);
        check(comment_width, "a.rs", &format!("let x = \"{}\";", "x".repeat(200)), 0);
        check(comment_width, "a.rs", &format!("//! | {} |", "x".repeat(200)), 0);
        check(comment_width, "a.md", &format!("// {}", "x".repeat(200)), 0);
    }

    #[test]
    fn a_file_begins_with_its_reason() {
        check(module_documentation, "a.rs", "//! Why.\n", 0);
        check(module_documentation, "a.rs", "#![no_std]\n\n//! Why.\n", 0);
        check(module_documentation, "a.rs", "use std::fs;\n//! Why.\n", 1);
        check(module_documentation, "a.rs", "", 1);
        check(module_documentation, "a/tests.rs", "use super::*;", 0);
        check(module_documentation, "a.md", "text", 0);
    }

    #[test]
    fn notes_to_oneself_are_words_of_their_own() {
        let note = ["// TO", "DO: later"].concat();
        check(left_to_do, "a.rs", &note, 1);
        check(left_to_do, "a.rs", &note.to_lowercase(), 0);
        check(left_to_do, "a.rs", "/tmp/a.XXXXXX", 0);
    }

    #[test]
    fn only_known_hosts_are_pointed_at() {
        check(links, "a.md", "https://docs.rs/aya and http://127.0.0.1:80/ and http://a.example.com", 0);
        check(links, "a.md", &["https", "://mirror.somewhere.net/x"].concat(), 1);
        check(links, "a.md", "unix:///run/sinew/agent.sock", 0);
        check(machine, "a.md", &["cd /ro", "ot/x"].concat(), 1);
    }

    #[test]
    fn only_what_is_here_is_cited() {
        check(citations, "a.rs", "//! datapath.md 7, and an issue of certificates", 0);
        check(citations, "a.rs", &["//! as iss", "ue 7 asks"].concat(), 1);
        check(citations, "a.rs", &["(design", ".md 4)"].concat(), 1);
    }

    #[test]
    fn a_skip_has_a_reason() {
        check(skips, "a.rs", &["#[ign", "ore]"].concat(), 1);
        check(skips, "a.rs", "#[ignore = \"cargo xtask test lab\"]", 0);
        check(skips, "a.rs", &["/// ```ign", "ore"].concat(), 1);
    }
}
