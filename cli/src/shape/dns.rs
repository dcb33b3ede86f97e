//! Names: what people give and take back, what they look up, and how they are answered.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// `dns-add`; what it prints too.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct DnsAddRequest {
    pub(crate) name: String,
    pub(crate) network: String,
    pub(crate) addresses: Vec<IpAddr>,
    /// As `_http._tcp`, and the port.
    #[serde(default)]
    pub(crate) services: Vec<(String, u16)>,
}

/// `dns-remove`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct DnsRemoveRequest {
    pub(crate) name: String,
    pub(crate) network: String,
}

/// Answer to `dns-remove`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct DnsRemoved {
    pub(crate) name: String,
    pub(crate) network: String,
    /// False when nobody had given it.
    pub(crate) removed: bool,
}

/// `dns-lookup`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct LookupRequest {
    /// A name or an address.
    pub(crate) what: String,
    pub(crate) network: String,
}

/// Answer to `dns-lookup`: addresses of a name, or names of an address.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct LookedUp {
    pub(crate) network: String,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) names: Vec<String>,
}

/// How names are answered.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct DnsStatus {
    pub(crate) domain: String,
    /// How long answers about names of the overlay may be kept, in seconds.
    pub(crate) ttl_s: u32,
    /// The name servers of this host.
    pub(crate) upstreams: Vec<IpAddr>,
    pub(crate) forwarded: DnsForwarded,
    /// The names that are answered.
    pub(crate) names: Vec<DnsName>,
}

/// Questions about other names, since the start.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct DnsForwarded {
    /// Those that were answered.
    pub(crate) answered: u64,
    /// Those to which nobody had an answer.
    pub(crate) failed: u64,
    /// Those for which there was no room.
    pub(crate) refused: u64,
    /// Those of the answered ones that needed no other server.
    pub(crate) from_cache: u64,
    /// How often a name server was asked.
    pub(crate) asked: u64,
    /// Answers that are kept.
    pub(crate) kept: usize,
}

/// A name that is answered.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(crate) struct DnsName {
    pub(crate) network: String,
    pub(crate) name: String,
    pub(crate) aliases: Vec<String>,
    pub(crate) addresses: Vec<IpAddr>,
    /// As `_http._tcp`, and the port.
    pub(crate) services: Vec<(String, u16)>,
    /// The host that it is of.
    pub(crate) peer_id: String,
    /// The host does not answer for the moment: others of the same name go first.
    pub(crate) suspected: bool,
}
