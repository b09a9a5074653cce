//! Where things are: the checkout, what is built, and the cache that outlives the checkout.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The checkout's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in a folder of the workspace")
        .to_owned()
}

/// Cargo's target folder; `CARGO_TARGET_DIR` moves it.
pub(crate) fn target() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => root().join(folder),
        None => root().join("target"),
    }
}

/// The compiled programs; `agent/build.rs` looks for them at the same place.
pub(crate) fn datapath_object() -> PathBuf {
    target().join("bpf/sinew-datapath")
}

/// The programs that tests upgrade to; `tests/build.rs` looks for them at the same place.
pub(crate) fn changed_object() -> PathBuf {
    target().join("bpf-changed/sinew-datapath")
}

/// `$XDG_CACHE_HOME/sinew`: tools that are built once and used by every checkout of this user.
pub(crate) fn cache() -> Result<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME").filter(|folder| !folder.is_empty()) {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?)
            .join(".cache"),
    };
    let cache = base.join("sinew");
    fs::create_dir_all(&cache)
        .with_context(|| format!("cannot make the cache folder {}", cache.display()))?;
    Ok(cache)
}

/// Holds other runs of the same step off until the answer is dropped.
pub(crate) fn lock(name: &str) -> Result<File> {
    let path = cache()?.join(format!("{name}.lock"));
    let file =
        File::create(&path).with_context(|| format!("cannot make the lock file {}", path.display()))?;
    if file.try_lock().is_err() {
        eprintln!("waiting for another run of `cargo xtask` ({})", path.display());
        file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    }
    Ok(file)
}
