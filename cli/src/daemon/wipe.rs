//! Removing what a host wrote of itself: keys, state, ports. Nothing else in the directory is touched.

use std::io;
use std::path::{Path, PathBuf};

use engine::io::device;
use engine::io::netns::Netns;
use engine::io::nftables;

use super::pointing;
use super::ports::{Ports, Source};
use crate::failure::{Failure, code};

/// Files of ours in a state directory, whole names and beginnings of names.
const NAMES: [&str; 15] = [
    "identity",
    "identity.new",
    "noise",
    "noise.new",
    "secrets",
    "secrets.new",
    "state",
    "state.new",
    "ports",
    "ports.new",
    "resolvers",
    "resolvers.new",
    "lock",
    "meshnet.log",
    "meshnet.log.1",
];
const BEGINNINGS: [&str; 6] = [
    "identity.corrupt-",
    "noise.corrupt-",
    "secrets.corrupt-",
    "state.corrupt-",
    "ports.corrupt-",
    "resolvers.corrupt-",
];

/// Removes the files of a state directory, and the directory if nothing else is in it. One that is not there is fine. True:
/// there was something.
pub(crate) fn wipe(dir: &Path) -> io::Result<bool> {
    let files = ours(dir)?;
    for file in &files {
        match std::fs::remove_file(file) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    // Not empty: somebody keeps something else there, or a directory that is mounted cannot go.
    let _ = std::fs::remove_dir(dir);
    Ok(!files.is_empty())
}

/// The files of ours in a directory.
pub(crate) fn ours(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if NAMES.contains(&&*name) || BEGINNINGS.iter().any(|beginning| name.starts_with(beginning)) {
            files.push(entry.path());
        }
    }
    Ok(files)
}

/// Removes the interfaces of the ports that a state directory names, and puts their containers' resolv.conf back; no daemon
/// may be running on it.
pub(crate) fn remove_devices(dir: &Path) -> Result<(), Failure> {
    pointing::put_back(dir)?;
    let (ports, _) = Ports::load(dir)
        .map_err(|e| Failure::new(code::STATE_DIR_UNUSABLE, format!("the ports cannot be read: {e}")))?;
    let ids: Vec<_> = ports.all().map(|intent| intent.port).collect();
    let all = if ids.is_empty() { Vec::new() } else { device::find(&ids) };
    for found in all {
        remove(&found.netns, &found)?;
    }
    if ports.all().any(|intent| intent.source == Source::Host) {
        nftables::replace(&[]).map_err(|e| Failure::new(code::RULES_FAILED, e.to_string()))?;
    }
    Ok(())
}

fn remove(netns: &Netns, found: &device::Found) -> Result<(), Failure> {
    device::destroy(netns, found.port)
        .map_err(|e| Failure::new(code::DEVICE_FAILED, format!("{} cannot be removed: {e}", found.ifname)))
}

/// The directory could not be wiped.
pub(crate) fn failure(dir: &Path, error: &io::Error) -> Failure {
    let message = format!("{} cannot be removed: {error}", dir.display());
    Failure::new(code::STATE_DIR_UNUSABLE, message).hint("remove it by hand: this host has left its cluster")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_ours_goes() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("meshnet");
        assert!(!wipe(&state).unwrap());
        std::fs::create_dir(&state).unwrap();
        let ours = [
            "identity",
            "noise",
            "secrets",
            "state",
            "state.corrupt-1",
            "ports",
            "lock",
            "meshnet.log",
            "meshnet.log.1",
        ];
        for name in ours.into_iter().chain(["notes", "state-of-mind"]) {
            std::fs::write(state.join(name), "x").unwrap();
        }
        assert!(wipe(&state).unwrap());
        let mut left: Vec<_> = std::fs::read_dir(&state).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["notes", "state-of-mind"]);
        std::fs::remove_file(state.join("notes")).unwrap();
        std::fs::remove_file(state.join("state-of-mind")).unwrap();
        assert!(!wipe(&state).unwrap());
        assert!(!state.exists(), "an empty directory goes too");
    }
}
