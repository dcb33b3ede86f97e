//! The secret that closes a cluster: who has it may join, who has not learns nothing.
//!
//! Out of one secret HKDF (RFC 5869) makes separate keys, so that what is told under one says nothing about another. On a
//! fresh TLS connection each side sends [`Proofs`] in each direction before anything else (`docs/protocol.md`); what a
//! proof covers makes it good for that connection, that direction and those two hosts alone. While a cluster goes over to
//! another secret a host has two, and proves both.

use std::fmt;

use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::hmac;
use blake2::{Blake2s256, Digest};
use engine::types::PeerId;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::keyring::Keyring;

/// The fewest bytes of a secret; `meshnet secret generate` makes just so many.
pub const MIN_LEN: usize = 32;
/// The most bytes of a secret.
pub const MAX_LEN: usize = 256;
/// Bytes of one proof.
pub const PROOF_LEN: usize = 32;
/// Proofs that each side sends first: a host has at most so many secrets.
pub const PROOFS: usize = 2;
/// Bytes of what each side sends first.
pub const PROOFS_LEN: usize = PROOFS * PROOF_LEN;

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

/// Names a secret without telling it: two hosts with one name have one secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct SecretName(pub [u8; 8]);

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The secret of a cluster. Wiped when dropped, and never printed.
#[derive(Clone, PartialEq, Eq)]
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

    /// Its bytes, to be sent or kept where nobody else reads them.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Its name.
    pub fn name(&self) -> SecretName {
        let hash = Blake2s256::new_with_prefix(DATA_ID).chain_update(&self.data_key()[..]).finalize();
        SecretName(hash.first_chunk().copied().unwrap_or_default())
    }

    /// The key that sessions of the data plane are mixed with, so that only hosts with the secret have any.
    pub fn data_key(&self) -> Zeroizing<[u8; 32]> {
        self.key(DATA)
    }

    /// The key under which it is proved.
    pub(crate) fn control_key(&self) -> Zeroizing<[u8; 32]> {
        self.key(CONTROL)
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

/// A proof that a host has a secret.
type Proof = [u8; PROOF_LEN];

/// What a side sends first: a proof for each of its secrets, or zeros if it has none.
pub type Proofs = [u8; PROOFS_LEN];

/// What a host without a secret sends.
const NONE: Proofs = [0; PROOFS_LEN];

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
    /// That of this side was taken before the cluster went over to another one.
    #[error(
        "retired secret: this host's secret is no longer taken, the cluster has another one since `meshnet secret rotate`; \
         launch this host with that one"
    )]
    RetiredHere,
    /// That of the other side was taken before the cluster went over to another one.
    #[error("retired secret: the host there has one that is no longer taken")]
    RetiredThere,
}

impl Refusal {
    /// One word for programs.
    pub fn name(self) -> &'static str {
        match self {
            Refusal::NoSecretHere => "no_secret_here",
            Refusal::NoSecretThere => "no_secret_there",
            Refusal::WrongSecret => "wrong_secret",
            Refusal::RetiredHere => "retired_secret_here",
            Refusal::RetiredThere => "retired_secret_there",
        }
    }

    /// The number under which the side that refuses tells the other one.
    pub fn code(self) -> u32 {
        match self {
            Refusal::NoSecretThere => 1,
            Refusal::WrongSecret => 2,
            Refusal::NoSecretHere => 3,
            Refusal::RetiredThere => 4,
            Refusal::RetiredHere => 5,
        }
    }

    /// What the number says to the side that is refused.
    pub fn told(code: u64) -> Option<Self> {
        match code {
            1 => Some(Refusal::NoSecretHere),
            2 => Some(Refusal::WrongSecret),
            3 => Some(Refusal::NoSecretThere),
            4 => Some(Refusal::RetiredHere),
            5 => Some(Refusal::RetiredThere),
            _ => None,
        }
    }
}

/// Who is let in: whoever has one of the secrets; without any, anybody.
#[derive(Clone, Debug, Default)]
pub struct Admission(Keyring);

impl Admission {
    /// Only hosts with one of these secrets; without any the cluster is open to all.
    pub fn new(keyring: Keyring) -> Self {
        Admission(keyring)
    }

    /// The secrets.
    pub fn keyring(&self) -> &Keyring {
        &self.0
    }

    /// True without a secret.
    pub fn is_open(&self) -> bool {
        self.0.is_empty()
    }

    /// What this host sends first, in its role. One that has a single secret says as much as one that has two: nobody learns
    /// from it whether a rotation is under way.
    pub fn prove(&self, binding: &Binding, role: Role) -> Proofs {
        let mut proofs = NONE;
        let (places, _) = proofs.as_chunks_mut::<PROOF_LEN>();
        let own = self.0.control_keys().map(|key| prove(key, binding, prover(role)));
        let blank = self.0.control_keys().map(|key| prove(key, binding, BLANK + prover(role)));
        for (place, proof) in places.iter_mut().zip(own.chain(blank)) {
            *place = proof;
        }
        proofs
    }

    /// Judges what the other side, in its role, sent first. The comparison takes the same time wherever it differs.
    ///
    /// # Errors
    /// The other side is not to be talked to.
    pub fn judge(&self, proofs: &Proofs, binding: &Binding, role: Role) -> Result<(), Refusal> {
        let proves = |key: &[u8; 32]| {
            let (shown, _) = proofs.as_chunks::<PROOF_LEN>();
            // Each is looked at, whichever fits.
            shown.iter().filter(|proof| tested(key, binding, prover(role), proof)).count() > 0
        };
        match (self.is_open(), *proofs == NONE) {
            (true, true) => Ok(()),
            (true, false) => Err(Refusal::NoSecretHere),
            (false, true) => Err(Refusal::NoSecretThere),
            (false, false) if self.0.control_keys().any(proves) => Ok(()),
            (false, false) if self.0.retired_keys().any(proves) => Err(Refusal::RetiredThere),
            (false, false) => Err(Refusal::WrongSecret),
        }
    }
}

/// Added to the role for what fills the place of a second proof.
const BLANK: u8 = 2;

fn prover(role: Role) -> u8 {
    match role {
        Role::Dialler => 1,
        Role::Acceptor => 2,
    }
}

fn prove(key: &[u8; 32], binding: &Binding, role: u8) -> Proof {
    let mut proof = [0; PROOF_LEN];
    proof.copy_from_slice(
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), &covered(binding, role)).as_ref(),
    );
    proof
}

fn tested(key: &[u8; 32], binding: &Binding, role: u8, proof: &Proof) -> bool {
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, key), &covered(binding, role), proof).is_ok()
}

/// Role of the prover (1 byte: 1 dialler, 2 acceptor; 2 more for a blank), id of the dialler (16), of the acceptor (16), what
/// TLS exported (32).
fn covered(binding: &Binding, role: u8) -> Vec<u8> {
    [&[role][..], &binding.dialler.0, &binding.acceptor.0, &binding.exported].concat()
}

#[cfg(test)]
mod tests;
