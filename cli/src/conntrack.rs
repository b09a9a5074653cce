//! `sinew conntrack list|flush`: the connections that the node tracks, with the verdict that holds for each.

use std::time::Duration;

use anyhow::Result;
use clap::{Args, Subcommand};
use sinew_api::proto::agent::{
    ConntrackDirection, ConntrackEntry, FlushConntrackRequest, FlushConntrackResponse, ListConntrackRequest,
};

use crate::explain::words;
use crate::failure::Failure;
use crate::output::table::{Cell, Table};
use crate::output::{self, Format, Paint};
use crate::{AgentArgs, agent, endpoint, when};

/// `sinew conntrack …`.
#[derive(Subcommand)]
pub(crate) enum ConntrackCommand {
    /// Tracked connections: who opened them, what holds, how much went which way
    List(ListArgs),
    /// Forget connections; each is judged anew at its next packet
    Flush(FlushArgs),
}

/// Which connections.
#[derive(Args)]
struct Filter {
    /// Only connections of this pod: NAME, NS/NAME, a unique prefix, or its number
    #[arg(long, value_name = "POD")]
    endpoint: Option<String>,
    /// Only connections with this address at either end
    #[arg(long)]
    address: Option<std::net::IpAddr>,
    /// Only this protocol: TCP, UDP, SCTP, ICMP or ICMPv6
    #[arg(long, value_parser = ["TCP", "UDP", "SCTP", "ICMP", "ICMPv6"], ignore_case = true)]
    protocol: Option<String>,
}

/// Arguments of `sinew conntrack list`.
#[derive(Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    filter: Filter,
    /// Expired entries too, which hold memory and nothing else
    #[arg(long)]
    expired: bool,
    #[command(flatten)]
    agent: AgentArgs,
}

/// Arguments of `sinew conntrack flush`.
#[derive(Args)]
pub(crate) struct FlushArgs {
    #[command(flatten)]
    filter: Filter,
    /// Forget all of them
    #[arg(long, conflicts_with_all = ["endpoint", "address", "protocol"])]
    all: bool,
    #[command(flatten)]
    agent: AgentArgs,
}

/// Runs it.
pub(crate) async fn run(command: &ConntrackCommand) -> Result<()> {
    match command {
        ConntrackCommand::List(args) => list(args).await,
        ConntrackCommand::Flush(args) => flush(args).await,
    }
}

async fn list(args: &ListArgs) -> Result<()> {
    let endpoint = endpoint_of(&args.filter, &args.agent).await?;
    let request = ListConntrackRequest {
        endpoint,
        address: args.filter.address.map(|address| address.to_string()).unwrap_or_default(),
        protocol: args.filter.protocol.clone().unwrap_or_default(),
        expired: args.expired,
    };
    let mut stream = args
        .agent
        .connect()
        .await?
        .list_conntrack(request)
        .await
        .map_err(|s| agent::refused(&s))?
        .into_inner();
    let screen = args.agent.screen();
    let mut entries = Vec::new();
    while let Some(entry) = stream.message().await.map_err(|status| agent::refused(&status))? {
        if screen.format == Format::Table {
            entries.push(entry);
        } else {
            screen.show_item("ConntrackEntry", &entry, |_| String::new())?;
        }
    }
    if screen.format == Format::Table { output::write(&text(&entries, screen.paint)) } else { Ok(()) }
}

async fn flush(args: &FlushArgs) -> Result<()> {
    let filter = &args.filter;
    if !args.all && filter.endpoint.is_none() && filter.address.is_none() && filter.protocol.is_none() {
        return Err(Failure::usage("which connections?")
            .next("give --endpoint, --address or --protocol, or --all for every connection of the node")
            .into());
    }
    let request = FlushConntrackRequest {
        endpoint: endpoint_of(filter, &args.agent).await?,
        address: filter.address.map(|address| address.to_string()).unwrap_or_default(),
        protocol: filter.protocol.clone().unwrap_or_default(),
    };
    let answer = args.agent.connect().await?.flush_conntrack(args.agent.request(request)).await;
    let answer: FlushConntrackResponse = answer.map_err(|status| agent::refused(&status))?.into_inner();
    args.agent.screen().show("FlushConntrackResponse", &answer, |_| format!("{} forgotten\n", answer.removed))
}

/// The endpoint that the filter names, in the agent's words.
async fn endpoint_of(filter: &Filter, args: &AgentArgs) -> Result<String> {
    match &filter.endpoint {
        None => Ok(String::new()),
        Some(wanted) => Ok(endpoint::find(wanted, &endpoint::all(args).await?)?.id.to_string()),
    }
}

fn text(entries: &[ConntrackEntry], paint: Paint) -> String {
    let header =
        ["PROTO", "FROM", "TO", "STATE", "VERDICT", "IDENTITIES", "SENT", "BACK", "IDLE", "EXPIRES", "FLAGS"];
    let mut table = Table::new(&header);
    for entry in entries {
        let (tone, verdict) = words::verdict(entry.verdict());
        table.row([
            (&entry.protocol).into(),
            socket(&entry.source, entry.source_port).into(),
            socket(&entry.destination, entry.destination_port).into(),
            (&entry.state).into(),
            Cell::toned(tone, verdict),
            format!("{}->{}", entry.source_identity, entry.destination_identity).into(),
            counts(entry.forward.as_ref()).into(),
            counts(entry.reply.as_ref()).into(),
            idle(entry).into(),
            entry.expires_in.as_ref().map(remaining).unwrap_or_default().into(),
            entry.flags.join(",").into(),
        ]);
    }
    table.render(paint, "No connection is tracked.")
}

fn socket(address: &str, port: u32) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

/// `12p/900B`.
fn counts(direction: Option<&ConntrackDirection>) -> String {
    direction.map(|direction| format!("{}p/{}B", direction.packets, direction.bytes)).unwrap_or_default()
}

/// Of the direction that spoke last.
fn idle(entry: &ConntrackEntry) -> String {
    let halves = [entry.forward.as_ref(), entry.reply.as_ref()];
    let idle = halves.iter().flatten().filter(|half| half.packets > 0).filter_map(|half| half.idle.as_ref());
    idle.filter_map(|length| Duration::try_from(*length).ok()).min().map(when::brief).unwrap_or_default()
}

fn remaining(length: &prost_types::Duration) -> String {
    match Duration::try_from(*length) {
        Ok(length) => format!("in {}", when::brief(length)),
        Err(_negative) => "expired".into(),
    }
}

#[cfg(test)]
mod tests {
    use sinew_api::proto::flow::Verdict;

    use super::*;

    #[test]
    fn a_line_each() {
        let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        let half = |packets, bytes, idle| {
            Some(ConntrackDirection { packets, bytes, tcp_flags: None, idle: seconds(idle) })
        };
        let open = ConntrackEntry {
            protocol: "TCP".into(),
            source: "10.0.0.5".into(),
            source_port: 40_000,
            destination: "10.0.1.7".into(),
            destination_port: 8080,
            state: "established".into(),
            verdict: Verdict::Forwarded.into(),
            source_identity: 257,
            destination_identity: 258,
            forward: half(12, 900, 3),
            reply: half(10, 5_000, 2),
            expires_in: seconds(7_198),
            ..ConntrackEntry::default()
        };
        let dead = ConntrackEntry {
            source: "fd00::5".into(),
            destination: "fd00::7".into(),
            state: "denied".into(),
            verdict: Verdict::Dropped.into(),
            forward: half(1, 80, 61),
            reply: half(0, 0, 0),
            expires_in: seconds(-1),
            flags: vec!["picked-up".into()],
            ..open.clone()
        };
        let expected = "\
PROTO  FROM             TO              STATE        VERDICT  IDENTITIES  SENT      BACK       IDLE  EXPIRES   FLAGS
TCP    10.0.0.5:40000   10.0.1.7:8080   established  allow    257->258    12p/900B  10p/5000B  2s    in 1h59m  -
TCP    [fd00::5]:40000  [fd00::7]:8080  denied       deny     257->258    1p/80B    0p/0B      1m1s  expired   picked-up
";
        assert_eq!(text(&[open, dead], Paint::Plain), expected);
    }
}
