//! `sinew list`: the nodes that answer at a server, and the namespaces seen there, in the columns of Hubble's client.
//!
//! Neighbour: `observe.rs`, whose servers these are.

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use sinew_api::proto::observer::{GetNamespacesRequest, GetNodesRequest, Namespace, Node};
use sinew_api::proto::relay::NodeState;

use crate::observe;
use crate::output;
use crate::output::table::spaced;
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
                ListForm::Json => output::write(&observe::json_list("observer.Node", &nodes)?),
                form => output::write(&node_table(&nodes, form == ListForm::Wide)),
            }
        }
        ListCommand::Namespaces(args) => {
            let (mut client, _) = observe::connect(&args.server).await?;
            let request = crate::agent::within(args.server.request_timeout, GetNamespacesRequest {});
            let answer = client.get_namespaces(request).await.map_err(|status| server::refused(&status))?;
            let namespaces = answer.into_inner().namespaces;
            match args.output {
                ListForm::Json => output::write(&observe::json_list("observer.Namespace", &namespaces)?),
                form => output::write(&namespace_table(&namespaces, form == ListForm::Wide)),
            }
        }
    }
}

/// What a server does not know of a node.
const UNKNOWN: &str = "N/A";

fn node_table(nodes: &[Node], wide: bool) -> String {
    let mut header = vec!["NAME", "STATUS", "AGE", "FLOWS/S", "CURRENT/MAX-FLOWS"];
    if wide {
        header.extend(["VERSION", "ADDRESS", "TLS"]);
    }
    let mut rows = vec![header.into_iter().map(str::to_owned).collect::<Vec<_>>()];
    for node in nodes {
        // Half a second and more counts as one.
        let seconds = node.uptime_ns.saturating_add(500_000_000) / 1_000_000_000;
        let mut row = vec![
            node.name.clone(),
            state(node.state()).to_owned(),
            age(seconds),
            per_second(node.seen_flows, seconds),
            fill(node.num_flows, node.max_flows),
        ];
        if wide {
            let version = if node.version.is_empty() { UNKNOWN } else { &node.version };
            let tls =
                node.tls.as_ref().map_or(UNKNOWN, |tls| if tls.enabled { "Enabled" } else { "Disabled" });
            row.extend([version.to_owned(), node.address.clone(), tls.to_owned()]);
        }
        rows.push(row);
    }
    spaced(&rows)
}

fn namespace_table(namespaces: &[Namespace], wide: bool) -> String {
    let header =
        if wide { vec!["NAMESPACE".to_owned(), "CLUSTER".to_owned()] } else { vec!["NAMESPACE".to_owned()] };
    let mut rows = vec![header];
    for it in namespaces {
        let cluster = (wide && !it.cluster.is_empty()).then(|| it.cluster.clone());
        rows.push([it.namespace.clone()].into_iter().chain(cluster).collect());
    }
    spaced(&rows)
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

/// `3h0m7s`, with every unit below the largest, as Hubble's client writes a length of time.
fn age(seconds: u64) -> String {
    let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
    match (hours, minutes) {
        (0, 0) if seconds == 0 => UNKNOWN.to_owned(),
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{}s", seconds % 60),
        _ => format!("{hours}h{minutes}m{}s", seconds % 60),
    }
}

fn per_second(flows: u64, seconds: u64) -> String {
    if seconds == 0 { UNKNOWN.to_owned() } else { format!("{:.2}", flows as f64 / seconds as f64) }
}

fn fill(held: u64, capacity: u64) -> String {
    if capacity == 0 {
        return UNKNOWN.to_owned();
    }
    format!("{held}/{capacity} ({:6.2}%)", held as f64 / capacity as f64 * 100.0)
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
            uptime_ns: 99_600_000_000,
            num_flows: 22,
            max_flows: 4095,
            seen_flows: 1235,
        };
        let unknown = Node { name: "default/b".into(), address: "unix:/b".into(), ..Node::default() };
        // Written by Hubble's client for such nodes.
        let expected = "\
NAME        STATUS      AGE     FLOWS/S   CURRENT/MAX-FLOWS   VERSION   ADDRESS         TLS
default/a   Connected   1m40s   12.35     22/4095 (  0.54%)   0.1.0     10.0.0.1:4244   Enabled
default/b   Unknown     N/A     N/A       N/A                 N/A       unix:/b         N/A
";
        assert_eq!(node_table(&[node, unknown], true), expected);
    }

    #[test]
    fn ages_have_every_unit() {
        for (seconds, text) in
            [(0, "N/A"), (59, "59s"), (60, "1m0s"), (10_807, "3h0m7s"), (360_000, "100h0m0s")]
        {
            assert_eq!(age(seconds), text);
        }
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
