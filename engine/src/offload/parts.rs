//! What one receive call gave: which datagrams, and whether one is a super-frame in disguise.

use std::ops::Range;

use super::headers::Inner;
use crate::wire::vxlan;

/// A datagram in a received buffer, or what is left of it once its VXLAN header was checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    /// Its place in the arena.
    pub frame: Range<u32>,
    /// For a UDP super-frame that came whole: bytes of payload in each of its datagrams. Else 0.
    pub gso_size: u16,
}

impl Part {
    /// The same without its first `len` bytes.
    #[must_use]
    pub fn skip(self, len: usize) -> Part {
        let start = self.frame.start.saturating_add(len as u32).min(self.frame.end);
        Part { frame: start..self.frame.end, ..self }
    }
}

/// The datagrams in `received`, a range of `arena` that one receive call filled: one each `stride` bytes, the last
/// may be shorter. A `stride` of 0 says that there was no `UDP_GRO` message: one datagram.
///
/// A kernel VTEP on the same machine may hand over a container's UDP super-frame whole. It then comes with a
/// `UDP_GRO` message that speaks of the *inner* datagrams, and slicing it would take payload for VXLAN headers. The
/// inner lengths tell it: they reach beyond the first slice. It is one part, with its `gso_size`.
pub fn parts(arena: &[u8], received: Range<u32>, stride: usize) -> impl Iterator<Item = Part> + use<> {
    let datagram = arena.get(received.start as usize..received.end as usize).unwrap_or_default();
    let whole = stride == 0 || is_super_frame(datagram, stride);
    let step = if whole { received.len() } else { stride }.max(1);
    let gso_size = if whole { u16::try_from(stride).unwrap_or_default() } else { 0 };
    let end = received.end;
    received
        .step_by(step)
        .map(move |start| Part { frame: start..start.saturating_add(step as u32).min(end), gso_size })
}

fn is_super_frame(datagram: &[u8], stride: usize) -> bool {
    let Ok((_, frame)) = vxlan::parse(datagram) else { return false };
    matches!(Inner::parse(frame), Ok(Inner::Flow(h)) if !h.tcp && vxlan::LEN + h.end as usize > stride)
}
