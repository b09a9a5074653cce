//! A pod that sends what it should not, and another node's pod that it may talk to.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use anyhow::{Context, Result};
use sinew_tests::lab::{Family, Lab, Pod, Routing, Topology};
use sinew_tests::probe::frame::{self, Mac, ether_type};
use sinew_tests::probe::raw::{self, Tuple, protocol};

pub(crate) const UDP: u16 = 53;
/// A MAC that no interface of the lab has: locally administered, of no vendor.
pub(crate) const OTHER_MAC: Mac = [0x02, 0xbe, 0xef, 0, 0, 1];

pub(crate) struct Ground {
    pub(crate) lab: Lab,
    pub(crate) client: Arc<Pod>,
    pub(crate) server: Arc<Pod>,
    pub(crate) mac: Mac,
    pub(crate) gateway_mac: Mac,
}

impl Ground {
    pub(crate) fn new() -> Result<Self> {
        Self::over(Routing::Native)
    }

    pub(crate) fn over(routing: Routing) -> Result<Self> {
        let lab = Lab::build(Topology::Wire(2)).routing(routing).start()?;
        let client = lab.node("a").pod("client", &[])?;
        let server = lab.node("b").pod("server", &[])?;
        server.serve(&[], &[UDP])?;
        let link = client.netns().ip_output(&["-o", "link", "show", "eth0"])?;
        let mac = word_behind(&link, "link/ether").with_context(|| format!("no MAC in {link}"))?;
        let neighbours = client.netns().ip_output(&["neigh", "show", "169.254.1.1"])?;
        let gateway_mac =
            word_behind(&neighbours, "lladdr").with_context(|| format!("no gateway in {neighbours}"))?;
        Ok(Self { lab, client, server, mac, gateway_mac })
    }

    pub(crate) fn v4(&self) -> Ipv4Addr {
        match self.client.address(Family::V4) {
            IpAddr::V4(address) => address,
            IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
        }
    }

    /// From the client to the server.
    pub(crate) fn tuple(&self, family: Family) -> Tuple {
        Tuple {
            from: (self.client.address(family), 4000).into(),
            to: (self.server.address(family), UDP).into(),
        }
    }

    /// A UDP packet.
    pub(crate) fn datagram(&self, tuple: Tuple) -> Vec<u8> {
        raw::packet(tuple.from.ip(), tuple.to.ip(), protocol::UDP, &raw::datagram(tuple, b"forbidden"))
    }

    /// A frame around a packet, as the pod's stack would make it.
    pub(crate) fn frame(&self, family: Family, packet: &[u8]) -> Vec<u8> {
        self.frame_from(self.mac, family, packet)
    }

    /// The same with another source MAC.
    pub(crate) fn frame_from(&self, mac: Mac, family: Family, packet: &[u8]) -> Vec<u8> {
        let kind = if family == Family::V4 { ether_type::V4 } else { ether_type::V6 };
        frame::frame(mac, self.gateway_mac, kind, packet)
    }
}

/// Source and destination of the IP packet in a frame, as a flow has them: a mapped address as the IPv4 address
/// that is in it.
pub(crate) fn addresses_in(frame: &[u8]) -> Option<(String, String)> {
    let packet = frame.get(if is_tagged(frame) { 18 } else { 14 }..)?;
    let v4 = |at: usize| <[u8; 4]>::try_from(packet.get(at..at + 4)?).ok().map(IpAddr::from);
    let v6 = |at: usize| <[u8; 16]>::try_from(packet.get(at..at + 16)?).ok().map(IpAddr::from);
    let (from, to) = match packet.first()? >> 4 {
        4 => (v4(12)?, v4(16)?),
        6 => (v6(8)?, v6(24)?),
        _ => return None,
    };
    Some((from.to_canonical().to_string(), to.to_canonical().to_string()))
}

pub(crate) fn is_tagged(frame: &[u8]) -> bool {
    let kind = frame.get(12..14).and_then(|kind| kind.try_into().ok()).map(u16::from_be_bytes);
    kind.is_some_and(|kind| [ether_type::VLAN, ether_type::QINQ].contains(&kind))
}

/// A MAC as `ip` prints it.
pub(crate) fn text_of(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn word_behind(text: &str, word: &str) -> Option<Mac> {
    let mut words = text.split_whitespace().skip_while(|found| *found != word);
    words.nth(1).and_then(frame::parse_mac)
}
