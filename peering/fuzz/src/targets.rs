//! One function for each target: any bytes in, no panic, and what must hold holds.

use std::net::Ipv4Addr;
use std::time::Duration;

use engine::types::{NetworkId, PeerId, PortId};
use peering::gossip::{Merge, Range, Record, RecordStore};
use peering::identity::Identity;
use peering::ipam::{Ipam, IpamOutput, Units};
use peering::keyring::Keyring;
use peering::mesh::{AllocRequest, RequestId};
use peering::proto::{Message, Run};
use peering::records::{Cause, ClusterId, RemovalRecord, SubnetRecord, VtepRecord};

use crate::program::{Program, endpoint, name, start};

const NETWORK: NetworkId = peering::mesh::MESH_NETWORK;

/// Any message: what is accepted is written and read again as the same.
pub fn message(data: &[u8]) {
    let Ok(message) = Message::decode(data) else { return };
    if let Message::Unknown { .. } = message {
        return;
    }
    assert_eq!(Message::decode(&message.encode()).as_ref(), Ok(&message));
    if let Message::Push(records) | Message::Records(records) = &message {
        let mut store = RecordStore::new(PeerId([0; 16]));
        records.iter().for_each(|record| drop(store.insert(record)));
    }
}

/// Any record: its parts lie inside its bytes, and no store takes what nobody signed.
pub fn record(data: &[u8]) {
    let Ok(record) = Record::parse(data) else { return };
    assert_eq!(record.bytes(), data);
    assert!(record.key().len() + record.payload().len() + record.signer_key().len() < data.len());
    let merge = RecordStore::new(PeerId([0; 16])).insert(data);
    assert_eq!(record.verify(), matches!(merge, Merge::Accepted { .. }));
}

/// Any bytes as the state on disk: taken or refused, and what was taken can be written again.
pub fn stored(data: &[u8]) {
    let own = PeerId([1; 16]);
    if let Ok(store) = RecordStore::restore(own, data) {
        let again = RecordStore::restore(own, &store.save().expect("a store is written"));
        assert_eq!(again.expect("its own bytes").full_hash(), store.full_hash());
    }
    if let Ok(keyring) = Keyring::restore(data) {
        assert_eq!(Keyring::restore(&keyring.save().expect("a keyring is written")).as_ref(), Ok(&keyring));
    }
    if let Ok(mut ipam) = Ipam::restore(own, [0; 32], data) {
        ipam.handle_timeout(start());
        let again = Ipam::restore(own, [0; 32], &ipam.save().expect("a state is written"));
        assert_eq!(again.expect("its own bytes").units_hash(), ipam.units_hash());
        let _ = ipam.status(start());
    }
}

/// Three hosts write and tell each other in any order: after an exchange of digests they are equal.
pub fn records(data: &[u8]) {
    let mut program = Program::new(data);
    let people: Vec<Identity> =
        (1..=3).map(|n| Identity::generate([n; 32]).expect("any seed makes an identity")).collect();
    let mut stores: Vec<RecordStore> = people.iter().map(|who| RecordStore::new(who.peer_id())).collect();
    for _ in 0..24 {
        let Some(op) = program.byte() else { break };
        let (who, other, key) = (program.below(3), program.below(3), program.below(2));
        let (me, store) = (&people[who], &mut stores[who]);
        let vtep = VtepRecord { network: NETWORK, addr: ([192, 0, 2, 1], 4789 + key as u16).into() };
        match op % 9 {
            2 if op & 0x80 != 0 => drop(store.put_name(me, &name(NETWORK, key, op))),
            3 if op & 0x80 != 0 => drop(store.delete_name(me, name(NETWORK, key, op).key())),
            0 => drop(store.put_vtep(me, &vtep)),
            1 => drop(store.delete_vtep(me, &vtep)),
            2 => drop(store.put_endpoint(me, &endpoint(NETWORK, key, op))),
            3 => drop(store.delete_endpoint(me, PortId([key as u8; 8]))),
            4 => *store = RecordStore::new(me.peer_id()),
            5 => {
                let floor = store.own_version();
                store.rewrite(me);
                store.put_floor(me, floor);
            }
            6 if who != other => {
                let peer = people[other].peer_id();
                let incarnation = store.highest_incarnation(peer);
                let removal =
                    RemovalRecord { peer, incarnation, cause: Cause::Command, nickname: String::new() };
                store.put_removal(me, &removal);
            }
            _ => exchange(&mut stores, &people, who, other),
        }
    }
    for _ in 0..8 {
        (0..3).for_each(|who| exchange(&mut stores, &people, who, (who + 1) % 3));
    }
    assert_eq!(stores[0].full_hash(), stores[1].full_hash());
    assert_eq!(stores[1].full_hash(), stores[2].full_hash());
}

fn exchange(stores: &mut [RecordStore], people: &[Identity], from: usize, to: usize) {
    let difference = stores[to].compare(&stores[from].digest(Range::ALL));
    for record in stores[from].pull(&difference.want) {
        stores[to].insert(record.bytes());
    }
    for record in &difference.send {
        stores[from].insert(record.bytes());
    }
    for who in [from, to] {
        stores[who].reassert(&people[who]);
        if stores[who].is_removed_itself() {
            stores[who].come_back(&people[who]);
        }
    }
}

/// Facts about units in any order and any grouping end in the same canonical form.
pub fn units(data: &[u8]) {
    let mut program = Program::new(data);
    let mut facts = Vec::new();
    while let Some(first) = program.byte() {
        let (first, len) = (u16::from(first) * 17, program.byte().unwrap_or(0));
        let last = first.saturating_add(u16::from(len) * 3);
        let (cluster, owner) = (program.below(3) as u8, program.below(4) as u8);
        let epoch = program.below(4) as u64;
        facts.push(Run { first, last, cluster: ClusterId([cluster; 16]), epoch, owner: PeerId([owner; 16]) });
        if facts.len() > 64 {
            break;
        }
    }
    let (left, right) = facts.split_at(facts.len() / 2);
    let (mut forward, mut backward) = (Units::default(), Units::default());
    forward.merge(left);
    let news = forward.merge(right);
    facts.iter().rev().for_each(|fact| drop(backward.merge(std::slice::from_ref(fact))));
    assert_eq!(forward, backward);
    let mut follower = Units::default();
    follower.merge(left);
    follower.merge(&news);
    assert_eq!(follower, forward);
    let sorted = forward.runs().windows(2).all(|pair| pair[0].last < pair[1].first);
    assert!(sorted && forward.runs().iter().all(|run| run.first <= run.last && run.last < 4096));
}

/// One host's addresses under any commands and messages: no panic, and no address for two ports.
pub fn addresses(data: &[u8]) {
    let mut program = Program::new(data);
    let mut now = start();
    let mut ipam = Ipam::new(PeerId([3; 16]), [0; 32]);
    let range = ipnet::IpNet::new(Ipv4Addr::new(10, 9, 0, 0).into(), 27).expect("a range");
    ipam.add_network(NETWORK, "mesh", &[SubnetRecord::whole(range)]).expect("a pool");
    let mut given: Vec<(u64, std::net::IpAddr)> = Vec::new();
    let mut messages: Vec<Message> = Vec::new();
    for request in 0..64u64 {
        let Some(op) = program.byte() else { break };
        let (port, peer) = (program.below(6) as u64, PeerId([program.below(6) as u8; 16]));
        match op % 8 {
            0 | 1 => {
                let wanted = (op & 0x80 != 0).then(|| [10, 9, 0, op >> 3 & 0x1f].into());
                let (port, holder) = (PortId(request.to_le_bytes()), String::new());
                let what = AllocRequest {
                    port,
                    network: NETWORK,
                    holder,
                    wanted: wanted.into_iter().collect(),
                    without_ipv6: false,
                };
                ipam.allocate(now, RequestId(request), what);
            }
            2 => {
                // One that has its answer: what became of the others, nobody knows yet.
                if let Some(&(port, _)) = given.get(port as usize) {
                    given.retain(|given| given.0 != port);
                    ipam.release(now, PortId(port.to_le_bytes()));
                }
            }
            3 => ipam.cancel(now, RequestId(port)),
            4 => now += Duration::from_secs(port),
            5 => ipam.handle_persisted(now, if op & 0x80 == 0 { Ok(()) } else { Err("full".to_owned()) }),
            6 => {
                if let Some(message) = messages.get(port as usize % messages.len().max(1)).cloned() {
                    ipam.handle_message(now, peer, message);
                }
            }
            _ => {
                if let Ok(message) = Message::decode(program.bytes()) {
                    ipam.handle_message(now, peer, message);
                }
            }
        }
        ipam.handle_timeout(now);
        // What was changed by the last operation was on its way to the disk during this one.
        ipam.handle_persisted(now, Ok(()));
        ipam.write_started();
        while let Some(output) = ipam.poll_output() {
            match output {
                IpamOutput::Allocated { request, result: Ok(addrs) } => {
                    given.extend(addrs.iter().map(|prefix| (request.0, prefix.addr)));
                }
                IpamOutput::Send { message, .. } => messages.push(message),
                _ => {}
            }
        }
        let mut addrs: Vec<_> = given.iter().map(|given| given.1).collect();
        addrs.sort_unstable();
        assert!(addrs.windows(2).all(|pair| pair[0] != pair[1]), "{given:?}");
        let _ = ipam.status(now);
    }
}
