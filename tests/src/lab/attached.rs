//! Which programs are attached on a node, as the kernel says: by links pinned for the node, so that a test can tell one
//! generation of programs from another.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, ensure};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::loaded_programs;

use super::Node;

/// What a link runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The loaded program; each load has a number of its own.
    pub program_id: u32,
    /// The kernel's digest of its instructions: equal for equal code, whenever it was loaded (`bpf_prog_info.tag`).
    pub tag: u64,
}

impl Node {
    /// Every link of this node by the name of its pin, `<program>-<interface>`.
    ///
    /// # Errors
    /// There is none, or the kernel does not say.
    pub fn attached(&self) -> Result<BTreeMap<String, Attached>> {
        let mut tags = BTreeMap::new();
        for program in loaded_programs() {
            let program = program.context("asking the kernel for its programs")?;
            tags.insert(program.id(), program.tag());
        }
        let mut attached = BTreeMap::new();
        for folder in self.pinned_layouts()? {
            let links = folder.join("links");
            for entry in fs::read_dir(&links).with_context(|| format!("reading {}", links.display()))? {
                let path = entry.context("a pinned link")?.path();
                let pinned = PinnedLink::from_pin(&path)
                    .with_context(|| format!("opening the link {}", path.display()))?;
                let program_id =
                    FdLink::from(pinned).info().context("asking about a pinned link")?.program_id();
                let tag = tags.get(&program_id).with_context(|| {
                    format!("{} runs program {program_id}, which is gone", path.display())
                })?;
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                attached.insert(name, Attached { program_id, tag: *tag });
            }
        }
        ensure!(!attached.is_empty(), "node {} has no pinned link", self.name());
        Ok(attached)
    }

    /// Folders of this node's pins, one a layout: `<bpf root>/<node>/v<layout>`.
    ///
    /// # Errors
    /// There are no pins.
    pub fn pinned_layouts(&self) -> Result<Vec<std::path::PathBuf>> {
        let folder = self.directories().bpf_root.join(self.name());
        let entries = fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
        let is_layout = |path: &std::path::PathBuf| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('v'))
        };
        Ok(entries.flatten().map(|entry| entry.path()).filter(is_layout).collect())
    }
}
