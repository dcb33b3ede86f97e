//! Hosts that move, and daemons that begin anew, under streams of their containers.

use std::net::{Ipv4Addr, SocketAddr};

use netns_tests::{
    Attached, Capture, Host, Result, Topology, Trickle, Value, ensure, pause, secs, wait_until,
};

/// Where the containers listen.
const PORTS: [u16; 2] = [7001, 7002];
/// The longest that nothing of a stream may arrive.
const GAP: f64 = 2.0;
/// Where the first host moves to.
const NEW: &str = "192.0.2.101";

/// A stream each way.
fn streams(web: &Attached, db: &Attached) -> Result<[Trickle; 2]> {
    Ok([
        Trickle::start(web.namespace(), (db.namespace(), db), PORTS[0])?,
        Trickle::start(db.namespace(), (web.namespace(), web), PORTS[1])?,
    ])
}

/// Whatever is done, both streams go on within the limit, and nothing of them is lost.
fn survive(streams: [Trickle; 2], what: impl FnOnce() -> Result<()>) -> Result<()> {
    // What the daemons know is on their disks by then.
    pause(secs(2.5));
    let calm = streams.each_ref().map(Trickle::longest_gap);
    ensure!(calm.iter().all(|gap| *gap < secs(0.5)), "the wire is not calm: {calm:?}");
    what()?;
    pause(secs(4));
    let gaps = streams.each_ref().map(Trickle::longest_gap);
    streams.into_iter().try_for_each(Trickle::finish)?;
    ensure!(gaps.iter().all(|gap| *gap < secs(GAP)), "nothing arrived for {gaps:?}");
    Ok(())
}

/// The address at which `host` reaches its only peer.
fn path(host: &Host) -> Result<String> {
    let peers = host.run_json(&["status", "peers"])?;
    let addr = peers.pointer("/0/path/address").and_then(Value::as_str);
    Ok(addr.unwrap_or_default().to_owned())
}

/// The host has no address any more but the new one.
fn move_to(host: &Host, new: &str) -> Result<()> {
    let (namespace, interface) = (host.namespace(), host.interface());
    namespace.ip(&format!("-6 address flush dev {interface} scope global"))?;
    namespace.ip(&format!("address delete {}/24 dev {interface}", host.address()))?;
    namespace.ip(&format!("address add {new}/24 dev {interface}")).map(drop)
}

#[test]
fn sealed_streams_outlive_a_move_of_a_host() -> Result<()> {
    let net = Topology::new("a host changes its underlay address under sealed streams")?.hosts(2)?;
    let (web, db) = net.sealed_web_and_db(&[])?;
    survive(streams(&web, &db)?, || move_to(net.host(0), NEW))
}

#[test]
fn plain_streams_outlive_a_move_of_a_host() -> Result<()> {
    let net = Topology::new("a host changes its underlay address under plain streams")?.hosts(2)?;
    let (web, db) = net.web_and_db(&[])?;
    survive(streams(&web, &db)?, || move_to(net.host(0), NEW))
}

#[test]
fn sealed_streams_outlive_sigkill_and_launch() -> Result<()> {
    for which in 0..2 {
        let net = Topology::new("SIGKILL and launch under sealed streams")?.hosts(2)?;
        let (web, db) = net.sealed_web_and_db(&[])?;
        let host = net.host(which);
        let file = host.directory().join("secret").display().to_string();
        survive(streams(&web, &db)?, || {
            host.kill_dead()?;
            host.launch(&["--secret-file", &file])
        })?;
    }
    Ok(())
}

/// The payloads of the IPv4 UDP datagrams that `tcpdump -x` shows.
fn payloads(text: &str) -> Vec<Vec<u8>> {
    let mut packets: Vec<Vec<u8>> = Vec::new();
    for line in text.lines() {
        match line.trim_start().strip_prefix("0x").and_then(|line| line.split_once(':')) {
            Some((_, hex)) => {
                let digits: String = hex.split_whitespace().collect();
                let byte = |at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
                let bytes = (0..digits.len()).step_by(2).map_while(byte);
                packets.last_mut().into_iter().for_each(|packet| packet.extend(bytes.clone()));
            }
            None => packets.push(Vec::new()),
        }
    }
    // Headers of IPv4 and UDP.
    packets.retain(|packet| packet.len() > 28);
    packets.into_iter().map(|mut packet| packet.split_off(28)).collect()
}

#[test]
fn copies_and_forgeries_from_elsewhere_move_nobody() -> Result<()> {
    let net = Topology::new("what a third party sends again moves nobody")?.hosts(3)?;
    let (mover, other, third) = (net.host(0), net.host(1), net.host(2));
    // The hosts have one way to each other.
    mover.namespace().ip(&format!("-6 address flush dev {} scope global", mover.interface()))?;
    let (web, db) = net.sealed_web_and_db(&[])?;
    let at = |host: &Host| SocketAddr::new(host.address().into(), 4789);
    let is_at = |wanted: SocketAddr| {
        wait_until("the host is seen where it is", secs(5), || {
            let found = path(other)?;
            ensure!(found == wanted.to_string(), "{found:?} instead of {wanted}");
            Ok(())
        })
    };
    is_at(at(mover))?;
    let filter = format!("udp dst port 4789 and dst host {}", other.address());
    let sent = Capture::start(mover.namespace(), mover.interface(), &filter, net.directory())?;
    let filter = format!("udp and src host {}", other.address());
    let seen = Capture::start(third.namespace(), third.interface(), &filter, net.directory())?;
    web.ping(&db)?;
    // What tells where the host is now does not arrive, and a third party has it first.
    let new: Ipv4Addr = NEW.parse()?;
    other.cut_addresses(&[mover.address().into(), new.into()])?;
    mover.namespace().ip(&format!("address add {new}/24 dev {}", mover.interface()))?;
    mover.namespace().ip(&format!("route add {} dev {} src {new}", other.address(), mover.interface()))?;
    pause(secs(1.2));
    let sent = payloads(&sent.stop_with("-x")?);
    other.mend()?;
    let is_keepalive = |datagram: &&Vec<u8>| datagram.len() == 32 && datagram.first() == Some(&4);
    let keepalives = sent.iter().filter(is_keepalive).count();
    ensure!((1..sent.len()).contains(&keepalives), "{keepalives} keepalives of {}", sent.len());
    let mut forged = sent.clone();
    forged.iter_mut().filter_map(|datagram| datagram.last_mut()).for_each(|byte| *byte ^= 1);
    for _ in 0..20 {
        third.namespace().send_datagrams(at(other), &forged)?;
        third.namespace().send_datagrams(at(other), &sent)?;
    }
    wait_until("both are counted", secs(5), || {
        let found = other.dropped("replayed")? > 0 && other.dropped("bad_sealed")? > 0;
        ensure!(found, "{:?}", other.drops()?);
        Ok(())
    })?;
    web.ping_within(&db, secs(5))?;
    is_at(SocketAddr::new(new.into(), 4789))?;
    // Who was heard elsewhere is asked there, by probes; too many initiations are answered by cookies. No frame goes there.
    let got = payloads(&seen.stop_with("-x")?);
    let others = got.iter().filter(|datagram| ![Some(&3), Some(&6)].contains(&datagram.first())).count();
    ensure!(!got.is_empty() && others == 0, "{others} of {} datagrams are something else", got.len());
    Ok(())
}
