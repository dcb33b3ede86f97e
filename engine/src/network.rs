//! One network of this host, as the workers see it: who is on it and where floods go.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use crate::fdb::{Learned, Pins};
use crate::groups::Groups;
use crate::switch::Port;
use crate::tables::{PortIndex, RemoteIndex};
use crate::types::{IpPrefix, MacAddr, Vni};

/// One network, immutable but for the stations and memberships it learns.
#[derive(Clone, Debug)]
pub struct Network {
    pub(crate) vni: Vni,
    pub(crate) mtu: u16,
    pub(crate) sealed: bool,
    pub(crate) gateways: Box<[IpPrefix]>,
    pub(crate) pins: Arc<Pins>,
    pub(crate) learned: Arc<Learned>,
    pub(crate) groups: Arc<Groups>,
    pub(crate) ports: Box<[PortIndex]>,
    pub(crate) remotes: Box<[RemoteIndex]>,
}

impl Network {
    /// Its number on the wire.
    pub fn vni(&self) -> Vni {
        self.vni
    }

    /// The largest packet in bytes, without the Ethernet header.
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// From which gateway address a station is told something: that of its subnet, or any of its family.
    pub fn gateway_for(&self, station: IpAddr) -> Option<IpAddr> {
        let of_family =
            || self.gateways.iter().filter(move |gateway| gateway.addr.is_ipv4() == station.is_ipv4());
        let own = of_family().find(|gateway| gateway.contains(station));
        own.or_else(|| of_family().next()).map(|gateway| gateway.addr)
    }

    /// Whether its frames go to other hosts sealed, and in no other way.
    pub fn is_sealed(&self) -> bool {
        self.sealed
    }

    /// The addresses of the gateway, each with the prefix of its subnet.
    pub fn gateways(&self) -> &[IpPrefix] {
        &self.gateways
    }

    /// Whether `addr` is one of the gateway's.
    pub fn is_gateway(&self, addr: IpAddr) -> bool {
        self.gateways.iter().any(|gateway| gateway.addr == addr)
    }

    /// Its first IPv4 address of the gateway.
    pub fn gateway_v4(&self) -> Option<Ipv4Addr> {
        self.gateways.iter().find_map(|gateway| match gateway.addr {
            IpAddr::V4(addr) => Some(addr),
            IpAddr::V6(_) => None,
        })
    }

    /// The station that has `addr`: the gateway, or an endpoint that was told of.
    pub fn holder(&self, addr: IpAddr) -> Option<MacAddr> {
        if self.is_gateway(addr) { Some(MacAddr::gateway(self.vni)) } else { self.pins.mac_of(addr) }
    }

    /// What the control plane told.
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// What was seen in traffic.
    pub fn learned(&self) -> &Learned {
        &self.learned
    }

    /// Who has joined which multicast group.
    pub fn groups(&self) -> &Groups {
        &self.groups
    }

    /// The local ports on it.
    pub fn ports(&self) -> &[PortIndex] {
        &self.ports
    }

    /// Where floods go beyond this host: peers with a path, and VTEPs, each address once.
    pub fn remotes(&self) -> &[RemoteIndex] {
        &self.remotes
    }

    /// Notes the source of a frame, unless its place is pinned.
    pub fn learn(&self, mac: MacAddr, port: Port, now_s: u32) {
        if self.pins.get(mac).is_none() {
            self.learned.learn(mac, port, now_s);
        }
    }
}
