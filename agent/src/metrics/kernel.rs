//! Metrics out of the kernel's maps: how full tables are, drops by reason, judgements by policy, records and losses.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sinew_api::object::PolicyName;
use sinew_api::proto::flow;
use sinew_engine::Cause;
use sinew_engine::snapshot::Snapshot;
use sinew_observer::metrics::{Description, Family, Value};

use crate::datapath::{MapFill, Reading, Readings, RuleHits};

/// Every metric here.
pub(super) const METRICS: &[&Description] = &[
    &ENTRIES,
    &CAPACITY,
    &PRESSURE,
    &CONNECTIONS,
    &EVICTIONS,
    &DROP_PACKETS,
    &DROP_BYTES,
    &KERNEL_DROPS,
    &JUDGEMENTS,
    &LEFT_OUT,
    &RECORDS,
    &RECORDS_LOST,
    &SUPPRESSED,
    &ANSWERS,
    &WALK,
];

const ENTRIES: Description =
    Description::gauge("sinew_map_entries", &["map"], "Entries in a table of the kernel.");
const CAPACITY: Description =
    Description::gauge("sinew_map_capacity", &["map"], "Entries that a table of the kernel takes at most.");
const PRESSURE: Description =
    Description::gauge("sinew_map_pressure_ratio", &["map"], "Entries over capacity, 0 to 1.");
const CONNECTIONS: Description = Description::gauge(
    "sinew_conntrack_entries",
    &["table"],
    "Connections in a table: TCP before its handshake is over (tcp_opening), TCP, and everything else (any). Those past \
     their time count until they are replaced.",
);
const EVICTIONS: Description = Description::counter(
    "sinew_conntrack_evictions_total",
    &["table"],
    "Connections that the kernel forgot to make room for others: the next packet of each is judged anew.",
);
const DROP_PACKETS: Description = Description::counter(
    "sinew_drop_packets_total",
    &["reason", "hubble_reason"],
    "Packets dropped since the maps were made, each one counted by the kernel, by our reason and by the one that Hubble \
     shows.",
);
const DROP_BYTES: Description =
    Description::counter("sinew_drop_bytes_total", &["reason", "hubble_reason"], "Bytes of these packets.");
const KERNEL_DROPS: Description = Description::counter(
    "sinew_kernel_drops_total",
    &["reason"],
    "Packets that our programs handed on and the kernel dropped, by its own reason (enum skb_drop_reason), since the maps \
     were made. A reason appears with its first packet; none does where they are not counted (`sinew status` says why).",
);
const JUDGEMENTS: Description = Description::counter(
    "sinew_policy_judgements_total",
    &["policy", "by"],
    "Packets that a policy decided about, by one of its rules (rule), by switching default deny on (default_deny; each \
     policy that did), or because it did not fit (overflow). Starts again where rules were not used for so long that \
     their counters were given to others.",
);
const LEFT_OUT: Description = Description::gauge(
    "sinew_policy_judgements_policies_left_out",
    &[],
    "Policies that sinew_policy_judgements_total leaves out, because the node has more than 2000.",
);
const RECORDS: Description = Description::counter(
    "sinew_event_records_total",
    &[],
    "Records that programs made since the maps were made, lost ones too.",
);
const RECORDS_LOST: Description = Description::counter(
    "sinew_event_records_lost_total",
    &[],
    "Records lost since the maps were made, because a CPU's ring was full.",
);
const SUPPRESSED: Description = Description::counter(
    "sinew_event_records_suppressed_total",
    &[],
    "Drops that were counted and not reported since the maps were made, because there were more than --monitor-drop-limit.",
);
const ANSWERS: Description = Description::counter(
    "sinew_reject_answers_total",
    &["result"],
    "Answers to refused packets (--policy-deny-response reject): sent, or withheld because there were too many.",
);
const WALK: Description = Description::gauge(
    "sinew_map_walk_seconds",
    &[],
    "How long the last walk over the tables took, seconds.",
);

/// Policies that are told of one by one.
const MOST_POLICIES: usize = 2000;
/// A walk is made again after so many times what it took: then it costs 5 % of one CPU at most, whoever scrapes.
const REST: u32 = 20;

/// Readings that are not read more often than they may cost.
pub(super) struct Paced {
    readings: Readings,
    last: Option<(Instant, Duration, Reading)>,
}

impl Paced {
    pub(super) fn new(readings: Readings) -> Self {
        Self { readings, last: None }
    }

    pub(super) fn families(&mut self, snapshot: &Snapshot) -> Vec<Family> {
        let begun = Instant::now();
        let fresh = self.last.as_ref().is_some_and(|(at, took, _)| begun - *at < *took * REST);
        if !fresh {
            let mut reading = self.readings.read();
            if let Some((_, _, last)) = &self.last {
                never_fewer(&mut reading.fill, &last.fill);
            }
            let done = Instant::now();
            self.last = Some((done, done - begun, reading));
        }
        self.last.as_ref().map_or_else(Vec::new, |(_, took, reading)| families(reading, *took, snapshot))
    }
}

/// Evictions are a difference of counts that are not read at one moment: what was told once stays told.
fn never_fewer(fill: &mut [MapFill], last: &[MapFill]) {
    for (now, before) in fill.iter_mut().zip(last).filter(|(now, before)| now.name == before.name) {
        now.evictions = now.evictions.max(before.evictions);
    }
}

fn families(reading: &Reading, took: Duration, snapshot: &Snapshot) -> Vec<Family> {
    let (mut entries, mut capacity, mut pressure) =
        (Family::new(&ENTRIES), Family::new(&CAPACITY), Family::new(&PRESSURE));
    let (mut connections, mut evictions) = (Family::new(&CONNECTIONS), Family::new(&EVICTIONS));
    for fill in &reading.fill {
        entries.add([fill.name], Value::Count(fill.entries));
        capacity.add([fill.name], Value::Count(fill.capacity.into()));
        pressure.add([fill.name], Value::Number(fill.entries as f64 / f64::from(fill.capacity.max(1))));
        let table = match fill.name {
            "CT_OPENING" => "tcp_opening",
            "CT_TCP" => "tcp",
            "CT_ANY" => "any",
            _ => continue,
        };
        connections.add([table], Value::Count(fill.entries));
        if let Some(count) = fill.evictions {
            evictions.add([table], Value::Count(count));
        }
    }
    let (mut packets, mut bytes) = (Family::new(&DROP_PACKETS), Family::new(&DROP_BYTES));
    for total in &reading.drops {
        let hubble = flow::DropReason::try_from(i32::from(total.reason.hubble()))
            .unwrap_or(flow::DropReason::Unknown)
            .as_str_name();
        packets.add([total.reason.words(), hubble], Value::Count(total.packets));
        bytes.add([total.reason.words(), hubble], Value::Count(total.bytes));
    }
    let mut kernel_drops = Family::new(&KERNEL_DROPS);
    for drop in reading.kernel_drops.iter().flatten() {
        kernel_drops.add([drop.reason.as_str()], Value::Count(drop.packets));
    }
    let (judgements, left_out) = judgements(&reading.rules, snapshot);
    let answers = Family::new(&ANSWERS)
        .with(["made"], Value::Count(reading.answers.made))
        .with(["withheld"], Value::Count(reading.answers.withheld));
    let rings = &reading.rings;
    vec![
        entries,
        capacity,
        pressure,
        connections,
        evictions,
        packets,
        bytes,
        kernel_drops,
        judgements,
        Family::single(&LEFT_OUT, Value::Count(left_out)),
        Family::single(&RECORDS, Value::Count(rings.iter().map(|ring| ring.wanted).sum())),
        Family::single(&RECORDS_LOST, Value::Count(rings.iter().map(|ring| ring.lost).sum())),
        Family::single(&SUPPRESSED, Value::Count(reading.suppressed)),
        answers,
        Family::single(&WALK, Value::Number(took.as_secs_f64())),
    ]
}

/// What each policy that stands decided, and how many policies are left out.
fn judgements(rules: &BTreeMap<u32, RuleHits>, snapshot: &Snapshot) -> (Family, u64) {
    let mut totals: BTreeMap<(&PolicyName, &str), u64> = BTreeMap::new();
    for (cookie, hits) in rules {
        let Some(cause) = snapshot.causes.get(cookie) else { continue };
        let (policies, by) = match cause {
            Cause::Rule { policy, .. } => (std::slice::from_ref(policy), "rule"),
            Cause::Overflow { policy } => (std::slice::from_ref(policy), "overflow"),
            Cause::DefaultDeny { policies, .. } => (policies.as_slice(), "default_deny"),
            Cause::Init | Cause::LocalHost => continue,
        };
        // A cookie keeps its meaning after its policy is gone (ARCHITECTURE.md); its series does not stay for that.
        for policy in policies.iter().filter(|policy| snapshot.policies.contains_key(*policy)) {
            *totals.entry((policy, by)).or_default() += hits.packets;
        }
    }
    let told: Vec<&PolicyName> = snapshot.policies.keys().take(MOST_POLICIES).collect();
    let mut family = Family::new(&JUDGEMENTS);
    for ((policy, by), packets) in totals {
        if told.binary_search(&policy).is_ok() {
            family.add([&policy.to_string(), by], Value::Count(packets));
        }
    }
    (family, (snapshot.policies.len() - told.len()) as u64)
}

#[cfg(test)]
mod tests;
