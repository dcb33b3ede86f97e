//! Where a host has its secret from. It is read once, at launch, and stands in no argument, log or answer.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "the shell: files")]

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc::O_NONBLOCK;
use nix::unistd::geteuid;
use peering::secret::{MAX_LEN, MIN_LEN, Secret, SecretName};
use zeroize::Zeroizing;

use crate::failure::{Failure, code};

/// The secret itself, in the environment.
const VALUE: &str = "MESHNET_SECRET";
/// The words that stand for what a pipe or a terminal gives.
const INPUT: &str = "the secret on standard input";
/// Where systemd puts the credentials of a service (systemd.exec(5)).
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";
/// The name of ours.
const CREDENTIAL: &str = "meshnet-secret";
/// What nobody but the owner may do, and the owner need not.
const TOO_WIDE: u32 = 0o177;
/// No file with a secret is longer, line end included.
const LONGEST_BYTES: u64 = 2 * MAX_LEN as u64 + 2;

/// The secret from `file`, the environment, or the credentials of the service; `None` without any.
///
/// # Errors
/// It is given twice, cannot be read, is known to others, or is no secret.
pub(crate) fn load(file: Option<&Path>) -> Result<Option<Secret>, Failure> {
    match (file, std::env::var_os(VALUE)) {
        (Some(_), Some(_)) => {
            Err(unusable(format!("both a file and {VALUE} give a secret")).hint("leave one of them out"))
        }
        (Some(file), None) => read(file).map(Some),
        (None, Some(value)) => of_environment(value).map(Some),
        (None, None) => credential().as_deref().map(read).transpose(),
    }
}

/// Where people keep the secret of this host, as far as it can be looked at again.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// In a file.
    File(PathBuf),
    /// In a credential of the service. systemd copies it when the service starts: what lies there is never another one.
    Credential(SecretName),
    /// In the environment of the launch, under this name.
    Environment(SecretName),
}

/// Where [`load`] took `secret` from.
pub(crate) fn source(file: Option<&Path>, secret: Option<&Secret>) -> Option<Source> {
    let name = secret?.name();
    let environment = std::env::var_os(VALUE).map(|_| Source::Environment(name));
    let credential = || credential().map(|_| Source::Credential(name));
    file.map(|file| Source::File(file.to_owned())).or(environment).or_else(credential)
}

impl Source {
    /// The secret that is there now, and where that is.
    ///
    /// # Errors
    /// It cannot be read any more.
    pub(crate) fn look(&self) -> Result<(SecretName, String), Failure> {
        match self {
            Source::File(path) => Ok((read(path)?.name(), path.display().to_string())),
            Source::Credential(name) => Ok((*name, format!("the credential {CREDENTIAL}"))),
            Source::Environment(name) => Ok((*name, VALUE.to_owned())),
        }
    }

    /// What people are to do when it is an old one.
    pub(crate) fn advice(&self) -> &'static str {
        match self {
            Source::File(_) => "Put that of `meshnet secret rotate` there",
            Source::Credential(_) => {
                "Put that of `meshnet secret rotate` where LoadCredential of the unit takes it from, and restart the service \
                 when it suits"
            }
            Source::Environment(_) => "Put that of `meshnet secret rotate` there before the next launch",
        }
    }
}

/// A variable that is empty, or no text, is no host without a secret: that would open the cluster without a word.
fn of_environment(value: OsString) -> Result<Secret, Failure> {
    let text = value.into_string().map(Zeroizing::new).unwrap_or_default();
    parse(&text, &format!("the secret in {VALUE}"))
}

fn credential() -> Option<PathBuf> {
    let path = Path::new(&std::env::var_os(CREDENTIALS)?).join(CREDENTIAL);
    // One that cannot be looked at is there, and reading it says why it is of no use.
    path.try_exists().unwrap_or(true).then_some(path)
}

fn read(path: &Path) -> Result<Secret, Failure> {
    let shown = path.display();
    let failed = |e: io::Error| unusable(format!("the secret in {shown} cannot be read: {e}"));
    // A pipe without a writer must not hold the launch up.
    let file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    if !meta.is_file() {
        return Err(unusable(format!("{shown} is no file")));
    }
    let (mode, owner, me) = (meta.mode() & 0o7777, meta.uid(), geteuid().as_raw());
    if owner != me {
        return Err(Failure::new(code::SECRET_OPEN, format!("{shown} belongs to user {owner}, not to {me}"))
            .hint(format!("`chown {me}` it, and make another secret if somebody else may know this one")));
    }
    if mode & TOO_WIDE != 0 {
        return Err(Failure::new(code::SECRET_OPEN, format!("{shown} is open to others (mode {mode:04o})"))
            .hint("`chmod 600` it, and make another secret if somebody else may know this one"));
    }
    let mut text = Zeroizing::new(String::with_capacity(4096));
    file.take(LONGEST_BYTES).read_to_string(&mut text).map_err(failed)?;
    parse(&text, &format!("the secret in {shown}"))
}

fn parse(text: &str, what: &str) -> Result<Secret, Failure> {
    Secret::parse(text).map_err(|e| {
        unusable(format!("{what} cannot be used: {e}")).hint("make one with `meshnet secret generate`")
    })
}

fn unusable(message: String) -> Failure {
    Failure::new(code::SECRET_UNUSABLE, message)
}

/// A new secret, out of the system's generator.
pub(crate) fn generate() -> Result<Secret, Failure> {
    let mut bytes = Zeroizing::new(vec![0; MIN_LEN]);
    rand::TryRng::try_fill_bytes(&mut rand::rngs::SysRng, &mut bytes)
        .map_err(|_| Failure::new(code::NO_RANDOM_NUMBERS, "the operating system gives no random numbers"))?;
    Secret::new(bytes).map_err(Failure::internal)
}

/// A secret that somebody else writes, or a pipe.
pub(crate) fn from_standard_input() -> Result<Secret, Failure> {
    let mut text = Zeroizing::new(String::with_capacity(4096));
    let input = io::stdin().lock().take(LONGEST_BYTES).read_to_string(&mut text);
    input.map_err(|e| unusable(format!("{INPUT} cannot be read: {e}")))?;
    parse(&text, INPUT)
}

/// The secret in a file; made and written there if there is no such file, and then `true`.
pub(crate) fn read_or_make(path: &Path) -> Result<(Secret, bool), Failure> {
    if path.try_exists().unwrap_or(true) {
        return Ok((read(path)?, false));
    }
    let made = generate()?;
    write(&made, path)?;
    Ok((made, true))
}

/// Writes a secret to a file that must not exist (mode 0600).
pub(crate) fn write(secret: &Secret, path: &Path) -> Result<(), Failure> {
    let shown = path.display();
    let failed = |e: io::Error| match e.kind() {
        io::ErrorKind::AlreadyExists => {
            Failure::new(code::SECRET_EXISTS, format!("{shown} exists, and is not written over"))
                .hint("choose another file, or remove it if no host needs it")
        }
        _ => Failure::new(code::WRITE_FAILED, format!("{shown} cannot be written: {e}")),
    };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    let written = put(&mut file, secret);
    if written.is_err() {
        // Half a secret is none.
        let _ = std::fs::remove_file(path);
    }
    written.map_err(failed)
}

fn put(file: &mut File, secret: &Secret) -> io::Result<()> {
    file.write_all(secret.text().as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_is_written_once_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let secret = generate().unwrap();
        write(&secret, &path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(*read(&path).unwrap().text(), *secret.text());
        assert_eq!(write(&generate().unwrap(), &path).unwrap_err().code, code::SECRET_EXISTS);
        assert_eq!(*read(&path).unwrap().text(), *secret.text());
        assert_ne!(*generate().unwrap().text(), *secret.text());
    }

    #[test]
    fn a_variable_that_holds_no_secret_is_refused_and_not_overlooked() {
        let good = generate().unwrap().text();
        assert_eq!(*of_environment(OsString::from(good.as_str())).unwrap().text(), *good);
        let no_text = std::os::unix::ffi::OsStringExt::from_vec(vec![0xff; 64]);
        for value in [OsString::new(), OsString::from("5c"), no_text] {
            assert_eq!(of_environment(value).unwrap_err().code, code::SECRET_UNUSABLE);
        }
    }

    #[test]
    fn a_file_that_others_may_read_or_that_holds_no_secret_is_refused_without_a_word_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        write(&generate().unwrap(), &path).unwrap();
        for mode in [0o400, 0o600] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert!(read(&path).is_ok(), "{mode:o}");
        }
        for mode in [0o640, 0o604, 0o700, 0o620] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert_eq!(read(&path).unwrap_err().code, code::SECRET_OPEN, "{mode:o}");
        }
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        for text in [String::new(), "5c".repeat(31), "not a secret".to_owned(), "5c".repeat(3000)] {
            std::fs::write(&path, &text).unwrap();
            let failure = read(&path).unwrap_err();
            assert_eq!(failure.code, code::SECRET_UNUSABLE);
            assert!(text.is_empty() || !failure.to_string().contains(&text));
        }
        assert_eq!(read(dir.path()).unwrap_err().code, code::SECRET_UNUSABLE);
        assert_eq!(read(&dir.path().join("none")).unwrap_err().code, code::SECRET_UNUSABLE);
    }
}
