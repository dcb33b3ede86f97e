//! What keeps a flood of handshakes cheap: two keyed hashes at the end of each, checked before any arithmetic with keys.
//!
//! MAC1 shows that the sender knows whom it talks to. MAC2 shows that it receives at the address it sends from: it is keyed
//! with a cookie, which a host under load sends back instead of an answer. (The scheme is that of WireGuard, section 5.4.7
//! of its paper.)

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use blake2::digest::{KeyInit, Mac};
use blake2::{Blake2s256, Blake2sMac, Digest};
use zeroize::Zeroizing;

use super::noise::KEY_LEN;
use crate::wire::sealed::{COOKIE, INITIATION, RESPONSE, TAG_LEN};

/// Bytes of each of the two hashes, and of a cookie.
pub const MAC_LEN: usize = 16;
/// Both, at the end of each handshake message.
pub const MACS_LEN: usize = 2 * MAC_LEN;
/// Bytes of a cookie datagram.
pub const COOKIE_LEN: usize = 8 + NONCE_LEN + MAC_LEN + TAG_LEN;
/// A host's cookies hold so long, and are used by their receiver no longer.
pub const COOKIE_LIFE: Duration = Duration::from_secs(120);

/// What a host gave: it stands for one sender's address.
#[derive(Clone)]
pub struct Cookie(Zeroizing<[u8; MAC_LEN]>);

/// The keys of one host's MAC1 and cookies, which all who know its public key can make.
pub struct MacKeys {
    /// Hashes that have taken in the key and the type of a message, a third of the work for each one that is checked.
    initiation: Tag,
    response: Tag,
    cookie: LessSafeKey,
}

impl MacKeys {
    /// Of the host that receives.
    pub fn of(receiver: &[u8; KEY_LEN]) -> Self {
        let hash = |label: &[u8]| Blake2s256::new_with_prefix(label).chain_update(receiver).finalize();
        #[expect(clippy::expect_used, reason = "its only error is a wrong length")]
        let cookie =
            UnboundKey::new(&CHACHA20_POLY1305, &hash(b"meshnet cookie")).expect("BLAKE2s gives 32 bytes");
        let key = hash(b"meshnet mac1");
        let [initiation, response] = [INITIATION, RESPONSE].map(|kind| mac(&key, &[kind]));
        MacKeys { initiation, response, cookie: LessSafeKey::new(cookie) }
    }

    /// The hash of a message of either type; none of another one.
    fn mac1(&self, message: &[u8]) -> Option<Tag> {
        let (kind, rest) = message.split_first()?;
        let begun = match *kind {
            INITIATION => &self.initiation,
            RESPONSE => &self.response,
            _ => return None,
        };
        Some(begun.clone().chain_update(rest))
    }

    /// Puts both hashes behind an initiation or a response; without a cookie the second is zero.
    pub fn finish(&self, message: &mut Vec<u8>, cookie: Option<&Cookie>) {
        let mac1 = self.mac1(message).map(|mac| mac.finalize().into_bytes());
        message.extend_from_slice(&mac1.unwrap_or_default());
        let mac2 = cookie.map(|cookie| mac(&cookie.0[..], message).finalize().into_bytes());
        message.extend_from_slice(&mac2.unwrap_or_default());
    }

    /// True when MAC1 of an initiation or a response is right. Costs one hash of the message, and no memory.
    pub fn is_meant_for_us(&self, message: &[u8]) -> bool {
        let Some((rest, macs)) = message.split_last_chunk::<MACS_LEN>() else { return false };
        self.mac1(rest).is_some_and(|mac| mac.verify_slice(&macs[..MAC_LEN]).is_ok())
    }

    /// A datagram with `cookie`, for the sender of a handshake message. `nonce` from a good generator.
    pub fn give(&self, to: u32, cookie: &Cookie, message: &[u8], nonce: [u8; NONCE_LEN]) -> Option<Vec<u8>> {
        let mac1 = mac1_of(message)?;
        let mut sealed = cookie.0.to_vec();
        let aad = Aad::from(mac1);
        self.cookie.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed).ok()?;
        Some([&[COOKIE, 0, 0, 0][..], &to.to_le_bytes(), &nonce, &sealed].concat())
    }

    /// The cookie in a datagram that answers a message whose MAC1 was `mac1`.
    pub fn take(&self, datagram: &[u8], mac1: [u8; MAC_LEN]) -> Option<Cookie> {
        let datagram: &[u8; COOKIE_LEN] = datagram.try_into().ok()?;
        let (head, sealed) = datagram.split_at(8 + NONCE_LEN);
        let nonce = head.last_chunk::<NONCE_LEN>()?;
        let mut sealed = Zeroizing::new(sealed.to_vec());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let cookie = self.cookie.open_in_place(nonce, Aad::from(mac1), &mut sealed).ok()?;
        Some(Cookie(Zeroizing::new((&*cookie).try_into().ok()?)))
    }
}

/// MAC1 of a finished message.
pub fn mac1_of(message: &[u8]) -> Option<[u8; MAC_LEN]> {
    message.split_last_chunk::<MACS_LEN>().and_then(|(_, macs)| macs.first_chunk().copied())
}

/// What a host under load checks addresses with. Its secret changes; one that was before still counts for a while.
pub struct CookieJar {
    secret: Zeroizing<[u8; 32]>,
    former: Zeroizing<[u8; 32]>,
    since: Instant,
}

impl CookieJar {
    /// `secret` from a good generator.
    pub fn new(now: Instant, secret: [u8; 32]) -> Self {
        CookieJar { secret: Zeroizing::new(secret), former: Zeroizing::new(secret), since: now }
    }

    /// True when the secret is to be changed by [`Self::change`].
    pub fn is_stale(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= COOKIE_LIFE
    }

    /// Goes on with a new secret.
    pub fn change(&mut self, now: Instant, secret: [u8; 32]) {
        self.former = std::mem::replace(&mut self.secret, Zeroizing::new(secret));
        self.since = now;
    }

    /// The cookie of an address.
    pub fn cookie(&self, of: SocketAddr) -> Cookie {
        Self::cookie_under(&self.secret, of)
    }

    /// True when MAC2 shows that the sender has got its cookie.
    pub fn knows(&self, from: SocketAddr, message: &[u8]) -> bool {
        let Some((rest, mac2)) = message.split_last_chunk::<MAC_LEN>() else { return false };
        let keyed = |secret| mac(&Self::cookie_under(secret, from).0[..], rest).verify_slice(mac2).is_ok();
        keyed(&self.secret) || keyed(&self.former)
    }

    fn cookie_under(secret: &[u8; 32], of: SocketAddr) -> Cookie {
        let ip = match of.ip() {
            std::net::IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            std::net::IpAddr::V6(ip) => ip,
        };
        let cookie = mac(secret, &ip.octets()).chain_update(of.port().to_le_bytes()).finalize().into_bytes();
        Cookie(Zeroizing::new(cookie.into()))
    }
}

/// BLAKE2s with a key and 16 bytes of output (RFC 7693).
type Tag = Blake2sMac<blake2::digest::consts::U16>;

fn mac(key: &[u8], content: &[u8]) -> Tag {
    #[expect(clippy::expect_used, reason = "its only error is a wrong length")]
    let mac = <Tag as KeyInit>::new_from_slice(key)
        .expect("keys here have 16 or 32 bytes, and BLAKE2s takes up to 32");
    mac.chain_update(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: [u8; 32] = [3; 32];

    fn message(cookie: Option<&Cookie>) -> Vec<u8> {
        let mut message = [&[INITIATION][..], b"some handshake"].concat();
        MacKeys::of(&US).finish(&mut message, cookie);
        message
    }

    #[test]
    fn a_message_for_somebody_else_or_changed_on_the_way_is_told_apart() {
        let keys = MacKeys::of(&US);
        let message = message(None);
        assert!(keys.is_meant_for_us(&message));
        assert!(!MacKeys::of(&[4; 32]).is_meant_for_us(&message));
        for at in 0..message.len() - MAC_LEN {
            let mut bent = message.clone();
            bent[at] ^= 1;
            assert!(!keys.is_meant_for_us(&bent), "byte {at}");
        }
        assert!(!keys.is_meant_for_us(&message[..20]));
        let mut response = [&[RESPONSE][..], b"some handshake"].concat();
        keys.finish(&mut response, None);
        assert!(keys.is_meant_for_us(&response) && mac1_of(&response) != mac1_of(&message));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any moment will do")]
    fn a_cookie_is_good_for_its_address_and_its_time() {
        let (now, keys) = (Instant::now(), MacKeys::of(&US));
        let mut jar = CookieJar::new(now, [1; 32]);
        let (here, there) = ("192.0.2.1:4789".parse().unwrap(), "192.0.2.2:4789".parse().unwrap());
        let first = message(None);
        assert!(!jar.knows(here, &first));
        let reply = keys.give(7, &jar.cookie(here), &first, [9; NONCE_LEN]).unwrap();
        assert_eq!((reply.len(), reply[0], &reply[4..8]), (COOKIE_LEN, COOKIE, &[7, 0, 0, 0][..]));
        assert!(keys.take(&reply, [0; MAC_LEN]).is_none(), "it answers another message");
        for at in 8..reply.len() {
            let mut bent = reply.clone();
            bent[at] ^= 1;
            assert!(keys.take(&bent, mac1_of(&first).unwrap()).is_none(), "byte {at}");
            assert!(keys.take(&reply[..at], mac1_of(&first).unwrap()).is_none(), "{at} bytes");
        }
        let cookie = keys.take(&reply, mac1_of(&first).unwrap()).unwrap();
        let second = message(Some(&cookie));
        assert!(keys.is_meant_for_us(&second) && jar.knows(here, &second) && !jar.knows(there, &second));
        assert!(!jar.is_stale(now) && jar.is_stale(now + COOKIE_LIFE));
        jar.change(now, [2; 32]);
        assert!(jar.knows(here, &second));
        jar.change(now, [3; 32]);
        assert!(!jar.knows(here, &second));
    }
}
