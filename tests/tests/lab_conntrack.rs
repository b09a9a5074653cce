//! Connections, one test for each sentence of datapath.md 6–17 that real traffic can show; what needs exact packets in an
//! exact order is in the pipeline's own tests.

#[path = "lab_conntrack/ground.rs"]
mod ground;

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use ground::{Ground, TCP, UDP};
use sinew_tests::lab::process::pause;
use sinew_tests::lab::{CLIENT_MAY, Family, ROUTINGS, Routing};
use sinew_tests::probe::Transport;
use sinew_tests::probe::raw::{self, Tuple, flag};
use sinew_tests::probe::report::Outcome;
use sinew_tests::probe::stream::Direction;

const EVERY: Duration = Duration::from_millis(10);
/// Long enough for several requests of a held connection.
const SEVERAL: Duration = Duration::from_millis(200);
/// What a stream that must be cut would have to move to end by itself.
const ENDLESS: u64 = 1 << 42;
const CUT_WITHIN: Duration = Duration::from_secs(10);

// datapath.md 9: a stale stamp is judged again whichever way the packet goes.
#[test]
#[ignore = "cargo xtask test lab"]
fn relabel_of_a_remote_peer_ends_its_connections_in_either_direction() -> Result<()> {
    for routing in ROUTINGS {
        let ground = Ground::apart(routing)?;
        for family in Family::BOTH {
            let to = ground.server.address(family);
            let asks = ground.client.hold(Transport::Tcp, to, TCP, EVERY)?;
            let gets = ground.client.start_stream(to, TCP, Direction::Down, ENDLESS)?;
            let gives = ground.client.start_stream(to, TCP, Direction::Up, ENDLESS)?;
            let datagrams = ground.client.hold(Transport::Udp, to, UDP, EVERY)?;
            pause(Duration::from_millis(500))?;
            ground.relabel_client(&[("app", "stranger")])?;
            for (what, stream) in [("download", gets), ("upload", gives)] {
                let outcome = stream.finish(CUT_WITHIN)?.outcome;
                assert_eq!(outcome, Outcome::TimedOut, "{routing:?} {family:?} {what}");
            }
            let asked = asks.finish()?;
            assert!(asked.answered > 10 && !asked.failed.is_empty(), "{asked:?}");
            let datagrams = datagrams.finish()?;
            assert!(datagrams.answered > 10 && !datagrams.failed.is_empty(), "{datagrams:?}");
            assert_eq!(ground.client.tcp(to, TCP)?.outcome, Outcome::TimedOut);
            ground.relabel_client(&[("app", "client")])?;
            assert!(ground.client.tcp(to, TCP)?.answered());
        }
    }
    Ok(())
}

// datapath.md 9: what stays allowed is restamped and loses nothing.
#[test]
#[ignore = "cargo xtask test lab"]
fn a_change_that_still_allows_disturbs_no_connection() -> Result<()> {
    for (same_node, routing) in [(true, Routing::Native), (false, Routing::Native), (false, Routing::Vxlan)] {
        let ground = if same_node { Ground::together()? } else { Ground::apart(routing)? };
        for family in Family::BOTH {
            let to = ground.server.address(family);
            let tcp = ground.client.hold(Transport::Tcp, to, TCP, EVERY)?;
            let udp = ground.client.hold(Transport::Udp, to, UDP, EVERY)?;
            for round in 0..60 {
                let other = CLIENT_MAY.replace("name: client-may", &format!("name: other-{}", round % 2));
                ground.lab.apply("other", &other.replace("app: client", "app: other"))?;
            }
            for watched in [tcp.finish()?, udp.finish()?] {
                assert!(watched.answered > 20, "{watched:?}");
                assert!(
                    watched.failed.is_empty(),
                    "{routing:?} same node {same_node} {family:?}: {watched:?}"
                );
            }
        }
    }
    Ok(())
}

// datapath.md 10: a tombstone drops both directions, until a pure SYN is judged anew.
#[test]
#[ignore = "cargo xtask test lab"]
fn a_tombstone_ends_with_a_syn_that_is_allowed() -> Result<()> {
    for routing in ROUTINGS {
        let ground = Ground::apart(routing)?;
        for (family, port) in [(Family::V4, 45001), (Family::V6, 45002)] {
            let what = format!("{routing:?} {family:?}");
            let to = ground.server.address(family);
            let more = ["--source-port", &port.to_string(), "--timeout", "500"];
            let held = ground.client.watch("hold", Transport::Tcp, to, TCP, EVERY, &more)?;
            pause(Duration::from_millis(200))?;
            ground.relabel_client(&[("app", "stranger")])?;
            pause(SEVERAL)?;
            assert!(!held.finish()?.failed.is_empty(), "{what}");
            let states = || ground.states_of("b", port);
            assert_eq!(states()?, ["denied"], "{what}: {:?}", ground.entries("b")?);
            // The same ports again: refused by name while the policy refuses, and a connection of its own when it allows.
            let tuple = ground.tuple(family, port, TCP);
            let syn = raw::tcp(tuple, flag::SYN, 77, 0, b"");
            let since = SystemTime::now();
            ground.client.send_raw(to, &syn)?;
            let flow = ground.lab.dropped(since, "client", "server", "TCP")?;
            assert_eq!((flow.drop_reason(), flow.is_v6()), ("POLICY_DENIED", to.is_ipv6()), "{}", flow.raw());
            ground.relabel_client(&[("app", "client")])?;
            ground.client.send_raw(to, &syn)?;
            pause(SEVERAL)?;
            // Opening, or closing already: the client's kernel answers what it knows nothing of with a RST.
            let states = states()?;
            assert!(states.len() == 1 && states != ["denied"], "{what}: {states:?}");
        }
    }
    Ok(())
}

// datapath.md 6: what the kernel evicts is counted: all connections that were made and are neither there nor removed.
#[test]
#[ignore = "cargo xtask test lab"]
fn what_the_kernel_evicts_is_counted() -> Result<()> {
    /// More than the table for UDP holds.
    const MADE: u64 = 150_000;
    let ground = Ground::together()?;
    let node = ground.lab.node("a");
    let spray = |count: u64| ground.server.spray(ground.client.address(Family::V4), count);
    node.sinew(&["conntrack", "flush", "--all"])?;
    let before = node.table("CT_ANY")?;
    assert!(before.capacity < MADE && before.evictions == 0, "a flush evicts nothing: {before:?}");
    spray(1000)?;
    let filling = node.table("CT_ANY")?;
    assert_eq!((filling.entries - before.entries, filling.evictions), (1000, 0));
    spray(MADE)?;
    let full = node.table("CT_ANY")?;
    assert!(full.entries <= full.capacity && full.evictions > 0, "{full:?}");
    assert_eq!(full.entries + full.evictions, before.entries + 1000 + MADE);
    Ok(())
}

// datapath.md 10: what the server was asked while that was allowed it may answer after the refusal; such an answer is no
// connection of its own, which the client's next datagrams would be answers to. After a silence it is.
#[test]
#[ignore = "cargo xtask test lab"]
fn an_answer_under_way_brings_no_refused_conversation_back() -> Result<()> {
    let ground = Ground::apart(Routing::Native)?;
    let datagram = |Tuple { from, to }, text: &[u8]| {
        let tuple = Tuple { from, to };
        raw::packet(from.ip(), to.ip(), raw::protocol::UDP, &raw::datagram(tuple, text))
    };
    let ask = |family| {
        let tuple = ground.tuple(family, 45060, UDP);
        ground.client.send_raw(tuple.to.ip(), &datagram(tuple, b"question"))
    };
    let answer = |family| {
        let Tuple { from, to } = ground.tuple(family, 45060, UDP);
        ground.server.send_raw(from.ip(), &datagram(Tuple { from: to, to: from }, b"answer"))
    };
    for family in Family::BOTH {
        ask(family)?;
    }
    pause(SEVERAL)?;
    assert_eq!(ground.entries("b")?.len(), 2, "{:?}", ground.entries("b")?);
    ground.relabel_client(&[("app", "stranger")])?;
    for family in Family::BOTH {
        for (from, to) in [("client", "server"), ("server", "client"), ("client", "server")] {
            let since = SystemTime::now();
            if from == "client" {
                ask(family)?
            } else {
                answer(family)?
            }
            let flow = ground.lab.dropped(since, from, to, "UDP")?;
            assert_eq!(flow.drop_reason(), "POLICY_DENIED", "{from} {family:?}: {}", flow.raw());
        }
    }
    // The silence that the specification asks for, and a second, which is how exactly times are kept.
    pause(Duration::from_millis(6_500))?;
    for family in Family::BOTH {
        let since = SystemTime::now();
        answer(family)?;
        let fits = |flow: &sinew_tests::lab::flows::Flow| {
            flow.source() == "server" && flow.verdict() == "FORWARDED" && flow.protocol() == "UDP"
        };
        ground.lab.flow_of_any(since, "of the server's own", fits)?;
    }
    Ok(())
}

// datapath.md 12: TIME_WAIT reuse.
#[test]
#[ignore = "cargo xtask test lab"]
fn a_port_in_time_wait_is_used_again() -> Result<()> {
    let ground = Ground::apart(Routing::Native)?;
    ground.client.netns().sysctl("net/ipv4/tcp_tw_reuse", "1")?;
    for family in Family::BOTH {
        for round in 0..3 {
            let attempt = ground.client.dial(
                Transport::Tcp,
                ground.server.address(family),
                TCP,
                &["--source-port", "45010"],
            )?;
            assert!(attempt.answered(), "{family:?} round {round}: {attempt:?}");
            // tcp_twsk_unique() lets a port be used again when the clock of the time stamps has moved on by a second.
            pause(Duration::from_millis(1200))?;
        }
    }
    Ok(())
}

// datapath.md 13: an entry that is gone is picked up by either side, in the right orientation.
#[test]
#[ignore = "cargo xtask test lab"]
fn an_evicted_connection_is_picked_up_and_never_in_the_wrong_direction() -> Result<()> {
    for routing in ROUTINGS {
        let ground = Ground::apart(routing)?;
        for family in Family::BOTH {
            let to = ground.server.address(family);
            let asks = ground.client.hold(Transport::Tcp, to, TCP, EVERY)?;
            let gets = ground.client.start_stream(to, TCP, Direction::Down, 256 << 20)?;
            for _ in 0..5 {
                pause(Duration::from_millis(100))?;
                ground.forget_connections()?;
            }
            let asked = asks.finish()?;
            assert!(asked.failed.is_empty(), "{routing:?} {family:?}: {asked:?}");
            assert_eq!(
                gets.finish(Duration::from_secs(120))?.outcome,
                Outcome::Answered,
                "{routing:?} {family:?}"
            );
        }
        // Evicted and forbidden at once: the reply side must not re-create what is refused.
        let to = ground.server.address(Family::V4);
        let gets = ground.client.start_stream(to, TCP, Direction::Down, ENDLESS)?;
        pause(Duration::from_millis(200))?;
        ground.relabel_client(&[("app", "stranger")])?;
        ground.forget_connections()?;
        assert_eq!(gets.finish(CUT_WITHIN)?.outcome, Outcome::TimedOut, "{routing:?}");
    }
    Ok(())
}

// datapath.md 13: RST creates nothing; a denied connection leaves no entry.
#[test]
#[ignore = "cargo xtask test lab"]
fn a_rst_and_a_refused_syn_leave_no_entry() -> Result<()> {
    for routing in ROUTINGS {
        let ground = Ground::apart(routing)?;
        Family::BOTH.into_iter().try_for_each(|family| neither_leaves_an_entry(&ground, family))?;
    }
    Ok(())
}

fn neither_leaves_an_entry(ground: &Ground, family: Family) -> Result<()> {
    let tuple = ground.tuple(family, 45020, TCP);
    ground.client.send_raw(tuple.to.ip(), &raw::tcp(tuple, flag::RST, 1, 0, b""))?;
    let refused = ground.tuple(family, 45021, TCP + 1);
    let since = SystemTime::now();
    ground.client.send_raw(refused.to.ip(), &raw::tcp(refused, flag::SYN, 1, 0, b""))?;
    let flow = ground.lab.dropped(since, "client", "server", "TCP")?;
    assert_eq!(flow.drop_reason(), "POLICY_DENIED", "{}", flow.raw());
    assert!(flow.by_default(), "{}", flow.raw());
    let entries = ground.entries("b")?;
    assert!(entries.is_empty(), "{family:?}: {entries:?}");
    Ok(())
}

// datapath.md 12: data in a SYN is no exception: it is judged as new.
#[test]
#[ignore = "cargo xtask test lab"]
fn a_syn_with_data_is_judged_like_any_other() -> Result<()> {
    for routing in ROUTINGS {
        let ground = Ground::apart(routing)?;
        for (number, family) in (1..).zip(Family::BOTH) {
            let since = SystemTime::now();
            let refused = ground.tuple(family, 45030, TCP + 1);
            let syn = |tuple| raw::tcp(tuple, flag::SYN, 1, 0, b"GET / HTTP/1.0\r\n\r\n");
            ground.client.send_raw(refused.to.ip(), &syn(refused))?;
            let flow = ground.lab.dropped(since, "client", "server", "TCP")?;
            assert_eq!(flow.drop_reason(), "POLICY_DENIED", "{routing:?} {family:?}: {}", flow.raw());
            assert_eq!(ground.entries("b")?.len(), number - 1, "{routing:?} {family:?}");
            let allowed = ground.tuple(family, 45031, TCP);
            ground.client.send_raw(allowed.to.ip(), &syn(allowed))?;
            pause(Duration::from_millis(200))?;
            assert_eq!(ground.entries("b")?.len(), number, "{routing:?} {family:?}");
        }
    }
    Ok(())
}

// datapath.md 13: SYN+ACK out of nothing: its sender is the responder, so the other end's rights decide.
#[test]
#[ignore = "cargo xtask test lab"]
fn a_syn_ack_out_of_nothing_opens_nothing() -> Result<()> {
    for routing in ROUTINGS {
        let ground = Ground::apart(routing)?;
        // From the client: then the server would be the initiator, and towards the client everything is allowed, but not
        // from port 80 of a stranger's connection: the client accepts nothing.
        ground.client_accepts_nothing()?;
        for family in Family::BOTH {
            let since = SystemTime::now();
            let tuple = ground.tuple(family, 45040, TCP + 1).turned();
            ground.server.send_raw(tuple.to.ip(), &raw::tcp(tuple, flag::SYN | flag::ACK, 1, 2, b""))?;
            let flow = ground.lab.dropped(since, "server", "client", "TCP")?;
            assert_eq!(flow.drop_reason(), "POLICY_DENIED", "{routing:?} {family:?}: {}", flow.raw());
            assert!(ground.entries("a")?.is_empty(), "{routing:?} {family:?}");
        }
    }
    Ok(())
}

// datapath.md 10: UDP from the responder is judged as its own, unless it is a reply.
#[test]
#[ignore = "cargo xtask test lab"]
fn a_udp_reply_passes_and_an_unasked_datagram_is_refused() -> Result<()> {
    for routing in ROUTINGS {
        let ground = Ground::apart(routing)?;
        ground.client_accepts_nothing()?;
        ground.client.serve(&[], &[5353])?;
        for family in Family::BOTH {
            assert!(ground.client.udp(ground.server.address(family), UDP)?.answered(), "{routing:?}");
            let since = SystemTime::now();
            let attempt = ground.server.dial(
                Transport::Udp,
                ground.client.address(family),
                5353,
                &["--timeout", "300"],
            )?;
            assert_eq!(attempt.outcome, Outcome::TimedOut, "{routing:?} {family:?}");
            let flow = ground.lab.dropped(since, "server", "client", "UDP")?;
            assert_eq!(flow.denied_by(), ["client-accepts-nothing"], "{routing:?}: {}", flow.raw());
        }
    }
    Ok(())
}

// datapath.md 14: an ICMP error passes only for a connection that is tracked.
#[test]
#[ignore = "cargo xtask test lab"]
fn an_icmp_error_passes_for_a_connection_and_for_nothing_else() -> Result<()> {
    for routing in ROUTINGS {
        let ground = Ground::apart(routing)?;
        ground.client_accepts_nothing()?;
        ground.lab.withdraw("client-may")?;
        for family in Family::BOTH {
            only_for_a_connection(&ground, family).with_context(|| format!("{routing:?}"))?;
        }
    }
    Ok(())
}

fn only_for_a_connection(ground: &Ground, family: Family) -> Result<()> {
    let to = ground.server.address(family);
    // Nobody listens on this port: the server's kernel answers with an error about the client's datagram.
    assert_eq!(ground.client.udp(to, UDP + 1)?.outcome, Outcome::Refused, "{family:?}");
    let since = SystemTime::now();
    let never_sent = ground.tuple(family, 45050, 9999);
    let quoted = raw::packet(
        never_sent.from.ip(),
        never_sent.to.ip(),
        raw::protocol::UDP,
        &raw::datagram(never_sent, b"never sent"),
    );
    let error = raw::port_unreachable(to, never_sent.from.ip(), &quoted);
    ground.server.send_raw(never_sent.from.ip(), &error)?;
    let fits = |flow: &sinew_tests::lab::flows::Flow| flow.own_reason().contains("ICMP error");
    let nodes = [ground.lab.node("b"), ground.lab.node("a")];
    let found = nodes.iter().any(|node| node.flow(since, "an unrelated ICMP error", fits).is_ok());
    assert!(found, "{family:?}: no node dropped the error");
    Ok(())
}

// datapath.md 15: one entry on one node, one on each of two.
#[test]
#[ignore = "cargo xtask test lab"]
fn a_connection_has_one_entry_on_each_node_that_it_touches() -> Result<()> {
    let together = Ground::together()?;
    assert!(together.client.tcp(together.server.address(Family::V4), TCP)?.answered());
    assert_eq!(together.entries("a")?.len(), 1);
    assert_eq!(together.entries("b")?.len(), 0);
    drop(together);
    let apart = Ground::apart(Routing::Vxlan)?;
    assert!(apart.client.tcp(apart.server.address(Family::V6), TCP)?.answered());
    for node in ["a", "b"] {
        let entries = apart.entries(node)?;
        assert_eq!(entries.len(), 1, "{node}: {entries:?}");
        assert_eq!(entries[0].source(), apart.client.address(Family::V6).to_string());
    }
    Ok(())
}

// datapath.md 17: a deleted endpoint's connections end with it.
#[test]
#[ignore = "cargo xtask test lab"]
fn a_deleted_endpoint_takes_its_connections_along() -> Result<()> {
    for (same_node, routing) in [(true, Routing::Native), (false, Routing::Native), (false, Routing::Vxlan)] {
        let ground = if same_node { Ground::together()? } else { Ground::apart(routing)? };
        let hold = |family| {
            let to = ground.server.address(family);
            ground.client.watch("hold", Transport::Tcp, to, TCP, EVERY, &["--timeout", "500"])
        };
        let held = [hold(Family::V4)?, hold(Family::V6)?];
        pause(Duration::from_millis(200))?;
        ground.lab.node(if same_node { "a" } else { "b" }).remove_pod("server")?;
        for (family, held) in Family::BOTH.into_iter().zip(held) {
            let what = format!("{routing:?} same node {same_node} {family:?}");
            let held = held.finish()?;
            assert!(held.answered > 5 && !held.failed.is_empty(), "{what}: {held:?}");
            assert!(!ground.client.tcp(ground.server.address(family), TCP)?.answered(), "{what}");
        }
    }
    Ok(())
}

// datapath.md 27: fragments in any order after their first; one that precedes it drops.
#[test]
#[ignore = "cargo xtask test lab"]
fn fragments_follow_their_first() -> Result<()> {
    for routing in ROUTINGS {
        let ground = Ground::apart(routing)?;
        Family::BOTH.into_iter().try_for_each(|family| each_follows_its_first(&ground, family))?;
    }
    Ok(())
}

fn each_follows_its_first(ground: &Ground, family: Family) -> Result<()> {
    use raw::Fragment;
    let tuple: Tuple = ground.tuple(family, 45060, UDP);
    let whole = raw::datagram(tuple, &[7; 1000]);
    let part = |id: u16, from: usize, to: usize| {
        let place = Fragment { id, offset: u16::try_from(from).unwrap_or(0), more: to < whole.len() };
        raw::fragment(tuple.from.ip(), tuple.to.ip(), raw::protocol::UDP, &whole[from..to], Some(place))
    };
    // Its second part first: dropped by name.
    let since = SystemTime::now();
    ground.client.send_raw(tuple.to.ip(), &part(100, 512, whole.len()))?;
    ground.lab.node("a").flow(since, "a lone fragment", |flow| flow.drop_reason().contains("FRAG"))?;
    // First, then third, then second: the server's echo comes to the client, which has no socket there and says so.
    let before = ground.entries("b")?.len();
    for (from, to) in [(0, 256), (768, whole.len()), (256, 768)] {
        ground.client.send_raw(tuple.to.ip(), &part(101, from, to))?;
    }
    pause(Duration::from_millis(200))?;
    let entries = ground.entries("b")?;
    assert_eq!(entries.len(), before + 1, "{family:?}: {entries:?}");
    // Three fragments came, and the echo of the whole went back.
    let entry = entries.iter().find(|entry| entry.raw()["sourcePort"] == 45060).context("an entry")?.raw();
    assert_eq!(entry["forward"]["packets"], 3, "{family:?}: {entry}");
    assert_eq!(entry["reply"]["packets"], 1, "{family:?}: {entry}");
    Ok(())
}
