//! The agent at its socket: connecting, and what its gRPC statuses mean to the person at the terminal.
//!
//! Neighbours: every command that asks a running node; `failure.rs` has the exit codes.

use std::io::ErrorKind;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use sinew_api::proto::agent::agent_client::AgentClient;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use crate::failure::Failure;

/// A client of the agent's own service.
pub(crate) type Agent = AgentClient<Channel>;

/// Tables of a large node are large: 110 endpoints with 10,000 entries each stay below this.
const LARGEST_ANSWER_BYTES: usize = 256 << 20;

/// Connects to the agent at `socket`. `timeout` bounds each call that is not a stream.
pub(crate) async fn connect(socket: &Path, timeout: Duration) -> Result<Agent, Failure> {
    // tonic connects lazily and says only "transport error"; a plain connection first tells why it fails.
    UnixStream::connect(socket).map_err(|error| unreachable(socket, &error))?;
    let channel = Endpoint::from_shared(format!("unix:{}", socket.display()))
        .map_err(|error| Failure::usage(format!("{} can't be a socket's path: {error}", socket.display())))?
        .connect_timeout(timeout)
        .connect()
        .await
        .map_err(|error| {
            Failure::unreachable(format!("the agent at {} does not answer: {error}", socket.display()))
        })?;
    Ok(AgentClient::new(channel).max_decoding_message_size(LARGEST_ANSWER_BYTES))
}

/// A request with a deadline that the agent sees too.
pub(crate) fn within<T>(timeout: Duration, message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(timeout);
    request
}

/// What a status means here.
pub(crate) fn refused(status: &Status) -> Failure {
    let message =
        if status.message().is_empty() { status.code().to_string() } else { status.message().to_owned() };
    match status.code() {
        tonic::Code::NotFound => Failure::unknown_name(message),
        tonic::Code::DeadlineExceeded | tonic::Code::Cancelled => {
            Failure::timed_out(format!("the agent did not answer in time: {message}"))
                .next("give it longer: --request-timeout 1m")
        }
        tonic::Code::Unavailable => Failure::unreachable(format!("the agent went away: {message}"))
            .next("see whether it runs and what its log says"),
        tonic::Code::Unimplemented => {
            Failure::failed(format!("this agent does not know the request: {message}"))
                .next("compare the versions: sinew version")
        }
        _ => Failure::failed(message),
    }
}

fn unreachable(socket: &Path, error: &std::io::Error) -> Failure {
    let shown = socket.display();
    match error.kind() {
        ErrorKind::NotFound => Failure::unreachable(format!("no agent: {shown} does not exist"))
            .next("start sinew-agent on this node, or name its socket: --socket PATH or $SINEW_AGENT_SOCKET"),
        // The kernel refuses a connection to any other file too.
        ErrorKind::ConnectionRefused if !is_socket(socket) => {
            Failure::unreachable(format!("no agent: {shown} is no socket"))
                .next("name the agent's socket: --socket PATH or $SINEW_AGENT_SOCKET")
        }
        ErrorKind::ConnectionRefused => Failure::unreachable(format!(
            "no agent: nothing listens at {shown}, which a stopped agent left behind"
        ))
        .next("start sinew-agent on this node; pods keep their traffic meanwhile"),
        ErrorKind::PermissionDenied => {
            Failure::unreachable(format!("{shown} may be opened by its owner only")).next("run this as root")
        }
        _ => Failure::unreachable(format!("can't connect to {shown}: {error}"))
            .next("name the agent's socket: --socket PATH or $SINEW_AGENT_SOCKET"),
    }
}

/// Whether a socket stands there. What can't be looked at is taken for one, as it was named as one.
fn is_socket(path: &Path) -> bool {
    std::fs::metadata(path).map_or(true, |metadata| metadata.file_type().is_socket())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::failure::Code;

    #[test]
    fn a_missing_socket_and_a_dead_one_say_different_things() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.sock");
        let missing = UnixStream::connect(&path).map_err(|error| unreachable(&path, &error)).unwrap_err();
        assert_eq!(missing.code, Code::Unreachable);
        assert!(missing.message.ends_with("agent.sock does not exist"), "{missing}");

        drop(UnixListener::bind(&path).unwrap());
        let dead = UnixStream::connect(&path).map_err(|error| unreachable(&path, &error)).unwrap_err();
        assert!(dead.message.contains("nothing listens at"), "{dead}");

        let path = folder.path().join("passwd");
        std::fs::write(&path, "root").unwrap();
        for path in [path.as_path(), folder.path()] {
            let other = UnixStream::connect(path).map_err(|error| unreachable(path, &error)).unwrap_err();
            assert_eq!(other.code, Code::Unreachable);
            assert_eq!(other.message, format!("no agent: {} is no socket", path.display()));
        }
    }

    #[test]
    fn statuses_become_exit_codes() {
        for (status, code) in [
            (Status::not_found("no pod is called x"), Code::UnknownName),
            (Status::deadline_exceeded(""), Code::TimedOut),
            (Status::unavailable("broken pipe"), Code::Unreachable),
            (Status::invalid_argument("port: 70000 is above 65535"), Code::Failed),
        ] {
            assert_eq!(refused(&status).code, code, "{status}");
        }
        assert_eq!(
            refused(&Status::invalid_argument("port: 70000 is above 65535")).message,
            "port: 70000 is above 65535"
        );
    }
}
