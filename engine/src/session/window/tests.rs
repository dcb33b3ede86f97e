use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

#[test]
fn a_counter_is_taken_once_and_within_the_window() {
    let window = Window::default();
    for counter in [0, 5, 3, 100_000, 100_000 - WINDOW, 99_999] {
        assert!(window.test(counter) && window.commit(counter), "{counter}");
        assert!(!window.test(counter) && !window.commit(counter), "{counter} again");
    }
    let news = 100_001..120_000;
    assert!(news.clone().all(|counter| window.commit(counter)));
    assert!(!window.test(100_001) && !window.test(7), "too old");
    assert!(window.commit(119_999 + WINDOW) && !window.test(120_000 - WINDOW / 2 - BLOCK));
    assert!(!window.test(MAX_COUNTER) && !window.commit(u64::MAX));
    assert!(window.commit(MAX_COUNTER - 1));
}

#[test]
fn of_several_threads_one_commits_each_counter() {
    let window = Window::default();
    let committed = || (0..20_000).filter(|counter| window.commit(*counter)).count();
    let total: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(committed)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert!(total <= 20_000, "{total}");
    assert!((20_000 - WINDOW..20_000).all(|counter| !window.test(counter)));
}

proptest! {
    #[test]
    fn nothing_is_taken_twice_and_what_is_new_enough_is_taken(
        steps in prop::collection::vec((0_u64..3 * WINDOW, prop::bool::weighted(0.2)), 1..600),
    ) {
        let window = Window::default();
        let (mut seen, mut base, mut highest) = (BTreeSet::new(), 0, 0);
        for (offset, jump) in steps {
            base += if jump { offset } else { 1 };
            let counter = base.saturating_sub(if jump { 0 } else { offset });
            let fresh = !seen.contains(&counter);
            let near = counter + WINDOW > highest;
            let taken = window.commit(counter);
            prop_assert!(!taken || fresh, "{} twice", counter);
            prop_assert!(taken || !fresh || !near, "{} refused, the highest is {}", counter, highest);
            seen.insert(counter);
            highest = highest.max(counter);
        }
    }
}
