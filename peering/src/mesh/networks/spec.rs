//! What people ask of a new network, why they do not get it, and what is known of one.

use std::net::IpAddr;

use engine::types::{NetworkId, PeerId, Vni};
use ipnet::IpNet;

use crate::ipam::Pool;
use crate::records::{
    MAX_AUX, MAX_LABEL_BYTES, MAX_LABELS, MAX_NAME, MAX_NETWORK_NAME, MAX_SUBNETS, NetworkRecord,
    SubnetRecord, overlap,
};

/// The smallest packet that every host takes (RFC 791 section 3.1), and every host with IPv6 (RFC 8200 section 5).
const MIN_MTU: [u16; 2] = [576, 1280];
/// No tunnel carries more: an IP packet without its own headers.
const MAX_MTU: u16 = 65_485;

/// A network as people ask for it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NetworkSpec {
    /// Its name.
    pub name: String,
    /// Its subnets; without one of IPv4 a free one is chosen.
    pub subnets: Vec<SubnetSpec>,
    /// It has IPv6 too: without a subnet for it one is chosen.
    pub ipv6: bool,
    /// Its number on the wire; none: a free one is chosen.
    pub vni: Option<Vni>,
    /// Its largest packet in bytes; none: that of the network `mesh`.
    pub mtu: Option<u16>,
    /// There is no way out of it.
    pub internal: bool,
    /// Its frames are sealed between hosts; none: if this host seals.
    pub encrypted: Option<bool>,
    /// What people write on it.
    pub labels: Vec<(String, String)>,
    /// Options of its driver.
    pub options: Vec<(String, String)>,
    /// Subnets that are not chosen, because this host reaches something else there.
    pub avoid: Vec<IpNet>,
    /// When this is, in seconds since 1970; only shown.
    pub created_s: u64,
}

/// A subnet as people ask for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SubnetSpec {
    /// The subnet.
    pub subnet: IpNet,
    /// The part of it from which addresses are given; none: all of it.
    pub range: Option<IpNet>,
    /// The address of the gateway; none: the first one.
    pub gateway: Option<IpAddr>,
    /// Addresses that are never given, with their names.
    pub aux: Vec<(String, IpAddr)>,
}

/// A network as it is shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NetworkView {
    /// The network.
    pub id: NetworkId,
    /// Its name; that of one that lost it to another network ends in `~` and six digits of its id.
    pub name: String,
    /// Its number on the wire.
    pub vni: Vni,
    /// Its subnets; none while it is not founded.
    pub subnets: Vec<SubnetRecord>,
    /// Its largest packet in bytes.
    pub mtu: u16,
    /// Its frames are sealed between hosts.
    pub encrypted: bool,
    /// There is no way out of it.
    pub internal: bool,
    /// What people wrote on it.
    pub labels: Vec<(String, String)>,
    /// Options of its driver.
    pub options: Vec<(String, String)>,
    /// When it was created, in seconds since 1970.
    pub created_s: u64,
    /// The hosts that use it, this one included, in order.
    pub peers: Vec<PeerId>,
    /// It has addresses to give; the network `mesh` is there before.
    pub founded: bool,
}

/// Why a network is not created, or not removed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NetworkError {
    /// Something that was asked for makes no sense.
    #[error("{argument}: {reason}")]
    Argument {
        /// As people write it.
        argument: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// There is a network of that name.
    #[error("there is a network {name} already")]
    Exists {
        /// The name.
        name: String,
    },
    /// Another network has addresses of the subnet.
    #[error("--subnet {subnet}: it overlaps {other} of the network {network}")]
    Overlap {
        /// What was asked for.
        subnet: IpNet,
        /// What is there.
        other: IpNet,
        /// Whose that is.
        network: String,
    },
    /// Every subnet that may be chosen is in use.
    #[error("no free subnet is left to choose: name one with --subnet")]
    NoSubnet,
    /// Another network has the number.
    #[error("--vni {vni}: it is the number of the network {network}")]
    VniInUse {
        /// The number.
        vni: Vni,
        /// Whose it is.
        network: String,
    },
    /// There are too many networks.
    #[error("there are {limit} networks already, and more cannot be had")]
    TooMany {
        /// How many there may be.
        limit: usize,
    },
    /// No such network.
    #[error("there is no such network")]
    Unknown,
    /// The network `mesh` is always there.
    #[error("the network {name} is always there, and cannot be removed")]
    Predefined {
        /// Its name.
        name: String,
    },
    /// Endpoints are on it.
    #[error("the network {name} is in use by {users}")]
    InUse {
        /// Its name.
        name: String,
        /// Who they are.
        users: String,
    },
    /// It could not be written to disk, so it was not created.
    #[error("the state could not be stored: {reason}")]
    StoreFailed {
        /// What the disk said.
        reason: String,
    },
    /// Another host with the key of this one was there before.
    #[error("this host is a clone: {other}")]
    Clone {
        /// What the host that refused this one said of the other.
        other: String,
    },
    /// The daemon is stopping.
    #[error("the daemon is stopping")]
    Stopping,
}

impl NetworkError {
    /// One word for programs, listed in `docs/cli.md`.
    pub fn code(&self) -> &'static str {
        match self {
            NetworkError::Argument { .. } => "bad_network",
            NetworkError::Exists { .. } => "network_exists",
            NetworkError::Overlap { .. } => "subnet_overlaps",
            NetworkError::NoSubnet => "no_free_subnet",
            NetworkError::VniInUse { .. } => "vni_in_use",
            NetworkError::TooMany { .. } => "too_many_networks",
            NetworkError::Unknown => "unknown_network",
            NetworkError::Predefined { .. } => "network_predefined",
            NetworkError::InUse { .. } => "network_in_use",
            NetworkError::StoreFailed { .. } => "store_failed",
            NetworkError::Clone { .. } => "clone",
            NetworkError::Stopping => "stopping",
        }
    }
}

fn wrong<T>(argument: &'static str, reason: String) -> Result<T, NetworkError> {
    Err(NetworkError::Argument { argument, reason })
}

impl NetworkSpec {
    /// What can be said without looking at any other network.
    ///
    /// # Errors
    /// The first argument that makes no sense.
    pub fn check(&self) -> Result<(), NetworkError> {
        check_name(&self.name)?;
        if self.subnets.len() > MAX_SUBNETS {
            return wrong("--subnet", format!("a network has at most {MAX_SUBNETS} subnets"));
        }
        self.subnets.iter().try_for_each(SubnetSpec::check)?;
        self.check_apart()?;
        check_vni(self.vni)?;
        self.check_mtu()?;
        check_labels("--label", &self.labels)?;
        check_labels("-o", &self.options)?;
        let texts = self.labels.iter().chain(&self.options);
        if texts.map(|(key, value)| key.len() + value.len()).sum::<usize>() > MAX_LABEL_BYTES {
            return wrong("--label", format!("labels and options have more than {MAX_LABEL_BYTES} bytes"));
        }
        Ok(())
    }

    /// True when it will have IPv6.
    pub fn has_ipv6(&self) -> bool {
        self.ipv6 || self.subnets.iter().any(|spec| spec.subnet.addr().is_ipv6())
    }

    /// True when nobody named the IPv4 subnet that it will have.
    pub(super) fn chooses_ipv4(&self) -> bool {
        !self.subnets.iter().any(|spec| spec.subnet.addr().is_ipv4())
    }

    /// True when nobody named the IPv6 subnet that it will have.
    pub(super) fn chooses_ipv6(&self) -> bool {
        self.ipv6 && !self.subnets.iter().any(|spec| spec.subnet.addr().is_ipv6())
    }

    fn check_apart(&self) -> Result<(), NetworkError> {
        for (at, one) in self.subnets.iter().enumerate() {
            let other = self.subnets[at + 1..].iter().find(|other| overlap(one.subnet, other.subnet));
            if let Some(other) = other {
                return wrong("--subnet", format!("{} and {} overlap", one.subnet, other.subnet));
            }
        }
        Ok(())
    }

    fn check_mtu(&self) -> Result<(), NetworkError> {
        let least = MIN_MTU[usize::from(self.has_ipv6())];
        match self.mtu {
            Some(mtu) if !(least..=MAX_MTU).contains(&mtu) => {
                wrong("--mtu", format!("{mtu} is not between {least} and {MAX_MTU}"))
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl SubnetSpec {
    /// A subnet without wishes.
    pub fn new(subnet: IpNet) -> Self {
        SubnetSpec { subnet, range: None, gateway: None, aux: Vec::new() }
    }

    fn check(&self) -> Result<(), NetworkError> {
        let subnet = self.subnet;
        if subnet.trunc() != subnet {
            return wrong("--subnet", format!("{subnet} is no subnet; {} is", subnet.trunc()));
        }
        self.check_range()?;
        self.check_gateway()?;
        self.check_aux()?;
        match Pool::of(&self.record()) {
            Err(error) => wrong("--subnet", error.to_string()),
            Ok(pool) if pool.size() == 0 => {
                wrong("--ip-range", format!("no address of {} is left for endpoints", pool.range()))
            }
            Ok(_) => Ok(()),
        }
    }

    fn check_range(&self) -> Result<(), NetworkError> {
        let Some(range) = self.range else { return Ok(()) };
        if range.trunc() != range {
            return wrong("--ip-range", format!("{range} is no range; {} is", range.trunc()));
        }
        if !self.subnet.contains(&range) {
            return wrong("--ip-range", format!("{range} lies outside of the subnet {}", self.subnet));
        }
        Ok(())
    }

    fn check_gateway(&self) -> Result<(), NetworkError> {
        let Some(gateway) = self.gateway else { return Ok(()) };
        self.check_inside("--gateway", gateway)
    }

    fn check_aux(&self) -> Result<(), NetworkError> {
        if self.aux.len() > MAX_AUX {
            return wrong("--aux-address", format!("a subnet has at most {MAX_AUX} of them"));
        }
        let gateway = self.record().gateway;
        for (at, (name, addr)) in self.aux.iter().enumerate() {
            if name.is_empty() || name.len() > MAX_NAME {
                return wrong("--aux-address", format!("a name has 1 to {MAX_NAME} bytes"));
            }
            self.check_inside("--aux-address", *addr)?;
            if *addr == gateway {
                return wrong("--aux-address", format!("{name}={addr} is the gateway"));
            }
            if self.aux[..at].iter().any(|(other, taken)| other == name || taken == addr) {
                return wrong("--aux-address", format!("{name}={addr} is there twice"));
            }
        }
        Ok(())
    }

    /// An address of the subnet that is not the network's or the broadcast address.
    fn check_inside(&self, argument: &'static str, addr: IpAddr) -> Result<(), NetworkError> {
        let subnet = self.subnet;
        if !subnet.contains(&addr) {
            return wrong(argument, format!("{addr} lies outside of the subnet {subnet}"));
        }
        if addr == subnet.network() {
            return wrong(argument, format!("{addr} is the address of the network itself"));
        }
        if addr.is_ipv4() && addr == subnet.broadcast() {
            return wrong(argument, format!("{addr} is the broadcast address"));
        }
        Ok(())
    }

    /// The subnet as it is written down.
    pub(super) fn record(&self) -> SubnetRecord {
        let whole = SubnetRecord::whole(self.subnet);
        SubnetRecord {
            range: self.range.unwrap_or(whole.range),
            gateway: self.gateway.unwrap_or(whole.gateway),
            aux: self.aux.clone(),
            ..whole
        }
    }
}

fn check_name(name: &str) -> Result<(), NetworkError> {
    let begins = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let usual = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if begins && usual && name.len() <= MAX_NETWORK_NAME {
        return Ok(());
    }
    let reason = format!(
        "{name:?} is no name of a network: at most {MAX_NETWORK_NAME} letters, digits, - and _, a letter or digit first"
    );
    wrong("NAME", reason)
}

fn check_vni(vni: Option<Vni>) -> Result<(), NetworkError> {
    match vni {
        Some(vni) if vni.get() == 0 => wrong("--vni", "0 is no number of a network".to_owned()),
        Some(_) | None => Ok(()),
    }
}

fn check_labels(argument: &'static str, labels: &[(String, String)]) -> Result<(), NetworkError> {
    if labels.len() > MAX_LABELS {
        return wrong(argument, format!("a network has at most {MAX_LABELS} of them"));
    }
    let mut keys: Vec<&str> = labels.iter().map(|(key, _)| key.as_str()).collect();
    keys.sort_unstable();
    if keys.first().is_some_and(|key| key.is_empty()) {
        return wrong(argument, "it has no key".to_owned());
    }
    match keys.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => wrong(argument, format!("{} is there twice", pair[0])),
        None => Ok(()),
    }
}

impl NetworkView {
    /// A network as its record has it, under a name and a number that may be others.
    pub(super) fn new(record: &NetworkRecord, name: String, vni: Vni, peers: Vec<PeerId>) -> Self {
        NetworkView {
            id: record.network,
            name,
            vni,
            subnets: record.subnets.clone(),
            mtu: record.mtu,
            encrypted: record.encrypted,
            internal: record.internal,
            labels: record.labels.clone(),
            options: record.options.clone(),
            created_s: record.created_s,
            peers,
            founded: true,
        }
    }

    /// True when a host uses it.
    pub fn is_used_by(&self, peer: PeerId) -> bool {
        self.peers.binary_search(&peer).is_ok()
    }
}
