//! What is measured: rows, quantities, columns, and how often.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::column::Column;

/// A row of the table: one kind of load.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Row {
    /// One TCP stream.
    Tcp1,
    /// One TCP stream the other way.
    Tcp1r,
    /// Four TCP streams at once.
    Tcp4,
    /// Four TCP streams at once the other way.
    Tcp4r,
    /// UDP datagrams of 64 bytes in one flow, as many as a sender can make that hands the kernel 64 at a time.
    Udp64,
    /// The same from iperf3, which hands the kernel one at a time.
    Udp64i,
    /// UDP datagrams of 64 bytes in 64 flows to 8 hosts in turn: no two neighbours can be joined.
    Spread64,
    /// UDP packets of 46, 576 and 1400 bytes, seven to four to one, in 8 flows.
    Imix,
    /// UDP datagrams of 1400 bytes in one flow, as many as a sender can make that hands the kernel 64 at a time.
    Udp1400,
    /// One TCP stream between two containers of one host.
    Local,
    /// One TCP stream while initiations from forged addresses come to the daemon of the host that receives it, as many as one
    /// sender can make, all with a wrong MAC1.
    Flooded,
    /// The same with a right MAC1, as of one that was overheard: most are answered with a cookie.
    Meant,
    /// The same, but they come to a port of that host that nobody reads.
    Unread,
    /// Echo requests, one a second, while nothing else goes on.
    Rtt1,
    /// Echo requests, a hundred a second, while nothing else goes on.
    Rtt100,
    /// Echo requests, a hundred a second, beside one TCP stream.
    Loaded,
}

/// Where a row takes place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Scene {
    /// Two hosts with a container each.
    Pair,
    /// A host that sends, and [`RECEIVERS`] that receive.
    Spread,
    /// Two containers of one host: no wire at all.
    Local,
    /// Two hosts that seal, with a container each, and somebody who floods one of them.
    Flooded,
}

/// The hosts that receive in [`Scene::Spread`].
pub const RECEIVERS: u8 = 8;

impl Scene {
    /// All scenes.
    pub const ALL: [Scene; 4] = [Scene::Pair, Scene::Spread, Scene::Local, Scene::Flooded];
}

impl Row {
    /// The rows of `throughput`, in the order of the table.
    pub const THROUGHPUT: [Row; 10] = [
        Row::Tcp1,
        Row::Tcp1r,
        Row::Tcp4,
        Row::Tcp4r,
        Row::Udp64,
        Row::Udp64i,
        Row::Udp1400,
        Row::Imix,
        Row::Spread64,
        Row::Local,
    ];

    /// More rows of `throughput`, when they are asked for.
    pub const FLOODS: [Row; 3] = [Row::Flooded, Row::Meant, Row::Unread];

    /// The rows of `latency`, in the order of the table.
    pub const LATENCY: [Row; 3] = [Row::Rtt1, Row::Rtt100, Row::Loaded];

    /// The quantities that one run of this row gives.
    pub fn quantities(self) -> &'static [Quantity] {
        use Quantity::{
            AvgUs, CpuSPerGb, DaemonsSPerGb, FloodKpps, GbitPerS, KppsDelivered, LostPercent, P50Us, P99Us,
            P999Us, PeakMib, RetransmitsPerGb,
        };
        match self {
            Row::Tcp1 | Row::Tcp1r | Row::Tcp4 | Row::Tcp4r | Row::Local => {
                &[GbitPerS, CpuSPerGb, DaemonsSPerGb, RetransmitsPerGb, PeakMib]
            }
            Row::Udp64 | Row::Udp64i | Row::Udp1400 | Row::Imix | Row::Spread64 => {
                &[KppsDelivered, LostPercent]
            }
            Row::Flooded | Row::Meant | Row::Unread => &[GbitPerS, FloodKpps, PeakMib],
            Row::Rtt1 => &[AvgUs, P50Us],
            Row::Rtt100 => &[AvgUs, P50Us, P99Us, P999Us],
            Row::Loaded => &[AvgUs, P50Us, P99Us, P999Us, GbitPerS],
        }
    }

    /// Its name on the command line and in the results.
    pub fn name(self) -> &'static str {
        match self {
            Row::Tcp1 => "tcp1",
            Row::Tcp1r => "tcp1r",
            Row::Tcp4 => "tcp4",
            Row::Tcp4r => "tcp4r",
            Row::Udp64 => "udp64",
            Row::Udp64i => "udp64i",
            Row::Spread64 => "spread64",
            Row::Imix => "imix",
            Row::Udp1400 => "udp1400",
            Row::Local => "local",
            Row::Flooded => "flooded",
            Row::Meant => "meant",
            Row::Unread => "unread",
            Row::Rtt1 => "rtt1",
            Row::Rtt100 => "rtt100",
            Row::Loaded => "loaded",
        }
    }

    /// Where it takes place.
    pub fn scene(self) -> Scene {
        match self {
            Row::Spread64 => Scene::Spread,
            Row::Local => Scene::Local,
            Row::Flooded | Row::Meant | Row::Unread => Scene::Flooded,
            _ => Scene::Pair,
        }
    }

    /// Finds the row with this name among `rows`.
    ///
    /// # Errors
    /// The names there are.
    pub fn find(text: &str, rows: &[Row]) -> Result<Row, String> {
        let names = || rows.iter().map(|row| row.name()).collect::<Vec<_>>().join(", ");
        rows.iter().copied().find(|row| row.name() == text).ok_or_else(|| format!("expected {}", names()))
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Row::Tcp1 => "TCP, 1 stream",
            Row::Tcp1r => "TCP, 1 stream back",
            Row::Tcp4 => "TCP, 4 streams",
            Row::Tcp4r => "TCP, 4 streams back",
            Row::Udp64 => "UDP, 64 B, 1 flow",
            Row::Udp64i => "UDP, 64 B, 1 flow, iperf3",
            Row::Spread64 => "UDP, 64 B, 64 flows, 8 hosts",
            Row::Imix => "UDP, IMIX, 8 flows",
            Row::Udp1400 => "UDP, 1400 B, 1 flow",
            Row::Local => "TCP, 1 stream, one host",
            Row::Flooded => "TCP under handshakes",
            Row::Meant => "TCP under handshakes with a right MAC1",
            Row::Unread => "TCP under as many unread",
            Row::Rtt1 => "RTT, idle, 1/s",
            Row::Rtt100 => "RTT, idle, 100/s",
            Row::Loaded => "RTT beside TCP, 100/s",
        })
    }
}

/// A number that comes out of a run.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Quantity {
    /// Payload in 10^9 bits per second at the receiver.
    GbitPerS,
    /// Processor seconds of the whole machine for 10^9 bytes of payload.
    CpuSPerGb,
    /// Processor seconds of the daemons alone for 10^9 bytes of payload.
    DaemonsSPerGb,
    /// TCP segments sent again for 10^9 bytes of payload.
    RetransmitsPerGb,
    /// The most memory a host's daemon has held since it was started, in MiB (`VmHWM`).
    PeakMib,
    /// Thousands of datagrams per second at the receiver.
    KppsDelivered,
    /// Thousands of datagrams per second that a flood sent.
    FloodKpps,
    /// Datagrams that were sent and did not arrive, in percent.
    LostPercent,
    /// The mean of all round trips, in microseconds.
    AvgUs,
    /// The round trip that half of the echoes did not exceed, in microseconds.
    P50Us,
    /// The round trip that 99 of 100 echoes did not exceed, in microseconds.
    P99Us,
    /// The round trip that 999 of 1000 echoes did not exceed, in microseconds; only of a run with a thousand.
    P999Us,
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Quantity::GbitPerS => "Gbit/s",
            Quantity::CpuSPerGb => "CPU s/GB, machine",
            Quantity::DaemonsSPerGb => "CPU s/GB, daemons",
            Quantity::RetransmitsPerGb => "retransmits/GB",
            Quantity::PeakMib => "peak memory, MiB",
            Quantity::KppsDelivered => "kpps delivered",
            Quantity::FloodKpps => "kpps of the flood",
            Quantity::LostPercent => "lost, %",
            Quantity::AvgUs => "avg, us",
            Quantity::P50Us => "p50, us",
            Quantity::P99Us => "p99, us",
            Quantity::P999Us => "p99.9, us",
        })
    }
}

/// How much is measured.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The rows.
    pub rows: Vec<Row>,
    /// The columns, from left to right.
    pub columns: Vec<Column>,
    /// Runs of every cell; the columns take turns.
    pub runs: usize,
    /// How long one run lasts.
    pub time: Duration,
}

impl Plan {
    /// The same with the rows of one scene only; none when there is no such row.
    pub fn of(&self, scene: Scene) -> Option<Plan> {
        let rows: Vec<Row> = self.rows.iter().copied().filter(|row| row.scene() == scene).collect();
        (!rows.is_empty()).then(|| Plan { rows, ..self.clone() })
    }

    /// All runs in order: for each row, run after run, the columns in turns, every run starting with the next column
    /// so that none is always first.
    pub fn runs(&self) -> impl Iterator<Item = (Row, usize, Column)> {
        let count = self.columns.len();
        let column = move |turn: usize| self.columns.get(turn % count.max(1)).copied();
        self.rows.iter().flat_map(move |row| {
            (0..self.runs).flat_map(move |run| {
                (0..count).filter_map(move |turn| Some((*row, run, column(run + turn)?)))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn every_cell_is_run_as_often_and_no_column_is_always_first() {
        let columns = vec![Column::Bare, Column::Kernel, Column::Meshnet];
        let rows = vec![Row::Tcp1, Row::Udp64];
        let plan = Plan { rows, columns: columns.clone(), runs: 3, time: Duration::ZERO };
        let runs: Vec<_> = plan.runs().collect();
        let mut counts = BTreeMap::new();
        for (row, _, column) in &runs {
            *counts.entry((*row, *column)).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 6);
        assert!(counts.values().all(|count| *count == 3));
        let first: Vec<Column> = runs.iter().step_by(3).take(3).map(|(_, _, column)| *column).collect();
        assert_eq!(first, columns);
    }

    #[test]
    fn rows_are_found_by_the_names_that_results_use() {
        for row in Row::THROUGHPUT.into_iter().chain(Row::FLOODS).chain(Row::LATENCY) {
            assert_eq!(Row::find(row.name(), &[row]), Ok(row));
            assert_eq!(serde_json::to_value(row).unwrap(), row.name());
        }
        assert!(Row::find("rtt1", &Row::THROUGHPUT).is_err());
    }

    #[test]
    fn a_scene_has_its_rows_only() {
        let plan = Plan {
            rows: vec![Row::Tcp1, Row::Local],
            columns: vec![Column::Meshnet],
            runs: 1,
            time: Duration::ZERO,
        };
        assert_eq!(plan.of(Scene::Local).map(|plan| plan.rows), Some(vec![Row::Local]));
        assert!(plan.of(Scene::Spread).is_none());
    }
}
