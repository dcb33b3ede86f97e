//! Promises about addresses, each with several hosts under a virtual clock.

#![allow(clippy::expect_used, clippy::print_stdout, reason = "a simulator is test code as a whole")]

mod sim;

use std::collections::BTreeMap;
use std::time::Duration;

use peering::mesh::{AllocError, IpamState, RequestId};
use sim::{Launch, World};

const SECOND: Duration = Duration::from_secs(1);

fn got(world: &World, request: RequestId) -> Option<String> {
    world.answer(request).and_then(|answer| answer.as_ref().ok()).map(|addrs| addrs[0].to_string())
}

#[test]
fn a_lone_host_founds_at_the_first_need() {
    let mut world = World::new(1, 1);
    world.launch(0, Launch::targets(&[]));
    world.run(5 * SECOND);
    assert_eq!(world.status(0).cluster_id, None);
    assert_eq!(world.status(0).ipam[0].state, IpamState::Unfounded);
    let request = world.attach(0, &[]);
    world.run(SECOND);
    assert_eq!(got(&world, request).as_deref(), Some("10.32.0.2/12"));
    assert!(world.status(0).cluster_id.is_some());
}

#[test]
fn a_lone_host_that_names_only_itself_founds() {
    let mut world = World::new(1, 1);
    world.launch(0, Launch::targets(&[0]));
    let request = world.attach(0, &[]);
    world.run(SECOND);
    assert_eq!(got(&world, request).as_deref(), Some("10.32.0.2/12"));
}

#[test]
fn all_launched_at_once_found_one_cluster() {
    for seed in 0..30 {
        let mut world = World::new(seed, 4);
        world.launch_all();
        let requests: Vec<RequestId> = (0..4).map(|number| world.attach(number, &[])).collect();
        let took = world.run_until(10 * SECOND, |world| requests.iter().all(|r| got(world, *r).is_some()));
        assert!(
            took.is_some(),
            "seed {seed}: {:?}",
            requests.iter().map(|r| world.answer(*r)).collect::<Vec<_>>()
        );
        world.assert_no_duplicates();
        world.assert_agreement();
        let clusters = (0..4).map(|number| world.status(number).cluster_id);
        assert_eq!(clusters.collect::<std::collections::BTreeSet<_>>().len(), 1, "seed {seed}");
    }
}

#[test]
fn a_founding_waits_for_an_unreachable_target_and_says_so() {
    let mut world = World::new(2, 3);
    world.launch(0, Launch::targets(&[1, 2]));
    world.launch(1, Launch::targets(&[0, 2]));
    let request = world.attach(0, &[]);
    world.run(60 * SECOND);
    assert_eq!(world.answer(request), None);
    let ipam = &world.status(0).ipam[0];
    assert_eq!(ipam.state, IpamState::Waiting);
    assert_eq!(ipam.waiting_for, ["host2"]);
    world.launch(2, Launch::targets(&[]));
    let took = world.run_until(10 * SECOND, |world| got(world, request).is_some());
    assert!(took.is_some());
}

#[test]
fn a_waiting_request_can_be_cancelled() {
    let mut world = World::new(2, 2);
    world.launch(0, Launch::targets(&[1]));
    let request = world.attach(0, &[]);
    world.run(2 * SECOND);
    let now = world.now;
    world.hosts[0].mesh.as_mut().unwrap().cancel(now, request);
    world.launch(1, Launch::targets(&[]));
    world.run(5 * SECOND);
    assert_eq!(world.answer(request), None);
    let next = world.attach(0, &[]);
    world.run(3 * SECOND);
    assert!(got(&world, next).is_some());
}

#[test]
fn a_joiner_learns_the_cluster_and_gets_space() {
    let mut world = World::new(4, 2);
    world.launch(0, Launch::targets(&[]));
    let first = world.attach(0, &[]);
    world.run(SECOND);
    let launch = Launch { range: "10.99.0.0/16", ..Launch::targets(&[0]) };
    world.launch(1, launch);
    let second = world.attach(1, &[]);
    let took = world.run_until(5 * SECOND, |world| got(world, second).is_some());
    assert!(took.is_some_and(|took| took < 2 * SECOND), "{took:?}");
    assert!(got(&world, second).unwrap().starts_with("10."), "{:?}", got(&world, second));
    assert!(got(&world, first).is_some());
    world.assert_agreement();
    world.assert_no_duplicates();
    assert_eq!(world.status(1).ipam[0].range, "10.32.0.0/12");
}

#[test]
fn an_address_in_use_is_refused_with_its_holder() {
    let mut world = World::new(5, 2);
    world.launch_all();
    let first = world.attach(0, &["10.32.0.77"]);
    world.run(3 * SECOND);
    assert_eq!(got(&world, first).as_deref(), Some("10.32.0.77/12"));
    let second = world.attach(1, &["10.32.0.77"]);
    world.run(3 * SECOND);
    match world.answer(second) {
        Some(Err(AllocError::InUse { holder, .. })) => assert!(holder.contains("container1"), "{holder}"),
        other => panic!("{other:?}"),
    }
    for (wanted, code) in [
        ("10.32.0.1", "address_reserved"),
        ("10.32.0.0", "address_reserved"),
        ("10.47.255.255", "address_reserved"),
        ("10.48.0.1", "address_outside_range"),
    ] {
        let request = world.attach(1, &[wanted]);
        world.run(SECOND);
        let code_got = world.answer(request).and_then(|answer| answer.as_ref().err()).map(AllocError::code);
        assert_eq!(code_got, Some(code), "{wanted}");
    }
}

#[test]
fn a_wanted_address_of_anothers_unit_is_given_by_its_owner() {
    for seed in 0..10 {
        let mut world = World::new(seed, 3);
        world.launch_all();
        for number in 0..3 {
            world.attach(number, &[]);
        }
        world.run(5 * SECOND);
        let requests: Vec<RequestId> = (0..3).map(|number| world.attach(number, &["10.40.1.2"])).collect();
        world.run(5 * SECOND);
        let winners = requests.iter().filter(|request| got(&world, **request).is_some()).count();
        assert_eq!(winners, 1, "seed {seed}");
        let losers =
            requests.iter().filter(|r| matches!(world.answer(**r), Some(Err(AllocError::InUse { .. }))));
        assert_eq!(losers.count(), 2, "seed {seed}");
    }
}

#[test]
fn both_sides_of_a_partition_allocate() {
    for seed in 0..10 {
        let mut world = World::new(seed, 4);
        world.launch_all();
        for number in 0..4 {
            world.attach(number, &[]);
        }
        world.run(10 * SECOND);
        world.partition(&[0, 1], &[2, 3]);
        world.run(15 * SECOND);
        let requests: Vec<RequestId> = (0..40).map(|n| world.attach(n % 4, &[])).collect();
        world.run(5 * SECOND);
        assert!(requests.iter().all(|request| got(&world, *request).is_some()), "seed {seed}");
        world.heal();
        world.assert_agreement();
        world.assert_no_duplicates();
    }
}

#[test]
fn a_restart_keeps_addresses_with_and_without_its_disk() {
    for (seed, lose_disk) in [(1, false), (2, true), (3, false), (4, true)] {
        let mut world = World::new(seed, 3);
        world.launch_all();
        let requests: Vec<RequestId> = (0..9).map(|n| world.attach(n % 3, &[])).collect();
        world.run(10 * SECOND);
        let before: Vec<_> = requests.iter().map(|request| got(&world, *request)).collect();
        assert!(before.iter().all(Option::is_some));
        world.crash(1, lose_disk);
        world.run(SECOND);
        world.restart(1);
        world.assert_agreement();
        let endpoints = world.hosts[0].mesh.as_ref().unwrap().endpoints();
        assert_eq!(endpoints.len(), 9);
        let more: Vec<RequestId> = (0..9).map(|n| world.attach(n % 3, &[])).collect();
        world.run(10 * SECOND);
        assert!(more.iter().all(|request| got(&world, *request).is_some()), "seed {seed}");
        world.assert_no_duplicates();
        world.assert_agreement();
    }
}

/// Two clusters of three hosts each, as they were founded apart, with containers on each host.
fn two_clusters(seed: u64, ranges: [&'static str; 2], containers: usize) -> (World, Vec<RequestId>) {
    let mut world = World::new(seed, 6);
    for number in 0..6 {
        let targets: &[usize] = if number < 3 { &[0, 1, 2] } else { &[3, 4, 5] };
        world.launch(number, Launch { range: ranges[number / 3], ..Launch::targets(targets) });
    }
    let requests: Vec<RequestId> = (0..containers * 2).map(|n| world.attach(n % 6, &[])).collect();
    let took = world.run_until(20 * SECOND, |world| requests.iter().all(|r| got(world, *r).is_some()));
    assert!(took.is_some(), "seed {seed}");
    assert_ne!(world.status(0).cluster_id, world.status(3).cluster_id, "seed {seed}");
    (world, requests)
}

fn addresses(world: &World, number: usize) -> BTreeMap<String, String> {
    let ports = world.hosts[number].ports.values();
    ports.map(|(_, endpoint)| (endpoint.name.clone(), endpoint.addresses[0].to_string())).collect()
}

fn join(world: &mut World, a: usize, b: usize) {
    let now = world.now;
    world.hosts[a].mesh.as_mut().expect("it runs").connect(now, vec![World::target(b)], false);
    world.run(Duration::ZERO);
}

#[test]
fn two_clusters_that_meet_become_one_and_every_double_address_is_settled() {
    for seed in 0..10 {
        let (mut world, _) = two_clusters(seed, ["10.32.0.0/12"; 2], 50);
        let clusters = [world.status(0).cluster_id.unwrap(), world.status(3).cluster_id.unwrap()];
        let winners = if clusters[0] < clusters[1] { 0..3 } else { 3..6 };
        let before: Vec<_> = winners.clone().map(|number| addresses(&world, number)).collect();
        let doubles = world.duplicates().len();
        assert!(doubles >= 40, "seed {seed}: {doubles} overlap");
        join(&mut world, 0, 3);
        let settled = |world: &World| world.duplicates().is_empty() && world.agree();
        let took = world.run_until(10 * SECOND, settled);
        if took.is_none() {
            world.tell_all();
        }
        println!("seed {seed}: {doubles} doubles settled after {took:?}");
        assert!(took.is_some(), "seed {seed}: {} doubles left", world.duplicates().len());
        for number in 0..6 {
            assert_eq!(world.status(number).cluster_id.as_ref(), clusters.iter().min(), "seed {seed}");
        }
        let after: Vec<_> = winners.map(|number| addresses(&world, number)).collect();
        assert_eq!(after, before, "seed {seed}: winners keep their addresses");
        let told = |kind: &str| {
            let events = (0..6).flat_map(|number| world.status(number).events);
            events.filter(|event| event.kind == kind).count()
        };
        assert_eq!(told("container_readdressed"), doubles, "seed {seed}");
        assert!(told("clusters_merged") >= 3, "seed {seed}");
        let more: Vec<RequestId> = (0..12).map(|n| world.attach(n % 6, &[])).collect();
        let took = world.run_until(20 * SECOND, |world| more.iter().all(|r| got(world, *r).is_some()));
        assert!(took.is_some(), "seed {seed}: all hosts of the new cluster get space");
        world.assert_no_duplicates();
        world.assert_agreement();
    }
}

#[test]
fn clusters_of_different_ranges_go_on_with_the_range_of_the_lower_one() {
    for seed in 0..6 {
        let (mut world, _) = two_clusters(seed, ["10.32.0.0/16", "10.99.0.0/20"], 12);
        join(&mut world, 1, 4);
        let ids = [world.status(0).cluster_id.unwrap(), world.status(3).cluster_id.unwrap()];
        let range: ipnet::Ipv4Net =
            if ids[0] < ids[1] { "10.32.0.0/16" } else { "10.99.0.0/20" }.parse().unwrap();
        let inside = |world: &World| {
            let endpoints = world.hosts.iter().flat_map(|host| host.ports.values());
            endpoints.flat_map(|(_, endpoint)| &endpoint.addresses).all(|prefix| match prefix.addr {
                std::net::IpAddr::V4(addr) => range.contains(&addr) && prefix.len == range.prefix_len(),
                std::net::IpAddr::V6(_) => false,
            })
        };
        let took = world.run_until(15 * SECOND, |world| inside(world) && world.agree());
        if took.is_none() {
            world.tell_all();
        }
        assert!(took.is_some(), "seed {seed}");
        world.assert_no_duplicates();
        for number in 0..6 {
            assert_eq!(world.status(number).ipam[0].range, range.to_string(), "seed {seed}");
        }
    }
}

#[test]
fn the_address_that_people_asked_for_is_kept_even_by_the_cluster_that_goes() {
    for seed in 0..6 {
        let mut world = World::new(seed, 2);
        world.launch(0, Launch { found: true, ..Launch::targets(&[]) });
        world.launch(1, Launch { found: true, ..Launch::targets(&[]) });
        let explicit = usize::try_from(seed % 2).unwrap();
        world.attach(explicit, &["10.32.0.2"]);
        world.attach(1 - explicit, &[]);
        world.run(SECOND);
        assert_eq!(world.duplicates().len(), 1);
        join(&mut world, 0, 1);
        let took = world.run_until(10 * SECOND, |world| world.duplicates().is_empty() && world.agree());
        assert!(took.is_some(), "seed {seed}");
        let kept: Vec<String> = addresses(&world, explicit).into_values().collect();
        assert_eq!(kept, ["10.32.0.2/12"], "seed {seed}");
    }
}

#[test]
fn three_clusters_and_a_partition_become_one() {
    for seed in 0..6 {
        let mut world = World::new(seed, 6);
        for number in 0..6 {
            let base = number / 2 * 2;
            world.launch(number, Launch::targets(&[base, base + 1]));
        }
        for n in 0..30 {
            world.attach(n % 6, &[]);
        }
        world.run(10 * SECOND);
        join(&mut world, 0, 2);
        world.run(SECOND);
        join(&mut world, 2, 4);
        world.run(Duration::from_millis(seed * 300));
        world.partition(&[0, 1, 2], &[3, 4, 5]);
        world.run(20 * SECOND);
        world.heal();
        let took = world.run_until(20 * SECOND, |world| world.duplicates().is_empty() && world.agree());
        if took.is_none() {
            world.tell_all();
        }
        assert!(took.is_some(), "seed {seed}: {:?}", world.duplicates());
    }
}

#[test]
fn a_founder_that_allocated_nothing_gives_way() {
    for seed in 0..10 {
        let mut world = World::new(seed, 2);
        world.launch(0, Launch::targets(&[]));
        world.launch(1, Launch::targets(&[]));
        world.attach(0, &[]);
        let passing = world.attach(1, &[]);
        world.run(SECOND);
        world.detach(1, passing);
        world.run(SECOND);
        assert_ne!(world.status(0).cluster_id, world.status(1).cluster_id);
        let now = world.now;
        world.hosts[1].mesh.as_mut().unwrap().connect(now, vec![World::target(0)], false);
        let cluster = world.status(0).cluster_id;
        world.assert_agreement();
        assert_eq!(world.status(0).cluster_id, cluster, "seed {seed}");
        assert_eq!(world.status(1).cluster_id, cluster, "seed {seed}");
        let request = world.attach(1, &[]);
        world.run(3 * SECOND);
        assert!(got(&world, request).is_some());
        world.assert_no_duplicates();
        world.assert_agreement();
    }
}

#[test]
fn a_failing_disk_refuses_addresses_and_gives_them_when_it_works_again() {
    let mut world = World::new(8, 1);
    world.launch(0, Launch::targets(&[]));
    let first = world.attach(0, &[]);
    world.run(SECOND);
    assert!(got(&world, first).is_some());
    world.hosts[0].disk_fails = true;
    let refused = world.attach(0, &[]);
    world.run(SECOND);
    assert!(
        matches!(world.answer(refused), Some(Err(AllocError::StoreFailed { .. }))),
        "{:?}",
        world.answer(refused)
    );
    world.hosts[0].disk_fails = false;
    let third = world.attach(0, &[]);
    world.run(2 * SECOND);
    assert!(got(&world, third).is_some());
    world.assert_no_duplicates();
}

#[test]
fn a_small_range_is_used_up_to_the_last_address() {
    for seed in 0..10 {
        let mut world = World::new(seed, 3);
        for number in 0..3 {
            world.launch(number, Launch { range: "10.9.0.0/27", ..Launch::targets(&[0, 1, 2]) });
        }
        for n in 0..29 {
            let request = world.attach(n % 3, &[]);
            world.run_until(20 * SECOND, |world| world.answer(request).is_some());
            let answer = world.answer(request);
            assert!(got(&world, request).is_some(), "seed {seed}, address {n}: {answer:?}");
        }
        world.assert_no_duplicates();
        let over = world.attach(1, &[]);
        world.run(30 * SECOND);
        let answer = world.answer(over);
        assert!(matches!(answer, Some(Err(AllocError::Exhausted { .. }))), "seed {seed}: {answer:?}");
    }
}
