//! A client and a server, on one node or on two, and the policy between them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use sinew_tests::lab::connections::Connection;
use sinew_tests::lab::process::wait_until;
use sinew_tests::lab::{CLIENT_MAY, Family, Lab, Pod, Routing, Topology};
use sinew_tests::probe::raw::Tuple;

pub(crate) const TCP: u16 = 80;
pub(crate) const UDP: u16 = 53;

/// policy.md 17 gives a relabel five seconds at most.
const MOVED_WITHIN: Duration = Duration::from_secs(6);

/// The client accepts nothing that it has not asked for.
const CLIENT_ACCEPTS_NOTHING: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: client-accepts-nothing, namespace: default}
spec:
  podSelector: {matchLabels: {app: client}}
  policyTypes: [Ingress]
";

pub(crate) struct Ground {
    pub(crate) lab: Lab,
    pub(crate) client: Arc<Pod>,
    pub(crate) server: Arc<Pod>,
}

impl Ground {
    /// Client on node a, server on node b.
    pub(crate) fn apart(routing: Routing) -> Result<Self> {
        Self::new(routing, "b")
    }

    /// Both on node a.
    pub(crate) fn together() -> Result<Self> {
        Self::new(Routing::Native, "a")
    }

    fn new(routing: Routing, server_on: &str) -> Result<Self> {
        let lab = Lab::build(Topology::Wire(2)).routing(routing).start()?;
        let client = lab.node("a").pod("client", &[("app", "client")])?;
        let server = lab.node(server_on).pod("server", &[("app", "server")])?;
        server.serve(&[TCP], &[UDP])?;
        lab.apply("client-may", CLIENT_MAY)?;
        Ok(Self { lab, client, server })
    }

    /// Changes the client's labels and waits until its node has moved it to the new identity: the other nodes hear of it
    /// first (policy.md 17).
    pub(crate) fn relabel_client(&self, labels: &[(&str, &str)]) -> Result<()> {
        let node = self.lab.node("a");
        let before = self.client_identity()?;
        node.relabel(&self.client, labels)?;
        wait_until("the client's new identity", MOVED_WITHIN, || Ok(self.client_identity()? != before))?;
        self.lab.wait_enforced()
    }

    fn client_identity(&self) -> Result<u64> {
        let output = self.lab.node("a").sinew(&["endpoint", "get", "client", "-o", "json"])?;
        let endpoint: Value = serde_json::from_slice(&output.stdout).context("an endpoint as JSON")?;
        endpoint
            .pointer("/endpoint/identity")
            .and_then(Value::as_u64)
            .with_context(|| format!("no identity in {endpoint}"))
    }

    pub(crate) fn client_accepts_nothing(&self) -> Result<()> {
        self.lab.apply("client-accepts-nothing", CLIENT_ACCEPTS_NOTHING)
    }

    /// Entries of connections between client and server on a node.
    pub(crate) fn entries(&self, node: &str) -> Result<Vec<Connection>> {
        self.lab.node(node).connections_between(&self.client, &self.server)
    }

    /// States of the connections with this port of the client's.
    pub(crate) fn states_of(&self, node: &str, port: u16) -> Result<Vec<String>> {
        let of_port = self.entries(node)?.into_iter().filter(|entry| entry.raw()["sourcePort"] == port);
        Ok(of_port.map(|entry| entry.state().to_owned()).collect())
    }

    pub(crate) fn forget_connections(&self) -> Result<()> {
        self.lab.nodes().try_for_each(|node| node.flush_connections())
    }

    /// From the client to the server.
    pub(crate) fn tuple(&self, family: Family, from: u16, to: u16) -> Tuple {
        Tuple {
            from: SocketAddr::new(self.client.address(family), from),
            to: SocketAddr::new(self.server.address(family), to),
        }
    }
}
