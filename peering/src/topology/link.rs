//! The peers known by their records: which of them to be connected to.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use engine::types::PeerId;
use rand::RngExt;
use rand::seq::IteratorRandom;

use super::backoff::{Backoff, FIRST, REFUSED};
use super::{IDLE_AFTER, SETTLED_AFTER, Topology};
use crate::mesh::{ConnId, DialId, DialTarget, TargetState, TargetStatus};

/// At most so many attempts at peers that are down run at once.
const DOWN_DIALS: usize = 4;

/// In a crowd so many connections made on demand are kept, and more only while they are in use.
const ON_DEMAND: usize = 8;
const IN_USE: Duration = Duration::from_secs(2);

/// What they are closed with.
const IDLE: &str = "idle";

/// A connection, and when it began or was last used.
type Timed = (Instant, ConnId);

/// A host that said of itself where it is.
#[derive(Debug)]
pub(super) struct Link {
    addrs: Vec<SocketAddr>,
    down: bool,
    backoff: Backoff,
    next_try: Instant,
    pub(super) dial: Option<DialId>,
    pub(super) reason: Option<String>,
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
            }
            None => {
                let next_try = now + self.courtesy(peer);
                let (backoff, down) = (Backoff::default(), false);
                self.links.insert(peer, Link { addrs, down, backoff, next_try, dial: None, reason: None });
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
            }
            link.down = down;
        }
    }

    /// A connection to `peer` is needed now, for a message that has no other way.
    pub fn want(&mut self, now: Instant, peer: PeerId) {
        let busy = self.is_busy(peer);
        let due = self.links.get(&peer).is_some_and(|link| link.next_try <= now || link.backoff.is_fresh());
        if !busy && due {
            self.dial_link(peer, true);
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

    fn is_busy(&self, peer: PeerId) -> bool {
        self.conns.values().any(|conn| conn.peer == peer)
            || self.links.get(&peer).is_some_and(|l| l.dial.is_some())
    }

    fn dial_link(&mut self, peer: PeerId, on_demand: bool) {
        let Some(addrs) = self.links.get(&peer).map(|link| link.addrs.clone()) else { return };
        if addrs.is_empty() {
            return;
        }
        let dial = self.dial(DialTarget::Addr { addrs, peer }, on_demand);
        if let Some(link) = self.links.get_mut(&peer) {
            link.dial = Some(dial);
        }
    }

    pub(super) fn dial_links(&mut self, now: Instant) {
        if !self.discovery {
            return;
        }
        let (mut up, mut down) = self.unconnected(now);
        if self.is_crowd() {
            let missing = self.chosen_missing();
            up = up.into_iter().sample(&mut self.rng, missing);
        }
        let running = self.links.values().filter(|link| link.down && link.dial.is_some()).count();
        down = down.into_iter().sample(&mut self.rng, DOWN_DIALS.saturating_sub(running));
        for peer in up.into_iter().chain(down) {
            self.dial_link(peer, false);
        }
    }

    /// More hosts are up than a host may be connected to by choice.
    pub(super) fn is_crowd(&self) -> bool {
        let up = self.links.values().filter(|link| !link.down).count();
        up > Self::chosen_limit(up + 1)
    }

    fn chosen_missing(&self) -> usize {
        let (chosen, _) = self.dialled();
        let dials = self.links.values().filter(|link| link.dial.is_some()).count();
        self.own_share().saturating_sub(chosen.len() + dials)
    }

    fn unconnected(&self, now: Instant) -> (Vec<PeerId>, Vec<PeerId>) {
        let due = self.links.iter().filter(|(_, link)| link.next_try <= now && !link.addrs.is_empty());
        let idle = due.filter(|(peer, _)| !self.is_busy(**peer));
        let (down, up): (Vec<_>, Vec<_>) = idle.partition(|(_, link)| link.down);
        let ids = |links: Vec<(&PeerId, &Link)>| links.into_iter().map(|(peer, _)| *peer).collect();
        (ids(up), ids(down))
    }

    pub(super) fn link_failed(&mut self, now: Instant, peer: PeerId, reason: &str) {
        if let Some(link) = self.links.get_mut(&peer) {
            link.dial = None;
            link.next_try = now + link.backoff.next(&mut self.rng);
            link.reason = Some(reason.to_owned());
        }
    }

    pub(super) fn link_lost(&mut self, now: Instant, peer: PeerId, lasted: Duration, reason: &str) {
        if let Some(link) = self.links.get_mut(&peer) {
            if lasted >= SETTLED_AFTER {
                link.backoff.reset();
            }
            link.next_try = now + link.backoff.next(&mut self.rng);
            // A connection that nobody needed any more is not missed.
            link.reason = (reason != IDLE).then(|| reason.to_owned());
        }
    }

    pub(super) fn link_refused(&mut self, now: Instant, peer: PeerId, reason: &str) {
        if let Some(link) = self.links.get_mut(&peer) {
            link.next_try = now + REFUSED;
            link.reason = Some(reason.to_owned());
        }
    }

    /// In a crowd, what was chosen beyond the share of this host counts as made on demand, and what was made on demand
    /// ends: when nothing needed it for a while, or the least used when there are many.
    pub(super) fn trim(&mut self, now: Instant) {
        if !self.is_crowd() {
            return;
        }
        let (chosen, mut on_demand) = self.dialled();
        for (_, conn) in chosen.into_iter().skip(self.own_share()) {
            if let Some(conn) = self.conns.get_mut(&conn) {
                conn.on_demand = true;
            }
        }
        on_demand.sort_unstable_by(|a, b| b.cmp(a));
        for (rank, (used, conn)) in on_demand.into_iter().enumerate() {
            let idle = now.saturating_duration_since(used);
            if idle >= IDLE_AFTER || (rank >= ON_DEMAND && idle >= IN_USE) {
                self.close(conn, IDLE);
            }
        }
    }

    /// The connections that this host dialled and no target asks for: chosen ones with their age, oldest first, and
    /// those made on demand with their last use.
    fn dialled(&self) -> (Vec<Timed>, Vec<Timed>) {
        let aimed: BTreeSet<PeerId> = self.targets().filter_map(|(_, peer)| peer).collect();
        let free = self.conns.iter().filter(|(_, conn)| conn.dialled && !aimed.contains(&conn.peer));
        let (on_demand, chosen): (Vec<_>, Vec<_>) = free.partition(|(_, conn)| conn.on_demand);
        let mut chosen: Vec<_> = chosen.into_iter().map(|(id, conn)| (conn.since, *id)).collect();
        chosen.sort_unstable();
        (chosen, on_demand.into_iter().map(|(id, conn)| (conn.used, *id)).collect())
    }

    /// In a crowd every host chooses half of its connections and is chosen for the other half.
    fn own_share(&self) -> usize {
        let up = self.links.values().filter(|link| !link.down).count();
        Self::chosen_limit(up + 1) / 2
    }

    /// Peers that are due but over the limits wait for the mesh's own tick.
    pub(super) fn next_link_try(&self, now: Instant) -> Option<Instant> {
        if !self.discovery {
            return None;
        }
        let full = self.is_crowd() && self.chosen_missing() == 0;
        let waiting =
            self.links.iter().filter(|(peer, link)| !link.addrs.is_empty() && !self.is_busy(**peer));
        let timed = waiting.filter(|(_, link)| link.next_try > now || !(link.down || full));
        timed.map(|(_, link)| link.next_try).min()
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
                state: if link.dial.is_some() { TargetState::Connecting } else { TargetState::Waiting },
                reason: link.reason.clone(),
                next_try_s: (link.dial.is_none() && self.discovery)
                    .then(|| link.next_try.saturating_duration_since(now).as_secs_f64()),
            })
            .collect()
    }
}
