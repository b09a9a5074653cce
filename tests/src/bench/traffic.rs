//! Pods' traffic against bare wires and against the kernel's routing.
//!
//! The pods are on nodes with real agents: every pod is selected by policies, connections are tracked, and the agents read
//! and keep the flow events. Each round loads the three set-ups for a slice of time each, in rotating order.
//!
//! Neighbours: `ground.rs` makes the other sides, `load.rs` the traffic.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Options;
use super::ground::Ground;
use super::load::{self, Ends, Load};
use super::report::{Against, Aim, Row};
use super::spread::Spread;
use crate::lab::process::interrupted;
use crate::lab::{Family, Lab, Routing, Topology};

/// Policies that select the pods.
const POLICIES: usize = 50;
/// Index of the ways in [`Ground`].
const SAME_NODE: usize = 0;
const OTHER_NODE: usize = 1;

/// One way through the cluster, and what it is compared with.
struct Way {
    name: &'static str,
    ends: Ends,
    ground: usize,
    /// Whether the aims are for it.
    aims: bool,
}

/// Measures same node and other node, native and VXLAN.
pub(super) fn run(options: &Options) -> Result<Vec<Row>> {
    let family = options.family();
    let ground = Ground::make(family)?;
    let mut rows = Vec::new();
    for routing in [Routing::Native, Routing::Vxlan] {
        let lab = super::lab(Topology::Wire(2)).routing(routing).start()?;
        for way in ways(&lab, family, routing)? {
            for load in Load::ALL {
                rows.extend(measure(&way, &ground, load, options)?);
            }
        }
    }
    Ok(rows)
}

fn ways(lab: &Lab, family: Family, routing: Routing) -> Result<Vec<Way>> {
    let (a, b) = (lab.node("a"), lab.node("b"));
    let client = a.pod("client", &[("app", "client")])?;
    let near = a.pod("near", &[("app", "server")])?;
    let far = b.pod("far", &[("app", "server")])?;
    lab.apply("policies", &policies())?;
    let way = |name, server: &crate::lab::Pod, ground, aims| Way {
        name,
        ends: Ends {
            client: client.netns().clone(),
            server: server.netns().clone(),
            address: server.address(family),
        },
        ground,
        aims,
    };
    Ok(match routing {
        Routing::Native => {
            vec![way("same node", &near, SAME_NODE, true), way("other node, native", &far, OTHER_NODE, true)]
        }
        Routing::Vxlan => vec![way("other node, VXLAN", &far, OTHER_NODE, false)],
    })
}

/// One policy lets the client talk to the servers, in both pods' tables; the others fill these tables.
pub(super) fn policies() -> String {
    let mut text = String::new();
    let mut policy = |name: &str, subject: &str, direction: &str, rule: &str| {
        write!(
            text,
            "---\napiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: {name}}}\nspec:\n  \
             endpointSelector: {{matchLabels: {{app: {subject}}}}}\n  {direction}:\n  - {rule}\n"
        )
        .expect("a string takes everything");
    };
    policy("in", "server", "ingress", "fromEndpoints: [{matchLabels: {app: client}}]");
    policy("out", "client", "egress", "toEndpoints: [{matchLabels: {app: server}}]");
    for number in 2..POLICIES {
        let (subject, direction, peers) = if number % 2 == 0 {
            ("server", "ingress", "fromEndpoints")
        } else {
            ("client", "egress", "toEndpoints")
        };
        let rule = format!(
            "{{{peers}: [{{matchLabels: {{app: other-{number}}}}}], toPorts: [{{ports: [{{port: \"{}\", protocol: TCP}}]}}]}}",
            8000 + number
        );
        policy(&format!("other-{number}"), subject, direction, &rule);
    }
    text
}

fn measure(way: &Way, ground: &Ground, load: Load, options: &Options) -> Result<Vec<Row>> {
    let (rounds, length) = if options.quick { (3, 150) } else { (11, 300) };
    let length = Duration::from_millis(length);
    let sides = [&way.ends, &ground.bare[way.ground], &ground.routed[way.ground]];
    let mut numbers = [const { Vec::new() }; 3];
    for side in sides {
        // Neighbours and caches warm up.
        load::run(load, side, Duration::from_millis(50))?;
    }
    for round in 0..rounds {
        let order = if round % 2 == 0 { [0, 1, 2] } else { [2, 1, 0] };
        for side in order {
            ensure!(!interrupted(), "interrupted");
            numbers[side].push(load::run(load, sides[side], length)?);
        }
    }
    let [ours, bare, routed] = numbers;
    let aims = match load {
        Load::Connections => [Some(Aim::AtLeast(0.90)), Some(Aim::AtLeast(1.05))],
        _ => [Some(Aim::AtLeast(0.97)), None],
    };
    let name = format!("{}, {}", load.name(), way.name);
    [("bare", bare, aims[0]), ("kernel routing", routed, aims[1])]
        .into_iter()
        .map(|(other, numbers, aim)| {
            let ratio = ours.iter().zip(&numbers).map(|(ours, other)| ours / other).collect();
            let few = || "no rounds";
            let against = Against {
                name: other,
                other: Spread::of(numbers).with_context(few)?,
                ratio: Spread::of(ratio).with_context(few)?,
            };
            let ours = Spread::of(ours.clone()).with_context(few)?;
            let row = Row::new("traffic", name.clone(), load.unit(), ours);
            let aim = aim.filter(|_| way.aims);
            Ok(Row { against: Some(against), aim, ..row })
        })
        .collect()
}
