//! What is asked in which order, in what manner, and how a wrong command line is told.

use std::time::Duration;

use clap::Parser;

use super::*;
use crate::failure::Code as ExitCode;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    server: ServerArgs,
}

fn args(line: &str) -> ServerArgs {
    Line::try_parse_from(std::iter::once("x").chain(line.split_whitespace())).expect("a command line").server
}

fn chosen(line: &str, variables: &[(&str, &str)]) -> Vec<String> {
    let variable =
        |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    let found = candidates(&args(line), variable).expect("addresses");
    found.into_iter().map(|(address, why)| format!("{address} {why}")).collect()
}

#[test]
fn what_is_named_wins_in_order_and_alone() {
    let both = [("SINEW_SERVER", "a:1"), ("HUBBLE_SERVER", "b:2")];
    assert_eq!(chosen("--server unix:///x.sock", &both), ["unix:///x.sock --server"]);
    assert_eq!(chosen("", &both), ["a:1 $SINEW_SERVER"]);
    assert_eq!(chosen("", &both[1..]), ["b:2 $HUBBLE_SERVER"]);
    let default = ["unix:///run/sinew/agent.sock the node's socket", "localhost:4245 a relay"];
    assert_eq!(chosen("", &[]), default);
    assert_eq!(chosen("", &[("SINEW_SERVER", "")]), default, "an empty variable names nothing");
}

#[test]
fn tls_is_spoken_to_ports_when_it_is_asked_for() {
    assert_eq!(chosen("--server tls://h:1", &[]), ["tls://h:1 --server"]);
    assert_eq!(chosen("--server h:1 --tls", &[]), ["tls://h:1 --server"]);
    assert_eq!(chosen("--tls", &[("HUBBLE_SERVER", "h:1")]), ["tls://h:1 $HUBBLE_SERVER"]);
    let shown = "--server h:1 --tls-client-cert-file c --tls-client-key-file k";
    assert_eq!(chosen(shown, &[]), ["tls://h:1 --server"]);
    assert_eq!(chosen("--server unix:///x --tls", &[]), ["unix:///x --server"]);
    assert_eq!(chosen("--server h:1", &[]), ["h:1 --server"]);
    assert_eq!(chosen("--tls", &[])[1], "tls://localhost:4245 a relay");
}

#[tokio::test]
async fn a_wrong_command_line_is_told_by_what_is_wrong() {
    for (line, part) in [
        ("--server localhost", "--server \"localhost\" is no address"),
        ("--server host:99999", "is no address"),
        ("--server tls://h", "is no address"),
        ("--server http://h:1", "--server \"http://h:1\" is no address: no http://, but host:port"),
        ("--server tls://http://h:1", "no http://"),
        ("--server h:1 --tls --tls-ca-cert-files /nowhere/ca.crt", "/nowhere/ca.crt: No such file"),
        ("--port-forward", "--port-forward needs Kubernetes"),
        ("-P", "--port-forward needs Kubernetes"),
        ("--kube-context prod", "--kube-context needs Kubernetes"),
        ("--server tls://h:1 --basic-auth-username a:b --basic-auth-password x", "a name with a colon"),
    ] {
        let failure = connect(&args(line)).await.expect_err(line);
        assert_eq!(failure.code, ExitCode::TimedOut, "{line}: a usage error");
        assert!(failure.message.contains(part), "{line}: {failure}");
    }
    for line in ["--tls-client-cert-file c", "--tls-client-key-file k", "--basic-auth-username a"] {
        assert!(Line::try_parse_from(std::iter::once("x").chain(line.split_whitespace())).is_err(), "{line}");
    }
}

#[tokio::test]
async fn a_failure_tells_everything_that_was_tried() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.sock");
    let mut args = args(&format!("--server unix://{}", path.display()));
    args.socket = path;
    args.timeout = Duration::from_secs(1);
    let failure = connect(&args).await.expect_err("nobody listens");
    assert_eq!(failure.code, ExitCode::Unreachable);
    assert!(failure.message.contains("agent.sock (--server): No such file"), "{failure}");
}

/// TLS to a port that speaks something else, and a certificate that is not the one expected.
#[tokio::test]
async fn a_failure_of_tls_says_which_flag_mends_it() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let _ = tokio::io::AsyncWriteExt::write_all(&mut connection, b"HTTP/1.1 400 no\r\n\r\n").await;
        }
    });
    let line = format!("--server tls://{address} --tls-allow-insecure");
    let failure = connect(&args(&line)).await.expect_err("it speaks no TLS");
    assert_eq!(failure.code, ExitCode::Unreachable);
    assert!(failure.to_string().contains("it does not speak TLS"), "{failure}");
    for (problem, flag) in [
        ("invalid peer certificate: UnknownIssuer", "--tls-ca-cert-files FILE"),
        (
            "invalid peer certificate: certificate not valid for name \"a\"; it is for \"b\"",
            "--tls-server-name",
        ),
        ("Connection refused (os error 111)", "--server ADDRESS"),
    ] {
        assert!(next_step(problem).contains(flag), "{problem}");
    }
}

#[tokio::test]
async fn a_password_is_not_sent_in_the_clear() {
    let failure = connect(&args("--server h:1 --basic-auth-username a --basic-auth-password b")).await;
    assert!(failure.expect_err("refused").message.contains("over TLS only"));
}

// The example of RFC 7617, section 2.
#[test]
fn name_and_password_are_sent_as_the_rfc_says() {
    let args = args("--basic-auth-username Aladdin --basic-auth-password open");
    let args = ServerArgs { basic_auth_password: Some("open sesame".into()), ..args };
    let mut credentials = Credentials::of(&args).expect("credentials");
    let request = credentials.call(Request::new(())).expect("a request");
    let sent = request.metadata().get("authorization").expect("it is sent");
    assert_eq!(sent.to_str().expect("ASCII"), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
}
