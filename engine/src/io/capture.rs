//! The way of captured frames from the workers to a reader: a bounded stock of chunks that goes round.
//!
//! A worker fills a chunk of its own and hands it over at the end of a batch when another is free. While none is,
//! it goes on filling the one it has; once that is full, frames are counted instead of copied. So a slow reader costs the
//! workers a bounded time per frame, and never makes them wait. All memory is allocated when the capture begins.

use std::io::IoSlice;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crossbeam_queue::ArrayQueue;

use crate::capture::{Chunk, Direction, Header};
use crate::tables::PortIndex;
use crate::types::PortId;

/// Captures that may run at a time.
pub const MAX_CAPTURES: usize = 4;
/// Chunks of one capture: with their size, 4 MiB.
const CHUNKS: usize = 32;

/// What is captured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// Frames from and to the container behind a port.
    Port(PortId),
    /// VXLAN datagrams from and to all other hosts.
    Underlay,
}

/// Why a capture could not begin.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The port is not open.
    #[error("the port {0} is not open")]
    NoSuchPort(PortId),
    /// There are enough.
    #[error("{MAX_CAPTURES} captures are running already")]
    TooMany,
}

/// A running capture, for its one reader. It ends when this is dropped.
pub struct Capture {
    shared: Arc<Shared>,
    /// Has the workers look whether they hold back something.
    nudge: Box<dyn Fn() + Send + Sync>,
    end: Box<dyn Fn() + Send + Sync>,
}

/// What the reader and the workers share.
pub(super) struct Shared {
    snaplen: usize,
    free: ArrayQueue<Chunk>,
    full: ArrayQueue<Chunk>,
    wake: Box<dyn Fn() + Send + Sync>,
    /// The reader waits to be woken.
    sleeping: AtomicBool,
    /// A worker holds back a chunk because none was free.
    starved: AtomicBool,
    /// Nothing more shall be copied.
    ending: AtomicBool,
    /// Workers that may still hand over something.
    lenses: AtomicUsize,
    dropped: AtomicU64,
}

impl Shared {
    pub(super) fn new(snaplen: usize, wake: impl Fn() + Send + Sync + 'static) -> Self {
        let free = ArrayQueue::new(CHUNKS);
        while free.push(Chunk::new()).is_ok() {}
        Shared {
            snaplen,
            free,
            full: ArrayQueue::new(CHUNKS),
            wake: Box::new(wake),
            sleeping: AtomicBool::new(false),
            starved: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            lenses: AtomicUsize::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    /// Nothing more will come once the workers have let go.
    pub(super) fn finish(&self) {
        self.ending.store(true, Ordering::SeqCst);
        (self.wake)();
    }

    /// Gives a chunk to the reader and gets an empty one; none when none is free, and `chunk` stays.
    fn exchange(&self, chunk: &mut Chunk) -> bool {
        let fresh = self.free.pop().or_else(|| {
            self.starved.store(true, Ordering::SeqCst);
            // One may have been given back just before the flag was up.
            self.free.pop()
        });
        let Some(fresh) = fresh else { return false };
        // There are as many places as chunks.
        let _ = self.full.push(std::mem::replace(chunk, fresh));
        if self.sleeping.swap(false, Ordering::SeqCst) {
            (self.wake)();
        }
        true
    }
}

impl Capture {
    pub(super) fn new(
        shared: Arc<Shared>,
        nudge: impl Fn() + Send + Sync + 'static,
        end: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        Capture { shared, nudge: Box::new(nudge), end: Box::new(end) }
    }

    /// The next chunk with records; [`give it back`](Self::give_back) soon. None when there is nothing now.
    pub fn take(&self) -> Option<Chunk> {
        self.shared.full.pop()
    }

    /// Returns a chunk that was read.
    pub fn give_back(&self, mut chunk: Chunk) {
        chunk.clear();
        // There are as many places as chunks.
        let _ = self.shared.free.push(chunk);
        if self.shared.starved.swap(false, Ordering::SeqCst) {
            (self.nudge)();
        }
    }

    /// True when the reader may wait until it is woken; false when there is something already.
    pub fn may_sleep(&self) -> bool {
        self.shared.sleeping.store(true, Ordering::SeqCst);
        self.shared.full.is_empty() && !self.is_over()
    }

    /// Ends it: once it [is over](Self::is_over), everything that was copied is there to be taken.
    pub fn end(&self) {
        self.shared.finish();
        (self.end)();
    }

    /// It was ended, or what was captured is gone; no chunk will come after those that are there.
    pub fn is_over(&self) -> bool {
        self.shared.ending.load(Ordering::SeqCst) && self.shared.lenses.load(Ordering::SeqCst) == 0
    }

    /// Frames that were not copied because the reader was too slow.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        (self.end)();
    }
}

/// What a lens looks at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// Frames of a port.
    Port(PortIndex),
    /// Datagrams of the underlay.
    Underlay,
}

/// One worker's end of a capture.
pub(super) struct Lens {
    number: u64,
    place: Place,
    shared: Arc<Shared>,
    chunk: Chunk,
}

/// The captures that one worker takes part in; empty nearly always.
#[derive(Default)]
pub(super) struct Lenses(Vec<Lens>);

impl Lens {
    /// Takes a chunk for this worker; none when even that is not free.
    pub(super) fn new(number: u64, place: Place, shared: Arc<Shared>) -> Option<Self> {
        let chunk = shared.free.pop()?;
        shared.lenses.fetch_add(1, Ordering::SeqCst);
        Some(Lens { number, place, shared, chunk })
    }

    fn copy<'a>(&mut self, header: Header, pieces: impl Iterator<Item = &'a [u8]> + Clone) {
        let snaplen = self.shared.snaplen;
        let taken = self.chunk.push(header, snaplen, pieces.clone())
            || (self.shared.exchange(&mut self.chunk) && self.chunk.push(header, snaplen, pieces));
        if !taken {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Leaves to the reader what there is, also when no chunk is free for it.
impl Drop for Lens {
    fn drop(&mut self) {
        let chunk = std::mem::replace(&mut self.chunk, Chunk::placeholder());
        if !chunk.is_empty() {
            // There are as many places as chunks.
            let _ = self.shared.full.push(chunk);
        }
        self.shared.lenses.fetch_sub(1, Ordering::SeqCst);
        (self.shared.wake)();
    }
}

impl Lenses {
    /// True while nobody looks.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn add(&mut self, lens: Lens) {
        self.0.push(lens);
    }

    /// The reader has gone away.
    pub(super) fn remove(&mut self, number: u64) {
        self.0.retain(|lens| lens.number != number);
    }

    /// The port is closed.
    pub(super) fn close(&mut self, port: PortIndex) {
        self.0.retain(|lens| lens.place != Place::Port(port));
    }

    /// Copies a frame of a port to those who look there.
    pub(super) fn frame(&mut self, port: PortIndex, direction: Direction, pieces: &[IoSlice<'_>]) {
        for lens in self.0.iter_mut().filter(|lens| lens.place == Place::Port(port)) {
            let header = Header { at_ns: now_ns(), direction, len: 0, underlay: None };
            lens.copy(header, pieces.iter().map(|piece| &**piece));
        }
    }

    /// Copies a datagram, from or to `remote`, to those who look at the underlay.
    pub(super) fn datagram(
        &mut self,
        (remote, own_port): (SocketAddr, u16),
        direction: Direction,
        pieces: &[IoSlice<'_>],
    ) {
        for lens in self.0.iter_mut().filter(|lens| lens.place == Place::Underlay) {
            let header = Header { at_ns: now_ns(), direction, len: 0, underlay: Some((remote, own_port)) };
            lens.copy(header, pieces.iter().map(|piece| &**piece));
        }
    }

    /// Whether anybody looks at the underlay.
    pub(super) fn see_underlay(&self) -> bool {
        self.0.iter().any(|lens| lens.place == Place::Underlay)
    }

    /// Hands over what was copied; what cannot be handed over now is kept for later.
    pub(super) fn flush(&mut self) {
        for lens in self.0.iter_mut().filter(|lens| !lens.chunk.is_empty()) {
            lens.shared.exchange(&mut lens.chunk);
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "a time for people to read; it decides nothing")]
fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::CHUNK_LEN;

    const PORT: PortIndex = PortIndex(3);

    fn lenses(shared: &Arc<Shared>) -> Lenses {
        let mut lenses = Lenses::default();
        assert!(lenses.is_empty());
        lenses.add(Lens::new(1, Place::Port(PORT), Arc::clone(shared)).unwrap());
        lenses
    }

    fn read(capture: &Capture) -> usize {
        let mut count = 0;
        while let Some(chunk) = capture.take() {
            count += chunk.records().count();
            capture.give_back(chunk);
        }
        count
    }

    #[test]
    fn a_reader_gets_what_it_asked_for_and_nothing_else() {
        let woken = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&woken);
        let shared = Arc::new(Shared::new(100, move || {
            count.fetch_add(1, Ordering::Relaxed);
        }));
        let capture = Capture::new(Arc::clone(&shared), || (), || ());
        let mut lenses = lenses(&shared);
        assert!(capture.may_sleep());
        let frame = [IoSlice::new(b"head"), IoSlice::new(b"body")];
        lenses.frame(PORT, Direction::In, &frame);
        lenses.frame(PortIndex(4), Direction::In, &frame);
        lenses.datagram(("192.0.2.1:4789".parse().unwrap(), 4789), Direction::Out, &frame);
        assert!(!lenses.see_underlay() && capture.take().is_none());
        lenses.flush();
        assert_eq!(woken.load(Ordering::Relaxed), 1, "the reader that slept is woken");
        let chunk = capture.take().unwrap();
        assert_eq!(chunk.records().map(|r| r.bytes.to_vec()).collect::<Vec<_>>(), [b"headbody"]);
        capture.give_back(chunk);
        shared.finish();
        assert!(!capture.is_over(), "a worker may still hand over something");
        lenses.close(PORT);
        assert!(lenses.is_empty() && capture.is_over() && !capture.may_sleep());
    }

    #[test]
    fn a_slow_reader_costs_frames_and_gets_all_others_later() {
        let shared = Arc::new(Shared::new(2000, || ()));
        let nudged = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&nudged);
        let nudge = move || {
            count.fetch_add(1, Ordering::Relaxed);
        };
        let capture = Capture::new(Arc::clone(&shared), nudge, || ());
        let mut lenses = lenses(&shared);
        let frame = vec![1; 1500];
        let sent = 2 * CHUNKS * CHUNK_LEN / 1500;
        for _ in 0..sent {
            lenses.frame(PORT, Direction::Out, &[IoSlice::new(&frame)]);
            lenses.flush();
        }
        let dropped = capture.dropped() as usize;
        assert!(dropped > sent / 2 && dropped < sent, "{dropped} of {sent}");
        // All but what the worker holds back, which it hands over when it is told that there is room again.
        let early = read(&capture);
        assert!(early + dropped < sent && nudged.load(Ordering::Relaxed) >= 1);
        lenses.flush();
        let late = read(&capture);
        assert_eq!(early + late + dropped, sent);
        // The last ones, which were not handed over, come when the worker lets go.
        lenses.frame(PORT, Direction::Out, &[IoSlice::new(&frame)]);
        lenses.remove(1);
        assert_eq!(read(&capture), 1);
    }

    #[test]
    fn the_end_of_a_capture_is_told_once_its_reader_is_gone() {
        let ended = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ended);
        let shared = Arc::new(Shared::new(1, || ()));
        drop(Capture::new(shared, || (), move || end.store(true, Ordering::Relaxed)));
        assert!(ended.load(Ordering::Relaxed));
    }
}
