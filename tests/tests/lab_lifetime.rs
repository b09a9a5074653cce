//! How long a connection is remembered (datapath.md 8 and 14, docs/datapath.md "Time-outs"), on real traffic: packets
//! renew it, FIN and RST shorten it, data restores it, and an expired entry is absent for the next packet.
//!
//! Nobody waits two minutes here: the entries are made older instead (`age_connections`), by seconds less than their
//! time and then by more. The programs compare the same times as ever.

#[path = "lab_conntrack/ground.rs"]
#[allow(dead_code, reason = "the ground of another test, of which this one needs a part")]
mod ground;

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use ground::{Ground, TCP, UDP};
use sinew_tests::lab::connections::Connection;
use sinew_tests::lab::process::{pause, wait_until};
use sinew_tests::lab::{Family, ROUTINGS, Routing};
use sinew_tests::probe::Transport;
use sinew_tests::probe::raw::{self, Tuple, flag, protocol};

const PATIENCE: Duration = Duration::from_secs(20);
const fn seconds(number: u64) -> Duration {
    Duration::from_secs(number)
}
/// `last` is written once a second, and a loaded machine takes its time between a packet and a look.
const SLACK: Duration = seconds(9);

/// The entry of the connection with this port of the client's, if it is not expired.
fn entry(ground: &Ground, node: &str, port: u16) -> Result<Option<Connection>> {
    let entries = ground.entries(node)?;
    Ok(entries.into_iter().find(|entry| entry.raw()["sourcePort"] == port))
}

fn left(ground: &Ground, node: &str, port: u16) -> Result<Duration> {
    let found = entry(ground, node, port)?;
    found.with_context(|| format!("node {node} has no connection of port {port}"))?.expires_in()
}

/// That a connection which was just used lives for a whole time-out.
fn ensure_fresh(ground: &Ground, port: u16, whole: Duration) -> Result<()> {
    for node in ["a", "b"] {
        let left = left(ground, node, port)?;
        ensure!(left <= whole && left + SLACK > whole, "node {node}: {left:?} of {whole:?} are left");
    }
    Ok(())
}

fn age(ground: &Ground, by: Duration) -> Result<()> {
    ground.lab.nodes().try_for_each(|node| node.age_connections(by))
}

fn wait_state(ground: &Ground, port: u16, state: &str) -> Result<()> {
    wait_until(&format!("a connection that is {state}"), PATIENCE, || {
        let states = ["a", "b"].map(|node| entry(ground, node, port));
        Ok(states.into_iter().all(|found| found.is_ok_and(|found| found.is_some_and(|e| e.state() == state))))
    })
}

#[test]
#[ignore = "cargo xtask test lab"]
fn an_idle_udp_connection_expires_and_its_late_answer_is_judged_anew() -> Result<()> {
    for routing in ROUTINGS {
        let ground = Ground::apart(routing)?;
        ground.client_accepts_nothing()?;
        for (family, port) in [(Family::V4, 45100), (Family::V6, 45101)] {
            udp_expires(&ground, family, port).with_context(|| format!("{routing:?} {family:?}"))?;
        }
    }
    Ok(())
}

fn udp_expires(ground: &Ground, family: Family, port: u16) -> Result<()> {
    const WHOLE: Duration = seconds(120);
    let asked = ["--source-port", &port.to_string()];
    assert!(ground.client.dial(Transport::Udp, ground.server.address(family), UDP, &asked)?.answered());
    ensure_fresh(ground, port, WHOLE)?;
    let answer = answer_of(ground, family, port);
    // Nearly over: a late answer still passes, and renews it.
    age(ground, seconds(110))?;
    assert!(left(ground, "a", port)? <= seconds(10));
    ground.server.send_raw(ground.client.address(family), &answer)?;
    wait_until("a renewed connection", PATIENCE, || Ok(left(ground, "a", port)? > seconds(100)))?;
    ensure_fresh(ground, port, WHOLE)?;
    // Over: nothing is there, and the same answer is the server's own datagram, which the client does not accept.
    age(ground, seconds(121))?;
    for node in ["a", "b"] {
        assert!(entry(ground, node, port)?.is_none(), "{family:?} node {node}");
    }
    let since = SystemTime::now();
    ground.server.send_raw(ground.client.address(family), &answer)?;
    let flow = ground.lab.dropped(since, "server", "client", "UDP")?;
    assert_eq!(flow.denied_by(), ["client-accepts-nothing"], "{}", flow.raw());
    Ok(())
}

/// The server's datagram to the client's port.
fn answer_of(ground: &Ground, family: Family, port: u16) -> Vec<u8> {
    let tuple: Tuple = ground.tuple(family, port, UDP).turned();
    raw::packet(tuple.from.ip(), tuple.to.ip(), protocol::UDP, &raw::datagram(tuple, b"late"))
}

#[test]
#[ignore = "cargo xtask test lab"]
fn an_echo_is_remembered_for_a_minute() -> Result<()> {
    let ground = Ground::together()?;
    ground.lab.withdraw("client-may")?;
    for family in Family::BOTH {
        assert!(ground.client.ping(ground.server.address(family))?.answered());
        let echoes = || -> Result<Vec<Connection>> {
            let all = ground.entries("a")?;
            let to = ground.server.address(family).to_string();
            Ok(all.into_iter().filter(|entry| entry.destination() == to).collect())
        };
        let [echo] = &echoes()?[..] else { anyhow::bail!("one echo: {:?}", echoes()?) };
        let left = echo.expires_in()?;
        assert!(left <= seconds(60) && left + SLACK > seconds(60), "{left:?}");
        age(&ground, seconds(45))?;
        assert_eq!(echoes()?.len(), 1, "{family:?}");
        age(&ground, seconds(16))?;
        assert!(echoes()?.is_empty(), "{family:?}: {:?}", echoes()?);
    }
    Ok(())
}

#[test]
#[ignore = "cargo xtask test lab"]
fn a_connection_that_does_not_open_is_forgotten_after_a_minute() -> Result<()> {
    let ground = Ground::apart(Routing::Native)?;
    for (family, port) in [(Family::V4, 45110), (Family::V6, 45111)] {
        // The server gets the SYN and has no way to answer.
        let (client, bits) = (ground.client.address(family), if family == Family::V4 { 32 } else { 128 });
        ground.server.netns().ip(&format!("route add blackhole {client}/{bits}"))?;
        let tuple = ground.tuple(family, port, TCP);
        ground.client.send_raw(tuple.to.ip(), &raw::tcp(tuple, flag::SYN, 1, 0, b""))?;
        wait_state(&ground, port, "opening")?;
        ensure_fresh(&ground, port, seconds(60))?;
        age(&ground, seconds(61))?;
        assert!(entry(&ground, "a", port)?.is_none() && entry(&ground, "b", port)?.is_none(), "{family:?}");
    }
    Ok(())
}

#[test]
#[ignore = "cargo xtask test lab"]
fn a_closed_connection_is_forgotten_after_ten_seconds() -> Result<()> {
    let ground = Ground::apart(Routing::Vxlan)?;
    for (family, port) in [(Family::V4, 45120), (Family::V6, 45121)] {
        let asked = ["--source-port", &port.to_string()];
        assert!(ground.client.dial(Transport::Tcp, ground.server.address(family), TCP, &asked)?.answered());
        wait_state(&ground, port, "closing")?;
        for node in ["a", "b"] {
            assert!(left(&ground, node, port)? <= seconds(10), "{family:?} node {node}");
        }
        age(&ground, seconds(11))?;
        assert!(entry(&ground, "a", port)?.is_none() && entry(&ground, "b", port)?.is_none(), "{family:?}");
    }
    Ok(())
}

#[test]
#[ignore = "cargo xtask test lab"]
fn a_reset_shortens_a_connection_and_data_restores_it() -> Result<()> {
    const WHOLE: Duration = seconds(8000);
    let ground = Ground::apart(Routing::Native)?;
    for (family, port) in [(Family::V4, 45130), (Family::V6, 45131)] {
        let to = ground.server.address(family);
        let asked = ["--source-port", &port.to_string(), "--timeout", "20000"];
        // Long silences, in which the connection is looked at.
        let held = ground.client.watch("hold", Transport::Tcp, to, TCP, seconds(8), &asked)?;
        wait_state(&ground, port, "established")?;
        ensure_fresh(&ground, port, WHOLE)?;
        // An RST that is nobody's: far from the window, so that the server's kernel takes no notice.
        let tuple = ground.tuple(family, port, TCP);
        let sequence = 0x7000_0000;
        ground.client.send_raw(to, &raw::tcp(tuple, flag::RST, sequence, 0, b""))?;
        wait_state(&ground, port, "closing")?;
        assert!(left(&ground, "b", port)? <= seconds(10), "{family:?}");
        // The next request and its answer.
        wait_state(&ground, port, "established")?;
        ensure_fresh(&ground, port, WHOLE)?;
        let held = held.finish()?;
        assert!(held.answered > 1 && held.failed.is_empty(), "{family:?}: {held:?}");
    }
    Ok(())
}

#[test]
#[ignore = "cargo xtask test lab"]
fn a_tombstone_lasts_as_long_as_its_connection_and_opens_nothing() -> Result<()> {
    for routing in ROUTINGS {
        let ground = Ground::apart(routing)?;
        for (family, port) in [(Family::V4, 45140), (Family::V6, 45141)] {
            tombstone_lasts(&ground, family, port).with_context(|| format!("{routing:?} {family:?}"))?;
            ground.relabel_client(&[("app", "client")])?;
        }
    }
    Ok(())
}

fn tombstone_lasts(ground: &Ground, family: Family, port: u16) -> Result<()> {
    let to = ground.server.address(family);
    let asked = ["--source-port", &port.to_string(), "--timeout", "500"];
    let held = ground.client.watch("hold", Transport::Tcp, to, TCP, Duration::from_millis(10), &asked)?;
    pause(Duration::from_millis(200))?;
    ground.relabel_client(&[("app", "stranger")])?;
    wait_until("a tombstone", PATIENCE, || {
        Ok(entry(ground, "b", port)?.is_some_and(|entry| entry.state() == "denied"))
    })?;
    assert!(!held.finish()?.failed.is_empty());
    // A sender that backs off is silent for two minutes.
    let silence = seconds(130);
    ground.lab.node("b").age_connections(silence)?;
    assert!(entry(ground, "b", port)?.is_some_and(|entry| entry.state() == "denied"));
    let whole = seconds(8000) - silence;
    let left = left(ground, "b", port)?;
    ensure!(left <= whole && left + SLACK > whole, "{left:?} of {whole:?} are left");
    // No entry can be older than the machine, which may be too young for one that is over (that is the pipeline's case
    // dp10_tombstone_until_idle).
    ground.lab.node("b").flush_connections()?;
    assert!(entry(ground, "b", port)?.is_none());
    // A packet of the dead connection: judged as new, refused as new, and nothing is remembered of it.
    let tuple = ground.tuple(family, port, TCP);
    let since = SystemTime::now();
    ground.client.send_raw(to, &raw::tcp(tuple, flag::ACK, 1, 1, b"late"))?;
    let flow = ground.lab.dropped(since, "client", "server", "TCP")?;
    assert_eq!(flow.drop_reason(), "POLICY_DENIED", "{}", flow.raw());
    assert!(entry(ground, "b", port)?.is_none());
    Ok(())
}
