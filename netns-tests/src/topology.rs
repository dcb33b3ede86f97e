//! A few hosts on one underlay, with everything that belongs to them.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::host::Host;
use crate::leftovers::{remove_directory, sweep};
use crate::names;
use crate::netns::Namespace;
use crate::wire::Wire;

/// The name of every host's underlay interface.
pub(crate) const UNDERLAY: &str = "eth0";

/// What the tests call, and the Debian package that has it.
const TOOLS: [(&str, &str); 10] = [
    ("ip", "iproute2"),
    ("bridge", "iproute2"),
    ("ping", "iputils-ping"),
    ("iperf3", "iperf3"),
    ("tcpdump", "tcpdump"),
    ("nft", "nftables"),
    ("ethtool", "ethtool"),
    ("dig", "dnsutils"),
    ("perl", "perl-base"),
    ("strace", "strace"),
];

/// Hosts and the wires between them. Two hosts are joined by one veth, more by a bridge.
///
/// Dropping it kills what runs in its namespaces, and removes them and its directory. Declare it before
/// whatever lives in it, so that it goes last.
#[derive(Debug)]
pub struct Topology {
    promise: String,
    name: String,
    directory: PathBuf,
    wire: Wire,
    mtu: u16,
    bridged: bool,
    switch: Option<Namespace>,
    hosts: Vec<Host>,
    quiet: bool,
}

impl Topology {
    /// An empty topology; `promise` says what the test is about. Fails without root or without a tool.
    pub fn new(promise: &str) -> Result<Self> {
        ensure!(nix::unistd::geteuid().is_root(), "these tests make network namespaces: run them as root");
        TOOLS.iter().try_for_each(|(tool, package)| require(tool, package))?;
        sweep();
        let name = names::unique();
        let directory = std::env::temp_dir().join(&name);
        std::fs::create_dir(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        Ok(Topology {
            promise: promise.to_owned(),
            name,
            directory,
            wire: Wire::Veth,
            mtu: 1500,
            bridged: false,
            switch: None,
            hosts: Vec::new(),
            quiet: false,
        })
    }

    /// Chooses the wire of the hosts that are added next.
    pub fn wire(mut self, wire: Wire) -> Self {
        self.wire = wire;
        self
    }

    /// Chooses the underlay MTU, in bytes, of the hosts that are added next.
    pub fn mtu(mut self, mtu: u16) -> Self {
        self.mtu = mtu;
        self
    }

    /// Joins two hosts by a bridge too.
    pub fn bridged(mut self) -> Self {
        self.bridged = true;
        self
    }

    /// Adds the hosts `node01`, `node02`, ... Call it once.
    pub fn hosts(mut self, count: u8) -> Result<Self> {
        for number in 1..=count {
            let namespace = Namespace::create(&format!("{}-node{number:02}", self.name))?;
            self.hosts.push(Host::new(number, namespace, &self.directory)?);
        }
        if count == 2 && !self.bridged {
            self.join_directly()?
        } else {
            self.join_by_bridge()?
        }
        self.hosts.iter().try_for_each(|host| self.address(host))?;
        Ok(self)
    }

    /// Says nothing at its end: for whoever is no test, and has no doubt left.
    pub fn quiet(mut self) -> Self {
        self.quiet = true;
        self
    }

    /// The host of this index, from 0: `host(0)` is `node01`.
    ///
    /// # Panics
    /// When there are not so many.
    pub fn host(&self, index: usize) -> &Host {
        self.hosts.get(index).unwrap_or_else(|| panic!("{} has {} hosts", self.promise, self.hosts.len()))
    }

    /// All hosts.
    pub fn all(&self) -> &[Host] {
        &self.hosts
    }

    /// A directory for whatever the test wants to keep; removed with the topology.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A name that nobody else uses, for a namespace of the test's own making.
    pub fn unique_name(&self, what: &str) -> String {
        format!("{}-{what}", self.name)
    }

    /// Cuts two hosts off from each other, in both directions.
    pub fn cut(&self, a: usize, b: usize) -> Result<()> {
        self.host(a).cut_from(self.host(b))?;
        self.host(b).cut_from(self.host(a))
    }

    /// Takes every cut and every loss away.
    pub fn mend(&self) -> Result<()> {
        self.hosts.iter().try_for_each(Host::mend)
    }

    fn join_directly(&self) -> Result<()> {
        let [a, b] = self.hosts.as_slice() else { return Ok(()) };
        let (near, far) = (format!("{}-node01", self.name), format!("{}-node02", self.name));
        let line =
            format!("link add name {UNDERLAY} netns {near} type veth peer name {UNDERLAY} netns {far}");
        crate::Tool::new("ip").words(&line).run()?;
        self.wire.apply(a.namespace(), UNDERLAY)?;
        self.wire.apply(b.namespace(), UNDERLAY)
    }

    fn join_by_bridge(&mut self) -> Result<()> {
        let name = format!("{}-switch", self.name);
        let switch = Namespace::create(&name)?;
        let line = format!("link add name br0 mtu {} type bridge stp_state 0 mcast_snooping 0", self.mtu);
        switch.ip(&line)?;
        switch.ip("link set dev br0 up")?;
        for host in &self.hosts {
            let port = host.name();
            let line = format!(
                "link add name {UNDERLAY} netns {}-{port} mtu {} type veth peer name {port} netns {name} mtu {}",
                self.name, self.mtu, self.mtu
            );
            crate::Tool::new("ip").words(&line).run()?;
            switch.ip(&format!("link set dev {port} master br0 up"))?;
            self.wire.apply(host.namespace(), UNDERLAY)?;
        }
        self.switch = Some(switch);
        Ok(())
    }

    fn address(&self, host: &Host) -> Result<()> {
        let namespace = host.namespace();
        namespace.ip(&format!("address add {}/24 dev {UNDERLAY}", host.address()))?;
        if Path::new("/proc/sys/net/ipv6").exists() {
            namespace.ip(&format!("address add {}/64 dev {UNDERLAY} nodad", host.address6()))?;
        }
        namespace.ip(&format!("link set dev {UNDERLAY} mtu {} up", self.mtu)).map(drop)
    }
}

impl Drop for Topology {
    #[expect(clippy::print_stderr, reason = "the test harness shows it for tests that fail")]
    fn drop(&mut self) {
        if !self.quiet {
            eprintln!("{} ({})", self.promise, self.name);
            self.hosts.iter().for_each(|host| eprint!("{}", host.log()));
        }
        for namespace in self.hosts.iter().map(Host::namespace).chain(&self.switch) {
            if let Err(error) = namespace.delete() {
                eprintln!("left behind: {error:#}");
            }
        }
        remove_directory(&self.directory);
    }
}

/// The underlay addresses of a host, from the ranges kept for documentation (RFC 5737, RFC 3849).
pub(crate) fn addresses(number: u8) -> (Ipv4Addr, Ipv6Addr) {
    (Ipv4Addr::new(192, 0, 2, number), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(number)))
}

/// Fails with the package to install when a program is not there.
pub(crate) fn require(tool: &str, package: &str) -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|directory| directory.join(tool).is_file());
    ensure!(found, "`{tool}` is missing: apt-get install {package}");
    Ok(())
}
