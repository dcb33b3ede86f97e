//! What becomes of the space of removed hosts.

use std::net::IpAddr;
use std::time::Duration;

use super::world::{NETWORK, World, id, port};
use crate::proto::Message;

const SECOND: Duration = Duration::from_secs(1);

/// Three hosts with space, and one address each.
fn three(range: &'static str) -> (World, Vec<IpAddr>) {
    let mut world = World::acquainted(3, range, 7);
    let addrs: Vec<IpAddr> =
        (0..3).map(|n| world.address(n, port(u64::try_from(n).unwrap() + 1), &[])).collect();
    world.run(10 * SECOND);
    for n in 0..3 {
        for of in 0..3 {
            world.show(n, of, port(u64::try_from(of).unwrap() + 1), &addrs[of..=of], "web");
        }
    }
    (world, addrs)
}

fn units_of(world: &World, at: usize, of: usize) -> u32 {
    let units = &world.hosts[at].ipam.state.networks[&NETWORK].spaces[0].units;
    units.of(id(of)).map(|(first, last)| u32::from(last - first) + 1).sum()
}

fn bury(world: &mut World, at: usize, gone: usize, taker: usize) {
    let now = world.now;
    world.hosts[at].ipam.bury_endpoint(now, id(gone), port(u64::try_from(gone).unwrap() + 1));
    world.remove(at, gone, taker);
}

#[test]
fn the_writer_of_the_removal_takes_the_units_and_gives_known_addresses_out_last() {
    let (mut world, addrs) = three("10.9.0.0/28");
    let theirs = units_of(&world, 0, 2);
    let mine = units_of(&world, 0, 0);
    assert!(theirs > 0);
    world.partition(&[0, 1], &[2], true);
    bury(&mut world, 0, 2, 0);
    bury(&mut world, 1, 2, 0);
    world.run(5 * SECOND);
    assert_eq!((units_of(&world, 0, 2), units_of(&world, 1, 2)), (0, 0), "all know it");
    assert!(units_of(&world, 0, 0) + units_of(&world, 1, 1) >= mine + theirs);
    world.partition(&[0], &[1], true);
    let free = world.hosts[0].ipam.status(world.now)[0].free;
    let given: Vec<IpAddr> = (0..free).map(|n| world.address(0, port(100 + n), &[])).collect();
    assert_eq!(given.last(), Some(&addrs[2]), "of all that is free the removed host's address comes last");
    assert_eq!(given.iter().filter(|addr| **addr == addrs[2]).count(), 1);
}

#[test]
fn what_a_full_disk_kept_from_being_taken_is_taken_once_there_is_room() {
    let (mut world, _) = three("10.32.0.0/12");
    world.partition(&[0, 1], &[2], true);
    world.hosts[0].disk_full = true;
    bury(&mut world, 0, 2, 0);
    bury(&mut world, 1, 2, 0);
    world.run(5 * SECOND);
    assert!(units_of(&world, 0, 2) > 0, "nothing is taken that cannot be written");
    world.hosts[0].disk_full = false;
    // Something else is written before it is made again.
    world.address(0, port(50), &[]);
    world.run(5 * SECOND);
    assert_eq!((units_of(&world, 0, 2), units_of(&world, 1, 2)), (0, 0));
}

#[test]
fn units_that_a_removed_host_was_granted_elsewhere_are_taken_when_they_come_to_light() {
    let (mut world, _) = three("10.32.0.0/12");
    world.partition(&[0], &[1, 2], true);
    // Unseen by host 0, host 2 gets another unit of host 1.
    let granted = world.hosts[1].ipam.state.networks[&NETWORK].spaces[0].units.of(id(1)).next().unwrap();
    let network = world.hosts[1].ipam.state.networks.get_mut(&NETWORK).unwrap();
    let news = network.spaces[0].units.grant(&[(granted.1, granted.1)], id(2));
    let table = network.spaces[0].table(NETWORK, news);
    world.remove(0, 2, 0);
    assert_eq!(units_of(&world, 0, 2), 0);
    let now = world.now;
    world.hosts[0].ipam.handle_message(now, id(1), Message::Units(table));
    world.drain(0);
    let run = *world.hosts[0].ipam.state.networks[&NETWORK].spaces[0].units.get(granted.1).unwrap();
    assert_eq!(run.owner, id(0), "taken at once, above the grant");
}

#[test]
fn a_removed_host_that_returns_keeps_its_addresses_and_allocates_no_more_in_what_it_had() {
    let (mut world, addrs) = three("10.32.0.0/12");
    world.partition(&[0, 1], &[2], true);
    bury(&mut world, 0, 2, 0);
    bury(&mut world, 1, 2, 0);
    world.run(5 * SECOND);
    let during = world.address(2, port(50), &[]);
    world.partition(&[0, 1], &[2], false);
    // It learns that it was removed, and the others see it again.
    world.remove(2, 2, 0);
    for n in 0..2 {
        world.tell_record(n, 2);
        world.show(n, 2, port(3), &addrs[2..], "web");
        world.show(n, 2, port(50), &[during], "db");
    }
    world.run(10 * SECOND);
    assert_eq!(world.owner(0, addrs[2]), world.owner(2, addrs[2]));
    assert_eq!(world.address(2, port(3), &[]), addrs[2], "its container keeps what it has");
    let fresh = world.address(2, port(51), &[]);
    assert_eq!(world.owner(2, fresh), Some(id(2)), "it has been given space anew");
    for n in 200..260 {
        let addr = world.address(0, port(n), &[]);
        assert!(![addrs[2], during, fresh].contains(&addr), "the winner skips exceptions");
    }
}

#[test]
fn a_taken_over_state_survives_a_crash() {
    let (mut world, addrs) = three("10.32.0.0/12");
    bury(&mut world, 0, 2, 0);
    world.crash(0);
    assert_eq!(world.owner(0, addrs[2]), Some(id(0)));
    world.remove(0, 2, 0);
    assert_eq!(world.owner(0, addrs[2]), Some(id(0)), "told again after the start, it changes nothing");
}
