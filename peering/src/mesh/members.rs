//! Who is alive, compared with others: repairs what the news of membership told too few, and makes a mass start short.

use std::time::Instant;

use super::{ConnId, Mesh};
use crate::proto::{Members, Message, Told};

/// For so many ticks after a change members are compared at every one, later at each of this many.
const RESTLESS: u32 = 10;
const AT_REST: u32 = 4;

/// Since when nothing has changed.
#[derive(Default)]
pub(super) struct Rest {
    hash: u64,
    ticks: u32,
    /// When another host was last found to know the same members.
    agreed: Option<Instant>,
    /// When another host was last found to hold the same records.
    compared: Option<Instant>,
}

impl Rest {
    /// Counts a tick. True: members are to be compared.
    fn is_due(&mut self, hash: u64) -> bool {
        self.ticks = if hash == self.hash { self.ticks.saturating_add(1) } else { 0 };
        self.hash = hash;
        self.ticks < RESTLESS || self.ticks.is_multiple_of(AT_REST)
    }

    /// True when another host knew the same members at some time since `since`.
    pub(super) fn has_agreed(&self, since: Instant) -> bool {
        self.agreed.is_some_and(|at| at >= since)
    }

    /// Another host holds the same records.
    pub(super) fn note_compared(&mut self, now: Instant) {
        self.compared = Some(now);
    }

    /// True when another host held the same records at some time since `since`.
    pub(super) fn has_compared_since(&self, since: Instant) -> bool {
        self.compared.is_some_and(|at| at >= since)
    }

    /// True when another host held the same records at some time since the start.
    pub(super) fn has_compared(&self) -> bool {
        self.compared.is_some()
    }
}

impl Mesh {
    /// Starts a comparison, now and then.
    pub(super) fn compare_members(&mut self) {
        if !self.rest.is_due(self.membership.hash()) {
            return;
        }
        if let Some(conn) = self.anybody() {
            self.tell_members(conn, Told::Hash);
        }
    }

    /// A hash that differs is answered with all that is known; who gets that and still knows more has the last word.
    pub(super) fn handle_members(&mut self, conn: ConnId, theirs: &Members) {
        if theirs.hash == self.membership.hash() {
            self.rest.agreed = Some(self.now);
            return;
        }
        if !self.pay_repair(conn) {
            return;
        }
        if theirs.told == Told::Hash {
            return self.tell_members(conn, Told::All);
        }
        self.membership.merge(self.now, &theirs.members);
        if theirs.hash == self.membership.hash() {
            self.rest.agreed = Some(self.now);
        } else if theirs.told == Told::All {
            self.tell_members(conn, Told::Last);
        }
    }

    pub(super) fn tell_members(&mut self, conn: ConnId, told: Told) {
        let members = if told == Told::Hash { Vec::new() } else { self.membership.members() };
        let message = Message::Members(Members { hash: self.membership.hash(), told, members });
        self.repair_with(conn, vec![message]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_compared_often_after_a_change_and_seldom_at_rest() {
        let mut rest = Rest::default();
        let due = |rest: &mut Rest, hash: u64, ticks: usize| (0..ticks).filter(|_| rest.is_due(hash)).count();
        assert_eq!(due(&mut rest, 1, 10), 10);
        assert_eq!(due(&mut rest, 1, 40), 10);
        assert_eq!(due(&mut rest, 2, 10), 10);
    }
}
