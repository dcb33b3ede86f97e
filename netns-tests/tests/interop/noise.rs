//! Noise IKpsk2 (the Noise Protocol Framework, revision 34), token by token, from primitives.

use aws_lc_rs::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use blake2::{Blake2s256, Digest};
use netns_tests::{Result, anyhow, ensure};

/// The suites, by their numbers in the document.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Suite {
    Aes = 1,
    ChaCha = 2,
}

impl Suite {
    pub(crate) fn protocol(self) -> &'static str {
        match self {
            Suite::Aes => "Noise_IKpsk2_25519_AESGCM_BLAKE2s",
            Suite::ChaCha => "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s",
        }
    }

    /// Section 12: four zeros, then the counter, big-endian for AESGCM, little-endian for ChaChaPoly.
    fn nonce(self, counter: u64) -> Nonce {
        let counter = match self {
            Suite::Aes => counter.to_be_bytes(),
            Suite::ChaCha => counter.to_le_bytes(),
        };
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&counter);
        Nonce::assume_unique_for_key(nonce)
    }

    fn key(self, key: &[u8; 32]) -> Result<LessSafeKey> {
        let algorithm = match self {
            Suite::Aes => &AES_256_GCM,
            Suite::ChaCha => &CHACHA20_POLY1305,
        };
        Ok(LessSafeKey::new(UnboundKey::new(algorithm, key).map_err(|_| anyhow!("not a key"))?))
    }

    pub(crate) fn seal(self, key: &[u8; 32], counter: u64, ad: &[u8], text: &[u8]) -> Result<Vec<u8>> {
        let mut text = text.to_vec();
        let sealed = self.key(key)?.seal_in_place_append_tag(self.nonce(counter), Aad::from(ad), &mut text);
        sealed.map_err(|_| anyhow!("it cannot be sealed"))?;
        Ok(text)
    }

    pub(crate) fn open(self, key: &[u8; 32], counter: u64, ad: &[u8], sealed: &[u8]) -> Result<Vec<u8>> {
        let mut text = sealed.to_vec();
        let opened = self.key(key)?.open_in_place(self.nonce(counter), Aad::from(ad), &mut text);
        Ok(opened.map_err(|_| anyhow!("the tag is wrong"))?.to_vec())
    }
}

/// An X25519 key, private and public.
#[derive(Clone)]
pub(crate) struct Key {
    private: [u8; 32],
    pub(crate) public: [u8; 32],
}

impl Key {
    pub(crate) fn new(private: [u8; 32]) -> Result<Self> {
        let key = PrivateKey::from_private_key(&X25519, &private).map_err(|_| anyhow!("not a key"))?;
        let public = key.compute_public_key().map_err(|_| anyhow!("no public key"))?;
        Ok(Key { private, public: public.as_ref().try_into()? })
    }

    pub(crate) fn random() -> Result<Self> {
        Self::new(random())
    }

    fn agree(&self, theirs: &[u8; 32]) -> Result<[u8; 32]> {
        let key = PrivateKey::from_private_key(&X25519, &self.private).map_err(|_| anyhow!("not a key"))?;
        let theirs = UnparsedPublicKey::new(&X25519, theirs);
        agree(&key, theirs, anyhow!("no agreement"), |secret| Ok(secret.try_into()?))
    }
}

pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system gives random numbers");
    bytes
}

pub(crate) fn hash(parts: &[&[u8]]) -> [u8; 32] {
    parts.iter().fold(Blake2s256::new(), |hash, part| hash.chain_update(part)).finalize().into()
}

/// RFC 2104 with BLAKE2s, whose blocks have 64 bytes.
fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let pad =
        |with: u8| -> [u8; 64] { std::array::from_fn(|at| key.get(at).copied().unwrap_or_default() ^ with) };
    let inner = hash(&[&[&pad(0x36)[..]], parts].concat());
    hash(&[&pad(0x5c), &inner])
}

/// Section 4.3: up to three outputs.
fn hkdf(chaining: &[u8; 32], input: &[u8]) -> [[u8; 32]; 3] {
    let extracted = hmac(chaining, &[input]);
    let first = hmac(&extracted, &[&[1]]);
    let second = hmac(&extracted, &[&first, &[2]]);
    let third = hmac(&extracted, &[&second, &[3]]);
    [first, second, third]
}

/// Section 5.2, with the cipher of section 5.1 in it.
struct Symmetric {
    suite: Suite,
    chaining: [u8; 32],
    hash: [u8; 32],
    key: [u8; 32],
    counter: u64,
}

impl Symmetric {
    fn new(suite: Suite, prologue: &[u8], responder: &[u8; 32]) -> Self {
        // The names are longer than a hash.
        let name = hash(&[suite.protocol().as_bytes()]);
        let mut new = Symmetric { suite, chaining: name, hash: name, key: [0; 32], counter: 0 };
        new.mix_hash(prologue);
        new.mix_hash(responder);
        new
    }

    fn mix_hash(&mut self, data: &[u8]) {
        self.hash = hash(&[&self.hash, data]);
    }

    fn mix_key(&mut self, input: &[u8]) {
        [self.chaining, self.key, _] = hkdf(&self.chaining, input);
        self.counter = 0;
    }

    /// The token `e`, which with pre-shared keys is mixed into the key too (section 9.2).
    fn ephemeral(&mut self, public: &[u8; 32]) {
        self.mix_hash(public);
        self.mix_key(public);
    }

    fn psk(&mut self, psk: &[u8; 32]) {
        let [chaining, mixed, key] = hkdf(&self.chaining, psk);
        self.chaining = chaining;
        self.mix_hash(&mixed);
        (self.key, self.counter) = (key, 0);
    }

    fn seal(&mut self, text: &[u8]) -> Result<Vec<u8>> {
        let sealed = self.suite.seal(&self.key, self.counter, &self.hash, text)?;
        self.mix_hash(&sealed);
        self.counter += 1;
        Ok(sealed)
    }

    fn open(&mut self, sealed: &[u8]) -> Result<Vec<u8>> {
        let text = self.suite.open(&self.key, self.counter, &self.hash, sealed)?;
        self.mix_hash(sealed);
        self.counter += 1;
        Ok(text)
    }

    fn split(&self) -> Split {
        let [initiator, responder, _] = hkdf(&self.chaining, &[]);
        Split { initiator, responder }
    }
}

/// The keys of both directions, by who seals.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Split {
    pub(crate) initiator: [u8; 32],
    pub(crate) responder: [u8; 32],
}

/// The side that began, between its message and the answer.
pub(crate) struct Initiator {
    state: Symmetric,
    own: Key,
    ephemeral: Key,
}

impl Initiator {
    /// `-> e, es, s, ss`
    pub(crate) fn begin(
        (suite, prologue): (Suite, &[u8]),
        own: &Key,
        ephemeral: Key,
        peer: &[u8; 32],
        payload: &[u8],
    ) -> Result<(Self, Vec<u8>)> {
        let mut state = Symmetric::new(suite, prologue, peer);
        state.ephemeral(&ephemeral.public);
        state.mix_key(&ephemeral.agree(peer)?);
        let sealed_static = state.seal(&own.public)?;
        state.mix_key(&own.agree(peer)?);
        let payload = state.seal(payload)?;
        let message = [&ephemeral.public[..], &sealed_static, &payload].concat();
        Ok((Initiator { state, own: own.clone(), ephemeral }, message))
    }

    /// `<- e, ee, se, psk`
    pub(crate) fn finish(mut self, psk: &[u8; 32], message: &[u8]) -> Result<(Vec<u8>, Split)> {
        let (theirs, payload) = message.split_first_chunk().ok_or_else(|| anyhow!("too short"))?;
        self.state.ephemeral(theirs);
        self.state.mix_key(&self.ephemeral.agree(theirs)?);
        self.state.mix_key(&self.own.agree(theirs)?);
        self.state.psk(psk);
        let payload = self.state.open(payload)?;
        Ok((payload, self.state.split()))
    }
}

/// The side that answers, between the other one's message and its own.
pub(crate) struct Responder {
    state: Symmetric,
    /// The other side's keys, as it sent them.
    ephemeral: [u8; 32],
    pub(crate) peer: [u8; 32],
}

impl Responder {
    /// `-> e, es, s, ss`
    pub(crate) fn read(
        (suite, prologue): (Suite, &[u8]),
        own: &Key,
        message: &[u8],
    ) -> Result<(Self, Vec<u8>)> {
        let mut state = Symmetric::new(suite, prologue, &own.public);
        let (ephemeral, rest) = message.split_first_chunk::<32>().ok_or_else(|| anyhow!("too short"))?;
        let (sealed_static, payload) = rest.split_at_checked(48).ok_or_else(|| anyhow!("too short"))?;
        state.ephemeral(ephemeral);
        state.mix_key(&own.agree(ephemeral)?);
        let peer: [u8; 32] = state.open(sealed_static)?.as_slice().try_into()?;
        state.mix_key(&own.agree(&peer)?);
        let payload = state.open(payload)?;
        Ok((Responder { state, ephemeral: *ephemeral, peer }, payload))
    }

    /// `<- e, ee, se, psk`
    pub(crate) fn answer(
        mut self,
        ephemeral: &Key,
        psk: &[u8; 32],
        payload: &[u8],
    ) -> Result<(Vec<u8>, Split)> {
        self.state.ephemeral(&ephemeral.public);
        self.state.mix_key(&ephemeral.agree(&self.ephemeral)?);
        self.state.mix_key(&ephemeral.agree(&self.peer)?);
        self.state.psk(psk);
        let payload = self.state.seal(payload)?;
        Ok(([&ephemeral.public[..], &payload].concat(), self.state.split()))
    }
}

/// The published vectors, which the program itself is held to as well.
#[test]
fn the_published_exchanges_come_out_here_too() -> Result<()> {
    let text = include_str!("../../../engine/tests/vectors/noise-ikpsk2.json");
    let all: netns_tests::Value = serde_json::from_str(text)?;
    let vectors = all.get("vectors").and_then(|all| all.as_array()).ok_or_else(|| anyhow!("no vectors"))?;
    ensure!(vectors.len() == 2, "{} vectors", vectors.len());
    for (vector, suite) in vectors.iter().zip([Suite::Aes, Suite::ChaCha]) {
        ensure!(vector["protocol_name"] == suite.protocol(), "{}", vector["protocol_name"]);
        let bytes = |value: &netns_tests::Value| {
            let text = value.as_str().unwrap_or_default().to_owned();
            let byte = |at| u8::from_str_radix(&text[at..at + 2], 16);
            (0..text.len()).step_by(2).map(byte).collect::<Result<Vec<u8>, _>>()
        };
        let key = |name: &str| -> Result<Key> { Key::new(bytes(&vector[name])?.as_slice().try_into()?) };
        let psk: [u8; 32] = bytes(&vector["init_psks"][0])?.as_slice().try_into()?;
        let prologue = bytes(&vector["init_prologue"])?;
        let with = (suite, &prologue[..]);
        let text = |at: usize| -> Result<(Vec<u8>, Vec<u8>)> {
            let message = &vector["messages"][at];
            Ok((bytes(&message["payload"])?, bytes(&message["ciphertext"])?))
        };
        let (ours, theirs) = (key("init_static")?, key("resp_static")?);
        let (payload, expected) = text(0)?;
        let (initiator, message) =
            Initiator::begin(with, &ours, key("init_ephemeral")?, &theirs.public, &payload)?;
        ensure!(message == expected, "the first message of {suite:?}");
        let (responder, read) = Responder::read(with, &theirs, &message)?;
        ensure!(read == payload && responder.peer == ours.public, "what is read of it");
        let (payload, expected) = text(1)?;
        let (message, split) = responder.answer(&key("resp_ephemeral")?, &psk, &payload)?;
        ensure!(message == expected, "the second message of {suite:?}");
        let (read, same) = initiator.finish(&psk, &message)?;
        ensure!(read == payload && same == split, "what is read of it");
        let (payload, expected) = text(2)?;
        ensure!(suite.seal(&split.initiator, 0, &[], &payload)? == expected, "the third of {suite:?}");
        let (payload, expected) = text(3)?;
        ensure!(suite.seal(&split.responder, 0, &[], &payload)? == expected, "the fourth of {suite:?}");
    }
    Ok(())
}
