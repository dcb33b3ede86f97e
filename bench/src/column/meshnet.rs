//! meshnet: a daemon on each host, a container attached to each; or two containers attached to one. Sealed or not is a matter
//! of options.

use anyhow::{Context, Result};
use netns_tests::{Attached, Container, Host, Topology, secs};

use super::{End, Lane, Route};
use crate::plan::Scene;

/// From a container of the first host to one of each other, or to a second one of the first; all daemons with these `options`.
pub(super) fn lane(topology: Topology, scene: Scene, options: &[&str]) -> Result<Lane> {
    let hosts = topology.all();
    for host in hosts {
        let first: &[&str] = if host.name() == "node01" { &[] } else { &["node01"] };
        host.launch(&[first, options].concat())?;
    }
    let attached: Vec<Attached> = match (scene, hosts) {
        (Scene::Local, [host, ..]) => {
            ["c1", "c2"].iter().map(|name| host.attach(name)).collect::<Result<_>>()
        }
        _ => hosts.iter().map(|host| host.attach(&format!("on-{}", host.name()))).collect(),
    }?;
    if let [first, others @ ..] = attached.as_slice() {
        others.iter().try_for_each(|other| first.ping_within(other, secs(20)).map(drop))?;
    }
    let mut route = Route::through(attached.iter().map(End::from).collect());
    route.daemons = hosts.iter().map(daemon).collect::<Result<_>>()?;
    let daemon_hosts = route.daemons.len();
    let devices = attached.iter().map(|it| (it.namespace().clone(), it.ifname.clone())).collect();
    let lane = Lane { daemon_hosts, devices, ..Lane::new(topology, route) };
    Ok(lane.with_containers(attached.iter().map(|it| Container::clone(it))))
}

fn daemon(host: &Host) -> Result<u32> {
    host.daemon_pid().with_context(|| format!("no daemon runs on {}", host.name()))
}
