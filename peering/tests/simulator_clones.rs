//! Two hosts with one key: the one that is established keeps the identity, and the others notice nothing of the clone.

#![allow(clippy::expect_used, reason = "tests may fail")]

mod sim;

use std::time::Duration;

use peering::mesh::AllocError;
use sim::{Launch, World};

const SECOND: Duration = Duration::from_secs(1);
/// By then the others know the death, the clone has asked again, and nobody has refused it for a while.
const TAKES_OVER: Duration = Duration::from_secs(60);

fn states(world: &World) -> Vec<String> {
    world.running().into_iter().map(|number| world.status(number).state_hash).collect()
}

fn events(world: &World, at: usize, kind: &str) -> usize {
    world.status(at).events.iter().filter(|event| event.kind == kind).count()
}

fn refusal(world: &mut World, number: usize) -> Option<String> {
    let request = world.attach(number, &[]);
    match world.await_answer(request) {
        Err(AllocError::Clone { other }) => Some(other),
        _ => None,
    }
}

/// It is told where the other is, and gives no address.
fn assert_told(world: &mut World, clone: usize, of: usize) {
    let told = world.run_until(5 * SECOND, |world| world.waits(clone));
    assert!(told.is_some(), "seed {}: nobody tells the clone", world.seed);
    let other = refusal(world, clone).expect("it gives no address");
    assert!(other.contains(&World::addr(of).to_string()), "seed {}: {other}", world.seed);
    assert_eq!(events(world, clone, "clone_seen"), 1, "seed {}", world.seed);
}

#[test]
fn a_clone_of_a_live_host_is_told_and_changes_nothing() {
    for seed in 0..40 {
        let hosts = 2 + seed as usize % 4;
        let mut world = World::cluster(seed, hosts, 2);
        let of = seed as usize % hosts;
        world.run(5 * SECOND);
        let before = states(&world);
        let all: Vec<usize> = (0..hosts).collect();
        let targets = if seed % 2 == 0 { &all[..] } else { &all[(of + 1) % hosts..][..1] };
        let clone = world.launch_clone(of, Launch::targets(targets));
        assert_told(&mut world, clone, of);
        for _ in 0..200 {
            world.run(SECOND.mul_f64(0.5));
            assert_eq!(states(&world), before, "seed {seed}: at {:?}", world.elapsed());
            assert!(world.agree(), "seed {seed}: a host is missed");
            assert!(world.waits(clone), "seed {seed}");
        }
        assert_eq!(events(&world, of, "clone_seen"), 1, "seed {seed}");
        assert!(world.running().into_iter().all(|at| events(&world, at, "host_suspect") == 0));
        for number in 0..hosts {
            let request = world.attach(number, &[]);
            assert!(world.await_answer(request).is_ok(), "seed {seed}: {number} gets no address");
        }
        assert_eq!(events(&world, clone, "clone_seen"), 1, "seed {seed}");
        world.assert_agreement();
        world.assert_no_duplicates();
    }
}

#[test]
fn a_clone_goes_on_when_the_other_is_gone_and_that_one_is_the_clone_then() {
    for seed in 0..20 {
        let mut world = World::cluster(seed, 4, 2);
        let clone = world.launch_clone(1, Launch::targets(&[0, 1, 2, 3]));
        assert_told(&mut world, clone, 1);
        world.run(SECOND.mul_f64(seed as f64));
        assert!(world.waits(clone), "seed {seed}");
        world.lose_power(1);
        let took = world.run_until(TAKES_OVER, |world| !world.waits(clone));
        assert!(took.is_some(), "seed {seed}: it waits for a host that is gone");
        assert_eq!(events(&world, clone, "clone_gone"), 1);
        let request = world.attach(clone, &[]);
        assert!(world.await_answer(request).is_ok(), "seed {seed}: {:?}", world.answer(request));
        world.run(10 * SECOND);
        world.assert_no_duplicates();

        world.restart(1);
        assert_told(&mut world, 1, clone);
        world.run(60 * SECOND);
        assert!(world.waits(1) && !world.waits(clone), "seed {seed}");
    }
}

#[test]
fn a_restarted_host_is_no_clone_of_itself_while_one_waits() {
    for seed in 0..20 {
        let mut world = World::cluster(seed, 3, 2);
        let clone = world.launch_clone(1, Launch::targets(&[0, 2]));
        assert_told(&mut world, clone, 1);
        world.crash(1, seed % 2 == 0);
        world.run(SECOND.mul_f64(0.1));
        world.restart(1);
        world.run(15 * SECOND);
        // The clone was refused less than 35 s ago: it does not take the place of a host that is away for a moment.
        assert!(!world.waits(1), "seed {seed}: it takes itself for a clone");
        assert!(world.waits(clone), "seed {seed}: both go on");
        world.assert_agreement();
    }
}

#[test]
fn of_two_that_went_on_apart_one_gives_way_when_they_meet() {
    for seed in 0..20 {
        let mut world = World::cluster(seed, 5, 2);
        world.run(SECOND.mul_f64(4.0 + seed as f64));
        world.partition(&[0, 1], &[2, 3, 4, 5]);
        let clone = world.launch_clone(1, Launch::targets(&[0, 1, 2, 3, 4]));
        for (a, b) in [(0, clone), (1, clone)] {
            world.cut(a, b);
            world.cut(b, a);
        }
        world.run(SECOND.mul_f64(20.0));
        assert!(!world.waits(clone), "seed {seed}: nobody could tell it");
        world.heal();
        let decided = world.run_until(10 * SECOND, |world| world.waits(clone) != world.waits(1));
        assert!(decided.is_some(), "seed {seed}: nobody gives way");
        assert!(world.waits(clone), "seed {seed}: the one that was there first gives way");
        world.assert_agreement();
        assert!(refusal(&mut world, clone).is_some());
    }
}

#[test]
fn a_copy_of_a_host_that_is_alone_asks_that_one_and_gives_way() {
    for seed in 0..20 {
        let mut world = World::new(seed, 1);
        // A hello may wait for the disk when the other one's arrives.
        world.hosts[0].disk_time = Duration::from_millis(20 * (seed % 3));
        world.launch(0, Launch { found: true, ..Launch::targets(&[0]) });
        let request = world.attach(0, &[]);
        assert!(world.await_answer(request).is_ok(), "seed {seed}");
        world.run(3 * SECOND);
        let clone = world.launch_clone(0, Launch::targets(&[1, 0]));
        assert_told(&mut world, clone, 0);
        world.run(SECOND);
        let targets: Vec<_> = world.status(clone).targets.into_iter().map(|t| (t.target, t.reason)).collect();
        assert!(targets[0].1.as_deref().is_some_and(|why| why.starts_with("clone")), "{targets:?}");
        assert_eq!(targets[1], (World::name(1), Some("self".to_owned())), "seed {seed}");
        world.run(60 * SECOND);
        assert!(world.waits(clone) && !world.waits(0), "seed {seed}");
        assert_eq!(events(&world, 0, "clone_seen"), 1, "seed {seed}");
    }
}

#[test]
fn a_clone_in_a_crowd_is_found_out_and_what_it_said_is_undone() {
    for seed in 0..2 {
        let mut world = World::new(seed, 24);
        world.launch_all();
        world.assert_agreement();
        let request = world.attach(7, &[]);
        assert!(world.await_answer(request).is_ok());
        world.run(20 * SECOND);
        // At the beginning everybody connects to everybody; who met later chooses.
        let fewest = (0..24).filter(|&n| n != 7).min_by_key(|&n| world.wires.live_between(n, 7));
        let stranger = fewest.expect("there are others");
        world.break_connections(7, stranger);
        let clone = world.launch_clone(7, Launch::targets(&[stranger]));
        assert_told(&mut world, clone, 7);
        world.run(30 * SECOND);
        assert!(world.waits(clone) && !world.waits(7), "seed {seed}");
        world.assert_agreement();
        let shown = |n: usize| {
            let mesh = world.hosts[n].mesh.as_ref().expect("it runs");
            mesh.endpoints().iter().filter(|view| view.peer == world.hosts[7].peer_id()).count()
        };
        assert!((0..24).all(|n| shown(n) == 1), "seed {seed}: an endpoint is lost");
    }
}
