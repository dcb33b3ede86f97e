//! One session as workers hold it: keys, counters, windows. Nothing in it is written by two senders.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

use super::handshake::Established;
use super::key::{LaneKeys, WrongLength};
use super::suite::Suite;
use super::window::{MAX_COUNTER, Window};
use crate::counters::DropReason;
use crate::wire::sealed::{CONTROL_LANE, Header, LANES, TAG_LEN};

/// Frames of one lane after which a new session is wanted, and after which none is sealed any more. Of AES-GCM 2^32 frames
/// under one key are where its nonces begin to matter (NIST SP 800-38D section 8.3 asks the same of random ones).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// A new session is wanted.
    pub rekey: u64,
    /// Nothing is sealed.
    pub refuse: u64,
}

impl Limits {
    /// Of a suite.
    pub const fn of(suite: Suite) -> Self {
        match suite {
            Suite::AesGcm => Limits { rekey: 1 << 30, refuse: 1 << 32 },
            // The window counts no farther.
            Suite::ChaChaPoly => Limits { rekey: MAX_COUNTER / 2, refuse: MAX_COUNTER },
        }
    }
}

/// A session with a peer, shared by all workers.
#[derive(Debug)]
pub struct Epoch {
    /// How its frames are sealed.
    pub suite: Suite,
    /// The number by which the peer names it.
    pub local: u32,
    pub(super) remote: u32,
    limits: Limits,
    seal: LaneKeys,
    open: LaneKeys,
    /// The next counter of each lane. A lane has one writer.
    counters: [CachePadded<AtomicU64>; LANES as usize],
    /// That of a lane is made when its first frame was opened: few of the 16 are ever used.
    windows: [OnceLock<Window>; LANES as usize],
    /// A frame was opened: the peer has the keys. Written once.
    heard: AtomicBool,
    /// One above the counter of the newest keepalive of the peer's control side.
    shown: AtomicU64,
}

impl Epoch {
    /// With the limits of its suite, or other ones for a test.
    pub fn new(established: Established, limits: Limits) -> Self {
        let Established { suite, local, remote, seal, open, .. } = established;
        Epoch {
            suite,
            local,
            remote,
            limits,
            seal,
            open,
            counters: [const { CachePadded::new(AtomicU64::new(0)) }; LANES as usize],
            windows: [const { OnceLock::new() }; LANES as usize],
            heard: AtomicBool::new(false),
            shown: AtomicU64::new(0),
        }
    }

    /// The next header of a lane, for one frame to be sealed by [`Self::seal`]. None: the lane is used up.
    pub fn next_header(&self, lane: u8) -> Option<Header> {
        let cell = self.counters.get(usize::from(lane))?;
        let counter = cell.load(Ordering::Relaxed);
        if counter >= self.limits.refuse {
            return None;
        }
        cell.store(counter + 1, Ordering::Relaxed);
        Some(Header { lane, receiver: self.remote, counter })
    }

    /// Seals a frame where it lies, under a header of this session that was not used before. None: there is no such lane.
    pub fn seal(&self, header: Header, content: &mut [u8]) -> Option<[u8; TAG_LEN]> {
        Some(self.seal.lane(header.lane)?.seal(header, content))
    }

    /// Seals two pieces as one frame into `datagram`, which has just the room for it, under a header as [`Self::seal`] wants it.
    ///
    /// # Errors
    /// There is no such lane, or the room is another; what is in it must not leave then.
    pub fn seal_into(
        &self,
        header: Header,
        pieces: [&[u8]; 2],
        datagram: &mut [u8],
    ) -> Result<(), WrongLength> {
        self.seal.lane(header.lane).ok_or(WrongLength)?.seal_into(header, pieces, datagram)
    }

    /// Opens a datagram where it lies; the VXLAN header and frame in it, or nothing in a keepalive.
    ///
    /// # Errors
    /// It was seen before, is too old, or was not sealed by the peer.
    pub fn open<'a>(&self, header: Header, datagram: &'a mut [u8]) -> Result<&'a mut [u8], DropReason> {
        let lane = usize::from(header.lane);
        let (Some(window), Some(key)) = (self.windows.get(lane), self.open.lane(header.lane)) else {
            return Err(DropReason::BadSealed);
        };
        if !window.get().map_or(header.counter < MAX_COUNTER, |window| window.test(header.counter)) {
            return Err(DropReason::Replayed);
        }
        let content = key.open(header, datagram).map_err(|_| DropReason::BadSealed)?;
        if !window.get_or_init(Window::default).commit(header.counter) {
            return Err(DropReason::Replayed);
        }
        if !self.heard.load(Ordering::Relaxed) {
            self.heard.store(true, Ordering::Relaxed);
        }
        Ok(content)
    }

    /// A keepalive with this header was opened. True: the peer's control side has sealed none after it that was, so it tells
    /// where the peer is. One that was held back and comes late tells where it was.
    pub fn is_newest_keepalive(&self, header: Header) -> bool {
        header.lane == CONTROL_LANE
            && self.shown.fetch_max(header.counter + 1, Ordering::Relaxed) <= header.counter
    }

    /// True once a frame was opened: the peer has the keys.
    pub fn is_heard(&self) -> bool {
        self.heard.load(Ordering::Relaxed)
    }

    /// True when a lane has sealed so much that a new session is wanted.
    pub fn is_worn(&self) -> bool {
        self.counters.iter().any(|cell| cell.load(Ordering::Relaxed) >= self.limits.rekey)
    }

    /// Frames sealed so far.
    pub fn sealed(&self) -> u64 {
        self.counters.iter().map(|cell| cell.load(Ordering::Relaxed)).sum()
    }
}
