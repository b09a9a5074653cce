//! No text makes the decoders panic, and whatever they make of it holds together: the case files of `policies/`, cut,
//! doubled and overwritten at random, and bytes that never were YAML.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use ipnet::IpNet;
use proptest::prelude::*;
use sinew_api::object::{Object, Problem, Refused, decode_bytes};
use sinew_api::policy::{PeerMatch, Peers, Policy, PortMatchKind, Rule, RuleAction};

/// Texts to begin with: every case file, and objects of the other kinds.
static SEEDS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut seeds = vec![
        "apiVersion: v1\nkind: Pod\nmetadata: {name: web, labels: {app: web}}\nspec:\n  containers:\n    - ports: [{name: http, containerPort: 80}]\nstatus: {phase: Running, podIPs: [{ip: 10.0.0.1}]}\n".to_owned(),
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {team: a}}\n".to_owned(),
        "apiVersion: sinew.io/v1\nkind: SinewNode\nmetadata: {name: n1}\nspec: {cluster: c, id: 1, addresses: [10.0.0.1], podCIDRs: [10.1.0.0/24]}\nstatus: {heartbeatMs: 1, revision: 2}\n".to_owned(),
        "apiVersion: sinew.io/v1\nkind: SinewIdentity\nmetadata: {name: \"256\"}\nspec: {labels: [\"k8s:app=web\"]}\n".to_owned(),
        "a: &a [1, 2]\nb: *a\nc: {<<: {d: *a}}\n".to_owned(),
    ];
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/policies"), &mut seeds);
    seeds
});

fn collect(folder: &Path, seeds: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("the folder of the cases is in the repository") {
        let path = entry.expect("a folder of the repository can be listed").path();
        if path.is_dir() {
            collect(&path, seeds);
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            seeds.push(fs::read_to_string(path).expect("the case files are text"));
        }
    }
}

/// Pieces of text that mean something to a parser or a decoder.
const PIECES: [&str; 40] = [
    "[",
    "]",
    "{",
    "}",
    ": ",
    "- ",
    "? ",
    "\n",
    "\n---\n",
    "\n...\n",
    "&a ",
    "*a",
    "<<: *a",
    "!!str ",
    "!x ",
    "|\n",
    ">-\n",
    "\"",
    "'",
    "#",
    "%YAML 1.2\n",
    "\t",
    "null",
    "true",
    "-1",
    "0",
    "65536",
    "99999999999999999999",
    "10.0.0.0/33",
    "::ffff:1.2.3.4/96",
    "\\ud83d",
    "\u{feff}",
    "\u{0}",
    "k8s:",
    "reserved:",
    "spec:",
    "specs:",
    "ingress: [{}]",
    "  ",
    "\u{1f600}",
];

/// One change to a text.
#[derive(Clone, Debug)]
enum Change {
    Cut { from: prop::sample::Index, length: usize },
    Double { from: prop::sample::Index, length: usize },
    Insert { at: prop::sample::Index, piece: &'static str },
    Overwrite { at: prop::sample::Index, byte: u8 },
    DropLine { line: prop::sample::Index },
    SwapLines { one: prop::sample::Index, other: prop::sample::Index },
    Indent { line: prop::sample::Index, by: usize },
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        (at(), 1..40_usize).prop_map(|(from, length)| Change::Cut { from, length }),
        (at(), 1..200_usize).prop_map(|(from, length)| Change::Double { from, length }),
        (at(), prop::sample::select(&PIECES[..])).prop_map(|(at, piece)| Change::Insert { at, piece }),
        (at(), any::<u8>()).prop_map(|(at, byte)| Change::Overwrite { at, byte }),
        at().prop_map(|line| Change::DropLine { line }),
        (at(), at()).prop_map(|(one, other)| Change::SwapLines { one, other }),
        (at(), 0..8_usize).prop_map(|(line, by)| Change::Indent { line, by }),
    ]
}

fn changed(mut bytes: Vec<u8>, change: &Change) -> Vec<u8> {
    if bytes.is_empty() {
        return bytes;
    }
    let length = bytes.len();
    let mut lines: Vec<Vec<u8>> = bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    match change {
        Change::Cut { from, length: many } => {
            let from = from.index(length);
            bytes.drain(from..length.min(from + many));
            return bytes;
        }
        Change::Double { from, length: many } => {
            let from = from.index(length);
            let piece = bytes[from..length.min(from + many)].to_vec();
            bytes.splice(from..from, piece);
            return bytes;
        }
        Change::Insert { at, piece } => {
            let at = at.index(length);
            bytes.splice(at..at, piece.bytes());
            return bytes;
        }
        Change::Overwrite { at, byte } => {
            bytes[at.index(length)] = *byte;
            return bytes;
        }
        Change::DropLine { line } => {
            lines.remove(line.index(lines.len()));
        }
        Change::SwapLines { one, other } => {
            let (one, other) = (one.index(lines.len()), other.index(lines.len()));
            lines.swap(one, other);
        }
        Change::Indent { line, by } => {
            let line = line.index(lines.len());
            let text: Vec<u8> = lines[line].iter().copied().skip_while(|byte| *byte == b' ').collect();
            lines[line] = [vec![b' '; *by], text].concat();
        }
    }
    lines.concat()
}

/// What must hold of anything that was decoded from a text of so many lines.
fn holds_together(read: &[Result<Object, Refused>], lines: u32) {
    for object in read {
        match object {
            Ok(Object::Policy(policy)) => policy_holds_together(policy, lines),
            Ok(_) => {}
            Err(refused) => {
                assert!(!refused.problems.is_empty(), "refused without a reason: {refused:?}");
                problems_hold_together(&refused.problems, lines);
            }
        }
    }
}

fn problems_hold_together(problems: &[Problem], lines: u32) {
    for problem in problems {
        assert!(!problem.path.is_empty() && !problem.message.is_empty(), "{problem:?}");
        assert!((1..=lines + 1).contains(&problem.origin.line), "{problem:?} of {lines} lines");
    }
}

fn policy_holds_together(policy: &Policy, lines: u32) {
    problems_hold_together(&policy.problems, lines);
    problems_hold_together(&policy.warnings, lines);
    assert_eq!(policy.name.kind.clusterwide(), policy.name.namespace.is_empty(), "{:?}", policy.name);
    let rules = policy.specs.iter().flat_map(|spec| spec.ingress.iter().chain(&spec.egress));
    let mut paths = BTreeSet::new();
    for rule in rules {
        assert!(
            policy.problems.is_empty() || rule.action == RuleAction::Deny,
            "a refused policy allows: {policy:?}"
        );
        assert!(paths.insert(&rule.path), "two rules at {}", rule.path);
        rule_holds_together(rule);
    }
}

fn rule_holds_together(rule: &Rule) {
    for port in &rule.ports {
        assert!(port.path.starts_with(&rule.path), "{} of {}", port.path, rule.path);
        if let PortMatchKind::Range { first, last, .. } = &port.matches {
            assert!(*first >= 1 && first <= last, "{port:?}");
        }
    }
    let Peers::OneOf(peers) = &rule.peers else { return };
    for peer in peers {
        assert!(peer.path.starts_with(&rule.path), "{} of {}", peer.path, rule.path);
        if let PeerMatch::Cidr { prefix, except, .. } = &peer.matches {
            let whole = |net: &IpNet| *net == net.trunc();
            assert!(whole(prefix) && except.iter().all(|net| whole(net) && prefix.contains(net)), "{peer:?}");
        }
    }
}

/// Lines as YAML counts them: a carriage return without a line feed ends one too.
fn line_count(bytes: &[u8]) -> u32 {
    let ends = |(index, byte): &(usize, &u8)| {
        **byte == b'\n' || (**byte == b'\r' && bytes.get(index + 1) != Some(&b'\n'))
    };
    let count = bytes.iter().enumerate().filter(ends).count();
    u32::try_from(count).map_or(u32::MAX, |count| count + 1)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn changed_files_never_panic(seed in any::<prop::sample::Index>(), changes in prop::collection::vec(change(), 1..6)) {
        let seed = seed.get(&SEEDS).clone().into_bytes();
        let bytes = changes.iter().fold(seed, changed);
        holds_together(&decode_bytes("f.yaml", &bytes), line_count(&bytes));
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        holds_together(&decode_bytes("f.yaml", &bytes), line_count(&bytes));
    }

    #[test]
    fn random_pieces_never_panic(pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..40)) {
        let bytes = pieces.concat().into_bytes();
        holds_together(&decode_bytes("f.yaml", &bytes), line_count(&bytes));
    }
}

/// A change that always breaks something, so that the properties above are known to see refusals.
#[test]
fn the_seeds_hold_policies_that_can_be_refused() {
    let decoded: Vec<_> = SEEDS.iter().flat_map(|seed| decode_bytes("f.yaml", seed.as_bytes())).collect();
    let policies = decoded.iter().filter_map(|object| match object {
        Ok(Object::Policy(policy)) => Some(policy),
        _ => None,
    });
    let (refused, valid): (Vec<_>, Vec<_>) = policies.partition(|policy| !policy.problems.is_empty());
    assert!(refused.len() >= 10 && valid.len() >= 50, "{} refused, {} valid", refused.len(), valid.len());
}
