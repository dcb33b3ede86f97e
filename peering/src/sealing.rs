//! Whether two hosts seal what their containers send each other: what each wishes, and what comes of it.

use std::fmt;

use crate::records::{Encryption, HostRecord};

/// The number of AES-256-GCM in host records.
pub const AES_256_GCM: u16 = 1;
/// The number of ChaCha20-Poly1305 in host records.
pub const CHACHA20_POLY1305: u16 = 2;

/// What a host wishes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sealing {
    /// As its people put it.
    pub encryption: Encryption,
    /// The suites it can seal with, best first.
    pub suites: Vec<u16>,
    /// The cluster has a secret.
    pub closed: bool,
}

/// What two hosts do with what their containers send each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Agreement {
    /// Neither of them seals.
    Plain,
    /// Both do.
    Sealed,
    /// One of them does.
    Differ,
    /// Both do, and have no suite in common.
    NoSuite,
}

impl Sealing {
    /// True when this host seals.
    pub fn seals(&self) -> bool {
        self.resolve(self.encryption)
    }

    /// What comes of this host's wish and another one's. Both sides come to the same: they have the same secret, or none.
    pub fn with(&self, other: &HostRecord) -> Agreement {
        match (self.seals(), self.resolve(other.encryption)) {
            (false, false) => Agreement::Plain,
            (true, true) if self.suites.iter().any(|suite| other.suites.contains(suite)) => Agreement::Sealed,
            (true, true) => Agreement::NoSuite,
            (true, false) | (false, true) => Agreement::Differ,
        }
    }

    fn resolve(&self, encryption: Encryption) -> bool {
        match encryption {
            Encryption::Off => false,
            Encryption::Auto => self.closed,
            Encryption::On => true,
        }
    }
}

impl fmt::Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Agreement::Plain => "plain",
            Agreement::Sealed => "sealed",
            Agreement::Differ => "differ",
            Agreement::NoSuite => "no_suite",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(encryption: Encryption, closed: bool, suites: &[u16]) -> Sealing {
        Sealing { encryption, suites: suites.to_vec(), closed }
    }

    fn record(wish: &Sealing) -> HostRecord {
        HostRecord {
            noise_key: [1; 32],
            nickname: String::new(),
            version: String::new(),
            data_addrs: vec![],
            control_addrs: vec![],
            suites: wish.suites.clone(),
            encryption: wish.encryption,
            networks: vec![],
            targets: vec![],
        }
    }

    #[test]
    fn both_sides_come_to_the_same() {
        use Encryption::{Auto, Off, On};
        let all = [AES_256_GCM, CHACHA20_POLY1305];
        for closed in [false, true] {
            for (here, there, expected) in [
                (Off, Off, Agreement::Plain),
                (On, On, Agreement::Sealed),
                (On, Off, Agreement::Differ),
                (Auto, Auto, if closed { Agreement::Sealed } else { Agreement::Plain }),
                (Auto, On, if closed { Agreement::Sealed } else { Agreement::Differ }),
                (Auto, Off, if closed { Agreement::Differ } else { Agreement::Plain }),
            ] {
                let (here, there) = (wish(here, closed, &all), wish(there, closed, &all[1..]));
                assert_eq!(here.with(&record(&there)), expected, "{here:?} {there:?}");
                assert_eq!(there.with(&record(&here)), expected, "{there:?} {here:?}");
            }
        }
        let (aes, chacha) = (wish(On, false, &all[..1]), wish(On, false, &all[1..]));
        assert_eq!(aes.with(&record(&chacha)), Agreement::NoSuite);
    }
}
