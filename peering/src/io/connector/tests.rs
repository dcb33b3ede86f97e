use std::time::Instant;

use bytes::Bytes;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::*;
use crate::identity::Identity;
use crate::io::tls::Credentials;
use crate::keyring::Keyring;
use crate::secret::{PROOFS_LEN, Secret};

/// A host without a mesh.
struct Host {
    identity: Arc<Identity>,
    quic: Quic,
    connector: Connector,
    inbox: mpsc::Receiver<WireEvent>,
}

impl Host {
    fn new(seed: u8) -> Self {
        Self::speaking(seed, b"meshnet")
    }

    fn speaking(seed: u8, alpn: &[u8]) -> Self {
        Self::with(seed, alpn, Some(Ipv4Addr::LOCALHOST.into()))
    }

    fn with(seed: u8, alpn: &[u8], listen: Option<IpAddr>) -> Self {
        Self::at(seed, alpn, listen, 0)
    }

    fn at(seed: u8, alpn: &[u8], listen: Option<IpAddr>, port: u16) -> Self {
        Self::open_to(Admission::default(), seed, (alpn, listen, port))
    }

    /// Lets in whoever has this secret.
    fn guarded(seed: u8, secret: u8) -> Self {
        let secret = Secret::new(Zeroizing::new(vec![secret; 32])).unwrap();
        Self::open_to(
            Admission::new(Keyring::new(Some(secret))),
            seed,
            (b"meshnet", Some(Ipv4Addr::LOCALHOST.into()), 0),
        )
    }

    fn open_to(admission: Admission, seed: u8, (alpn, listen, port): (&[u8], Option<IpAddr>, u16)) -> Self {
        let identity = Arc::new(Identity::generate([seed; 32]).unwrap());
        let credentials = Credentials::new(identity.clone()).with_alpn(alpn);
        let quic = Quic::bind(credentials, &identity, listen, port).unwrap();
        let (tell, inbox) = mpsc::channel(16);
        let connector = Connector::new(quic.clone(), identity.peer_id(), watch::channel(admission).1, tell);
        tokio::spawn(connector.clone().accept());
        Host { identity, quic, connector, inbox }
    }

    fn addr(&self) -> SocketAddr {
        self.quic.local_addr().unwrap()
    }

    fn target(&self) -> DialTarget {
        DialTarget::Named(Target { host: "127.0.0.1".to_owned(), port: self.addr().port() })
    }

    fn dial(&self, dial: DialId, target: DialTarget) {
        tokio::spawn(self.connector.clone().dial(dial, target));
    }

    async fn next(&mut self) -> WireEvent {
        loop {
            let event =
                timeout(Duration::from_secs(8), self.inbox.recv()).await.expect("nothing happened").unwrap();
            if !matches!(event, WireEvent::Resolved { .. }) {
                return event;
            }
        }
    }

    async fn established(&mut self) -> (ConnId, PeerId, Option<DialId>, Link) {
        match self.next().await {
            WireEvent::Established { conn, peer, dial, link, .. } => (conn, peer, dial, link),
            other => panic!("{other:?}"),
        }
    }

    async fn dial_failed(&mut self, target: DialTarget) -> String {
        self.dial(DialId(7), target);
        match self.next().await {
            WireEvent::DialFailed { dial: DialId(7), reason } => reason,
            other => panic!("{other:?}"),
        }
    }

    async fn frame(&mut self) -> Frame {
        match self.next().await {
            WireEvent::Frame { frame, .. } => frame,
            other => panic!("{other:?}"),
        }
    }

    async fn closed(&mut self) -> String {
        match self.next().await {
            WireEvent::Closed { reason, .. } => reason,
            other => panic!("{other:?}"),
        }
    }
}

fn message(bytes: &[u8]) -> Frame {
    Frame::Message(Bytes::copy_from_slice(bytes))
}

#[tokio::test]
async fn both_sides_prove_who_they_are_and_talk_until_one_says_why_not() {
    let (mut a, mut b) = (Host::new(1), Host::new(2));
    a.dial(DialId(1), b.target());
    let (_, peer, dial, link) = a.established().await;
    assert_eq!((peer, dial), (b.identity.peer_id(), Some(DialId(1))));
    let (_, peer, dial, back) = b.established().await;
    assert_eq!((peer, dial), (a.identity.peer_id(), None));

    let long = vec![0x5a; crate::proto::MAX_MESSAGE];
    for bytes in [&b"one"[..], b"", &long, b"four"] {
        link.send(Bytes::copy_from_slice(bytes)).unwrap();
    }
    for bytes in [&b"one"[..], b"", &long, b"four"] {
        assert!(b.frame().await == message(bytes), "a frame of {} bytes", bytes.len());
    }
    back.send_datagram(Bytes::from_static(b"ping")).unwrap();
    assert_eq!(a.frame().await, Frame::Datagram(Bytes::from_static(b"ping")));
    // Too large for any path: it takes the stream.
    let large = Bytes::from(vec![1; 9000]);
    back.send_datagram(large.clone()).unwrap();
    assert_eq!(a.frame().await, Frame::Datagram(large));

    for _ in 0..100 {
        link.send(Bytes::from(vec![3; 10_000])).unwrap();
    }
    link.close("enough\x1b[31m".to_owned()).await;
    for _ in 0..100 {
        assert_eq!(b.frame().await, message(&[3; 10_000]));
    }
    assert_eq!(b.closed().await, "enough[31m");
    assert_eq!(a.closed().await, "closed by this host");
}

#[tokio::test]
async fn hosts_with_one_secret_talk() {
    let (mut a, mut b) = (Host::guarded(1, 7), Host::guarded(2, 7));
    a.dial(DialId(1), b.target());
    let (link, back) = (a.established().await.3, b.established().await.3);
    let long = vec![0x5a; crate::proto::MAX_MESSAGE];
    link.send(Bytes::copy_from_slice(&long)).unwrap();
    back.send(Bytes::from_static(b"two")).unwrap();
    assert!(b.frame().await == message(&long));
    assert_eq!(a.frame().await, message(b"two"));
}

#[tokio::test]
async fn hosts_without_a_common_secret_hear_nothing_of_each_other_and_why() {
    use Refusal::{NoSecretHere, NoSecretThere, WrongSecret};
    type Made = fn(u8) -> Host;
    let cases: [(Made, Made, Refusal, Refusal); 3] = [
        (|seed| Host::guarded(seed, 7), |seed| Host::guarded(seed, 8), WrongSecret, WrongSecret),
        (Host::new, |seed| Host::guarded(seed, 8), NoSecretHere, NoSecretThere),
        (|seed| Host::guarded(seed, 7), Host::new, NoSecretThere, NoSecretHere),
    ];
    for (dialler, acceptor, ours, theirs) in cases {
        let (mut a, mut b) = (dialler(1), acceptor(2));
        a.dial(DialId(1), b.target());
        match a.next().await {
            WireEvent::Refused { peer, dial: Some(DialId(1)), refusal, .. } => {
                assert_eq!((peer, refusal), (b.identity.peer_id(), ours));
            }
            other => panic!("{other:?}"),
        }
        match b.next().await {
            WireEvent::Refused { peer, dial: None, refusal, .. } => {
                assert_eq!((peer, refusal), (a.identity.peer_id(), theirs));
            }
            other => panic!("{other:?}"),
        }
        for host in [&mut a, &mut b] {
            assert!(timeout(Duration::from_millis(200), host.inbox.recv()).await.is_err(), "something else");
        }
    }
}

/// A stranger that speaks TLS, and then says something, or nothing.
async fn stranger(host: &Host, said: &[u8]) -> (Connection, Option<quinn::SendStream>) {
    let identity = Arc::new(Identity::generate([9; 32]).unwrap());
    let quic = Quic::bind(Credentials::new(identity.clone()), &identity, Some(Ipv4Addr::LOCALHOST.into()), 0)
        .unwrap();
    let check = Arc::new(ServerCheck::new(None, Arc::default()));
    let connection = quic.connect(host.addr(), check).unwrap().await.unwrap();
    if said.is_empty() {
        return (connection, None);
    }
    let mut stream = connection.open_uni().await.unwrap();
    // What is too much waits for room, and never gets it.
    let _ = timeout(Duration::from_millis(300), stream.write_all(said)).await;
    (connection, Some(stream))
}

#[tokio::test]
async fn a_stranger_is_told_a_number_and_nothing_else() {
    let host = Host::guarded(1, 7);
    let (none, wrong) = (vec![0; PROOFS_LEN], vec![1; PROOFS_LEN]);
    for (said, code) in [(none, 1), (wrong, 2), (vec![1; 1 << 20], 2)] {
        let (connection, _stream) = stranger(&host, &said).await;
        let stream = timeout(Duration::from_secs(2), connection.accept_uni()).await.expect("an end");
        let Err(quinn::ConnectionError::ApplicationClosed(close)) = stream else { panic!("{stream:?}") };
        assert_eq!((close.error_code.into_inner(), &close.reason[..]), (code, &b""[..]));
    }
}

#[tokio::test]
async fn a_stranger_that_says_nothing_is_dropped_in_time() {
    let host = Host::guarded(1, 7);
    for said in [&b""[..], &[1; PROOFS_LEN - 1]] {
        let start = Instant::now();
        let (connection, _stream) = stranger(&host, said).await;
        assert!(
            timeout(Duration::from_secs(1), connection.accept_uni()).await.is_err(),
            "it was told something"
        );
        let end = timeout(Duration::from_secs(8), connection.closed()).await;
        assert!(end.is_ok() && start.elapsed() < Duration::from_secs(7), "{end:?} {:?}", start.elapsed());
        assert_eq!(host.connector.guests.handshakes(), 0);
    }
}

#[tokio::test]
async fn another_host_than_the_expected_one_is_refused_before_it_learns_anything() {
    let (mut a, mut b) = (Host::new(1), Host::new(2));
    let expected = PeerId([9; 16]);
    let reason = a.dial_failed(DialTarget::Addr { addrs: vec![b.addr()], peer: expected }).await;
    assert_eq!(reason, format!("the host there is {}, expected {expected}", b.identity.peer_id()));
    assert!(timeout(Duration::from_millis(200), b.inbox.recv()).await.is_err());
}

#[tokio::test]
async fn a_host_that_speaks_something_else_is_refused_by_both() {
    let (mut a, mut other) = (Host::new(1), Host::speaking(2, b"h3"));
    assert_eq!(a.dial_failed(other.target()).await, "the host there speaks no meshnet");
    let (back, there) = (a.target(), "the host there speaks no meshnet");
    assert_eq!(other.dial_failed(back).await, there);
    assert!(timeout(Duration::from_millis(200), a.inbox.recv()).await.is_err());
}

#[tokio::test]
async fn of_several_addresses_one_connection_comes_about() {
    let (mut a, mut b) = (Host::new(1), Host::new(2));
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let closed = SocketAddr::from(([127, 0, 0, 1], 1));
    let start = Instant::now();
    let addrs = vec![closed, silent.local_addr().unwrap(), b.addr(), b.addr()];
    a.dial(DialId(1), DialTarget::Addr { addrs, peer: b.identity.peer_id() });
    let _link = a.established().await.3;
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    let _back = b.established().await.3;
    assert!(timeout(Duration::from_millis(300), b.inbox.recv()).await.is_err(), "a second one");
}

#[tokio::test]
async fn failures_have_reasons_for_people() {
    let mut a = Host::new(1);
    let named = |host: &str, port| DialTarget::Named(Target { host: host.to_owned(), port });
    assert_eq!(a.dial_failed(named("127.0.0.1", 1)).await, "connection refused");
    // A label of more than 63 bytes is asked of no name server (RFC 1035 section 2.3.4).
    let name = "x".repeat(64);
    let reason = a.dial_failed(named(&name, 6783)).await;
    assert_eq!(reason, format!("name {name} not found"));
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    assert_eq!(a.dial_failed(named("127.0.0.1", port)).await, "timed out after 3 s");
    assert_eq!(a.dial_failed(named("::1", 6783)).await, "no IPv6 on this host");
    let none = DialTarget::Addr { addrs: Vec::new(), peer: PeerId([1; 16]) };
    assert_eq!(a.dial_failed(none).await, "no address is known");
}

#[tokio::test]
async fn without_a_listen_address_both_families_are_spoken_as_far_as_they_are_there() {
    let (mut a, mut b) = (Host::with(1, b"meshnet", None), Host::with(2, b"meshnet", None));
    let has_ipv6 = std::net::UdpSocket::bind("[::1]:0").is_ok();
    for host in ["127.0.0.1", "::1"].into_iter().filter(|host| has_ipv6 || *host != "::1") {
        let target = Target { host: host.to_owned(), port: b.addr().port() };
        a.dial(DialId(1), DialTarget::Named(target));
        let WireEvent::Established { remote, link: _link, .. } = a.next().await else { panic!("{host}") };
        assert_eq!(remote.ip().to_string(), host);
        let WireEvent::Established { remote, link: _back, .. } = b.next().await else { panic!("{host}") };
        assert_eq!(remote.ip().to_string(), host);
        // What either dropped link sends is an end of its stream.
        drop((_link, _back));
        a.closed().await;
        b.closed().await;
    }
    if !has_ipv6 {
        let target = Target { host: "::1".to_owned(), port: b.addr().port() };
        let reason = a.dial_failed(DialTarget::Named(target)).await;
        assert!(reason.contains("IPv6") || reason.contains("address"), "{reason}");
    }
}

#[tokio::test]
async fn a_port_in_use_names_its_holder() {
    let a = Host::new(1);
    let credentials = Credentials::new(a.identity.clone());
    let listen = Some(Ipv4Addr::LOCALHOST.into());
    let error = Quic::bind(credentials, &a.identity, listen, a.addr().port()).unwrap_err().to_string();
    assert!(error.contains(&format!("UDP port {} is in use by ", a.addr().port())), "{error}");
    assert!(error.contains(&format!("(pid {})", std::process::id())), "{error}");
    let credentials = Credentials::new(a.identity.clone());
    let elsewhere = Some("192.0.2.1".parse().unwrap());
    let error = Quic::bind(credentials, &a.identity, elsewhere, 0).unwrap_err().to_string();
    assert_eq!(error, "192.0.2.1 is not an address of this host");
}

#[tokio::test]
async fn garbage_is_counted_and_answered_with_nothing() {
    let (mut a, mut b) = (Host::new(1), Host::new(2));
    let scanner = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let before = b.quic.counts().read();
    let mut sent = 0;
    for first in [0x00, 0x08, 0x40, 0x7f, 0x80, 0xc0, 0xff] {
        for len in [1, 2, 5, 20, 21, 40, 600, 1199] {
            let mut garbage = vec![0xa5; len];
            garbage[0] = first;
            scanner.send_to(&garbage, b.addr()).await.unwrap();
            sent += 1;
        }
    }
    a.dial(DialId(1), b.target());
    let _link = a.established().await.3;
    let _back = b.established().await.3;
    let after = b.quic.counts().read();
    assert_eq!(after.foreign - before.foreign, sent);
    assert!(after.received > after.foreign);
    let answered = timeout(Duration::from_millis(100), scanner.recv(&mut [0; 2000])).await;
    assert!(answered.is_err(), "{answered:?}");
    assert_eq!(a.quic.counts().read().foreign, 0);
}

#[tokio::test]
async fn truncated_handshakes_do_no_harm() {
    let (mut a, mut b) = (Host::new(1), Host::new(2));
    let tap = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = tap.local_addr().unwrap().port();
    a.dial(DialId(1), DialTarget::Named(Target { host: "127.0.0.1".to_owned(), port }));
    let mut initial = vec![0; 2000];
    let len = loop {
        let len = tap.recv(&mut initial).await.unwrap();
        if len > 0 {
            break len;
        }
    };
    for cut in (1..len).step_by(7) {
        tap.send_to(&initial[..cut], b.addr()).await.unwrap();
        let mut flipped = initial[..len].to_vec();
        flipped[cut] ^= 0x10;
        tap.send_to(&flipped, b.addr()).await.unwrap();
    }
    let (mut dialled, mut welcomed) = (false, false);
    a.dial(DialId(2), b.target());
    while !(dialled && welcomed) {
        tokio::select! {
            event = a.next() => dialled |= matches!(event, WireEvent::Established { .. }),
            event = b.next() => welcomed |= matches!(event, WireEvent::Established { .. }),
        }
    }
}

#[tokio::test]
async fn a_host_that_died_and_came_back_says_so_at_the_next_keep_alive() {
    let (born, birth) = tokio::sync::oneshot::channel();
    let (kill, death) = tokio::sync::oneshot::channel::<()>();
    let life = std::thread::spawn(|| {
        let life = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        life.block_on(async {
            let _ = born.send(Host::new(2));
            let _ = death.await;
        });
        // As a crash ends it: the tasks do not run any more, and no packet tells of it.
        life.shutdown_background();
    });
    let (mut a, mut b) = (Host::new(1), birth.await.unwrap());
    let port = b.addr().port();
    a.dial(DialId(1), b.target());
    let _link = a.established().await.3;
    let back = b.established().await.3;
    kill.send(()).unwrap();
    life.join().unwrap();
    drop((b, back));
    let deadline = Instant::now() + Duration::from_secs(2);
    let listen = IpAddr::from(Ipv4Addr::LOCALHOST);
    while std::net::UdpSocket::bind((listen, port)).is_err() {
        assert!(Instant::now() < deadline, "the port is not free");
        sleep(Duration::from_millis(10)).await;
    }
    let _again = Host::at(2, b"meshnet", Some(listen), port);
    let start = Instant::now();
    assert_eq!(a.closed().await, "the host was restarted");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[tokio::test]
async fn an_over_long_message_ends_the_connection() {
    let (mut a, mut b) = (Host::new(1), Host::new(2));
    let check = Arc::new(ServerCheck::new(None, Arc::default()));
    let raw = a.quic.connect(b.addr(), check).unwrap().await.unwrap();
    let mut stream = raw.open_uni().await.unwrap();
    stream.write_all(&[0; PROOFS_LEN]).await.unwrap();
    stream.write_all(&0x7fff_ffff_u32.to_le_bytes()).await.unwrap();
    let _back = b.established().await.3;
    assert_eq!(b.closed().await, "a message of 2147483647 bytes is longer than allowed");
    assert_eq!(
        reason::connection(&raw.closed().await),
        "a message of 2147483647 bytes is longer than allowed"
    );
    assert!(raw.open_bi().await.is_err() && a.inbox.try_recv().is_err());
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_cut_off() {
    let (mut a, mut b) = (Host::new(1), Host::new(2));
    a.dial(DialId(1), b.target());
    let link = a.established().await.3;
    let _back = b.established().await.3;
    let megabyte = Bytes::from(vec![0; 1 << 20]);
    let mut sent = 0;
    let overflow = loop {
        match link.send(megabyte.clone()) {
            Ok(()) => sent += 1,
            Err(overflow) => break overflow,
        }
    };
    assert!(sent >= 16, "{sent}");
    link.cut(&overflow.to_string());
    assert_eq!(a.closed().await, "closed by this host");
}

#[test]
fn failures_are_told_once_if_they_agree() {
    let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let refused = |port| (at(port), "connection refused".to_owned());
    assert_eq!(told_together(&[refused(1), refused(2)]), "connection refused");
    let mixed = [refused(1), (at(2), "timed out after 3 s".to_owned())];
    assert_eq!(told_together(&mixed), "127.0.0.1:1: connection refused; 127.0.0.1:2: timed out after 3 s");
}

/// The first datagrams of so many dials of `host`, which nobody answers.
async fn initials(host: &Host, count: usize) -> Vec<Vec<u8>> {
    let sink = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = sink.local_addr().unwrap();
    let check = || Arc::new(ServerCheck::new(None, Arc::default()));
    let dials: Vec<_> = (0..count).map(|_| host.quic.connect(addr, check()).unwrap()).collect();
    let mut seen = BTreeSet::new();
    let mut datagrams = Vec::new();
    while datagrams.len() < count {
        let mut datagram = vec![0; 2048];
        let len = timeout(Duration::from_secs(5), sink.recv(&mut datagram)).await.unwrap().unwrap();
        datagram.truncate(len);
        // The connection id that the dialler chose (RFC 9000 section 17.2): one of each dial, not what is sent again.
        if seen.insert(datagram[6..14].to_vec()) {
            datagrams.push(datagram);
        }
    }
    drop(dials);
    datagrams
}

/// RFC 9000 section 17.2.5: a long header of type 3.
fn is_retry(datagram: &[u8]) -> bool {
    datagram[0] & 0xf0 == 0xf0
}

#[tokio::test]
async fn ten_thousand_half_open_handshakes_take_few_places_and_keep_nobody_out() {
    let (stranger, mut busy, mut honest) = (Host::new(1), Host::new(2), Host::new(3));
    let initials = initials(&stranger, 100).await;
    let flood = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    flood.connect(busy.addr()).await.unwrap();
    let (mut sent, mut got, mut retries) = (0, 0, 0);
    let mut answer = [0; 2048];
    for round in 0..100 {
        for datagram in &initials {
            sent += flood.send(datagram).await.unwrap();
        }
        tokio::task::yield_now().await;
        while let Ok(len) = flood.try_recv(&mut answer) {
            got += len;
            retries += usize::from(is_retry(&answer[..len]));
        }
        assert!(busy.connector.guests.handshakes() <= 32, "round {round}");
        if round == 50 {
            honest.dial(DialId(1), busy.target());
        }
    }
    assert!(retries > 50, "{retries}");
    assert!(got <= 3 * sent, "{got} bytes for {sent}");
    assert_eq!(busy.connector.guests.handshakes(), 32, "the flood filled what it could");
    let (_, peer, _, _link) = honest.established().await;
    assert_eq!(peer, busy.identity.peer_id());
    assert_eq!(busy.established().await.1, honest.identity.peer_id());
    // Nothing of it stays.
    let emptied = async {
        while busy.connector.guests.handshakes() > 0 {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(HANDSHAKE + Duration::from_secs(2), emptied).await.expect("a place was not given back");
}
