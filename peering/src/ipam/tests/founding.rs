//! Who founds, and that no two hosts do unless neither had heard of the other.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use rand::RngExt;

use super::world::{NETWORK, World, cases, id, port};
use crate::ipam::Meeting;
use crate::mesh::IpamState;

const RANGE: &str = "10.32.0.0/12";

#[test]
fn a_lone_host_founds_at_its_first_need_and_not_before() {
    let mut world = World::new(1, RANGE, 1);
    world.run(Duration::from_secs(5));
    assert_eq!(world.hosts[0].ipam.status(world.now)[0].state, IpamState::Unfounded);
    assert_eq!(world.address(0, port(1), &[]).to_string(), "10.32.0.2");
    assert_eq!(world.hosts[0].founded.len(), 1);
}

#[test]
fn the_lowest_id_founds_for_whoever_needs_and_grants() {
    let mut world = World::acquainted(3, RANGE, 1);
    let lowest = (0..3).min_by_key(|&n| id(n)).unwrap();
    let needy = (0..3).max_by_key(|&n| id(n)).unwrap();
    world.address(needy, port(1), &[]);
    let founders: Vec<usize> = (0..3).filter(|&n| !world.hosts[n].founded.is_empty()).collect();
    assert_eq!(founders, [lowest]);
}

#[test]
fn an_unresolved_target_holds_the_founding_up_and_is_named() {
    let mut world = World::new(2, RANGE, 1);
    world.hosts[0].targets = vec![(1, false), (7, false)];
    world.tell_targets(0);
    world.meet(0, 1);
    let needy = if id(0) < id(1) { 1 } else { 0 };
    let request = world.allocate(needy, port(1), &[]);
    world.run(Duration::from_secs(8));
    assert_eq!(world.hosts[needy].ipam.status(world.now)[0].waiting_for, ["host7"]);
    assert_eq!(world.hosts[needy].ipam.status(world.now)[0].state, IpamState::Waiting);
    assert!(world.hosts.iter().all(|host| host.founded.is_empty()));
    world.hosts[0].targets.pop();
    world.tell_targets(0);
    world.tell_record(1, 0);
    assert!(world.answer(needy, request).is_ok());
}

#[test]
fn a_silent_host_holds_the_founding_up_until_it_is_overruled() {
    let mut world = World::acquainted(3, RANGE, 1);
    let needy = (0..3).min_by_key(|&n| id(n)).unwrap();
    let silent = (needy + 1) % 3;
    world.cut.extend((0..3).map(|n| (n.min(silent), n.max(silent))));
    world.allocate(needy, port(1), &[]);
    world.run(Duration::from_secs(10));
    assert_eq!(world.hosts[needy].ipam.status(world.now)[0].waiting_for, [format!("host{silent}")]);
    world.set_found(needy);
    assert!(world.address(needy, port(2), &[]).is_ipv4());
}

#[test]
fn a_cancelled_need_ends_the_questions() {
    let mut world = World::acquainted(3, RANGE, 1);
    let lowest = (0..3).min_by_key(|&n| id(n)).unwrap();
    world.cut.extend([(0, 1), (0, 2), (1, 2)]);
    let request = world.allocate(lowest, port(1), &[]);
    world.run(Duration::from_secs(2));
    world.cancel(lowest, request);
    world.cut.clear();
    world.run(Duration::from_secs(30));
    assert!(world.hosts.iter().all(|host| host.founded.is_empty() && host.ipam.poll_timeout().is_none()));
}

#[test]
fn a_founder_without_allocations_gives_way_and_one_with_them_does_not() {
    let mut world = World::new(2, RANGE, 1);
    for n in 0..2 {
        world.set_found(n);
        let now = world.now;
        world.hosts[n].ipam.want(now, NETWORK);
        world.drain(n);
        assert!(world.hosts[n].ipam.cedes());
    }
    world.address(0, port(1), &[]);
    let (mine, theirs) = (world.hosts[0].ipam.cluster(), world.hosts[1].ipam.cluster());
    assert_eq!(world.hosts[0].ipam.meet(id(1), theirs, true), Meeting::Await);
    assert_eq!(world.hosts[1].ipam.meet(id(0), mine, false), Meeting::GiveWay);
    assert_eq!(world.hosts[0].ipam.meet(id(1), theirs, false), Meeting::Merge);
    world.meet(0, 1);
    world.run(Duration::from_secs(15));
    assert_eq!(world.hosts[1].ipam.cluster(), mine);
    assert_eq!(world.hosts[1].ipam.status(world.now)[0].state, IpamState::Ready);
    world.crash(1);
    assert_eq!(world.hosts[1].ipam.cluster(), mine);
}

#[test]
fn of_two_empty_clusters_one_stays() {
    let mut world = World::new(2, RANGE, 1);
    for n in 0..2 {
        world.set_found(n);
        let now = world.now;
        world.hosts[n].ipam.want(now, NETWORK);
        world.drain(n);
    }
    let clusters: Vec<_> = (0..2).map(|n| world.hosts[n].ipam.cluster()).collect();
    let meetings: BTreeSet<String> = [(0, 1), (1, 0)]
        .map(|(n, other)| format!("{:?}", world.hosts[n].ipam.meet(id(other), clusters[other], true)))
        .into();
    assert_eq!(meetings, ["Await".to_owned(), "GiveWay".to_owned()].into());
}

#[test]
fn facts_of_a_cluster_that_was_given_up_are_not_taken_back() {
    let mut world = World::new(2, RANGE, 1);
    world.set_found(0);
    let now = world.now;
    world.hosts[0].ipam.want(now, NETWORK);
    world.drain(0);
    let old = world.hosts[0].ipam.unit_tables();
    world.hosts[0].ipam.set_found(false);
    world.hosts[0].ipam.give_way(now);
    world.hosts[0].ipam.handle_message(now, id(1), crate::proto::Message::Units(old[0].clone()));
    assert_eq!(world.hosts[0].ipam.cluster(), None);
}

/// Hosts with random targets meet at random, need addresses at random, crash and are cut off.
fn random_founding(hosts: usize, seed: u64, calm: bool) -> World {
    let mut world = World::new(hosts, RANGE, seed);
    for n in 0..hosts {
        let targets = world.rng.random_range(0..3);
        let all: Vec<usize> = (0..targets).map(|_| world.rng.random_range(0..hosts)).collect();
        world.hosts[n].targets = all.into_iter().map(|other| (other, false)).collect();
        world.tell_targets(n);
    }
    world.loss = if calm { 0 } else { 20 };
    for round in 0..400 {
        let (a, b) = (world.rng.random_range(0..hosts), world.rng.random_range(0..hosts));
        match world.rng.random_range(0..if calm { 40 } else { 60 }) {
            0..8 => {
                let target = world.hosts[a].targets.iter().map(|target| target.0).next();
                world.meet(a, target.unwrap_or(b));
            }
            8..10 if world.hosts[a].targets.iter().any(|target| target.0 == b) => world.meet(a, b),
            10 => drop(world.allocate(a, port(round), &[])),
            40 => world.crash(a),
            41..43 => drop(world.cut.insert((a.min(b), a.max(b)))),
            43..46 => world.cut.clear(),
            _ => {}
        }
        world.tick();
    }
    world
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn two_founders_never_had_a_host_in_common(hosts in 2usize..8, seed: u64, calm: bool) {
        let world = random_founding(hosts, seed, calm);
        let founded: Vec<_> = world.hosts.iter().flat_map(|host| &host.founded).collect();
        for (n, closure) in founded.iter().enumerate() {
            for other in &founded[n + 1..] {
                prop_assert!(closure.is_disjoint(other), "{closure:?} and {other:?}");
            }
        }
    }

    #[test]
    fn hosts_that_all_have_the_same_list_found_once(hosts in 1usize..7, seed: u64) {
        let mut world = World::new(hosts, RANGE, seed);
        for n in 0..hosts {
            world.hosts[n].targets = (0..hosts).map(|other| (other, false)).collect();
            world.tell_targets(n);
        }
        let requests: Vec<u64> = (0..hosts).map(|n| world.allocate(n, port(1), &[])).collect();
        for _ in 0..20 * hosts * hosts {
            let (a, b) = (world.rng.random_range(0..hosts), world.rng.random_range(0..hosts));
            world.meet(a, b);
            world.tick();
        }
        for (n, request) in requests.into_iter().enumerate() {
            prop_assert!(world.answer(n, request).is_ok());
        }
        prop_assert_eq!(world.hosts.iter().map(|host| host.founded.len()).sum::<usize>(), 1);
    }
}
