//! Who leaves an identity: a pod that has ended (policy.md 9), and a pod that is labelled anew while a node of the cluster
//! is silent (policy.md 17).

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use serde_json::Value;
use sinew_tests::lab::process::wait_until;
use sinew_tests::lab::{CLIENT_MAY_ALL, Family, Lab, Node, Pod, ROUTINGS, Topology};
use sinew_tests::probe::Transport::Udp;

use super::{TCP, UDP};

/// The address of a pod that has ended is nobody's: its peers do not take it for the pod any more, at once, although its
/// interface stands until DEL.
#[test]
#[ignore = "cargo xtask test lab"]
fn a_pod_that_has_ended_is_nobody_to_its_peers() -> Result<()> {
    for (routing, phase) in ROUTINGS.into_iter().zip(["Succeeded", "Failed"]) {
        let lab = Lab::build(Topology::Wire(2)).routing(routing).start()?;
        let job = lab.node("a").pod("job", &[("app", "job")])?;
        let peer = lab.node("b").pod("peer", &[("app", "peer")])?;
        for pod in [&job, &peer] {
            pod.serve(&[TCP], &[UDP])?;
        }
        lab.wait_enforced()?;
        // Both ways, both families: all of it answered, or none.
        let talk = |expected: bool| -> Result<bool> {
            let mut all = true;
            for family in Family::BOTH {
                for (from, to) in [(&job, &peer), (&peer, &job)] {
                    let attempt = from.dial(Udp, to.address(family), UDP, &["--timeout", "200"])?;
                    all &= attempt.answered() == expected;
                }
            }
            Ok(all)
        };
        assert!(talk(true)?, "it runs");
        lab.store().write(
            "pods/default_job",
            &format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: job, namespace: default, uid: {}, labels: {{app: job}}}}\n\
                 spec: {{nodeName: a}}\nstatus: {{phase: {phase}}}\n",
                job.record().uid
            ),
        )?;
        wait_until("the ended pod to be nobody", Duration::from_secs(5), || talk(false))?;
        for family in Family::BOTH {
            for (from, to, reason) in
                [(&peer, &job, "unknown address in a cluster range"), (&job, &peer, "UNKNOWN_SENDER")]
            {
                let since = SystemTime::now();
                let attempt = from.dial(Udp, to.address(family), UDP, &["--timeout", "200"])?;
                assert!(attempt.dropped(), "{phase} {family:?}: {attempt:?}");
                let ends = [from.address(family), to.address(family)].map(|address| address.to_string());
                let flow = lab.node("b").flow(since, "of the ended pod", |flow| {
                    let of = |end: &str| flow.raw()["IP"][end].as_str().unwrap_or_default().to_owned();
                    flow.verdict() == "DROPPED" && [of("source"), of("destination")] == ends
                })?;
                let said = [flow.drop_reason(), flow.own_reason()];
                assert!(said.contains(&reason), "{routing:?} {phase}: {}", flow.raw());
            }
        }
        // Its object says again that it runs: the address is its own again.
        lab.node("a").relabel(&job, &[("app", "job")])?;
        wait_until("the pod that runs again", Duration::from_secs(5), || talk(true))?;
    }
    Ok(())
}

fn identity(node: &Node, pod: &str) -> Result<u64> {
    let output = node.sinew(&["endpoint", "get", pod, "-o", "json"])?;
    let endpoint: Value = serde_json::from_slice(&output.stdout).context("an endpoint as JSON")?;
    endpoint.pointer("/endpoint/identity").and_then(Value::as_u64).with_context(|| format!("{endpoint}"))
}

/// How long a pod takes to its next identity.
fn moves(node: &Node, pod: &Pod, app: &str) -> Result<Duration> {
    let before = identity(node, pod.name())?;
    let start = Instant::now();
    node.relabel(pod, &[("app", app)])?;
    wait_until("the new identity", Duration::from_secs(20), || Ok(identity(node, pod.name())? != before))?;
    Ok(start.elapsed())
}

/// Every live node hears of the identity first; one that does not answer holds a pod up for five seconds, not for good.
#[test]
#[ignore = "cargo xtask test lab"]
fn a_silent_node_holds_a_relabel_up_for_five_seconds() -> Result<()> {
    let lab = Lab::build(Topology::Wire(2)).start()?;
    let (a, b) = (lab.node("a"), lab.node("b"));
    let client = a.pod("client", &[("app", "stranger")])?;
    let near = a.pod("near", &[("app", "server")])?;
    let far = b.pod("far", &[("app", "server")])?;
    for server in [&near, &far] {
        server.serve(&[TCP], &[UDP])?;
    }
    lab.apply("client-may", CLIENT_MAY_ALL)?;
    let quick = moves(a, &client, "other")?;
    assert!(quick < Duration::from_millis(4500), "nobody is waited for when all answer: {quick:?}");
    b.kill_agent()?;
    let slow = moves(a, &client, "client")?;
    assert!(slow >= Duration::from_millis(4500) && slow < Duration::from_secs(10), "{slow:?}");
    for family in Family::BOTH {
        assert!(client.tcp(near.address(family), TCP)?.answered(), "{family:?}: its own node knows it");
        // The other node was told nothing: to it the pod is who it was, or nobody. It opens nothing.
        let attempt = client.tcp(far.address(family), TCP)?;
        assert!(attempt.dropped(), "{family:?}: {attempt:?}");
    }
    b.start_agent()?;
    b.wait_ready(Duration::from_secs(60))?;
    for family in Family::BOTH {
        wait_until("the node that came back to know the pod", Duration::from_secs(10), || {
            Ok(client.tcp(far.address(family), TCP)?.answered())
        })?;
    }
    Ok(())
}
