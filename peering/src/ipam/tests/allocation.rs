//! Allocation on several hosts at once: never one address twice, nothing lost, nothing left behind.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use engine::types::PortId;
use proptest::prelude::*;
use rand::RngExt;

use super::world::{World, cases, id, port};
use crate::mesh::IpamState;
use crate::proto::Message;

#[test]
fn every_address_of_a_small_range_can_be_had_from_any_host() {
    for seed in 0..8 {
        let mut world = World::acquainted(3, "10.9.0.0/28", seed);
        let mut seen = BTreeSet::new();
        for n in 0..13 {
            let addr = world.address(usize::try_from(n % 3).unwrap(), port(n), &[]);
            assert!(seen.insert(addr), "{addr} twice");
        }
        let request = world.allocate(0, port(99), &[]);
        let error = world.answer(0, request).unwrap_err();
        assert_eq!(error.code(), "addresses_exhausted");
        assert!(error.to_string().contains("13 of 13") || error.to_string().contains("host1"), "{error}");
    }
}

#[test]
fn one_busy_host_gets_the_space_of_the_idle_ones() {
    let mut world = World::acquainted(3, "10.9.0.0/26", 3);
    let seen: BTreeSet<IpAddr> = (0..61).map(|n| world.address(1, port(n), &[])).collect();
    assert_eq!(seen.len(), 61);
}

#[test]
fn space_is_there_before_it_is_needed() {
    let mut world = World::acquainted(4, "10.32.0.0/12", 1);
    world.address(0, port(1), &[]);
    world.run(Duration::from_secs(10));
    for n in 0..4 {
        let status = world.hosts[n].ipam.status(world.now)[0].clone();
        assert!(status.owned > 1000, "host{n} owns {}", status.owned);
        assert_eq!(status.owners.len(), 4);
        assert_eq!(status.owners.iter().map(|owner| owner.size).sum::<u64>(), (1 << 20) - 3);
    }
    let before: Vec<_> = world.hosts.iter().map(|host| host.ipam.units_hash()).collect();
    world.run(Duration::from_secs(120));
    let after: Vec<_> = world.hosts.iter().map(|host| host.ipam.units_hash()).collect();
    assert_eq!(before, after, "space at rest stays where it is");
}

#[test]
fn a_joiner_waits_for_a_silent_owner_and_is_not_told_of_exhaustion() {
    let mut world = World::acquainted(2, "10.9.0.0/26", 3);
    world.address(0, port(1), &[]);
    for table in world.hosts[0].ipam.unit_tables() {
        let now = world.now;
        world.hosts[1].ipam.handle_message(now, id(0), Message::Units(table));
    }
    world.cut.insert((0, 1));
    let request = world.allocate(1, port(2), &[]);
    world.run(Duration::from_secs(20));
    assert_eq!(world.hosts[1].answers.get(&request), None);
    assert_eq!(world.hosts[1].ipam.status(world.now)[0].state, IpamState::Waiting);
    world.cut.clear();
    assert!(world.answer(1, request).is_ok());
}

#[test]
fn both_sides_of_a_partition_allocate_without_a_duplicate() {
    let mut world = World::acquainted(4, "10.9.0.0/24", 5);
    world.address(0, port(1), &[]);
    world.run(Duration::from_secs(20));
    world.partition(&[0, 1], &[2, 3], true);
    let mut seen = BTreeMap::new();
    for n in 0..40 {
        let host = usize::try_from(n % 4).unwrap();
        let addr = world.address(host, port(100 + n), &[]);
        assert_eq!(seen.insert(addr, host), None, "{addr}");
    }
    world.partition(&[0, 1], &[2, 3], false);
    world.run(Duration::from_secs(20));
    let hashes: BTreeSet<_> = world.hosts.iter().map(|host| host.ipam.units_hash()).collect();
    assert_eq!(hashes.len(), 1);
}

/// What the containers of all hosts have, as their daemons see it.
#[derive(Default)]
struct Model {
    /// Requests under way: host and port.
    asked: BTreeMap<u64, (usize, PortId)>,
    has: BTreeMap<(usize, PortId), Vec<IpAddr>>,
}

impl Model {
    /// Takes answers in; an address that two ports have is the failure looked for.
    fn collect(&mut self, world: &World) -> Result<(), TestCaseError> {
        let asked = std::mem::take(&mut self.asked);
        for (request, (n, port)) in asked {
            match world.hosts[n].answers.get(&request) {
                None => drop(self.asked.insert(request, (n, port))),
                Some(Ok(addrs)) => {
                    let addrs: Vec<IpAddr> = addrs.iter().map(|prefix| prefix.addr).collect();
                    self.has.insert((n, port), addrs);
                }
                Some(Err(_)) => {}
            }
        }
        let mut holders = BTreeMap::new();
        for (holder, addrs) in &self.has {
            for addr in addrs {
                let other = holders.insert(*addr, *holder);
                prop_assert_eq!(other, None, "{} is also of {:?}", addr, holder);
            }
        }
        Ok(())
    }
}

fn random_life(world: &mut World, model: &mut Model, rough: bool, range: u32) -> Result<(), TestCaseError> {
    let hosts = world.hosts.len();
    for round in 0..600 {
        let n = world.rng.random_range(0..hosts);
        match world.rng.random_range(0..if rough { 24 } else { 12 }) {
            0..3 => {
                let request = world.allocate(n, port(round), &[]);
                model.asked.insert(request, (n, port(round)));
            }
            3 => {
                let wanted = format!("10.9.0.{}", world.rng.random_range(0..range));
                let request = world.allocate(n, port(round), &[&wanted]);
                model.asked.insert(request, (n, port(round)));
            }
            4..6 => {
                if let Some(&(n, port)) = model.has.keys().next() {
                    model.has.remove(&(n, port));
                    world.release(n, port);
                }
            }
            6 => {
                if let Some((&request, &(n, port))) = model.asked.iter().next() {
                    model.asked.remove(&request);
                    world.cancel(n, request);
                    if world.hosts[n].answers.contains_key(&request) {
                        world.release(n, port);
                    }
                }
            }
            12 => {
                // The daemon dies: requests under way end, and ports without an answer are forgotten.
                model.collect(world)?;
                model.asked.retain(|_, (host, _)| *host != n);
                world.crash(n);
                let ports = model.has.keys().filter(|(host, _)| *host == n).map(|(_, port)| *port).collect();
                let now = world.now;
                world.hosts[n].ipam.retain(now, &ports);
                world.drain(n);
            }
            13 => {
                let other = world.rng.random_range(0..hosts);
                world.cut.insert((n.min(other), n.max(other)));
            }
            14..16 => world.cut.clear(),
            _ => {}
        }
        world.tick();
        model.collect(world)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn no_address_is_ever_given_twice_and_none_is_lost(hosts in 2usize..6, seed: u64, rough: bool) {
        let mut world = World::acquainted(hosts, "10.9.0.0/26", seed);
        let mut model = Model::default();
        world.loss = if rough { 15 } else { 0 };
        random_life(&mut world, &mut model, rough, 64)?;
        // Calm again: everything is released, and every host agrees that all is free.
        world.loss = 0;
        world.cut.clear();
        world.run(Duration::from_secs(15));
        model.collect(&world)?;
        for (request, (n, _)) in std::mem::take(&mut model.asked) {
            world.cancel(n, request);
        }
        for &(n, port) in model.has.keys() {
            world.release(n, port);
        }
        world.run(Duration::from_secs(70));
        if world.hosts.iter().all(|host| host.ipam.cluster().is_none()) {
            return Ok(());
        }
        let hashes: BTreeSet<_> = world.hosts.iter().map(|host| host.ipam.units_hash()).collect();
        prop_assert_eq!(hashes.len(), 1);
        for host in &world.hosts {
            let status = &host.ipam.status(world.now)[0];
            prop_assert_eq!(status.used, 0, "{:?}", status);
            prop_assert_eq!(status.owners.iter().map(|owner| owner.size).sum::<u64>(), 61);
            prop_assert!(host.ipam.state.holds_nothing());
        }
        let all: BTreeSet<IpAddr> = (0..61).map(|n| world.address(0, port(5000 + n), &[])).collect();
        prop_assert_eq!(all.len(), 61);
    }
}
