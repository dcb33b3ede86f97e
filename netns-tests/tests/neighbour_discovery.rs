//! Who has this IPv6 address? The switch answers at once, and tells whoever wants to take an address that it is taken.

use std::net::{IpAddr, Ipv6Addr};

use netns_tests::{
    Attached, Capture, Container, Result, Topology, Value, anyhow, ensure, pause, secs, wait_for, wait_until,
};

const GATEWAY: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x99, 0, 0, 0, 0, 0, 1);
/// Of that subnet, and nobody's.
const FREE: &str = "fd00:99::ffff:9";

/// Two hosts with a container each on a network of IPv6 and IPv4.
fn pair(promise: &str, prepare: impl Fn(&Container) -> Result<()>) -> Result<(Topology, Attached, Attached)> {
    let net = Topology::new(promise)?.hosts(2)?;
    net.host(0).launch(&[])?;
    net.host(1).launch(&["node01"])?;
    net.host(0).run_line("network create blue --subnet 10.99.0.0/16 --subnet fd00:99::/64")?;
    let attach = |index: usize, name| {
        let container = Container::new(name)?;
        prepare(&container)?;
        wait_until("the network is known", secs(5), || net.host(index).attach_to(&container, "blue", &[]))
    };
    let (web, db) = (attach(0, "web")?, attach(1, "db")?);
    Ok((net, web, db))
}

/// The IPv6 address of a container on the network.
fn sixth(of: &Attached) -> Result<IpAddr> {
    let found = of.addresses()?.into_iter().find(IpAddr::is_ipv6);
    found.ok_or_else(|| anyhow!("{} has no IPv6 address", of.name()))
}

/// Looks for duplicates before an address is used, as all but test beds do (`ip-sysctl.rst`, `accept_dad`).
fn look_for_duplicates(container: &Container) -> Result<()> {
    for (setting, value) in [("accept_dad", "1"), ("dad_transmits", "1")] {
        container.namespace().sysctl(&format!("net/ipv6/conf/default/{setting}"), value)?;
    }
    Ok(())
}

/// The flags of an address inside, as `ip` tells them: `tentative`, `dadfailed`; none when it is not there.
fn flags(of: &Attached, address: &str) -> Result<Option<Vec<String>>> {
    let interfaces = of.namespace().interfaces()?;
    let infos = interfaces.iter().filter_map(|row| row.get("addr_info")?.as_array()).flatten();
    let mut found = infos.filter(|info| info.get("local").and_then(Value::as_str) == Some(address));
    Ok(found.next().and_then(Value::as_object).map(|info| {
        info.iter().filter(|(_, value)| **value == Value::Bool(true)).map(|(flag, _)| flag.clone()).collect()
    }))
}

#[test]
fn the_switch_answers_for_the_gateway_and_for_containers() -> Result<()> {
    let (net, web, db) = pair("neighbour discovery stays at home", |_| Ok(()))?;
    let filter = format!("udp port 4789 and src host {}", net.host(0).address());
    let capture = Capture::start(net.host(0).namespace(), net.host(0).interface(), &filter, net.directory())?;
    for to in [IpAddr::from(GATEWAY), sixth(&db)?] {
        web.ping(&to)?;
        let known = web.namespace().ip(&format!("-6 neigh show {to} dev {}", web.ifname))?;
        let mac = if to == GATEWAY { "02:6d:65" } else { db.mac.as_str() };
        ensure!(known.contains(&format!("lladdr {mac}")), "{to}: {known}");
    }
    let seen = capture.stop()?;
    ensure!(seen.contains("ICMP6, echo request"), "nothing was captured: {seen:.2000}");
    ensure!(
        !seen.contains("solicitation") && !seen.contains("advertisement"),
        "it was asked outside: {seen}"
    );
    net.all().iter().try_for_each(|host| host.wait_balanced(secs(5)))
}

#[test]
fn whoever_takes_an_address_that_is_taken_is_told() -> Result<()> {
    let (net, web, db) = pair("duplicate address detection", look_for_duplicates)?;
    // Nobody stands in the way of the addresses they were given.
    for container in [&web, &db] {
        let own = sixth(container)?.to_string();
        wait_for(&format!("{own} is used"), secs(3), || {
            flags(container, &own)
                .is_ok_and(|flags| flags.is_some_and(|flags| !flags.contains(&"tentative".into())))
        })?;
    }
    web.ping(&sixth(&db)?)?;
    let near = net.host(0).attach_to(&Container::new("near")?, "blue", &[])?;
    let taken = [sixth(&db)?, sixth(&near)?, GATEWAY.into()].map(|address| address.to_string());
    for address in &taken {
        web.namespace().ip(&format!("address add {address}/64 dev {}", web.ifname))?;
        wait_until(&format!("{address} is found to be taken"), secs(3), || {
            let flags = flags(&web, address)?.unwrap_or_default();
            ensure!(flags.contains(&"dadfailed".to_owned()), "{flags:?}");
            Ok(())
        })?;
    }
    web.namespace().ip(&format!("address add {FREE}/64 dev {}", web.ifname))?;
    pause(secs(3));
    let found = flags(&web, FREE)?;
    let is_used =
        found.as_ref().is_some_and(|flags| flags.iter().all(|it| it != "tentative" && it != "dadfailed"));
    ensure!(is_used, "an address that nobody has: {found:?}");
    web.namespace().ip(&format!("address del {FREE}/64 dev {}", web.ifname))?;
    // Whoever had them has them still.
    web.ping(&sixth(&db)?)?;
    db.ping(&sixth(&near)?)?;
    db.ping(&IpAddr::from(GATEWAY))
}
