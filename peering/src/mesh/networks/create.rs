//! A new network on its way: from the wish to the record that everybody gets.
//!
//! ```text
//! wish ──there is a cluster──> draft ──its addresses are on disk──> record ──on disk──> answer
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use engine::types::{NetworkId, Vni};
use ipnet::IpNet;
use rand::RngExt;

use super::{NetworkError, NetworkSpec, choose};
use crate::mesh::{Mesh, Output, RequestId};
use crate::records::{ClusterId, NetworkRecord, SubnetRecord, overlap};

/// Most networks of a cluster.
const MAX_ALL: usize = 4096;

/// Who waits for a network.
#[derive(Default)]
pub(super) struct Creations {
    /// Nobody founded the cluster yet.
    wishes: Vec<(RequestId, NetworkSpec)>,
    /// The facts about its addresses are on their way to the disk.
    drafts: BTreeMap<NetworkId, (RequestId, NetworkRecord)>,
    /// Written, and on the way to the disk.
    written: Vec<(RequestId, NetworkId)>,
}

impl Mesh {
    /// Creates a network; the answer is [`Output::Created`]. Without a cluster it waits for the founding, to which it
    /// counts as a need for an address.
    pub fn create_network(&mut self, now: Instant, request: RequestId, spec: NetworkSpec) {
        if let Err(error) = self.may_create(now, &spec) {
            return self.answer_creation(request, Err(error));
        }
        self.networks.creations.wishes.push((request, spec));
        self.settle();
    }

    fn may_create(&mut self, now: Instant, spec: &NetworkSpec) -> Result<(), NetworkError> {
        if !self.begin(now) {
            return Err(NetworkError::Stopping);
        }
        if let Some(other) = self.clones.oneself() {
            return Err(NetworkError::Clone { other: other.to_owned() });
        }
        spec.check()?;
        if spec.encrypted == Some(true) && !self.config.sealing.seals() {
            let reason =
                "this host does not seal: launch it, and the others, with --encryption on".to_owned();
            return Err(NetworkError::Argument { argument: "--encrypted", reason });
        }
        self.is_free(&spec.name, spec.vni, spec.subnets.iter().map(|subnet| subnet.subnet), None)
    }

    /// Nobody waits for this network any more; true if somebody did.
    pub(in crate::mesh) fn cancel_creation(&mut self, request: RequestId) -> bool {
        let creations = &mut self.networks.creations;
        let before = creations.wishes.len() + creations.drafts.len();
        creations.wishes.retain(|(of, _)| *of != request);
        creations.drafts.retain(|_, (of, _)| *of != request);
        before > creations.wishes.len() + creations.drafts.len()
    }

    /// This host stops: nobody gets a network any more.
    pub(in crate::mesh) fn refuse_creations(&mut self) {
        let creations = std::mem::take(&mut self.networks.creations);
        let wishes = creations.wishes.into_iter().map(|(request, _)| request);
        for request in wishes.chain(creations.drafts.into_values().map(|(request, _)| request)) {
            self.answer_creation(request, Err(NetworkError::Stopping));
        }
    }

    /// Goes on with what can go on.
    pub(in crate::mesh) fn go_on_creating(&mut self) {
        self.ipam.set_creating(self.now, !self.networks.creations.wishes.is_empty());
        let Some(cluster) = self.ipam.cluster() else { return };
        for (request, spec) in std::mem::take(&mut self.networks.creations.wishes) {
            match self.draft(cluster, &spec) {
                Ok(record) => {
                    let network = record.network;
                    self.ipam.found_network(network, &record.name, &record.subnets);
                    self.networks.creations.drafts.insert(network, (request, record));
                }
                Err(error) => self.answer_creation(request, Err(error)),
            }
        }
    }

    /// The facts about the addresses of a new network are on disk, or not.
    pub(in crate::mesh) fn network_founded(&mut self, network: NetworkId, result: Result<(), String>) {
        let Some((request, record)) = self.networks.creations.drafts.remove(&network) else {
            return self.ipam.close_network(self.now, network);
        };
        let subnets = record.subnets.iter().map(|subnet| subnet.subnet);
        let vni = Some(record.vni);
        let result = result
            .map_err(|reason| NetworkError::StoreFailed { reason })
            .and_then(|()| self.is_free(&record.name, vni, subnets, Some(network)));
        if let Err(error) = result {
            self.ipam.close_network(self.now, network);
            return self.answer_creation(request, Err(error));
        }
        let written = self.store.put_network(&self.config.identity, &record);
        self.wrote(written.as_slice());
        self.networks.creations.written.push((request, network));
    }

    /// Whoever waits for a network that is shown now has it.
    pub(in crate::mesh) fn answer_creators(&mut self) {
        for (request, network) in std::mem::take(&mut self.networks.creations.written) {
            let network = self.networks.canonical(network);
            let view = self.view.network(network).cloned().ok_or(NetworkError::Unknown);
            self.answer_creation(request, view.map(Box::new));
        }
    }

    fn answer_creation(&mut self, request: RequestId, result: Result<Box<super::NetworkView>, NetworkError>) {
        self.outbox.push(Output::Created { request, result });
    }

    /// Whether a network may have this name, number and subnets beside all others.
    fn is_free(
        &self,
        name: &str,
        vni: Option<Vni>,
        mut subnets: impl Iterator<Item = IpNet>,
        but: Option<NetworkId>,
    ) -> Result<(), NetworkError> {
        if self.view.networks().count() >= MAX_ALL {
            return Err(NetworkError::TooMany { limit: MAX_ALL });
        }
        let drafts = || self.networks.creations.drafts.values().map(|(_, record)| record);
        let shown = self.view.networks().map(|view| (view.id, &view.name, view.vni));
        let known = shown.chain(drafts().map(|record| (record.network, &record.name, record.vni)));
        for (_, other, number) in known.filter(|(id, ..)| Some(*id) != but) {
            if other.eq_ignore_ascii_case(name) {
                return Err(NetworkError::Exists { name: other.clone() });
            }
            if let Some(vni) = vni.filter(|vni| *vni == number) {
                return Err(NetworkError::VniInUse { vni, network: other.clone() });
            }
        }
        let records = || self.store.networks().chain(drafts()).filter(|record| Some(record.network) != but);
        let overlapping = |subnet: IpNet| {
            let all =
                records().flat_map(|record| record.subnets.iter().map(move |other| (record, other.subnet)));
            all.into_iter()
                .find(|(_, other)| overlap(subnet, *other))
                .map(|(record, other)| (subnet, record, other))
        };
        match subnets.find_map(overlapping) {
            Some((subnet, record, other)) => {
                let network =
                    self.view.network(record.network).map_or(&record.name, |view| &view.name).clone();
                Err(NetworkError::Overlap { subnet, other, network })
            }
            None => Ok(()),
        }
    }

    /// The record of a network as it was wished for, with what nobody named chosen.
    fn draft(&mut self, cluster: ClusterId, spec: &NetworkSpec) -> Result<NetworkRecord, NetworkError> {
        self.is_free(&spec.name, spec.vni, spec.subnets.iter().map(|subnet| subnet.subnet), None)?;
        let network = NetworkId(self.rng.random());
        let mesh = self.view.network(super::MESH_NETWORK);
        let mtu = spec.mtu.or(mesh.map(|mesh| mesh.mtu)).unwrap_or(self.config.mtu);
        let (mut labels, mut options) = (spec.labels.clone(), spec.options.clone());
        labels.sort_unstable();
        options.sort_unstable();
        Ok(NetworkRecord {
            network,
            name: spec.name.clone(),
            vni: self.choose_vni(network, spec)?,
            vni_given: spec.vni.is_some(),
            subnets: self.choose_subnets(network, spec)?,
            subnet_chosen: spec.chooses_ipv4(),
            mtu,
            reclaim_after: self.config.reclaim_after,
            cluster,
            encrypted: spec.encrypted.unwrap_or_else(|| self.config.sealing.seals()),
            internal: spec.internal,
            labels,
            options,
            created_s: spec.created_s,
        })
    }

    fn choose_vni(&self, network: NetworkId, spec: &NetworkSpec) -> Result<Vni, NetworkError> {
        let shown = self.view.networks().map(|view| view.vni);
        let drafts = self.networks.creations.drafts.values().map(|(_, record)| record.vni);
        let taken: BTreeSet<Vni> =
            shown.chain(drafts).chain(self.store.networks().map(|record| record.vni)).collect();
        let chosen = spec.vni.or_else(|| choose::vni(network, &taken));
        chosen.ok_or(NetworkError::TooMany { limit: taken.len() })
    }

    fn choose_subnets(
        &self,
        network: NetworkId,
        spec: &NetworkSpec,
    ) -> Result<Vec<SubnetRecord>, NetworkError> {
        let mut subnets: Vec<SubnetRecord> = spec.subnets.iter().map(super::SubnetSpec::record).collect();
        if spec.chooses_ipv4() {
            let drafts = self.networks.creations.drafts.values().map(|(_, record)| record);
            let records = self.store.networks().chain(drafts);
            let others = records.flat_map(|record| &record.subnets).map(|subnet| subnet.subnet);
            let taken: Vec<IpNet> = others.chain(spec.avoid.iter().copied()).collect();
            let chosen = choose::ipv4_subnet(network, &taken).ok_or(NetworkError::NoSubnet)?;
            subnets.insert(0, SubnetRecord::whole(chosen));
        }
        if spec.chooses_ipv6() {
            subnets.push(SubnetRecord::whole(choose::ipv6_subnet(network)));
        }
        Ok(subnets)
    }
}
