//! Who says to be of another namespace: by labels of a pod, when it is made and later, and by a policy that selects out of
//! its own.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use sinew_tests::lab::process::pause;
use sinew_tests::lab::store::PodObject;
use sinew_tests::lab::{Family, Lab, Node, Pod, Topology};

use super::{TCP, UDP};

/// The server is for pods of namespaces of team sales.
const FROM_SALES: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p, namespace: default}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress:
  - from: [{namespaceSelector: {matchLabels: {team: sales}}}]
";

/// What a pod would have to be labelled to be of the namespace `sales`, if its word counted.
const FORGED: [(&str, &str); 2] =
    [("io.cilium.k8s.namespace.labels.team", "sales"), ("io.kubernetes.pod.namespace", "sales")];

struct Ground {
    lab: Lab,
    server: Arc<Pod>,
    /// Of the namespace `sales`.
    clerk: Arc<Pod>,
}

impl Ground {
    fn new() -> Result<Self> {
        let lab = Lab::build(Topology::Wire(2)).start()?;
        lab.store().write(
            "namespaces",
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: sales, labels: {team: sales}}\n",
        )?;
        let server = lab.node("b").pod("server", &[("app", "server")])?;
        server.serve(&[TCP], &[UDP])?;
        let clerk = pod_of_sales(lab.node("a"), "clerk")?;
        lab.apply("p", FROM_SALES)?;
        Ok(Self { lab, server, clerk })
    }

    fn clerk_may(&self) -> Result<()> {
        for family in Family::BOTH {
            assert!(self.clerk.tcp(self.server.address(family), TCP)?.answered(), "{family:?}");
        }
        Ok(())
    }

    fn refused(&self, pod: &Pod, when: &str) -> Result<()> {
        for family in Family::BOTH {
            let since = SystemTime::now();
            let attempt = pod.tcp(self.server.address(family), TCP)?;
            assert!(attempt.dropped(), "{when} {} {family:?}: {attempt:?}", pod.name());
            let flow = self.lab.dropped(since, pod.record().pod_name.as_str(), "server", "TCP")?;
            assert_eq!(flow.drop_reason(), "POLICY_DENIED", "{when}: {}", flow.raw());
            assert_eq!(flow.denied_by(), ["p"], "{when}: {}", flow.raw());
        }
        Ok(())
    }
}

fn pod_of_sales(node: &Node, name: &str) -> Result<Arc<Pod>> {
    node.pod_of(&PodObject {
        namespace: "sales".to_owned(),
        name: name.to_owned(),
        uid: name.to_owned(),
        labels: [("app".to_owned(), "client".to_owned())].into(),
        node: node.name().to_owned(),
        ports: Vec::new(),
    })
}

/// GHSA-pfhr-pccp-hwmh: a pod that is made with the labels of another namespace is not of it.
#[test]
#[ignore = "cargo xtask test lab"]
fn ghsa_pfhr_pccp_hwmh_a_pod_cannot_forge_its_namespaces_labels() -> Result<()> {
    let ground = Ground::new()?;
    let near = ground.lab.node("b").pod("near", &FORGED)?;
    let far = ground.lab.node("a").pod("far", &FORGED)?;
    ground.clerk_may()?;
    ground.refused(&near, "made so")?;
    ground.refused(&far, "made so")
}

/// CVE-2023-39347: nor is one that somebody labels so later; policy goes by what its namespace says, also then.
#[test]
#[ignore = "cargo xtask test lab"]
fn cve_2023_39347_a_label_update_moves_no_pod_into_another_namespace() -> Result<()> {
    let ground = Ground::new()?;
    let (a, b) = (ground.lab.node("a"), ground.lab.node("b"));
    let pods = [(b, b.pod("near", &[("app", "x")])?), (a, a.pod("far", &[("app", "x")])?)];
    for (_, pod) in &pods {
        ground.refused(pod, "as it is")?;
    }
    for (node, pod) in &pods {
        node.relabel(pod, &[("app", "y"), FORGED[0], FORGED[1]])?;
    }
    // policy.md 17 gives a relabel five seconds at most.
    pause(Duration::from_secs(6))?;
    for (node, pod) in &pods {
        let labels = node.sinew(&["endpoint", "get", pod.name(), "-o", "json"])?;
        let labels = String::from_utf8_lossy(&labels.stdout).into_owned();
        assert!(labels.contains("k8s:app=y") && !labels.contains("=sales"), "{labels}");
        ground.refused(pod, "labelled anew")?;
    }
    // What it may say of its namespace takes nothing from one of sales either.
    a.relabel(&ground.clerk, &[("io.cilium.k8s.namespace.labels.team", "none")])?;
    pause(Duration::from_secs(1))?;
    ground.clerk_may()
}

/// CVE-2023-41333: whoever may write policies in one namespace wrote one whose selector left it, by asking for what a pod is
/// not (`reserved:init`, `DoesNotExist`), and so governed pods of all others.
#[test]
#[ignore = "cargo xtask test lab"]
fn cve_2023_41333_a_policy_of_a_namespace_selects_no_pod_of_another() -> Result<()> {
    let ground = Ground::new()?;
    let neighbour = pod_of_sales(ground.lab.node("b"), "neighbour")?;
    let stranger = ground.lab.node("a").pod("stranger", &[("app", "x")])?;
    let open = ground.lab.node("b").pod("open", &[("app", "open")])?;
    for pod in [&neighbour, &open] {
        pod.serve(&[TCP], &[UDP])?;
    }
    let policy = |key: &str, rule: &str| {
        format!(
            "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: evil, namespace: sales}}\nspec:\n  \
             endpointSelector: {{matchExpressions: [{{key: {key}, operator: DoesNotExist}}]}}\n  {rule}: \
             [{{fromEntities: [all]}}]\n"
        )
    };
    for key in ["'reserved:init'", "reserved.init", "no-such-label"] {
        // It opens nothing that the other namespace has closed ...
        ground.lab.store().write("evil", &policy(key, "ingress"))?;
        settle(&ground.lab)?;
        ground.refused(&stranger, key)?;
        // ... and closes nothing that the other has open.
        ground.lab.store().write("evil", &policy(key, "ingressDeny"))?;
        settle(&ground.lab)?;
        for family in Family::BOTH {
            let attempt = stranger.tcp(open.address(family), TCP)?;
            assert!(attempt.answered(), "{key} {family:?}: {attempt:?}");
        }
    }
    // Its own namespace it governs: the last of these policies is one that means something.
    for family in Family::BOTH {
        let attempt = stranger.tcp(neighbour.address(family), TCP)?;
        assert!(attempt.dropped(), "{family:?}: {attempt:?}");
    }
    Ok(())
}

/// Waits for what the store holds; that an object is refused is an answer too.
fn settle(lab: &Lab) -> Result<()> {
    lab.wait_enforced().or_else(|error| {
        let refused = format!("{error:#}").contains("refused, so never enforced");
        if refused { Ok(()) } else { Err(error) }
    })
}
