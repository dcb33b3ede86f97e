//! The tables of `status dataplane`.

use std::collections::BTreeMap;
use std::fmt::Write;

use engine::rate::Rate;

use super::super::Table;
use crate::shape::{Conservation, ControlSocket, Dataplane, Offload, Passing, Port, Worker};

/// All of them that are not empty, a blank line between two.
pub(super) fn tables(dataplane: &Dataplane) -> String {
    let tables = [
        ports(&dataplane.ports),
        workers(&dataplane.workers, &dataplane.control),
        books(&dataplane.conservation),
        gateway(&dataplane.gateway),
        drops(dataplane),
        offloads(dataplane),
    ];
    let mut text = tables.into_iter().filter(|t| !t.is_empty()).collect::<Vec<_>>().join("\n");
    for stray in &dataplane.unclaimed {
        let (ifname, netns, port) = (&stray.ifname, stray.netns, &stray.port);
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "unclaimed: {ifname} in the namespace {netns}, once port {port}: no daemon has it"
        );
    }
    text
}

/// What went one way.
#[derive(Clone, Copy)]
struct Flow {
    name: &'static str,
    frames: u64,
    segments: u64,
    bytes: u64,
    batches: u64,
    mean_batch: Option<f64>,
    super_frames: Option<u64>,
}

impl Flow {
    const TITLES: [&'static str; 7] =
        ["WAY", "FRAMES", "SEGMENTS", "BYTES", "BATCHES", "MEAN BATCH", "SUPER-FRAMES"];

    fn cells(&self) -> [String; 7] {
        [
            self.name.to_owned(),
            self.frames.to_string(),
            self.segments.to_string(),
            self.bytes.to_string(),
            self.batches.to_string(),
            self.mean_batch.map_or_else(String::new, |mean| format!("{mean:.1}")),
            self.super_frames.map_or_else(String::new, |frames| frames.to_string()),
        ]
    }
}

fn ports(ports: &[Port]) -> String {
    let mut table =
        Table::new(&["PORT", "CONTAINER", "NETWORK", "INTERFACE", "STATE", "QUEUE", "KERNEL DROPS IN, OUT"]);
    let mut flows = Table::new(&[&["CONTAINER", "INTERFACE"][..], &Flow::TITLES].concat());
    for p in ports {
        let queue = p.queue_length.map_or_else(String::new, |len| len.to_string());
        let lost = p.kernel_drops_in.zip(p.kernel_drops_out);
        let lost = lost.map_or_else(String::new, |(sent, given)| format!("{sent}, {given}"));
        let limit = p.rate_bits_per_second.and_then(Rate::new);
        let limit = limit.map(|rate| format!("at most {rate}"));
        let passing = p.passing.map(|passing| match passing {
            Passing::Routed => "routes".to_owned(),
            Passing::Masqueraded => "masquerades".to_owned(),
        });
        let unchecked = p.no_spoof_check.then(|| "sends in any name".to_owned());
        let state = [Some(p.state.clone()), limit, passing, unchecked];
        let state = state.into_iter().flatten().collect::<Vec<_>>().join(", ");
        table.row([&p.port, &p.container, &p.network, &p.ifname, &state, &queue, &lost]);
        for flow in [sent(p), given(p)] {
            let [way, frames, segments, bytes, batches, mean, supers] = flow.cells();
            let name = (&p.container, &p.ifname);
            flows.row([name.0, name.1, &way, &frames, &segments, &bytes, &batches, &mean, &supers]);
        }
    }
    if ports.is_empty() { String::new() } else { format!("{table}\n{flows}") }
}

fn sent(port: &Port) -> Flow {
    Flow {
        name: "in",
        frames: port.frames_in,
        segments: port.segments_in,
        bytes: port.bytes_in,
        batches: port.batches_in,
        mean_batch: port.mean_batch_in,
        super_frames: Some(port.super_frames_in),
    }
}

fn given(port: &Port) -> Flow {
    Flow {
        name: "out",
        frames: port.frames_out,
        segments: port.segments_out,
        bytes: port.bytes_out,
        batches: port.batches_out,
        mean_batch: port.mean_batch_out,
        super_frames: Some(port.super_frames_out),
    }
}

fn workers(workers: &[Worker], control: &ControlSocket) -> String {
    let mut table = Table::new(&[&["WORKER"][..], &Flow::TITLES].concat());
    for (number, worker) in workers.iter().enumerate() {
        for flow in ways(worker) {
            let [way, frames, segments, bytes, batches, mean, supers] = flow.cells();
            table.row([&number.to_string(), &way, &frames, &segments, &bytes, &batches, &mean, &supers]);
        }
    }
    let mut sockets = Table::new(&["WORKER", "SOCKET QUEUE", "OF", "KERNEL DROPS"]);
    let mut socket = |name: &str, queued: u32, buffer: u32, drops: u32| {
        sockets.row([name, &format!("{queued} bytes"), &format!("{buffer} bytes"), &drops.to_string()]);
    };
    for (number, w) in workers.iter().enumerate() {
        socket(&number.to_string(), w.socket_queued_bytes, w.socket_buffer_bytes, w.kernel_drops);
    }
    socket("control", control.socket_queued_bytes, control.socket_buffer_bytes, control.kernel_drops);
    format!("{table}\n{sockets}")
}

fn ways(w: &Worker) -> [Flow; 4] {
    [
        Flow {
            name: "from ports",
            frames: w.port_frames_in,
            segments: w.port_segments_in,
            bytes: w.port_bytes_in,
            batches: w.port_batches_in,
            mean_batch: w.port_mean_batch_in,
            super_frames: None,
        },
        Flow {
            name: "to ports",
            frames: w.port_frames_out,
            segments: w.port_segments_out,
            bytes: w.port_bytes_out,
            batches: w.port_batches_out,
            mean_batch: w.port_mean_batch_out,
            super_frames: None,
        },
        Flow {
            name: "from hosts",
            frames: w.remote_frames_in,
            segments: w.remote_segments_in,
            bytes: w.remote_bytes_in,
            batches: w.remote_batches_in,
            mean_batch: w.remote_mean_batch_in,
            super_frames: Some(w.super_frames_joined),
        },
        Flow {
            name: "to hosts",
            frames: w.remote_frames_out,
            segments: w.remote_segments_out,
            bytes: w.remote_bytes_out,
            batches: w.remote_batches_out,
            mean_batch: w.remote_mean_batch_out,
            super_frames: Some(w.super_frames_cut + w.super_frames_whole),
        },
    ]
}

/// What the gateway did; nothing before somebody has asked it.
fn gateway(counts: &BTreeMap<String, u64>) -> String {
    let mut table = Table::new(&["GATEWAY", "COUNT"]);
    for (what, count) in counts.iter().filter(|(_, count)| **count > 0) {
        table.row([what, &count.to_string()]);
    }
    table.to_string()
}

fn books(books: &Conservation) -> String {
    let Conservation { taken, copies, recut, given, drops, answered, to_gateway, from_gateway, difference } =
        books;
    let mut table = Table::new(&[
        "IN",
        "COPIES",
        "RECUT",
        "FROM GATEWAY",
        "OUT",
        "DROPPED",
        "TO GATEWAY",
        "ANSWERED",
        "DIFFERENCE",
    ]);
    let cells = [taken, copies, recut, from_gateway, given, drops, to_gateway, answered];
    let [taken, copies, recut, from_gateway, given, drops, to_gateway, answered] =
        cells.map(ToString::to_string);
    let difference = difference.to_string();
    table.row([&taken, &copies, &recut, &from_gateway, &given, &drops, &to_gateway, &answered, &difference]);
    table.to_string()
}

/// Why segments were dropped, and how many of them because of which port.
fn drops(dataplane: &Dataplane) -> String {
    let mut table = Table::new(&["DROPPED", "REASON", "OF THESE AT PORTS"]);
    for (reason, count) in &dataplane.drops {
        let blamed = dataplane.ports.iter().filter_map(|p| Some((p, p.drops.get(reason)?)));
        let blamed: Vec<String> =
            blamed.map(|(p, count)| format!("{} {}: {count}", p.container, p.ifname)).collect();
        table.row([&count.to_string(), reason, &blamed.join(", ")]);
    }
    if dataplane.drops.is_empty() { String::new() } else { table.to_string() }
}

/// Each offload once for all places that had the same answer.
fn offloads(dataplane: &Dataplane) -> String {
    let mut places: BTreeMap<&Offload, Vec<String>> = BTreeMap::new();
    for port in &dataplane.ports {
        for offload in &port.offloads {
            places.entry(offload).or_default().push(format!("{} {}", port.container, port.ifname));
        }
    }
    let mut table = Table::new(&["OFFLOAD", "GRANTED", "REASON", "WHERE"]);
    for o in &dataplane.offloads {
        let granted = if o.granted { "yes" } else { "no" };
        let place = places.get(o).map_or_else(|| "underlay".to_owned(), |ports| ports.join(", "));
        table.row([&o.name, granted, o.reason.as_deref().unwrap_or_default(), &place]);
    }
    if dataplane.offloads.is_empty() { String::new() } else { table.to_string() }
}
