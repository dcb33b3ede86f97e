//! Cut datagrams, sealed one behind the other in one buffer, ready to be sent; and opening them at the other end.
//!
//! A datagram is sealed from its two pieces into the buffer it is sent from. So a run of equal lengths is one piece of memory,
//! which the kernel cuts.

use std::ops::Range;

use super::epoch::Epoch;
use crate::counters::DropReason;
use crate::offload::cut::Outbox;
use crate::tables::{RemoteIndex, Tables};
use crate::types::Vni;
use crate::wire::sealed::{HEADER_LEN, Header, OVERHEAD};
use crate::wire::vxlan;

/// Bytes of the buffer: two runs of the largest size. It stays within the second-level cache.
const ROOM: usize = 2 * 65_536;
/// Runs of one filling.
const RUNS: usize = 32;

/// Datagrams that one send carries: equal lengths, the last may be shorter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Run {
    /// Where its bytes are in [`Sealed::bytes`].
    pub bytes: Range<usize>,
    /// Bytes of each datagram but the last.
    pub size: usize,
    /// How many there are.
    pub count: usize,
}

/// Sealed datagrams for one host.
#[derive(Debug)]
pub struct Sealed {
    room: Box<[u8]>,
    /// How much of it is filled, in bytes.
    len: usize,
    runs: Vec<Run>,
    max_segments: usize,
    max_bytes: usize,
}

impl Sealed {
    /// An empty buffer for sends of so many datagrams and bytes at most. Allocates once for all it will ever hold.
    pub fn new(max_segments: usize, max_bytes: usize) -> Self {
        let (room, runs) = (vec![0; ROOM].into_boxed_slice(), Vec::with_capacity(RUNS));
        Sealed { room, len: 0, runs, max_segments, max_bytes }
    }

    /// Seals the datagrams of `outbox` from the one numbered `next` on, as many as fit, in place of what was there. Gives the
    /// number of the first that was left; all are done when that is their count.
    ///
    /// # Errors
    /// [`DropReason::SessionUsedUp`] and how many were sealed before.
    pub fn fill(
        &mut self,
        (epoch, lane): (&Epoch, u8),
        (outbox, arena): (&Outbox, &[u8]),
        mut next: usize,
    ) -> Result<usize, DropReason> {
        self.len = 0;
        self.runs.clear();
        while let Some(datagram) = outbox.datagrams().get(next) {
            let len = datagram.len() + OVERHEAD;
            if self.len + len > ROOM || !self.begin(len) {
                break;
            }
            let Some(header) = epoch.next_header(lane) else {
                self.withdraw(len);
                return if self.runs.is_empty() { Err(DropReason::SessionUsedUp) } else { Ok(next) };
            };
            self.seal(epoch, header, outbox.pieces(datagram, arena), len);
            next += 1;
        }
        Ok(next)
    }

    /// Finds the run for a datagram of `len` bytes; false when there are too many.
    fn begin(&mut self, len: usize) -> bool {
        let start = self.len;
        if let Some(run) = self.runs.last_mut() {
            let is_open = run.bytes.len() == run.size * run.count;
            let fits = run.count < self.max_segments && run.bytes.len() + len <= self.max_bytes;
            if is_open && fits && len <= run.size {
                run.bytes.end += len;
                run.count += 1;
                return true;
            }
        }
        let has_room = self.runs.len() < RUNS;
        if has_room {
            self.runs.push(Run { bytes: start..start + len, size: len, count: 1 });
        }
        has_room
    }

    fn withdraw(&mut self, len: usize) {
        let Some(run) = self.runs.last_mut() else { return };
        run.bytes.end -= len;
        run.count -= 1;
        self.runs.pop_if(|run| run.count == 0);
    }

    /// Appends a datagram of `len` bytes.
    fn seal(&mut self, epoch: &Epoch, header: Header, pieces: [&[u8]; 2], len: usize) {
        let datagram = self.room.get_mut(self.len..self.len + len).unwrap_or_default();
        self.len += datagram.len();
        // A header of this epoch has a lane that it has; without one nothing may leave in clear.
        if epoch.seal_into(header, pieces, datagram).is_err() {
            datagram.fill(0);
        }
    }

    /// The sealed datagrams, one behind the other.
    pub fn bytes(&self) -> &[u8] {
        self.room.get(..self.len).unwrap_or_default()
    }

    /// The same, by what one send can carry.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }
}

/// What was in a sealed datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Opened {
    /// Who sealed it.
    pub from: RemoteIndex,
    /// It is the first of its session.
    pub first: bool,
    /// It is the newest keepalive of the newest session: its sender is where it came from.
    pub newest: bool,
    /// None for a keepalive.
    pub frame: Option<OpenedFrame>,
}

/// Where a frame belongs. It lies behind [`FRAME_START`] bytes of the datagram, and before its tag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpenedFrame {
    /// Its network.
    pub vni: Vni,
    /// The MTU of that network, in bytes.
    pub mtu: u16,
    /// Its checksum is partial.
    pub partial: bool,
}

/// Bytes before the frame in a sealed datagram.
pub const FRAME_START: usize = HEADER_LEN + vxlan::LEN;

/// A keepalive: an empty frame, sealed. None when the lane is used up.
pub fn keepalive(epoch: &Epoch, lane: u8) -> Option<Vec<u8>> {
    seal_alone(epoch, lane, &[])
}

/// One datagram with this VXLAN header and frame, sealed. None when the lane is used up.
pub fn seal_alone(epoch: &Epoch, lane: u8, content: &[u8]) -> Option<Vec<u8>> {
    let header = epoch.next_header(lane)?;
    let mut datagram = [&header.to_bytes()[..], content].concat();
    let tag = epoch.seal(header, datagram.get_mut(HEADER_LEN..)?)?;
    datagram.extend_from_slice(&tag);
    Some(datagram)
}

/// Opens a datagram of type 4 where it lies, and tells whether its sender may send what is in it.
///
/// # Errors
/// [`DropReason::UnknownSession`] when nobody here knows its number; [`DropReason::BadSealed`],
/// [`DropReason::Replayed`]; of what was opened [`DropReason::UnknownVni`], [`DropReason::NotOnNetwork`], and those of
/// [`vxlan::parse`].
pub fn open(tables: &Tables, datagram: &mut [u8]) -> Result<Opened, DropReason> {
    let header = Header::parse(datagram).map_err(|_| DropReason::BadSealed)?;
    let opener = tables.opener(header.receiver).ok_or(DropReason::UnknownSession)?;
    let first = !opener.epoch.is_heard();
    let content = opener.epoch.open(header, datagram)?;
    let mut newest = false;
    let frame = if content.is_empty() {
        let sealed_in = tables.epoch(opener.from);
        let current = first || sealed_in.is_none_or(|epoch| epoch.local == header.receiver);
        newest = current && opener.epoch.is_newest_keepalive(header);
        None
    } else {
        let (vni, _) = vxlan::parse(content)?;
        let mtu = tables.network(vni).ok_or(DropReason::UnknownVni)?.mtu();
        if !opener.is_on(vni) {
            return Err(DropReason::NotOnNetwork);
        }
        Some(OpenedFrame { vni, mtu, partial: vxlan::is_partial(content) })
    };
    Ok(Opened { from: opener.from, first, newest, frame })
}
