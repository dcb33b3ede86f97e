//! Between two addresses that both hosts trust, frames need no seal; what one of them does not trust is sealed. Who knows
//! nothing of seals has no part in a sealed network.

use std::net::IpAddr;

use netns_tests::{
    Addressed, Attached, Capture, Host, KernelVtep, Result, Tool, Topology, Value, ensure, ethernet, secs,
    vxlan, wait_for, wait_until,
};

/// In every ping.
const MARKER: &str = "meshnet-marker!!";
/// Where all hosts are.
const SUBNET: &str = "192.0.2.0/24";
/// An address that is not there.
const ELSEWHERE: &str = "203.0.113.9";
/// How long a host may need until it has asked whether the other one trusts it too.
const PATIENCE: f64 = 15.0;

/// What a host says of another one: how frames go there, and who trusts the way.
fn way(host: &Host, other: &str) -> Result<(String, String)> {
    let peers = host.run_json(&["status", "peers"])?;
    let rows = peers.as_array().map(Vec::as_slice).unwrap_or_default();
    let row = rows.iter().find(|row| row.get("nickname").and_then(Value::as_str) == Some(other));
    let text = |at: &str| row.and_then(|row| row.pointer(at)?.as_str()).unwrap_or_default().to_owned();
    ensure!(row.is_some(), "{} does not know {other}: {peers}", host.name());
    Ok((text("/path/kind"), text("/trust")))
}

fn wait_way(host: &Host, other: &str, kind: &str, trust: &str) -> Result<()> {
    wait_until(&format!("{} has a {kind} way to {other}", host.name()), secs(PATIENCE), || {
        let way = way(host, other)?;
        ensure!(way == (kind.to_owned(), trust.to_owned()), "{way:?}");
        Ok(())
    })
}

/// Two hosts with a secret that send each other frames in clear, a container on each; the first has a further address,
/// [`ELSEWHERE`], which the second can reach.
fn trusting(net: &Topology) -> Result<(Attached, Attached)> {
    let files = net.share_secret()?;
    let (first, second) = (net.host(0), net.host(1));
    first.namespace().ip(&format!("address add {ELSEWHERE}/32 dev lo"))?;
    second.namespace().ip(&format!("route add {ELSEWHERE}/32 dev eth0"))?;
    first.launch(&["--secret-file", &files[0], "--trusted-subnets", SUBNET])?;
    second.launch(&["node01", "--secret-file", &files[1], "--trusted-subnets", SUBNET])?;
    let (web, db) = (first.attach("web")?, second.attach("db")?);
    web.ping(&db)?;
    wait_way(first, "node02", "plain", "both")?;
    wait_way(second, "node01", "plain", "both")?;
    Ok((web, db))
}

/// Whether the marker is seen on the underlay of `host` while one container says it to another.
fn overheard(net: &Topology, host: &Host, from: &Attached, to: &Attached) -> Result<bool> {
    let capture = Capture::start(host.namespace(), host.interface(), "udp port 4789", net.directory())?;
    let pattern: String = MARKER.bytes().map(|byte| format!("{byte:02x}")).collect();
    let ping = format!("-c 3 -i 0.2 -W 2 -p {pattern} {}", to.address());
    Tool::new("ping").words(&ping).inside(from.namespace()).run()?;
    let seen = capture.stop_with("-vvA")?;
    ensure!(seen.matches("UDP").count() >= 6, "nothing was seen: {seen:.500}");
    Ok(seen.contains(&MARKER[..8]))
}

#[test]
fn in_a_subnet_that_both_hosts_trust_frames_go_in_clear_and_elsewhere_sealed() -> Result<()> {
    let net = Topology::new("trusted subnets")?.hosts(3)?;
    let files = net.share_secret()?;
    let trusting = ["--trusted-subnets", "fd00::/8,192.0.2.0/24", "--secret-file"];
    let [first, second, third] = [net.host(0), net.host(1), net.host(2)];
    first.launch(&[&trusting[..], &[&files[0]]].concat())?;
    second.launch(&[&["node01"], &trusting[..], &[&files[1]]].concat())?;
    third.launch(&["node01", "--secret-file", &files[2]])?;
    let (web, db, cache) = (first.attach("web")?, second.attach("db")?, third.attach("cache")?);
    net.wait_converged(secs(10))?;
    for [one, other] in [[&web, &db], [&web, &cache], [&db, &cache]] {
        one.ping(other)?;
    }
    wait_way(first, "node02", "plain", "both")?;
    wait_way(second, "node01", "plain", "both")?;
    ensure!(overheard(&net, first, &web, &db)?, "it was not in clear");

    // The third host does not trust them. Sealed wins, and all are told.
    for (host, other) in [(first, "node03"), (second, "node03"), (third, "node01"), (third, "node02")] {
        wait_way(host, other, "sealed", "differ")?;
        ensure!(host.tells("trust_differs"), "{} was not told", host.name());
    }
    ensure!(!overheard(&net, first, &web, &cache)?, "it was in clear");
    ensure!(!overheard(&net, third, &cache, &db)?, "it was in clear");
    for host in net.all() {
        ensure!(host.dropped("plain_on_sealed")? == 0, "{}: {:?}", host.name(), host.drops()?);
        host.wait_balanced(secs(5))?;
    }
    let sealing = first.status()?.pointer("/sealing/trusted_subnets").cloned();
    ensure!(sealing == Some(Value::from(vec!["fd00::/8", SUBNET])), "{sealing:?}");
    Ok(())
}

#[test]
fn who_trusts_a_subnet_and_seals_nothing_is_warned() -> Result<()> {
    let net = Topology::new("trusted for nothing")?.hosts(1)?;
    let host = net.host(0);
    let launched = host.try_launch(&["--trusted-subnets", SUBNET])?;
    ensure!(launched.code == Some(0), "{launched:?}");
    ensure!(launched.stderr.contains("--trusted-subnets has no effect"), "{}", launched.stderr);
    ensure!(host.warnings("trust_unused")?.len() == 1, "{}", host.status()?);
    Ok(())
}

#[test]
fn a_host_that_leaves_the_trusted_subnet_seals_at_once() -> Result<()> {
    let net = Topology::new("out of the trusted subnet")?.hosts(2)?;
    let (web, db) = trusting(&net)?;
    let (first, second) = (net.host(0), net.host(1));
    first.namespace().ip(&format!("route replace {SUBNET} dev eth0 src {ELSEWHERE}"))?;
    wait_for("the next frame is sealed", secs(1.0), || {
        way(first, "node02").is_ok_and(|(kind, _)| kind == "sealed")
    })?;
    web.ping_within(&db, secs(PATIENCE))?;
    ensure!(!overheard(&net, first, &web, &db)?, "it was in clear");
    wait_way(second, "node01", "sealed", "both")
}

#[test]
fn what_is_sent_to_an_address_that_nobody_trusts_is_no_frame_of_a_sealed_network() -> Result<()> {
    let net = Topology::new("an address that is not trusted")?.hosts(2)?;
    let (web, db) = trusting(&net)?;
    let (first, second) = (net.host(0), net.host(1));
    // From the address that is trusted: anybody may forge that, who is where nobody looks at it.
    let frame = vxlan(1, &ethernet([0xff; 6], [2, 0, 0, 0, 0, 9], 0x88b5, &[0; 46]));
    let send = |to: &str| {
        second.namespace().send_datagrams((to.parse::<IpAddr>()?, 4789).into(), std::slice::from_ref(&frame))
    };
    send(ELSEWHERE)?;
    wait_until("it is dropped", secs(5), || {
        ensure!(first.dropped("plain_on_sealed")? == 1, "{:?}", first.drops()?);
        Ok(())
    })?;
    send(&first.address().to_string())?;
    ensure!(overheard(&net, second, &db, &web)?, "it was not in clear");
    ensure!(first.dropped("plain_on_sealed")? == 1, "where all is trusted it is taken: {:?}", first.drops()?);
    first.wait_balanced(secs(5))
}

#[test]
fn who_is_trusted_by_one_host_alone_gets_sealed_frames() -> Result<()> {
    let net = Topology::new("trust that is not returned")?.hosts(2)?;
    let files = net.share_secret()?;
    net.host(0).launch(&["--secret-file", &files[0], "--trusted-subnets", "0.0.0.0/0,::/0"])?;
    // It trusts the other host, and not itself.
    let only = format!("{}/32", net.host(0).address());
    net.host(1).launch(&["node01", "--secret-file", &files[1], "--trusted-subnets", &only])?;
    let (web, db) = (net.host(0).attach("web")?, net.host(1).attach("db")?);
    web.ping(&db)?;
    for (host, other) in [(net.host(0), "node02"), (net.host(1), "node01")] {
        wait_way(host, other, "sealed", "differ")?;
        wait_for("it is told", secs(5), || host.tells("trust_differs"))?;
    }
    ensure!(!overheard(&net, net.host(0), &web, &db)?, "it was in clear");
    ensure!(!overheard(&net, net.host(1), &db, &web)?, "it was in clear");
    let wrong = net.host(0).try_launch(&["--trusted-subnets", "192.0.2.7/24"])?.fails_with(2)?;
    ensure!(wrong.contains("192.0.2.0/24"), "{wrong}");
    Ok(())
}

#[test]
fn an_external_vtep_has_no_part_in_a_sealed_network() -> Result<()> {
    let net = Topology::new("a VTEP and a secret")?.hosts(2)?;
    let files = net.share_secret()?;
    let (host, outside) = (net.host(0), net.host(1));
    host.launch(&[])?;
    let web = host.attach("web")?;
    let at = outside.address().to_string();
    host.vtep_add(&at)?;
    let vtep = KernelVtep::new(outside, &[host])?;
    let kernel = vtep.container("kernel", "10.47.0.9/12")?;
    web.ping(&kernel)?;

    // The cluster gets a secret: it stays declared, and is shut out.
    host.stop()?;
    host.launch(&["--secret-file", &files[0]])?;
    wait_for("people are told", secs(5), || host.tells("vtep_shut_out"))?;
    let capture =
        Capture::start(outside.namespace(), "eth0", "udp port 4789 and dst port 4789", net.directory())?;
    web.no_ping(&kernel, secs(2.0))?;
    kernel.no_ping(&web, secs(2.0))?;
    let seen = capture.stop()?;
    let from_host = format!("IP {}.", host.address());
    ensure!(!seen.contains(&from_host), "it is sent something: {seen}");
    ensure!(host.dropped("plain_on_sealed")? > 0, "{:?}", host.drops()?);
    host.wait_balanced(secs(5))?;
    let refused = host.meshnet(&["-o", "json", "vtep", "add", "192.0.2.77"])?.fails_with(1)?;
    ensure!(refused.contains("network_sealed") && refused.contains("--encryption off"), "{refused}");
    host.run(&["vtep", "rm", &at])?;
    let left = host.run_json(&["vtep", "ls"])?;
    ensure!(left.as_array().is_some_and(Vec::is_empty), "{left}");
    Ok(())
}
