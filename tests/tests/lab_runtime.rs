//! Real containers: Debian's containerd and runc start pods through the Container Runtime Interface, as a kubelet does,
//! and our plugin connects them.

#[path = "lab_runtime/containerd.rs"]
mod containerd;
#[path = "lab_runtime/cri.rs"]
mod cri;
#[path = "lab_cni/left.rs"]
mod left;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use anyhow::{Context, Result};
use containerd::{Containerd, IMAGE};
use cri::{LinuxSandbox, PortMapping, Runtime, SandboxConfig, SandboxMetadata};
use left::Left;
use serde_json::{Value, json};
use sinew_tests::lab::cni::configuration;
use sinew_tests::lab::process::wait_until;
use sinew_tests::lab::store::PodObject;
use sinew_tests::lab::{Family, Lab, Node, Topology};
use sinew_tests::probe::report::{Attempt, Outcome};

const SERVER_ACCEPTS_CLIENT: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: server-accepts-client, namespace: shop}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: client}}}]
";

struct Pod {
    sandbox: String,
    container: String,
    addresses: Vec<String>,
}

/// Writes the pod's object, as the API server would, and lets the runtime start it.
async fn start_pod(lab: &Lab, runtime: &Runtime, name: &str, app: &str, host_port: i32) -> Result<Pod> {
    let uid = format!("{}-{name}", lab.id());
    lab.store().write_pod(&PodObject {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        uid: uid.clone(),
        labels: BTreeMap::from([("app".to_owned(), app.to_owned())]),
        node: "a".to_owned(),
        ports: Vec::new(),
    })?;
    let mapping = PortMapping { protocol: 0, container_port: 80, host_port };
    let config = SandboxConfig {
        metadata: Some(SandboxMetadata {
            name: name.to_owned(),
            uid,
            namespace: "shop".to_owned(),
            attempt: 0,
        }),
        hostname: name.to_owned(),
        log_directory: lab.node("a").directories().notes.join("logs").display().to_string(),
        port_mappings: if host_port == 0 { Vec::new() } else { vec![mapping] },
        annotations: HashMap::new(),
        linux: Some(LinuxSandbox { cgroup_parent: format!("/sinew-{}", lab.id()) }),
    };
    let sandbox = runtime.run_sandbox(&config).await?;
    let addresses = runtime.addresses(&sandbox).await?;
    let command = ["/sinew-probe", "serve", "--name", name, "--tcp", "80"];
    let container = runtime.start_container(&sandbox, &config, IMAGE, &command).await?;
    Ok(Pod { sandbox, container, addresses })
}

async fn dial(runtime: &Runtime, from: &Pod, to: &str) -> Result<Attempt> {
    let executed = runtime.exec(&from.container, &["/sinew-probe", "dial", "tcp", to, "80"]).await?;
    let text = String::from_utf8_lossy(&executed.stdout).into_owned();
    serde_json::from_str(&text)
        .with_context(|| format!("{text:?} {}", String::from_utf8_lossy(&executed.stderr)))
}

fn plugins(node: &Node) -> Value {
    let mut own = configuration(node.directories());
    let map = own.as_object_mut().expect("a configuration is an object");
    map.remove("cniVersion");
    map.remove("name");
    json!([own, {"type": "portmap", "capabilities": {"portMappings": true}}])
}

#[test]
#[ignore = "cargo xtask test lab"]
fn containerd_starts_containers_that_policy_governs() -> Result<()> {
    let lab = Lab::build(Topology::Wire(1)).start()?;
    let node = lab.node("a");
    let before = Left::on(node)?;
    let containerd = Containerd::start(node, &plugins(node))?;
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = tokio.block_on(async {
        let runtime = Runtime::connect(&containerd.socket()).await?;
        let client = start_pod(&lab, &runtime, "client", "client", 0).await?;
        let stranger = start_pod(&lab, &runtime, "stranger", "stranger", 0).await?;
        let server = start_pod(&lab, &runtime, "server", "server", 8080).await?;
        assert_eq!(server.addresses.len(), 2, "{:?}", server.addresses);
        for address in &server.addresses {
            assert_eq!(dial(&runtime, &client, address).await?.outcome, Outcome::Answered);
            assert_eq!(dial(&runtime, &stranger, address).await?.outcome, Outcome::Answered);
        }
        // portmap behind us: from the outside through the host's DNAT, as far as the pod's policy lets it.
        for family in Family::BOTH {
            assert!(lab.outside().tcp(node.address(family), 8080)?.answered(), "{family:?}");
        }
        lab.apply("server-accepts-client", SERVER_ACCEPTS_CLIENT)?;
        for address in &server.addresses {
            assert_eq!(dial(&runtime, &client, address).await?.outcome, Outcome::Answered);
            assert_eq!(dial(&runtime, &stranger, address).await?.outcome, Outcome::TimedOut);
        }
        for family in Family::BOTH {
            let attempt = lab.outside().tcp(node.address(family), 8080)?;
            assert_eq!(attempt.outcome, Outcome::TimedOut, "{family:?}: {attempt:?}");
        }
        // The agent is away while a sandbox is removed: containerd's DEL succeeds and is carried out later.
        node.kill_agent()?;
        runtime.remove_sandbox(&server.sandbox).await?;
        node.start_agent()?;
        node.wait_ready(Duration::from_secs(20))?;
        for pod in [&client, &stranger] {
            runtime.remove_sandbox(&pod.sandbox).await?;
        }
        anyhow::Ok(())
    });
    result.with_context(|| containerd.log())?;
    containerd.stop()?;
    for name in ["client", "stranger", "server"] {
        lab.store().remove_pod("shop", name)?;
    }
    wait_until("the node to be as before", Duration::from_secs(15), || Ok(Left::on(node)? == before))
        .with_context(|| format!("left: {:?}, before: {before:?}", Left::on(node)))
}
