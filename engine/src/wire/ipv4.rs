//! IPv4 headers (RFC 791).

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::checksum::Sum;

/// Length of the header without options, in bytes.
pub const LEN: usize = 20;

const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const FRAGMENT_OFFSET: u16 = 0x1fff;

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Raw {
    version_and_len: u8,
    tos: u8,
    total_len: U16,
    id: U16,
    fragment: U16,
    ttl: u8,
    protocol: u8,
    checksum: U16,
    addresses: [u8; 8],
}

/// A packet whose header is known to be whole, and to hold its total length.
#[derive(Clone, Copy)]
pub struct Ipv4<'a> {
    raw: &'a Raw,
    packet: &'a [u8],
}

impl<'a> Ipv4<'a> {
    /// Checks version and lengths (RFC 791 section 3.1); none where they contradict the bytes. What follows the
    /// total length, padding of short frames, is left out.
    pub fn parse(packet: &'a [u8]) -> Option<Self> {
        let (raw, _) = Raw::ref_from_prefix(packet).ok()?;
        let (header_len, total_len) = (header_len(raw), usize::from(raw.total_len.get()));
        let sound = raw.version_and_len >> 4 == 4 && header_len >= LEN && total_len >= header_len;
        packet.get(..total_len).filter(|_| sound).map(|packet| Ipv4 { raw, packet })
    }

    /// Length of the header with its options, in bytes.
    pub fn header_len(&self) -> usize {
        header_len(self.raw)
    }

    /// Length of the packet in bytes.
    pub fn total_len(&self) -> usize {
        self.packet.len()
    }

    /// What the payload is.
    pub fn protocol(&self) -> u8 {
        self.raw.protocol
    }

    /// The identification field.
    pub fn id(&self) -> u16 {
        self.raw.id.get()
    }

    /// True when routers must not cut the packet.
    pub fn dont_fragment(&self) -> bool {
        self.raw.fragment.get() & DONT_FRAGMENT != 0
    }

    /// True for a piece of a larger packet.
    pub fn is_fragment(&self) -> bool {
        self.raw.fragment.get() & (MORE_FRAGMENTS | FRAGMENT_OFFSET) != 0
    }

    /// What segments of one super-frame share beside addresses and protocol: version and header length, type of
    /// service with the ECN bits, the reserved and don't-fragment bits, time to live.
    pub fn shared(&self) -> [u8; 4] {
        let [flags, _] = self.raw.fragment.get().to_be_bytes();
        [self.raw.version_and_len, self.raw.tos, flags, self.raw.ttl]
    }

    /// Whether the header's own checksum is right.
    pub fn header_is_intact(&self) -> bool {
        Sum::default().bytes(self.packet.get(..self.header_len()).unwrap_or_default()).is_intact()
    }

    /// The sum of the pseudo-header for a payload of `len` bytes (RFC 9293 section 3.1).
    pub fn pseudo_sum(&self, len: u16) -> Sum {
        Sum::default().bytes(&self.raw.addresses).word(u16::from(self.raw.protocol)).word(len)
    }
}

fn header_len(raw: &Raw) -> usize {
    usize::from(raw.version_and_len & 0x0f) * 4
}

/// Rewrites length and checksum of `header`, and adds `id_step` to its identification.
pub fn rewrite(header: &mut [u8], total_len: u16, id_step: u16) {
    put(header, 2, total_len);
    let id = header.get(4..6).and_then(<[u8]>::first_chunk).map_or(0, |id| u16::from_be_bytes(*id));
    put(header, 4, id.wrapping_add(id_step));
    put(header, 10, 0);
    let sum = Sum::default().bytes(header).checksum();
    put(header, 10, sum);
}

fn put(header: &mut [u8], at: usize, word: u16) {
    if let Some(field) = header.get_mut(at..at + 2) {
        field.copy_from_slice(&word.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The header of a TCP segment, captured between two network namespaces; checksum right.
    const HEADER: [u8; 20] = [
        0x45, 0x00, 0x00, 0x3c, 0x1c, 0x46, 0x40, 0x00, 0x40, 0x06, 0xb1, 0xe6, 0xac, 0x10, 0x0a, 0x63, 0xac,
        0x10, 0x0a, 0x0c,
    ];

    #[test]
    fn a_sound_header() {
        let mut packet = HEADER.to_vec();
        packet.resize(70, 0);
        let view = Ipv4::parse(&packet).unwrap();
        assert_eq!((view.header_len(), view.total_len(), view.protocol()), (20, 60, 6));
        assert!(view.header_is_intact() && view.dont_fragment() && !view.is_fragment());
        rewrite(&mut packet[..20], 61, 1);
        let view = Ipv4::parse(&packet).unwrap();
        assert!(view.header_is_intact());
        assert_eq!((view.total_len(), view.id()), (61, 0x1c47));
    }

    #[test]
    fn contradictions_are_refused() {
        let mut packet = HEADER.to_vec();
        assert!(Ipv4::parse(&packet).is_none(), "shorter than its total length");
        packet.resize(60, 0);
        assert!(Ipv4::parse(&packet).is_some());
        packet[0] = 0x44;
        assert!(Ipv4::parse(&packet).is_none(), "header of 16 bytes");
        packet[0] = 0x65;
        assert!(Ipv4::parse(&packet).is_none(), "version 6");
        packet[0] = 0x4f;
        assert!(Ipv4::parse(&packet).is_some_and(|view| view.header_len() == 60));
        packet[3] = 59;
        assert!(Ipv4::parse(&packet).is_none(), "total length within the header");
    }
}
