//! What `status` shows of addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use engine::types::{NetworkId, PeerId};

use super::Ipam;
use super::space::PoolId;
use super::state::{Network, Space};
use super::taken::Taken;
use crate::mesh::{IpamState, IpamStatus, OwnerStatus, PeerState};
use crate::records::MAX_TARGETS;

impl Ipam {
    /// What `status` shows of each subnet, in the order of the names of the networks.
    pub fn status(&self, now: Instant) -> Vec<IpamStatus> {
        let networks = self.state.known(&self.open);
        let spaces = networks.flat_map(|(id, network)| {
            (0..network.spaces.len()).filter_map(move |at| self.space_status(now, id, network, at))
        });
        let mut status: Vec<IpamStatus> = spaces.collect();
        status.sort_by(|a, b| a.network.cmp(&b.network));
        status
    }

    fn space_status(&self, now: Instant, id: NetworkId, network: &Network, at: usize) -> Option<IpamStatus> {
        let empty = Taken::default();
        let view = network.view(at, self.own, self.taken.get(&id).unwrap_or(&empty))?;
        let space = network.spaces.get(at)?;
        let pool = (id, space.pool.subnet());
        let (used, free) = network.local.fill(&view);
        let waiting_for = self.waiting_for(now, pool);
        let needed = self.creating || self.wanted.contains_key(&id) || !self.hungry(pool).is_empty();
        let state = match (self.state.cluster.is_some(), free) {
            (false, _) if needed || self.founding.needed(now, false) => IpamState::Waiting,
            (false, _) => IpamState::Unfounded,
            (true, 1..) => IpamState::Ready,
            (true, 0) if waiting_for.is_empty() && !space.units.is_empty() && self.is_used(id) => {
                IpamState::Full
            }
            // Somebody else has it all, and gives some when it is wanted here.
            (true, 0) if !space.units.is_empty() && !self.is_used(id) => IpamState::Ready,
            (true, 0) => IpamState::Waiting,
        };
        Some(IpamStatus {
            network: network.name.clone(),
            range: space.pool.range().to_string(),
            state,
            waiting_for,
            owned: view.owned(),
            used,
            free,
            owners: self.owners(id, network, space),
        })
    }

    fn waiting_for(&self, now: Instant, pool: PoolId) -> Vec<String> {
        if self.state.cluster.is_none() {
            let needed = self.needs_address() || self.founding.needed(now, false);
            return if needed { self.founding_waits_for(now) } else { Vec::new() };
        }
        let donors = self.asking.get(&pool).into_iter().flat_map(super::Asking::silent);
        let claims = self.state.foreign.values();
        let asked = claims.filter(|f| (f.network, f.subnet) == pool && f.stage == super::state::Stage::Asked);
        let names: BTreeSet<String> =
            asked.map(|foreign| foreign.owner).chain(donors).map(|peer| self.name_of(peer)).collect();
        names.into_iter().collect()
    }

    /// Whom the founding waits for, sorted: nicknames of hosts, and names at which nobody answered.
    pub(super) fn founding_waits_for(&self, now: Instant) -> Vec<String> {
        let (hosts, names) = self.founding.waiting_for(now);
        let all: BTreeSet<String> = hosts.into_iter().map(|peer| self.name_of(peer)).chain(names).collect();
        all.into_iter().take(MAX_TARGETS).collect()
    }

    /// Who owns the units of a subnet, in the order of their ids.
    pub(super) fn owners(&self, id: NetworkId, network: &Network, space: &Space) -> Vec<OwnerStatus> {
        let pool = &space.pool;
        let mut shares: BTreeMap<PeerId, (u64, u64)> = BTreeMap::new();
        for run in space.units.runs() {
            let size = &mut shares.entry(run.owner).or_default().0;
            *size = size.saturating_add(pool.usable(run.first, run.last));
        }
        let taken = self.taken.get(&id).into_iter().flat_map(Taken::addrs);
        let used: BTreeSet<IpAddr> = taken.chain(network.local.all().map(|(addr, _)| *addr)).collect();
        for addr in used {
            let run = pool.unit_of(addr).and_then(|unit| space.units.get(unit));
            if let Some(share) = run.and_then(|run| shares.get_mut(&run.owner)) {
                share.1 += 1;
            }
        }
        let status = shares.into_iter().map(|(peer, (size, used))| OwnerStatus {
            peer_id: peer.to_string(),
            nickname: self.name_of(peer),
            size,
            used,
            state: self.state_of(peer),
        });
        status.collect()
    }

    fn state_of(&self, peer: PeerId) -> PeerState {
        if peer == self.own {
            PeerState::Alive
        } else {
            self.states.get(&peer).copied().unwrap_or(PeerState::Down)
        }
    }
}
