//! A cluster of one family: machines and pods have no address of the other, so that what goes between the nodes has the
//! same family outside as inside, and nothing can lean on the one that is missing.

use std::time::SystemTime;

use anyhow::Result;
use sinew_tests::lab::{CLIENT_MAY_ALL, Family, Lab, ROUTINGS, Topology};
use sinew_tests::probe::Transport::{self, Icmp, Tcp, Udp};

use super::{BURST, FRAGMENTED, TCP, UDP};
use sinew_tests::probe::report::Outcome;
use sinew_tests::probe::stream::Direction;

#[test]
#[ignore = "cargo xtask test lab"]
fn two_nodes_of_one_family() -> Result<()> {
    for family in Family::BOTH {
        for routing in ROUTINGS {
            let lab = Lab::build(Topology::Wire(2)).only(family).routing(routing).start()?;
            let (a, b) = (lab.node("a"), lab.node("b"));
            let other = if family == Family::V4 { Family::V6 } else { Family::V4 };
            assert!(a.find_address(other).is_none() && b.find_address(other).is_none());
            let inet = if family == Family::V4 { "-6" } else { "-4" };
            let foreign = a.netns().ip_output(&[inet, "addr", "show", "dev", "eth0", "scope", "global"])?;
            assert_eq!(foreign.trim(), "", "the underlay has one family");
            let client = a.pod("client", &[("app", "client")])?;
            let stranger = a.pod("stranger", &[("app", "stranger")])?;
            let servers = [a.pod("near", &[("app", "server")])?, b.pod("far", &[("app", "server")])?];
            for server in &servers {
                server.serve(&[TCP], &[UDP])?;
            }
            lab.apply("client-may", CLIENT_MAY_ALL)?;
            for server in &servers {
                let to = server.address(family);
                let what = format!("{family:?} {routing:?} → {}", server.name());
                for attempt in [
                    client.tcp(to, TCP)?,
                    client.udp(to, UDP)?,
                    client.ping(to)?,
                    client.dial(Udp, to, UDP, &["--bytes", FRAGMENTED])?,
                ] {
                    assert!(attempt.answered(), "{what}: {attempt:?}");
                }
                let streamed = client.stream(to, TCP, Direction::Down, BURST)?;
                assert_eq!(streamed.outcome, Outcome::Answered, "{what}: {streamed:?}");
                let icmp = if family == Family::V4 { "ICMPv4" } else { "ICMPv6" };
                let ways: [(Transport, u16, &str); 3] =
                    [(Tcp, TCP, "TCP"), (Udp, UDP, "UDP"), (Icmp, 0, icmp)];
                for (transport, port, protocol) in ways {
                    let since = SystemTime::now();
                    let attempt = stranger.dial(transport, to, port, &["--timeout", "300"])?;
                    assert!(attempt.dropped(), "{what} {protocol}: {attempt:?}");
                    let flow = lab.dropped(since, "stranger", server.name(), protocol)?;
                    assert_eq!(flow.drop_reason(), "POLICY_DENIED", "{what}: {}", flow.raw());
                    assert_eq!(flow.denied_by(), ["client-may"], "{what}: {}", flow.raw());
                }
            }
        }
    }
    Ok(())
}
