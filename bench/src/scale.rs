//! What more ports, more peers and more stations cost: instructions and time for a frame, and memory.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use engine::fdb::MAX_LEARNED;
use engine::switch::Port;
use engine::types::Vni;
use engine::wire::ether;
use netns_tests::{Attached, Host, Topology, pause, secs};
use serde::{Deserialize, Serialize};

use crate::callgrind;
use crate::cases;
use crate::cpu::memory;
use crate::machine::Machine;
use crate::options::progress;
use crate::stats::Sample;
use crate::table::{aligned, figure};
use crate::world::{RoundTrip, World};

/// How many ports or peers.
pub const COUNTS: [u32; 5] = [2, 10, 100, 300, 1000];

/// Stations that are offered to a table of learned ones.
pub const STATIONS: u32 = 100_000;

/// Frames timed at a time, half of them out, half in.
const TIMED: u64 = 20_000;

/// Ports and peers of the host whose memory has a budget.
const FEW: u8 = 10;

/// Ports of the same host when it has many.
const MANY: u8 = 50;

/// How long a daemon is watched at rest.
const REST: Duration = Duration::from_secs(10);

/// Everything of one run of `scale`, as its JSON has it.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Scale {
    /// What it was measured on.
    #[serde(flatten)]
    pub machine: Machine,
    /// Runs of each timing; the points take turns.
    pub runs: usize,
    /// The path through hosts of different sizes.
    pub points: Vec<Point>,
    /// A table of learned stations under more than it holds.
    pub learned: Option<Stations>,
    /// What a daemon holds.
    pub memory: Option<Memory>,
    /// The micro-benchmarks.
    pub micro: Vec<Micro>,
}

/// What there is many of.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Local ports, and two peers.
    Ports,
    /// Peers, and two local ports.
    Peers,
}

/// A host of one size, through which a small frame goes out and one comes in.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Point {
    /// What there is many of.
    pub kind: Kind,
    /// How many.
    pub count: u32,
    /// Instructions for one frame, the mean of one out and one in.
    pub instructions_per_frame: f64,
    /// Nanoseconds for one frame, likewise.
    pub ns_per_frame: Sample,
}

/// A table of learned stations.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stations {
    /// Stations that sent.
    pub offered: u32,
    /// Stations in the table afterwards.
    pub held: usize,
    /// What the table is allowed to hold.
    pub bound: usize,
}

/// What one daemon needs: resident memory in bytes (`VmRSS`), and processor time.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Debug)]
pub struct Memory {
    /// Without a peer or a port.
    pub alone: u64,
    /// With 10 peers.
    pub peers10: u64,
    /// With 10 peers and 10 ports.
    pub ports10: u64,
    /// With 10 peers and 50 ports.
    pub ports50: u64,
    /// What a peer adds.
    pub per_peer: f64,
    /// What a port adds.
    pub per_port: f64,
    /// Processor time with 10 peers and 10 ports while no container sends anything, in percent of one processor.
    pub rest_percent: f64,
}

/// One micro-benchmark.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Micro {
    /// Its name.
    pub name: String,
    /// Instructions for one iteration.
    pub instructions: f64,
    /// Nanoseconds for one iteration.
    pub ns: Sample,
}

/// The work of a child under valgrind: `ports=N`, `peers=N`, or the name of a micro-benchmark.
pub fn child(what: &str) -> Result<cases::Work> {
    let host = match what.split_once('=') {
        Some(("ports", count)) => Some(World::new(count.parse()?, 2)?),
        Some(("peers", count)) => Some(World::new(2, count.parse()?)?),
        _ => None,
    };
    match (host, cases::find(what)) {
        (Some(world), _) => {
            let mut trip = RoundTrip::new(&world)?;
            Ok(Box::new(move || {
                std::hint::black_box(trip.step());
            }))
        }
        (None, Some(case)) => (case.make)(),
        (None, None) => bail!("nothing is called {what:?}"),
    }
}

/// Measures hosts of all sizes.
pub fn points(runs: usize) -> Result<Vec<Point>> {
    let kinds = [(Kind::Ports, "ports"), (Kind::Peers, "peers")];
    let all: Vec<(Kind, u32, String)> = kinds
        .iter()
        .flat_map(|(kind, name)| COUNTS.map(|count| (*kind, count, format!("{name}={count}"))))
        .collect();
    let mut works = all.iter().map(|(_, _, what)| child(what)).collect::<Result<Vec<_>>>()?;
    let times = timed(&mut works, runs);
    let point = |((kind, count, what), ns): (&(Kind, u32, String), Vec<f64>)| {
        progress(&format!("instructions with {what}"));
        let halves: Vec<f64> = ns.iter().map(|ns| ns / 2.0).collect();
        Ok(Point {
            kind: *kind,
            count: *count,
            instructions_per_frame: callgrind::instructions(what)? / 2.0,
            ns_per_frame: Sample::of(&halves).context("no run")?,
        })
    };
    all.iter().zip(times).map(point).collect()
}

/// Runs the micro-benchmarks.
pub fn micro(runs: usize) -> Result<Vec<Micro>> {
    let mut works = cases::ALL.iter().map(|case| (case.make)()).collect::<Result<Vec<_>>>()?;
    let times = timed(&mut works, runs);
    let one = |(case, ns): (&cases::Case, Vec<f64>)| {
        progress(&format!("instructions of {}", case.name));
        let instructions = callgrind::instructions(case.name)?;
        Ok(Micro { name: case.name.to_owned(), instructions, ns: Sample::of(&ns).context("no run")? })
    };
    cases::ALL.iter().zip(times).map(one).collect()
}

/// Nanoseconds of one iteration of each, run after run, in turns.
fn timed(works: &mut [cases::Work], runs: usize) -> Vec<Vec<f64>> {
    let mut times = vec![Vec::new(); works.len()];
    for _ in 0..runs {
        for (work, times) in works.iter_mut().zip(&mut times) {
            // Once more than a cache can have forgotten.
            callgrind::repeat(work, TIMED / 20);
            let start = Instant::now();
            callgrind::repeat(work, TIMED);
            times.push(start.elapsed().as_nanos() as f64 / TIMED as f64);
        }
    }
    times
}

/// Lets more stations speak than a table holds: at a peer, since a port has but its own.
pub fn stations() -> Result<Stations> {
    let world = World::new(2, 2)?;
    let mut switch = world.switch();
    let to = world.stations.macs[0];
    for number in 0..STATIONS {
        let [_, a, b, c] = number.to_be_bytes();
        let from = engine::types::MacAddr([0x02, 0x30, 0, a, b, c]);
        let frame = ether::header(to, from, ether::IPV4);
        switch.forward(world.epoch, Port::Remote(world.remote), Vni::MESH, &frame);
    }
    let network = world.tables.network(Vni::MESH).context("the network is gone")?;
    let stations = Stations { offered: STATIONS, held: network.learned().len(), bound: MAX_LEARNED };
    ensure!(stations.held > 0, "nothing was learned");
    Ok(stations)
}

/// Measures a real daemon: alone, with peers, and with ports.
pub fn daemon_memory() -> Result<Memory> {
    let topology = Topology::new("memory of a daemon")?.hosts(FEW + 1)?;
    let host = topology.host(0);
    progress("memory: a daemon alone");
    host.launch(&[])?;
    let alone = settled(host)?;
    progress("memory: ten peers");
    topology.all().iter().skip(1).try_for_each(|other| other.launch(&["node01"]))?;
    host.wait(&format!("peers={FEW}"), secs(30))?;
    let peers10 = settled(host)?;
    progress("memory: ten ports");
    let mut attached = attach(host, 0..FEW)?;
    let ports10 = settled(host)?;
    let rest_percent = at_rest(host)?;
    progress("memory: fifty ports");
    attached.extend(attach(host, FEW..MANY)?);
    let ports50 = settled(host)?;
    drop((attached, topology.quiet()));
    progress("");
    let per = |more: u64, less: u64, count: u8| (more as f64 - less as f64) / f64::from(count);
    let (per_peer, per_port) = (per(peers10, alone, FEW), per(ports50, ports10, MANY - FEW));
    Ok(Memory { alone, peers10, ports10, ports50, per_peer, per_port, rest_percent })
}

fn attach(host: &Host, numbers: std::ops::Range<u8>) -> Result<Vec<Attached>> {
    numbers.map(|number| host.attach(&format!("c{number}"))).collect()
}

/// Percent of one processor that a daemon needs to do nothing.
fn at_rest(host: &Host) -> Result<f64> {
    let (before, _) = host.usage()?;
    let start = Instant::now();
    pause(REST);
    let (after, _) = host.usage()?;
    Ok((after - before).as_secs_f64() / start.elapsed().as_secs_f64() * 100.0)
}

/// What the daemon holds when the other hosts know of the last change too.
fn settled(host: &Host) -> Result<u64> {
    pause(secs(2));
    host.daemon_pid().and_then(memory).with_context(|| format!("no daemon runs on {}", host.name()))
}

impl Scale {
    /// The most instructions for a frame of all sizes, divided by those of the smallest; none without points.
    pub fn growth(&self, kind: Kind) -> Option<f64> {
        let points: Vec<&Point> = self.points.iter().filter(|point| point.kind == kind).collect();
        let smallest = points.iter().min_by_key(|point| point.count)?.instructions_per_frame;
        let most = points.iter().map(|point| point.instructions_per_frame).max_by(f64::total_cmp)?;
        Some(most / smallest)
    }

    /// What was measured on, and how.
    pub fn headline(&self) -> String {
        format!("{}; times are the median of {} interleaved runs (spread)", self.machine, self.runs)
    }

    /// The tables as Markdown.
    pub fn markdown(&self) -> String {
        let parts = [
            self.points_table(),
            self.learned.as_ref().map(Stations::to_string),
            self.memory.as_ref().map(Memory::markdown),
            self.micro_table(),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join("\n")
    }

    fn points_table(&self) -> Option<String> {
        let head = ["host", "instructions a frame", "ns a frame"].map(str::to_owned).to_vec();
        let row = |point: &Point| {
            let what = match point.kind {
                Kind::Ports => "ports",
                Kind::Peers => "peers",
            };
            let instructions = format!("{:.1}", point.instructions_per_frame);
            vec![format!("{} {what}", point.count), instructions, cell(&point.ns_per_frame)]
        };
        let rows: Vec<_> = std::iter::once(head).chain(self.points.iter().map(row)).collect();
        (rows.len() > 1).then(|| aligned(&rows))
    }

    fn micro_table(&self) -> Option<String> {
        let head = ["micro-benchmark", "instructions", "ns"].map(str::to_owned).to_vec();
        let row =
            |micro: &Micro| vec![micro.name.clone(), format!("{:.1}", micro.instructions), cell(&micro.ns)];
        let rows: Vec<_> = std::iter::once(head).chain(self.micro.iter().map(row)).collect();
        (rows.len() > 1).then(|| aligned(&rows))
    }
}

impl Memory {
    fn markdown(&self) -> String {
        let mib = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
        let kib = |bytes: f64| format!("{:.0} KiB", bytes / 1024.0);
        let row = |what: &str, figure: String| vec![what.to_owned(), figure];
        aligned(&[
            row("a daemon with", "resident, MiB".to_owned()),
            row("nothing", mib(self.alone)),
            row("10 peers", mib(self.peers10)),
            row("10 peers, 10 ports", mib(self.ports10)),
            row("10 peers, 50 ports", mib(self.ports50)),
            row("each further peer", kib(self.per_peer)),
            row("each further port", kib(self.per_port)),
        ]) + &format!(
            "\nAt rest, with 10 peers and 10 ports, it needs {:.2} % of a processor.\n",
            self.rest_percent
        )
    }
}

impl std::fmt::Display for Stations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Stations { offered, held, bound } = self;
        writeln!(
            f,
            "Of {offered} stations that sent, {held} are in the table of learned ones; its bound is {bound}."
        )
    }
}

fn cell(sample: &Sample) -> String {
    format!("{} ({:.0} %)", figure(sample.median), sample.spread() * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_table_stays_within_its_bound() {
        let stations = stations().unwrap();
        assert!(stations.held <= stations.bound && stations.offered > stations.bound as u32);
    }

    #[test]
    fn a_child_knows_sizes_and_names() {
        child("ports=3").unwrap()();
        child("peers=3").unwrap()();
        child(cases::ALL[0].name).unwrap()();
        assert!(child("ports=many").is_err() && child("nothing").is_err());
    }

    #[test]
    fn works_are_timed_in_turns() {
        let mut works: Vec<cases::Work> = vec![Box::new(|| {}), Box::new(|| {})];
        let times = timed(&mut works, 3);
        assert!(times.iter().all(|times| times.len() == 3));
    }
}
