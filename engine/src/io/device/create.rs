//! Making a port: outside, where the descriptors pin nothing, then moved in.

use super::{Device, DeviceError, GSO_MAX_SIZE, PortSpec, QUEUE_LEN, alias};
use crate::io::netlink::{Link, LinkChange, Netlink, NetlinkError};
use crate::io::netns::{Netns, NetnsError};
use crate::io::tap::{Tap, TapError, is_valid_name};
use crate::types::{IpPrefix, PortId};

/// What the kernel makes the next free number of.
const DEFAULT_NAME: &str = "mesh%d";

/// Makes the device of a port in `netns`, up and with its addresses; call it in the daemon's own namespace.
///
/// The device is opened here under a temporary name and moved, so that its descriptors do not keep `netns`
/// alive: when that dies, reads give `EBADFD`. It becomes persistent in the very last step: after any error,
/// or the death of the process on the way, nothing is left behind.
pub fn create(spec: &PortSpec, netns: &Netns) -> Result<Device, DeviceError> {
    let inside = Netlink::open_in(netns)?;
    check_free(spec, &inside)?;
    let queues = open_queues(spec)?;
    let offloads = queues[0].negotiate_offloads();
    move_in(spec, netns)?;
    let link = inside.link_by_alias(&alias(spec.port))?.ok_or(DeviceError::Gone { port: spec.port })?;
    apply_settings(netns, &link)?;
    switch_ipv6_on(netns, &link, &spec.addresses)?;
    set_up(spec, &inside, &link)?;
    queues[0].set_persistent(true).map_err(|source| {
        let action = "make persistent";
        TapError::Io { action, name: link.name.clone(), source }
    })?;
    let (ifname, netns) = (link.name, netns.id());
    Ok(Device { port: spec.port, ifname, netns, queues, offloads, pins_namespace: false })
}

fn check_free(spec: &PortSpec, inside: &Netlink) -> Result<(), DeviceError> {
    let wanted = spec.ifname.as_deref();
    if let Some(name) = wanted.filter(|name| !is_valid_name(name)) {
        return Err(TapError::BadName { name: name.to_owned() }.into());
    }
    let alias = alias(spec.port);
    for link in inside.links()? {
        if link.alias.as_ref() == Some(&alias) {
            return Err(DeviceError::Exists { port: spec.port, ifname: link.name });
        }
        if wanted == Some(link.name.as_str()) {
            return Err(DeviceError::NameInUse { ifname: link.name });
        }
    }
    Ok(())
}

/// A name that no other port's device has on its way.
fn temporary_name(spec: &PortSpec) -> String {
    let mut name = format!("mn{}", spec.port);
    name.truncate(crate::io::tap::MAX_NAME_LEN);
    name
}

fn open_queues(spec: &PortSpec) -> Result<Vec<Tap>, DeviceError> {
    let name = temporary_name(spec);
    let multi_queue = spec.queues > 1;
    let mut queues = vec![Tap::create(&name, multi_queue)?];
    while queues.len() < spec.queues {
        queues.push(Tap::open(&name, multi_queue)?);
    }
    Ok(queues)
}

/// Moves the device into `netns` and renames it; where it is there already, only renames it.
fn move_in(spec: &PortSpec, netns: &Netns) -> Result<(), DeviceError> {
    let here = Netlink::open()?;
    let link = here.link(&temporary_name(spec))?.ok_or(DeviceError::Gone { port: spec.port })?;
    let alias = alias(spec.port);
    let marks = LinkChange {
        alias: Some(&alias),
        mtu: Some(u32::from(spec.mtu)),
        txqueuelen: Some(QUEUE_LEN),
        gso_max_size: Some(GSO_MAX_SIZE),
        ..LinkChange::default()
    };
    here.set_link(link.index, &marks)?;
    let name = spec.ifname.as_deref().unwrap_or(DEFAULT_NAME);
    let is_elsewhere = Netns::current()? != *netns;
    let place =
        LinkChange { name: Some(name), netns: is_elsewhere.then_some(netns), ..LinkChange::default() };
    here.set_link(link.index, &place).map_err(|e| match e.raw_os_error() {
        Some(libc::EEXIST) => DeviceError::NameInUse { ifname: name.to_owned() },
        _ => e.into(),
    })
}

/// Settings of the interface (Documentation/networking/ip-sysctl.rst). The kernel announces the addresses once the device
/// is up: who has spoken with the former holder of an address learns its new MAC. And it keeps what it knows of neighbours while
/// there is no carrier: else a connection waits, after a restart of the daemon, for up to a second until the kernel asks again.
const SETTINGS: [(&str, &str, &str); 4] = [
    ("ipv4", "arp_notify", "1"),
    ("ipv6", "ndisc_notify", "1"),
    ("ipv4", "arp_evict_nocarrier", "0"),
    ("ipv6", "ndisc_evict_nocarrier", "0"),
];

fn apply_settings(netns: &Netns, link: &Link) -> Result<(), NetnsError> {
    netns.run(|| {
        for (family, setting, value) in SETTINGS {
            // A family that is switched off has no neighbours, an older kernel not all of them; without, all works later.
            let _ = std::fs::write(format!("/proc/sys/net/{family}/conf/{}/{setting}", link.name), value);
        }
    })
}

/// Docker switches IPv6 off in all its containers, and on for the interfaces that it gives an address of it; so is this one.
fn switch_ipv6_on(netns: &Netns, link: &Link, addresses: &[IpPrefix]) -> Result<(), NetnsError> {
    if !addresses.iter().any(|prefix| prefix.addr.is_ipv6()) {
        return Ok(());
    }
    netns.run(|| {
        // Without, adding the address says so.
        let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", link.name), "0");
    })
}

/// The MAC address is set inside, where no device daemon of the host can interfere. Without a queueing discipline
/// frames go straight to the ring of the device, which takes them or drops them and never pushes back; of a
/// multi-queue device the default, `mq`, would also cost hundreds of child queues.
fn set_up(spec: &PortSpec, inside: &Netlink, link: &Link) -> Result<(), DeviceError> {
    inside.set_noqueue(link.index)?;
    for prefix in &spec.addresses {
        inside.add_address(link.index, *prefix).map_err(|e| address_error(e, *prefix))?;
    }
    let change = LinkChange { mac: Some(spec.mac), up: Some(true), ..LinkChange::default() };
    Ok(inside.set_link(link.index, &change)?)
}

/// Takes the `former` addresses from the interface of a port and gives it those it has now. Others that somebody gave it
/// stay, as far as the kernel lets them.
pub fn readdress(
    netns: &Netns,
    port: PortId,
    former: &[IpPrefix],
    addresses: &[IpPrefix],
) -> Result<(), DeviceError> {
    let inside = Netlink::open_in(netns)?;
    let link = inside.link_by_alias(&alias(port))?.ok_or(DeviceError::Gone { port })?;
    switch_ipv6_on(netns, &link, addresses)?;
    for prefix in former.iter().filter(|prefix| !addresses.contains(prefix)) {
        inside.remove_address(link.index, *prefix)?;
    }
    for prefix in addresses {
        inside.add_address(link.index, *prefix).map_err(|e| address_error(e, *prefix))?;
    }
    Ok(())
}

fn address_error(e: NetlinkError, prefix: IpPrefix) -> DeviceError {
    match e.raw_os_error() {
        Some(libc::EACCES | libc::EAFNOSUPPORT | libc::EOPNOTSUPP) if prefix.addr.is_ipv6() => {
            DeviceError::Ipv6Off { prefix }
        }
        _ => e.into(),
    }
}
