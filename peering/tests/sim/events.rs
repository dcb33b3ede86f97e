//! What happens when: timers, what arrives, and what hosts want done.

use std::time::Instant;

use engine::types::PeerId;
use peering::mesh::{ConnId, DialId, DialTarget, Output};
use peering::proto::Message;
use peering::secret::{Admission, Binding, Refusal, Role};
use rand::RngExt;

use super::wire::{Item, PairId};
use super::{BUSY, DIAL_TIMEOUT, IDLE, KEEP_ALIVE, World};

pub(super) enum Event {
    /// The attempt of a host arrives at another.
    Dialled {
        from: usize,
        life: u64,
        dial: DialId,
        to: usize,
        expected: Option<PeerId>,
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
    /// A host learns that a connection is over.
    Closed {
        host: usize,
        life: u64,
        conn: ConnId,
        reason: String,
    },
    Idle {
        pair: PairId,
    },
    /// A host that was started anew gets a packet of a connection it does not know.
    Unknown {
        pair: PairId,
        to_dialler: bool,
    },
    /// The machine of another host says that nobody listens there.
    Vacant {
        host: usize,
        at: usize,
    },
    /// The end of a pause, if it is still the same one.
    Resume {
        host: usize,
        pause: u64,
    },
}

impl World {
    /// One thing happens, if anything does until `end`.
    pub fn step(&mut self, end: Instant) -> bool {
        let event = self.queue.first_key_value().map(|(&(at, _), _)| at);
        let timed = self.alarms.first().copied().filter(|(at, _)| event.is_none_or(|event| *at <= event));
        let next = timed.map(|(at, _)| at).or(event);
        if next.is_none_or(|at| at > end) {
            return false;
        }
        self.now = self.now.max(next.expect("checked above"));
        self.steps += 1;
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
        if let Some(host) = self.hearer(&event).filter(|host| self.hosts[*host].paused) {
            return self.held.entry(host).or_default().push(event);
        }
        match event {
            Event::Dialled { from, life, dial, to, expected } => self.dialled(from, life, dial, to, expected),
            Event::DialFailed { host, life, dial, reason } => {
                let now = self.hosts[host].here(self.now);
                if let Some(mesh) = self.hosts[host].living(life) {
                    mesh.handle_dial_failed(now, dial, &reason);
                    self.pump(host);
                }
            }
            Event::Accepted { pair } => self.accepted(pair),
            Event::Arrived { pair, to_dialler, item } => self.arrived(pair, to_dialler, item),
            Event::Closed { host, life, conn, reason } => self.closed(host, life, conn, &reason),
            Event::Idle { pair } => {
                if self.wires.is_silent(pair, self.now - IDLE) {
                    self.end(pair, "no answer for 10 s");
                }
            }
            Event::Unknown { pair, to_dialler } => self.unknown(pair, to_dialler),
            Event::Vacant { host, at } => self.vacant(host, at),
            Event::Resume { host, pause } => {
                if self.hosts[host].pauses == pause {
                    self.wake(host);
                }
            }
        }
    }

    /// The host whose process sees an event; nobody sees that a connection falls silent.
    fn hearer(&self, event: &Event) -> Option<usize> {
        match event {
            Event::Dialled { from, .. } => Some(*from),
            Event::DialFailed { host, .. } | Event::Closed { host, .. } | Event::Vacant { host, .. } => {
                Some(*host)
            }
            Event::Accepted { pair } => self.wires.ends(*pair).map(|(_, to)| to.0),
            Event::Arrived { pair, to_dialler, .. } => self.wires.way(*pair, *to_dialler).map(|way| way.1),
            Event::Idle { .. } | Event::Unknown { .. } | Event::Resume { .. } => None,
        }
    }

    /// Does what a host wants done: the disk first, then the wires.
    pub(super) fn pump(&mut self, number: usize) {
        while let Some(output) = self.hosts[number].poll(self.now) {
            self.perform(number, output);
        }
        self.rearm(number);
    }

    /// Notes when a host has something to do by itself.
    pub(super) fn rearm(&mut self, number: usize) {
        self.alarm_of.resize(self.hosts.len(), None);
        let due = self.hosts[number].due();
        let before = std::mem::replace(&mut self.alarm_of[number], due);
        if before != due {
            before.map(|at| self.alarms.remove(&(at, number)));
            due.map(|at| self.alarms.insert((at, number)));
        }
    }

    fn perform(&mut self, number: usize, output: Output) {
        match output {
            Output::Transmit { conn, bytes } => self.send(number, conn, Item::Message(bytes)),
            Output::Datagram { conn, bytes } => {
                assert!(bytes.len() <= 1200, "a datagram of {} bytes fits no QUIC packet", bytes.len());
                self.send(number, conn, Item::Datagram(bytes));
            }
            Output::Close { conn, reason } => {
                *self.closes.entry(reason.clone()).or_default() += 1;
                self.send(number, conn, Item::Close(reason));
                self.wires.close(number, conn);
            }
            Output::Dial { dial, target } => self.dial(number, dial, target),
            Output::Created { request, result } => {
                self.note(&format!("answer {request:?} on {number}: {result:?}"));
                self.hosts[number].made.insert(request, result);
            }
            // Whoever asks again is answered with the one who asked first.
            Output::Left { result } => {
                if self.hosts[number].left != Some(Ok(())) {
                    self.hosts[number].left = Some(result);
                }
            }
            Output::Allocated { request, result } => {
                self.note(&format!("answer {request:?} on {number}: {result:?}"));
                self.hosts[number].answered(self.now, request, result);
            }
        }
    }

    fn dial(&mut self, from: usize, dial: DialId, target: DialTarget) {
        let (to, expected) = match target {
            DialTarget::Named(target) => (self.find(|n| Self::name(n) == target.host), None),
            DialTarget::Addr { addrs, peer } => (self.find(|n| addrs.contains(&Self::addr(n))), Some(peer)),
        };
        let life = self.hosts[from].life;
        let delay = self.wires.link(from, to.unwrap_or(from)).delay(&mut self.rng);
        match to {
            None => self.fail_dial(delay, from, dial, "no such name"),
            Some(to) if self.rng.random_bool(self.wires.dial_failures) || self.wires.is_cut(from, to) => {
                self.fail_dial(DIAL_TIMEOUT, from, dial, "no answer");
            }
            Some(to) => self.schedule(self.now + delay, Event::Dialled { from, life, dial, to, expected }),
        }
    }

    fn find(&self, is: impl Fn(usize) -> bool) -> Option<usize> {
        (0..self.hosts.len()).find(|&number| is(number))
    }

    fn fail_dial(&mut self, after: std::time::Duration, host: usize, dial: DialId, reason: &str) {
        let life = self.hosts[host].life;
        let reason = reason.to_owned();
        self.schedule(self.now + after, Event::DialFailed { host, life, dial, reason });
    }

    fn dialled(&mut self, from: usize, life: u64, dial: DialId, to: usize, expected: Option<PeerId>) {
        if self.hosts[from].living(life).is_none() {
            return;
        }
        if self.hosts[to].mesh.is_none() || self.hosts[to].paused || self.wires.is_cut(to, from) {
            return self.fail_dial(DIAL_TIMEOUT, from, dial, "no answer");
        }
        if expected.is_some_and(|peer| peer != self.hosts[to].peer_id()) {
            return self.fail_dial(std::time::Duration::ZERO, from, dial, "another host answers there");
        }
        if !self.let_in(from, dial, to) {
            return;
        }
        let dialler = (from, self.hosts[from].new_conn(), life);
        let acceptor = (to, self.hosts[to].new_conn(), self.hosts[to].life);
        let pair = self.wires.connect(dialler, acceptor, self.now);
        let (now, peer) = (self.hosts[from].here(self.now), self.hosts[to].peer_id());
        let later = self.now + self.wires.link(from, to).delay(&mut self.rng);
        self.schedule(later, Event::Accepted { pair });
        if let Some(mesh) = self.hosts[from].living(life) {
            mesh.handle_established(now, dialler.1, peer, Some(dial), Self::addr(to));
            self.pump(from);
        }
    }

    /// Both sides prove their secrets, as they do before anything else; who is refused is told by a number.
    fn let_in(&mut self, from: usize, dial: DialId, to: usize) -> bool {
        let admission = |world: &World, number: usize| {
            let mesh = world.hosts[number].mesh.as_ref().expect("it runs");
            Admission::new(mesh.keyring().clone())
        };
        let (dialler, acceptor) = (admission(self, from), admission(self, to));
        if dialler.is_open() && acceptor.is_open() {
            return true;
        }
        let (first, second) = (self.hosts[from].peer_id(), self.hosts[to].peer_id());
        let binding = Binding { exported: [0; 32], dialler: first, acceptor: second };
        let judged = acceptor.judge(&dialler.prove(&binding, Role::Dialler), &binding, Role::Dialler);
        let back = || dialler.judge(&acceptor.prove(&binding, Role::Acceptor), &binding, Role::Acceptor);
        let Err(there) = judged else {
            assert_eq!(back(), Ok(()), "one side lets the other in");
            return true;
        };
        let here = Refusal::told(there.code().into()).expect("it has a number");
        let (now, mesh) = (self.hosts[from].here(self.now), &mut self.hosts[from].mesh);
        mesh.as_mut().expect("it runs").handle_refused(now, second, Some(dial), Self::addr(to), here);
        let (now, mesh) = (self.hosts[to].here(self.now), &mut self.hosts[to].mesh);
        mesh.as_mut().expect("it runs").handle_refused(now, first, None, Self::addr(from), there);
        self.pump(from);
        self.pump(to);
        false
    }

    fn accepted(&mut self, pair: PairId) {
        let Some((from, to)) = self.wires.ends(pair) else { return };
        let Some(early) = self.wires.accept(pair) else {
            return self.schedule(self.now + IDLE, Event::Idle { pair });
        };
        let (now, peer) = (self.hosts[to.0].here(self.now), self.hosts[from.0].peer_id());
        if let Some(mesh) = self.hosts[to.0].living(to.2) {
            mesh.handle_established(now, to.1, peer, None, Self::addr(from.0));
            self.pump(to.0);
        }
        for item in early {
            self.deliver(pair, false, item);
        }
    }

    fn send(&mut self, number: usize, conn: ConnId, item: Item) {
        if self.waits(number) {
            self.assert_silent(number, &item);
        }
        let Some((pair, to_dialler)) = self.wires.pair_of(number, conn) else { return };
        self.deliver(pair, to_dialler, item);
    }

    /// Law 7: a host that takes itself for a clone tells nobody anything.
    fn assert_silent(&self, number: usize, item: &Item) {
        let silent = match item {
            Item::Message(bytes) => matches!(Message::decode(bytes), Ok(Message::Hello(_))),
            Item::Datagram(_) => false,
            Item::Close(_) => true,
        };
        assert!(silent, "seed {}: {number} is a clone and speaks", self.seed);
    }

    /// Messages keep their order and are sent again when they are lost; datagrams may be lost, overtake and come twice.
    pub(super) fn deliver(&mut self, pair: PairId, to_dialler: bool, item: Item) {
        let Some((from, to)) = self.wires.way(pair, to_dialler) else { return };
        let link = self.wires.link(from, to);
        let at = self.now + link.delay(&mut self.rng);
        let at = match &item {
            Item::Datagram(_) if self.rng.random_bool(link.loss) => return,
            Item::Datagram(bytes) if self.rng.random_bool(link.duplication) => {
                let again = Item::Datagram(bytes.clone());
                let later = self.now + link.delay(&mut self.rng);
                self.schedule(later, Event::Arrived { pair, to_dialler, item: again });
                at
            }
            Item::Datagram(_) => at,
            Item::Message(_) | Item::Close(_) => {
                let late = at + link.repeats(&mut self.rng);
                self.wires.in_order(pair, to_dialler, late)
            }
        };
        self.schedule(at, Event::Arrived { pair, to_dialler, item });
    }

    fn arrived(&mut self, pair: PairId, to_dialler: bool, item: Item) {
        let Some(way) = self.wires.way(pair, to_dialler) else { return };
        self.refuse(way);
        let Some(item) = self.wires.pass(self.now, pair, to_dialler, item) else { return };
        let Some((number, conn, life)) = self.wires.end_of(pair, to_dialler) else {
            return self.unknown(pair, to_dialler);
        };
        let now = self.hosts[number].here(self.now);
        self.note_item(way, &item);
        if self.is_lost(way, &item) {
            return self.end(pair, "the network broke it");
        }
        let Some(mesh) = self.hosts[number].living(life) else { return };
        match item {
            Item::Message(bytes) => mesh.handle_message(now, conn, &bytes),
            Item::Datagram(bytes) => mesh.handle_datagram(now, conn, &bytes),
            Item::Close(reason) => {
                self.wires.close(number, conn);
                return self.closed(number, life, conn, &reason);
            }
        }
        self.pump(number);
    }

    /// What the test wants lost of what is sent again until it arrives: that is lost with its connection alone.
    fn is_lost(&mut self, way: (usize, usize), item: &Item) -> bool {
        match (&mut self.loses, item) {
            (Some(loses), Item::Message(bytes)) => Message::decode(bytes).is_ok_and(|it| loses(way, &it)),
            _ => false,
        }
    }

    fn closed(&mut self, host: usize, life: u64, conn: ConnId, reason: &str) {
        let now = self.hosts[host].here(self.now);
        if let Some(mesh) = self.hosts[host].living(life) {
            mesh.handle_closed(now, conn, reason);
            self.pump(host);
        }
    }

    /// What comes to a machine whose daemon does not run is refused by its kernel.
    fn refuse(&mut self, (from, to): (usize, usize)) {
        let refuses = self.hosts[to].mesh.is_none() && self.hosts[to].powered;
        if refuses && !self.wires.is_cut(from, to) && !self.wires.is_cut(to, from) {
            let back = self.wires.link(to, from).delay(&mut self.rng);
            self.schedule(self.now + back, Event::Vacant { host: from, at: to });
        }
    }

    /// A host is told, truly or not, that nobody listens where another one is.
    pub fn vacant(&mut self, host: usize, at: usize) {
        let now = self.hosts[host].here(self.now);
        if let Some(mesh) = self.hosts[host].mesh.as_mut() {
            mesh.handle_vacant(now, Self::addr(at));
            self.pump(host);
        }
    }

    /// The other end of a connection is told that it is over (RFC 9000 section 10.3), unless it was let go orderly.
    fn unknown(&mut self, pair: PairId, to_dialler: bool) {
        let Some((from, to)) = self.wires.way(pair, to_dialler) else { return };
        let hears = self.hosts[to].mesh.is_some() && !self.hosts[to].paused;
        let restarted = self.wires.end_of(pair, to_dialler).is_none() && self.wires.is_abandoned(pair);
        if hears && restarted && !self.wires.is_cut(from, to) && !self.wires.is_cut(to, from) {
            self.end(pair, "the host there was started anew");
        }
    }

    /// A host starts: whoever still has a connection to an earlier life of it learns so by its next keep-alive.
    pub(super) fn expect_resets(&mut self, host: usize) {
        for (pair, to_dialler) in self.wires.abandoned_by(host) {
            let after = KEEP_ALIVE.mul_f64(self.rng.random_range(0.0..=1.0));
            self.schedule(self.now + after, Event::Unknown { pair, to_dialler });
        }
    }

    /// Both ends of a connection that still have it learn that it is over.
    pub(super) fn end(&mut self, pair: PairId, reason: &str) {
        for (host, conn, life) in self.wires.remove(pair) {
            self.handle(Event::Closed { host, life, conn, reason: reason.to_owned() });
        }
    }

    /// A paused host goes on: what it missed comes now, before or after its timers.
    pub fn wake(&mut self, host: usize) {
        if !self.hosts[host].paused {
            return;
        }
        self.note(&format!("resume {host}"));
        self.hosts[host].paused = false;
        for pair in self.wires.set_asleep(self.now, host, false) {
            self.schedule(self.now + IDLE, Event::Idle { pair });
        }
        let missed = self.held.remove(&host).unwrap_or_default();
        if self.rng.random_bool(0.5) {
            missed.into_iter().for_each(|event| self.handle(event));
        } else {
            missed.into_iter().for_each(|event| self.schedule(self.now, event));
        }
        self.pump(host);
    }

    pub(super) fn schedule(&mut self, at: Instant, event: Event) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), event);
    }

    fn note_item(&self, way: (usize, usize), item: &Item) {
        if self.trace < 2 {
            return;
        }
        let what = match item {
            Item::Message(bytes) | Item::Datagram(bytes) => match Message::decode(bytes) {
                Ok(Message::Swim(_)) => return,
                Ok(message) => format!("{message:?}").chars().take(300).collect(),
                Err(error) => format!("{error}"),
            },
            Item::Close(reason) => format!("close: {reason}"),
        };
        self.note(&format!("   {} -> {}: {what}", way.0, way.1));
    }
}
