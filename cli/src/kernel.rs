//! What a bug report tells of the machine: its kernel, its memory, its disk, its addresses and routes.

use std::fs;
use std::path::Path;

use engine::io::netlink::{Link, Netlink};
use nix::sys::statvfs::statvfs;

use crate::shape::{HostAddress, HostRoute, Kernel, StateDisk};

/// Settings of the kernel that decide how frames travel.
const SETTINGS: [&str; 8] = [
    "kernel/osrelease",
    "net/core/rmem_max",
    "net/core/wmem_max",
    "net/core/netdev_max_backlog",
    "net/core/bpf_jit_enable",
    "net/ipv4/ip_forward",
    "net/ipv4/conf/all/rp_filter",
    "net/ipv6/conf/all/disable_ipv6",
];

/// The facts as the calling thread's network namespace shows them. What cannot be read is left out.
pub(crate) fn facts(state_dir: &Path) -> Kernel {
    let setting = |name: &&str| Some(((*name).to_owned(), line(&format!("/proc/sys/{name}"))?));
    let netlink = Netlink::open().ok();
    let links = netlink.as_ref().and_then(|netlink| netlink.links().ok()).unwrap_or_default();
    Kernel {
        version: line("/proc/version").unwrap_or_default(),
        system: value("/etc/os-release", "PRETTY_NAME=").map(|name| name.trim_matches('"').to_owned()),
        architecture: std::env::consts::ARCH.to_owned(),
        processors: std::thread::available_parallelism().map_or(0, usize::from),
        processor: value("/proc/cpuinfo", "model name")
            .map(|text| text.trim_start_matches([' ', '\t', ':']).to_owned()),
        memory_kib: value("/proc/meminfo", "MemTotal:").and_then(|text| number(&text)),
        memory_available_kib: value("/proc/meminfo", "MemAvailable:").and_then(|text| number(&text)),
        settings: SETTINGS.iter().filter_map(setting).collect(),
        state_disk: disk(state_dir),
        addresses: netlink.as_ref().map(|netlink| addresses(netlink, &links)).unwrap_or_default(),
        routes: netlink.as_ref().map(|netlink| routes(netlink, &links)).unwrap_or_default(),
    }
}

fn line(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// What follows `key` on the first line that begins so.
fn value(path: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key)).map(|rest| rest.trim().to_owned())
}

fn number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

fn disk(directory: &Path) -> Option<StateDisk> {
    let stat = statvfs(directory).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.fragment_size());
    Some(StateDisk {
        size_bytes: bytes(stat.blocks()),
        available_bytes: bytes(stat.blocks_available()),
        read_only: stat.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY),
    })
}

fn name(links: &[Link], index: Option<u32>) -> String {
    links.iter().find(|link| Some(link.index) == index).map_or_else(String::new, |link| link.name.clone())
}

fn addresses(netlink: &Netlink, links: &[Link]) -> Vec<HostAddress> {
    let all = netlink.addresses().unwrap_or_default().into_iter();
    let mut all: Vec<HostAddress> = all
        .map(|a| HostAddress { interface: name(links, Some(a.index)), address: a.prefix.to_string() })
        .collect();
    all.sort();
    all
}

fn routes(netlink: &Netlink, links: &[Link]) -> Vec<HostRoute> {
    let all = netlink.routes().unwrap_or_default().into_iter();
    let mut all: Vec<HostRoute> = all
        .map(|r| HostRoute {
            destination: r.destination.to_string(),
            gateway: r.gateway,
            interface: name(links, r.index),
        })
        .collect();
    all.sort();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_kernel_and_a_disk() {
        let facts = facts(Path::new("/"));
        assert!(facts.version.starts_with("Linux version"), "{facts:?}");
        assert!(facts.processors > 0 && facts.memory_kib > Some(0), "{facts:?}");
        assert!(facts.settings.contains_key("kernel/osrelease"), "{facts:?}");
        assert!(facts.state_disk.is_some_and(|disk| disk.size_bytes > 0));
        assert!(facts.addresses.iter().any(|a| a.interface == "lo"), "{:?}", facts.addresses);
    }
}
