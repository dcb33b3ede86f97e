//! What must be on disk before an answer leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use engine::types::{NetworkId, PeerId, PortId};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::IpamError;
use super::local::{Cursor, Local, View};
use super::pool::Pool;
use super::taken::Taken;
use super::units::Units;
use crate::mesh::MESH_NETWORK;
use crate::plain;
use crate::proto::{Run, UnitTable};
use crate::records::{ClusterId, SubnetRecord};

const STATE_VERSION: u8 = 1;
/// Most clusters given up that are remembered.
const MAX_DISSOLVED: usize = 16;

/// Everything that outlives the daemon.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) cluster: Option<ClusterId>,
    /// This host made the cluster.
    pub(super) founder: bool,
    /// Clusters that this host founded and gave up: their facts are not taken back.
    pub(super) dissolved: Vec<ClusterId>,
    /// Hosts that were answered while there was no cluster.
    #[serde(with = "plain")]
    pub(super) met: Vec<PeerId>,
    #[serde(with = "plain")]
    pub(super) networks: BTreeMap<NetworkId, Network>,
    /// Addresses of other hosts' units for ports of this one, by the number of the request.
    #[serde(with = "plain")]
    pub(super) foreign: BTreeMap<u64, Foreign>,
}

/// One network's addresses.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Network {
    pub(super) name: String,
    pub(super) local: Local,
    /// One for each subnet, in the order of the network's record.
    #[serde(with = "plain")]
    pub(super) spaces: Vec<Space>,
}

/// The units of one subnet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Space {
    #[serde(with = "plain")]
    pub(super) pool: Pool,
    pub(super) units: Units,
    /// The last grant to each host, so that a repeated request gets the same answer.
    #[serde(with = "plain")]
    pub(super) grants: BTreeMap<PeerId, Grant>,
    #[serde(skip)]
    cursor: Cursor,
}

/// What a request for space was answered with: its number and the units.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Grant {
    pub(super) id: u64,
    pub(super) units: Vec<(u16, u16)>,
}

/// An address of another host's units for a port of this one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Foreign {
    #[serde(with = "plain")]
    pub(super) network: NetworkId,
    /// The subnet.
    #[serde(with = "plain")]
    pub(super) subnet: IpNet,
    /// None: whatever the asked host gives.
    pub(super) addr: Option<IpAddr>,
    #[serde(with = "plain")]
    pub(super) port: PortId,
    pub(super) holder: String,
    /// The host that was asked, and allocated if it did.
    #[serde(with = "plain")]
    pub(super) owner: PeerId,
    pub(super) stage: Stage,
}

/// How far a claim on another host's address came.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Stage {
    /// Asked, and perhaps allocated.
    Asked,
    /// The port has it.
    Held,
    /// To be told to the owner until it confirms.
    Releasing,
}

plain::plain_itself! { Network, Space, Grant, Foreign }

impl State {
    pub(super) fn encode(&self) -> Result<Vec<u8>, IpamError> {
        postcard::to_extend(self, vec![STATE_VERSION]).map_err(|_| IpamError::Malformed)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, IpamError> {
        let mut state: State = match bytes.split_first() {
            Some((&STATE_VERSION, rest)) => postcard::from_bytes(rest).map_err(|_| IpamError::Malformed)?,
            Some((&version, _)) => return Err(IpamError::Version(version)),
            None => return Err(IpamError::Malformed),
        };
        state.networks.values_mut().for_each(|network| network.local.index());
        Ok(state)
    }

    /// Remembers a cluster that was given up, the oldest forgotten first.
    pub(super) fn dissolve(&mut self, cluster: ClusterId) {
        if self.dissolved.len() >= MAX_DISSOLVED {
            self.dissolved.remove(0);
        }
        self.dissolved.push(cluster);
    }

    /// True when no address of any network is allocated here or for this host.
    pub(super) fn holds_nothing(&self) -> bool {
        self.foreign.is_empty() && self.networks.values().all(|network| network.local.is_empty())
    }

    /// Everybody who owns units, in any network.
    pub(super) fn owners(&self) -> BTreeSet<PeerId> {
        let spaces = self.networks.values().flat_map(|network| &network.spaces);
        spaces.flat_map(|space| space.units.runs()).map(|run| run.owner).collect()
    }

    /// The network `mesh`, then those of `others`, in the order of ids.
    pub(super) fn known<'a>(
        &'a self,
        others: &'a BTreeSet<NetworkId>,
    ) -> impl Iterator<Item = (NetworkId, &'a Network)> {
        let others = others.iter().copied().filter(|network| *network != MESH_NETWORK);
        let ids = std::iter::once(MESH_NETWORK).chain(others);
        ids.filter_map(|id| Some((id, self.networks.get(&id)?)))
    }
}

impl Network {
    /// A network of which no unit is known.
    pub(super) fn new(name: String, subnets: &[SubnetRecord]) -> Result<Self, IpamError> {
        let spaces = subnets.iter().map(Space::new).collect::<Result<_, _>>()?;
        Ok(Network { name, local: Local::default(), spaces })
    }

    /// True while no unit of any subnet is known.
    pub(super) fn is_unfounded(&self) -> bool {
        self.spaces.iter().all(|space| space.units.is_empty())
    }

    /// The place of a subnet.
    pub(super) fn place(&self, subnet: IpNet) -> Option<usize> {
        self.spaces.iter().position(|space| space.pool.subnet() == subnet)
    }

    /// The place of the subnet of an address, and its unit there.
    pub(super) fn unit_of(&self, addr: IpAddr) -> Option<(usize, u16)> {
        let mut spaces = self.spaces.iter().enumerate();
        spaces.find_map(|(at, space)| Some((at, space.pool.unit_of(addr)?)))
    }

    /// The subnet of an address.
    pub(super) fn space_of(&self, addr: IpAddr) -> Option<&Space> {
        self.spaces.iter().find(|space| space.pool.unit_of(addr).is_some())
    }

    /// The fact about the unit of an address.
    pub(super) fn run_of(&self, addr: IpAddr) -> Option<&Run> {
        let (at, unit) = self.unit_of(addr)?;
        self.spaces.get(at)?.units.get(unit)
    }

    /// True when it has a subnet of this family.
    pub(super) fn has_family(&self, ipv6: bool) -> bool {
        self.spaces.iter().any(|space| space.pool.is_ipv6() == ipv6)
    }

    /// The places of the subnets of a family, in order.
    pub(super) fn of_family(&self, ipv6: bool) -> impl Iterator<Item = usize> {
        let spaces = self.spaces.iter().enumerate();
        spaces.filter(move |(_, space)| space.pool.is_ipv6() == ipv6).map(|(at, _)| at)
    }

    /// The allocations, and what they look at in one subnet.
    pub(super) fn parts<'a>(
        &'a mut self,
        at: usize,
        own: PeerId,
        taken: &'a Taken,
    ) -> Option<(&'a mut Local, &'a mut Cursor, View<'a>)> {
        let Space { pool, units, cursor, .. } = self.spaces.get_mut(at)?;
        Some((&mut self.local, cursor, View { own, pool, units, taken }))
    }

    /// The view of a subnet alone.
    pub(super) fn view<'a>(&'a self, at: usize, own: PeerId, taken: &'a Taken) -> Option<View<'a>> {
        let Space { pool, units, .. } = self.spaces.get(at)?;
        Some(View { own, pool, units, taken })
    }

    /// Forgets the order of freed addresses in units that another host has now.
    pub(super) fn forget_lost(&mut self, at: usize, own: PeerId, taken: &Taken) {
        if let Some((local, cursor, view)) = self.parts(at, own, taken) {
            local.forget_lost(&view);
            *cursor = None;
        }
    }

    /// Units or endpoint records changed: what was known to be used may be fresh.
    pub(super) fn look_again(&mut self) {
        self.spaces.iter_mut().for_each(|space| space.cursor = None);
    }

    /// Uses these subnets and no others; what is known of one that stays is kept.
    pub(super) fn set_subnets(&mut self, subnets: &[SubnetRecord]) -> Result<bool, IpamError> {
        let mut fresh = Network::new(String::new(), subnets)?.spaces;
        let same = |space: &Space, known: &Space| space.pool == known.pool;
        if fresh.len() == self.spaces.len() && fresh.iter().zip(&self.spaces).all(|(a, b)| same(a, b)) {
            return Ok(false);
        }
        for space in &mut fresh {
            if let Some(known) = self.spaces.iter().find(|known| known.pool.subnet() == space.pool.subnet()) {
                space.units = known.units.clone();
                space.grants = known.grants.clone();
            }
        }
        self.spaces = fresh;
        Ok(true)
    }
}

impl Space {
    /// A subnet of which no unit is known.
    pub(super) fn new(subnet: &SubnetRecord) -> Result<Self, IpamError> {
        let pool = Pool::of(subnet)?;
        Ok(Space { pool, units: Units::default(), grants: BTreeMap::new(), cursor: None })
    }

    /// Facts as a table.
    pub(super) fn table(&self, network: NetworkId, runs: Vec<Run>) -> UnitTable {
        UnitTable { network, range: self.pool.subnet(), runs }
    }
}
