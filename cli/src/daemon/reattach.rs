//! At launch: the ports of the last daemon are taken up again, or what is left of them is cleared away.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::Update;
use engine::io::device::{self, Device, DeviceError};
use engine::types::{NetworkId, PortId};
use peering::mesh::NetworkView;

use super::devices::{endpoint, spec};
use super::networks::set_network;
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
    let known = daemon.peering.networks().await;
    let intents = daemon.on_networks(&known).await?;
    daemon.engine.apply(networks(&intents, &known, daemon.seals()));
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

impl Daemon {
    /// The ports, on the networks as they are now: while no daemon ran, one may have got another number, or turned out to be
    /// the same as another one.
    async fn on_networks(self: &Arc<Self>, known: &[NetworkView]) -> Result<Vec<Intent>, Failure> {
        let own = self.peering.peer_id();
        let records = self.peering.endpoints().await.into_iter().filter(|view| view.peer == own);
        let networks: BTreeMap<PortId, NetworkId> =
            records.map(|view| (view.endpoint.port, view.endpoint.network)).collect();
        let mut intents: Vec<Intent> = self.ports().all().cloned().collect();
        for intent in &mut intents {
            let network = networks.get(&intent.port).copied().unwrap_or(intent.network);
            let now = known.iter().find(|view| view.id == network).map(|view| intent.moved_to(view));
            if let Some(now) = now.filter(|now| now != intent) {
                *intent = now;
                self.keep(intent.clone()).await?;
            }
        }
        Ok(intents)
    }
}

/// The networks of known ports, so that their frames flow before the first word from the control plane. One that the control
/// plane does not remember is taken from the port.
fn networks(intents: &[Intent], known: &[NetworkView], seals: bool) -> Vec<Update> {
    let used: BTreeMap<NetworkId, &Intent> = intents.iter().map(|i| (i.network, i)).collect();
    let update = |(id, intent): (NetworkId, &Intent)| match known.iter().find(|view| view.id == id) {
        Some(view) => set_network(view, seals),
        None => Update::SetNetwork {
            vni: intent.vni,
            name: intent.network_name.clone(),
            mtu: intent.mtu,
            sealed: seals,
            gateways: Vec::new(),
        },
    };
    used.into_iter().map(update).collect()
}

#[cfg(test)]
mod tests {
    use engine::types::Vni;

    use super::super::networks::tests::view;
    use super::super::ports::tests::intent;
    use super::*;

    #[test]
    fn every_network_of_a_port_is_known_once() {
        let known = NetworkView { encrypted: true, ..view(7, 5000) };
        let here = |port| Intent { network: known.id, ..intent(port) };
        let mut other = intent(3);
        (other.network, other.vni, other.mtu) = (NetworkId([9; 32]), Vni::new(9).unwrap(), 1400);
        let updates = networks(&[here(1), here(2), other], std::slice::from_ref(&known), false);
        let (vni, name) = (Vni::new(9).unwrap(), "mesh".to_owned());
        let forgotten = Update::SetNetwork { vni, name, mtu: 1400, sealed: false, gateways: Vec::new() };
        assert_eq!(updates, [set_network(&known, false), forgotten]);
    }
}
