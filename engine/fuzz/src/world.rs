//! Hosts that exchange frames without a kernel: what a worker does, with queues in place of devices and sockets.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::Update;
use engine::counters::DropReason;
use engine::offload::Intake;
use engine::offload::cut::{Outbox, cut};
use engine::offload::join::{Coalesce, Joiner, parts};
use engine::packet::{Batch, MAX_READ};
use engine::switch::{Classes, Port, Switch, Verdict};
use engine::tables::{PortIndex, Registry, RemoteIndex, Tables};
use engine::types::{Claim, Location, MacAddr, PeerId, PortId, Vni};
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

    /// Opens a port on `host`; with a MAC address, every host is told where that address is.
    pub fn attach(&mut self, host: usize, vni: Vni, port: PortId, pinned: Option<MacAddr>) {
        self.hosts[host].registry.add_port(port, vni);
        for (index, other) in self.hosts.iter_mut().enumerate() {
            let location = if index == host { Location::Port(port) } else { Location::Peer(peer_id(host)) };
            let claim = Claim { version: 1, peer: peer_id(host) };
            if let Some(mac) = pinned {
                let addrs = vec![[10, 32, 0, mac.0[5]].into()];
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
                own.forward_batch(
                    host,
                    from,
                    vni,
                    self.now,
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
        own.forward_batch(host, from, vni, self.now, &mut self.wire, &mut self.delivered, &mut self.drops);
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
        let tables = own.refresh();
        for part in parts(&burst.bytes, 0..burst.bytes.len() as u32, burst.stride) {
            let datagram = &burst.bytes[part.frame.start as usize..part.frame.end as usize];
            let admitted = vxlan::parse(datagram).and_then(|(vni, _)| {
                let from = tables.source(burst.from.ip(), vni)?;
                Ok((vni, from, tables.network(vni).ok_or(DropReason::UnknownVni)?.mtu()))
            });
            let taken = admitted.and_then(|(vni, from, mtu)| {
                let inner = part.skip(vxlan::LEN);
                match own.joiner.push(&burst.bytes, from, vni, mtu, inner.clone())? {
                    Intake::Taken => Ok(()),
                    Intake::Full => {
                        own.deliver(host, self.now, &burst.bytes, &mut self.delivered, &mut self.drops);
                        own.joiner
                            .push(&burst.bytes, from, vni, mtu, inner)
                            .map(|again| assert_eq!(again, Intake::Taken))
                    }
                }
            });
            if let Err(reason) = taken {
                count(&mut self.drops, reason);
            }
        }
        own.deliver(host, self.now, &burst.bytes, &mut self.delivered, &mut self.drops);
    }

    /// Lets time pass.
    pub fn advance(&mut self, by: Duration) {
        self.now += by;
        for host in &mut self.hosts {
            host.registry.sweep(self.now);
        }
    }
}

impl Host {
    fn new(own: usize, count: usize, vnis: &[Vni], now: Instant) -> Self {
        let mut registry = Registry::new(now);
        vnis.iter().for_each(|&vni| registry.apply(Update::SetNetwork { vni, mtu: MTU }));
        for other in (0..count).filter(|&other| other != own) {
            let (peer, networks) = (peer_id(other), vnis.to_vec());
            registry.apply(Update::SetPeer {
                peer,
                candidates: vec![addr(other)],
                unadvertised: None,
                networks,
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
        }
    }

    fn refresh(&mut self) -> Arc<Tables> {
        let tables = self.registry.tables();
        self.switch.set_tables(Arc::clone(&tables));
        tables
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of a world that a host may write to")]
    fn forward_batch(
        &mut self,
        host: usize,
        from: Port,
        vni: Vni,
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
        let arena = self.batch.arena();
        let mut jobs: Vec<(Port, Vec<u16>)> = self
            .classes
            .unicast()
            .map(|(to, _, group)| (to, group.iter().map(|routed| routed.slot).collect()))
            .collect();
        let (ports, remotes) = self.switch.flood(from, vni);
        for to in ports.map(Port::Tap).chain(remotes.map(Port::Remote)) {
            jobs.push((to, self.classes.floods().iter().map(|&(slot, _)| slot).collect()));
        }
        for (to, slots) in jobs {
            self.outbox.clear();
            for slot in slots.iter().map(|&slot| &self.batch.frames()[usize::from(slot)]) {
                match to {
                    Port::Tap(_) => self.put(host, to, slot.vnet, slot.frame(arena), delivered),
                    Port::Remote(remote) => {
                        let mtu = self.switch.tables().network(vni).map_or(MTU, |network| network.mtu());
                        let mut taken = cut(arena, slot, vni, mtu, &mut self.outbox);
                        if taken == Ok(Intake::Full) {
                            send(self.addr, remote, &self.outbox, arena, self.switch.tables(), wire);
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
                send(self.addr, remote, &self.outbox, arena, self.switch.tables(), wire);
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
                Verdict::Flood => {
                    let (ports, mut remotes) = self.switch.flood(from, joined.vni);
                    assert!(remotes.next().is_none(), "split horizon");
                    ports.for_each(|to| self.put(host, Port::Tap(to), joined.vnet, &frame, delivered));
                }
                Verdict::Hairpin => panic!("requests from remotes are not answered"),
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

fn send(
    from: SocketAddr,
    remote: RemoteIndex,
    outbox: &Outbox,
    arena: &[u8],
    tables: &Tables,
    wire: &mut Vec<Burst>,
) {
    let to = tables.remote(remote).expect("the switch names reachable remotes only").addr;
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
