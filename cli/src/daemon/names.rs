//! Names: what people give, take back and look up, and what each port may ask for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use engine::Update;
use engine::gateway::domain::{Place, place};
use engine::gateway::names::{Asker as WhoAsks, Entry, Names as Table};
use engine::seam::Service;
use engine::types::{Holder, NetworkId, PeerId, PortId, Vni};
use peering::mesh::{MeshEvent, NameError, NameView};
use peering::records::{NameRecord, ServiceRecord};

use super::ports::{Intent, Ports};
use super::{Daemon, lock_of};
use crate::args::naming::dns_name;
use crate::failure::{Failure, code};
use crate::resolver::conf::domain;
use crate::shape::{DnsAddRequest, DnsName, DnsRemoveRequest, DnsRemoved, LookedUp, LookupRequest};

/// The names that are answered, as they were told, by their holder.
pub(super) type Names = BTreeMap<(PeerId, [u8; 8]), NameView>;

/// What a port may ask for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Asker {
    networks: Vec<Vni>,
    links: Vec<(String, String)>,
    forwards: bool,
}

/// What the tables must say of names after an event.
pub(super) fn update(event: &MeshEvent) -> Option<Update> {
    match event {
        MeshEvent::NameUp(view) => Some(set_names(view)),
        MeshEvent::NameDown { peer, id, vni } => {
            Some(Update::RemoveNames { vni: *vni, holder: Holder { peer: *peer, id: *id } })
        }
        _ => None,
    }
}

fn set_names(view: &NameView) -> Update {
    Update::SetNames {
        vni: view.vni,
        holder: Holder { peer: view.peer, id: view.id },
        names: view.names.clone(),
        addrs: view.addresses.clone(),
        services: services(view),
        suspected: view.suspected,
    }
}

/// Every service under every name.
fn services(view: &NameView) -> Vec<Service> {
    let of = |name: &String| {
        let all = view.services.iter();
        let all = all.map(move |ServiceRecord { service, port }| (format!("{service}.{name}"), *port));
        all.map(|(name, port)| Service { name, port }).collect::<Vec<_>>()
    };
    view.names.iter().flat_map(of).collect()
}

impl Daemon {
    /// Remembers which names are answered.
    pub(super) fn note_name(&self, event: &MeshEvent) {
        let mut names = lock_of(&self.names);
        match event {
            MeshEvent::NameUp(view) => drop(names.insert((view.peer, view.id), view.clone())),
            MeshEvent::NameDown { peer, id, .. } => drop(names.remove(&(*peer, *id))),
            _ => {}
        }
    }

    /// Gives addresses a name. The same again is fine.
    pub(super) async fn dns_add(&self, request: &DnsAddRequest) -> Result<(), Failure> {
        self.refuse_when_stopping()?;
        let network = self.network_id(&request.network)?;
        let addresses = unique(request.addresses.iter().copied());
        let services = request.services.iter();
        let services =
            services.map(|(service, port)| ServiceRecord { service: service.clone(), port: *port }).collect();
        let name = checked(&request.name)?;
        self.refuse_reserved(network, &name, &request.network)?;
        let record = NameRecord { network, name, addresses, services };
        self.peering.put_name(record).await.map_err(|e| refused(&e, &request.network))
    }

    /// Takes a name back that was given on this host. One that nobody gave is fine.
    pub(super) async fn dns_remove(&self, request: &DnsRemoveRequest) -> Result<DnsRemoved, Failure> {
        self.refuse_when_stopping()?;
        let network = self.network_id(&request.network)?;
        let name = checked(&request.name)?;
        let removed = self.peering.remove_name(network, name.clone()).await;
        let removed = removed.map_err(|e| refused(&e, &request.network))?;
        if !removed {
            self.refuse_of_others(network, &name, &request.network).await?;
        }
        Ok(DnsRemoved { name, network: request.network.clone(), removed })
    }

    /// What a container on the network would be told of a name, or what an address is called there.
    pub(super) fn dns_lookup(&self, request: &LookupRequest) -> Result<LookedUp, Failure> {
        let network = self.network_id(&request.network)?;
        let called = self.network_name(network);
        let views: Vec<NameView> =
            lock_of(&self.names).values().filter(|view| view.network == network).cloned().collect();
        let found = look_up(&views, &called, &request.what);
        let found = found.filter(|found| !(found.addresses.is_empty() && found.names.is_empty()));
        found.ok_or_else(|| {
            let message = format!("nothing on the network {called} is called {}", request.what);
            Failure::new(code::UNKNOWN_NAME, message).hint("`meshnet status dns` lists all names")
        })
    }

    /// The names that are answered, for `status`.
    pub(super) fn dns_names(&self) -> Vec<DnsName> {
        let names = lock_of(&self.names).clone();
        let mut names: Vec<DnsName> = names.into_values().map(|view| self.dns_name(view)).collect();
        names.sort();
        names
    }

    fn dns_name(&self, view: NameView) -> DnsName {
        let mut names = view.names.into_iter();
        DnsName {
            network: self.network_name(view.network),
            name: names.next().unwrap_or_default(),
            aliases: names.collect(),
            addresses: view.addresses,
            services: view.services.into_iter().map(|offer| (offer.service, offer.port)).collect(),
            peer_id: view.peer.to_string(),
            suspected: view.suspected,
        }
    }

    /// A container that is being attached has its name already, and no record of it.
    fn refuse_reserved(&self, network: NetworkId, name: &str, called: &str) -> Result<(), Failure> {
        let ports = self.ports();
        let mut others = ports.all().filter(|i| i.network == network && i.name.eq_ignore_ascii_case(name));
        others.next().map_or(Ok(()), |other| Err(taken(name, &other.container, called)))
    }

    /// A name of this host and network that people gave to addresses is no container's.
    pub(super) async fn refuse_given(
        &self,
        network: NetworkId,
        name: &str,
        called: &str,
    ) -> Result<(), Failure> {
        let own = self.peering.peer_id();
        let given = self.peering.names().await.into_iter().any(|view| {
            view.peer == own && view.network == network && view.names[0].eq_ignore_ascii_case(name)
        });
        if given { Err(taken(name, "an entry of this host", called)) } else { Ok(()) }
    }

    /// What was given elsewhere is taken back there.
    async fn refuse_of_others(&self, network: NetworkId, name: &str, called: &str) -> Result<(), Failure> {
        let names = self.peering.names().await;
        let Some(view) = names.iter().find(|v| v.network == network && v.names[0] == name) else {
            return Ok(());
        };
        let peers = self.peering.status().await.peers;
        let host = peers.iter().find(|peer| peer.peer_id == view.peer.to_string());
        let host = host.map_or_else(|| view.peer.to_string(), |peer| peer.nickname.clone());
        Err(Failure::new(
            code::NAME_ELSEWHERE,
            format!("the name {name} on the network {called} was given on the host {host}"),
        )
        .hint("remove it there"))
    }

    /// The gateways of a network, those of IPv4 first: containers are pointed at the first one.
    pub(super) fn gateways(&self, id: NetworkId) -> Vec<IpAddr> {
        let networks = self.networks.borrow();
        let subnets = networks.get(id).into_iter().flat_map(|view| &view.subnets);
        let mut gateways: Vec<IpAddr> = subnets.map(|subnet| subnet.gateway).collect();
        gateways.sort_by_key(IpAddr::is_ipv6);
        gateways
    }

    /// The gateways of all networks.
    pub(super) fn all_gateways(&self) -> Vec<IpAddr> {
        let networks = self.networks.borrow();
        networks.all().into_iter().flat_map(|view| &view.subnets).map(|subnet| subnet.gateway).collect()
    }

    /// Whether those on a network may ask for names outside.
    fn has_way_out(&self, id: NetworkId) -> bool {
        let networks = self.networks.borrow();
        networks.get(id).is_none_or(|view| !view.internal)
    }

    /// Tells the data plane what its ports may ask for, as far as that is news.
    pub(super) fn tell_askers(&self) {
        let wanted = askers(&self.ports(), &lock_of(&self.opened), |id| self.has_way_out(id));
        let mut told = lock_of(&self.askers);
        let news: Vec<(PortId, Asker)> = wanted
            .iter()
            .filter(|(port, asker)| told.get(port) != Some(asker))
            .map(|(p, a)| (*p, a.clone()))
            .collect();
        *told = wanted;
        self.engine.apply(news.into_iter().map(|(port, Asker { networks, links, forwards })| {
            Update::SetAsker { port, networks, links, forwards }
        }));
    }
}

/// What the open ports may ask for: names of all networks of their container, those of the own one first.
fn askers(
    ports: &Ports,
    opened: &BTreeSet<PortId>,
    has_way_out: impl Fn(NetworkId) -> bool,
) -> BTreeMap<PortId, Asker> {
    let all: Vec<&Intent> = ports.all().filter(|i| i.running && opened.contains(&i.port)).collect();
    let asker = |intent: &Intent| {
        let mut together: Vec<&Intent> = all.iter().copied().filter(|i| i.source == intent.source).collect();
        together.sort_by_key(|i| (i.port != intent.port, i.order, i.port));
        Asker {
            networks: together.iter().map(|i| i.vni).collect(),
            links: together.iter().flat_map(|i| links(i)).collect(),
            forwards: together.iter().any(|i| has_way_out(i.network)),
        }
    };
    all.iter().map(|intent| (intent.port, asker(intent))).collect()
}

/// The links of a port, each leading to its own network unless it names one, and no further.
fn links(intent: &Intent) -> impl Iterator<Item = (String, String)> + '_ {
    intent.links.iter().map(|(name, alias)| {
        let scoped = || format!("{name}.{}", intent.network_name);
        (alias.clone(), if name.contains('.') { name.clone() } else { scoped() })
    })
}

/// A name as it may stand in a record.
fn checked(name: &str) -> Result<String, Failure> {
    dns_name(name).map_err(|reason| Failure::new(code::BAD_USAGE, reason))
}

/// Looks as the gateway does for a container that is on the network alone.
fn look_up(views: &[NameView], network: &str, what: &str) -> Option<LookedUp> {
    let vni = views.first()?.vni;
    let mut names = Table::default();
    let settings =
        Update::SetNetwork { vni, name: network.to_owned(), mtu: 0, sealed: false, gateways: Vec::new() };
    names.apply(&settings);
    views.iter().for_each(|view| names.apply(&set_names(view)));
    let (addresses, names) = match what.parse::<IpAddr>() {
        Ok(address) => {
            let mut holders: Vec<&Entry> = names.zone(vni)?.at(address).collect();
            holders.sort_by_key(|entry| entry.suspected);
            let called = holders.iter().filter_map(|entry| entry.first_name());
            (Vec::new(), unique(called.map(|name| format!("{name}.{}", domain(network)))))
        }
        Err(_) => {
            let name = what.strip_suffix('.').unwrap_or(what).to_ascii_lowercase();
            let asker = WhoAsks { networks: vec![vni], ..WhoAsks::default() };
            let Place::Held { mut holders, .. } = place(&names, &asker, &name) else { return None };
            holders.sort_by_key(|entry| entry.suspected);
            (unique(holders.iter().flat_map(|entry| entry.addrs.iter().copied())), Vec::new())
        }
    };
    Some(LookedUp { network: network.to_owned(), addresses, names })
}

/// Without repetitions, in order.
fn unique<T: PartialEq>(items: impl Iterator<Item = T>) -> Vec<T> {
    items.fold(Vec::new(), |mut all, item| {
        if !all.contains(&item) {
            all.push(item);
        }
        all
    })
}

fn taken(name: &str, holder: &str, network: &str) -> Failure {
    Failure::new(code::NAME_IN_USE, format!("{holder} is called {name} on the network {network}"))
        .hint("choose another name")
}

fn refused(error: &NameError, network: &str) -> Failure {
    match error {
        NameError::UnknownNetwork => {
            Failure::new(code::UNKNOWN_NETWORK, format!("there is no network {network}"))
        }
        NameError::Taken { name, holder } => taken(name, holder, network),
        NameError::TooLong(_) => Failure::new(code::BAD_USAGE, error.to_string())
            .hint("a name has at most 64 addresses and 64 services"),
        NameError::Clone(_) => Failure::new(code::CLONE, error.to_string())
            .hint("run it on another host, or stop one of the two"),
        NameError::Stopping => Failure::new(code::STOPPING, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::ports::tests::intent;
    use super::*;

    fn view(last: u8, names: &[&str], suspected: bool) -> NameView {
        NameView {
            peer: PeerId([last; 16]),
            id: [2; 8],
            network: intent(1).network,
            vni: Vni::MESH,
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            addresses: vec![[10, 0, 0, last].into()],
            services: vec![ServiceRecord { service: "_http._tcp".to_owned(), port: 80 }],
            suspected,
        }
    }

    #[test]
    fn a_look_up_finds_what_a_container_would() {
        let views = [view(1, &["web", "app"], true), view(2, &["db", "app"], false)];
        let addresses = |what: &str| {
            let found = look_up(&views, "mesh", what).map(|found| found.addresses).unwrap_or_default();
            found.iter().map(IpAddr::to_string).collect::<Vec<_>>()
        };
        for name in ["web", "WEB.", "web.mesh", "web.mesh.mesh.internal", "web.mesh.mesh.internal."] {
            assert_eq!(addresses(name), ["10.0.0.1"], "{name}");
        }
        assert_eq!(addresses("app"), ["10.0.0.2", "10.0.0.1"], "what is suspected comes last");
        assert_eq!(addresses("_http._tcp.db"), ["10.0.0.2"]);
        assert!(addresses("web.blue").is_empty() && addresses("mesh.internal").is_empty());
        assert_eq!(look_up(&views, "mesh", "10.0.0.1").unwrap().names, ["web.mesh.mesh.internal"]);
        assert!(look_up(&views, "mesh", "10.0.0.9").unwrap().names.is_empty());
        assert_eq!(look_up(&[], "mesh", "web"), None);
    }

    #[test]
    fn a_port_asks_for_its_own_network_first() {
        let dir = tempfile::tempdir().unwrap();
        let (mut ports, _) = Ports::load(dir.path()).unwrap();
        let (web, mut blue, mut other, mut closed) = (intent(1), intent(2), intent(3), intent(4));
        (blue.source, blue.vni, blue.order) = (web.source.clone(), Vni::new(9).unwrap(), 1);
        blue.links = vec![("c5".to_owned(), "foo".to_owned())];
        other.source = super::super::ports::Source::Process { pid: 9, start: 9 };
        closed.source = web.source.clone();
        for intent in [&web, &blue, &other, &closed] {
            ports.put(intent.clone()).unwrap();
        }
        let opened = [&web, &blue, &other].map(|i| i.port).into();
        let all = askers(&ports, &opened, |id| id != web.network);
        assert_eq!(all.len(), 3);
        assert_eq!(all[&web.port].networks, [web.vni, blue.vni]);
        assert_eq!(all[&blue.port].networks, [blue.vni, web.vni]);
        let link = [("foo".to_owned(), "c5.mesh".to_owned())];
        assert_eq!((&all[&blue.port].links[..], &all[&web.port].links[..]), (&link[..], &link[..]));
        assert!(all[&other.port].links.is_empty() && !all[&other.port].forwards);
    }

    #[test]
    fn a_service_is_offered_under_every_name() {
        match update(&MeshEvent::NameUp(view(1, &["web"], true))) {
            Some(Update::SetNames { services, suspected: true, holder, .. }) => {
                assert_eq!(services, [Service { name: "_http._tcp.web".to_owned(), port: 80 }]);
                assert_eq!(holder, Holder { peer: PeerId([1; 16]), id: [2; 8] });
            }
            other => panic!("{other:?}"),
        }
    }
}
