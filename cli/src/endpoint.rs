//! `sinew endpoint list|get`: pods' interfaces, and per direction whether they are enforced, audited or open, and by
//! which policies.
//!
//! Neighbours: `endpoint/text.rs` writes it for people; `names.rs` finds the one that is meant.

mod text;

use std::time::SystemTime;

use anyhow::Result;
use clap::{Args, Subcommand};
use sinew_api::proto::agent::get_endpoint_request::By;
use sinew_api::proto::agent::{Endpoint, GetEndpointRequest, ListEndpointsRequest, ListEndpointsResponse};

use crate::failure::Failure;
use crate::{AgentArgs, agent, names};

/// `sinew endpoint …`.
#[derive(Subcommand)]
pub(crate) enum EndpointCommand {
    /// Every endpoint of the node
    List(ListArgs),
    /// One endpoint: addresses, labels, what enforces, and its compiled table
    Get(GetArgs),
}

/// Arguments of `sinew endpoint list`.
#[derive(Args)]
pub(crate) struct ListArgs {
    /// Only this namespace
    #[arg(short, long)]
    namespace: Option<String>,
    #[command(flatten)]
    agent: AgentArgs,
}

/// Arguments of `sinew endpoint get`.
#[derive(Args)]
pub(crate) struct GetArgs {
    /// Pod as NAME, NS/NAME or a unique prefix; or the endpoint's number, address or container id
    endpoint: String,
    /// Leave out the compiled table
    #[arg(long)]
    no_table: bool,
    #[command(flatten)]
    agent: AgentArgs,
}

/// Runs it.
pub(crate) async fn run(command: &EndpointCommand) -> Result<()> {
    match command {
        EndpointCommand::List(args) => list(args).await,
        EndpointCommand::Get(args) => get(args).await,
    }
}

async fn list(args: &ListArgs) -> Result<()> {
    let mut endpoints = all(&args.agent).await?;
    if let Some(namespace) = &args.namespace {
        endpoints.retain(|endpoint| endpoint.namespace == *namespace);
    }
    let answer = ListEndpointsResponse { endpoints };
    args.agent.screen().show("ListEndpointsResponse", &answer, |paint| {
        text::list(&answer.endpoints, args.namespace.as_deref(), paint)
    })
}

async fn get(args: &GetArgs) -> Result<()> {
    let endpoints = all(&args.agent).await?;
    let id = find(&args.endpoint, &endpoints)?.id;
    let request = args.agent.request(GetEndpointRequest { by: Some(By::Id(id)) });
    let answer = args.agent.connect().await?.get_endpoint(request).await;
    let mut answer = answer.map_err(|status| agent::refused(&status))?.into_inner();
    if args.no_table {
        answer.table.clear();
    }
    let now = SystemTime::now();
    args.agent
        .screen()
        .show("GetEndpointResponse", &answer, |paint| text::one(&answer, !args.no_table, now, paint))
}

/// Every endpoint of the agent's node.
pub(crate) async fn all(args: &AgentArgs) -> Result<Vec<Endpoint>, Failure> {
    let answer = args.connect().await?.list_endpoints(args.request(ListEndpointsRequest {})).await;
    Ok(answer.map_err(|status| agent::refused(&status))?.into_inner().endpoints)
}

/// The endpoint that a person means: by number, address, container id, or name.
pub(crate) fn find<'a>(wanted: &str, endpoints: &'a [Endpoint]) -> Result<&'a Endpoint, Failure> {
    let exact = endpoints.iter().find(|endpoint| {
        endpoint.id.to_string() == wanted
            || endpoint.addresses.iter().any(|address| address == wanted)
            || endpoint.container_id == wanted
    });
    if let Some(endpoint) = exact {
        return Ok(endpoint);
    }
    let all_names = endpoints.iter().map(name).collect::<Vec<_>>();
    match names::find(names::POD, wanted, &all_names) {
        Ok(index) => Ok(&endpoints[index]),
        Err(miss) => by_container(wanted, endpoints).ok_or(miss),
    }
}

/// Container ids are long; twelve digits are what other tools show.
fn by_container<'a>(wanted: &str, endpoints: &'a [Endpoint]) -> Option<&'a Endpoint> {
    let mut found =
        endpoints.iter().filter(|endpoint| wanted.len() >= 6 && endpoint.container_id.starts_with(wanted));
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

/// `ns/pod`, or the container where there is no pod.
pub(crate) fn name(endpoint: &Endpoint) -> String {
    match (endpoint.namespace.as_str(), endpoint.pod.as_str()) {
        (_, "") => endpoint.container_id.chars().take(12).collect(),
        ("", pod) => pod.to_owned(),
        (namespace, pod) => format!("{namespace}/{pod}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(id: u32, namespace: &str, pod: &str, container_id: &str, address: &str) -> Endpoint {
        Endpoint {
            id,
            namespace: namespace.into(),
            pod: pod.into(),
            container_id: container_id.into(),
            addresses: vec![address.into()],
            ..Endpoint::default()
        }
    }

    #[test]
    fn found_by_number_address_container_and_name() {
        let endpoints = [
            endpoint(1, "default", "web", "aaaaaaaabbbb1111", "10.0.0.1"),
            endpoint(2, "default", "db", "aaaaaaaacccc2222", "fd00::2"),
            endpoint(3, "", "", "ffff00001111222233", "10.0.0.3"),
        ];
        for (wanted, id) in [
            ("2", 2),
            ("10.0.0.1", 1),
            ("fd00::2", 2),
            ("web", 1),
            ("default/d", 2),
            ("aaaaaaaac", 2),
            ("ffff00001111", 3),
        ] {
            assert_eq!(find(wanted, &endpoints).unwrap().id, id, "{wanted}");
        }
        // A container prefix that fits two is no answer.
        assert!(find("aaaaaaaa", &endpoints).is_err());
    }
}
