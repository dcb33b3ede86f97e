//! The handle of the control plane.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use engine::types::{Claim, IpPrefix, NetworkId, PeerId, PortId};
use tokio::sync::{mpsc, oneshot, watch};
use zeroize::Zeroizing;

use super::addresses::{Place, Whereabouts};
use super::config::{PeeringConfig, StartError, mesh_config, random};
use super::quic::{BindError, Quic};
use super::runtime::{Command, Deferred, Runtime};
use super::screen::{Counts, PortCounters};
use super::store::Store;
use super::tls::Credentials;
use crate::identity::Identity;
use crate::keyring::{Given, Keyring};
use crate::mesh::{
    AllocError, AllocRequest, Endpoint, EndpointView, LeaveError, Mesh, MeshError, MeshEvent, MeshStatus,
    MeshTables, NameError, NameView, NetworkError, NetworkSpec, NetworkView, RemoveError, Removed, RequestId,
    RotateError, Target, VtepError, VtepView,
};
use crate::records::NameRecord;
use crate::secret::{Admission, Secret};

/// The running control plane of this host. Clones are handles of the same one, which ends with the last of them.
#[derive(Clone, Debug)]
pub struct Peering {
    commands: mpsc::UnboundedSender<Command>,
    requests: Arc<AtomicU64>,
    counts: Arc<Counts>,
    peer_id: PeerId,
    local_addr: SocketAddr,
    place: Place,
    admission: watch::Receiver<Admission>,
    identity: Arc<Identity>,
    crash: watch::Receiver<Option<String>>,
}

impl Peering {
    /// Starts the control plane; it depends on no other host. What it learns comes out of the receiver, from
    /// the state on disk first.
    ///
    /// # Errors
    /// The state directory or the port cannot be had.
    pub async fn start(
        config: PeeringConfig,
    ) -> Result<(Peering, mpsc::UnboundedReceiver<MeshEvent>), StartError> {
        let mut opened = Opened::open(&config.state_dir)?;
        let identity = Arc::new(opened.identity()?);
        let credentials = Credentials::new(identity.clone());
        let quic = Quic::bind(credentials, &identity, config.listen, config.port)?;
        let local_addr = quic.local_addr().map_err(|source| BindError::Io { port: config.port, source })?;
        let keyring = opened.keyring(config.secret.clone())?;
        let mut mesh = opened.mesh(&config, &keyring, local_addr.port())?;
        if opened.unwritten {
            mesh.secrets_are_unwritten();
        }
        for (kind, message) in opened.store.take_warnings() {
            mesh.remark(Instant::now(), kind, message);
        }
        let (events, told) = mpsc::unbounded_channel();
        let (commands, orders) = mpsc::unbounded_channel();
        let place = config.place(local_addr.port());
        let (counts, peer_id) = (quic.counts(), identity.peer_id());
        let (opener, admission) = watch::channel(Admission::new(keyring));
        let gate = (quic, opener);
        let task = tokio::spawn(Runtime::new(mesh, opened.store, gate, orders, events).run());
        let (crashed, crash) = watch::channel(None);
        tokio::spawn(async move {
            if let Err(error) = task.await {
                crashed.send_replace(Some(error.to_string()));
            }
        });
        Ok((
            Peering {
                commands,
                requests: Arc::default(),
                counts,
                peer_id,
                local_addr,
                place,
                admission,
                identity,
                crash,
            },
            told,
        ))
    }

    /// Who this host is.
    pub fn peer_id(&self) -> PeerId {
        self.peer_id
    }

    /// True when there is no secret, and whoever reaches the port may join.
    pub fn is_open(&self) -> bool {
        self.admission.borrow().is_open()
    }

    /// The secrets that are taken now.
    pub fn keyring(&self) -> Keyring {
        self.admission.borrow().keyring().clone()
    }

    /// The keys of this host.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// How often this host began anew; it rises with each start, and above what others report of it.
    pub async fn incarnation(&self) -> u64 {
        self.read(|mesh, _| mesh.incarnation()).await
    }

    /// Where peering listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// What came in on the port of peering.
    pub fn port_counters(&self) -> PortCounters {
        self.counts.read()
    }

    /// Looks where this host is now, and tells the others if that has changed. Connections that end at an address that is
    /// gone are given up and made anew.
    pub async fn follow_addresses(&self) {
        let place = self.place;
        // Waits for the kernel, and for a file of each interface.
        let found = tokio::task::spawn_blocking(move || Whereabouts::of(&place)).await;
        if let Ok(here) = found {
            // After the end of the task nobody wants to know.
            let _ = self.commands.send(Command::Moved(here));
        }
    }

    /// Adds targets; with `replace`, forgets those that are not named.
    pub async fn connect(&self, targets: Vec<Target>, replace: bool) {
        self.change(move |mesh, now| mesh.connect(now, targets, replace)).await;
    }

    /// Ends the attempts at these targets.
    pub async fn forget(&self, targets: Vec<Target>) {
        self.change(move |mesh, now| mesh.forget(now, &targets)).await;
    }

    /// Removes a host, named by its nickname, its peer id or a part of that from the front.
    ///
    /// # Errors
    /// Nobody or several are meant, or the host may not be removed.
    pub async fn remove_peer(&self, name: String, force: bool) -> Result<Removed, RemoveError> {
        self.change(move |mesh, now| mesh.remove_peer(now, &name, force)).await
    }

    /// Cuts a host off for good, named as for [`Self::remove_peer`] or by its whole peer id.
    ///
    /// # Errors
    /// Nobody or several are meant, or this host is.
    pub async fn revoke_peer(&self, name: String) -> Result<Removed, RemoveError> {
        self.change(move |mesh, now| mesh.revoke_peer(now, &name)).await
    }

    /// Has the cluster go over to `secret`, or goes on with what is under way.
    ///
    /// # Errors
    /// The cluster is open, or goes over to another one already, or the disk does not take the secret; see [`RotateError`].
    pub async fn rotate(&self, secret: Option<Secret>, leave_behind: bool) -> Result<(), RotateError> {
        self.change(move |mesh, now| mesh.rotate(now, secret, leave_behind)).await?;
        // The disk has been asked by now.
        let kept = self.read(|mesh, _| mesh.secrets_are_on_disk()).await;
        if kept { Ok(()) } else { Err(RotateError::StoreFailed) }
    }

    /// Gets addresses; waits until there are some, or a reason why not. Dropping the future cancels: what
    /// was allocated meanwhile is free again.
    ///
    /// # Errors
    /// The refusal, as the mesh or the host that owns the address gave it.
    pub async fn allocate(&self, what: AllocRequest) -> Result<Vec<IpPrefix>, AllocError> {
        let request = RequestId(self.requests.fetch_add(1, Ordering::Relaxed));
        let (reply, answer) = oneshot::channel();
        let mut cancel = CancelOnDrop { commands: Some(&self.commands), request };
        let _ = self.commands.send(Command::Allocate { request, what, reply });
        let result = answer.await.unwrap_or(Err(AllocError::Stopping));
        cancel.commands = None;
        result
    }

    /// Creates a network; before the founding of the cluster it waits for that. Dropping the future cancels.
    ///
    /// # Errors
    /// It makes no sense, or does not fit to the networks there are; see [`NetworkError`].
    pub async fn create_network(&self, spec: NetworkSpec) -> Result<NetworkView, NetworkError> {
        let request = RequestId(self.requests.fetch_add(1, Ordering::Relaxed));
        let (reply, answer) = oneshot::channel();
        let mut cancel = CancelOnDrop { commands: Some(&self.commands), request };
        let _ = self.commands.send(Command::Create { request, spec: Box::new(spec), reply });
        let result = answer.await.unwrap_or(Err(NetworkError::Stopping));
        cancel.commands = None;
        result.map(|view| *view)
    }

    /// Removes a network that nobody has an endpoint on.
    ///
    /// # Errors
    /// There is no such network, or it cannot go; see [`NetworkError`].
    pub async fn remove_network(&self, network: NetworkId) -> Result<(), NetworkError> {
        self.change(move |mesh, now| mesh.remove_network(now, network)).await
    }

    /// All networks, in the order of their names.
    pub async fn networks(&self) -> Vec<NetworkView> {
        self.read(|mesh, _| mesh.networks()).await
    }

    /// This host uses a network from now on though it has no endpoint there, or only while it has some. What is told of the
    /// network follows as events.
    ///
    /// # Errors
    /// There is no such network, or this host uses too many.
    pub async fn use_network(&self, network: NetworkId, used: bool) -> Result<NetworkView, NetworkError> {
        self.change(move |mesh, now| mesh.use_network(now, network, used)).await
    }

    /// Frees the addresses of a port.
    pub async fn release(&self, port: PortId) {
        self.change(move |mesh, now| mesh.release(now, port)).await;
    }

    /// For the next five seconds this host counts as needing an address of the network.
    pub async fn want(&self, network: NetworkId) {
        self.change(move |mesh, now| mesh.want(now, network)).await;
    }

    /// After a start: only these ports outlived the daemon. The endpoints and addresses of all others are given up.
    pub async fn retain(&self, ports: BTreeSet<PortId>) {
        self.change(move |mesh, now| mesh.retain(now, &ports)).await;
    }

    /// Tells every host about an endpoint of this one, new or changed, and returns the claim on its MAC address.
    pub async fn put_endpoint(&self, endpoint: Endpoint) -> Claim {
        self.change(move |mesh, now| mesh.put_endpoint(now, endpoint)).await
    }

    /// Tells every host that an endpoint of this one is gone.
    pub async fn remove_endpoint(&self, port: PortId) {
        self.change(move |mesh, now| mesh.remove_endpoint(now, port)).await;
    }

    /// Declares an external VXLAN endpoint.
    ///
    /// # Errors
    /// When there is no such network, or its frames are sealed.
    pub async fn add_vtep(&self, network: NetworkId, addr: SocketAddr) -> Result<(), VtepError> {
        self.change(move |mesh, now| mesh.add_vtep(now, network, addr)).await
    }

    /// Removes an external VXLAN endpoint. False: it was not declared.
    pub async fn remove_vtep(&self, network: NetworkId, addr: SocketAddr) -> bool {
        self.change(move |mesh, now| mesh.remove_vtep(now, network, addr)).await
    }

    /// Gives addresses a name on a network, told by this host to all. Asked for again it changes nothing.
    ///
    /// # Errors
    /// There is no such network, or something else of this host has the name there.
    pub async fn put_name(&self, name: NameRecord) -> Result<(), NameError> {
        self.change(move |mesh, now| mesh.put_name(now, name)).await
    }

    /// Takes a name back that was given on this host. False: there was none.
    ///
    /// # Errors
    /// Nothing is written any more.
    pub async fn remove_name(&self, network: NetworkId, name: String) -> Result<bool, NameError> {
        self.change(move |mesh, now| mesh.remove_name(now, network, &name)).await
    }

    /// The names that people gave on all hosts, down ones included, in the order of (network, name, peer).
    pub async fn names(&self) -> Vec<NameView> {
        self.read(|mesh, _| mesh.names()).await
    }

    /// The external VXLAN endpoints.
    pub async fn vteps(&self) -> Vec<VtepView> {
        self.read(|mesh, _| mesh.vteps()).await
    }

    /// The endpoints of all hosts, down ones included, in the order of (peer, port).
    pub async fn endpoints(&self) -> Vec<EndpointView> {
        self.read(|mesh, _| mesh.endpoints()).await
    }

    /// Another host has the key of this one and was there before: that and where, in the words of the host that saw both.
    pub async fn clone_of(&self) -> Option<String> {
        self.read(|mesh, _| mesh.clone_of().map(str::to_owned)).await
    }

    /// Messages that could not be read since the start.
    pub async fn malformed(&self) -> u64 {
        self.read(|mesh, _| mesh.malformed()).await
    }

    /// Everything this host remembers.
    pub async fn tables(&self) -> MeshTables {
        self.read(|mesh, _| mesh.tables()).await
    }

    /// The control plane at this moment.
    pub async fn status(&self) -> MeshStatus {
        self.read(|mesh, now| mesh.status(now)).await
    }

    /// Leaves the cluster for good: a live host takes the address space, and everybody is told. With `force` also
    /// when nobody can take it. Afterwards only [`Self::stop`] is left to do.
    ///
    /// # Errors
    /// Nobody takes the space; this host goes on as before.
    pub async fn reset(&self, force: bool) -> Result<(), LeaveError> {
        let (reply, answer) = oneshot::channel();
        let _ = self.commands.send(Command::Reset { force, reply });
        answer.await.unwrap_or(Err(LeaveError::Stopping))
    }

    /// Tells the other hosts that this one is down, closes the connections, and gives up the port and the state
    /// directory, all within a second. Afterwards the handle still answers what was known; stopping twice is harmless.
    pub async fn stop(&self) {
        let (reply, answer) = oneshot::channel();
        let _ = self.commands.send(Command::Stop(reply));
        let _ = answer.await;
    }

    /// Returns when the control plane has crashed, with what is known of it: a bug, after which the process can only
    /// end. Questions to a crashed control plane are never answered.
    pub async fn crashed(&self) -> String {
        let mut crash = self.crash.clone();
        match crash.wait_for(Option::is_some).await {
            Ok(crash) => crash.clone().unwrap_or_default(),
            // It ended well.
            Err(_) => std::future::pending().await,
        }
    }

    /// A change is answered once it is on disk and told.
    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Mesh, Instant) -> T + Send + 'static,
    ) -> T {
        let (reply, answer) = oneshot::channel();
        let change = move |mesh: &mut Mesh, now| {
            let value = change(mesh, now);
            Box::new(move || drop(reply.send(value))) as Deferred
        };
        self.ask(Command::Change(Box::new(change)), answer).await
    }

    async fn read<T: Send + 'static>(&self, read: impl FnOnce(&Mesh, Instant) -> T + Send + 'static) -> T {
        let (reply, answer) = oneshot::channel();
        let read = move |mesh: &Mesh, now| drop(reply.send(read(mesh, now)));
        self.ask(Command::Read(Box::new(read)), answer).await
    }

    async fn ask<T>(&self, command: Command, answer: oneshot::Receiver<T>) -> T {
        let _ = self.commands.send(command);
        match answer.await {
            Ok(value) => value,
            // The task answers until the last handle is dropped, and this is one: it has crashed.
            Err(_) => std::future::pending().await,
        }
    }
}

struct CancelOnDrop<'a> {
    commands: Option<&'a mpsc::UnboundedSender<Command>>,
    request: RequestId,
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(commands) = self.commands {
            let _ = commands.send(Command::Cancel(self.request));
        }
    }
}

/// The state directory with what was in it.
struct Opened {
    store: Store,
    seed: Zeroizing<Vec<u8>>,
    noise: Zeroizing<Vec<u8>>,
    /// The keys were made just now.
    first: bool,
    /// The disk did not take the secrets that count.
    unwritten: bool,
    state: Option<Vec<u8>>,
}

impl Opened {
    fn open(dir: &Path) -> Result<Self, StartError> {
        let mut store = Store::open(dir)?;
        let fresh = Identity::generate(random()?)?;
        let mut first = false;
        let make = || {
            first = true;
            fresh.secret().to_vec()
        };
        let seed = Zeroizing::new(store.identity(make)?);
        let noise = Zeroizing::new(store.noise(|| fresh.noise_secret_key().to_vec())?);
        let state = store.load()?;
        Ok(Opened { store, seed, noise, first, unwritten: false, state })
    }

    fn identity(&self) -> Result<Identity, StartError> {
        Ok(Identity::from_secrets(&self.seed, &self.noise)?)
    }

    /// The secrets that count: those that were kept, or the one that was given.
    fn keyring(&mut self, given: Option<Secret>) -> Result<Keyring, StartError> {
        let (keyring, what) = Keyring::adopt(given, self.store.keyring()?);
        let told = match what {
            Given::Taken => return Ok(keyring),
            Given::Retired => {
                "this host was launched with a secret that is no longer taken, and uses the newer one that it keeps: \
                               put that in place of the old one, which is of no use to other hosts either"
            }
            Given::Missing => {
                "this host was launched without a secret, and uses the one that it keeps: launch it with the secret \
                               of the cluster"
            }
            Given::New => {
                // What was kept is of no use any more, and is not to lie there.
                if let Err(error) = self.store.save_keyring(&keyring) {
                    self.unwritten = true;
                    self.store.warn("store_failed", error.to_string());
                }
                "this host was launched with another secret than those it kept, and uses that one alone"
            }
        };
        self.store.warn("secret_differs", told.to_owned());
        Ok(keyring)
    }

    /// A mesh from the state on disk, or without it if it cannot be read.
    fn mesh(&mut self, config: &PeeringConfig, keyring: &Keyring, port: u16) -> Result<Mesh, StartError> {
        let own = |opened: &Self| Ok::<_, StartError>((opened.identity()?, keyring.clone()));
        let now = Instant::now();
        if let Some(state) = &self.state {
            match Mesh::new(mesh_config(config, own(self)?, port, false)?, Some(state), now) {
                Err(error @ MeshError::Stored(_)) => self.store.set_aside(&error.to_string()),
                result => return Ok(result?),
            }
        }
        Ok(Mesh::new(mesh_config(config, own(self)?, port, !self.first)?, None, now)?)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::records::Encryption;

    #[tokio::test]
    async fn a_crash_is_told_and_ends_no_asker_with_a_panic() {
        let dir = tempfile::tempdir().unwrap();
        let config = PeeringConfig {
            state_dir: dir.path().to_owned(),
            nickname: "node01".to_owned(),
            listen: Some(std::net::Ipv4Addr::LOCALHOST.into()),
            port: 0,
            data_port: 4789,
            advertise_addr: None,
            data_addr: None,
            targets: Vec::new(),
            range: None,
            reclaim_after: None,
            discovery: true,
            found: false,
            mtu: None,
            version: "1".to_owned(),
            secret: None,
            allowed: None,
            encryption: Encryption::Auto,
            suites: Vec::new(),
            trusted: Vec::new(),
        };
        let (peering, _events) = Peering::start(config).await.unwrap();
        let soon = Duration::from_secs(5);
        let (asker, quiet) = (peering.clone(), Duration::from_millis(50));
        assert!(tokio::time::timeout(quiet, peering.crashed()).await.is_err(), "it runs");
        let asked = tokio::spawn(async move { asker.read(|_, _| -> u8 { panic!("a bug") }).await });
        let crash = tokio::time::timeout(soon, peering.crashed()).await.unwrap();
        assert!(crash.contains("a bug"), "{crash}");
        assert!(!asked.is_finished(), "the question is never answered");
        asked.abort();
        tokio::time::timeout(soon, peering.stop()).await.expect("there is nothing to stop");
    }
}
