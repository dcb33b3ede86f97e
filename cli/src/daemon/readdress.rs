//! A container gets another address: somebody else has a better right to its own.

use std::sync::Arc;

use engine::io::device;
use engine::io::netns::Netns;
use engine::types::{IpPrefix, PortId};

use super::Daemon;
use super::devices::endpoint;
use super::ports::Intent;
use crate::failure::{Failure, code};

impl Daemon {
    /// Gives a port these addresses instead of those it has: on disk, at its interface, then in its record. What fails is
    /// tried again when the control plane tells it again; what a crash interrupts is finished by the next daemon.
    pub(super) async fn readdress(self: Arc<Self>, port: PortId, addresses: Vec<IpPrefix>) {
        let _turn = self.turn.lock().await;
        let known = self.ports().by_id(port).cloned();
        // Without addresses it is being attached, and nobody knows of it yet.
        let Some(intent) = known.filter(|intent| !intent.addresses.is_empty()) else { return };
        let container = intent.container.clone();
        if let Err(failure) = self.give(intent, addresses).await {
            tracing::warn!(container, %port, "its address could not be changed yet: {failure}");
        }
    }

    async fn give(self: &Arc<Self>, intent: Intent, addresses: Vec<IpPrefix>) -> Result<(), Failure> {
        let lost = intent.addresses.iter().filter(|prefix| !addresses.contains(prefix));
        let former = intent.former.iter().chain(lost).copied().collect();
        let mut intent = Intent { addresses, former, explicit: false, ..intent };
        self.keep(intent.clone()).await?;
        if intent.running {
            self.change_addresses(&intent).await?;
        }
        intent.former.clear();
        self.keep(intent.clone()).await?;
        self.peering.put_endpoint(endpoint(&intent)).await;
        let given: Vec<String> = intent.addresses.iter().map(ToString::to_string).collect();
        tracing::warn!(container = intent.container, port = %intent.port, "its address is {} now", given.join(", "));
        Ok(())
    }

    /// Brings the interface of a port to the addresses it shall have.
    pub(super) async fn change_addresses(self: &Arc<Self>, intent: &Intent) -> Result<(), Failure> {
        let intent = intent.clone();
        let changed = self.blocking(move |_| {
            let netns = intent.present_netns().or_else(|| Netns::find(intent.netns_id()));
            let gone = device::DeviceError::Gone { port: intent.port };
            let netns = netns.ok_or(gone)?;
            device::readdress(&netns, intent.port, &intent.former, &intent.addresses)
        });
        changed.await?.map_err(|e| Failure::new(code::DEVICE_FAILED, e.to_string()))
    }
}
