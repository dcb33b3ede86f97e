//! A mass start, rest, a change, a death: what they take and cost.

use std::fmt;
use std::time::Instant;

use anyhow::{Context, Result};
use engine::types::{IpPrefix, MacAddr, PortId};
use peering::mesh::{Endpoint, MESH_NETWORK, Mesh};
use rand::rngs::StdRng;
use rand::seq::IteratorRandom;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

use super::host::Traffic;
use super::wire::{MS, Nanos, SECOND};
use super::world::World;

/// All hosts are started within this.
const MASS_START: Nanos = 100 * MS;
/// How often it is asked whether all agree.
const STEP: Nanos = 50 * MS;
/// The longest that anything may take.
const LIMIT: Nanos = 60 * SECOND;
/// After the hosts agree, connections that were of use once are closed: that is not rest yet.
const SETTLE: Nanos = 20 * SECOND;
/// How long rest is looked at.
const REST: Nanos = 20 * SECOND;

/// Which hosts each host is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Targets {
    /// All are told the same one.
    One,
    /// Each is told one or two at random among those before it.
    Random,
    /// All are told the same list of three.
    List,
}

impl fmt::Display for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Targets::One => "the same one",
            Targets::Random => "one or two at random",
            Targets::List => "the same three",
        })
    }
}

/// The mean over all hosts, and the host that has most.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct PerHost {
    /// Mean.
    pub mean: f64,
    /// Most.
    pub max: f64,
}

/// What one trial gave. Times are virtual.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Figures {
    /// Hosts.
    pub hosts: usize,
    /// What each was told.
    pub targets: Targets,
    /// Seconds from the start of the first until all have the same state and take all for alive; none: they did not.
    pub converge_s: Option<f64>,
    /// Bytes sent until then, everything around the payload included.
    pub start_bytes: PerHost,
    /// Messages sent until then.
    pub start_messages: PerHost,
    /// Handshakes until then.
    pub start_handshakes: PerHost,
    /// Seconds of a processor until then.
    pub start_cpu_s: PerHost,
    /// Connections at rest, explicit targets included.
    pub connections: PerHost,
    /// Bytes sent in a second at rest.
    pub rest_bytes_per_s: PerHost,
    /// Messages sent in a second at rest.
    pub rest_messages_per_s: PerHost,
    /// Handshakes in a second at rest.
    pub rest_handshakes_per_s: PerHost,
    /// Part of a processor at rest, in percent.
    pub rest_cpu_percent: PerHost,
    /// Live hosts taken for down by somebody, ever.
    pub false_deaths: usize,
    /// Seconds until a new endpoint is known everywhere.
    pub change_s: Option<f64>,
    /// Seconds until the death of one host is known everywhere.
    pub death_s: Option<f64>,
    /// Seconds until the death of three hosts in ten at once is known everywhere.
    pub mass_death_s: Option<f64>,
    /// Peak memory of the process for each host, in bytes.
    pub memory_bytes: f64,
    /// What it took to simulate, in seconds.
    pub wall_s: f64,
}

/// Runs one trial.
///
/// # Errors
/// The memory of this process cannot be read.
pub fn run(hosts: usize, targets: Targets, seed: u64, verbose: bool) -> Result<Figures> {
    let clock = Instant::now();
    let memory_before = memory("VmRSS")?;
    let mut trial =
        Trial { world: World::new(seed, hosts), rng: StdRng::seed_from_u64(seed), verbose, stuck: 0 };
    trial.start(targets);
    let converge = trial.until(0, Trial::agrees);
    let start = trial.traffic();
    trial.tell_kinds("start");
    let memory_bytes = (memory("VmHWM")?.saturating_sub(memory_before)) as f64 / hosts as f64;
    trial.world.run(SETTLE);
    let before = trial.traffic();
    trial.world.kinds.clear();
    trial.world.run(REST);
    let rest: Vec<Traffic> =
        trial.traffic().iter().zip(&before).map(|(after, before)| less(after, before)).collect();
    trial.tell_kinds("rest");
    let false_deaths = trial.false_deaths();
    let connections =
        per_host(&trial.world.hosts.iter().map(|host| host.conns.len() as f64).collect::<Vec<_>>());
    let change = trial.change();
    let death = trial.death(1);
    let mass_death = trial.death(hosts * 3 / 10);
    let seconds = |time: Nanos| time as f64 / SECOND as f64;
    let each = |traffic: &[Traffic], what: fn(&Traffic) -> f64, by: f64| {
        per_host(&traffic.iter().map(|traffic| what(traffic) / by).collect::<Vec<_>>())
    };
    let rest_s = seconds(REST);
    Ok(Figures {
        hosts,
        targets,
        converge_s: converge.map(seconds),
        start_bytes: each(&start, |traffic| traffic.sent as f64, 1.0),
        start_messages: each(&start, |traffic| traffic.messages as f64, 1.0),
        start_handshakes: each(&start, |traffic| traffic.handshakes as f64, 1.0),
        start_cpu_s: each(&start, |traffic| traffic.busy as f64, SECOND as f64),
        connections,
        rest_bytes_per_s: each(&rest, |traffic| traffic.sent as f64, rest_s),
        rest_messages_per_s: each(&rest, |traffic| traffic.messages as f64, rest_s),
        rest_handshakes_per_s: each(&rest, |traffic| traffic.handshakes as f64, rest_s),
        rest_cpu_percent: each(&rest, |traffic| traffic.busy as f64, REST as f64 / 100.0),
        false_deaths,
        change_s: change.map(seconds),
        death_s: death.map(seconds),
        mass_death_s: mass_death.map(seconds),
        memory_bytes,
        wall_s: clock.elapsed().as_secs_f64(),
    })
}

struct Trial {
    world: World,
    rng: StdRng,
    verbose: bool,
    /// The host that did not agree when last asked: it is asked first.
    stuck: usize,
}

impl Trial {
    fn start(&mut self, targets: Targets) {
        let hosts = self.world.hosts.len();
        let mut order: Vec<(Nanos, usize)> =
            (0..hosts).map(|number| (self.rng.random_range(0..MASS_START), number)).collect();
        order.sort_unstable();
        for (at, number) in order {
            self.world.run(at - self.world.now);
            let told = match targets {
                Targets::One => vec![0],
                Targets::List => (0..3.min(hosts)).collect(),
                Targets::Random if number == 0 => Vec::new(),
                Targets::Random => {
                    let wanted = self.rng.random_range(1..=2);
                    (0..number).sample(&mut self.rng, wanted)
                }
            };
            self.world.start(number, &told);
        }
    }

    /// How long after `begin` something holds.
    fn until(&mut self, begin: Nanos, holds: impl Fn(&mut Trial) -> bool) -> Option<Nanos> {
        let mut told = 0;
        while self.world.now - begin <= LIMIT {
            if holds(self) {
                return Some(self.world.now - begin);
            }
            self.world.run(STEP);
            if self.verbose && self.world.now / SECOND != told {
                told = self.world.now / SECOND;
                self.tell();
            }
        }
        None
    }

    /// All have the same state, and take all for alive.
    fn agrees(&mut self) -> bool {
        let running = self.world.running();
        let others = running.len() - 1;
        let Some(first) = running.first().and_then(|&number| self.world.hosts[number].mesh.as_ref()) else {
            return true;
        };
        let hash = first.state_hash();
        let agrees = |mesh: &Mesh| mesh.alive() == others && mesh.state_hash() == hash;
        let stuck = self.stuck;
        let odd = [stuck]
            .into_iter()
            .chain(running)
            .find(|&number| self.world.hosts[number].mesh.as_ref().is_some_and(|mesh| !agrees(mesh)));
        self.stuck = odd.unwrap_or(stuck);
        odd.is_none()
    }

    fn traffic(&self) -> Vec<Traffic> {
        self.world.hosts.iter().map(|host| host.traffic).collect()
    }

    fn false_deaths(&self) -> usize {
        let meshes = self.world.hosts.iter().filter_map(|host| host.mesh.as_ref());
        meshes.map(|mesh| mesh.events().filter(|event| event.kind == "host_down").count()).sum()
    }

    fn change(&mut self) -> Option<Nanos> {
        let number = self.rng.random_range(0..self.world.hosts.len());
        let endpoint = Endpoint {
            port: PortId([7; 8]),
            network: MESH_NETWORK,
            name: "change".to_owned(),
            aliases: Vec::new(),
            container: "change".to_owned(),
            mac: MacAddr::local([1, 2, 3, 4, 5, 6]),
            addresses: vec![IpPrefix { addr: [10, 32, 0, 9].into(), len: 12 }],
            ifname: "mesh0".to_owned(),
            running: true,
            explicit: false,
            docker_id: None,
        };
        self.world.with_mesh(number, |mesh, now| mesh.put_endpoint(now, endpoint));
        self.until(self.world.now, Trial::agrees)
    }

    /// Kills so many hosts at once.
    fn death(&mut self, count: usize) -> Option<Nanos> {
        let dead = self.world.running().into_iter().sample(&mut self.rng, count);
        dead.iter().for_each(|&number| self.world.kill(number));
        self.stuck = self.world.running().first().copied().unwrap_or(0);
        self.until(self.world.now, |trial| {
            let running = trial.world.running();
            let others = running.len() - 1;
            running
                .iter()
                .all(|&number| trial.world.hosts[number].mesh.as_ref().is_some_and(|m| m.alive() == others))
        })
    }

    #[expect(clippy::print_stderr, reason = "what a person asked for who waits")]
    fn tell(&self) {
        let hosts = &self.world.hosts;
        let meshes: Vec<&Mesh> = hosts.iter().filter_map(|host| host.mesh.as_ref()).collect();
        let alive: Vec<f64> = meshes.iter().map(|mesh| mesh.alive() as f64).collect();
        let conns: Vec<f64> = hosts.iter().map(|host| host.conns.len() as f64).collect();
        let sent: Vec<f64> = hosts.iter().map(|host| host.traffic.sent as f64 / 1e6).collect();
        let busy: Vec<f64> = hosts.iter().map(|host| host.traffic.busy as f64 / 1e9).collect();
        let shakes: Vec<f64> = hosts.iter().map(|host| host.traffic.handshakes as f64).collect();
        let inbox = hosts.iter().map(|host| host.inbox.len()).max().unwrap_or(0);
        let least = alive.iter().copied().fold(f64::MAX, f64::min);
        eprintln!(
            "{:>5.1} s: alive {:.0} (least {least:.0}), connections {:.1} (most {:.0}), MB {:.2} ({:.1}), processor s {:.2} \
             ({:.2}), handshakes {:.0} ({:.0}), most waits {inbox}",
            self.world.now as f64 / 1e9,
            per_host(&alive).mean,
            per_host(&conns).mean,
            per_host(&conns).max,
            per_host(&sent).mean,
            per_host(&sent).max,
            per_host(&busy).mean,
            per_host(&busy).max,
            per_host(&shakes).mean,
            per_host(&shakes).max,
        );
    }

    #[expect(clippy::print_stderr, reason = "what a person asked for who waits")]
    fn tell_kinds(&self, when: &str) {
        if self.verbose {
            for (kind, (count, bytes)) in &self.world.kinds {
                eprintln!("{when}: kind {kind}: {count} messages, {:.1} MB", *bytes as f64 / 1e6);
            }
        }
    }
}

fn less(after: &Traffic, before: &Traffic) -> Traffic {
    Traffic {
        sent: after.sent - before.sent,
        received: after.received - before.received,
        messages: after.messages - before.messages,
        handshakes: after.handshakes - before.handshakes,
        busy: after.busy - before.busy,
    }
}

fn per_host(all: &[f64]) -> PerHost {
    PerHost {
        mean: all.iter().sum::<f64>() / all.len().max(1) as f64,
        max: all.iter().copied().fold(0.0, f64::max),
    }
}

/// A line of /proc/self/status, in bytes.
fn memory(line: &str) -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    let found = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
    let number = found.and_then(|text| text.trim().split(' ').next()?.parse::<u64>().ok());
    Ok(number.context("the kernel does not tell the memory of this process")? * 1024)
}
