//! Frames for everybody on a network.

use super::send::{Lane, mtu_to};
use super::{Output, segments};
use crate::network::Network;
use crate::offload::source_port::SourcePort;
use crate::packet::{Batch, Slot};
use crate::switch::{Flooded, Port, Switch};
use crate::tables::{RemoteIndex, Tables};
use crate::types::Vni;

impl Output {
    /// Copies a frame to every other port and every host of its network that is in reach.
    pub(super) fn flood(
        &mut self,
        switch: &Switch,
        (from, flooded): (Port, &Flooded),
        vni: Vni,
        batch: &Batch,
        slot: &Slot,
    ) {
        let (ports, _) = switch.flood(from, vni, flooded.reach);
        let (mut destinations, segments) = (0, segments(batch, slot));
        for port in ports {
            self.deliver(port, batch, slot);
            destinations += 1;
        }
        if let Some(network) = switch.tables().network(vni) {
            let flood = (network, (from, flooded));
            destinations += self.flood_remotes(switch, flood, false, batch, slot);
            if network.is_sealed() {
                destinations += self.flood_remotes(switch, flood, true, batch, slot);
            }
        }
        self.counters.flooded(segments, destinations);
    }

    /// Copies a frame to every host of its network that gets it sealed, or to every one that gets it in clear; gives how many
    /// these are.
    fn flood_remotes(
        &mut self,
        switch: &Switch,
        (network, (from, flooded)): (&Network, (Port, &Flooded)),
        sealed: bool,
        batch: &Batch,
        slot: &Slot,
    ) -> u64 {
        let tables = switch.tables();
        let alike = || {
            let remotes = switch.flood(from, network.vni(), flooded.reach).1;
            remotes.filter(|&remote| tables.seals(network, remote) == sealed)
        };
        // All that take full packets get the same datagrams, each of the others its own.
        let mut full = alike().filter(|&to| mtu_to(tables, network, to, sealed) == network.mtu()).peekable();
        let mut destinations = 0;
        if full.peek().is_some() {
            let lane = (network, sealed, network.mtu());
            destinations += self.flood_alike(tables, (from, flooded.source), lane, full, batch, slot);
        }
        for remote in alike() {
            let lane = (network, sealed, mtu_to(tables, network, remote, sealed));
            if lane.2 < network.mtu() {
                let remote = std::iter::once(remote);
                destinations += self.flood_alike(tables, (from, flooded.source), lane, remote, batch, slot);
            }
        }
        destinations
    }

    /// Copies a frame to remotes that take the same datagrams; gives how many these are.
    fn flood_alike(
        &mut self,
        tables: &Tables,
        (from, source): (Port, SourcePort),
        lane: Lane<'_>,
        remotes: impl Iterator<Item = RemoteIndex>,
        batch: &Batch,
        slot: &Slot,
    ) -> u64 {
        self.outbox.clear();
        match self.divide(tables, None, lane, batch, slot) {
            Ok(datagrams) => {
                let mut destinations = 0;
                for remote in remotes {
                    self.counters.recut(segments(batch, slot), datagrams);
                    self.flush(tables, (remote, source), lane.1, batch);
                    destinations += 1;
                }
                destinations
            }
            Err(reason) => {
                // One drop stands for all of them.
                self.drop_from(from, reason, segments(batch, slot));
                1
            }
        }
    }
}
