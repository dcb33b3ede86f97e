//! The ports of this host as they shall be: written to disk before a device is made, removed after it is gone.
//!
//! A daemon that was killed at any moment finds here what it has to take up again or to undo. A port that waits for
//! its addresses is known in memory only: there is nothing of it that could outlive the daemon.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use engine::io::nftables::Forwarding;
use engine::rate::Rate;
use engine::types::{IpPrefix, MacAddr, NetworkId, PortId, Vni};
use peering::io::{Contents, StateFile, StoreError};
use serde::{Deserialize, Serialize};

/// Name of the file in the state directory.
const FILE: &str = "ports";
/// Version of its format.
const VERSION: u32 = 1;

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
    /// This host itself: the namespace of the daemon.
    Host,
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
    /// What this host does with packets of others that come by this port or would go there, if it is the host's own.
    pub(crate) forwarding: Forwarding,
    /// It may send in any name, not only in its own.
    pub(crate) no_spoof_check: bool,
    /// Whether the container runs, as far as is known.
    pub(crate) running: bool,
    /// Further names on the network.
    pub(crate) aliases: Vec<String>,
    /// Names that exist for this container alone: each with what it is called too.
    pub(crate) links: Vec<(String, String)>,
    /// The container asks the gateway for names.
    pub(crate) dns: bool,
    /// Ports of one container are in the order in which it was attached.
    pub(crate) order: u64,
}

/// All ports of this host, in memory and on disk.
#[derive(Debug)]
pub(crate) struct Ports {
    file: StateFile,
    intents: BTreeMap<PortId, Intent>,
    /// What the file holds; none if that is not known.
    written: Option<Vec<u8>>,
}

/// A file that could not be understood.
#[derive(Debug)]
pub(crate) struct Lost {
    /// For people: what is wrong with it, and where it is now.
    pub(crate) message: String,
}

impl Ports {
    /// Reads the ports in `state_dir`, whose lock must be held. A file that cannot be understood is set aside.
    pub(crate) fn load(state_dir: &Path) -> Result<(Ports, Option<Lost>), StoreError> {
        let file = StateFile::new(state_dir, FILE);
        let none = |file| Ports { file, intents: BTreeMap::new(), written: None };
        let reason = match file.read()? {
            Contents::Absent => return Ok((none(file), None)),
            Contents::Damaged(reason) => reason,
            Contents::Whole(text) => match parse(&text) {
                Some(intents) => return Ok((Ports { file, intents, written: Some(text) }, None)),
                None => "it is no list of ports".to_owned(),
            },
        };
        let kept = match file.set_aside() {
            Ok(aside) => format!("it is kept as {}", aside.display()),
            Err(error) => error.to_string(),
        };
        let message = format!("the ports in {} are damaged ({reason}): {kept}", file.path().display());
        Ok((none(file), Some(Lost { message })))
    }

    /// True when there is no list of ports, neither an empty one.
    pub(crate) fn is_missing(&self) -> bool {
        self.written.is_none()
    }

    /// The port with this id.
    pub(crate) fn by_id(&self, port: PortId) -> Option<&Intent> {
        self.intents.get(&port)
    }

    /// All ports, in order of their ids.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Intent> {
        self.intents.values()
    }

    /// The place of the next port in the order.
    pub(crate) fn next_order(&self) -> u64 {
        self.intents.values().map(|intent| intent.order + 1).max().unwrap_or(0)
    }

    /// Adds or replaces a port, on disk first.
    pub(crate) fn put(&mut self, intent: Intent) -> Result<(), StoreError> {
        let mut next = self.intents.clone();
        next.insert(intent.port, intent);
        self.write(&next)?;
        self.intents = next;
        Ok(())
    }

    /// Removes a port, which is gone whatever the disk says. A port that is not there is fine.
    pub(crate) fn remove(&mut self, port: PortId) -> Result<(), StoreError> {
        self.intents.remove(&port);
        let intents = std::mem::take(&mut self.intents);
        let written = self.write(&intents);
        self.intents = intents;
        written
    }

    /// Writes what is there once more, to see whether anything can be written now.
    pub(crate) fn rewrite(&mut self) -> Result<(), StoreError> {
        self.file.replace(&render(&self.intents))
    }

    fn write(&mut self, next: &BTreeMap<PortId, Intent>) -> Result<(), StoreError> {
        let content = render(next);
        if self.written.as_ref() != Some(&content) {
            // Whatever a failure leaves there: the next one to write has to.
            self.written = None;
            self.file.replace(&content)?;
            self.written = Some(content);
        }
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    forwarding: Option<StoredForwarding>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    no_spoof_check: bool,
    running: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    aliases: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    links: Vec<(String, String)>,
    #[serde(default)]
    dns: bool,
    #[serde(default)]
    order: u64,
}

/// What is not the rule.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredForwarding {
    Routed,
    Masqueraded,
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
            forwarding: match i.forwarding {
                Forwarding::None => None,
                Forwarding::Routed => Some(StoredForwarding::Routed),
                Forwarding::Masqueraded => Some(StoredForwarding::Masqueraded),
            },
            no_spoof_check: i.no_spoof_check,
            running: i.running,
            aliases: i.aliases.clone(),
            links: i.links.clone(),
            dns: i.dns,
            order: i.order,
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
            forwarding: match self.forwarding {
                None => Forwarding::None,
                Some(StoredForwarding::Routed) => Forwarding::Routed,
                Some(StoredForwarding::Masqueraded) => Forwarding::Masqueraded,
            },
            no_spoof_check: self.no_spoof_check,
            running: self.running,
            aliases: self.aliases,
            links: self.links,
            dns: self.dns,
            order: self.order,
        })
    }
}

fn raw(prefixes: &[IpPrefix]) -> Vec<(IpAddr, u8)> {
    prefixes.iter().map(|prefix| (prefix.addr, prefix.len)).collect()
}

fn prefixes(raw: Vec<(IpAddr, u8)>) -> Vec<IpPrefix> {
    raw.into_iter().map(|(addr, len)| IpPrefix { addr, len }).collect()
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
            forwarding: Forwarding::None,
            no_spoof_check: false,
            running: true,
            aliases: Vec::new(),
            links: Vec::new(),
            dns: true,
            order: 0,
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
        other.no_spoof_check = true;
        other.explicit = true;
        other.aliases = vec!["app".to_owned()];
        other.links = vec![("c5".to_owned(), "foo".to_owned())];
        (other.dns, other.order) = (false, 7);
        other.former = vec![IpPrefix { addr: "10.32.0.9".parse().unwrap(), len: 12 }];
        let mut third = intent(3);
        third.source = Source::File { path: "/run/netns/c1".into() };
        let mut host = intent(5);
        host.source = Source::Host;
        host.forwarding = Forwarding::Masqueraded;
        let mut waiting = intent(4);
        waiting.addresses.clear();
        ports.put(intent(1)).unwrap();
        ports.put(other.clone()).unwrap();
        ports.put(third.clone()).unwrap();
        ports.put(host.clone()).unwrap();
        ports.put(waiting).unwrap();
        assert_eq!(ports.all().count(), 5);
        ports.remove(PortId([1; 8])).unwrap();
        ports.remove(PortId([1; 8])).unwrap();
        let (again, _) = Ports::load(dir.path()).unwrap();
        assert_eq!(again.all().cloned().collect::<Vec<_>>(), [other, third, host]);
    }

    #[test]
    fn damaged_ports_are_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let (mut ports, _) = Ports::load(dir.path()).unwrap();
        ports.put(intent(1)).unwrap();
        let path = dir.path().join(FILE);
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            for bytes in [&whole[..at], &flipped] {
                std::fs::write(&path, bytes).unwrap();
                let (ports, lost) = Ports::load(dir.path()).unwrap();
                assert_eq!(ports.all().count(), 0);
                assert!(lost.unwrap().message.contains("ports.corrupt-"));
            }
        }
        StateFile::new(dir.path(), FILE).replace(b"{\"version\":1,\"ports\":[{}]}").unwrap();
        let (_, lost) = Ports::load(dir.path()).unwrap();
        assert!(lost.unwrap().message.contains("(it is no list of ports)"));
    }

    #[test]
    fn while_the_disk_fails_ports_go_but_do_not_come() {
        let dir = tempfile::tempdir().unwrap();
        let (mut ports, _) = Ports::load(dir.path()).unwrap();
        ports.put(intent(1)).unwrap();
        ports.put(intent(2)).unwrap();
        let in_the_way = dir.path().join("ports.new");
        std::fs::create_dir(&in_the_way).unwrap();
        assert!(ports.put(intent(3)).is_err() && ports.rewrite().is_err());
        assert!(ports.remove(PortId([1; 8])).is_err());
        assert_eq!(ports.all().cloned().collect::<Vec<_>>(), [intent(2)]);
        std::fs::remove_dir(&in_the_way).unwrap();
        // Also what nobody asked to be written.
        ports.remove(PortId([9; 8])).unwrap();
        let (again, _) = Ports::load(dir.path()).unwrap();
        assert_eq!(again.all().cloned().collect::<Vec<_>>(), [intent(2)]);
    }
}
