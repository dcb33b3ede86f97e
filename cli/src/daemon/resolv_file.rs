//! The resolv.conf(5) of a container: found without ever leaving the container's own files, and written in place.
//!
//! In place, because it is mostly a file that was mounted there: one put in its stead would be seen by nobody. The file of the
//! host itself is never written, by whatever way a container has come to it.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::Mode;

use super::ports::Source;

/// Inside a container.
const INSIDE: &str = "etc/resolv.conf";
/// Where `ip netns exec` looks for the files of a namespace (ip-netns(8)).
const NAMED: &str = "/etc/netns";
/// Under these names the files of this host are known, and are mounted into containers as they are.
const HOST_FILES: [&str; 6] = [
    "/etc/resolv.conf",
    "/run/systemd/resolve/resolv.conf",
    "/run/systemd/resolve/stub-resolv.conf",
    "/run/NetworkManager/resolv.conf",
    "/run/NetworkManager/no-stub-resolv.conf",
    "/run/resolvconf/resolv.conf",
];
/// What is longer is none.
const MAX_BYTES: u64 = 64 << 10;
/// Everybody in the container reads it.
const MODE: u32 = 0o644;

/// Why a file is left alone, for people.
#[derive(Debug, thiserror::Error)]
pub(super) enum Untouched {
    /// The container has no mount namespace of its own, or the file of the host.
    #[error("it sees the files of the host itself")]
    Host,
    /// Nobody knows where the file of such a container is.
    #[error("nobody can tell which file its processes read")]
    Unknown,
    /// It is not a file, or not one of text.
    #[error("its resolv.conf is no file of text")]
    NoText,
    /// The operating system says no.
    #[error("its resolv.conf cannot be read or written: {0}")]
    Io(#[from] io::Error),
}

/// Where the file of a container is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// As a process sees it.
    Process(u32),
    /// Mounted by `ip netns exec` over the one of the host.
    Named(PathBuf),
}

impl Place {
    /// The place for a container; `pid` is the first process of a Docker container, while it runs.
    pub(super) fn of(source: &Source, pid: Option<u32>) -> Result<Self, Untouched> {
        match source {
            Source::Process { pid, .. } => Ok(Place::Process(*pid)),
            Source::Host => Err(Untouched::Host),
            Source::Docker { .. } => pid.map(Place::Process).ok_or(Untouched::Unknown),
            Source::File { path } => {
                let parts: Vec<_> = path.components().filter_map(|part| part.as_os_str().to_str()).collect();
                match parts.as_slice() {
                    ["/", "run", "netns", name] | ["/", "var", "run", "netns", name] => {
                        Ok(Place::Named(Path::new(NAMED).join(name).join("resolv.conf")))
                    }
                    ["/", "proc", pid, "ns", "net"] => {
                        pid.parse().map(Place::Process).map_err(|_| Untouched::Unknown)
                    }
                    _ => Err(Untouched::Unknown),
                }
            }
        }
    }

    /// What a file is made of where there is none: `ip netns exec` shows the host's then.
    pub(super) fn base(&self) -> String {
        match self {
            Place::Process(_) => String::new(),
            Place::Named(_) => std::fs::read_to_string(HOST_FILES[0]).unwrap_or_default(),
        }
    }

    /// Opens the file. None: there is no such file.
    pub(super) fn open(&self) -> Result<Option<Conf>, Untouched> {
        let opened = match self {
            Place::Process(pid) => open_inside(*pid, OFlag::O_RDWR),
            Place::Named(path) => open_named(path, OpenOptions::new().read(true).write(true)),
        };
        match opened {
            Ok(file) => Conf::checked(file).map(Some),
            Err(Untouched::Io(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(untouched) => Err(untouched),
        }
    }

    /// Makes the file, with the directory that it needs.
    pub(super) fn create(&self) -> Result<Conf, Untouched> {
        let file = match self {
            Place::Process(pid) => open_inside(*pid, OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL)?,
            Place::Named(path) => {
                for directory in [Path::new(NAMED), path.parent().unwrap_or(Path::new(NAMED))] {
                    make_directory(directory)?;
                }
                open_named(path, OpenOptions::new().read(true).write(true).create_new(true))?
            }
        };
        // The umask of the daemon keeps others out.
        file.set_permissions(Permissions::from_mode(MODE))?;
        Conf::checked(file)
    }

    /// Removes a file that was made here, and the directory with it when nothing else is in it.
    pub(super) fn remove(&self) -> Result<(), Untouched> {
        match self {
            Place::Process(pid) => {
                let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC);
                let etc = openat2(root_of(*pid)?, "etc", how.resolve(ResolveFlag::RESOLVE_IN_ROOT));
                let etc = etc.map_err(io::Error::from)?;
                let flag = nix::unistd::UnlinkatFlags::NoRemoveDir;
                gone(nix::unistd::unlinkat(etc, "resolv.conf", flag).map_err(io::Error::from))?;
            }
            Place::Named(path) => {
                gone(std::fs::remove_file(path))?;
                // Somebody has other files for the namespace there.
                path.parent().map(std::fs::remove_dir);
            }
        }
        Ok(())
    }
}

/// An open file that is not the host's.
#[derive(Debug)]
pub(super) struct Conf(File);

impl Conf {
    fn checked(file: File) -> Result<Self, Untouched> {
        let meta = file.metadata()?;
        if !meta.is_file() || meta.len() > MAX_BYTES {
            return Err(Untouched::NoText);
        }
        if host_files().contains(&(meta.dev(), meta.ino())) {
            return Err(Untouched::Host);
        }
        Ok(Conf(file))
    }

    /// What it says.
    pub(super) fn read(&self) -> Result<String, Untouched> {
        let mut text = String::new();
        match (&self.0).take(MAX_BYTES).read_to_string(&mut text) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(Untouched::NoText),
            read => Ok(read.map(|_| text)?),
        }
    }

    /// Writes it anew. Whoever reads it meanwhile sees the old text or the new one, which may end in empty lines.
    pub(super) fn write(&self, text: &str) -> Result<(), Untouched> {
        let len = usize::try_from(self.0.metadata()?.len()).unwrap_or(usize::MAX).min(1 << 20);
        let mut bytes = text.as_bytes().to_vec();
        bytes.resize(bytes.len().max(len), b'\n');
        self.0.write_all_at(&bytes, 0)?;
        self.0.set_len(text.len() as u64)?;
        Ok(self.0.sync_all()?)
    }
}

/// The root of a process that has files of its own.
fn root_of(pid: u32) -> Result<OwnedFd, Untouched> {
    let mounts =
        |pid: &str| std::fs::metadata(format!("/proc/{pid}/ns/mnt")).map(|meta| (meta.dev(), meta.ino()));
    let own = mounts(&pid.to_string())?;
    // In a sandbox the daemon has mounts of its own, and process 1 those of the host.
    if ["self", "1"].iter().any(|host| mounts(host).is_ok_and(|host| host == own)) {
        return Err(Untouched::Host);
    }
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = format!("/proc/{pid}/root");
    Ok(nix::fcntl::open(root.as_str(), flags, Mode::empty()).map_err(io::Error::from)?)
}

/// Opens the file as the process sees it: no link leads out of its root.
fn open_inside(pid: u32, flags: OFlag) -> Result<File, Untouched> {
    let mode = if flags.contains(OFlag::O_CREAT) { MODE } else { 0 };
    let flags = flags | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let how = OpenHow::new().flags(flags).mode(Mode::from_bits_truncate(mode));
    match openat2(root_of(pid)?, INSIDE, how.resolve(ResolveFlag::RESOLVE_IN_ROOT)) {
        Ok(file) => Ok(File::from(file)),
        Err(Errno::ELOOP) => Err(Untouched::NoText),
        Err(error) => Err(Untouched::Io(error.into())),
    }
}

fn open_named(path: &Path, options: &mut OpenOptions) -> Result<File, Untouched> {
    Ok(options.custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits()).open(path)?)
}

/// The files of this host, as the daemon sees them and as process 1 does.
fn host_files() -> Vec<(u64, u64)> {
    let seen = HOST_FILES.iter().map(PathBuf::from);
    let by_init = HOST_FILES.iter().map(|path| PathBuf::from(format!("/proc/1/root{path}")));
    let ids = seen.chain(by_init).filter_map(|path| std::fs::metadata(path).ok());
    ids.map(|meta| (meta.dev(), meta.ino())).collect()
}

fn make_directory(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o755).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.and_then(|()| std::fs::set_permissions(path, Permissions::from_mode(0o755))),
    }
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_container_has_its_place() {
        let file = |path: &str| Place::of(&Source::File { path: path.into() }, None);
        assert_eq!(file("/run/netns/blue").unwrap(), Place::Named("/etc/netns/blue/resolv.conf".into()));
        assert_eq!(file("/proc/17/ns/net").unwrap(), Place::Process(17));
        assert!(matches!(file("/tmp/ns"), Err(Untouched::Unknown)));
        let docker = Source::Docker { id: "c0ffee".into() };
        assert_eq!(Place::of(&docker, Some(9)).unwrap(), Place::Process(9));
        assert!(matches!(Place::of(&docker, None), Err(Untouched::Unknown)), "it does not run");
    }

    #[test]
    fn the_files_of_the_host_are_left_alone() {
        let own = Place::Process(std::process::id());
        assert!(matches!(own.open(), Err(Untouched::Host)));
        assert!(matches!(own.create(), Err(Untouched::Host)));
        assert!(matches!(own.remove(), Err(Untouched::Host)));
        // By a link too.
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("resolv.conf");
        std::os::unix::fs::symlink("/etc/resolv.conf", &link).unwrap();
        assert!(matches!(Place::Named(link).open(), Err(Untouched::Host)));
    }

    #[test]
    fn a_file_is_written_in_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        let place = Place::Named(path.clone());
        assert!(place.open().unwrap().is_none());
        std::fs::write(&path, "nameserver 192.0.2.53\n").unwrap();
        let before = std::fs::metadata(&path).unwrap().ino();
        for text in ["short\n", "a much longer text than there was before\n", ""] {
            place.open().unwrap().unwrap().write(text).unwrap();
            assert_eq!(place.open().unwrap().unwrap().read().unwrap(), text);
        }
        assert_eq!(std::fs::metadata(&path).unwrap().ino(), before);
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(matches!(place.open().unwrap().unwrap().read(), Err(Untouched::NoText)));
        assert!(Place::Named(dir.path().to_owned()).open().is_err());
        place.remove().unwrap();
        place.remove().unwrap();
        assert!(!dir.path().exists(), "an empty directory goes too");
    }
}
