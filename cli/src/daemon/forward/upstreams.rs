//! The name servers of this host, as its resolv.conf(5) has them at this moment.

use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::resolver::conf;

/// What tells one state of a file from another: inode, length and time of change.
type Mark = (u64, u64, i64, i64);

/// The file, and what it said when it was last read.
#[derive(Debug)]
pub(super) struct Upstreams {
    path: PathBuf,
    mark: Option<Mark>,
    servers: Vec<IpAddr>,
}

impl Upstreams {
    pub(super) fn new(path: &Path) -> Self {
        Upstreams { path: path.to_owned(), mark: None, servers: Vec::new() }
    }

    /// The servers, and whether they are others than at the last time.
    pub(super) fn servers(&mut self) -> (Vec<IpAddr>, bool) {
        let mark = std::fs::metadata(&self.path)
            .ok()
            .map(|meta| (meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()));
        if mark.is_some() && mark == self.mark {
            return (self.servers.clone(), false);
        }
        // A file that cannot be read names nobody.
        let servers = conf::servers(&std::fs::read_to_string(&self.path).unwrap_or_default());
        let changed = servers != self.servers;
        (self.mark, self.servers) = (mark, servers);
        (self.servers.clone(), changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        let mut upstreams = Upstreams::new(&path);
        assert_eq!(upstreams.servers(), (Vec::new(), false));
        std::fs::write(&path, "nameserver 192.0.2.1\n").unwrap();
        let first: Vec<IpAddr> = vec![[192, 0, 2, 1].into()];
        assert_eq!(upstreams.servers(), (first.clone(), true));
        assert_eq!(upstreams.servers(), (first, false));
        // Put in its place, as most programs do.
        std::fs::write(dir.path().join("new"), "nameserver 192.0.2.2\n").unwrap();
        std::fs::rename(dir.path().join("new"), &path).unwrap();
        assert_eq!(upstreams.servers(), (vec![[192, 0, 2, 2].into()], true));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(upstreams.servers(), (Vec::new(), true));
    }
}
