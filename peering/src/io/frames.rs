//! Messages on the stream of a connection: a length of four bytes, little-endian, then the message.
//!
//! The highest bit of the length marks a datagram that took the stream because it was too large to go alone.

use bytes::{Buf, Bytes, BytesMut};

use crate::proto::MAX_MESSAGE;

/// The bytes of a length.
pub(super) const PREFIX_LEN: usize = 4;
const DATAGRAM: u32 = 1 << 31;

/// What came on a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Frame {
    /// In order and without loss.
    Message(Bytes),
    /// In any order, if at all.
    Datagram(Bytes),
}

/// The peer announced a message longer than any it may send.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a message of {0} bytes is longer than allowed")]
pub(super) struct TooLong(usize);

/// The length that goes before a message; `None` if it is too long to be sent.
pub(super) fn prefix(len: usize, datagram: bool) -> Option<[u8; PREFIX_LEN]> {
    let mark = if datagram { DATAGRAM } else { 0 };
    let len = u32::try_from(len).ok().filter(|&len| len as usize <= MAX_MESSAGE)?;
    Some((len | mark).to_le_bytes())
}

/// Cuts a stream into frames; holds at most one unfinished frame and what came with it.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    pending: BytesMut,
}

impl Decoder {
    /// More bytes of the stream.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// The next whole frame. After an error the stream makes no sense any more.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, TooLong> {
        let Some(prefix) = self.pending.first_chunk::<PREFIX_LEN>() else { return Ok(None) };
        let word = u32::from_le_bytes(*prefix);
        let len = (word & !DATAGRAM) as usize;
        if len > MAX_MESSAGE {
            return Err(TooLong(len));
        }
        if self.pending.len() < PREFIX_LEN + len {
            return Ok(None);
        }
        self.pending.advance(PREFIX_LEN);
        let bytes = self.pending.split_to(len).freeze();
        Ok(Some(if word & DATAGRAM != 0 { Frame::Datagram(bytes) } else { Frame::Message(bytes) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_cut_anywhere_gives_the_same_frames() {
        let mut stream = Vec::new();
        for (bytes, datagram) in [(&b"one"[..], false), (b"", false), (b"three", true)] {
            stream.extend_from_slice(&prefix(bytes.len(), datagram).unwrap());
            stream.extend_from_slice(bytes);
        }
        for step in 1..=stream.len() {
            let mut decoder = Decoder::default();
            let mut frames = Vec::new();
            for piece in stream.chunks(step) {
                decoder.push(piece);
                while let Some(frame) = decoder.next().unwrap() {
                    frames.push(frame);
                }
            }
            let message = |bytes: &'static [u8]| Frame::Message(Bytes::from_static(bytes));
            let datagram = Frame::Datagram(Bytes::from_static(b"three"));
            assert_eq!(frames, [message(b"one"), message(b""), datagram], "step {step}");
        }
    }

    #[test]
    fn a_length_beyond_the_limit_ends_the_stream_before_it_is_collected() {
        let mut decoder = Decoder::default();
        decoder.push(&(MAX_MESSAGE as u32 + 1).to_le_bytes());
        assert_eq!(decoder.next(), Err(TooLong(MAX_MESSAGE + 1)));
        assert_eq!(prefix(MAX_MESSAGE + 1, false), None);
        assert!(prefix(MAX_MESSAGE, true).is_some());
    }
}
