//! UDP headers (RFC 768).

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// The protocol number.
pub const PROTOCOL: u8 = 17;
/// Length of the header in bytes.
pub const LEN: usize = 8;
/// Where the length stands.
pub const LENGTH_OFFSET: usize = 4;
/// Where the checksum stands.
pub const CHECKSUM_OFFSET: usize = 6;

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Raw {
    ports: [u8; 4],
    length: U16,
    checksum: U16,
}

/// A datagram whose header is known to be whole and to agree with the bytes.
#[derive(Clone, Copy)]
pub struct Udp<'a> {
    raw: &'a Raw,
}

impl<'a> Udp<'a> {
    /// Checks that the length field says what the IP header said: `datagram` is the whole payload of the packet.
    /// None where it does not.
    pub fn parse(datagram: &'a [u8]) -> Option<Self> {
        let (raw, _) = Raw::ref_from_prefix(datagram).ok()?;
        (usize::from(raw.length.get()) == datagram.len()).then_some(Udp { raw })
    }

    /// The checksum field; zero says that there is none.
    pub fn checksum(&self) -> u16 {
        self.raw.checksum.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_must_agree() {
        let datagram = [0, 53, 0x30, 0x39, 0, 10, 0xab, 0xcd, 1, 2];
        assert_eq!(Udp::parse(&datagram).unwrap().checksum(), 0xabcd);
        assert!(Udp::parse(&datagram[..9]).is_none());
        assert!(Udp::parse(&datagram[..7]).is_none());
    }
}
