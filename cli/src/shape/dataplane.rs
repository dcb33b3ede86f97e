//! What `status` tells of the data plane.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Passing;

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
