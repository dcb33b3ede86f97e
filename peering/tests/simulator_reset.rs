//! A host that leaves for good hands its space over first.
#![allow(clippy::expect_used, clippy::print_stdout, reason = "a simulator is test code as a whole")]

mod sim;

use std::time::Duration;

use peering::mesh::LeaveError;
use sim::{Launch, World};

const SECOND: Duration = Duration::from_secs(1);

/// Hosts with two containers each, whose space is spread.
fn cluster(seed: u64, hosts: usize) -> World {
    let mut world = World::cluster(seed, hosts, 2);
    world.run(5 * SECOND);
    world
}

/// What the daemon does once its host has left: the containers lose their interfaces, the disk is wiped.
fn wipe(world: &mut World, number: usize) {
    world.hosts[number].ports.clear();
    world.crash(number, true);
}

fn space(world: &World, at: usize) -> Vec<(String, u64)> {
    world.status(at).ipam[0].owners.iter().map(|owner| (owner.nickname.clone(), owner.size)).collect()
}

#[test]
fn a_host_that_leaves_hands_its_space_over_and_is_forgotten_at_once() {
    for seed in 0..12 {
        let mut world = cluster(seed, 4);
        world.wires.loss = if seed % 2 == 0 { 0.0 } else { 0.1 };
        let whole: u64 = space(&world, 0).iter().map(|(_, size)| size).sum();
        let leaver = usize::try_from(seed % 4).expect("small");
        let stays = (leaver + 1) % 4;
        world.reset(leaver, false);
        let left = |world: &World| world.hosts[leaver].left.is_some();
        let took = world.run_until(5 * SECOND, left);
        assert!(took.is_some(), "seed {seed}");
        assert_eq!(world.hosts[leaver].left, Some(Ok(())), "seed {seed}");
        wipe(&mut world, leaver);
        let took = world.assert_agreement();
        assert!(took < 5 * SECOND, "seed {seed}: {took:?}");
        let name = World::name(leaver);
        let owners = space(&world, stays);
        assert!(owners.iter().all(|(owner, _)| *owner != name), "seed {seed}: {owners:?}");
        assert_eq!(owners.iter().map(|(_, size)| size).sum::<u64>(), whole, "seed {seed}");
        assert!(world.status(stays).peers.iter().all(|peer| peer.nickname != name), "seed {seed}");
        assert_eq!(world.hosts[stays].mesh.as_ref().expect("it runs").endpoints().len(), 6, "seed {seed}");
        let why = |event: &peering::mesh::EventStatus| event.kind == "host_removed";
        assert!(world.status(stays).events.iter().any(why), "seed {seed}");
    }
}

#[test]
fn a_host_that_left_may_join_again_as_a_new_life_of_itself() {
    let mut world = cluster(5, 3);
    world.reset(1, false);
    world.run(2 * SECOND);
    assert_eq!(world.hosts[1].left, Some(Ok(())));
    wipe(&mut world, 1);
    world.run(5 * SECOND);
    world.launch(1, Launch::targets(&[0]));
    let request = world.attach(1, &[]);
    let took = world.run_until(10 * SECOND, |world| world.answer(request).is_some_and(Result::is_ok));
    assert!(took.is_some());
    world.assert_agreement();
    world.assert_no_duplicates();
}

#[test]
fn without_anybody_alive_only_force_leaves() {
    let mut world = cluster(6, 3);
    world.crash(0, false);
    world.crash(2, false);
    world.run(15 * SECOND);
    world.reset(1, false);
    world.run(3 * SECOND);
    assert_eq!(world.hosts[1].left, Some(Err(LeaveError::NobodyTakes)));
    let request = world.attach(1, &[]);
    world.run(SECOND);
    assert!(world.answer(request).is_some_and(Result::is_ok), "it goes on as before");
    world.reset(1, true);
    world.run(3 * SECOND);
    assert_eq!(world.hosts[1].left, Some(Ok(())));
}

#[test]
fn a_successor_that_dies_on_the_way_is_replaced_by_another() {
    for seed in 0..8 {
        let mut world = cluster(seed, 3);
        // One of the two is cut off, and not yet held to be down.
        world.cut(0, 2);
        world.cut(2, 0);
        world.reset(2, false);
        let took = world.run_until(10 * SECOND, |world| world.hosts[2].left.is_some());
        assert!(took.is_some(), "seed {seed}");
        assert_eq!(world.hosts[2].left, Some(Ok(())), "seed {seed}");
        wipe(&mut world, 2);
        world.heal();
        world.assert_agreement();
        assert!(space(&world, 0).iter().all(|(owner, _)| *owner != World::name(2)), "seed {seed}");
    }
}

#[test]
fn the_last_host_of_a_cluster_just_goes() {
    let mut world = World::new(7, 1);
    world.launch(0, Launch::targets(&[]));
    world.attach(0, &[]);
    world.run(SECOND);
    world.reset(0, false);
    world.run(SECOND);
    assert_eq!(world.hosts[0].left, Some(Ok(())));
}

#[test]
fn two_hosts_that_leave_at_once_do_not_give_their_space_to_each_other() {
    for seed in 0..8 {
        let mut world = cluster(seed, 3);
        world.reset(0, false);
        world.reset(1, false);
        let both = |world: &World| world.hosts[0].left.is_some() && world.hosts[1].left.is_some();
        assert!(world.run_until(10 * SECOND, both).is_some(), "seed {seed}");
        wipe(&mut world, 0);
        wipe(&mut world, 1);
        world.assert_agreement();
        let owners = space(&world, 2);
        assert!(owners.iter().all(|(owner, _)| *owner == World::name(2)), "seed {seed}: {owners:?}");
    }
}
