//! Links, addresses and routes on a real kernel.

#![cfg(feature = "io")]
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests use plain sockets")]

mod devices_support;

use std::net::UdpSocket;
use std::time::Duration;

use devices_support::{eventually, namespace, prefix, wired_pair};
use engine::io::netlink::{LinkChange, Netlink, Route, VxlanSpec};
use engine::types::{MacAddr, Vni};

#[test]
fn a_link_is_found_and_changed() {
    let (netns, other) = (namespace(), namespace());
    let netlink = Netlink::open_in(&netns).unwrap();
    netlink.add_veth("a", "b", Some(&other)).unwrap();
    let a = netlink.link("a").unwrap().unwrap();
    assert_eq!((a.kind.as_deref(), a.alias, a.up), (Some("veth"), None, false));
    let change = LinkChange {
        name: Some("c"),
        mac: Some(MacAddr([2, 0, 0, 0, 0, 7])),
        mtu: Some(1400),
        alias: Some("a wire"),
        txqueuelen: Some(123),
        gso_max_size: Some(30_000),
        up: Some(true),
        ..LinkChange::default()
    };
    netlink.set_link(a.index, &change).unwrap();
    assert_eq!(netlink.link("a").unwrap(), None);
    let c = netlink.link_by_alias("a wire").unwrap().unwrap();
    assert_eq!(Some(&c), netlink.link_by_index(a.index).unwrap().as_ref());
    assert_eq!((c.name.as_str(), c.mac, c.mtu, c.up), ("c", change.mac, 1400, true));
    assert_eq!((c.txqueuelen, c.gso_max_size, c.gso_ipv4_max_size), (123, 30_000, Some(30_000)));
    assert!(!c.carrier, "the other end is down");
    let mut names: Vec<_> = netlink.links().unwrap().into_iter().map(|link| link.name).collect();
    names.sort();
    assert_eq!(names, ["c", "lo"]);
    let moved = LinkChange { name: Some("d"), netns: Some(&other), ..LinkChange::default() };
    netlink.set_link(c.index, &moved).unwrap();
    assert_eq!(netlink.link("c").unwrap(), None);
    let there = Netlink::open_in(&other).unwrap();
    let d = there.link("d").unwrap().unwrap();
    assert_eq!((d.alias.as_deref(), d.mac, d.up), (Some("a wire"), change.mac, false));
    there.delete_link(d.index).unwrap();
    there.delete_link(d.index).unwrap();
    assert_eq!(there.link("b").unwrap(), None, "a pair goes together");
}

#[test]
fn refusals_say_what_was_tried() {
    let netns = namespace();
    let netlink = Netlink::open_in(&netns).unwrap();
    netlink.add_bridge("br0").unwrap();
    let e = netlink.add_bridge("br0").unwrap_err();
    assert_eq!(e.raw_os_error(), Some(libc::EEXIST));
    assert!(e.to_string().starts_with("cannot make the bridge br0: File exists"), "{e}");
    let e = netlink.add_address(4711, prefix("10.0.0.1", 24)).unwrap_err();
    assert_eq!(e.raw_os_error(), Some(libc::ENODEV));
    let route = Route {
        destination: prefix("10.1.0.0", 16),
        gateway: Some("10.9.9.9".parse().unwrap()),
        index: None,
    };
    let e = netlink.add_route(&route).unwrap_err();
    assert_eq!(
        e.to_string(),
        "cannot add a route to 10.1.0.0/16: Network is unreachable (os error 101) (Nexthop has invalid gateway)"
    );
    assert_eq!(netlink.link("a-name-that-is-far-too-long").unwrap_err().raw_os_error(), Some(libc::ERANGE));
}

#[test]
fn addresses_and_routes_are_listed_as_they_were_added() {
    let [here, _there] = wired_pair();
    let netlink = Netlink::open_in(&here).unwrap();
    let index = netlink.link("under0").unwrap().unwrap().index;
    netlink.add_address(index, prefix("192.0.2.1", 24)).unwrap();
    let addresses: Vec<_> = netlink.addresses().unwrap().into_iter().filter(|a| a.index == index).collect();
    for own in [prefix("192.0.2.1", 24), prefix("fd00::1", 64)] {
        assert_eq!(addresses.iter().filter(|a| a.prefix == own).count(), 1, "{own}");
    }
    let routes = [
        Route {
            destination: prefix("0.0.0.0", 0),
            gateway: Some("192.0.2.2".parse().unwrap()),
            index: Some(index),
        },
        Route { destination: prefix("::", 0), gateway: Some("fd00::2".parse().unwrap()), index: Some(index) },
        Route { destination: prefix("203.0.113.0", 25), gateway: None, index: Some(index) },
        Route { destination: prefix("fd01::", 48), gateway: None, index: Some(index) },
    ];
    for route in &routes {
        netlink.add_route(route).unwrap();
    }
    let listed = netlink.routes().unwrap();
    for route in routes {
        assert!(listed.contains(&route), "{route:?} in {listed:?}");
    }
}

#[test]
fn hundreds_of_links_are_listed_whole() {
    let netns = namespace();
    let netlink = Netlink::open_in(&netns).unwrap();
    for number in 0..150 {
        netlink.add_veth(&format!("a{number}"), &format!("b{number}"), None).unwrap();
    }
    assert_eq!(netlink.links().unwrap().len(), 301);
}

#[test]
fn kernel_vxlan_behind_a_bridge_joins_two_hosts() {
    let hosts = wired_pair();
    let containers = [namespace(), namespace()];
    for (at, container) in containers.iter().enumerate() {
        let netlink = Netlink::open_in(&hosts[at]).unwrap();
        let remote = format!("192.0.2.{}", 2 - at).parse().unwrap();
        let local = Some(format!("192.0.2.{}", 1 + at).parse().unwrap());
        netlink.add_vxlan(&VxlanSpec { name: "vx0", vni: Vni::MESH, remote, local, port: 4789 }).unwrap();
        netlink.add_bridge("br0").unwrap();
        netlink.add_veth("port0", "eth0", Some(container)).unwrap();
        let bridge = netlink.link("br0").unwrap().unwrap().index;
        for name in ["vx0", "port0", "br0"] {
            let link = netlink.link(name).unwrap().unwrap();
            let master = (name != "br0").then_some(bridge);
            netlink
                .set_link(link.index, &LinkChange { master, up: Some(true), ..LinkChange::default() })
                .unwrap();
        }
        assert_eq!(netlink.link("vx0").unwrap().unwrap().kind.as_deref(), Some("vxlan"));
        assert_eq!(netlink.link("port0").unwrap().unwrap().master, Some(bridge));
        let inside = Netlink::open_in(container).unwrap();
        let eth0 = inside.link("eth0").unwrap().unwrap().index;
        inside.add_address(eth0, prefix(&format!("10.32.0.{}", 1 + at), 12)).unwrap();
        inside
            .set_link(eth0, &LinkChange { mtu: Some(1450), up: Some(true), ..LinkChange::default() })
            .unwrap();
    }
    let [from, to] = [0, 1].map(|at| {
        let addr = format!("10.32.0.{}:7000", 1 + at);
        containers[at].run(|| UdpSocket::bind(addr)).unwrap().unwrap()
    });
    to.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut buffer = [0; 16];
    eventually("a datagram crosses", || {
        from.send_to(b"across", "10.32.0.2:7000").unwrap();
        to.recv(&mut buffer).is_ok()
    });
    assert_eq!(&buffer[..6], b"across");
}
