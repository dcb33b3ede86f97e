//! Two hosts that exchange datagrams.

use rand::SeedableRng;

use super::*;
use crate::proto;

struct Pair {
    now: Instant,
    hosts: Vec<(PeerId, Membership)>,
    cut: bool,
}

impl Pair {
    fn new() -> Self {
        let host =
            |n| (PeerId([n; 16]), Membership::new(PeerId([n; 16]), 1, StdRng::seed_from_u64(n.into())));
        #[expect(clippy::disallowed_methods, reason = "any moment will do")]
        Pair { now: Instant::now(), hosts: vec![host(1), host(2)], cut: false }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += Duration::from_millis(50);
            self.exchange();
        }
    }

    fn exchange(&mut self) {
        for (_, host) in &mut self.hosts {
            host.handle_timeout(self.now);
        }
        for _ in 0..8 {
            for at in 0..self.hosts.len() {
                let from = self.hosts[at].0;
                while let Some((to, bytes)) = self.hosts[at].1.poll_datagram() {
                    assert!(bytes.len() <= MAX_DATAGRAM);
                    let heard = self.hosts.iter_mut().find(|(peer, _)| *peer == to && !self.cut);
                    heard.into_iter().for_each(|(_, host)| host.handle_datagram(self.now, from, &bytes));
                }
            }
        }
    }

    fn states(&self) -> [PeerState; 2] {
        [self.hosts[0].1.state(self.hosts[1].0), self.hosts[1].1.state(self.hosts[0].0)]
    }
}

#[test]
fn hosts_meet_part_and_meet_again() {
    let mut pair = Pair::new();
    pair.hosts[0].1.announce(pair.now, PeerId([2; 16]));
    pair.run(Duration::from_secs(1));
    assert_eq!(pair.states(), [PeerState::Alive; 2]);
    pair.cut = true;
    pair.run(Duration::from_secs(9));
    assert_eq!(pair.states(), [PeerState::Down; 2]);
    pair.cut = false;
    for _ in 0..4 {
        pair.hosts[0].1.announce(pair.now, PeerId([2; 16]));
        pair.hosts[1].1.announce(pair.now, PeerId([1; 16]));
        pair.run(Duration::from_secs(1));
    }
    assert_eq!(pair.states(), [PeerState::Alive; 2]);
}

#[test]
fn a_host_outlives_a_start_that_it_does_not_remember() {
    let mut pair = Pair::new();
    let forgotten = proto::Member { peer: PeerId([2; 16]), bump: 70_000, denials: 0, state: 2 };
    pair.hosts[0].1.merge(pair.now, &[forgotten]);
    pair.hosts[1].1.announce(pair.now, PeerId([1; 16]));
    pair.run(Duration::from_secs(1));
    assert_eq!(pair.states()[0], PeerState::Down, "the earlier start counts");
    let known = pair.hosts[0].1.members();
    pair.hosts[1].1.merge(pair.now, &known);
    pair.hosts[1].1.announce(pair.now, PeerId([1; 16]));
    pair.run(Duration::from_secs(1));
    assert_eq!(pair.states()[0], PeerState::Alive);
}

#[test]
fn leaving_is_down_at_once() {
    let mut pair = Pair::new();
    pair.hosts[0].1.announce(pair.now, PeerId([2; 16]));
    pair.run(Duration::from_secs(1));
    pair.hosts[1].1.leave(pair.now);
    pair.run(Duration::from_millis(50));
    assert_eq!(pair.states()[0], PeerState::Down);
}

#[test]
fn a_suspicion_of_a_live_host_ends_when_it_is_told() {
    let mut pair = Pair::new();
    pair.hosts[0].1.announce(pair.now, PeerId([2; 16]));
    pair.run(Duration::from_secs(1));
    pair.cut = true;
    let suspects = |pair: &Pair| pair.states()[0] == PeerState::Suspect;
    while !suspects(&pair) {
        pair.run(Duration::from_millis(50));
    }
    pair.cut = false;
    pair.hosts[0].1.confront(PeerId([2; 16]));
    pair.run(Duration::from_millis(100));
    assert_eq!(pair.states()[0], PeerState::Alive);
}

#[test]
fn a_datagram_in_the_name_of_another_is_dropped() {
    let mut pair = Pair::new();
    pair.hosts[0].1.announce(pair.now, PeerId([2; 16]));
    let (_, bytes) = pair.hosts[0].1.poll_datagram().unwrap();
    pair.hosts[1].1.handle_datagram(pair.now, PeerId([3; 16]), &bytes);
    assert_eq!(pair.states()[1], PeerState::Down);
    pair.hosts[1].1.handle_datagram(pair.now, PeerId([2; 16]), b"\xff\x00 nonsense");
}
