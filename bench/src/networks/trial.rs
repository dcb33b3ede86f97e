//! One run.

use std::net::IpAddr;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use netns_tests::{Attached, Container, Host, Topology, Value, pause, secs, wait_until};
use tokio::sync::oneshot;

use super::member::{self, Plan};
use super::question::ask;
use super::{Figures, Times};
use crate::machine::Machine;
use crate::options::progress;

/// Hosts with containers.
const HOSTS: usize = 5;
/// Members, which have the other endpoints: a host is on 512 networks at most.
const MEMBERS: usize = 2;
/// How often each question that changes nothing is asked.
const ROUNDS: usize = 20;
/// How often the gateway is asked for each name.
const QUESTIONS: u16 = 200;
/// How long the hosts may take to agree, and the members to have all addresses.
const PATIENCE: Duration = Duration::from_secs(600);
/// How long the daemons are looked at when nothing happens.
const REST: Duration = Duration::from_secs(10);

/// The name of what is promised of attaching a container.
pub const ATTACH: &str = "attach";
/// The name of what is promised of listing all networks.
pub const LIST: &str = "network ls";

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Networks beside `mesh`.
    pub networks: usize,
    /// Endpoints on them.
    pub endpoints: usize,
    /// How many of these are ports of containers.
    pub ports: usize,
}

/// Times by what was timed.
#[derive(Default)]
struct Clocked(Vec<(String, Vec<f64>)>);

impl Clocked {
    fn time<T>(&mut self, what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let start = Instant::now();
        let result = work().with_context(|| what.to_owned())?;
        self.add(what, [start.elapsed().as_secs_f64() * 1e3]);
        Ok(result)
    }

    fn add(&mut self, what: &str, times_ms: impl IntoIterator<Item = f64>) {
        match self.0.iter_mut().find(|(name, _)| name == what) {
            Some((_, all)) => all.extend(times_ms),
            None => self.0.push((what.to_owned(), times_ms.into_iter().collect())),
        }
    }

    fn sum_up(self) -> Vec<(String, Times)> {
        self.0.into_iter().filter_map(|(what, times)| Some((what, Times::of(&times)?))).collect()
    }
}

/// Makes it all, and measures.
///
/// # Errors
/// Something does not work, whatever time it takes.
pub fn run(size: Size) -> Result<Figures> {
    ensure!(size.ports >= HOSTS && size.endpoints >= size.ports, "there are {HOSTS} hosts, each has a port");
    let net = Topology::new("many networks")?.hosts((HOSTS + MEMBERS) as u8)?;
    let hosts = &net.all()[..HOSTS];
    for (number, host) in hosts.iter().enumerate() {
        host.launch(if number == 0 { &["--found"] } else { &["node01"] })?;
    }
    net.wait_converged_among(HOSTS, secs(30))?;
    let mut clocked = Clocked::default();
    make_networks(&mut clocked, hosts, size.networks)?;

    let (told, filled) = channel();
    let figures = std::thread::scope(|scope| {
        let mut leaves = Vec::new();
        for (plan, host) in plans(&net, size).into_iter().zip(&net.all()[HOSTS..]) {
            let (leave, left) = oneshot::channel();
            leaves.push(leave);
            let told = told.clone();
            scope.spawn(move || host.namespace().run(|| member::run(plan, &told, left)));
        }
        progress("the members make their endpoints");
        let mut longest = Duration::ZERO;
        for _ in 0..MEMBERS {
            longest = longest.max(filled.recv_timeout(PATIENCE).context("the members are too slow")??);
        }
        let clock = Instant::now();
        agree(hosts)?;
        let agreed = clock.elapsed();
        let attached = attach(&mut clocked, hosts, size)?;
        agree(hosts)?;
        look(&mut clocked, hosts, &attached, size)?;
        progress("nothing happens");
        let rest_percent = at_rest(hosts)?;
        figures(size, clocked, (longest, agreed), hosts, rest_percent)
    })?;
    drop(net.quiet());
    Ok(figures)
}

fn network_name(number: usize) -> String {
    format!("net{number:04}")
}

fn make_networks(clocked: &mut Clocked, hosts: &[Host], count: usize) -> Result<()> {
    for (number, host) in (0..count).zip(hosts.iter().cycle()) {
        if number % 50 == 0 {
            progress(&format!("network {number} of {count}"));
        }
        clocked.time("network create", || host.run(&["network", "create", &network_name(number)]))?;
    }
    Ok(())
}

/// Each member has half of the networks, and the endpoints on them that are no ports.
fn plans(net: &Topology, size: Size) -> Vec<Plan> {
    let mut networks: Vec<(String, Vec<String>)> =
        (0..size.networks).map(|number| (network_name(number), Vec::new())).collect();
    for endpoint in 0..size.endpoints - size.ports {
        networks[endpoint % size.networks].1.push(format!("e{endpoint}"));
    }
    let halves = networks.chunks(size.networks.div_ceil(MEMBERS));
    let members = halves.zip(&net.all()[HOSTS..]);
    members
        .map(|(endpoints, host)| Plan {
            nickname: host.name().to_owned(),
            state_dir: host.state_dir(),
            address: host.address().into(),
            target: net.host(0).address().into(),
            endpoints: endpoints.to_vec(),
        })
        .collect()
}

/// All hosts have the same state.
fn agree(hosts: &[Host]) -> Result<()> {
    progress("the hosts come to agree");
    let state = |host: &Host| -> Result<Option<String>> {
        Ok(host.status()?.get("state_hash").and_then(Value::as_str).map(str::to_owned))
    };
    wait_until("all hosts have the same state", PATIENCE, || {
        let states = hosts.iter().map(state).collect::<Result<Vec<_>>>()?;
        ensure!(states.iter().all(|state| state.is_some() && *state == states[0]), "{states:?}");
        Ok(())
    })
}

/// The ports are spread over all hosts, and each host has some on the same networks as the others.
fn attach(clocked: &mut Clocked, hosts: &[Host], size: Size) -> Result<Vec<Attached>> {
    let step = (size.networks * HOSTS / size.ports).max(1);
    let mut all = Vec::new();
    for number in 0..size.ports {
        if number % 10 == 0 {
            progress(&format!("port {number} of {}", size.ports));
        }
        let container = Container::new(&format!("w{number}"))?;
        let network = network_name(number / HOSTS * step % size.networks);
        let host = &hosts[number % HOSTS];
        all.push(clocked.time(ATTACH, || host.attach_to(&container, &network, &[]))?);
    }
    Ok(all)
}

/// Questions that change nothing. What is answered is looked at too.
fn look(clocked: &mut Clocked, hosts: &[Host], attached: &[Attached], size: Size) -> Result<()> {
    for round in 0..ROUNDS {
        progress(&format!("round {round} of {ROUNDS}"));
        let host = &hosts[round % HOSTS];
        let listed = clocked.time(LIST, || host.run(&["network", "ls"]))?;
        ensure!(listed.lines().count() == size.networks + 2, "{} lines of networks", listed.lines().count());
        let (first, last) = (network_name(0), network_name(size.networks - 1));
        let inspected = clocked.time("network inspect", || host.inspect(&first))?;
        ensure!(endpoints_in(&inspected) >= HOSTS, "no endpoints in {inspected}");
        let inspected = clocked.time("network inspect, elsewhere", || host.inspect(&last))?;
        ensure!(endpoints_in(&inspected) >= size.endpoints / size.networks / 2, "too few in {inspected}");
        let rows = clocked.time("ps", || host.ps())?;
        ensure!(rows.len() == size.endpoints, "{} endpoints of {}", rows.len(), size.endpoints);
        clocked.time("status", || host.status())?;
    }
    resolve(clocked, &hosts[0], attached)
}

fn endpoints_in(inspected: &Value) -> usize {
    inspected.get("Containers").and_then(Value::as_object).map_or(0, serde_json::Map::len)
}

/// A container of the first host asks for names on its network, and on another one that it is put on.
fn resolve(clocked: &mut Clocked, host: &Host, attached: &[Attached]) -> Result<()> {
    let asker = attached.first().context("nobody asks")?;
    let inspected = host.inspect(&network_name(0))?;
    let gateway = inspected.pointer("/IPAM/Config/0/Gateway").and_then(Value::as_str);
    let gateway: IpAddr = gateway.with_context(|| format!("no gateway in {inspected}"))?.parse()?;
    let far = attached.get(1).context("no other host has a port")?.name();
    let mut names =
        vec![("resolve, port of another host", far.to_owned()), ("resolve, record", "e0".to_owned())];
    if let Some(other) = attached.get(HOSTS + 1) {
        let network = other.told.get("network").and_then(Value::as_str).context("attached to nothing")?;
        host.attach_to(asker, network, &[])?;
        names.push(("resolve, another network", format!("{}.{network}", other.name())));
    }
    for (what, name) in names {
        clocked.add(what, ask(asker.namespace(), gateway, &name, QUESTIONS)?);
    }
    Ok(())
}

/// The part of a core that each daemon uses, in percent.
fn at_rest(hosts: &[Host]) -> Result<Vec<f64>> {
    let busy = || hosts.iter().map(|host| Ok(host.usage()?.0)).collect::<Result<Vec<_>>>();
    let before = busy()?;
    pause(REST);
    let after = busy()?;
    let shares = before.iter().zip(&after).map(|(before, after)| (*after - *before).as_secs_f64());
    Ok(shares.map(|used| used / REST.as_secs_f64() * 100.0).collect())
}

fn figures(
    size: Size,
    clocked: Clocked,
    (filled, agreed): (Duration, Duration),
    hosts: &[Host],
    rest_percent: Vec<f64>,
) -> Result<Figures> {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let memory = hosts.iter().map(|host| Ok(mib(host.usage()?.1)));
    Ok(Figures {
        machine: Machine::read()?,
        hosts: HOSTS,
        networks: size.networks,
        endpoints: size.endpoints,
        ports: size.ports,
        times_ms: clocked.sum_up(),
        filled_s: filled.as_secs_f64(),
        agreed_s: agreed.as_secs_f64(),
        memory_mib: memory.collect::<Result<_>>()?,
        state_mib: mib(std::fs::metadata(hosts[0].state_dir().join("state"))?.len()),
        rest_percent,
    })
}
