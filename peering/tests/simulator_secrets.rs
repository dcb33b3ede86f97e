//! A cluster goes over from one secret to another, whatever happens meanwhile.

#![allow(clippy::expect_used, reason = "tests may fail")]

mod sim;

use std::time::Duration;

use peering::mesh::RotateError;
use rand::RngExt;
use sim::secrets::{
    SECOND, all_take_only, cluster, cluster_without_the_last, events, names, takes_only, watch,
    watch_until_done,
};
use sim::{Launch, Loss, World, secret};

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
        // People who give it once more are told that nothing was done, and the former one does not come back.
        assert_eq!(world.rotate(0, Some(2), false), Err(RotateError::InUse(secret(2).name())));
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
        let mut world = cluster_without_the_last(seed, 5);
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
    for seed in 0..20 {
        let mut world = cluster(seed, 5);
        // Half of the time the news get lost with their connections, and are repaired.
        world.wires.loss = if seed % 2 == 0 { 0.0 } else { 0.2 };
        assert_eq!(world.revoke_peer(1, "host3"), Ok(true));
        if seed % 4 == 1 {
            [0, 2, 4].iter().for_each(|&other| world.break_connections(1, other));
        }
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
fn who_joins_with_the_old_secret_and_a_new_key_does_not_get_the_new_one() {
    for seed in 0..10 {
        let mut world = World::new(seed, 6);
        for number in 0..5 {
            world.launch(number, Launch::targets(&[0, 1, 2, 3, 4]).with_secret(1));
        }
        world.assert_agreement();
        world.run(4 * SECOND);
        assert_eq!(world.revoke_peer(0, "host3"), Ok(true));
        world.rotate(0, Some(2), false).expect("it begins");
        world.crash_with(3, Loss::Nothing, Duration::ZERO);
        // Who had host 3 comes back as another host, while the old secret is still taken.
        let late = Duration::from_millis(world.rng.random_range(20..900));
        world.run(late);
        world.launch(5, Launch::targets(&[0, 1, 2, 4]).with_secret(1));
        if seed % 2 == 1 {
            // The hosts that give it are started anew meanwhile, and know the thief then.
            world.run(Duration::from_millis(300));
            for number in [0, 1] {
                world.crash_with(number, Loss::Nothing, Duration::ZERO);
                world.restart(number);
            }
        }
        let (others, end) = ([0, 1, 2, 4], world.now + 30 * SECOND);
        while world.now < end {
            world.run(Duration::from_millis(50));
            assert!(!names(&world, 5).contains(&secret(2).name()), "seed {seed}: the thief got it");
        }
        assert!(others.iter().all(|&number| takes_only(&world, number, 2)), "seed {seed}: it was waited for");
        assert!(
            (0..5).all(|other| world.wires.live_between(5, other) == 0),
            "seed {seed}: it is not cut off"
        );
        assert_eq!(world.alive(0).len(), 3, "seed {seed}");
        let rotation = world.status(0).rotation.expect("there was one");
        let late: Vec<_> = rotation.hosts.iter().filter(|host| !host.member).collect();
        assert!(late.len() <= 1 && late.iter().all(|host| host.nickname == "host5" && !host.has), "{late:?}");
    }
}

#[test]
fn a_host_that_restarts_does_not_go_on_before_it_has_met_the_others() {
    for seed in 0..30 {
        let mut world = cluster_without_the_last(seed, 5);
        world.rotate(0, Some(2), true).expect("it begins");
        for number in [0, seed as usize % 4] {
            let after = Duration::from_millis(world.rng.random_range(0..2000));
            watch(&mut world, after);
            world.crash_with(number, Loss::Nothing, Duration::ZERO);
            world.restart(number);
        }
        assert_eq!(watch_until_done(&mut world, 30 * SECOND), secret(2).name(), "seed {seed}");
        assert_eq!(world.alive(0).len(), 3, "seed {seed}");
    }
}

#[test]
fn a_host_that_was_just_started_is_asked_too_early() {
    let mut world = cluster(1, 3);
    for number in 0..3 {
        world.crash_with(number, Loss::Nothing, Duration::ZERO);
    }
    world.restart(0);
    assert_eq!(world.rotate(0, Some(2), true), Err(RotateError::TooEarly));
    world.run(4 * SECOND);
    assert_eq!(world.rotate(0, Some(2), true), Err(RotateError::TooEarly), "the others may be late");
    world.run(4 * SECOND);
    // Nobody else is there: people may say so.
    assert_eq!(world.rotate(0, Some(2), true), Ok(()));
    world.run(SECOND);
    assert!(takes_only(&world, 0, 2));
}

#[test]
fn a_rotation_that_is_given_up_leaves_room_for_another() {
    for (seed, instead) in [(0, 1), (1, 1), (2, 7)] {
        let mut world = cluster_without_the_last(seed, 5);
        world.rotate(0, Some(2), false).expect("it begins");
        watch(&mut world, 20 * SECOND);
        assert_eq!(world.status(0).rotation.expect("it is under way").phase, "prefer");
        // People stop all hosts, remove what they keep of secrets (or give another one), and launch them.
        for number in 0..4 {
            world.stop(number);
        }
        for number in 0..5 {
            if instead == 1 {
                world.hosts[number].kept = None;
            }
            let launch = world.hosts[number].launch.clone().with_secret(instead);
            world.launch(number, launch);
        }
        world.assert_agreement_within(30 * SECOND);
        world.run(4 * SECOND);
        let rotation = world.status(2).rotation.expect("its record is there");
        assert!(rotation.lost && rotation.phase == "prefer", "{rotation:?}");
        assert_eq!(world.rotate(2, None, true), Ok(()), "there is nothing to go on with, and no harm in it");
        world.run(5 * SECOND);
        assert!(all_take_only(&world, instead), "seed {seed}");
        assert_eq!(world.rotate(3, Some(8), false), Ok(()), "seed {seed}: it is in the way");
        assert_eq!(watch_until_done(&mut world, 20 * SECOND), secret(8).name());
        assert!(!world.status(1).rotation.expect("there was one").lost);
    }
}

#[test]
fn a_host_that_is_removed_is_waited_for_no_longer() {
    let mut world = cluster_without_the_last(5, 4);
    world.rotate(0, Some(2), false).expect("it begins");
    watch(&mut world, 20 * SECOND);
    assert!(!takes_only(&world, 0, 2), "it is not waited for");
    assert_eq!(world.remove_peer(1, "host3", false), Ok(true));
    assert_eq!(watch_until_done(&mut world, 10 * SECOND), secret(2).name());
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
