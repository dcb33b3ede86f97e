//! The asking side: requests of this host's own ports, served here or by the owners of other units.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use engine::types::{IpPrefix, NetworkId, PeerId, PortId};

use super::local::Holding;
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
    /// What an owner said, if it refused.
    refused: Option<AllocError>,
}

impl Pending {
    fn asked(request: RequestId, what: AllocRequest) -> Self {
        Pending { request: Some(request), what, replaces: None, got: Vec::new(), refused: None }
    }

    /// A search for another address of a port instead of a lost one.
    pub(super) fn replacement(lost: IpAddr, what: AllocRequest) -> Self {
        Pending { request: None, what, replaces: Some(lost), got: Vec::new(), refused: None }
    }
}

/// How a step of a request ended; waiting is `None`.
type Outcome = Option<Result<Vec<IpAddr>, AllocError>>;

impl Ipam {
    /// Asks for addresses; the answer is [`IpamOutput::Allocated`]. A port that has addresses of the network
    /// and wants none in particular gets those again.
    pub fn allocate(&mut self, now: Instant, request: RequestId, mut what: AllocRequest) {
        self.unwritten.forget(what.port);
        let known = self.state.networks.contains_key(&what.network);
        if !known || self.pending.len() >= MAX_PENDING {
            let error = AllocError::UnknownNetwork { network: what.network };
            return self.outputs.push_back(IpamOutput::Allocated { request, result: Err(error) });
        }
        if what.wanted.is_empty()
            && let Some(asking) = self.asking.get_mut(&what.network)
        {
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
        for network in self.state.networks.values_mut() {
            self.dirty |= network.local.release(self.own, port);
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
                    self.claim(now, owner, network, Some(addr), port, holder);
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
        if pending.what.wanted.is_empty() { self.serve_any(pending) } else { self.serve_wanted(now, pending) }
    }

    /// One free address: what the port has, else out of the own units. More is a matter of space.
    fn serve_any(&mut self, pending: &mut Pending) -> Outcome {
        let AllocRequest { port, network, holder, .. } = &pending.what;
        let have = self.addresses_of(*network, *port);
        let have = if pending.replaces.is_some() { self.unshown(*network, *port, have) } else { have };
        if !have.is_empty() {
            return Some(Ok(have));
        }
        if let Some(error) = self.minority() {
            return Some(Err(error));
        }
        let taken = self.taken.entry(*network).or_default();
        let (local, view) = self.state.networks.get_mut(network)?.parts(self.own, taken);
        let addr = local.next_free(&view)?;
        self.hold(*network, addr, *port, holder);
        Some(Ok(vec![addr]))
    }

    fn serve_wanted(&mut self, now: Instant, pending: &mut Pending) -> Outcome {
        let AllocRequest { port, network, holder, wanted } = pending.what.clone();
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
                self.claim(now, owner, network, Some(addr), port, &holder);
            }
        }
        if waiting { None } else { Some(Ok(wanted)) }
    }

    /// Refuses what nobody may have, and what is known to be used.
    fn check_wanted(&self, id: NetworkId, port: PortId, addr: IpAddr) -> Result<(), AllocError> {
        let Some(network) = self.state.networks.get(&id) else {
            return Err(AllocError::UnknownNetwork { network: id });
        };
        let pool = network.pool();
        if pool.unit_of(addr).is_none() {
            let (network, range) = (network.name.clone(), network.range.to_string());
            return Err(AllocError::OutsideRange { addr, network, range });
        }
        if let Some(what) = pool.reserved(addr) {
            return Err(AllocError::Reserved { addr, what });
        }
        let empty = Default::default();
        let view = network.view(self.own, self.taken.get(&id).unwrap_or(&empty));
        match network.local.in_use(&view, addr, self.own, port) {
            Some(holder) => Err(AllocError::InUse { addr, holder: holder.to_owned() }),
            None => Ok(()),
        }
    }

    fn finish(&mut self, now: Instant, pending: &Pending, result: Result<Vec<IpAddr>, AllocError>) {
        let network = pending.what.network;
        let len = self.state.networks.get(&network).map_or(0, |network| network.range.prefix_len());
        if result.is_err() {
            self.give_back(pending);
        }
        let prefixes = |addrs: Vec<IpAddr>| addrs.into_iter().map(|addr| IpPrefix { addr, len }).collect();
        let result = result.map(prefixes);
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

    /// Ends every request that somebody waits for.
    pub fn refuse_all(&mut self, now: Instant, error: &AllocError) {
        for pending in self.pending.iter_mut().filter(|pending| pending.request.is_some()) {
            pending.refused = Some(error.clone());
        }
        self.progress(now);
    }

    /// Requests of one network that want any address, and have none.
    pub(super) fn hungry(&self, network: NetworkId) -> Vec<(PortId, String)> {
        let hungry = self.pending.iter().map(|pending| &pending.what);
        let hungry = hungry.filter(|what| what.network == network && what.wanted.is_empty());
        hungry.map(|what| (what.port, what.holder.clone())).collect()
    }

    fn hold(&mut self, network: NetworkId, addr: IpAddr, port: PortId, holder: &str) {
        let Some(network) = self.state.networks.get_mut(&network) else { return };
        network.local.hold(addr, Holding { peer: self.own, port, holder: holder.to_owned(), claim: 0 });
        self.dirty = true;
    }

    pub(super) fn owner_of(&self, network: NetworkId, addr: IpAddr) -> Option<PeerId> {
        let network = self.state.networks.get(&network)?;
        network.units.get(network.pool().unit_of(addr)?).map(|run| run.owner)
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
