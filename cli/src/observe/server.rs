//! Whom to ask: the server named, or the first that answers of the places where one may be.
//!
//! `--server`, `$SINEW_SERVER`, `$HUBBLE_SERVER` name one and only that is tried. Without any: the node's own socket,
//! then localhost:4245, where a relay is forwarded to. A failure tells all that was tried.

use std::env;
use std::fmt;
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

use super::flags::ServerArgs;
use crate::failure::Failure;

/// Where a relay answers.
const RELAY: &str = "localhost:4245";

/// An address of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// A socket of this machine.
    Socket(String),
    /// `host:port`.
    Plain(String),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "unix://{path}"),
            Self::Plain(address) => f.write_str(address),
        }
    }
}

/// Connects to the server that the command line means.
pub(super) async fn connect(args: &ServerArgs) -> Result<(Channel, Address), Failure> {
    let candidates = candidates(args, |name| env::var(name).ok())?;
    let mut tried = Vec::new();
    for (address, why) in &candidates {
        match reach(address, args.timeout).await {
            Ok(channel) => return Ok((channel, address.clone())),
            Err(problem) => tried.push(format!("{address} ({why}): {problem}")),
        }
    }
    let failure = Failure::unreachable(format!("no server answers; tried {}", tried.join("; ")));
    Err(failure.next("name one: --server ADDRESS, $SINEW_SERVER or $HUBBLE_SERVER"))
}

/// Addresses to try, each with where it comes from.
fn candidates(
    args: &ServerArgs,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Vec<(Address, &'static str)>, Failure> {
    let set = |name| variable(name).filter(|value| !value.is_empty());
    let named = args.server.clone().map(|text| (text, "--server"));
    let named = named.or_else(|| set("SINEW_SERVER").map(|text| (text, "$SINEW_SERVER")));
    let named = named.or_else(|| set("HUBBLE_SERVER").map(|text| (text, "$HUBBLE_SERVER")));
    if let Some((text, why)) = named {
        return Ok(vec![(parse(&text, why)?, why)]);
    }
    let socket = Address::Socket(args.socket.display().to_string());
    Ok(vec![(socket, "the node's socket"), (Address::Plain(RELAY.to_owned()), "a relay")])
}

fn parse(text: &str, why: &str) -> Result<Address, Failure> {
    if let Some(path) = text.strip_prefix("unix://").or_else(|| text.strip_prefix("unix:")) {
        return Ok(Address::Socket(path.to_owned()));
    }
    if text.starts_with("tls://") {
        let failure = Failure::usage(format!("{why} {text}: this command speaks no TLS"));
        return Err(failure.next("ask the node's socket, or forward the port without TLS"));
    }
    let address = text.strip_prefix("tcp://").unwrap_or(text);
    match address.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
            Ok(Address::Plain(address.to_owned()))
        }
        _ => Err(Failure::usage(format!("{why} {text:?} is no address: host:port or unix:///path"))),
    }
}

async fn reach(address: &Address, timeout: Duration) -> Result<Channel, String> {
    let uri = match address {
        Address::Socket(path) => {
            // tonic says only "transport error"; a plain connection first tells why it fails.
            std::os::unix::net::UnixStream::connect(path).map_err(|error| error.to_string())?;
            format!("unix:{path}")
        }
        Address::Plain(address) => format!("http://{address}"),
    };
    let endpoint = Endpoint::from_shared(uri).map_err(|error| error.to_string())?.connect_timeout(timeout);
    endpoint.connect().await.map_err(|error| root_cause(&error))
}

/// The innermost error: what the kernel said.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Code;

    fn args(server: Option<&str>) -> ServerArgs {
        ServerArgs {
            server: server.map(str::to_owned),
            socket: "/run/sinew/agent.sock".into(),
            timeout: Duration::from_secs(1),
        }
    }

    fn chosen(server: Option<&str>, variables: &[(&str, &str)]) -> Vec<String> {
        let variable = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        let found = candidates(&args(server), variable).expect("addresses");
        found.into_iter().map(|(address, why)| format!("{address} {why}")).collect()
    }

    #[test]
    fn what_is_named_wins_in_order_and_alone() {
        let both = [("SINEW_SERVER", "a:1"), ("HUBBLE_SERVER", "b:2")];
        assert_eq!(chosen(Some("unix:///x.sock"), &both), ["unix:///x.sock --server"]);
        assert_eq!(chosen(None, &both), ["a:1 $SINEW_SERVER"]);
        assert_eq!(chosen(None, &both[1..]), ["b:2 $HUBBLE_SERVER"]);
        let default = ["unix:///run/sinew/agent.sock the node's socket", "localhost:4245 a relay"];
        assert_eq!(chosen(None, &[]), default);
        assert_eq!(chosen(None, &[("SINEW_SERVER", "")]), default, "an empty variable names nothing");
    }

    #[test]
    fn what_is_no_address_is_refused_by_its_source() {
        for (text, part) in
            [("localhost", "is no address"), ("host:99999", "is no address"), ("tls://h:443", "no TLS")]
        {
            let failure = candidates(&args(Some(text)), |_| None).expect_err("refused");
            assert_eq!(failure.code, Code::TimedOut, "a usage error");
            assert!(failure.message.contains(part) && failure.message.contains("--server"), "{failure}");
        }
    }

    #[tokio::test]
    async fn a_failure_tells_everything_that_was_tried() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.sock");
        let mut args = args(Some(&format!("unix://{}", path.display())));
        args.socket = path;
        let failure = connect(&args).await.expect_err("nobody listens");
        assert_eq!(failure.code, Code::Unreachable);
        assert!(failure.message.contains("agent.sock (--server): No such file"), "{failure}");
    }
}
