//! Several hosts in one process under one virtual clock: the mesh of each is real, wires and disks are not.
//!
//! Everything that happens by chance comes from one seed, so a run can be repeated exactly.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::expect_used, clippy::print_stdout, reason = "a simulator is test code as a whole")]

mod checks;
mod host;
mod wire;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use peering::mesh::{AllocRequest, ConnId, DialId, DialTarget, MESH_NETWORK, Output, RequestId, Target};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

pub use host::{Answer, Host, Launch};
pub use wire::Wires;
use wire::{Item, PairId};

/// QUIC gives a silent connection up after this.
const IDLE: Duration = Duration::from_secs(10);
/// An attempt that nobody answers fails after this.
const DIAL_TIMEOUT: Duration = Duration::from_secs(3);
/// So many things at one instant are a loop that never ends.
const BUSY: u32 = 100_000;

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
    requests: u64,
    busy: (Instant, u32),
    pub trace: bool,
}

enum Event {
    /// The attempt of a host arrives at another.
    Dialled {
        from: usize,
        life: u64,
        dial: DialId,
        to: usize,
        expected: Option<engine::types::PeerId>,
    },
    DialFailed {
        host: usize,
        life: u64,
        dial: DialId,
        reason: String,
    },
    /// The far end of a new connection learns of it.
    Accepted {
        pair: PairId,
    },
    Arrived {
        pair: PairId,
        to_dialler: bool,
        item: Item,
    },
    Idle {
        pair: PairId,
    },
}

impl World {
    pub fn new(seed: u64, hosts: usize) -> Self {
        #[expect(clippy::disallowed_methods, reason = "the origin of the virtual clock; any moment will do")]
        let start = Instant::now();
        let mut rng = StdRng::seed_from_u64(seed);
        let hosts = (0..hosts).map(|number| Host::new(number, rng.random())).collect();
        World {
            seed,
            now: start,
            start,
            rng,
            hosts,
            wires: Wires::default(),
            queue: BTreeMap::new(),
            sequence: 0,
            requests: 0,
            busy: (start, 0),
            trace: std::env::var_os("SIM_TRACE").is_some(),
        }
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
        self.pump(number);
    }

    /// Launches every host with the same list of all of them.
    pub fn launch_all(&mut self) {
        let targets: Vec<usize> = (0..self.hosts.len()).collect();
        for number in 0..self.hosts.len() {
            self.launch(number, Launch::targets(&targets));
        }
    }

    /// The process is killed, or the power fails; the disk stays unless `lose_disk`.
    pub fn crash(&mut self, number: usize, lose_disk: bool) {
        self.note(&format!("crash {number} lose_disk={lose_disk}"));
        let written = self.rng.random();
        self.hosts[number].crash(lose_disk, written);
        let idle = self.now + IDLE;
        for pair in self.wires.abandon(self.now, number) {
            self.schedule(idle, Event::Idle { pair });
        }
    }

    /// Starts a crashed host again as it was started before.
    pub fn restart(&mut self, number: usize) {
        let launch = self.hosts[number].launch.clone();
        self.launch(number, launch);
        let now = self.now;
        self.hosts[number].reclaim_ports(now);
        self.pump(number);
    }

    pub fn stop(&mut self, number: usize) {
        self.note(&format!("stop {number}"));
        let now = self.now;
        self.hosts[number].mesh.as_mut().expect("it runs").stop(now);
        self.pump(number);
        self.hosts[number].crash(false, true);
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
        for (pair, to_dialler, item) in self.wires.heal() {
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
        self.requests += 1;
        let request = RequestId(self.requests);
        let port = engine::types::PortId(self.rng.random());
        let holder = format!("container{}", self.requests);
        let wanted = wanted.iter().map(|addr| addr.parse().expect("an address")).collect();
        let what = AllocRequest { port, network: MESH_NETWORK, holder, wanted };
        self.note(&format!("attach {request:?} on {number} wants {:?}", what.wanted));
        let now = self.now;
        self.hosts[number].allocate(now, request, what);
        self.pump(number);
        request
    }

    pub fn detach(&mut self, number: usize, request: RequestId) {
        self.note(&format!("detach {request:?} on {number}"));
        let now = self.now;
        self.hosts[number].detach(now, request);
        self.pump(number);
    }

    /// The answer to an `attach`, if there is one.
    pub fn answer(&self, request: RequestId) -> Option<&Answer> {
        self.hosts.iter().find_map(|host| host.answers.get(&request))
    }

    /// Lets time pass.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
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

    fn step(&mut self, end: Instant) -> bool {
        let event = self.queue.first_key_value().map(|(&(at, _), _)| at);
        let timer = self.hosts.iter().enumerate().filter_map(|(n, host)| host.due().map(|at| (at, n))).min();
        let timed = timer.filter(|(at, _)| event.is_none_or(|event| *at <= event));
        let next = timed.map(|(at, _)| at).or(event);
        if next.is_none_or(|at| at > end) {
            return false;
        }
        self.now = self.now.max(next.expect("checked above"));
        self.count_busy();
        match timed {
            Some((_, number)) => {
                self.hosts[number].handle_timeout(self.now);
                self.pump(number);
            }
            None => {
                let (_, event) = self.queue.pop_first().expect("an event was due");
                self.handle(event);
            }
        }
        true
    }

    fn count_busy(&mut self) {
        self.busy = if self.busy.0 == self.now { (self.now, self.busy.1 + 1) } else { (self.now, 0) };
        assert!(self.busy.1 < BUSY, "seed {}: time stands still at {:?}", self.seed, self.elapsed());
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Dialled { from, life, dial, to, expected } => self.dialled(from, life, dial, to, expected),
            Event::DialFailed { host, life, dial, reason } => {
                let now = self.now;
                if let Some(mesh) = self.hosts[host].living(life) {
                    mesh.handle_dial_failed(now, dial, &reason);
                    self.pump(host);
                }
            }
            Event::Accepted { pair } => self.accepted(pair),
            Event::Arrived { pair, to_dialler, item } => self.arrived(pair, to_dialler, item),
            Event::Idle { pair } => {
                if self.wires.is_silent(pair, self.now - IDLE) {
                    self.end(pair, "no answer for 10 s");
                }
            }
        }
    }

    /// Does what a host wants done: the disk first, then the wires.
    fn pump(&mut self, number: usize) {
        while let Some(output) = self.hosts[number].poll(self.now) {
            self.perform(number, output);
        }
    }

    fn perform(&mut self, number: usize, output: Output) {
        match output {
            Output::Transmit { conn, bytes } => self.send(number, conn, Item::Message(bytes)),
            Output::Datagram { conn, bytes } => {
                assert!(bytes.len() <= 1200, "a datagram of {} bytes fits no QUIC packet", bytes.len());
                if !self.rng.random_bool(self.wires.loss) {
                    self.send(number, conn, Item::Datagram(bytes));
                }
            }
            Output::Close { conn, reason } => {
                self.send(number, conn, Item::Close(reason));
                self.wires.close(number, conn);
            }
            Output::Dial { dial, target } => self.dial(number, dial, target),
            Output::Allocated { request, result } => self.hosts[number].answered(self.now, request, result),
        }
    }

    fn dial(&mut self, from: usize, dial: DialId, target: DialTarget) {
        let (to, expected) = match target {
            DialTarget::Named(target) => (self.find(|n| Self::name(n) == target.host), None),
            DialTarget::Addr { addrs, peer } => (self.find(|n| addrs.contains(&Self::addr(n))), Some(peer)),
        };
        let life = self.hosts[from].life;
        let latency = self.latency();
        match to {
            None => self.fail_dial(latency, from, dial, "no such name"),
            Some(to) if self.rng.random_bool(self.wires.dial_failures) || self.wires.is_cut(from, to) => {
                self.fail_dial(DIAL_TIMEOUT, from, dial, "no answer");
            }
            Some(to) => {
                self.schedule(self.now + latency, Event::Dialled { from, life, dial, to, expected });
            }
        }
    }

    fn find(&self, is: impl Fn(usize) -> bool) -> Option<usize> {
        (0..self.hosts.len()).find(|&number| is(number))
    }

    fn fail_dial(&mut self, after: Duration, host: usize, dial: DialId, reason: &str) {
        let life = self.hosts[host].life;
        let reason = reason.to_owned();
        self.schedule(self.now + after, Event::DialFailed { host, life, dial, reason });
    }

    fn dialled(
        &mut self,
        from: usize,
        life: u64,
        dial: DialId,
        to: usize,
        expected: Option<engine::types::PeerId>,
    ) {
        if self.hosts[from].living(life).is_none() {
            return;
        }
        if self.hosts[to].mesh.is_none() || self.wires.is_cut(to, from) {
            return self.fail_dial(DIAL_TIMEOUT, from, dial, "no answer");
        }
        if expected.is_some_and(|peer| peer != self.hosts[to].peer_id()) {
            return self.fail_dial(Duration::ZERO, from, dial, "another host answers there");
        }
        let dialler = (from, self.hosts[from].new_conn(), life);
        let acceptor = (to, self.hosts[to].new_conn(), self.hosts[to].life);
        let pair = self.wires.connect(dialler, acceptor, self.now);
        let (now, peer) = (self.now, self.hosts[to].peer_id());
        let later = self.now + self.latency();
        self.schedule(later, Event::Accepted { pair });
        if let Some(mesh) = self.hosts[from].living(life) {
            mesh.handle_established(now, dialler.1, peer, Some(dial), Self::addr(to));
            self.pump(from);
        }
    }

    fn accepted(&mut self, pair: PairId) {
        let Some((from, to)) = self.wires.ends(pair) else { return };
        let Some(early) = self.wires.accept(pair) else {
            return self.schedule(self.now + IDLE, Event::Idle { pair });
        };
        let (now, peer) = (self.now, self.hosts[from.0].peer_id());
        if let Some(mesh) = self.hosts[to.0].living(to.2) {
            mesh.handle_established(now, to.1, peer, None, Self::addr(from.0));
            self.pump(to.0);
        }
        for item in early {
            self.deliver(pair, false, item);
        }
    }

    fn send(&mut self, number: usize, conn: ConnId, item: Item) {
        let Some((pair, to_dialler)) = self.wires.pair_of(number, conn) else { return };
        self.deliver(pair, to_dialler, item);
    }

    /// Messages keep their order, datagrams do not.
    fn deliver(&mut self, pair: PairId, to_dialler: bool, item: Item) {
        let at = self.now + self.latency();
        let at = match &item {
            Item::Datagram(_) => at,
            Item::Message(_) | Item::Close(_) => self.wires.in_order(pair, to_dialler, at),
        };
        self.schedule(at, Event::Arrived { pair, to_dialler, item });
    }

    fn arrived(&mut self, pair: PairId, to_dialler: bool, item: Item) {
        let Some(item) = self.wires.pass(pair, to_dialler, item) else { return };
        let Some((number, conn, life)) = self.wires.end_of(pair, to_dialler) else { return };
        let now = self.now;
        let Some(mesh) = self.hosts[number].living(life) else { return };
        match item {
            Item::Message(bytes) => mesh.handle_message(now, conn, &bytes),
            Item::Datagram(bytes) => mesh.handle_datagram(now, conn, &bytes),
            Item::Close(reason) => {
                self.wires.close(number, conn);
                if let Some(mesh) = self.hosts[number].living(life) {
                    mesh.handle_closed(now, conn, &reason);
                }
            }
        }
        self.pump(number);
    }

    /// Both ends of a connection that still have it learn that it is over.
    fn end(&mut self, pair: PairId, reason: &str) {
        let now = self.now;
        for (number, conn, life) in self.wires.remove(pair) {
            if let Some(mesh) = self.hosts[number].living(life) {
                mesh.handle_closed(now, conn, reason);
                self.pump(number);
            }
        }
    }

    fn latency(&mut self) -> Duration {
        let most = self.wires.latency;
        most.mul_f64(self.rng.random_range(0.1..=1.0))
    }

    fn schedule(&mut self, at: Instant, event: Event) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), event);
    }

    pub fn note(&self, text: &str) {
        if self.trace {
            println!("{:>9.3} {text}", self.elapsed().as_secs_f64());
        }
    }
}
