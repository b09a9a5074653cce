//! A document as a session: named blocks become files, `$` lines run in their folder, and what stands below is what
//! they print.
//!
//! Each `## ` section has a folder of its own, which begins with the files of the first section that has any. A command's
//! output is stdout and stderr; a code other than 0 stands in a last line `exit N`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::writing;

/// Runs every section of the document.
pub(crate) fn check(path: &Path) {
    let text = fs::read_to_string(path).unwrap();
    let mut made = String::new();
    let mut base = Vec::new();
    let mut commands = 0;
    for section in sections(&text) {
        let folder = tempfile::tempdir().unwrap();
        write_files(folder.path(), &base);
        let files = files(section);
        write_files(folder.path(), &files);
        if base.is_empty() {
            base = files;
        }
        made.push_str(&replay(section, folder.path(), &mut commands));
    }
    assert!(commands > 0, "{} has no command", path.display());
    if writing() {
        fs::write(path, made).unwrap();
    } else {
        assert_eq!(made, text, "{}: an output differs; SINEW_WRITE_DOCUMENTS=1 writes it", path.display());
    }
}

/// The text in pieces that begin at `## `; together they are the text.
fn sections(text: &str) -> Vec<&str> {
    let mut starts = vec![0];
    starts.extend(text.match_indices("\n## ").map(|(at, _)| at + 1));
    starts.push(text.len());
    starts.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect()
}

/// The named blocks of a section.
fn files(section: &str) -> Vec<(String, String)> {
    let mut files = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in section.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(kind)) => {
                open = kind.split_once(' ').map(|(_, name)| (name.to_owned(), String::new()))
            }
            (Some(_), Some(_)) => files.extend(open.take()),
            (Some((_, text)), None) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, None) => {}
        }
    }
    files
}

fn write_files(folder: &Path, files: &[(String, String)]) {
    for (name, text) in files {
        fs::write(folder.join(name), text).unwrap();
    }
}

/// The section with the outputs that its commands have now.
fn replay(section: &str, folder: &Path, commands: &mut usize) -> String {
    let mut made = String::new();
    let mut in_console = false;
    for line in section.split_inclusive('\n') {
        if in_console && line.starts_with("```") {
            in_console = false;
        } else if line.trim_end() == "```console" {
            in_console = true;
        } else if in_console {
            // What stood below the command is replaced by what it prints.
            if let Some(command) = line.strip_prefix("$ ") {
                made.push_str(line);
                made.push_str(&run(command.trim_end(), folder));
                *commands += 1;
            }
            continue;
        }
        made.push_str(line);
    }
    made
}

fn run(command: &str, folder: &Path) -> String {
    let binary = Path::new(env!("CARGO_BIN_EXE_sinew"));
    let mut path = binary.parent().unwrap().as_os_str().to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap());
    let script = format!("exec 2>&1; {command}");
    let output = Command::new("sh")
        .args(["-c", &script])
        .current_dir(folder)
        .env("PATH", path)
        .env_remove("SINEW_AGENT_SOCKET")
        .output()
        .unwrap();
    let mut text = String::from_utf8(output.stdout).unwrap();
    if let Some(code) = output.status.code().filter(|code| *code != 0) {
        // Writing to a String can't fail.
        let _ = writeln!(text, "exit {code}");
    }
    text
}

#[test]
fn a_wrong_output_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let document = folder.path().join("a.md");
    let text = "## One\n\n```yaml a.yaml\nkind: [\n```\n\n```console\n$ cat a.yaml; false\nkind: {\n```\n";
    fs::write(&document, text).unwrap();
    let found = std::panic::catch_unwind(|| check(&document));
    if writing() {
        let right = text.replace("kind: {\n", "kind: [\nexit 1\n");
        assert_eq!(fs::read_to_string(&document).unwrap(), right);
    } else {
        assert!(found.is_err(), "the wrong output went unnoticed");
    }
}
