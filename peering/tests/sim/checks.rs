//! What must be true.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use engine::types::NetworkId;
use peering::mesh::{MeshStatus, PeerState, TargetStatus};
use peering::proto::Run;

use super::{Host, World};

/// After the last fault everybody agrees within this.
pub const AGREEMENT: Duration = Duration::from_secs(10);

impl World {
    pub fn status(&self, number: usize) -> MeshStatus {
        self.hosts[number].mesh.as_ref().expect("it runs").status(self.hosts[number].here(self.now))
    }

    /// The hosts that run, without clones.
    pub fn running(&self) -> Vec<usize> {
        let runs = |host: &Host| host.mesh.is_some() && host.clone_of.is_none();
        (0..self.hosts.len()).filter(|&number| runs(&self.hosts[number])).collect()
    }

    /// True for a host that takes itself for a clone, and waits.
    pub fn waits(&self, number: usize) -> bool {
        self.hosts[number].mesh.as_ref().is_some_and(|mesh| mesh.clone_of().is_some())
    }

    /// Every running host has the same state, and takes exactly the running ones for alive.
    pub fn agree(&self) -> bool {
        let running = self.running();
        let mesh = |n: usize| self.hosts[n].mesh.as_ref().expect("it runs");
        let states: BTreeSet<_> = running.iter().map(|&n| mesh(n).state_hash()).collect();
        states.len() == 1 && running.iter().all(|&n| self.alive(n) == self.others(n))
    }

    /// The hosts that a host takes for alive.
    pub fn alive(&self, number: usize) -> BTreeSet<String> {
        let peers = self.status(number).peers.into_iter();
        peers.filter(|peer| peer.state == PeerState::Alive).map(|peer| peer.nickname).collect()
    }

    fn others(&self, number: usize) -> BTreeSet<String> {
        self.running().into_iter().filter(|&n| n != number).map(Self::name).collect()
    }

    pub fn peer_state(&self, at: usize, of: usize) -> Option<PeerState> {
        let peers = self.status(at).peers.into_iter();
        peers.filter(|peer| peer.nickname == Self::name(of)).map(|peer| peer.state).next()
    }

    pub fn target_status(&self, at: usize, target: usize) -> TargetStatus {
        let targets = self.status(at).targets.into_iter();
        let mut named = targets.filter(|status| status.target == Self::name(target));
        named.next().expect("it was named")
    }

    /// No two containers anywhere have the same address.
    pub fn assert_no_duplicates(&self) {
        let duplicates = self.duplicates();
        assert!(duplicates.is_empty(), "seed {}: addresses with two holders: {duplicates:?}", self.seed);
    }

    /// The addresses that more than one container has.
    pub fn duplicates(&self) -> Vec<(IpAddr, Vec<String>)> {
        self.duplicates_on(|_| true)
    }

    /// The same, but only of hosts that run.
    pub fn live_duplicates(&self) -> Vec<(IpAddr, Vec<String>)> {
        self.duplicates_on(|number| self.hosts[number].mesh.is_some())
    }

    fn duplicates_on(&self, counts: impl Fn(usize) -> bool) -> Vec<(IpAddr, Vec<String>)> {
        let mut holders: BTreeMap<(NetworkId, IpAddr), Vec<String>> = BTreeMap::new();
        for (number, host) in self.hosts.iter().enumerate().filter(|(number, _)| counts(*number)) {
            for (_, endpoint) in host.ports.values() {
                for prefix in &endpoint.addresses {
                    let holder = format!("{} on {}", endpoint.name, Self::name(number));
                    holders.entry((endpoint.network, prefix.addr)).or_default().push(holder);
                }
            }
        }
        holders.retain(|_, holders| holders.len() > 1);
        holders.into_iter().map(|((_, addr), holders)| (addr, holders)).collect()
    }

    /// No two running hosts of a cluster take themselves for the owner of a unit, but of those that are excused.
    pub fn assert_one_owner(&self, excused: &BTreeSet<u16>) {
        let mut owned: Vec<(Run, usize)> = Vec::new();
        for (number, host) in self.hosts.iter().enumerate().filter(|(_, host)| host.clone_of.is_none()) {
            let own = host.units().into_iter().filter(|run| run.owner == host.peer_id());
            owned.extend(own.map(|run| (run, number)));
        }
        owned.sort_by_key(|(run, _)| (run.cluster, run.first));
        for pair in owned.windows(2) {
            let ((left, a), (right, b)) = (pair[0], pair[1]);
            let mut both = right.first..=left.last.min(right.last);
            let wrong = left.cluster == right.cluster && a != b && both.any(|unit| !excused.contains(&unit));
            assert!(!wrong, "seed {}: {a} and {b} both own units: {left:?}, {right:?}", self.seed);
        }
    }

    /// A unit that nobody owns whom the host knows, if there is one.
    pub fn lost_space(&self, number: usize) -> Option<String> {
        let mesh = self.hosts[number].mesh.as_ref()?;
        let mut next = 0;
        for run in &self.hosts[number].units() {
            let known = mesh.records().any(|record| record.signer() == run.owner && !record.deleted());
            if run.first != next || !known {
                return Some(format!(
                    "{number} misses units from {next} on, or knows nobody who has {run:?}"
                ));
            }
            next = run.last + 1;
        }
        None
    }

    /// Waits until all agree, or says what they think instead.
    pub fn assert_agreement(&mut self) -> Duration {
        self.assert_agreement_within(AGREEMENT)
    }

    pub fn assert_agreement_within(&mut self, limit: Duration) -> Duration {
        let took = self.run_until(limit, World::agree);
        took.unwrap_or_else(|| {
            self.tell_all();
            panic!(
                "seed {}: no agreement {limit:?} after the last fault, at {:?}",
                self.seed,
                self.elapsed()
            );
        })
    }

    /// What every host thinks, for people.
    pub fn tell_all(&self) {
        for number in self.running() {
            let status = self.status(number);
            println!(
                "{} {} {} cluster {:?}",
                status.nickname,
                status.peer_id,
                &status.state_hash[..8],
                status.cluster_id
            );
            status.peers.iter().for_each(|peer| println!("   peer {} {:?}", peer.nickname, peer.state));
            status.targets.iter().for_each(|target| println!("   target {target:?}"));
            status.connections.iter().for_each(|connection| println!("   connection {connection:?}"));
            status.ipam.iter().for_each(|ipam| println!("   {ipam:?}"));
            status.events.iter().for_each(|e| println!("   {:.3} ago {}: {}", e.age_s, e.kind, e.message));
        }
    }
}
