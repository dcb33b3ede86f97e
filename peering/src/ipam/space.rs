//! Asking other hosts for units: on joining, below the low-water mark, and when a request finds nothing.
//!
//! One donor is asked at a time, drawn at random by how much it owns. Donors that refuse are left out until
//! the round ends; then, if a request waits, donors that still have single addresses are asked for one, and
//! if none has, the request is refused. Without a request the next round waits ever longer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use engine::types::{NetworkId, PeerId, PortId};
use ipnet::IpNet;
use rand::Rng;

use super::Ipam;
use super::state::{Network, Stage, State};
use super::taken::Taken;
use crate::mesh::{AllocError, MESH_NETWORK, PeerState};
use crate::proto::{Message, SpaceAnswer, SpaceRequest};

/// How long an answer is awaited before the request is sent again.
const ANSWER: Duration = Duration::from_secs(1);
/// How often a donor that does not answer is asked.
const TRIES: u8 = 3;
/// Between two rounds in which nobody gave anything.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A subnet of a network.
pub(super) type PoolId = (NetworkId, IpNet);

/// The search for space in one subnet.
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
    /// Asks for space where it is short: looks where something changed, where somebody waits, and where it is time.
    pub(super) fn ask_for_space(&mut self, now: Instant) {
        if self.state.cluster.is_none() {
            return;
        }
        let mut look = std::mem::take(&mut self.stirred);
        look.extend(self.pending.iter().map(|pending| pending.what.network));
        let due = self.asking.iter().filter(|(_, asking)| asking.next_timeout() <= now);
        look.extend(due.map(|((network, _), _)| *network));
        for network in look.into_iter().filter(|network| self.is_open(*network)).collect::<BTreeSet<_>>() {
            let Some(known) = self.state.networks.get(&network) else { continue };
            let founded = known.spaces.iter().filter(|space| !space.units.is_empty());
            for subnet in founded.map(|space| space.pool.subnet()).collect::<Vec<_>>() {
                self.ask_in(now, (network, subnet));
            }
        }
    }

    fn ask_in(&mut self, now: Instant, pool: PoolId) {
        self.drop_dead_claims(pool);
        let hungry = self.hungry(pool);
        let urgent = hungry.iter().any(|(port, _)| self.foreign_of(pool.0, *port, None).is_none());
        let short = urgent || (self.is_used(pool.0) && self.is_low(pool));
        if !short {
            self.asking.remove(&pool);
            return;
        }
        let mut asking = self.asking.remove(&pool).unwrap_or_else(|| Asking::new(now));
        self.repeat_or_give_up(now, pool, &mut asking);
        if asking.request.is_none() && asking.next_round <= now {
            match self.choose_donor(pool, &asking) {
                Some(donor) => self.request_space(now, pool, donor, &mut asking),
                None if urgent => self.serve_hungry(now, pool, &hungry, &mut asking),
                None => asking.pause(now, false),
            }
        }
        self.asking.insert(pool, asking);
    }

    /// True for a network in which somebody here has or wants an address; every host has some space of `mesh`.
    pub(super) fn is_used(&self, network: NetworkId) -> bool {
        let shows = |taken: &Taken| taken.of_peer(self.own).next().is_some();
        network == MESH_NETWORK
            || self.wanted.contains_key(&network)
            || self.pending.iter().any(|pending| pending.what.network == network)
            || self.taken.get(&network).is_some_and(shows)
    }

    /// True when the own units are nearly used up: a quarter is left, or less.
    fn is_low(&mut self, pool: PoolId) -> bool {
        let taken = self.taken.entry(pool.0).or_default();
        let Some((network, at)) = known(&self.state, pool) else { return false };
        let Some(view) = network.view(at, self.own, taken) else { return false };
        let (_, free) = network.local.fill(&view);
        free.saturating_mul(4) <= view.owned()
    }

    fn repeat_or_give_up(&mut self, now: Instant, pool: PoolId, asking: &mut Asking) {
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
        self.send_request(pool, to, id);
    }

    /// An owner at random, likelier the more it owns.
    fn choose_donor(&mut self, pool: PoolId, asking: &Asking) -> Option<PeerId> {
        let (network, at) = known(&self.state, pool)?;
        let mut owners: BTreeMap<PeerId, u64> = BTreeMap::new();
        for run in network.spaces.get(at)?.units.runs() {
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

    fn request_space(&mut self, now: Instant, pool: PoolId, to: PeerId, asking: &mut Asking) {
        let id = self.number();
        asking.request = Some(Request { id, to, sent: now, tries: 1 });
        self.send_request(pool, to, id);
    }

    /// Asks for a share that leaves as much for every host that is known, and again as much in reserve.
    fn send_request(&mut self, pool: PoolId, to: PeerId, number: u64) {
        let taken = self.taken.entry(pool.0).or_default();
        let Some((network, at)) = known(&self.state, pool) else { return };
        let Some(view) = network.view(at, self.own, taken) else { return };
        let hosts = u16::try_from(self.nicknames.len().max(2)).unwrap_or(u16::MAX);
        let wanted = (view.pool.units() / hosts / 2).max(1);
        let free = u16::try_from(network.local.free_units(&view).len()).unwrap_or(u16::MAX);
        let (network, subnet) = pool;
        self.send(to, Message::SpaceRequest(SpaceRequest { id: number, network, subnet, wanted, free }));
    }

    /// No donor has units left: single addresses, or the end of the waiting requests.
    fn serve_hungry(&mut self, now: Instant, pool: PoolId, hungry: &[(PortId, String)], asking: &mut Asking) {
        for (port, holder) in hungry {
            if self.foreign_of(pool.0, *port, None).is_some() {
                continue;
            }
            let spare = asking.refused.iter_mut().filter_map(|(peer, free)| Some((*peer, free.as_mut()?)));
            if let Some((donor, free)) = spare.filter(|(_, free)| **free > 0).max_by_key(|(_, free)| **free) {
                *free -= 1;
                self.claim(now, donor, pool, None, *port, holder);
            } else if self.can_tell_exhaustion(pool, asking) {
                let error = self.exhausted(pool);
                self.pass_on(pool, *port, &error);
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
    fn can_tell_exhaustion(&self, pool: PoolId, asking: &Asking) -> bool {
        let mut asked = asking.refused.iter().filter(|(peer, _)| !self.is_down(**peer)).peekable();
        let space = known(&self.state, pool).and_then(|(network, at)| network.spaces.get(at));
        let owns = space.is_some_and(|space| space.units.of(self.own).next().is_some());
        (owns || asked.peek().is_some()) && asked.all(|(_, free)| free.is_some())
    }

    /// A donor that went down before it gave the single address it was asked for.
    fn drop_dead_claims(&mut self, (network, subnet): PoolId) {
        let states = std::mem::take(&mut self.states);
        self.release_foreign(|foreign| {
            (foreign.network, foreign.subnet) == (network, subnet)
                && foreign.addr.is_none()
                && foreign.stage == Stage::Asked
                && states.get(&foreign.owner) == Some(&PeerState::Down)
        });
        self.states = states;
    }

    /// A donor that was asked for a single address had none.
    pub(super) fn donor_is_full(&mut self, pool: PoolId, donor: PeerId) {
        if let Some(asking) = self.asking.get_mut(&pool) {
            asking.refused.insert(donor, Some(0));
        }
    }

    /// Hosts came or went: what was asked of them is looked at again.
    pub(super) fn look_at_donors(&mut self) {
        self.stirred.extend(self.asking.keys().map(|(network, _)| *network));
        let asked = self.state.foreign.values().filter(|foreign| foreign.stage == Stage::Asked);
        self.stirred.extend(asked.map(|foreign| foreign.network));
    }

    pub(super) fn handle_space_answer(&mut self, now: Instant, from: PeerId, answer: &SpaceAnswer) {
        self.handle_units(&answer.granted);
        let pool = (answer.granted.network, answer.granted.range);
        let Some(asking) = self.asking.get_mut(&pool) else { return };
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
        self.stirred.insert(pool.0);
    }

    fn exhausted(&self, pool: PoolId) -> AllocError {
        let space =
            known(&self.state, pool).and_then(|(network, at)| Some((network, network.spaces.get(at)?)));
        let Some((network, space)) = space else {
            return AllocError::UnknownNetwork { network: pool.0 };
        };
        let owners = self.owners(pool.0, network, space);
        let holders = owners.iter().map(|owner| {
            let down = if owner.state == PeerState::Down { ", down" } else { "" };
            format!("{} ({} of {}{down})", owner.nickname, owner.used, owner.size)
        });
        AllocError::Exhausted {
            network: network.name.clone(),
            range: space.pool.range().to_string(),
            used: owners.iter().map(|owner| owner.used).sum(),
            size: space.pool.size(),
            holders: holders.collect::<Vec<_>>().join(", "),
        }
    }
}

/// The network of a subnet, and its place there.
fn known(state: &State, (network, subnet): PoolId) -> Option<(&Network, usize)> {
    let network = state.networks.get(&network)?;
    Some((network, network.place(subnet)?))
}
