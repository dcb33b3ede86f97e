//! The three ways from one end to the other, on one kind of wire.

use std::net::IpAddr;

use anyhow::{Context, Result};
use netns_tests::{Attached, Host, KernelVtep, Namespace, Topology, Wire, secs};

use crate::plan::Column;

/// A way for traffic.
pub struct Route {
    /// Where it starts.
    pub from: Namespace,
    /// Where it ends.
    pub receiver: Namespace,
    /// The address of the end.
    pub to: IpAddr,
    /// Process ids of the daemons it goes through.
    pub daemons: Vec<u32>,
}

/// Two pairs of hosts with the same kind of wire: one for the bare wire and the kernel's VXLAN, one for meshnet.
pub struct Rig {
    kernel: Topology,
    meshnet: Topology,
}

impl Rig {
    /// Makes the hosts.
    pub fn build(wire: Wire) -> Result<Self> {
        let hosts = |what: &str| Topology::new(what)?.wire(wire).hosts(2);
        let rig = Self { kernel: hosts("bare wire and kernel VXLAN")?, meshnet: hosts("meshnet")? };
        rig.meshnet.host(0).launch(&[])?;
        rig.meshnet.host(1).launch(&["node01"])?;
        Ok(rig)
    }

    /// Calls `measure` with the route of every column; they live for as long as it runs.
    pub fn with_routes<T>(&self, measure: impl FnOnce(&dyn Fn(Column) -> Route) -> Result<T>) -> Result<T> {
        let [a, b] = [self.kernel.host(0), self.kernel.host(1)];
        let vteps = [KernelVtep::new(a, &[b])?, KernelVtep::new(b, &[a])?];
        let behind = [vteps[0].container("k1", "10.99.0.1/24")?, vteps[1].container("k2", "10.99.0.2/24")?];
        let [x, y] = [self.meshnet.host(0), self.meshnet.host(1)];
        let attached = [x.attach("c1")?, y.attach("c2")?];
        attached[0].ping_within(&attached[1], secs(20))?;
        let daemons = [daemon(x)?, daemon(y)?];
        measure(&|column| match column {
            Column::BareVeth => route(a.namespace(), b.namespace(), b.address().into(), &[]),
            Column::KernelVxlan => {
                let [from, to] = [&behind[0], &behind[1]];
                route(from.namespace(), to.namespace(), netns_tests::Addressed::address(to), &[])
            }
            Column::Meshnet => between(&attached, &daemons),
        })
    }
}

fn between([from, to]: &[Attached; 2], daemons: &[u32]) -> Route {
    route(from.namespace(), to.namespace(), to.address, daemons)
}

fn route(from: &Namespace, receiver: &Namespace, to: IpAddr, daemons: &[u32]) -> Route {
    Route { from: from.clone(), receiver: receiver.clone(), to, daemons: daemons.to_vec() }
}

fn daemon(host: &Host) -> Result<u32> {
    host.daemon_pid().with_context(|| format!("no daemon runs on {}", host.name()))
}
