//! Handshake messages and sealed frames, as docs/protocol.md has them.

use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::hmac;
use blake2::digest::consts::U16;
use blake2::digest::{FixedOutput, KeyInit, Update};
use netns_tests::{Result, anyhow, ensure};

use super::noise::{Initiator, Key, Responder, Split, Suite, hash, random};

pub(crate) const INITIATION: u8 = 1;
pub(crate) const RESPONSE: u8 = 2;
pub(crate) const COOKIE: u8 = 3;
pub(crate) const SEALED: u8 = 4;

/// The data key of a secret, which is the pre-shared key of sessions.
pub(crate) fn psk_of(secret: &[u8]) -> Result<[u8; 32]> {
    let salt = hmac::Key::new(hmac::HMAC_SHA256, b"meshnet secret 1");
    let extracted = hmac::sign(&salt, secret);
    expand(extracted.as_ref().try_into()?, b"meshnet data psk")
}

/// HKDF-Expand (RFC 5869) with SHA-256, 32 bytes: its first block.
fn expand(extracted: &[u8; 32], info: &[u8]) -> Result<[u8; 32]> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, extracted);
    Ok(hmac::sign(&key, &[info, &[1]].concat()).as_ref().try_into()?)
}

pub(crate) fn psk_id(psk: &[u8; 32]) -> [u8; 8] {
    hash(&[b"meshnet psk id", psk])[..8].try_into().expect("a hash is longer")
}

fn prologue(suite: Suite) -> Vec<u8> {
    [&b"meshnet session 1"[..], &[suite as u8]].concat()
}

/// BLAKE2s with a key and 16 bytes of output.
fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 16] {
    let mac = <blake2::Blake2sMac<U16> as KeyInit>::new_from_slice(key).expect("keys have 16 or 32 bytes");
    parts.iter().fold(mac, |mac, part| mac.chain(part)).finalize_fixed().into()
}

/// Both MACs behind a message for `receiver`.
pub(crate) fn finish(mut message: Vec<u8>, receiver: &[u8; 32], cookie: Option<&[u8; 16]>) -> Vec<u8> {
    let mac1 = mac(&hash(&[b"meshnet mac1", receiver]), &[&message]);
    message.extend_from_slice(&mac1);
    let mac2 = cookie.map_or([0; 16], |cookie| mac(cookie, &[&message]));
    message.extend_from_slice(&mac2);
    message
}

/// The message without its MACs, if the first is right for `own`, and the second under `cookie`.
fn checked<'a>(message: &'a [u8], own: &Key, cookie: Option<&[u8; 16]>) -> Result<&'a [u8]> {
    let (rest, macs) = message.split_last_chunk::<32>().ok_or_else(|| anyhow!("too short"))?;
    let mac1 = mac(&hash(&[b"meshnet mac1", &own.public]), &[rest]);
    ensure!(macs[..16] == mac1, "MAC1 is wrong");
    let mac2 = cookie.map_or([0; 16], |cookie| mac(cookie, &[rest, &mac1]));
    ensure!(macs[16..] == mac2, "MAC2 is wrong");
    Ok(rest)
}

pub(crate) fn mac1_of(message: &[u8]) -> Result<[u8; 16]> {
    let (_, macs) = message.split_last_chunk::<32>().ok_or_else(|| anyhow!("too short"))?;
    Ok(macs[..16].try_into()?)
}

fn number(message: &[u8], at: usize) -> Result<u32> {
    let bytes = message.get(at..at + 4).ok_or_else(|| anyhow!("too short"))?;
    Ok(u32::from_le_bytes(bytes.try_into()?))
}

/// A number for a session; never 0.
fn fresh() -> u32 {
    u32::from_le_bytes(random()).max(1)
}

/// An initiation that was sent.
pub(crate) struct Begun {
    suite: Suite,
    noise: Initiator,
    local: u32,
    pub(crate) message: Vec<u8>,
}

impl Begun {
    pub(crate) fn new(
        suite: Suite,
        own: &Key,
        peer: &[u8; 32],
        (start, count): (u64, u64),
        (psks, cookie): (&[[u8; 32]], Option<&[u8; 16]>),
    ) -> Result<Self> {
        let ids = psks.iter().map(psk_id);
        let payload = [start.to_le_bytes(), count.to_le_bytes()].into_iter().chain(ids).collect::<Vec<_>>();
        let with = (suite, &prologue(suite)[..]);
        let (noise, message) = Initiator::begin(with, own, Key::random()?, peer, &payload.concat())?;
        ensure!(message.len() == 96 + 16 + 8 * psks.len(), "{} bytes", message.len());
        let local = fresh();
        let head = [INITIATION, suite as u8, 0, 0];
        let message = finish([&head[..], &local.to_le_bytes(), &message].concat(), peer, cookie);
        Ok(Begun { suite, noise, local, message })
    }

    /// The session that a response begins, and the start count in it.
    pub(crate) fn finish(
        self,
        own: &Key,
        (psks, cookie): (&[[u8; 32]], Option<&[u8; 16]>),
        response: &[u8],
    ) -> Result<(Session, u64)> {
        let rest = checked(response, own, cookie)?;
        ensure!(rest.len() == 76 && rest[..4] == [RESPONSE, self.suite as u8, 0, 0], "{rest:02x?}");
        ensure!(number(rest, 8)? == self.local, "it answers another initiation");
        let psk = psks.iter().find(|psk| psk_id(psk) == rest[12..20]);
        let (payload, split) = self.noise.finish(psk.ok_or_else(|| anyhow!("no such psk"))?, &rest[20..])?;
        let start = u64::from_le_bytes(payload.as_slice().try_into()?);
        Ok((Session::new(self.suite, (self.local, number(rest, 4)?), &split, true)?, start))
    }

    /// Whether a datagram of type 3 is for this initiation.
    pub(crate) fn is_answered_by(&self, datagram: &[u8]) -> bool {
        number(datagram, 4).is_ok_and(|number| number == self.local)
    }

    /// The cookie in a datagram that answers this initiation.
    pub(crate) fn cookie(&self, peer: &[u8; 32], datagram: &[u8]) -> Result<[u8; 16]> {
        ensure!(datagram.len() == 52 && datagram[0] == COOKIE, "{datagram:02x?}");
        ensure!(number(datagram, 4)? == self.local, "it answers another initiation");
        let key = hash(&[b"meshnet cookie", peer]);
        let cookie = open_with_nonce(&key, &datagram[8..20], &mac1_of(&self.message)?, &datagram[20..])?;
        Ok(cookie.as_slice().try_into()?)
    }
}

/// What a peer asks for.
pub(crate) struct Asked {
    suite: Suite,
    noise: Responder,
    remote: u32,
    /// Start count and count.
    pub(crate) stamp: (u64, u64),
    pub(crate) ids: Vec<[u8; 8]>,
}

impl Asked {
    pub(crate) fn read(suite: Suite, own: &Key, message: &[u8], cookie: Option<&[u8; 16]>) -> Result<Self> {
        let rest = checked(message, own, cookie)?;
        ensure!(rest[..4] == [INITIATION, suite as u8, 0, 0], "{rest:02x?}");
        let (noise, payload) = Responder::read((suite, &prologue(suite)), own, &rest[8..])?;
        let mut words = payload.chunks_exact(8).map(|word| word.try_into().expect("8 bytes"));
        ensure!(words.len() >= 3 && words.len() <= 6 && payload.len().is_multiple_of(8), "{payload:02x?}");
        let mut integer = || words.next().map(u64::from_le_bytes).unwrap_or_default();
        let stamp = (integer(), integer());
        Ok(Asked { suite, noise, remote: number(rest, 4)?, stamp, ids: words.collect() })
    }

    /// Who asks.
    pub(crate) fn peer(&self) -> [u8; 32] {
        self.noise.peer
    }

    pub(crate) fn answer(self, psk: &[u8; 32], start: u64) -> Result<(Session, Vec<u8>)> {
        let (local, peer) = (fresh(), self.noise.peer);
        let (message, split) = self.noise.answer(&Key::random()?, psk, &start.to_le_bytes())?;
        let head = [RESPONSE, self.suite as u8, 0, 0];
        let numbers = [local.to_le_bytes(), self.remote.to_le_bytes()].concat();
        let message = [&head[..], &numbers, &psk_id(psk), &message].concat();
        Ok((Session::new(self.suite, (local, self.remote), &split, false)?, finish(message, &peer, None)))
    }
}

/// A datagram with a cookie, for the sender of an initiation.
pub(crate) fn give_cookie(own: &Key, cookie: &[u8; 16], initiation: &[u8]) -> Result<Vec<u8>> {
    let (key, nonce) = (hash(&[b"meshnet cookie", &own.public]), random::<12>());
    let sealed = seal_with_nonce(&key, &nonce, &mac1_of(initiation)?, cookie)?;
    let to = number(initiation, 4)?.to_le_bytes();
    Ok([&[COOKIE, 0, 0, 0][..], &to, &nonce, &sealed].concat())
}

fn chacha(key: &[u8; 32]) -> Result<aws_lc_rs::aead::LessSafeKey> {
    let key = aws_lc_rs::aead::UnboundKey::new(&aws_lc_rs::aead::CHACHA20_POLY1305, key);
    Ok(aws_lc_rs::aead::LessSafeKey::new(key.map_err(|_| anyhow!("not a key"))?))
}

fn nonce_of(bytes: &[u8]) -> Result<aws_lc_rs::aead::Nonce> {
    Ok(aws_lc_rs::aead::Nonce::assume_unique_for_key(bytes.try_into()?))
}

fn seal_with_nonce(key: &[u8; 32], nonce: &[u8], ad: &[u8], text: &[u8]) -> Result<Vec<u8>> {
    let (mut text, ad) = (text.to_vec(), aws_lc_rs::aead::Aad::from(ad));
    let sealed = chacha(key)?.seal_in_place_append_tag(nonce_of(nonce)?, ad, &mut text);
    sealed.map_err(|_| anyhow!("it cannot be sealed"))?;
    Ok(text)
}

fn open_with_nonce(key: &[u8; 32], nonce: &[u8], ad: &[u8], sealed: &[u8]) -> Result<Vec<u8>> {
    let (mut text, ad) = (sealed.to_vec(), aws_lc_rs::aead::Aad::from(ad));
    let opened = chacha(key)?.open_in_place(nonce_of(nonce)?, ad, &mut text);
    Ok(opened.map_err(|_| anyhow!("the tag is wrong"))?.to_vec())
}

/// Keys of both directions, by lane.
pub(crate) struct Session {
    suite: Suite,
    pub(crate) local: u32,
    pub(crate) remote: u32,
    seal: Vec<[u8; 32]>,
    open: Vec<[u8; 32]>,
    counters: [u64; 16],
}

/// What was in a sealed frame.
pub(crate) struct Opened {
    pub(crate) lane: u8,
    pub(crate) content: Vec<u8>,
}

impl Session {
    fn new(suite: Suite, (local, remote): (u32, u32), split: &Split, initiator: bool) -> Result<Self> {
        ensure!(remote != 0, "a number of a session is 0");
        let (own, theirs) = match initiator {
            true => (&split.initiator, &split.responder),
            false => (&split.responder, &split.initiator),
        };
        let lanes = |split: &[u8; 32]| (0..16).map(|lane| lane_key(split, lane)).collect::<Result<_>>();
        Ok(Session { suite, local, remote, seal: lanes(own)?, open: lanes(theirs)?, counters: [0; 16] })
    }

    /// A datagram with `content` (nothing: a keepalive), with the next counter of a lane.
    pub(crate) fn seal(&mut self, lane: u8, content: &[u8]) -> Result<Vec<u8>> {
        let counter = self.counters[usize::from(lane)];
        self.counters[usize::from(lane)] += 1;
        self.seal_as(lane, counter, content)
    }

    /// The same with a counter of one's own choice.
    pub(crate) fn seal_as(&self, lane: u8, counter: u64, content: &[u8]) -> Result<Vec<u8>> {
        let head = [SEALED, lane, 0, 0];
        let head = [&head[..], &self.remote.to_le_bytes(), &counter.to_le_bytes()].concat();
        let sealed = self.suite.seal(&self.seal[usize::from(lane)], counter, &head, content)?;
        Ok([head, sealed].concat())
    }

    pub(crate) fn open(&self, datagram: &[u8]) -> Result<Opened> {
        let (head, sealed) = datagram.split_at_checked(16).ok_or_else(|| anyhow!("too short"))?;
        ensure!(head[0] == SEALED && head[1] < 16 && head[2..4] == [0, 0], "{head:02x?}");
        ensure!(number(head, 4)? == self.local, "it is of another session");
        let counter = u64::from_le_bytes(head[8..].try_into()?);
        let content = self.suite.open(&self.open[usize::from(head[1])], counter, head, sealed)?;
        Ok(Opened { lane: head[1], content })
    }
}

/// HKDF-SHA256 of the split key, without salt, for `lane` and the number.
fn lane_key(split: &[u8; 32], lane: u8) -> Result<[u8; 32]> {
    struct Len;
    impl KeyType for Len {
        fn len(&self) -> usize {
            32
        }
    }
    let mut key = [0; 32];
    let extracted = Salt::new(HKDF_SHA256, &[]).extract(split);
    let info = [b"lane", &[lane][..]];
    let okm = extracted.expand(&info, Len).map_err(|_| anyhow!("no key of a lane"))?;
    okm.fill(&mut key).map_err(|_| anyhow!("no key of a lane"))?;
    Ok(key)
}
