//! What cannot be attached is refused in one line that says what, why and what to do, and changes nothing.

use std::path::Path;

use netns_tests::{Attached, Container, Host, Result, Topology, Value, ensure, secs, wait_for};

/// Fails unless the command fails with exit code 1, one line that has all of `words`, and this code in JSON.
fn refused(host: &Host, args: &[&str], code: &str, words: &[&str]) -> Result<()> {
    let line = host.meshnet(args)?.fails_with(1)?;
    ensure!(line.trim_end().lines().count() == 1, "not one line: {line}");
    for word in words {
        ensure!(line.contains(word), "{word:?} is not in: {line}");
    }
    let object = host.meshnet(&[args, &["-o", "json"]].concat())?.fails_with(1)?;
    let object: Value = serde_json::from_str(&object)?;
    let told = object.pointer("/error/code").and_then(Value::as_str).unwrap_or_default().to_owned();
    ensure!(told == code, "the code is {told}, not {code}: {object}");
    ensure!(object.pointer("/error/message").is_some_and(Value::is_string), "no message: {object}");
    ensure!(object.pointer("/error/hint").is_some(), "no hint: {object}");
    Ok(())
}

fn one_host() -> Result<(Topology, Attached)> {
    let net = Topology::new("refusals")?.hosts(2)?;
    net.host(0).launch(&[])?;
    let web = net.host(0).attach("web")?;
    Ok((net, web))
}

#[test]
fn a_container_that_is_none() -> Result<()> {
    let (net, _web) = one_host()?;
    let host = net.host(0);
    let dead = Container::new("dead")?;
    let reference = dead.reference();
    dead.kill()?;
    refused(host, &["attach", &reference], "no_such_process", &[])?;
    refused(host, &["attach", "pid:4194303"], "no_such_process", &["4194303"])?;
    refused(host, &["attach", "netns:no-such-namespace"], "not_a_namespace", &["no-such-namespace"])?;
    for path in ["/etc/hostname", "/dev/null", "/proc/self/ns/uts", "/", "/no/such/path", "./relative"] {
        refused(host, &["attach", path], "not_a_namespace", &[])?;
    }
    host.set_environment("DOCKER_HOST", "unix:///no/such/docker.sock");
    host.stop()?;
    host.launch(&[])?;
    refused(host, &["attach", "no-such-container"], "docker_unavailable", &["Docker"])?;
    ensure!(host.ps()?.len() == 1, "a refusal left something behind: {:?}", host.ps()?);
    Ok(())
}

#[test]
fn the_hosts_own_network() -> Result<()> {
    let (net, _web) = one_host()?;
    let host = net.host(0);
    let process = host.tool("cat").start()?;
    refused(host, &["attach", &format!("pid:{}", process.pid())], "host_network", &[])?;
    let path = host.namespace().path().display().to_string();
    refused(host, &["attach", &path], "host_network", &[])?;
    ensure!(host.namespace().ports()?.is_empty(), "the host got a port");
    Ok(())
}

#[test]
fn a_name_in_use() -> Result<()> {
    let (net, web) = one_host()?;
    let other = Container::new("other")?;
    refused(net.host(0), &["attach", &other.reference(), "--name", "web"], "name_in_use", &["web"])?;
    // On another host the name may be shared.
    net.host(1).launch(&["node01"])?;
    let shared = net.host(1).attach("web")?;
    shared.ping(&web)?;
    ensure!(other.namespace().ports()?.is_empty(), "a refused container got a port");
    Ok(())
}

#[test]
fn an_address_that_cannot_be_had() -> Result<()> {
    let (net, web) = one_host()?;
    net.host(1).launch(&["node01"])?;
    let other = Container::new("other")?;
    let reference = other.reference();
    let used = web.address.to_string();
    for host in net.all() {
        host.wait("ipam", secs(10))?;
        let attach = |address: &'static str| {
            ["attach", &reference, "--name", "other", "--ip", address].map(str::to_owned)
        };
        let refused = |address: &'static str, code: &str, words: &[&str]| {
            let args = attach(address);
            refused(host, &args.each_ref().map(String::as_str), code, words)
        };
        refused("192.168.7.7", "address_outside_range", &["192.168.7.7", "10.32.0.0/12"])?;
        refused("10.48.0.1", "address_outside_range", &["10.48.0.1"])?;
        refused("10.32.0.0", "address_reserved", &["network"])?;
        refused("10.47.255.255", "address_reserved", &["broadcast"])?;
        refused("10.32.0.1", "address_reserved", &["gateway"])?;
    }
    for host in net.all() {
        let args = ["attach", &reference, "--name", "other", "--ip", &used];
        wait_for("the holder is known", secs(5), || host.ps_row("web").is_ok())?;
        refused(host, &args, "address_in_use", &[&used, "web"])?;
    }
    ensure!(other.namespace().ports()?.is_empty(), "a refused container got a port");
    ensure!(net.host(0).ps()?.len() == 1, "a refusal left something behind");
    Ok(())
}

#[test]
fn other_options_than_it_is_attached_with() -> Result<()> {
    let (net, web) = one_host()?;
    let host = net.host(0);
    let reference = web.reference();
    ensure!(host.attach_with(&web, &[])?.told == web.told, "attaching again tells something else");
    let same = host.attach_with(&web, &["--ip", &web.address.to_string()])?;
    ensure!(same.told == web.told, "attaching again with the same address tells something else");
    refused(host, &["attach", &reference, "--name", "web", "--ip", "10.32.77.7"], "already_attached", &[])?;
    refused(host, &["attach", &reference, "--name", "another"], "already_attached", &[])?;
    ensure!(web.namespace().ports()? == [web.ifname.clone()], "a refusal changed the container");
    Ok(())
}

#[test]
fn an_interface_name_in_use() -> Result<()> {
    let (net, _web) = one_host()?;
    let other = Container::new("other")?;
    other.namespace().ip("link add name mesh0 type bridge")?;
    let args = ["attach", &other.reference(), "--ifname", "mesh0"].map(str::to_owned);
    refused(net.host(0), &args.each_ref().map(String::as_str), "ifname_in_use", &["mesh0"])?;
    // Not asked for by name, it takes the next one.
    let attached = net.host(0).attach_with(&other, &[])?;
    ensure!(attached.ifname == "mesh1", "it is called {}", attached.ifname);
    Ok(())
}

#[test]
fn bad_usage_is_exit_code_two() -> Result<()> {
    let net = Topology::new("bad usage")?.hosts(2)?;
    let host = net.host(0);
    for line in [
        "",
        "atach web",
        "attach",
        "attach web --ip nonsense",
        "attach web --mac 01:00:5e:00:00:01",
        "attach web --ifname a-name-far-too-long",
        "launch --ipalloc-range 10.32.0.1/12",
        "launch --port 99999",
        "launch --no-such-flag",
        "connect",
        "status nonsense",
        "status --wait nonsense",
        "vtep add nonsense",
    ] {
        let args: Vec<_> = line.split_whitespace().collect();
        let said = host.meshnet(&args)?.fails_with(2)?;
        ensure!(!said.trim().is_empty(), "`meshnet {line}` says nothing");
    }
    ensure!(!Path::new(&host.state_dir()).exists() && host.daemon_pid().is_none(), "bad usage did something");
    Ok(())
}
