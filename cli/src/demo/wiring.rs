//! Links and addresses of the demo.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use engine::io::netlink::{LinkChange, Netlink, Route, VxlanSpec};
use engine::io::netns::Netns;
use engine::types::{IpPrefix, Vni};

/// Names on the hosts of the comparison with the kernel.
const BRIDGE: &str = "kernel-bridge";
const VXLAN: &str = "kernel-vxlan";
const PORT: &str = "kernel-port";
/// The name of a container's interface behind the kernel's bridge.
const INSIDE: &str = "eth0";
/// Bytes of a wire's packets without offloads, and what VXLAN leaves of them (RFC 7348 section 5: 50 bytes of headers).
const WIRE_MTU: u32 = 1500;
const OVERLAY_MTU: u32 = WIRE_MTU - 50;

/// Switches the loopback interface of a namespace on.
pub(crate) fn loopback_up(netns: &Netns) -> Result<()> {
    change(&Netlink::open_in(netns)?, "lo", &on())
}

/// A veth pair, each end in its namespace under its name, both down.
pub(crate) fn veth([(near, near_name), (far, far_name)]: [(&Netns, &str); 2]) -> Result<()> {
    Ok(Netlink::open_in(near)?.add_veth(near_name, far_name, Some(far))?)
}

/// Gives a wire's end its address and switches it on; through it the other end's address is reachable, and nothing else.
pub(crate) fn point_to_point(netns: &Netns, ifname: &str, local: Ipv4Addr, remote: Ipv4Addr) -> Result<()> {
    let netlink = Netlink::open_in(netns)?;
    let index = index(&netlink, ifname)?;
    netlink.set_link(index, &LinkChange { mtu: Some(WIRE_MTU), ..on() })?;
    netlink.add_address(index, prefix(local, 32))?;
    Ok(netlink.add_route(&Route { destination: prefix(remote, 32), gateway: None, index: Some(index) })?)
}

/// A bridge with a VXLAN device from `local` to `remote`, in the namespace of a host.
pub(crate) fn kernel_vxlan(
    host: &Netns,
    vni: Vni,
    port: u16,
    local: Ipv4Addr,
    remote: Ipv4Addr,
) -> Result<()> {
    let netlink = Netlink::open_in(host)?;
    netlink.add_bridge(BRIDGE)?;
    change(&netlink, BRIDGE, &on())?;
    let spec = VxlanSpec { name: VXLAN, vni, remote: remote.into(), local: Some(local.into()), port };
    netlink.add_vxlan(&spec)?;
    change(&netlink, VXLAN, &bridged(index(&netlink, BRIDGE)?))
}

/// Connects a container to the bridge of [`kernel_vxlan`].
pub(crate) fn join_bridge(host: &Netns, container: &Netns, address: Ipv4Addr) -> Result<()> {
    veth([(host, PORT), (container, INSIDE)])?;
    let netlink = Netlink::open_in(host)?;
    change(&netlink, PORT, &bridged(index(&netlink, BRIDGE)?))?;
    let netlink = Netlink::open_in(container)?;
    change(&netlink, INSIDE, &LinkChange { mtu: Some(OVERLAY_MTU), ..on() })?;
    Ok(netlink.add_address(index(&netlink, INSIDE)?, prefix(address, 24))?)
}

/// Switches a link on and leaves the rest of it as it is.
fn on() -> LinkChange<'static> {
    LinkChange { up: Some(true), ..LinkChange::default() }
}

/// A port of the bridge, with room for the VXLAN header on the wire.
fn bridged(bridge: u32) -> LinkChange<'static> {
    LinkChange { master: Some(bridge), mtu: Some(OVERLAY_MTU), ..on() }
}

fn change(netlink: &Netlink, ifname: &str, change: &LinkChange<'_>) -> Result<()> {
    Ok(netlink.set_link(index(netlink, ifname)?, change)?)
}

fn index(netlink: &Netlink, ifname: &str) -> Result<u32> {
    Ok(netlink.link(ifname)?.with_context(|| format!("no interface {ifname}"))?.index)
}

fn prefix(addr: Ipv4Addr, len: u8) -> IpPrefix {
    IpPrefix { addr: addr.into(), len }
}
