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
mod gate;
mod greeting;
mod handing;
mod hosts;
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
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::types::{IpPrefix, NetworkId, PeerId, PortId, Vni};
use ipnet::IpNet;
use rand::rngs::StdRng;
use rand::seq::IteratorRandom;
use rand::{RngExt, SeedableRng};

use crate::gossip::{Record, RecordStore, Slot, kind};
use crate::ipam::{Ipam, IpamOutput};
use crate::membership::Membership;
use crate::proto::Message;
use crate::records::{Cause, ClusterId, NetworkRecord, SubnetRecord, TargetRecord};
use crate::secret::SecretName;
use crate::topology::{Action, Topology};
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
    writing_addresses: Option<Vec<u8>>,
    next_tick: Instant,
    malformed: u64,
    /// This host is leaving for good; true: also if nobody takes its address space.
    leaving: Option<bool>,
    stopped: bool,
}

/// Input.
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
            writing_addresses: None,
            next_tick: now,
            malformed: 0,
            leaving: None,
            stopped: false,
            config,
        };
        mesh.recall();
        Ok(mesh)
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
        if !self.begin(now) {
            return self.outbox.push(Output::Close { conn, reason: "stopped".to_owned() });
        }
        self.topology.handle_established(now, conn, peer, dial, remote);
        if let Some(reason) = self.barred(peer) {
            self.turn_away(conn, (peer, remote), dial, &reason);
        } else if !self.turns_away(conn, peer, dial.is_some()) {
            self.budgets.insert(conn, Budget::new(now));
            self.say_hello(conn);
        }
        if peer == self.me {
            // One target less is unresolved: a founding may wait for just that.
            self.refresh_own_host();
        }
        self.settle();
    }

    /// The shell found addresses for the name of an attempt, and goes on to connect.
    pub fn handle_resolved(&mut self, dial: DialId) {
        self.topology.handle_resolved(dial);
    }

    /// One message came on the stream of a connection.
    pub fn handle_message(&mut self, now: Instant, conn: ConnId, bytes: &[u8]) {
        if self.begin(now) {
            self.receive(conn, bytes);
            self.settle();
        }
    }

    /// One datagram came on a connection.
    pub fn handle_datagram(&mut self, now: Instant, conn: ConnId, bytes: &[u8]) {
        self.handle_message(now, conn, bytes);
    }

    /// The far end of a connection goes on from another address.
    pub fn handle_moved(&mut self, now: Instant, conn: ConnId, remote: SocketAddr) {
        if self.begin(now)
            && let Some(peer) = self.topology.handle_moved(conn, remote)
        {
            self.seen.insert(peer, remote);
            self.show_again_at_its_address(peer);
            self.settle();
        }
    }

    /// A connection ended, whoever closed it.
    pub fn handle_closed(&mut self, now: Instant, conn: ConnId, reason: &str) {
        if !self.begin(now) {
            return;
        }
        self.budgets.remove(&conn);
        let peer = self.topology.far_end(conn).map(|(peer, ..)| peer);
        match peer {
            Some(peer) if peer == self.me => self.handle_own_closed(conn, reason),
            Some(peer) if greeting::is_refusal(reason) => {
                self.topology.handle_refused(now, conn, reason);
                self.count_bar(reason);
                self.note_refusal(peer, reason);
                if clones::is_clone(reason) {
                    self.become_clone(reason);
                }
            }
            Some(peer) => {
                if self.topology.handle_closed(now, conn, reason) {
                    self.membership.lost(self.now, peer);
                }
                self.forget_where_it_was(peer, reason);
            }
            None => {}
        }
        self.forget_trials_of(conn);
        self.settle();
    }

    /// An attempt to connect failed.
    pub fn handle_dial_failed(&mut self, now: Instant, dial: DialId, reason: &str) {
        if self.begin(now) {
            self.topology.handle_dial_failed(now, dial, reason);
            self.settle();
        }
    }

    /// The moment told by [`Self::poll_timeout`] has come, or passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if !self.begin(now) {
            return;
        }
        self.membership.handle_timeout(now);
        self.judge_newcomers();
        self.ipam.handle_timeout(now);
        if self.next_tick <= now {
            self.next_tick = now + TICK.mul_f64(self.rng.random_range(0.9..=1.1));
            self.tick();
        }
        self.topology.handle_timeout(now);
        self.settle();
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

    /// The state to be written to disk, if it is time; [`Self::handle_persisted`] must follow before any output is
    /// taken.
    pub fn poll_persist(&mut self) -> Option<Vec<u8>> {
        let due = self.outbox.is_write_due(self.now) || self.ipam.is_dirty();
        if self.outbox.is_writing() || !due {
            return None;
        }
        let bytes = self.save()?;
        self.outbox.write_started();
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
        if result.is_err() || self.addresses_are_written() {
            self.ipam.handle_persisted(self.now, result);
        }
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

    fn receive(&mut self, conn: ConnId, bytes: &[u8]) {
        let Some((peer, _, ready)) = self.topology.far_end(conn) else { return };
        let paid = self.budgets.get_mut(&conn).is_some_and(|budget| budget.pay(self.now, bytes.len()));
        if !paid {
            self.topology.close(conn, "too much at once");
            return;
        }
        match Message::decode(bytes) {
            Ok(Message::Hello(hello)) => self.handle_hello(conn, peer, ready, &hello),
            Ok(message) if ready && self.clones.oneself().is_none() => self.dispatch(conn, peer, message),
            // A host that waits for the second hello of a founder that gives way hears nothing else.
            Ok(_) => {}
            Err(_) => self.malformed += 1,
        }
    }

    fn dispatch(&mut self, conn: ConnId, peer: PeerId, message: Message) {
        self.topology.touch(self.now, conn);
        self.membership.heard(self.now, peer);
        match message {
            Message::Swim(bytes) => {
                if let Some(question) = Membership::answer(&bytes) {
                    self.refuse_clones_of(conn, peer, question);
                }
                self.membership.handle_datagram(self.now, peer, &bytes);
            }
            Message::CloneSeen(seen) => self.handle_clone_seen(seen),
            Message::Members(members) => self.handle_members(conn, &members),
            Message::Summary(summary) => self.handle_summary(conn, summary),
            Message::Ranges(ranges) => self.handle_ranges(conn, &ranges),
            Message::Digest(digest) => self.handle_digest(conn, &digest),
            Message::Confirm(confirm) => self.handle_confirm(conn, peer, confirm),
            Message::Confirmed(confirmed) => self.handle_confirmed(conn, peer, confirmed),
            Message::Pull(slots) => self.handle_pull(conn, &slots),
            Message::Push(records) | Message::Records(records) => self.handle_records(conn, peer, &records),
            Message::SecretRequest(name) => self.handle_secret_request(conn, peer, name),
            Message::SecretAnswer(secret) => self.handle_secret_answer(secret),
            Message::Hello(_) | Message::Unknown { .. } => {}
            other => self.ipam.handle_message(self.now, peer, other),
        }
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

    /// Carries what one module decided to the others, until nothing moves.
    fn settle(&mut self) {
        self.drain_membership();
        loop {
            self.go_on_creating();
            self.drain_ipam();
            if !self.settle_networks() {
                break;
            }
        }
        self.answer_creators();
        self.drain_membership();
        self.drain_topology();
    }

    fn drain_membership(&mut self) {
        while let Some(event) = self.membership.poll_event() {
            self.handle_member(event);
        }
        while let Some((peer, bytes)) = self.membership.poll_datagram() {
            self.send_swim(peer, bytes);
        }
    }

    /// News go to somebody there is a connection to; only a probe is worth a new one.
    fn send_swim(&mut self, peer: PeerId, bytes: Vec<u8>) {
        if self.topology.best(peer).is_some() || Membership::is_worth_a_connection(&bytes) {
            return self.send(peer, &Message::Swim(bytes));
        }
        if Membership::is_news(&bytes) {
            let other = self.topology.partners().into_iter().choose(&mut self.rng);
            let redirected = other.and_then(|other| Some((other, self.membership.redirect(&bytes, other)?)));
            if let Some((other, bytes)) = redirected {
                self.send(other, &Message::Swim(bytes));
            }
        }
    }

    /// The farewell takes the stream: it arrives before the connection ends.
    fn drain_farewell(&mut self) {
        while let Some((peer, bytes)) = self.membership.poll_datagram() {
            if let Some(conn) = self.topology.best(peer) {
                self.outbox.push(Output::Transmit { conn, bytes: Message::Swim(bytes).encode() });
            }
        }
    }

    fn drain_ipam(&mut self) {
        while !self.ipam.is_dirty() {
            let Some(output) = self.ipam.poll_output() else { return };
            match output {
                IpamOutput::Send { to, message } => self.send(to, &message),
                IpamOutput::Push(table) => self.push_units(&Message::Units(table)),
                IpamOutput::Allocated { request, result } => {
                    self.outbox.push(Output::Allocated { request, result })
                }
                IpamOutput::Cluster { founded, cluster } => self.handle_cluster(founded, cluster),
                IpamOutput::Founded { network, result } => self.network_founded(network, result),
                IpamOutput::Leaves(peer) => self.let_leave(peer),
                IpamOutput::CannotLeave => self.cannot_leave(),
                IpamOutput::Readdress { port, old, new, .. } => self.readdress(port, old, new),
                IpamOutput::Reclaim(peer) => drop(self.remove(peer, Cause::Reclaimed)),
                IpamOutput::Notice { kind, message } => self.note(kind, message),
            }
        }
    }

    /// Has the daemon change the interface of an endpoint of this host.
    fn readdress(&mut self, port: PortId, old: IpAddr, new: IpPrefix) {
        let Some(endpoint) = self.store.endpoint(self.me, port) else { return };
        let kept = endpoint.addresses.iter().copied().filter(|prefix| prefix.addr != old && *prefix != new);
        let addresses = kept.chain([new]).collect();
        self.view.tell(MeshEvent::Readdress { port, addresses });
    }

    fn drain_topology(&mut self) {
        while let Some(action) = self.topology.poll_action() {
            match action {
                Action::Dial(dial, target) => self.outbox.push(Output::Dial { dial, target }),
                Action::Tell(conn) => self.say_hello(conn),
                Action::Close(conn, reason) => {
                    self.budgets.remove(&conn);
                    self.clones.forget(conn);
                    self.outbox.push(Output::Close { conn, reason });
                }
            }
        }
    }

    /// Sends over the connection to a peer, or keeps the message until there is one.
    fn send(&mut self, peer: PeerId, message: &Message) {
        if self.clones.oneself().is_some() {
            return;
        }
        let bytes = message.encode();
        let datagram = matches!(message, Message::Swim(_));
        match self.topology.best(peer) {
            Some(conn) => {
                self.topology.touch(self.now, conn);
                let output = if datagram {
                    Output::Datagram { conn, bytes }
                } else {
                    Output::Transmit { conn, bytes }
                };
                self.outbox.push(output);
            }
            None => {
                self.waiting.keep(self.now, peer, bytes);
                self.topology.want(self.now, peer);
            }
        }
    }

    fn flush_waiting(&mut self, peer: PeerId) {
        let Some(conn) = self.topology.best(peer) else { return };
        for bytes in self.waiting.take(peer) {
            self.outbox.push(Output::Transmit { conn, bytes });
        }
    }

    fn handle_cluster(&mut self, founded: bool, cluster: Option<ClusterId>) {
        if let Some(cluster) = cluster.filter(|_| founded) {
            let network = NetworkRecord {
                network: MESH_NETWORK,
                name: MESH_NAME.to_owned(),
                vni: Vni::MESH,
                vni_given: true,
                subnets: vec![SubnetRecord::whole(IpNet::V4(self.config.range))],
                subnet_chosen: false,
                mtu: self.config.mtu,
                reclaim_after: self.config.reclaim_after,
                cluster,
                encrypted: self.config.sealing.seals(),
                internal: false,
                labels: Vec::new(),
                options: Vec::new(),
                created_s: 0,
            };
            let record = self.store.put_network(&self.config.identity, &network);
            self.wrote(record.as_slice());
        } else if cluster.is_none() {
            self.drop_settings();
        }
        self.say_hello_again();
    }

    /// The networks of a cluster that nobody used go with it.
    fn drop_settings(&mut self) {
        let networks = self.store.live().filter(|record| record.kind() == kind::NETWORK);
        let slots: Vec<Slot> = networks.map(|record| record.slot()).collect();
        for slot in slots {
            if let Some(record) = self.store.drop_slot(slot) {
                self.note_network(record.key());
            }
        }
        self.outbox.change(self.now);
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
