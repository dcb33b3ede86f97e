//! The peers known by their records: which of them to be connected to.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::ops::Bound;
use std::time::{Duration, Instant};

use engine::types::PeerId;
use rand::RngExt;
use rand::seq::IteratorRandom;

use super::backoff::{Backoff, FIRST, REFUSED};
use super::{Action, FULL, IDLE, RING, SETTLED_AFTER, Topology};
use crate::mesh::{ConnId, DialId, DialTarget, TargetState, TargetStatus};
use crate::proto::Purpose;

/// At most so many attempts at peers that are down run at once, and at peers chosen to be connected to: whoever becomes
/// known first would be dialled by everybody.
const DOWN_DIALS: usize = 4;
const CHOSEN_DIALS: usize = 6;

/// In a crowd every host is connected to so many hosts after it on the ring of all ids.
const SUCCESSORS: usize = 2;

/// In a crowd so many connections made on demand are kept, each for so long, and more only while they are in use.
const ON_DEMAND: usize = 4;
const IDLE_AFTER: Duration = Duration::from_secs(10);
const IN_USE: Duration = Duration::from_secs(2);

/// What waits only for others to be finished looks again after this.
const TURN: Duration = Duration::from_millis(20);

/// A host that has no room now may have some later.
const ROOM_LATER: Duration = Duration::from_secs(2);

/// A connection, and when it began or was last used.
type Timed = (Instant, ConnId);

/// A host that said of itself where it is.
#[derive(Debug)]
pub(super) struct Link {
    addrs: Vec<SocketAddr>,
    down: bool,
    backoff: Backoff,
    pub(super) next_try: Instant,
    pub(super) dial: Option<DialId>,
    pub(super) reason: Option<String>,
    /// The last attempt ended because one side did not let the other in.
    pub(super) refused: bool,
}

impl Link {
    fn state(&self) -> TargetState {
        match (self.dial, self.refused) {
            (Some(_), _) => TargetState::Connecting,
            (None, true) => TargetState::Refused,
            (None, false) => TargetState::Waiting,
        }
    }
}

impl Topology {
    /// A host is known, at these addresses; `down` as membership has it.
    pub fn set_peer(&mut self, now: Instant, peer: PeerId, addrs: Vec<SocketAddr>) {
        if peer == self.me {
            return;
        }
        match self.links.get_mut(&peer) {
            Some(link) if link.addrs == addrs => {}
            Some(link) => {
                link.addrs = addrs;
                link.backoff.reset();
                link.next_try = now;
                self.look_at = self.look_at.min(now);
            }
            None => {
                let next_try = now + self.courtesy(peer);
                self.look_at = self.look_at.min(next_try);
                let (backoff, dial, reason) = (Backoff::default(), None, None);
                let link = Link { addrs, down: false, backoff, next_try, dial, reason, refused: false };
                self.links.insert(peer, link);
            }
        }
    }

    /// The peer does not belong to the cluster any more: nobody dials it but for a target. What is connected stays.
    pub fn forget_peer(&mut self, peer: PeerId) {
        self.links.remove(&peer);
    }

    /// Membership changed its mind about a peer.
    pub fn set_down(&mut self, now: Instant, peer: PeerId, down: bool) {
        let courtesy = self.courtesy(peer);
        if let Some(link) = self.links.get_mut(&peer) {
            if link.down && !down {
                link.backoff.reset();
                link.next_try = now + courtesy;
                self.look_at = self.look_at.min(link.next_try);
            }
            link.down = down;
        }
    }

    /// A connection to `peer` is needed now, for a message that has no other way.
    pub fn want(&mut self, now: Instant, peer: PeerId) {
        let busy = self.is_busy(peer);
        let due = self.links.get(&peer).is_some_and(|link| link.next_try <= now || link.backoff.is_fresh());
        if !busy && due {
            let purpose = if self.is_crowd() { Purpose::Demand } else { Purpose::Chosen };
            self.dial_link(peer, purpose);
        }
    }

    /// How many connections to hold by choice among `hosts` hosts.
    pub fn chosen_limit(hosts: usize) -> usize {
        8 + 2 * usize::try_from(hosts.max(1).ilog2()).unwrap_or(0)
    }

    /// Both sides learn of each other at the same time: the higher id lets the lower one go first.
    fn courtesy(&mut self, peer: PeerId) -> Duration {
        if self.me < peer { Duration::ZERO } else { FIRST.mul_f64(self.rng.random_range(1.0..=3.0)) }
    }

    pub(super) fn is_busy(&self, peer: PeerId) -> bool {
        self.conns.values().any(|conn| conn.peer == peer)
            || self.links.get(&peer).is_some_and(|l| l.dial.is_some())
    }

    fn dial_link(&mut self, peer: PeerId, purpose: Purpose) {
        let Some(addrs) = self.links.get(&peer).map(|link| link.addrs.clone()) else { return };
        if !addrs.is_empty() {
            self.dial_at(peer, addrs, purpose);
        }
    }

    pub(super) fn dial_at(&mut self, peer: PeerId, addrs: Vec<SocketAddr>, purpose: Purpose) {
        let dial = self.dial(DialTarget::Addr { addrs, peer }, purpose);
        if let Some(link) = self.links.get_mut(&peer) {
            link.dial = Some(dial);
        }
    }

    /// Dials what is missing.
    pub(super) fn choose(&mut self, now: Instant) {
        if !self.discovery {
            return;
        }
        if self.waiting {
            return self.ask_somebody(now);
        }
        let crowd = self.is_crowd();
        if crowd && self.ring_at <= now {
            self.ring_at = now + RING;
            self.keep_ring(now);
        }
        let (up, down) = self.unconnected(now);
        let dials = self.dials.values().filter(|dial| dial.purpose == Purpose::Chosen).count();
        let mut room = CHOSEN_DIALS.saturating_sub(dials);
        if crowd {
            let spread = self.conns.values().filter(|conn| conn.nonce.is_some() && conn.is_chosen()).count();
            room = room.min(self.wanted().saturating_sub(spread + dials));
            room -= self.choose_among_connections(room);
        }
        let late = up.len() > room;
        let up = up.into_iter().sample(&mut self.rng, room);
        let running = self.links.values().filter(|link| link.down && link.dial.is_some()).count();
        let down = down.into_iter().sample(&mut self.rng, DOWN_DIALS.saturating_sub(running));
        up.into_iter().for_each(|peer| self.dial_link(peer, Purpose::Chosen));
        down.into_iter().for_each(|peer| self.dial_link(peer, Purpose::Demand));
        self.look_again(now, late && !crowd);
    }

    /// A clone that waits asks one host at a time whether it is wanted.
    fn ask_somebody(&mut self, now: Instant) {
        let (up, down) = self.unconnected(now);
        let one = up.into_iter().chain(down).choose(&mut self.rng);
        one.into_iter().for_each(|peer| self.dial_link(peer, Purpose::Chosen));
    }

    /// Plans the next look for the first attempt that is timed; `soon`: something waits only for its turn.
    fn look_again(&mut self, now: Instant, soon: bool) {
        let next = self.links.values().map(|link| link.next_try).filter(|at| *at > now).min();
        let turn = soon.then(|| now + TURN);
        self.look_at = [next, turn].into_iter().flatten().fold(self.look_at, Instant::min);
    }

    /// Connects to the hosts that follow this one on the ring: with that alone no host is ever cut off.
    fn keep_ring(&mut self, now: Instant) {
        for peer in self.successors() {
            let due = self.links.get(&peer).is_some_and(|link| link.next_try <= now);
            match self.best(peer) {
                Some(conn) => self.choose_connection(conn),
                None if due && !self.is_busy(peer) => self.dial_link(peer, Purpose::Chosen),
                None => {}
            }
        }
    }

    /// What others dialled, or was made on demand, serves as well as a new connection. How many were found.
    fn choose_among_connections(&mut self, count: usize) -> usize {
        let passive = self
            .conns
            .iter()
            .filter(|(_, conn)| conn.nonce.is_some() && conn.wish == Purpose::Demand && !conn.is_chosen());
        let passive = passive.map(|(id, _)| *id).sample(&mut self.rng, count);
        passive.iter().for_each(|conn| self.choose_connection(*conn));
        passive.len()
    }

    /// A connection that was made for one message stays.
    fn choose_connection(&mut self, conn: ConnId) {
        let made_on_demand = self.conns.get_mut(&conn).filter(|entry| entry.wish == Purpose::Demand);
        if let Some(entry) = made_on_demand {
            entry.wish = Purpose::Chosen;
            self.actions.push_back(Action::Tell(conn));
            self.make_room(conn);
        }
    }

    /// The hosts that are up and follow this one in the order of ids, which are hashes: each host has other neighbours.
    fn successors(&self) -> Vec<PeerId> {
        let above = self.links.range((Bound::Excluded(self.me), Bound::Unbounded));
        let below = self.links.range(..self.me);
        let up = above.chain(below).filter(|(_, link)| !link.down && !link.addrs.is_empty());
        up.map(|(peer, _)| *peer).take(SUCCESSORS).collect()
    }

    /// True for hosts that have a connection to this one because of the ring, as far as this one knows.
    fn is_neighbour(&self, peer: PeerId) -> bool {
        let below = self.links.range(..self.me).rev();
        let above = self.links.range((Bound::Excluded(self.me), Bound::Unbounded)).rev();
        let up = below.chain(above).filter(|(_, link)| !link.down && !link.addrs.is_empty());
        up.map(|(peer, _)| *peer).take(SUCCESSORS).any(|before| before == peer)
            || self.successors().contains(&peer)
    }

    /// Hosts that `peer` will want to know: those that follow it on the ring, and some at random.
    pub fn acquaintances(&mut self, peer: PeerId, count: usize) -> Vec<PeerId> {
        let above = self.links.range((Bound::Excluded(peer), Bound::Unbounded));
        let ring = above.chain(self.links.range(..peer)).filter(|(_, link)| !link.down).take(SUCCESSORS);
        let mut hosts: Vec<PeerId> = ring.map(|(peer, _)| *peer).collect();
        let others =
            self.links.iter().filter(|(other, link)| !link.down && **other != peer && !hosts.contains(other));
        let others = others.map(|(peer, _)| *peer).sample(&mut self.rng, count.saturating_sub(hosts.len()));
        hosts.extend(others);
        hosts
    }

    /// More hosts are up than a host may be connected to by choice.
    pub(super) fn is_crowd(&self) -> bool {
        let up = self.up();
        up > Self::chosen_limit(up + 1)
    }

    pub(super) fn up(&self) -> usize {
        self.links.values().filter(|link| !link.down).count()
    }

    /// The connections that are there by choice, whoever dialled, newest last.
    fn chosen(&self) -> Vec<(Timed, PeerId)> {
        let chosen =
            self.conns.iter().filter(|(_, conn)| conn.nonce.is_some() && conn.purpose() == Purpose::Chosen);
        let mut chosen: Vec<_> = chosen.map(|(id, conn)| ((conn.since, *id), conn.peer)).collect();
        chosen.sort_unstable();
        chosen
    }

    /// So many connections by choice this host sees to itself; beyond, up to the limit, it is there for others.
    fn wanted(&self) -> usize {
        Self::chosen_limit(self.up() + 1) / 2 + 2
    }

    /// Closes one connection by choice if they are too many: the new one, unless it is of the ring.
    pub(super) fn make_room(&mut self, new: ConnId) {
        let Some(peer) =
            self.conns.get(&new).filter(|conn| conn.purpose() == Purpose::Chosen).map(|conn| conn.peer)
        else {
            return;
        };
        let chosen = self.chosen();
        if chosen.len() <= Self::chosen_limit(self.up() + 1) {
            return;
        }
        let given_up = match self.is_neighbour(peer) {
            true => {
                chosen.iter().rev().find(|(_, peer)| !self.is_neighbour(*peer)).map(|((_, conn), _)| *conn)
            }
            false => Some(new),
        };
        if let Some(conn) = given_up {
            self.close(conn, FULL);
        }
    }

    fn unconnected(&self, now: Instant) -> (Vec<PeerId>, Vec<PeerId>) {
        let connected: BTreeSet<PeerId> = self.conns.values().map(|conn| conn.peer).collect();
        let due = self.links.iter().filter(|(_, link)| link.next_try <= now && !link.addrs.is_empty());
        let idle = due.filter(|(peer, link)| link.dial.is_none() && !connected.contains(peer));
        let (down, up): (Vec<_>, Vec<_>) = idle.partition(|(_, link)| link.down);
        let ids = |links: Vec<(&PeerId, &Link)>| links.into_iter().map(|(peer, _)| *peer).collect();
        (ids(up), ids(down))
    }

    pub(super) fn link_failed(&mut self, now: Instant, peer: PeerId, reason: &str) {
        if let Some(link) = self.links.get_mut(&peer) {
            link.dial = None;
            link.next_try = now + link.backoff.next(&mut self.rng);
            (link.reason, link.refused) = (Some(reason.to_owned()), false);
            self.look_at = self.look_at.min(link.next_try);
        }
    }

    pub(super) fn link_lost(&mut self, now: Instant, peer: PeerId, lasted: Duration, reason: &str) {
        if let Some(link) = self.links.get_mut(&peer) {
            // A connection that nobody needed any more, or had no room for, is not missed.
            let given_up = [IDLE, FULL].contains(&reason);
            if given_up || lasted >= SETTLED_AFTER {
                link.backoff.reset();
            }
            let wait = if reason == FULL { ROOM_LATER } else { link.backoff.next(&mut self.rng) };
            link.next_try = now + wait.mul_f64(self.rng.random_range(0.5..=1.0));
            (link.reason, link.refused) = ((!given_up).then(|| reason.to_owned()), false);
            if given_up {
                link.backoff.reset();
            }
            self.look_at = self.look_at.min(link.next_try);
        }
    }

    pub(super) fn link_refused(&mut self, now: Instant, peer: PeerId, reason: &str) {
        if let Some(link) = self.links.get_mut(&peer) {
            link.next_try = now + REFUSED;
            (link.reason, link.refused) = (Some(reason.to_owned()), true);
        }
    }

    /// In a crowd, what is too much ends: by choice above the limit, newest first, and what was made on demand when nothing
    /// needed it for a while, or the least used when there are many.
    pub(super) fn trim(&mut self, now: Instant) {
        if !self.is_crowd() {
            return;
        }
        let excess = self.chosen().len().saturating_sub(Self::chosen_limit(self.up() + 1));
        let chosen = self.chosen();
        let newest = chosen.iter().rev().filter(|(_, peer)| !self.is_neighbour(*peer));
        let over: Vec<ConnId> = newest.map(|((_, conn), _)| *conn).take(excess).collect();
        over.into_iter().for_each(|conn| self.close(conn, FULL));
        let demand =
            self.conns.iter().filter(|(_, conn)| conn.nonce.is_some() && conn.purpose() == Purpose::Demand);
        let mut demand: Vec<Timed> = demand.map(|(id, conn)| (conn.used, *id)).collect();
        demand.sort_unstable_by(|a, b| b.cmp(a));
        for (rank, (used, conn)) in demand.into_iter().enumerate() {
            let idle = now.saturating_duration_since(used);
            if idle >= IDLE_AFTER || (rank >= ON_DEMAND && idle >= IN_USE) {
                self.close(conn, IDLE);
            }
        }
    }

    pub(super) fn link_status(&self, now: Instant) -> Vec<TargetStatus> {
        let connected = |peer: &PeerId| self.conns.values().any(|conn| conn.peer == *peer);
        let links = self.links.iter().filter(|(peer, link)| {
            !connected(peer) && (link.dial.is_some() || link.reason.is_some()) && !link.addrs.is_empty()
        });
        links
            .map(|(peer, link)| TargetStatus {
                target: link.addrs.first().map(ToString::to_string).unwrap_or_default(),
                peer_id: Some(peer.to_string()),
                state: link.state(),
                reason: link.reason.clone(),
                next_try_s: (link.dial.is_none() && self.discovery)
                    .then(|| link.next_try.saturating_duration_since(now).as_secs_f64()),
            })
            .collect()
    }
}
