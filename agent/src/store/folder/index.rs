//! Which object of which file is in force: a value without I/O, told of one file at a time.
//!
//! - The same kind, namespace and name twice: the first path in byte order wins, within a file the first document; the
//!   others are refused and both places are named (policy.md 4).
//! - A document that can't be read keeps the last good version of what its file held under its name; if not even its
//!   name can be read, of everything that the file held and now lacks (policy.md 15). Policies that are understood but
//!   refused pass through: what they keep in force is the engine's business (policy.md 14).
//!
//! Neighbours: [`super::files`] reads files, [`super::task`] carries the changes away.

use std::collections::{BTreeMap, BTreeSet};

use sinew_api::object::{Object, ObjectName, Origin, Problem, Refused};

use crate::store::StoreChange;

/// What a file holds, document by document.
pub(super) type Documents = Vec<Result<Object, Refused>>;

/// All files and what follows from them.
#[derive(Debug, Default)]
pub(super) struct Index {
    files: BTreeMap<String, Documents>,
    /// Who claims a name: path and number of the document, first one first.
    claims: BTreeMap<ObjectName, BTreeSet<(String, usize)>>,
    in_force: BTreeMap<ObjectName, InForce>,
    /// Names in force by the file that they came from.
    held: BTreeMap<String, BTreeSet<ObjectName>>,
    dirty: BTreeSet<ObjectName>,
    /// Whether the list of refusals may differ from the last one.
    refusals_changed: bool,
}

#[derive(Debug)]
struct InForce {
    object: Object,
    file: String,
    /// Kept from an earlier run and not yet told to anybody.
    untold: bool,
}

impl Index {
    /// An index that knows these objects from an earlier run. They come into force only if their files turn out to be
    /// unreadable.
    pub(super) fn restored(kept: Vec<Object>) -> Self {
        let mut index = Self::default();
        for object in kept {
            let (name, file) = (object.name(), origin(&object).file.clone());
            index.dirty.insert(name.clone());
            index.held.entry(file.clone()).or_default().insert(name.clone());
            index.in_force.insert(name, InForce { object, file, untold: true });
        }
        index
    }

    /// The paths of all files.
    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// A file holds these documents now; `None`: there is no such file.
    pub(super) fn set_file(&mut self, path: &str, documents: Option<Documents>) {
        let before = self.files.remove(path).unwrap_or_default();
        if before.iter().chain(documents.iter().flatten()).any(Result::is_err) {
            self.refusals_changed = true;
        }
        for (position, document) in before.iter().enumerate() {
            if let Some(name) = claimed(document) {
                if let Some(claims) = self.claims.get_mut(&name) {
                    self.refusals_changed |= claims.len() > 1;
                    claims.remove(&(path.to_owned(), position));
                    if claims.is_empty() {
                        self.claims.remove(&name);
                    }
                }
                self.dirty.insert(name);
            }
        }
        self.dirty.extend(self.held.get(path).into_iter().flatten().cloned());
        let Some(documents) = documents else { return };
        for (position, document) in documents.iter().enumerate() {
            if let Some(name) = claimed(document) {
                let claims = self.claims.entry(name.clone()).or_default();
                claims.insert((path.to_owned(), position));
                self.refusals_changed |= claims.len() > 1;
                self.dirty.insert(name);
            }
        }
        self.files.insert(path.to_owned(), documents);
    }

    /// What changed since the last call.
    pub(super) fn settle(&mut self) -> Vec<StoreChange> {
        let mut changes = Vec::new();
        for name in std::mem::take(&mut self.dirty) {
            match self.wanted(&name) {
                Wanted::Object(object, file) => {
                    let present = self.in_force.get(&name);
                    if present.is_none_or(|present| present.untold || present.object != *object) {
                        changes.push(StoreChange::Set(object.clone()));
                    }
                    self.put(name, *object, file);
                }
                Wanted::AsItIs => {
                    if let Some(present) = self.in_force.get_mut(&name)
                        && std::mem::take(&mut present.untold)
                    {
                        changes.push(StoreChange::Set(Box::new(present.object.clone())));
                    }
                }
                Wanted::Nothing => {
                    if let Some(present) = self.take(&name)
                        && !present.untold
                    {
                        changes.push(StoreChange::Removed(name));
                    }
                }
            }
        }
        changes
    }

    /// Every document that is refused, if that may have changed since the last call: in the order of their files.
    pub(super) fn take_refusals(&mut self) -> Option<Vec<Refused>> {
        if !std::mem::take(&mut self.refusals_changed) {
            return None;
        }
        let mut refusals: Vec<Refused> =
            self.files.values().flatten().filter_map(|document| document.as_ref().err()).cloned().collect();
        for (name, claims) in self.claims.iter().filter(|(_, claims)| claims.len() > 1) {
            let places: Vec<Origin> = claims.iter().filter_map(|(path, at)| self.place(path, *at)).collect();
            let Some((first, others)) = places.split_first() else { continue };
            for other in others {
                refusals.push(duplicate(name, first, other));
            }
        }
        refusals.sort_by(|one, other| one.origin.cmp(&other.origin));
        Some(refusals)
    }

    fn wanted(&self, name: &ObjectName) -> Wanted {
        let first = self.claims.get(name).and_then(|claims| claims.first());
        match first.and_then(|(path, at)| Some((path, self.files.get(path)?.get(*at)?))) {
            Some((path, Ok(object))) => Wanted::Object(Box::new(object.clone()), path.clone()),
            Some((_, Err(_))) => Wanted::AsItIs,
            None => match self.in_force.get(name) {
                Some(present) if self.hides(&present.file) => Wanted::AsItIs,
                _ => Wanted::Nothing,
            },
        }
    }

    /// Whether a file has a document of which not even the name can be read: it may be any that the file held before.
    fn hides(&self, path: &str) -> bool {
        self.files.get(path).into_iter().flatten().any(|document| claimed(document).is_none())
    }

    fn put(&mut self, name: ObjectName, object: Object, file: String) {
        self.take(&name);
        self.held.entry(file.clone()).or_default().insert(name.clone());
        self.in_force.insert(name, InForce { object, file, untold: false });
    }

    fn take(&mut self, name: &ObjectName) -> Option<InForce> {
        let present = self.in_force.remove(name)?;
        if let Some(names) = self.held.get_mut(&present.file) {
            names.remove(name);
            if names.is_empty() {
                self.held.remove(&present.file);
            }
        }
        Some(present)
    }

    fn place(&self, path: &str, at: usize) -> Option<Origin> {
        match self.files.get(path)?.get(at)? {
            Ok(object) => Some(origin(object).clone()),
            Err(refused) => Some(refused.origin.clone()),
        }
    }
}

enum Wanted {
    /// This version, from this file.
    Object(Box<Object>, String),
    /// Whatever is in force.
    AsItIs,
    Nothing,
}

/// The name that a document claims, if it can be read.
fn claimed(document: &Result<Object, Refused>) -> Option<ObjectName> {
    match document {
        Ok(object) => Some(object.name()),
        Err(refused) => refused.name.clone(),
    }
}

/// Where an object stands.
pub(super) fn origin(object: &Object) -> &Origin {
    match object {
        Object::Policy(policy) => &policy.origin,
        Object::CidrGroup(group) => &group.origin,
        Object::Pod(pod) => &pod.origin,
        Object::Namespace(namespace) => &namespace.origin,
        Object::Node(node) => &node.origin,
        Object::Endpoint(endpoint) => &endpoint.origin,
        Object::Identity(identity) => &identity.origin,
    }
}

fn duplicate(name: &ObjectName, first: &Origin, other: &Origin) -> Refused {
    let message = format!(
        "{name} stands in {first} and in {other}; the first path in byte order is in force, this one is refused: \
         remove one of them"
    );
    let problem = Problem { path: "metadata.name".into(), message, origin: other.clone() };
    Refused { name: Some(name.clone()), origin: other.clone(), problems: vec![problem] }
}

#[cfg(test)]
mod tests;
