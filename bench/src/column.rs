//! The columns of the table: the ways from one container to another, each a file that says how it is set up.

mod bare;
mod kernel;
mod meshnet;
mod ovs;
mod vpncloud;
mod wireguard;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result};
use netns_tests::{Attached, Container, Host, KernelContainer, Namespace, Process, Topology, Value, Wire};
use serde::{Deserialize, Serialize};

use crate::plan::{RECEIVERS, Scene};

/// A column of the table.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Column {
    /// From host to host over the wire, without any overlay.
    Bare,
    /// Container, bridge, kernel VXLAN device, wire, and back. On one host: a bridge.
    Kernel,
    /// Container, meshnet, wire, and back; nothing is sealed.
    Meshnet,
    /// The same, sealed with AES-256-GCM.
    Aes,
    /// The same, sealed with ChaCha20-Poly1305.
    Chacha,
    /// The same, sealed with AES-256-GCM under keys that are renewed each second.
    Rekeyed,
    /// Open vSwitch with its datapath in userspace, VXLAN between the hosts.
    Ovs,
    /// vpncloud with a TAP device.
    Vpncloud,
    /// boringtun: WireGuard in userspace.
    Boringtun,
    /// wireguard-go: another one.
    #[serde(rename = "wireguard-go")]
    WireguardGo,
}

impl Column {
    /// What is measured unless something else is asked for.
    pub const USUAL: [Column; 3] = [Column::Bare, Column::Kernel, Column::Meshnet];

    /// meshnet, sealed.
    pub const SEALED: [Column; 3] = [Column::Aes, Column::Chacha, Column::Rekeyed];

    /// Others that can be asked for.
    pub const PEERS: [Column; 4] = [Column::Ovs, Column::Vpncloud, Column::Boringtun, Column::WireguardGo];

    fn all() -> impl Iterator<Item = Column> {
        Column::USUAL.into_iter().chain(Column::SEALED).chain(Column::PEERS)
    }

    /// Its name on the command line and in the results.
    pub fn name(self) -> &'static str {
        match self {
            Column::Bare => "bare",
            Column::Kernel => "kernel",
            Column::Meshnet => "meshnet",
            Column::Aes => "aes",
            Column::Chacha => "chacha",
            Column::Rekeyed => "rekeyed",
            Column::Ovs => "ovs",
            Column::Vpncloud => "vpncloud",
            Column::Boringtun => "boringtun",
            Column::WireguardGo => "wireguard-go",
        }
    }

    /// Fails, saying how to install it, when a program of this column is missing.
    pub fn check(self) -> Result<()> {
        match self {
            Column::Bare | Column::Kernel => Ok(()),
            Column::Meshnet | Column::Aes | Column::Chacha | Column::Rekeyed => {
                netns_tests::meshnet_binary().map(drop)
            }
            Column::Ovs => ovs::check(),
            Column::Vpncloud => vpncloud::check(),
            Column::Boringtun => wireguard::BORINGTUN.check(),
            Column::WireguardGo => wireguard::WIREGUARD_GO.check(),
        }
    }

    /// Sets the column up; none when it has no such scene.
    pub fn build(self, scene: Scene, wire: Wire) -> Result<Option<Lane>> {
        let topology = |count| Topology::new(&format!("benchmark of {self}"))?.wire(wire).hosts(count);
        let count = if scene == Scene::Spread { RECEIVERS + 1 } else { 2 };
        let lane = match (self, scene) {
            (Column::Bare, Scene::Local) => return Ok(None),
            (Column::Aes, Scene::Flooded) => {
                meshnet::lane(topology(2)?, scene, &sealed("aes-256-gcm")).and_then(Lane::with_flood)
            }
            (_, Scene::Flooded) => return Ok(None),
            (Column::Bare, _) => Ok(bare::lane(topology(count)?)),
            (Column::Kernel, _) => kernel::lane(topology(count)?, scene),
            (Column::Meshnet, _) => meshnet::lane(topology(count)?, scene, &[]),
            (Column::Aes | Column::Chacha | Column::Rekeyed, Scene::Local) => return Ok(None),
            (Column::Aes, _) => meshnet::lane(topology(count)?, scene, &sealed("aes-256-gcm")),
            (Column::Chacha, _) => meshnet::lane(topology(count)?, scene, &sealed("chacha20-poly1305")),
            (Column::Rekeyed, _) => {
                let options = [&sealed("aes-256-gcm")[..], &["--rekey-after", "1"]].concat();
                meshnet::lane(topology(count)?, scene, &options)
            }
            (_, Scene::Spread | Scene::Local) => return Ok(None),
            (Column::Ovs, Scene::Pair) => ovs::lane(topology(2)?),
            (Column::Vpncloud, Scene::Pair) => vpncloud::lane(topology(2)?),
            (Column::Boringtun, Scene::Pair) => wireguard::BORINGTUN.lane(topology(2)?),
            (Column::WireguardGo, Scene::Pair) => wireguard::WIREGUARD_GO.lane(topology(2)?),
        };
        lane.with_context(|| format!("cannot set up {self}")).map(Some)
    }
}

impl FromStr for Column {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let names = || Column::all().map(Column::name).collect::<Vec<_>>().join(", ");
        let found = Column::all().find(|column| column.name() == text);
        found.ok_or_else(|| format!("expected one of {}", names()))
    }
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Column::Bare => "bare veth",
            Column::Kernel => "kernel VXLAN",
            Column::Meshnet => "meshnet",
            Column::Aes => "AES-256-GCM",
            Column::Chacha => "ChaCha20-Poly1305",
            Column::Rekeyed => "AES, rekeyed 1/s",
            Column::Ovs => "Open vSwitch",
            Column::Vpncloud => "vpncloud",
            Column::Boringtun => "boringtun",
            Column::WireguardGo => "wireguard-go",
        })
    }
}

/// What makes a daemon seal with this cipher alone, in an open cluster: a secret changes keys and no cost of a frame.
fn sealed(cipher: &str) -> [&str; 4] {
    ["--encryption", "on", "--cipher", cipher]
}

/// Where traffic goes and what carries it.
#[derive(Clone, Debug)]
pub struct Route {
    /// Where it starts.
    pub from: Namespace,
    /// Where it ends: one place, or one on each receiving host.
    pub ends: Vec<End>,
    /// Process ids of the daemons it goes through.
    pub daemons: Vec<u32>,
}

/// Where traffic ends.
#[derive(Clone, Debug)]
pub struct End {
    /// The namespace.
    pub namespace: Namespace,
    /// The address in it.
    pub address: IpAddr,
}

/// A column that is set up. Everything in it goes when it is dropped.
pub struct Lane {
    /// The way for traffic.
    pub route: Route,
    /// The hosts that daemons run on.
    pub daemon_hosts: usize,
    /// The devices of the containers and where they are, for whoever changes their settings.
    pub devices: Vec<(Namespace, String)>,
    /// Who is flooded; none where nobody shall be.
    pub flooded: Option<Flooded>,
    _processes: Vec<Process>,
    _containers: Vec<Container>,
    _files: Vec<Leftover>,
    _topology: Topology,
}

/// Where a flood goes.
pub struct Flooded {
    /// Where it starts.
    pub from: Namespace,
    /// The host that it goes to.
    pub to: End,
    /// The key of that host, for which handshakes are.
    pub key: [u8; 32],
}

/// A file that a killed daemon leaves behind outside of its host's directory; removed when this is dropped.
struct Leftover(PathBuf);

impl Drop for Leftover {
    fn drop(&mut self) {
        // Gone already: fine.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Lane {
    fn new(topology: Topology, route: Route) -> Self {
        Lane {
            route,
            daemon_hosts: 0,
            devices: Vec::new(),
            flooded: None,
            _processes: Vec::new(),
            _containers: Vec::new(),
            _files: Vec::new(),
            _topology: topology.quiet(),
        }
    }

    /// The second host is flooded from the first.
    fn with_flood(mut self) -> Result<Self> {
        let (from, to) = (self._topology.host(0).namespace().clone(), self._topology.host(1));
        let status = to.status()?;
        let text = status.pointer("/sealing/noise_key").and_then(Value::as_str).unwrap_or_default();
        let byte = |at: usize| u8::from_str_radix(text.get(at..at + 2).unwrap_or_default(), 16);
        let key: Vec<u8> = (0..64).step_by(2).map(byte).collect::<Result<_, _>>()?;
        let key = key.as_slice().try_into()?;
        self.flooded = Some(Flooded { from, to: End::from(to), key });
        Ok(self)
    }

    /// Keeps containers for as long as the lane.
    fn with_containers(mut self, containers: impl IntoIterator<Item = Container>) -> Self {
        self._containers.extend(containers);
        self
    }

    /// Removes these files at its end.
    fn with_files(mut self, files: Vec<Leftover>) -> Self {
        self._files.extend(files);
        self
    }

    /// Keeps daemons for as long as the lane, and measures them; all hosts have the same.
    fn with_daemons(mut self, processes: Vec<Process>, hosts: usize) -> Self {
        self.route.daemons.extend(processes.iter().map(Process::pid));
        self.daemon_hosts = hosts;
        self._processes.extend(processes);
        self
    }
}

impl Route {
    /// From the first of these to all others.
    fn through(ends: Vec<End>) -> Self {
        let mut ends = ends;
        let from = ends.remove(0).namespace;
        Route { from, ends, daemons: Vec::new() }
    }

    /// The first end; what a pair of containers has.
    pub fn end(&self) -> Result<&End> {
        self.ends.first().context("a route without an end")
    }
}

impl From<&Host> for End {
    fn from(host: &Host) -> Self {
        End { namespace: host.namespace().clone(), address: host.address().into() }
    }
}

impl From<&Attached> for End {
    fn from(container: &Attached) -> Self {
        End { namespace: container.namespace().clone(), address: container.address }
    }
}

impl From<&KernelContainer> for End {
    fn from(container: &KernelContainer) -> Self {
        let address = netns_tests::Addressed::address(container);
        End { namespace: container.namespace().clone(), address }
    }
}

/// Finds a program in `MESHNET_PEERS`, a directory, or where programs are; fails with how to install it.
fn program(name: &str, install: &str) -> Result<String> {
    let own = std::env::var_os("MESHNET_PEERS").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    let places = own.into_iter().chain(std::env::split_paths(&path)).chain(system);
    let mut programs = places.map(|place| place.join(name));
    let found = programs.find(|program| program.is_file());
    let found = found.with_context(|| format!("`{name}` is not installed: {install}"))?;
    Ok(found.to_string_lossy().into_owned())
}

/// Two containers without a device yet, for what makes its devices itself.
fn pair() -> Result<[Container; 2]> {
    Ok([Container::new("c1")?, Container::new("c2")?])
}

/// Moves a device of `host` into a container, gives it an address and brings it up.
fn move_into(host: &Host, device: &str, container: &Container, address: &str, mtu: u16) -> Result<End> {
    let pid = container.pid().context("the container has no process")?;
    host.namespace().ip(&format!("link set dev {device} netns {pid}"))?;
    let namespace = container.namespace();
    namespace.ip(&format!("link set dev {device} mtu {mtu} up"))?;
    namespace.ip(&format!("address add {address}/24 dev {device}"))?;
    Ok(End { namespace: namespace.clone(), address: address.parse()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_the_names_that_results_use() {
        for column in Column::all() {
            assert_eq!(column.name().parse(), Ok(column));
            assert_eq!(serde_json::to_value(column).unwrap(), column.name());
        }
    }
}
