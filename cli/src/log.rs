//! Where the daemon writes what it does: to standard error, and the last lines into memory, for `report`.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::args::{Format, LogLevel};

/// So many lines are remembered.
const LINES: usize = 256;
/// And of each so many bytes.
const LINE_BYTES: usize = 1024;

/// The last lines of the log. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tail(Arc<Mutex<VecDeque<String>>>);

impl Tail {
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
