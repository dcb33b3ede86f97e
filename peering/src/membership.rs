//! Who is alive: SWIM with suspicion, by `foca`, fed with datagrams and `now`.
//!
//! A host is one member under its peer id. Its bump rises with each start and each time it finds itself declared
//! down, so that a host that returns is believed at once. Reports of other hosts carry the bump they know, and the
//! higher one counts.

mod watch;

use std::collections::{BTreeMap, VecDeque};
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::{Duration, Instant};

use engine::types::PeerId;
use foca::{AccumulatingRuntime, Foca, OwnedNotification, PostcardCodec, State, Timer, TimerToken};
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};

use crate::mesh::PeerState;
use crate::proto;
use watch::{Step, Watch};

/// A datagram of this module is never longer, in bytes: it fits a QUIC datagram on a path of 1200 bytes.
pub const MAX_DATAGRAM: usize = 1100;

/// A suspicion that was not refuted for so long is death. With the one or two seconds until somebody probes a host, the
/// second until the probe has failed, and the news, a death is known everywhere in less than ten seconds.
const SUSPICION_MAX: Duration = Duration::from_secs(3);

/// Timers that run later than this show that this host is short of time, and may be wrong about others.
const LATE: Duration = Duration::from_millis(250);

/// Doubt rises by one with each probe that nobody answered, by this when own timers ran late, and falls by one with
/// each answer. By each full step of it the time-outs are widened once more.
const DOUBT_STEP: u32 = 3;
const DOUBT_MAX: u32 = 7 * DOUBT_STEP;

/// A host at random is probed so often; neighbours, to which there is a connection anyway, are watched more closely.
const PROBE_PERIOD: Duration = Duration::from_secs(2);

/// A neighbour that is silent for so long after a first question, and was asked again at half of it, is suspected.
const WATCH_ANSWER: Duration = Duration::from_secs(1);

/// Timers that run later than this show that this host itself stood still: the time does not count against others.
const STANDSTILL: Duration = Duration::from_millis(1500);

/// What changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemberEvent {
    /// The host is alive.
    Up(PeerId),
    /// The host is down.
    Down(PeerId),
    /// This host was declared down while it lives; it goes on under a higher bump, told here.
    Rejoined(u64),
}

/// The members, as this host sees them.
pub struct Membership {
    foca: Foca<MemberId, PostcardCodec, StdRng, foca::NoCustomBroadcast>,
    runtime: AccumulatingRuntime<MemberId>,
    timers: BTreeMap<(Instant, u64), Timed>,
    token: Option<TimerToken>,
    timer_count: u64,
    sized_for: usize,
    datagrams: VecDeque<(PeerId, Vec<u8>)>,
    events: VecDeque<MemberEvent>,
    /// How much this host doubts its own judgement: 0 not at all.
    doubt: u32,
    /// The probe under way was answered; none before the first.
    answered: Option<bool>,
    watch: Watch,
    left: bool,
}

/// A timer, since when it runs, and how long unless this host doubts itself.
struct Timed {
    timer: Timer<MemberId>,
    since: Instant,
    after: Duration,
}

impl Membership {
    /// Starts alone; `bump` must be above that of every earlier start.
    pub fn new(peer: PeerId, bump: u64, rng: StdRng) -> Self {
        let id = MemberId { peer: peer.0, bump };
        Membership {
            foca: Foca::new(id, config(1), rng, PostcardCodec),
            runtime: AccumulatingRuntime::new(),
            timers: BTreeMap::new(),
            token: None,
            timer_count: 0,
            sized_for: 1,
            datagrams: VecDeque::new(),
            events: VecDeque::new(),
            doubt: 0,
            answered: None,
            watch: Watch::default(),
            left: false,
        }
    }

    /// Tells `peer`, to which there is a connection, that this host is here.
    pub fn announce(&mut self, now: Instant, peer: PeerId) {
        if !self.left {
            let _refused = self.foca.announce(MemberId { peer: peer.0, bump: 0 }, &mut self.runtime);
            self.absorb(now);
        }
    }

    /// Tells `peer` that it is suspected, if it is, so that it can deny it. The suspicion may be older than the
    /// news of it, which are told only a few times.
    pub fn confront(&mut self, peer: PeerId) {
        let known = self.foca.iter_membership_state().find(|member| member.id().peer == peer.0);
        let Some(suspect) = known.filter(|member| member.state() == State::Suspect) else { return };
        // An old incarnation of this host says nothing about it; the message is only about the other.
        let (src, dst) = (self.foca.identity().clone(), suspect.id().clone());
        let header = foca::Header { src, src_incarnation: 0, dst, message: foca::Message::Gossip };
        let one_update = 1_u16.to_be_bytes();
        if let (Ok(header), Ok(update)) = (postcard::to_allocvec(&header), postcard::to_allocvec(suspect)) {
            self.datagrams.push_back((peer, [&header[..], &one_update, &update].concat()));
        }
    }

    /// A datagram came from `from`. One that does not say so itself is dropped.
    pub fn handle_datagram(&mut self, now: Instant, from: PeerId, bytes: &[u8]) {
        let honest = postcard::take_from_bytes::<foca::Header<MemberId>>(bytes)
            .is_ok_and(|(header, _)| header.src.peer == from.0);
        if honest && !self.left {
            self.note_answer(bytes);
            // Garbage is refused as a whole; there is nobody to tell.
            let _refused = self.foca.handle_data(bytes, &mut self.runtime);
            self.absorb(now);
        }
    }

    /// Runs every timer that is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.forgive_standstill(now);
        while let Some(entry) = self.timers.first_entry().filter(|entry| entry.key().0 <= now) {
            let timed = entry.remove();
            match timed.timer {
                Timer::ProbeRandomMember(_) => self.judge_oneself(),
                Timer::ChangeSuspectToDown { ref member_id, .. } => {
                    let spared = self.watch.spares(now, PeerId(member_id.peer));
                    let due = timed.since + timed.after * self.width();
                    if spared || due > now {
                        let at = if spared { now + timed.after } else { due };
                        self.schedule(at, timed);
                        continue;
                    }
                }
                _ => {}
            }
            // A timer from before a change of identity is refused, as it should be.
            let _refused = self.foca.handle_timer(timed.timer, &mut self.runtime);
            self.absorb(now);
        }
        self.watch_neighbours(now);
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let timer = self.timers.first_key_value().map(|(&(at, _), _)| at);
        [timer, self.watch.next()].into_iter().flatten().min()
    }

    /// Something came from `peer` over a connection that proved who it is.
    pub fn heard(&mut self, now: Instant, peer: PeerId) {
        self.watch.heard(now, peer);
    }

    /// The peers to which there are connections that stay: they are looked after more closely than others.
    pub fn set_neighbours(&mut self, now: Instant, neighbours: Vec<PeerId>) {
        self.watch.set_neighbours(now, neighbours);
    }

    /// Somebody is suspected or dead, here or in what others tell: the neighbours are looked after now.
    pub fn hurry(&mut self, now: Instant) {
        self.watch.hurry(now);
        self.watch_neighbours(now);
    }

    /// The next datagram, and whom it is for.
    pub fn poll_datagram(&mut self) -> Option<(PeerId, Vec<u8>)> {
        self.datagrams.pop_front()
    }

    /// The next change.
    pub fn poll_event(&mut self) -> Option<MemberEvent> {
        self.events.pop_front()
    }

    /// This host goes under a bump of at least `bump` from now on.
    pub fn raise(&mut self, now: Instant, bump: u64) {
        let mut id = self.foca.identity().clone();
        if bump > id.bump && !self.left {
            id.bump = bump;
            let _same = self.foca.change_identity(id, &mut self.runtime);
            self.absorb(now);
        }
    }

    /// Tells everybody reachable that this host is down. Nothing is sent or heard afterwards.
    pub fn leave(&mut self, now: Instant) {
        let everybody = self.alive();
        let _refused = self.foca.leave_cluster(&mut self.runtime);
        self.absorb(now);
        // The library tells a few. A farewell costs one datagram, so everybody gets one.
        if let Some(farewell) = self.datagrams.back().map(|(_, bytes)| bytes.clone()) {
            let told: Vec<PeerId> = self.datagrams.iter().map(|&(peer, _)| peer).collect();
            let header = postcard::take_from_bytes::<foca::Header<MemberId>>(&farewell);
            if let Ok((header, payload)) = header {
                for peer in everybody.into_iter().filter(|peer| !told.contains(peer)) {
                    self.readdress(&header, payload, peer);
                }
            }
        }
        self.timers.clear();
        self.left = true;
    }

    /// `peer` does not belong to the cluster any more: it counts as down and is not probed. If it lives, it finds that
    /// out and goes on under a higher bump.
    pub fn forget(&mut self, now: Instant, peer: PeerId) {
        let known = self.foca.iter_membership_state().find(|member| member.id().peer == peer.0);
        let down = known.map(|member| foca::Member::down(member.id().clone()));
        let _unknown = self.foca.apply_many(down.into_iter(), true, &mut self.runtime);
        self.absorb(now);
    }

    /// What is known of `peer`; a stranger is down.
    pub fn state(&self, peer: PeerId) -> PeerState {
        let member = self.foca.iter_membership_state().find(|member| member.id().peer == peer.0);
        member.map_or(PeerState::Down, |member| state_of(member.state()))
    }

    /// Everybody who is known, down ones included.
    pub fn states(&self) -> BTreeMap<PeerId, PeerState> {
        let members = self.foca.iter_membership_state();
        members.map(|member| (PeerId(member.id().peer), state_of(member.state()))).collect()
    }

    /// Everybody who is alive or suspect, in order.
    pub fn alive(&self) -> Vec<PeerId> {
        let mut alive: Vec<PeerId> =
            self.foca.iter_members().map(|member| PeerId(member.id().peer)).collect();
        alive.sort_unstable();
        alive
    }

    /// How many other hosts are alive or suspect.
    pub fn alive_count(&self) -> usize {
        self.foca.num_members()
    }

    fn readdress(&mut self, header: &foca::Header<MemberId>, payload: &[u8], peer: PeerId) {
        let known = self.foca.iter_membership_state().find(|member| member.id().peer == peer.0);
        let Some(dst) = known.map(|member| member.id().clone()) else { return };
        let header = foca::Header { dst, ..header.clone() };
        if let Ok(mut bytes) = postcard::to_allocvec(&header) {
            bytes.extend_from_slice(payload);
            self.datagrams.push_back((peer, bytes));
        }
    }

    /// True for a message that only spreads news: anybody may have it.
    pub fn is_news(bytes: &[u8]) -> bool {
        Self::header(bytes).is_some_and(|(header, _)| header.message == foca::Message::Gossip)
    }

    /// True for a message that is worth a connection of its own: a probe, or what belongs to one.
    pub fn is_worth_a_connection(bytes: &[u8]) -> bool {
        Self::header(bytes).is_some_and(|(header, _)| {
            !matches!(header.message, foca::Message::Gossip | foca::Message::TurnUndead | foca::Message::Feed)
        })
    }

    /// True for the answer to a question.
    pub fn is_answer(bytes: &[u8]) -> bool {
        Self::header(bytes).is_some_and(|(header, _)| matches!(header.message, foca::Message::Ack(_)))
    }

    /// The same news for somebody else; none if `peer` is not known.
    pub fn redirect(&self, bytes: &[u8], peer: PeerId) -> Option<Vec<u8>> {
        let (header, payload) = Self::header(bytes)?;
        let known = self.foca.iter_members().find(|member| member.id().peer == peer.0)?;
        let header = foca::Header { dst: known.id().clone(), ..header };
        let mut bytes = postcard::to_allocvec(&header).ok()?;
        bytes.extend_from_slice(payload);
        Some(bytes)
    }

    fn header(bytes: &[u8]) -> Option<(foca::Header<MemberId>, &[u8])> {
        postcard::take_from_bytes(bytes).ok()
    }

    /// A hash of who is alive, this host included: equal where the same hosts are taken for alive in the same starts.
    pub fn hash(&self) -> u64 {
        let own = digest(self.foca.identity());
        let others = self.foca.iter_members().map(|member| digest(member.id()));
        others.fold(own, u64::wrapping_add)
    }

    /// Everybody, this host included, for [`Self::merge`] elsewhere.
    pub fn members(&self) -> Vec<proto::Member> {
        let MemberId { peer, bump } = *self.foca.identity();
        let own = proto::Member { peer: PeerId(peer), bump, denials: 0, state: 0 };
        let others = self.foca.iter_membership_state().map(|member| proto::Member {
            peer: PeerId(member.id().peer),
            bump: member.id().bump,
            denials: member.incarnation(),
            state: match member.state() {
                State::Alive => 0,
                State::Suspect => 1,
                State::Down => 2,
            },
        });
        others.chain([own]).collect()
    }

    /// What another host knows of everybody. It is not told on: every host compares with others itself.
    pub fn merge(&mut self, now: Instant, members: &[proto::Member]) {
        if self.left {
            return;
        }
        self.outlive(now, members);
        let known: BTreeMap<[u8; 16], (u64, u16, State)> = self
            .foca
            .iter_membership_state()
            .map(|member| (member.id().peer, (member.id().bump, member.incarnation(), member.state())))
            .collect();
        let own = self.foca.identity().clone();
        // What an earlier start of this host was taken for does not matter any more.
        let others = members.iter().filter(|member| member.peer.0 != own.peer || member.bump == own.bump);
        let news = others.filter_map(|member| {
            let state = match member.state {
                0 => State::Alive,
                1 => State::Suspect,
                2 => State::Down,
                _ => return None,
            };
            let old = known.get(&member.peer.0);
            let news = old.is_none_or(|(bump, denials, held)| {
                member.bump > *bump
                    || (member.bump == *bump && is_news(*held, *denials, state, member.denials))
            });
            let id = MemberId { peer: member.peer.0, bump: member.bump };
            news.then(|| foca::Member::new(id, member.denials, state))
        });
        let news: Vec<_> = news.collect();
        let _refused = self.foca.apply_many(news.into_iter(), false, &mut self.runtime);
        self.absorb(now);
    }

    /// A start of this host that it does not remember, since its disk is lost, is known elsewhere: the next one is above
    /// it, or nobody would hear this host.
    fn outlive(&mut self, now: Instant, members: &[proto::Member]) {
        let own = self.foca.identity().clone();
        let starts = members.iter().filter(|member| member.peer.0 == own.peer).map(|member| member.bump);
        if let Some(last) = starts.max().filter(|last| *last > own.bump) {
            self.raise(now, last.saturating_add(1));
            self.events.push_back(MemberEvent::Rejoined(self.foca.identity().bump));
        }
    }

    /// How often the usual time this host waits before it judges others.
    fn width(&self) -> u32 {
        1 + self.doubt / DOUBT_STEP
    }

    /// An answer to the probe under way shows that this host hears and is heard.
    fn note_answer(&mut self, bytes: &[u8]) {
        let answer = Self::header(bytes).is_some_and(|(header, _)| {
            matches!(header.message, foca::Message::Ack(_) | foca::Message::ForwardedAck { .. })
        });
        if answer && self.answered.is_some() {
            self.answered = Some(true);
        }
    }

    /// A round of probing ends: without an answer perhaps this host is to blame, and widens its time-outs.
    fn judge_oneself(&mut self) {
        match self.answered.replace(false) {
            Some(true) => self.doubt = self.doubt.saturating_sub(1),
            Some(false) => self.doubt = (self.doubt + 1).min(DOUBT_MAX),
            None => {}
        }
    }

    /// Timers keep their distance from each other when this host did not run for a while: an answer that waits in
    /// the queue is read before its absence is judged.
    fn forgive_standstill(&mut self, now: Instant) {
        let Some(late) = self.poll_timeout().and_then(|due| now.checked_duration_since(due)) else { return };
        if late > LATE {
            self.doubt = (self.doubt + DOUBT_STEP).min(DOUBT_MAX);
        }
        if late > STANDSTILL {
            let timers = std::mem::take(&mut self.timers);
            self.timers = timers.into_iter().map(|((at, n), timer)| ((at + late, n), timer)).collect();
        }
    }

    fn schedule(&mut self, at: Instant, timed: Timed) {
        self.timer_count += 1;
        self.timers.insert((at, self.timer_count), timed);
    }

    /// Asks the next neighbour whether it is there, and suspects those that were asked twice and did not answer.
    fn watch_neighbours(&mut self, now: Instant) {
        let patience = WATCH_ANSWER * self.width();
        while let Some(step) = self.watch.poll(now, patience) {
            match step {
                Step::Ask(peer) => self.ask(peer),
                Step::Suspect(peer) => self.suspect(now, peer),
            }
        }
    }

    /// Asks a host whether it is there; [`Self::is_answer`] recognizes what it says.
    pub fn ask(&mut self, peer: PeerId) {
        let known = self.foca.iter_members().find(|member| member.id().peer == peer.0);
        let Some(dst) = known.map(|member| member.id().clone()) else { return };
        let (src, message) = (self.foca.identity().clone(), foca::Message::Ping(0));
        if let Ok(bytes) = postcard::to_allocvec(&foca::Header { src, src_incarnation: 0, dst, message }) {
            self.datagrams.push_back((peer, bytes));
        }
    }

    fn suspect(&mut self, now: Instant, peer: PeerId) {
        let known = self.foca.iter_members().find(|member| member.id().peer == peer.0);
        let Some((member, token)) = known.cloned().zip(self.token) else { return };
        let (member_id, incarnation) = (member.id().clone(), member.incarnation());
        let suspect = foca::Member::new(member_id.clone(), incarnation, State::Suspect);
        let _refused = self.foca.apply_many(std::iter::once(suspect), true, &mut self.runtime);
        self.absorb(now);
        let timer = Timer::ChangeSuspectToDown { member_id, incarnation, token };
        if !self.timers.values().any(|timed| timed.timer == timer) {
            let at = now + SUSPICION_MAX * self.width();
            self.schedule(at, Timed { timer, since: now, after: SUSPICION_MAX });
        }
    }

    fn absorb(&mut self, now: Instant) {
        while let Some((to, bytes)) = self.runtime.to_send() {
            self.datagrams.push_back((PeerId(to.peer), bytes.to_vec()));
        }
        while let Some((after, timer)) = self.runtime.to_schedule() {
            let at = match timer {
                Timer::ProbeRandomMember(token) => {
                    self.token = Some(token);
                    now + after * self.width()
                }
                Timer::SendIndirectProbe { .. } | Timer::ChangeSuspectToDown { .. } => {
                    now + after * self.width()
                }
                Timer::PeriodicGossip(_)
                | Timer::PeriodicAnnounce(_)
                | Timer::PeriodicAnnounceDown(_)
                | Timer::RemoveDown(_) => now + after,
            };
            self.schedule(at, Timed { timer, since: now, after });
        }
        while let Some(notification) = self.runtime.to_notify() {
            self.events.extend(event_of(notification));
        }
        self.resize();
    }

    fn resize(&mut self) {
        let size = self.foca.num_members() + 1;
        if size != self.sized_for {
            self.sized_for = size;
            // Probe periods stay as they are, so the library has nothing to refuse.
            let _unchanged = self.foca.set_config(config(size));
        }
    }
}

/// A member: the host, and how often it began anew.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct MemberId {
    peer: [u8; 16],
    bump: u64,
}

impl foca::Identity for MemberId {
    type Addr = [u8; 16];

    fn renew(&self) -> Option<Self> {
        Some(MemberId { peer: self.peer, bump: self.bump.saturating_add(1) })
    }

    fn addr(&self) -> Self::Addr {
        self.peer
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.bump > adversary.bump
    }
}

fn config(members: usize) -> foca::Config {
    let size = u32::try_from(members).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN);
    let mut config = foca::Config::new_lan(size);
    config.probe_period = PROBE_PERIOD;
    config.suspect_to_down_after = config.suspect_to_down_after.min(SUSPICION_MAX);
    // Hosts compare all they know with each other once a second, and connections to hosts that are down are tried anyway.
    config.periodic_announce = None;
    config.periodic_announce_to_down_members = None;
    config.max_packet_size = NonZeroUsize::new(MAX_DATAGRAM).unwrap_or(config.max_packet_size);
    config
}

/// The order of what may be said of one start of a host.
fn is_news(held: State, held_denials: u16, state: State, denials: u16) -> bool {
    match (held, state) {
        (State::Down, _) => false,
        (_, State::Down) => true,
        (State::Alive, State::Suspect) => denials >= held_denials,
        _ => denials > held_denials,
    }
}

/// Peer ids are hashes already: their bytes and the bump, mixed as in the finalizer of splitmix64.
fn digest(id: &MemberId) -> u64 {
    let (low, high) = id.peer.split_at(8);
    let word = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_le_bytes);
    let mut z = word(low) ^ word(high).rotate_left(32) ^ id.bump.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn state_of(state: State) -> PeerState {
    match state {
        State::Alive => PeerState::Alive,
        State::Suspect => PeerState::Suspect,
        State::Down => PeerState::Down,
    }
}

fn event_of(notification: OwnedNotification<MemberId>) -> Option<MemberEvent> {
    match notification {
        OwnedNotification::MemberUp(id) => Some(MemberEvent::Up(PeerId(id.peer))),
        OwnedNotification::MemberDown(id) => Some(MemberEvent::Down(PeerId(id.peer))),
        OwnedNotification::Rejoin(id) => Some(MemberEvent::Rejoined(id.bump)),
        OwnedNotification::Rename(..)
        | OwnedNotification::Active
        | OwnedNotification::Idle
        | OwnedNotification::Defunct => None,
    }
}

#[cfg(test)]
mod tests;
