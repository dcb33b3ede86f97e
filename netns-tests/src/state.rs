//! The state directory of a host, and what may befall it.

use std::path::Path;

use anyhow::{Context, Result};

use crate::host::Host;
use crate::process::Tool;

/// A file system of its own under the state directory of a host. It goes with the topology.
#[derive(Debug)]
pub struct StateDisk<'host> {
    host: &'host Host,
}

impl Host {
    /// Gives the state directory a small file system of its own. Call it before the first launch.
    pub fn state_on_a_disk(&self, kib: u32) -> Result<StateDisk<'_>> {
        let directory = self.state_dir();
        std::fs::create_dir(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let options = format!("size={kib}k,mode=700");
        mount(&["-t", "tmpfs", "-o", &options, "none"], &directory)?;
        Ok(StateDisk { host: self })
    }

    /// Changes the bytes of a file of the state directory.
    pub fn damage(&self, file: &str, change: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        let path = self.state_dir().join(file);
        let mut bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        change(&mut bytes);
        std::fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))
    }
}

impl StateDisk<'_> {
    /// Leaves no room on it, until the next [`Self::make_room`].
    pub fn fill(&self) -> Result<()> {
        // The copy fails when there is no room left, which is its purpose.
        let filled = std::fs::File::open("/dev/zero")
            .and_then(|mut zeros| std::io::copy(&mut zeros, &mut std::fs::File::create(self.filler())?));
        match filled {
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => Ok(()),
            Err(error) => Err(error.into()),
            Ok(bytes) => anyhow::bail!("it took {bytes} bytes"),
        }
    }

    /// Makes room on it again.
    pub fn make_room(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.filler())?)
    }

    /// Lets nobody write there, or lets them again. Fails while a file there is open for writing.
    pub fn set_read_only(&self, read_only: bool) -> Result<()> {
        let options = if read_only { "remount,ro" } else { "remount,rw" };
        mount(&["-o", options], &self.host.state_dir())
    }

    fn filler(&self) -> std::path::PathBuf {
        self.host.state_dir().join("filler")
    }
}

fn mount(args: &[&str], at: &Path) -> Result<()> {
    Tool::new("mount").args(args).args([&*at.to_string_lossy()]).run().map(drop)
}
