//! Daemons that are killed on machines that go on, whose kernels say that nobody listens there; and the same said falsely.

mod sim;

use std::time::Duration;

use peering::mesh::{MeshEvent, PeerState};
use sim::World;

const SECOND: Duration = Duration::from_secs(1);

/// A cluster at rest.
fn rested(seed: u64, hosts: usize) -> World {
    let mut world = World::new(seed, hosts);
    world.launch_all();
    world.assert_agreement();
    world.run(20 * SECOND);
    world
}

fn is_down_everywhere(world: &World, of: usize) -> bool {
    world.running().iter().all(|&n| world.peer_state(n, of) == Some(PeerState::Down))
}

/// How often a host that lives was taken for dead, by anybody.
fn deaths_of(world: &World, of: usize) -> usize {
    let peer = world.hosts[of].peer_id();
    let died = |event: &&MeshEvent| matches!(event, MeshEvent::HostDown { peer: dead } if *dead == peer);
    world.hosts.iter().map(|host| host.events.iter().filter(died).count()).sum()
}

#[test]
fn a_killed_daemon_is_known_everywhere_in_less_than_four_seconds() {
    for hosts in [2, 3, 5, 12] {
        let mut all: Vec<Duration> = (0..20)
            .map(|seed| {
                let mut world = rested(seed, hosts);
                world.crash(1, false);
                let took = world.run_until(4 * SECOND, |world| is_down_everywhere(world, 1));
                took.unwrap_or_else(|| panic!("{hosts} hosts, seed {seed}: not known after four seconds"))
            })
            .collect();
        all.sort_unstable();
        println!("{hosts} hosts: known after {:?} to {:?}, half after {:?}", all[0], all[19], all[10]);
    }
}

#[test]
fn a_machine_without_power_says_nothing_and_is_waited_for() {
    for seed in 0..10 {
        let mut world = rested(seed, 5);
        world.lose_power(1);
        let took = world.run_until(10 * SECOND, |world| is_down_everywhere(world, 1));
        assert!(took.is_some_and(|took| took > 3 * SECOND), "seed {seed}: {took:?}");
    }
}

#[test]
fn several_killed_at_once_are_known_though_none_of_them_can_be_a_witness() {
    for seed in 0..10 {
        let mut world = rested(seed, 4);
        [1, 2].into_iter().for_each(|number| world.crash(number, false));
        let known = |world: &World| [1, 2].iter().all(|&n| is_down_everywhere(world, n));
        assert!(world.run_until(5 * SECOND, known).is_some(), "seed {seed}: not known after five seconds");
    }
}

#[test]
fn a_daemon_that_is_killed_and_launched_again_is_there_as_before() {
    for seed in 0..20 {
        let mut world = World::cluster(seed, 5, 1);
        world.run(10 * SECOND);
        world.crash(1, false);
        world.run(Duration::from_millis(100 * seed));
        world.restart(1);
        world.assert_agreement();
        world.assert_no_duplicates();
        let deaths = deaths_of(&world, 1);
        world.run(20 * SECOND);
        assert_eq!(deaths_of(&world, 1), deaths, "seed {seed}: it died again after it was back");
    }
}

#[test]
fn who_is_said_to_be_gone_and_answers_is_not_even_suspected() {
    for seed in 0..5 {
        let mut world = rested(seed, 5);
        for _ in 0..200 {
            [0, 2, 3, 4].into_iter().for_each(|host| world.vacant(host, 1));
            world.run(Duration::from_millis(50));
            let states = [0, 2, 3, 4].map(|host| world.peer_state(host, 1));
            assert_eq!(states, [Some(PeerState::Alive); 4], "seed {seed}");
        }
    }
}

#[test]
fn a_host_that_one_alone_cannot_reach_does_not_die_of_its_word() {
    for seed in 0..20 {
        let mut world = rested(seed, 5);
        world.cut(0, 1);
        world.cut(1, 0);
        // A silence alone is death after three and a half seconds, unless somebody objects.
        for _ in 0..30 {
            world.vacant(0, 1);
            world.run(Duration::from_millis(100));
        }
        assert_eq!(deaths_of(&world, 1), 0, "seed {seed}");
    }
}
