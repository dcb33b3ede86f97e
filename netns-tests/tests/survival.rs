//! A daemon that ends, however, and is launched again finds its ports and peers; open connections go on.

use netns_tests::{
    Attached, Host, IperfServer, Result, Stopwatch, Topology, Transport, ensure, secs, wait_for, wait_until,
};

/// Bytes that arrive only when a stream really flows again.
const FLOWS_BYTES: u64 = 1_000_000;

#[test]
fn a_stream_outlives_sigkill_of_the_senders_daemon() -> Result<()> {
    stream_outlives(0, Host::kill_dead)
}

#[test]
fn a_stream_outlives_sigkill_of_the_receivers_daemon() -> Result<()> {
    stream_outlives(1, Host::kill_dead)
}

#[test]
fn a_stream_outlives_stop_and_launch() -> Result<()> {
    stream_outlives(0, Host::stop)
}

fn stream_outlives(which: usize, end: impl Fn(&Host) -> Result<()>) -> Result<()> {
    let net = Topology::new("a TCP stream outlives the daemon")?.hosts(2)?;
    let (web, db) = net.web_and_db(&[])?;
    let server = IperfServer::start(db.namespace(), &db)?;
    let stream = server.stream_from(web.namespace(), Transport::TCP, secs(8))?;
    flows(&db, "the stream starts")?;

    end(net.host(which))?;
    net.host(which).launch(&[])?;
    let clock = Stopwatch::start();
    flows(&db, "the stream goes on")?;
    ensure!(clock.elapsed() < secs(2), "it went on {:?} after the launch", clock.elapsed());
    let report = stream.finish()?;
    ensure!(report.seconds()? > 7.5, "the stream broke off after {} s", report.seconds()?);
    web.ping(&db)
}

/// Waits until so many bytes have arrived that it cannot be a repeated segment.
fn flows(to: &Attached, what: &str) -> Result<()> {
    let before = to.received_bytes(&to.ifname)?;
    let grown = || to.received_bytes(&to.ifname).is_ok_and(|now| now > before + FLOWS_BYTES);
    wait_for(what, secs(5), grown).map(drop)
}

#[test]
fn what_was_set_in_the_container_survives_and_its_death_is_noticed_after() -> Result<()> {
    let net = Topology::new("routes and addresses survive")?.hosts(2)?;
    let (web, db) = net.web_and_db(&[])?;
    let inside = web.namespace();
    inside.ip(&format!("route add 198.51.100.0/24 via {}", db.address))?;
    inside.ip(&format!("address add fd00::1/64 dev {} nodad", web.ifname))?;
    inside.ip(&format!("route add default via {}", db.address))?;
    let before = settings(&web)?;

    for end in [Host::kill_dead, Host::stop] {
        end(net.host(0))?;
        ensure!(net.host(0).daemon_pid().is_none(), "the daemon still runs");
        ensure!(inside.has_interface(&web.ifname), "the interface went with the daemon");
        net.host(0).launch(&[])?;
        web.ping_within(&db, secs(2))?;
        db.ping(&web)?;
        ensure!(settings(&web)? == before, "before:\n{before}\nafter:\n{}", settings(&web)?);
    }

    // The port was opened from inside: the descriptor must not keep a dead container's namespace.
    let witness = web.witness(net.host(0))?;
    web.kill()?;
    wait_for("the namespace of the dead container is gone", secs(2), || witness.is_gone())?;
    wait_for("its endpoint is gone everywhere", secs(5), || net.host(1).ps_row("web").is_err()).map(drop)
}

#[test]
fn attach_after_launch_prints_the_same_address() -> Result<()> {
    let net = Topology::new("an attached container stays attached")?.hosts(2)?;
    let (web, db) = net.web_and_db(&[])?;
    for end in [Host::kill_dead, Host::stop] {
        end(net.host(0))?;
        net.host(0).launch(&[])?;
        let again = net.host(0).attach_with(&web, &[])?;
        ensure!(again.told == web.told, "{} became {}", web.told, again.told);
        let new = net.host(0).attach("new")?;
        ensure!(new.address != web.address && new.address != db.address, "{} was given twice", new.address);
        net.host(0).detach(&new)?;
    }
    Ok(())
}

#[test]
fn a_container_that_died_while_no_daemon_ran_is_forgotten() -> Result<()> {
    let net = Topology::new("death unseen")?.hosts(2)?;
    let (web, db) = net.web_and_db(&[])?;
    let witness = web.witness(net.host(0))?;
    net.host(0).kill_dead()?;
    web.kill()?;
    wait_for("the namespace is gone", secs(2), || witness.is_gone())?;
    net.host(0).launch(&[])?;
    wait_for("its endpoint is gone everywhere", secs(5), || {
        net.all().iter().all(|host| host.ps_row("web").is_err())
    })?;
    // Its address is free again, for anybody.
    wait_until("the address is free", secs(5), || {
        net.host(0).attach_with(&netns_tests::Container::new("heir")?, &["--ip", &web.address.to_string()])
    })?
    .ping(&db)
}

/// Addresses, routes, MAC and MTU of a container's port; not the carrier, which comes and goes.
fn settings(container: &Attached) -> Result<String> {
    let show = |line: &str| container.namespace().ip(&format!("{line} dev {}", container.ifname));
    let link = show("-brief link show")?;
    let mac = link.split_whitespace().nth(2).unwrap_or_default().to_owned();
    let lines = ["-brief address show", "-4 route show", "-6 route show"].map(show);
    let [addresses, routes, routes6] = lines;
    let addresses = addresses?.split_whitespace().skip(2).collect::<Vec<_>>().join(" ");
    let routes = format!("{}{}", routes?, routes6?).replace(" linkdown", "");
    Ok(format!("{mac}\n{addresses}\n{routes}"))
}
