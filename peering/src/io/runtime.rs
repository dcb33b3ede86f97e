//! The task that owns the mesh: what happens goes in, what it says is done.
//!
//! One wake-up takes a bounded number of events, then at most one state goes to disk, then the outputs leave. While
//! a state is on its way to disk events still go in, but nothing comes out: an answer never precedes what it rests on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use engine::types::IpPrefix;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet, spawn_blocking};
use tokio::time::{sleep_until, timeout_at};

use super::addresses::Whereabouts;
use super::connector::{Connector, WireEvent};
use super::frames::Frame;
use super::link::{Link, Overflow};
use super::quic::{Quic, STOPPED};
use super::store::Store;
use crate::mesh::{
    AllocError, AllocRequest, ConnId, LeaveError, Mesh, MeshEvent, NetworkError, NetworkSpec, NetworkView,
    Output, RequestId,
};
use crate::secret::Admission;
use crate::topology::MOVED;

/// Events taken in one wake-up.
const EVENTS_PER_WAKE: usize = 64;
/// Events that may wait; then the connections wait.
const INBOX: usize = 256;
/// The shortest time between looks at the clock while a state is on its way to disk.
const WHILE_SAVING: Duration = Duration::from_millis(20);
/// How long a stop may take.
const STOP: Duration = Duration::from_secs(1);
/// The part of it for the last words of the mesh to get out.
const LAST_WORDS: Duration = Duration::from_millis(600);

/// Something to be done later, once.
pub(super) type Deferred = Box<dyn FnOnce() + Send>;
/// A look at the mesh.
pub(super) type Look = Box<dyn FnOnce(&Mesh, Instant) + Send>;
/// A change of the mesh, and what to do once it is on disk.
pub(super) type Alter = Box<dyn FnOnce(&mut Mesh, Instant) -> Deferred + Send>;
type Departure = oneshot::Sender<Result<(), LeaveError>>;
type Allocation = oneshot::Sender<Result<Vec<IpPrefix>, AllocError>>;
type Creation = oneshot::Sender<Result<Box<NetworkView>, NetworkError>>;

/// What a handle asks of the task.
pub(super) enum Command {
    /// Look, and answer at once.
    Read(Look),
    /// Change something; what comes back is called once the change is on disk.
    Change(Alter),
    /// Get addresses.
    Allocate { request: RequestId, what: AllocRequest, reply: Allocation },
    /// Create a network.
    Create { request: RequestId, spec: Box<NetworkSpec>, reply: Creation },
    /// Leave the cluster for good.
    Reset { force: bool, reply: Departure },
    /// The host is here now.
    Moved(Whereabouts),
    /// Nobody waits for these addresses, or this network, any more.
    Cancel(RequestId),
    /// Say goodbye and let go of everything.
    Stop(oneshot::Sender<()>),
}

/// The task and all it owns.
pub(super) struct Runtime {
    mesh: Mesh,
    store: Arc<Store>,
    quic: Quic,
    connector: Connector,
    links: BTreeMap<ConnId, Link>,
    dialled: JoinSet<()>,
    closing: JoinSet<()>,
    saving: Option<JoinHandle<Result<(), String>>>,
    allocations: BTreeMap<RequestId, Allocation>,
    creations: BTreeMap<RequestId, Creation>,
    departures: Vec<Departure>,
    replies: Vec<Deferred>,
    /// Those of changes that are on their way to disk.
    saved_replies: Vec<Deferred>,
    commands: mpsc::UnboundedReceiver<Command>,
    inbox: mpsc::Receiver<WireEvent>,
    admission: watch::Sender<Admission>,
    events: mpsc::UnboundedSender<MeshEvent>,
}

impl Runtime {
    pub(super) fn new(
        mesh: Mesh,
        store: Store,
        (quic, admission): (Quic, watch::Sender<Admission>),
        commands: mpsc::UnboundedReceiver<Command>,
        events: mpsc::UnboundedSender<MeshEvent>,
    ) -> Self {
        let (tell, inbox) = mpsc::channel(INBOX);
        Runtime {
            store: Arc::new(store),
            connector: Connector::new(quic.clone(), mesh.peer_id(), admission.subscribe(), tell),
            mesh,
            quic,
            links: BTreeMap::new(),
            dialled: JoinSet::new(),
            closing: JoinSet::new(),
            saving: None,
            allocations: BTreeMap::new(),
            creations: BTreeMap::new(),
            departures: Vec::new(),
            replies: Vec::new(),
            saved_replies: Vec::new(),
            commands,
            inbox,
            admission,
            events,
        }
    }

    /// Runs until the last handle is dropped.
    pub(super) async fn run(mut self) {
        let accepting = tokio::spawn(self.connector.clone().accept());
        let hearing = tokio::spawn(self.connector.clone().hear_of_vacancies());
        let stopped = self.serve().await;
        let deadline = tokio::time::Instant::now() + STOP;
        if stopped.is_some() {
            self.say_goodbye().await;
        }
        // From here on nothing is read any more, only written.
        accepting.abort();
        hearing.abort();
        self.dialled.abort_all();
        self.close_all(deadline).await;
        let late = self.saved_replies.drain(..).chain(self.replies.drain(..)).collect::<Vec<_>>();
        let Runtime { mesh, store, quic, connector, inbox, allocations, mut commands, .. } = self;
        drop((connector, inbox, store, allocations));
        let _ = timeout_at(deadline, quic.free_port()).await;
        late.into_iter().for_each(|reply| reply());
        let Some(reply) = stopped else { return };
        let _ = reply.send(());
        remember(mesh, &mut commands).await;
    }

    /// Serves until a handle says stop, or there is no handle any more.
    async fn serve(&mut self) -> Option<oneshot::Sender<()>> {
        loop {
            self.pump();
            let timer = self.next_timeout();
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(Command::Stop(reply)) => return Some(reply),
                    Some(command) => self.handle_command(command),
                    None => return None,
                },
                event = self.inbox.recv() => self.handle_events(event),
                result = saved(&mut self.saving) => self.handle_saved(result),
                () = due(timer) => self.mesh.handle_timeout(Instant::now()),
            }
        }
    }

    /// While a state is on its way to disk the mesh cannot do what it may be waiting for: it is asked less often.
    fn next_timeout(&self) -> Option<Instant> {
        let timer = self.mesh.poll_timeout()?;
        Some(if self.saving.is_some() { timer.max(Instant::now() + WHILE_SAVING) } else { timer })
    }

    fn handle_command(&mut self, command: Command) {
        let now = Instant::now();
        match command {
            Command::Read(read) => read(&self.mesh, now),
            Command::Change(change) => self.replies.push(change(&mut self.mesh, now)),
            Command::Reset { force, reply } => {
                self.departures.push(reply);
                self.mesh.reset(now, force);
            }
            Command::Allocate { request, what, reply } => {
                self.allocations.insert(request, reply);
                self.mesh.allocate(now, request, what);
            }
            Command::Create { request, spec, reply } => {
                self.creations.insert(request, reply);
                self.mesh.create_network(now, request, *spec);
            }
            Command::Moved(here) => self.follow(now, here),
            Command::Cancel(request) => {
                self.allocations.remove(&request);
                self.creations.remove(&request);
                self.mesh.cancel(now, request);
            }
            Command::Stop(reply) => drop(reply),
        }
    }

    /// A connection that this side dialled follows the host to its new address (RFC 9000 section 9); one that ends at an
    /// address that is gone does not.
    fn follow(&mut self, now: Instant, here: Whereabouts) {
        let cut = self.links.extract_if(.., |_, link| link.local_ip().is_some_and(|ip| here.lacks(ip)));
        let cut: Vec<(ConnId, Link)> = cut.collect();
        self.mesh.set_addresses(now, here.control, here.data);
        for (conn, link) in cut {
            link.cut(MOVED);
            self.mesh.handle_closed(now, conn, MOVED);
        }
    }

    fn handle_events(&mut self, first: Option<WireEvent>) {
        let now = Instant::now();
        let mut next = first;
        for _ in 0..EVENTS_PER_WAKE {
            let Some(event) = next else { return };
            self.handle_event(now, event);
            next = self.inbox.try_recv().ok();
        }
        if let Some(event) = next {
            self.handle_event(now, event);
        }
    }

    /// Events of a connection that this side has given up are late, and dropped.
    fn handle_event(&mut self, now: Instant, event: WireEvent) {
        match event {
            WireEvent::Established { conn, peer, dial, remote, link } => {
                tracing::debug!(%peer, %remote, dialled = dial.is_some(), "connected");
                self.links.insert(conn, link);
                self.mesh.handle_established(now, conn, peer, dial, remote);
            }
            WireEvent::Resolved { dial } => self.mesh.handle_resolved(dial),
            WireEvent::Refused { peer, dial, remote, refusal } => {
                self.mesh.handle_refused(now, peer, dial, remote, refusal);
            }
            WireEvent::DialFailed { dial, reason } => self.mesh.handle_dial_failed(now, dial, &reason),
            WireEvent::Vacant { remote } => self.mesh.handle_vacant(now, remote),
            WireEvent::Moved { conn, remote } => {
                tracing::debug!(%remote, "the far end of a connection has moved");
                self.mesh.handle_moved(now, conn, remote);
            }
            WireEvent::Frame { conn, .. } if !self.links.contains_key(&conn) => {}
            WireEvent::Frame { conn, frame: Frame::Message(bytes) } => {
                self.mesh.handle_message(now, conn, &bytes);
            }
            WireEvent::Frame { conn, frame: Frame::Datagram(bytes) } => {
                self.mesh.handle_datagram(now, conn, &bytes);
            }
            WireEvent::Closed { conn, reason } => {
                if self.links.remove(&conn).is_some() {
                    tracing::debug!(reason, "connection closed");
                    self.mesh.handle_closed(now, conn, &reason);
                }
            }
        }
    }

    /// Lets out what may leave, also while the disk is busy, and has written what must be. What is asked of this host again and
    /// again would else wait until there is nothing to write.
    fn pump(&mut self) {
        while let Some(output) = self.mesh.poll_output() {
            self.perform(output);
        }
        if self.saving.is_none() {
            self.save();
        }
        if self.saving.is_none() {
            self.replies.drain(..).for_each(|reply| reply());
        }
        while let Some(event) = self.mesh.poll_event() {
            if event == MeshEvent::SecretsChanged {
                self.admission.send_replace(Admission::new(self.mesh.keyring().clone()));
            }
            let _ = self.events.send(event);
        }
        while self.dialled.try_join_next().is_some() || self.closing.try_join_next().is_some() {}
    }

    /// Has the state written, if it is time; what was changed so far is answered when that is done.
    fn save(&mut self) {
        let Some(state) = self.mesh.poll_persist() else { return };
        let (store, keyring) = (self.store.clone(), self.mesh.poll_keyring());
        let save = move || {
            let kept = keyring.map_or(Ok(()), |keyring| store.save_keyring(&keyring));
            kept.and_then(|()| store.save(&state)).map_err(|error| error.to_string())
        };
        self.saving = Some(spawn_blocking(save));
        self.saved_replies.append(&mut self.replies);
    }

    /// The disk is done.
    fn handle_saved(&mut self, result: Result<(), String>) {
        self.mesh.handle_persisted(result);
        self.saved_replies.drain(..).for_each(|reply| reply());
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Transmit { conn, bytes } => self.send(conn, |link| link.send(Bytes::from(bytes))),
            Output::Datagram { conn, bytes } => {
                self.send(conn, |link| link.send_datagram(Bytes::from(bytes)))
            }
            Output::Dial { dial, target } => {
                self.dialled.spawn(self.connector.clone().dial(dial, target));
            }
            Output::Close { conn, reason } => {
                if let Some(link) = self.links.remove(&conn) {
                    self.closing.spawn(link.close(reason));
                }
            }
            Output::Left { result } => {
                for reply in self.departures.drain(..) {
                    let _ = reply.send(result.clone());
                }
            }
            Output::Created { request, result } => {
                if let Some(reply) = self.creations.remove(&request) {
                    let _ = reply.send(result);
                }
            }
            Output::Allocated { request, result } => {
                if let Some(reply) = self.allocations.remove(&request) {
                    // A caller that went away meanwhile has sent a cancellation.
                    let _ = reply.send(result);
                }
            }
        }
    }

    fn send(&mut self, conn: ConnId, send: impl FnOnce(&Link) -> Result<(), Overflow>) {
        let Some(Err(overflow)) = self.links.get(&conn).map(send) else { return };
        if let Some(link) = self.links.remove(&conn) {
            let reason = overflow.to_string();
            link.cut(&reason);
            self.mesh.handle_closed(Instant::now(), conn, &reason);
        }
    }

    /// Lets the mesh have its last words, on disk and on the wire.
    async fn say_goodbye(&mut self) {
        self.mesh.stop(Instant::now());
        let deadline = tokio::time::Instant::now() + LAST_WORDS;
        loop {
            self.pump();
            if self.saving.is_none() {
                break;
            }
            match timeout_at(deadline, saved(&mut self.saving)).await {
                Ok(result) => self.handle_saved(result),
                Err(_) => break,
            }
        }
    }

    /// Closes every connection and the endpoint.
    async fn close_all(&mut self, deadline: tokio::time::Instant) {
        while let Some((_, link)) = self.links.pop_first() {
            self.closing.spawn(link.close(STOPPED.to_owned()));
        }
        let closed = async {
            while self.closing.join_next().await.is_some() {}
            self.quic.close().await;
        };
        if timeout_at(deadline, closed).await.is_err() {
            tracing::debug!("some hosts did not acknowledge the end in time");
        }
    }
}

/// The result of the state on its way to disk; never, if there is none.
async fn saved(saving: &mut Option<JoinHandle<Result<(), String>>>) -> Result<(), String> {
    let Some(task) = saving else { return std::future::pending().await };
    let result = task.await.unwrap_or_else(|_| Err("the writer died".to_owned()));
    *saving = None;
    result
}

async fn due(timer: Option<Instant>) {
    match timer {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// After the stop: what was known may still be asked.
async fn remember(mut mesh: Mesh, commands: &mut mpsc::UnboundedReceiver<Command>) {
    while let Some(command) = commands.recv().await {
        let now = Instant::now();
        match command {
            Command::Read(read) => read(&mesh, now),
            Command::Change(change) => change(&mut mesh, now)(),
            Command::Allocate { reply, .. } => drop(reply.send(Err(AllocError::Stopping))),
            Command::Create { reply, .. } => drop(reply.send(Err(NetworkError::Stopping))),
            Command::Reset { reply, .. } => drop(reply.send(Err(LeaveError::Stopping))),
            Command::Cancel(_) | Command::Moved(_) => {}
            Command::Stop(reply) => drop(reply.send(())),
        }
    }
}
