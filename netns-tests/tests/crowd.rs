//! Many daemons on one machine, each in a namespace of its own: they find each other, cost next to nothing at rest, and know
//! who died. `MESHNET_CROWD` is how many, `MESHNET_CROWD_REST_S` how long the rest is, `MESHNET_CROWD_JSON` where the figures go.

use std::time::Duration;

use netns_tests::{
    Context, Host, NeighbourRoom, Result, Stopwatch, Topology, Value, ensure, json, pause, secs, wait_until,
};

/// Daemons, unless the environment says otherwise.
const HOSTS: u8 = 10;
/// Seconds of rest, unless the environment says otherwise.
const REST_S: f64 = 20.0;
/// The part of a core that a daemon may use at rest.
const SHARE: f64 = 0.003;
/// How long the death of a host may go unnoticed by anybody.
const DEATH: Duration = Duration::from_secs(10);
/// Everybody is given the same list.
const TARGETS: [&str; 5] = ["node01", "node02", "node03", "--workers", "1"];

#[test]
fn a_crowd_finds_itself_rests_and_knows_its_dead() -> Result<()> {
    let hosts: u8 = from_environment("MESHNET_CROWD")?.unwrap_or(HOSTS);
    let rest = secs(from_environment("MESHNET_CROWD_REST_S")?.unwrap_or(REST_S));
    let limit = secs(20.0 + f64::from(hosts));
    let _room = NeighbourRoom::for_hosts(hosts)?;
    let net = Topology::new("a crowd of daemons")?.hosts(hosts)?;

    let clock = Stopwatch::start();
    net.launch_together(&TARGETS)?;
    let launched = clock.elapsed();
    net.wait_converged(limit)?;
    let converged = clock.elapsed();

    // Connections that were of use at the start only are closed after a while: that is not rest yet.
    pause(secs(15));
    let before = usage(&net)?;
    pause(rest);
    let after = usage(&net)?;
    let shares: Vec<f64> = before
        .iter()
        .zip(&after)
        .map(|((before, _), (after, _))| (*after - *before).as_secs_f64() / rest.as_secs_f64())
        .collect();
    let memory: u64 = after.iter().map(|(_, memory)| memory).sum();
    net.all().iter().try_for_each(no_deaths)?;

    let (survivors, dead) = net.all().split_at(net.all().len() * 7 / 10);
    dead.iter().try_for_each(Host::kill_dead)?;
    let clock = Stopwatch::start();
    for host in survivors {
        wait_until("the dead are known", DEATH, || knows_dead(host, dead))
            .with_context(|| format!("{} after {:?}", host.name(), clock.elapsed()))?;
    }
    let known = clock.elapsed();
    dead.iter().try_for_each(|host| host.launch(&TARGETS))?;
    let clock = Stopwatch::start();
    net.wait_converged(limit)?;
    let figures = json!({
        "hosts": hosts,
        "launched_s": launched.as_secs_f64(),
        "converged_s": converged.as_secs_f64(),
        "rest_s": rest.as_secs_f64(),
        "cpu_percent_mean": shares.iter().sum::<f64>() / f64::from(hosts) * 100.0,
        "cpu_percent_most": shares.iter().copied().fold(0.0, f64::max) * 100.0,
        "memory_mib_mean": to_mib(memory) / f64::from(hosts),
        "memory_mib_total": to_mib(memory),
        "killed": dead.len(),
        "deaths_known_s": known.as_secs_f64(),
        "back_s": clock.elapsed().as_secs_f64(),
    });
    tell(&figures)?;
    ensure!(known < DEATH, "the last host knew who died after {known:?}");
    let over = shares.iter().filter(|share| **share >= SHARE).count();
    ensure!(over == 0, "{over} of {hosts} daemons use more than {SHARE} of a core at rest: {figures}");
    Ok(())
}

/// Nobody who lives was ever taken for dead.
fn no_deaths(host: &Host) -> Result<()> {
    let status = host.status()?;
    let events = status.get("events").and_then(Value::as_array).context("no events in status")?;
    let dead = events.iter().find(|event| event.get("kind").and_then(Value::as_str) == Some("host_down"));
    ensure!(dead.is_none(), "{}: {dead:?}", host.name());
    Ok(())
}

fn knows_dead(host: &Host, dead: &[Host]) -> Result<()> {
    let status = host.status()?;
    let peers = status.get("peers").and_then(Value::as_array).context("no peers in status")?;
    let down = peers.iter().filter(|peer| peer.get("state").and_then(Value::as_str) == Some("down")).count();
    ensure!(down == dead.len(), "{} knows of {down} of {} dead hosts", host.name(), dead.len());
    Ok(())
}

fn usage(net: &Topology) -> Result<Vec<(Duration, u64)>> {
    net.all().iter().map(Host::usage).collect()
}

fn to_mib(bytes: u64) -> f64 {
    Duration::from_micros(bytes).as_secs_f64() * 1e6 / f64::from(1 << 20)
}

fn from_environment<T: std::str::FromStr>(name: &str) -> Result<Option<T>>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let Ok(text) = std::env::var(name) else { return Ok(None) };
    text.parse().map(Some).with_context(|| format!("{name}={text}"))
}

#[expect(clippy::print_stdout, reason = "the figures are what a long run is for")]
fn tell(figures: &Value) -> Result<()> {
    println!("{figures}");
    let Some(path) = std::env::var_os("MESHNET_CROWD_JSON") else { return Ok(()) };
    std::fs::write(&path, format!("{figures:#}\n")).context("cannot write MESHNET_CROWD_JSON")
}
