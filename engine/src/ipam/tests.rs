use proptest::prelude::*;

use super::*;

fn pool(range: &str) -> Pool {
    Pool::new(range.parse().unwrap(), [], Duration::from_secs(60))
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn ends_and_gateways_are_never_leased() {
    let mut pool =
        Pool::new("10.0.0.8/29".parse().unwrap(), ["10.0.0.9".parse().unwrap()], Duration::from_secs(1));
    assert_eq!(pool.capacity(), 5);
    let leased: Vec<String> =
        (0..5).map(|owner| pool.lease(&owner.to_string(), seconds(0)).unwrap().to_string()).collect();
    assert_eq!(leased, ["10.0.0.10", "10.0.0.11", "10.0.0.12", "10.0.0.13", "10.0.0.14"]);
    let refused = pool.lease("one more", seconds(0)).unwrap_err();
    assert_eq!(refused.to_string(), "no address is free in 10.0.0.8/29: all 5 are leased");
}

#[test]
fn small_and_large_ranges() {
    assert_eq!(pool("10.0.0.4/32").capacity(), 1);
    assert_eq!(pool("10.0.0.4/31").capacity(), 2);
    assert_eq!(pool("fd00::/127").capacity(), 2);
    assert_eq!(pool("fd00::/120").capacity(), 255);
    assert_eq!(pool("::/0").capacity(), u64::MAX);
    assert_eq!(pool("fd00::/64").lease("a", seconds(0)).unwrap().to_string(), "fd00::1");
}

#[test]
fn a_released_address_rests() {
    let mut pool = pool("10.0.0.0/30");
    let first = pool.lease("a", seconds(0)).unwrap();
    assert_eq!(pool.lease("a", seconds(1)).unwrap(), first);
    let second = pool.lease("b", seconds(1)).unwrap();
    assert_eq!(pool.release("a", seconds(10)), Some(first));
    assert_eq!(pool.release("a", seconds(10)), None);
    let refused = pool.lease("c", seconds(69)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "no address is free in 10.0.0.0/30: 1 of 2 are leased and 1 rest; the next is free in 1s"
    );
    assert_eq!(pool.lease("c", seconds(70)).unwrap(), first);
    assert_ne!(first, second);
}

#[test]
fn what_somebody_else_has_is_passed_over_while_he_has_it() {
    let mut pool = Pool::new("10.1.0.0/29".parse().unwrap(), [], Duration::ZERO);
    let addresses = |all: &[&str]| all.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
    assert_eq!(pool.lease("a", seconds(0)).unwrap().to_string(), "10.1.0.1");
    // The owner's own, the range's end, one that is free, and others that are not in the range.
    pool.reserve(&addresses(&["10.1.0.1", "10.1.0.7", "10.1.0.2", "10.2.0.3", "fd00::3"]));
    assert_eq!((pool.capacity(), pool.leased()), (5, 1));
    assert_eq!(pool.lease("a", seconds(0)).unwrap().to_string(), "10.1.0.1", "a lease stays");
    let mut leased = Vec::new();
    while let Ok(address) = pool.lease(&format!("more {}", leased.len()), seconds(0)) {
        leased.push(address);
    }
    assert_eq!(leased, addresses(&["10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6"]));
    assert_eq!(pool.capacity(), pool.leased());
    pool.reserve(&[]);
    assert_eq!(pool.lease("last", seconds(0)).unwrap().to_string(), "10.1.0.2");
}

#[test]
fn what_is_on_disk_but_impossible_is_named() {
    let mut pool = pool("10.0.0.0/29");
    let held = |address: &str, owner: &str| Lease::Held {
        address: address.parse().unwrap(),
        owner: owner.to_owned(),
    };
    let impossible = pool.restore([
        held("10.0.0.1", "a"),
        held("10.0.0.1", "b"),
        held("10.0.0.2", "a"),
        held("10.9.0.2", "c"),
    ]);
    let named = [held("10.0.0.1", "b"), held("10.0.0.2", "a"), held("10.9.0.2", "c")];
    assert_eq!(impossible, named);
    assert_eq!(pool.lease("a", seconds(0)).unwrap().to_string(), "10.0.0.1");
}

/// What may happen to a node's pool.
#[derive(Clone, Debug)]
enum Step {
    Add(u8),
    Del(u8),
    /// The agent dies after it wrote the leases, or before it wrote the newest one; then nobody was told of it.
    Crash {
        written: bool,
    },
    Wait(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..24u8).prop_map(Step::Add),
        3 => (0..24u8).prop_map(Step::Del),
        1 => any::<bool>().prop_map(|written| Step::Crash { written }),
        2 => any::<u8>().prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_lease_is_handed_out_twice(steps in prop::collection::vec(step(), 1..120), v6 in any::<bool>()) {
        let range: IpNet = if v6 { "fd00::/124" } else { "10.0.0.0/28" }.parse().unwrap();
        let rest = seconds(100);
        let fresh = || Pool::new(range, [], rest);
        let (mut pool, mut now) = (fresh(), seconds(0));
        // What pods believe, and when an address was given up.
        let mut believed: BTreeMap<u8, IpAddr> = BTreeMap::new();
        let mut given_up: BTreeMap<IpAddr, Duration> = BTreeMap::new();
        let mut disk: Vec<Lease> = Vec::new();
        for step in steps {
            match step {
                Step::Add(owner) => match pool.lease(&owner.to_string(), now) {
                    Ok(address) => {
                        disk = pool.leases().collect();
                        prop_assert!(range.contains(&address));
                        prop_assert!(believed.iter().all(|(o, a)| *o == owner || *a != address));
                        if let Some(had) = believed.insert(owner, address) {
                            prop_assert_eq!(had, address);
                        } else if let Some(released) = given_up.get(&address) {
                            prop_assert!(now >= *released + rest, "{} is used again too early", address);
                        }
                    }
                    Err(_) => {
                        let resting = given_up.iter().filter(|(address, released)| {
                            now < **released + rest && believed.values().all(|held| held != *address)
                        });
                        prop_assert_eq!(pool.capacity(), (believed.len() + resting.count()) as u64);
                    }
                },
                Step::Del(owner) => {
                    let released = pool.release(&owner.to_string(), now);
                    disk = pool.leases().collect();
                    prop_assert_eq!(released, believed.remove(&owner));
                    if let Some(address) = released {
                        given_up.insert(address, now);
                    }
                }
                Step::Crash { written } => {
                    if !written && pool.lease("nobody was told", now).is_ok() {
                        // Dies here: the lease is in no file.
                    }
                    pool = fresh();
                    prop_assert_eq!(pool.restore(disk.clone()), []);
                }
                Step::Wait(time) => now += seconds(time.into()),
            }
        }
    }
}
