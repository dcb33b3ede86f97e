//! The control plane as `status` shows it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use engine::types::PeerId;

use super::{
    EventStatus, HolderStatus, Mesh, MeshStatus, PeerState, PeerStatus, RotationStatus, TargetStatus,
};
use crate::gossip::{Record, StateHash, state_hash};
use crate::proto::UnitTable;
use crate::records::Phase;
use crate::rotation::is_lost;

impl Mesh {
    /// The control plane at this moment; every list is sorted.
    pub fn status(&self, now: Instant) -> MeshStatus {
        MeshStatus {
            peer_id: self.me.to_string(),
            nickname: self.config.nickname.clone(),
            cluster_id: self.ipam.cluster().map(|cluster| cluster.to_string()),
            state_hash: self.state_hash().to_string(),
            peers: self.peer_status(),
            targets: self.topology.target_status(now),
            connections: self.connection_status(now),
            refused: self.refusals.counts(),
            rotation: self.rotation_status(),
            ipam: self.ipam.status(now),
            clone_of: self.clone_of().map(str::to_owned),
            events: self.journal.status(now),
        }
    }

    /// A hash of the live records and units: equal on hosts that agree.
    pub fn state_hash(&self) -> StateHash {
        state_hash(&self.store, &self.ipam)
    }

    /// Every record this host holds, tombstones included, in the order of their slots.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.store.all().map(|record| &**record)
    }

    /// Who owns which units, as this host has it on disk.
    pub fn unit_tables(&self) -> Vec<UnitTable> {
        self.ipam.unit_tables()
    }

    /// Another host has the key of this one and was there before: that and where, in the words of the host that saw both.
    pub fn clone_of(&self) -> Option<&str> {
        self.clones.oneself()
    }

    /// How many other hosts are alive or suspect.
    pub fn alive(&self) -> usize {
        self.membership.alive_count()
    }

    /// The last things worth telling, oldest first.
    pub fn events(&self) -> impl Iterator<Item = EventStatus> + '_ {
        self.journal.status(self.now).into_iter()
    }

    /// The connections, the attempts at others, and those who tried and were not let in.
    fn connection_status(&self, now: Instant) -> Vec<TargetStatus> {
        let mut all = self.topology.connection_status(now);
        let tried = |peer: &PeerId| all.iter().any(|status| status.peer_id == Some(peer.to_string()));
        let visitors: Vec<_> = self.refusals.status(now).filter(|(peer, _)| !tried(peer)).collect();
        all.extend(visitors.into_iter().map(|(_, status)| status));
        all.sort_by(|a, b| (&a.target, &a.peer_id).cmp(&(&b.target, &b.peer_id)));
        all
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

    /// How far the rotation is; none before the first one.
    fn rotation_status(&self) -> Option<RotationStatus> {
        let (record, writer) = self.store.rotation()?;
        let holders = self.holders(record);
        let lost = is_lost(record, &holders);
        let states = self.membership.states();
        let state = |peer: PeerId| states.get(&peer).copied().unwrap_or(PeerState::Down);
        let mut hosts: Vec<HolderStatus> = holders
            .into_iter()
            .map(|holder| HolderStatus {
                peer_id: holder.peer.to_string(),
                nickname: self.nickname(holder.peer),
                state: if holder.peer == self.me { PeerState::Alive } else { state(holder.peer) },
                member: holder.member,
                has: holder.takes.contains(&record.to),
                uses: holder.takes.first() == Some(&record.to),
            })
            .collect();
        hosts.sort_by(|a, b| a.peer_id.cmp(&b.peer_id));
        Some(RotationStatus {
            from: record.from.to_string(),
            to: record.to.to_string(),
            phase: match record.phase {
                Phase::Spread => "spread",
                Phase::Prefer => "prefer",
                Phase::Done => "done",
            }
            .to_owned(),
            leave_behind: record.leave_behind,
            lost,
            by: self.nickname(writer),
            hosts,
        })
    }
}
