//! Echo requests from inside a network namespace (ICMP, RFC 792), over a raw socket.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use engine::io::netns::Netns;
use socket2::{Domain, Protocol, Socket, Type};

use super::stop::Stop;

/// How often, and how patiently, an address is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pattern {
    /// Requests to send.
    pub(crate) count: u16,
    /// From one answer to the next request.
    pub(crate) pause: Duration,
    /// How long an answer is awaited.
    pub(crate) patience: Duration,
}

/// What came back of a series of requests.
#[derive(Clone, Default, Debug)]
pub(crate) struct Answers {
    /// Requests sent.
    pub(crate) sent: usize,
    /// The round trip of each answer, in the order of the requests.
    pub(crate) round_trips: Vec<Duration>,
}

impl Answers {
    /// The middle one of the round trips (the lower of two).
    pub(crate) fn median(&self) -> Option<Duration> {
        let mut sorted = self.round_trips.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len().saturating_sub(1) / 2).copied()
    }
}

/// Pings `to` from inside `from`. Unanswered requests are no error.
pub(crate) fn series(from: &Netns, to: Ipv4Addr, pattern: Pattern, stop: &Stop) -> Result<Answers> {
    from.run(|| {
        let mut pinger = Pinger::open(to)?;
        let mut answers = Answers::default();
        for _ in 0..pattern.count {
            answers.sent += 1;
            answers.round_trips.extend(pinger.ask(pattern.patience)?);
            stop.sleep(pattern.pause)?;
        }
        Ok(answers)
    })?
}

/// Asks `to` every 10 ms until it answers; how long that took, or nothing when it did not within `limit`.
pub(crate) fn first_answer(
    from: &Netns,
    to: Ipv4Addr,
    limit: Duration,
    stop: &Stop,
) -> Result<Option<Duration>> {
    from.run(|| {
        let start = Instant::now();
        let mut pinger = Pinger::open(to)?;
        while start.elapsed() < limit {
            if pinger.ask(Duration::from_millis(10))?.is_some() {
                return Ok(Some(start.elapsed()));
            }
            stop.check()?;
        }
        Ok(None)
    })?
}

/// Pings `to` every few milliseconds until `over` is set and an answer has come since; the longest time without one.
pub(crate) fn longest_silence(
    from: &Netns,
    to: Ipv4Addr,
    over: &AtomicBool,
    stop: &Stop,
) -> Result<Duration> {
    from.run(|| {
        let mut pinger = Pinger::open(to)?;
        let (mut longest, mut answered) = (Duration::ZERO, Instant::now());
        loop {
            let last = over.load(Ordering::Relaxed);
            let answer = pinger.ask(SILENCE_STEP)?;
            longest = longest.max(answered.elapsed());
            if answer.is_some() {
                answered = Instant::now();
            }
            if last && (answer.is_some() || answered.elapsed() > SILENCE) {
                return Ok(longest);
            }
            stop.sleep(SILENCE_STEP)?;
        }
    })?
}

/// The time between two pings of [`longest_silence`], and the patience with each.
const SILENCE_STEP: Duration = Duration::from_millis(5);
/// After this time without an answer there will be none.
pub(crate) const SILENCE: Duration = Duration::from_secs(5);

/// Bytes of an echo request: 8 of header and 56 of payload, as `ping` has it.
const REQUEST_BYTES: usize = 64;
const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;

struct Pinger {
    socket: Socket,
    identifier: u16,
    sequence: u16,
}

impl Pinger {
    fn open(to: Ipv4Addr) -> Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))
            .context("cannot open a socket for pings")?;
        socket.connect(&SocketAddrV4::new(to, 0).into()).with_context(|| format!("cannot ping {to}"))?;
        Ok(Self { socket, identifier: rand::random(), sequence: 0 })
    }

    /// One request; its round trip, or nothing when no answer came in time.
    fn ask(&mut self, patience: Duration) -> Result<Option<Duration>> {
        self.sequence = self.sequence.wrapping_add(1);
        let start = Instant::now();
        match self.socket.send(&echo_request(self.identifier, self.sequence)) {
            Ok(_) => {}
            // The neighbour did not answer an earlier request: that is a lost ping, not a broken socket.
            Err(error) if is_unreachable(&error) => {
                std::thread::sleep(patience.min(Duration::from_millis(10)));
                return Ok(None);
            }
            Err(error) => return Err(error).context("cannot send a ping"),
        }
        self.answer(start, patience)
    }

    fn answer(&self, start: Instant, patience: Duration) -> Result<Option<Duration>> {
        loop {
            let left = patience.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Ok(None);
            }
            self.socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            let mut packet = [0; 256];
            match io::Read::read(&mut &self.socket, &mut packet) {
                Ok(bytes) if is_reply(&packet[..bytes], self.identifier, self.sequence) => {
                    return Ok(Some(start.elapsed()));
                }
                Ok(_) => {}
                Err(error) if is_timeout(&error) || is_unreachable(&error) => {}
                Err(error) => return Err(error).context("cannot receive a ping"),
            }
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

fn is_unreachable(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable)
}

/// Type, code, checksum, identifier, sequence number, payload (RFC 792, page 14).
fn echo_request(identifier: u16, sequence: u16) -> [u8; REQUEST_BYTES] {
    let mut request = [0; REQUEST_BYTES];
    request[0] = ECHO_REQUEST;
    request[4..6].copy_from_slice(&identifier.to_be_bytes());
    request[6..8].copy_from_slice(&sequence.to_be_bytes());
    let sum = checksum(&request);
    request[2..4].copy_from_slice(&sum.to_be_bytes());
    request
}

/// True when an IPv4 packet as a raw socket gives it, header included, answers this very request.
fn is_reply(packet: &[u8], identifier: u16, sequence: u16) -> bool {
    let Some(first) = packet.first() else { return false };
    let Some(icmp) = packet.get(usize::from(first & 0x0f) * 4..) else { return false };
    let [ECHO_REPLY, 0, _, _, id_high, id_low, seq_high, seq_low, ..] = icmp else { return false };
    u16::from_be_bytes([*id_high, *id_low]) == identifier
        && u16::from_be_bytes([*seq_high, *seq_low]) == sequence
}

/// The Internet checksum (RFC 1071) of an even number of bytes, at most 128 KiB.
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !(((folded & 0xffff) + (folded >> 16)) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same bytes as an answer, behind an IPv4 header of 20 bytes.
    fn reply(identifier: u16, sequence: u16) -> Vec<u8> {
        let mut packet = vec![0; 20];
        packet[0] = 0x45;
        packet.extend(echo_request(identifier, sequence));
        packet[20] = ECHO_REPLY;
        packet
    }

    #[test]
    fn a_request_carries_a_checksum_that_verifies() {
        assert_eq!(checksum(&echo_request(0xabcd, 7)), 0);
    }

    #[test]
    fn only_the_answer_to_this_request_counts() {
        assert!(is_reply(&reply(9, 3), 9, 3));
        assert!(!is_reply(&reply(9, 4), 9, 3));
        assert!(!is_reply(&reply(8, 3), 9, 3));
        assert!(!is_reply(&reply(9, 3)[..24], 9, 3));
        assert!(!is_reply(&[], 9, 3));
        let mut request = reply(9, 3);
        request[20] = ECHO_REQUEST;
        assert!(!is_reply(&request, 9, 3));
    }

    #[test]
    fn the_median_is_the_middle_round_trip() {
        let answers = |micros: &[u64]| Answers {
            sent: micros.len(),
            round_trips: micros.iter().copied().map(Duration::from_micros).collect(),
        };
        assert_eq!(answers(&[30, 10, 20]).median(), Some(Duration::from_micros(20)));
        assert_eq!(answers(&[40, 10]).median(), Some(Duration::from_micros(10)));
        assert_eq!(answers(&[]).median(), None);
    }
}
