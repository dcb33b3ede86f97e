//! Where the range of the overlay meets addresses and routes of the host.
//!
//! Containers reach their network first: what the host reaches behind an overlapping route, they do not. That is a
//! warning. An underlay address in the range is an error: there containers would look for the host among themselves.

use std::net::IpAddr;
use std::sync::Arc;

use engine::io::device::port_of;
use engine::io::netlink::{Netlink, NetlinkError};
use engine::types::IpPrefix;
use ipnet::{IpNet, Ipv4Net};
use peering::io::{DEFAULT_RANGE, underlay_addresses};

use super::{Daemon, lock_of};
use crate::args::LaunchArgs;
use crate::failure::{Failure, code};
use crate::shape::Warning;

/// The network whose range it is.
const NETWORK: &str = "mesh";

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
    /// An underlay address that lies in the range.
    swallowed: Option<String>,
}

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
        let founded = self.cluster_range().is_some();
        let findings = lock_of(&self.range).clone();
        match findings.swallowed {
            Some(swallowed) if !founded => Err(unusable(&swallowed)),
            swallowed => Ok(findings.overlaps.into_iter().chain(swallowed).collect()),
        }
    }

    /// Looks again, and tells what was not told.
    pub(super) async fn check_range(self: &Arc<Self>) {
        let Some(range) = self.range_in_question() else { return };
        let Ok(Ok(found)) = self.blocking(move |daemon| look(range, &daemon.wish.underlay())).await else {
            return;
        };
        let before = std::mem::replace(&mut *lock_of(&self.range), found.clone());
        for overlap in found.overlaps.into_iter().filter(|it| !before.overlaps.contains(it)) {
            self.tell("range_overlaps", overlap);
        }
        if let Some(swallowed) = found.swallowed.filter(|it| before.swallowed.as_ref() != Some(it)) {
            self.tell("range_unusable", swallowed);
        }
    }

    /// What holds for as long as it holds, for `status`.
    pub(super) fn warnings(&self) -> Vec<Warning> {
        let Findings { overlaps, swallowed } = lock_of(&self.range).clone();
        let overlaps =
            overlaps.into_iter().map(|message| Warning { kind: "range_overlaps".to_owned(), message });
        let swallowed = swallowed.map(|message| Warning { kind: "range_unusable".to_owned(), message });
        overlaps.chain(swallowed).collect()
    }

    /// The subnets of a network, as far as they are known.
    pub(super) fn subnets(&self, network: &str) -> Vec<IpPrefix> {
        let range = self.networks.borrow().get(network).and_then(|network| network.range);
        range
            .map(|range| IpPrefix { addr: range.network().into(), len: range.prefix_len() })
            .into_iter()
            .collect()
    }

    /// The host itself cannot be on a network and reach others of the same addresses elsewhere.
    pub(super) async fn refuse_overlaps(self: &Arc<Self>, network: &str) -> Result<(), Failure> {
        let subnets = self.subnets(network);
        let routes = self.blocking(|_| host_routes()).await?.map_err(Failure::internal)?;
        let all = subnets.iter().filter_map(|subnet| IpNet::new(subnet.addr, subnet.len).ok());
        let mut overlaps = all.flat_map(|subnet| routes.iter().map(move |route| (subnet, route)));
        let Some((subnet, (route, ifname))) =
            overlaps.find(|(subnet, route)| overlaps_with(*subnet, route.0))
        else {
            return Ok(());
        };
        let message = format!(
            "the subnet {subnet} of the network {network} overlaps this host's route to {route} ({ifname}), so this host \
             cannot be on that network"
        );
        Err(Failure::new(code::RANGE_OVERLAPS, message)
            .hint("remove the route if nothing needs it, or expose another host"))
    }

    /// No address is given out of a range that has an underlay address in it.
    pub(super) fn refuse_unusable_range(&self) -> Result<(), Failure> {
        lock_of(&self.range).swallowed.as_deref().map_or(Ok(()), |swallowed| Err(unusable(swallowed)))
    }

    fn cluster_range(&self) -> Option<Ipv4Net> {
        self.networks.borrow().get(NETWORK).and_then(|network| network.range)
    }

    /// The range of the cluster, else the one that this host would found it with, as far as that is known.
    fn range_in_question(&self) -> Option<Ipv4Net> {
        let asked = || self.wish.range.or_else(|| self.wish.alone.then_some(DEFAULT_RANGE));
        self.cluster_range().or_else(asked)
    }
}

fn unusable(message: &str) -> Failure {
    Failure::new(code::RANGE_UNUSABLE, message)
        .hint("found the cluster with another range: `meshnet launch --ipalloc-range CIDR`")
}

fn look(range: Ipv4Net, underlay: &[IpAddr]) -> Result<Findings, NetlinkError> {
    let routes = host_routes()?.into_iter().filter(|(route, _)| overlaps_with(range.into(), *route));
    let overlaps = routes.map(|(route, ifname)| overlap(range, route, &ifname)).collect();
    Ok(Findings { overlaps, swallowed: swallowed(range, underlay) })
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

/// The default route is for what has no other; link-local addresses are everywhere (RFC 4291 section 2.5.6).
fn overlaps_with(subnet: IpNet, route: IpNet) -> bool {
    let everywhere = route.prefix_len() == 0
        || matches!(route, IpNet::V6(route) if route.network().is_unicast_link_local());
    !everywhere && (route.contains(&subnet.network()) || subnet.contains(&route.network()))
}

fn overlap(range: Ipv4Net, destination: IpNet, interface: &str) -> String {
    format!(
        "the range {range} of the network {NETWORK} overlaps this host's route to {destination} ({interface}): containers \
         do not reach what is behind it"
    )
}

fn swallowed(range: Ipv4Net, underlay: &[IpAddr]) -> Option<String> {
    let inside = |ip: &&IpAddr| matches!(ip, IpAddr::V4(ip) if range.contains(ip));
    underlay.iter().find(inside).map(|ip| {
        format!("the underlay address {ip} of this host lies in the range {range} of the network {NETWORK}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range() -> Ipv4Net {
        "10.32.0.0/12".parse().unwrap()
    }

    #[test]
    fn routes_that_are_wider_or_narrower_overlap() {
        let overlapping = |text: &str| overlaps_with(range().into(), text.parse().unwrap());
        assert!(overlapping("10.0.0.0/8") && overlapping("10.40.1.0/24") && overlapping("10.32.0.0/12"));
        let sixth = |text: &str| overlaps_with("fd00:7::/64".parse().unwrap(), text.parse().unwrap());
        assert!(sixth("fd00::/8") && sixth("fd00:7::9/128") && !sixth("::/0") && !sixth("fe80::/64"));
        assert!(!overlapping("0.0.0.0/0") && !overlapping("10.0.0.0/24") && !overlapping("fd00::/8"));
    }

    #[test]
    fn an_underlay_address_in_the_range_is_named() {
        let ips = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
        assert_eq!(swallowed(range(), &ips(&["192.0.2.1", "10.31.255.255", "fd00::1"])), None);
        assert!(swallowed(range(), &ips(&["192.0.2.1", "10.33.0.1"])).unwrap().contains("10.33.0.1"));
    }
}
