//! `sinew observe top`: talkers, drops by reason and hits of policies, window after window.
//!
//! On a terminal each window replaces the one before and has as many rows as fit; into a pipe, windows follow each other
//! with all their rows. The terminal's size is read for each window, so that the next one fits after a resize.

use std::fmt::Write;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use clap::Args;
use futures_util::StreamExt;
use sinew_api::proto::observer::get_flows_response::ResponseTypes;
use tokio::time::MissedTickBehavior;

use super::census::{Census, Naming};
use super::flags::{FilterArgs, FlowArgs, RawFilterArgs, SelectorArgs};
use super::request;
use crate::output;
use crate::output::Paint;
use crate::output::table::{Cell, Table};
use crate::server::{ServerArgs, refused};

/// Rows of each table where nothing says how many fit.
const ROWS: usize = 10;
/// Lines that are no rows: titles, headers, blanks.
const OTHER_LINES: usize = 11;

/// The command line.
#[derive(Args, Clone, Debug)]
pub(super) struct TopArgs {
    #[command(flatten)]
    filters: FilterArgs,
    #[command(flatten)]
    raw: RawFilterArgs,
    #[command(flatten)]
    server: ServerArgs,
    /// Length of a window
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration, value_name = "TIME")]
    interval: Duration,
    /// Windows to show; without it until interrupted
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// What the ends are called
    #[arg(long, value_enum, default_value_t, value_name = "WHAT")]
    by: Naming,
}

/// Follows flows and prints a window each interval.
pub(super) async fn run(args: &TopArgs) -> Result<()> {
    let flow_args = FlowArgs {
        selectors: SelectorArgs { follow: true, ..SelectorArgs::default() },
        filters: args.filters.clone(),
        raw: args.raw.clone(),
        ..FlowArgs::default()
    };
    let request = request::for_census(&flow_args, SystemTime::now())?;
    let (mut client, _) = super::connect(&args.server).await?;
    let mut stream = client.get_flows(request).await.map_err(|status| refused(&status))?.into_inner();
    let interval = args.interval.max(Duration::from_millis(100));
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + interval, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut census = Census::new(args.by);
    let mut shown = 0;
    while args.count.is_none_or(|count| shown < count) {
        tokio::select! {
            _ = ticks.tick() => {
                show(&census, interval)?;
                census = Census::new(args.by);
                shown += 1;
            }
            answer = stream.next() => match answer {
                None => return Ok(()),
                Some(answer) => match answer.map_err(|status| refused(&status))?.response_types {
                    Some(ResponseTypes::Flow(flow)) => census.count(&flow),
                    Some(ResponseTypes::LostEvents(lost)) => census.lost += lost.num_events_lost,
                    Some(ResponseTypes::NodeStatus(_)) | None => {}
                },
            },
        }
    }
    Ok(())
}

fn show(census: &Census, interval: Duration) -> Result<()> {
    if !super::stdout_is_terminal() || super::is_dumb(std::env::var_os("TERM").as_deref()) {
        return output::write(&format!("{}\n", window(census, interval, usize::MAX, usize::MAX)));
    }
    let (width, height) = terminal_size::terminal_size()
        .map_or((usize::MAX, 3 * ROWS + OTHER_LINES), |(width, height)| {
            (usize::from(width.0), usize::from(height.0))
        });
    // Home, then clear to the end of the screen: no flicker, and nothing remains of a longer window.
    output::write(&format!("\u{1b}[H\u{1b}[J{}", screen(census, interval, width, height)))
}

/// A window for a terminal of this size. The cursor ends in the line after it; with one line more the terminal would scroll.
fn screen(census: &Census, interval: Duration, width: usize, height: usize) -> String {
    let rows = height.saturating_sub(OTHER_LINES).max(3) / 3;
    let whole = window(census, interval, rows, width);
    whole.split_inclusive('\n').take(height.saturating_sub(1).max(1)).collect()
}

/// One window with at most so many rows in each table, lines cut at the width.
fn window(census: &Census, interval: Duration, rows: usize, width: usize) -> String {
    let mut text = String::new();
    let seconds = interval.as_secs_f64();
    let lost = if census.lost == 0 { String::new() } else { format!(", {} events lost", census.lost) };
    // Writing to a String can't fail.
    let _ = writeln!(text, "{} flows in {seconds:.1} s{lost}\n", census.flows);
    text.push_str(&talkers(census, rows));
    text.push('\n');
    text.push_str(&counted("DROPS", "REASON", &census.drops, rows));
    text.push('\n');
    text.push_str(&policies(census, rows));
    text.lines().map(|line| line.chars().take(width).collect::<String>() + "\n").collect()
}

fn talkers(census: &Census, rows: usize) -> String {
    let mut edges: Vec<_> = census.edges.iter().collect();
    edges.sort_by_key(|(edge, count)| (std::cmp::Reverse(count.flows()), (*edge).clone()));
    let mut table = Table::new(&["FLOWS", "DROPPED", "SOURCE", "DESTINATION", "PORT"]);
    for (edge, count) in edges.into_iter().take(rows) {
        table.row([
            Cell::from(count.flows()),
            Cell::from(count.dropped),
            Cell::from(&edge.source),
            Cell::from(&edge.destination),
            Cell::from(&edge.port),
        ]);
    }
    table.render(Paint::Plain, "No talkers.")
}

fn counted(
    title: &'static str,
    what: &'static str,
    counts: &std::collections::BTreeMap<String, u64>,
    rows: usize,
) -> String {
    let mut counts: Vec<_> = counts.iter().collect();
    counts.sort_by_key(|(name, count)| (std::cmp::Reverse(**count), (*name).clone()));
    let mut table = Table::new(&[title, what]);
    for (name, count) in counts.into_iter().take(rows) {
        table.row([Cell::from(count), Cell::from(name)]);
    }
    table.render(Paint::Plain, "No drops.")
}

fn policies(census: &Census, rows: usize) -> String {
    let mut counts: Vec<_> = census.policies.iter().collect();
    counts.sort_by_key(|(name, hits)| (std::cmp::Reverse(hits.sum()), (*name).clone()));
    let mut table = Table::new(&["ALLOWED", "DENIED", "AUDITED", "POLICY"]);
    for (name, hits) in counts.into_iter().take(rows) {
        table.row([
            Cell::from(hits.allowed),
            Cell::from(hits.denied),
            Cell::from(hits.audited),
            Cell::from(name),
        ]);
    }
    // Verdicts without a policy have no row, but count as verdicts.
    let none = match census.verdicts {
        0 => "No verdicts in this window.".to_owned(),
        1 => "1 verdict, by no policy: none applies to the pod.".to_owned(),
        many => format!("{many} verdicts, by no policy: none applies to the pods."),
    };
    table.render(Paint::Plain, &none)
}

#[cfg(test)]
mod tests {
    use sinew_api::proto::flow::{CiliumEventType, Flow, Ip, Policy, Verdict};

    use super::*;

    fn flow(destination: &str, event: i32, verdict: Verdict) -> Flow {
        let policy = Policy {
            name: "db".into(),
            namespace: "shop".into(),
            kind: "NetworkPolicy".into(),
            ..Policy::default()
        };
        Flow {
            ip: Some(Ip { source: "10.0.0.1".into(), destination: destination.into(), ..Ip::default() }),
            event_type: Some(CiliumEventType { r#type: event, sub_type: 133 }),
            verdict: verdict.into(),
            drop_reason_desc: if event == 1 { 133 } else { 0 },
            ingress_denied_by: vec![policy],
            ..Flow::default()
        }
    }

    #[test]
    fn the_busiest_come_first_and_rows_are_bounded() {
        let mut census = Census::new(Naming::Pod);
        for _ in 0..3 {
            census.count(&flow("10.0.0.3", 4, Verdict::Forwarded));
        }
        census.count(&flow("10.0.0.2", 5, Verdict::Dropped));
        census.count(&flow("10.0.0.2", 1, Verdict::Dropped));
        census.lost = 4;
        let expected = "\
5 flows in 2.0 s, 4 events lost

FLOWS  DROPPED  SOURCE    DESTINATION  PORT
3      0        10.0.0.1  10.0.0.3     -
1      1        10.0.0.1  10.0.0.2     -

DROPS  REASON
1      Policy denied

ALLOWED  DENIED  AUDITED  POLICY
0        1       0        netpol/shop/db
";
        assert_eq!(window(&census, Duration::from_secs(2), usize::MAX, usize::MAX), expected);
        let small = window(&census, Duration::from_secs(2), 1, 12);
        assert!(small.contains("3      0    \n") && !small.contains("10.0.0.2"), "{small}");
    }

    #[test]
    fn a_window_is_no_higher_than_its_terminal() {
        let mut census = Census::new(Naming::Pod);
        for number in 0..50 {
            census.count(&flow(&format!("10.0.0.{number}"), 5, Verdict::Dropped));
            census.count(&flow(&format!("10.0.0.{number}"), 1, Verdict::Dropped));
        }
        for height in 2..60 {
            let text = screen(&census, Duration::from_secs(2), 80, height);
            assert!(text.lines().count() < height, "{height} rows:\n{text}");
            assert!(text.starts_with("100 flows in 2.0 s\n"), "{text}");
        }
        let small = screen(&census, Duration::from_secs(2), 80, 8);
        assert!(small.contains("DROPS  REASON\n50     Policy denied\n"), "{small}");
        assert!(screen(&census, Duration::from_secs(2), 80, 24).contains("ALLOWED  DENIED  AUDITED  POLICY"));
    }

    #[test]
    fn a_quiet_window_says_so() {
        let text = window(&Census::new(Naming::Pod), Duration::from_millis(500), 5, 80);
        assert_eq!(text, "0 flows in 0.5 s\n\nNo talkers.\n\nNo drops.\n\nNo verdicts in this window.\n");
    }

    #[test]
    fn verdicts_by_no_policy_are_told() {
        let mut census = Census::new(Naming::Pod);
        for _ in 0..2 {
            census.count(&Flow { ingress_denied_by: vec![], ..flow("10.0.0.2", 5, Verdict::Forwarded) });
        }
        let text = window(&census, Duration::from_secs(1), 5, 80);
        assert!(text.ends_with("\n2 verdicts, by no policy: none applies to the pods.\n"), "{text}");
    }
}
