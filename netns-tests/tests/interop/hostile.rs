//! What an attacker sends who has recorded everything, or has other keys: nothing is delivered, all is counted by its reason.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use netns_tests::{
    Attached, Result, Value, anyhow, ensure, icmp_echo, number, pause, secs, vxlan, wait_until,
};

use super::far_host::{FarHost, LANE};
use super::noise::{self, Key, Suite};
use super::session::Begun;
use super::{Pair, check, serve_until, unhex, while_serving};

/// What the memory of a daemon may differ by between two looks at it, in bytes.
const MOST_GROWTH: u64 = 1 << 20;
/// What is dropped because of what an attacker sends, by reason.
const HOSTILE: [&str; 10] = [
    "not_ours",
    "replayed",
    "bad_sealed",
    "unknown_session",
    "vxlan_flags",
    "truncated_vxlan",
    "stale_handshake",
    "handshake_limit",
    "stranger_handshake",
    "bad_handshake",
];

impl Pair {
    /// A session that the second implementation asked for, in use both ways.
    fn meet(&self, far: &mut FarHost) -> Result<()> {
        while_serving(far, || self.wait_path())?;
        let before = far.sessions.len();
        far.begin()?;
        serve_until(far, |far| far.sessions.len() > before)?;
        while_serving(far, || self.web.ping_within(&self.db, secs(5)).map(drop))
    }

    /// A frame for `web`, behind the header of its network.
    fn frame(&self) -> Result<Vec<u8>> {
        let end = |of: &Attached| -> Result<([u8; 6], Ipv4Addr)> {
            let mac = unhex(&of.mac.replace(':', ""))?;
            Ok((mac.as_slice().try_into()?, of.address.to_string().parse()?))
        };
        Ok(vxlan(1, &icmp_echo(end(&self.web)?, end(&self.db)?, &[0x5a; 40])))
    }

    /// How many echo requests `web` got: what it is sent is nothing else.
    fn echoes(&self) -> Result<u64> {
        let text = self.web.namespace().run(|| std::fs::read_to_string("/proc/thread-self/net/snmp"))??;
        let mut lines =
            text.lines().filter_map(|line| line.strip_prefix("Icmp: ")).map(str::split_whitespace);
        let (Some(mut names), Some(mut values)) = (lines.next(), lines.next()) else {
            return Err(anyhow!("no counters of ICMP in {text}"));
        };
        let at = names.position(|name| name == "InEchos").and_then(|at| values.nth(at));
        Ok(at.ok_or_else(|| anyhow!("no InEchos in {text}"))?.parse()?)
    }

    /// What was dropped of all that is hostile, what the kernel had no room for included.
    fn dropped(&self) -> Result<u64> {
        let drops = self.near().drops()?;
        let named: u64 = HOSTILE.iter().filter_map(|reason| drops.get(*reason)).sum();
        let of_kernel = |socket: &Value| number(socket, "kernel_drops");
        let dataplane = self.near().dataplane()?;
        let control = dataplane.get("control").map(of_kernel).transpose()?.unwrap_or_default();
        let workers = self.near().workers()?;
        Ok(named + control + workers.iter().map(of_kernel).sum::<Result<u64>>()?)
    }

    /// Does something hostile, of so many datagrams: nothing is delivered, and each one is counted.
    fn survives(&self, what: &str, attack: impl FnOnce() -> Result<u64>) -> Result<()> {
        let (got, dropped) = (self.echoes()?, self.dropped()?);
        let sent = attack()?;
        wait_until(&format!("{what}: all are counted"), secs(10), || {
            let counted = self.dropped()? - dropped;
            ensure!(counted == sent, "{counted} of {sent}: {:?}", self.near().drops()?);
            Ok(())
        })?;
        ensure!(self.echoes()? == got, "{what}: something was delivered");
        Ok(())
    }
}

#[test]
fn what_is_sent_again_bent_or_cut_is_counted_and_harms_nothing() -> Result<()> {
    let (pair, mut far) = Pair::new(Suite::Aes)?;
    pair.meet(&mut far)?;
    let (socket, to) = (far.socket.try_clone()?, far.daemon);
    let content = pair.frame()?;
    let session = far.sessions.last_mut().ok_or_else(|| anyhow!("no session"))?;
    let stream = (0..20).map(|_| session.seal(LANE, &content)).collect::<Result<Vec<_>>>()?;
    let fresh = session.seal(LANE, &content)?;
    let got = pair.echoes()?;
    stream.iter().try_for_each(|datagram| socket.send_to(datagram, to).map(drop))?;
    wait_until("the stream is delivered, once", secs(5), || {
        ensure!(pair.echoes()? == got + 20, "{} of 20", pair.echoes()? - got);
        Ok(())
    })?;
    // The first of many makes what is made once.
    pair.survives("a stream sent again", || again(&socket, to, &stream, 100))?;
    let (_, memory) = pair.near().usage()?;
    pair.survives("a stream sent again 10,000 times", || again(&socket, to, &stream, 10_000))?;
    pair.survives("every byte bent, and every length", || {
        for at in 0..fresh.len() {
            let mut bent = fresh.clone();
            bent[at] ^= 0x41;
            socket.send_to(&bent, to)?;
            socket.send_to(&fresh[..at.max(1)], to)?;
        }
        Ok(2 * fresh.len() as u64)
    })?;
    far.begin()?;
    let asked = far.begun.take().ok_or_else(|| anyhow!("nothing was begun"))?.message;
    pause(secs(0.5));
    let asked_again = std::slice::from_ref(&asked);
    pair.survives("an initiation sent again", || again(&socket, to, asked_again, 100))?;
    pair.survives("every byte of an initiation bent, and every length", || {
        for at in 1..asked.len() {
            let mut bent = asked.clone();
            bent[at] ^= 0x41;
            socket.send_to(&bent, to)?;
            socket.send_to(&asked[..at], to)?;
        }
        Ok(2 * (asked.len() as u64 - 1))
    })?;
    let (_, after) = pair.near().usage()?;
    ensure!(after < memory + MOST_GROWTH, "{memory} bytes became {after}");
    while_serving(&mut far, || pair.web.ping_within(&pair.db, secs(10)))?;
    check(&far.seen)
}

/// Sends the datagrams so many times, a little slower than the daemon of a test build takes them.
fn again(socket: &UdpSocket, to: SocketAddr, datagrams: &[Vec<u8>], times: u64) -> Result<u64> {
    for time in 0..times {
        datagrams.iter().try_for_each(|datagram| socket.send_to(datagram, to).map(drop))?;
        if time % 10 == 0 {
            pause(Duration::from_millis(2));
        }
    }
    Ok(times * datagrams.len() as u64)
}

#[test]
fn other_keys_other_secrets_and_revoked_hosts_get_nothing() -> Result<()> {
    let (pair, mut far) = Pair::new(Suite::ChaCha)?;
    pair.meet(&mut far)?;
    let (socket, to, content) = (far.socket.try_clone()?, far.daemon, pair.frame()?);
    let (own, psks) = (far.own.clone(), far.psks.clone());
    for (what, key, psks) in
        [("an unknown key", Key::random()?, &psks), ("another secret", own, &vec![noise::random()])]
    {
        let begun = Begun::new(far.suite, &key, &far.peer, (far.stamp.0, u64::MAX), (psks, None))?;
        pair.survives(what, || Ok(socket.send_to(&begun.message, to).map(|_| 1)?))?;
    }
    ensure!(pair.drops("stranger_handshake")? == 2, "{:?}", pair.near().drops()?);
    while_serving(&mut far, || pair.web.ping_within(&pair.db, secs(5)))?;

    let status = pair.net.host(1).status()?;
    let id = status.get("peer_id").and_then(Value::as_str).ok_or_else(|| anyhow!("no peer id"))?;
    pair.near().run(&["revoke", id])?;
    wait_until("it is cut off", secs(5), || {
        ensure!(pair.near().live_peers()?.is_empty(), "it is still there");
        Ok(())
    })?;
    let session = far.sessions.last_mut().ok_or_else(|| anyhow!("no session"))?;
    let frames = (0..10).map(|_| session.seal(LANE, &content)).collect::<Result<Vec<_>>>()?;
    pair.survives("frames of a revoked host", || again(&socket, to, &frames, 1))?;
    let begun = Begun::new(far.suite, &far.own, &far.peer, (far.stamp.0, u64::MAX), (&psks, None))?;
    pair.survives("handshakes of a revoked host", || again(&socket, to, &[begun.message], 1))?;
    // More than the other daemon says meanwhile, which goes on probing.
    const FRAMES: u64 = 100;
    let clear = pair.near().dropped("unknown_source")?;
    let got = pair.echoes()?;
    again(&socket, to, &[content], FRAMES)?;
    wait_until("what it says in clear is of nobody", secs(5), || {
        ensure!(pair.near().dropped("unknown_source")? >= clear + FRAMES, "{:?}", pair.near().drops()?);
        Ok(())
    })?;
    ensure!(pair.echoes()? == got, "something was delivered in clear");
    Ok(())
}
