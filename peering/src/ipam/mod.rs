//! Addresses: who may allocate which, and which are allocated here.

mod pool;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use engine::types::{IpPrefix, NetworkId, PeerId, PortId};
use ipnet::IpNet;

use crate::gossip::StateHash;
use crate::mesh::{AllocError, AllocRequest, IpamStatus, PeerState, RequestId};
use crate::proto::{Message, UnitTable};
use crate::records::{ClusterId, HostRecord, TargetRecord};

pub use pool::{MAX_UNITS, Pool, PoolError};

/// What the state machine wants done, in order, after its state is on disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum IpamOutput {
    /// Send a message to a peer, over whatever connection there is; one is opened if there is none.
    /// It may be lost: it is sent again as long as an answer is missing.
    Send {
        /// The peer.
        to: PeerId,
        /// The message.
        message: Message,
    },
    /// Facts about units changed: push them to a few peers. Facts from a peer are relayed this way too.
    Push(UnitTable),
    /// The answer to [`Ipam::allocate`].
    Allocated {
        /// The request.
        request: RequestId,
        /// The addresses, with the prefix length of the network.
        result: Result<Vec<IpPrefix>, AllocError>,
    },
    /// The cluster of this host changed: say hello again on every connection.
    Cluster {
        /// The cluster; none: it was given up.
        cluster: Option<ClusterId>,
        /// This host founded it just now, and writes the settings of its networks.
        founded: bool,
    },
    /// Something people should know.
    Notice {
        /// One word for programs, in snake case.
        kind: &'static str,
        /// One line for people.
        message: String,
    },
}

/// What becomes of a connection between two hosts, by the clusters in their hellos.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Meeting {
    /// One cluster, or at most one side has one: go on.
    Same,
    /// This host gives its unused cluster up: call [`Ipam::give_way`], and say hello again.
    GiveWay,
    /// The other side gives its unused cluster up: wait for its next hello before anything else.
    Await,
    /// Two clusters: close, reason `other_cluster`.
    Refuse,
}

/// The stored bytes are no state of this module.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IpamError {
    /// Written by a newer release.
    #[error("addresses of version {0} cannot be read by this release")]
    Version(u8),
    /// Not readable.
    #[error("the addresses cannot be read")]
    Malformed,
    /// The range of a network cannot be used.
    #[error(transparent)]
    Pool(#[from] PoolError),
}

/// Addresses of all networks, as one host knows them.
pub struct Ipam {}

impl Ipam {
    /// A host that belongs to no cluster.
    pub fn new(own: PeerId, seed: [u8; 32]) -> Self {
        let _ = (own, seed);
        Ipam {}
    }

    /// The state that [`Self::save`] wrote. Hosts, targets and endpoints are told again by the caller.
    pub fn restore(own: PeerId, seed: [u8; 32], bytes: &[u8]) -> Result<Self, IpamError> {
        let _ = (own, seed, bytes);
        Ok(Ipam {})
    }

    /// Everything that must be on disk before the outputs leave.
    pub fn save(&self) -> Result<Vec<u8>, IpamError> {
        Ok(Vec::new())
    }

    /// True when [`Self::save`] must be written before the next output is taken.
    pub fn is_dirty(&self) -> bool {
        false
    }

    /// What became of the last [`Self::save`]. After a failure the state is the stored one again, and every
    /// waiting answer that rested on the lost change is a refusal.
    pub fn handle_persisted(&mut self, now: Instant, result: Result<(), String>) {
        let _ = (now, result);
    }

    /// Adds a network: its name, and its range as this host would found it. A range learnt with the units
    /// of a cluster replaces it.
    pub fn add_network(&mut self, network: NetworkId, name: &str, range: IpNet) -> Result<(), IpamError> {
        let _ = (network, name, range);
        Ok(())
    }

    /// Found without asking anybody, at the next need (`launch --found`).
    pub fn set_found(&mut self, found: bool) {
        let _ = found;
    }

    /// The targets of this host, and who answered at each.
    pub fn set_targets(&mut self, now: Instant, targets: Vec<TargetRecord>) {
        let _ = (now, targets);
    }

    /// A host record is new or changed.
    pub fn set_host(&mut self, now: Instant, peer: PeerId, host: &HostRecord) {
        let _ = (now, peer, host);
    }

    /// What membership says of a host.
    pub fn set_state(&mut self, now: Instant, peer: PeerId, state: PeerState) {
        let _ = (now, peer, state);
    }

    /// An endpoint record of any host, own ones too: its addresses are taken, whoever owns their units.
    pub fn set_endpoint(
        &mut self,
        peer: PeerId,
        port: PortId,
        network: NetworkId,
        addrs: &[IpAddr],
        name: &str,
    ) {
        let _ = (peer, port, network, addrs, name);
    }

    /// The tombstone of an endpoint record: its addresses are free again.
    pub fn remove_endpoint(&mut self, now: Instant, peer: PeerId, port: PortId) {
        let _ = (now, peer, port);
    }

    /// Asks for addresses; the answer is [`IpamOutput::Allocated`].
    pub fn allocate(&mut self, now: Instant, request: RequestId, what: AllocRequest) {
        let _ = (now, request, what);
    }

    /// Nobody waits for the request any more; what it got is free again.
    pub fn cancel(&mut self, now: Instant, request: RequestId) {
        let _ = (now, request);
    }

    /// Frees the addresses of a port of this host, wherever they were allocated.
    pub fn release(&mut self, now: Instant, port: PortId) {
        let _ = (now, port);
    }

    /// A port that outlived the daemon, or its memory, has these addresses.
    pub fn adopt(&mut self, now: Instant, port: PortId, network: NetworkId, addrs: &[IpAddr], holder: &str) {
        let _ = (now, port, network, addrs, holder);
    }

    /// After a start: frees the addresses of all ports of this host but these.
    pub fn retain(&mut self, now: Instant, ports: &BTreeSet<PortId>) {
        let _ = (now, ports);
    }

    /// Counts as needing an address for the next five seconds (`status --wait ipam`).
    pub fn want(&mut self, now: Instant, network: NetworkId) {
        let _ = (now, network);
    }

    /// A message from a peer: units, ask, answer, space, claim, release. Others are ignored.
    pub fn handle_message(&mut self, now: Instant, from: PeerId, message: Message) {
        let _ = (now, from, message);
    }

    /// The moment told by [`Self::poll_timeout`] has come, or passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        let _ = now;
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// The next thing to do. Taken only while [`Self::is_dirty`] is false.
    pub fn poll_output(&mut self) -> Option<IpamOutput> {
        None
    }

    /// The cluster this host belongs to.
    pub fn cluster(&self) -> Option<ClusterId> {
        None
    }

    /// True when this host founded its cluster and nobody holds an address in it.
    pub fn cedes(&self) -> bool {
        false
    }

    /// What the hello of a peer means, by its cluster and whether it cedes.
    pub fn meet(&self, peer: PeerId, cluster: Option<ClusterId>, cedes: bool) -> Meeting {
        let _ = (peer, cluster, cedes);
        Meeting::Same
    }

    /// Gives the unused cluster up; the networks that it wrote are to be dropped without a tombstone.
    pub fn give_way(&mut self, now: Instant) {
        let _ = now;
    }

    /// All facts, to be sent when the hashes of a round of repair differ.
    pub fn unit_tables(&self) -> Vec<UnitTable> {
        Vec::new()
    }

    /// A hash of all facts in canonical run-length form.
    pub fn units_hash(&self) -> StateHash {
        StateHash::default()
    }

    /// What `status` shows of each network, in the order of their names.
    pub fn status(&self, now: Instant) -> Vec<IpamStatus> {
        let _ = now;
        Vec::new()
    }
}
