//! `--config FILE`: the keys of Hubble's configuration file, as defaults of the flags with their names.
//!
//! A flag of the command line counts before its variable, and that before the file. Without the flag no file is read: what
//! lies in a folder must not say whom a command asks. Neighbour: `flags.rs` has the flags.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{ArgMatches, Command};
use sinew_api::yaml::{self, Entry, Node, Value};

use crate::failure::Failure;

/// Keys with the flags that they stand for.
const KEYS: [(&str, &str); 16] = [
    ("allowlist", "allowlist"),
    ("basic-auth-password", "basic_auth_password"),
    ("basic-auth-username", "basic_auth_username"),
    ("debug", "debug"),
    ("denylist", "denylist"),
    ("port-forward", "port_forward"),
    ("request-timeout", "request_timeout"),
    ("server", SERVER),
    ("timeout", "timeout"),
    ("tls", "tls"),
    ("tls-allow-insecure", "tls_allow_insecure"),
    ("tls-ca-cert-files", "tls_ca_cert_files"),
    ("tls-client-cert-file", "tls_client_cert_file"),
    ("tls-client-key-file", "tls_client_key_file"),
    ("tls-server-name", "tls_server_name"),
    // Named by `hubble config view` in every file, and without a meaning in one.
    ("config", NOTHING),
];
/// Keys that say how a port is forwarded, which nobody asks for but `port-forward`.
const FORWARDING: [&str; 4] = ["kube-context", "kube-namespace", "kubeconfig", "port-forward-port"];
const SERVER: &str = "server";
const NOTHING: &str = "";

/// The file that a command line names.
pub(crate) fn named(matches: &ArgMatches) -> Option<PathBuf> {
    match matches.subcommand() {
        Some((_, matches)) => named(matches),
        None => matches.try_get_one::<PathBuf>("config").ok().flatten().cloned(),
    }
}

/// A command whose flags have the file's values where nobody gives them others.
pub(crate) fn with_defaults(
    command: Command,
    file: &Path,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Command, Failure> {
    let name = file.display();
    let text =
        fs::read_to_string(file).map_err(|error| Failure::usage(format!("--config {name}: {error}")))?;
    let wrong = |line: u32, problem: String| Failure::usage(format!("--config {name}:{line}: {problem}"));
    let mut command = command;
    for document in yaml::documents(&text) {
        let root = document.map_err(|error| Failure::usage(format!("--config {name}: {error}")))?.root;
        let Value::Mapping(entries) = root.value else {
            return Err(wrong(
                root.line,
                format!("keys with values are wanted, not {}", root.value.type_name()),
            ));
        };
        for Entry { key, line, value } in entries {
            let Some((_, flag)) = KEYS.iter().find(|(known, _)| *known == key) else {
                if FORWARDING.contains(&key.as_str()) {
                    continue;
                }
                let known: Vec<&str> = KEYS.iter().map(|(known, _)| *known).collect();
                return Err(wrong(line, format!("{key:?} is no key; one of {}", known.join(", "))));
            };
            // The variables of the server's name are no part of its flag.
            let is_set = |name| variable(name).is_some_and(|value| !value.is_empty());
            if *flag == NOTHING || (*flag == SERVER && (is_set("SINEW_SERVER") || is_set("HUBBLE_SERVER"))) {
                continue;
            }
            let values = texts(&value).map_err(|problem| wrong(value.line, format!("{key}: {problem}")))?;
            if !values.is_empty() {
                command = with_default(command, flag, &values);
            }
        }
    }
    Ok(command)
}

fn with_default(command: Command, flag: &'static str, values: &[&'static str]) -> Command {
    let has_it = command.get_arguments().any(|arg| arg.get_id() == flag);
    let command = if has_it {
        command.mut_arg(flag, |arg| arg.default_values(values.iter().copied()))
    } else {
        command
    };
    command.mut_subcommands(|command| with_default(command, flag, values))
}

/// The values of one key; none where it is empty. They stay as long as the process, since a command line's defaults do.
fn texts(node: &Node) -> Result<Vec<&'static str>, String> {
    let text = match &node.value {
        Value::Null => return Ok(Vec::new()),
        Value::Bool(value) => value.to_string(),
        Value::Integer(value) => value.to_string(),
        Value::Number(text) | Value::Text(text) => text.clone(),
        Value::Sequence(nodes) => {
            let values = nodes.iter().map(texts).collect::<Result<Vec<_>, _>>()?;
            return Ok(values.concat());
        }
        Value::Mapping(_) => return Err("a text or a list is wanted, not a mapping".to_owned()),
    };
    Ok(if text.is_empty() { Vec::new() } else { vec![text.leak()] })
}

#[cfg(test)]
mod tests {
    use clap::{Args, FromArgMatches};

    use super::*;
    use crate::server::ServerArgs;

    fn read(text: &str, line: &[&str], server: Option<&str>) -> Result<ServerArgs, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("config.yaml");
        fs::write(&file, text).expect("a file");
        let command = ServerArgs::augment_args(Command::new("list"));
        let tree = Command::new("sinew").subcommand(super::super::flags::like_hubbles(command));
        let variable = |name: &str| server.filter(|_| name == "HUBBLE_SERVER").map(str::to_owned);
        let tree = with_defaults(tree, &file, variable)
            .map_err(|failure| failure.message.replace(&folder.path().display().to_string(), "DIR"))?;
        let words = ["sinew", "list"].into_iter().chain(line.iter().copied());
        let matches = tree.try_get_matches_from(words).map_err(|error| error.to_string())?;
        let (_, matches) = matches.subcommand().expect("list");
        Ok(ServerArgs::from_arg_matches(matches).expect("arguments"))
    }

    // What `hubble config view` writes, and a list.
    const WHOLE: &str = "basic-auth-password: \"\"\nconfig: /x\ndebug: true\nkube-namespace: kube-system\n\
                         port-forward: false\nport-forward-port: \"4245\"\nrequest-timeout: 1m30s\nserver: tls://a:1\n\
                         timeout: 7s\ntls: false\ntls-allow-insecure: true\ntls-ca-cert-files: [a.crt, b.crt]\n\
                         tls-server-name: ui.example.com\n";

    #[test]
    fn keys_are_defaults_of_flags() {
        let args = read(WHOLE, &[], None).expect("arguments");
        assert_eq!(args.server.as_deref(), Some("tls://a:1"));
        assert_eq!((args.timeout.as_secs(), args.request_timeout.as_secs()), (7, 90));
        assert_eq!(args.tls_ca_cert_files, [PathBuf::from("a.crt"), PathBuf::from("b.crt")]);
        assert_eq!(args.tls_server_name.as_deref(), Some("ui.example.com"));
        assert!(args.tls_allow_insecure && !args.tls && args.debug && args.forward.given().is_none());
        assert_eq!(args.basic_auth_password, None);
    }

    #[test]
    fn flags_and_variables_count_before_the_file() {
        let args = read(WHOLE, &["--server", "b:2", "--tls-allow-insecure=false", "--timeout", "1s"], None);
        let args = args.expect("arguments");
        assert_eq!((args.server.as_deref(), args.tls_allow_insecure), (Some("b:2"), false));
        assert_eq!(args.timeout.as_secs(), 1);
        let args = read(WHOLE, &[], Some("c:3")).expect("arguments");
        assert_eq!(args.server, None, "left to the variable");
    }

    #[test]
    fn what_is_wrong_has_its_line() {
        for (text, problem) in [
            ("tls: true\nsever: a:1\n", "--config DIR/config.yaml:2: \"sever\" is no key; one of allowlist,"),
            ("- a\n", "--config DIR/config.yaml:1: keys with values are wanted, not a list"),
            ("server: {a: b}\n", "--config DIR/config.yaml:1: server: a text or a list is wanted"),
            ("server: [\n", "--config DIR/config.yaml: line"),
        ] {
            let told = read(text, &[], None).expect_err(problem);
            assert!(told.contains(problem), "{text}: {told}");
        }
        assert!(read("timeout: soon\n", &[], None).is_err_and(|told| told.contains("soon")));
        assert!(read("port-forward: true\n", &[], None).is_ok_and(|args| args.forward.given().is_some()));
    }
}
