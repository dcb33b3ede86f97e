//! What a packet costs on its way: queues at both cards, latency, loss.

use std::collections::VecDeque;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Virtual time in nanoseconds since the start.
pub(super) type Nanos = u64;

/// A millisecond.
pub(super) const MS: Nanos = 1_000_000;
/// A second.
pub(super) const SECOND: Nanos = 1_000_000_000;

/// Payload of one QUIC packet, in bytes.
const PAYLOAD: u64 = 1200;
/// What each packet has around its payload: Ethernet with its gap 38, IPv4 20, UDP 8, QUIC short header and tag 29.
const AROUND: u64 = 95;
/// An acknowledgement, frame and all that is around it.
const ACK: u64 = AROUND + 8;
/// A lost packet at the end of a burst is sent again after the round-trip time and this (RFC 9002 section 6.2).
const PROBE: Nanos = 30 * MS;

/// The card of a host: what waits to go out, and what waits to come in.
#[derive(Default)]
pub(super) struct Card {
    out_free: Nanos,
    in_free: Nanos,
}

/// The network between the hosts: every pair has its own latency and loss, always the same.
pub(super) struct Network {
    /// Bytes per second of each card, each way.
    pub(super) rate: u64,
    /// Least and most time one way.
    pub(super) latency: (Nanos, Nanos),
    /// Least and most part of the packets that is lost.
    pub(super) loss: (f64, f64),
    seed: u64,
    rng: StdRng,
}

impl Network {
    /// 100 Mbit/s, 1 to 20 ms, 0.1 to 1 % loss.
    pub(super) fn new(seed: u64) -> Self {
        let rng = StdRng::seed_from_u64(seed);
        Network { rate: 12_500_000, latency: (MS, 20 * MS), loss: (0.001, 0.01), seed, rng }
    }

    /// Time from one host to another, the same both ways.
    pub(super) fn latency(&self, a: usize, b: usize) -> Nanos {
        let (least, most) = self.latency;
        least + self.draw(a, b, 1) % (most - least + 1)
    }

    /// Part of the packets lost between two hosts.
    fn loss(&self, a: usize, b: usize) -> f64 {
        let (least, most) = self.loss;
        #[expect(clippy::cast_precision_loss, reason = "three digits are enough")]
        let part = (self.draw(a, b, 2) % 1000) as f64 / 1000.0;
        least + (most - least) * part
    }

    fn draw(&self, a: usize, b: usize, what: u64) -> u64 {
        let pair = (a.min(b) as u64) << 32 | a.max(b) as u64;
        // The finalizer of splitmix64: a hash that is the same in every run.
        let mut z = pair.wrapping_add(self.seed).wrapping_add(what.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// True when a single packet between two hosts gets lost.
    pub(super) fn loses(&mut self, a: usize, b: usize) -> bool {
        let loss = self.loss(a, b);
        self.rng.random_bool(loss)
    }

    /// Packets that are sent for so many bytes of a stream until all have arrived, and how much later the last one
    /// arrives because some were lost.
    pub(super) fn recovery(&mut self, a: usize, b: usize, bytes: u64) -> (u64, Nanos) {
        let (loss, round_trip) = (self.loss(a, b), 2 * self.latency(a, b));
        let mut missing = bytes.div_ceil(PAYLOAD).max(1);
        let (mut sent, mut delay) = (missing, 0);
        loop {
            missing = (0..missing).filter(|_| self.rng.random_bool(loss)).count() as u64;
            if missing == 0 {
                return (sent, delay);
            }
            sent += missing;
            delay += round_trip + round_trip / 8 + PROBE;
        }
    }
}

/// Bytes on the wire for so many bytes in so many packets.
pub(super) fn on_wire(bytes: u64, packets: u64) -> u64 {
    bytes + packets * AROUND
}

/// Bytes of the acknowledgements of so many packets: one for each second packet.
pub(super) fn acks(packets: u64) -> u64 {
    packets.div_ceil(2) * ACK
}

impl Card {
    /// So many bytes leave at `now` or when what is before them has left; the moment at which the last one has.
    pub(super) fn send(&mut self, now: Nanos, bytes: u64, rate: u64) -> Nanos {
        self.out_free = self.out_free.max(now) + bytes * SECOND / rate;
        self.out_free
    }

    /// So many bytes come in.
    pub(super) fn receive(&mut self, now: Nanos, bytes: u64, rate: u64) -> Nanos {
        self.in_free = self.in_free.max(now) + bytes * SECOND / rate;
        self.in_free
    }
}

/// Something for a host to work on, and when it has arrived.
pub(super) struct Inbox<T> {
    waiting: VecDeque<(Nanos, T)>,
    /// When the one processor of the host is free.
    pub(super) free: Nanos,
    /// A wake-up is planned.
    pub(super) woken: bool,
}

impl<T> Default for Inbox<T> {
    fn default() -> Self {
        Inbox { waiting: VecDeque::new(), free: 0, woken: false }
    }
}

impl<T> Inbox<T> {
    /// Adds work that is there at `ready`; the moment at which to wake the host, unless that is planned.
    pub(super) fn add(&mut self, ready: Nanos, work: T) -> Option<Nanos> {
        self.waiting.push_back((ready, work));
        self.wake()
    }

    /// When to work on what is first, unless that is planned.
    pub(super) fn wake(&mut self) -> Option<Nanos> {
        let at = self.waiting.front().map(|(ready, _)| (*ready).max(self.free)).filter(|_| !self.woken);
        self.woken |= at.is_some();
        at
    }

    /// The work that is first.
    pub(super) fn take(&mut self) -> Option<T> {
        self.woken = false;
        self.waiting.pop_front().map(|(_, work)| work)
    }

    /// How much waits.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }
}
