//! The forwarding tables: built on the control side, read by the workers without a lock.
//!
//! A [`Registry`] takes what the control plane says ([`Update`](crate::Update)), which ports are open and which paths answer, and
//! builds [`Tables`]: an immutable snapshot that shares every network that did not change with the one before.

mod listing;
mod moved;
mod registry;
mod slots;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use foldhash::fast::RandomState;

use crate::counters::DropReason;
use crate::fence::Fence;
use crate::network::Network;
use crate::offload::tunnel::Through;
use crate::session::epoch::Epoch;
use crate::switch::Port;
use crate::types::{IpPrefix, PeerId, PortId, Vni};
use crate::wire::{ether, sealed, vxlan};

pub use listing::{Entry, Place};
pub use moved::Moved;
pub use registry::Registry;

/// A local port, as a small number. Numbers of closed ports are used again, not before nothing points there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PortIndex(pub(crate) u32);

/// A peer or a VTEP, as a small number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RemoteIndex(pub(crate) u32);

impl PortIndex {
    /// The plain number, to index arrays.
    pub const fn get(self) -> usize {
        self.0 as usize
    }
}

impl RemoteIndex {
    /// The plain number, to index arrays.
    pub const fn get(self) -> usize {
        self.0 as usize
    }
}

/// Where datagrams for a peer or a VTEP go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Remote {
    /// The address in use.
    pub addr: SocketAddr,
    /// The peer, none for a VTEP.
    pub peer: Option<PeerId>,
    /// Whether datagrams for it may leave from other ports than the data port: it is where it says it is.
    pub spread: bool,
    /// Whether frames go there in clear also on sealed networks: both hosts trust the way.
    pub clear: bool,
    /// The device that takes super-frames for it whole, if there is one on the way.
    pub through: Option<Through>,
    /// The longest datagram to send, in bytes of UDP payload.
    pub room: u16,
}

impl Remote {
    /// What a remote has room for whose path is not known to be smaller than its network.
    pub const ANY_ROOM: u16 = u16::MAX;

    /// The largest packet that can be sent to it, of a network whose own largest is `mtu`.
    pub fn mtu(&self, mtu: u16, is_sealed: bool) -> u16 {
        const AROUND: usize = vxlan::LEN + ether::LEN;
        let around = AROUND + if is_sealed { sealed::OVERHEAD } else { 0 };
        mtu.min(self.room.saturating_sub(around as u16))
    }
}

/// A port of this host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LocalPort {
    /// Its id.
    pub id: PortId,
    /// The network it is on.
    pub vni: Vni,
    /// What its container may send; none: anything.
    pub fence: Option<Arc<Fence>>,
}

type Map<K, V> = HashMap<K, V, RandomState>;

/// One snapshot of everything a worker needs to forward.
#[derive(Clone, Debug)]
pub struct Tables {
    networks: Map<Vni, Arc<Network>>,
    sources: Arc<Sources>,
    /// From where frames in clear are taken on sealed networks, and to where.
    clear: Arc<Clear>,
    remotes: Arc<[Option<Remote>]>,
    ports: Arc<[Option<LocalPort>]>,
    sessions: Arc<SessionTable>,
    /// What learned ages are counted from.
    epoch: Instant,
}

/// For each address that may send: the networks on which it may, in order, and as whom.
type Sources = Map<IpAddr, Vec<(Vni, RemoteIndex)>>;

/// For each address from which frames in clear are taken the trusted subnets, of each peer with that address.
type Clear = Map<IpAddr, Box<[Box<[IpPrefix]>]>>;

/// The sessions with peers.
#[derive(Default, Debug)]
struct SessionTable {
    /// By the number that this host chose.
    openers: Map<u32, Opener>,
    /// What frames for a remote are sealed in, by its index.
    seals: Box<[Option<Arc<Epoch>>]>,
}

/// A session whose frames are opened.
#[derive(Debug)]
pub struct Opener {
    pub(crate) epoch: Arc<Epoch>,
    pub(crate) from: RemoteIndex,
    /// The networks its peer is on, in order.
    networks: Box<[Vni]>,
}

impl Opener {
    /// Whether its peer is on this network.
    pub(crate) fn is_on(&self, vni: Vni) -> bool {
        self.networks.binary_search(&vni).is_ok()
    }
}

impl Tables {
    /// Who a datagram for `vni` from the underlay address `ip` is from.
    ///
    /// # Errors
    /// [`DropReason::UnknownSource`], [`DropReason::UnknownVni`], [`DropReason::NotOnNetwork`].
    pub fn source(&self, ip: IpAddr, vni: Vni) -> Result<RemoteIndex, DropReason> {
        let members = self.sources.get(&ip.to_canonical()).ok_or(DropReason::UnknownSource)?;
        match members.binary_search_by_key(&vni, |&(vni, _)| vni) {
            Ok(at) => members.get(at).map(|&(_, remote)| remote).ok_or(DropReason::NotOnNetwork),
            Err(_) if self.networks.contains_key(&vni) => Err(DropReason::NotOnNetwork),
            Err(_) => Err(DropReason::UnknownVni),
        }
    }

    /// Whether frames in clear from the underlay address `from` to the one `to`, which may be unknown, are taken on `network`.
    pub fn takes_clear(&self, network: &Network, from: IpAddr, to: Option<IpAddr>) -> bool {
        !network.is_sealed() || to.is_some_and(|to| self.is_trusted(from, to))
    }

    fn is_trusted(&self, from: IpAddr, to: IpAddr) -> bool {
        let of_peers = self.clear.get(&from.to_canonical());
        of_peers.is_some_and(|all| all.iter().all(|subnets| subnets.iter().any(|subnet| subnet.contains(to))))
    }

    /// Whether frames of `network` are sealed on their way to `remote`.
    pub fn seals(&self, network: &Network, remote: RemoteIndex) -> bool {
        network.is_sealed() && !self.remote(remote).is_some_and(|remote| remote.clear)
    }

    /// Who sends from the underlay address `ip`, on whatever network.
    pub fn sender(&self, ip: IpAddr) -> Option<RemoteIndex> {
        self.sources.get(&ip.to_canonical())?.first().map(|&(_, remote)| remote)
    }

    /// The session that this host named so.
    pub fn opener(&self, number: u32) -> Option<&Opener> {
        self.sessions.openers.get(&number)
    }

    /// The session in which frames for `remote` are sealed.
    pub fn epoch(&self, remote: RemoteIndex) -> Option<&Epoch> {
        self.sessions.seals.get(remote.get()).and_then(Option::as_deref)
    }

    /// A network of this host.
    pub fn network(&self, vni: Vni) -> Option<&Network> {
        self.networks.get(&vni).map(Arc::as_ref)
    }

    /// Where to send for `remote`; none for a peer without a path.
    pub fn remote(&self, remote: RemoteIndex) -> Option<&Remote> {
        self.remotes.get(remote.get()).and_then(Option::as_ref)
    }

    /// What `port` is, if it is open.
    pub fn port(&self, port: PortIndex) -> Option<&LocalPort> {
        self.ports.get(port.get()).and_then(Option::as_ref)
    }

    /// Whether the container behind a port may send `frame`.
    ///
    /// # Errors
    /// What the fence of the port finds wrong with it; [`DropReason::PortGone`] for a port that is not open.
    #[inline]
    pub fn judge(&self, port: PortIndex, frame: &[u8]) -> Result<(), DropReason> {
        match self.port(port) {
            Some(LocalPort { fence: Some(fence), .. }) => fence.judge(frame),
            Some(LocalPort { fence: None, .. }) => Ok(()),
            None => Err(DropReason::PortGone),
        }
    }

    /// Whether frames can be sent to `port` on the network `vni` now.
    pub(crate) fn reaches(&self, port: Port, vni: Vni) -> bool {
        match port {
            Port::Tap(index) => self.port(index).is_some_and(|port| port.vni == vni),
            Port::Remote(index) => self.remote(index).is_some(),
        }
    }

    /// `now` in whole seconds since these tables' registry was made.
    pub(crate) fn seconds(&self, now: Instant) -> u32 {
        now.saturating_duration_since(self.epoch).as_secs() as u32
    }
}
