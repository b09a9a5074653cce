//! A flow as it lies in the node's ring: the kernel's record, and the names that it had when it was read.
//!
//! Most flows leave the ring without having been asked for, so that the message of 60 fields is made for those only who
//! ask ([`super::convert`]). Names are taken at once, and shared: an address changes hands, a policy goes.

use std::sync::Arc;

use prost_types::Timestamp;
use sinew_api::proto::flow::Flow;
use sinew_bpf::abi::policy::verdict;
use sinew_bpf::abi::{EventRecord, event};
use sinew_observer::Sighting;

use super::convert;
use super::names::{End, Names, NodeNames, Reason};

/// One flow of a record.
#[derive(Clone, Debug)]
pub struct Seen {
    pub(super) record: EventRecord,
    pub(super) part: Part,
    /// Unique among the flows of this agent; the uuid is made of it.
    pub(super) number: u64,
    pub(super) source: Option<Arc<End>>,
    pub(super) destination: Option<Arc<End>>,
    /// Why the verdict that this flow tells of is what it is.
    pub(super) enforced: Option<Arc<Reason>>,
    /// What audit policies would have done.
    pub(super) shadow: Option<Arc<Reason>>,
    pub(super) interface: Arc<str>,
    pub(super) node: Arc<NodeNames>,
}

/// Which of its record's flows it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The verdict of one side.
    Verdict(Side),
    /// What became of the packet.
    Outcome,
}

/// Which end of the connection judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Side {
    /// The initiator, what it sends.
    Egress,
    /// The responder, what it gets.
    Ingress,
}

impl Side {
    /// In the order in which a packet meets them.
    pub(super) const BOTH: [Self; 2] = [Self::Egress, Self::Ingress];
}

/// One judgement in a record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Judged {
    pub(super) side: Side,
    pub(super) verdict: u8,
    pub(super) shadow_verdict: u8,
    pub(super) matches: u8,
    pub(super) cookie: u32,
    pub(super) shadow_cookie: u32,
}

impl Judged {
    /// What one side judged; nothing if it was not asked.
    pub(super) fn of(record: &EventRecord, side: Side) -> Option<Self> {
        let (index, flag) = match side {
            Side::Egress => (0, event::flag::EGRESS_JUDGED),
            Side::Ingress => (1, event::flag::INGRESS_JUDGED),
        };
        (record.flags & flag != 0).then(|| Self {
            side,
            verdict: record.verdicts[index] & 0xf,
            shadow_verdict: record.verdicts[index] >> 4,
            matches: record.matches[index],
            cookie: record.cookies[index],
            shadow_cookie: record.shadow_cookies[index],
        })
    }

    /// All of a record.
    pub(super) fn all(record: &EventRecord) -> impl Iterator<Item = Self> + '_ {
        Side::BOTH.into_iter().filter_map(|side| Self::of(record, side))
    }

    pub(super) fn denies(&self) -> bool {
        self.verdict != verdict::ALLOW
    }

    pub(super) fn audits(&self) -> bool {
        !self.denies() && self.shadow_verdict != verdict::ALLOW
    }
}

/// Appends the flows of a record, in the order in which they happened.
pub fn see(record: &EventRecord, names: &mut Names, into: &mut Vec<Seen>) {
    let has_ip = record.ip_version != 0;
    let mut end = |address, identity| has_ip.then(|| names.end(address, identity));
    let source = end(record.source, record.source_identity);
    let destination = end(record.destination, record.destination_identity);
    let interface = names.interface(record.ifindex);
    let mut push = |names: &mut Names, part, enforced, shadow| {
        into.push(Seen {
            record: *record,
            part,
            number: names.number(),
            source: source.clone(),
            destination: destination.clone(),
            enforced,
            shadow,
            interface: Arc::clone(&interface),
            node: Arc::clone(&names.node),
        });
    };
    let dropped = record.kind == event::kind::DROP;
    let mut denied = None;
    for judged in Judged::all(record) {
        let enforced = names.reason(judged.cookie, judged.side);
        let shadow = judged.audits().then(|| names.reason(judged.shadow_cookie, judged.side));
        if dropped && judged.denies() && denied.is_none() {
            denied = Some(Arc::clone(&enforced));
        }
        push(names, Part::Verdict(judged.side), Some(enforced), shadow);
    }
    push(names, Part::Outcome, denied, None);
}

impl Sighting for Seen {
    fn time(&self) -> Option<Timestamp> {
        Some(self.node.clock.timestamp(self.record.time))
    }

    fn namespaces(&self) -> [(&str, &str); 2] {
        [&self.source, &self.destination].map(|end| {
            let said = end.as_ref().map(|end| &end.said);
            said.map(|end| (end.cluster_name.as_str(), end.namespace.as_str())).unwrap_or_default()
        })
    }

    fn bytes(&self) -> usize {
        let ends = [&self.source, &self.destination].into_iter().flatten().map(|end| end.bytes);
        let reasons = [&self.enforced, &self.shadow].into_iter().flatten().map(|reason| reason.bytes);
        size_of::<Self>() + ends.chain(reasons).sum::<usize>()
    }

    fn flow(&self) -> Flow {
        convert::flow(self)
    }
}
