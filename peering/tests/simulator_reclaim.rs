//! Space of hosts that stay away: a majority takes it, a minority stops giving out its own.
#![allow(clippy::expect_used, clippy::print_stdout, reason = "a simulator is test code as a whole")]

mod sim;

use std::time::Duration;

use peering::mesh::{AllocError, RequestId};
use sim::{Launch, World};

const SECOND: Duration = Duration::from_secs(1);
const AFTER: Duration = Duration::from_secs(40);

fn got(world: &World, request: RequestId) -> bool {
    world.answer(request).is_some_and(Result::is_ok)
}

/// Hosts that reclaim after [`AFTER`], with two containers each.
fn cluster(seed: u64, hosts: usize) -> World {
    let mut world = World::new(seed, hosts);
    let targets: Vec<usize> = (0..hosts).collect();
    for number in 0..hosts {
        world.launch(number, Launch { reclaim_after: AFTER, ..Launch::targets(&targets) });
    }
    let requests: Vec<RequestId> = (0..hosts * 2).map(|n| world.attach(n % hosts, &[])).collect();
    let took = world.run_until(20 * SECOND, |world| requests.iter().all(|r| got(world, *r)));
    assert!(took.is_some(), "seed {seed}");
    world.run(5 * SECOND);
    world
}

/// Who owns space, as a host knows it.
fn owners(world: &World, at: usize) -> Vec<String> {
    world.status(at).ipam[0].owners.iter().map(|owner| owner.nickname.clone()).collect()
}

fn space(world: &World, at: usize) -> u64 {
    world.status(at).ipam[0].owners.iter().map(|owner| owner.size).sum()
}

fn knows(world: &World, at: usize, of: usize) -> bool {
    world.status(at).peers.iter().any(|peer| peer.nickname == World::name(of))
}

#[test]
fn a_host_that_stays_away_is_removed_by_the_others_and_its_space_taken() {
    for seed in 0..8 {
        let mut world = cluster(seed, 5);
        world.wires.loss = if seed % 2 == 0 { 0.0 } else { 0.1 };
        let whole = space(&world, 0);
        let gone = usize::try_from(seed % 5).expect("small");
        let seen_by = (gone + 1) % 5;
        world.crash(gone, true);
        world.run(AFTER - 5 * SECOND);
        assert!(knows(&world, seen_by, gone), "seed {seed}: not before its time");
        // The death is known after ten seconds at most, and a vote may be on its way.
        let removed = |world: &World| world.running().iter().all(|&at| !knows(world, at, gone));
        let took = world.run_until(25 * SECOND, removed);
        assert!(took.is_some(), "seed {seed}");
        world.assert_agreement();
        for at in world.running() {
            assert!(!owners(&world, at).contains(&World::name(gone)), "seed {seed}");
            assert_eq!(space(&world, at), whole, "seed {seed}: nothing is lost");
            assert_eq!(world.hosts[at].mesh.as_ref().expect("it runs").endpoints().len(), 8, "seed {seed}");
        }
        let told = |at: &usize| world.status(*at).events.iter().any(|event| event.kind == "host_removed");
        assert!(world.running().iter().all(told), "seed {seed}");
    }
}

#[test]
fn every_host_is_replaced_one_by_one_and_no_space_stays_behind() {
    let mut world = World::new(3, 8);
    for number in 0..4 {
        world.launch(number, Launch { reclaim_after: AFTER, ..Launch::targets(&[0, 1, 2, 3]) });
    }
    for number in 0..4 {
        world.attach(number, &[]);
    }
    world.run(15 * SECOND);
    let whole = space(&world, 0);
    for new in 4..8 {
        let old = new - 4;
        world.crash(old, true);
        let ports: Vec<_> = world.hosts[old].ports.keys().copied().collect();
        ports.iter().for_each(|port| drop(world.hosts[old].ports.remove(port)));
        world.launch(new, Launch { reclaim_after: AFTER, ..Launch::targets(&[new - 1, new - 2]) });
        let request = world.attach(new, &[]);
        world.run(AFTER + 20 * SECOND);
        assert!(got(&world, request), "host {new}");
    }
    world.assert_agreement();
    let mut names = owners(&world, 7);
    names.sort_unstable();
    assert_eq!(names, (4..8).map(World::name).collect::<Vec<_>>());
    assert_eq!(space(&world, 7), whole);
    assert!((4..8).all(|at| (0..4).all(|old| !knows(&world, at, old))), "their records are gone too");
}

#[test]
fn a_minority_stops_before_its_space_is_taken_and_comes_back_with_its_containers() {
    for seed in 0..6 {
        let mut world = cluster(seed, 5);
        world.partition(&[0, 1, 2], &[3, 4]);
        world.run(AFTER / 4);
        let early = [world.attach(0, &[]), world.attach(3, &[])];
        world.run(SECOND);
        assert!(
            early.iter().all(|request| got(&world, *request)),
            "seed {seed}: both sides allocate at first"
        );
        world.run(AFTER / 2 + 8 * SECOND);
        let late = [world.attach(3, &[]), world.attach(4, &[])];
        let ours = world.attach(1, &[]);
        world.run(SECOND);
        for request in late {
            let answer = world.answer(request);
            assert!(
                matches!(answer, Some(Err(AllocError::MajorityMissed { .. }))),
                "seed {seed}: {answer:?}"
            );
        }
        assert!(got(&world, ours), "seed {seed}: the majority goes on");
        world.run(AFTER);
        assert!(!knows(&world, 0, 3) && !knows(&world, 0, 4), "seed {seed}: the minority is removed");
        assert!(knows(&world, 3, 0), "seed {seed}: the majority is not");
        // Both sides use what they have: the majority also what the minority had.
        let more: Vec<RequestId> = (0..60).map(|n| world.attach(n % 3, &[])).collect();
        world.run(5 * SECOND);
        assert!(more.iter().all(|request| got(&world, *request)), "seed {seed}");
        world.heal();
        let settled = |world: &World| world.duplicates().is_empty() && world.agree();
        let took = world.run_until(15 * SECOND, settled);
        if took.is_none() {
            world.tell_all();
        }
        assert!(took.is_some(), "seed {seed}");
        let back: Vec<RequestId> = [3, 4].map(|number| world.attach(number, &[])).to_vec();
        let took = world.run_until(10 * SECOND, |world| back.iter().all(|request| got(world, *request)));
        assert!(took.is_some(), "seed {seed}: they are given space anew");
        world.assert_agreement();
        world.assert_no_duplicates();
    }
}

#[test]
fn of_two_hosts_neither_takes_the_space_of_the_other_and_both_go_on() {
    let mut world = cluster(1, 2);
    world.partition(&[0], &[1]);
    world.run(3 * AFTER);
    assert!(knows(&world, 0, 1) && knows(&world, 1, 0));
    let requests = [world.attach(0, &[]), world.attach(1, &[])];
    world.run(2 * SECOND);
    assert!(requests.iter().all(|request| got(&world, *request)));
    world.heal();
    world.assert_agreement();
    world.assert_no_duplicates();
}

#[test]
fn any_sign_of_life_begins_the_time_anew() {
    let mut world = cluster(2, 3);
    for _ in 0..3 {
        world.crash(2, false);
        world.run(AFTER / 2 + 5 * SECOND);
        world.restart(2);
        world.run(5 * SECOND);
    }
    assert!(knows(&world, 0, 2) && knows(&world, 1, 2));
    world.assert_agreement();
    world.assert_no_duplicates();
}
