//! Hosts that exchange frames without a kernel: what a worker does, with queues in place of devices and sockets.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::Update;
use engine::counters::DropReason;
use engine::fence::Fence;
use engine::offload::Intake;
use engine::offload::cut::{Outbox, cut, cut_for_sealing};
use engine::offload::join::{Coalesce, Joiner, Part, Sums, parts};
use engine::packet::{Batch, MAX_READ};
use engine::session::keeper::{Identity, Keeper};
use engine::session::noise::StaticKey;
use engine::session::psk::Psk;
use engine::session::sealed::{FRAME_START, Sealed, open};
use engine::session::sessions::REKEY_AFTER;
use engine::session::suite::Suite;
use engine::switch::{Classes, Port, Switch, Verdict};
use engine::tables::{PortIndex, Registry, RemoteIndex, Tables};
use engine::types::{Claim, Location, MacAddr, PeerId, PeerKeys, PortId, Vni};
use engine::wire::sealed::{SEALED, TAG_LEN};
use engine::wire::virtio::{self, VnetHeader};
use engine::wire::vxlan;

/// The MTU of every network here.
pub const MTU: u16 = 1450;

/// A frame that reached a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delivered {
    pub host: usize,
    pub port: PortId,
    pub vnet: VnetHeader,
    pub frame: Vec<u8>,
}

/// What one send call would carry: datagrams of `stride` bytes, the last may be shorter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Burst {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub stride: usize,
    pub bytes: Vec<u8>,
}

/// All hosts, the wire between them, and what came of it.
pub struct World {
    pub hosts: Vec<Host>,
    pub wire: Vec<Burst>,
    pub delivered: Vec<Delivered>,
    pub drops: BTreeMap<DropReason, u64>,
    pub now: Instant,
}

/// One host: tables and switch, and the buffers of its worker.
pub struct Host {
    pub registry: Registry,
    addr: SocketAddr,
    switch: Switch,
    batch: Batch,
    classes: Classes,
    outbox: Outbox,
    joiner: Joiner,
    sealed: Sealed,
    /// The sessions of a host whose networks are sealed.
    pub keeper: Option<Keeper>,
}

/// The addresses of a station: `10.32.0.N` and `fd00::N`, by the last byte of its MAC address.
pub fn addrs(mac: MacAddr) -> Vec<IpAddr> {
    let last = mac.0[5];
    vec![[10, 32, 0, last].into(), [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last].into()]
}

/// The id of host `index`.
pub fn peer_id(index: usize) -> PeerId {
    PeerId([index as u8 + 1; 16])
}

/// The underlay address of host `index`.
pub fn addr(index: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, index as u8 + 1], vxlan::PORT))
}

impl World {
    /// `count` hosts that know each other and have the networks `vnis`.
    #[allow(clippy::disallowed_methods, reason = "a world starts at some instant; it is never asked again")]
    pub fn new(count: usize, vnis: &[Vni]) -> Self {
        let now = Instant::now();
        let hosts = (0..count).map(|own| Host::new(own, count, vnis, now)).collect();
        World { hosts, wire: vec![], delivered: vec![], drops: BTreeMap::new(), now }
    }

    /// The same with networks that are sealed: a host by itself knows its number and its start count.
    #[allow(clippy::disallowed_methods, reason = "a world starts at some instant; it is never asked again")]
    pub fn sealed(count: usize, vnis: &[Vni], suite: Suite) -> Self {
        let mut world = World::new(0, &[]);
        for own in 0..count {
            world.hosts.push(Host::sealed(own, count, vnis, world.now, (suite, 1, Psk::open())));
        }
        world
    }

    /// Host `own` of a sealed world starts again, with nothing but its keys: its ports are to be opened again.
    pub fn restart(&mut self, own: usize, vnis: &[Vni], life: (Suite, u64, Psk)) {
        self.hosts[own] = Host::sealed(own, self.hosts.len(), vnis, self.now, life);
    }

    /// Opens a port on `host`; with a MAC address, every host is told where that address is.
    pub fn attach(&mut self, host: usize, vni: Vni, port: PortId, pinned: Option<MacAddr>) {
        self.open(host, vni, port, None);
        self.pin(host, vni, port, pinned);
    }

    /// The same with a container that may send in its own name only.
    pub fn attach_fenced(&mut self, host: usize, vni: Vni, port: PortId, mac: MacAddr) {
        self.open(host, vni, port, Some(Fence::new(mac, &addrs(mac))));
        self.pin(host, vni, port, Some(mac));
    }

    fn open(&mut self, host: usize, vni: Vni, port: PortId, fence: Option<Fence>) {
        self.hosts[host].registry.add_port(port, vni, fence);
    }

    fn pin(&mut self, host: usize, vni: Vni, port: PortId, pinned: Option<MacAddr>) {
        for (index, other) in self.hosts.iter_mut().enumerate() {
            let location = if index == host { Location::Port(port) } else { Location::Peer(peer_id(host)) };
            let claim = Claim { version: 1, peer: peer_id(host) };
            if let Some(mac) = pinned {
                let addrs = addrs(mac);
                other.registry.apply(Update::Pin { vni, mac, claim, location, addrs });
            }
        }
    }

    /// A container writes frames, all read in one wake-up as far as they fit.
    pub fn write(&mut self, host: usize, port: PortId, vni: Vni, frames: &[(VnetHeader, Vec<u8>)]) {
        let Some(own) = self.hosts.get_mut(host) else { return };
        let tables = own.refresh();
        let Some(from) = port_index(&tables, vni, port) else { return };
        for (vnet, frame) in frames {
            if own.batch.is_full() {
                let now = self.now;
                own.forward_batch(
                    host,
                    (from, vni),
                    now,
                    &mut self.wire,
                    &mut self.delivered,
                    &mut self.drops,
                );
            }
            let len = (virtio::LEN + frame.len()).min(MAX_READ);
            let room = own.batch.room();
            room[..virtio::LEN].copy_from_slice(&vnet.emit());
            room[virtio::LEN..len].copy_from_slice(&frame[..len - virtio::LEN]);
            if let Err(reason) = own.batch.commit(len) {
                count(&mut self.drops, reason);
            }
        }
        let now = self.now;
        own.forward_batch(host, (from, vni), now, &mut self.wire, &mut self.delivered, &mut self.drops);
        own.hand_out(&mut self.wire);
    }

    /// Takes the oldest burst off the wire to its host, if that exists. False when the wire is empty.
    pub fn step(&mut self) -> bool {
        if self.wire.is_empty() {
            return false;
        }
        let burst = self.wire.remove(0);
        self.receive(&burst);
        true
    }

    /// Delivers until the wire is empty.
    pub fn settle(&mut self) {
        while self.step() {}
    }

    /// What the host at `burst.to` does with it.
    pub fn receive(&mut self, burst: &Burst) {
        let Some(host) = self.hosts.iter().position(|host| host.addr == burst.to) else { return };
        let own = &mut self.hosts[host];
        own.refresh();
        let mut arena = burst.bytes.clone();
        for part in parts(&burst.bytes, 0..burst.bytes.len() as u32, burst.stride) {
            let admitted = own.admit(self.now, burst.from, &mut arena, part);
            let taken = admitted.and_then(|admitted| {
                let Some((from, mtu, part, sums)) = admitted else { return Ok(()) };
                match own.joiner.push_as(&arena, from, mtu, part.clone(), sums)? {
                    Intake::Taken => Ok(()),
                    Intake::Full => {
                        own.deliver(host, self.now, &arena, &mut self.delivered, &mut self.drops);
                        let again = own.joiner.push_as(&arena, from, mtu, part, sums);
                        again.map(|again| assert_eq!(again, Intake::Taken))
                    }
                }
            });
            if let Err(reason) = taken {
                count(&mut self.drops, reason);
            }
        }
        own.deliver(host, self.now, &arena, &mut self.delivered, &mut self.drops);
        own.hand_out(&mut self.wire);
    }

    /// Lets time pass.
    pub fn advance(&mut self, by: Duration) {
        self.now += by;
        for host in &mut self.hosts {
            host.registry.sweep(self.now);
            if let Some(keeper) = &mut host.keeper {
                keeper.handle_timeout(self.now);
            }
            host.hand_out(&mut self.wire);
        }
    }
}

/// What a datagram holds, if that is a frame for a port here.
type Admitted = Option<((RemoteIndex, Vni), u16, Part, Sums)>;

impl Host {
    fn sealed(
        own: usize,
        count: usize,
        vnis: &[Vni],
        now: Instant,
        (suite, start, psk): (Suite, u64, Psk),
    ) -> Self {
        let mut host = Host::with(own, count, vnis, now, true);
        let seed = [(own as u8).wrapping_add(100).wrapping_add(start as u8); 32];
        let identity = Identity {
            key: key(own),
            start,
            suites: vec![suite],
            psks: vec![psk],
            renew_after: REKEY_AFTER,
            seed,
        };
        let mut keeper = Keeper::new(now, identity);
        for other in (0..count).filter(|&other| other != own) {
            let keys = PeerKeys { noise: key(other).public(), suites: vec![1, 2] };
            keeper.set_path(peer_id(other), Some(addr(other)));
            keeper.set_peer(peer_id(other), Some(&keys));
        }
        host.keeper = Some(keeper);
        host
    }

    fn new(own: usize, count: usize, vnis: &[Vni], now: Instant) -> Self {
        Host::with(own, count, vnis, now, false)
    }

    fn with(own: usize, count: usize, vnis: &[Vni], now: Instant, sealed: bool) -> Self {
        let mut registry = Registry::new(now);
        vnis.iter().for_each(|&vni| {
            registry.apply(Update::SetNetwork {
                vni,
                name: String::new(),
                mtu: MTU,
                sealed,
                gateways: vec![],
            })
        });
        for other in (0..count).filter(|&other| other != own) {
            let (peer, networks) = (peer_id(other), vnis.to_vec());
            registry.apply(Update::SetPeer {
                peer,
                candidates: vec![addr(other)],
                unadvertised: None,
                networks,
                keys: None,
                trusted: vec![],
            });
            registry.set_path(peer, Some(addr(other)));
        }
        Host {
            switch: Switch::new(registry.tables()),
            registry,
            addr: addr(own),
            batch: Batch::new(),
            classes: Classes::new(),
            outbox: Outbox::new(),
            joiner: Joiner::new(Coalesce { tcp: true, udp: true }),
            sealed: Sealed::new(64, 65_000),
            keeper: None,
        }
    }

    /// Looks at a datagram: VXLAN, a sealed frame, or something for the control side.
    fn admit(
        &mut self,
        now: Instant,
        from: SocketAddr,
        arena: &mut [u8],
        part: Part,
    ) -> Result<Admitted, DropReason> {
        let datagram = &mut arena[part.frame.start as usize..part.frame.end as usize];
        let tables = Arc::clone(self.switch.tables());
        match (datagram.first(), &mut self.keeper) {
            (Some(&SEALED), Some(keeper)) => {
                let peer = |remote| tables.remote(remote).and_then(|remote| remote.peer);
                let opened = open(&tables, datagram).inspect_err(|reason| {
                    let sender = tables.sender(from.ip()).and_then(peer);
                    if let (DropReason::UnknownSession, Some(sender)) = (reason, sender) {
                        keeper.want_anew(now, sender);
                    }
                })?;
                peer(opened.from)
                    .filter(|_| opened.first)
                    .into_iter()
                    .for_each(|p| keeper.handle_heard(now, p));
                Ok(opened.frame.map(|frame| {
                    let sums = if frame.partial { Sums::Partial } else { Sums::Whole };
                    let range = part.frame.start + FRAME_START as u32..part.frame.end - TAG_LEN as u32;
                    ((opened.from, frame.vni), frame.mtu, Part { frame: range, gso_size: 0 }, sums)
                }))
            }
            (Some(&(1..=3)), Some(keeper)) => keeper.handle_datagram(now, from, datagram).map(|()| None),
            _ => {
                let (vni, _) = vxlan::parse(datagram)?;
                let sender = tables.source(from.ip(), vni)?;
                let network = tables.network(vni).ok_or(DropReason::UnknownVni)?;
                if !tables.takes_clear(network, from.ip(), Some(self.addr.ip())) {
                    return Err(DropReason::PlainOnSealed);
                }
                Ok(Some(((sender, vni), network.mtu(), part.skip(vxlan::LEN), Sums::Guessed)))
            }
        }
    }

    /// Puts what the sessions have decided into the tables, and what they want sent on the wire.
    fn hand_out(&mut self, wire: &mut Vec<Burst>) {
        let Some(keeper) = &mut self.keeper else { return };
        keeper.drain(&mut self.registry);
        while let Some(transmit) = keeper.poll_transmit() {
            wire.push(Burst { from: self.addr, to: transmit.to, stride: 0, bytes: transmit.contents });
        }
        self.refresh();
    }

    fn refresh(&mut self) -> Arc<Tables> {
        let tables = self.registry.tables();
        self.switch.set_tables(Arc::clone(&tables));
        tables
    }

    fn forward_batch(
        &mut self,
        host: usize,
        (from, vni): (Port, Vni),
        now: Instant,
        wire: &mut Vec<Burst>,
        delivered: &mut Vec<Delivered>,
        drops: &mut BTreeMap<DropReason, u64>,
    ) {
        self.switch.classify(now, from, vni, &self.batch, &mut self.classes);
        self.classes.drops().iter().for_each(|&(_, reason)| count(drops, reason));
        for reply in self.classes.replies() {
            self.put(host, from, VnetHeader::default(), reply, delivered);
        }
        let network = self.switch.tables().network(vni);
        let mtu = network.map_or(MTU, |network| network.mtu());
        let seals = |to| match (network, to) {
            (Some(network), Port::Remote(remote)) => self.switch.tables().seals(network, remote),
            (_, Port::Tap(_)) | (None, _) => false,
        };
        let arena = self.batch.arena();
        let mut jobs: Vec<(Port, Vec<u16>)> = self
            .classes
            .unicast()
            .map(|(to, _, group)| (to, group.iter().map(|routed| routed.slot).collect()))
            .collect();
        let mut floods: BTreeMap<Port, Vec<u16>> = BTreeMap::new();
        for flooded in self.classes.floods() {
            let (ports, remotes) = self.switch.flood(from, vni, flooded.reach);
            for to in ports.map(Port::Tap).chain(remotes.map(Port::Remote)) {
                floods.entry(to).or_default().push(flooded.slot);
            }
        }
        jobs.extend(floods);
        for (to, slots) in jobs {
            self.outbox.clear();
            let is_sealed = seals(to);
            let cut = if is_sealed { cut_for_sealing } else { cut };
            for slot in slots.iter().map(|&slot| &self.batch.frames()[usize::from(slot)]) {
                match to {
                    Port::Tap(_) => self.put(host, to, slot.vnet, slot.frame(arena), delivered),
                    Port::Remote(remote) => {
                        let mut taken = cut(arena, slot, vni, mtu, &mut self.outbox);
                        if taken == Ok(Intake::Full) {
                            let sealing = sealing(is_sealed, &mut self.sealed, self.keeper.as_mut(), now);
                            let out = (&self.outbox, arena);
                            send((self.addr, remote), out, self.switch.tables(), sealing, wire, drops);
                            self.outbox.clear();
                            taken = cut(arena, slot, vni, mtu, &mut self.outbox);
                        }
                        match taken {
                            Ok(taken) => assert_eq!(taken, Intake::Taken, "an empty outbox takes any frame"),
                            Err(reason) => count(drops, reason),
                        }
                    }
                }
            }
            if let Port::Remote(remote) = to {
                let sealing = sealing(is_sealed, &mut self.sealed, self.keeper.as_mut(), now);
                let out = (&self.outbox, arena);
                send((self.addr, remote), out, self.switch.tables(), sealing, wire, drops);
            }
        }
        self.batch.clear();
    }

    fn deliver(
        &mut self,
        host: usize,
        now: Instant,
        arena: &[u8],
        delivered: &mut Vec<Delivered>,
        drops: &mut BTreeMap<DropReason, u64>,
    ) {
        self.joiner.finish();
        for joined in self.joiner.joined() {
            let mut frame = self.joiner.head(joined).to_vec();
            for body in self.joiner.bodies(joined) {
                frame.extend_from_slice(&arena[body.start as usize..body.end as usize]);
            }
            assert_eq!(frame.len(), joined.len as usize);
            let from = Port::Remote(joined.from);
            match self.switch.forward(now, from, joined.vni, self.joiner.start(joined, arena)) {
                Verdict::Unicast(to) => self.put(host, to, joined.vnet, &frame, delivered),
                Verdict::Flood(reach) => {
                    let (ports, mut remotes) = self.switch.flood(from, joined.vni, reach);
                    assert!(remotes.next().is_none(), "split horizon");
                    ports.for_each(|to| self.put(host, Port::Tap(to), joined.vnet, &frame, delivered));
                }
                Verdict::Hairpin | Verdict::Gateway => panic!("remotes are not answered"),
                Verdict::Drop(reason) => count(drops, reason),
            }
        }
        self.joiner.clear();
    }

    fn put(&self, host: usize, to: Port, vnet: VnetHeader, frame: &[u8], delivered: &mut Vec<Delivered>) {
        let Port::Tap(index) = to else { panic!("from a remote to a remote") };
        let port = self.switch.tables().port(index).expect("the switch names open ports only").id;
        delivered.push(Delivered { host, port, vnet, frame: frame.to_vec() });
    }
}

/// The private key of host `index`.
fn key(index: usize) -> StaticKey {
    StaticKey::new([index as u8 + 1; 32])
}

/// What a host seals with, if the network is sealed.
type Sealing<'a> = Option<(&'a mut Sealed, &'a mut Keeper, Instant)>;

fn sealing<'a>(
    is_sealed: bool,
    sealed: &'a mut Sealed,
    keeper: Option<&'a mut Keeper>,
    now: Instant,
) -> Sealing<'a> {
    keeper.filter(|_| is_sealed).map(|keeper| (sealed, keeper, now))
}

fn send(
    (from, remote): (SocketAddr, RemoteIndex),
    (outbox, arena): (&Outbox, &[u8]),
    tables: &Tables,
    sealing: Sealing<'_>,
    wire: &mut Vec<Burst>,
    drops: &mut BTreeMap<DropReason, u64>,
) {
    let found = tables.remote(remote).expect("the switch names reachable remotes only");
    let to = found.addr;
    if let Some((sealed, keeper, now)) = sealing {
        let Some(epoch) = tables.epoch(remote) else {
            found.peer.into_iter().for_each(|peer| keeper.want(now, peer));
            outbox.datagrams().iter().for_each(|_| count(drops, DropReason::NoSession));
            return;
        };
        let mut next = 0;
        while next < outbox.datagrams().len() {
            next = sealed.fill((epoch, 0), (outbox, arena), next).expect("far from any limit");
            for run in sealed.runs() {
                let stride = if run.count > 1 { run.size } else { 0 };
                wire.push(Burst { from, to, stride, bytes: sealed.bytes()[run.bytes.clone()].to_vec() });
            }
        }
        return;
    }
    for run in outbox.runs(64, 65_000) {
        let datagrams = &outbox.datagrams()[run];
        let stride = if datagrams.len() > 1 { datagrams[0].len() } else { 0 };
        let bytes: Vec<u8> =
            datagrams.iter().flat_map(|datagram| outbox.pieces(datagram, arena).concat()).collect();
        assert!(bytes.len() <= 65_507, "what UDP carries");
        wire.push(Burst { from, to, stride, bytes });
    }
}

fn port_index(tables: &Tables, vni: Vni, id: PortId) -> Option<Port> {
    let is_it = |index: &&PortIndex| tables.port(**index).is_some_and(|port| port.id == id);
    tables.network(vni)?.ports().iter().find(is_it).map(|&index| Port::Tap(index))
}

fn count(drops: &mut BTreeMap<DropReason, u64>, reason: DropReason) {
    *drops.entry(reason).or_default() += 1;
}
