//! The shapes of requests and answers: what crosses the socket, and what `-o json` prints.
//!
//! Field names are fixed: more may be added, none is renamed. Lists are sorted; seconds and bytes are numbers.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use peering::mesh::{
    EventStatus, HolderStatus, IpamStatus, MeshTables, PeerState, RotationStatus, TargetStatus,
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::failure::Failure;

mod dns;
mod network;

pub(crate) use dns::{
    DnsAddRequest, DnsForwarded, DnsName, DnsRemoveRequest, DnsRemoved, DnsStatus, LookedUp, LookupRequest,
};
pub(crate) use network::{
    CreateRequest, Inspected, Member, Network, NetworkNames, NetworkPeer, RemovedNetworks, Subnet,
    SubnetRequest,
};

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

/// Ports, counters and offloads of this host's switch.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Dataplane {
    pub(crate) workers: Vec<Worker>,
    /// What takes handshakes and probes.
    #[serde(default)]
    pub(crate) control: ControlSocket,
    pub(crate) ports: Vec<Port>,
    /// Segments and control datagrams dropped, by reason.
    pub(crate) drops: BTreeMap<String, u64>,
    pub(crate) conservation: Conservation,
    /// What the gateway did, by name.
    #[serde(default)]
    pub(crate) gateway: BTreeMap<String, u64>,
    pub(crate) offloads: Vec<Offload>,
    /// Interfaces with our alias that belong to no port of this daemon and to no running daemon.
    pub(crate) unclaimed: Vec<Unclaimed>,
}

/// The sockets for handshakes and probes, together.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ControlSocket {
    /// Memory that datagrams waiting in them take, in bytes, and how much they may take.
    pub(crate) socket_queued_bytes: u32,
    pub(crate) socket_buffer_bytes: u32,
    /// Datagrams for which they had no room.
    pub(crate) kernel_drops: u32,
}

/// What became of every segment: `in + copies + recut + from_gateway = out + drops + to_gateway` at rest.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Conservation {
    /// From containers and other hosts.
    #[serde(rename = "in")]
    pub(crate) taken: u64,
    /// Made by floods.
    pub(crate) copies: u64,
    /// Made by cutting smaller than the sender asked.
    pub(crate) recut: u64,
    /// To containers and other hosts.
    #[serde(rename = "out")]
    pub(crate) given: u64,
    pub(crate) drops: u64,
    /// Questions whose answers went out in their place.
    pub(crate) answered: u64,
    /// Given to the gateway, where they end.
    #[serde(default)]
    pub(crate) to_gateway: u64,
    /// Made by the gateway.
    #[serde(default)]
    pub(crate) from_gateway: u64,
    /// 0 at rest: more were lost without a reason, less appeared from nowhere.
    pub(crate) difference: i64,
}

/// What one thread of the data plane did so far.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Worker {
    /// From containers.
    pub(crate) port_frames_in: u64,
    pub(crate) port_bytes_in: u64,
    pub(crate) port_batches_in: u64,
    pub(crate) port_mean_batch_in: Option<f64>,
    pub(crate) port_segments_in: u64,
    /// To containers.
    pub(crate) port_frames_out: u64,
    pub(crate) port_bytes_out: u64,
    pub(crate) port_batches_out: u64,
    pub(crate) port_mean_batch_out: Option<f64>,
    pub(crate) port_segments_out: u64,
    /// From other hosts.
    pub(crate) remote_frames_in: u64,
    pub(crate) remote_bytes_in: u64,
    pub(crate) remote_batches_in: u64,
    pub(crate) remote_mean_batch_in: Option<f64>,
    pub(crate) remote_segments_in: u64,
    /// To other hosts.
    pub(crate) remote_frames_out: u64,
    pub(crate) remote_bytes_out: u64,
    pub(crate) remote_batches_out: u64,
    pub(crate) remote_mean_batch_out: Option<f64>,
    pub(crate) remote_segments_out: u64,
    /// Of many segments, cut into datagrams.
    pub(crate) super_frames_cut: u64,
    /// Sent whole, for the device on the way to cut.
    #[serde(default)]
    pub(crate) super_frames_whole: u64,
    /// Of many datagrams, joined.
    pub(crate) super_frames_joined: u64,
    /// Segments dropped, by reason.
    pub(crate) drops: BTreeMap<String, u64>,
    /// Memory that datagrams waiting in its socket take, in bytes, and how much they may take.
    pub(crate) socket_queued_bytes: u32,
    pub(crate) socket_buffer_bytes: u32,
    /// Datagrams for which its socket had no room.
    pub(crate) kernel_drops: u32,
}

/// A port of this host.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Port {
    pub(crate) port: String,
    pub(crate) container: String,
    pub(crate) network: String,
    pub(crate) ifname: String,
    /// `running` or `stopped`.
    pub(crate) state: String,
    /// The limit in each direction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rate_bits_per_second: Option<u64>,
    /// Of an exposed host: what passes between the network and elsewhere; absent where nothing does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) passing: Option<Passing>,
    /// Its container may send in any name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) no_spoof_check: bool,
    /// From the container, since the daemon started.
    pub(crate) frames_in: u64,
    pub(crate) bytes_in: u64,
    pub(crate) batches_in: u64,
    pub(crate) mean_batch_in: Option<f64>,
    pub(crate) segments_in: u64,
    pub(crate) super_frames_in: u64,
    /// To the container.
    pub(crate) frames_out: u64,
    pub(crate) bytes_out: u64,
    pub(crate) batches_out: u64,
    pub(crate) mean_batch_out: Option<f64>,
    pub(crate) segments_out: u64,
    pub(crate) super_frames_out: u64,
    /// Segments that its container sent and that went nowhere, and those that its device did not take, by reason.
    pub(crate) drops: BTreeMap<String, u64>,
    /// What the kernel granted and refused for its device; empty while it is not open.
    pub(crate) offloads: Vec<Offload>,
    /// How many frames wait in each of its rings at most; null where the device was not looked at.
    pub(crate) queue_length: Option<u32>,
    /// Frames that the container sent while the ring was full; null where the device was not looked at.
    pub(crate) kernel_drops_in: Option<u64>,
    /// Frames for it that its kernel threw away; null where the device was not looked at.
    pub(crate) kernel_drops_out: Option<u64>,
}

/// An offload of the kernel, and whether it could be had.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(crate) struct Offload {
    pub(crate) name: String,
    pub(crate) granted: bool,
    /// Why it was refused.
    pub(crate) reason: Option<String>,
}

/// An interface nobody owns.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(crate) struct Unclaimed {
    pub(crate) port: String,
    pub(crate) ifname: String,
    /// Inode of the namespace it is in.
    pub(crate) netns: u64,
}

/// `report`: everything that may help to find a fault. No key and no secret is in it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Of this program.
    pub(crate) version: String,
    /// Seconds since 1970.
    pub(crate) at_s: u64,
    /// What the daemon tells; null while none runs.
    pub(crate) daemon: Option<DaemonReport>,
    /// Why there is no word of the daemon.
    pub(crate) failure: Option<Failure>,
    pub(crate) kernel: Kernel,
}

/// The part of a report that comes from the daemon.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Reported {
    pub(crate) daemon: DaemonReport,
    /// As the daemon sees it.
    pub(crate) kernel: Kernel,
}

/// What the daemon tells of itself.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct DaemonReport {
    pub(crate) process: Process,
    pub(crate) status: Status,
    pub(crate) ps: Vec<Listed>,
    pub(crate) vteps: Vec<Vtep>,
    /// The forwarding table of the data plane.
    pub(crate) forwarding: Vec<Forwarding>,
    /// The tables of the control plane.
    pub(crate) tables: MeshTables,
    /// The last lines of the log, oldest first.
    pub(crate) log: Vec<String>,
}

/// The process of the daemon.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) version: String,
    pub(crate) uptime_s: f64,
    /// The words it was started with.
    pub(crate) command_line: Vec<String>,
    pub(crate) state_dir: String,
    pub(crate) resident_kib: Option<u64>,
    pub(crate) threads: Option<u64>,
    pub(crate) descriptors: Option<u64>,
    pub(crate) privileges: Privileges,
}

/// What the threads of the daemon may do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Privileges {
    /// What any of them has in any set but the bounding one, as `CAP_NET_ADMIN`.
    pub(crate) capabilities: Vec<String>,
    /// What could be had by executing a program, were it not for `no_new_privs`.
    pub(crate) bounding: Vec<String>,
    /// No program that is executed gives more.
    pub(crate) no_new_privs: bool,
    /// A crash leaves an image of the memory, and others may look into it.
    pub(crate) dumpable: bool,
}

/// A line of the forwarding table.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Forwarding {
    pub(crate) vni: u32,
    pub(crate) mac: String,
    /// The port of this host where the station is.
    pub(crate) port: Option<String>,
    /// The underlay address behind which it is.
    pub(crate) address: Option<SocketAddr>,
    /// The host behind which it is.
    pub(crate) peer_id: Option<String>,
    /// Seconds since it was last seen; null of an entry that comes from a record.
    pub(crate) age_s: Option<u32>,
}

/// The machine.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Kernel {
    pub(crate) version: String,
    pub(crate) system: Option<String>,
    pub(crate) architecture: String,
    pub(crate) processors: usize,
    pub(crate) processor: Option<String>,
    pub(crate) memory_kib: Option<u64>,
    pub(crate) memory_available_kib: Option<u64>,
    /// By path below /proc/sys.
    pub(crate) settings: BTreeMap<String, String>,
    /// Null when there is no state directory.
    pub(crate) state_disk: Option<StateDisk>,
    pub(crate) addresses: Vec<HostAddress>,
    /// Of the main table.
    pub(crate) routes: Vec<HostRoute>,
}

/// The file system of the state directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct StateDisk {
    pub(crate) size_bytes: u64,
    pub(crate) available_bytes: u64,
    pub(crate) read_only: bool,
}

/// An address of the host.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(crate) struct HostAddress {
    pub(crate) interface: String,
    pub(crate) address: String,
}

/// A route of the host.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(crate) struct HostRoute {
    pub(crate) destination: String,
    pub(crate) gateway: Option<IpAddr>,
    pub(crate) interface: String,
}

#[cfg(test)]
pub(crate) mod tests {
    pub(crate) use super::network::tests::network;
}
