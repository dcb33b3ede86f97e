//! Telling when a namespace that we keep alive ourselves has lost its last other holder.
//!
//! A TAP descriptor that was opened inside a namespace pins it, and reading gives no error when the container
//! dies. So each watched namespace has a *witness*: a file in /proc or a mount that stands for it, such as the
//! namespace of the container's first process. A witness is looked at a few times a second, at the price of one
//! `stat`; only when it is gone, another is searched for: first among mounts, then processes, then
//! threads and open descriptors. Without any, the namespace is dead but for us.

#![allow(clippy::disallowed_methods, reason = "io: threads, clocks and /proc")]

use std::collections::{BTreeMap, BTreeSet};
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
        let unseen = |(netns, witness): (&NetnsId, &PathBuf)| (id(witness) != Some(*netns)).then_some(*netns);
        let mut lost: BTreeSet<NetnsId> = watched.iter().filter_map(unseen).collect();
        // Twice, because a process that ends and leaves a child may escape a reading of the list.
        for _ in 0..2 {
            search(&mut lost, |netns, witness| _ = watched.insert(netns, witness));
        }
        for netns in lost {
            watched.remove(&netns);
            on_death(netns);
        }
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

fn id(path: &Path) -> Option<NetnsId> {
    NetnsId::of_path(path).ok()
}

/// Looks for witnesses of the `lost` namespaces outside this process, in one go for all, and takes those with
/// one off the list.
fn search(lost: &mut BTreeSet<NetnsId>, mut found: impl FnMut(NetnsId, PathBuf)) {
    if lost.is_empty() {
        return;
    }
    let own = std::process::id();
    let others = || processes().filter(move |pid| *pid != own);
    let inodes: BTreeSet<u64> = lost.iter().map(|netns| netns.ino).collect();
    let likely =
        mounted().into_iter().chain(others().map(|pid| PathBuf::from(format!("/proc/{pid}/ns/net"))));
    let unlikely = others().flat_map(|pid| threads(pid).chain(descriptors(pid, &inodes)));
    for path in likely.chain(unlikely) {
        if let Some(netns) = id(&path).filter(|netns| lost.remove(netns)) {
            found(netns, path);
            if lost.is_empty() {
                return;
            }
        }
    }
}

fn threads(pid: u32) -> impl Iterator<Item = PathBuf> {
    entries(&format!("/proc/{pid}/task")).map(|thread| thread.join("ns/net"))
}

/// The descriptors of a process with one of these inode numbers. They are not followed to find out: one on a
/// dead network file system would hang. `ino` is in proc(5) fdinfo since Linux 5.14.
fn descriptors(pid: u32, inodes: &BTreeSet<u64>) -> impl Iterator<Item = PathBuf> {
    let all = entries(&format!("/proc/{pid}/fdinfo"));
    let found = all.filter(|path| inode(path).is_some_and(|ino| inodes.contains(&ino)));
    found.filter_map(move |path| Some(Path::new(&format!("/proc/{pid}/fd")).join(path.file_name()?)))
}

fn inode(fdinfo: &Path) -> Option<u64> {
    let about = std::fs::read_to_string(fdinfo).ok()?;
    about.lines().find_map(|line| line.strip_prefix("ino:"))?.trim().parse().ok()
}

fn entries(dir: &str) -> impl Iterator<Item = PathBuf> + use<> {
    std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path())
}
