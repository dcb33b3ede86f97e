//! Who holds a UDP port of this namespace, as far as /proc and netlink tell.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "io: reads /proc")]

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use crate::io::netns::processes;

/// Who holds a UDP port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Holder {
    /// A process.
    Process {
        /// Its id.
        pid: u32,
        /// Its command name, at most 15 bytes (proc(5) `comm`).
        command: String,
    },
    /// No process that can be seen has the socket open: as for a VXLAN device, whose socket is the kernel's.
    Kernel,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holder::Process { pid, command } => write!(f, "process {pid} ({command})"),
            Holder::Kernel => write!(f, "the kernel or a hidden process, perhaps a VXLAN device"),
        }
    }
}

/// Who holds a UDP port in the namespace of the calling thread; None when nobody seems to. Walks through the
/// descriptors of all processes: for error messages only.
pub fn port_holder(port: u16) -> Option<Holder> {
    let inodes: BTreeSet<u64> = ["/proc/thread-self/net/udp", "/proc/thread-self/net/udp6"]
        .iter()
        .flat_map(|table| {
            let table = std::fs::read_to_string(table).unwrap_or_default();
            table.lines().filter_map(|line| socket_on(line, port)).collect::<Vec<_>>()
        })
        .collect();
    if inodes.is_empty() {
        return None;
    }
    let pid = processes().find(|pid| holds_any(*pid, &inodes));
    Some(pid.map_or(Holder::Kernel, |pid| Holder::Process { pid, command: command_of(pid) }))
}

/// The socket inode of a line of proc(5) net/udp, if its local port is `port`:
/// `sl local:port remote:port st queues timer retransmits uid timeout inode ...`.
fn socket_on(line: &str, port: u16) -> Option<u64> {
    let mut fields = line.split_whitespace();
    let (_, local_port) = fields.nth(1)?.rsplit_once(':')?;
    (u16::from_str_radix(local_port, 16).ok()? == port).then(|| fields.nth(7)?.parse().ok())?
}

fn holds_any(pid: u32, inodes: &BTreeSet<u64>) -> bool {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let mut targets = descriptors.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    targets.any(|target| socket_inode(&target).is_some_and(|inode| inodes.contains(&inode)))
}

/// The inode in a link such as `socket:[12345]`.
fn socket_inode(target: &Path) -> Option<u64> {
    target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

fn command_of(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_socket_table_tells_port_and_inode() {
        let line = "  123: 00000000:12B5 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 98765 2 0 0";
        assert_eq!(socket_on(line, 4789), Some(98765));
        assert_eq!(socket_on(line, 4790), None);
        assert_eq!(socket_on("  sl  local_address rem_address   st", 4789), None);
        assert_eq!(socket_inode(Path::new("socket:[98765]")), Some(98765));
        assert_eq!(socket_inode(Path::new("/dev/null")), None);
    }
}
