//! The ledger over a real folder, with random requests, a kill at every write, and a disk that takes nothing.

use proptest::prelude::*;

use super::*;

fn attachment(container_id: &str) -> Attachment {
    Attachment {
        container_id: container_id.into(),
        netns: "/run/netns/x".into(),
        ifname: "eth0".into(),
        network: String::new(),
        pod_namespace: String::new(),
        pod_name: String::new(),
        pod_uid: String::new(),
        labels: BTreeMap::new(),
    }
}

fn open(folder: &Path, pools: &[&str], now: Duration) -> Ledger {
    let pools: Vec<IpNet> = pools.iter().map(|pool| pool.parse().unwrap()).collect();
    Ledger::open(folder, &pools, 16, now).unwrap()
}

/// Keeps a file from being written, as a full disk does for root too: a folder has its temporary name.
fn block(path: &Path) {
    fs::create_dir(path.with_extension("tmp")).unwrap();
}

fn unblock(path: &Path) {
    fs::remove_dir(path.with_extension("tmp")).unwrap();
}

const START: Duration = Duration::from_secs(1_000_000);

#[test]
fn an_entry_outlasts_a_restart_and_its_end_rests_the_addresses() {
    let folder = tempfile::tempdir().unwrap();
    let pools = ["10.1.0.0/30", "fd00::/126"];
    let mut ledger = open(folder.path(), &pools, START);
    let entry = ledger.begin(&attachment("c1"), UNIX_EPOCH, START).unwrap().clone();
    assert_eq!(entry.addresses.len(), 2);
    assert!(matches!(ledger.begin(&attachment("c1"), UNIX_EPOCH, START), Err(Refusal::AlreadyAttached(_))));
    assert!(ledger.set_phase(&entry.key(), Phase::Standing).unwrap());

    let mut ledger = open(folder.path(), &pools, START);
    assert_eq!(ledger.entry(&entry.key()).unwrap().phase, Phase::Standing);
    let other = ledger.begin(&attachment("c2"), UNIX_EPOCH, START).unwrap().clone();
    assert_ne!(other.addresses, entry.addresses);
    assert_ne!(other.id, entry.id);

    ledger.end(&entry.key(), START).unwrap();
    let mut ledger = open(folder.path(), &pools, START);
    let error = ledger.begin(&attachment("c3"), UNIX_EPOCH, START).unwrap_err();
    assert_eq!(error.code(), 103, "{error}");
    let (v4, v6) = (&ledger.pools()[0], &ledger.pools()[1]);
    assert_eq!((v4.leased(), v4.resting(START)), (1, 1));
    assert_eq!((v6.leased(), v6.resting(START)), (1, 1), "the failed attempt took none of the other family");
    ledger.begin(&attachment("c3"), UNIX_EPOCH, START + REST).unwrap();
}

#[test]
fn an_attachment_ends_although_the_disk_takes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let pools = ["10.1.0.0/24"];
    let mut ledger = open(folder.path(), &pools, START);
    let entry = ledger.begin(&attachment("c1"), UNIX_EPOCH, START).unwrap().clone();
    let key = entry.key();
    ledger.set_phase(&key, Phase::Standing).unwrap();
    let (own, resting) = (ledger.path(&key), folder.path().join(RESTING));
    block(&own);
    block(&resting);
    assert_eq!(ledger.set_phase(&key, Phase::Removing).unwrap_err().code(), 5);
    assert_eq!(ledger.entry(&key).unwrap().phase, Phase::Removing);
    ledger.end(&key, START).unwrap_err();
    assert!(ledger.entry(&key).is_none() && ledger.is_behind());
    assert_eq!((ledger.pools()[0].leased(), ledger.pools()[0].resting(START)), (0, 1));
    ledger.end(&key, START).unwrap();

    // Killed now, the file still has the address, for the next start to end it once more.
    unblock(&own);
    let found: Vec<Entry> = open(folder.path(), &pools, START).entries().cloned().collect();
    assert_eq!(found, [Entry { phase: Phase::Standing, ..entry }]);
    // So nobody else may be given an address meanwhile, not even after its rest.
    assert_eq!(ledger.begin(&attachment("c2"), UNIX_EPOCH, START + REST).unwrap_err().code(), 5);

    unblock(&resting);
    ledger.catch_up().unwrap();
    assert!(!ledger.is_behind() && !own.exists());
    let ledger = open(folder.path(), &pools, START);
    assert_eq!((ledger.entries().count(), ledger.pools()[0].resting(START)), (0, 1));
}

#[test]
fn a_file_that_is_written_by_half_does_not_stay() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c1:eth0.json");
    // The content is written, and cannot take the place of a folder.
    fs::create_dir(&path).unwrap();
    replace(&path, b"{}").unwrap_err();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn an_address_rests_longer_than_connections_without_an_end_are_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = open(folder.path(), &["10.1.0.1/32"], START);
    let key = ledger.begin(&attachment("c1"), UNIX_EPOCH, START).unwrap().key();
    ledger.end(&key, START).unwrap();
    // 120 s of UDP (docs/datapath.md), and some for the packet that was under way.
    let error = ledger.begin(&attachment("c2"), UNIX_EPOCH, START + Duration::from_secs(130)).unwrap_err();
    assert_eq!(error.code(), 103, "{error}");
    ledger.begin(&attachment("c2"), UNIX_EPOCH, START + Duration::from_secs(140)).unwrap();
}

#[test]
fn the_pods_uid_outlasts_a_restart_and_an_older_file_has_none() {
    let folder = tempfile::tempdir().unwrap();
    let asked = Attachment { pod_uid: "u-1".into(), ..attachment("c1") };
    let mut ledger = open(folder.path(), &["10.1.0.0/24"], START);
    let key = ledger.begin(&asked, UNIX_EPOCH, START).unwrap().key();
    let ledger = open(folder.path(), &["10.1.0.0/24"], START);
    assert_eq!(ledger.entry(&key).unwrap().endpoint(None).pod_uid, "u-1");

    let path = ledger.path(&key);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace(",\"pod_uid\":\"u-1\"", "")).unwrap();
    assert!(!fs::read_to_string(&path).unwrap().contains("uid"));
    let ledger = open(folder.path(), &["10.1.0.0/24"], START);
    assert_eq!(ledger.entry(&key).unwrap().endpoint(None).pod_uid, "");
}

#[test]
fn no_pod_gets_an_address_of_the_nodes() {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = open(folder.path(), &["10.1.0.0/29", "fd00::/125"], START);
    ledger.reserve(&["10.1.0.1".parse().unwrap(), "192.0.2.1".parse().unwrap()]);
    let leased = |ledger: &mut Ledger, id: &str| {
        let entry = ledger.begin(&attachment(id), UNIX_EPOCH, START).unwrap();
        entry.addresses.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(leased(&mut ledger, "c1"), ["10.1.0.2", "fd00::1"]);
    // The former network's bridge appears while the agent runs, and has moved when it is looked at again.
    ledger.reserve(&["10.1.0.3".parse().unwrap(), "fd00::2".parse().unwrap()]);
    assert_eq!(leased(&mut ledger, "c2"), ["10.1.0.4", "fd00::3"]);
}

#[test]
fn a_container_has_one_interface() {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = open(folder.path(), &["10.1.0.0/24"], START);
    let first = ledger.begin(&attachment("c2"), UNIX_EPOCH, START).unwrap().key();
    for ifname in ["a0", "net1"] {
        let second = Attachment { ifname: ifname.into(), ..attachment("c2") };
        let error = ledger.begin(&second, UNIX_EPOCH, START).unwrap_err();
        assert_eq!(error.code(), 109, "{error}");
        assert!(error.to_string().starts_with("eth0 of container c2 is attached already"), "{error}");
    }
    // Its neighbours in order are others.
    for id in ["c1", "c20", "c3"] {
        ledger.begin(&attachment(id), UNIX_EPOCH, START).unwrap();
    }
    ledger.end(&first, START).unwrap();
    ledger.begin(&Attachment { ifname: "net1".into(), ..attachment("c2") }, UNIX_EPOCH, START).unwrap();
}

#[test]
fn an_unreadable_file_is_dropped_and_others_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = open(folder.path(), &["10.1.0.0/24"], START);
    ledger.begin(&attachment("c1"), UNIX_EPOCH, START).unwrap();
    fs::write(folder.path().join(FOLDER).join("c2:eth0.json"), "{").unwrap();
    fs::write(folder.path().join(FOLDER).join("c3:eth0.tmp"), "{}").unwrap();
    let ledger = open(folder.path(), &["10.1.0.0/24"], START);
    assert_eq!(ledger.entries().count(), 1);
    assert_eq!(fs::read_dir(folder.path().join(FOLDER)).unwrap().count(), 1);
}

#[test]
fn a_file_that_cannot_be_read_is_kept_and_ends_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let pools: [IpNet; 1] = ["10.1.0.0/24".parse().unwrap()];
    for name in [format!("{FOLDER}/c1:eth0.json"), RESTING.to_owned()] {
        // Reading a folder fails for root too, with EISDIR.
        let path = folder.path().join(name);
        fs::create_dir_all(&path).unwrap();
        let error = Ledger::open(folder.path(), &pools, 16, START).unwrap_err();
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        assert!(path.is_dir());
        fs::remove_dir(&path).unwrap();
    }
}

#[test]
fn numbers_end_at_the_last_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = open(folder.path(), &["10.1.0.0/24"], START);
    for container in 0..16 {
        ledger.begin(&attachment(&container.to_string()), UNIX_EPOCH, START).unwrap();
    }
    assert_eq!(ledger.begin(&attachment("one too many"), UNIX_EPOCH, START).unwrap_err().code(), 104);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Random ADDs, DELs and kills, on a disk that takes nothing now and then: leases on disk and in memory agree, no
    /// address has two owners, and each rests before it has another.
    #[test]
    fn no_lease_is_handed_out_twice(
        steps in proptest::collection::vec((0u8..9, 0u8..12, 0u64..50), 1..60),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let pools = ["10.1.0.0/29", "fd00::/125"];
        let resting = folder.path().join(RESTING);
        let mut full = false;
        let mut released: BTreeMap<IpAddr, Duration> = BTreeMap::new();
        let mut now = START;
        let mut ledger = open(folder.path(), &pools, now);
        for (kind, container, passed) in steps {
            now += Duration::from_secs(passed);
            let attachment = attachment(&format!("c{container}"));
            let key = key_of(&attachment);
            match kind {
                0..4 => {
                    let behind = full && ledger.is_behind();
                    if let Ok(entry) = ledger.begin(&attachment, UNIX_EPOCH, now) {
                        prop_assert!(!behind, "nothing is leased while a file has what has ended");
                        for address in &entry.addresses {
                            let rested = released.get(address).is_none_or(|since| *since + REST <= now);
                            prop_assert!(rested, "{} is leased before it has rested", address);
                        }
                    }
                }
                4..6 => {
                    let addresses = ledger.entry(&key).map(|entry| entry.addresses.clone());
                    let outcome = ledger.end(&key, now);
                    prop_assert_eq!(outcome.is_err(), full && addresses.is_some());
                    prop_assert!(ledger.entry(&key).is_none());
                    released.extend(addresses.into_iter().flatten().map(|address| (address, now)));
                }
                6 => drop(ledger.set_phase(&key, Phase::Removing).unwrap()),
                7 => {
                    full = !full;
                    if full { block(&resting) } else { unblock(&resting) }
                }
                // Killed: memory is gone, the files are what they were. What had ended is ended once more.
                _ => {
                    let before: Vec<Entry> = ledger.entries().cloned().collect();
                    ledger = open(folder.path(), &pools, now);
                    let found: Vec<Entry> = ledger.entries().cloned().collect();
                    for entry in found.iter().filter(|entry| !before.contains(entry)) {
                        let _behind = ledger.end(&entry.key(), now);
                    }
                    let after: Vec<Entry> = ledger.entries().cloned().collect();
                    prop_assert_eq!(before, after);
                }
            }
            let mut addresses: Vec<IpAddr> =
                ledger.entries().flat_map(|entry| entry.addresses.iter().copied()).collect();
            let all = addresses.len();
            addresses.sort();
            addresses.dedup();
            prop_assert_eq!(addresses.len(), all, "an address has two owners");
            let mut ids: Vec<u16> = ledger.entries().map(|entry| entry.id.0).collect();
            ids.sort_unstable();
            ids.dedup();
            prop_assert_eq!(ids.len(), ledger.entries().count(), "a number has two owners");
        }
    }
}
