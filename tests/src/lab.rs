//! The lab: nodes and pods as network namespaces with real interfaces, the real agent and the real CNI plugin.
//!
//! A test says which pods are on which node, and what must happen:
//!
//! ```no_run
//! # use sinew_tests::lab::{Lab, Family, Topology};
//! # fn main() -> anyhow::Result<()> {
//! let lab = Lab::build(Topology::Wire(2)).start()?;
//! let client = lab.node("a").pod("client", &[("app", "client")])?;
//! let server = lab.node("b").pod("server", &[("app", "server")])?;
//! server.serve(&[80], &[])?;
//! assert!(client.tcp(server.address(Family::V6), 80)?.answered());
//! # Ok(())
//! # }
//! ```
//!
//! Everything is made with `ip` and `nsenter`, so that each step can be repeated by hand. Everything that a lab makes
//! carries its id: namespaces `sinew-<id>-…`, files under `/run/sinew-lab/<id>`, pins under `/sys/fs/bpf/sinew-<id>`. It
//! is removed when the `Lab` is dropped; a test's lab prints a [`diagnosis`] before that. [`sweep`] removes what a killed
//! process left.
//!
//! Neighbours: [`topology`] is the address plan, [`place`] what probes start from, [`node`] and [`pod`] the two kinds of
//! place with an agent, [`cni`] the call that a container runtime makes, [`tripwire`] ends a process at one of its steps.

pub mod attached;
pub mod binaries;
pub mod cni;
pub mod connections;
mod containers;
pub mod diagnosis;
pub mod flows;
pub mod netns;
pub mod node;
pub mod place;
pub mod pod;
pub mod process;
pub mod relay;
pub mod store;
pub mod sweep;
pub mod topology;
pub mod tripwire;
pub mod words;

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::id as process_id;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

pub use node::Node;
pub use place::{Family, Place};
pub use pod::Pod;
pub use topology::Topology;

use netns::Netns;
use store::Store;

/// Where labs keep their files; one folder a lab.
pub(crate) const LABS: &str = "/run/sinew-lab";
/// Where labs keep their pins.
const BPFFS: &str = "/sys/fs/bpf";

/// A policy by which servers accept whatever clients send.
pub const CLIENT_MAY_ALL: &str = "
apiVersion: sinew.io/v1
kind: SinewNetworkPolicy
metadata: {name: client-may, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: server}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: client}}]
";

/// A policy by which servers accept TCP 80 and UDP 53 of clients, and nothing else.
pub const CLIENT_MAY: &str = "
apiVersion: sinew.io/v1
kind: SinewNetworkPolicy
metadata: {name: client-may, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: server}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: client}}]
    toPorts:
    - ports: [{port: '80', protocol: TCP}, {port: '53', protocol: UDP}]
";

/// What a lab is made of; written beside it, so that another process can attach to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Which machines there are and how they are wired.
    pub topology: Topology,
    /// How packets get from node to node.
    pub routing: Routing,
    /// Families that pods and machines have.
    pub families: Vec<Family>,
    /// More words for every agent.
    pub agent_arguments: Vec<String>,
    /// Whether a node has eight IPv4 addresses for pods instead of 256.
    pub small_pools: bool,
}

impl Plan {
    /// A machine's IPv4 address, if machines have any.
    fn v4(&self, of: topology::Addresses) -> Option<Ipv4Addr> {
        self.families.contains(&Family::V4).then_some(of.v4)
    }

    /// A machine's IPv6 address, if machines have any.
    fn v6(&self, of: topology::Addresses) -> Option<Ipv6Addr> {
        self.families.contains(&Family::V6).then_some(of.v6)
    }
}

/// How packets get from node to node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Routing {
    /// The network between the nodes knows where pods are.
    Native,
    /// In VXLAN, between node addresses.
    Vxlan,
}

/// Both ways, for tests that must hold in each.
pub const ROUTINGS: [Routing; 2] = [Routing::Native, Routing::Vxlan];

/// A lab that is being described.
pub struct Builder {
    plan: Plan,
    id: Option<String>,
    with_agents: bool,
    tell: fn(&str),
    patience: Duration,
}

/// A running lab.
pub struct Lab {
    id: String,
    plan: Plan,
    nodes: BTreeMap<String, Arc<Node>>,
    hosts: BTreeMap<String, Arc<Place>>,
    /// Namespaces that are neither node nor host: the wire, the router.
    between: Vec<Netns>,
    store: Store,
    /// Cleared for a lab that outlives the process.
    removes_itself: Mutex<bool>,
    /// Whether it prints its state at its end. A test that returns an error does not panic, so that the drop cannot know
    /// how the test ends; but libtest shows the output only if it failed.
    tells: bool,
}

impl Lab {
    /// Starts to describe a lab: dual-stack, native routing, an agent on each node.
    #[must_use]
    pub fn build(topology: Topology) -> Builder {
        let plan = Plan {
            topology,
            routing: Routing::Native,
            families: Family::BOTH.to_vec(),
            agent_arguments: Vec::new(),
            small_pools: false,
        };
        Builder { plan, id: None, with_agents: true, tell: |_| (), patience: Duration::from_secs(30) }
    }

    /// Attaches to a lab that another process left standing.
    ///
    /// # Errors
    /// There is no such lab.
    pub fn attach(id: &str) -> Result<Self> {
        let folder = folder_of(id);
        let plan = fs::read_to_string(folder.join("plan.json"))
            .with_context(|| format!("there is no lab in {}: `up` makes one", folder.display()))?;
        let plan: Plan = serde_json::from_str(&plan).context("the lab's plan")?;
        let lab = Self::describe(id.to_owned(), plan, false);
        lab.keep();
        for node in lab.nodes.values() {
            node.attach()?;
        }
        Ok(lab)
    }

    /// The lab's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What it is made of.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// A node by name: `a`, `b`, …
    ///
    /// # Panics
    /// There is none of that name.
    #[must_use]
    pub fn node(&self, name: &str) -> &Arc<Node> {
        self.nodes.get(name).unwrap_or_else(|| panic!("the lab has no node {name}"))
    }

    /// Every node, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.values()
    }

    /// The host outside the cluster.
    ///
    /// # Panics
    /// The topology has none.
    #[must_use]
    pub fn outside(&self) -> &Arc<Place> {
        self.hosts.get("outside").expect("the topology has an outside host")
    }

    /// Every pod, by name.
    #[must_use]
    pub fn pods(&self) -> Vec<Arc<Pod>> {
        self.nodes.values().flat_map(|node| node.pods()).collect()
    }

    /// A namespace of the lab that is no machine; the test makes it, the lab's end removes it.
    #[must_use]
    pub fn scratch(&self, name: &str) -> Netns {
        Netns::named(&self.id, &format!("scratch-{name}"))
    }

    /// A place in a namespace that the test has made, for probes to start from. It has no address of its own.
    #[must_use]
    pub fn place_in(&self, name: &str, netns: Netns) -> Place {
        Place::new(name, netns, None, None)
    }

    /// The folder of objects that all agents share.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Writes objects into the store's file `<name>.yaml` and waits until every node enforces them.
    ///
    /// # Errors
    /// An object was refused, or the time is over.
    pub fn apply(&self, name: &str, yaml: &str) -> Result<()> {
        self.store.write(name, yaml)?;
        self.wait_enforced()
    }

    /// Removes a file of the store and waits until no node enforces it.
    ///
    /// # Errors
    /// There is no such file, or the time is over.
    pub fn withdraw(&self, name: &str) -> Result<()> {
        self.store.remove(name)?;
        self.wait_enforced()
    }

    /// Waits until every node enforces what the store holds.
    ///
    /// # Errors
    /// The time is over.
    pub fn wait_enforced(&self) -> Result<()> {
        for node in self.nodes.values() {
            node.wait_enforced(Duration::from_secs(20))?;
        }
        Ok(())
    }

    /// Leaves the lab standing when this value is dropped.
    pub fn keep(&self) {
        *self.removes_itself.lock().expect("nothing panics while it holds this lock") = false;
    }

    fn describe(id: String, plan: Plan, tells: bool) -> Self {
        let folder = folder_of(&id);
        let store = Store::new(folder.join("store"));
        let mut nodes = BTreeMap::new();
        for number in 0..plan.topology.nodes() {
            let node = Node::new(&id, number, &plan, &folder, store.clone());
            nodes.insert(node.name().to_owned(), Arc::new(node));
        }
        let outside = plan.topology.outside();
        let netns = Netns::named(&id, "outside");
        let hosts = BTreeMap::from([(
            "outside".to_owned(),
            Arc::new(Place::new("outside", netns, plan.v4(outside), plan.v6(outside))),
        )]);
        let between = vec![Netns::named(&id, plan.topology.between())];
        Self { id, plan, nodes, hosts, between, store, removes_itself: Mutex::new(true), tells }
    }

    fn make(&self, owner: sweep::Owner) -> Result<()> {
        let folder = folder_of(&self.id);
        // The owner comes first: from here on a crash is swept.
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        owner.write(&folder)?;
        fs::write(folder.join("plan.json"), serde_json::to_string(&self.plan).context("the plan as JSON")?)
            .context("writing the lab's plan")?;
        self.store.make()?;
        for netns in &self.between {
            netns.make()?;
        }
        for place in self.places() {
            place.netns().make()?;
        }
        self.plan.topology.wire(self)?;
        self.between.iter().chain(self.places().map(Place::netns)).try_for_each(Netns::wait_links)
    }

    /// Nodes and hosts.
    fn places(&self) -> impl Iterator<Item = &Place> {
        self.nodes.values().map(|node| &***node).chain(self.hosts.values().map(|host| &**host))
    }

    /// The namespace between the nodes.
    fn between(&self) -> &Netns {
        &self.between[0]
    }
}

impl Drop for Lab {
    #[expect(clippy::print_stderr, reason = "a drop has nowhere else to tell what it could not do")]
    fn drop(&mut self) {
        if *self.removes_itself.lock().expect("nothing panics while it holds this lock") {
            if self.tells {
                diagnosis::print(self);
            }
            if std::env::var_os("SINEW_LAB_KEEP").is_some() && std::thread::panicking() {
                eprintln!("lab {} is kept: `sinew-lab down {}` removes it", self.id, self.id);
                return;
            }
            for node in self.nodes.values() {
                node.forget_processes();
            }
            if let Err(error) = sweep::remove(&self.id) {
                eprintln!("lab {}: {error:#}", self.id);
            }
        }
    }
}

impl Builder {
    /// How packets get from node to node.
    #[must_use]
    pub fn routing(mut self, routing: Routing) -> Self {
        self.plan.routing = routing;
        self
    }

    /// Pods and machines have this family only: a cluster of one family.
    #[must_use]
    pub fn only(mut self, family: Family) -> Self {
        self.plan.families = vec![family];
        self
    }

    /// A node has eight IPv4 addresses for its pods.
    #[must_use]
    pub fn small_pools(mut self) -> Self {
        self.plan.small_pools = true;
        self
    }

    /// One more word for every agent's command line.
    #[must_use]
    pub fn agent_argument(mut self, argument: &str) -> Self {
        self.plan.agent_arguments.push(argument.to_owned());
        self
    }

    /// A name of one's own instead of one from the process id: a lab for a person.
    #[must_use]
    pub fn id(mut self, id: &str) -> Self {
        self.id = Some(id.to_owned());
        self
    }

    /// Machines and wires only.
    #[must_use]
    pub fn without_agents(mut self) -> Self {
        self.with_agents = false;
        self
    }

    /// Reports what is being made and waited for.
    #[must_use]
    pub fn tell(mut self, tell: fn(&str)) -> Self {
        self.tell = tell;
        self
    }

    /// How long each agent may take until it serves CNI.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Makes the lab and waits until its agents serve CNI.
    ///
    /// # Errors
    /// Something of it cannot be made; what was made is removed.
    pub fn start(self) -> Result<Lab> {
        static LABS_OF_PROCESS: AtomicU32 = AtomicU32::new(0);
        sweep::stale()?;
        let tells = self.id.is_none() && self.with_agents;
        let id = self.id.unwrap_or_else(|| {
            format!("{}x{}", process_id(), LABS_OF_PROCESS.fetch_add(1, Ordering::Relaxed))
        });
        let lab = Lab::describe(id, self.plan, tells);
        let tell = self.tell;
        tell(&format!("making the machines of lab {} and their wires", lab.id));
        lab.make(sweep::Owner::this_process()?)?;
        if self.with_agents {
            for node in lab.nodes.values() {
                tell(&format!(
                    "starting the agent of node {}: its log is {}",
                    node.name(),
                    node.agent_log().display()
                ));
                node.start_agent()?;
            }
            for node in lab.nodes.values() {
                node.wait_ready_telling(self.patience, tell)?;
            }
        }
        Ok(lab)
    }
}

/// Whether a lab of this id exists and its process is alive.
#[must_use]
pub fn is_alive(id: &str) -> bool {
    folder_of(id).exists() && !sweep::is_stale(id)
}

/// Files of a lab.
pub(crate) fn folder_of(id: &str) -> PathBuf {
    Path::new(LABS).join(id)
}

/// Pins of a lab.
pub(crate) fn pins_of(id: &str) -> PathBuf {
    Path::new(BPFFS).join(format!("sinew-{id}"))
}
