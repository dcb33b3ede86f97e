//! A cluster goes over from one secret to another, whatever happens meanwhile.

#![allow(clippy::expect_used, reason = "tests may fail")]

mod sim;

use std::collections::BTreeSet;
use std::time::Duration;

use peering::mesh::{PeerState, RotateError};
use peering::secret::SecretName;
use rand::RngExt;
use sim::{Launch, Loss, World, secret};

const SECOND: Duration = Duration::from_secs(1);

/// Hosts with the secret 1 that agree.
fn cluster(seed: u64, hosts: usize) -> World {
    let mut world = World::new(seed, hosts);
    let targets: Vec<usize> = (0..hosts).collect();
    for number in 0..hosts {
        world.launch(number, Launch::targets(&targets).with_secret(1));
    }
    world.assert_agreement();
    world
}

fn names(world: &World, number: usize) -> Vec<SecretName> {
    world.hosts[number].mesh.as_ref().map_or_else(Vec::new, |mesh| mesh.keyring().names())
}

fn takes_only(world: &World, number: usize, byte: u8) -> bool {
    names(world, number) == [secret(byte).name()]
}

fn all_take_only(world: &World, byte: u8) -> bool {
    world.running().iter().all(|&number| takes_only(world, number, byte))
}

/// The law of a rotation: whatever happens, any two hosts that run have a secret in common.
fn assert_common(world: &World) {
    let running = world.running();
    for (at, &one) in running.iter().enumerate() {
        for &other in &running[at + 1..] {
            let (ours, theirs) = (names(world, one), names(world, other));
            let common = ours.iter().any(|name| theirs.contains(name));
            assert!(common, "seed {}: {one} {ours:?} and {other} {theirs:?} are apart", world.seed);
        }
    }
}

/// Lets time pass, and looks at the law every 20 ms.
fn watch(world: &mut World, time: Duration) {
    let end = world.now + time;
    while world.now < end {
        world.run(Duration::from_millis(20));
        assert_common(world);
    }
}

/// Watches until every host takes one secret alone; which one.
fn watch_until_done(world: &mut World, limit: Duration) -> SecretName {
    let end = world.now + limit;
    loop {
        let all: BTreeSet<Vec<SecretName>> =
            world.running().into_iter().map(|number| names(world, number)).collect();
        match Vec::from_iter(all).as_slice() {
            [one] if one.len() == 1 && one[0] != secret(1).name() => return one[0],
            all if world.now >= end => {
                world.tell_all();
                panic!("seed {}: not over after {limit:?}: {all:?}", world.seed);
            }
            _ => watch(world, Duration::from_millis(100)),
        }
    }
}

fn events(world: &World, at: usize, kind: &str) -> usize {
    world.status(at).events.iter().filter(|event| event.kind == kind).count()
}

#[test]
fn every_host_goes_over_within_seconds_and_no_connection_ends() {
    for seed in 0..5 {
        let mut world = cluster(seed, 5);
        world.run(20 * SECOND);
        world.closes.clear();
        assert_eq!(world.rotate(2, Some(2), false), Ok(()));
        assert_eq!(watch_until_done(&mut world, 10 * SECOND), secret(2).name());
        watch(&mut world, 30 * SECOND);
        assert!(world.closes.is_empty(), "seed {seed}: {:?}", world.closes);
        let status = world.status(4);
        let rotation = status.rotation.expect("there was one");
        assert!(rotation.phase == "done" && rotation.hosts.len() == 5, "{rotation:?}");
        assert!(rotation.hosts.iter().all(|host| host.has && host.uses), "{rotation:?}");
        assert_eq!(status.refused.len(), 0, "{:?}", status.refused);
        for at in 0..5 {
            assert_eq!(events(&world, at, "host_down") + events(&world, at, "host_suspect"), 0);
        }
        // Said again it changes nothing, and the former one does not come back.
        assert_eq!(world.rotate(0, Some(2), false), Ok(()));
        assert_eq!(world.rotate(0, Some(1), false), Err(RotateError::Retired));
        assert_eq!(world.rotate(0, None, false), Err(RotateError::None));
        // And once more.
        assert_eq!(world.rotate(0, Some(3), false), Ok(()));
        watch(&mut world, 10 * SECOND);
        assert!(all_take_only(&world, 3));
    }
}

#[test]
fn a_restart_with_the_old_file_uses_what_was_kept() {
    let mut world = cluster(7, 4);
    world.rotate(0, Some(2), false).expect("it begins");
    watch_until_done(&mut world, 10 * SECOND);
    for number in 0..4 {
        world.crash_with(number, Loss::Nothing, Duration::ZERO);
    }
    for number in 0..4 {
        world.restart(number);
    }
    world.assert_agreement();
    assert!(all_take_only(&world, 2));
}

#[test]
fn hosts_that_are_down_are_waited_for_unless_people_leave_them_behind() {
    for seed in 0..5 {
        let mut world = cluster(seed, 5);
        world.crash_with(4, Loss::Nothing, Duration::ZERO);
        world.run_until(15 * SECOND, |world| world.peer_state(0, 4) == Some(PeerState::Down)).expect("down");
        world.rotate(0, Some(2), false).expect("it begins");
        watch(&mut world, 30 * SECOND);
        let waits = world.status(1).rotation.expect("it is under way");
        let missing: Vec<_> = waits.hosts.iter().filter(|host| !host.has).collect();
        assert!(waits.phase == "prefer" && missing.len() == 1 && missing[0].nickname == "host4", "{waits:?}");
        if seed == 0 {
            // It comes back in time.
            world.restart(4);
            assert_eq!(watch_until_done(&mut world, 20 * SECOND), secret(2).name());
            continue;
        }
        world.rotate(usize::from(seed > 2), None, true).expect("it goes on");
        assert_eq!(watch_until_done(&mut world, 10 * SECOND), secret(2).name());
        world.restart(4);
        world.run(30 * SECOND);
        assert!(takes_only(&world, 4, 1), "it got the secret after all");
        assert!(world.alive(4).is_empty() && world.alive(0).len() == 3, "seed {seed}: it is not cut off");
        assert_eq!(events(&world, 4, "secret_retired"), 1);
        let status = world.target_status(4, 0);
        assert!(
            status.reason.as_deref().is_some_and(|reason| reason.contains("no longer taken")),
            "{status:?}"
        );
        assert!(world.status(0).refused.contains_key("retired_secret_there"));
        // With the secret of the others it is one of them again.
        world.crash_with(4, Loss::Nothing, Duration::ZERO);
        let launch = world.hosts[4].launch.clone().with_secret(2);
        world.launch(4, launch);
        world.assert_agreement_within(40 * SECOND);
        assert!(all_take_only(&world, 2));
    }
}

#[test]
fn the_larger_part_goes_on_alone_after_a_while() {
    let mut world = cluster(3, 5);
    world.partition(&[0, 1, 2], &[3, 4]);
    world.run(20 * SECOND);
    world.rotate(0, Some(2), false).expect("it begins");
    world.rotate(4, Some(3), false).expect("it begins there too");
    world.run(330 * SECOND);
    assert!((0..3).all(|number| takes_only(&world, number, 2)), "the larger part waits for ever");
    assert!(
        (3..5).all(|number| names(&world, number).contains(&secret(1).name())),
        "the smaller part went on"
    );
    world.heal();
    world.run(30 * SECOND);
    for number in 3..5 {
        assert_eq!(events(&world, number, "secret_retired"), 1);
    }
}

#[test]
fn a_revoked_host_does_not_get_it() {
    for seed in 0..5 {
        let mut world = cluster(seed, 5);
        assert_eq!(world.revoke_peer(1, "host3"), Ok(true));
        world.rotate(0, Some(2), false).expect("it begins");
        let others = [0, 1, 2, 4];
        world
            .run_until(15 * SECOND, |world| others.iter().all(|&number| takes_only(world, number, 2)))
            .expect("the others go over");
        world.run(30 * SECOND);
        assert!(takes_only(&world, 3, 1), "seed {seed}: it got the secret");
        let rotation = world.status(0).rotation.expect("there was one");
        assert!(rotation.hosts.len() == 4 && rotation.hosts.iter().all(|host| host.has), "{rotation:?}");
    }
}

#[test]
fn of_two_rotations_at_once_one_is_done_and_the_other_is_not() {
    for seed in 0..10 {
        let mut world = cluster(seed, 5);
        world.rotate(0, Some(2), false).expect("it begins");
        let late = Duration::from_millis(world.rng.random_range(0..60));
        watch(&mut world, late);
        let second = world.rotate(4, Some(3), false);
        let done = watch_until_done(&mut world, 20 * SECOND);
        assert!([2, 3].map(|byte| secret(byte).name()).contains(&done), "seed {seed}: {done}");
        if let Err(error) = second {
            assert!(matches!(error, RotateError::UnderWay { .. }), "{error}");
            assert_eq!(done, secret(2).name(), "seed {seed}: it was refused, and yet done");
        }
        world.assert_agreement();
    }
}

#[test]
fn two_parts_that_began_apart_end_together() {
    for seed in 0..10 {
        let mut world = cluster(seed, 6);
        world.partition(&[0, 1, 2], &[3, 4, 5]);
        world.run(20 * SECOND);
        world.rotate(0, Some(2), false).expect("it begins");
        world.rotate(5, Some(3), false).expect("it begins there too");
        watch(&mut world, 30 * SECOND);
        world.heal();
        watch_until_done(&mut world, 60 * SECOND);
        world.assert_agreement_within(30 * SECOND);
        assert_eq!(world.status(0).peers.len(), 5, "seed {seed}");
    }
}

#[test]
fn when_the_host_that_began_dies_the_others_finish_or_begin_anew() {
    let (mut finished, mut lost) = (0, 0);
    for seed in 0..20 {
        let mut world = cluster(seed, 5);
        world.hosts[0].disk_time = Duration::from_millis(5);
        world.rotate(0, Some(2), false).expect("it begins");
        let after = Duration::from_millis(world.rng.random_range(0..4000));
        watch(&mut world, after);
        let reach = Duration::from_millis(world.rng.random_range(0..10));
        world.crash_with(0, if seed % 2 == 0 { Loss::Nothing } else { Loss::LastWrite }, reach);
        watch(&mut world, 20 * SECOND);
        let begun = (1..5).any(|number| names(&world, number).contains(&secret(2).name()));
        let over = all_take_only(&world, 2);
        let again = world.rotate(3, Some(4), false);
        if over {
            finished += 1;
            assert_eq!(again, Ok(()), "seed {seed}: the next one");
        } else if begun {
            finished += 1;
            assert!(matches!(again, Err(RotateError::UnderWay { .. })), "seed {seed}: {again:?}");
            world.rotate(2, None, false).expect("it is under way");
        } else {
            lost += 1;
            assert_eq!(again, Ok(()), "seed {seed}");
        }
        // The host that began comes back as it was, and with it everybody has one secret.
        world.restart(0);
        watch_until_done(&mut world, 60 * SECOND);
        world.assert_agreement_within(40 * SECOND);
    }
    assert!(finished > 2 && lost > 2, "{finished} went on, {lost} were lost");
}

#[test]
fn nothing_that_happens_meanwhile_sets_hosts_apart() {
    for seed in 0..12 {
        let mut world = cluster(seed, 6);
        world.wires.loss = 0.05;
        world.rotate(1, Some(2), false).expect("it begins");
        for _ in 0..25 {
            let number = world.rng.random_range(0..6);
            match world.rng.random_range(0..8) {
                0 if world.running().len() > 4 && world.running().contains(&number) => {
                    let loss = if world.rng.random() { Loss::Nothing } else { Loss::LastWrite };
                    world.crash_with(number, loss, Duration::ZERO);
                }
                1 if !world.running().contains(&number) => world.restart(number),
                2 => world.partition(&[number], &[(number + 1) % 6, (number + 2) % 6]),
                3 => world.heal(),
                4 => world.hosts[number].disk_fails = true,
                5 => world.hosts[number].disk_fails = false,
                6 if world.running().contains(&number) => {
                    let to = world.rng.random_range(2..5);
                    let _ = world.rotate(number, Some(to), false);
                }
                _ => {}
            }
            let time = Duration::from_millis(world.rng.random_range(10..1500));
            watch(&mut world, time);
        }
        world.heal();
        for number in 0..6 {
            world.hosts[number].disk_fails = false;
            if !world.running().contains(&number) {
                world.restart(number);
            }
        }
        watch(&mut world, 60 * SECOND);
        // It may have been done before the last host was told, or a last one have been refused: said once more, it ends.
        if !all_equal(&world) {
            world.tell_all();
            panic!("seed {seed}: hosts have different secrets");
        }
        world.assert_agreement_within(40 * SECOND);
    }
}

fn all_equal(world: &World) -> bool {
    let all: BTreeSet<_> = world.running().into_iter().map(|number| names(world, number)).collect();
    all.len() == 1 && all.iter().all(|names| names.len() == 1)
}
