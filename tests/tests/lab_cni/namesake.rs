//! Pods that are made anew under a name that is taken still: whose labels an endpoint has while only the older object is
//! known, and afterwards.

use anyhow::Result;
use sinew_tests::lab::pod::arguments;
use sinew_tests::lab::process::wait_until;
use sinew_tests::lab::store::PodObject;
use sinew_tests::lab::{Family, Lab, Place, Topology};

use super::{SETTLE, Sandbox};

const TCP: u16 = 80;

const FROM_TRUSTED: &str = "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: from-trusted, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: server}}
  ingress: [{fromEndpoints: [{matchLabels: {app: trusted}}]}]
";

/// Pod `web-0` as the store may have it.
fn web(uid: &str, app: &str) -> PodObject {
    PodObject {
        namespace: "default".to_owned(),
        name: "web-0".to_owned(),
        uid: uid.to_owned(),
        labels: [("app".to_owned(), app.to_owned())].into(),
        node: "a".to_owned(),
        ports: Vec::new(),
    }
}

/// An ADD for a pod `web-0` of this uid, or of none that the runtime tells.
fn add(lab: &Lab, id: &str, uid: &str) -> Result<Place> {
    let sandbox = Sandbox::new(lab, id)?;
    let mut call = sandbox.call("ADD", id);
    call.arguments = arguments(&web(uid, ""));
    if uid.is_empty() {
        call.arguments = call.arguments.replace(";K8S_POD_UID=", "");
    }
    lab.node("a").cni(&call)?.into_result()?;
    Ok(lab.place_in(id, sandbox.netns))
}

#[test]
#[ignore = "cargo xtask test lab"]
fn a_new_pod_of_an_old_name_has_no_labels_until_its_own_object_is_seen() -> Result<()> {
    let lab = Lab::build(Topology::Wire(1)).start()?;
    let node = lab.node("a");
    let server = node.pod("server", &[("app", "server")])?;
    server.serve(&[TCP], &[])?;
    lab.apply("p", FROM_TRUSTED)?;
    // Both families, or neither; while a change is under way one may be ahead.
    let all = |place: &Place, answered: bool| -> Result<bool> {
        let [v4, v6] = Family::BOTH.map(|family| place.tcp(server.address(family), TCP));
        Ok(v4?.answered() == answered && v6?.answered() == answered)
    };
    let (reaches, misses) = (|place: &Place| all(place, true), |place: &Place| all(place, false));
    lab.store().write_pod(&web("old", "trusted"))?;
    let old = add(&lab, "namesake-old", "old")?;
    let new = add(&lab, "namesake-new", "new")?;
    let untold = add(&lab, "namesake-untold", "")?;
    assert!(reaches(&old)?, "the object is its own");
    assert!(reaches(&untold)?, "without a uid the name decides");
    assert!(misses(&new)?, "it has the labels of a pod that is not it");

    lab.store().write_pod(&web("new", "trusted"))?;
    wait_until("the labels of the new pod", SETTLE, || reaches(&new))?;
    lab.store().write_pod(&web("new", "stranger"))?;
    wait_until("the other labels of the new pod", SETTLE, || misses(&new))?;
    assert!(reaches(&old)?, "the pod that stands keeps what it had");
    node.restart_agent()?;
    node.wait_ready(SETTLE)?;
    assert!(reaches(&old)?, "over a restart too");
    assert!(misses(&new)?);
    Ok(())
}
