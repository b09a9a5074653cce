//! The command against an agent's socket: what it asks, what it prints, how it ends.
//!
//! The agent here (`agent/server.rs`) answers from fixed values over real gRPC on a real Unix socket; the lab has the
//! real agent. Expectations are what `--help` promises.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

#[path = "agent/server.rs"]
mod server;

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use server::Served;

fn sinew(served: &Served, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sinew"));
    command.args(words).env("SINEW_AGENT_SOCKET", &served.socket).env_remove("NO_COLOR").output().unwrap()
}

/// Exit code, stdout and stderr.
fn read(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_node_that_works_exits_0_and_one_that_does_not_exits_1() {
    let served = Served::start();
    let (code, out, _) = read(&sinew(&served, &["status"]));
    assert_eq!((code, out.lines().next()), (0, Some("node a: READY")), "{out}");

    served.set_ready(false);
    let (code, out, error) = read(&sinew(&served, &["status"]));
    assert_eq!((code, out.lines().next()), (1, Some("node a: NOT READY")));
    assert_eq!(error, "sinew: not working: policies\n");
}

#[test]
fn status_waits_until_the_node_is_ready_or_time_is_up() {
    let served = Served::start();
    served.set_ready(false);
    let start = Instant::now();
    let (code, _, error) = read(&sinew(&served, &["status", "--wait", "--wait-duration", "500ms"]));
    assert_eq!(code, 2);
    assert!(error.starts_with("sinew: not ready after 500ms: not working: policies\n"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(5));

    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| sinew(&served, &["status", "--wait"]));
        std::thread::sleep(Duration::from_millis(300));
        served.set_ready(true);
        assert_eq!(read(&waiting.join().unwrap()).0, 0);
    });
}

#[test]
fn pods_are_found_by_prefix_and_a_miss_lists_the_nearest() {
    let served = Served::start();
    let (code, out, _) = read(&sinew(&served, &["endpoint", "get", "we"]));
    assert_eq!((code, out.lines().next()), (0, Some("default/web  (endpoint 7 on node a)")));

    let (code, _, error) = read(&sinew(&served, &["endpoint", "get", "wbe"]));
    assert_eq!(code, 3);
    assert!(error.contains("no pod is called \"wbe\"\n  nearest: default/web\n"), "{error}");

    // An unknown number is the agent's to know.
    let (code, _, error) = read(&sinew(&served, &["identity", "get", "999"]));
    assert_eq!(code, 3);
    assert_eq!(error, "sinew: no identity has the number 999\n  list all: sinew identity list\n");
}

#[test]
fn an_empty_list_says_what_it_is_a_list_of() {
    let served = Served::start();
    let out = |words: &[&str]| {
        let (code, out, error) = read(&sinew(&served, words));
        assert_eq!((code, error.as_str()), (0, ""), "{words:?}");
        out
    };
    assert_eq!(out(&["policy", "list"]), "No policies: every pod is open in both directions.\n");
    let shown = out(&["policy", "list", "-n", "nope"]);
    assert_eq!(shown, "No policy in namespace nope; clusterwide ones are not shown by -n.\n");
    let shown = out(&["policy", "list", "--endpoint", "web"]);
    assert_eq!(shown, "No policy selects default/web.\n");
    assert_eq!(out(&["endpoint", "list", "-n", "nope"]), "No endpoint in namespace nope on this node.\n");
}

#[test]
fn programs_get_json_and_yaml() {
    let served = Served::start();
    let (code, out, _) = read(&sinew(&served, &["endpoint", "list", "-o", "json"]));
    let value: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &value["endpoints"][1]["identity"]), (0, &258.into()));
    assert_eq!(value["endpoints"][1]["ingress"]["mode"], "ENFORCING");

    let (_, out, _) = read(&sinew(&served, &["endpoint", "list", "-o", "yaml", "-n", "default"]));
    assert!(out.starts_with("endpoints:\n- addresses:\n  - 10.0.0.5\n"), "{out}");

    // A stream is one object a line.
    let (_, out, _) = read(&sinew(&served, &["conntrack", "list", "-o", "json"]));
    let lines =
        out.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()).collect::<Vec<_>>();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["sourcePort"], 40_000);
}

#[test]
fn explain_asks_what_was_typed() {
    let served = Served::start();
    let words = ["policy", "explain", "client", "world", "443/tcp", "-n", "default", "-o", "json"];
    let (code, out, _) = read(&sinew(&served, &words));
    // The server answers with the question that it got.
    let value: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, 0);
    assert_eq!(value["from"]["name"], "pod default/client");
    assert_eq!(value["to"]["name"], "entity world");
    assert_eq!((&value["port"], &value["protocol"]), (&443.into(), &"TCP".into()));

    let (code, _, error) =
        read(&sinew(&served, &["policy", "explain", "client", "world", "--expect", "denied"]));
    assert_eq!((code, error.as_str()), (1, "sinew: expected denied, found allowed\n"));
    let (code, _, error) = read(&sinew(&served, &["policy", "explain", "client", "nobody"]));
    assert_eq!((code, error.as_str()), (3, "sinew: no pod is called \"nobody\"; nearest: default/web\n"));
}

#[test]
fn a_late_answer_exits_2_and_says_how_to_wait_longer() {
    let served = Served::start();
    let (code, _, error) = read(&sinew(&served, &["map", "list", "--request-timeout", "200ms"]));
    assert_eq!(code, 2);
    assert!(error.contains("give it longer: --request-timeout 1m"), "{error}");

    let (code, out, error) = read(&sinew(&served, &["policy", "wait", "--timeout", "300ms"]));
    assert_eq!(code, 2);
    assert!(out.contains("b     behind"), "{out}");
    assert!(error.starts_with("sinew: not enforced everywhere after 300ms; behind: b\n"), "{error}");
}

#[test]
fn without_an_agent_every_command_exits_4_and_says_what_to_do() {
    let served = Served::start();
    let nowhere = served.socket.with_file_name("nowhere.sock");
    for words in [&["status"][..], &["endpoint", "list"], &["policy", "list"], &["monitor"], &["map", "list"]]
    {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sinew"));
        let (code, out, error) = read(&command.args(words).arg("--socket").arg(&nowhere).output().unwrap());
        assert_eq!((code, out.as_str()), (4, ""), "{words:?}");
        assert!(error.contains("nowhere.sock does not exist\n  start sinew-agent on this node"), "{error}");
    }
}

#[test]
fn flush_wants_to_be_told_which_connections() {
    let served = Served::start();
    let (code, _, error) = read(&sinew(&served, &["conntrack", "flush"]));
    assert_eq!(code, 2, "{error}");
    let (code, out, _) = read(&sinew(&served, &["conntrack", "flush", "--endpoint", "web"]));
    // The server counts a connection for each digit of the endpoint that it was asked for.
    assert_eq!((code, out.as_str()), (0, "1 forgotten\n"));
}

#[test]
fn colours_only_where_they_are_asked_for() {
    let served = Served::start();
    let (_, piped, _) = read(&sinew(&served, &["status"]));
    assert!(!piped.contains('\u{1b}'));
    let (_, forced, _) = read(&sinew(&served, &["status", "--color", "always"]));
    assert!(forced.contains("\u{1b}[32mREADY"), "{forced}");
}

#[test]
fn a_reader_that_has_enough_is_no_failure() {
    let served = Served::start();
    let binary = env!("CARGO_BIN_EXE_sinew");
    let script = format!("{binary} monitor | head -1; exit ${{PIPESTATUS[0]}}");
    let output = Command::new("bash")
        .args(["-c", &script])
        .env("SINEW_AGENT_SOCKET", &served.socket)
        .output()
        .unwrap();
    let (code, out, error) = read(&output);
    assert_eq!((code, error.as_str()), (0, ""));
    assert!(out.ends_with("drop POLICY_DENIED 10.0.0.5 -> 10.0.0.7\n"), "{out}");
}
