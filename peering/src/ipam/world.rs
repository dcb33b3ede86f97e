//! What the mesh tells about the world: hosts, targets, endpoints.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use engine::types::{NetworkId, PeerId, PortId};

use super::Ipam;
use super::taken::{EndpointId, Holder};
use crate::mesh::PeerState;
use crate::records::{EndpointRecord, HostRecord, TargetRecord};

/// How long a wish without a request counts as a need.
const WANTED: Duration = Duration::from_secs(5);

impl Ipam {
    /// The targets of this host, and who answered at each. An unresolved one holds a founding up.
    pub fn set_targets(&mut self, now: Instant, targets: Vec<TargetRecord>) {
        self.founding.set_targets(targets);
        self.progress(now);
    }

    /// A host record is new or changed.
    pub fn set_host(&mut self, now: Instant, peer: PeerId, host: &HostRecord) {
        self.nicknames.insert(peer, host.nickname.clone());
        // Only a host that is no longer removed has a record.
        self.removed.remove(&peer);
        self.absence.add(peer);
        if peer != self.own {
            self.founding.set_host(peer, host.targets.clone());
        }
        self.progress(now);
    }

    /// What membership says of a host. A host of which nothing was said is asked like one that is alive.
    pub fn set_state(&mut self, now: Instant, peer: PeerId, state: PeerState) {
        let before = self.states.insert(peer, state);
        if before == Some(state) {
            return;
        }
        self.look_at_donors();
        if state != PeerState::Down {
            self.absence.seen(peer);
            self.asking.values_mut().for_each(|asking| asking.forget_refusal(now, peer));
        }
        self.progress(now);
    }

    /// An endpoint record of any host on a network, own ones too: its addresses are taken, whoever owns their units. Returns
    /// the other endpoints with which it shares an address, or shared one before: who is the winner may have changed.
    pub fn set_endpoint(
        &mut self,
        now: Instant,
        peer: PeerId,
        network: NetworkId,
        endpoint: &EndpointRecord,
    ) -> Vec<(PeerId, PortId)> {
        let EndpointRecord { port, ref name, given, claim_version: claim, .. } = *endpoint;
        let mut touched = self.forget_endpoint(peer, port);
        let addrs: Vec<IpAddr> = endpoint.addresses.iter().map(|prefix| prefix.addr).collect();
        let holder = Holder { name: name.clone(), given, claim };
        self.taken.entry(network).or_default().set((peer, port), &addrs, &holder);
        self.shows_on.insert((peer, port), network);
        self.stirred.insert(network);
        touched.extend(self.sharers(network, (peer, port), &addrs));
        if peer == self.own || !touched.is_empty() {
            self.contested.insert(network);
        }
        self.find_disputes(now);
        touched
    }

    /// The tombstone of an endpoint record: its addresses are free again, also those that this host gave to
    /// a port of another one. Returns the endpoints with which it shared an address.
    pub fn remove_endpoint(&mut self, now: Instant, peer: PeerId, port: PortId) -> Vec<(PeerId, PortId)> {
        let touched = self.forget_endpoint(peer, port);
        if peer != self.own {
            for network in self.state.networks.values_mut() {
                self.dirty |= network.local.release(peer, port);
            }
        }
        self.progress(now);
        touched
    }

    fn forget_endpoint(&mut self, peer: PeerId, port: PortId) -> Vec<(PeerId, PortId)> {
        let Some(network) = self.shows_on.remove(&(peer, port)) else { return Vec::new() };
        let addrs = self.taken.entry(network).or_default().remove((peer, port));
        let touched = self.sharers(network, (peer, port), &addrs);
        if let Some(known) = self.state.networks.get_mut(&network) {
            known.look_again();
        }
        self.stirred.insert(network);
        if peer == self.own || !touched.is_empty() {
            self.contested.insert(network);
        }
        touched
    }

    /// The other endpoints that show one of these addresses.
    fn sharers(&self, network: NetworkId, not: EndpointId, addrs: &[IpAddr]) -> Vec<EndpointId> {
        let Some(taken) = self.taken.get(&network) else { return Vec::new() };
        let holders = addrs.iter().flat_map(|addr| taken.holders(*addr));
        holders.map(|(id, _)| *id).filter(|id| *id != not).collect()
    }

    /// Counts as needing an address for the next five seconds (`status --wait ipam`).
    pub fn want(&mut self, now: Instant, network: NetworkId) {
        self.wanted.insert(network, now + WANTED);
        self.progress(now);
    }
}
