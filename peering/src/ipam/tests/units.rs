//! The merge of facts about units.

use engine::types::PeerId;
use proptest::prelude::*;

use crate::ipam::Units;
use crate::proto::Run;
use crate::records::ClusterId;

fn run() -> impl Strategy<Value = Run> {
    let span = (0u16..40, 0u16..12);
    (span, 0u8..3, 1u64..4, 0u8..3).prop_map(|((first, len), cluster, epoch, owner)| Run {
        first,
        last: first + len,
        cluster: ClusterId([cluster; 16]),
        epoch,
        owner: PeerId([owner; 16]),
    })
}

fn runs() -> impl Strategy<Value = Vec<Run>> {
    proptest::collection::vec(run(), 0..12)
}

fn merged(parts: &[&[Run]]) -> Units {
    let mut units = Units::default();
    for part in parts {
        units.merge(part);
    }
    units
}

/// What every unit says, decided one by one.
fn one_by_one(facts: &[Run]) -> Vec<Option<(ClusterId, u64, PeerId)>> {
    (0..64)
        .map(|unit| {
            let about = facts.iter().filter(|run| (run.first..=run.last).contains(&unit));
            about
                .map(|run| (run.cluster, u64::MAX - run.epoch, run.owner))
                .min()
                .map(|(cluster, epoch, owner)| (cluster, u64::MAX - epoch, owner))
        })
        .collect()
}

proptest! {
    #[test]
    fn the_merge_is_commutative_associative_and_idempotent(a in runs(), b in runs(), c in runs()) {
        let all = merged(&[&a, &b, &c]);
        prop_assert_eq!(&merged(&[&c, &a, &b]), &all);
        prop_assert_eq!(&merged(&[&b, &c, &a, &b, &a]), &all);
        let bc = merged(&[&b, &c]);
        prop_assert_eq!(&merged(&[&a, bc.runs()]), &all);
        prop_assert_eq!(&merged(&[all.runs(), all.runs()]), &all);
    }

    #[test]
    fn every_unit_has_the_best_of_its_facts(a in runs()) {
        let units = merged(&[&a]);
        for (unit, expected) in one_by_one(&a).into_iter().enumerate() {
            let fact = units.get(u16::try_from(unit).unwrap()).map(|run| (run.cluster, run.epoch, run.owner));
            prop_assert_eq!(fact, expected, "unit {}", unit);
        }
    }

    #[test]
    fn the_form_is_canonical_and_news_are_enough(a in runs(), b in runs()) {
        let mut units = merged(&[&a]);
        let mut follower = units.clone();
        let news = units.merge(&b);
        follower.merge(&news);
        prop_assert_eq!(&follower, &units);
        prop_assert!(units.merge(&b).is_empty());
        for pair in units.runs().windows(2) {
            prop_assert!(pair[0].last < pair[1].first);
            let same = Run { first: pair[1].first, last: pair[1].last, ..pair[0] } == pair[1];
            prop_assert!(!same || pair[0].last + 1 < pair[1].first);
        }
    }

    #[test]
    fn a_grant_wins_everywhere(a in runs(), first in 0u16..40, len in 0u16..10) {
        let mut units = merged(&[&a]);
        let mut other = units.clone();
        let news = units.grant(&[(first, first + len)], PeerId([7; 16]));
        other.merge(&news);
        prop_assert_eq!(&other, &units);
        let granted = (first..=first + len).filter_map(|unit| units.get(unit));
        prop_assert!(granted.into_iter().all(|run| run.owner == PeerId([7; 16])));
    }
}

#[test]
fn runs_that_no_pool_has_are_ignored() {
    let cluster = ClusterId([1; 16]);
    let owner = PeerId([1; 16]);
    let mut units = Units::default();
    units.merge(&[
        Run { first: 5, last: 4, cluster, epoch: 1, owner },
        Run { first: 0, last: 4096, cluster, epoch: 1, owner },
        Run { first: 0, last: u16::MAX, cluster, epoch: 1, owner },
    ]);
    assert!(units.is_empty());
}
