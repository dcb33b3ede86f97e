//! The ports of this host as they shall be: written to disk before a device is made, removed after it is gone.
//!
//! A daemon that was killed at any moment finds here what it has to take up again or to undo. A port that waits for
//! its addresses is known in memory only: there is nothing of it that could outlive the daemon.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use engine::rate::Rate;
use engine::types::{IpPrefix, MacAddr, NetworkId, PortId, Vni};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Name of the file in the state directory.
const FILE: &str = "ports";
/// Version of its format.
const VERSION: u32 = 1;

/// The store could not be read or written.
#[derive(Debug, Error)]
#[error("{}: {error}", path.display())]
pub(crate) struct StoreError {
    path: PathBuf,
    error: io::Error,
}

/// How the container of a port is found again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Source {
    /// A Docker container, by its full id.
    Docker {
        /// 64 hex digits.
        id: String,
    },
    /// A process, told apart from a later one of the same number by its start time in clock ticks since boot.
    Process {
        /// Its number.
        pid: u32,
        /// Start time.
        start: u64,
    },
    /// A file that is a network namespace.
    File {
        /// Where it is.
        path: PathBuf,
    },
}

/// One port of this host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Intent {
    /// Its id, also in the alias of the interface.
    pub(crate) port: PortId,
    /// The network it is on.
    pub(crate) network: NetworkId,
    /// What that network is called.
    pub(crate) network_name: String,
    /// Its number on the wire.
    pub(crate) vni: Vni,
    /// Largest packet of the network, in bytes.
    pub(crate) mtu: u16,
    /// The container as people call it.
    pub(crate) container: String,
    /// How it is found again.
    pub(crate) source: Source,
    /// Device and inode number of its namespace; of no meaning after a reboot.
    pub(crate) netns: (u64, u64),
    /// The endpoint's name on the network.
    pub(crate) name: String,
    /// Its MAC address.
    pub(crate) mac: MacAddr,
    /// Its addresses, first the one that is printed; none until they are allocated.
    pub(crate) addresses: Vec<IpPrefix>,
    /// People asked for just these addresses.
    pub(crate) explicit: bool,
    /// Addresses that it gives up and that its interface may still have.
    pub(crate) former: Vec<IpPrefix>,
    /// The interface in the container: as asked for, later as it is.
    pub(crate) ifname: Option<String>,
    /// The most it may send and is given.
    pub(crate) rate: Option<Rate>,
    /// Whether the container runs, as far as is known.
    pub(crate) running: bool,
}

/// All ports of this host, in memory and on disk.
#[derive(Debug)]
pub(crate) struct Ports {
    dir: PathBuf,
    intents: BTreeMap<PortId, Intent>,
}

impl Ports {
    /// Reads the store of `state_dir`. One that cannot be understood is set aside, and its new place returned.
    pub(crate) fn load(state_dir: &Path) -> Result<(Ports, Option<PathBuf>), StoreError> {
        let path = state_dir.join(FILE);
        let failed = |error| StoreError { path: path.clone(), error };
        let mut ports = Ports { dir: state_dir.to_owned(), intents: BTreeMap::new() };
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((ports, None)),
            Err(e) => return Err(failed(e)),
        };
        match parse(&text) {
            Some(intents) => {
                ports.intents = intents;
                Ok((ports, None))
            }
            None => set_aside(&path).map(|aside| (ports, Some(aside))).map_err(failed),
        }
    }

    /// The port with this id.
    pub(crate) fn by_id(&self, port: PortId) -> Option<&Intent> {
        self.intents.get(&port)
    }

    /// All ports, in order of their ids.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Intent> {
        self.intents.values()
    }

    /// Adds or replaces a port, on disk first.
    pub(crate) fn put(&mut self, intent: Intent) -> Result<(), StoreError> {
        let mut next = self.intents.clone();
        next.insert(intent.port, intent);
        self.replace(next)
    }

    /// Removes a port, on disk first. A port that is not there is fine.
    pub(crate) fn remove(&mut self, port: PortId) -> Result<(), StoreError> {
        if !self.intents.contains_key(&port) {
            return Ok(());
        }
        let mut next = self.intents.clone();
        next.remove(&port);
        self.replace(next)
    }

    fn replace(&mut self, next: BTreeMap<PortId, Intent>) -> Result<(), StoreError> {
        let content = render(&next);
        if content != render(&self.intents) {
            write(&self.dir, &content).map_err(|error| StoreError { path: self.dir.join(FILE), error })?;
        }
        self.intents = next;
        Ok(())
    }
}

/// The file's content.
#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    ports: Vec<StoredIntent>,
}

/// An intent in words.
#[derive(Serialize, Deserialize)]
struct StoredIntent {
    port: String,
    network: String,
    network_name: String,
    vni: u32,
    mtu: u16,
    container: String,
    source: Source,
    netns: (u64, u64),
    name: String,
    mac: String,
    addresses: Vec<(IpAddr, u8)>,
    #[serde(default)]
    explicit: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    former: Vec<(IpAddr, u8)>,
    ifname: Option<String>,
    /// In bits per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rate: Option<u64>,
    running: bool,
}

fn render(intents: &BTreeMap<PortId, Intent>) -> Vec<u8> {
    let settled = intents.values().filter(|i| !i.addresses.is_empty());
    let ports = settled.map(StoredIntent::from).collect();
    // Maps with string keys, numbers and text: nothing in it can fail to be written.
    serde_json::to_vec_pretty(&Stored { version: VERSION, ports }).unwrap_or_default()
}

fn parse(text: &[u8]) -> Option<BTreeMap<PortId, Intent>> {
    let stored: Stored = serde_json::from_slice(text).ok().filter(|s: &Stored| s.version == VERSION)?;
    stored.ports.into_iter().map(|p| p.read().map(|i| (i.port, i))).collect()
}

impl From<&Intent> for StoredIntent {
    fn from(i: &Intent) -> Self {
        StoredIntent {
            port: i.port.to_string(),
            network: i.network.to_string(),
            network_name: i.network_name.clone(),
            vni: i.vni.get(),
            mtu: i.mtu,
            container: i.container.clone(),
            source: i.source.clone(),
            netns: i.netns,
            name: i.name.clone(),
            mac: i.mac.to_string(),
            addresses: raw(&i.addresses),
            explicit: i.explicit,
            former: raw(&i.former),
            ifname: i.ifname.clone(),
            rate: i.rate.map(Rate::bits_per_second),
            running: i.running,
        }
    }
}

impl StoredIntent {
    fn read(self) -> Option<Intent> {
        Some(Intent {
            port: self.port.parse().ok()?,
            network: self.network.parse().ok()?,
            network_name: self.network_name,
            vni: Vni::new(self.vni)?,
            mtu: self.mtu,
            container: self.container,
            source: self.source,
            netns: self.netns,
            name: self.name,
            mac: self.mac.parse().ok()?,
            addresses: prefixes(self.addresses),
            explicit: self.explicit,
            former: prefixes(self.former),
            ifname: self.ifname,
            rate: self.rate.map(|rate| Rate::new(rate).ok_or(())).transpose().ok()?,
            running: self.running,
        })
    }
}

fn raw(prefixes: &[IpPrefix]) -> Vec<(IpAddr, u8)> {
    prefixes.iter().map(|prefix| (prefix.addr, prefix.len)).collect()
}

fn prefixes(raw: Vec<(IpAddr, u8)>) -> Vec<IpPrefix> {
    raw.into_iter().map(|(addr, len)| IpPrefix { addr, len }).collect()
}

/// Replaces the file as a whole: whoever reads it sees the old or the new one, also after a crash.
fn write(dir: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist(dir.join(FILE)).map_err(|e| e.error)?;
    std::fs::File::open(dir)?.sync_all()
}

/// Renames a file that cannot be understood, so that nothing is lost and nothing stands in the way.
fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let aside = (1..).map(|n| path.with_extension(format!("corrupt-{n}"))).find(|p| !p.exists());
    let aside = aside.ok_or_else(|| io::Error::other("no free name"))?;
    std::fs::rename(path, &aside)?;
    Ok(aside)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn intent(port: u8) -> Intent {
        Intent {
            port: PortId([port; 8]),
            network: NetworkId([7; 32]),
            network_name: "mesh".to_owned(),
            vni: Vni::MESH,
            mtu: 1450,
            container: "web".to_owned(),
            source: Source::Docker { id: "c0ffee".to_owned() },
            netns: (4, 4_026_532_000),
            name: "web".to_owned(),
            mac: MacAddr([2, 0, 0, 0, 0, port]),
            addresses: vec![IpPrefix { addr: "10.32.0.2".parse().unwrap(), len: 12 }],
            explicit: false,
            former: Vec::new(),
            ifname: Some("mesh0".to_owned()),
            rate: None,
            running: true,
        }
    }

    #[test]
    fn what_was_put_is_found_by_the_next_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let (mut ports, aside) = Ports::load(dir.path()).unwrap();
        assert!(aside.is_none());
        let mut other = intent(2);
        other.source = Source::Process { pid: 7, start: 9 };
        other.rate = Rate::new(100_000_000);
        other.explicit = true;
        other.former = vec![IpPrefix { addr: "10.32.0.9".parse().unwrap(), len: 12 }];
        let mut third = intent(3);
        third.source = Source::File { path: "/run/netns/c1".into() };
        let mut waiting = intent(4);
        waiting.addresses.clear();
        ports.put(intent(1)).unwrap();
        ports.put(other.clone()).unwrap();
        ports.put(third.clone()).unwrap();
        ports.put(waiting).unwrap();
        assert_eq!(ports.all().count(), 4);
        ports.remove(PortId([1; 8])).unwrap();
        ports.remove(PortId([1; 8])).unwrap();
        let (again, _) = Ports::load(dir.path()).unwrap();
        assert_eq!(again.all().cloned().collect::<Vec<_>>(), [other, third]);
    }

    #[test]
    fn a_torn_store_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let (mut ports, _) = Ports::load(dir.path()).unwrap();
        ports.put(intent(1)).unwrap();
        for n in 1..3 {
            std::fs::write(dir.path().join(FILE), "{\"version\":1,\"ports\":[").unwrap();
            let (ports, aside) = Ports::load(dir.path()).unwrap();
            assert_eq!(ports.all().count(), 0);
            assert_eq!(aside.unwrap(), dir.path().join(format!("ports.corrupt-{n}")));
        }
    }

    #[test]
    fn an_intent_that_cannot_be_written_is_not_kept_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        let (mut ports, _) = Ports::load(dir.path()).unwrap();
        ports.dir = dir.path().join("gone");
        assert!(ports.put(intent(1)).is_err());
        assert_eq!(ports.all().count(), 0);
    }
}
