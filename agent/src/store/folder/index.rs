//! Which object of which file is in force: a value without I/O, told of one file at a time.
//!
//! - The same kind, namespace and name twice: the first path in byte order wins, within a file the first document; the
//!   others are refused and both places are named (policy.md 4).
//! - A document that can't be read keeps the last good version of what its file held under its name; if not even its
//!   name can be read, of everything that the file held and now lacks (policy.md 15). Policies that are understood but
//!   refused pass through: what they keep in force is the engine's business (policy.md 14). Of a group of CIDRs that was
//!   never good, what can be read of it comes into force, for deny rules.
//! - A document of a foreign kind is nobody's: it claims no name and hides none.
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

use sinew_api::object::{Object, ObjectKind, ObjectName, Origin, Problem, Refused};
use sinew_api::policy::CidrGroup;

use crate::store::StoreChange;

/// What a file holds, document by document.
pub(super) type Documents = Vec<Result<Object, Refused>>;

/// All files and what follows from them. Paths and names are shared between the maps.
#[derive(Debug, Default)]
pub(super) struct Index {
    files: BTreeMap<Arc<str>, Box<[Document]>>,
    names: BTreeMap<Arc<ObjectName>, Named>,
    /// Names in force that no document claims, by the unreadable file that they came from.
    held: BTreeMap<Arc<str>, BTreeSet<Arc<ObjectName>>>,
    dirty: BTreeSet<Arc<ObjectName>>,
    /// Objects of files that were told since the last call of [`Self::settle`].
    fresh: BTreeMap<Place, Object>,
    /// Kept from an earlier run, and told to nobody yet.
    untold: BTreeMap<Arc<ObjectName>, Object>,
    /// Whether the list of refusals may differ from the last one.
    refusals_changed: bool,
}

/// What is known of a name; one of which nothing is known has no entry.
#[derive(Debug, Default)]
struct Named {
    /// Who claims it, first one first.
    claims: Vec<Place>,
    in_force: Option<InForce>,
}

/// Path of a file, and number of a document in it.
type Place = (Arc<str>, usize);

/// What is known of a document.
#[derive(Debug)]
enum Document {
    Good { name: Arc<ObjectName>, line: u32, hash: u64 },
    Refused(Box<Refused>, Option<Arc<ObjectName>>),
}

#[derive(Debug)]
struct InForce {
    hash: u64,
    file: Arc<str>,
    /// Only what remains of a refused document: a last good version, were there one, would stand instead.
    remains: bool,
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
            let (name, file) = (Arc::new(object.name()), Arc::from(origin(&object).file.as_str()));
            index.dirty.insert(Arc::clone(&name));
            index.held.entry(Arc::clone(&file)).or_default().insert(Arc::clone(&name));
            let in_force = Some(InForce { hash: hash(&object), file, remains: false });
            index.names.insert(Arc::clone(&name), Named { claims: Vec::new(), in_force });
            index.untold.insert(name, object);
        }
        index
    }

    /// A file holds these documents now; `None`: there is no such file. Its path, as it is shared.
    pub(super) fn set_file(&mut self, path: &str, documents: Option<Documents>) -> Arc<str> {
        let (path, before) =
            self.files.remove_entry(path).unwrap_or_else(|| (Arc::from(path), Box::default()));
        for (position, document) in before.iter().enumerate() {
            self.refusals_changed |= matches!(document, Document::Refused(..));
            let Some(name) = document.name() else { continue };
            self.unclaim(name, &path, position);
            self.dirty.insert(Arc::clone(name));
        }
        let of_file = (Arc::clone(&path), 0)..=(Arc::clone(&path), usize::MAX);
        let stale: Vec<Place> = self.fresh.range(of_file).map(|(place, _)| place.clone()).collect();
        stale.iter().for_each(|place| drop(self.fresh.remove(place)));
        self.dirty.extend(self.held.get(&path).into_iter().flatten().cloned());
        let Some(documents) = documents else { return path };
        let mut known = Vec::with_capacity(documents.len());
        for (position, document) in documents.into_iter().enumerate() {
            let place = (Arc::clone(&path), position);
            let document = match document {
                Ok(object) => {
                    let (line, hash) = (origin(&object).line, hash(&object));
                    let name = self.claim(object.name(), place.clone());
                    self.fresh.insert(place, object);
                    Document::Good { name, line, hash }
                }
                Err(refused) => {
                    self.refusals_changed = true;
                    let name = refused.name.clone().map(|name| self.claim(name, place));
                    Document::Refused(Box::new(refused), name)
                }
            };
            self.dirty.extend(document.name().cloned());
            known.push(document);
        }
        self.files.insert(Arc::clone(&path), known.into());
        path
    }

    /// A document claims a name. The name, as it is shared.
    fn claim(&mut self, name: ObjectName, place: Place) -> Arc<ObjectName> {
        let name =
            self.names.get_key_value(&name).map_or_else(|| Arc::new(name), |(known, _)| Arc::clone(known));
        let claims = &mut self.names.entry(Arc::clone(&name)).or_default().claims;
        let at = claims.partition_point(|other| *other < place);
        // Almost always it is the only one.
        claims.reserve_exact(1);
        claims.insert(at, place);
        self.refusals_changed |= claims.len() > 1;
        name
    }

    /// A document claims a name no more.
    fn unclaim(&mut self, name: &Arc<ObjectName>, path: &Arc<str>, position: usize) {
        let Some(named) = self.names.get_mut(name) else { return };
        self.refusals_changed |= named.claims.len() > 1;
        named.claims.retain(|(file, at)| (file, *at) != (path, position));
        if named.claims.is_empty() && named.in_force.is_none() {
            self.names.remove(name);
        }
    }

    /// Files from which something is in force.
    pub(super) fn held_files(&self) -> impl Iterator<Item = &Arc<str>> {
        self.held.keys()
    }

    /// Whether something that no other file holds would go with this file.
    pub(super) fn holds_alone(&self, path: &str) -> bool {
        let alone = |name: &Arc<ObjectName>| self.files_of(name).all(|file| **file == *path);
        self.held.contains_key(path)
            || self.files.get(path).into_iter().flatten().filter_map(Document::name).any(alone)
    }

    /// The files that claim a name.
    pub(super) fn files_of(&self, name: &ObjectName) -> impl Iterator<Item = &Arc<str>> {
        self.names.get(name).into_iter().flat_map(|named| &named.claims).map(|(file, _)| file)
    }

    /// Objects that were told and wait to be settled.
    pub(super) fn waiting(&self) -> usize {
        self.fresh.len()
    }

    /// Of a first list that is not complete: the objects that agents write, which are nearly all of a large cluster's.
    /// A document that is good is told; a file that is still to come may set its object again, and takes none away.
    /// Everything else waits for [`Self::settle`].
    pub(super) fn settle_agents_objects(&mut self) -> Vec<StoreChange> {
        let of_agents = |name: &&Arc<ObjectName>| {
            matches!(name.kind, ObjectKind::Node | ObjectKind::Endpoint | ObjectKind::Identity)
        };
        let names: Vec<Arc<ObjectName>> = self.dirty.iter().filter(of_agents).cloned().collect();
        let mut settled = Settled::default();
        for name in names {
            if let Wanted::Document(place, hash) = self.wanted(&name) {
                self.dirty.remove(&name);
                self.enforce(name, place, hash, &mut settled);
            }
        }
        settled.changes
    }

    /// What changed since the last call.
    pub(super) fn settle(&mut self) -> Settled {
        let mut settled = Settled::default();
        for name in std::mem::take(&mut self.dirty) {
            match self.wanted(&name) {
                Wanted::Document(place, hash) => self.enforce(name, place, hash, &mut settled),
                Wanted::Remains(file, object) => {
                    let in_force = InForce { hash: hash(&object), file, remains: true };
                    if self.in_force(&name).is_none_or(|present| present.hash != in_force.hash) {
                        settled.changes.push(StoreChange::Set(object));
                    }
                    self.take(&name);
                    self.names.entry(name).or_default().in_force = Some(in_force);
                }
                Wanted::AsItIs => {
                    self.hold(&name);
                    if let Some(object) = self.untold.remove(&name) {
                        settled.changes.push(StoreChange::Set(Box::new(object)));
                    }
                }
                Wanted::Nothing => {
                    let untold = self.untold.remove(&name).is_some();
                    if self.take(&name) && !untold {
                        settled.changes.push(StoreChange::Removed(ObjectName::clone(&name)));
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
    fn enforce(&mut self, name: Arc<ObjectName>, place: Place, hash: u64, settled: &mut Settled) {
        let as_before = self.in_force(&name).is_some_and(|present| present.hash == hash);
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
        self.names.entry(name).or_default().in_force = Some(InForce { hash, file: place.0, remains: false });
    }

    /// Notes that a name is in force although no document claims it: its file says when that ends.
    fn hold(&mut self, name: &Arc<ObjectName>) {
        if let Some(file) = self.in_force(name).map(|present| Arc::clone(&present.file)) {
            self.held.entry(file).or_default().insert(Arc::clone(name));
        }
    }

    fn in_force(&self, name: &ObjectName) -> Option<&InForce> {
        self.names.get(name)?.in_force.as_ref()
    }

    /// Every document that is refused, if that may have changed since the last call: in the order of their files.
    pub(super) fn take_refusals(&mut self) -> Option<Vec<Refused>> {
        if !std::mem::take(&mut self.refusals_changed) {
            return None;
        }
        let mut refusals: Vec<Refused> = Vec::new();
        for document in self.files.values().flatten() {
            if let Document::Refused(refused, _) = document {
                refusals.push(Refused::clone(refused));
            }
        }
        for (name, named) in self.names.iter().filter(|(_, named)| named.claims.len() > 1) {
            let places: Vec<Origin> =
                named.claims.iter().filter_map(|(path, at)| self.place(path, *at)).collect();
            let Some((first, others)) = places.split_first() else { continue };
            for other in others {
                refusals.push(duplicate(name, first, other));
            }
        }
        refusals.sort_by(|one, other| one.origin.cmp(&other.origin));
        Some(refusals)
    }

    fn wanted(&self, name: &ObjectName) -> Wanted {
        let first = self.names.get(name).and_then(|named| named.claims.first());
        match first.and_then(|place| Some((place, self.files.get(&place.0)?.get(place.1)?))) {
            Some((place, Document::Good { hash, .. })) => Wanted::Document(place.clone(), *hash),
            Some((place, Document::Refused(refused, _))) => match &refused.remains {
                Some(group) if self.in_force(name).is_none_or(|present| present.remains) => {
                    let object = Object::CidrGroup(CidrGroup::clone(group));
                    Wanted::Remains(Arc::clone(&place.0), Box::new(object))
                }
                _ => Wanted::AsItIs,
            },
            None => match self.in_force(name) {
                Some(present) if self.hides(&present.file) => Wanted::AsItIs,
                _ => Wanted::Nothing,
            },
        }
    }

    /// Whether a file has a document of which not even the name can be read: it may be any that the file held before.
    fn hides(&self, path: &str) -> bool {
        let mut documents = self.files.get(path).into_iter().flatten();
        documents.any(|document| matches!(document, Document::Refused(refused, _) if refused.is_unreadable()))
    }

    /// Takes a name out of force. True if it was in force.
    fn take(&mut self, name: &ObjectName) -> bool {
        let Some(named) = self.names.get_mut(name) else { return false };
        let Some(present) = named.in_force.take() else { return false };
        if named.claims.is_empty() {
            self.names.remove(name);
        }
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
            Document::Refused(refused, _) => Some(refused.origin.clone()),
        }
    }
}

impl Document {
    /// The name that the document claims, if it can be read.
    fn name(&self) -> Option<&Arc<ObjectName>> {
        match self {
            Self::Good { name, .. } => Some(name),
            Self::Refused(_, name) => name.as_ref(),
        }
    }
}

enum Wanted {
    /// The document at this place, with this hash.
    Document(Place, u64),
    /// What can be read of a refused document in this file.
    Remains(Arc<str>, Box<Object>),
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
    Refused::new(Some(name.clone()), other.clone(), vec![problem])
}

#[cfg(test)]
mod tests;
