//! Initiation and response: one round trip, after which both sides have keys.
//!
//! ```text
//! Pending::begin ──initiation──> Asked::read ── who asks, since when, with which keys? ── Asked::answer
//! Pending::finish <──response─────────────────────────────────────────────────────────────────┘
//! ```
//!
//! The suite stands in the prologue, so a message that was changed to another suite fits no keys. Both sides know from the
//! signed host records which suite it has to be.

use super::key::LaneKeys;
use super::mac::MACS_LEN;
use super::noise::{KEY_LEN, Mismatch, Noise, StaticKey};
use super::psk::{Psk, PskId};
use super::suite::Suite;
use crate::wire::sealed::{INITIATION, RESPONSE};

/// Most pre-shared keys that a host takes at once: the one in use, and the one that comes or goes.
pub const MAX_PSKS: usize = 4;
/// Bytes of an initiation before and behind its Noise message.
const INITIATION_HEAD: usize = 8;
const RESPONSE_HEAD: usize = 20;
/// Noise message 1 without its payload: ephemeral key, sealed static key, tag.
const MESSAGE_1: usize = KEY_LEN + KEY_LEN + 16 + 16;
/// Noise message 2: ephemeral key, start count, tag.
const MESSAGE_2: usize = KEY_LEN + 8 + 16;

/// Why a handshake datagram leads to nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HandshakeError {
    /// Too short, too long, or a header that breaks a rule.
    #[error("the datagram is no handshake")]
    Malformed,
    /// A suite that is not known, or not the one these two hosts use.
    #[error("the suite is another one")]
    Suite,
    /// None of the sender's pre-shared keys is known here, or the answer names one that was not offered.
    #[error("no pre-shared key is common")]
    Psk,
    /// It was made with other keys.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
}

/// How often a host has started, and how many initiations it has sent since. Later ones are larger.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct Stamp {
    /// The incarnation of its host record.
    pub start: u64,
    /// Counted up with each initiation.
    pub count: u64,
}

/// What both sides have after the exchange.
#[derive(Debug)]
pub struct Established {
    /// How its frames are sealed.
    pub suite: Suite,
    /// The number by which the peer names this session to us.
    pub local: u32,
    /// The number by which we name it to the peer.
    pub remote: u32,
    /// For frames to the peer.
    pub seal: LaneKeys,
    /// For frames from the peer.
    pub open: LaneKeys,
    /// We began.
    pub initiator: bool,
    /// Under which pre-shared key.
    pub psk: PskId,
    /// The start count of the peer: in which life it has the session.
    pub life: u64,
}

/// An initiation that is not answered yet.
pub struct Pending {
    noise: Noise,
    suite: Suite,
    local: u32,
}

impl Pending {
    /// Begins a session with `peer`. `local` is a random number, not 0, of no other session; `seed` is from a good generator.
    /// The MACs are put behind the bytes by [`MacKeys::finish`].
    pub fn begin(
        suite: Suite,
        own: &StaticKey,
        peer: &[u8; KEY_LEN],
        local: u32,
        (stamp, psks): (Stamp, &[PskId]),
        seed: [u8; 32],
    ) -> Result<(Self, Vec<u8>), Mismatch> {
        let mut noise = Noise::initiator(suite, &prologue(suite), own, peer, seed)?;
        let mut payload = [stamp.start.to_le_bytes(), stamp.count.to_le_bytes()].concat();
        psks.iter().take(MAX_PSKS).for_each(|psk| payload.extend_from_slice(&psk.0));
        let message = noise.write(&payload)?;
        let head = [INITIATION, suite.number(), 0, 0];
        let bytes = [&head[..], &local.to_le_bytes(), &message].concat();
        Ok((Pending { noise, suite, local }, bytes))
    }

    /// The number by which the answer names it.
    pub fn local(&self) -> u32 {
        self.local
    }

    /// Takes the answer, whose MAC1 was right. Anybody may send a wrong one: after an error the right one still fits.
    pub fn finish(&mut self, psks: &[Psk], datagram: &[u8]) -> Result<Established, HandshakeError> {
        let response = Response::parse(datagram)?;
        if response.receiver != self.local {
            return Err(HandshakeError::Malformed);
        }
        if response.suite != self.suite {
            return Err(HandshakeError::Suite);
        }
        let psk = psks.iter().find(|psk| psk.id() == response.psk).ok_or(HandshakeError::Psk)?;
        self.noise.set_psk(psk)?;
        let payload = self.noise.read(response.message)?;
        let life = u64::from_le_bytes(payload.try_into().map_err(|_| HandshakeError::Malformed)?);
        Ok(established(&mut self.noise, self.suite, (self.local, response.sender), (true, psk), life)?)
    }
}

/// An initiation that was read: who sent it is proven, but it may be an old one, sent again.
pub struct Asked {
    noise: Noise,
    suite: Suite,
    remote: u32,
    /// The long-term key of the sender.
    pub peer: [u8; KEY_LEN],
    /// To be larger than that of any before it from this sender.
    pub stamp: Stamp,
    /// The pre-shared keys that the sender takes.
    pub psks: Vec<PskId>,
}

impl Asked {
    /// Reads an initiation whose MAC1 was right. `seed` is from a good generator.
    pub fn read(own: &StaticKey, datagram: &[u8], seed: [u8; 32]) -> Result<Self, HandshakeError> {
        let (head, rest) =
            datagram.split_first_chunk::<INITIATION_HEAD>().ok_or(HandshakeError::Malformed)?;
        let [INITIATION, suite, 0, 0, r0, r1, r2, r3] = *head else { return Err(HandshakeError::Malformed) };
        let (message, _) = rest.split_last_chunk::<MACS_LEN>().ok_or(HandshakeError::Malformed)?;
        let ids = message.len().checked_sub(MESSAGE_1 + 16).ok_or(HandshakeError::Malformed)?;
        let remote = u32::from_le_bytes([r0, r1, r2, r3]);
        if remote == 0 || !ids.is_multiple_of(8) || ids / 8 > MAX_PSKS {
            return Err(HandshakeError::Malformed);
        }
        let suite = Suite::of_number(suite).ok_or(HandshakeError::Suite)?;
        let mut noise = Noise::responder(suite, &prologue(suite), own, seed)?;
        let payload = noise.read(message)?;
        let peer = noise.remote_static().ok_or(Mismatch)?;
        let (stamp, psks) = payload.split_first_chunk::<16>().ok_or(HandshakeError::Malformed)?;
        let word = |at: usize| {
            stamp.iter().skip(at).take(8).rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
        };
        let stamp = Stamp { start: word(0), count: word(8) };
        let psks = psks.as_chunks().0.iter().map(|id| PskId(*id)).collect();
        Ok(Asked { noise, suite, remote, peer, stamp, psks })
    }

    /// The suite that the sender chose.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// Answers with the first of our keys, newest first, that the sender takes. `start` is our start count, `local` as for
    /// [`Pending::begin`].
    pub fn answer(
        mut self,
        psks: &[Psk],
        start: u64,
        local: u32,
    ) -> Result<(Established, Vec<u8>), HandshakeError> {
        let psk = psks.iter().find(|psk| self.psks.contains(&psk.id())).ok_or(HandshakeError::Psk)?;
        self.noise.set_psk(psk)?;
        let message = self.noise.write(&start.to_le_bytes())?;
        let head = [RESPONSE, self.suite.number(), 0, 0];
        let (local_bytes, remote_bytes) = (local.to_le_bytes(), self.remote.to_le_bytes());
        let bytes = [&head[..], &local_bytes, &remote_bytes, &psk.id().0, &message].concat();
        let (numbers, life) = ((local, self.remote), self.stamp.start);
        Ok((established(&mut self.noise, self.suite, numbers, (false, psk), life)?, bytes))
    }
}

/// The number by which a response or a cookie names the initiation that it answers.
pub fn answered(datagram: &[u8]) -> Option<u32> {
    let number = match *datagram.first()? {
        RESPONSE => datagram.get(8..12)?,
        crate::wire::sealed::COOKIE => datagram.get(4..8)?,
        _ => return None,
    };
    Some(u32::from_le_bytes(number.try_into().ok()?))
}

struct Response<'a> {
    suite: Suite,
    sender: u32,
    receiver: u32,
    psk: PskId,
    message: &'a [u8],
}

impl<'a> Response<'a> {
    fn parse(datagram: &'a [u8]) -> Result<Self, HandshakeError> {
        if datagram.len() != RESPONSE_HEAD + MESSAGE_2 + MACS_LEN {
            return Err(HandshakeError::Malformed);
        }
        let (head, rest) = datagram.split_first_chunk::<RESPONSE_HEAD>().ok_or(HandshakeError::Malformed)?;
        let [RESPONSE, suite, 0, 0, s0, s1, s2, s3, r0, r1, r2, r3, psk @ ..] = *head else {
            return Err(HandshakeError::Malformed);
        };
        let (sender, receiver) = (u32::from_le_bytes([s0, s1, s2, s3]), u32::from_le_bytes([r0, r1, r2, r3]));
        let suite = Suite::of_number(suite).ok_or(HandshakeError::Suite)?;
        let message = rest.get(..MESSAGE_2).ok_or(HandshakeError::Malformed)?;
        if sender == 0 {
            Err(HandshakeError::Malformed)
        } else {
            Ok(Response { suite, sender, receiver, psk: PskId(psk), message })
        }
    }
}

fn prologue(suite: Suite) -> [u8; 18] {
    let mut prologue = *b"meshnet session 1\0";
    prologue[17] = suite.number();
    prologue
}

fn established(
    noise: &mut Noise,
    suite: Suite,
    (local, remote): (u32, u32),
    (initiator, psk): (bool, &Psk),
    life: u64,
) -> Result<Established, Mismatch> {
    let (seal, open) = noise.split()?;
    let (seal, open) = (LaneKeys::new(suite, &seal), LaneKeys::new(suite, &open));
    Ok(Established { suite, local, remote, seal, open, initiator, psk: psk.id(), life })
}

#[cfg(test)]
mod tests;
