//! `sinew version`: this command's version, and the agent's if one answers.

use anyhow::Result;
use clap::Args;
use serde_json::json;
use sinew_api::proto::agent::{GetVersionRequest, GetVersionResponse};

use crate::output::{self, Format};
use crate::{AgentArgs, agent};

/// Arguments of `sinew version`.
#[derive(Args)]
pub(crate) struct VersionArgs {
    /// Do not ask the agent
    #[arg(long)]
    client: bool,
    #[command(flatten)]
    agent: AgentArgs,
}

/// Shows the versions. An agent that does not answer is an answer, not a failure.
pub(crate) async fn run(args: &VersionArgs) -> Result<()> {
    let answer = if args.client { None } else { Some(ask(&args.agent).await) };
    let screen = args.agent.screen();
    if screen.format == Format::Table {
        return output::write(&text(env!("CARGO_PKG_VERSION"), answer.as_ref()));
    }
    let agent = match &answer {
        Some(Ok(version)) => output::to_value("GetVersionResponse", version)?,
        Some(Err(failure)) => json!({ "error": failure.message }),
        None => serde_json::Value::Null,
    };
    screen.show_value(&json!({ "client": { "version": env!("CARGO_PKG_VERSION") }, "agent": agent }))
}

async fn ask(args: &AgentArgs) -> Result<GetVersionResponse, crate::failure::Failure> {
    let answer = args.connect().await?.get_version(args.request(GetVersionRequest {})).await;
    answer.map(tonic::Response::into_inner).map_err(|status| agent::refused(&status))
}

fn text(client: &str, agent: Option<&Result<GetVersionResponse, crate::failure::Failure>>) -> String {
    let agent = match agent {
        None => return format!("sinew  {client}\n"),
        Some(Err(failure)) => format!("not asked: {}", failure.message),
        Some(Ok(version)) => {
            let commit =
                if version.commit.is_empty() { String::new() } else { format!(" ({})", version.commit) };
            format!(
                "{}{commit}, map layout {}, kernel {}",
                version.version, version.map_layout, version.kernel
            )
        }
    };
    format!("sinew  {client}\nagent  {agent}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_on_a_line_each() {
        let agent = GetVersionResponse {
            version: "0.1.0".into(),
            commit: "30b0b16".into(),
            map_layout: 1,
            kernel: "6.12.48".into(),
        };
        assert_eq!(
            text("0.1.0", Some(&Ok(agent))),
            "sinew  0.1.0\nagent  0.1.0 (30b0b16), map layout 1, kernel 6.12.48\n"
        );
        assert_eq!(text("0.1.0", None), "sinew  0.1.0\n");
    }

    #[test]
    fn no_agent_is_said_and_is_no_failure() {
        let failure = crate::failure::Failure::unreachable("no agent: /x does not exist");
        assert_eq!(
            text("0.1.0", Some(&Err(failure))),
            "sinew  0.1.0\nagent  not asked: no agent: /x does not exist\n"
        );
    }
}
