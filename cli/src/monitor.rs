//! `sinew monitor`: raw events of the kernel as they come, before they get names. For whoever doubts the flows.

use anyhow::Result;
use clap::{Args, ValueEnum};
use sinew_api::proto::agent::{MonitorEvent, MonitorEventType, MonitorRequest};
use sinew_api::proto::flow::DropReason;

use crate::output::Paint;
use crate::output::paint::Tone;
use crate::{AgentArgs, agent, endpoint, when};

/// Arguments of `sinew monitor`.
#[derive(Args)]
pub(crate) struct MonitorArgs {
    /// Only these kinds of event
    #[arg(short = 't', long = "type", value_enum, value_delimiter = ',')]
    types: Vec<EventType>,
    /// Only events of this pod: NAME, NS/NAME, a unique prefix, or its number; repeatable
    #[arg(long, value_name = "POD")]
    endpoint: Vec<String>,
    /// Print the record's bytes too
    #[arg(long)]
    hex: bool,
    #[command(flatten)]
    agent: AgentArgs,
}

/// Kinds of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum EventType {
    /// A packet was dropped
    Drop,
    /// A packet passed a trace point
    Trace,
    /// A policy decided
    PolicyVerdict,
    /// A connection was closed
    Close,
    /// Events were lost
    Lost,
}

/// Prints events until it is stopped.
pub(crate) async fn run(args: &MonitorArgs) -> Result<()> {
    let request = MonitorRequest {
        types: args.types.iter().map(|kind| event_type(*kind).into()).collect(),
        endpoint_ids: endpoint_ids(args).await?,
    };
    let answer = args.agent.connect().await?.monitor(request).await;
    let mut stream = answer.map_err(|status| agent::refused(&status))?.into_inner();
    let screen = args.agent.screen();
    while let Some(event) = stream.message().await.map_err(|status| agent::refused(&status))? {
        screen.show_item("MonitorEvent", &event, |paint| line(&event, args.hex, paint))?;
    }
    Ok(())
}

async fn endpoint_ids(args: &MonitorArgs) -> Result<Vec<u32>> {
    if args.endpoint.is_empty() {
        return Ok(Vec::new());
    }
    let endpoints = endpoint::all(&args.agent).await?;
    args.endpoint.iter().map(|wanted| Ok(endpoint::find(wanted, &endpoints)?.id)).collect()
}

fn event_type(kind: EventType) -> MonitorEventType {
    match kind {
        EventType::Drop => MonitorEventType::MonitorDrop,
        EventType::Trace => MonitorEventType::MonitorTrace,
        EventType::PolicyVerdict => MonitorEventType::MonitorPolicyVerdict,
        EventType::Close => MonitorEventType::MonitorClose,
        EventType::Lost => MonitorEventType::MonitorLost,
    }
}

/// `2026-11-21T03:22:22.123456Z cpu 1 #42 ep 7  DROP POLICY_DENIED …`
fn line(event: &MonitorEvent, hex: bool, paint: Paint) -> String {
    let (tone, word) = match event.r#type() {
        MonitorEventType::MonitorDrop => (Tone::Bad, "drop"),
        MonitorEventType::MonitorTrace => (Tone::Plain, "trace"),
        MonitorEventType::MonitorPolicyVerdict => (Tone::Good, "verdict"),
        MonitorEventType::MonitorClose => (Tone::Faint, "close"),
        MonitorEventType::MonitorLost => (Tone::Odd, "LOST"),
        MonitorEventType::Unspecified => (Tone::Odd, "unknown"),
    };
    let mut text = format!("{} cpu {} #{}", when::timestamp(event.time.as_ref()), event.cpu, event.sequence);
    if event.endpoint_id != 0 {
        text.push_str(&format!(" ep {}", event.endpoint_id));
    }
    text.push_str(&format!(" {}", paint.tone(tone, word)));
    if event.r#type() == MonitorEventType::MonitorLost {
        text.push_str(&format!(" {} events", event.lost));
    }
    if event.drop_reason() != DropReason::Unknown {
        text.push_str(&format!(" {}", event.drop_reason().as_str_name()));
    }
    if event.sinew_reason != 0 {
        text.push_str(&format!(" ({})", event.sinew_reason));
    }
    if !event.text.is_empty() {
        text.push_str(&format!(" {}", event.text));
    }
    text.push('\n');
    if hex {
        for bytes in event.record.chunks(16) {
            let bytes = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
            text.push_str(&format!("  {bytes}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use prost_types::Timestamp;

    use super::*;

    #[test]
    fn a_drop_on_one_line() {
        let event = MonitorEvent {
            time: Some(Timestamp { seconds: 0, nanos: 5_000 }),
            cpu: 1,
            sequence: 42,
            r#type: MonitorEventType::MonitorDrop.into(),
            record: (0..18).collect(),
            endpoint_id: 7,
            drop_reason: DropReason::PolicyDenied.into(),
            text: "10.0.0.5:40000 -> 10.0.1.7:8080 TCP SYN".into(),
            ..MonitorEvent::default()
        };
        let expected = "1970-01-01T00:00:00.000005Z cpu 1 #42 ep 7 drop POLICY_DENIED 10.0.0.5:40000 -> 10.0.1.7:8080 TCP SYN\n";
        assert_eq!(line(&event, false, Paint::Plain), expected);
        let with_bytes = format!("{expected}  00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f\n  10 11\n");
        assert_eq!(line(&event, true, Paint::Plain), with_bytes);
    }

    #[test]
    fn a_loss_says_how_many() {
        let event =
            MonitorEvent { r#type: MonitorEventType::MonitorLost.into(), lost: 9, ..MonitorEvent::default() };
        assert_eq!(line(&event, false, Paint::Plain), " cpu 0 #0 LOST 9 events\n");
    }
}
