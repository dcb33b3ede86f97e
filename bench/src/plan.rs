//! What is measured: rows, columns, wires, and how often.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// A row of the table.
#[derive(Serialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Row {
    /// One TCP stream.
    Tcp1,
    /// Four TCP streams at once.
    Tcp4,
    /// UDP datagrams of 64 bytes, as many as the sender can make.
    Udp64,
    /// Echo requests while nothing else goes on.
    Ping,
}

impl Row {
    /// All rows, in the order of the table.
    pub const ALL: [Row; 4] = [Row::Tcp1, Row::Tcp4, Row::Udp64, Row::Ping];

    /// The quantities that one run of this row gives.
    pub fn quantities(self) -> &'static [Quantity] {
        match self {
            Row::Tcp1 | Row::Tcp4 => &[Quantity::GbitPerS, Quantity::CpuSPerGb, Quantity::DaemonsSPerGb],
            Row::Udp64 => &[Quantity::KppsDelivered],
            Row::Ping => &[Quantity::P50Us, Quantity::P99Us],
        }
    }

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Row::Tcp1 => "tcp1",
            Row::Tcp4 => "tcp4",
            Row::Udp64 => "udp64",
            Row::Ping => "ping",
        }
    }
}

impl std::str::FromStr for Row {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let row = Row::ALL.into_iter().find(|row| row.name() == text);
        row.ok_or_else(|| format!("expected one of {}", Row::ALL.map(Row::name).join(", ")))
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Row::Tcp1 => "TCP, 1 stream",
            Row::Tcp4 => "TCP, 4 streams",
            Row::Udp64 => "UDP, 64 B",
            Row::Ping => "ping, idle",
        })
    }
}

/// A number that comes out of a run.
#[derive(Serialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Quantity {
    /// Payload in 10^9 bits per second at the receiver.
    GbitPerS,
    /// Processor seconds of the whole machine for 10^9 bytes of payload.
    CpuSPerGb,
    /// Processor seconds of the daemons alone for 10^9 bytes of payload.
    DaemonsSPerGb,
    /// Thousands of datagrams per second at the receiver.
    KppsDelivered,
    /// The round trip that half of the pings did not exceed, in microseconds.
    P50Us,
    /// The round trip that 99 of 100 pings did not exceed, in microseconds.
    P99Us,
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Quantity::GbitPerS => "Gbit/s",
            Quantity::CpuSPerGb => "CPU s/GB, machine",
            Quantity::DaemonsSPerGb => "CPU s/GB, daemons",
            Quantity::KppsDelivered => "kpps delivered",
            Quantity::P50Us => "p50, us",
            Quantity::P99Us => "p99, us",
        })
    }
}

/// A column of the table.
#[derive(Serialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Column {
    /// From host to host over the wire, without any overlay.
    BareVeth,
    /// Container, bridge, kernel VXLAN device, wire, and back.
    KernelVxlan,
    /// Container, meshnet, wire, and back.
    Meshnet,
}

impl Column {
    /// All columns, from left to right.
    pub const ALL: [Column; 3] = [Column::BareVeth, Column::KernelVxlan, Column::Meshnet];
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Column::BareVeth => "bare veth",
            Column::KernelVxlan => "kernel VXLAN",
            Column::Meshnet => "meshnet",
        })
    }
}

/// How much is measured.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The rows.
    pub rows: Vec<Row>,
    /// Runs of every cell; the columns take turns.
    pub runs: usize,
    /// How long one run of traffic lasts.
    pub time: Duration,
}

impl Plan {
    /// All runs in order: for each row, run after run, the columns in turns, every run starting with the next column
    /// so that none is always first.
    pub fn runs(&self) -> impl Iterator<Item = (Row, usize, Column)> {
        let columns = Column::ALL.len();
        self.rows.iter().flat_map(move |row| {
            (0..self.runs).flat_map(move |run| {
                (0..columns).map(move |turn| (*row, run, Column::ALL[(run + turn) % columns]))
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
        let plan = Plan { rows: vec![Row::Tcp1, Row::Ping], runs: 3, time: Duration::ZERO };
        let runs: Vec<_> = plan.runs().collect();
        let mut counts = BTreeMap::new();
        for (row, _, column) in &runs {
            *counts.entry((*row, *column)).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 6);
        assert!(counts.values().all(|count| *count == 3));
        let first: Vec<Column> = runs.iter().step_by(3).take(3).map(|(_, _, column)| *column).collect();
        assert_eq!(first, Column::ALL);
    }

    #[test]
    fn rows_have_the_names_they_print() {
        for row in Row::ALL {
            assert_eq!(row.name().parse(), Ok(row));
        }
        assert!("tcp".parse::<Row>().is_err());
    }
}
