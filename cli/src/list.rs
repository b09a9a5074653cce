//! `sinew list`: the nodes that answer at a server, and the namespaces seen there, in the columns of Hubble's client.
//!
//! Neighbour: `observe.rs`, whose servers these are.

use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Subcommand, ValueEnum};
use sinew_api::proto::observer::{GetNamespacesRequest, GetNodesRequest, Namespace, Node};
use sinew_api::proto::relay::NodeState;

use crate::observe;
use crate::output;
use crate::output::Paint;
use crate::output::table::{Cell, Table};
use crate::server::{self, ServerArgs};

/// `sinew list`.
#[derive(Subcommand)]
pub(crate) enum ListCommand {
    /// Nodes whose flows the server has
    #[command(visible_alias = "node")]
    Nodes(ListArgs),
    /// Namespaces of the last hour's flows
    #[command(visible_alias = "namespace")]
    Namespaces(ListArgs),
}

/// Options of both lists.
#[derive(Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: ListForm,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum ListForm {
    /// Columns
    #[default]
    Table,
    /// More columns
    Wide,
    /// JSON
    Json,
}

/// Asks, and prints the list.
pub(crate) async fn run(command: &ListCommand) -> Result<()> {
    match command {
        ListCommand::Nodes(args) => {
            let (mut client, _) = observe::connect(&args.server).await?;
            let request = crate::agent::within(args.server.request_timeout, GetNodesRequest {});
            let answer = client.get_nodes(request).await.map_err(|status| server::refused(&status))?;
            let mut nodes = answer.into_inner().nodes;
            nodes.sort_by(|left, right| left.name.cmp(&right.name));
            match args.output {
                ListForm::Json => json("observer.Node", &nodes),
                form => output::write(&node_table(&nodes, form == ListForm::Wide)),
            }
        }
        ListCommand::Namespaces(args) => {
            let (mut client, _) = observe::connect(&args.server).await?;
            let request = crate::agent::within(args.server.request_timeout, GetNamespacesRequest {});
            let answer = client.get_namespaces(request).await.map_err(|status| server::refused(&status))?;
            let namespaces = answer.into_inner().namespaces;
            match args.output {
                ListForm::Json => json("observer.Namespace", &namespaces),
                form => output::write(&namespace_table(&namespaces, form == ListForm::Wide)),
            }
        }
    }
}

fn node_table(nodes: &[Node], wide: bool) -> String {
    let mut header = vec!["NAME", "STATUS", "AGE", "FLOWS/S", "CURRENT/MAX-FLOWS"];
    if wide {
        header.extend(["VERSION", "ADDRESS", "TLS"]);
    }
    let mut table = Table::new(&header);
    for node in nodes {
        let mut cells = vec![
            Cell::from(&node.name),
            Cell::from(state(node.state())),
            Cell::from(crate::when::brief(Duration::from_nanos(node.uptime_ns))),
            Cell::from(per_second(node.seen_flows, node.uptime_ns)),
            Cell::from(fill(node.num_flows, node.max_flows)),
        ];
        if wide {
            let tls = node.tls.as_ref().map_or("N/A", |tls| if tls.enabled { "Enabled" } else { "Disabled" });
            cells.extend([Cell::from(&node.version), Cell::from(&node.address), Cell::from(tls)]);
        }
        table.row(cells);
    }
    table.render(Paint::Plain, "None.")
}

fn namespace_table(namespaces: &[Namespace], wide: bool) -> String {
    let mut table = Table::new(if wide { &["NAMESPACE", "CLUSTER"] } else { &["NAMESPACE"] });
    for it in namespaces {
        let cluster = wide.then(|| Cell::from(&it.cluster));
        table.row([Cell::from(&it.namespace)].into_iter().chain(cluster));
    }
    table.render(Paint::Plain, "None.")
}

fn state(state: NodeState) -> &'static str {
    match state {
        NodeState::NodeConnected => "Connected",
        NodeState::NodeUnavailable => "Unavailable",
        NodeState::NodeGone => "Gone",
        NodeState::NodeError => "Error",
        NodeState::UnknownNodeState => "Unknown",
    }
}

fn per_second(flows: u64, uptime_ns: u64) -> String {
    let seconds = u128::from(uptime_ns / 1_000_000_000);
    // Two digits behind the point, without floating point.
    match (u128::from(flows) * 100).checked_div(seconds) {
        Some(hundredths) => format!("{}.{:02}", hundredths / 100, hundredths % 100),
        None => "N/A".to_owned(),
    }
}

fn fill(held: u64, capacity: u64) -> String {
    match (u128::from(held) * 10_000).checked_div(u128::from(capacity)) {
        Some(share) => format!("{held}/{capacity} ({:3}.{:02}%)", share / 100, share % 100),
        None => "N/A".to_owned(),
    }
}

/// A list of messages as one JSON array, keys as in the schema.
fn json<M: prost::Message>(name: &str, messages: &[M]) -> Result<()> {
    let parse = |message: &M| -> Result<serde_json::Value> {
        serde_json::from_str(&observe::json(name, message)?).context("read back JSON")
    };
    let values = messages.iter().map(parse).collect::<Result<Vec<_>>>()?;
    let text = serde_json::to_string_pretty(&values).context("write JSON")?;
    output::write(&format!("{text}\n"))
}

#[cfg(test)]
mod tests {
    use sinew_api::proto::observer::Tls;

    use super::*;

    #[test]
    fn nodes_have_the_columns_of_hubbles_client() {
        let node = Node {
            name: "default/a".into(),
            version: "0.1.0".into(),
            address: "10.0.0.1:4244".into(),
            state: NodeState::NodeConnected.into(),
            tls: Some(Tls { enabled: true, server_name: String::new() }),
            uptime_ns: 100_000_000_000,
            num_flows: 15,
            max_flows: 4095,
            seen_flows: 1234,
        };
        let unknown = Node { name: "default/b".into(), ..Node::default() };
        let lines: Vec<String> = node_table(&[node, unknown], true).lines().map(str::to_owned).collect();
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
        assert_eq!(words(&lines[0]), "NAME STATUS AGE FLOWS/S CURRENT/MAX-FLOWS VERSION ADDRESS TLS");
        assert_eq!(
            words(&lines[1]),
            "default/a Connected 1m40s 12.34 15/4095 ( 0.36%) 0.1.0 10.0.0.1:4244 Enabled"
        );
        assert_eq!(words(&lines[2]), "default/b Unknown 0s N/A N/A - - N/A");
    }

    #[test]
    fn namespaces_with_and_without_clusters() {
        let it = [Namespace { cluster: "default".into(), namespace: "shop".into() }];
        assert_eq!(namespace_table(&it, false), "NAMESPACE\nshop\n");
        assert_eq!(
            namespace_table(&it, true).split_whitespace().collect::<Vec<_>>(),
            ["NAMESPACE", "CLUSTER", "shop", "default"]
        );
    }
}
