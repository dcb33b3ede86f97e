//! Processes of the demo: this same executable, started again inside a namespace, that never outlives the demo.

#![allow(clippy::disallowed_types, reason = "output of processes goes to files")]

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use engine::io::netns::Netns;
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

use super::stop::Stop;

/// How long a process may take to end before it is killed.
const GRACE: Duration = Duration::from_secs(2);
/// How long a daemon may take to be ready.
const READY: Duration = Duration::from_secs(10);
/// How long a command may take.
const ANSWER: Duration = Duration::from_secs(20);

/// A child process; ended, at the latest, when this is dropped.
pub(crate) struct Process {
    child: Child,
}

/// Where the output of a process goes; its input is empty.
pub(crate) struct Output {
    out: Stdio,
    errors: Stdio,
    /// The socket that hears when a daemon is ready.
    notify: Option<PathBuf>,
}

impl Process {
    /// Starts this executable again inside `netns` with the arguments `words`; without any it waits to be ended, which
    /// makes the namespace one with a process in it, as a container's is.
    ///
    /// To be called on a thread that lives as long as the process shall: the kernel kills the process with it, which
    /// is what ends the demo's processes even if the demo itself is killed.
    fn start(netns: &Netns, words: &[OsString], output: Output) -> Result<Self> {
        let mut command = this_program()?;
        command.args(["demo", "--enter"]).arg(descriptor_path(netns)).arg("--").args(words);
        command.stdin(Stdio::null()).stdout(output.out).stderr(output.errors);
        match output.notify {
            Some(socket) => command.env("NOTIFY_SOCKET", socket),
            None => command.env_remove("NOTIFY_SOCKET"),
        };
        let child = command.spawn().context("cannot start a process of the demo")?;
        Ok(Self { child })
    }

    /// A process that does nothing.
    pub(crate) fn idle(netns: &Netns) -> Result<Self> {
        Self::start(netns, &[], Output { out: Stdio::null(), errors: Stdio::null(), notify: None })
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, once it has.
    fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Asks it to end.
    pub(crate) fn terminate(&self) {
        let pid = i32::try_from(self.child.id()).map(Pid::from_raw);
        // It may be gone already, which the wait in `drop` sees.
        let _gone = pid.map(|pid| kill(pid, Signal::SIGTERM));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.terminate();
        let start = Instant::now();
        while self.ended().is_none() && start.elapsed() < GRACE {
            thread::sleep(Duration::from_millis(1));
        }
        let _over = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A daemon of the demo.
pub(crate) struct Daemon {
    process: Process,
    netns: Netns,
    dir: PathBuf,
}

impl Daemon {
    /// `launch` with `words` inside `netns`, with its files under `dir`; returns when the daemon says that it is ready.
    pub(crate) fn launch(netns: &Netns, dir: &Path, words: &[&str], stop: &Stop) -> Result<Self> {
        let (log, notify) = (dir.join("log"), dir.join("notify"));
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        // An earlier daemon of this host has left its own.
        let _none = fs::remove_file(&notify);
        let socket = UnixDatagram::bind(&notify)
            .with_context(|| format!("cannot make the socket {}", notify.display()))?;
        let mut all: Vec<OsString> = ["launch", "--foreground", "--run-dir"].map(OsString::from).into();
        all.extend([dir.join("run").into(), "--state-dir".into(), dir.join("state").into()]);
        all.extend(words.iter().map(OsString::from));
        let errors = fs::OpenOptions::new().create(true).append(true).open(&log)?.into();
        let mut process =
            Process::start(netns, &all, Output { out: Stdio::null(), errors, notify: Some(notify) })?;
        wait_until_ready(&mut process, &socket, stop).with_context(|| {
            format!("the daemon does not become ready; its log ends with\n{}", tail(&log))
        })?;
        Ok(Self { process, netns: netns.clone(), dir: dir.to_owned() })
    }

    /// Runs a command of the command line on the daemon's host and returns what it printed.
    pub(crate) fn command(&self, words: &[&str], stop: &Stop) -> Result<String> {
        let shown = format!("meshnet {}", words.join(" "));
        let mut all: Vec<OsString> = words.iter().map(OsString::from).collect();
        all.extend(["--run-dir".into(), self.dir.join("run").into()]);
        let [mut out, mut errors] = [tempfile::tempfile_in(&self.dir)?, tempfile::tempfile_in(&self.dir)?];
        let sinks = Output { out: out.try_clone()?.into(), errors: errors.try_clone()?.into(), notify: None };
        let mut process = Process::start(&self.netns, &all, sinks)?;
        let start = Instant::now();
        let status = loop {
            if let Some(status) = process.ended() {
                break status;
            }
            stop.check()?;
            ensure!(start.elapsed() < ANSWER, "{shown:?} has no answer after {} s", ANSWER.as_secs());
            thread::sleep(Duration::from_millis(1));
        };
        ensure!(status.success(), "{shown:?} failed: {}", read_back(&mut errors)?);
        read_back(&mut out)
    }

    /// Asks it to end, without waiting.
    pub(crate) fn terminate(&self) {
        self.process.terminate();
    }

    /// Ends it as a crash would, at once and without a chance to put anything in order.
    pub(crate) fn crash(mut self) -> Result<()> {
        self.process.child.kill().context("cannot kill the daemon")?;
        self.process.child.wait().context("cannot wait for the daemon's end")?;
        Ok(())
    }
}

/// What a process has written to a file that it shares with this one.
fn read_back(file: &mut fs::File) -> Result<String> {
    let mut text = String::new();
    file.rewind()?;
    file.read_to_string(&mut text)?;
    Ok(text.trim().to_owned())
}

/// What a process of the demo does first: it binds its life to the demo's, enters the namespace behind `path`, and
/// becomes `meshnet` with `words`; without any it waits to be ended.
pub(crate) fn enter(path: &Path, words: &[OsString]) -> Result<ExitCode> {
    // First of all: should the demo be gone already, the path below is too.
    prctl::set_pdeathsig(Signal::SIGKILL).context("cannot bind this process to the demo")?;
    // The demo holds signals back, and its children start as it is.
    SigSet::empty().thread_set_mask().context("cannot let signals through")?;
    let netns = Netns::open(path)?;
    setns(netns.as_fd(), CloneFlags::CLONE_NEWNET).context("cannot enter the namespace")?;
    drop(netns);
    if words.is_empty() {
        loop {
            thread::park();
        }
    }
    Err(this_program()?.args(words).exec()).context("cannot become the daemon")
}

/// This executable, without settings of the caller that are meant for another daemon, and out of reach of the
/// terminal's Ctrl-C: the demo ends its processes itself.
fn this_program() -> Result<Command> {
    let path = std::env::current_exe().context("cannot find this executable")?;
    let mut command = Command::new(path);
    command.arg0("meshnet").process_group(0);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MESHNET_") {
            command.env_remove(name);
        }
    }
    Ok(command)
}

/// A path by which another process can open the namespace, as long as this one lives.
fn descriptor_path(netns: &Netns) -> PathBuf {
    PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), netns.as_fd().as_raw_fd()))
}

/// Waits for `READY=1` (sd_notify(3)).
fn wait_until_ready(process: &mut Process, socket: &UnixDatagram, stop: &Stop) -> Result<()> {
    let start = Instant::now();
    socket.set_read_timeout(Some(Duration::from_millis(20)))?;
    let mut message = [0; 4096];
    while start.elapsed() < READY {
        stop.check()?;
        match socket.recv(&mut message) {
            Ok(bytes) if message[..bytes].split(|byte| *byte == b'\n').any(|line| line == b"READY=1") => {
                return Ok(());
            }
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error).context("cannot hear from it"),
        }
        if let Some(status) = process.ended() {
            bail!("it ended: {status}");
        }
    }
    bail!("it was silent for {} s", READY.as_secs())
}

/// The last lines of a log.
fn tail(path: &Path) -> String {
    const LINES: usize = 3;
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_of_a_log_is_its_last_lines() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), (1..=20).map(|n| format!("{n}\n")).collect::<String>()).unwrap();
        assert_eq!(tail(file.path()).lines().collect::<Vec<_>>()[..2], ["18", "19"]);
        assert_eq!(tail(Path::new("/no/such/log")), "");
    }

    #[test]
    fn readiness_is_heard() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        sender.send_to(b"STATUS=starting\nREADY=1\n", &path).unwrap();
        let child = Command::new("/bin/sh").args(["-c", "sleep 10"]).spawn().unwrap();
        wait_until_ready(&mut Process { child }, &socket, &Stop::default()).unwrap();
    }

    #[test]
    fn a_process_that_ends_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        let child = Command::new("/bin/sh").args(["-c", "exit 3"]).spawn().unwrap();
        let error = wait_until_ready(&mut Process { child }, &socket, &Stop::default()).unwrap_err();
        assert_eq!(error.to_string(), "it ended: exit status: 3");
    }
}
