//! Promises of the control plane, each with several hosts under a virtual clock.

mod sim;

use std::time::Duration;

use peering::mesh::{MeshEvent, PeerState, TargetState};
use sim::{Launch, World};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn hosts_that_know_a_common_peer_find_each_other() {
    for seed in 0..20 {
        let mut world = World::new(seed, 3);
        world.launch(0, Launch::targets(&[1]));
        world.launch(1, Launch::targets(&[]));
        world.launch(2, Launch::targets(&[1]));
        let took = world.assert_agreement_within(2 * SECOND);
        world.run(3 * SECOND);
        assert_eq!(world.wires.live_between(0, 2), 1, "seed {seed}: A and C are connected");
        assert!(took < SECOND, "seed {seed}: {took:?}");
    }
}

#[test]
fn all_hosts_may_be_given_the_same_list() {
    for seed in 0..20 {
        let mut world = World::new(seed, 5);
        world.launch_all();
        world.assert_agreement_within(2 * SECOND);
        for number in 0..5 {
            let own = world.target_status(number, number);
            assert_eq!((own.state, own.reason.as_deref()), (TargetState::Established, Some("self")));
        }
    }
}

#[test]
fn simultaneous_dials_end_with_one_connection() {
    for seed in 0..50 {
        let mut world = World::new(seed, 4);
        world.launch_all();
        world.assert_agreement_within(2 * SECOND);
        world.run(5 * SECOND);
        for a in 0..4 {
            for b in 0..a {
                assert_eq!(world.wires.live_between(a, b), 1, "seed {seed}: {a} and {b}");
            }
            for b in (0..4).filter(|b| *b != a) {
                assert_eq!(world.target_status(a, b).state, TargetState::Established);
            }
        }
    }
}

#[test]
fn an_unreachable_target_is_retried_and_found_when_it_comes() {
    let mut world = World::new(1, 2);
    world.launch(0, Launch::targets(&[1, 7]));
    world.run(60 * SECOND);
    let missing = world.target_status(0, 1);
    assert_eq!(missing.reason.as_deref(), Some("no answer"));
    assert_eq!(world.target_status(0, 7).reason.as_deref(), Some("no such name"));
    assert!(missing.next_try_s.is_some() || missing.state == TargetState::Resolving);
    world.launch(1, Launch::targets(&[]));
    world.assert_agreement();
    assert_eq!(world.target_status(0, 1).state, TargetState::Established);
}

#[test]
fn a_death_is_known_in_less_than_ten_seconds_and_endpoints_are_suspended() {
    for seed in 0..20 {
        let mut world = World::new(seed, 5);
        world.launch_all();
        world.assert_agreement();
        world.run(20 * SECOND);
        world.crash(3, false);
        let known =
            |world: &World| world.running().iter().all(|&n| world.peer_state(n, 3) == Some(PeerState::Down));
        let took = world.run_until(10 * SECOND, known);
        assert!(took.is_some(), "seed {seed}: not known after ten seconds");
        world.restart(3);
        world.assert_agreement();
    }
}

#[test]
fn a_stop_is_known_at_once() {
    let mut world = World::new(3, 5);
    world.launch_all();
    world.assert_agreement();
    world.run(10 * SECOND);
    world.stop(2);
    world.run(Duration::from_millis(100));
    for number in world.running() {
        assert_eq!(world.peer_state(number, 2), Some(PeerState::Down));
    }
    world.restart(2);
    let took = world.assert_agreement();
    assert!(took < 2 * SECOND, "{took:?}");
}

#[test]
fn a_restarted_host_replaces_its_old_connections_and_its_incarnation_rises() {
    for seed in 0..20 {
        let mut world = World::new(seed, 3);
        world.launch_all();
        world.assert_agreement();
        world.run(5 * SECOND);
        let mut last = 0;
        for round in 0..4 {
            let incarnation = world.hosts[1].mesh.as_ref().unwrap().incarnation();
            assert!(incarnation > last, "seed {seed} round {round}: {incarnation} after {last}");
            last = incarnation;
            world.crash(1, round == 2);
            world.run(Duration::from_millis(50));
            world.restart(1);
            let took = world.assert_agreement();
            assert!(took < 2 * SECOND, "seed {seed}: {took:?}");
        }
        world.run(12 * SECOND);
        assert_eq!(world.wires.live_between(0, 1), 1);
    }
}

#[test]
fn a_healed_partition_agrees_within_ten_seconds() {
    for seed in 0..20 {
        let mut world = World::new(seed, 6);
        world.launch_all();
        world.assert_agreement();
        world.partition(&[0, 1, 2], &[3, 4, 5]);
        world.run(90 * SECOND);
        assert_eq!(world.alive(0).len(), 2);
        world.heal();
        world.assert_agreement();
    }
}

#[test]
fn a_crowd_chooses_its_connections_and_still_knows_everything() {
    let mut world = World::new(6, 22);
    for number in 0..22 {
        world.launch(number, Launch::targets(&[0]));
    }
    let took = world.assert_agreement();
    assert!(took < 3 * SECOND, "{took:?}");
    world.run(10 * SECOND);
    world.crash(7, false);
    let down = Some(PeerState::Down);
    let known = |world: &World| world.running().iter().all(|&n| world.peer_state(n, 7) == down);
    let took = world.run_until(20 * SECOND, known);
    world.note(&format!("known after {took:?}"));
    assert!(took.is_some_and(|took| took < 10 * SECOND), "the death was known after {took:?}");
}

#[test]
fn records_cross_where_hosts_are_connected_only_because_they_were_named() {
    for seed in 0..5 {
        let mut world = World::new(seed, 12);
        world.partition(&[1, 2, 3, 4, 5, 11], &[6, 7, 8, 9, 10]);
        (0..=10).for_each(|number| world.launch(number, Launch::targets(&[0])));
        world.launch(11, Launch::targets(&[1]));
        world.run(15 * SECOND);
        world.crash(1, false);
        world.restart(1);
        let same = |world: &World| {
            let hash = world.status(0).state_hash;
            (1..12).all(|number| world.status(number).state_hash == hash)
        };
        assert!(!same(&world), "seed {seed}: host 1 writes its record anew");
        let took = world.run_until(60 * SECOND, same);
        world.note(&format!("the same after {took:?}"));
        assert!(took.is_some(), "seed {seed}: the two sides meet only at host 0");
    }
}

#[test]
fn the_endpoints_of_a_host_that_is_down_are_suspended_and_come_back() {
    let mut world = World::new(6, 2);
    world.launch_all();
    let request = world.attach(1, &[]);
    world.run(3 * SECOND);
    assert!(world.answer(request).is_some_and(Result::is_ok));
    world.hosts[0].events.clear();
    world.crash(1, false);
    world.run(10 * SECOND);
    let kinds = |world: &World| -> Vec<&'static str> {
        let kind = |event: &MeshEvent| match event {
            MeshEvent::HostUp(_) => Some("host up"),
            MeshEvent::HostDown { .. } => Some("host down"),
            MeshEvent::EndpointUp(_) => Some("endpoint up"),
            MeshEvent::EndpointDown { .. } => Some("endpoint down"),
            _ => None,
        };
        world.hosts[0].events.iter().filter_map(kind).collect()
    };
    assert_eq!(kinds(&world), ["endpoint down", "host down"]);
    assert_eq!(world.hosts[0].mesh.as_ref().unwrap().endpoints().len(), 1, "the record stays");
    world.hosts[0].events.clear();
    world.restart(1);
    world.assert_agreement();
    assert_eq!(kinds(&world)[..2], ["host up", "endpoint up"]);
}
