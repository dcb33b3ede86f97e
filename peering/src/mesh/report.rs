//! The control plane as `status` shows it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use engine::types::PeerId;

use super::{Mesh, MeshStatus, PeerState, PeerStatus};
use crate::gossip::state_hash;

impl Mesh {
    /// The control plane at this moment; every list is sorted.
    pub fn status(&self, now: Instant) -> MeshStatus {
        MeshStatus {
            peer_id: self.me.to_string(),
            nickname: self.config.nickname.clone(),
            cluster_id: self.ipam.cluster().map(|cluster| cluster.to_string()),
            state_hash: state_hash(&self.store, &self.ipam).to_string(),
            peers: self.peer_status(),
            targets: self.topology.target_status(now),
            connections: self.topology.connection_status(now),
            ipam: self.ipam.status(now),
            events: self.journal.status(now),
        }
    }

    fn peer_status(&self) -> Vec<PeerStatus> {
        let members = self.membership.states();
        let mut known: BTreeMap<PeerId, PeerState> =
            self.store.hosts().map(|(peer, _)| (peer, PeerState::Down)).collect();
        known.extend(members);
        known.retain(|peer, _| *peer != self.me && !self.store.removed(*peer));
        let peers = known.into_iter();
        peers
            .map(|(peer, state)| PeerStatus {
                peer_id: peer.to_string(),
                nickname: self.nickname(peer),
                address: self.peer_address(peer),
                state,
            })
            .collect()
    }

    fn peer_address(&self, peer: PeerId) -> Option<SocketAddr> {
        let remote = self.topology.best(peer).and_then(|conn| self.topology.far_end(conn));
        let told = || self.store.host(peer).and_then(|host| host.control_addrs.first().copied());
        remote.map(|(_, remote, _)| remote).or_else(told)
    }
}
