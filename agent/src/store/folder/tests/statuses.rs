//! Statuses in files that several nodes write.

use sinew_api::object::Problem;

use super::*;

fn name(kind: ObjectKind, name: &str) -> ObjectName {
    ObjectName { kind, namespace: "shop".into(), name: name.into() }
}

fn status(name: &ObjectName, message: &str) -> StoreWrite {
    StoreWrite::Status(ObjectStatus {
        name: name.clone(),
        state: ObjectState::Running,
        message: message.into(),
        generation: 0,
        running_generation: 0,
        problems: Vec::new(),
        warnings: Vec::new(),
        addresses: vec!["10.0.0.9".parse().unwrap()],
    })
}

/// A node does these writes and ends.
async fn write(folder: &Path, node_name: &str, writes: impl IntoIterator<Item = StoreWrite>) {
    let config = FolderConfig { path: folder.into(), node: node_name.into(), kept: Vec::new() };
    let store = FolderStore::open(config).unwrap();
    store.write(StoreWrite::Node(node(node_name))).await;
    for write in writes {
        store.write(write).await;
    }
}

#[tokio::test]
async fn a_node_takes_back_its_own_part_of_a_status_only() {
    let folder = tempfile::tempdir().unwrap();
    let pod = name(ObjectKind::Pod, "web");
    let path = folder.path().join(".status/Pod/shop/web.yaml");
    write(folder.path(), "a", [status(&pod, "on a")]).await;
    write(folder.path(), "b", [status(&pod, "on b")]).await;
    let both = fs::read_to_string(&path).unwrap();
    // The pod has moved.
    write(folder.path(), "a", [StoreWrite::StatusGone(pod.clone())]).await;
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("on b") && !text.contains("on a"), "{text}");
    write(folder.path(), "a", [status(&pod, "on a")]).await;
    assert_eq!(fs::read_to_string(&path).unwrap(), both, "the rest of the file is what it was");
    for node in ["a", "b"] {
        write(folder.path(), node, [StoreWrite::StatusGone(pod.clone())]).await;
    }
    assert!(!path.exists(), "nobody says anything of it any more");
}

#[tokio::test]
async fn what_an_earlier_run_said_of_objects_that_are_gone_is_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["gone", "moved", "here"].map(|pod| name(ObjectKind::Pod, pod));
    let node_status = ObjectName { namespace: String::new(), ..name(ObjectKind::Node, "gone") };
    let all = || names.iter().chain([&node_status]);
    write(folder.path(), "a", all().map(|name| status(name, "on a"))).await;
    write(folder.path(), "b", [status(&names[1], "on b")]).await;
    let problem = Problem { path: String::new(), message: "x".into(), origin: Origin::default() };
    write(folder.path(), "a", [StoreWrite::Unreadable(vec![problem])]).await;

    write(folder.path(), "a", [StoreWrite::KeepStatuses([names[2].clone()].into())]).await;
    let pods = folder.path().join(".status/Pod/shop");
    assert!(!pods.join("gone.yaml").exists() && !folder.path().join(".status/SinewNode/gone.yaml").exists());
    let moved = fs::read_to_string(pods.join("moved.yaml")).unwrap();
    assert!(moved.contains("on b") && !moved.contains("on a"), "{moved}");
    assert!(fs::read_to_string(pods.join("here.yaml")).unwrap().contains("on a"));
    assert!(folder.path().join(".status/unreadable/a.yaml").exists(), "it is taken back by itself");
}
