//! Who is connected to whom: targets, chosen connections, connections on demand, and one connection per peer.
//!
//! Two hosts that dial each other at the same time settle on one connection: the host with the lower id judges, and
//! keeps its own attempt; an attempt that comes later than that shows that the older connection is dead for the
//! other side, and replaces it. A new boot nonce replaces at once, on both sides.

mod backoff;
mod link;
mod oneself;
mod target;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use engine::types::PeerId;
use rand::rngs::StdRng;

use crate::mesh::{ConnId, DialId, DialTarget, Target, TargetState, TargetStatus};
use crate::proto::Purpose;
use link::Link;
pub(crate) use oneself::ONESELF;
use target::Aim;

/// Connections made within this time of each other were dialled at the same time.
const SIMULTANEOUS: Duration = Duration::from_secs(3);

/// A connection that lasted so long was a success: the next failure starts the back-off anew.
const SETTLED_AFTER: Duration = Duration::from_secs(5);

/// What a connection that nobody needs any more is closed with.
const IDLE: &str = "idle";

/// What a connection over the limit of one side is closed with: there are others to choose.
const FULL: &str = "full";

/// What a connection ends with at a host whose address is not there any more.
pub(crate) const MOVED: &str = "this host has moved";

/// With fewer connections by choice all connections serve to spread news. Where so many others are up, one by choice
/// suffices: whoever has just come will soon have more, and a host that a thousand were told would get the news of all
/// of them until then.
const PARTNERS_MIN: usize = 4;
const MANY: usize = 8;

/// The links are looked through at least this often.
const LOOK: Duration = Duration::from_secs(1);

/// In a crowd the neighbours on the ring are looked for so often: while many hosts become known they change.
const RING: Duration = Duration::from_secs(1);

/// The far end must have greeted by then.
const GREETING_MAX: Duration = Duration::from_secs(5);

/// No honest peer has more connections to this host at once.
const CONNS_PER_PEER: usize = 4;

/// What the shell must do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Connect.
    Dial(DialId, DialTarget),
    /// Close a connection; it is forgotten here already.
    Close(ConnId, String),
    /// Say hello again: what this side wants the connection for has changed.
    Tell(ConnId),
}

/// The connections of this host, and the attempts at more.
pub struct Topology {
    me: PeerId,
    rng: StdRng,
    discovery: bool,
    targets: BTreeMap<Target, Aim>,
    links: BTreeMap<PeerId, Link>,
    conns: BTreeMap<ConnId, Conn>,
    dials: BTreeMap<DialId, Dial>,
    dial_count: u64,
    /// When the links are looked through again.
    look_at: Instant,
    /// When the neighbours on the ring are looked for again.
    ring_at: Instant,
    /// This host is a clone: nobody needs its connections.
    waiting: bool,
    actions: VecDeque<Action>,
}

#[derive(Debug)]
struct Conn {
    peer: PeerId,
    remote: SocketAddr,
    dialled: bool,
    /// What it is for to this side, and to the other.
    wish: Purpose,
    theirs: Purpose,
    /// The target that led here, of an attempt at one.
    named: Option<Target>,
    since: Instant,
    used: Instant,
    /// The far end's, once it has greeted and both agreed to talk.
    nonce: Option<u64>,
}

struct Dial {
    target: DialTarget,
    purpose: Purpose,
}

impl Topology {
    /// Starts without connections; the targets are dialled by the first [`Self::handle_timeout`].
    pub fn new(me: PeerId, discovery: bool, targets: Vec<Target>, rng: StdRng, now: Instant) -> Self {
        Topology {
            me,
            rng,
            discovery,
            targets: targets.into_iter().map(|target| (target, Aim::new(now))).collect(),
            links: BTreeMap::new(),
            conns: BTreeMap::new(),
            dials: BTreeMap::new(),
            dial_count: 0,
            look_at: now,
            ring_at: now + RING,
            waiting: false,
            actions: VecDeque::new(),
        }
    }

    /// A connection to `peer` stands.
    pub fn handle_established(
        &mut self,
        now: Instant,
        conn: ConnId,
        peer: PeerId,
        dial: Option<DialId>,
        remote: SocketAddr,
    ) {
        let ours = dial.and_then(|dial| self.dials.remove(&dial).map(|made| (dial, made)));
        let named = self.targets().any(|(_, answered)| answered == Some(peer));
        let wish = match &ours {
            Some((_, made)) => made.purpose,
            None if named => Purpose::Target,
            None => Purpose::Demand,
        };
        let (dialled, theirs) = (dial.is_some(), Purpose::Demand);
        let named = ours.as_ref().and_then(|(_, made)| match &made.target {
            DialTarget::Named(target) => Some(target.clone()),
            DialTarget::Addr { .. } => None,
        });
        let entry = Conn { peer, remote, dialled, wish, theirs, named, since: now, used: now, nonce: None };
        self.conns.insert(conn, entry);
        if let Some((dial, made)) = ours {
            self.dial_answered(now, dial, &made.target, peer);
        }
        // Nobody else has the key of this host; it may be named often.
        if peer != self.me {
            self.cap_connections(peer);
        }
    }

    /// Both sides of a connection agreed to talk; the far end runs under `nonce`, and wants the connection for `theirs`.
    /// False: there is no room for it; it is closed again.
    pub fn handle_greeted(&mut self, now: Instant, conn: ConnId, nonce: u64, theirs: Purpose) -> bool {
        let Some(entry) = self.conns.get_mut(&conn) else { return false };
        (entry.nonce, entry.theirs) = (Some(nonce), theirs);
        let peer = entry.peer;
        if let Some(link) = self.links.get_mut(&peer) {
            link.reason = None;
        }
        self.replace_older_starts(peer, nonce);
        self.judge(peer);
        self.follow_targets(now);
        self.make_room(conn);
        self.conns.contains_key(&conn)
    }

    /// The far end of a connection that stands wants it for something else from now on.
    pub fn handle_wish(&mut self, conn: ConnId, theirs: Purpose) {
        if let Some(entry) = self.conns.get_mut(&conn) {
            entry.theirs = theirs;
            self.make_room(conn);
        }
    }

    /// A connection to an earlier or other start of `peer`, one that does not run under `nonce`.
    pub fn earlier_start(&self, peer: PeerId, nonce: u64) -> Option<ConnId> {
        let others = self.earlier_starts(peer, nonce);
        others.max_by_key(|(id, conn)| (conn.since, *id)).map(|(id, _)| id)
    }

    fn earlier_starts(&self, peer: PeerId, nonce: u64) -> impl Iterator<Item = (ConnId, &Conn)> {
        let all = self.conns.iter().map(|(id, conn)| (*id, conn));
        all.filter(move |(_, conn)| conn.peer == peer && conn.nonce.is_some_and(|other| other != nonce))
    }

    /// True when a connection comes from where an earlier start of `peer` is: no two hosts that live have one address and port,
    /// nor do two behind one translator of addresses.
    pub fn is_where_it_was(&self, conn: ConnId, peer: PeerId, nonce: u64) -> bool {
        let Some(remote) = self.conns.get(&conn).map(|conn| conn.remote) else { return false };
        self.earlier_starts(peer, nonce).any(|(_, older)| older.remote == remote)
    }

    /// True when some connection has stood for so long.
    pub fn has_stood(&self, now: Instant, time: Duration) -> bool {
        self.conns
            .values()
            .any(|conn| conn.nonce.is_some() && now.saturating_duration_since(conn.since) >= time)
    }

    /// What a connection is for: what either side needs it for.
    pub fn purpose(&self, conn: ConnId) -> Purpose {
        self.conns.get(&conn).map_or(Purpose::Demand, Conn::purpose)
    }

    /// What this side wants a connection for.
    pub fn wish(&self, conn: ConnId) -> Purpose {
        self.conns.get(&conn).map_or(Purpose::Demand, |conn| conn.wish)
    }

    /// This side does not want to talk to the far end of a connection: the reason is shown and told, the next attempt
    /// comes late.
    pub fn refuse(&mut self, now: Instant, conn: ConnId, reason: &str) {
        let Some(peer) = self.conns.get(&conn).map(|conn| conn.peer) else { return };
        self.close(conn, reason);
        self.refused(now, peer, reason);
    }

    /// The far end closed a connection and said that it does not want to talk: as [`Self::refuse`].
    pub fn handle_refused(&mut self, now: Instant, conn: ConnId, reason: &str) {
        if let Some(gone) = self.conns.remove(&conn) {
            self.refused(now, gone.peer, reason);
        }
    }

    /// The far end of a connection goes on from another address; the peer, if both sides agreed to talk.
    pub fn handle_moved(&mut self, conn: ConnId, remote: SocketAddr) -> Option<PeerId> {
        let entry = self.conns.get_mut(&conn)?;
        entry.remote = remote;
        entry.nonce.map(|_| entry.peer)
    }

    /// A connection ended. True: it was the last one to that peer, and neither side gave it up.
    pub fn handle_closed(&mut self, now: Instant, conn: ConnId, reason: &str) -> bool {
        let Some(gone) = self.conns.remove(&conn) else { return false };
        if self.best(gone.peer).is_some() {
            return false;
        }
        self.link_lost(now, gone.peer, now.saturating_duration_since(gone.since), reason);
        self.targets_lost(now, gone.peer, reason);
        gone.nonce.is_some() && ![IDLE, FULL, MOVED].contains(&reason)
    }

    /// An attempt failed.
    pub fn handle_dial_failed(&mut self, now: Instant, dial: DialId, reason: &str) {
        let Some(made) = self.dials.remove(&dial) else { return };
        match made.target {
            DialTarget::Named(target) => self.target_failed(now, &target, reason),
            DialTarget::Addr { peer, .. } => self.link_failed(now, peer, reason),
        }
    }

    /// An attempt reached `peer`, and one side did not let the other in: that may change as soon as people change it.
    pub fn handle_dial_refused(&mut self, now: Instant, dial: DialId, peer: PeerId, reason: &str) {
        let Some(made) = self.dials.remove(&dial) else { return };
        match made.target {
            DialTarget::Named(target) => self.target_refused(now, &target, peer, reason),
            DialTarget::Addr { peer, .. } => {
                self.link_failed(now, peer, reason);
                self.links.entry(peer).and_modify(|link| link.refused = true);
            }
        }
    }

    /// Dials what is due, closes what is idle or silent.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.close_silent(now);
        self.follow_targets(now);
        self.dial_targets(now);
        if self.look_at <= now {
            self.look_at = now + self.look();
            self.trim(now);
            self.choose(now);
        }
    }

    /// When [`Self::handle_timeout`] wants to be called; besides, it must be called about each second.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let silent =
            self.conns.values().filter(|conn| conn.nonce.is_none()).map(|conn| conn.since + GREETING_MAX);
        let links = self.discovery.then_some(self.look_at).filter(|_| !self.links.is_empty());
        [self.next_target_try(), links, silent.min()].into_iter().flatten().min()
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The connection on which to talk to `peer`, if there is one.
    pub fn best(&self, peer: PeerId) -> Option<ConnId> {
        let ready = self.conns.iter().filter(|(_, conn)| conn.is_ready_to(peer));
        ready.max_by_key(|(id, conn)| (conn.since, **id)).map(|(id, _)| *id)
    }

    /// Notes that a connection is of use.
    pub fn touch(&mut self, now: Instant, conn: ConnId) {
        if let Some(conn) = self.conns.get_mut(&conn) {
            conn.used = now;
        }
    }

    /// The far end of a connection, and whether both sides agreed to talk.
    pub fn far_end(&self, conn: ConnId) -> Option<(PeerId, SocketAddr, bool)> {
        self.conns.get(&conn).map(|conn| (conn.peer, conn.remote, conn.nonce.is_some()))
    }

    /// The peers that can be talked to at once, in order.
    pub fn connected(&self) -> Vec<PeerId> {
        let mut peers: Vec<PeerId> =
            self.conns.values().filter(|conn| conn.nonce.is_some()).map(|conn| conn.peer).collect();
        peers.sort_unstable();
        peers.dedup();
        peers
    }

    /// The peers whose connection in use goes to this address.
    pub fn peers_at(&self, remote: SocketAddr) -> Vec<PeerId> {
        let there = self.conns.iter().filter(|(_, conn)| conn.remote == remote && conn.nonce.is_some());
        there.filter(|(id, conn)| self.best(conn.peer) == Some(**id)).map(|(_, conn)| conn.peer).collect()
    }

    /// The peers to tell news and to compare with: in a crowd those connected by choice, so that a host that everybody
    /// names as a target is not everybody's partner.
    pub fn partners(&self) -> Vec<PeerId> {
        let spread = self.conns.values().filter(|conn| conn.nonce.is_some() && conn.is_chosen());
        let mut peers: Vec<PeerId> = spread.map(|conn| conn.peer).collect();
        let enough = if self.up() < MANY { PARTNERS_MIN } else { 1 };
        if peers.len() < enough {
            return self.connected();
        }
        peers.sort_unstable();
        peers.dedup();
        peers
    }

    /// The connections to `peer`, agreed upon or not.
    pub fn connections_to(&self, peer: PeerId) -> Vec<ConnId> {
        self.conns.iter().filter(|(_, conn)| conn.peer == peer).map(|(id, _)| *id).collect()
    }

    /// How many connections there are to `peer`, agreed upon or not.
    pub fn connection_count(&self, peer: PeerId) -> usize {
        self.conns.values().filter(|conn| conn.peer == peer).count()
    }

    /// Closes everything.
    pub fn close_all(&mut self, reason: &str) {
        let all: Vec<ConnId> = self.conns.keys().copied().collect();
        for conn in all {
            self.close(conn, reason);
        }
        self.targets.clear();
        self.links.clear();
    }

    /// For `status`: connections, then the attempts at known peers.
    pub fn connection_status(&self, now: Instant) -> Vec<TargetStatus> {
        let conns = self.conns.values().map(Conn::status);
        let mut all: Vec<TargetStatus> = conns.chain(self.link_status(now)).collect();
        all.sort_by(|a, b| (&a.target, &a.peer_id).cmp(&(&b.target, &b.peer_id)));
        all
    }

    fn dial(&mut self, target: DialTarget, purpose: Purpose) -> DialId {
        self.dial_count += 1;
        let dial = DialId(self.dial_count);
        self.dials.insert(dial, Dial { target: target.clone(), purpose });
        self.actions.push_back(Action::Dial(dial, target));
        dial
    }

    fn dial_answered(&mut self, now: Instant, dial: DialId, target: &DialTarget, peer: PeerId) {
        match target {
            DialTarget::Named(target) => self.answered(now, target, peer),
            DialTarget::Addr { peer: meant, .. } => {
                let link = self.links.get_mut(meant).filter(|link| link.dial == Some(dial));
                link.into_iter().for_each(|link| link.dial = None);
            }
        }
    }

    /// Ends a connection.
    pub fn close(&mut self, conn: ConnId, reason: &str) {
        if self.conns.remove(&conn).is_some() {
            self.actions.push_back(Action::Close(conn, reason.to_owned()));
        }
    }

    fn refused(&mut self, now: Instant, peer: PeerId, reason: &str) {
        self.link_refused(now, peer, reason);
        self.targets_refused(now, peer, reason);
    }

    fn replace_older_starts(&mut self, peer: PeerId, nonce: u64) {
        let old: Vec<ConnId> = self.earlier_starts(peer, nonce).map(|(id, _)| id).collect();
        for conn in old {
            self.close(conn, "replaced");
        }
    }

    /// The host with the lower id closes what is too much.
    fn judge(&mut self, peer: PeerId) {
        if self.me > peer {
            return;
        }
        let ready: Vec<ConnId> =
            self.conns.iter().filter(|(_, conn)| conn.is_ready_to(peer)).map(|(id, _)| *id).collect();
        let Some(newest) = ready.iter().filter_map(|id| self.conns.get(id)).map(|conn| conn.since).max()
        else {
            return;
        };
        let rank = |id: &ConnId| {
            let conn = self.conns.get(id)?;
            let recent = newest.saturating_duration_since(conn.since) < SIMULTANEOUS;
            Some((recent, recent && conn.dialled, conn.since, *id))
        };
        let kept = ready.iter().max_by_key(|id| rank(id)).copied();
        for conn in ready.into_iter().filter(|conn| Some(*conn) != kept) {
            self.close(conn, "duplicate");
        }
    }

    fn cap_connections(&mut self, peer: PeerId) {
        while self.connection_count(peer) > CONNS_PER_PEER {
            let oldest =
                self.conns.iter().filter(|(_, conn)| conn.peer == peer).min_by_key(|(_, conn)| conn.since);
            let Some(conn) = oldest.map(|(id, _)| *id) else { return };
            self.close(conn, "too many connections");
        }
    }

    fn close_silent(&mut self, now: Instant) {
        let silent =
            self.conns.iter().filter(|(_, conn)| conn.nonce.is_none() && conn.since + GREETING_MAX <= now);
        let silent: Vec<(ConnId, PeerId)> = silent.map(|(id, conn)| (*id, conn.peer)).collect();
        for (conn, peer) in silent {
            self.close(conn, "no greeting");
            if self.best(peer).is_none() {
                self.link_failed(now, peer, "no greeting");
                self.targets_lost(now, peer, "no greeting");
            }
        }
    }
}

impl Conn {
    fn purpose(&self) -> Purpose {
        self.wish.max(self.theirs)
    }

    /// One side at least chose it.
    fn is_chosen(&self) -> bool {
        self.wish == Purpose::Chosen || self.theirs == Purpose::Chosen
    }

    fn is_ready_to(&self, peer: PeerId) -> bool {
        self.peer == peer && self.nonce.is_some()
    }

    fn status(&self) -> TargetStatus {
        TargetStatus {
            target: self.remote.to_string(),
            peer_id: Some(self.peer.to_string()),
            state: if self.nonce.is_some() { TargetState::Established } else { TargetState::Connecting },
            reason: None,
            next_try_s: None,
        }
    }
}

#[cfg(test)]
mod tests;
