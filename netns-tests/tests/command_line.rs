//! What scripts rely on: outputs, exit codes, JSON names, and that repeating a command is no error.

use netns_tests::{Container, Result, Stopwatch, Topology, Value, ensure, secs, wait_for};

/// Fails when the object lacks a key. More keys are fine: more may be added.
fn has(object: &Value, keys: &[&str]) -> Result<()> {
    for key in keys {
        ensure!(object.get(key).is_some(), "no {key:?} in {object}");
    }
    Ok(())
}

#[test]
fn attach_prints_the_address_alone() -> Result<()> {
    let net = Topology::new("attach prints the address")?.hosts(2)?;
    net.host(0).launch(&[])?;
    let web = Container::new("web")?;
    let args = ["attach", &web.reference(), "--name", "web"].map(str::to_owned);
    let args = args.each_ref().map(String::as_str);
    let printed = net.host(0).run(&args)?;
    let address = printed.trim_end().strip_suffix("/12").unwrap_or_default().to_owned();
    ensure!(printed == format!("{address}/12\n") && address.starts_with("10."), "it prints {printed:?}");
    ensure!(net.host(0).run(&args)? == printed, "twice is not the same");
    let inside = web.namespace().ip("-brief address show dev mesh0")?;
    ensure!(inside.contains(printed.trim_end()), "{printed} is not in {inside}");
    let routes = web.namespace().ip("route show")?;
    ensure!(
        !routes.contains("default") && routes.lines().count() == 1,
        "more than the connected route: {routes}"
    );
    let link = web.namespace().ip("-oneline link show dev mesh0")?;
    ensure!(link.contains("mtu 1450"), "{link}");
    Ok(())
}

#[test]
fn json_has_the_fixed_names() -> Result<()> {
    let net = Topology::new("-o json")?.hosts(2)?;
    net.host(0).launch(&[])?;
    net.host(1).launch(&["node01"])?;
    let web = net.host(0).attach("web")?;
    let _db = net.host(1).attach("db")?;
    net.wait_converged(secs(5))?;
    let endpoint = ["container", "network", "name", "address", "addresses", "mac", "ifname"];
    has(&web.told, &endpoint)?;
    let rows = net.host(0).ps()?;
    ensure!(rows.len() == 2, "ps has {} rows", rows.len());
    for row in &rows {
        has(row, &endpoint)?;
        has(row, &["peer_id", "state"])?;
        ensure!(row.get("state").is_some_and(|state| state == "running"), "{row}");
    }
    let status = net.host(0).status()?;
    has(&status, &["version", "peer_id", "nickname", "cluster_id", "state_hash", "encryption", "ready"])?;
    has(&status, &["peers", "connections", "targets", "ipam", "dns", "dataplane", "events"])?;
    ensure!(status.get("encryption").is_some_and(|it| it == "off"), "an open cluster says so: {status}");
    let first = |list: &str| status.pointer(&format!("/{list}/0")).cloned().unwrap_or_default();
    has(&first("peers"), &["peer_id", "nickname", "address", "state", "path"])?;
    has(&first("connections"), &["target", "peer_id", "state", "reason", "next_try_s"])?;
    has(&first("ipam"), &["network", "range", "state", "waiting_for", "owned", "used", "free", "owners"])?;
    has(
        &status.pointer("/ipam/0/owners/0").cloned().unwrap_or_default(),
        &["peer_id", "nickname", "size", "used", "state"],
    )?;
    has(&status.pointer("/peers/0/path").cloned().unwrap_or_default(), &["address", "kind", "mtu"])?;
    ensure!(status.pointer("/dataplane/drops").is_some_and(Value::is_object), "no drops by reason");
    for part in ["peers", "connections", "targets", "ipam", "dataplane"] {
        net.host(0).run(&["status", part])?;
        net.host(0).run_json(&["status", part])?;
    }
    ensure!(net.host(0).run(&["status"])?.contains("node01"), "status does not name the host");
    ensure!(net.host(0).run(&["version"])?.contains(env!("CARGO_PKG_VERSION")), "no version");
    Ok(())
}

#[test]
fn waiting_for_a_condition_ends_with_its_answer() -> Result<()> {
    let net = Topology::new("status --wait")?.hosts(2)?;
    net.host(0).launch(&[])?;
    net.host(0).wait("ready", secs(2))?;
    let clock = Stopwatch::start();
    net.host(0).meshnet(&["status", "--wait", "peers=1", "--timeout", "1"])?.fails_with(1)?;
    ensure!(clock.elapsed() < secs(3), "a wait of one second took {:?}", clock.elapsed());
    // To wait for addresses is to need one.
    net.host(0).wait("ipam", secs(5))?;
    ensure!(net.host(0).status()?.get("cluster_id").is_some_and(Value::is_string), "no cluster was founded");
    net.host(1).launch(&["node01"])?;
    net.host(0).wait("peers=1", secs(5))?;
    net.host(0).wait("peers=0", secs(5)).or(Ok(()))
}

#[test]
fn without_a_daemon_commands_say_so() -> Result<()> {
    let net = Topology::new("no daemon")?.hosts(2)?;
    for line in ["status", "ps", "attach pid:1", "detach pid:1", "connect node02", "vtep ls"] {
        let args: Vec<_> = line.split_whitespace().collect();
        let said = net.host(0).meshnet(&args)?.fails_with(1)?;
        ensure!(said.contains("launch") && said.trim_end().lines().count() == 1, "`{line}` says: {said}");
    }
    net.host(0).stop()?;
    net.host(0).run(&["version"]).map(drop)
}

#[test]
fn vteps_are_listed_as_declared() -> Result<()> {
    let net = Topology::new("vtep add, ls, rm")?.hosts(2)?;
    net.host(0).launch(&[])?;
    net.host(0).vtep_add("192.0.2.77")?;
    net.host(0).vtep_add("192.0.2.77")?;
    net.host(0).vtep_add("192.0.2.78:8472")?;
    let listed = net.host(0).run_json(&["vtep", "ls"])?;
    let addresses: Vec<_> =
        listed.as_array().into_iter().flatten().filter_map(|row| row.get("address")).collect();
    ensure!(addresses == ["192.0.2.77:4789", "192.0.2.78:8472"], "{listed}");
    net.host(1).launch(&["node01"])?;
    wait_for("known on the other host", secs(5), || {
        net.host(1).run_json(&["vtep", "ls"]).is_ok_and(|it| it == listed)
    })?;
    net.host(1).run(&["vtep", "rm", "192.0.2.77"])?;
    net.host(1).run(&["vtep", "rm", "192.0.2.77"])?;
    wait_for("gone on the first", secs(5), || {
        net.host(0)
            .run_json(&["vtep", "ls"])
            .is_ok_and(|it| it.as_array().is_some_and(|rows| rows.len() == 1))
    })
    .map(drop)
}
