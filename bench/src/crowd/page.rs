//! `docs/scale.md`, made of the committed results and nothing else.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};

use super::trial::{Figures, PerHost};
use crate::table::aligned;

/// The name of the page below `docs`.
pub const PAGE: &str = "scale.md";

/// The results, below `docs`.
pub const RESULTS: &str = "results/crowd.json";

/// What the page says before the tables.
const INTRODUCTION: &str = "\
# A crowd

<!-- Generated: `cargo run --release -p bench --bin crowd -- --write` measures, writes docs/results/crowd.json and this page. Do not edit. -->

Simulated hosts that are all started within a tenth of a second, under one virtual clock. The control plane of each is the
real one; what things cost is charged: a QUIC handshake 1.5 round trips, about 5 kB and 2 ms of each side's one processor; a
message 15 µs, a signature that must be checked 60 µs; a card 100 Mbit/s each way, with a queue; the way between two hosts 1 to
20 ms, and 0.1 to 1 % of the packets lost. Bytes are those on the wire, headers and acknowledgements included. One seed
decides everything that happens by chance, and another one gives other figures.

*told*: the targets that each host is given. *converge*: from the first start until all hosts have the same `state_hash` and take
all others for alive. *rest* is looked at for 20 s. *change*: a new endpoint is known everywhere. *death*: one host without power is
known to be down everywhere; *three in ten*: so many at once.
";

/// What is promised of it.
pub struct Bound {
    what: &'static str,
    limit: f64,
    figure: fn(&Figures) -> Option<f64>,
}

/// The promises. A figure that is missing breaks its promise.
pub const BOUNDS: [Bound; 5] = [
    Bound { what: "seconds to converge", limit: 10.0, figure: |figures| figures.converge_s },
    Bound {
        what: "bytes per second at rest, the host with most",
        limit: 50_000.0,
        figure: |figures| Some(figures.rest_bytes_per_s.max),
    },
    Bound { what: "seconds until a change is known", limit: 2.0, figure: |figures| figures.change_s },
    Bound { what: "seconds until a death is known", limit: 10.0, figure: |figures| figures.death_s },
    Bound { what: "false deaths", limit: 0.0, figure: |figures| Some(figures.false_deaths as f64) },
];

/// Every promise that is broken, for people.
pub fn broken(all: &[Figures]) -> Vec<String> {
    let each = |figures: &Figures| {
        let broken =
            BOUNDS.iter().filter(|bound| (bound.figure)(figures).is_none_or(|figure| figure > bound.limit));
        broken
            .map(|bound| {
                let figure =
                    (bound.figure)(figures).map_or("none".to_owned(), |figure| format!("{figure:.1}"));
                let Figures { hosts, targets, .. } = figures;
                format!("{hosts} hosts told {targets}: {}: {figure}, promised {}", bound.what, bound.limit)
            })
            .collect::<Vec<_>>()
    };
    all.iter().flat_map(each).collect()
}

/// The page.
pub fn page(all: &[Figures]) -> String {
    let mut out = INTRODUCTION.to_owned();
    let mut section = |title: &str, head: &[&str], cells: fn(&Figures) -> Vec<String>| {
        let head = ["hosts", "told"].iter().chain(head).map(|&text| text.to_owned()).collect();
        let rows = all.iter().map(|figures| {
            let start = [figures.hosts.to_string(), figures.targets.to_string()];
            start.into_iter().chain(cells(figures)).collect::<Vec<String>>()
        });
        let rows: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
        let _infallible = write!(out, "\n## {title}\n\n{}", aligned(&rows));
    };
    section("A mass start, each host: mean (most)", &START, start);
    section("At rest, each host: mean (most)", &REST, rest);
    section("What happens then", &THEN, then);
    let _infallible = write!(
        out,
        "\nPromised, and checked by the command itself: a mass start of 1000 hosts within 10 s, less than 50 kB/s for each host at rest, a change known to all within 2 s, a death within 10 s, and no live host taken for dead.\n"
    );
    out
}

const START: [&str; 6] = ["converge", "MB sent", "messages", "handshakes", "processor", "memory"];
const REST: [&str; 5] = ["connections", "kB/s sent", "messages/s", "handshakes/s", "processor"];
const THEN: [&str; 4] = ["change", "death", "three in ten", "false deaths"];

fn start(figures: &Figures) -> Vec<String> {
    vec![
        seconds(figures.converge_s),
        pair(figures.start_bytes, 1e6, 1),
        pair(figures.start_messages, 1.0, 0),
        pair(figures.start_handshakes, 1.0, 0),
        format!("{} s", pair(figures.start_cpu_s, 1.0, 2)),
        format!("{:.2} MB", figures.memory_bytes / 1e6),
    ]
}

fn rest(figures: &Figures) -> Vec<String> {
    vec![
        pair(figures.connections, 1.0, 0),
        pair(figures.rest_bytes_per_s, 1e3, 1),
        pair(figures.rest_messages_per_s, 1.0, 1),
        pair(figures.rest_handshakes_per_s, 1.0, 1),
        format!("{} %", pair(figures.rest_cpu_percent, 1.0, 2)),
    ]
}

fn then(figures: &Figures) -> Vec<String> {
    vec![
        seconds(figures.change_s),
        seconds(figures.death_s),
        seconds(figures.mass_death_s),
        figures.false_deaths.to_string(),
    ]
}

fn seconds(figure: Option<f64>) -> String {
    figure.map_or("not within a minute".to_owned(), |figure| format!("{figure:.2} s"))
}

fn pair(figure: PerHost, unit: f64, digits: usize) -> String {
    format!("{:.digits$} ({:.digits$})", figure.mean / unit, figure.max / unit)
}

/// Reads the committed results.
///
/// # Errors
/// The file is not there, or not what `crowd` writes.
pub fn read(docs: &Path) -> Result<Vec<Figures>> {
    let path = docs.join(RESULTS);
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not what crowd writes", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_page_is_what_the_results_make_and_they_keep_the_promises() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        let results = read(&docs).unwrap();
        assert_eq!(broken(&results), Vec::<String>::new());
        assert!(results.iter().any(|figures| figures.hosts >= 300));
        let again = "run `cargo run --release -p bench --bin crowd -- --write` and commit";
        assert_eq!(std::fs::read_to_string(docs.join(PAGE)).unwrap(), page(&results), "{again}");
    }
}
