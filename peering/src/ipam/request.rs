//! The asking side: requests of this host's own ports, served here or by the owners of other units.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use engine::types::{IpPrefix, NetworkId, PeerId, PortId};

use super::local::Holding;
use super::space::PoolId;
use super::state::{Foreign, Stage};
use super::{Ipam, IpamOutput};
use crate::mesh::{AllocError, AllocRequest, RequestId};
use crate::records::MAX_NAME;

/// Most requests that wait at once.
const MAX_PENDING: usize = 4096;

/// A request that is not answered yet.
pub(super) struct Pending {
    /// Who waits for it; none: it replaces a lost address.
    pub(super) request: Option<RequestId>,
    pub(super) what: AllocRequest,
    /// The lost address that it replaces.
    pub(super) replaces: Option<IpAddr>,
    /// Addresses of this host's units that this request got, to be given back if it fails.
    got: Vec<IpAddr>,
    /// How many subnets of each family were found full: IPv4, IPv6.
    full: [usize; 2],
    /// What an owner said, if it refused.
    refused: Option<AllocError>,
}

impl Pending {
    fn asked(request: RequestId, what: AllocRequest) -> Self {
        Pending { request: Some(request), what, replaces: None, got: Vec::new(), full: [0; 2], refused: None }
    }

    /// A search for another address of a port instead of a lost one.
    pub(super) fn replacement(lost: IpAddr, what: AllocRequest) -> Self {
        Pending { request: None, what, replaces: Some(lost), got: Vec::new(), full: [0; 2], refused: None }
    }

    /// True when any address of this family will do, and one is wanted.
    fn wants_any(&self, ipv6: bool) -> bool {
        match self.replaces {
            Some(lost) => lost.is_ipv6() == ipv6,
            None if ipv6 && self.what.without_ipv6 => false,
            None => !self.what.wanted.iter().any(|addr| addr.is_ipv6() == ipv6),
        }
    }
}

/// How a step of a request ended; waiting is `None`.
type Outcome = Option<Result<Vec<IpAddr>, AllocError>>;

impl Ipam {
    /// Asks for addresses; the answer is [`IpamOutput::Allocated`]. A port that has addresses of the network
    /// and wants none in particular gets those again.
    pub fn allocate(&mut self, now: Instant, request: RequestId, mut what: AllocRequest) {
        self.unwritten.forget(what.port);
        if !self.is_open(what.network) || self.pending.len() >= MAX_PENDING {
            let error = AllocError::UnknownNetwork { network: what.network };
            return self.outputs.push_back(IpamOutput::Allocated { request, result: Err(error) });
        }
        for (_, asking) in self.asking.iter_mut().filter(|((network, _), _)| *network == what.network) {
            asking.begin_again(now);
        }
        let end = (0..=MAX_NAME).rev().find(|&at| what.holder.is_char_boundary(at)).unwrap_or(0);
        what.holder.truncate(end);
        self.pending.push(Pending::asked(request, what));
        self.progress(now);
    }

    /// Nobody waits for the request any more; what it got so far is free again.
    pub fn cancel(&mut self, now: Instant, request: RequestId) {
        if let Some(at) = self.pending.iter().position(|pending| pending.request == Some(request)) {
            let pending = self.pending.remove(at);
            self.give_back(&pending);
        }
        self.progress(now);
    }

    /// Frees the addresses of a port of this host, wherever they were allocated.
    pub fn release(&mut self, now: Instant, port: PortId) {
        self.give_up(port);
        self.progress(now);
    }

    pub(super) fn give_up(&mut self, port: PortId) {
        for (id, network) in &mut self.state.networks {
            if network.local.release(self.own, port) {
                self.dirty = true;
                self.stirred.insert(*id);
            }
        }
        self.release_foreign(|foreign| foreign.port == port);
        self.unwritten.add(port);
    }

    /// After a start, when the ports that are still wanted are known: frees the addresses of all others.
    pub fn retain(&mut self, now: Instant, ports: &BTreeSet<PortId>) {
        let local = self.state.networks.values().flat_map(|network| network.local.all());
        let own = local.filter(|(_, holding)| holding.peer == self.own).map(|(_, holding)| holding.port);
        let foreign = self.state.foreign.values().map(|foreign| foreign.port);
        let gone: BTreeSet<PortId> = own.chain(foreign).filter(|port| !ports.contains(port)).collect();
        gone.into_iter().for_each(|port| self.give_up(port));
        self.progress(now);
    }

    /// A port that outlived the daemon, or its memory, has these addresses. Where another host owns their
    /// units, it is told so.
    pub fn adopt(&mut self, now: Instant, port: PortId, network: NetworkId, addrs: &[IpAddr], holder: &str) {
        self.unwritten.forget(port);
        for &addr in addrs {
            if self.has(network, port, addr) || self.foreign_of(network, port, Some(addr)).is_some() {
                continue;
            }
            match self.owner_of(network, addr) {
                Some(owner) if owner != self.own => {
                    self.claim_of(now, owner, network, addr, port, holder);
                }
                _ => self.hold(network, addr, port, holder),
            }
        }
        self.progress(now);
    }

    /// Takes every waiting request as far as it goes.
    pub(super) fn serve_pending(&mut self, now: Instant) {
        for mut pending in std::mem::take(&mut self.pending) {
            match self.serve(now, &mut pending) {
                None => self.pending.push(pending),
                Some(result) => self.finish(now, &pending, result),
            }
        }
    }

    fn serve(&mut self, now: Instant, pending: &mut Pending) -> Outcome {
        if let Some(refused) = pending.refused.take() {
            return Some(Err(refused));
        }
        if self.is_leaving() {
            return Some(Err(AllocError::Stopping));
        }
        self.state.cluster?;
        if !self.is_open(pending.what.network) {
            return Some(Err(AllocError::UnknownNetwork { network: pending.what.network }));
        }
        let mut got = Vec::new();
        let mut waits = false;
        for part in 0..3 {
            let part = match part {
                0 => self.serve_wanted(now, pending),
                family => self.serve_any(pending, family == 2),
            };
            match part {
                Some(Ok(addrs)) => got.extend(addrs),
                Some(Err(error)) => return Some(Err(error)),
                None => waits = true,
            }
        }
        // What was asked for stands in the place of what would have been given.
        got.sort_by_key(|addr: &IpAddr| addr.is_ipv6());
        if waits { None } else { Some(Ok(got)) }
    }

    /// One free address of a family, if the network has it: what the port has, else out of the own units. More is a matter
    /// of space.
    fn serve_any(&mut self, pending: &mut Pending, ipv6: bool) -> Outcome {
        let AllocRequest { port, network, ref holder, .. } = pending.what;
        let known = self.state.networks.get(&network)?;
        if !pending.wants_any(ipv6) || !known.has_family(ipv6) {
            return Some(Ok(Vec::new()));
        }
        let mut have = self.addresses_of(network, port);
        have.retain(|addr| addr.is_ipv6() == ipv6);
        let have = if pending.replaces.is_some() { self.unshown(network, port, have) } else { have };
        if !have.is_empty() {
            return Some(Ok(have));
        }
        if let Some(error) = self.minority() {
            return Some(Err(error));
        }
        let addr = self.next_free(network, ipv6)?;
        self.hold(network, addr, port, holder);
        pending.got.push(addr);
        Some(Ok(vec![addr]))
    }

    /// A free address of the first subnet of a family that has one here.
    fn next_free(&mut self, network: NetworkId, ipv6: bool) -> Option<IpAddr> {
        let taken = self.taken.entry(network).or_default();
        let network = self.state.networks.get_mut(&network)?;
        for at in network.of_family(ipv6).collect::<Vec<_>>() {
            let (local, cursor, view) = network.parts(at, self.own, taken)?;
            if let Some(addr) = local.next_free(&view, cursor) {
                return Some(addr);
            }
        }
        None
    }

    fn serve_wanted(&mut self, now: Instant, pending: &mut Pending) -> Outcome {
        let AllocRequest { port, network, holder, wanted, .. } = pending.what.clone();
        if let Err(error) = wanted.iter().try_for_each(|addr| self.check_wanted(network, port, *addr)) {
            return Some(Err(error));
        }
        let mut waiting = false;
        for &addr in &wanted {
            if self.has(network, port, addr) {
                continue;
            }
            if let Some(error) = self.minority() {
                return Some(Err(error));
            }
            let owner = self.owner_of(network, addr)?;
            if owner == self.own {
                self.forget_claim(network, port, addr);
                self.hold(network, addr, port, &holder);
                pending.got.push(addr);
                continue;
            }
            if self.is_down(owner) {
                return Some(Err(AllocError::OwnerDown { addr, owner: self.name_of(owner) }));
            }
            waiting = true;
            if self.foreign_of(network, port, Some(addr)).is_none() {
                self.claim_of(now, owner, network, addr, port, &holder);
            }
        }
        if waiting { None } else { Some(Ok(wanted)) }
    }

    /// Refuses what nobody may have, and what is known to be used.
    fn check_wanted(&self, id: NetworkId, port: PortId, addr: IpAddr) -> Result<(), AllocError> {
        let Some(network) = self.state.networks.get(&id) else {
            return Err(AllocError::UnknownNetwork { network: id });
        };
        let Some(space) = network.space_of(addr) else {
            let subnets = network.spaces.iter().map(|space| space.pool.subnet().to_string());
            let (network, range) = (network.name.clone(), subnets.collect::<Vec<_>>().join(", "));
            return Err(AllocError::OutsideRange { addr, network, range });
        };
        if let Some(what) = space.pool.reserved(addr) {
            return Err(AllocError::Reserved { addr, what });
        }
        match network.local.in_use(self.taken.get(&id), addr, self.own, port) {
            Some(holder) => Err(AllocError::InUse { addr, holder: holder.to_owned() }),
            None => Ok(()),
        }
    }

    fn finish(&mut self, now: Instant, pending: &Pending, result: Result<Vec<IpAddr>, AllocError>) {
        if result.is_err() {
            self.give_back(pending);
        }
        let network = self.state.networks.get(&pending.what.network);
        let prefix = |addr: IpAddr| {
            let space = network.and_then(|network| network.space_of(addr));
            IpPrefix { addr, len: space.map_or(0, |space| space.pool.subnet().prefix_len()) }
        };
        let result = result.map(|addrs| addrs.into_iter().map(prefix).collect());
        if let Some(request) = pending.request {
            self.outputs.push_back(IpamOutput::Allocated { request, result });
        } else if let Some(lost) = pending.replaces {
            self.finish_replacement(now, lost, &pending.what, result);
        }
    }

    /// Undoes what a request got before it failed or was cancelled. What the port had before stays.
    pub(super) fn give_back(&mut self, pending: &Pending) {
        let AllocRequest { port, network, wanted, .. } = &pending.what;
        if let Some(network) = self.state.networks.get_mut(network) {
            for addr in &pending.got {
                self.dirty |= network.local.release_one(*addr, self.own, *port);
            }
        }
        let mine = |foreign: &Foreign| foreign.network == *network && foreign.port == *port;
        let asked = |foreign: &Foreign| match foreign.addr {
            Some(addr) => wanted.contains(&addr) && foreign.stage != Stage::Releasing,
            None => foreign.stage == Stage::Asked,
        };
        self.release_foreign(|foreign| mine(foreign) && asked(foreign));
    }

    /// Ends a request at the next step, with what an owner said.
    pub(super) fn refuse(&mut self, network: NetworkId, port: PortId, error: &AllocError) {
        let concerned = |p: &&mut Pending| p.what.network == network && p.what.port == port;
        for pending in self.pending.iter_mut().filter(concerned) {
            pending.refused = Some(error.clone());
        }
    }

    /// Ends every request on a network.
    pub(super) fn refuse_on(&mut self, network: NetworkId, error: &AllocError) {
        for pending in self.pending.iter_mut().filter(|pending| pending.what.network == network) {
            pending.refused = Some(error.clone());
        }
    }

    /// Ends every request that somebody waits for.
    pub fn refuse_all(&mut self, now: Instant, error: &AllocError) {
        for pending in self.pending.iter_mut().filter(|pending| pending.request.is_some()) {
            pending.refused = Some(error.clone());
        }
        self.progress(now);
    }

    /// Requests that want any address of a subnet, and have none of its family.
    pub(super) fn hungry(&self, (network, subnet): PoolId) -> Vec<(PortId, String)> {
        let Some(known) = self.state.networks.get(&network) else { return Vec::new() };
        let ipv6 = subnet.addr().is_ipv6();
        let Some(place) = known.of_family(ipv6).position(|at| known.place(subnet) == Some(at)) else {
            return Vec::new();
        };
        let full = |pending: &Pending| pending.full[usize::from(ipv6)];
        let hungry = self.pending.iter().filter(|pending| {
            pending.what.network == network && pending.wants_any(ipv6) && full(pending) == place
        });
        let lacks = |pending: &&Pending| {
            let mut have = self.addresses_of(network, pending.what.port);
            have.retain(|addr| addr.is_ipv6() == ipv6);
            pending.replaces.is_some() || have.is_empty()
        };
        hungry.filter(lacks).map(|pending| (pending.what.port, pending.what.holder.clone())).collect()
    }

    /// A subnet is full: a request goes on to the next one of the family, or it ends.
    pub(super) fn pass_on(&mut self, (network, subnet): PoolId, port: PortId, error: &AllocError) {
        let ipv6 = subnet.addr().is_ipv6();
        let known = self.state.networks.get(&network);
        let places = known.map_or(0, |network| network.of_family(ipv6).count());
        let concerned =
            |p: &&mut Pending| p.what.network == network && p.what.port == port && p.wants_any(ipv6);
        for pending in self.pending.iter_mut().filter(concerned) {
            let full = &mut pending.full[usize::from(ipv6)];
            *full += 1;
            if *full >= places {
                pending.refused = Some(error.clone());
            }
        }
        self.stirred.insert(network);
    }

    fn hold(&mut self, network: NetworkId, addr: IpAddr, port: PortId, holder: &str) {
        self.stirred.insert(network);
        let Some(network) = self.state.networks.get_mut(&network) else { return };
        network.local.hold(addr, Holding { peer: self.own, port, holder: holder.to_owned(), claim: 0 });
        self.dirty = true;
    }

    pub(super) fn owner_of(&self, network: NetworkId, addr: IpAddr) -> Option<PeerId> {
        self.state.networks.get(&network)?.run_of(addr).map(|run| run.owner)
    }

    /// True when the port has the address, here or at its owner.
    pub(super) fn has(&self, network: NetworkId, port: PortId, addr: IpAddr) -> bool {
        self.addresses_of(network, port).contains(&addr)
    }

    fn addresses_of(&self, network: NetworkId, port: PortId) -> Vec<IpAddr> {
        let local = self.state.networks.get(&network).map(|network| network.local.of(self.own, port));
        let held = self.state.foreign.values().filter(|foreign| {
            foreign.stage == Stage::Held && foreign.network == network && foreign.port == port
        });
        local.into_iter().flatten().chain(held.filter_map(|foreign| foreign.addr)).collect()
    }
}
