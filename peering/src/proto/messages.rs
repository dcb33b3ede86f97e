//! The bodies of the messages.

use std::net::{IpAddr, SocketAddr};

use engine::types::{NetworkId, PeerId, PortId};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::MAX_CLOSURE;
use crate::gossip::{StateHash, Version};
use crate::ipam::MAX_UNITS;
use crate::plain;
use crate::records::{ClusterId, MAX_NAME, MAX_TARGETS};

/// Who speaks, in which versions, and for which cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// The oldest version of the protocol that the sender speaks.
    pub min_version: u16,
    /// The newest.
    pub max_version: u16,
    /// The sender's cluster; none before a founding.
    pub cluster: Option<ClusterId>,
    /// Nobody holds an address in the sender's cluster, which it founded: it gives way to another cluster.
    pub cedes: bool,
    /// Drawn at random at each start of the sender.
    pub boot_nonce: u64,
    /// The sender's name for people.
    pub nickname: String,
    /// What the sender wants the connection for.
    pub purpose: Purpose,
    /// For how many milliseconds the sender has had its identity; 0: it takes itself for a clone, and waits.
    pub standing_ms: u64,
}

/// The receiver's key is in use by another host too, which was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CloneSeen {
    /// Where that one was seen.
    pub addr: SocketAddr,
}

/// A host does not answer the sender, and its machine said that nobody listens there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Vacant {
    /// The host.
    #[serde(with = "plain")]
    pub peer: PeerId,
}

/// What a side wants a connection for, the least first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Purpose {
    /// Something had to be said to that host, once; or nothing, since the other side dialled.
    Demand,
    /// It is one of the few that hold the cluster together.
    Chosen,
    /// People named the host.
    Target,
}

/// Who is alive, as the sender knows it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Members {
    /// A hash of the hosts that are alive; equal ones end the comparison.
    pub hash: u64,
    /// What the receiver is to do about a difference.
    pub told: Told,
    /// All members, unless only the hash is told.
    pub members: Vec<Member>,
}

/// How far a comparison of members came.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Told {
    /// Only the hash: the receiver answers with all it knows.
    Hash,
    /// All that is known: a receiver that knows more answers alike.
    All,
    /// The same as the last word.
    Last,
}

/// One host as membership knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Member {
    /// The host.
    #[serde(with = "plain")]
    pub peer: PeerId,
    /// How often it began anew.
    pub bump: u64,
    /// How often it denied a suspicion since.
    pub denials: u16,
    /// 0 alive, 1 suspect, 2 down; others are not used.
    pub state: u8,
}

/// Hashes of everything that is compared in a round of repair, tombstones included.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Summary {
    /// Of the records.
    pub records: StateHash,
    /// Of the units.
    pub units: StateHash,
}

/// Equal facts about neighbouring units of one network.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Run {
    /// The first unit.
    pub first: u16,
    /// The last unit, included.
    pub last: u16,
    /// The cluster of the fact.
    pub cluster: ClusterId,
    /// How often the unit changed hands.
    pub epoch: u64,
    /// Who may allocate in it.
    pub owner: PeerId,
}

/// Facts about units of one subnet of a network, in order and without overlap; all of them, or those that changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnitTable {
    /// The network.
    pub network: NetworkId,
    /// The subnet that the units cut.
    pub range: IpNet,
    /// The facts.
    pub runs: Vec<Run>,
}

/// A [`UnitTable`] with each cluster and owner written once.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct PackedTable {
    #[serde(with = "plain")]
    network: NetworkId,
    #[serde(with = "plain")]
    range: IpNet,
    clusters: Vec<ClusterId>,
    #[serde(with = "plain")]
    owners: Vec<PeerId>,
    /// First unit, number of units, cluster by place, epoch, owner by place.
    runs: Vec<(u16, u16, u16, u64, u16)>,
}

/// A question to a host of the closure, while nobody founded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ask {
    /// The asker's number for this round of questions.
    pub round: u64,
    /// The asker itself needs an address; without it, it asks because somebody else does.
    pub need: bool,
}

/// What the closure of a founding looks like to the sender.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// The round of the ask.
    pub round: u64,
    /// The sender's cluster; its unit table follows.
    pub cluster: Option<ClusterId>,
    /// All hosts in the sender's closure, itself and the asker included.
    #[serde(with = "plain")]
    pub closure: Vec<PeerId>,
    /// Targets in the sender's closure at which nobody answered yet, for people.
    pub unresolved: Vec<String>,
    /// Whom the sender itself waits for, for people.
    pub waiting_for: Vec<String>,
}

/// A wish for units. Answered alike as often as it comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SpaceRequest {
    /// The asker's number for it.
    pub id: u64,
    /// The network.
    #[serde(with = "plain")]
    pub network: NetworkId,
    /// The subnet of it.
    #[serde(with = "plain")]
    pub subnet: IpNet,
    /// Units wanted.
    pub wanted: u16,
    /// Wholly free units that the asker owns: the donor stays at least as rich.
    pub free: u16,
}

/// What became of a [`SpaceRequest`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SpaceAnswer {
    /// The asker's number for the request.
    pub id: u64,
    /// The granted units, now the asker's; no runs: refused.
    pub granted: UnitTable,
    /// Single addresses that the donor could still allocate.
    pub free: u64,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct PackedSpaceAnswer {
    id: u64,
    granted: PackedTable,
    free: u64,
}

/// A wish for one address out of the receiver's units. Answered alike as often as it comes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClaimRequest {
    /// The asker's number for it.
    pub id: u64,
    /// The network.
    #[serde(with = "plain")]
    pub network: NetworkId,
    /// The subnet of it.
    #[serde(with = "plain")]
    pub subnet: IpNet,
    /// This address; none: any.
    pub addr: Option<IpAddr>,
    /// The asker's port that will have it.
    #[serde(with = "plain")]
    pub port: PortId,
    /// The name of the holder, told to whoever wants the same address.
    pub holder: String,
}

/// What became of a [`ClaimRequest`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClaimAnswer {
    /// The asker's number for the request.
    pub id: u64,
    /// The network.
    #[serde(with = "plain")]
    pub network: NetworkId,
    /// The port that the request named.
    #[serde(with = "plain")]
    pub port: PortId,
    /// The address, or why not.
    pub result: Result<IpAddr, ClaimRefusal>,
}

/// Why the owner of a unit does not give an address of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ClaimRefusal {
    /// Somebody has it.
    InUse {
        /// Its name.
        holder: String,
    },
    /// The receiver does not own the unit; its unit table follows.
    NotOwner,
    /// No address is free.
    Full,
    /// The promise could not be written to disk.
    StoreFailed {
        /// What the disk said.
        reason: String,
    },
}

/// Does the receiver hold what the sender wrote, up to a version?
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Confirm {
    /// The version.
    pub upto: Version,
    /// What the sender itself holds of its own up to there.
    pub holding: StateHash,
}

/// The answer to a [`Confirm`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Confirmed {
    /// The version that was asked for.
    pub upto: Version,
    /// The answerer holds just the same.
    pub same: bool,
}

/// What a claim got is not used any more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Release {
    /// The network.
    #[serde(with = "plain")]
    pub network: NetworkId,
    /// The asker's number of the claim.
    pub id: u64,
}

/// Whom the sender has not seen for the whole of reclaim-after: all of them; none any more, if it is empty.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Absent {
    /// The hosts, in order.
    #[serde(with = "plain")]
    pub peers: Vec<PeerId>,
}

impl Hello {
    pub(super) fn within_limits(&self) -> bool {
        self.nickname.len() <= MAX_NAME
    }
}

impl Members {
    pub(super) fn within_limits(&self) -> bool {
        self.members.len() <= MAX_CLOSURE
    }
}

impl Answer {
    pub(super) fn within_limits(&self) -> bool {
        self.closure.len() <= MAX_CLOSURE
            && self.unresolved.len() <= MAX_TARGETS
            && self.waiting_for.len() <= MAX_TARGETS
            && self.unresolved.iter().chain(&self.waiting_for).all(|name| name.len() <= 3 * MAX_NAME)
    }
}

impl ClaimRequest {
    pub(super) fn within_limits(&self) -> bool {
        self.holder.len() <= MAX_NAME
    }
}

impl ClaimAnswer {
    pub(super) fn within_limits(&self) -> bool {
        match &self.result {
            Err(ClaimRefusal::InUse { holder }) => holder.len() <= 3 * MAX_NAME,
            Err(ClaimRefusal::StoreFailed { reason }) => reason.len() <= 3 * MAX_NAME,
            _ => true,
        }
    }
}

impl UnitTable {
    pub(super) fn pack(&self) -> PackedTable {
        let clusters = sorted(self.runs.iter().map(|run| run.cluster));
        let owners = sorted(self.runs.iter().map(|run| run.owner));
        let runs = self.runs.iter().map(|run| {
            let cluster = clusters.binary_search(&run.cluster).unwrap_or_default();
            let owner = owners.binary_search(&run.owner).unwrap_or_default();
            let len = run.last.saturating_sub(run.first) + 1;
            (run.first, len, place(cluster), run.epoch, place(owner))
        });
        let runs = runs.collect();
        PackedTable { network: self.network, range: self.range, clusters, owners, runs }
    }

    /// None: units that are out of order, overlap, do not exist, or belong to nobody.
    pub(super) fn unpack(packed: PackedTable) -> Option<Self> {
        let PackedTable { network, range, clusters, owners, runs } = packed;
        let mut next = 0;
        let mut unpacked = Vec::with_capacity(runs.len().min(MAX_UNITS.into()));
        for (first, len, cluster, epoch, owner) in runs {
            let last = first.checked_add(len.checked_sub(1)?)?;
            if first < next || last >= MAX_UNITS {
                return None;
            }
            next = last + 1;
            let (cluster, owner) = (*clusters.get(usize::from(cluster))?, *owners.get(usize::from(owner))?);
            unpacked.push(Run { first, last, cluster, epoch, owner });
        }
        Some(UnitTable { network, range, runs: unpacked })
    }
}

impl SpaceAnswer {
    pub(super) fn pack(&self) -> PackedSpaceAnswer {
        PackedSpaceAnswer { id: self.id, granted: self.granted.pack(), free: self.free }
    }

    pub(super) fn unpack(packed: PackedSpaceAnswer) -> Option<Self> {
        let granted = UnitTable::unpack(packed.granted)?;
        Some(SpaceAnswer { id: packed.id, granted, free: packed.free })
    }
}

/// A place in a list that has at most one entry per unit.
fn place(at: usize) -> u16 {
    u16::try_from(at).unwrap_or(u16::MAX)
}

fn sorted<T: Ord>(items: impl Iterator<Item = T>) -> Vec<T> {
    let set: std::collections::BTreeSet<T> = items.collect();
    set.into_iter().collect()
}
