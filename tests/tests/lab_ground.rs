//! The lab itself, without agents: its machines reach each other as the address plan says, its probes tell what
//! happened, and nothing of it stays. What later tests conclude from a probe rests on this.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use sinew_tests::lab::{Family, Lab, Place, Topology};
use sinew_tests::probe::Transport;
use sinew_tests::probe::report::Outcome;
use sinew_tests::probe::stream::Direction;

const TCP: u16 = 80;
const UDP: u16 = 53;

fn ground(topology: Topology) -> Result<Lab> {
    Lab::build(topology).without_agents().start()
}

fn check_reaches(from: &Place, to: &Place) -> Result<()> {
    for family in Family::BOTH {
        let address = to.address(family);
        for attempt in [from.tcp(address, TCP), from.udp(address, UDP), from.ping(address)] {
            let attempt = attempt?;
            assert!(attempt.answered(), "{} → {} {family:?}: {attempt:?}", from.name(), to.name());
        }
    }
    Ok(())
}

#[test]
#[ignore = "cargo xtask test lab"]
fn machines_reach_each_other_on_a_wire_and_behind_a_router() -> Result<()> {
    for topology in [Topology::Wire(2), Topology::Routed(2)] {
        let lab = ground(topology)?;
        let places: [&Place; 3] = [lab.node("a"), lab.node("b"), lab.outside()];
        for place in places {
            place.serve(&[TCP], &[UDP])?;
        }
        check_reaches(lab.node("a"), lab.node("b"))?;
        check_reaches(lab.node("b"), lab.node("a"))?;
        check_reaches(lab.node("a"), lab.outside())?;
        check_reaches(lab.outside(), lab.node("b"))?;
    }
    Ok(())
}

#[test]
#[ignore = "cargo xtask test lab"]
fn a_probe_names_what_came_back() -> Result<()> {
    let lab = ground(Topology::Routed(2))?;
    let (a, b) = (lab.node("a"), lab.node("b"));
    for family in Family::BOTH {
        let (address, to) =
            (b.address(family), if family == Family::V4 { "172.31.1.10" } else { "fd31:0:0:1::a" });
        assert_eq!(address.to_string(), to);
        // Nobody listens: RST, and ICMP port unreachable.
        assert_eq!(a.tcp(address, TCP)?.outcome, Outcome::Refused);
        assert_eq!(a.udp(address, UDP)?.outcome, Outcome::Refused);
    }
    // A host that is not there: the last router finds no neighbour and says so after three seconds; before that,
    // nothing comes.
    assert_eq!(a.tcp("172.31.1.77".parse()?, TCP)?.outcome, Outcome::TimedOut);
    // A network that is not there: the router says so at once.
    let router = format!("/run/netns/sinew-{}-router", lab.id());
    let status = std::process::Command::new("nsenter")
        .args([&format!("--net={router}"), "--", "ip", "route", "add", "prohibit", "10.9.9.0/24"])
        .status()?;
    assert!(status.success());
    assert_eq!(a.tcp("10.9.9.9".parse()?, TCP)?.outcome, Outcome::Unreachable);
    assert_eq!(a.ping("10.9.9.9".parse()?)?.outcome, Outcome::Unreachable);
    Ok(())
}

#[test]
#[ignore = "cargo xtask test lab"]
fn streams_are_verified_and_long_probes_count() -> Result<()> {
    let lab = ground(Topology::Wire(2))?;
    let (a, b) = (lab.node("a"), lab.node("b"));
    b.serve(&[TCP], &[UDP])?;
    for family in Family::BOTH {
        let to = b.address(family);
        for direction in [Direction::Up, Direction::Down] {
            let streamed = a.stream(to, TCP, direction, 8 << 20)?;
            assert_eq!(streamed.outcome, Outcome::Answered, "{streamed:?}");
        }
        let every = Duration::from_millis(5);
        let watches = [
            a.hold(Transport::Tcp, to, TCP, every)?,
            a.hold(Transport::Udp, to, UDP, every)?,
            a.redial(Transport::Tcp, to, TCP, every)?,
            a.redial(Transport::Icmp, to, 0, every)?,
        ];
        thread::sleep(Duration::from_millis(300));
        for watch in watches {
            let watched = watch.finish()?;
            assert!(watched.answered >= 20, "{watched:?}");
            assert!(watched.failed.is_empty(), "{watched:?}");
        }
        let closed = a.redial(Transport::Tcp, to, TCP + 1, every)?;
        thread::sleep(Duration::from_millis(100));
        let watched = closed.finish()?;
        assert_eq!(watched.answered, 0);
        assert_eq!(watched.failed.get(&Outcome::Refused), Some(&watched.attempts), "{watched:?}");
    }
    Ok(())
}

#[test]
#[ignore = "cargo xtask test lab"]
fn a_lab_leaves_nothing() -> Result<()> {
    let lab = ground(Topology::Wire(1))?;
    lab.node("a").serve(&[TCP], &[])?;
    let prefix = format!("sinew-{}-", lab.id());
    let folder = Path::new("/run/sinew-lab").join(lab.id());
    assert!(folder.exists());
    assert_eq!(namespaces(&prefix)?, 3);
    drop(lab);
    assert_eq!(namespaces(&prefix)?, 0);
    assert!(!folder.exists());
    Ok(())
}

/// What a lab of a killed process leaves goes with the next lab, and labs that start together don't trip over each other.
#[test]
#[ignore = "cargo xtask test lab"]
fn the_lab_of_a_dead_process_is_swept_once() -> Result<()> {
    for _ in 0..3 {
        let left = ground(Topology::Wire(2))?;
        left.keep();
        let prefix = format!("sinew-{}-", left.id());
        assert_eq!(namespaces(&prefix)?, 4);
        // Process 1 lives, but it did not start at "nobody": the process that this names is gone.
        fs::write(Path::new("/run/sinew-lab").join(left.id()).join("owner"), "1 nobody")?;
        let started: Vec<_> = (0..4).map(|_| thread::spawn(|| ground(Topology::Wire(1)))).collect();
        for lab in started {
            lab.join().expect("the thread reports by its result")?;
        }
        assert_eq!(namespaces(&prefix)?, 0);
    }
    Ok(())
}

fn namespaces(prefix: &str) -> Result<usize> {
    let names = fs::read_dir("/run/netns")?.flatten().map(|entry| entry.file_name());
    Ok(names.filter(|name| name.to_string_lossy().starts_with(prefix)).count())
}
