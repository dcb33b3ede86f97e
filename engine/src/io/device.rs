//! Ports as the kernel sees them: persistent TAP devices in the namespaces of containers.

use super::netns::{Netns, NetnsError, NetnsId};
use super::tap::{Offloads, Tap, TapError};
use crate::types::{IpPrefix, MacAddr, PortId};

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
    /// Where it is. Not an open [`Netns`], which would keep a dead container's namespace alive.
    pub netns: NetnsId,
    /// One descriptor per queue. A single-queue device that is reopened has one, whatever was asked for.
    pub queues: Vec<Tap>,
    /// What the kernel agreed to.
    pub offloads: Offloads,
    /// The descriptors were opened inside the namespace and keep it alive: watch it (`io::watch`) and drop
    /// the device when its last other holder is gone.
    pub pins_namespace: bool,
}

/// A device of ours that was found. Pins the namespace while it is held: use it and let go.
#[derive(Clone, Debug)]
pub struct Found {
    /// Which port, by its alias.
    pub port: PortId,
    /// Where it is.
    pub netns: Netns,
    /// The interface's name there.
    pub ifname: String,
}

/// Why a device could not be made, found or opened.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The namespace could not be used.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The TAP device could not be made or opened.
    #[error(transparent)]
    Tap(#[from] TapError),
}
