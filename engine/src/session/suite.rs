//! The two suites, and which of them two hosts use.

/// A cipher for frames, and the Noise protocol that agrees on its keys.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Suite {
    /// AES-256-GCM: where the processor has instructions for it, three times as fast as the other.
    AesGcm,
    /// ChaCha20-Poly1305: fast everywhere, and without tables in memory.
    ChaChaPoly,
}

impl Suite {
    /// Both.
    pub const ALL: [Suite; 2] = [Suite::AesGcm, Suite::ChaChaPoly];

    /// Its number in host records and handshakes.
    pub const fn number(self) -> u8 {
        match self {
            Suite::AesGcm => 1,
            Suite::ChaChaPoly => 2,
        }
    }

    /// The suite of a number.
    pub fn of_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| suite.number() == number)
    }

    /// Its name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Suite::AesGcm => "aes-256-gcm",
            Suite::ChaChaPoly => "chacha20-poly1305",
        }
    }

    /// The suites of a host in its order, best first.
    pub const fn by_preference(has_aes_instructions: bool) -> [Suite; 2] {
        if has_aes_instructions {
            [Suite::AesGcm, Suite::ChaChaPoly]
        } else {
            [Suite::ChaChaPoly, Suite::AesGcm]
        }
    }

    /// What two hosts use, by their lists, best first; the same whichever of them asks. AES-GCM only where both prefer it:
    /// without instructions for it, it is slow, and not safe against whoever measures time.
    pub fn choose(ours: &[Suite], theirs: &[Suite]) -> Option<Suite> {
        let both = |suite: &Suite| ours.contains(suite) && theirs.contains(suite);
        match (ours.first()?, theirs.first()?) {
            (first, other) if first == other => Some(*first),
            _ => [Suite::ChaChaPoly, Suite::AesGcm].into_iter().find(both),
        }
    }

    /// The name of its Noise protocol (noiseprotocol.org, revision 34, section 8).
    pub(super) const fn protocol(self) -> &'static str {
        match self {
            Suite::AesGcm => "Noise_IKpsk2_25519_AESGCM_BLAKE2s",
            Suite::ChaChaPoly => "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Suite::{self, AesGcm, ChaChaPoly};

    #[test]
    fn both_sides_choose_alike() {
        let lists: [&[Suite]; 4] = [&[AesGcm, ChaChaPoly], &[ChaChaPoly, AesGcm], &[AesGcm], &[ChaChaPoly]];
        for (ours, theirs) in lists.iter().flat_map(|ours| lists.iter().map(move |theirs| (ours, theirs))) {
            assert_eq!(Suite::choose(ours, theirs), Suite::choose(theirs, ours));
        }
        assert_eq!(Suite::choose(lists[0], lists[0]), Some(AesGcm));
        assert_eq!(Suite::choose(lists[0], lists[1]), Some(ChaChaPoly));
        assert_eq!(Suite::choose(lists[1], lists[2]), Some(AesGcm));
        assert_eq!(Suite::choose(lists[2], lists[3]), None);
        assert_eq!(Suite::choose(&[], lists[0]), None);
    }

    #[test]
    fn numbers_are_kept() {
        assert_eq!(Suite::ALL.map(Suite::number), [1, 2]);
        assert_eq!([0, 1, 2, 3].map(Suite::of_number), [None, Some(AesGcm), Some(ChaChaPoly), None]);
    }
}
