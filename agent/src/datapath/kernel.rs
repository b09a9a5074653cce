//! What programs must know of the running kernel: offsets in its structs, the names of its drop reasons, and which network
//! namespace is the node's.
//!
//! The reasons' numbers change from release to release, and struct layouts with every build option, so both are read from
//! the kernel's type information (`types.rs`). The tracepoint's format file has the reasons too, but tracefs is often not
//! mounted.

mod types;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::time::{SystemTime, UNIX_EPOCH};

use sinew_bpf::kernel_drop::Places;
use sinew_bpf::settings::{PENDING_BYTES, PendingPlaces};

use types::Types;

/// Where the kernel shows its types.
const KERNEL_TYPES: &str = "/sys/kernel/btf/vmlinux";
/// Begin the names of the values of `enum skb_drop_reason`; what is told is the rest, as the tracepoint prints it.
const PREFIXES: [&str; 2] = ["SKB_DROP_REASON_", "SKB_"];
/// Bytes of a tc program's part of the control block before the note, which begins at `cb[2]`.
const BEFORE_NOTE: u32 = 8;

/// Where a kernel says that it is locked down, and how far: beyond integrity no program reads its memory.
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";

/// The running kernel.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    /// What the program at the tracepoint is loaded with; why there is no use in it.
    pub(super) places: Result<Places, String>,
    /// What `from_pod` is loaded with; why that can't look at checksums.
    pub(super) pending: Result<PendingPlaces, String>,
    /// The kernel's names of its reasons.
    pub(super) reasons: BTreeMap<u32, String>,
}

impl Kernel {
    /// The one that this runs on. Walking its hundred thousand types takes some milliseconds, once a start.
    pub(super) fn running() -> Self {
        if fs::read_to_string(LOCKDOWN).is_ok_and(|modes| modes.contains("[confidentiality]")) {
            return Self::unknown(format!("the kernel is locked down ({LOCKDOWN}: confidentiality)"));
        }
        let read = fs::read(KERNEL_TYPES).map_err(|error| format!("reading {KERNEL_TYPES}: {error}"));
        let netns = netns_cookie().map_err(|error| format!("asking for the network namespace: {error}"));
        match read {
            Ok(types) => Self::told(&types, netns),
            Err(why) => Self::unknown(why),
        }
    }

    /// The namespace is for the program at the tracepoint alone.
    fn told(types: &[u8], netns: Result<u64, String>) -> Self {
        let Some(types) = Types::parse(types) else {
            return Self::unknown(format!("{KERNEL_TYPES} holds no types that this agent can read"));
        };
        let reasons: BTreeMap<u32, String> = types
            .enumerators("skb_drop_reason")
            .unwrap_or_default()
            .into_iter()
            .map(|(name, number)| (number, without_prefix(&name)))
            .collect();
        let places = netns.and_then(|netns| places(&types, &reasons, netns));
        Self { places, pending: pending(&types), reasons }
    }

    fn unknown(why: String) -> Self {
        Self { places: Err(why.clone()), pending: Err(why), reasons: BTreeMap::new() }
    }
}

/// The bit at which a member begins.
fn bit(types: &Types<'_>, of: &str, member: &str) -> Result<u32, String> {
    types.member_bit(of, member).ok_or_else(|| format!("the kernel tells of no {of}.{member}"))
}

fn pending(types: &Types<'_>) -> Result<PendingPlaces, String> {
    let bit = |member: &str| bit(types, "sk_buff", member);
    let (summed, start, offset, link) =
        (bit("ip_summed")?, bit("csum_start")? / 8, bit("csum_offset")? / 8, bit("mac_header")? / 8);
    let from = (summed / 8).min(start).min(link);
    let end = (summed / 8 + 1).max(offset + 2).max(link + 2);
    if offset != start + 2 || end - from > PENDING_BYTES as u32 {
        return Err("the kernel keeps what it says of a packet's checksum too far apart".to_owned());
    }
    let within = |place: u32| (place - from) as u16;
    Ok(PendingPlaces {
        from: u16::try_from(from).map_err(|_| format!("sk_buff.csum_start is at byte {start}"))?,
        summed: within(summed / 8),
        summed_shift: (summed % 8) as u16,
        start: within(start),
        link: within(link),
    })
}

fn places(types: &Types<'_>, reasons: &BTreeMap<u32, String>, netns: u64) -> Result<Places, String> {
    let bit = |of: &str, member: &str| bit(types, of, member);
    let byte = |of: &str, member: &str| bit(of, member).map(|bit| bit / 8);
    let kind = bit("sk_buff", "pkt_type")?;
    let unspecified = reasons.iter().find(|(_, name)| *name == "NOT_SPECIFIED").map(|(number, _)| *number);
    Ok(Places {
        // No two loads on a node are of one nanosecond, and none has the 0 that a new map holds.
        load: SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_nanos() as u64),
        netns,
        mark: byte("sk_buff", "mark")?,
        note: byte("sk_buff", "cb")? + byte("qdisc_skb_cb", "data")? + BEFORE_NOTE,
        kind: kind / 8,
        kind_shift: kind % 8,
        device: byte("sk_buff", "dev")?,
        // A `possible_net_t`, which is a pointer to a `net`.
        device_netns: byte("net_device", "nd_net")?,
        netns_cookie: byte("net", "net_cookie")?,
        unspecified: unspecified.ok_or("the kernel gives no reasons for what it drops")?,
    })
}

/// Unlike the number of its inode, the cookie of a network namespace is never another one's.
fn netns_cookie() -> io::Result<u64> {
    let socket = UnixDatagram::unbound()?;
    let mut cookie = 0u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the socket is open, and the kernel writes no more than `length` bytes into `cookie`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

fn without_prefix(name: &str) -> String {
    PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name).to_owned()
}

#[cfg(test)]
mod tests {
    use super::types::made::Made;
    use super::*;

    /// A kernel with members nested as Linux 6.18 has them.
    fn kernel(reasons: &[(&str, u32)]) -> Made {
        let mut types = Made::new();
        types.enumeration("skb_drop_reason", reasons);
        let device = types.structure("", &[("next", 0, 0), ("dev", 128, 0)]);
        let queued = types.union("", &[("", 0, device), ("rbnode", 0, 0)]);
        let start = types.structure("", &[("csum_start", 0, 0), ("csum_offset", 16, 0)]);
        let sum = types.union("", &[("csum", 0, 0), ("", 0, start)]);
        let headers = types.bit_fields(
            "",
            &[
                ("cloned", 0, 1, 0),
                ("pkt_type", 13, 3, 0),
                ("ip_summed", 18, 2, 0),
                ("", 64, 0, sum),
                ("mark", 320, 0, 0),
                ("mac_header", 432, 0, 0),
            ],
        );
        let alias = types.alias("headers_t", headers);
        types.structure("sk_buff", &[("", 0, queued), ("cb", 320, 0), ("", 1024, alias)]);
        types.structure("qdisc_skb_cb", &[("pkt_len", 0, 0), ("data", 64, 0)]);
        types.structure("net_device", &[("priv_flags", 0, 0), ("nd_net", 2112, 0)]);
        types.structure("net", &[("passive", 0, 0), ("net_cookie", 256, 0)]);
        types
    }

    const REASONS: [(&str, u32); 3] =
        [("SKB_CONSUMED", 1), ("SKB_DROP_REASON_NOT_SPECIFIED", 2), ("SKB_DROP_REASON_NEIGH_FAILED", 38)];

    #[test]
    fn everything_is_found_where_the_kernel_has_it() {
        let kernel = Kernel::told(&kernel(&REASONS).bytes(), Ok(4097));
        let found = kernel.places.unwrap();
        let expected = Places {
            load: found.load,
            netns: 4097,
            mark: 168,
            note: 40 + 8 + 8,
            kind: 129,
            kind_shift: 5,
            device: 16,
            device_netns: 264,
            netns_cookie: 32,
            unspecified: 2,
        };
        assert_eq!(found, expected);
        assert_ne!(found.load, 0);
        let pending = kernel.pending.unwrap();
        assert_eq!(pending, PendingPlaces { from: 130, summed: 0, summed_shift: 2, start: 6, link: 52 });
        assert_eq!(kernel.reasons[&38], "NEIGH_FAILED");
        assert_eq!(kernel.reasons[&1], "CONSUMED");
    }

    #[test]
    fn what_is_not_found_is_named() {
        let places = Kernel::told(&kernel(&REASONS[..1]).bytes(), Ok(1)).places;
        assert_eq!(places.unwrap_err(), "the kernel gives no reasons for what it drops");
        let mut types = Made::new();
        types.enumeration("skb_drop_reason", &REASONS);
        let places = Kernel::told(&types.bytes(), Ok(1)).places;
        assert_eq!(places.unwrap_err(), "the kernel tells of no sk_buff.pkt_type");
        let places = Kernel::told(&[], Ok(1)).places;
        assert!(places.unwrap_err().starts_with(KERNEL_TYPES));
        let kernel = Kernel::told(&kernel(&REASONS).bytes(), Err("no cookie".into()));
        assert_eq!(kernel.places.unwrap_err(), "no cookie");
        assert!(kernel.pending.is_ok(), "checksums need no namespace");
    }

    #[test]
    fn a_network_namespace_has_one_cookie() {
        assert_eq!(netns_cookie().unwrap(), netns_cookie().unwrap());
    }
}
