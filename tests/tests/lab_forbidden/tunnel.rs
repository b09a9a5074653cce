//! What comes to a node's tunnel port and is not what the other nodes sent (datapath.md 24): a host of the underlay that
//! writes VXLAN itself, in its own name and in a node's. The host build has the same cases with a tunnel key made up; here
//! the kernel's own VXLAN device reads the packets.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use serde_json::Value;
use sinew_tests::lab::flows::Flow;
use sinew_tests::lab::process::{pause, run};
use sinew_tests::lab::{Family, Lab, Place, Pod, Routing, Topology};
use sinew_tests::probe::frame::{self, ether_type};
use sinew_tests::probe::raw::{self, Tuple, protocol};

use super::pod::OTHER_MAC;

/// The tunnel port (`--vxlan-port`).
const VXLAN: u16 = 8472;
const UDP: u16 = 53;
const FAMILIES: [Family; 2] = Family::BOTH;

/// Nodes a and c with a pod each, node b with the pod that is attacked, and a host that is no node.
struct Ground {
    lab: Lab,
    /// On node a.
    client: Arc<Pod>,
    /// On node c.
    third: Arc<Pod>,
    /// On node b.
    server: Arc<Pod>,
}

/// A VXLAN packet: who says to have sent it, with which identity, and the packet in it.
struct Forged {
    outer: IpAddr,
    vni: u32,
    inner_source: IpAddr,
}

impl Ground {
    fn new() -> Result<Self> {
        let lab = Lab::build(Topology::Wire(3)).routing(Routing::Vxlan).start()?;
        let client = lab.node("a").pod("client", &[("app", "client")])?;
        let third = lab.node("c").pod("third", &[("app", "third")])?;
        let server = lab.node("b").pod("server", &[("app", "server")])?;
        server.serve(&[], &[UDP])?;
        lab.wait_enforced()?;
        Ok(Self { lab, client, third, server })
    }

    fn node(&self, name: &str) -> IpAddr {
        self.lab.node(name).address(Family::V4)
    }

    fn identity(&self, node: &str, pod: &str) -> Result<u32> {
        let output = self.lab.node(node).sinew(&["endpoint", "get", pod, "-o", "json"])?;
        let endpoint: Value = serde_json::from_slice(&output.stdout).context("an endpoint as JSON")?;
        let identity = endpoint.pointer("/endpoint/identity").and_then(Value::as_u64);
        u32::try_from(identity.with_context(|| format!("no identity in {endpoint}"))?).context("an identity")
    }

    /// The whole packet, to node b, with a datagram for the server in it.
    fn packet(&self, forged: &Forged) -> Vec<u8> {
        let family = if forged.inner_source.is_ipv4() { Family::V4 } else { Family::V6 };
        let inner =
            Tuple { from: (forged.inner_source, 4000).into(), to: (self.server.address(family), UDP).into() };
        let datagram = raw::datagram(inner, b"forged");
        let inner = raw::packet(inner.from.ip(), inner.to.ip(), protocol::UDP, &datagram);
        let kind = if family == Family::V4 { ether_type::V4 } else { ether_type::V6 };
        // RFC 7348 §5: a flag that says that the VNI is valid, and the VNI before a reserved byte.
        let mut payload = vec![0x08, 0, 0, 0];
        payload.extend((forged.vni << 8).to_be_bytes());
        payload.extend(frame::frame(OTHER_MAC, OTHER_MAC, kind, &inner));
        let outer = Tuple { from: (forged.outer, 40_000).into(), to: (self.node("b"), VXLAN).into() };
        raw::packet(outer.from.ip(), outer.to.ip(), protocol::UDP, &raw::datagram(outer, &payload))
    }

    fn send(&self, from: &Place, forged: &Forged) -> Result<()> {
        from.send_raw(self.node("b"), &self.packet(forged))
    }

    /// Datagrams that the server's kernel has taken for a socket.
    fn received(&self, family: Family) -> Result<u64> {
        received(&self.server, family)
    }

    /// Node b drops it for this reason, in Hubble's words or ours, and the pod gets nothing.
    fn must_drop(&self, what: &str, forged: &Forged, reason: &str) -> Result<()> {
        let before = FAMILIES.map(|family| self.received(family).ok());
        let since = SystemTime::now();
        self.send(self.lab.outside(), forged).with_context(|| what.to_owned())?;
        let source = forged.inner_source.to_string();
        let flow = self.lab.node("b").flow(since, &format!("of {what}"), |flow| {
            flow.verdict() == "DROPPED"
                && flow.raw().pointer("/IP/source").and_then(Value::as_str) == Some(&source)
        })?;
        assert!(flow.drop_reason() == reason || flow.own_reason() == reason, "{what}: {}", flow.raw());
        assert_eq!(FAMILIES.map(|family| self.received(family).ok()), before, "{what}");
        Ok(())
    }
}

/// What `/proc/net/snmp` and `snmp6` count: datagrams that came for a socket that is there.
fn received(place: &Place, family: Family) -> Result<u64> {
    let text = run(place.command("cat").args(["/proc/net/snmp", "/proc/net/snmp6"]))?;
    let number = match family {
        Family::V4 => {
            let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
            let (names, values) = lines.next().zip(lines.next()).context("no counters of UDP")?;
            let at = names.split_whitespace().position(|name| name == "InDatagrams").context("a name")?;
            values.split_whitespace().nth(at)
        }
        Family::V6 => {
            let line = text.lines().find_map(|line| line.strip_prefix("Udp6InDatagrams"));
            line.map(str::trim)
        }
    };
    number.context("no number of datagrams")?.parse().context("a number of datagrams")
}

#[test]
#[ignore = "cargo xtask test lab"]
fn what_no_node_sent_does_not_come_out_of_the_tunnel() -> Result<()> {
    let ground = Ground::new()?;
    let client = ground.identity("a", "client")?;
    let third = ground.identity("c", "third")?;
    let a = ground.node("a");
    let outside = ground.lab.outside().address(Family::V4);
    for family in FAMILIES {
        let from = |pod: &Pod| pod.address(family);
        let genuine = Forged { outer: a, vni: client, inner_source: from(&ground.client) };
        let nobody: IpAddr = match family {
            Family::V4 => "10.240.0.99".parse()?,
            Family::V6 => "fd00:240::9999".parse()?,
        };
        let node_b = ground.lab.node("b").address(family);
        let world: IpAddr =
            if family == Family::V4 { "198.51.100.7".parse()? } else { "2001:db8::7".parse()? };
        let mismatch = "tunnel source is not the sender's node";
        let local = "source is local to this node";
        for (what, forged, reason) in [
            ("no identity", Forged { vni: 0, ..genuine }, "INVALID_IDENTITY"),
            ("the host's identity", Forged { vni: 1, ..genuine }, "INVALID_IDENTITY"),
            ("the identity init", Forged { vni: 5, ..genuine }, "INVALID_IDENTITY"),
            ("an identity that nobody has", Forged { vni: 6_000_000, ..genuine }, "INVALID_IDENTITY"),
            ("from a host that is no node", Forged { outer: outside, ..genuine }, mismatch),
            ("as the attacked node", Forged { inner_source: node_b, ..genuine }, local),
            (
                "another node's pod by the wrong node",
                Forged { outer: a, vni: third, inner_source: from(&ground.third) },
                mismatch,
            ),
            ("a pod of the attacked node", Forged { inner_source: from(&ground.server), ..genuine }, local),
            ("an address that nobody has", Forged { inner_source: nobody, ..genuine }, "UNKNOWN_SENDER"),
            ("an address of the world", Forged { inner_source: world, ..genuine }, "UNKNOWN_SENDER"),
        ] {
            ground.must_drop(&format!("{what} {family:?}"), &forged, reason)?;
        }
        // The same bytes with nothing wrong in them come through: it is not their form that is refused.
        let before = ground.received(family)?;
        ground.send(ground.lab.outside(), &genuine)?;
        pause(Duration::from_millis(300))?;
        assert_eq!(ground.received(family)?, before + 1, "{family:?}");
        // And so does what the other nodes' pods really send.
        for pod in [&ground.client, &ground.third] {
            assert!(pod.udp(ground.server.address(family), UDP)?.answered(), "{} {family:?}", pod.name());
        }
    }
    Ok(())
}

/// A node's own processes write no VXLAN either: only the overlay's device does.
#[test]
#[ignore = "cargo xtask test lab"]
fn a_process_of_a_node_writes_into_no_tunnel() -> Result<()> {
    let ground = Ground::new()?;
    let vni = ground.identity("a", "client")?;
    for family in FAMILIES {
        let forged = Forged { outer: ground.node("a"), vni, inner_source: ground.client.address(family) };
        let before = ground.received(family)?;
        let since = SystemTime::now();
        ground.send(ground.lab.node("a"), &forged)?;
        let fits =
            |flow: &Flow| flow.verdict() == "DROPPED" && flow.own_reason() == "encapsulated by somebody else";
        ground.lab.node("a").flow(since, "of a tunnel packet that the overlay did not make", fits)?;
        assert_eq!(ground.received(family)?, before, "{family:?}");
    }
    Ok(())
}
