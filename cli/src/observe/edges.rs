//! `sinew observe edges`: who talks to whom, as a table, a graph for Graphviz, or JSON.

use std::time::SystemTime;

use anyhow::Result;
use clap::{Args, ValueEnum};
use futures_util::StreamExt;
use sinew_api::proto::observer::get_flows_response::ResponseTypes;

use super::census::{Census, Count, Edge, Naming};
use super::flags::{FilterArgs, FlowArgs, RawFilterArgs, SelectorArgs, TimeForm};
use super::{input, moment, request};
use crate::failure::Failure;
use crate::output;
use crate::output::Paint;
use crate::output::table::{Cell, Table};
use crate::server::{ServerArgs, refused};

/// Forms of the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum EdgeForm {
    /// Columns
    #[default]
    Table,
    /// A graph in Graphviz' language
    Dot,
    /// One JSON object a line
    Json,
}

/// The command line. It counts all that the server holds unless a selector says otherwise, and what is to come has no end.
#[derive(Args, Clone, Debug)]
#[command(mut_arg("all", |arg| arg.help("Everything that the server holds; so it is without a selector")))]
#[command(mut_arg("last", |arg| arg.help("The newest N; from a relay N of each node")))]
#[command(mut_arg("until", |arg| arg.help("Not after, as for --since")))]
#[command(mut_arg("follow", |arg| arg.hide(true)))]
pub(super) struct EdgeArgs {
    #[command(flatten)]
    selectors: SelectorArgs,
    #[command(flatten)]
    filters: FilterArgs,
    #[command(flatten)]
    raw: RawFilterArgs,
    #[command(flatten)]
    server: ServerArgs,
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: EdgeForm,
    /// What the ends are called
    #[arg(long, value_enum, default_value_t, value_name = "WHAT")]
    by: Naming,
    /// Read flows from this file (JSON, one a line; - for stdin) and ask nobody
    #[arg(long, value_name = "FILE")]
    input_file: Option<std::path::PathBuf>,
}

/// Reads all flows and prints the edges.
pub(super) async fn run(args: &EdgeArgs) -> Result<()> {
    if args.selectors.follow {
        return Err(
            Failure::usage("edges are of flows that are past; for coming ones: sinew observe top").into()
        );
    }
    let request = request::for_census(&flow_args(args), SystemTime::now())?;
    let mut census = Census::new(args.by);
    if let Some(path) = &args.input_file {
        for answer in input::read(path, &request)? {
            take(&mut census, answer?.response_types);
        }
    } else {
        let (mut client, _) = super::connect(&args.server).await?;
        let mut stream = client.get_flows(request).await.map_err(|status| refused(&status))?.into_inner();
        while let Some(answer) = stream.next().await {
            take(&mut census, answer.map_err(|status| refused(&status))?.response_types);
        }
    }
    output::write(&text(&census, args.output))
}

fn take(census: &mut Census, answer: Option<ResponseTypes>) {
    match answer {
        Some(ResponseTypes::Flow(flow)) => census.count(&flow),
        Some(ResponseTypes::LostEvents(lost)) => census.lost += lost.num_events_lost,
        Some(ResponseTypes::NodeStatus(_)) | None => {}
    }
}

fn flow_args(args: &EdgeArgs) -> FlowArgs {
    FlowArgs {
        selectors: args.selectors.clone(),
        filters: args.filters.clone(),
        raw: args.raw.clone(),
        ..FlowArgs::default()
    }
}

fn text(census: &Census, form: EdgeForm) -> String {
    match form {
        EdgeForm::Table => table(census),
        EdgeForm::Dot => dot(census),
        EdgeForm::Json => census.edges.iter().map(|(edge, count)| json(edge, count)).collect(),
    }
}

fn table(census: &Census) -> String {
    let mut table = Table::new(&["SOURCE", "DESTINATION", "PORT", "FORWARDED", "DROPPED", "AUDITED", "LAST"]);
    for (edge, count) in &census.edges {
        table.row([
            Cell::from(&edge.source),
            Cell::from(&edge.destination),
            Cell::from(&edge.port),
            Cell::from(count.forwarded),
            Cell::from(count.dropped),
            Cell::from(count.audited),
            Cell::from(moment::text(count.last.as_ref(), TimeForm::StampMilli)),
        ]);
    }
    let mut text = table.render(Paint::Plain, "No flows between addresses.");
    if census.lost > 0 {
        text.push_str(&format!("\n{} events were lost, so that counts are too low.\n", census.lost));
    }
    text
}

fn dot(census: &Census) -> String {
    let mut text = String::from("digraph flows {\n    rankdir=LR;\n");
    for (edge, count) in &census.edges {
        let colour = match (count.dropped, count.audited) {
            (0, 0) => "black",
            (0, _) => "orange",
            _ => "red",
        };
        let denied = if count.dropped == 0 { String::new() } else { format!(", {} dropped", count.dropped) };
        let label = format!("{} ({} flows{denied})", edge.port, count.flows());
        text.push_str(&format!(
            "    {} -> {} [label={}, color={colour}];\n",
            quoted(&edge.source),
            quoted(&edge.destination),
            quoted(&label)
        ));
    }
    text.push_str("}\n");
    text
}

/// A name in Graphviz' quotes.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn json(edge: &Edge, count: &Count) -> String {
    let value = serde_json::json!({
        "source": edge.source,
        "destination": edge.destination,
        "port": edge.port,
        "forwarded": count.forwarded,
        "dropped": count.dropped,
        "audited": count.audited,
        "last": moment::text(count.last.as_ref(), TimeForm::Rfc3339Nano),
    });
    format!("{value}\n")
}

#[cfg(test)]
mod tests {
    use prost_types::Timestamp;

    use super::*;

    /// It counts everything, and has no `--follow`: its help promises neither a last 20 nor that flag.
    #[test]
    fn the_help_is_of_what_it_does() {
        let mut command = EdgeArgs::augment_args(clap::Command::new("edges"));
        let help = command.render_long_help().to_string();
        assert!(!help.contains("[default: 20]") && !help.contains("--follow"), "{help}");
        assert!(help.contains("Everything that the server holds; so it is without a selector"), "{help}");
        assert!(help.contains("--not[=<BOOL>]") && help.contains("--all-namespaces[=<BOOL>]"), "{help}");
    }

    fn census() -> Census {
        let mut census = Census::new(Naming::Workload);
        let edge = |source: &str, destination: &str, port: &str| Edge {
            source: source.into(),
            destination: destination.into(),
            port: port.into(),
        };
        let last = Some(Timestamp { seconds: 1_795_230_000, nanos: 0 });
        census.edges.insert(
            edge("shop/web", "shop/db", "5432/TCP"),
            Count { forwarded: 3, last, ..Count::default() },
        );
        census
            .edges
            .insert(edge("shop/web", "wor\"ld", "22/TCP"), Count { dropped: 2, last, ..Count::default() });
        census
    }

    #[test]
    fn losses_in_a_file_are_counted_as_those_of_a_server() {
        let mut census = Census::new(Naming::Workload);
        let file = tempfile::NamedTempFile::new().expect("a file");
        let lines =
            "{\"flow\":{\"IP\":{\"source\":\"192.0.2.1\"}}}\n{\"lost_events\":{\"num_events_lost\":\"7\"}}\n";
        std::fs::write(file.path(), lines).expect("two lines");
        for answer in input::read(file.path(), &Default::default()).expect("a recording") {
            take(&mut census, answer.expect("an answer").response_types);
        }
        assert_eq!((census.flows, census.lost), (1, 7));
    }

    #[test]
    fn a_table_and_a_word_about_losses() {
        let mut census = census();
        let expected = "\
SOURCE    DESTINATION  PORT      FORWARDED  DROPPED  AUDITED  LAST
shop/web  shop/db      5432/TCP  3          0        0        Nov 21 03:00:00.000
shop/web  wor\"ld       22/TCP    0          2        0        Nov 21 03:00:00.000
";
        assert_eq!(text(&census, EdgeForm::Table), expected);
        census.lost = 7;
        assert!(
            text(&census, EdgeForm::Table).ends_with("\n7 events were lost, so that counts are too low.\n")
        );
    }

    #[test]
    fn a_graph_whose_names_are_quoted() {
        let expected = r#"digraph flows {
    rankdir=LR;
    "shop/web" -> "shop/db" [label="5432/TCP (3 flows)", color=black];
    "shop/web" -> "wor\"ld" [label="22/TCP (2 flows, 2 dropped)", color=red];
}
"#;
        assert_eq!(text(&census(), EdgeForm::Dot), expected);
    }

    #[test]
    fn json_lines() {
        let text = text(&census(), EdgeForm::Json);
        let first: serde_json::Value =
            serde_json::from_str(text.lines().next().expect("a line")).expect("JSON");
        assert_eq!(first["destination"], "shop/db");
        assert_eq!(
            (first["forwarded"].as_u64(), first["last"].as_str()),
            (Some(3), Some("2026-11-21T03:00:00Z"))
        );
    }
}
