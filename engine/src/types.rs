//! The words both planes share: addresses, numbers and names of things.
//!
//! Standard library only. This is the one module of the engine that `peering` uses.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// A 48-bit Ethernet address, in wire order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// All ones: every station of the segment (IEEE 802.3 section 3.2.3).
    pub const BROADCAST: MacAddr = MacAddr([0xff; 6]);

    /// True for broadcast and multicast addresses: the group bit is the lowest of the first octet.
    pub const fn is_group(self) -> bool {
        self.0[0] & 0x01 != 0
    }

    /// True for the all-zero address, which no station has.
    pub const fn is_zero(self) -> bool {
        matches!(self.0, [0, 0, 0, 0, 0, 0])
    }

    /// The same bytes as a unicast, locally administered address (IEEE 802 section 8.4).
    pub const fn local(mut octets: [u8; 6]) -> Self {
        octets[0] = (octets[0] & 0xfc) | 0x02;
        MacAddr(octets)
    }

    /// The address every host gives the gateway of the network `vni`: `02:6d:65` and the VNI.
    pub const fn gateway(vni: Vni) -> Self {
        let [_, a, b, c] = vni.get().to_be_bytes();
        MacAddr([0x02, 0x6d, 0x65, a, b, c])
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MacAddr {
    type Err = ParseTypeError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseTypeError { what: "MAC address", text: s.to_owned() };
        let mut octets = [0; 6];
        let mut parts = s.split(':');
        for octet in &mut octets {
            let part = parts.next().filter(|p| p.len() == 2).ok_or_else(wrong)?;
            *octet = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() { Err(wrong()) } else { Ok(MacAddr(octets)) }
    }
}

/// A VXLAN network identifier, 24 bits (RFC 7348 section 5).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Vni(u32);

impl Vni {
    /// The number of the network `mesh` in every cluster.
    pub const MESH: Vni = Vni(1);
    /// The largest number the header can carry.
    pub const MAX: u32 = 0x00ff_ffff;

    /// Checks that `number` fits the 24 bits of the header.
    pub const fn new(number: u32) -> Option<Self> {
        if number <= Self::MAX { Some(Vni(number)) } else { None }
    }

    /// The plain number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A value could not be read from its text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ParseTypeError {
    /// What was expected.
    pub what: &'static str,
    /// What was given.
    pub text: String,
}

impl fmt::Display for ParseTypeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a valid {}", self.text, self.what)
    }
}

impl std::error::Error for ParseTypeError {}

/// A fixed-width identifier that is shown as lower-case hex digits.
macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $len:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub [u8; $len]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseTypeError;

            fn from_str(s: &str) -> Result<Self, Self::Err> {
                parse_hex(s).map($name).ok_or_else(|| ParseTypeError { what: $what, text: s.to_owned() })
            }
        }
    };
}

hex_id! {
    /// Who a host is: the first 16 bytes of BLAKE2s of its Ed25519 public key.
    PeerId, 16, "peer id"
}
hex_id! {
    /// A place where frames enter or leave the switch of one host, and the id of the endpoint behind it.
    /// Drawn at random by the host that owns it; the interface alias is `meshnet:<port id>`.
    PortId, 8, "port id"
}
hex_id! {
    /// A network, in every cluster and on every host: 32 random bytes, or BLAKE2s("mesh") for `mesh`.
    NetworkId, 32, "network id"
}

fn parse_hex<const N: usize>(s: &str) -> Option<[u8; N]> {
    if s.len() != 2 * N || !s.is_ascii() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, digits) in bytes.iter_mut().zip(s.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// The order of claims on a MAC address: the higher version wins, then the lower peer id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Claim {
    /// One above the highest version that the claiming host had seen for this MAC.
    pub version: u64,
    /// The host that claims the MAC.
    pub peer: PeerId,
}

impl Claim {
    /// True when `self` wins against `other`.
    pub fn beats(self, other: Claim) -> bool {
        (self.version, std::cmp::Reverse(self.peer)) > (other.version, std::cmp::Reverse(other.peer))
    }
}

/// Who has names on a network: an endpoint, or an entry that people made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Holder {
    /// The host that says so.
    pub peer: PeerId,
    /// The endpoint's port id, or the id of the entry.
    pub id: [u8; 8],
}

/// Where a pinned MAC address lives.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Location {
    /// Behind a port of this host.
    Port(PortId),
    /// On another host.
    Peer(PeerId),
}

/// What a host needs of another one to have sealed sessions with it, from its signed record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerKeys {
    /// Its X25519 public key.
    pub noise: [u8; 32],
    /// The suites it can seal with, best first, by their numbers (1: AES-256-GCM, 2: ChaCha20-Poly1305).
    pub suites: Vec<u16>,
}

/// An IPv4-mapped IPv6 address as the IPv4 address it stands for; any other address as it is.
///
/// Dual-stack sockets report IPv4 senders in the mapped form; tables hold the canonical one.
pub fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// An address and the length of the prefix it is configured with, shown as `10.32.0.2/12`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct IpPrefix {
    /// The address itself, host bits included.
    pub addr: IpAddr,
    /// The prefix length in bits.
    pub len: u8,
}

impl IpPrefix {
    /// True when `ip` has the first bits of the prefix. IPv4-mapped addresses count as the IPv4 addresses they stand for.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.addr, ip.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(ip)) => {
                let shift = 32_u32.saturating_sub(self.len.into());
                (own.to_bits() ^ ip.to_bits()).checked_shr(shift).is_none_or(|differing| differing == 0)
            }
            (IpAddr::V6(own), IpAddr::V6(ip)) => {
                let shift = 128_u32.saturating_sub(self.len.into());
                (own.to_bits() ^ ip.to_bits()).checked_shr(shift).is_none_or(|differing| differing == 0)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl fmt::Display for IpPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_macs_round_trip_through_text() {
        let mac: MacAddr = "02:6d:65:00:00:01".parse().unwrap();
        assert_eq!(mac, MacAddr::gateway(Vni::MESH));
        assert_eq!(mac.to_string(), "02:6d:65:00:00:01");
        let peer: PeerId = "000102030405060708090a0b0c0d0e0f".parse().unwrap();
        assert_eq!(peer.to_string(), "000102030405060708090a0b0c0d0e0f");
        assert!("02:6d:65:00:00".parse::<MacAddr>().is_err());
        assert!("+1:6d:65:00:00:01:02".parse::<MacAddr>().is_err());
        assert!("zz".parse::<PortId>().is_err());
    }

    #[test]
    fn a_prefix_contains_what_begins_like_it() {
        let prefix = |addr: &str, len| IpPrefix { addr: addr.parse().unwrap(), len };
        let has = |prefix: IpPrefix, ip: &str| prefix.contains(ip.parse().unwrap());
        assert!(has(prefix("192.0.2.0", 24), "192.0.2.255") && !has(prefix("192.0.2.0", 24), "192.0.3.0"));
        assert!(has(prefix("192.0.2.7", 32), "192.0.2.7") && !has(prefix("192.0.2.7", 32), "192.0.2.6"));
        assert!(has(prefix("10.1.2.3", 8), "::ffff:10.9.9.9"), "host bits count for nothing");
        assert!(has(prefix("0.0.0.0", 0), "198.51.100.1") && !has(prefix("0.0.0.0", 0), "fd00::1"));
        assert!(has(prefix("fd00::", 8), "fdff::1") && !has(prefix("fd00::", 8), "fe00::1"));
        assert!(has(prefix("::", 0), "fd00::1") && !has(prefix("::", 0), "192.0.2.1"));
    }

    #[test]
    fn a_claim_is_decided_by_version_then_by_the_lower_peer() {
        let claim = |version, peer| Claim { version, peer: PeerId([peer; 16]) };
        assert!(claim(2, 9).beats(claim(1, 1)));
        assert!(claim(1, 1).beats(claim(1, 9)));
        assert!(!claim(1, 9).beats(claim(1, 9)));
    }
}
