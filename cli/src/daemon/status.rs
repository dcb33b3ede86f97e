//! `status` and `ps`: what the planes say of themselves, joined.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use engine::counters::{self, DropReason, Snapshot};
use engine::io::device;
use engine::io::engine::{EngineSnapshot, PortSnapshot};
use engine::io::netlink::{Link, Netlink};
use engine::io::socket::SocketLoad;
use engine::io::tap::Offloads;
use engine::rate::Rate;
use engine::types::{PeerId, PortId};
use engine::wire::sealed;
use peering::mesh::{Endpoint, EventStatus, MeshStatus, PeerState, PeerStatus};

use super::ports::Intent;
use super::wiring::PathState;
use super::{Daemon, expose};
use crate::failure::Failure;
use crate::shape::{
    Attachment, Conservation, ControlPort, ControlSocket, Dataplane, Listed, NetworkPeer, NetworkStatus,
    Offload, Path, Peer, Port, Status, Unclaimed, Warning, Worker,
};

/// How many events of its own the daemon remembers.
const REMEMBERED: usize = 64;

/// Something the daemon itself has to tell.
#[derive(Clone, Debug)]
pub(super) struct Told {
    kind: &'static str,
    message: String,
    at: Instant,
}

impl Daemon {
    /// Remembers and logs something that people should know.
    pub(super) fn tell(&self, kind: &'static str, message: String) {
        tracing::warn!(kind, "{message}");
        let mut told = self.told();
        if told.len() == REMEMBERED {
            told.pop_front();
        }
        told.push_back(Told { kind, message, at: Instant::now() });
    }

    /// The whole status. `thorough` also looks through all namespaces for interfaces that belong to nobody.
    pub(super) async fn status(self: &Arc<Self>, thorough: bool) -> Result<Status, Failure> {
        if !thorough {
            return Ok(self.join(self.mesh().await, self.dataplane()));
        }
        self.check_range().await;
        self.check_secret_file().await;
        let mut status = self.counted().await?;
        let known: Vec<PortId> = self.ports().all().map(|i| i.port).collect();
        status.dataplane.unclaimed = self.blocking(move |_| unclaimed(&known)).await?;
        Ok(status)
    }

    /// The status with all counters, also those of the kernel.
    pub(super) async fn counted(self: &Arc<Self>) -> Result<Status, Failure> {
        let mesh = self.mesh().await;
        let mut dataplane = self.dataplane();
        self.look_at_devices(&mut dataplane).await?;
        Ok(self.join(mesh, dataplane))
    }

    /// The control plane, and how often this host began.
    async fn mesh(&self) -> (MeshStatus, u64) {
        (self.peering.status().await, self.peering.incarnation().await)
    }

    fn join(&self, (mesh, start): (MeshStatus, u64), dataplane: Dataplane) -> Status {
        let events = self.events(mesh.events);
        let clone = mesh.clone_of.map(|other| Warning {
            kind: "clone".to_owned(),
            message: format!(
                "this host is a clone: {other}; it tells nobody anything and gives no addresses while that one runs"
            ),
        });
        let small = self.small_paths(&mesh.peers);
        let control = self.peering.port_counters();
        Status {
            version: self.hello.version.clone(),
            peer_id: mesh.peer_id,
            nickname: mesh.nickname,
            cluster_id: mesh.cluster_id,
            state_hash: mesh.state_hash,
            encryption: if self.seals() { "on" } else { "off" }.to_owned(),
            open: self.peering.is_open(),
            sealing: self.sealing(start),
            networks: self.network_status(),
            ready: self.is_ready(),
            peers: mesh.peers.into_iter().map(|peer| self.peer(peer)).collect(),
            connections: mesh.connections,
            targets: mesh.targets,
            rotation: mesh.rotation,
            ipam: mesh.ipam,
            dns: Some(self.dns_status()),
            dataplane,
            control_port: ControlPort {
                received: control.received,
                foreign: control.foreign,
                refused: mesh.refused,
            },
            warnings: (self.warnings().into_iter().chain(clone))
                .chain(small)
                .chain(self.secret_warning())
                .chain(self.trust_warning())
                .collect(),
            events,
        }
    }

    /// The hosts that are reached by a path that carries less than the largest packets here.
    fn small_paths(&self, peers: &[PeerStatus]) -> Vec<Warning> {
        let seals = self.seals();
        let sealing = |network: &NetworkStatus| if seals || network.encrypted { sealed::OVERHEAD } else { 0 };
        let size = |network: &NetworkStatus| usize::from(network.mtu) + sealing(network);
        let used = self.network_status().into_iter().filter(|network| network.used);
        let Some(network) = used.max_by_key(size) else { return Vec::new() };
        let paths = self.paths();
        let small = |peer: &PeerStatus| {
            let path = paths.get(&peer.peer_id.parse().ok()?)?;
            let PathState::Up { addr, mtu } = path else { return None };
            (*mtu < network.mtu).then(|| Warning {
                kind: "small_path".to_owned(),
                message: format!(
                    "the path to {} ({addr}) carries packets of {mtu} bytes, the network {} has some of {}: they go in \
                     pieces",
                    peer.nickname, network.network, network.mtu
                ),
            })
        };
        peers.iter().filter_map(small).collect()
    }

    fn peer(&self, peer: PeerStatus) -> Peer {
        let paths = self.paths();
        let state = peer.peer_id.parse().ok().and_then(|id| paths.get(&id));
        let (path, reason) = match state {
            Some(PathState::Up { addr, mtu }) => {
                let kind = self.path_kind(&peer.peer_id);
                // Frames in clear want no session.
                let fault = self.session_fault(&peer.peer_id).filter(|_| kind == "sealed");
                (Some(Path { address: *addr, kind: kind.to_owned(), mtu: *mtu }), fault)
            }
            Some(PathState::Down { reason }) => (None, Some(reason.clone())),
            None => (
                None,
                (peer.state == PeerState::Alive).then(|| "no data address has answered yet".to_owned()),
            ),
        };
        let agreed = self.agreement(&peer.peer_id);
        Peer {
            agreement: agreed.map(|(agreement, _)| agreement.to_string()),
            trust: agreed.map(|(_, trust)| trust.to_string()),
            peer_id: peer.peer_id,
            nickname: peer.nickname,
            address: peer.address,
            state: peer.state,
            path,
            reason,
        }
    }

    /// Both planes' events, oldest first.
    fn events(&self, mut events: Vec<EventStatus>) -> Vec<EventStatus> {
        let now = Instant::now();
        events.extend(self.told().iter().map(|told| EventStatus {
            kind: told.kind.to_owned(),
            message: told.message.clone(),
            age_s: now.saturating_duration_since(told.at).as_secs_f64(),
        }));
        events.sort_by(|a, b| b.age_s.total_cmp(&a.age_s));
        events
    }

    fn dataplane(&self) -> Dataplane {
        let snapshot = self.engine.snapshot();
        let open: BTreeMap<PortId, &PortSnapshot> = snapshot.ports.iter().map(|p| (p.port, p)).collect();
        let ports = self.ports();
        let settled = ports.all().filter(|i| !i.addresses.is_empty());
        let mut listed: Vec<Port> = settled.map(|i| port(i, open.get(&i.port).copied())).collect();
        listed.sort_by(|a, b| (&a.container, &a.network).cmp(&(&b.container, &b.network)));
        Dataplane {
            workers: snapshot.workers.iter().zip(&snapshot.sockets).map(worker).collect(),
            control: control(&snapshot.control_socket),
            ports: listed,
            drops: drops(snapshot.total.drops()),
            conservation: conservation(&snapshot.forwarded),
            gateway: snapshot.gateway.named().map(|(name, count)| (name.to_owned(), count)).collect(),
            offloads: offloads(&snapshot),
            unclaimed: Vec::new(),
        }
    }

    /// Asks the kernel about the device of each open port, in its namespace.
    async fn look_at_devices(self: &Arc<Self>, dataplane: &mut Dataplane) -> Result<(), Failure> {
        let open: Vec<Intent> = {
            let opened = self.opened();
            self.ports().all().filter(|i| opened.contains(&i.port)).cloned().collect()
        };
        let links = self.blocking(move |_| {
            let found = open.iter().filter_map(|intent| Some((intent.port.to_string(), device_of(intent)?)));
            found.collect::<BTreeMap<String, Link>>()
        });
        let links = links.await?;
        for port in &mut dataplane.ports {
            let Some(link) = links.get(&port.port) else { continue };
            port.queue_length = Some(link.txqueuelen);
            port.kernel_drops_in = link.dropped.map(|dropped| dropped.sent);
            port.kernel_drops_out = link.dropped.map(|dropped| dropped.received);
        }
        Ok(())
    }

    /// The endpoints of all hosts.
    pub(super) async fn ps(&self) -> Vec<Listed> {
        let nicknames = self.nicknames().await;
        let views = self.peering.endpoints().await;
        let mut listed: Vec<Listed> = views
            .iter()
            .map(|view| Listed {
                attachment: attachment(&view.endpoint, &self.network_name(view.endpoint.network)),
                nickname: nicknames.of(view.peer),
                peer_id: view.peer.to_string(),
                state: state(view.endpoint.running),
            })
            .collect();
        listed.sort();
        listed
    }

    /// What all hosts are called.
    pub(super) async fn nicknames(&self) -> Nicknames {
        let MeshStatus { peer_id, nickname, peers, .. } = self.peering.status().await;
        let others = peers.into_iter().map(|p| (p.peer_id, (p.nickname, p.address.map(|a| a.ip()))));
        Nicknames { hosts: others.chain([(peer_id, (nickname, None))]).collect() }
    }
}

/// What hosts are called, and where they are, by their ids.
#[derive(Debug)]
pub(super) struct Nicknames {
    hosts: BTreeMap<String, (String, Option<IpAddr>)>,
}

impl Nicknames {
    fn of(&self, peer: PeerId) -> Option<String> {
        self.hosts.get(&peer.to_string()).map(|(nickname, _)| nickname.clone())
    }

    /// A host of a network.
    pub(super) fn peer(&self, peer: PeerId) -> NetworkPeer {
        let peer_id = peer.to_string();
        let (nickname, address) =
            self.hosts.get(&peer_id).cloned().unwrap_or_else(|| (peer_id.clone(), None));
        NetworkPeer { peer_id, nickname, address }
    }
}

/// An endpoint as people are told of it.
pub(super) fn attachment(endpoint: &Endpoint, network: &str) -> Attachment {
    let addresses: Vec<String> = endpoint.addresses.iter().map(ToString::to_string).collect();
    Attachment {
        container: endpoint.container.clone(),
        network: network.to_owned(),
        name: endpoint.name.clone(),
        address: addresses.first().cloned(),
        addresses,
        mac: endpoint.mac.to_string(),
        ifname: endpoint.ifname.clone(),
    }
}

pub(super) fn state(running: bool) -> String {
    if running { "running" } else { "stopped" }.to_owned()
}

fn port(intent: &Intent, open: Option<&PortSnapshot>) -> Port {
    let totals = open.map(|open| open.totals.clone()).unwrap_or_default();
    let (sent, given) = (totals.sent, totals.given);
    Port {
        port: intent.port.to_string(),
        container: intent.container.clone(),
        network: intent.network_name.clone(),
        ifname: intent.ifname.clone().unwrap_or_default(),
        state: state(intent.running),
        rate_bits_per_second: intent.rate.map(Rate::bits_per_second),
        passing: expose::passing(intent.forwarding),
        no_spoof_check: intent.no_spoof_check,
        frames_in: sent.frames,
        bytes_in: sent.bytes,
        batches_in: sent.batches,
        mean_batch_in: sent.mean_batch(),
        segments_in: sent.segments,
        super_frames_in: totals.super_frames_sent,
        frames_out: given.frames,
        bytes_out: given.bytes,
        batches_out: given.batches,
        mean_batch_out: given.mean_batch(),
        segments_out: given.segments,
        super_frames_out: totals.super_frames_given,
        drops: drops(totals.drops()),
        offloads: open.map(|open| offloads_of(&open.offloads).collect()).unwrap_or_default(),
        queue_length: None,
        kernel_drops_in: None,
        kernel_drops_out: None,
    }
}

fn worker((counted, socket): (&Snapshot, &SocketLoad)) -> Worker {
    let Snapshot { tap_in, tap_out, underlay_in, underlay_out, .. } = counted;
    Worker {
        port_frames_in: tap_in.frames,
        port_bytes_in: tap_in.bytes,
        port_batches_in: tap_in.batches,
        port_mean_batch_in: tap_in.mean_batch(),
        port_segments_in: tap_in.segments,
        port_frames_out: tap_out.frames,
        port_bytes_out: tap_out.bytes,
        port_batches_out: tap_out.batches,
        port_mean_batch_out: tap_out.mean_batch(),
        port_segments_out: tap_out.segments,
        remote_frames_in: underlay_in.frames,
        remote_bytes_in: underlay_in.bytes,
        remote_batches_in: underlay_in.batches,
        remote_mean_batch_in: underlay_in.mean_batch(),
        remote_segments_in: underlay_in.segments,
        remote_frames_out: underlay_out.frames,
        remote_bytes_out: underlay_out.bytes,
        remote_batches_out: underlay_out.batches,
        remote_mean_batch_out: underlay_out.mean_batch(),
        remote_segments_out: underlay_out.segments,
        super_frames_cut: counted.super_frames_cut,
        super_frames_whole: counted.super_frames_whole,
        super_frames_joined: counted.super_frames_joined,
        drops: drops(counted.drops()),
        socket_queued_bytes: socket.queued_bytes,
        socket_buffer_bytes: socket.buffer_bytes,
        kernel_drops: socket.dropped,
    }
}

fn control(socket: &SocketLoad) -> ControlSocket {
    ControlSocket {
        socket_queued_bytes: socket.queued_bytes,
        socket_buffer_bytes: socket.buffer_bytes,
        kernel_drops: socket.dropped,
    }
}

fn drops(counts: impl Iterator<Item = (DropReason, u64)>) -> BTreeMap<String, u64> {
    counts.map(|(reason, count)| (reason.name().to_owned(), count)).collect()
}

fn conservation(forwarded: &Snapshot) -> Conservation {
    let books = forwarded.conservation();
    let counters::Conservation { taken, copies, recut, given, drops, answered, to_gateway, from_gateway } =
        books;
    let difference = books.difference();
    Conservation { taken, copies, recut, given, drops, answered, to_gateway, from_gateway, difference }
}

/// What the kernel granted and refused somewhere.
fn offloads(snapshot: &EngineSnapshot) -> Vec<Offload> {
    let of_ports = snapshot.ports.iter().map(|p| &p.offloads);
    let all: BTreeSet<Offload> = of_ports.chain([&snapshot.socket_offloads]).flat_map(offloads_of).collect();
    all.into_iter().collect()
}

fn offloads_of(offloads: &Offloads) -> impl Iterator<Item = Offload> + '_ {
    let granted = offloads.granted.iter().map(|&name| (name, None));
    let refused = offloads.refused.iter().map(|(name, reason)| (*name, Some(reason.clone())));
    granted.chain(refused).map(|(name, reason)| Offload {
        name: name.to_owned(),
        granted: reason.is_none(),
        reason,
    })
}

/// The device of an open port, if it is where it was made.
fn device_of(intent: &Intent) -> Option<Link> {
    let netlink = Netlink::open_in(&intent.present_netns()?).ok()?;
    let link = netlink.link(intent.ifname.as_deref()?).ok().flatten()?;
    (link.alias == Some(device::alias(intent.port))).then_some(link)
}

/// Interfaces with our alias that neither this daemon nor any other has open.
fn unclaimed(known: &[PortId]) -> Vec<Unclaimed> {
    let strays = device::strays(known).into_iter().filter(|stray| !is_open(stray));
    let mut found: Vec<Unclaimed> = strays
        .map(|s| Unclaimed { port: s.port.to_string(), ifname: s.ifname, netns: s.netns.id().ino })
        .collect();
    found.sort();
    found
}

/// Several daemons may share a machine: a device that some process has open belongs to one of them. It has carrier
/// then, if it is up; the number of queues is told only of devices with several.
pub(super) fn is_open(stray: &device::Found) -> bool {
    let link = Netlink::open_in(&stray.netns).and_then(|netlink| netlink.link(&stray.ifname));
    let open = |link: &Link| link.carrier || link.tun.is_some_and(|tun| tun.queues > 0);
    link.ok().flatten().is_some_and(|link| open(&link))
}
