//! Addresses are given once, on both sides of a cut too, and an end of them is said.

use netns_tests::{
    Attached, Container, IperfServer, Result, Topology, Transport, Value, all_differ, ensure, ping_all_pairs,
    secs, wait_until,
};

#[test]
fn many_containers_of_three_hosts_get_different_addresses() -> Result<()> {
    let net = Topology::new("different addresses")?.hosts(3)?;
    net.launch_together(&["node01", "node02", "node03"])?;
    let attach = |index: usize| -> Result<Vec<Attached>> {
        (0..8).map(|number| net.host(index).attach(&format!("c{index}-{number}"))).collect()
    };
    let all: Vec<Attached> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|index| scope.spawn(move || attach(index))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| panic!("attaching panicked")))
            .collect::<Result<Vec<_>>>()
    })?
    .into_iter()
    .flatten()
    .collect();
    all_differ(&all.iter().collect::<Vec<_>>())?;
    let some: Vec<_> = all.iter().step_by(7).collect();
    ping_all_pairs(&some)
}

#[test]
fn both_sides_of_a_cut_go_on_giving_addresses() -> Result<()> {
    let net = Topology::new("allocation during a cut")?.hosts(2)?;
    net.host(0).launch(&[])?;
    net.host(1).launch(&["node01"])?;
    let mut all = vec![net.host(0).attach("a0")?, net.host(1).attach("b0")?];
    net.wait_converged(secs(5))?;
    net.cut(0, 1)?;
    for number in 1..4 {
        all.push(net.host(0).attach(&format!("a{number}"))?);
        all.push(net.host(1).attach(&format!("b{number}"))?);
    }
    net.mend()?;
    net.wait_converged(secs(30))?;
    let all: Vec<_> = all.iter().collect();
    all_differ(&all)?;
    ping_all_pairs(&all[4..])
}

#[test]
fn an_address_asked_for_is_had_wherever_its_owner_is() -> Result<()> {
    let net = Topology::new("attach --ip")?.hosts(2)?;
    net.host(0).launch(&[])?;
    net.host(1).launch(&["node01"])?;
    let web = net.host(0).attach("web")?;
    let _db = net.host(1).attach("db")?;
    // Two ends of the range: whoever owns them, both hosts can have them.
    for (index, address) in [(0, "10.32.200.1"), (1, "10.47.200.1"), (0, "10.47.200.2"), (1, "10.32.200.2")] {
        let container = Container::new(&format!("c{index}-{}", address.replace('.', "-")))?;
        let attached = net.host(index).attach_with(&container, &["--ip", address])?;
        ensure!(attached.prefix == format!("{address}/12"), "asked for {address}, got {}", attached.prefix);
        attached.ping(&web)?;
    }
    let container = Container::new("two")?;
    let two = net.host(0).attach_with(&container, &["--ip", "10.33.0.8", "--ip", "10.33.0.9"])?;
    let addresses = two.told.get("addresses").and_then(Value::as_array).map_or(0, Vec::len);
    ensure!(addresses == 2, "{}", two.told);
    let printed = net.host(0).run(&["attach", &two.reference()])?;
    ensure!(printed == "10.33.0.8/12\n10.33.0.9/12\n", "it prints {printed:?}");
    Ok(())
}

#[test]
fn the_end_of_the_range_is_said_and_a_freed_address_is_used_again() -> Result<()> {
    let net = Topology::new("exhaustion")?.hosts(2)?;
    net.host(0).launch(&["--ipalloc-range", "10.9.0.0/29"])?;
    // Eight, less network, gateway and broadcast address.
    let all: Vec<_> =
        (0..5).map(|number| net.host(0).attach(&format!("c{number}"))).collect::<Result<_>>()?;
    all_differ(&all.iter().collect::<Vec<_>>())?;
    let more = Container::new("more")?;
    let args = ["attach", &more.reference(), "--timeout", "2"].map(str::to_owned);
    let said = net.host(0).meshnet(&args.each_ref().map(String::as_str))?.fails_with(1)?;
    ensure!(said.contains("10.9.0.0/29") && said.contains("mesh"), "it says: {said}");
    let freed = all[2].address;
    net.host(0).detach(&all[2])?;
    let more = net.host(0).attach_with(&more, &[])?;
    ensure!(more.address == freed, "{} is free, {} was given", freed, more.address);
    Ok(())
}

#[test]
fn a_joiner_uses_the_clusters_range() -> Result<()> {
    let net = Topology::new("one range per cluster")?.hosts(2)?;
    net.host(0).launch(&["--ipalloc-range", "10.9.0.0/16"])?;
    let web = net.host(0).attach("web")?;
    net.host(1).launch(&["node01", "--ipalloc-range", "10.10.0.0/16"])?;
    let db = net.host(1).attach("db")?;
    ensure!(db.prefix.starts_with("10.9.") && db.prefix.ends_with("/16"), "it has {}", db.prefix);
    web.ping(&db)?;
    let events = net.host(1).status()?.get("events").map(Value::to_string).unwrap_or_default();
    ensure!(events.contains("10.10.0.0/16") || events.contains("range"), "nobody was warned: {events}");
    Ok(())
}

#[test]
fn attach_waits_for_space_and_says_whom_for() -> Result<()> {
    let net = Topology::new("space is awaited")?.hosts(2)?;
    net.host(0).launch(&["node02"])?;
    let web = Container::new("web")?;
    let args = ["attach", &web.reference(), "--timeout", "1"].map(str::to_owned);
    net.host(0).meshnet(&args.each_ref().map(String::as_str))?.fails_with(1)?;
    ensure!(web.namespace().ports()?.is_empty(), "a port without an address");
    let ipam = net.host(0).status()?.get("ipam").map(Value::to_string).unwrap_or_default();
    ensure!(ipam.contains("waiting"), "{ipam}");
    net.host(1).launch(&["node01"])?;
    let web = net.host(0).attach_with(&web, &[])?;
    let db = net.host(1).attach("db")?;
    web.ping(&db)
}

#[test]
fn ctrl_c_leaves_nothing_half_done() -> Result<()> {
    let net = Topology::new("Ctrl-C")?.hosts(2)?;
    net.host(0).launch(&["node02"])?;
    let web = Container::new("web")?;
    let reference = web.reference();
    let attach = net.host(0).command(&["attach", &reference, "--timeout", "20"])?.start()?;
    netns_tests::pause(secs(0.5));
    let outcome = attach.interrupt()?;
    ensure!(outcome.code != Some(0), "an interrupted attach is no success");
    net.host(1).launch(&["node01"])?;
    net.wait_converged(secs(10))?;
    ensure!(web.namespace().ports()?.is_empty(), "the port came after all");
    ensure!(net.host(0).ps()?.is_empty(), "an endpoint came after all: {:?}", net.host(0).ps()?);
    net.host(0).attach_with(&web, &[]).map(drop)
}

#[test]
fn found_overrules_the_waiting() -> Result<()> {
    let net = Topology::new("launch --found")?.hosts(2)?;
    net.host(0).launch(&["node02", "--found"])?;
    let web = net.host(0).attach("web")?;
    net.host(1).launch(&["node01"])?;
    let db = net.host(1).attach("db")?;
    web.ping(&db)?;
    let server = IperfServer::start(db.namespace(), &db)?;
    server.measure(web.namespace(), Transport::TCP, secs(0.5), "")?;
    wait_until("one cluster", secs(5), || net.wait_converged(secs(1)))
}
