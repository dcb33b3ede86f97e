//! The state directory: who this host is, and what it must not forget.
//!
//! `identity` and `noise` hold a secret key each and are written once; `state` holds the bytes of the mesh and is replaced as a
//! whole ([`StateFile`]); `secrets` holds those of the cluster once it went over to another one. A damaged file never keeps a host from starting: it is set aside, and the host goes on
//! without it. The directory is locked for as long as it is in use: there is one writer.

mod file;
mod lock;

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

pub use file::{Contents, StateFile};
use lock::DirLock;
use nix::unistd::geteuid;
use zeroize::Zeroizing;

use crate::keyring::Keyring;
use crate::mesh::Mesh;
use crate::records::ClusterId;

const IDENTITY: &str = "identity";
const NOISE: &str = "noise";
const STATE: &str = "state";
const SECRETS: &str = "secrets";

/// What people are told of the directory: one word for programs, one line.
pub(super) type Warning = (&'static str, String);

/// The state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process uses the directory.
    #[error("the state directory {path} is in use by {holder}")]
    Locked {
        /// The directory.
        path: PathBuf,
        /// Who has it, as far as it can be known.
        holder: String,
    },
    /// The state is damaged.
    #[error("{path} is damaged ({reason})")]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A newer program wrote the file.
    #[error("{path} was written by a newer meshnet (format {found}, this one reads {})", file::FORMAT)]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// The operating system refused.
    #[error("cannot {action} {path}: {}", plain(.source))]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What was answered.
        source: io::Error,
    },
}

/// The cluster to which the state in a directory belongs. Makes nothing, and sets nothing aside.
///
/// # Errors
/// Another process uses the directory, or the state cannot be read: then it may belong to one.
pub fn stored_cluster(dir: &Path) -> Result<Option<ClusterId>, StoreError> {
    if !dir.exists() {
        return Ok(None);
    }
    let _lock = DirLock::take(dir)?;
    let file = StateFile::new(dir, STATE);
    let damaged = |reason: String| StoreError::State { path: file.path(), reason };
    match file.read()? {
        Contents::Absent => Ok(None),
        Contents::Damaged(reason) => Err(damaged(reason)),
        Contents::Whole(bytes) => Mesh::stored_cluster(&bytes).map_err(|error| damaged(error.to_string())),
    }
}

/// The message of an operating system error without its number.
pub(super) fn plain(error: &io::Error) -> String {
    let text = error.to_string().to_lowercase();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// An open state directory; dropping it lets others use it.
#[derive(Debug)]
pub(super) struct Store {
    identity: StateFile,
    noise: StateFile,
    state: StateFile,
    secrets: StateFile,
    warnings: Vec<Warning>,
    _lock: DirLock,
}

impl Store {
    /// Makes the directory if needed (mode 0700) and takes its lock. One that cannot be written is good enough to
    /// start from, if everything is in it.
    pub(super) fn open(dir: &Path) -> Result<Self, StoreError> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed("create", dir))?;
        let mut warnings = Vec::new();
        let meta = fs::metadata(dir).map_err(failed("read", dir))?;
        let (mode, owner) = (meta.permissions().mode() & 0o777, meta.uid());
        if mode & 0o022 != 0 || owner != geteuid().as_raw() {
            let message = format!(
                "others may write in the state directory {} (mode {mode:03o}, owner {owner}): `chown root` and \
                 `chmod 700` it",
                dir.display()
            );
            warnings.push(("state_dir_open", message));
        }
        let lock = DirLock::take(dir)?;
        let file = |name| StateFile::new(dir, name);
        let (identity, noise, state, secrets) = (file(IDENTITY), file(NOISE), file(STATE), file(SECRETS));
        Ok(Store { identity, noise, state, secrets, warnings, _lock: lock })
    }

    /// What people should know about the directory, each told once.
    pub(super) fn take_warnings(&mut self) -> Vec<Warning> {
        std::mem::take(&mut self.warnings)
    }

    /// The secret of this host (mode 0600). On the first start `fresh` becomes it, and also when the file is damaged:
    /// then this is another host from now on, which is told.
    pub(super) fn identity(&mut self, fresh: impl FnOnce() -> Vec<u8>) -> Result<Vec<u8>, StoreError> {
        match self.identity.read()? {
            Contents::Whole(secret) => {
                self.close_to_others(&self.identity.path());
                return Ok(secret);
            }
            Contents::Absent => {}
            Contents::Damaged(reason) => {
                // Without a place for the new keys nothing is touched.
                let aside = self.identity.set_aside()?;
                let message = format!(
                    "the keys in {} are damaged ({reason}) and kept as {}: this host has new ones, and is another host \
                     to the others. Put the right file back and launch again, or remove the former host with \
                     `meshnet rmpeer`",
                    self.identity.path().display(),
                    aside.display()
                );
                self.warnings.push(("identity_lost", message));
            }
        }
        let secret = fresh();
        self.identity.replace(&secret)?;
        Ok(secret)
    }

    /// The secret key for sealed frames (mode 0600). Nobody but this host misses a damaged one: the others are told of the
    /// new one.
    pub(super) fn noise(&mut self, fresh: impl FnOnce() -> Vec<u8>) -> Result<Vec<u8>, StoreError> {
        match self.noise.read()? {
            Contents::Whole(secret) => {
                self.close_to_others(&self.noise.path());
                return Ok(secret);
            }
            Contents::Absent => {}
            Contents::Damaged(reason) => {
                let aside = self.noise.set_aside()?;
                let message = format!(
                    "the key in {} is damaged ({reason}) and kept as {}: there is a new one, which the other hosts learn",
                    self.noise.path().display(),
                    aside.display()
                );
                self.warnings.push(("noise_key_lost", message));
            }
        }
        let secret = fresh();
        self.noise.replace(&secret)?;
        Ok(secret)
    }

    /// Something that people should know of the directory.
    pub(super) fn warn(&mut self, kind: &'static str, message: String) {
        self.warnings.push((kind, message));
    }

    fn close_to_others(&mut self, path: &Path) {
        let Ok(meta) = fs::metadata(path) else { return };
        let mode = meta.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            let closed = match fs::set_permissions(path, Permissions::from_mode(0o600)) {
                Ok(()) => "closed now".to_owned(),
                Err(error) => format!("and cannot be closed ({})", plain(&error)),
            };
            let message = format!(
                "{} was open to others (mode {mode:03o}): {closed}, but the keys may be known",
                path.display()
            );
            self.warnings.push(("identity_open", message));
        }
    }

    /// The bytes last given to [`Store::save`]; a damaged file is set aside, with a warning.
    pub(super) fn load(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        match self.state.read()? {
            Contents::Absent => Ok(None),
            Contents::Whole(bytes) => Ok(Some(bytes)),
            Contents::Damaged(reason) => {
                self.set_aside(&reason);
                Ok(None)
            }
        }
    }

    /// Moves the state out of the way, with a warning that says why.
    pub(super) fn set_aside(&mut self, reason: &str) {
        let kept = match self.state.set_aside() {
            Ok(aside) => format!("it is kept as {}", aside.display()),
            Err(error) => error.to_string(),
        };
        let message = format!(
            "the state in {} is damaged ({reason}): {kept}; records come back from the other hosts, addresses from the \
             interfaces",
            self.state.path().display()
        );
        self.warnings.push(("state_set_aside", message));
    }

    /// The secrets last given to [`Store::save_keyring`]; a damaged file is set aside, with a warning.
    pub(super) fn keyring(&mut self) -> Result<Option<Keyring>, StoreError> {
        let reason = match self.secrets.read()? {
            Contents::Absent => return Ok(None),
            Contents::Damaged(reason) => reason,
            Contents::Whole(bytes) => match Keyring::restore(&Zeroizing::new(bytes)) {
                Ok(keyring) => {
                    self.close_to_others(&self.secrets.path());
                    return Ok(Some(keyring));
                }
                Err(error) => error.to_string(),
            },
        };
        let aside = self.secrets.set_aside()?;
        let message = format!(
            "the secrets in {} are damaged ({reason}) and kept as {}: the secret that this host was launched with is used; if \
             the others refuse it, launch it with theirs",
            self.secrets.path().display(),
            aside.display()
        );
        self.warnings.push(("secrets_lost", message));
        Ok(None)
    }

    /// Replaces the secrets (mode 0600): on return they are on disk, or the former ones still are.
    pub(super) fn save_keyring(&self, keyring: &Keyring) -> Result<(), StoreError> {
        let bytes = keyring
            .save()
            .map_err(|error| StoreError::State { path: self.secrets.path(), reason: error.to_string() })?;
        self.secrets.replace(&bytes)
    }

    /// Replaces the state: on return it is on disk, or the old one still is.
    pub(super) fn save(&self, bytes: &[u8]) -> Result<(), StoreError> {
        self.state.replace(bytes)
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { action, path, source }
}

/// True when nothing can be written there now, and reading may well work.
fn is_unwritable(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ReadOnlyFilesystem | ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests;
