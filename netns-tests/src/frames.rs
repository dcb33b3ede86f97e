//! Bytes made by hand, for what no well-behaved sender sends.

use std::net::Ipv4Addr;

use etherparse::PacketBuilder;

/// The VXLAN header for a network number (RFC 7348 section 5).
pub fn vxlan_header(vni: u32) -> [u8; 8] {
    let [_, a, b, c] = vni.to_be_bytes();
    [0x08, 0, 0, 0, a, b, c, 0]
}

/// A frame behind a VXLAN header.
pub fn vxlan(vni: u32, frame: &[u8]) -> Vec<u8> {
    [&vxlan_header(vni), frame].concat()
}

/// An Ethernet frame of this type with this payload.
pub fn ethernet(to: [u8; 6], from: [u8; 6], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &ethertype.to_be_bytes(), payload].concat()
}

/// A whole frame with an ICMP echo request in it.
pub fn icmp_echo(to: ([u8; 6], Ipv4Addr), from: ([u8; 6], Ipv4Addr), payload: &[u8]) -> Vec<u8> {
    let packet = PacketBuilder::ethernet2(from.0, to.0).ipv4(from.1.octets(), to.1.octets(), 64);
    let packet = packet.icmpv4_echo_request(1, 1);
    let mut frame = Vec::with_capacity(packet.size(payload.len()));
    // Writing to memory cannot fail, and a payload too long for IPv4 is the test's mistake.
    if packet.write(&mut frame, payload).is_err() {
        frame.clear();
    }
    frame
}
