//! UDP datagrams as fast as one thread can send them, to one or several ends in turn, counted where they arrive.

use std::io::{IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg, setsockopt, sockopt};

use crate::column::{End, Route};

/// Where the receivers listen.
const PORT: u16 = 5300;

/// Datagrams in one call of the receiver.
const BURST: usize = 64;

/// The most a receiver's socket holds, in bytes; the kernel halves what it is not allowed.
const BUFFER: usize = 4 << 20;

/// How long a receiver waits before it looks whether all is over.
const PATIENCE: Duration = Duration::from_millis(50);

/// How long datagrams may be under way when the sender has stopped.
const DRAIN: Duration = Duration::from_millis(200);

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub struct Pattern {
    /// Payloads in bytes, one datagram after the other, over and over.
    pub payloads: &'static [usize],
    /// Source ports, one for each call: as many flows to each end.
    pub flows: usize,
}

/// 64 bytes of payload, in 8 flows to each end.
pub const SPREAD: Pattern = Pattern { payloads: &[64], flows: 8 };

/// 64 bytes of payload in one flow, 64 datagrams a call.
pub const FLOOD64: Pattern = Pattern { payloads: &[64; 64], flows: 1 };

/// 1400 bytes of payload in one flow, 64 datagrams a call.
pub const FLOOD1400: Pattern = Pattern { payloads: &[1400; 64], flows: 1 };

/// IP packets of 46, 576 and 1400 bytes, 7:4:1. The largest is less than the usual 1500, so that it fits every overlay.
pub const IMIX: Pattern =
    Pattern { payloads: &[18, 548, 18, 18, 548, 18, 1372, 18, 548, 18, 548, 18], flows: 8 };

/// What became of the datagrams.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Counts {
    /// Sent.
    pub sent: u64,
    /// Received.
    pub received: u64,
    /// Seconds in which they were sent.
    pub seconds: f64,
}

/// Sends for `time` and counts.
pub fn blast(route: &Route, pattern: Pattern, time: Duration) -> Result<Counts> {
    let receivers = route.ends.iter().map(receiver).collect::<Result<Vec<_>>>()?;
    let senders = (0..pattern.flows).map(|_| sender(route)).collect::<Result<Vec<_>>>()?;
    let targets = route.ends.iter().map(target).collect::<Result<Vec<_>>>()?;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let counting: Vec<_> = receivers.iter().map(|socket| scope.spawn(|| count(socket, &over))).collect();
        let start = Instant::now();
        let sent = send(&senders, &targets, pattern, time);
        let seconds = start.elapsed().as_secs_f64();
        std::thread::sleep(DRAIN);
        over.store(true, Ordering::Relaxed);
        let mut received = 0;
        for thread in counting {
            received += thread.join().ok().context("a receiver panicked")??;
        }
        Ok(Counts { sent: sent?, received, seconds })
    })
}

fn receiver(end: &End) -> Result<UdpSocket> {
    let socket = end.namespace.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)))?;
    let socket = socket.context("cannot listen")?;
    setsockopt(&socket, sockopt::RcvBuf, &BUFFER)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn sender(route: &Route) -> Result<UdpSocket> {
    let socket = route.from.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))?;
    socket.context("cannot make a socket to send from")
}

fn target(end: &End) -> Result<SockaddrIn> {
    match SocketAddr::new(end.address, PORT) {
        SocketAddr::V4(address) => Ok(SockaddrIn::from(address)),
        SocketAddr::V6(address) => bail!("{address} is no IPv4 address"),
    }
}

/// One call of the kernel sends one round of the pattern to each end, neighbours to different ends, from one socket;
/// the next call from the next.
fn send(sockets: &[UdpSocket], targets: &[SockaddrIn], pattern: Pattern, time: Duration) -> Result<u64> {
    let bytes = [0x5a; 1500];
    let round = pattern.payloads.iter().flat_map(|len| targets.iter().map(move |to| (*len, *to)));
    let (lengths, addresses): (Vec<usize>, Vec<Option<SockaddrIn>>) =
        round.map(|(len, to)| (len, Some(to))).unzip();
    let slices: Vec<[IoSlice<'_>; 1]> =
        lengths.iter().map(|len| [IoSlice::new(bytes.get(..*len).unwrap_or_default())]).collect();
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(slices.len(), None);
    let (start, mut sent) = (Instant::now(), 0);
    for socket in sockets.iter().cycle() {
        if start.elapsed() >= time {
            break;
        }
        let done = sendmmsg(socket.as_raw_fd(), &mut headers, &slices, &addresses, [], MsgFlags::empty());
        match done.map(Iterator::count) {
            Ok(count) => sent += count as u64,
            // A full queue below the socket says so; what was refused was not sent.
            Err(Errno::ENOBUFS | Errno::EAGAIN | Errno::EINTR | Errno::ECONNREFUSED) => {}
            Err(error) => return Err(error).context("cannot send"),
        }
    }
    Ok(sent)
}

/// Counts what arrives until it is over and nothing more does.
fn count(socket: &UdpSocket, over: &AtomicBool) -> Result<u64> {
    let mut buffers = vec![[0_u8; 2048]; BURST];
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BURST, None);
    let mut received = 0;
    loop {
        let mut slices: Vec<[IoSliceMut<'_>; 1]> =
            buffers.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
        let flags = MsgFlags::MSG_WAITFORONE;
        let done = recvmmsg(socket.as_raw_fd(), &mut headers, slices.iter_mut(), flags, None);
        match done.map(Iterator::count) {
            Ok(count) => received += count as u64,
            Err(Errno::EAGAIN) if over.load(Ordering::Relaxed) => return Ok(received),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(error) => return Err(error).context("cannot receive"),
        }
    }
}

impl Counts {
    /// Datagrams that did not arrive, in percent of those sent.
    pub fn lost_percent(&self) -> f64 {
        let lost = self.sent.saturating_sub(self.received);
        if self.sent == 0 { 0.0 } else { lost as f64 / self.sent as f64 * 100.0 }
    }

    /// Thousands of datagrams that arrived per second.
    pub fn kpps(&self) -> f64 {
        self.received as f64 / self.seconds / 1e3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mix_is_seven_to_four_to_one() {
        let of = |len| IMIX.payloads.iter().filter(|payload| **payload == len).count();
        assert_eq!((of(18), of(548), of(1372)), (7, 4, 1));
    }

    #[test]
    fn what_is_sent_over_loopback_is_counted() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver.set_read_timeout(Some(PATIENCE)).unwrap();
        let SocketAddr::V4(at) = receiver.local_addr().unwrap() else { panic!("no IPv4") };
        let senders = [UdpSocket::bind("127.0.0.1:0").unwrap()];
        let over = AtomicBool::new(false);
        let (sent, received) = std::thread::scope(|scope| {
            let counting = scope.spawn(|| count(&receiver, &over));
            let sent = send(&senders, &[SockaddrIn::from(at)], IMIX, Duration::from_millis(20)).unwrap();
            std::thread::sleep(DRAIN);
            over.store(true, Ordering::Relaxed);
            (sent, counting.join().unwrap().unwrap())
        });
        assert!(sent >= 12 && received > 0 && received <= sent, "{received} of {sent}");
        let counts = Counts { sent: 200, received: 150, seconds: 0.5 };
        assert_eq!((counts.lost_percent(), counts.kpps()), (25.0, 0.3));
    }
}
