//! Every YAML file beside this one: published examples of Cilium and recipes for NetworkPolicy, written anew, and what is
//! refused. The comment at the head of a file says what it should do, and below `decodes to:` what it becomes, worked out
//! by hand. `engine` takes the same files for who may reach whom.
//!
//! The notation: a selector is its requirements, `app=web` for source `any`, `k8s:app=web` for `k8s`, `ns=shop` for the
//! pod's namespace, last; `*` without any. `10.0.0.0/8 +pods` reaches pods too. `refused` and `warning` lines give the
//! path and how the message begins.

mod brief;
mod forms;
mod refusals;
mod remains;
mod scopes;
mod values;

use std::fs;
use std::path::{Path, PathBuf};

use sinew_api::object::decode_text;

#[test]
fn every_file_decodes_to_what_its_head_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/policies");
    let files = yaml_files(&folder);
    assert!(files.len() >= 60, "{} files in {}", files.len(), folder.display());
    let mut wrong = Vec::new();
    for file in &files {
        let text = fs::read_to_string(file).unwrap();
        let expected = expectation(&text);
        assert!(!expected.is_empty(), "{} does not say what it decodes to", file.display());
        let name = file.strip_prefix(&folder).unwrap().display().to_string();
        let found: Vec<_> = decode_text(&name, &text).iter().flat_map(brief::object).collect();
        if !agree(&expected, &found) {
            wrong.push(format!(
                "{name}\n  expected\n    {}\n  found\n    {}",
                expected.join("\n    "),
                found.join("\n    ")
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// The files in order, so that a failure reads the same every time.
fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder of the cases is in the repository") {
        let path = entry.expect("a folder of the repository can be listed").path();
        if path.is_dir() {
            files.extend(yaml_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The lines below `# decodes to:` at the head of the text.
fn expectation(text: &str) -> Vec<String> {
    let head = text.lines().map_while(|line| line.strip_prefix('#'));
    head.skip_while(|line| line.trim() != "decodes to:").skip(1).map(|line| line.trim().to_owned()).collect()
}

/// Line by line; of a complaint the beginning is enough.
fn agree(expected: &[String], found: &[String]) -> bool {
    expected.len() == found.len()
        && expected.iter().zip(found).all(|(expected, found)| {
            let complaint = expected.starts_with("refused ") || expected.starts_with("warning ");
            if complaint { found.starts_with(expected.as_str()) } else { found == expected }
        })
}
