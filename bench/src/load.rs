//! One run of one row over one route.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netns_tests::{IperfReport, IperfServer, Tool, Transport};

use crate::cpu::{Snapshot, Usage};
use crate::plan::{Quantity, Row};
use crate::rig::Route;
use crate::stats::percentile;

/// Bytes in the datagrams of the packet rate.
const SMALL: u16 = 64;
/// From one ping to the next, in seconds.
const PING_INTERVAL_S: f64 = 0.005;
/// Fewer pings than this say nothing about the slowest of a hundred.
const FEWEST_PINGS: usize = 200;

/// What a run gave.
pub struct Run {
    /// The figures.
    pub figures: BTreeMap<Quantity, f64>,
    /// What else used the machine meanwhile, as [`Usage`] has it.
    pub foreign: BTreeMap<String, f64>,
}

/// Makes one run.
pub fn run(row: Row, route: &Route, time: Duration) -> Result<Run> {
    match row {
        Row::Tcp1 => tcp(route, 1, time),
        Row::Tcp4 => tcp(route, 4, time),
        Row::Udp64 => udp(route, time),
        Row::Ping => ping(route, time),
    }
}

fn tcp(route: &Route, streams: u8, time: Duration) -> Result<Run> {
    let (report, usage) = iperf(route, Transport::Tcp { streams }, time)?;
    let gigabytes = report.bytes()? / 1e9;
    ensure!(gigabytes > 0.0, "no byte of the stream arrived");
    let mut figures = BTreeMap::from([
        (Quantity::GbitPerS, report.bits_per_second()? / 1e9),
        (Quantity::CpuSPerGb, usage.machine_s / gigabytes),
    ]);
    if !route.daemons.is_empty() {
        figures.insert(Quantity::DaemonsSPerGb, usage.daemons_s / gigabytes);
    }
    Ok(Run { figures, foreign: usage.foreign })
}

fn udp(route: &Route, time: Duration) -> Result<Run> {
    let transport = Transport::Udp { payload_bytes: SMALL, bits_per_second: 0 };
    let (report, usage) = iperf(route, transport, time)?;
    let (sent, lost) = report.datagrams()?;
    let kpps = (sent - lost) / report.seconds()? / 1e3;
    Ok(Run { figures: BTreeMap::from([(Quantity::KppsDelivered, kpps)]), foreign: usage.foreign })
}

fn iperf(route: &Route, transport: Transport, time: Duration) -> Result<(IperfReport, Usage)> {
    let server = IperfServer::start(&route.receiver, &route.to)?;
    let before = Snapshot::take()?;
    let report = server.measure(&route.from, transport, time, "")?;
    let usage = Snapshot::take()?.since(&before, &route.daemons, &BTreeSet::new());
    Ok((report, usage))
}

fn ping(route: &Route, time: Duration) -> Result<Run> {
    let count = ((time.as_secs_f64() / PING_INTERVAL_S) as usize).max(FEWEST_PINGS);
    let before = Snapshot::take()?;
    let line = format!("-n -c {count} -i {PING_INTERVAL_S} {}", route.to);
    let output = Tool::new("ping").words(&line).inside(&route.from).run()?;
    let usage = Snapshot::take()?.since(&before, &[], &route.daemons.iter().copied().collect());
    let trips = round_trips(&output);
    ensure!(trips.len() * 100 >= count * 99, "only {} of {count} pings were answered", trips.len());
    let share = |percent| percentile(&trips, percent).context("no ping was answered");
    let figures = BTreeMap::from([(Quantity::P50Us, share(50.0)?), (Quantity::P99Us, share(99.0)?)]);
    Ok(Run { figures, foreign: usage.foreign })
}

/// The round trips in the output of `ping`, in microseconds.
fn round_trips(output: &str) -> Vec<f64> {
    let milliseconds = |line: &str| line.split_once("time=")?.1.split(' ').next()?.parse::<f64>().ok();
    output.lines().filter_map(milliseconds).map(|ms| ms * 1e3).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_are_read_from_each_answer() {
        let output = "PING 10.32.0.3 (10.32.0.3) 56(84) bytes of data.\n\
            64 bytes from 10.32.0.3: icmp_seq=1 ttl=64 time=0.211 ms\n\
            64 bytes from 10.32.0.3: icmp_seq=2 ttl=64 time=1.5 ms\n\
            \n--- 10.32.0.3 ping statistics ---\n2 packets transmitted, 2 received, 0% packet loss, time 5ms\n";
        assert_eq!(round_trips(output), [211.0, 1500.0]);
    }
}
