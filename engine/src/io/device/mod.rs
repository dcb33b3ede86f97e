//! Ports as the kernel sees them: persistent TAP devices in the namespaces of containers.
//!
//! A port is made once ([`create`]) and outlives the process: descriptors closed, it stays with its addresses and
//! routes, without carrier. A later process finds it by its alias ([`find`]) and opens it again ([`reopen`]).
//! Nothing is kept open here but the descriptors of its queues.

mod create;
mod find;

use super::netlink::NetlinkError;
use super::netns::{NetnsError, NetnsId};
use super::tap::{Offloads, Tap, TapError};
use crate::types::{IpPrefix, MacAddr, PortId};

pub use create::{create, readdress};
pub use find::{Found, destroy, find, reopen, strays};

/// The longest super-frame a port is given, in bytes. With the headers of each of its segments it still fits one
/// `UDP_SEGMENT` send.
pub const GSO_MAX_SIZE: u32 = 61_900;
/// Frames that may wait in each queue of a port; a super-frame counts as one. More is delay, fewer is loss: chosen by a
/// sweep (docs/decisions/0014-ring-length.md).
pub const QUEUE_LEN: u32 = 100;

/// What a port should look like in its namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortSpec {
    /// Which port; kept in the alias of the interface, `meshnet:<port id>`.
    pub port: PortId,
    /// The interface's MAC address.
    pub mac: MacAddr,
    /// Its addresses; each brings its connected route, nothing else is routed.
    pub addresses: Vec<IpPrefix>,
    /// The largest packet, in bytes, without the Ethernet header.
    pub mtu: u16,
    /// The interface's name. None: `mesh0`, or the next free number.
    pub ifname: Option<String>,
    /// How many queues: one per worker. One makes a single-queue device.
    pub queues: usize,
}

/// An open port. Dropping it closes the descriptors; the interface stays, without carrier.
#[derive(Debug)]
pub struct Device {
    /// Which port.
    pub port: PortId,
    /// The interface's name in its namespace.
    pub ifname: String,
    /// Where it is. Not an open [`super::netns::Netns`], which would keep a dead container's namespace alive.
    pub netns: NetnsId,
    /// One descriptor per queue. A single-queue device that is reopened has one, whatever was asked for.
    pub queues: Vec<Tap>,
    /// What the kernel agreed to.
    pub offloads: Offloads,
    /// The descriptors were opened inside the namespace and keep it alive: have it watched
    /// ([`super::watch::Watcher`]) and drop the device when its last other holder is gone.
    pub pins_namespace: bool,
}

/// Why a device could not be made, found or opened.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The namespace could not be used.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// An interface could not be set up.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The TAP device could not be made or opened.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// The wanted name is taken.
    #[error("the namespace has an interface named {ifname} already; choose another name")]
    NameInUse {
        /// The name.
        ifname: String,
    },
    /// The namespace has a device of this port.
    #[error("port {port} exists already, as {ifname}")]
    Exists {
        /// The port.
        port: PortId,
        /// Its interface.
        ifname: String,
    },
    /// An IPv6 address is wanted where there is no IPv6, or it is switched off and cannot be switched on.
    #[error("cannot add {prefix}: there is no IPv6 in the namespace")]
    Ipv6Off {
        /// The address.
        prefix: IpPrefix,
    },
    /// The device or its namespace vanished meanwhile.
    #[error("the device of port {port} is gone")]
    Gone {
        /// The port.
        port: PortId,
    },
}

impl DeviceError {
    /// True when the same call may succeed a moment later: a former process still has the device open.
    pub fn is_retryable(&self) -> bool {
        matches!(self, DeviceError::Tap(e) if e.is_retryable())
    }
}

const ALIAS_PREFIX: &str = "meshnet:";

/// The alias by which a device is known as ours.
pub fn alias(port: PortId) -> String {
    format!("{ALIAS_PREFIX}{port}")
}

/// The port whose interface has this alias, if it is one of ours.
pub fn port_of(alias: &str) -> Option<PortId> {
    alias.strip_prefix(ALIAS_PREFIX)?.parse().ok()
}
