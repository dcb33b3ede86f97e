//! A cluster goes over from one secret to another while messages are lost, disks are full and hosts die.

#![allow(clippy::expect_used, reason = "tests may fail")]

mod sim;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use peering::mesh::RotateError;
use peering::proto::Message;
use rand::RngExt;
use sim::secrets::{SECOND, all_take_only, cluster, events, names, watch, watch_until_done};
use sim::{Loss, World, secret};

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
