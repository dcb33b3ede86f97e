//! Who is called what: the names of every network, as the control plane tells them.
//!
//! A name belongs to a network and has any number of holders, endpoints or entries that people made. What a port may
//! ask for is told with it: the networks of its container and its private aliases. Names are kept in lower case.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use foldhash::fast::RandomState;

use crate::seam::{Service, Update};
use crate::types::{Holder, IpPrefix, PortId, Vni};

/// Seconds for which an answer may be kept, unless it is said otherwise.
pub const TTL_S: u32 = 5;

type Map<K, V> = HashMap<K, V, RandomState>;

/// The names of all networks of this host, and who may ask for which.
#[derive(Debug)]
pub struct Names {
    zones: BTreeMap<Vni, Zone>,
    askers: Map<PortId, Asker>,
    ttl_s: u32,
}

/// What a port may ask for.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Asker {
    /// The networks that its container is on, its own first.
    pub networks: Vec<Vni>,
    /// Names that exist for it alone, each with the name that it stands for.
    pub links: Vec<(String, String)>,
    /// Whether names that are not ours are asked for elsewhere.
    pub forwards: bool,
}

/// The names of one network.
#[derive(Default, Debug)]
pub struct Zone {
    /// Empty until the network itself was told: names may come first.
    name: String,
    gateways: Vec<IpPrefix>,
    entries: Map<Holder, Entry>,
    by_name: Map<String, BTreeSet<Holder>>,
    by_addr: Map<IpAddr, BTreeSet<Holder>>,
}

/// What one holder is called, and where it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its names, relative to the network.
    pub names: Vec<String>,
    /// Its addresses.
    pub addrs: Vec<IpAddr>,
    /// What it offers.
    pub services: Vec<Service>,
    /// Its host does not answer: others are told first.
    pub suspected: bool,
}

impl Default for Names {
    fn default() -> Self {
        Names { zones: BTreeMap::new(), askers: Map::default(), ttl_s: TTL_S }
    }
}

impl Names {
    /// Takes in what concerns names; everything else is left.
    pub fn apply(&mut self, update: &Update) {
        match update {
            Update::SetNetwork { vni, name, gateways, .. } => {
                let zone = self.zones.entry(*vni).or_default();
                zone.name = name.to_ascii_lowercase();
                zone.gateways.clone_from(gateways);
            }
            Update::RemoveNetwork { vni } => {
                self.zones.remove(vni);
            }
            Update::SetNames { vni, holder, names, addrs, services, suspected } => {
                let lower = |name: &String| name.to_ascii_lowercase();
                let service = |service: &Service| Service { name: lower(&service.name), port: service.port };
                let entry = Entry {
                    names: names.iter().map(lower).collect(),
                    addrs: addrs.iter().map(IpAddr::to_canonical).collect(),
                    services: services.iter().map(service).collect(),
                    suspected: *suspected,
                };
                self.zones.entry(*vni).or_default().insert(*holder, entry);
            }
            Update::RemoveNames { vni, holder } => {
                self.zones.get_mut(vni).into_iter().for_each(|zone| zone.remove(*holder));
            }
            Update::SetAsker { port, networks, links, forwards } => {
                let lower = |(alias, name): &(String, String)| {
                    (alias.to_ascii_lowercase(), name.to_ascii_lowercase())
                };
                let links = links.iter().map(lower).collect();
                let asker = Asker { networks: networks.clone(), links, forwards: *forwards };
                self.askers.insert(*port, asker);
            }
            Update::SetDns { ttl_s } => self.ttl_s = *ttl_s,
            Update::SetPeer { .. }
            | Update::RemovePeer { .. }
            | Update::AddVtep { .. }
            | Update::RemoveVtep { .. }
            | Update::Pin { .. }
            | Update::Unpin { .. }
            | Update::Answer { .. } => {}
        }
    }

    /// A port is closed: what it may ask for is forgotten.
    pub fn remove_port(&mut self, port: PortId) {
        self.askers.remove(&port);
    }

    /// What `port` may ask for, which is on `vni`: of that network alone, unless the control plane has told more.
    pub fn asker(&self, port: PortId, vni: Vni) -> Asker {
        let told = self.askers.get(&port).cloned();
        told.unwrap_or_else(|| Asker { networks: vec![vni], ..Asker::default() })
    }

    /// The names of a network.
    pub fn zone(&self, vni: Vni) -> Option<&Zone> {
        self.zones.get(&vni)
    }

    /// The networks, by number.
    pub fn zones(&self) -> impl Iterator<Item = (Vni, &Zone)> + '_ {
        self.zones.iter().map(|(&vni, zone)| (vni, zone))
    }

    /// For how many seconds an answer may be kept.
    pub fn ttl_s(&self) -> u32 {
        self.ttl_s
    }
}

impl Zone {
    /// The network's name, empty when it is not known yet.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The gateway's addresses, each with the prefix of its subnet.
    pub fn gateways(&self) -> &[IpPrefix] {
        &self.gateways
    }

    /// Whether `addr` lies in a subnet of the network.
    pub fn covers(&self, addr: IpAddr) -> bool {
        self.gateways.iter().any(|gateway| gateway.contains(addr))
    }

    /// Who is called `name`, which is in lower case and relative to the network; in order.
    pub fn holders(&self, name: &str) -> impl Iterator<Item = &Entry> + '_ {
        let holders = self.by_name.get(name).into_iter().flatten();
        holders.filter_map(|holder| self.entries.get(holder))
    }

    /// Who has the address; in order.
    pub fn at(&self, addr: IpAddr) -> impl Iterator<Item = &Entry> + '_ {
        let holders = self.by_addr.get(&addr).into_iter().flatten();
        holders.filter_map(|holder| self.entries.get(holder))
    }

    /// All of them, in order.
    pub fn entries(&self) -> Vec<(Holder, &Entry)> {
        let mut all = Vec::with_capacity(self.entries.len());
        for (&holder, entry) in &self.entries {
            all.push((holder, entry));
        }
        all.sort_unstable_by_key(|(holder, _)| *holder);
        all
    }

    fn insert(&mut self, holder: Holder, entry: Entry) {
        if self.entries.get(&holder) == Some(&entry) {
            return;
        }
        self.remove(holder);
        for name in entry.all_names() {
            self.by_name.entry(name.to_owned()).or_default().insert(holder);
        }
        for &addr in &entry.addrs {
            self.by_addr.entry(addr).or_default().insert(holder);
        }
        self.entries.insert(holder, entry);
    }

    fn remove(&mut self, holder: Holder) {
        let Some(entry) = self.entries.remove(&holder) else { return };
        entry.all_names().for_each(|name| take_out(&mut self.by_name, name, holder));
        entry.addrs.iter().for_each(|addr| take_out(&mut self.by_addr, addr, holder));
    }
}

impl Entry {
    /// What it is found by: its names, and those of its services.
    fn all_names(&self) -> impl Iterator<Item = &str> + '_ {
        let services = self.services.iter().map(|service| service.name.as_str());
        self.names.iter().map(String::as_str).chain(services)
    }

    /// The name that people know it by: the first that is no service's.
    pub fn first_name(&self) -> Option<&str> {
        self.names.iter().map(String::as_str).find(|name| !name.starts_with('_'))
    }
}

/// Ends that `holder` is found by `key`.
fn take_out<K, Q>(index: &mut Map<K, BTreeSet<Holder>>, key: &Q, holder: Holder)
where
    K: std::borrow::Borrow<Q> + Eq + std::hash::Hash,
    Q: Eq + std::hash::Hash + ?Sized,
{
    let Some(holders) = index.get_mut(key) else { return };
    holders.remove(&holder);
    if holders.is_empty() {
        index.remove(key);
    }
}

#[cfg(test)]
mod tests;
