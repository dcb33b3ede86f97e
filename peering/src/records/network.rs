//! Networks: what everybody knows of one, whoever made it.

use std::net::IpAddr;
use std::time::Duration;

use engine::types::{NetworkId, Vni};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{ClusterId, MAX_NAME};
use crate::ipam::Pool;
use crate::plain;

/// Longest name under which a network is created, in bytes: it is a label of a DNS name.
pub const MAX_NETWORK_NAME: usize = 63;
/// Most subnets of one network.
pub const MAX_SUBNETS: usize = 16;
/// Most auxiliary addresses of one subnet.
pub const MAX_AUX: usize = 64;
/// Most labels, and most options, of one network.
pub const MAX_LABELS: usize = 128;
/// Most bytes in all labels and options of one network together.
pub const MAX_LABEL_BYTES: usize = 16 << 10;

/// A subnet of a network.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SubnetRecord {
    /// Every address in it belongs to the network.
    #[serde(with = "plain")]
    pub subnet: IpNet,
    /// Where addresses are given from that nobody asked for in particular: the subnet, or a part of it.
    #[serde(with = "plain")]
    pub range: IpNet,
    /// The address of the gateway, the same on every host.
    pub gateway: IpAddr,
    /// Addresses that are never given, with their names: they belong to something outside.
    pub aux: Vec<(String, IpAddr)>,
}

/// The settings of a network. The key of the record is the network id. A tombstone keeps them: whoever still has an
/// endpoint on the network writes it again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NetworkRecord {
    /// The network.
    #[serde(with = "plain")]
    pub network: NetworkId,
    /// Its name.
    pub name: String,
    /// Its number on the wire.
    #[serde(with = "plain")]
    pub vni: Vni,
    /// People asked for that number.
    pub vni_given: bool,
    /// Its subnets; an endpoint gets one address per family, of the first that has one.
    pub subnets: Vec<SubnetRecord>,
    /// Nobody named its IPv4 subnet: a free one was chosen.
    pub subnet_chosen: bool,
    /// Its largest packet, in bytes.
    pub mtu: u16,
    /// How long a host is down before its space may be taken; that of the network `mesh` counts for all.
    pub reclaim_after: Duration,
    /// The cluster whose settings these are: when two meet, those of the lower id count.
    pub cluster: ClusterId,
    /// Its frames are sealed between hosts.
    pub encrypted: bool,
    /// There is no way out of it.
    pub internal: bool,
    /// What people wrote on it, in the order of the keys.
    pub labels: Vec<(String, String)>,
    /// Options of its driver, in the order of the keys.
    pub options: Vec<(String, String)>,
    /// When it was created, in seconds since 1970, by the clock of the host where that was; only shown.
    pub created_s: u64,
}

impl SubnetRecord {
    /// A whole subnet: addresses are given from all of it, and the gateway has the first one.
    pub fn whole(subnet: IpNet) -> Self {
        let subnet = subnet.trunc();
        let gateway = Pool::after(subnet.network()).unwrap_or_else(|| subnet.network());
        SubnetRecord { subnet, range: subnet, gateway, aux: Vec::new() }
    }

    /// True when it can be cut into units and everything lies inside.
    fn is_sound(&self) -> bool {
        Pool::new(self.subnet).is_ok_and(|pool| pool.range() == self.subnet)
            && self.range.trunc() == self.range
            && self.subnet.contains(&self.range)
            && self.subnet.contains(&self.gateway)
            && self.aux.len() <= MAX_AUX
            && self.aux.iter().all(|(name, addr)| name.len() <= MAX_NAME && self.subnet.contains(addr))
    }
}

impl NetworkRecord {
    /// True when every list and text keeps its limit, and the subnets can be cut into units and do not overlap.
    pub fn within_limits(&self) -> bool {
        let texts = self.labels.iter().chain(&self.options);
        self.name.len() <= MAX_NAME
            && (1..=MAX_SUBNETS).contains(&self.subnets.len())
            && self.subnets.iter().all(SubnetRecord::is_sound)
            && self.labels.len() <= MAX_LABELS
            && self.options.len() <= MAX_LABELS
            && texts.map(|(key, value)| key.len() + value.len()).sum::<usize>() <= MAX_LABEL_BYTES
            && !self.overlaps_itself()
    }

    fn overlaps_itself(&self) -> bool {
        let pairs = self.subnets.iter().enumerate();
        pairs
            .into_iter()
            .any(|(at, one)| self.subnets[at + 1..].iter().any(|other| overlap(one.subnet, other.subnet)))
    }
}

/// True when two subnets have an address in common.
pub(crate) fn overlap(one: IpNet, other: IpNet) -> bool {
    one.contains(&other) || other.contains(&one)
}
