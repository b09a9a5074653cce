//! tcx links: pinned by interface name and program, and moved to new programs one by one (datapath.md 31).

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use aya::Ebpf;
use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions};
use aya::programs::{LinkOrder, ProgramError, SchedClassifier, TcAttachType};
use nix::net::if_::{if_indextoname, if_nametoindex};

use super::DatapathError;
use super::pins::{program, without_dots};

/// Prefix of a pin's name that is about to replace another pin. No interface has such a name, so a pin that a killed agent
/// left is swept.
const BESIDE: &str = "new-";

/// Links of this node's programs.
pub(super) struct Links {
    loaded: Ebpf,
    folder: PathBuf,
    /// Pins of links that run the loaded programs.
    moved: BTreeSet<String>,
}

impl Links {
    /// Takes the loaded programs. Links that are pinned are moved by [`Self::attach`], interface by interface.
    pub(super) fn open(loaded: Ebpf, folder: PathBuf) -> Result<Self, DatapathError> {
        Ok(Self { loaded, folder, moved: BTreeSet::new() })
    }

    /// Attaches a program to each side of an interface, first in the chain.
    pub(super) fn attach(&mut self, ifindex: u32, ingress: &str, egress: &str) -> Result<(), DatapathError> {
        let name = if_indextoname(ifindex)
            .map_err(|e| DatapathError::kernel(format!("looking for interface {ifindex}"), e))?
            .to_string_lossy()
            .into_owned();
        // What arrives is judged before what leaves can be answered.
        self.attach_one(&name, ingress, TcAttachType::Ingress)?;
        self.attach_one(&name, egress, TcAttachType::Egress)
    }

    fn attach_one(&mut self, interface: &str, name: &str, side: TcAttachType) -> Result<(), DatapathError> {
        let file = pin_name(name, interface);
        let pin = self.folder.join(&file);
        let program = program(&mut self.loaded, name)?;
        let refused = |what: &str, error: String| {
            DatapathError::kernel(format!("{what} {name} and {interface}"), error)
        };
        match PinnedLink::from_pin(&pin) {
            Ok(pinned) => match update(program, pinned) {
                Ok(()) => {
                    self.moved.insert(file);
                    return Ok(());
                }
                // The interface that this link was for is gone, and another one has its name.
                Err(error) if is_dead(&error) => {
                    remove(&pin).map_err(|e| refused("forgetting the link of", e.to_string()))?;
                }
                // The old program still judges there, and must until the new one does.
                Err(error) => {
                    tracing::warn!(interface, program = name, %error, "a link cannot be moved and is replaced");
                }
            },
            Err(LinkError::SyscallError(error)) if error.io_error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(refused("opening the link of", error.to_string())),
        }
        let link = program
            .attach_with_options(interface, side, TcAttachOptions::TcxOrder(LinkOrder::first()))
            .map_err(|e| refused("attaching", e.to_string()))?;
        let link: FdLink = program
            .take_link(link)
            .map_err(|e| refused("taking the link of", e.to_string()))?
            .try_into()
            .map_err(|e: LinkError| refused("reading the link of", e.to_string()))?;
        // Replaces an existing pin: without its pin the old link is detached, and this one is attached already.
        let beside = self.folder.join(format!("{BESIDE}{file}"));
        remove(&beside)
            .and_then(|()| link.pin(&beside).map_err(io::Error::other))
            .and_then(|_pinned| fs::rename(&beside, &pin))
            .map_err(|e| refused("pinning the link of", e.to_string()))?;
        self.moved.insert(file);
        Ok(())
    }

    /// Whether every pinned link leads to the programs that this agent loaded.
    pub(super) fn all_moved(&self) -> bool {
        let Ok(pinned) = fs::read_dir(&self.folder) else { return false };
        pinned
            .into_iter()
            .all(|entry| entry.is_ok_and(|entry| self.moved.contains(&*entry.file_name().to_string_lossy())))
    }

    /// Removes pins of interfaces that are gone.
    pub(super) fn sweep(&mut self) -> Vec<String> {
        let mut removed = Vec::new();
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let file = entry.file_name().to_string_lossy().into_owned();
            let Some(interface) = interface_of(&file) else { continue };
            if if_nametoindex(interface.as_str()).is_err() && remove(&entry.path()).is_ok() {
                self.moved.remove(&file);
                removed.push(file);
            }
        }
        removed
    }
}

/// bpffs refuses names with a dot, which VLAN devices have.
fn pin_name(program: &str, interface: &str) -> String {
    format!("{program}-{}", without_dots(interface))
}

fn interface_of(pin_name: &str) -> Option<String> {
    pin_name.split_once('-').map(|(_, interface)| interface.replace("%2e", "."))
}

fn update(program: &mut SchedClassifier, pinned: PinnedLink) -> io::Result<()> {
    let refused = |error: ProgramError| match error {
        ProgramError::SyscallError(error) => error.io_error,
        other => io::Error::other(other),
    };
    let link = SchedClassifierLink::try_from(FdLink::from(pinned)).map_err(io::Error::other)?;
    let id = program.attach_to_link(link).map_err(refused)?;
    // The pin keeps the link; this handle is not needed.
    program.take_link(id).map(drop).map_err(refused)
}

/// Whether a link's interface is gone (`tcx_link_update` in kernel/bpf/tcx.c), so that nothing depends on the link.
fn is_dead(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOLINK)
}

fn remove(pin: &Path) -> io::Result<()> {
    match fs::remove_file(pin) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_link_whose_interface_is_gone_is_given_up() {
        assert!(is_dead(&io::Error::from_raw_os_error(libc::ENOLINK)));
        for alive in [libc::EPERM, libc::ENOMEM, libc::EINTR, libc::EINVAL, libc::EMFILE, libc::ENOENT] {
            assert!(!is_dead(&io::Error::from_raw_os_error(alive)), "errno {alive}");
        }
        assert!(!is_dead(&io::Error::other("of aya, not of the kernel")));
    }

    #[test]
    fn a_pin_that_was_to_replace_another_names_no_interface() {
        let file = pin_name("from_net", "eth0.7");
        assert_eq!(file, "from_net-eth0%2e7");
        assert_eq!(interface_of(&file).unwrap(), "eth0.7");
        // IFNAMSIZ leaves 15 bytes for a name.
        assert!(
            interface_of(&format!("{BESIDE}{}", pin_name("to_pod", "snw0123456789a"))).unwrap().len() > 15
        );
        assert_eq!(interface_of(&format!("{BESIDE}{file}")).unwrap(), file.replace("%2e", "."));
    }
}
