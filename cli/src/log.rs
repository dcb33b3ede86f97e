//! Where the daemon writes what it does: to standard error, and the last lines into memory, for `report`.

#![allow(clippy::disallowed_types, reason = "the shell: files")]

use std::collections::VecDeque;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::fcntl::OFlag;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::args::{Format, LogLevel};

/// So many lines are remembered.
const LINES: usize = 256;
/// And of each so many bytes.
const LINE_BYTES: usize = 1024;

/// A longer file is put aside.
const LONGEST_FILE_BYTES: u64 = 4 << 20;

/// The last lines of the log, and the file that all of them go to. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tail {
    last: Arc<Mutex<VecDeque<String>>>,
    file: Arc<Mutex<Option<LogFile>>>,
}

/// The file behind standard error.
#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    bytes: u64,
}

impl LogFile {
    /// Puts the file aside once it is long, and goes on in a new one.
    fn count(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        if self.bytes > LONGEST_FILE_BYTES {
            // Without room for a new one the old one goes on.
            let _ = open(&self.path).and_then(|file| Ok(nix::unistd::dup2_stderr(file)?));
            self.bytes = 0;
        }
    }
}

/// Opens a log file to write at its end. A long one is put aside before: with it, there are two. Only root may read it, and a name
/// that somebody made lead elsewhere is not followed.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    if std::fs::metadata(path).is_ok_and(|meta| meta.len() > LONGEST_FILE_BYTES) {
        // On a full disk the old one goes on.
        let _ = std::fs::rename(path, path.with_extension("log.1"));
    }
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o600).custom_flags(OFlag::O_NOFOLLOW.bits()).open(path)
}

impl Tail {
    /// Keeps the file short that standard error leads to, if it is one of these: strangers can make the daemon say much.
    pub(crate) fn keep_short(&self, paths: &[PathBuf]) {
        let identity = |meta: &Metadata| (meta.dev(), meta.ino());
        let stderr = io::stderr().as_fd().try_clone_to_owned().map(File::from);
        let Ok(ours) = stderr.and_then(|file| file.metadata()) else { return };
        let is_it =
            |path: &&PathBuf| std::fs::metadata(path).is_ok_and(|it| identity(&it) == identity(&ours));
        let found = paths.iter().find(is_it);
        *self.file() = found.map(|path| LogFile { path: path.clone(), bytes: ours.len() });
    }

    fn file(&self) -> MutexGuard<'_, Option<LogFile>> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lines, oldest first.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.entries().iter().cloned().collect()
    }

    fn remember(&self, text: &[u8]) {
        let mut entries = self.entries();
        for line in String::from_utf8_lossy(text).lines() {
            if entries.len() == LINES {
                entries.pop_front();
            }
            entries.push_back(line.chars().take(LINE_BYTES).collect());
        }
    }

    fn entries(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> MakeWriter<'a> for Tail {
    type Writer = Tail;

    fn make_writer(&'a self) -> Tail {
        self.clone()
    }
}

impl Write for Tail {
    /// Takes a line. That there is no room for it in a file is no reason to stop, nor to say so there.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.remember(line);
        let _ = io::stderr().write_all(line);
        self.file().iter_mut().for_each(|file| file.count(line.len()));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Starts the log.
pub(crate) fn start(level: LogLevel, format: Format) -> Tail {
    let level = match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    };
    // What libraries have to say below a warning is for their own developers.
    let others = if matches!(level, "error" | "trace") { level } else { "warn" };
    let filter = EnvFilter::new(format!("{others},meshnet={level},engine={level},peering={level}"));
    let tail = Tail::default();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(tail.clone());
    match format {
        Format::Text => builder.init(),
        Format::Json => builder.json().init(),
    }
    remember_panics(tail.clone());
    tail
}

/// A panic goes to standard error as ever, and is remembered too.
fn remember_panics(tail: Tail) {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tail.remember(panic.to_string().as_bytes());
        report(panic);
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_remembered_and_cut() {
        let tail = Tail::default();
        for number in 0..LINES + 3 {
            tail.remember(format!("line {number}\n").as_bytes());
        }
        tail.remember("x".repeat(5000).as_bytes());
        let lines = tail.lines();
        assert_eq!((lines.len(), lines[0].as_str()), (LINES, "line 4"));
        assert_eq!(lines[LINES - 1].len(), LINE_BYTES);
    }
}
