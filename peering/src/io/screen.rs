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
