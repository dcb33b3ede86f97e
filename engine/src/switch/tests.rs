#![allow(clippy::disallowed_methods, reason = "a test needs some instant to count from")]

mod groups;
mod neighbours;

use std::net::SocketAddr;
use std::time::Duration;

use super::*;
use crate::seam::Update;
use crate::tables::Registry;
use crate::types::{Claim, IpPrefix, Location, PeerId, PortId};
use crate::wire::{arp, virtio};

const NET: Vni = Vni::MESH;
const PEER: PeerId = PeerId([9; 16]);
const GATEWAY: [u8; 4] = [10, 32, 0, 1];

fn mac(last: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, last])
}

fn addr(host: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, host], 4789))
}

fn frame(destination: MacAddr, source: MacAddr) -> Vec<u8> {
    let mut frame = ether::header(destination, source, ether::IPV4).to_vec();
    frame.extend_from_slice(&[0; 46]);
    frame
}

/// Two local ports, a peer with a path, a VTEP.
struct Bed {
    registry: Registry,
    switch: Switch,
    now: Instant,
    one: Port,
    two: Port,
    peer: Port,
    vtep: Port,
}

impl Bed {
    fn new() -> Self {
        let now = Instant::now();
        let mut registry = Registry::new(now);
        let gateways = vec![IpPrefix { addr: GATEWAY.into(), len: 12 }];
        registry.apply(Update::SetNetwork {
            vni: NET,
            name: String::new(),
            mtu: 1450,
            sealed: false,
            gateways,
        });
        registry.apply(Update::SetPeer {
            peer: PEER,
            candidates: vec![addr(1)],
            unadvertised: None,
            networks: vec![NET],
            keys: None,
            trusted: vec![],
        });
        registry.apply(Update::AddVtep { vni: NET, addr: addr(2) });
        registry.set_path(PEER, Some(addr(1)));
        let one = Port::Tap(registry.add_port(PortId([1; 8]), NET, None));
        let two = Port::Tap(registry.add_port(PortId([2; 8]), NET, None));
        let tables = registry.tables();
        let peer = Port::Remote(tables.source(addr(1).ip(), NET).unwrap());
        let vtep = Port::Remote(tables.source(addr(2).ip(), NET).unwrap());
        Bed { registry, switch: Switch::new(tables), now, one, two, peer, vtep }
    }

    fn forward(&mut self, from: Port, frame: &[u8]) -> Verdict {
        self.switch.set_tables(self.registry.tables());
        self.switch.forward(self.now, from, NET, frame)
    }

    fn pin(&mut self, mac: MacAddr, location: Location, ip: [u8; 4]) {
        let claim = Claim { version: 1, peer: PEER };
        self.registry.apply(Update::Pin { vni: NET, mac, claim, location, addrs: vec![ip.into()] });
    }

    fn flood(&self, from: Port) -> Vec<Port> {
        self.flood_within(from, Reach::All)
    }

    fn flood_within(&self, from: Port, reach: Reach) -> Vec<Port> {
        let (ports, remotes) = self.switch.flood(from, NET, reach);
        ports.map(Port::Tap).chain(remotes.map(Port::Remote)).collect()
    }
}

#[test]
fn a_station_is_learned_and_moves() {
    let mut bed = Bed::new();
    assert_eq!(bed.forward(bed.one, &frame(mac(2), mac(1))), Verdict::Flood(Reach::All));
    assert_eq!(bed.forward(bed.vtep, &frame(mac(1), mac(2))), Verdict::Unicast(bed.one));
    assert_eq!(bed.forward(bed.one, &frame(mac(2), mac(1))), Verdict::Unicast(bed.vtep));
    assert_eq!(bed.forward(bed.two, &frame(mac(2), mac(1))), Verdict::Unicast(bed.vtep));
    assert_eq!(bed.forward(bed.vtep, &frame(mac(1), mac(2))), Verdict::Unicast(bed.two));
}

#[test]
fn a_learned_station_is_forgotten_after_five_minutes_or_with_its_port() {
    let mut bed = Bed::new();
    bed.forward(bed.one, &frame(MacAddr::BROADCAST, mac(1)));
    bed.now += Duration::from_secs(300);
    assert_eq!(bed.forward(bed.two, &frame(mac(1), mac(2))), Verdict::Unicast(bed.one));
    bed.now += Duration::from_secs(1);
    assert_eq!(bed.forward(bed.two, &frame(mac(1), mac(2))), Verdict::Flood(Reach::All));
    bed.forward(bed.one, &frame(MacAddr::BROADCAST, mac(1)));
    bed.registry.remove_port(PortId([1; 8]));
    assert_eq!(bed.forward(bed.two, &frame(mac(1), mac(2))), Verdict::Flood(Reach::All));
}

#[test]
fn floods_keep_to_the_split_horizon() {
    let mut bed = Bed::new();
    assert_eq!(bed.forward(bed.one, &frame(MacAddr::BROADCAST, mac(1))), Verdict::Flood(Reach::All));
    assert_eq!(bed.flood(bed.one), [bed.two, bed.peer, bed.vtep]);
    assert_eq!(bed.flood(bed.peer), [bed.one, bed.two]);
    assert!(bed.switch.flood(bed.one, Vni::new(5).unwrap(), Reach::All).0.next().is_none());
    // One remote's station, asked for by another: that host reaches it directly.
    bed.forward(bed.peer, &frame(MacAddr::BROADCAST, mac(3)));
    assert_eq!(bed.forward(bed.vtep, &frame(mac(3), mac(4))), Verdict::Drop(DropReason::SplitHorizon));
}

#[test]
fn frames_that_go_nowhere_have_a_reason() {
    let mut bed = Bed::new();
    let drop_of = |bed: &mut Bed, from, bytes: &[u8]| match bed.forward(from, bytes) {
        Verdict::Drop(reason) => reason,
        other => panic!("{other:?}"),
    };
    let (one, two) = (bed.one, bed.two);
    assert_eq!(drop_of(&mut bed, one, &[0; 13]), DropReason::Runt);
    assert_eq!(drop_of(&mut bed, one, &frame(mac(2), MacAddr::BROADCAST)), DropReason::GroupSource);
    assert_eq!(drop_of(&mut bed, one, &frame(mac(2), MacAddr::default())), DropReason::GroupSource);
    assert_eq!(drop_of(&mut bed, one, &frame(mac(2), MacAddr::gateway(NET))), DropReason::GatewaySource);
    let lldp = MacAddr([0x01, 0x80, 0xc2, 0, 0, 0x0e]);
    assert_eq!(drop_of(&mut bed, one, &frame(lldp, mac(1))), DropReason::ReservedGroup);
    assert_eq!(drop_of(&mut bed, one, &frame(mac(1), mac(1))), DropReason::HairpinSamePort);
    assert_eq!(
        bed.switch.forward(bed.now, two, Vni::new(7).unwrap(), &frame(mac(1), mac(2))),
        Verdict::Drop(DropReason::UnknownVni)
    );
    bed.pin(mac(8), Location::Peer(PeerId([7; 16])), [10, 32, 0, 8]);
    bed.pin(mac(7), Location::Port(PortId([7; 8])), [10, 32, 0, 7]);
    assert_eq!(drop_of(&mut bed, one, &frame(mac(8), mac(1))), DropReason::NoPath);
    assert_eq!(drop_of(&mut bed, one, &frame(mac(7), mac(1))), DropReason::PortGone);
}

#[test]
fn a_pinned_station_is_where_it_was_told() {
    let mut bed = Bed::new();
    bed.forward(bed.vtep, &frame(MacAddr::BROADCAST, mac(5)));
    bed.pin(mac(5), Location::Peer(PEER), [10, 32, 0, 5]);
    assert_eq!(bed.forward(bed.one, &frame(mac(5), mac(1))), Verdict::Unicast(bed.peer));
    bed.forward(bed.two, &frame(MacAddr::BROADCAST, mac(5)));
    assert_eq!(bed.forward(bed.one, &frame(mac(5), mac(1))), Verdict::Unicast(bed.peer));
}

#[test]
fn floods_of_one_port_are_limited() {
    let mut bed = Bed::new();
    let limited = Verdict::Drop(DropReason::StormLimit);
    while bed.forward(bed.one, &frame(MacAddr::BROADCAST, mac(1))) != limited {}
    assert_eq!(bed.forward(bed.two, &frame(MacAddr::BROADCAST, mac(2))), Verdict::Flood(Reach::All));
    assert_eq!(bed.forward(bed.one, &frame(mac(2), mac(1))), Verdict::Unicast(bed.two));
    bed.now += Duration::from_secs(1);
    assert_eq!(bed.forward(bed.one, &frame(MacAddr::BROADCAST, mac(1))), Verdict::Flood(Reach::All));
}

fn arp_request(asker: u8, sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let mut frame = ether::header(MacAddr::BROADCAST, mac(asker), ether::ARP).to_vec();
    frame.extend_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend_from_slice(&mac(asker).0);
    frame.extend_from_slice(&sender);
    frame.extend_from_slice(&[0; 6]);
    frame.extend_from_slice(&target);
    frame
}

#[test]
fn arp_is_answered_for_told_endpoints_but_not_for_the_askers_own_address() {
    let mut bed = Bed::new();
    bed.pin(mac(5), Location::Peer(PEER), [10, 32, 0, 5]);
    bed.pin(mac(1), Location::Port(PortId([1; 8])), [10, 32, 0, 7]);
    let question = arp_request(1, [10, 32, 0, 7], [10, 32, 0, 5]);
    assert_eq!(bed.forward(bed.one, &question), Verdict::Hairpin);
    let reply = *bed.switch.reply();
    assert_eq!(Ether::parse(&reply).unwrap().destination(), mac(1));
    let answer = arp::Arp::parse(&reply[ether::LEN..]).unwrap();
    assert_eq!((answer.sender_mac, answer.sender_ip.octets()), (mac(5), [10, 32, 0, 5]));
    // From a remote: the endpoint answers for itself.
    let question = arp_request(9, [10, 32, 0, 9], [10, 32, 0, 5]);
    assert_eq!(bed.forward(bed.vtep, &question), Verdict::Flood(Reach::All));
    // Own address asked for and probed, unknown address.
    for (sender, target) in
        [([10, 32, 0, 9], [10, 32, 0, 7]), ([0; 4], [10, 32, 0, 7]), ([10, 32, 0, 7], [10, 32, 0, 6])]
    {
        assert_eq!(
            bed.forward(bed.one, &arp_request(1, sender, target)),
            Verdict::Flood(Reach::All),
            "{sender:?} {target:?}"
        );
    }
}

/// Who answers a question of station 1 by ARP, if the switch does.
fn answered_by(bed: &mut Bed, question: &[u8]) -> Option<(MacAddr, [u8; 4])> {
    assert_eq!(bed.forward(bed.one, question), Verdict::Hairpin);
    let reply = bed.switch.reply();
    let answer = arp::Arp::parse(&reply[ether::LEN..])?;
    (answer.target_ip.octets() == question[28..32]).then_some((answer.sender_mac, answer.sender_ip.octets()))
}

#[test]
fn the_gateway_is_found_and_its_address_is_taken() {
    let mut bed = Bed::new();
    bed.pin(mac(1), Location::Port(PortId([1; 8])), [10, 32, 0, 7]);
    let gateway = Some((MacAddr::gateway(NET), GATEWAY));
    let mut question = arp_request(1, [10, 32, 0, 7], GATEWAY);
    assert_eq!(answered_by(&mut bed, &question), gateway);
    assert_eq!(answered_by(&mut bed, &arp_request(1, [0; 4], GATEWAY)), gateway, "a probe for duplicates");
    // A neighbour that doubts asks the one it knows.
    question[..6].copy_from_slice(&MacAddr::gateway(NET).0);
    assert_eq!(answered_by(&mut bed, &question), gateway);
    // From a remote it is a question for the gateway of that host.
    assert_ne!(bed.forward(bed.peer, &question), Verdict::Hairpin);
}

#[test]
fn an_address_that_another_has_is_taken() {
    let mut bed = Bed::new();
    bed.pin(mac(5), Location::Peer(PEER), [10, 32, 0, 5]);
    assert_eq!(
        answered_by(&mut bed, &arp_request(1, [0; 4], [10, 32, 0, 5])),
        Some((mac(5), [10, 32, 0, 5])),
        "by its holder, whether or not that can be reached"
    );
}

#[test]
fn a_batch_is_sorted_by_what_is_to_be_done() {
    let mut bed = Bed::new();
    bed.pin(mac(5), Location::Peer(PEER), [10, 32, 0, 5]);
    bed.forward(bed.two, &frame(MacAddr::BROADCAST, mac(2)));
    let mut batch = Batch::new();
    let frames = [
        frame(mac(5), mac(1)),
        frame(mac(2), mac(1)),
        frame(mac(3), mac(1)),
        arp_request(1, [10, 32, 0, 1], [10, 32, 0, 5]),
        frame(mac(5), mac(1)),
        frame(mac(5), MacAddr::BROADCAST),
    ];
    for bytes in &frames {
        let room = batch.room();
        room[..virtio::LEN].fill(0);
        room[virtio::LEN..virtio::LEN + bytes.len()].copy_from_slice(bytes);
        batch.commit(virtio::LEN + bytes.len()).unwrap();
    }
    let mut classes = Classes::new();
    bed.switch.classify(bed.now, bed.one, NET, &batch, &mut classes);
    let unicast: Vec<_> = classes
        .unicast()
        .map(|(to, _, group)| (to, group.iter().map(|routed| routed.slot).collect::<Vec<_>>()))
        .collect();
    assert_eq!(unicast, [(bed.two, vec![1]), (bed.peer, vec![0, 4])]);
    assert_eq!(classes.floods().iter().map(|flooded| flooded.slot).collect::<Vec<_>>(), [2]);
    assert_eq!(classes.drops(), [(5, DropReason::GroupSource)]);
    assert_eq!(classes.replies().len(), 1);
}

#[test]
fn a_flood_of_forged_sources_fills_only_so_much() {
    let mut bed = Bed::new();
    bed.forward(bed.two, &frame(MacAddr::BROADCAST, mac(2)));
    for i in 0..20_000_u32 {
        let [_, a, b, c] = i.to_be_bytes();
        bed.forward(bed.one, &frame(mac(2), MacAddr([2, 1, 1, a, b, c])));
    }
    let tables = bed.registry.tables();
    assert_eq!(tables.network(NET).unwrap().learned().len(), crate::fdb::MAX_LEARNED);
    assert_eq!(bed.forward(bed.one, &frame(mac(2), mac(1))), Verdict::Unicast(bed.two));
}

#[test]
fn frames_for_another_host_leave_from_the_port_of_their_flow() {
    let mut bed = Bed::new();
    bed.pin(mac(9), Location::Peer(PEER), [10, 0, 0, 9]);
    bed.switch.set_tables(bed.registry.tables());
    let mut batch = Batch::new();
    for connection in [1u8, 2, 3, 1, 2, 3, 1, 2, 3] {
        let builder = etherparse::PacketBuilder::ethernet2(mac(1).0, mac(9).0)
            .ipv4([10, 0, 0, 1], [10, 0, 0, 9], 64)
            .tcp(u16::from(connection) * 1000, 80, 1, 100);
        let mut frame = vec![0; virtio::LEN];
        builder.write(&mut frame, &[connection; 100]).unwrap();
        batch.room()[..frame.len()].copy_from_slice(&frame);
        batch.commit(frame.len()).unwrap();
    }
    let mut classes = Classes::new();
    bed.switch.classify(bed.now, bed.one, NET, &batch, &mut classes);
    let mut groups: Vec<Vec<u16>> =
        classes.unicast().map(|(_, _, group)| group.iter().map(|routed| routed.slot).collect()).collect();
    groups.sort_unstable();
    assert_eq!(groups, [[0, 3, 6], [1, 4, 7], [2, 5, 8]], "each connection apart and in order");
    assert!(classes.unicast().all(|(to, source, _)| to == bed.peer && source.pooled().is_some()));

    let mut plain = Switch::new(bed.registry.tables()).with_source_ports(0);
    plain.classify(bed.now, bed.one, NET, &batch, &mut classes);
    assert_eq!(
        classes.unicast().map(|(_, source, group)| (source, group.len())).collect::<Vec<_>>(),
        [(SourcePort::DATA, 9)]
    );
}
