//! From which UDP source port the datagrams of a frame leave, so that underlays and cards, which know only outer
//! headers, spread the flows inside (RFC 7348 section 5).
//!
//! A flow keeps its source port, and so its order. TCP is spread by connection: what it has to send comes as
//! super-frames, each of which is a send of its own anyhow. Everything else is spread by stations, because small
//! datagrams of many flows are sent together only where they share a socket, and because fragments then stay with the
//! rest of their flow. A UDP flow still gets a port of its own while there are few of them: the first to come takes
//! one of a few places, and has it until the place was quiet for a while (docs/decisions/0007-source-ports.md).

use super::headers::Inner;
use crate::wire::ether;

/// How many source ports there are beside the data port.
pub const SOURCE_PORTS: usize = 16;

/// How many UDP flows have a source port of their own at the same time. A batch for one host is sent in at most as
/// many parts more.
const OWNERS: usize = 8;

/// How long a place must be quiet before another flow may take it, in seconds rounded up: longer than any datagram is
/// under way, so that a flow that changes its port overtakes none of its own.
const QUIET_S: u32 = 2;

/// Which socket a datagram leaves from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct SourcePort(u8);

impl SourcePort {
    /// The data port itself.
    pub const DATA: SourcePort = SourcePort(0);

    /// The place among the sockets of the pool; none for the data port.
    pub fn pooled(self) -> Option<usize> {
        usize::from(self.0).checked_sub(1)
    }
}

/// Chooses source ports for one worker.
#[derive(Debug)]
pub struct SourcePorts {
    count: u8,
    owners: [Owner; OWNERS],
}

/// The UDP flow that has a source port of its own, and when one that falls to the same place was last seen.
#[derive(Clone, Copy, Default, Debug)]
struct Owner {
    flow: u32,
    seen_s: u32,
    taken: bool,
}

impl SourcePorts {
    /// Chooses among `count` ports, at most [`SOURCE_PORTS`]; with 0 everything leaves from the data port.
    pub fn new(count: usize) -> Self {
        SourcePorts { count: count.min(SOURCE_PORTS) as u8, owners: [Owner::default(); OWNERS] }
    }

    /// The source port of a whole frame. `now_s` in seconds since some moment.
    pub fn choose(&mut self, now_s: u32, frame: &[u8]) -> SourcePort {
        if self.count == 0 {
            return SourcePort::DATA;
        }
        let hash = match Inner::parse(frame) {
            Ok(Inner::Flow(headers)) => {
                let stations = mix(0, headers.addresses().of(frame));
                let l4 = usize::from(headers.l4);
                let flow = mix(stations, frame.get(l4..l4 + 4).unwrap_or_default());
                if headers.tcp || self.owns(now_s, flow) { flow } else { stations }
            }
            Ok(Inner::Piece(addresses)) => mix(0, addresses.of(frame)),
            Ok(Inner::Other) | Err(_) => mix(0, frame.get(..ether::LEN - 2).unwrap_or_default()),
        };
        self.of(hash)
    }

    /// Whether a UDP flow has a place, or takes one. One that came too late keeps the place from changing hands as
    /// long as it goes on, or it would change its own port in the middle.
    fn owns(&mut self, now_s: u32, flow: u32) -> bool {
        let Some(owner) = self.owners.get_mut(flow as usize % OWNERS) else { return false };
        let quiet = now_s.saturating_sub(owner.seen_s) >= QUIET_S;
        owner.seen_s = now_s;
        if !owner.taken || quiet {
            (owner.flow, owner.taken) = (flow, true);
        }
        owner.flow == flow
    }

    /// The upper bits choose the port, the lower ones the place.
    fn of(&self, hash: u32) -> SourcePort {
        SourcePort(1 + ((u64::from(hash) * u64::from(self.count)) >> 32) as u8)
    }
}

/// 2^32 divided by the golden ratio: multiplying spreads near values over the upper bits.
const GOLDEN: u32 = 0x9e37_79b1;

/// Takes `bytes`, a multiple of four, into a hash. Who finds flows that fall together only brings them together.
fn mix(seed: u32, bytes: &[u8]) -> u32 {
    let (words, _) = bytes.as_chunks::<4>();
    let add = |hash: u32, word: &[u8; 4]| {
        let mixed = (hash.rotate_left(5) ^ u32::from_ne_bytes(*word)).wrapping_mul(GOLDEN);
        mixed ^ mixed >> 15
    };
    let hash = words.iter().fold(seed, add).wrapping_mul(GOLDEN);
    hash ^ hash >> 16
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use etherparse::PacketBuilder;

    use super::*;

    const MACS: ([u8; 6], [u8; 6]) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);

    fn tcp(source: u16, payload: usize) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2(MACS.0, MACS.1).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
        let mut frame = Vec::new();
        builder.tcp(source, 80, 7, 1000).write(&mut frame, &vec![0; payload]).unwrap();
        frame
    }

    fn udp(to: u8, source: u16) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2(MACS.0, MACS.1).ipv4([10, 0, 0, 1], [10, 0, 0, to], 64);
        let mut frame = Vec::new();
        builder.udp(source, 53).write(&mut frame, &[0; 20]).unwrap();
        frame
    }

    fn fragment(mut frame: Vec<u8>, offset: u16) -> Vec<u8> {
        frame[20..22].copy_from_slice(&(0x2000 | offset).to_be_bytes());
        frame
    }

    #[test]
    fn a_connection_keeps_its_port_and_connections_have_different_ones() {
        let mut ports = SourcePorts::new(SOURCE_PORTS);
        let mut seen = BTreeSet::new();
        for connection in 0..64 {
            let first = ports.choose(0, &tcp(40_000 + 2 * connection, 0));
            assert_eq!(ports.choose(9, &tcp(40_000 + 2 * connection, 1400)), first);
            seen.insert(first);
        }
        assert!(seen.len() >= 14, "{seen:?}");
        assert!(seen.iter().all(|port| port.pooled().is_some_and(|at| at < SOURCE_PORTS)));
    }

    #[test]
    fn few_udp_flows_have_ports_of_their_own_and_a_crowd_shares() {
        let mut ports = SourcePorts::new(SOURCE_PORTS);
        let mut parts = |flows: u16| -> usize {
            let chosen: BTreeSet<_> = (0..flows).map(|flow| ports.choose(0, &udp(2, 1000 + flow))).collect();
            chosen.len()
        };
        assert!(parts(4) >= 3);
        // The sockets that a batch of datagrams between two stations is spread over at most.
        assert!(parts(1000) <= OWNERS + 1);
    }

    #[test]
    fn a_udp_flow_keeps_its_port_as_long_as_it_goes_on() {
        let mut ports = SourcePorts::new(SOURCE_PORTS);
        let before: Vec<_> = (0..64).map(|flow| ports.choose(0, &udp(2, flow))).collect();
        // All but every third end, some of them owners; who goes on does so from the same port.
        for now_s in 1..20 {
            for (flow, port) in before.iter().enumerate().step_by(3) {
                assert_eq!(ports.choose(now_s, &udp(2, flow as u16)), *port, "{flow} after {now_s} s");
            }
        }
    }

    #[test]
    fn fragments_go_with_the_crowd_of_their_stations() {
        let mut ports = SourcePorts::new(SOURCE_PORTS);
        for flow in 0..1000 {
            ports.choose(0, &udp(2, flow));
        }
        let shared = ports.choose(0, &udp(2, 2000));
        assert_eq!(ports.choose(0, &fragment(udp(2, 2000), 0)), shared);
        assert_eq!(ports.choose(0, &fragment(udp(2, 2000), 100)), shared);
    }

    #[test]
    fn other_frames_are_told_apart_by_their_stations() {
        let mut ports = SourcePorts::new(SOURCE_PORTS);
        let arp = |last| [2, 0, 0, 0, 0, last, 2, 0, 0, 0, 0, 1, 8, 6].repeat(3);
        let seen: BTreeSet<_> = (0..64).map(|last| ports.choose(0, &arp(last))).collect();
        assert!(seen.len() >= 12, "{seen:?}");
        assert_ne!(ports.choose(0, &[1, 2, 3]), SourcePort::DATA, "a runt has a port like others");
    }

    #[test]
    fn without_a_pool_everything_leaves_from_the_data_port() {
        let mut ports = SourcePorts::new(0);
        assert_eq!(ports.choose(0, &tcp(1, 0)), SourcePort::DATA);
        let mut three = SourcePorts::new(3);
        let seen: BTreeSet<_> = (0..64).filter_map(|flow| three.choose(0, &tcp(flow, 0)).pooled()).collect();
        assert_eq!(seen, BTreeSet::from([0, 1, 2]));
    }
}
