//! Netlink against the kernel: a node and a pod are two fresh network namespaces of this process. Needs root.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

#[path = "netlink/host.rs"]
mod host;
#[path = "netlink/usable.rs"]
mod usable;

use std::fs::File;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use sinew_agent::netlink::address::Mac;
use sinew_agent::netlink::namespace::{NamespaceError, PodNamespace};
use sinew_agent::netlink::node::Overlay;
use sinew_agent::netlink::route::{Route, RouteChanges, RouteFilter, sync_node_routes};
use sinew_agent::netlink::unreachable::sync_unreachable;
use sinew_agent::netlink::veth::{self, PodLink};
use sinew_agent::netlink::watch::{LinkEvent, LinkWatch};
use sinew_agent::netlink::{Link, LinkKind, Netlink, NetlinkError, node};

/// Runs `scenario` on a thread in a network namespace of its own: the node.
fn on_a_node(scenario: impl AsyncFnOnce(Netlink) + Send + 'static) {
    std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("root makes network namespaces");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { scenario(Netlink::open().unwrap()).await });
    })
    .join()
    .unwrap();
}

/// A fresh namespace that lives as long as the file is open, and a path to it.
fn pod_namespace() -> (File, PathBuf) {
    use std::os::fd::AsRawFd;
    let file = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        File::open("/proc/thread-self/ns/net").unwrap()
    })
    .join()
    .unwrap();
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    (file, path)
}

fn pod_link(container_id: &str, addresses: &[&str]) -> PodLink {
    let (host_mac, pod_mac) = veth::macs(container_id, "eth0");
    PodLink {
        host_name: veth::host_link_name(container_id, "eth0"),
        pod_name: "eth0".into(),
        host_mac,
        pod_mac,
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        device_mtu: 1500,
        route_mtu: 1450,
        node_addresses: Vec::new(),
        alias: "default/web".into(),
    }
}

#[test]
#[ignore = "cargo xtask test lab"]
fn a_pod_is_wired_checked_and_removed() {
    on_a_node(async |netlink| {
        let (_file, path) = pod_namespace();
        let pod = PodNamespace::open(&path).unwrap();
        let wanted = pod_link("c1", &["10.1.0.5", "fd00:1::5"]);
        node::enable_forwarding(&[], true).unwrap();

        let host = veth::create(&netlink, &pod, &wanted).await.unwrap();
        assert!(!host.up, "no packet passes before programs are attached");
        veth::open_host_side(&netlink, &host, &wanted).await.unwrap();
        assert_eq!(veth::wait_usable(&netlink, &pod, &wanted).await.unwrap(), Vec::<String>::new());
        assert_eq!(veth::check(&netlink, &pod, &wanted).await.unwrap(), Vec::<String>::new());

        // The node reaches the pod at once: nothing is tentative, nobody is asked for an address.
        for address in ["10.1.0.5", "fd00:1::5"] {
            let address: IpAddr = address.parse().unwrap();
            let (_held, listener) = (pod.visit(async move |_inside| {
                let listener = std::net::TcpListener::bind((address, 80)).unwrap();
                Ok(listener)
            }))
            .await
            .map(|listener| (address, listener))
            .unwrap();
            let answer = std::net::TcpStream::connect_timeout(&(address, 80).into(), Duration::from_secs(2));
            answer.unwrap_or_else(|error| panic!("{address}: {error}"));
            drop(listener);
        }

        let mut other = wanted.clone();
        other.addresses = vec!["10.1.0.6".parse().unwrap()];
        let differences = veth::check(&netlink, &pod, &other).await.unwrap();
        assert!(differences.iter().any(|line| line.contains("lacks address 10.1.0.6")), "{differences:?}");

        assert_eq!(netlink.pod_links().await.unwrap().len(), 1);
        assert!(netlink.delete_link(&wanted.host_name).await.unwrap());
        assert!(!netlink.delete_link(&wanted.host_name).await.unwrap(), "a second time there is nothing");
        assert!(netlink.routes(RouteFilter::Ours).await.unwrap().is_empty(), "its routes went with it");
    });
}

#[test]
#[ignore = "cargo xtask test lab"]
fn a_taken_name_in_the_pod_leaves_nothing_behind() {
    on_a_node(async |netlink| {
        let (_file, path) = pod_namespace();
        let pod = PodNamespace::open(&path).unwrap();
        veth::create(&netlink, &pod, &pod_link("c1", &["10.1.0.5"])).await.unwrap();
        let error = veth::create(&netlink, &pod, &pod_link("c2", &["10.1.0.6"])).await.unwrap_err();
        assert_eq!(error.errno(), Some(libc::EEXIST), "{error}");
        assert_eq!(netlink.pod_links().await.unwrap().len(), 1);
    });
}

/// The device of the pod's default route.
async fn way_out(pod: &PodNamespace) -> String {
    let inside = async |inside: Netlink| {
        let routes = inside.routes(RouteFilter::All).await?;
        let default =
            routes.iter().find(|route| route.destination.prefix_len() == 0).map(|route| route.interface);
        let links = inside.links().await?;
        Ok(links.into_iter().find(|link| Some(link.index) == default).map(|link| link.name))
    };
    pod.visit(inside).await.unwrap().unwrap_or_default()
}

#[test]
#[ignore = "cargo xtask test lab"]
fn a_second_interface_does_not_take_the_way_out() {
    on_a_node(async |netlink| {
        let (_file, path) = pod_namespace();
        let pod = PodNamespace::open(&path).unwrap();
        let first = pod_link("c1", &["10.1.0.5", "fd00:1::5"]);
        let host = veth::create(&netlink, &pod, &first).await.unwrap();
        veth::open_host_side(&netlink, &host, &first).await.unwrap();
        let second = PodLink {
            host_name: veth::host_link_name("c1", "net1"),
            pod_name: "net1".into(),
            ..pod_link("c1", &["10.1.0.6"])
        };
        let error = veth::create(&netlink, &pod, &second).await.unwrap_err();
        assert_eq!(error.errno(), None, "not to be taken for an interface of that name");
        assert!(error.to_string().contains("default route already, by eth0"), "{error}");
        assert_eq!(netlink.pod_links().await.unwrap().len(), 1, "the second one is removed");
        assert_eq!(way_out(&pod).await, "eth0");
        assert_eq!(veth::check(&netlink, &pod, &first).await.unwrap(), Vec::<String>::new());

        // A route by the gateway's address, but through somebody else's interface.
        pod.visit(async |_inside| {
            run("ip link add other type veth peer name far");
            run("ip link set other up");
            run("ip route replace default via 169.254.1.1 dev other onlink");
            Ok(())
        })
        .await
        .unwrap();
        let differences = veth::check(&netlink, &pod, &first).await.unwrap();
        assert_eq!(differences, ["the pod has no default route through 169.254.1.1 by eth0"]);
    });
}

#[test]
#[ignore = "cargo xtask test lab"]
fn a_pod_with_another_plugins_way_out_is_refused() {
    on_a_node(async |netlink| {
        let (_file, path) = pod_namespace();
        let pod = PodNamespace::open(&path).unwrap();
        pod.visit(async |_inside| {
            run("ip link add net0 type veth peer name far");
            run("ip link set net0 up");
            // A metric of its own: both routes could stand, and ours would win.
            run("ip route add default dev net0 metric 100");
            Ok(())
        })
        .await
        .unwrap();
        let error = veth::create(&netlink, &pod, &pod_link("c1", &["10.1.0.5"])).await.unwrap_err();
        assert!(error.to_string().contains("default route already, by net0"), "{error}");
        assert_eq!(way_out(&pod).await, "net0");
        // The other family's way out is nobody's.
        veth::create(&netlink, &pod, &pod_link("c1", &["fd00:1::5"])).await.unwrap();
    });
}

#[test]
#[ignore = "cargo xtask test lab"]
fn what_is_no_pod_namespace_is_refused() {
    on_a_node(async |_netlink| {
        let gone = PodNamespace::open("/run/netns/sinew-no-such-thing".as_ref()).unwrap_err();
        assert!(matches!(gone, NamespaceError::Gone { .. }), "{gone}");
        let file = PodNamespace::open("/etc/passwd".as_ref()).unwrap_err();
        assert!(matches!(file, NamespaceError::NotANamespace(_)), "{file}");
        let own = PodNamespace::open("/proc/thread-self/ns/net".as_ref()).unwrap_err();
        assert!(matches!(own, NamespaceError::Own(_)), "{own}");
        // A namespace of another type is found out when it is entered.
        let mount = PodNamespace::open("/proc/self/ns/mnt".as_ref()).unwrap();
        let error = mount.visit(async |_inside| Ok(())).await.unwrap_err();
        assert!(matches!(error, NetlinkError::Namespace(NamespaceError::NotANamespace(_))), "{error}");
    });
}

#[test]
#[ignore = "cargo xtask test lab"]
fn routes_to_other_nodes_follow_what_is_wanted() {
    on_a_node(async |netlink| {
        // Without any IPv4 address the kernel takes every gateway for a broadcast address.
        let loopback = netlink.require_link("lo").await.unwrap();
        netlink.set_up(&loopback).await.unwrap();
        let mac = node::overlay_mac("default", "a");
        let mut wanted = Overlay { port: 8472, mtu: 1500, mac, v6: true, index: None };
        let (overlay, made) = node::ensure_overlay(&netlink, &wanted).await.unwrap();
        assert!(made);
        assert_eq!(overlay.mac, mac.0);
        assert!(!overlay.up, "no packet passes before programs are attached");
        netlink.set_up(&overlay).await.unwrap();
        let again = node::ensure_overlay(&netlink, &wanted).await.unwrap();
        assert_eq!(again, (Link { up: true, ..overlay.clone() }, false), "a device that is right is kept");
        wanted.port = 4789;
        let (moved, _) = node::ensure_overlay(&netlink, &wanted).await.unwrap();
        assert_ne!(moved.index, overlay.index, "another port needs another device");
        netlink.set_up(&moved).await.unwrap();

        let peer: Mac = node::overlay_mac("default", "b");
        let route = |destination: &str, gateway: IpAddr| Route {
            destination: destination.parse().unwrap(),
            gateway: Some(gateway),
            interface: moved.index,
            source: None,
            mtu: Some(1450),
        };
        let v4 = route("10.2.0.0/24", "192.0.2.2".parse().unwrap());
        let v6 = route("fd00:2::/64", peer.link_local().into());
        let sync = async |wanted: &[Route]| -> RouteChanges {
            let present = netlink.routes(RouteFilter::Ours).await.unwrap();
            sync_node_routes(&netlink, &present, &[moved.index], wanted).await
        };
        let changes = sync(&[v4.clone(), v6.clone()]).await;
        assert_eq!(changes.written, vec![v4.destination, v6.destination], "{changes:?}");
        assert!(changes.refused.is_empty(), "{changes:?}");
        let changes = sync(&[v4.clone(), v6.clone()]).await;
        assert_eq!(changes, Default::default(), "what is right is not written again");
        let changes = sync(std::slice::from_ref(&v4)).await;
        assert_eq!(changes.removed, vec![v6.destination], "a node that left takes its route along");
        // One that the kernel refuses does not keep the others from being written.
        let lost = Route { interface: 9999, ..v6.clone() };
        let changes = sync(&[lost, Route { mtu: Some(1400), ..v4.clone() }]).await;
        assert_eq!(changes.written, vec![v4.destination], "{changes:?}");
        assert_eq!(changes.refused.len(), 1, "{changes:?}");
        assert!(changes.refused[0].1.contains("write the route to fd00:2::/64"), "{changes:?}");
        netlink.set_neighbour(moved.index, "192.0.2.2".parse().unwrap(), peer).await.unwrap();
    });
}

/// Runs `ip` or `tc` in the thread's namespace.
fn run(words: &str) {
    let mut words = words.split_whitespace();
    let output = std::process::Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
#[ignore = "cargo xtask test lab"]
fn the_overlay_is_mended_in_place_and_made_again_with_its_index() {
    on_a_node(async |netlink| {
        let mac = node::overlay_mac("default", "a");
        let mut wanted = Overlay { port: 8472, mtu: 1450, mac, v6: true, index: None };
        let (first, _) = node::ensure_overlay(&netlink, &wanted).await.unwrap();
        netlink.set_up(&first).await.unwrap();
        (wanted.mtu, wanted.mac) = (1400, node::overlay_mac("default", "b"));
        let (mended, made) = node::ensure_overlay(&netlink, &wanted).await.unwrap();
        let found = netlink.require_link(node::OVERLAY_LINK).await.unwrap();
        assert_eq!((found.index, found.up, made), (first.index, true, false), "the same device, never down");
        assert_eq!((found.mtu, &found.mac), (1400, &wanted.mac.0.to_vec()));
        assert_eq!(found, Link { up: true, ..mended });

        run("ip link del sinew_vxlan");
        // Another link would get the next free index.
        run("ip link add other type veth peer name far");
        wanted.index = Some(first.index);
        let (again, made) = node::ensure_overlay(&netlink, &wanted).await.unwrap();
        assert_eq!((again.index, again.up, made), (first.index, false, true), "programs know the index");
    });
}

#[test]
#[ignore = "cargo xtask test lab"]
fn a_port_of_a_bond_is_no_underlay() {
    on_a_node(async |netlink| {
        let bond = std::process::Command::new("ip").args(["link", "add", "bond7", "type", "bond"]).output();
        let bond = bond.unwrap();
        if !bond.status.success() {
            let why = String::from_utf8_lossy(&bond.stderr);
            // Past libtest, which shows only what failing tests print; the test runner counts this line.
            let line =
                format!("\nskipped: a_port_of_a_bond_is_no_underlay: no bond can be made: {}\n", why.trim());
            std::io::Write::write_all(&mut std::io::stdout(), line.as_bytes()).unwrap();
            return;
        }
        run("ip link add uplink type veth peer name far");
        let kind = async |name: &str| netlink.require_link(name).await.unwrap().kind;
        run("ip link set uplink master bond7");
        assert_eq!(kind("uplink").await, LinkKind::Port);
        assert_eq!(kind("bond7").await, LinkKind::Ethernet);
    });
}

#[test]
#[ignore = "cargo xtask test lab"]
fn a_device_without_ethernet_is_no_underlay() {
    on_a_node(async |netlink| {
        run("ip link add uplink type veth peer name far");
        run("ip tuntap add dev naked mode tun");
        let kind = async |name: &str| netlink.require_link(name).await.unwrap().kind;
        assert_eq!(kind("uplink").await, LinkKind::Ethernet);
        assert_eq!(kind("naked").await, LinkKind::Other);
        for kind in [LinkKind::Port, LinkKind::Other] {
            assert!(kind.unfit().unwrap().contains("--underlay"));
        }
    });
}

/// Nothing on this side looks at what the kernel sends: without its strict check all of these routes would come.
#[test]
#[ignore = "cargo xtask test lab"]
fn routes_that_are_not_asked_for_stay_in_the_kernel() {
    on_a_node(async |netlink| {
        assert_eq!(netlink.routes(RouteFilter::Ours).await.unwrap(), [], "no table has been made yet");
        for link in ["uplink", "other"] {
            run(&format!("ip link add {link} type veth peer name far-{link}"));
            run(&format!("ip link set far-{link} up"));
            run(&format!("ip link set {link} up"));
        }
        run("ip addr add 192.0.2.1/24 dev uplink");
        for (family, range) in [("-4", "10.2.0.0/24"), ("-6", "fd00:2::/64")] {
            run(&format!("ip {family} route add {range} dev uplink proto 83"));
            // Another table of ours, another kind of ours, another's.
            run(&format!("ip {family} route add {range} dev uplink proto 83 table 7"));
            run(&format!("ip {family} route add {range} dev other proto 84 metric 7"));
        }
        run("ip -4 route add unreachable 10.3.0.0/24 proto 83");
        run("ip -6 route add unreachable fd00:3::/64 proto 83");
        let destinations = async |which: RouteFilter| -> Vec<String> {
            let routes = netlink.routes(which).await.unwrap();
            routes.iter().map(|route| route.destination.to_string()).collect()
        };
        assert_eq!(destinations(RouteFilter::Ours).await, ["10.2.0.0/24", "fd00:2::/64"]);
        let other = netlink.require_link("other").await.unwrap();
        let through = destinations(RouteFilter::Through(other.index)).await;
        let asked: Vec<&String> = through.iter().filter(|range| !range.starts_with("fe80:")).collect();
        assert_eq!(asked, ["10.2.0.0/24", "fd00:2::/64"], "{through:?}");
        let all = destinations(RouteFilter::All).await;
        assert_eq!(all.iter().filter(|range| *range == "10.2.0.0/24").count(), 2, "{all:?}");
        assert!(
            all.contains(&"192.0.2.0/24".to_owned()) && !all.contains(&"10.3.0.0/24".to_owned()),
            "{all:?}"
        );
    });
}

/// What `ip route get` says, or why there is no way.
fn way_to(address: &str) -> String {
    let output = std::process::Command::new("ip").args(["route", "get", address]).output().unwrap();
    let said = if output.status.success() { output.stdout } else { output.stderr };
    String::from_utf8(said).unwrap()
}

#[test]
#[ignore = "cargo xtask test lab"]
fn an_address_that_no_pod_has_is_unreachable() {
    on_a_node(async |netlink| {
        run("ip link set lo up");
        run("ip link add uplink type veth peer name far");
        run("ip link set far up");
        run("ip link set uplink up");
        run("ip addr add 192.0.2.1/24 dev uplink");
        run("ip addr add 2001:db8::1/64 dev uplink nodad");
        run("ip route add default via 192.0.2.254");
        run("ip route add default via 2001:db8::fe");
        // Somebody else's, which stay.
        run("ip -4 route add unreachable 10.9.0.0/24");
        run("ip -6 route add unreachable fd00:9::/64 proto 84");
        let ranges = ["10.1.0.0/24", "fd00:1::/64"].map(|range| range.parse::<ipnet::IpNet>().unwrap());
        for address in ["10.1.0.9", "fd00:1::9"] {
            assert!(way_to(address).contains("dev uplink"), "the loop: {}", way_to(address));
        }
        let changes = sync_unreachable(&netlink, &ranges).await.unwrap();
        assert_eq!(
            (changes.written.as_slice(), changes.removed.len()),
            (ranges.as_slice(), 0),
            "{changes:?}"
        );
        let again = sync_unreachable(&netlink, &ranges).await.unwrap();
        assert_eq!(again, RouteChanges::default(), "what is right is not written again");

        let (_file, path) = pod_namespace();
        let pod = PodNamespace::open(&path).unwrap();
        let wanted = PodLink {
            node_addresses: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
            ..pod_link("c1", &["10.1.0.5", "fd00:1::5"])
        };
        let host = veth::create(&netlink, &pod, &wanted).await.unwrap();
        veth::open_host_side(&netlink, &host, &wanted).await.unwrap();
        for (pod, nobody, source) in
            [("10.1.0.5", "10.1.0.9", "192.0.2.1"), ("fd00:1::5", "fd00:1::9", "2001:db8::1")]
        {
            let way = way_to(pod);
            assert!(way.contains(&host.name) && way.contains(&format!("src {source} ")), "{way}");
            assert!(way_to(nobody).contains("No route to host"), "{}", way_to(nobody));
        }
        for outside in ["198.51.100.1", "2001:db8:1::1"] {
            assert!(way_to(outside).contains("dev uplink"), "{}", way_to(outside));
        }
        // A former network's bridge has the same range: its route goes before.
        run("ip link add cni0 type veth peer name far-cni0");
        run("ip link set far-cni0 up");
        run("ip link set cni0 up");
        run("ip addr add 10.1.0.1/24 dev cni0");
        assert!(way_to("10.1.0.9").contains("dev cni0"), "{}", way_to("10.1.0.9"));
        run("ip link del cni0");

        // Another range, and none.
        let other = ["10.2.0.0/24".parse::<ipnet::IpNet>().unwrap()];
        let changes = sync_unreachable(&netlink, &other).await.unwrap();
        assert_eq!((changes.written.as_slice(), changes.removed.len()), (other.as_slice(), 2), "{changes:?}");
        assert_eq!(sync_unreachable(&netlink, &[]).await.unwrap().removed, other);
        for address in ["10.1.0.9", "10.2.0.9", "fd00:1::9"] {
            assert!(way_to(address).contains("dev uplink"), "{}", way_to(address));
        }
        for kept in ["10.9.0.1", "fd00:9::1"] {
            assert!(!way_to(kept).contains("dev uplink"), "{}", way_to(kept));
        }
    });
}

#[test]
#[ignore = "cargo xtask test lab"]
fn queues_of_others_and_lost_routes_are_noticed() {
    on_a_node(async |netlink| {
        run("ip link add uplink type veth peer name far");
        run("ip link set far up");
        run("ip link set uplink up");
        let link = netlink.require_link("uplink").await.unwrap();
        assert_eq!(netlink.queues().await.unwrap(), Default::default(), "the kernel's own don't count");
        let mut watch = LinkWatch::open().unwrap();
        let mut next =
            async || tokio::time::timeout(std::time::Duration::from_secs(5), watch.next()).await.unwrap();
        run("tc qdisc add dev uplink root tbf rate 1mbit burst 10kb latency 50ms");
        while next().await != Some(LinkEvent::Queues) {}
        assert!(netlink.queues().await.unwrap().contains(&link.index));
        run("tc qdisc del dev uplink root");
        while next().await != Some(LinkEvent::Queues) {}
        assert_eq!(netlink.queues().await.unwrap(), Default::default());
        run("tc qdisc add dev uplink ingress");
        while next().await != Some(LinkEvent::Queues) {}
        assert!(netlink.queues().await.unwrap().contains(&link.index));
        run("tc qdisc del dev uplink ingress");
        while next().await != Some(LinkEvent::Queues) {}
        assert_eq!(netlink.queues().await.unwrap(), Default::default());

        run("ip addr add 192.0.2.1/24 dev uplink");
        let own = netlink.node_addresses().await.unwrap();
        assert!(own.contains(&"192.0.2.255".parse().unwrap()), "{own:?}");
        run("ip route add 10.2.0.0/24 via 192.0.2.2 proto 83");
        run("ip route flush proto 83");
        while next().await != Some(LinkEvent::RouteGone) {}
    });
}
