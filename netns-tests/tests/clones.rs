//! A copy of a host that runs: it is told where the other one is, and nobody else notices anything.

use netns_tests::{Attached, Container, Host, Result, Stopwatch, Topology, Value, ensure, secs, wait_until};

/// Copies the state of a host that has address space, and no container: all hosts are one machine here, and the copy would
/// find the containers of the first one.
fn copy_state(from: &Host, to: &Host) -> Result<()> {
    let first = from.attach("first")?;
    from.run(&["detach", &first.reference()])?;
    std::fs::create_dir(to.state_dir())?;
    for file in ["identity", "state", "ports"] {
        std::fs::copy(from.state_dir().join(file), to.state_dir().join(file))?;
    }
    Ok(())
}

/// Two hosts with a container each, and a third with a copy of what the second was a moment ago.
fn with_a_copy(promise: &str) -> Result<(Topology, Attached, Attached)> {
    let net = Topology::new(promise)?.hosts(3)?;
    net.host(0).launch(&[])?;
    net.host(1).launch(&["node01"])?;
    net.wait_converged_among(2, secs(10))?;
    copy_state(net.host(1), net.host(2))?;
    let (web, db) = (net.host(0).attach("web")?, net.host(1).attach("db")?);
    web.ping_within(&db, secs(10))?;
    net.wait_converged_among(2, secs(10))?;
    Ok((net, web, db))
}

/// It says where the other is, in an event and for as long as it holds, and gives no address.
fn waits(host: &Host, first: &Host) -> Result<()> {
    let at = format!("{}:6783", first.address());
    wait_until("it is told", secs(5), || {
        ensure!(host.events("clone_seen")?.iter().any(|told| told.contains(&at)), "no event");
        ensure!(host.warnings("clone")?.iter().any(|told| told.contains(&at)), "no warning");
        Ok(())
    })?;
    let guest = Container::new("guest")?;
    let said = host.fails_with(&["attach", &guest.reference(), "--name", "guest"], "clone")?;
    ensure!(said.contains(&at), "{said}");
    for command in [
        &["rmpeer", "node01", "--force"][..],
        &["revoke", "node01"],
        &["vtep", "add", "192.0.2.99"],
        &["vtep", "rm", "192.0.2.99"],
        &["secret", "rotate"],
    ] {
        host.fails_with(command, "clone")?;
    }
    Ok(())
}

/// A host that stays is told once where the clone is.
fn is_told(host: &Host, clone: &Host) -> Result<()> {
    wait_until("the others are told", secs(5), || {
        let told = host.events("clone_seen")?;
        ensure!(told.len() == 1 && told[0].contains(&clone.address().to_string()), "{told:?}");
        Ok(())
    })
}

fn state_hash(host: &Host) -> Result<Option<Value>> {
    Ok(host.status()?.get("state_hash").cloned())
}

#[test]
fn a_copy_of_a_running_host_waits_and_harms_nobody_and_reset_makes_a_host_of_it() -> Result<()> {
    let (net, web, db) = with_a_copy("a copy of a running host")?;
    let before = state_hash(net.host(0))?;
    net.host(2).launch(&["node01"])?;
    waits(net.host(2), net.host(1))?;

    is_told(net.host(0), net.host(2))?;
    is_told(net.host(1), net.host(2))?;
    let watch = Stopwatch::start();
    while watch.elapsed() < secs(12) {
        db.ping(&web)?;
        ensure!(state_hash(net.host(0))? == before && state_hash(net.host(1))? == before, "it wrote");
        net.wait_converged_among(2, secs(0))?;
        ensure!(!net.host(2).warnings("clone")?.is_empty(), "it waits no more");
    }
    let more = net.host(1).attach("more")?;
    ensure!(more.address != db.address, "an address is given twice");

    let directory = net.host(2).state_dir().to_string_lossy().into_owned();
    net.host(2).run(&["reset", "--state-dir", &directory])?;
    ensure!(net.host(1).ps()?.len() == 3, "its reset took something away");
    net.host(2).launch(&["node01"])?;
    net.wait_converged(secs(10))?;
    ensure!(net.host(2).peer_id()? != net.host(1).peer_id()?, "it has the same keys");
    let guest = net.host(2).attach("guest")?;
    guest.ping(&db)?;
    guest.ping(&more)
}

#[test]
fn a_copy_goes_on_when_the_first_one_is_stopped_and_that_one_waits_then() -> Result<()> {
    let (net, web, db) = with_a_copy("a copy takes the place of a host")?;
    net.host(2).launch(&["node01"])?;
    waits(net.host(2), net.host(1))?;
    net.host(1).stop()?;
    db.kill()?;
    wait_until("it goes on", secs(60), || {
        ensure!(net.host(2).warnings("clone")?.is_empty(), "it waits");
        Ok(())
    })?;
    ensure!(net.host(2).events("clone_gone")?.len() == 1, "it does not say so");
    net.host(2).attach("guest")?.ping_within(&web, secs(10))?;
    net.host(1).launch(&["node01"])?;
    waits(net.host(1), net.host(2))
}

#[test]
fn a_host_that_is_killed_and_started_again_at_once_is_no_clone_of_itself() -> Result<()> {
    let net = Topology::new("a start on the heels of a death")?.hosts(2)?;
    let (web, db) = net.web_and_db(&[])?;
    net.wait_converged(secs(10))?;
    for _ in 0..3 {
        net.host(1).kill_dead()?;
        net.host(1).launch(&["node01"])?;
        net.wait_converged(secs(5))?;
        db.ping_within(&web, secs(5))?;
    }
    for host in net.all() {
        ensure!(host.events("clone_seen")?.is_empty(), "{} takes it for a clone", host.name());
    }
    Ok(())
}

#[test]
fn a_copy_of_a_host_that_is_alone_asks_that_one() -> Result<()> {
    let net = Topology::new("a copy of a host that is alone")?.hosts(2)?;
    net.host(0).launch(&[])?;
    copy_state(net.host(0), net.host(1))?;
    let web = net.host(0).attach("web")?;
    net.host(1).launch(&["node01"])?;
    waits(net.host(1), net.host(0))?;
    is_told(net.host(0), net.host(1))?;
    // An empty state directory does as well as `reset`.
    net.host(1).stop()?;
    std::fs::remove_dir_all(net.host(1).state_dir())?;
    net.host(1).launch(&["node01"])?;
    net.wait_converged(secs(10))?;
    net.host(1).attach("db")?.ping(&web)
}
