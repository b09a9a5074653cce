//! Files of the folder as documents, whatever somebody puts there: huge and unreadable files, pipes, loops of links.
//!
//! A file's path, relative to the folder, says what it may hold: people's files have policies, groups, pods and
//! namespaces; each of the agents' folders has its own kind, under the name that the path says.
#![allow(
    clippy::result_large_err,
    reason = "what is refused is as much of an answer as an object, and smaller"
)]

use std::fs::{self, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use sinew_api::object::folder::{MAX_DEPTH, MAX_FILES, is_hidden, is_object_file};
use sinew_api::object::{Object, ObjectKind, ObjectName, Origin, Problem, Refused, decode_bytes};
use sinew_api::yaml;

use super::area;
use super::index::Documents;

/// What tells one content of a file from another without reading it: a hash of device, inode, size and both times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint(u64);

/// A file as it is now.
#[derive(Debug)]
pub(super) enum Reading {
    /// There is no such file, or nothing that may hold objects.
    Gone,
    /// Its documents.
    Documents(Fingerprint, Documents),
}

/// Everything below the folder that may hold objects, and the folders to watch; relative paths.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) files: Vec<String>,
    pub(super) folders: Vec<String>,
}

/// Lists a folder and what is below it. `start` is relative, empty for the whole store.
pub(super) fn list(root: &Path, start: &str) -> Listing {
    let mut walk = Walk::from([start]);
    let mut listing = Listing::default();
    while let Some((folder, files)) = walk.step(root, |_| {}) {
        listing.folders.push(folder);
        listing.files.extend(files);
    }
    listing
}

/// A walk through folders, one at a time.
#[derive(Debug)]
pub(super) struct Walk {
    open: Vec<String>,
    /// Files found so far.
    found: usize,
    /// Folders that could not be listed: what is below them may be there or not.
    unlisted: Vec<String>,
    /// Why nothing of the store can be listed, or not what agents have written there.
    pub(super) failure: Option<String>,
    /// The first file or folder that is not read, and why; and how many more there are.
    unread: Option<(String, usize)>,
}

impl Walk {
    /// Begins at the folders of objects: agents' come before people's.
    pub(super) fn of_store() -> Self {
        Self::from(["", area::NODES, area::ENDPOINTS, area::IDENTITIES])
    }

    /// Begins at some folders.
    pub(super) fn from<'a>(starts: impl IntoIterator<Item = &'a str>) -> Self {
        let open = starts.into_iter().map(str::to_owned).collect();
        Self { open, found: 0, unlisted: Vec::new(), failure: None, unread: None }
    }

    /// Lists the next folder, after somebody was told of it; nothing at the end.
    pub(super) fn step(
        &mut self,
        root: &Path,
        mut before: impl FnMut(&str),
    ) -> Option<(String, Vec<String>)> {
        loop {
            let folder = self.open.pop()?;
            if folder.split('/').count() > MAX_DEPTH {
                self.pass_by(|| format!("{folder} is more than {MAX_DEPTH} folders deep and is not read"));
                continue;
            }
            before(&folder);
            match entries(root, &folder) {
                Ok(entries) => {
                    let mut files = Vec::new();
                    for (path, is_folder) in entries {
                        if is_folder {
                            self.open.push(path);
                        } else if self.found < MAX_FILES {
                            self.found += 1;
                            files.push(path);
                        } else {
                            self.pass_by(|| {
                                format!("the folder has more than {MAX_FILES} files; {path} is not read")
                            });
                        }
                    }
                    return Some((folder, files));
                }
                // It went away between two looks.
                Err(error) if error.kind() == io::ErrorKind::NotFound && !folder.is_empty() => {}
                Err(error) => {
                    let message = match folder.as_str() {
                        "" => format!("the store's folder cannot be listed: {error}"),
                        _ => format!("folder {folder:?} of the store cannot be listed: {error}"),
                    };
                    if folder.is_empty() || is_agents(&folder) {
                        self.failure = Some(message);
                    } else {
                        self.pass_by(|| message);
                    }
                    self.unlisted.push(folder);
                }
            }
        }
    }

    fn pass_by(&mut self, message: impl FnOnce() -> String) {
        match &mut self.unread {
            Some((_, more)) => *more += 1,
            None => self.unread = Some((message(), 0)),
        }
    }

    /// What is not read although the store is, and why.
    pub(super) fn warning(&self) -> Option<String> {
        self.unread.as_ref().map(|(first, more)| match more {
            0 => first.clone(),
            more => format!("{first}; nor are {more} more files or folders"),
        })
    }

    /// Whether a file may be there although no folder listed it.
    pub(super) fn may_have_passed(&self, path: &str) -> bool {
        self.unlisted.iter().any(|folder| {
            folder.is_empty() || path.strip_prefix(folder.as_str()).is_some_and(|rest| rest.starts_with('/'))
        })
    }
}

/// The files and folders directly in a folder, hidden ones and others' kinds of file left out.
fn entries(root: &Path, folder: &str) -> io::Result<Vec<(String, bool)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root.join(folder))? {
        let entry = entry?;
        // Paths are printed, compared and written into statuses; a name that is no text is passed over.
        let Ok(name) = entry.file_name().into_string() else { continue };
        let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        let kind = entry.file_type()?;
        if kind.is_dir() {
            // Agents' folders have walks begin at them.
            if reads_folder(&path) && !is_hidden(&name) {
                found.push((path, true));
            }
        } else if reads_file(&path) {
            found.push((path, false));
        }
    }
    found.sort();
    Ok(found)
}

/// Whether objects are read below this folder.
pub(super) fn reads_folder(path: &str) -> bool {
    match path.split('/').next().unwrap_or_default() {
        area::NODES | area::IDENTITIES => !path.contains('/'),
        area::ENDPOINTS => path.split('/').count() <= 2,
        _ => !path.split('/').any(is_hidden),
    }
}

/// Whether this file may hold objects.
pub(super) fn reads_file(path: &str) -> bool {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    is_object_file(name) && (folder.is_empty() || reads_folder(folder))
}

/// Whether this file is an agent's. Agents replace their files whole, so one that is not there has been taken back.
pub(super) fn is_agents(path: &str) -> bool {
    is_hidden(path)
}

/// The fingerprint of a file, if it is there.
pub(super) fn fingerprint(root: &Path, path: &str) -> Option<Fingerprint> {
    fs::metadata(root.join(path)).ok().map(|metadata| Fingerprint::of(&metadata))
}

/// Reads one file. Symbolic links to files are followed, as mounted ConfigMaps need it; links to folders are not.
pub(super) fn read(root: &Path, path: &str) -> Reading {
    if !reads_file(path) {
        return Reading::Gone;
    }
    let full = root.join(path);
    // Non-blocking: the name may be a pipe's.
    let file = match OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&full) {
        Ok(file) => file,
        Err(error) if is_nothing(&error) && fs::symlink_metadata(&full).is_err() => return Reading::Gone,
        Err(error) => return unreadable(path, format!("the file cannot be read: {error}")),
    };
    let metadata = match file.metadata() {
        Ok(metadata) => metadata,
        Err(error) => return unreadable(path, format!("the file cannot be read: {error}")),
    };
    if metadata.is_dir() {
        return Reading::Gone;
    }
    if !metadata.is_file() {
        return unreadable(path, "this is neither a file nor a folder".into());
    }
    let mut bytes = Vec::new();
    let limit = yaml::MAX_BYTES as u64;
    if let Err(error) = file.take(limit + 1).read_to_end(&mut bytes) {
        return unreadable(path, format!("the file cannot be read: {error}"));
    }
    if bytes.len() as u64 > limit {
        return unreadable(path, format!("the file is larger than {limit} bytes: split it"));
    }
    if bytes.is_empty() {
        // What a writer that truncates first leaves for a moment; nobody says "no policy" this way.
        let message = "the file is empty; what it held stays in force: delete the file to remove that";
        return unreadable(path, message.into());
    }
    let documents = decode_bytes(path, &bytes).into_iter().map(|document| admit(path, document)).collect();
    Reading::Documents(Fingerprint::of(&metadata), documents)
}

/// The name of a document, as far as it can be read.
pub(super) fn name(document: &Result<Object, Refused>) -> Option<ObjectName> {
    match document {
        Ok(object) => Some(object.name()),
        Err(refused) => refused.name.clone(),
    }
}

impl Fingerprint {
    fn of(metadata: &fs::Metadata) -> Self {
        let mut hasher = DefaultHasher::new();
        (metadata.dev(), metadata.ino(), metadata.len()).hash(&mut hasher);
        (metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()).hash(&mut hasher);
        Self(hasher.finish())
    }
}

/// Whether there is nothing at a path, not even the folder above, which may be a file now.
fn is_nothing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// A whole file that stands for one document of which nothing can be read.
fn unreadable(path: &str, message: String) -> Reading {
    let nothing = Fingerprint(0);
    Reading::Documents(nothing, vec![Err(refused(path, Origin { file: path.into(), line: 0 }, message))])
}

fn refused(path: &str, origin: Origin, message: String) -> Refused {
    Refused::new(None, origin.clone(), vec![Problem { path: path.to_owned(), message, origin }])
}

/// Refuses an object that does not belong where it stands.
fn admit(path: &str, document: Result<Object, Refused>) -> Result<Object, Refused> {
    let object = document?;
    let origin = super::index::origin(&object).clone();
    let wrong = |field: &str, message: String| {
        let problem = Problem { path: field.to_owned(), message, origin: origin.clone() };
        Err(Refused::new(Some(object.name()), origin.clone(), vec![problem]))
    };
    let mut parts = path.split('/');
    let area = parts.next().unwrap_or_default();
    let stem = path.rsplit('/').next().and_then(|name| name.rsplit_once('.')).map_or("", |(stem, _)| stem);
    let name = object.name();
    match (area, name.kind) {
        (area::NODES, ObjectKind::Node)
        | (area::IDENTITIES, ObjectKind::Identity)
        | (area::ENDPOINTS, ObjectKind::Endpoint) => {}
        (area::NODES | area::IDENTITIES | area::ENDPOINTS, _) => {
            return wrong("kind", format!("agents keep no {} under {area}", name.kind.kind()));
        }
        (_, ObjectKind::Node | ObjectKind::Identity | ObjectKind::Endpoint) => {
            return wrong(
                "kind",
                format!("{} is written by agents only, under a dotted folder", name.kind.kind()),
            );
        }
        _ => return Ok(object),
    }
    if name.name != stem {
        return wrong("metadata.name", format!("the file's name says {stem:?}"));
    }
    if let (Object::Endpoint(endpoint), Some(node)) = (&object, parts.next())
        && endpoint.node != node
    {
        return wrong("spec.node", format!("the folder says that it is on {node:?}"));
    }
    Ok(object)
}
