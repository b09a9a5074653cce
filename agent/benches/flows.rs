//! What a record costs the agent from the ring to the journal, and what a flow costs that somebody asked for:
//! `cargo bench -p sinew-agent --bench flows`.
//!
//! Rounds by turns: records taken as the agent takes them; the same with every flow made at once, as if nobody could
//! wait; the same with one client that follows. Prints the median of each and its share of the second column.
#![allow(clippy::print_stdout, reason = "the table is for the person who runs it")]
#![allow(missing_docs, reason = "a binary")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use futures_util::StreamExt;
use sinew_agent::flow::{Clock, FlowSettings, Journal, Names, Seen, see};
use sinew_api::identity::Identity;
use sinew_api::labels::Labels;
use sinew_api::object::{PolicyKind, PolicyName};
use sinew_api::proto::flow::Flow;
use sinew_bpf::abi::policy::verdict;
use sinew_bpf::abi::{Address, EventRecord, IpcacheEntry, event};
use sinew_engine::snapshot::{AddressView, IdentityView, Snapshot};
use sinew_engine::{Cause, EndpointId};
use sinew_observer::query::Selection;
use sinew_observer::source::FlowQuery;
use sinew_observer::{JournalSettings, Sighting, Source};

/// Pods of the node, and of the cluster.
const LOCAL: u32 = 110;
const PODS: u32 = 10_000;
const RULES: u32 = 50;
/// Records of a batch: those of 10 ms at 100,000 a second.
const BATCH: usize = 1000;
const BATCHES: usize = 40;
const ROUNDS: usize = 15;

fn main() -> Result<()> {
    let snapshot = Arc::new(snapshot());
    let records = records();
    let runtime = tokio::runtime::Builder::new_current_thread().build().context("making a runtime")?;
    let mut times: [Vec<Duration>; 3] = Default::default();
    for _ in 0..ROUNDS {
        times[0].push(taken(&records, &snapshot));
        times[1].push(made(&records, &snapshot));
        times[2].push(runtime.block_on(followed(&records, &snapshot))?);
    }
    let count = u32::try_from(records.len() * BATCHES).context("a number of records")?;
    let median = |mut times: Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2] / count
    };
    let [taken, made, followed] = times.map(median);
    println!(
        "{} flows of {} records of {} bytes",
        flows(&records, &snapshot),
        records.len(),
        size_of::<EventRecord>()
    );
    for (what, time) in [
        ("taken, the flow made when asked for", taken),
        ("taken, every flow made at once", made),
        ("taken, and one client follows", followed),
    ] {
        println!(
            "{what:<40} {:>6} ns a record, {:>9.0} records/s on one processor, {:>5.1} %",
            time.as_nanos(),
            1.0 / time.as_secs_f64(),
            100.0 * time.as_secs_f64() / made.as_secs_f64()
        );
    }
    Ok(())
}

fn journal() -> Journal {
    Journal::new(JournalSettings::new("default/a", "bench"), SystemTime::now())
}

fn names(snapshot: &Arc<Snapshot>) -> Names {
    let settings = FlowSettings { cluster: "default".into(), node: "a".into() };
    Names::new(&settings, Clock::now(), Arc::clone(snapshot))
}

/// As `sinew_agent::flow::run` does it.
fn taken(records: &[EventRecord], snapshot: &Arc<Snapshot>) -> Duration {
    let (journal, mut names, mut seen) = (journal(), names(snapshot), Vec::new());
    let start = Instant::now();
    for _ in 0..BATCHES {
        for record in records {
            see(record, &mut names, &mut seen);
        }
        journal.record_flows(seen.drain(..));
    }
    start.elapsed()
}

fn made(records: &[EventRecord], snapshot: &Arc<Snapshot>) -> Duration {
    let journal: sinew_observer::Journal<Arc<Flow>> =
        sinew_observer::Journal::new(JournalSettings::new("default/a", "bench"), SystemTime::now());
    let (mut names, mut seen) = (names(snapshot), Vec::new());
    let start = Instant::now();
    for _ in 0..BATCHES {
        for record in records {
            see(record, &mut names, &mut seen);
        }
        journal.record_flows(seen.drain(..).map(|seen: Seen| seen.flow()));
    }
    start.elapsed()
}

/// One client takes each flow, as an answer that is not on the wire yet.
async fn followed(records: &[EventRecord], snapshot: &Arc<Snapshot>) -> Result<Duration> {
    let (journal, mut names, mut seen) = (journal(), names(snapshot), Vec::new());
    let flows = flows(records, snapshot);
    let start = Instant::now();
    for _ in 0..BATCHES {
        for record in records {
            see(record, &mut names, &mut seen);
        }
        journal.record_flows(seen.drain(..));
        let query = FlowQuery {
            selection: Selection { number: flows as u64, ..Selection::default() },
            filters: Arc::default(),
            request: Default::default(),
        };
        let answers = journal.flows(query).await.context("asking for flows")?;
        let told = answers.map(|answer| drop(black_box(answer))).count().await;
        ensure!(told == flows, "{told} of {flows} flows came");
    }
    Ok(start.elapsed())
}

fn flows(records: &[EventRecord], snapshot: &Arc<Snapshot>) -> usize {
    let (mut names, mut seen) = (names(snapshot), Vec::new());
    records.iter().for_each(|record| see(record, &mut names, &mut seen));
    seen.len()
}

/// A node with pods in a large cluster.
fn snapshot() -> Snapshot {
    let labels = |pod: u32| {
        let mut labels = Labels::new();
        labels.insert("k8s", "app", &format!("app-{pod}"));
        labels.insert("k8s", "io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name", "default");
        labels.insert("k8s", "io.cilium.k8s.policy.cluster", "default");
        labels.insert("k8s", "io.cilium.k8s.policy.serviceaccount", "default");
        labels.insert("k8s", "io.kubernetes.pod.namespace", "default");
        Arc::new(labels)
    };
    let identity = |pod| IdentityView { labels: labels(pod), addresses: 1, known: true };
    let address = |pod: u32| AddressView {
        entry: IpcacheEntry { identity: 256 + pod, ..IpcacheEntry::default() },
        pod_namespace: "default".into(),
        pod_name: format!("pod-{pod}").into(),
        workload: None,
        endpoint: u16::try_from(pod).ok().filter(|pod| u32::from(*pod) < LOCAL).map(EndpointId),
        node: "a".into(),
    };
    let rule = |number: u32| {
        let name = format!("policy-{number}");
        let policy = PolicyName { kind: PolicyKind::CiliumNetworkPolicy, namespace: "default".into(), name };
        (1 + number, Cause::Rule { policy, path: "spec.ingress[0]".into() })
    };
    Snapshot {
        identities: Arc::new((0..PODS).map(|pod| (Identity(256 + pod), identity(pod))).collect()),
        addresses: Arc::new((0..PODS).map(|pod| (ip(pod), address(pod))).collect()),
        causes: Arc::new((0..RULES).map(rule).collect::<BTreeMap<_, _>>()),
        ..Snapshot::default()
    }
}

fn ip(pod: u32) -> IpAddr {
    IpAddr::from(Ipv4Addr::from(0x0a00_0000 + pod))
}

/// Connections as the programs record them: the first packet with its verdicts, six flags, the end.
fn records() -> Vec<EventRecord> {
    let record = |number: usize| {
        let connection = u32::try_from(number / 8).unwrap_or(0);
        let (client, server) = (connection % PODS, connection % LOCAL);
        let new = EventRecord {
            time: 1_000 * number as u64,
            kind: event::kind::NEW,
            point: event::point::TO_ENDPOINT,
            flags: event::flag::EGRESS_JUDGED | event::flag::INGRESS_JUDGED | event::flag::DIRECTION_KNOWN,
            protocol: 6,
            source: Address::from(ip(client)),
            destination: Address::from(ip(server)),
            source_port: 40_000_u16.to_be(),
            destination_port: 80_u16.to_be(),
            tcp_flags: 0x02,
            ip_version: 4,
            source_identity: 256 + client,
            destination_identity: 256 + server,
            cookies: [0, 1 + connection % RULES],
            verdicts: [verdict::ALLOW | verdict::ALLOW << 4; 2],
            ifindex: 1,
            ..EventRecord::default()
        };
        match number % 8 {
            0 => new,
            7 => EventRecord { kind: event::kind::CLOSE, flags: event::flag::DIRECTION_KNOWN, ..new },
            _ => EventRecord {
                kind: event::kind::FLAGS,
                flags: event::flag::DIRECTION_KNOWN | event::flag::REPLY,
                tcp_flags: 0x12,
                ..new
            },
        }
    };
    (0..BATCH).map(record).collect()
}
