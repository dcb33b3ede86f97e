//! Ethernet II frames (IEEE 802.3 section 3), looked through up to two 802.1Q tags.

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::counters::DropReason;
use crate::types::MacAddr;

/// Length of the header without tags, in bytes.
pub const LEN: usize = 14;
/// Length of one 802.1Q tag in bytes.
pub const TAG_LEN: usize = 4;

/// ARP (RFC 826).
pub const ARP: u16 = 0x0806;
/// IPv4 (RFC 894).
pub const IPV4: u16 = 0x0800;
/// IPv6 (RFC 2464 section 3).
pub const IPV6: u16 = 0x86dd;
/// A customer tag follows (IEEE 802.1Q section 9.5).
pub const VLAN: u16 = 0x8100;
/// A service tag follows (IEEE 802.1Q section 9.5, once 802.1ad).
pub const SERVICE_VLAN: u16 = 0x88a8;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Raw {
    destination: [u8; 6],
    source: [u8; 6],
    ethertype: U16,
}

/// A frame whose Ethernet header is known to be whole.
#[derive(Clone, Copy, Debug)]
pub struct Ether<'a> {
    frame: &'a [u8],
    ethertype: u16,
    tags: u8,
}

impl<'a> Ether<'a> {
    /// Checks the header and the tags of `frame`.
    ///
    /// # Errors
    /// [`DropReason::Runt`] when the frame is shorter than the header, [`DropReason::TruncatedTag`] when it
    /// ends inside a tag.
    pub fn parse(frame: &'a [u8]) -> Result<Self, DropReason> {
        let (raw, _) = Raw::ref_from_prefix(frame).map_err(|_| DropReason::Runt)?;
        let mut ethertype = raw.ethertype.get();
        let mut tags = 0;
        while matches!(ethertype, VLAN | SERVICE_VLAN) && tags < 2 {
            let at = LEN + TAG_LEN * usize::from(tags) + 2;
            let inner = frame.get(at..).and_then(<[u8]>::first_chunk::<2>).ok_or(DropReason::TruncatedTag)?;
            ethertype = u16::from_be_bytes(*inner);
            tags += 1;
        }
        Ok(Ether { frame, ethertype, tags })
    }

    /// Who the frame is for.
    pub fn destination(&self) -> MacAddr {
        mac_at(self.frame, 0)
    }

    /// Who sent it.
    pub fn source(&self) -> MacAddr {
        mac_at(self.frame, 6)
    }

    /// What the payload is, behind the tags.
    pub fn ethertype(&self) -> u16 {
        self.ethertype
    }

    /// How many tags stand before the payload, at most two.
    pub fn tags(&self) -> u8 {
        self.tags
    }

    /// Where the payload starts, in bytes from the start of the frame.
    pub fn payload_offset(&self) -> usize {
        LEN + TAG_LEN * usize::from(self.tags)
    }

    /// What is behind header and tags.
    pub fn payload(&self) -> &'a [u8] {
        self.frame.get(self.payload_offset()..).unwrap_or_default()
    }
}

/// The six bytes at `at`, or zero where the frame has none.
fn mac_at(frame: &[u8], at: usize) -> MacAddr {
    frame.get(at..).and_then(<[u8]>::first_chunk::<6>).map_or(MacAddr::default(), |octets| MacAddr(*octets))
}

/// The fourteen bytes of an untagged header.
pub fn header(destination: MacAddr, source: MacAddr, ethertype: u16) -> [u8; LEN] {
    zerocopy::transmute!(Raw { destination: destination.0, source: source.0, ethertype: ethertype.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const B: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

    #[test]
    fn an_untagged_frame() {
        let mut frame = header(B, A, IPV4).to_vec();
        frame.push(0x45);
        let view = Ether::parse(&frame).unwrap();
        assert_eq!((view.destination(), view.source()), (B, A));
        assert_eq!((view.ethertype(), view.tags(), view.payload()), (IPV4, 0, &[0x45][..]));
        assert_eq!(Ether::parse(&frame[..13]).unwrap_err(), DropReason::Runt);
    }

    #[test]
    fn tags_are_looked_through() {
        let mut frame = header(B, A, SERVICE_VLAN).to_vec();
        frame.extend_from_slice(&[0, 7, 0x81, 0, 0, 8, 0x08, 0x06, 0xaa]);
        let view = Ether::parse(&frame).unwrap();
        assert_eq!((view.ethertype(), view.tags(), view.payload()), (ARP, 2, &[0xaa][..]));
        assert_eq!(Ether::parse(&frame[..21]).unwrap_err(), DropReason::TruncatedTag);
    }

    #[test]
    fn a_third_tag_is_payload() {
        let mut frame = header(B, A, VLAN).to_vec();
        frame.extend_from_slice(&[0, 1, 0x81, 0, 0, 2, 0x81, 0, 0, 3, 8, 0]);
        let view = Ether::parse(&frame).unwrap();
        assert_eq!((view.ethertype(), view.tags()), (VLAN, 2));
    }
}
