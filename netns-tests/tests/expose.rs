//! The host itself has an address on the overlay when it is exposed, and is a way out of it only if that is asked for.

use netns_tests::{
    Attached, Container, Host, IperfServer, Namespace, Result, Topology, Transport, Value, ensure, secs,
    wait_until,
};

/// What `expose` with these words prints, as an address to ping.
fn expose(host: &Host, words: &[&str]) -> Result<std::net::IpAddr> {
    let printed = host.run(&[&["expose"], words].concat())?;
    let address = printed.trim().split('/').next().unwrap_or_default().parse();
    ensure!(address.is_ok() && printed.lines().count() == 1, "`expose` printed {printed:?}");
    Ok(address?)
}

#[test]
fn the_host_is_reached_under_its_name_until_it_is_hidden() -> Result<()> {
    let net = Topology::new("expose and hide")?.hosts(2)?;
    let (web, db) = net.web_and_db(&[])?;
    let address = expose(net.host(0), &[])?;
    web.ping(&address)?;
    db.ping(&address)?;
    net.host(0).namespace().ping_within(&db, secs(2))?;
    net.host(0).namespace().ping_whole(&db, 1422)?;
    let server = IperfServer::start(net.host(0).namespace(), &address)?;
    let report = server.measure(db.namespace(), Transport::TCP, secs(1), "")?;
    ensure!(report.bits_per_second()? > 50e6, "{report:?}");

    // Again is the same; something else is said.
    ensure!(expose(net.host(0), &[])? == address, "it has another address now");
    let said = net.host(0).meshnet(&["expose", "10.47.7.7"])?.fails_with(1)?;
    ensure!(said.contains("--ip") && said.contains("meshnet hide"), "it says: {said}");
    let listed = wait_until("node02 lists node01", secs(5), || exposed(net.host(1)))?;
    ensure!(listed.get("name").and_then(Value::as_str) == Some("node01"), "{listed}");
    let refused = net.host(0).meshnet(&["detach", "(host)"])?;
    ensure!(refused.code == Some(0) && exposed(net.host(0)).is_ok(), "`detach` took the host away");

    net.host(0).run(&["hide"])?;
    net.host(0).run(&["hide"])?;
    web.no_ping(&address, secs(1))?;
    ensure!(net.host(0).namespace().ports()?.is_empty(), "the interface is still there");
    ensure!(rules(net.host(0))?.is_empty(), "rules are still there");
    let next = expose(net.host(0), &["10.47.7.7", "--ifname", "overlay"])?;
    ensure!(next.to_string() == "10.47.7.7", "it has {next}");
    web.ping(&next)?;
    ensure!(net.host(0).namespace().has_interface("overlay"), "no interface of that name");
    web.ping(&db)
}

fn exposed(host: &Host) -> Result<Value> {
    let found =
        host.ps()?.into_iter().find(|row| row.get("container").and_then(Value::as_str) == Some("(host)"));
    found.ok_or_else(|| netns_tests::anyhow!("`ps` lists no exposed host"))
}

/// Our tables, as `nft` shows them.
fn rules(host: &Host) -> Result<String> {
    host.tool("nft").args(["list", "ruleset"]).run()
}

#[test]
fn it_stays_over_stop_launch_and_kill_and_goes_with_reset() -> Result<()> {
    let net = Topology::new("an exposed host is kept")?.hosts(2)?;
    let (_web, db) = net.web_and_db(&[])?;
    let address = expose(net.host(0), &["--masquerade"])?;
    db.ping(&address)?;
    let before = rules(net.host(0))?;
    net.host(0).stop()?;
    ensure!(net.host(0).namespace().ports()?.len() == 1, "the interface went with the daemon");
    net.host(0).launch(&["node02"])?;
    db.ping(&address)?;
    net.host(0).kill_dead()?;
    net.host(0).launch(&["node02"])?;
    db.ping(&address)?;
    ensure!(rules(net.host(0))? == before, "the rules are others: {}", rules(net.host(0))?);

    // As after a boot: neither interface nor rules.
    net.host(0).stop()?;
    net.host(0).namespace().ip("link delete mesh0")?;
    net.host(0).tool("nft").words("flush ruleset").run()?;
    net.host(0).launch(&["node02"])?;
    db.ping(&address)?;
    ensure!(rules(net.host(0))? == before, "the rules are others: {}", rules(net.host(0))?);

    net.host(0).tool("nft").words("add table ip theirs").run()?;
    net.host(0).run(&["reset"])?;
    ensure!(net.host(0).namespace().ports()?.is_empty(), "the interface is still there");
    let left = rules(net.host(0))?;
    ensure!(left.split_whitespace().collect::<String>() == "tableiptheirs{}", "what is left: {left}");
    Ok(())
}

/// A machine that is no host of the cluster, on a wire of its own to `host`.
fn outside(host: &Host) -> Result<Container> {
    let outside = Container::new("outside")?;
    let pid = outside.pid().unwrap_or_default();
    host.namespace().ip(&format!("link add name eth1 type veth peer name eth0 netns {pid}"))?;
    host.namespace().ip("address add 198.51.100.1/24 dev eth1")?;
    host.namespace().ip("link set dev eth1 up")?;
    outside.namespace().ip(&format!("address add {OUTSIDE}/24 dev eth0"))?;
    outside.namespace().ip("link set dev eth0 up")?;
    Ok(outside)
}

const OUTSIDE: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 9));

fn route_by(container: &Container, router: std::net::IpAddr) -> Result<()> {
    container.namespace().ip(&format!("route replace default via {router}")).map(drop)
}

#[test]
fn nothing_passes_an_exposed_host_unless_that_is_asked_for() -> Result<()> {
    let net = Topology::new("exposed, not a way out")?.hosts(2)?;
    let (_web, db) = net.web_and_db(&[])?;
    let outside = outside(net.host(0))?;
    // As on a host with Docker.
    net.host(0).namespace().sysctl("net/ipv4/ip_forward", "1")?;
    let address = expose(net.host(0), &[])?;
    route_by(&db, address)?;
    outside.namespace().ip("route add 10.32.0.0/12 via 198.51.100.1")?;
    db.no_ping(&OUTSIDE, secs(1))?;
    outside.no_ping(&db, secs(1))?;

    net.host(0).run(&["hide"])?;
    let address = expose(net.host(0), &["--route"])?;
    route_by(&db, address)?;
    db.ping(&OUTSIDE)?;
    outside.ping_within(&db, secs(2))?;
    seen_from_outside(outside.namespace(), &db, db.address)
}

/// Fails unless what `db` sends arrives at the outside machine from this address.
fn seen_from_outside(outside: &Namespace, db: &Attached, from: std::net::IpAddr) -> Result<()> {
    let capture = netns_tests::Capture::start(outside, "eth0", "icmp", &std::env::temp_dir())?;
    db.ping(&OUTSIDE)?;
    let text = capture.stop()?;
    ensure!(text.contains(&format!("{from} > {OUTSIDE}")), "not from {from}: {text}");
    Ok(())
}

#[test]
fn masquerading_needs_no_route_back_in_either_direction() -> Result<()> {
    let net = Topology::new("masquerade")?.hosts(2)?;
    let (_web, db) = net.web_and_db(&[])?;
    let outside = outside(net.host(0))?;
    net.host(0).namespace().sysctl("net/ipv4/ip_forward", "0")?;
    let address = expose(net.host(0), &["--masquerade"])?;
    route_by(&db, address)?;
    // The outside machine knows no way to the overlay, and answers the host.
    db.ping(&OUTSIDE)?;
    seen_from_outside(outside.namespace(), &db, "198.51.100.1".parse()?)?;
    let server = IperfServer::start(outside.namespace(), &OUTSIDE)?;
    server.measure(db.namespace(), Transport::TCP, secs(1), "")?;

    // Other machines reach containers through the host, and containers need no way out for that.
    db.namespace().ip("route delete default")?;
    outside.namespace().ip("route add 10.32.0.0/12 via 198.51.100.1")?;
    outside.ping_within(&db, secs(2)).map(drop)
}

#[test]
fn an_internal_network_has_no_way_out() -> Result<()> {
    let net = Topology::new("expose on an internal network")?.hosts(2)?;
    net.web_and_db(&[])?;
    net.host(0).run(&["network", "create", "inside", "--internal", "--subnet", "10.99.0.0/24"])?;
    for flag in ["--masquerade", "--route"] {
        let said = net.host(0).meshnet(&["expose", "--network", "inside", flag])?.fails_with(1)?;
        ensure!(said.contains("internal"), "it says: {said}");
    }
    ensure!(net.host(0).namespace().ports()?.is_empty() && rules(net.host(0))?.is_empty(), "half done");
    let container = Container::new("c1")?;
    let attached = net.host(1).attach_with(&container, &["--network", "inside"])?;
    let address = expose(net.host(0), &["--network", "inside"])?;
    attached.ping(&address)?;

    // On two networks the host is no way from one to the other, whatever it forwards.
    let other = expose(net.host(0), &["--masquerade"])?;
    let db = net.host(1).attach("db2")?;
    db.ping(&other)?;
    net.host(0).namespace().sysctl("net/ipv4/ip_forward", "1")?;
    route_by(&db, other)?;
    db.no_ping(&attached, secs(1))?;
    net.host(0).run(&["hide", "--network", "inside"])?;
    net.host(0).run(&["hide"]).map(drop)
}

#[test]
fn a_range_that_overlaps_a_route_is_an_error() -> Result<()> {
    let net = Topology::new("expose over a route")?.hosts(2)?;
    net.web_and_db(&[])?;
    net.host(0).namespace().ip("route add 10.40.0.0/16 dev eth0")?;
    let said = net.host(0).meshnet(&["expose"])?.fails_with(1)?;
    ensure!(said.contains("10.40.0.0/16") && said.contains("eth0"), "it says: {said}");
    ensure!(net.host(0).namespace().ports()?.is_empty() && rules(net.host(0))?.is_empty(), "half done");
    ensure!(exposed(net.host(0)).is_err(), "an endpoint without an interface");
    net.host(0).namespace().ip("route delete 10.40.0.0/16 dev eth0")?;
    expose(net.host(0), &[])?;
    let unknown = net.host(0).meshnet(&["expose", "--network", "nowhere"])?.fails_with(1)?;
    ensure!(unknown.contains("nowhere"), "it says: {unknown}");
    net.host(0).meshnet(&["expose", "--route", "--masquerade"])?.fails_with(2)?;
    net.host(0).meshnet(&["hide", "--network", "nowhere"])?.fails_with(1).map(drop)
}
