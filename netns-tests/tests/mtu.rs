//! Paths that carry less than the network's packets: traffic goes on in smaller pieces, senders are told, and nothing stalls.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test sends datagrams of its own sizes"
)]

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use netns_tests::{
    Attached, Container, Error, Host, IperfReport, IperfServer, Result, Stopwatch, Tool, Topology, Transport,
    Value, Wire, anyhow, bail, ensure, pause, secs, wait_for, wait_until,
};

/// The longest pause of a stream whose path changes.
const MOST: Duration = Duration::from_secs(2);
/// How often iperf3 tells what has arrived.
const INTERVAL: Duration = Duration::from_millis(500);

#[test]
fn all_kinds_of_packets_pass_an_underlay_of_1280() -> Result<()> {
    let net = Topology::new("underlay of 1280")?.mtu(1280).hosts(2)?;
    net.host(0).launch(&[])?;
    net.host(1).launch(&["node01"])?;
    let (web, db) = unchecked(&net)?;
    narrowed(&net, &web, &db, 1230)
}

#[test]
fn all_kinds_of_packets_pass_a_sealed_underlay_of_1280() -> Result<()> {
    let net = Topology::new("sealed, underlay of 1280")?.wire(Wire::Nic).mtu(1280).hosts(2)?;
    let secrets = net.share_secret()?;
    net.host(0).launch(&["--secret-file", &secrets[0]])?;
    net.host(1).launch(&["node01", "--secret-file", &secrets[1]])?;
    let (web, db) = unchecked(&net)?;
    narrowed(&net, &web, &db, 1198)
}

/// A container on each host that may have other addresses than those it was given.
fn unchecked(net: &Topology) -> Result<(Attached, Attached)> {
    let attach =
        |index: usize, name| net.host(index).attach_with(&Container::new(name)?, &["--no-spoof-check"]);
    let (web, db) = (attach(0, "web")?, attach(1, "db")?);
    web.ping(&db)?;
    Ok((web, db))
}

/// What holds between two containers of a larger network whose path carries packets of `mtu` bytes.
fn narrowed(net: &Topology, web: &Attached, db: &Attached, mtu: u16) -> Result<()> {
    wait_until("the path is measured", secs(5), || path_is(net.host(0), mtu))?;
    wait_until("from the other side too", secs(5), || path_is(net.host(1), mtu))?;
    let warnings = net.host(0).status()?.get("warnings").map(Value::to_string).unwrap_or_default();
    ensure!(warnings.contains("small_path") && warnings.contains("node02"), "status warns: {warnings}");

    web.ping_whole(db, usize::from(mtu) - 28)?;
    let told = db.namespace().ping_once(web, &format!("-W 1 -M do -s {}", mtu - 27))?;
    ensure!(
        told.stdout.contains("From 10.32.0.1") && told.stdout.contains(&format!("mtu = {mtu}")),
        "{}",
        told.stdout
    );
    // A network of 1450 or 1418 bytes: the container's own kernel leaves them whole.
    db.namespace().ping_in_fragments(web, 1300)?;
    db.namespace().ping_in_fragments(web, 4000)?;

    both_ways(web, db, "")?;
    udp(web, db, true)?;
    udp(db, web, false)?;

    let (web6, db6) = (sixth(web, 1)?, sixth(db, 2)?);
    web.namespace().ping_within(&db6, secs(3))?;
    let server = IperfServer::start(db.namespace(), &db6)?;
    fast_enough(&server.measure(web.namespace(), Transport::TCP, secs(1), "")?)?;
    fast_enough(&server.measure(web.namespace(), Transport::TCP, secs(1), "-R")?)?;
    // What every link has to carry passes whole; the sender fragments what is larger.
    web.namespace().ping_whole(&db6, 1232)?;
    wait_until("fragments of IPv6 arrive once the sender was told", MOST, || {
        db.namespace().ping_once(&web6, "-W 1 -s 3000")?.ok()
    })?;
    udp_between(web, db, db6, true)?;
    let status = net.host(0).status()?;
    ensure!(status.pointer("/dataplane/conservation/difference") == Some(&0.into()), "{status}");
    Ok(())
}

fn path_is(host: &Host, mtu: u16) -> Result<()> {
    let status = host.status()?;
    let told = status.pointer("/peers/0/path/mtu").and_then(Value::as_u64);
    ensure!(told == Some(mtu.into()), "the path of {} carries {told:?}", host.name());
    Ok(())
}

/// Gives a container an IPv6 address beside its own.
fn sixth(container: &Attached, last: u8) -> Result<IpAddr> {
    let address = format!("fd00:6::{last}");
    container.namespace().ip(&format!("address add {address}/64 dev {} nodad", container.ifname))?;
    Ok(address.parse()?)
}

fn both_ways(web: &Attached, db: &Attached, options: &str) -> Result<()> {
    let server = IperfServer::start(db.namespace(), db)?;
    fast_enough(&server.measure(web.namespace(), Transport::TCP, secs(1), options)?)?;
    fast_enough(&server.measure(web.namespace(), Transport::TCP, secs(1), &format!("-R {options}"))?)
}

/// TCP whose segments are lost for their size lives on retransmissions, and does not get there.
fn fast_enough(report: &IperfReport) -> Result<()> {
    let speed = report.bits_per_second()?;
    ensure!(speed > 20e6, "{speed:.0} bit/s, {:?} retransmits", report.retransmits());
    Ok(())
}

fn udp(from: &Attached, to: &Attached, dont_fragment: bool) -> Result<()> {
    udp_between(from, to, to.address, dont_fragment)
}

/// Datagrams that are too big for the path arrive: with "don't fragment" once the sender was told, without it all of them.
fn udp_between(from: &Attached, to: &Attached, address: IpAddr, dont_fragment: bool) -> Result<()> {
    from.namespace().sysctl("net/ipv4/ip_no_pmtu_disc", if dont_fragment { "0" } else { "1" })?;
    from.namespace().ip("route flush cache")?;
    let any: IpAddr = if address.is_ipv4() { [0, 0, 0, 0].into() } else { [0; 16].into() };
    let receiver = to.namespace().run(|| UdpSocket::bind((any, 7777)))??;
    receiver.set_read_timeout(Some(secs(0.2)))?;
    let sender = from.namespace().run(|| UdpSocket::bind((any, 0)))??;
    let clock = Stopwatch::start();
    let mut buffer = [0; 2000];
    let payload: Vec<u8> = (0..1340).map(|at| at as u8).collect();
    while clock.elapsed() < MOST {
        // The kernel tells here what it was told of the datagram before.
        let _ = sender.send_to(&payload, (address, 7777));
        match receiver.recv(&mut buffer) {
            Ok(len) if buffer[..len] == payload => return Ok(()),
            Ok(len) => bail!("{len} bytes arrived, and not those that were sent"),
            Err(error) if dont_fragment => drop(error),
            Err(error) => return Err(error.into()),
        }
    }
    bail!("nothing of 1340 bytes arrived at {address} within {MOST:?}")
}

#[test]
fn full_packets_pass_an_underlay_of_1500() -> Result<()> {
    let net = Topology::new("underlay of 1500")?.hosts(2)?;
    let (web, db) = net.web_and_db(&[])?;
    wait_until("the path is measured", secs(5), || path_is(net.host(0), 1450))?;
    web.ping_whole(&db, 1422)?;
    both_ways(&web, &db, "")?;
    let warnings = net.host(0).status()?.get("warnings").map(Value::to_string).unwrap_or_default();
    ensure!(!warnings.contains("small_path"), "{warnings}");
    Ok(())
}

#[test]
fn jumbo_packets_pass_an_underlay_of_9000() -> Result<()> {
    let net = Topology::new("underlay of 9000")?.wire(Wire::Nic).mtu(9000).hosts(2)?;
    let (web, db) = net.web_and_db_alike(&["--mtu", "8950"])?;
    wait_until("the path is measured", secs(5), || path_is(net.host(0), 8950))?;
    web.ping_whole(&db, 8922)?;
    both_ways(&web, &db, "")
}

#[test]
fn networks_have_packets_of_their_own_sizes_on_one_path() -> Result<()> {
    let net = Topology::new("networks of 1300, 1450 and 8950")?.hosts(2)?;
    let (web, db) = net.web_and_db(&[])?;
    let [small, large] = [("small", 1300), ("large", 8950)].map(|(network, mtu)| {
        net.host(0).run_line(&format!("network create {network} --ipv6 --mtu {mtu}"))?;
        let join = |index: usize, container: &Attached| {
            wait_until("the network is known", secs(5), || {
                net.host(index).attach_to(container, network, &["--no-spoof-check"])
            })
        };
        Ok::<_, Error>((join(0, &web)?, join(1, &db)?))
    });
    // What the network has passes, what it has not does not leave the container.
    let (near, far) = small?;
    let (_, far6) = sixths(&near, &far)?;
    near.ping(&far)?;
    near.ping_whole(&far, 1272)?;
    near.namespace().ping_within(&far6, secs(3))?;
    near.namespace().ping_whole(&far6, 1252)?;
    refused_inside(&near, &far, 1273, 1300)?;
    both_ways(&near, &far, "")?;
    let server = IperfServer::start(far.namespace(), &far6)?;
    fast_enough(&server.measure(near.namespace(), Transport::TCP, secs(1), "")?)?;
    drop(server);

    // What the path does not carry goes in pieces, on the network that has such packets and on no other.
    let (near, far) = large?;
    let (_, far6) = sixths(&near, &far)?;
    near.ping(&far)?;
    wait_until("the path is measured", secs(5), || path_is(net.host(0), 1450))?;
    wait_until("from the other side too", secs(5), || path_is(net.host(1), 1450))?;
    let warned = net.host(0).warnings("small_path")?;
    ensure!(warned.len() == 1 && warned[0].contains("large"), "{warned:?}");
    both_ways(&near, &far, "")?;
    near.namespace().ping_in_fragments(&far, 8900)?;
    near.ping_whole(&far, 1422)?;
    let server = IperfServer::start(far.namespace(), &far6)?;
    fast_enough(&server.measure(near.namespace(), Transport::TCP, secs(1), "")?)?;
    fast_enough(&server.measure(near.namespace(), Transport::TCP, secs(1), "-R")?)?;
    web.ping_whole(&db, 1422)?;
    net.all().iter().try_for_each(|host| host.wait_balanced(secs(5)))
}

/// The IPv6 addresses that two containers were given.
fn sixths(near: &Attached, far: &Attached) -> Result<(IpAddr, IpAddr)> {
    let of = |container: &Attached| {
        let found = container.addresses()?.into_iter().find(IpAddr::is_ipv6);
        found.ok_or_else(|| anyhow!("{} has no IPv6 address", container.name()))
    };
    Ok((of(near)?, of(far)?))
}

/// The container's own kernel refuses so many bytes, as it knows the network's packets.
fn refused_inside(from: &Attached, to: &Attached, payload: usize, mtu: u16) -> Result<()> {
    let said = from.namespace().ping_once(to, &format!("-W 1 -M do -s {payload}"))?;
    let told = format!("{}{}", said.stdout, said.stderr);
    ensure!(said.code != Some(0) && told.contains(&format!("mtu={mtu}")), "{told}");
    Ok(())
}

#[test]
fn a_network_that_is_removed_leaves_paths_as_they_were() -> Result<()> {
    let net = Topology::new("a large network that goes")?.hosts(2)?;
    let (web, db) = net.web_and_db(&[])?;
    net.host(0).run_line("network create large --mtu 8950")?;
    let guest = net.host(0).attach_to(&Container::new("guest")?, "large", &[])?;
    wait_until("it is told that the path is small", secs(10), || {
        ensure!(net.host(0).warns("small_path"), "not yet");
        Ok(())
    })?;
    net.host(0).run_line(&format!("network disconnect large {}", guest.reference()))?;
    net.host(0).run_line("network rm large")?;
    wait_until("nothing is small any more", secs(5), || {
        ensure!(!net.host(0).warns("small_path"), "still");
        Ok(())
    })?;
    web.ping_whole(&db, 1422)?;
    both_ways(&web, &db, "")
}

#[test]
fn a_path_that_shrinks_without_a_word_stalls_nothing() -> Result<()> {
    let net = Topology::new("a switch on the way takes less")?.bridged().hosts(2)?;
    let (web, db) = net.web_and_db(&[])?;
    shrink_under_traffic(&net, &web, &db, 1230, || {
        let switch = net.unique_name("switch");
        for port in ["node01", "node02"] {
            Tool::new("ip").args(["-n", &switch]).words(&format!("link set dev {port} mtu 1280")).run()?;
        }
        Ok(())
    })
}

#[test]
fn a_jumbo_path_that_becomes_an_ordinary_one_stalls_nothing() -> Result<()> {
    let net = Topology::new("from 9000 to 1500 on the way")?.mtu(9000).bridged().hosts(2)?;
    let (web, db) = net.web_and_db_alike(&["--mtu", "8950"])?;
    wait_until("the path is measured", secs(5), || path_is(net.host(1), 8950))?;
    shrink_under_traffic(&net, &web, &db, 1450, || {
        let switch = net.unique_name("switch");
        for port in ["node01", "node02"] {
            Tool::new("ip").args(["-n", &switch]).words(&format!("link set dev {port} mtu 1500")).run()?;
        }
        Ok(())
    })
}

#[test]
fn a_device_of_the_host_that_shrinks_stalls_nothing() -> Result<()> {
    let net = Topology::new("the underlay's device takes less")?.wire(Wire::Nic).hosts(2)?;
    let (web, db) = net.sealed_web_and_db(&[])?;
    shrink_under_traffic(&net, &web, &db, 1198, || {
        net.all().iter().try_for_each(|host| host.namespace().ip("link set dev eth0 mtu 1280").map(drop))
    })
}

#[test]
fn ipv6_over_ipv6_stalls_on_no_path_that_shrinks_below_its_least_packet() -> Result<()> {
    let net = Topology::new("a shrinking path, IPv6 alone")?.bridged().hosts(2)?;
    net.all().iter().try_for_each(|host| host.namespace().ip("-4 address flush dev eth0").map(drop))?;
    net.host(0).launch(&[])?;
    net.host(1).launch(&[&format!("[{}]", net.host(0).address6())])?;
    net.host(0).run_line("network create blue --ipv6")?;
    let join = |index: usize, name| {
        let container = Container::new(name)?;
        wait_until("the network is known", secs(5), || net.host(index).attach_to(&container, "blue", &[]))
    };
    let (mut web, mut db) = (join(0, "web")?, join(1, "db")?);
    (web.address, db.address) = sixths(&web, &db)?;
    web.ping(&db)?;
    // Of 1280 bytes 70 are the headers of VXLAN over IPv6: no packet that IPv6 wants whole fits.
    shrink_under_traffic(&net, &web, &db, 1210, || {
        let switch = net.unique_name("switch");
        for port in ["node01", "node02"] {
            Tool::new("ip").args(["-n", &switch]).words(&format!("link set dev {port} mtu 1280")).run()?;
        }
        Ok(())
    })?;
    web.ping_whole(&db, 1232)?;
    db.ping_whole(&web, 1232)
}

/// A stream goes on while `shrink` makes its path one that carries packets of `mtu` bytes.
fn shrink_under_traffic(
    net: &Topology,
    web: &Attached,
    db: &Attached,
    mtu: u16,
    shrink: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let server = IperfServer::start(db.namespace(), db)?;
    // What the client receives is told in each interval.
    let stream = server.stream_with(web.namespace(), Transport::TCP, secs(6), "-R")?;
    pause(secs(2));
    shrink()?;
    wait_for("the path is known to be smaller", MOST, || path_is(net.host(1), mtu).is_ok())?;
    let report = stream.finish()?;
    let stall = longest_stall(&report)?;
    ensure!(stall <= MOST, "the stream stood still for {stall:?}: {:?}", arrived(&report)?);
    fast_enough(&report)?;
    drop(server);
    // The stream went one way: a path that nothing large goes along is looked at each ten seconds only.
    web.namespace().ping_once(db, "-c 40 -i 0.05 -s 1100")?;
    wait_until("from the other side too", secs(15), || path_is(net.host(0), mtu))?;
    both_ways(web, db, "")
}

/// The bytes of each interval.
fn arrived(report: &IperfReport) -> Result<Vec<u64>> {
    let intervals = report.json().get("intervals").and_then(Value::as_array).cloned().unwrap_or_default();
    ensure!(intervals.len() > 4, "no intervals in the report");
    Ok(intervals.iter().filter_map(|i| i.pointer("/sum/bytes").and_then(Value::as_u64)).collect())
}

fn longest_stall(report: &IperfReport) -> Result<Duration> {
    let bytes = arrived(report)?;
    let longest = bytes.split(|bytes| *bytes > 0).map(<[u64]>::len).max().unwrap_or_default();
    Ok(INTERVAL * u32::try_from(longest)?)
}
