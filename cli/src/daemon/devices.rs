//! The life of a port after its addresses are known: made, started and stopped with its container, removed.

use std::sync::Arc;

use engine::fence::Fence;
use engine::io::device::{self, Device, DeviceError, Found, PortSpec};
use engine::io::engine::PortSettings;
use engine::io::netns::Netns;
use engine::io::nftables::Forwarding;
use engine::types::NetworkId;
use peering::mesh::Endpoint;

use super::ports::{Intent, Source};
use super::{Daemon, lock_of};
use crate::failure::{Failure, code};

impl Daemon {
    /// Makes the device of a port in a namespace and gives it to the engine. Under the daemon's turn.
    pub(super) async fn make_device(
        self: &Arc<Self>,
        mut intent: Intent,
        netns: Netns,
    ) -> Result<Intent, Failure> {
        let spec = spec(&intent, self.engine.workers());
        let made = self.blocking(move |_| create(&spec, netns)).await?;
        let device = made.map_err(|e| device_failure(&e))?;
        intent.ifname = Some(device.ifname.clone());
        intent.former.clear();
        self.admit_outlet(&intent).await?;
        self.open_device(device, &intent)?;
        Ok(intent)
    }

    /// Gives a device to the engine: frames flow afterwards.
    pub(super) fn open_device(&self, device: Device, intent: &Intent) -> Result<(), Failure> {
        let addrs: Vec<_> = intent.addresses.iter().map(|prefix| prefix.addr).collect();
        // What an exposed host passes on is from others.
        let checked = !intent.no_spoof_check && intent.forwarding == Forwarding::None;
        let fence = checked.then(|| Fence::new(intent.mac, &addrs));
        let settings = PortSettings { vni: intent.vni, rate: intent.rate, fence };
        let added = self.engine.add_device(device, settings);
        added.map_err(|e| Failure::new(code::DEVICE_FAILED, format!("the port cannot be served: {e}")))?;
        self.opened().insert(intent.port);
        self.tell_askers();
        Ok(())
    }

    /// Makes sure that a known port is open in the namespace its container has now. Under the daemon's turn.
    pub(super) async fn start_port(
        self: &Arc<Self>,
        intent: Intent,
        netns: &Netns,
    ) -> Result<Intent, Failure> {
        let here = intent.netns_id() == netns.id();
        if here && intent.running && self.opened().contains(&intent.port) {
            return Ok(intent);
        }
        if !here {
            self.destroy_device(&intent, None).await;
        }
        let id = netns.id();
        let next = Intent { netns: (id.dev, id.ino), running: true, ..intent };
        self.keep(next.clone()).await?;
        let intent = self.make_device(next, netns.clone()).await?;
        self.peering.put_endpoint(endpoint(&intent)).await;
        self.point(&intent.source, true).await;
        tracing::info!(container = intent.container, port = %intent.port, "started");
        Ok(intent)
    }

    /// Closes the port of a Docker container that does not run; record and address stay. Under the daemon's turn.
    pub(super) async fn stop_port(self: &Arc<Self>, intent: Intent) -> Result<(), Failure> {
        self.destroy_device(&intent, None).await;
        if !intent.running {
            return Ok(());
        }
        let intent = Intent { running: false, ..intent };
        self.keep(intent.clone()).await?;
        self.peering.put_endpoint(endpoint(&intent)).await;
        tracing::info!(container = intent.container, port = %intent.port, "stopped");
        Ok(())
    }

    /// Removes all there is of a port: device, intent, record, addresses. Under the daemon's turn.
    ///
    /// In this order: after a crash on the way the next daemon finds an intent it can fulfil, or none and gives
    /// record and addresses up.
    pub(super) async fn remove_port(self: &Arc<Self>, intent: &Intent, netns: Option<Netns>) {
        self.destroy_device(intent, netns).await;
        if let Err(failure) = self.forget(intent.port).await {
            tracing::error!(port = %intent.port, "a removed port stays in the store: {failure}");
        }
        self.dismiss_outlet(intent).await;
        self.peering.remove_endpoint(intent.port).await;
        self.peering.release(intent.port).await;
        lock_of(&self.untouched).remove(&intent.port);
        self.tell_askers();
        self.point(&intent.source, false).await;
        self.leave_network(intent.network).await;
    }

    /// Nobody needs a network here any more after its last port is gone.
    async fn leave_network(&self, network: NetworkId) {
        if !self.ports().all().any(|other| other.network == network) {
            // What is not known any more is not used either.
            let _ = self.peering.use_network(network, false).await;
        }
    }

    /// Closes and deletes the device of a port, if it has one.
    async fn destroy_device(self: &Arc<Self>, intent: &Intent, netns: Option<Netns>) {
        self.engine.remove_device(intent.port);
        self.opened().remove(&intent.port);
        self.tell_askers();
        let intent = intent.clone();
        let destroyed = self.blocking(move |_| {
            let netns = netns.or_else(|| intent.present_netns()).or_else(|| Netns::find(intent.netns_id()));
            netns.map_or(Ok(()), |netns| device::destroy(&netns, intent.port))
        });
        match destroyed.await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => tracing::warn!("an interface could not be removed: {e}"),
            Err(failure) => tracing::warn!("an interface could not be removed: {failure}"),
        }
    }
}

/// Makes the device; one that stands there already, given up earlier, is opened again.
fn create(spec: &PortSpec, netns: Netns) -> Result<Device, DeviceError> {
    match device::create(spec, &netns) {
        Err(DeviceError::Exists { port, ifname }) => device::reopen(spec, &Found { port, netns, ifname }),
        result => result,
    }
}

fn device_failure(error: &DeviceError) -> Failure {
    match error {
        DeviceError::NameInUse { ifname } => {
            Failure::new(code::IFNAME_IN_USE, format!("the container has an interface {ifname} already"))
                .hint("choose another name with --ifname, or none to be given one")
        }
        other => Failure::new(code::DEVICE_FAILED, other.to_string()),
    }
}

/// What the engine's device needs to know of a port.
pub(super) fn spec(intent: &Intent, queues: usize) -> PortSpec {
    PortSpec {
        port: intent.port,
        mac: intent.mac,
        addresses: intent.addresses.clone(),
        mtu: intent.mtu,
        ifname: intent.ifname.clone(),
        queues,
    }
}

/// What all hosts are told of a port.
pub(super) fn endpoint(intent: &Intent) -> Endpoint {
    Endpoint {
        port: intent.port,
        network: intent.network,
        name: intent.name.clone(),
        aliases: intent.aliases.clone(),
        container: intent.container.clone(),
        mac: intent.mac,
        addresses: intent.addresses.clone(),
        ifname: intent.ifname.clone().unwrap_or_default(),
        running: intent.running,
        docker_id: match &intent.source {
            Source::Docker { id } => Some(id.clone()),
            Source::Process { .. } | Source::File { .. } | Source::Host => None,
        },
        explicit: intent.explicit,
    }
}
