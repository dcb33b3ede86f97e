//! The sessions with all peers: begun, renewed and ended, by `now` and by handshake datagrams.
//!
//! Each peer has at most three epochs: the one that is sealed with, the one before it, whose frames may still be on their
//! way, and one that the peer began and whose keys it has not shown yet. Workers get them as [`Event`]s and tell back, by
//! [`Epoch::is_heard`], which was used.

mod peer;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::chance::Chance;
use super::epoch::{Epoch, Limits};
use super::handshake::{Asked, Established, Pending, Stamp, answered};
use super::mac::{CookieJar, MacKeys, mac1_of};
use super::noise::{KEY_LEN, StaticKey};
use super::psk::{Psk, PskId};
use super::suite::Suite;
use crate::counters::DropReason;
use crate::path::Transmit;
use crate::types::PeerId;
use crate::wire::sealed::{COOKIE, INITIATION, RESPONSE};
use peer::{Begun, Held, Peer};

/// The initiator renews a session of this age, and the responder one that is a quarter older, if the initiator has not.
pub const REKEY_AFTER: Duration = Duration::from_secs(120);
/// No frame of a session of this age is sealed or opened.
pub const REJECT_AFTER: Duration = Duration::from_secs(180);
/// An initiation without an answer is repeated, anew, after so long, then after twice as long, and so on: an answer to the one
/// before comes too late, so the gap must become longer than any round trip.
const RETRY: Duration = Duration::from_secs(1);
/// So long is tried before it is told that the peer does not answer; whoever wants the session then begins anew.
const SILENT_AFTER: Duration = Duration::from_secs(10);
/// Two sessions begun within this time of each other, in the same life of the peer, were begun at the same time by both hosts.
/// Longer, and a peer that has forgotten one would be sealed to in that.
const SIMULTANEOUS: Duration = Duration::from_secs(1);
/// After another pre-shared key has become the newest, sessions under other ones are renewed within this time, at random: not
/// all at once. If the initiator has not, the responder does after as long again.
const RENEW_WITHIN: Duration = Duration::from_secs(3);
/// A session under a pre-shared key that is not taken any more ends after so long: who has the new one has a new session by
/// then, and what was on its way has arrived.
pub const RETIRED_AFTER: Duration = Duration::from_secs(10);
/// Initiations read in a second, for all senders together; more must show a cookie, and those are limited too.
const FREE_READS: u32 = 50;
const MOST_READS: u32 = 1_000;
/// Peers that are gone whose stamps are remembered: as many as most networks have hosts.
const REMEMBERED: usize = 16_384;

/// What changed for the workers.
#[derive(Debug)]
pub enum Event {
    /// Frames of this session are opened from now on.
    Opens(PeerId, Arc<Epoch>),
    /// Frames to the peer are sealed in this session from now on. The first of them should be sent at once, if need be
    /// empty: it shows the peer that its answer has arrived.
    Seals(PeerId, Arc<Epoch>),
    /// Nothing of this session, by our number for it, is opened any more.
    Ends(u32),
    /// There is no session to seal in any more.
    Sealless(PeerId),
    /// The peer does not answer, and there is no session with it.
    Silent(PeerId),
}

/// All sessions of a host.
pub struct Sessions {
    own: StaticKey,
    public: [u8; KEY_LEN],
    macs: MacKeys,
    psks: Vec<Psk>,
    stamp: Stamp,
    peers: BTreeMap<PeerId, Peer>,
    by_key: BTreeMap<[u8; KEY_LEN], PeerId>,
    /// The stamps of peers that are gone, each with a number that is larger the later they went.
    gone: BTreeMap<[u8; KEY_LEN], (u64, Stamp)>,
    went: u64,
    by_number: BTreeMap<u32, PeerId>,
    chance: Chance,
    jar: CookieJar,
    reads: (Instant, u32),
    limits: Option<Limits>,
    renew_after: Duration,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
}

impl Sessions {
    /// Without peers. `start` is the incarnation of the host record; `seed` is from the system's generator.
    pub fn new(now: Instant, own: StaticKey, start: u64, seed: [u8; 32]) -> Self {
        let public = own.public();
        let mut chance = Chance::new(seed);
        let jar = CookieJar::new(now, chance.bytes());
        Sessions {
            own,
            public,
            macs: MacKeys::of(&public),
            psks: vec![Psk::open()],
            stamp: Stamp { start, count: 0 },
            peers: BTreeMap::new(),
            by_key: BTreeMap::new(),
            gone: BTreeMap::new(),
            went: 0,
            by_number: BTreeMap::new(),
            chance,
            jar,
            reads: (now, 0),
            limits: None,
            renew_after: REKEY_AFTER,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Other limits than those of the suites.
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = Some(limits);
        self
    }

    /// Sessions begun from now on are renewed at this age, not at [`REKEY_AFTER`].
    pub fn set_renewal(&mut self, after: Duration) {
        self.renew_after = after;
    }

    /// The pre-shared keys that are taken, newest first. Sessions under others than the newest are renewed soon, those under
    /// keys that are not taken any more end soon.
    pub fn set_psks(&mut self, now: Instant, psks: Vec<Psk>) {
        let taken: Vec<PskId> = psks.iter().map(Psk::id).collect();
        self.psks = psks;
        for known in self.peers.values_mut() {
            let held = [&mut known.next, &mut known.current, &mut known.previous];
            for held in held.into_iter().flatten() {
                if taken.first() != Some(&held.psk) {
                    let turn = RENEW_WITHIN.mul_f64(f64::from(self.chance.number()) / f64::from(u32::MAX));
                    let late = if held.initiator { Duration::ZERO } else { RENEW_WITHIN };
                    held.renew_at = held.renew_at.min(now + turn + late);
                }
                if !taken.contains(&held.psk) {
                    held.until = held.until.min(now + RETIRED_AFTER);
                }
            }
        }
    }

    /// The host goes on under a higher incarnation.
    pub fn raise(&mut self, start: u64) {
        self.stamp = Stamp { start: self.stamp.start.max(start), ..self.stamp };
    }

    /// A host with which there may be sessions: its key, and the suite for it. Another key ends the sessions with the former
    /// one. A key that is another peer's already is not believed.
    pub fn set_peer(&mut self, peer: PeerId, key: [u8; KEY_LEN], suite: Option<Suite>) {
        if self.peers.get(&peer).is_some_and(|known| known.key != key || known.suite != suite) {
            self.remove_peer(peer);
        }
        if *self.by_key.entry(key).or_insert(peer) != peer {
            return;
        }
        // Both sides compare the same two keys.
        let lower = key < self.public;
        let gone = &mut self.gone;
        let mut stamp = || gone.remove(&key).map(|(_, stamp)| stamp);
        self.peers.entry(peer).or_insert_with(|| Peer { stamp: stamp(), ..Peer::new(key, suite, lower) });
    }

    /// Where initiations to the peer go; none while nobody knows. Answers go where the question came from.
    pub fn set_addr(&mut self, peer: PeerId, addr: Option<SocketAddr>) {
        if let Some(known) = self.peers.get_mut(&peer) {
            known.addr = addr;
        }
    }

    /// The host is no peer any more, for now: what it has said stays old.
    pub fn remove_peer(&mut self, peer: PeerId) {
        let Some(gone) = self.peers.remove(&peer) else { return };
        self.by_key.remove(&gone.key);
        self.remember(gone.key, gone.stamp);
        self.by_number.retain(|_, of| *of != peer);
        let held = [gone.next, gone.current, gone.previous].into_iter().flatten();
        self.events.extend(held.map(|held| Event::Ends(held.epoch.local)));
        self.events.push_back(Event::Sealless(peer));
    }

    fn remember(&mut self, key: [u8; KEY_LEN], stamp: Option<Stamp>) {
        let Some(stamp) = stamp else { return };
        self.went += 1;
        self.gone.insert(key, (self.went, stamp));
        if self.gone.len() > REMEMBERED {
            let first = self.gone.iter().min_by_key(|(_, (at, _))| *at).map(|(key, _)| *key);
            first.into_iter().for_each(|key| _ = self.gone.remove(&key));
        }
    }

    /// Frames wait for a session with this peer.
    pub fn want(&mut self, now: Instant, peer: PeerId) {
        if self.peers.get(&peer).is_some_and(|known| known.begun.is_none() && known.current.is_none()) {
            self.begin(now, peer);
        }
    }

    /// A sealed frame of no known session came from this peer's address: it may have lost ours, or we its.
    pub fn want_anew(&mut self, now: Instant, peer: PeerId) {
        let fresh = |held: &Held| now.saturating_duration_since(held.since) < RETRY;
        let known = self.peers.get(&peer);
        if known.is_some_and(|known| known.begun.is_none() && !known.current.as_ref().is_some_and(fresh)) {
            self.begin(now, peer);
        }
    }

    /// The session that frames for this peer are sealed in.
    pub fn current(&self, peer: PeerId) -> Option<&Epoch> {
        self.peers.get(&peer)?.current.as_ref().map(|held| &*held.epoch)
    }

    /// Takes a datagram of type 1, 2 or 3.
    ///
    /// # Errors
    /// Why it was dropped.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Result<(), DropReason> {
        match datagram.first() {
            Some(&INITIATION) => self.handle_initiation(now, from, datagram),
            Some(&RESPONSE) => self.handle_response(now, datagram),
            Some(&COOKIE) => self.handle_cookie(now, datagram),
            _ => Err(DropReason::BadHandshake),
        }
    }

    fn handle_initiation(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Result<(), DropReason> {
        if !self.macs.is_meant_for_us(datagram) {
            return Err(DropReason::BadHandshake);
        }
        self.pay(now, from, datagram)?;
        let asked =
            Asked::read(&self.own, datagram, self.chance.bytes()).map_err(|_| DropReason::BadHandshake)?;
        let peer = *self.by_key.get(&asked.peer).ok_or(DropReason::StrangerHandshake)?;
        let known = self.peers.get_mut(&peer).ok_or(DropReason::StrangerHandshake)?;
        if known.suite != Some(asked.suite()) {
            return Err(DropReason::StrangerHandshake);
        }
        if known.stamp.is_some_and(|last| asked.stamp <= last) {
            return Err(DropReason::StaleHandshake);
        }
        let stamp = asked.stamp;
        let local = fresh_number(&mut self.chance, &self.by_number);
        let (established, mut response) =
            asked.answer(&self.psks, self.stamp.start, local).map_err(|_| DropReason::StrangerHandshake)?;
        known.stamp = Some(stamp);
        known.macs.finish(&mut response, known.cookie(now));
        self.transmits.push_back(Transmit { to: from, contents: response });
        let held = self.hold(now, peer, established);
        let Some(known) = self.peers.get_mut(&peer) else { return Ok(()) };
        let replaced = known.next.replace(held.clone());
        self.end(replaced);
        self.events.push_back(Event::Opens(peer, held.epoch));
        Ok(())
    }

    /// Counts an initiation that is read. Under load the sender must have shown that it receives at its address.
    fn pay(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) -> Result<(), DropReason> {
        if now.saturating_duration_since(self.reads.0) >= Duration::from_secs(1) {
            self.reads = (now, 0);
        }
        if self.jar.is_stale(now) {
            self.jar.change(now, self.chance.bytes());
        }
        // What a flood from forged addresses uses up is the free part only.
        let free = self.reads.1 < FREE_READS;
        if free || (self.reads.1 < MOST_READS && self.jar.knows(from, datagram)) {
            self.reads.1 += 1;
            return Ok(());
        }
        let number = datagram.get(4..8).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes);
        let nonce = self.chance.bytes().first_chunk().copied().unwrap_or_default();
        let reply = number.and_then(|to| self.macs.give(to, &self.jar.cookie(from), datagram, nonce));
        // One datagram out, shorter than the one that came in.
        self.transmits.extend(reply.map(|contents| Transmit { to: from, contents }));
        Err(DropReason::HandshakeLimit)
    }

    fn handle_response(&mut self, now: Instant, datagram: &[u8]) -> Result<(), DropReason> {
        if !self.macs.is_meant_for_us(datagram) {
            return Err(DropReason::BadHandshake);
        }
        let number = answered(datagram).ok_or(DropReason::BadHandshake)?;
        let peer = *self.by_number.get(&number).ok_or(DropReason::StaleHandshake)?;
        let known = self.peers.get_mut(&peer).ok_or(DropReason::StaleHandshake)?;
        let begun = known.begun.as_mut().filter(|begun| begun.pending.local() == number);
        let begun = begun.ok_or(DropReason::StaleHandshake)?;
        let established = begun.pending.finish(&self.psks, datagram).map_err(|_| DropReason::BadHandshake)?;
        known.begun = None;
        let held = self.hold(now, peer, established);
        self.events.push_back(Event::Opens(peer, Arc::clone(&held.epoch)));
        self.seal_with(now, peer, held);
        Ok(())
    }

    fn handle_cookie(&mut self, now: Instant, datagram: &[u8]) -> Result<(), DropReason> {
        let number = answered(datagram).ok_or(DropReason::BadHandshake)?;
        let peer = self.by_number.get(&number).ok_or(DropReason::StaleHandshake)?;
        let known = self.peers.get_mut(peer).ok_or(DropReason::StaleHandshake)?;
        let begun = known.begun.as_ref().ok_or(DropReason::StaleHandshake)?;
        let cookie = known.macs.take(datagram, begun.mac1).ok_or(DropReason::BadHandshake)?;
        known.cookie = Some((now, cookie));
        Ok(())
    }

    fn hold(&mut self, now: Instant, peer: PeerId, established: Established) -> Held {
        let limits = self.limits.unwrap_or(Limits::of(established.suite));
        let (initiator, psk, life) = (established.initiator, established.psk, established.life);
        let epoch = Arc::new(Epoch::new(established, limits));
        self.by_number.insert(epoch.local, peer);
        let renew_after = if initiator { self.renew_after } else { self.renew_after * 5 / 4 };
        let renew_at = now + renew_after;
        Held { epoch, since: now, initiator, psk, life, renew_at, until: now + REJECT_AFTER }
    }

    /// Makes a session the one to seal with. Of two that both hosts began at the same time, both take the one that the host with
    /// the lower public key began. One of another life of the peer is dead.
    fn seal_with(&mut self, now: Instant, peer: PeerId, held: Held) {
        let Some(known) = self.peers.get_mut(&peer) else { return };
        let preferred = |held: &Held| held.initiator != known.lower;
        let stays = known.current.as_ref().filter(|current| {
            let together = now.saturating_duration_since(current.since) < SIMULTANEOUS;
            together && current.life == held.life && current.initiator != held.initiator && preferred(current)
        });
        if stays.is_some() {
            let replaced = known.previous.replace(held);
            return self.end(replaced);
        }
        let epoch = Arc::clone(&held.epoch);
        let former = known.current.replace(held);
        let replaced = std::mem::replace(&mut known.previous, former);
        self.end(replaced);
        self.events.push_back(Event::Seals(peer, epoch));
    }

    fn end(&mut self, held: Option<Held>) {
        if let Some(held) = held {
            self.by_number.remove(&held.epoch.local);
            self.events.push_back(Event::Ends(held.epoch.local));
        }
    }

    /// A frame of this peer was opened, the first of its session: if that is the one that the peer began, it has the keys.
    pub fn handle_heard(&mut self, now: Instant, peer: PeerId) {
        let next =
            self.peers.get_mut(&peer).and_then(|known| known.next.take_if(|next| next.epoch.is_heard()));
        if let Some(held) = next {
            self.seal_with(now, peer, held);
        }
    }

    /// Renews and ends what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        for peer in self.peers.keys().copied().collect::<Vec<_>>() {
            self.handle_heard(now, peer);
            self.expire(now, peer);
            self.renew(now, peer);
            self.retry(now, peer);
        }
    }

    fn expire(&mut self, now: Instant, peer: PeerId) {
        let Some(known) = self.peers.get_mut(&peer) else { return };
        let old = |held: &mut Held| now >= held.until;
        let (next, previous) = (known.next.take_if(old), known.previous.take_if(old));
        let current = known.current.take_if(old);
        if current.is_some() {
            self.events.push_back(Event::Sealless(peer));
        }
        [next, previous, current].into_iter().for_each(|held| self.end(held));
    }

    fn renew(&mut self, now: Instant, peer: PeerId) {
        let Some(known) = self.peers.get(&peer) else { return };
        let due = known.current.as_ref().is_some_and(|held| held.is_due(now));
        if due && known.begun.is_none() {
            self.begin(now, peer);
        }
    }

    fn retry(&mut self, now: Instant, peer: PeerId) {
        let Some(known) = self.peers.get_mut(&peer) else { return };
        let Some(begun) = &known.begun else { return };
        if known.addr.is_none() || now.saturating_duration_since(begun.since) >= SILENT_AFTER {
            self.by_number.remove(&begun.pending.local());
            known.begun = None;
            // A session that is still good goes on; its renewal is tried again.
            if known.current.is_none() {
                self.events.push_back(Event::Silent(peer));
            }
        } else if now >= begun.again {
            self.begin(now, peer);
        }
    }

    fn begin(&mut self, now: Instant, peer: PeerId) {
        let local = fresh_number(&mut self.chance, &self.by_number);
        let Some(known) = self.peers.get_mut(&peer) else { return };
        let (Some(suite), Some(to)) = (known.suite, known.addr) else { return };
        self.stamp.count += 1;
        let psks: Vec<PskId> = self.psks.iter().map(Psk::id).collect();
        let seed = self.chance.bytes();
        let begun = Pending::begin(suite, &self.own, &known.key, local, (self.stamp, &psks), seed);
        // A key that is no point of the curve agrees on nothing.
        let Ok((pending, mut contents)) = begun else { return };
        known.macs.finish(&mut contents, known.cookie(now));
        let mac1 = mac1_of(&contents).unwrap_or_default();
        let before = known.begun.take();
        let (since, gap) =
            before.as_ref().map_or((now, RETRY), |before| (before.since, (before.gap * 2).min(4 * RETRY)));
        if let Some(before) = before {
            self.by_number.remove(&before.pending.local());
        }
        known.begun = Some(Begun { pending, mac1, since, again: now + gap, gap });
        self.by_number.insert(local, peer);
        self.transmits.push_back(Transmit { to, contents });
    }

    /// When [`Self::handle_timeout`] has something to do; besides, it looks for sessions that were heard when it is called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.peers.values().filter_map(Peer::next_timeout).min()
    }

    /// The next datagram to send, from the data port.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next change.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }
}

fn fresh_number(chance: &mut Chance, taken: &BTreeMap<u32, PeerId>) -> u32 {
    loop {
        let number = chance.number();
        if !taken.contains_key(&number) {
            return number;
        }
    }
}

#[cfg(test)]
mod tests;
