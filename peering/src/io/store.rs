//! The state directory: who this host is, and what it must not forget.
//!
//! `identity` holds the secret keys and is written once; `state` holds the bytes of the mesh and is replaced as
//! a whole: written beside, flushed, renamed, and the directory flushed. Both start with a header that shows a
//! torn or foreign file. `lock` is held for as long as the directory is in use: there is one writer.

mod lock;

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use lock::DirLock;

/// The first bytes of both files.
const MAGIC: [u8; 8] = *b"meshnet\0";
/// The layout of the header and what it stands for; raised when an older program could not read the file.
const FORMAT: u32 = 1;
/// Magic, format, checksum (CRC-32 of the length and the bytes), length; integers are little-endian.
const HEADER_LEN: usize = 8 + 4 + 4 + 8;
/// Longer files are not ours: the state of the largest cluster is a few megabytes.
const MAX_LEN: u64 = 1 << 30;

const IDENTITY: &str = "identity";
const STATE: &str = "state";
const STATE_NEW: &str = "state.new";

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
    /// The keys of this host are damaged: starting without them would make it another host.
    #[error("{path} is damaged ({reason}): restore it, or remove it to start as a new host")]
    Identity {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A newer program wrote the file.
    #[error("{path} was written by a newer meshnet (format {found}, this one reads {FORMAT})")]
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

/// The message of an operating system error without its number.
pub(super) fn plain(error: &io::Error) -> String {
    let text = error.to_string().to_lowercase();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// An open state directory; dropping it lets others use it.
#[derive(Debug)]
pub(super) struct Store {
    dir: PathBuf,
    warnings: Vec<String>,
    _lock: DirLock,
}

impl Store {
    /// Makes the directory if needed (mode 0700) and takes its lock.
    pub(super) fn open(dir: &Path) -> Result<Self, StoreError> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed("create", dir))?;
        let mut warnings = Vec::new();
        let mode = fs::metadata(dir).map_err(failed("read", dir))?.permissions().mode();
        if mode & 0o022 != 0 {
            warnings.push(format!("others may write in the state directory {}", dir.display()));
        }
        let lock = DirLock::take(dir)?;
        Ok(Store { dir: dir.to_owned(), warnings, _lock: lock })
    }

    /// What people should know about the directory, each told once.
    pub(super) fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// The secret of this host; on the first start `fresh` becomes it (mode 0600).
    pub(super) fn identity(&mut self, fresh: impl FnOnce() -> Vec<u8>) -> Result<Vec<u8>, StoreError> {
        let path = self.dir.join(IDENTITY);
        match read(&path)? {
            Contents::Absent => {
                let secret = fresh();
                self.replace(IDENTITY, "identity.new", &secret)?;
                Ok(secret)
            }
            Contents::Damaged(reason) => Err(StoreError::Identity { path, reason }),
            Contents::Whole(secret) => {
                self.close_to_others(&path)?;
                Ok(secret)
            }
        }
    }

    fn close_to_others(&mut self, path: &Path) -> Result<(), StoreError> {
        let mode = fs::metadata(path).map_err(failed("read", path))?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed("protect", path))?;
            self.warnings.push(format!(
                "{} was open to others (mode {mode:03o}): closed now, but the keys may be known",
                path.display()
            ));
        }
        Ok(())
    }

    /// The bytes last given to [`Store::save`]; a damaged file is set aside, with a warning.
    pub(super) fn load(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        match read(&self.dir.join(STATE))? {
            Contents::Absent => Ok(None),
            Contents::Whole(bytes) => Ok(Some(bytes)),
            Contents::Damaged(reason) => self.set_aside(&reason).map(|()| None),
        }
    }

    /// Moves the state out of the way as `state.corrupt-N`, with a warning that says why.
    pub(super) fn set_aside(&mut self, reason: &str) -> Result<(), StoreError> {
        let from = self.dir.join(STATE);
        let to = (1..)
            .map(|n: u32| self.dir.join(format!("{STATE}.corrupt-{n}")))
            .find(|to| !to.exists())
            .unwrap_or_else(|| self.dir.join("state.corrupt"));
        fs::rename(&from, &to).map_err(failed("set aside", &from))?;
        self.warnings.push(format!(
            "the state in {} is damaged ({reason}): set aside as {}, and learnt anew from the peers",
            from.display(),
            to.display()
        ));
        Ok(())
    }

    /// Replaces the state: on return it is on disk, or the old one still is.
    pub(super) fn save(&self, bytes: &[u8]) -> Result<(), StoreError> {
        self.replace(STATE, STATE_NEW, bytes)
    }

    fn replace(&self, name: &str, beside: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let (path, new) = (self.dir.join(name), self.dir.join(beside));
        write(&new, bytes).map_err(failed("write", &new))?;
        fs::rename(&new, &path).map_err(failed("replace", &path))?;
        File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(failed("flush", &self.dir))
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { action, path, source }
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(&header(bytes))?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn header(bytes: &[u8]) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    header[12..16].copy_from_slice(&checksum(bytes).to_le_bytes());
    header[16..].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
    header
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&(bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

enum Contents {
    Absent,
    Whole(Vec<u8>),
    Damaged(String),
}

fn read(path: &Path) -> Result<Contents, StoreError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Contents::Absent),
        Err(error) => return Err(failed("read", path)(error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_LEN).read_to_end(&mut bytes).map_err(failed("read", path))?;
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_LEN>() else {
        return Ok(Contents::Damaged("it is too short".to_owned()));
    };
    let number = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    if header[..8] != MAGIC {
        return Ok(Contents::Damaged("it does not start as a file of meshnet does".to_owned()));
    }
    if number(8) > FORMAT {
        return Err(StoreError::Newer { path: path.to_owned(), found: number(8) });
    }
    if header[16..] != (rest.len() as u64).to_le_bytes() {
        return Ok(Contents::Damaged("its length is wrong".to_owned()));
    }
    if number(12) != checksum(rest) {
        return Ok(Contents::Damaged("its checksum is wrong".to_owned()));
    }
    bytes.drain(..HEADER_LEN);
    Ok(Contents::Whole(bytes))
}

#[cfg(test)]
mod tests;
