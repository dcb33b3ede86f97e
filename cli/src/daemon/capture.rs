//! Captures: from the workers' chunks to a pcapng stream on the daemon's socket.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use engine::capture::{Direction, MAX_SNAPLEN, Record};
use engine::io::capture::{Capture, CaptureError, Target};
use hyper::body::Frame;
use tokio::sync::{Notify, mpsc};

use super::ports::Intent;
use super::{Daemon, lock_of};
use crate::capture::{outer, pcapng};
use crate::failure::{Failure, code};
use crate::shape::CaptureTotals;

/// Pieces of the stream that wait for the reader at most; each is one chunk of frames.
const WAITING: usize = 2;
/// What a datagram gets in front: an IPv6 and a UDP header.
const MAX_OUTER: u32 = 48;

/// A capture that somebody reads.
pub(super) struct Session {
    capture: Capture,
    sent: AtomicU64,
}

/// The captures that run, by number.
#[derive(Default)]
pub(super) struct Sessions {
    next: u64,
    running: BTreeMap<u64, Weak<Session>>,
}

impl Daemon {
    /// Begins to capture at a port, or the underlay without one. Returns the number of the capture and its stream.
    pub(super) fn capture(&self, port: Option<&str>, snaplen: usize) -> Result<(u64, Stream), Failure> {
        let snaplen = snaplen.clamp(1, MAX_SNAPLEN);
        let (target, interface) = match port {
            None => (Target::Underlay, "underlay".to_owned()),
            Some(text) => {
                let intent = self.port_called(text)?;
                (Target::Port(intent.port), intent.ifname.clone().unwrap_or_default())
            }
        };
        let news = Arc::new(Notify::new());
        let wake = Arc::clone(&news);
        let capture = self.engine.capture(target, snaplen, move || wake.notify_one());
        let capture = capture.map_err(|e| refusal(&e))?;
        let session = Arc::new(Session { capture, sent: AtomicU64::new(0) });
        let mut head = Vec::new();
        match target {
            Target::Port(_) => {
                pcapng::begin(&mut head, &interface, pcapng::LINKTYPE_ETHERNET, snaplen as u32);
            }
            Target::Underlay => {
                pcapng::begin(&mut head, &interface, pcapng::LINKTYPE_RAW, snaplen as u32 + MAX_OUTER);
            }
        }
        let (sender, receiver) = mpsc::channel(WAITING);
        let number = lock_of(&self.captures).add(&session);
        tokio::spawn(feed(session, news, head, sender));
        Ok((number, Stream(receiver)))
    }

    /// How a capture stands that still runs.
    pub(super) fn capture_totals(&self, number: u64) -> Result<CaptureTotals, Failure> {
        let session = lock_of(&self.captures).running.get(&number).and_then(Weak::upgrade);
        let session = session.ok_or_else(|| Failure::new(code::NO_SUCH_CAPTURE, "the capture has ended"))?;
        let (sent, dropped) = (session.sent.load(Ordering::Relaxed), session.capture.dropped());
        Ok(CaptureTotals { captured: sent, dropped })
    }

    /// Ends a capture: its stream brings what there is, and then ends too.
    pub(super) fn end_capture(&self, number: u64) -> Result<CaptureTotals, Failure> {
        let totals = self.capture_totals(number)?;
        let session = lock_of(&self.captures).running.get(&number).and_then(Weak::upgrade);
        session.into_iter().for_each(|session| session.capture.end());
        Ok(totals)
    }

    /// The one port of this host that is meant: by its id, its container, its endpoint's name or its interface.
    fn port_called(&self, text: &str) -> Result<Intent, Failure> {
        let opened = self.opened();
        let ports = self.ports();
        let open: Vec<&Intent> = ports.all().filter(|i| opened.contains(&i.port)).collect();
        let exact = open.iter().find(|i| i.port.to_string() == text);
        if let Some(intent) = exact {
            return Ok((*intent).clone());
        }
        let called =
            |i: &&&Intent| i.container == text || i.name == text || i.ifname.as_deref() == Some(text);
        let meant: Vec<&Intent> = open.iter().filter(called).copied().collect();
        match meant.as_slice() {
            [intent] => Ok((*intent).clone()),
            [] => Err(Failure::new(code::UNKNOWN_PORT, format!("this host has no open port called {text}"))
                .hint("`meshnet status dataplane` lists the ports of this host")),
            several => {
                let ids: Vec<String> =
                    several.iter().map(|i| format!("{} ({})", i.port, i.container)).collect();
                Err(Failure::new(code::UNKNOWN_PORT, format!("several ports are called {text}"))
                    .hint(format!("name one of {}", ids.join(", "))))
            }
        }
    }
}

impl Sessions {
    fn add(&mut self, session: &Arc<Session>) -> u64 {
        self.running.retain(|_, session| session.strong_count() > 0);
        self.next += 1;
        self.running.insert(self.next, Arc::downgrade(session));
        self.next
    }
}

fn refusal(error: &CaptureError) -> Failure {
    match error {
        CaptureError::NoSuchPort(_) => Failure::new(code::UNKNOWN_PORT, error.to_string()),
        CaptureError::TooMany => {
            Failure::new(code::TOO_MANY_CAPTURES, error.to_string()).hint("end one of them first")
        }
    }
}

/// Carries a capture to its reader until either is gone. A slow reader is waited for here; the workers do not wait.
async fn feed(session: Arc<Session>, news: Arc<Notify>, head: Vec<u8>, to: mpsc::Sender<Bytes>) {
    let Session { capture, sent } = &*session;
    let (mut sources, mut told) = (Sources::default(), 0);
    if to.send(head.into()).await.is_err() {
        return;
    }
    loop {
        // Read before the queue is: what is over gets no more chunks.
        let over = capture.is_over();
        while let Some(chunk) = capture.take() {
            let mut out = Vec::new();
            let count = chunk.records().map(|record| put(&mut out, &mut sources, &record)).count();
            capture.give_back(chunk);
            sent.fetch_add(count as u64, Ordering::Relaxed);
            if to.send(out.into()).await.is_err() {
                return;
            }
        }
        let dropped = capture.dropped();
        if dropped != told || over {
            told = dropped;
            let mut out = Vec::new();
            pcapng::statistics(&mut out, now_ns(), sent.load(Ordering::Relaxed) + dropped, dropped);
            if to.send(out.into()).await.is_err() || over {
                return;
            }
        }
        if capture.may_sleep() {
            tokio::select! {
                () = to.closed() => return,
                () = news.notified() => {}
            }
        }
    }
}

/// Appends a record. A datagram gets its outer headers back.
fn put(out: &mut Vec<u8>, sources: &mut Sources, record: &Record<'_>) {
    let inbound = record.header.direction == Direction::In;
    let outer = record.header.underlay.map_or_else(Vec::new, |(remote, own_port)| {
        let own = SocketAddr::new(sources.toward(remote), own_port);
        let (from, to) = if inbound { (remote, own) } else { (own, remote) };
        outer::headers(from, to, record.header.len as usize)
    });
    let len = record.header.len.saturating_add(outer.len() as u32);
    let bytes = [outer.as_slice(), record.bytes];
    pcapng::packet(out, &pcapng::Packet { at_ns: record.header.at_ns, inbound, len, bytes });
}

/// The addresses from which this host sends to others: the data socket is bound to all.
#[derive(Default)]
struct Sources(BTreeMap<IpAddr, IpAddr>);

impl Sources {
    fn toward(&mut self, remote: SocketAddr) -> IpAddr {
        *self.0.entry(remote.ip()).or_insert_with(|| source_toward(remote))
    }
}

/// What the routes say; the wildcard when they say nothing.
fn source_toward(remote: SocketAddr) -> IpAddr {
    let wildcard: IpAddr = match remote {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((wildcard, 0));
    // Connecting a UDP socket sends nothing.
    let asked = socket.and_then(|socket| socket.connect(remote).and_then(|()| socket.local_addr()));
    asked.map_or(wildcard, |addr| addr.ip())
}

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// The body of an answer that goes on until the capture or its reader ends.
pub(super) struct Stream(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Stream {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}
