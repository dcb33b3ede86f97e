//! The pcapng file format as far as one interface needs it (draft-ietf-opsawg-pcapng), little-endian.
//!
//! A stream is a section header, an interface description, enhanced packets, and interface statistics whenever their
//! numbers have changed; of several statistics the last is the truth.

/// Content type of a stream.
pub(crate) const MEDIA_TYPE: &str = "application/x-pcapng";
/// Frames that begin with an Ethernet header.
pub(crate) const LINKTYPE_ETHERNET: u16 = 1;
/// Packets that begin with an IPv4 or IPv6 header.
pub(crate) const LINKTYPE_RAW: u16 = 101;

const SECTION: u32 = 0x0a0d_0d0a;
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const PACKET: u32 = 6;

// Options; their numbers count anew in each kind of block.
const END: u16 = 0;
const SHB_USERAPPL: u16 = 4;
const IF_NAME: u16 = 2;
const IF_TSRESOL: u16 = 9;
const EPB_FLAGS: u16 = 2;
const ISB_IFRECV: u16 = 4;
const ISB_IFDROP: u16 = 5;

/// Bits 0 and 1 of `epb_flags`.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

/// Type and length in front, the length again behind.
const FRAME: usize = 12;
/// What stands before the bytes of a packet, behind type and length.
const PACKET_HEAD: usize = 20;
/// No block of ours is longer; whoever sends one is none of us.
const MAX_BLOCK: usize = 1 << 20;

/// A frame with what is known of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Packet<'a> {
    /// Nanoseconds since 1970.
    pub(crate) at_ns: u64,
    /// Into the switch, or out of it.
    pub(crate) inbound: bool,
    /// Its length in bytes, of which fewer may have been captured.
    pub(crate) len: u32,
    /// Its bytes: these, then those.
    pub(crate) bytes: [&'a [u8]; 2],
}

/// Appends what stands at the beginning.
pub(crate) fn begin(out: &mut Vec<u8>, interface: &str, link_type: u16, snaplen: u32) {
    block(out, SECTION, |out| {
        out.extend_from_slice(&BYTE_ORDER_MAGIC.to_le_bytes());
        // Version 1.0; the length of the section is not known.
        out.extend_from_slice(&[1, 0, 0, 0]);
        out.extend_from_slice(&(-1_i64).to_le_bytes());
        option(out, SHB_USERAPPL, concat!("meshnet ", env!("CARGO_PKG_VERSION")).as_bytes());
        option(out, END, &[]);
    });
    block(out, INTERFACE, |out| {
        out.extend_from_slice(&link_type.to_le_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&snaplen.to_le_bytes());
        option(out, IF_NAME, interface.as_bytes());
        // Ten to the minus ninth seconds.
        option(out, IF_TSRESOL, &[9]);
        option(out, END, &[]);
    });
}

/// Appends a frame.
pub(crate) fn packet(out: &mut Vec<u8>, packet: &Packet<'_>) {
    let captured: usize = packet.bytes.iter().map(|part| part.len()).sum();
    block(out, PACKET, |out| {
        out.extend_from_slice(&0_u32.to_le_bytes());
        time(out, packet.at_ns);
        out.extend_from_slice(&(captured as u32).to_le_bytes());
        out.extend_from_slice(&packet.len.to_le_bytes());
        packet.bytes.iter().for_each(|part| out.extend_from_slice(part));
        pad(out, captured);
        let direction = if packet.inbound { INBOUND } else { OUTBOUND };
        option(out, EPB_FLAGS, &direction.to_le_bytes());
        option(out, END, &[]);
    });
}

/// Appends how many frames there were, and how many of them are missing because the reader was too slow.
pub(crate) fn statistics(out: &mut Vec<u8>, at_ns: u64, seen: u64, dropped: u64) {
    block(out, STATISTICS, |out| {
        out.extend_from_slice(&0_u32.to_le_bytes());
        time(out, at_ns);
        option(out, ISB_IFRECV, &seen.to_le_bytes());
        option(out, ISB_IFDROP, &dropped.to_le_bytes());
        option(out, END, &[]);
    });
}

/// The upper half first, whatever the byte order.
fn time(out: &mut Vec<u8>, at_ns: u64) {
    out.extend_from_slice(&((at_ns >> 32) as u32).to_le_bytes());
    out.extend_from_slice(&(at_ns as u32).to_le_bytes());
}

fn block(out: &mut Vec<u8>, kind: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    body(out);
    let len = (out.len() - start + 4) as u32;
    out.extend_from_slice(&len.to_le_bytes());
    if let Some(field) = out.get_mut(start + 4..start + 8) {
        field.copy_from_slice(&len.to_le_bytes());
    }
}

fn option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    out.extend_from_slice(&code.to_le_bytes());
    out.extend_from_slice(&(value.len() as u16).to_le_bytes());
    out.extend_from_slice(value);
    pad(out, value.len());
}

/// Everything starts at a multiple of four.
fn pad(out: &mut Vec<u8>, len: usize) {
    out.resize(out.len() + (4 - len % 4) % 4, 0);
}

/// A whole block of a stream, as it came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Block {
    bytes: Vec<u8>,
}

/// The stream is not what the daemon of this version sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the capture is no pcapng that this program can read")]
pub(crate) struct Malformed;

/// Puts blocks together from what arrives.
#[derive(Default, Debug)]
pub(crate) struct Blocks {
    waiting: Vec<u8>,
}

impl Blocks {
    /// Takes what arrived, and gives the blocks that are whole now.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Block>, Malformed> {
        self.waiting.extend_from_slice(bytes);
        let mut whole = Vec::new();
        let mut rest = self.waiting.as_slice();
        while let Some(len) = word(rest, 4) {
            let len = len as usize;
            if !(FRAME..=MAX_BLOCK).contains(&len) || !len.is_multiple_of(4) {
                return Err(Malformed);
            }
            let Some((block, behind)) = rest.split_at_checked(len) else { break };
            whole.push(Block { bytes: block.to_vec() });
            rest = behind;
        }
        self.waiting = rest.to_vec();
        Ok(whole)
    }
}

impl Block {
    /// The bytes for a file.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Of an interface description: its link type.
    pub(crate) fn link_type(&self) -> Option<u16> {
        (word(&self.bytes, 0)? == INTERFACE).then(|| word(&self.bytes, 8).map(|word| word as u16))?
    }

    /// Of interface statistics: how many frames are missing.
    pub(crate) fn dropped(&self) -> Option<u64> {
        if word(&self.bytes, 0)? != STATISTICS {
            return None;
        }
        // It comes second, in blocks of ours.
        let value = self.bytes.get(36..)?.first_chunk()?;
        Some(u64::from_le_bytes(*value))
    }

    /// Of an enhanced packet: the frame.
    pub(crate) fn packet(&self) -> Option<Packet<'_>> {
        if word(&self.bytes, 0)? != PACKET {
            return None;
        }
        let field = |at: usize| word(&self.bytes, 8 + at);
        let at_ns = u64::from(field(4)?) << 32 | u64::from(field(8)?);
        let captured = field(12)? as usize;
        let start = 8 + PACKET_HEAD;
        let bytes = self.bytes.get(start..start.checked_add(captured)?)?;
        let options = start + captured.next_multiple_of(4);
        // The flags come first, in blocks of ours.
        let inbound = word(&self.bytes, options + 4)? & 3 == INBOUND;
        Some(Packet { at_ns, inbound, len: field(16)?, bytes: [bytes, &[]] })
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|chunk| u32::from_le_bytes(*chunk))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME_BYTES: [&[u8]; 2] = [&[1, 2, 3], &[4, 5]];

    fn stream() -> Vec<u8> {
        let mut out = Vec::new();
        begin(&mut out, "mesh0", LINKTYPE_ETHERNET, 65_600);
        let frame = Packet { at_ns: 0x1122_3344_5566_7788, inbound: false, len: 60, bytes: FRAME_BYTES };
        packet(&mut out, &frame);
        statistics(&mut out, 1, 12, 7);
        out
    }

    #[test]
    fn the_bytes_are_those_of_the_specification() {
        let mut out = Vec::new();
        let frame = Packet { at_ns: 0x1122_3344_5566_7788, inbound: true, len: 60, bytes: FRAME_BYTES };
        packet(&mut out, &frame);
        #[rustfmt::skip]
        let expected: [u8; 52] = [
            6, 0, 0, 0,  52, 0, 0, 0,  0, 0, 0, 0,
            0x44, 0x33, 0x22, 0x11,  0x88, 0x77, 0x66, 0x55,
            5, 0, 0, 0,  60, 0, 0, 0,  1, 2, 3, 4, 5, 0, 0, 0,
            2, 0, 4, 0,  1, 0, 0, 0,  0, 0, 0, 0,  52, 0, 0, 0,
        ];
        assert_eq!(out, expected);

        let mut out = Vec::new();
        statistics(&mut out, 1 << 32, 3, 2);
        #[rustfmt::skip]
        let expected: [u8; 52] = [
            5, 0, 0, 0,  52, 0, 0, 0,  0, 0, 0, 0,  1, 0, 0, 0,  0, 0, 0, 0,
            4, 0, 8, 0,  3, 0, 0, 0, 0, 0, 0, 0,  5, 0, 8, 0,  2, 0, 0, 0, 0, 0, 0, 0,
            0, 0, 0, 0,  52, 0, 0, 0,
        ];
        assert_eq!(out, expected);

        let mut out = Vec::new();
        begin(&mut out, "mesh0", LINKTYPE_RAW, 96);
        assert_eq!(out[..8], [0x0a, 0x0d, 0x0d, 0x0a, out.len() as u8 - 44, 0, 0, 0]);
        assert_eq!(out[8..12], [0x4d, 0x3c, 0x2b, 0x1a]);
        #[rustfmt::skip]
        let interface: [u8; 44] = [
            1, 0, 0, 0,  44, 0, 0, 0,  101, 0, 0, 0,  96, 0, 0, 0,
            2, 0, 5, 0,  b'm', b'e', b's', b'h', b'0', 0, 0, 0,
            9, 0, 1, 0,  9, 0, 0, 0,  0, 0, 0, 0,  44, 0, 0, 0,
        ];
        assert_eq!(out[out.len() - 44..], interface);
    }

    #[test]
    fn blocks_are_put_together_however_they_arrive() {
        let stream = stream();
        for step in [1, 3, 7, 64, stream.len()] {
            let mut blocks = Blocks::default();
            let whole: Vec<Block> = stream.chunks(step).flat_map(|part| blocks.feed(part).unwrap()).collect();
            assert_eq!(whole.iter().flat_map(|b| b.bytes().to_vec()).collect::<Vec<_>>(), stream);
            assert_eq!(whole.len(), 4);
            assert_eq!(whole.iter().find_map(Block::link_type), Some(LINKTYPE_ETHERNET));
            assert_eq!(whole.iter().filter_map(Block::dropped).collect::<Vec<_>>(), [7]);
            let packets: Vec<Packet<'_>> = whole.iter().filter_map(Block::packet).collect();
            let frame: [&[u8]; 2] = [&[1, 2, 3, 4, 5], &[]];
            let at_ns = 0x1122_3344_5566_7788;
            assert_eq!(packets, [Packet { at_ns, inbound: false, len: 60, bytes: frame }]);
        }
    }

    #[test]
    fn a_length_that_cannot_be_is_refused() {
        for len in [0_u32, 8, 13, u32::MAX] {
            let bytes = [6_u32.to_le_bytes(), len.to_le_bytes()].concat();
            assert_eq!(Blocks::default().feed(&bytes), Err(Malformed), "{len}");
        }
    }
}
