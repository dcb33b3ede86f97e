//! TCP headers (RFC 9293 section 3.1).

use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// The protocol number.
pub const PROTOCOL: u8 = 6;
/// Length of the header without options, in bytes.
pub const LEN: usize = 20;
/// Where the sequence number stands.
pub const SEQ_OFFSET: usize = 4;
/// Where the flags stand.
pub const FLAGS_OFFSET: usize = 13;
/// Where the checksum stands.
pub const CHECKSUM_OFFSET: usize = 16;

/// No more data from the sender.
pub const FIN: u8 = 0x01;
/// Hand over to the application now.
pub const PSH: u8 = 0x08;
/// The acknowledgement number counts.
pub const ACK: u8 = 0x10;
/// Congestion was echoed back (RFC 3168 section 6.1).
pub const ECE: u8 = 0x40;
/// The window was reduced (RFC 3168 section 6.1).
pub const CWR: u8 = 0x80;

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Raw {
    ports: [u8; 4],
    seq: U32,
    ack: U32,
    offset: u8,
    flags: u8,
    window: U16,
    checksum: U16,
    urgent: U16,
}

/// A segment whose header is known to be whole.
#[derive(Clone, Copy)]
pub struct Tcp<'a> {
    raw: &'a Raw,
    options: &'a [u8],
}

impl<'a> Tcp<'a> {
    /// Checks the data offset; none where it contradicts the bytes.
    pub fn parse(segment: &'a [u8]) -> Option<Self> {
        let (raw, rest) = Raw::ref_from_prefix(segment).ok()?;
        let options = rest.get(..header_len(raw).checked_sub(LEN)?)?;
        Some(Tcp { raw, options })
    }

    /// Length of the header with its options, in bytes.
    pub fn header_len(&self) -> usize {
        LEN + self.options.len()
    }

    /// The sequence number of the first byte.
    pub fn seq(&self) -> u32 {
        self.raw.seq.get()
    }

    /// The eight flags.
    pub fn flags(&self) -> u8 {
        self.raw.flags
    }

    /// The checksum field.
    pub fn checksum(&self) -> u16 {
        self.raw.checksum.get()
    }

    /// Whether another segment of the same flow says the same in all but its sequence number and the flags that
    /// may end a super-frame (PSH, FIN): acknowledgement, window, urgent pointer, options, other flags and reserved
    /// bits.
    pub fn agrees(&self, other: &Tcp<'_>) -> bool {
        let flags = self.raw.flags ^ other.raw.flags;
        self.raw.ack == other.raw.ack
            && self.raw.window == other.raw.window
            && self.raw.offset == other.raw.offset
            && self.raw.urgent == other.raw.urgent
            && flags & !(PSH | FIN) == 0
            && self.options == other.options
    }
}

fn header_len(raw: &Raw) -> usize {
    usize::from(raw.offset >> 4) * 4
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(options: &[u8]) -> Vec<u8> {
        let mut segment = vec![0x12, 0x34, 0, 80, 0, 0, 0, 9, 0, 0, 0, 7, 0x50, ACK, 1, 0, 0xab, 0xcd, 0, 0];
        segment[12] += (options.len() as u8 / 4) << 4;
        segment.extend_from_slice(options);
        segment
    }

    #[test]
    fn a_sound_header() {
        let bytes = segment(&[1, 1, 1, 1]);
        let tcp = Tcp::parse(&bytes).unwrap();
        assert_eq!((tcp.header_len(), tcp.seq(), tcp.flags(), tcp.checksum()), (24, 9, ACK, 0xabcd));
        assert!(Tcp::parse(&bytes[..23]).is_none());
        let mut short = bytes.clone();
        short[12] = 0x40;
        assert!(Tcp::parse(&short).is_none());
    }

    #[test]
    fn what_may_differ_within_a_super_frame() {
        let bytes = segment(&[1, 1, 1, 1]);
        let first = Tcp::parse(&bytes).unwrap();
        let agrees = |at: usize, value: u8| {
            let mut other = bytes.clone();
            other[at] = value;
            first.agrees(&Tcp::parse(&other).unwrap())
        };
        assert!(agrees(7, 99) && agrees(13, ACK | PSH) && agrees(13, ACK | FIN) && agrees(16, 1));
        assert!(
            !agrees(11, 8) && !agrees(14, 2) && !agrees(23, 0) && !agrees(13, ACK | ECE) && !agrees(12, 0x61)
        );
    }
}
