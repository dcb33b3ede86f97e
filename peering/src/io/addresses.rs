//! The addresses under which this host may be reached, as they are when it is asked.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::SockaddrStorage;

use crate::records::MAX_ADDRESSES;

/// What people said of where this host is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The one address to listen on.
    pub(super) listen: Option<IpAddr>,
    /// The address to tell others, for peering and data.
    pub(super) advertise: Option<IpAddr>,
    /// The address to tell others, for data alone.
    pub(super) data: Option<IpAddr>,
    /// The UDP port of peering.
    pub(super) port: u16,
    /// The UDP port of the data plane.
    pub(super) data_port: u16,
}

/// Where this host is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Whereabouts {
    /// Where peering may be reached, best first.
    pub(super) control: Vec<SocketAddr>,
    /// Where the data plane may be reached, best first.
    pub(super) data: Vec<SocketAddr>,
    /// Every address of the host, those included that others have too; none when the system does not tell.
    pub(super) all: Option<BTreeSet<IpAddr>>,
}

impl Whereabouts {
    /// As it is now.
    pub(super) fn of(place: &Place) -> Self {
        let at = |configured: &[_], port| {
            let ips = candidates(configured, place.listen).into_iter().take(MAX_ADDRESSES);
            ips.map(|ip| SocketAddr::new(ip, port)).collect()
        };
        let interfaces = getifaddrs().ok();
        Whereabouts {
            control: at(&[place.advertise], place.port),
            data: at(&[place.data, place.advertise], place.data_port),
            all: interfaces.map(|all| all.filter_map(|interface| ip_of(&interface.address?)).collect()),
        }
    }

    /// Whether `ip` was an address of this host that it does not have any more.
    pub(super) fn lacks(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        !ip.is_loopback() && self.all.as_ref().is_some_and(|all| !all.contains(&ip))
    }
}

/// The addresses under which other hosts may reach this one: the configured ones, then the one that is listened on, or
/// without one those of the interfaces.
pub fn underlay_addresses(configured: &[Option<IpAddr>], listen: Option<IpAddr>) -> Vec<IpAddr> {
    candidates(configured, listen)
}

/// The addresses to tell others, best first and each once: the configured ones, then the one that is listened
/// on, or without one those of the interfaces.
fn candidates(configured: &[Option<IpAddr>], listen: Option<IpAddr>) -> Vec<IpAddr> {
    let own = match listen.filter(|ip| !ip.is_unspecified()) {
        Some(ip) => vec![ip],
        None => interface_addresses(listen.is_some_and(|ip| ip.is_ipv4())),
    };
    let mut all: Vec<IpAddr> = Vec::new();
    for ip in configured.iter().flatten().copied().chain(own) {
        let ip = ip.to_canonical();
        if !all.contains(&ip) {
            all.push(ip);
        }
    }
    all
}

/// What the interfaces that are up have, IPv4 first; without loopback, link-local addresses, the ports of the overlay
/// and the bridges of container engines, whose addresses are the same on every host.
fn interface_addresses(only_ipv4: bool) -> Vec<IpAddr> {
    let Ok(interfaces) = getifaddrs() else { return Vec::new() };
    let mut all: Vec<IpAddr> = interfaces
        .filter(|interface| interface.flags.contains(InterfaceFlags::IFF_UP))
        .filter(|interface| !interface.flags.contains(InterfaceFlags::IFF_LOOPBACK))
        .filter(|interface| {
            !is_local_bridge(&interface.interface_name) && !is_overlay(&interface.interface_name)
        })
        .filter_map(|interface| ip_of(&interface.address?))
        .filter(|ip| is_reachable(*ip) && (ip.is_ipv4() || !only_ipv4))
        .collect();
    all.sort_by_key(IpAddr::is_ipv6);
    all
}

fn ip_of(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}

fn is_reachable(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local() && !v4.is_unspecified(),
        IpAddr::V6(v6) => !v6.is_loopback() && !is_link_local(v6) && !v6.is_unspecified(),
    }
}

/// fe80::/10 (RFC 4291 section 2.5.6).
fn is_link_local(ip: Ipv6Addr) -> bool {
    ip.segments()[0] & 0xffc0 == 0xfe80
}

/// Bridges that container engines and hypervisors make for one host alone, by the names they give them.
fn is_local_bridge(name: &str) -> bool {
    let of_docker = name.strip_prefix("br-").is_some_and(|id| id.len() == 12 && id.bytes().all(is_hex));
    let prefixes = ["docker", "virbr", "cni", "podman", "lxcbr", "lxdbr", "cbr"];
    of_docker || prefixes.iter().any(|prefix| name.starts_with(prefix))
}

fn is_hex(byte: u8) -> bool {
    byte.is_ascii_hexdigit()
}

/// The port of an overlay, by its alias.
fn is_overlay(name: &str) -> bool {
    fs::read_to_string(format!("/sys/class/net/{name}/ifalias"))
        .is_ok_and(|alias| alias.starts_with("meshnet:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configured_addresses_come_first_and_listening_on_one_names_only_that() {
        let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
        let configured = [Some(ip("192.0.2.7")), None, Some(ip("::ffff:192.0.2.7"))];
        assert_eq!(candidates(&configured, Some(ip("127.0.0.2"))), [ip("192.0.2.7"), ip("127.0.0.2")]);
        let found = candidates(&[], None);
        assert!(found.iter().all(|ip| is_reachable(*ip)), "{found:?}");
        assert!(candidates(&[], Some(ip("0.0.0.0"))).iter().all(IpAddr::is_ipv4));
    }

    #[test]
    fn an_address_that_is_gone_is_missed() {
        let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
        let (control, data) = (Vec::new(), Vec::new());
        let here = Whereabouts { control, data, all: Some(BTreeSet::from([ip("192.0.2.7")])) };
        assert!(here.lacks(ip("192.0.2.8")) && !here.lacks(ip("::ffff:192.0.2.7")));
        assert!(!here.lacks(ip("127.0.0.5")), "all of them are there");
        assert!(!Whereabouts { all: None, ..here }.lacks(ip("192.0.2.8")), "nobody knows");
    }

    #[test]
    fn addresses_of_one_host_alone_are_left_out() {
        for local in ["127.0.0.1", "169.254.1.1", "::1", "fe80::1", "0.0.0.0"] {
            assert!(!is_reachable(local.parse().unwrap()), "{local}");
        }
        assert!(is_reachable("fd00::1".parse().unwrap()));
        assert!(
            is_local_bridge("docker0") && is_local_bridge("br-0123456789ab") && is_local_bridge("virbr0")
        );
        assert!(!is_local_bridge("br0") && !is_local_bridge("br-lan") && !is_local_bridge("eth0"));
    }
}
