//! Handshakes from forged addresses, as many as one sender can make, cost a host hardly more than datagrams that nobody reads.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Mutex, MutexGuard, PoisonError};

use netns_tests::{
    Attached, Capture, Context, Flood, Host, IperfServer, Result, Topology, Transport, Wire, ensure, pause,
    secs,
};

/// Interleaved rounds; the median of each counts.
const ROUNDS: usize = 5;
/// What is promised is 0.9; neighbours on the same processors make so short rounds differ by more.
const SHARE: f64 = 0.7;
/// A port that is bound and not read.
const UNREAD: u16 = 4790;
const DATA: u16 = 4789;
/// What a daemon may grow, in bytes, once its buffers have been used.
const GROWTH: u64 = 4 << 20;
/// A handshake that fits nobody: type, suite, number, noise, and a first hash that is wrong.
const NOISE: [u8; 160] = {
    let mut bytes = [0x5a; 160];
    (bytes[0], bytes[1], bytes[2], bytes[3]) = (1, 1, 0, 0);
    bytes
};

/// Two floods at once would measure each other.
static ALONE: Mutex<()> = Mutex::new(());

/// Two hosts that seal and renew each second, a container each, and a stream from the first to the second.
struct Flooded {
    net: Topology,
    web: Attached,
    db: Attached,
    _alone: MutexGuard<'static, ()>,
}

impl Flooded {
    fn new(promise: &str) -> Result<Self> {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let net = Topology::new(promise)?.wire(Wire::Nic).hosts(2)?;
        let (web, db) = net.web_and_db_alike(&["--encryption", "on", "--rekey-after", "1"])?;
        Ok(Flooded { net, web, db, _alone: alone })
    }

    fn host(&self, address: Ipv4Addr) -> Result<(&Host, &Host)> {
        let (one, two) = (self.net.host(0), self.net.host(1));
        let found = [(one, two), (two, one)].into_iter().find(|(host, _)| host.address() == address);
        found.with_context(|| format!("{address} is no host of ours"))
    }

    /// What the stream carries while `payload` comes to a port of `to`, in bits per second.
    fn under(&self, to: SocketAddrV4, payload: &[u8]) -> Result<f64> {
        let (_, other) = self.host(*to.ip())?;
        let server = IperfServer::start(self.db.namespace(), &self.db)?;
        let flood = Flood::start(other.namespace(), to, payload)?;
        let report = server.measure(self.web.namespace(), Transport::TCP, secs(2), "")?;
        let rate = flood.stop()?;
        ensure!(rate > 10_000.0, "{rate:.0} datagrams a second are no flood");
        report.bits_per_second()
    }

    /// The stream's share under handshakes of what it has under datagrams that nobody reads, and what it costs.
    fn endures(&self, victim: &Host, payload: &[u8], reasons: &[&str]) -> Result<()> {
        let _unread = victim.namespace().hold_port(UNREAD)?;
        let at = |port| SocketAddrV4::new(victim.address(), port);
        self.under(at(DATA), payload)?;
        let dropped = || reasons.iter().map(|reason| victim.dropped(reason)).sum::<Result<u64>>();
        let (before, memory) = (dropped()?, victim.usage()?.1);
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours.push(self.under(at(DATA), payload)?);
            theirs.push(self.under(at(UNREAD), payload)?);
        }
        let share = median(&mut ours) / median(&mut theirs);
        ensure!(share >= SHARE, "a share of {share:.2}: {ours:.0?} bit/s beside {theirs:.0?}");
        // Of handshakes that cost arithmetic with keys a debug build takes a few in its tenth of a processor.
        ensure!(dropped()? > before + 20, "the flood was not seen: {:?}", victim.drops()?);
        let grown = victim.usage()?.1.saturating_sub(memory);
        ensure!(grown < GROWTH, "the daemon has grown by {grown} bytes");
        self.web.ping(&self.db)?;
        Ok(())
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
fn noise_that_looks_like_handshakes_is_as_cheap_as_what_nobody_reads() -> Result<()> {
    let flooded = Flooded::new("noise for handshakes")?;
    flooded.endures(flooded.net.host(1), &NOISE, &["bad_handshake"])
}

#[test]
fn an_overheard_handshake_from_forged_addresses_is_too() -> Result<()> {
    let flooded = Flooded::new("an overheard handshake, from everywhere")?;
    let (victim, payload) = overheard(&flooded)?;
    flooded.endures(flooded.host(victim)?.0, &payload, &["stale_handshake", "handshake_limit"])
}

/// A handshake between the two hosts, and for whom it was.
fn overheard(flooded: &Flooded) -> Result<(Ipv4Addr, Vec<u8>)> {
    let host = flooded.net.host(0);
    let filter = "udp port 4789 and udp[8] = 1";
    let capture = Capture::start(host.namespace(), host.interface(), filter, flooded.net.directory())?;
    pause(secs(2.5));
    let text = capture.stop_with("-qx")?;
    let packet = text.split(" > ").nth(1).with_context(|| format!("no handshake in {text:.500}"))?;
    let lines = packet.lines().skip(1).map_while(|line| line.trim().strip_prefix("0x"));
    let digits: String = lines.filter_map(|line| Some(line.split_once(':')?.1.replace(' ', ""))).collect();
    let byte = |at: usize| u8::from_str_radix(digits.get(at..at + 2).unwrap_or_default(), 16);
    let bytes = (0..digits.len()).step_by(2).map(byte).collect::<Result<Vec<_>, _>>()?;
    // IPv4 without options, with the destination at 16 (RFC 791 section 3.1), then UDP.
    let to: [u8; 4] = bytes.get(16..20).and_then(|to| to.try_into().ok()).context("no IPv4 packet")?;
    let payload = bytes.get(28..).context("an empty datagram")?;
    ensure!(payload.len() >= 100 && payload[0] == 1, "no initiation: {payload:?}");
    Ok((to.into(), payload.to_vec()))
}
