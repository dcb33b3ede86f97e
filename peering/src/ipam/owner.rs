//! The giving side: units for hosts that ask for space, addresses of own units for ports elsewhere.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use engine::types::PeerId;

use super::local::Holding;
use super::state::{Grant, Network};
use super::taken::Taken;
use super::{Ipam, IpamOutput};
use crate::proto::{
    ClaimAnswer, ClaimRefusal, ClaimRequest, Message, Release, Run, SpaceAnswer, SpaceRequest,
};

/// How often a claim without an endpoint is looked at again.
const AUDIT: Duration = Duration::from_secs(30);

impl Ipam {
    /// Gives at most half of the free units, and never so much that the asker has more than this host.
    /// The same request gets the same units again.
    pub(super) fn handle_space_request(&mut self, from: PeerId, request: SpaceRequest) {
        let SpaceRequest { id, network: network_id, subnet, .. } = request;
        let alone = self.minority().is_some();
        let taken = self.taken.entry(network_id).or_default();
        let Some(network) = self.state.networks.get_mut(&network_id) else { return };
        let Some(at) = network.place(subnet) else { return };
        if from == self.own || self.state.cluster.is_none() || alone {
            return;
        }
        let left = network.view(at, self.own, taken).map_or(0, |view| network.local.fill(&view).1);
        let space = &network.spaces[at];
        let repeated = space.grants.get(&from).filter(|grant| grant.id == id);
        let runs = match repeated {
            Some(grant) => facts(space.units.runs(), &grant.units),
            None => {
                let runs = grant_units(network, at, self.own, taken, from, &request);
                if !runs.is_empty() {
                    self.dirty = true;
                    self.stirred.insert(network_id);
                    let news = network.spaces[at].table(network_id, runs.clone());
                    self.outputs.push_back(IpamOutput::Push(news));
                }
                runs
            }
        };
        let granted = network.spaces[at].table(network_id, runs);
        self.send(from, Message::SpaceAnswer(SpaceAnswer { id, granted, free: left }));
    }

    /// Allocates an address of an own unit for a port of another host.
    pub(super) fn handle_claim_request(&mut self, from: PeerId, request: &ClaimRequest) {
        let ClaimRequest { id, network, addr, port, .. } = *request;
        if self.minority().is_some() {
            return;
        }
        let result = self.allocate_for(from, request);
        let lost = result == Err(ClaimRefusal::NotOwner);
        self.send(from, Message::ClaimAnswer(ClaimAnswer { id, network, port, result }));
        let known = addr.and_then(|addr| self.fact_about(network, addr));
        if let Some(table) = known.filter(|_| lost) {
            self.send(from, Message::Units(table));
        }
    }

    fn allocate_for(&mut self, from: PeerId, request: &ClaimRequest) -> Result<IpAddr, ClaimRefusal> {
        let ClaimRequest { id, network: network_id, subnet, addr, port, holder } = request;
        let taken = self.taken.entry(*network_id).or_default();
        let network = self.state.networks.get_mut(network_id).ok_or(ClaimRefusal::NotOwner)?;
        let own = self.own;
        let at = network.place(*subnet).ok_or(ClaimRefusal::NotOwner)?;
        let (local, cursor, view) = network.parts(at, own, taken).ok_or(ClaimRefusal::NotOwner)?;
        let mut given = local.of(from, *port);
        given.retain(|addr| view.pool.unit_of(*addr).is_some());
        let addr = match addr {
            None if !given.is_empty() => given[0],
            None => local.next_free(&view, cursor).ok_or(ClaimRefusal::Full)?,
            Some(addr) if given.contains(addr) => *addr,
            Some(addr) => {
                let unit = view.pool.unit_of(*addr).and_then(|unit| view.units.get(unit));
                unit.filter(|run| run.owner == own).ok_or(ClaimRefusal::NotOwner)?;
                let reserved = view.pool.reserved(*addr).map(|what| format!("the {what} itself"));
                let holder = local.in_use(Some(view.taken), *addr, from, *port).map(str::to_owned);
                if let Some(holder) = reserved.or(holder) {
                    return Err(ClaimRefusal::InUse { holder });
                }
                *addr
            }
        };
        local.hold(addr, Holding { peer: from, port: *port, holder: holder.clone(), claim: *id });
        self.dirty = true;
        self.claimed = true;
        self.stirred.insert(*network_id);
        Ok(addr)
    }

    fn fact_about(&self, id: engine::types::NetworkId, addr: IpAddr) -> Option<crate::proto::UnitTable> {
        let network = self.state.networks.get(&id)?;
        Some(network.space_of(addr)?.table(id, vec![*network.run_of(addr)?]))
    }

    /// Frees what a claim got; confirmed also if it was free.
    pub(super) fn handle_release(&mut self, from: PeerId, release: Release) {
        if let Some(network) = self.state.networks.get_mut(&release.network) {
            self.dirty |= network.local.release_claim(from, release.id);
        }
        self.send(from, Message::Released(release));
    }

    /// Now and then repeats the answers to claims whose endpoints no record shows. A host that does not know
    /// of its claim any more answers with a release: nothing stays allocated because a message was lost.
    pub(super) fn audit_claims(&mut self, now: Instant) {
        // The first time only starts the clock: most endpoints show up within it.
        match self.audit_at {
            None if self.claimed => self.audit_at = Some(now + AUDIT),
            Some(at) if at <= now => {
                let unshown = self.unshown_claims();
                self.claimed = !unshown.is_empty();
                self.audit_at = self.claimed.then(|| now + AUDIT);
                for (peer, answer) in
                    unshown.into_iter().filter(|(peer, _)| !self.is_down(*peer)).collect::<Vec<_>>()
                {
                    self.send(peer, Message::ClaimAnswer(answer));
                }
            }
            _ => {}
        }
    }

    /// What is allocated here for ports of other hosts that no record shows.
    fn unshown_claims(&self) -> Vec<(PeerId, ClaimAnswer)> {
        let mut answers = Vec::new();
        for (&network, known) in &self.state.networks {
            let taken = self.taken.get(&network);
            let shown = |addr: &IpAddr, holding: &Holding| {
                taken.is_some_and(|taken| taken.of((holding.peer, holding.port)).contains(addr))
            };
            let claims = known.local.all().filter(|(addr, h)| h.peer != self.own && !shown(addr, h));
            answers.extend(claims.map(|(&addr, h)| {
                (h.peer, ClaimAnswer { id: h.claim, network, port: h.port, result: Ok(addr) })
            }));
        }
        answers
    }
}

/// Moves units from the end of the free ones, so that what is left lies together.
fn grant_units(
    network: &mut Network,
    at: usize,
    own: PeerId,
    taken: &Taken,
    to: PeerId,
    request: &SpaceRequest,
) -> Vec<Run> {
    let spare = network.view(at, own, taken).map_or_else(Vec::new, |view| network.local.free_units(&view));
    let rich = spare.len().saturating_sub(usize::from(request.free)) / 2;
    let units = ranges(&spare[spare.len() - rich.min(usize::from(request.wanted))..]);
    let Some(space) = network.spaces.get_mut(at) else { return Vec::new() };
    let runs = space.units.grant(&units, to);
    if !runs.is_empty() {
        space.grants.insert(to, Grant { id: request.id, units });
        network.forget_lost(at, own, taken);
    }
    runs
}

/// What is known of some units.
fn facts(runs: &[Run], units: &[(u16, u16)]) -> Vec<Run> {
    let parts = units.iter().flat_map(|&(first, last)| {
        let held = runs.iter().filter(move |run| run.first <= last && first <= run.last);
        held.map(move |run| Run { first: run.first.max(first), last: run.last.min(last), ..*run })
    });
    parts.collect()
}

/// Units in order, as ranges that include both ends.
fn ranges(units: &[u16]) -> Vec<(u16, u16)> {
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for &unit in units {
        match ranges.last_mut() {
            Some(range) if range.1 + 1 == unit => range.1 = unit,
            _ => ranges.push((unit, unit)),
        }
    }
    ranges
}
