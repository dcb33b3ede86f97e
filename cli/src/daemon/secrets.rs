//! The secrets of this host in the daemon: what people say of them, what the data plane makes of them, and whether the file
//! that people keep is still of use.

use std::sync::Arc;

use engine::session::psk::Psk;
use peering::keyring::Keyring;
use peering::mesh::RotateError;
use peering::secret::Secret;
use zeroize::Zeroizing;

use super::{Daemon, lock_of};
use crate::failure::{Failure, code};
use crate::secret::Source;
use crate::shape::{RotateRequest, Warning};

/// What people are told while their file is an old one.
const STALE: &str = "secret_file_stale";

/// The keys of the data plane, the preferred one first; in an open cluster the one that is no secret.
pub(super) fn psks(keyring: &Keyring) -> Vec<Psk> {
    if keyring.is_empty() {
        return vec![Psk::open()];
    }
    keyring.data_keys().iter().map(|key| Psk::new(**key)).collect()
}

impl Daemon {
    /// Has the cluster go over to another secret.
    pub(super) async fn rotate(&self, mut request: RotateRequest) -> Result<(), Failure> {
        let secret = request.secret.take().map(Zeroizing::new);
        let secret = secret.map(|text| Secret::parse(&text)).transpose();
        let secret = secret.map_err(|e| {
            Failure::new(code::SECRET_UNUSABLE, format!("the new secret cannot be used: {e}"))
        })?;
        self.peering.rotate(secret, request.leave_behind).await.map_err(|error| not_rotated(&error))
    }

    /// The secrets are others from now on.
    pub(super) fn secrets_changed(self: &Arc<Self>) {
        let keyring = self.peering.keyring();
        tracing::info!(names = ?keyring.names(), "the secrets that are taken have changed");
        self.engine.set_psks(psks(&keyring));
        let daemon = Arc::clone(self);
        tokio::spawn(async move { daemon.check_secret_file().await });
    }

    /// Looks whether what people keep is of use for the next host, and tells when it is not.
    pub(super) async fn check_secret_file(self: &Arc<Self>) {
        let Some(source) = self.secret_source.clone() else { return };
        // One that is away, or cannot be read now, says nothing.
        let advice = source.advice();
        let Ok(Ok((name, place))) = self.blocking(move |_| source.look()).await else { return };
        let keyring = self.peering.keyring();
        let stale = (!keyring.holds(name)).then(|| {
            format!(
                "the secret in {place} is no longer taken; this host uses the newer one that it keeps. {advice}: a host that \
                 is launched with this one alone is refused"
            )
        });
        let before = std::mem::replace(&mut *lock_of(&self.secret_stale), stale.clone());
        if let Some(stale) = stale.filter(|stale| before.as_ref() != Some(stale)) {
            self.tell("secret_file_stale", stale);
        }
    }

    /// For `status`.
    pub(super) fn secret_warning(&self) -> Option<Warning> {
        let message = lock_of(&self.secret_stale).clone()?;
        Some(Warning { kind: STALE.to_owned(), message })
    }

    /// The file with the secret, if there is one.
    pub(super) fn secret_file(&self) -> Option<std::path::PathBuf> {
        match self.secret_source.as_ref()? {
            Source::File(path) => Some(path.clone()),
            Source::Environment(_) | Source::Credential(_) => None,
        }
    }
}

fn not_rotated(error: &RotateError) -> Failure {
    let failure = Failure::new(error.code(), error.to_string());
    match error {
        RotateError::Open => failure.hint("to close it, stop all daemons and launch them with a secret"),
        RotateError::UnderWay { .. } => {
            failure.hint("wait for that one: `meshnet secret rotate` without --file, and `meshnet status`")
        }
        RotateError::InUse(_) | RotateError::Retired => {
            failure.hint("make a new one with `meshnet secret generate`")
        }
        RotateError::None => failure.hint("name a file for the new secret with --file"),
        RotateError::TooEarly => failure.hint("say it again in some seconds"),
        RotateError::TooMany(_) => failure.hint("stop all daemons, and launch them with another secret"),
        RotateError::StoreFailed => failure.hint("make room on the disk"),
        RotateError::Clone(_) => failure.hint("run it on another host, or stop one of the two"),
        RotateError::Stopping => failure,
    }
}
