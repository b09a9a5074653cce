//! The node's CNI socket: one request line, one answer line, then the plugin closes.
//!
//! A plugin that is killed while its ADD runs, or before it has read the answer, leaves a connection that breaks: the
//! ADD is undone, for nobody will ever be told that it stands.
//!
//! Tasks: one accepts, one serves each connection; both belong to the `LocalSet` of the control thread and end with it.
//! A connection's task owns its socket only, so dropping it anywhere leaves at most an attachment in the phase "adding"
//! or "removing", which the next start undoes.

use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sinew_api::cni::{Request, Response};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::attach::Attacher;
use super::ledger::key_of;
use super::{AttachmentKey, Refusal};
use crate::metrics::Counted;
use crate::socket;

/// Name of the socket under the run folder.
pub const SOCKET: &str = "cni.sock";
/// Requests that are served side by side: a kubelet starts its 110 pods at once. More wait to be accepted.
const CONNECTIONS: usize = 128;
/// A request is a few hundred bytes; a GC names every attachment of the node.
const MAX_REQUEST_BYTES: u64 = 1 << 20;
/// A plugin writes its request as soon as it is connected, and closes as soon as it has the answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Makes the socket, in place of one that a killed agent left. Only root may use it.
///
/// # Errors
/// The socket can't be made, or another agent listens on it.
pub fn bind(run_dir: &Path) -> io::Result<UnixListener> {
    socket::bind(&run_dir.join(SOCKET))
}

/// Serves the socket until the task is dropped. Must run in a `LocalSet`.
pub async fn serve(listener: UnixListener, attacher: Rc<Attacher>, counted: Arc<Counted>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (attacher, counted) = (attacher.clone(), counted.clone());
                tokio::task::spawn_local(async move {
                    if let Err(error) = serve_one(stream, &attacher, &counted).await {
                        tracing::debug!(%error, "a CNI connection broke");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: they come back when requests end.
                tracing::warn!(%error, "cannot accept a CNI connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve_one(stream: UnixStream, attacher: &Attacher, counted: &Counted) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader.take(MAX_REQUEST_BYTES));
    let mut line = String::new();
    timeout(PATIENCE, reader.read_line(&mut line)).await??;
    let begun = Instant::now();
    let request = match serde_json::from_str::<Request>(&line) {
        Ok(request) => request,
        Err(error) => {
            let response = Refusal::Request(error.to_string()).response();
            counted.cni(None, &response, begun.elapsed());
            return answer(&mut writer, &response).await;
        }
    };
    let response = carry_out(attacher, &request).await.unwrap_or_else(|refusal| refusal.response());
    counted.cni(Some(&request), &response, begun.elapsed());
    if let Response::Refused { code, message, .. } = &response {
        tracing::warn!(code, message, "a CNI request is refused");
    }
    let mut heard = answer(&mut writer, &response).await;
    if heard.is_ok() {
        // The plugin closes when it has the answer. If it died with the answer unread, the kernel says so
        // (ECONNRESET: unix(7) sockets report unread data at close).
        let mut rest = [0; 16];
        heard = match timeout(PATIENCE, reader.read(&mut rest)).await {
            Ok(Err(error)) => Err(error),
            Ok(Ok(_)) | Err(_) => Ok(()),
        };
    }
    if let (Err(error), Response::Added(_), Request::Add(attachment)) = (&heard, &response, &request) {
        let key = key_of(attachment);
        tracing::warn!(attachment = %key, %error, "nobody heard that it stands; the ADD is undone");
        if let Err(error) = attacher.del(&key).await {
            tracing::error!(attachment = %key, %error, "an unheard ADD cannot be undone yet");
        }
    }
    heard
}

async fn carry_out(attacher: &Attacher, request: &Request) -> Result<Response, Refusal> {
    match request {
        Request::Add(attachment) => attacher.add(attachment).await.map(Response::Added),
        Request::Del { container_id, ifname } => {
            let key = AttachmentKey { container_id: container_id.clone(), ifname: ifname.clone() };
            attacher.del(&key).await.map(|()| Response::Done)
        }
        Request::Check(attachment) => attacher.check(attachment).await.map(Response::Added),
        Request::Gc { network, valid } => {
            let valid: Vec<AttachmentKey> = valid
                .iter()
                .map(|(container_id, ifname)| AttachmentKey {
                    container_id: container_id.clone(),
                    ifname: ifname.clone(),
                })
                .collect();
            attacher.gc(network, &valid).await.map(|()| Response::Done)
        }
        Request::Status => attacher.status().await.map(|()| Response::Done),
    }
}

async fn answer(writer: &mut (impl AsyncWriteExt + Unpin), response: &Response) -> io::Result<()> {
    let mut line = serde_json::to_vec(response)?;
    line.push(b'\n');
    writer.write_all(&line).await?;
    writer.flush().await
}
