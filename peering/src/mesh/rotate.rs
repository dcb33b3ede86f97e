//! The part of this host in the way of the cluster from one secret to another ([`crate::rotation`]).

use std::sync::Arc;
use std::time::Instant;

use engine::types::PeerId;

use super::hosts::STRANGER;
use super::{Mesh, PeerState};
use crate::gossip::{Record, kind};
use crate::records::{MAX_ROTATING, Phase, RotationRecord};
use crate::rotation::{Holder, Step, is_lost};
use crate::secret::{Secret, SecretName};

/// More steps than a host takes at once: what is left is done by the next look.
const STEPS: usize = 8;

/// Why the cluster does not go over to another secret.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RotateError {
    /// Hosts without a secret cannot give each other one: anybody might get it.
    #[error("the cluster is open: there is no secret to go over from")]
    Open,
    /// It goes over to another one already.
    #[error("the cluster is going over to another secret already, {to}, since {by} said so")]
    UnderWay {
        /// The name of that one.
        to: SecretName,
        /// The host on which people said so, or the one that went on with it.
        by: String,
    },
    /// The secret is the one that is in use.
    #[error(
        "{0} is the secret that the cluster has already: nothing was changed, and whoever knows it may still join"
    )]
    InUse(SecretName),
    /// The secret was in use before.
    #[error("the cluster had that secret before, and does not take it any more")]
    Retired,
    /// No secret was given, and there is nothing to go on with.
    #[error("no rotation is under way")]
    None,
    /// Who belongs to the cluster is not known here yet.
    #[error("this host was started just now, and does not know yet which hosts there are")]
    TooEarly,
    /// There are more hosts than can be named in one record.
    #[error("the cluster has {0} hosts; at most {MAX_ROTATING} can go over together")]
    TooMany(usize),
    /// This host cannot keep the new secret.
    #[error("the new secret cannot be written to the disk of this host; the rotation goes on once it can")]
    StoreFailed,
    /// This host is a clone of another one.
    #[error("this host is a clone: {0}")]
    Clone(String),
    /// The daemon is stopping.
    #[error("the daemon is stopping")]
    Stopping,
}

impl RotateError {
    /// One word for programs, listed in `docs/cli.md`.
    pub fn code(&self) -> &'static str {
        match self {
            RotateError::Open => "cluster_open",
            RotateError::UnderWay { .. } => "rotation_under_way",
            RotateError::InUse(_) => "secret_in_use",
            RotateError::Retired => "secret_retired",
            RotateError::None => "no_rotation",
            RotateError::TooEarly => "too_early",
            RotateError::TooMany(_) => "too_many_hosts",
            RotateError::StoreFailed => "store_failed",
            RotateError::Clone(_) => "clone",
            RotateError::Stopping => "stopping",
        }
    }
}

impl Mesh {
    /// Has the cluster go over to `secret`, or goes on with what is under way. With `leave_behind` hosts that are down are not
    /// waited for. Asked for again, here or elsewhere, it goes on where it is. The secret is given to the hosts that belong to
    /// the cluster now, as this host knows them.
    ///
    /// # Errors
    /// See [`RotateError`].
    pub fn rotate(
        &mut self,
        now: Instant,
        secret: Option<Secret>,
        leave_behind: bool,
    ) -> Result<(), RotateError> {
        if !self.begin(now) {
            return Err(RotateError::Stopping);
        }
        if let Some(other) = self.clones.oneself() {
            return Err(RotateError::Clone(other.to_owned()));
        }
        let from = self.keyring().preferred().ok_or(RotateError::Open)?;
        if !self.knows_the_hosts() {
            return Err(RotateError::TooEarly);
        }
        let known = self.store.rotation().map(|(record, by)| (record.clone(), by));
        let under_way = known.filter(|(record, _)| record.phase != Phase::Done);
        match (under_way, secret) {
            (Some((record, by)), Some(secret)) if secret.name() != record.to => {
                if !is_lost(&record, &self.holders(&record)) {
                    return Err(RotateError::UnderWay { to: record.to, by: self.nickname(by) });
                }
                self.begin_rotation(from, secret, leave_behind)?;
            }
            (Some((record, _)), secret) => self.go_on(record, secret, leave_behind),
            (None, None) => return Err(RotateError::None),
            (None, Some(secret)) => self.begin_rotation(from, secret, leave_behind)?,
        }
        self.secrets.insisted = true;
        self.look_at_rotation();
        self.settle();
        Ok(())
    }

    fn begin_rotation(
        &mut self,
        from: SecretName,
        secret: Secret,
        leave_behind: bool,
    ) -> Result<(), RotateError> {
        let to = secret.name();
        if self.keyring().holds(to) {
            return Err(RotateError::InUse(to));
        }
        if self.keyring().has_retired(to) {
            return Err(RotateError::Retired);
        }
        let mut members: Vec<PeerId> =
            self.store.members().filter(|peer| self.barred(*peer).is_none()).collect();
        members.sort_unstable();
        if members.len() > MAX_ROTATING {
            return Err(RotateError::TooMany(members.len()));
        }
        self.take_secret(secret, from);
        self.write_rotation(&RotationRecord { from, to, phase: Phase::Spread, leave_behind, members });
        Ok(())
    }

    /// Whoever has the secret in a file may bring it back to a cluster that lost it.
    fn go_on(&mut self, record: RotationRecord, secret: Option<Secret>, leave_behind: bool) {
        if let Some(secret) = secret.filter(|_| !self.keyring().holds(record.to)) {
            self.take_secret(secret, record.from);
        }
        if leave_behind && !record.leave_behind {
            self.write_rotation(&RotationRecord { leave_behind, ..record });
        }
    }

    fn write_rotation(&mut self, rotation: &RotationRecord) {
        let record = self.store.put_rotation(&self.config.identity, rotation);
        self.wrote(record.as_slice());
    }

    /// The record of the rotation is a newer one.
    pub(super) fn apply_rotation(&mut self, rotation: &RotationRecord, by: PeerId) {
        let news = (rotation.to, rotation.phase);
        if self.secrets.known.is_none_or(|(to, _)| to != rotation.to) {
            self.secrets.known = Some((rotation.to, self.now));
        }
        // After a start the past is no news.
        let past = self.secrets.told.is_none() && rotation.phase == Phase::Done;
        if self.secrets.told.replace(news) == Some(news) || past {
            return;
        }
        let to = rotation.to;
        let text = match rotation.phase {
            Phase::Spread => {
                format!(
                    "the cluster goes over to the secret {to}, as {} says: every host gets it",
                    self.nickname(by)
                )
            }
            Phase::Prefer => format!("every live host has the secret {to}: it is used from now on"),
            Phase::Done => {
                format!("the cluster has gone over to the secret {to}: no other is taken any more")
            }
        };
        self.note("secret_rotation", text);
    }

    /// Looks at once when the rotation moved on, or when somebody may have the secret that this host lacks.
    pub(super) fn heed_rotation(&mut self, news: &[Arc<Record>]) {
        let to = self.store.rotation().map(|(record, _)| record.to);
        let lacks = to.is_some_and(|to| !self.keyring().holds(to));
        let heeds =
            |record: &Arc<Record>| record.kind() == kind::ROTATION || (lacks && record.kind() == kind::HOST);
        if news.iter().any(heeds) {
            self.look_at_rotation();
        }
    }

    /// Does what this host is to do for the rotation, if there is one.
    pub(super) fn look_at_rotation(&mut self) {
        if self.keyring().is_empty() || self.clones.oneself().is_some() {
            return;
        }
        for _ in 0..STEPS {
            let Some((record, writer)) = self.store.rotation().map(|(record, by)| (record.clone(), by))
            else {
                return;
            };
            let settled = record.phase == Phase::Done && self.keyring().names() == [record.to];
            if settled {
                return;
            }
            let holders = self.holders(&record);
            let keyring = &self.secrets.kept.keyring;
            let step = self.secrets.rotation.next(self.now, self.me, (&record, writer), keyring, &holders);
            match step {
                None => return,
                Some(Step::Ask(whom)) => return self.ask_for_secret(record.to, &whom),
                Some(Step::Prefer) => {
                    self.secrets.kept.keyring.prefer(record.to);
                    self.secrets_changed();
                }
                Some(Step::Retire) => {
                    self.secrets.kept.keyring.keep_only(record.to);
                    self.secrets.retired = Some(self.now);
                    self.secrets_changed();
                }
                Some(Step::Tell(record)) if self.may_move_on(&holders) => self.write_rotation(&record),
                Some(Step::Tell(_)) => return,
            }
        }
    }

    /// True once this host has met every other one that it knows, or membership has found it to be down, and has held the
    /// same records as another host at some time since its start, unless there is none. Before that it cannot tell who is
    /// down from who was not met yet, nor whether it knows all there is to know.
    fn knows_the_hosts(&self) -> bool {
        let met = |peer: PeerId| peer == self.me || self.states.contains_key(&peer);
        let all_met = self.store.members().all(|peer| met(peer) || self.barred(peer).is_some());
        let late = self.now.saturating_duration_since(self.secrets.started) >= STRANGER;
        let alone = late && self.topology.connected().is_empty();
        all_met && (self.rest.has_compared() || alone)
    }

    /// As for [`Self::knows_the_hosts`]. A host that has compared nothing because it reaches nobody may be the one that is cut
    /// off: it goes on alone if it is the only one left, or if its people say so.
    fn may_move_on(&self, holders: &[Holder]) -> bool {
        let mut others = holders.iter().filter(|it| it.member && it.peer != self.me);
        let all_met = others.clone().all(|it| self.states.contains_key(&it.peer));
        all_met && (self.rest.has_compared() || self.secrets.insisted || others.next().is_none())
    }

    /// Every host that belongs to the cluster, or did when the rotation began.
    pub(super) fn holders(&self, record: &RotationRecord) -> Vec<Holder> {
        let states = self.membership.states();
        let is_up = |peer: &PeerId| states.get(peer).is_some_and(|state| *state != PeerState::Down);
        let unknown = |peer: &PeerId| self.store.host(*peer).is_none() && !self.store.removed(*peer);
        let unknown = record.members.iter().copied().filter(unknown);
        let all = self.store.members().chain(unknown).filter(|peer| self.barred(*peer).is_none());
        let holder = |peer: PeerId| Holder {
            peer,
            up: peer == self.me || is_up(&peer),
            member: record.is_for(peer),
            takes: self.store.host(peer).map(|host| host.secrets.clone()).unwrap_or_default(),
        };
        all.map(holder).collect()
    }
}
