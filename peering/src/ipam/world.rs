//! What the mesh tells about the world: hosts, targets, endpoints.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use engine::types::{NetworkId, PeerId, PortId};

use super::Ipam;
use crate::mesh::PeerState;
use crate::records::{HostRecord, TargetRecord};

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
        if state != PeerState::Down {
            self.asking.values_mut().for_each(|asking| asking.forget_refusal(now, peer));
        }
        self.progress(now);
    }

    /// A host was removed, and whoever wrote its removal (`taken_by`) takes its units over. Told at least once for each
    /// removal, and again when `taken_by` was removed too; told with the own id when this host itself was removed and
    /// comes back.
    pub fn set_removed(&mut self, now: Instant, peer: PeerId, taken_by: PeerId) {
        self.states.remove(&peer);
        self.asking.values_mut().for_each(|asking| asking.forget_refusal(now, taken_by));
        self.progress(now);
    }

    /// An endpoint record of any host, own ones too: its addresses are taken, whoever owns their units.
    pub fn set_endpoint(
        &mut self,
        peer: PeerId,
        port: PortId,
        network: NetworkId,
        addrs: &[IpAddr],
        name: &str,
    ) {
        self.forget_endpoint(peer, port);
        let taken = self.taken.entry(network).or_default();
        for addr in addrs {
            taken.entry(*addr).or_default().insert((peer, port), name.to_owned());
        }
    }

    /// The tombstone of an endpoint record: its addresses are free again, also those that this host gave to
    /// a port of another one.
    pub fn remove_endpoint(&mut self, now: Instant, peer: PeerId, port: PortId) {
        self.forget_endpoint(peer, port);
        if peer != self.own {
            for network in self.state.networks.values_mut() {
                self.dirty |= network.local.release(peer, port);
            }
        }
        self.progress(now);
    }

    fn forget_endpoint(&mut self, peer: PeerId, port: PortId) {
        for (network, taken) in &mut self.taken {
            let before = taken.len();
            taken.retain(|_, holders| {
                holders.remove(&(peer, port));
                !holders.is_empty()
            });
            if taken.len() != before
                && let Some(network) = self.state.networks.get_mut(network)
            {
                network.local.look_again();
            }
        }
    }

    /// Counts as needing an address for the next five seconds (`status --wait ipam`).
    pub fn want(&mut self, now: Instant, network: NetworkId) {
        self.wanted.insert(network, now + WANTED);
        self.progress(now);
    }
}
