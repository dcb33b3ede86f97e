//! The messages of peering, as they stand on the QUIC stream and in its datagrams.
//!
//! Each is one envelope (kind, version, length) around a postcard body, except lists of records, whose body
//! is the records' own envelopes one after the other. Kinds and versions not known here decode to
//! [`Message::Unknown`], never to an error; `docs/protocol.md` has the tables.

pub mod envelope;
mod messages;

pub use messages::{
    Absent, Answer, Ask, ClaimAnswer, ClaimRefusal, ClaimRequest, CloneSeen, Confirm, Confirmed, Hello,
    Member, Members, Purpose, Release, Run, SpaceAnswer, SpaceRequest, Summary, Told, UnitTable, Vacant,
};

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::gossip::{self, MAX_DEPTH, MAX_DIGEST, MAX_PULL, MAX_RANGES, MAX_RECORD, Record, Slot};
use crate::secret::{Secret, SecretName};
use envelope::{Envelope, EnvelopeError, HEADER_LEN};

/// The oldest version of the protocol that this release speaks.
pub const MIN_VERSION: u16 = 1;
/// The newest version of the protocol that this release speaks.
pub const MAX_VERSION: u16 = 1;
/// Longest message, header included, in bytes.
pub const MAX_MESSAGE: usize = 1 << 20;
/// Lists of records are cut at this length, in bytes.
pub const MAX_BATCH: usize = 256 << 10;
/// Most peer ids in the closure of one answer.
pub const MAX_CLOSURE: usize = 8192;
/// Longest body of a SWIM datagram, in bytes.
pub const MAX_SWIM: usize = 1400;
/// The version in which this release writes every message.
const VERSION: u16 = 1;

/// The numbers of the messages.
mod kind {
    pub(super) const HELLO: u16 = 1;
    pub(super) const SUMMARY: u16 = 2;
    pub(super) const DIGEST: u16 = 3;
    pub(super) const PULL: u16 = 4;
    pub(super) const PUSH: u16 = 5;
    pub(super) const RECORDS: u16 = 6;
    pub(super) const UNITS: u16 = 7;
    pub(super) const ASK: u16 = 8;
    pub(super) const ANSWER: u16 = 9;
    pub(super) const SPACE_REQUEST: u16 = 10;
    pub(super) const SPACE_ANSWER: u16 = 11;
    pub(super) const CLAIM_REQUEST: u16 = 12;
    pub(super) const CLAIM_ANSWER: u16 = 13;
    pub(super) const RELEASE: u16 = 14;
    pub(super) const RELEASED: u16 = 15;
    pub(super) const SWIM: u16 = 16;
    pub(super) const RANGES: u16 = 17;
    pub(super) const ABSENT: u16 = 18;
    pub(super) const LEAVE: u16 = 19;
    pub(super) const MEMBERS: u16 = 20;
    pub(super) const CLONE_SEEN: u16 = 21;
    pub(super) const CONFIRM: u16 = 24;
    pub(super) const CONFIRMED: u16 = 25;
    pub(super) const SECRET_REQUEST: u16 = 26;
    pub(super) const SECRET_ANSWER: u16 = 27;
    pub(super) const VACANT: u16 = 28;
}

/// One message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// The first message on every connection, and again whenever the cluster of the sender changes.
    Hello(Hello),
    /// Hashes of everything that digests compare; equal ones end a round of repair.
    Summary(Summary),
    /// Hashes of the parts of ranges in which the two sides differ.
    Ranges(Vec<gossip::Parts>),
    /// What the sender has in a range of slots.
    Digest(gossip::Digest),
    /// Slots that the sender wants.
    Pull(Vec<Slot>),
    /// News, to be relayed by whoever did not have it.
    Push(Vec<Vec<u8>>),
    /// Records that a digest or a pull asked for.
    Records(Vec<Vec<u8>>),
    /// The sender wants to know whether the receiver holds what it wrote, before its tombstones go.
    Confirm(Confirm),
    /// The answer.
    Confirmed(Confirmed),
    /// Facts about units of address space.
    Units(UnitTable),
    /// The sender, or somebody who asked it, needs an address, and nobody founded.
    Ask(Ask),
    /// The answer to an ask.
    Answer(Answer),
    /// The sender wants units.
    SpaceRequest(SpaceRequest),
    /// Units, or none.
    SpaceAnswer(SpaceAnswer),
    /// The sender wants one address of the receiver's units.
    ClaimRequest(ClaimRequest),
    /// The address, or a refusal.
    ClaimAnswer(ClaimAnswer),
    /// An address of the receiver's units is free again.
    Release(Release),
    /// The release was written down.
    Released(Release),
    /// Bytes of the membership protocol.
    Swim(Vec<u8>),
    /// Hosts that the sender has not seen for too long.
    Absent(Absent),
    /// The sender leaves for good: the receiver takes its units and writes its removal.
    Leave,
    /// Another host with the receiver's key was refused.
    CloneSeen(CloneSeen),
    /// Who is alive: repairs what the membership protocol told too few.
    Members(Members),
    /// The sender wants the secret of this name, to which the cluster goes over.
    SecretRequest(SecretName),
    /// The secret.
    SecretAnswer(Secret),
    /// A host does not answer the sender, and nobody listens there.
    Vacant(Vacant),
    /// A message of a later release: ignored.
    Unknown {
        /// Its kind.
        kind: u16,
        /// Its version.
        version: u16,
    },
}

/// The bytes are no message. Counted; the connection goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeError {
    /// The envelope is broken.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// Bytes follow the message.
    #[error("{0} bytes follow the message")]
    Trailing(usize),
    /// The body is not what its kind says.
    #[error("the body of message kind {0} cannot be read")]
    Body(u16),
    /// A list or text in the body is over its limit.
    #[error("message kind {0} is over a limit")]
    Limit(u16),
}

impl Message {
    /// The message as bytes, at most [`MAX_MESSAGE`] if its lists keep their limits.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Message::Hello(body) => write(kind::HELLO, body),
            Message::Summary(body) => write(kind::SUMMARY, body),
            Message::Ranges(body) => write(kind::RANGES, body),
            Message::Confirm(body) => write(kind::CONFIRM, body),
            Message::Confirmed(body) => write(kind::CONFIRMED, body),
            Message::Digest(body) => write(kind::DIGEST, body),
            Message::Pull(body) => write(kind::PULL, body),
            Message::Push(records) => envelope::seal(kind::PUSH, VERSION, &records.concat()),
            Message::Records(records) => envelope::seal(kind::RECORDS, VERSION, &records.concat()),
            Message::Units(body) => write(kind::UNITS, &body.pack()),
            Message::Ask(body) => write(kind::ASK, body),
            Message::Answer(body) => write(kind::ANSWER, body),
            Message::SpaceRequest(body) => write(kind::SPACE_REQUEST, body),
            Message::SpaceAnswer(body) => write(kind::SPACE_ANSWER, &body.pack()),
            Message::ClaimRequest(body) => write(kind::CLAIM_REQUEST, body),
            Message::ClaimAnswer(body) => write(kind::CLAIM_ANSWER, body),
            Message::Release(body) => write(kind::RELEASE, body),
            Message::Released(body) => write(kind::RELEASED, body),
            Message::Swim(bytes) => envelope::seal(kind::SWIM, VERSION, bytes),
            Message::Absent(body) => write(kind::ABSENT, body),
            Message::Leave => envelope::seal(kind::LEAVE, VERSION, &[]),
            Message::Members(body) => write(kind::MEMBERS, body),
            Message::CloneSeen(body) => write(kind::CLONE_SEEN, body),
            Message::SecretRequest(body) => write(kind::SECRET_REQUEST, body),
            Message::SecretAnswer(body) => envelope::seal(kind::SECRET_ANSWER, VERSION, body.bytes()),
            Message::Vacant(body) => write(kind::VACANT, body),
            Message::Unknown { kind, version } => envelope::seal(*kind, *version, &[]),
        }
    }

    /// Reads one message that fills its bytes.
    ///
    /// # Errors
    /// The envelope is broken, or the body of a known kind is; see [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Message, DecodeError> {
        let (envelope, rest) = Envelope::parse(bytes, MAX_MESSAGE - HEADER_LEN)?;
        if !rest.is_empty() {
            return Err(DecodeError::Trailing(rest.len()));
        }
        let Envelope { kind, version, body } = envelope;
        if version != VERSION {
            return Ok(Message::Unknown { kind, version });
        }
        let message = match kind {
            kind::HELLO => Message::Hello(read(kind, body)?),
            kind::SUMMARY => Message::Summary(read(kind, body)?),
            kind::RANGES => Message::Ranges(read(kind, body)?),
            kind::CONFIRM => Message::Confirm(read(kind, body)?),
            kind::CONFIRMED => Message::Confirmed(read(kind, body)?),
            kind::DIGEST => Message::Digest(read(kind, body)?),
            kind::PULL => Message::Pull(read(kind, body)?),
            kind::PUSH => Message::Push(split(body)),
            kind::RECORDS => Message::Records(split(body)),
            kind::UNITS => {
                Message::Units(UnitTable::unpack(read(kind, body)?).ok_or(DecodeError::Body(kind))?)
            }
            kind::ASK => Message::Ask(read(kind, body)?),
            kind::ANSWER => Message::Answer(read(kind, body)?),
            kind::SPACE_REQUEST => Message::SpaceRequest(read(kind, body)?),
            kind::SPACE_ANSWER => {
                Message::SpaceAnswer(SpaceAnswer::unpack(read(kind, body)?).ok_or(DecodeError::Body(kind))?)
            }
            kind::CLAIM_REQUEST => Message::ClaimRequest(read(kind, body)?),
            kind::CLAIM_ANSWER => Message::ClaimAnswer(read(kind, body)?),
            kind::RELEASE => Message::Release(read(kind, body)?),
            kind::RELEASED => Message::Released(read(kind, body)?),
            kind::SWIM => Message::Swim(body.to_vec()),
            kind::ABSENT => Message::Absent(read(kind, body)?),
            kind::LEAVE if body.is_empty() => Message::Leave,
            kind::LEAVE => return Err(DecodeError::Body(kind)),
            kind::MEMBERS => Message::Members(read(kind, body)?),
            kind::CLONE_SEEN => Message::CloneSeen(read(kind, body)?),
            kind::SECRET_REQUEST => Message::SecretRequest(read(kind, body)?),
            kind::SECRET_ANSWER => {
                let secret = Secret::new(Zeroizing::new(body.to_vec()));
                Message::SecretAnswer(secret.map_err(|_| DecodeError::Limit(kind))?)
            }
            kind::VACANT => Message::Vacant(read(kind, body)?),
            _ => return Ok(Message::Unknown { kind, version }),
        };
        if message.within_limits() { Ok(message) } else { Err(DecodeError::Limit(kind)) }
    }

    /// News about records, cut into messages of a bearable length.
    pub fn push(records: &[Arc<Record>]) -> Vec<Message> {
        batches(records).into_iter().map(Message::Push).collect()
    }

    /// An answer with records, cut into messages of a bearable length.
    pub fn records(records: &[Arc<Record>]) -> Vec<Message> {
        batches(records).into_iter().map(Message::Records).collect()
    }

    fn within_limits(&self) -> bool {
        match self {
            Message::Hello(hello) => hello.within_limits(),
            Message::Ranges(ranges) => {
                ranges.len() <= MAX_RANGES
                    && ranges.iter().all(|parts| parts.range.exists() && parts.range.depth < MAX_DEPTH)
            }
            Message::Digest(digest) => digest.lines.len() <= MAX_DIGEST,
            Message::Pull(slots) => slots.len() <= MAX_PULL,
            Message::Answer(answer) => answer.within_limits(),
            Message::ClaimRequest(request) => request.within_limits(),
            Message::ClaimAnswer(answer) => answer.within_limits(),
            Message::Swim(bytes) => bytes.len() <= MAX_SWIM,
            Message::Absent(absent) => absent.peers.len() <= MAX_CLOSURE,
            Message::Members(members) => members.within_limits(),
            _ => true,
        }
    }
}

fn batches(records: &[Arc<Record>]) -> Vec<Vec<Vec<u8>>> {
    let mut batches: Vec<Vec<Vec<u8>>> = Vec::new();
    let mut room = 0;
    for record in records {
        let bytes = record.bytes();
        if bytes.len() > room {
            batches.push(Vec::new());
            room = MAX_BATCH;
        }
        room = room.saturating_sub(bytes.len());
        if let Some(batch) = batches.last_mut() {
            batch.push(bytes.to_vec());
        }
    }
    batches
}

/// Cuts a list of records apart. What cannot be cut stays one piece, to be refused and counted alone.
fn split(mut body: &[u8]) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    while !body.is_empty() {
        let rest = match Envelope::parse(body, MAX_RECORD) {
            Ok((_, rest)) => rest,
            Err(_) => &[],
        };
        let (record, rest) = body.split_at(body.len() - rest.len());
        records.push(record.to_vec());
        body = rest;
    }
    records
}

fn write<T: Serialize>(kind: u16, body: &T) -> Vec<u8> {
    let start = envelope::header(kind, VERSION, 0).to_vec();
    let mut bytes = postcard::to_extend(body, start).unwrap_or_default();
    let header = envelope::header(kind, VERSION, bytes.len().saturating_sub(HEADER_LEN));
    if let Some(front) = bytes.first_chunk_mut() {
        *front = header;
    }
    bytes
}

fn read<T: DeserializeOwned>(kind: u16, body: &[u8]) -> Result<T, DecodeError> {
    match postcard::take_from_bytes(body) {
        Ok((value, [])) => Ok(value),
        _ => Err(DecodeError::Body(kind)),
    }
}
