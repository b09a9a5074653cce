//! What the underlay's devices are good for: the MTU that follows from them, and why pods can't be served over them.
//!
//! The same at start and under way: an agent comes up over a device that is no good, since the pods of its node run on
//! without one, says so, and refuses new pods until the device is mended or another one is named.
//!
//! Neighbours: [`mod@super::start`] and [`super::network`] look.

use super::Mtu;
use crate::config::Config;
use crate::netlink::{Link, Netlink, NetlinkError, node};

/// MTU of a device that is not there yet: Ethernet's.
const DEFAULT_MTU: u32 = 1500;
/// The smallest MTU that IPv6 works over (RFC 8200 §5); the kernel takes addresses away from a link with less.
const LEAST_V6: u32 = 1280;
/// The same of IPv4 (RFC 791 §3.1), and of any device in the kernel (`ETH_MIN_MTU`).
const LEAST_V4: u32 = 68;

/// The underlay as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Underlay {
    /// The smallest MTU of its devices, where it serves, or the smallest that would; none while no fit device is there.
    pub(super) mtu: Option<u32>,
    /// Why pods can't be served over it.
    pub(super) unfit: Option<String>,
}

/// Looks at the underlay's devices that are there.
pub(super) async fn look(netlink: &Netlink, config: &Config) -> Result<Underlay, NetlinkError> {
    let mut links = Vec::new();
    for name in &config.node.underlay {
        links.extend(netlink.link(name).await?);
    }
    Ok(judge(&links, &Needs::of(config)))
}

/// The MTUs over an underlay of this one.
pub(super) fn mtu_over(device: Option<u32>, config: &Config) -> Mtu {
    let device = device.unwrap_or(DEFAULT_MTU);
    Mtu { device, path: node::path_mtu(device, config.overlay(), &config.node.node_ips) }
}

/// What pods need of the underlay.
struct Needs {
    /// Bytes that a path has to take.
    path: u32,
    /// Bytes that the overlay adds.
    overhead: u32,
}

impl Needs {
    fn of(config: &Config) -> Self {
        Self {
            path: if config.v6() { LEAST_V6 } else { LEAST_V4 },
            overhead: if config.overlay() { node::overlay_overhead(&config.node.node_ips) } else { 0 },
        }
    }
}

fn judge(links: &[Link], needs: &Needs) -> Underlay {
    let least = needs.path + needs.overhead;
    let mut unfit = Vec::new();
    let mut smallest: Option<&Link> = None;
    for link in links {
        if let Some(why) = link.kind.unfit() {
            unfit.push(format!("interface {} {why}", link.name));
        } else if smallest.is_none_or(|other| link.mtu < other.mtu) {
            smallest = Some(link);
        }
    }
    if let Some(link) = smallest.filter(|link| link.mtu < least) {
        let overlay = match needs.overhead {
            0 => String::new(),
            bytes => format!(" ({} and {bytes} of the overlay)", needs.path),
        };
        unfit.push(format!(
            "interface {} has the MTU {}, and pods need {least}{overlay}: raise it",
            link.name, link.mtu
        ));
    }
    Underlay {
        mtu: smallest.map(|link| link.mtu.max(least)),
        unfit: (!unfit.is_empty()).then(|| unfit.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::LinkKind;

    const V6_OVERLAY: Needs = Needs { path: LEAST_V6, overhead: 70 };
    const V4_NATIVE: Needs = Needs { path: LEAST_V4, overhead: 0 };

    fn link(name: &str, mtu: u32, kind: LinkKind) -> Link {
        Link { index: 2, name: name.into(), mac: Vec::new(), mtu, up: true, kind }
    }

    #[test]
    fn the_smallest_device_counts() {
        let links = [link("eth0", 1500, LinkKind::Ethernet), link("eth1", 1400, LinkKind::Ethernet)];
        let found = judge(&links, &V6_OVERLAY);
        assert_eq!(found, Underlay { mtu: Some(1400), unfit: None });
        assert_eq!(judge(&[], &V6_OVERLAY), Underlay::default(), "a device that is to come is no trouble");
    }

    #[test]
    fn a_device_of_the_wrong_kind_is_named_and_does_not_count() {
        let links = [link("eth0", 1500, LinkKind::Ethernet), link("tun0", 100, LinkKind::Other)];
        let found = judge(&links, &V6_OVERLAY);
        assert_eq!(found.mtu, Some(1500));
        let unfit = found.unfit.unwrap();
        assert!(unfit.contains("tun0") && !unfit.contains("eth0"), "{unfit}");
        assert_eq!(judge(&links[1..], &V6_OVERLAY).mtu, None);
    }

    #[test]
    fn an_mtu_that_pods_cannot_live_with_is_named_with_what_they_need() {
        let small = |mtu, needs| judge(&[link("eth0", mtu, LinkKind::Ethernet)], needs);
        assert_eq!(small(1350, &V6_OVERLAY), Underlay { mtu: Some(1350), unfit: None });
        let found = small(1349, &V6_OVERLAY);
        assert_eq!(found.mtu, Some(1350), "what pods have stays such that IPv6 works on their links");
        let unfit = found.unfit.unwrap();
        for part in ["eth0", "1349", "1350 (1280 and 70 of the overlay)"] {
            assert!(unfit.contains(part), "{part}: {unfit}");
        }
        assert_eq!(small(1000, &V4_NATIVE), Underlay { mtu: Some(1000), unfit: None });
    }
}
