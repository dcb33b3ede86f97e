//! The first words on a connection: versions, clusters, and whether to talk at all.

use engine::types::PeerId;

use super::clones::is_clone;
use super::gate::bar_of;
use super::{ConnId, Mesh, PeerState};
use crate::ipam::Meeting;
use crate::proto::{Hello, MAX_VERSION, MIN_VERSION, Message, Purpose, Told};
use crate::records::ClusterId;

/// How the reason begins when two releases do not understand each other.
const NO_VERSION: &str = "no common protocol version";

/// Peers of which something small is remembered; anybody may come with ever new ids.
const MAX_REMEMBERED: usize = 8192;

/// True for words with which a host closes a connection it will not want a moment later either.
pub(super) fn is_refusal(reason: &str) -> bool {
    reason.starts_with(NO_VERSION) || is_clone(reason) || bar_of(reason).is_some()
}

impl Mesh {
    pub(super) fn say_hello(&mut self, conn: ConnId) {
        let hello = Hello {
            min_version: MIN_VERSION,
            max_version: MAX_VERSION,
            cluster: self.ipam.cluster(),
            cedes: self.ipam.cedes(),
            boot_nonce: self.config.boot_nonce,
            nickname: self.config.nickname.clone(),
            purpose: self.topology.wish(conn),
            standing_ms: self.standing_for(conn),
        };
        self.outbox.greet(conn, Message::Hello(hello).encode());
    }

    /// The cluster of this host changed: everybody hears it.
    pub(super) fn say_hello_again(&mut self) {
        let conns: Vec<ConnId> = self.budgets.keys().copied().collect();
        for conn in conns {
            self.say_hello(conn);
        }
    }

    pub(super) fn handle_hello(&mut self, conn: ConnId, peer: PeerId, ready: bool, hello: &Hello) {
        if peer == self.me {
            return self.meet_oneself(conn, hello);
        }
        if let Some(reason) = self.is_in_the_way(peer, hello) {
            return self.topology.close(conn, &reason);
        }
        if hello.max_version < MIN_VERSION || hello.min_version > MAX_VERSION {
            let reason = format!(
                "{NO_VERSION}: {} speaks {MIN_VERSION} to {MAX_VERSION}, {} speaks {} to {}",
                self.config.nickname,
                printable(&hello.nickname),
                hello.min_version,
                hello.max_version
            );
            return self.refuse(conn, peer, &reason);
        }
        match self.ipam.meet(peer, hello.cluster, hello.cedes) {
            Meeting::Same => {}
            Meeting::GiveWay => self.ipam.give_way(self.now),
            Meeting::Await => return,
            Meeting::Merge => {
                self.note_other_cluster(hello.cluster, ready);
                if !ready {
                    // If this host's first hello said that it cedes, the other side waits for another one.
                    self.say_hello(conn);
                }
            }
        }
        if ready {
            self.topology.handle_wish(conn, hello.purpose);
        } else if self.is_the_only_one(conn, peer, hello) {
            self.welcome(conn, peer, hello);
        }
    }

    /// Told by the host whose cluster stays; the other one tells that it goes over.
    fn note_other_cluster(&mut self, theirs: Option<ClusterId>, ready: bool) {
        let stays = theirs.zip(self.ipam.cluster()).filter(|(theirs, ours)| ours < theirs && !ready);
        if let Some((theirs, ours)) = stays {
            self.note(
                "clusters_merged",
                format!("cluster {theirs} was met and becomes part of cluster {ours}"),
            );
        }
    }

    fn refuse(&mut self, conn: ConnId, peer: PeerId, reason: &str) {
        self.budgets.remove(&conn);
        self.topology.refuse(self.now, conn, reason);
        self.note_refusal(peer, reason);
    }

    /// Told once per peer, until there is a connection again.
    pub(super) fn note_refusal(&mut self, peer: PeerId, reason: &str) {
        if self.refused.len() >= MAX_REMEMBERED {
            self.refused.clear();
        }
        if self.refused.insert(peer) {
            self.note("peer_refused", format!("no peering with {peer}: {reason}"));
        }
    }

    pub(super) fn welcome(&mut self, conn: ConnId, peer: PeerId, hello: &Hello) {
        let stays = self.topology.handle_greeted(self.now, conn, hello.boot_nonce, hello.purpose);
        self.refused.remove(&peer);
        self.refusals.forget(peer);
        let Some((_, remote, _)) = self.topology.far_end(conn).filter(|_| stays) else { return };
        if self.seen.len() >= MAX_REMEMBERED {
            self.seen.clear();
        }
        self.seen.insert(peer, remote);
        self.refresh_own_host();
        self.begin_exchange(conn, peer);
        self.flush_waiting(peer);
        self.show_again_at_its_address(peer);
    }

    /// The host was seen somewhere.
    pub(super) fn show_again_at_its_address(&mut self, peer: PeerId) {
        if let Some(host) = self.store.host(peer).cloned() {
            self.apply_host(peer, &host);
        }
    }

    /// What two hosts tell each other first. A connection for a single probe between hosts that know each other has
    /// nothing but that.
    pub(super) fn begin_exchange(&mut self, conn: ConnId, peer: PeerId) {
        let lasts = self.topology.purpose(conn) != Purpose::Demand;
        let up = self.membership.state(peer) != PeerState::Down && self.store.host(peer).is_some();
        if (lasts || !up) && self.clones.oneself().is_none() {
            self.introduce(conn, peer);
            self.membership.announce(self.now, peer);
            if self.me < peer {
                self.tell_members(conn, Told::Hash);
            }
        }
    }
}

/// A nickname from outside, fit for a terminal.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(64).collect()
}
