//! Asking other hosts for units: on joining, below the low-water mark, and when a request finds nothing.
//!
//! One donor is asked at a time, drawn at random by how much it owns. Donors that refuse are left out until
//! the round ends; then, if a request waits, donors that still have single addresses are asked for one, and
//! if none has, the request is refused. Without a request the next round waits ever longer.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use engine::types::{NetworkId, PeerId, PortId};
use rand::Rng;

use super::Ipam;
use super::state::Stage;
use crate::mesh::AllocError;
use crate::proto::{Message, SpaceAnswer, SpaceRequest};

/// How long an answer is awaited before the request is sent again.
const ANSWER: Duration = Duration::from_secs(1);
/// How often a donor that does not answer is asked.
const TRIES: u8 = 3;
/// Between two rounds in which nobody gave anything.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The search for space in one network.
pub(super) struct Asking {
    request: Option<Request>,
    /// Who refused in this round, and how many single addresses it has; none: it did not answer.
    refused: BTreeMap<PeerId, Option<u64>>,
    next_round: Instant,
    pause: Duration,
}

struct Request {
    id: u64,
    to: PeerId,
    sent: Instant,
    tries: u8,
}

impl Asking {
    fn new(now: Instant) -> Self {
        Asking { request: None, refused: BTreeMap::new(), next_round: now, pause: FIRST_PAUSE }
    }

    pub(super) fn next_timeout(&self) -> Instant {
        self.request.as_ref().map_or(self.next_round, |request| request.sent + ANSWER)
    }

    /// Who is asked now, and who did not answer in this round.
    pub(super) fn silent(&self) -> impl Iterator<Item = PeerId> {
        let silent = self.refused.iter().filter(|(_, free)| free.is_none()).map(|(peer, _)| *peer);
        silent.chain(self.request.as_ref().map(|request| request.to))
    }

    /// A refusal of long ago says nothing to a request of now.
    pub(super) fn begin_again(&mut self, now: Instant) {
        self.refused.clear();
        self.next_round = self.next_round.min(now);
    }

    /// The donor is back: it may give what it could not give before.
    pub(super) fn forget_refusal(&mut self, now: Instant, peer: PeerId) {
        self.refused.remove(&peer);
        self.next_round = self.next_round.min(now);
    }

    fn pause(&mut self, now: Instant, urgent: bool) {
        self.next_round = now + self.pause;
        self.pause = if urgent { FIRST_PAUSE } else { (self.pause * 2).min(LONGEST_PAUSE) };
        self.refused.clear();
    }
}

impl Ipam {
    /// Asks for space where it is short.
    pub(super) fn ask_for_space(&mut self, now: Instant) {
        if self.state.cluster.is_none() {
            return;
        }
        let known = self.state.networks.iter().filter(|(_, network)| !network.units.is_empty());
        for network in known.map(|(&id, _)| id).collect::<Vec<_>>() {
            self.ask_in(now, network);
        }
    }

    fn ask_in(&mut self, now: Instant, network: NetworkId) {
        self.drop_dead_claims(network);
        let hungry = self.hungry(network);
        let urgent = hungry.iter().any(|(port, _)| self.foreign_of(network, *port, None).is_none());
        if !urgent && !self.is_low(network) {
            self.asking.remove(&network);
            return;
        }
        let mut asking = self.asking.remove(&network).unwrap_or_else(|| Asking::new(now));
        self.repeat_or_give_up(now, network, &mut asking);
        if asking.request.is_none() && asking.next_round <= now {
            match self.choose_donor(network, &asking) {
                Some(donor) => self.request_space(now, network, donor, &mut asking),
                None if urgent => self.serve_hungry(now, network, &hungry, &mut asking),
                None => asking.pause(now, false),
            }
        }
        self.asking.insert(network, asking);
    }

    /// True when the own units are nearly used up: a quarter is left, or less.
    fn is_low(&mut self, id: NetworkId) -> bool {
        let taken = self.taken.entry(id).or_default();
        let Some(network) = self.state.networks.get(&id) else { return false };
        let view = network.view(self.own, taken);
        let (_, free) = network.local.fill(&view);
        free.saturating_mul(4) <= view.owned()
    }

    fn repeat_or_give_up(&mut self, now: Instant, network: NetworkId, asking: &mut Asking) {
        let Some(request) = asking.request.as_mut() else { return };
        let down = self.is_down(request.to);
        if !down && now < request.sent + ANSWER {
            return;
        }
        if down || request.tries >= TRIES {
            asking.refused.insert(request.to, None);
            asking.request = None;
            return;
        }
        request.tries += 1;
        request.sent = now;
        let (to, id) = (request.to, request.id);
        self.send_request(network, to, id);
    }

    /// An owner at random, likelier the more it owns.
    fn choose_donor(&mut self, id: NetworkId, asking: &Asking) -> Option<PeerId> {
        let network = self.state.networks.get(&id)?;
        let mut owners: BTreeMap<PeerId, u64> = BTreeMap::new();
        for run in network.units.runs() {
            *owners.entry(run.owner).or_default() += u64::from(run.last - run.first) + 1;
        }
        owners.retain(|peer, _| {
            *peer != self.own && !asking.refused.contains_key(peer) && !self.is_down(*peer)
        });
        let total = owners.values().sum::<u64>();
        let mut at = self.rng.next_u64().checked_rem(total)?;
        owners
            .into_iter()
            .find(|(_, weight)| {
                let here = at < *weight;
                at = at.saturating_sub(*weight);
                here
            })
            .map(|(peer, _)| peer)
    }

    fn request_space(&mut self, now: Instant, network: NetworkId, to: PeerId, asking: &mut Asking) {
        let id = self.number();
        asking.request = Some(Request { id, to, sent: now, tries: 1 });
        self.send_request(network, to, id);
    }

    /// Asks for a share that leaves as much for every host that is known, and again as much in reserve.
    fn send_request(&mut self, id: NetworkId, to: PeerId, number: u64) {
        let taken = self.taken.entry(id).or_default();
        let Some(network) = self.state.networks.get(&id) else { return };
        let units = network.pool().units();
        let hosts = u16::try_from(self.nicknames.len().max(2)).unwrap_or(u16::MAX);
        let wanted = (units / hosts / 2).max(1);
        let free = network.local.free_units(&network.view(self.own, taken)).len();
        let free = u16::try_from(free).unwrap_or(u16::MAX);
        self.send(to, Message::SpaceRequest(SpaceRequest { id: number, network: id, wanted, free }));
    }

    /// No donor has units left: single addresses, or the end of the waiting requests.
    fn serve_hungry(
        &mut self,
        now: Instant,
        network: NetworkId,
        hungry: &[(PortId, String)],
        asking: &mut Asking,
    ) {
        for (port, holder) in hungry {
            if self.foreign_of(network, *port, None).is_some() {
                continue;
            }
            let spare = asking.refused.iter_mut().filter_map(|(peer, free)| Some((*peer, free.as_mut()?)));
            if let Some((donor, free)) = spare.filter(|(_, free)| **free > 0).max_by_key(|(_, free)| **free) {
                *free -= 1;
                self.claim(now, donor, network, None, *port, holder);
            } else if self.can_tell_exhaustion(network, asking) {
                let error = self.exhausted(network);
                self.refuse(network, *port, &error);
            }
        }
        self.serve_pending(now);
        if asking.refused.values().all(|free| free.unwrap_or(0) == 0) {
            asking.pause(now, true);
        } else {
            asking.next_round = now + FIRST_PAUSE;
        }
    }

    /// While an owner that is not down keeps silent, or a host that owns nothing reached nobody, requests wait.
    fn can_tell_exhaustion(&self, network: NetworkId, asking: &Asking) -> bool {
        let mut asked = asking.refused.iter().filter(|(peer, _)| !self.is_down(**peer)).peekable();
        let owns = self.state.networks.get(&network).is_some_and(|n| n.units.of(self.own).next().is_some());
        (owns || asked.peek().is_some()) && asked.all(|(_, free)| free.is_some())
    }

    /// A donor that went down before it gave the single address it was asked for.
    fn drop_dead_claims(&mut self, network: NetworkId) {
        let states = std::mem::take(&mut self.states);
        self.release_foreign(|foreign| {
            foreign.network == network
                && foreign.addr.is_none()
                && foreign.stage == Stage::Asked
                && states.get(&foreign.owner) == Some(&crate::mesh::PeerState::Down)
        });
        self.states = states;
    }

    /// A donor that was asked for a single address had none.
    pub(super) fn donor_is_full(&mut self, network: NetworkId, donor: PeerId) {
        if let Some(asking) = self.asking.get_mut(&network) {
            asking.refused.insert(donor, Some(0));
        }
    }

    pub(super) fn handle_space_answer(&mut self, now: Instant, from: PeerId, answer: &SpaceAnswer) {
        self.handle_units(&answer.granted);
        let Some(asking) = self.asking.get_mut(&answer.granted.network) else { return };
        if asking.request.as_ref().is_none_or(|request| (request.id, request.to) != (answer.id, from)) {
            return;
        }
        asking.request = None;
        if answer.granted.runs.is_empty() {
            asking.refused.insert(from, Some(answer.free));
        } else {
            asking.pause = FIRST_PAUSE;
            asking.next_round = now;
        }
    }

    fn exhausted(&self, id: NetworkId) -> AllocError {
        let Some(network) = self.state.networks.get(&id) else {
            return AllocError::UnknownNetwork { network: id };
        };
        let owners = self.owners(id, network);
        let holders = owners.iter().map(|owner| {
            let down = if owner.state == crate::mesh::PeerState::Down { ", down" } else { "" };
            format!("{} ({} of {}{down})", owner.nickname, owner.used, owner.size)
        });
        AllocError::Exhausted {
            network: network.name.clone(),
            range: network.range.to_string(),
            used: owners.iter().map(|owner| owner.used).sum(),
            size: network.pool().size(),
            holders: holders.collect::<Vec<_>>().join(", "),
        }
    }
}
