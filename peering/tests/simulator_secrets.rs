//! A cluster goes over from one secret to another, whatever happens meanwhile.

#![allow(clippy::expect_used, reason = "tests may fail")]

mod sim;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use peering::mesh::{PeerState, RotateError};
use peering::proto::Message;
use peering::secret::SecretName;
use rand::RngExt;
use sim::{Launch, Loss, World, secret};

const SECOND: Duration = Duration::from_secs(1);

/// Hosts with the secret 1 that agree, and have found so.
fn cluster(seed: u64, hosts: usize) -> World {
    let mut world = World::new(seed, hosts);
    let targets: Vec<usize> = (0..hosts).collect();
    for number in 0..hosts {
        world.launch(number, Launch::targets(&targets).with_secret(1));
    }
    world.assert_agreement();
    world.run(4 * SECOND);
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
        let mut world = cluster(seed, 5);
        world.crash_with(4, Loss::Nothing, Duration::ZERO);
        world.run_until(15 * SECOND, |world| world.peer_state(0, 4) == Some(PeerState::Down)).expect("down");
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
        let mut world = cluster(seed, 5);
        world.crash_with(4, Loss::Nothing, Duration::ZERO);
        world.run_until(15 * SECOND, |world| world.peer_state(0, 4) == Some(PeerState::Down)).expect("down");
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
    let mut world = cluster(5, 4);
    world.crash_with(3, Loss::Nothing, Duration::ZERO);
    world.run_until(15 * SECOND, |world| world.peer_state(0, 3) == Some(PeerState::Down)).expect("down");
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

#[test]
fn who_does_not_get_the_answer_asks_again() {
    for (seed, hosts) in [(0, 2), (1, 2), (2, 3), (3, 5), (4, 5), (5, 5)] {
        let mut world = cluster(seed, hosts);
        // Who asked, and when; who was to get the answer that was lost, and when that was.
        let asked = Rc::new(RefCell::new(Vec::new()));
        let lost = Rc::new(RefCell::new(None));
        let (asks, loses) = (Rc::clone(&asked), Rc::clone(&lost));
        world.loses = Some(Box::new(move |(from, to), message| match message {
            Message::SecretRequest(_) => {
                asks.borrow_mut().push(from);
                false
            }
            Message::SecretAnswer(_) if loses.borrow().is_none() => {
                *loses.borrow_mut() = Some((to, asks.borrow().len()));
                true
            }
            _ => false,
        }));
        world.rotate(0, Some(2), false).expect("it begins");
        assert_eq!(watch_until_done(&mut world, 15 * SECOND), secret(2).name(), "seed {seed}");
        let (asker, before) = lost.borrow().expect("an answer was sent");
        let again = asked.borrow()[before..].iter().filter(|from| **from == asker).count();
        assert!((1..=8).contains(&again), "seed {seed}: {asker} asked {again} times more");
        world.assert_agreement();
    }
}

#[test]
fn a_host_without_room_keeps_to_the_old_secret_and_says_so_until_there_is_room() {
    for seed in 0..12 {
        let mut world = cluster(seed, 4);
        // Also the host on which people say it.
        let full = seed as usize % 4;
        world.hosts[full].disk_fails = true;
        world.rotate(0, Some(2), false).expect("it begins");
        watch(&mut world, 20 * SECOND);
        assert_eq!(events(&world, full, "store_failed"), 1, "seed {seed}");
        let kept = world.hosts[full].kept.as_ref().map(|kept| kept.names());
        assert!(kept.is_none_or(|names| names == [secret(1).name()]), "seed {seed}: it was written");
        // Nobody prefers the new one: a start of the full host could not prove it.
        for number in 0..4 {
            assert_eq!(names(&world, number)[0], secret(1).name(), "seed {seed}: host {number}");
        }
        let rotation = world.status((full + 1) % 4).rotation;
        match full {
            // Nobody was told of a secret that its host may forget.
            0 => assert!((1..4).all(|number| names(&world, number).len() == 1), "seed {seed}: {rotation:?}"),
            _ => {
                let rotation = rotation.expect("it is under way");
                let lacking: Vec<_> = rotation.hosts.iter().filter(|host| !host.has).collect();
                assert!(rotation.phase == "spread" && lacking.len() == 1, "seed {seed}: {rotation:?}");
                assert_eq!(lacking[0].nickname, World::name(full), "seed {seed}");
            }
        }
        // The old one lets hosts in: connections come again, and the host itself may be started anew.
        if seed < 4 {
            (0..4).filter(|other| *other != full).for_each(|other| world.break_connections(full, other));
        } else if full != 0 {
            world.crash_with(full, Loss::Nothing, Duration::ZERO);
            world.restart(full);
        }
        watch(&mut world, 15 * SECOND);
        assert!((0..4).all(|number| world.alive(number).len() == 3), "seed {seed}: one is cut off");
        world.hosts[full].disk_fails = false;
        assert_eq!(watch_until_done(&mut world, 15 * SECOND), secret(2).name(), "seed {seed}");
        assert_eq!(events(&world, full, "store_works"), 1, "seed {seed}");
        world.assert_agreement();
    }
}

#[test]
fn a_disk_that_fills_up_on_the_way_delays_the_rotation_and_no_more() {
    let mut delayed = 0;
    for seed in 0..20 {
        let mut world = cluster(seed, 4);
        world.rotate(0, Some(2), false).expect("it begins");
        let after = Duration::from_millis(world.rng.random_range(0..4000));
        watch(&mut world, after);
        let full = world.rng.random_range(0..4);
        world.hosts[full].disk_fails = true;
        watch(&mut world, 15 * SECOND);
        delayed += u32::from(world.status(0).rotation.is_some_and(|it| it.phase != "done"));
        // Whatever its disk has, the others take it.
        world.crash_with(full, Loss::Nothing, Duration::ZERO);
        world.restart(full);
        watch(&mut world, 15 * SECOND);
        assert!((0..4).all(|number| world.alive(number).len() == 3), "seed {seed}: one is cut off");
        world.hosts[full].disk_fails = false;
        assert_eq!(watch_until_done(&mut world, 15 * SECOND), secret(2).name(), "seed {seed}");
    }
    assert!((5..20).contains(&delayed), "{delayed} of 20 were under way");
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
        // The last one may have been given up, or refused: said once more, it ends.
        let under_way = world.status(0).rotation.is_some_and(|it| it.phase != "done" && !it.lost);
        world.rotate(0, if under_way { None } else { Some(9) }, false).expect("everybody is there");
        watch_until_done(&mut world, 60 * SECOND);
        world.assert_agreement_within(40 * SECOND);
    }
}
