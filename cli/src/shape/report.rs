//! The shapes of `report`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use peering::mesh::MeshTables;
use serde::{Deserialize, Serialize};

use super::{Listed, Status, Vtep};
use crate::failure::Failure;

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
