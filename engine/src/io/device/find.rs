//! Finding the ports of a former process, opening them again, and removing them.

use super::{Device, DeviceError, GSO_MAX_SIZE, PortSpec, QUEUE_LEN, alias, port_of};
use crate::io::netlink::{Link, LinkChange, Netlink};
use crate::io::netns::Netns;
use crate::io::tap::{Tap, TapError};
use crate::types::PortId;

/// A device of ours that was found. Pins the namespace while it is held: use it and let go.
#[derive(Clone, Debug)]
pub struct Found {
    /// Which port, by its alias.
    pub port: PortId,
    /// Where it is.
    pub netns: Netns,
    /// The interface's name there.
    pub ifname: String,
}

/// The devices of `ports`, in whatever namespace they are. Ports without a device are left out.
pub fn find(ports: &[PortId]) -> Vec<Found> {
    let mut found = all();
    found.retain(|found| ports.contains(&found.port));
    found
}

/// Devices with an alias of ours that belong to none of the `known` ports.
pub fn strays(known: &[PortId]) -> Vec<Found> {
    let mut found = all();
    found.retain(|found| !known.contains(&found.port));
    found
}

/// Namespaces that die or cannot be entered on the way are skipped.
fn all() -> Vec<Found> {
    Netns::each().flat_map(|netns| devices_in(&netns).unwrap_or_default()).collect()
}

fn devices_in(netns: &Netns) -> Result<Vec<Found>, DeviceError> {
    let links = Netlink::open_in(netns)?.links()?;
    let found = links.into_iter().filter_map(|link| {
        let port = port_of(link.alias.as_deref()?)?;
        Some(Found { port, netns: netns.clone(), ifname: link.name })
    });
    Ok(found.collect())
}

/// Opens a device again, with as many queues as it can have, and agrees on the offloads anew; addresses,
/// routes and state of the interface stay as they are. Unless it is in the caller's own namespace, the
/// descriptors keep its namespace alive.
///
/// While the former process has it open, the error is [`TapError::Busy`] ([`DeviceError::is_retryable`]).
pub fn reopen(spec: &PortSpec, found: &Found) -> Result<Device, DeviceError> {
    let inside = Netlink::open_in(&found.netns)?;
    let link = find_again(&inside, found)?;
    let tun = link.tun.ok_or(DeviceError::Gone { port: found.port })?;
    // A multi-queue device could be opened beside the former process, which would go on taking its share.
    if tun.queues > 0 {
        return Err(TapError::Busy { name: link.name }.into());
    }
    let count = if tun.multi_queue { spec.queues.max(1) } else { 1 };
    let open = || (0..count).map(|_| Tap::open(&link.name, tun.multi_queue)).collect::<Result<Vec<_>, _>>();
    let queues = found.netns.run(open)??;
    // If the device was deleted since, the kernel has made a new one, which goes when `queues` is dropped.
    let link = find_again(&inside, found)?;
    let offloads = queues[0].negotiate_offloads();
    let change =
        LinkChange { txqueuelen: Some(QUEUE_LEN), gso_max_size: Some(GSO_MAX_SIZE), ..LinkChange::default() };
    inside.set_link(link.index, &change)?;
    let pins_namespace = Netns::current()? != found.netns;
    let netns = found.netns.id();
    Ok(Device { port: found.port, ifname: link.name, netns, queues, offloads, pins_namespace })
}

/// The link under the name it was found by, if it is still the same port's.
fn find_again(inside: &Netlink, found: &Found) -> Result<Link, DeviceError> {
    let link = inside.link(&found.ifname)?.filter(|link| link.alias == Some(alias(found.port)));
    link.ok_or(DeviceError::Gone { port: found.port })
}

/// Deletes the device of a port from `netns`; success when there is none. Whoever has it open reads `EBADFD`.
pub fn destroy(netns: &Netns, port: PortId) -> Result<(), DeviceError> {
    let inside = Netlink::open_in(netns)?;
    match inside.link_by_alias(&alias(port))? {
        Some(link) => Ok(inside.delete_link(link.index)?),
        None => Ok(()),
    }
}
