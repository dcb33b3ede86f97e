//! The sealed data plane, written a second time from docs/protocol.md alone, talks with the daemon: whatever the document
//! leaves open, or says wrongly, fails here.
//!
//! Nothing of the program is used, only primitives: X25519, AES-GCM, ChaCha20-Poly1305, BLAKE2s, HMAC and HKDF. The daemon of the second
//! host runs the control plane and says that its data address is another one, where the second implementation listens.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a second implementation has a socket and a clock, and may fail"
)]

mod far_host;
mod hostile;
mod noise;
mod session;

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use far_host::{FarHost, LANE, Seen};
use netns_tests::{
    Addressed, Attached, Host, Result, Stopwatch, Topology, Value, anyhow, ensure, pause, secs, vxlan,
    wait_until,
};
use noise::{Key, Suite};

/// Where the second implementation listens.
const AT: &str = "192.0.2.77";
/// Before a rule.
const CUT: &str = "add table ip cut; add chain ip cut in { type filter hook input priority 0; };";
/// How long a path may take to be found.
const PATIENCE: f64 = 20.0;

/// A daemon with a container, and the second implementation with the keys of another host.
struct Pair {
    net: Topology,
    web: Attached,
    db: Attached,
}

impl Pair {
    fn new(suite: Suite) -> Result<(Self, FarHost)> {
        let net = Topology::new("a second implementation")?.hosts(2)?;
        let (near, far) = (net.host(0), net.host(1));
        let file = near.directory().join("secret").display().to_string();
        near.run(&["secret", "generate", "--file", &file])?;
        let cipher = if suite == Suite::Aes { "aes-256-gcm" } else { "chacha20-poly1305" };
        let common = ["--secret-file", &file, "--cipher", cipher];
        near.launch(&common)?;
        far.namespace().ip(&format!("address add {AT}/24 dev {}", far.interface()))?;
        let address = far.address().to_string();
        // The data plane of the daemon over there is not heard, nor does it hear: there is one at the other address.
        far.tool("nft")
            .args([&format!("{CUT} add rule ip cut in ip daddr {address} udp dport 4789 drop")])
            .run()?;
        let own = ["node01", "--listen", &address, "--data-addr", AT];
        far.launch(&[&own[..], &common].concat())?;
        let (web, db) = (near.attach("web")?, far.attach("db")?);
        let secret = std::fs::read_to_string(&file)?;
        let psk = session::psk_of(&unhex(secret.trim())?)?;
        let socket = far.namespace().run(|| UdpSocket::bind((AT, 4789)))??;
        let (own, start) = (own_key(far)?, start_of(far)?);
        let far_host = FarHost {
            socket,
            daemon: SocketAddr::from((near.address(), 4789)),
            suite,
            own,
            peer: noise_key(near)?,
            psks: vec![psk],
            // The daemon beside it counts from 0, should it ever ask.
            stamp: (start, 1 << 32),
            last: None,
            sessions: Vec::new(),
            cookie: None,
            begun: None,
            given: None,
            seen: Seen::default(),
        };
        Ok((Pair { net, web, db }, far_host))
    }

    fn near(&self) -> &Host {
        self.net.host(0)
    }

    /// The daemon has found the way to the second implementation.
    fn wait_path(&self) -> Result<()> {
        wait_until("the path is up", secs(PATIENCE), || {
            let peers = self.near().run_json(&["status", "peers"])?;
            let address = peers.pointer("/0/path/address").and_then(Value::as_str).unwrap_or_default();
            ensure!(address == format!("{AT}:4789"), "{peers}");
            Ok(())
        })
    }

    /// What `web` says by UDP comes back.
    fn echo(&self, words: &str) -> Result<()> {
        let socket = self.web.namespace().run(|| UdpSocket::bind("0.0.0.0:0"))??;
        socket.set_read_timeout(Some(secs(2)))?;
        socket.send_to(words.as_bytes(), (self.db.address(), 7))?;
        let mut bytes = [0; 2000];
        let len = socket.recv(&mut bytes)?;
        ensure!(&bytes[..len] == words.as_bytes(), "{:?} came back", &bytes[..len]);
        Ok(())
    }

    fn drops(&self, reason: &str) -> Result<u64> {
        self.near().dropped(reason)
    }
}

/// Lets the second implementation serve while `work` is done.
fn while_serving<T>(far: &mut FarHost, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| far.serve(|_| stop.load(Ordering::Relaxed)));
        let done = work();
        stop.store(true, Ordering::Relaxed);
        serving.join().map_err(|_| anyhow!("it panicked"))??;
        done
    })
    .map_err(|error| error.context(format!("the second implementation has {:?}", far.seen)))
}

/// The same until `done`, for a few seconds at most.
fn serve_until(far: &mut FarHost, done: impl Fn(&FarHost) -> bool) -> Result<()> {
    let watch = Stopwatch::start();
    far.serve(|far| done(far) || watch.elapsed() > secs(5))?;
    ensure!(done(far), "it did not come: {:?}", far.seen);
    Ok(())
}

fn unhex(text: &str) -> Result<Vec<u8>> {
    let byte = |at| Ok(u8::from_str_radix(text.get(at..at + 2).unwrap_or_default(), 16)?);
    (0..text.len()).step_by(2).map(byte).collect()
}

fn noise_key(host: &Host) -> Result<[u8; 32]> {
    let status = host.status()?;
    let text = status.pointer("/sealing/noise_key").and_then(Value::as_str).unwrap_or_default();
    Ok(unhex(text)?.as_slice().try_into()?)
}

fn start_of(host: &Host) -> Result<u64> {
    let status = host.status()?;
    status.pointer("/sealing/start").and_then(Value::as_u64).ok_or_else(|| anyhow!("no start in {status}"))
}

/// The private key of a host: wherever in its file it stands, the public key shows it.
fn own_key(host: &Host) -> Result<Key> {
    let (file, public) = (std::fs::read(host.state_dir().join("noise"))?, noise_key(host)?);
    let mut keys = file.windows(32).filter_map(|bytes| Key::new(bytes.try_into().ok()?).ok());
    keys.find(|key| key.public == public).ok_or_else(|| anyhow!("no key in {} bytes", file.len()))
}

fn check(seen: &Seen) -> Result<()> {
    ensure!(seen.wrong.is_empty(), "{seen:?}");
    ensure!(seen.in_clear == 0 && seen.probes > 0, "{seen:?}");
    Ok(())
}

#[test]
fn it_answers_the_daemon_and_frames_pass_both_ways() -> Result<()> {
    for suite in [Suite::Aes, Suite::ChaCha] {
        let (pair, mut far) = Pair::new(suite)?;
        while_serving(&mut far, || {
            pair.wait_path()?;
            pair.web.ping_within(&pair.db, secs(5))?;
            pair.web.ping_whole(&pair.db, 1418 - 28)?;
            pair.echo("completed by whoever gets it")?;
            pair.near().wait_balanced(secs(5))
        })?;
        check(&far.seen)?;
        // The keepalive of the initiator; frames in the lane of a worker, and that of the control side.
        ensure!(far.seen.initiations == 1 && far.seen.keepalives == 1, "{:?}", far.seen);
        ensure!(far.seen.frames >= 3 && far.seen.partial > 0, "{:?}", far.seen);
        ensure!(far.seen.lanes.contains(&15) && far.seen.lanes.len() > 1, "{:?}", far.seen);
        for reason in ["bad_sealed", "bad_handshake", "replayed", "unknown_session", "plain_on_sealed"] {
            ensure!(pair.drops(reason)? == 0, "{suite:?}: {:?}", pair.near().drops()?);
        }
    }
    Ok(())
}

#[test]
fn it_asks_the_daemon_which_answers_and_takes_each_frame_once() -> Result<()> {
    for suite in [Suite::Aes, Suite::ChaCha] {
        let (pair, mut far) = Pair::new(suite)?;
        while_serving(&mut far, || {
            pair.wait_path()?;
            // It has asked for a session of its own. Of two that begin at the same time the keys would decide.
            pair.web.ping_within(&pair.db, secs(5))?;
            pause(secs(1.5));
            Ok(())
        })?;
        let before = far.sessions.len();
        far.begin()?;
        serve_until(&mut far, |far| far.sessions.len() > before)?;
        let asked_for = far.sessions.last().map(|session| session.local).unwrap_or_default();
        while_serving(&mut far, || {
            // The keepalive has to arrive first.
            pause(Duration::from_millis(300));
            pair.web.ping(&pair.db)?;
            pair.echo("asked and answered")
        })?;
        check(&far.seen)?;
        ensure!(far.seen.by_session.get(&asked_for).is_some_and(|count| *count >= 2), "{:?}", far.seen);

        // A frame sent again, one too old, one whose counter is too high, one that was bent.
        let (socket, to) = (far.socket.try_clone()?, far.daemon);
        let session = far.sessions.last_mut().ok_or_else(|| anyhow!("no session"))?;
        let keepalive = session.seal(LANE, &[])?;
        for _ in 0..3 {
            socket.send_to(&keepalive, to)?;
        }
        socket.send_to(&session.seal_as(LANE, 20_000, &[])?, to)?;
        // 257 blocks of 32 before.
        socket.send_to(&session.seal_as(LANE, 20_000 - 257 * 32, &[])?, to)?;
        socket.send_to(&session.seal_as(LANE, 1 << 37, &[])?, to)?;
        socket.send_to(&session.seal_as(LANE, u64::MAX, &[])?, to)?;
        let mut bent = session.seal_as(LANE, 20_001, &vxlan(1, &[0; 60]))?;
        bent[30] ^= 1;
        socket.send_to(&bent, to)?;
        let mut lost = keepalive.clone();
        lost[4] ^= 1;
        socket.send_to(&lost, to)?;
        let expected = [("replayed", 5), ("bad_sealed", 1), ("unknown_session", 1)];
        wait_until("all are counted", secs(5), || {
            for (reason, count) in expected {
                ensure!(pair.drops(reason)? == count, "{reason}: {:?}", pair.near().drops()?);
            }
            Ok(())
        })?;
        // The session goes on, or the one that the daemon has begun because of the frame of no session.
        while_serving(&mut far, || {
            pair.web.ping_within(&pair.db, secs(5))?;
            pair.near().wait_balanced(secs(5))
        })?;
        check(&far.seen)?;
    }
    Ok(())
}

#[test]
fn cookies_are_given_and_taken() -> Result<()> {
    let (pair, mut far) = Pair::new(Suite::ChaCha)?;
    // The second implementation wants one: the daemon comes again, with it.
    far.cookie = Some(noise::random());
    while_serving(&mut far, || {
        pair.wait_path()?;
        pair.web.ping_within(&pair.db, secs(5))
    })?;
    check(&far.seen)?;
    ensure!(far.seen.cookies_given == 1 && far.seen.initiations == 2, "{:?}", far.seen);

    // The daemon wants one, when many ask: who shows it is answered.
    let mut other = far.nonsense();
    let at = other.len() - 20;
    other[at] ^= 1;
    far.socket.send_to(&other, far.daemon)?;
    wait_until("a wrong MAC1 is counted", secs(5), || {
        ensure!(pair.drops("bad_handshake")? == 1, "{:?}", pair.near().drops()?);
        Ok(())
    })?;
    crowd(&far)?;
    far.begin()?;
    serve_until(&mut far, |far| far.given.is_some())?;
    let before = far.sessions.len();
    crowd(&far)?;
    far.begin()?;
    serve_until(&mut far, |far| far.sessions.len() > before)?;
    check(&far.seen)?;
    ensure!(pair.drops("handshake_limit")? > 0, "{:?}", pair.near().drops()?);
    while_serving(&mut far, || pair.web.ping_within(&pair.db, secs(5)))?;
    Ok(())
}

/// More initiations than are read for free in a second.
fn crowd(far: &FarHost) -> Result<()> {
    for _ in 0..80 {
        far.socket.send_to(&far.nonsense(), far.daemon)?;
    }
    Ok(())
}
