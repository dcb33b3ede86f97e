//! The world: hosts, their disks, the messages under way, and what each host was told of the others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use engine::types::{IpPrefix, MacAddr, NetworkId, PeerId, PortId};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::ipam::{Ipam, IpamOutput, Meeting};
use crate::mesh::{AllocError, AllocRequest, PeerState, RequestId};
use crate::proto::Message;
use crate::records::{Encryption, EndpointRecord, Given, HostRecord, SubnetRecord, TargetRecord};

/// A network of one subnet.
pub(super) fn subnets(range: &str) -> Vec<SubnetRecord> {
    vec![SubnetRecord::whole(range.parse().unwrap())]
}

pub(super) const NETWORK: NetworkId = crate::mesh::MESH_NETWORK;
/// One step of the world.
const TICK: Duration = Duration::from_millis(50);

pub(super) struct Host {
    pub(super) id: PeerId,
    pub(super) ipam: Ipam,
    disk: Vec<u8>,
    pub(super) disk_full: bool,
    /// The names this host was given, and who answered there.
    pub(super) targets: Vec<(usize, bool)>,
    /// Whose host record it has, and the targets in it.
    records: BTreeMap<usize, Vec<TargetRecord>>,
    pub(super) answers: BTreeMap<u64, Result<Vec<IpPrefix>, AllocError>>,
    /// The closure at the moment of each founding.
    pub(super) founded: Vec<BTreeSet<PeerId>>,
    found_flag: bool,
}

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) rng: StdRng,
    pub(super) hosts: Vec<Host>,
    under_way: Vec<(Instant, usize, usize, Message)>,
    /// Of a hundred messages, how many are lost, and how many come twice.
    pub(super) loss: u32,
    pub(super) cut: BTreeSet<(usize, usize)>,
    range: &'static str,
    next_request: u64,
}

/// So many cases, or as many as PROPTEST_CASES says.
pub(super) fn cases(usual: u32) -> proptest::prelude::ProptestConfig {
    let told = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    proptest::prelude::ProptestConfig::with_cases(told.unwrap_or(usual))
}

/// Any moment will do; what counts is the time that passes.
#[expect(clippy::disallowed_methods, reason = "the clock of the world has to begin somewhere")]
fn start() -> Instant {
    Instant::now()
}

pub(super) fn id(n: usize) -> PeerId {
    // The order of the ids is not the order of the hosts.
    let mut bytes = [0; 16];
    bytes[0] = u8::try_from(n * 37 % 251).unwrap();
    bytes[15] = u8::try_from(n).unwrap();
    PeerId(bytes)
}

pub(super) fn port(n: u64) -> PortId {
    PortId(n.to_be_bytes())
}

impl World {
    pub(super) fn new(hosts: usize, range: &'static str, seed: u64) -> Self {
        let mut world = World {
            now: start(),
            rng: StdRng::seed_from_u64(seed),
            hosts: Vec::new(),
            under_way: Vec::new(),
            loss: 0,
            cut: BTreeSet::new(),
            range,
            next_request: 0,
        };
        for n in 0..hosts {
            let ipam = Ipam::new(id(n), [u8::try_from(n).unwrap(); 32]);
            let mut host = Host {
                id: id(n),
                disk: ipam.save().unwrap(),
                ipam,
                disk_full: false,
                targets: Vec::new(),
                records: BTreeMap::new(),
                answers: BTreeMap::new(),
                founded: Vec::new(),
                found_flag: false,
            };
            host.ipam.add_network(NETWORK, "mesh", &subnets(range)).unwrap();
            world.hosts.push(host);
        }
        world
    }

    /// Every host names every other one, and all know each other already.
    pub(super) fn acquainted(hosts: usize, range: &'static str, seed: u64) -> Self {
        let mut world = World::new(hosts, range, seed);
        for n in 0..hosts {
            world.hosts[n].targets = (0..hosts).map(|other| (other, true)).collect();
        }
        for n in 0..hosts {
            world.tell_targets(n);
            for other in 0..hosts {
                world.tell_record(n, other);
            }
        }
        world
    }

    pub(super) fn set_found(&mut self, n: usize) {
        self.hosts[n].found_flag = true;
        self.hosts[n].ipam.set_found(true);
    }

    fn target_records(&self, n: usize) -> Vec<TargetRecord> {
        let record = |&(other, resolved): &(usize, bool)| TargetRecord {
            name: format!("host{other}"),
            peer: resolved.then(|| id(other)),
        };
        self.hosts[n].targets.iter().map(record).collect()
    }

    pub(super) fn tell_targets(&mut self, n: usize) {
        let targets = self.target_records(n);
        self.hosts[n].ipam.set_targets(self.now, targets);
        self.drain(n);
    }

    /// Gives host `n` the present record of `other`.
    pub(super) fn tell_record(&mut self, n: usize, other: usize) {
        let targets = self.target_records(other);
        self.give_record(n, other, targets);
    }

    fn give_record(&mut self, n: usize, other: usize, targets: Vec<TargetRecord>) {
        let (now, host) = (self.now, &mut self.hosts[n]);
        host.records.insert(other, targets.clone());
        host.ipam.set_host(now, id(other), &host_record(other, targets));
        self.drain(n);
    }

    /// Two hosts speak: names that lead to each other resolve, and all records are exchanged.
    pub(super) fn meet(&mut self, a: usize, b: usize) {
        if self.is_cut(a, b) {
            return;
        }
        for (n, other) in [(a, b), (b, a)] {
            self.hosts[n]
                .targets
                .iter_mut()
                .filter(|target| target.0 == other)
                .for_each(|target| target.1 = true);
            self.hosts[n]
                .targets
                .iter_mut()
                .filter(|target| target.0 == n)
                .for_each(|target| target.1 = true);
        }
        self.tell_targets(a);
        self.tell_targets(b);
        for (n, other) in [(a, b), (b, a)] {
            self.tell_record(n, other);
            for (third, targets) in self.hosts[other].records.clone() {
                if third != n {
                    self.give_record(n, third, targets);
                }
            }
        }
        self.say_hello(a, b);
    }

    fn say_hello(&mut self, a: usize, b: usize) {
        for (n, other) in [(a, b), (b, a)] {
            let (cluster, cedes) = (self.hosts[other].ipam.cluster(), self.hosts[other].ipam.cedes());
            if self.hosts[n].ipam.meet(id(other), cluster, cedes) == Meeting::GiveWay {
                let now = self.now;
                self.hosts[n].ipam.give_way(now);
                self.drain(n);
                break;
            }
        }
    }

    pub(super) fn is_cut(&self, a: usize, b: usize) -> bool {
        self.cut.contains(&(a.min(b), a.max(b)))
    }

    /// Cuts or heals everything between two groups.
    pub(super) fn partition(&mut self, left: &[usize], right: &[usize], cut: bool) {
        for &a in left {
            for &b in right {
                let pair = (a.min(b), a.max(b));
                if cut {
                    self.cut.insert(pair)
                } else {
                    self.cut.remove(&pair)
                };
                let state = if cut { PeerState::Down } else { PeerState::Alive };
                let now = self.now;
                self.hosts[a].ipam.set_state(now, id(b), state);
                self.hosts[b].ipam.set_state(now, id(a), state);
                self.drain(a);
                self.drain(b);
            }
        }
    }

    /// A host learns an endpoint record of another one.
    pub(super) fn show(&mut self, n: usize, of: usize, port: PortId, addrs: &[IpAddr], name: &str) {
        let endpoint = endpoint_record(port, addrs, name);
        let now = self.now;
        self.hosts[n].ipam.set_endpoint(now, id(of), NETWORK, &endpoint);
        self.drain(n);
    }

    /// A host learns that another one was removed, and who takes its units.
    pub(super) fn remove(&mut self, at: usize, gone: usize, taker: usize) {
        let now = self.now;
        self.hosts[at].ipam.set_removed(now, id(gone), id(taker));
        self.drain(at);
    }

    /// Who owns an address, as a host knows it.
    pub(super) fn owner(&self, at: usize, addr: IpAddr) -> Option<PeerId> {
        self.hosts[at].ipam.owner_of(NETWORK, addr)
    }

    /// A host loses its memory, not its disk.
    pub(super) fn crash(&mut self, n: usize) {
        let seed = self.rng.random();
        let host = &mut self.hosts[n];
        host.ipam = Ipam::restore(host.id, seed, &host.disk).unwrap();
        host.ipam.add_network(NETWORK, "mesh", &subnets(self.range)).unwrap();
        host.ipam.set_found(host.found_flag);
        let records = host.records.clone();
        self.tell_targets(n);
        for (other, targets) in records {
            self.give_record(n, other, targets);
        }
    }

    pub(super) fn allocate(&mut self, n: usize, port: PortId, wanted: &[&str]) -> u64 {
        self.next_request += 1;
        let wanted = wanted.iter().map(|addr| addr.parse().unwrap()).collect();
        let holder = format!("port {port} on host{n}");
        let what = AllocRequest { port, network: NETWORK, holder, wanted, without_ipv6: false };
        let (now, request) = (self.now, self.next_request);
        self.hosts[n].ipam.allocate(now, RequestId(request), what);
        self.drain(n);
        request
    }

    pub(super) fn cancel(&mut self, n: usize, request: u64) {
        let now = self.now;
        self.hosts[n].ipam.cancel(now, RequestId(request));
        self.drain(n);
    }

    pub(super) fn release(&mut self, n: usize, port: PortId) {
        let now = self.now;
        self.hosts[n].ipam.release(now, port);
        self.drain(n);
    }

    /// The answer to a request, within ten seconds.
    pub(super) fn answer(&mut self, n: usize, request: u64) -> Result<Vec<IpPrefix>, AllocError> {
        for _ in 0..200 {
            if let Some(answer) = self.hosts[n].answers.get(&request) {
                return answer.clone();
            }
            self.tick();
        }
        panic!("no answer: {:?}", self.hosts[n].ipam.status(self.now))
    }

    /// One address for a port, within ten seconds.
    pub(super) fn address(&mut self, n: usize, port: PortId, wanted: &[&str]) -> IpAddr {
        let request = self.allocate(n, port, wanted);
        self.answer(n, request).unwrap()[0].addr
    }

    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.tick();
        }
    }

    pub(super) fn tick(&mut self) {
        self.now += TICK;
        for n in 0..self.hosts.len() {
            let now = self.now;
            if self.hosts[n].ipam.poll_timeout().is_some_and(|at| at <= now) {
                self.hosts[n].ipam.handle_timeout(now);
                self.drain(n);
            }
        }
        let now = self.now;
        let due: Vec<_> = self.under_way.extract_if(.., |message| message.0 <= now).collect();
        for (_, from, to, message) in due {
            self.deliver(from, to, &message);
        }
        self.repair();
    }

    fn deliver(&mut self, from: usize, to: usize, message: &Message) {
        if self.is_cut(from, to) {
            return;
        }
        // Every message goes over the wire, so its encoding is tried too.
        let message = Message::decode(&message.encode()).unwrap();
        let now = self.now;
        self.hosts[to].ipam.handle_message(now, id(from), message);
        self.drain(to);
    }

    /// Now and then two hosts compare what they know of the units, as the mesh does each second.
    fn repair(&mut self) {
        if self.hosts.len() < 2 || !self.rng.random_ratio(1, 10) {
            return;
        }
        let (a, b) = (self.rng.random_range(0..self.hosts.len()), self.rng.random_range(0..self.hosts.len()));
        if a == b || self.hosts[a].ipam.units_hash() == self.hosts[b].ipam.units_hash() {
            return;
        }
        for (n, other) in [(a, b), (b, a)] {
            for table in self.hosts[n].ipam.unit_tables() {
                self.send(n, other, &Message::Units(table));
            }
        }
    }

    fn send(&mut self, from: usize, to: usize, message: &Message) {
        if self.rng.random_range(0..100) < self.loss {
            return;
        }
        let copies = if self.rng.random_range(0..100) < self.loss { 2 } else { 1 };
        for _ in 0..copies {
            let slow = if self.loss > 0 { 2000 } else { 20 };
            let latency = Duration::from_millis(self.rng.random_range(1..slow));
            self.under_way.push((self.now + latency, from, to, message.clone()));
        }
    }

    /// Writes what must be written, then does what the host wants done.
    pub(super) fn drain(&mut self, n: usize) {
        let host = &mut self.hosts[n];
        if host.ipam.is_dirty() {
            let saved = host.ipam.save().unwrap();
            host.ipam.write_started();
            let result = if host.disk_full { Err("no space left".to_owned()) } else { Ok(()) };
            if result.is_ok() {
                host.disk = saved;
            }
            let now = self.now;
            host.ipam.handle_persisted(now, result);
        }
        while let Some(output) = self.hosts[n].ipam.poll_output() {
            match output {
                IpamOutput::Send { to, message } => {
                    if let Some(to) = self.hosts.iter().position(|host| host.id == to) {
                        self.send(n, to, &message);
                    }
                }
                IpamOutput::Push(table) => {
                    let to = self.rng.random_range(0..self.hosts.len());
                    if to != n {
                        self.send(n, to, &Message::Units(table));
                    }
                }
                IpamOutput::Allocated { request, result } => {
                    self.hosts[n].answers.insert(request.0, result);
                }
                IpamOutput::Cluster { founded: true, .. } => {
                    let closure = self.hosts[n].ipam.founding.closure();
                    self.hosts[n].founded.push(closure);
                }
                IpamOutput::Cluster { .. }
                | IpamOutput::Notice { .. }
                | IpamOutput::Reclaim(_)
                | IpamOutput::Leaves(_)
                | IpamOutput::CannotLeave
                | IpamOutput::Founded { .. }
                | IpamOutput::Readdress { .. } => {}
            }
        }
    }
}

fn endpoint_record(port: PortId, addrs: &[IpAddr], name: &str) -> EndpointRecord {
    EndpointRecord {
        port,
        network: NETWORK,
        name: name.to_owned(),
        aliases: Vec::new(),
        container: name.to_owned(),
        mac: MacAddr::local([1, 2, 3, 4, 5, port.0[7]]),
        addresses: addrs.iter().map(|&addr| IpPrefix { addr, len: 12 }).collect(),
        ifname: "mesh0".to_owned(),
        running: true,
        docker_id: None,
        claim_version: 1,
        given: Given::default(),
    }
}

fn host_record(n: usize, targets: Vec<TargetRecord>) -> HostRecord {
    HostRecord {
        noise_key: [0; 32],
        nickname: format!("host{n}"),
        version: "0".to_owned(),
        data_addrs: Vec::new(),
        control_addrs: Vec::new(),
        suites: Vec::new(),
        encryption: Encryption::Off,
        trusted: Vec::new(),
        networks: Vec::new(),
        targets,
        secrets: vec![],
    }
}
