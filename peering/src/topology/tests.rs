use rand::SeedableRng;

use super::*;

struct Host {
    now: Instant,
    topology: Topology,
    conns: u64,
}

impl Host {
    fn new(me: u8, targets: &[&str]) -> Self {
        #[expect(clippy::disallowed_methods, reason = "any moment will do")]
        let now = Instant::now();
        let targets = targets.iter().map(|target| target.parse().unwrap()).collect();
        let mut topology = Topology::new(peer(me), true, targets, StdRng::seed_from_u64(7), now);
        topology.handle_timeout(now);
        Host { now, topology, conns: 0 }
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.topology.handle_timeout(self.now);
    }

    fn dials(&mut self) -> Vec<DialId> {
        let actions = std::iter::from_fn(|| self.topology.poll_action());
        actions
            .filter_map(|action| if let Action::Dial(dial, _) = action { Some(dial) } else { None })
            .collect()
    }

    fn closes(&mut self) -> Vec<(ConnId, String)> {
        let actions = std::iter::from_fn(|| self.topology.poll_action());
        actions
            .filter_map(|action| if let Action::Close(conn, why) = action { Some((conn, why)) } else { None })
            .collect()
    }

    fn establish(&mut self, with: u8, dial: Option<DialId>) -> ConnId {
        self.conns += 1;
        let conn = ConnId(self.conns);
        self.topology.handle_established(self.now, conn, peer(with), dial, "10.0.0.9:6783".parse().unwrap());
        conn
    }

    fn state(&self) -> (TargetState, Option<String>) {
        let status = self.topology.target_status(self.now).remove(0);
        (status.state, status.reason)
    }
}

fn peer(n: u8) -> PeerId {
    PeerId([n; 16])
}

#[test]
fn a_target_is_retried_for_ever_and_says_why() {
    let mut host = Host::new(1, &["node02"]);
    assert_eq!(host.state().0, TargetState::Resolving);
    for round in 0..50 {
        let dials = host.dials();
        assert_eq!(dials.len(), 1, "round {round}");
        host.topology.handle_dial_failed(host.now, dials[0], "no such name");
        assert_eq!(host.state(), (TargetState::Waiting, Some("no such name".to_owned())));
        let wait = host.topology.poll_timeout().unwrap() - host.now;
        assert!(wait <= if round == 0 { backoff::FIRST } else { backoff::LONGEST });
        host.wait(wait);
    }
}

#[test]
fn naming_oneself_is_harmless() {
    let mut host = Host::new(1, &["node01"]);
    let dial = host.dials()[0];
    let conn = host.establish(1, Some(dial));
    assert_eq!(host.closes(), [(conn, "self".to_owned())]);
    assert_eq!(host.state(), (TargetState::Established, Some("self".to_owned())));
    host.wait(Duration::from_secs(3600));
    assert!(host.dials().is_empty());
    assert_eq!(host.topology.poll_timeout(), None);
}

#[test]
fn the_lower_id_keeps_its_own_of_two_simultaneous_dials() {
    let mut low = Host::new(1, &["node02"]);
    let dial = low.dials()[0];
    let own = low.establish(2, Some(dial));
    let theirs = low.establish(2, None);
    low.topology.handle_greeted(low.now, own, 77);
    assert!(low.closes().is_empty());
    low.topology.handle_greeted(low.now, theirs, 77);
    assert_eq!(low.closes(), [(theirs, "duplicate".to_owned())]);
    assert_eq!(low.topology.best(peer(2)), Some(own));

    let mut high = Host::new(3, &["node02"]);
    let dial = high.dials()[0];
    let own = high.establish(2, Some(dial));
    let theirs = high.establish(2, None);
    high.topology.handle_greeted(high.now, own, 77);
    high.topology.handle_greeted(high.now, theirs, 77);
    assert!(high.closes().is_empty(), "the lower id judges");
    high.topology.handle_closed(high.now, own, "duplicate");
    assert_eq!(high.state(), (TargetState::Established, None));
}

#[test]
fn a_later_dial_replaces_a_connection_that_is_dead_for_the_other_side() {
    let mut host = Host::new(1, &["node02"]);
    let dial = host.dials()[0];
    let old = host.establish(2, Some(dial));
    host.topology.handle_greeted(host.now, old, 77);
    host.wait(Duration::from_secs(60));
    let new = host.establish(2, None);
    host.topology.handle_greeted(host.now, new, 77);
    assert_eq!(host.closes(), [(old, "duplicate".to_owned())]);
}

#[test]
fn a_new_boot_nonce_replaces_at_once_whoever_judges() {
    for me in [1, 3] {
        let mut host = Host::new(me, &["node02"]);
        let dial = host.dials()[0];
        let old = host.establish(2, Some(dial));
        host.topology.handle_greeted(host.now, old, 77);
        let new = host.establish(2, None);
        host.topology.handle_greeted(host.now, new, 78);
        assert_eq!(host.closes(), [(old, "replaced".to_owned())]);
        assert_eq!(host.topology.connected(), [peer(2)]);
    }
}

#[test]
fn a_refused_peer_is_tried_again_after_a_while() {
    let mut host = Host::new(1, &["node02"]);
    let dial = host.dials()[0];
    let conn = host.establish(2, Some(dial));
    host.topology.refuse(host.now, conn, "no common protocol version");
    assert_eq!(host.state(), (TargetState::Refused, Some("no common protocol version".to_owned())));
    host.wait(Duration::from_secs(29));
    assert!(host.dials().is_empty());
    host.wait(Duration::from_secs(1));
    assert_eq!(host.dials().len(), 1);
}

#[test]
fn known_hosts_are_dialled_up_to_the_limit() {
    let mut host = Host::new(1, &[]);
    let addr: SocketAddr = "10.0.0.9:6783".parse().unwrap();
    for n in 2..=5 {
        host.topology.set_peer(host.now, peer(n), vec![addr]);
    }
    host.wait(Duration::ZERO);
    assert_eq!(host.dials().len(), 4);
    for n in 6..=200 {
        host.topology.set_peer(host.now, peer(n), vec![addr]);
    }
    host.wait(Duration::ZERO);
    assert_eq!(host.dials().len() + 4, Topology::chosen_limit(200) / 2);
    host.topology.want(host.now, peer(200));
    host.topology.want(host.now, peer(200));
    assert!(host.dials().len() <= 1);
}

#[test]
fn a_peer_cannot_pile_up_connections_or_stay_silent() {
    let mut host = Host::new(1, &[]);
    for _ in 0..100 {
        host.establish(2, None);
    }
    assert_eq!(host.topology.connection_count(peer(2)), CONNS_PER_PEER);
    host.wait(GREETING_MAX);
    assert_eq!(host.topology.connection_count(peer(2)), 0);
}

#[test]
fn what_was_chosen_before_the_crowd_came_is_trimmed() {
    let mut host = Host::new(1, &["node02"]);
    let dial = host.dials()[0];
    let aimed = host.establish(2, Some(dial));
    host.topology.handle_greeted(host.now, aimed, 77);
    let addr: SocketAddr = "10.0.0.9:6783".parse().unwrap();
    for n in 3..=60 {
        host.topology.set_peer(host.now, peer(n), vec![addr]);
        let dial = {
            host.topology.want(host.now, peer(n));
            host.dials()[0]
        };
        let conn = host.establish(n, Some(dial));
        host.topology.handle_greeted(host.now, conn, 77);
    }
    for _ in 0..3 {
        host.wait(Duration::from_secs(31));
        while let Some(dial) = host.dials().pop() {
            host.topology.handle_dial_failed(host.now, dial, "no answer");
        }
    }
    assert_eq!(host.topology.connected(), [peer(2)], "the target stays; what nobody needs goes");
}
