//! The kernel's own VXLAN device on a host without a daemon.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, anyhow, ensure};

use crate::container::{Addressed, Container};
use crate::host::Host;

/// What plain VXLAN over IPv4 leaves of 1500 bytes.
const OVERLAY_MTU: u16 = 1450;

/// The number of the network `mesh`.
const MESH: u32 = 1;

/// A VXLAN device and a bridge, as an administrator would make them with `ip`.
#[derive(Debug)]
pub struct KernelVtep<'host> {
    host: &'host Host,
    overlay_mtu: u16,
    ports: AtomicU32,
}

impl<'host> KernelVtep<'host> {
    /// Makes it on `host` for the network `mesh`, towards these other hosts.
    pub fn new(host: &'host Host, remotes: &[&Host]) -> Result<Self> {
        Self::of_network(MESH, host, remotes)
    }

    /// The same for the network of this number (VNI).
    pub fn of_network(vni: u32, host: &'host Host, remotes: &[&Host]) -> Result<Self> {
        Self::with(vni, host, remotes, |host| host.address().into())
    }

    /// For the network `mesh`, over IPv6.
    pub fn over_ipv6(host: &'host Host, remotes: &[&Host]) -> Result<Self> {
        Self::of_network_over_ipv6(MESH, host, remotes)
    }

    /// For the network of this number (VNI), over IPv6.
    pub fn of_network_over_ipv6(vni: u32, host: &'host Host, remotes: &[&Host]) -> Result<Self> {
        Self::with(vni, host, remotes, |host| host.address6().into())
    }

    fn with(vni: u32, host: &'host Host, remotes: &[&Host], at: impl Fn(&Host) -> IpAddr) -> Result<Self> {
        let (first, rest) = remotes.split_first().ok_or_else(|| anyhow!("no remote"))?;
        let (local, namespace) = (at(host), host.namespace());
        let line = format!(
            "link add name vxlan1 type vxlan id {vni} dstport 4789 local {local} remote {}",
            at(first)
        );
        namespace.ip(&line)?;
        namespace.ip("link add name vbr1 type bridge stp_state 0 mcast_snooping 0")?;
        namespace.ip("link set dev vxlan1 master vbr1 up")?;
        namespace.ip("link set dev vbr1 up")?;
        for remote in rest {
            let line = format!("fdb append 00:00:00:00:00:00 dev vxlan1 dst {}", at(remote));
            host.tool("bridge").words(&line).run()?;
        }
        let overlay_mtu = if local.is_ipv6() { OVERLAY_MTU - 20 } else { OVERLAY_MTU };
        Ok(KernelVtep { host, overlay_mtu, ports: AtomicU32::new(0) })
    }

    /// A container behind the bridge with this address, as `10.47.0.9/12`.
    pub fn container(&self, name: &str, prefix: &str) -> Result<KernelContainer> {
        let container = Container::new(name)?;
        let pid = container.pid().ok_or_else(|| anyhow!("{name} has no process"))?;
        let port = format!("k{}", self.ports.fetch_add(1, Ordering::Relaxed));
        let (namespace, mtu) = (self.host.namespace(), self.overlay_mtu);
        namespace
            .ip(&format!("link add name {port} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {pid}"))?;
        namespace.ip(&format!("link set dev {port} master vbr1 up"))?;
        container.namespace().ip(&format!("address add {prefix} dev eth0"))?;
        container.namespace().ip("link set dev eth0 up")?;
        let address = prefix.split('/').next().unwrap_or_default().parse();
        ensure!(address.is_ok(), "{prefix} is no address with a prefix length");
        Ok(KernelContainer { container, address: address? })
    }
}

/// A container behind a kernel VTEP; otherwise a [`Container`].
#[derive(Clone, Debug)]
pub struct KernelContainer {
    container: Container,
    address: IpAddr,
}

impl std::ops::Deref for KernelContainer {
    type Target = Container;

    fn deref(&self) -> &Container {
        &self.container
    }
}

impl Addressed for KernelContainer {
    fn address(&self) -> IpAddr {
        self.address
    }
}
