//! Records and their store: signed, merged, repaired.

use std::sync::Arc;
use std::time::Duration;

use engine::types::{IpPrefix, MacAddr, NetworkId, PeerId, PortId, Vni};

use super::record::Draft;
use super::*;
use crate::identity::Identity;
use crate::ipam::Ipam;
use crate::proto::{Message, envelope};
use crate::records::{
    Body, Cause, ClusterId, Encryption, EndpointRecord, Given, HostRecord, NetworkRecord, RemovalRecord,
    TargetRecord, VtepRecord,
};

mod merge;
mod removal;
mod repair;

fn identity(n: u8) -> Identity {
    Identity::generate([n; 32]).unwrap()
}

fn host(nickname: &str) -> HostRecord {
    HostRecord {
        noise_key: [3; 32],
        nickname: nickname.to_owned(),
        version: "0.1.0".to_owned(),
        data_addrs: vec!["192.0.2.1:4789".parse().unwrap()],
        control_addrs: vec!["[2001:db8::1]:6783".parse().unwrap()],
        suites: vec![1],
        encryption: Encryption::Auto,
        trusted: Vec::new(),
        networks: vec![(NetworkId([1; 32]), Vni::MESH)],
        targets: vec![TargetRecord { name: "node01".to_owned(), peer: Some(PeerId([5; 16])) }],
        secrets: vec![],
    }
}

fn endpoint(port: u8, mac: u8, claim_version: u64) -> EndpointRecord {
    EndpointRecord {
        port: PortId([port; 8]),
        network: NetworkId([1; 32]),
        name: "web".to_owned(),
        aliases: Vec::new(),
        container: "web-1".to_owned(),
        mac: MacAddr([2, 0, 0, 0, 0, mac]),
        addresses: vec![IpPrefix { addr: "10.32.0.2".parse().unwrap(), len: 12 }],
        ifname: "mesh0".to_owned(),
        running: true,
        docker_id: None,
        claim_version,
        given: Given::default(),
    }
}

fn network(name: &str) -> NetworkRecord {
    NetworkRecord {
        network: NetworkId([1; 32]),
        name: name.to_owned(),
        vni: Vni::MESH,
        vni_given: true,
        subnets: vec![crate::records::SubnetRecord::whole("10.32.0.0/12".parse().unwrap())],
        subnet_chosen: false,
        mtu: 1450,
        reclaim_after: Duration::from_secs(86_400),
        cluster: ClusterId::default(),
        encrypted: false,
        internal: false,
        labels: Vec::new(),
        options: Vec::new(),
        created_s: 0,
    }
}

/// A record as some host could have written it, of a kind that may be unknown here.
fn draft(who: u8, kind: u16, class: Class, major: u64, minor: u64, key: u8, payload: &[u8]) -> Arc<Record> {
    let (deleted, version) = (payload.is_empty(), 1);
    let minor = if class == Class::Shared { 0 } else { minor };
    Draft { kind, version, class, deleted, major, minor, key: &[key], payload }.sign(&identity(who)).unwrap()
}

fn merged(records: &[Arc<Record>]) -> RecordStore {
    let mut store = RecordStore::new(PeerId([0; 16]));
    records.iter().for_each(|record| drop(store.insert(record.bytes())));
    store
}

/// One round of repair, as two hosts make it. Returns how many bytes it took.
fn repair(a: &mut RecordStore, b: &mut RecordStore) -> usize {
    if a.full_hash() == b.full_hash() {
        return 0;
    }
    let mut bytes = 0;
    // The steps of one side are answered by the other, in turn.
    let (mut steps, mut flipped) = (vec![a.step(Range::ALL)], false);
    while !steps.is_empty() {
        let (teller, hearer) = if flipped { (&mut *b, &mut *a) } else { (&mut *a, &mut *b) };
        let mut next = Vec::new();
        for step in steps {
            match step {
                Step::Parts(parts) => {
                    bytes += Message::Ranges(vec![(*parts).clone()]).encode().len();
                    next.extend(hearer.compare_parts(&parts));
                }
                Step::Lines(digest) => {
                    bytes += Message::Digest(digest.clone()).encode().len();
                    let Difference { send, want } = hearer.compare(&digest);
                    bytes += Message::Pull(want.clone()).encode().len();
                    for record in teller.pull(&want) {
                        bytes += record.bytes().len();
                        hearer.insert(record.bytes());
                    }
                    for record in send {
                        bytes += record.bytes().len();
                        if let Merge::Dead(over) | Merge::Older(over) = teller.insert(record.bytes()) {
                            hearer.insert(over.bytes());
                        }
                    }
                }
            }
        }
        (steps, flipped) = (next, !flipped);
    }
    bytes
}

#[test]
fn records_say_the_same_after_the_wire() {
    let me = identity(1);
    let mut store = RecordStore::new(me.peer_id());
    let written = store.put_host(&me, &host("a")).unwrap();
    let mut other = RecordStore::new(identity(2).peer_id());
    assert!(matches!(other.insert(written.bytes()), Merge::Accepted { previous: None, .. }));
    assert_eq!(other.insert(written.bytes()), Merge::Equal);
    assert_eq!(other.host(me.peer_id()), Some(&host("a")));
    assert_eq!(other.get(written.slot()).unwrap().signer_key(), me.public_key());
    assert_eq!(store.put_host(&me, &host("a")), None, "nothing changed");
    let newer = store.put_host(&me, &host("b")).unwrap();
    assert!(matches!(other.insert(newer.bytes()), Merge::Accepted { previous: Some(_), .. }));
    assert_eq!(other.insert(written.bytes()), Merge::Older(newer));
}

#[test]
fn forged_and_broken_records_are_refused_alone() {
    let me = identity(1);
    let good = RecordStore::new(me.peer_id()).put_endpoint(&me, &endpoint(1, 1, 1)).unwrap();
    let mut store = RecordStore::new(identity(2).peer_id());
    for at in 0..good.bytes().len() {
        let mut bytes = good.bytes().to_vec();
        bytes[at] ^= 0x40;
        assert!(matches!(store.insert(&bytes), Merge::Invalid(_)), "byte {at}");
        assert!(matches!(store.insert(&good.bytes()[..at]), Merge::Invalid(_)), "length {at}");
    }
    let counters = store.counters();
    assert!(counters.forged > 100 && counters.malformed > 100, "{counters:?}");
    assert!(matches!(store.insert(good.bytes()), Merge::Accepted { .. }));
    assert_eq!(store.len(), 1);
}

#[test]
fn nobody_writes_for_another_and_no_class_is_mistaken() {
    let endpoint = draft(1, 77, Class::Owner, 1, 1, 9, b"x");
    let stranger = draft(2, 77, Class::Owner, 9, 9, 9, b"y");
    assert_ne!(endpoint.slot(), stranger.slot(), "the signer is the owner");
    let wrong = Draft {
        kind: kind::ENDPOINT,
        version: 1,
        class: Class::Shared,
        deleted: false,
        major: 1,
        minor: 0,
        key: &[1],
        payload: b"",
    };
    assert_eq!(wrong.sign(&identity(1)).unwrap_err(), RecordError::WrongClass(kind::ENDPOINT));
}

#[test]
fn unknown_kinds_versions_and_bodies_are_kept_and_relayed() {
    let mut store = RecordStore::new(identity(9).peer_id());
    let newer = Draft {
        kind: kind::HOST,
        version: 7,
        class: Class::Owner,
        deleted: false,
        major: 1,
        minor: 1,
        key: &[],
        payload: b"of another time",
    };
    let records = [
        draft(1, 900, Class::Shared, 1, 0, 1, b"?"),
        newer.sign(&identity(1)).unwrap(),
        draft(2, kind::ENDPOINT, Class::Owner, 1, 1, 1, b"no endpoint"),
    ];
    for record in &records {
        assert!(matches!(store.insert(record.bytes()), Merge::Accepted { .. }));
        assert_eq!(store.get(record.slot()).unwrap().bytes(), record.bytes());
        assert_eq!(record.body(), &Body::Opaque);
    }
    assert_eq!(store.counters().unreadable, 1);
    assert_eq!(store.compare(&RecordStore::new(PeerId([0; 16])).digest(Range::ALL)).send.len(), 3);
}

#[test]
fn a_record_over_the_limit_is_refused() {
    let me = identity(1);
    let long = NetworkRecord { name: "n".repeat(70_000), ..network("") };
    assert_eq!(RecordStore::new(me.peer_id()).put_network(&me, &long), None);
    let mut bytes = envelope::seal(1, 1, &vec![0; MAX_RECORD]);
    assert!(matches!(Record::parse(&bytes), Err(RecordError::Envelope(_))));
    bytes.truncate(20);
    assert!(Record::parse(&bytes).is_err());
}

/// A record of a kind that nobody knows, in the slot of this number.
fn opaque(writer: &Identity, slot: u64, minor: u64, len: usize) -> Arc<Record> {
    let (key, payload) = (slot.to_le_bytes(), vec![0; len]);
    let (key, payload) = (&key[..], &payload[..]);
    let draft =
        Draft { kind: 900, version: 1, class: Class::Owner, deleted: false, major: 1, minor, key, payload };
    draft.sign(writer).unwrap()
}

/// Offers a store records of `len` bytes of payload until it refuses; how many it took.
fn fill(store: &mut RecordStore, writer: &Identity, len: usize) -> u64 {
    let mut offered = 0;
    loop {
        match store.insert(opaque(writer, offered, 1, len).bytes()) {
            Merge::Accepted { .. } => offered += 1,
            Merge::Invalid(RecordError::TooMany) => return offered,
            other => panic!("{offered}: {other:?}"),
        }
    }
}

#[test]
fn one_writer_has_so_many_records_and_bytes_and_no_more() {
    let (greedy, other) = (identity(2), identity(3));
    for (len, most) in [(0, MAX_RECORDS_PER_WRITER), (60_000, MAX_BYTES_PER_WRITER / 60_000)] {
        let mut store = RecordStore::new(identity(1).peer_id());
        let taken = fill(&mut store, &greedy, len);
        let size = opaque(&greedy, 0, 1, len).bytes().len();
        let most_bytes = MAX_BYTES_PER_WRITER / size;
        assert_eq!(taken as usize, MAX_RECORDS_PER_WRITER.min(most_bytes), "{len} bytes each, about {most}");
        assert_eq!((store.len(), store.counters().over_limit), (taken as usize, 1));
        let again = store.insert(opaque(&greedy, 0, 2, len).bytes());
        assert!(matches!(again, Merge::Accepted { .. }), "a newer version takes the place of one: {again:?}");
        let longer = store.insert(opaque(&greedy, 1, 2, len + 4000).bytes());
        let fits = (taken as usize * size + 4000) <= MAX_BYTES_PER_WRITER;
        assert_eq!(matches!(longer, Merge::Accepted { .. }), fits, "{longer:?}");
        let theirs = store.insert(opaque(&other, 0, 1, len).bytes());
        assert!(matches!(theirs, Merge::Accepted { .. }), "another writer is not held back: {theirs:?}");
    }
}

#[test]
fn claims_stand_one_above_the_highest_seen() {
    let (me, other) = (identity(1), identity(2));
    let mut store = RecordStore::new(me.peer_id());
    let mac = endpoint(1, 7, 1).mac;
    assert_eq!(store.next_claim(mac), 1);
    let mut theirs = RecordStore::new(other.peer_id());
    store.insert(theirs.put_endpoint(&other, &endpoint(4, 7, 5)).unwrap().bytes());
    assert_eq!(store.next_claim(mac), 6);
    let gone = theirs.delete_endpoint(&other, PortId([4; 8])).unwrap();
    store.insert(gone.bytes());
    assert_eq!(store.endpoints().count(), 0);
    assert_eq!(store.next_claim(mac), 6, "a tombstone remembers the claim");
    assert!(matches!(gone.body(), Body::Endpoint(gone) if gone.name.is_empty() && gone.addresses.len() == 1));
}

#[test]
fn shared_records_count_up_whoever_writes() {
    let (a, b) = (identity(1), identity(2));
    let (mut first, mut second) = (RecordStore::new(a.peer_id()), RecordStore::new(b.peer_id()));
    let vtep = VtepRecord { network: NetworkId([1; 32]), addr: "192.0.2.9:4789".parse().unwrap() };
    second.insert(first.put_vtep(&a, &vtep).unwrap().bytes());
    assert_eq!(second.put_vtep(&b, &vtep), None);
    let gone = second.delete_vtep(&b, &vtep).unwrap();
    assert!(matches!(first.insert(gone.bytes()), Merge::Accepted { .. }));
    assert_eq!(first.vteps().count(), 0);
    let again = first.put_vtep(&a, &vtep).unwrap();
    assert_eq!(again.stamp().major, 3);
    assert!(matches!(second.insert(again.bytes()), Merge::Accepted { .. }));
    assert_eq!(second.vteps().next(), Some(&vtep));
}

#[test]
fn a_host_that_lost_its_memory_writes_above_its_former_life() {
    let me = identity(1);
    let mut before = RecordStore::new(me.peer_id());
    let mut peer = RecordStore::new(identity(2).peer_id());
    for record in [
        before.put_host(&me, &host("old")).unwrap(),
        before.put_endpoint(&me, &endpoint(1, 1, 1)).unwrap(),
        before.put_endpoint(&me, &endpoint(2, 2, 1)).unwrap(),
    ] {
        peer.insert(record.bytes());
    }
    let mut after = RecordStore::new(me.peer_id());
    after.put_host(&me, &host("new"));
    after.put_endpoint(&me, &endpoint(2, 2, 1));
    let lacking = after.compare(&peer.digest(Range::ALL)).want;
    let seen: Vec<Merge> = peer.pull(&lacking).iter().map(|record| after.insert(record.bytes())).collect();
    assert!(seen.contains(&Merge::Overtaken), "{seen:?}");
    let news = after.reassert(&me);
    assert!(after.reassert(&me).is_empty());
    for record in &news {
        assert!(matches!(peer.insert(record.bytes()), Merge::Accepted { .. }));
    }
    assert_eq!(peer.host(me.peer_id()).unwrap().nickname, "new");
    let ports: Vec<_> = peer.endpoints().map(|(_, endpoint)| endpoint.port).collect();
    assert_eq!(ports, [PortId([2; 8])], "the endpoint it does not know is gone");
    assert_eq!(peer.full_hash(), after.full_hash());
}

#[test]
fn a_host_that_forgot_hears_of_each_endpoint_before_it_writes_above_it() {
    let me = identity(1);
    let mut before = RecordStore::new(me.peer_id());
    let old_host = before.put_host(&me, &host("old")).unwrap();
    let old = before.put_endpoint(&me, &endpoint(1, 1, 1)).unwrap();
    let mut after = RecordStore::forgetful(me.peer_id());
    after.put_host(&me, &host("new"));
    let guess = EndpointRecord { name: "guess".into(), ..endpoint(1, 1, 1) };
    let guessed = after.put_endpoint(&me, &guess).unwrap();
    assert!(guessed.stamp() < old.stamp());

    assert_eq!(after.insert(old_host.bytes()), Merge::Overtaken);
    assert_eq!(after.reassert(&me).len(), 1, "the host record alone");
    assert_eq!(after.insert(old.bytes()), Merge::Overtaken);
    assert_eq!(
        after.recalled().map(|endpoint| endpoint.name.as_str()).collect::<Vec<_>>(),
        [endpoint(1, 1, 1).name]
    );
    let again = after.reassert(&me);
    assert!(again.len() == 1 && again[0].stamp() > old.stamp());
    assert_eq!(after.recalled().count(), 0);
}

#[test]
fn a_store_survives_its_disk_in_the_next_incarnation() {
    let me = identity(1);
    let mut store = RecordStore::new(me.peer_id());
    store.put_host(&me, &host("a"));
    store.put_endpoint(&me, &endpoint(1, 1, 1));
    store.delete_endpoint(&me, PortId([1; 8]));
    let mut again = RecordStore::restore(me.peer_id(), &store.save().unwrap()).unwrap();
    assert_eq!(again.full_hash(), store.full_hash());
    assert_eq!(again.incarnation(), store.incarnation() + 1);
    let newer = again.put_host(&me, &host("b")).unwrap();
    assert!(matches!(store.insert(newer.bytes()), Merge::Overtaken));
    assert_eq!(RecordStore::restore(me.peer_id(), &[]).err(), Some(StoreError::Malformed));
    assert_eq!(RecordStore::restore(me.peer_id(), &[9]).err(), Some(StoreError::Version(9)));
    assert_eq!(RecordStore::restore(me.peer_id(), &[1, 1, 1, 3, 0]).err(), Some(StoreError::Malformed));
}
