//! The manifests: one place for versions, each with its reason, and licences that may be combined with ours.

use anyhow::{Context, Result};
use serde_json::Value;

use super::source::Source;

/// Versions outside the root manifest, members without the lints, and dependencies without a reason or a user.
pub(super) fn check(sources: &[Source]) -> Vec<String> {
    let mut problems = Vec::new();
    let is_member = |source: &&Source| source.path.ends_with("/Cargo.toml");
    let members: Vec<&Source> = sources.iter().filter(is_member).collect();
    for member in &members {
        problems.extend(member_problems(member));
    }
    let Some(root) = sources.iter().find(|source| source.path == "Cargo.toml") else {
        return vec!["Cargo.toml is missing".to_owned()];
    };
    for (at, line) in dependency_lines(root) {
        let name = line.split(['=', '.', ' ']).next().unwrap_or_default();
        let is_ours = line.contains("path = ");
        if !is_ours && !line.contains('#') {
            problems.push(root.problem(at, &format!("`{name}` has no reason")));
        }
        let is_used = members.iter().any(|member| {
            dependency_lines(member).any(|(_, line)| line.split(['=', '.', ' ']).next() == Some(name))
        });
        if !is_used {
            problems.push(root.problem(at, &format!("`{name}` is used by no member")));
        }
    }
    problems
}

fn member_problems(member: &Source) -> Vec<String> {
    let mut problems = Vec::new();
    if !member.text.contains("[lints]\nworkspace = true") {
        problems.push(member.problem(1, "does not take the workspace's lints"));
    }
    for (at, line) in dependency_lines(member) {
        if !line.contains("workspace = true") {
            problems
                .push(member.problem(at, "names a version of its own; versions are in the root manifest"));
        }
    }
    problems
}

/// The lines of every table of dependencies that name one.
fn dependency_lines(manifest: &Source) -> impl Iterator<Item = (usize, &str)> {
    let mut within = false;
    manifest.text.lines().enumerate().filter_map(move |(at, line)| {
        if line.starts_with('[') {
            within = line.trim_end().trim_end_matches(']').ends_with("dependencies");
            return None;
        }
        let names_one = within && line.starts_with(|letter: char| letter.is_ascii_alphanumeric());
        names_one.then_some((at + 1, line))
    })
}

/// Licences that Apache-2.0 code may be shipped with: those of deny.toml.
fn allowed(sources: &[Source]) -> Result<Vec<&str>> {
    let manifest =
        sources.iter().find(|source| source.path == "deny.toml").context("there is no deny.toml")?;
    let (_, list) = manifest.text.split_once("allow = [").context("deny.toml allows no licences")?;
    let (list, _) = list.split_once(']').context("the list of licences in deny.toml has no end")?;
    Ok(list.split(',').map(|name| name.trim().trim_matches('"')).filter(|name| !name.is_empty()).collect())
}

/// Packages that come from elsewhere than a registry, or under a licence that is not on the list.
pub(super) fn licences(metadata: &Value, sources: &[Source]) -> Result<Vec<String>> {
    let (allowed, mut problems) = (allowed(sources)?, Vec::new());
    for package in metadata["packages"].as_array().context("cargo metadata names no packages")? {
        let Some(source) = package["source"].as_str() else {
            continue;
        };
        let name = package["name"].as_str().context("a package without a name")?;
        if !source.starts_with("registry+") {
            problems.push(format!("{name} comes from {source}, not from a registry"));
        }
        let licence = package["license"].as_str().unwrap_or("no licence expression");
        if !is_allowed(licence, &allowed) {
            problems.push(format!("{name}: licence `{licence}` is not on the list"));
        }
    }
    Ok(problems)
}

/// An SPDX expression, or the slash that older packages write for OR.
fn is_allowed(expression: &str, allowed: &[&str]) -> bool {
    let expression = expression.replace(['(', ')'], "").replace('/', " OR ");
    let mut all = expression.split(" AND ");
    all.all(|part| part.split(" OR ").any(|licence| allowed.contains(&licence.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "[workspace.dependencies]\nours = { path = \"o\" }\nserde = \"1\" # objects\n";

    fn problems(root: &str, member: &str) -> Vec<String> {
        check(&[Source::new("Cargo.toml", root), Source::new("m/Cargo.toml", member)])
    }

    #[test]
    fn versions_and_reasons_are_in_the_root() {
        let lints = "[lints]\nworkspace = true\n";
        let good = format!("[dependencies]\nours.workspace = true\nserde = {{ workspace = true }}\n{lints}");
        assert_eq!(problems(ROOT, &good), Vec::<String>::new());
        assert_eq!(problems(ROOT, &good.replace("{ workspace = true }", "\"1\"")).len(), 1);
        assert_eq!(problems(ROOT, &good.replace(lints, "")).len(), 1);
        assert_eq!(problems(&ROOT.replace("# objects", ""), &good).len(), 1);
        assert_eq!(problems(ROOT, &good.replace("ours.workspace = true\n", "")).len(), 1);
    }

    #[test]
    fn licences_are_read_as_expressions() {
        let deny = [Source::new("deny.toml", "[licenses]\nallow = [\n  \"MIT\",\n  \"Unicode-3.0\",\n]\n")];
        let allowed = allowed(&deny).expect("a list");
        assert_eq!(allowed, ["MIT", "Unicode-3.0"]);
        for expression in ["MIT", "MIT OR Apache-2.0", "MIT/Apache-2.0", "(MIT OR GPL-3.0) AND Unicode-3.0"] {
            assert!(is_allowed(expression, &allowed), "{expression}");
        }
        for expression in ["GPL-3.0", "MIT AND GPL-3.0", "no licence expression", ""] {
            assert!(!is_allowed(expression, &allowed), "{expression}");
        }
    }
}
