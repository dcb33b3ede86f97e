//! From received datagrams to as few super-frames as possible.

use std::ops::Range;

use super::Intake;
use crate::counters::DropReason;
use crate::tables::RemoteIndex;
use crate::types::Vni;
use crate::wire::virtio::VnetHeader;

/// How many frames a [`Joiner`] holds, joined or not.
pub const MAX_JOINED: usize = 512;

/// Which super-frames the devices take, as the kernel granted it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Coalesce {
    /// TCP segments may be joined.
    pub tcp: bool,
    /// UDP datagrams may be joined (`TUN_F_USO4` and `TUN_F_USO6`, Linux 6.2).
    pub udp: bool,
}

/// A frame ready for the switch and a TAP: `head`, if any, then the bodies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Joined {
    /// Who sent it.
    pub from: RemoteIndex,
    /// On which network.
    pub vni: Vni,
    /// What the kernel is told of it.
    pub vnet: VnetHeader,
    /// Rewritten headers, in [`Joiner::heads`]; empty when the frame is passed on as it came.
    pub head: Range<u32>,
    /// How many received frames are in it.
    pub segments: u16,
    /// Its length in bytes, without the virtio-net header.
    pub len: u32,
    body: Range<u32>,
}

/// The frames of one burst of datagrams, joined where that is safe.
#[derive(Debug)]
pub struct Joiner {
    coalesce: Coalesce,
    joined: Vec<Joined>,
    heads: Vec<u8>,
}

impl Joiner {
    /// An empty joiner. Allocates once for all it will ever hold.
    pub fn new(coalesce: Coalesce) -> Self {
        Joiner { coalesce, joined: Vec::with_capacity(MAX_JOINED), heads: Vec::with_capacity(16 << 10) }
    }

    /// Takes the inner frame at `frame` of `arena`, which came from `from` on the network `vni` with the MTU
    /// `mtu`. `gso_size` is what [`parts`] said of it.
    ///
    /// # Errors
    /// [`DropReason::TooBig`], [`DropReason::Runt`]; nothing was taken then.
    pub fn push(
        &mut self,
        arena: &[u8],
        from: RemoteIndex,
        vni: Vni,
        mtu: u16,
        part: Part,
    ) -> Result<Intake, DropReason> {
        let _ = (arena, mtu, self.coalesce);
        if self.joined.len() == MAX_JOINED {
            return Ok(Intake::Full);
        }
        let body = part.frame;
        let len = body.len() as u32;
        let vnet = VnetHeader::default();
        self.joined.push(Joined { from, vni, vnet, head: 0..0, segments: 1, len, body });
        Ok(Intake::Taken)
    }

    /// Completes the headers of what was joined. Call it after the last `push` and before [`Joiner::joined`].
    pub fn finish(&mut self) {}

    /// The frames, in an order that keeps that of every flow.
    pub fn joined(&self) -> &[Joined] {
        &self.joined
    }

    /// The bytes that [`Joined::head`] points into.
    pub fn heads(&self) -> &[u8] {
        &self.heads
    }

    /// Rewritten headers of `joined`, empty when it is passed on as it came.
    pub fn head(&self, joined: &Joined) -> &[u8] {
        self.heads.get(joined.head.start as usize..joined.head.end as usize).unwrap_or_default()
    }

    /// The ranges of the received buffer that follow the head, in order.
    pub fn bodies<'a>(&'a self, joined: &'a Joined) -> &'a [Range<u32>] {
        std::slice::from_ref(&joined.body)
    }

    /// The start of the frame in one piece, for the switch: all headers at least, or the whole frame.
    pub fn start<'a>(&'a self, joined: &'a Joined, arena: &'a [u8]) -> &'a [u8] {
        if joined.head.is_empty() {
            arena.get(joined.body.start as usize..joined.body.end as usize).unwrap_or_default()
        } else {
            self.head(joined)
        }
    }

    /// Forgets all frames.
    pub fn clear(&mut self) {
        self.joined.clear();
        self.heads.clear();
    }
}

/// A VXLAN datagram in a received buffer, or what is left of it once it is opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    /// Its place, in the same arena as the received buffer's.
    pub frame: Range<u32>,
    /// For an oversize UDP super-frame that came whole: payload bytes of each of its datagrams. Else 0.
    pub gso_size: u16,
}

impl Part {
    /// The same without its first `len` bytes: the inner frame of a datagram whose header was checked.
    pub fn skip(self, len: usize) -> Part {
        Part { frame: (self.frame.start + len as u32).min(self.frame.end)..self.frame.end, ..self }
    }
}

/// The datagrams in what one receive call gave at `received` of `arena`: one each `stride` bytes, the last may be
/// shorter. A `stride` of 0 says there was no `UDP_GRO` message: one datagram.
pub fn parts(arena: &[u8], received: Range<u32>, stride: usize) -> impl Iterator<Item = Part> + use<> {
    let _ = arena;
    let step = if stride == 0 { received.len().max(1) } else { stride };
    received.clone().step_by(step).map(move |start| Part {
        frame: start..start.saturating_add(step as u32).min(received.end),
        gso_size: 0,
    })
}
