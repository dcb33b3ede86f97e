use std::collections::BTreeMap;
use std::time::Duration;

use super::*;

const PEER: PeerId = PeerId([7; 16]);

fn addr(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], 4789))
}

/// Two ends and a wire that drops what is larger than `limit` and what goes to a `dead` address. Answers from an address that
/// is `far` take so long.
struct World {
    here: Paths,
    there: Paths,
    now: Instant,
    limit: usize,
    dead: Vec<SocketAddr>,
    /// An address to which less passes than to the others.
    narrow: Option<(SocketAddr, usize)>,
    far: BTreeMap<SocketAddr, Duration>,
    under_way: Vec<(Instant, SocketAddr, Vec<u8>)>,
    /// Bytes that were sent to each address.
    sent: BTreeMap<SocketAddr, usize>,
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
    fn new(candidates: &[SocketAddr]) -> Self {
        let now = Instant::now();
        let (mut here, mut there) = (Paths::new([1; 32]), Paths::new([2; 32]));
        here.set_mtu(1450, 0);
        there.set_mtu(1450, 0);
        here.set_peer(now, PEER, candidates);
        there.set_peer(now, PeerId([1; 16]), &[addr(1)]);
        let (far, under_way, sent) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
        World { here, there, now, limit: usize::MAX, dead: Vec::new(), narrow: None, far, under_way, sent }
    }

    fn run(&mut self, time: Duration) -> Vec<Event> {
        let end = self.now + time;
        while let Some(next) = self.next().filter(|&next| next <= end) {
            self.now = self.now.max(next);
            let now = self.now;
            for (_, from, answer) in self.under_way.extract_if(.., |(at, ..)| *at <= now) {
                // One to what was asked before a doubt is stale.
                let _ = self.here.handle_datagram(now, from, &answer);
            }
            self.here.handle_timeout(now);
            while let Some(probe) = self.here.poll_transmit() {
                *self.sent.entry(probe.to).or_default() += probe.contents.len();
                self.carry(&probe);
            }
        }
        self.now = end;
        std::iter::from_fn(|| self.here.poll_event()).collect()
    }

    fn next(&self) -> Option<Instant> {
        self.under_way.iter().map(|(at, ..)| *at).chain(self.here.poll_timeout()).min()
    }

    fn carry(&mut self, probe: &Transmit) {
        let narrow = self.narrow.filter(|(addr, _)| *addr == probe.to).map_or(usize::MAX, |(_, limit)| limit);
        if probe.contents.len() > self.limit.min(narrow) || self.dead.contains(&probe.to) {
            return;
        }
        self.there.handle_datagram(self.now, addr(1), &probe.contents).unwrap();
        let answer = self.there.poll_transmit().unwrap();
        assert!(answer.contents.len() <= probe.contents.len());
        match self.far.get(&probe.to) {
            None => self.here.handle_datagram(self.now, probe.to, &answer.contents).unwrap(),
            Some(far) => self.under_way.push((self.now + *far, probe.to, answer.contents)),
        }
    }
}

fn second() -> Duration {
    Duration::from_secs(1)
}

#[test]
fn the_best_candidate_that_answers_is_the_path() {
    let mut world = World::new(&[addr(2), addr(3)]);
    world.dead.push(addr(2));
    let events = world.run(second());
    assert_eq!(events, [Event::PathUp { peer: PEER, addr: addr(3), mtu: 1450 }]);
    world.dead.clear();
    let events = world.run(30 * second());
    assert_eq!(events, [Event::PathUp { peer: PEER, addr: addr(2), mtu: 1450 }]);
}

#[test]
fn silence_is_told_once_and_the_path_comes_back() {
    let mut world = World::new(&[addr(2)]);
    assert_eq!(world.run(second()).len(), 1);
    world.dead.push(addr(2));
    let events = world.run(20 * second());
    assert!(matches!(events[..], [Event::PathDown { .. }]), "{events:?}");
    assert_eq!(world.here.path(PEER), None);
    world.dead.clear();
    assert!(matches!(world.run(20 * second())[..], [Event::PathUp { .. }]));
}

#[test]
fn a_narrow_path_is_measured() {
    let mut world = World::new(&[addr(2)]);
    world.limit = 1400;
    let events = world.run(3 * second());
    assert_eq!(events.last(), Some(&Event::PathUp { peer: PEER, addr: addr(2), mtu: 1370 }));
    world.limit = 1300;
    let events = world.run(60 * second());
    assert_eq!(events.last(), Some(&Event::PathUp { peer: PEER, addr: addr(2), mtu: 1230 }));
    world.limit = usize::MAX;
    let events = world.run(60 * second());
    assert_eq!(events.last(), Some(&Event::PathUp { peer: PEER, addr: addr(2), mtu: 1450 }));
}

#[test]
fn a_path_that_shrinks_under_traffic_is_known_soon() {
    let mut world = World::new(&[addr(2)]);
    world.run(5 * second());
    assert_eq!(world.here.room(PEER), u16::MAX);
    world.limit = 1300;
    let mut waited = Duration::ZERO;
    while world.here.room(PEER) == u16::MAX {
        world.here.handle_bulk(world.now, PEER);
        world.run(ms(50));
        waited += ms(50);
        assert!(waited < ms(800), "not after {waited:?}");
    }
    assert_eq!(world.here.room(PEER), 1252);
    world.limit = usize::MAX;
    world.run(60 * second());
    assert_eq!(world.here.room(PEER), u16::MAX);
}

#[test]
fn what_the_host_itself_cannot_send_is_tried_at_once() {
    let mut world = World::new(&[addr(2)]);
    world.run(5 * second());
    world.limit = 1300;
    world.here.handle_too_long(world.now, PEER);
    world.run(ms(250));
    assert_eq!(world.here.room(PEER), 1252);
    world.here.handle_too_long(world.now, PEER);
    world.run(ms(250));
    assert_eq!(world.here.room(PEER), 1252, "nothing is smaller than before");
}

#[test]
fn a_network_of_larger_packets_makes_no_path_smaller_before_it_was_tried() {
    let mut world = World::new(&[addr(2)]);
    world.limit = 1500;
    world.run(20 * second());
    world.here.set_mtu(8950, 0);
    for _ in 0..100 {
        world.run(ms(100));
        assert!([u16::MAX, 1472].contains(&world.here.room(PEER)));
    }
    world.run(20 * second());
    assert_eq!(world.here.room(PEER), 1472);
}

#[test]
fn an_idle_path_is_left_alone_and_a_slow_answer_is_no_small_path() {
    let mut world = World::new(&[addr(2)]);
    world.run(5 * second());
    world.here.handle_bulk(world.now, PEER);
    world.run(3 * second());
    world.sent.clear();
    world.run(9 * second());
    assert!(world.sent.get(&addr(2)).is_none_or(|bytes| *bytes < 4000), "{:?} at rest", world.sent);
    // Only short probes come back at first: nothing is held back for that.
    let mut world = World::new(&[addr(2)]);
    world.limit = 100;
    world.run(ms(350));
    assert_eq!((world.here.path(PEER), world.here.room(PEER)), (Some(addr(2)), u16::MAX));
    world.run(20 * second());
    assert_eq!(world.here.room(PEER), 548);
}

#[test]
fn strangers_and_stale_answers_are_dropped_by_name() {
    let mut world = World::new(&[addr(2)]);
    let request = Probe { answer: false, clear: false, nonce: 9 }.emit();
    let answer = Probe { answer: true, clear: false, nonce: 9 }.emit();
    assert_eq!(world.here.handle_datagram(world.now, addr(99), &request), Err(DropReason::UnknownSource));
    assert_eq!(world.here.handle_datagram(world.now, addr(2), &answer), Err(DropReason::StaleProbe));
}

#[test]
fn answers_are_under_a_budget() {
    let mut world = World::new(&[addr(2)]);
    let request = Probe { answer: false, clear: false, nonce: 9 }.emit();
    let answered =
        (0..10_000).filter(|_| world.here.handle_datagram(world.now, addr(2), &request).is_ok()).count();
    assert_eq!(answered, 2_000);
}

#[test]
fn frames_in_clear_are_welcome_where_the_other_end_says_so() {
    let mut world = World::new(&[addr(2)]);
    world.run(second());
    assert!(!world.here.takes_clear(PEER), "it did not say so");
    world.there.set_clear(world.now, BTreeSet::from([addr(1).ip()]));
    // It says so in its next question, and is asked because of it: questions alone are not believed.
    world.there.handle_timeout(world.now);
    let question = world.there.poll_transmit().unwrap().contents;
    world.here.handle_datagram(world.now, addr(2), &question).unwrap();
    assert!(!world.here.takes_clear(PEER));
    let _answer = world.here.poll_transmit();
    world.run(second());
    assert!(world.here.takes_clear(PEER));
    // A question is enough to end it.
    world.there.set_clear(world.now, BTreeSet::new());
    world.there.handle_timeout(world.now);
    let question = world.there.poll_transmit().unwrap().contents;
    world.here.handle_datagram(world.now, addr(2), &question).unwrap();
    assert!(!world.here.takes_clear(PEER));
}

#[test]
fn a_path_that_carries_full_packets_is_better_than_one_before_it_that_does_not() {
    let mut world = World::new(&[addr(2), addr(3)]);
    world.narrow = Some((addr(2), 1430));
    world.run(second());
    assert_eq!(world.here.path(PEER), Some(addr(3)));
    world.dead.push(addr(3));
    world.run(60 * second());
    assert_eq!(world.here.path(PEER), Some(addr(2)), "a small path is better than none");
    world.dead.clear();
    world.run(60 * second());
    assert_eq!(world.here.path(PEER), Some(addr(3)));
}

#[test]
fn a_second_path_that_never_carries_full_packets_costs_little_at_rest() {
    let mut world = World::new(&[addr(2), addr(3)]);
    // As over IPv6, whose header has 20 bytes more.
    world.narrow = Some((addr(3), 1452));
    world.run(120 * second());
    world.sent.clear();
    world.run(60 * second());
    // Each ten seconds: the short probe, what passed, the full size; once in the minute the one step between these two.
    let all = 7 * (probe::LEN + 1452 + 1472) + 1464;
    assert!((1452..=all).contains(&world.sent[&addr(3)]), "{} bytes of {all}", world.sent[&addr(3)]);
    // It is found out there too when less passes.
    world.narrow = Some((addr(3), 1400));
    world.dead.push(addr(2));
    let events = world.run(60 * second());
    assert_eq!(events.last(), Some(&Event::PathUp { peer: PEER, addr: addr(3), mtu: 1370 }));
}

/// The probes that go out within a minute of rest.
fn probes_in_a_minute(peers: u8) -> usize {
    let mut world = World::new(&[addr(2)]);
    for other in 1..peers {
        world.here.set_peer(world.now, PeerId([other; 16]), &[addr(100 + other)]);
    }
    let mut sent = 0;
    let begin = world.now + Duration::from_secs(120);
    while world.now < begin + Duration::from_secs(60) {
        world.now += Duration::from_millis(100);
        world.here.handle_timeout(world.now);
        while let Some(probe) = world.here.poll_transmit() {
            sent += usize::from(world.now > begin);
            world.carry(&probe);
        }
    }
    sent
}

#[test]
fn many_peers_cost_at_rest_no_more_than_a_few() {
    let (few, some, many) = (probes_in_a_minute(2), probes_in_a_minute(20), probes_in_a_minute(100));
    assert!(few > 10, "{few} probes to two peers");
    assert!(some > 5 * few, "{some} probes to twenty peers");
    assert!(many < some + some / 4, "{many} probes to a hundred peers, {some} to twenty");
}

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

#[test]
fn a_peer_that_is_heard_elsewhere_is_followed_within_moments_if_it_is_not_where_it_was() {
    let mut world = World::new(&[addr(2)]);
    world.run(20 * second());
    world.dead.push(addr(2));
    world.here.handle_heard(world.now, PEER, addr(9));
    assert_eq!(world.run(ms(150)), [Event::PathUp { peer: PEER, addr: addr(9), mtu: 1450 }]);
    // The control plane has not heard of it yet, and what it says does not take the path away.
    world.here.set_peer(world.now, PEER, &[addr(2)]);
    assert_eq!((world.run(20 * second()), world.here.path(PEER)), (vec![], Some(addr(9))));
    // What it says then goes before what was found.
    world.here.set_peer(world.now, PEER, &[addr(3), addr(9)]);
    assert_eq!(world.run(second()), [Event::PathUp { peer: PEER, addr: addr(3), mtu: 1450 }]);
}

#[test]
fn a_copy_from_elsewhere_moves_nothing() {
    for silent in [false, true] {
        let mut world = World::new(&[addr(2), addr(3)]);
        world.run(20 * second());
        world.dead.extend(silent.then_some(addr(9)));
        for _ in 0..5 {
            world.here.handle_heard(world.now, PEER, addr(9));
            assert_eq!(world.run(ms(700)), [], "who is on the path stays there");
        }
        world.here.handle_heard(world.now, PEER, addr(2));
        assert_eq!((world.run(60 * second()), world.here.path(PEER)), (vec![], Some(addr(2))));
    }
}

#[test]
fn nobody_is_asked_for_long_at_an_address_that_was_only_heard() {
    let mut world = World::new(&[addr(2)]);
    world.run(20 * second());
    world.dead.push(addr(9));
    world.here.handle_heard(world.now, PEER, addr(9));
    world.run(2 * second());
    let request = Probe { answer: false, clear: false, nonce: 9 }.emit();
    assert_eq!(world.here.handle_datagram(world.now, addr(9), &request), Err(DropReason::UnknownSource));
    // Of many the first is asked at once, and of the others the last, a second later.
    (10..200).for_each(|last| world.here.handle_heard(world.now, PEER, addr(last)));
    for expected in [10, 199] {
        let is_known = |last: &u8| world.here.handle_datagram(world.now, addr(*last), &request).is_ok();
        assert_eq!((10..200).filter(is_known).collect::<Vec<_>>(), [expected]);
        while world.here.poll_transmit().is_some() {}
        world.run(second());
    }
}

#[test]
fn what_comes_from_elsewhere_makes_no_more_of_it() {
    let mut world = World::new(&[addr(2)]);
    world.run(20 * second());
    world.sent.clear();
    world.dead.push(addr(9));
    for _ in 0..50 {
        world.here.handle_heard(world.now, PEER, addr(9));
    }
    world.run(Duration::ZERO);
    assert_eq!(world.sent[&addr(2)], probe::LEN + world.here.full, "one round");
    // A keepalive is 32 bytes.
    for _ in 0..100 {
        world.here.handle_heard(world.now, PEER, addr(9));
        assert_eq!(world.run(ms(100)), []);
    }
    assert!(world.sent[&addr(9)] <= 11 * 32, "{} bytes in ten seconds", world.sent[&addr(9)]);
    world.dead.push(addr(2));
    for _ in 0..20 {
        world.here.handle_heard(world.now, PEER, addr(9));
        world.run(ms(100));
    }
    assert_eq!(world.here.path(PEER), None, "a path falls also while that goes on");
}

#[test]
fn far_away_too_a_copy_moves_nothing_and_another_way_is_no_reason_to_leave() {
    for far in [90, 180, 600] {
        let mut world = World::new(&[addr(2), addr(3)]);
        world.far = BTreeMap::from([(addr(2), ms(far)), (addr(9), ms(10))]);
        world.run(20 * second());
        assert_eq!(world.here.path(PEER), Some(addr(2)));
        for _ in 0..5 {
            world.here.handle_heard(world.now, PEER, addr(9));
            assert_eq!(world.run(ms(700)), [], "the answer is under way");
        }
        world.here.doubt(world.now, PEER);
        assert_eq!(world.run(20 * second()), [], "the better one only takes longer");
        world.dead.extend([addr(2), addr(3)]);
        world.here.handle_heard(world.now, PEER, addr(9));
        world.run(ms(200).max(ms(2 * far)) + ms(1_000));
        assert_eq!(world.here.path(PEER), Some(addr(9)), "when it is there no more");
    }
}

#[test]
fn a_copy_does_not_move_a_narrow_path_to_a_wide_one() {
    let mut world = World::new(&[addr(2)]);
    world.narrow = Some((addr(2), 1300));
    world.run(20 * second());
    world.here.handle_heard(world.now, PEER, addr(9));
    assert_eq!((world.run(20 * second()), world.here.path(PEER)), (vec![], Some(addr(2))));
}

#[test]
fn another_way_to_a_peer_is_tried_at_once_and_the_path_is_kept_meanwhile() {
    let mut world = World::new(&[addr(2), addr(3)]);
    world.run(20 * second());
    world.dead.push(addr(2));
    world.here.doubt(world.now, PEER);
    assert_eq!(world.run(ms(150)), [Event::PathUp { peer: PEER, addr: addr(3), mtu: 1450 }]);
    world.dead.push(addr(3));
    world.here.doubt(world.now, PEER);
    assert_eq!((world.run(ms(350)), world.here.path(PEER)), (vec![], Some(addr(3))));
    assert!(matches!(world.run(second())[..], [Event::PathDown { .. }]));
}

#[test]
fn a_silent_peer_that_asks_is_asked_at_once() {
    let mut world = World::new(&[addr(2)]);
    world.dead.push(addr(2));
    world.run(ms(700));
    world.dead.clear();
    let request = Probe { answer: false, clear: false, nonce: 9 }.emit();
    world.here.handle_datagram(world.now, addr(2), &request).unwrap();
    let answer = world.here.poll_transmit();
    assert!(answer.is_some_and(|answer| answer.contents.len() == probe::LEN));
    assert!(matches!(world.run(Duration::ZERO)[..], [Event::PathUp { .. }]));
    // Not for every question: an answer is never longer than what was asked.
    world.dead.push(addr(2));
    world.run(60 * second());
    (0..50).for_each(|_| world.here.handle_datagram(world.now, addr(2), &request).unwrap());
    world.here.handle_timeout(world.now);
    let sent: Vec<_> = std::iter::from_fn(|| world.here.poll_transmit()).collect();
    assert_eq!(sent.iter().filter(|sent| sent.contents.len() > probe::LEN).count(), 1);
}
