//! The kernel's VXLAN device behind a bridge, a container on a veth at each host. On one host the bridge is all.

use anyhow::Result;
use netns_tests::{Container, Host, KernelContainer, KernelVtep, Topology, secs};

use super::{End, Lane, Route};
use crate::plan::Scene;

/// From a container of the first host to one of each other, or to a second one of the first.
pub(super) fn lane(topology: Topology, scene: Scene) -> Result<Lane> {
    let containers = match scene {
        Scene::Local => on_one_host(topology.all())?,
        Scene::Pair | Scene::Spread | Scene::Flooded => one_on_each(topology.all())?,
    };
    if let [first, others @ ..] = containers.as_slice() {
        others.iter().try_for_each(|other| first.ping_within(other, secs(10)).map(drop))?;
    }
    let route = Route::through(containers.iter().map(End::from).collect());
    Ok(Lane::new(topology, route)
        .with_containers(containers.iter().map(|container| Container::clone(container))))
}

fn one_on_each(hosts: &[Host]) -> Result<Vec<KernelContainer>> {
    let container = |(index, host): (usize, &Host)| {
        let remotes: Vec<&Host> = hosts.iter().filter(|other| other.name() != host.name()).collect();
        KernelVtep::new(host, &remotes)?.container(host.name(), &address(index))
    };
    hosts.iter().enumerate().map(container).collect()
}

fn on_one_host(hosts: &[Host]) -> Result<Vec<KernelContainer>> {
    let [host, other] = hosts else { anyhow::bail!("a pair of hosts was to be made") };
    let vtep = KernelVtep::new(host, &[other])?;
    (0..2).map(|index| vtep.container(&format!("c{index}"), &address(index))).collect()
}

fn address(index: usize) -> String {
    format!("10.99.0.{}/24", index + 1)
}
