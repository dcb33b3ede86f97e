//! Merges of any records: their order does not matter, and no bytes do harm.

use proptest::prelude::*;

use super::*;

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
