//! The virtio-net header that stands before each frame on a TAP device opened with `IFF_VNET_HDR`
//! (linux/virtio_net.h, `struct virtio_net_hdr`): ten bytes, in native order.

use zerocopy::byteorder::native_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::counters::DropReason;
use crate::wire::ether;

/// Length of the header in bytes: what `TUNSETVNETHDRSZ` is told.
pub const LEN: usize = 10;

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`: the checksum field holds the sum of the pseudo-header only.
pub const NEEDS_CSUM: u8 = 1;
/// `VIRTIO_NET_HDR_F_DATA_VALID`: the checksum was verified. The kernel ignores it on what is written to a TAP.
pub const DATA_VALID: u8 = 2;

/// `VIRTIO_NET_HDR_GSO_NONE`: an ordinary frame.
pub const GSO_NONE: u8 = 0;
/// `VIRTIO_NET_HDR_GSO_TCPV4`: a super-frame of TCP segments over IPv4.
pub const GSO_TCPV4: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_TCPV6`: a super-frame of TCP segments over IPv6.
pub const GSO_TCPV6: u8 = 4;
/// `VIRTIO_NET_HDR_GSO_UDP_L4`: a super-frame of UDP datagrams, IPv4 or IPv6.
pub const GSO_UDP_L4: u8 = 5;
/// `VIRTIO_NET_HDR_GSO_ECN`: set beside a TCP type when the first segment carries CWR.
pub const GSO_ECN: u8 = 0x80;

/// What the kernel tells of a frame it hands over, and what it is told of a frame it gets.
///
/// Offsets count from the first byte of the Ethernet header.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct VnetHeader {
    /// [`NEEDS_CSUM`], [`DATA_VALID`].
    pub flags: u8,
    /// One of the `GSO_` types, [`GSO_ECN`] or-ed in.
    pub gso_type: u8,
    /// Length of all headers in bytes; a hint only on what is read.
    pub hdr_len: u16,
    /// Payload bytes of each segment of a super-frame.
    pub gso_size: u16,
    /// Where summing starts.
    pub csum_start: u16,
    /// Where the sum goes, counted from `csum_start`.
    pub csum_offset: u16,
}

/// The same on the wire.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Raw {
    flags: u8,
    gso_type: u8,
    hdr_len: U16,
    gso_size: U16,
    csum_start: U16,
    csum_offset: U16,
}

impl VnetHeader {
    /// Reads and checks the header at the start of `read`; the frame is the rest.
    ///
    /// # Errors
    /// [`DropReason::Runt`] when there is no room for the header and an Ethernet header behind it;
    /// [`DropReason::BadOffload`] when the header contradicts itself or the length of the frame.
    pub fn parse(read: &[u8]) -> Result<Self, DropReason> {
        let (raw, frame) = Raw::ref_from_prefix(read).map_err(|_| DropReason::Runt)?;
        if frame.len() < ether::LEN {
            return Err(DropReason::Runt);
        }
        let header = VnetHeader {
            flags: raw.flags,
            gso_type: raw.gso_type,
            hdr_len: raw.hdr_len.get(),
            gso_size: raw.gso_size.get(),
            csum_start: raw.csum_start.get(),
            csum_offset: raw.csum_offset.get(),
        };
        if header.fits(frame.len()) { Ok(header) } else { Err(DropReason::BadOffload) }
    }

    /// The ten bytes for a `write` to a TAP.
    pub fn emit(&self) -> [u8; LEN] {
        let raw = Raw {
            flags: self.flags,
            gso_type: self.gso_type,
            hdr_len: self.hdr_len.into(),
            gso_size: self.gso_size.into(),
            csum_start: self.csum_start.into(),
            csum_offset: self.csum_offset.into(),
        };
        zerocopy::transmute!(raw)
    }

    /// True when the checksum field holds only the sum of the pseudo-header.
    pub fn needs_csum(&self) -> bool {
        self.flags & NEEDS_CSUM != 0
    }

    /// True for a super-frame.
    pub fn is_super(&self) -> bool {
        self.gso_type != GSO_NONE
    }

    /// The GSO type without the ECN bit.
    pub fn kind(&self) -> u8 {
        self.gso_type & !GSO_ECN
    }

    /// Whether the offsets lie inside a frame of `len` bytes, and the fields agree with each other.
    fn fits(&self, len: usize) -> bool {
        let field_end = usize::from(self.csum_start) + usize::from(self.csum_offset) + 2;
        let sum = !self.needs_csum() || (usize::from(self.csum_start) >= ether::LEN && field_end <= len);
        let cut = match self.gso_type {
            GSO_NONE => true,
            _ => {
                matches!(self.kind(), GSO_TCPV4 | GSO_TCPV6 | GSO_UDP_L4)
                    && self.gso_size > 0
                    && self.needs_csum()
            }
        };
        sum && cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(header: VnetHeader, frame: usize) -> Vec<u8> {
        let mut bytes = header.emit().to_vec();
        bytes.resize(LEN + frame, 0);
        bytes
    }

    #[test]
    fn a_header_survives_the_wire() {
        let header = VnetHeader {
            flags: NEEDS_CSUM,
            gso_type: GSO_TCPV4 | GSO_ECN,
            hdr_len: 54,
            gso_size: 1410,
            csum_start: 34,
            csum_offset: 16,
        };
        assert_eq!(VnetHeader::parse(&read(header, 9000)), Ok(header));
        assert!(header.is_super() && header.kind() == GSO_TCPV4);
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        let plain = VnetHeader::default();
        assert_eq!(VnetHeader::parse(&[]), Err(DropReason::Runt));
        assert_eq!(VnetHeader::parse(&read(plain, 13)), Err(DropReason::Runt));
        let bad =
            |header, len| assert_eq!(VnetHeader::parse(&read(header, len)), Err(DropReason::BadOffload));
        bad(VnetHeader { flags: NEEDS_CSUM, csum_start: 50, csum_offset: 16, ..plain }, 60);
        bad(VnetHeader { flags: NEEDS_CSUM, csum_start: 0, csum_offset: 6, ..plain }, 60);
        bad(VnetHeader { gso_type: GSO_TCPV4, gso_size: 1400, ..plain }, 60);
        bad(VnetHeader { flags: NEEDS_CSUM, csum_start: 34, gso_type: GSO_UDP_L4, ..plain }, 60);
        bad(VnetHeader { flags: NEEDS_CSUM, csum_start: 34, gso_type: 3, gso_size: 8, ..plain }, 60);
    }
}
