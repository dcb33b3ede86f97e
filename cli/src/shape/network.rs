//! The shapes of networks.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Listed;

/// `network create`. What is not given is chosen.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct CreateRequest {
    pub(crate) name: String,
    pub(crate) subnets: Vec<SubnetRequest>,
    /// Also with IPv6 addresses.
    #[serde(default)]
    pub(crate) ipv6: bool,
    pub(crate) vni: Option<u32>,
    pub(crate) mtu: Option<u16>,
    #[serde(default)]
    pub(crate) internal: bool,
    pub(crate) encrypted: Option<bool>,
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) options: BTreeMap<String, String>,
}

/// A subnet as it is asked for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct SubnetRequest {
    pub(crate) subnet: IpNet,
    /// Where addresses are given from; all of it unless given.
    pub(crate) range: Option<IpNet>,
    /// The first address unless given.
    pub(crate) gateway: Option<IpAddr>,
    /// Addresses that are never given, by whose they are.
    #[serde(default)]
    pub(crate) aux: BTreeMap<String, IpAddr>,
}

/// A network.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Network {
    /// Its name.
    pub(crate) network: String,
    /// 64 hex digits.
    pub(crate) network_id: String,
    /// Always `meshnet`.
    pub(crate) driver: String,
    /// Always `global`.
    pub(crate) scope: String,
    pub(crate) vni: u32,
    /// Its largest packet, in bytes.
    pub(crate) mtu: u16,
    /// Its frames are sealed between hosts.
    pub(crate) encrypted: bool,
    /// It has no way out of the overlay.
    pub(crate) internal: bool,
    pub(crate) subnets: Vec<Subnet>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) options: BTreeMap<String, String>,
    /// When it was made, in seconds since 1970; 0 of `mesh`, which is there from the start.
    pub(crate) created_s: u64,
    /// Who has ports on it, of all hosts, stopped containers included.
    pub(crate) endpoints: usize,
    /// The hosts that have it, live ones, this one included.
    pub(crate) peers: Vec<NetworkPeer>,
}

impl Network {
    /// It is there from the start, and cannot be removed.
    pub(crate) fn is_builtin(&self) -> bool {
        self.network == "mesh"
    }

    /// It has a subnet of IPv6.
    pub(crate) fn has_ipv6(&self) -> bool {
        self.subnets.iter().any(|subnet| matches!(subnet.subnet, IpNet::V6(_)))
    }
}

/// A subnet of a network.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Subnet {
    pub(crate) subnet: IpNet,
    /// Where addresses are given from.
    pub(crate) range: IpNet,
    pub(crate) gateway: IpAddr,
    /// Addresses that are never given, by whose they are.
    pub(crate) aux: BTreeMap<String, IpAddr>,
}

/// A host that has a network.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(crate) struct NetworkPeer {
    pub(crate) peer_id: String,
    pub(crate) nickname: String,
    /// Where the control plane reaches it; null of this host.
    pub(crate) address: Option<IpAddr>,
}

/// Networks that are meant: names, ids, or the first digits of ids.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct NetworkNames {
    pub(crate) networks: Vec<String>,
}

/// A network, with whoever is on it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Inspected {
    #[serde(flatten)]
    pub(crate) network: Network,
    pub(crate) members: Vec<Member>,
}

/// An endpoint of a network.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(crate) struct Member {
    #[serde(flatten)]
    pub(crate) listed: Listed,
    /// 16 hex digits.
    pub(crate) port: String,
    /// The full id, if it is a Docker container.
    pub(crate) docker_id: Option<String>,
}

/// Answer to `network rm` and `network prune`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct RemovedNetworks {
    /// Their names, sorted.
    pub(crate) removed: Vec<String>,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A network with one subnet of each family.
    pub(crate) fn network(name: &str) -> Network {
        let subnet = |subnet: &str, gateway: &str| Subnet {
            subnet: subnet.parse().unwrap(),
            range: subnet.parse().unwrap(),
            gateway: gateway.parse().unwrap(),
            aux: BTreeMap::new(),
        };
        let peer = NetworkPeer { peer_id: "11".repeat(16), nickname: "node01".into(), address: None };
        Network {
            network: name.to_owned(),
            network_id: "00ab".repeat(16),
            driver: "meshnet".to_owned(),
            scope: "global".to_owned(),
            vni: 4096,
            mtu: 1450,
            encrypted: false,
            internal: false,
            subnets: vec![subnet("10.99.0.0/16", "10.99.0.1"), subnet("fd00:99::/64", "fd00:99::1")],
            labels: BTreeMap::from([("app".to_owned(), "x".to_owned())]),
            options: BTreeMap::new(),
            created_s: 1_700_000_000,
            endpoints: 1,
            peers: vec![peer],
        }
    }
}
