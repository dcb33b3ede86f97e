//! Detach, stop, the death of a container and the loss of a host leave what is promised: no more, no less.

use std::path::PathBuf;

use netns_tests::{
    Attached, Container, Host, IperfServer, Result, Topology, Transport, Value, ensure, secs, wait_for,
};

#[test]
fn detach_leaves_nothing_anywhere() -> Result<()> {
    let net = Topology::new("detach")?.hosts(2)?;
    let (web, db) = net.web_and_db(&[])?;
    net.host(0).detach(&web)?;
    ensure!(web.namespace().ports()?.is_empty(), "an interface stays in the container");
    ensure!(net.host(0).namespace().ports()?.is_empty(), "an interface stays on the host");
    for host in net.all() {
        wait_for("nobody lists it", secs(2), || host.ps_row("web").is_err())?;
    }
    db.no_ping(&web, secs(0.5))?;
    // What is gone may be detached again, and attached anew.
    net.host(0).detach(&web)?;
    net.host(0).attach_with(&web, &[])?.ping(&db)
}

#[test]
fn stop_leaves_the_containers_as_they_are_and_nothing_of_the_daemon() -> Result<()> {
    let net = Topology::new("stop")?.hosts(2)?;
    let (web, db) = net.web_and_db(&[])?;
    let sibling = net.host(0).attach("sibling")?;
    let routes = |container: &Attached| {
        container.namespace().ip("route show").map(|text| text.replace(" linkdown", ""))
    };
    let before = routes(&web)?;
    net.host(0).stop()?;
    ensure!(net.host(0).daemon_pid().is_none(), "a process stays");
    ensure!(leftover_files(net.host(0)).is_empty(), "files stay: {:?}", leftover_files(net.host(0)));
    for container in [&web, &sibling] {
        ensure!(container.namespace().ports()? == [container.ifname.clone()], "the interface does not stay");
        let addresses = container.namespace().ip(&format!("-brief address show dev {}", container.ifname))?;
        ensure!(addresses.contains(&container.prefix), "{} is not in {addresses}", container.prefix);
    }
    ensure!(routes(&web)? == before, "routes changed: {before} became {}", routes(&web)?);
    // Down at once for the others, its addresses still taken.
    wait_for("node02 knows at once", secs(1), || {
        net.host(1).live_peers().is_ok_and(|peers| peers.is_empty())
    })?;
    db.no_ping(&web, secs(0.5))?;
    let thief = Container::new("thief")?;
    ensure!(
        net.host(1).attach_with(&thief, &["--ip", &web.address.to_string(), "--timeout", "3"]).is_err(),
        "a stopped host's address was given away"
    );
    // Stopping what is stopped is fine.
    net.host(0).stop()
}

#[test]
fn sigkill_leaves_at_most_files_that_nobody_holds() -> Result<()> {
    let net = Topology::new("SIGKILL")?.hosts(2)?;
    let (web, db) = net.web_and_db(&[])?;
    net.host(0).kill_dead()?;
    ensure!(web.namespace().ports()? == [web.ifname.clone()], "the interface does not stay");
    net.host(0).launch(&[])?;
    web.ping_within(&db, secs(2)).map(drop)
}

#[test]
fn a_dead_container_leaves_nothing() -> Result<()> {
    let net = Topology::new("a container dies")?.hosts(2)?;
    let (web, db) = net.web_and_db(&[])?;
    let witness = web.witness(net.host(0))?;
    web.kill()?;
    wait_for("the namespace is gone", secs(2), || witness.is_gone())?;
    gone_everywhere(&net, "web")?;
    ensure!(net.host(0).namespace().ports()?.is_empty(), "its interface came back to the host");
    let heir = Container::new("heir")?;
    let heir = net.host(1).attach_with(&heir, &["--ip", &web.address.to_string()])?;
    ensure!(heir.address == web.address);
    ensure!(db.ping(&heir).is_ok());
    Ok(())
}

#[test]
fn a_named_namespace_goes_with_its_name() -> Result<()> {
    let net = Topology::new("ip netns delete")?.hosts(2)?;
    let (_web, db) = net.web_and_db(&[])?;
    let shell = Container::named("shell")?;
    let attached = net.host(0).attach_with(&shell, &[])?;
    attached.ping(&db)?;
    // Once more with a port that was opened from inside.
    net.host(0).kill_dead()?;
    net.host(0).launch(&[])?;
    attached.ping_within(&db, secs(2))?;
    shell.kill()?;
    gone_everywhere(&net, "shell")
}

#[test]
fn a_port_that_belongs_to_nobody_is_shown() -> Result<()> {
    let net = Topology::new("a stray")?.hosts(2)?;
    net.host(0).launch(&[])?;
    let shell = Container::named("shell")?;
    shell.namespace().ip("tuntap add dev stray mode tap")?;
    shell.namespace().ip("link set dev stray alias meshnet:00000000deadbeef")?;
    let inode = shell.namespace().inode()?;
    wait_for("status shows it", secs(5), || shows_stray(net.host(0), inode).is_ok_and(|shown| shown))?;
    ensure!(shell.namespace().has_interface("stray"), "a daemon took what is not its own");
    Ok(())
}

#[test]
fn a_container_that_dies_under_traffic_takes_nobody_along() -> Result<()> {
    let net = Topology::new("death under traffic")?.hosts(2)?;
    let (web, db) = net.web_and_db(&[])?;
    let sibling = net.host(1).attach("sibling")?;
    let server = IperfServer::start(db.namespace(), &db)?;
    let unlimited = Transport::Udp { payload_bytes: 1000, bits_per_second: 200_000_000 };
    let stream = server.stream_from(web.namespace(), unlimited, secs(30))?;
    let before = db.received_bytes(&db.ifname)?;
    wait_for("traffic flows", secs(5), || {
        db.received_bytes(&db.ifname).is_ok_and(|now| now > before + 1_000_000)
    })?;
    let (daemons, witness) = (net.host(1).daemon_pid(), db.witness(net.host(1))?);
    drop(server);
    db.kill()?;
    wait_for("the namespace is gone", secs(2), || witness.is_gone())?;
    gone_everywhere(&net, "db")?;
    drop(stream);
    ensure!(net.host(1).daemon_pid() == daemons, "the daemon did not survive");
    web.ping(&sibling)
}

#[test]
fn a_lost_host_is_suspended_and_comes_back() -> Result<()> {
    let net = Topology::new("host loss")?.hosts(3)?;
    net.launch_together(&["node01"])?;
    let web = net.host(0).attach("web")?;
    let db = net.host(1).attach("db")?;
    let shell = net.host(2).attach("shell")?;
    web.ping(&db)?;
    net.cut(0, 1)?;
    net.cut(1, 2)?;
    for host in [net.host(0), net.host(2)] {
        wait_for("node02 is down", secs(20), || state_of(host, "node02").as_deref() == Some("down"))?;
    }
    web.ping(&shell)?;
    let thief = Container::new("thief")?;
    let address = db.address.to_string();
    ensure!(
        net.host(0).attach_with(&thief, &["--ip", &address, "--timeout", "3"]).is_err(),
        "a lost host's address was given away"
    );

    net.mend()?;
    net.wait_converged(secs(30))?;
    web.ping(&db)?;
    shell.ping(&db)
}

fn gone_everywhere(net: &Topology, name: &str) -> Result<()> {
    let rows = || net.all().iter().all(|host| host.ps_row(name).is_err());
    wait_for(&format!("nobody lists {name}"), secs(5), rows).map(drop)
}

fn state_of(host: &Host, nickname: &str) -> Option<String> {
    let status = host.status().ok()?;
    let peers = status.get("peers")?.as_array()?;
    let peer = peers.iter().find(|peer| peer.get("nickname").is_some_and(|name| name == nickname))?;
    Some(peer.get("state")?.as_str()?.to_owned())
}

/// True when `status` shows an interface with our alias in this namespace that belongs to no port.
fn shows_stray(host: &Host, inode: u64) -> Result<bool> {
    let status = host.status()?;
    let rows = status.pointer("/dataplane/unclaimed").and_then(Value::as_array).cloned().unwrap_or_default();
    Ok(rows.iter().any(|row| row.get("netns").and_then(Value::as_u64) == Some(inode)))
}

/// What is in the run directory, but for logs.
fn leftover_files(host: &Host) -> Vec<PathBuf> {
    let files = std::fs::read_dir(host.run_dir()).into_iter().flatten().flatten().map(|entry| entry.path());
    files.filter(|path| path.extension().is_none_or(|end| end != "log")).collect()
}
