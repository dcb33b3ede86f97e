//! Names follow their hosts: known everywhere at once, gone with what has them, answered last while nobody can tell.

#![allow(clippy::expect_used, clippy::print_stdout, reason = "a simulator is test code as a whole")]

mod sim;

use std::collections::BTreeMap;
use std::time::Duration;

use peering::mesh::{MESH_NETWORK, Mesh, MeshEvent, NameError, NameView};
use peering::records::{NameRecord, ServiceRecord};
use sim::World;

const SECOND: Duration = Duration::from_secs(1);

fn entry(name: &str, last: u8) -> NameRecord {
    let services = vec![ServiceRecord { service: "_http._tcp".to_owned(), port: 80 }];
    NameRecord {
        network: MESH_NETWORK,
        name: name.to_owned(),
        addresses: vec![[192, 0, 2, last].into()],
        services,
    }
}

/// Has something done on a host, and what follows from it.
fn on<T>(world: &mut World, number: usize, act: impl FnOnce(&mut Mesh, std::time::Instant) -> T) -> T {
    let now = world.hosts[number].here(world.now);
    let Some(mesh) = &mut world.hosts[number].mesh else { panic!("host {number} does not run") };
    let done = act(mesh, now);
    world.wake(number);
    done
}

/// What a host answers names with, as its data plane was told.
fn told(world: &World, number: usize) -> BTreeMap<[u8; 8], NameView> {
    let mut names = BTreeMap::new();
    for event in &world.hosts[number].events {
        match event {
            MeshEvent::NameUp(view) => drop(names.insert(view.id, view.clone())),
            MeshEvent::NameDown { id, .. } => drop(names.remove(id)),
            _ => {}
        }
    }
    names
}

/// The names that a host answers, those of suspected hosts in brackets.
fn answered(world: &World, number: usize) -> Vec<String> {
    let word = |view: &NameView| {
        let names = view.names.join(",");
        if view.suspected { format!("[{names}]") } else { names }
    };
    let mut words: Vec<String> = told(world, number).values().map(word).collect();
    words.sort();
    words
}

fn everywhere(world: &World, names: &[&str]) -> bool {
    world.running().into_iter().all(|number| answered(world, number) == names)
}

#[test]
fn a_name_is_known_on_every_host_within_a_second() {
    for seed in 0..10 {
        let mut world = World::new(seed, 10);
        world.launch_all();
        world.assert_agreement();
        world.run(5 * SECOND);
        on(&mut world, 0, |mesh, now| mesh.put_name(now, entry("Printer", 7))).expect("the name is free");
        let took = world.run_until(SECOND, |world| everywhere(world, &["printer"]));
        assert!(took.is_some(), "seed {seed}: {:?}", answered(&world, 9));
        let view = told(&world, 9).into_values().next().expect("it is told");
        assert_eq!((view.addresses, view.services), (entry("", 7).addresses, entry("", 7).services));
        let removed = on(&mut world, 0, |mesh, now| mesh.remove_name(now, MESH_NETWORK, "Printer"));
        assert_eq!(removed, Ok(true));
        assert!(world.run_until(SECOND, |world| everywhere(world, &[])).is_some(), "seed {seed}");
        assert!(world.assert_agreement() < SECOND);
    }
}

#[test]
fn names_of_a_host_that_dies_are_answered_last_and_then_not_at_all() {
    for seed in 0..10 {
        let mut world = World::cluster(seed, 5, 1);
        on(&mut world, 3, |mesh, now| mesh.put_name(now, entry("printer", 7))).expect("the name is free");
        world.run(10 * SECOND);
        let whole = answered(&world, 0);
        assert_eq!(whole.len(), 6, "{whole:?}");
        let of_three = |world: &World| {
            told(world, 0).into_values().filter(|v| v.peer == world.hosts[3].peer_id()).count()
        };
        assert_eq!(of_three(&world), 2);
        // A machine that says nothing: the suspicion lasts.
        world.hosts[3].powered = false;
        world.crash(3, false);
        let doubted =
            |world: &World| answered(world, 0).iter().filter(|word| word.starts_with('[')).count() == 2;
        assert!(world.run_until(10 * SECOND, doubted).is_some(), "seed {seed}: {:?}", answered(&world, 0));
        let gone = |world: &World| world.running().iter().all(|&n| answered(world, n).len() == 4);
        assert!(world.run_until(10 * SECOND, gone).is_some(), "seed {seed}: {:?}", answered(&world, 0));
        world.restart(3);
        let back = |world: &World| world.running().iter().all(|&n| answered(world, n) == whole);
        assert!(world.run_until(10 * SECOND, back).is_some(), "seed {seed}: {:?}", answered(&world, 0));
        // A host that is removed takes its names with it.
        world.stop(3);
        world.run(SECOND);
        world.remove(0, 3);
        world.run(2 * SECOND);
        let given = on(&mut world, 1, |mesh, _| mesh.names());
        assert!(given.is_empty(), "seed {seed}: {given:?}");
    }
}

#[test]
fn a_name_is_one_things_on_a_host_and_anybodys_on_another() {
    let mut world = World::cluster(1, 2, 1);
    let container = answered(&world, 0).first().cloned().expect("a container");
    let holder =
        told(&world, 0).into_values().find(|view| view.names[0] == container).expect("it is told").peer;
    let at = usize::from(holder != world.hosts[0].peer_id());
    let taken = on(&mut world, at, |mesh, now| mesh.put_name(now, entry(&container.to_uppercase(), 1)));
    assert!(matches!(taken, Err(NameError::Taken { .. })), "{taken:?}");
    on(&mut world, 1 - at, |mesh, now| mesh.put_name(now, entry(&container, 1))).expect("another host");
    on(&mut world, at, |mesh, now| mesh.put_name(now, entry("printer", 1))).expect("it is free");
    on(&mut world, at, |mesh, now| mesh.put_name(now, entry("printer", 1))).expect("the same again");
    let other = on(&mut world, at, |mesh, now| mesh.put_name(now, entry("printer", 2)));
    assert!(matches!(other, Err(NameError::Taken { .. })), "{other:?}");
    let nowhere = NameRecord { network: engine::types::NetworkId([7; 32]), ..entry("printer", 1) };
    assert_eq!(on(&mut world, at, |mesh, now| mesh.put_name(now, nowhere)), Err(NameError::UnknownNetwork));
    let long = NameRecord { addresses: vec![[192, 0, 2, 1].into(); 65], ..entry("long", 1) };
    let long = on(&mut world, at, |mesh, now| mesh.put_name(now, long));
    assert!(matches!(long, Err(NameError::TooLong(_))), "{long:?}");
    assert_eq!(on(&mut world, at, |mesh, now| mesh.remove_name(now, MESH_NETWORK, "nothing")), Ok(false));
}
