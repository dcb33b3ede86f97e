//! Network namespaces: naming them, finding them, and doing something inside one.
//!
//! A [`Netns`] is an open descriptor and therefore **pins** the namespace: as long as one is held, the
//! namespace and everything in it lives on, even when its container is dead. Hold one for the length of an
//! operation; remember a [`NetnsId`] instead.

#![allow(unsafe_code)]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "io: threads and descriptors of namespaces"
)]

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::sched::{CloneFlags, setns, unshare};

/// Which network namespace: the device and inode of its file in nsfs, unique while the namespace lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NetnsId {
    /// Device number of nsfs.
    pub dev: u64,
    /// Inode number of the namespace.
    pub ino: u64,
}

impl NetnsId {
    /// The namespace that `path` stands for, without opening it.
    pub(crate) fn of_path(path: &Path) -> io::Result<Self> {
        let meta = std::fs::metadata(path)?;
        Ok(NetnsId { dev: meta.dev(), ino: meta.ino() })
    }
}

/// Why a namespace could not be used.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// Nothing is there.
    #[error("no network namespace at {}: no such file", .path.display())]
    NotFound {
        /// What was asked for.
        path: PathBuf,
    },
    /// The file is something else.
    #[error("{} is not a network namespace", .path.display())]
    NotNetns {
        /// What was asked for.
        path: PathBuf,
    },
    /// No such process, or it is exiting and has left its namespaces.
    #[error("process {pid} does not run")]
    DeadPid {
        /// The process id.
        pid: u32,
    },
    /// The kernel refused: this needs CAP_SYS_ADMIN (and CAP_SYS_PTRACE for the processes of others).
    #[error("no permission to {action}: root is needed")]
    Permission {
        /// What was tried.
        action: String,
    },
    /// Anything else.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was tried.
        action: String,
        /// What the kernel said.
        source: io::Error,
    },
}

impl NetnsError {
    fn new(action: impl Into<String>, source: io::Error) -> Self {
        let action = action.into();
        match source.kind() {
            io::ErrorKind::PermissionDenied => NetnsError::Permission { action },
            _ => NetnsError::Io { action, source },
        }
    }
}

/// An open network namespace; clones share the descriptor. It pins the namespace until the last is dropped.
#[derive(Clone, Debug)]
pub struct Netns {
    fd: Arc<OwnedFd>,
    id: NetnsId,
}

/// `NS_GET_NSTYPE` of linux/nsfs.h: `_IO(0xb7, 3)`.
const NS_GET_NSTYPE: libc::c_ulong = 0xb703;
/// Where tools keep named namespaces.
const NAMED: [&str; 2] = ["/run/netns", "/var/run/netns"];
/// Directories whose entries may be namespaces: `ip netns`, Docker.
const DIRECTORIES: [&str; 3] = ["/run/netns", "/var/run/netns", "/run/docker/netns"];

impl Netns {
    /// The namespace of the calling thread.
    pub fn current() -> Result<Self, NetnsError> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// The namespace that a file stands for, such as `/run/netns/blue` or `/proc/17/ns/net`.
    pub fn open(path: &Path) -> Result<Self, NetnsError> {
        let not_netns = || NetnsError::NotNetns { path: path.to_owned() };
        let failed = |e: io::Error| match e.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR | libc::ESRCH) => {
                NetnsError::NotFound { path: path.to_owned() }
            }
            _ => NetnsError::new(format!("open {}", path.display()), e),
        };
        // Asked before the open, because opening a device or a pipe may do something.
        let filesystem = nix::sys::statfs::statfs(path).map_err(|e| failed(e.into()))?;
        if !matches!(filesystem.filesystem_type(), nix::sys::statfs::NSFS_MAGIC) {
            return Err(not_netns());
        }
        let file = File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)
            .map_err(failed)?;
        if !is_network_namespace(file.as_fd()) {
            return Err(not_netns());
        }
        let meta = file.metadata().map_err(failed)?;
        Ok(Netns { fd: Arc::new(file.into()), id: NetnsId { dev: meta.dev(), ino: meta.ino() } })
    }

    /// The namespace of a process.
    pub fn of_pid(pid: u32) -> Result<Self, NetnsError> {
        match Self::open(Path::new(&format!("/proc/{pid}/ns/net"))) {
            Err(NetnsError::NotFound { .. }) => Err(NetnsError::DeadPid { pid }),
            other => other,
        }
    }

    /// A namespace by the name that `ip netns add` gave it.
    pub fn named(name: &str) -> Result<Self, NetnsError> {
        let [first, second] = NAMED.map(|dir| Path::new(dir).join(name));
        if name.is_empty() || name.contains('/') || name.starts_with('.') {
            return Err(NetnsError::NotFound { path: first });
        }
        match Self::open(&first) {
            Err(NetnsError::NotFound { .. }) => {
                Self::open(&second).map_err(|_| NetnsError::NotFound { path: first })
            }
            other => other,
        }
    }

    /// A new, empty namespace without a name; it lives as long as somebody is in it or holds it open.
    pub fn create() -> Result<Self, NetnsError> {
        on_new_thread("create a network namespace", || {
            unshare(CloneFlags::CLONE_NEWNET)
                .map_err(|e| NetnsError::new("create a network namespace", e.into()))?;
            Self::current()
        })?
    }

    /// Every distinct namespace that can be found: of processes, under the directories where `ip netns` and
    /// Docker keep them, and bind-mounted anywhere. What vanishes or may not be opened meanwhile is left out.
    pub fn all() -> Vec<Self> {
        Self::each().collect()
    }

    /// As [`Netns::all`], one after the other: none is open longer than the caller needs it.
    pub fn each() -> impl Iterator<Item = Self> {
        let mut seen = BTreeSet::new();
        candidates().filter_map(move |path| {
            let id = NetnsId::of_path(&path).ok().filter(|id| !seen.contains(id))?;
            let netns = Self::open(&path).ok().filter(|netns| netns.id == id)?;
            seen.insert(id);
            Some(netns)
        })
    }

    /// The namespace with this identity, if it still lives and can be found (see [`Netns::all`]).
    pub fn find(id: NetnsId) -> Option<Self> {
        candidates()
            .filter(|path| NetnsId::of_path(path).is_ok_and(|found| found == id))
            .find_map(|path| Self::open(&path).ok().filter(|netns| netns.id == id))
    }

    /// Its identity.
    pub fn id(&self) -> NetnsId {
        self.id
    }

    /// Runs `f` on a short-lived thread inside the namespace and hands back its result; a panic in `f` goes
    /// on in the caller. Sockets and devices opened by `f` belong to the namespace for good; `/proc/sys/net`
    /// and `/proc/thread-self/net` show the namespace, `/sys/class/net` does not.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        on_new_thread("enter a network namespace", || {
            setns(self.fd.as_fd(), CloneFlags::CLONE_NEWNET)
                .map_err(|e| NetnsError::new("enter a network namespace", e.into()))?;
            Ok(f())
        })?
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl PartialEq for Netns {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Netns {}

/// A thread of its own, because a namespace is a property of a thread and must not leak into the next task.
fn on_new_thread<T: Send>(action: &'static str, f: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("netns".into())
            .spawn_scoped(scope, f)
            .map_err(|e| NetnsError::new(action, e))?;
        Ok(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

fn is_network_namespace(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: the request takes no argument and only reads the type of the file behind a live descriptor.
    let kind = unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE) };
    kind == libc::CLONE_NEWNET
}

/// Paths that may stand for a network namespace, likely ones first.
fn candidates() -> impl Iterator<Item = PathBuf> {
    let named = DIRECTORIES.into_iter().flat_map(entries);
    named.chain(mounted()).chain(processes().map(|pid| PathBuf::from(format!("/proc/{pid}/ns/net"))))
}

fn entries(dir: &str) -> Vec<PathBuf> {
    std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// The ids of all processes, in the order of the directory (ascending).
pub(crate) fn processes() -> impl Iterator<Item = u32> {
    let proc = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    proc.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Where network namespaces are mounted, by proc(5) mountinfo: `id parent dev root mount-point ... - type`.
pub(crate) fn mounted() -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
    table.lines().filter_map(mounted_netns).collect()
}

fn mounted_netns(line: &str) -> Option<PathBuf> {
    let mut fields = line.split(' ').skip(3);
    let (root, point) = (fields.next()?, fields.next()?);
    root.starts_with("net:[").then(|| PathBuf::from(unescape(point)))
}

/// Undoes the octal escapes of mountinfo: `\040` is a space.
fn unescape(field: &str) -> String {
    let mut out = String::with_capacity(field.len());
    let mut rest = field;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        out.push(code.map_or('\\', char::from));
        rest = &rest[at + if code.is_some() { 4 } else { 1 }..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_line_tells_its_namespace() {
        let line = "42 21 0:4 net:[4026532300] /run/netns/a\\040b rw shared:7 - nsfs nsfs rw";
        assert_eq!(mounted_netns(line), Some(PathBuf::from("/run/netns/a b")));
        assert_eq!(mounted_netns("42 21 0:4 mnt:[4026532300] /x rw - nsfs nsfs rw"), None);
        assert_eq!(mounted_netns("42 21"), None);
        assert_eq!(unescape("a\\9\\134b\\"), "a\\9\\b\\");
    }
}
