//! A host that will not return is removed by command; one that does return starts over.

use netns_tests::{Attached, Host, Result, Topology, Value, ensure, secs, wait_for, wait_until};

/// The nicknames in `status peers`, whatever their state, sorted.
fn known(host: &Host) -> Result<Vec<String>> {
    let status = host.status()?;
    let peers = status.get("peers").and_then(Value::as_array).cloned().unwrap_or_default();
    let name = |peer: &Value| Some(peer.get("nickname")?.as_str()?.to_owned());
    let mut names: Vec<String> = peers.iter().filter_map(name).collect();
    names.sort();
    Ok(names)
}

fn is_down(host: &Host, peer_id: &str) -> Result<bool> {
    let status = host.status()?;
    let peers = status.get("peers").and_then(Value::as_array).cloned().unwrap_or_default();
    let text = |peer: &Value, key: &str| peer.get(key).and_then(Value::as_str).map(str::to_owned);
    let mut this = peers.iter().filter(|peer| text(peer, "peer_id").as_deref() == Some(peer_id));
    Ok(this.all(|peer| text(peer, "state").as_deref() == Some("down")))
}

/// Three hosts that agree, with a container on the first and one on the third, which reach each other.
fn three_hosts(promise: &str) -> Result<(Topology, Attached, Attached)> {
    let net = Topology::new(promise)?.hosts(3)?;
    net.host(0).launch(&[])?;
    net.host(1).launch(&["node01"])?;
    net.host(2).launch(&["node01"])?;
    let (web, db) = (net.host(0).attach("web")?, net.host(2).attach("db")?);
    web.ping_within(&db, secs(10))?;
    net.wait_converged(secs(10))?;
    Ok((net, web, db))
}

#[test]
fn a_dead_host_is_removed_everywhere_and_comes_back_when_it_is_launched_again() -> Result<()> {
    let (net, web, db) = three_hosts("rmpeer of a dead host")?;

    let third = net.host(2).peer_id()?;
    net.host(0).fails_with(&["rmpeer", &third], "peer_alive")?;
    net.host(0).fails_with(&["rmpeer", &net.host(0).peer_id()?, "--force"], "peer_is_self")?;
    net.host(0).fails_with(&["rmpeer", "fourth"], "unknown_peer")?;

    net.host(2).kill_dead()?;
    wait_for("its death is known", secs(15), || {
        [0, 1].iter().all(|&at| is_down(net.host(at), &third).unwrap_or(false))
    })?;
    for (at, newly) in [(0, true), (0, false)] {
        let done = net.host(at).run_json(&["rmpeer", &third])?;
        ensure!(done.get("removed") == Some(&Value::Bool(newly)), "{done}");
        ensure!(done.get("nickname").and_then(Value::as_str) == Some("node03"), "{done}");
    }
    wait_until("it is known nowhere", secs(5), || {
        ensure!(known(net.host(0))? == ["node02"] && known(net.host(1))? == ["node01"]);
        ensure!(net.host(1).ps()?.len() == 1, "its container is still listed");
        ensure!(!net.host(1).events("host_removed")?.is_empty(), "nobody is told");
        Ok(())
    })?;
    // Anywhere, and again.
    net.host(1).run(&["rmpeer", &third])?;

    net.host(2).launch(&["node01"])?;
    net.wait_converged(secs(10))?;
    ensure!(!net.host(2).events("removed_itself")?.is_empty(), "it was not told");
    ensure!(net.host(1).ps()?.len() == 2, "its container is not told again");
    web.ping_within(&db, secs(10)).map(drop)
}

#[test]
fn a_live_host_removed_by_force_comes_back_and_traffic_goes_on() -> Result<()> {
    let (net, web, db) = three_hosts("rmpeer --force of a live host")?;

    net.host(1).run(&["rmpeer", "--force", &net.host(2).peer_id()?[..6]])?;
    wait_until("it came back", secs(10), || {
        ensure!(!net.host(0).events("host_returned")?.is_empty(), "it is not back");
        ensure!(!net.host(2).events("removed_itself")?.is_empty(), "it was not told");
        ensure!(net.host(0).ps()?.len() == 2, "its container is not listed");
        Ok(())
    })?;
    net.wait_converged(secs(10))?;
    web.ping_within(&db, secs(10))?;
    db.ping(&web)
}
