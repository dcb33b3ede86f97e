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
        let SpaceRequest { id, network: network_id, .. } = request;
        let alone = self.minority().is_some();
        let taken = self.taken.entry(network_id).or_default();
        let Some(network) = self.state.networks.get_mut(&network_id) else { return };
        if from == self.own || self.state.cluster.is_none() || alone {
            return;
        }
        let (_, left) = network.local.fill(&network.view(self.own, taken));
        let repeated = network.grants.get(&from).filter(|grant| grant.id == id);
        let runs = match repeated {
            Some(grant) => facts(network.units.runs(), &grant.units),
            None => {
                let runs = grant_units(network, self.own, taken, from, &request);
                if !runs.is_empty() {
                    self.dirty = true;
                    self.outputs.push_back(IpamOutput::Push(network.table(network_id, runs.clone())));
                }
                runs
            }
        };
        let granted = network.table(network_id, runs);
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
        let ClaimRequest { id, network, addr, port, holder } = request;
        let taken = self.taken.entry(*network).or_default();
        let network = self.state.networks.get_mut(network).ok_or(ClaimRefusal::NotOwner)?;
        let own = self.own;
        let (local, view) = network.parts(own, taken);
        let given = local.of(from, *port);
        let addr = match addr {
            None if !given.is_empty() => given[0],
            None => local.next_free(&view).ok_or(ClaimRefusal::Full)?,
            Some(addr) if given.contains(addr) => *addr,
            Some(addr) => {
                let unit = view.pool.unit_of(*addr).and_then(|unit| view.units.get(unit));
                unit.filter(|run| run.owner == own).ok_or(ClaimRefusal::NotOwner)?;
                let reserved = view.pool.reserved(*addr).map(|what| format!("the {what} itself"));
                let holder = local.in_use(&view, *addr, from, *port).map(str::to_owned);
                if let Some(holder) = reserved.or(holder) {
                    return Err(ClaimRefusal::InUse { holder });
                }
                *addr
            }
        };
        local.hold(addr, Holding { peer: from, port: *port, holder: holder.clone(), claim: *id });
        self.dirty = true;
        Ok(addr)
    }

    fn fact_about(&self, id: engine::types::NetworkId, addr: IpAddr) -> Option<crate::proto::UnitTable> {
        let network = self.state.networks.get(&id)?;
        let run = network.units.get(network.pool().unit_of(addr)?)?;
        Some(network.table(id, vec![*run]))
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
        let mut answers = Vec::new();
        for (&network, pool) in &self.state.networks {
            let taken = self.taken.get(&network);
            let shown = |addr: &IpAddr, holding: &Holding| {
                taken.is_some_and(|taken| taken.of((holding.peer, holding.port)).contains(addr))
            };
            let claims = pool.local.all().filter(|(addr, h)| h.peer != self.own && !shown(addr, h));
            answers.extend(claims.map(|(&addr, h)| {
                (h.peer, ClaimAnswer { id: h.claim, network, port: h.port, result: Ok(addr) })
            }));
        }
        if answers.is_empty() {
            self.audit_at = None;
        } else if self.audit_at.is_none_or(|at| at <= now) {
            // The first time only starts the clock: most endpoints show up within it.
            let due = self.audit_at.replace(now + AUDIT).is_some();
            answers.retain(|(peer, _)| due && !self.is_down(*peer));
            for (peer, answer) in answers {
                self.send(peer, Message::ClaimAnswer(answer));
            }
        }
    }
}

/// Moves units from the end of the free ones, so that what is left lies together.
fn grant_units(
    network: &mut Network,
    own: PeerId,
    taken: &Taken,
    to: PeerId,
    request: &SpaceRequest,
) -> Vec<Run> {
    let spare = network.local.free_units(&network.view(own, taken));
    let rich = spare.len().saturating_sub(usize::from(request.free)) / 2;
    let units = ranges(&spare[spare.len() - rich.min(usize::from(request.wanted))..]);
    let runs = network.units.grant(&units, to);
    if !runs.is_empty() {
        network.grants.insert(to, Grant { id: request.id, units });
        let (local, view) = network.parts(own, taken);
        local.forget_lost(&view);
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
