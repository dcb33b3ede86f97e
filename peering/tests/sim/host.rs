//! One host: its mesh, its disk, and what its daemon and its containers would remember.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use engine::types::{IpPrefix, MacAddr, PeerId, PortId};
use peering::identity::Identity;
use peering::keyring::Keyring;
use peering::mesh::{
    AllocError, AllocRequest, ConnId, Endpoint, LeaveError, MESH_NETWORK, Mesh, MeshConfig, MeshEvent,
    NetworkError, NetworkView, Output, RequestId,
};
use peering::proto::Run;
use peering::sealing::Sealing;
use peering::secret::Secret;

use super::World;
use super::clock::Clock;

/// What became of a request for addresses.
pub type Answer = Result<Vec<IpPrefix>, AllocError>;

/// How a host is started.
#[derive(Clone)]
pub struct Launch {
    pub targets: Vec<usize>,
    pub found: bool,
    pub range: &'static str,
    pub discovery: bool,
    pub reclaim_after: Duration,
    /// The secret that people give it, by its first byte.
    pub secret: Option<u8>,
}

/// A secret for a simulated cluster.
pub fn secret(byte: u8) -> Secret {
    Secret::parse(&format!("{byte:02x}").repeat(32)).expect("32 bytes")
}

impl Launch {
    pub fn targets(targets: &[usize]) -> Self {
        Launch {
            targets: targets.to_vec(),
            found: false,
            range: "10.32.0.0/12",
            discovery: true,
            reclaim_after: Duration::from_secs(24 * 3600),
            secret: None,
        }
    }

    pub fn with_secret(self, secret: u8) -> Self {
        Launch { secret: Some(secret), ..self }
    }
}

/// What a crash takes with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// The process alone: what was on its way to the disk arrives there.
    Nothing,
    /// What was on its way to the disk.
    LastWrite,
    /// Everything on the disk but the key.
    Disk,
}

pub struct Host {
    number: usize,
    key: [u8; 32],
    peer_id: PeerId,
    /// What the host sees of time.
    clock: Clock,
    /// Neither hears nor says anything, and its timers run late.
    pub paused: bool,
    pub pauses: u64,
    pub mesh: Option<Mesh>,
    /// The machine runs, whether or not the daemon does.
    pub powered: bool,
    /// Counts the starts.
    pub life: u64,
    pub launch: Launch,
    pub disk: Option<Vec<u8>>,
    /// The secrets on the disk, a file of its own.
    pub kept: Option<Keyring>,
    /// What the disk held when somebody copied it.
    pub snapshot: Option<Vec<u8>>,
    pub disk_fails: bool,
    /// How long a write takes.
    pub disk_time: Duration,
    /// What is being written, and until when.
    saving: Option<(Instant, Vec<u8>, Option<Keyring>)>,
    conns: u64,
    pub answers: BTreeMap<RequestId, Answer>,
    /// The networks that were asked for.
    pub made: BTreeMap<RequestId, Result<Box<NetworkView>, NetworkError>>,
    /// The answer to the last `reset`.
    pub left: Option<Result<(), LeaveError>>,
    /// It was told to leave in this life.
    pub leaves: bool,
    pub events: Vec<MeshEvent>,
    /// How many of them were told in earlier lives.
    pub told_before: usize,
    asked: BTreeMap<RequestId, AllocRequest>,
    /// The containers that have an interface: they outlive the daemon, and its disk.
    pub ports: BTreeMap<PortId, (RequestId, Endpoint)>,
    /// It has the key of this host, and began with a copy of its disk.
    pub clone_of: Option<usize>,
}

impl Host {
    pub fn new(number: usize, key: [u8; 32], now: Instant) -> Self {
        let identity = Identity::generate(key).expect("any seed makes an identity");
        Host {
            number,
            key,
            peer_id: identity.peer_id(),
            clock: Clock::exact(now),
            paused: false,
            pauses: 0,
            mesh: None,
            powered: true,
            life: 0,
            launch: Launch::targets(&[]),
            disk: None,
            kept: None,
            snapshot: None,
            disk_fails: false,
            disk_time: Duration::ZERO,
            saving: None,
            conns: 0,
            answers: BTreeMap::new(),
            made: BTreeMap::new(),
            left: None,
            leaves: false,
            events: Vec::new(),
            told_before: 0,
            asked: BTreeMap::new(),
            ports: BTreeMap::new(),
            clone_of: None,
        }
    }

    /// A machine with the key and the disk of this one, and none of its containers.
    pub fn copy(&self, number: usize, now: Instant) -> Self {
        let clone_of = Some(self.number);
        let (disk, disk_time) = (self.disk.clone(), self.disk_time);
        Host { disk, disk_time, clone_of, ..Host::new(number, self.key, now) }
    }

    pub fn peer_id(&self) -> PeerId {
        self.peer_id
    }

    /// Nothing stays of the host but its name and its address.
    pub fn become_another(&mut self, key: [u8; 32]) {
        let identity = Identity::generate(key).expect("any seed makes an identity");
        (self.key, self.peer_id) = (key, identity.peer_id());
        (self.disk, self.snapshot, self.kept) = (None, None, None);
        self.ports.clear();
    }

    /// The secret that makes the host who it is.
    pub fn key(&self) -> [u8; 32] {
        self.key
    }

    /// From now on the host sees time so; also what is written or awaited now.
    pub fn set_clock(&mut self, clock: Clock) {
        self.clock = clock;
    }

    /// What the host's clock shows.
    pub fn here(&self, now: Instant) -> Instant {
        self.clock.here(now)
    }

    fn identity(&self) -> Identity {
        Identity::generate(self.key).expect("any seed makes an identity")
    }

    pub fn start(&mut self, now: Instant, seed: [u8; 32], boot_nonce: u64, launch: Launch) {
        let config = self.config(seed, boot_nonce, &launch);
        self.life += 1;
        self.told_before = self.events.len();
        self.powered = true;
        self.launch = launch;
        let here = self.here(now);
        self.mesh =
            Some(Mesh::new(config, self.disk.as_deref(), here).expect("the disk holds what was written"));
    }

    fn config(&self, seed: [u8; 32], boot_nonce: u64, launch: &Launch) -> MeshConfig {
        let addr = World::addr(self.number);
        MeshConfig {
            identity: self.identity(),
            nickname: World::name(self.number),
            version: "sim".to_owned(),
            boot_nonce,
            port: addr.port(),
            data_port: 4789,
            advertise: vec![addr],
            data_addrs: vec![std::net::SocketAddr::new(addr.ip(), 4789)],
            targets: launch.targets.iter().map(|&target| World::target(target)).collect(),
            range: launch.range.parse().expect("a range"),
            range_given: false,
            mtu: 1450,
            reclaim_after: launch.reclaim_after,
            discovery: launch.discovery,
            found: launch.found,
            forgot: self.life > 0 && self.disk.is_none(),
            keyring: Keyring::adopt(launch.secret.map(secret), self.kept.clone()).0,
            allowed: None,
            sealing: Sealing::default(),
            seed,
        }
    }

    /// The addresses of a port as a start from the disk would give them again.
    pub fn recalls(&self, now: Instant, port: PortId) -> Vec<IpAddr> {
        let config = self.config([0; 32], 0, &self.launch);
        let here = self.here(now);
        let mut mesh =
            Mesh::new(config, self.disk.as_deref(), here).expect("the disk holds what was written");
        let holder = String::new();
        let what =
            AllocRequest { port, network: MESH_NETWORK, holder, wanted: Vec::new(), without_ipv6: false };
        mesh.allocate(here, RequestId(0), what);
        while mesh.poll_persist().is_some() {
            mesh.handle_persisted(Ok(()));
        }
        while let Some(output) = mesh.poll_output() {
            if let Output::Allocated { result, .. } = output {
                return result.unwrap_or_default().iter().map(|prefix| prefix.addr).collect();
            }
        }
        Vec::new()
    }

    pub fn crash(&mut self, loss: Loss) {
        self.mesh = None;
        self.paused = false;
        self.leaves = false;
        self.left = None;
        self.asked.clear();
        let saving = self.saving.take().filter(|_| loss == Loss::Nothing && !self.disk_fails);
        if let Some((_, bytes, keyring)) = saving {
            self.disk = Some(bytes);
            self.kept = keyring.or(self.kept.take());
        }
        if loss == Loss::Disk {
            (self.disk, self.kept) = (None, None);
        }
    }

    /// What a daemon does after its start: the ports that are still there are put again, others given up.
    pub fn reclaim_ports(&mut self, now: Instant) {
        let now = self.here(now);
        let Some(mesh) = &mut self.mesh else { return };
        for (_, endpoint) in self.ports.values() {
            mesh.put_endpoint(now, endpoint.clone());
        }
        mesh.retain(now, &self.ports.keys().copied().collect());
    }

    pub fn living(&mut self, life: u64) -> Option<&mut Mesh> {
        if self.life == life { self.mesh.as_mut() } else { None }
    }

    pub fn new_conn(&mut self) -> ConnId {
        self.conns += 1;
        ConnId(self.conns)
    }

    /// The moment of the world at which the host has something to do; none while it is paused.
    pub fn due(&self) -> Option<Instant> {
        let saved = self.saving.as_ref().map(|(at, ..)| *at);
        let timer = self.mesh.as_ref().and_then(Mesh::poll_timeout).map(|at| self.clock.world(at));
        timer.into_iter().chain(saved).min().filter(|_| !self.paused)
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        self.finish_write(now);
        let here = self.here(now);
        if let Some(mesh) = self.mesh.as_mut().filter(|mesh| mesh.poll_timeout().is_some_and(|at| at <= here))
        {
            mesh.handle_timeout(here);
        }
    }

    /// True while something is on its way to the disk.
    pub fn is_writing(&self) -> bool {
        self.saving.is_some()
    }

    fn finish_write(&mut self, now: Instant) {
        let Some((_, bytes, keyring)) = self.saving.take_if(|(at, ..)| *at <= now) else { return };
        let result = if self.disk_fails { Err("the disk is full".to_owned()) } else { Ok(()) };
        if result.is_ok() {
            self.disk = Some(bytes);
            self.kept = keyring.or(self.kept.take());
        }
        if let Some(mesh) = &mut self.mesh {
            mesh.handle_persisted(result);
        }
    }

    /// The next output; those that rest on what is being written wait for it.
    pub fn poll(&mut self, now: Instant) -> Option<Output> {
        loop {
            let mesh = self.mesh.as_mut()?;
            if let Some(output) = mesh.poll_output() {
                return Some(output);
            }
            let state = if self.saving.is_none() { mesh.poll_persist() } else { None };
            if let Some(bytes) = state {
                self.saving = Some((now + self.disk_time, bytes, mesh.poll_keyring()));
                self.finish_write(now);
            } else if !self.take_events(now) {
                return None;
            }
        }
    }

    /// Hears what is new, and does it to the containers. False: there was nothing.
    fn take_events(&mut self, now: Instant) -> bool {
        let here = self.here(now);
        let before = self.events.len();
        let Some(mesh) = &mut self.mesh else { return false };
        while let Some(event) = mesh.poll_event() {
            if let MeshEvent::Readdress { port, addresses } = &event
                && let Some((_, endpoint)) = self.ports.get_mut(port)
            {
                endpoint.addresses.clone_from(addresses);
                endpoint.explicit = false;
                mesh.put_endpoint(here, endpoint.clone());
            }
            if let MeshEvent::NetworkMerged { network, into } = &event {
                let ports = self.ports.values_mut().filter(|(_, endpoint)| endpoint.network == *network);
                ports.for_each(|(_, endpoint)| endpoint.network = *into);
            }
            self.events.push(event);
        }
        self.events.len() > before
    }

    pub fn allocate(&mut self, now: Instant, request: RequestId, what: AllocRequest) {
        let now = self.here(now);
        if let Some(mesh) = &mut self.mesh {
            self.asked.insert(request, what.clone());
            mesh.allocate(now, request, what);
        }
    }

    /// An address was given: the container gets it, and everybody is told.
    pub fn answered(&mut self, now: Instant, request: RequestId, result: Answer) {
        let Some(what) = self.asked.remove(&request) else { return };
        let now = self.here(now);
        if let Ok(addresses) = &result {
            let endpoint = endpoint(what, addresses.clone());
            self.ports.insert(endpoint.port, (request, endpoint.clone()));
            if let Some(mesh) = &mut self.mesh {
                mesh.put_endpoint(now, endpoint);
            }
        }
        self.answers.insert(request, result);
    }

    /// Who owns which units of the one network, as this host has it on disk.
    pub fn units(&self) -> Vec<Run> {
        let tables = self.mesh.as_ref().map_or_else(Vec::new, Mesh::unit_tables);
        let tables = tables.into_iter().filter(|table| table.network == MESH_NETWORK);
        tables.flat_map(|table| table.runs).collect()
    }

    /// True while a request of this life has no answer.
    pub fn waits_for(&self, request: RequestId) -> bool {
        self.asked.contains_key(&request)
    }

    pub fn detach(&mut self, now: Instant, request: RequestId) {
        let port = self.ports.iter().find(|(_, (of, _))| *of == request).map(|(port, _)| *port);
        let Some(port) = port else { return };
        self.ports.remove(&port);
        let now = self.here(now);
        if let Some(mesh) = &mut self.mesh {
            mesh.remove_endpoint(now, port);
        }
    }
}

fn endpoint(what: AllocRequest, addresses: Vec<IpPrefix>) -> Endpoint {
    let explicit = !what.wanted.is_empty();
    let [a, b, c, d, e, g, ..] = what.port.0;
    Endpoint {
        port: what.port,
        network: what.network,
        name: what.holder.clone(),
        aliases: Vec::new(),
        container: what.holder,
        mac: MacAddr::local([a, b, c, d, e, g]),
        addresses,
        ifname: "mesh0".to_owned(),
        running: true,
        docker_id: None,
        explicit,
    }
}
