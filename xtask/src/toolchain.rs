//! Which compiler and linker make the kernel programs.
//!
//! Rust's BPF target has no precompiled `core` in rustup's toolchains and needs a linker of its own, whose LLVM must
//! not be older than the compiler's. Two sets of tools are known to fit together; `setup` installs one of them,
//! `build` uses the first that is complete.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{paths, process};

/// The target that the programs are compiled for: BPF, little-endian like every machine that Sinew runs on.
pub(crate) const TARGET: &str = "bpfel-unknown-none";

/// `--btf` keeps the types, which BTF maps and the loader need. Without `--disable-expand-memcpy-in-order` LLVM turns
/// a memset of a few bytes into a loop in a function of its own: 54,015 instead of 15,484 verified instructions and
/// 217 instead of 161 ns a packet when it was measured.
const FLAGS: &str = "-C debuginfo=2 -C link-arg=--btf -C link-arg=--disable-expand-memcpy-in-order";

/// Which instructions are made of the programs' source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// What nodes run, optimized as the workspace's profile says.
    Shipped,
    /// Other instructions for the same maps: what the upgrade's test puts in place of the first. One step less of
    /// optimization changes every program, which the test asserts.
    Changed,
}

/// The machine that this runs on, as rustc names it.
pub(crate) fn host() -> Result<String> {
    let version = process::output(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc does not say its host")?.to_owned())
}

const CHOICE: &str = "SINEW_BPF_RECIPE";

/// A compiler and a linker that were seen to work together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recipe {
    /// rustup's compiler with `rust-src`; `core` is compiled along (`-Z build-std`).
    Rustup,
    /// Debian's `rustc-web`, which has `core` precompiled for BPF.
    Debian,
}

impl Recipe {
    /// The recipes in the order in which they are tried; `SINEW_BPF_RECIPE` leaves one of them, for a machine that
    /// could do both and for a record of each in docs/limits.md.
    pub(crate) fn allowed() -> Result<Vec<Self>> {
        match env::var(CHOICE) {
            Err(_) => Ok(vec![Self::Rustup, Self::Debian]),
            Ok(name) if name == Self::Rustup.name() => Ok(vec![Self::Rustup]),
            Ok(name) if name == Self::Debian.name() => Ok(vec![Self::Debian]),
            Ok(name) => bail!("{CHOICE}={name}: the recipes are `rustup` and `debian`"),
        }
    }

    /// Short name in paths, in output and in docs/limits.md.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rustup => "rustup",
            Self::Debian => "debian",
        }
    }

    /// The linker's version. 0.10.4 is the last that can load the LLVM of rustup's own compiler; 0.13.0 is built
    /// against Debian's LLVM 22.
    pub(crate) fn linker_version(self) -> &'static str {
        match self {
            Self::Rustup => "0.10.4",
            Self::Debian => "0.13.0",
        }
    }

    /// Where `setup` puts the linker.
    pub(crate) fn linker_folder(self) -> Result<PathBuf> {
        Ok(paths::cache()?.join(format!("tools/bpf-linker-{}-{}", self.linker_version(), self.name())))
    }

    pub(crate) fn linker(self) -> Result<PathBuf> {
        Ok(self.linker_folder()?.join("bin/bpf-linker"))
    }

    /// Whether the compiler can make BPF code on this machine; the linker is another question.
    pub(crate) fn has_compiler(self) -> bool {
        match self {
            Self::Rustup => {
                let Ok(sysroot) = process::output(self.rustc().args(["--print", "sysroot"])) else {
                    return false;
                };
                // bpf-linker 0.10.4 loads exactly LLVM 22.
                process::output(self.rustc().arg("-vV"))
                    .is_ok_and(|version| version.contains("LLVM version: 22."))
                    && Path::new(&sysroot).join("lib/rustlib/src/rust/library/core").is_dir()
            }
            Self::Debian => {
                let mut rustc = self.rustc();
                rustc.args(["--print", "target-libdir", "--target", TARGET]);
                process::output(&mut rustc).is_ok_and(|folder| Path::new(&folder).is_dir())
                    && Path::new(DEBIAN_CARGO).is_file()
            }
        }
    }

    /// The compiler's version, as it names itself.
    pub(crate) fn compiler_version(self) -> Result<String> {
        process::output(self.rustc().arg("--version"))
    }

    /// The first recipe that is complete on this machine.
    ///
    /// # Errors
    /// None is: the sentence says what to run.
    pub(crate) fn installed() -> Result<Self> {
        match Self::find()? {
            Some(recipe) => Ok(recipe),
            None => bail!("the BPF toolchain is not installed: run `cargo xtask setup build`"),
        }
    }

    /// The first recipe that is complete on this machine, if there is one.
    pub(crate) fn find() -> Result<Option<Self>> {
        for recipe in Self::allowed()? {
            if recipe.has_compiler() && recipe.linker()?.is_file() {
                return Ok(Some(recipe));
            }
        }
        Ok(None)
    }

    /// `cargo build` for the BPF target, up to the choice of the package.
    pub(crate) fn cargo_build(self, code: Code) -> Result<Command> {
        let mut cargo = self.cargo();
        cargo.args(["build", "--release", "--target", TARGET]);
        cargo.arg("--target-dir").arg(self.target(code));
        if self == Self::Rustup {
            cargo.args(["-Z", "build-std=core"]);
        }
        cargo.env("RUSTC_BOOTSTRAP", "1");
        cargo.env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", self.linker()?);
        let flags = match code {
            Code::Shipped => FLAGS.to_owned(),
            // The last one of several levels counts.
            Code::Changed => format!("{FLAGS} -C opt-level=2"),
        };
        cargo.env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_RUSTFLAGS", flags);
        // Either of these would silently replace the flags above.
        cargo.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
        Ok(cargo)
    }

    /// Cargo's target folder for the programs. The two recipes, their two codes and the host's builds each have their
    /// own, and none lies in `target/bpf`, which `agent/build.rs` watches.
    pub(crate) fn target(self, code: Code) -> PathBuf {
        paths::target().join(match code {
            Code::Shipped => format!("bpf-{}", self.name()),
            Code::Changed => format!("bpf-{}-changed", self.name()),
        })
    }

    fn cargo(self) -> Command {
        match self {
            Self::Rustup => Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into())),
            Self::Debian => {
                let mut cargo = Command::new(DEBIAN_CARGO);
                cargo.env("RUSTC", DEBIAN_RUSTC);
                leave_rustup(&mut cargo);
                cargo
            }
        }
    }

    fn rustc(self) -> Command {
        match self {
            Self::Rustup => Command::new("rustc"),
            Self::Debian => {
                let mut rustc = Command::new(DEBIAN_RUSTC);
                leave_rustup(&mut rustc);
                rustc
            }
        }
    }
}

const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// `cargo run` under rustup puts its toolchain's libraries first; another compiler must not load them.
fn leave_rustup(command: &mut Command) {
    command
        .env_remove("LD_LIBRARY_PATH")
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("CARGO")
        .env_remove("RUSTDOC");
}
