//! The folder store as agents live with it, and addresses: files that change, break and come
//! back, several documents, JSON, two agents on one folder; pools that run dry, leases that outlive the agent.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use sinew_tests::lab::cni::Call;
use sinew_tests::lab::process::{pause, wait_until};
use sinew_tests::lab::{Family, Lab, Topology};
use sinew_tests::probe::Transport;

const TCP: u16 = 80;
/// A change must be seen within 100 ms; what is measured here has a probe of some milliseconds in it.
const SEEN_WITHIN: Duration = Duration::from_millis(100);

const CLOSED: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed, namespace: default}
spec:
  podSelector: {matchLabels: {app: server}}
";
const OPEN: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: open, namespace: default}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress: [{}]
";

#[test]
#[ignore = "cargo xtask test lab"]
fn a_file_is_enforced_within_a_tenth_of_a_second() -> Result<()> {
    let lab = Lab::build(Topology::Wire(2)).start()?;
    let client = lab.node("a").pod("client", &[])?;
    let server = lab.node("b").pod("server", &[("app", "server")])?;
    server.serve(&[TCP], &[])?;
    let to = server.address(Family::V4);
    let mut times = Vec::new();
    for _ in 0..10 {
        lab.apply("closed", CLOSED)?;
        let refused = client.dial(Transport::Tcp, to, TCP, &["--timeout", "50"])?;
        assert!(refused.dropped(), "{refused:?}");
        let start = Instant::now();
        lab.store().remove("closed")?;
        while !client.dial(Transport::Tcp, to, TCP, &["--timeout", "10"])?.answered() {
            assert!(start.elapsed() < Duration::from_secs(5), "the removal of a file is not seen");
        }
        times.push(start.elapsed());
    }
    times.sort();
    assert!(times[times.len() / 2] < SEEN_WITHIN, "{times:?}");
    Ok(())
}

#[test]
#[ignore = "cargo xtask test lab"]
fn a_broken_file_hurts_itself_and_keeps_what_it_held() -> Result<()> {
    let lab = Lab::build(Topology::Wire(1)).start()?;
    let client = lab.node("a").pod("client", &[])?;
    let server = lab.node("a").pod("server", &[("app", "server")])?;
    server.serve(&[TCP], &[])?;
    let to = server.address(Family::V6);
    lab.apply("closed", CLOSED)?;
    assert!(client.tcp(to, TCP)?.dropped());
    // Bytes that are no YAML: the last good version stays in force.
    lab.store().write("closed", "spec: [unclosed")?;
    pause(Duration::from_millis(500))?;
    assert!(client.tcp(to, TCP)?.dropped());
    // Two documents, the second refused by its field: the first one counts.
    let broken = OPEN.replace("name: open", "name: odd").replace("ingress: [{}]", "ingrss: [{}]");
    lab.store().write("closed", &format!("{OPEN}---{broken}"))?;
    wait_until("the first document", Duration::from_secs(5), || Ok(client.tcp(to, TCP)?.answered()))?;
    let status = lab.store().folder().join(".status/networkpolicy/default/odd.yaml");
    wait_until(
        "the status of the second",
        Duration::from_secs(5),
        || Ok(find_status(&lab, "odd")?.is_some()),
    )
    .with_context(|| format!("{} or another file of its name", status.display()))?;
    let said = find_status(&lab, "odd")?.context("a status")?;
    assert!(said.contains("spec.ingrss"), "{said}");
    Ok(())
}

/// The status file of an object of that name, wherever its kind puts it.
fn find_status(lab: &Lab, name: &str) -> Result<Option<String>> {
    let mut folders = vec![lab.store().folder().join(".status")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_stem().is_some_and(|stem| stem == name) {
                return Ok(Some(fs::read_to_string(path)?));
            }
        }
    }
    Ok(None)
}

#[test]
#[ignore = "cargo xtask test lab"]
fn a_lease_outlives_the_agent_and_rests_after_its_pod() -> Result<()> {
    let lab = Lab::build(Topology::Wire(1)).start()?;
    let node = lab.node("a");
    let first = node.pod("first", &[])?;
    node.restart_agent()?;
    let second = node.pod("second", &[])?;
    for family in Family::BOTH {
        assert_ne!(first.address(family), second.address(family));
    }
    let rests = first.address(Family::V4);
    node.remove_pod("first")?;
    for index in 0..5 {
        let pod = node.pod(&format!("next-{index}"), &[])?;
        assert_ne!(pod.address(Family::V4), rests, "a released address is used again at once");
    }
    Ok(())
}

#[test]
#[ignore = "cargo xtask test lab"]
fn an_exhausted_pool_is_an_error_and_a_status() -> Result<()> {
    // A pool of its own beside the lab's would be a second one of the family, so this node has six addresses.
    let lab = Lab::build(Topology::Wire(1)).small_pools().start()?;
    let node = lab.node("a");
    let mut made = 0;
    let refused = loop {
        let netns = lab.scratch(&format!("pool-{made}"));
        netns.make()?;
        let answer = node.cni(&Call::new("ADD", &format!("pool-{made}"), &netns))?;
        if !answer.success {
            break answer;
        }
        made += 1;
        assert!(made < 20, "a pool of 8 addresses gave {made}");
    };
    assert!(made >= 5, "a pool of 8 addresses gave {made}");
    assert!(refused.object["msg"].to_string().contains("10.240.0.0/29"), "{refused:?}");
    let status = node.cni(&Call::new("STATUS", "", node.netns()))?;
    assert!(matches!(status.code(), Some(50 | 51)), "{status:?}");
    let shown = node.sinew(&["status"])?;
    let shown = String::from_utf8_lossy(&shown.stdout);
    assert!(shown.contains("no address is free in 10.240.0.0/29"), "{shown}");
    Ok(())
}

const GROUP: &str = "
apiVersion: sinew.io/v1
kind: SinewCIDRGroup
metadata: {name: clients}
spec:
  externalCIDRs: [CIDRS]
";
const NOT_FROM_GROUP: &str = "
apiVersion: sinew.io/v1
kind: SinewNetworkPolicy
metadata: {name: not-from-group, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: server}}
  policyCIDRMatchMode: [pods]
  ingress: [{fromEntities: [all]}]
  ingressDeny: [{fromCIDRSet: [{cidrGroupRef: clients}]}]
";

#[test]
#[ignore = "cargo xtask test lab"]
fn a_refused_group_goes_on_closing_over_a_restart() -> Result<()> {
    let lab = Lab::build(Topology::Wire(1)).start()?;
    let node = lab.node("a");
    let client = node.pod("client", &[])?;
    let server = node.pod("server", &[("app", "server")])?;
    server.serve(&[TCP], &[])?;
    let to = server.address(Family::V4);
    let from = format!("{}/32", client.address(Family::V4));
    let group = |cidrs: &str| GROUP.replace("CIDRS", cidrs);
    lab.apply("group", &group(&from))?;
    lab.apply("not-from-group", NOT_FROM_GROUP)?;
    assert!(client.tcp(to, TCP)?.dropped());
    // Nothing of it names the client any more, and it is refused: the last good version holds.
    lab.store().write("group", &group("203.0.113.0/24, 10.0.0.0/33"))?;
    pause(Duration::from_millis(500))?;
    assert!(client.tcp(to, TCP)?.dropped());
    node.restart_agent()?;
    lab.store().write("unrelated", CLOSED.replace("app: server", "app: nobody").as_str())?;
    pause(Duration::from_secs(1))?;
    assert!(client.tcp(to, TCP)?.dropped(), "a refused group is forgotten over a restart");
    // Mended, it says what it says.
    lab.store().write("group", &group("203.0.113.0/24"))?;
    wait_until("the client is let in", Duration::from_secs(5), || Ok(client.tcp(to, TCP)?.answered()))
}

#[test]
#[ignore = "cargo xtask test lab"]
fn a_deployment_beside_a_policy_does_no_harm() -> Result<()> {
    const DEPLOYMENT: &str = "\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n";
    let lab = Lab::build(Topology::Wire(1)).start()?;
    let client = lab.node("a").pod("client", &[])?;
    let server = lab.node("a").pod("server", &[("app", "server")])?;
    server.serve(&[TCP], &[])?;
    let to = server.address(Family::V4);
    lab.apply("closed", &format!("{CLOSED}{DEPLOYMENT}"))?;
    assert!(client.tcp(to, TCP)?.dropped());
    let status = lab.node("a").sinew(&["status"])?;
    let shown = String::from_utf8_lossy(&status.stdout);
    assert!(status.status.success() && shown.contains("1 document of foreign kinds"), "{shown}");
    // What is taken out of the file is taken out of force.
    lab.store().write("closed", DEPLOYMENT.trim_start_matches("\n---\n"))?;
    wait_until("the policy is gone", Duration::from_secs(5), || Ok(client.tcp(to, TCP)?.answered()))
}
