//! Several hosts in one process under one virtual clock: the mesh of each is real, wires and disks are not.
//!
//! Everything that happens by chance comes from one seed, so a run can be repeated exactly.

#![allow(dead_code, unreachable_pub, unused_imports, reason = "each test file uses its part")]
#![allow(clippy::expect_used, clippy::print_stdout, reason = "a simulator is test code as a whole")]

mod checks;
mod clock;
mod events;
mod host;
pub mod secrets;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use engine::types::NetworkId;
use peering::mesh::{
    AllocRequest, MESH_NETWORK, NetworkError, NetworkSpec, NetworkView, RemoveError, RequestId, RotateError,
    Target,
};
use peering::proto::Message;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

pub use checks::AGREEMENT;
pub use clock::Clock;
use events::Event;
pub use host::{Answer, Host, Launch, Loss, secret};
pub use wire::{Link, Wires};

/// QUIC gives a silent connection up after this.
const IDLE: Duration = Duration::from_secs(10);
/// QUIC says something so often.
const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// An attempt that nobody answers fails after this.
const DIAL_TIMEOUT: Duration = Duration::from_secs(3);
/// So many things at one instant are a loop that never ends.
const BUSY: u32 = 100_000;

/// From which host to which, and what.
pub type Loses = dyn FnMut((usize, usize), &Message) -> bool;

/// The hosts, the wires between them, and what is on its way.
pub struct World {
    pub seed: u64,
    pub now: Instant,
    start: Instant,
    pub rng: StdRng,
    pub hosts: Vec<Host>,
    pub wires: Wires,
    queue: BTreeMap<(Instant, u64), Event>,
    sequence: u64,
    /// When each host has something to do by itself, by time and by host.
    alarms: BTreeSet<(Instant, usize)>,
    alarm_of: Vec<Option<Instant>>,
    /// What paused hosts miss, in order.
    held: BTreeMap<usize, Vec<Event>>,
    /// How many things happened.
    pub steps: u64,
    /// How often hosts closed connections, by the reason they gave.
    pub closes: BTreeMap<String, u64>,
    /// Is asked about every message that arrives; true: it is lost on its way, and with it the connection.
    pub loses: Option<Box<Loses>>,
    requests: u64,
    busy: (Instant, u32),
    /// 1: tells what happens to the hosts, 2: every message too.
    trace: u8,
}

impl World {
    pub fn new(seed: u64, hosts: usize) -> Self {
        #[expect(clippy::disallowed_methods, reason = "the origin of the virtual clock; any moment will do")]
        let start = Instant::now();
        let mut rng = StdRng::seed_from_u64(seed);
        let hosts = (0..hosts).map(|number| Host::new(number, rng.random(), start)).collect();
        World {
            seed,
            now: start,
            start,
            rng,
            hosts,
            wires: Wires::default(),
            queue: BTreeMap::new(),
            sequence: 0,
            alarms: BTreeSet::new(),
            alarm_of: Vec::new(),
            held: BTreeMap::new(),
            steps: 0,
            closes: BTreeMap::new(),
            loses: None,
            requests: 0,
            busy: (start, 0),
            trace: std::env::var("SIM_TRACE").map_or(0, |level| level.parse().unwrap_or(1)),
        }
    }

    /// Hosts that agree, each with so many containers.
    pub fn cluster(seed: u64, hosts: usize, containers: usize) -> Self {
        let mut world = World::new(seed, hosts);
        world.launch_all();
        world.assert_agreement();
        for number in (0..containers).flat_map(|_| 0..hosts) {
            let request = world.attach(number, &[]);
            assert!(world.await_answer(request).is_ok(), "seed {seed}: {number} gets no address");
        }
        world.assert_agreement();
        world
    }

    /// Time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    pub fn name(number: usize) -> String {
        format!("host{number}")
    }

    pub fn target(number: usize) -> Target {
        Self::name(number).parse().expect("a host name")
    }

    pub fn addr(number: usize) -> SocketAddr {
        SocketAddr::new(
            IpAddr::V4(Ipv4Addr::new(192, 0, 2, u8::try_from(number).expect("few hosts") + 1)),
            6783,
        )
    }

    /// Starts a host; with `disk`, from what it had written.
    pub fn launch(&mut self, number: usize, launch: Launch) {
        self.note(&format!("launch {number}"));
        let seed = self.rng.random();
        let nonce = self.rng.random();
        self.hosts[number].start(self.now, seed, nonce, launch);
        self.expect_resets(number);
        self.pump(number);
    }

    /// Launches every host with the same list of all of them.
    pub fn launch_all(&mut self) {
        let targets: Vec<usize> = (0..self.hosts.len()).collect();
        for number in 0..self.hosts.len() {
            self.launch(number, Launch::targets(&targets));
        }
    }

    /// The process is killed; what was on its way to the disk arrives by chance, and the disk stays unless `lose_disk`.
    pub fn crash(&mut self, number: usize, lose_disk: bool) {
        let loss = match (lose_disk, self.rng.random()) {
            (true, _) => Loss::Disk,
            (false, true) => Loss::Nothing,
            (false, false) => Loss::LastWrite,
        };
        let reached = self.rng.random_range(0.0..=1.0);
        self.crash_with(number, loss, self.wires.latency.mul_f64(reached));
    }

    /// The process is killed. What it sent arrives if it would within `reach`; the rest is lost with it.
    pub fn crash_with(&mut self, number: usize, loss: Loss, reach: Duration) {
        self.note(&format!("crash {number}, lost {loss:?}"));
        self.hosts[number].crash(loss);
        self.held.remove(&number);
        let idle = self.now + IDLE;
        for pair in self.wires.abandon(self.now, number, self.now + reach) {
            self.schedule(idle, Event::Idle { pair });
        }
        self.rearm(number);
    }

    /// The machine loses power: its containers are gone with it.
    pub fn lose_power(&mut self, number: usize) {
        let loss = if self.rng.random() { Loss::Nothing } else { Loss::LastWrite };
        self.hosts[number].powered = false;
        self.crash_with(number, loss, Duration::ZERO);
        self.hosts[number].ports.clear();
    }

    /// The process stands still for a while, as after SIGSTOP.
    pub fn pause(&mut self, number: usize, time: Duration) {
        if self.hosts[number].mesh.is_none() {
            return;
        }
        self.note(&format!("pause {number} for {time:?}"));
        self.hosts[number].paused = true;
        self.hosts[number].pauses += 1;
        let pause = self.hosts[number].pauses;
        for pair in self.wires.set_asleep(self.now, number, true) {
            self.schedule(self.now + IDLE, Event::Idle { pair });
        }
        self.schedule(self.now + time, Event::Resume { host: number, pause });
        self.rearm(number);
    }

    /// Starts a crashed host again as it was started before.
    pub fn restart(&mut self, number: usize) {
        let launch = self.hosts[number].launch.clone();
        self.launch(number, launch);
        let now = self.now;
        self.hosts[number].reclaim_ports(now);
        self.pump(number);
    }

    /// Somebody copies the disk of a host to another machine, and starts that; its number.
    pub fn launch_clone(&mut self, of: usize, launch: Launch) -> usize {
        let number = self.hosts.len();
        self.note(&format!("clone {of} as {number}"));
        self.hosts.push(self.hosts[of].copy(number, self.now));
        self.launch(number, launch);
        let now = self.now;
        self.hosts[number].reclaim_ports(now);
        self.pump(number);
        number
    }

    /// Has a host leave for good; the answer is its `left`. One that has left hears no more of it.
    pub fn reset(&mut self, number: usize, force: bool) {
        if self.hosts[number].left == Some(Ok(())) {
            return;
        }
        self.note(&format!("reset {number} force={force}"));
        let now = self.hosts[number].here(self.now);
        self.hosts[number].left = None;
        self.hosts[number].leaves = true;
        self.hosts[number].mesh.as_mut().expect("it runs").reset(now, force);
        self.pump(number);
        self.rearm(number);
    }

    /// What a host does when it is told to stop: its last words leave, and it writes what is to be written.
    pub fn stop(&mut self, number: usize) {
        self.note(&format!("stop {number}"));
        let now = self.hosts[number].here(self.now);
        self.hosts[number].mesh.as_mut().expect("it runs").stop(now);
        self.pump(number);
        self.hosts[number].crash(Loss::Nothing);
        self.rearm(number);
    }

    /// Nothing goes from one host to the other any more; the other way is another call.
    pub fn cut(&mut self, from: usize, to: usize) {
        for pair in self.wires.cut(self.now, from, to) {
            self.schedule(self.now + IDLE, Event::Idle { pair });
        }
    }

    /// Cuts both ways between two sets of hosts.
    pub fn partition(&mut self, left: &[usize], right: &[usize]) {
        self.note(&format!("partition {left:?} {right:?}"));
        for &a in left {
            for &b in right {
                self.cut(a, b);
                self.cut(b, a);
            }
        }
    }

    /// All wires work again; what waited arrives.
    pub fn heal(&mut self) {
        self.note("heal");
        for (pair, to_dialler, item) in self.wires.heal(self.now) {
            self.deliver(pair, to_dialler, item);
        }
    }

    /// A connection between two hosts breaks for both.
    pub fn break_connections(&mut self, a: usize, b: usize) {
        for pair in self.wires.between(a, b) {
            self.end(pair, "the network broke it");
        }
    }

    /// Asks a host for an address, as `attach` does; the endpoint is put as soon as there is one.
    pub fn attach(&mut self, number: usize, wanted: &[&str]) -> RequestId {
        self.attach_on(number, MESH_NETWORK, wanted)
    }

    /// The same, on any network.
    pub fn attach_on(&mut self, number: usize, network: NetworkId, wanted: &[&str]) -> RequestId {
        self.requests += 1;
        let request = RequestId(self.requests);
        let port = engine::types::PortId(self.rng.random());
        let holder = format!("container{}", self.requests);
        let wanted = wanted.iter().map(|addr| addr.parse().expect("an address")).collect();
        let what = AllocRequest { port, network, holder, wanted, without_ipv6: false };
        self.note(&format!("attach {request:?} on {number} wants {:?}", what.wanted));
        let now = self.now;
        self.hosts[number].allocate(now, request, what);
        self.pump(number);
        request
    }

    /// Asks a host for a network, as `network create` does; the answer is among its `made`.
    pub fn create_network(&mut self, number: usize, spec: NetworkSpec) -> RequestId {
        self.requests += 1;
        let request = RequestId(self.requests);
        self.note(&format!("create {request:?} on {number}: {spec:?}"));
        let now = self.hosts[number].here(self.now);
        self.hosts[number].mesh.as_mut().expect("it runs").create_network(now, request, spec);
        self.pump(number);
        request
    }

    /// Lets time pass until a network is there.
    pub fn await_network(&mut self, number: usize, request: RequestId) -> Result<NetworkView, NetworkError> {
        self.run_until(Duration::from_secs(15), |world| world.hosts[number].made.contains_key(&request));
        let made = self.hosts[number].made.get(&request).cloned();
        made.unwrap_or_else(|| panic!("seed {}: no answer", self.seed)).map(|view| *view)
    }

    /// Runs `network rm` on a host.
    pub fn remove_network(&mut self, number: usize, network: NetworkId) -> Result<(), NetworkError> {
        let now = self.hosts[number].here(self.now);
        let done = self.hosts[number].mesh.as_mut().expect("it runs").remove_network(now, network);
        self.note(&format!("remove {network} on {number}: {done:?}"));
        self.pump(number);
        done
    }

    /// The networks as a host shows them.
    pub fn networks(&self, number: usize) -> Vec<NetworkView> {
        self.hosts[number].mesh.as_ref().expect("it runs").networks()
    }

    pub fn detach(&mut self, number: usize, request: RequestId) {
        self.note(&format!("detach {request:?} on {number}"));
        let now = self.now;
        self.hosts[number].detach(now, request);
        self.pump(number);
    }

    /// Runs `rmpeer` on a host.
    pub fn remove_peer(&mut self, number: usize, name: &str, force: bool) -> Result<bool, RemoveError> {
        self.note(&format!("rmpeer {name} on {number} force={force}"));
        let now = self.now;
        let done = self.hosts[number].mesh.as_mut().expect("it runs").remove_peer(now, name, force);
        self.pump(number);
        done.map(|removed| removed.newly)
    }

    /// Runs `revoke` on a host.
    pub fn revoke_peer(&mut self, number: usize, name: &str) -> Result<bool, RemoveError> {
        self.note(&format!("revoke {name} on {number}"));
        let now = self.hosts[number].here(self.now);
        let done = self.hosts[number].mesh.as_mut().expect("it runs").revoke_peer(now, name);
        self.pump(number);
        done.map(|removed| removed.newly)
    }

    /// Runs `secret rotate` on a host, with the secret of this first byte, or to go on.
    pub fn rotate(&mut self, number: usize, to: Option<u8>, leave_behind: bool) -> Result<(), RotateError> {
        self.note(&format!("rotate {to:?} on {number} leave_behind={leave_behind}"));
        let now = self.hosts[number].here(self.now);
        let mesh = self.hosts[number].mesh.as_mut().expect("it runs");
        let done = mesh.rotate(now, to.map(secret), leave_behind);
        self.pump(number);
        done
    }

    /// Names a host to another, as `connect` does; it is remembered.
    pub fn connect(&mut self, from: usize, to: usize) {
        self.note(&format!("connect {from} to {to}"));
        let now = self.hosts[from].here(self.now);
        self.hosts[from].launch.targets.push(to);
        if let Some(mesh) = &mut self.hosts[from].mesh {
            mesh.connect(now, vec![Self::target(to)], false);
        }
        self.pump(from);
    }

    /// Removes a host at another, as `rmpeer --force` does.
    pub fn remove(&mut self, at: usize, of: usize) {
        let now = self.hosts[at].here(self.now);
        let peer = self.hosts[of].peer_id().to_string();
        let removed = self.hosts[at].mesh.as_mut().map(|mesh| mesh.remove_peer(now, &peer, true));
        self.note(&format!("remove {of} at {at}: {removed:?}"));
        self.pump(at);
    }

    /// The answer to an `attach`, if there is one.
    pub fn answer(&self, request: RequestId) -> Option<&Answer> {
        self.hosts.iter().find_map(|host| host.answers.get(&request))
    }

    /// Lets time pass until an `attach` is answered.
    pub fn await_answer(&mut self, request: RequestId) -> Answer {
        self.run_until(Duration::from_secs(15), |world| world.answer(request).is_some());
        self.answer(request).cloned().unwrap_or_else(|| panic!("seed {}: no answer", self.seed))
    }

    /// Lets time pass.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        // A test may have asked something of a host without telling the world.
        (0..self.hosts.len()).for_each(|number| self.rearm(number));
        while self.step(end) {}
        self.now = end;
    }

    /// Lets time pass until something holds, asked every 100 ms; how long it took, or nothing after `limit`.
    pub fn run_until(&mut self, limit: Duration, holds: impl Fn(&World) -> bool) -> Option<Duration> {
        let begin = self.now;
        while self.now - begin <= limit {
            if holds(self) {
                return Some(self.now - begin);
            }
            self.run(Duration::from_millis(100));
        }
        None
    }

    pub fn note(&self, text: &str) {
        if self.trace > 0 {
            println!("{:>9.3} {text}", self.elapsed().as_secs_f64());
        }
    }
}
