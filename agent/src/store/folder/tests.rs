//! The store over a real folder: what people and other agents write is told, within the promised time.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use sinew_api::identity::Identity;
use sinew_api::labels::Labels;
use sinew_api::object::{Endpoint, Node, NodeStatus, ObjectKind, ObjectName, Origin, Routing};

use super::*;
use crate::store::{ObjectState, ObjectStatus, StoreChange, Trouble};

mod limits;
mod saving;
mod statuses;

struct Folder {
    folder: tempfile::TempDir,
    store: FolderStore,
}

impl Folder {
    fn open() -> Self {
        Self::open_in(tempfile::tempdir().unwrap())
    }

    fn open_in(folder: tempfile::TempDir) -> Self {
        Self::open_again(folder, Vec::new())
    }

    /// By an agent that knows these objects from an earlier run.
    fn open_again(folder: tempfile::TempDir, kept: Vec<Object>) -> Self {
        let config = FolderConfig { path: folder.path().into(), node: "a".into(), kept };
        Self { store: FolderStore::open(config).unwrap(), folder }
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// The next batch, however slow the machine is.
    async fn batch(&mut self) -> Batch {
        tokio::time::timeout(Duration::from_secs(60), self.store.next())
            .await
            .expect("a batch in time")
            .unwrap()
    }

    /// Batches until one sets an object of that name.
    async fn until_set(&mut self, name: &str) -> Object {
        loop {
            for change in self.batch().await.changes {
                if let StoreChange::Set(object) = change
                    && object.name().name == name
                {
                    return *object;
                }
            }
        }
    }

    /// What is told until everything was looked at.
    async fn until_looked(&mut self, look: u64) -> Vec<String> {
        self.store.write(StoreWrite::Look(look)).await;
        let mut told = Vec::new();
        loop {
            let batch = self.batch().await;
            told.extend(names(&batch));
            if batch.looked == Some(look) {
                return told;
            }
        }
    }
}

fn namespace(name: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n")
}

fn names(batch: &Batch) -> Vec<String> {
    batch
        .changes
        .iter()
        .map(|change| match change {
            StoreChange::Set(object) => format!("+{}", object.name()),
            StoreChange::Removed(name) => format!("-{name}"),
        })
        .collect()
}

#[tokio::test]
async fn the_first_batch_is_the_whole_folder() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("deep")).unwrap();
    fs::write(folder.path().join("deep/x.yml"), namespace("one") + "---\n" + &namespace("two")).unwrap();
    fs::write(
        folder.path().join("y.json"),
        r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"three"}}"#,
    )
    .unwrap();
    fs::write(folder.path().join("notes.txt"), namespace("four")).unwrap();
    fs::write(folder.path().join(".x.yaml.swp.yaml"), namespace("five")).unwrap();
    let mut folder = Folder::open_in(folder);
    let batch = folder.batch().await;
    assert!(batch.synced);
    let mut names = names(&batch);
    names.sort();
    assert_eq!(names, ["+Namespace/one", "+Namespace/three", "+Namespace/two"]);
}

#[tokio::test]
async fn a_large_first_list_comes_in_parts() {
    const IDENTITIES: usize = 3 * 1000;
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join(".identities")).unwrap();
    for number in 0..IDENTITIES {
        let number = 256 + number;
        let text = format!(
            "apiVersion: sinew.io/v1\nkind: SinewIdentity\nmetadata:\n  name: \"{number}\"\nspec:\n  labels:\n  \
             - k8s:app=app-{number}\n"
        );
        fs::write(folder.path().join(format!(".identities/{number}.yaml")), text).unwrap();
    }
    for number in 0..10 {
        fs::write(folder.path().join(format!("x{number}.yaml")), namespace(&format!("n{number}"))).unwrap();
    }
    let mut folder = Folder::open_in(folder);
    let mut parts = Vec::new();
    while !parts.last().is_some_and(|batch: &Batch| batch.synced) {
        parts.push(folder.batch().await);
    }
    let last = parts.pop().unwrap();
    assert!(parts.len() >= 2, "{} parts before the last one", parts.len());
    let mut told: Vec<String> = Vec::new();
    for part in &parts {
        // A slice may read some more before the part is full.
        assert!(part.changes.len() < IDENTITIES / 2, "{} objects at once", part.changes.len());
        told.extend(names(part));
    }
    assert!(
        told.iter().all(|name| name.starts_with("+SinewIdentity/")),
        "people's objects wait for each other"
    );
    told.extend(names(&last));
    assert_eq!(told.iter().filter(|name| name.starts_with("+Namespace/")).count(), 10);
    told.sort();
    told.dedup();
    assert_eq!(told.len(), IDENTITIES + 10, "each object once");
    // What came in parts is known to the store: a number that stands there is found, not made.
    let mut labels = sinew_api::labels::Labels::new();
    labels.insert("k8s", "app", "app-300");
    folder.store.write(StoreWrite::AllocateIdentity(labels)).await;
    assert_eq!(names(&folder.batch().await), ["+SinewIdentity/300"]);
}

#[tokio::test]
async fn a_look_tells_of_all_that_was_written_before_it() {
    let mut folder = Folder::open();
    assert!(folder.batch().await.synced);
    for look in 1..50 {
        let name = format!("n{look}");
        folder.write(&format!("x{look}.yaml"), &namespace(&name));
        folder.store.write(StoreWrite::Look(look)).await;
        let mut told = Vec::new();
        loop {
            let batch = folder.batch().await;
            told.extend(names(&batch));
            if batch.looked == Some(look) {
                break;
            }
        }
        assert_eq!(told, [format!("+Namespace/{name}")], "look {look}");
    }
    // A look that finds nothing is answered too.
    folder.store.write(StoreWrite::Look(50)).await;
    assert_eq!(folder.batch().await, Batch { looked: Some(50), ..Batch::default() });
}

/// The quickest of ten says how long the store itself takes; the others may have waited for the machine.
#[tokio::test]
async fn a_change_is_seen_within_100_ms() {
    let mut folder = Folder::open();
    assert!(folder.batch().await.synced);
    let mut quickest = [Duration::MAX; 3];
    for round in 0..20 {
        let name = format!("n{round}");
        let start = Instant::now();
        // Every second file is in a new folder.
        let path = if round % 2 == 0 { format!("d{round}/x.yaml") } else { format!("x{round}.yaml") };
        folder.write(&path, &namespace(&name));
        folder.until_set(&name).await;
        quickest[round % 2] = quickest[round % 2].min(start.elapsed());
    }
    for round in 0..20 {
        let start = Instant::now();
        match round % 2 {
            0 => fs::remove_dir_all(folder.folder.path().join(format!("d{round}"))).unwrap(),
            _ => fs::remove_file(folder.folder.path().join(format!("x{round}.yaml"))).unwrap(),
        }
        assert_eq!(names(&folder.batch().await), [format!("-Namespace/n{round}")]);
        quickest[2] = quickest[2].min(start.elapsed());
    }
    for (what, took) in ["a new folder", "a file", "a removal"].iter().zip(quickest) {
        assert!(took < Duration::from_millis(100), "{what} took {took:?} at best");
    }
}

#[tokio::test]
async fn a_folder_moved_in_and_out_takes_its_objects_along() {
    let mut folder = Folder::open();
    folder.batch().await;
    let outside = tempfile::tempdir().unwrap();
    let (here, there) = (folder.folder.path().join("team"), outside.path().join("team"));
    fs::create_dir_all(there.join("inner")).unwrap();
    fs::write(there.join("inner/x.yaml"), namespace("one")).unwrap();
    fs::rename(&there, &here).unwrap();
    folder.until_set("one").await;
    fs::rename(&here, &there).unwrap();
    assert_eq!(names(&folder.batch().await), ["-Namespace/one"]);
}

#[tokio::test]
async fn what_is_no_readable_file_is_refused_and_keeps_what_it_held() {
    let mut folder = Folder::open();
    folder.batch().await;
    folder.write("x.yaml", &namespace("one"));
    folder.until_set("one").await;

    // A file that is being written is refused for other reasons on the way.
    let problem = async |folder: &mut Folder, wanted: &str| loop {
        let batch = folder.batch().await;
        assert!(!names(&batch).contains(&"-Namespace/one".to_owned()), "what it held stays in force");
        let mut refused = batch.refused.iter().flatten();
        if refused.any(|document| document.problems[0].message.contains(wanted)) {
            break;
        }
    };
    folder.write("x.yaml", "");
    problem(&mut folder, "the file is empty").await;
    folder.write("x.yaml", &"#".repeat(sinew_api::yaml::MAX_BYTES + 1));
    problem(&mut folder, "larger than").await;
    fs::remove_file(folder.folder.path().join("x.yaml")).unwrap();
    while !names(&folder.batch().await).contains(&"-Namespace/one".to_owned()) {}
    nix::unistd::mkfifo(&folder.folder.path().join("pipe.yaml"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    problem(&mut folder, "neither a file nor a folder").await;
    symlink("loop.yaml", folder.folder.path().join("loop.yaml")).unwrap();
    loop {
        let refused = folder.batch().await.refused.unwrap_or_default();
        if refused.iter().any(|refused| refused.origin.file == "loop.yaml") {
            break;
        }
    }
}

#[tokio::test]
async fn links_to_folders_are_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    symlink(folder.path(), folder.path().join("again")).unwrap();
    fs::write(folder.path().join("x.yaml"), namespace("one")).unwrap();
    symlink("x.yaml", folder.path().join("y.yaml")).unwrap();
    let mut folder = Folder::open_in(folder);
    let batch = folder.batch().await;
    assert_eq!(names(&batch), ["+Namespace/one"]);
    let refused = batch.refused.unwrap();
    assert_eq!(refused.len(), 1, "a link to a file is read, and is a second claim to the name: {refused:?}");
}

#[tokio::test]
async fn agents_objects_are_admitted_only_where_they_belong() {
    let mut folder = Folder::open();
    folder.batch().await;
    let mut node = Node { routing: Routing::Vxlan, ..node("b") };
    folder.write(".nodes/b.yaml", &node.to_yaml());
    folder.until_set("b").await;
    for (path, name, message) in [
        (".nodes/c.yaml", "d", "the file's name says"),
        ("c.yaml", "c", "written by agents only"),
        (".identities/c.yaml", "c", "agents keep no SinewNode under .identities"),
    ] {
        node.name = name.into();
        folder.write(path, &node.to_yaml());
        let refused = loop {
            if let Some(refused) = folder.batch().await.refused {
                break refused;
            }
        };
        let lines: Vec<String> = refused.iter().map(|refused| refused.problems[0].message.clone()).collect();
        assert!(lines.iter().any(|line| line.contains(message)), "{path}: {lines:?}");
    }
}

#[tokio::test]
async fn what_the_agent_writes_is_read_by_others_and_itself() {
    let mut folder = Folder::open();
    folder.batch().await;
    folder.store.write(StoreWrite::Node(node("a"))).await;
    folder.until_set("a").await;

    let mut labels = sinew_api::labels::Labels::new();
    labels.insert("k8s", "app", "web");
    folder.store.write(StoreWrite::AllocateIdentity(labels.clone())).await;
    let change = loop {
        if let Some(change) = folder.batch().await.changes.pop() {
            break change;
        }
    };
    let StoreChange::Set(object) = change else { panic!("{change:?}") };
    let Object::Identity(one) = *object else { panic!("{object:?}") };
    assert_eq!(one.labels, labels);
    folder.store.write(StoreWrite::ReleaseIdentity(one.identity)).await;
    loop {
        if names(&folder.batch().await).contains(&format!("-SinewIdentity/{}", one.identity)) {
            break;
        }
    }
}

/// Who copies the folder and deletes what the copy lacks takes the files of running nodes along.
#[tokio::test]
async fn what_somebody_takes_of_this_nodes_endpoints_is_written_again() {
    let mut folder = Folder::open();
    folder.batch().await;
    let place = |name: &str| folder.folder.path().join(format!(".endpoints/a/{name}.yaml"));
    let (one, two) = (place("one"), place("two"));
    for name in ["one", "two"] {
        folder.store.write(StoreWrite::Endpoint(Box::new(endpoint(name)))).await;
        folder.until_set(name).await;
    }
    folder.store.write(StoreWrite::EndpointGone("two".into())).await;
    fs::remove_dir_all(one.parent().unwrap()).unwrap();
    folder.store.write(StoreWrite::Look(1)).await;
    while folder.batch().await.looked != Some(1) {}
    assert!(one.exists() && !two.exists());
    // The folder of all objects is not the agent's to make.
    fs::remove_dir_all(folder.folder.path()).unwrap();
    folder.store.write(StoreWrite::Endpoint(Box::new(endpoint("two")))).await;
    let trouble = loop {
        let trouble = folder.batch().await.trouble.unwrap_or_default().failure;
        if trouble.contains("write") {
            break trouble;
        }
    };
    assert!(trouble.contains(".endpoints/a/"), "{trouble}");
    assert!(!folder.folder.path().exists());
}

fn endpoint(name: &str) -> Endpoint {
    Endpoint {
        name: name.into(),
        pod_namespace: "shop".into(),
        pod_name: name.into(),
        pod_uid: String::new(),
        container_id: String::new(),
        ifname: String::new(),
        node: "a".into(),
        addresses: vec!["10.0.0.9".parse().unwrap()],
        identity: Identity(300),
        previous_identity: None,
        labels: Labels::new(),
        ports: Vec::new(),
        phase: None,
        workload: None,
        origin: Origin::default(),
    }
}

#[tokio::test]
async fn statuses_of_two_nodes_stand_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    let stores: Vec<FolderStore> = ["a", "b"]
        .into_iter()
        .map(|node| {
            let config = FolderConfig { path: folder.path().into(), node: node.into(), kept: Vec::new() };
            FolderStore::open(config).unwrap()
        })
        .collect();
    assert_ne!(stores[0].node_number(), stores[1].node_number());
    let name = ObjectName {
        kind: ObjectKind::Policy(sinew_api::object::PolicyKind::CiliumNetworkPolicy),
        namespace: "default".into(),
        name: "web".into(),
    };
    for (store, node_name) in stores.iter().zip(["a", "b"]) {
        store.write(StoreWrite::Node(node(node_name))).await;
        let status = ObjectStatus {
            name: name.clone(),
            state: ObjectState::Enforced,
            message: format!("state-of-{node_name}"),
            generation: 7,
            running_generation: 7,
            problems: Vec::new(),
            warnings: Vec::new(),
            addresses: Vec::new(),
        };
        store.write(StoreWrite::Status(status)).await;
    }
    drop(stores);
    let text =
        fs::read_to_string(folder.path().join(".status/CiliumNetworkPolicy/default/web.yaml")).unwrap();
    assert!(text.contains("state-of-a") && text.contains("state-of-b"), "{text}");
}

fn node(name: &str) -> Node {
    Node {
        name: name.into(),
        cluster: "default".into(),
        id: 1,
        addresses: Vec::new(),
        pod_cidrs: Vec::new(),
        routing: Routing::Native,
        status: NodeStatus::default(),
        origin: Origin::default(),
    }
}

#[tokio::test]
async fn what_a_killed_agent_was_writing_is_removed_and_other_nodes_files_stay() {
    let folder = tempfile::tempdir().unwrap();
    let place = |path: &str| folder.path().join(path);
    let ours = [
        ".nodes/.a.yaml@a@ThreadId(3).tmp",
        ".endpoints/a/.default.web.yaml@a@ThreadId(3).tmp",
        ".identities/.300.yaml@a@ThreadId(3).tmp",
        ".status/SinewNetworkPolicy/default/.web.yaml@a@ThreadId(3).tmp",
    ];
    // Another node's, one of a node whose name ends alike, an object's own file, and one of a person.
    let others = [
        ".identities/.300.yaml@b@ThreadId(3).tmp",
        ".identities/.300.yaml@b.a@ThreadId(3).tmp",
        ".endpoints/b/.default.web.yaml@b@ThreadId(3).tmp",
        ".identities/.draft.tmp",
    ];
    for path in ours.iter().chain(&others) {
        fs::create_dir_all(place(path).parent().unwrap()).unwrap();
        fs::write(place(path), "half").unwrap();
    }
    let store = Folder::open_in(folder);
    let place = |path: &str| store.folder.path().join(path);
    for path in ours {
        assert!(!place(path).exists(), "{path}");
    }
    for path in others {
        assert!(place(path).exists(), "{path}");
    }
}

fn refused(name: ObjectName) -> ObjectStatus {
    ObjectStatus {
        name,
        state: ObjectState::Refused,
        message: String::new(),
        generation: 0,
        running_generation: 0,
        problems: Vec::new(),
        warnings: Vec::new(),
        addresses: Vec::new(),
    }
}

#[test]
fn a_node_finds_its_number_although_nothing_can_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let folders = write::Folders::make(folder.path(), "a").unwrap();
    let number = folders.take_node_number("a").unwrap();
    // As on a full disk: a folder has the name under which the file would be written first.
    let temporary = format!("..number-{number}@a@{:?}.tmp", std::thread::current().id());
    fs::create_dir(folder.path().join(area::NODES).join(temporary)).unwrap();
    assert_eq!(folders.take_node_number("a").unwrap(), number);
}

#[test]
fn the_longest_names_are_written_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let name = |name: String| ObjectName {
        kind: ObjectKind::Policy(sinew_api::object::PolicyKind::NetworkPolicy),
        namespace: "n".repeat(63),
        name,
    };
    let names = [name("p".repeat(253)), name("p".repeat(252) + "q")];
    let nodes = ["a".to_owned(), "b".repeat(245)];
    for node in &nodes {
        let folders = write::Folders::make(folder.path(), node).unwrap();
        let text = format!("apiVersion: sinew.io/v1\nkind: SinewNode\nmetadata: {{name: {node}}}\n");
        fs::write(folder.path().join(area::NODES).join(format!("{node}.yaml")), text).unwrap();
        for name in &names {
            folders.write_status(&refused(name.clone())).unwrap();
        }
        let endpoint = endpoint(&"e".repeat(250));
        folders.write_endpoint(&endpoint).unwrap();
        assert!(matches!(
            files::read(folder.path(), &format!("{}/{node}/{}.yaml", area::ENDPOINTS, endpoint.name)),
            files::Reading::Documents(..)
        ));
        folders.remove_endpoint(&endpoint.name).unwrap();
    }
    let kind = folder.path().join(".status/NetworkPolicy").join("n".repeat(63));
    for (name, left) in names.iter().zip([1, 0]) {
        let texts =
            fs::read_dir(&kind).unwrap().map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap());
        let of_both = |text: &String| text.contains(&name.name) && text.contains(&"b".repeat(245));
        assert_eq!(texts.filter(of_both).count(), 1, "each object has its own, and each node its part");
        for node in &nodes {
            write::Folders::at(folder.path(), node).remove_status(name).unwrap();
        }
        assert_eq!(fs::read_dir(&kind).unwrap().count(), left);
    }
}

#[tokio::test]
async fn a_write_that_fails_is_told_of_and_done_later() {
    let mut folder = Folder::open();
    assert!(folder.batch().await.synced);
    let status = |kind, name: &str| {
        StoreWrite::Status(refused(ObjectName { kind, namespace: String::new(), name: name.into() }))
    };
    // A file where a folder is to be made: no status of a namespace can be written.
    folder.write(".status/Namespace", "");
    folder.store.write(status(ObjectKind::Namespace, "one")).await;
    let trouble = folder.batch().await.trouble.unwrap();
    assert!(trouble.warning.starts_with("cannot write: ") && trouble.failure.is_empty(), "{trouble:?}");
    // Another write that works does not hide it.
    folder.store.write(status(ObjectKind::Node, "b")).await;
    folder.store.write(StoreWrite::Look(1)).await;
    let batch = folder.batch().await;
    assert_eq!((batch.looked, batch.trouble), (Some(1), None));
    assert!(folder.folder.path().join(".status/SinewNode/b.yaml").exists());

    fs::remove_file(folder.folder.path().join(".status/Namespace")).unwrap();
    assert_eq!(folder.batch().await.trouble, Some(Trouble::default()), "nothing is wrong any more");
    assert!(folder.folder.path().join(".status/Namespace/one.yaml").exists());
}
