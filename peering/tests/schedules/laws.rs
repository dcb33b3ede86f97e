//! The laws of replicated state, as checks. They are looked at all the time, and strictly when a schedule has settled.
//!
//! A new law is a function here, called by [`Laws::look`] if it must hold at every moment, by [`settled`] if it must
//! hold ten seconds after the last fault.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use engine::types::{PeerId, PortId};
use peering::gossip::{Record, Slot, Stamp};
use peering::ipam::Pool;
use peering::mesh::EndpointView;
use peering::records::Body;

use crate::sim::{AGREEMENT, Host, World};

/// Why a host may end a connection. A dispute about state is no reason.
const REASONS: [&str; 8] =
    ["self", "stopped", "idle", "replaced", "duplicate", "too many connections", "no greeting", "no answer"];

/// What a host hears is on its disk so soon, and twice the time that the disk takes.
const LAZY: Duration = Duration::from_millis(1100);

/// What was seen so far, as far as the laws need it.
#[derive(Default)]
pub struct Laws {
    /// Two clusters may meet: each knows nothing of what the other gave out.
    two_clusters: bool,
    /// What only these know is lost with them.
    stay_down: Vec<usize>,
    /// The last units that each host had, by itself or in the eyes of others.
    owned: BTreeMap<PeerId, Vec<(u16, u16)>>,
    /// Units of hosts that somebody removed, who may not know it and go on: two may give out what is in them, until they
    /// meet.
    taken: BTreeSet<u16>,
    /// Addresses that such a host has at containers: those that it claimed are in the units of others.
    taken_addrs: BTreeSet<IpAddr>,
    removed: BTreeSet<PeerId>,
    /// The newest tombstone of each slot that each host that comes back wrote to the disk it has now.
    deleted: BTreeMap<Slot, BTreeMap<PeerId, Stamp>>,
    /// The newest tombstone of each slot that a host showed in one life, and since when its disk could take it.
    seen: BTreeMap<(usize, u64, Slot), (Stamp, Instant)>,
    /// Hosts that do not know what they promised: their disk is lost, or an older one came back.
    forgetful: BTreeSet<usize>,
    /// The containers whose hosts forgot that they answered for them.
    unsure: BTreeSet<PortId>,
}

impl Laws {
    pub fn new(two_clusters: bool, stay_down: &[usize]) -> Self {
        Laws { two_clusters, stay_down: stay_down.to_vec(), ..Laws::default() }
    }

    /// What must hold at every moment.
    pub fn look(&mut self, world: &World) {
        self.deletions(world);
        self.removals(world);
        assert_peace(world);
        if self.forgetful.is_empty() && !self.two_clusters {
            self.assert_no_duplicates(world);
            world.assert_one_owner(&self.taken);
        }
    }

    /// Notes what hosts own, and whose space was taken. A removed host that does not know it may even be given more.
    fn removals(&mut self, world: &World) {
        for mesh in world.hosts.iter().filter_map(|host| host.mesh.as_ref()) {
            for record in mesh.records().filter(|record| !record.deleted()) {
                if let Body::Removal(removal) = record.body() {
                    self.removed.insert(removal.peer);
                }
            }
        }
        let removed = world.hosts.iter().filter(|host| self.removed.contains(&host.peer_id()));
        self.taken_addrs.extend(removed.flat_map(told).flat_map(|(_, addrs)| addrs));
        self.take();
        self.owned.clear();
        for run in world.hosts.iter().flat_map(Host::units) {
            self.owned.entry(run.owner).or_default().push((run.first, run.last));
        }
        self.take();
    }

    fn take(&mut self) {
        let ranges = self.removed.iter().filter_map(|peer| self.owned.get(peer)).flatten();
        self.taken.extend(ranges.flat_map(|&(first, last)| first..=last));
    }

    fn assert_no_duplicates(&self, world: &World) {
        let mut duplicates = world.duplicates();
        let pool = Pool::new(world.hosts[0].launch.range.parse().expect("a range")).expect("a pool");
        let taken = |addr: &IpAddr| {
            self.taken_addrs.contains(addr)
                || pool.unit_of(*addr).is_some_and(|unit| self.taken.contains(&unit))
        };
        duplicates.retain(|(addr, _)| !taken(addr));
        assert!(duplicates.is_empty(), "seed {}: addresses have two holders: {duplicates:?}", world.seed);
    }

    /// A host may not know what it promised.
    pub fn forgot(&mut self, world: &World, host: usize) {
        self.forgetful.insert(host);
        self.unsure.extend(world.hosts[host].ports.keys());
    }

    /// What was on the disk of a host is gone. What nobody else had there may be forgotten.
    pub fn lost_disk(&mut self, world: &World, host: usize) {
        let peer = world.hosts[host].peer_id();
        for witnesses in self.deleted.values_mut() {
            witnesses.remove(&peer);
        }
    }

    /// Law 5: what a host answered stands on its disk. Called before it starts with it.
    pub fn remembers(&self, world: &World, host: usize) {
        let forgotten = |(port, addrs): (PortId, Vec<IpAddr>)| {
            (!self.unsure.contains(&port)).then(|| (addrs, world.hosts[host].recalls(world.now, port)))
        };
        for (promised, recalled) in told(&world.hosts[host]).into_iter().filter_map(forgotten) {
            assert_eq!(recalled, promised, "seed {}: host {host} forgot what it answered", world.seed);
        }
    }

    /// Law 3: what a host saw deleted is never live there again, unless it is written anew.
    fn deletions(&mut self, world: &World) {
        for (number, host) in world.hosts.iter().enumerate() {
            let Some(mesh) = &host.mesh else { continue };
            for record in mesh.records() {
                if record.deleted() {
                    self.deletion(world, number, record);
                } else {
                    let seen = self.seen.get(&(number, host.life, record.slot()));
                    let again = seen.is_some_and(|(deleted, _)| record.stamp() < *deleted);
                    assert!(!again, "seed {}: {record:?} is live again at {number}", world.seed);
                }
            }
        }
    }

    /// What no host has on its disk may be forgotten by everybody: a host that heard of it crashes, and the writer stays
    /// away. So may what only hosts have that do not come back, or clones.
    fn deletion(&mut self, world: &World, number: usize, record: &Record) {
        let host = &world.hosts[number];
        let (slot, stamp) = (record.slot(), record.stamp());
        let seen = self.seen.entry((number, host.life, slot)).or_insert((stamp, world.now));
        if seen.0 != stamp || host.disk_fails {
            *seen = (stamp, world.now);
        }
        let written = world.now - seen.1 >= LAZY + 2 * host.disk_time;
        let comes_back = !self.stay_down.contains(&number) && host.clone_of.is_none();
        if written && comes_back {
            let newest = self.deleted.entry(slot).or_default().entry(host.peer_id()).or_insert(stamp);
            *newest = stamp.max(*newest);
        }
    }

    /// Waits until everything holds that must within ten seconds of the last fault.
    pub fn settle(&mut self, world: &mut World) {
        let took = world.run_until(AGREEMENT, |world| self.unsettled(world).is_none());
        if took.is_none() {
            world.tell_all();
            let why = self.unsettled(world).unwrap_or_default();
            panic!("seed {}: {AGREEMENT:?} after the last fault {why}", world.seed);
        }
        // A host that is away cannot be told that its containers lost their addresses.
        if world.running().len() == world.hosts.len() {
            let (deleted, unsure) = (std::mem::take(&mut self.deleted), std::mem::take(&mut self.unsure));
            *self = Laws { deleted, unsure, ..Laws::default() };
        }
        self.look(world);
    }

    fn unsettled(&self, world: &World) -> Option<String> {
        if !world.agree() {
            return Some("the hosts do not agree".to_owned());
        }
        let duplicates = world.live_duplicates();
        if !duplicates.is_empty() {
            return Some(format!("addresses have two holders: {duplicates:?}"));
        }
        let running = world.running();
        running.iter().find_map(|&number| {
            untrue(world, number).or_else(|| world.lost_space(number)).or_else(|| self.undead(world, number))
        })
    }

    /// Law 3 again: what is deleted on the disk of anybody who comes back is live nowhere.
    fn undead(&self, world: &World, number: usize) -> Option<String> {
        let mesh = world.hosts[number].mesh.as_ref()?;
        let newest = |slot| self.deleted.get(&slot).and_then(|witnesses| witnesses.values().max());
        let live = mesh.records().filter(|record| !record.deleted());
        let mut undead = live.filter(|record| newest(record.slot()).is_some_and(|at| record.stamp() < *at));
        undead.next().map(|record| format!("{record:?} lives at {number} although it was deleted"))
    }
}

/// Law 2: no merge fails, and no connection ends because of what somebody holds.
fn assert_peace(world: &World) {
    for (number, host) in world.hosts.iter().enumerate() {
        let malformed = host.mesh.as_ref().map_or(0, |mesh| mesh.malformed());
        assert_eq!(malformed, 0, "seed {}: host {number} could not read a message", world.seed);
    }
    let clones = |reason: &str| reason.starts_with("clone: ") || reason == "the host there is a clone";
    let there_are = world.hosts.iter().any(|host| host.clone_of.is_some());
    let fine = |reason: &str| REASONS.contains(&reason) || (there_are && clones(reason));
    let wrong = world.closes.keys().find(|reason| !fine(reason));
    assert!(wrong.is_none(), "seed {}: a connection was closed: {wrong:?}", world.seed);
}

/// What a running host shows of the endpoints of running hosts is what is there.
fn untrue(world: &World, number: usize) -> Option<String> {
    let running: BTreeMap<PeerId, usize> =
        world.running().into_iter().map(|number| (world.hosts[number].peer_id(), number)).collect();
    let shown = world.hosts[number].mesh.as_ref()?.endpoints();
    let shown = shown.iter().filter(|view| running.contains_key(&view.peer));
    let address = |view: &EndpointView| view.endpoint.addresses.iter().map(|prefix| prefix.addr).collect();
    let shown: BTreeSet<(PeerId, PortId, Vec<IpAddr>)> =
        shown.map(|view| (view.peer, view.endpoint.port, address(view))).collect();
    let there: BTreeSet<(PeerId, PortId, Vec<IpAddr>)> = running
        .iter()
        .flat_map(|(&peer, &host)| told(&world.hosts[host]).into_iter().map(move |(p, a)| (peer, p, a)))
        .collect();
    let differs = || shown.symmetric_difference(&there).next();
    differs().map(|wrong| format!("{number} has the endpoints wrong: {wrong:?}"))
}

/// The containers of a host, with the addresses they were told.
fn told(host: &Host) -> Vec<(PortId, Vec<IpAddr>)> {
    let addrs = |addresses: &[engine::types::IpPrefix]| addresses.iter().map(|prefix| prefix.addr).collect();
    host.ports.iter().map(|(port, (_, endpoint))| (*port, addrs(&endpoint.addresses))).collect()
}
