//! Containers ask the gateway for every name, and what is not ours is asked for elsewhere.

use std::path::{Path, PathBuf};
use std::time::Duration;

use netns_tests::{
    Attached, Container, Docker, Host, NameServer, Namespace, Process, Result, Stopwatch, Tool, Topology,
    Value, ensure, secs, wait_for,
};

const GATEWAY: &str = "@10.32.0.1";
const NAMES: [(&str, u8); 2] = [("www.example.org", 2), ("big.example.org", 100)];

/// A file with these name servers, for `--resolv-conf`.
fn servers(host: &Host, servers: &[String]) -> Result<String> {
    let path = host.directory().join("resolv.conf");
    let lines: Vec<String> = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    std::fs::write(&path, lines.concat())?;
    Ok(path.display().to_string())
}

fn ask(container: &Attached, words: &str) -> Vec<String> {
    container.namespace().resolve(&format!("{GATEWAY} {words}"))
}

fn forwarded(host: &Host, what: &str) -> Result<u64> {
    let status = host.run_json(&["status", "dns"])?;
    Ok(status.pointer(&format!("/forwarded/{what}")).and_then(Value::as_u64).unwrap_or_default())
}

#[test]
fn other_names_are_asked_for_elsewhere() -> Result<()> {
    let net = Topology::new("names outside")?.hosts(2)?;
    let (host, outside) = (net.host(0), net.host(1));
    let server = NameServer::start(outside.namespace(), outside.address().into(), &NAMES)?;
    // Nobody has the first address: it is silent.
    let file = servers(host, &["192.0.2.250".to_owned(), outside.address().to_string()])?;
    host.launch(&["--resolv-conf", &file])?;
    let web = host.attach("web")?;

    let clock = Stopwatch::start();
    let first = ask(&web, "www.example.org A");
    ensure!(first == ["198.51.100.1", "198.51.100.2"], "{first:?}");
    ensure!(clock.elapsed() < secs(2), "the second server answered after {:?}", clock.elapsed());
    let (asked, clock) = (server.asked(), Stopwatch::start());
    ensure!(ask(&web, "WWW.example.org A") == first, "it changed");
    ensure!(server.asked() == asked, "it was asked for again");
    ensure!(clock.elapsed() < secs(0.5), "{:?}", clock.elapsed());
    ensure!(forwarded(host, "from_cache")? == 1, "{:?}", host.status());

    // Whether there is nothing of the kind or no such name is told, and kept.
    let said = |name: &str| web.namespace().dig(&format!("{GATEWAY} {name}"));
    let nothing = said("www.example.org AAAA")?;
    ensure!(nothing.contains("NOERROR") && nothing.contains("ANSWER: 0"), "{nothing}");
    ensure!(said("no.example.org A")?.contains("NXDOMAIN"), "it exists");
    let asked = server.asked();
    ensure!(said("no.example.org A")?.contains("NXDOMAIN"), "it exists");
    ensure!(server.asked() == asked, "it was asked for again");

    // What is too long for a datagram comes by TCP, all the way.
    let cut = said("+noedns +ignore big.example.org A")?;
    ensure!(cut.contains("flags: qr tc"), "{cut}");
    ensure!(ask(&web, "+noedns big.example.org A").len() == 100, "the answer is not whole");
    ensure!(ask(&web, "+tcp big.example.org A").len() == 100, "the answer is not whole");
    ensure!(ask(&web, "+bufsize=4096 big.example.org A").len() == 100, "the answer is not whole");

    // The file changes: the next question goes elsewhere.
    drop(server);
    servers(host, &[])?;
    ensure!(said("www.example.org A")?.contains("SERVFAIL"), "nobody knows it");
    // Names of the overlay go nowhere else.
    let before = forwarded(host, "asked")?;
    ensure!(ask(&web, "web A") == [web.address.to_string()], "{:?}", ask(&web, "web A"));
    ensure!(said("nobody.mesh.mesh.internal A")?.contains("NXDOMAIN"), "it exists");
    ensure!(forwarded(host, "asked")? == before, "it was asked for");
    Ok(())
}

#[test]
fn the_former_servers_of_a_container_are_asked_in_its_namespace() -> Result<()> {
    let net = Topology::new("servers of a container")?.hosts(1)?;
    let host = net.host(0);
    let file = servers(host, &[])?;
    host.launch(&["--resolv-conf", &file])?;
    let container = Container::named("own")?;
    let conf = conf_of(&container)?;
    std::fs::create_dir_all(conf.parent().unwrap_or(Path::new("/etc/netns")))?;
    std::fs::write(&conf, "nameserver 127.0.0.11\nsearch old.example\noptions ndots:1 edns0\n")?;
    let inside = NameServer::start(container.namespace(), "127.0.0.11".parse()?, &NAMES)?;
    let own = host.attach_with(&container, &[])?;
    let found = ask(&own, "www.example.org A");
    ensure!(found.len() == 2 && inside.asked() == 1, "{found:?}, asked {}", inside.asked());
    // Another container has other servers: none.
    let other = host.attach("other")?;
    ensure!(
        other.namespace().dig(&format!("{GATEWAY} www.example.org A"))?.contains("SERVFAIL"),
        "it is known"
    );

    // What the container's programs see, and what comes back.
    let text = std::fs::read_to_string(&conf)?;
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let expected = ["search mesh.mesh.internal old.example", "nameserver 10.32.0.1", "options ndots:1 edns0"];
    ensure!(lines == expected, "{text}");
    host.detach(&container)?;
    let text = std::fs::read_to_string(&conf)?;
    ensure!(text == "nameserver 127.0.0.11\nsearch old.example\noptions ndots:1 edns0\n", "{text}");
    Ok(())
}

#[test]
fn a_container_that_dies_while_it_asks_is_gone_at_once() -> Result<()> {
    let net = Topology::new("death with a question")?.hosts(1)?;
    let host = net.host(0);
    host.launch(&["--resolv-conf", &servers(host, &[])?])?;
    // Whoever asks there waits: nobody has these addresses.
    let silent = ["10.40.0.98", "10.40.0.99"];
    let servers = silent.map(|address| format!("nameserver {address}\n")).concat();
    let (files, process) = with_files(host, &servers)?;
    let namespace = Namespace::of(process.pid());
    host.run(&["attach", &format!("pid:{}", process.pid()), "--name", "dying"])?;
    // A packet that waits for a neighbour would keep the namespace, whoever sent it.
    for address in silent {
        namespace.ip(&format!("neigh add {address} lladdr 02:00:00:00:00:99 dev mesh0 nud permanent"))?;
    }
    let asking =
        Tool::new("dig").words(&format!("{GATEWAY} +time=4 +tries=1 x.example.org")).inside(&namespace);
    let asking = asking.start()?;
    wait_for("it is asked for", secs(2), || forwarded(host, "asked").is_ok_and(|n| n > 0))?;
    drop((asking, process));
    let gone = || host.ps().is_ok_and(|all| all.is_empty());
    let took = wait_for("its port is gone", secs(5), gone)?;
    ensure!(took < secs(1), "only after {took:?}");
    drop(files);
    Ok(())
}

#[test]
fn a_file_that_was_not_there_is_made_and_removed() -> Result<()> {
    let net = Topology::new("/etc/netns")?.hosts(1)?;
    let host = net.host(0);
    host.launch(&[])?;
    let container = Container::named("plain")?;
    let conf = conf_of(&container)?;
    let plain = host.attach_with(&container, &[])?;
    let mounted =
        Tool::new("ip").args(["netns", "exec", &name_of(&container)?, "cat", "/etc/resolv.conf"]).run()?;
    ensure!(mounted.contains("nameserver 10.32.0.1\n"), "{mounted}");
    // By the search domain, as every program asks.
    let found = Tool::new("ip")
        .args(["netns", "exec", &name_of(&container)?, "dig", "+short", "+search", "plain"])
        .run()?;
    ensure!(found.trim() == plain.address.to_string(), "{found}");

    // A daemon that was killed: the next one knows what was there.
    host.kill_dead()?;
    host.launch(&[])?;
    ensure!(std::fs::read_to_string(&conf)? == mounted, "it changed");
    host.detach(&container)?;
    ensure!(!conf.exists() && !conf.parent().is_some_and(Path::exists), "{} is left", conf.display());

    host.attach_with(&container, &["--no-dns"])?;
    ensure!(!conf.exists(), "it was not to be made");
    host.detach(&container)?;
    // With the namespace goes the file.
    host.attach_with(&container, &[])?;
    ensure!(conf.exists(), "it was not made");
    Tool::new("ip").args(["netns", "delete", &name_of(&container)?]).run()?;
    wait_for("the file is gone", secs(5), || !conf.exists())?;
    Ok(())
}

#[test]
fn a_container_with_files_of_its_own_is_pointed_in_place() -> Result<()> {
    let net = Topology::new("files of a container")?.hosts(1)?;
    let host = net.host(0);
    host.launch(&[])?;
    let (file, process) = with_files(host, "nameserver 192.0.2.53\n")?;
    let reference = format!("pid:{}", process.pid());
    host.run(&["attach", &reference])?;
    let read = || std::fs::read_to_string(&file);
    ensure!(read()?.contains("nameserver 10.32.0.1\n"), "{}", read()?);
    host.run(&["detach", &reference])?;
    ensure!(read()? == "nameserver 192.0.2.53\n", "{}", read()?);
    // What somebody else has written meanwhile stays.
    host.run(&["attach", &reference])?;
    std::fs::write(&file, "nameserver 192.0.2.99\n")?;
    host.run(&["detach", &reference])?;
    ensure!(read()? == "nameserver 192.0.2.99\n", "{}", read()?);
    Ok(())
}

#[test]
fn the_file_of_the_host_is_never_written() -> Result<()> {
    let net = Topology::new("the host's resolv.conf")?.hosts(1)?;
    let host = net.host(0);
    host.launch(&[])?;
    let before = std::fs::read("/etc/resolv.conf").ok();
    // Without a mount namespace of its own; with one that has the host's file; and by a link to it.
    let shared = Container::new("shared")?;
    host.attach_with(&shared, &[])?;
    let own = "exec cat";
    let same = Tool::new("unshare").args(["-n", "-m", "sh", "-c", own]).start()?;
    wait_for("it has its namespaces", secs(5), || own_mounts(&same))?;
    host.run(&["attach", &format!("pid:{}", same.pid()), "--name", "same"])?;
    let linked = Container::named("linked")?;
    let conf = conf_of(&linked)?;
    std::fs::create_dir_all(conf.parent().unwrap_or(Path::new("/etc/netns")))?;
    std::os::unix::fs::symlink("/etc/resolv.conf", &conf)?;
    host.attach_with(&linked, &[])?;
    ensure!(std::fs::read("/etc/resolv.conf").ok() == before, "the host's file was written");
    let status = host.status()?;
    let events = status.get("events").and_then(Value::as_array).cloned().unwrap_or_default();
    let told = events.iter().filter(|e| e.get("kind").and_then(Value::as_str) == Some("resolver_untouched"));
    ensure!(told.count() == 3, "{events:?}");
    Ok(())
}

#[test]
fn a_name_server_that_is_silent_costs_less_than_a_second() -> Result<()> {
    let net = Topology::new("a silent server")?.hosts(2)?;
    let (host, outside) = (net.host(0), net.host(1));
    let server = NameServer::start(
        outside.namespace(),
        outside.address().into(),
        &[("a.example.org", 1), ("b.example.org", 1)],
    )?;
    let file = servers(host, &["192.0.2.250".to_owned(), outside.address().to_string()])?;
    host.launch(&["--resolv-conf", &file])?;
    let web = host.attach("web")?;
    let time = |name: &str| -> Result<Duration> {
        let clock = Stopwatch::start();
        ensure!(ask(&web, name).len() == 1, "{name} is not answered");
        Ok(clock.elapsed())
    };
    let (first, second) = (time("a.example.org A")?, time("b.example.org A")?);
    ensure!(first < secs(1.5), "the first took {first:?}");
    ensure!(second < secs(0.5), "the silent one was asked again: {second:?}");
    ensure!(server.asked() == 2, "{}", server.asked());
    Ok(())
}

#[test]
fn a_docker_container_is_pointed_again_when_docker_writes_its_file() -> Result<()> {
    let net = Topology::new("Docker's resolv.conf")?.hosts(1)?;
    let host = net.host(0);
    let docker = Docker::start(host)?;
    host.launch(&[])?;
    let plain = docker.run("plain")?;
    let conf = |name: &str| docker.docker(["exec", name, "busybox", "cat", "/etc/resolv.conf"]);
    let former = conf("plain")?;
    host.run(&["attach", "plain"])?;
    let pointed = |name: &str| conf(name).is_ok_and(|text| text.contains("nameserver 10.32.0.1\n"));
    ensure!(pointed("plain"), "{}", conf("plain")?);
    plain.restart()?;
    wait_for("it is pointed again", secs(5), || pointed("plain"))?;
    host.run(&["detach", "plain"])?;
    ensure!(conf("plain")? == former, "{} instead of {former}", conf("plain")?);

    // On a network of Docker its own resolver is asked, and goes on working.
    for network in ["blue", "green"] {
        docker.docker(["network", "create", network])?;
    }
    let (web, db) =
        (docker.run_with("web", &["--network", "blue"])?, docker.run_with("db", &["--network", "blue"])?);
    ensure!(conf("web")?.contains("127.0.0.11"), "{}", conf("web")?);
    host.run(&["attach", "web"])?;
    ensure!(pointed("web"), "{}", conf("web")?);
    docker.docker(["network", "connect", "green", "web"])?;
    wait_for("it is pointed again", secs(5), || pointed("web"))?;
    let template = "{{.NetworkSettings.Networks.blue.IPAddress}}";
    let address = docker.docker(["inspect", "-f", template, "db"])?;
    let found = web.namespace()?.resolve(&format!("{GATEWAY} db A"));
    ensure!(found == [address.trim()], "{found:?} is not {address}");
    host.run(&["detach", "web"])?;
    ensure!(conf("web")?.contains("127.0.0.11"), "{}", conf("web")?);
    drop(db);
    Ok(())
}

/// A process with network and files of its own, and its resolv.conf as the host sees it.
fn with_files(host: &Host, text: &str) -> Result<(PathBuf, Process)> {
    let file = host.directory().join("container-resolv.conf");
    std::fs::write(&file, text)?;
    let script = format!("ip link set lo up; mount --bind {} /etc/resolv.conf && exec cat", file.display());
    let process =
        Tool::new("unshare").args(["-n", "-m", "--propagation", "private", "sh", "-c", &script]).start()?;
    let mounted = || {
        let seen = std::fs::read_to_string(format!("/proc/{}/root/etc/resolv.conf", process.pid()));
        own_mounts(&process) && seen.is_ok_and(|seen| seen == text)
    };
    wait_for("its file is mounted", secs(5), mounted)?;
    Ok((file, process))
}

fn own_mounts(process: &Process) -> bool {
    let of = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    of(&process.pid().to_string()).is_some_and(|own| Some(own) != of("self"))
}

fn name_of(container: &Container) -> Result<String> {
    let name = container.reference().strip_prefix("netns:").map(str::to_owned);
    name.ok_or_else(|| netns_tests::anyhow!("{} has no name", container.name()))
}

fn conf_of(container: &Container) -> Result<PathBuf> {
    Ok(Path::new("/etc/netns").join(name_of(container)?).join("resolv.conf"))
}
