//! One writer per state directory.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use super::{StoreError, failed, is_unwritable};

const LOCK: &str = "lock";

/// A held lock: an advisory lock (flock) on the directory, and one on a file in it that names the holder. Some network
/// file systems lock no directories, and a full or read-only one makes no files: one of the two is enough. The kernel
/// releases them with the process; a file left behind locks nothing.
#[derive(Debug)]
pub(super) struct DirLock {
    /// The file that goes with the lock, if there is one.
    path: Option<PathBuf>,
    _held: Vec<File>,
}

impl DirLock {
    pub(super) fn take(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(LOCK);
        let locked = || StoreError::Locked { path: dir.to_owned(), holder: holder(&path) };
        let whole = File::open(dir).map_err(failed("open", dir))?;
        let whole = match whole.try_lock() {
            Ok(()) => Some(whole),
            Err(TryLockError::WouldBlock) => return Err(locked()),
            Err(TryLockError::Error(_)) => None,
        };
        match take_file(&path) {
            Ok(Some(file)) => {
                // The name is for people: without room for it there is none.
                let _ = sign(&file);
                Ok(DirLock { path: Some(path), _held: whole.into_iter().chain([file]).collect() })
            }
            Ok(None) => Err(locked()),
            Err(error) => match whole.filter(|_| is_unwritable(&error)) {
                Some(whole) => Ok(DirLock { path: None, _held: vec![whole] }),
                None => Err(failed("lock", &path)(error)),
            },
        }
    }
}

impl Drop for DirLock {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path);
        }
    }
}

/// None: somebody else has it.
fn take_file(path: &Path) -> io::Result<Option<File>> {
    loop {
        let file = open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // A holder removes the file when it ends: a lock on a removed file keeps nobody out.
        if is_still_at(&file, path) {
            return Ok(Some(file));
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.custom_flags(OFlag::O_NOFOLLOW.bits()).open(path)
}

fn is_still_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(held), Ok(there)) => (held.dev(), held.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

fn sign(mut file: &File) -> io::Result<()> {
    file.set_len(0)?;
    writeln!(file, "{}", std::process::id())
}

fn holder(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    match text.trim().parse::<u32>() {
        Ok(pid) => crate::io::holder::process_name(pid),
        Err(_) => "another process".to_owned(),
    }
}
