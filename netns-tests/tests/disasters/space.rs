//! Address space outlives cuts, and hosts that never come back: each half of a cut uses up what it can reach, and what a
//! replaced host had goes to the others.

use std::net::IpAddr;
use std::time::Duration;

use netns_tests::{
    Attached, Container, Context, Host, Result, Topology, Value, all_differ, anyhow, bail, ensure,
    ping_all_pairs, secs, wait_until,
};

/// Sixteen addresses, less network, gateway and broadcast address.
const RANGE: &str = "10.9.0.0/28";
const ADDRESSES: usize = 13;
const EVERYBODY: [&str; 6] = ["node01", "node02", "node03", "node04", "--ipalloc-range", RANGE];

/// How long a replaced host is down before the others take its space: the least that may be asked for.
const RECLAIM_AFTER: &str = "5s";
/// How long that may take in all, with noticing that the host is down.
const RECLAIMED: Duration = Duration::from_secs(30);

/// A container and the host it is attached to.
type Placed<'a> = (&'a Host, Attached);

#[test]
fn both_halves_use_up_their_space_and_nothing_is_given_twice_or_refused_for_ever() -> Result<()> {
    let net = Topology::new("both halves of a cut use up their space")?.hosts(4)?;
    net.launch_together(&EVERYBODY)?;
    let mut all = net
        .all()
        .iter()
        .map(|host| Ok((host, host.attach(&format!("first-{}", host.name()))?)))
        .collect::<Result<Vec<Placed<'_>>>>()?;
    net.wait_converged(secs(10))?;
    let (left, right) = net.all().split_at(2);
    for (a, b) in [(0, 2), (0, 3), (1, 2), (1, 3)] {
        net.cut(a, b)?;
    }
    all.extend(fill_both(left, right)?);
    ensure_all_are_used(&all)?;

    // One half gives two back. The other one has none until the wire is whole, and needs nothing else.
    let freed = free_two(&mut all, left)?;
    let guest = Container::new("guest")?;
    let refused = right[1].attach_with(&guest, &[]).err().context("an address across the cut")?;
    ensure!(refused.to_string().contains(RANGE), "the range is not named: {refused}");
    net.mend()?;
    for (host, guest) in [(&right[1], guest), (&right[0], Container::new("late")?)] {
        let had = wait_until("an address came over", secs(20), || host.attach_with(&guest, &[]))?;
        ensure!(freed.contains(&had.address), "{} was not free, {freed:?} were", had.address);
        all.push((host, had));
    }

    net.wait_converged(secs(20))?;
    ensure_all_are_used(&all)?;
    let some: Vec<_> = all.iter().step_by(3).map(|(_, container)| container).collect();
    ping_all_pairs(&some)?;
    // Now it is full for everybody; that is said at once, and nothing is asked for ever.
    net.all().iter().try_for_each(is_full)?;
    net.wait_converged(secs(10))
}

#[test]
fn hosts_are_replaced_one_by_one_and_what_the_old_ones_had_goes_by_itself() -> Result<()> {
    let net = Topology::new("every host is replaced")?.hosts(3)?;
    let launch = ["node01", "node02", "node03", "--ipalloc-range", RANGE, "--reclaim-after", RECLAIM_AFTER];
    net.launch_together(&launch)?;
    let attach = |host: &Host| host.attach(&format!("web-{}", host.name()));
    let mut containers = net.all().iter().map(attach).collect::<Result<Vec<_>>>()?;
    net.wait_converged(secs(10))?;
    for (index, host) in net.all().iter().enumerate() {
        let old = host.peer_id()?;
        host.kill_dead()?;
        containers[index].kill()?;
        std::fs::remove_dir_all(host.state_dir())?;
        host.launch(&launch)?;
        ensure!(host.peer_id()? != old, "{} has the same keys", host.name());
        wait_until(&format!("nobody remembers the old {}", host.name()), RECLAIMED, || {
            net.all().iter().try_for_each(|other| has_forgotten(other, &old))
        })?;
        containers[index] = attach(host)?;
        net.wait_converged(secs(10))?;
        ping_all_pairs(&containers.iter().collect::<Vec<_>>())?;
    }
    // Nothing was lost on the way: all addresses can be had.
    let rest = fill(net.all())?;
    let all: Vec<_> = rest.iter().map(|(_, container)| container).chain(&containers).collect();
    all_differ(&all)?;
    ensure!(all.len() == ADDRESSES, "{} of {ADDRESSES} addresses can be had", all.len());
    Ok(())
}

/// No part of `status` and no line of `ps` has the host.
fn has_forgotten(host: &Host, peer_id: &str) -> Result<()> {
    let status = host.status()?;
    for part in ["peers", "connections", "targets", "ipam"] {
        let text = status.get(part).map(Value::to_string).unwrap_or_default();
        ensure!(!text.contains(peer_id), "{} has it in {part}: {text}", host.name());
    }
    let listed = host.ps()?;
    ensure!(!listed.iter().any(|row| row.to_string().contains(peer_id)), "{} lists {listed:?}", host.name());
    Ok(())
}

/// Both halves at the same time: each attaches on its hosts by turns until it is told that there is no more.
fn fill_both<'a>(left: &'a [Host], right: &'a [Host]) -> Result<Vec<Placed<'a>>> {
    std::thread::scope(|scope| {
        let sides = [left, right].map(|side| scope.spawn(move || fill(side)));
        let filled = sides.map(|side| side.join().unwrap_or_else(|_| Err(anyhow!("filling panicked"))));
        let filled: Vec<Vec<Placed<'a>>> = filled.into_iter().collect::<Result<_>>()?;
        Ok(filled.into_iter().flatten().collect())
    })
}

fn fill(side: &[Host]) -> Result<Vec<Placed<'_>>> {
    let mut got = Vec::new();
    let mut hosts: Vec<&Host> = side.iter().collect();
    while let Some(host) = hosts.pop() {
        let container = Container::new(&format!("{}-{}", host.name(), got.len()))?;
        match host.attach_with(&container, &["--timeout", "30"]) {
            Ok(attached) => {
                got.push((host, attached));
                hosts.insert(0, host);
            }
            Err(error) => says_full(&error)?,
        }
        ensure!(got.len() <= ADDRESSES, "more addresses than there are");
    }
    Ok(got)
}

/// An address more on a full network: refused, and the reason has the range.
fn is_full(host: &Host) -> Result<()> {
    match host.attach_with(&Container::new("more")?, &[]) {
        Ok(attached) => bail!("{} is one too many", attached.address),
        Err(error) => says_full(&error),
    }
}

fn says_full(error: &netns_tests::Error) -> Result<()> {
    let said = format!("{error:#}");
    ensure!(said.contains("addresses_exhausted") && said.contains(RANGE), "it says {said}");
    Ok(())
}

fn free_two(all: &mut Vec<Placed<'_>>, side: &[Host]) -> Result<Vec<IpAddr>> {
    let mut freed = Vec::new();
    for _ in 0..2 {
        let is_there = |(host, _): &Placed<'_>| side.iter().any(|it| it.name() == host.name());
        let at = all.iter().rposition(is_there).context("that half got nothing")?;
        let (host, container) = all.remove(at);
        host.detach(&container)?;
        freed.push(container.address);
    }
    Ok(freed)
}

fn ensure_all_are_used(all: &[Placed<'_>]) -> Result<()> {
    let containers: Vec<_> = all.iter().map(|(_, container)| container).collect();
    all_differ(&containers)?;
    ensure!(containers.len() == ADDRESSES, "{} of {ADDRESSES} addresses are used", containers.len());
    Ok(())
}
