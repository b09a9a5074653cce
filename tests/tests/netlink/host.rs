//! What the agent sets on the node's own devices, and what it leaves alone.

use std::net::IpAddr;

use sinew_agent::netlink::node::{self, Overlay};
use sinew_agent::netlink::route::{Route, RouteFilter};
use sinew_agent::netlink::source::sync_overlay_sources;

use crate::{on_a_node, run};

fn setting(path: &str) -> String {
    std::fs::read_to_string(format!("/proc/sys/net/{path}")).unwrap().trim().to_owned()
}

fn set(path: &str, value: &str) {
    std::fs::write(format!("/proc/sys/net/{path}"), value).unwrap();
}

#[test]
#[ignore = "cargo xtask test lab"]
fn forwarding_takes_nobodys_router_advertisements_away() {
    on_a_node(async |_netlink| {
        for link in ["uplink", "mgmt", "quiet", "router"] {
            run(&format!("ip link add {link} type veth peer name p-{link}"));
        }
        set("ipv6/conf/quiet/accept_ra", "0");
        set("ipv6/conf/router/forwarding", "1");
        let heard = |link: &str| setting(&format!("ipv6/conf/{link}/accept_ra"));
        assert!(node::enable_forwarding(&["uplink".into(), "late".into()], true).unwrap());
        assert_eq!([heard("uplink"), heard("mgmt")], ["2", "2"], "also where no underlay is");
        assert_eq!([heard("quiet"), heard("router")], ["0", "1"], "those that heard none go on hearing none");
        assert_eq!([setting("ipv4/ip_forward"), setting("ipv6/conf/mgmt/forwarding")], ["1", "1"]);
        assert!(!node::enable_forwarding(&["uplink".into()], true).unwrap(), "it forwards");

        run("ip link add late type veth peer name far-late");
        node::keep_advertisements("late").unwrap();
        assert_eq!(heard("late"), "2");
        node::keep_advertisements("gone").unwrap();

        for family in ["ipv4", "ipv6"] {
            set(&format!("{family}/conf/all/forwarding"), "0");
            assert!(node::enable_forwarding(&[], true).unwrap(), "{family}");
            assert_eq!(setting(&format!("{family}/conf/uplink/forwarding")), "1");
        }
        set("ipv6/conf/all/forwarding", "0");
        assert!(!node::enable_forwarding(&[], false).unwrap(), "IPv6 is not ours");
    });
}

#[test]
#[ignore = "cargo xtask test lab"]
fn the_overlay_has_no_address_of_the_kernels_making() {
    on_a_node(async |netlink| {
        set("ipv6/conf/default/disable_ipv6", "1");
        let mac = node::overlay_mac("default", "a");
        let mut wanted = Overlay { port: 8472, mtu: 1450, mac, v6: true, index: None };
        let (overlay, _) = node::ensure_overlay(&netlink, &wanted).await.unwrap();
        netlink.set_up(&overlay).await.unwrap();
        assert_eq!(setting("ipv6/conf/sinew_vxlan/disable_ipv6"), "0", "pods have IPv6");
        assert_eq!(netlink.addresses(overlay.index).await.unwrap(), [], "no link-local address");
        // Neither is one needed for a way to another node's pods.
        let peer = node::overlay_mac("default", "b");
        netlink.set_neighbour(overlay.index, peer.link_local().into(), peer).await.unwrap();
        let route = Route {
            destination: "fd00:2::/64".parse().unwrap(),
            gateway: Some(peer.link_local().into()),
            interface: overlay.index,
            source: None,
            mtu: Some(1450),
        };
        netlink.set_route(&route).await.unwrap();
        wanted.v6 = false;
        node::ensure_overlay(&netlink, &wanted).await.unwrap();
        assert_eq!(setting("ipv6/conf/sinew_vxlan/disable_ipv6"), "1", "nobody has IPv6");
    });
}

#[test]
#[ignore = "cargo xtask test lab"]
fn the_overlay_lends_the_nodes_address_to_masquerade() {
    on_a_node(async |netlink| {
        for link in ["mgmt", "uplink"] {
            run(&format!("ip link add {link} type veth peer name p-{link}"));
            run(&format!("ip link set {link} up"));
        }
        let mac = node::overlay_mac("default", "a");
        let wanted = Overlay { port: 8472, mtu: 1450, mac, v6: true, index: None };
        let (overlay, _) = node::ensure_overlay(&netlink, &wanted).await.unwrap();
        netlink.set_up(&overlay).await.unwrap();
        let own: Vec<IpAddr> = ["192.0.2.10", "2001:db8::10"].map(|text| text.parse().unwrap()).to_vec();
        let keep = async || sync_overlay_sources(&netlink, overlay.index, &own).await.unwrap();
        let lent = async || {
            let addresses = netlink.addresses(overlay.index).await.unwrap();
            let mut addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            let gateway = addresses.iter().position(|address| address == "169.254.1.1/32");
            addresses.remove(gateway.expect("loose rp_filter wants an address of the device"));
            addresses
        };
        run("ip addr add 192.0.2.10/24 dev uplink");
        run("ip addr add 2001:db8::10/64 dev uplink nodad");
        assert!(!keep().await, "the only one is taken anyway");
        run("ip addr add 10.0.2.15/24 dev mgmt");
        run("ip addr add 2001:db8:5::15/64 dev mgmt nodad");
        let before = netlink.node_addresses().await.unwrap();
        assert!(keep().await);
        assert_eq!(lent().await, ["192.0.2.10/32", "2001:db8::10/128"]);
        assert!(!keep().await, "once");
        assert_eq!(netlink.node_addresses().await.unwrap(), before, "what is the node's stays as it was");
        let routes = netlink.routes(RouteFilter::All).await.unwrap();
        assert!(
            routes.iter().all(|route| route.interface != overlay.index),
            "no route comes with it: {routes:?}"
        );

        // A device that has its address no more: the overlay's would keep it alive.
        run("ip addr del 192.0.2.10/24 dev uplink");
        assert!(!netlink.node_addresses().await.unwrap().contains(&own[0]));
        assert!(keep().await);
        assert_eq!(lent().await, ["2001:db8::10/128"]);
        run("ip addr flush dev mgmt");
        assert!(keep().await);
        assert_eq!(lent().await, [""; 0]);
    });
}

#[test]
#[ignore = "cargo xtask test lab"]
fn addresses_of_services_are_not_the_nodes() {
    on_a_node(async |netlink| {
        for (link, address) in [("kube-ipvs0", "10.96.0.1/32"), ("nodelocaldns", "169.254.20.10/32")] {
            run(&format!("ip link add {link} type veth peer name p-{link}"));
            run(&format!("ip addr add {address} dev {link}"));
        }
        let own: Vec<IpAddr> = netlink.node_addresses().await.unwrap();
        assert_eq!(own, ["169.254.20.10".parse::<IpAddr>().unwrap()]);
    });
}
