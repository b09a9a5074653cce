//! Settings under /proc/sys/net. The kernel resolves that folder by the network namespace of the calling thread.

use std::fs;
use std::path::PathBuf;

use super::NetlinkError;

/// The families that have settings for each interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `net.ipv4.conf.<interface>`.
    V4,
    /// `net.ipv6.conf.<interface>`.
    V6,
}

impl Family {
    fn folder(self) -> &'static str {
        match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        }
    }
}

/// Whether the namespace has IPv6 at all: a kernel started with `ipv6.disable=1` lacks the folder.
#[must_use]
pub fn has_v6() -> bool {
    fs::exists("/proc/sys/net/ipv6/conf").unwrap_or(false)
}

/// Sets `net.<family>.conf.<interface>.<key>`; `interface` may be `all` or `default`.
///
/// # Errors
/// [`NetlinkError::Sysctl`].
pub fn set(family: Family, interface: &str, key: &str, value: &str) -> Result<(), NetlinkError> {
    // Most settings are right after the first pod; a read costs less than the kernel's work on a write.
    if get(family, interface, key).is_some_and(|present| present == value) {
        return Ok(());
    }
    fs::write(path(family, interface, key), value).map_err(|source| NetlinkError::Sysctl {
        name: format!("net.{}.conf.{interface}.{key}", family.folder()),
        value: value.into(),
        source,
    })
}

/// The value of `net.<family>.conf.<interface>.<key>`, if there is such a setting.
#[must_use]
pub fn get(family: Family, interface: &str, key: &str) -> Option<String> {
    fs::read_to_string(path(family, interface, key)).ok().map(|text| text.trim().to_owned())
}

/// The interfaces that have settings of a family; none where that can't be listed.
#[must_use]
pub fn interfaces(family: Family) -> Vec<String> {
    let folder: PathBuf = ["/proc/sys/net", family.folder(), "conf"].iter().collect();
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| name != "all" && name != "default").collect()
}

fn path(family: Family, interface: &str, key: &str) -> PathBuf {
    // An interface name may hold dots, which are part of the file name here, and never a slash.
    ["/proc/sys/net", family.folder(), "conf", interface, key].iter().collect()
}
