//! Hands the compiled kernel programs to `src/datapath/object.rs`, if `cargo xtask build` has made them.
//!
//! No compiler for them is asked for here: checking the agent and testing its library work on a machine without the
//! BPF toolchain, and only linking the real binary needs the object.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rustc-check-cfg=cfg(datapath_object)");
    println!("cargo::rerun-if-env-changed=CARGO_TARGET_DIR");

    // The same folder as in xtask/src/paths.rs. It holds the object only. It is watched as a folder, since a watched
    // file that is not there would compile the agent anew each time.
    let folder = target().join("bpf");
    if let Err(error) = fs::create_dir_all(&folder) {
        println!("cargo::error=cannot make {}: {error}", folder.display());
        return;
    }
    println!("cargo::rerun-if-changed={}", folder.display());
    let object = folder.join("sinew-datapath");
    if object.is_file() {
        println!("cargo::rustc-cfg=datapath_object");
        println!("cargo::rustc-env=SINEW_DATAPATH_OBJECT={}", object.display());
    }
}

fn target() -> PathBuf {
    let agent = env::var_os("CARGO_MANIFEST_DIR").expect("cargo names the package's folder");
    let root = Path::new(&agent).parent().expect("the agent lies in a folder of the workspace").to_owned();
    match env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => root.join(folder),
        None => root.join("target"),
    }
}
