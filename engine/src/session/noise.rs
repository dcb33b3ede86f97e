//! The Noise exchange: IKpsk2, by the `snow` crate, with randomness from the caller.

use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState};
use zeroize::{Zeroize, Zeroizing};

use super::key::SplitKey;
use super::psk::Psk;
use super::suite::Suite;

/// Bytes of an X25519 key, private or public.
pub const KEY_LEN: usize = 32;
/// Where the pre-shared key is mixed in: at the end of the second message.
const PSK_PLACE: usize = 2;

/// A message was not made for this host, by that host, with these keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the handshake does not fit the keys")]
pub struct Mismatch;

/// The long-term key of a host for its sessions.
pub struct StaticKey(pub(super) Zeroizing<[u8; KEY_LEN]>);

impl StaticKey {
    /// A private X25519 key.
    pub fn new(bytes: [u8; KEY_LEN]) -> Self {
        StaticKey(Zeroizing::new(bytes))
    }

    /// The public key to it.
    pub fn public(&self) -> [u8; KEY_LEN] {
        #[expect(clippy::expect_used, reason = "the crate is built with it")]
        let mut dh = DefaultResolver.resolve_dh(&DHChoice::Curve25519).expect("snow has X25519");
        dh.set(&self.0[..]);
        dh.pubkey().first_chunk().copied().unwrap_or_default()
    }
}

/// One side of an exchange.
pub(super) struct Noise(Box<HandshakeState>);

impl Noise {
    /// The side that begins, and knows whom it talks to.
    pub(super) fn initiator(
        suite: Suite,
        prologue: &[u8],
        own: &StaticKey,
        peer: &[u8; KEY_LEN],
        seed: [u8; 32],
    ) -> Result<Self, Mismatch> {
        let builder = builder(suite, prologue, own, seed)?.remote_public_key(peer).map_err(|_| Mismatch)?;
        Ok(Noise(Box::new(builder.build_initiator().map_err(|_| Mismatch)?)))
    }

    /// The side that answers.
    pub(super) fn responder(
        suite: Suite,
        prologue: &[u8],
        own: &StaticKey,
        seed: [u8; 32],
    ) -> Result<Self, Mismatch> {
        Ok(Noise(Box::new(builder(suite, prologue, own, seed)?.build_responder().map_err(|_| Mismatch)?)))
    }

    /// The next message, with `payload` in it.
    pub(super) fn write(&mut self, payload: &[u8]) -> Result<Vec<u8>, Mismatch> {
        let mut message = vec![0; MAX_MESSAGE];
        let len = self.0.write_message(payload, &mut message).map_err(|_| Mismatch)?;
        message.truncate(len);
        Ok(message)
    }

    /// Reads the other side's message; its payload comes back.
    pub(super) fn read(&mut self, message: &[u8]) -> Result<Vec<u8>, Mismatch> {
        let mut payload = vec![0; message.len()];
        let len = self.0.read_message(message, &mut payload).map_err(|_| Mismatch)?;
        payload.truncate(len);
        Ok(payload)
    }

    pub(super) fn set_psk(&mut self, psk: &Psk) -> Result<(), Mismatch> {
        self.0.set_psk(PSK_PLACE, psk.bytes()).map_err(|_| Mismatch)
    }

    /// The other side's long-term public key, once it has told it.
    pub(super) fn remote_static(&self) -> Option<[u8; KEY_LEN]> {
        self.0.get_remote_static()?.try_into().ok()
    }

    /// The keys to seal and to open with, once both messages have passed.
    pub(super) fn split(&mut self) -> Result<(SplitKey, SplitKey), Mismatch> {
        if !self.0.is_handshake_finished() {
            return Err(Mismatch);
        }
        let (mut first, mut second) = self.0.dangerously_get_raw_split();
        let keys = (Zeroizing::new(first), Zeroizing::new(second));
        first.zeroize();
        second.zeroize();
        let (initiator, responder) = keys;
        Ok(if self.0.is_initiator() { (initiator, responder) } else { (responder, initiator) })
    }
}

/// More than any message here: two keys, three tags, a payload.
const MAX_MESSAGE: usize = 512;

fn builder<'a>(
    suite: Suite,
    prologue: &'a [u8],
    own: &'a StaticKey,
    seed: [u8; 32],
) -> Result<Builder<'a>, Mismatch> {
    let params = suite.protocol().parse().map_err(|_| Mismatch)?;
    let builder = Builder::with_resolver(params, Box::new(Seeded(seed)));
    builder.local_private_key(&own.0[..]).and_then(|builder| builder.prologue(prologue)).map_err(|_| Mismatch)
}

/// The primitives of the crate, but for chance, which comes from the caller: 32 bytes, used once for the one ephemeral key.
struct Seeded([u8; 32]);

impl CryptoResolver for Seeded {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Once(Some(Zeroizing::new(self.0)))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        DefaultResolver.resolve_dh(choice)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

impl Drop for Seeded {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

struct Once(Option<Zeroizing<[u8; 32]>>);

impl Random for Once {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), snow::Error> {
        let seed = self.0.take().filter(|seed| seed.len() == dest.len()).ok_or(snow::Error::Rng)?;
        dest.copy_from_slice(&seed[..]);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
