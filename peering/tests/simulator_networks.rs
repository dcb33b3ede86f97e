//! Promises about networks, each with several hosts under a virtual clock.

#![allow(clippy::expect_used, clippy::print_stdout, reason = "a simulator is test code as a whole")]

mod sim;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use engine::types::{NetworkId, PeerId, PortId, Vni};
use peering::mesh::{MESH_NETWORK, MeshEvent, NetworkError, NetworkSpec, NetworkView, RequestId, SubnetSpec};
use rand::RngExt;
use rand::seq::IndexedRandom;
use sim::{Launch, Loss, World};

const SECOND: Duration = Duration::from_secs(1);

fn named(name: &str) -> NetworkSpec {
    NetworkSpec { name: name.to_owned(), ..NetworkSpec::default() }
}

fn with_subnets(name: &str, subnets: &[&str]) -> NetworkSpec {
    let subnets = subnets.iter().map(|subnet| SubnetSpec::new(subnet.parse().expect("a subnet")));
    NetworkSpec { subnets: subnets.collect(), ..named(name) }
}

fn create(world: &mut World, number: usize, spec: NetworkSpec) -> NetworkView {
    let request = world.create_network(number, spec);
    let view = world.await_network(number, request).expect("a network");
    world.run(SECOND);
    view
}

fn refused(world: &mut World, number: usize, spec: NetworkSpec) -> NetworkError {
    let request = world.create_network(number, spec);
    world.await_network(number, request).expect_err("no network")
}

fn attach(world: &mut World, number: usize, network: NetworkId, wanted: &[&str]) -> (RequestId, Vec<IpAddr>) {
    let request = world.attach_on(number, network, wanted);
    let addrs = world.await_answer(request).expect("addresses");
    (request, addrs.iter().map(|prefix| prefix.addr).collect())
}

/// What a host shows of networks besides who uses them.
fn shown(world: &World, number: usize) -> BTreeMap<NetworkId, (String, Vni)> {
    world.networks(number).into_iter().map(|view| (view.id, (view.name, view.vni))).collect()
}

fn kinds(world: &World, number: usize) -> BTreeSet<&'static str> {
    let kind = |event: &MeshEvent| match event {
        MeshEvent::Notice { kind, .. } => Some(*kind),
        _ => None,
    };
    world.hosts[number].events.iter().filter_map(kind).collect()
}

/// Everybody agrees, on the networks too, and no two containers of a network have one address.
fn unsettled(world: &World) -> Option<String> {
    if !world.agree() {
        return Some("the hosts do not agree".to_owned());
    }
    let running = world.running();
    let all: BTreeSet<_> = running.iter().map(|&number| Vec::from_iter(shown(world, number))).collect();
    if all.len() != 1 {
        return Some(format!("networks are shown otherwise: {all:?}"));
    }
    let duplicates = world.live_duplicates();
    if !duplicates.is_empty() {
        return Some(format!("addresses have two holders: {duplicates:?}"));
    }
    running.iter().find_map(|&number| misplaced(world, number).or_else(|| misled(world, number)))
}

/// A container whose network is not there, or with an address of another one.
fn misplaced(world: &World, number: usize) -> Option<String> {
    let networks: BTreeMap<_, _> = world.networks(number).into_iter().map(|view| (view.id, view)).collect();
    let endpoints = world.hosts[number].ports.values().map(|(_, endpoint)| endpoint);
    endpoints.into_iter().find_map(|endpoint| {
        let Some(view) = networks.get(&endpoint.network) else {
            return Some(format!("{number} has {endpoint:?} on no network"));
        };
        let inside = |addr: IpAddr| view.subnets.iter().any(|subnet| subnet.subnet.contains(&addr));
        let outside = endpoint.addresses.iter().find(|prefix| !inside(prefix.addr));
        outside.map(|prefix| format!("{number} has {} outside of {view:?}", prefix.addr))
    })
}

/// What the daemon of a host was told of endpoints is what there is on the networks that it uses.
fn misled(world: &World, number: usize) -> Option<String> {
    let mut told: BTreeMap<(PeerId, PortId), Vni> = BTreeMap::new();
    let host = &world.hosts[number];
    for event in &host.events[host.told_before..] {
        match event {
            MeshEvent::EndpointUp(view) => drop(told.insert((view.peer, view.endpoint.port), view.vni)),
            MeshEvent::EndpointDown { peer, port, .. } => drop(told.remove(&(*peer, *port))),
            _ => {}
        }
    }
    let me = world.hosts[number].peer_id();
    let used: BTreeSet<NetworkId> =
        world.networks(number).into_iter().filter(|view| view.is_used_by(me)).map(|view| view.id).collect();
    let endpoints = world.hosts[number].mesh.as_ref()?.endpoints();
    let there = endpoints.iter().filter(|view| used.contains(&view.endpoint.network));
    let there: BTreeMap<(PeerId, PortId), Vni> =
        there.map(|view| ((view.peer, view.endpoint.port), view.vni)).collect();
    (told != there).then(|| format!("{number} was told {told:?}, and there is {there:?}"))
}

fn settle(world: &mut World) {
    let took = world.run_until(30 * SECOND, |world| unsettled(world).is_none());
    if took.is_none() {
        world.tell_all();
        panic!("seed {}: {}", world.seed, unsettled(world).unwrap_or_default());
    }
}

#[test]
fn a_network_is_there_on_every_host_at_once_and_gives_addresses_of_both_families() {
    let mut world = World::cluster(1, 5, 1);
    let spec = NetworkSpec { ipv6: true, ..with_subnets("front", &["10.7.0.0/24", "10.8.0.0/24"]) };
    let front = create(&mut world, 2, spec);
    assert_eq!((front.subnets.len(), front.vni.get() >= 4096), (3, true));
    assert!((0..5).all(|number| shown(&world, number).contains_key(&front.id)), "within a second");
    for number in [4, 2, 0] {
        let (_, addrs) = attach(&mut world, number, front.id, &[]);
        assert!(addrs[0].is_ipv4() && addrs[1].is_ipv6() && addrs.len() == 2, "{addrs:?}");
    }
    let (_, addrs) = attach(&mut world, 1, front.id, &["10.8.0.9"]);
    assert_eq!(addrs[0].to_string(), "10.8.0.9");
    settle(&mut world);
    let users: Vec<PeerId> =
        [0, 1, 2, 4].iter().map(|&number: &usize| world.hosts[number].peer_id()).collect();
    let view = world.networks(3).into_iter().find(|view| view.id == front.id).expect("it is known");
    assert_eq!(BTreeSet::from_iter(view.peers), BTreeSet::from_iter(users), "host 3 has nothing there");
}

#[test]
fn a_network_waits_for_the_founding_and_counts_as_a_need() {
    let mut world = World::new(3, 3);
    world.launch_all();
    let request = world.create_network(2, named("front"));
    let front = world.await_network(2, request).expect("a network");
    assert!(world.status(2).cluster_id.is_some());
    attach(&mut world, 0, front.id, &[]);
    settle(&mut world);
    // Alone, before anybody answers, it waits.
    let mut world = World::new(4, 2);
    world.launch(0, Launch::targets(&[1]));
    let request = world.create_network(0, named("front"));
    world.run(20 * SECOND);
    assert!(!world.hosts[0].made.contains_key(&request));
    assert_eq!(world.status(0).ipam[0].waiting_for, ["host1"]);
    world.launch(1, Launch::targets(&[0]));
    assert!(world.await_network(0, request).is_ok());
}

#[test]
fn subnets_are_used_one_after_the_other_until_all_are_full() {
    let mut world = World::cluster(5, 2, 0);
    let front = create(&mut world, 0, with_subnets("front", &["10.7.0.0/29", "10.8.0.0/29"]));
    let mut given = BTreeSet::new();
    for number in (0..10).map(|n| n % 2) {
        given.extend(attach(&mut world, number, front.id, &[]).1);
    }
    assert_eq!(given.len(), 10);
    let request = world.attach_on(1, front.id, &[]);
    let error = world.await_answer(request).expect_err("all are given");
    assert_eq!(error.code(), "addresses_exhausted");
    settle(&mut world);
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_changes() {
    let mut world = World::cluster(6, 2, 1);
    let front = NetworkSpec { vni: Vni::new(5000), ..with_subnets("front", &["10.7.0.0/16"]) };
    create(&mut world, 0, front);
    world.assert_agreement();
    let before = world.status(1).state_hash;
    let range = SubnetSpec {
        range: "10.9.0.0/24".parse().ok(),
        ..SubnetSpec::new("10.8.0.0/16".parse().expect("a subnet"))
    };
    for (spec, code) in [
        (named("FRONT"), "network_exists"),
        (named("mesh"), "network_exists"),
        (named("a.b"), "bad_network"),
        (with_subnets("back", &["10.7.9.0/24"]), "subnet_overlaps"),
        (with_subnets("back", &["10.40.0.0/16"]), "subnet_overlaps"),
        (with_subnets("back", &["10.8.0.0/16", "10.8.1.0/24"]), "bad_network"),
        (with_subnets("back", &["10.8.0.0/31"]), "bad_network"),
        (NetworkSpec { subnets: vec![range], ..named("back") }, "bad_network"),
        (NetworkSpec { vni: Vni::new(5000), ..named("back") }, "vni_in_use"),
        (NetworkSpec { vni: Vni::new(1), ..named("back") }, "vni_in_use"),
        (NetworkSpec { mtu: Some(1279), ipv6: true, ..named("back") }, "bad_network"),
    ] {
        assert_eq!(refused(&mut world, 1, spec.clone()).code(), code, "{spec:?}");
    }
    assert_eq!(world.remove_network(1, MESH_NETWORK).expect_err("it stays").code(), "network_predefined");
    assert_eq!(world.remove_network(1, NetworkId([7; 32])), Err(NetworkError::Unknown));
    world.run(SECOND);
    assert_eq!(world.status(1).state_hash, before);
}

#[test]
fn one_name_with_equal_options_on_both_sides_becomes_one_network() {
    for (seed, subnets) in [(1, &["10.7.0.0/24"][..]), (2, &[]), (3, &["10.7.0.0/24", "fd00:7::/64"])] {
        let mut world = World::cluster(seed, 4, 1);
        world.partition(&[0, 1], &[2, 3]);
        let mut both = BTreeSet::new();
        for side in [0, 2] {
            let front = create(&mut world, side, with_subnets("front", subnets));
            (0..3).for_each(|n| drop(attach(&mut world, side + n % 2, front.id, &[])));
            both.insert(front.id);
        }
        // A host that is away meanwhile hears of it when it is back.
        world.crash_with(3, Loss::LastWrite, SECOND);
        world.crash_with(1, Loss::LastWrite, SECOND);
        world.heal();
        world.run(5 * SECOND);
        [1, 3].into_iter().for_each(|number| world.restart(number));
        settle(&mut world);
        assert_eq!(shown(&world, 3).into_keys().collect::<BTreeSet<_>>(), {
            BTreeSet::from([MESH_NETWORK, *both.first().expect("two networks")])
        });
        assert!(kinds(&world, 0).contains("networks_merged"));
        (0..4).for_each(|number| world.crash_with(number, Loss::LastWrite, SECOND));
        (0..4).for_each(|number| world.restart(number));
        settle(&mut world);
    }
}

#[test]
fn one_name_with_other_options_goes_on_under_another_until_the_first_is_removed() {
    let mut world = World::cluster(7, 4, 1);
    world.partition(&[0, 1], &[2, 3]);
    let one = create(&mut world, 0, named("front"));
    let other = create(&mut world, 2, NetworkSpec { internal: true, ..named("front") });
    let (loser, winner) = if one.id < other.id { (other, one) } else { (one, other) };
    world.heal();
    settle(&mut world);
    let digits: String = loser.id.to_string().chars().take(6).collect();
    assert_eq!(shown(&world, 1)[&loser.id].0, format!("front~{digits}"));
    assert!((0..4).any(|number| kinds(&world, number).contains("network_renamed")));
    world.remove_network(3, winner.id).expect("nobody is on it");
    settle(&mut world);
    assert_eq!(shown(&world, 0)[&loser.id].0, "front");
}

#[test]
fn of_two_networks_of_one_number_the_one_that_got_it_gets_another() {
    let mut world = World::cluster(8, 4, 1);
    world.partition(&[0, 1], &[2, 3]);
    let chosen = create(&mut world, 0, named("chosen"));
    attach(&mut world, 1, chosen.id, &[]);
    let given = create(&mut world, 2, NetworkSpec { vni: Some(chosen.vni), ..named("given") });
    attach(&mut world, 3, given.id, &[]);
    world.heal();
    settle(&mut world);
    let now = shown(&world, 1);
    assert_eq!(now[&given.id].1, chosen.vni);
    assert_ne!(now[&chosen.id].1, chosen.vni);
    assert!(kinds(&world, 0).contains("network_renumbered"));
    world.run(3 * SECOND);
    // The number was written down: it stays.
    let (request, _) =
        world.hosts[3].ports.values().find(|(_, e)| e.network == given.id).cloned().expect("there");
    world.detach(3, request);
    world.run(SECOND);
    world.remove_network(2, given.id).expect("nobody is on it");
    settle(&mut world);
    assert_eq!(shown(&world, 1)[&chosen.id], now[&chosen.id]);
}

#[test]
fn a_network_that_is_in_use_stays_and_one_that_is_used_elsewhere_comes_back() {
    let mut world = World::cluster(9, 4, 1);
    let front = create(&mut world, 0, named("front"));
    let (request, addrs) = attach(&mut world, 3, front.id, &[]);
    world.assert_agreement();
    let error = world.remove_network(0, front.id).expect_err("it is in use");
    assert!(error.to_string().contains("on host3"), "{error}");
    world.detach(3, request);
    world.assert_agreement();
    world.partition(&[0, 1], &[2, 3]);
    world.remove_network(0, front.id).expect("nobody is on it here");
    let (_, again) = attach(&mut world, 3, front.id, &[]);
    world.heal();
    settle(&mut world);
    assert!(shown(&world, 1).contains_key(&front.id));
    assert!(kinds(&world, 3).contains("network_restored"));
    let (_, here) = attach(&mut world, 0, front.id, &[]);
    assert_ne!(here, again, "{addrs:?}");
    settle(&mut world);
}

#[test]
fn overlapping_subnets_of_two_sides_are_told_and_go_on() {
    let mut world = World::cluster(10, 4, 1);
    world.partition(&[0, 1], &[2, 3]);
    create(&mut world, 0, with_subnets("one", &["10.7.0.0/24"]));
    create(&mut world, 2, with_subnets("two", &["10.7.0.0/16"]));
    world.heal();
    settle(&mut world);
    assert_eq!(shown(&world, 0).len(), 3);
    assert!((0..4).all(|number| kinds(&world, number).contains("subnets_overlap")));
}

#[test]
fn random_lives_of_networks_end_equal_everywhere() {
    let seeds = std::env::var("SIM_SEEDS").ok().and_then(|seeds| seeds.parse::<u64>().ok());
    for seed in 0..seeds.map_or(40, |seeds| seeds / 5) {
        random_life(seed);
    }
}

fn random_life(seed: u64) {
    let mut world = World::cluster(seed, 4, 1);
    let mut attached: Vec<(usize, RequestId)> = Vec::new();
    let mut removed: BTreeSet<NetworkId> = BTreeSet::new();
    for _ in 0..40 {
        let host = world.rng.random_range(0..4);
        let runs = world.hosts[host].mesh.is_some();
        match world.rng.random_range(0..14) {
            0..3 if runs => drop(random_network(&mut world, host)),
            3..7 if runs => {
                let networks = world.networks(host);
                let network = networks.choose(&mut world.rng).expect("there is mesh").id;
                attached.push((host, world.attach_on(host, network, &[])));
            }
            7 | 8 if runs => {
                let networks = world.networks(host);
                let network = networks.choose(&mut world.rng).expect("there is mesh").id;
                removed.extend(world.remove_network(host, network).is_ok().then_some(network));
            }
            9 if !attached.is_empty() => {
                let at = world.rng.random_range(0..attached.len());
                let (host, request) = attached.swap_remove(at);
                world.detach(host, request);
            }
            10 => world.partition(&[host], &Vec::from_iter((0..4).filter(|other| *other != host))),
            11 => world.partition(&[0, 1], &[2, 3]),
            12 => world.heal(),
            13 if runs => world.crash(host, false),
            13 => world.restart(host),
            _ => {}
        }
        let pause = world.rng.random_range(0..1500);
        world.run(Duration::from_millis(pause));
    }
    world.heal();
    (0..4)
        .filter(|&host| world.hosts[host].mesh.is_none())
        .collect::<Vec<_>>()
        .into_iter()
        .for_each(|host| world.restart(host));
    settle(&mut world);
    assert_unique(&world);
    // A removed network is there again only because somebody had an endpoint on it.
    let restored = (0..4).any(|host| kinds(&world, host).contains("network_restored"));
    let undead: Vec<_> = shown(&world, 0).into_iter().filter(|(id, _)| removed.contains(id)).collect();
    assert!(restored || undead.is_empty(), "seed {seed}: {undead:?} came back");
}

fn random_network(world: &mut World, host: usize) -> RequestId {
    let name = *["a", "b", "c"].choose(&mut world.rng).expect("three names");
    let subnets =
        *[&[][..], &["10.7.0.0/24"], &["10.7.0.0/28", "fd00:7::/64"]].choose(&mut world.rng).expect("three");
    let vni = world.rng.random_bool(0.3).then(|| Vni::new(5000 + world.rng.random_range(0..2))).flatten();
    let internal = world.rng.random_bool(0.3);
    world.create_network(host, NetworkSpec { vni, internal, ..with_subnets(name, subnets) })
}

fn assert_unique(world: &World) {
    let all = shown(world, 0);
    let names: BTreeSet<&String> = all.values().map(|(name, _)| name).collect();
    let numbers: BTreeSet<Vni> = all.values().map(|(_, vni)| *vni).collect();
    assert_eq!((names.len(), numbers.len()), (all.len(), all.len()), "seed {}: {all:?}", world.seed);
}
