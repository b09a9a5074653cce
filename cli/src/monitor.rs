//! `sinew monitor`: raw events of the kernel as they come, before they get names. For whoever doubts the flows.

use anyhow::Result;
use clap::{Args, ValueEnum};
use sinew_api::proto::agent::{MonitorEvent, MonitorEventType, MonitorRequest};
use sinew_api::proto::flow::layer4::Protocol;
use sinew_api::proto::flow::{DropReason, Layer4, TrafficDirection, Verdict};

use crate::explain::words;
use crate::output::Paint;
use crate::output::paint::Tone;
use crate::{AgentArgs, agent, endpoint, when};

/// Arguments of `sinew monitor`.
#[derive(Args)]
pub(crate) struct MonitorArgs {
    /// Only these kinds of event
    #[arg(short = 't', long = "type", value_enum, value_delimiter = ',')]
    types: Vec<EventType>,
    /// Only events of this pod, or of packets to and from it: NAME, NS/NAME, a unique prefix, or its number; repeatable
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
    /// A policy decided, dropped packets among them
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

/// `2026-11-21T03:22:22.123456Z #42 ep 7 drop ingress POLICY_DENIED …`; the records of all CPUs come in one order, that of
/// time, and each CPU numbers its own.
fn line(event: &MonitorEvent, hex: bool, paint: Paint) -> String {
    let (tone, word) = match event.r#type() {
        MonitorEventType::MonitorDrop => (Tone::Bad, "drop"),
        MonitorEventType::MonitorTrace => (Tone::Plain, "trace"),
        MonitorEventType::MonitorPolicyVerdict => (Tone::Plain, "verdict"),
        MonitorEventType::MonitorClose => (Tone::Faint, "close"),
        MonitorEventType::MonitorLost => (Tone::Odd, "LOST"),
        MonitorEventType::Unspecified => (Tone::Odd, "unknown"),
    };
    let mut text = when::timestamp(event.time.as_ref());
    if event.r#type() != MonitorEventType::MonitorLost {
        text.push_str(&format!(" #{}", event.sequence));
    }
    if event.endpoint_id != 0 {
        text.push_str(&format!(" ep {}", event.endpoint_id));
    }
    text.push_str(&format!(" {}", paint.tone(tone, word)));
    if event.r#type() == MonitorEventType::MonitorPolicyVerdict && event.verdict() != Verdict::Unknown {
        let (tone, verdict) = words::verdict(event.verdict());
        text.push_str(&format!(" {}", paint.tone(tone, verdict)));
    }
    match event.direction() {
        TrafficDirection::Ingress => text.push_str(" ingress"),
        TrafficDirection::Egress => text.push_str(" egress"),
        TrafficDirection::Unknown => {}
    }
    if event.r#type() == MonitorEventType::MonitorLost {
        text.push_str(&format!(" {} events", event.lost));
    }
    if event.drop_reason() != DropReason::Unknown {
        text.push_str(&format!(" {}", event.drop_reason().as_str_name()));
    }
    if event.sinew_reason != 0 {
        text.push_str(&format!(" ({})", event.sinew_reason));
    }
    if let Some(ip) = &event.ip {
        let (from, to) = ports(event.l4.as_ref());
        let (from, to) = (socket(&ip.source, from), socket(&ip.destination, to));
        text.push_str(&format!(
            " {from} ({}) -> {to} ({})",
            event.source_identity, event.destination_identity
        ));
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

/// Ports, of protocols that have them.
fn ports(l4: Option<&Layer4>) -> (Option<u32>, Option<u32>) {
    match l4.and_then(|l4| l4.protocol.as_ref()) {
        Some(Protocol::Tcp(tcp)) => (Some(tcp.source_port), Some(tcp.destination_port)),
        Some(Protocol::Udp(udp)) => (Some(udp.source_port), Some(udp.destination_port)),
        Some(Protocol::Sctp(sctp)) => (Some(sctp.source_port), Some(sctp.destination_port)),
        Some(Protocol::IcmPv4(_) | Protocol::IcmPv6(_) | Protocol::Vrrp(_) | Protocol::Igmp(_)) | None => {
            (None, None)
        }
    }
}

fn socket(address: &str, port: Option<u32>) -> String {
    match port {
        None => address.to_owned(),
        Some(port) if address.contains(':') => format!("[{address}]:{port}"),
        Some(port) => format!("{address}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use prost_types::Timestamp;
    use sinew_api::proto::flow::{Ip, Tcp};

    use super::*;

    #[test]
    fn a_drop_on_one_line() {
        let event = MonitorEvent {
            time: Some(Timestamp { seconds: 0, nanos: 5_000 }),
            sequence: 42,
            r#type: MonitorEventType::MonitorDrop.into(),
            record: (0..18).collect(),
            endpoint_id: 7,
            direction: TrafficDirection::Ingress.into(),
            verdict: Verdict::Dropped.into(),
            drop_reason: DropReason::PolicyDenied.into(),
            text: "TCP Flags: SYN".into(),
            ip: Some(Ip { source: "10.0.0.5".into(), destination: "fd00::7".into(), ..Ip::default() }),
            l4: Some(Layer4 {
                protocol: Some(Protocol::Tcp(Tcp {
                    source_port: 40_000,
                    destination_port: 8080,
                    flags: None,
                })),
            }),
            source_identity: 257,
            destination_identity: 258,
            ..MonitorEvent::default()
        };
        let expected = "1970-01-01T00:00:00.000005Z #42 ep 7 drop ingress POLICY_DENIED \
                        10.0.0.5:40000 (257) -> [fd00::7]:8080 (258) TCP Flags: SYN\n";
        assert_eq!(line(&event, false, Paint::Plain), expected);
        let with_bytes = format!("{expected}  00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f\n  10 11\n");
        assert_eq!(line(&event, true, Paint::Plain), with_bytes);
    }

    #[test]
    fn a_verdict_says_what_and_in_which_direction() {
        let told = |verdict: Verdict, direction: TrafficDirection| {
            let event = MonitorEvent {
                sequence: 1,
                r#type: MonitorEventType::MonitorPolicyVerdict.into(),
                verdict: verdict.into(),
                direction: direction.into(),
                ..MonitorEvent::default()
            };
            line(&event, false, Paint::Plain)
        };
        assert_eq!(told(Verdict::Forwarded, TrafficDirection::Ingress), " #1 verdict allow ingress\n");
        assert_eq!(told(Verdict::Dropped, TrafficDirection::Egress), " #1 verdict deny egress\n");
        assert_eq!(told(Verdict::Unknown, TrafficDirection::Unknown), " #1 verdict\n");
    }

    #[test]
    fn a_loss_says_how_many() {
        let event =
            MonitorEvent { r#type: MonitorEventType::MonitorLost.into(), lost: 9, ..MonitorEvent::default() };
        assert_eq!(line(&event, false, Paint::Plain), " LOST 9 events\n");
    }
}
