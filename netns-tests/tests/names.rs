//! Containers are found by name from every host, right at once, and are gone at once.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use netns_tests::{Attached, Container, Host, Result, Stopwatch, Topology, Value, ensure, secs, wait_for};

const GATEWAY: &str = "@10.32.0.1";

fn launch_all(net: &Topology) -> Result<()> {
    net.host(0).launch(&[])?;
    net.all()[1..].iter().try_for_each(|host| host.launch(&["node01"]))?;
    net.wait_converged(secs(10))
}

fn addresses(asker: &Attached, name: &str) -> Vec<String> {
    asker.namespace().resolve(&format!("{GATEWAY} {name} A"))
}

fn text(addr: IpAddr) -> String {
    addr.to_string()
}

/// How long it takes until a name is answered with just these addresses, in any order.
fn answered(asker: &Attached, name: &str, expected: &[IpAddr], limit: Duration) -> Result<Duration> {
    let expected: BTreeSet<String> = expected.iter().copied().map(text).collect();
    let clock = Stopwatch::start();
    let holds = || addresses(asker, name).into_iter().collect::<BTreeSet<_>>() == expected;
    wait_for(&format!("{name} is {expected:?}"), limit + secs(5), holds)?;
    let took = clock.elapsed();
    ensure!(took < limit, "{name} is {expected:?} only after {took:?}");
    Ok(took)
}

#[test]
fn a_name_is_everywhere_in_a_second_and_gone_with_what_has_it() -> Result<()> {
    let net = Topology::new("names come and go")?.hosts(5)?;
    launch_all(&net)?;
    let asker = net.host(4).attach("asker")?;
    let (first, second, third) =
        (net.host(0).attach("first")?, net.host(0).attach("second")?, net.host(1).attach("third")?);
    let clock = Stopwatch::start();
    answered(&asker, "first.mesh.mesh.internal", &[first.address], secs(1))?;
    let third_seen = answered(&asker, "third", &[third.address], secs(1))?;
    println!("known after {:?}, {third_seen:?}", clock.elapsed());

    first.kill()?;
    println!("container gone after {:?}", answered(&asker, "first", &[], secs(1))?);
    answered(&asker, "second.mesh", &[second.address], secs(1))?;
    net.host(0).kill_dead()?;
    println!("daemon gone after {:?}", answered(&asker, "second", &[], secs(5))?);
    answered(&asker, "third", &[third.address], secs(1))?;
    // A host that loses its power: nothing of it is heard any more.
    net.all().iter().enumerate().filter(|(at, _)| *at != 1).try_for_each(|(at, _)| net.cut(1, at))?;
    net.host(1).kill_dead()?;
    println!("host gone after {:?}", answered(&asker, "third", &[], secs(12))?);
    Ok(())
}

#[test]
fn aliases_are_shared_and_shuffled_and_the_dead_ones_are_gone() -> Result<()> {
    let net = Topology::new("shared aliases")?.hosts(2)?;
    launch_all(&net)?;
    let app = |host: &Host, name| host.attach_with(&Container::new(name)?, &["--alias", "App"]);
    let (one, two) = (app(net.host(0), "one")?, app(net.host(1), "two")?);
    let asker = net.host(0).attach("asker")?;
    answered(&asker, "app.mesh.mesh.internal", &[one.address, two.address], secs(2))?;
    let orders: BTreeSet<_> = (0..40).map(|_| addresses(&asker, "aPP")).collect();
    ensure!(orders.len() == 2, "{orders:?}");
    two.kill()?;
    answered(&asker, "app", &[one.address], secs(1))?;
    // An alias may be the name of another one.
    let third = net.host(1).attach_with(&Container::new("third")?, &["--alias", "one"])?;
    answered(&asker, "one", &[one.address, third.address], secs(1))?;
    Ok(())
}

#[test]
fn links_are_private_and_looked_up_first() -> Result<()> {
    let net = Topology::new("links")?.hosts(2)?;
    launch_all(&net)?;
    let (db, foo) = (net.host(0).attach("db")?, net.host(1).attach("foo")?);
    let linked = net.host(0).attach_with(
        &Container::new("linked")?,
        &["--link", "db:foo", "--link", "foo:bar", "--link", "nobody:nothing"],
    )?;
    let other = net.host(0).attach("other")?;
    answered(&other, "foo", &[foo.address], secs(2))?;
    answered(&linked, "foo", &[db.address], secs(2))?;
    answered(&linked, "bar", &[foo.address], secs(2))?;
    ensure!(addresses(&linked, "nothing").is_empty() && addresses(&other, "bar").is_empty(), "a link leaks");
    Ok(())
}

#[test]
fn people_give_names_and_take_them_back() -> Result<()> {
    let net = Topology::new("dns-add, dns-remove, dns-lookup")?.hosts(2)?;
    launch_all(&net)?;
    let (one, two) = (net.host(0), net.host(1));
    let web = two.attach("web")?;
    one.run(&["dns-add", "Printer", "192.0.2.7", "192.0.2.8", "fd00::7", "--service", "_ipp._tcp:631"])?;
    one.run(&["dns-add", "printer", "192.0.2.7", "192.0.2.8", "fd00::7", "--service", "_ipp._tcp:631"])?;
    let given: Vec<IpAddr> = vec!["192.0.2.7".parse()?, "192.0.2.8".parse()?];
    answered(&web, "printer", &given, secs(1))?;
    let ask = |words: &str| web.namespace().resolve(&format!("{GATEWAY} {words}"));
    ensure!(ask("printer.mesh AAAA") == ["fd00::7"], "{:?}", ask("printer.mesh AAAA"));
    let service = ask("_ipp._tcp.printer.mesh.mesh.internal SRV");
    ensure!(service == ["0 0 631 printer.mesh.mesh.internal."], "{service:?}");
    let reverse = ask(&format!("-x {}", web.address));
    ensure!(reverse == ["web.mesh.mesh.internal."], "{reverse:?}");

    let found = two.run(&["dns-lookup", "printer"])?;
    ensure!(
        found.lines().collect::<BTreeSet<_>>() == ["192.0.2.7", "192.0.2.8", "fd00::7"].into(),
        "{found}"
    );
    let named = one.run(&["dns-lookup", &text(web.address)])?;
    ensure!(named == "web.mesh.mesh.internal\n", "{named}");
    ensure!(one.run(&["dns-lookup", "web.mesh.mesh.internal"])? == format!("{}\n", web.address), "no web");
    let status = one.run_json(&["status", "dns"])?;
    let names = status.get("names").and_then(Value::as_array).cloned().unwrap_or_default();
    let listed: Vec<&str> = names.iter().filter_map(|name| name.get("name")?.as_str()).collect();
    ensure!(listed == ["printer", "web"], "{status}");
    ensure!(status.get("ttl_s") == Some(&5.into()), "{status}");

    // The name of something else on the host, and names of others.
    let refuse = |host: &Host, words: &str, code: i32, kind: &str| -> Result<()> {
        let args: Vec<&str> = words.split(' ').chain(["-o", "json"]).collect();
        let said = host.meshnet(&args)?.fails_with(code)?;
        ensure!(said.contains(kind), "{words}: {said}");
        Ok(())
    };
    refuse(two, "dns-add web 192.0.2.9", 1, "name_in_use")?;
    refuse(one, "dns-add printer 192.0.2.9", 1, "name_in_use")?;
    let taken = one.attach_with(&Container::new("printer")?, &[]);
    ensure!(taken.is_err_and(|e| format!("{e:#}").contains("printer")), "the name was given twice");
    refuse(two, "dns-remove printer", 1, "name_elsewhere")?;
    refuse(one, "dns-lookup nobody", 1, "unknown_name")?;
    refuse(one, "dns-add --network nowhere x 192.0.2.9", 1, "unknown_network")?;
    refuse(one, "dns-add a..b 192.0.2.9", 2, "bad_usage")?;
    refuse(one, "dns-add -- -a 192.0.2.9", 2, "bad_usage")?;
    refuse(one, "dns-add x 192.0.2", 2, "bad_usage")?;
    refuse(one, "dns-add x", 2, "bad_usage")?;
    refuse(one, "attach pid:1 --link db", 2, "bad_usage")?;
    refuse(one, "attach pid:1 --alias a_b-", 2, "bad_usage")?;

    one.run(&["dns-remove", "printer"])?;
    one.run(&["dns-remove", "printer"])?;
    answered(&web, "printer", &[], secs(1))?;
    // Names of a host go and come with it.
    one.run(&["dns-add", "printer", "192.0.2.7"])?;
    answered(&web, "printer", &given[..1], secs(1))?;
    one.stop()?;
    answered(&web, "printer", &[], secs(1))?;
    one.launch(&[])?;
    answered(&web, "printer", &given[..1], secs(5))?;
    Ok(())
}
