//! All hosts, all connections, and the queue of what happens next.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::{Duration, Instant};

use peering::mesh::{ConnId, DialId, DialTarget, IDLE_TIMEOUT, Mesh, Output};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::host::{self, End, Host, Item, Work};
use super::wire::{MS, Nanos, Network, SECOND, acks, on_wire};

/// What a handshake costs each side's processor.
const HANDSHAKE: Nanos = 2 * MS;
/// The bytes of its three flights: hello, answer with the certificate, and the dialler's certificate.
const FLIGHTS: [u64; 3] = [1200, 2400, 1200];
/// A lost flight is sent again after this: three times the round-trip time that QUIC begins with (RFC 9002 section 6.2.2).
const FLIGHT_AGAIN: Nanos = SECOND;
/// What a message costs the receiver's processor, each of its bytes, and each signature of a record that is news.
const MESSAGE: Nanos = 15_000;
const BYTE: Nanos = 10;
const SIGNATURE: Nanos = 60_000;
/// What a timer costs.
const TIMER: Nanos = 20_000;
/// How long a write to disk takes.
const DISK: Nanos = 3 * MS;
/// An attempt ends after this.
const ATTEMPT: Nanos = 3 * SECOND;
/// A silent connection is dead after this, as the daemon's are.
const IDLE: Nanos = IDLE_TIMEOUT.as_nanos() as Nanos;
/// After so much silence a packet keeps a connection.
const KEEP_ALIVE: Nanos = peering::mesh::KEEP_ALIVE.as_nanos() as Nanos;
/// A host that has so many handshakes in hand refuses more; above the lower number it first wants a proof of the address.
const HANDSHAKES_MAX: usize = 256;
const HANDSHAKES_TRUSTED: usize = 32;
/// The mesh is not woken more often than this.
const RESOLUTION: Nanos = MS / 10;

enum Event {
    /// Packets reach the card of a host.
    Arrive { to: usize, life: u32, bytes: u64, work: Work },
    /// Something without packets.
    Local { to: usize, life: u32, work: Work },
    /// The processor of a host is free and has work.
    Wake { host: usize, life: u32 },
    /// A mesh wants to be woken.
    Timer { host: usize, at: Nanos },
    /// Every host looks for connections that were silent.
    KeepAlive,
}

struct Pair {
    /// Host, its number for the connection, its life: of the dialler and of the acceptor.
    ends: [Option<(usize, ConnId)>; 2],
    /// The hosts, dialler first.
    hosts: [usize; 2],
    /// The latest arrival at each end.
    last: [Nanos; 2],
    used: Nanos,
    /// What came for the acceptor before the handshake was finished there.
    early: Vec<Item>,
}

/// The world.
pub(super) struct World {
    /// Virtual time.
    pub(super) now: Nanos,
    /// The hosts.
    pub(super) hosts: Vec<Host>,
    /// What is between them.
    pub(super) network: Network,
    /// Bytes of messages sent, by kind.
    pub(super) kinds: BTreeMap<u16, (u64, u64)>,
    seed: u64,
    begin: Instant,
    rng: StdRng,
    pairs: BTreeMap<u64, Pair>,
    pair_count: u64,
    queue: BinaryHeap<Reverse<(Nanos, u64)>>,
    events: BTreeMap<u64, Event>,
    sequence: u64,
}

impl World {
    /// Hosts that are off.
    pub(super) fn new(seed: u64, hosts: usize) -> Self {
        let mut world = World {
            now: 0,
            hosts: (0..hosts).map(|number| Host::new(number, seed)).collect(),
            network: Network::new(seed),
            kinds: BTreeMap::new(),
            seed,
            begin: Instant::now(),
            rng: StdRng::seed_from_u64(seed),
            pairs: BTreeMap::new(),
            pair_count: 0,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            sequence: 0,
        };
        world.plan(KEEP_ALIVE, Event::KeepAlive);
        world
    }

    /// Virtual time as the meshes see it.
    pub(super) fn instant(&self) -> Instant {
        self.begin + Duration::from_nanos(self.now)
    }

    /// Starts a host.
    pub(super) fn start(&mut self, number: usize, targets: &[usize]) {
        let (now, seed) = (self.instant(), self.seed);
        self.hosts[number].start(now, seed, targets);
        self.hosts[number].inbox.free = self.now;
        self.pump(number, self.now);
    }

    /// Cuts a host off without a word.
    pub(super) fn kill(&mut self, number: usize) {
        for End { pair, dialler } in self.hosts[number].stop() {
            let Some(state) = self.pairs.get_mut(&pair) else { continue };
            state.ends[usize::from(!dialler)] = None;
            let other = state.ends[usize::from(dialler)];
            if let Some((host, conn)) = other {
                let life = self.hosts[host].life;
                self.plan(self.now + IDLE, Event::Local { to: host, life, work: Work::Silent { conn } });
            }
        }
    }

    /// Does something with a mesh, as its daemon would.
    pub(super) fn with_mesh<T>(
        &mut self,
        number: usize,
        act: impl FnOnce(&mut Mesh, Instant) -> T,
    ) -> Option<T> {
        let now = self.instant();
        let done = self.hosts[number].mesh.as_mut().map(|mesh| act(mesh, now));
        self.pump(number, self.now);
        done
    }

    /// Lets time pass.
    pub(super) fn run(&mut self, time: Nanos) {
        let end = self.now + time;
        while let Some(&Reverse((at, id))) = self.queue.peek()
            && at <= end
        {
            self.queue.pop();
            self.now = self.now.max(at);
            if let Some(event) = self.events.remove(&id) {
                self.handle(event);
            }
        }
        self.now = end;
    }

    fn plan(&mut self, at: Nanos, event: Event) {
        self.sequence += 1;
        self.queue.push(Reverse((at, self.sequence)));
        self.events.insert(self.sequence, event);
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Arrive { to, life, bytes, work } => {
                let rate = self.network.rate;
                let host = &mut self.hosts[to];
                let dialled = matches!(work, Work::Dialled { .. });
                if host.mesh.is_some() && (host.life == life || dialled) {
                    host.traffic.received += bytes;
                    let ready = host.card.receive(self.now, bytes, rate);
                    self.add(to, ready, work);
                } else if let Work::Dialled { from, life, dial, since } = work {
                    // A machine without a daemon refuses, one without power is silent.
                    let off = host.life > 0;
                    let back = self.now + self.network.latency(from, to);
                    let (at, reason) = if off { (since + ATTEMPT, "no answer") } else { (back, "refused") };
                    self.plan(at, Event::Local { to: from, life, work: Work::DialFailed { dial, reason } });
                }
            }
            Event::Local { to, life, work } if self.hosts[to].life == life => self.add(to, self.now, work),
            Event::Local { .. } => {}
            Event::Wake { host, life } if self.hosts[host].life == life => self.work(host),
            Event::Wake { .. } => {}
            Event::Timer { host, at } => {
                if self.hosts[host].timer == Some(at) {
                    self.add(host, at, Work::Timer);
                }
            }
            Event::KeepAlive => self.keep_alive(),
        }
    }

    fn add(&mut self, number: usize, ready: Nanos, work: Work) {
        if self.hosts[number].mesh.is_none() {
            return;
        }
        if let Some(at) = self.hosts[number].inbox.add(ready, work) {
            let life = self.hosts[number].life;
            self.plan(at, Event::Wake { host: number, life });
        }
    }

    fn work(&mut self, number: usize) {
        let Some(work) = self.hosts[number].inbox.take() else { return };
        let price = self.perform(number, work);
        let host = &mut self.hosts[number];
        host.inbox.free = self.now + price;
        host.traffic.busy += price;
        self.pump(number, self.now + price);
        if let Some(at) = self.hosts[number].inbox.wake() {
            let life = self.hosts[number].life;
            self.plan(at, Event::Wake { host: number, life });
        }
    }

    /// Works on one thing; returns what it cost the processor.
    fn perform(&mut self, number: usize, work: Work) -> Nanos {
        let now = self.instant();
        match work {
            Work::Burst(conn, items) => return self.receive(number, conn, items),
            Work::Dialled { from, life, dial, since } => {
                return self.dialled(number, from, life, dial, since);
            }
            Work::Answered { by, dial, since } => return self.answered(number, by, dial, since),
            Work::Finished { pair } => return self.finished(number, pair),
            Work::DialFailed { dial, reason } => {
                if let Some(mesh) = &mut self.hosts[number].mesh {
                    mesh.handle_dial_failed(now, dial, reason);
                }
            }
            Work::Silent { conn } => {
                if let Some(end) = self.hosts[number].conns.remove(&conn) {
                    self.pairs.remove(&end.pair);
                    if let Some(mesh) = &mut self.hosts[number].mesh {
                        mesh.handle_closed(now, conn, "timed out");
                    }
                }
            }
            Work::Timer => {
                let host = &mut self.hosts[number];
                host.timer = None;
                if let Some(mesh) = &mut host.mesh {
                    mesh.handle_timeout(now);
                }
            }
            Work::Written => {
                let host = &mut self.hosts[number];
                host.written();
                if let Some(mesh) = &mut host.mesh {
                    mesh.handle_persisted(Ok(()));
                }
            }
        }
        TIMER
    }

    fn receive(&mut self, number: usize, conn: ConnId, items: Vec<Item>) -> Nanos {
        let now = self.instant();
        let mut price = 0;
        for item in items {
            let host = &mut self.hosts[number];
            let Some(mesh) = host.mesh.as_mut().filter(|_| host.conns.contains_key(&conn)) else { break };
            match item {
                Item::Message(bytes) => {
                    let checked = mesh.signatures_checked();
                    mesh.handle_message(now, conn, &bytes);
                    let checked = mesh.signatures_checked() - checked;
                    price += MESSAGE + BYTE * bytes.len() as u64 + SIGNATURE * checked;
                }
                Item::Datagram(bytes) => {
                    price += MESSAGE;
                    mesh.handle_datagram(now, conn, &bytes);
                }
                Item::Close(reason) => {
                    host.conns.remove(&conn);
                    mesh.handle_closed(now, conn, &reason);
                }
            }
        }
        price
    }

    /// Does what a mesh wants done; what it sends leaves at `leave`.
    fn pump(&mut self, number: usize, leave: Nanos) {
        let mut bursts: BTreeMap<ConnId, Vec<Item>> = BTreeMap::new();
        while !self.hosts[number].writing {
            let Some(mesh) = &mut self.hosts[number].mesh else { return };
            while mesh.poll_event().is_some() {}
            if let Some(state) = mesh.poll_persist() {
                let life = self.hosts[number].life;
                self.hosts[number].write(state);
                self.plan(leave + DISK, Event::Local { to: number, life, work: Work::Written });
                break;
            }
            let Some(output) = mesh.poll_output() else { break };
            match output {
                Output::Transmit { conn, bytes } => {
                    bursts.entry(conn).or_default().push(Item::Message(bytes))
                }
                Output::Datagram { conn, bytes } => {
                    bursts.entry(conn).or_default().push(Item::Datagram(bytes))
                }
                Output::Close { conn, reason } => bursts.entry(conn).or_default().push(Item::Close(reason)),
                Output::Dial { dial, target } => self.dial(number, leave, dial, &target),
                Output::Allocated { .. } | Output::Created { .. } | Output::Left { .. } => {}
            }
        }
        for (conn, items) in bursts {
            self.send(number, leave, conn, items);
        }
        self.plan_timer(number);
    }

    fn plan_timer(&mut self, number: usize) {
        let due = self.hosts[number].mesh.as_ref().and_then(Mesh::poll_timeout);
        let Some(due) = due else { return };
        let due = u64::try_from(due.saturating_duration_since(self.begin).as_nanos()).unwrap_or(u64::MAX);
        let at = due.max(self.now + RESOLUTION);
        if self.hosts[number].timer.is_none_or(|timer| timer > at) {
            self.hosts[number].timer = Some(at);
            self.plan(at, Event::Timer { host: number, at });
        }
    }

    fn send(&mut self, from: usize, leave: Nanos, conn: ConnId, items: Vec<Item>) {
        let Some(&End { pair, dialler }) = self.hosts[from].conns.get(&conn) else { return };
        let Some(hosts) = self.pairs.get(&pair).map(|pair| pair.hosts) else { return };
        let to = hosts[usize::from(dialler)];
        let (mut stream, mut datagrams, mut packets, mut kept) = (0, 0, 0, Vec::new());
        for item in items {
            self.count(from, &item);
            match &item {
                Item::Message(bytes) => stream += 4 + bytes.len() as u64,
                Item::Close(reason) => {
                    stream += 16 + reason.len() as u64;
                    self.hosts[from].conns.remove(&conn);
                }
                Item::Datagram(bytes) => {
                    datagrams += bytes.len() as u64;
                    packets += 1;
                    if self.network.loses(from, to) {
                        continue;
                    }
                }
            }
            kept.push(item);
        }
        let (sent, late) = if stream > 0 { self.network.recovery(from, to, stream) } else { (0, 0) };
        packets += sent;
        let bytes = on_wire(stream + datagrams, packets);
        let at = self.carry(from, to, leave, bytes, packets) + late;
        let Some(state) = self.pairs.get_mut(&pair) else { return };
        state.used = self.now;
        let side = usize::from(dialler);
        let at = at.max(state.last[side]);
        state.last[side] = at;
        match state.ends[side] {
            Some((to, conn)) => {
                let life = self.hosts[to].life;
                self.plan(at, Event::Arrive { to, life, bytes, work: Work::Burst(conn, kept) });
            }
            None if dialler => state.early.extend(kept),
            None => {}
        }
        if !self.hosts[from].conns.contains_key(&conn)
            && let Some(state) = self.pairs.get_mut(&pair)
        {
            state.ends[usize::from(!dialler)] = None;
        }
    }

    /// Packets leave a card and are acknowledged; the moment at which they reach the other card.
    fn carry(&mut self, from: usize, to: usize, leave: Nanos, bytes: u64, packets: u64) -> Nanos {
        let rate = self.network.rate;
        let back = acks(packets);
        self.hosts[from].traffic.sent += bytes;
        self.hosts[from].traffic.received += back;
        self.hosts[to].traffic.sent += back;
        let arrive = self.hosts[from].card.send(leave, bytes, rate) + self.network.latency(from, to);
        self.hosts[to].card.send(self.now, back, rate);
        arrive
    }

    fn count(&mut self, from: usize, item: &Item) {
        if let Item::Message(bytes) | Item::Datagram(bytes) = item {
            self.hosts[from].traffic.messages += 1;
            let kind = bytes.first_chunk().map_or(0, |kind| u16::from_le_bytes(*kind));
            let (count, sum) = self.kinds.entry(kind).or_default();
            *count += 1;
            *sum += bytes.len() as u64;
        }
    }

    fn dial(&mut self, from: usize, leave: Nanos, dial: DialId, target: &DialTarget) {
        let to = match target {
            DialTarget::Named(target) => host::host_of(target),
            DialTarget::Addr { addrs, .. } => addrs.iter().find_map(host::host_at),
        };
        let life = self.hosts[from].life;
        let Some(to) = to.filter(|to| *to < self.hosts.len()) else {
            let work = Work::DialFailed { dial, reason: "no route" };
            return self.plan(leave + ATTEMPT, Event::Local { to: from, life, work });
        };
        if let Some(mesh) = &mut self.hosts[from].mesh {
            mesh.handle_resolved(dial);
        }
        let bytes = on_wire(FLIGHTS[0], 1);
        let at = self.flight(from, to, leave, bytes, 1);
        let work = Work::Dialled { from, life, dial, since: leave };
        let life = self.hosts[to].life;
        self.plan(at, Event::Arrive { to, life, bytes, work });
    }

    /// One flight of a handshake; a lost one is sent again.
    fn flight(&mut self, from: usize, to: usize, leave: Nanos, bytes: u64, packets: u64) -> Nanos {
        let mut late = 0;
        while late < ATTEMPT && (0..packets).any(|_| self.network.loses(from, to)) {
            late = 2 * late + FLIGHT_AGAIN;
        }
        self.carry(from, to, leave, bytes, packets) + late
    }

    fn dialled(&mut self, at: usize, from: usize, life: u32, dial: DialId, since: Nanos) -> Nanos {
        if self.hosts[at].handshakes >= HANDSHAKES_MAX {
            let arrive = self.flight(at, from, self.now, on_wire(40, 1), 1);
            let work = Work::DialFailed { dial, reason: "refused" };
            self.plan(arrive, Event::Arrive { to: from, life, bytes: on_wire(40, 1), work });
            return TIMER;
        }
        let (mut leave, mut price) = (self.now + HANDSHAKE, HANDSHAKE);
        if self.hosts[at].handshakes >= HANDSHAKES_TRUSTED {
            leave += 2 * self.network.latency(at, from);
            price += TIMER;
        }
        self.hosts[at].handshakes += 1;
        let bytes = on_wire(FLIGHTS[1], 2);
        let arrive = self.flight(at, from, leave, bytes, 2);
        if arrive > since + ATTEMPT || self.hosts[from].life != life {
            self.hosts[at].handshakes -= 1;
            let work = Work::DialFailed { dial, reason: "timed out" };
            self.plan(since + ATTEMPT, Event::Local { to: from, life, work });
        } else {
            self.plan(
                arrive,
                Event::Arrive { to: from, life, bytes, work: Work::Answered { by: at, dial, since } },
            );
        }
        price
    }

    fn answered(&mut self, at: usize, by: usize, dial: DialId, since: Nanos) -> Nanos {
        let now = self.instant();
        if self.now > since + ATTEMPT || self.hosts[by].mesh.is_none() {
            self.hosts[by].handshakes = self.hosts[by].handshakes.saturating_sub(1);
            if let Some(mesh) = &mut self.hosts[at].mesh {
                mesh.handle_dial_failed(now, dial, "timed out");
            }
            return TIMER;
        }
        self.pair_count += 1;
        let pair = self.pair_count;
        let conn = self.hosts[at].number_conn(End { pair, dialler: true });
        let leave = self.now + HANDSHAKE;
        let bytes = on_wire(FLIGHTS[2], 1);
        let arrive = self.flight(at, by, leave, bytes, 1);
        let state = Pair {
            ends: [Some((at, conn)), None],
            hosts: [at, by],
            last: [0, arrive],
            used: self.now,
            early: Vec::new(),
        };
        self.pairs.insert(pair, state);
        let life = self.hosts[by].life;
        self.plan(arrive, Event::Arrive { to: by, life, bytes, work: Work::Finished { pair } });
        self.hosts[at].traffic.handshakes += 1;
        let peer = self.hosts[by].peer;
        if let Some(mesh) = &mut self.hosts[at].mesh {
            mesh.handle_established(now, conn, peer, Some(dial), host::addr(by));
        }
        HANDSHAKE
    }

    fn finished(&mut self, at: usize, pair: u64) -> Nanos {
        self.hosts[at].handshakes = self.hosts[at].handshakes.saturating_sub(1);
        self.hosts[at].traffic.handshakes += 1;
        let now = self.instant();
        let conn = self.hosts[at].number_conn(End { pair, dialler: false });
        let Some(state) = self.pairs.get_mut(&pair) else {
            self.hosts[at].conns.remove(&conn);
            return TIMER;
        };
        state.ends[1] = Some((at, conn));
        let (from, early) = (state.hosts[0], std::mem::take(&mut state.early));
        let peer = self.hosts[from].peer;
        if let Some(mesh) = &mut self.hosts[at].mesh {
            mesh.handle_established(now, conn, peer, None, host::addr(from));
        }
        HANDSHAKE / 4 + self.receive(at, conn, early)
    }

    fn keep_alive(&mut self) {
        let silent: Vec<[usize; 2]> = self
            .pairs
            .values()
            .filter(|pair| pair.ends.iter().all(Option::is_some) && pair.used + KEEP_ALIVE <= self.now)
            .map(|pair| pair.hosts)
            .collect();
        for [a, b] in silent {
            self.carry(a, b, self.now, on_wire(1, 1), 1);
        }
        let jitter = self.rng.random_range(0..MS);
        self.plan(self.now + KEEP_ALIVE + jitter, Event::KeepAlive);
    }

    /// Hosts that run.
    pub(super) fn running(&self) -> Vec<usize> {
        self.hosts.iter().filter(|host| host.mesh.is_some()).map(|host| host.number).collect()
    }
}
