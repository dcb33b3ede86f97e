//! Namespaces for the tests of `io`: anonymous ones, so that tests run side by side and leave nothing behind.
//!
//! They need root on a kernel with network namespaces, and fail without.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "tests")]
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(unreachable_pub, reason = "a module of test files")]

use std::net::IpAddr;
use std::time::{Duration, Instant};

use engine::io::netlink::Netlink;
use engine::io::netns::Netns;
use engine::types::IpPrefix;

/// A new namespace with its loopback up.
pub fn namespace() -> Netns {
    let netns = Netns::create().expect("tests of io need root");
    let netlink = Netlink::open_in(&netns).unwrap();
    netlink.set_up(netlink.link("lo").unwrap().unwrap().index).unwrap();
    // Addresses are usable at once.
    sysctl(&netns, "net/ipv6/conf/all/accept_dad", "0");
    sysctl(&netns, "net/ipv6/conf/default/accept_dad", "0");
    netns
}

/// Two namespaces with a wire between `under0` and `under0`: 192.0.2.1 and .2 of a /24, fd00::1 and ::2 of a /64.
pub fn wired_pair() -> [Netns; 2] {
    let pair = [namespace(), namespace()];
    Netlink::open_in(&pair[0]).unwrap().add_veth("under0", "under0", Some(&pair[1])).unwrap();
    for (netns, last) in pair.iter().zip(["1", "2"]) {
        let netlink = Netlink::open_in(netns).unwrap();
        let link = netlink.link("under0").unwrap().unwrap().index;
        netlink.add_address(link, prefix(&format!("192.0.2.{last}"), 24)).unwrap();
        netlink.add_address(link, prefix(&format!("fd00::{last}"), 64)).unwrap();
        netlink.set_up(link).unwrap();
    }
    eventually("the addresses of the wire are usable", || {
        pair.iter().all(|netns| ipv6_is_usable(netns, "under0"))
    });
    pair
}

/// The link-local and another address are there, and duplicate detection is over, by the flag
/// `IFA_F_TENTATIVE` of `/proc/net/if_inet6`.
pub fn ipv6_is_usable(netns: &Netns, ifname: &str) -> bool {
    let table = netns.run(|| std::fs::read_to_string("/proc/thread-self/net/if_inet6")).unwrap().unwrap();
    let flags = table.lines().filter(|line| line.ends_with(ifname)).filter_map(|line| {
        let flags = line.split_whitespace().nth(4)?;
        u32::from_str_radix(flags, 16).ok()
    });
    let flags: Vec<_> = flags.collect();
    flags.len() == 2 && flags.iter().all(|flags| flags & 0x40 == 0)
}

pub fn prefix(addr: &str, len: u8) -> IpPrefix {
    IpPrefix { addr: addr.parse::<IpAddr>().unwrap(), len }
}

/// Writes a file below /proc/sys of the namespace.
pub fn sysctl(netns: &Netns, name: &str, value: &str) {
    let path = format!("/proc/sys/{name}");
    netns.run(|| std::fs::write(&path, value)).unwrap().unwrap_or_else(|e| panic!("{name}: {e}"));
}

/// Waits up to five seconds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(5), "not within five seconds: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A process that only lives in the namespace, as a container does; killed when dropped.
pub struct Container {
    process: std::process::Child,
    /// Where it lives.
    pub id: engine::io::netns::NetnsId,
}

impl Container {
    /// Starts a process in `netns`.
    pub fn start(netns: &Netns) -> Self {
        let sleep = || std::process::Command::new("sleep").arg("1000").spawn();
        Container { process: netns.run(sleep).unwrap().unwrap(), id: netns.id() }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}
