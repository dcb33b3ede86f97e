//! A network is made once and is there on every host; whoever is on it reaches whoever else is, and nobody else.

use netns_tests::{
    Attached, Capture, Container, Host, Result, Topology, Value, bail, ensure, json, ping_all_pairs, secs,
    wait_for, wait_until,
};

/// How long it may take until all hosts know a thing.
const AT_ONCE: f64 = 1.0;

fn three_hosts(promise: &str) -> Result<Topology> {
    let net = Topology::new(promise)?.hosts(3)?;
    net.host(0).launch(&[])?;
    net.host(1).launch(&["node01"])?;
    net.host(2).launch(&["node01"])?;
    net.wait_converged(secs(10))?;
    net.host(0).attach("founder").map(drop)?;
    Ok(net)
}

/// Waits until each of the hosts has all of these networks, or none of them.
fn wait_listed(net: &Topology, networks: &[&str], listed: bool) -> Result<()> {
    let all = || {
        net.all().iter().all(|host| {
            let known = host.networks().unwrap_or_default();
            networks.iter().all(|network| known.iter().any(|name| name == network) == listed)
        })
    };
    wait_for(&format!("{networks:?} on all hosts: {listed}"), secs(AT_ONCE), all).map(drop)
}

fn nicknames(inspected: &Value) -> Vec<&str> {
    let peers = inspected.get("Peers").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    peers.iter().filter_map(|peer| peer.get("Name")?.as_str()).collect()
}

/// Whether a host says that it uses a network.
fn uses(host: &Host, network: &str) -> Result<bool> {
    let status = host.status()?;
    let all = status.get("networks").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let found = all.iter().find(|known| known.get("network").and_then(Value::as_str) == Some(network));
    Ok(found.and_then(|known| known.get("used")).and_then(Value::as_bool) == Some(true))
}

#[test]
fn made_on_one_host_it_is_on_all_at_once() -> Result<()> {
    let net = three_hosts("network create on one host")?;
    let id = net.host(0).run_line(
        "network create blue --subnet 10.99.0.0/16 --ip-range 10.99.8.0/24 --gateway 10.99.0.9 \
         --aux-address printer=10.99.8.1 --vni 7777 --mtu 1400 --label team=a -o colour=blue --internal",
    )?;
    wait_listed(&net, &["blue"], true)?;
    for host in net.all() {
        let blue = host.inspect("blue")?;
        let expected = [
            ("/Id", json!(id.trim())),
            ("/Driver", json!("meshnet")),
            ("/Scope", json!("global")),
            ("/EnableIPv6", json!(false)),
            ("/Internal", json!(true)),
            ("/IPAM/Config/0/Subnet", json!("10.99.0.0/16")),
            ("/IPAM/Config/0/IPRange", json!("10.99.8.0/24")),
            ("/IPAM/Config/0/Gateway", json!("10.99.0.9")),
            ("/IPAM/Config/0/AuxiliaryAddresses/printer", json!("10.99.8.1")),
            ("/VNI", json!(7777)),
            ("/MTU", json!(1400)),
            ("/Labels", json!({"team": "a"})),
            ("/Options", json!({"colour": "blue"})),
            ("/Containers", json!({})),
            ("/Peers", json!([])),
        ];
        for (at, value) in expected {
            ensure!(blue.pointer(at) == Some(&value), "{at} on {}: {blue}", host.name());
        }
        // By the beginning of its id, too.
        ensure!(host.inspect(&id[..8])? == blue, "its id means something else on {}", host.name());
    }

    let web = net.host(2).attach_to(&Container::new("web")?, "blue", &[])?;
    ensure!(web.prefix.starts_with("10.99.8.") && web.prefix.ends_with("/16"), "it has {}", web.prefix);
    ensure!(!web.prefix.starts_with("10.99.8.1/"), "it has the printer's address");
    let mtu = web.namespace().ip(&format!("link show dev {}", web.ifname))?;
    ensure!(mtu.contains("mtu 1400"), "{mtu}");
    wait_until("its container is shown on another host", secs(AT_ONCE), || {
        let blue = net.host(0).inspect("blue")?;
        ensure!(nicknames(&blue) == ["node03"], "{blue}");
        let members = blue.get("Containers").and_then(Value::as_object).cloned().unwrap_or_default();
        let Some(shown) = members.values().next() else { bail!("nobody is on it") };
        ensure!(shown.get("IPv4Address").and_then(Value::as_str) == Some(&web.prefix), "{shown}");
        ensure!(shown.get("MacAddress").and_then(Value::as_str) == Some(&web.mac), "{shown}");
        Ok(())
    })
}

#[test]
fn lists_are_filtered_and_formatted() -> Result<()> {
    let net = Topology::new("network ls")?.hosts(2)?;
    let host = net.host(0);
    host.launch(&[])?;
    host.run_line("network create blue --subnet 10.99.0.0/16 --vni 7777 --label team=a")?;
    let id = host.run_line("network create red --label team=b --label old")?;
    let says = |line: &str, expected: &str| {
        let said = host.run_line(line)?;
        ensure!(said == expected, "`{line}` says {said:?}");
        Ok(())
    };
    says("network ls --format {{.Name}}", "blue\nmesh\nred\n")?;
    says("network ls --filter label=team=a --format {{.Name}}/{{.Driver}}/{{.VNI}}", "blue/meshnet/7777\n")?;
    says("network ls --filter name=re -q", &format!("{}\n", &id[..12]))?;
    says("network ls --filter name=re -q --no-trunc", &id)?;
    says("network ls --filter label=old --filter type=custom --format {{.Labels}}", "old=,team=b\n")?;
    says("network ls --filter driver=bridge -q", "")?;
    let table = host.run_line("network ls")?;
    ensure!(table.starts_with("NETWORK ID    NAME  DRIVER   SCOPE"), "{table}");
    let listed = host.run_json(&["network", "ls"])?;
    let names: Vec<_> = listed.as_array().into_iter().flatten().filter_map(|n| n.get("network")).collect();
    ensure!(names == ["blue", "mesh", "red"], "{names:?}");
    Ok(())
}

#[test]
fn nobody_reaches_another_network_whatever_addresses_they_set() -> Result<()> {
    let net = three_hosts("isolation")?;
    net.host(0).run_line("network create blue --subnet 10.98.0.0/16")?;
    net.host(1).run_line("network create red --subnet 10.99.0.0/16")?;
    wait_listed(&net, &["blue", "red"], true)?;
    // Nobody is held at the port: what keeps them apart is that they are on different networks.
    let on = |host: usize, name: &str, network: &str| {
        net.host(host).attach_to(&Container::new(name)?, network, &["--no-spoof-check"])
    };
    let blue = [on(0, "blue1", "blue")?, on(1, "blue2", "blue")?];
    let red = [on(0, "red1", "red")?, on(1, "red2", "red")?];
    ping_all_pairs(&blue.each_ref())?;
    ping_all_pairs(&red.each_ref())?;
    // Each red one takes an address beside the blue ones, and a blue one's own name for it: the MAC address.
    for (number, intruder) in red.iter().enumerate() {
        let dev = &intruder.ifname;
        intruder.namespace().ip(&format!("address add 10.98.77.{}/16 dev {dev}", number + 1))?;
    }
    for intruder in &red {
        for owner in &blue {
            intruder.no_ping(owner, secs(1))?;
            let neighbour =
                format!("neigh replace {} lladdr {} dev {}", owner.address, owner.mac, intruder.ifname);
            intruder.namespace().ip(&neighbour)?;
            intruder.no_ping(owner, secs(1))?;
        }
    }
    for owner in &blue {
        for intruder in ["10.98.77.1", "10.98.77.2"] {
            owner.no_ping(&intruder.parse::<std::net::IpAddr>()?, secs(1))?;
        }
    }
    ping_all_pairs(&blue.each_ref())
}

#[test]
fn a_container_is_on_many_networks_with_an_interface_each() -> Result<()> {
    let net = three_hosts("many networks")?;
    for network in ["blue", "red", "green"] {
        net.host(0).run_line(&format!("network create {network} --ipv6"))?;
    }
    wait_listed(&net, &["blue", "red", "green"], true)?;
    let web = Container::new("web")?;
    let connect =
        |network: &str| net.host(1).run(&["network", "connect", network, &web.reference(), "--name", "web"]);
    let mut addresses: Vec<String> = Vec::new();
    for network in ["mesh", "blue", "red", "green"] {
        addresses.extend(connect(network)?.lines().map(str::to_owned));
    }
    ensure!(addresses.len() == 7, "not one of IPv4 and, but on mesh, one of IPv6 each: {addresses:?}");
    ensure!(
        web.namespace().ports()? == ["mesh0", "mesh1", "mesh2", "mesh3"],
        "{:?}",
        web.namespace().ports()?
    );
    for (at, network) in ["mesh", "blue", "red", "green"].into_iter().enumerate() {
        let friend = net.host(2).attach_to(&Container::new("friend")?, network, &[])?;
        web.ping(&friend)?;
        let told = net.host(1).attach_to(&web, network, &[])?;
        ensure!(told.ifname == format!("mesh{at}"), "on {network} it has {}", told.ifname);
        friend.ping(&told)?;
    }
    net.host(1).run(&["network", "disconnect", "red", &web.reference()])?;
    ensure!(web.namespace().ports()? == ["mesh0", "mesh1", "mesh3"], "{:?}", web.namespace().ports()?);
    let gone = net.host(1).meshnet(&["network", "disconnect", "red", &web.reference()])?.fails_with(1)?;
    ensure!(gone.contains("is not on the network red"), "{gone}");
    net.host(1).run(&["network", "disconnect", "-f", "red", &web.reference()])?;
    net.host(1).run(&["network", "disconnect", "--force", "red", "no-such-container"]).map(drop)
}

#[test]
fn a_network_is_in_the_switch_from_the_first_port_to_the_last() -> Result<()> {
    let net = three_hosts("plumbed on first use")?;
    net.host(0).run_line("network create blue")?;
    wait_listed(&net, &["blue"], true)?;
    let web = net.host(1).attach_to(&Container::new("web")?, "blue", &[])?;
    let db = net.host(1).attach_to(&Container::new("db")?, "blue", &[])?;
    let used = || -> Result<Vec<bool>> { net.all().iter().map(|host| uses(host, "blue")).collect() };
    wait_until("one host uses it", secs(AT_ONCE), || {
        ensure!(used()? == [false, true, false], "used by {:?}", used()?);
        Ok(())
    })?;
    net.host(1).run(&["network", "disconnect", "blue", &web.reference()])?;
    ensure!(used()? == [false, true, false], "used by {:?}", used()?);
    db.kill()?;
    wait_until("nobody uses it", secs(5), || {
        ensure!(used()? == [false; 3], "used by {:?}", used()?);
        ensure!(nicknames(&net.host(0).inspect("blue")?).is_empty(), "node01 thinks otherwise");
        Ok(())
    })
}

#[test]
fn a_network_in_use_stays_and_says_by_whom() -> Result<()> {
    let net = three_hosts("network rm while in use")?;
    net.host(0).run_line("network create blue")?;
    net.host(0).run_line("network create red")?;
    wait_listed(&net, &["blue", "red"], true)?;
    let web = net.host(1).attach_to(&Container::new("web")?, "blue", &[])?;
    wait_for("its container is known", secs(AT_ONCE), || net.host(2).ps_row("web").is_ok())?;
    // Of several, those go that can.
    let refused = net.host(2).meshnet(&["network", "rm", "blue", "red"])?;
    ensure!(refused.stdout == "red\n", "it removed {:?}", refused.stdout);
    let why = refused.fails_with(1)?;
    ensure!(why.contains("blue") && why.contains("web on node02"), "{why}");
    let why = net.host(2).meshnet(&["network", "rm", "mesh"])?.fails_with(1)?;
    ensure!(why.contains("mesh"), "{why}");
    wait_listed(&net, &["red"], false)?;
    net.host(1).run(&["network", "disconnect", "blue", &web.reference()])?;
    wait_until("it can go", secs(AT_ONCE), || net.host(2).run_line("network rm blue"))?;
    wait_listed(&net, &["blue"], false)?;
    // The name is free for another one.
    net.host(0).run_line("network create blue --subnet 10.77.0.0/16")?;
    let again = net.host(0).attach_to(&web, "blue", &[])?;
    ensure!(again.prefix.starts_with("10.77."), "it has {}", again.prefix);
    Ok(())
}

#[test]
fn prune_removes_what_nobody_uses() -> Result<()> {
    let net = three_hosts("network prune")?;
    for line in ["blue --label keep", "red", "green --label old=yes"] {
        net.host(0).run_line(&format!("network create {line}"))?;
    }
    wait_listed(&net, &["blue", "red", "green"], true)?;
    let _web = net.host(1).attach_to(&Container::new("web")?, "red", &[])?;
    wait_for("its container is known", secs(AT_ONCE), || net.host(2).ps_row("web").is_ok())?;
    let prunes = |line: &str, expected: &str| {
        let said = net.host(2).run_line(line)?;
        ensure!(said == expected, "`{line}` removed {said:?}");
        Ok(())
    };
    prunes("network prune --filter until=1h", "")?;
    prunes("network prune --filter label=old=yes", "green\n")?;
    prunes("network prune --filter label!=keep", "")?;
    prunes("network prune", "blue\n")?;
    wait_listed(&net, &["blue", "green"], false)?;
    wait_listed(&net, &["red", "mesh"], true)
}

#[test]
fn of_removal_and_connect_at_once_the_endpoint_wins() -> Result<()> {
    let net = three_hosts("network rm against connect")?;
    net.host(0).run_line("network create blue")?;
    wait_listed(&net, &["blue"], true)?;
    let friend = net.host(1).attach_to(&Container::new("friend")?, "blue", &[])?;
    net.host(1).run(&["network", "disconnect", "blue", &friend.reference()])?;
    wait_for("nobody is on it", secs(AT_ONCE), || {
        net.host(0).inspect("blue").is_ok_and(|blue| blue.get("Containers") == Some(&json!({})))
    })?;
    net.cut(0, 1)?;
    net.cut(2, 1)?;
    let web = net.host(1).attach_to(&Container::new("web")?, "blue", &[])?;
    net.host(0).run_line("network rm blue")?;
    net.mend()?;
    wait_until("it is back", secs(15), || wait_listed(&net, &["blue"], true))?;
    let db = wait_until("it works", secs(5), || net.host(0).attach_to(&Container::new("db")?, "blue", &[]))?;
    ping_all_pairs(&[&web, &db])
}

#[test]
fn ports_on_many_networks_outlive_the_daemon() -> Result<()> {
    let net = three_hosts("ports of many networks survive")?;
    for network in ["blue", "red"] {
        net.host(0).run_line(&format!("network create {network}"))?;
    }
    wait_listed(&net, &["blue", "red"], true)?;
    let (web, db) = (Container::new("web")?, Container::new("db")?);
    let networks = ["mesh", "blue", "red"];
    let on = |host: usize, container: &Container| -> Result<Vec<Attached>> {
        networks.iter().map(|network| net.host(host).attach_to(container, network, &[])).collect()
    };
    let (before, friends) = (on(0, &web)?, on(1, &db)?);
    for end in [Host::kill_dead, Host::stop] {
        end(net.host(0))?;
        ensure!(web.namespace().ports()?.len() == 3, "interfaces went with the daemon");
        net.host(0).launch(&[])?;
        for (own, friend) in before.iter().zip(&friends) {
            web.ping_within(friend, secs(2))?;
            db.ping(own)?;
        }
        let after = on(0, &web)?;
        let told = |all: &[Attached]| all.iter().map(|attached| attached.told.clone()).collect::<Vec<_>>();
        ensure!(told(&after) == told(&before), "{:?} became {:?}", told(&before), told(&after));
    }
    Ok(())
}

/// Two halves that make networks without knowing of each other, then meet.
fn halves(promise: &str, first: &str, second: &str) -> Result<(Topology, Attached, Attached)> {
    let net = Topology::new(promise)?.hosts(2)?;
    net.host(0).launch(&[])?;
    net.host(1).launch(&["node01"])?;
    let _both = (net.host(0).attach("a")?, net.host(1).attach("b")?);
    net.wait_converged(secs(10))?;
    net.cut(0, 1)?;
    let made = |host: usize, line: &str| {
        net.host(host).run_line(&format!("network create {line}"))?;
        let network = line.split_whitespace().next().unwrap_or_default();
        net.host(host).attach_to(&Container::new(&format!("on-{network}-{host}"))?, network, &[])
    };
    let (one, other) = (made(0, first)?, made(1, second)?);
    net.mend()?;
    wait_until("they meet", secs(20), || net.wait_converged(secs(1)))?;
    Ok((net, one, other))
}

#[test]
fn the_same_number_made_twice_is_told_apart_and_the_interface_stays() -> Result<()> {
    let (net, one, other) = halves("a number made twice", "blue --vni 7777", "red --vni 7777")?;
    let number = |host: usize, network: &str| -> Result<Option<u64>> {
        Ok(net.host(host).inspect(network)?.get("VNI").and_then(Value::as_u64))
    };
    let numbers = [number(0, "blue")?, number(0, "red")?];
    ensure!(numbers == [number(1, "blue")?, number(1, "red")?], "the hosts differ");
    ensure!(numbers[0] != numbers[1] && numbers.contains(&Some(7777)), "{numbers:?}");
    for (attached, network, elsewhere) in [(&one, "blue", 1), (&other, "red", 0)] {
        ensure!(attached.namespace().ports()? == ["mesh0"], "an interface went");
        let address = attached.namespace().ip("-brief address show dev mesh0")?;
        ensure!(address.contains(&attached.prefix), "{address}");
        let friend = net.host(elsewhere).attach_to(&Container::new("friend")?, network, &[])?;
        ping_all_pairs(&[attached, &friend])?;
    }
    Ok(())
}

#[test]
fn one_name_made_twice_alike_is_one_network() -> Result<()> {
    let (net, one, other) = halves(
        "a name made twice, alike",
        "blue --subnet 10.99.0.0/16 --ip-range 10.99.0.0/24",
        "blue --subnet 10.99.0.0/16 --ip-range 10.99.0.0/24",
    )?;
    for host in net.all() {
        ensure!(host.networks()? == ["blue", "mesh"], "{} has {:?}", host.name(), host.networks()?);
    }
    wait_until("they reach each other", secs(15), || {
        let now = |attached: &Attached, host: usize| net.host(host).attach_to(attached, "blue", &[]);
        let (one, other) = (now(&one, 0)?, now(&other, 1)?);
        ensure!(one.address != other.address, "both have {}", one.address);
        one.ping_within(&other, secs(1)).map(drop)
    })
}

#[test]
fn one_name_made_twice_differently_is_two_networks() -> Result<()> {
    let (net, one, other) =
        halves("a name made twice, differently", "blue --subnet 10.98.0.0/16", "blue --subnet 10.99.0.0/16")?;
    let names = net.host(0).networks()?;
    ensure!(names == net.host(1).networks()?, "the hosts differ");
    let [winner, loser, mesh] = names.as_slice() else { bail!("{names:?}") };
    ensure!(
        winner == "blue" && loser.starts_with("blue~") && loser.len() == 11 && mesh == "mesh",
        "{names:?}"
    );
    let events = net.host(0).status()?.get("events").map(Value::to_string).unwrap_or_default();
    ensure!(events.contains(loser.as_str()), "nobody was told: {events}");
    for (host, attached) in [(0, &one), (1, &other)] {
        let subnet = attached.prefix.rsplit_once('/').map(|_| &attached.prefix[..6]).unwrap_or_default();
        let name = [winner, loser].into_iter().find(|name| {
            net.host(host)
                .inspect(name)
                .is_ok_and(|shown| shown.to_string().contains(&format!("{subnet}0.0/16")))
        });
        let Some(name) = name else { bail!("no network has {}", attached.prefix) };
        let friend = net.host(1 - host).attach_to(&Container::new("friend")?, name, &[])?;
        ping_all_pairs(&[attached, &friend])?;
    }
    Ok(())
}

#[test]
fn a_network_may_be_in_clear_in_a_cluster_that_seals() -> Result<()> {
    let net = Topology::new("network create --encrypted=false")?.hosts(2)?;
    let _sealed = net.sealed_web_and_db(&[])?;
    net.host(0).run_line("network create open --encrypted=false --vni 7771")?;
    net.host(0).run_line("network create closed --vni 7772")?;
    let encrypted = |network: &str| -> Result<Option<Value>> {
        Ok(net.host(1).inspect(network)?.get("Encrypted").cloned())
    };
    wait_until("both are known", secs(AT_ONCE), || {
        let both = [encrypted("open")?, encrypted("closed")?];
        ensure!(both == [Some(json!(false)), Some(json!(true))], "{both:?}");
        Ok(())
    })?;
    let host = net.host(1);
    let capture = Capture::start(host.namespace(), host.interface(), "udp port 4789", net.directory())?;
    for network in ["open", "closed"] {
        let on = |host: usize| net.host(host).attach_to(&Container::new(network)?, network, &[]);
        ping_all_pairs(&[&on(0)?, &on(1)?])?;
    }
    let seen = capture.stop()?;
    ensure!(seen.contains("vni 7771"), "nothing of the open network was in clear: {seen:.2000}");
    ensure!(!seen.contains("vni 7772"), "something of the closed network was in clear: {seen:.2000}");
    Ok(())
}
