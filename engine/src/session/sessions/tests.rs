//! Two hosts and a wire between them, under one virtual clock.

use super::*;

struct Host {
    id: PeerId,
    addr: SocketAddr,
    key: [u8; KEY_LEN],
    sessions: Sessions,
    seals: Option<Arc<Epoch>>,
    opens: BTreeMap<u32, Arc<Epoch>>,
    told: Vec<String>,
}

struct Wire {
    now: Instant,
    hosts: [Host; 2],
    /// Handshake datagrams that are lost from now on.
    lose: usize,
    seen: Vec<(usize, Vec<u8>)>,
}

fn host(number: u8, now: Instant, start: u64) -> Host {
    let secret = [number; KEY_LEN];
    let key = StaticKey::new(secret).public();
    let addr = SocketAddr::from(([192, 0, 2, number], 4789));
    let sessions = Sessions::new(now, StaticKey::new(secret), start, [number + 50; 32]);
    let (seals, opens, told) = (None, BTreeMap::new(), Vec::new());
    Host { id: PeerId([number; 16]), addr, key, sessions, seals, opens, told }
}

impl Wire {
    fn new() -> Self {
        #[expect(clippy::disallowed_methods, reason = "any moment will do")]
        let now = Instant::now();
        let mut wire = Wire { now, hosts: [host(1, now, 1), host(2, now, 1)], lose: 0, seen: Vec::new() };
        wire.introduce();
        wire
    }

    fn introduce(&mut self) {
        let known = self.hosts.each_ref().map(|host| (host.id, host.key, host.addr));
        for (at, host) in self.hosts.iter_mut().enumerate() {
            let (peer, key, addr) = known[1 - at];
            host.sessions.set_peer(peer, key, Some(Suite::AesGcm));
            host.sessions.set_addr(peer, Some(addr));
        }
    }

    fn want(&mut self, at: usize) {
        let peer = self.hosts[1 - at].id;
        self.hosts[at].sessions.want(self.now, peer);
    }

    /// Time passes, and everything that is sent arrives, unless it is lost.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += Duration::from_millis(20);
            self.hosts.iter_mut().for_each(|host| host.sessions.handle_timeout(self.now));
            self.deliver();
        }
    }

    fn deliver(&mut self) {
        for _ in 0..8 {
            for at in 0..2 {
                self.hosts[at].note();
                while let Some(Transmit { to, contents }) = self.hosts[at].sessions.poll_transmit() {
                    assert_eq!(to, self.hosts[1 - at].addr);
                    self.seen.push((1 - at, contents.clone()));
                    if self.lose > 0 {
                        self.lose -= 1;
                        continue;
                    }
                    let from = self.hosts[at].addr;
                    let taken = self.hosts[1 - at].sessions.handle_datagram(self.now, from, &contents);
                    self.hosts[1 - at].told.extend(taken.err().map(|reason| reason.name().to_owned()));
                }
                self.keep_alive(at);
            }
        }
    }

    /// The first frame of a session goes at once.
    fn keep_alive(&mut self, at: usize) {
        if self.hosts[at].seals.as_ref().is_some_and(|epoch| epoch.sealed() == 0) {
            self.frame(at).unwrap();
        }
    }

    /// A frame from one host to the other.
    fn frame(&mut self, at: usize) -> Result<(), DropReason> {
        let epoch = self.hosts[at].seals.clone().ok_or(DropReason::NoPath)?;
        let header = epoch.next_header(0).ok_or(DropReason::NoPath)?;
        let tag = epoch.seal(header, &mut []).unwrap();
        let mut datagram = [&header.to_bytes()[..], &tag].concat();
        let from = self.hosts[at].id;
        let other = &mut self.hosts[1 - at];
        let epoch = other.opens.get(&header.receiver).ok_or(DropReason::UnknownSession)?;
        epoch.open(header, &mut datagram)?;
        other.sessions.handle_heard(self.now, from);
        other.note();
        Ok(())
    }

    fn both_ways(&mut self) {
        for at in 0..2 {
            assert_eq!(self.frame(at), Ok(()), "from host {at}");
        }
    }
}

impl Host {
    fn note(&mut self) {
        while let Some(event) = self.sessions.poll_event() {
            match event {
                Event::Opens(_, epoch) => drop(self.opens.insert(epoch.local, epoch)),
                Event::Seals(_, epoch) => self.seals = Some(epoch),
                Event::Ends(local) => drop(self.opens.remove(&local)),
                Event::Sealless(_) => self.seals = None,
                Event::Silent(_) => self.told.push("silent".to_owned()),
            }
            assert!(self.opens.len() <= 3, "more epochs than there may be");
        }
    }
}

#[test]
fn frames_pass_both_ways_after_one_round_trip() {
    let mut wire = Wire::new();
    wire.want(0);
    wire.deliver();
    wire.both_ways();
    assert_eq!(wire.seen.len(), 2, "an initiation and a response");
    wire.want(0);
    wire.want(1);
    wire.deliver();
    assert_eq!(wire.seen.len(), 2, "there is a session");
}

#[test]
fn hosts_that_begin_at_once_settle_on_one_session() {
    let mut wire = Wire::new();
    wire.want(0);
    wire.want(1);
    wire.run(Duration::from_secs(1));
    wire.both_ways();
    let [one, two] = wire.hosts.each_ref().map(|host| host.seals.clone().unwrap());
    assert!(wire.hosts[0].opens.contains_key(&one.local) && wire.hosts[1].opens.contains_key(&two.local));
    assert_eq!((one.remote, one.local), (two.local, two.remote), "both seal in the same session");
}

#[test]
fn what_is_lost_is_sent_anew() {
    for lose in 1..4 {
        let mut wire = Wire::new();
        wire.lose = lose;
        wire.want(0);
        wire.run(Duration::from_secs(8));
        wire.both_ways();
    }
}

#[test]
fn sessions_are_renewed_while_frames_pass_and_end_for_good() {
    let mut wire = Wire::new();
    wire.want(0);
    wire.deliver();
    let first = wire.hosts[0].seals.clone().unwrap().local;
    for _ in 0..600 {
        wire.run(Duration::from_secs(1));
        wire.both_ways();
    }
    assert!(wire.seen.len() >= 8, "five renewals in ten minutes: {}", wire.seen.len());
    assert!(!wire.hosts[0].opens.contains_key(&first));
    wire.lose = usize::MAX;
    wire.run(REJECT_AFTER + Duration::from_secs(1));
    assert!(wire.hosts.iter().all(|host| host.seals.is_none() && host.opens.is_empty()));
    assert!(wire.hosts.iter().any(|host| host.told.contains(&"silent".to_owned())));
}

#[test]
fn an_old_initiation_sent_again_changes_nothing() {
    let mut wire = Wire::new();
    wire.want(0);
    wire.deliver();
    let (to, initiation) = wire.seen[0].clone();
    let (now, from) = (wire.now, wire.hosts[0].addr);
    for _ in 0..20 {
        let again = wire.hosts[to].sessions.handle_datagram(now, from, &initiation);
        assert_eq!(again, Err(DropReason::StaleHandshake));
    }
    wire.deliver();
    assert_eq!(wire.seen.len(), 2);
    wire.both_ways();
}

#[test]
fn a_restarted_host_is_believed_and_an_earlier_life_is_not() {
    let mut wire = Wire::new();
    wire.want(0);
    wire.deliver();
    let old = wire.seen[0].1.clone();
    wire.hosts[0] = host(1, wire.now, 2);
    wire.introduce();
    // Its peer's frames are for a session that it does not know.
    assert_eq!(wire.frame(1), Err(DropReason::UnknownSession));
    let peer = wire.hosts[1].id;
    wire.hosts[0].sessions.want_anew(wire.now, peer);
    wire.deliver();
    wire.both_ways();
    let (now, from) = (wire.now, wire.hosts[0].addr);
    assert_eq!(wire.hosts[1].sessions.handle_datagram(now, from, &old), Err(DropReason::StaleHandshake));
}

#[test]
fn a_host_started_again_at_once_is_sealed_to_in_its_new_life() {
    // Whoever of them is preferred: who began the first session, and who was started again.
    for (first, again) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let mut wire = Wire::new();
        wire.want(first);
        wire.run(Duration::from_millis(300));
        wire.both_ways();
        wire.hosts[again] = host(again as u8 + 1, wire.now, 2);
        wire.introduce();
        assert_eq!(wire.frame(1 - again), Err(DropReason::UnknownSession));
        let peer = wire.hosts[1 - again].id;
        wire.hosts[again].sessions.want_anew(wire.now, peer);
        wire.deliver();
        wire.both_ways();
    }
}

#[test]
fn what_a_host_said_before_it_was_away_stays_old() {
    let mut wire = Wire::new();
    wire.want(0);
    wire.deliver();
    let (to, initiation) = wire.seen[0].clone();
    let (now, gone) = (wire.now, &wire.hosts[0]);
    let (id, key, from) = (gone.id, gone.key, gone.addr);
    wire.hosts[to].sessions.remove_peer(id);
    wire.hosts[to].note();
    let again = |wire: &mut Wire| wire.hosts[to].sessions.handle_datagram(now, from, &initiation);
    assert_eq!(again(&mut wire), Err(DropReason::StrangerHandshake));
    wire.introduce();
    assert_eq!(again(&mut wire), Err(DropReason::StaleHandshake));
    wire.hosts[to].sessions.set_peer(id, key, Some(Suite::ChaChaPoly));
    wire.hosts[to].sessions.set_peer(id, key, Some(Suite::AesGcm));
    assert_eq!(
        again(&mut wire),
        Err(DropReason::StaleHandshake),
        "also when another suite was used meanwhile"
    );
    // It is not remembered for ever.
    let sessions = &mut wire.hosts[to].sessions;
    sessions.remove_peer(id);
    let other = |number: u32| {
        let mut key = [7; KEY_LEN];
        key[..4].copy_from_slice(&number.to_le_bytes());
        key
    };
    (0..2).for_each(|number| sessions.remember(other(number), Some(Stamp::default())));
    assert_eq!(sessions.gone.len(), 3);
    let few = sessions.gone.clone();
    sessions.gone.extend((2..).map(|number| (other(number), (9, Stamp::default()))).take(REMEMBERED - 3));
    sessions.remember(other(u32::MAX), Some(Stamp::default()));
    assert_eq!(sessions.gone.len(), REMEMBERED);
    assert!(!sessions.gone.contains_key(&key) && few.contains_key(&key), "the first that went");
}

#[test]
fn strangers_and_other_secrets_get_nothing() {
    let mut wire = Wire::new();
    let now = wire.now;
    wire.hosts[0].sessions.set_psks(now, vec![Psk::new([1; 32])]);
    wire.want(0);
    wire.run(Duration::from_secs(12));
    assert!(wire.hosts.iter().all(|host| host.opens.is_empty()));
    assert!(wire.hosts[1].told.iter().all(|reason| reason == "stranger_handshake"));
    assert!(wire.hosts[0].told.contains(&"silent".to_owned()));
    let mut wire = Wire::new();
    let stranger = wire.hosts[0].id;
    wire.hosts[1].sessions.remove_peer(stranger);
    wire.want(0);
    wire.deliver();
    assert_eq!(wire.hosts[1].told, ["stranger_handshake"]);
}

#[test]
fn under_a_flood_only_who_receives_is_answered() {
    let mut wire = Wire::new();
    let [one, two] = wire.hosts.each_ref().map(|host| (host.id, host.key));
    let mut flooder = Sessions::new(wire.now, StaticKey::new([9; 32]), 1, [77; 32]);
    flooder.set_peer(two.0, two.1, Some(Suite::AesGcm));
    flooder.set_addr(two.0, Some(wire.hosts[1].addr));
    for number in 0..300_u32 {
        flooder.begin(wire.now, two.0);
        let Transmit { contents, .. } = flooder.poll_transmit().unwrap();
        let from = SocketAddr::from((number.to_be_bytes(), 4789));
        let reason = wire.hosts[1].sessions.handle_datagram(wire.now, from, &contents).unwrap_err();
        let expected =
            if number < FREE_READS { DropReason::StrangerHandshake } else { DropReason::HandshakeLimit };
        assert_eq!(reason, expected);
        let cookie = wire.hosts[1].sessions.poll_transmit();
        assert!(cookie.is_none_or(|cookie| cookie.contents.len() < contents.len()));
    }
    wire.hosts[0].sessions.want(wire.now, two.0);
    wire.deliver();
    assert!(wire.hosts[0].seals.is_none(), "it gets a cookie");
    wire.hosts[0].sessions.begin(wire.now, two.0);
    wire.deliver();
    wire.both_ways();
    assert!(wire.hosts[1].sessions.peers.contains_key(&one.0) && wire.hosts[1].sessions.by_number.len() == 1);
}

#[test]
fn a_worn_session_is_renewed_and_a_used_up_one_seals_nothing() {
    let mut wire = Wire::new();
    let limits = Limits { rekey: 10, refuse: 20 };
    for host in &mut wire.hosts {
        host.sessions.limits = Some(limits);
    }
    wire.want(0);
    wire.deliver();
    let first = wire.hosts[0].seals.clone().unwrap();
    (0..10).for_each(|_| wire.frame(0).unwrap());
    wire.run(Duration::from_millis(100));
    assert_ne!(wire.hosts[0].seals.clone().unwrap().local, first.local);
    assert_eq!((0..100).filter_map(|_| first.next_header(0)).count(), 9, "20 less the 11 that were sealed");
    assert!(first.next_header(1).is_some(), "another lane goes on");
}

#[test]
fn only_the_newest_keepalive_of_the_control_side_tells_where_a_host_is() {
    let mut wire = Wire::new();
    wire.want(0);
    wire.run(Duration::from_secs(1));
    let epoch = wire.hosts[0].opens.values().next().unwrap();
    let newest = |lane, counter| {
        epoch.is_newest_keepalive(crate::wire::sealed::Header { lane, receiver: epoch.local, counter })
    };
    let control = crate::wire::sealed::CONTROL_LANE;
    assert_eq!([5, 3, 5, 6, 0].map(|counter| newest(control, counter)), [true, false, false, true, false]);
    assert!(!newest(0, 100) && newest(control, 7), "lanes of workers leave from other ports");
}

/// The keys of a host, by number, newest first.
fn take(wire: &mut Wire, at: usize, keys: &[u8]) {
    let now = wire.now;
    wire.hosts[at].sessions.set_psks(now, keys.iter().map(|key| Psk::new([*key; 32])).collect());
}

fn key_of(wire: &Wire, at: usize) -> PskId {
    wire.hosts[at].sessions.peers.values().next().unwrap().current.as_ref().unwrap().psk
}

/// Frames both ways, all the time.
fn busy(wire: &mut Wire, time: Duration) {
    let end = wire.now + time;
    while wire.now < end {
        wire.run(Duration::from_millis(20));
        wire.both_ways();
    }
}

#[test]
fn sessions_go_over_to_another_secret_without_a_frame_lost() {
    let [old, new] = [1, 2].map(|key| Psk::new([key; 32]).id());
    for order in [[0, 1], [1, 0]] {
        let mut wire = Wire::new();
        let steps: [&[u8]; 4] = [&[1], &[1, 2], &[2, 1], &[2]];
        take(&mut wire, 0, steps[0]);
        take(&mut wire, 1, steps[0]);
        wire.want(0);
        wire.deliver();
        for (keys, expected) in steps[1..].iter().zip([old, new, new]) {
            for at in order {
                take(&mut wire, at, keys);
                busy(&mut wire, Duration::from_millis(700));
            }
            busy(&mut wire, RENEW_WITHIN * 2);
            assert_eq!([0, 1].map(|at| key_of(&wire, at)), [expected; 2], "{keys:?}");
        }
        busy(&mut wire, RETIRED_AFTER);
        assert!(wire.seen.len() <= 8, "{} handshake datagrams", wire.seen.len());
    }
}

#[test]
fn a_host_that_skips_the_step_between_loses_nothing_either() {
    let mut wire = Wire::new();
    take(&mut wire, 0, &[2, 1]);
    take(&mut wire, 1, &[1]);
    wire.want(0);
    wire.deliver();
    take(&mut wire, 1, &[2, 1]);
    take(&mut wire, 0, &[2]);
    busy(&mut wire, RETIRED_AFTER * 2);
    assert_eq!([0, 1].map(|at| key_of(&wire, at)), [Psk::new([2; 32]).id(); 2]);
}

#[test]
fn a_host_left_behind_is_cut_off() {
    let mut wire = Wire::new();
    take(&mut wire, 0, &[2, 1]);
    take(&mut wire, 1, &[1]);
    wire.want(0);
    wire.deliver();
    wire.both_ways();
    take(&mut wire, 0, &[2]);
    wire.run(RETIRED_AFTER + Duration::from_secs(1));
    assert!(wire.hosts[0].seals.is_none() && wire.hosts[0].opens.is_empty());
    assert_eq!(wire.frame(1), Err(DropReason::UnknownSession));
    let (now, peer) = (wire.now, wire.hosts[0].id);
    wire.hosts[1].sessions.want_anew(now, peer);
    wire.run(Duration::from_secs(12));
    assert!(wire.hosts[0].told.iter().any(|reason| reason == "stranger_handshake"));
    assert!(wire.hosts[0].opens.is_empty());
}
