//! One writer per state directory.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{StoreError, failed};

const LOCK: &str = "lock";

/// A held lock: an advisory lock (flock) on a file that holds the process id of the holder. The kernel
/// releases it with the process; a file left behind locks nothing.
#[derive(Debug)]
pub(super) struct DirLock {
    path: PathBuf,
    _file: File,
}

impl DirLock {
    pub(super) fn take(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(LOCK);
        loop {
            let mut file = open(&path).map_err(failed("open", &path))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(StoreError::Locked { path: dir.to_owned(), holder: holder(&mut file) });
                }
                Err(TryLockError::Error(source)) => return Err(failed("lock", &path)(source)),
            }
            // A holder removes the file when it ends: a lock on a removed file keeps nobody out.
            if is_still_at(&file, &path) {
                sign(&mut file).map_err(failed("write", &path))?;
                return Ok(DirLock { path, _file: file });
            }
        }
    }
}

impl Drop for DirLock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn is_still_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(held), Ok(there)) => (held.dev(), held.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

fn sign(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.take(32).read_to_string(&mut text);
    match read.ok().and_then(|_| text.trim().parse::<u32>().ok()) {
        Some(pid) => crate::io::holder::process_name(pid),
        None => "another process".to_owned(),
    }
}
