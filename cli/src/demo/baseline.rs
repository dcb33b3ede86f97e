//! What the overlay is compared with: the kernel's own VXLAN, on the same hosts and the same wire.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use engine::io::netns::Netns;
use engine::types::Vni;

use super::lab::{Lab, Route, namespace};
use super::wiring;

/// The kernel's VXLAN between two further containers on the two measured hosts: a bridge, a vxlan
/// device and a veth pair for each.
pub(crate) struct Baseline {
    containers: [Netns; 2],
}

impl Baseline {
    /// Its port, which the kernel used before one was assigned; the overlay has 4789.
    const PORT: u16 = 8472;
    const VNI: u32 = 42;
    const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 99, 0, 1), Ipv4Addr::new(10, 99, 0, 2)];

    /// Makes it.
    pub(crate) fn build(lab: &Lab) -> Result<Self> {
        let containers = [namespace()?, namespace()?];
        let [first, second] = lab.measured();
        let vni = Vni::new(Self::VNI).context("the comparison has no VNI")?;
        for (host, remote, container, address) in [
            (first, second, &containers[0], Self::ADDRESSES[0]),
            (second, first, &containers[1], Self::ADDRESSES[1]),
        ] {
            wiring::kernel_vxlan(&host.netns, vni, Self::PORT, host.address, remote.address)?;
            wiring::join_bridge(&host.netns, container, address)?;
        }
        Ok(Self { containers })
    }

    /// From the one container to the other.
    pub(crate) fn route(&self) -> Route<'_> {
        Route { from: &self.containers[0], receiver: &self.containers[1], to: Self::ADDRESSES[1] }
    }
}
