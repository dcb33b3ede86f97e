//! Two hosts learn the same facts in different orders, some of them again: records, removals of their writers, and who
//! owns which units of which cluster.

use std::time::Instant;

use engine::types::{NetworkId, PeerId, PortId};
use ipnet::IpNet;
use peering::gossip::{RecordStore, StateHash, state_hash};
use peering::identity::Identity;
use peering::ipam::Ipam;
use peering::proto::{Message, Run, UnitTable};
use peering::records::{Cause, ClusterId, RemovalRecord, SubnetRecord, VtepRecord};

use crate::program::{Program, endpoint, name, start};

const NETWORK: NetworkId = peering::mesh::MESH_NETWORK;
/// Most facts of one run.
const FACTS: usize = 40;

/// Something that hosts tell each other.
enum Fact {
    Record(Vec<u8>),
    Units(UnitTable),
}

/// A host that writes nothing itself.
struct Observer {
    store: RecordStore,
    ipam: Ipam,
    now: Instant,
}

/// Facts in any order, and repeated, end in the same state.
pub fn merge(data: &[u8]) {
    let mut program = Program::new(data);
    let mut order = Order((0..4).fold(0, |seed, _| seed << 8 | program.below(256) as u32));
    let facts = draw(&mut program);
    let (mut left, mut right) = (Observer::new(8), Observer::new(9));
    facts.iter().for_each(|fact| left.hear(fact));
    let mut rest: Vec<&Fact> = facts.iter().collect();
    while !rest.is_empty() {
        let at = order.below(rest.len());
        right.hear(rest[at]);
        if order.below(4) > 0 {
            rest.remove(at);
        }
    }
    assert_eq!(left.hash(), right.hash());
    assert_eq!(left.store.full_hash(), right.store.full_hash());
    facts.iter().for_each(|fact| left.hear(fact));
    assert_eq!(left.hash(), right.hash());
}

/// Choices that follow from a few bytes, however many are made.
struct Order(u32);

impl Order {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 16) as usize % end
    }
}

/// What three people write, who now and then forget everything and begin under a higher incarnation.
fn draw(program: &mut Program<'_>) -> Vec<Fact> {
    let people: Vec<Identity> =
        (1..=3).map(|n| Identity::generate([n; 32]).expect("any seed makes an identity")).collect();
    let mut stores: Vec<RecordStore> = people.iter().map(|who| RecordStore::new(who.peer_id())).collect();
    let mut facts = Vec::new();
    while facts.len() < FACTS {
        let Some(op) = program.byte() else { break };
        let (who, key) = (program.below(3), program.below(3));
        let (me, store) = (&people[who], &mut stores[who]);
        let vtep = VtepRecord { network: NETWORK, addr: ([192, 0, 2, 1], 4789 + key as u16).into() };
        let written = match op % 8 {
            0 => store.put_vtep(me, &vtep),
            1 => store.delete_vtep(me, &vtep),
            2 | 3 if op & 0x80 != 0 => store.put_name(me, &name(NETWORK, key, op)),
            4 if op & 0x80 != 0 => store.delete_name(me, name(NETWORK, key, op).key()),
            2 | 3 => store.put_endpoint(me, &endpoint(NETWORK, key, op)),
            4 => store.delete_endpoint(me, PortId([key as u8; 8])),
            5 => store.put_removal(me, &removal(people[key].peer_id(), op)),
            6 => {
                let saved = store.save().expect("a store is written");
                *store = RecordStore::restore(me.peer_id(), &saved).expect("its own bytes");
                None
            }
            _ => {
                facts.push(Fact::Units(units(program)));
                None
            }
        };
        facts.extend(written.map(|record| Fact::Record(record.bytes().to_vec())));
    }
    facts
}

fn removal(peer: PeerId, op: u8) -> RemovalRecord {
    let incarnation = u64::from(op >> 3 & 3);
    RemovalRecord { peer, incarnation, cause: Cause::Command, nickname: String::new() }
}

/// Each cluster has a range of its own.
fn units(program: &mut Program<'_>) -> UnitTable {
    let cluster = program.below(3) as u8;
    let range = IpNet::new([10, 9, cluster, 0].into(), 24 + cluster).expect("a range");
    let mut run = || {
        let first = program.below(32) as u16;
        let last = first + program.below(32) as u16;
        let (epoch, owner) = (program.below(4) as u64, program.below(4) as u8);
        Run { first, last, cluster: ClusterId([cluster; 16]), epoch, owner: PeerId([owner; 16]) }
    };
    UnitTable { network: NETWORK, range, runs: vec![run(), run()] }
}

impl Observer {
    fn new(id: u8) -> Self {
        let own = PeerId([id; 16]);
        let mut ipam = Ipam::new(own, [id; 32]);
        let range = IpNet::new([10, 8, 0, 0].into(), 16).expect("a range");
        ipam.add_network(NETWORK, "mesh", &[SubnetRecord::whole(range)]).expect("a pool");
        Observer { store: RecordStore::new(own), ipam, now: start() }
    }

    fn hear(&mut self, fact: &Fact) {
        match fact {
            Fact::Record(bytes) => drop(self.store.insert(bytes)),
            Fact::Units(table) => {
                self.ipam.handle_message(self.now, PeerId([7; 16]), Message::Units(table.clone()));
            }
        }
        self.ipam.write_started();
        self.ipam.handle_persisted(self.now, Ok(()));
        while self.ipam.poll_output().is_some() {}
    }

    fn hash(&self) -> StateHash {
        state_hash(&self.store, &self.ipam)
    }
}
