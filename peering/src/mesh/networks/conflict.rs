//! What people are told when networks got in each other's way, and what is written down of it.

use engine::types::{NetworkId, PeerId};

use super::resolve::Resolution;
use crate::gossip::{Class, Slot, kind};
use crate::mesh::{Mesh, MeshEvent, PeerState};
use crate::records::{NetworkRecord, overlap};

impl Mesh {
    /// Tells what is news since the networks were looked at last.
    pub(super) fn note_conflicts(&mut self, before: &Resolution) {
        let now = &self.networks.resolution;
        let merged = now.merged.iter().filter(|(id, into)| before.merged.get(id) != Some(into));
        let merged: Vec<(NetworkId, NetworkId)> = merged.map(|(id, into)| (*id, *into)).collect();
        for &(network, into) in &merged {
            self.view.tell(MeshEvent::NetworkMerged { network, into });
        }
        // What was so before this host began is no news.
        if before.shown.is_empty() {
            return;
        }
        let mut news: Vec<(&'static str, String)> = Vec::new();
        for (network, into) in &merged {
            let name = self.network_record(*network).map_or("", |(record, _)| &record.name);
            let text = format!(
                "the network {name} was created twice with the same options: {network} is the same as {into} from now on"
            );
            news.push(("networks_merged", text));
        }
        for (network, shown) in now.shown.iter().filter(|(id, shown)| before.shown.get(id) != Some(shown)) {
            let Some((record, _)) = self.network_record(*network) else { continue };
            let told = before.shown.get(network);
            let renamed = told.map_or(&record.name, |told| &told.name) != &shown.name;
            if renamed {
                let text = format!(
                    "the network {network}, created as {}, is called {} now",
                    record.name, shown.name
                );
                news.push(("network_renamed", text));
            }
            if told.map_or(record.vni, |told| told.vni) != shown.vni {
                let text = format!(
                    "the network {} has the number {} now: {} is that of another network",
                    shown.name, shown.vni, record.vni
                );
                news.push(("network_renumbered", text));
            }
            if told.is_none() {
                news.extend(self.overlaps(record).into_iter().map(|text| ("subnets_overlap", text)));
            }
        }
        news.into_iter().for_each(|(kind, text)| self.note_news(kind, text));
    }

    fn note_news(&mut self, kind: &'static str, text: String) {
        match kind {
            "networks_merged" => self.note("networks_merged", text),
            "network_renamed" => self.note("network_renamed", text),
            "network_renumbered" => self.note("network_renumbered", text),
            _ => self.note("subnets_overlap", text),
        }
    }

    /// What of a network lies in subnets of networks with lower ids, or the other way round.
    fn overlaps(&self, record: &NetworkRecord) -> Vec<String> {
        let shown = &self.networks.resolution.shown;
        let others = shown.keys().filter(|id| **id != record.network);
        let others = others.filter_map(|id| self.network_record(*id)).map(|(other, _)| other);
        let pairs = others.flat_map(|other| {
            let all = record
                .subnets
                .iter()
                .flat_map(move |ours| other.subnets.iter().map(move |theirs| (ours, theirs)));
            all.map(move |(ours, theirs)| (ours.subnet, theirs.subnet, &other.name))
        });
        let overlapping = pairs.filter(|(ours, theirs, _)| overlap(*ours, *theirs));
        let text = |(ours, theirs, name): (ipnet::IpNet, ipnet::IpNet, &String)| {
            format!(
                "{ours} of the network {} overlaps {theirs} of the network {name}: no container should be on both",
                record.name
            )
        };
        overlapping.map(text).collect()
    }

    /// Writes down the numbers that networks got instead of those in their records, so that they stay when the others go.
    /// The writer of the record does it, or the lowest host that is alive.
    pub(in crate::mesh) fn write_numbers(&mut self) {
        let mine = self.networks.renumbered.iter().filter(|network| self.is_writer_of(**network));
        let renumbered = mine.filter_map(|network| {
            let ((record, _), vni) = (self.network_record(*network)?, self.vni(*network)?);
            Some(NetworkRecord { vni, ..record.clone() })
        });
        for record in renumbered.collect::<Vec<_>>() {
            let written = self.store.put_network(&self.config.identity, &record);
            self.wrote(written.as_slice());
        }
    }

    fn is_writer_of(&self, network: NetworkId) -> bool {
        let record = self.store.get(Slot::of(Class::Shared, kind::NETWORK, self.me, &network.0));
        let is_here = |peer: &PeerId| *peer == self.me || self.membership.state(*peer) == PeerState::Alive;
        let writer = record.map(|record| record.signer()).filter(is_here);
        writer.or_else(|| self.store.members().filter(is_here).min()) == Some(self.me)
    }
}
