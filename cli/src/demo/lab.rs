//! The hosts, wires and containers of the demo: anonymous network namespaces, wired pair by pair.
//!
//! Any two hosts have a veth pair of their own, 1500 bytes, point to point: what is measured between two hosts crosses
//! one wire and nothing else. Bare streams, the kernel's VXLAN and the overlay use the very same wires.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use engine::io::ethtool;
use engine::io::netns::{Netns, NetnsId};
use tempfile::TempDir;

use super::ping::{self, Pattern};
use super::process::{Daemon, Process};
use super::report::microseconds;
use super::stop::Stop;
use super::wiring;

/// The pings of an idle path.
const IDLE: Pattern =
    Pattern { count: 30, pause: Duration::from_millis(3), patience: Duration::from_secs(1) };

/// What the wires do with packets larger than their MTU.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wire {
    /// As network cards: the sender's cuts, the receiver's joins
    Nic,
    /// As network cards that do not join
    Cut,
    /// As between containers of one machine: pass 64 KiB packets whole, which flatters the kernel
    Veth,
}

impl Wire {
    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Wire::Nic => "nic",
            Wire::Cut => "cut",
            Wire::Veth => "veth",
        }
    }

    /// Sets the offloads of one end of a wire in the namespace of this thread; features that could not be set.
    fn shape(self, ifname: &str) -> Result<Vec<String>> {
        if self == Wire::Veth {
            return Ok(Vec::new());
        }
        let mut wanted: Vec<(&str, bool)> = ethtool::CUTTING.iter().map(|name| (*name, false)).collect();
        wanted.push((ethtool::GRO, self == Wire::Nic));
        Ok(ethtool::set_features(ifname, &wanted)?)
    }
}

/// A container: a namespace with a process in it.
pub(crate) struct Container {
    /// Its name.
    pub(crate) name: String,
    /// Its namespace.
    pub(crate) netns: Netns,
    process: Process,
    overlay: Option<Ipv4Addr>,
}

impl Container {
    fn start(name: String) -> Result<Self> {
        let netns = namespace()?;
        let process = Process::idle(&netns)?;
        Ok(Self { name, netns, process, overlay: None })
    }

    /// Its address on the overlay.
    pub(crate) fn overlay(&self) -> Result<Ipv4Addr> {
        self.overlay.with_context(|| format!("{} has no address on the overlay", self.name))
    }
}

/// A host: a namespace, a daemon once launched, and one container.
pub(crate) struct Host {
    /// Its name.
    pub(crate) name: String,
    /// Its address on the wires.
    pub(crate) address: Ipv4Addr,
    // Before the container and the namespace: first the daemon ends, then what it works on.
    daemon: Option<Daemon>,
    /// The container on it.
    pub(crate) container: Container,
    /// Its namespace.
    pub(super) netns: Netns,
    dir: PathBuf,
}

impl Host {
    /// Runs `meshnet launch` in it, with the addresses of other hosts, until the daemon is ready.
    pub(crate) fn launch(&mut self, targets: &[&str], stop: &Stop) -> Result<()> {
        let mut words = vec!["--nickname", &self.name];
        words.extend(targets);
        self.daemon = Some(Daemon::launch(&self.netns, &self.dir, &words, stop)?);
        Ok(())
    }

    /// Kills the daemon and launches it again on the state it left, without naming any peer.
    pub(crate) fn crash_and_launch(&mut self, stop: &Stop) -> Result<()> {
        self.daemon.take().context("the host has no daemon")?.crash()?;
        self.launch(&[], stop)
    }

    /// The command that gives the container its port.
    pub(crate) fn attach_words(&self) -> Vec<String> {
        let container = format!("pid:{}", self.container.process.id());
        ["attach", &container, "--name", &self.container.name].map(str::to_owned).into()
    }

    /// Runs that command; the address and prefix it printed.
    pub(crate) fn attach(&mut self, stop: &Stop) -> Result<String> {
        let words = self.attach_words();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let daemon = self.daemon.as_ref().context("the host has no daemon")?;
        let printed = daemon.command(&words, stop)?;
        let address = printed.split('/').next().and_then(|text| text.parse().ok());
        self.container.overlay =
            Some(address.with_context(|| format!("`meshnet attach` printed {printed:?}, not an address"))?);
        Ok(printed)
    }
}

/// All of it. Dropping it ends the processes, closes the namespaces and removes the files.
pub(crate) struct Lab {
    /// The hosts, in order.
    pub(crate) hosts: Vec<Host>,
    /// What could not be made as it should, for people.
    pub(crate) notes: Vec<String>,
    // Last: the daemons write into it.
    _dir: TempDir,
}

impl Lab {
    /// Makes `count` hosts, all wires between them and a container for each.
    pub(crate) fn build(count: usize, wire: Wire, stop: &Stop) -> Result<Self> {
        let dir = directory()?;
        let mut hosts = Vec::new();
        for number in 1..=count {
            stop.check()?;
            let name = format!("node{number:02}");
            hosts.push(Host {
                address: Ipv4Addr::new(192, 0, 2, u8::try_from(number)?),
                container: Container::start(format!("c{number}"))?,
                daemon: None,
                netns: namespace()?,
                dir: dir.path().join(&name),
                name,
            });
        }
        let mut refused = BTreeSet::new();
        for (index, host) in hosts.iter().enumerate() {
            for other in &hosts[index + 1..] {
                stop.check()?;
                refused.extend(lay(host, other, wire)?);
            }
        }
        let notes = if refused.is_empty() { Vec::new() } else { vec![wire_note(wire, &refused)] };
        Ok(Self { hosts, notes, _dir: dir })
    }

    /// The first host.
    pub(crate) fn first(&self) -> &Host {
        &self.hosts[0]
    }

    /// Every ordered pair of containers.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&Container, &Container)> {
        let containers = || self.hosts.iter().map(|host| &host.container);
        containers()
            .flat_map(move |from| containers().filter(|to| to.name != from.name).map(move |to| (from, to)))
    }

    /// How many namespaces there are.
    pub(crate) fn namespaces(&self) -> usize {
        2 * self.hosts.len()
    }

    /// How many wires there are.
    pub(crate) fn wires(&self) -> usize {
        self.hosts.len() * (self.hosts.len() - 1) / 2
    }

    /// The identities of all namespaces.
    pub(crate) fn ids(&self) -> BTreeSet<NetnsId> {
        self.hosts.iter().flat_map(|host| [host.netns.id(), host.container.netns.id()]).collect()
    }

    /// From the first host to the second, without any overlay.
    pub(crate) fn bare_route(&self) -> Route<'_> {
        let [from, receiver] = self.measured();
        Route { from: &from.netns, receiver: &receiver.netns, to: receiver.address }
    }

    /// From the container of the first host to that of the second.
    pub(crate) fn overlay_route(&self) -> Result<Route<'_>> {
        let [from, receiver] = self.measured().map(|host| &host.container);
        Ok(Route { from: &from.netns, receiver: &receiver.netns, to: receiver.overlay()? })
    }

    /// The two hosts between which throughput is measured.
    pub(super) fn measured(&self) -> [&Host; 2] {
        [&self.hosts[0], &self.hosts[1]]
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // All at once; each is then waited for as its host is dropped.
        for host in &self.hosts {
            host.daemon.iter().for_each(Daemon::terminate);
            host.container.process.terminate();
        }
    }
}

/// A way for traffic.
pub(crate) struct Route<'a> {
    /// Where it starts.
    pub(crate) from: &'a Netns,
    /// Where it ends.
    pub(crate) receiver: &'a Netns,
    /// The address of the end.
    pub(crate) to: Ipv4Addr,
}

impl Route<'_> {
    /// The median round trip in microseconds while nothing else goes on.
    pub(crate) fn ping(&self, stop: &Stop) -> Result<Option<f64>> {
        Ok(ping::series(self.from, self.to, IDLE, stop)?.median().map(microseconds))
    }
}

/// What the directories of the demo are called, before the process id of the demo that made one.
const DIRECTORY: &str = "meshnet-demo-";

/// A directory for the daemons' files. Those of demos that were killed, and could not remove theirs, go first.
fn directory() -> Result<TempDir> {
    let parent = std::env::temp_dir();
    for entry in fs::read_dir(&parent).into_iter().flatten().flatten() {
        if entry.file_name().to_str().and_then(maker).is_some_and(|pid| !is_running(pid)) {
            // Another demo may be about to do the same.
            let _removed = fs::remove_dir_all(entry.path());
        }
    }
    let prefix = format!("{DIRECTORY}{}-", std::process::id());
    tempfile::Builder::new()
        .prefix(&prefix)
        .tempdir_in(&parent)
        .context("cannot make a directory for the demo")
}

/// The process that made the directory of this name.
fn maker(name: &str) -> Option<u32> {
    name.strip_prefix(DIRECTORY)?.split('-').next()?.parse().ok()
}

fn is_running(pid: u32) -> bool {
    fs::exists(format!("/proc/{pid}")).unwrap_or(true)
}

/// How many of these namespaces somebody still uses.
pub(crate) fn count_left(ids: &BTreeSet<NetnsId>) -> usize {
    Netns::all().iter().filter(|netns| ids.contains(&netns.id())).count()
}

/// A new namespace whose streams are not paced: the machine's default may be bbr, whose pacing makes short
/// measurements jump, and reno is the one congestion control that every kernel has.
pub(super) fn namespace() -> Result<Netns> {
    let netns = Netns::create()?;
    netns
        .run(|| fs::write("/proc/sys/net/ipv4/tcp_congestion_control", "reno"))?
        .context("cannot set the congestion control of a namespace")?;
    wiring::loopback_up(&netns)?;
    Ok(netns)
}

/// A wire between two hosts; the features that could not be set.
fn lay(host: &Host, other: &Host, wire: Wire) -> Result<Vec<String>> {
    let names = [format!("to-{}", other.name), format!("to-{}", host.name)];
    wiring::veth([(&host.netns, &names[0]), (&other.netns, &names[1])])?;
    let mut refused = Vec::new();
    for (host, other, name) in [(host, other, &names[0]), (other, host, &names[1])] {
        refused.extend(host.netns.run(|| wire.shape(name))??);
        wiring::point_to_point(&host.netns, name, host.address, other.address)?;
    }
    Ok(refused)
}

fn wire_note(wire: Wire, refused: &BTreeSet<String>) -> String {
    let names: Vec<&str> = refused.iter().map(String::as_str).collect();
    format!("this kernel cannot set {} on the {} wire", names.join(", "), wire.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_tells_which_demo_made_it() {
        assert_eq!(maker("meshnet-demo-4711-aB3x9"), Some(4711));
        assert_eq!(maker("meshnet-demo-x-aB3x9"), None);
        assert_eq!(maker("meshnet-4711"), None);
        assert!(is_running(std::process::id()));
        assert!(!is_running(u32::MAX));
    }

    #[test]
    fn the_note_names_what_the_wire_lacks() {
        let refused = BTreeSet::from(["rx-gro".to_owned()]);
        assert_eq!(wire_note(Wire::Nic, &refused), "this kernel cannot set rx-gro on the nic wire");
    }
}
