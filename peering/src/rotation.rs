//! How a cluster goes over from one secret to another without a pause: what each host is to do next.
//!
//! One shared record says from which secret to which, for which hosts, and how far ([`Phase`]); each host says in its own
//! record which secrets it takes and has on disk. From these two every host sees the same, so that nobody leads: whoever lacks
//! the new secret asks somebody who has it; the host that wrote the record last moves the phase on, and when it is gone
//! another one does. At every step any two hosts of the list have a secret in common, whatever the other has seen so far:
//!
//! ```text
//! old      ──Spread──>  old, new  ──Prefer──>  new, old  ──Done──>  new
//! ```
//!
//! The list is who belonged to the cluster when people said so. Who comes later proved a secret that others may know by then:
//! it is given nothing, and not waited for.
//!
//! Nothing here is said twice or in an order: what is lost is done again by the next look.

use std::time::{Duration, Instant};

use engine::types::PeerId;

use crate::keyring::Keyring;
use crate::records::{Phase, RotationRecord};
use crate::secret::SecretName;

/// So long hosts that are down are waited for, if all others have the new secret; then they are left behind, unless they might
/// be the larger part of the cluster, cut off from this one.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// A host of the cluster, this one included, as others see it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holder {
    /// The host.
    pub peer: PeerId,
    /// It is alive, or may be.
    pub up: bool,
    /// It belonged to the cluster when the rotation began.
    pub member: bool,
    /// The secrets that it said it takes, the preferred one first.
    pub takes: Vec<SecretName>,
}

impl Holder {
    fn has(&self, secret: SecretName) -> bool {
        self.takes.contains(&secret)
    }

    fn prefers(&self, secret: SecretName) -> bool {
        self.takes.first() == Some(&secret)
    }
}

/// What a host is to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Ask one of these hosts for the new secret.
    Ask(Vec<PeerId>),
    /// Prefer it.
    Prefer,
    /// Take no other any more.
    Retire,
    /// Tell everybody that the rotation is so far.
    Tell(RotationRecord),
}

/// The way of a cluster from one secret to another, seen by one host.
#[derive(Debug, Default)]
pub struct Rotation {
    /// Since when only hosts that are down are missing.
    alone_since: Option<Instant>,
}

impl Rotation {
    /// What is to be done now by the host `me`, which has `keyring`. `record` is the newest, with its writer; `holders` are all
    /// hosts of the cluster and all that the record names, removed and revoked ones left out.
    pub fn next(
        &mut self,
        now: Instant,
        me: PeerId,
        (record, writer): (&RotationRecord, PeerId),
        keyring: &Keyring,
        holders: &[Holder],
    ) -> Option<Step> {
        let to = record.to;
        if !keyring.holds(to) {
            if !record.is_for(me) {
                return None;
            }
            let whom: Vec<PeerId> =
                holders.iter().filter(|it| it.peer != me && it.up && it.has(to)).map(|it| it.peer).collect();
            return Some(Step::Ask(whom)).filter(|step| *step != Step::Ask(Vec::new()));
        }
        match record.phase {
            Phase::Done if keyring.names() != [to] => return Some(Step::Retire),
            Phase::Prefer if keyring.preferred() != Some(to) => return Some(Step::Prefer),
            _ => {}
        }
        let phase = self.advance(now, record, holders).filter(|_| moves(me, writer, to, holders))?;
        Some(Step::Tell(RotationRecord { phase, ..record.clone() }))
    }

    /// The phase that is reached, if it is another one.
    fn advance(&mut self, now: Instant, record: &RotationRecord, holders: &[Holder]) -> Option<Phase> {
        let members = || holders.iter().filter(|it| it.member);
        let up = || members().filter(|it| it.up);
        match record.phase {
            Phase::Spread => up().all(|it| it.has(record.to)).then_some(Phase::Prefer),
            Phase::Prefer if up().all(|it| it.prefers(record.to)) => {
                let since = *self.alone_since.get_or_insert(now);
                let late = now.saturating_duration_since(since) >= PATIENCE;
                let gone_over = members().filter(|it| it.has(record.to)).count();
                let many = 2 * gone_over > members().count();
                let all = gone_over == members().count();
                (all || record.leave_behind || (late && many)).then_some(Phase::Done)
            }
            Phase::Prefer | Phase::Done => {
                self.alone_since = None;
                None
            }
        }
    }
}

/// True for the host that moves the rotation on: its last writer, or without that one the lowest that has the secret.
fn moves(me: PeerId, writer: PeerId, to: SecretName, holders: &[Holder]) -> bool {
    let able = || holders.iter().filter(|it| it.member && it.up && it.has(to)).map(|it| it.peer);
    let mover = able().find(|peer| *peer == writer).or_else(|| able().min());
    mover == Some(me)
}

/// True when this one leads nowhere any more: nobody who is alive has its secret, and nobody relies on it. Once it was used
/// also hosts that are down rely on it.
pub fn is_lost(record: &RotationRecord, holders: &[Holder]) -> bool {
    let counts = |it: &&Holder| it.up || record.phase != Phase::Spread;
    !holders.iter().filter(counts).any(|it| it.has(record.to))
}

#[cfg(test)]
mod tests;
