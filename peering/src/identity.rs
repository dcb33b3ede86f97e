//! Who a host is: an Ed25519 key that signs, and an X25519 key for the sessions of the data plane.
//!
//! The peer id is the first 16 bytes of BLAKE2s of the Ed25519 public key, so a key proves its id and an id
//! names one key. The two keys are drawn apart: neither can be computed from the other.

use std::fmt;

use aws_lc_rs::agreement::{PrivateKey, X25519};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use blake2::{Blake2s256, Digest};
use engine::types::PeerId;
use zeroize::Zeroizing;

/// Bytes of a public key, Ed25519 (RFC 8032) and X25519 (RFC 7748) alike.
pub const PUBLIC_KEY_LEN: usize = 32;
/// Bytes of a signature (RFC 8032 section 5.1.6).
pub const SIGNATURE_LEN: usize = 64;
/// Bytes of each of the two secret keys: an Ed25519 seed (RFC 8032) and an X25519 key (RFC 7748).
pub const SECRET_LEN: usize = 32;

/// The stored secret is no identity.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IdentityError {
    /// It has not [`SECRET_LEN`] bytes.
    #[error("a secret key has {SECRET_LEN} bytes, not {0}")]
    Length(usize),
    /// The library refused the key.
    #[error("the key is not usable")]
    Key,
}

/// The keys of this host. The secrets are wiped when it is dropped, and never printed.
pub struct Identity {
    seed: Zeroizing<[u8; SECRET_LEN]>,
    noise: Zeroizing<[u8; SECRET_LEN]>,
    key: Ed25519KeyPair,
    public: [u8; PUBLIC_KEY_LEN],
    noise_public: [u8; PUBLIC_KEY_LEN],
    peer_id: PeerId,
}

impl Identity {
    /// A new identity from 32 bytes of a good source of randomness; the same seed gives the same keys.
    pub fn generate(seed: [u8; 32]) -> Result<Self, IdentityError> {
        let seed = Zeroizing::new(seed);
        let (mut sign, mut noise) = (Zeroizing::new([0; SECRET_LEN]), Zeroizing::new([0; SECRET_LEN]));
        expand(b"meshnet identity key", &seed, &mut sign[..]);
        expand(b"meshnet noise key", &seed, &mut noise[..]);
        Self::from_secrets(&sign[..], &noise[..])
    }

    /// The identity of which [`Self::secret`] and [`Self::noise_secret_key`] were kept.
    ///
    /// # Errors
    /// A length is wrong, or the library refuses a key.
    pub fn from_secrets(seed: &[u8], noise: &[u8]) -> Result<Self, IdentityError> {
        let (seed, noise) = (secret(seed)?, secret(noise)?);
        let key = Ed25519KeyPair::from_seed_unchecked(&seed[..]).map_err(|_| IdentityError::Key)?;
        let public = key.public_key().as_ref().try_into().map_err(|_| IdentityError::Key)?;
        let noise_public = noise_public(&noise[..])?;
        Ok(Identity { key, public, noise_public, peer_id: peer_id_of(&public), seed, noise })
    }

    /// What must be kept to be this host again. Goes to a file with mode 0600 and nowhere else.
    pub fn secret(&self) -> &Zeroizing<[u8; SECRET_LEN]> {
        &self.seed
    }

    /// The Ed25519 key as PKCS#8 (RFC 8410), for the QUIC certificate.
    ///
    /// # Errors
    /// The library cannot encode the key.
    pub fn pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
        let document = self.key.to_pkcs8v1().map_err(|_| IdentityError::Key)?;
        Ok(Zeroizing::new(document.as_ref().to_vec()))
    }

    /// Who this host is.
    pub fn peer_id(&self) -> PeerId {
        self.peer_id
    }

    /// The Ed25519 public key.
    pub fn public_key(&self) -> &[u8; PUBLIC_KEY_LEN] {
        &self.public
    }

    /// The X25519 public key, told to others in the host record.
    pub fn noise_public_key(&self) -> &[u8; PUBLIC_KEY_LEN] {
        &self.noise_public
    }

    /// The X25519 secret key, for the handshakes of the data plane. Goes to a file of its own, with mode 0600.
    pub fn noise_secret_key(&self) -> &Zeroizing<[u8; SECRET_LEN]> {
        &self.noise
    }

    /// Signs bytes. The caller separates the domains: what is signed begins with words of its own.
    pub fn sign(&self, bytes: &[u8]) -> [u8; SIGNATURE_LEN] {
        let mut signature = [0; SIGNATURE_LEN];
        signature.copy_from_slice(self.key.sign(bytes).as_ref());
        signature
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("peer_id", &self.peer_id).finish_non_exhaustive()
    }
}

/// True when `signature` over `bytes` was made by the holder of `public_key`.
pub fn verify(public_key: &[u8; PUBLIC_KEY_LEN], bytes: &[u8], signature: &[u8; SIGNATURE_LEN]) -> bool {
    UnparsedPublicKey::new(&ED25519, public_key).verify(bytes, signature).is_ok()
}

/// The peer id that belongs to an Ed25519 public key.
pub fn peer_id_of(public_key: &[u8; PUBLIC_KEY_LEN]) -> PeerId {
    let mut id = [0; 16];
    id.copy_from_slice(&Blake2s256::digest(public_key)[..16]);
    PeerId(id)
}

fn secret(bytes: &[u8]) -> Result<Zeroizing<[u8; SECRET_LEN]>, IdentityError> {
    let mut secret = Zeroizing::new([0; SECRET_LEN]);
    if bytes.len() != SECRET_LEN {
        return Err(IdentityError::Length(bytes.len()));
    }
    secret.copy_from_slice(bytes);
    Ok(secret)
}

fn expand(label: &[u8], seed: &[u8; 32], out: &mut [u8]) {
    out.copy_from_slice(&Blake2s256::new().chain_update(label).chain_update(seed).finalize());
}

fn noise_public(secret: &[u8]) -> Result<[u8; PUBLIC_KEY_LEN], IdentityError> {
    let key = PrivateKey::from_private_key(&X25519, secret).map_err(|_| IdentityError::Key)?;
    let public = key.compute_public_key().map_err(|_| IdentityError::Key)?;
    public.as_ref().try_into().map_err(|_| IdentityError::Key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_survives_its_store_and_signs_for_its_id() {
        let first = Identity::generate([7; 32]).unwrap();
        let again = Identity::from_secrets(&first.secret()[..], &first.noise_secret_key()[..]).unwrap();
        assert_eq!(first.peer_id(), again.peer_id());
        assert_eq!(first.noise_public_key(), again.noise_public_key());
        assert_eq!(peer_id_of(first.public_key()), first.peer_id());
        let signature = again.sign(b"words");
        assert!(verify(first.public_key(), b"words", &signature));
        assert!(!verify(first.public_key(), b"Words", &signature));
        assert!(!verify(Identity::generate([8; 32]).unwrap().public_key(), b"words", &signature));
        assert!(!verify(&[0xff; 32], b"words", &signature));
    }

    #[test]
    fn the_two_keys_are_apart_and_no_secret_is_printed() {
        let identity = Identity::generate([7; 32]).unwrap();
        assert_ne!(identity.public_key(), identity.noise_public_key());
        assert_ne!(identity.secret(), identity.noise_secret_key());
        assert_eq!(format!("{identity:?}"), format!("Identity {{ peer_id: {}, .. }}", identity.peer_id()));
        assert!(identity.pkcs8().unwrap().len() > 32);
    }

    #[test]
    fn keys_follow_the_published_vectors() {
        // RFC 8032 section 7.1, test 1, and RFC 7748 section 5.2, one iteration: X25519(9, base point).
        let seed = hex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
        let noise = [vec![9], vec![0; 31]].concat();
        let identity = Identity::from_secrets(&seed, &noise).unwrap();
        assert_eq!(
            identity.public_key().to_vec(),
            hex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
        );
        assert_eq!(
            identity.noise_public_key().to_vec(),
            hex("422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079")
        );
        assert_eq!(Identity::from_secrets(&[0; 5], &noise).unwrap_err(), IdentityError::Length(5));
        assert_eq!(Identity::from_secrets(&noise, &[0; 64]).unwrap_err(), IdentityError::Length(64));
    }

    fn hex(text: &str) -> Vec<u8> {
        text.as_bytes()
            .chunks_exact(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }
}
