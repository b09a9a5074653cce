//! The last valid version of the objects that policies lean on: groups of CIDRs and namespaces.
//!
//! A group that is refused after a restart, or a namespace that can't be read then, must not open what a deny rule that
//! names it had closed (policy.md 14), so each valid one has a file under `objects/` as policies have under `policies/`.
//! What differs from the disk is written when there is time, and a write that fails is tried again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use sinew_api::object::{Namespace, Object, ObjectName};
use sinew_api::policy::CidrGroup;

use super::{AT_ONCE, FileError};
use crate::durable;
use crate::file_name::fitting;
use crate::store::StoreChange;

/// Name of the folder.
pub(crate) const OBJECTS: &str = "objects";

/// The files, and what they are about to hold.
#[derive(Debug)]
pub(in crate::control) struct KeptObjects {
    folder: PathBuf,
    /// What the disk has.
    written: BTreeMap<ObjectName, Vec<u8>>,
    /// What it should have instead; `None` for nothing.
    wanted: BTreeMap<ObjectName, Option<Vec<u8>>>,
    /// Names that the store has told of, until its first list is complete.
    told: Option<BTreeSet<ObjectName>>,
}

/// An object in its file.
#[derive(Serialize, Deserialize)]
enum Kept {
    CidrGroup(CidrGroup),
    Namespace(Namespace),
}

impl KeptObjects {
    /// Reads what the folder holds.
    pub(super) fn open(state_dir: &Path) -> Result<(Self, Vec<Object>), FileError> {
        let folder = state_dir.join(OBJECTS);
        let read = fs::create_dir_all(&folder).and_then(|()| read(&folder));
        let read = read.map_err(|source| FileError { path: folder.clone(), source })?;
        let written = read.iter().map(|(text, object)| (object.name(), text.clone())).collect();
        let kept = Self { folder, written, wanted: BTreeMap::new(), told: Some(BTreeSet::new()) };
        Ok((kept, read.into_iter().map(|(_, object)| object).collect()))
    }

    /// Notes what the store says.
    pub(in crate::control) fn note(&mut self, change: &StoreChange) {
        match change {
            StoreChange::Set(object) => {
                let Some(text) = text(object) else { return };
                let name = object.name();
                if let Some(told) = &mut self.told {
                    told.insert(name.clone());
                }
                self.want(name, Some(text));
            }
            StoreChange::Removed(name) => self.want(name.clone(), None),
        }
    }

    /// The store's first list is complete: what it does not have is gone.
    pub(in crate::control) fn first_list_complete(&mut self) {
        let told = self.told.take().unwrap_or_default();
        let gone: Vec<ObjectName> =
            self.written.keys().filter(|name| !told.contains(*name)).cloned().collect();
        gone.into_iter().for_each(|name| self.want(name, None));
    }

    /// Whether something is still to be written.
    pub(super) fn is_behind(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// Writes what there is time for; the rest, and what fails, waits for the next call.
    ///
    /// # Errors
    /// The first [`FileError`].
    pub(super) fn write(&mut self) -> Result<(), FileError> {
        let begun = Instant::now();
        while let Some((name, text)) = self.wanted.first_key_value() {
            let path = self.path(name);
            let outcome = match text {
                Some(text) => durable::replace(&path, text).map(drop),
                None => durable::remove(&path),
            };
            outcome.map_err(|source| FileError { path, source })?;
            match self.wanted.pop_first() {
                Some((name, Some(text))) => drop(self.written.insert(name, text)),
                Some((name, None)) => drop(self.written.remove(&name)),
                None => {}
            }
            if begun.elapsed() > AT_ONCE {
                break;
            }
        }
        Ok(())
    }

    fn want(&mut self, name: ObjectName, text: Option<Vec<u8>>) {
        if self.written.get(&name) == text.as_ref() {
            self.wanted.remove(&name);
        } else {
            self.wanted.insert(name, text);
        }
    }

    fn path(&self, name: &ObjectName) -> PathBuf {
        // These kinds have no namespace, and names of objects hold neither colons nor slashes.
        self.folder.join(fitting(&format!("{}:{}", name.kind.kind(), name.name), ".json"))
    }
}

/// What the file of an object holds; nothing for other kinds, and for a group of which only a part could be read.
fn text(object: &Object) -> Option<Vec<u8>> {
    let kept = match object {
        Object::CidrGroup(group) if group.whole => Kept::CidrGroup(group.clone()),
        Object::Namespace(namespace) => Kept::Namespace(namespace.clone()),
        _ => return None,
    };
    Some(serde_json::to_vec(&kept).expect("groups and namespaces are plain JSON"))
}

fn read(folder: &Path) -> io::Result<Vec<(Vec<u8>, Object)>> {
    let mut objects = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            fs::remove_file(&path)?;
            continue;
        }
        let text = fs::read(&path)?;
        match serde_json::from_slice(&text) {
            Ok(Kept::CidrGroup(group)) => objects.push((text, Object::CidrGroup(group))),
            Ok(Kept::Namespace(namespace)) => objects.push((text, Object::Namespace(namespace))),
            // Cut off while it was written, or of a version with another idea of it: the store's text is read anyway.
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a kept object is unreadable and is removed");
                fs::remove_file(&path)?;
            }
        }
    }
    Ok(objects)
}

#[cfg(test)]
mod tests {
    use sinew_api::object::decode_text;

    use super::*;

    fn group(cidrs: &str) -> Object {
        group_called("bad", cidrs)
    }

    fn group_called(name: &str, cidrs: &str) -> Object {
        let text = format!(
            "apiVersion: sinew.io/v1\nkind: SinewCIDRGroup\nmetadata: {{name: {name}}}\n\
             spec: {{externalCIDRs: [{cidrs}]}}\n"
        );
        match decode_text("g.yaml", &text).remove(0) {
            Ok(object) => object,
            Err(refused) => Object::CidrGroup(*refused.remains.unwrap()),
        }
    }

    fn set(object: Object) -> StoreChange {
        StoreChange::Set(Box::new(object))
    }

    fn found(folder: &Path) -> Vec<Object> {
        KeptObjects::open(folder).unwrap().1
    }

    /// However slow the disk is.
    fn write_all(kept: &mut KeptObjects) {
        while kept.is_behind() {
            kept.write().unwrap();
        }
    }

    #[test]
    fn groups_and_namespaces_come_back_until_they_are_gone() {
        let folder = tempfile::tempdir().unwrap();
        let namespace = Object::Namespace(Namespace::bare("team"));
        let whole = group("203.0.113.0/24");
        let (mut kept, before) = KeptObjects::open(folder.path()).unwrap();
        assert_eq!(before, []);
        kept.note(&set(whole.clone()));
        kept.note(&set(namespace.clone()));
        kept.first_list_complete();
        write_all(&mut kept);
        // What can be read of a refused one does not take the place of the whole one.
        kept.note(&set(group("198.51.100.0/24, 10.0.0.0/33")));
        assert!(!kept.is_behind());

        let mut back = found(folder.path());
        back.sort_by_key(Object::name);
        assert_eq!(back, [whole.clone(), namespace.clone()]);

        // The next run finds the namespace only.
        let (mut kept, _) = KeptObjects::open(folder.path()).unwrap();
        kept.note(&set(namespace.clone()));
        kept.first_list_complete();
        write_all(&mut kept);
        assert_eq!(found(folder.path()), std::slice::from_ref(&namespace));
        kept.note(&StoreChange::Removed(namespace.name()));
        write_all(&mut kept);
        assert_eq!(found(folder.path()), []);
    }

    #[test]
    fn the_longest_name_is_kept_and_holds_nobody_back() {
        let folder = tempfile::tempdir().unwrap();
        let (mut kept, _) = KeptObjects::open(folder.path()).unwrap();
        let long = group_called(&"a".repeat(253), "203.0.113.0/24");
        let after = group_called("b", "203.0.113.0/24");
        [&long, &after].into_iter().for_each(|object| kept.note(&set(object.clone())));
        write_all(&mut kept);
        let mut back = found(folder.path());
        back.sort_by_key(Object::name);
        assert_eq!(back, [long.clone(), after.clone()]);
        kept.note(&StoreChange::Removed(long.name()));
        write_all(&mut kept);
        assert_eq!(found(folder.path()), [after]);
    }

    #[test]
    fn what_could_not_be_written_is_written_later() {
        let folder = tempfile::tempdir().unwrap();
        let (mut kept, _) = KeptObjects::open(folder.path()).unwrap();
        fs::remove_dir(folder.path().join(OBJECTS)).unwrap();
        kept.note(&set(group("203.0.113.0/24")));
        assert!(kept.write().is_err() && kept.is_behind());
        fs::create_dir(folder.path().join(OBJECTS)).unwrap();
        write_all(&mut kept);
        assert_eq!(found(folder.path()), [group("203.0.113.0/24")]);
    }
}
