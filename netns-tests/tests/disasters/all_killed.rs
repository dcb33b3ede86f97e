//! All hosts die at the same moment, in the middle of their work, as often as `MESHNET_KILL_ROUNDS` says: what was
//! promised before is there afterwards.

use std::time::Duration;

use netns_tests::{
    Attached, Container, Context, Host, Result, Topology, all_differ, ensure, pause, secs, wait_until,
};

const HOSTS: u8 = 5;
/// How often they die unless the environment says otherwise.
const ROUNDS: u32 = 3;
/// How long the hosts may take to agree again, on a busy machine.
const AGREEMENT: Duration = Duration::from_secs(15);
/// The kill comes so much later in each round than in the one before, so that it meets an attachment everywhere on
/// its way: one takes a tenth of a second or two.
const STEP: Duration = Duration::from_millis(17);
/// After so many steps it starts at once again.
const STEPS: u32 = 16;

#[test]
fn a_cluster_that_is_killed_as_a_whole_comes_back_as_it_was() -> Result<()> {
    let rounds = rounds()?;
    let net = Topology::new("all hosts killed at once")?.hosts(HOSTS)?;
    net.launch_together(&["node01", "node02", "node03", "node04", "node05"])?;
    let containers = net
        .all()
        .iter()
        .flat_map(|host| ["web", "db"].map(|name| (host, format!("{name}-{}", host.name()))))
        .map(|(host, name)| Ok((host, host.attach(&name)?)))
        .collect::<Result<Vec<_>>>()?;
    net.wait_converged(AGREEMENT)?;
    let cluster = cluster(net.host(0))?;
    for round in 0..rounds {
        let result = die_and_return(&net, &containers, round);
        result.with_context(|| format!("round {} of {rounds}", round + 1))?;
        ensure!(self::cluster(net.host(usize::from(HOSTS) - 1))? == cluster, "another cluster was founded");
    }
    Ok(())
}

/// One round: a guest comes to every host, everything dies meanwhile, and all but the guests must be as it was.
fn die_and_return(net: &Topology, containers: &[(&Host, Attached)], round: u32) -> Result<()> {
    let guests: Vec<Container> = net
        .all()
        .iter()
        .map(|host| Container::new(&format!("guest-{}", host.name())))
        .collect::<Result<_>>()?;
    kill_while_attaching(net, &guests, STEP * (round % STEPS))?;
    net.launch_together(&[])?;
    net.wait_converged(AGREEMENT)?;

    for (host, container) in containers {
        let again = host.attach_with(container, &[])?;
        ensure!(again.told == container.told, "{} became {}", container.told, again.told);
    }
    // A guest whose attachment died half way is attached now, another one still is: never with an address twice.
    let guests = net.all().iter().zip(&guests).map(|(host, guest)| host.attach_with(guest, &[]));
    let guests = guests.collect::<Result<Vec<_>>>()?;
    let everybody: Vec<&Attached> =
        containers.iter().map(|(_, container)| container).chain(&guests).collect();
    all_differ(&everybody)?;
    ping_in_a_ring(&everybody)?;
    net.all().iter().zip(&guests).try_for_each(|(host, guest)| host.detach(guest))?;
    net.all().iter().try_for_each(|host| lists(host, containers.len()))
}

/// Every host begins to attach its guest, and all of them are killed so long after.
fn kill_while_attaching(net: &Topology, guests: &[Container], after: Duration) -> Result<()> {
    std::thread::scope(|scope| {
        for (host, guest) in net.all().iter().zip(guests) {
            // It fails when its daemon dies under it, and that is as well.
            scope.spawn(move || host.attach_with(guest, &[]));
        }
        pause(after);
        let kills: Vec<_> = net.all().iter().map(|host| scope.spawn(|| host.kill_dead())).collect();
        kills.into_iter().try_for_each(|kill| kill.join().unwrap_or_else(|_| panic!("a kill panicked")))
    })
}

/// Each container pings the next one, which lives on another host for most.
fn ping_in_a_ring(containers: &[&Attached]) -> Result<()> {
    let next = containers.iter().cycle().skip(3);
    containers.iter().zip(next).try_for_each(|(from, to)| from.ping(*to))
}

fn lists(host: &Host, count: usize) -> Result<()> {
    wait_until(&format!("{} lists {count} containers", host.name()), secs(5), || {
        let listed = host.ps()?;
        ensure!(listed.len() == count, "it lists {}: {listed:?}", listed.len());
        Ok(())
    })
}

fn cluster(host: &Host) -> Result<String> {
    let status = host.status()?;
    let cluster = status.get("cluster_id").and_then(netns_tests::Value::as_str);
    Ok(cluster.with_context(|| format!("no cluster in {status}"))?.to_owned())
}

fn rounds() -> Result<u32> {
    match std::env::var("MESHNET_KILL_ROUNDS") {
        Ok(text) => {
            text.parse().with_context(|| format!("MESHNET_KILL_ROUNDS={text} is no number of rounds"))
        }
        Err(_) => Ok(ROUNDS),
    }
}
