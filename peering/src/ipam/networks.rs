//! Which networks there are: those with a record, and for a while those that had one.
//!
//! The facts about the units of a network count while there is a record of it. When that goes they are kept for a while,
//! uncounted: whoever still has an endpoint on the network brings it back, and then everything is as it was.

use std::time::{Duration, Instant};

use engine::types::NetworkId;

use super::state::Network;
use super::units::Units;
use super::{Ipam, IpamError, IpamOutput};
use crate::mesh::{AllocError, MESH_NETWORK};
use crate::records::{ClusterId, SubnetRecord};

/// How long what is known of a network without a record is kept.
const KEPT: Duration = Duration::from_secs(3600);

impl Ipam {
    /// There is a network: its name, and its subnets. Those of `mesh` that were learnt with the units of a cluster stay.
    ///
    /// # Errors
    /// A subnet cannot be cut into units.
    pub fn add_network(
        &mut self,
        id: NetworkId,
        name: &str,
        subnets: &[SubnetRecord],
    ) -> Result<(), IpamError> {
        if let Some(known) = self.state.networks.get_mut(&id) {
            if id != MESH_NETWORK || known.is_unfounded() {
                self.dirty |= known.set_subnets(subnets)?;
            }
            if known.name != name {
                name.clone_into(&mut known.name);
                self.dirty = true;
            }
        } else {
            self.state.networks.insert(id, Network::new(name.to_owned(), subnets)?);
            self.dirty = true;
        }
        self.closed.remove(&id);
        if self.open.insert(id) {
            self.units_hash.take();
            self.contested.insert(id);
            self.stirred.insert(id);
        }
        if self.made.remove(&id) {
            self.push_tables(id);
        }
        Ok(())
    }

    /// Takes every unit of a new network, of which nobody has heard. [`IpamOutput::Founded`] follows when that is on disk,
    /// and the record may be written; without a cluster, or with other subnets than these, nothing happens.
    pub fn found_network(&mut self, id: NetworkId, name: &str, subnets: &[SubnetRecord]) {
        let Some(cluster) = self.state.cluster else { return };
        let Ok(network) = Network::new(name.to_owned(), subnets) else { return };
        self.state.networks.entry(id).or_insert(network);
        self.take_all(id, cluster);
        self.made.insert(id);
        self.outputs.push_back(IpamOutput::Founded { network: id, result: Ok(()) });
    }

    /// There is no record of a network any more.
    pub fn close_network(&mut self, now: Instant, id: NetworkId) {
        self.made.remove(&id);
        if self.open.remove(&id) {
            self.units_hash.take();
            self.contested.insert(id);
            self.asking.retain(|(network, _), _| *network != id);
            self.wanted.remove(&id);
            self.refuse_on(id, &AllocError::UnknownNetwork { network: id });
        }
        if self.state.networks.contains_key(&id) {
            self.closed.entry(id).or_insert(now + KEPT);
        }
        self.progress(now);
    }

    /// Forgets what was kept of networks long enough. After a start those without a record are found here.
    pub(super) fn forget_closed(&mut self, now: Instant) {
        if !std::mem::replace(&mut self.looked_for_closed, true) {
            let lost = self.state.networks.keys().filter(|id| !self.is_open(**id));
            let lost: Vec<NetworkId> = lost.copied().collect();
            self.closed.extend(lost.into_iter().map(|id| (id, now + KEPT)));
        }
        for (id, _) in self.closed.extract_if(.., |_, until| *until <= now).collect::<Vec<_>>() {
            self.state.networks.remove(&id);
            self.state.foreign.retain(|_, foreign| foreign.network != id);
            self.dirty = true;
        }
    }

    /// True when there is a record of the network; of `mesh` there always is.
    pub(super) fn is_open(&self, id: NetworkId) -> bool {
        id == MESH_NETWORK || self.open.contains(&id)
    }

    /// All units of a network are this host's.
    pub(super) fn take_all(&mut self, id: NetworkId, cluster: ClusterId) {
        let Some(network) = self.state.networks.get_mut(&id) else { return };
        for space in &mut network.spaces {
            space.units = Units::founded(space.pool.units(), cluster, self.own);
        }
        network.look_again();
        self.stirred.insert(id);
        self.dirty = true;
    }

    pub(super) fn push_tables(&mut self, id: NetworkId) {
        let Some(network) = self.state.networks.get(&id) else { return };
        let founded = network.spaces.iter().filter(|space| !space.units.is_empty());
        let tables = founded.map(|space| space.table(id, space.units.runs().to_vec()));
        self.outputs.extend(tables.map(IpamOutput::Push));
    }
}
