//! One address at which a peer may be, and what its answers tell.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::HURRY;
use crate::wire::probe::{self, Probe};

/// Rounds without an answer after which a candidate counts as silent.
const MISSES: u32 = 4;
/// Probes in flight that are remembered for each candidate.
const REMEMBERED: usize = 16;
/// Smaller sizes tried, in bytes of UDP payload, when the full size is not answered.
const LADDER: [usize; 5] = [1422, 1372, 1252, 1172, 548];

/// What is known of an address.
pub(super) struct Candidate {
    pub(super) addr: SocketAddr,
    /// What the peer said last: it takes frames in clear from where our datagrams to this address come from.
    pub(super) takes_clear: bool,
    /// Largest payload that came back in the current round.
    pub(super) answered: usize,
    /// Rounds in a row without any answer.
    misses: u32,
    /// Rounds in a row in which only less than `passed` came back.
    shrunk: u32,
    /// Largest payload that is known to pass; 0 while the address is silent.
    pub(super) passed: usize,
    /// What passed counts until then, and longer only if there is an answer.
    doubted: Option<Instant>,
    /// What its answers lately took, a running mean.
    round_trip: Option<Duration>,
    in_flight: VecDeque<Question>,
}

struct Question {
    nonce: u64,
    size: usize,
    sent: Instant,
}

impl Candidate {
    /// Nothing known of it yet.
    pub(super) fn new(addr: SocketAddr) -> Self {
        Candidate {
            addr,
            takes_clear: false,
            answered: 0,
            misses: 0,
            shrunk: 0,
            passed: 0,
            doubted: None,
            round_trip: None,
            in_flight: VecDeque::new(),
        }
    }

    /// What came back until now says nothing any more. An answer has the time of two of the last ones.
    pub(super) fn doubt(&mut self, now: Instant) {
        let patience = self.round_trip.map_or(HURRY, |took| HURRY.max(2 * took));
        (self.answered, self.misses, self.shrunk, self.doubted) = (0, 0, 0, Some(now + patience));
        self.in_flight.clear();
    }

    /// Weighs what came back since the last round. In a hurry, and after a doubt, an answer may still be under way.
    pub(super) fn end_round(&mut self, now: Instant, hurried: bool) {
        match self.answered {
            0 if self.doubted.is_some_and(|end| end <= now) => (self.passed, self.doubted) = (0, None),
            0 if hurried => {}
            0 => self.misses += 1,
            answered => {
                self.doubted = None;
                self.misses = 0;
                self.shrunk = if answered < self.passed { self.shrunk + 1 } else { 0 };
            }
        }
        if self.misses >= MISSES {
            self.passed = 0;
        }
        if self.shrunk >= MISSES {
            self.passed = self.answered;
        }
        self.answered = 0;
    }

    /// What to probe with: short, full, and the steps between while the full size does not pass. Where the peer was `heard`
    /// may be somebody else: until it has answered, it gets no more bytes than what came from there had.
    pub(super) fn sizes(&self, full: usize, rounds: u32, heard: Option<SocketAddr>) -> BTreeSet<usize> {
        if self.passed == 0 && Some(self.addr) == heard {
            return [0, 2].contains(&rounds).then_some(probe::LEN).into_iter().collect();
        }
        let climb = rounds >= 2 && self.passed > 0 && self.passed < full;
        let steps = LADDER.iter().copied().filter(|&size| climb && size < full);
        [probe::LEN, full].into_iter().chain(steps).collect()
    }

    /// Notes what passed; false when the nonce is not one of ours.
    pub(super) fn take_answer(&mut self, now: Instant, answer: &Probe) -> bool {
        let sent = self.in_flight.iter().position(|question| question.nonce == answer.nonce);
        let Some(Question { size, sent, .. }) = sent.and_then(|index| self.in_flight.remove(index)) else {
            return false;
        };
        self.takes_clear = answer.clear;
        let took = now.saturating_duration_since(sent);
        self.round_trip = Some(self.round_trip.map_or(took, |before| (before + took) / 2));
        self.answered = self.answered.max(size);
        self.passed = self.passed.max(size);
        true
    }

    /// Notes a question that goes out.
    pub(super) fn remember(&mut self, now: Instant, nonce: u64, size: usize) {
        if self.in_flight.len() == REMEMBERED {
            self.in_flight.pop_front();
        }
        self.in_flight.push_back(Question { nonce, size, sent: now });
    }

    /// The largest overlay packet that passed; while only the short probe was answered, the smallest that
    /// every IPv4 host must take (RFC 1122 section 3.3.2), less what is `around` it.
    pub(super) fn mtu(&self, full: usize, around: usize) -> u16 {
        let passed = self.passed.min(full).max(LADDER[LADDER.len() - 1]);
        u16::try_from(passed - around).unwrap_or(u16::MAX)
    }
}
