//! What people and the daemon ask of this host.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use engine::types::{Claim, NetworkId, PortId};

use super::{
    AllocError, AllocRequest, Endpoint, EndpointView, Mesh, Output, RequestId, Target, VtepError, VtepView,
};
use crate::records::{EndpointRecord, Given, VtepRecord};

impl Mesh {
    /// Adds targets and tries them at once; with `replace`, forgets those that are not named.
    pub fn connect(&mut self, now: Instant, targets: Vec<Target>, replace: bool) {
        if self.begin(now) {
            self.topology.connect(now, targets, replace);
            self.refresh_own_host();
            self.settle();
        }
    }

    /// Ends the attempts at these targets; a connection that stands stays.
    pub fn forget(&mut self, now: Instant, targets: &[Target]) {
        if self.begin(now) {
            self.topology.forget(targets);
            self.refresh_own_host();
            self.settle();
        }
    }

    /// This host is reached at these addresses from now on, best first.
    pub fn set_addresses(&mut self, now: Instant, control: Vec<SocketAddr>, data: Vec<SocketAddr>) {
        if !self.begin(now) || (&control, &data) == (&self.config.advertise, &self.config.data_addrs) {
            return;
        }
        let texts: Vec<String> = data.iter().map(|addr| addr.ip().to_string()).collect();
        self.note("addresses_changed", format!("this host is at {} now", texts.join(", ")));
        (self.config.advertise, self.config.data_addrs) = (control, data);
        self.told = None;
        self.refresh_own_host();
        self.settle();
    }

    /// Asks for addresses; the answer is [`Output::Allocated`], as soon as there is one.
    pub fn allocate(&mut self, now: Instant, request: RequestId, what: AllocRequest) {
        if let Some(other) = self.clones.oneself() {
            let result = Err(AllocError::Clone { other: other.to_owned() });
            self.outbox.push(Output::Allocated { request, result });
        } else if self.begin(now) {
            let network = self.networks.canonical(what.network);
            self.ipam.allocate(now, request, AllocRequest { network, ..what });
            self.settle();
        } else {
            self.outbox.push(Output::Allocated { request, result: Err(AllocError::Stopping) });
        }
    }

    /// The caller of [`Self::allocate`] or [`Self::create_network`] does not wait any more; what was got is free again.
    pub fn cancel(&mut self, now: Instant, request: RequestId) {
        if self.begin(now) {
            if !self.cancel_creation(request) {
                self.ipam.cancel(now, request);
            }
            self.settle();
        }
    }

    /// Frees the addresses of a port.
    pub fn release(&mut self, now: Instant, port: PortId) {
        if self.begin(now) {
            self.ipam.release(now, port);
            self.settle();
        }
    }

    /// For the next five seconds this host counts as needing an address (`status --wait ipam`).
    pub fn want(&mut self, now: Instant, network: NetworkId) {
        if self.begin(now) {
            let network = self.networks.canonical(network);
            self.ipam.want(now, network);
            self.settle();
        }
    }

    /// After a start: only these ports outlived the daemon. The endpoints and addresses of all others are given up.
    pub fn retain(&mut self, now: Instant, ports: &BTreeSet<PortId>) {
        if !self.begin(now) {
            return;
        }
        let own = self.store.endpoints_of(self.me).map(|endpoint| endpoint.port);
        let gone: Vec<PortId> = own.filter(|port| !ports.contains(port)).collect();
        for port in gone {
            self.delete_endpoint(port);
        }
        self.ipam.retain(now, ports);
        self.settle();
    }

    /// Tells every host about an endpoint of this one, new or changed, and returns the claim on its MAC address.
    pub fn put_endpoint(&mut self, now: Instant, endpoint: Endpoint) -> Claim {
        let claim = Claim { version: self.claim_version(&endpoint), peer: self.me };
        if self.begin(now) {
            let network = self.networks.canonical(endpoint.network);
            self.write_endpoint(Endpoint { network, ..endpoint });
            self.settle();
        }
        claim
    }

    pub(super) fn write_endpoint(&mut self, endpoint: Endpoint) {
        let claim = self.claim_version(&endpoint);
        let addrs: Vec<_> = endpoint.addresses.iter().map(|prefix| prefix.addr).collect();
        let (port, network) = (endpoint.port, endpoint.network);
        self.ipam.adopt(self.now, port, network, &addrs, &endpoint.name);
        self.ipam.keep_only(self.now, port, network, &addrs);
        let given = self.given(&endpoint, &addrs);
        let record = EndpointRecord::new(endpoint, claim, given);
        let record = self.store.put_endpoint(&self.config.identity, &record);
        self.wrote(record.as_slice());
    }

    /// Tells every host that an endpoint of this one is gone, and frees its addresses.
    pub fn remove_endpoint(&mut self, now: Instant, port: PortId) {
        if self.begin(now) {
            self.delete_endpoint(port);
            self.ipam.release(now, port);
            self.settle();
        }
    }

    /// Declares an external VXLAN endpoint.
    ///
    /// # Errors
    /// When there is no such network, or its frames are sealed.
    pub fn add_vtep(&mut self, now: Instant, network: NetworkId, addr: SocketAddr) -> Result<(), VtepError> {
        let network = self.networks.canonical(network);
        if !self.begin(now) || self.vni(network).is_none() {
            return Err(VtepError::UnknownNetwork);
        }
        if self.is_sealed(network) {
            return Err(VtepError::Sealed);
        }
        let record = self.store.put_vtep(&self.config.identity, &VtepRecord { network, addr });
        self.wrote(record.as_slice());
        self.settle();
        Ok(())
    }

    /// Removes an external VXLAN endpoint. False: it was not declared.
    pub fn remove_vtep(&mut self, now: Instant, network: NetworkId, addr: SocketAddr) -> bool {
        if !self.begin(now) {
            return false;
        }
        let record = self.store.delete_vtep(&self.config.identity, &VtepRecord { network, addr });
        self.wrote(record.as_slice());
        self.settle();
        record.is_some()
    }

    /// Tells everybody that this host stops: it is down at once everywhere. Only outputs follow.
    pub fn stop(&mut self, now: Instant) {
        if !self.begin(now) {
            return;
        }
        self.refuse_creations();
        self.membership.leave(now);
        self.drain_farewell();
        self.topology.close_all("stopped");
        self.drain_topology();
        self.outbox.guard();
        self.stopped = true;
    }

    /// The endpoints of all hosts, down ones included, in the order of (peer, port).
    pub fn endpoints(&self) -> Vec<EndpointView> {
        let all = self.store.endpoints().filter_map(|(peer, endpoint)| self.endpoint_view(peer, endpoint));
        let mut all: Vec<EndpointView> = all.collect();
        all.sort_by_key(|view| (view.peer, view.endpoint.port));
        all
    }

    /// The external VXLAN endpoints, in the order of (network, address).
    pub fn vteps(&self) -> Vec<VtepView> {
        let vteps = self.store.vteps();
        let mut all: Vec<VtepView> = vteps
            .filter_map(|v| self.vni(v.network).map(|vni| VtepView { network: v.network, vni, addr: v.addr }))
            .collect();
        all.sort_by_key(|view| (view.network, view.addr));
        all
    }

    /// How an endpoint came by its addresses: as it was when it got them.
    fn given(&self, endpoint: &Endpoint, addrs: &[IpAddr]) -> Given {
        let now = self.ipam.given(endpoint.network, addrs, endpoint.explicit);
        match self.store.endpoint(self.me, endpoint.port) {
            Some(e) if e.addresses == endpoint.addresses && e.given.cluster.is_some() => e.given,
            Some(_) | None => now,
        }
    }

    fn delete_endpoint(&mut self, port: PortId) {
        let record = self.store.delete_endpoint(&self.config.identity, port);
        self.wrote(record.as_slice());
    }

    /// A claim that nobody outbid stays; else the endpoint claims its MAC anew.
    fn claim_version(&self, endpoint: &Endpoint) -> u64 {
        let next = self.store.next_claim(endpoint.mac);
        match self.store.endpoint(self.me, endpoint.port) {
            Some(e) if e.mac == endpoint.mac && e.claim_version.saturating_add(1) == next => e.claim_version,
            Some(_) | None => next,
        }
    }
}
