//! The keys of frames: one for each lane and direction, and what is done with them.

use std::sync::OnceLock;

use aws_lc_rs::aead::{
    AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey,
};
use aws_lc_rs::hkdf::{HKDF_SHA256, Prk, Salt};
use zeroize::Zeroizing;

use super::suite::Suite;
use crate::wire::sealed::{HEADER_LEN, Header, LANES, TAG_LEN};

/// Bytes of a key.
pub const KEY_LEN: usize = 32;

/// One of the two keys of a Noise split (section 5.2), gone from memory with its value.
pub type SplitKey = Zeroizing<[u8; KEY_LEN]>;

/// The key of a lane, to seal or to open. Nothing of it is shown.
pub struct LaneKey {
    suite: Suite,
    key: LessSafeKey,
}

/// The bytes are not what their sender sealed under this key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the tag is wrong")]
pub struct WrongTag;

/// The room is not that of what is sealed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the room is not that of what is sealed")]
pub struct WrongLength;

/// The keys of one direction. That of a lane is made when it is first used: few of the 16 ever are.
pub struct LaneKeys {
    suite: Suite,
    secret: Prk,
    keys: [OnceLock<LaneKey>; LANES as usize],
}

impl LaneKeys {
    /// Of one of the two keys of a split.
    pub fn new(suite: Suite, split: &SplitKey) -> Self {
        let secret = Salt::new(HKDF_SHA256, &[]).extract(&split[..]);
        LaneKeys { suite, secret, keys: [const { OnceLock::new() }; LANES as usize] }
    }

    /// The key of a lane; none if there is no such lane.
    pub fn lane(&self, lane: u8) -> Option<&LaneKey> {
        Some(self.keys.get(usize::from(lane))?.get_or_init(|| self.derive(lane)))
    }

    /// HKDF (RFC 5869) of the split key with the label `lane` and the lane's number.
    fn derive(&self, lane: u8) -> LaneKey {
        let label = [b"lane".as_slice(), &[lane]];
        #[expect(clippy::expect_used, reason = "its only error is a wrong length")]
        let okm =
            self.secret.expand(&label, self.suite.algorithm()).expect("HKDF gives up to 255 times 32 bytes");
        LaneKey { suite: self.suite, key: LessSafeKey::new(UnboundKey::from(okm)) }
    }
}

impl LaneKey {
    /// Seals `content` where it lies; the tag goes behind it. A counter is used once for a key, ever.
    pub fn seal(&self, header: Header, content: &mut [u8]) -> [u8; TAG_LEN] {
        let aad = Aad::from(header.to_bytes());
        let tag = self.key.seal_in_place_separate_tag(self.nonce(header.counter), aad, content);
        #[expect(clippy::expect_used, reason = "its only error is a length of gigabytes")]
        let tag = tag.expect("a datagram is shorter than either cipher's limit of 64 GiB");
        let mut bytes = [0; TAG_LEN];
        bytes.copy_from_slice(tag.as_ref());
        bytes
    }

    /// Seals `head` and `body`, one behind the other, into `datagram`: header, both, tag. It has to have room for just that.
    /// AES-GCM reads them where they are, so that sealing is what copies them; the other cipher is fast on one piece only.
    ///
    /// # Errors
    /// The lengths do not agree; `datagram` is of no use then.
    pub fn seal_into(
        &self,
        header: Header,
        [head, body]: [&[u8]; 2],
        datagram: &mut [u8],
    ) -> Result<(), WrongLength> {
        let (start, rest) = datagram.split_first_chunk_mut::<HEADER_LEN>().ok_or(WrongLength)?;
        *start = header.to_bytes();
        let (first, second) = rest.split_at_mut_checked(head.len()).ok_or(WrongLength)?;
        if second.len() != body.len() + TAG_LEN {
            return Err(WrongLength);
        }
        if self.suite == Suite::AesGcm {
            let (nonce, aad) = (self.nonce(header.counter), Aad::from(*start));
            let sealed = self.key.seal_out_of_place_scatter(nonce, aad, head, first, body, second);
            return sealed.map_err(|_| WrongLength);
        }
        first.copy_from_slice(head);
        let (content, tag) = rest.split_at_mut_checked(head.len() + body.len()).ok_or(WrongLength)?;
        content.get_mut(head.len()..).ok_or(WrongLength)?.copy_from_slice(body);
        tag.copy_from_slice(&self.seal(header, content));
        Ok(())
    }

    /// Opens a sealed frame where it lies: header, content, tag. Returns the content.
    ///
    /// # Errors
    /// The tag is wrong; the bytes are of no use then.
    pub fn open<'a>(&self, header: Header, datagram: &'a mut [u8]) -> Result<&'a mut [u8], WrongTag> {
        let (head, sealed) = datagram.split_first_chunk_mut::<HEADER_LEN>().ok_or(WrongTag)?;
        self.key.open_in_place(self.nonce(header.counter), Aad::from(*head), sealed).map_err(|_| WrongTag)
    }

    /// Four zero bytes, then the counter in the order that Noise section 12 has for the cipher.
    fn nonce(&self, counter: u64) -> Nonce {
        let mut bytes = [0; NONCE_LEN];
        bytes[4..].copy_from_slice(&match self.suite {
            Suite::AesGcm => counter.to_be_bytes(),
            Suite::ChaChaPoly => counter.to_le_bytes(),
        });
        Nonce::assume_unique_for_key(bytes)
    }
}

impl Suite {
    fn algorithm(self) -> &'static Algorithm {
        match self {
            Suite::AesGcm => &AES_256_GCM,
            Suite::ChaChaPoly => &CHACHA20_POLY1305,
        }
    }
}

impl std::fmt::Debug for LaneKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LaneKeys").field("suite", &self.suite).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for LaneKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LaneKey").field("suite", &self.suite).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::sealed::OVERHEAD;

    fn keys(suite: Suite) -> LaneKeys {
        LaneKeys::new(suite, &Zeroizing::new([7; KEY_LEN]))
    }

    fn sealed(suite: Suite, header: Header, content: &[u8]) -> Vec<u8> {
        let mut body = content.to_vec();
        let tag = keys(suite).lane(header.lane).unwrap().seal(header, &mut body);
        [&header.to_bytes()[..], &body, &tag].concat()
    }

    const HEADER: Header = Header { lane: 2, receiver: 9, counter: 0x0102_0304 };

    #[test]
    fn what_was_sealed_opens_and_nothing_else_does() {
        for suite in Suite::ALL {
            let datagram = sealed(suite, HEADER, b"a frame");
            let open = |mut bytes: Vec<u8>, header, lane: u8| {
                keys(suite).lane(lane).unwrap().open(header, &mut bytes).map(|content| content.to_vec())
            };
            assert_eq!(open(datagram.clone(), HEADER, 2).unwrap(), b"a frame");
            assert_eq!(open(datagram.clone(), HEADER, 3), Err(WrongTag), "another lane has another key");
            let other = Header { counter: 5, ..HEADER };
            assert_eq!(open(datagram.clone(), other, 2), Err(WrongTag), "another counter");
            for at in 0..datagram.len() {
                let mut bent = datagram.clone();
                bent[at] ^= 0x20;
                assert_eq!(open(bent, HEADER, 2), Err(WrongTag), "byte {at}");
                assert_eq!(open(datagram[..at].to_vec(), HEADER, 2), Err(WrongTag), "cut to {at}");
            }
        }
    }

    #[test]
    fn two_pieces_are_sealed_as_one() {
        for suite in Suite::ALL {
            for (head, body) in [(0, 0), (0, 9), (8, 0), (8, 40), (82, 1386), (90, 9000)] {
                let content: Vec<u8> = (0..head + body).map(|at| at as u8).collect();
                let pieces = content.split_at(head).into();
                let mut datagram = vec![0xee; OVERHEAD + head + body];
                let lanes = keys(suite);
                let key = lanes.lane(2).unwrap();
                assert_eq!(key.seal_into(HEADER, pieces, &mut datagram), Ok(()));
                assert!(datagram == sealed(suite, HEADER, &content), "{suite:?}, {head} and {body} bytes");
                for wrong in [0, 8, OVERHEAD - 1, datagram.len() - 1, datagram.len() + 1] {
                    let refused = key.seal_into(HEADER, pieces, &mut vec![0; wrong]);
                    assert_eq!(refused, Err(WrongLength));
                }
            }
        }
    }

    #[test]
    fn an_empty_frame_is_a_keepalive() {
        for suite in Suite::ALL {
            let mut datagram = sealed(suite, HEADER, b"");
            assert_eq!(datagram.len(), OVERHEAD);
            assert!(keys(suite).lane(2).unwrap().open(HEADER, &mut datagram).unwrap().is_empty());
        }
    }
}
