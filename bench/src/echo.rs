//! ICMP echo requests (RFC 792), timed one by one.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use engine::wire::checksum::Sum;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recv, sendto, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;

use crate::column::Route;

/// As much payload as ping(8) sends, in bytes.
const PAYLOAD: usize = 56;

/// Type, code, checksum, identifier, sequence number.
const HEADER: usize = 8;

const REQUEST: u8 = 8;
const REPLY: u8 = 0;

/// An echo that takes longer counts as lost.
const PATIENCE: Duration = Duration::from_secs(1);

/// One after the other.
pub struct Echoes {
    /// Round trips in microseconds, in order.
    pub trips_us: Vec<f64>,
    /// Requests without an answer.
    pub lost: usize,
}

/// Sends a request each `interval` for `time`, the first to warm the path up and not counted. A request waits for the
/// answer to the one before.
pub fn measure(route: &Route, interval: Duration, time: Duration) -> Result<Echoes> {
    let IpAddr::V4(to) = route.end()?.address else { bail!("only IPv4 is measured") };
    let socket = route.from.run(open)??;
    let mut echoes = Echoes { trips_us: Vec::new(), lost: 0 };
    echo(&socket, to, 0)?;
    let start = Instant::now();
    for number in 1_u16.. {
        let due = start + interval * u32::from(number);
        if due > start + time {
            break;
        }
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        match echo(&socket, to, number)? {
            Some(trip) => echoes.trips_us.push(trip.as_secs_f64() * 1e6),
            None => echoes.lost += 1,
        }
    }
    Ok(echoes)
}

fn open() -> Result<OwnedFd> {
    let protocol = SockProtocol::Icmp;
    let socket = socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)
        .context("cannot open a raw socket: are you root?")?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(0, 100_000))?;
    Ok(socket)
}

/// One round trip; none when no answer comes.
fn echo(socket: &OwnedFd, to: Ipv4Addr, number: u16) -> Result<Option<Duration>> {
    let [a, b, c, d] = to.octets();
    let request = request(number);
    let start = Instant::now();
    sendto(socket.as_raw_fd(), &request, &SockaddrIn::new(a, b, c, d, 0), MsgFlags::empty())
        .context("cannot send an echo request")?;
    let mut packet = [0; 2048];
    while start.elapsed() < PATIENCE {
        match recv(socket.as_raw_fd(), &mut packet, MsgFlags::empty()) {
            Ok(len) if is_answer(packet.get(..len).unwrap_or_default(), &request) => {
                return Ok(Some(start.elapsed()));
            }
            Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(error) => return Err(error).context("cannot receive an echo reply"),
        }
    }
    Ok(None)
}

fn request(number: u16) -> [u8; HEADER + PAYLOAD] {
    let mut message = [0; HEADER + PAYLOAD];
    let [id, sequence] = [std::process::id() as u16, number].map(u16::to_be_bytes);
    message[0] = REQUEST;
    message[4..6].copy_from_slice(&id);
    message[6..8].copy_from_slice(&sequence);
    let sum = Sum::default().bytes(&message).checksum();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// Whether an IPv4 packet as a raw socket gives it (raw(7)) is the answer to `request`.
fn is_answer(packet: &[u8], request: &[u8]) -> bool {
    let header_len = packet.first().map_or(0, |first| usize::from(first & 0x0f) * 4);
    let message = packet.get(header_len..).unwrap_or_default();
    message.first() == Some(&REPLY) && message.get(4..).is_some_and(|rest| Some(rest) == request.get(4..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_intact_and_its_reply_is_known() {
        let request = request(7);
        assert!(Sum::default().bytes(&request).is_intact());
        let mut packet = vec![0x45; 20];
        packet.extend_from_slice(&request);
        assert!(!is_answer(&packet, &request), "the request itself");
        packet[20] = REPLY;
        assert!(is_answer(&packet, &request));
        packet[27] ^= 1;
        assert!(!is_answer(&packet, &request), "another number");
        assert!(!is_answer(&[], &request));
    }
}
