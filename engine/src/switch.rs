//! The switch: where does a frame go?
//!
//! It learns where sources are, looks destinations up, and answers questions for the gateway and for endpoints it was told of. It
//! holds no frame and writes nothing: verdicts go out, the worker acts on them.
//!
//! - A frame for a known station goes there alone; one for a group or for an unknown station is *flooded*: to every
//!   other local port and, when it came from a local port, one copy to each remote of the network.
//! - *Split horizon*: what came from a remote goes to local ports only. Hosts reach each other directly.
//! - Pinned entries beat learned ones. A learned entry whose port is gone counts as unknown.
//! - A frame for many goes no further than somebody may want it ([`Reach`]).
//! - A container sends in its own name only ([`crate::fence`]).
//! - Floods of one port are limited, so that one broken container does not fill every host's wire.

pub mod neighbours;
mod reach;
mod storm;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Instant;

use crate::counters::DropReason;
use crate::network::Network;
use crate::offload::source_port::{SOURCE_PORTS, SourcePort, SourcePorts};
use crate::packet::{Batch, MAX_FRAMES};
use crate::tables::{PortIndex, RemoteIndex, Tables};
use crate::types::{MacAddr, Vni};
use crate::wire::ether::{self, Ether};
use neighbours::Reply;
pub use reach::Reach;
use storm::Storm;

/// A place where frames enter or leave the switch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Port {
    /// The device of a container on this host.
    Tap(PortIndex),
    /// A peer or a VTEP.
    Remote(RemoteIndex),
}

/// What is to be done with a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Send it out there.
    Unicast(Port),
    /// Send it to all of [`Switch::flood`] that are in reach.
    Flood(Reach),
    /// Write [`Switch::reply`] back to where the frame came from; the frame itself goes nowhere.
    Hairpin,
    /// Give it to the gateway, which answers on its own.
    Gateway,
    /// Count it.
    Drop(DropReason),
}

/// One worker's view of all networks of this host.
#[derive(Debug)]
pub struct Switch {
    tables: Arc<Tables>,
    storm: Storm,
    source_ports: SourcePorts,
    reply: Reply,
}

impl Switch {
    /// A switch that forwards by `tables`.
    pub fn new(tables: Arc<Tables>) -> Self {
        Switch {
            tables,
            storm: Storm::default(),
            source_ports: SourcePorts::new(SOURCE_PORTS),
            reply: Reply::default(),
        }
    }

    /// The same with another number of source ports.
    #[must_use]
    pub fn with_source_ports(mut self, count: usize) -> Self {
        self.source_ports = SourcePorts::new(count);
        self
    }

    /// Forwards by newer tables from now on.
    pub fn set_tables(&mut self, tables: Arc<Tables>) {
        self.tables = tables;
    }

    /// The tables in use.
    pub fn tables(&self) -> &Arc<Tables> {
        &self.tables
    }

    /// Decides where a frame goes that came from `from` on the network `vni`. Learns the source.
    ///
    /// `frame` needs to hold the start of the frame only: its headers, and all of a packet that speaks of neighbours or groups.
    pub fn forward(&mut self, now: Instant, from: Port, vni: Vni, frame: &[u8]) -> Verdict {
        let now_s = self.tables.seconds(now);
        self.decide(now, now_s, from, vni, frame).unwrap_or_else(Verdict::Drop)
    }

    fn decide(
        &mut self,
        now: Instant,
        now_s: u32,
        from: Port,
        vni: Vni,
        frame: &[u8],
    ) -> Result<Verdict, DropReason> {
        let ether = Ether::parse(frame)?;
        let network = self.tables.network(vni).ok_or(DropReason::UnknownVni)?;
        let (source, destination) = (ether.source(), ether.destination());
        check_source(source, vni)?;
        match from {
            Port::Tap(port) => self.tables.judge(port, frame)?,
            Port::Remote(_) => check_foreign(network, &ether)?,
        }
        network.learn(source, from, now_s);
        if is_reserved(destination) {
            return Err(DropReason::ReservedGroup);
        }
        let for_switch = destination.is_group() || destination == MacAddr::gateway(vni);
        if let Some(reply) = for_switch.then(|| neighbours::answer(network, from, &ether)).flatten() {
            self.reply = reply;
            return Ok(Verdict::Hairpin);
        }
        if for_switch && !destination.is_group() {
            return match from {
                Port::Tap(_) => Ok(Verdict::Gateway),
                Port::Remote(_) => Err(DropReason::GatewayRemote),
            };
        }
        let known = if destination.is_group() { None } else { self.locate(network, destination, now_s)? };
        if let Some(port) = known {
            return permit(from, port).map(Verdict::Unicast);
        }
        // What it counts for on a wire, near enough: for one that is not cut it is one.
        let segments = frame.len().saturating_sub(ether::LEN) / usize::from(network.mtu()).max(1) + 1;
        if !self.storm.admits(now, from, segments as u32) {
            return Err(DropReason::StormLimit);
        }
        self.reach(network, from, &ether, now_s).map(Verdict::Flood)
    }

    /// Where `mac` is; none when nobody knows.
    fn locate(&self, network: &Network, mac: MacAddr, now_s: u32) -> Result<Option<Port>, DropReason> {
        match network.pins().get(mac) {
            None => {
                let learned = network.learned().get(mac, now_s);
                Ok(learned.filter(|&port| self.tables.reaches(port, network.vni())))
            }
            Some(Some(port)) if self.tables.reaches(port, network.vni()) => Ok(Some(port)),
            Some(Some(Port::Remote(_))) => Err(DropReason::NoPath),
            Some(Some(Port::Tap(_)) | None) => Err(DropReason::PortGone),
        }
    }

    /// The answer that [`Verdict::Hairpin`] speaks of. Valid until the next frame.
    pub fn reply(&self) -> &Reply {
        &self.reply
    }

    /// Where a flood goes: local ports, then remotes. Never back to `from`; from a remote to local ports only.
    pub fn flood(
        &self,
        from: Port,
        vni: Vni,
        reach: Reach,
    ) -> (impl Iterator<Item = PortIndex> + '_, impl Iterator<Item = RemoteIndex> + '_) {
        let network = self.tables.network(vni);
        let ports = network.map_or(&[][..], Network::ports);
        let remotes = match from {
            Port::Tap(_) => network.map_or(&[][..], Network::remotes),
            Port::Remote(_) => &[],
        };
        let to_port = move |&port: &PortIndex| {
            Port::Tap(port) != from && network.is_some_and(|network| self.reaches_port(network, reach, port))
        };
        let to_remote = move |&remote: &RemoteIndex| {
            network.is_some_and(|network| self.reaches_remote(network, reach, remote))
        };
        (ports.iter().copied().filter(to_port), remotes.iter().copied().filter(to_remote))
    }

    /// Decides for a whole batch that came from `from`, and sorts the frames by what is to be done with them.
    pub fn classify(&mut self, now: Instant, from: Port, vni: Vni, batch: &Batch, classes: &mut Classes) {
        classes.clear();
        let mut previous = None;
        for (slot, frame) in batch.frames().iter().enumerate() {
            let frame = frame.frame(batch.arena());
            let verdict = match previous {
                Some((header, verdict @ Verdict::Unicast(_))) if is_repeated(header, frame) => {
                    // The same stations; in whose name its packet is, each frame says anew.
                    self.judge(from, frame).map_or_else(Verdict::Drop, |()| verdict)
                }
                _ => self.forward(now, from, vni, frame),
            };
            previous = Some((frame, verdict));
            let source = self.source_port(verdict, frame);
            classes.put(slot as u16, verdict, source, &self.reply);
        }
        classes.sort();
    }

    fn judge(&self, from: Port, frame: &[u8]) -> Result<(), DropReason> {
        match from {
            Port::Tap(port) => self.tables.judge(port, frame),
            Port::Remote(_) => Ok(()),
        }
    }

    /// From which port the datagrams of a frame leave, if it goes to other hosts.
    fn source_port(&self, verdict: Verdict, frame: &[u8]) -> SourcePort {
        match verdict {
            Verdict::Unicast(Port::Remote(to)) if self.tables.remote(to).is_none_or(|to| !to.spread) => {
                SourcePort::DATA
            }
            Verdict::Unicast(Port::Remote(_)) | Verdict::Flood(_) => self.source_ports.choose(frame),
            Verdict::Unicast(Port::Tap(_)) | Verdict::Hairpin | Verdict::Gateway | Verdict::Drop(_) => {
                SourcePort::DATA
            }
        }
    }
}

/// Whether two frames of one batch have the same header, and it alone decides: one station to another, untagged.
/// Most frames follow another of their flow.
fn is_repeated(previous: &[u8], frame: &[u8]) -> bool {
    let header = |frame: &[u8]| frame.first_chunk::<{ ether::LEN }>().copied();
    match header(frame) {
        Some([group, .., 0x81 | 0x88, _]) if group & 1 == 0 => false,
        Some(own @ [group, ..]) => group & 1 == 0 && header(previous) == Some(own),
        None => false,
    }
}

/// Source addresses that no station may use.
fn check_source(source: MacAddr, vni: Vni) -> Result<(), DropReason> {
    if source.is_group() || source.is_zero() {
        return Err(DropReason::GroupSource);
    }
    if source == MacAddr::gateway(vni) {
        return Err(DropReason::GatewaySource);
    }
    Ok(())
}

/// A frame from elsewhere speaks neither for a container of this host nor for the gateway.
fn check_foreign(network: &Network, ether: &Ether<'_>) -> Result<(), DropReason> {
    if let Some(Some(Port::Tap(_))) = network.pins().get(ether.source()) {
        return Err(DropReason::LocalSource);
    }
    if reach::claims_gateway(network, ether) { Err(DropReason::GatewaySource) } else { Ok(()) }
}

/// The sixteen addresses that end at the first bridge: spanning tree, pause, LLDP (IEEE 802.1Q section 8.6.3).
fn is_reserved(destination: MacAddr) -> bool {
    matches!(destination.0, [0x01, 0x80, 0xc2, 0, 0, 0x00..=0x0f])
}

/// Whether a frame from `from` may go to `to`.
fn permit(from: Port, to: Port) -> Result<Port, DropReason> {
    match (from, to) {
        _ if from == to => Err(DropReason::HairpinSamePort),
        (Port::Remote(_), Port::Remote(_)) => Err(DropReason::SplitHorizon),
        _ => Ok(to),
    }
}

/// The frames of a batch, sorted by what is to be done with them. Frames are named by their place in the batch.
#[derive(Debug)]
pub struct Classes {
    unicast: Vec<Routed>,
    floods: Vec<Flooded>,
    replies: Vec<Reply>,
    gateway: Vec<u16>,
    drops: Vec<(u16, DropReason)>,
}

/// A frame and where it goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Routed {
    /// Where it goes.
    pub to: Port,
    /// From which port its datagrams leave.
    pub source: SourcePort,
    /// Its place in the batch.
    pub slot: u16,
}

/// A frame and how far it is flooded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flooded {
    /// How far.
    pub reach: Reach,
    /// From which port its datagrams leave where the remote allows it.
    pub source: SourcePort,
    /// Its place in the batch.
    pub slot: u16,
}

impl Default for Classes {
    fn default() -> Self {
        Self::new()
    }
}

impl Classes {
    /// Empty. Allocates once for all it will ever hold.
    pub fn new() -> Self {
        Classes {
            unicast: Vec::with_capacity(MAX_FRAMES),
            floods: Vec::with_capacity(MAX_FRAMES),
            replies: Vec::with_capacity(MAX_FRAMES),
            gateway: Vec::with_capacity(MAX_FRAMES),
            drops: Vec::with_capacity(MAX_FRAMES),
        }
    }

    /// Frames for one destination each: one group for each destination and source port, in it the order of the batch.
    pub fn unicast(&self) -> impl Iterator<Item = (Port, SourcePort, &[Routed])> + '_ {
        let groups = self.unicast.chunk_by(|a, b| (a.to, a.source) == (b.to, b.source));
        groups.filter_map(|group| group.first().map(|first| (first.to, first.source, group)))
    }

    /// Frames for [`Switch::flood`].
    pub fn floods(&self) -> &[Flooded] {
        &self.floods
    }

    /// Answers to write back to the port the batch came from.
    pub fn replies(&self) -> &[Reply] {
        &self.replies
    }

    /// Frames for the gateway.
    pub fn gateway(&self) -> &[u16] {
        &self.gateway
    }

    /// Frames to count.
    pub fn drops(&self) -> &[(u16, DropReason)] {
        &self.drops
    }

    fn clear(&mut self) {
        self.unicast.clear();
        self.floods.clear();
        self.replies.clear();
        self.gateway.clear();
        self.drops.clear();
    }

    fn put(&mut self, slot: u16, verdict: Verdict, source: SourcePort, reply: &Reply) {
        match verdict {
            Verdict::Unicast(to) => self.unicast.push(Routed { to, source, slot }),
            Verdict::Flood(reach) => self.floods.push(Flooded { reach, source, slot }),
            Verdict::Hairpin => self.replies.push(*reply),
            Verdict::Gateway => self.gateway.push(slot),
            Verdict::Drop(reason) => self.drops.push((slot, reason)),
        }
    }

    /// Brings frames for one destination and source port together; within them the order of the batch stays.
    fn sort(&mut self) {
        self.unicast.sort_unstable();
    }
}
