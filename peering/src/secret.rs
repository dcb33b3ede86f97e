//! The secret that closes a cluster: who has it may join, who has not learns nothing.
//!
//! Out of one secret HKDF (RFC 5869) makes separate keys, so that what is told under one says nothing about another. On a
//! fresh TLS connection each side sends a [`Proof`] in each direction before anything else (`docs/protocol.md`); what the
//! proof covers makes it good for that connection, that direction and those two hosts alone.

use std::fmt;

use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::hmac;
use blake2::{Blake2s256, Digest};
use engine::types::PeerId;
use zeroize::Zeroizing;

/// The fewest bytes of a secret; `meshnet secret generate` makes just so many.
pub const MIN_LEN: usize = 32;
/// The most bytes of a secret.
pub const MAX_LEN: usize = 256;
/// Bytes of what each side sends first.
pub const PROOF_LEN: usize = 32;

/// Salt of the extraction (RFC 5869 section 2.2).
const SALT: &[u8] = b"meshnet secret 1";
/// What the key for proofs is for (RFC 5869 section 2.3).
const CONTROL: &[u8] = b"meshnet control proof";
/// What the key is for that sessions of the data plane are mixed with.
const DATA: &[u8] = b"meshnet data psk";
/// The name of a key of the data plane is a hash that begins with these words.
const DATA_ID: &[u8] = b"meshnet psk id";

/// The text or file holds no secret. Nothing of it is repeated.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SecretError {
    /// Fewer than [`MIN_LEN`] bytes.
    #[error("it has {0} bytes, and a secret has at least {MIN_LEN}, each as two hexadecimal digits")]
    Short(usize),
    /// More than [`MAX_LEN`] bytes.
    #[error("it is longer than {MAX_LEN} bytes")]
    Long,
    /// Something that is no hexadecimal digit, or an odd number of them.
    #[error("it is not written in pairs of hexadecimal digits")]
    Digits,
}

/// The secret of a cluster. Wiped when dropped, and never printed.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// A secret out of random bytes.
    ///
    /// # Errors
    /// They are too few or too many.
    pub fn new(bytes: Zeroizing<Vec<u8>>) -> Result<Self, SecretError> {
        match bytes.len() {
            len if len < MIN_LEN => Err(SecretError::Short(len)),
            len if len > MAX_LEN => Err(SecretError::Long),
            _ => Ok(Secret(bytes)),
        }
    }

    /// Reads the form for files: hexadecimal digits, white space around them ignored.
    ///
    /// # Errors
    /// The text is no secret; see [`SecretError`].
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let digits = text.trim().as_bytes();
        if digits.len() > 2 * MAX_LEN {
            return Err(SecretError::Long);
        }
        let (pairs, rest) = digits.as_chunks::<2>();
        let mut bytes = Zeroizing::new(Vec::with_capacity(pairs.len()));
        for [high, low] in pairs {
            let byte = digit(*high).zip(digit(*low)).map(|(high, low)| high << 4 | low);
            bytes.push(byte.ok_or(SecretError::Digits)?);
        }
        if rest.is_empty() { Self::new(bytes) } else { Err(SecretError::Digits) }
    }

    /// The form for files, without a line end.
    pub fn text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(2 * self.0.len()));
        for byte in self.0.iter() {
            for nibble in [byte >> 4, byte & 0xf] {
                text.push(char::from_digit(nibble.into(), 16).unwrap_or_default());
            }
        }
        text
    }

    /// A key for one purpose.
    #[expect(clippy::expect_used, reason = "HKDF with SHA-256 gives up to 8160 bytes (RFC 5869 section 2.3)")]
    fn key(&self, purpose: &[u8]) -> Zeroizing<[u8; 32]> {
        let mut key = Zeroizing::new([0; 32]);
        let extracted = Salt::new(HKDF_SHA256, SALT).extract(&self.0);
        let made = extracted.expand(&[purpose], Length).and_then(|made| made.fill(&mut key[..]));
        made.expect("32 bytes are fewer than 8160");
        key
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// The length of every key.
struct Length;

impl KeyType for Length {
    fn len(&self) -> usize {
        32
    }
}

/// Who of the two a host is on a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// It began the connection.
    Dialler,
    /// It was dialled.
    Acceptor,
}

impl Role {
    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Role::Dialler => Role::Acceptor,
            Role::Acceptor => Role::Dialler,
        }
    }
}

/// What a proof is good for: one connection between two hosts.
#[derive(Clone, Copy, Debug)]
pub struct Binding {
    /// What TLS exports of the connection (RFC 8446 section 7.5): nobody else has it.
    pub exported: [u8; 32],
    /// The host that began it.
    pub dialler: PeerId,
    /// The host that was dialled.
    pub acceptor: PeerId,
}

/// What a side sends first: a proof that it has the secret, or zeros if it has none.
pub type Proof = [u8; PROOF_LEN];

/// What a host without a secret sends.
const NONE: Proof = [0; PROOF_LEN];

/// Why a host is not talked to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, thiserror::Error)]
pub enum Refusal {
    /// The other side has a secret, this one has none.
    #[error("no secret: the host there has one, this one has none")]
    NoSecretHere,
    /// This side has a secret, the other one showed none.
    #[error("no secret: this host has one, the host there has none")]
    NoSecretThere,
    /// Both have one, and they differ.
    #[error("wrong secret: the host there has another one than this")]
    WrongSecret,
}

impl Refusal {
    /// One word for programs.
    pub fn name(self) -> &'static str {
        match self {
            Refusal::NoSecretHere => "no_secret_here",
            Refusal::NoSecretThere => "no_secret_there",
            Refusal::WrongSecret => "wrong_secret",
        }
    }

    /// The number under which the side that refuses tells the other one.
    pub fn code(self) -> u32 {
        match self {
            Refusal::NoSecretThere => 1,
            Refusal::WrongSecret => 2,
            Refusal::NoSecretHere => 3,
        }
    }

    /// What the number says to the side that is refused.
    pub fn told(code: u64) -> Option<Self> {
        match code {
            1 => Some(Refusal::NoSecretHere),
            2 => Some(Refusal::WrongSecret),
            3 => Some(Refusal::NoSecretThere),
            _ => None,
        }
    }
}

/// Who is let in: whoever has the secret; without one, anybody.
#[derive(Clone, Debug, Default)]
pub struct Admission(Option<Secret>);

impl Admission {
    /// Only hosts with this secret; without one the cluster is open to all.
    pub fn new(secret: Option<Secret>) -> Self {
        Admission(secret)
    }

    /// True without a secret.
    pub fn is_open(&self) -> bool {
        self.0.is_none()
    }

    /// The key that sessions of the data plane are mixed with, so that only hosts with the secret have any.
    pub fn data_key(&self) -> Option<Zeroizing<[u8; 32]>> {
        self.0.as_ref().map(|secret| secret.key(DATA))
    }

    /// Names the secret without telling it: two hosts with one name have one secret.
    pub fn name(&self) -> Option<[u8; 8]> {
        let hash = Blake2s256::new_with_prefix(DATA_ID).chain_update(&self.data_key()?[..]).finalize();
        hash.first_chunk().copied()
    }

    /// What this host sends first, in its role.
    pub fn prove(&self, binding: &Binding, role: Role) -> Proof {
        self.0.as_ref().map_or(NONE, |secret| prove(secret, binding, role))
    }

    /// Judges what the other side, in its role, sent first. The comparison takes the same time wherever it differs.
    ///
    /// # Errors
    /// The other side is not to be talked to.
    pub fn judge(&self, proof: &Proof, binding: &Binding, role: Role) -> Result<(), Refusal> {
        match (&self.0, *proof == NONE) {
            (None, true) => Ok(()),
            (None, false) => Err(Refusal::NoSecretHere),
            (Some(_), true) => Err(Refusal::NoSecretThere),
            (Some(secret), false) => {
                let tested = hmac::verify(&proof_key(secret), &covered(binding, role), proof);
                tested.map_err(|_| Refusal::WrongSecret)
            }
        }
    }
}

fn prove(secret: &Secret, binding: &Binding, role: Role) -> Proof {
    let mut proof = NONE;
    proof.copy_from_slice(hmac::sign(&proof_key(secret), &covered(binding, role)).as_ref());
    proof
}

fn proof_key(secret: &Secret) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &secret.key(CONTROL)[..])
}

/// Role of the prover (1 byte: 1 dialler, 2 acceptor), id of the dialler (16), of the acceptor (16), what TLS exported (32).
fn covered(binding: &Binding, role: Role) -> Vec<u8> {
    let role = match role {
        Role::Dialler => 1,
        Role::Acceptor => 2,
    };
    [&[role][..], &binding.dialler.0, &binding.acceptor.0, &binding.exported].concat()
}

#[cfg(test)]
mod tests;
