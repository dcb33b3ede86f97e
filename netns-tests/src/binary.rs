//! The program under test.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Result, bail};

/// The `meshnet` binary: `MESHNET_BIN`, else the newest of `release/meshnet` and `debug/meshnet` in the
/// target directory this test was built into.
pub fn meshnet_binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("MESHNET_BIN") {
        let path = PathBuf::from(path);
        return if path.is_file() { Ok(path) } else { bail!("MESHNET_BIN: no file {}", path.display()) };
    }
    let executable = std::env::current_exe()?;
    let built = |target: &Path| {
        let profiles = ["release", "debug"].map(|profile| target.join(profile).join("meshnet"));
        profiles.into_iter().filter(|path| path.is_file()).max_by_key(|path| modified(path))
    };
    match executable.ancestors().skip(1).find_map(built) {
        Some(path) => Ok(path),
        None => {
            bail!("no meshnet binary beside {}: cargo build --release --bin meshnet", executable.display())
        }
    }
}

fn modified(path: &Path) -> SystemTime {
    path.metadata().and_then(|meta| meta.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
}
