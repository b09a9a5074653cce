//! Hands the kernel programs that tests upgrade to, if `cargo xtask test` has made them, to
//! `src/bin/sinew-agent-changed.rs`. They are the agent's (`agent/build.rs`) in other instructions.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rustc-check-cfg=cfg(changed_object)");
    println!("cargo::rerun-if-env-changed=CARGO_TARGET_DIR");

    // The same folder as in xtask/src/paths.rs; it holds the object only, and is watched as in agent/build.rs.
    let folder = target().join("bpf-changed");
    if let Err(error) = fs::create_dir_all(&folder) {
        println!("cargo::error=cannot make {}: {error}", folder.display());
        return;
    }
    println!("cargo::rerun-if-changed={}", folder.display());
    let object = folder.join("sinew-datapath");
    if object.is_file() {
        println!("cargo::rustc-cfg=changed_object");
        println!("cargo::rustc-env=SINEW_CHANGED_OBJECT={}", object.display());
    }
}

fn target() -> PathBuf {
    let tests = env::var_os("CARGO_MANIFEST_DIR").expect("cargo names the package's folder");
    let root = Path::new(&tests).parent().expect("the tests lie in a folder of the workspace").to_owned();
    match env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => root.join(folder),
        None => root.join("target"),
    }
}
