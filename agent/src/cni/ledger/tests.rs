//! The ledger over a real folder, with random requests and a kill at every write.

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

    /// Random ADDs, DELs and kills: leases on disk and in memory agree, and no address has two owners.
    #[test]
    fn no_lease_is_handed_out_twice(
        steps in proptest::collection::vec((0u8..8, 0u8..12, 0u64..50), 1..60),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let pools = ["10.1.0.0/29", "fd00::/125"];
        let mut now = START;
        let mut ledger = open(folder.path(), &pools, now);
        for (kind, container, passed) in steps {
            now += Duration::from_secs(passed);
            let attachment = attachment(&format!("c{container}"));
            match kind {
                0..4 => drop(ledger.begin(&attachment, UNIX_EPOCH, now)),
                4..6 => ledger.end(&key_of(&attachment), now).unwrap(),
                6 => drop(ledger.set_phase(&key_of(&attachment), Phase::Removing).unwrap()),
                // Killed: memory is gone, the files are what they were.
                _ => {
                    let before: Vec<Entry> = ledger.entries().cloned().collect();
                    ledger = open(folder.path(), &pools, now);
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
