//! `cargo xtask setup`: checks what this machine has and installs what is missing.
//!
//! Three groups, each with the ones before it: `build` (the BPF toolchain), `lab` (what the demo needs) and `test`
//! (real runtimes and emulators besides). Running it again does nothing and says so. Packages come from apt where
//! there is apt, otherwise the list to install is printed; what has to be compiled goes to the cache folder. The
//! neighbours: `setup/packages.rs` is the table, `setup/compiler.rs` the BPF toolchain, `setup/golang.rs` the tools
//! that exist as Go modules only, `setup/kernel.rs` what the running kernel must be and have mounted.

mod apt;
mod compiler;
mod golang;
mod kernel;
mod packages;

pub(crate) use golang::cnitool;

use anyhow::Result;

use crate::paths;
use crate::qemu::Kernel;

/// How much to set up. Each group contains the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Group {
    /// Compiler and linker of the kernel programs.
    Build,
    /// A node on this machine: kernel, bpffs, network tools.
    Lab,
    /// Container runtimes, other CNI plugins, Hubble's client, Prometheus and an emulator.
    Test,
}

/// Brings the machine to what the group needs.
///
/// # Errors
/// Something is missing that cannot be installed from here; the text says what to install.
pub(crate) fn run(group: Group) -> Result<()> {
    let _alone = paths::lock("setup")?;
    if group >= Group::Lab {
        kernel::check()?;
    }
    packages::install(group)?;
    compiler::install()?;
    if group >= Group::Lab {
        kernel::mount_bpffs()?;
    }
    if group >= Group::Test {
        golang::install_cnitool()?;
        golang::install_hubble()?;
        eprintln!("kernel to test on: {}", Kernel::fetch()?.release());
    }
    eprintln!("setup: everything for `{}` is in place", group.name());
    Ok(())
}

impl Group {
    fn name(self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::Lab => "lab",
            Self::Test => "test",
        }
    }
}

#[cfg(test)]
mod tests {
    /// What a command prints in the lab is all that stands on stdout, so that it can be piped.
    #[test]
    fn progress_is_told_on_stderr() {
        let files = [
            include_str!("build.rs"),
            include_str!("paths.rs"),
            include_str!("privilege.rs"),
            include_str!("qemu/kernel.rs"),
            include_str!("setup.rs"),
            include_str!("setup/apt.rs"),
            include_str!("setup/compiler.rs"),
            include_str!("setup/golang.rs"),
            include_str!("setup/kernel.rs"),
            include_str!("setup/packages.rs"),
        ];
        for line in files.iter().flat_map(|text| text.lines()) {
            assert!(!line.trim_start().starts_with("println!"), "{line}");
        }
    }
}
