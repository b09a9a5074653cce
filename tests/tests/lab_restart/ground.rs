//! A client, a stranger and a server on each node, with traffic that must go on and traffic that must never start.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use sinew_tests::lab::place::Watch;
use sinew_tests::lab::process::pause;
use sinew_tests::lab::{CLIENT_MAY, Family, Lab, Pod, Routing, Topology};
use sinew_tests::probe::Transport;

pub(crate) const TCP: u16 = 80;
const UDP: u16 = 53;
pub(crate) const EVERY: Duration = Duration::from_millis(10);
pub(crate) const SERVES: Duration = Duration::from_secs(60);

/// A client, a stranger on the same node, and a server on each node.
pub(crate) struct Ground {
    pub(crate) lab: Lab,
    pub(crate) client: Arc<Pod>,
    pub(crate) stranger: Arc<Pod>,
    pub(crate) servers: Vec<Arc<Pod>>,
}

/// Traffic that must go on and traffic that must never start.
pub(crate) struct Traffic {
    must: Vec<Watch>,
    must_not: Vec<Watch>,
}

impl Ground {
    pub(crate) fn new(routing: Routing) -> Result<Self> {
        let lab = Lab::build(Topology::Wire(2)).routing(routing).start()?;
        let client = lab.node("a").pod("client", &[("app", "client")])?;
        let stranger = lab.node("a").pod("stranger", &[("app", "stranger")])?;
        let servers = vec![
            lab.node("a").pod("near", &[("app", "server")])?,
            lab.node("b").pod("far", &[("app", "server")])?,
        ];
        for server in &servers {
            server.serve(&[TCP], &[UDP])?;
        }
        lab.apply("client-may", CLIENT_MAY)?;
        Ok(Self { lab, client, stranger, servers })
    }

    pub(crate) fn traffic(&self) -> Result<Traffic> {
        let mut traffic = Traffic { must: Vec::new(), must_not: Vec::new() };
        for server in &self.servers {
            for family in Family::BOTH {
                let to = server.address(family);
                traffic.must.push(self.client.hold(Transport::Tcp, to, TCP, EVERY)?);
                traffic.must.push(self.client.hold(Transport::Udp, to, UDP, EVERY)?);
                traffic.must.push(self.client.redial(Transport::Tcp, to, TCP, EVERY)?);
                let short = ["--timeout", "50"];
                traffic.must_not.push(self.stranger.watch(
                    "redial",
                    Transport::Tcp,
                    to,
                    TCP,
                    EVERY,
                    &short,
                )?);
                traffic.must_not.push(self.stranger.watch(
                    "redial",
                    Transport::Icmp,
                    to,
                    0,
                    EVERY,
                    &short,
                )?);
            }
        }
        pause(Duration::from_millis(300))?;
        Ok(traffic)
    }

    /// Puts a policy in force by which nobody reaches the servers.
    pub(crate) fn nobody_may(&self) -> Result<()> {
        let nobody = CLIENT_MAY.replace("app: client", "app: nobody").replace("client-may", "nobody");
        self.lab.apply("nobody", &nobody)
    }
}

impl Traffic {
    pub(crate) fn finish(self, when: &str) -> Result<()> {
        for watch in self.must {
            let watched = watch.finish()?;
            assert!(watched.answered > 20 && watched.failed.is_empty(), "{when}: {watched:?}");
        }
        for watch in self.must_not {
            let watched = watch.finish()?;
            assert!(watched.attempts > 3 && watched.answered == 0, "{when}: {watched:?}");
        }
        Ok(())
    }
}
