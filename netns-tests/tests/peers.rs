//! Peers that cannot be reached are retried and shown; peers that can are found, whoever was told of whom.

use netns_tests::{Host, Result, Topology, Value, anyhow, ensure, pause, secs, wait_for, wait_until};

/// The row of `status targets` whose target has this text.
fn target(host: &Host, text: &str) -> Result<Value> {
    let status = host.status()?;
    let rows =
        status.get("targets").and_then(Value::as_array).ok_or_else(|| anyhow!("no targets in {status}"))?;
    let is_it = |row: &&Value| row.get("target").and_then(Value::as_str).is_some_and(|it| it.contains(text));
    rows.iter().find(is_it).cloned().ok_or_else(|| anyhow!("no target {text}: {rows:?}"))
}

fn state(row: &Value) -> &str {
    row.get("state").and_then(Value::as_str).unwrap_or_default()
}

#[test]
fn an_unreachable_peer_is_shown_with_reason_and_next_try() -> Result<()> {
    let net = Topology::new("an unreachable peer")?.hosts(2)?;
    net.host(0).launch(&["192.0.2.99"])?;
    wait_until("it waits for the next try, with a reason", secs(30), || {
        let row = target(net.host(0), "192.0.2.99")?;
        ensure!(state(&row) == "waiting", "{row}");
        ensure!(row.get("reason").is_some_and(Value::is_string), "no reason: {row}");
        ensure!(row.get("next_try_s").is_some_and(Value::is_number), "no next try: {row}");
        Ok(())
    })?;
    net.host(0).forget(&["192.0.2.99"])?;
    ensure!(target(net.host(0), "192.0.2.99").is_err(), "it is not forgotten");
    Ok(())
}

#[test]
fn a_host_that_died_is_shown_with_reason_and_next_try() -> Result<()> {
    let net = Topology::new("a lost connection")?.hosts(2)?;
    net.host(0).launch(&[])?;
    net.host(1).launch(&["node01"])?;
    net.wait_converged(secs(5))?;
    net.host(1).kill_dead()?;
    wait_until("its connection waits for the next try, with a reason", secs(30), || {
        let status = net.host(0).status()?;
        let rows = status.get("connections").and_then(Value::as_array).cloned().unwrap_or_default();
        let waits = |row: &Value| {
            let told = row.get("reason").is_some_and(Value::is_string);
            state(row) == "waiting" && told && row.get("next_try_s").is_some_and(Value::is_number)
        };
        ensure!(rows.iter().any(waits), "{rows:?}");
        Ok(())
    })
}

#[test]
fn an_unresolvable_peer_is_shown_with_its_name() -> Result<()> {
    let net = Topology::new("an unresolvable peer")?.hosts(2)?;
    net.host(0).launch(&["no-such-host.invalid"])?;
    wait_until("it is shown with a reason", secs(30), || {
        let row = target(net.host(0), "no-such-host.invalid")?;
        ensure!(row.get("reason").is_some_and(Value::is_string), "no reason: {row}");
        Ok(())
    })?;
    // The others do not wait for it.
    net.host(1).launch(&["node01"])?;
    net.wait_converged(secs(5))
}

#[test]
fn a_peer_that_starts_late_is_found() -> Result<()> {
    let net = Topology::new("a late peer")?.hosts(2)?;
    net.host(0).launch(&["node02"])?;
    pause(secs(2));
    net.host(1).launch(&[])?;
    net.wait_converged(secs(15))?;
    ensure!(state(&target(net.host(0), "192.0.2.2")?) == "established");
    Ok(())
}

#[test]
fn naming_oneself_is_harmless() -> Result<()> {
    let net = Topology::new("oneself among the peers")?.hosts(2)?;
    net.host(0).launch(&["node01", "127.0.0.1", "node02"])?;
    net.host(1).launch(&["node02", "node01"])?;
    net.wait_converged(secs(10))?;
    let (web, db) = (net.host(0).attach("web")?, net.host(1).attach("db")?);
    web.ping(&db)?;
    ensure!(net.host(0).live_peers()? == ["node02"], "it is its own peer");
    Ok(())
}

#[test]
fn both_dial_at_once_and_one_connection_stays() -> Result<()> {
    let net = Topology::new("simultaneous dials")?.hosts(2)?;
    net.launch_together(&["node01", "node02"])?;
    net.wait_converged(secs(10))?;
    for host in net.all() {
        wait_until("one connection", secs(10), || {
            let status = host.status()?;
            let rows = status.get("connections").and_then(Value::as_array).cloned().unwrap_or_default();
            let established = rows.iter().filter(|row| state(row) == "established").count();
            ensure!(established == 1, "{established} connections: {rows:?}");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn forgotten_peers_stay_connected_until_they_go() -> Result<()> {
    let net = Topology::new("forget")?.hosts(2)?;
    net.host(0).launch(&[])?;
    net.host(1).launch(&["node01"])?;
    net.wait_converged(secs(5))?;
    net.host(1).forget(&["node01"])?;
    ensure!(target(net.host(1), "192.0.2.1").is_err(), "it is not forgotten");
    // Forgetting what is forgotten is fine.
    net.host(1).forget(&["node01"])
}

#[test]
fn connect_replace_leaves_only_the_new_targets() -> Result<()> {
    let net = Topology::new("connect --replace")?.hosts(3)?;
    net.host(0).launch(&["192.0.2.99"])?;
    net.host(1).launch(&[])?;
    net.host(0).run(&["connect", "--replace", "node02"])?;
    ensure!(target(net.host(0), "192.0.2.99").is_err(), "the old target stays");
    wait_for("it is connected", secs(5), || {
        target(net.host(0), "192.0.2.2").is_ok_and(|row| state(&row) == "established")
    })
    .map(drop)
}

#[test]
fn a_lossy_underlay_is_no_obstacle() -> Result<()> {
    let net = Topology::new("a tenth is lost")?.hosts(2)?;
    net.host(0).lose_from(net.host(1), 10)?;
    net.host(1).lose_from(net.host(0), 10)?;
    net.host(0).launch(&[])?;
    net.host(1).launch(&["node01"])?;
    let (web, db) = (net.host(0).attach("web")?, net.host(1).attach("db")?);
    web.ping_within(&db, secs(10))?;
    net.wait_converged(secs(30))
}
