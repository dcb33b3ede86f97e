//! Connections come about here: by dialling, and by being dialled.

mod guests;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use engine::types::{PeerId, canonical};
use quinn::{Connection, Incoming};
use tokio::net::{UdpSocket, lookup_host};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use self::guests::{Guests, Seat, Verdict};
use super::admission::{self, Denied, Streams};
use super::frames::Frame;
use super::link::{self, Link};
use super::quic::{Quic, peer};
use super::reason;
use super::tls::ServerCheck;
use super::vacancy::Listener;
use crate::mesh::{ConnId, DialId, DialTarget, Target};
use crate::secret::{Admission, Refusal, Role};

/// How long one address may take to answer.
const ATTEMPT: Duration = Duration::from_secs(3);
/// How long a name may take to be resolved.
const LOOKUP: Duration = Duration::from_secs(5);
/// The head start of an address before the next one is tried beside it (RFC 8305 section 5).
const HEAD_START: Duration = Duration::from_millis(250);
/// More addresses than any host has: what a name server says is not trusted to be short.
const ADDRESSES_MAX: usize = 16;
/// How long a host that dials us may take for the handshake of TLS.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// What happened on the wires, in the order of each connection.
#[derive(Debug)]
pub(super) enum WireEvent {
    /// A connection stands, and its far end has proved to be `peer`.
    Established { conn: ConnId, peer: PeerId, dial: Option<DialId>, remote: SocketAddr, link: Link },
    /// Something came on a connection.
    Frame { conn: ConnId, frame: Frame },
    /// The far end of a connection has another address now.
    Moved { conn: ConnId, remote: SocketAddr },
    /// A connection ended. Nothing follows.
    Closed { conn: ConnId, reason: String },
    /// The name of a dial has addresses, which are tried now.
    Resolved { dial: DialId },
    /// Nobody listens there any more, says the machine.
    Vacant { remote: SocketAddr },
    /// A dial came to nothing.
    DialFailed { dial: DialId, reason: String },
    /// One side did not let the other in: no connection came about.
    Refused { peer: PeerId, dial: Option<DialId>, remote: SocketAddr, refusal: Refusal },
}

/// Makes connections and reads them; what happens is told through one channel.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    quic: Quic,
    me: PeerId,
    admission: watch::Receiver<Admission>,
    inbox: mpsc::Sender<WireEvent>,
    next: Arc<AtomicU64>,
    guests: Guests,
}

impl Connector {
    pub(super) fn new(
        quic: Quic,
        me: PeerId,
        admission: watch::Receiver<Admission>,
        inbox: mpsc::Sender<WireEvent>,
    ) -> Self {
        Connector { quic, me, admission, inbox, next: Arc::default(), guests: Guests::default() }
    }

    /// Dials, and follows the connection to its end. The answer is `Established`, `Refused` or `DialFailed` with the same
    /// number.
    pub(super) async fn dial(self, dial: DialId, target: DialTarget) {
        match self.reach(dial, target).await {
            Ok(connection) => {
                if let Some((peer, streams)) = self.let_in(&connection, Some(dial)).await {
                    self.serve(connection, peer, streams, Some(dial)).await;
                }
            }
            Err(reason) => self.tell(WireEvent::DialFailed { dial, reason }).await,
        }
    }

    /// Lets the far end in, or tells that nothing came of it.
    async fn let_in(&self, connection: &Connection, dial: Option<DialId>) -> Option<(PeerId, Streams)> {
        let role = if dial.is_some() { Role::Dialler } else { Role::Acceptor };
        let peer = peer(connection)?;
        let admission = self.admission.borrow().clone();
        let denied = match admission::admit(connection, &admission, role, (self.me, peer)).await {
            Ok(streams) => return Some((peer, streams)),
            Err(denied) => denied,
        };
        match (denied, dial) {
            (Denied::Refused(refusal), _) => {
                let remote = canonical(connection.remote_address());
                self.tell(WireEvent::Refused { peer, dial, remote, refusal }).await;
            }
            (Denied::Lost(reason), Some(dial)) => self.tell(WireEvent::DialFailed { dial, reason }).await,
            // As with a handshake that fails: it is the dialler's to report.
            (Denied::Lost(_), None) => {}
        }
        None
    }

    async fn reach(&self, dial: DialId, target: DialTarget) -> Result<Connection, String> {
        let (addrs, expected) = match target {
            DialTarget::Named(target) => (resolve(&target).await?, None),
            DialTarget::Addr { addrs, peer } => (addrs, Some(peer)),
        };
        self.tell(WireEvent::Resolved { dial }).await;
        race(&self.quic, distinct(addrs), expected).await
    }

    /// Accepts hosts, and follows their connections, until the endpoint is closed.
    pub(super) async fn accept(self) {
        let mut guests = JoinSet::new();
        loop {
            tokio::select! {
                incoming = self.quic.accept() => match incoming {
                    Some(incoming) => self.admit(incoming, &mut guests),
                    None => return,
                },
                Some(_) = guests.join_next() => {}
            }
        }
    }

    /// Hears of addresses where nobody listens any more, until it is dropped.
    pub(super) async fn hear_of_vacancies(self) {
        let Some(socket) = self.quic.socket() else { return };
        let failed = match socket.errors().listen() {
            Ok(errors) => self.hear(&errors).await,
            Err(error) => error,
        };
        tracing::warn!(%failed, "refusals are not heard: a killed daemon is known as late as a lost machine");
    }

    /// Hears until that fails.
    async fn hear(&self, errors: &Listener) -> io::Error {
        loop {
            match errors.next().await {
                // It is said again at the next packet; who is behind with all else need not hear it now.
                Ok(remote) => _ = self.inbox.try_send(WireEvent::Vacant { remote: canonical(remote) }),
                Err(error) => return error,
            }
        }
    }

    fn admit(&self, incoming: Incoming, guests: &mut JoinSet<()>) {
        match self.guests.judge(incoming.remote_address().ip(), incoming.remote_address_validated()) {
            Verdict::Accept(seat) => _ = guests.spawn(self.clone().welcome(incoming, seat)),
            // It fails only for who has been through it.
            Verdict::Retry => _ = incoming.retry(),
            Verdict::Refuse => incoming.refuse(),
        }
    }

    async fn welcome(self, incoming: Incoming, mut seat: Seat) {
        let shaken =
            timeout(HANDSHAKE, async { incoming.accept().map_err(|_| ())?.await.map_err(|_| ()) }).await;
        // A handshake that fails is the dialler's to report: nothing is known about who it was.
        let admitted = match shaken {
            Ok(Ok(connection)) => self.let_in(&connection, None).await.map(|admitted| (connection, admitted)),
            Ok(Err(())) | Err(_) => None,
        };
        if let Some((connection, (peer, streams))) = admitted {
            seat.stand(connection.remote_address().ip());
            self.serve(connection, peer, streams, None).await;
        }
    }

    /// Follows a connection from its first to its last event.
    async fn serve(self, connection: Connection, peer: PeerId, streams: Streams, dial: Option<DialId>) {
        let conn = ConnId(self.next.fetch_add(1, Ordering::Relaxed));
        let remote = canonical(connection.remote_address());
        let link = Link::new(connection.clone(), streams.send);
        self.tell(WireEvent::Established { conn, peer, dial, remote, link }).await;
        let reason = link::read(&connection, streams.receive, conn, &self.inbox).await;
        self.tell(WireEvent::Closed { conn, reason }).await;
    }

    async fn tell(&self, event: WireEvent) {
        // Nobody listens any more once the daemon stops.
        let _ = self.inbox.send(event).await;
    }
}

/// Connects to a host at the first of its addresses that answers.
async fn race(quic: &Quic, addrs: Vec<SocketAddr>, expected: Option<PeerId>) -> Result<Connection, String> {
    let prize = Arc::new(AtomicBool::new(false));
    let mut waiting = addrs.into_iter();
    let mut attempts = JoinSet::new();
    let mut failures = Vec::new();
    loop {
        if let Some(addr) = waiting.next() {
            let check = Arc::new(ServerCheck::new(expected, prize.clone()));
            let quic = quic.clone();
            attempts.spawn(async move { (addr, attempt(&quic, addr, check).await) });
        }
        let patience = if waiting.len() > 0 { HEAD_START } else { ATTEMPT * 2 };
        match timeout(patience, attempts.join_next()).await {
            Ok(Some(Ok((_, Ok(connection))))) => return Ok(connection),
            Ok(Some(Ok((addr, Err(reason))))) => failures.push((addr, reason)),
            Ok(None) if waiting.len() == 0 => return Err(told_together(&failures)),
            Ok(_) | Err(_) => {}
        }
    }
}

/// The addresses of a name, asked anew each time: names move.
async fn resolve(target: &Target) -> Result<Vec<SocketAddr>, String> {
    let Target { host, port } = target;
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, *port)]);
    }
    match timeout(LOOKUP, lookup_host((host.as_str(), *port))).await {
        Ok(Ok(addrs)) => Ok(addrs.collect()),
        Ok(Err(error)) => Err(reason::lookup(host, &error)),
        Err(_) => Err(format!("name {host} not found: no answer for {} s", LOOKUP.as_secs())),
    }
}

fn distinct(addrs: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let mut seen = BTreeSet::new();
    let mut addrs: Vec<_> = addrs.into_iter().map(canonical).filter(|addr| seen.insert(*addr)).collect();
    addrs.truncate(ADDRESSES_MAX);
    addrs
}

async fn attempt(quic: &Quic, addr: SocketAddr, check: Arc<ServerCheck>) -> Result<Connection, String> {
    let connecting = quic.connect(addr, check.clone())?;
    tokio::select! {
        shaken = connecting => shaken.map_err(|error| match check.unexpected() {
            Some((met, expected)) => format!("the host there is {met}, expected {expected}"),
            None => reason::connection(&error),
        }),
        reason = refusal(addr, quic.listen()) => Err(reason),
        () = sleep(ATTEMPT) => Err(format!("timed out after {} s", ATTEMPT.as_secs())),
    }
}

/// Returns when the network says that nobody listens at `addr`. QUIC cannot hear that, because the kernel tells it
/// only to a socket that is connected to the one address; so an empty datagram, which means nothing to anybody,
/// goes out from such a socket.
async fn refusal(addr: SocketAddr, from: Option<IpAddr>) -> String {
    match probe(addr, from).await {
        Ok(never) => match never {},
        Err(error) => reason::network(&error),
    }
}

async fn probe(addr: SocketAddr, from: Option<IpAddr>) -> io::Result<Infallible> {
    let any = if addr.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let from = from.filter(|from| from.is_ipv4() == addr.is_ipv4()).unwrap_or(any);
    let socket = UdpSocket::bind((from, 0)).await?;
    socket.connect(addr).await?;
    socket.send(&[]).await?;
    loop {
        socket.recv(&mut [0; 1]).await?;
    }
}

/// One reason if all agree, else each with its address.
fn told_together(failures: &[(SocketAddr, String)]) -> String {
    match failures {
        [] => "no address is known".to_owned(),
        [(_, first), rest @ ..] if rest.iter().all(|(_, reason)| reason == first) => first.clone(),
        _ => failures.iter().map(|(addr, reason)| format!("{addr}: {reason}")).collect::<Vec<_>>().join("; "),
    }
}

#[cfg(test)]
mod tests;
