//! A pod's pair of interfaces: the host side `snw…` in the node's namespace, the other made in the pod's directly.
//!
//! The host side stays down until programs are attached to it: while it is down the pair has no carrier and carries
//! no packet (ARCHITECTURE.md, promise 1). So [`create`] makes both sides and configures the pod's, and [`open_host_side`]
//! is called last. Everything on the host side goes with the link, so that [`Netlink::delete_link`] leaves nothing.
//!
//! Names and hardware addresses follow from container id and interface name: whoever knows the attachment can find
//! or remove what an agent that was killed had begun.
//!
//! Neighbours: `crate::cni` is the caller; [`super::namespace`] enters the pod.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use netlink_packet_route::address::AddressScope;
use netlink_packet_route::link::{InfoData, InfoVeth, LinkAttribute};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth};

use super::address::{Mac, digest, gateway, host_prefix};
use super::namespace::PodNamespace;
use super::route::{Route, RouteFilter};
use super::sysctl::{self, Family};
use super::{Link, Netlink, NetlinkError, POD_LINK_PREFIX, refused};

/// Hex digits behind the prefix of a host side's name: with `snw` 14 of the 15 characters that a name may have.
pub const LINK_HASH_DIGITS: usize = 11;
/// The kernel takes some milliseconds. Longer than this no ADD waits for both ends of a pair.
const USABLE_WITHIN: Duration = Duration::from_secs(1);

/// What a pod's pair is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodLink {
    /// Name of the host side.
    pub host_name: String,
    /// Name inside the pod.
    pub pod_name: String,
    /// Hardware address of the host side.
    pub host_mac: Mac,
    /// Hardware address inside the pod.
    pub pod_mac: Mac,
    /// The pod's addresses, at most one a family.
    pub addresses: Vec<IpAddr>,
    /// MTU of both interfaces, bytes.
    pub device_mtu: u32,
    /// MTU of the pod's default routes, bytes.
    pub route_mtu: u32,
    /// Source addresses of the node for what it sends to the pod, at most one a family.
    pub node_addresses: Vec<IpAddr>,
    /// For people who read `ip link`: the pod's name.
    pub alias: String,
}

/// The name of an attachment's host side.
#[must_use]
pub fn host_link_name(container_id: &str, ifname: &str) -> String {
    use std::fmt::Write as _;
    let mut name = String::from(POD_LINK_PREFIX);
    for byte in &digest(&[container_id, ifname])[..LINK_HASH_DIGITS.div_ceil(2)] {
        write!(name, "{byte:02x}").expect("writing to a string cannot fail");
    }
    name.truncate(POD_LINK_PREFIX.len() + LINK_HASH_DIGITS);
    name
}

/// The hardware addresses of an attachment: host side, pod side.
#[must_use]
pub fn macs(container_id: &str, ifname: &str) -> (Mac, Mac) {
    (Mac::derive(&[container_id, ifname, "host"]), Mac::derive(&[container_id, ifname, "pod"]))
}

/// Makes the pair and configures the pod's side; the host side is left down. Returns the host side.
///
/// # Errors
/// Any [`NetlinkError`]; what was made before it is removed again.
pub async fn create(netlink: &Netlink, pod: &PodNamespace, wanted: &PodLink) -> Result<Link, NetlinkError> {
    add_pair(netlink, pod, wanted).await?;
    let outcome = configure(netlink, pod, wanted).await;
    if outcome.is_err()
        && let Err(error) = netlink.delete_link(&wanted.host_name).await
    {
        tracing::warn!(interface = wanted.host_name, %error, "an interface that could not be set up stays behind");
    }
    outcome
}

/// Brings the host side up and gives it gateway addresses, the pod's neighbour entries and its routes.
///
/// # Errors
/// Any [`NetlinkError`].
pub async fn open_host_side(netlink: &Netlink, host: &Link, wanted: &PodLink) -> Result<(), NetlinkError> {
    netlink.set_up(host).await?;
    for address in &wanted.addresses {
        let prefix = match gateway(*address) {
            IpAddr::V4(v4) => host_prefix(v4.into()),
            IpAddr::V6(v6) => ipnet::Ipv6Net::new_assert(v6, 64).into(),
        };
        // Scope link: the node must not choose the gateway's address as a source.
        netlink.add_address(host.index, prefix, AddressScope::Link).await?;
        netlink.set_neighbour(host.index, *address, wanted.pod_mac).await?;
        netlink.set_route(&host_route(host, *address, &wanted.node_addresses)).await?;
    }
    Ok(())
}

/// Waits until both ends can send and receive. What an end still lacks when time is up, one sentence each; empty if nothing.
/// Two work items of the kernel's see to it, late on busy processors (Linux 6.18):
///
/// - linkwatch handles the carrier; `RTM_GETLINK` has it done at once, but only for the link that is asked for. Until then
///   the pod's end, which was set up while the host's was down, keeps `noop_qdisc`, which drops everything silently: when
///   the host's end alone was asked for, a pod's packets were lost for up to a second after the ADD.
/// - `addrconf_dad_work` writes the local route of an IPv6 address, also of one without duplicate address detection
///   (`IFA_F_NODAD`), which is listed as usable from the start. Until then the pod's kernel takes answers to its questions
///   for nobody's. On the host's end only what a pod sends its gateway itself would be lost.
///
/// # Errors
/// Any [`NetlinkError`], also if the pod's namespace can't be entered or an interface is gone.
pub async fn wait_usable(
    netlink: &Netlink,
    pod: &PodNamespace,
    wanted: &PodLink,
) -> Result<Vec<String>, NetlinkError> {
    let until = Instant::now() + USABLE_WITHIN;
    let (name, addresses) = (wanted.pod_name.clone(), wanted.addresses.clone());
    let of_pod = pod.visit(async move |inside| wait_end(&inside, &name, &addresses, until).await).await?;
    let gateways: Vec<IpAddr> = wanted.addresses.iter().copied().map(gateway).collect();
    let of_node = wait_end(netlink, &wanted.host_name, &gateways, until).await?;
    let lacks = [("pod", of_pod), ("node", of_node)];
    Ok(lacks.into_iter().filter_map(|(whose, lack)| Some(format!("the {whose}'s end {}", lack?))).collect())
}

/// Waits for one end with its own addresses; what it lacks when time is up.
async fn wait_end(
    netlink: &Netlink,
    name: &str,
    addresses: &[IpAddr],
    until: Instant,
) -> Result<Option<String>, NetlinkError> {
    let index = netlink.require_link(name).await?.index;
    loop {
        let lack = lack_of(netlink, name, index, addresses).await?;
        if lack.is_none() || Instant::now() > until {
            return Ok(lack);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn lack_of(
    netlink: &Netlink,
    name: &str,
    index: u32,
    addresses: &[IpAddr],
) -> Result<Option<String>, NetlinkError> {
    if !netlink.is_operational(name).await? {
        return Ok(Some("has no carrier".into()));
    }
    for address in addresses {
        if !netlink.has_local_route(*address, index).await? {
            return Ok(Some(format!("takes no packets to {address} in")));
        }
    }
    Ok(None)
}

/// What differs between a pod's link and what it should be, one sentence each; empty if nothing does.
///
/// # Errors
/// Any [`NetlinkError`].
pub async fn check(
    netlink: &Netlink,
    pod: &PodNamespace,
    wanted: &PodLink,
) -> Result<Vec<String>, NetlinkError> {
    let mut differences = Vec::new();
    match netlink.link(&wanted.host_name).await? {
        None => differences.push(format!("there is no interface {} on the node", wanted.host_name)),
        Some(host) => {
            if !host.up {
                differences.push(format!("interface {} on the node is down", host.name));
            }
            let routes = netlink.routes(RouteFilter::Through(host.index)).await?;
            for address in &wanted.addresses {
                let prefix = host_prefix(*address);
                if !routes.iter().any(|route| route.destination == prefix) {
                    differences.push(format!("the node has no route to {address} through {}", host.name));
                }
            }
        }
    }
    let wanted = wanted.clone();
    differences.extend(pod.visit(async move |inside| check_inside(&inside, &wanted).await).await?);
    Ok(differences)
}

/// The MTU that a pod's interface has now.
///
/// # Errors
/// Any [`NetlinkError`].
pub async fn pod_mtu(pod: &PodNamespace, name: &str) -> Result<u32, NetlinkError> {
    let name = name.to_owned();
    pod.visit(async move |inside| Ok(inside.require_link(&name).await?.mtu)).await
}

async fn add_pair(netlink: &Netlink, pod: &PodNamespace, wanted: &PodLink) -> Result<(), NetlinkError> {
    let peer = LinkMessageBuilder::<LinkUnspec>::new()
        .name(wanted.pod_name.clone())
        .mtu(wanted.device_mtu)
        .address(wanted.pod_mac.0.to_vec())
        .setns_by_fd(pod.descriptor())
        .build();
    let pair = LinkMessageBuilder::<LinkVeth>::new(&wanted.host_name, &wanted.pod_name)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .mtu(wanted.device_mtu)
        .address(wanted.host_mac.0.to_vec())
        .append_extra_attribute(LinkAttribute::IfAlias(wanted.alias.clone()))
        .build();
    netlink.handle.link().add(pair).execute().await.map_err(|error| {
        refused(format!("make interface {} with {} in the pod", wanted.host_name, wanted.pod_name), error)
    })
}

async fn configure(netlink: &Netlink, pod: &PodNamespace, wanted: &PodLink) -> Result<Link, NetlinkError> {
    let host = netlink.require_link(&wanted.host_name).await?;
    // The kernel takes the greater of this and `all`: 2 is loose, which a source that another interface would be
    // used to answer needs.
    sysctl::set(Family::V4, &host.name, "rp_filter", "2")?;
    sysctl::set(Family::V4, &host.name, "forwarding", "1")?;
    if sysctl::has_v6() {
        // 1: no link-local address of the kernel's own beside the gateway's, and none that would solicit routers of a
        // pod that has no IPv6.
        sysctl::set(Family::V6, &host.name, "addr_gen_mode", "1")?;
        sysctl::set(Family::V6, &host.name, "accept_ra", "0")?;
    }
    if wanted.addresses.iter().any(IpAddr::is_ipv6) {
        sysctl::set(Family::V6, &host.name, "disable_ipv6", "0")?;
        sysctl::set(Family::V6, &host.name, "forwarding", "1")?;
    }
    let wanted = wanted.clone();
    pod.visit(async move |inside| configure_inside(&inside, &wanted).await).await?;
    Ok(host)
}

/// Sets up the pod's side, in the pod's namespace.
async fn configure_inside(inside: &Netlink, wanted: &PodLink) -> Result<(), NetlinkError> {
    let link = inside.require_link(&wanted.pod_name).await?;
    refuse_another_way_out(inside, wanted).await?;
    if wanted.addresses.iter().any(IpAddr::is_ipv6) {
        sysctl::set(Family::V6, &link.name, "disable_ipv6", "0")?;
        sysctl::set(Family::V6, &link.name, "accept_ra", "0")?;
        // The link-local address of the kernel's own would otherwise be tentative for a second.
        sysctl::set(Family::V6, &link.name, "accept_dad", "0")?;
    }
    if let Some(loopback) = inside.link("lo").await? {
        inside.set_up(&loopback).await?;
    }
    inside.set_up(&link).await?;
    for address in &wanted.addresses {
        inside.add_address(link.index, host_prefix(*address), AddressScope::Universe).await?;
        inside.set_neighbour(link.index, gateway(*address), wanted.host_mac).await?;
        for route in pod_routes(&link, *address, wanted.route_mtu) {
            inside.set_route(&route).await?;
        }
    }
    Ok(())
}

/// A default route that is there is another plugin's, or belongs to another interface of ours. With a second one, what
/// answers the first would leave by the wrong interface, whose programs drop it for its source (datapath.md 26).
async fn refuse_another_way_out(inside: &Netlink, wanted: &PodLink) -> Result<(), NetlinkError> {
    let is_ours_to_write = |route: &Route| {
        let range = route.destination;
        range.prefix_len() == 0
            && wanted.addresses.iter().any(|address| address.is_ipv4() == range.addr().is_ipv4())
    };
    let routes = inside.routes(RouteFilter::All).await?;
    let Some(other) = routes.iter().find(|route| is_ours_to_write(route)) else { return Ok(()) };
    let links = inside.links().await?;
    let name = links.into_iter().find(|link| link.index == other.interface).map(|link| link.name);
    Err(NetlinkError::OtherWayOut(name.unwrap_or_else(|| "several interfaces".into())))
}

async fn check_inside(inside: &Netlink, wanted: &PodLink) -> Result<Vec<String>, NetlinkError> {
    let Some(link) = inside.link(&wanted.pod_name).await? else {
        return Ok(vec![format!("there is no interface {} in the pod", wanted.pod_name)]);
    };
    let mut differences = Vec::new();
    if !link.up {
        differences.push(format!("interface {} in the pod is down", link.name));
    }
    if link.mac != wanted.pod_mac.0 {
        differences.push(format!("interface {} in the pod has another hardware address", link.name));
    }
    let addresses = inside.addresses(link.index).await?;
    let routes = inside.routes(RouteFilter::All).await?;
    for address in &wanted.addresses {
        if !addresses.contains(&host_prefix(*address)) {
            differences.push(format!("interface {} in the pod lacks address {address}", link.name));
        }
        let by_gateway = |route: &Route| {
            route.destination.prefix_len() == 0
                && route.gateway == Some(gateway(*address))
                && route.interface == link.index
        };
        if !routes.iter().any(by_gateway) {
            let gateway = gateway(*address);
            differences.push(format!("the pod has no default route through {gateway} by {}", link.name));
        }
    }
    Ok(differences)
}

fn host_route(host: &Link, address: IpAddr, node_addresses: &[IpAddr]) -> Route {
    let source = node_addresses.iter().find(|node| node.is_ipv4() == address.is_ipv4());
    Route {
        destination: host_prefix(address),
        gateway: None,
        interface: host.index,
        source: source.copied(),
        mtu: None,
    }
}

/// The pod's way out: the gateway is on the link although no prefix says so.
fn pod_routes(link: &Link, address: IpAddr, mtu: u32) -> [Route; 2] {
    let any = match address {
        IpAddr::V4(_) => ipnet::Ipv4Net::default().into(),
        IpAddr::V6(_) => ipnet::Ipv6Net::default().into(),
    };
    let to_gateway = Route {
        destination: host_prefix(gateway(address)),
        gateway: None,
        interface: link.index,
        source: None,
        mtu: Some(mtu),
    };
    let default = Route { destination: any, gateway: Some(gateway(address)), ..to_gateway.clone() };
    [to_gateway, default]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::is_pod_link;

    #[test]
    fn host_names_are_ours_and_fit() {
        let name = host_link_name("3f1c", "eth0");
        assert_eq!(name.len(), 14);
        assert!(is_pod_link(&name), "{name}");
        assert_ne!(name, host_link_name("3f1c", "eth1"));
        for other in ["snw", "snwxyz45678901", "snw0123456789", "eth0", "snw0123456789abc"] {
            assert!(!is_pod_link(other), "{other}");
        }
    }
}
