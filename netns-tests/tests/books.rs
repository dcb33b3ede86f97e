//! Nothing is lost without a reason: the books of every host balance after traffic of every kind.

use std::net::SocketAddr;
use std::time::Duration;

use netns_tests::{
    Attached, Host, IperfServer, Result, Tool, Topology, Transport, Value, anyhow, ensure, number, secs,
    wait_until,
};

/// Some time after the last frame.
const REST: Duration = Duration::from_secs(5);

#[test]
fn the_books_balance_after_all_kinds_of_traffic() -> Result<()> {
    let net = Topology::new("two hosts, three containers")?.hosts(2)?;
    net.host(0).launch(&["--workers", "2"])?;
    net.host(1).launch(&["node01", "--mtu", "1450"])?;
    let (web, app) = (net.host(0).attach("web")?, net.host(0).attach("app")?);
    let db = net.host(1).attach("db")?;
    web.ping(&db)?;
    web.ping(&app)?;
    // Super-frames cut, joined, and passed on whole; datagrams; floods to an address that nobody has.
    for (from, to) in [(&web, &db), (&db, &app), (&web, &app)] {
        let server = IperfServer::start(to.namespace(), to)?;
        server.measure(from.namespace(), Transport::TCP, secs(1), "")?;
        let udp = Transport::Udp { payload_bytes: 600, bits_per_second: 20_000_000 };
        server.measure(from.namespace(), udp, secs(1), "")?;
    }
    flood(&web, 40)?;
    // Containers that think the network has room for more: their super-frames are cut smaller than they asked.
    [&web, &db].iter().try_for_each(|end| end.namespace().ip("link set mesh0 mtu 4000").map(drop))?;
    IperfServer::start(db.namespace(), &db)?.measure(web.namespace(), Transport::TCP, secs(1), "")?;
    for host in net.all() {
        host.wait_balanced(REST)?;
        let books = host.books()?;
        ensure!(number(&books, "in")? > 10_000, "nothing went: {books}");
    }
    let (books, worker_sum) = (net.host(0).books()?, per_worker(net.host(0))?);
    ensure!(number(&books, "copies")? >= 40, "40 floods to a port and a host: {books}");
    ensure!(number(&books, "recut")? > 0, "TCP of large segments was cut: {books}");
    ensure!(number(&books, "answered")? >= 2, "ARP was answered here: {books}");
    ensure!(number(&books, "in")? == worker_sum, "the workers count {worker_sum}: {books}");
    Ok(())
}

#[test]
fn a_flood_to_nobody_and_a_port_that_takes_nothing_have_their_reasons() -> Result<()> {
    let net = Topology::new("one host")?.hosts(1)?;
    let host = net.host(0);
    host.launch(&[])?;
    let web = host.attach("web")?;
    flood(&web, 10)?;
    wait_until("the floods are counted", secs(5), || {
        let lonely = host.dropped("no_receiver")?;
        ensure!(lonely >= 10, "{lonely} floods had no receiver");
        Ok(())
    })?;
    host.wait_balanced(REST)?;
    let port = host.port(&web)?;
    let blamed = number(&port, "segments_in")?;
    ensure!(blamed >= 10, "the port counts its segments: {port}");

    // An interface that is down takes no frames: the port that is to blame says so.
    let app = host.attach("app")?;
    web.ping(&app)?;
    app.namespace().ip("link set mesh0 down")?;
    flood(&web, 10)?;
    wait_until("the refused frames are counted at the port", secs(5), || {
        let port = host.port(&app)?;
        let refused = number(port.get("drops").unwrap_or(&Value::Null), "write_failed").unwrap_or(0);
        ensure!(refused >= 10, "{port}");
        Ok(())
    })?;
    host.wait_balanced(REST)
}

#[test]
fn a_ring_that_overflows_is_counted_where_the_kernel_counts() -> Result<()> {
    let net = Topology::new("a daemon that sleeps")?.hosts(1)?;
    let host = net.host(0);
    host.launch(&[])?;
    let web = host.attach("web")?;
    let before = host.port(&web)?;
    let length = number(&before, "queue_length")?;
    let pid = host.daemon_pid().ok_or_else(|| anyhow!("no daemon"))?.to_string();
    Tool::new("kill").args(["-STOP", &pid]).run()?;
    let flooded = flood(&web, 3 * length as usize);
    Tool::new("kill").args(["-CONT", &pid]).run()?;
    flooded?;
    wait_until("the ring's drops are told", secs(5), || {
        let lost = number(&host.port(&web)?, "kernel_drops_in")? - number(&before, "kernel_drops_in")?;
        // The container says some things of itself.
        let expected = 2 * length..2 * length + 50;
        ensure!(expected.contains(&lost), "{lost} of {} did not fit {length}", 3 * length);
        Ok(())
    })?;
    host.wait_balanced(REST)
}

/// Sends broadcasts from a container.
fn flood(from: &Attached, frames: usize) -> Result<()> {
    from.namespace().broadcast(SocketAddr::from(([10, 47, 255, 255], 9)), frames)
}

fn per_worker(host: &Host) -> Result<u64> {
    let workers = host.workers()?;
    workers.iter().map(|w| Ok(number(w, "port_segments_in")? + number(w, "remote_segments_in")?)).sum()
}
