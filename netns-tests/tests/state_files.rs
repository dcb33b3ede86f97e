//! Whatever happened to the state directory, the host goes on: what is damaged is set aside, and comes back from the
//! other hosts and the interfaces; what cannot be written is refused, and nothing else suffers.

use netns_tests::{
    Attached, Container, Context, Host, IperfServer, Result, Topology, Transport, Value, ensure,
    meshnet_binary, secs, wait_until,
};

/// What became of a file, and how.
type Damage = (&'static str, fn(&mut Vec<u8>));

/// What may become of the bytes of a file.
const DAMAGES: [Damage; 5] = [
    ("emptied", Vec::clear),
    ("cut in its first line", |bytes| bytes.truncate(10)),
    ("cut in the middle", |bytes| bytes.truncate(bytes.len() / 2)),
    ("flipped in one bit", |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
    }),
    ("replaced by something else", |bytes| *bytes = b"#!/bin/sh\n".to_vec()),
];

#[test]
fn damaged_state_and_ports_come_back_from_hosts_and_interfaces() -> Result<()> {
    let net = Topology::new("damaged files of the state directory")?.hosts(2)?;
    let (web, db) = web_and_db(&net)?;
    let host = net.host(0);
    // Each file alone once, both in every way.
    let rounds = [(DAMAGES[2], &["state"][..]), (DAMAGES[3], &["ports"])];
    for ((how, damage), files) in DAMAGES.map(|it| (it, &["state", "ports"][..])).into_iter().chain(rounds) {
        let context = || format!("{files:?} {how}");
        host.kill_dead()?;
        files.iter().try_for_each(|file| host.damage(file, damage))?;
        host.launch(&[]).with_context(context)?;
        came_back(&net, &web, &db).with_context(context)?;
        for file in files {
            says(host, &format!("{file}.corrupt-"))?;
        }
    }
    Ok(())
}

/// The same port, the same cluster, and no address given twice.
fn came_back(net: &Topology, web: &Attached, db: &Attached) -> Result<()> {
    net.wait_converged(secs(15))?;
    wait_until("web is what it was", secs(5), || {
        let again = net.host(0).attach_with(web, &[])?;
        ensure!(again.told == web.told, "{} became {}", web.told, again.told);
        for host in net.all() {
            let row = host.ps_row("web")?;
            ensure!(row.get("address").and_then(Value::as_str) == Some(&web.prefix), "{row}");
        }
        Ok(())
    })?;
    db.ping(web)?;
    let guest = net.host(0).attach("guest")?;
    ensure!(guest.address != web.address && guest.address != db.address, "{} twice", guest.address);
    guest.ping(db)?;
    net.host(0).detach(&guest)
}

#[test]
fn alone_without_any_file_a_host_takes_the_addresses_from_its_interfaces() -> Result<()> {
    let net = Topology::new("all files damaged, nobody to ask")?.hosts(2)?;
    let (web, db) = web_and_db(&net)?;
    let host = net.host(0);
    net.host(1).stop()?;
    host.kill_dead()?;
    for file in ["state", "ports"] {
        host.damage(file, Vec::clear)?;
    }
    host.launch(&["node02"])?;
    let printed = host.run(&["attach", &web.reference()])?;
    ensure!(printed.trim() == web.prefix, "{} became {printed}", web.prefix);
    ensure!(web.namespace().ports()?.len() == 1, "it has another port: {:?}", web.namespace().ports()?);
    // The others remember the rest: what it is called, for one thing.
    net.host(1).launch(&[])?;
    came_back(&net, &web, &db)
}

#[test]
fn without_its_keys_a_host_goes_on_as_another_one() -> Result<()> {
    let net = Topology::new("a damaged identity")?.hosts(2)?;
    let (web, db) = web_and_db(&net)?;
    let host = net.host(0);
    let before = host.peer_id()?;
    host.kill_dead()?;
    host.damage("identity", |bytes| bytes[20] ^= 1)?;
    host.launch(&["node02"])?;
    ensure!(host.peer_id()? != before, "it has the same keys");
    says(host, "identity.corrupt-1")?;
    db.ping_within(&web, secs(10))?;
    ensure!(host.run(&["attach", &web.reference()])?.trim() == web.prefix, "another address");
    wait_until("both agree", secs(20), || net.wait_converged(secs(1)))
}

#[test]
fn a_full_disk_refuses_addresses_and_hurts_nothing_else() -> Result<()> {
    let net = Topology::new("a full disk")?.hosts(2)?;
    let disk = net.host(0).state_on_a_disk(512)?;
    let (web, db) = web_and_db(&net)?;
    let host = net.host(0);
    let server = IperfServer::start(db.namespace(), &db)?;
    let stream = server.stream_from(web.namespace(), Transport::TCP, secs(5))?;
    disk.fill()?;

    let spare = Container::new("spare")?;
    let reference = spare.reference();
    let attach = ["attach", &reference, "--timeout", "5"];
    refuses(host, &attach)?;
    // What is detached must be so after a crash too.
    refuses(host, &["detach", &web.reference()])?;
    ensure!(web.namespace().ports()?.len() == 1, "the port went all the same");
    says(host, "cannot be written")?;
    // A new daemon starts too, and carries on.
    stream.finish()?;
    host.kill_dead()?;
    host.launch(&[])?;
    db.ping(&web)?;
    refuses(host, &attach)?;
    net.wait_converged(secs(10))?;

    disk.make_room()?;
    recovers(&net, &web, &db)
}

#[test]
fn a_read_only_disk_refuses_addresses_and_hurts_nothing_else() -> Result<()> {
    let net = Topology::new("a read-only disk")?.hosts(2)?;
    let disk = net.host(0).state_on_a_disk(512)?;
    let (web, db) = web_and_db(&net)?;
    let host = net.host(0);
    host.stop()?;
    disk.set_read_only(true)?;
    host.launch(&[])?;
    db.ping(&web)?;
    let spare = Container::new("spare")?;
    refuses(host, &["attach", &spare.reference(), "--timeout", "5"])?;
    net.wait_converged(secs(10))?;
    let second = net.host(1).tool(&meshnet_binary()?.to_string_lossy());
    let run = net.directory().join("elsewhere");
    let second =
        second.args(["launch", "--run-dir", &run.to_string_lossy(), "--port", "7000", "--data-port", "7001"]);
    let said = second.args(["--state-dir", &host.state_dir().to_string_lossy()]).outcome()?.fails_with(1)?;
    ensure!(said.contains("in use"), "a second daemon there: {said}");
    disk.set_read_only(false)?;
    recovers(&net, &web, &db)
}

/// Once the disk can be written again, everything goes as before, by itself.
fn recovers(net: &Topology, web: &Attached, db: &Attached) -> Result<()> {
    let host = net.host(0);
    let guest = wait_until("addresses are given again", secs(5), || host.attach("guest"))?;
    guest.ping(db)?;
    host.kill_dead()?;
    host.launch(&[])?;
    net.wait_converged(secs(15))?;
    guest.ping(web)?;
    ensure!(host.attach_with(&guest, &[])?.told == guest.told, "the guest was lost");
    Ok(())
}

fn refuses(host: &Host, args: &[&str]) -> Result<()> {
    let said = host.meshnet(&[args, &["-o", "json"]].concat())?.fails_with(1)?;
    ensure!(said.contains("\"store_failed\""), "{args:?}: {said}");
    Ok(())
}

/// The events of `status` have these words.
fn says(host: &Host, words: &str) -> Result<()> {
    let events = host.status()?.get("events").map(Value::to_string).unwrap_or_default();
    ensure!(events.contains(words), "{words:?} is not among the events: {events}");
    Ok(())
}

fn web_and_db(net: &Topology) -> Result<(Attached, Attached)> {
    let pair = net.web_and_db(&[])?;
    net.wait_converged(secs(10))?;
    Ok(pair)
}
