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

    /// So many hosts are known, all of them up.
    fn crowd(&mut self, hosts: u8) {
        for n in 1..=hosts {
            self.topology.set_peer(self.now, peer(n), vec![address()]);
        }
    }

    /// Every dial is answered by the host that is meant, until there are no more.
    fn settle(&mut self) {
        for _ in 0..50 {
            self.wait(Duration::from_millis(100));
            while let Some(action) = self.topology.poll_action() {
                if let Action::Dial(dial, DialTarget::Addr { peer, .. }) = action {
                    let conn = self.establish(peer.0[0], Some(dial));
                    self.topology.handle_greeted(self.now, conn, 77, Purpose::Demand);
                }
            }
        }
    }

    fn state(&self) -> (TargetState, Option<String>) {
        let status = self.topology.target_status(self.now).remove(0);
        (status.state, status.reason)
    }
}

fn peer(n: u8) -> PeerId {
    PeerId([n; 16])
}

fn address() -> SocketAddr {
    "10.0.0.9:6783".parse().unwrap()
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
        assert!(
            wait <= if round == 0 { backoff::FIRST } else { backoff::ALONE },
            "it is connected to nobody"
        );
        host.wait(wait);
    }
}

#[test]
fn naming_oneself_is_harmless() {
    let mut host = Host::new(1, &["node01"]);
    let dial = host.dials()[0];
    let (conn, far_end) = (host.establish(1, Some(dial)), host.establish(1, None));
    host.topology.met_oneself(far_end);
    host.topology.met_oneself(conn);
    assert_eq!(host.closes(), [(conn, "self".to_owned())]);
    host.topology.handle_closed(host.now, far_end, "self");
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
    low.topology.handle_greeted(low.now, own, 77, Purpose::Demand);
    assert!(low.closes().is_empty());
    low.topology.handle_greeted(low.now, theirs, 77, Purpose::Demand);
    assert_eq!(low.closes(), [(theirs, "duplicate".to_owned())]);
    assert_eq!(low.topology.best(peer(2)), Some(own));

    let mut high = Host::new(3, &["node02"]);
    let dial = high.dials()[0];
    let own = high.establish(2, Some(dial));
    let theirs = high.establish(2, None);
    high.topology.handle_greeted(high.now, own, 77, Purpose::Demand);
    high.topology.handle_greeted(high.now, theirs, 77, Purpose::Demand);
    assert!(high.closes().is_empty(), "the lower id judges");
    high.topology.handle_closed(high.now, own, "duplicate");
    assert_eq!(high.state(), (TargetState::Established, None));
}

#[test]
fn a_later_dial_replaces_a_connection_that_is_dead_for_the_other_side() {
    let mut host = Host::new(1, &["node02"]);
    let dial = host.dials()[0];
    let old = host.establish(2, Some(dial));
    host.topology.handle_greeted(host.now, old, 77, Purpose::Demand);
    host.wait(Duration::from_secs(60));
    let new = host.establish(2, None);
    host.topology.handle_greeted(host.now, new, 77, Purpose::Demand);
    assert_eq!(host.closes(), [(old, "duplicate".to_owned())]);
}

#[test]
fn a_new_boot_nonce_replaces_at_once_whoever_judges() {
    for me in [1, 3] {
        let mut host = Host::new(me, &["node02"]);
        let dial = host.dials()[0];
        let old = host.establish(2, Some(dial));
        host.topology.handle_greeted(host.now, old, 77, Purpose::Demand);
        let new = host.establish(2, None);
        host.topology.handle_greeted(host.now, new, 78, Purpose::Demand);
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
fn a_few_hosts_are_all_dialled_in_turns() {
    let mut host = Host::new(1, &[]);
    for n in 2..=15 {
        host.topology.set_peer(host.now, peer(n), vec![address()]);
    }
    host.wait(Duration::ZERO);
    let first = host.dials();
    assert!(first.len() < 14, "not all at once: {}", first.len());
    first.into_iter().for_each(|dial| host.topology.handle_dial_failed(host.now, dial, "no answer"));
    host.settle();
    assert_eq!(host.topology.connected().len(), 14);
}

#[test]
fn in_a_crowd_a_host_chooses_some_and_the_next_ones_on_the_ring() {
    let mut host = Host::new(100, &[]);
    host.crowd(200);
    host.settle();
    let connected = host.topology.connected();
    let wanted = Topology::chosen_limit(200) / 2 + 2;
    assert!((wanted..=wanted + 2).contains(&connected.len()), "{connected:?}");
    assert!(connected.contains(&peer(101)) && connected.contains(&peer(102)), "{connected:?}");
    host.topology.want(host.now, peer(55));
    host.topology.want(host.now, peer(55));
    assert!(host.dials().len() <= 1);
}

#[test]
fn who_comes_when_there_is_no_room_is_sent_elsewhere_but_neighbours_are_let_in() {
    let mut host = Host::new(100, &[]);
    host.crowd(200);
    host.settle();
    let limit = Topology::chosen_limit(200);
    for n in 1..=60 {
        let conn = host.establish(n, None);
        host.topology.handle_greeted(host.now, conn, 77, Purpose::Chosen);
        assert!(host.topology.connected().len() <= limit);
    }
    assert_eq!(host.topology.connected().len(), limit);
    assert!(host.closes().iter().all(|(_, reason)| reason == FULL));
    let neighbour = host.establish(99, None);
    assert!(host.topology.handle_greeted(host.now, neighbour, 77, Purpose::Chosen));
    assert_eq!(host.closes().len(), 1);
    let named = host.establish(61, None);
    assert!(host.topology.handle_greeted(host.now, named, 77, Purpose::Target), "a target is on top");
    assert_eq!(host.topology.connected().len(), limit + 1);
}

#[test]
fn a_host_that_others_may_have_named_too_is_a_partner_only_until_there_is_another() {
    for (known, partners) in [(30, vec![peer(9)]), (4, vec![peer(9), peer(200)])] {
        let mut host = Host::new(100, &["node200"]);
        let dial = host.dials()[0];
        let named = host.establish(200, Some(dial));
        host.topology.handle_greeted(host.now, named, 77, Purpose::Demand);
        host.crowd(known);
        assert_eq!(host.topology.partners(), [peer(200)], "there is nobody else");
        let chosen = host.establish(9, None);
        host.topology.handle_greeted(host.now, chosen, 77, Purpose::Chosen);
        assert_eq!(host.topology.partners(), partners, "{known} are up");
    }
}

#[test]
fn a_peer_without_room_is_not_pressed_and_shows_no_failure() {
    let mut host = Host::new(100, &[]);
    host.crowd(200);
    host.wait(Duration::from_secs(1));
    let dial = host.dials()[0];
    let conn = host.establish(101, Some(dial));
    host.topology.handle_greeted(host.now, conn, 77, Purpose::Demand);
    host.topology.handle_closed(host.now, conn, FULL);
    assert!(host.topology.connection_status(host.now).iter().all(|status| status.reason.is_none()));
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
fn what_was_made_for_one_message_goes_when_nobody_needs_it() {
    let mut host = Host::new(1, &["node02"]);
    let dial = host.dials()[0];
    let aimed = host.establish(2, Some(dial));
    host.topology.handle_greeted(host.now, aimed, 77, Purpose::Demand);
    host.crowd(200);
    host.settle();
    let settled = host.topology.connected();
    for n in (150..=160).filter(|n| !settled.contains(&peer(*n))) {
        let conn = host.establish(n, None);
        host.topology.handle_greeted(host.now, conn, 77, Purpose::Demand);
    }
    host.wait(Duration::from_secs(11));
    host.wait(Duration::from_secs(1));
    assert_eq!(host.topology.connected(), settled, "the target and the chosen ones stay");
    assert!(settled.contains(&peer(2)));
}
