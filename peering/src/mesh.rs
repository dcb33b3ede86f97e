//! The whole control plane of one host as one state machine.
//!
//! Connections, messages, datagrams, commands and `now` go in (`handle_*` and the commands); what must be
//! written to disk, then what must be sent, dialled and answered, then events come out (`poll_*`). Nothing
//! here touches a socket, a file or a clock, and every choice at random comes from the seed.

mod alloc;
mod api;
mod config;
mod status;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use engine::types::{Claim, NetworkId, PeerId, PortId};

pub use alloc::{AllocError, AllocRequest};
pub use api::{
    ConnId, DialId, DialTarget, Endpoint, EndpointView, HostView, MeshEvent, Output, RequestId, VtepView,
};
pub use config::{DEFAULT_PORT, MeshConfig, ParseTargetError, Target};
pub use status::{
    EventStatus, IpamState, IpamStatus, MeshStatus, OwnerStatus, PeerState, PeerStatus, TargetState,
    TargetStatus,
};

/// The mesh cannot start.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MeshError {
    /// What the disk held is not a state of this program.
    #[error("the stored state cannot be read: {0}")]
    Stored(String),
}

/// The control plane of one host.
pub struct Mesh {
    config: MeshConfig,
}

impl Mesh {
    /// Starts from what the disk held, if anything.
    pub fn new(config: MeshConfig, stored: Option<&[u8]>, now: Instant) -> Result<Mesh, MeshError> {
        let _ = (stored, now);
        Ok(Mesh { config })
    }

    /// A connection stands and its far end proved to be `peer`; `dial` is the attempt it came from, if it was ours.
    pub fn handle_established(
        &mut self,
        now: Instant,
        conn: ConnId,
        peer: PeerId,
        dial: Option<DialId>,
        remote: SocketAddr,
    ) {
        let _ = (now, conn, peer, dial, remote);
    }

    /// One message came on the stream of a connection.
    pub fn handle_message(&mut self, now: Instant, conn: ConnId, bytes: &[u8]) {
        let _ = (now, conn, bytes);
    }

    /// One datagram came on a connection.
    pub fn handle_datagram(&mut self, now: Instant, conn: ConnId, bytes: &[u8]) {
        let _ = (now, conn, bytes);
    }

    /// A connection ended, whoever closed it.
    pub fn handle_closed(&mut self, now: Instant, conn: ConnId, reason: &str) {
        let _ = (now, conn, reason);
    }

    /// An attempt to connect failed.
    pub fn handle_dial_failed(&mut self, now: Instant, dial: DialId, reason: &str) {
        let _ = (now, dial, reason);
    }

    /// The moment told by [`Self::poll_timeout`] has come, or passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        let _ = now;
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// The state to be written to disk, if it changed; [`Self::handle_persisted`] must follow before any output is taken.
    pub fn poll_persist(&mut self) -> Option<Vec<u8>> {
        None
    }

    /// What became of the state from [`Self::poll_persist`]. After a failure, answers that rest on it are refusals.
    pub fn handle_persisted(&mut self, result: Result<(), String>) {
        let _ = result;
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        None
    }

    /// The next thing to know.
    pub fn poll_event(&mut self) -> Option<MeshEvent> {
        None
    }

    /// Adds targets; with `replace`, forgets those that are not named.
    pub fn connect(&mut self, now: Instant, targets: Vec<Target>, replace: bool) {
        let _ = (now, targets, replace);
    }

    /// Ends the attempts at these targets.
    pub fn forget(&mut self, now: Instant, targets: &[Target]) {
        let _ = (now, targets);
    }

    /// Asks for addresses; the answer is [`Output::Allocated`], as soon as there is one.
    pub fn allocate(&mut self, now: Instant, request: RequestId, what: AllocRequest) {
        let _ = (now, request, what);
    }

    /// The caller of [`Self::allocate`] does not wait any more; what was allocated is free again.
    pub fn cancel(&mut self, now: Instant, request: RequestId) {
        let _ = (now, request);
    }

    /// Frees the addresses of a port.
    pub fn release(&mut self, now: Instant, port: PortId) {
        let _ = (now, port);
    }

    /// Tells every host about an endpoint of this one, new or changed, and returns the claim on its MAC address.
    pub fn put_endpoint(&mut self, now: Instant, endpoint: Endpoint) -> Claim {
        let _ = (now, endpoint);
        Claim { version: 1, peer: PeerId::default() }
    }

    /// Tells every host that an endpoint of this one is gone.
    pub fn remove_endpoint(&mut self, now: Instant, port: PortId) {
        let _ = (now, port);
    }

    /// Declares an external VXLAN endpoint. False: there is no such network.
    pub fn add_vtep(&mut self, now: Instant, network: NetworkId, addr: SocketAddr) -> bool {
        let _ = (now, network, addr);
        false
    }

    /// Removes an external VXLAN endpoint. False: it was not declared.
    pub fn remove_vtep(&mut self, now: Instant, network: NetworkId, addr: SocketAddr) -> bool {
        let _ = (now, network, addr);
        false
    }

    /// Tells everybody that this host stops: it is down at once everywhere. Only outputs follow.
    pub fn stop(&mut self, now: Instant) {
        let _ = now;
    }

    /// The endpoints of all hosts, down ones included, in the order of (peer, port).
    pub fn endpoints(&self) -> Vec<EndpointView> {
        Vec::new()
    }

    /// The external VXLAN endpoints.
    pub fn vteps(&self) -> Vec<VtepView> {
        Vec::new()
    }

    /// Who this host is.
    pub fn peer_id(&self) -> PeerId {
        PeerId::default()
    }

    /// The control plane at this moment.
    pub fn status(&self, now: Instant) -> MeshStatus {
        let _ = (now, Duration::ZERO);
        MeshStatus {
            peer_id: String::new(),
            nickname: self.config.nickname.clone(),
            cluster_id: None,
            state_hash: String::new(),
            peers: Vec::new(),
            targets: Vec::new(),
            connections: Vec::new(),
            ipam: Vec::new(),
            events: Vec::new(),
        }
    }
}
