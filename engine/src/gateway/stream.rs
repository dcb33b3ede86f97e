//! One TCP connection to the gateway, on smoltcp, and the DNS messages in it (RFC 7766).
//!
//! Each connection has a stack of its own: an interface without link addresses and a single socket. So nothing asks
//! for neighbours, nothing is shared between ports, and a connection is gone with all that belongs to it.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::{Duration as StackDuration, Instant as StackInstant};
use smoltcp::wire::{HardwareAddress, IpCidr};

use super::dns::HEADER_LEN;

/// The longest question that is taken over TCP, in bytes.
pub const MAX_QUESTION: usize = 4096;
/// What may be under way to us: a super-frame of the sender is never longer.
const WINDOW: usize = 2048;
/// What may be under way from us.
const SEND_BUFFER: usize = 16_384;
/// While more than this waits to be sent, no further question is read: whoever asks must also read.
const BACKLOG: usize = 65_536;
/// How many questions of one connection wait for others at a time.
const MAX_WAITING: usize = 32;
/// How long a connection may be silent (RFC 7766 section 6.2.3).
const IDLE: Duration = Duration::from_secs(10);
/// How long it may take to begin and to end.
const HANDSHAKE: Duration = Duration::from_secs(3);
/// How long what was sent may stay unacknowledged.
const UNHEARD: StackDuration = StackDuration::from_secs(10);

/// A connection, from its first segment on.
pub(super) struct Stream {
    stack: Interface,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
    link: Link,
    epoch: Instant,
    /// What was read and is no whole message yet.
    inbox: Vec<u8>,
    /// Answers that the socket has no room for.
    outbox: VecDeque<u8>,
    /// Questions without an answer.
    waiting: usize,
    /// When something was last heard.
    heard: Instant,
    closing: Option<Instant>,
}

impl Stream {
    /// A connection to `own` that its first segment is to be given to. `seed` makes its sequence hard to guess.
    pub(super) fn new(now: Instant, own: SocketAddr, mtu: u16, seed: u64) -> Option<Self> {
        let mut link = Link { mtu: usize::from(mtu), incoming: None, outgoing: Vec::new() };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut stack = Interface::new(config, &mut link, StackInstant::ZERO);
        // Everybody is on the link: what comes is answered where it came from.
        let everybody = IpCidr::new(address(own.ip()), 0);
        stack.update_ip_addrs(|addrs| addrs.push(everybody).unwrap_or_default());
        let buffer = |len| tcp::SocketBuffer::new(vec![0; len]);
        let mut socket = tcp::Socket::new(buffer(WINDOW), buffer(SEND_BUFFER));
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        socket.set_timeout(Some(UNHEARD));
        socket.listen((address(own.ip()), own.port())).ok()?;
        let mut sockets = SocketSet::new(Vec::new());
        let socket = sockets.add(socket);
        Some(Stream {
            stack,
            sockets,
            socket,
            link,
            epoch: now,
            inbox: Vec::new(),
            outbox: VecDeque::new(),
            waiting: 0,
            heard: now,
            closing: None,
        })
    }

    /// Takes an IP packet of the connection.
    pub(super) fn handle_packet(&mut self, now: Instant, packet: &[u8]) {
        self.link.incoming = Some(packet.to_vec());
        self.heard = now;
        self.run(now);
    }

    /// Does what is due: sends again, gives up, closes.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if now >= self.deadline() {
            self.end(now);
        }
        self.run(now);
    }

    fn run(&mut self, now: Instant) {
        let now = self.stack_time(now);
        self.stack.poll(now, &mut self.link, &mut self.sockets);
        self.link.incoming = None;
        self.fill();
        self.stack.poll(now, &mut self.link, &mut self.sockets);
    }

    /// Moves what was received into the inbox, and answers into the socket.
    fn fill(&mut self) {
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.socket);
        while self.inbox.len() < 2 + MAX_QUESTION && self.outbox.len() < BACKLOG && socket.can_recv() {
            let inbox = &mut self.inbox;
            let room = 2 + MAX_QUESTION - inbox.len();
            let taken = socket.recv(|bytes| {
                let bytes = bytes.get(..room).unwrap_or(bytes);
                inbox.extend_from_slice(bytes);
                (bytes.len(), bytes.len())
            });
            if !taken.is_ok_and(|taken| taken > 0) {
                break;
            }
        }
        while !self.outbox.is_empty() && socket.can_send() {
            let Ok(sent @ 1..) = socket.send_slice(self.outbox.as_slices().0) else { break };
            self.outbox.drain(..sent);
        }
    }

    /// The next whole question. A message that cannot be one ends the connection.
    pub(super) fn poll_question(&mut self, now: Instant) -> Option<Vec<u8>> {
        if self.outbox.len() >= BACKLOG || self.waiting >= MAX_WAITING {
            return None;
        }
        let len = usize::from(u16::from_be_bytes(*self.inbox.first_chunk::<2>()?));
        if !(HEADER_LEN..=MAX_QUESTION).contains(&len) {
            self.sockets.get_mut::<tcp::Socket<'_>>(self.socket).abort();
            self.inbox.clear();
            self.closing = Some(now);
            self.run(now);
            return None;
        }
        let question = self.inbox.get(2..2 + len)?.to_vec();
        self.inbox.drain(..2 + len);
        self.waiting += 1;
        Some(question)
    }

    /// Answers a question; without an answer it is given up.
    pub(super) fn answer(&mut self, now: Instant, message: Option<&[u8]>) {
        self.waiting = self.waiting.saturating_sub(1);
        let framed = message.and_then(|message| Some((u16::try_from(message.len()).ok()?, message)));
        if let Some((len, message)) = framed {
            self.outbox.extend(len.to_be_bytes());
            self.outbox.extend(message);
        }
        self.run(now);
    }

    /// Ends our side once nothing is left to say to who has ended the other.
    pub(super) fn close_if_done(&mut self, now: Instant) {
        let socket = self.sockets.get::<tcp::Socket<'_>>(self.socket);
        let heard_all = matches!(socket.state(), tcp::State::CloseWait) && !socket.can_recv();
        if heard_all && self.waiting == 0 && self.outbox.is_empty() && self.closing.is_none() {
            self.end(now);
            self.run(now);
        }
    }

    /// Closes what is open, and gives up what does not close.
    fn end(&mut self, now: Instant) {
        let opening = self.is_opening();
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.socket);
        if opening || self.closing.is_some() {
            socket.abort();
        } else {
            socket.close();
        }
        self.closing.get_or_insert(now);
    }

    /// Whether it may be forgotten. Who closes first need not wait here: nobody connects from us.
    pub(super) fn is_over(&self) -> bool {
        let state = self.sockets.get::<tcp::Socket<'_>>(self.socket).state();
        matches!(state, tcp::State::Closed | tcp::State::TimeWait | tcp::State::Listen)
    }

    /// Whether nobody has shown yet that they hear what is sent to them.
    pub(super) fn is_opening(&self) -> bool {
        let state = self.sockets.get::<tcp::Socket<'_>>(self.socket).state();
        matches!(state, tcp::State::Listen | tcp::State::SynReceived)
    }

    /// The next packet to send.
    pub(super) fn take_packets(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.link.outgoing)
    }

    /// When it is ended at the latest.
    fn deadline(&self) -> Instant {
        match self.closing {
            Some(since) => since + HANDSHAKE,
            None if self.is_opening() => self.heard + HANDSHAKE,
            None => self.heard + IDLE,
        }
    }

    /// When [`Stream::handle_timeout`] has something to do.
    pub(super) fn poll_timeout(&mut self, now: Instant) -> Instant {
        let stack = self.stack.poll_at(self.stack_time(now), &self.sockets);
        let micros = stack.map(|at| u64::try_from(at.total_micros()).unwrap_or_default());
        let due = micros.map(|micros| self.epoch + Duration::from_micros(micros));
        due.map_or(self.deadline(), |due| due.min(self.deadline()))
    }

    fn stack_time(&self, now: Instant) -> StackInstant {
        let micros = now.saturating_duration_since(self.epoch).as_micros();
        StackInstant::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
    }
}

fn address(addr: IpAddr) -> smoltcp::wire::IpAddress {
    addr.into()
}

/// What is between the stack and the port: one packet in, some out.
struct Link {
    mtu: usize,
    incoming: Option<Vec<u8>>,
    outgoing: Vec<Vec<u8>>,
}

struct Incoming(Vec<u8>);

struct Outgoing<'a>(&'a mut Vec<Vec<u8>>);

impl Device for Link {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _: StackInstant) -> Option<(Incoming, Outgoing<'_>)> {
        Some((Incoming(self.incoming.take()?), Outgoing(&mut self.outgoing)))
    }

    fn transmit(&mut self, _: StackInstant) -> Option<Outgoing<'_>> {
        Some(Outgoing(&mut self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        // What comes in was checked, or is still without.
        capabilities.checksum.ipv4 = Checksum::Tx;
        capabilities.checksum.tcp = Checksum::Tx;
        capabilities
    }
}

impl RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let mut packet = vec![0; len];
        let result = write(&mut packet);
        self.0.push(packet);
        result
    }
}
