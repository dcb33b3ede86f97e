//! One host: a namespace on the underlay. What the daemon in it does is in `daemon`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context, Result};

use crate::faults;
use crate::netns::Namespace;
use crate::process::Tool;
use crate::topology::{UNDERLAY, addresses};

/// How much of a log is shown when a test fails, in bytes.
const LOG_TAIL: usize = 16 * 1024;

/// A machine of the topology.
#[derive(Debug)]
pub struct Host {
    name: String,
    namespace: Namespace,
    address: Ipv4Addr,
    address6: Ipv6Addr,
    directory: PathBuf,
    environment: Mutex<Vec<(String, String)>>,
}

impl Host {
    pub(crate) fn new(number: u8, namespace: Namespace, topology: &Path) -> Result<Self> {
        let name = format!("node{number:02}");
        let directory = topology.join(&name);
        std::fs::create_dir(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let (address, address6) = addresses(number);
        Ok(Host { name, namespace, address, address6, directory, environment: Mutex::default() })
    }

    /// `node01` and so on. In the arguments of [`launch`](Self::launch) and its kind, the name of a
    /// host stands for its underlay address.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its network namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Its underlay address.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Its underlay address, version 6.
    pub fn address6(&self) -> Ipv6Addr {
        self.address6
    }

    /// The name of its underlay interface.
    pub fn interface(&self) -> &'static str {
        UNDERLAY
    }

    /// Its part of the topology's directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where its daemon has socket and lock.
    pub fn run_dir(&self) -> PathBuf {
        self.directory.join("run")
    }

    /// Where its daemon keeps its state.
    pub fn state_dir(&self) -> PathBuf {
        self.directory.join("state")
    }

    /// Sets an environment variable for every `meshnet` that is run here from now on.
    pub fn set_environment(&self, name: &str, value: &str) {
        self.lock_environment().push((name.to_owned(), value.to_owned()));
    }

    /// A program to be run on this host.
    pub fn tool(&self, program: &str) -> Tool {
        Tool::new(program).inside(&self.namespace)
    }

    /// Makes the kernel complete every checksum before a packet leaves, as for a card that cannot: only
    /// then does a capture show what a real wire would carry.
    pub fn checksum_in_software(&self) -> Result<()> {
        self.tool("ethtool").words(&format!("-K {UNDERLAY} tx off")).run().map(drop)
    }

    /// Drops everything that arrives from `other`; the other direction stays.
    pub fn cut_from(&self, other: &Host) -> Result<()> {
        self.cut_addresses(&[other.address.into(), other.address6.into()])
    }

    /// Drops everything that arrives from these addresses.
    pub fn cut_addresses(&self, addresses: &[IpAddr]) -> Result<()> {
        let mut each = addresses.iter();
        each.try_for_each(|address| faults::drop_arriving(&self.namespace, &faults::from(*address)))
    }

    /// Drops what arrives from `other` for one UDP port.
    pub fn cut_port_from(&self, other: &Host, port: u16) -> Result<()> {
        for address in [IpAddr::from(other.address), IpAddr::from(other.address6)] {
            let matching = format!("{} udp dport {port}", faults::from(address));
            faults::drop_arriving(&self.namespace, &matching)?;
        }
        Ok(())
    }

    /// Drops this share of what arrives from `other`, in percent, at random.
    pub fn lose_from(&self, other: &Host, percent: u8) -> Result<()> {
        for address in [IpAddr::from(other.address), IpAddr::from(other.address6)] {
            let matching = format!("{} numgen random mod 100 < {percent}", faults::from(address));
            faults::drop_arriving(&self.namespace, &matching)?;
        }
        Ok(())
    }

    /// Takes every cut and loss of arriving packets away.
    pub fn mend(&self) -> Result<()> {
        faults::mend(&self.namespace)
    }

    /// Replaces names of hosts by their addresses: `node02` and `node02:7000`.
    pub(crate) fn resolve(arg: &str) -> String {
        let (host, port) = arg.split_at(arg.find(':').unwrap_or(arg.len()));
        match host.strip_prefix("node").and_then(|digits| digits.parse().ok()) {
            Some(number) => format!("{}{port}", addresses(number).0),
            None => arg.to_owned(),
        }
    }

    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        self.lock_environment().clone()
    }

    /// The ends of all log files of this host, with headings.
    pub(crate) fn log(&self) -> String {
        let directories = [self.directory.clone(), self.run_dir(), self.state_dir()];
        let files =
            directories.iter().filter_map(|directory| std::fs::read_dir(directory).ok()).flatten().flatten();
        let logs =
            files.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "log"));
        logs.map(|path| tail(&path)).collect()
    }

    fn lock_environment(&self) -> std::sync::MutexGuard<'_, Vec<(String, String)>> {
        self.environment.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn tail(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    let start = bytes.len().saturating_sub(LOG_TAIL);
    let text = String::from_utf8_lossy(bytes.get(start..).unwrap_or_default()).into_owned();
    if text.is_empty() { text } else { format!("=== {}\n{text}", path.display()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_hosts_stand_for_their_addresses() {
        assert_eq!(Host::resolve("node02"), "192.0.2.2");
        assert_eq!(Host::resolve("node11:7000"), "192.0.2.11:7000");
        assert_eq!(Host::resolve("nodexx"), "nodexx");
        assert_eq!(Host::resolve("--nickname"), "--nickname");
    }
}
