//! Counters as Prometheus reads them: its text format, version 0.0.4.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};

use peering::mesh::{IpamStatus, PeerState};

use super::status::peer_state;
use crate::shape::{Dataplane, Port, Status, Worker};

/// Content type of the text.
pub(crate) const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics of a host, always in the same order.
pub(crate) fn exposition(status: &Status) -> String {
    let mut out = Exposition::default();
    host(&mut out, status);
    workers(&mut out, &status.dataplane.workers);
    ports(&mut out, &status.dataplane.ports);
    books(&mut out, &status.dataplane);
    out.text
}

fn host(out: &mut Exposition, status: &Status) {
    out.gauge("meshnet_info", "Who this is; always 1.");
    let names =
        [("version", &*status.version), ("peer_id", &*status.peer_id), ("nickname", &*status.nickname)];
    out.sample(&names, 1);
    out.gauge("meshnet_ready", "1 when ports carry traffic.");
    out.sample(&[], u8::from(status.ready));
    out.gauge("meshnet_peers", "Other hosts, by state.");
    for state in [PeerState::Alive, PeerState::Suspect, PeerState::Down] {
        let count = status.peers.iter().filter(|peer| peer.state == state).count();
        out.sample(&[("state", peer_state(state))], count);
    }
    out.gauge("meshnet_peers_with_path", "Other hosts to which frames can be sent.");
    out.sample(&[], status.peers.iter().filter(|peer| peer.path.is_some()).count());
    addresses(out, &status.ipam);
    out.counter("meshnet_control_datagrams_total", "Datagrams on the port of the control plane.");
    out.sample(&[], status.control_port.received);
    out.counter("meshnet_control_foreign_total", "Of these, no packets of a connection of this host.");
    out.sample(&[], status.control_port.foreign);
    out.counter("meshnet_control_refused_total", "Hosts that were not let in, here or there.");
    for (reason, count) in &status.control_port.refused {
        out.sample(&[("reason", reason)], *count);
    }
    out.counter(
        "meshnet_handshake_kernel_drops_total",
        "Handshakes and probes for which their socket had no room.",
    );
    out.sample(&[], status.dataplane.control.kernel_drops);
}

/// One number of a worker for one way.
type OfWorker = fn(&Worker) -> u64;

fn addresses(out: &mut Exposition, ipam: &[IpamStatus]) {
    let mut gauge = |name, help, count: fn(&IpamStatus) -> u64| {
        out.gauge(name, help);
        for subnet in ipam {
            out.sample(&[("network", &*subnet.network), ("range", &*subnet.range)], count(subnet));
        }
    };
    gauge("meshnet_ipam_owned", "Addresses that this host may give.", |subnet| subnet.owned);
    gauge("meshnet_ipam_used", "Addresses that this host has given.", |subnet| subnet.used);
    gauge("meshnet_ipam_free", "Addresses that this host can still give.", |subnet| subnet.free);
}

fn workers(out: &mut Exposition, workers: &[Worker]) {
    let families: [(&str, &str, [OfWorker; 4]); 4] = [
        (
            "meshnet_worker_frames_total",
            "Frames and datagrams; a super-frame is one.",
            [|w| w.port_frames_in, |w| w.port_frames_out, |w| w.remote_frames_in, |w| w.remote_frames_out],
        ),
        (
            "meshnet_worker_segments_total",
            "The same as they are on a wire.",
            [
                |w| w.port_segments_in,
                |w| w.port_segments_out,
                |w| w.remote_segments_in,
                |w| w.remote_segments_out,
            ],
        ),
        (
            "meshnet_worker_bytes_total",
            "Their bytes.",
            [|w| w.port_bytes_in, |w| w.port_bytes_out, |w| w.remote_bytes_in, |w| w.remote_bytes_out],
        ),
        (
            "meshnet_worker_batches_total",
            "The batches that carried them.",
            [
                |w| w.port_batches_in,
                |w| w.port_batches_out,
                |w| w.remote_batches_in,
                |w| w.remote_batches_out,
            ],
        ),
    ];
    for (name, help, ways) in families {
        out.counter(name, help);
        for (number, worker) in workers.iter().enumerate() {
            for (way, read) in ["port_in", "port_out", "remote_in", "remote_out"].into_iter().zip(ways) {
                out.sample(&[("worker", &number.to_string()), ("way", way)], read(worker));
            }
        }
    }
    let singles: [(&str, &str, OfWorker); 3] = [
        ("meshnet_worker_super_frames_cut_total", "Super-frames cut into datagrams.", |w| w.super_frames_cut),
        ("meshnet_worker_super_frames_joined_total", "Super-frames joined from datagrams.", |w| {
            w.super_frames_joined
        }),
        ("meshnet_worker_kernel_drops_total", "Datagrams for which the socket had no room.", |w| {
            w.kernel_drops.into()
        }),
    ];
    for (name, help, read) in singles {
        out.counter(name, help);
        for (number, worker) in workers.iter().enumerate() {
            out.sample(&[("worker", &number.to_string())], read(worker));
        }
    }
    out.gauge("meshnet_worker_socket_queued_bytes", "Memory of datagrams that wait in the socket.");
    for (number, worker) in workers.iter().enumerate() {
        out.sample(&[("worker", &number.to_string())], worker.socket_queued_bytes);
    }
    out.counter("meshnet_worker_drops_total", "Segments dropped, by reason.");
    for (number, worker) in workers.iter().enumerate() {
        out.reasons(&[("worker", &number.to_string())], &worker.drops);
    }
}

/// One number of a port, if it is known.
type OfPort = fn(&Port) -> Option<u64>;

fn ports(out: &mut Exposition, ports: &[Port]) {
    let families: [(&str, &str, [OfPort; 2]); 6] = [
        (
            "meshnet_port_frames_total",
            "Frames from and to the container; a super-frame is one.",
            [|p| Some(p.frames_in), |p| Some(p.frames_out)],
        ),
        (
            "meshnet_port_segments_total",
            "The same as they are on a wire.",
            [|p| Some(p.segments_in), |p| Some(p.segments_out)],
        ),
        ("meshnet_port_bytes_total", "Their bytes.", [|p| Some(p.bytes_in), |p| Some(p.bytes_out)]),
        (
            "meshnet_port_batches_total",
            "The batches that carried them.",
            [|p| Some(p.batches_in), |p| Some(p.batches_out)],
        ),
        (
            "meshnet_port_super_frames_total",
            "Super-frames among them.",
            [|p| Some(p.super_frames_in), |p| Some(p.super_frames_out)],
        ),
        (
            "meshnet_port_kernel_drops_total",
            "Frames dropped by the kernel: sent while the ring was full, or thrown away by the container's.",
            [|p| p.kernel_drops_in, |p| p.kernel_drops_out],
        ),
    ];
    for (name, help, directions) in families {
        out.counter(name, help);
        for port in ports {
            for (direction, read) in ["in", "out"].into_iter().zip(directions) {
                let labels = [&labels(port)[..], &[("direction", direction)]].concat();
                read(port).into_iter().for_each(|value| out.sample(&labels, value));
            }
        }
    }
    out.gauge("meshnet_port_queue_length", "Frames that wait at most in each ring of the device.");
    for port in ports {
        port.queue_length.into_iter().for_each(|len| out.sample(&labels(port), len));
    }
    out.counter("meshnet_port_drops_total", "Segments dropped because of the port, by reason.");
    ports.iter().for_each(|port| out.reasons(&labels(port), &port.drops));
}

fn labels(port: &Port) -> [(&'static str, &str); 4] {
    [
        ("port", &port.port),
        ("container", &port.container),
        ("network", &port.network),
        ("interface", &port.ifname),
    ]
}

fn books(out: &mut Exposition, dataplane: &Dataplane) {
    out.counter("meshnet_drops_total", "Segments and control datagrams dropped on this host, by reason.");
    out.reasons(&[], &dataplane.drops);
    let books = &dataplane.conservation;
    out.counter("meshnet_segments_copied_total", "Segments added by floods.");
    out.sample(&[], books.copies);
    out.counter("meshnet_questions_answered_total", "Questions answered by the switch.");
    out.sample(&[], books.answered);
    out.counter("meshnet_gateway_total", "What the gateway did, by what it was.");
    for (what, count) in &dataplane.gateway {
        out.sample(&[("what", what)], *count);
    }
    out.gauge("meshnet_segments_difference", "What came or was made minus what went or ended; 0 at rest.");
    out.sample(&[], books.difference);
}

/// The text as it grows: families one after the other, each with its samples.
#[derive(Default)]
struct Exposition {
    text: String,
    family: &'static str,
}

impl Exposition {
    fn counter(&mut self, name: &'static str, help: &str) {
        self.begin(name, "counter", help);
    }

    fn gauge(&mut self, name: &'static str, help: &str) {
        self.begin(name, "gauge", help);
    }

    fn begin(&mut self, name: &'static str, kind: &str, help: &str) {
        self.family = name;
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<String> =
            labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
        let name = self.family;
        let _ = match labels.as_slice() {
            [] => writeln!(self.text, "{name} {value}"),
            labels => writeln!(self.text, "{name}{{{}}} {value}", labels.join(",")),
        };
    }

    fn reasons(&mut self, labels: &[(&str, &str)], drops: &BTreeMap<String, u64>) {
        for (reason, count) in drops {
            self.sample(&[labels, &[("reason", reason)]].concat(), count);
        }
    }
}

/// What may not stand in a label's value.
fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::render::status::tests::example;

    #[test]
    fn counters_and_gauges_have_their_lines_and_labels() {
        let text = exposition(&example());
        let port = r#"port="0101010101010101",container="web",network="mesh",interface="mesh0""#;
        for line in [
            "# TYPE meshnet_peers gauge".to_owned(),
            r#"meshnet_peers{state="alive"} 1"#.to_owned(),
            r#"meshnet_peers{state="suspect"} 0"#.to_owned(),
            r#"meshnet_ipam_free{network="mesh",range="10.32.0.0/12"} 1048572"#.to_owned(),
            "# TYPE meshnet_worker_frames_total counter".to_owned(),
            r#"meshnet_worker_frames_total{worker="0",way="port_in"} 3"#.to_owned(),
            format!(r#"meshnet_port_segments_total{{{port},direction="in"}} 40"#),
            format!(r#"meshnet_port_kernel_drops_total{{{port},direction="in"}} 7"#),
            format!(r#"meshnet_port_drops_total{{{port},reason="storm_limit"}} 5"#),
            format!("meshnet_port_queue_length{{{port}}} 500"),
            r#"meshnet_drops_total{reason="unknown_source"} 2"#.to_owned(),
            "meshnet_segments_difference -1".to_owned(),
            "meshnet_control_foreign_total 1".to_owned(),
            r#"meshnet_control_refused_total{reason="wrong_secret"} 3"#.to_owned(),
        ] {
            assert!(text.lines().any(|l| l == line), "{line:?} in {text}");
        }
        assert_eq!(text, exposition(&example()), "the order is always the same");
    }

    #[test]
    fn the_text_is_what_the_format_asks_for() {
        let text = exposition(&example());
        let (mut families, mut kind) = (BTreeSet::new(), ("", ""));
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                kind = rest.split_once(' ').unwrap();
                assert!(families.insert(kind.0), "{} twice", kind.0);
                assert_eq!(kind.1 == "counter", kind.0.ends_with("_total"), "{rest}");
            } else if !line.starts_with("# HELP ") {
                let (sample, value) = line.rsplit_once(' ').unwrap();
                assert_eq!(sample.split('{').next(), Some(kind.0), "{line}");
                assert!(value.parse::<i64>().is_ok(), "{line}");
            }
        }
        assert!(text.ends_with('\n') && families.len() > 20);
    }

    #[test]
    fn odd_names_are_escaped() {
        let mut status = example();
        status.dataplane.ports[0].container = "a\"b\\c\nd".into();
        assert!(exposition(&status).contains(r#"container="a\"b\\c\nd""#));
    }
}
