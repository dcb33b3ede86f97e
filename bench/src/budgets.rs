//! What meshnet shall reach, beside what was measured.

use crate::cases;
use crate::column::Column;
use crate::library::Library;
use crate::plan::{Quantity, Row};
use crate::results::Line;
use crate::scale::Kind;
use crate::session::NO_WIRE;
use crate::table::figure;

/// One promise.
pub struct Budget {
    /// What is promised, for people.
    pub what: String,
    /// The limit.
    pub limit: Limit,
    /// What was measured; none when nobody did.
    pub measured: Option<f64>,
}

/// On which side of a figure is well.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Limit {
    /// So much or more.
    AtLeast(f64),
    /// So much or less.
    AtMost(f64),
}

impl Limit {
    /// Whether a figure is within.
    pub fn holds(self, value: f64) -> bool {
        match self {
            Limit::AtLeast(limit) => value >= limit,
            Limit::AtMost(limit) => value <= limit,
        }
    }
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Limit::AtLeast(limit) => write!(f, "at least {}", figure(*limit)),
            Limit::AtMost(limit) => write!(f, "at most {}", figure(*limit)),
        }
    }
}

impl Budget {
    /// The cells of its line: promise, limit, measured, verdict.
    pub fn cells(&self) -> Vec<String> {
        let (measured, verdict) = match self.measured {
            None => ("not measured".to_owned(), "-"),
            Some(value) if self.limit.holds(value) => (figure(value), "holds"),
            Some(value) => (figure(value), "**missed**"),
        };
        vec![self.what.clone(), self.limit.to_string(), measured, verdict.to_owned()]
    }
}

/// All of plain traffic, with what `library` says.
pub fn all(library: &Library) -> Vec<Budget> {
    let mut budgets = throughput(library);
    budgets.extend(latency(library));
    budgets.extend(scale(library));
    budgets.extend(names(library));
    budgets
}

fn throughput(library: &Library) -> Vec<Budget> {
    use Limit::{AtLeast, AtMost};
    use Quantity::{CpuSPerGb, GbitPerS, KppsDelivered, RetransmitsPerGb};
    let share = |what: &str, wire, row, quantity, limit| Budget {
        what: format!("{what}, share of kernel VXLAN"),
        limit: AtLeast(limit),
        measured: ratio(library, wire, row, quantity),
    };
    let mut budgets = vec![
        share("`nic` wire, TCP, 1 stream", "nic", Row::Tcp1, GbitPerS, 0.9),
        share("`nic` wire, TCP, 4 streams", "nic", Row::Tcp4, GbitPerS, 1.0),
        share("`veth` wire, TCP, 1 stream", "veth", Row::Tcp1, GbitPerS, 0.4),
        share("`cut` wire, TCP, 1 stream", "cut", Row::Tcp1, GbitPerS, 0.4),
        share("`nic` wire, UDP 64 B, 1 flow", "nic", Row::Udp64, KppsDelivered, 1.8),
        share("`nic` wire, UDP 64 B, 64 flows to 8 hosts", "nic", Row::Spread64, KppsDelivered, 0.8),
        share("`nic` wire, UDP IMIX", "nic", Row::Imix, KppsDelivered, 0.8),
        share("`nic` wire, UDP 1400 B", "nic", Row::Udp1400, KppsDelivered, 1.2),
    ];
    budgets.push(Budget {
        what: "one host, TCP, 1 stream, share of a kernel bridge".to_owned(),
        limit: AtLeast(0.4),
        measured: ratio(library, NO_WIRE, Row::Local, GbitPerS),
    });
    for (what, row) in [("1 stream", Row::Tcp1), ("4 streams", Row::Tcp4)] {
        budgets.push(Budget {
            what: format!("`nic` wire, TCP, {what}, CPU s/GB of the machine"),
            limit: AtMost(1.6),
            measured: median(library, "nic", row, CpuSPerGb, Column::Meshnet),
        });
    }
    budgets.extend(["nic", "veth", "cut"].map(|wire| Budget {
        what: format!("`{wire}` wire, TCP, 1 stream, retransmits/GB beyond the kernel's"),
        limit: AtMost(0.0),
        measured: beyond(library, wire, Row::Tcp1, RetransmitsPerGb),
    }));
    budgets.push(Budget {
        what: "`nic` wire, TCP, 1 stream, times the best of Open vSwitch, vpncloud, boringtun".to_owned(),
        limit: AtLeast(5.0),
        measured: times_the_best(library),
    });
    budgets
}

/// Those of sealed traffic: AES-256-GCM, where nothing else is said.
pub fn sealed(library: &Library) -> Vec<Budget> {
    use Column::{Aes, Boringtun, Kernel, Meshnet, Rekeyed, WireguardGo};
    use Limit::{AtLeast, AtMost};
    use Quantity::{AvgUs, CpuSPerGb, GbitPerS, KppsDelivered};
    let rekeyed = |what: &str, row, quantity| Budget {
        what: format!("`nic` wire, {what}, new keys each second, share of usual"),
        limit: AtLeast(0.95),
        measured: quotient(library, "nic", row, quantity, (Rekeyed, Aes)),
    };
    let to = |what: &str, row, quantity, other, limit| Budget {
        what: format!("`nic` wire, {what}"),
        limit,
        measured: quotient(library, "nic", row, quantity, (Aes, other)),
    };
    vec![
        to("TCP, 1 stream, share of plain", Row::Tcp1, GbitPerS, Meshnet, AtLeast(0.8)),
        to("TCP, 1 stream, share of kernel VXLAN", Row::Tcp1, GbitPerS, Kernel, AtLeast(0.7)),
        Budget {
            what: "`nic` wire, TCP, 1 stream, CPU s/GB of the machine".to_owned(),
            limit: AtMost(2.1),
            measured: median(library, "nic", Row::Tcp1, CpuSPerGb, Aes),
        },
        to("TCP, 1 stream, times boringtun", Row::Tcp1, GbitPerS, Boringtun, AtLeast(5.0)),
        to("TCP, 1 stream, times wireguard-go", Row::Tcp1, GbitPerS, WireguardGo, AtLeast(5.0)),
        to("UDP 64 B, 1 flow, share of kernel VXLAN", Row::Udp64, KppsDelivered, Kernel, AtLeast(1.2)),
        to("idle RTT at 1/s, average, times plain", Row::Rtt1, AvgUs, Meshnet, AtMost(1.1)),
        to("idle RTT at 100/s, average, times plain", Row::Rtt100, AvgUs, Meshnet, AtMost(1.1)),
        rekeyed("TCP, 1 stream", Row::Tcp1, GbitPerS),
        rekeyed("UDP 64 B, 1 flow", Row::Udp64, KppsDelivered),
        Budget {
            what: "`nic` wire, TCP under a flood of handshakes with a wrong MAC1, share of that under as many unread datagrams"
                .to_owned(),
            limit: AtLeast(0.9),
            measured: of_rows(library, GbitPerS, [Row::Flooded, Row::Unread], Aes),
        },
        Budget {
            what: "the same with a right MAC1".to_owned(),
            limit: AtLeast(0.9),
            measured: of_rows(library, GbitPerS, [Row::Meant, Row::Unread], Aes),
        },
        Budget {
            what: "refusing an initiation with a wrong MAC1, ns".to_owned(),
            limit: AtMost(300.0),
            measured: library.micro(cases::WRONG_MAC1),
        },
    ]
}

/// What plain traffic is compared with.
pub const PLAIN_PEERS: [Column; 3] = [Column::Ovs, Column::Vpncloud, Column::Boringtun];

fn latency(library: &Library) -> Vec<Budget> {
    use Quantity::{AvgUs, P99Us};
    let times = |what: &str, row, quantity, limit| Budget {
        what: format!("`nic` wire, {what}, times kernel VXLAN"),
        limit: Limit::AtMost(limit),
        measured: ratio(library, "nic", row, quantity),
    };
    vec![
        times("idle RTT at 1/s, average", Row::Rtt1, AvgUs, 4.5),
        times("idle RTT at 100/s, average", Row::Rtt100, AvgUs, 3.0),
        times("idle RTT at 100/s, p99", Row::Rtt100, P99Us, 3.0),
        Budget {
            what: "`nic` wire, RTT beside a TCP stream, p99 in ms".to_owned(),
            limit: Limit::AtMost(5.0),
            measured: median(library, "nic", Row::Loaded, P99Us, Column::Meshnet).map(|us| us / 1e3),
        },
    ]
}

fn scale(library: &Library) -> Vec<Budget> {
    let first = library.scale.first().map(|named| &named.content);
    let growth = |what: &str, kind| Budget {
        what: format!("instructions a frame, 2 to 1000 {what}, times the smallest host's"),
        limit: Limit::AtMost(1.1),
        measured: first.and_then(|scale| scale.growth(kind)),
    };
    let stations = first.and_then(|scale| scale.learned);
    let memory = first.and_then(|scale| scale.memory);
    vec![
        growth("ports", Kind::Ports),
        growth("peers", Kind::Peers),
        Budget {
            what: "learned stations kept of 100,000, share of the bound".to_owned(),
            limit: Limit::AtMost(1.0),
            measured: stations.map(|it| it.held as f64 / it.bound as f64),
        },
        Budget {
            what: "a daemon with 10 ports and 10 peers, resident MiB".to_owned(),
            limit: Limit::AtMost(30.0),
            measured: memory.map(|memory| memory.ports10 as f64 / f64::from(1 << 20)),
        },
        Budget {
            what: "the same at rest, % of a processor".to_owned(),
            limit: Limit::AtMost(0.5),
            measured: memory.map(|memory| memory.rest_percent),
        },
    ]
}

fn names(library: &Library) -> [Budget; 2] {
    let first = library.names.first().map(|named| &named.content);
    [
        Budget {
            what: "10,000 questions a second for a local name, lost".to_owned(),
            limit: Limit::AtMost(0.0),
            measured: first.map(|names| names.lost as f64),
        },
        Budget {
            what: "the same, p99 of the answers in ms".to_owned(),
            limit: Limit::AtMost(1.0),
            measured: first.map(|names| names.p99_us / 1e3),
        },
    ]
}

fn ratio(library: &Library, wire: &str, row: Row, quantity: Quantity) -> Option<f64> {
    library.line(wire, row, quantity, &[Column::Kernel, Column::Meshnet])?.meshnet_to_kernel
}

fn median(library: &Library, wire: &str, row: Row, quantity: Quantity, column: Column) -> Option<f64> {
    of(library.line(wire, row, quantity, &[column])?, column)
}

/// How much more meshnet has than the kernel; nothing more is zero.
fn beyond(library: &Library, wire: &str, row: Row, quantity: Quantity) -> Option<f64> {
    let line = library.line(wire, row, quantity, &[Column::Kernel, Column::Meshnet])?;
    Some((of(line, Column::Meshnet)? - of(line, Column::Kernel)?).max(0.0))
}

/// One column as a share of another that was measured in the same run.
fn quotient(
    library: &Library,
    wire: &str,
    row: Row,
    quantity: Quantity,
    (part, to): (Column, Column),
) -> Option<f64> {
    let line = library.line(wire, row, quantity, &[part, to])?;
    let whole = of(line, to).filter(|whole| *whole > 0.0)?;
    Some(of(line, part)? / whole)
}

/// One row as a share of another of the same run.
fn of_rows(library: &Library, quantity: Quantity, rows: [Row; 2], column: Column) -> Option<f64> {
    let [part, whole] = library.pair("nic", rows, quantity, column)?.map(|line| of(line, column));
    Some(part? / whole.filter(|whole| *whole > 0.0)?)
}

fn of(line: &Line, column: Column) -> Option<f64> {
    line.columns.get(&column).map(|sample| sample.median)
}

/// Against the fastest peer; none unless all were measured in the same run.
fn times_the_best(library: &Library) -> Option<f64> {
    let columns = [&[Column::Meshnet][..], &PLAIN_PEERS].concat();
    let line = library.line("nic", Row::Tcp1, Quantity::GbitPerS, &columns)?;
    let best = PLAIN_PEERS.iter().filter_map(|peer| of(line, *peer)).max_by(f64::total_cmp)?;
    (best > 0.0).then_some(of(line, Column::Meshnet)? / best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_includes_itself() {
        assert!(Limit::AtLeast(0.9).holds(0.9) && !Limit::AtLeast(0.9).holds(0.899));
        assert!(Limit::AtMost(1.6).holds(1.6) && !Limit::AtMost(1.6).holds(1.601));
    }

    #[test]
    fn what_nobody_measured_is_not_held() {
        let (plain, sealed) = (all(&Library::default()), sealed(&Library::default()));
        assert!(plain.len() > 15 && sealed.len() > 5);
        for budget in plain.into_iter().chain(sealed) {
            assert_eq!(budget.cells()[2..], ["not measured", "-"], "{}", budget.what);
        }
    }

    #[test]
    fn a_figure_on_the_wrong_side_is_missed() {
        let budget = |measured| Budget { what: String::new(), limit: Limit::AtLeast(2.0), measured };
        assert_eq!(budget(Some(1.0)).cells()[3], "**missed**");
        assert_eq!(budget(Some(2.0)).cells()[3], "holds");
    }
}
