//! The forwarding tables for people.

use std::net::SocketAddr;
use std::time::Instant;

use super::Tables;
use crate::switch::Port;
use crate::types::{MacAddr, PeerId, PortId, Vni};

/// One line of the forwarding table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Entry {
    /// The network.
    pub vni: Vni,
    /// The station.
    pub mac: MacAddr,
    /// Where frames for it go; none while that is not reachable.
    pub place: Option<Place>,
    /// Seconds since it was last seen; none for an entry that the control plane pinned.
    pub age_s: Option<u32>,
}

/// Where frames go.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Place {
    /// To a container of this host.
    Port(PortId),
    /// To another host, or to a VTEP.
    Remote {
        /// The underlay address.
        addr: SocketAddr,
        /// The host; none of a VTEP.
        peer: Option<PeerId>,
    },
}

impl Tables {
    /// All entries, pinned and learned, in order.
    pub fn entries(&self, now: Instant) -> Vec<Entry> {
        let now_s = self.seconds(now);
        let mut entries = Vec::new();
        for (&vni, network) in &self.networks {
            let pinned = network.pins().list().into_iter().map(|(mac, port)| (mac, port, None));
            let learned = network.learned().list(now_s).into_iter();
            let learned = learned.map(|(mac, port, age_s)| (mac, Some(port), Some(age_s)));
            entries.extend(pinned.chain(learned).map(|(mac, port, age_s)| Entry {
                vni,
                mac,
                place: port.and_then(|port| self.place(port)),
                age_s,
            }));
        }
        entries.sort_unstable();
        entries
    }

    fn place(&self, port: Port) -> Option<Place> {
        match port {
            Port::Tap(index) => self.port(index).map(|port| Place::Port(port.id)),
            Port::Remote(index) => {
                self.remote(index).map(|remote| Place::Remote { addr: remote.addr, peer: remote.peer })
            }
        }
    }
}
