//! One daemon per run directory: a lock file that says who holds it, and waiting for that process to end.

use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Gid;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Name of the lock in the run directory.
const LOCK: &str = "lock";
/// Whoever may open the file may lock it, and so keep a daemon from starting.
const MODE: u32 = 0o640;
/// How often a lock that changes hands is tried again.
const RETRY: Duration = Duration::from_millis(20);

/// A process, told apart from a later one with the same number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Holder {
    /// Its number.
    pub(crate) pid: u32,
    /// When it started, in clock ticks since boot (proc_pid_stat(5), field 22).
    pub(crate) start: u64,
}

impl Holder {
    /// The calling process.
    fn current() -> io::Result<Self> {
        let pid = std::process::id();
        let start = start_time(pid).ok_or_else(|| io::Error::other("/proc is not mounted"))?;
        Ok(Holder { pid, start })
    }

    fn parse(text: &str) -> Option<Self> {
        let (pid, start) = text.trim().split_once(' ')?;
        Some(Holder { pid: pid.parse().ok()?, start: start.parse().ok()? })
    }

    /// A handle on the process, or `None` when it is gone.
    pub(crate) fn open(self) -> Option<Process> {
        let pid = Pid::from_raw(i32::try_from(self.pid).ok()?)?;
        let fd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // Opened first, compared second: the number cannot change hands in between.
        (start_time(self.pid) == Some(self.start)).then_some(Process { fd })
    }
}

/// A running process, held by a descriptor that stays its own.
#[derive(Debug)]
pub(crate) struct Process {
    fd: OwnedFd,
}

impl Process {
    /// Waits until the process has ended, all its descriptors closed; false when `limit` passes first.
    pub(crate) async fn ended(&self, limit: Duration) -> io::Result<bool> {
        let fd = self.fd.try_clone()?;
        tokio::task::spawn_blocking(move || poll_ended(&fd, limit)).await.map_err(io::Error::other)?
    }

    /// Asks the process to end in good order.
    pub(crate) fn terminate(&self) -> io::Result<()> {
        pidfd_send_signal(&self.fd, Signal::TERM).map_err(io::Error::from)
    }
}

/// The descriptor of a process is readable once the process has ended (pidfd_open(2)).
fn poll_ended(fd: &OwnedFd, limit: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// When the process `pid` started, in clock ticks since boot; `None` when there is no such process.
pub(crate) fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the command in parentheses, and may contain anything: the fields after its end are safe.
    let (_, after) = stat.rsplit_once(')')?;
    after.split_whitespace().nth(19)?.parse().ok()
}

/// The lock, held. Its file says by whom.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
    path: PathBuf,
    previous: Option<Holder>,
}

impl Lock {
    /// Takes the lock of `run_dir`, or says who has it.
    pub(crate) fn take(run_dir: &Path) -> io::Result<Result<Lock, Option<Holder>>> {
        let path = run_dir.join(LOCK);
        loop {
            let mut file = open(&path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(Err(read_holder(&mut file))),
                Err(TryLockError::Error(e)) => return Err(e),
            }
            if is_current(&file, &path)? {
                let previous = read_holder(&mut file);
                write_holder(&mut file)?;
                file.set_permissions(Permissions::from_mode(MODE))?;
                return Ok(Ok(Lock { file, path, previous }));
            }
        }
    }

    /// Takes the lock of `run_dir`, waiting up to `limit` for a holder that is about to end.
    ///
    /// The kernel gives a lock back before the dying process has closed everything else, so the process
    /// itself is awaited: its devices and sockets are free afterwards.
    pub(crate) async fn take_within(
        run_dir: &Path,
        limit: Duration,
    ) -> io::Result<Result<Lock, Option<Holder>>> {
        let deadline = Instant::now() + limit;
        loop {
            match Lock::take(run_dir)? {
                Err(holder) if Instant::now() < deadline => {
                    if let Some(process) = holder.and_then(Holder::open) {
                        process.ended(deadline.saturating_duration_since(Instant::now())).await?;
                    }
                    tokio::time::sleep(RETRY).await;
                }
                Err(holder) => return Ok(Err(holder)),
                Ok(lock) => {
                    lock.previous_ended(limit).await?;
                    return Ok(Ok(lock));
                }
            }
        }
    }

    async fn previous_ended(&self, limit: Duration) -> io::Result<()> {
        let others = self.previous.filter(|holder| holder.pid != std::process::id());
        match others.and_then(Holder::open) {
            Some(process) => process.ended(limit).await.map(drop),
            None => Ok(()),
        }
    }

    /// Who wrote the lock of `run_dir` last, and whether it is held now.
    pub(crate) fn look(run_dir: &Path) -> io::Result<(Option<Holder>, bool)> {
        let mut file = match File::open(run_dir.join(LOCK)) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((None, false)),
            Err(e) => return Err(e),
        };
        let holder = read_holder(&mut file);
        match file.try_lock_shared() {
            Ok(()) => Ok((holder, false)),
            Err(TryLockError::WouldBlock) => Ok((holder, true)),
            Err(TryLockError::Error(e)) => Err(e),
        }
    }

    /// Lets the members of a group see who holds it, and whether.
    pub(crate) fn give_to(&self, group: Option<Gid>) -> io::Result<()> {
        fchown(&self.file, None, group.map(Gid::as_raw))
    }

    /// Gives the lock back: the file goes first, so that nobody locks one that is about to vanish unseen.
    pub(crate) fn release(self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }
}

/// A name that somebody made lead elsewhere is not followed.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(MODE);
    options.custom_flags(OFlag::O_NOFOLLOW.bits()).open(path)
}

/// True when `path` still leads to `file`: its last holder may have removed it between our open and our lock.
fn is_current(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

fn read_holder(file: &mut File) -> Option<Holder> {
    let mut text = String::new();
    file.rewind().and_then(|()| file.read_to_string(&mut text)).ok()?;
    Holder::parse(&text)
}

fn write_holder(file: &mut File) -> io::Result<()> {
    let Holder { pid, start } = Holder::current()?;
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{pid} {start}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_is_held_once_and_taken_over_when_stale() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Lock::look(dir.path()).unwrap(), (None, false));
        std::fs::write(dir.path().join(LOCK), "4711 1\n").unwrap();
        let lock = Lock::take(dir.path()).unwrap().unwrap();
        let holder = Lock::take(dir.path()).unwrap().unwrap_err().unwrap();
        assert_eq!(holder, Holder::current().unwrap());
        assert_eq!(Lock::look(dir.path()).unwrap(), (Some(holder), true));
        lock.release().unwrap();
        assert!(!dir.path().join(LOCK).exists());
        assert!(Lock::take(dir.path()).unwrap().is_ok());
    }

    #[test]
    fn garbage_in_the_lock_file_names_nobody() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(LOCK), "\u{0}\u{0}").unwrap();
        assert_eq!(Lock::look(dir.path()).unwrap(), (None, false));
        assert_eq!(Holder::parse("12"), None);
    }

    #[tokio::test]
    async fn a_process_is_awaited_and_never_taken_for_another() {
        let mut child = std::process::Command::new("sleep").arg("30").spawn().unwrap();
        let pid = child.id();
        let start = start_time(pid).unwrap();
        assert!(Holder { pid, start: start + 1 }.open().is_none());
        let process = Holder { pid, start }.open().unwrap();
        assert!(!process.ended(Duration::from_millis(10)).await.unwrap());
        process.terminate().unwrap();
        assert!(process.ended(Duration::from_secs(10)).await.unwrap());
        child.wait().unwrap();
        assert!(Holder { pid, start }.open().is_none());
    }
}
