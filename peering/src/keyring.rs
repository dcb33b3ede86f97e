//! The secrets that a host takes: one, or two while the cluster goes over from one to another; and those it took before.
//!
//! Of a secret that is not taken any more the name stays, and of the last few the key under which they were proved: enough to
//! tell a host that still has one why it is refused. What is kept on disk outlives the daemon; the secret that people give at
//! a launch counts for more than that when its name was never kept ([`Keyring::adopt`]).

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::secret::{PROOFS, Secret, SecretName};

/// Of so many secrets that are not taken any more the keys are kept.
pub const MAX_RETIRED: usize = 4;
/// So many of their names are: with one rotation a day those of three years.
pub const MAX_RETIRED_NAMES: usize = 1024;
/// The version of the form on disk.
const VERSION: u8 = 1;

/// The secrets of a host. The first is preferred.
#[derive(Clone, Default)]
pub struct Keyring {
    held: Vec<Held>,
    /// The keys of the last ones before, the latest first.
    retired: Vec<Retired>,
    /// All names before, the latest first.
    retired_names: Vec<SecretName>,
}

#[derive(Clone)]
struct Held {
    name: SecretName,
    secret: Secret,
    control: Zeroizing<[u8; 32]>,
}

#[derive(Clone)]
struct Retired {
    name: SecretName,
    control: Zeroizing<[u8; 32]>,
}

/// What the secret given at a launch is to those that were kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Given {
    /// One of those that are taken, or there is none at all.
    Taken,
    /// One that is not taken any more: those that were kept count.
    Retired,
    /// None was given, and those that were kept count.
    Missing,
    /// A new one: it counts, and those that were kept are not taken any more.
    New,
}

/// The bytes are no keyring.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeyringError {
    /// It was cut short, changed, or holds what is no secret.
    #[error("it holds no secrets")]
    Malformed,
    /// A newer program wrote it.
    #[error("version {0} is not known here")]
    Version(u8),
}

impl Keyring {
    /// With one secret, or none.
    pub fn new(secret: Option<Secret>) -> Self {
        Keyring { held: secret.into_iter().map(Held::new).collect(), ..Keyring::default() }
    }

    /// What a host takes that kept `stored` and was launched with `given`.
    pub fn adopt(given: Option<Secret>, stored: Option<Keyring>) -> (Self, Given) {
        let Some(mut stored) = stored.filter(|stored| !stored.is_empty()) else {
            return (Keyring::new(given), Given::Taken);
        };
        let Some(given) = given else { return (stored, Given::Missing) };
        let name = given.name();
        if stored.holds(name) {
            return (stored, Given::Taken);
        }
        if stored.has_retired(name) {
            return (stored, Given::Retired);
        }
        stored.held.insert(0, Held::new(given));
        stored.keep_only(name);
        (stored, Given::New)
    }

    /// True without a secret.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// The names of the secrets, the preferred one first.
    pub fn names(&self) -> Vec<SecretName> {
        self.held.iter().map(|held| held.name).collect()
    }

    /// The one that is preferred.
    pub fn preferred(&self) -> Option<SecretName> {
        self.held.first().map(|held| held.name)
    }

    /// True for a secret that is taken.
    pub fn holds(&self, name: SecretName) -> bool {
        self.held.iter().any(|held| held.name == name)
    }

    /// True for a secret that was taken before.
    pub fn has_retired(&self, name: SecretName) -> bool {
        self.retired_names.contains(&name)
    }

    /// A secret that is taken.
    pub fn secret(&self, name: SecretName) -> Option<&Secret> {
        self.held.iter().find(|held| held.name == name).map(|held| &held.secret)
    }

    /// The keys of the data plane, the preferred one first.
    pub fn data_keys(&self) -> Vec<Zeroizing<[u8; 32]>> {
        self.held.iter().map(|held| held.secret.data_key()).collect()
    }

    /// Takes one more secret, last. Of those that were taken one stays: `beside` it, or the preferred one if that is not held.
    pub fn take(&mut self, secret: Secret, beside: SecretName) {
        let taken = Held::new(secret);
        let beside = if self.holds(beside) { Some(beside) } else { self.preferred() };
        self.held.retain(|held| Some(held.name) == beside && held.name != taken.name);
        self.retired.retain(|retired| retired.name != taken.name);
        self.retired_names.retain(|name| *name != taken.name);
        self.held.push(taken);
        self.held.truncate(PROOFS);
    }

    /// Puts a secret that is taken first.
    pub fn prefer(&mut self, name: SecretName) {
        self.held.sort_by_key(|held| held.name != name);
    }

    /// Takes only this secret from now on, if it is one that is taken.
    pub fn keep_only(&mut self, name: SecretName) {
        if !self.holds(name) {
            return;
        }
        let (kept, gone): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.held).into_iter().partition(|held| held.name == name);
        self.held = kept;
        self.retired_names.splice(0..0, gone.iter().map(|held| held.name));
        self.retired_names.truncate(MAX_RETIRED_NAMES);
        let gone = gone.into_iter().map(|held| Retired { name: held.name, control: held.control });
        self.retired.splice(0..0, gone);
        self.retired.truncate(MAX_RETIRED);
    }

    pub(crate) fn control_keys(&self) -> impl Iterator<Item = &[u8; 32]> {
        self.held.iter().map(|held| &*held.control)
    }

    pub(crate) fn retired_keys(&self) -> impl Iterator<Item = &[u8; 32]> {
        self.retired.iter().map(|retired| &*retired.control)
    }

    /// The form for the disk.
    ///
    /// # Errors
    /// The serialiser refuses, which no keyring that was built here makes it do.
    pub fn save(&self) -> Result<Zeroizing<Vec<u8>>, KeyringError> {
        let stored = Stored {
            held: self.held.iter().map(|held| held.secret.bytes()).collect(),
            retired: self.retired.iter().map(|retired| (retired.name, *retired.control)).collect(),
            retired_names: self.retired_names.clone(),
        };
        // Room for all of it, so that no copy stays behind where it grew.
        let mut bytes = Vec::with_capacity(1024 + 8 * self.retired_names.len());
        bytes.push(VERSION);
        postcard::to_extend(&stored, bytes).map(Zeroizing::new).map_err(|_| KeyringError::Malformed)
    }

    /// Reads what [`Self::save`] wrote.
    ///
    /// # Errors
    /// The bytes are no keyring of this release.
    pub fn restore(bytes: &[u8]) -> Result<Self, KeyringError> {
        let stored: Stored<'_> = match bytes.split_first() {
            Some((&VERSION, rest)) => match postcard::take_from_bytes(rest) {
                Ok((stored, [])) => stored,
                _ => return Err(KeyringError::Malformed),
            },
            Some((version, _)) => return Err(KeyringError::Version(*version)),
            None => return Err(KeyringError::Malformed),
        };
        let too_many = stored.held.len() > PROOFS
            || stored.retired.len() > MAX_RETIRED
            || stored.retired_names.len() > MAX_RETIRED_NAMES;
        if too_many {
            return Err(KeyringError::Malformed);
        }
        let secret = |bytes: &&[u8]| Secret::new(Zeroizing::new(bytes.to_vec())).map(Held::new);
        let held = stored.held.iter().map(secret).collect::<Result<_, _>>();
        let retired = stored.retired.into_iter();
        let retired = retired.map(|(name, control)| Retired { name, control: Zeroizing::new(control) });
        Ok(Keyring {
            held: held.map_err(|_| KeyringError::Malformed)?,
            retired: retired.collect(),
            retired_names: stored.retired_names,
        })
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring({:?})", self.names())
    }
}

impl PartialEq for Keyring {
    fn eq(&self, other: &Self) -> bool {
        let keys = |keyring: &Keyring| keyring.retired.iter().map(|it| it.name).collect::<Vec<_>>();
        self.names() == other.names()
            && keys(self) == keys(other)
            && self.retired_names == other.retired_names
    }
}

impl Eq for Keyring {}

impl Held {
    fn new(secret: Secret) -> Self {
        Held { name: secret.name(), control: secret.control_key(), secret }
    }
}

/// The form on disk, after its version.
#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    #[serde(borrow)]
    held: Vec<&'a [u8]>,
    retired: Vec<(SecretName, [u8; 32])>,
    retired_names: Vec<SecretName>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(byte: u8) -> Secret {
        Secret::new(Zeroizing::new(vec![byte; 32])).unwrap()
    }

    fn name(byte: u8) -> SecretName {
        secret(byte).name()
    }

    fn ring(bytes: &[u8]) -> Keyring {
        let held = bytes.iter().map(|byte| Held::new(secret(*byte))).collect();
        Keyring { held, ..Keyring::default() }
    }

    #[test]
    fn a_secret_is_taken_preferred_and_alone() {
        let mut keyring = ring(&[1]);
        keyring.take(secret(2), name(1));
        assert_eq!(keyring.names(), [name(1), name(2)]);
        keyring.prefer(name(2));
        assert_eq!(keyring.names(), [name(2), name(1)]);
        keyring.prefer(name(7));
        keyring.keep_only(name(7));
        assert_eq!(keyring.names(), [name(2), name(1)], "nobody has that one");
        keyring.keep_only(name(2));
        assert_eq!(keyring.names(), [name(2)]);
        assert!(keyring.has_retired(name(1)) && !keyring.holds(name(1)));
        keyring.take(secret(1), name(2));
        assert!(!keyring.has_retired(name(1)), "it is taken again");
    }

    #[test]
    fn of_two_rotations_the_secret_that_all_have_stays() {
        let mut keyring = ring(&[2, 1]);
        keyring.take(secret(3), name(1));
        assert_eq!(keyring.names(), [name(1), name(3)]);
        keyring.take(secret(4), name(9));
        assert_eq!(keyring.names(), [name(1), name(4)], "the preferred one, when that is not known");
        keyring.take(secret(4), name(1));
        assert_eq!(keyring.names(), [name(1), name(4)]);
        keyring.take(secret(1), name(1));
        assert_eq!(keyring.names(), [name(1)], "it is not taken twice");
    }

    /// After so many rotations, the first secret being 1.
    fn rotated(times: u8) -> Keyring {
        let mut keyring = ring(&[1]);
        for byte in 2..2 + times {
            keyring.take(secret(byte), name(byte - 1));
            keyring.keep_only(name(byte));
        }
        keyring
    }

    #[test]
    fn the_keys_of_few_retired_secrets_are_kept_and_the_names_of_all() {
        let keyring = rotated(7);
        assert_eq!(keyring.retired_keys().count(), MAX_RETIRED);
        let kept: Vec<SecretName> = keyring.retired.iter().map(|retired| retired.name).collect();
        assert_eq!(kept, [name(7), name(6), name(5), name(4)], "the latest first");
        assert!((1..8).all(|byte| keyring.has_retired(name(byte))));
        let mut often = keyring.clone();
        let all = (0..=MAX_RETIRED_NAMES as u64).map(|number| SecretName(number.to_le_bytes()));
        often.retired_names = all.collect();
        often.take(secret(9), name(8));
        often.keep_only(name(9));
        assert_eq!(often.retired_names.len(), MAX_RETIRED_NAMES);
        assert!(often.has_retired(name(8)), "the latest stays");
    }

    #[test]
    fn an_old_file_does_not_count_however_many_rotations_ago_it_was_new() {
        for times in 1..12 {
            let stored = Keyring::restore(&rotated(times).save().unwrap()).unwrap();
            for old in 1..=times {
                let (keyring, what) = Keyring::adopt(Some(secret(old)), Some(stored.clone()));
                assert_eq!(
                    (keyring.names(), what),
                    (vec![name(times + 1)], Given::Retired),
                    "{old} of {times}"
                );
            }
        }
    }

    #[test]
    fn what_people_give_counts_unless_it_is_an_old_one() {
        let mut stored = ring(&[1]);
        stored.take(secret(2), name(1));
        stored.keep_only(name(2));
        let adopt = |given: Option<u8>| {
            let (keyring, what) = Keyring::adopt(given.map(secret), Some(stored.clone()));
            (keyring.names(), what)
        };
        assert_eq!(adopt(Some(2)), (vec![name(2)], Given::Taken));
        assert_eq!(adopt(Some(1)), (vec![name(2)], Given::Retired));
        assert_eq!(adopt(None), (vec![name(2)], Given::Missing));
        assert_eq!(adopt(Some(3)), (vec![name(3)], Given::New));
        for nothing in [None, Some(Keyring::default())] {
            assert_eq!(Keyring::adopt(Some(secret(1)), nothing.clone()).0.names(), [name(1)]);
            assert!(Keyring::adopt(None, nothing).0.is_empty());
        }
    }

    #[test]
    fn it_is_written_and_read_back_and_shown_to_nobody() {
        let mut keyring = ring(&[1]);
        keyring.take(secret(0xa5), name(1));
        keyring.keep_only(name(0xa5));
        let bytes = keyring.save().unwrap();
        let again = Keyring::restore(&bytes).unwrap();
        assert_eq!(again, keyring);
        assert_eq!(again.secret(name(0xa5)), Some(&secret(0xa5)));
        for end in 0..bytes.len() {
            assert!(Keyring::restore(&bytes[..end]).is_err(), "{end}");
        }
        assert_eq!(Keyring::restore(&[9]), Err(KeyringError::Version(9)));
        assert_eq!(Keyring::restore(&[&bytes[..], &[0]].concat()), Err(KeyringError::Malformed));
        assert!(!format!("{keyring:?}").contains("a5a5") && !format!("{keyring:?}").contains("165"));
    }
}
