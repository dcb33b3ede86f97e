//! Hosts with secrets, and what holds while they go over from one to another.

use std::collections::BTreeSet;
use std::time::Duration;

use peering::mesh::PeerState;
use peering::secret::SecretName;

use super::{Launch, Loss, World, secret};

pub const SECOND: Duration = Duration::from_secs(1);

/// Hosts with the secret 1 that agree, and have found so.
pub fn cluster(seed: u64, hosts: usize) -> World {
    let mut world = World::new(seed, hosts);
    let targets: Vec<usize> = (0..hosts).collect();
    for number in 0..hosts {
        world.launch(number, Launch::targets(&targets).with_secret(1));
    }
    world.assert_agreement();
    world.run(4 * SECOND);
    world
}

/// The same, when the last of them is known to be down.
pub fn cluster_without_the_last(seed: u64, hosts: usize) -> World {
    let (mut world, last) = (cluster(seed, hosts), hosts - 1);
    world.crash_with(last, Loss::Nothing, Duration::ZERO);
    let down = world.run_until(15 * SECOND, |world| world.peer_state(0, last) == Some(PeerState::Down));
    down.expect("it is known to be down");
    world
}

pub fn names(world: &World, number: usize) -> Vec<SecretName> {
    world.hosts[number].mesh.as_ref().map_or_else(Vec::new, |mesh| mesh.keyring().names())
}

pub fn takes_only(world: &World, number: usize, byte: u8) -> bool {
    names(world, number) == [secret(byte).name()]
}

pub fn all_take_only(world: &World, byte: u8) -> bool {
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
pub fn watch(world: &mut World, time: Duration) {
    let end = world.now + time;
    while world.now < end {
        world.run(Duration::from_millis(20));
        assert_common(world);
    }
}

/// Watches until every host takes one secret alone; which one.
pub fn watch_until_done(world: &mut World, limit: Duration) -> SecretName {
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

pub fn events(world: &World, at: usize, kind: &str) -> usize {
    world.status(at).events.iter().filter(|event| event.kind == kind).count()
}
