//! The frame around every message and record: kind, version, length, bytes; little-endian.

/// Bytes before the body.
pub const HEADER_LEN: usize = 8;

/// The bytes are no envelope.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// The bytes end before the envelope does.
    #[error("the envelope is cut short: {have} bytes of {need}")]
    Truncated {
        /// Bytes that are there.
        have: usize,
        /// Bytes that the header asks for.
        need: usize,
    },
    /// The body is longer than its kind may be.
    #[error("a body of {0} bytes is over the limit")]
    TooLong(u32),
}

/// A checked view of one envelope.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Envelope<'a> {
    /// What the body is.
    pub kind: u16,
    /// The version of that kind.
    pub version: u16,
    /// The body.
    pub body: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// Reads the envelope at the front of `bytes` and returns what follows it.
    ///
    /// # Errors
    /// The bytes end too early, or the body is longer than `limit` bytes.
    pub fn parse(bytes: &'a [u8], limit: usize) -> Result<(Self, &'a [u8]), EnvelopeError> {
        let truncated = |need| EnvelopeError::Truncated { have: bytes.len(), need };
        let (header, rest) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(truncated(HEADER_LEN))?;
        let [k0, k1, v0, v1, l0, l1, l2, l3] = *header;
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        let len = usize::try_from(length).ok().filter(|&len| len <= limit);
        let len = len.ok_or(EnvelopeError::TooLong(length))?;
        let (body, rest) = rest.split_at_checked(len).ok_or(truncated(HEADER_LEN + len))?;
        let envelope =
            Envelope { kind: u16::from_le_bytes([k0, k1]), version: u16::from_le_bytes([v0, v1]), body };
        Ok((envelope, rest))
    }
}

/// Writes an envelope around a body. The body's length must fit the 32 bits of the header.
pub fn seal(kind: u16, version: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_LEN + body.len());
    bytes.extend_from_slice(&header(kind, version, body.len()));
    bytes.extend_from_slice(body);
    bytes
}

/// The header of an envelope around `len` bytes.
pub(crate) fn header(kind: u16, version: u16, len: usize) -> [u8; HEADER_LEN] {
    let [k0, k1] = kind.to_le_bytes();
    let [v0, v1] = version.to_le_bytes();
    let [l0, l1, l2, l3] = u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes();
    [k0, k1, v0, v1, l0, l1, l2, l3]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn envelopes_follow_each_other_and_end_where_they_say() {
        let bytes = [seal(1, 2, b"ab"), seal(0x0304, 1, b"")].concat();
        let (first, rest) = Envelope::parse(&bytes, 2).unwrap();
        assert_eq!(first, Envelope { kind: 1, version: 2, body: b"ab" });
        let (second, rest) = Envelope::parse(rest, 0).unwrap();
        assert_eq!((second.kind, second.body, rest), (0x0304, &b""[..], &b""[..]));
        assert_eq!(Envelope::parse(&bytes, 1), Err(EnvelopeError::TooLong(2)));
        assert!(matches!(
            Envelope::parse(&bytes[..9], 9),
            Err(EnvelopeError::Truncated { have: 9, need: 10 })
        ));
    }
}
