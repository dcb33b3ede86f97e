//! Hosts that are down for too long: a majority takes their space, and a minority stops giving out its own.
//!
//! Each host counts for how long it has not seen each member, in time during which it ran itself; any sign of life begins
//! anew. Whoever has missed a host for the whole of reclaim-after says so, again and again, to the lowest host that it
//! sees. That one removes the host when a strict majority of all members says the same.
//!
//! A host that has missed a strict majority for half of that time gives no new address: those others, if they live, are
//! about to take its space. So in two halves of a cluster never both allocate in the same space, and of two hosts
//! neither is ever a majority without the other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use engine::types::PeerId;

use super::{Ipam, IpamOutput};
use crate::mesh::{AllocError, PeerState};
use crate::proto::{Absent, MAX_CLOSURE, Message};

/// How often it is counted in the shortest and in the longest case; between them, so many times in reclaim-after.
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);
const STEPS: u32 = 20;
/// A vote counts for so many periods after it came.
const FRESH: u32 = 4;

/// Who has not been seen, and what others say of that.
#[derive(Default)]
pub(super) struct Absence {
    /// The cluster's setting; none while it is not known.
    after: Option<Duration>,
    members: BTreeSet<PeerId>,
    /// For how long a member has not been seen.
    missed: BTreeMap<PeerId, Duration>,
    counted_at: Option<Instant>,
    /// Whom each host says it has missed for too long, and when it said so.
    votes: BTreeMap<PeerId, (Instant, BTreeSet<PeerId>)>,
    /// Something was told that is to be taken back when it is over.
    told: bool,
    /// Removals that are under way.
    reclaimed: BTreeSet<PeerId>,
    /// It was said that a majority is missed.
    alone: bool,
}

impl Absence {
    fn period(&self) -> Option<Duration> {
        self.after.map(|after| (after / STEPS).clamp(SHORTEST, LONGEST))
    }

    /// When it is to be counted again.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.counted_at.zip(self.period()).map(|(at, period)| at + period)
    }

    /// A member, from now on.
    pub(super) fn add(&mut self, peer: PeerId) {
        self.members.insert(peer);
    }

    /// No member any more.
    pub(super) fn remove(&mut self, peer: PeerId) {
        self.members.remove(&peer);
        self.votes.remove(&peer);
        self.seen(peer);
    }

    /// A sign of life.
    pub(super) fn seen(&mut self, peer: PeerId) {
        self.missed.remove(&peer);
        self.reclaimed.remove(&peer);
    }

    /// What was about to be removed was not: it is looked at again.
    pub(super) fn begin_again(&mut self) {
        self.reclaimed.clear();
    }

    /// Those missed for at least so long.
    fn missed_for(&self, time: Duration) -> BTreeSet<PeerId> {
        self.missed.iter().filter(|(_, missed)| **missed >= time).map(|(peer, _)| *peer).collect()
    }

    /// How many members were missed for half of the time, if that is a majority.
    fn majority_missed(&self) -> Option<usize> {
        let missed = self.missed_for(self.after? / 2).len();
        is_majority(missed, self.members.len()).then_some(missed)
    }

    /// Adds the time since the last count. Time in which this host stood still counts as one period.
    fn count(&mut self, now: Instant, alive: impl Fn(PeerId) -> bool) {
        let Some(period) = self.period() else { return };
        let passed = self.counted_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        for peer in &self.members {
            if alive(*peer) {
                self.missed.remove(peer);
            } else {
                *self.missed.entry(*peer).or_default() += passed.min(period * 2);
            }
        }
        self.counted_at = Some(now);
    }

    /// Those of whom a strict majority of the members says that it has missed them for too long.
    fn agreed(&self, now: Instant) -> BTreeSet<PeerId> {
        let Some(fresh) = self.period().map(|period| period * FRESH) else { return BTreeSet::new() };
        let mut counts: BTreeMap<PeerId, usize> = BTreeMap::new();
        for (voter, (at, absent)) in &self.votes {
            if self.members.contains(voter) && now < *at + fresh {
                absent.iter().for_each(|peer| *counts.entry(*peer).or_default() += 1);
            }
        }
        let agreed = counts.into_iter().filter(|(_, votes)| is_majority(*votes, self.members.len()));
        agreed.map(|(peer, _)| peer).filter(|peer| self.members.contains(peer)).collect()
    }
}

fn is_majority(part: usize, whole: usize) -> bool {
    part * 2 > whole
}

impl Ipam {
    /// How long a host is down before its space is taken: the setting of the cluster. True: it was another one before.
    pub fn set_reclaim_after(&mut self, now: Instant, after: Duration) -> bool {
        self.absence.counted_at.get_or_insert(now);
        self.absence.after.replace(after) != Some(after)
    }

    /// Counts, says whom this host has missed, and removes those of whom a majority says so.
    pub(super) fn look_for_absent(&mut self, now: Instant) {
        if self.absence.next_timeout().is_none_or(|at| now < at) {
            return;
        }
        let (own, states) = (self.own, &self.states);
        self.absence.count(now, |peer| peer == own || is_seen(states, peer));
        self.tell_absent(now);
        self.reclaim_agreed(now);
        self.note_majority();
    }

    fn tell_absent(&mut self, now: Instant) {
        let Some(after) = self.absence.after else { return };
        let absent = self.absence.missed_for(after);
        if absent.is_empty() && !self.absence.told {
            return;
        }
        self.absence.told = !absent.is_empty();
        let seen = |peer: &&PeerId| **peer == self.own || is_seen(&self.states, **peer);
        let Some(collector) = self.absence.members.iter().find(seen).copied() else { return };
        if collector == self.own {
            self.absence.votes.insert(self.own, (now, absent));
        } else {
            self.absence.votes.remove(&self.own);
            let peers = absent.into_iter().take(MAX_CLOSURE).collect();
            self.send(collector, Message::Absent(Absent { peers }));
        }
    }

    pub(super) fn handle_absent(&mut self, now: Instant, from: PeerId, absent: Absent) {
        if self.absence.members.contains(&from) {
            self.absence.votes.insert(from, (now, absent.peers.into_iter().collect()));
            self.reclaim_agreed(now);
        }
    }

    fn reclaim_agreed(&mut self, now: Instant) {
        for peer in self.absence.agreed(now) {
            let gone = peer != self.own && !is_seen(&self.states, peer);
            if gone && self.absence.reclaimed.insert(peer) {
                self.outputs.push_back(IpamOutput::Reclaim(peer));
            }
        }
    }

    fn note_majority(&mut self) {
        let missed = self.absence.majority_missed();
        if missed.is_some() == self.absence.alone {
            return;
        }
        self.absence.alone = missed.is_some();
        let (kind, message) = match self.minority() {
            Some(error) => ("majority_missed", error.to_string()),
            None => {
                ("majority_seen", "a majority of the hosts is seen again: addresses are given".to_owned())
            }
        };
        self.outputs.push_back(IpamOutput::Notice { kind, message });
    }

    /// Why no new address may be given here, if so.
    pub(super) fn minority(&self) -> Option<AllocError> {
        let missed = self.absence.majority_missed()?;
        let after = self.absence.after?;
        Some(AllocError::MajorityMissed { missed, members: self.absence.members.len(), after })
    }
}

fn is_seen(states: &BTreeMap<PeerId, PeerState>, peer: PeerId) -> bool {
    matches!(states.get(&peer), Some(PeerState::Alive | PeerState::Suspect))
}
