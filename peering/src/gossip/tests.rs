//! Records and their store: signed, merged, repaired.

use std::sync::Arc;
use std::time::Duration;

use engine::types::{IpPrefix, MacAddr, NetworkId, PeerId, PortId, Vni};
use proptest::prelude::*;

use super::record::Draft;
use super::*;
use crate::identity::Identity;
use crate::ipam::Ipam;
use crate::proto::{Message, envelope};
use crate::records::{
    Body, Cause, ClusterId, Encryption, EndpointRecord, Given, HostRecord, NetworkRecord, RemovalRecord,
    TargetRecord, VtepRecord,
};

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
    }
}

fn endpoint(port: u8, mac: u8, claim_version: u64) -> EndpointRecord {
    EndpointRecord {
        port: PortId([port; 8]),
        network: NetworkId([1; 32]),
        name: "web".to_owned(),
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
        range: "10.32.0.0/12".parse().unwrap(),
        mtu: 1450,
        reclaim_after: Duration::from_secs(86_400),
        cluster: ClusterId::default(),
        encrypted: false,
    }
}

/// A record as some host could have written it, of a kind that may be unknown here.
fn draft(who: u8, kind: u16, class: Class, major: u64, minor: u64, key: u8, payload: &[u8]) -> Arc<Record> {
    let (deleted, version) = (payload.is_empty(), 1);
    let minor = if class == Class::Shared { 0 } else { minor };
    Draft { kind, version, class, deleted, major, minor, key: &[key], payload }.sign(&identity(who)).unwrap()
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

fn removal(peer: PeerId, incarnation: u64) -> RemovalRecord {
    RemovalRecord { peer, incarnation, cause: Cause::Command, nickname: "gone".to_owned() }
}

#[test]
fn what_a_removed_host_wrote_is_dead_in_any_order() {
    let (me, other) = (identity(1), identity(2));
    let mut theirs = RecordStore::new(other.peer_id());
    let records = [
        theirs.put_host(&other, &host("gone")).unwrap(),
        theirs.put_endpoint(&other, &endpoint(1, 1, 1)).unwrap(),
        theirs.put_network(&other, &network("mesh")).unwrap(),
    ];
    let mut store = RecordStore::new(me.peer_id());
    records.iter().for_each(|record| drop(store.insert(record.bytes())));
    assert!(!store.removed(other.peer_id()) && store.members().eq([other.peer_id()]));
    let highest = store.highest_incarnation(other.peer_id());
    let gone = store.put_removal(&me, &removal(other.peer_id(), highest)).unwrap();
    assert_eq!(store.put_removal(&me, &removal(other.peer_id(), highest)), None, "done");
    assert!(store.removed(other.peer_id()) && store.members().next().is_none());
    assert_eq!(store.take_dropped().len(), 2);
    assert_eq!(store.networks().count(), 1, "shared records outlive their writer");
    assert_eq!(store.insert(records[0].bytes()), Merge::Dead(gone.clone()));

    let mut late = RecordStore::new(identity(3).peer_id());
    for record in [&gone, &records[1], &records[2], &records[0]] {
        late.insert(record.bytes());
    }
    assert_eq!(late.full_hash(), store.full_hash());
    let again = RecordStore::restore(me.peer_id(), &store.save().unwrap()).unwrap();
    assert!(again.removed(other.peer_id()));
    assert_eq!(again.full_hash(), store.full_hash());
}

#[test]
fn a_removed_host_comes_back_above_its_removal_with_what_it_owns() {
    let (me, other) = (identity(1), identity(2));
    let mut theirs = RecordStore::new(other.peer_id());
    theirs.put_host(&other, &host("back"));
    theirs.put_endpoint(&other, &endpoint(1, 1, 1));
    theirs.put_endpoint(&other, &endpoint(2, 2, 1));
    theirs.delete_endpoint(&other, PortId([2; 8]));
    let mut store = RecordStore::new(me.peer_id());
    let own = store.put_host(&me, &host("me")).unwrap();
    theirs.insert(own.bytes());
    let gone = store.put_removal(&me, &removal(other.peer_id(), theirs.incarnation())).unwrap();
    assert!(!theirs.is_removed_itself());
    assert!(matches!(theirs.insert(gone.bytes()), Merge::Accepted { .. }));
    assert!(theirs.is_removed_itself());
    let news = theirs.come_back(&other);
    assert!(!theirs.is_removed_itself());
    assert_eq!(theirs.take_dropped(), [own], "what it does not own it pulls again");
    assert_eq!(news.len(), 2, "its tombstone is as dead as the rest");
    for record in &news {
        assert!(matches!(store.insert(record.bytes()), Merge::Accepted { .. }));
    }
    assert!(!store.removed(other.peer_id()));
    assert_eq!(store.endpoints().count(), 1);
    let farther = removal(other.peer_id(), store.highest_incarnation(other.peer_id()));
    assert!(store.put_removal(&me, &farther).is_some(), "it can be removed again");
    assert_eq!(store.endpoints().count(), 0);
}

/// What a host does to get rid of its tombstones, when all others hold what it wrote.
fn sweep(store: &mut RecordStore, me: &Identity) -> Vec<Arc<Record>> {
    let floor = store.own_version();
    let mut news = store.rewrite(me);
    news.extend(store.put_floor(me, floor));
    news
}

#[test]
fn tombstones_go_under_a_floor_and_what_they_deleted_stays_dead() {
    let (me, other) = (identity(1), identity(2));
    let mut store = RecordStore::new(me.peer_id());
    let kept = store.put_endpoint(&me, &endpoint(1, 1, 1)).unwrap();
    let doomed = store.put_endpoint(&me, &endpoint(2, 2, 1)).unwrap();
    let snapshot = store.save().unwrap();
    let mut peer = RecordStore::new(other.peer_id());
    peer.insert(kept.bytes());
    peer.insert(doomed.bytes());
    let late = merged(&[kept.clone(), doomed.clone()]);
    let gone = store.delete_endpoint(&me, PortId([2; 8])).unwrap();
    peer.insert(gone.bytes());
    assert_eq!(store.own_weight(), (1, 1));

    let floor = store.own_version();
    for record in store.rewrite(&me) {
        peer.insert(record.bytes());
    }
    let upto = store.own_version();
    assert_eq!(peer.holding(me.peer_id(), upto), store.holding(me.peer_id(), upto));
    assert_ne!(late.holding(me.peer_id(), upto), store.holding(me.peer_id(), upto));
    let raised = store.put_floor(&me, floor).unwrap();
    peer.insert(raised.bytes());
    assert_eq!(store.own_weight(), (0, 1));
    assert_eq!(peer.len(), 2, "the endpoint that lives, and the floor");
    assert_eq!(peer.insert(doomed.bytes()), Merge::Dead(raised.clone()));
    assert_eq!(peer.insert(gone.bytes()), Merge::Dead(raised.clone()));

    let mut late = late;
    repair(&mut late, &mut peer);
    assert_eq!(late.full_hash(), store.full_hash(), "a host that was away");
    let mut again = RecordStore::restore(me.peer_id(), &snapshot).unwrap();
    repair(&mut again, &mut peer);
    for record in again.reassert(&me) {
        assert!(matches!(peer.insert(record.bytes()), Merge::Accepted { .. }));
    }
    assert_eq!(again.full_hash(), peer.full_hash(), "its own disk of before: what it owns it says again");
    assert_eq!(again.endpoints().count(), 2);
}

#[test]
fn a_floor_must_be_below_its_own_record_and_have_no_key() {
    let draft = |deleted, major, key: &[u8], payload: &[u8]| {
        let class = Class::Owner;
        Draft { kind: kind::FLOOR, version: 9, class, deleted, major, minor: 0, key, payload }
            .sign(&identity(1))
    };
    let payload = [[3, 0, 0, 0, 0, 0, 0, 0], [7, 0, 0, 0, 0, 0, 0, 0]].concat();
    for wrong in
        [draft(true, 4, b"", &payload), draft(false, 4, b"k", &payload), draft(false, 4, b"", &payload[1..])]
    {
        assert_eq!(wrong.unwrap_err(), RecordError::Floor);
    }
    assert_eq!(draft(false, 3, b"", &payload).unwrap_err(), RecordError::Floor);
    let floor = draft(false, 4, b"", &[&payload[..], b"of another time"].concat()).unwrap();
    assert_eq!(floor.floor(), Some(Version { incarnation: 3, sequence: 7 }));
}

#[test]
fn ten_thousand_births_and_deaths_leave_a_bounded_store() {
    let me = identity(1);
    let mut store = RecordStore::new(me.peer_id());
    let mut peer = RecordStore::new(identity(2).peer_id());
    let mut most = 0;
    for n in 0..10_000_u32 {
        let mut born = endpoint(1, 1, 1);
        born.port = PortId((u64::from(n) << 8).to_le_bytes());
        let mut news = vec![store.put_endpoint(&me, &born).unwrap()];
        news.extend(store.delete_endpoint(&me, born.port));
        if store.own_weight().0 >= 64 {
            news.extend(sweep(&mut store, &me));
        }
        news.into_iter().for_each(|record| drop(peer.insert(record.bytes())));
        most = most.max(peer.len());
    }
    assert_eq!(peer.full_hash(), store.full_hash());
    assert!(most <= 66, "{most} records at once");
}

#[test]
fn a_removal_is_never_taken_back() {
    let peer = identity(2).peer_id();
    let draft_to = |major, deleted, key: &[u8]| {
        let (class, payload) = (Class::Shared, b"".as_slice());
        Draft { kind: kind::REMOVAL, version: 9, class, deleted, major, minor: 0, key, payload }
            .sign(&identity(1))
    };
    let draft = |deleted, key| draft_to(3, deleted, key);
    assert_eq!(
        draft_to(REVOKED - 1, false, &peer.0).unwrap_err(),
        RecordError::Removal,
        "nobody could come back, and nobody has said so"
    );
    assert_eq!(draft_to(REVOKED, false, &peer.0).unwrap().removes(), Some((peer, REVOKED)));
    assert_eq!(draft(true, &peer.0).unwrap_err(), RecordError::Removal);
    assert_eq!(draft(false, &peer.0[1..]).unwrap_err(), RecordError::Removal);
    let removal = draft(false, &peer.0).unwrap();
    assert_eq!((removal.removes(), removal.body()), (Some((peer, 3)), &Body::Opaque));
}

#[test]
fn digests_cover_every_slot_once() {
    let me = identity(1);
    let mut store = RecordStore::new(me.peer_id());
    for n in 0..20u64 {
        let mut endpoint = endpoint(1, 1, 1);
        endpoint.port = PortId(n.to_le_bytes());
        store.put_endpoint(&me, &endpoint);
    }
    let whole = &store.digest(Range::ALL);
    let half = Digest { last: whole.lines[9].slot, lines: whole.lines[..5].to_vec(), ..whole.clone() };
    let difference = store.compare(&half);
    assert_eq!(difference.send.len(), 5, "only slots in the range are missing there");
    assert!(difference.want.is_empty());
    assert_eq!(store.compare(whole), Difference::default());
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

/// A store with so many live records of so many hosts, of a kind that is cheap to make.
fn crowded(hosts: u8, each: u8) -> RecordStore {
    let mut store = RecordStore::new(PeerId([0; 16]));
    for who in 1..=hosts {
        for key in 0..each {
            store.insert(draft(who, 901, Class::Owner, 1, u64::from(key), key, b"a fact").bytes());
        }
    }
    store
}

#[test]
fn a_round_of_repair_costs_little_when_little_differs() {
    let (mut a, mut b) = (crowded(40, 100), crowded(40, 100));
    assert_eq!(repair(&mut a, &mut b), 0);
    let whole: usize = a.all().map(|record| record.bytes().len()).sum();
    for (n, extra) in [1_u8, 5, 20].into_iter().enumerate() {
        for key in 0..extra {
            let news = draft(77, 901, Class::Owner, 2 + n as u64, u64::from(key), key, b"news");
            if key % 2 == 0 {
                a.insert(news.bytes())
            } else {
                b.insert(news.bytes())
            };
        }
        let bytes = repair(&mut a, &mut b);
        assert_eq!(a.full_hash(), b.full_hash());
        let each = bytes / usize::from(extra);
        assert!(each < 3_500 && bytes < whole / 8, "{extra} differ: {bytes} bytes, all records have {whole}");
    }
    let mut empty = RecordStore::new(PeerId([9; 16]));
    let bytes = repair(&mut empty, &mut a);
    assert_eq!(empty.full_hash(), a.full_hash());
    assert!(bytes < whole * 3 / 2, "{bytes} to tell {whole}");
}

#[test]
fn hashes_of_ranges_follow_every_change() {
    let mut store = crowded(3, 40);
    let (full, live) = (store.full_hash(), store.live_hash());
    let more = draft(1, 901, Class::Owner, 2, 1, 200, b"more");
    store.insert(more.bytes());
    assert_ne!(store.full_hash(), full);
    assert_ne!(store.live_hash(), live);
    assert_eq!(store.drop_slot(more.slot()), Some(more.clone()));
    assert_eq!((store.full_hash(), store.live_hash()), (full, live));
    store.insert(draft(1, 901, Class::Owner, 2, 2, 200, b"").bytes());
    assert_ne!(store.full_hash(), full, "a tombstone is repaired too");
    assert_eq!(store.live_hash(), live, "but it is not live");
    for depth in 0..=MAX_DEPTH {
        let all = (0..1_u32 << (4 * depth)).map(|prefix| Range { depth, prefix: prefix as u16 });
        let bounds: Vec<_> = all.map(Range::bounds).collect();
        assert_eq!((bounds[0].0, bounds[bounds.len() - 1].1), (Slot([0; 16]), Slot([0xff; 16])));
        let next = |slot: Slot| u128::from_be_bytes(slot.0).wrapping_add(1).to_be_bytes();
        assert!(bounds.windows(2).all(|pair| next(pair[0].1) == pair[1].0.0), "no gap, no overlap");
    }
}

fn any_removal() -> impl Strategy<Value = Arc<Record>> {
    (1u8..4, 1u8..4, 1u64..3).prop_map(|(who, whom, major)| {
        let (key, class) = (identity(whom).peer_id().0, Class::Shared);
        Draft {
            kind: kind::REMOVAL,
            version: 1,
            class,
            deleted: false,
            major,
            minor: 0,
            key: &key,
            payload: b"",
        }
        .sign(&identity(who))
        .unwrap()
    })
}

/// Floors of one owner rise with their versions, as an honest owner writes them.
fn any_floor() -> impl Strategy<Value = Arc<Record>> {
    (1u8..4, 1u64..3, 1u64..4).prop_map(|(who, major, minor)| {
        let payload = [major.to_le_bytes(), (minor - 1).to_le_bytes()].concat();
        let (kind, class) = (kind::FLOOR, Class::Owner);
        Draft { kind, version: 1, class, deleted: false, major, minor, key: &[], payload: &payload }
            .sign(&identity(who))
            .unwrap()
    })
}

fn any_record() -> impl Strategy<Value = Arc<Record>> {
    prop_oneof![6 => any_fact(), 1 => any_removal(), 2 => any_floor()]
}

fn any_fact() -> impl Strategy<Value = Arc<Record>> {
    let kinds = prop_oneof![Just((900u16, Class::Shared)), Just((901, Class::Owner))];
    (kinds, 1u8..4, 1u64..3, 1u64..3, 0u8..2, 0usize..3).prop_map(
        |((kind, class), who, major, minor, key, payload)| {
            draft(who, kind, class, major, minor, key, &b"ab"[..payload])
        },
    )
}

fn merged(records: &[Arc<Record>]) -> RecordStore {
    let mut store = RecordStore::new(PeerId([0; 16]));
    records.iter().for_each(|record| drop(store.insert(record.bytes())));
    store
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_order_of_arrival_does_not_matter(
        records in proptest::collection::vec(any_record(), 0..12).prop_shuffle(),
        again in any::<proptest::sample::Index>(),
    ) {
        let mut other = records.clone();
        other.reverse();
        if !other.is_empty() {
            other.push(records[again.index(records.len())].clone());
        }
        let (a, b) = (merged(&records), merged(&other));
        prop_assert_eq!(a.full_hash(), b.full_hash());
        let ipam = Ipam::new(PeerId([0; 16]), [0; 32]);
        prop_assert_eq!(state_hash(&a, &ipam), state_hash(&b, &ipam));
    }

    #[test]
    fn one_exchange_of_digests_makes_two_hosts_equal(
        left in proptest::collection::vec(any_record(), 0..12),
        right in proptest::collection::vec(any_record(), 0..12),
    ) {
        let (mut a, mut b) = (merged(&left), merged(&right));
        repair(&mut a, &mut b);
        prop_assert_eq!(a.full_hash(), b.full_hash());
    }

    #[test]
    fn any_bytes_are_taken_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut store = RecordStore::new(PeerId([0; 16]));
        prop_assert!(matches!(store.insert(&bytes), Merge::Invalid(_)));
    }
}
