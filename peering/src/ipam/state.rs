//! What must be on disk before an answer leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use engine::types::{NetworkId, PeerId, PortId};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::IpamError;
use super::local::{Local, View};
use super::pool::Pool;
use super::taken::Taken;
use super::units::Units;
use crate::plain;
use crate::proto::{Run, UnitTable};
use crate::records::ClusterId;

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
    #[serde(with = "plain")]
    pub(super) range: IpNet,
    pub(super) units: Units,
    pub(super) local: Local,
    /// The last grant to each host, so that a repeated request gets the same answer.
    #[serde(with = "plain")]
    pub(super) grants: BTreeMap<PeerId, Grant>,
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

plain::plain_itself! { Network, Grant, Foreign }

impl State {
    pub(super) fn encode(&self) -> Result<Vec<u8>, IpamError> {
        postcard::to_extend(self, vec![STATE_VERSION]).map_err(|_| IpamError::Malformed)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, IpamError> {
        let state: State = match bytes.split_first() {
            Some((&STATE_VERSION, rest)) => postcard::from_bytes(rest).map_err(|_| IpamError::Malformed)?,
            Some((&version, _)) => return Err(IpamError::Version(version)),
            None => return Err(IpamError::Malformed),
        };
        let sound = |network: &Network| Pool::new(network.range).is_ok();
        if state.networks.values().all(sound) { Ok(state) } else { Err(IpamError::Malformed) }
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
        self.networks.values().flat_map(|network| network.units.runs()).map(|run| run.owner).collect()
    }
}

impl Network {
    /// A network of which no unit is known.
    pub(super) fn new(name: String, range: IpNet) -> Result<Self, IpamError> {
        let range = Pool::new(range)?.range();
        let (units, local) = (Units::default(), Local::default());
        Ok(Network { name, range, units, local, grants: BTreeMap::new() })
    }

    /// The geometry of the range, which was checked when the network was made.
    pub(super) fn pool(&self) -> Pool {
        Pool::of_checked(self.range)
    }

    /// The allocations, and what they look at.
    pub(super) fn parts<'a>(&'a mut self, own: PeerId, taken: &'a Taken) -> (&'a mut Local, View<'a>) {
        let pool = self.pool();
        (&mut self.local, View { own, pool, units: &self.units, taken })
    }

    /// The view alone.
    pub(super) fn view<'a>(&'a self, own: PeerId, taken: &'a Taken) -> View<'a> {
        View { own, pool: self.pool(), units: &self.units, taken }
    }

    /// Facts as a table.
    pub(super) fn table(&self, network: NetworkId, runs: Vec<Run>) -> UnitTable {
        UnitTable { network, range: self.range, runs }
    }
}
