//! Claims on addresses of other hosts' units: asked until answered, released until confirmed.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use engine::types::{NetworkId, PeerId, PortId};

use super::Ipam;
use super::space::PoolId;
use super::state::{Foreign, Stage};
use crate::mesh::AllocError;
use crate::proto::{ClaimAnswer, ClaimRefusal, ClaimRequest, Message, Release};

/// How often an owner that did not answer is asked again.
const CLAIM_AGAIN: Duration = Duration::from_secs(1);
/// How soon after "not the owner": the right table is on its way.
const CLAIM_SOON: Duration = Duration::from_millis(200);
/// How often an owner is told of a release until it confirms.
const RELEASE_AGAIN: Duration = Duration::from_secs(5);

impl Ipam {
    /// Asks the owner for this address; it is asked again until it answers.
    pub(super) fn claim_of(
        &mut self,
        now: Instant,
        owner: PeerId,
        network: NetworkId,
        addr: IpAddr,
        port: PortId,
        holder: &str,
    ) {
        let space = self.state.networks.get(&network).and_then(|network| network.space_of(addr));
        if let Some(subnet) = space.map(|space| space.pool.subnet()) {
            self.claim(now, owner, (network, subnet), Some(addr), port, holder);
        }
    }

    /// Asks the owner for an address of a subnet; it is asked again until it answers.
    pub(super) fn claim(
        &mut self,
        now: Instant,
        owner: PeerId,
        (network, subnet): PoolId,
        addr: Option<IpAddr>,
        port: PortId,
        holder: &str,
    ) {
        let id = self.number();
        let holder = holder.to_owned();
        let stage = Stage::Asked;
        self.state.foreign.insert(id, Foreign { network, subnet, addr, port, holder, owner, stage });
        self.claim_timers.insert(id, now);
        self.dirty = true;
    }

    /// The claim of a port that is asked and not answered, if there is one.
    pub(super) fn foreign_of(
        &self,
        network: NetworkId,
        port: PortId,
        addr: Option<IpAddr>,
    ) -> Option<PeerId> {
        let mut claims = self.state.foreign.values();
        let asked = claims.find(|foreign| {
            (foreign.network, foreign.port, foreign.addr, foreign.stage)
                == (network, port, addr, Stage::Asked)
        });
        asked.map(|foreign| foreign.owner)
    }

    pub(super) fn forget_claim(&mut self, network: NetworkId, port: PortId, addr: IpAddr) {
        self.state.foreign.retain(|_, foreign| {
            (foreign.network, foreign.port, foreign.addr) != (network, port, Some(addr))
        });
    }

    pub(super) fn release_foreign(&mut self, which: impl Fn(&Foreign) -> bool) {
        for (id, foreign) in &mut self.state.foreign {
            if foreign.stage != Stage::Releasing && which(foreign) {
                foreign.stage = Stage::Releasing;
                self.claim_timers.remove(id);
                self.dirty = true;
            }
        }
    }

    /// Sends what is due about claims and releases.
    pub(super) fn tell_owners(&mut self, now: Instant) {
        let waiting = self.state.foreign.iter().filter(|(_, foreign)| foreign.stage != Stage::Held);
        let due = waiting.filter(|(id, _)| self.claim_timers.get(id).is_none_or(|at| *at <= now));
        for id in due.map(|(&id, _)| id).collect::<Vec<_>>() {
            self.tell_owner(now, id);
        }
        self.claim_timers.retain(|id, _| self.state.foreign.contains_key(id));
    }

    fn tell_owner(&mut self, now: Instant, id: u64) {
        let Some(foreign) = self.state.foreign.get(&id).cloned() else { return };
        let Foreign { network, subnet, addr, port, holder, .. } = foreign;
        let owner = addr.and_then(|addr| self.owner_of(network, addr)).unwrap_or(foreign.owner);
        if owner == self.own {
            // The unit came here wholly free, or its last owner is gone: nobody else must know.
            self.state.foreign.remove(&id);
            self.dirty = true;
            return;
        }
        let (message, again) = match foreign.stage {
            Stage::Releasing => (Message::Release(Release { network, id }), RELEASE_AGAIN),
            _ => {
                let request = ClaimRequest { id, network, subnet, addr, port, holder };
                (Message::ClaimRequest(request), CLAIM_AGAIN)
            }
        };
        if let Some(foreign) = self.state.foreign.get_mut(&id).filter(|foreign| foreign.owner != owner) {
            foreign.owner = owner;
            self.dirty = true;
        }
        self.claim_timers.insert(id, now + again);
        self.send(owner, message);
    }

    pub(super) fn handle_claim_answer(&mut self, now: Instant, from: PeerId, answer: ClaimAnswer) {
        let ClaimAnswer { id, network, port, result } = answer;
        let claims = &self.state.foreign;
        let known = claims.get(&id).filter(|f| (f.owner, f.network, f.port) == (from, network, port));
        match (known.map(|foreign| (foreign.stage, foreign.addr)), result) {
            (Some((Stage::Asked, wanted)), Ok(addr)) if wanted.is_none_or(|wanted| wanted == addr) => {
                self.claim_granted(id, addr);
            }
            (Some((Stage::Asked, wanted)), Err(refusal)) => {
                self.claim_refused(now, from, id, wanted, refusal);
            }
            (None, Ok(addr)) if !self.has(network, port, addr) => {
                // Nobody here waits for it any more: without this it would stay allocated for ever.
                self.give_back_unknown(from, id, (network, addr), port);
            }
            _ => {}
        }
    }

    fn give_back_unknown(
        &mut self,
        owner: PeerId,
        id: u64,
        (network, addr): (NetworkId, IpAddr),
        port: PortId,
    ) {
        let space = self.state.networks.get(&network).and_then(|network| network.space_of(addr));
        let Some(subnet) = space.map(|space| space.pool.subnet()) else { return };
        let (addr, holder, stage) = (Some(addr), String::new(), Stage::Releasing);
        self.state.foreign.insert(id, Foreign { network, subnet, addr, port, holder, owner, stage });
        self.dirty = true;
    }

    fn claim_granted(&mut self, id: u64, addr: IpAddr) {
        if let Some(foreign) = self.state.foreign.get_mut(&id) {
            foreign.addr = Some(addr);
            foreign.stage = Stage::Held;
            self.claim_timers.remove(&id);
            self.dirty = true;
        }
    }

    fn claim_refused(
        &mut self,
        now: Instant,
        from: PeerId,
        id: u64,
        addr: Option<IpAddr>,
        refusal: ClaimRefusal,
    ) {
        if refusal == ClaimRefusal::NotOwner && addr.is_some() {
            self.claim_timers.insert(id, now + CLAIM_SOON);
            return;
        }
        self.dirty = true;
        let Some(Foreign { network, subnet, port, .. }) = self.state.foreign.remove(&id) else { return };
        self.stirred.insert(network);
        let error = match (refusal, addr) {
            (ClaimRefusal::InUse { holder }, Some(addr)) => AllocError::InUse { addr, holder },
            (ClaimRefusal::StoreFailed { reason }, Some(_)) => {
                AllocError::StoreFailed { reason: format!("on {}: {reason}", self.name_of(from)) }
            }
            // Another donor may have one.
            _ => return self.donor_is_full((network, subnet), from),
        };
        self.refuse(network, port, &error);
    }

    pub(super) fn handle_released(&mut self, from: PeerId, release: &Release) {
        let done = self.state.foreign.get(&release.id).is_some_and(|foreign| {
            (foreign.owner, foreign.network, foreign.stage) == (from, release.network, Stage::Releasing)
        });
        if done {
            self.state.foreign.remove(&release.id);
            self.dirty = true;
        }
    }
}
