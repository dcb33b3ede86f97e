//! The peers named by people: retried for ever.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use engine::types::PeerId;

use super::backoff::{ALONE, Backoff, LONGEST, REFUSED};
use super::{SETTLED_AFTER, Topology};
use crate::mesh::{DialId, DialTarget, Target, TargetState, TargetStatus};
use crate::proto::Purpose;

/// What became of a target so far.
#[derive(Debug)]
pub(super) struct Aim {
    backoff: Backoff,
    /// Who answered there last.
    pub(super) peer: Option<PeerId>,
    pub(super) phase: Phase,
    pub(super) reason: Option<String>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Phase {
    /// The shell is at it; `resolved` once it knows an address.
    Dialling { dial: DialId, resolved: bool },
    /// Somebody answered; both sides are still to agree.
    Greeting,
    /// There is a connection to whoever answered.
    Up { since: Instant },
    /// This host itself answered.
    Oneself,
    /// The next attempt is timed.
    Waiting { until: Instant, refused: bool },
}

impl Topology {
    /// Adds targets and tries them at once; with `replace`, forgets those not named.
    pub fn connect(&mut self, now: Instant, targets: Vec<Target>, replace: bool) {
        if replace {
            self.targets.retain(|target, _| targets.contains(target));
        }
        for target in targets {
            let aim = self.targets.entry(target).or_insert_with(|| Aim::new(now));
            if let Phase::Waiting { .. } = aim.phase {
                *aim = Aim { peer: aim.peer, ..Aim::new(now) };
            }
        }
        self.handle_timeout(now);
    }

    /// Ends the attempts at these targets; a connection that stands is not closed.
    pub fn forget(&mut self, targets: &[Target]) {
        self.targets.retain(|target, _| !targets.contains(target));
    }

    /// The shell found the addresses of the target of this attempt.
    pub fn handle_resolved(&mut self, dial: DialId) {
        let aims = self.targets.values_mut();
        for aim in aims {
            if let Phase::Dialling { dial: own, resolved } = &mut aim.phase
                && *own == dial
            {
                *resolved = true;
            }
        }
    }

    /// The targets nobody has answered for yet, and those who did, but for this host itself.
    pub fn targets(&self) -> impl Iterator<Item = (&Target, Option<PeerId>)> {
        let others = self.targets.iter().filter(|(_, aim)| aim.peer != Some(self.me));
        others.map(|(target, aim)| (target, aim.peer))
    }

    /// For `status`.
    pub fn target_status(&self, now: Instant) -> Vec<TargetStatus> {
        self.targets.iter().map(|(target, aim)| aim.status(target, now)).collect()
    }

    pub(super) fn answered(&mut self, now: Instant, target: &Target, peer: PeerId) {
        let Some(aim) = self.targets.get_mut(target) else { return };
        (aim.peer, aim.phase) = (Some(peer), Phase::Greeting);
        self.follow_targets(now);
    }

    pub(super) fn target_failed(&mut self, now: Instant, target: &Target, reason: &str) {
        let alone = self.conns.values().all(|conn| conn.nonce.is_none());
        self.wait_for_target(now, target, reason, if alone { ALONE } else { LONGEST });
    }

    /// Whoever answered there did not let this host in, or was not let in.
    pub(super) fn target_refused(&mut self, now: Instant, target: &Target, peer: PeerId, reason: &str) {
        self.wait_for_target(now, target, reason, LONGEST);
        let Some(aim) = self.targets.get_mut(target) else { return };
        aim.peer = Some(peer);
        if let Phase::Waiting { refused, .. } = &mut aim.phase {
            *refused = true;
        }
    }

    fn wait_for_target(&mut self, now: Instant, target: &Target, reason: &str, longest: Duration) {
        let Some(aim) = self.targets.get_mut(target) else { return };
        let until = now + aim.backoff.next_within(longest, &mut self.rng);
        aim.phase = Phase::Waiting { until, refused: false };
        aim.reason = Some(reason.to_owned());
    }

    /// Every target at which `peer` answered waits long.
    pub(super) fn targets_refused(&mut self, now: Instant, peer: PeerId, reason: &str) {
        for aim in self.targets.values_mut().filter(|aim| aim.peer == Some(peer)) {
            aim.phase = Phase::Waiting { until: now + REFUSED, refused: true };
            aim.reason = Some(reason.to_owned());
        }
    }

    /// A connection to `peer` ended, for the reason that targets show.
    pub(super) fn targets_lost(&mut self, now: Instant, peer: PeerId, reason: &str) {
        for aim in self.targets.values_mut().filter(|aim| aim.peer == Some(peer)) {
            let lasted = match aim.phase {
                Phase::Up { since } => now.saturating_duration_since(since) >= SETTLED_AFTER,
                Phase::Greeting => false,
                Phase::Dialling { .. } | Phase::Oneself | Phase::Waiting { .. } => continue,
            };
            if lasted {
                aim.backoff.reset();
            }
            aim.phase = Phase::Waiting { until: now + aim.backoff.next(&mut self.rng), refused: false };
            aim.reason = Some(reason.to_owned());
        }
    }

    /// Targets follow the connections: up while there is one to the peer that answered.
    pub(super) fn follow_targets(&mut self, now: Instant) {
        for aim in self.targets.values_mut() {
            let up = aim.peer.is_some_and(|peer| self.conns.values().any(|conn| conn.is_ready_to(peer)));
            if up && matches!(aim.phase, Phase::Greeting | Phase::Waiting { .. }) {
                aim.phase = Phase::Up { since: now };
                aim.reason = None;
            }
        }
    }

    pub(super) fn dial_targets(&mut self, now: Instant) {
        let due: Vec<Target> =
            self.targets.iter().filter(|(_, aim)| aim.is_due(now)).map(|(t, _)| t.clone()).collect();
        for target in due {
            let dial = self.dial(DialTarget::Named(target.clone()), Purpose::Target);
            let resolved = target.host.parse::<std::net::IpAddr>().is_ok();
            if let Some(aim) = self.targets.get_mut(&target) {
                aim.phase = Phase::Dialling { dial, resolved };
            }
        }
    }

    pub(super) fn next_target_try(&self) -> Option<Instant> {
        next_try(&self.targets)
    }
}

fn next_try(targets: &BTreeMap<Target, Aim>) -> Option<Instant> {
    let waits = targets.values().filter_map(|aim| match aim.phase {
        Phase::Waiting { until, .. } => Some(until),
        Phase::Dialling { .. } | Phase::Greeting | Phase::Up { .. } | Phase::Oneself => None,
    });
    waits.min()
}

impl Aim {
    pub(super) fn new(now: Instant) -> Self {
        let phase = Phase::Waiting { until: now, refused: false };
        Aim { backoff: Backoff::default(), peer: None, phase, reason: None }
    }

    fn is_due(&self, now: Instant) -> bool {
        matches!(self.phase, Phase::Waiting { until, .. } if until <= now)
    }

    fn status(&self, target: &Target, now: Instant) -> TargetStatus {
        let (state, next_try) = match self.phase {
            Phase::Dialling { resolved: false, .. } => (TargetState::Resolving, None),
            Phase::Dialling { .. } | Phase::Greeting => (TargetState::Connecting, None),
            Phase::Up { .. } | Phase::Oneself => (TargetState::Established, None),
            Phase::Waiting { until, refused: false } => (TargetState::Waiting, Some(until)),
            Phase::Waiting { until, refused: true } => (TargetState::Refused, Some(until)),
        };
        TargetStatus {
            target: target.to_string(),
            peer_id: self.peer.map(|peer| peer.to_string()),
            state,
            reason: self.reason.clone(),
            next_try_s: next_try.map(|at| at.saturating_duration_since(now).as_secs_f64()),
        }
    }
}
