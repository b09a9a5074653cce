//! A packet whose hops are used up (datapath.md 20): the node's stack answers it, and it does not arrive.

use std::time::Duration;

use anyhow::{Context, Result};
use sinew_tests::lab::process::{pause, run, wait_until};
use sinew_tests::lab::{Family, Lab, Place, ROUTINGS, Topology};
use sinew_tests::probe::raw::{self, Tuple, protocol};

use super::UDP;

/// What the kernel of a place has counted: "time exceeded" that came, and datagrams for a socket that is there.
fn counted(place: &Place, family: Family) -> Result<(u64, u64)> {
    let text = run(place.command("cat").args(["/proc/net/snmp", "/proc/net/snmp6"]))?;
    let v4 = |protocol: &str, wanted: &str| {
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(protocol)?.strip_prefix(": "));
        let (names, values) = lines.next().zip(lines.next())?;
        let at = names.split_whitespace().position(|name| name == wanted)?;
        values.split_whitespace().nth(at)?.parse::<u64>().ok()
    };
    let v6 = |wanted: &str| {
        let mut words = text.lines().map(str::split_whitespace).map(|mut words| (words.next(), words.next()));
        words.find(|(name, _)| *name == Some(wanted))?.1?.parse::<u64>().ok()
    };
    let (exceeded, datagrams) = match family {
        Family::V4 => (v4("Icmp", "InTimeExcds"), v4("Udp", "InDatagrams")),
        Family::V6 => (v6("Icmp6InTimeExcds"), v6("Udp6InDatagrams")),
    };
    exceeded.zip(datagrams).context("no counters of ICMP and UDP")
}

#[test]
#[ignore = "cargo xtask test lab"]
fn a_packet_without_hops_is_answered_by_its_node_and_does_not_arrive() -> Result<()> {
    for routing in ROUTINGS {
        let lab = Lab::build(Topology::Wire(2)).routing(routing).start()?;
        let client = lab.node("a").pod("client", &[])?;
        let server = lab.node("b").pod("server", &[])?;
        server.serve(&[], &[UDP])?;
        for family in Family::BOTH {
            let tuple = Tuple {
                from: (client.address(family), 45_000).into(),
                to: (server.address(family), UDP).into(),
            };
            let send = |hops: u8| {
                let datagram = raw::datagram(tuple, b"hops");
                let mut packet = raw::packet(tuple.from.ip(), tuple.to.ip(), protocol::UDP, &datagram);
                if family == Family::V4 {
                    // The kernel makes the header's checksum anew (raw(7)).
                    packet[8] = hops;
                } else {
                    packet[7] = hops;
                }
                client.send_raw(tuple.to.ip(), &packet)
            };
            // Node a hears of the server's address a moment after its ADD; until then nobody has it.
            wait_until("the server to be known", Duration::from_secs(10), || {
                Ok(client.udp(server.address(family), UDP)?.answered())
            })?;
            let (exceeded, _) = counted(&client, family)?;
            let (_, datagrams) = counted(&server, family)?;
            send(1)?;
            pause(Duration::from_millis(300))?;
            assert_eq!(counted(&client, family)?.0, exceeded + 1, "{routing:?} {family:?}: an answer");
            assert_eq!(counted(&server, family)?.1, datagrams, "{routing:?} {family:?}: it arrived");
            // One that has enough arrives, and is not answered so.
            send(8)?;
            pause(Duration::from_millis(300))?;
            assert_eq!(counted(&client, family)?.0, exceeded + 1, "{routing:?} {family:?}");
            assert_eq!(counted(&server, family)?.1, datagrams + 1, "{routing:?} {family:?}");
        }
    }
    Ok(())
}
