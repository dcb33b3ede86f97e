//! The shapes of requests and answers: what crosses the socket, and what `-o json` prints.
//!
//! Field names are fixed: more may be added, none is renamed. Lists are sorted; seconds and bytes are numbers.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use peering::mesh::HolderStatus;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

mod dataplane;
mod dns;
mod network;
mod report;
mod status;

pub(crate) use dataplane::{Conservation, ControlSocket, Dataplane, Offload, Port, Unclaimed, Worker};
pub(crate) use dns::{
    DnsAddRequest, DnsForwarded, DnsName, DnsRemoveRequest, DnsRemoved, DnsStatus, LookedUp, LookupRequest,
};
pub(crate) use network::{
    CreateRequest, Inspected, Member, Network, NetworkNames, NetworkPeer, RemovedNetworks, Subnet,
    SubnetRequest,
};
pub(crate) use report::{
    DaemonReport, Forwarding, HostAddress, HostRoute, Kernel, Privileges, Process, Report, Reported,
    StateDisk,
};
pub(crate) use status::{ControlPort, NetworkStatus, Path, Peer, Sealing, Status, Warning};

/// `connect` and `forget`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Targets {
    /// As `HOST[:PORT]`.
    pub(crate) targets: Vec<String>,
    /// Forget all others.
    #[serde(default)]
    pub(crate) replace: bool,
}

/// `rmpeer`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct RemoveRequest {
    /// Nickname, peer id, or the first digits of that.
    pub(crate) peer: String,
    /// Also if it is alive.
    #[serde(default)]
    pub(crate) force: bool,
}

/// Answer to `rmpeer`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct RemovedPeer {
    pub(crate) peer_id: String,
    pub(crate) nickname: String,
    /// False when it was removed already.
    pub(crate) removed: bool,
}

/// `revoke`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct RevokeRequest {
    /// Nickname, peer id, or the first digits of that.
    pub(crate) peer: String,
}

/// Answer to `revoke`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct RevokedPeer {
    pub(crate) peer_id: String,
    pub(crate) nickname: String,
    /// False when it was revoked already.
    pub(crate) revoked: bool,
    /// Without a secret, anybody can come with a new key.
    pub(crate) open: bool,
}

/// `secret rotate`. Not to be shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RotateRequest {
    /// The new secret, as in a file; none: to go on with what is under way.
    pub(crate) secret: Option<String>,
    /// Hosts that are down are not waited for.
    #[serde(default)]
    pub(crate) leave_behind: bool,
}

impl Drop for RotateRequest {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

/// What `secret rotate` prints.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Rotated {
    /// The name of the new secret.
    pub(crate) secret: String,
    /// Where it is; null when it came from standard input, or from elsewhere.
    pub(crate) file: Option<PathBuf>,
    /// Hosts that have it not, by nickname.
    pub(crate) left_behind: Vec<String>,
    pub(crate) hosts: Vec<HolderStatus>,
}

/// `attach`. What is not given is `None`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct AttachRequest {
    pub(crate) container: String,
    pub(crate) network: String,
    pub(crate) ip: Vec<IpAddr>,
    pub(crate) name: Option<String>,
    pub(crate) mac: Option<String>,
    pub(crate) ifname: Option<String>,
    /// As `100mbit`.
    #[serde(default)]
    pub(crate) rate: Option<String>,
    /// It may send in any name.
    #[serde(default)]
    pub(crate) no_spoof_check: bool,
    /// Further names.
    #[serde(default)]
    pub(crate) aliases: Vec<String>,
    /// Names, and what they are called too.
    #[serde(default)]
    pub(crate) links: Vec<(String, String)>,
    /// Point the container's resolv.conf at the gateway.
    #[serde(default = "yes")]
    pub(crate) dns: bool,
    /// How long to wait for an address.
    pub(crate) timeout_s: f64,
}

/// `expose`. What is not given is `None`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct ExposeRequest {
    pub(crate) network: String,
    pub(crate) ip: Vec<IpAddr>,
    pub(crate) name: Option<String>,
    pub(crate) ifname: Option<String>,
    /// What passes between the network and elsewhere; none: nothing.
    pub(crate) passing: Option<Passing>,
    /// How long to wait for an address.
    pub(crate) timeout_s: f64,
}

/// How packets pass through an exposed host.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Passing {
    /// As they are.
    Routed,
    /// Under an address of the host.
    Masqueraded,
}

/// `hide`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct HideRequest {
    pub(crate) network: String,
}

fn yes() -> bool {
    true
}

/// A container's attachment to a network.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(crate) struct Attachment {
    pub(crate) container: String,
    pub(crate) network: String,
    pub(crate) name: String,
    /// The first address, as `10.32.0.2/12`.
    pub(crate) address: Option<String>,
    pub(crate) addresses: Vec<String>,
    pub(crate) mac: String,
    pub(crate) ifname: String,
}

/// One line of `ps`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(crate) struct Listed {
    #[serde(flatten)]
    pub(crate) attachment: Attachment,
    pub(crate) peer_id: String,
    pub(crate) nickname: Option<String>,
    /// `running` or `stopped`.
    pub(crate) state: String,
}

/// `detach`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct DetachRequest {
    pub(crate) container: String,
    pub(crate) network: String,
    /// It is a failure when there is nothing to detach.
    #[serde(default)]
    pub(crate) must: bool,
}

/// Answer to `detach`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Detached {
    pub(crate) container: String,
    pub(crate) network: String,
    /// False when there was nothing to detach.
    pub(crate) detached: bool,
}

/// How a capture stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct CaptureTotals {
    /// Frames or datagrams.
    pub(crate) captured: u64,
    /// Missing because the reader was too slow.
    pub(crate) dropped: u64,
}

/// A frame or datagram as `capture` shows it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Captured {
    /// Nanoseconds since 1970.
    pub(crate) at_ns: u64,
    /// `in`, into the switch, or `out`.
    pub(crate) direction: String,
    /// Its length.
    pub(crate) bytes: u32,
    /// What it is.
    pub(crate) summary: String,
}

/// A VTEP of a network.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(crate) struct Vtep {
    pub(crate) network: String,
    pub(crate) address: SocketAddr,
}

/// Answer to `launch`, and what the daemon says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) version: String,
    pub(crate) peer_id: String,
    pub(crate) nickname: String,
    pub(crate) pid: u32,
    /// What people should know at launch.
    #[serde(default)]
    pub(crate) warnings: Vec<String>,
}

/// Answer to `secret generate`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Generated {
    /// Where it is, if it was written to a file.
    pub(crate) file: Option<PathBuf>,
    /// The secret, if it was not.
    pub(crate) secret: Option<String>,
}

/// Answer to `version`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Versions {
    pub(crate) version: String,
    /// Of the running daemon.
    pub(crate) daemon: Option<String>,
}

/// Asks the daemon to leave its cluster for good.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct ResetRequest {
    /// Also when nobody can take the address space.
    pub(crate) force: bool,
}

/// Answer to `reset`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct ResetDone {
    /// False when there was nothing.
    pub(crate) reset: bool,
    /// What was removed.
    pub(crate) state_dir: PathBuf,
}

/// Answer to `stop`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Stopped {
    /// False when nothing ran.
    pub(crate) stopped: bool,
}

#[cfg(test)]
pub(crate) mod tests {
    pub(crate) use super::network::tests::network;
}
