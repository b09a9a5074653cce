//! The three sides of what the observer costs: a node without it, a node with it, and that node with a client that follows.
//!
//! Two labs of one node each, alike but for one word on the agent's command line, stand beside each other, so that
//! the sides take turns within a second. Neighbours: `loads.rs`, `rates.rs` and `lossless.rs` load them.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};

use super::follower::Follower;
use super::processor::Watched;
use crate::bench::load::Ends;
use crate::bench::report::Against;
use crate::bench::spread::Spread;
use crate::bench::traffic;
use crate::lab::process::interrupted;
use crate::lab::{Family, Lab, Node, Pod, Topology};

/// Port of datagrams that events are made with.
pub(super) const PORT: u16 = 7100;

/// A side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// No records, no flows.
    Off,
    /// Flows lie in the ring, nobody asks.
    On,
    /// One client gets them all.
    Followed,
}

impl Side {
    /// All of them.
    pub(super) const ALL: [Self; 3] = [Self::Off, Self::On, Self::Followed];

    /// For people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::On => "on",
            Self::Followed => "on, followed",
        }
    }
}

/// A node with a client and a server.
pub(super) struct Site {
    lab: Lab,
    client: Arc<Pod>,
    server: Arc<Pod>,
    family: Family,
}

impl Site {
    /// A lab of its own, whose agent has these words more.
    pub(super) fn start(family: Family, words: &[&str]) -> Result<Self> {
        let builder = crate::bench::lab(Topology::Wire(1));
        let lab = words.iter().fold(builder, |builder, word| builder.agent_argument(word)).start()?;
        let node = lab.node("a");
        let client = node.pod("client", &[("app", "client")])?;
        let server = node.pod("server", &[("app", "server")])?;
        lab.apply("policies", &traffic::policies())?;
        Ok(Self { lab, client, server, family })
    }

    /// Its node.
    pub(super) fn node(&self) -> &Node {
        self.lab.node("a")
    }

    /// Its agent's process.
    pub(super) fn agent(&self) -> Result<u32> {
        self.node().agent_pid().context("the agent runs")
    }

    /// Where loads go.
    pub(super) fn ends(&self) -> Ends {
        Ends {
            client: self.client.netns().clone(),
            server: self.server.netns().clone(),
            address: self.address(),
        }
    }

    /// Where the server is reached.
    pub(super) fn address(&self) -> IpAddr {
        self.server.address(self.family)
    }
}

/// Both nodes.
pub(super) struct Sides {
    off: Site,
    on: Site,
}

impl Sides {
    /// Two labs, with these words more for both agents.
    pub(super) fn start(family: Family, words: &[&str]) -> Result<Self> {
        let without = [words, &["--enable-hubble=false"]].concat();
        Ok(Self { off: Site::start(family, &without)?, on: Site::start(family, words)? })
    }

    /// Measures each side `rounds` times, by turns in turning order; the numbers of each side in order.
    pub(super) fn by_turns<T>(
        &self,
        rounds: usize,
        mut measure: impl FnMut(&Site) -> Result<T>,
    ) -> Result<[Vec<T>; 3]> {
        let mut numbers = [const { Vec::new() }; 3];
        for round in 0..rounds {
            let mut order = Side::ALL;
            if round % 2 == 1 {
                order.reverse();
            }
            for side in order {
                ensure!(!interrupted(), "interrupted");
                let number = self.once(side, &mut measure);
                numbers[side as usize].push(number.with_context(|| format!("observer {}", side.name()))?);
            }
        }
        Ok(numbers)
    }

    fn once<T>(&self, side: Side, measure: impl FnOnce(&Site) -> Result<T>) -> Result<T> {
        match side {
            Side::Off => measure(&self.off),
            Side::On => measure(&self.on),
            Side::Followed => {
                let follower = Follower::start(self.on.node(), PORT)?;
                let measured = measure(&self.on)?;
                follower.told()?;
                Ok(measured)
            }
        }
    }
}

/// Does something and says how many percent of a processor the agent took meanwhile.
pub(super) fn with_agent<T>(site: &Site, work: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
    let watched = Watched::start(site.agent()?)?;
    let done = work()?;
    Ok((done, watched.percent()?))
}

/// One side's numbers against those without observer, pair by pair.
pub(super) fn against_off(ours: &[f64], off: &[f64]) -> Result<(Spread, Against)> {
    let few = || "no rounds";
    let ratio = ours.iter().zip(off).map(|(ours, off)| ours / off).collect();
    let against = Against {
        name: "observer off",
        other: Spread::of(off.to_vec()).with_context(few)?,
        ratio: Spread::of(ratio).with_context(few)?,
    };
    Ok((Spread::of(ours.to_vec()).with_context(few)?, against))
}
