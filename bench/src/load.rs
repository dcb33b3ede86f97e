//! One run of one row over one route.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use engine::wire::vxlan;
use netns_tests::{Flood, IperfReport, IperfServer, Transport, pause};

use crate::blast::{self, FLOOD64, FLOOD1400, IMIX, Pattern, SPREAD};
use crate::cases::{self, STRANGER};
use crate::column::{Flooded, Lane, Route};
use crate::cpu::{Snapshot, peak_memory};
use crate::echo;
use crate::plan::{Quantity, Row};
use crate::stats::{mean, percentile};
use crate::watchdog;

/// How much longer than its traffic a run may take.
const SLACK: Duration = Duration::from_secs(20);

/// How long a stream runs before echoes beside it count.
const WARM_UP: Duration = Duration::from_millis(500);

/// Echoes from which on the slowest of a thousand says something.
const FEWEST_FOR_P999: usize = 1000;

/// A port that is bound and not read.
const UNREAD: u16 = 4790;

/// What a run gave.
pub struct Run {
    /// The figures.
    pub figures: Figures,
    /// What else used the machine meanwhile, as [`crate::cpu::Usage`] has it.
    pub foreign: BTreeMap<String, f64>,
}

/// Figures by what they are.
pub type Figures = BTreeMap<Quantity, f64>;

/// Makes one run; `own` are the daemons of all columns. Ends in time, whatever happens.
pub fn run(row: Row, lane: &Lane, own: &BTreeSet<u32>, time: Duration) -> Result<Run> {
    watchdog::within(time + SLACK, || {
        let before = Snapshot::take()?;
        let route = &lane.route;
        let figures = match row {
            Row::Tcp1 | Row::Local => tcp(lane, 1, "", time),
            Row::Tcp1r => tcp(lane, 1, "-R", time),
            Row::Tcp4 => tcp(lane, 4, "", time),
            Row::Tcp4r => tcp(lane, 4, "-R", time),
            Row::Udp64 => pattern(route, FLOOD64, time),
            Row::Udp64i => iperf_udp(route, 64, time),
            Row::Udp1400 => pattern(route, FLOOD1400, time),
            Row::Spread64 => pattern(route, SPREAD, time),
            Row::Imix => pattern(route, IMIX, time),
            Row::Flooded => under_flood(lane, vxlan::PORT, |_| cases::initiation(&STRANGER), time),
            Row::Meant => under_flood(lane, vxlan::PORT, cases::initiation, time),
            Row::Unread => under_flood(lane, UNREAD, cases::initiation, time),
            Row::Rtt1 => echoes(route, 1.0, time),
            Row::Rtt100 => echoes(route, 100.0, time),
            Row::Loaded => loaded(route, time),
        }?;
        let foreign = Snapshot::take()?.since(&before, &route.daemons, own).foreign;
        Ok(Run { figures, foreign })
    })
}

fn tcp(lane: &Lane, streams: u8, more: &str, time: Duration) -> Result<Figures> {
    let route = &lane.route;
    let server = IperfServer::start(&route.end()?.namespace, &route.end()?.address)?;
    let before = Snapshot::take()?;
    let report = server.measure(&route.from, Transport::Tcp { streams }, time, more)?;
    let usage = Snapshot::take()?.since(&before, &route.daemons, &BTreeSet::new());
    let gigabytes = report.bytes()? / 1e9;
    ensure!(gigabytes > 0.0, "no byte of the stream arrived");
    let mut figures = BTreeMap::from([
        (Quantity::GbitPerS, report.bits_per_second()? / 1e9),
        (Quantity::CpuSPerGb, usage.machine_s / gigabytes),
    ]);
    if let Some(again) = report.retransmits() {
        figures.insert(Quantity::RetransmitsPerGb, again as f64 / gigabytes);
    }
    if lane.daemon_hosts > 0 {
        figures.insert(Quantity::DaemonsSPerGb, usage.daemons_s / gigabytes);
        let peak: u64 = route.daemons.iter().filter_map(|pid| peak_memory(*pid)).sum();
        figures.insert(Quantity::PeakMib, peak as f64 / f64::from(1 << 20) / lane.daemon_hosts as f64);
    }
    Ok(figures)
}

fn iperf_udp(route: &Route, payload_bytes: u16, time: Duration) -> Result<Figures> {
    let transport = Transport::Udp { payload_bytes, bits_per_second: 0 };
    let server = IperfServer::start(&route.end()?.namespace, &route.end()?.address)?;
    let report: IperfReport = server.measure(&route.from, transport, time, "")?;
    let (sent, lost) = report.datagrams()?;
    ensure!(sent > 0.0, "no datagram was sent");
    Ok(BTreeMap::from([
        (Quantity::KppsDelivered, (sent - lost) / report.seconds()? / 1e3),
        (Quantity::LostPercent, lost / sent * 100.0),
    ]))
}

fn pattern(route: &Route, pattern: Pattern, time: Duration) -> Result<Figures> {
    let counts = blast::blast(route, pattern, time)?;
    ensure!(counts.received > 0, "none of {} datagrams arrived", counts.sent);
    Ok(BTreeMap::from([
        (Quantity::KppsDelivered, counts.kpps()),
        (Quantity::LostPercent, counts.lost_percent()),
    ]))
}

fn echoes(route: &Route, per_second: f64, time: Duration) -> Result<Figures> {
    let echoes = echo::measure(route, Duration::from_secs_f64(1.0 / per_second), time)?;
    let count = echoes.trips_us.len() + echoes.lost;
    ensure!(echoes.lost * 100 <= count, "{} of {count} echoes were lost", echoes.lost);
    ensure!(!echoes.trips_us.is_empty(), "no echo in {time:?}");
    Ok(trip_figures(&echoes.trips_us))
}

fn trip_figures(trips_us: &[f64]) -> Figures {
    let shares = [(Quantity::P50Us, 50.0), (Quantity::P99Us, 99.0), (Quantity::P999Us, 99.9)];
    let enough = |quantity: Quantity| quantity != Quantity::P999Us || trips_us.len() >= FEWEST_FOR_P999;
    let shares = shares.into_iter().filter(|(quantity, _)| enough(*quantity));
    let percentiles = shares.filter_map(|(quantity, share)| Some((quantity, percentile(trips_us, share)?)));
    percentiles.chain(mean(trips_us).map(|mean| (Quantity::AvgUs, mean))).collect()
}

/// Echoes beside one TCP stream that starts before and ends after them.
fn loaded(route: &Route, time: Duration) -> Result<Figures> {
    let server = IperfServer::start(&route.end()?.namespace, &route.end()?.address)?;
    let stream = server.stream_with(&route.from, Transport::TCP, time + WARM_UP * 3, "")?;
    pause(WARM_UP);
    let mut figures = echoes(route, 100.0, time)?;
    figures.insert(Quantity::GbitPerS, stream.finish()?.bits_per_second()? / 1e9);
    Ok(figures)
}

/// One stream beside initiations, made for a key, to a port of the host that receives it. The receiver of the stream is busiest there.
fn under_flood(
    lane: &Lane,
    port: u16,
    make: impl Fn(&[u8; 32]) -> Vec<u8>,
    time: Duration,
) -> Result<Figures> {
    let Flooded { from, to, key } = lane.flooded.as_ref().context("nobody floods this lane")?;
    let end = lane.route.end()?;
    let IpAddr::V4(address) = to.address else { bail!("{} is no IPv4 address", to.address) };
    let _unread = to.namespace.hold_port(UNREAD)?;
    let server = IperfServer::start(&end.namespace, &end.address)?;
    let flood = Flood::start(from, SocketAddrV4::new(address, port), &make(key))?;
    pause(WARM_UP);
    let report = server.measure(&lane.route.from, Transport::TCP, time, "")?;
    let peak = lane.route.daemons.iter().filter_map(|pid| peak_memory(*pid)).sum::<u64>();
    Ok(BTreeMap::from([
        (Quantity::GbitPerS, report.bits_per_second()? / 1e9),
        (Quantity::FloodKpps, flood.stop()? / 1e3),
        (Quantity::PeakMib, peak as f64 / f64::from(1 << 20) / lane.daemon_hosts as f64),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_of_a_thousand_needs_a_thousand() {
        let trips: Vec<f64> = (1..=1000).map(f64::from).collect();
        let figures = trip_figures(&trips);
        assert_eq!(figures[&Quantity::P999Us], 999.0);
        assert_eq!(figures[&Quantity::AvgUs], 500.5);
        let figures = trip_figures(&trips[..999]);
        assert!(!figures.contains_key(&Quantity::P999Us) && figures.contains_key(&Quantity::P99Us));
    }
}
