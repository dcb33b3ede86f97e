//! Super-frames: [`cut`] on the way to the underlay, [`join`] on the way back.
//!
//! A payload is never copied. Rewritten headers go into an arena reserved at start, payloads stay where they
//! were read and are passed on as ranges of that buffer.

pub mod cut;
mod headers;
pub mod join;
mod parts;
pub mod source_port;

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
