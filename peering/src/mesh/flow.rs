//! What one module decided, carried to the others and out of the mesh.

use std::net::IpAddr;

use engine::types::{IpPrefix, PeerId, PortId};
use rand::seq::IteratorRandom;

use super::{Mesh, MeshEvent, Output};
use crate::ipam::IpamOutput;
use crate::membership::Membership;
use crate::proto::{Message, Vacant};
use crate::records::Cause;
use crate::topology::Action;

impl Mesh {
    /// Carries what one module decided to the others, until nothing moves.
    pub(super) fn settle(&mut self) {
        self.drain_membership();
        loop {
            self.go_on_creating();
            self.drain_ipam();
            if !self.settle_networks() {
                break;
            }
        }
        self.answer_creators();
        self.drain_membership();
        self.drain_topology();
    }

    fn drain_membership(&mut self) {
        while let Some(event) = self.membership.poll_event() {
            self.handle_member(event);
        }
        while let Some((peer, bytes)) = self.membership.poll_datagram() {
            self.send_swim(peer, bytes);
        }
        while let Some(peer) = self.membership.poll_vacant() {
            let others = self.topology.partners().into_iter().filter(|other| *other != peer);
            others.for_each(|other| self.send(other, &Message::Vacant(Vacant { peer })));
        }
    }

    /// News go to somebody there is a connection to; only a probe is worth a new one.
    fn send_swim(&mut self, peer: PeerId, bytes: Vec<u8>) {
        if self.topology.best(peer).is_some() || Membership::is_worth_a_connection(&bytes) {
            return self.send(peer, &Message::Swim(bytes));
        }
        if Membership::is_news(&bytes) {
            let other = self.topology.partners().into_iter().choose(&mut self.rng);
            let redirected = other.and_then(|other| Some((other, self.membership.redirect(&bytes, other)?)));
            if let Some((other, bytes)) = redirected {
                self.send(other, &Message::Swim(bytes));
            }
        }
    }

    /// The farewell takes the stream: it arrives before the connection ends.
    pub(super) fn drain_farewell(&mut self) {
        while let Some((peer, bytes)) = self.membership.poll_datagram() {
            if let Some(conn) = self.topology.best(peer) {
                self.outbox.push(Output::Transmit { conn, bytes: Message::Swim(bytes).encode() });
            }
        }
    }

    fn drain_ipam(&mut self) {
        while let Some(output) = self.ipam.poll_output() {
            match output {
                IpamOutput::Send { to, message } => self.send(to, &message),
                IpamOutput::Push(table) => self.push_units(&Message::Units(table)),
                IpamOutput::Allocated { request, result } => {
                    self.outbox.push(Output::Allocated { request, result })
                }
                IpamOutput::Cluster { founded, cluster } => self.handle_cluster(founded, cluster),
                IpamOutput::Founded { network, result } => self.network_founded(network, result),
                IpamOutput::Leaves(peer) => self.let_leave(peer),
                IpamOutput::CannotLeave => self.cannot_leave(),
                IpamOutput::Readdress { port, old, new, .. } => self.readdress(port, old, new),
                IpamOutput::Reclaim(peer) => drop(self.remove(peer, Cause::Reclaimed)),
                IpamOutput::Notice { kind, message } => self.note(kind, message),
            }
        }
    }

    /// Has the daemon change the interface of an endpoint of this host.
    fn readdress(&mut self, port: PortId, old: IpAddr, new: IpPrefix) {
        let Some(endpoint) = self.store.endpoint(self.me, port) else { return };
        let kept = endpoint.addresses.iter().copied().filter(|prefix| prefix.addr != old && *prefix != new);
        let addresses = kept.chain([new]).collect();
        self.view.tell(MeshEvent::Readdress { port, addresses });
    }

    pub(super) fn drain_topology(&mut self) {
        while let Some(action) = self.topology.poll_action() {
            match action {
                Action::Dial(dial, target) => self.outbox.push(Output::Dial { dial, target }),
                Action::Tell(conn) => self.say_hello(conn),
                Action::Close(conn, reason) => {
                    self.budgets.remove(&conn);
                    self.clones.forget(conn);
                    self.outbox.push(Output::Close { conn, reason });
                }
            }
        }
    }

    /// Sends over the connection to a peer, or keeps the message until there is one.
    pub(super) fn send(&mut self, peer: PeerId, message: &Message) {
        if self.clones.oneself().is_some() {
            return;
        }
        let bytes = message.encode();
        let datagram = matches!(message, Message::Swim(_));
        match self.topology.best(peer) {
            Some(conn) => {
                self.topology.touch(self.now, conn);
                let output = if datagram {
                    Output::Datagram { conn, bytes }
                } else {
                    Output::Transmit { conn, bytes }
                };
                self.outbox.push(output);
            }
            None => {
                self.waiting.keep(self.now, peer, bytes);
                self.topology.want(self.now, peer);
            }
        }
    }

    pub(super) fn flush_waiting(&mut self, peer: PeerId) {
        let Some(conn) = self.topology.best(peer) else { return };
        for bytes in self.waiting.take(peer) {
            self.outbox.push(Output::Transmit { conn, bytes });
        }
    }
}
