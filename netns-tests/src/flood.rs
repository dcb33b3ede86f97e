//! UDP datagrams from forged addresses, as fast as one thread can send them.

use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use etherparse::PacketBuilder;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, MultiHeaders, SockFlag, SockProtocol, SockType, SockaddrIn, sendmmsg, socket,
};

use crate::netns::Namespace;

/// Packets of one call of the kernel.
const BURST: usize = 64;

/// How many addresses are forged, each with a port of its own.
const SENDERS: u16 = 1024;

/// A flood under way; it ends when this is dropped.
#[derive(Debug)]
pub struct Flood {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<f64>>>,
}

impl Flood {
    /// Sends `payload` from `namespace` to an address, again and again, from 1024 others that nobody has there: they are of
    /// 198.18.0.0/15 (RFC 2544 section 12.11.1).
    pub fn start(namespace: &Namespace, to: SocketAddrV4, payload: &[u8]) -> Result<Self> {
        // This protocol is that of packets whose IP headers are made by their sender (raw(7)).
        let (raw, flags, protocol) = (SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw);
        let socket = namespace.run(|| socket(AddressFamily::Inet, raw, flags, protocol))?;
        let socket = socket.context("cannot make a socket for packets of our own")?;
        let packets = (0..SENDERS).map(|sender| packet(sender, to, payload)).collect::<Result<Vec<_>>>()?;
        let over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&over);
        let thread = std::thread::spawn(move || send(&socket, to, &packets, &seen));
        Ok(Flood { over, thread: Some(thread) })
    }

    /// Ends it; how many datagrams it sent per second.
    pub fn stop(mut self) -> Result<f64> {
        self.over.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("a flood ends once")?;
        thread.join().map_err(|_| anyhow!("the sender of a flood panicked"))?
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Whoever wants to know how it went stops it.
            let _ = thread.join();
        }
    }
}

fn packet(sender: u16, to: SocketAddrV4, payload: &[u8]) -> Result<Vec<u8>> {
    let [high, low] = sender.to_be_bytes();
    let from = Ipv4Addr::new(198, 18, high, low);
    let builder = PacketBuilder::ipv4(from.octets(), to.ip().octets(), 64).udp(20_000 + sender, to.port());
    let mut packet = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut packet, payload).context("a payload too long for a packet")?;
    Ok(packet)
}

/// Sends all packets over and over; how many in a second.
fn send(socket: &OwnedFd, to: SocketAddrV4, packets: &[Vec<u8>], over: &AtomicBool) -> Result<f64> {
    let slices: Vec<[IoSlice<'_>; 1]> = packets.iter().map(|packet| [IoSlice::new(packet)]).collect();
    let addresses = vec![Some(SockaddrIn::from(to)); BURST];
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BURST, None);
    let (start, mut sent) = (Instant::now(), 0);
    for burst in slices.chunks(BURST).cycle() {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let done = sendmmsg(socket.as_raw_fd(), &mut headers, burst, &addresses, [], MsgFlags::empty());
        match done.map(Iterator::count) {
            Ok(count) => sent += count,
            // A full queue below the socket says so; what was refused was not sent.
            Err(Errno::ENOBUFS | Errno::EAGAIN | Errno::EINTR) => {}
            Err(error) => return Err(error).context("cannot send a flood"),
        }
    }
    Ok(sent as f64 / start.elapsed().as_secs_f64())
}
