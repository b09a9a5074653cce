//! A network namespace of the test's own with the interfaces of a [`World`], by their numbers, and its routes, so that
//! the kernel's routing answers what the world says.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CloneFlags, unshare};
use sinew_bpf::abi::Address;
use sinew_bpf::host::world::{API, Family, NODE, OVERLAY, Pod, ROUTER, UNDERLAY, UNDERLAY_MAC, WEB, World};
use sinew_bpf::packet::Route;

/// The namespace that this thread has entered. It goes with the thread.
pub(crate) struct Namespace {
    routes: BTreeMap<Address, (Route, Option<u16>)>,
}

impl Namespace {
    /// Makes it, and enters it with this thread.
    pub(crate) fn enter() -> Result<Self> {
        unshare(CloneFlags::CLONE_NEWNET).context("a network namespace needs root")?;
        for path in ["ipv4/conf/all/forwarding", "ipv6/conf/all/forwarding", "ipv6/conf/default/forwarding"] {
            let path = format!("/proc/sys/net/{path}");
            fs::write(&path, "1").with_context(|| format!("cannot write {path}"))?;
        }
        let mut lines = String::from("link set lo up\n");
        for (name, index) in
            [("web", WEB.ifindex), ("api", API.ifindex), ("wire", UNDERLAY), ("vxlan", OVERLAY)]
        {
            writeln!(lines, "link add {name} index {index} type veth peer name {name}-end")?;
            let mac = text_of(mac_of(index));
            writeln!(lines, "link set {name} address {mac}\nlink set {name} up\nlink set {name}-end up")?;
        }
        writeln!(lines, "addr add {}/32 dev wire\naddr add {}/128 dev wire nodad", NODE.v4, NODE.v6)?;
        // On the wire by routes, so that the prefix brings no broadcast or anycast address of its own.
        for router in [ROUTER.ip(Family::V4), ROUTER.ip(Family::V6)] {
            writeln!(lines, "route add {router} dev wire\nroute add default via {router} dev wire")?;
        }
        ip(&lines)?;
        Ok(Self { routes: BTreeMap::new() })
    }

    /// Leads what the node itself sends to a pod out of the host side of its pair, which nobody answers.
    pub(crate) fn lead_to(&self, pod: &Pod, device: &str) -> Result<()> {
        let mut lines = String::new();
        for family in Family::BOTH {
            let (address, mac) = (pod.place.ip(family), text_of(pod.mac));
            writeln!(lines, "route add {address} dev {device}")?;
            writeln!(lines, "neigh replace {address} lladdr {mac} dev {device} nud permanent")?;
        }
        ip(&lines)
    }

    /// Makes the routes those of a world.
    pub(crate) fn route(&mut self, world: &World) -> Result<()> {
        let mut lines = String::new();
        // Neighbours first: a gateway must be one.
        let is_far = |(address, route): &(&Address, &Route)| !matches!(route, Route::Forward { next_hop, .. } if next_hop == *address);
        let mut routes: Vec<(&Address, &Route)> = world.routes.iter().collect();
        routes.sort_by_key(is_far);
        for (address, route) in routes {
            let wanted = (*route, world.mtus.get(address).copied());
            if self.routes.insert(*address, wanted) == Some(wanted) {
                continue;
            }
            let address = IpAddr::from(*address);
            if address.is_loopback() || [Family::V4, Family::V6].iter().any(|f| NODE.ip(*f) == address) {
                ensure!(matches!(route, Route::Local), "{address} is local, whatever a world says");
                continue;
            }
            match route {
                Route::Forward { ifindex, next_hop } => {
                    ensure!(*ifindex == UNDERLAY, "routes lead to the wire");
                    let next_hop = IpAddr::from(*next_hop);
                    let via = if next_hop == address { String::new() } else { format!("via {next_hop} ") };
                    let mtu = wanted.1.map_or(String::new(), |mtu| format!(" mtu lock {mtu}"));
                    writeln!(lines, "route replace {address} {via}dev wire{mtu}")?;
                }
                Route::Local => writeln!(lines, "route replace local {address} dev lo")?,
                Route::None => writeln!(lines, "route replace unreachable {address}")?,
                Route::TooBig => bail!("{address}: the kernel is told an MTU, not that a packet is too big"),
            }
        }
        // What only an earlier world had is as everything else that is not named: behind the router.
        let gone: Vec<Address> =
            self.routes.keys().filter(|address| !world.routes.contains_key(address)).copied().collect();
        for address in gone {
            self.routes.remove(&address);
            let address = IpAddr::from(address);
            if !address.is_loopback() {
                writeln!(lines, "route del {address}")?;
            }
        }
        if lines.is_empty() { Ok(()) } else { ip(&lines) }
    }
}

/// The MAC of a device: frames to another one are not for this node.
pub(crate) fn mac_of(index: u32) -> [u8; 6] {
    match index {
        index if index == WEB.ifindex => WEB.host_mac,
        index if index == API.ifindex => API.host_mac,
        _ => UNDERLAY_MAC,
    }
}

fn text_of(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Runs lines of `ip` in this thread's namespace.
fn ip(lines: &str) -> Result<()> {
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start ip")?;
    child.stdin.take().context("no way to ip")?.write_all(lines.as_bytes()).context("ip does not listen")?;
    let answer = child.wait_with_output().context("ip did not end")?;
    ensure!(answer.status.success(), "ip: {}\nof\n{lines}", String::from_utf8_lossy(&answer.stderr));
    Ok(())
}
