//! What is said of a policy, from an engine that holds it: no hand-made view can say what is in force more truthfully.

use std::sync::Arc;

use sinew_api::identity::Identity;
use sinew_api::object::{Node, NodeStatus, Origin, Routing, decode_text};
use sinew_engine::{Change, Config, EndpointId, Engine, Event, LocalEndpoint};

use super::*;
use crate::clock::monotonic_nanoseconds;
use crate::store::ObjectStatus;

const WEB: &str = "cnp/shop/web";

/// A node whose tables take 12 entries, with the pods `web` and `client`.
struct Ground {
    engine: Engine,
    next: u32,
}

impl Ground {
    fn new() -> Self {
        let mut config = Config::new("a", "default");
        config.table_capacity = 12;
        let mut ground = Self { engine: Engine::new(config, []), next: Identity::FIRST_ALLOCATED.0 };
        ground.apply(vec![Event::Synced]);
        for (id, name) in [(1, "web"), (2, "client")] {
            ground.yaml(&format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {{app: {name}}}}}\n"
            ));
            ground.apply(vec![Event::EndpointCreated(LocalEndpoint {
                id: EndpointId(id),
                container_id: name.into(),
                ifname: "eth0".into(),
                pod_namespace: "shop".into(),
                pod_name: name.into(),
                pod_uid: String::new(),
                labels: BTreeMap::new(),
                addresses: vec![format!("10.0.0.{id}").parse().unwrap()],
                found: None,
            })]);
        }
        ground
    }

    /// Lets it happen, and answers what an agent would.
    fn apply(&mut self, mut events: Vec<Event>) {
        while !events.is_empty() {
            let changes = self.engine.apply(events);
            events = changes
                .into_iter()
                .filter_map(|change| match change {
                    Change::AllocateIdentity(labels) => {
                        self.next += 1;
                        Some(Event::IdentityApplied(Identity(self.next), labels))
                    }
                    Change::Announce { endpoint, identity } => Some(Event::RelabelDone(endpoint, identity)),
                    _ => None,
                })
                .collect();
        }
    }

    fn yaml(&mut self, text: &str) {
        let objects = decode_text("test.yaml", text);
        self.apply(objects.into_iter().map(|object| Event::from(object.unwrap())).collect());
    }

    /// The view of it with two live nodes that agree, and one that has been silent since 1970.
    fn view(&mut self) -> View {
        let node = |name: &str, heartbeat_ms| Node {
            name: name.into(),
            cluster: "default".into(),
            id: 1,
            addresses: Vec::new(),
            pod_cidrs: Vec::new(),
            routing: Routing::Native,
            status: NodeStatus { heartbeat_ms, policy_digest: "x".into(), ..NodeStatus::default() },
            origin: Origin::default(),
        };
        // Ahead of every clock.
        let nodes = [node("a", 1 << 50), node("b", 1 << 50), node("dead", 1)];
        View {
            snapshot: self.engine.snapshot(),
            nodes: Arc::new(nodes.map(|node| (node.name.clone(), node)).into()),
            store_digest: "x".into(),
            ..View::empty()
        }
    }

    fn told(&mut self) -> Answer {
        one(&self.view(), &BTreeMap::new(), WEB).unwrap().policy.unwrap()
    }
}

/// Allows the client this many ports and denies it as many: no two neighbours, so an entry each.
fn policy(allowed: u16, denied: u16) -> String {
    let ports = |from: u16, count: u16| {
        let ports = (0..count).map(|port| format!("{{port: '{}', protocol: TCP}}", from + 2 * port));
        ports.collect::<Vec<_>>().join(", ")
    };
    let rule = |name: &str, from: u16, count: u16| match count {
        0 => String::new(),
        _ => format!(
            "  {name}:\n  - fromEndpoints: [{{matchLabels: {{app: client}}}}]\n    toPorts: [{{ports: [{}]}}]\n",
            ports(from, count)
        ),
    };
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: web, namespace: shop}}\nspec:\n  \
         endpointSelector: {{matchLabels: {{app: web}}}}\n{}{}",
        rule("ingress", 1001, allowed),
        rule("ingressDeny", 3001, denied)
    )
}

/// What the author reads beside the object.
fn status(view: &View) -> ObjectStatus {
    let mut statuses = crate::control::statuses(&view.snapshot, &[]);
    statuses.retain(|name, _| matches!(name.kind, ObjectKind::Policy(_)));
    statuses.into_values().next().unwrap()
}

fn paths(policy: &Answer) -> Vec<&str> {
    policy.rules.iter().map(|rule| rule.rule.as_ref().unwrap().path.as_str()).collect()
}

#[test]
fn one_in_force_says_whom_it_matches_and_where_it_is_enforced() {
    let mut ground = Ground::new();
    ground.yaml(&policy(2, 1));
    let told = ground.told();
    assert_eq!((told.state(), told.problems.as_slice()), (PolicyState::Enforced, &[][..]));
    assert!(told.generation != 0 && told.running_generation == told.generation, "{told:?}");
    assert_eq!((told.nodes_enforcing, told.nodes_live), (2, 2), "a silent node is none");
    assert_eq!(told.selected_endpoints, ["shop/web"]);
    assert_eq!(paths(&told), ["spec.ingress[0]", "spec.ingressDeny[0]"]);
    let peers: Vec<_> = told.rules.iter().map(|rule| (rule.matched_peers, rule.any_peer)).collect();
    assert_eq!(peers, [(1, false); 2], "the client");
    assert!(told.rules.iter().all(|rule| rule.packets == 0 && rule.last_hit.is_none()), "{told:?}");
    // Another node has other policies: it is not counted.
    let mut view = ground.view();
    Arc::make_mut(&mut view.nodes).get_mut("b").unwrap().status.policy_digest = "y".into();
    let told = one(&view, &BTreeMap::new(), WEB).unwrap().policy.unwrap();
    assert_eq!((told.nodes_enforcing, told.nodes_live), (1, 2));
}

#[test]
fn what_a_rule_decided_stands_at_that_rule() {
    let mut ground = Ground::new();
    ground.yaml(&policy(2, 1));
    let view = ground.view();
    let cookie = |wanted: &str| {
        let is = |cause: &Cause| matches!(cause, Cause::Rule { path, .. } if path == wanted);
        view.snapshot.causes.iter().find(|(_, cause)| is(cause)).map(|(cookie, _)| *cookie).unwrap()
    };
    let second_ago = monotonic_nanoseconds().saturating_sub(1_000_000_000);
    // Of a number that nobody knows, and of the node's own way to its pods, no policy says anything.
    let local = view.snapshot.causes.iter().find(|(_, cause)| matches!(cause, Cause::LocalHost));
    let others = [(9_999_999, 7), (local.map_or(9_999_998, |(cookie, _)| *cookie), 8)];
    let hits = [(cookie("spec.ingressDeny[0]"), 3), others[0], others[1]];
    let hits =
        hits.map(|(cookie, packets)| (cookie, RuleHits { packets, bytes: packets * 100, last: second_ago }));
    let told = one(&view, &hits.into(), WEB).unwrap().policy.unwrap();
    let counted: Vec<_> = told.rules.iter().map(|rule| (rule.packets, rule.bytes)).collect();
    assert_eq!(counted, [(0, 0), (3, 300)]);
    assert_eq!(told.rules[0].last_hit, None);
    let last = SystemTime::try_from(told.rules[1].last_hit.unwrap()).unwrap();
    let age = SystemTime::now().duration_since(last).unwrap();
    assert!(age >= Duration::from_secs(1) && age < Duration::from_secs(60), "{age:?}");
}

/// policy.md 14: refused at its first write, so that no version of it is in force.
#[test]
fn one_that_never_fitted_has_no_generation_in_force() {
    let mut ground = Ground::new();
    ground.yaml(&policy(12, 2));
    let told = ground.told();
    assert_eq!(told.state(), PolicyState::Refused);
    assert!(told.problems[0].message.starts_with("does not fit: the policy table of shop/web"), "{told:?}");
    assert!(told.generation != 0);
    assert_eq!(told.running_generation, 0, "its allows do not hold");
    assert_eq!((told.nodes_enforcing, told.nodes_live), (0, 2));
    // What it closes all the same.
    assert!(told.default_deny_ingress && !told.default_deny_egress);
    assert_eq!(paths(&told), ["spec.ingressDeny[0]"]);
    assert_eq!(told.rules[0].matched_peers, 1);
    let status = status(&ground.view());
    assert_eq!((status.running_generation, status.generation), (0, told.generation));
    assert_eq!(status.message, "refused; its default deny and its deny rules hold, its allows do not");
    // With room for it, it is in force.
    ground.yaml(&policy(2, 2));
    let told = ground.told();
    assert_eq!((told.state(), told.nodes_enforcing), (PolicyState::Enforced, 2));
    assert_eq!(told.running_generation, told.generation);
}

#[test]
fn one_whose_denies_do_not_fit_either_says_that_it_denies_all() {
    let mut ground = Ground::new();
    ground.yaml(&policy(1, 14));
    let view = ground.view();
    let overflow = view.snapshot.causes.iter().find(|(_, cause)| matches!(cause, Cause::Overflow { .. }));
    let hits = [(*overflow.unwrap().0, RuleHits { packets: 5, bytes: 300, last: 1 })];
    let told = one(&view, &hits.into(), WEB).unwrap().policy.unwrap();
    assert_eq!((told.running_generation, told.nodes_enforcing), (0, 0));
    let [rule] = &told.rules[..] else { panic!("{told:?}") };
    let place = rule.rule.as_ref().unwrap();
    assert!(place.deny && place.path.is_empty() && !place.built_in.is_empty(), "{place:?}");
    assert!(rule.any_peer && rule.packets == 5, "{rule:?}");
    let status = status(&view);
    assert_eq!(status.message, "refused; all that it would have judged is denied");
}

#[test]
fn an_edit_that_is_refused_names_the_version_that_goes_on() {
    let mut ground = Ground::new();
    ground.yaml(&policy(2, 1));
    let first = ground.told().generation;
    ground.yaml(&policy(12, 1));
    let told = ground.told();
    assert_eq!(told.state(), PolicyState::Refused);
    assert!(told.generation != first && told.running_generation == first, "{told:?}");
    // Nobody enforces what the store holds; the rules are those of the version that goes on.
    assert_eq!((told.nodes_enforcing, told.nodes_live), (0, 2));
    assert_eq!(paths(&told), ["spec.ingress[0]", "spec.ingressDeny[0]"]);
    let status = status(&ground.view());
    assert_eq!(status.message, format!("refused, running generation {first}"));
    assert_eq!(status.running_generation, first);
}

#[test]
fn a_list_is_of_those_that_are_asked_for() {
    let mut ground = Ground::new();
    ground.yaml(&policy(2, 1));
    let view = ground.view();
    let names = |namespace: &str, endpoint: &str| {
        let request = ListPoliciesRequest { namespace: namespace.into(), endpoint: endpoint.into() };
        let answer = listed(&view, &BTreeMap::new(), &request);
        answer.policies.into_iter().map(|policy| policy.name).collect::<Vec<_>>()
    };
    assert_eq!(names("", ""), [WEB]);
    assert_eq!(names("shop", "shop/web"), [WEB]);
    assert_eq!(names("", "shop/client"), [] as [&str; 0]);
    assert_eq!(names("other", ""), [] as [&str; 0]);
    assert_eq!(find(&view, "web").unwrap().0.to_string(), WEB);
    assert_eq!(find(&view, "we").unwrap_err().code(), tonic::Code::NotFound);
}
