//! Ports whose list was lost are found again: by their interfaces, which have the id of the port in their alias, and by
//! their records, which this host remembers or hears of from the others.
//!
//! What no list and no record tells is guessed: the container is whoever lives in the namespace. A rate, links,
//! `--no-dns`, and what an exposed host forwards, are written nowhere else, and are lost.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use engine::io::device::{self, Found};
use engine::io::netlink::Netlink;
use engine::io::netns::Netns;
use engine::io::nftables::Forwarding;
use engine::types::{IpPrefix, MacAddr, NetworkId, PortId};
use peering::mesh::{Endpoint, MESH_NETWORK, NetworkView};

use super::attach::mac_of;
use super::devices::endpoint;
use super::networks::subnets;
use super::ports::{Intent, Source};
use super::reattach::reopen;
use super::{Daemon, containers, lock_of};
use crate::failure::Failure;

/// How long the settings of a network may take; those of `mesh` are there from the start.
const SETTINGS: Duration = Duration::from_secs(2);

/// What became of a lost list.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    /// The list was lost: records that come late are looked at.
    lost: bool,
    /// Ports of which only the interface was found.
    guessed: BTreeSet<PortId>,
}

/// An interface of ours as it stands in its container.
struct Standing {
    found: Found,
    mac: MacAddr,
    addresses: Vec<IpPrefix>,
}

/// Makes the list of ports anew if it was lost. Under the daemon's turn.
pub(super) async fn recover(daemon: &Arc<Daemon>) -> Result<(), Failure> {
    let own = daemon.peering.peer_id();
    let views = daemon.peering.endpoints().await.into_iter().filter(|view| view.peer == own);
    let mut known: BTreeMap<PortId, Endpoint> =
        views.map(|view| (view.endpoint.port, view.endpoint)).collect();
    // A host that never had ports has no list either.
    let damaged = lock_of(&daemon.recovery).lost;
    if !daemon.ports().is_missing() || (known.is_empty() && !damaged) {
        return Ok(());
    }
    lock_of(&daemon.recovery).lost = true;
    let mut recovered = Vec::new();
    for standing in daemon.blocking(|_| standing()).await? {
        let port = standing.found.port;
        let record = known.remove(&port);
        // Other daemons of this machine have interfaces too: ours are told by the record or by the MAC address.
        if record.is_none() && standing.mac != mac_of(own, port) {
            continue;
        }
        recovered.extend(daemon.take_back(standing, record).await?);
    }
    for record in known.into_values() {
        recovered.extend(daemon.take_back_stopped(record).await?);
    }
    if !recovered.is_empty() {
        let message = format!("found again without the list of ports: {}", recovered.join(", "));
        daemon.tell("ports_recovered", message);
    }
    Ok(())
}

impl Daemon {
    /// The list of ports was found to be damaged.
    pub(super) fn ports_lost(&self, message: String) {
        lock_of(&self.recovery).lost = true;
        self.tell("ports_set_aside", message);
    }

    /// Another host remembers an endpoint of this one: if its list was lost, the endpoint may still be there.
    pub(super) async fn recall(self: &Arc<Self>, record: &Endpoint) {
        if !lock_of(&self.recovery).lost {
            return;
        }
        let _turn = self.turn.lock().await;
        let known = self.ports().by_id(record.port).cloned();
        let recalled = match known {
            Some(intent) => self.correct(intent, record).await,
            None => self.find_again(record).await,
        };
        if let Err(failure) = recalled {
            self.tell(
                "port_lost",
                format!("the port of {} could not be taken up: {failure}", record.container),
            );
        }
    }

    /// A guessed port gets its name and its container back.
    async fn correct(self: &Arc<Self>, intent: Intent, record: &Endpoint) -> Result<(), Failure> {
        if !lock_of(&self.recovery).guessed.remove(&intent.port) {
            return Ok(());
        }
        let source = match &record.docker_id {
            Some(id) => Source::Docker { id: id.clone() },
            None => intent.source.clone(),
        };
        let container = record.container.clone();
        let (name, aliases) = (record.name.clone(), record.aliases.clone());
        let intent = Intent { name, aliases, container, source, ..intent };
        self.keep(intent.clone()).await?;
        self.peering.put_endpoint(endpoint(&intent)).await;
        Ok(())
    }

    async fn find_again(self: &Arc<Self>, record: &Endpoint) -> Result<(), Failure> {
        let port = record.port;
        let standing = self.blocking(move |_| standing().into_iter().find(|s| s.found.port == port)).await?;
        let found = standing.as_ref().map(|standing| standing.found.clone());
        let container = match standing {
            Some(standing) => self.take_back(standing, Some(record.clone())).await?,
            None => self.take_back_stopped(record.clone()).await?,
        };
        let intent = self.ports().by_id(port).cloned();
        let (Some(container), Some(intent)) = (container, intent) else { return Ok(()) };
        match found {
            Some(found) => reopen(self, intent, found).await?,
            None => drop(self.peering.put_endpoint(endpoint(&intent)).await),
        }
        self.tell("ports_recovered", format!("remembered by other hosts: {container}"));
        Ok(())
    }

    /// Writes down the port of an interface that stands; returns the container, if there is one.
    async fn take_back(
        self: &Arc<Self>,
        standing: Standing,
        record: Option<Endpoint>,
    ) -> Result<Option<String>, Failure> {
        let Standing { found: Found { port, netns, ifname }, mac, addresses } = standing;
        let Some(occupant) = self.occupant(netns, record.as_ref()).await? else { return Ok(None) };
        if record.is_none() {
            lock_of(&self.recovery).guessed.insert(port);
        }
        let id = occupant.netns.id();
        let (container, name) = (occupant.container, occupant.name);
        let network = self.network_with(&addresses).await;
        let guess = || Endpoint {
            port,
            network,
            name,
            aliases: Vec::new(),
            container: container.clone(),
            mac,
            addresses,
            explicit: false,
            ifname: String::new(),
            running: true,
            docker_id: None,
        };
        let record = Endpoint { ifname, running: true, ..record.unwrap_or_else(guess) };
        self.write_down(record, occupant.source, (id.dev, id.ino)).await.map(Some)
    }

    /// The same for a Docker container that is stopped: it has no interface, and keeps its address.
    async fn take_back_stopped(self: &Arc<Self>, record: Endpoint) -> Result<Option<String>, Failure> {
        let Some(id) = record.docker_id.clone() else { return Ok(None) };
        let record = Endpoint { running: false, ..record };
        self.write_down(record, Source::Docker { id }, (0, 0)).await.map(Some)
    }

    async fn write_down(
        self: &Arc<Self>,
        record: Endpoint,
        source: Source,
        netns: (u64, u64),
    ) -> Result<String, Failure> {
        let order = self.ports().next_order();
        let NetworkView { name: network_name, vni, mtu, .. } =
            self.settings(record.network, SETTINGS).await?;
        let intent = Intent {
            port: record.port,
            network: record.network,
            network_name,
            vni,
            mtu,
            container: record.container.clone(),
            source,
            netns,
            name: record.name,
            mac: record.mac,
            addresses: record.addresses,
            explicit: record.explicit,
            former: Vec::new(),
            ifname: Some(record.ifname).filter(|name| !name.is_empty()),
            rate: None,
            forwarding: Forwarding::None,
            no_spoof_check: false,
            running: record.running,
            aliases: record.aliases,
            links: Vec::new(),
            dns: true,
            order,
        };
        self.keep(intent).await?;
        Ok(record.container)
    }

    /// The network that has such addresses, if there is one alone, else `mesh`.
    async fn network_with(&self, addresses: &[IpPrefix]) -> NetworkId {
        let known = self.peering.networks().await;
        let has = |view: &&NetworkView| {
            addresses.iter().any(|prefix| subnets(view).any(|subnet| subnet.contains(&prefix.addr)))
        };
        let mut meant = known.iter().filter(has);
        match (meant.next(), meant.next()) {
            (Some(view), None) => view.id,
            _ => MESH_NETWORK,
        }
    }

    /// Who lives in a namespace, by the record or by looking round.
    async fn occupant(
        self: &Arc<Self>,
        netns: Netns,
        record: Option<&Endpoint>,
    ) -> Result<Option<containers::Found>, Failure> {
        if let Some(Endpoint { container, name, docker_id, .. }) = record {
            let (container, name) = (container.clone(), name.clone());
            if let Some(id) = docker_id.clone() {
                return Ok(Some(containers::Found { container, name, source: Source::Docker { id }, netns }));
            }
            match containers::resolve(&self.docker, self.own, &container).await {
                Ok(found) if found.netns == netns => return Ok(Some(found)),
                _ => {}
            }
        }
        let id = netns.id();
        if id == self.own {
            return containers::Found::host(&self.hello.nickname).map(Some);
        }
        self.blocking(move |_| containers::occupant(id)).await
    }
}

/// All interfaces with an alias of ours, in whatever namespace.
fn standing() -> Vec<Standing> {
    device::strays(&[]).into_iter().filter_map(look).collect()
}

/// One that vanishes meanwhile is none.
fn look(found: Found) -> Option<Standing> {
    let netlink = Netlink::open_in(&found.netns).ok()?;
    let link = netlink.link(&found.ifname).ok()??;
    let all = netlink.addresses().ok()?.into_iter();
    let ours = all.filter(|address| address.index == link.index && !is_link_local(address.prefix.addr));
    Some(Standing { mac: link.mac?, addresses: ours.map(|address| address.prefix).collect(), found })
}

/// The kernel gives itself such an address (RFC 4291 section 2.5.6).
fn is_link_local(addr: IpAddr) -> bool {
    matches!(addr, IpAddr::V6(addr) if addr.is_unicast_link_local())
}
