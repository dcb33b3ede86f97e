//! The network `mesh` of a new cluster, and the networks of one that nobody used.

use engine::types::Vni;
use ipnet::IpNet;

use super::{MESH_NAME, MESH_NETWORK, Mesh};
use crate::gossip::{Slot, kind};
use crate::records::{ClusterId, NetworkRecord, SubnetRecord};

impl Mesh {
    pub(super) fn handle_cluster(&mut self, founded: bool, cluster: Option<ClusterId>) {
        if let Some(cluster) = cluster.filter(|_| founded) {
            let network = NetworkRecord {
                network: MESH_NETWORK,
                name: MESH_NAME.to_owned(),
                vni: Vni::MESH,
                vni_given: true,
                subnets: vec![SubnetRecord::whole(IpNet::V4(self.config.range))],
                subnet_chosen: false,
                mtu: self.config.mtu,
                reclaim_after: self.config.reclaim_after,
                cluster,
                encrypted: self.config.sealing.seals(),
                internal: false,
                labels: Vec::new(),
                options: Vec::new(),
                created_s: 0,
            };
            let record = self.store.put_network(&self.config.identity, &network);
            self.wrote(record.as_slice());
        } else if cluster.is_none() {
            self.drop_settings();
        }
        self.say_hello_again();
    }

    /// The networks of a cluster that nobody used go with it.
    fn drop_settings(&mut self) {
        let networks = self.store.live().filter(|record| record.kind() == kind::NETWORK);
        let slots: Vec<Slot> = networks.map(|record| record.slot()).collect();
        for slot in slots {
            if let Some(record) = self.store.drop_slot(slot) {
                self.note_network(record.key());
            }
        }
        self.outbox.change(self.now);
    }
}
