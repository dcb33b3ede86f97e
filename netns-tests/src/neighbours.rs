//! The kernel's table of neighbours, which all namespaces of a machine share.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// From the softest limit to the hard one (Documentation/networking/ip-sysctl.rst, `neigh/default/gc_thresh1`).
const LIMITS: [&str; 3] = ["gc_thresh1", "gc_thresh2", "gc_thresh3"];

/// Room for this many neighbours of all hosts together, as long as it is held: where a hundred hosts know each other, the
/// usual 1024 are too few by far, and packets are lost.
pub struct NeighbourRoom {
    before: Vec<(PathBuf, String)>,
}

impl NeighbourRoom {
    /// Raises the limits that are lower; every one is put back when this is dropped.
    ///
    /// # Errors
    /// The limits cannot be read or written.
    pub fn for_hosts(hosts: u8) -> Result<Self> {
        let entries = 2 * u32::from(hosts) * u32::from(hosts);
        let mut room = NeighbourRoom { before: Vec::new() };
        // The hard limit first: the others must not be above it.
        for name in LIMITS.iter().rev() {
            let path = Path::new("/proc/sys/net/ipv4/neigh/default").join(name);
            let now = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            if now.trim().parse::<u32>()? < entries {
                std::fs::write(&path, entries.to_string()).with_context(|| path.display().to_string())?;
                room.before.push((path, now));
            }
        }
        Ok(room)
    }
}

impl Drop for NeighbourRoom {
    fn drop(&mut self) {
        for (path, before) in self.before.iter().rev() {
            // Too much room harms nobody.
            let _ = std::fs::write(path, before);
        }
    }
}
