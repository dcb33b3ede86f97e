//! Who is alive, compared with others: repairs what the news of membership told too few, and makes a mass start short.

use rand::seq::IteratorRandom;

use super::{ConnId, Mesh};
use crate::proto::{Members, Message, Told};

impl Mesh {
    /// Starts a comparison with a random partner.
    pub(super) fn compare_members(&mut self) {
        let partner = self.topology.partners().into_iter().choose(&mut self.rng);
        if let Some(conn) = partner.and_then(|peer| self.topology.best(peer)) {
            self.tell_members(conn, Told::Hash);
        }
    }

    /// A hash that differs is answered with all that is known; who gets that and still knows more has the last word.
    pub(super) fn handle_members(&mut self, conn: ConnId, theirs: &Members) {
        if theirs.hash == self.membership.hash() || !self.pay_repair(conn) {
            return;
        }
        if theirs.told == Told::Hash {
            return self.tell_members(conn, Told::All);
        }
        self.membership.merge(self.now, &theirs.members);
        if theirs.told == Told::All && theirs.hash != self.membership.hash() {
            self.tell_members(conn, Told::Last);
        }
    }

    pub(super) fn tell_members(&mut self, conn: ConnId, told: Told) {
        let members = if told == Told::Hash { Vec::new() } else { self.membership.members() };
        let message = Message::Members(Members { hash: self.membership.hash(), told, members });
        self.outbox.push_repairable(conn, message.encode());
    }
}
