//! What a host is told at its start, and how a peer is named by people.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use engine::types::PeerId;
use ipnet::Ipv4Net;

use crate::identity::Identity;
use crate::keyring::Keyring;
use crate::sealing::Sealing;

/// The UDP port of peering when none is named.
pub const DEFAULT_PORT: u16 = 6783;

/// The UDP port of the data plane when none is named (RFC 7348 section 5).
pub const DEFAULT_DATA_PORT: u16 = 4789;

/// How long a host is down before its space may be taken, when nobody says otherwise.
pub const DEFAULT_RECLAIM_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// Silence after which a packet is sent to keep a connection and the NAT entries on its way.
/// Twice within [`IDLE_TIMEOUT`], and each is sent again until it is acknowledged.
pub const KEEP_ALIVE: Duration = Duration::from_millis(4_500);
/// Silence after which a connection is dead.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Everything a [`Mesh`](super::Mesh) is told once, at its start.
pub struct MeshConfig {
    /// The keys of this host.
    pub identity: Identity,
    /// Its name for people.
    pub nickname: String,
    /// The version of the program, shown to the other hosts.
    pub version: String,
    /// Drawn at random at each start: tells a restarted host from a second connection.
    pub boot_nonce: u64,
    /// The UDP port of peering.
    pub port: u16,
    /// The UDP port of the data plane.
    pub data_port: u16,
    /// Addresses at which peering may be reached, best first.
    pub advertise: Vec<SocketAddr>,
    /// Addresses at which the data plane may be reached, configured ones first.
    pub data_addrs: Vec<SocketAddr>,
    /// The peers named by people.
    pub targets: Vec<Target>,
    /// The range of the network `mesh`, used if this host founds.
    pub range: Ipv4Net,
    /// The range was given by somebody, not the default: a differing cluster is worth a notice.
    pub range_given: bool,
    /// The largest packet of the network `mesh` in bytes, used if this host founds.
    pub mtu: u16,
    /// How long a host is down before its space may be taken, used if this host founds.
    pub reclaim_after: Duration,
    /// Connect to hosts that were learnt from others, not only to targets.
    pub discovery: bool,
    /// Found the cluster without asking anybody.
    pub found: bool,
    /// The keys are older than anything on the disk: this host lived before, and only others remember how.
    pub forgot: bool,
    /// The secrets that it takes; none in an open cluster.
    pub keyring: Keyring,
    /// The only hosts to talk to, if people named them.
    pub allowed: Option<BTreeSet<PeerId>>,
    /// What this host wishes to be done with what its containers send.
    pub sealing: Sealing,
    /// Seeds every choice made at random.
    pub seed: [u8; 32],
}

/// A peer as people name it: `HOST[:PORT]`, an IPv6 address with a port in brackets.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Target {
    /// A name or an IP address, without brackets.
    pub host: String,
    /// The UDP port of peering there.
    pub port: u16,
}

/// The text does not name a peer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text:?} does not name a peer: {reason}")]
pub struct ParseTargetError {
    /// What was given.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl FromStr for Target {
    type Err = ParseTargetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        split(text).map_err(|reason| ParseTargetError { text: text.to_owned(), reason })
    }
}

fn split(text: &str) -> Result<Target, &'static str> {
    if text.parse::<Ipv6Addr>().is_ok() {
        return Ok(Target { host: text.to_owned(), port: DEFAULT_PORT });
    }
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => bracketed(rest)?,
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map_or(Ok(DEFAULT_PORT), |port| {
        port.parse::<u16>().ok().filter(|&port| port != 0).ok_or("the port is not a number from 1 to 65535")
    })?;
    check_host(host)?;
    Ok(Target { host: host.to_owned(), port })
}

fn bracketed(rest: &str) -> Result<(&str, Option<&str>), &'static str> {
    let (host, tail) = rest.split_once(']').ok_or("the bracket is not closed")?;
    host.parse::<Ipv6Addr>().map_err(|_| "brackets are for an IPv6 address")?;
    match tail {
        "" => Ok((host, None)),
        _ => tail.strip_prefix(':').map(|port| (host, Some(port))).ok_or("text after the bracket"),
    }
}

fn check_host(host: &str) -> Result<(), &'static str> {
    let allowed = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    match host {
        "" => Err("the host is empty"),
        _ if host.len() > 253 => Err("the host is longer than a name may be"),
        _ if !host.chars().all(allowed) => Err("a character that no host name has"),
        _ => Ok(()),
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.host.contains(':'), self.port) {
            (false, DEFAULT_PORT) => f.write_str(&self.host),
            (false, port) => write!(f, "{}:{port}", self.host),
            (true, DEFAULT_PORT) => f.write_str(&self.host),
            (true, port) => write!(f, "[{}]:{port}", self.host),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_round_trip_and_refuse_nonsense() {
        for (text, host, port) in [
            ("node01", "node01", 6783),
            ("node01:6000", "node01", 6000),
            ("10.0.0.1", "10.0.0.1", 6783),
            ("fd00::1", "fd00::1", 6783),
            ("[fd00::1]:7000", "fd00::1", 7000),
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!((target.host.as_str(), target.port), (host, port));
            assert_eq!(target.to_string(), text);
        }
        for wrong in ["", ":1", "a:0", "a:b", "a:70000", "[fd00::1", "[name]:1", "[fd00::1]x", "a b", "a/b"] {
            assert!(wrong.parse::<Target>().is_err(), "{wrong}");
        }
    }
}
