//! Where the ranges of the networks meet addresses and routes of the host.
//!
//! Containers reach their network first: what the host reaches behind an overlapping route, they do not. That is a
//! warning. An underlay address in a range is an error: there containers would look for the host among themselves.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use engine::io::device::port_of;
use engine::io::netlink::{Netlink, NetlinkError};
use engine::types::{IpPrefix, NetworkId};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use peering::io::{DEFAULT_RANGE, underlay_addresses};
use peering::mesh::{MESH_NETWORK, NetworkSpec, NetworkView};

use super::networks::subnets;
use super::{Daemon, lock_of};
use crate::args::LaunchArgs;
use crate::failure::{Failure, code};
use crate::shape::Warning;

/// The network whose range is decided by the founding.
const MESH_NAME: &str = "mesh";

/// What was asked for at the launch.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    range: Option<Ipv4Net>,
    /// Nobody is asked: this host would found the cluster itself.
    alone: bool,
    /// The addresses that people named for it, and the one to listen on.
    named: [Option<IpAddr>; 2],
    listen: Option<IpAddr>,
}

/// What was found last.
#[derive(Clone, Default, Debug)]
pub(super) struct Findings {
    overlaps: Vec<String>,
    /// Underlay addresses that lie in a subnet of a network, by the network.
    swallowed: BTreeMap<String, String>,
}

/// A network, and the subnets that it has or would have.
type Ranges = (String, Vec<IpNet>);

impl Wish {
    pub(super) fn of(launch: &LaunchArgs) -> Self {
        Wish {
            range: launch.ipalloc_range,
            alone: launch.peers.is_empty(),
            named: [launch.data_addr, launch.advertise_addr],
            listen: launch.listen,
        }
    }

    /// Where the host may be reached now.
    fn underlay(&self) -> Vec<IpAddr> {
        underlay_addresses(&self.named, self.listen)
    }
}

impl Daemon {
    /// The warnings of a launch.
    ///
    /// # Errors
    /// An underlay address lies in the range, and the cluster that would have it is not founded yet.
    pub(super) async fn check_range_at_launch(self: &Arc<Self>) -> Result<Vec<String>, Failure> {
        self.check_range().await;
        let Findings { overlaps, mut swallowed } = lock_of(&self.range).clone();
        let founded = self.subnets_of_mesh().is_some();
        match swallowed.remove(MESH_NAME) {
            Some(message) if !founded => Err(unusable_mesh(&message)),
            message => Ok(overlaps.into_iter().chain(message).chain(swallowed.into_values()).collect()),
        }
    }

    /// Looks again, and tells what was not told.
    pub(super) async fn check_range(self: &Arc<Self>) {
        let ranges = self.ranges_in_question();
        let Ok(Ok(found)) = self.blocking(move |daemon| look(&ranges, &daemon.wish.underlay())).await else {
            return;
        };
        let before = std::mem::replace(&mut *lock_of(&self.range), found.clone());
        for overlap in found.overlaps.into_iter().filter(|it| !before.overlaps.contains(it)) {
            self.tell("range_overlaps", overlap);
        }
        for (network, swallowed) in found.swallowed {
            if before.swallowed.get(&network) != Some(&swallowed) {
                self.tell("range_unusable", swallowed);
            }
        }
    }

    /// What holds for as long as it holds, for `status`.
    pub(super) fn warnings(&self) -> Vec<Warning> {
        let Findings { overlaps, swallowed } = lock_of(&self.range).clone();
        let overlaps =
            overlaps.into_iter().map(|message| Warning { kind: "range_overlaps".to_owned(), message });
        let swallowed =
            swallowed.into_values().map(|message| Warning { kind: "range_unusable".to_owned(), message });
        overlaps.chain(swallowed).collect()
    }

    /// The subnets of a network, as far as they are known.
    pub(super) fn subnets(&self, network: NetworkId) -> Vec<IpPrefix> {
        let networks = self.networks.borrow();
        let all = networks.get(network).into_iter().flat_map(subnets);
        all.map(|subnet| IpPrefix { addr: subnet.network(), len: subnet.prefix_len() }).collect()
    }

    /// The host itself cannot be on a network and reach others of the same addresses elsewhere.
    pub(super) async fn refuse_overlaps(self: &Arc<Self>, network: NetworkId) -> Result<(), Failure> {
        let name = self.network_name(network);
        let all: Vec<IpNet> = self.networks.borrow().get(network).into_iter().flat_map(subnets).collect();
        let routes = self.blocking(|_| host_routes()).await?.map_err(Failure::internal)?;
        let mut pairs = all.iter().flat_map(|subnet| routes.iter().map(move |route| (subnet, route)));
        let Some((subnet, (route, ifname))) = pairs.find(|(subnet, route)| overlaps(**subnet, route.0))
        else {
            return Ok(());
        };
        let message = format!(
            "the subnet {subnet} of the network {name} overlaps this host's route to {route} ({ifname}), so this host \
             cannot be on that network"
        );
        Err(Failure::new(code::RANGE_OVERLAPS, message)
            .hint("remove the route if nothing needs it, or expose another host"))
    }

    /// No address is given out of a network that has an underlay address in it.
    pub(super) async fn refuse_unusable_range(
        self: &Arc<Self>,
        network: &NetworkView,
    ) -> Result<(), Failure> {
        if network.id == MESH_NETWORK {
            let known = lock_of(&self.range).swallowed.get(MESH_NAME).cloned();
            return known.map_or(Ok(()), |swallowed| Err(unusable_mesh(&swallowed)));
        }
        let subnets: Vec<IpNet> = subnets(network).collect();
        let name = network.name.clone();
        let found = self.blocking(move |daemon| swallowed(&name, &subnets, &daemon.wish.underlay())).await?;
        found.map_or(Ok(()), |swallowed| {
            Err(Failure::new(code::RANGE_UNUSABLE, swallowed)
                .hint("make the network again with another --subnet"))
        })
    }

    /// A network that could not be used here is not made here.
    pub(super) async fn refuse_swallowing(self: &Arc<Self>, spec: &NetworkSpec) -> Result<(), Failure> {
        let subnets: Vec<IpNet> = spec.subnets.iter().map(|subnet| subnet.subnet).collect();
        let name = spec.name.clone();
        let found = self.blocking(move |daemon| swallowed(&name, &subnets, &daemon.wish.underlay())).await?;
        found.map_or(Ok(()), |swallowed| {
            Err(Failure::new(code::RANGE_UNUSABLE, format!("--subnet: {swallowed}"))
                .hint("choose another subnet, or none to have a free one"))
        })
    }

    /// Where this host reaches something else than the overlay: no subnet is chosen there.
    pub(super) async fn elsewhere(self: &Arc<Self>) -> Result<Vec<IpNet>, Failure> {
        let routes = self.blocking(|_| host_routes()).await?.map_err(Failure::internal)?;
        Ok(routes.into_iter().map(|(route, _)| route).filter(|route| !is_everywhere(*route)).collect())
    }

    fn subnets_of_mesh(&self) -> Option<Vec<IpNet>> {
        let networks = self.networks.borrow();
        let mesh = networks.get(MESH_NETWORK).filter(|view| !view.subnets.is_empty());
        mesh.map(|view| subnets(view).collect())
    }

    /// The networks that this host uses, and the range that it would found the cluster with, as far as that is known.
    fn ranges_in_question(&self) -> Vec<Ranges> {
        let asked = || self.wish.range.or_else(|| self.wish.alone.then_some(DEFAULT_RANGE));
        let mesh = self.subnets_of_mesh().or_else(|| asked().map(|range| vec![IpNet::V4(range)]));
        let (networks, own) = (self.networks.borrow(), self.peering.peer_id());
        let used = networks.all().into_iter().filter(|view| view.id != MESH_NETWORK && view.is_used_by(own));
        let used = used.map(|view| (view.name.clone(), subnets(view).collect()));
        mesh.map(|mesh| (MESH_NAME.to_owned(), mesh)).into_iter().chain(used).collect()
    }
}

fn unusable_mesh(message: &str) -> Failure {
    Failure::new(code::RANGE_UNUSABLE, message)
        .hint("found the cluster with another range: `meshnet launch --ipalloc-range CIDR`")
}

fn look(ranges: &[Ranges], underlay: &[IpAddr]) -> Result<Findings, NetlinkError> {
    let routes = host_routes()?;
    let mut findings = Findings::default();
    for (network, subnets) in ranges {
        for subnet in subnets {
            let overlapping = routes.iter().filter(|(route, _)| overlaps(*subnet, *route));
            findings.overlaps.extend(overlapping.map(|(to, by)| overlap(network, *subnet, *to, by)));
        }
        let swallowed = swallowed(network, subnets, underlay);
        findings.swallowed.extend(swallowed.map(|message| (network.clone(), message)));
    }
    Ok(findings)
}

/// The routes of this host that are not its own on the overlay, each with its interface.
fn host_routes() -> Result<Vec<(IpNet, String)>, NetlinkError> {
    let netlink = Netlink::open()?;
    let links = netlink.links()?;
    let ports: Vec<u32> =
        links.iter().filter(|l| l.alias.as_deref().and_then(port_of).is_some()).map(|l| l.index).collect();
    let routes =
        netlink.routes()?.into_iter().filter(|route| route.index.is_none_or(|at| !ports.contains(&at)));
    let named = routes.filter_map(|route| {
        let destination = IpNet::new(route.destination.addr, route.destination.len).ok()?;
        let link = links.iter().find(|link| Some(link.index) == route.index);
        Some((destination, link.map_or_else(String::new, |link| link.name.clone())))
    });
    Ok(named.collect())
}

fn overlaps(subnet: IpNet, route: IpNet) -> bool {
    !is_everywhere(route) && (route.contains(&subnet.network()) || subnet.contains(&route.network()))
}

/// The default route is for what has no other; link-local addresses are on every link (RFC 4291 section 2.5.6), and so
/// are groups.
fn is_everywhere(route: IpNet) -> bool {
    let local = |net: Ipv6Net| net.network().is_unicast_link_local() || net.network().is_multicast();
    route.prefix_len() == 0 || matches!(route, IpNet::V6(net) if local(net))
}

fn overlap(network: &str, subnet: IpNet, destination: IpNet, interface: &str) -> String {
    format!(
        "the range {subnet} of the network {network} overlaps this host's route to {destination} ({interface}): containers \
         do not reach what is behind it"
    )
}

fn swallowed(network: &str, subnets: &[IpNet], underlay: &[IpAddr]) -> Option<String> {
    let mut pairs = underlay.iter().flat_map(|ip| subnets.iter().map(move |subnet| (ip, subnet)));
    pairs.find(|(ip, subnet)| subnet.contains(*ip)).map(|(ip, subnet)| {
        format!("the underlay address {ip} of this host lies in the range {subnet} of the network {network}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_that_are_wider_or_narrower_overlap() {
        let overlapping =
            |subnet: &str, route: &str| overlaps(subnet.parse().unwrap(), route.parse().unwrap());
        let v4 = |route| overlapping("10.32.0.0/12", route);
        assert!(v4("10.0.0.0/8") && v4("10.40.1.0/24") && v4("10.32.0.0/12"));
        assert!(!v4("0.0.0.0/0") && !v4("10.0.0.0/24") && !v4("fd00::/8"));
        let v6 = |route| overlapping("fd00:7::/64", route);
        assert!(v6("fd00::/8") && v6("fd00:7::9/128") && !v6("::/0") && !v6("fe80::/64") && !v6("ff00::/8"));
    }

    #[test]
    fn an_underlay_address_in_the_range_is_named() {
        let ips = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
        let subnets = ["10.32.0.0/12", "fd00:7::/64"].map(|text| text.parse().unwrap());
        let found = |texts: &[&str]| swallowed("blue", &subnets, &ips(texts));
        assert_eq!(found(&["192.0.2.1", "10.31.255.255", "fd00::1"]), None);
        assert!(found(&["192.0.2.1", "10.33.0.1"]).unwrap().contains("10.33.0.1"));
        assert!(found(&["192.0.2.1", "fd00:7::9"]).unwrap().contains("fd00:7::/64 of the network blue"));
    }
}
