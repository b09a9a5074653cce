//! The table of programs that Sinew's build, lab and tests call, and the Debian packages that bring them.
//!
//! A row is looked for by the file it is used by, not by its package's name: a container runtime or a compiler that
//! came to the machine another way is left alone.

use std::env;
use std::path::Path;

use anyhow::{Result, bail};

use super::{Group, apt};

/// Something that is called, and where it comes from.
struct Tool {
    group: Group,
    /// A program on PATH or in an sbin folder; with a slash, a file or folder.
    file: &'static str,
    /// Debian's and Ubuntu's name of the package.
    package: &'static str,
    why: &'static str,
}

const TOOLS: &[Tool] = &[
    tool(Group::Build, "cc", "gcc", "links Rust programs"),
    tool(Group::Build, "c++", "g++", "compiles what the BPF linker takes from LLVM"),
    tool(Group::Lab, "ip", "iproute2", "shows and makes interfaces in the demo's commands"),
    tool(Group::Lab, "nsenter", "util-linux", "enters a node's or a pod's network namespace"),
    tool(Group::Lab, "mount", "mount", "mounts bpffs"),
    tool(Group::Lab, "ping", "iputils-ping", "ICMP and ICMPv6 traffic"),
    tool(Group::Lab, "curl", "curl", "asks a server in the lab; reads a metrics port"),
    tool(Group::Test, "iperf3", "iperf3", "streams for the benchmarks"),
    tool(Group::Test, "/usr/lib/cni/portmap", "containernetworking-plugins", "partners in a CNI chain"),
    tool(Group::Test, "containerd", "containerd", "a real runtime that calls the plugin"),
    tool(Group::Test, "runc", "runc", "starts the runtime's containers"),
    tool(Group::Test, "qemu-system-x86_64", "qemu-system-x86", "runs other kernels"),
    tool(Group::Test, "cpio", "cpio", "packs the emulator's first file system"),
    tool(Group::Test, "xz", "xz-utils", "unpacks kernel modules"),
    tool(Group::Test, "busybox", "busybox-static", "the emulator's shell"),
    tool(Group::Test, "openssl", "openssl", "makes certificates as the documents say"),
    tool(Group::Test, "faketime", "faketime", "gives a process a clock that is wrong"),
    tool(Group::Test, "tcpdump", "tcpdump", "an observer that is not ours"),
    tool(
        Group::Test,
        "prometheus",
        "prometheus",
        "scrapes nodes; its promtool judges metrics, rules and queries",
    ),
];

/// Installs what the group's rows miss.
pub(super) fn install(group: Group) -> Result<()> {
    let missing: Vec<&Tool> =
        TOOLS.iter().filter(|tool| tool.group <= group && !is_there(tool.file)).collect();
    if missing.is_empty() {
        eprintln!("packages: all there");
        return Ok(());
    }
    for tool in &missing {
        eprintln!("packages: {} is missing ({}: {})", tool.file, tool.package, tool.why);
    }
    let packages: Vec<&str> = missing.iter().map(|tool| tool.package).collect();
    apt::install(&packages)?;
    if let Some(tool) = missing.iter().find(|tool| !is_there(tool.file)) {
        bail!("package {} was installed, yet {} is still missing", tool.package, tool.file);
    }
    Ok(())
}

const fn tool(group: Group, file: &'static str, package: &'static str, why: &'static str) -> Tool {
    Tool { group, file, package, why }
}

/// Whether a file is there; a bare name is looked for as a program.
pub(super) fn is_there(file: &str) -> bool {
    if file.contains('/') {
        return Path::new(file).exists();
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(Into::into))
        .any(|folder| folder.join(file).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_by_name_and_files_by_path() {
        assert!(is_there("sh"));
        assert!(is_there("/bin/sh"));
        assert!(!is_there("sinew-no-such-program"));
        assert!(!is_there("/usr/lib/cni/sinew-no-such-plugin"));
    }

    #[test]
    fn a_package_stands_in_one_row() {
        for (at, tool) in TOOLS.iter().enumerate() {
            assert!(
                !TOOLS[..at]
                    .iter()
                    .any(|earlier| earlier.package == tool.package || earlier.file == tool.file),
                "{} stands twice",
                tool.package
            );
        }
    }
}
