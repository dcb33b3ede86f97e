//! The ring of a port's device follows what passes: few super-frames, many datagrams, or what somebody has chosen.

use netns_tests::{Attached, Host, IperfServer, Result, Topology, Transport, ensure, secs, wait_until};

#[test]
fn the_ring_is_short_for_super_frames_and_long_for_datagrams() -> Result<()> {
    let net = Topology::new("the ring of a port follows what passes")?.hosts(2)?;
    let (web, db) = pair(&net)?;
    let server = IperfServer::start(db.namespace(), &db)?;
    server.measure(web.namespace(), Transport::TCP, secs(2), "")?;
    wait_until("a short ring", secs(1), || has_ring(net.host(0), 32..=64))?;
    let small = Transport::Udp { payload_bytes: 64, bits_per_second: 20_000_000 };
    server.measure(web.namespace(), small, secs(3), "")?;
    wait_until("a long ring", secs(1), || has_ring(net.host(0), 512..=512))
}

#[test]
fn a_length_that_somebody_chose_stays() -> Result<()> {
    let net = Topology::new("the ring that somebody chose")?.hosts(2)?;
    let (web, db) = pair(&net)?;
    web.namespace().ip("link set dev mesh0 txqueuelen 200")?;
    let server = IperfServer::start(db.namespace(), &db)?;
    server.measure(web.namespace(), Transport::TCP, secs(2), "")?;
    has_ring(net.host(0), 200..=200)
}

fn pair(net: &Topology) -> Result<(Attached, Attached)> {
    net.host(0).launch(&[])?;
    net.host(1).launch(&["node01"])?;
    let (web, db) = (net.host(0).attach("web")?, net.host(1).attach("db")?);
    web.ping(&db)?;
    Ok((web, db))
}

/// `status` says that so many frames wait at most in the ring of the only port.
fn has_ring(host: &Host, lengths: std::ops::RangeInclusive<u64>) -> Result<()> {
    let status = host.status()?;
    let length = status.pointer("/dataplane/ports/0/queue_length").and_then(|length| length.as_u64());
    ensure!(length.is_some_and(|length| lengths.contains(&length)), "{length:?}, not {lengths:?}");
    Ok(())
}
