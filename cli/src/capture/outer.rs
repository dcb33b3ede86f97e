//! The headers that stood before a datagram on the wire, made again: the kernel took them off, or puts them on later.

use std::net::{IpAddr, SocketAddr};

/// Bytes of a UDP header.
const UDP_LEN: usize = 8;
const UDP: u8 = 17;
/// As the kernel sends them.
const HOPS: u8 = 64;
const DONT_FRAGMENT: [u8; 2] = [0x40, 0];

/// An IP and a UDP header for a payload of `len` bytes. The UDP checksum is 0, which means none: what was captured
/// may be cut short, so that none can be computed. Of two families the wildcard stands for the missing address.
pub(crate) fn headers(from: SocketAddr, to: SocketAddr, len: usize) -> Vec<u8> {
    let udp_len = (UDP_LEN + len) as u16;
    let mut out = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ipv4(from.octets(), to.octets(), udp_len),
        (from, to) => ipv6(octets(from), octets(to), udp_len),
    };
    for word in [from.port(), to.port(), udp_len, 0] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    out
}

fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// RFC 791 section 3.1.
fn ipv4(from: [u8; 4], to: [u8; 4], udp_len: u16) -> Vec<u8> {
    let total = udp_len.saturating_add(20).to_be_bytes();
    let [high, low] = DONT_FRAGMENT;
    let mut out = vec![0x45, 0, total[0], total[1], 0, 0, high, low, HOPS, UDP, 0, 0];
    out.extend_from_slice(&from);
    out.extend_from_slice(&to);
    let words = out.chunks_exact(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
    if let Some(field) = out.get_mut(10..12) {
        field.copy_from_slice(&checksum.to_be_bytes());
    }
    out
}

/// RFC 8200 section 3.
fn ipv6(from: [u8; 16], to: [u8; 16], udp_len: u16) -> Vec<u8> {
    let len = udp_len.to_be_bytes();
    let mut out = vec![0x60, 0, 0, 0, len[0], len[1], UDP, HOPS];
    out.extend_from_slice(&from);
    out.extend_from_slice(&to);
    out
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    use super::*;

    fn check(from: &str, to: &str) {
        let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
        let packet = [headers(from, to, 5), b"hello".to_vec()].concat();
        let sliced = SlicedPacket::from_ip(&packet).unwrap();
        match sliced.net.unwrap() {
            NetSlice::Ipv4(ip) => {
                let header = ip.header().to_header();
                assert_eq!(header.calc_header_checksum(), header.header_checksum);
                assert_eq!(IpAddr::from(header.source), from.ip());
                assert_eq!(IpAddr::from(header.destination), to.ip());
            }
            NetSlice::Ipv6(ip) => {
                assert_eq!(IpAddr::from(ip.header().source_addr()), from.ip());
                assert_eq!(IpAddr::from(ip.header().destination_addr()), to.ip());
            }
            NetSlice::Arp(_) => panic!("no IP"),
        }
        let Some(TransportSlice::Udp(udp)) = sliced.transport else { panic!("no UDP") };
        assert_eq!((udp.source_port(), udp.destination_port()), (from.port(), to.port()));
        assert_eq!((udp.payload(), udp.checksum()), (b"hello".as_slice(), 0));
    }

    #[test]
    fn etherparse_reads_them() {
        check("192.0.2.1:40000", "198.51.100.255:4789");
        check("[2001:db8::1]:4789", "[2001:db8::2]:4789");
    }
}
