//! Which address of a peer its frames are sent to, found and kept by probes.
//!
//! Every candidate address is asked with type 6 datagrams: a short one tells whether anybody is there, a long
//! one whether a full-sized overlay packet passes unfragmented. Of the candidates that answer, the best that carries
//! a full packet is the path; where none does, the one that carries most. Who is heard elsewhere, under a seal, or is reached
//! another way than before, has its addresses proved anew: the path moves when the one in use does not answer.
//! Pure: datagrams and `now` in ([`Paths::handle_datagram`], [`Paths::handle_timeout`]); probes, path changes
//! and the next deadline out ([`Paths::poll_transmit`], [`Paths::poll_event`], [`Paths::poll_timeout`]).
//!
//! Probes also tell from which addresses a host takes frames in clear ([`Paths::set_clear`]): whoever trusts a way sends so
//! only while the other end says that it trusts it too ([`Paths::takes_clear`]).

mod candidate;
pub mod ways;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use candidate::Candidate;

use crate::counters::DropReason;
use crate::seam::Event;
use crate::session::chance::Chance;
use crate::types::PeerId;
use crate::wire::probe::{self, Probe};

/// How long an answer is waited for before the probe is repeated, once the first hurry is over.
const RETRY: Duration = Duration::from_secs(1);
/// Gap between the first probes of a peer: a new host shall carry traffic within a fraction of a second.
const HURRY: Duration = Duration::from_millis(100);
/// How many probes are sent in a hurry.
const HURRIED: u32 = 5;
/// Shortest pause between rounds while the path is up, and the longest while it is down.
const REST: Duration = Duration::from_secs(10);
/// With many peers the pause is so long for each of them: what a host sends at rest does not grow with them.
const PACE: Duration = Duration::from_millis(500);
/// While large datagrams flow, a round each so often: a path that shrinks under traffic is found out before a TCP connection
/// on it has waited for a second.
const WATCH: Duration = Duration::from_millis(250);
/// So long after the last word of it large datagrams are taken to flow.
const BUSY: Duration = Duration::from_secs(1);
/// Rounds after which a silent peer is asked no more often than one that answers.
const PATIENT: u32 = 30;
/// Bytes that stand before the overlay packet in a VXLAN datagram: VXLAN header and Ethernet header.
const ENCAPSULATION: usize = 8 + 14;
/// Requests answered in a second, for all peers together.
const ANSWERS_PER_SECOND: u32 = 2_000;

/// A datagram to send from the data port.
#[derive(Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub to: SocketAddr,
    /// What.
    pub contents: Vec<u8>,
}

/// The paths to all peers.
pub struct Paths {
    peers: BTreeMap<PeerId, Peer>,
    addresses: BTreeSet<IpAddr>,
    /// From where frames in clear are taken on sealed networks.
    clear: BTreeSet<IpAddr>,
    /// UDP payload of a datagram that carries a full overlay packet.
    full: usize,
    /// Bytes of it that are no overlay packet.
    around: usize,
    chance: Chance,
    answers: (Option<Instant>, u32),
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
}

struct Peer {
    candidates: Vec<Candidate>,
    /// The last of the candidates, if nobody named it: the peer was heard there.
    heard: Option<SocketAddr>,
    /// When and where it was last heard elsewhere, and asked there.
    elsewhere: Option<(Instant, SocketAddr)>,
    /// Where it was heard after that, too soon to be asked.
    waiting: Option<SocketAddr>,
    rounds: u32,
    next_round: Instant,
    /// Whether the last round was found answered: the next one is a rest away.
    rested: bool,
    /// What the last event said.
    told: Option<Told>,
    told_down: bool,
    /// When a question of the peer last made us ask before it was time.
    prompted: Option<Instant>,
    /// Until when large datagrams are taken to flow.
    busy_until: Option<Instant>,
    /// When a round without an answer last counted.
    counted: Option<Instant>,
}

/// What is known of a path: where it leads, the largest overlay packet that was shown to pass, and the longest datagram that
/// may be sent there.
type Told = (SocketAddr, u16, u16);

impl Paths {
    /// No peers yet. `seed` is from the system's generator, and used for nothing else: who has seen some nonces must not know
    /// others.
    pub fn new(seed: [u8; 32]) -> Self {
        Paths {
            peers: BTreeMap::new(),
            addresses: BTreeSet::new(),
            clear: BTreeSet::new(),
            full: probe::LEN,
            around: ENCAPSULATION,
            chance: Chance::new(seed),
            answers: (None, 0),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Sets the largest overlay packet of any network here and what sealing adds to it, in bytes; full-sized probes follow
    /// it.
    pub fn set_mtu(&mut self, mtu: u16, sealing: usize) {
        self.around = ENCAPSULATION + sealing;
        self.full = usize::from(mtu) + self.around;
    }

    /// Has all peers asked anew, at once: what passed before is not what is asked now.
    pub fn ask_all(&mut self, now: Instant) {
        for peer in self.peers.values_mut() {
            (peer.next_round, peer.rested) = (now, true);
        }
    }

    /// From now on frames in clear are taken from these addresses, also on sealed networks. Peers for which that is news are
    /// told at once.
    pub fn set_clear(&mut self, now: Instant, clear: BTreeSet<IpAddr>) {
        let news: BTreeSet<IpAddr> = self.clear.symmetric_difference(&clear).copied().collect();
        self.clear = clear;
        for peer in self.peers.values_mut() {
            if peer.candidates.iter().any(|candidate| news.contains(&candidate.addr.ip())) {
                (peer.next_round, peer.rested) = (now, true);
            }
        }
    }

    /// Whether the peer says that it takes frames in clear, also on sealed networks, that are sent to the address in use.
    pub fn takes_clear(&self, peer: PeerId) -> bool {
        let known = self.peers.get(&peer).and_then(|peer| Some((peer, peer.told?.0)));
        known.is_some_and(|(peer, at)| peer.candidates.iter().any(|c| c.addr == at && c.takes_clear))
    }

    /// A peer is alive at one of these addresses, best first. What is known of an address is kept.
    pub fn set_peer(&mut self, now: Instant, peer: PeerId, candidates: &[SocketAddr]) {
        let known = self.peers.remove(&peer).unwrap_or_else(|| Peer::new(now));
        let (mut old, told) = (known.candidates, known.told);
        let heard = known.heard.filter(|heard| !candidates.contains(heard));
        let addrs: Vec<SocketAddr> = candidates.iter().copied().chain(heard).collect();
        let unchanged = old.iter().map(|c| c.addr).eq(addrs.iter().copied());
        let told = told.filter(|(addr, ..)| addrs.contains(addr));
        let take = |addr| match old.iter().position(|c| c.addr == addr) {
            Some(index) => old.swap_remove(index),
            None => Candidate::new(addr),
        };
        let candidates = addrs.into_iter().map(take).collect();
        let rounds = if unchanged && told.is_some() { HURRIED } else { 0 };
        let (next_round, rested, prompted) = (now, true, None);
        self.peers
            .insert(peer, Peer { candidates, heard, rounds, next_round, rested, told, prompted, ..known });
        self.collect_addresses();
        self.tell(peer);
    }

    /// What only the peer can have sealed came from `addr`, and is newer than what it sealed before. If its frames go
    /// elsewhere, `addr` is asked too, and the path in use must answer again; within a second of the last time only once that
    /// second is over, for what comes may be a copy.
    pub fn handle_heard(&mut self, now: Instant, peer: PeerId, addr: SocketAddr) {
        let Some(known) = self.peers.get_mut(&peer) else { return };
        known.waiting = None;
        if known.told.is_some_and(|(told, ..)| told == addr) {
            return;
        }
        let recent = known.elsewhere.filter(|(at, _)| now.saturating_duration_since(*at) < RETRY);
        if let Some((_, last)) = recent {
            known.waiting = (last != addr).then_some(addr);
            return;
        }
        known.elsewhere = Some((now, addr));
        if !known.candidates.iter().any(|c| c.addr == addr) {
            known.forget_heard();
            known.candidates.push(Candidate::new(addr));
            known.heard = Some(addr);
            self.collect_addresses();
        }
        self.doubt(now, peer);
    }

    /// The peer is reached another way than before: its addresses must answer again.
    pub fn doubt(&mut self, now: Instant, peer: PeerId) {
        let Some(known) = self.peers.get_mut(&peer) else { return };
        known.candidates.iter_mut().for_each(|candidate| candidate.doubt(now));
        (known.rounds, known.next_round, known.rested) = (0, now, true);
    }

    /// Large datagrams flow to the peer: for a while it is asked often whether they still pass.
    pub fn handle_bulk(&mut self, now: Instant, peer: PeerId) {
        let Some(known) = self.peers.get_mut(&peer).filter(|known| known.told.is_some()) else { return };
        known.busy_until = Some(now + BUSY);
        if known.rested {
            known.next_round = known.next_round.min(now + WATCH);
        }
    }

    /// The host itself could not send a datagram to the peer, for its length: what passes is tried anew, at once.
    pub fn handle_too_long(&mut self, now: Instant, peer: PeerId) {
        let Some(known) = self.peers.get_mut(&peer) else { return };
        let Some((addr, ..)) = known.told else { return };
        let in_use = known.candidates.iter_mut().find(|candidate| candidate.addr == addr);
        if in_use.is_some_and(Candidate::suspect) {
            known.busy_until = Some(now + BUSY);
            (known.next_round, known.rested) = (now, true);
        }
    }

    /// The longest datagram that may be sent to the peer, in bytes of UDP payload.
    pub fn room(&self, peer: PeerId) -> u16 {
        self.peers.get(&peer).and_then(|peer| peer.told).map_or(candidate::ANY, |(.., room)| room)
    }

    /// The peer is down or gone: nothing is sent to it any more.
    pub fn remove_peer(&mut self, peer: PeerId) {
        self.peers.remove(&peer);
        self.collect_addresses();
    }

    /// The address in use for a peer.
    pub fn path(&self, peer: PeerId) -> Option<SocketAddr> {
        self.peers.get(&peer).and_then(|peer| peer.told).map(|(addr, ..)| addr)
    }

    /// The addresses in use.
    pub fn paths(&self) -> impl Iterator<Item = (PeerId, SocketAddr)> {
        self.peers.iter().filter_map(|(&id, peer)| Some((id, peer.told?.0)))
    }

    /// Takes a type 6 datagram. A question from a candidate address of any peer is answered; an answer must
    /// carry the nonce of a question that was sent to its sender.
    ///
    /// # Errors
    /// Why the datagram was dropped: not a probe, from nobody known, stale, or over the budget.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Result<(), DropReason> {
        let probe = Probe::parse(datagram)?;
        if !self.addresses.contains(&from.ip()) {
            return Err(DropReason::UnknownSource);
        }
        match probe.reply(self.clear.contains(&from.ip())) {
            Some(reply) => {
                self.hear_wish(now, from, probe.clear);
                self.prompt(now, from);
                self.answer(now, from, reply)
            }
            None => self.handle_answer(now, from, &probe),
        }
    }

    /// A question tells what its sender takes, but not who sent it: that ends frames in clear, and begins none. For that
    /// the peer is asked.
    fn hear_wish(&mut self, now: Instant, from: SocketAddr, clear: bool) {
        for peer in self.peers.values_mut() {
            let Some(candidate) = peer.candidates.iter_mut().find(|c| c.addr == from) else { continue };
            if clear && !candidate.takes_clear {
                peer.next_round = peer.next_round.min(now + RETRY);
            }
            candidate.takes_clear &= clear;
        }
    }

    /// Who asks is there: if it was silent, it is asked at once, but not more often than without that.
    fn prompt(&mut self, now: Instant, from: SocketAddr) {
        for peer in self.peers.values_mut().filter(|peer| peer.told.is_none()) {
            let idle = peer.prompted.is_none_or(|at| now.saturating_duration_since(at) >= RETRY);
            if idle && peer.next_round > now + HURRY && peer.candidates.iter().any(|c| c.addr == from) {
                peer.prompted = Some(now);
                peer.next_round = now;
            }
        }
    }

    fn answer(&mut self, now: Instant, to: SocketAddr, reply: Probe) -> Result<(), DropReason> {
        let (since, count) = &mut self.answers;
        if since.is_none_or(|since| now.duration_since(since) >= Duration::from_secs(1)) {
            (*since, *count) = (Some(now), 0);
        }
        if *count >= ANSWERS_PER_SECOND {
            return Err(DropReason::ProbeLimit);
        }
        *count += 1;
        self.transmits.push_back(Transmit { to, contents: reply.emit().to_vec() });
        Ok(())
    }

    fn handle_answer(&mut self, now: Instant, from: SocketAddr, answer: &Probe) -> Result<(), DropReason> {
        let answered = self.peers.iter_mut().find_map(|(&id, peer)| {
            let candidate = peer.candidates.iter_mut().find(|c| c.addr == from)?;
            let news = candidate.passed == 0;
            candidate.take_answer(now, answer).then_some((id, news && peer.heard == Some(from)))
        });
        let (peer, proven) = answered.ok_or(DropReason::StaleProbe)?;
        if proven {
            let full = self.full;
            self.ask(now, peer, |candidate| (candidate.addr == from).then_some(full).into_iter().collect());
        }
        self.tell(peer);
        Ok(())
    }

    /// Sends the rounds that are due. Work is bounded by the number of peers.
    pub fn handle_timeout(&mut self, now: Instant) {
        let take = |(&id, peer): (&PeerId, &mut Peer)| {
            peer.waits_until().filter(|end| *end <= now).and_then(|_| Some((id, peer.waiting.take()?)))
        };
        let waited: Vec<_> = self.peers.iter_mut().filter_map(take).collect();
        waited.into_iter().for_each(|(id, addr)| self.handle_heard(now, id, addr));
        let due: Vec<PeerId> =
            self.peers.iter().filter(|(_, peer)| peer.next_round <= now).map(|(&id, _)| id).collect();
        for id in due {
            self.run_round(now, id);
            self.tell(id);
        }
    }

    fn run_round(&mut self, now: Instant, id: PeerId) {
        let rest = self.rest();
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let hurried = peer.rounds < HURRIED;
        // Nobody said that the peer is there, and it is not, or not any more.
        if peer.rounds > HURRIED && peer.is_unproven() {
            peer.forget_heard();
            self.collect_addresses();
            return self.run_round(now, id);
        }
        let busy = peer.busy_until.is_some_and(|until| now < until);
        if !hurried && !peer.rested && !peer.is_unproven() && peer.is_answered() {
            peer.rested = true;
            peer.next_round = now + if busy { WATCH } else { rest };
            return;
        }
        peer.rested = false;
        // Rounds that follow each other fast are no measure of silence.
        let soon = busy && peer.counted.is_some_and(|at| now.saturating_duration_since(at) < RETRY);
        let lenient = hurried || soon;
        peer.counted = if lenient { peer.counted } else { Some(now) };
        peer.candidates.iter_mut().for_each(|candidate| candidate.end_round(now, lenient));
        let (rounds, heard, full) = (peer.rounds, peer.heard, self.full);
        self.ask(now, id, |candidate| candidate.sizes(full, rounds, heard));
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.rounds = peer.rounds.saturating_add(1);
        peer.next_round = now + if busy { HURRY } else { peer.pause(hurried, rest) };
    }

    /// Asks the candidates of a peer, each with these sizes.
    fn ask(&mut self, now: Instant, id: PeerId, sizes: impl Fn(&mut Candidate) -> BTreeSet<usize>) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        for candidate in &mut peer.candidates {
            // The largest first: a path is not told narrow and then wide.
            for size in sizes(candidate).into_iter().rev() {
                let nonce = self.chance.word();
                candidate.remember(now, nonce, size);
                let clear = self.clear.contains(&candidate.addr.ip());
                let mut contents = Probe { answer: false, clear, nonce }.emit().to_vec();
                contents.resize(size, 0);
                self.transmits.push_back(Transmit { to: candidate.addr, contents });
            }
        }
    }

    fn rest(&self) -> Duration {
        let peers = u32::try_from(self.peers.len()).unwrap_or(u32::MAX);
        REST.max(PACE.saturating_mul(peers))
    }

    /// Tells what changed for a peer since the last event.
    fn tell(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let (full, around) = (self.full, self.around);
        // Where it was only heard its frames go when it is nowhere else.
        let named = peer.candidates.iter().any(|c| c.passed > 0 && Some(c.addr) != peer.heard);
        let up = peer.candidates.iter().filter(|c| c.passed > 0 && !(named && Some(c.addr) == peer.heard));
        // The first of those that carry most: a path that is too small for full packets loses them.
        let best = up.reduce(|best, c| if c.passed.min(full) > best.passed.min(full) { c } else { best });
        let path = best.map(|c| (c.addr, c.mtu(full, around), c.room(full)));
        let silent = path.is_none() && peer.rounds >= HURRIED;
        // While all are asked anew, frames go on to where they went.
        if path != peer.told && (path.is_some() || silent) {
            peer.told = path;
            if let Some((addr, mtu, _)) = path {
                peer.told_down = false;
                self.events.push_back(Event::PathUp { peer: id, addr, mtu });
            }
        }
        if silent && !peer.told_down {
            peer.told_down = true;
            self.events.push_back(Event::PathDown { peer: id, reason: peer.silence() });
        }
    }

    fn collect_addresses(&mut self) {
        self.addresses =
            self.peers.values().flat_map(|peer| peer.candidates.iter().map(|c| c.addr.ip())).collect();
    }

    /// When [`Paths::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.peers.values().flat_map(|peer| peer.waits_until().into_iter().chain([peer.next_round])).min()
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next change of a path.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }
}

impl Peer {
    fn new(now: Instant) -> Self {
        Peer {
            candidates: Vec::new(),
            heard: None,
            elsewhere: None,
            waiting: None,
            rounds: 0,
            next_round: now,
            rested: true,
            told: None,
            told_down: false,
            prompted: None,
            busy_until: None,
            counted: None,
        }
    }

    /// Until when an address waits to be asked at which it was heard.
    fn waits_until(&self) -> Option<Instant> {
        self.waiting.and(self.elsewhere).map(|(at, _)| at + RETRY)
    }

    /// Whether every address that is known to answer has answered the last round, at full length.
    fn is_answered(&self) -> bool {
        let mut up = self.candidates.iter().filter(|c| c.passed > 0).peekable();
        up.peek().is_some() && up.all(|c| c.answered >= c.passed)
    }

    fn pause(&self, hurried: bool, rest: Duration) -> Duration {
        match self.candidates.iter().any(|c| c.passed > 0) {
            _ if hurried => HURRY,
            false if self.rounds >= PATIENT => rest,
            _ => RETRY,
        }
    }

    /// Whether it was heard where it has not answered.
    fn is_unproven(&self) -> bool {
        self.candidates.iter().any(|c| c.passed == 0 && Some(c.addr) == self.heard)
    }

    fn forget_heard(&mut self) {
        let heard = self.heard.take();
        self.candidates.retain(|c| Some(c.addr) != heard);
    }

    fn silence(&self) -> String {
        if self.candidates.is_empty() {
            return "the peer advertises no data address".to_owned();
        }
        let tried: Vec<String> = self.candidates.iter().map(|c| c.addr.to_string()).collect();
        format!("no answer on UDP from {}", tried.join(", "))
    }
}

#[cfg(test)]
mod tests;
