//! Visits to a pod's network namespace. A namespace belongs to a thread, so each visit is a thread of its own that ends
//! with it: nothing of the agent can be left behind in the wrong namespace.
//!
//! Neighbours: [`super::veth`] does the visiting; `crate::cni` turns the errors into CNI codes.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};
use tokio::sync::oneshot;

use super::{Netlink, NetlinkError};

/// Why a path cannot serve as a pod's namespace.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// There is nothing at the path (any more).
    #[error("network namespace {path} is gone: {source}")]
    Gone {
        /// The path.
        path: PathBuf,
        /// Why it could not be opened.
        #[source]
        source: io::Error,
    },
    /// There is something, but not a network namespace.
    #[error("{0} is not a network namespace")]
    NotANamespace(PathBuf),
    /// It is the node's own, which a pod of the host network has; such pods get no interface.
    #[error("{0} is the node's own network namespace")]
    Own(PathBuf),
    /// The visit could not begin or did not end.
    #[error("cannot work in network namespace {path}: {source}")]
    Visit {
        /// The path.
        path: PathBuf,
        /// What failed.
        #[source]
        source: io::Error,
    },
}

/// An open network namespace of a pod. While it is open the namespace stays, even if its last process ends.
#[derive(Debug)]
pub struct PodNamespace {
    file: File,
    path: PathBuf,
}

impl PodNamespace {
    /// Opens a path such as `/run/netns/…` or `/proc/…/ns/net` and makes sure that it is another network namespace.
    ///
    /// # Errors
    /// All but [`NamespaceError::Visit`].
    pub fn open(path: &Path) -> Result<Self, NamespaceError> {
        // Non-blocking: the path may be a pipe, whose opening would wait for a writer.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .map_err(|source| NamespaceError::Gone { path: path.into(), source })?;
        let not_a_namespace = || NamespaceError::NotANamespace(path.into());
        if fstatfs(&file).map_err(|_| not_a_namespace())?.filesystem_type() != NSFS_MAGIC {
            return Err(not_a_namespace());
        }
        let identity = |file: &File| file.metadata().map(|metadata| (metadata.dev(), metadata.ino()));
        let own = File::open("/proc/thread-self/ns/net").and_then(|own| identity(&own));
        let theirs = identity(&file);
        match (own, theirs) {
            (Ok(own), Ok(theirs)) if own == theirs => Err(NamespaceError::Own(path.into())),
            (Ok(_), Ok(_)) => Ok(Self { file, path: path.into() }),
            (Err(source), _) | (_, Err(source)) => Err(NamespaceError::Visit { path: path.into(), source }),
        }
    }

    /// The descriptor, for a netlink message that puts a link there.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Runs `visit` on a new thread inside the namespace, with a netlink connection of that namespace.
    ///
    /// # Errors
    /// What `visit` returns, or [`NamespaceError::Visit`].
    pub async fn visit<T, F>(&self, visit: F) -> Result<T, NetlinkError>
    where
        T: Send + 'static,
        F: AsyncFnOnce(Netlink) -> Result<T, NetlinkError> + Send + 'static,
    {
        let failed = |source| NamespaceError::Visit { path: self.path.clone(), source };
        let file = self.file.try_clone().map_err(failed)?;
        let path = self.path.clone();
        let (answer, outcome) = oneshot::channel();
        std::thread::Builder::new()
            .name("pod-namespace".into())
            .spawn(move || {
                // The visitor may have given up waiting; then nobody wants the outcome.
                let _unwanted = answer.send(inside(&file, path, visit));
            })
            .map_err(failed)?;
        outcome.await.map_err(|_| failed(io::Error::other("the thread that worked there ended early")))?
    }
}

/// The body of a visit's thread.
fn inside<T, F>(file: &File, path: PathBuf, visit: F) -> Result<T, NetlinkError>
where
    F: AsyncFnOnce(Netlink) -> Result<T, NetlinkError>,
{
    match setns(file, CloneFlags::CLONE_NEWNET) {
        Ok(()) => {}
        // setns(2): the descriptor is a namespace, but not of this type.
        Err(nix::Error::EINVAL) => return Err(NamespaceError::NotANamespace(path).into()),
        Err(error) => return Err(NamespaceError::Visit { path, source: error.into() }.into()),
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| NamespaceError::Visit { path, source })?;
    runtime.block_on(async { visit(Netlink::open()?).await })
}
