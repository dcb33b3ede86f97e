//! Super-frames: [`cut`] on the way to the underlay, [`join`] on the way back.
//!
//! A payload is never copied. Rewritten headers go into an arena reserved at start, payloads stay where they
//! were read and are passed on as ranges of that buffer.

pub mod cut;
pub mod fragment;
mod headers;
pub mod join;
mod parts;
pub mod source_port;
pub mod too_big;
pub mod tunnel;

use crate::wire::virtio::VnetHeader;
use headers::Inner;

/// How many frames of a wire the `frame` stands for, of which the kernel says `vnet`: the segments of a super-frame,
/// or one. One too where the header contradicts the frame, which [`cut`] refuses.
pub fn segments(frame: &[u8], vnet: &VnetHeader) -> u64 {
    if !vnet.is_super() || vnet.gso_size == 0 {
        return 1;
    }
    match Inner::parse(frame) {
        Ok(Inner::Flow(headers)) if headers.gso_type() == vnet.kind() => {
            headers.payload_len().div_ceil(vnet.gso_size.into()).max(1) as u64
        }
        _ => 1,
    }
}

/// Whether a bounded buffer took what it was offered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "a full buffer took nothing: empty it and offer the frame again"]
pub enum Intake {
    /// It is in.
    Taken,
    /// Nothing was taken: pass on what the buffer holds, clear it, and offer the same frame again. An empty
    /// buffer never says this.
    Full,
}
