//! The datagrams of a sealed session on the data port (docs/protocol.md has the tables): initiation, response, cookie and
//! sealed frame, told apart by their first byte. Integers are little-endian.
//!
//! ```text
//! sealed      type 4 (1)  lane (1)  zero (2)  receiver index (4)  counter (8) | AEAD(VXLAN header, frame) | tag (16)
//! initiation  type 1 (1)  suite (1)  zero (2)  sender index (4) | Noise message 1 | MAC1 (16)  MAC2 (16)
//! response    type 2 (1)  suite (1)  zero (2)  sender index (4)  receiver index (4)  psk id (8) | Noise message 2 | MAC1  MAC2
//! cookie      type 3 (1)  zero (3)  receiver index (4)  nonce (12) | AEAD(cookie (16)) (32)
//! ```

/// First byte of an initiation.
pub const INITIATION: u8 = 1;
/// First byte of a response.
pub const RESPONSE: u8 = 2;
/// First byte of a cookie.
pub const COOKIE: u8 = 3;
/// First byte of a sealed frame.
pub const SEALED: u8 = 4;
/// Bytes of the header of a sealed frame; all of them are authenticated.
pub const HEADER_LEN: usize = 16;
/// Bytes of an AEAD tag.
pub const TAG_LEN: usize = 16;
/// What sealing adds to a VXLAN datagram, in bytes.
pub const OVERHEAD: usize = HEADER_LEN + TAG_LEN;
/// Lanes of a session, one for each worker of its sender.
pub const LANES: u8 = 16;
/// The lane of the sender's control side. What it seals leaves from the data port.
pub const CONTROL_LANE: u8 = LANES - 1;

/// The header of a sealed frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Which worker of the sender; below [`LANES`].
    pub lane: u8,
    /// The session, by the number that the receiver chose for it; never 0.
    pub receiver: u32,
    /// Of this lane, counted up by one with each frame.
    pub counter: u64,
}

/// The bytes are no sealed frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SealedError {
    /// Shorter than a header and a tag.
    #[error("{0} bytes are too few for a sealed frame")]
    Short(usize),
    /// Another type, a lane that does not exist, the receiver 0, or something where zero must be.
    #[error("the header is not that of a sealed frame")]
    Header,
}

impl Header {
    /// The header as it stands before the sealed bytes, which is also what is authenticated with them.
    pub fn to_bytes(self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        (bytes[0], bytes[1]) = (SEALED, self.lane);
        bytes[4..8].copy_from_slice(&self.receiver.to_le_bytes());
        bytes[8..].copy_from_slice(&self.counter.to_le_bytes());
        bytes
    }

    /// Reads the header of a datagram that is long enough to be a sealed frame.
    ///
    /// # Errors
    /// The datagram is too short, or its header breaks a rule.
    pub fn parse(datagram: &[u8]) -> Result<Self, SealedError> {
        let short = SealedError::Short(datagram.len());
        let header = datagram.first_chunk::<HEADER_LEN>().ok_or(short)?;
        if datagram.len() < OVERHEAD {
            return Err(short);
        }
        let [kind, lane, z0, z1, r0, r1, r2, r3, counter @ ..] = *header;
        let receiver = u32::from_le_bytes([r0, r1, r2, r3]);
        if kind != SEALED || lane >= LANES || (z0, z1) != (0, 0) || receiver == 0 {
            return Err(SealedError::Header);
        }
        Ok(Header { lane, receiver, counter: u64::from_le_bytes(counter) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_it_was_written() {
        let header = Header { lane: 3, receiver: 0x0403_0201, counter: 0x1817_1615_1413_1211 };
        let bytes = header.to_bytes();
        assert_eq!(bytes, [4, 3, 0, 0, 1, 2, 3, 4, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18]);
        let mut datagram = [bytes, [0; TAG_LEN]].concat();
        assert_eq!(Header::parse(&datagram), Ok(header));
        assert_eq!(Header::parse(&datagram[..31]), Err(SealedError::Short(31)));
        for (at, wrong) in [(0, 1), (0, 12), (1, 16), (2, 1), (3, 1)] {
            let right = std::mem::replace(&mut datagram[at], wrong);
            assert_eq!(Header::parse(&datagram), Err(SealedError::Header), "byte {at}");
            datagram[at] = right;
        }
        datagram[4..8].fill(0);
        assert_eq!(Header::parse(&datagram), Err(SealedError::Header));
    }
}
