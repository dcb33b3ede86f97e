//! What `status` tells of the host and of the cluster.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use peering::mesh::{EventStatus, IpamStatus, PeerState, RotationStatus, TargetStatus};
use serde::{Deserialize, Serialize};

use super::{Dataplane, DnsStatus};

/// The whole of `status`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) version: String,
    pub(crate) peer_id: String,
    pub(crate) nickname: String,
    /// Null until a cluster was founded or joined.
    pub(crate) cluster_id: Option<String>,
    /// Equal on hosts with equal state.
    pub(crate) state_hash: String,
    /// Of what containers send each other: `off` or `on`.
    pub(crate) encryption: String,
    /// True without a secret: whoever reaches the control port may join.
    pub(crate) open: bool,
    /// What this host brings to sealed sessions.
    pub(crate) sealing: Sealing,
    pub(crate) networks: Vec<NetworkStatus>,
    pub(crate) ready: bool,
    pub(crate) peers: Vec<Peer>,
    pub(crate) connections: Vec<TargetStatus>,
    pub(crate) targets: Vec<TargetStatus>,
    /// How far the cluster is on its way to another secret; null before the first.
    #[serde(default)]
    pub(crate) rotation: Option<RotationStatus>,
    pub(crate) ipam: Vec<IpamStatus>,
    #[serde(default)]
    pub(crate) dns: Option<DnsStatus>,
    pub(crate) dataplane: Dataplane,
    pub(crate) control_port: ControlPort,
    /// What holds now and should not.
    #[serde(default)]
    pub(crate) warnings: Vec<Warning>,
    pub(crate) events: Vec<EventStatus>,
}

/// What a host brings to sealed sessions.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Sealing {
    /// What its people wish: `auto`, `on` or `off`.
    pub(crate) encryption: String,
    /// What it can seal with, best first.
    pub(crate) suites: Vec<String>,
    /// The subnets of the underlay in which it trusts everybody.
    #[serde(default)]
    pub(crate) trusted_subnets: Vec<IpNet>,
    /// Its public key.
    pub(crate) noise_key: String,
    /// The name of the secret, which tells nothing about it; null without one.
    pub(crate) secret: Option<String>,
    /// The file that people keep it in, as this host was launched with it; null without one.
    #[serde(default)]
    pub(crate) secret_file: Option<PathBuf>,
    /// How often this host began anew.
    pub(crate) start: u64,
}

/// The settings of a network.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct NetworkStatus {
    pub(crate) network: String,
    pub(crate) network_id: String,
    pub(crate) vni: u32,
    /// Its largest packet, in bytes.
    pub(crate) mtu: u16,
    /// Its frames are to be sealed between hosts.
    pub(crate) encrypted: bool,
    /// This host has it: there are ports on it, or people said so.
    #[serde(default)]
    pub(crate) used: bool,
}

/// Something that should not be so.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Warning {
    /// One word, in snake case.
    pub(crate) kind: String,
    /// One line for people.
    pub(crate) message: String,
}

/// What came in on the port of the control plane.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ControlPort {
    /// Datagrams.
    pub(crate) received: u64,
    /// Those that are no packet of a connection of this host: garbage, scans, leftovers.
    pub(crate) foreign: u64,
    /// Hosts that were not let in, here or there, by reason.
    pub(crate) refused: BTreeMap<String, u64>,
}

/// Another host.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Peer {
    pub(crate) peer_id: String,
    pub(crate) nickname: String,
    /// Where the control plane reaches it.
    pub(crate) address: Option<SocketAddr>,
    pub(crate) state: PeerState,
    pub(crate) path: Option<Path>,
    /// Why there is no path.
    pub(crate) reason: Option<String>,
    /// What it and this host agreed on: `plain`, `sealed`, `differ` or `no_suite`; null while it is down.
    #[serde(default)]
    pub(crate) agreement: Option<String>,
    /// Which of both trusts the underlay between them: `neither`, `both` or `differ`; null while it is down.
    #[serde(default)]
    pub(crate) trust: Option<String>,
}

/// How frames reach another host.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Path {
    pub(crate) address: SocketAddr,
    /// `plain`, `sealed` or `relay`.
    pub(crate) kind: String,
    /// Largest overlay packet in bytes.
    pub(crate) mtu: u16,
}
