//! The secret that all hosts of a closed cluster mix into their handshakes.

use blake2::{Blake2s256, Digest};
use zeroize::Zeroizing;

/// Bytes of a pre-shared key (Noise section 9).
pub const PSK_LEN: usize = 32;

/// A pre-shared key of the data plane.
#[derive(Clone)]
pub struct Psk(Zeroizing<[u8; PSK_LEN]>);

/// Names a key without telling it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PskId(pub [u8; 8]);

impl Psk {
    /// A key that the control plane has derived from the cluster's secret.
    pub fn new(bytes: [u8; PSK_LEN]) -> Self {
        Psk(Zeroizing::new(bytes))
    }

    /// What an open cluster uses, where whoever peers may read.
    pub fn open() -> Self {
        Psk::new([0; PSK_LEN])
    }

    /// Its name: 8 bytes of BLAKE2s.
    pub fn id(&self) -> PskId {
        let hash = Blake2s256::new_with_prefix(b"meshnet psk id").chain_update(&self.0[..]).finalize();
        let mut id = [0; 8];
        id.copy_from_slice(&hash[..8]);
        PskId(id)
    }

    pub(super) fn bytes(&self) -> &[u8; PSK_LEN] {
        &self.0
    }
}

impl std::fmt::Debug for Psk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Psk({:?})", self.id())
    }
}
