//! Two clusters that were founded apart meet: one state, no address twice, and the traffic of the winners goes on.

use std::net::IpAddr;

use netns_tests::{
    Attached, Host, Process, Result, Stopwatch, Tool, Topology, Value, all_differ, anyhow, ensure, pause,
    secs, wait_until,
};

/// Between two echo requests, in seconds.
const EVERY: &str = "0.05";

#[test]
fn two_clusters_become_one_and_the_winners_notice_nothing() -> Result<()> {
    let net = Topology::new("two clusters")?.hosts(4)?;
    let first = found(&net, 0, ["a1", "a2", "a3", "a4"])?;
    let second = found(&net, 2, ["b1", "b2", "b3", "b4"])?;
    ensure!(first[0].address == second[0].address, "the clusters use different addresses: nothing is tried");
    let cluster = |host: usize| text(&net.host(host).status()?, "cluster_id");
    let (one, two) = (cluster(0)?, cluster(2)?);
    let (winners, losers, losing) = if one < two { (first, second, 2) } else { (second, first, 0) };
    // Both ways, so that each of the two hosts sends and answers.
    let streams = [stream(&winners[0], &winners[3])?, stream(&winners[3], &winners[0])?];
    let inside = stream(&winners[0], &winners[1])?;
    pause(secs(0.5));

    let clock = Stopwatch::start();
    net.host(0).connect(&["node03"])?;
    wait_until("no address is used twice", secs(10), || {
        let now = addresses(net.host(losing))?;
        let all: Vec<IpAddr> = now.iter().map(|(_, address)| *address).collect();
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        ensure!(all.len() == 8 && different.len() == 8, "{now:?}");
        Ok(())
    })?;
    println!("settled after {:?}", clock.elapsed());
    net.wait_converged(secs(10))?;
    ensure!(cluster(2)? == one.clone().min(two.clone()), "the lower cluster id does not win");

    pause(secs(1));
    for process in streams.into_iter().chain([inside]) {
        let (sent, answered) = counts(process)?;
        ensure!(sent > 40, "{sent} requests in all that time");
        ensure!(answered + 1 >= sent, "of {sent} requests {answered} were answered");
    }
    let now = addresses(net.host(0))?;
    for winner in &winners {
        ensure!(
            now.contains(&(winner.name().to_owned(), winner.address)),
            "{} moved: {now:?}",
            winner.name()
        );
        has_only(winner, &winner.prefix)?;
    }
    // Each loser has the address of its record at its interface, and answers there, within and across.
    let host = |loser: usize| net.host(losing + usize::from(loser == 3));
    let moved: Vec<Attached> =
        losers.iter().enumerate().map(|(n, loser)| host(n).attach_with(loser, &[])).collect::<Result<_>>()?;
    for loser in &moved {
        has_only(loser, &loser.prefix)?;
        winners[0].ping(loser)?;
        loser.ping(&winners[3])?;
    }
    moved[0].ping(&moved[3])?;
    all_differ(&winners.iter().chain(&moved).collect::<Vec<_>>())?;
    ensure!(!net.host(losing).events("container_readdressed")?.is_empty(), "nothing was said of it");

    // What was stored is the new address.
    net.host(losing).stop()?;
    net.host(losing).launch(&[])?;
    winners[0].ping(&moved[0])?;
    has_only(&moved[0], &moved[0].prefix)
}

/// A cluster of two hosts, with three containers on the first and one on the second.
fn found(net: &Topology, first: usize, names: [&str; 4]) -> Result<Vec<Attached>> {
    net.host(first).launch(&[])?;
    let mut containers: Vec<Attached> =
        names[..3].iter().map(|name| net.host(first).attach(name)).collect::<Result<_>>()?;
    net.host(first + 1).launch(&[net.host(first).name()])?;
    containers.push(net.host(first + 1).attach(names[3])?);
    containers[0].ping(&containers[3])?;
    Ok(containers)
}

fn stream(from: &Attached, to: &Attached) -> Result<Process> {
    let address = to.address.to_string();
    Tool::new("ping").words("-n -i").args([EVERY, &address]).inside(from.namespace()).limit(secs(120)).start()
}

/// How many requests a ping sent, and how many were answered.
fn counts(ping: Process) -> Result<(u64, u64)> {
    let text = ping.interrupt()?.stdout;
    let line = text.lines().find(|line| line.contains("packets transmitted"));
    let line = line.ok_or_else(|| anyhow!("ping said nothing at its end: {text}"))?;
    let mut numbers = line.split(", ").filter_map(|part| part.split(' ').next()?.parse::<u64>().ok());
    numbers.next().zip(numbers.next()).ok_or_else(|| anyhow!("no counts in {line:?}"))
}

fn text(value: &Value, key: &str) -> Result<String> {
    let text = value.get(key).and_then(Value::as_str);
    text.map(str::to_owned).ok_or_else(|| anyhow!("no {key} in {value}"))
}

/// All containers, by name, as `ps` of a host lists them.
fn addresses(host: &Host) -> Result<Vec<(String, IpAddr)>> {
    let mut all = Vec::new();
    for row in host.ps()? {
        let address = text(&row, "address")?;
        all.push((text(&row, "name")?, address.split('/').next().unwrap_or_default().parse()?));
    }
    Ok(all)
}

/// The interface has this address of the overlay and no other.
fn has_only(container: &Attached, prefix: &str) -> Result<()> {
    let shown = container.namespace().ip(&format!("-4 -brief address show dev {}", container.ifname))?;
    let has: Vec<&str> = shown.split_whitespace().skip(2).collect();
    ensure!(has == [prefix], "{} has {has:?} and should have {prefix}", container.name());
    Ok(())
}
