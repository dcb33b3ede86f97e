//! Frames for the containers of this host.

use std::io::{self, IoSlice};
use std::net::Ipv4Addr;
use std::ops::Range;

use super::super::slice;
use super::{Output, segments};
use crate::capture::Direction;
use crate::counters::{DropReason, Traffic};
use crate::offload::join::{Joined, Joiner};
use crate::packet::{Batch, Slot};
use crate::rate;
use crate::switch::Port;
use crate::switch::neighbours::announcement;
use crate::tables::{Moved, PortIndex, Tables};
use crate::types::{MacAddr, Vni};
use crate::wire::group;
use crate::wire::virtio::{self, VnetHeader};

/// Pieces of one vectored write: the virtio-net header, the head, and a body for each segment.
const WRITE_PIECES: usize = 2 + 128;

impl Output {
    /// Passes a frame of the batch to another container of this host, whole, with its virtio-net header.
    pub(super) fn deliver(&mut self, to: PortIndex, batch: &Batch, slot: &Slot) {
        let vnet = slot.vnet.emit();
        let pieces = [IoSlice::new(&vnet), IoSlice::new(slot.frame(batch.arena()))];
        self.write(to, &pieces, segments(batch, slot));
    }

    /// Writes a frame of the switch itself to a port.
    pub(in crate::io::worker) fn answer(&mut self, to: PortIndex, reply: &[u8]) {
        let vnet = VnetHeader::default().emit();
        self.write(to, &[IoSlice::new(&vnet), IoSlice::new(reply)], 1);
    }

    /// Tells the ports of a network where an address is now, except the one where it is.
    pub(in crate::io::worker) fn announce(&mut self, tables: &Tables, moved: Moved) {
        let Some(network) = tables.network(moved.vni) else { return };
        let frame = announcement(moved.addr, moved.mac);
        let holder = network.pins().get(moved.mac).flatten();
        let others = network.ports().iter().filter(|&&port| Some(Port::Tap(port)) != holder);
        let told = others.map(|&port| self.answer(port, &frame)).count();
        // Copies of a frame that nobody sent.
        self.counters.flooded(1, told as u64 + 1);
        self.finish();
    }

    /// Asks containers which multicast groups they want.
    pub(in crate::io::worker) fn ask(&mut self, tables: &Tables, vni: Vni, ports: &[PortIndex]) {
        let Some(network) = tables.network(vni) else { return };
        let (mac, source) = (MacAddr::gateway(vni), network.gateway_v4().unwrap_or(Ipv4Addr::UNSPECIFIED));
        let (igmp, mld) = (group::igmp_query(mac, source), group::mld_query(mac));
        for &port in ports {
            self.answer(port, &igmp);
            self.answer(port, &mld);
        }
        // Copies of a frame that nobody sent.
        self.counters.flooded(1, 2 * ports.len() as u64 + 1);
        self.finish();
    }

    /// Passes a frame from the underlay, joined or not, to a container.
    pub(in crate::io::worker) fn deliver_joined(
        &mut self,
        to: PortIndex,
        joiner: &Joiner,
        joined: &Joined,
        arena: &[u8],
    ) {
        let vnet = joined.vnet.emit();
        let mut pieces = [IoSlice::new(&[]); WRITE_PIECES];
        let bodies: &[Range<u32>] = joiner.bodies(joined);
        pieces[0] = IoSlice::new(&vnet);
        pieces[1] = IoSlice::new(joiner.head(joined));
        for (piece, body) in pieces[2..].iter_mut().zip(bodies) {
            *piece = IoSlice::new(slice(arena, body));
        }
        let count = (2 + bodies.len()).min(WRITE_PIECES);
        self.write(to, &pieces[..count], joined.wire_segments());
    }

    /// Writes one frame, which stands for `segments` frames of the wire, to a port.
    fn write(&mut self, to: PortIndex, pieces: &[IoSlice<'_>], segments: u64) {
        let Some(queue) = self.ports.at(to.get() as u64) else {
            return self.counters.dropped(DropReason::PortGone, segments);
        };
        if let Some(limit) = &queue.limit {
            let frame: usize = pieces.iter().skip(1).map(|piece| piece.len()).sum();
            if !limit.to.admits(self.now, rate::wire_bytes(frame, segments)) {
                queue.counters.dropped(DropReason::RateLimit, segments);
                return self.counters.dropped(DropReason::RateLimit, segments);
            }
        }
        match queue.tap.write_vectored(pieces) {
            Ok(written) => {
                let bytes = written.saturating_sub(virtio::LEN) as u64;
                if let ([_vnet, frame @ ..], false) = (pieces, self.lenses.is_empty()) {
                    self.lenses.frame(to, Direction::Out, frame);
                }
                // Frames of one burst are one batch of the port.
                let batches = u64::from(queue.burst.replace(self.burst) != self.burst);
                queue
                    .counters
                    .given(Traffic { frames: 1, bytes, batches, segments }, u64::from(segments > 1));
                self.delivered.frames += 1;
                self.delivered.bytes += bytes;
                self.delivered.segments += segments;
            }
            Err(error) => {
                let reason = write_failure(&error);
                queue.counters.dropped(reason, segments);
                self.counters.dropped(reason, segments);
            }
        }
    }
}

fn write_failure(error: &io::Error) -> DropReason {
    match error.kind() {
        io::ErrorKind::WouldBlock => DropReason::TapFull,
        _ => DropReason::WriteFailed,
    }
}
