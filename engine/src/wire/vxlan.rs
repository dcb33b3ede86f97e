//! VXLAN (RFC 7348 section 5): eight bytes between the UDP header and the inner frame.

use crate::counters::DropReason;
use crate::types::Vni;

/// Length of the header in bytes.
pub const LEN: usize = 8;

/// The UDP port that IANA gave to VXLAN.
pub const PORT: u16 = 4789;

/// The I flag: the VNI is valid. A datagram on our port whose first byte lacks it is of our own kind.
pub const FLAG_VNI: u8 = 0x08;

/// The P flag of VXLAN-GPE (draft-ietf-nvo3-vxlan-gpe section 3.1): what follows need not be Ethernet.
pub const FLAG_GPE: u8 = 0x04;

/// C, in the second byte, of a header that is sealed with its frame: the checksum of the frame's own TCP or UDP header is
/// partial. Ours alone, and never seen in clear.
pub const FLAG_PARTIAL: u8 = 0x01;

/// Opens a datagram: its VNI, and the inner frame. Other flags and the reserved bytes are ignored.
///
/// # Errors
/// [`DropReason::TruncatedVxlan`], [`DropReason::VxlanFlags`] without the I flag, [`DropReason::Gpe`].
pub fn parse(datagram: &[u8]) -> Result<(Vni, &[u8]), DropReason> {
    let (header, frame) = datagram.split_first_chunk::<LEN>().ok_or(DropReason::TruncatedVxlan)?;
    let [flags, _, _, _, a, b, c, _] = *header;
    if flags & FLAG_VNI == 0 {
        return Err(DropReason::VxlanFlags);
    }
    if flags & FLAG_GPE != 0 {
        return Err(DropReason::Gpe);
    }
    let vni = Vni::new(u32::from_be_bytes([0, a, b, c])).ok_or(DropReason::UnknownVni)?;
    Ok((vni, frame))
}

/// The header for `vni`: the I flag, everything reserved zero.
pub fn header(vni: Vni) -> [u8; LEN] {
    let [_, a, b, c] = vni.get().to_be_bytes();
    [FLAG_VNI, 0, 0, 0, a, b, c, 0]
}

/// The header for `vni` of a frame that will be sealed, which says whether its checksum is partial.
pub fn header_within(vni: Vni, partial: bool) -> [u8; LEN] {
    let mut header = header(vni);
    header[1] = if partial { FLAG_PARTIAL } else { 0 };
    header
}

/// Whether the header at the start of what was opened says that the checksum is partial.
pub fn is_partial(content: &[u8]) -> bool {
    content.get(1).is_some_and(|flags| flags & FLAG_PARTIAL != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_is_read_again() {
        let vni = Vni::new(0x00ab_cdef).unwrap();
        let mut datagram = header(vni).to_vec();
        assert_eq!(datagram, [8, 0, 0, 0, 0xab, 0xcd, 0xef, 0]);
        datagram.extend_from_slice(b"frame");
        assert_eq!(parse(&datagram), Ok((vni, &b"frame"[..])));
    }

    #[test]
    fn odd_flags() {
        let with = |flags: u8| [flags, 1, 2, 3, 0, 0, 7, 9];
        assert_eq!(parse(&with(0xf8 & !FLAG_GPE)).map(|(vni, _)| vni.get()), Ok(7));
        assert_eq!(parse(&with(0x00)), Err(DropReason::VxlanFlags));
        assert_eq!(parse(&with(0x0c)), Err(DropReason::Gpe));
        assert_eq!(parse(&with(0x08)[..7]), Err(DropReason::TruncatedVxlan));
    }
}
