//! Which identities endpoints of any node have, and since when an identity is nobody's (policy.md 18): one that has been so
//! for long enough is given back, by the node that does this for all.
//!
//! Neighbours: `super` feeds it with endpoints, and asks from time to time.

use std::collections::{BTreeMap, HashMap, HashSet};

use sinew_api::identity::Identity;
use sinew_api::object::Endpoint;
use tokio::time::{Duration, Instant};

/// An identity that no endpoint had for this long is given back: the longest time-out of a connection has then passed
/// since its last packet (policy.md 18).
const REST: Duration = Duration::from_nanos(sinew_bpf::conntrack::timeout::TCP);

/// The identities in use, by the endpoint's object. A large cluster has ten thousand of these.
#[derive(Debug, Default)]
pub(super) struct Usage {
    of_endpoints: HashMap<Box<str>, (Identity, Option<Identity>)>,
    idle: BTreeMap<Identity, Instant>,
}

impl Usage {
    /// An endpoint is so now: while it moves from one identity to another it has both.
    pub(super) fn set(&mut self, endpoint: &Endpoint) {
        let identities = (endpoint.identity, endpoint.previous_identity);
        self.of_endpoints.insert(endpoint.name.as_str().into(), identities);
    }

    /// An endpoint is gone.
    pub(super) fn remove(&mut self, name: &str) {
        self.of_endpoints.remove(name);
    }

    /// Another node looks after it: what was seen here counts no more.
    pub(super) fn leave(&mut self) {
        self.idle.clear();
    }

    /// Of the identities that are allocated, those that have been nobody's for long enough.
    pub(super) fn rested<'a>(
        &mut self,
        allocated: impl Iterator<Item = &'a Identity>,
        now: Instant,
    ) -> Vec<Identity> {
        let in_use: HashSet<Identity> = self
            .of_endpoints
            .values()
            .flat_map(|(identity, previous)| [*identity].into_iter().chain(*previous))
            .collect();
        self.idle = allocated
            .filter(|identity| !in_use.contains(*identity))
            .map(|identity| (*identity, self.idle.get(identity).copied().unwrap_or(now)))
            .collect();
        let long_ago = |since: &Instant| now.saturating_duration_since(*since) >= REST;
        self.idle.iter().filter(|(_, since)| long_ago(since)).map(|(identity, _)| *identity).collect()
    }
}

#[cfg(test)]
mod tests {
    use sinew_api::labels::Labels;
    use sinew_api::object::Origin;

    use super::*;

    fn endpoint(name: &str, identity: u32, previous: Option<u32>) -> Endpoint {
        Endpoint {
            name: name.into(),
            pod_namespace: "default".into(),
            pod_name: name.into(),
            pod_uid: String::new(),
            container_id: String::new(),
            ifname: "eth0".into(),
            node: "b".into(),
            addresses: Vec::new(),
            identity: Identity(identity),
            previous_identity: previous.map(Identity),
            labels: Labels::new(),
            ports: Vec::new(),
            phase: None,
            workload: None,
            origin: Origin::default(),
        }
    }

    #[test]
    fn an_identity_rests_before_it_is_given_back_and_use_begins_its_rest_anew() {
        let allocated = [300, 301, 302].map(Identity);
        let start = Instant::now();
        let mut usage = Usage::default();
        let rested = |usage: &mut Usage, after: Duration| usage.rested(allocated.iter(), start + after);
        usage.set(&endpoint("one", 300, Some(301)));
        assert_eq!(rested(&mut usage, Duration::ZERO), []);
        assert_eq!(
            rested(&mut usage, REST),
            [Identity(302)],
            "both identities of a pod that moves are in use"
        );
        usage.set(&endpoint("one", 300, None));
        assert_eq!(rested(&mut usage, REST), [Identity(302)], "301 is nobody's since now");
        usage.set(&endpoint("two", 302, None));
        assert_eq!(rested(&mut usage, 2 * REST), [Identity(301)]);
        usage.remove("two");
        assert_eq!(rested(&mut usage, 2 * REST), [Identity(301)]);
        assert_eq!(rested(&mut usage, 3 * REST), [Identity(301), Identity(302)]);
        usage.leave();
        assert_eq!(rested(&mut usage, 3 * REST), [], "whoever begins to look after it has seen nothing yet");
    }
}
