//! What the shell must do, in order, and what must be on disk before it may.
//!
//! A new version of a record of this host opens a new generation: outputs from then on wait until the disk holds it.
//! A change that guards nothing is written within about a second.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{ConnId, Output};

/// A change that guards nothing may wait so long for the disk; a failed disk is tried again so soon.
const LAZY: Duration = Duration::from_secs(1);

/// When more than this waits to be taken, in bytes, what digests repair anyway is dropped.
const FULL: usize = 32 << 20;

/// The queue of outputs.
#[derive(Default)]
pub(super) struct Outbox {
    queue: VecDeque<Entry>,
    bytes: usize,
    generation: u64,
    written: u64,
    writing: Option<u64>,
    lazy: Option<Instant>,
    failing: bool,
    /// Nothing is said but hello.
    mute: bool,
}

struct Entry {
    /// The generation that must be on disk before it leaves.
    needs: u64,
    output: Output,
    hello: bool,
}

impl Outbox {
    /// Something changed on which every later output rests.
    pub(super) fn guard(&mut self) {
        self.generation += 1;
    }

    /// Something changed on which nothing rests.
    pub(super) fn change(&mut self, now: Instant) {
        self.lazy.get_or_insert(now + LAZY);
    }

    /// From now on nothing is said but hello, or everything again.
    pub(super) fn set_mute(&mut self, mute: bool) {
        self.mute = mute;
        if mute {
            self.queue.retain(|entry| entry.hello || !says(&entry.output));
            self.bytes = self.queue.iter().map(|entry| weight(&entry.output)).sum();
        }
    }

    /// The first words on a connection.
    pub(super) fn greet(&mut self, conn: ConnId, bytes: Vec<u8>) {
        self.enqueue(Output::Transmit { conn, bytes }, true);
    }

    /// Something to do, after everything before it.
    pub(super) fn push(&mut self, output: Output) {
        if !self.mute || !says(&output) {
            self.enqueue(output, false);
        }
    }

    fn enqueue(&mut self, output: Output, hello: bool) {
        self.bytes += weight(&output);
        self.queue.push_back(Entry { needs: self.generation, output, hello });
    }

    /// A message that is dropped when too much waits: comparing digests repairs that.
    pub(super) fn push_repairable(&mut self, conn: ConnId, bytes: Vec<u8>) {
        if self.bytes + bytes.len() <= FULL {
            self.push(Output::Transmit { conn, bytes });
        }
    }

    /// The next output, if the disk holds what it rests on.
    pub(super) fn poll(&mut self) -> Option<Output> {
        let Entry { output, .. } = self.queue.pop_front_if(|entry| entry.needs <= self.written)?;
        self.bytes = self.bytes.saturating_sub(weight(&output));
        Some(output)
    }

    /// True when the state should be written now.
    pub(super) fn is_write_due(&self, now: Instant) -> bool {
        self.generation > self.written || self.lazy.is_some_and(|due| due <= now)
    }

    /// True while the disk is busy.
    pub(super) fn is_writing(&self) -> bool {
        self.writing.is_some()
    }

    /// When [`Self::is_write_due`] changes by itself.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.lazy.filter(|_| self.writing.is_none())
    }

    /// The state was handed out.
    pub(super) fn write_started(&mut self) {
        self.writing = Some(self.generation);
        self.lazy = None;
    }

    /// The disk holds what was handed out. True: it had failed before.
    pub(super) fn write_succeeded(&mut self) -> bool {
        self.release();
        std::mem::take(&mut self.failing)
    }

    /// The disk refused, and is tried again in about a second. Versions leave without it: a later start takes its
    /// incarnation above what the others report. True: it had not failed before.
    pub(super) fn write_failed(&mut self, now: Instant) -> bool {
        self.release();
        self.lazy = Some(now + LAZY);
        !std::mem::replace(&mut self.failing, true)
    }

    fn release(&mut self) {
        if let Some(generation) = self.writing.take() {
            self.written = self.written.max(generation);
        }
    }
}

fn says(output: &Output) -> bool {
    matches!(output, Output::Transmit { .. } | Output::Datagram { .. })
}

fn weight(output: &Output) -> usize {
    match output {
        Output::Transmit { bytes, .. } | Output::Datagram { bytes, .. } => bytes.len(),
        Output::Dial { .. }
        | Output::Close { .. }
        | Output::Allocated { .. }
        | Output::Created { .. }
        | Output::Left { .. } => 0,
    }
}
