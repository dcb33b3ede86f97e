//! What a killed run left behind: found by the process id in its names, and removed.

use std::path::{Path, PathBuf};
use std::sync::Once;

use crate::names;
use crate::netns::{Namespace, all_pids};
use crate::process::{Tool, kill_all};

/// Removes the namespaces, processes, mounts and directories of runs whose process is gone.
///
/// Done once per process. A failure is left to the next run: two sweeps may race, and nothing here
/// belongs to the caller.
pub fn sweep() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Engines and daemons first: they would go on writing into their directories.
        for path in entries(Path::new("/run/netns")).into_iter().filter(|path| is_orphan(path)) {
            remove_namespace(&path);
        }
        for directory in entries(&std::env::temp_dir()).into_iter().filter(|path| is_orphan(path)) {
            remove_directory(&directory);
        }
    });
}

/// Ends every process in namespaces mounted below `directory`, unmounts everything there and removes it.
pub(crate) fn remove_directory(directory: &Path) {
    let mounts = mounts_below(directory);
    for mount in &mounts {
        kill_all(&pids_in(mount));
    }
    for mount in mounts.iter().rev() {
        // Lazily: what still uses it lets go when it ends.
        let _ = Tool::new("umount").args(["-l", &mount.to_string_lossy()]).run();
    }
    let _ = std::fs::remove_dir_all(directory);
}

fn remove_namespace(path: &Path) {
    kill_all(&pids_in(path));
    if let Some(name) = path.file_name() {
        let _ = Tool::new("ip").args(["netns", "delete", &name.to_string_lossy()]).run();
        let _ = std::fs::remove_dir_all(Path::new("/etc/netns").join(name));
    }
}

fn pids_in(path: &Path) -> Vec<u32> {
    use std::os::unix::fs::MetadataExt;
    let Ok(inode) = std::fs::metadata(path).map(|meta| meta.ino()) else { return Vec::new() };
    all_pids().into_iter().filter(|pid| Namespace::of(*pid).inode().is_ok_and(|it| it == inode)).collect()
}

fn mounts_below(directory: &Path) -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .map(PathBuf::from)
        .filter(|path| path.starts_with(directory))
        .collect()
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(directory)
        .map(|all| all.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default()
}

fn is_orphan(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(names::is_orphan)
}
