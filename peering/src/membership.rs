//! Who is alive: SWIM with suspicion, by `foca`, fed with datagrams and `now`.
//!
//! A host is one member under its peer id. Its bump rises with each start and each time it finds itself declared
//! down, so that a host that returns is believed at once. Reports of other hosts carry the bump they know, and the
//! higher one counts.

mod compare;
mod datagram;
mod member;
mod vacancy;
mod watch;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use engine::types::PeerId;
use foca::{AccumulatingRuntime, Foca, PostcardCodec, State, Timer, TimerToken};
use rand::rngs::StdRng;

use crate::mesh::PeerState;
use member::{MemberId, config, event_of, state_of};
use vacancy::Vacancies;
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
    vacancies: Vacancies,
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
            vacancies: Vacancies::default(),
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
        self.vacancies.heard(peer);
    }

    /// The peers to which there are connections that stay: they are looked after more closely than others.
    pub fn set_neighbours(&mut self, now: Instant, neighbours: Vec<PeerId>) {
        self.watch.set_neighbours(now, neighbours);
        self.vacancies.tidy(now);
    }

    /// The last connection to `peer` broke, and neither side gave it up: it is asked over a new one whether it is there.
    pub fn lost(&mut self, now: Instant, peer: PeerId) {
        self.watch.sign(peer);
        self.watch_neighbours(now);
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
                Step::Ask(peer) => self.ask(peer, 0),
                Step::AskAgain(peer) => {
                    self.ask(peer, 0);
                    self.testify(now, peer);
                }
                Step::Suspect(peer) => {
                    self.suspect(now, peer);
                    self.testify(now, peer);
                    self.vacancies.silent(peer);
                    self.bury_vacant(now, peer);
                }
            }
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

#[cfg(test)]
mod tests;
