//! The question for addresses, and the reasons for a refusal.

use std::net::IpAddr;
use std::time::Duration;

use engine::types::{NetworkId, PortId};

/// A request for addresses of one network.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AllocRequest {
    /// The port that will have them.
    pub port: PortId,
    /// The network.
    pub network: NetworkId,
    /// The name of the holder, told to whoever wants the same address.
    pub holder: String,
    /// These addresses, and a free one of each family of the network that none of them is of.
    pub wanted: Vec<IpAddr>,
    /// No free address of IPv6: the holder could not use one.
    pub without_ipv6: bool,
}

/// Why there is no address.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AllocError {
    /// Somebody has it.
    #[error("{addr} is in use by {holder}")]
    InUse {
        /// The address.
        addr: IpAddr,
        /// Who has it.
        holder: String,
    },
    /// It is no address of the network.
    #[error("{addr} is outside the range {range} of the network {network}")]
    OutsideRange {
        /// The address.
        addr: IpAddr,
        /// The network's name.
        network: String,
        /// Its range.
        range: String,
    },
    /// The network itself needs it.
    #[error("{addr} is the {what} address of the network")]
    Reserved {
        /// The address.
        addr: IpAddr,
        /// `network`, `broadcast` or `gateway`.
        what: &'static str,
    },
    /// No address is left that could be had.
    #[error(
        "no free address in the network {network} ({range}): {used} of {size} are used; space is held by {holders}"
    )]
    Exhausted {
        /// The network's name.
        network: String,
        /// Its range.
        range: String,
        /// Addresses in use, as far as this host knows.
        used: u64,
        /// Addresses that exist.
        size: u64,
        /// Who holds the space.
        holders: String,
    },
    /// Most hosts were not seen for so long that they may be about to take this host's space.
    #[error(
        "no new address: {missed} of {members} hosts were not seen for half of reclaim-after ({after:?}), and may give the addresses of this host to others"
    )]
    MajorityMissed {
        /// How many were not seen.
        missed: usize,
        /// How many there are.
        members: usize,
        /// After how long the space of a host may be taken.
        after: Duration,
    },
    /// The host that could give the address is down.
    #[error("{addr} can only be given by {owner}, which is down")]
    OwnerDown {
        /// The address.
        addr: IpAddr,
        /// The nickname of its owner.
        owner: String,
    },
    /// The promise could not be written to disk, so it was not made.
    #[error("the state could not be stored: {reason}")]
    StoreFailed {
        /// What the disk said.
        reason: String,
    },
    /// No such network.
    #[error("there is no network {network}")]
    UnknownNetwork {
        /// Its id.
        network: NetworkId,
    },
    /// Another host with the key of this one was there before.
    #[error("this host is a clone: {other}")]
    Clone {
        /// What the host that refused this one said of the other.
        other: String,
    },
    /// The daemon is stopping.
    #[error("the daemon is stopping")]
    Stopping,
}

impl AllocError {
    /// One word for programs, listed in `docs/cli.md`.
    pub fn code(&self) -> &'static str {
        match self {
            AllocError::InUse { .. } => "address_in_use",
            AllocError::OutsideRange { .. } => "address_outside_range",
            AllocError::Reserved { .. } => "address_reserved",
            AllocError::Exhausted { .. } => "addresses_exhausted",
            AllocError::MajorityMissed { .. } => "majority_missed",
            AllocError::OwnerDown { .. } => "address_owner_down",
            AllocError::StoreFailed { .. } => "store_failed",
            AllocError::UnknownNetwork { .. } => "unknown_network",
            AllocError::Clone { .. } => "clone",
            AllocError::Stopping => "stopping",
        }
    }
}
