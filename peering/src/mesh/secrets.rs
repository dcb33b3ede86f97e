//! The secrets of this host: what it takes, what of that is on disk, and what it knows of the way from one to another.

use std::time::Instant;

use super::{Mesh, MeshEvent};
use crate::keyring::Keyring;
use crate::records::Phase;
use crate::rotation::Rotation;
use crate::secret::{Secret, SecretName};

/// The secrets of this host.
#[derive(Debug)]
pub(super) struct Secrets {
    pub(super) kept: Kept,
    pub(super) rotation: Rotation,
    pub(super) asked: Option<Instant>,
    /// To which secret the cluster goes over, and since when this host knows.
    pub(super) known: Option<(SecretName, Instant)>,
    pub(super) retired: Option<Instant>,
    /// When this host began.
    pub(super) started: Instant,
    /// People said here, since the start, that the rotation is to go on as things are.
    pub(super) insisted: bool,
    /// The last that was told of the record, and whether people were told that this host was left behind.
    pub(super) told: Option<(SecretName, Phase)>,
    pub(super) told_left: bool,
}

/// What is taken, and what of it is on disk.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) keyring: Keyring,
    /// It changed since it was handed out to be written.
    dirty: bool,
    writing: Option<Vec<SecretName>>,
    /// What a start from the disk would take: others are told of nothing else.
    durable: Vec<SecretName>,
}

impl Secrets {
    /// With what the disk, or the people who launched this host, had.
    pub(super) fn new(keyring: Keyring, now: Instant) -> Self {
        Secrets {
            kept: Kept { durable: keyring.names(), keyring, dirty: false, writing: None },
            rotation: Rotation::default(),
            asked: None,
            known: None,
            retired: None,
            started: now,
            insisted: false,
            told: None,
            told_left: false,
        }
    }

    /// For the record of this host.
    pub(super) fn durable(&self) -> Vec<SecretName> {
        self.kept.durable.clone()
    }
}

impl Kept {
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
        &self.secrets.kept.keyring
    }

    /// True when a start from the disk would take all the secrets that this host takes.
    pub fn secrets_are_on_disk(&self) -> bool {
        self.keyring().names().iter().all(|name| self.secrets.kept.durable.contains(name))
    }

    /// The disk did not take the secrets with which this host starts: it is asked again with the first state.
    pub fn secrets_are_unwritten(&mut self) {
        self.secrets.kept.dirty = true;
        self.outbox.guard();
    }

    /// The secrets, if they changed: to be written before the state that [`Self::poll_persist`] has just given, whose
    /// [`Self::handle_persisted`] says what became of both.
    pub fn poll_keyring(&mut self) -> Option<Keyring> {
        let Kept { keyring, dirty, writing, .. } = &mut self.secrets.kept;
        if !std::mem::take(dirty) {
            return None;
        }
        *writing = Some(keyring.names());
        Some(keyring.clone())
    }

    /// The disk has, or has not, what was handed out.
    pub(super) fn secrets_written(&mut self, well: bool) {
        if self.secrets.kept.written(well) {
            self.refresh_own_host();
            self.look_at_rotation();
        }
    }

    pub(super) fn take_secret(&mut self, secret: Secret, beside: SecretName) {
        self.secrets.kept.keyring.take(secret, beside);
        self.secrets_changed();
    }

    /// Used at once, and told of once it is on disk.
    pub(super) fn secrets_changed(&mut self) {
        self.secrets.kept.dirty = true;
        self.outbox.guard();
        self.view.tell(MeshEvent::SecretsChanged);
    }
}
