//! The addresses of one network that this host allocated out of its own units, and those it freed, of all its subnets.
//!
//! An address that was never used comes first, the lowest first; then the one freed longest ago. An
//! allocation in a unit that was lost to another host stays: it is an exception that the winner skips.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;

use engine::types::{PeerId, PortId};
use serde::{Deserialize, Serialize};

use super::pool::Pool;
use super::taken::Taken;
use super::units::Units;
use crate::plain;

/// Most freed addresses whose order is remembered; beyond, the oldest count as never used.
const MAX_FREED: usize = 65_536;
/// Addresses of removed hosts come after all that were freed here.
const LAST: u64 = 1 << 63;

/// Who has an allocated address.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Holding {
    /// The host that asked for it, this one or another.
    #[serde(with = "plain")]
    pub(super) peer: PeerId,
    /// The port there.
    #[serde(with = "plain")]
    pub(super) port: PortId,
    /// Its name for people.
    pub(super) holder: String,
    /// The number of the claim, if another host asked.
    pub(super) claim: u64,
}

/// Allocated and freed addresses.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) struct Local {
    #[serde(with = "plain")]
    held: BTreeMap<IpAddr, Holding>,
    /// By the order in which they were freed.
    #[serde(with = "plain")]
    freed: BTreeMap<u64, IpAddr>,
    /// The place of each in `freed`.
    #[serde(with = "plain")]
    freed_at: BTreeMap<IpAddr, u64>,
    next_freed: u64,
    /// What each port holds.
    #[serde(skip)]
    held_by: BTreeMap<(PeerId, PortId), BTreeSet<IpAddr>>,
}

/// Below this no address of this host's units in a pool was never used; wrong only towards the safe side.
pub(super) type Cursor = Option<IpAddr>;

plain::plain_itself! { Holding }

/// What an allocation looks at besides itself.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) own: PeerId,
    pub(super) pool: &'a Pool,
    pub(super) units: &'a Units,
    pub(super) taken: &'a Taken,
}

impl View<'_> {
    fn owns(&self, addr: IpAddr) -> bool {
        let unit = self.pool.unit_of(addr).and_then(|unit| self.units.get(unit));
        unit.is_some_and(|run| run.owner == self.own)
    }

    /// Addresses in the units of this host that endpoints may have.
    pub(super) fn owned(&self) -> u64 {
        self.units
            .of(self.own)
            .map(|(first, last)| self.pool.usable(first, last))
            .fold(0, u64::saturating_add)
    }

    /// The units of this host, as addresses.
    fn whole_spans(&self) -> impl Iterator<Item = RangeInclusive<IpAddr>> {
        let units = self.units.of(self.own);
        units.map(|(first, last)| self.pool.bounds(first).0..=self.pool.bounds(last).1)
    }

    /// The parts of them from which addresses are given.
    fn spans(&self) -> impl Iterator<Item = RangeInclusive<IpAddr>> {
        self.units.of(self.own).filter_map(|(first, last)| self.pool.span(first, last))
    }
}

impl Local {
    /// Who has an address, unless it is this port itself.
    pub(super) fn in_use<'a>(
        &'a self,
        taken: Option<&'a Taken>,
        addr: IpAddr,
        peer: PeerId,
        port: PortId,
    ) -> Option<&'a str> {
        let holding = self.held.get(&addr).filter(|holding| (holding.peer, holding.port) != (peer, port));
        let holders = taken.into_iter().flat_map(|taken| taken.holders(addr));
        let mut others = holders.filter(|(who, _)| **who != (peer, port));
        let record = || others.next().map(|(_, holder)| &holder.name);
        holding.map(|holding| &holding.holder).or_else(record).map(String::as_str)
    }

    /// The addresses that a port has here.
    pub(super) fn of(&self, peer: PeerId, port: PortId) -> Vec<IpAddr> {
        self.held_by.get(&(peer, port)).into_iter().flatten().copied().collect()
    }

    /// Finds again what is not written to disk.
    pub(super) fn index(&mut self) {
        for (&addr, holding) in &self.held {
            self.held_by.entry((holding.peer, holding.port)).or_default().insert(addr);
        }
    }

    /// All holdings.
    pub(super) fn all(&self) -> impl Iterator<Item = (&IpAddr, &Holding)> {
        self.held.iter()
    }

    /// True when nothing is held.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Gives an address to a port. The caller has checked that nobody else has it.
    pub(super) fn hold(&mut self, addr: IpAddr, holding: Holding) {
        if let Some(at) = self.freed_at.remove(&addr) {
            self.freed.remove(&at);
        }
        self.let_go(addr);
        self.held_by.entry((holding.peer, holding.port)).or_default().insert(addr);
        self.held.insert(addr, holding);
    }

    /// Nobody holds the address.
    fn let_go(&mut self, addr: IpAddr) {
        let Some(holding) = self.held.remove(&addr) else { return };
        let port = (holding.peer, holding.port);
        if let Some(addrs) = self.held_by.get_mut(&port) {
            addrs.remove(&addr);
            if addrs.is_empty() {
                self.held_by.remove(&port);
            }
        }
    }

    /// The next free address of this host's own units, if there is one.
    pub(super) fn next_free(&self, view: &View<'_>, cursor: &mut Cursor) -> Option<IpAddr> {
        self.never_used(view, cursor).or_else(|| self.oldest_freed(view))
    }

    fn never_used(&self, view: &View<'_>, cursor: &mut Cursor) -> Option<IpAddr> {
        let begin = cursor.unwrap_or_else(|| view.pool.bounds(0).0);
        let mut found = None;
        for span in view.spans() {
            let (start, end) = span.into_inner();
            let mut next = Some(start.max(begin)).filter(|addr| *addr <= end);
            while let Some(addr) = next {
                if self.is_fresh(view, addr) {
                    found = Some(addr);
                    break;
                }
                next = Pool::after(addr).filter(|addr| *addr <= end);
            }
            if found.is_some() {
                break;
            }
        }
        *cursor = Some(found.unwrap_or_else(|| view.pool.bounds(view.pool.units() - 1).1));
        found
    }

    fn is_fresh(&self, view: &View<'_>, addr: IpAddr) -> bool {
        !self.freed_at.contains_key(&addr) && self.is_free(view, addr)
    }

    fn is_free(&self, view: &View<'_>, addr: IpAddr) -> bool {
        !self.held.contains_key(&addr) && !view.taken.contains(addr) && view.pool.reserved(addr).is_none()
    }

    fn oldest_freed(&self, view: &View<'_>) -> Option<IpAddr> {
        let may = |addr: &IpAddr| view.pool.range().contains(addr) && view.owns(*addr);
        self.freed.values().copied().find(|addr| may(addr) && self.is_free(view, *addr))
    }

    /// Frees every address of a port; true if there was one.
    pub(super) fn release(&mut self, peer: PeerId, port: PortId) -> bool {
        let addrs = self.of(peer, port);
        addrs.iter().for_each(|&addr| self.free(addr));
        !addrs.is_empty()
    }

    /// Frees one address, if this port has it.
    pub(super) fn release_one(&mut self, addr: IpAddr, peer: PeerId, port: PortId) -> bool {
        let own = self.held.get(&addr).is_some_and(|holding| (holding.peer, holding.port) == (peer, port));
        if own {
            self.free(addr);
        }
        own
    }

    /// What another host got by claims; it is removed, and may still use it.
    pub(super) fn release_peer(&mut self, peer: PeerId) -> bool {
        let held = self.held.iter().filter(|(_, holding)| holding.peer == peer);
        let addrs: Vec<IpAddr> = held.map(|(&addr, _)| addr).collect();
        for &addr in &addrs {
            self.let_go(addr);
            self.use_last(addr);
        }
        !addrs.is_empty()
    }

    /// Frees what a claim of another host got.
    pub(super) fn release_claim(&mut self, peer: PeerId, claim: u64) -> bool {
        let held = self.held.iter().filter(|(_, holding)| (holding.peer, holding.claim) == (peer, claim));
        let addrs: Vec<IpAddr> = held.map(|(&addr, _)| addr).collect();
        addrs.iter().for_each(|&addr| self.free(addr));
        !addrs.is_empty()
    }

    fn free(&mut self, addr: IpAddr) {
        self.free_at(self.next_freed, addr);
    }

    /// An address that a removed host may still use: the last one to be given out again.
    pub(super) fn use_last(&mut self, addr: IpAddr) {
        if !self.held.contains_key(&addr) {
            self.free_at(self.next_freed | LAST, addr);
        }
    }

    fn free_at(&mut self, place: u64, addr: IpAddr) {
        self.let_go(addr);
        self.next_freed += 1;
        self.freed.insert(place, addr);
        if let Some(before) = self.freed_at.insert(addr, place) {
            self.freed.remove(&before);
        }
        if self.freed.len() > MAX_FREED
            && let Some((_, oldest)) = self.freed.pop_first()
        {
            self.freed_at.remove(&oldest);
        }
    }

    /// Forgets the order of freed addresses of a pool in units that another host has now.
    pub(super) fn forget_lost(&mut self, view: &View<'_>) {
        let lost: Vec<(IpAddr, u64)> = self
            .freed_at
            .iter()
            .filter(|(addr, _)| view.pool.unit_of(**addr).is_some() && !view.owns(**addr))
            .map(|(&addr, &at)| (addr, at))
            .collect();
        for (addr, at) in lost {
            self.freed_at.remove(&addr);
            self.freed.remove(&at);
        }
    }

    /// Used and free addresses in the units of this host.
    pub(super) fn fill(&self, view: &View<'_>) -> (u64, u64) {
        let used = view.spans().map(|span| self.used(view, span).count() as u64).sum();
        (used, view.owned().saturating_sub(used))
    }

    /// Addresses of a span that are allocated here or shown by somebody.
    fn used<'a>(
        &'a self,
        view: &'a View<'_>,
        span: RangeInclusive<IpAddr>,
    ) -> impl Iterator<Item = IpAddr> + 'a {
        let held = self.held.range(span.clone()).map(|(addr, _)| *addr);
        held.chain(view.taken.within(span).filter(|addr| !self.held.contains_key(addr)))
    }

    /// The units of this host in which nothing is allocated and something could be.
    pub(super) fn free_units(&self, view: &View<'_>) -> Vec<u16> {
        let spans = view.whole_spans().flat_map(|span| self.used(view, span));
        let used: BTreeSet<u16> = spans.filter_map(|addr| view.pool.unit_of(addr)).collect();
        let units = view.units.of(view.own).flat_map(|(first, last)| first..=last);
        units.filter(|unit| !used.contains(unit) && view.pool.usable(*unit, *unit) > 0).collect()
    }
}
