//! One address at which a peer may be, and what its answers tell.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::HURRY;
use crate::wire::probe::{self, Probe};

/// Rounds without an answer after which a candidate counts as silent.
const MISSES: u32 = 4;
/// Rounds in a row, with less than what passed before, after which that is all that passes. Of what goes beside much traffic
/// one probe, or two, may be lost.
const SHRINKS: u32 = 3;
/// Rounds in which all sizes are tried, after which it is known what passes.
const SETTLED: u32 = 8;
/// From then on one of so many rounds: the path may have widened a little.
const CLIMBS: u32 = 6;
/// Rounds in which all sizes were tried and nothing but short probes came back, after which nothing else will: more than there
/// are in the first hurry, when answers may be under way.
const KNOWN: u32 = 4;
/// Probes in flight that are remembered for each candidate.
const REMEMBERED: usize = 64;
/// Smaller sizes tried when the full size is not answered, as MTUs of the underlay: jumbo frames of several makers, Ethernet,
/// and what PPPoE, tunnels and clouds leave of it; the least of IPv6 (RFC 8200 section 5).
const LADDER: [usize; 19] = [
    9000, 8900, 8000, 6000, 4352, 4000, 3000, 2000, 1500, 1492, 1480, 1460, 1450, 1440, 1420, 1400, 1360,
    1280, 1200,
];
/// IP and UDP headers of a datagram, of both families.
const HEADERS: [usize; 2] = [28, 48];
/// What every host takes, in bytes of UDP payload (RFC 1122 section 3.3.2).
const SMALLEST: u16 = 576 - 28;
/// A path that is not known to be smaller carries all.
pub(super) const ANY: u16 = u16::MAX;

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
    /// Rounds in which all sizes were tried, since the full one passed.
    climbed: u32,
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
            climbed: 0,
            doubted: None,
            round_trip: None,
            in_flight: VecDeque::new(),
        }
    }

    /// What came back until now says nothing any more. An answer has the time of two of the last ones.
    pub(super) fn doubt(&mut self, now: Instant) {
        let patience = self.round_trip.map_or(HURRY, |took| HURRY.max(2 * took));
        (self.answered, self.misses, self.shrunk, self.doubted) = (0, 0, 0, Some(now + patience));
        self.climbed = self.climbed.min(1);
        self.in_flight.clear();
    }

    /// Something was too long for the host itself: what the next round says counts at once. False if that is so already.
    pub(super) fn suspect(&mut self) -> bool {
        let news = self.shrunk + 1 < SHRINKS;
        if news {
            (self.answered, self.shrunk, self.climbed) = (0, SHRINKS - 1, 0);
            self.in_flight.clear();
        }
        news
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
        if self.shrunk >= SHRINKS {
            (self.passed, self.shrunk, self.climbed) = (self.answered, 0, 1);
        }
        self.answered = 0;
    }

    /// What to probe with: short, full, and the steps between while the full size does not pass. Where the peer was `heard`
    /// may be somebody else: until it has answered, it gets no more bytes than what came from there had.
    pub(super) fn sizes(&mut self, full: usize, rounds: u32, heard: Option<SocketAddr>) -> BTreeSet<usize> {
        if self.passed == 0 && Some(self.addr) == heard {
            return [0, 2].contains(&rounds).then_some(probe::LEN).into_iter().collect();
        }
        let due = rounds >= 2 && (self.climbed < SETTLED || rounds.is_multiple_of(CLIMBS));
        let climb = self.passed > 0 && ((due && self.passed < full) || self.shrunk > 0);
        self.climbed = if self.passed >= full && !climb { 0 } else { self.climbed + u32::from(climb) };
        let headers = HEADERS[usize::from(self.addr.ip().to_canonical().is_ipv6())];
        let steps = LADDER.iter().map(|mtu| mtu - headers).chain([usize::from(SMALLEST)]);
        // What passed is asked again in each round; smaller ones only when it did not come back.
        let least = if self.shrunk > 0 { probe::LEN } else { self.passed };
        let steps = steps.filter(|size| climb && *size > least).chain([self.passed]);
        [probe::LEN, full].into_iter().chain(steps.filter(|size| (probe::LEN..full).contains(size))).collect()
    }

    /// The longest datagram to send: any, until other sizes were tried than the full one, which may be longer than before. While
    /// only a short probe was answered, longer answers may still be under way.
    pub(super) fn room(&self, full: usize) -> u16 {
        match self.passed {
            passed if passed >= full || self.climbed == 0 => ANY,
            passed if passed > probe::LEN => u16::try_from(passed).unwrap_or(ANY),
            _ if self.climbed >= KNOWN => SMALLEST,
            _ => ANY,
        }
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
        let passed = self.passed.min(full).max(SMALLEST.into());
        u16::try_from(passed - around).unwrap_or(u16::MAX)
    }
}
