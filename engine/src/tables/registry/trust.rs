//! Which peers trust the underlay between them and this host, so that frames of sealed networks go in clear.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::{PeerState, Registry};
use crate::tables::Clear;
use crate::types::PeerId;

impl PeerState {
    /// Whether both hosts trust the underlay at `ip`.
    fn trusts(&self, ip: IpAddr) -> bool {
        self.trusted.iter().any(|prefix| prefix.contains(ip))
    }
}

impl Registry {
    /// Whether the peer takes frames in clear where its path is, also on sealed networks. Unknown peers are ignored.
    pub fn set_takes_clear(&mut self, peer: PeerId, takes_clear: bool) {
        let known = self.peers.get_mut(&peer);
        if let Some(state) = known.filter(|state| state.takes_clear != takes_clear) {
            state.takes_clear = takes_clear;
            self.dirty.remotes = true;
        }
    }

    /// The peers with which this host trusts anything in common.
    pub fn trusting_peers(&self) -> Vec<PeerId> {
        let trusting = self.peers.iter().filter(|(_, peer)| !peer.trusted.is_empty());
        trusting.map(|(&id, _)| id).collect()
    }

    /// The addresses of peers that both ends would trust, if datagrams to them leave from the right address.
    pub fn trusted_candidates(&self) -> BTreeSet<IpAddr> {
        let of_peer = |peer: &'_ PeerState| {
            let ips = peer.candidates.iter().map(SocketAddr::ip);
            ips.filter(|ip| peer.trusts(*ip)).collect::<Vec<_>>()
        };
        self.peers.values().flat_map(of_peer).collect()
    }

    /// From which address of this host datagrams to each of [`Registry::trusted_candidates`] leave; replaces what was said
    /// before. True when that changes the tables.
    pub fn set_sources(&mut self, sources: BTreeMap<IpAddr, IpAddr>) -> bool {
        let changed = self.sources != sources;
        self.sources = sources;
        self.dirty.remotes |= changed;
        self.dirty.sources |= changed;
        changed
    }

    /// What [`Registry::set_sources`] was told last.
    pub fn sources(&self) -> &BTreeMap<IpAddr, IpAddr> {
        &self.sources
    }

    /// The addresses from which frames in clear are taken, also on sealed networks: both hosts trust them and the address
    /// of this host that faces them. One that several hosts have must be trusted with all of them.
    pub fn clear_sources(&self) -> BTreeSet<IpAddr> {
        if self.sources.is_empty() {
            return BTreeSet::new();
        }
        let mut clear = BTreeMap::new();
        for peer in self.peers.values() {
            for ip in peer.candidates.iter().map(SocketAddr::ip) {
                *clear.entry(ip).or_insert(true) &= self.is_clear(peer, ip);
            }
        }
        clear.into_iter().filter(|&(_, clear)| clear).map(|(ip, _)| ip).collect()
    }

    /// The peers to which frames go in clear, also those of sealed networks.
    pub fn peers_in_clear(&self) -> BTreeSet<PeerId> {
        let in_clear = self.peers.iter().filter(|(_, peer)| self.sends_clear(peer));
        in_clear.map(|(&id, _)| id).collect()
    }

    /// This host would send in clear, and the peer says that it takes that.
    pub(super) fn sends_clear(&self, peer: &PeerState) -> bool {
        peer.takes_clear && peer.path.is_some_and(|path| self.is_clear(peer, path.ip()))
    }

    /// Whether both hosts trust the way between this one and the address `ip` of the peer.
    fn is_clear(&self, peer: &PeerState, ip: IpAddr) -> bool {
        peer.trusts(ip) && self.sources.get(&ip).is_some_and(|own| peer.trusts(*own))
    }

    /// For each of [`Registry::clear_sources`] what each peer with that address trusts in common with this host.
    pub(super) fn build_clear(&self) -> Clear {
        let of = |ip: IpAddr| {
            let peers =
                self.peers.values().filter(move |peer| peer.candidates.iter().any(|at| at.ip() == ip));
            peers.map(|peer| peer.trusted.clone().into_boxed_slice()).collect()
        };
        self.clear_sources().into_iter().map(|ip| (ip, of(ip))).collect()
    }
}
