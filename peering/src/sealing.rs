//! Whether two hosts seal what their containers send each other: what each wishes, and what comes of it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use engine::types::IpPrefix;
use ipnet::IpNet;

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
    /// The subnets of the underlay where frames need no seal.
    pub trusted: Vec<IpNet>,
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

/// Whether two hosts that seal may leave it between them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trust {
    /// Neither of them trusts the underlay between them.
    Neither,
    /// Both do.
    Both,
    /// One of them does, or each another part of it: frames stay sealed.
    Differ,
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

    /// The subnets that this host and another one both trust; none unless both seal. Both sides come to the same.
    pub fn trusted_with(&self, other: &HostRecord) -> Vec<IpPrefix> {
        if self.with(other) != Agreement::Sealed {
            return Vec::new();
        }
        let pairs = self.trusted.iter().flat_map(|own| other.trusted.iter().map(move |theirs| (own, theirs)));
        let common = pairs.filter_map(|(own, theirs)| match (own.contains(theirs), theirs.contains(own)) {
            (true, _) => Some(theirs),
            (false, true) => Some(own),
            (false, false) => None,
        });
        let mut common: Vec<_> =
            common.map(|net| IpPrefix { addr: net.network(), len: net.prefix_len() }).collect();
        common.sort_unstable();
        common.dedup();
        common
    }

    /// Whether this host, which advertises the addresses `own`, and another one trust the underlay between them. That is by
    /// what they say of themselves; frames go by the addresses in use.
    pub fn trust(&self, own: &[SocketAddr], other: &HostRecord) -> Trust {
        let both_in = |holds: &dyn Fn(IpAddr) -> bool| {
            let any = |addrs: &[SocketAddr]| addrs.iter().any(|addr| holds(addr.ip().to_canonical()));
            any(own) && any(&other.data_addrs)
        };
        let in_list = |list: &[IpNet]| both_in(&|ip| list.iter().any(|net| net.contains(&ip)));
        let common = self.trusted_with(other);
        if both_in(&|ip| common.iter().any(|prefix| prefix.contains(ip))) {
            return Trust::Both;
        }
        let sealed = self.with(other) == Agreement::Sealed;
        let either = in_list(&self.trusted) || in_list(&other.trusted);
        if sealed && either { Trust::Differ } else { Trust::Neither }
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

impl fmt::Display for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Trust::Neither => "neither",
            Trust::Both => "both",
            Trust::Differ => "differ",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(encryption: Encryption, closed: bool, suites: &[u16]) -> Sealing {
        Sealing { encryption, suites: suites.to_vec(), trusted: vec![], closed }
    }

    fn trusting(subnets: &[&str]) -> Sealing {
        let trusted = subnets.iter().map(|net| net.parse().unwrap()).collect();
        Sealing { trusted, ..wish(Encryption::On, false, &[AES_256_GCM]) }
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
            trusted: wish.trusted.clone(),
            secrets: vec![],
        }
    }

    /// What two hosts with these lists make of each other, at 192.0.2.1 and 192.0.2.2.
    fn trust(here: &[&str], there: &[&str]) -> (Trust, Vec<String>) {
        let (here, there) = (trusting(here), trusting(there));
        let [at, to] = [1, 2].map(|host| vec![SocketAddr::from(([192, 0, 2, host], 4789))]);
        let (ours, theirs) = (record(&here), record(&there));
        let ours = HostRecord { data_addrs: at.clone(), ..ours };
        let theirs = HostRecord { data_addrs: to.clone(), ..theirs };
        let said = here.trust(&at, &theirs);
        assert_eq!(there.trust(&to, &ours), said, "both sides come to the same");
        assert_eq!(there.trusted_with(&ours), here.trusted_with(&theirs), "and trust the same");
        (said, here.trusted_with(&theirs).iter().map(ToString::to_string).collect())
    }

    #[test]
    fn only_what_both_trust_is_trusted() {
        let of = |said, common: &[&str]| (said, common.iter().map(|&net| net.to_owned()).collect::<Vec<_>>());
        assert_eq!(trust(&[], &[]), of(Trust::Neither, &[]));
        assert_eq!(trust(&["192.0.2.0/24"], &["192.0.2.0/24"]), of(Trust::Both, &["192.0.2.0/24"]));
        assert_eq!(trust(&["192.0.2.0/24"], &[]), of(Trust::Differ, &[]));
        assert_eq!(trust(&["0.0.0.0/0"], &["192.0.2.0/29", "fd00::/8"]), of(Trust::Both, &["192.0.2.0/29"]));
        // Each trusts both addresses, but not in the same words: the smaller counts, and it holds one alone.
        assert_eq!(trust(&["192.0.2.0/24"], &["192.0.2.0/31", "192.0.2.2/31"]).0, Trust::Both);
        assert_eq!(trust(&["192.0.2.0/24"], &["192.0.2.2/32"]), of(Trust::Differ, &["192.0.2.2/32"]));
        assert_eq!(trust(&["198.51.100.0/24"], &["198.51.100.0/24"]).0, Trust::Neither);
    }

    #[test]
    fn nothing_is_trusted_where_nothing_is_sealed() {
        let open = Sealing { encryption: Encryption::Off, ..trusting(&["0.0.0.0/0"]) };
        let sealed = trusting(&["0.0.0.0/0"]);
        for (here, there) in [(&open, &open), (&open, &sealed), (&sealed, &open)] {
            assert_eq!(here.trusted_with(&record(there)), []);
            assert_eq!(here.trust(&[], &record(there)), Trust::Neither);
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
