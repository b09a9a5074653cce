//! What the agent needs of the running kernel: a release that the programs were tested on, and enough descriptors.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::utsname::uname;

/// The oldest kernel that is tested (Debian 13's).
const MINIMUM: (u32, u32) = (6, 12);

/// One for each policy table that a node can have (`MOST_TABLES` of `datapath/tables.rs`), and some 1024 for all else.
const OPEN_FILES: u64 = 9216;

/// A kernel that is too old, or of which that can't be told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// It is older.
    #[error("this kernel is {release}, and Sinew needs {}.{} or newer: Debian 13 has one", MINIMUM.0, MINIMUM.1)]
    TooOld {
        /// Its release.
        release: String,
    },
    /// Its release is no version.
    #[error("the kernel's release {release:?} is no version, and Sinew needs {}.{} or newer", MINIMUM.0, MINIMUM.1)]
    Unreadable {
        /// Its release.
        release: String,
    },
}

/// The running kernel's release.
///
/// # Errors
/// [`KernelError`].
pub fn check() -> Result<String, KernelError> {
    let release = uname().map(|names| names.release().to_string_lossy().into_owned()).unwrap_or_default();
    check_release(&release)?;
    Ok(release)
}

/// Raises the soft limit of open descriptors to the hard one, and the hard one too if it is lower than what a full node
/// takes. A lower limit shows only when the tables reach it.
pub fn raise_open_files() {
    let outcome = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        let hard = hard.max(OPEN_FILES);
        if soft >= hard { Ok(()) } else { setrlimit(Resource::RLIMIT_NOFILE, hard, hard) }
    });
    if let Err(error) = outcome {
        tracing::warn!(%error, wanted = OPEN_FILES, "the limit of open descriptors cannot be raised");
    }
}

fn check_release(release: &str) -> Result<(), KernelError> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= MINIMUM => Ok(()),
        (Some(Ok(_)), Some(Ok(_))) => Err(KernelError::TooOld { release: release.to_owned() }),
        _ => Err(KernelError::Unreadable { release: release.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_node_may_open_its_tables() {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, soft.min(256), hard).unwrap();
        raise_open_files();
        let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert!(soft >= hard.min(OPEN_FILES), "{soft}");
    }

    #[test]
    fn releases() {
        for good in ["6.12.0", "6.12.41+deb13-cloud-amd64", "6.18.44-fc-v657", "7.0-rc1", "10.1"] {
            assert_eq!(check_release(good), Ok(()), "{good}");
        }
        for old in ["6.11.9-generic", "6.1.0-37-amd64", "5.15.0"] {
            let error = check_release(old).unwrap_err();
            let sentence = format!("this kernel is {old}, and Sinew needs 6.12 or newer: Debian 13 has one");
            assert_eq!(error.to_string(), sentence);
        }
        assert!(matches!(check_release("next"), Err(KernelError::Unreadable { .. })));
    }
}
