//! Unix sockets that only root may use, and that are never there with another mode.
//!
//! Neighbours: `crate::cni::server` and `crate::server` listen on them.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tokio::net::UnixListener;

/// Makes a socket, in place of one that a killed agent left.
///
/// # Errors
/// The socket can't be made, or another agent listens on it.
pub(crate) fn bind(path: &Path) -> io::Result<UnixListener> {
    if is_served(path) {
        return Err(io::Error::other(format!("another agent listens on {}", path.display())));
    }
    // Made under another name and moved into place when its mode is right.
    let temporary = path.with_extension("new");
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&temporary)?;
    fs::set_permissions(&temporary, fs::Permissions::from_mode(0o600))?;
    fs::rename(&temporary, path)?;
    Ok(listener)
}

/// Whether somebody listens on a socket.
#[must_use]
pub(crate) fn is_served(path: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(path).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_roots_alone_and_has_one_listener() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.sock");
        fs::write(&path, "left by somebody").unwrap();
        let listener = bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(bind(&path).unwrap_err().to_string().contains("another agent"));
        drop(listener);
        assert!(!is_served(&path));
        bind(&path).unwrap();
    }
}
