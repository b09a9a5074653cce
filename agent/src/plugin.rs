//! The CNI plugin `sinew-cni`: what a container runtime executes once per command.
//!
//! It does as little as it can: reads its environment and standard input strictly, asks the agent over the node's CNI
//! socket in one line of JSON, and prints the result of the specification's version that it was asked for. It starts in
//! about a millisecond, so it has no async runtime, no logger and no configuration of its own; whatever it must
//! remember while the agent is away is one small file ([`queue`]).
//!
//! Specification: CNI 1.0.0 and 1.1.0. Neighbours: `sinew_api::cni` is the line both ends speak, `agent/src/cni`
//! answers it, `src/bin/sinew-cni.rs` is the binary.

mod config;
mod error;
mod exchange;
mod invocation;
mod netns;
pub mod queue;
mod report;

use std::io::{Read, Write};
use std::process::ExitCode;

use sinew_api::cni::{Request, Response};

pub use config::NetworkConfig;
pub use error::{Code, PluginError};
pub use invocation::{Command, Invocation};

/// Standard input beyond this is no network configuration; a runtime's is a few kilobytes.
const MAX_STDIN_BYTES: u64 = 4 << 20;

/// Runs one CNI command: `env` looks an environment variable up. The result or the error object goes to `stdout`.
pub fn run(env: &dyn Fn(&str) -> Option<String>, stdin: &mut dyn Read, stdout: &mut dyn Write) -> ExitCode {
    let (output, code) = match answer(env, stdin) {
        Ok(output) => (output, ExitCode::SUCCESS),
        Err((version, error)) => (Some(report::error(&version, &error)), ExitCode::FAILURE),
    };
    let written = output.map_or(Ok(()), |output| writeln!(stdout, "{output}").and_then(|()| stdout.flush()));
    // A result that nobody can read is a failure: the runtime then calls DEL.
    if written.is_err() { ExitCode::FAILURE } else { code }
}

/// The object to print, if the command has one. An error comes with the version that its object names.
fn answer(
    env: &dyn Fn(&str) -> Option<String>,
    stdin: &mut dyn Read,
) -> Result<Option<serde_json::Value>, (String, PluginError)> {
    let newest = || config::NEWEST.to_owned();
    let mut input = Vec::new();
    stdin
        .take(MAX_STDIN_BYTES + 1)
        .read_to_end(&mut input)
        .map_err(|source| (newest(), PluginError::Stdin { source }))?;
    if input.len() as u64 > MAX_STDIN_BYTES {
        return Err((newest(), PluginError::StdinTooLong { limit: MAX_STDIN_BYTES }));
    }
    let invocation =
        Invocation::parse(env, &input).map_err(|error| (config::answered_version(&input), error))?;
    let version = invocation.version().to_owned();
    execute(&invocation).map_err(|error| (version, error))
}

fn execute(invocation: &Invocation) -> Result<Option<serde_json::Value>, PluginError> {
    match invocation {
        Invocation::Version { version } => Ok(Some(report::version(version))),
        Invocation::Add { config, attachment, skip_netns_test } => {
            netns::must_be_a_pods(&attachment.netns, *skip_netns_test)?;
            match exchange::ask(&config.run_dir, &Request::Add(attachment.clone()), exchange::ADD)? {
                Response::Added(added) => Ok(Some(report::added(config, attachment, &added))),
                other => Err(refusal_or_surprise(other)),
            }
        }
        Invocation::Del { config, container_id, ifname } => {
            let request = Request::Del { container_id: container_id.clone(), ifname: ifname.clone() };
            match exchange::ask(&config.run_dir, &request, exchange::DEL) {
                Ok(Response::Done) => Ok(None),
                Ok(other) => Err(refusal_or_surprise(other)),
                Err(_away) => queue_del(config, &request, container_id, ifname),
            }
        }
        Invocation::Check { config, attachment } => {
            netns::must_be_a_pods(&attachment.netns, false)?;
            match exchange::ask(&config.run_dir, &Request::Check(attachment.clone()), exchange::CHECK)? {
                Response::Added(added) => {
                    invocation::previous_must_tell(config, attachment, &added)?;
                    Ok(None)
                }
                // An agent from before it told what it has.
                other => expect_done(other),
            }
        }
        Invocation::Gc { config, valid } => {
            let request = Request::Gc { network: config.name.clone(), valid: valid.clone() };
            expect_done(exchange::ask(&config.run_dir, &request, exchange::GC)?)
        }
        Invocation::Status { config } => {
            let response = exchange::ask(&config.run_dir, &Request::Status, exchange::STATUS)
                .map_err(|error| PluginError::NotAvailable { source: Box::new(error) })?;
            expect_done(response)
        }
    }
}

/// The agent is away: a DEL must succeed all the same, so it is written down for the agent's start.
///
/// The agent listens first and reads the queue second. So when nobody listens after the file is there, the agent has
/// not read the queue yet; when somebody does, it may have, and the request is made again directly.
fn queue_del(
    config: &NetworkConfig,
    request: &Request,
    container_id: &str,
    ifname: &str,
) -> Result<Option<serde_json::Value>, PluginError> {
    queue::put(&config.state_dir, container_id, ifname)?;
    if let Ok(Response::Done) = exchange::ask(&config.run_dir, request, exchange::DEL_AGAIN) {
        queue::remove(&config.state_dir, container_id, ifname)?;
    }
    Ok(None)
}

fn expect_done(response: Response) -> Result<Option<serde_json::Value>, PluginError> {
    match response {
        Response::Done => Ok(None),
        other @ (Response::Added(_) | Response::Refused { .. }) => Err(refusal_or_surprise(other)),
    }
}

fn refusal_or_surprise(response: Response) -> PluginError {
    match response {
        Response::Refused { code, message, details } => PluginError::Refused { code, message, details },
        Response::Done | Response::Added(_) => PluginError::Answer {
            reason: "it answers another question than the one that was asked".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests;
