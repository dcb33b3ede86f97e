//! A device of the host through which super-frames leave whole.
//!
//! It is a TAP device that nobody reads. What is written to it carries its outer headers already
//! ([`crate::offload::tunnel`]); a small program at its entrance sends it on to the underlay's device, for which the
//! kernel finds the router and its address. Both are gone when the descriptors are closed. A packet that goes this
//! way passes no `OUTPUT` rule of the host's firewall.

mod program;
mod underlay;

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;

use super::netlink::{LinkChange, Netlink, NetlinkError};
use super::tap::{Tap, TapError};

pub use underlay::Underlay;

/// Why there is no such device.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// The TAP device, or what is asked of it: before Linux 6.17 it is not known.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// Its link.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// It vanished while it was set up.
    #[error("the device {0} is gone")]
    Gone(String),
    /// The program at its entrance.
    #[error("no program can be attached: {0}")]
    Program(io::Error),
}

/// One worker's device.
#[derive(Debug)]
pub struct Tunnel {
    tap: Tap,
    /// Holds the program in its place.
    _link: OwnedFd,
}

impl Tunnel {
    /// Makes the device of the worker with this number, in the namespace of the calling thread.
    pub fn open(worker: usize) -> Result<Self, TunnelError> {
        let name = format!("meshnet-out{worker}");
        let tap = Tap::create(&name, false)?;
        tap.carry_tunnels(&name)?;
        let netlink = Netlink::open()?;
        let link = netlink.link(&name)?.ok_or(TunnelError::Gone(name))?;
        silence(&link.name);
        let program = program::attach(link.index).map_err(TunnelError::Program)?;
        netlink.set_link(link.index, &LinkChange { up: Some(true), ..LinkChange::default() })?;
        Ok(Tunnel { tap, _link: program })
    }

    /// Sends a super-frame: `head` as `offload::tunnel::encapsulate` made it, then the frame. Never blocks.
    ///
    /// Errors as [`Tap::write_vectored`]. What happens behind the device is not reported.
    pub fn send(&self, head: &[u8], frame: &[u8]) -> io::Result<usize> {
        self.tap.write_vectored(&[IoSlice::new(head), IoSlice::new(frame)])
    }
}

/// Keeps the kernel from speaking IPv6 through a device that nobody reads.
#[allow(clippy::disallowed_methods, reason = "io: settings of a device are files")]
fn silence(ifname: &str) {
    // Where IPv6 is switched off there is nothing to silence.
    let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{ifname}/disable_ipv6"), "1");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::netns::Netns;

    #[test]
    fn the_device_comes_with_the_descriptor_and_goes_with_it() {
        let netns = Netns::create().expect("needs root");
        let tunnel = netns.run(|| Tunnel::open(0)).unwrap().unwrap();
        let again = netns.run(|| Tunnel::open(0)).unwrap();
        assert!(matches!(again, Err(TunnelError::Tap(e)) if e.is_retryable()), "the name is taken");
        let netlink = Netlink::open_in(&netns).unwrap();
        assert!(netlink.link("meshnet-out0").unwrap().is_some());
        drop(tunnel);
        assert!(netlink.link("meshnet-out0").unwrap().is_none());
    }
}
