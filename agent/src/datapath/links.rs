//! tcx links: pinned by interface name and program, and moved to new programs one by one (datapath.md 31).

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use aya::Ebpf;
use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions};
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};
use nix::net::if_::{if_indextoname, if_nametoindex};

use super::DatapathError;
use super::pins::program;

/// Links of this node's programs.
pub(super) struct Links {
    loaded: Ebpf,
    folder: PathBuf,
}

impl Links {
    /// Takes the loaded programs. Links that are pinned are moved by [`Self::attach`], interface by interface.
    pub(super) fn open(loaded: Ebpf, folder: PathBuf) -> Result<Self, DatapathError> {
        Ok(Self { loaded, folder })
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
        let pin = self.folder.join(pin_name(name, interface));
        let program = program(&mut self.loaded, name)?;
        let refused = |what: &str, error: String| {
            DatapathError::kernel(format!("{what} {name} and {interface}"), error)
        };
        match PinnedLink::from_pin(&pin) {
            Ok(pinned) => {
                if update(program, pinned).is_ok() {
                    return Ok(());
                }
                // ENOLINK: the interface that this link was for is gone, and another one has its name.
                remove(&pin).map_err(|e| refused("forgetting the link of", e.to_string()))?;
            }
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
        link.pin(&pin).map_err(|e| refused("pinning the link of", e.to_string()))?;
        Ok(())
    }

    /// Removes pins of interfaces that are gone.
    pub(super) fn sweep(&mut self) -> Vec<String> {
        let mut removed = Vec::new();
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let file = entry.file_name().to_string_lossy().into_owned();
            let Some(interface) = interface_of(&file) else { continue };
            if if_nametoindex(interface.as_str()).is_err() && remove(&entry.path()).is_ok() {
                removed.push(file);
            }
        }
        removed
    }
}

/// bpffs refuses names with a dot, which VLAN devices have.
fn pin_name(program: &str, interface: &str) -> String {
    format!("{program}-{}", interface.replace('.', "%2e"))
}

fn interface_of(pin_name: &str) -> Option<String> {
    pin_name.split_once('-').map(|(_, interface)| interface.replace("%2e", "."))
}

fn update(program: &mut SchedClassifier, pinned: PinnedLink) -> Result<(), String> {
    let link = SchedClassifierLink::try_from(FdLink::from(pinned)).map_err(|e| e.to_string())?;
    let id = program.attach_to_link(link).map_err(|e| e.to_string())?;
    // The pin keeps the link; this handle is not needed.
    program.take_link(id).map(drop).map_err(|e| e.to_string())
}

fn remove(pin: &Path) -> std::io::Result<()> {
    match fs::remove_file(pin) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
