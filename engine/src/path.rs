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

pub mod ways;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::counters::DropReason;
use crate::seam::Event;
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
/// Rounds without an answer after which a candidate counts as silent.
const MISSES: u32 = 4;
/// Rounds after which a silent peer is asked no more often than one that answers.
const PATIENT: u32 = 30;
/// Probes in flight that are remembered for each candidate.
const REMEMBERED: usize = 16;
/// Smaller sizes tried, in bytes of UDP payload, when the full size is not answered.
const LADDER: [usize; 5] = [1422, 1372, 1252, 1172, 548];
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
    nonces: Nonces,
    answers: (Option<Instant>, u32),
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
}

struct Peer {
    candidates: Vec<Candidate>,
    /// The last of the candidates, if nobody named it: the peer was heard there.
    heard: Option<SocketAddr>,
    rounds: u32,
    next_round: Instant,
    /// Whether the last round was found answered: the next one is a rest away.
    rested: bool,
    /// What the last event said.
    told: Option<(SocketAddr, u16)>,
    told_down: bool,
    /// When a question of the peer last made us ask before it was time.
    prompted: Option<Instant>,
}

struct Candidate {
    addr: SocketAddr,
    /// What the peer said last: it takes frames in clear from where our datagrams to this address come from.
    takes_clear: bool,
    /// Largest payload that came back in the current round.
    answered: usize,
    /// Rounds in a row without any answer.
    misses: u32,
    /// Rounds in a row in which only less than `passed` came back.
    shrunk: u32,
    /// Largest payload that is known to pass; 0 while the address is silent.
    passed: usize,
    /// What passed counts only if the next round is answered.
    doubted: bool,
    in_flight: VecDeque<(u64, usize)>,
}

impl Paths {
    /// No peers yet. The seed makes nonces hard to guess for who is not on the path.
    pub fn new(seed: u64) -> Self {
        Paths {
            peers: BTreeMap::new(),
            addresses: BTreeSet::new(),
            clear: BTreeSet::new(),
            full: probe::LEN,
            around: ENCAPSULATION,
            nonces: Nonces(seed),
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
        let (mut old, heard, told, told_down) = match self.peers.remove(&peer) {
            Some(known) => (known.candidates, known.heard, known.told, known.told_down),
            None => (Vec::new(), None, None, false),
        };
        let heard = heard.filter(|heard| !candidates.contains(heard));
        let addrs: Vec<SocketAddr> = candidates.iter().copied().chain(heard).collect();
        let unchanged = old.iter().map(|c| c.addr).eq(addrs.iter().copied());
        let told = told.filter(|(addr, _)| addrs.contains(addr));
        let take = |addr| match old.iter().position(|c| c.addr == addr) {
            Some(index) => old.swap_remove(index),
            None => Candidate::new(addr),
        };
        let candidates = addrs.into_iter().map(take).collect();
        let rounds = if unchanged && told.is_some() { HURRIED } else { 0 };
        let known = Peer {
            candidates,
            heard,
            rounds,
            next_round: now,
            rested: true,
            told,
            told_down,
            prompted: None,
        };
        self.peers.insert(peer, known);
        self.collect_addresses();
        self.tell(peer);
    }

    /// What only the peer can have sealed came from `addr`, and is newer than what it sealed before. If its frames go
    /// elsewhere, `addr` is asked too, and the path in use must answer again.
    pub fn handle_heard(&mut self, now: Instant, peer: PeerId, addr: SocketAddr) {
        let Some(known) = self.peers.get_mut(&peer) else { return };
        if known.told.is_some_and(|(told, _)| told == addr) {
            return;
        }
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
        known.candidates.iter_mut().for_each(Candidate::doubt);
        (known.rounds, known.next_round, known.rested) = (0, now, true);
    }

    /// The peer is down or gone: nothing is sent to it any more.
    pub fn remove_peer(&mut self, peer: PeerId) {
        self.peers.remove(&peer);
        self.collect_addresses();
    }

    /// The address in use for a peer.
    pub fn path(&self, peer: PeerId) -> Option<SocketAddr> {
        self.peers.get(&peer).and_then(|peer| peer.told).map(|(addr, _)| addr)
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
            None => self.handle_answer(from, &probe),
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

    fn handle_answer(&mut self, from: SocketAddr, answer: &Probe) -> Result<(), DropReason> {
        let answered = self.peers.iter_mut().find_map(|(&id, peer)| {
            let candidate = peer.candidates.iter_mut().find(|c| c.addr == from)?;
            candidate.take_answer(answer).then_some(id)
        });
        let peer = answered.ok_or(DropReason::StaleProbe)?;
        self.tell(peer);
        Ok(())
    }

    /// Sends the rounds that are due. Work is bounded by the number of peers.
    pub fn handle_timeout(&mut self, now: Instant) {
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
        let lost = |c: &Candidate| c.passed == 0 && Some(c.addr) == peer.heard;
        if !hurried && peer.candidates.iter().any(lost) {
            peer.forget_heard();
            self.collect_addresses();
            return self.run_round(now, id);
        }
        if !hurried && !peer.rested && peer.is_answered() {
            peer.rested = true;
            peer.next_round = now + rest;
            return;
        }
        peer.rested = false;
        let first = peer.rounds == 0;
        for candidate in &mut peer.candidates {
            candidate.end_round(hurried, first);
            // The largest first: a path is not told narrow and then wide.
            for size in candidate.sizes(self.full, peer.rounds).into_iter().rev() {
                let nonce = self.nonces.next();
                candidate.remember(nonce, size);
                let clear = self.clear.contains(&candidate.addr.ip());
                let mut contents = Probe { answer: false, clear, nonce }.emit().to_vec();
                contents.resize(size, 0);
                self.transmits.push_back(Transmit { to: candidate.addr, contents });
            }
        }
        peer.rounds = peer.rounds.saturating_add(1);
        peer.next_round = now + peer.pause(hurried, rest);
    }

    fn rest(&self) -> Duration {
        let peers = u32::try_from(self.peers.len()).unwrap_or(u32::MAX);
        REST.max(PACE.saturating_mul(peers))
    }

    /// Tells what changed for a peer since the last event.
    fn tell(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let (full, around) = (self.full, self.around);
        let up = peer.candidates.iter().filter(|c| c.passed > 0);
        // The first of those that carry most: a path that is too small for full packets loses them.
        let best = up.reduce(|best, c| if c.passed.min(full) > best.passed.min(full) { c } else { best });
        let path = best.map(|c| (c.addr, c.mtu(full, around)));
        let silent = path.is_none() && peer.rounds >= HURRIED;
        // While all are asked anew, frames go on to where they went.
        if path != peer.told && (path.is_some() || silent) {
            peer.told = path;
            if let Some((addr, mtu)) = path {
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
        self.peers.values().map(|peer| peer.next_round).min()
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

impl Candidate {
    fn new(addr: SocketAddr) -> Self {
        Candidate {
            addr,
            takes_clear: false,
            answered: 0,
            misses: 0,
            shrunk: 0,
            passed: 0,
            doubted: false,
            in_flight: VecDeque::new(),
        }
    }

    /// What came back until now says nothing any more.
    fn doubt(&mut self) {
        (self.answered, self.misses, self.shrunk, self.doubted) = (0, 0, 0, true);
        self.in_flight.clear();
    }

    /// Weighs what came back since the last round; nothing can have before the `first`. In a hurry an answer may still be
    /// under way.
    fn end_round(&mut self, hurried: bool, first: bool) {
        let doubted = !first && std::mem::take(&mut self.doubted);
        match self.answered {
            0 if doubted => self.passed = 0,
            0 if hurried => {}
            0 => self.misses += 1,
            answered => {
                self.misses = 0;
                self.shrunk = if answered < self.passed { self.shrunk + 1 } else { 0 };
            }
        }
        if self.misses >= MISSES {
            self.passed = 0;
        }
        if self.shrunk >= MISSES {
            self.passed = self.answered;
        }
        self.answered = 0;
    }

    /// What to probe with: short, full, and the steps between while the full size does not pass.
    fn sizes(&self, full: usize, rounds: u32) -> BTreeSet<usize> {
        let climb = rounds >= 2 && self.passed > 0 && self.passed < full;
        let steps = LADDER.iter().copied().filter(|&size| climb && size < full);
        [probe::LEN, full].into_iter().chain(steps).collect()
    }

    /// Notes what passed; false when the nonce is not one of ours.
    fn take_answer(&mut self, answer: &Probe) -> bool {
        let sent = self.in_flight.iter().position(|&(sent, _)| sent == answer.nonce);
        let Some(index) = sent else { return false };
        self.takes_clear = answer.clear;
        let size = self.in_flight.remove(index).map_or(0, |(_, size)| size);
        self.answered = self.answered.max(size);
        self.passed = self.passed.max(size);
        true
    }

    fn remember(&mut self, nonce: u64, size: usize) {
        if self.in_flight.len() == REMEMBERED {
            self.in_flight.pop_front();
        }
        self.in_flight.push_back((nonce, size));
    }

    /// The largest overlay packet that passed; while only the short probe was answered, the smallest that
    /// every IPv4 host must take (RFC 1122 section 3.3.2), less what is `around` it.
    fn mtu(&self, full: usize, around: usize) -> u16 {
        let passed = self.passed.min(full).max(LADDER[LADDER.len() - 1]);
        u16::try_from(passed - around).unwrap_or(u16::MAX)
    }
}

/// A sequence that somebody who has not seen it cannot guess in time: SplitMix64 (Steele et al., 2014).
struct Nonces(u64);

impl Nonces {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests;
