//! From nothing to ready, and back to nothing.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use engine::Update;
use engine::io::engine::{self as data_plane, Engine, EngineConfig};
use engine::io::netns::Netns;
use engine::io::socket::SocketError;
use engine::types::PeerId;
use nix::unistd::{Gid, geteuid};
use peering::io::{BindError, Peering, PeeringConfig, StartError, StoreError};
use peering::secret::Secret;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::lock::{Holder, Lock};
use super::ports::Ports;
use super::ready::{self, Launcher};
use super::resolvers::Resolvers;
use super::sealing::Asked;
use super::{Daemon, api, follow, metrics, reattach, wipe, wiring};
use crate::allowed;
use crate::args::LaunchArgs;
use crate::client::{Client, SOCKET};
use crate::failure::{Failure, code};
use crate::log::Tail;
use crate::secret;
use crate::shape::Hello;

/// Keys are kept there: it is the owner's alone.
pub(crate) const STATE_DIR_MODE: u32 = 0o700;
/// Socket and lock are there, for everybody to see.
pub(crate) const RUN_DIR_MODE: u32 = 0o755;
/// What to do about an address that is not ours.
const LISTEN_HINT: &str = "choose an address of this host with --listen";
/// How long a daemon that is ending may take until another starts in its place.
const LAST_ONE: Duration = Duration::from_secs(10);
/// How long a running daemon may take to say that it runs.
const ANSWER: Duration = Duration::from_secs(1);
/// How long attachments that are under way may take to be undone at the end.
const UNDO: Duration = Duration::from_secs(2);
/// How long the word of our leaving may take to get out.
const FAREWELL: Duration = Duration::from_secs(2);

/// What the daemon is told at its start.
pub(crate) struct Options {
    /// Socket, lock and log.
    pub(crate) run_dir: PathBuf,
    /// What the log says.
    pub(crate) log: Tail,
    /// All else.
    pub(crate) launch: LaunchArgs,
}

/// Runs the daemon until it is told to stop.
///
/// Members of `group` may use it, beside root.
pub(crate) async fn run(
    options: Options,
    group: Option<Gid>,
    launcher: &mut Launcher,
) -> Result<(), Failure> {
    check_host()?;
    let run_dir = options.run_dir.clone();
    if run_dir == options.launch.state_dir {
        return Err(Failure::new(code::START_FAILED, "--run-dir and --state-dir are the same directory")
            .hint("both hold a lock: give each its own"));
    }
    make_dir(&run_dir, RUN_DIR_MODE)?;
    check_run_dir(&run_dir)?;
    let lock = take_lock(&run_dir).await?;
    lock.give_to(group).map_err(|e| unusable_lock(&run_dir, &e))?;
    let signals = Signals::new().map_err(Failure::internal)?;
    let result = serve(options, group, launcher, signals).await;
    // Nothing of this is worth failing for: the process ends, and the next daemon takes over what is left.
    let _ = api::remove(&run_dir);
    let _ = lock.release();
    result
}

/// What every daemon needs, before anything is touched.
pub(crate) fn check_host() -> Result<(), Failure> {
    if !geteuid().is_root() {
        return Err(Failure::new(code::NOT_PERMITTED, "only root may make network devices").hint("use sudo"));
    }
    let opened = std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun");
    opened.map(drop).map_err(|e| {
        Failure::new(code::NO_TUN, format!("/dev/net/tun cannot be opened: {e}"))
            .hint("load the module with `modprobe tun`, or give this container the device")
    })
}

/// Makes a directory, with those above it, if it is not there; whatever the umask is.
pub(crate) fn make_dir(dir: &Path, mode: u32) -> Result<(), Failure> {
    make_all(dir, mode).map_err(|e| {
        Failure::new(code::START_FAILED, format!("{} cannot be made: {e}", dir.display()))
            .hint("choose other places with --run-dir and --state-dir")
    })
}

fn make_all(dir: &Path, mode: u32) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        make_all(parent, mode)?;
    }
    match std::fs::DirBuilder::new().mode(mode).create(dir) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        made => made.and_then(|()| std::fs::set_permissions(dir, Permissions::from_mode(mode))),
    }
}

/// Whoever may write in the run directory may put another socket in place of ours, or lead us to another file.
fn check_run_dir(dir: &Path) -> Result<(), Failure> {
    let meta = std::fs::metadata(dir).map_err(Failure::internal)?;
    if meta.uid() == geteuid().as_raw() && meta.mode() & 0o022 == 0 {
        return Ok(());
    }
    let (mode, owner) = (meta.mode() & 0o777, meta.uid());
    let message =
        format!("others may write in the run directory {} (mode {mode:03o}, owner {owner})", dir.display());
    Err(Failure::new(code::RUN_DIR_OPEN, message)
        .hint("`chown root` and `chmod 755` it, or choose another with --run-dir"))
}

fn unusable_lock(run_dir: &Path, error: &io::Error) -> Failure {
    Failure::new(code::START_FAILED, format!("{}: {error}", run_dir.join("lock").display()))
}

/// Takes the lock, over from a daemon that died or is about to end.
async fn take_lock(run_dir: &Path) -> Result<Lock, Failure> {
    let unusable = |e: io::Error| unusable_lock(run_dir, &e);
    if let Ok(lock) = Lock::take_within(run_dir, Duration::ZERO).await.map_err(unusable)? {
        return Ok(lock);
    }
    // Held: by a daemon that answers, or by one that does not any more.
    let client = Client::new(run_dir);
    if let Ok(Ok(hello)) = tokio::time::timeout(ANSWER, client.get::<Hello>("/hello")).await {
        return Err(running(run_dir, Some(hello.pid)));
    }
    match Lock::take_within(run_dir, LAST_ONE).await.map_err(unusable)? {
        Ok(lock) => Ok(lock),
        Err(holder) => Err(running(run_dir, holder.map(|Holder { pid, .. }| pid))),
    }
}

fn running(run_dir: &Path, pid: Option<u32>) -> Failure {
    let who = pid.map_or(String::new(), |pid| format!(" as process {pid}"));
    Failure::new(
        code::ALREADY_RUNNING,
        format!("meshnet is running already{who} (run directory {})", run_dir.display()),
    )
    .hint("add peers with `meshnet connect PEER`, or end it with `meshnet stop`")
}

async fn serve(
    options: Options,
    group: Option<Gid>,
    launcher: &mut Launcher,
    signals: Signals,
) -> Result<(), Failure> {
    let metrics = match options.launch.metrics_addr {
        Some(addr) => Some(metrics::bind(addr).await?),
        None => None,
    };
    let daemon = begin(options.launch, options.log).await?;
    tokio::select! {
        done = live(&daemon, (&options.run_dir, group), metrics, launcher, signals) => done,
        crash = daemon.peering.crashed() => Err(crashed(&crash)),
    }
}

/// From the ports of the last daemon to the farewell.
async fn live(
    daemon: &Arc<Daemon>,
    (run_dir, group): (&Path, Option<Gid>),
    metrics: Option<TcpListener>,
    launcher: &mut Launcher,
    mut signals: Signals,
) -> Result<(), Failure> {
    reattach::reattach(daemon).await?;
    let mut warnings = daemon.check_range_at_launch().await?;
    warnings.extend(daemon.trust_warning().map(|warning| warning.message));
    daemon.check_secret_file().await;
    let listener = listen(run_dir, group)?;
    tokio::spawn(api::serve(Arc::clone(daemon), run_dir.join(SOCKET), listener));
    if let Some(metrics) = metrics {
        tokio::spawn(metrics::serve(Arc::clone(daemon), metrics));
    }
    let pointing = Arc::clone(daemon);
    tokio::spawn(async move { pointing.point_all().await });
    tokio::spawn(follow::docker(Arc::clone(daemon)));
    daemon.ready.store(true, Ordering::Relaxed);
    let Hello { version, peer_id, nickname, .. } = &daemon.hello;
    tracing::info!(peer = peer_id, nickname, version, "ready");
    let hello = Hello { warnings, ..daemon.hello.clone() };
    if launcher.ready(&hello).is_err() {
        tracing::warn!("whoever launched this daemon has gone away: stopping");
        daemon.stop();
    }
    let mut stopping = daemon.stopping.subscribe();
    tokio::select! {
        () = signals.wait() => daemon.stop(),
        _ = stopping.wait_for(|stopping| *stopping) => {}
    }
    end(daemon).await;
    if daemon.leaving.load(Ordering::Relaxed) {
        let dir = &daemon.state_dir;
        wipe::wipe(dir).map_err(|e| wipe::failure(dir, &e))?;
    }
    Ok(())
}

/// Starts both planes and wires them. The data plane first: a host that cannot carry frames shall not show itself.
async fn begin(launch: LaunchArgs, log: Tail) -> Result<Arc<Daemon>, Failure> {
    let secret = secret::load(launch.secret_file.as_deref())?;
    let source = secret::source(launch.secret_file.as_deref(), secret.as_ref());
    let allowed = launch.allow_peers.as_deref().map(allowed::load).transpose()?;
    make_dir(&launch.state_dir, STATE_DIR_MODE)?;
    let own = Netns::current().map_err(Failure::internal)?.id();
    let nickname = launch.nickname.clone().unwrap_or_else(host_name);
    let (engine, engine_events) = Engine::start(&engine_config(&launch)).map_err(|e| engine_failure(&e))?;
    let started = Peering::start(peering_config(&launch, &nickname, (secret, allowed))).await;
    let (peering, mesh_events) = started.map_err(|e| peering_failure(&e))?;
    let asked = Asked::of(&launch);
    if asked.seals(peering.is_open()) {
        engine.set_identity(asked.identity(&peering).await);
    }
    // The control plane holds the lock of the directory: from here on nobody else writes there.
    let (ports, lost) = Ports::load(&launch.state_dir).map_err(|e| peering_failure(&e.into()))?;
    let (resolvers, unread) = Resolvers::load(&launch.state_dir).map_err(|e| peering_failure(&e.into()))?;
    engine.apply([Update::SetDns { ttl_s: launch.dns_ttl }]);
    let hello = Hello {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        peer_id: peering.peer_id().to_string(),
        nickname,
        pid: std::process::id(),
        warnings: Vec::new(),
    };
    let daemon =
        Arc::new(Daemon::new(hello, own, (engine, peering), (ports, resolvers), (&launch, source), log));
    if let Some(lost) = lost {
        daemon.ports_lost(lost.message);
    }
    if let Some(unread) = unread {
        daemon.tell("resolvers_set_aside", unread.message);
    }
    tokio::spawn(wiring::run(Arc::clone(&daemon), mesh_events, engine_events));
    Ok(daemon)
}

/// Leaves: no new ports, no device half made, and the others are told.
async fn end(daemon: &Arc<Daemon>) {
    tracing::info!("stopping");
    ready::stopping();
    drop(daemon.turn.lock().await);
    if tokio::time::timeout(FAREWELL, daemon.peering.stop()).await.is_err() {
        tracing::warn!("the other hosts could not be told in time");
    }
    // The refusals of the stopped control plane reach those who wait for addresses, and they undo what they began.
    let pending = async {
        loop {
            let changed = daemon.changed.notified();
            if daemon.ports().all().all(|i| !i.addresses.is_empty()) {
                return;
            }
            changed.await;
        }
    };
    let _ = tokio::time::timeout(UNDO, pending).await;
    drop(daemon.turn.lock().await);
    tracing::info!("stopped");
}

/// The containers keep their interfaces, and the next daemon takes them up.
fn crashed(crash: &str) -> Failure {
    Failure::new(code::INTERNAL, format!("the control plane crashed, so the daemon ends: {crash}"))
        .hint("start it again with `meshnet launch`, and report what the log says")
}

fn listen(run_dir: &Path, group: Option<Gid>) -> Result<UnixListener, Failure> {
    api::bind(run_dir, group).map_err(|e| {
        Failure::new(code::START_FAILED, format!("the socket in {} cannot be made: {e}", run_dir.display()))
            .hint("choose another place with --run-dir")
    })
}

/// The signals that ask for a good end.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn engine_config(args: &LaunchArgs) -> EngineConfig {
    EngineConfig {
        workers: workers(args),
        listen: args.listen,
        data_port: args.data_port,
        source_ports: usize::from(args.source_ports),
        tunnel_gso: !args.no_tunnel_gso,
        destinations: !args.trusted_subnets.is_empty(),
        seed: rand::random(),
    }
}

fn peering_config(
    args: &LaunchArgs,
    nickname: &str,
    (secret, allowed): (Option<Secret>, Option<BTreeSet<PeerId>>),
) -> PeeringConfig {
    let asked = Asked::of(args);
    PeeringConfig {
        state_dir: args.state_dir.clone(),
        nickname: nickname.to_owned(),
        listen: args.listen,
        port: args.port,
        data_port: args.data_port,
        advertise_addr: args.advertise_addr,
        data_addr: args.data_addr,
        targets: args.peers.clone(),
        range: args.ipalloc_range,
        reclaim_after: args.reclaim_after,
        discovery: !args.no_discovery,
        found: args.found,
        mtu: args.mtu,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        secret,
        allowed,
        encryption: asked.encryption(),
        suites: asked.suites().to_vec(),
        trusted: asked.trusted().to_vec(),
    }
}

/// Half of the cores, at least one and at most eight, unless somebody wishes otherwise.
fn workers(args: &LaunchArgs) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    args.workers.map_or((cores / 2).clamp(1, 8), usize::from)
}

fn host_name() -> String {
    let read = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    crate::args::name(read.trim()).unwrap_or_else(|_| "host".to_owned())
}

fn peering_failure(error: &StartError) -> Failure {
    let hint = match error {
        StartError::Store(StoreError::Locked { .. }) => {
            "give every daemon a directory of its own with --state-dir"
        }
        StartError::Store(StoreError::Newer { .. }) => {
            "launch that one, choose another directory with --state-dir, or move the file away"
        }
        StartError::Store(_) | StartError::Identity(_) | StartError::Mesh(_) => {
            "repair the directory, or choose another with --state-dir"
        }
        StartError::Bind(BindError::NotLocal { .. }) => LISTEN_HINT,
        // The message says it.
        StartError::Bind(_) | StartError::Random => return Failure::new(error.code(), error.to_string()),
    };
    Failure::new(error.code(), error.to_string()).hint(hint)
}

fn engine_failure(error: &data_plane::StartError) -> Failure {
    match error {
        data_plane::StartError::Socket(SocketError::InUse { .. }) => {
            Failure::new(code::PORT_IN_USE, error.to_string())
                .hint("stop it, or choose another port with --data-port (the same on all hosts)")
        }
        data_plane::StartError::Socket(SocketError::NotLocal { .. }) => {
            Failure::new(code::ADDRESS_NOT_LOCAL, error.to_string()).hint(LISTEN_HINT)
        }
        data_plane::StartError::Socket(_)
        | data_plane::StartError::Netlink(_)
        | data_plane::StartError::System(_) => Failure::new(code::START_FAILED, error.to_string()),
    }
}
