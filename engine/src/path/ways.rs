//! When it is looked up how the host reaches its peers, and to whom it is then shown where the host is.
//!
//! The kernel tells that addresses or routes have changed ([`Ways::handle_change`]); soon after, and less and less often
//! while it goes on, the way to each peer is looked up ([`Ways::poll_look`], [`Ways::handle_ways`]). That of a peer that is
//! reached at another address than before is, alone, at once. A peer whose way is another one is shown it, again and again,
//! since what shows it may be lost ([`Ways::poll_show`]).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::types::PeerId;

/// Changes seldom come alone: an address goes, another one comes, with its routes.
const SETTLE: Duration = Duration::from_millis(20);
/// The longest pause between two looks while the kernel tells of changes.
const MOST: Duration = Duration::from_secs(1);
/// After so long without a look the next one comes soon again.
const CALM: Duration = Duration::from_secs(2);
/// How long after the first time it is shown again.
const AGAIN: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(1)];

/// The ways to all peers, each a `W`.
#[derive(Debug)]
pub struct Ways<W> {
    known: BTreeMap<PeerId, (SocketAddr, W)>,
    /// When they are looked up next.
    look: Option<Instant>,
    /// When they were last, because something had changed.
    looked: Option<Instant>,
    gap: Duration,
    /// Those with another address than before, and since when.
    fresh: BTreeMap<PeerId, Instant>,
    shows: BTreeMap<PeerId, Show>,
}

/// Which ways are to be looked up.
#[derive(PartialEq, Eq, Debug)]
pub enum Look {
    /// All: an address or a route of the host has changed.
    All,
    /// Those to these peers, of which no others are known yet.
    Peers(BTreeSet<PeerId>),
}

#[derive(Debug)]
struct Show {
    since: Instant,
    at: Instant,
    /// How often it was shown.
    times: usize,
}

impl<W: PartialEq> Default for Ways<W> {
    fn default() -> Self {
        let (known, shows) = (BTreeMap::new(), BTreeMap::new());
        Ways { known, look: None, looked: None, gap: SETTLE, fresh: BTreeMap::new(), shows }
    }
}

impl<W: PartialEq> Ways<W> {
    /// An address or a route of the host has changed.
    pub fn handle_change(&mut self, now: Instant) {
        let calm = self.looked.is_none_or(|looked| now.saturating_duration_since(looked) >= CALM);
        self.gap = if calm { SETTLE } else { self.gap };
        let earliest = self.looked.map_or(now, |looked| looked + self.gap);
        let at = earliest.max(now + SETTLE);
        self.look = Some(self.look.map_or(at, |look| look.min(at)));
    }

    /// A peer is reached at another address than before.
    pub fn handle_path(&mut self, now: Instant, peer: PeerId) {
        self.fresh.insert(peer, now);
    }

    /// A peer is not reached any more.
    pub fn remove_peer(&mut self, peer: PeerId) {
        self.known.remove(&peer);
        self.fresh.remove(&peer);
        self.shows.remove(&peer);
    }

    /// What is to be looked up now, for [`Ways::handle_ways`].
    pub fn poll_look(&mut self, now: Instant) -> Option<Look> {
        if self.look.is_some_and(|look| look <= now) {
            (self.look, self.looked, self.gap) = (None, Some(now), (2 * self.gap).min(MOST));
            self.fresh.clear();
            return Some(Look::All);
        }
        let fresh = std::mem::take(&mut self.fresh);
        (!fresh.is_empty()).then(|| Look::Peers(fresh.into_keys().collect()))
    }

    /// The ways as they are now, to those of the peers in question that have a path; none where there is no way, which may be
    /// for a moment only. Gives the peers that are reached another way than before.
    pub fn handle_ways(
        &mut self,
        now: Instant,
        look: &Look,
        found: impl IntoIterator<Item = (PeerId, SocketAddr, Option<W>)>,
    ) -> Vec<PeerId> {
        let mut all = match look {
            Look::All => std::mem::take(&mut self.known),
            Look::Peers(_) => BTreeMap::new(),
        };
        let mut moved = Vec::new();
        for (peer, addr, way) in found {
            let before = all.remove(&peer).or_else(|| self.known.remove(&peer));
            let known = before.filter(|(at, _)| *at == addr);
            if let (Some((_, known)), Some(way)) = (&known, &way)
                && known != way
            {
                moved.push(peer);
            }
            let way = way.or(known.map(|(_, way)| way));
            self.known.extend(way.map(|way| (peer, (addr, way))));
        }
        self.shows.extend(moved.iter().map(|&peer| (peer, Show { since: now, at: now, times: 0 })));
        moved
    }

    /// The next peer to whom it is to be shown where the host is.
    pub fn poll_show(&mut self, now: Instant) -> Option<PeerId> {
        let (&peer, show) = self.shows.iter_mut().find(|(_, show)| show.at <= now)?;
        match AGAIN.get(show.times) {
            Some(after) => (show.at, show.times) = (show.since + *after, show.times + 1),
            None => _ = self.shows.remove(&peer),
        }
        Some(peer)
    }

    /// When there is something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let shows = self.shows.values().map(|show| show.at);
        shows.chain(self.look).chain(self.fresh.values().copied()).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: PeerId = PeerId([7; 16]);

    struct Bench {
        ways: Ways<u8>,
        start: Instant,
    }

    impl Bench {
        #[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
        fn new() -> Self {
            Bench { ways: Ways::default(), start: Instant::now() }
        }

        fn at(&self, ms: u64) -> Instant {
            self.start + Duration::from_millis(ms)
        }

        fn change(&mut self, ms: u64) {
            self.ways.handle_change(self.at(ms));
        }

        /// Looks, `ms` after the start, when it is due by then.
        fn look(&mut self, ms: u64, way: Option<u8>) -> Option<(Vec<PeerId>, bool)> {
            let now = self.at(ms);
            let addr = SocketAddr::from(([192, 0, 2, 1], 4789));
            let look = self.ways.poll_look(now)?;
            Some((self.ways.handle_ways(now, &look, [(PEER, addr, way)]), look == Look::All))
        }

        fn shows(&mut self, ms: u64) -> usize {
            let now = self.at(ms);
            std::iter::from_fn(|| self.ways.poll_show(now)).count()
        }
    }

    #[test]
    fn another_way_is_shown_three_times_and_a_new_peer_not() {
        let mut bench = Bench::new();
        bench.ways.handle_path(bench.at(0), PEER);
        assert_eq!(bench.look(0, Some(1)), Some((vec![], false)));
        bench.change(100);
        assert_eq!(bench.look(119, Some(2)), None, "more may follow");
        assert_eq!(bench.look(120, Some(2)), Some((vec![PEER], true)));
        assert_eq!([120, 120, 319, 320, 1119, 1120, 9999].map(|ms| bench.shows(ms)), [1, 0, 0, 1, 0, 1, 0]);
        assert_eq!(bench.ways.poll_timeout(), None);
        bench.change(5000);
        assert_eq!(bench.look(5020, Some(2)), Some((vec![], true)), "a change that concerns others");
    }

    #[test]
    fn no_way_for_a_moment_is_no_news_but_what_comes_after_is() {
        for (after, moved) in [(1, vec![]), (2, vec![PEER])] {
            let mut bench = Bench::new();
            bench.ways.handle_path(bench.at(0), PEER);
            bench.look(0, Some(1));
            bench.change(100);
            assert_eq!(bench.look(120, None), Some((vec![], true)));
            bench.change(130);
            assert_eq!(bench.look(159, Some(after)), None);
            assert_eq!(bench.look(160, Some(after)), Some((moved, true)));
        }
    }

    #[test]
    fn a_peer_at_another_address_is_looked_up_alone() {
        let mut bench = Bench::new();
        let other = PeerId([8; 16]);
        let addr = |last| SocketAddr::from(([192, 0, 2, last], 4789));
        bench.ways.handle_path(bench.at(0), PEER);
        bench.look(0, Some(1));
        bench.ways.handle_path(bench.at(10), other);
        assert_eq!(bench.ways.poll_timeout(), Some(bench.at(10)));
        let look = bench.ways.poll_look(bench.at(10)).unwrap();
        assert_eq!(look, Look::Peers(BTreeSet::from([other])));
        assert_eq!(bench.ways.handle_ways(bench.at(10), &look, [(other, addr(2), Some(1))]), []);
        assert_eq!(bench.ways.poll_look(bench.at(10)), None);
        bench.change(100);
        let look = bench.ways.poll_look(bench.at(120)).unwrap();
        let found = [(PEER, addr(1), Some(2)), (other, addr(2), Some(2))];
        assert_eq!(bench.ways.handle_ways(bench.at(120), &look, found), [PEER, other], "both were known");
        bench.ways.remove_peer(PEER);
        assert_eq!(bench.shows(120), 1);
        bench.change(5000);
        let look = bench.ways.poll_look(bench.at(5020)).unwrap();
        assert_eq!(
            bench.ways.handle_ways(bench.at(5020), &look, [(PEER, addr(1), Some(3))]),
            [],
            "it is new"
        );
    }

    #[test]
    fn many_changes_are_few_looks() {
        let mut bench = Bench::new();
        let looks = |bench: &mut Bench, from: u64, ms: u64| {
            let look = |bench: &mut Bench, at| {
                bench.change(at);
                usize::from(bench.look(at, None).is_some())
            };
            (from..from + ms).map(|at| look(bench, at)).sum::<usize>()
        };
        let (first, second) = (looks(&mut bench, 0, 1000), looks(&mut bench, 1000, 9000));
        assert!((3..=6).contains(&first) && (8..=10).contains(&second), "{first} {second}");
        assert_eq!(looks(&mut bench, 20_000, 30), 1, "after a calm time it is soon again");
    }
}
