//! What the library is told of a host, and how it is set up.

use std::num::{NonZeroU32, NonZeroUsize};

use engine::types::PeerId;
use foca::{OwnedNotification, State};
use serde::{Deserialize, Serialize};

use super::{MAX_DATAGRAM, MemberEvent, PROBE_PERIOD, SUSPICION_MAX};
use crate::mesh::PeerState;

/// A member: the host, and how often it began anew.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct MemberId {
    pub(super) peer: [u8; 16],
    pub(super) bump: u64,
}

impl foca::Identity for MemberId {
    type Addr = [u8; 16];

    fn renew(&self) -> Option<Self> {
        Some(MemberId { peer: self.peer, bump: self.bump.saturating_add(1) })
    }

    fn addr(&self) -> Self::Addr {
        self.peer
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.bump > adversary.bump
    }
}

pub(super) fn config(members: usize) -> foca::Config {
    let size = u32::try_from(members).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN);
    let mut config = foca::Config::new_lan(size);
    config.probe_period = PROBE_PERIOD;
    config.suspect_to_down_after = config.suspect_to_down_after.min(SUSPICION_MAX);
    // Hosts compare all they know with each other once a second, and connections to hosts that are down are tried anyway.
    config.periodic_announce = None;
    config.periodic_announce_to_down_members = None;
    config.max_packet_size = NonZeroUsize::new(MAX_DATAGRAM).unwrap_or(config.max_packet_size);
    config
}

pub(super) fn state_of(state: State) -> PeerState {
    match state {
        State::Alive => PeerState::Alive,
        State::Suspect => PeerState::Suspect,
        State::Down => PeerState::Down,
    }
}

pub(super) fn event_of(notification: OwnedNotification<MemberId>) -> Option<MemberEvent> {
    match notification {
        OwnedNotification::MemberUp(id) => Some(MemberEvent::Up(PeerId(id.peer))),
        OwnedNotification::MemberDown(id) => Some(MemberEvent::Down(PeerId(id.peer))),
        OwnedNotification::Rejoin(id) => Some(MemberEvent::Rejoined(id.bump)),
        OwnedNotification::Rename(..)
        | OwnedNotification::Active
        | OwnedNotification::Idle
        | OwnedNotification::Defunct => None,
    }
}
