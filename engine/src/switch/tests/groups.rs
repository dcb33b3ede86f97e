//! Multicast: who gets what.

use std::net::Ipv6Addr;

use super::neighbours::icmpv6_frame;
use super::*;
use crate::groups::MAX_OF_PORT;
use crate::wire::icmpv6;

const GROUP: [u8; 4] = [239, 1, 2, 3];

fn group_mac(group: [u8; 4]) -> MacAddr {
    MacAddr([1, 0, 0x5e, group[1] & 0x7f, group[2], group[3]])
}

fn ipv4(from: u8, to: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = ether::header(group_mac(to), mac(from), ether::IPV4).to_vec();
    frame.extend([0x45, 0, 0, (20 + payload.len()) as u8, 0, 0, 0, 0, 1, protocol, 0, 0, 10, 32, 0, from]);
    frame.extend(to);
    frame.extend_from_slice(payload);
    frame
}

fn stream(from: u8) -> Vec<u8> {
    ipv4(from, GROUP, 17, &[0x10, 0, 0x10, 0, 0, 16, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8])
}

fn join(from: u8, group: [u8; 4]) -> Vec<u8> {
    let [a, b, c, d] = group;
    ipv4(from, group, 2, &[0x16, 0, 0, 0, a, b, c, d])
}

fn leave(from: u8) -> Vec<u8> {
    let [a, b, c, d] = GROUP;
    ipv4(from, [224, 0, 0, 2], 2, &[0x17, 0, 0, 0, a, b, c, d])
}

const MEMBERS: Verdict =
    Verdict::Flood(Reach::Members(std::net::IpAddr::V4(std::net::Ipv4Addr::new(239, 1, 2, 3))));
const REPORTED: Verdict = Verdict::Drop(DropReason::GroupReport);
const NOBODY: Verdict = Verdict::Drop(DropReason::NoMember);

/// Without a VTEP, which gets everything.
fn bed() -> Bed {
    let mut bed = Bed::new();
    bed.registry.apply(Update::RemoveVtep { vni: NET, addr: addr(2) });
    bed
}

fn members(bed: &Bed, from: Port) -> Vec<Port> {
    bed.flood_within(from, Reach::Members(GROUP.into()))
}

#[test]
fn a_group_is_for_those_who_joined_it() {
    let mut bed = bed();
    assert_eq!(bed.forward(bed.one, &stream(1)), NOBODY);
    // What a container joins other hosts are told, and its own neighbours are not.
    assert_eq!(bed.forward(bed.two, &join(2, GROUP)), Verdict::Flood(Reach::Remotes));
    assert_eq!(bed.flood_within(bed.two, Reach::Remotes), [bed.peer]);
    assert_eq!((bed.forward(bed.one, &stream(1)), members(&bed, bed.one)), (MEMBERS, vec![bed.two]));
    // A member alone hears nobody.
    assert_eq!(bed.forward(bed.two, &stream(2)), NOBODY);
    assert_eq!(bed.forward(bed.peer, &join(9, GROUP)), REPORTED);
    assert_eq!((bed.forward(bed.two, &stream(2)), members(&bed, bed.two)), (MEMBERS, vec![bed.peer]));
    assert_eq!(members(&bed, bed.one), [bed.two, bed.peer]);
    assert_eq!((bed.forward(bed.peer, &stream(9)), members(&bed, bed.peer)), (MEMBERS, vec![bed.two]));
    // The last one that leaves is told.
    bed.forward(bed.one, &join(1, GROUP));
    assert_eq!(bed.forward(bed.one, &leave(1)), REPORTED);
    assert_eq!(bed.forward(bed.two, &leave(2)), Verdict::Flood(Reach::Remotes));
    assert_eq!(bed.forward(bed.peer, &leave(9)), REPORTED);
    assert_eq!(bed.forward(bed.one, &stream(1)), NOBODY);
}

#[test]
fn a_vtep_gets_every_group_and_a_member_behind_it_is_no_news_for_hosts() {
    let mut bed = Bed::new();
    assert_eq!((bed.forward(bed.one, &stream(1)), members(&bed, bed.one)), (MEMBERS, vec![bed.vtep]));
    assert_eq!(bed.forward(bed.vtep, &join(9, GROUP)), REPORTED);
    assert_eq!(members(&bed, bed.peer), []);
    assert_eq!(bed.forward(bed.peer, &stream(9)), NOBODY);
}

#[test]
fn groups_of_the_link_are_for_everybody_and_their_reports_for_nobody() {
    let mut bed = Bed::new();
    assert_eq!(bed.forward(bed.one, &ipv4(1, [224, 0, 0, 251], 17, &[0; 16])), Verdict::Flood(Reach::All));
    assert_eq!(bed.forward(bed.one, &join(1, [224, 0, 0, 251])), REPORTED);
    let (own, all) = (crate::wire::ndp::link_local(mac(1)), Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16));
    let report = |group: Ipv6Addr| {
        let message = [&[143, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0][..], &group.octets()].concat();
        icmpv6_frame((mac(1), own), (icmpv6::group_mac(all), all), &message)
    };
    let solicited: Ipv6Addr = "ff02::1:ff00:1".parse().unwrap();
    assert_eq!(bed.forward(bed.one, &report(solicited)), REPORTED);
    assert!(bed.registry.tables().network(NET).unwrap().groups().is_empty());
    let site: Ipv6Addr = "ff05::77".parse().unwrap();
    assert_eq!(bed.forward(bed.one, &report(site)), Verdict::Flood(Reach::Remotes));
    let frame = icmpv6_frame((mac(2), own), (icmpv6::group_mac(site), site), &[128, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bed.forward(bed.two, &frame), Verdict::Flood(Reach::Members(site.into())));
    assert_eq!(bed.flood_within(bed.two, Reach::Members(site.into())), [bed.one, bed.vtep]);
}

#[test]
fn a_port_joins_only_so_many_groups_and_what_it_left_behind_ends() {
    let mut bed = bed();
    for number in 0..MAX_OF_PORT as u8 {
        assert_eq!(bed.forward(bed.one, &join(1, [239, 9, 0, number])), Verdict::Flood(Reach::Remotes));
    }
    assert_eq!(bed.forward(bed.one, &join(1, GROUP)), Verdict::Drop(DropReason::GroupLimit));
    assert_eq!(bed.forward(bed.two, &join(2, GROUP)), Verdict::Flood(Reach::Remotes));
    bed.now += Duration::from_secs(200);
    bed.forward(bed.two, &join(2, GROUP));
    bed.now += Duration::from_secs(100);
    bed.registry.sweep(bed.now);
    assert_eq!(bed.registry.joined_ports(NET).into_iter().map(Port::Tap).collect::<Vec<_>>(), [bed.two]);
    bed.registry.remove_port(PortId([2; 8]));
    bed.registry.sweep(bed.now);
    assert!(bed.registry.joined_ports(NET).is_empty());
}

#[test]
fn a_storm_of_a_group_is_limited_by_what_it_is_on_the_wire() {
    let mut bed = bed();
    bed.forward(bed.two, &join(2, GROUP));
    let large = ipv4(1, GROUP, 17, &[0; 200]);
    let large = [&large[..], &vec![7; 60_000]].concat();
    let admitted = (0..1000).take_while(|_| bed.forward(bed.one, &large) == MEMBERS).count();
    assert!((40..60).contains(&admitted), "{admitted} super-frames");
    assert_eq!(bed.forward(bed.one, &large), Verdict::Drop(DropReason::StormLimit));
}
