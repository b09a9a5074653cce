//! DELs that the plugin wrote down while the agent was away (`crate::plugin::queue` says how): carried out at start,
//! before the first ADD, and looked for again from time to time, since a plugin may find a stopped agent. An ADD carries out
//! the one of its own attachment first, which would else remove what the ADD has made.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sinew_api::cni::Request;

use super::AttachmentKey;
use super::attach::Attacher;
use crate::plugin::queue::{self, FOLDER};

/// DELs of one look at most: a look from time to time takes no longer while ADDs wait.
const AT_ONCE: usize = 1024;
/// A queued request is one line of a few hundred bytes.
const MAX_BYTES: u64 = 64 << 10;

/// A queued DEL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuedDel {
    /// What it is to remove.
    pub key: AttachmentKey,
    /// Its file, to be removed when that is done.
    pub path: PathBuf,
}

/// Where the DEL of an attachment waits, if one does.
pub(super) fn path(state_dir: &Path, key: &AttachmentKey) -> PathBuf {
    queue::path(state_dir, &key.container_id, &key.ifname)
}

/// Carries out every DEL that waits. What can't be done now stays for [`look`].
pub async fn carry_out(attacher: &Attacher, state_dir: &Path) {
    while look(attacher, state_dir).await > 0 {}
}

/// Carries out DELs that wait: how many.
pub async fn look(attacher: &Attacher, state_dir: &Path) -> usize {
    let queued = match read(state_dir) {
        Ok(queued) => queued,
        Err(error) => {
            tracing::warn!(%error, "the queue of DELs cannot be read");
            return 0;
        }
    };
    let mut done = 0;
    for del in queued {
        match attacher.del_queued(&del).await {
            Ok(()) => done += 1,
            Err(error) => tracing::warn!(attachment = %del.key, %error, "a queued DEL has to wait"),
        }
    }
    done
}

/// The DELs that wait. Files that hold none are removed; they are not the plugin's.
///
/// # Errors
/// The folder can't be listed; one that is not there is empty.
fn read(state_dir: &Path) -> io::Result<Vec<QueuedDel>> {
    let entries = match fs::read_dir(state_dir.join(FOLDER)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut queued = Vec::new();
    for entry in entries.take(AT_ONCE) {
        let path = entry?.path();
        // Others are the plugin's, not yet complete.
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        match parse(&path) {
            Ok(Request::Del { container_id, ifname }) => {
                queued.push(QueuedDel { key: AttachmentKey { container_id, ifname }, path });
            }
            Ok(other) => drop_foreign(&path, &format!("it holds {other:?}")),
            Err(error) => drop_foreign(&path, &error.to_string()),
        }
    }
    Ok(queued)
}

/// Forgets a DEL that is done.
///
/// # Errors
/// The file can't be removed.
pub(super) fn done(queued: &QueuedDel) -> io::Result<()> {
    match fs::remove_file(&queued.path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

fn parse(path: &Path) -> io::Result<Request> {
    if fs::symlink_metadata(path)?.len() > MAX_BYTES {
        return Err(io::Error::other("it is too long for a request"));
    }
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

fn drop_foreign(path: &Path, reason: &str) {
    tracing::warn!(path = %path.display(), reason, "a file in the queue of DELs is no DEL and is removed");
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!(path = %path.display(), %error, "it cannot be removed");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sinew_api::cni::Attachment;
    use tokio::sync::{mpsc, watch};

    use super::*;
    use crate::cni::step::Step;
    use crate::netlink::Netlink;
    use crate::view::View;

    /// An attacher, and what it asks to be closed; there are no interfaces.
    fn attacher(state_dir: &Path) -> (Attacher, mpsc::UnboundedReceiver<AttachmentKey>) {
        let (steps, mut asked) = mpsc::channel(8);
        let (close, closed) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(step) = asked.recv().await {
                match step {
                    Step::Close(key, reply) => {
                        close.send(key).unwrap();
                        reply.send(Ok(())).unwrap();
                    }
                    Step::End(_, reply) => reply.send(Ok(())).unwrap(),
                    other => panic!("{other:?}"),
                }
            }
        });
        let (_, view) = watch::channel(Arc::new(View::empty()));
        (Attacher::new(Arc::new(Netlink::open().unwrap()), steps, view, state_dir), closed)
    }

    fn waiting(state_dir: &Path) -> usize {
        fs::read_dir(state_dir.join(FOLDER)).unwrap().count()
    }

    #[tokio::test]
    async fn every_queued_del_is_carried_out_however_many_wait() {
        let state = tempfile::tempdir().unwrap();
        fs::create_dir(state.path().join(FOLDER)).unwrap();
        for id in 0..=AT_ONCE {
            let request = Request::Del { container_id: format!("c{id}"), ifname: "eth0".into() };
            let path = queue::path(state.path(), &format!("c{id}"), "eth0");
            fs::write(path, serde_json::to_vec(&request).unwrap()).unwrap();
        }
        let (attacher, mut closed) = attacher(state.path());
        carry_out(&attacher, state.path()).await;
        assert_eq!(waiting(state.path()), 0);
        drop(attacher);
        let mut count = 0;
        while closed.recv().await.is_some() {
            count += 1;
        }
        assert_eq!(count, AT_ONCE + 1);
    }

    #[tokio::test]
    async fn a_queued_del_comes_before_an_add_of_the_same_attachment_and_not_after() {
        let state = tempfile::tempdir().unwrap();
        let (attacher, mut closed) = attacher(state.path());
        queue::put(state.path(), "c1", "eth0").unwrap();
        queue::put(state.path(), "c2", "eth0").unwrap();
        let found = read(state.path()).unwrap();
        let of_first = found.iter().find(|queued| queued.key.container_id == "c1").unwrap();
        let attachment = Attachment {
            container_id: "c1".into(),
            netns: state.path().join("gone").display().to_string(),
            ifname: "eth0".into(),
            network: String::new(),
            pod_namespace: String::new(),
            pod_name: String::new(),
            pod_uid: String::new(),
            labels: Default::default(),
        };
        assert_eq!(attacher.add(&attachment).await.unwrap_err().code(), 3);
        assert_eq!(closed.try_recv().as_ref(), Ok(&of_first.key));
        assert_eq!(waiting(state.path()), 1, "another's DEL waits");
        // Whoever had read the queue before.
        attacher.del_queued(of_first).await.unwrap();
        assert!(closed.try_recv().is_err());
    }

    #[test]
    fn what_the_plugin_queues_is_read_and_forgotten() {
        let state = tempfile::tempdir().unwrap();
        assert_eq!(read(state.path()).unwrap(), []);
        crate::plugin::queue::put(state.path(), "c1", "eth0").unwrap();
        fs::write(state.path().join(FOLDER).join("c2:eth0.json"), "{}").unwrap();
        fs::write(state.path().join(FOLDER).join("c3:eth0.17.tmp"), "{").unwrap();
        let queued = read(state.path()).unwrap();
        assert_eq!(queued.len(), 1);
        assert_eq!(queued[0].key, AttachmentKey { container_id: "c1".into(), ifname: "eth0".into() });
        done(&queued[0]).unwrap();
        done(&queued[0]).unwrap();
        assert_eq!(read(state.path()).unwrap(), []);
        assert_eq!(
            fs::read_dir(state.path().join(FOLDER)).unwrap().count(),
            1,
            "an incomplete file is not ours"
        );
    }
}
