//! Which object of which file is in force: a value without I/O, told of one file at a time.
//!
//! - The same kind, namespace and name twice: the first path in byte order wins, within a file the first document; the
//!   others are refused and both places are named (policy.md 4).
//! - A document that can't be read keeps the last good version of what its file held under its name; if not even its
//!   name can be read, of everything that the file held and now lacks (policy.md 15). Policies that are understood but
//!   refused pass through: what they keep in force is the engine's business (policy.md 14).
//!
//! It holds names, places and a hash of each object, not the objects: those of ten thousand endpoints would be 30 MB here
//! besides what the engine keeps of them. An object is handed on when its file is told; if it is wanted later, because
//! the document before it is gone, its file has to be told again.
//!
//! Neighbours: [`super::files`] reads files, [`super::task`] carries the changes away.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{DefaultHasher, Hasher as _};
use std::sync::Arc;

use sinew_api::object::{Object, ObjectName, Origin, Problem, Refused};

use crate::store::StoreChange;

/// What a file holds, document by document.
pub(super) type Documents = Vec<Result<Object, Refused>>;

/// All files and what follows from them.
#[derive(Debug, Default)]
pub(super) struct Index {
    files: BTreeMap<Arc<str>, Vec<Document>>,
    /// Who claims a name, first one first.
    claims: BTreeMap<ObjectName, Vec<Place>>,
    in_force: BTreeMap<ObjectName, InForce>,
    /// Names in force that no document claims, by the unreadable file that they came from.
    held: BTreeMap<Arc<str>, BTreeSet<ObjectName>>,
    dirty: BTreeSet<ObjectName>,
    /// Objects of files that were told since the last call of [`Self::settle`].
    fresh: BTreeMap<Place, Object>,
    /// Kept from an earlier run, and told to nobody yet.
    untold: BTreeMap<ObjectName, Object>,
    /// Whether the list of refusals may differ from the last one.
    refusals_changed: bool,
}

/// Path of a file, and number of a document in it.
type Place = (Arc<str>, usize);

/// What is known of a document.
#[derive(Debug)]
enum Document {
    Good { name: ObjectName, line: u32, hash: u64 },
    Refused(Refused),
}

#[derive(Debug)]
struct InForce {
    hash: u64,
    file: Arc<str>,
}

/// What follows from the files that were told.
#[derive(Debug, Default)]
pub(super) struct Settled {
    pub(super) changes: Vec<StoreChange>,
    /// Files that must be told again, since an object of theirs came into force that was not before.
    pub(super) again: BTreeSet<Arc<str>>,
}

impl Index {
    /// An index that knows these objects from an earlier run. They come into force only if their files turn out to be
    /// unreadable.
    pub(super) fn restored(kept: Vec<Object>) -> Self {
        let mut index = Self::default();
        for object in kept {
            let (name, file) = (object.name(), Arc::from(origin(&object).file.as_str()));
            index.dirty.insert(name.clone());
            index.held.entry(Arc::clone(&file)).or_default().insert(name.clone());
            index.in_force.insert(name.clone(), InForce { hash: hash(&object), file });
            index.untold.insert(name, object);
        }
        index
    }

    /// The paths of all files.
    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(|path| &**path)
    }

    /// A file holds these documents now; `None`: there is no such file.
    pub(super) fn set_file(&mut self, path: &str, documents: Option<Documents>) {
        for (position, document) in self.files.remove(path).unwrap_or_default().iter().enumerate() {
            self.refusals_changed |= matches!(document, Document::Refused(_));
            let Some(name) = document.name().cloned() else { continue };
            if let Some(claims) = self.claims.get_mut(&name) {
                self.refusals_changed |= claims.len() > 1;
                claims.retain(|(file, at)| (&**file, *at) != (path, position));
                if claims.is_empty() {
                    self.claims.remove(&name);
                }
            }
            self.dirty.insert(name);
        }
        let path: Arc<str> = path.into();
        let of_file = (Arc::clone(&path), 0)..=(Arc::clone(&path), usize::MAX);
        let stale: Vec<Place> = self.fresh.range(of_file).map(|(place, _)| place.clone()).collect();
        stale.iter().for_each(|place| drop(self.fresh.remove(place)));
        self.dirty.extend(self.held.get(&path).into_iter().flatten().cloned());
        let Some(documents) = documents else { return };
        let mut known = Vec::with_capacity(documents.len());
        for (position, document) in documents.into_iter().enumerate() {
            let document = match document {
                Ok(object) => {
                    let (name, line, hash) = (object.name(), origin(&object).line, hash(&object));
                    self.fresh.insert((Arc::clone(&path), position), object);
                    Document::Good { name, line, hash }
                }
                Err(refused) => Document::Refused(refused),
            };
            self.refusals_changed |= matches!(document, Document::Refused(_));
            if let Some(name) = document.name() {
                let claims = self.claims.entry(name.clone()).or_default();
                let place = (Arc::clone(&path), position);
                let at = claims.partition_point(|other| *other < place);
                claims.insert(at, place);
                self.refusals_changed |= claims.len() > 1;
                self.dirty.insert(name.clone());
            }
            known.push(document);
        }
        self.files.insert(path, known);
    }

    /// What changed since the last call.
    pub(super) fn settle(&mut self) -> Settled {
        let mut settled = Settled::default();
        for name in std::mem::take(&mut self.dirty) {
            match self.wanted(&name) {
                Wanted::Document(place, hash) => self.enforce(name, place, hash, &mut settled),
                Wanted::AsItIs => {
                    self.hold(&name);
                    if let Some(object) = self.untold.remove(&name) {
                        settled.changes.push(StoreChange::Set(Box::new(object)));
                    }
                }
                Wanted::Nothing => {
                    let untold = self.untold.remove(&name).is_some();
                    if self.take(&name) && !untold {
                        settled.changes.push(StoreChange::Removed(name));
                    }
                }
            }
        }
        if settled.again.is_empty() {
            self.fresh.clear();
        }
        settled
    }

    /// Brings the document at a place into force.
    fn enforce(&mut self, name: ObjectName, place: Place, hash: u64, settled: &mut Settled) {
        let as_before = self.in_force.get(&name).is_some_and(|present| present.hash == hash);
        if !as_before || self.untold.contains_key(&name) {
            let Some(object) = self.fresh.remove(&place) else {
                // Known by its hash only: its file is read again, and this name settled then.
                settled.again.insert(place.0);
                self.dirty.insert(name);
                return;
            };
            self.untold.remove(&name);
            settled.changes.push(StoreChange::Set(Box::new(object)));
        }
        self.take(&name);
        self.in_force.insert(name, InForce { hash, file: place.0 });
    }

    /// Notes that a name is in force although no document claims it: its file says when that ends.
    fn hold(&mut self, name: &ObjectName) {
        if let Some(present) = self.in_force.get(name) {
            self.held.entry(Arc::clone(&present.file)).or_default().insert(name.clone());
        }
    }

    /// Every document that is refused, if that may have changed since the last call: in the order of their files.
    pub(super) fn take_refusals(&mut self) -> Option<Vec<Refused>> {
        if !std::mem::take(&mut self.refusals_changed) {
            return None;
        }
        let mut refusals: Vec<Refused> = Vec::new();
        for document in self.files.values().flatten() {
            if let Document::Refused(refused) = document {
                refusals.push(refused.clone());
            }
        }
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
        match first.and_then(|place| Some((place, self.files.get(&place.0)?.get(place.1)?))) {
            Some((place, Document::Good { hash, .. })) => Wanted::Document(place.clone(), *hash),
            Some((_, Document::Refused(_))) => Wanted::AsItIs,
            None => match self.in_force.get(name) {
                Some(present) if self.hides(&present.file) => Wanted::AsItIs,
                _ => Wanted::Nothing,
            },
        }
    }

    /// Whether a file has a document of which not even the name can be read: it may be any that the file held before.
    fn hides(&self, path: &str) -> bool {
        self.files.get(path).into_iter().flatten().any(|document| document.name().is_none())
    }

    /// Takes a name out of force. True if it was in force.
    fn take(&mut self, name: &ObjectName) -> bool {
        let Some(present) = self.in_force.remove(name) else { return false };
        if let Some(names) = self.held.get_mut(&present.file) {
            names.remove(name);
            if names.is_empty() {
                self.held.remove(&present.file);
            }
        }
        true
    }

    fn place(&self, path: &str, at: usize) -> Option<Origin> {
        match self.files.get(path)?.get(at)? {
            Document::Good { line, .. } => Some(Origin { file: path.to_owned(), line: *line }),
            Document::Refused(refused) => Some(refused.origin.clone()),
        }
    }
}

impl Document {
    /// The name that the document claims, if it can be read.
    fn name(&self) -> Option<&ObjectName> {
        match self {
            Self::Good { name, .. } => Some(name),
            Self::Refused(refused) => refused.name.as_ref(),
        }
    }
}

enum Wanted {
    /// The document at this place, with this hash.
    Document(Place, u64),
    /// Whatever is in force.
    AsItIs,
    Nothing,
}

/// A number for everything that an object says, where it stands included.
fn hash(object: &Object) -> u64 {
    /// Hashes what is formatted, without making a text of it.
    struct Sink(DefaultHasher);
    impl fmt::Write for Sink {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0.write(text.as_bytes());
            Ok(())
        }
    }
    let mut sink = Sink(DefaultHasher::new());
    fmt::write(&mut sink, format_args!("{object:?}")).expect("hashing a text cannot fail");
    sink.0.finish()
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
