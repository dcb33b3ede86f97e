//! Changing the length of a port's ring while frames pass.

use super::{DeviceError, alias};
use crate::io::netlink::{LinkChange, Netlink};
use crate::io::netns::Netns;
use crate::types::PortId;

/// Makes the ring `to` frames long if it has `from`; what waits in it and finds no more room is lost. False: it had
/// another length, which somebody chose, and keeps it.
pub fn resize(netns: &Netns, port: PortId, (from, to): (u32, u32)) -> Result<bool, DeviceError> {
    let inside = Netlink::open_in(netns)?;
    let link = inside.link_by_alias(&alias(port))?.ok_or(DeviceError::Gone { port })?;
    if link.txqueuelen != from {
        return Ok(false);
    }
    inside.set_link(link.index, &LinkChange { txqueuelen: Some(to), ..LinkChange::default() })?;
    Ok(true)
}
