//! The UDP socket of peering, with a look at what comes in: datagrams that cannot be QUIC for this host are
//! counted, and spoilt so that nothing is answered to them.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

use super::conn_id::{CID_LEN, ConnIds};

/// How many datagrams came in on the port of peering.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PortCounters {
    /// All of them.
    pub received: u64,
    /// Those that are no QUIC packet, or none for a connection of this host: garbage, scans, leftovers.
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
#[derive(Debug)]
pub(super) struct Screen {
    inner: Arc<dyn AsyncUdpSocket>,
    ids: ConnIds,
    counts: Arc<Counts>,
}

impl Screen {
    pub(super) fn new(inner: Arc<dyn AsyncUdpSocket>, ids: ConnIds, counts: Arc<Counts>) -> Self {
        Screen { inner, ids, counts }
    }

    /// One receive may hold several datagrams of equal length, the last one shorter.
    fn screen(&self, bytes: &mut [u8], stride: usize) {
        for datagram in bytes.chunks_mut(stride.max(1)) {
            self.counts.received.fetch_add(1, Ordering::Relaxed);
            let origin = self.origin(datagram);
            if origin != Origin::Peer {
                self.counts.foreign.fetch_add(1, Ordering::Relaxed);
            }
            if origin == Origin::Foreign {
                // Without the fixed bit QUIC drops it, quietly.
                datagram[0] = 0;
            }
        }
    }

    /// RFC 9000 section 17: the fixed bit is set; a long header names a version and two connection ids, a
    /// short one an id that we gave out.
    fn origin(&self, datagram: &[u8]) -> Origin {
        match datagram {
            [first, rest @ ..] if first & 0x80 != 0 => long_header(*first, rest),
            [first, rest @ ..] if first & 0x40 != 0 => match rest.first_chunk::<CID_LEN>() {
                Some(id) if self.ids.made(id) => Origin::Peer,
                _ => Origin::Foreign,
            },
            _ => Origin::Foreign,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Origin {
    /// It may come from another host.
    Peer,
    /// It may be QUIC of a version that is not spoken here, which QUIC answers.
    OtherVersion,
    /// Nothing for us.
    Foreign,
}

/// Version 0 is version negotiation, which leaves the fixed bit open; 1 is the only one that is spoken. Initial
/// packets of any version fill 1200 bytes (RFC 9000 section 14.1).
fn long_header(first: u8, rest: &[u8]) -> Origin {
    const ID_MAX: u8 = 20;
    match rest {
        [0, 0, 0, 0, id_len, ..] if *id_len <= ID_MAX => Origin::Peer,
        [0, 0, 0, 1, id_len, ..] if first & 0x40 != 0 && *id_len <= ID_MAX => Origin::Peer,
        [0, 0, 0, 0 | 1, ..] => Origin::Foreign,
        _ if rest.len() + 1 >= 1200 => Origin::OtherVersion,
        _ => Origin::Foreign,
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
        for (buf, meta) in bufs.iter_mut().zip(meta.iter()).take(received) {
            self.screen(&mut buf[..meta.len], meta.stride);
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
