//! Telling when a namespace that we keep alive ourselves has lost its last other holder.
//!
//! A TAP descriptor that was opened inside a namespace pins it, and reading gives no error when the container
//! dies. So each watched namespace has a *witness*: a file in /proc or a mount that stands for it, such as the
//! namespace of the container's first process. A witness is looked at a few times a second, at the price of one
//! `stat`; only when it is gone, another is searched for: first among mounts, then processes, then
//! threads and open descriptors. Without any, the namespace is dead but for us.

#![allow(clippy::disallowed_methods, reason = "io: threads, clocks and /proc")]

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvError, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use super::netns::{NetnsId, mounted, processes};

/// How often the witnesses are looked at; the delay of the news is this and one search.
const INTERVAL: Duration = Duration::from_millis(200);

/// Watches namespaces from a thread of its own, which ends when this is dropped (elsewhere than in the callback).
#[derive(Debug)]
pub struct Watcher {
    commands: Option<Sender<Command>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Command {
    Add(NetnsId),
    Remove(NetnsId),
}

impl Watcher {
    /// Starts the thread. It calls `on_death` once for each watched namespace that nobody outside this process
    /// holds any more, and then watches it no longer.
    pub fn start(on_death: impl FnMut(NetnsId) + Send + 'static) -> io::Result<Self> {
        let (commands, receiver) = mpsc::channel();
        let thread =
            std::thread::Builder::new().name("netns-watch".into()).spawn(move || run(&receiver, on_death))?;
        Ok(Watcher { commands: Some(commands), thread: Some(thread) })
    }

    /// Watches a namespace; one that nobody holds is told at once. Adding one twice changes nothing.
    pub fn add(&self, netns: NetnsId) {
        self.tell(Command::Add(netns));
    }

    /// Watches a namespace no longer.
    pub fn remove(&self, netns: NetnsId) {
        self.tell(Command::Remove(netns));
    }

    fn tell(&self, command: Command) {
        // The thread ends before this only if the callback panicked, and then there is nobody to tell.
        let _ = self.commands.as_ref().map(|commands| commands.send(command));
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        drop(self.commands.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn run(commands: &Receiver<Command>, mut on_death: impl FnMut(NetnsId)) {
    let mut watched: BTreeMap<NetnsId, PathBuf> = BTreeMap::new();
    loop {
        match next(commands, watched.is_empty()) {
            Ok(Some(Command::Add(netns))) => _ = watched.entry(netns).or_default(),
            Ok(Some(Command::Remove(netns))) => _ = watched.remove(&netns),
            Ok(None) => {}
            Err(RecvError) => return,
        }
        watched.retain(|netns, witness| {
            let is_held = stands_for(witness, *netns) || search(*netns, witness);
            if !is_held {
                on_death(*netns);
            }
            is_held
        });
    }
}

/// The next command; None when it is time to look; an error when the watcher is dropped. With nothing to watch
/// it sleeps for as long as it takes.
fn next(commands: &Receiver<Command>, idle: bool) -> Result<Option<Command>, RecvError> {
    if idle {
        return commands.recv().map(Some);
    }
    match commands.recv_timeout(INTERVAL) {
        Ok(command) => Ok(Some(command)),
        Err(RecvTimeoutError::Timeout) => Ok(None),
        Err(RecvTimeoutError::Disconnected) => Err(RecvError),
    }
}

fn stands_for(path: &Path, netns: NetnsId) -> bool {
    NetnsId::of_path(path).is_ok_and(|found| found == netns)
}

/// Looks for a new witness outside this process.
fn search(netns: NetnsId, witness: &mut PathBuf) -> bool {
    let own = std::process::id();
    let others = || processes().filter(move |pid| *pid != own);
    let first = mounted().into_iter().chain(others().map(|pid| PathBuf::from(format!("/proc/{pid}/ns/net"))));
    let later = others().flat_map(move |pid| threads(pid).chain(descriptors(pid, netns.ino)));
    let found = first.chain(later).find(|path| stands_for(path, netns));
    found.map(|path| *witness = path).is_some()
}

fn threads(pid: u32) -> impl Iterator<Item = PathBuf> {
    entries(&format!("/proc/{pid}/task")).map(|thread| thread.join("ns/net"))
}

/// The descriptors of a process whose inode number is right. They are not followed to find out: one on a dead
/// network file system would hang. `ino` is in proc(5) fdinfo since Linux 5.14.
fn descriptors(pid: u32, ino: u64) -> impl Iterator<Item = PathBuf> {
    let wanted = format!("ino:\t{ino}");
    let all = entries(&format!("/proc/{pid}/fdinfo"));
    let found = all.filter(move |path| {
        let about = std::fs::read_to_string(path).unwrap_or_default();
        about.lines().any(|line| line == wanted)
    });
    found.filter_map(move |path| Some(Path::new(&format!("/proc/{pid}/fd")).join(path.file_name()?)))
}

fn entries(dir: &str) -> impl Iterator<Item = PathBuf> + use<> {
    std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path())
}
