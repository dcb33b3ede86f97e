//! A network at rest floods nothing, and costs next to nothing.

use netns_tests::{Attached, Capture, Container, Host, Result, Topology, Value, anyhow, ensure, pause, secs};

/// Bytes in a second that a host may send at rest, everything counted.
const BYTES_PER_SECOND: f64 = 5000.0;

/// VXLAN: bit 0x08 of the first byte behind the UDP header. Probes and handshakes have it clear.
const FRAMES: &str = "udp port 4789 and udp[8] & 0x08 != 0";

/// How large it is: hosts, containers on each, seconds.
fn size() -> (u8, usize, f64) {
    match std::env::var_os("MESHNET_QUIET") {
        // 50 containers on 5 hosts for a minute.
        Some(_) => (5, 10, 60.0),
        None => (3, 3, 10.0),
    }
}

/// A container as an engine makes it: its kernel looks for routers and for duplicates of its addresses.
fn container(name: &str) -> Result<Container> {
    let container = Container::new(name)?;
    for (setting, value) in [("accept_dad", "1"), ("dad_transmits", "1"), ("router_solicitations", "-1")] {
        container.namespace().sysctl(&format!("net/ipv6/conf/default/{setting}"), value)?;
    }
    Ok(container)
}

/// How many bytes a host has sent.
fn sent(host: &Host) -> Result<u64> {
    let text = host.namespace().ip(&format!("-json -statistics link show dev {}", host.interface()))?;
    let rows: Value = text.parse()?;
    rows.pointer("/0/stats64/tx/bytes")
        .and_then(Value::as_u64)
        .ok_or_else(|| anyhow!("no counters in {text}"))
}

#[test]
fn a_network_at_rest_floods_nothing() -> Result<()> {
    let (hosts, containers, seconds) = size();
    let net = Topology::new("a network at rest")?.hosts(hosts)?;
    net.host(0).launch(&[])?;
    net.all()[1..].iter().try_for_each(|host| host.launch(&["node01"]))?;
    let mut attached: Vec<Attached> = Vec::new();
    for (number, host) in net.all().iter().enumerate() {
        for own in 0..containers {
            let name = format!("c{number}-{own}");
            attached.push(host.attach_with(&container(&name)?, &[])?);
        }
    }
    for to in &attached[1..] {
        attached[0].ping(to)?;
    }
    net.wait_converged(secs(30))?;
    // What a kernel says of a new interface is said: probes for duplicates and reports of groups, twice each.
    pause(secs(12.0));

    let capture = |host: &Host| Capture::start(host.namespace(), host.interface(), FRAMES, net.directory());
    let captures: Vec<_> = net.all().iter().map(capture).collect::<Result<_>>()?;
    let before: Vec<u64> = net.all().iter().map(sent).collect::<Result<_>>()?;
    pause(secs(seconds));
    let after: Vec<u64> = net.all().iter().map(sent).collect::<Result<_>>()?;
    for (capture, host) in captures.into_iter().zip(net.all()) {
        let text = capture.stop_with("-e")?;
        let count = text.lines().filter(|line| line.contains("VXLAN")).count();
        ensure!(count == 0, "{}: {count} frames: {text:.1000}", host.name());
    }
    for ((before, after), host) in before.iter().zip(&after).zip(net.all()) {
        let rate = (after - before) as f64 / seconds;
        println!("{}: {rate:.0} bytes a second", host.name());
        ensure!(rate < BYTES_PER_SECOND, "{} sends {rate:.0} bytes a second at rest", host.name());
    }
    let solicitations = net.host(0).dropped("router_solicitation")?;
    ensure!(solicitations > 0, "the containers looked for no router: this is no test");
    Ok(())
}
