//! The secrets of this host, and its part in the way of the cluster from one to another ([`crate::rotation`]).

use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::types::PeerId;
use rand::seq::IteratorRandom;

use super::{ConnId, Mesh, MeshEvent, Output, PeerState};
use crate::gossip::{Record, kind};
use crate::keyring::Keyring;
use crate::proto::Message;
use crate::records::{Phase, RotationRecord};
use crate::rotation::{Holder, Rotation, Step, is_lost};
use crate::secret::{Secret, SecretName};

/// The new secret is given to nobody before the rotation is known here for so long: a revocation that was said before it, on
/// whatever host, is known by then.
const HOLD_BACK: Duration = Duration::from_secs(1);
/// A host that lacks the new secret asks for it so often.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// So long after the former secret is not taken any more a connection with a host that has no other ends. Sessions of the data
/// plane end as soon.
const LEFT_AFTER: Duration = Duration::from_secs(10);
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
    /// The secret was in use before.
    #[error("the cluster had that secret before, and does not take it any more")]
    Retired,
    /// No secret was given, and there is nothing to go on with.
    #[error("no rotation is under way")]
    None,
    /// This host is a clone of another one.
    #[error("this host has the key of another one, at {0}")]
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
            RotateError::Retired => "secret_retired",
            RotateError::None => "no_rotation",
            RotateError::Clone(_) => "clone",
            RotateError::Stopping => "stopping",
        }
    }
}

/// The secrets of this host.
#[derive(Debug)]
pub(super) struct Secrets {
    keyring: Keyring,
    /// It changed since it was handed out to be written.
    dirty: bool,
    writing: Option<Vec<SecretName>>,
    /// What a start from the disk would take: others are told of nothing else.
    durable: Vec<SecretName>,
    rotation: Rotation,
    asked: Option<Instant>,
    /// To which secret the cluster goes over, and since when this host knows.
    known: Option<(SecretName, Instant)>,
    retired: Option<Instant>,
    /// The last that was told of the record, and whether people were told that this host was left behind.
    told: Option<(SecretName, Phase)>,
    told_left: bool,
}

impl Secrets {
    /// With what the disk, or the people who launched this host, had.
    pub(super) fn new(keyring: Keyring) -> Self {
        Secrets {
            durable: keyring.names(),
            keyring,
            dirty: false,
            writing: None,
            rotation: Rotation::default(),
            asked: None,
            known: None,
            retired: None,
            told: None,
            told_left: false,
        }
    }

    /// For the record of this host.
    pub(super) fn durable(&self) -> Vec<SecretName> {
        self.durable.clone()
    }

    fn written(&mut self, well: bool) -> bool {
        match self.writing.take() {
            Some(names) if well => self.durable = names,
            Some(_) => self.dirty = true,
            None => return false,
        }
        well
    }
}

impl Mesh {
    /// The secrets that this host takes.
    pub fn keyring(&self) -> &Keyring {
        &self.secrets.keyring
    }

    /// The secrets, if they changed: to be written before the state that [`Self::poll_persist`] has just given, whose
    /// [`Self::handle_persisted`] says what became of both.
    pub fn poll_keyring(&mut self) -> Option<Keyring> {
        if !std::mem::take(&mut self.secrets.dirty) {
            return None;
        }
        self.secrets.writing = Some(self.secrets.keyring.names());
        Some(self.secrets.keyring.clone())
    }

    /// Has the cluster go over to `secret`, or goes on with what is under way. With `leave_behind` hosts that are down are not
    /// waited for. Asked for again, here or elsewhere, it goes on where it is.
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
        let from = self.secrets.keyring.preferred().ok_or(RotateError::Open)?;
        let known = self.store.rotation().map(|(record, by)| (*record, by));
        let under_way = known.filter(|(record, _)| record.phase != Phase::Done);
        let wanted = secret.as_ref().map(Secret::name);
        match (under_way, secret) {
            (Some((record, by)), secret) => {
                let holders = self.holders();
                match secret {
                    Some(secret) if wanted != Some(record.to) => {
                        if !is_lost(&record, &holders) {
                            return Err(RotateError::UnderWay { to: record.to, by: self.nickname(by) });
                        }
                        self.begin_rotation(from, secret, leave_behind)?;
                    }
                    secret => self.go_on(record, secret, leave_behind),
                }
            }
            (None, None) => return Err(RotateError::None),
            (None, Some(_)) if wanted == Some(from) => {}
            (None, Some(secret)) => self.begin_rotation(from, secret, leave_behind)?,
        }
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
        if self.secrets.keyring.has_retired(to) {
            return Err(RotateError::Retired);
        }
        self.take_secret(secret, from);
        self.write_rotation(&RotationRecord { from, to, phase: Phase::Spread, leave_behind });
        Ok(())
    }

    /// Whoever has the secret in a file may bring it back to a cluster that lost it.
    fn go_on(&mut self, record: RotationRecord, secret: Option<Secret>, leave_behind: bool) {
        if let Some(secret) = secret.filter(|_| !self.secrets.keyring.holds(record.to)) {
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

    fn take_secret(&mut self, secret: Secret, beside: SecretName) {
        self.secrets.keyring.take(secret, beside);
        self.secrets_changed();
    }

    /// Used at once, and told of once it is on disk.
    fn secrets_changed(&mut self) {
        self.secrets.dirty = true;
        self.outbox.guard();
        self.view.tell(MeshEvent::SecretsChanged);
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

    /// The disk has, or has not, what was handed out.
    pub(super) fn secrets_written(&mut self, well: bool) {
        if self.secrets.written(well) {
            self.refresh_own_host();
            self.look_at_rotation();
        }
    }

    /// Looks at once when the rotation moved on, or when somebody may have the secret that this host lacks.
    pub(super) fn heed_rotation(&mut self, news: &[Arc<Record>]) {
        let to = self.store.rotation().map(|(record, _)| record.to);
        let lacks = to.is_some_and(|to| !self.secrets.keyring.holds(to));
        let heeds =
            |record: &Arc<Record>| record.kind() == kind::ROTATION || (lacks && record.kind() == kind::HOST);
        if news.iter().any(heeds) {
            self.look_at_rotation();
        }
    }

    /// Does what this host is to do for the rotation, if there is one.
    pub(super) fn look_at_rotation(&mut self) {
        if self.secrets.keyring.is_empty() || self.clones.oneself().is_some() {
            return;
        }
        for _ in 0..STEPS {
            let Some((record, writer)) = self.store.rotation().map(|(record, by)| (*record, by)) else {
                return;
            };
            let settled = record.phase == Phase::Done && self.secrets.keyring.names() == [record.to];
            if settled {
                return;
            }
            let holders = self.holders();
            let Secrets { rotation, keyring, .. } = &mut self.secrets;
            let step = rotation.next(self.now, self.me, (&record, writer), keyring, &holders);
            match step {
                None => return,
                Some(Step::Ask(whom)) => return self.ask_for_secret(record.to, &whom),
                Some(Step::Prefer) => {
                    self.secrets.keyring.prefer(record.to);
                    self.secrets_changed();
                }
                Some(Step::Retire) => {
                    self.secrets.keyring.keep_only(record.to);
                    self.secrets.retired = Some(self.now);
                    self.secrets_changed();
                }
                Some(Step::Tell(record)) => self.write_rotation(&record),
            }
        }
    }

    fn ask_for_secret(&mut self, to: SecretName, whom: &[PeerId]) {
        if self.secrets.asked.is_some_and(|at| self.now.saturating_duration_since(at) < ASK_EVERY) {
            return;
        }
        let connected = whom.iter().copied().filter(|peer| self.topology.best(*peer).is_some());
        let chosen = connected.choose(&mut self.rng);
        if let Some(peer) = chosen.or_else(|| whom.iter().copied().choose(&mut self.rng)) {
            self.secrets.asked = Some(self.now);
            self.send(peer, &Message::SecretRequest(to));
        }
    }

    /// A peer lacks the secret to which the cluster goes over. Its connection was proved with one that is taken here.
    pub(super) fn handle_secret_request(&mut self, conn: ConnId, peer: PeerId, name: SecretName) {
        let since = self.secrets.known.filter(|(to, _)| *to == name).map(|(_, since)| since);
        let wanted = since.is_some_and(|since| self.now.saturating_duration_since(since) >= HOLD_BACK);
        if !wanted || self.barred(peer).is_some() || self.store.removed(peer) {
            return;
        }
        if let Some(secret) = self.secrets.keyring.secret(name) {
            let bytes = Message::SecretAnswer(secret.clone()).encode();
            self.outbox.push(Output::Transmit { conn, bytes });
        }
    }

    /// The secret that was asked for; any other is not taken.
    pub(super) fn handle_secret_answer(&mut self, secret: Secret) {
        let Some((record, _)) = self.store.rotation() else { return };
        let (from, to) = (record.from, record.to);
        let open = self.secrets.keyring.is_empty();
        if !open && self.secrets.asked.is_some() && secret.name() == to && !self.secrets.keyring.holds(to) {
            self.take_secret(secret, from);
            self.look_at_rotation();
        }
    }

    /// Every host that belongs to the cluster.
    fn holders(&self) -> Vec<Holder> {
        let members = self.store.members().filter(|peer| self.barred(*peer).is_none());
        let holder = |peer: PeerId| Holder {
            peer,
            up: peer == self.me || self.membership.state(peer) != PeerState::Down,
            takes: self.store.host(peer).map(|host| host.secrets.clone()).unwrap_or_default(),
        };
        members.map(holder).collect()
    }

    /// Ends what is left of connections with hosts that have only a secret of before.
    pub(super) fn cut_left_behind(&mut self) {
        if self.secrets.retired.take_if(|at| self.now.saturating_duration_since(*at) >= LEFT_AFTER).is_none()
        {
            return;
        }
        for peer in self.topology.connected() {
            let takes = self.store.host(peer).map(|host| &host.secrets);
            let left = takes.is_some_and(|takes| !takes.iter().any(|name| self.secrets.keyring.holds(*name)));
            if !left {
                continue;
            }
            let reason = format!("retired secret: host {} takes another one than {peer} has", self.me);
            for conn in self.topology.connections_to(peer) {
                self.budgets.remove(&conn);
                self.topology.refuse(self.now, conn, &reason);
                self.count_bar(&reason);
            }
        }
    }

    /// This host has only a secret that the others do not take any more.
    pub(super) fn note_left_behind(&mut self) {
        if !std::mem::replace(&mut self.secrets.told_left, true) {
            let text = "this host's secret is no longer taken: the cluster went over to another one (`meshnet secret rotate`) \
                        while this host was away. Launch it with the secret that the other hosts have now";
            self.note("secret_retired", text.to_owned());
        }
    }

    /// How far the rotation is, for `status`; none before the first one.
    pub(super) fn rotation_status(&self) -> Option<super::RotationStatus> {
        let (record, writer) = self.store.rotation()?;
        let mut hosts: Vec<super::HolderStatus> = self
            .holders()
            .into_iter()
            .map(|holder| super::HolderStatus {
                peer_id: holder.peer.to_string(),
                nickname: if holder.peer == self.me {
                    self.config.nickname.clone()
                } else {
                    self.nickname(holder.peer)
                },
                state: if holder.peer == self.me {
                    PeerState::Alive
                } else {
                    self.membership.state(holder.peer)
                },
                has: holder.takes.contains(&record.to),
                uses: holder.takes.first() == Some(&record.to),
            })
            .collect();
        hosts.sort_by(|a, b| a.peer_id.cmp(&b.peer_id));
        Some(super::RotationStatus {
            from: record.from.to_string(),
            to: record.to.to_string(),
            phase: match record.phase {
                Phase::Spread => "spread",
                Phase::Prefer => "prefer",
                Phase::Done => "done",
            }
            .to_owned(),
            leave_behind: record.leave_behind,
            by: self.nickname(writer),
            hosts,
        })
    }
}
