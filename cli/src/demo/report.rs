//! What the demo found out, as JSON and as tables.

use std::time::Duration;

use serde::Serialize;

use super::table::{Cell, Style, Tone, bar, table};

/// Everything the demo found out. Times in seconds unless the name says otherwise.
#[derive(Serialize, Default, Debug)]
pub(crate) struct Report {
    /// True when every ping was answered and the stream over the overlay flowed.
    pub(crate) ok: bool,
    /// Names of the hosts.
    pub(crate) hosts: Vec<String>,
    /// Kernel release.
    pub(crate) kernel: String,
    /// Processors that the whole demo shared.
    pub(crate) processors: usize,
    /// What happened, in order.
    pub(crate) steps: Vec<Step>,
    /// One entry per ordered pair of containers.
    pub(crate) pings: Vec<Ping>,
    /// How long a container did not answer while its host's daemon was killed and launched again; null when it did not
    /// answer afterwards.
    pub(crate) silence_s: Option<f64>,
    /// Throughput of the overlay and of what it is compared with; empty when it was not measured.
    pub(crate) throughput: Vec<Throughput>,
    /// The kind of wire between the hosts.
    pub(crate) wire: &'static str,
    /// What was not as expected, for people.
    pub(crate) notes: Vec<String>,
    /// From the first step to the end of the last.
    pub(crate) total_s: f64,
}

/// One thing that was done.
#[derive(Serialize, Clone, Debug)]
pub(crate) struct Step {
    /// When it began.
    pub(crate) at_s: f64,
    /// How long it took.
    pub(crate) took_s: f64,
    /// Where; null for the machine itself.
    pub(crate) host: Option<String>,
    /// What: a command line, or words.
    pub(crate) what: String,
    /// What came of it.
    pub(crate) outcome: String,
}

/// The pings from one container to another.
#[derive(Serialize, Clone, Debug)]
pub(crate) struct Ping {
    /// The container that asked.
    pub(crate) from: String,
    /// The container that was asked.
    pub(crate) to: String,
    /// Requests.
    pub(crate) sent: usize,
    /// Answers.
    pub(crate) received: usize,
    /// The middle round trip in microseconds; null without answers.
    pub(crate) median_us: Option<f64>,
}

impl Ping {
    /// True when every request was answered.
    pub(crate) fn complete(&self) -> bool {
        self.sent > 0 && self.received == self.sent
    }
}

/// One TCP stream over one path.
#[derive(Serialize, Clone, Debug)]
pub(crate) struct Throughput {
    /// `bare wire`, `kernel VXLAN` or `meshnet`.
    pub(crate) path: &'static str,
    /// The middle run, in 10^9 bits of payload per second.
    pub(crate) gbit_per_s: f64,
    /// All runs, in the order they were made.
    pub(crate) runs: Vec<f64>,
    /// Against the kernel's VXLAN of the same run; null without it.
    pub(crate) ratio_to_kernel_vxlan: Option<f64>,
    /// Processor seconds of the whole machine for 10^9 bytes, middle run.
    pub(crate) cpu_s_per_gb: f64,
    /// The middle round trip of an idle ping in microseconds.
    pub(crate) ping_us: Option<f64>,
}

/// A time for people: milliseconds below one second, with two digits that matter.
pub(crate) fn milliseconds(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 0.01 => format!("{:.1} ms", seconds * 1e3),
        seconds if seconds < 1.0 => format!("{:.0} ms", seconds * 1e3),
        seconds => format!("{seconds:.1} s"),
    }
}

/// A duration in microseconds.
pub(crate) fn microseconds(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1e3
}

/// The matrix of all pairs, or a count and the failures when it would not fit a screen.
pub(super) fn pings(pings: &[Ping], style: Style) -> String {
    const WIDEST: usize = 10;
    let names: Vec<&str> = pings
        .iter()
        .map(|ping| ping.from.as_str())
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect();
    let title = style.paint(Tone::Strong, "Ping between the containers, median round trip in µs");
    if names.len() > WIDEST {
        return format!("{title}\n\n{}", slowest(pings));
    }
    let head: Vec<Cell> = std::iter::once(Cell::text("from \\ to"))
        .chain(names.iter().map(|name| Cell::number(*name)))
        .collect();
    let rows: Vec<Vec<Cell>> = names
        .iter()
        .map(|from| {
            let cells = names.iter().map(|to| ping_cell(pings, from, to));
            std::iter::once(Cell::text(*from)).chain(cells).collect()
        })
        .collect();
    format!("{title}\n\n{}", table(&head, &rows, style))
}

fn ping_cell(pings: &[Ping], from: &str, to: &str) -> Cell {
    match pings.iter().find(|ping| ping.from == from && ping.to == to) {
        None => Cell::number("·").tone(Tone::Faint),
        Some(Ping { median_us: None, .. }) => Cell::number("lost").tone(Tone::Bad),
        Some(ping @ Ping { median_us: Some(median), .. }) if ping.complete() => {
            Cell::number(format!("{median:.0}")).tone(Tone::Good)
        }
        Some(ping) => Cell::number(format!("{} of {}", ping.received, ping.sent)).tone(Tone::Bad),
    }
}

/// For many containers: the extremes.
fn slowest(pings: &[Ping]) -> String {
    let mut answered: Vec<(f64, &Ping)> =
        pings.iter().filter_map(|ping| Some((ping.median_us?, ping))).collect();
    answered.sort_by(|a, b| a.0.total_cmp(&b.0));
    let tell = |entry: Option<&(f64, &Ping)>| match entry {
        Some((median, ping)) => format!("{median:.0} ({} to {})", ping.from, ping.to),
        None => "none".to_owned(),
    };
    let lost: Vec<String> = pings
        .iter()
        .filter(|ping| !ping.complete())
        .map(|ping| format!("  {} to {}: {} of {} answered\n", ping.from, ping.to, ping.received, ping.sent))
        .collect();
    format!("  fastest {}, slowest {}\n{}", tell(answered.first()), tell(answered.last()), lost.concat())
}

/// The table of all paths.
pub(super) fn throughput(report: &Report, style: Style) -> String {
    let runs = report.throughput.iter().map(|path| path.runs.len()).max().unwrap_or(0);
    let runs = if runs == 1 { "one run".to_owned() } else { format!("median of {runs} interleaved runs") };
    let title = format!("One TCP stream, {} wire, {runs}", report.wire);
    let full = report.throughput.iter().map(|path| path.gbit_per_s).fold(0.0, f64::max);
    let mut head = vec![
        Cell::text("path"),
        Cell::number("Gbit/s"),
        Cell::text("runs"),
        Cell::number("to kernel VXLAN"),
        Cell::number("CPU s/GB"),
        Cell::number("ping µs"),
    ];
    let mut rows: Vec<Vec<Cell>> = report.throughput.iter().map(throughput_row).collect();
    if style == Style::Terminal {
        head.insert(1, Cell::text(""));
        for (row, path) in rows.iter_mut().zip(&report.throughput) {
            row.insert(1, Cell::text(bar(path.gbit_per_s, full, 16)).tone(tone_of(path)));
        }
    }
    format!("{}\n\n{}", style.paint(Tone::Strong, &title), table(&head, &rows, style))
}

fn throughput_row(path: &Throughput) -> Vec<Cell> {
    let runs: Vec<String> = path.runs.iter().map(|run| format!("{run:.1}")).collect();
    let ratio = path.ratio_to_kernel_vxlan.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
    vec![
        Cell::text(path.path).tone(tone_of(path)),
        Cell::number(format!("{:.2}", path.gbit_per_s)).tone(tone_of(path)),
        Cell::text(runs.join(" ")).tone(Tone::Faint),
        Cell::number(ratio).tone(tone_of(path)),
        Cell::number(format!("{:.2}", path.cpu_s_per_gb)),
        Cell::number(path.ping_us.map_or_else(|| "-".to_owned(), |us| format!("{us:.0}"))),
    ]
}

/// The overlay itself stands out.
fn tone_of(path: &Throughput) -> Tone {
    if path.path == super::compare::MESHNET { Tone::Good } else { Tone::Normal }
}

/// The last line.
pub(super) fn summary(report: &Report, style: Style) -> String {
    let sent: usize = report.pings.iter().map(|ping| ping.sent).sum();
    let received: usize = report.pings.iter().map(|ping| ping.received).sum();
    let (tone, word) = if report.ok { (Tone::Good, "done") } else { (Tone::Bad, "failed") };
    format!(
        "{}: {received} of {sent} pings answered, {} hosts, {:.1} s in all",
        style.paint(tone, word),
        report.hosts.len(),
        report.total_s
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ping(from: &str, to: &str, received: usize) -> Ping {
        let median_us = (received > 0).then_some(211.4);
        Ping { from: from.into(), to: to.into(), sent: 5, received, median_us }
    }

    fn sample() -> Report {
        let path = |path, gbit_per_s, ratio| Throughput {
            path,
            gbit_per_s,
            runs: vec![gbit_per_s, gbit_per_s + 0.1],
            ratio_to_kernel_vxlan: Some(ratio),
            cpu_s_per_gb: 1.18,
            ping_us: Some(45.2),
        };
        Report {
            ok: true,
            hosts: vec!["node01".into(), "node02".into()],
            pings: vec![ping("c1", "c2", 5), ping("c2", "c1", 5)],
            throughput: vec![path("kernel VXLAN", 9.8, 1.0), path(super::super::compare::MESHNET, 6.9, 0.71)],
            wire: "nic",
            total_s: 12.34,
            ..Report::default()
        }
    }

    #[test]
    fn the_matrix_shows_round_trips_and_losses() {
        let text = pings(
            &[ping("c1", "c2", 5), ping("c2", "c1", 4), ping("c1", "c3", 0), ping("c3", "c1", 5)],
            Style::Plain,
        );
        assert!(text.contains("211") && text.contains("4 of 5") && text.contains("lost"), "{text}");
    }

    #[test]
    fn many_containers_are_summed_up() {
        let names: Vec<String> = (1..=12).map(|n| format!("c{n}")).collect();
        let all: Vec<Ping> = names.iter().map(|from| ping(from, "c1", 5)).collect();
        let text = pings(&all, Style::Plain);
        assert!(text.contains("fastest 211") && text.lines().count() < 5, "{text}");
    }

    #[test]
    fn the_table_shows_medians_and_ratios() {
        let text = throughput(&sample(), Style::Plain);
        assert!(text.contains("median of 2 interleaved runs"), "{text}");
        let line = text.lines().find(|line| line.contains("meshnet")).unwrap();
        assert!(line.contains("6.90") && line.contains("0.71"), "{line}");
    }

    #[test]
    fn the_json_has_plain_numbers() {
        let json = serde_json::to_value(sample()).unwrap();
        assert_eq!(json["throughput"][1]["path"], "meshnet");
        assert_eq!(json["throughput"][1]["ratio_to_kernel_vxlan"], 0.71);
        assert_eq!(json["pings"][0]["received"], 5);
        assert_eq!(json["total_s"], 12.34);
    }

    #[test]
    fn times_are_told_in_a_fitting_unit() {
        assert_eq!(milliseconds(0.0004), "0.4 ms");
        assert_eq!(milliseconds(0.0421), "42 ms");
        assert_eq!(milliseconds(1.25), "1.2 s");
        assert!((microseconds(Duration::from_nanos(1500)) - 1.5).abs() < 1e-9);
    }
}
