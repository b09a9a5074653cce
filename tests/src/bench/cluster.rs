//! A large cluster around one node: the objects that other agents and users would have written into the store.
//!
//! Neighbours: `enforce.rs` and `footprint.rs` measure an agent in it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::lab::store::Store;

/// The first number of an identity in a cluster.
const FIRST_IDENTITY: usize = 256;
/// Teams that pods belong to, each its share of the identities.
const TEAMS: usize = 500;
/// Of this many policies one selects the pod that is watched.
const POLICIES_PER_SUBJECT: usize = 20;
/// The node that the others' pods are on.
const ELSEWHERE: &str = "elsewhere";

/// Writes the pods of another node: each with labels, and so an identity, of its own.
pub(super) fn write_identities(store: &Store, count: usize) -> Result<()> {
    let folder = store.folder();
    for kind in [".identities", ".nodes", ".endpoints/elsewhere"] {
        let folder = folder.join(kind);
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    }
    put(folder, ".nodes/.number-65000", ELSEWHERE)?;
    put(
        folder,
        &format!(".nodes/{ELSEWHERE}.yaml"),
        &format!(
            "apiVersion: sinew.io/v1\nkind: SinewNode\nmetadata:\n  name: {ELSEWHERE}\nspec:\n  addresses:\n  \
             - 172.31.0.99\n  - fd31::99\n  cluster: lab\n  id: 65000\n  podCIDRs:\n  - 10.240.128.0/17\n  \
             routing: native\nstatus:\n  heartbeatMs: 0\n  revision: 0\n"
        ),
    )?;
    for index in 0..count {
        let identity = FIRST_IDENTITY + index;
        let labels = labels(index);
        put(
            folder,
            &format!(".identities/{identity}.yaml"),
            &format!(
                "apiVersion: sinew.io/v1\nkind: SinewIdentity\nmetadata:\n  name: \"{identity}\"\nspec:\n  labels:\n{labels}"
            ),
        )?;
        let name = format!("default.pod-{index}.{index:012x}");
        put(
            folder,
            &format!(".endpoints/{ELSEWHERE}/{name}.yaml"),
            &format!(
                "apiVersion: sinew.io/v1\nkind: SinewEndpoint\nmetadata:\n  name: {name}\nspec:\n  addresses:\n  \
                 - 10.240.{}.{}\n  containerID: {index:012x}\n  identity: {identity}\n  ifname: eth0\n  labels:\n{labels}  \
                 node: {ELSEWHERE}\n  podName: pod-{index}\n  podNamespace: default\n  podUid: {index:012x}\n",
                128 + index / 250,
                1 + index % 250,
            ),
        )?;
    }
    Ok(())
}

/// Policies: one in twenty selects `app: server` and lets a team in at a port of its own; the others select apps of
/// other nodes.
pub(super) fn policies(count: usize) -> String {
    let mut text = String::new();
    for number in 0..count {
        let subject = if number % POLICIES_PER_SUBJECT == 0 {
            "server".to_owned()
        } else {
            format!("other-{}", number % POLICIES_PER_SUBJECT)
        };
        write!(
            text,
            "---\napiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: policy-{number}}}\nspec:\n  \
             endpointSelector: {{matchLabels: {{app: {subject}}}}}\n  ingress:\n  - fromEndpoints: [{{matchLabels: \
             {{team: team-{}}}}}]\n    toPorts: [{{ports: [{{port: \"{}\", protocol: TCP}}]}}]\n",
            number / POLICIES_PER_SUBJECT % TEAMS,
            1_000 + number
        )
        .expect("a string takes everything");
    }
    text
}

/// Labels as an agent writes them for a pod with `app` and `team`, sorted.
fn labels(index: usize) -> String {
    let mut text = String::new();
    for label in [
        format!("k8s:app=app-{index}"),
        "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=default".to_owned(),
        "k8s:io.cilium.k8s.policy.cluster=lab".to_owned(),
        "k8s:io.cilium.k8s.policy.serviceaccount=default".to_owned(),
        "k8s:io.kubernetes.pod.namespace=default".to_owned(),
        format!("k8s:team=team-{}", index % TEAMS),
    ] {
        writeln!(text, "  - {label}").expect("a string takes everything");
    }
    text
}

/// Beside, then renamed: an agent that watches never sees half a file.
fn put(folder: &Path, name: &str, text: &str) -> Result<()> {
    let file = folder.join(name);
    let beside = folder.join(".bench.tmp");
    fs::write(&beside, text).with_context(|| format!("writing {}", beside.display()))?;
    fs::rename(&beside, &file).with_context(|| format!("putting {} in place", file.display()))
}
