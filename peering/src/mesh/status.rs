//! What `status` shows of the control plane. Field names are part of the command line's promise.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// The control plane at one moment; every list is sorted.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct MeshStatus {
    /// This host.
    pub peer_id: String,
    /// Its name for people.
    pub nickname: String,
    /// The cluster it belongs to, null before the founding.
    pub cluster_id: Option<String>,
    /// A hash of the live records and units: equal on hosts that agree.
    pub state_hash: String,
    /// The other hosts.
    pub peers: Vec<PeerStatus>,
    /// What people named, and what became of it.
    pub targets: Vec<TargetStatus>,
    /// The connections, and the attempts at them.
    pub connections: Vec<TargetStatus>,
    /// How often hosts were not let in, here or there, by reason.
    pub refused: BTreeMap<String, u64>,
    /// How far the cluster is on its way to another secret; null before the first.
    pub rotation: Option<RotationStatus>,
    /// The address space of each network.
    pub ipam: Vec<IpamStatus>,
    /// Another host has the key of this one and was there before: that and where, in the words of the host that saw both.
    pub clone_of: Option<String>,
    /// The last things worth telling, oldest first.
    pub events: Vec<EventStatus>,
}

/// The way of the cluster from one secret to another.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RotationStatus {
    /// The name of the secret before.
    pub from: String,
    /// The name of the new one.
    pub to: String,
    /// `spread`: every host gets it; `prefer`: every live host has it, and it is used; `done`: no other is taken.
    pub phase: String,
    /// Hosts that are down are not waited for.
    pub leave_behind: bool,
    /// No host has the new secret any more, so that it leads nowhere: another rotation may begin.
    pub lost: bool,
    /// The host that moved it on last.
    pub by: String,
    /// Every host of the cluster, this one included, in the order of ids.
    pub hosts: Vec<HolderStatus>,
}

/// A host on the way to another secret.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HolderStatus {
    /// The host.
    pub peer_id: String,
    /// Its name for people.
    pub nickname: String,
    /// What membership says of it.
    pub state: PeerState,
    /// It belonged to the cluster when the rotation began: it is given the new secret, and waited for.
    pub member: bool,
    /// It has the new secret, on disk.
    pub has: bool,
    /// It prefers it.
    pub uses: bool,
}

/// Another host.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PeerStatus {
    /// The host.
    pub peer_id: String,
    /// Its name for people.
    pub nickname: String,
    /// Where its peering is reached, if there is a connection, else where it says it is.
    pub address: Option<SocketAddr>,
    /// What membership says of it.
    pub state: PeerState,
}

/// What membership says of a host.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerState {
    /// It answers.
    Alive,
    /// It did not answer, and may yet.
    Suspect,
    /// It is down; its records are kept and suspended.
    Down,
}

/// A target or a connection.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TargetStatus {
    /// As it was named, or the address.
    pub target: String,
    /// Who answered there, once known.
    pub peer_id: Option<String>,
    /// How far it came.
    pub state: TargetState,
    /// Why it is not established, or `self`.
    pub reason: Option<String>,
    /// Seconds until the next attempt.
    pub next_try_s: Option<f64>,
}

/// How far a connection came.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetState {
    /// The name is being looked up.
    Resolving,
    /// The handshake runs.
    Connecting,
    /// Both sides agreed to talk.
    Established,
    /// It failed; the next attempt is timed.
    Waiting,
    /// One side refused the other; the next attempt is timed.
    Refused,
}

/// The address space of one network.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct IpamStatus {
    /// The name of the network.
    pub network: String,
    /// Its range.
    pub range: String,
    /// Whether addresses can be had here.
    pub state: IpamState,
    /// Whom the founding or the request for space waits for.
    pub waiting_for: Vec<String>,
    /// Addresses in units of this host.
    pub owned: u64,
    /// Addresses this host has given out.
    pub used: u64,
    /// Addresses this host may still give out.
    pub free: u64,
    /// Who owns the space.
    pub owners: Vec<OwnerStatus>,
}

/// Whether addresses can be had.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IpamState {
    /// Nobody founded the network yet, and nobody needed to.
    Unfounded,
    /// An answer of another host is awaited.
    Waiting,
    /// There is free space here.
    Ready,
    /// There is none, here or elsewhere.
    Full,
}

/// A host's share of a network's space.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct OwnerStatus {
    /// The owner.
    pub peer_id: String,
    /// Its name for people.
    pub nickname: String,
    /// Addresses in its units.
    pub size: u64,
    /// Addresses of its units that endpoints have.
    pub used: u64,
    /// What membership says of it.
    pub state: PeerState,
}

/// Something that happened.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct EventStatus {
    /// One word, in snake case.
    pub kind: String,
    /// One line for people.
    pub message: String,
    /// How long ago, in seconds.
    pub age_s: f64,
}
