//! One file of the state directory: replaced as a whole, and never believed when it is damaged.
//!
//! A header comes before the bytes: magic, format, checksum (CRC-32 of format, length and bytes), length; integers are
//! little-endian. A torn write, a flipped bit and a foreign file all show; the checksum is computed alike in every
//! format, so that a newer file is told from a damaged one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::{StoreError, failed, plain};

/// The first bytes of every file.
const MAGIC: [u8; 8] = *b"meshnet\0";
/// The layout after the header; raised when an older program could not read the file.
pub(super) const FORMAT: u32 = 1;
const HEADER_LEN: usize = 8 + 4 + 4 + 8;
/// Longer files are not ours: the state of the largest cluster is a few megabytes.
const MAX_LEN: u64 = 1 << 30;
/// So many damaged files of one name are kept; the last one gives way to the next.
const KEPT: u32 = 8;

/// A file of the state directory, whose lock must be held.
#[derive(Clone, Debug)]
pub struct StateFile {
    dir: PathBuf,
    name: &'static str,
}

/// What is in a [`StateFile`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Contents {
    /// There is no such file.
    Absent,
    /// What was last put there.
    Whole(Vec<u8>),
    /// Not what was put there, for this reason.
    Damaged(String),
}

impl StateFile {
    /// The file of this name in a state directory.
    pub fn new(dir: &Path, name: &'static str) -> Self {
        StateFile { dir: dir.to_owned(), name }
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.dir.join(self.name)
    }

    /// Reads it. What the operating system cannot read is damaged as well.
    ///
    /// # Errors
    /// A newer program wrote the file.
    pub fn read(&self) -> Result<Contents, StoreError> {
        let path = self.path();
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(MAX_LEN).read_to_end(&mut bytes));
        match read {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Contents::Absent),
            Err(error) => return Ok(Contents::Damaged(format!("it cannot be read: {}", plain(&error)))),
            Ok(_) => {}
        }
        match check(&bytes) {
            Err(reason) => Ok(Contents::Damaged(reason.to_owned())),
            Ok(FORMAT) => Ok(Contents::Whole(bytes.split_off(HEADER_LEN))),
            Ok(found) => Err(StoreError::Newer { path, found }),
        }
    }

    /// Replaces it (mode 0600): on return the new bytes are on disk, or the old ones still are. Written beside,
    /// flushed, renamed, and the directory flushed.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn replace(&self, bytes: &[u8]) -> Result<(), StoreError> {
        let (path, new) = (self.path(), self.dir.join(format!("{}.new", self.name)));
        write(&new, bytes).map_err(failed("write", &path))?;
        fs::rename(&new, &path).map_err(failed("replace", &path))?;
        File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(failed("flush", &self.dir))
    }

    /// Moves it out of the way as `NAME.corrupt-N`, and returns its new place.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn set_aside(&self) -> Result<PathBuf, StoreError> {
        let place = |n: u32| self.dir.join(format!("{}.corrupt-{n}", self.name));
        let to = (1..KEPT).map(place).find(|to| !to.exists()).unwrap_or_else(|| place(KEPT));
        fs::rename(self.path(), &to).map_err(failed("set aside", &self.path()))?;
        Ok(to)
    }
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // What somebody else may have put there, with another mode or leading elsewhere, is not written to.
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let written = file.write_all(&header(FORMAT, bytes)).and_then(|()| file.write_all(bytes));
    if let Err(error) = written.and_then(|()| file.sync_all()) {
        // What was half written would keep the room that is missing.
        let _ = fs::remove_file(path);
        return Err(error);
    }
    Ok(())
}

fn header(format: u32, bytes: &[u8]) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&format.to_le_bytes());
    header[12..16].copy_from_slice(&checksum(format, bytes).to_le_bytes());
    header[16..].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
    header
}

fn checksum(format: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&format.to_le_bytes());
    hasher.update(&(bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

/// The format of a whole file, or what is wrong with it.
fn check(bytes: &[u8]) -> Result<u32, &'static str> {
    if bytes.is_empty() {
        return Err("it is empty");
    }
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_LEN>() else {
        return Err("it is cut short");
    };
    let number = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let format = number(8);
    if header[..8] != MAGIC {
        return Err("it does not begin as a file of meshnet does");
    }
    if header[16..] != (rest.len() as u64).to_le_bytes() {
        return Err("its length is wrong");
    }
    if number(12) != checksum(format, rest) {
        return Err("its checksum is wrong");
    }
    if format == 0 { Err("its format is wrong") } else { Ok(format) }
}

#[cfg(test)]
pub(super) mod tests {
    /// A whole file of any format.
    pub(in crate::io::store) fn of_format(format: u32, bytes: &[u8]) -> Vec<u8> {
        [&super::header(format, bytes)[..], bytes].concat()
    }
}
