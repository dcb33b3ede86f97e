//! Deletions: they never come back, and what remembers them goes.

#![allow(clippy::expect_used, reason = "tests may fail")]

mod sim;

use std::time::Duration;

use peering::mesh::{PeerState, RequestId};
use sim::World;

const SECOND: Duration = Duration::from_secs(1);

fn attach(world: &mut World, number: usize) -> RequestId {
    let request = world.attach(number, &[]);
    while world.answer(request).is_none() {
        world.run(Duration::from_millis(5));
    }
    request
}

fn held(world: &World, number: usize) -> (usize, usize) {
    world.hosts[number].mesh.as_ref().expect("it runs").records_held()
}

/// Endpoints are born and die on a host.
fn churn(world: &mut World, number: usize, times: usize) {
    for _ in 0..times {
        let request = attach(world, number);
        world.detach(number, request);
        world.run(Duration::from_millis(5));
    }
}

fn endpoints(world: &World, number: usize) -> usize {
    world.hosts[number].mesh.as_ref().expect("it runs").endpoints().len()
}

#[test]
fn births_and_deaths_leave_a_bounded_number_of_records() {
    // `MESHNET_BIRTHS=10000` takes minutes.
    let births = std::env::var("MESHNET_BIRTHS").ok().and_then(|text| text.parse().ok()).unwrap_or(900);
    let mut world = World::cluster(1, 3, 1);
    let mut most = (0, 0);
    for round in 0..births / 100 {
        churn(&mut world, round % 3, 100);
        let held = held(&world, 2);
        most = (most.0.max(held.0), most.1.max(held.1));
    }
    world.run(20 * SECOND);
    world.assert_agreement();
    println!("{births} births: at most {most:?} records and bytes, {:?} at the end", held(&world, 2));
    assert!(most.0 < 800 && most.1 < 200_000, "{most:?} records and bytes");
    for number in 0..3 {
        let (records, bytes) = held(&world, number);
        assert!(records < 250 && bytes < 80_000, "host{number} keeps {records} records, {bytes} bytes");
        assert_eq!(endpoints(&world, number), 3);
    }
}

#[test]
fn a_tombstone_waits_for_a_host_that_is_away_until_it_returns_or_is_removed() {
    for removed in [false, true] {
        let mut world = World::cluster(2, 4, 1);
        world.crash(3, false);
        churn(&mut world, 0, 200);
        world.run(30 * SECOND);
        assert!(held(&world, 1).0 > 200, "host3 has not confirmed: {:?}", held(&world, 1));
        assert_eq!(world.peer_state(1, 3), Some(PeerState::Down));
        if removed {
            assert_eq!(world.remove_peer(2, "host3", false), Ok(true));
        } else {
            world.restart(3);
        }
        world.run(30 * SECOND);
        assert!(held(&world, 1).0 < 100, "they are gone: {:?}", held(&world, 1));
        if removed {
            world.restart(3);
        }
        world.assert_agreement();
        assert_eq!(endpoints(&world, 0), 4, "nothing came back");
        assert_eq!(endpoints(&world, 3), 4);
    }
}

#[test]
fn an_old_snapshot_brings_nothing_back() {
    for (seed, of) in [(3, 1), (4, 0), (5, 2)] {
        let mut world = World::cluster(seed, 3, 1);
        let doomed: Vec<RequestId> = (0..80).map(|_| attach(&mut world, 0)).collect();
        world.run(5 * SECOND);
        let snapshot = world.hosts[of].disk.clone();
        for request in doomed {
            world.detach(0, request);
            world.run(Duration::from_millis(10));
        }
        world.run(20 * SECOND);
        assert!(held(&world, 1).0 < 80, "the tombstones are gone: {:?}", held(&world, 1));
        world.crash(of, false);
        world.hosts[of].disk = snapshot;
        world.restart(of);
        world.assert_agreement();
        for number in 0..3 {
            assert_eq!(endpoints(&world, number), 3, "seed {seed}");
        }
    }
}
