use super::*;
use crate::identity::Identity;
use crate::proto::{Hello, MAX_VERSION, MIN_VERSION};

struct Bench {
    now: Instant,
    mesh: Mesh,
}

impl Bench {
    fn new(targets: &[&str], stored: Option<&[u8]>) -> Self {
        #[expect(clippy::disallowed_methods, reason = "any moment will do")]
        let now = Instant::now();
        let config = MeshConfig {
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
            seed: [1; 32],
        };
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
        let conn = ConnId(conn);
        self.mesh.handle_established(
            self.now,
            conn,
            PeerId([9; 16]),
            dial,
            "192.0.2.2:6783".parse().unwrap(),
        );
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
    Message::Hello(Hello { min_version, max_version, cluster: None, cedes: false, boot_nonce: 5, nickname })
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
    assert!(bench.mesh.add_vtep(bench.now, MESH_NETWORK, "192.0.2.9:4789".parse().unwrap()));
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
