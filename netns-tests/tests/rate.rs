//! `attach --rate`: what a container sends and is given, held to a rate in both directions.

use netns_tests::{
    Attached, Container, Host, IperfServer, Outcome, Result, Topology, Transport, Value, ensure, json, pause,
    secs, wait_until,
};

/// The limit of the tests, in bits per second.
const LIMIT: f64 = 100e6;

#[test]
fn tcp_reaches_the_rate_and_stays_below_it() -> Result<()> {
    let net = Topology::new("TCP at a rate of 100 Mbit/s")?.hosts(2)?;
    let (web, db) = pair(&net, &[])?;
    let server = IperfServer::start(db.namespace(), &db)?;
    for options in ["", "-R"] {
        let report = server.measure(web.namespace(), Transport::TCP, secs(6), options)?;
        near("TCP", options, report.bits_per_second()?)?;
    }
    Ok(())
}

#[test]
fn a_flood_of_datagrams_is_cut_to_the_rate() -> Result<()> {
    let net = Topology::new("UDP at a rate of 100 Mbit/s")?.hosts(2)?;
    let (web, db) = pair(&net, &[])?;
    let server = IperfServer::start(db.namespace(), &db)?;
    let udp = Transport::Udp { payload_bytes: 1400, bits_per_second: 300_000_000 };
    for options in ["", "-R"] {
        let report = server.measure(web.namespace(), udp, secs(5), options)?;
        near("UDP", options, report.bits_per_second()?)?;
    }
    // What goes to the container is dropped where the port is, and says why.
    ensure!(net.host(0).dropped("rate_limit")? > 1000, "{:?}", net.host(0).drops()?);
    ensure!(net.host(1).dropped("rate_limit")? == 0, "{:?}", net.host(1).drops()?);
    Ok(())
}

#[test]
fn all_workers_together_keep_to_the_rate() -> Result<()> {
    let net = Topology::new("100 Mbit/s over three workers")?.hosts(2)?;
    let (web, db) = pair(&net, &["--workers", "3"])?;
    let server = IperfServer::start(db.namespace(), &db)?;
    for options in ["", "-R"] {
        let report = server.measure(web.namespace(), Transport::Tcp { streams: 6 }, secs(5), options)?;
        near("TCP, 6 streams", options, report.bits_per_second()?)?;
    }
    Ok(())
}

#[test]
fn a_limited_container_slows_nobody_else() -> Result<()> {
    let net = Topology::new("others than the limited one")?.hosts(2)?;
    let (web, db) = pair(&net, &[])?;
    let free = net.host(0).attach("free")?;
    let (slow, fast) =
        (IperfServer::start(db.namespace(), &db)?, IperfServer::start(free.namespace(), &free)?);
    let stream = slow.stream_from(web.namespace(), Transport::TCP, secs(4))?;
    let report = fast.measure(db.namespace(), Transport::TCP, secs(3), "")?;
    let limited = stream.finish()?;
    let drops = (net.host(0).drops()?, net.host(1).drops()?);
    let beside = format!("beside another, {:?} retransmits, {drops:?}", limited.retransmits());
    near("TCP", &beside, limited.bits_per_second()?)?;
    ensure!(report.bits_per_second()? > 4.0 * LIMIT, "{:.0} bit/s", report.bits_per_second()?);
    Ok(())
}

#[test]
fn the_rate_outlives_the_daemon() -> Result<()> {
    let net = Topology::new("a rate after launch")?.hosts(2)?;
    let (web, db) = pair(&net, &[])?;
    for end in [Host::kill_dead, Host::stop] {
        end(net.host(0))?;
        net.host(0).launch(&[])?;
        ensure!(rate_in_status(net.host(0))? == json!(100_000_000), "status forgot the rate");
        wait_until("the path is back", secs(5), || web.ping(&db))?;
    }
    let server = IperfServer::start(db.namespace(), &db)?;
    let report = server.measure(web.namespace(), Transport::TCP, secs(4), "")?;
    near("TCP", "after launch", report.bits_per_second()?)
}

#[test]
fn attaching_again_with_another_rate_is_refused() -> Result<()> {
    let net = Topology::new("another rate")?.hosts(2)?;
    net.host(0).launch(&[])?;
    let web = Container::new("web")?;
    let attach = |rate: &str| -> Result<Outcome> {
        net.host(0).meshnet(&["attach", &web.reference(), "--rate", rate, "-o", "json"])
    };
    attach("2mbit")?.ok()?;
    attach("2000kbit")?.ok()?;
    let refused = attach("3mbit")?;
    ensure!(refused.code == Some(1) && refused.stderr.contains("already_attached"), "{}", refused.stderr);
    ensure!(refused.stderr.contains("--rate"), "{}", refused.stderr);
    ensure!(attach("fast")?.code == Some(2) && attach("100")?.code == Some(2), "not a rate");
    net.host(0).detach(&web)?;
    pause(secs(0.1));
    net.host(0).attach_with(&web, &[])?;
    ensure!(rate_in_status(net.host(0))? == Value::Null, "a rate that nobody asked for");
    Ok(())
}

/// A container limited to 100 Mbit/s on the first host, and one without limit on the other.
fn pair(net: &Topology, options: &[&str]) -> Result<(Attached, Attached)> {
    net.host(0).launch(options)?;
    net.host(1).launch(&["node01"])?;
    let web = net.host(0).attach_with(&Container::new("web")?, &["--rate", "100mbit"])?;
    let db = net.host(1).attach("db")?;
    web.ping(&db)?;
    Ok((web, db))
}

/// Within a tenth of the limit.
fn near(what: &str, options: &str, bits_per_second: f64) -> Result<()> {
    let share = bits_per_second / LIMIT;
    ensure!((0.9..=1.1).contains(&share), "{what} {options}: {share:.3} of the rate");
    Ok(())
}

/// What `status` says of the rate of the only port.
fn rate_in_status(host: &Host) -> Result<Value> {
    let status = host.status()?;
    Ok(status.pointer("/dataplane/ports/0/rate_bits_per_second").cloned().unwrap_or(Value::Null))
}
