//! The whole control plane of one host as one state machine.
//!
//! Connections, messages, datagrams, commands and `now` go in (`handle_*` and the commands); what must be
//! written to disk, then what must be sent, dialled and answered, then events come out (`poll_*`). Nothing
//! here touches a socket, a file or a clock, and every choice at random comes from the seed.

mod alloc;
mod api;
mod budget;
mod clones;
mod commands;
mod config;
mod disk;
mod flow;
mod founding;
mod gate;
mod greeting;
mod handing;
mod hosts;
mod input;
mod journal;
mod members;
mod names;
mod networks;
mod outbox;
mod refusals;
mod removal;
mod report;
mod rotate;
mod secrets;
mod spread;
mod status;
mod sweep;
mod tables;
mod view;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::types::{NetworkId, PeerId, Vni};
use ipnet::IpNet;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::gossip::{Record, RecordStore};
use crate::ipam::Ipam;
use crate::membership::Membership;
use crate::records::{SubnetRecord, TargetRecord};
use crate::secret::SecretName;
use crate::topology::Topology;
use budget::{Budget, Repairs};
use clones::Clones;
use journal::Journal;
use members::Rest;
use networks::Networks;
use outbox::Outbox;
use refusals::Refusals;
use secrets::Secrets;
use sweep::Sweep;
use view::View;
use waiting::Waiting;

pub use alloc::{AllocError, AllocRequest};
pub use api::{
    ConnId, DialId, DialTarget, Endpoint, EndpointView, HostView, LeaveError, MeshEvent, NameError, NameView,
    Output, RequestId, VtepError, VtepView,
};
pub use config::{
    DEFAULT_DATA_PORT, DEFAULT_PORT, DEFAULT_RECLAIM_AFTER, IDLE_TIMEOUT, KEEP_ALIVE, MeshConfig,
    ParseTargetError, Target,
};
pub use networks::{NetworkError, NetworkSpec, NetworkView, SubnetSpec};
pub use removal::{RemoveError, Removed};
pub use rotate::RotateError;
pub use status::{
    EventStatus, HolderStatus, IpamState, IpamStatus, MeshStatus, OwnerStatus, PeerState, PeerStatus,
    RotationStatus, TargetState, TargetStatus,
};
pub use tables::{HostTable, MeshTables, RecordTable, UnitRun};

/// The id of the network `mesh` in every cluster: BLAKE2s("mesh").
pub const MESH_NETWORK: NetworkId = NetworkId([
    0xe3, 0x16, 0x9a, 0x98, 0x7f, 0x7f, 0x00, 0x00, 0xba, 0xc3, 0xd7, 0x62, 0x66, 0xe6, 0x4a, 0xd1, 0xd7,
    0x13, 0xee, 0x2c, 0xe0, 0x3c, 0x6d, 0x06, 0x37, 0xf5, 0x8f, 0xab, 0x6d, 0x37, 0x66, 0x25,
]);
/// The name of that network.
pub const MESH_NAME: &str = "mesh";

/// How often a host compares what it knows with somebody else, and looks round.
const TICK: Duration = Duration::from_secs(1);

/// The mesh cannot start.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MeshError {
    /// What the disk held is not a state of this program.
    #[error("the stored state cannot be read: {0}")]
    Stored(String),
    /// The range cannot be used.
    #[error("the range of the network cannot be used: {0}")]
    Range(String),
}

/// What of a host's record may change: its targets, secrets and networks.
type Told = (Vec<TargetRecord>, Vec<SecretName>, Vec<(NetworkId, Vni)>);

/// The control plane of one host.
pub struct Mesh {
    config: MeshConfig,
    me: PeerId,
    now: Instant,
    rng: StdRng,
    topology: Topology,
    membership: Membership,
    store: RecordStore,
    ipam: Ipam,
    view: View,
    networks: Networks,
    journal: Journal,
    outbox: Outbox,
    waiting: Waiting,
    budgets: BTreeMap<ConnId, Budget>,
    repairs: Repairs,
    rest: Rest,
    clones: Clones,
    refused: BTreeSet<PeerId>,
    refusals: Refusals,
    /// Where a peer's end of the last connection was.
    seen: BTreeMap<PeerId, SocketAddr>,
    states: BTreeMap<PeerId, PeerState>,
    sweep: Option<Sweep>,
    /// Hosts known from the disk that are taken for alive until membership knows better, so that traffic goes on at once.
    presumed: BTreeSet<PeerId>,
    /// Since when each host is known that membership never met.
    strangers: BTreeMap<PeerId, Instant>,
    /// Hosts whose removal the addresses are to be told of, if it still stands by then.
    buried: BTreeSet<PeerId>,
    secrets: Secrets,
    /// What this host's record says of it that may change.
    told: Option<Told>,
    next_tick: Instant,
    malformed: u64,
    /// This host is leaving for good; true: also if nobody takes its address space.
    leaving: Option<bool>,
    stopped: bool,
}

impl Mesh {
    /// Starts from what the disk held, if anything.
    ///
    /// # Errors
    /// The stored bytes are no state of this release, or the range is no range of a network.
    pub fn new(config: MeshConfig, stored: Option<&[u8]>, now: Instant) -> Result<Mesh, MeshError> {
        let (store, mut ipam) = disk::restore(&config, stored)?;
        let range = IpNet::V4(config.range);
        ipam.add_network(MESH_NETWORK, MESH_NAME, &[SubnetRecord::whole(range)])
            .map_err(|error| MeshError::Range(error.to_string()))?;
        ipam.set_found(config.found);
        let me = config.identity.peer_id();
        let mut rng = StdRng::from_seed(config.seed);
        let topology =
            Topology::new(me, config.discovery, config.targets.clone(), StdRng::from_rng(&mut rng), now);
        let membership = Membership::new(me, bump(store.incarnation()), StdRng::from_rng(&mut rng));
        let mut mesh = Mesh {
            me,
            now,
            rng,
            topology,
            membership,
            store,
            ipam,
            view: View::default(),
            networks: Networks::default(),
            journal: Journal::default(),
            outbox: Outbox::default(),
            waiting: Waiting::default(),
            budgets: BTreeMap::new(),
            repairs: Repairs::new(now),
            rest: Rest::default(),
            clones: Clones::new(now),
            refused: BTreeSet::new(),
            refusals: Refusals::default(),
            seen: BTreeMap::new(),
            states: BTreeMap::new(),
            sweep: None,
            presumed: BTreeSet::new(),
            strangers: BTreeMap::new(),
            buried: BTreeSet::new(),
            secrets: Secrets::new(config.keyring.clone(), now),
            told: None,
            next_tick: now,
            malformed: 0,
            leaving: None,
            stopped: false,
            config,
        };
        mesh.recall();
        Ok(mesh)
    }
}

/// Output.
impl Mesh {
    /// When [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.stopped {
            return None;
        }
        let timeouts = [
            Some(self.next_tick),
            self.membership.poll_timeout(),
            self.ipam.poll_timeout(),
            self.topology.poll_timeout(),
            self.outbox.poll_timeout(),
            self.clones.poll_timeout(),
        ];
        timeouts.into_iter().flatten().min()
    }

    /// The state to be written to disk, if it is time; [`Self::handle_persisted`] follows. Outputs that do not rest on it may be
    /// taken meanwhile.
    pub fn poll_persist(&mut self) -> Option<Vec<u8>> {
        let due = self.outbox.is_write_due(self.now) || self.ipam.is_dirty();
        if self.outbox.is_writing() || !due {
            return None;
        }
        let bytes = self.save()?;
        self.outbox.write_started();
        self.ipam.write_started();
        Some(bytes)
    }

    /// What became of the state from [`Self::poll_persist`]. After a failure, answers that rest on it are refusals.
    pub fn handle_persisted(&mut self, result: Result<(), String>) {
        match &result {
            Ok(()) if self.outbox.write_succeeded() => {
                self.note("store_works", "the state can be written again".to_owned());
            }
            Ok(()) => {}
            Err(reason) if self.outbox.write_failed(self.now) => {
                self.note("store_failed", format!("the state cannot be written ({reason}): no address is given out until it can, traffic goes on"));
            }
            Err(_) => {}
        }
        self.secrets_written(result.is_ok());
        self.ipam.handle_persisted(self.now, result);
        self.settle();
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outbox.poll()
    }

    /// The next thing to know.
    pub fn poll_event(&mut self) -> Option<MeshEvent> {
        self.view.poll_event()
    }

    /// Who this host is.
    pub fn peer_id(&self) -> PeerId {
        self.me
    }

    /// How often this host began anew; it rises with each start, and above what others report of it.
    pub fn incarnation(&self) -> u64 {
        self.store.incarnation()
    }

    /// Something the shell found that people should know: an event, and a line of `status`.
    pub fn remark(&mut self, now: Instant, kind: &'static str, message: String) {
        if self.begin(now) {
            self.note(kind, message);
        }
    }

    /// How many records this host holds, tombstones included, and their length in bytes.
    pub fn records_held(&self) -> (usize, usize) {
        (self.store.len(), self.store.bytes())
    }

    /// Signatures that were checked since the start.
    pub fn signatures_checked(&self) -> u64 {
        self.store.counters().checked
    }

    /// Messages that could not be read since the start.
    pub fn malformed(&self) -> u64 {
        self.malformed
    }
}

impl Mesh {
    /// What the disk held is used like what comes from others, and this host introduces itself.
    fn recall(&mut self) {
        self.note_network(&MESH_NETWORK.0);
        self.settle_networks();
        let records: Vec<Arc<Record>> = self.store.all().cloned().collect();
        self.presumed = self.store.members().filter(|peer| *peer != self.me).collect();
        records.iter().for_each(|record| self.apply(record));
        self.outbox.guard();
        self.refresh_own_host();
        self.come_back();
        self.settle();
    }

    /// True while the host runs.
    fn begin(&mut self, now: Instant) -> bool {
        self.now = self.now.max(now);
        !self.stopped
    }

    fn tick(&mut self) {
        self.waiting.expire(self.now);
        self.cease_to_be_clone();
        if self.clones.oneself().is_some() {
            return;
        }
        self.tell_removals();
        self.look_at_members();
        self.refresh_own_host();
        self.look_at_rotation();
        self.write_numbers();
        self.cut_left_behind();
        self.compare_with_anybody();
        self.go_on_sweeping();
        self.compare_members();
        self.membership.set_neighbours(self.now, self.topology.partners());
    }

    fn note(&mut self, kind: &'static str, message: String) {
        let event = self.journal.note(self.now, kind, message);
        self.view.tell(event);
    }
}

/// The bump of membership leaves room for a host to be declared dead in error many times in one life.
fn bump(incarnation: u64) -> u64 {
    incarnation << 16
}

#[cfg(test)]
mod tests;
