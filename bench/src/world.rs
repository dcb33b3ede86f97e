//! The pure path through a host with any number of ports and peers: classify and cut on the way out, open, join and
//! decide on the way in. The tables are fed here; no device and no socket takes part.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use engine::Update;
use engine::fence::Fence;
use engine::offload::Intake;
use engine::offload::cut::{Outbox, cut};
use engine::offload::join::{Coalesce, Joiner, parts};
use engine::packet::{Batch, MAX_FRAMES};
use engine::switch::{Classes, Port, Switch, Verdict};
use engine::tables::{PortIndex, Registry, RemoteIndex, Tables};
use engine::types::{Claim, Location, MacAddr, PeerId, PortId, Vni};
use engine::wire::virtio::VnetHeader;
use engine::wire::vxlan;

use crate::frames::Stations;

/// The MTU of the network.
pub const MTU: u16 = 1450;

/// Joining as a device with all offloads wants it.
pub const COALESCE: Coalesce = Coalesce { tcp: true, udp: true };

/// The tables of one host, and the two ends of the flow that is measured: the port and the peer in the middle.
pub struct World {
    /// The tables.
    pub tables: Arc<Tables>,
    /// From the container behind the port to the one at the peer.
    pub stations: Stations,
    /// The port.
    pub port: PortIndex,
    /// The peer.
    pub remote: RemoteIndex,
    /// Its address.
    pub peer: IpAddr,
    /// What ages count from.
    pub epoch: Instant,
}

impl World {
    /// A host with so many ports and peers, at least one of each: one pinned station at each.
    pub fn new(ports: u32, peers: u32) -> Result<Self> {
        ensure!(ports > 0 && peers > 0, "the flow has two ends");
        let epoch = Instant::now();
        let mut registry = Registry::new(epoch);
        registry.apply(Update::SetNetwork {
            vni: Vni::MESH,
            name: String::new(),
            mtu: MTU,
            sealed: false,
            gateways: vec![],
        });
        let mut indexes = Vec::new();
        for number in 0..ports {
            let fence = Fence::new(mac(0, number), &[overlay(0, number).into()]);
            indexes.push(registry.add_port(port_id(number), Vni::MESH, Some(fence)));
            registry.apply(pin(0, number, Location::Port(port_id(number))));
        }
        for number in 0..peers {
            let (peer, address) = (peer_id(number), underlay(number));
            let candidates = vec![address];
            let networks = vec![Vni::MESH];
            registry.apply(Update::SetPeer {
                peer,
                candidates,
                unadvertised: None,
                networks,
                keys: None,
                trusted: vec![],
            });
            registry.set_path(peer, Some(address));
            registry.apply(pin(1, number, Location::Peer(peer)));
        }
        let tables = registry.tables();
        let (port, peer) = (ports / 2, peers / 2);
        let remote = tables.source(underlay(peer).ip(), Vni::MESH);
        Ok(World {
            stations: Stations {
                macs: [mac(0, port), mac(1, peer)],
                addrs: [overlay(0, port), overlay(1, peer)],
                port: 40_000,
            },
            port: indexes.get(port as usize).copied().context("no such port")?,
            remote: remote.ok().context("the peer is unknown")?,
            peer: underlay(peer).ip(),
            tables,
            epoch,
        })
    }

    /// The switch of a worker of this host.
    pub fn switch(&self) -> Switch {
        Switch::new(Arc::clone(&self.tables))
    }
}

/// Side 0 is this host, side 1 are its peers.
fn mac(side: u8, number: u32) -> MacAddr {
    let [_, a, b, c] = number.to_be_bytes();
    MacAddr([0x02, 0x10, side, a, b, c])
}

fn overlay(side: u8, number: u32) -> Ipv4Addr {
    let [_, a, b, c] = number.to_be_bytes();
    Ipv4Addr::new(10, 32 + (side << 3) + (a & 7), b, c)
}

fn underlay(number: u32) -> SocketAddr {
    let [_, _, b, c] = number.to_be_bytes();
    SocketAddr::from(([198, 18, b, c], vxlan::PORT))
}

fn port_id(number: u32) -> PortId {
    let mut id = [0x70; 8];
    id[..4].copy_from_slice(&number.to_be_bytes());
    PortId(id)
}

fn peer_id(number: u32) -> PeerId {
    let mut id = [0x71; 16];
    id[..4].copy_from_slice(&number.to_be_bytes());
    PeerId(id)
}

fn pin(side: u8, number: u32, location: Location) -> Update {
    let peer = match location {
        Location::Peer(peer) => peer,
        Location::Port(_) => PeerId([0; 16]),
    };
    let addrs = vec![overlay(side, number).into()];
    Update::Pin { vni: Vni::MESH, mac: mac(side, number), claim: Claim { version: 1, peer }, location, addrs }
}

/// Fills a batch with copies of a frame, as reads from a TAP would.
pub fn batch_of(vnet: VnetHeader, frame: &[u8], count: usize) -> Result<Batch> {
    let mut batch = Batch::new();
    for _ in 0..count.min(MAX_FRAMES) {
        let read = [&vnet.emit()[..], frame].concat();
        let room = batch.room().get_mut(..read.len()).context("the batch is full")?;
        room.copy_from_slice(&read);
        ensure!(batch.commit(read.len()).is_ok(), "the frame was refused");
    }
    Ok(batch)
}

/// The way out: a batch of one port's frames is classified, and cut for the peer.
pub struct Outward {
    switch: Switch,
    from: Port,
    batch: Batch,
    classes: Classes,
    outbox: Outbox,
    now: Instant,
}

impl Outward {
    /// For `count` copies of a frame in each batch.
    pub fn new(world: &World, vnet: VnetHeader, frame: &[u8], count: usize) -> Result<Self> {
        Ok(Outward {
            switch: world.switch(),
            from: Port::Tap(world.port),
            batch: batch_of(vnet, frame, count)?,
            classes: Classes::new(),
            outbox: Outbox::new(),
            now: world.epoch,
        })
    }

    /// Forwards the batch once; the number of datagrams it made.
    pub fn step(&mut self) -> usize {
        self.outbox.clear();
        self.switch.classify(self.now, self.from, Vni::MESH, &self.batch, &mut self.classes);
        for (to, _, group) in self.classes.unicast() {
            let Port::Remote(remote) = to else { continue };
            if self.switch.tables().remote(remote).is_none() {
                continue;
            }
            for routed in group {
                let Some(slot) = self.batch.frames().get(usize::from(routed.slot)) else { continue };
                let _ = cut(self.batch.arena(), slot, Vni::MESH, MTU, &mut self.outbox);
            }
        }
        self.outbox.datagrams().len()
    }
}

/// The way in: what one receive call gave is opened, joined, and decided on.
pub struct Inward {
    switch: Switch,
    peer: IpAddr,
    received: Vec<u8>,
    stride: usize,
    joiner: Joiner,
    now: Instant,
}

impl Inward {
    /// For a receive of datagrams of `stride` bytes each.
    pub fn new(world: &World, received: Vec<u8>, stride: usize) -> Self {
        let (switch, joiner) = (world.switch(), Joiner::new(COALESCE));
        Inward { switch, peer: world.peer, received, stride, joiner, now: world.epoch }
    }

    /// Takes it in once; the number of frames for local ports.
    pub fn step(&mut self) -> usize {
        self.joiner.clear();
        let all = 0..self.received.len() as u32;
        for part in parts(&self.received, all, self.stride) {
            let datagram = self.received.get(part.frame.start as usize..part.frame.end as usize);
            let Ok((vni, _)) = vxlan::parse(datagram.unwrap_or_default()) else { continue };
            let Ok(from) = self.switch.tables().source(self.peer, vni) else { continue };
            let taken = self.joiner.push(&self.received, from, vni, MTU, part.skip(vxlan::LEN));
            debug_assert_eq!(taken, Ok(Intake::Taken), "a receive fits an empty joiner");
        }
        self.joiner.finish();
        let mut delivered = 0;
        for joined in self.joiner.joined() {
            let frame = self.joiner.start(joined, &self.received);
            let verdict = self.switch.forward(self.now, Port::Remote(joined.from), joined.vni, frame);
            if let Verdict::Unicast(Port::Tap(port)) = verdict {
                delivered += usize::from(self.switch.tables().port(port).is_some());
            }
        }
        delivered
    }
}

/// Both ways for one small frame a batch: the most that tables can cost, since every frame is looked up alone.
pub struct RoundTrip {
    outward: Outward,
    inward: Inward,
}

impl RoundTrip {
    /// Through this host. Fails when a frame does not get through.
    pub fn new(world: &World) -> Result<Self> {
        let frame = crate::frames::udp_frame(&world.stations, 64);
        let mut outward = Outward::new(world, VnetHeader::default(), &frame, 1)?;
        let answer = crate::frames::udp_frame(&world.stations.reversed(), 64);
        let received = [&vxlan::header(Vni::MESH)[..], &answer].concat();
        let mut inward = Inward::new(world, received, 0);
        match (outward.step(), inward.step()) {
            (1, 1) => Ok(RoundTrip { outward, inward }),
            got => bail!("of one frame each way came {got:?}"),
        }
    }

    /// One frame out and one in.
    pub fn step(&mut self) -> usize {
        self.outward.step() + self.inward.step()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::super_frame;

    #[test]
    fn frames_get_through_large_and_small_hosts() {
        for (ports, peers) in [(1, 1), (2, 1000), (1000, 2)] {
            let world = World::new(ports, peers).unwrap();
            assert_eq!(world.tables.remote(world.remote).map(|remote| remote.addr.ip()), Some(world.peer));
            assert_eq!(RoundTrip::new(&world).unwrap().step(), 2);
        }
        assert!(World::new(0, 1).is_err());
    }

    #[test]
    fn a_super_frame_is_cut_into_equal_datagrams() {
        let world = World::new(2, 2).unwrap();
        let (vnet, frame) = super_frame(&world.stations, 45);
        assert_eq!(Outward::new(&world, vnet, &frame, 1).unwrap().step(), 45);
    }
}
