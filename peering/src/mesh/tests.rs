use super::*;
use crate::gossip::Slot;
use crate::identity::Identity;
use crate::keyring::Keyring;
use crate::proto::{Hello, MAX_VERSION, MIN_VERSION, Message, Purpose};
use crate::records::{Encryption, HostRecord, VtepRecord};
use crate::sealing::Sealing;

struct Bench {
    now: Instant,
    mesh: Mesh,
}

impl Bench {
    fn new(targets: &[&str], stored: Option<&[u8]>) -> Self {
        Bench::starting(targets, stored, |_| {})
    }

    fn starting(targets: &[&str], stored: Option<&[u8]>, change: impl FnOnce(&mut MeshConfig)) -> Self {
        #[expect(clippy::disallowed_methods, reason = "any moment will do")]
        let now = Instant::now();
        let mut config = MeshConfig {
            identity: Identity::generate([1; 32]).unwrap(),
            nickname: "node01".to_owned(),
            version: "1".to_owned(),
            boot_nonce: 7,
            port: DEFAULT_PORT,
            data_port: DEFAULT_DATA_PORT,
            advertise: vec!["192.0.2.1:6783".parse().unwrap()],
            data_addrs: vec!["192.0.2.1:4789".parse().unwrap()],
            targets: targets.iter().map(|target| target.parse().unwrap()).collect(),
            range: "10.32.0.0/12".parse().unwrap(),
            range_given: false,
            mtu: 1450,
            reclaim_after: Duration::from_secs(86_400),
            discovery: true,
            found: false,
            forgot: false,
            keyring: Keyring::default(),
            allowed: None,
            sealing: Sealing::default(),
            seed: [1; 32],
        };
        change(&mut config);
        Bench { now, mesh: Mesh::new(config, stored, now).unwrap() }
    }

    /// Everything the mesh wants done now, with a disk that works.
    fn outputs(&mut self) -> Vec<Output> {
        self.mesh.handle_timeout(self.now);
        let mut outputs = Vec::new();
        loop {
            if self.mesh.poll_persist().is_some() {
                self.mesh.handle_persisted(Ok(()));
            } else if let Some(output) = self.mesh.poll_output() {
                outputs.push(output);
            } else {
                return outputs;
            }
        }
    }

    fn dial(&mut self) -> DialId {
        let dial = |output: &Output| if let Output::Dial { dial, .. } = output { Some(*dial) } else { None };
        self.outputs().iter().find_map(dial).unwrap()
    }

    fn establish(&mut self, conn: u64, dial: Option<DialId>) -> ConnId {
        self.establish_from(conn, dial, "192.0.2.2:6783")
    }

    fn establish_from(&mut self, conn: u64, dial: Option<DialId>, remote: &str) -> ConnId {
        let conn = ConnId(conn);
        self.mesh.handle_established(self.now, conn, PeerId([9; 16]), dial, remote.parse().unwrap());
        conn
    }

    fn hear(&mut self, conn: ConnId, message: &Message) {
        self.mesh.handle_message(self.now, conn, &message.encode());
    }

    fn closed(&mut self) -> Option<String> {
        let closed = |output| if let Output::Close { reason, .. } = output { Some(reason) } else { None };
        self.outputs().into_iter().find_map(closed)
    }

    fn target(&self) -> TargetStatus {
        self.mesh.status(self.now).targets.remove(0)
    }
}

fn hello(min_version: u16, max_version: u16) -> Message {
    let nickname = "node02\u{1b}[31m".to_owned();
    Message::Hello(Hello {
        min_version,
        max_version,
        cluster: None,
        cedes: false,
        boot_nonce: 5,
        nickname,
        purpose: Purpose::Target,
        standing_ms: 1,
    })
}

#[test]
fn a_peer_without_a_common_version_is_refused_with_both_ranges() {
    let mut bench = Bench::new(&["node02"], None);
    let dial = bench.dial();
    let conn = bench.establish(1, Some(dial));
    bench.hear(conn, &hello(MAX_VERSION + 1, MAX_VERSION + 2));
    let reason = bench.closed().unwrap();
    assert_eq!(
        reason,
        format!(
            "no common protocol version: node01 speaks {MIN_VERSION} to {MAX_VERSION}, node02[31m speaks {} to {}",
            MAX_VERSION + 1,
            MAX_VERSION + 2
        )
    );
    assert_eq!((bench.target().state, bench.target().reason), (TargetState::Refused, Some(reason.clone())));
    assert!(bench.target().next_try_s.unwrap() > 29.0);
    let mut other = Bench::new(&["node02"], None);
    let dial = other.dial();
    let conn = other.establish(1, Some(dial));
    other.mesh.handle_closed(other.now, conn, &reason);
    assert_eq!((other.target().state, other.target().reason), (TargetState::Refused, Some(reason)));
}

#[test]
fn a_newer_peer_with_a_common_version_is_welcome() {
    let mut bench = Bench::new(&["node02"], None);
    let dial = bench.dial();
    let conn = bench.establish(1, Some(dial));
    assert_eq!(bench.target().state, TargetState::Connecting);
    bench.hear(conn, &hello(MIN_VERSION, MAX_VERSION + 9));
    assert_eq!(bench.target().state, TargetState::Established);
    assert_eq!(bench.target().peer_id, Some(PeerId([9; 16]).to_string()));
}

#[test]
fn nothing_is_heard_before_the_greeting_and_garbage_ends_nothing() {
    let mut bench = Bench::new(&[], None);
    let conn = bench.establish(1, None);
    bench.outputs();
    bench.hear(conn, &Message::Pull(vec![Slot([0; 16])]));
    for garbage in [&b""[..], b"\xff", &[0; 7], &[0xff; 4096]] {
        bench.mesh.handle_message(bench.now, conn, garbage);
        bench.mesh.handle_datagram(bench.now, conn, garbage);
    }
    assert!(bench.outputs().is_empty());
    assert_eq!(bench.mesh.malformed(), 8);
    bench.hear(conn, &hello(MIN_VERSION, MAX_VERSION));
    assert_eq!(bench.mesh.status(bench.now).connections[0].state, TargetState::Established);
}

/// A peer that is connected and answers questions, known to membership by what it says of itself.
fn acquainted(bench: &mut Bench) -> (ConnId, Membership) {
    let old = bench.establish(1, None);
    bench.hear(old, &hello(MIN_VERSION, MAX_VERSION));
    let mut peer = Membership::new(PeerId([9; 16]), 5, StdRng::from_seed([9; 32]));
    peer.announce(bench.now, bench.mesh.peer_id());
    converse(bench, old, &mut peer);
    assert_eq!(bench.mesh.membership.state(PeerId([9; 16])), PeerState::Alive);
    (old, peer)
}

/// What a peer answers to what is said to it.
fn answers(bench: &mut Bench, peer: &mut Membership) -> Vec<Message> {
    for output in bench.outputs() {
        if let Output::Datagram { bytes, .. } = output
            && let Ok(Message::Swim(bytes)) = Message::decode(&bytes)
        {
            peer.handle_datagram(bench.now, bench.mesh.peer_id(), &bytes);
        }
    }
    std::iter::from_fn(|| peer.poll_datagram()).map(|(_, bytes)| Message::Swim(bytes)).collect()
}

/// What membership says goes to and fro until nothing more is said; anything else is handed back.
fn converse(bench: &mut Bench, conn: ConnId, peer: &mut Membership) -> Vec<Output> {
    let mut rest = Vec::new();
    for _ in 0..8 {
        while let Some((_, bytes)) = peer.poll_datagram() {
            bench.hear(conn, &Message::Swim(bytes));
        }
        for output in bench.outputs() {
            match &output {
                Output::Datagram { conn: to, bytes } if *to == conn => {
                    if let Ok(Message::Swim(bytes)) = Message::decode(bytes) {
                        peer.handle_datagram(bench.now, bench.mesh.peer_id(), &bytes);
                    }
                }
                _ => rest.push(output),
            }
        }
    }
    rest
}

fn another_start() -> Message {
    let Message::Hello(hello) = hello(MIN_VERSION, MAX_VERSION) else { panic!("it is a hello") };
    Message::Hello(Hello { boot_nonce: 6, ..hello })
}

fn kinds(bench: &Bench) -> Vec<String> {
    bench.mesh.status(bench.now).events.into_iter().map(|event| event.kind).collect()
}

#[test]
fn a_clone_of_a_peer_that_answers_is_refused_and_the_peer_told() {
    let mut bench = Bench::new(&[], None);
    let (old, mut peer) = acquainted(&mut bench);
    let new = bench.establish_from(2, None, "192.0.2.3:6783");
    bench.hear(new, &another_start());
    let said = converse(&mut bench, old, &mut peer);
    let refusal = said.iter().find_map(|output| match output {
        Output::Close { conn, reason } if *conn == new => Some(reason.clone()),
        _ => None,
    });
    assert_eq!(refusal.as_deref(), Some("clone: this identity is in use by the host at 192.0.2.2:6783"));
    let told = |output: &Output| match output {
        Output::Transmit { conn, bytes } if *conn == old => Message::decode(bytes).ok(),
        _ => None,
    };
    assert!(said.iter().filter_map(told).any(|message| matches!(message, Message::CloneSeen(_))));
    assert_eq!(bench.mesh.topology.best(PeerId([9; 16])), Some(old));
    assert_eq!(kinds(&bench).iter().filter(|kind| *kind == "clone_seen").count(), 1);
}

#[test]
fn a_restarted_peer_whose_old_connection_is_silent_is_taken_in() {
    for closed in [false, true] {
        let mut bench = Bench::new(&[], None);
        let (old, mut peer) = acquainted(&mut bench);
        let new = bench.establish_from(2, None, "192.0.2.2:40001");
        bench.mesh.membership.ask(PeerId([9; 16]), 0);
        let on_its_way = answers(&mut bench, &mut peer);
        assert_eq!(on_its_way.len(), 1);
        bench.hear(new, &another_start());
        on_its_way.iter().for_each(|answer| bench.hear(old, answer));
        assert_eq!(bench.mesh.topology.best(PeerId([9; 16])), Some(old));
        if closed {
            bench.mesh.handle_closed(bench.now, old, "reset");
        } else {
            for _ in 0..11 {
                bench.now += Duration::from_millis(100);
                bench.outputs();
            }
        }
        assert_eq!(bench.mesh.topology.best(PeerId([9; 16])), Some(new), "closed {closed}");
        assert!(!kinds(&bench).contains(&"clone_seen".to_owned()));
    }
}

#[test]
fn a_peer_at_the_address_of_before_was_restarted_even_if_it_seems_to_answer() {
    let mut bench = Bench::new(&[], None);
    let (old, mut peer) = acquainted(&mut bench);
    let new = bench.establish(2, None);
    bench.hear(new, &another_start());
    assert_eq!(bench.mesh.topology.best(PeerId([9; 16])), Some(new));
    converse(&mut bench, old, &mut peer);
    assert!(!kinds(&bench).contains(&"clone_seen".to_owned()));
}

#[test]
fn a_clone_gives_no_addresses_until_the_other_is_gone() {
    let mut bench = Bench::new(&["node02"], None);
    let dial = bench.dial();
    let conn = bench.establish(1, Some(dial));
    bench.hear(conn, &hello(MIN_VERSION, MAX_VERSION));
    bench.mesh.handle_closed(bench.now, conn, "clone: this identity is in use by the host at 192.0.2.7:6783");
    assert!(kinds(&bench).contains(&"clone_seen".to_owned()));
    let attach = |bench: &mut Bench, number| {
        let wanted = AllocRequest {
            port: engine::types::PortId([1; 8]),
            network: MESH_NETWORK,
            holder: "web".to_owned(),
            wanted: Vec::new(),
            without_ipv6: false,
        };
        bench.mesh.allocate(bench.now, RequestId(number), wanted);
        bench.outputs().into_iter().find_map(|output| match output {
            Output::Allocated { result: Err(error), .. } => Some(error),
            _ => None,
        })
    };
    let refusal = attach(&mut bench, 1).unwrap();
    assert_eq!(refusal.code(), "clone");
    assert!(refusal.to_string().contains("192.0.2.7:6783"), "{refusal}");
    bench.now += Duration::from_secs(31);
    let dial = bench.dial();
    let conn = bench.establish(2, Some(dial));
    bench.hear(conn, &hello(MIN_VERSION, MAX_VERSION));
    for _ in 0..5 {
        bench.now += Duration::from_secs(1);
        bench.outputs();
    }
    assert!(kinds(&bench).contains(&"clone_gone".to_owned()), "{:?}", kinds(&bench));
    assert_eq!(attach(&mut bench, 2).map(|error| error.code()), None);
}

#[test]
fn a_clone_asks_who_dials_it_whether_the_other_is_gone() {
    let mut bench = Bench::new(&["node02"], None);
    let dial = bench.dial();
    let conn = bench.establish(1, Some(dial));
    bench.hear(conn, &hello(MIN_VERSION, MAX_VERSION));
    bench.mesh.handle_closed(bench.now, conn, "clone: this identity is in use by the host at 192.0.2.7:6783");
    bench.outputs();
    bench.now += Duration::from_secs(40);
    bench.dial();
    let (stranger, at) = (PeerId([8; 16]), "192.0.2.3:6783".parse().unwrap());
    let asks = |bench: &mut Bench, number| {
        bench.mesh.handle_established(bench.now, ConnId(number), stranger, None, at);
        let said = bench.outputs();
        let away =
            |output: &Output| matches!(output, Output::Close { conn: ConnId(conn), .. } if *conn == number);
        assert!(said.iter().any(away), "it lets nobody in: {said:?}");
        said.into_iter().find_map(|output| match output {
            Output::Dial { dial, target: DialTarget::Addr { addrs, peer } } => Some((dial, addrs, peer)),
            _ => None,
        })
    };
    let (dial, addrs, peer) = asks(&mut bench, 2).unwrap();
    assert_eq!((addrs, peer), (vec![at], stranger));
    assert_eq!(asks(&mut bench, 3), None, "it asks at most every 5 s");
    bench.mesh.handle_established(bench.now, ConnId(4), stranger, Some(dial), at);
    bench.hear(ConnId(4), &hello(MIN_VERSION, MAX_VERSION));
    bench.now += Duration::from_secs(4);
    bench.outputs();
    assert!(kinds(&bench).contains(&"clone_gone".to_owned()), "{:?}", kinds(&bench));
}

#[test]
fn a_host_that_is_established_does_not_believe_that_it_is_a_clone() {
    let mut bench = Bench::new(&[], None);
    let stands = bench.establish(1, None);
    bench.hear(stands, &hello(MIN_VERSION, MAX_VERSION));
    bench.now += Duration::from_secs(4);
    bench.outputs();
    let conn = ConnId(2);
    bench.mesh.handle_established(bench.now, conn, PeerId([8; 16]), None, "192.0.2.3:6783".parse().unwrap());
    bench.hear(conn, &hello(MIN_VERSION, MAX_VERSION));
    bench.mesh.handle_closed(bench.now, conn, "clone: this identity is in use by the host at 192.0.2.7:6783");
    assert!(bench.mesh.clones.oneself().is_none());
    assert_eq!(bench.mesh.topology.best(PeerId([9; 16])), Some(stands));
}

#[test]
fn a_peer_that_asks_too_much_is_closed() {
    let mut bench = Bench::new(&[], None);
    let conn = bench.establish(1, None);
    bench.hear(conn, &hello(MIN_VERSION, MAX_VERSION));
    bench.outputs();
    let flood = vec![0; 1 << 20];
    for _ in 0..65 {
        bench.mesh.handle_message(bench.now, conn, &flood);
    }
    assert_eq!(bench.closed().as_deref(), Some("too much at once"));
}

#[test]
fn a_version_is_on_disk_before_it_leaves() {
    let mut bench = Bench::new(&[], None);
    let conn = bench.establish(1, None);
    bench.hear(conn, &hello(MIN_VERSION, MAX_VERSION));
    bench.outputs();
    assert_eq!(bench.mesh.add_vtep(bench.now, MESH_NETWORK, "192.0.2.9:4789".parse().unwrap()), Ok(()));
    assert_eq!(bench.mesh.poll_output(), None);
    let disk = bench.mesh.poll_persist().unwrap();
    assert_eq!(bench.mesh.poll_output(), None);
    bench.mesh.handle_persisted(Ok(()));
    assert!(matches!(bench.mesh.poll_output(), Some(Output::Transmit { .. })));

    let again = Bench::new(&[], Some(&disk));
    assert_eq!(again.mesh.vteps().len(), 1);
    assert!(again.mesh.incarnation() > bench.mesh.incarnation());
}

#[test]
fn a_disk_that_fails_is_told_once_and_tried_again() {
    let mut bench = Bench::new(&[], None);
    let mut tries = 0;
    for _ in 0..100 {
        bench.now += Duration::from_millis(100);
        bench.mesh.handle_timeout(bench.now);
        while bench.mesh.poll_persist().is_some() {
            bench.mesh.handle_persisted(Err("no space left on device".to_owned()));
            tries += 1;
        }
    }
    assert!((8..=12).contains(&tries), "{tries}");
    let kinds = |bench: &Bench| -> Vec<String> {
        bench.mesh.status(bench.now).events.into_iter().map(|event| event.kind).collect()
    };
    assert_eq!(kinds(&bench), ["store_failed"]);
    bench.now += Duration::from_secs(2);
    bench.outputs();
    assert_eq!(kinds(&bench), ["store_failed", "store_works"]);
}

#[test]
fn broken_bytes_from_the_disk_are_an_error_that_says_so() {
    let mut bench = Bench::new(&[], None);
    let disk = bench.mesh.poll_persist().unwrap();
    for broken in [&disk[..disk.len() / 2], &[], &[99, 1, 2]] {
        let identity = Identity::generate([1; 32]).unwrap();
        let config = MeshConfig { identity, ..Bench::new(&[], None).mesh.config };
        assert!(matches!(Mesh::new(config, Some(broken), bench.now), Err(MeshError::Stored(_))));
    }
}

#[test]
fn the_name_of_the_network_makes_its_id() {
    use blake2::Digest;
    let hash: [u8; 32] = blake2::Blake2s256::digest(MESH_NAME).into();
    assert_eq!(MESH_NETWORK, NetworkId(hash));
}

#[test]
fn a_record_is_believed_by_its_signature_alone_whoever_relays_it() {
    let mut bench = Bench::new(&[], None);
    let conn = bench.establish(1, None);
    bench.hear(conn, &hello(MIN_VERSION, MAX_VERSION));
    bench.outputs();
    // A third host wrote it; the peer only relays.
    let writer = Identity::generate([3; 32]).unwrap();
    let mut store = RecordStore::new(writer.peer_id());
    let addr = |port| std::net::SocketAddr::from(([192, 0, 2, 9], port));
    let mut vtep = |port| {
        store
            .put_vtep(&writer, &VtepRecord { network: MESH_NETWORK, addr: addr(port) })
            .unwrap()
            .bytes()
            .to_vec()
    };
    let (honest, mut forged, mut resigned) = (vtep(1), vtep(2), vtep(3));
    *forged.last_mut().unwrap() ^= 1;
    // The peer puts its own key in the place of the writer's, and leaves the signature.
    let key = Identity::generate([4; 32]).unwrap();
    let at = resigned.windows(32).position(|part| part == writer.public_key()).unwrap();
    resigned[at..at + 32].copy_from_slice(key.public_key());
    for (count, message) in [
        (2, Message::Push(vec![forged.clone(), honest.clone(), resigned.clone()])),
        (4, Message::Records(vec![forged, honest, resigned])),
    ] {
        bench.hear(conn, &message);
        let known: Vec<_> = bench.mesh.vteps().into_iter().map(|vtep| vtep.addr.port()).collect();
        assert_eq!(known, [1], "the honest one alone");
        assert_eq!(bench.mesh.tables().records_forged, count);
        assert!(bench.closed().is_none(), "a forgery ends nothing but itself");
    }
}

#[test]
fn only_allowed_hosts_are_talked_to() {
    let only = |peers: &[u8]| {
        let mut bench = Bench::new(&["node02"], None);
        bench.mesh.config.allowed = Some(peers.iter().map(|byte| PeerId([*byte; 16])).collect());
        bench
    };
    let mut bench = only(&[8]);
    let dial = bench.dial();
    bench.establish(1, Some(dial));
    let outputs = bench.outputs();
    assert!(!outputs.iter().any(|output| matches!(output, Output::Transmit { .. })), "{outputs:?}");
    assert!(
        outputs.iter().any(
            |output| matches!(output, Output::Close { reason, .. } if reason.starts_with("not allowed"))
        )
    );
    assert_eq!(bench.target().state, TargetState::Refused);
    bench.establish(2, None);
    assert!(bench.closed().is_some_and(|reason| reason.starts_with("not allowed")));
    assert_eq!(bench.mesh.status(bench.now).refused, [("not_allowed".to_owned(), 2)].into());
    let mut bench = only(&[8, 9]);
    let dial = bench.dial();
    let conn = bench.establish(1, Some(dial));
    bench.hear(conn, &hello(MIN_VERSION, MAX_VERSION));
    assert_eq!(bench.target().state, TargetState::Established);
}

/// A host of this name that was somewhere, as its record says.
fn told_of(writer: &Identity, addr: &str) -> Vec<u8> {
    let host = HostRecord {
        noise_key: *writer.noise_public_key(),
        nickname: "node03".to_owned(),
        version: "1".to_owned(),
        data_addrs: vec![format!("{addr}:4789").parse().unwrap()],
        control_addrs: vec![format!("{addr}:6783").parse().unwrap()],
        suites: vec![1],
        encryption: crate::records::Encryption::Auto,
        networks: vec![(MESH_NETWORK, Vni::MESH)],
        targets: Vec::new(),
        trusted: Vec::new(),
        secrets: vec![],
    };
    RecordStore::new(writer.peer_id()).put_host(writer, &host).unwrap().bytes().to_vec()
}

/// Whether hosts were told to be up since this was asked last.
fn ups(bench: &mut Bench) -> Vec<bool> {
    let up = |event| match event {
        MeshEvent::HostUp(_) => Some(true),
        MeshEvent::HostDown { .. } => Some(false),
        _ => None,
    };
    std::iter::from_fn(|| bench.mesh.poll_event()).filter_map(up).collect()
}

#[test]
fn hosts_on_the_disk_are_taken_for_alive_for_a_moment() {
    let mut bench = Bench::new(&[], None);
    let conn = bench.establish(1, None);
    bench.hear(conn, &hello(MIN_VERSION, MAX_VERSION));
    let writer = Identity::generate([3; 32]).unwrap();
    bench.hear(conn, &Message::Push(vec![told_of(&writer, "192.0.2.3")]));
    assert_eq!(ups(&mut bench), [], "nobody has met it");
    let disk = bench.mesh.poll_persist().unwrap();

    let mut bench = Bench::new(&[], Some(&disk));
    assert_eq!(ups(&mut bench), [true]);
    for (seconds, told) in [(2, vec![]), (2, vec![]), (4, vec![false]), (2, vec![])] {
        bench.now += Duration::from_secs(seconds);
        bench.outputs();
        assert_eq!(ups(&mut bench), told);
    }
}

#[test]
fn two_hosts_that_do_not_agree_are_told_once_at_a_start() {
    let writer = Identity::generate([3; 32]).unwrap();
    let peer = writer.peer_id();
    let mut bench = Bench::new(&[], None);
    let conn = bench.establish(1, None);
    bench.hear(conn, &hello(MIN_VERSION, MAX_VERSION));
    bench.hear(conn, &Message::Push(vec![told_of(&writer, "192.0.2.3")]));
    let disk = bench.mesh.poll_persist().unwrap();

    // It seals now; the other one, whose wish is to seal where there is a secret, does not.
    let mut bench = Bench::starting(&[], Some(&disk), |config| {
        config.sealing = Sealing { encryption: Encryption::On, suites: vec![1], ..Sealing::default() };
    });
    assert_eq!(ups(&mut bench), [true], "it is taken for alive");
    let met = Membership::new(peer, 5, StdRng::from_seed([9; 32])).members();
    bench.mesh.membership.merge(bench.now, &met);
    bench.mesh.settle();
    assert_eq!(ups(&mut bench), [true], "it is told again: now it was met");
    bench.mesh.show_host(peer);
    assert_eq!(ups(&mut bench), [], "nothing changed since");
    let told = kinds(&bench).iter().filter(|kind| *kind == "encryption_differs").count();
    assert_eq!(told, 1, "{:?}", kinds(&bench));
}

#[test]
fn what_was_said_to_a_clone_is_forgotten_with_the_connection() {
    let mut bench = Bench::new(&[], None);
    let me = bench.mesh.me;
    bench.now += Duration::from_secs(60);
    for number in 1..4 {
        let conn = ConnId(number);
        bench.mesh.handle_established(bench.now, conn, me, None, "192.0.2.7:6783".parse().unwrap());
        bench.hear(conn, &another_start());
        assert!(bench.closed().is_some_and(|reason| reason.starts_with("clone: ")), "it is established");
        assert_eq!(
            bench.mesh.clones.greeted.len(),
            0,
            "the shell does not tell the end of what this side ends"
        );
    }
}

#[test]
fn a_host_that_moves_writes_its_record_anew_once() {
    let mut bench = Bench::new(&[], None);
    let conn = bench.establish(1, None);
    bench.hear(conn, &hello(MIN_VERSION, MAX_VERSION));
    bench.outputs();
    let addr = |port| vec![std::net::SocketAddr::from(([192, 0, 2, 77], port))];
    for pushes in [1, 0] {
        bench.mesh.set_addresses(bench.now, addr(6783), addr(4789));
        let me = bench.mesh.me;
        let told =
            bench.mesh.store.host(me).map(|host| (host.control_addrs.clone(), host.data_addrs.clone()));
        assert_eq!(told, Some((addr(6783), addr(4789))));
        let is_push = |output: &Output| {
            let Output::Transmit { bytes, .. } = output else { return false };
            matches!(Message::decode(bytes), Ok(Message::Push(_)))
        };
        assert_eq!(bench.outputs().iter().filter(|output| is_push(output)).count(), pushes);
    }
    assert_eq!(kinds(&bench).iter().filter(|kind| *kind == "addresses_changed").count(), 1);
    let moved = "192.0.2.99:7000".parse().unwrap();
    bench.mesh.handle_moved(bench.now, conn, moved);
    assert_eq!(bench.mesh.topology.far_end(conn).map(|(_, remote, _)| remote), Some(moved));
    assert_eq!(bench.mesh.seen.get(&PeerId([9; 16])), Some(&moved));
}
