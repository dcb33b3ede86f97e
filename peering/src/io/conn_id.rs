//! QUIC connection ids that their host recognizes, also after a restart.
//!
//! An id is four random bytes and a keyed hash of them. A packet with any other id is none of ours; a packet
//! of a connection from before a restart still is, and is answered with a stateless reset (RFC 9000 section 10.3),
//! so that the peer learns of the restart at its next keep-alive.

use std::time::Duration;

use blake2::Blake2sMac;
use blake2::digest::consts::U4;
use blake2::digest::{FixedOutput, KeyInit, Update};
use quinn::{ConnectionId, ConnectionIdGenerator};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// The length of our connection ids in bytes.
pub(super) const CID_LEN: usize = 8;
const RANDOM_LEN: usize = 4;

/// Recognizes the connection ids of this host.
#[derive(Clone)]
pub(super) struct ConnIds {
    keyed: Blake2sMac<U4>,
}

impl ConnIds {
    pub(super) fn new(key: [u8; 32]) -> Self {
        ConnIds { keyed: Blake2sMac::new(&key.into()) }
    }

    /// True for an id that was made with this key.
    pub(super) fn made(&self, id: &[u8; CID_LEN]) -> bool {
        let (random, tag) = id.split_at(RANDOM_LEN);
        self.tag(random) == tag
    }

    fn tag(&self, random: &[u8]) -> [u8; CID_LEN - RANDOM_LEN] {
        self.keyed.clone().chain(random).finalize_fixed().into()
    }
}

impl std::fmt::Debug for ConnIds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ConnIds")
    }
}

/// Makes connection ids.
pub(super) struct ConnIdSource {
    ids: ConnIds,
    rng: StdRng,
}

impl ConnIdSource {
    pub(super) fn new(ids: ConnIds, seed: [u8; 32]) -> Self {
        ConnIdSource { ids, rng: StdRng::from_seed(seed) }
    }
}

impl ConnectionIdGenerator for ConnIdSource {
    fn generate_cid(&mut self) -> ConnectionId {
        let random: [u8; RANDOM_LEN] = self.rng.random();
        ConnectionId::new(&[random, self.ids.tag(&random)].concat())
    }

    fn cid_len(&self) -> usize {
        CID_LEN
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_ids_are_recognized_and_others_are_not() {
        let ids = ConnIds::new([7; 32]);
        let id = ConnIdSource::new(ids.clone(), [1; 32]).generate_cid();
        let id: [u8; CID_LEN] = id[..].try_into().unwrap();
        assert!(ids.made(&id) && ConnIds::new([7; 32]).made(&id));
        assert!(!ConnIds::new([8; 32]).made(&id) && !ids.made(&[0x55; CID_LEN]));
    }
}
