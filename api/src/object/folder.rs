//! Which files of a folder of objects are read, whoever reads it: the agent (`agent/src/store/folder`) and the command
//! (`cli/src/folder.rs`) must mean the same folder.

/// Levels of folders that are read.
pub const MAX_DEPTH: usize = 16;
/// Files that are read: those of 10,000 pods with their endpoints and identities three times over.
pub const MAX_FILES: usize = 100_000;

/// Whether a name is hidden: editors' swap files, agents' temporary ones, `..data` of mounted ConfigMaps.
#[must_use]
pub fn is_hidden(name: &str) -> bool {
    name.starts_with('.')
}

/// Whether a file of this name may hold objects. Kustomize's own file needs no kind, so its name says what it is.
#[must_use]
pub fn is_object_file(name: &str) -> bool {
    let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    matches!(extension, "yaml" | "yml" | "json") && !is_hidden(name) && stem != "kustomization"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_may_hold_objects() {
        for name in ["a.yaml", "a.b.yml", "a.json", "Kustomization.yaml"] {
            assert!(is_object_file(name), "{name}");
        }
        for name in ["a.txt", "yaml", ".a.yaml", "a.yaml~", "kustomization.yaml", "kustomization.yml", ""] {
            assert!(!is_object_file(name), "{name}");
        }
    }
}
