//! Hosts that are removed, and what becomes of them and of what they wrote.

#![allow(clippy::expect_used, reason = "tests may fail")]

mod sim;

use std::time::Duration;

use peering::mesh::{PeerState, RemoveError};
use sim::{Launch, World};

const SECOND: Duration = Duration::from_secs(1);

fn names(world: &World, at: usize) -> Vec<String> {
    let peers = world.status(at).peers.into_iter();
    peers.map(|peer| peer.nickname).collect()
}

fn endpoints(world: &World, at: usize, of: usize) -> usize {
    let peer = world.hosts[of].peer_id();
    let mesh = world.hosts[at].mesh.as_ref().expect("it runs");
    mesh.endpoints().iter().filter(|view| view.peer == peer).count()
}

fn events(world: &World, at: usize, kind: &str) -> usize {
    world.status(at).events.iter().filter(|event| event.kind == kind).count()
}

fn wait_until_down(world: &mut World, at: usize, of: usize) {
    let down = world.run_until(15 * SECOND, |world| world.peer_state(at, of) == Some(PeerState::Down));
    down.expect("its death is known");
}

#[test]
fn a_dead_host_is_removed_by_several_at_once_and_forgotten_everywhere() {
    for seed in 0..10 {
        let mut world = World::cluster(seed, 5, 1);
        world.crash(4, true);
        for at in 0..2 {
            wait_until_down(&mut world, at, 4);
        }
        assert_eq!(world.remove_peer(0, "host4", false), Ok(true), "seed {seed}");
        assert_eq!(world.remove_peer(1, "host4", false), Ok(true), "seed {seed}");
        world.assert_agreement();
        for at in 0..4 {
            assert!(!names(&world, at).contains(&"host4".to_owned()), "seed {seed}: {at}");
            assert_eq!(endpoints(&world, at, 4), 0);
            assert_eq!(events(&world, at, "host_removed"), 1);
            assert_eq!(world.remove_peer(at, "host4", false), Ok(false), "it is removed");
        }
        world.assert_no_duplicates();
    }
}

#[test]
fn a_live_host_is_removed_by_force_only_and_comes_back_with_its_containers() {
    for seed in 0..10 {
        let mut world = World::cluster(seed, 4, 1);
        assert_eq!(world.remove_peer(1, "host2", false), Err(RemoveError::Alive("host2".to_owned())));
        assert_eq!(world.remove_peer(1, "host1", true), Err(RemoveError::Oneself("host1".to_owned())));
        assert_eq!(world.remove_peer(1, "host9", true), Err(RemoveError::Unknown("host9".to_owned())));
        assert_eq!(world.remove_peer(1, "host2", true), Ok(true));
        world.assert_agreement();
        for at in 0..4 {
            assert_eq!(endpoints(&world, at, 2), 1, "seed {seed}: {at}");
        }
        assert_eq!(events(&world, 2, "removed_itself"), 1);
        assert_eq!(events(&world, 1, "host_returned"), 1);
        world.assert_no_duplicates();
        // Removals do not pile up: it can be done again.
        assert_eq!(world.remove_peer(3, "host2", true), Ok(true));
        world.assert_agreement();
        assert_eq!(endpoints(&world, 0, 2), 1);
    }
}

#[test]
fn a_removed_host_returns_with_an_old_disk_or_none_and_brings_nothing_back() {
    for seed in 0..20 {
        let mut world = World::cluster(seed, 4, 1);
        let doomed = world.attach(1, &[]);
        world.run(5 * SECOND);
        world.crash(3, seed % 2 == 0);
        wait_until_down(&mut world, 0, 3);
        world.detach(1, doomed);
        assert_eq!(world.remove_peer(0, "host3", false), Ok(true));
        world.run(30 * SECOND);
        world.restart(3);
        world.assert_agreement();
        for at in 0..4 {
            assert_eq!(endpoints(&world, at, 1), 1, "seed {seed}: what was deleted stays so");
            assert_eq!(endpoints(&world, at, 3), 1, "seed {seed}: what it owns is told again");
        }
        assert!(names(&world, 0).contains(&"host3".to_owned()));
    }
}

#[test]
fn a_host_cut_off_is_removed_and_learns_it_when_the_wire_is_mended() {
    for seed in 0..20 {
        let mut world = World::cluster(seed, 5, 1);
        world.partition(&[0, 1, 2], &[3, 4]);
        wait_until_down(&mut world, 0, 3);
        wait_until_down(&mut world, 1, 4);
        wait_until_down(&mut world, 3, 0);
        // Each side removes of the other.
        assert_eq!(world.remove_peer(0, "host3", false), Ok(true));
        assert_eq!(world.remove_peer(1, "host4", false), Ok(true));
        if seed % 2 == 0 {
            assert_eq!(world.remove_peer(3, "host0", false), Ok(true));
        }
        world.run(10 * SECOND);
        world.heal();
        world.assert_agreement();
        for at in 0..5 {
            for of in 0..5 {
                assert_eq!(endpoints(&world, at, of), 1, "seed {seed}: of {of} at {at}");
            }
        }
    }
}

#[test]
fn a_host_that_joins_late_learns_of_removals() {
    let mut world = World::new(3, 4);
    for number in 0..3 {
        world.launch(number, Launch::targets(&[0, 1, 2]));
    }
    world.assert_agreement();
    world.crash(2, false);
    wait_until_down(&mut world, 0, 2);
    assert_eq!(world.remove_peer(0, "host2", false), Ok(true));
    world.launch(3, Launch::targets(&[0]));
    world.assert_agreement();
    assert!(!names(&world, 3).contains(&"host2".to_owned()));
    assert_eq!(world.remove_peer(3, "host2", false), Ok(false));
}

#[test]
fn a_revoked_host_is_cut_off_everywhere_at_once_and_stays_so() {
    for seed in 0..10 {
        let mut world = World::cluster(seed, 5, 1);
        assert_eq!(world.revoke_peer(1, "host1"), Err(RemoveError::Oneself("host1".to_owned())));
        assert_eq!(world.revoke_peer(1, "host9"), Err(RemoveError::Unknown("host9".to_owned())));
        assert_eq!(world.revoke_peer(1, "host4"), Ok(true));
        let cut_off = |world: &World| {
            let gone = |at| endpoints(world, at, 4) == 0 && !names(world, at).contains(&"host4".to_owned());
            let linked = |at| world.wires.live_between(at, 4);
            (0..4).all(|at| gone(at) && linked(at) == 0)
        };
        let time = world.run_until(3 * SECOND, cut_off).expect("it is cut off");
        assert!(time < 3 * SECOND, "seed {seed}: {time:?}");
        // It tries again, and is started again under a higher incarnation; others, too.
        world.run(40 * SECOND);
        for number in [4, 2] {
            world.crash(number, false);
            world.restart(number);
        }
        world.run(40 * SECOND);
        assert!(cut_off(&world), "seed {seed}: it came back");
        let refused = |at| world.status(at).refused.get("revoked").copied().unwrap_or(0);
        assert!((0..4).map(refused).sum::<u64>() > 0 && refused(4) > 0, "seed {seed}: it is counted");
        assert_eq!(world.revoke_peer(0, "host4"), Ok(false), "it is revoked");
        assert_eq!(world.remove_peer(0, "host4", false), Ok(false), "and removed");
        let request = world.attach(3, &[]);
        world.run_until(10 * SECOND, |world| world.answer(request).is_some()).expect("an address");
        world.assert_no_duplicates();
    }
}

#[test]
fn a_host_that_was_away_learns_of_a_revocation_before_it_believes_the_revoked() {
    let mut world = World::cluster(3, 4, 1);
    world.partition(&[0, 1], &[2, 3]);
    world.run(SECOND);
    assert_eq!(world.revoke_peer(0, "host3"), Ok(true));
    world.run(20 * SECOND);
    assert_eq!(endpoints(&world, 2, 3), 1, "nobody told it");
    world.heal();
    let learnt = |world: &World| endpoints(world, 2, 3) == 0 && endpoints(world, 0, 3) == 0;
    world.run_until(20 * SECOND, learnt).expect("it learns");
    world.run(20 * SECOND);
    assert!(learnt(&world) && world.wires.live_between(2, 3) == 0);
}
