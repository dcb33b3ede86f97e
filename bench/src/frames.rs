//! Frames to measure with, as a container's kernel hands them over.

use std::net::Ipv4Addr;

use engine::types::MacAddr;
use engine::wire::checksum::Sum;
use engine::wire::virtio::{GSO_TCPV4, NEEDS_CSUM, VnetHeader};
use engine::wire::{ether, ipv4, tcp, udp};

/// Payload of a TCP segment with timestamps, in bytes, at an MTU of 1450.
pub const SEGMENT: u16 = 1398;

/// Length of the headers of a TCP super-frame in bytes: Ethernet, IPv4, TCP with timestamps.
pub const TCP_HEADERS: usize = ether::LEN + ipv4::LEN + TCP_LEN;

/// TCP header with the timestamp option (RFC 7323 section 3.2) and two bytes of padding.
const TCP_LEN: usize = tcp::LEN + 12;

/// Who sends to whom.
#[derive(Clone, Copy, Debug)]
pub struct Stations {
    /// Ethernet addresses: source, destination.
    pub macs: [MacAddr; 2],
    /// IPv4 addresses: source, destination.
    pub addrs: [Ipv4Addr; 2],
    /// The source port.
    pub port: u16,
}

impl Stations {
    /// The way back.
    #[must_use]
    pub fn reversed(&self) -> Self {
        let ([here, there], [own, other]) = (self.macs, self.addrs);
        Stations { macs: [there, here], addrs: [other, own], ..*self }
    }
}

/// A UDP datagram with a whole checksum, with `payload` bytes.
pub fn udp_frame(stations: &Stations, payload: usize) -> Vec<u8> {
    let mut transport = [stations.port, 5201, (udp::LEN + payload) as u16, 0].map(u16::to_be_bytes).concat();
    transport.resize(udp::LEN + payload, 0x5a);
    let sum = pseudo(stations, udp::PROTOCOL, transport.len()).bytes(&transport).nonzero_checksum();
    transport[udp::CHECKSUM_OFFSET..udp::CHECKSUM_OFFSET + 2].copy_from_slice(&sum.to_be_bytes());
    packet(stations, udp::PROTOCOL, &transport)
}

/// A TCP super-frame of this many segments with a partial checksum, and what the kernel says of it.
pub fn super_frame(stations: &Stations, segments: usize) -> (VnetHeader, Vec<u8>) {
    let payload = segments * usize::from(SEGMENT);
    let mut transport = vec![0_u8; tcp::LEN];
    transport[..4].copy_from_slice(&[stations.port, 5201].map(u16::to_be_bytes).concat());
    // Data offset in words, then the flags (RFC 9293 section 3.1).
    transport[12..14].copy_from_slice(&[(TCP_LEN as u8 / 4) << 4, tcp::ACK]);
    transport[14..16].copy_from_slice(&512_u16.to_be_bytes());
    // NOP, NOP, timestamps: kind 8, ten bytes.
    transport.extend_from_slice(&[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
    transport.resize(TCP_LEN + payload, 0x5a);
    let sum = pseudo(stations, tcp::PROTOCOL, transport.len()).fold();
    transport[tcp::CHECKSUM_OFFSET..tcp::CHECKSUM_OFFSET + 2].copy_from_slice(&sum.to_be_bytes());
    let vnet = VnetHeader {
        flags: NEEDS_CSUM,
        gso_type: GSO_TCPV4,
        hdr_len: TCP_HEADERS as u16,
        gso_size: SEGMENT,
        csum_start: (ether::LEN + ipv4::LEN) as u16,
        csum_offset: tcp::CHECKSUM_OFFSET as u16,
    };
    (vnet, packet(stations, tcp::PROTOCOL, &transport))
}

fn pseudo(stations: &Stations, protocol: u8, len: usize) -> Sum {
    let [from, to] = stations.addrs.map(|addr| addr.octets());
    Sum::default().bytes(&from).bytes(&to).word(u16::from(protocol)).word(len as u16)
}

fn packet(stations: &Stations, protocol: u8, transport: &[u8]) -> Vec<u8> {
    let [source, destination] = stations.macs;
    let mut header = vec![0x45, 0];
    header.extend_from_slice(&((ipv4::LEN + transport.len()) as u16).to_be_bytes());
    // Identification, don't fragment, time to live.
    header.extend_from_slice(&[0, 7, 0x40, 0, 64, protocol, 0, 0]);
    header.extend(stations.addrs.iter().flat_map(|addr| addr.octets()));
    let sum = Sum::default().bytes(&header).checksum();
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut frame = ether::header(destination, source, ether::IPV4).to_vec();
    frame.extend_from_slice(&header);
    frame.extend_from_slice(transport);
    frame
}

#[cfg(test)]
mod tests {
    use engine::wire::ipv4::Ipv4;

    use super::*;

    const STATIONS: Stations = Stations {
        macs: [MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2])],
        addrs: [Ipv4Addr::new(10, 32, 0, 2), Ipv4Addr::new(10, 32, 0, 3)],
        port: 40_000,
    };

    #[test]
    fn frames_are_sound() {
        let frame = udp_frame(&STATIONS, 64);
        let ip = Ipv4::parse(&frame[ether::LEN..]).unwrap();
        assert!(ip.header_is_intact() && ip.total_len() == 92);
        let transport = &frame[ether::LEN + ipv4::LEN..];
        assert!(pseudo(&STATIONS, udp::PROTOCOL, transport.len()).bytes(transport).is_intact());
        let (vnet, frame) = super_frame(&STATIONS, 45);
        assert_eq!(frame.len(), TCP_HEADERS + 45 * 1398);
        assert!(vnet.is_super() && vnet.needs_csum());
    }
}
