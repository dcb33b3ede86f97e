//! The daemon: the only place that sees both planes. It starts them, carries events between them, keeps the ports of
//! this host as they shall be, and answers on a socket.
//!
//! One thread runs everything here; the data plane has threads of its own; what blocks goes to a pool.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the shell: files, clocks and threads"
)]

mod api;
mod attach;
mod capture;
mod containers;
mod devices;
mod door;
mod expose;
mod follow;
mod forward;
mod guest;
pub(crate) mod lock;
mod manage;
mod metrics;
mod names;
mod networks;
mod pointing;
mod ports;
pub(crate) mod privileges;
mod range;
mod readdress;
pub(crate) mod ready;
mod reattach;
mod recover;
mod report;
mod reset;
mod resolv_file;
mod resolvers;
mod sealing;
mod secrets;
mod start;
mod status;
mod vtep;
pub(crate) mod wipe;
mod wiring;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use engine::io::engine::Engine;
use engine::io::netns::NetnsId;
use engine::types::{NetworkId, PeerId, PortId};
use peering::io::{Peering, StoreError};
use peering::mesh::NetworkView;
use tokio::sync::{Notify, watch};

use self::capture::Sessions;
use self::forward::Forwarder;
use self::names::{Asker, Names};
use self::networks::Networks;
use self::ports::{Intent, Ports};
use self::recover::Recovery;
use self::resolvers::Resolvers;
use self::sealing::{Agreements, Asked};
use self::status::Told;
use self::wiring::Paths;
use crate::args::LaunchArgs;
use crate::docker::Docker;
use crate::failure::{Failure, code};
use crate::log::Tail;
use crate::secret::Source;
use crate::shape::Hello;

pub(crate) use start::{Options, RUN_DIR_MODE, STATE_DIR_MODE, check_host, make_dir, run};

/// Everything the tasks of the daemon share.
struct Daemon {
    hello: Hello,
    log: Tail,
    started: Instant,
    state_dir: PathBuf,
    /// What was asked of the range, before the cluster had its say.
    wish: range::Wish,
    /// The namespace the daemon runs in: no container's.
    own: NetnsId,
    engine: Engine,
    peering: Peering,
    docker: Docker,
    ports: Mutex<Ports>,
    /// The containers that are pointed at our gateways.
    resolvers: Mutex<Resolvers>,
    /// Held while the file of one container is looked at.
    pointing: tokio::sync::Mutex<()>,
    /// Ports whose containers could not be pointed at a gateway, as it was told.
    untouched: Mutex<BTreeSet<PortId>>,
    /// The names that are answered.
    names: Mutex<Names>,
    /// What the data plane was told that its ports may ask for.
    askers: Mutex<BTreeMap<PortId, Asker>>,
    /// Asks other name servers.
    forwarder: Arc<Forwarder>,
    dns_ttl_s: u32,
    /// The ports whose devices the engine has.
    opened: Mutex<BTreeSet<PortId>>,
    /// Held by whoever makes or removes devices: one at a time.
    turn: tokio::sync::Mutex<()>,
    /// Held while the ports of one container are brought to what Docker says.
    settling: tokio::sync::Mutex<()>,
    /// Told after every change of the ports.
    changed: Notify,
    networks: watch::Sender<Networks>,
    paths: Mutex<Paths>,
    agreements: Mutex<Agreements>,
    /// The hosts to which frames go in clear though this host seals.
    in_clear: Mutex<BTreeSet<PeerId>>,
    /// Why there is no session with a host, where there should be one.
    session_faults: Mutex<BTreeMap<PeerId, String>>,
    asked: Asked,
    /// Where people keep the secret of this host.
    secret_source: Option<Source>,
    /// Why that is of no use any more.
    secret_stale: Mutex<Option<String>>,
    told: Mutex<VecDeque<Told>>,
    captures: Mutex<Sessions>,
    recovery: Mutex<Recovery>,
    range: Mutex<range::Findings>,
    ready: AtomicBool,
    /// This host left its cluster for good: nothing of it stays.
    leaving: AtomicBool,
    stopping: watch::Sender<bool>,
}

/// Whoever panicked left these maps whole: every change of them is a single call.
fn lock_of<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Daemon {
    fn new(
        hello: Hello,
        own: NetnsId,
        (engine, peering): (Engine, Peering),
        (ports, resolvers): (Ports, Resolvers),
        (launch, secret_source): (&LaunchArgs, Option<Source>),
        log: Tail,
    ) -> Self {
        Daemon {
            hello,
            log,
            started: Instant::now(),
            state_dir: launch.state_dir.clone(),
            wish: range::Wish::of(launch),
            range: Mutex::default(),
            own,
            engine,
            peering,
            docker: Docker::from_env(),
            ports: Mutex::new(ports),
            resolvers: Mutex::new(resolvers),
            pointing: tokio::sync::Mutex::default(),
            untouched: Mutex::default(),
            names: Mutex::default(),
            askers: Mutex::default(),
            forwarder: Arc::new(Forwarder::new(&launch.resolv_conf)),
            dns_ttl_s: launch.dns_ttl,
            opened: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            settling: tokio::sync::Mutex::default(),
            changed: Notify::new(),
            networks: watch::Sender::default(),
            paths: Mutex::default(),
            agreements: Mutex::default(),
            in_clear: Mutex::default(),
            session_faults: Mutex::default(),
            asked: Asked::of(launch),
            secret_source,
            secret_stale: Mutex::default(),
            told: Mutex::default(),
            captures: Mutex::default(),
            recovery: Mutex::default(),
            ready: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            stopping: watch::Sender::new(false),
        }
    }

    fn resolvers(&self) -> MutexGuard<'_, Resolvers> {
        lock_of(&self.resolvers)
    }

    fn ports(&self) -> MutexGuard<'_, Ports> {
        lock_of(&self.ports)
    }

    fn opened(&self) -> MutexGuard<'_, BTreeSet<PortId>> {
        lock_of(&self.opened)
    }

    fn paths(&self) -> MutexGuard<'_, Paths> {
        lock_of(&self.paths)
    }

    fn told(&self) -> MutexGuard<'_, VecDeque<Told>> {
        lock_of(&self.told)
    }

    /// Does something that waits for the kernel or the disk where it holds up nobody else.
    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Daemon) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let daemon = Arc::clone(self);
        tokio::task::spawn_blocking(move || work(&daemon)).await.map_err(Failure::internal)
    }

    /// Writes a port down, new or changed.
    async fn keep(self: &Arc<Self>, intent: Intent) -> Result<(), Failure> {
        let written = self.blocking(move |daemon| daemon.ports().put(intent)).await?;
        self.changed.notify_waiters();
        written.map_err(|e| store_failure(&e))
    }

    /// Fails when the ports of this host cannot be written now.
    async fn can_keep(self: &Arc<Self>) -> Result<(), Failure> {
        let written = self.blocking(|daemon| daemon.ports().rewrite()).await?;
        written.map_err(|e| store_failure(&e))
    }

    /// Strikes a port out.
    async fn forget(self: &Arc<Self>, port: PortId) -> Result<(), Failure> {
        let written = self.blocking(move |daemon| daemon.ports().remove(port)).await?;
        self.changed.notify_waiters();
        written.map_err(|e| store_failure(&e))
    }

    /// The settings of a network, awaited for at most `limit`: they follow its founding.
    async fn settings(&self, network: NetworkId, limit: Duration) -> Result<NetworkView, Failure> {
        let mut networks = self.networks.subscribe();
        let founded = networks.wait_for(|all| all.get(network).is_some_and(|view| view.founded));
        let _ = tokio::time::timeout(limit, founded).await;
        let view = self.networks.borrow().get(network).cloned();
        view.ok_or_else(|| Failure::internal(format!("the settings of the network {network} are not known")))
    }

    fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// Begins the end of the daemon.
    fn stop(&self) {
        self.stopping.send_replace(true);
    }

    fn refuse_when_stopping(&self) -> Result<(), Failure> {
        match *self.stopping.borrow() {
            false => Ok(()),
            true => Err(Failure::new(code::STOPPING, "the daemon is stopping")
                .hint("start it again with `meshnet launch`")),
        }
    }
}

fn store_failure(error: &StoreError) -> Failure {
    Failure::new(code::STORE_FAILED, format!("the ports could not be stored: {error}"))
        .hint("make room in the state directory, or make it writable")
}
