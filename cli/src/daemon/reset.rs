//! Leaving for good: the space goes to another host, the devices and files go altogether.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use engine::io::device;
use engine::types::PortId;
use peering::mesh::LeaveError;

use super::Daemon;
use super::ports::Intent;
use super::status::is_open;
use crate::failure::Failure;

impl Daemon {
    /// Leaves the cluster, removes every port and the devices that nobody claims, and stops. When nobody takes the address space,
    /// nothing has happened, unless `force` is set.
    pub(super) async fn reset(self: &Arc<Self>, force: bool) -> Result<(), Failure> {
        self.refuse_when_stopping()?;
        let own = self.peering.peer_id();
        let endpoints = self.peering.endpoints().await;
        let elsewhere: Vec<PortId> =
            endpoints.iter().filter(|view| view.peer != own).map(|view| view.endpoint.port).collect();
        self.peering.reset(force).await.map_err(|e| refused(&e))?;
        self.leaving.store(true, Ordering::Relaxed);
        tracing::warn!("this host has left its cluster; its ports are removed");
        let _turn = self.turn.lock().await;
        let ports: Vec<Intent> = self.ports().all().cloned().collect();
        for intent in &ports {
            self.remove_port(intent, None).await;
        }
        let removed = self.blocking(move |_| remove_strays(&elsewhere)).await;
        removed.unwrap_or_else(|e| tracing::warn!("interfaces that nobody claims may stay: {e}"));
        self.stop();
        Ok(())
    }
}

/// Interfaces with our alias that no process has open and that no other host's endpoint is: of several daemons on one
/// machine, the others keep theirs.
fn remove_strays(elsewhere: &[PortId]) {
    let known: BTreeSet<PortId> = elsewhere.iter().copied().collect();
    for stray in device::strays(&known.into_iter().collect::<Vec<_>>()) {
        if is_open(&stray) {
            continue;
        }
        match device::destroy(&stray.netns, stray.port) {
            Ok(()) => tracing::info!(port = %stray.port, ifname = stray.ifname, "removed; nobody claimed it"),
            Err(e) => tracing::warn!(port = %stray.port, ifname = stray.ifname, "cannot be removed: {e}"),
        }
    }
}

fn refused(error: &LeaveError) -> Failure {
    let hint = match error {
        LeaveError::NobodyTakes => {
            "bring another host back, or use --force: the others take the space after reclaim-after, or by `rmpeer`"
        }
        LeaveError::Stopping => "try it again",
    };
    Failure::new(error.code(), error.to_string()).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::code;

    #[test]
    fn a_host_that_nobody_can_follow_is_told_of_force() {
        let failure = refused(&LeaveError::NobodyTakes);
        assert_eq!(failure.code, code::NOBODY_TAKES_SPACE);
        assert!(failure.hint.is_some_and(|hint| hint.contains("--force")));
    }
}
