//! The UDP socket of peering, with a look at what comes in: datagrams that cannot be QUIC for this host are
//! counted. They are passed on all the same: QUIC drops them, and finds the stateless resets among them.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, ConnectionId, ConnectionIdGenerator, UdpPoller};
use quinn_proto::HashedConnectionIdGenerator;

use super::vacancy::Errors;

/// How many datagrams came in on the port of peering.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PortCounters {
    /// All of them.
    pub received: u64,
    /// Those that are no QUIC packet, or none for a connection of this host: garbage, scans, leftovers, and
    /// the resets that a restarted host answers with.
    pub foreign: u64,
}

/// The counters as they run.
#[derive(Debug, Default)]
pub(super) struct Counts {
    received: AtomicU64,
    foreign: AtomicU64,
}

impl Counts {
    pub(super) fn read(&self) -> PortCounters {
        PortCounters {
            received: self.received.load(Ordering::Relaxed),
            foreign: self.foreign.load(Ordering::Relaxed),
        }
    }
}

/// A socket that counts.
pub(super) struct Screen {
    inner: Arc<dyn AsyncUdpSocket>,
    errors: Errors,
    ids: HashedConnectionIdGenerator,
    counts: Arc<Counts>,
}

impl fmt::Debug for Screen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl Screen {
    /// `ids` recognizes the connection ids of this host.
    pub(super) fn new(
        inner: Arc<dyn AsyncUdpSocket>,
        errors: Errors,
        ids: HashedConnectionIdGenerator,
        counts: Arc<Counts>,
    ) -> Self {
        Screen { inner, errors, ids, counts }
    }

    /// What the network says of packets that were sent.
    pub(super) fn errors(&self) -> &Errors {
        &self.errors
    }

    /// One receive may hold several datagrams of equal length, the last one shorter.
    fn count(&self, bytes: &[u8], stride: usize) {
        for datagram in bytes.chunks(stride.max(1)) {
            self.counts.received.fetch_add(1, Ordering::Relaxed);
            if !self.may_be_ours(datagram) {
                self.counts.foreign.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// RFC 9000 section 17: the fixed bit is set; a long header names a version and two connection ids, a
    /// short one an id that we gave out.
    fn may_be_ours(&self, datagram: &[u8]) -> bool {
        match datagram {
            [first, rest @ ..] if first & 0x80 != 0 => is_long_header(*first, rest),
            [first, rest @ ..] if first & 0x40 != 0 => {
                let id = rest.get(..self.ids.cid_len());
                id.is_some_and(|id| self.ids.validate(&ConnectionId::new(id)).is_ok())
            }
            _ => false,
        }
    }
}

/// Version 0 is version negotiation, which leaves the fixed bit open; 1 is the only one that is spoken.
fn is_long_header(first: u8, rest: &[u8]) -> bool {
    const ID_MAX: u8 = 20;
    match rest {
        [0, 0, 0, 0, id_len, ..] => *id_len <= ID_MAX,
        [0, 0, 0, 1, id_len, ..] => first & 0x40 != 0 && *id_len <= ID_MAX,
        _ => false,
    }
}

impl AsyncUdpSocket for Screen {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.inner.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.inner.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let received = std::task::ready!(self.inner.poll_recv(cx, bufs, meta))?;
        for (buf, meta) in bufs.iter().zip(meta.iter()).take(received) {
            self.count(&buf[..meta.len], meta.stride);
        }
        Poll::Ready(Ok(received))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use quinn::{Runtime, TokioRuntime};

    use super::*;

    /// The kernel tells a refusal also as the failure of the next call, which may be a receive. quinn 0.11 receives again then;
    /// taken for the end of the socket, it would end all connections.
    #[tokio::test]
    async fn a_refusal_does_not_end_the_socket() {
        let socket = UdpSocket::bind("[::1]:0").unwrap();
        let gone = UdpSocket::bind("[::1]:0").unwrap().local_addr().unwrap();
        let (sender, own) = (socket.try_clone().unwrap(), socket.local_addr().unwrap());
        let errors = Errors::of(&socket).unwrap();
        let inner = TokioRuntime.wrap_udp_socket(socket).unwrap();
        let ids = HashedConnectionIdGenerator::from_key(1);
        let screen = Screen::new(inner, errors, ids, Arc::default());
        sender.send_to(b"anybody?", gone).unwrap();
        // Refused before this is received: over loopback the refusal comes while the packet is sent.
        UdpSocket::bind("[::1]:0").unwrap().send_to(b"here", own).unwrap();
        let mut packet = [0; 64];
        let mut meta = [RecvMeta::default()];
        let receive =
            std::future::poll_fn(|cx| screen.poll_recv(cx, &mut [IoSliceMut::new(&mut packet)], &mut meta));
        let received = tokio::time::timeout(Duration::from_secs(5), receive).await;
        assert_eq!(received.expect("it came").expect("the socket lives"), 1);
        assert_eq!(&packet[..meta[0].len], b"here");
    }
}
