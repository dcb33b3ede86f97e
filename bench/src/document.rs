//! `docs/performance.md`, made of the committed results and nothing else.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};

use engine::session::suite::Suite;

use crate::budgets::{self, Budget};
use crate::cases;
use crate::chart;
use crate::library::{Library, Named};
use crate::results::Results;
use crate::session::NO_WIRE;
use crate::table::{aligned, figure};

/// The name of the page below `docs`.
pub const PAGE: &str = "performance.md";

/// The name of the chart below `docs`.
pub const CHART: &str = "performance.svg";

/// Where the results are, below `docs`.
pub const RESULTS: &str = "results";

/// What the page says before any figure.
const INTRODUCTION: &str = "\
# Performance

<!-- Generated: `cargo run --release -p bench --bin report` writes this page from docs/results/*.json. Do not edit. -->

This page is generated from the committed results in [results](results) by `cargo run --release -p bench --bin report`;
a test compares the two. Nothing in it is written by hand.

Both hosts, both ends of the load and all daemons share one machine, so absolute figures say little. What counts is the
ratio to the kernel's own VXLAN in the same run, and processor seconds for the same payload. The columns take turns; the
figure is the median of all runs, in brackets the distance from the smallest to the largest. Every namespace has `reno`
as congestion control, since pacing makes TCP on a veth jump. A warning below a table says what else used the machine.

Three wires join the hosts: `veth` passes 64 KiB packets whole, which flatters everything that uses segmentation
offload; `nic` cuts at the sender and joins at the receiver, as a network card does, and is the main case; `cut` cuts and
does not join.

In the UDP rows the sender makes as many datagrams as it can. On the bare wire and with kernel VXLAN its own system call
does the work of forwarding and holds it back; a daemon does not hold it back, and what the daemon cannot take is lost.
What counts is what is delivered.
";

/// Promises that hold or do not, and the test that tells: a path from the root of the source tree.
const TESTED: [(&str, &str); 12] = [
    ("a kernel VXLAN device is a part of the network on all three wires", "netns-tests/tests/kernel_vtep.rs"),
    (
        "every checksum that leaves a host is right, towards such a device and from it",
        "netns-tests/tests/kernel_vtep.rs",
    ),
    ("the path from frame to frame allocates nothing", "bench/tests/no_allocation.rs"),
    ("in, with copies, is out and drops", "netns-tests/tests/books.rs"),
    (
        "each flow leaves from one UDP port, different flows from different ones",
        "netns-tests/tests/source_ports.rs",
    ),
    ("several workers keep each flow in order, and none waits for another", "netns-tests/tests/workers.rs"),
    ("eight workers forward while tables change, each flow in order", "engine/tests/workers.rs"),
    ("a flood from one container leaves its neighbours their share", "netns-tests/tests/fairness.rs"),
    ("a rate holds in both directions", "netns-tests/tests/rate.rs"),
    (
        "keys renewed each second: nothing is dropped for a reason of sessions, and a stream keeps 0.75 at least",
        "netns-tests/tests/rekey.rs",
    ),
    (
        "beside a flood of handshakes, also of overheard ones from forged addresses, a stream keeps 0.7 at least of what it has beside unread datagrams",
        "netns-tests/tests/handshake_flood.rs",
    ),
    (
        "mixed load while ports come and go: no leak, no stuck queue, balanced books",
        "netns-tests/tests/soak.rs",
    ),
];

/// What sealed figures are of.
const SEALED: &str = "\
Every frame between the hosts is sealed: AES-256-GCM or ChaCha20-Poly1305, 32 bytes more on the wire, one session. Plain
traffic, kernel VXLAN and the others were measured in the same run; wireguard-go and boringtun seal with ChaCha20-Poly1305.";

/// What the figures of the ciphers are.
const CIPHERS: &str = "\
What one processor seals, out of two pieces into a datagram, and opens (with a copy of the datagram first, since opening changes it), frames of one
size, again and again:";

/// What the figures of a sweep are.
const SWEEP: &str = "\
What one TCP stream carries, and how long echoes take beside it, a hundred a second, by `txqueuelen` of the device in the
container: the number of frames and super-frames that wait for the daemon at most.";

/// What the figures of `scale` are.
const SCALE: &str = "\
A frame is 64 bytes of UDP, alone in its batch, so that every look into the tables shows: the mean of one out (classified
and cut) and one in (opened, joined and decided on), in one process, without devices. Instructions are counted by
valgrind's callgrind, and hardly differ from run to run.";

const NAMES: &str = "\
A container asks the gateway of its network for the address of another one on its host, by UDP, at a steady rate. A time
counts from when the question was due, so that a sender who is late hides nothing.";

/// How to measure again.
const AGAIN: &str = "\
## Measure again

As root, on a machine that does nothing else:

```
cargo build --release --bin meshnet
cargo run --release -p bench --bin throughput -- --json docs/results/throughput.json
cargo run --release -p bench --bin throughput -- --wires nic --rows tcp1,udp64 --peer ovs,vpncloud,boringtun --json docs/results/throughput-peers.json
cargo run --release -p bench --bin throughput -- --wires nic --rows tcp1,udp64,flooded,meant,unread --columns kernel,meshnet,aes,chacha,rekeyed --peer boringtun,wireguard-go --json docs/results/throughput-sealed.json
cargo run --release -p bench --bin latency -- --json docs/results/latency.json
cargo run --release -p bench --bin latency -- --rows rtt1,rtt100 --columns meshnet,aes,chacha --json docs/results/latency-sealed.json
cargo run --release -p bench --bin latency -- --txqueuelen 64,100,250,500,1000 --json docs/results/sweep.json
cargo run --release -p bench --bin scale -- --json docs/results/scale.json
cargo run --release -p bench --bin names -- --json docs/results/names.json
cargo run --release -p bench --bin report
```

The first needs iperf3, `scale` needs valgrind. The peers are Debian's openvswitch-switch (its services may stay off) and
wireguard-go (with wireguard-tools), and two crates: `cargo install vpncloud`, `cargo install boringtun-cli`, found on the
`PATH` or in the directory `MESHNET_PEERS`. vpncloud runs without encryption, boringtun with one thread: both are then at
their fastest here. `cargo bench -p bench` has the micro-benchmarks by the clock alone.
";

/// The page.
pub fn page(library: &Library) -> String {
    let mut out = INTRODUCTION.to_owned();
    section(&mut out, "Budgets", &budget_table(&budgets::all(library)));
    section(&mut out, "Sealed", &sealed(library));
    section(&mut out, "Promises that are tests", &tested_table());
    if chart::svg(library).is_some() {
        let _infallible = writeln!(out, "\n![Throughput as a share of kernel VXLAN]({CHART})");
    }
    results(&mut out, "Throughput", &library.throughput);
    results(&mut out, "Latency", &library.latency);
    for Named { file, content } in &library.sweeps {
        let body = measured(&content.headline(), file, SWEEP, &content.markdown());
        section(&mut out, "Length of the ring to the daemon", &body);
    }
    for Named { file, content } in &library.scale {
        let body = measured(&content.headline(), file, SCALE, &content.markdown());
        section(&mut out, "Scale", &body);
    }
    for Named { file, content } in &library.names {
        let body = measured(&content.headline(), file, NAMES, &content.markdown());
        section(&mut out, "Names", &body);
    }
    out.push('\n');
    out.push_str(AGAIN);
    out
}

/// Writes page and chart into `docs`.
pub fn write(docs: &Path) -> Result<()> {
    let library = Library::read(&docs.join(RESULTS))?;
    put(&docs.join(PAGE), &page(&library))?;
    chart::svg(&library).map_or(Ok(()), |svg| put(&docs.join(CHART), &svg))
}

fn put(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn section(out: &mut String, title: &str, body: &str) {
    let _infallible = write!(out, "\n## {title}\n\n{body}");
}

/// Where figures are from, what they mean, and the figures.
fn measured(headline: &str, file: &str, meaning: &str, figures: &str) -> String {
    format!("{headline}, from {}.\n\n{meaning}\n\n{figures}", link(file))
}

fn link(file: &str) -> String {
    format!("[{file}]({RESULTS}/{file})")
}

/// Budgets of sealed traffic, and what the ciphers give by themselves.
fn sealed(library: &Library) -> String {
    format!("{SEALED}\n\n{}{}", budget_table(&budgets::sealed(library)), cipher_table(library))
}

/// Payload a second of one processor, by cipher and size; empty when nobody measured it.
fn cipher_table(library: &Library) -> String {
    let sizes = cases::SEALED_SIZES;
    let row = |suite: Suite, what: &str| {
        let speed = |size: usize| Some(size as f64 / library.micro(&cases::sealed_case(what, size, suite))?);
        let cells: Vec<String> = sizes.iter().filter_map(|size| speed(*size)).map(figure).collect();
        let name = format!("{what}, {}", suite.name());
        (cells.len() == sizes.len()).then(|| std::iter::once(name).chain(cells).collect::<Vec<_>>())
    };
    let rows: Vec<_> = Suite::ALL
        .iter()
        .flat_map(|suite| ["seal", "open"].map(|what| row(*suite, what)))
        .flatten()
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let head = std::iter::once("GB/s".to_owned()).chain(sizes.map(|size| format!("{size} B"))).collect();
    format!("\n{CIPHERS}\n\n{}", aligned(&[vec![head], rows].concat()))
}

fn budget_table(budgets: &[Budget]) -> String {
    let head = ["promise", "budget", "measured", "verdict"].map(str::to_owned).to_vec();
    let rows: Vec<_> = std::iter::once(head).chain(budgets.iter().map(Budget::cells)).collect();
    aligned(&rows)
}

fn tested_table() -> String {
    let row = |(what, path): &(&str, &str)| vec![(*what).to_owned(), format!("[{path}](../{path})")];
    let head = vec!["promise".to_owned(), "tested by".to_owned()];
    aligned(&std::iter::once(head).chain(TESTED.iter().map(row)).collect::<Vec<_>>())
}

fn results(out: &mut String, title: &str, all: &[Named<Results>]) {
    for Named { file, content } in all {
        let tables = content.wires.iter().map(|wire| {
            let name = if wire.wire == NO_WIRE { "one host".into() } else { format!("`{}` wire", wire.wire) };
            format!("### {title}, {name}\n\n{}", wire.markdown())
        });
        let tables: Vec<String> = tables.collect();
        let body = format!("{}, from {}.\n\n{}", content.headline(), link(file), tables.join("\n"));
        section(out, title, &body);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_page_is_what_the_results_make() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        let library = Library::read(&docs.join(RESULTS)).unwrap();
        let again = "run `cargo run --release -p bench --bin report` and commit";
        assert_eq!(std::fs::read_to_string(docs.join(PAGE)).unwrap(), page(&library), "{again}");
        let chart = chart::svg(&library).unwrap();
        assert_eq!(std::fs::read_to_string(docs.join(CHART)).unwrap(), chart, "{again}");
    }

    #[test]
    fn the_tests_it_names_exist() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        assert_eq!(TESTED.iter().find(|(_, path)| !root.join(path).is_file()), None);
    }

    #[test]
    fn a_page_without_results_says_so() {
        let text = page(&Library::default());
        assert!(text.contains("not measured") && !text.contains("holds |"));
    }
}
