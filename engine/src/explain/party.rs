//! Who is meant: a pod by name, an identity, an address, labels or an entity. A name that nobody has is an error that
//! says which part it is and who has a name like it.
//!
//! Neighbours: `bench.rs` gives whoever is judged a table.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use sinew_api::identity::Identity;
use sinew_api::labels::Labels;
use sinew_api::policy::Protocol;

use super::ResolvedParty;
use crate::change::EndpointId;
use crate::policy::compile::NamedPorts;
use crate::state::Engine;

/// One end of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Party {
    /// `namespace/name`, or a name or the beginning of one that only one pod has.
    Pod(String),
    /// An identity's number.
    Identity(Identity),
    /// An address.
    Address(IpAddr),
    /// Labels of an endpoint, all of them.
    Labels(Labels),
    /// A reserved identity by name: `host`, `world`, `remote-node`, …
    Entity(String),
    /// A reserved identity at one of its addresses, which nothing here need know: as somebody else has recorded it.
    EntityAt {
        /// Its name.
        name: String,
        /// The address.
        address: IpAddr,
        /// Whether that is a node's.
        node: bool,
    },
}

impl Party {
    /// Reads what a person writes: an address, a number, the name of an entity, labels (`app=web,k8s:tier=front`; `k8s` is
    /// the source of those that name none), else the name of a pod.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        if let Ok(address) = text.parse() {
            return Self::Address(address);
        }
        if let Ok(number) = text.parse() {
            return Self::Identity(Identity(number));
        }
        if let Some(name) = text.strip_prefix("reserved:") {
            return Self::Entity(name.to_owned());
        }
        if Identity::RESERVED.iter().any(|(_, name)| *name == text) {
            return Self::Entity(text.to_owned());
        }
        if !text.contains('=') {
            return Self::Pod(text.to_owned());
        }
        let mut labels = Labels::new();
        for label in text.split(',') {
            let (name, value) = label.split_once('=').unwrap_or((label, ""));
            let (source, key) = name.split_once(':').unwrap_or(("k8s", name));
            labels.insert(source.trim(), key.trim(), value.trim());
        }
        Self::Labels(labels)
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(name) | Self::Entity(name) | Self::EntityAt { name, .. } => f.write_str(name),
            Self::Identity(number) => number.fmt(f),
            Self::Address(address) => address.fmt(f),
            Self::Labels(labels) => labels.fmt(f),
        }
    }
}

/// An end that doesn't exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{part} {party}: {problem}{}", hint(.nearest))]
pub struct Unknown {
    /// `FROM` or `TO`.
    pub part: &'static str,
    /// What was asked for.
    pub party: Party,
    /// What is wrong with it.
    pub problem: String,
    /// Names like it.
    pub nearest: Vec<String>,
}

fn hint(nearest: &[String]) -> String {
    match nearest {
        [] => String::new(),
        names => format!("; did you mean {}?", names.join(", ")),
    }
}

/// One end of a connection.
#[derive(Clone, Debug)]
pub(crate) struct End {
    pub(crate) name: String,
    /// Namespace and name of the pod.
    pub(crate) pod: Option<(String, String)>,
    /// What its packets carry.
    pub(crate) identity: Identity,
    /// Whether the number is only this explanation's.
    pub(crate) unnumbered: bool,
    pub(crate) labels: Arc<Labels>,
    pub(crate) ports: Arc<NamedPorts>,
    pub(crate) addresses: Vec<IpAddr>,
    /// Addresses that stand for those of a pod that has none.
    pub(crate) lent: Vec<IpAddr>,
    /// The address that CIDRs are compared with.
    pub(crate) address: IpAddr,
    /// What that address is to the end.
    pub(crate) standing: Standing,
    /// Whether policies select it.
    pub(crate) judged: bool,
    /// Whose table answers for it.
    pub(crate) table: Option<EndpointId>,
    /// The endpoint of this node.
    pub(crate) endpoint: Option<EndpointId>,
    pub(crate) node: String,
}

/// What the address with which an end is judged is to it. Only its own is ever told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Its own.
    Own,
    /// Stands for that of a pod which has none.
    Lent,
    /// Stands for the world in general.
    General,
    /// There is none: it must have one, and nobody here knows it.
    Unknown,
}

impl End {
    /// Whether both are one pod: what it sends to itself never leaves it.
    pub(super) fn is(&self, other: &Self) -> bool {
        (self.pod.is_some() && self.pod == other.pod)
            || (self.endpoint.is_some() && self.endpoint == other.endpoint)
    }

    /// A node, or a pod on a node's network, is `host` to the pods of that node and `remote-node` to all others
    /// (policy.md 6, 7). Of an end that names no node nothing is known.
    pub(super) fn as_seen_from(&mut self, node: &str, judged: bool, engine: &Engine) {
        if !matches!(self.identity, Identity::HOST | Identity::REMOTE_NODE)
            || self.unnumbered
            || self.node.is_empty()
            || node.is_empty()
            || !judged
        {
            return;
        }
        self.identity = if self.node == node { Identity::HOST } else { Identity::REMOTE_NODE };
        self.labels = engine.labels_of_reserved(self.identity);
    }

    pub(super) fn resolved(&self) -> ResolvedParty {
        ResolvedParty {
            name: self.name.clone(),
            identity: (!self.unnumbered).then_some(self.identity),
            labels: Arc::clone(&self.labels),
            addresses: self.addresses.clone(),
            endpoint: self.endpoint,
            node: self.node.clone(),
        }
    }

    /// Numbers of its ports of a name.
    pub(super) fn named(&self, name: &str, protocol: Protocol) -> &[u16] {
        self.ports.get(&(name.to_owned(), protocol)).map_or(&[], Vec::as_slice)
    }
}

/// The one pod that a text names: exactly, by name alone, or by the beginning of either.
pub(super) fn find_pod(
    text: &str,
    pods: &BTreeSet<(String, String)>,
) -> Result<(String, String), (String, Vec<String>)> {
    let full = |pod: &(String, String)| format!("{}/{}", pod.0, pod.1);
    if let Some(pod) = pods.iter().find(|pod| full(pod) == text) {
        return Ok(pod.clone());
    }
    for matches in [
        |pod: &(String, String), text: &str| pod.1 == text,
        |pod: &(String, String), text: &str| {
            pod.1.starts_with(text) || format!("{}/{}", pod.0, pod.1).starts_with(text)
        },
    ] {
        let found: Vec<&(String, String)> = pods.iter().filter(|pod| matches(pod, text)).collect();
        match found.as_slice() {
            [] => {}
            [pod] => return Ok((*pod).clone()),
            several => {
                let names = several.iter().take(5).map(|pod| full(pod)).collect();
                return Err((format!("{} pods have a name like this", several.len()), names));
            }
        }
    }
    if text.parse::<IpNet>().is_ok() {
        return Err(("that is a range, and an end has one address: name one of it".to_owned(), Vec::new()));
    }
    Err(("there is no such pod".to_owned(), names_like(text, pods)))
}

/// Pods of a name like it, those of that name in other namespaces too, and entities; the most alike first.
fn names_like(text: &str, pods: &BTreeSet<(String, String)>) -> Vec<String> {
    let bare = text.rsplit_once('/').map_or(text, |(_, name)| name);
    let mut names: Vec<(usize, String)> = pods
        .iter()
        .filter_map(|(namespace, name)| {
            let full = format!("{namespace}/{name}");
            let of_name = strsim::damerau_levenshtein(bare, name);
            // Another namespace is one more thing that is wrong.
            let elsewhere = usize::from(bare.len() < text.len());
            let of_name = (of_name <= bare.len() / 2).then_some(of_name + elsewhere);
            let of_full = strsim::damerau_levenshtein(text, &full);
            let of_full = (of_full <= text.len() / 3).then_some(of_full);
            Some((of_name.into_iter().chain(of_full).min()?, full))
        })
        .collect();
    let entities = Identity::RESERVED.iter().filter(|(number, _)| *number != Identity::UNKNOWN);
    names.extend(entities.filter_map(|(_, entity)| {
        let distance = strsim::damerau_levenshtein(text, entity);
        (distance <= text.len() / 3).then(|| (distance, (*entity).to_owned()))
    }));
    names.sort();
    names.into_iter().take(3).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write() {
        assert_eq!(Party::parse("shop/web"), Party::Pod("shop/web".to_owned()));
        assert_eq!(Party::parse("10.0.0.1"), Party::Address("10.0.0.1".parse().unwrap()));
        assert_eq!(Party::parse("fd00::1"), Party::Address("fd00::1".parse().unwrap()));
        assert_eq!(Party::parse("4711"), Party::Identity(Identity(4711)));
        assert_eq!(Party::parse("world"), Party::Entity("world".to_owned()));
        assert_eq!(Party::parse("reserved:host"), Party::Entity("host".to_owned()));
        let Party::Labels(labels) = Party::parse("app=web, cni:tier=x") else { panic!("labels") };
        assert_eq!(labels.to_strings(), ["cni:tier=x", "k8s:app=web"]);
    }

    #[test]
    fn pods_by_unique_beginnings() {
        let pod = |ns: &str, name: &str| (ns.to_owned(), name.to_owned());
        let pods =
            [pod("shop", "web-1"), pod("shop", "web-2"), pod("blog", "db"), pod("shop", "db-2")].into();
        assert_eq!(find_pod("shop/web-1", &pods), Ok(pod("shop", "web-1")));
        assert_eq!(find_pod("db", &pods), Ok(pod("blog", "db")));
        assert_eq!(find_pod("blog/", &pods), Ok(pod("blog", "db")));
        let (problem, names) = find_pod("web", &pods).unwrap_err();
        assert_eq!(problem, "2 pods have a name like this");
        assert_eq!(names, ["shop/web-1", "shop/web-2"]);
        let (problem, names) = find_pod("shpo/web-1", &pods).unwrap_err();
        assert_eq!(problem, "there is no such pod");
        assert_eq!(names[0], "shop/web-1");
    }

    #[test]
    fn names_that_were_probably_meant() {
        let pods = [("default", "web"), ("shop", "cart")].map(|(ns, name)| (ns.to_owned(), name.to_owned()));
        let pods = BTreeSet::from(pods);
        let like = |text: &str| find_pod(text, &pods).unwrap_err();
        assert_eq!(like("shop/web").1, ["default/web"]);
        assert_eq!(like("wrld").1[0], "world");
        assert_eq!(like("hsot").1[0], "host");
        let (problem, names) = like("10.0.0.0/24");
        assert_eq!(problem, "that is a range, and an end has one address: name one of it");
        assert_eq!(names, [""; 0]);
    }
}
