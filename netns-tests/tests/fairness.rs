//! One container that floods takes nobody else's share: who sends too much loses, and it shows where.

use std::time::Duration;

use netns_tests::{
    Attached, Host, IperfServer, Result, Tool, Topology, Transport, Value, Wire, anyhow, ensure, number,
    secs, wait_until,
};

/// How long the neighbours are measured while the flood lasts.
const TIME: Duration = Duration::from_secs(6);
/// The flood starts before and ends after them.
const FLOOD_TIME: Duration = Duration::from_secs(12);
/// As many small datagrams as a processor can make.
const FLOOD: Transport = Transport::Udp { payload_bytes: 64, bits_per_second: 0 };

/// What a hundred pings a second may lose, in percent.
const LOST_PERCENT: f64 = 5.0;
/// The median of their times, in milliseconds: full rings beside them, and a scheduler with more to run than processors.
const MEDIAN_MS: f64 = 25.0;
/// What is left for TCP between hosts, in bits per second.
const TCP_FLOOR: f64 = 100e6;
/// What a daemon may grow under the flood, in bytes, once its buffers have been used.
const GROWTH_BYTES: u64 = 4 << 20;
/// Some time after the last datagram.
const REST: Duration = Duration::from_secs(10);

#[test]
fn a_flood_of_small_datagrams_leaves_its_neighbours_their_share() -> Result<()> {
    let net = Topology::new("one floods, another works")?.wire(Wire::Nic).hosts(2)?;
    net.host(0).launch(&[])?;
    net.host(1).launch(&["node01"])?;
    let (flooder, worker) = (net.host(0).attach("flooder")?, net.host(0).attach("worker")?);
    let (sink, far) = (net.host(1).attach("sink")?, net.host(1).attach("far")?);
    flooder.ping(&sink)?;
    worker.ping(&far)?;
    let (to_sink, to_far) =
        (IperfServer::start(sink.namespace(), &sink)?, IperfServer::start(far.namespace(), &far)?);
    let flood = to_sink.stream_from(flooder.namespace(), FLOOD, FLOOD_TIME)?;
    wait_until("the flood is at its height", secs(5), || {
        let port = net.host(0).port(&flooder)?;
        let sent = number(&port, "segments_in")? + number(&port, "kernel_drops_in")?;
        ensure!(sent > 20_000, "{sent} datagrams: {port}");
        Ok(())
    })?;
    to_far.measure(worker.namespace(), Transport::TCP, secs(1), "")?;
    let memory = memory_of_each(&net)?;
    let pings = Pings::start(&worker, &far)?;
    let tcp = to_far.measure(worker.namespace(), Transport::TCP, TIME, "")?;
    let pings = pings.finish()?;
    // Its report may be lost in what it sent; that it flooded, its port tells.
    let _ = flood.finish();

    ensure!(pings.lost_percent <= LOST_PERCENT, "{pings:?}");
    ensure!(pings.median_ms <= MEDIAN_MS, "{pings:?}");
    ensure!(tcp.bits_per_second()? >= TCP_FLOOR, "TCP had {:.0} bit/s", tcp.bits_per_second()?);
    the_loss_shows(&net, &flooder, &worker, &sink)?;
    for (host, before) in net.all().iter().zip(memory) {
        host.wait_balanced(REST)?;
        let (_, after) = host.usage()?;
        ensure!(after < before + GROWTH_BYTES, "{} grew from {before} to {after} bytes", host.name());
    }
    Ok(())
}

/// More was sent than went through: the flooder's own ports say where it stayed, and the worker's do not.
fn the_loss_shows(net: &Topology, flooder: &Attached, worker: &Attached, sink: &Attached) -> Result<()> {
    let (from, to) = (net.host(0).port(flooder)?, net.host(1).port(sink)?);
    let at_the_wire: u64 = net.all().iter().map(socket_drops).sum::<Result<u64>>()?;
    let lost = lost_at(&from)? + lost_at(&to)? + at_the_wire;
    ensure!(lost > 0, "a flood without limit, and no loss: {from} {to}");
    let neighbour = net.host(0).port(worker)?;
    ensure!(lost_at(&neighbour)? < lost / 10, "the flood lost {lost}, its neighbour: {neighbour}");
    Ok(())
}

/// Frames of a port that the kernel or the data plane dropped.
fn lost_at(port: &Value) -> Result<u64> {
    let drops = port.get("drops").and_then(Value::as_object).ok_or_else(|| anyhow!("no drops in {port}"))?;
    let here: u64 = drops.values().filter_map(Value::as_u64).sum();
    Ok(here + number(port, "kernel_drops_in")? + number(port, "kernel_drops_out")?)
}

fn socket_drops(host: &Host) -> Result<u64> {
    host.workers()?.iter().map(|worker| number(worker, "kernel_drops")).sum()
}

/// A hundred pings a second, under way.
struct Pings(netns_tests::Process);

/// How they went.
#[derive(Debug)]
struct Answers {
    lost_percent: f64,
    median_ms: f64,
}

impl Pings {
    fn start(from: &Attached, to: &Attached) -> Result<Self> {
        let count = TIME.as_secs() * 100;
        let line = format!("-n -i 0.01 -c {count} -W 1 {}", to.address);
        Ok(Pings(Tool::new("ping").words(&line).inside(from.namespace()).start()?))
    }

    fn finish(self) -> Result<Answers> {
        let text = self.0.wait(TIME + secs(30))?.stdout;
        let time = |line: &str| line.split_once("time=")?.1.split_whitespace().next()?.parse().ok();
        let mut times: Vec<f64> = text.lines().filter_map(time).collect();
        times.sort_by(f64::total_cmp);
        let median_ms = *times.get(times.len() / 2).ok_or_else(|| anyhow!("no answer at all: {text}"))?;
        let sent = TIME.as_secs_f64() * 100.0;
        Ok(Answers { lost_percent: 100.0 * (1.0 - times.len() as f64 / sent), median_ms })
    }
}

fn memory_of_each(net: &Topology) -> Result<Vec<u64>> {
    net.all().iter().map(|host| Ok(host.usage()?.1)).collect()
}
