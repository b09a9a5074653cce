//! `sinew-probe`: the traffic of the lab, run inside pods. It reports exactly what happened to a packet or a stream, as one
//! line of JSON, where `ping`, `nc` or `iperf3` print prose.
//!
//! `serve` answers, everything else asks: [`dial`] makes one connection or exchange, [`stream`] moves verified bytes,
//! [`watch`] continues until its standard input closes, [`icmp`] sends an echo request of its own, [`raw`] packets that no
//! socket sends, [`frame`] frames that no stack sends. Neighbours: `lab::pod` starts it and reads [`report`];
//! `src/bin/sinew-probe.rs` is its command line.

pub mod dial;
pub mod frame;
pub mod icmp;
pub mod pattern;
pub mod raw;
pub mod report;
pub mod serve;
pub mod spray;
pub mod stream;
pub mod watch;

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use anyhow::{Context, Result};

/// How a probe reaches its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// A connection and one request over it.
    Tcp,
    /// A datagram and its echo.
    Udp,
    /// An ICMP or ICMPv6 echo request.
    Icmp,
}

/// Turns an address or a name of the hosts file into an address, of one family if that is asked for.
///
/// # Errors
/// The name is not known, or not in that family.
pub fn resolve(host: &str, family: Option<u8>) -> Result<IpAddr> {
    if let Ok(address) = host.parse() {
        return Ok(address);
    }
    let addresses: Vec<SocketAddr> =
        (host, 0).to_socket_addrs().with_context(|| format!("{host} is not known here"))?.collect();
    let wanted = |address: &&SocketAddr| family.is_none_or(|family| address.is_ipv4() == (family == 4));
    let found = addresses.iter().find(wanted);
    Ok(found.with_context(|| format!("{host} has no address of the family asked for"))?.ip())
}
