//! Hosts at whose address nobody listens, as their machines say: a daemon that was killed, most likely.
//!
//! The word for it (ICMP port unreachable) can be forged, and firewalls say it too. So it only has the host asked at
//! once; it takes the place of a long suspicion where two questions went without an answer after it, and others say the same.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use engine::types::PeerId;
use foca::Timer;

use super::Membership;

/// So many others must say the same, or all there are.
const WITNESSES: usize = 2;

/// A machine says so at each packet: it counts again after this time.
const AGAIN: Duration = Duration::from_millis(250);

/// What nobody has spoken of for so long is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(10);

/// The hosts of which it was said, here or by others, and that were not heard since.
#[derive(Default)]
pub(super) struct Vacancies {
    hosts: BTreeMap<PeerId, Vacancy>,
    /// To be told to others.
    news: Vec<PeerId>,
}

struct Vacancy {
    /// When somebody spoke of it last.
    at: Instant,
    /// When its machine did, to this host.
    said: Option<Instant>,
    /// Its machine said so to this host, and nothing was heard of it since.
    seen: bool,
    /// It was told to others.
    told: bool,
    /// Two questions went without an answer.
    silent: bool,
    witnesses: BTreeSet<PeerId>,
}

impl Vacancies {
    /// The machine of `peer` said so. False: it did just before.
    fn note(&mut self, now: Instant, peer: PeerId) -> bool {
        let vacancy = self.of(now, peer);
        if vacancy.said.is_some_and(|said| now.saturating_duration_since(said) < AGAIN) {
            return false;
        }
        (vacancy.at, vacancy.said, vacancy.seen) = (now, Some(now), true);
        true
    }

    /// Another host says so of `peer`.
    fn add_witness(&mut self, now: Instant, peer: PeerId, witness: PeerId) {
        let vacancy = self.of(now, peer);
        vacancy.at = now;
        vacancy.witnesses.insert(witness);
    }

    fn of(&mut self, now: Instant, peer: PeerId) -> &mut Vacancy {
        let new = || Vacancy {
            at: now,
            said: None,
            seen: false,
            told: false,
            silent: false,
            witnesses: BTreeSet::new(),
        };
        self.hosts.entry(peer).or_insert_with(new)
    }

    /// Something came from `peer`: whatever was said of it is over.
    pub(super) fn heard(&mut self, peer: PeerId) {
        if let Some(vacancy) = self.hosts.get_mut(&peer) {
            (vacancy.seen, vacancy.told, vacancy.silent) = (false, false, false);
            vacancy.witnesses.clear();
        }
    }

    /// Two questions to `peer` went without an answer.
    pub(super) fn silent(&mut self, peer: PeerId) {
        if let Some(vacancy) = self.hosts.get_mut(&peer).filter(|vacancy| vacancy.seen) {
            vacancy.silent = true;
        }
    }

    /// Forgets what is of no use any more.
    pub(super) fn tidy(&mut self, now: Instant) {
        self.hosts.retain(|_, vacancy| now.saturating_duration_since(vacancy.at) < FORGOTTEN);
    }

    fn is_seen(&self, peer: PeerId) -> bool {
        self.hosts.get(&peer).is_some_and(|vacancy| vacancy.seen)
    }

    /// True the first time that there is something to tell of `peer`.
    fn is_news(&mut self, peer: PeerId) -> bool {
        let vacancy = self.hosts.get_mut(&peer).filter(|vacancy| vacancy.seen);
        vacancy.is_some_and(|vacancy| !std::mem::replace(&mut vacancy.told, true))
    }

    /// True when `peer` is silent, and of `others`, who are alive, enough say the same as its machine.
    fn is_sure(&self, peer: PeerId, others: &[PeerId]) -> bool {
        let Some(vacancy) = self.hosts.get(&peer).filter(|vacancy| vacancy.seen && vacancy.silent) else {
            return false;
        };
        // Several may be killed at once: who is as silent itself says nothing.
        let able = others.iter().filter(|other| **other != peer && !self.is_seen(**other));
        let (agree, differ): (Vec<&PeerId>, Vec<&PeerId>) =
            able.partition(|other| vacancy.witnesses.contains(other));
        agree.len() >= WITNESSES || differ.is_empty()
    }
}

impl Membership {
    /// The machine of `peer` said that nobody listens there: it is asked at once.
    pub fn handle_vacant(&mut self, now: Instant, peer: PeerId) {
        let member = self.foca.iter_members().any(|member| member.id().peer == peer.0);
        if member && !self.left && self.vacancies.note(now, peer) {
            self.watch.sign(peer);
            self.watch_neighbours(now);
        }
    }

    /// `witness` says so of `peer`, to which this host is connected too: this host asks for itself.
    pub fn handle_witness(&mut self, now: Instant, witness: PeerId, peer: PeerId) {
        let member = self.foca.iter_members().any(|member| member.id().peer == peer.0);
        if member && !self.left && witness != peer {
            self.vacancies.add_witness(now, peer, witness);
            if !self.bury_vacant(now, peer) {
                self.watch.sign(peer);
                self.watch_neighbours(now);
            }
        }
    }

    /// A host that is to be told to others as silent, with nobody listening there.
    pub fn poll_vacant(&mut self) -> Option<PeerId> {
        self.vacancies.news.pop()
    }

    /// A question to `peer` went without an answer: if its machine says why, it is suspected, and others are told.
    pub(super) fn testify(&mut self, now: Instant, peer: PeerId) {
        if self.vacancies.is_news(peer) {
            self.suspect(now, peer);
            self.vacancies.news.push(peer);
        }
    }

    /// Takes `peer` for dead if there is no doubt left.
    pub(super) fn bury_vacant(&mut self, now: Instant, peer: PeerId) -> bool {
        let known = self.foca.iter_members().find(|member| member.id().peer == peer.0);
        let Some((member, token)) = known.cloned().zip(self.token) else { return false };
        if !self.vacancies.is_sure(peer, &self.alive()) {
            return false;
        }
        let (member_id, incarnation) = (member.id().clone(), member.incarnation());
        let timer = Timer::ChangeSuspectToDown { member_id, incarnation, token };
        let _refused = self.foca.handle_timer(timer, &mut self.runtime);
        self.absorb(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GONE: PeerId = PeerId([1; 16]);
    const OTHERS: [PeerId; 3] = [PeerId([2; 16]), PeerId([3; 16]), PeerId([4; 16])];

    /// A moment after its machine said so of `GONE`.
    fn seen() -> (Instant, Vacancies) {
        #[expect(clippy::disallowed_methods, reason = "any moment will do")]
        let now = Instant::now();
        let mut vacancies = Vacancies::default();
        assert!(vacancies.note(now, GONE));
        (now, vacancies)
    }

    #[test]
    fn it_takes_the_word_of_its_machine_a_silence_and_two_others() {
        let (now, mut vacancies) = seen();
        vacancies.add_witness(now, GONE, OTHERS[0]);
        vacancies.add_witness(now, GONE, OTHERS[0]);
        vacancies.silent(GONE);
        assert!(!vacancies.is_sure(GONE, &OTHERS), "one other");
        assert!(vacancies.is_sure(GONE, &OTHERS[..1]), "there is but one other");
        assert!(vacancies.is_sure(GONE, &[]), "there is no other");
        vacancies.add_witness(now, GONE, OTHERS[1]);
        assert!(vacancies.is_sure(GONE, &OTHERS));
        vacancies.heard(GONE);
        vacancies.silent(GONE);
        assert!(!vacancies.is_sure(GONE, &OTHERS) && !vacancies.is_sure(GONE, &[]), "it was heard");
        OTHERS.into_iter().for_each(|other| vacancies.add_witness(now, GONE, other));
        assert!(!vacancies.is_sure(GONE, &OTHERS), "only others say so");
    }

    #[test]
    fn who_is_gone_itself_is_no_witness_that_is_missed() {
        let (now, mut vacancies) = seen();
        vacancies.silent(GONE);
        assert!(!vacancies.is_sure(GONE, &OTHERS[..1]));
        vacancies.note(now, OTHERS[0]);
        assert!(vacancies.is_sure(GONE, &OTHERS[..1]));
    }

    #[test]
    fn what_is_said_over_and_over_counts_now_and_then_and_is_told_once() {
        let (mut now, mut vacancies) = seen();
        assert!(!vacancies.note(now, GONE));
        assert!(vacancies.is_news(GONE) && !vacancies.is_news(GONE) && !vacancies.is_news(OTHERS[0]));
        vacancies.heard(GONE);
        assert!(!vacancies.note(now, GONE) && !vacancies.is_news(GONE), "as soon again");
        now += AGAIN;
        assert!(vacancies.note(now, GONE) && vacancies.is_news(GONE));
        vacancies.tidy(now + FORGOTTEN);
        assert!(!vacancies.is_seen(GONE));
    }
}
