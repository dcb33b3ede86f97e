//! Everything a host remembers, for those who look for a fault. Field names are part of the command line's promise.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::Mesh;
use crate::gossip::{Class, Record, kind};
use crate::records::HostRecord;

/// The control plane's tables; every list is sorted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MeshTables {
    /// How often this host began anew.
    pub incarnation: u64,
    /// Messages that could not be read since the start.
    pub messages_malformed: u64,
    /// Records refused for their form.
    pub records_malformed: u64,
    /// Records refused for their signature.
    pub records_forged: u64,
    /// Records refused because their writer has too many.
    pub records_over_limit: u64,
    /// Records of a known kind, kept but not understood.
    pub records_unreadable: u64,
    /// What each host says of itself.
    pub hosts: Vec<HostTable>,
    /// Every record, tombstones included.
    pub records: Vec<RecordTable>,
    /// Who may allocate where.
    pub units: Vec<UnitRun>,
}

/// What a host says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HostTable {
    /// The host.
    pub peer_id: String,
    /// Its name for people.
    pub nickname: String,
    /// The version of its program.
    pub version: String,
    /// Where its data plane may be reached, best first.
    pub data_addresses: Vec<SocketAddr>,
    /// Where its peering may be reached, best first.
    pub control_addresses: Vec<SocketAddr>,
    /// The numbers of its networks on the wire.
    pub vnis: Vec<u32>,
    /// Its targets, as they were named.
    pub targets: Vec<String>,
}

/// A record without its contents.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct RecordTable {
    /// `host`, `endpoint`, `network`, `vtep`, `removal`, `name`, or the number of a kind that has no name here.
    pub kind: String,
    /// Who wrote it.
    pub writer: String,
    /// What of this kind it is about, in hex digits.
    pub key: String,
    /// `owner` or `shared`.
    pub class: String,
    /// Incarnation of the owner, or counter of a shared record.
    pub major: u64,
    /// Sequence of the owner; of a shared record made from its writer.
    pub minor: u64,
    /// It is a tombstone.
    pub deleted: bool,
    /// Its length.
    pub bytes: u64,
}

/// Units of one network that follow each other and have one owner.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct UnitRun {
    /// The network, by id.
    pub network: String,
    /// The range that is cut into units.
    pub range: String,
    /// The first unit.
    pub first: u16,
    /// The last one, included.
    pub last: u16,
    /// The cluster of the fact.
    pub cluster_id: String,
    /// How often they changed hands.
    pub epoch: u64,
    /// Who may allocate in them.
    pub owner: String,
}

impl Mesh {
    /// The tables at this moment.
    pub fn tables(&self) -> MeshTables {
        let counters = self.store.counters();
        let mut records: Vec<RecordTable> = self.store.all().map(|record| record_table(record)).collect();
        records.sort();
        let hosts = self.store.hosts().map(|(peer, host)| host_table(peer.to_string(), host)).collect();
        MeshTables {
            incarnation: self.store.incarnation(),
            messages_malformed: self.malformed,
            records_malformed: counters.malformed,
            records_forged: counters.forged,
            records_over_limit: counters.over_limit,
            records_unreadable: counters.unreadable,
            hosts,
            records,
            units: self.unit_runs(),
        }
    }

    fn unit_runs(&self) -> Vec<UnitRun> {
        let tables = self.ipam.unit_tables();
        let runs = tables.iter().flat_map(|table| table.runs.iter().map(move |run| (table, run)));
        runs.map(|(table, run)| UnitRun {
            network: table.network.to_string(),
            range: table.range.to_string(),
            first: run.first,
            last: run.last,
            cluster_id: run.cluster.to_string(),
            epoch: run.epoch,
            owner: run.owner.to_string(),
        })
        .collect()
    }
}

fn host_table(peer_id: String, host: &HostRecord) -> HostTable {
    HostTable {
        peer_id,
        nickname: host.nickname.clone(),
        version: host.version.clone(),
        data_addresses: host.data_addrs.clone(),
        control_addresses: host.control_addrs.clone(),
        vnis: host.networks.iter().map(|(_, vni)| vni.get()).collect(),
        targets: host.targets.iter().map(|target| target.name.clone()).collect(),
    }
}

fn record_table(record: &Record) -> RecordTable {
    let stamp = record.stamp();
    RecordTable {
        kind: kind_name(record.kind()),
        writer: record.signer().to_string(),
        key: record.key().iter().map(|byte| format!("{byte:02x}")).collect(),
        class: match record.class() {
            Class::Owner => "owner".to_owned(),
            Class::Shared => "shared".to_owned(),
        },
        major: stamp.major,
        minor: stamp.minor,
        deleted: record.deleted(),
        bytes: record.bytes().len() as u64,
    }
}

fn kind_name(kind: u16) -> String {
    match kind {
        kind::HOST => "host".to_owned(),
        kind::ENDPOINT => "endpoint".to_owned(),
        kind::NETWORK => "network".to_owned(),
        kind::VTEP => "vtep".to_owned(),
        kind::REMOVAL => "removal".to_owned(),
        kind::NAME => "name".to_owned(),
        other => other.to_string(),
    }
}
