//! The rate limit of a port: a token bucket for each direction.
//!
//! A bucket is one moment: the one at which everything let through so far would have been sent at the rate (the
//! theoretical arrival time of the generic cell rate algorithm, ITU-T I.371 annex A). A frame is let through while
//! that moment is at most the burst ahead of now, and moves it by its own time. So a super-frame passes as a whole,
//! on credit, and what follows waits or is dropped until that is paid: the rate holds on average for any size.
//!
//! All workers of a port share its buckets, by one atomic word each. Ports without a limit have none.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::types::ParseTypeError;

/// What may come at once from a container, as time at the rate: more than the timer of a worker is late by.
const BURST_FROM: Duration = Duration::from_millis(10);

/// What may come at once for a container, as time at the rate. What is above is dropped, so it is more than the least
/// time after which TCP tries again (200 ms in Linux), or a connection would never reach the rate.
const BURST_TO: Duration = Duration::from_millis(250);

/// Bits per second, in text as tc(8) writes them: `100mbit`, `2500kbit`, `1gbit`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Rate(NonZeroU64);

/// Bytes of headers that each further segment of a super-frame has on a wire: Ethernet, IPv4, TCP with time stamps.
const REPEATED_HEADERS: u64 = 66;

/// What a frame of `frame_len` bytes costs that stands for so many segments: their headers too, as most have them.
pub fn wire_bytes(frame_len: usize, segments: u64) -> u64 {
    frame_len as u64 + segments.saturating_sub(1) * REPEATED_HEADERS
}

/// Names of powers of thousand, largest first.
const UNITS: [(&str, u64); 4] = [("gbit", 1_000_000_000), ("mbit", 1_000_000), ("kbit", 1_000), ("bit", 1)];

impl Rate {
    /// The least rate: one frame of 1,500 bytes takes a second and a half.
    pub const LEAST: u64 = 8_000;
    /// The largest, a terabit: above it nanoseconds are too coarse.
    pub const MOST: u64 = 1_000_000_000_000;

    /// A rate between [`Rate::LEAST`] and [`Rate::MOST`] bits per second.
    pub fn new(bits_per_second: u64) -> Option<Self> {
        let allowed = (Self::LEAST..=Self::MOST).contains(&bits_per_second);
        NonZeroU64::new(bits_per_second).filter(|_| allowed).map(Rate)
    }

    /// Bits per second.
    pub fn bits_per_second(self) -> u64 {
        self.0.get()
    }

    /// How long `bytes` take, in nanoseconds.
    fn nanoseconds(self, bytes: u64) -> u64 {
        (u128::from(bytes) * 8_000_000_000 / u128::from(self.0.get())) as u64
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.bits_per_second();
        let whole = UNITS.iter().find(|(_, size)| bits.is_multiple_of(*size));
        let (unit, size) = whole.copied().unwrap_or(("bit", 1));
        write!(f, "{}{unit}", bits / size)
    }
}

impl FromStr for Rate {
    type Err = ParseTypeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseTypeError { what: "rate", text: text.to_owned() };
        let lower = text.to_ascii_lowercase();
        let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = UNITS.iter().find(|(name, _)| lower.strip_prefix(digits) == Some(name));
        let number: u64 = digits
            .parse()
            .ok()
            .filter(|_| digits.starts_with(|c: char| c.is_ascii_digit()))
            .ok_or_else(wrong)?;
        let (_, size) = unit.ok_or_else(wrong)?;
        number.checked_mul(*size).and_then(Rate::new).ok_or_else(wrong)
    }
}

/// The buckets of a port.
#[derive(Debug)]
pub struct Limit {
    rate: Rate,
    /// For what comes from the container: it is not read while the bucket is in debt.
    pub from: Bucket,
    /// For what goes to the container: it is dropped while the bucket is in debt.
    pub to: Bucket,
}

impl Limit {
    /// Full buckets. No `now` may be before this one.
    pub fn new(rate: Rate, now: Instant) -> Self {
        Limit { rate, from: Bucket::new(rate, BURST_FROM, now), to: Bucket::new(rate, BURST_TO, now) }
    }

    /// The limit itself.
    pub fn rate(&self) -> Rate {
        self.rate
    }
}

/// The bucket of one direction.
#[derive(Debug)]
pub struct Bucket {
    rate: Rate,
    burst_ns: u64,
    start: Instant,
    /// Nanoseconds after `start` at which what was let through would have been sent.
    sent_ns: AtomicU64,
}

impl Bucket {
    fn new(rate: Rate, burst: Duration, now: Instant) -> Self {
        let burst_ns = u64::try_from(burst.as_nanos()).unwrap_or(u64::MAX);
        Bucket { rate, burst_ns, start: now, sent_ns: AtomicU64::new(0) }
    }

    /// Takes what `bytes` cost, also from an empty bucket.
    pub fn spend(&self, now: Instant, bytes: u64) {
        let (now_ns, cost) = (self.nanoseconds(now), self.rate.nanoseconds(bytes));
        let next = |sent: u64| sent.max(now_ns.saturating_sub(self.burst_ns)).saturating_add(cost);
        // Relaxed: nothing else depends on the order.
        let _ = self.sent_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |sent| Some(next(sent)));
    }

    /// Takes what `bytes` cost, unless the bucket is in debt; false when it is.
    pub fn admits(&self, now: Instant, bytes: u64) -> bool {
        let free = self.debt(now).is_zero();
        if free {
            self.spend(now, bytes);
        }
        free
    }

    /// How long until the bucket is out of debt.
    pub fn debt(&self, now: Instant) -> Duration {
        Duration::from_nanos(self.sent_ns.load(Ordering::Relaxed).saturating_sub(self.nanoseconds(now)))
    }

    fn nanoseconds(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.start).as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
mod tests {
    use super::*;

    const MBIT_100: Rate = Rate(NonZeroU64::new(100_000_000).unwrap());

    #[test]
    fn rates_are_written_as_tc_does() {
        for (text, bits) in
            [("100mbit", 100_000_000), ("2500kbit", 2_500_000), ("1Gbit", 1_000_000_000), ("9600bit", 9600)]
        {
            let rate: Rate = text.parse().unwrap();
            assert_eq!(rate.bits_per_second(), bits);
            assert_eq!(rate.to_string().parse(), Ok(rate));
        }
        assert_eq!("1000kbit".parse::<Rate>().unwrap().to_string(), "1mbit");
        for text in [
            "",
            "100",
            "mbit",
            "-1mbit",
            "+1mbit",
            "1.5mbit",
            "100mb",
            "7kbit",
            "2000gbit",
            "1 mbit",
            "0bit",
            "99999999999999999999bit",
        ] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }

    /// Bytes that pass in ten seconds of frames offered in tiny steps, whoever asks whether they may.
    fn passed(frame: u64, step: Duration, mut pass: impl FnMut(&Bucket, Instant, u64) -> bool) -> u64 {
        let start = Instant::now();
        let bucket = Bucket::new(MBIT_100, BURST_FROM, start);
        let mut now = start;
        let mut bytes = 0;
        while now < start + Duration::from_secs(10) {
            while pass(&bucket, now, frame) {
                bytes += frame;
            }
            now += step;
        }
        bytes
    }

    #[test]
    fn the_rate_holds_for_any_size_of_frame() {
        let police = |bucket: &Bucket, now, frame| bucket.admits(now, frame);
        let shape = |bucket: &Bucket, now, frame| {
            let free = bucket.debt(now).is_zero();
            if free {
                bucket.spend(now, frame);
            }
            free
        };
        for frame in [60, 1500, 65_000] {
            for bytes in [
                passed(frame, Duration::from_millis(1), police),
                passed(frame, Duration::from_millis(3), shape),
            ] {
                let share = bytes as f64 / 125_000_000.0;
                assert!((0.995..1.01).contains(&share), "{frame} bytes: {share}");
            }
        }
    }

    #[test]
    fn a_rest_earns_one_burst_and_no_more() {
        let start = Instant::now();
        let limit = Limit::new(MBIT_100, start);
        let later = start + Duration::from_secs(60);
        let bytes: u64 = std::iter::repeat(1250).take_while(|&bytes| limit.to.admits(later, bytes)).sum();
        let burst = 12_500_000 / 4;
        assert!((burst..=burst + 2500).contains(&bytes), "{bytes}");
        limit.from.spend(later, 1_250_000);
        let debt = limit.from.debt(later);
        assert_eq!(debt, Duration::from_millis(90), "a tenth of a second, less the burst");
        assert!(limit.from.debt(later + debt).is_zero());
    }
}
