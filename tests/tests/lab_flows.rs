//! The exact flows that connections leave, in their order, on every node. What is expected is
//! read from docs/observability.md: the tables there and these tests have the same rows, and neither can say something
//! else than the other.
//!
//! `lab_flows/table.rs` reads the tables, `told.rs` writes flows as the tables do, `cases.rs` makes what goes wrong.
//! Neighbours: `lab_losses.rs` for flows that do not arrive, `lab_datapath.rs` and `lab_conntrack.rs` for the packets.

#[path = "lab_flows/cases.rs"]
mod cases;
#[path = "lab_flows/ground.rs"]
mod ground;
#[path = "lab_flows/table.rs"]
mod table;
#[path = "lab_flows/told.rs"]
mod told;

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cases::CASES;
use ground::{CLOSED, Ground, TCP, UDP};
use sinew_tests::lab::process::wait_until;
use sinew_tests::lab::{Family, Place, Routing};
use sinew_tests::probe::Transport;
use sinew_tests::probe::report::Outcome;
use table::Lines;
use told::{Talk, check, lines};

/// Whatever may be opened is opened under a policy, so that each verdict has one to name.
const POLICIES: &str = "
apiVersion: sinew.io/v1
kind: SinewNetworkPolicy
metadata: {name: client-sends, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: client}}
  egress: [{toEntities: [all]}]
---
apiVersion: sinew.io/v1
kind: SinewNetworkPolicy
metadata: {name: client-accepts, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: client}}
  ingress: [{fromEntities: [remote-node, world]}]
---
apiVersion: sinew.io/v1
kind: SinewNetworkPolicy
metadata: {name: server-accepts, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: server}}
  ingress: [{fromEndpoints: [{matchLabels: {app: client}}]}]
";

/// Row, who opens, who is asked; which routing, if only one.
const PATHS: [(&str, &str, &str, Option<Routing>); 11] = [
    ("pod → pod of the same node", "client", "near", None),
    ("pod → pod of another node, native", "client", "far", Some(Routing::Native)),
    ("pod → pod of another node, VXLAN", "client", "far", Some(Routing::Vxlan)),
    ("pod → its own node", "client", "a", None),
    ("node → its own pod, as probes of health go", "a", "client", None),
    ("pod → another node, native", "client", "b", Some(Routing::Native)),
    ("pod → another node, VXLAN", "client", "b", Some(Routing::Vxlan)),
    ("another node → pod, native", "b", "client", Some(Routing::Native)),
    ("another node → pod, VXLAN", "b", "client", Some(Routing::Vxlan)),
    ("pod → outside", "client", "outside", None),
    ("outside → pod", "outside", "client", None),
];

/// Row, how, to which port, with which more words for the probe, how it ends.
const CONVERSATIONS: [(&str, Transport, u16, &[&str], Outcome); 7] = [
    ("TCP, opened and closed", Transport::Tcp, TCP, &[], Outcome::Answered),
    ("TCP, ended by its opener with a RST", Transport::Tcp, TCP, &["--reset"], Outcome::Answered),
    ("TCP to a closed port", Transport::Tcp, CLOSED, &[], Outcome::Refused),
    ("UDP, asked and answered", Transport::Udp, UDP, &[], Outcome::Answered),
    ("UDP in fragments, asked and answered", Transport::Udp, UDP, &["--bytes", "4000"], Outcome::Answered),
    ("UDP to a closed port, answered with an ICMP error", Transport::Udp, CLOSED, &[], Outcome::Refused),
    ("echo", Transport::Icmp, 0, &[], Outcome::Answered),
];

/// What is tested is what the document says, row by row.
#[test]
fn every_row_of_the_document_has_its_test_and_every_test_its_row() -> Result<()> {
    let set = |rows: &mut dyn Iterator<Item = &str>| rows.map(str::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(set(&mut PATHS.iter().map(|row| row.0)), table::paths()?.into_keys().collect());
    assert_eq!(
        set(&mut CONVERSATIONS.iter().map(|row| row.0)),
        table::conversations()?.into_keys().collect()
    );
    assert_eq!(set(&mut CASES.iter().map(|case| case.name)), table::cases()?.into_keys().collect());
    let levels = ["`none`, `lowest`, `low`", "`medium`, the default", "`maximum`"];
    assert_eq!(set(&mut levels.into_iter()), table::levels()?.into_keys().collect());
    Ok(())
}

fn dial(
    (from, to): (&Place, &Place),
    family: Family,
    transport: Transport,
    port: u16,
    own_port: u16,
    words: &[&str],
) -> Result<Outcome> {
    let own_port = own_port.to_string();
    let more = [&["--source-port", &own_port, "--timeout", "5000"], words].concat();
    Ok(from.dial(transport, to.address(family), port, &more)?.outcome)
}

/// Every conversation over every path of a routing.
fn check_paths(routing: Routing) -> Result<()> {
    let ground = Ground::new(routing, &[])?;
    ground.lab.apply("policies", POLICIES)?;
    let (paths, conversations) = (table::paths()?, table::conversations()?);
    for (path, from, to, only) in PATHS {
        if only.is_some_and(|only| only != routing) {
            continue;
        }
        let ends = [ground.place(from), ground.place(to)];
        let policy = |direction: &str| match (direction, to) {
            ("EGRESS", _) => "client-sends".to_owned(),
            (_, "client") => "client-accepts".to_owned(),
            _ => "server-accepts".to_owned(),
        };
        let mut talks = Vec::new();
        for family in Family::BOTH {
            for (conversation, transport, port, words, outcome) in CONVERSATIONS {
                let expected = table::sequence(&paths[path], &conversations[conversation], policy);
                let what = format!("{path}: {conversation}, {family:?}");
                let mut talk = Talk::between(what, ends, family, expected);
                let own_port = Talk::free_port();
                talk.port = (transport != Transport::Icmp).then_some(own_port);
                let ended = dial((ends[0], ends[1]), family, transport, port, own_port, words)?;
                ensure!(ended == outcome, "{} ended with {ended:?}", talk.what);
                talks.push(talk);
            }
        }
        check(&ground.lab, &talks)?;
    }
    Ok(())
}

#[test]
#[ignore = "cargo xtask test lab"]
fn every_path_leaves_its_flows_native() -> Result<()> {
    check_paths(Routing::Native)
}

#[test]
#[ignore = "cargo xtask test lab"]
fn every_path_leaves_its_flows_vxlan() -> Result<()> {
    check_paths(Routing::Vxlan)
}

/// Denied, audited, cut, and dropped for other reasons.
#[test]
#[ignore = "cargo xtask test lab"]
fn every_denial_leaves_its_flows() -> Result<()> {
    let rows = table::cases()?;
    for word in CASES.iter().map(|case| case.word).collect::<BTreeSet<_>>() {
        let ground = Ground::new(Routing::Native, &[word])?;
        for case in CASES.iter().filter(|case| case.word == word) {
            case.check(&ground, &rows[case.name])?;
        }
    }
    Ok(())
}

/// The comparison itself: a missing flow, one too many, another order, and another name are told from what is right.
#[test]
#[ignore = "cargo xtask test lab"]
fn a_wrong_sequence_is_seen() -> Result<()> {
    let ground = Ground::new(Routing::Native, &[])?;
    let ends = [ground.place("client"), ground.place("near")];
    let right = table::sequence(
        &table::paths()?["pod → pod of the same node"],
        &table::conversations()?["UDP, asked and answered"],
        |_| String::new(),
    );
    // Nothing is in force, so that no verdict names anything.
    let right: Lines = right
        .into_iter()
        .map(|(node, lines)| (node, lines.iter().map(|line| line.replace(" by ", "")).collect()))
        .collect();
    let mut talk = Talk::between("UDP".to_owned(), ends, Family::V4, right.clone());
    let port = Talk::free_port();
    talk.port = Some(port);
    dial((ends[0], ends[1]), Family::V4, Transport::Udp, UDP, port, &[])?;
    check(&ground.lab, std::slice::from_ref(&talk))?;
    let changes: [fn(&mut Vec<String>); 4] = [
        |lines| drop(lines.remove(0)),
        |lines| lines.push(lines[3].clone()),
        |lines| lines.swap(0, 1),
        |lines| lines[0] += " by p",
    ];
    for change in changes {
        talk.expected = right.clone();
        change(talk.expected.get_mut("sender's").context("the sender's node tells of it")?);
        ensure!(check(&ground.lab, std::slice::from_ref(&talk)).is_err(), "{:?} passed", talk.expected);
    }
    talk.expected = right;
    talk.ends[1] = ground.place("far");
    ensure!(check(&ground.lab, &[talk]).is_err(), "another pod's name passed");
    Ok(())
}

/// A TCP connection sends again what is dropped, so that the number of its drops is not known; what they say is. Each
/// round's policy is a new one, whose first denial comes before the node has carried the change out to its end.
#[test]
#[ignore = "cargo xtask test lab"]
fn a_tcp_connection_that_a_change_cuts_tells_why_with_every_packet() -> Result<()> {
    const NO_INGRESS: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: NAME, namespace: default}
spec:
  podSelector: {matchLabels: {app: server}}
  policyTypes: [Ingress]
";
    let ground = Ground::new(Routing::Native, &[])?;
    let node = ground.lab.node("a");
    for (round, family) in Family::BOTH.into_iter().cycle().take(8).enumerate() {
        let ends = [ground.place("client"), ground.place("near")];
        let port = Talk::free_port();
        let own_port = port.to_string();
        let more = ["--source-port", &own_port, "--timeout", "900", "--tell-every", "20"];
        let every = Duration::from_millis(1);
        let mut held = ends[0].watch("hold", Transport::Tcp, ends[1].address(family), TCP, every, &more)?;
        ensure!(held.so_far()?.answered > 0, "the connection stands");
        let mut talk = Talk::between("cut".to_owned(), ends, family, Lines::new());
        talk.port = Some(port);
        let name = format!("p{round}");
        ground.lab.apply("p", &NO_INGRESS.replace("NAME", &name))?;
        ensure!(held.finish()?.failed.contains_key(&Outcome::TimedOut), "{family:?}: nothing cut it");
        let told = lines(&ground.lab, node, &talk)?;
        let verdict = format!("verdict INGRESS DROPPED by {name}");
        let drop = format!("drop INGRESS DROPPED POLICY_DENIED by {name}");
        // Both ends are judged again, the sender of that packet first; from then on the end that refused is named.
        let (first, then) = told.split_first().context("nothing was told")?;
        let then = if first.ends_with("verdict EGRESS FORWARDED") { then } else { &told };
        ensure!(then.len() > 3, "{family:?}: a request is sent again: {told:?}");
        for (line, expected) in then.iter().zip([&verdict, &drop].into_iter().cycle()) {
            ensure!(line.ends_with(expected.as_str()), "{family:?}: {line} is not {expected}: {told:?}");
        }
        ensure!(then.len() % 2 == 0, "{family:?}: a verdict without its drop: {told:?}");
        ground.lab.withdraw("p")?;
    }
    Ok(())
}

/// The same datagrams at each level: five asked and answered over one connection.
#[test]
#[ignore = "cargo xtask test lab"]
fn a_level_leaves_what_it_says() -> Result<()> {
    const ASKED: usize = 5;
    for (level, every_packet) in
        [("none", true), ("lowest", true), ("low", true), ("medium", false), ("maximum", false)]
    {
        let ground = Ground::new(Routing::Native, &[&format!("--monitor-aggregation={level}")])?;
        let ends = [ground.place("client"), ground.place("near")];
        let mut talks = Vec::new();
        for family in Family::BOTH {
            let mut expected = [
                "→ UDP verdict EGRESS FORWARDED",
                "→ UDP verdict INGRESS FORWARDED",
                "→ UDP to-endpoint INGRESS FORWARDED NEW",
                "← UDP to-endpoint EGRESS FORWARDED REPLY",
            ]
            .to_vec();
            for _ in 1..if every_packet { ASKED } else { 1 } {
                expected.push("→ UDP to-endpoint INGRESS FORWARDED ESTABLISHED");
                expected.push("← UDP to-endpoint EGRESS FORWARDED REPLY");
            }
            let expected = expected.into_iter().map(str::to_owned).collect();
            let what = format!("{level} {family:?}");
            let mut talk =
                Talk::between(what, ends, family, Lines::from([("sender's".to_owned(), expected)]));
            let port = Talk::free_port();
            talk.port = Some(port);
            for _ in 0..ASKED {
                let ended = dial((ends[0], ends[1]), family, Transport::Udp, UDP, port, &[])?;
                ensure!(ended == Outcome::Answered, "{}: {ended:?}", talk.what);
            }
            talks.push(talk);
        }
        check(&ground.lab, &talks)?;
    }
    Ok(())
}

/// One connection that goes on: at `medium` each direction gives a sign of life, at `maximum` neither does.
#[test]
#[ignore = "cargo xtask test lab"]
fn a_sign_of_life_comes_at_medium_alone() -> Result<()> {
    let grounds = [
        Ground::new(Routing::Native, &["--monitor-aggregation=medium", "--monitor-aggregation-interval=1s"])?,
        Ground::new(Routing::Native, &["--monitor-aggregation=maximum"])?,
    ];
    let mut held = Vec::new();
    for ground in &grounds {
        let ends = [ground.place("client"), ground.place("near")];
        let mut talk = Talk::between("held".to_owned(), ends, Family::V6, Lines::new());
        let port = Talk::free_port();
        talk.port = Some(port);
        let (to, own_port) = (ends[1].address(Family::V6), port.to_string());
        let every = Duration::from_millis(50);
        let more = ["--source-port", &own_port];
        held.push((talk, ends[0].watch("hold", Transport::Udp, to, UDP, every, &more)?));
    }
    let signs = |ground: &Ground, talk: &Talk<'_>, line: &str| -> Result<usize> {
        let told = lines(&ground.lab, ground.lab.node("a"), talk)?;
        Ok(told.iter().skip(4).filter(|told| *told == line).count())
    };
    let (there, back) =
        ("→ UDP to-endpoint INGRESS FORWARDED ESTABLISHED", "← UDP to-endpoint EGRESS FORWARDED REPLY");
    wait_until("two signs of life of each direction", Duration::from_secs(60), || {
        Ok(signs(&grounds[0], &held[0].0, there)? >= 2 && signs(&grounds[0], &held[0].0, back)? >= 2)
    })?;
    let told = lines(&grounds[1].lab, grounds[1].lab.node("a"), &held[1].0)?;
    ensure!(told.len() == 4, "maximum told more than the beginning: {told:?}");
    for (_, watch) in held {
        let watched = watch.finish()?;
        ensure!(watched.failed.is_empty() && watched.answered > 20, "{watched:?}");
    }
    Ok(())
}
