#![allow(clippy::disallowed_methods, reason = "a test needs some instant to count from")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::*;
use crate::fdb::MAX_AGE_S;
use crate::seam::Update;
use crate::types::{Claim, IpPrefix, Location, MacAddr};

const NET: Vni = Vni::MESH;
const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

fn vni(number: u32) -> Vni {
    Vni::new(number).unwrap()
}

fn peer(number: u8) -> PeerId {
    PeerId([number; 16])
}

fn port(number: u8) -> PortId {
    PortId([number; 8])
}

fn addr(host: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, host], 4789))
}

fn set_network(vni: Vni, mtu: u16, sealed: bool) -> Update {
    Update::SetNetwork { vni, name: String::new(), mtu, sealed, gateways: vec![] }
}

fn set_peer(number: u8, candidates: &[u8], networks: &[Vni]) -> Update {
    let candidates = candidates.iter().map(|&host| addr(host)).collect();
    Update::SetPeer {
        peer: peer(number),
        candidates,
        unadvertised: None,
        networks: networks.to_vec(),
        keys: None,
        trusted: vec![],
    }
}

fn pin(claimant: u8, version: u64, location: Location) -> Update {
    let addrs = vec![IpAddr::from([10, 32, 0, claimant])];
    Update::Pin { vni: NET, mac: MAC, claim: Claim { version, peer: peer(claimant) }, location, addrs }
}

fn registry() -> Registry {
    let mut registry = Registry::new(Instant::now());
    registry.apply(set_network(NET, 1450, false));
    registry
}

fn flood_addrs(tables: &Tables, vni: Vni) -> Vec<SocketAddr> {
    let remotes = tables.network(vni).unwrap().remotes();
    remotes.iter().map(|&remote| tables.remote(remote).unwrap().addr).collect()
}

#[test]
fn who_may_send_what() {
    let mut registry = registry();
    registry.apply(set_network(vni(7), 1450, false));
    registry.apply(set_peer(1, &[1, 11], &[NET, vni(99)]));
    registry.apply(Update::AddVtep { vni: vni(7), addr: addr(2) });
    let tables = registry.tables();
    let of_peer = tables.source(addr(1).ip(), NET).unwrap();
    assert_eq!(tables.source(addr(11).ip(), NET), Ok(of_peer), "any candidate, also without a path");
    assert_eq!(tables.source("::ffff:192.0.2.1".parse().unwrap(), NET), Ok(of_peer));
    assert_eq!(tables.remote(of_peer), None);
    assert_eq!(tables.source(addr(1).ip(), vni(7)), Err(DropReason::NotOnNetwork));
    assert_eq!(tables.source(addr(1).ip(), vni(99)), Err(DropReason::UnknownVni));
    assert_eq!(tables.source(addr(3).ip(), NET), Err(DropReason::UnknownSource));
    let of_vtep = tables.source(addr(2).ip(), vni(7)).unwrap();
    assert_eq!(
        tables.remote(of_vtep),
        Some(&Remote {
            addr: addr(2),
            peer: None,
            spread: true,
            clear: false,
            through: None,
            room: u16::MAX
        })
    );
    assert_eq!(tables.source(addr(2).ip(), NET), Err(DropReason::NotOnNetwork));
}

#[test]
fn only_who_is_where_he_says_is_sent_to_from_other_ports() {
    let mut registry = registry();
    registry.apply(Update::SetPeer {
        peer: peer(1),
        candidates: vec![addr(1), addr(11)],
        unadvertised: Some(addr(11)),
        networks: vec![NET],
        keys: None,
        trusted: vec![],
    });
    let of_peer = registry.tables().source(addr(1).ip(), NET).unwrap();
    for (path, spread) in [(1, true), (11, false), (1, true)] {
        registry.set_path(peer(1), Some(addr(path)));
        let remote = registry.tables().remote(of_peer).copied();
        assert_eq!(
            remote,
            Some(Remote {
                addr: addr(path),
                peer: Some(peer(1)),
                spread,
                clear: false,
                through: None,
                room: u16::MAX
            })
        );
    }
}

#[test]
fn an_address_of_two_peers_is_that_of_the_one_whose_path_it_is() {
    let mut registry = registry();
    registry.apply(set_peer(1, &[1, 17], &[NET]));
    registry.apply(set_peer(2, &[2, 17], &[NET]));
    registry.set_path(peer(2), Some(addr(17)));
    let tables = registry.tables();
    let sender = tables.source(addr(17).ip(), NET).unwrap();
    assert_eq!(tables.remote(sender).unwrap().peer, Some(peer(2)));
}

#[test]
fn floods_go_to_peers_with_a_path_and_to_vteps_each_address_once() {
    let mut registry = registry();
    registry.apply(set_peer(1, &[1], &[NET]));
    registry.apply(set_peer(2, &[2], &[NET]));
    registry.apply(set_peer(3, &[3], &[vni(7)]));
    registry.apply(Update::AddVtep { vni: NET, addr: addr(1) });
    registry.apply(Update::AddVtep { vni: NET, addr: addr(9) });
    for number in [1, 3] {
        registry.set_path(peer(number), Some(addr(number)));
    }
    assert_eq!(flood_addrs(&registry.tables(), NET), [addr(1), addr(9)]);
    registry.set_path(peer(2), Some(addr(2)));
    assert_eq!(flood_addrs(&registry.tables(), NET), [addr(1), addr(2), addr(9)]);
    registry.apply(Update::RemovePeer { peer: peer(1) });
    registry.apply(Update::RemoveVtep { vni: NET, addr: addr(9) });
    assert_eq!(
        flood_addrs(&registry.tables(), NET),
        [addr(2), addr(1)],
        "the VTEP at the peer's address is left"
    );
    assert_eq!(registry.tables().source(addr(9).ip(), NET), Err(DropReason::UnknownSource));
}

#[test]
fn a_path_that_is_no_candidate_any_more_ends() {
    let mut registry = registry();
    registry.apply(set_peer(1, &[1, 2], &[NET]));
    registry.set_path(peer(1), Some(addr(2)));
    registry.apply(set_peer(1, &[2], &[NET]));
    assert_eq!(flood_addrs(&registry.tables(), NET), [addr(2)]);
    registry.apply(set_peer(1, &[1], &[NET]));
    assert!(flood_addrs(&registry.tables(), NET).is_empty());
}

#[test]
fn of_two_claims_the_winner_is_used_until_it_goes() {
    let mut registry = registry();
    let here = registry.add_port(port(1), NET, None);
    registry.apply(pin(1, 1, Location::Port(port(1))));
    registry.apply(pin(2, 2, Location::Peer(peer(2))));
    let tables = registry.tables();
    let pins = tables.network(NET).unwrap().pins();
    assert!(matches!(pins.get(MAC), Some(Some(Port::Remote(_)))));
    assert_eq!(pins.mac_of([10, 32, 0, 2].into()), Some(MAC));
    assert_eq!(pins.mac_of([10, 32, 0, 1].into()), None);
    registry.apply(Update::Unpin { vni: NET, mac: MAC, peer: peer(2) });
    let tables = registry.tables();
    assert_eq!(tables.network(NET).unwrap().pins().get(MAC), Some(Some(Port::Tap(here))));
    registry.apply(Update::Unpin { vni: NET, mac: MAC, peer: peer(1) });
    assert!(registry.tables().network(NET).unwrap().pins().is_empty());
}

#[test]
fn a_pin_to_a_port_waits_for_the_port() {
    let mut registry = registry();
    registry.apply(pin(1, 1, Location::Port(port(1))));
    assert_eq!(registry.tables().network(NET).unwrap().pins().get(MAC), Some(None));
    let index = registry.add_port(port(1), NET, None);
    let tables = registry.tables();
    assert_eq!(tables.network(NET).unwrap().pins().get(MAC), Some(Some(Port::Tap(index))));
    assert_eq!(tables.port(index), Some(&LocalPort { id: port(1), vni: NET, fence: None }));
    registry.remove_port(port(1));
    let tables = registry.tables();
    assert_eq!(tables.network(NET).unwrap().pins().get(MAC), Some(None));
    assert_eq!((tables.port(index), tables.network(NET).unwrap().ports().len()), (None, 0));
}

#[test]
fn pins_and_vteps_may_come_before_their_network() {
    let mut registry = Registry::new(Instant::now());
    registry.apply(pin(1, 1, Location::Peer(peer(1))));
    registry.apply(Update::AddVtep { vni: NET, addr: addr(9) });
    assert!(registry.tables().network(NET).is_none());
    assert_eq!(registry.tables().source(addr(9).ip(), NET), Err(DropReason::UnknownVni));
    registry.apply(set_network(NET, 1450, false));
    let tables = registry.tables();
    assert_eq!(flood_addrs(&tables, NET), [addr(9)]);
    assert_eq!(tables.network(NET).unwrap().pins().len(), 1);
    registry.apply(Update::RemoveNetwork { vni: NET });
    registry.apply(set_network(NET, 1450, false));
    let tables = registry.tables();
    assert!(tables.network(NET).unwrap().pins().is_empty() && flood_addrs(&tables, NET).is_empty());
}

#[test]
fn saying_a_thing_twice_changes_nothing() {
    let mut registry = registry();
    let updates = [
        set_peer(1, &[1], &[NET]),
        Update::AddVtep { vni: NET, addr: addr(9) },
        pin(1, 1, Location::Peer(peer(1))),
        set_network(NET, 1450, false),
    ];
    updates.iter().cloned().for_each(|update| registry.apply(update));
    registry.add_port(port(1), NET, None);
    let tables = registry.tables();
    updates.into_iter().for_each(|update| registry.apply(update));
    registry.add_port(port(1), NET, None);
    registry.apply(Update::Unpin { vni: NET, mac: MAC, peer: peer(5) });
    registry.apply(Update::RemovePeer { peer: peer(5) });
    assert!(Arc::ptr_eq(&tables, &registry.tables()));
}

#[test]
fn what_did_not_change_is_shared() {
    let mut registry = registry();
    registry.apply(pin(1, 1, Location::Peer(peer(1))));
    registry.apply(set_peer(1, &[1], &[NET]));
    let before = registry.tables();
    registry.set_path(peer(1), Some(addr(1)));
    let after = registry.tables();
    let pins = |tables: &Tables| Arc::clone(&tables.networks[&NET].pins);
    assert!(Arc::ptr_eq(&pins(&before), &pins(&after)));
    assert!(Arc::ptr_eq(&before.ports, &after.ports));
    assert!(Arc::ptr_eq(&before.sources, &after.sources));
    registry.apply(set_network(vni(7), 1450, false));
    let network = |tables: &Tables| Arc::clone(&tables.networks[&NET]);
    assert!(Arc::ptr_eq(&network(&after), &network(&registry.tables())));
}

/// However the registry got there, its tables say the same as those of one that was told all at once.
#[test]
fn the_way_does_not_matter() {
    let told = |updates: &[Update], each: bool| {
        let mut registry = registry();
        for update in updates {
            registry.apply(update.clone());
            registry.add_port(port(1), NET, None);
            registry.set_path(peer(1), Some(addr(1)));
            if each {
                registry.tables();
            }
        }
        let tables = registry.tables();
        let network = tables.network(NET).unwrap();
        let senders: Vec<_> = (1..20).map(|host| tables.source(addr(host).ip(), NET)).collect();
        (flood_addrs(&tables, NET), network.pins().get(MAC), network.ports().to_vec(), senders)
    };
    let updates = [
        set_peer(1, &[1, 2], &[NET]),
        pin(1, 1, Location::Peer(peer(1))),
        set_peer(2, &[1, 3], &[NET]),
        Update::AddVtep { vni: NET, addr: addr(9) },
        set_peer(1, &[1], &[vni(7)]),
        pin(2, 2, Location::Port(port(1))),
        set_peer(1, &[4, 1], &[vni(7), NET]),
        Update::RemovePeer { peer: peer(2) },
        Update::RemoveVtep { vni: NET, addr: addr(9) },
        Update::AddVtep { vni: NET, addr: addr(1) },
        set_network(NET, 1418, false),
    ];
    for count in 1..=updates.len() {
        assert_eq!(told(&updates[..count], true), told(&updates[..count], false), "{count} updates");
    }
}

#[test]
fn learned_entries_age_and_go_with_their_port() {
    let start = Instant::now();
    let mut registry = Registry::new(start);
    registry.apply(set_network(NET, 1450, false));
    let index = registry.add_port(port(1), NET, None);
    let tables = registry.tables();
    let network = tables.network(NET).unwrap();
    network.learn(MAC, Port::Tap(index), 0);
    assert_eq!(network.learned().get(MAC, MAX_AGE_S), Some(Port::Tap(index)));
    assert_eq!(network.learned().get(MAC, MAX_AGE_S + 1), None);
    registry.sweep(start + Duration::from_secs(1));
    assert_eq!(network.learned().len(), 1);
    registry.remove_port(port(1));
    registry.sweep(start + Duration::from_secs(2));
    assert!(network.learned().is_empty());
    assert_ne!(registry.add_port(port(2), NET, None), index, "the number still rests");
    registry.sweep(start + Duration::from_secs(3));
    assert_eq!(registry.add_port(port(3), NET, None), index);
}

/// A sealed network, and a peer at 192.0.2.1 that trusts 192.0.2.0/24 as this host does.
fn trusting() -> Registry {
    let mut registry = Registry::new(Instant::now());
    registry.apply(set_network(NET, 1418, true));
    trust(&mut registry, &[1], &[24]);
    registry.set_path(peer(1), Some(addr(1)));
    registry
}

fn trust(registry: &mut Registry, candidates: &[u8], lens: &[u8]) {
    let subnets = lens.iter().map(|&len| IpPrefix { addr: [192, 0, 2, 0].into(), len }).collect();
    let Update::SetPeer { peer, candidates, unadvertised, networks, keys, .. } =
        set_peer(1, candidates, &[NET])
    else {
        return;
    };
    registry.apply(Update::SetPeer { peer, candidates, unadvertised, networks, keys, trusted: subnets });
}

/// Whether frames go in clear to the peer, and whether such frames are taken from its address.
fn in_clear(registry: &mut Registry) -> (bool, bool) {
    let tables = registry.tables();
    let network = tables.network(NET).unwrap();
    let to = tables.source(addr(1).ip(), NET).unwrap();
    assert_eq!(registry.peers_in_clear().contains(&peer(1)), !tables.seals(network, to));
    let takes = |to: [u8; 4]| tables.takes_clear(network, addr(1).ip(), Some(to.into()));
    // Whatever is sent to an address outside of what is trusted may come from anywhere.
    assert!(!takes([198, 51, 100, 9]) && !tables.takes_clear(network, addr(1).ip(), None));
    (!tables.seals(network, to), takes([192, 0, 2, 9]))
}

fn faces(own: [u8; 4]) -> BTreeMap<IpAddr, IpAddr> {
    BTreeMap::from([(addr(1).ip(), own.into())])
}

#[test]
fn frames_go_in_clear_only_where_both_hosts_trust_both_addresses() {
    let mut registry = trusting();
    registry.set_takes_clear(peer(1), true);
    assert_eq!(in_clear(&mut registry), (false, false), "nobody knows where datagrams leave from");
    assert_eq!(registry.trusted_candidates(), BTreeSet::from([addr(1).ip()]));
    assert!(registry.set_sources(faces([198, 51, 100, 1])));
    assert_eq!(in_clear(&mut registry), (false, false), "they leave from elsewhere");
    assert!(registry.set_sources(faces([192, 0, 2, 9])));
    assert_eq!(in_clear(&mut registry), (true, true));
    assert!(!registry.set_sources(faces([192, 0, 2, 9])));
    registry.set_takes_clear(peer(1), false);
    assert_eq!(in_clear(&mut registry), (false, true), "the peer sees it otherwise: sealed wins");
    registry.set_takes_clear(peer(1), true);
    assert_eq!(in_clear(&mut registry), (true, true));
    // One of them trusts less from now on.
    trust(&mut registry, &[1], &[32]);
    assert_eq!(in_clear(&mut registry), (false, false));
    trust(&mut registry, &[1], &[24]);
    assert_eq!(in_clear(&mut registry), (true, true));
    trust(&mut registry, &[1], &[]);
    assert_eq!(in_clear(&mut registry), (false, false));
}

#[test]
fn another_path_is_sealed_until_the_peer_says_that_it_trusts_it() {
    let mut registry = trusting();
    trust(&mut registry, &[1, 2], &[24]);
    registry.set_sources([1, 2].map(|host| (addr(host).ip(), [192, 0, 2, 9].into())).into());
    registry.set_takes_clear(peer(1), true);
    assert_eq!(in_clear(&mut registry), (true, true));
    registry.set_path(peer(1), Some(addr(2)));
    assert_eq!(in_clear(&mut registry), (false, true));
    registry.set_takes_clear(peer(1), true);
    assert_eq!(in_clear(&mut registry), (true, true));
}

#[test]
fn an_address_of_several_hosts_is_trusted_with_all_of_them_or_not_at_all() {
    let mut registry = trusting();
    registry.set_sources(faces([192, 0, 2, 9]));
    registry.set_takes_clear(peer(1), true);
    assert_eq!(in_clear(&mut registry), (true, true));
    registry.apply(set_peer(2, &[1], &[NET]));
    assert!(!in_clear(&mut registry).1);
    registry.apply(Update::RemovePeer { peer: peer(2) });
    assert!(in_clear(&mut registry).1);
}

#[test]
fn a_vtep_has_no_part_in_a_sealed_network() {
    let mut registry = trusting();
    registry.apply(Update::AddVtep { vni: NET, addr: addr(7) });
    assert_eq!(flood_addrs(&registry.tables(), NET), [addr(1)]);
    let tables = registry.tables();
    assert!(!tables.takes_clear(tables.network(NET).unwrap(), addr(7).ip(), Some(addr(9).ip())));
    registry.apply(set_network(NET, 1418, false));
    assert_eq!(flood_addrs(&registry.tables(), NET), [addr(1), addr(7)]);
    registry.apply(set_network(NET, 1418, true));
    assert_eq!(flood_addrs(&registry.tables(), NET), [addr(1)]);
}

#[test]
fn an_address_that_has_another_mac_is_told_once() {
    for address in [IpAddr::from([10, 32, 0, 1]), "fd00::1".parse().unwrap()] {
        let other = MacAddr([2, 0, 0, 0, 0, 2]);
        let at = |mac, version| {
            let (claim, location) = (Claim { version, peer: peer(1) }, Location::Peer(peer(1)));
            Update::Pin { vni: NET, mac, claim, location, addrs: vec![address] }
        };
        let mut registry = registry();
        let mut told = |updates: &[Update]| {
            updates.iter().for_each(|update| registry.apply(update.clone()));
            registry.tables();
            registry.take_moved()
        };
        assert_eq!(told(&[at(MAC, 1)]), [], "nobody has asked for it yet");
        assert_eq!(told(&[at(MAC, 2)]), [], "it is where it was");
        assert_eq!(told(&[Update::Unpin { vni: NET, mac: MAC, peer: peer(1) }]), []);
        let moved = [Moved { vni: NET, addr: address, mac: other }];
        assert_eq!(told(&[at(other, 1)]), moved, "the former holder is remembered");
        assert_eq!(told(&[at(other, 3)]), []);
    }
}

fn fence_of(registry: &mut Registry, index: PortIndex) -> Option<Fence> {
    registry.tables().port(index).unwrap().fence.as_deref().cloned()
}

#[test]
fn a_port_may_send_what_is_pinned_to_it() {
    let mut registry = registry();
    let own: IpAddr = [10, 32, 0, 2].into();
    let made = Fence::new(MAC, &[own]);
    let index = registry.add_port(port(1), NET, Some(made.clone()));
    assert_eq!(fence_of(&mut registry, index), Some(made.clone()), "as its interface was made");
    let pin = |last: u8, location| {
        let claim = Claim { version: 1, peer: peer(1) };
        let addrs = vec![[10, 32, 0, last].into()];
        Update::Pin { vni: NET, mac: MAC, claim, location, addrs }
    };
    registry.apply(pin(9, Location::Port(port(1))));
    let pinned = Fence::new(MAC, &[[10, 32, 0, 9].into()]);
    assert_eq!(fence_of(&mut registry, index), Some(pinned.clone()), "it has got another address");
    // Of two hosts with one MAC address the other wins; this one still sends in its own name only.
    let claim = Claim { version: 9, peer: peer(2) };
    let location = Location::Peer(peer(2));
    registry.apply(Update::Pin { vni: NET, mac: MAC, claim, location, addrs: vec![own] });
    assert_eq!(fence_of(&mut registry, index), Some(pinned));
    registry.apply(Update::Unpin { vni: NET, mac: MAC, peer: peer(1) });
    assert_eq!(fence_of(&mut registry, index), Some(made));
    registry.apply(pin(9, Location::Port(port(1))));
    registry.add_port(port(1), NET, None);
    assert_eq!(fence_of(&mut registry, index), None, "a pin puts no fence where there is none");
    let known = registry.tables();
    assert_eq!(known.judge(index, &[]), Ok(()));
    registry.remove_port(port(1));
    assert_eq!(registry.tables().judge(index, &[]), Err(DropReason::PortGone));
}

#[test]
fn a_network_widens_when_somebody_comes_to_it() {
    let mut registry = registry();
    registry.tables();
    registry.take_widened();
    registry.apply(Update::AddVtep { vni: NET, addr: addr(7) });
    registry.tables();
    assert_eq!(registry.take_widened(), BTreeSet::from([NET]));
    registry.apply(Update::RemoveVtep { vni: NET, addr: addr(7) });
    registry.tables();
    assert_eq!(registry.take_widened(), BTreeSet::new());
}
