//! Docker containers are attached by name or id, and keep their address over restarts.

use netns_tests::{
    Addressed, Container, Docker, DockerContainer, Host, Result, Topology, Value, ensure, secs, wait_for,
    wait_until,
};
use std::net::IpAddr;

/// A Docker container and the address `meshnet` gave it.
struct Attached<'docker> {
    container: DockerContainer<'docker>,
    address: IpAddr,
    prefix: String,
}

impl Addressed for Attached<'_> {
    fn address(&self) -> IpAddr {
        self.address
    }
}

fn attach<'docker>(host: &Host, container: DockerContainer<'docker>) -> Result<Attached<'docker>> {
    let prefix = host.run(&["attach", container.name()])?.trim_end().to_owned();
    let address = prefix.split('/').next().unwrap_or_default().parse()?;
    Ok(Attached { container, address, prefix })
}

#[test]
fn a_docker_container_is_attached_by_name_and_keeps_its_address() -> Result<()> {
    let net = Topology::new("Docker by name")?.hosts(2)?;
    let docker = Docker::start(net.host(0))?;
    net.host(0).launch(&[])?;
    net.host(1).launch(&["node01"])?;
    let web = attach(net.host(0), docker.run("web")?)?;
    let db = net.host(1).attach("db")?;
    web.container.namespace()?.ping_within(&db, secs(2))?;
    db.ping(&web)?;
    let row = net.host(1).ps_row("web")?;
    ensure!(row.get("container").is_some_and(|it| it == "web"), "{row}");
    let by_id = net.host(0).run(&["attach", &web.container.id()?])?;
    ensure!(by_id.trim_end() == web.prefix, "by id it has {by_id}");

    for round in 0..2 {
        web.container.restart()?;
        db.ping_within(&web, secs(5))?;
        let inside = web.container.namespace()?.ip("-brief address show dev mesh0")?;
        ensure!(inside.contains(&web.prefix), "round {round}: {} is not in {inside}", web.prefix);
        web.container.namespace()?.ping_within(&db, secs(2))?;
    }
    ensure!(net.host(0).run(&["attach", "web"])?.trim_end() == web.prefix, "attach says something else");
    Ok(())
}

#[test]
fn a_stopped_container_keeps_its_record_until_it_is_removed() -> Result<()> {
    let net = Topology::new("Docker stop, start, rm")?.hosts(2)?;
    let docker = Docker::start(net.host(0))?;
    net.host(0).launch(&[])?;
    net.host(1).launch(&["node01"])?;
    let web = attach(net.host(0), docker.run("web")?)?;
    let db = net.host(1).attach("db")?;
    db.ping(&web)?;

    web.container.stop()?;
    for host in net.all() {
        wait_for("it is shown as stopped", secs(5), || state(host, "web").as_deref() == Some("stopped"))?;
    }
    db.no_ping(&web, secs(0.5))?;
    let thief = Container::new("thief")?;
    let theft = net.host(0).attach_with(&thief, &["--ip", &web.address.to_string()]);
    ensure!(theft.is_err(), "the address of a stopped container was given away");

    // A new daemon knows it too, and finds it when it starts.
    net.host(0).kill_dead()?;
    net.host(0).launch(&[])?;
    ensure!(state(net.host(0), "web").as_deref() == Some("stopped"), "{:?}", net.host(0).ps()?);
    web.container.start()?;
    db.ping_within(&web, secs(5))?;

    web.container.remove()?;
    for host in net.all() {
        wait_for("nobody lists it", secs(5), || host.ps_row("web").is_err())?;
    }
    let heir = net.host(0).attach_with(&thief, &["--ip", &web.address.to_string()])?;
    ensure!(heir.address == web.address);
    Ok(())
}

#[test]
fn a_container_restarted_while_no_daemon_ran_gets_its_port_back() -> Result<()> {
    let net = Topology::new("Docker restart unseen")?.hosts(2)?;
    let docker = Docker::start(net.host(0))?;
    net.host(0).launch(&[])?;
    net.host(1).launch(&["node01"])?;
    let web = attach(net.host(0), docker.run("web")?)?;
    let db = net.host(1).attach("db")?;
    net.host(0).kill_dead()?;
    web.container.restart()?;
    net.host(0).launch(&[])?;
    db.ping_within(&web, secs(5)).map(drop)
}

#[test]
fn what_docker_cannot_give_is_refused() -> Result<()> {
    let net = Topology::new("Docker refusals")?.hosts(2)?;
    let docker = Docker::start(net.host(0))?;
    net.host(0).launch(&[])?;
    let refused = |name: &str, code: &str| -> Result<()> {
        let said = net.host(0).meshnet(&["attach", name, "-o", "json"])?.fails_with(1)?;
        let told: Value = serde_json::from_str(&said)?;
        ensure!(told.pointer("/error/code").is_some_and(|it| it == code), "{name}: {told}");
        Ok(())
    };
    refused("no-such-container", "unknown_container")?;
    docker.run_with("open", &["--network", "host"])?;
    refused("open", "host_network")?;
    docker.run("ended")?.stop()?;
    refused("ended", "container_not_running")?;
    ensure!(net.host(0).ps()?.is_empty(), "a refusal left something behind");

    // Detached, it is not attached again by a restart.
    let web = attach(net.host(0), docker.run("web")?)?;
    net.host(0).run(&["detach", "web"])?;
    web.container.restart()?;
    netns_tests::pause(secs(1));
    ensure!(web.container.namespace()?.ports()?.is_empty(), "detached, and attached by a restart");
    wait_until("nobody lists it", secs(2), || {
        let rows = net.host(0).ps()?;
        ensure!(rows.is_empty(), "{rows:?}");
        Ok(())
    })
}

fn state(host: &Host, name: &str) -> Option<String> {
    Some(host.ps_row(name).ok()?.get("state")?.as_str()?.to_owned())
}
