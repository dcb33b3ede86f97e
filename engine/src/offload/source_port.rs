//! From which UDP source port the datagrams of a frame leave, so that underlays and cards, which know only outer
//! headers, spread the flows inside (RFC 7348 section 5).
//!
//! A flow has the same source port whichever worker sends it, so it keeps its order, and the receiving host can choose
//! a worker by the source port. TCP is spread by connection: what it has to send comes as super-frames, each of which
//! is a send of its own anyhow. Small datagrams of many flows are sent together only where they share a socket: UDP is
//! spread by stations and, of two stations, over a few ports only. Fragments go by stations alone
//! (docs/decisions/0007-source-ports.md).

use super::headers::Inner;
use crate::wire::ether;

/// How many source ports there are beside the data port.
pub const SOURCE_PORTS: usize = 16;

/// Over how many source ports the UDP flows between two stations are spread: a batch of their datagrams is sent in at
/// most as many parts.
const UDP_PARTS: u32 = 4;

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

/// Chooses source ports.
#[derive(Clone, Copy, Debug)]
pub struct SourcePorts {
    count: u8,
}

impl SourcePorts {
    /// Chooses among `count` ports, at most [`SOURCE_PORTS`]; with 0 everything leaves from the data port.
    pub fn new(count: usize) -> Self {
        SourcePorts { count: count.min(SOURCE_PORTS) as u8 }
    }

    /// The source port of a whole frame.
    pub fn choose(&self, frame: &[u8]) -> SourcePort {
        if self.count == 0 {
            return SourcePort::DATA;
        }
        let hash = match Inner::parse(frame) {
            Ok(Inner::Flow(headers)) => {
                let stations = mix(0, headers.addresses().of(frame));
                let l4 = usize::from(headers.l4);
                let flow = mix(stations, frame.get(l4..l4 + 4).unwrap_or_default());
                if headers.tcp { flow } else { mix(stations, &(flow % UDP_PARTS).to_ne_bytes()) }
            }
            Ok(Inner::Piece(addresses)) => mix(0, addresses.of(frame)),
            Ok(Inner::Other) | Err(_) => mix(0, frame.get(..ether::LEN - 2).unwrap_or_default()),
        };
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
        let ports = SourcePorts::new(SOURCE_PORTS);
        let mut seen = BTreeSet::new();
        for connection in 0..64 {
            let first = ports.choose(&tcp(40_000 + 2 * connection, 0));
            assert_eq!(ports.choose(&tcp(40_000 + 2 * connection, 1400)), first);
            seen.insert(first);
        }
        assert!(seen.len() >= 14, "{seen:?}");
        assert!(seen.iter().all(|port| port.pooled().is_some_and(|at| at < SOURCE_PORTS)));
    }

    #[test]
    fn a_crowd_of_udp_flows_between_two_stations_shares_a_few_ports() {
        let ports = SourcePorts::new(SOURCE_PORTS);
        let between = |to| (0..1000).map(|flow| ports.choose(&udp(to, flow))).collect::<BTreeSet<_>>();
        assert!((2..=UDP_PARTS as usize).contains(&between(2).len()), "{:?}", between(2));
        assert!((2..50).flat_map(between).collect::<BTreeSet<_>>().len() >= 14);
    }

    #[test]
    fn all_fragments_go_one_way() {
        let ports = SourcePorts::new(SOURCE_PORTS);
        let chosen = |flow, offset| ports.choose(&fragment(udp(2, flow), offset));
        assert_eq!(chosen(2000, 0), chosen(2000, 100));
        assert_eq!(chosen(2000, 0), chosen(7, 3));
    }

    #[test]
    fn other_frames_are_told_apart_by_their_stations() {
        let ports = SourcePorts::new(SOURCE_PORTS);
        let arp = |last| [2, 0, 0, 0, 0, last, 2, 0, 0, 0, 0, 1, 8, 6].repeat(3);
        let seen: BTreeSet<_> = (0..64).map(|last| ports.choose(&arp(last))).collect();
        assert!(seen.len() >= 12, "{seen:?}");
        assert_ne!(ports.choose(&[1, 2, 3]), SourcePort::DATA, "a runt has a port like others");
    }

    #[test]
    fn without_a_pool_everything_leaves_from_the_data_port() {
        assert_eq!(SourcePorts::new(0).choose(&tcp(1, 0)), SourcePort::DATA);
        let three = SourcePorts::new(3);
        let seen: BTreeSet<_> = (0..64).filter_map(|flow| three.choose(&tcp(flow, 0)).pooled()).collect();
        assert_eq!(seen, BTreeSet::from([0, 1, 2]));
    }
}
