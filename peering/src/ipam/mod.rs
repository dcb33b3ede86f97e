//! Addresses: who may allocate which, and which are allocated here.
//!
//! Each subnet of a network is a [`Pool`], cut once into units. The replicated fact is unit -> (cluster, epoch,
//! owner); only the owner allocates in a unit, so allocation goes on on both sides of a partition.
//!
//! ```text
//! founding ──> all units to one host ──> space (grants, ahead of need) ──> local allocations
//!                                                         claims (--ip, or a last address, by the owner)
//! ```
//!
//! One state machine: commands, messages and `now` go in; what must be on disk ([`Ipam::save`], while [`Ipam::is_dirty`]) and
//! outputs come out. An output only comes when the state it rests on is stored ([`Ipam::handle_persisted`]).

mod claim;
mod cluster;
mod dispute;
mod founding;
mod leaving;
mod local;
mod networks;
mod owner;
mod pool;
mod reclaim;
mod removed;
mod request;
mod space;
mod state;
mod status;
mod taken;
#[cfg(test)]
mod tests;
mod units;
mod unwritten;
mod world;

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Instant;

use engine::types::{IpPrefix, NetworkId, PeerId, PortId};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::gossip::StateHash;
use crate::mesh::{AllocError, PeerState, RequestId};
use crate::plain::Plain;
use crate::proto::{ClaimRefusal, Message, UnitTable};
use crate::records::{ClusterId, SubnetRecord};
use dispute::{Dispute, Lost};
use founding::Founding;
use leaving::Leaving;
use reclaim::Absence;
use request::Pending;
use space::{Asking, PoolId};
use state::{Network, Stage, State};
use taken::{EndpointId, Taken};
use unwritten::Unwritten;

pub use cluster::Meeting;
pub use pool::{MAX_UNITS, Pool, PoolError};
pub use units::Units;

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
    /// The units of a network made by [`Ipam::found_network`] are on disk; the error says why not.
    Founded {
        /// The network.
        network: NetworkId,
        /// Whether its record may be written.
        result: Result<(), String>,
    },
    /// The cluster of this host changed: say hello again on every connection.
    Cluster {
        /// The cluster; none: it was given up.
        cluster: Option<ClusterId>,
        /// This host founded it just now, and writes the settings of its networks.
        founded: bool,
    },
    /// This host was down for too long, and a majority agrees: it is to be removed.
    Reclaim(PeerId),
    /// This host leaves and asks this one to take its units: it is to be removed, and told.
    Leaves(PeerId),
    /// Nobody is alive who could take the units of this host.
    CannotLeave,
    /// A port of this host gives an address up: its interface gets another one, and then the endpoint is put again.
    /// Told again until that is done.
    Readdress {
        /// The network.
        network: NetworkId,
        /// The port.
        port: PortId,
        /// The address that it gives up.
        old: IpAddr,
        /// The address that it gets instead.
        new: IpPrefix,
    },
    /// Something people should know.
    Notice {
        /// One word for programs, in snake case.
        kind: &'static str,
        /// One line for people.
        message: String,
    },
}

/// The stored bytes are no state of this module, or a subnet is no pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IpamError {
    /// Written by a newer release.
    #[error("addresses of version {0} cannot be read by this release")]
    Version(u8),
    /// Not readable.
    #[error("the addresses cannot be read")]
    Malformed,
    /// A subnet cannot be used.
    #[error(transparent)]
    Pool(#[from] PoolError),
}

/// Addresses of all networks, as one host knows them.
pub struct Ipam {
    own: PeerId,
    rng: StdRng,
    state: State,
    /// The state as it is on disk.
    stored: State,
    /// It changed since it was last handed out to be written.
    dirty: bool,
    writing: Option<Writing>,
    founding: Founding,
    nicknames: BTreeMap<PeerId, String>,
    states: BTreeMap<PeerId, PeerState>,
    /// The networks of which there is a record.
    open: BTreeSet<NetworkId>,
    /// Until when what is known of the others is kept.
    closed: BTreeMap<NetworkId, Instant>,
    looked_for_closed: bool,
    /// Networks that this host makes, and has not told of.
    made: BTreeSet<NetworkId>,
    /// Somebody here waits for a cluster, to create a network.
    creating: bool,
    /// Of what is stored, while that is the same.
    units_hash: OnceCell<StateHash>,
    taken: BTreeMap<NetworkId, Taken>,
    /// The network on which each endpoint shows its addresses.
    shows_on: BTreeMap<EndpointId, NetworkId>,
    pending: Vec<Pending>,
    /// The search for space, by network and subnet.
    asking: BTreeMap<PoolId, Asking>,
    /// Networks where something changed that may make space short.
    stirred: BTreeSet<NetworkId>,
    absence: Absence,
    leaving: Option<Leaving>,
    /// Removed hosts, and who takes their units.
    removed: BTreeMap<PeerId, PeerId>,
    /// When the next message about a claim or a release is due, by the number of the claim.
    claim_timers: BTreeMap<u64, Instant>,
    /// Until when each network counts as needing an address without a request.
    wanted: BTreeMap<NetworkId, Instant>,
    /// When claims of other hosts are looked at again; none while there is nothing to look at.
    audit_at: Option<Instant>,
    /// There may be such claims.
    claimed: bool,
    unwritten: Unwritten,
    /// Addresses that ports of this host must give up.
    disputes: BTreeMap<Lost, Dispute>,
    /// Networks where records changed: there may be other disputes now.
    contested: BTreeSet<NetworkId>,
    outputs: VecDeque<IpamOutput>,
    /// Those whose ground is on disk.
    ready: VecDeque<IpamOutput>,
}

/// What was handed out to be written.
struct Writing {
    state: State,
    /// So many of the waiting outputs rest on it.
    outputs: usize,
}

impl Ipam {
    /// A host that belongs to no cluster.
    pub fn new(own: PeerId, seed: [u8; 32]) -> Self {
        Self::with_state(own, seed, State::default())
    }

    /// The state that [`Self::save`] wrote. Hosts, targets and endpoints are told again by the caller.
    ///
    /// # Errors
    /// The bytes are not those of a state, or of a newer release.
    pub fn restore(own: PeerId, seed: [u8; 32], bytes: &[u8]) -> Result<Self, IpamError> {
        Ok(Self::with_state(own, seed, State::decode(bytes)?))
    }

    fn with_state(own: PeerId, seed: [u8; 32], state: State) -> Self {
        Ipam {
            own,
            rng: StdRng::from_seed(seed),
            founding: Founding::new(own, state.met.iter().copied().collect(), !state.dissolved.is_empty()),
            stored: state.clone(),
            state,
            dirty: false,
            writing: None,
            nicknames: BTreeMap::new(),
            states: BTreeMap::new(),
            open: BTreeSet::new(),
            closed: BTreeMap::new(),
            looked_for_closed: false,
            made: BTreeSet::new(),
            creating: false,
            units_hash: OnceCell::new(),
            taken: BTreeMap::new(),
            shows_on: BTreeMap::new(),
            pending: Vec::new(),
            asking: BTreeMap::new(),
            stirred: BTreeSet::new(),
            absence: Absence::default(),
            leaving: None,
            removed: BTreeMap::new(),
            claim_timers: BTreeMap::new(),
            wanted: BTreeMap::new(),
            audit_at: None,
            claimed: true,
            unwritten: Unwritten::default(),
            disputes: BTreeMap::new(),
            contested: BTreeSet::new(),
            outputs: VecDeque::new(),
            ready: VecDeque::new(),
        }
    }

    /// Found without asking anybody, at the next need (`launch --found`).
    pub fn set_found(&mut self, found: bool) {
        self.founding.found = found;
    }

    /// Everything that must be on disk before the outputs leave.
    ///
    /// # Errors
    /// The serialiser refuses, which no state that was built here makes it do.
    pub fn save(&self) -> Result<Vec<u8>, IpamError> {
        self.state.encode()
    }

    /// True when [`Self::save`] has something that was not handed out to be written.
    pub fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// What [`Self::save`] said is being written; [`Self::handle_persisted`] follows.
    pub fn write_started(&mut self) {
        if std::mem::take(&mut self.dirty) {
            self.writing = Some(Writing { state: self.state.clone(), outputs: self.outputs.len() });
        }
    }

    /// What became of what was being written. Afterwards the outputs that rest on it may leave, also when more has changed
    /// meanwhile: else steady work would hold them back for ever. After a failure the state is the stored one again, and
    /// every waiting answer that rested on a lost change is a refusal.
    pub fn handle_persisted(&mut self, now: Instant, result: Result<(), String>) {
        let Some(Writing { state, outputs }) = self.writing.take() else { return };
        match result {
            Ok(()) => {
                self.stored = state;
                self.units_hash.take();
                self.ready.extend(self.outputs.drain(..outputs));
                if !self.dirty {
                    self.unwritten.written();
                }
            }
            Err(reason) => {
                self.dirty = false;
                self.roll_back(&reason);
                self.unwritten.refused(now, !self.removed.is_empty());
            }
        }
    }

    fn roll_back(&mut self, reason: &str) {
        let known = std::mem::replace(&mut self.state, self.stored.clone()).networks;
        for (id, Network { name, spaces, .. }) in known {
            // A network that was never written is still one: only its facts and allocations are undone.
            let subnets: Vec<SubnetRecord> = spaces.iter().map(|space| space.pool.to_raw()).collect();
            if let Ok(fresh) = Network::new(name, &subnets) {
                self.state.networks.entry(id).or_insert(fresh);
            }
        }
        let outputs = std::mem::take(&mut self.outputs);
        self.outputs = outputs.into_iter().filter_map(|output| refused(output, reason)).collect();
        for pending in std::mem::take(&mut self.pending) {
            let Some(request) = pending.request else { continue };
            let error = AllocError::StoreFailed { reason: reason.to_owned() };
            self.outputs.push_back(IpamOutput::Allocated { request, result: Err(error) });
        }
        // The new addresses were not stored: they are looked for again.
        self.disputes.clear();
        self.contested.extend(self.taken.keys());
        self.claimed = true;
        self.absence.begin_again();
        self.asking.clear();
        // What is held again is told to nobody: a timer for it would never be taken.
        let told = |id: &u64| self.state.foreign.get(id).is_some_and(|foreign| foreign.stage != Stage::Held);
        self.claim_timers.retain(|id, _| told(id));
        self.look_again();
    }

    /// The next thing to do whose ground is on disk.
    pub fn poll_output(&mut self) -> Option<IpamOutput> {
        let all_written = !self.dirty && self.writing.is_none();
        self.ready.pop_front().or_else(|| self.outputs.pop_front_if(|_| all_written))
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let founding = self.founding.next_timeout().filter(|_| self.state.cluster.is_none());
        let asking = self.asking.values().map(Asking::next_timeout);
        let claims = self.claim_timers.values().copied();
        founding
            .into_iter()
            .chain(asking)
            .chain(claims)
            .chain(self.wanted.values().copied())
            .chain(self.audit_at)
            .chain(self.closed.values().copied())
            .chain(self.unwritten.next_timeout())
            .chain(self.absence.next_timeout())
            .chain(self.leaving.as_ref().and_then(Leaving::next_timeout))
            .chain(
                self.disputes
                    .values()
                    .filter_map(Dispute::next_timeout)
                    .filter(|_| self.state.cluster.is_some()),
            )
            .min()
    }

    /// The moment told by [`Self::poll_timeout`] has come, or passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.founding.expire(now) {
            self.state.dissolved.clear();
            self.dirty = true;
        }
        self.wanted.retain(|_, until| now < *until);
        self.forget_closed(now);
        self.look_for_absent(now);
        self.release_again(now);
        self.progress(now);
    }

    /// A message from a peer: units, ask, answer, space, claim, release. Others are ignored.
    pub fn handle_message(&mut self, now: Instant, from: PeerId, message: Message) {
        match message {
            Message::Units(table) => self.handle_units(&table),
            Message::Ask(ask) => self.handle_ask(now, from, ask),
            Message::Answer(answer) => self.founding.handle_answer(now, from, answer),
            Message::SpaceRequest(request) => self.handle_space_request(from, request),
            Message::SpaceAnswer(answer) => self.handle_space_answer(now, from, &answer),
            Message::ClaimRequest(request) => self.handle_claim_request(from, &request),
            Message::ClaimAnswer(answer) => self.handle_claim_answer(now, from, answer),
            Message::Release(release) => self.handle_release(from, release),
            Message::Released(release) => self.handle_released(from, &release),
            Message::Leave => self.handle_leave(from),
            Message::Absent(absent) => self.handle_absent(now, from, absent),
            _ => return,
        }
        self.progress(now);
    }

    /// Takes every step that can be taken now.
    fn progress(&mut self, now: Instant) {
        self.settle_disputes(now);
        self.found_or_ask(now);
        self.serve_pending(now);
        self.ask_for_space(now);
        self.tell_owners(now);
        self.audit_claims(now);
        self.go_on_leaving(now);
        self.note_met();
    }

    /// Whom the founding met is part of the state; the asker waits until it is written.
    fn note_met(&mut self) {
        if self.state.met.len() != self.founding.met().len() {
            self.state.met = self.founding.met().iter().copied().collect();
            self.dirty = true;
        }
    }

    fn send(&mut self, to: PeerId, message: Message) {
        self.outputs.push_back(IpamOutput::Send { to, message });
    }

    fn number(&mut self) -> u64 {
        self.rng.next_u64()
    }

    /// A peer's nickname, or its id while the nickname is not known.
    fn name_of(&self, peer: PeerId) -> String {
        self.nicknames.get(&peer).cloned().unwrap_or_else(|| peer.to_string())
    }

    fn is_down(&self, peer: PeerId) -> bool {
        self.states.get(&peer) == Some(&PeerState::Down)
    }

    fn look_again(&mut self) {
        self.state.networks.values_mut().for_each(Network::look_again);
    }
}

/// What is left of an output whose state could not be stored.
fn refused(output: IpamOutput, reason: &str) -> Option<IpamOutput> {
    let reason = reason.to_owned();
    match output {
        IpamOutput::Allocated { request, result: Ok(_) } => {
            Some(IpamOutput::Allocated { request, result: Err(AllocError::StoreFailed { reason }) })
        }
        IpamOutput::Send { to, message: Message::ClaimAnswer(mut answer) } => {
            if answer.result.is_ok() {
                answer.result = Err(ClaimRefusal::StoreFailed { reason });
            }
            Some(IpamOutput::Send { to, message: Message::ClaimAnswer(answer) })
        }
        IpamOutput::Send { to, message: Message::SpaceAnswer(mut answer) } => {
            answer.granted.runs.clear();
            Some(IpamOutput::Send { to, message: Message::SpaceAnswer(answer) })
        }
        IpamOutput::Founded { network, .. } => Some(IpamOutput::Founded { network, result: Err(reason) }),
        IpamOutput::Allocated { .. } | IpamOutput::Notice { .. } | IpamOutput::CannotLeave => Some(output),
        IpamOutput::Send { .. }
        | IpamOutput::Push(_)
        | IpamOutput::Cluster { .. }
        | IpamOutput::Reclaim(_)
        | IpamOutput::Leaves(_)
        | IpamOutput::Readdress { .. } => None,
    }
}
