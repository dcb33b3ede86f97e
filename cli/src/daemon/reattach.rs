//! At launch: the ports of the last daemon are taken up again, or what is left of them is cleared away.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::Update;
use engine::io::device::{self, Device, DeviceError};
use engine::types::{IpPrefix, PortId, Vni};

use super::devices::{endpoint, spec};
use super::ports::{Intent, Source};
use super::{Daemon, recover};
use crate::failure::{Failure, code};

/// How long a device may still be open in a process that has ended.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is tried meanwhile.
const RETRY: Duration = Duration::from_millis(10);

/// Takes up every port whose device still stands, makes those again whose container lives on without one, and
/// removes the rest. Docker containers without a device wait for what Docker says of them.
pub(super) async fn reattach(daemon: &Arc<Daemon>) -> Result<(), Failure> {
    let _turn = daemon.turn.lock().await;
    recover::recover(daemon).await?;
    let intents: Vec<Intent> = daemon.ports().all().cloned().collect();
    let seals = daemon.seals();
    let known = daemon.networks.borrow().clone();
    let of = |vni| known.values().find(|network| network.vni == vni);
    let sealed = |vni| seals || of(vni).is_some_and(|network| network.encrypted);
    let gateways = |vni| of(vni).map_or_else(Vec::new, |network| network.gateways.clone());
    let name_of = |vni| known.iter().find(|(_, network)| network.vni == vni).map(|(name, _)| name.clone());
    daemon.engine.apply(networks(&intents, name_of, sealed, gateways));
    let ids: Vec<PortId> = intents.iter().map(|i| i.port).collect();
    // What the control plane remembers of other ports was left by a daemon that did not get further.
    daemon.peering.retain(ids.iter().copied().collect()).await;
    let found = match ids.as_slice() {
        [] => Vec::new(),
        _ => daemon.blocking(move |_| device::find(&ids)).await?,
    };
    let mut found: BTreeMap<PortId, device::Found> = found.into_iter().map(|f| (f.port, f)).collect();
    for intent in intents {
        let container = intent.container.clone();
        let device = found.remove(&intent.port);
        if let Err(failure) = take_up(daemon, intent, device).await {
            daemon.tell("port_lost", format!("the port of {container} could not be taken up: {failure}"));
        }
    }
    Ok(())
}

async fn take_up(daemon: &Arc<Daemon>, intent: Intent, device: Option<device::Found>) -> Result<(), Failure> {
    match device {
        Some(found) => reopen(daemon, intent, found).await,
        None => missing(daemon, intent).await,
    }
}

/// The device stands: its descriptors are opened again, and the container has noticed nothing.
pub(super) async fn reopen(
    daemon: &Arc<Daemon>,
    intent: Intent,
    found: device::Found,
) -> Result<(), Failure> {
    let spec = spec(&intent, daemon.engine.workers());
    let id = found.netns.id();
    let reopened = daemon.blocking(move |_| patiently(|| device::reopen(&spec, &found))).await?;
    let device = reopened.map_err(|e| Failure::new(code::DEVICE_FAILED, e.to_string()))?;
    let ifname = Some(device.ifname.clone());
    let mut intent = Intent { netns: (id.dev, id.ino), ifname, running: true, ..intent };
    daemon.admit_outlet(&intent).await?;
    daemon.open_device(device, &intent)?;
    if !intent.former.is_empty() {
        daemon.change_addresses(&intent).await?;
        intent.former.clear();
    }
    daemon.keep(intent.clone()).await?;
    daemon.peering.put_endpoint(endpoint(&intent)).await;
    tracing::info!(container = intent.container, port = %intent.port, "taken up again");
    Ok(())
}

/// Tries again while the process that had the device is still closing it.
fn patiently(reopen: impl Fn() -> Result<Device, DeviceError>) -> Result<Device, DeviceError> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        match reopen() {
            Err(error) if error.is_retryable() && Instant::now() < give_up => std::thread::sleep(RETRY),
            result => return result,
        }
    }
}

/// The device is gone: with its container, or alone.
async fn missing(daemon: &Arc<Daemon>, intent: Intent) -> Result<(), Failure> {
    if let Source::Docker { .. } = intent.source {
        return daemon.stop_port(intent).await;
    }
    match intent.present_netns() {
        Some(netns) => daemon.start_port(intent, &netns).await.map(drop),
        None => {
            daemon.remove_port(&intent, None).await;
            tracing::info!(container = intent.container, port = %intent.port, "ended while no daemon ran");
            Ok(())
        }
    }
}

/// The networks of known ports, so that their frames flow before the first word from the control plane.
fn networks(
    intents: &[Intent],
    name: impl Fn(Vni) -> Option<String>,
    sealed: impl Fn(Vni) -> bool,
    gateways: impl Fn(Vni) -> Vec<IpPrefix>,
) -> Vec<Update> {
    let mtus: BTreeMap<Vni, u16> = intents.iter().map(|i| (i.vni, i.mtu)).collect();
    let network = |(vni, mtu)| Update::SetNetwork {
        vni,
        name: name(vni).unwrap_or_default(),
        mtu,
        sealed: sealed(vni),
        gateways: gateways(vni),
    };
    mtus.into_iter().map(network).collect()
}

#[cfg(test)]
mod tests {
    use super::super::ports::tests::intent;
    use super::*;

    #[test]
    fn every_network_of_a_port_is_known_once() {
        let mut other = intent(3);
        (other.vni, other.mtu) = (Vni::new(9).unwrap(), 1400);
        let (nine, gateway) = (Vni::new(9).unwrap(), IpPrefix { addr: [10, 32, 0, 1].into(), len: 12 });
        let is_mesh = |vni| vni == Vni::MESH;
        let name = |vni| is_mesh(vni).then(|| "mesh".to_owned());
        let updates = networks(&[intent(1), intent(2), other], name, is_mesh, |vni| {
            Vec::from_iter(is_mesh(vni).then_some(gateway))
        });
        let network = |vni, name: &str, mtu, sealed, gateways| Update::SetNetwork {
            vni,
            name: name.to_owned(),
            mtu,
            sealed,
            gateways,
        };
        let expected =
            [network(Vni::MESH, "mesh", 1450, true, vec![gateway]), network(nine, "", 1400, false, vec![])];
        assert_eq!(updates, expected);
    }
}
