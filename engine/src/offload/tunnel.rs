//! Super-frames that leave whole: the outer headers are written once, and the kernel or the card cuts.
//!
//! Where the underlay's device segments tunnelled TCP itself (`tx-udp_tnl-segmentation`), a super-frame need not be
//! cut here: it is handed over behind one virtio-net header that tells the kernel where the outer and the inner
//! headers are (linux/virtio_net.h, `struct virtio_net_hdr_v1_hash_tunnel`, since Linux 6.17). Every segment on the
//! wire is plain VXLAN with an outer checksum of zero, as RFC 7348 section 5 asks for; the checksum inside is
//! completed by whoever cuts.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::headers::Inner;
use crate::types::Vni;
use crate::wire::checksum::Sum;
use crate::wire::virtio::{NEEDS_CSUM, VnetHeader};
use crate::wire::{ether, ipv4, udp, vxlan};

/// Length of `struct virtio_net_hdr_v1_hash_tunnel`: what `TUNSETVNETHDRSZ` is told.
pub const VNET_LEN: usize = 24;

/// The headers around a frame: Ethernet, IPv4, UDP, VXLAN.
const OUTER_LEN: usize = ether::LEN + ipv4::LEN + udp::LEN + vxlan::LEN;

/// Everything that stands before the frame.
pub const HEAD_LEN: usize = VNET_LEN + OUTER_LEN;

/// `VIRTIO_NET_HDR_GSO_UDP_TUNNEL_IPV4`: or-ed into the GSO type (linux/virtio_net.h).
const GSO_UDP_TUNNEL_IPV4: u8 = 0x20;

/// Hops of the outer packet, as Linux has it for its own.
const TTL: u8 = 64;

/// How a remote is reached through a device that cuts tunnelled super-frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Through {
    /// The device, by index.
    pub ifindex: u32,
    /// The address that packets through it are from.
    pub source: Ipv4Addr,
}

/// The outer side of a super-frame.
#[derive(Clone, Copy, Debug)]
pub struct Outer {
    /// Out of which device, and from where.
    pub through: Through,
    /// The UDP port it is from.
    pub source_port: u16,
    /// Where it goes.
    pub to: SocketAddrV4,
    /// On which network.
    pub vni: Vni,
}

/// The virtio-net header and the outer headers that make `frame` whole; the frame follows as it came.
///
/// The outer Ethernet header is no address of a station: its first four bytes are the index of the device, in native
/// order, for the program that sends it there. None for a frame that must be cut here: not TCP, tagged, with segments
/// above `mtu` bytes, or with offsets that are not its own.
pub fn encapsulate(frame: &[u8], vnet: &VnetHeader, mtu: u16, outer: &Outer) -> Option<[u8; HEAD_LEN]> {
    let Ok(Inner::Flow(headers)) = Inner::parse(frame) else { return None };
    let own = vnet.csum_start == headers.l4 && vnet.csum_offset == headers.checksum_offset();
    let segment = usize::from(vnet.gso_size) + headers.packet_headers_len();
    let cuttable = own
        && headers.tcp
        && usize::from(headers.l3) == ether::LEN
        && vnet.kind() == headers.gso_type()
        && headers.payload_len() > usize::from(vnet.gso_size)
        && headers.may_repeat(frame);
    let udp_len = udp::LEN + vxlan::LEN + frame.len();
    let total = u16::try_from(ipv4::LEN + udp_len).ok()?;
    if !cuttable || segment > usize::from(mtu) {
        return None;
    }
    let vnet = VnetHeader {
        flags: NEEDS_CSUM,
        gso_type: vnet.gso_type | GSO_UDP_TUNNEL_IPV4,
        hdr_len: OUTER_LEN as u16 + headers.payload,
        gso_size: vnet.gso_size,
        csum_start: OUTER_LEN as u16 + vnet.csum_start,
        csum_offset: vnet.csum_offset,
    };
    let mut head = [0; HEAD_LEN];
    let (first, rest) = head.split_at_mut(VNET_LEN);
    put_vnet(first, &vnet);
    let (ethernet, rest) = rest.split_at_mut(ether::LEN);
    ethernet[..4].copy_from_slice(&outer.through.ifindex.to_ne_bytes());
    ethernet[ether::LEN - 2..].copy_from_slice(&ether::IPV4.to_be_bytes());
    let (ip, rest) = rest.split_at_mut(ipv4::LEN);
    put_ip(ip, total, outer);
    let (datagram, header) = rest.split_at_mut(udp::LEN);
    datagram[..2].copy_from_slice(&outer.source_port.to_be_bytes());
    datagram[2..4].copy_from_slice(&outer.to.port().to_be_bytes());
    datagram[4..6].copy_from_slice(&(udp_len as u16).to_be_bytes());
    header.copy_from_slice(&vxlan::header(outer.vni));
    Some(head)
}

/// The ten bytes that every virtio-net header has, then the number of buffers and the hash, which mean nothing on
/// what is written, then the two offsets of a tunnel: the outer transport header and the inner network header.
fn put_vnet(bytes: &mut [u8], vnet: &VnetHeader) {
    const OFFSETS: usize = 20;
    let short = vnet.emit();
    bytes[..short.len()].copy_from_slice(&short);
    let transport = (ether::LEN + ipv4::LEN) as u16;
    let inner = (OUTER_LEN + ether::LEN) as u16;
    bytes[OFFSETS..OFFSETS + 2].copy_from_slice(&transport.to_le_bytes());
    bytes[OFFSETS + 2..].copy_from_slice(&inner.to_le_bytes());
}

/// An IPv4 header (RFC 791 section 3.1) that forbids fragments.
fn put_ip(header: &mut [u8], total: u16, outer: &Outer) {
    const DONT_FRAGMENT: u8 = 0x40;
    header[0] = 0x45;
    header[2..4].copy_from_slice(&total.to_be_bytes());
    header[6] = DONT_FRAGMENT;
    header[8] = TTL;
    header[9] = udp::PROTOCOL;
    header[12..16].copy_from_slice(&outer.through.source.octets());
    header[16..20].copy_from_slice(&outer.to.ip().octets());
    let sum = Sum::default().bytes(header).checksum();
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use etherparse::{PacketBuilder, SlicedPacket};

    use super::*;
    use crate::wire::virtio::{GSO_TCPV4, GSO_UDP_L4};

    fn outer() -> Outer {
        Outer {
            through: Through { ifindex: 7, source: "192.0.2.1".parse().unwrap() },
            source_port: 50_000,
            to: "192.0.2.2:4789".parse().unwrap(),
            vni: Vni::MESH,
        }
    }

    fn super_frame(payload: usize) -> (Vec<u8>, VnetHeader) {
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
        let mut frame = Vec::new();
        builder.tcp(1, 2, 3, 4).ack(5).write(&mut frame, &vec![9; payload]).unwrap();
        let vnet = VnetHeader {
            flags: NEEDS_CSUM,
            gso_type: GSO_TCPV4,
            hdr_len: 54,
            gso_size: 1410,
            csum_start: 34,
            csum_offset: 16,
        };
        (frame, vnet)
    }

    #[test]
    fn a_super_frame_stands_behind_sound_outer_headers() {
        let (frame, vnet) = super_frame(30_000);
        let head = encapsulate(&frame, &vnet, 1450, &outer()).unwrap();
        assert_eq!(head[..10], VnetHeader { gso_type: 0x21, hdr_len: 104, csum_start: 84, ..vnet }.emit());
        assert_eq!(head[20..24], [34, 0, 64, 0]);
        assert_eq!(head[24..28], 7_u32.to_ne_bytes());
        let packet = [&head[VNET_LEN..], &frame].concat();
        let sliced = SlicedPacket::from_ethernet(&packet).unwrap();
        let Some(etherparse::NetSlice::Ipv4(ip)) = sliced.net else { panic!("no IPv4") };
        assert_eq!(ip.header().to_header().calc_header_checksum(), ip.header().header_checksum());
        assert!(ip.header().dont_fragment());
        let Some(etherparse::TransportSlice::Udp(datagram)) = sliced.transport else { panic!("no UDP") };
        assert_eq!((datagram.source_port(), datagram.destination_port()), (50_000, 4789));
        assert_eq!((datagram.checksum(), datagram.payload().len()), (0, 8 + frame.len()));
        assert_eq!(vxlan::parse(datagram.payload()), Ok((Vni::MESH, &frame[..])));
    }

    #[test]
    fn what_the_kernel_would_not_cut_as_we_do_is_left_to_us() {
        let (frame, vnet) = super_frame(30_000);
        let refused = |frame: &[u8], vnet, mtu| encapsulate(frame, &vnet, mtu, &outer()).is_none();
        assert!(refused(&frame, vnet, 1449), "segments above the MTU");
        assert!(refused(&frame, VnetHeader { gso_type: GSO_UDP_L4, csum_offset: 6, ..vnet }, 1450));
        assert!(refused(&frame, VnetHeader { csum_start: 35, ..vnet }, 1450), "a sum of something else");
        assert!(refused(&super_frame(1410).0, vnet, 1450), "one segment");
        assert!(refused(&super_frame(65_480).0, vnet, 1450), "no room for the outer headers");
        let tagged = [&frame[..12], &[0x81, 0, 0, 5], &frame[12..]].concat();
        assert!(refused(&tagged, VnetHeader { csum_start: 38, ..vnet }, 1450));
        assert!(refused(&frame[..20], vnet, 1450), "cut short");
    }
}
