//! Neighbour discovery: who answers, what goes where.

use std::net::{IpAddr, Ipv6Addr};

use super::*;
use crate::wire::icmpv6::{self, Icmpv6};
use crate::wire::ndp;

fn v6(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last)
}

/// A frame with an ICMPv6 message from station `from`.
pub(super) fn icmpv6_frame(
    (from, source): (MacAddr, Ipv6Addr),
    (to, destination): (MacAddr, Ipv6Addr),
    message: &[u8],
) -> Vec<u8> {
    let mut frame = ether::header(to, from, ether::IPV6).to_vec();
    frame.extend([0x60, 0, 0, 0, 0, message.len() as u8, icmpv6::PROTOCOL, 255]);
    frame.extend(source.octets());
    frame.extend(destination.octets());
    frame.extend_from_slice(message);
    frame
}

/// Asks for `target`, as RFC 4861 section 7.2.2 has it: of the target's own group.
fn question(asker: u8, source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let [.., a, b, c] = target.octets();
    let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]);
    let message = [&[icmpv6::SOLICITATION, 0, 0, 0, 0, 0, 0, 0][..], &target.octets()].concat();
    icmpv6_frame((mac(asker), source), (icmpv6::group_mac(group), group), &message)
}

fn pin6(bed: &mut Bed, mac: MacAddr, location: Location, addr: Ipv6Addr) {
    let claim = Claim { version: 1, peer: PEER };
    bed.registry.apply(Update::Pin { vni: NET, mac, claim, location, addrs: vec![addr.into()] });
}

/// A bed where station 1 is behind port 1 and station 5 on the peer, and the gateway has an IPv6 address.
fn bed() -> Bed {
    let mut bed = Bed::new();
    let prefix = |addr: IpAddr, len| IpPrefix { addr, len };
    let gateways = vec![prefix(GATEWAY.into(), 12), prefix(v6(1).into(), 64)];
    bed.registry.apply(Update::SetNetwork {
        vni: NET,
        name: String::new(),
        mtu: 1450,
        sealed: false,
        gateways,
    });
    pin6(&mut bed, mac(1), Location::Port(PortId([1; 8])), v6(7));
    pin6(&mut bed, mac(5), Location::Peer(PEER), v6(5));
    bed
}

/// Who the switch says has the address, and to whom it says so.
fn answer(bed: &mut Bed, frame: &[u8]) -> Option<(MacAddr, MacAddr, Ipv6Addr)> {
    if bed.forward(bed.one, frame) != Verdict::Hairpin {
        return None;
    }
    let reply = bed.switch.reply();
    let ether = Ether::parse(reply).unwrap();
    let message = Icmpv6::parse(ether.payload()).unwrap();
    assert_eq!(message.kind, icmpv6::ADVERTISEMENT);
    let told = ndp::macs(message.kind, message.body).unwrap().next();
    assert_eq!(told, Some(ether.source()));
    Some((ether.source(), ether.destination(), ndp::target(message.body).unwrap()))
}

#[test]
fn known_neighbours_and_the_gateway_are_found() {
    let mut bed = bed();
    let gateway = MacAddr::gateway(NET);
    let cases = [
        (v6(5), mac(5)),
        (ndp::link_local(mac(5)), mac(5)),
        (v6(1), gateway),
        (ndp::link_local(gateway), gateway),
    ];
    for (target, holder) in cases {
        assert_eq!(answer(&mut bed, &question(1, v6(7), target)), Some((holder, mac(1), target)));
        // Whoever wants to take it is told, with everybody, that it is taken.
        let everybody = MacAddr([0x33, 0x33, 0, 0, 0, 1]);
        let told = answer(&mut bed, &question(1, Ipv6Addr::UNSPECIFIED, target));
        assert_eq!(told, Some((holder, everybody, target)));
        // From a remote: the endpoint answers, or the gateway of that host.
        assert_ne!(bed.forward(bed.vtep, &question(9, v6(9), target)), Verdict::Hairpin);
    }
    // Whoever doubts asks the one that it knows: the gateway is here, an endpoint answers for itself.
    let mut doubt = question(1, v6(7), v6(1));
    doubt[..6].copy_from_slice(&gateway.0);
    assert_eq!(answer(&mut bed, &doubt), Some((gateway, mac(1), v6(1))));
    let mut doubt = question(1, v6(7), v6(5));
    doubt[..6].copy_from_slice(&mac(5).0);
    assert_eq!(bed.forward(bed.one, &doubt), Verdict::Unicast(bed.peer));
}

#[test]
fn nobody_is_answered_for_the_own_address_or_an_unknown_one() {
    let mut bed = bed();
    for target in [v6(7), ndp::link_local(mac(1)), v6(77), ndp::link_local(mac(77))] {
        for source in [v6(7), Ipv6Addr::UNSPECIFIED] {
            let verdict = bed.forward(bed.one, &question(1, source, target));
            assert_eq!(verdict, Verdict::Flood(Reach::All), "{source} asks for {target}");
        }
    }
}

#[test]
fn an_announcement_of_what_is_known_goes_to_those_who_were_not_told() {
    let mut bed = bed();
    bed.pin(mac(2), Location::Port(PortId([2; 8])), [10, 32, 0, 2]);
    let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let advertise = |source: u8, target: Ipv6Addr| {
        let message = [&[icmpv6::ADVERTISEMENT, 0, 0, 0, 0x20, 0, 0, 0][..], &target.octets()].concat();
        icmpv6_frame((mac(source), target), (icmpv6::group_mac(all), all), &message)
    };
    let known = [
        advertise(1, v6(7)),
        advertise(1, ndp::link_local(mac(1))),
        arp_request(2, [10, 32, 0, 2], [10, 32, 0, 2]),
    ];
    let unknown = [advertise(1, v6(99)), arp_request(2, [10, 32, 0, 9], [10, 32, 0, 9])];
    let solicit = icmpv6_frame((mac(1), v6(7)), (icmpv6::group_mac(all), all), &[133, 0, 0, 0, 0, 0, 0, 0]);
    for frame in &known {
        assert_eq!(bed.forward(bed.one, frame), Verdict::Flood(Reach::Vteps));
        assert_eq!(bed.flood_within(bed.one, Reach::Vteps), [bed.vtep]);
    }
    assert_eq!(bed.forward(bed.one, &solicit), Verdict::Flood(Reach::Vteps));
    assert_eq!(bed.forward(bed.vtep, &advertise(9, v6(99))), Verdict::Flood(Reach::All));
    for frame in &unknown {
        assert_eq!(bed.forward(bed.one, frame), Verdict::Flood(Reach::All));
    }
    bed.registry.apply(Update::RemoveVtep { vni: NET, addr: addr(2) });
    for frame in &known {
        assert_eq!(bed.forward(bed.one, frame), Verdict::Drop(DropReason::ToldAlready));
    }
    assert_eq!(bed.forward(bed.one, &solicit), Verdict::Drop(DropReason::RouterSolicitation));
}

#[test]
fn nobody_elsewhere_speaks_for_a_local_station_or_the_gateway() {
    let mut bed = bed();
    assert_eq!(bed.forward(bed.vtep, &frame(mac(2), mac(1))), Verdict::Drop(DropReason::LocalSource));
    let gateway = Verdict::Drop(DropReason::GatewaySource);
    assert_eq!(bed.forward(bed.vtep, &frame(mac(1), MacAddr::gateway(NET))), gateway);
    assert_eq!(bed.forward(bed.vtep, &arp_request(9, GATEWAY, GATEWAY)), gateway);
    let message = [&[icmpv6::ADVERTISEMENT, 0, 0, 0, 0x20, 0, 0, 0][..], &v6(1).octets()].concat();
    let told = icmpv6_frame((mac(9), v6(1)), (mac(1), v6(7)), &message);
    assert_eq!(bed.forward(bed.vtep, &told), gateway);
    // A station of another host may be where it wants to be.
    assert_eq!(bed.forward(bed.vtep, &frame(mac(1), mac(5))), Verdict::Unicast(bed.one));
}

#[test]
fn a_fenced_port_is_judged_frame_by_frame() {
    let mut bed = Bed::new();
    let fence = crate::fence::Fence::new(mac(1), &[[10, 32, 0, 7].into()]);
    bed.registry.add_port(PortId([1; 8]), NET, Some(fence));
    bed.pin(mac(5), Location::Peer(PEER), [10, 32, 0, 5]);
    bed.switch.set_tables(bed.registry.tables());
    let from = |source: [u8; 4]| {
        let mut frame = Vec::new();
        let builder = etherparse::PacketBuilder::ethernet2(mac(1).0, mac(5).0);
        builder.ipv4(source, [10, 32, 0, 5], 64).udp(1000, 53).write(&mut frame, &[7; 64]).unwrap();
        frame
    };
    let (own, other) = (from([10, 32, 0, 7]), from([10, 32, 0, 5]));
    let mut foreign = own.clone();
    foreign[6..12].copy_from_slice(&mac(2).0);
    let mut batch = Batch::new();
    // The headers of the stations are the same, so only the first is looked up.
    for bytes in [&own, &other, &own, &foreign, &own] {
        let room = batch.room();
        room[..virtio::LEN].fill(0);
        room[virtio::LEN..virtio::LEN + bytes.len()].copy_from_slice(bytes);
        batch.commit(virtio::LEN + bytes.len()).unwrap();
    }
    let mut classes = Classes::new();
    bed.switch.classify(bed.now, bed.one, NET, &batch, &mut classes);
    let passed: Vec<_> =
        classes.unicast().flat_map(|(_, _, group)| group.iter().map(|routed| routed.slot)).collect();
    assert_eq!(passed, [0, 2, 4]);
    assert_eq!(classes.drops(), [(1, DropReason::SpoofedIp), (3, DropReason::SpoofedMac)]);
    let tables = bed.registry.tables();
    assert_eq!(tables.network(NET).unwrap().learned().get(mac(2), 0), None, "nothing was learned of it");
}
