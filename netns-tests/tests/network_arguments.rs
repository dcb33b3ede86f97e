//! Every wrong argument of `meshnet network` is refused by its name, and nothing is changed by it.

use netns_tests::{Container, Host, Result, Topology, Value, ensure};

/// What may change when something is done: the networks, the endpoints, and what all hosts agree on.
fn state(host: &Host) -> Result<(Value, Value, Option<Value>)> {
    let hash = host.status()?.get("state_hash").cloned();
    Ok((host.run_json(&["network", "ls"])?, host.run_json(&["ps"])?, hash))
}

/// Fails unless each line is refused with this exit code in words that have the argument, and nothing changes.
fn refused(host: &Host, code: i32, lines: &[(&str, &str)]) -> Result<()> {
    let before = state(host)?;
    for (line, argument) in lines {
        let words: Vec<_> = std::iter::once("network").chain(line.split_whitespace()).collect();
        let said = host.meshnet(&words)?.fails_with(code)?;
        ensure!(said.contains(argument), "`meshnet network {line}` does not name {argument}: {said}");
        if code == 1 {
            ensure!(said.trim_end().lines().count() == 1, "not one line: {said}");
        }
    }
    let after = state(host)?;
    ensure!(after == before, "something changed: {before:?} became {after:?}");
    Ok(())
}

/// The code of the failure in JSON.
fn code(host: &Host, line: &str) -> Result<String> {
    let words: Vec<_> = line.split_whitespace().chain(["-o", "json"]).collect();
    let said: Value = serde_json::from_str(&host.meshnet(&words)?.fails_with(1)?)?;
    Ok(said.pointer("/error/code").and_then(Value::as_str).unwrap_or_default().to_owned())
}

fn one_host() -> Result<Topology> {
    let net = Topology::new("wrong arguments of networks")?.hosts(2)?;
    net.host(0).launch(&[])?;
    net.host(0).run_line("network create blue --subnet 10.99.0.0/16 --vni 7777")?;
    Ok(net)
}

#[test]
fn what_makes_no_sense_by_itself_is_bad_usage() -> Result<()> {
    let net = one_host()?;
    let lines = [
        ("", "Usage"),
        ("creat red", "creat"),
        ("create", "NAME"),
        ("create -- -red", "NAME"),
        ("create re/d", "NAME"),
        ("create re.d", "NAME"),
        ("create red green", "green"),
        // Subnets.
        ("create red --subnet", "--subnet"),
        ("create red --subnet 10.1.0.0", "--subnet"),
        ("create red --subnet 10.1.0.1/16", "--subnet"),
        ("create red --subnet 10.1.0.0/33", "--subnet"),
        ("create red --subnet 10.1.0.0/31", "--subnet"),
        ("create red --subnet 224.0.0.0/16", "--subnet"),
        ("create red --subnet 127.0.0.0/16", "--subnet"),
        ("create red --subnet fe80::/64", "--subnet"),
        ("create red --subnet fd00::1/64", "--subnet"),
        ("create red --subnet 10.1.0.0/16 --subnet 10.1.2.0/24", "--subnet"),
        // What belongs to a subnet.
        ("create red --ip-range 10.1.0.0/24", "--subnet"),
        ("create red --gateway 10.1.0.1", "--subnet"),
        ("create red --aux-address a=10.1.0.2", "--subnet"),
        ("create red --subnet 10.1.0.0/16 --ip-range 10.2.0.0/24", "--ip-range 10.2.0.0/24"),
        ("create red --subnet 10.1.0.0/16 --ip-range 10.0.0.0/8", "--ip-range 10.0.0.0/8"),
        ("create red --subnet 10.1.0.0/16 --ip-range 10.1.0.7/24", "--ip-range"),
        ("create red --subnet 10.1.0.0/16 --ip-range 10.1.0.0/32", "--ip-range"),
        ("create red --subnet 10.1.0.0/16 --gateway 10.2.0.1", "--gateway 10.2.0.1"),
        ("create red --subnet 10.1.0.0/16 --gateway fd00::1", "--gateway fd00::1"),
        ("create red --subnet 10.1.0.0/16 --gateway 10.1.0.0", "--gateway"),
        ("create red --subnet 10.1.0.0/16 --gateway 10.1.255.255", "--gateway"),
        ("create red --subnet 10.1.0.0/16 --gateway nonsense", "--gateway"),
        ("create red --subnet 10.1.0.0/16 --gateway 10.1.0.1 --gateway 10.1.0.2", "--gateway 10.1.0.2"),
        ("create red --subnet 10.1.0.0/16 --aux-address 10.1.0.2", "--aux-address"),
        ("create red --subnet 10.1.0.0/16 --aux-address a=10.2.0.2", "--aux-address a=10.2.0.2"),
        ("create red --subnet 10.1.0.0/16 --aux-address a=10.1.0.1", "--aux-address"),
        (
            "create red --subnet 10.1.0.0/16 --aux-address a=10.1.0.2 --aux-address a=10.1.0.3",
            "--aux-address",
        ),
        (
            "create red --subnet 10.1.0.0/16 --aux-address a=10.1.0.2 --aux-address b=10.1.0.2",
            "--aux-address",
        ),
        // The rest.
        ("create red --vni 0", "--vni"),
        ("create red --vni 1", "--vni"),
        ("create red --vni 16777216", "--vni"),
        ("create red --vni x", "--vni"),
        ("create red --mtu 500", "--mtu"),
        ("create red --mtu 70000", "--mtu"),
        ("create red --ipv6 --mtu 1279", "--mtu"),
        ("create red --encrypted=maybe", "--encrypted"),
        ("create red --label =x", "--label"),
        ("create red --label a=1 --label a=2", "--label"),
        ("create red -o =x", "--opt"),
        ("create red -o a=1 -o a=2", "--opt"),
        ("ls --filter", "--filter"),
        ("ls --filter colour=red", "--filter"),
        ("ls --filter dangling=maybe", "--filter"),
        ("ls --format {{.Colour}}", "--format"),
        ("ls --format {{.Name}} --quiet", "--format"),
        ("inspect", "NET"),
        ("connect", "NET"),
        ("connect blue", "CONTAINER"),
        ("connect blue pid:1 --ip fd00::1", "--ip"),
        ("connect blue pid:1 --ip6 10.99.0.2", "--ip6"),
        ("connect blue pid:1 --mac 01:00:5e:00:00:01", "--mac"),
        ("disconnect blue", "CONTAINER"),
        ("rm", "NET"),
        ("prune --filter name=x", "--filter"),
        ("prune --filter until=soon", "--filter"),
    ];
    refused(net.host(0), 2, &lines)
}

#[test]
fn what_does_not_fit_to_what_is_there_is_refused() -> Result<()> {
    let net = one_host()?;
    let host = net.host(0);
    let lines = [
        ("create blue", "blue"),
        ("create mesh", "mesh"),
        ("create red --subnet 10.99.0.0/16", "--subnet 10.99.0.0/16"),
        ("create red --subnet 10.99.7.0/24", "blue"),
        ("create red --subnet 10.96.0.0/12", "--subnet 10.96.0.0/12"),
        ("create red --subnet 10.32.0.0/16", "mesh"),
        ("create red --subnet 192.0.2.0/24", "--subnet"),
        ("create red --vni 7777", "--vni 7777"),
        ("create red --encrypted", "--encrypted"),
        ("inspect red", "red"),
        ("inspect blue red", "red"),
        ("rm red", "red"),
        ("rm mesh", "mesh"),
        ("connect red pid:1", "red"),
        ("disconnect red pid:1", "red"),
        ("disconnect blue no-such-container", "no-such-container"),
    ];
    refused(host, 1, &lines)?;
    for (line, expected) in [
        ("network create blue", "network_exists"),
        ("network create red --subnet 10.99.7.0/24", "subnet_overlaps"),
        ("network create red --subnet 192.0.2.0/24", "range_unusable"),
        ("network create red --vni 7777", "vni_in_use"),
        ("network create red --encrypted", "bad_network"),
        ("network inspect red", "unknown_network"),
        ("network rm mesh", "network_predefined"),
        ("network disconnect blue no-such-container", "not_connected"),
    ] {
        let code = code(host, line)?;
        ensure!(code == expected, "`{line}` fails with {code}");
    }
    Ok(())
}

#[test]
fn an_address_of_another_network_is_refused_and_leaves_no_interface() -> Result<()> {
    let net = one_host()?;
    let host = net.host(0);
    let (web, other) = (Container::new("web")?, Container::new("other")?);
    let web = host.attach_to(&web, "blue", &["--ip", "10.99.0.7"])?;
    let reference = other.reference();
    let connect = |options: &str| format!("connect blue {reference} --name other {options}");
    let (taken, foreign, gateway) = ("--ip 10.99.0.7", "--ip 10.32.0.7", "--ip 10.99.0.1");
    let sixth = "--ip6 fd00::7";
    let mac = format!("--mac {}", web.mac);
    let lines = [
        (connect(taken), "10.99.0.7"),
        (connect(foreign), "10.32.0.7"),
        (connect(gateway), "gateway"),
        (connect(sixth), "fd00::7"),
        (connect(&mac), "MAC"),
        (connect("").replace("--name other", "--name web"), "web"),
        (format!("connect blue {}  --name web --ip 10.99.0.8", web.reference()), "--ip"),
    ];
    let lines: Vec<_> = lines.iter().map(|(line, argument)| (line.as_str(), *argument)).collect();
    refused(host, 1, &lines)?;
    ensure!(other.namespace().ports()?.is_empty(), "a refused container got a port");
    ensure!(web.namespace().ports()? == [web.ifname.clone()], "a refusal changed the container");
    // What is on it already is asked for again.
    let again = host.run(&["network", "connect", "blue", &web.reference(), "--ip", "10.99.0.7"])?;
    ensure!(again.trim() == web.prefix, "it says {again}");
    Ok(())
}

#[test]
fn a_network_in_use_is_not_removed() -> Result<()> {
    let net = one_host()?;
    let host = net.host(0);
    let _web = host.attach_to(&Container::new("web")?, "blue", &[])?;
    refused(host, 1, &[("rm blue", "web on node01")])?;
    let code = code(host, "network rm blue")?;
    ensure!(code == "network_in_use", "it fails with {code}");
    Ok(())
}
