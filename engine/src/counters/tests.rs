use super::*;

#[test]
fn every_reason_has_its_own_name_and_cell() {
    let names: std::collections::BTreeSet<_> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
    assert_eq!(names.len(), DropReason::COUNT);
    let (counters, port) = (Counters::new(), PortCounters::new());
    for (count, &reason) in DropReason::ALL.iter().enumerate() {
        assert_eq!(reason as usize, count);
        counters.dropped(reason, count as u64);
        port.dropped(reason, count as u64);
    }
    let (snapshot, totals) = (counters.snapshot(), port.totals());
    assert!(DropReason::ALL.iter().enumerate().all(|(count, &r)| snapshot.dropped(r) == count as u64));
    assert_eq!(snapshot.drops().count(), DropReason::COUNT - 1);
    assert_eq!(totals.drops().collect::<Vec<_>>(), snapshot.drops().collect::<Vec<_>>());
    assert_eq!((totals.sent, totals.given), (Traffic::default(), Traffic::default()));
}

#[test]
fn snapshots_of_workers_add_up() {
    let (a, b) = (Counters::new(), Counters::new());
    a.batch(Way::TapIn, 3, 300);
    b.batch(Way::TapIn, 1, 50);
    a.segments(Way::TapIn, 40);
    b.segments(Way::TapIn, 2);
    b.batch(Way::UnderlayOut, 2, 20);
    b.super_frames_cut(1);
    a.super_frames_joined(4);
    let mut sum = Snapshot::default();
    sum.merge(&a.snapshot());
    sum.merge(&b.snapshot());
    assert_eq!(sum.tap_in, Traffic { frames: 4, bytes: 350, batches: 2, segments: 42 });
    assert_eq!(sum.tap_in.mean_batch(), Some(2.0));
    assert_eq!(sum.underlay_out, Traffic { frames: 2, bytes: 20, batches: 1, segments: 0 });
    assert_eq!(sum.underlay_in.mean_batch(), None);
    assert_eq!((sum.super_frames_cut, sum.super_frames_joined), (1, 4));
}

#[test]
fn what_workers_carried_for_a_port_adds_up() {
    let (a, b) = (PortCounters::new(), PortCounters::new());
    a.sent(Traffic { frames: 2, bytes: 200, batches: 1, segments: 50 }, 1);
    b.sent(Traffic { frames: 1, bytes: 60, batches: 1, segments: 1 }, 0);
    b.given(Traffic { frames: 1, bytes: 9000, batches: 1, segments: 7 }, 1);
    b.dropped(DropReason::TapFull, 7);
    let mut sum = a.totals();
    sum.merge(&b.totals());
    assert_eq!(sum.sent, Traffic { frames: 3, bytes: 260, batches: 2, segments: 51 });
    assert_eq!((sum.super_frames_sent, sum.super_frames_given), (1, 1));
    assert_eq!(sum.given.segments, 7);
    assert_eq!(sum.drops().collect::<Vec<_>>(), [(DropReason::TapFull, 7)]);
}

#[test]
fn the_books_balance_when_every_fate_is_counted() {
    let counters = Counters::new();
    // A super-frame of 44 segments to a host; the network has room for less, so that 46 datagrams left.
    counters.segments(Way::TapIn, 44);
    counters.recut(44, 46);
    counters.segments(Way::UnderlayOut, 46);
    // A flood to three, of which one did not take it.
    counters.segments(Way::UnderlayIn, 1);
    counters.flooded(1, 3);
    counters.segments(Way::TapOut, 2);
    counters.dropped(DropReason::TapFull, 1);
    // A flood to nobody, a question, and something that was no frame.
    counters.segments(Way::TapIn, 2);
    counters.flooded(1, 0);
    counters.answered(1);
    counters.segments(Way::TapOut, 1);
    // A question for the gateway, which answers with two frames.
    counters.segments(Way::TapIn, 1);
    counters.to_gateway(1);
    counters.from_gateway(2);
    counters.segments(Way::TapOut, 2);
    counters.refused(Way::UnderlayIn, DropReason::TruncatedVxlan);
    let books = counters.snapshot().conservation();
    assert_eq!(books.difference(), 0);
    let expected = Conservation {
        taken: 49,
        copies: 2,
        recut: 2,
        given: 51,
        drops: 3,
        answered: 1,
        to_gateway: 1,
        from_gateway: 2,
    };
    assert_eq!(books, expected);
    assert_eq!(counters.snapshot().dropped(DropReason::NoReceiver), 1);
}

#[test]
fn a_missing_count_shows_with_its_sign() {
    let counters = Counters::new();
    counters.segments(Way::TapIn, 5);
    assert_eq!(counters.snapshot().conservation().difference(), 5, "five were lost without a reason");
    counters.segments(Way::TapOut, 8);
    assert_eq!(counters.snapshot().conservation().difference(), -3, "three came from nowhere");
    // Cutting into fewer than were counted is a negative share.
    counters.recut(4, 7);
    assert_eq!(counters.snapshot().conservation().difference(), 0);
    counters.recut(7, 4);
    assert_eq!(counters.snapshot().conservation().difference(), -3);
}
