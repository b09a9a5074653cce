//! Flows as lines that a person can compare with the tables of docs/observability.md, and how a test knows that all of
//! them are there: a datagram that is sent after everything else, whose flow comes after everything else.
//!
//! A line has what Hubble's own validation compares: whether the packet is an answer, its flags, the event or observation
//! point, direction, verdict, trace or drop reason, and the policies by name. That the ends have the right addresses and
//! names is part of the arrow: where they have not, the line says so and is like no other.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sinew_tests::lab::flows::Flow;
use sinew_tests::lab::process::pause;
use sinew_tests::lab::{Family, Lab, Node, Place};

use super::table::Lines;

/// What must be seen of one conversation.
pub(crate) struct Talk<'a> {
    /// For a person.
    pub(crate) what: String,
    /// Who opens it and who is asked.
    pub(crate) ends: [&'a Place; 2],
    /// Their addresses as packets have them.
    pub(crate) addresses: [IpAddr; 2],
    /// The opener's port; without one it is ICMP.
    pub(crate) port: Option<u16>,
    /// When it began.
    pub(crate) since: SystemTime,
    /// What the nodes must tell.
    pub(crate) expected: Lines,
}

impl<'a> Talk<'a> {
    /// Ports that are nobody's by chance: behind the kernel's range for that.
    pub(crate) fn free_port() -> u16 {
        static NEXT: AtomicU16 = AtomicU16::new(61_000);
        NEXT.fetch_add(1, Ordering::Relaxed)
    }

    /// A conversation between two places that begins now.
    pub(crate) fn between(what: String, ends: [&'a Place; 2], family: Family, expected: Lines) -> Self {
        let addresses = ends.map(|end| end.address(family));
        Self { what, ends, addresses, port: None, since: SystemTime::now(), expected }
    }

    /// What a node must tell.
    fn expected_of(&self, lab: &Lab, node: &Node) -> &[String] {
        let role = if home(lab, self.ends[0]) == Some(node.name()) {
            "sender's"
        } else if home(lab, self.ends[1]) == Some(node.name()) {
            "receiver's"
        } else {
            ""
        };
        self.expected.get(role).map_or(&[], Vec::as_slice)
    }

    /// What it has told.
    fn told_by(&self, node: &Node, flows: &[Flow]) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        for flow in flows {
            if let Some(answer) = self.is_answer(flow)? {
                lines.push(self.line(node, flow, answer));
            }
        }
        Ok(lines)
    }

    /// Whether a flow is of this conversation, and then whether the packet goes to the opener.
    fn is_answer(&self, flow: &Flow) -> Result<Option<bool>> {
        let raw = flow.raw();
        let time = raw.get("time").and_then(Value::as_str).context("a flow has a time")?;
        let time: jiff::Timestamp = time.parse().with_context(|| format!("{time} is no time"))?;
        let address = |key: &str| raw.pointer(key).and_then(Value::as_str).and_then(|it| it.parse().ok());
        let ends: [Option<IpAddr>; 2] = ["/IP/source", "/IP/destination"].map(address);
        let [opener, other] = self.addresses.map(Some);
        let answer = ends == [other, opener];
        let own = ends == [opener, other] || answer;
        let key = if answer { "destination_port" } else { "source_port" };
        let layers = raw.get("l4").and_then(Value::as_object).into_iter().flat_map(|l4| l4.values());
        let port = layers.filter_map(|l4| l4.get(key)?.as_u64()).next();
        let mine = own && port == self.port.map(u64::from) && time >= jiff::Timestamp::try_from(self.since)?;
        Ok(mine.then_some(answer))
    }

    fn line(&self, node: &Node, flow: &Flow, answer: bool) -> String {
        let raw = flow.raw();
        let text = |key: &str| raw.pointer(key).and_then(Value::as_str).unwrap_or_default();
        let (arrow, known) = match raw.get("is_reply").and_then(Value::as_bool) {
            Some(reply) if reply != answer => ("the wrong way:", true),
            Some(true) => ("←", true),
            Some(false) => ("→", true),
            None => ("◇", false),
        };
        let event = match raw.pointer("/event_type/type").and_then(Value::as_u64) {
            Some(1) => "drop".to_owned(),
            Some(4) => text("/trace_observation_point").to_lowercase().replace('_', "-"),
            Some(5) => "verdict".to_owned(),
            other => format!("an event of type {other:?}"),
        };
        let mut line =
            format!("{arrow} {} {event} {} {}", packet(raw), text("/traffic_direction"), flow.verdict());
        match event.as_str() {
            "verdict" => {}
            "drop" => line += &format!(" {}", flow.drop_reason()),
            _ => line += &format!(" {}", text("/trace_reason")),
        }
        let policies = [flow.allowed_by(), flow.denied_by()].concat();
        if !policies.is_empty() {
            line += &format!(" by {}", policies.join(", "));
        }
        // Who nobody has judged has no identity; its address may still have a name.
        if known {
            let [opener, other] = self.ends.map(|end| name(end, node));
            let wanted = if answer { [other, opener] } else { [opener, other] };
            let named = ["/source", "/destination"].map(|end| shown(raw.pointer(end)));
            if named != wanted {
                line += &format!(", which is said to be from {} to {}", named[0], named[1]);
            }
        }
        line
    }
}

/// Waits for what must come, then for whatever else there is, and compares.
pub(crate) fn check(lab: &Lab, talks: &[Talk<'_>]) -> Result<()> {
    /// A flow that is not there after this does not come.
    const PATIENCE: Duration = Duration::from_secs(10);
    let since = talks.iter().map(|talk| talk.since).min().context("no conversation")?;
    let patience = SystemTime::now() + PATIENCE;
    while SystemTime::now() < patience {
        let flows = read(lab, since)?;
        let mut missing = false;
        for (talk, node) in pairs(lab, talks) {
            let told = talk.told_by(node, &flows[node.name()])?;
            missing |= told.len() < talk.expected_of(lab, node).len();
        }
        if !missing {
            break;
        }
        pause(Duration::from_millis(20))?;
    }
    fence(lab)?;
    let flows = read(lab, since)?;
    let mut wrong = Vec::new();
    for (talk, node) in pairs(lab, talks) {
        let (told, expected) =
            (talk.told_by(node, &flows[node.name()])?, talk.expected_of(lab, node).to_vec());
        if told != expected {
            let (told, expected) = (told.join("\n  "), expected.join("\n  "));
            let (what, node) = (&talk.what, node.name());
            wrong.push(format!("{what}: node {node} must tell\n  {expected}\nand told\n  {told}"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// Lines of one conversation that have come, on one node, for a test that knows only in part what must.
pub(crate) fn lines(lab: &Lab, node: &Node, talk: &Talk<'_>) -> Result<Vec<String>> {
    fence(lab)?;
    talk.told_by(node, &node.flows(Some(talk.since))?)
}

/// Each node's pod that nothing but this speaks with gets a datagram from it: when that is told, so is all before it.
fn fence(lab: &Lab) -> Result<()> {
    static NEXT: AtomicU16 = AtomicU16::new(20_000);
    for node in lab.nodes() {
        let pod = node.pods().into_iter().find(|pod| pod.name().starts_with("fence"));
        let pod = pod.with_context(|| format!("node {} has no fence", node.name()))?;
        let port = NEXT.fetch_add(1, Ordering::Relaxed);
        let since = SystemTime::now();
        node.udp(pod.address(Family::V4), port)?;
        node.flow(since, "behind all others", |flow| {
            flow.destination() == pod.name() && flow.port() == Some(port.into())
        })?;
    }
    Ok(())
}

fn read(lab: &Lab, since: SystemTime) -> Result<BTreeMap<String, Vec<Flow>>> {
    lab.nodes().map(|node| Ok((node.name().to_owned(), node.flows(Some(since))?))).collect()
}

fn pairs<'a>(lab: &'a Lab, talks: &'a [Talk<'a>]) -> impl Iterator<Item = (&'a Talk<'a>, &'a Node)> {
    talks.iter().flat_map(move |talk| lab.nodes().map(move |node| (talk, &**node)))
}

/// The node of a place, by name.
fn home<'a>(lab: &'a Lab, place: &Place) -> Option<&'a str> {
    let has =
        |node: &Node| node.name() == place.name() || node.pods().iter().any(|pod| pod.name() == place.name());
    lab.nodes().find(|node| has(node)).map(|node| node.name())
}

/// What a node's flows must call a place.
fn name(place: &Place, node: &Node) -> String {
    match place.name() {
        "outside" => "reserved:world".to_owned(),
        name if name == node.name() => "reserved:host".to_owned(),
        name if name.len() == 1 => "reserved:remote-node".to_owned(),
        pod => pod.to_owned(),
    }
}

/// What they do call it.
fn shown(end: Option<&Value>) -> String {
    let text = |key: &str| end.and_then(|end| end.get(key)?.as_str()).unwrap_or_default();
    if !text("pod_name").is_empty() {
        return text("pod_name").to_owned();
    }
    let label = end.and_then(|end| end.pointer("/labels/0")?.as_str()).unwrap_or("nobody");
    // The world of one family.
    if label.starts_with("reserved:world") { "reserved:world".to_owned() } else { label.to_owned() }
}

/// The packet: flags of TCP, kind of ICMP message, or the protocol.
fn packet(raw: &Value) -> String {
    let Some((protocol, header)) = raw.get("l4").and_then(Value::as_object).and_then(|l4| l4.iter().next())
    else {
        return "no transport".to_owned();
    };
    let number = |key: &str| header.get(key).and_then(Value::as_u64).unwrap_or_default();
    match (protocol.as_str(), number("type")) {
        ("TCP", _) => {
            let set = |flag: &&str| header.pointer(&format!("/flags/{flag}")) == Some(&Value::Bool(true));
            let flags: Vec<&str> = ["SYN", "FIN", "RST", "PSH", "ACK", "URG", "ECE", "CWR", "NS"]
                .into_iter()
                .filter(set)
                .collect();
            flags.join("+")
        }
        ("ICMPv4", 8) | ("ICMPv6", 128) => "EchoRequest".to_owned(),
        ("ICMPv4", 0) | ("ICMPv6", 129) => "EchoReply".to_owned(),
        ("ICMPv4", 3) | ("ICMPv6", 1) => "DestinationUnreachable".to_owned(),
        (protocol, 0) => protocol.to_owned(),
        (protocol, kind) => format!("{protocol} of type {kind}"),
    }
}
