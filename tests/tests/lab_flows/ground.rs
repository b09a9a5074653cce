//! The pods whose flows are looked at: a client, a server beside it, one on another node, and on each node one that tells
//! when all flows are there ([`super::told::check`]).

use std::sync::Arc;

use anyhow::Result;
use sinew_tests::lab::{Lab, Place, Pod, Routing, Topology};

pub(crate) const TCP: u16 = 80;
pub(crate) const UDP: u16 = 53;
/// Nobody listens there, with either protocol.
pub(crate) const CLOSED: u16 = 81;

pub(crate) struct Ground {
    pub(crate) lab: Lab,
    /// `app=client`, node a.
    pub(crate) client: Arc<Pod>,
    /// `app=server`, node a.
    pub(crate) near: Arc<Pod>,
    /// `app=server`, node b.
    pub(crate) far: Arc<Pod>,
}

impl Ground {
    /// Servers everywhere, and agents with these words. A sign of life comes only where it is asked for.
    pub(crate) fn new(routing: Routing, words: &[&str]) -> Result<Self> {
        let mut builder = Lab::build(Topology::Wire(2)).routing(routing);
        if !words.iter().any(|word| word.starts_with("--monitor-aggregation")) {
            builder = builder.agent_argument("--monitor-aggregation-interval=1h");
        }
        let lab = words.iter().fold(builder, |builder, word| builder.agent_argument(word)).start()?;
        let (a, b) = (lab.node("a"), lab.node("b"));
        let client = a.pod("client", &[("app", "client")])?;
        let near = a.pod("near", &[("app", "server")])?;
        let far = b.pod("far", &[("app", "server")])?;
        for node in [a, b] {
            node.pod(&format!("fence-{}", node.name()), &[])?;
        }
        let ground = Self { lab, client, near, far };
        for name in ["client", "near", "far", "a", "b", "outside"] {
            ground.place(name).serve(&[TCP], &[UDP])?;
        }
        ground.lab.wait_enforced()?;
        Ok(ground)
    }

    /// A pod, a node or the outside, by name.
    pub(crate) fn place(&self, name: &str) -> &Place {
        match name {
            "client" => &self.client,
            "near" => &self.near,
            "far" => &self.far,
            "outside" => self.lab.outside(),
            node => self.lab.node(node),
        }
    }
}
