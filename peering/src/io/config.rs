//! What the control plane of a host is started with, and why it may not start.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use engine::types::PeerId;
use ipnet::{IpNet, Ipv4Net};

use super::addresses::{Place, Whereabouts};
use super::quic::BindError;
use super::store::StoreError;
use crate::identity::{Identity, IdentityError};
use crate::keyring::Keyring;
use crate::mesh::{DEFAULT_RECLAIM_AFTER, MeshConfig, MeshError, Target};
use crate::records::Encryption;
use crate::sealing::Sealing;
use crate::secret::Secret;

/// The range of the network `mesh` unless another one is given: 10.32.0.0/12.
pub const DEFAULT_RANGE: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 32, 0, 0), 12);
/// The largest packet of the network `mesh` in bytes over an underlay of 1500-byte packets: 50 go to the outer
/// Ethernet payload's IPv4, UDP and VXLAN headers and the inner Ethernet header (RFC 7348 section 5).
const MTU_OVER_IPV4: u16 = 1450;
/// The same over IPv6, whose header is 20 bytes longer.
const MTU_OVER_IPV6: u16 = 1430;
/// What a sealed frame is longer: a header of 16 bytes and a tag of 16.
const SEAL: u16 = 32;

/// What a host is started with.
#[derive(Clone, Debug)]
pub struct PeeringConfig {
    /// Where the identity and the state are kept.
    pub state_dir: PathBuf,
    /// The name of this host for people.
    pub nickname: String,
    /// The one address to listen on; all of them without.
    pub listen: Option<IpAddr>,
    /// The UDP port of peering; 0 takes any that is free.
    pub port: u16,
    /// The UDP port of the data plane.
    pub data_port: u16,
    /// The address to tell others, for peering and data.
    pub advertise_addr: Option<IpAddr>,
    /// The address to tell others, for data alone.
    pub data_addr: Option<IpAddr>,
    /// The peers named by people.
    pub targets: Vec<Target>,
    /// The range of the network `mesh`, if given.
    pub range: Option<Ipv4Net>,
    /// How long a host is down before its space may be taken, if given.
    pub reclaim_after: Option<Duration>,
    /// Connect to hosts that were learnt from others, not only to targets.
    pub discovery: bool,
    /// Found the cluster without asking anybody.
    pub found: bool,
    /// The largest packet of the network `mesh` in bytes, if given.
    pub mtu: Option<u16>,
    /// The version of the program, shown to the other hosts.
    pub version: String,
    /// The secret of the cluster, as people gave it; without one, and without one that was kept, the cluster is open.
    pub secret: Option<Secret>,
    /// The only hosts to talk to, if people named them.
    pub allowed: Option<BTreeSet<PeerId>>,
    /// Whether what containers send other hosts is to be sealed.
    pub encryption: Encryption,
    /// The suites this host can seal with, best first.
    pub suites: Vec<u16>,
    /// The subnets of the underlay where frames need no seal.
    pub trusted: Vec<IpNet>,
}

/// The control plane cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The state directory cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The port cannot be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The identity file holds no identity.
    #[error("the identity of this host cannot be used: {0}")]
    Identity(#[from] IdentityError),
    /// The mesh refused its settings.
    #[error(transparent)]
    Mesh(#[from] MeshError),
    /// The operating system gives no random numbers.
    #[error("the operating system gives no random numbers")]
    Random,
}

impl PeeringConfig {
    /// Where this host is, as far as people said it; peering got this port.
    pub(super) fn place(&self, port: u16) -> Place {
        let PeeringConfig { listen, advertise_addr: advertise, data_addr: data, data_port, .. } = *self;
        Place { listen, advertise, data, port, data_port }
    }
}

impl StartError {
    /// One word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            StartError::Store(StoreError::Locked { .. }) => "state_dir_in_use",
            StartError::Store(_) | StartError::Identity(_) | StartError::Mesh(MeshError::Stored(_)) => {
                "state_dir_unusable"
            }
            StartError::Mesh(MeshError::Range(_)) => "range_unusable",
            StartError::Bind(BindError::InUse { .. }) => "port_in_use",
            StartError::Bind(BindError::NotLocal { .. }) => "address_not_local",
            StartError::Bind(_) => "port_unusable",
            StartError::Random => "no_random_numbers",
        }
    }
}

pub(super) fn mesh_config(
    config: &PeeringConfig,
    (identity, keyring): (Identity, Keyring),
    port: u16,
    forgot: bool,
) -> Result<MeshConfig, StartError> {
    let here = Whereabouts::of(&config.place(port));
    // The others try the first address first.
    let over_ipv6 = here.data.first().is_some_and(|addr| addr.is_ipv6());
    let sealing = Sealing {
        encryption: config.encryption,
        suites: config.suites.clone(),
        trusted: config.trusted.clone(),
        closed: !keyring.is_empty(),
    };
    let mtu = if over_ipv6 { MTU_OVER_IPV6 } else { MTU_OVER_IPV4 };
    let mtu = if sealing.seals() { mtu - SEAL } else { mtu };
    Ok(MeshConfig {
        identity,
        nickname: config.nickname.clone(),
        version: config.version.clone(),
        boot_nonce: u64::from_le_bytes(random()?),
        port,
        data_port: config.data_port,
        advertise: here.control,
        data_addrs: here.data,
        targets: config.targets.clone(),
        range: config.range.unwrap_or(DEFAULT_RANGE),
        range_given: config.range.is_some(),
        mtu: config.mtu.unwrap_or(mtu),
        reclaim_after: config.reclaim_after.unwrap_or(DEFAULT_RECLAIM_AFTER),
        discovery: config.discovery,
        found: config.found,
        forgot,
        keyring,
        allowed: config.allowed.clone(),
        sealing,
        seed: random()?,
    })
}

pub(super) fn random<const N: usize>() -> Result<[u8; N], StartError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| StartError::Random)?;
    Ok(bytes)
}
