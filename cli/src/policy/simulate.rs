//! `sinew policy simulate DIR --flows FILE`: recorded verdicts against the policies of a folder, and those that would be
//! another one.
//!
//! Replayed is what was judged: verdict flows, and drops by policy that no verdict flow tells of. The pods are those of
//! the folder; a pod that only the flows know is made from what they say of it. Neighbours: `simulate/recorded.rs`
//! reads the flows, `crate::offline` judges. A question that was answered in two ways while flows were recorded has a row
//! for each.

mod recorded;

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};
use sinew_api::proto::agent::{DirectionExplanation, ExplainRequest};
use sinew_api::proto::flow::{TrafficDirection, Verdict};

use crate::OutputArgs;
use crate::explain::words;
use crate::folder::Folder;
use crate::offline::Offline;
use crate::output::paint::Tone;
use crate::output::table::{Cell, Table};
use crate::output::{self, Format, Paint};
use crate::unread::Unread;
use recorded::{Question, Recording};

/// Arguments of `sinew policy simulate`.
#[derive(Args)]
pub(crate) struct SimulateArgs {
    /// Folder with the policies to try; its pods, namespaces and nodes count too
    dir: PathBuf,
    /// Recorded flows, as `sinew observe -o jsonpb` or `hubble observe -o jsonpb` writes them; - for stdin
    #[arg(long, value_name = "FILE")]
    flows: PathBuf,
    #[command(flatten)]
    output: OutputArgs,
}

/// One verdict that would be another one.
#[derive(Debug)]
struct Difference {
    question: Question,
    /// How many flows asked it and had that verdict.
    flows: u64,
    was: Verdict,
    becomes: Verdict,
    /// The rule or the policies behind the new verdict.
    by: String,
    /// Where that stands.
    place: String,
}

/// What came of a replay.
#[derive(Debug, Default)]
struct Replay {
    /// Flows that were judged anew.
    flows: u64,
    /// Different questions among them, each with each verdict that it had.
    questions: usize,
    differences: Vec<Difference>,
    /// What must be said of verdicts, changed or not, each once.
    notes: BTreeSet<String>,
    /// Questions that could not be judged, each with the reason.
    unknown: Vec<String>,
}

/// Replays the flows.
pub(crate) fn run(args: &SimulateArgs) -> Result<()> {
    let recording = Recording::read(&args.flows)?;
    let folder = Folder::read(&args.dir)?;
    let unread = Unread::of(&folder);
    unread.tell();
    let replay = replay(&recording, recording.folder().overlaid_by(&folder))?;
    let screen = args.output.screen();
    match screen.format {
        Format::Table => output::write(&text(&replay, screen.paint)),
        Format::Json | Format::Yaml => {
            let mut value = value(&replay);
            value["unread"] = unread.value();
            screen.show_value(&value)
        }
    }
}

fn replay(recording: &Recording, folder: Folder) -> Result<Replay> {
    let offline = Offline::new(&folder).context("read the folder into an engine")?;
    let mut replay = Replay { questions: recording.answers().count(), ..Replay::default() };
    for (question, was, flows) in recording.answers() {
        replay.flows += flows;
        let request = ExplainRequest {
            from: Some(question.from.party()),
            to: Some(question.to.party()),
            port: question.port,
            protocol: question.protocol.clone(),
            family: question.family.into(),
        };
        let ends = [question.from.exactly(), question.to.exactly()];
        let judged = match offline.explain_between(&request, ends) {
            Ok(answer) => {
                replay.notes.extend(answer.notes);
                answer.directions.into_iter().find(|judged| judged.direction() == question.direction())
            }
            Err(failure) => {
                replay.unknown.push(format!("{question}: {}", failure.message));
                continue;
            }
        };
        let Some(judged) = judged else {
            replay.unknown.push(format!("{question}: no policy is asked in this direction"));
            continue;
        };
        if passes(judged.verdict()) != passes(was) || is_audit(&judged) != (was == Verdict::Audit) {
            replay.differences.push(difference(question, flows, was, &judged));
        }
    }
    Ok(replay)
}

fn passes(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Forwarded | Verdict::Audit | Verdict::Redirected)
}

/// An allow that an audit policy would deny.
fn is_audit(judged: &DirectionExplanation) -> bool {
    passes(judged.verdict()) && judged.shadow_verdict() == Verdict::Dropped
}

fn difference(question: &Question, flows: u64, was: Verdict, judged: &DirectionExplanation) -> Difference {
    let audit = is_audit(judged);
    let becomes = if audit { Verdict::Audit } else { judged.verdict() };
    let rule = if audit { judged.shadow_rule.as_ref() } else { judged.rule.as_ref() };
    let (by, place) = match (rule, judged.switched_on.first()) {
        (Some(rule), _) => (words::rule(rule), words::place(rule)),
        (None, first) if !judged.denied_by.is_empty() => {
            let place = first.map(words::place).unwrap_or_default();
            (format!("default deny by {}", words::listed(&judged.denied_by)), place)
        }
        // Before any rule was asked.
        _ if judged.verdict() == Verdict::Dropped => {
            (judged.drop_reason().as_str_name().to_owned(), String::new())
        }
        _ => (String::new(), String::new()),
    };
    Difference { question: question.clone(), flows, was, becomes, by, place }
}

fn text(replay: &Replay, paint: Paint) -> String {
    let mut table = Table::new(&[
        "FLOWS",
        "FROM",
        "TO",
        "FAMILY",
        "TRAFFIC",
        "DIRECTION",
        "WAS",
        "BECOMES",
        "BY",
        "PLACE",
    ]);
    for difference in &replay.differences {
        let question = &difference.question;
        let cell = |verdict| {
            let (tone, word) = words::verdict(verdict);
            Cell::toned(tone, word)
        };
        table.row([
            difference.flows.into(),
            question.from.to_string().into(),
            question.to.to_string().into(),
            words::family(question.family).into(),
            words::asked(&question.protocol, question.port).into(),
            direction(question).into(),
            cell(difference.was),
            cell(difference.becomes),
            (&difference.by).into(),
            (&difference.place).into(),
        ]);
    }
    let count = replay.differences.len();
    let summary = format!(
        "{count} of {} would change ({} replayed)\n",
        words::count(replay.questions, "verdict", "verdicts"),
        words::count(usize::try_from(replay.flows).unwrap_or(usize::MAX), "flow", "flows")
    );
    let mut text = paint.tone(if count == 0 { Tone::Good } else { Tone::Odd }, &summary);
    if count > 0 {
        text.push('\n');
        text.push_str(&table.render(paint, ""));
    }
    if !replay.notes.is_empty() {
        text.push_str("\nTo know:\n");
        replay.notes.iter().for_each(|note| text.push_str(&format!("  {note}\n")));
    }
    if !replay.unknown.is_empty() {
        text.push_str(&format!("\n{} could not be judged:\n", replay.unknown.len()));
        replay.unknown.iter().for_each(|line| text.push_str(&format!("  {line}\n")));
    }
    text
}

fn value(replay: &Replay) -> Value {
    let differences = replay.differences.iter().map(|difference| {
        json!({
            "flows": difference.flows,
            "from": difference.question.from.to_string(),
            "to": difference.question.to.to_string(),
            "family": words::family(difference.question.family),
            "protocol": difference.question.protocol,
            "port": difference.question.port,
            "direction": direction(&difference.question),
            "was": difference.was.as_str_name(),
            "becomes": difference.becomes.as_str_name(),
            "by": difference.by,
            "place": difference.place,
        })
    });
    json!({
        "flows": replay.flows,
        "verdicts": replay.questions,
        "changes": differences.collect::<Vec<_>>(),
        "notes": replay.notes,
        "notJudged": replay.unknown,
    })
}

fn direction(question: &Question) -> &'static str {
    if question.direction() == TrafficDirection::Egress { "egress" } else { "ingress" }
}

#[cfg(test)]
mod tests;
