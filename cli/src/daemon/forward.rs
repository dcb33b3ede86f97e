//! Questions about names that are not ours go on to other name servers: those that the container had, asked out of its own
//! namespace so that Docker's 127.0.0.11 goes on working, then those of this host.
//!
//! They go on as they came. A resolver library would take them apart and put them together again, and lose what it does not know.

mod ask;
mod upstreams;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use engine::Update;
use engine::gateway::domain::DOMAIN;
use engine::types::PortId;

use super::ports::Intent;
use super::{Daemon, lock_of};
use crate::resolver::cache::{Cache, Scope};
use crate::resolver::choice::{Attempt, Grudges, Origin, Outcome, Round, Server};
use crate::resolver::message::{Message, addressed, failure};
use crate::shape::{DnsForwarded, DnsStatus};
use upstreams::Upstreams;

/// Most questions that are on their way at once, of all containers and of one.
const MAX_PENDING: usize = 512;
const MAX_PENDING_OF_PORT: usize = 128;
/// How often one looks whether the container still lives while a socket pins its namespace.
const GLANCE: Duration = Duration::from_millis(200);

/// What is known of other name servers.
#[derive(Debug)]
pub(super) struct Forwarder {
    cache: Mutex<Cache>,
    grudges: Mutex<Grudges>,
    upstreams: Mutex<Upstreams>,
    pending: Mutex<BTreeMap<PortId, usize>>,
    counts: Mutex<DnsForwarded>,
}

impl Forwarder {
    /// With the name servers of this host in `conf`.
    pub(super) fn new(conf: &Path) -> Self {
        Forwarder {
            cache: Mutex::default(),
            grudges: Mutex::default(),
            upstreams: Mutex::new(Upstreams::new(conf)),
            pending: Mutex::default(),
            counts: Mutex::default(),
        }
    }

    /// The name servers of this host, read again if the file has changed; then what they said counts no more.
    fn host_servers(&self) -> Vec<IpAddr> {
        let (servers, changed) = lock_of(&self.upstreams).servers();
        if changed {
            lock_of(&self.cache).forget(Scope::Host);
        }
        servers
    }

    fn count(&self, change: impl FnOnce(&mut DnsForwarded)) {
        change(&mut lock_of(&self.counts));
    }

    /// Room for one more question of a port; none: it has too many on their way, or all together have.
    fn enter(self: &Arc<Self>, port: PortId) -> Option<Pending> {
        let mut pending = lock_of(&self.pending);
        let (all, own) = (pending.values().sum::<usize>(), pending.get(&port).copied().unwrap_or(0));
        if all >= MAX_PENDING || own >= MAX_PENDING_OF_PORT {
            return None;
        }
        pending.insert(port, own + 1);
        Some(Pending { forwarder: Arc::clone(self), port })
    }
}

/// A question on its way; it is none any more when this is dropped.
struct Pending {
    forwarder: Arc<Forwarder>,
    port: PortId,
}

impl Drop for Pending {
    fn drop(&mut self) {
        let mut pending = lock_of(&self.forwarder.pending);
        if let Some(own) = pending.get_mut(&self.port) {
            *own -= 1;
            if *own == 0 {
                pending.remove(&self.port);
            }
        }
    }
}

impl Daemon {
    /// Finds an answer for a container, and gives it to the gateway: of whomever, or that nobody had one.
    pub(super) async fn forward(self: Arc<Self>, question: u64, port: PortId, message: Vec<u8>, tcp: bool) {
        let answer = match (Message::parse(&message), self.forwarder.enter(port)) {
            (Some(asked), Some(_pending)) => self.find(port, &asked, &message, tcp).await,
            (Some(asked), None) => {
                self.forwarder.count(|counts| counts.refused += 1);
                failure(&asked)
            }
            // The gateway has read it before; whatever this is, nobody waits for an answer.
            (None, _) => return,
        };
        self.engine.apply([Update::Answer { question, message: answer }]);
    }

    async fn find(self: &Arc<Self>, port: PortId, asked: &Message<'_>, message: &[u8], tcp: bool) -> Vec<u8> {
        let intent = self.ports().by_id(port).cloned();
        let own = intent.as_ref().map(|i| self.former_servers(&i.source)).unwrap_or_default();
        let scope = match &intent {
            Some(intent) if !own.is_empty() => Scope::Container(intent.netns.0, intent.netns.1),
            Some(_) | None => Scope::Host,
        };
        let servers = self.servers(intent.as_ref(), &own);
        let now = Instant::now();
        let kept = lock_of(&self.forwarder.cache).find(now, scope, asked);
        let answer = match kept {
            Some(answer) => Some(answer),
            None => {
                let answer = self.ask_round(intent.as_ref(), servers, message, tcp).await;
                if let Some(answer) = &answer {
                    lock_of(&self.forwarder.cache).keep(Instant::now(), scope, asked, answer);
                }
                answer
            }
        };
        let answer = answer.and_then(|answer| addressed(&answer, asked));
        self.forwarder.count(|counts| match answer {
            Some(_) => counts.answered += 1,
            None => counts.failed += 1,
        });
        answer.unwrap_or_else(|| failure(asked))
    }

    /// Whom to ask for a container, in order. Our own gateways are left out: they would ask us.
    fn servers(&self, intent: Option<&Intent>, own: &[IpAddr]) -> Vec<Server> {
        let from = intent.map(|intent| Origin::Container(intent.netns.0, intent.netns.1));
        let own = own.iter().filter_map(|ip| Some(Server::new(from?, *ip)));
        let host = self.forwarder.host_servers();
        let all = own.chain(host.into_iter().map(|ip| Server::new(Origin::Host, ip)));
        let loops = self.all_gateways();
        let all = all.filter(|server| !loops.contains(&server.addr.ip()) && is_unicast(server.addr.ip()));
        let all = all.collect();
        lock_of(&self.forwarder.grudges).order(Instant::now(), all)
    }

    /// Asks one server after the other.
    async fn ask_round(
        self: &Arc<Self>,
        intent: Option<&Intent>,
        servers: Vec<Server>,
        message: &[u8],
        tcp: bool,
    ) -> Option<Vec<u8>> {
        // A number of our own: whoever guesses the one of the asker learns nothing.
        let mut sent = message.to_vec();
        sent.get_mut(..2)?.copy_from_slice(&rand::random::<[u8; 2]>());
        let asked = Message::parse(&sent)?;
        let mut round = Round::new(Instant::now(), servers, tcp);
        while let Some(attempt) = round.next(Instant::now()) {
            self.forwarder.count(|counts| counts.asked += 1);
            let outcome = self.attempt(intent, attempt, &sent).await;
            let mut grudges = lock_of(&self.forwarder.grudges);
            if let Some(answer) = round.handle(Instant::now(), &mut grudges, &asked, outcome) {
                return Some(answer);
            }
        }
        round.poor()
    }

    /// One question to one server, for as long as it may take and the container lives.
    async fn attempt(self: &Arc<Self>, intent: Option<&Intent>, attempt: Attempt, sent: &[u8]) -> Outcome {
        let asking = async {
            match (attempt.server.from, intent) {
                (Origin::Host, _) => ask::from_here(attempt, sent).await,
                (Origin::Container(..), Some(intent)) => {
                    let of = intent.clone();
                    let socket = self.blocking(move |_| ask::socket_in(&of, attempt)).await;
                    let socket = socket.map_err(std::io::Error::other)??;
                    tokio::select! {
                        answer = ask::with(socket, attempt, sent) => answer,
                        () = self.ended(intent) => Err(std::io::ErrorKind::NotConnected.into()),
                    }
                }
                (Origin::Container(..), None) => Err(std::io::ErrorKind::NotConnected.into()),
            }
        };
        match tokio::time::timeout(attempt.limit, asking).await {
            Ok(Ok(answer)) => Outcome::Answer(answer),
            Ok(Err(error)) => {
                tracing::debug!(server = %attempt.server.addr, "a name server cannot be asked: {error}");
                Outcome::Silence
            }
            Err(_) => Outcome::Silence,
        }
    }

    /// Waits until a container is no more: a socket must not keep its namespace.
    async fn ended(self: &Arc<Self>, intent: &Intent) {
        loop {
            tokio::time::sleep(GLANCE).await;
            let known = self.ports().by_id(intent.port).is_some_and(|now| now.running);
            if !known || !intent.may_live() {
                return;
            }
        }
    }

    /// Of `status`: how names are answered, and how many questions went on.
    pub(super) fn dns_status(&self) -> DnsStatus {
        let upstreams = self.forwarder.host_servers();
        let counts = lock_of(&self.forwarder.counts).clone();
        let cache = lock_of(&self.forwarder.cache);
        let forwarded = DnsForwarded { kept: cache.len(), from_cache: cache.hits(), ..counts };
        drop(cache);
        DnsStatus {
            domain: DOMAIN.to_owned(),
            ttl_s: self.dns_ttl_s,
            upstreams,
            forwarded,
            names: self.dns_names(),
        }
    }
}

/// Somebody who can answer.
fn is_unicast(ip: IpAddr) -> bool {
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    !(ip.is_unspecified() || ip.is_multicast() || broadcast)
}
