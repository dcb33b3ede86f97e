//! Removals and floors: what is dead stays dead, and does not pile up.

use super::*;

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
