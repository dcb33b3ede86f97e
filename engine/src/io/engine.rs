//! The engine as the daemon holds it: workers, the control thread, and the tables between them.
//!
//! Updates are applied under one lock and published as a new snapshot; workers never take that lock. The
//! control thread owns the control sockets (probes, handshakes), ages learned addresses and tells events.

#![allow(clippy::disallowed_methods, reason = "the shell reads the clock")]

mod control;
mod doors;
mod due;
mod hops;
mod state;
mod thread;

use std::io;
use std::net::IpAddr;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use arc_swap::ArcSwap;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::capture::{self, Capture, CaptureError, Lens, MAX_CAPTURES, Place, Target};
use super::device::Device;
use super::gateway::{self, Door, Service};
use super::netlink::{Changes, Netlink, NetlinkError};
use super::socket::{self, DataSocket, SocketGroup, SocketLoad};
use super::tap::{Offloads, Tap};
use super::tunnel::{Tunnel, Underlay};
use super::watch::Watcher;
use super::worker::{Command, NewPort, PortGone, Shared, Sides, Worker};
use crate::counters::gateway::GatewayTotals;
use crate::counters::{Counters, PortCounters, PortTotals, Snapshot};
use crate::fence::Fence;
use crate::offload::join::Coalesce;
use crate::offload::source_port::SOURCE_PORTS;
use crate::rate::{Limit, Rate};
use crate::seam::{Event, Update};
use crate::session::chance::Chance;
use crate::session::keeper::Identity;
use crate::session::psk::Psk;
use crate::session::signals::Signals;
use crate::tables::{Entry, Tables};
use crate::types::{PortId, Vni};
use control::{Inner, WorkerEnd};
use state::{Control, OpenPort, Running};

/// How the data plane of this host is set up.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Data-plane threads, 1 to 8.
    pub workers: usize,
    /// The local address to receive on; all of them when not given.
    pub listen: Option<IpAddr>,
    /// The UDP port, 4789 unless changed.
    pub data_port: u16,
    /// From how many source ports each worker sends flows, at most
    /// [`SOURCE_PORTS`](crate::offload::source_port::SOURCE_PORTS); 0 sends all from the data port.
    pub source_ports: usize,
    /// Whether super-frames may leave whole where the underlay's device cuts them.
    pub tunnel_gso: bool,
    /// Whether it matters which address a datagram was sent to, as it does where anything is trusted: else no frame in clear is
    /// taken on a sealed network.
    pub destinations: bool,
    /// For the nonces of probes: from the system's generator, and used for nothing else.
    pub seed: [u8; 32],
}

/// Why the data plane could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data socket.
    #[error(transparent)]
    Socket(#[from] socket::SocketError),
    /// Routes and addresses cannot be watched.
    #[error("the data plane cannot be started: {0}")]
    Netlink(#[from] NetlinkError),
    /// Threads, epoll or event descriptors.
    #[error("the data plane cannot be started: {0}")]
    System(#[from] io::Error),
}

/// Why a port could not be served.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// A descriptor for each worker could not be had.
    #[error("the queues of the port cannot be shared out: {0}")]
    Queues(io::Error),
}

/// A running data plane. Dropping it stops the threads and closes every descriptor; interfaces stay.
pub struct Engine {
    inner: Arc<Inner>,
    watcher: Watcher,
    threads: Vec<JoinHandle<()>>,
}

/// How a port is served.
#[derive(Clone, Debug)]
pub struct PortSettings {
    /// The network it is on.
    pub vni: Vni,
    /// The most it may send, and be given.
    pub rate: Option<Rate>,
    /// What its container may send, until something is pinned to it; none: anything.
    pub fence: Option<Fence>,
}

/// The counters of the data plane at one moment.
#[derive(Clone, Debug)]
pub struct EngineSnapshot {
    /// One for each worker.
    pub workers: Vec<Snapshot>,
    /// All workers together.
    pub forwarded: Snapshot,
    /// The workers, the control socket and the gateway together.
    pub total: Snapshot,
    /// One for each open port.
    pub ports: Vec<PortSnapshot>,
    /// What the gateway did.
    pub gateway: GatewayTotals,
    /// The data socket of each worker, as the kernel sees it.
    pub sockets: Vec<SocketLoad>,
    /// The sockets for handshakes and probes, together.
    pub control_socket: SocketLoad,
    /// What the underlay socket was granted and refused.
    pub socket_offloads: Offloads,
}

/// The counters and the device of one port.
#[derive(Clone, Debug)]
pub struct PortSnapshot {
    /// The port.
    pub port: PortId,
    /// Its network.
    pub vni: Vni,
    /// The interface inside the container.
    pub ifname: String,
    /// What the device was granted and refused.
    pub offloads: Offloads,
    /// Frames and bytes, in from the container and out to it.
    pub totals: PortTotals,
}

impl Engine {
    /// Binds the data port and starts the threads. Events arrive on the returned channel.
    pub fn start(config: &EngineConfig) -> Result<(Engine, Receiver<Event>), StartError> {
        let SocketGroup { workers: sockets, control: socket, initiations } =
            socket::bind(config.listen, config.data_port, config.workers)?;
        let mut offloads = sockets.first().map(DataSocket::offloads).unwrap_or_default();
        let (events, event_receiver) = mpsc::channel();
        let (gone, gone_receiver) = mpsc::channel();
        let mut chance = Chance::new(config.seed);
        let mut control = Control::new(Instant::now(), chance.bytes(), events.clone());
        let (desk, answers) = gateway::open()?;
        let doors: Vec<Door> = sockets.iter().map(|_| desk.door()).collect();
        let tables = Arc::new(ArcSwap::new(control.registry.tables()));
        let wake = Arc::new(event_fd()?);
        let signals = Arc::new(Signals::default());
        let (tunnels, underlay) = open_tunnels(config, &mut offloads);
        let side = ControlSide { gone: &gone, wake: &wake, signals: &signals };
        let (ends, workers) = make_workers(config, (sockets, tunnels), &doors, &tables, &side)?;
        let lanes = doors.into_iter().zip(&ends).map(|(door, end)| (door.lane, Arc::clone(&end.wake)));
        let workers_of_gateway = lanes.collect();
        let for_gateway = Arc::clone(&tables);
        let inner = Arc::new(Inner {
            control: Mutex::new(control),
            desk: Arc::clone(&desk),
            tables,
            workers: ends,
            counters: Arc::new(Counters::new()),
            gauges: [socket.gauge()?, initiations.gauge()?],
            socket,
            listen: config.listen.map(|ip| ip.to_canonical()).filter(|ip| !ip.is_unspecified()),
            initiations,
            wake,
            signals,
            offloads,
        });
        let (changes, netlink) = (Changes::subscribe()?, Netlink::open()?);
        let watched = Arc::downgrade(&inner);
        let watcher = Watcher::start(move |netns| {
            if let Some(inner) = watched.upgrade() {
                inner.namespace_died(netns);
            }
        })?;
        // From here on it ends what it has begun when it is dropped.
        let mut engine = Engine { inner, watcher, threads: Vec::new() };
        for (lane, worker) in workers.into_iter().enumerate() {
            engine.spawn(format!("worker-{lane}"), move || worker.run())?;
        }
        let (workers, tables, seed) = (workers_of_gateway, for_gateway, chance.bytes());
        let service = Service { desk, tables, workers, answers, events, seed };
        engine.spawn("gateway".to_owned(), move || service.run())?;
        let inner = Arc::clone(&engine.inner);
        engine.spawn("control".to_owned(), move || {
            inner.run_control(&gone_receiver, (&changes, &netlink), underlay.as_ref());
        })?;
        Ok((engine, event_receiver))
    }

    fn spawn(&mut self, name: String, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.threads.push(std::thread::Builder::new().name(name).spawn(work)?);
        Ok(())
    }

    /// Applies changes of the tables, in order, and publishes them together.
    pub fn apply(&self, updates: impl IntoIterator<Item = Update>) {
        let now = Instant::now();
        let mut control = self.inner.lock();
        for update in updates {
            match update {
                Update::Answer { question, message } => self.inner.desk.answer(question, message),
                update => {
                    self.inner.desk.names().apply(&update);
                    control.apply(now, update);
                }
            }
        }
        self.inner.publish(&mut control);
    }

    /// From now on there are sealed sessions with those peers whose keys are known. To be said once.
    pub fn set_identity(&self, own: Identity) {
        let now = Instant::now();
        let mut control = self.inner.lock();
        control.set_identity(now, own);
        self.inner.publish(&mut control);
    }

    /// The pre-shared keys that sessions are made with from now on, newest first; nothing without an identity. Sessions under
    /// the others go over to these.
    pub fn set_psks(&self, psks: Vec<Psk>) {
        if let Some(keeper) = &mut self.inner.lock().keeper {
            keeper.set_psks(Instant::now(), psks);
        }
        self.inner.wake_control();
    }

    /// This host goes on under a higher incarnation of its host record, if it is higher.
    pub fn raise(&self, start: u64) {
        if let Some(keeper) = &mut self.inner.lock().keeper {
            keeper.raise(start);
        }
    }

    /// Serves a device. Frames flow when this returns.
    pub fn add_device(&self, device: Device, settings: PortSettings) -> Result<(), PortError> {
        let PortSettings { vni, rate, fence } = settings;
        let queues = share_out(device.queues, self.workers()).map_err(PortError::Queues)?;
        let mut control = self.inner.lock();
        let index = control.registry.add_port(device.port, vni, fence);
        // First: a worker takes nothing from a port that its tables do not have.
        self.inner.tables.store(control.registry.tables());
        let limit = rate.map(|rate| Arc::new(Limit::new(rate, Instant::now())));
        let counters: Vec<_> = queues.iter().map(|_| Arc::new(PortCounters::new())).collect();
        for ((worker, (queue, reads)), counters) in self.inner.workers.iter().zip(queues).zip(&counters) {
            let counters = Arc::clone(counters);
            let limit = limit.clone();
            worker.tell(Command::AddPort(NewPort { index, vni, queue, reads, counters, limit }));
        }
        let pinned = device.pins_namespace.then_some(device.netns);
        let (ifname, offloads) = (device.ifname, device.offloads);
        let port = OpenPort { index, vni, ifname, offloads, counters, pinned, is_new: true };
        control.ports.insert(device.port, port);
        self.inner.publish(&mut control);
        self.inner.ask(vni, vec![index]);
        drop(control);
        // A descriptor opened inside keeps its namespace alive: its last other holder is waited for.
        pinned.into_iter().for_each(|netns| self.watcher.add(netns));
        Ok(())
    }

    /// Closes the descriptors of a port; the interface stays where it is. A port that is not open is left so.
    pub fn remove_device(&self, port: PortId) {
        let mut control = self.inner.lock();
        let closed = self.inner.close_port(&mut control, port);
        let unpinned = closed.and_then(|closed| closed.pinned).filter(|netns| !control.pins(*netns));
        unpinned.into_iter().for_each(|netns| self.watcher.remove(netns));
    }

    /// Begins to copy what passes, up to `snaplen` bytes of each frame or datagram.
    /// `wake` is called when there is something after [`Capture::may_sleep`]; from a worker, so it must not wait.
    pub fn capture(
        &self,
        target: Target,
        snaplen: usize,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Result<Capture, CaptureError> {
        let mut control = self.inner.lock();
        let place = match target {
            Target::Underlay => Place::Underlay,
            Target::Port(id) => {
                let port = control.ports.get(&id).ok_or(CaptureError::NoSuchPort(id))?;
                Place::Port(port.index)
            }
        };
        if control.captures.len() >= MAX_CAPTURES {
            return Err(CaptureError::TooMany);
        }
        let number = control.captures.last_key_value().map_or(0, |(&number, _)| number + 1);
        let shared = Arc::new(capture::Shared::new(snaplen, wake));
        for worker in &self.inner.workers {
            let lens = Lens::new(number, place, Arc::clone(&shared));
            lens.into_iter().for_each(|lens| worker.tell(Command::AddLens(lens)));
        }
        control.captures.insert(number, Running { place, shared: Arc::clone(&shared) });
        let (nudged, ended) = (Arc::downgrade(&self.inner), Arc::downgrade(&self.inner));
        let nudge = move || nudged.upgrade().into_iter().for_each(|inner| inner.nudge_lenses());
        let end = move || ended.upgrade().into_iter().for_each(|inner| inner.end_capture(number));
        Ok(Capture::new(shared, nudge, end))
    }

    /// The number of data-plane threads, which is the number of queues a device needs.
    pub fn workers(&self) -> usize {
        self.inner.workers.len()
    }

    /// The forwarding table at this moment.
    pub fn entries(&self) -> Vec<Entry> {
        self.inner.tables.load().entries(Instant::now())
    }

    /// All counters at this moment.
    pub fn snapshot(&self) -> EngineSnapshot {
        let workers: Vec<Snapshot> =
            self.inner.workers.iter().map(|worker| worker.counters.snapshot()).collect();
        let mut forwarded = Snapshot::default();
        workers.iter().for_each(|worker| forwarded.merge(worker));
        let mut total = self.inner.counters.snapshot();
        total.merge(&self.inner.desk.drops.snapshot());
        total.merge(&forwarded);
        let control = self.inner.lock();
        let ports = control.ports.iter().map(|(&id, port)| port.snapshot(id)).collect();
        // A kernel that does not tell leaves zeros.
        let sockets =
            self.inner.workers.iter().map(|worker| worker.gauge.read().unwrap_or_default()).collect();
        let control_sockets = self.inner.gauges.iter().map(|gauge| gauge.read().unwrap_or_default());
        let control_socket = control_sockets.fold(SocketLoad::default(), SocketLoad::and);
        let socket_offloads = self.inner.offloads.clone();
        let gateway = self.inner.desk.counters.totals();
        EngineSnapshot { workers, forwarded, total, ports, gateway, sockets, control_socket, socket_offloads }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        {
            let mut control = self.inner.lock();
            control.stopping = true;
            control.captures.values().for_each(|running| running.shared.finish());
        }
        for worker in &self.inner.workers {
            worker.tell(Command::Stop);
        }
        self.inner.desk.stop();
        self.inner.wake_control();
        for thread in self.threads.drain(..) {
            // A thread that panicked has already said so.
            let _ = thread.join();
        }
    }
}

/// The devices through which super-frames leave whole, one for each worker; none when one cannot be had, and
/// `offloads` says why.
fn open_tunnels(
    config: &EngineConfig,
    offloads: &mut Offloads,
) -> (std::vec::IntoIter<Tunnel>, Option<Underlay>) {
    const NAME: &str = "tunnel_gso";
    if !config.tunnel_gso {
        return (Vec::new().into_iter(), None);
    }
    let tunnels: Result<Vec<_>, _> = (0..config.workers).map(Tunnel::open).collect();
    match tunnels {
        Ok(tunnels) => {
            offloads.granted.push(NAME);
            (tunnels.into_iter(), Some(Underlay::new(config.listen)))
        }
        Err(error) => {
            offloads.refused.push((NAME, error.to_string()));
            (Vec::new().into_iter(), None)
        }
    }
}

/// What workers tell the control side with.
struct ControlSide<'a> {
    gone: &'a Sender<PortGone>,
    wake: &'a Arc<EventFd>,
    signals: &'a Arc<Signals>,
}

/// The workers, and the control side's ends of them.
fn make_workers(
    config: &EngineConfig,
    (sockets, mut tunnels): (Vec<DataSocket>, std::vec::IntoIter<Tunnel>),
    doors: &[Door],
    tables: &Arc<ArcSwap<Tables>>,
    control: &ControlSide<'_>,
) -> io::Result<(Vec<WorkerEnd>, Vec<Worker>)> {
    let pools = socket::pools(&sockets, config.source_ports.min(SOURCE_PORTS));
    let (mut ends, mut workers) = (Vec::new(), Vec::new());
    for (lane, ((socket, pool), door)) in (0..).zip(sockets.into_iter().zip(pools).zip(doors)) {
        if config.destinations {
            socket.tell_destinations()?;
        }
        let sides = Sides { socket, pool, tunnel: tunnels.next() };
        let (end, worker) = make_worker((lane, door.clone()), sides, tables, control)?;
        ends.push(end);
        workers.push(worker);
    }
    Ok((ends, workers))
}

fn make_worker(
    (lane, door): (u8, Door),
    sides: Sides,
    tables: &Arc<ArcSwap<Tables>>,
    control: &ControlSide<'_>,
) -> io::Result<(WorkerEnd, Worker)> {
    let (commands, receiver) = mpsc::channel();
    let (wake, counters) = (Arc::new(event_fd()?), Arc::new(Counters::new()));
    let waits = Arc::new(AtomicBool::new(false));
    let shared = Shared {
        tables: Arc::clone(tables),
        counters: Arc::clone(&counters),
        wake: Arc::clone(&wake),
        commands: receiver,
        gone: control.gone.clone(),
        control_wake: Arc::clone(control.wake),
        signals: Arc::clone(control.signals),
        waits: Arc::clone(&waits),
        lane,
        door,
    };
    let gauge = sides.socket.gauge()?;
    let worker = Worker::new(shared, sides, Coalesce { tcp: true, udp: true })?;
    Ok((WorkerEnd { commands: Mutex::new(commands), wake, waits, counters, gauge }, worker))
}

/// One descriptor for each worker, and whether that worker reads it. A device with fewer queues than there are
/// workers is read by as many of them; the others write through a copy.
fn share_out(queues: Vec<Tap>, workers: usize) -> io::Result<Vec<(Tap, bool)>> {
    let missing = workers.saturating_sub(queues.len());
    let copies: Vec<Tap> =
        queues.iter().cycle().take(missing).map(Tap::try_clone).collect::<io::Result<_>>()?;
    let shared =
        queues.into_iter().map(|queue| (queue, true)).chain(copies.into_iter().map(|copy| (copy, false)));
    Ok(shared.take(workers).collect())
}

fn event_fd() -> io::Result<EventFd> {
    Ok(EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?)
}
