//! What the replicated records say: the payloads, each in the first version of its kind.
//!
//! A payload is encoded by postcard inside the signed envelope of [`crate::gossip`]. The header of the
//! envelope already names the writer and its public key, so the payloads do not repeat them. A payload that
//! breaks a limit is not used, but it is kept and relayed: what two releases think of it may differ.

mod network;

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use blake2::{Blake2s256, Digest};
use engine::types::{Claim, IpPrefix, MacAddr, NetworkId, PeerId, PortId, Vni};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::mesh::Endpoint;
use crate::plain;
use crate::secret::{PROOFS, SecretName};

pub(crate) use network::overlap;
pub use network::{
    MAX_AUX, MAX_LABEL_BYTES, MAX_LABELS, MAX_NETWORK_NAME, MAX_SUBNETS, NetworkRecord, SubnetRecord,
};

/// Longest name, nickname or container name, in bytes (a DNS name has at most 253).
pub const MAX_NAME: usize = 253;
/// Most addresses in one list of a record.
pub const MAX_ADDRESSES: usize = 64;
/// Most networks that one host uses; a cluster may have more.
pub const MAX_NETWORKS: usize = 512;
/// Most subnets that one host trusts.
pub const MAX_TRUSTED: usize = 64;
/// Most further names of one endpoint.
pub const MAX_ALIASES: usize = 64;
/// Most services under one name.
pub const MAX_SERVICES: usize = 64;
/// Most hosts that a rotation of the secret is for: with more its record would be too long.
pub const MAX_ROTATING: usize = 4000;
/// Most targets of one host that others are told about.
pub const MAX_TARGETS: usize = 256;

/// A cluster: 16 random bytes, made at its founding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct ClusterId(pub [u8; 16]);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a host thinks of sealing its frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Encryption {
    /// Plain frames.
    #[default]
    Off,
    /// Sealed where the other side can.
    Auto,
    /// Sealed or not at all.
    On,
}

/// A peer that the people of a host named, and who answered there.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct TargetRecord {
    /// As it was named.
    pub name: String,
    /// Who it is; none while nobody answered.
    #[serde(with = "plain")]
    pub peer: Option<PeerId>,
}

/// What a host says of itself. Its peer id and identity key stand in the header of the record.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HostRecord {
    /// Its X25519 public key for the sessions of the data plane.
    pub noise_key: [u8; 32],
    /// Its name for people.
    pub nickname: String,
    /// The version of its program.
    pub version: String,
    /// Where its data plane may be reached, best first.
    pub data_addrs: Vec<SocketAddr>,
    /// Where its peering may be reached, best first.
    pub control_addrs: Vec<SocketAddr>,
    /// The suites it can seal with, best first.
    pub suites: Vec<u16>,
    /// What it thinks of sealing.
    pub encryption: Encryption,
    /// The networks it takes part in, and the number each has on the wire.
    #[serde(with = "plain")]
    pub networks: Vec<(NetworkId, Vni)>,
    /// Its targets: the closure of a founding reaches through them.
    pub targets: Vec<TargetRecord>,
    /// The subnets of the underlay in which its people trust everybody: frames need no seal between two addresses there.
    #[serde(with = "plain")]
    pub trusted: Vec<IpNet>,
    /// The secrets that it takes and has on disk, the preferred one first.
    pub secrets: Vec<SecretName>,
}

/// How an endpoint came by its addresses: of two that have the same one, this decides who keeps it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Given {
    /// People asked for just these addresses.
    pub explicit: bool,
    /// The cluster in which they were given; none: their host does not remember it.
    pub cluster: Option<ClusterId>,
    /// The epoch of the unit of the first one at that time; zero: not known.
    pub epoch: u64,
}

/// An attachment of a container to a network. The key of the record is the port id.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EndpointRecord {
    /// The port at its host.
    #[serde(with = "plain")]
    pub port: PortId,
    /// The network.
    #[serde(with = "plain")]
    pub network: NetworkId,
    /// Its name on the network.
    pub name: String,
    /// Further names, which others may have too.
    pub aliases: Vec<String>,
    /// The container as it was named to `attach`.
    pub container: String,
    /// Its MAC address.
    #[serde(with = "plain")]
    pub mac: MacAddr,
    /// Its addresses.
    #[serde(with = "plain")]
    pub addresses: Vec<IpPrefix>,
    /// The interface inside the container.
    pub ifname: String,
    /// False while the container is stopped.
    pub running: bool,
    /// The full id, if it is a Docker container.
    pub docker_id: Option<String>,
    /// One above the highest that its host had seen for this MAC.
    pub claim_version: u64,
    /// How it came by its addresses.
    pub given: Given,
}

/// Something that is offered under a name, as SRV records tell it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct ServiceRecord {
    /// What, as `_http._tcp`.
    pub service: String,
    /// The port to connect to.
    pub port: u16,
}

/// A name that people gave to addresses. The key of the record is [`NameRecord::key`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NameRecord {
    /// The network on which it is known.
    #[serde(with = "plain")]
    pub network: NetworkId,
    /// The name, in lower case and relative to the network.
    pub name: String,
    /// What it stands for.
    pub addresses: Vec<IpAddr>,
    /// What is offered there.
    pub services: Vec<ServiceRecord>,
}

/// An external VXLAN endpoint of a network. The key of the record is [`VtepRecord::key`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VtepRecord {
    /// The network.
    #[serde(with = "plain")]
    pub network: NetworkId,
    /// Where it listens.
    pub addr: SocketAddr,
}

/// Why a host was removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Cause {
    /// People removed a host that was down.
    Command,
    /// People removed a host though it was alive.
    Forced,
    /// It was down for too long, and a majority agreed.
    Reclaimed,
    /// It left by itself.
    Reset,
    /// People cut it off for good.
    Revoked,
}

/// A host is removed: everything that it wrote up to an incarnation is dead. The key of the record is the
/// peer id and its counter is the incarnation, so that of two removals the farther one stays.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RemovalRecord {
    /// The removed host.
    #[serde(with = "plain")]
    pub peer: PeerId,
    /// Its last dead incarnation; a higher one is the host that came back.
    pub incarnation: u64,
    /// Why.
    pub cause: Cause,
    /// The name it had for people, for as long as they may ask for it.
    pub nickname: String,
}

/// How far the cluster is on its way to another secret.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Phase {
    /// Every host gets the new secret, and takes both.
    Spread,
    /// Every host has it; what begins now uses the new one.
    Prefer,
    /// The former one is not taken any more.
    Done,
}

/// The cluster goes over to another secret. There is one such record; its key is empty.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RotationRecord {
    /// The secret that all hosts have.
    pub from: SecretName,
    /// The one that they will have.
    pub to: SecretName,
    /// How far it is.
    pub phase: Phase,
    /// People said that hosts which are down are not waited for.
    pub leave_behind: bool,
    /// The hosts of the cluster when the rotation began, in order: they are given the new secret, and nobody else is.
    #[serde(with = "plain")]
    pub members: Vec<PeerId>,
}

impl RotationRecord {
    /// True for a host that belonged to the cluster when the rotation began.
    pub fn is_for(&self, peer: PeerId) -> bool {
        self.members.binary_search(&peer).is_ok()
    }

    /// True when the list keeps its limit and its order.
    pub fn within_limits(&self) -> bool {
        self.members.len() <= MAX_ROTATING && self.members.is_sorted_by(|one, next| one < next)
    }
}

/// The kinds of records that this release knows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// Of a host, by itself.
    Host(HostRecord),
    /// Of an endpoint, by its host.
    Endpoint(EndpointRecord),
    /// Of an external VXLAN endpoint, shared.
    Vtep(VtepRecord),
    /// Of a network, shared.
    Network(NetworkRecord),
    /// Of a name that people gave, by the host where they did.
    Name(NameRecord),
    /// Of a removed host, shared.
    Removal(RemovalRecord),
    /// Of the way to another secret, shared.
    Rotation(RotationRecord),
    /// Of a kind or version not known here, or not readable: kept and relayed as it is.
    Opaque,
}

impl HostRecord {
    /// True when every list and text keeps its limit.
    pub fn within_limits(&self) -> bool {
        self.nickname.len() <= MAX_NAME
            && self.version.len() <= MAX_NAME
            && self.data_addrs.len() <= MAX_ADDRESSES
            && self.control_addrs.len() <= MAX_ADDRESSES
            && self.suites.len() <= MAX_ADDRESSES
            && self.networks.len() <= MAX_NETWORKS
            && self.targets.len() <= MAX_TARGETS
            && self.trusted.len() <= MAX_TRUSTED
            && self.secrets.len() <= PROOFS
            && self.targets.iter().all(|target| target.name.len() <= MAX_NAME + 8)
    }
}

impl EndpointRecord {
    /// The record of an endpoint under a claim.
    pub fn new(endpoint: Endpoint, claim_version: u64, given: Given) -> Self {
        let Endpoint {
            port,
            network,
            name,
            aliases,
            container,
            mac,
            addresses,
            ifname,
            running,
            docker_id,
            explicit,
        } = endpoint;
        let given = Given { explicit, ..given };
        EndpointRecord {
            port,
            network,
            name,
            aliases,
            container,
            mac,
            addresses,
            ifname,
            running,
            docker_id,
            claim_version,
            given,
        }
    }

    /// The endpoint, without the claim.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint {
            port: self.port,
            network: self.network,
            name: self.name.clone(),
            aliases: self.aliases.clone(),
            container: self.container.clone(),
            mac: self.mac,
            addresses: self.addresses.clone(),
            ifname: self.ifname.clone(),
            running: self.running,
            docker_id: self.docker_id.clone(),
            explicit: self.given.explicit,
        }
    }

    /// The claim on its MAC address, made by the host `peer`.
    pub fn claim(&self, peer: PeerId) -> Claim {
        Claim { version: self.claim_version, peer }
    }

    /// What its tombstone keeps: the port, the addresses and the claim, without the words for people.
    pub fn gone(&self) -> Self {
        EndpointRecord {
            name: String::new(),
            aliases: Vec::new(),
            container: String::new(),
            ifname: String::new(),
            running: false,
            docker_id: None,
            ..self.clone()
        }
    }

    /// True when every list and text keeps its limit and the MAC is that of one station.
    pub fn within_limits(&self) -> bool {
        let texts = [&self.name, &self.container, &self.ifname];
        texts.iter().all(|text| text.len() <= MAX_NAME)
            && self.aliases.len() <= MAX_ALIASES
            && self.aliases.iter().all(|alias| alias.len() <= MAX_NAME)
            && self.docker_id.as_ref().is_none_or(|id| id.len() <= MAX_NAME)
            && self.addresses.len() <= MAX_ADDRESSES
            && !self.mac.is_group()
            && !self.mac.is_zero()
    }
}

impl NameRecord {
    /// The key of its record: the front of a hash of network and name.
    pub fn key(&self) -> [u8; 8] {
        NameRecord::key_of(self.network, &self.name)
    }

    /// The key of the record of a name on a network.
    pub fn key_of(network: NetworkId, name: &str) -> [u8; 8] {
        let hash: [u8; 32] = Blake2s256::new().chain_update(network.0).chain_update(name).finalize().into();
        hash.first_chunk().copied().unwrap_or_default()
    }

    /// True when every list and text keeps its limit.
    pub fn within_limits(&self) -> bool {
        self.name.len() <= MAX_NAME
            && self.addresses.len() <= MAX_ADDRESSES
            && self.services.len() <= MAX_SERVICES
            && self.services.iter().all(|offer| offer.service.len() <= MAX_NAME)
    }
}

impl VtepRecord {
    /// The key of its record: network id, address (16 bytes, IPv4 in mapped form), port little-endian.
    pub fn key(&self) -> Vec<u8> {
        let addr = match self.addr.ip() {
            IpAddr::V4(addr) => addr.to_ipv6_mapped(),
            IpAddr::V6(addr) => addr,
        };
        [&self.network.0[..], &addr.octets(), &self.addr.port().to_le_bytes()].concat()
    }
}

impl RemovalRecord {
    /// True when the name keeps its limit.
    pub fn within_limits(&self) -> bool {
        self.nickname.len() <= MAX_NAME
    }
}

impl Cause {
    /// For people, after "was removed".
    pub fn words(self) -> &'static str {
        match self {
            Cause::Command => "by command",
            Cause::Forced => "by force",
            Cause::Reclaimed => "because it was down for too long",
            Cause::Reset => "because it left",
            Cause::Revoked => "for good: it is revoked",
        }
    }
}
