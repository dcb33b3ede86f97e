//! Belonging to a cluster: founding it, learning it with its units, giving an unused one up for a used one, and going
//! over to a lower one.

use std::time::Instant;

use blake2::{Blake2s256, Digest};
use engine::types::{NetworkId, PeerId};
use rand::Rng;

use super::founding::settled_answer;
use super::state::{Network, Space};
use super::units::Units;
use super::{Ipam, IpamOutput};
use crate::gossip::StateHash;
use crate::mesh::MESH_NETWORK;
use crate::proto::{Ask, Message, Run, UnitTable};
use crate::records::{ClusterId, SubnetRecord};

/// What becomes of a connection between two hosts, by the clusters in their hellos.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Meeting {
    /// One cluster, or at most one side has one: go on.
    Same,
    /// This host gives its unused cluster up: call [`Ipam::give_way`], and say hello again.
    GiveWay,
    /// The other side gives its unused cluster up: wait for its next hello before anything else.
    Await,
    /// Two clusters that are in use: go on, they become one.
    Merge,
}

impl Ipam {
    /// The cluster this host belongs to.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.state.cluster
    }

    /// True when this host founded its cluster and nobody holds an address or made a network in it: every unit is its
    /// own, at the epoch of the founding, and nothing is allocated. Told in its hello.
    pub fn cedes(&self) -> bool {
        let untouched = |run: &Run| run.owner == self.own && run.epoch == 1;
        let mut runs = self.mesh_spaces().flat_map(|space| space.units.runs());
        self.state.cluster.is_some()
            && self.state.founder
            && self.pending.is_empty()
            && self.state.networks.keys().all(|network| *network == MESH_NETWORK)
            && self.state.holds_nothing()
            && runs.all(untouched)
    }

    /// What the hello of a peer means, by its cluster and whether it cedes.
    ///
    /// Also a host that holds nothing gives way, when the one owner of all units it knows of has another
    /// cluster now: that owner gave its cluster up.
    pub fn meet(&self, peer: PeerId, cluster: Option<ClusterId>, cedes: bool) -> Meeting {
        let Some(theirs) = cluster else { return Meeting::Same };
        let Some(ours) = self.state.cluster else {
            return if self.state.dissolved.contains(&theirs) { Meeting::Await } else { Meeting::Same };
        };
        if ours == theirs {
            return Meeting::Same;
        }
        let orphaned = self.state.holds_nothing() && self.state.owners().iter().eq([&peer]);
        if (self.cedes() && (!cedes || theirs < ours)) || orphaned {
            Meeting::GiveWay
        } else if cedes {
            Meeting::Await
        } else {
            Meeting::Merge
        }
    }

    /// Gives the unused cluster up; the networks that this host wrote for it are to be dropped without a
    /// tombstone. Its facts are never taken back.
    pub fn give_way(&mut self, now: Instant) {
        let Some(cluster) = self.state.cluster.take() else { return };
        self.state.dissolve(cluster);
        self.state.founder = false;
        self.state.networks.retain(|network, _| *network == MESH_NETWORK);
        for network in self.state.networks.values_mut() {
            network.local = super::local::Local::default();
            for space in &mut network.spaces {
                space.units = Units::default();
                space.grants.clear();
            }
        }
        self.asking.clear();
        self.founding.give_way(now);
        self.dirty = true;
        self.outputs.push_back(IpamOutput::Cluster { cluster: None, founded: false });
        let message = format!("the unused cluster {cluster} was given up for another one");
        self.outputs.push_back(IpamOutput::Notice { kind: "cluster_given_up", message });
        self.progress(now);
    }

    /// All facts that are on disk, to be sent when the hashes of a round of repair differ. Those of networks without a
    /// record do not count.
    pub fn unit_tables(&self) -> Vec<UnitTable> {
        tables(self.stored.known(&self.open))
    }

    /// A hash of all facts that are on disk, in canonical run-length form.
    pub fn units_hash(&self) -> StateHash {
        *self.units_hash.get_or_init(|| hash_of(self.stored.known(&self.open)))
    }

    fn mesh_spaces(&self) -> impl Iterator<Item = &Space> {
        self.state.networks.get(&MESH_NETWORK).into_iter().flat_map(|network| &network.spaces)
    }

    /// Answers a host that looks for a cluster.
    pub(super) fn handle_ask(&mut self, now: Instant, from: PeerId, ask: Ask) {
        let Some(cluster) = self.state.cluster else {
            let waiting_for = self.founding_waits_for(now);
            let answer = self.founding.handle_ask(now, from, ask, waiting_for);
            // The answer leaves only after `note_met` made the state wait for the disk.
            return self.send(from, Message::Answer(answer));
        };
        self.send(from, Message::Answer(settled_answer(ask.round, cluster)));
        for table in tables(self.state.known(&self.open)) {
            self.send(from, Message::Units(table));
        }
    }

    /// Goes on with the founding, if there is a need and no cluster.
    pub(super) fn found_or_ask(&mut self, now: Instant) {
        if self.state.cluster.is_some() {
            return;
        }
        let need = self.needs_address();
        if self.founding.is_too_soon(now) {
            return;
        }
        let number = self.number();
        let step = self.founding.step(now, need, number);
        for (peer, ask) in step.ask {
            self.send(peer, Message::Ask(ask));
        }
        if step.found {
            self.found();
        }
    }

    /// True while somebody here needs an address, or a network.
    pub(super) fn needs_address(&self) -> bool {
        self.creating || !self.pending.is_empty() || !self.wanted.is_empty()
    }

    /// Networks are to be created as soon as there is a cluster, or not.
    pub fn set_creating(&mut self, now: Instant, creating: bool) {
        if std::mem::replace(&mut self.creating, creating) != creating {
            self.progress(now);
        }
    }

    fn found(&mut self) {
        let mut id = [0; 16];
        self.rng.fill_bytes(&mut id);
        let cluster = ClusterId(id);
        self.state.cluster = Some(cluster);
        self.state.founder = true;
        self.take_all(MESH_NETWORK, cluster);
        self.founding.settle();
        self.outputs.push_back(IpamOutput::Cluster { cluster: Some(cluster), founded: true });
        self.push_tables(MESH_NETWORK);
    }

    /// Merges facts from a peer. The lowest cluster of which a host sees facts about the network `mesh` is the one it
    /// belongs to: so it joins its first one, and so two clusters that meet become one. Facts about another network wait
    /// for its record, and for a cluster: they come again.
    pub(super) fn handle_units(&mut self, table: &UnitTable) {
        let Ok(fresh) = Space::new(&SubnetRecord::whole(table.range)) else { return };
        let units = fresh.pool.units();
        let usable = |run: &&Run| run.last < units && run.epoch > 0 && !self.ignores(run.cluster);
        let facts: Vec<Run> = table.runs.iter().filter(usable).copied().collect();
        let Some(lowest) = facts.iter().map(|run| run.cluster).min() else { return };
        if table.network != MESH_NETWORK {
            if self.state.cluster.is_some() && self.open.contains(&table.network) {
                self.merge_facts(table, &facts);
            }
        } else if self.take_range(fresh, lowest) {
            self.join(lowest);
            self.merge_facts(table, &facts);
        }
    }

    /// Just after an unused cluster was given up, what still comes of it is not taken back.
    fn ignores(&self, cluster: ClusterId) -> bool {
        self.state.cluster.is_none() && self.state.dissolved.contains(&cluster)
    }

    /// Uses the range of the lowest cluster that has facts about `mesh`; false if the known one stays.
    fn take_range(&mut self, fresh: Space, lowest: ClusterId) -> bool {
        let Some(network) = self.state.networks.get_mut(&MESH_NETWORK) else { return false };
        if network.place(fresh.pool.subnet()).is_some() {
            return true;
        }
        let runs = network.spaces.iter().flat_map(|space| space.units.runs());
        if runs.map(|run| run.cluster).min().is_some_and(|ours| ours <= lowest) {
            return false;
        }
        // What is allocated in the former range stays with its ports until they have other addresses.
        network.spaces = vec![fresh];
        self.contested.insert(MESH_NETWORK);
        self.dirty = true;
        true
    }

    fn join(&mut self, cluster: ClusterId) {
        let before = self.state.cluster;
        if before.is_some_and(|ours| ours <= cluster) {
            return;
        }
        self.state.cluster = Some(cluster);
        self.state.founder = false;
        self.founding.settle();
        self.dirty = true;
        self.outputs.push_back(IpamOutput::Cluster { cluster: Some(cluster), founded: false });
        if let Some(ours) = before {
            let message = format!(
                "cluster {ours}, to which this host belonged, met cluster {cluster} and goes on as that: its settings \
                 and its owners of address space count"
            );
            self.outputs.push_back(IpamOutput::Notice { kind: "clusters_merged", message });
        }
    }

    /// Merges, relays what was new, and looks what it means for this host's own space.
    fn merge_facts(&mut self, table: &UnitTable, facts: &[Run]) {
        let Some(network) = self.state.networks.get_mut(&table.network) else { return };
        let Some(at) = network.place(table.range) else { return };
        let Some(space) = network.spaces.get_mut(at) else { return };
        let news = space.units.merge(facts);
        if news.is_empty() {
            return;
        }
        let news = space.table(table.network, news);
        let taken = self.taken.entry(table.network).or_default();
        network.forget_lost(at, self.own, taken);
        self.dirty = true;
        self.contested.insert(table.network);
        self.stirred.insert(table.network);
        self.outputs.push_back(IpamOutput::Push(news));
        self.take_over(Some(table.network));
    }
}

/// All facts about some networks.
fn tables<'a>(networks: impl Iterator<Item = (NetworkId, &'a Network)>) -> Vec<UnitTable> {
    let spaces = networks.flat_map(|(id, network)| network.spaces.iter().map(move |space| (id, space)));
    let known = spaces.filter(|(_, space)| !space.units.is_empty());
    known.map(|(id, space)| space.table(id, space.units.runs().to_vec())).collect()
}

fn hash_of<'a>(networks: impl Iterator<Item = (NetworkId, &'a Network)>) -> StateHash {
    let mut hash = Blake2s256::new_with_prefix(b"meshnet units 2");
    let spaces = networks.flat_map(|(id, network)| network.spaces.iter().map(move |space| (id, space)));
    for (id, space) in spaces.filter(|(_, space)| !space.units.is_empty()) {
        hash.update(id.0);
        hash.update(space.pool.subnet().to_string());
        hash.update((space.units.runs().len() as u64).to_le_bytes());
        space.units.feed(&mut hash);
    }
    StateHash(hash.finalize().into())
}
