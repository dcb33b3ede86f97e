//! Repair: digests, and hashes of ranges.

use super::*;

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
