//! What comes in: connections, messages, time.

use std::net::SocketAddr;
use std::time::Instant;

use engine::types::PeerId;
use rand::RngExt;

use super::budget::Budget;
use super::{ConnId, DialId, Mesh, Output, TICK, clones, greeting};
use crate::membership::Membership;
use crate::proto::Message;

impl Mesh {
    /// A connection stands and its far end proved to be `peer`; `dial` is the attempt it came from, if it was ours.
    pub fn handle_established(
        &mut self,
        now: Instant,
        conn: ConnId,
        peer: PeerId,
        dial: Option<DialId>,
        remote: SocketAddr,
    ) {
        if !self.begin(now) {
            return self.outbox.push(Output::Close { conn, reason: "stopped".to_owned() });
        }
        self.topology.handle_established(now, conn, peer, dial, remote);
        if let Some(reason) = self.barred(peer) {
            self.turn_away(conn, (peer, remote), dial, &reason);
        } else if !self.turns_away(conn, peer, dial.is_some()) {
            self.budgets.insert(conn, Budget::new(now));
            self.say_hello(conn);
        }
        if peer == self.me {
            // One target less is unresolved: a founding may wait for just that.
            self.refresh_own_host();
        }
        self.settle();
    }

    /// The shell found addresses for the name of an attempt, and goes on to connect.
    pub fn handle_resolved(&mut self, dial: DialId) {
        self.topology.handle_resolved(dial);
    }

    /// One message came on the stream of a connection.
    pub fn handle_message(&mut self, now: Instant, conn: ConnId, bytes: &[u8]) {
        if self.begin(now) {
            self.receive(conn, bytes);
            self.settle();
        }
    }

    /// One datagram came on a connection.
    pub fn handle_datagram(&mut self, now: Instant, conn: ConnId, bytes: &[u8]) {
        self.handle_message(now, conn, bytes);
    }

    /// The far end of a connection goes on from another address.
    pub fn handle_moved(&mut self, now: Instant, conn: ConnId, remote: SocketAddr) {
        if self.begin(now)
            && let Some(peer) = self.topology.handle_moved(conn, remote)
        {
            self.seen.insert(peer, remote);
            self.show_again_at_its_address(peer);
            self.settle();
        }
    }

    /// The machine at this address said that nobody listens there. Anybody may say so in its name: it is a reason to ask who
    /// is connected from there, and no more.
    pub fn handle_vacant(&mut self, now: Instant, remote: SocketAddr) {
        if self.begin(now) {
            let peers = self.topology.peers_at(remote);
            peers.into_iter().for_each(|peer| self.membership.handle_vacant(now, peer));
            self.settle();
        }
    }

    /// A connection ended, whoever closed it.
    pub fn handle_closed(&mut self, now: Instant, conn: ConnId, reason: &str) {
        if !self.begin(now) {
            return;
        }
        self.budgets.remove(&conn);
        let peer = self.topology.far_end(conn).map(|(peer, ..)| peer);
        match peer {
            Some(peer) if peer == self.me => self.handle_own_closed(conn, reason),
            Some(peer) if greeting::is_refusal(reason) => {
                self.topology.handle_refused(now, conn, reason);
                self.count_bar(reason);
                self.note_refusal(peer, reason);
                if clones::is_clone(reason) {
                    self.become_clone(reason);
                }
            }
            Some(peer) => {
                if self.topology.handle_closed(now, conn, reason) {
                    self.membership.lost(self.now, peer);
                }
                self.forget_where_it_was(peer, reason);
            }
            None => {}
        }
        self.forget_trials_of(conn);
        self.settle();
    }

    /// An attempt to connect failed.
    pub fn handle_dial_failed(&mut self, now: Instant, dial: DialId, reason: &str) {
        if self.begin(now) {
            self.topology.handle_dial_failed(now, dial, reason);
            self.settle();
        }
    }

    /// The moment told by [`Self::poll_timeout`] has come, or passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if !self.begin(now) {
            return;
        }
        self.membership.handle_timeout(now);
        self.judge_newcomers();
        self.ipam.handle_timeout(now);
        if self.next_tick <= now {
            self.next_tick = now + TICK.mul_f64(self.rng.random_range(0.9..=1.1));
            self.tick();
        }
        self.topology.handle_timeout(now);
        self.settle();
    }

    fn receive(&mut self, conn: ConnId, bytes: &[u8]) {
        let Some((peer, _, ready)) = self.topology.far_end(conn) else { return };
        let paid = self.budgets.get_mut(&conn).is_some_and(|budget| budget.pay(self.now, bytes.len()));
        if !paid {
            self.topology.close(conn, "too much at once");
            return;
        }
        match Message::decode(bytes) {
            Ok(Message::Hello(hello)) => self.handle_hello(conn, peer, ready, &hello),
            Ok(message) if ready && self.clones.oneself().is_none() => self.dispatch(conn, peer, message),
            // A host that waits for the second hello of a founder that gives way hears nothing else.
            Ok(_) => {}
            Err(_) => self.malformed += 1,
        }
    }

    fn dispatch(&mut self, conn: ConnId, peer: PeerId, message: Message) {
        self.topology.touch(self.now, conn);
        self.membership.heard(self.now, peer);
        match message {
            Message::Swim(bytes) => {
                if let Some(question) = Membership::answer(&bytes) {
                    self.refuse_clones_of(conn, peer, question);
                }
                self.membership.handle_datagram(self.now, peer, &bytes);
            }
            Message::CloneSeen(seen) => self.handle_clone_seen(seen),
            Message::Vacant(vacant) if self.topology.best(vacant.peer).is_some() => {
                self.membership.handle_witness(self.now, peer, vacant.peer);
            }
            Message::Vacant(_) => {}
            Message::Members(members) => self.handle_members(conn, &members),
            Message::Summary(summary) => self.handle_summary(conn, summary),
            Message::Ranges(ranges) => self.handle_ranges(conn, &ranges),
            Message::Digest(digest) => self.handle_digest(conn, &digest),
            Message::Confirm(confirm) => self.handle_confirm(conn, peer, confirm),
            Message::Confirmed(confirmed) => self.handle_confirmed(conn, peer, confirmed),
            Message::Pull(slots) => self.handle_pull(conn, &slots),
            Message::Push(records) | Message::Records(records) => self.handle_records(conn, peer, &records),
            Message::SecretRequest(name) => self.handle_secret_request(conn, peer, name),
            Message::SecretAnswer(secret) => self.handle_secret_answer(secret),
            Message::Hello(_) | Message::Unknown { .. } => {}
            other => self.ipam.handle_message(self.now, peer, other),
        }
    }
}
