//! Hosts whose disk is lost, or is an old copy: what others know of them stands above what they remember.
#![allow(clippy::expect_used, reason = "a simulator is test code as a whole")]

mod sim;

use std::collections::BTreeSet;
use std::time::Duration;

use peering::mesh::RequestId;
use sim::{Launch, Loss, World};

const SECOND: Duration = Duration::from_secs(1);

/// Three hosts with four containers each.
fn world(seed: u64) -> (World, Vec<RequestId>) {
    let mut world = World::new(seed, 3);
    for number in 0..3 {
        world.launch(number, Launch { range: "10.9.0.0/24", ..Launch::targets(&[0, 1, 2]) });
    }
    let requests = attach_all(&mut world, &(0..12).map(|n| n % 3).collect::<Vec<_>>());
    world.assert_agreement();
    (world, requests)
}

fn attach_all(world: &mut World, hosts: &[usize]) -> Vec<RequestId> {
    let requests: Vec<RequestId> = hosts.iter().map(|&host| world.attach(host, &[])).collect();
    let got = |world: &World| requests.iter().all(|r| world.answer(*r).is_some_and(Result::is_ok));
    let took = world.run_until(20 * SECOND, got);
    assert!(took.is_some(), "seed {}: somebody gets no address", world.seed);
    requests
}

/// Everybody agrees, on exactly the containers that are there, and no address is used twice.
fn assert_settled(world: &mut World) {
    let there: BTreeSet<_> = world.hosts.iter().flat_map(|host| host.ports.keys().copied()).collect();
    let settled = |world: &World| {
        let shown = |n: usize| -> BTreeSet<_> {
            let mesh = world.hosts[n].mesh.as_ref().expect("it runs");
            mesh.endpoints().iter().map(|view| view.endpoint.port).collect()
        };
        world.agree() && world.duplicates().is_empty() && (0..3).all(|n| shown(n) == there)
    };
    if world.run_until(10 * SECOND, settled).is_none() {
        world.tell_all();
        panic!("seed {}: not settled: {:?}", world.seed, world.duplicates());
    }
    world.assert_one_owner(&BTreeSet::new());
    (0..3).for_each(|host| assert_eq!(world.lost_space(host), None));
}

fn incarnation(world: &World, host: usize) -> u64 {
    world.hosts[host].mesh.as_ref().expect("it runs").incarnation()
}

#[test]
fn a_host_that_lost_its_disk_with_its_containers_forgets_them_and_nothing_comes_back() {
    for seed in 0..20 {
        let (mut world, _) = world(seed);
        let before = incarnation(&world, 1);
        world.crash_with(1, Loss::Disk, Duration::ZERO);
        world.hosts[1].ports.clear();
        world.run(SECOND.mul_f64(seed as f64 / 2.0));
        world.restart(1);
        assert_settled(&mut world);
        assert!(incarnation(&world, 1) > before, "seed {seed}");
        attach_all(&mut world, &[0, 1, 2, 1, 1]);
        assert_settled(&mut world);
    }
}

#[test]
fn a_host_that_lost_its_disk_gives_out_no_address_that_it_gave_before() {
    for seed in 0..20 {
        let (mut world, _) = world(seed);
        let unit = world.hosts[1].units().into_iter().find(|run| run.owner == world.hosts[1].peer_id());
        let claimed = format!("10.9.0.{}", unit.expect("it has space").last - 1);
        let claim = world.attach(2, &[&claimed]);
        world.run(2 * SECOND);
        assert!(world.answer(claim).is_some_and(Result::is_ok), "seed {seed}: {:?}", world.answer(claim));
        world.crash_with(1, Loss::Disk, Duration::ZERO);
        world.run(SECOND);
        world.restart(1);
        attach_all(&mut world, &[1; 20]);
        world.assert_no_duplicates();
        assert_settled(&mut world);
    }
}

#[test]
fn an_old_copy_of_a_disk_brings_back_neither_containers_nor_space() {
    for seed in 0..20 {
        let (mut world, requests) = world(seed);
        world.hosts[0].snapshot = world.hosts[0].disk.clone();
        let before = incarnation(&world, 0);
        // A container goes, others come, and space moves to the others.
        world.detach(0, requests[0]);
        attach_all(&mut world, &[0, 1, 1, 1, 2, 2, 2]);
        for host in [1, 2] {
            attach_all(&mut world, &[host; 50]);
        }
        world.crash_with(0, Loss::LastWrite, Duration::ZERO);
        world.run(SECOND.mul_f64(seed as f64 / 2.0));
        world.hosts[0].disk = world.hosts[0].snapshot.clone();
        world.restart(0);
        assert_settled(&mut world);
        assert!(incarnation(&world, 0) > before, "seed {seed}");
    }
}

#[test]
fn what_an_old_copy_gives_out_twice_is_settled() {
    let mut doubles = 0;
    for seed in 0..8 {
        let (mut world, _) = world(seed);
        world.hosts[0].snapshot = world.hosts[0].disk.clone();
        attach_all(&mut world, &[1; 100]);
        world.crash_with(0, Loss::LastWrite, Duration::ZERO);
        world.partition(&[0], &[1, 2]);
        world.hosts[0].disk = world.hosts[0].snapshot.clone();
        world.restart(0);
        // Alone it takes what it had for its own.
        attach_all(&mut world, &[0; 30]);
        doubles += world.duplicates().len();
        world.heal();
        assert_settled(&mut world);
        attach_all(&mut world, &[0, 1, 2]);
        assert_settled(&mut world);
    }
    assert!(doubles > 0, "nothing was given out twice");
}

#[test]
fn all_hosts_at_once_get_old_copies_of_their_disks() {
    for seed in 0..20 {
        let (mut world, requests) = world(seed);
        for host in &mut world.hosts {
            host.snapshot = host.disk.clone();
        }
        world.run(SECOND);
        for (number, request) in requests.into_iter().take(3).enumerate() {
            world.detach(number, request);
        }
        attach_all(&mut world, &[0, 1, 2, 0, 1, 2]);
        for number in 0..3 {
            world.crash_with(number, Loss::LastWrite, Duration::ZERO);
            world.hosts[number].disk = world.hosts[number].snapshot.clone();
        }
        (0..3).for_each(|number| world.restart(number));
        assert_settled(&mut world);
    }
}
