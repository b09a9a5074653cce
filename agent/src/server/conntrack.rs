//! The tracked connections as a person reads them.

use std::net::IpAddr;
use std::time::Duration;

use sinew_api::proto::agent::{
    ConntrackDirection, ConntrackEntry, FlushConntrackRequest, FlushConntrackResponse, ListConntrackRequest,
};
use sinew_api::proto::flow::{TcpFlags, TrafficDirection, Verdict};
use sinew_bpf::abi::conntrack::{flag, half_flag, verdict};
use sinew_bpf::abi::{CtEntry, CtHalf};
use sinew_bpf::conntrack::remaining;
use sinew_bpf::maps::CtTable;
use sinew_bpf::parse::tcp;
use tonic::Status;

use super::endpoints::{endpoint_name, protocol_name};
use super::policies::rule_of_cookie;
use super::{AgentService, Ask};
use crate::clock::monotonic_nanoseconds;
use crate::datapath::{Connection, ConnectionFilter};
use crate::view::View;

/// Entries, one by one.
pub(super) type Entries = tokio_stream::Iter<std::vec::IntoIter<Result<ConntrackEntry, Status>>>;

impl AgentService {
    /// The connections that a request means.
    pub(super) async fn connections(&self, request: &ListConntrackRequest) -> Result<Entries, Status> {
        let view = self.view();
        let mut filter = filter(&view, &request.endpoint, &request.address, &request.protocol)?;
        filter.expired = request.expired;
        let found = self.ask(|reply| Ask::Connections(filter, reply)).await?;
        let connections = found.map_err(|error| Status::internal(error.to_string()))?;
        let now = monotonic_nanoseconds();
        let entries: Vec<_> =
            connections.iter().map(|connection| Ok(answer(&view, connection, now))).collect();
        Ok(tokio_stream::iter(entries))
    }

    /// Forgets the connections that a request means.
    pub(super) async fn flush(
        &self,
        request: &FlushConntrackRequest,
    ) -> Result<FlushConntrackResponse, Status> {
        let filter = filter(&self.view(), &request.endpoint, &request.address, &request.protocol)?;
        let removed = self.ask(|reply| Ask::Flush(filter, reply)).await?;
        let removed = removed.map_err(|error| Status::internal(error.to_string()))?;
        Ok(FlushConntrackResponse { removed: removed as u64 })
    }
}

fn filter(view: &View, endpoint: &str, address: &str, protocol: &str) -> Result<ConnectionFilter, Status> {
    let mut filter = ConnectionFilter::default();
    if !endpoint.is_empty() {
        let found = view
            .snapshot
            .endpoints
            .iter()
            .find(|(id, known)| id.0.to_string() == endpoint || endpoint_name(known) == endpoint)
            .ok_or_else(|| Status::not_found(format!("no endpoint of this node is `{endpoint}`")))?;
        filter.addresses.clone_from(&found.1.created.addresses);
    }
    if !address.is_empty() {
        let address: IpAddr = address
            .parse()
            .map_err(|_| Status::invalid_argument(format!("address: `{address}` is not an address")))?;
        filter.also = Some(address);
    }
    if !protocol.is_empty() {
        let number = [1, 6, 17, 58, 132]
            .into_iter()
            .find(|number| protocol_name(*number).eq_ignore_ascii_case(protocol))
            .ok_or_else(|| {
                Status::invalid_argument(format!(
                    "protocol: `{protocol}` is none of TCP, UDP, SCTP, ICMP, ICMPv6"
                ))
            })?;
        filter.protocol = Some(number);
    }
    Ok(filter)
}

fn answer(view: &View, connection: &Connection, now: u64) -> ConntrackEntry {
    let Connection { table, key, entry } = connection;
    let low = (IpAddr::from(key.low), u32::from(u16::from_be(key.low_port)));
    let high = (IpAddr::from(key.high), u32::from(u16::from_be(key.high_port)));
    let opener = usize::from(entry.initiator & 1);
    let (source, destination) = if opener == 0 { (low, high) } else { (high, low) };
    let left = remaining(entry, *table, key.protocol, now);
    ConntrackEntry {
        protocol: protocol_name(key.protocol).to_owned(),
        source: source.0.to_string(),
        source_port: source.1,
        destination: destination.0.to_string(),
        destination_port: destination.1,
        state: state(*table, entry).to_owned(),
        verdict: if entry.verdict == verdict::DENY { Verdict::Dropped } else { Verdict::Forwarded }.into(),
        source_identity: entry.identities[opener],
        destination_identity: entry.identities[1 - opener],
        source_stamp: entry.stamps[opener],
        destination_stamp: entry.stamps[1 - opener],
        forward: Some(direction(&entry.halves[opener], now)),
        reply: Some(direction(&entry.halves[1 - opener], now)),
        egress_rule: rule_of_cookie(view, entry.cookies[0], TrafficDirection::Egress),
        ingress_rule: rule_of_cookie(view, entry.cookies[1], TrafficDirection::Ingress),
        expires_in: Some(prost_types::Duration {
            seconds: left / 1_000_000_000,
            nanos: (left % 1_000_000_000) as i32,
        }),
        flags: flags(entry.flags),
        map: map_name(*table).to_owned(),
        cluster_id: u32::from(key.cluster),
    }
}

fn state(table: CtTable, entry: &CtEntry) -> &'static str {
    if entry.verdict == verdict::DENY {
        "denied"
    } else if sinew_bpf::conntrack::is_closing(entry) {
        "closing"
    } else if table == CtTable::TcpOpening
        || entry.halves.iter().any(|half| half.flags.get() & half_flag::SEEN == 0)
    {
        "opening"
    } else {
        "established"
    }
}

fn direction(half: &CtHalf, now: u64) -> ConntrackDirection {
    let bits = half.flags.get() as u8;
    let flags = TcpFlags {
        fin: bits & tcp::FIN != 0,
        syn: bits & tcp::SYN != 0,
        rst: bits & tcp::RST != 0,
        psh: bits & tcp::PSH != 0,
        ack: bits & tcp::ACK != 0,
        urg: bits & tcp::URG != 0,
        ..TcpFlags::default()
    };
    let idle = Duration::from_nanos(now.saturating_sub(half.last.get()));
    ConntrackDirection {
        packets: half.packets.get(),
        bytes: half.bytes.get(),
        tcp_flags: (bits != 0).then_some(flags),
        idle: (half.last.get() != 0)
            .then_some(prost_types::Duration { seconds: idle.as_secs() as i64, nanos: 0 }),
    }
}

fn flags(bits: u16) -> Vec<String> {
    [
        (flag::VIA_STACK, "via-stack"),
        (flag::PICKED_UP, "picked-up"),
        (flag::AUDIT, "audit"),
        (flag::TRANSLATED, "translated"),
    ]
    .into_iter()
    .filter(|(bit, _)| bits & bit != 0)
    .map(|(_, name)| name.to_owned())
    .collect()
}

fn map_name(table: CtTable) -> &'static str {
    match table {
        CtTable::TcpOpening => "CT_OPENING",
        CtTable::Tcp => "CT_TCP",
        CtTable::Any => "CT_ANY",
    }
}
