//! What removed hosts leave: their units, and the addresses that their containers may still use.
//!
//! The host that wrote the removal takes the units over, one epoch up, whenever it learns of one: also of those that were
//! granted to the removed host where nobody here saw it. A removed host that comes back gives up what it still
//! takes for its own; the addresses of its containers stay with it, as exceptions, unless somebody else has got them.

use std::net::IpAddr;
use std::time::Instant;

use engine::types::{NetworkId, PeerId, PortId};

use super::{Ipam, IpamOutput};

impl Ipam {
    /// A host was removed, and whoever wrote its removal (`taken_by`) takes its units over. Told at least once for each
    /// removal, and again when `taken_by` was removed too; told with the own id when this host itself was removed and
    /// comes back.
    pub fn set_removed(&mut self, now: Instant, peer: PeerId, taken_by: PeerId) {
        self.states.remove(&peer);
        self.nicknames.remove(&peer);
        self.founding.forget_host(peer);
        if peer == self.own {
            self.hand_over_units(peer, taken_by);
        } else {
            self.removed.insert(peer, taken_by);
            self.absence.remove(peer);
            self.bury_removed();
        }
        self.asking.values_mut().for_each(|asking| asking.forget_refusal(now, taken_by));
        self.progress(now);
    }

    /// An endpoint record died with its host: the container may live on, so its addresses are given out last.
    pub fn bury_endpoint(&mut self, now: Instant, peer: PeerId, port: PortId) -> Vec<(PeerId, PortId)> {
        let network = self.shows_on.get(&(peer, port)).copied();
        let taken = network.and_then(|network| Some((network, self.taken.get(&network)?)));
        let shown: Vec<(NetworkId, IpAddr)> = taken
            .into_iter()
            .flat_map(|(network, taken)| taken.of((peer, port)).iter().map(move |addr| (network, *addr)))
            .collect();
        let touched = self.remove_endpoint(now, peer, port);
        for (network, addr) in shown {
            if let Some(network) = self.state.networks.get_mut(&network) {
                network.local.use_last(addr);
                self.dirty = true;
            }
        }
        touched
    }

    /// What removed hosts had here is free, and what falls to this host is its own.
    pub(super) fn bury_removed(&mut self) {
        for peer in self.removed.keys().copied().collect::<Vec<_>>() {
            for network in self.state.networks.values_mut() {
                self.dirty |= network.local.release_peer(peer);
            }
            self.forget_claims_at(peer);
        }
        self.take_over(None);
    }

    /// Takes the units of removed hosts that fall to this one, in one network or in all.
    pub(super) fn take_over(&mut self, only: Option<NetworkId>) {
        let mine = self.removed.iter().filter(|(_, taker)| **taker == self.own);
        for peer in mine.map(|(peer, _)| *peer).collect::<Vec<_>>() {
            self.hand_over(peer, self.own, only);
        }
    }

    /// All units of a host go to another one, each one epoch up.
    pub(super) fn hand_over_units(&mut self, from: PeerId, to: PeerId) {
        self.hand_over(from, to, None);
    }

    fn hand_over(&mut self, from: PeerId, to: PeerId, only: Option<NetworkId>) {
        let networks: Vec<NetworkId> = match only {
            Some(network) => vec![network],
            None => self.state.networks.keys().copied().collect(),
        };
        for id in networks {
            let Some(network) = self.state.networks.get_mut(&id) else { continue };
            for at in 0..network.spaces.len() {
                let space = &mut network.spaces[at];
                let units: Vec<(u16, u16)> = space.units.of(from).collect();
                let news = space.units.grant(&units, to);
                if news.is_empty() {
                    continue;
                }
                space.grants.remove(&from);
                self.outputs.push_back(IpamOutput::Push(space.table(id, news)));
                if from == self.own {
                    let taken = self.taken.entry(id).or_default();
                    network.forget_lost(at, self.own, taken);
                }
                network.look_again();
                self.dirty = true;
                self.stirred.insert(id);
            }
        }
    }

    /// Nothing can be asked of a removed host, and nothing must be told to it: the owner of the unit is told instead,
    /// and of an address that was never named nobody knows.
    fn forget_claims_at(&mut self, peer: PeerId) {
        let before = self.state.foreign.len();
        self.state.foreign.retain(|_, foreign| foreign.owner != peer || foreign.addr.is_some());
        self.dirty |= self.state.foreign.len() != before;
    }
}
