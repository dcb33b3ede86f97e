//! One replicated fact as the exact bytes its writer signed.
//!
//! Body of the envelope: class, flags, key length, version, the writer's public key, key, payload,
//! signature (`docs/protocol.md` has the table). Everything that a merge needs stands in this header, so
//! a host orders, keeps and relays records of kinds and versions it has never heard of.

use std::sync::Arc;

use blake2::{Blake2s256, Digest};
use engine::types::PeerId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::floor::Version;
use crate::identity::{Identity, PUBLIC_KEY_LEN, SIGNATURE_LEN, peer_id_of, verify};
use crate::proto::envelope::{Envelope, EnvelopeError, HEADER_LEN, header};
use crate::records::Body;

/// Longest record, header and signature included, in bytes.
pub const MAX_RECORD: usize = 64 * 1024;
/// Longest key of a record, in bytes.
pub const MAX_KEY: usize = 128;
/// Bytes of the fixed part of a record's body, before the key.
const FIXED_LEN: usize = 52;
/// What a signature covers begins with these words, so that it is good for nothing else.
const DOMAIN: &[u8] = b"meshnet record\0";
const DELETED: u8 = 0x01;
const PEER_ID_LEN: usize = 16;
/// The highest incarnation that can be removed: no host starts so often, and there must be one above for it to come back.
const MAX_REMOVED: u64 = 1 << 40;
/// A removal up to here is a revocation: there is no incarnation above it, and the host never comes back.
pub const REVOKED: u64 = u64::MAX;

/// The kinds of records, and the newest version of each that this release reads.
pub mod kind {
    /// A host, by itself; the key is empty.
    pub const HOST: u16 = 1;
    /// An endpoint, by its host; the key is the port id.
    pub const ENDPOINT: u16 = 2;
    /// An external VXLAN endpoint, shared.
    pub const VTEP: u16 = 3;
    /// A network, shared; the key is the network id.
    pub const NETWORK: u16 = 4;
    /// The removal of a host, shared; the key is its peer id, the counter its last dead incarnation.
    pub const REMOVAL: u16 = 5;
    /// The floor of a host, by itself; the key is empty.
    pub const FLOOR: u16 = 6;
    /// The way of the cluster to another secret, shared; the key is empty.
    pub const ROTATION: u16 = 7;
    /// A name that people gave to addresses, by the host where they did; the key is a hash of network and name.
    pub const NAME: u16 = 8;
    /// The version in which this release writes every kind.
    pub const VERSION: u16 = 1;
}

/// Who may write a record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Class {
    /// Its owner alone; the signer is the owner.
    Owner,
    /// Anybody: networks and the like outlive their creator.
    Shared,
}

/// The place of a fact: BLAKE2s of class, kind, owner (zeros if shared) and key, cut to 16 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Slot(pub [u8; 16]);

/// The total order of the records in one slot. Two records with equal stamps are the same bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Stamp {
    /// Incarnation of the owner, or counter of a shared record.
    pub major: u64,
    /// Sequence of the owner; for a shared record the first 8 bytes of the writer's peer id, inverted, so
    /// that the lower peer id wins.
    pub minor: u64,
    /// The first 16 bytes of BLAKE2s of the record: decides between equal versions with different bytes.
    pub tie: [u8; 16],
}

/// The bytes are no record, or not one that its signer could have meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecordError {
    /// The envelope is broken.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The body is too short for its own header.
    #[error("the record is shorter than its header says")]
    Short,
    /// Bytes follow the record.
    #[error("bytes follow the record")]
    Trailing,
    /// Neither owner-written nor shared.
    #[error("the class {0} is not known")]
    Class(u8),
    /// The key is longer than [`MAX_KEY`].
    #[error("a key of {0} bytes is over the limit")]
    Key(u16),
    /// A shared record has a sequence.
    #[error("a shared record has a sequence")]
    Sequence,
    /// A kind that this release knows came in the wrong class.
    #[error("kind {0} is not of this class")]
    WrongClass(u16),
    /// A removal is deleted, its key is no peer id, or it reaches farther than any host can have come.
    #[error("the removal names no host, reaches too far, or is itself deleted")]
    Removal,
    /// A floor is deleted, has a key, or is not below its own record.
    #[error("the floor says nothing, or more than it may")]
    Floor,
    /// The signature does not belong to the bytes and the key.
    #[error("the signature is wrong")]
    Signature,
    /// The writer has more records or bytes than one writer may.
    #[error("the writer has too many records")]
    TooMany,
}

/// One replicated fact, checked in form. Cheap to hold: the bytes are kept once.
#[derive(PartialEq, Eq, Debug)]
pub struct Record {
    bytes: Box<[u8]>,
    slot: Slot,
    stamp: Stamp,
    hash: [u8; 32],
    kind: u16,
    version: u16,
    class: Class,
    deleted: bool,
    signer: PeerId,
    key_len: usize,
    body: Body,
}

/// What a writer decides about a record; the rest follows from its identity.
pub(crate) struct Draft<'a> {
    pub(crate) kind: u16,
    pub(crate) version: u16,
    pub(crate) class: Class,
    pub(crate) deleted: bool,
    pub(crate) major: u64,
    pub(crate) minor: u64,
    pub(crate) key: &'a [u8],
    pub(crate) payload: &'a [u8],
}

impl Draft<'_> {
    /// Signs the record.
    ///
    /// # Errors
    /// Key or payload are over their limits.
    pub(crate) fn sign(&self, identity: &Identity) -> Result<Arc<Record>, RecordError> {
        let key_len = u16::try_from(self.key.len()).unwrap_or(u16::MAX);
        let len = FIXED_LEN + self.key.len() + self.payload.len() + SIGNATURE_LEN;
        let mut bytes = Vec::with_capacity(HEADER_LEN + len);
        bytes.extend_from_slice(&header(self.kind, self.version, len));
        bytes.extend_from_slice(&[u8::from(self.class == Class::Shared), u8::from(self.deleted)]);
        bytes.extend_from_slice(&key_len.to_le_bytes());
        bytes.extend_from_slice(&self.major.to_le_bytes());
        bytes.extend_from_slice(&self.minor.to_le_bytes());
        bytes.extend_from_slice(identity.public_key());
        bytes.extend_from_slice(self.key);
        bytes.extend_from_slice(self.payload);
        let signature = identity.sign(&[DOMAIN, &bytes].concat());
        bytes.extend_from_slice(&signature);
        Record::parse(&bytes).map(Arc::new)
    }
}

impl Record {
    /// Reads one record. The signature is looked at by [`Self::verify`], which costs much more.
    ///
    /// # Errors
    /// The bytes have not the form of a record; see [`RecordError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, RecordError> {
        let (envelope, rest) = Envelope::parse(bytes, MAX_RECORD - HEADER_LEN)?;
        if !rest.is_empty() {
            return Err(RecordError::Trailing);
        }
        let fixed = Fixed::parse(envelope.body)?;
        let signer = peer_id_of(&fixed.public_key);
        fixed.check_kind(envelope.kind)?;
        let (key, payload) = fixed.split(envelope.body)?;
        if envelope.kind == kind::REMOVAL && !fixed.is_removal(key) {
            return Err(RecordError::Removal);
        }
        if envelope.kind == kind::FLOOR && !fixed.is_floor(key, payload) {
            return Err(RecordError::Floor);
        }
        let hash: [u8; 32] = Blake2s256::digest(bytes).into();
        Ok(Record {
            slot: Slot::of(fixed.class, envelope.kind, signer, key),
            stamp: fixed.stamp(signer, &hash),
            hash,
            kind: envelope.kind,
            version: envelope.version,
            class: fixed.class,
            deleted: fixed.deleted,
            signer,
            key_len: key.len(),
            body: read_body(envelope, key, payload, fixed.major),
            bytes: bytes.into(),
        })
    }

    /// True when the signer signed exactly these bytes.
    pub fn verify(&self) -> bool {
        let (signed, signature) = self.bytes.split_at(self.bytes.len() - SIGNATURE_LEN);
        let public_key = self.bytes[HEADER_LEN + FIXED_LEN - PUBLIC_KEY_LEN..].first_chunk();
        match (public_key, signature.try_into()) {
            (Some(key), Ok(signature)) => verify(key, &[DOMAIN, signed].concat(), &signature),
            _ => false,
        }
    }

    /// The bytes as they were signed; this is what is stored, hashed and relayed.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// BLAKE2s of the bytes.
    pub fn hash(&self) -> &[u8; 32] {
        &self.hash
    }

    /// Where the fact belongs.
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// Its place in the order of its slot.
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// What it is about, one of [`kind`] or one not known here.
    pub fn kind(&self) -> u16 {
        self.kind
    }

    /// The version of its kind.
    pub fn version(&self) -> u16 {
        self.version
    }

    /// Who may write it.
    pub fn class(&self) -> Class {
        self.class
    }

    /// True for a tombstone.
    pub fn deleted(&self) -> bool {
        self.deleted
    }

    /// Who signed it: the owner, or the writer of this version of a shared record.
    pub fn signer(&self) -> PeerId {
        self.signer
    }

    /// The signer's Ed25519 public key.
    pub fn signer_key(&self) -> &[u8] {
        &self.bytes[HEADER_LEN + FIXED_LEN - PUBLIC_KEY_LEN..HEADER_LEN + FIXED_LEN]
    }

    /// What tells it from the other records of its kind and owner.
    pub fn key(&self) -> &[u8] {
        &self.bytes[HEADER_LEN + FIXED_LEN..HEADER_LEN + FIXED_LEN + self.key_len]
    }

    /// The bytes between key and signature.
    pub fn payload(&self) -> &[u8] {
        &self.bytes[HEADER_LEN + FIXED_LEN + self.key_len..self.bytes.len() - SIGNATURE_LEN]
    }

    /// What it says, as far as this release understands it. Tombstones have bodies too.
    pub fn body(&self) -> &Body {
        &self.body
    }

    /// The host that this record removes, and its last dead incarnation. This stands in the header, so that releases
    /// that cannot read each other's payloads agree on who is removed.
    pub fn removes(&self) -> Option<(PeerId, u64)> {
        let peer = Some(self.key()).filter(|_| self.kind == kind::REMOVAL)?.try_into().ok()?;
        Some((PeerId(peer), self.stamp.major))
    }

    /// The version up to which everything of its owner is dead, if it is a floor. This stands at the front of the payload
    /// in every version of the kind.
    pub fn floor(&self) -> Option<Version> {
        Version::read(self.payload()).filter(|_| self.kind == kind::FLOOR)
    }

    /// Its version as an owner-written record.
    pub fn version_of_owner(&self) -> Version {
        Version { incarnation: self.stamp.major, sequence: self.stamp.minor }
    }

    /// True when it is of a kind and version known here, live, and still could not be read.
    pub fn unreadable(&self) -> bool {
        let known = (kind::HOST..=kind::NAME).contains(&self.kind) && self.kind != kind::FLOOR;
        let known = known && self.version == kind::VERSION;
        known && !self.deleted && self.body == Body::Opaque
    }
}

impl Slot {
    /// The slot of a fact.
    pub fn of(class: Class, kind: u16, owner: PeerId, key: &[u8]) -> Self {
        let owner = if class == Class::Shared { PeerId::default() } else { owner };
        let hash = Blake2s256::new()
            .chain_update([u8::from(class == Class::Shared)])
            .chain_update(kind.to_le_bytes())
            .chain_update(owner.0)
            .chain_update(key)
            .finalize();
        Slot(prefix(&hash.into()))
    }
}

/// The fixed part of a record's body.
struct Fixed {
    class: Class,
    deleted: bool,
    key_len: usize,
    major: u64,
    minor: u64,
    public_key: [u8; PUBLIC_KEY_LEN],
}

impl Fixed {
    fn parse(body: &[u8]) -> Result<Self, RecordError> {
        let fixed: &[u8; FIXED_LEN] = body.first_chunk().ok_or(RecordError::Short)?;
        let (head, public_key) = fixed.split_at(FIXED_LEN - PUBLIC_KEY_LEN);
        let word = |at: usize| head[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let class = match fixed[0] {
            0 => Class::Owner,
            1 => Class::Shared,
            other => return Err(RecordError::Class(other)),
        };
        let key_len = u16::from_le_bytes([fixed[2], fixed[3]]);
        if usize::from(key_len) > MAX_KEY {
            return Err(RecordError::Key(key_len));
        }
        if class == Class::Shared && word(12) != 0 {
            return Err(RecordError::Sequence);
        }
        Ok(Fixed {
            class,
            deleted: fixed[1] & DELETED != 0,
            key_len: usize::from(key_len),
            major: word(4),
            minor: word(12),
            public_key: public_key.try_into().map_err(|_| RecordError::Short)?,
        })
    }

    fn is_removal(&self, key: &[u8]) -> bool {
        !self.deleted && key.len() == PEER_ID_LEN && (self.major <= MAX_REMOVED || self.major == REVOKED)
    }

    fn is_floor(&self, key: &[u8], payload: &[u8]) -> bool {
        let own = Version { incarnation: self.major, sequence: self.minor };
        !self.deleted && key.is_empty() && Version::read(payload).is_some_and(|floor| floor < own)
    }

    /// The class of a known kind is fixed; nobody else's endpoint can be written as a shared record.
    fn check_kind(&self, kind: u16) -> Result<(), RecordError> {
        let expected = match kind {
            kind::HOST | kind::ENDPOINT | kind::FLOOR | kind::NAME => Class::Owner,
            kind::VTEP | kind::NETWORK | kind::REMOVAL | kind::ROTATION => Class::Shared,
            _ => return Ok(()),
        };
        if self.class == expected { Ok(()) } else { Err(RecordError::WrongClass(kind)) }
    }

    fn split<'a>(&self, body: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), RecordError> {
        let end = body.len().checked_sub(SIGNATURE_LEN).ok_or(RecordError::Short)?;
        let tail = body.get(FIXED_LEN..end).ok_or(RecordError::Short)?;
        tail.split_at_checked(self.key_len).ok_or(RecordError::Short)
    }

    fn stamp(&self, signer: PeerId, hash: &[u8; 32]) -> Stamp {
        let minor = match self.class {
            Class::Owner => self.minor,
            Class::Shared => !u64::from_be_bytes(signer.0.first_chunk().copied().unwrap_or_default()),
        };
        Stamp { major: self.major, minor, tie: prefix(hash) }
    }
}

fn prefix(hash: &[u8; 32]) -> [u8; 16] {
    hash.first_chunk().copied().unwrap_or_default()
}

fn read_body(envelope: Envelope<'_>, key: &[u8], payload: &[u8], major: u64) -> Body {
    let body = match (envelope.kind, envelope.version) {
        (kind::HOST, kind::VERSION) => read(payload).filter(|_| key.is_empty()).map(Body::Host),
        (kind::ENDPOINT, kind::VERSION) => read(payload).map(Body::Endpoint),
        (kind::VTEP, kind::VERSION) => read(payload).map(Body::Vtep),
        (kind::NETWORK, kind::VERSION) => read(payload).map(Body::Network),
        (kind::REMOVAL, kind::VERSION) => read(payload).map(Body::Removal),
        (kind::NAME, kind::VERSION) => read(payload).map(Body::Name),
        (kind::ROTATION, kind::VERSION) => read(payload).filter(|_| key.is_empty()).map(Body::Rotation),
        _ => None,
    };
    body.filter(|body| fits(body, key, major)).unwrap_or(Body::Opaque)
}

/// A payload that contradicts its header, or breaks a limit, says nothing.
fn fits(body: &Body, key: &[u8], major: u64) -> bool {
    match body {
        Body::Host(host) => host.within_limits(),
        Body::Endpoint(endpoint) => key == endpoint.port.0 && endpoint.within_limits(),
        Body::Vtep(vtep) => key == vtep.key(),
        Body::Network(network) => key == network.network.0 && network.within_limits(),
        Body::Name(name) => key == name.key() && name.within_limits(),
        Body::Removal(removal) => {
            key == removal.peer.0 && major == removal.incarnation && removal.within_limits()
        }
        Body::Rotation(rotation) => rotation.within_limits(),
        Body::Opaque => true,
    }
}

/// Reads a postcard value that fills its bytes to the end.
fn read<T: DeserializeOwned>(payload: &[u8]) -> Option<T> {
    let (value, rest) = postcard::take_from_bytes(payload).ok()?;
    rest.is_empty().then_some(value)
}
