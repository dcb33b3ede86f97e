//! IPv6 headers and the extension headers before the transport (RFC 8200).

use std::net::Ipv6Addr;

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::checksum::Sum;

/// Length of the fixed header in bytes.
pub const LEN: usize = 40;

const HOP_BY_HOP: u8 = 0;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

/// How many extension headers are looked through: RFC 8200 section 4.1 lists fewer.
const MAX_EXTENSIONS: usize = 8;

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Raw {
    version_class_label: [u8; 4],
    payload_len: U16,
    next_header: u8,
    hop_limit: u8,
    addresses: [u8; 32],
}

/// A packet whose headers up to the transport are known to be whole.
#[derive(Clone, Copy)]
pub struct Ipv6<'a> {
    raw: &'a Raw,
    packet: &'a [u8],
    header_len: usize,
    protocol: u8,
}

impl<'a> Ipv6<'a> {
    /// Checks version and lengths and walks the extension headers; none where they contradict the bytes. A jumbo
    /// payload (RFC 2675) is none. Bytes behind the payload are left out.
    pub fn parse(packet: &'a [u8]) -> Option<Self> {
        let (raw, rest) = Raw::ref_from_prefix(packet).ok()?;
        let payload = rest.get(..usize::from(raw.payload_len.get()))?;
        let [first, ..] = raw.version_class_label;
        if first >> 4 != 6 || payload.is_empty() {
            return None;
        }
        let (protocol, extensions) = walk(raw.next_header, payload)?;
        Some(Ipv6 { raw, packet: packet.get(..LEN + payload.len())?, header_len: LEN + extensions, protocol })
    }

    /// Length of the fixed header and the extensions before the transport, in bytes.
    pub fn header_len(&self) -> usize {
        self.header_len
    }

    /// Length of the packet in bytes.
    pub fn total_len(&self) -> usize {
        self.packet.len()
    }

    /// What follows the last extension header.
    pub fn protocol(&self) -> u8 {
        self.protocol
    }

    /// Source and destination.
    pub fn addresses(&self) -> (Ipv6Addr, Ipv6Addr) {
        let (source, destination) = self.raw.addresses.split_at(16);
        let addr = |octets: &[u8]| <[u8; 16]>::try_from(octets).map_or(Ipv6Addr::UNSPECIFIED, Ipv6Addr::from);
        (addr(source), addr(destination))
    }

    /// How many routers may still pass it on.
    pub fn hop_limit(&self) -> u8 {
        self.raw.hop_limit
    }

    /// True for a piece of a larger packet.
    pub fn is_fragment(&self) -> bool {
        self.protocol == FRAGMENT
    }

    /// What segments of one super-frame share beside addresses and protocol: version, traffic class with the ECN
    /// bits, flow label; hop limit.
    pub fn shared(&self) -> ([u8; 4], u8) {
        (self.raw.version_class_label, self.raw.hop_limit)
    }

    /// The sum of the pseudo-header for a payload of `len` bytes (RFC 8200 section 8.1).
    pub fn pseudo_sum(&self, len: u16) -> Sum {
        Sum::default().bytes(&self.raw.addresses).word(u16::from(self.protocol)).word(len)
    }
}

/// The first header that is no extension, and the length in bytes of those before it. A fragment header ends the
/// walk, and so does a routing header: behind it the pseudo-header has another destination (RFC 8200 section 8.1).
fn walk(mut next: u8, payload: &[u8]) -> Option<(u8, usize)> {
    let mut at = 0;
    for _ in 0..MAX_EXTENSIONS {
        if !matches!(next, HOP_BY_HOP | DESTINATION) {
            return Some((next, at));
        }
        let &[following, len] = payload.get(at..)?.first_chunk::<2>()?;
        at += (usize::from(len) + 1) * 8;
        next = following;
    }
    None
}

/// Rewrites the payload length of the header at the start of `header`: all bytes behind the fixed header.
pub fn rewrite(header: &mut [u8], payload_len: u16) {
    if let Some(field) = header.get_mut(4..6) {
        field.copy_from_slice(&payload_len.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(next: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, payload.len() as u8, next, 64];
        packet.resize(LEN, 0xfd);
        packet.extend_from_slice(payload);
        packet
    }

    #[test]
    fn extension_headers_are_walked() {
        let mut payload = vec![0; 40];
        (payload[0], payload[1]) = (DESTINATION, 0);
        (payload[8], payload[9]) = (17, 1);
        let packet = packet(HOP_BY_HOP, &payload);
        let view = Ipv6::parse(&packet).unwrap();
        assert_eq!((view.header_len(), view.protocol(), view.total_len()), (LEN + 24, 17, 80));
        assert!(!view.is_fragment());
    }

    #[test]
    fn fragments_and_contradictions() {
        assert!(Ipv6::parse(&packet(FRAGMENT, &[0; 16])).unwrap().is_fragment());
        assert!(Ipv6::parse(&packet(HOP_BY_HOP, &[HOP_BY_HOP])).is_none(), "cut extension header");
        assert!(Ipv6::parse(&packet(HOP_BY_HOP, &[0; 200])).is_none(), "headers without end");
        assert!(Ipv6::parse(&packet(6, &[])).is_none(), "no payload, or a jumbogram");
        assert!(Ipv6::parse(&packet(6, &[0; 20])[..59]).is_none());
    }
}
