//! Load of every kind, for as long as `MESHNET_SOAK_S` says, while ports come and go: nothing grows, nothing is
//! left waiting, and nothing is lost without a reason.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use netns_tests::{
    Attached, Context, Host, IperfServer, Result, Stopwatch, Topology, Transport, Wire, anyhow, ensure,
    number, pause, ping_all_pairs, secs, wait_until,
};

/// How long the load lasts unless the environment says otherwise, in seconds.
const SHORT_S: f64 = 20.0;
/// By how much a daemon may grow after the warm-up, in bytes: what the allocator keeps at hand.
const GROWTH_BYTES: u64 = 2 << 20;
/// And for each port that came and went on any host: its tombstone is remembered, in every index (3 KiB were seen).
const PORT_BYTES: u64 = 6 << 10;
/// Some time after the last frame, and after the last port went.
const REST: Duration = Duration::from_secs(10);
/// Ten times a second, these keep far below the storm limit of a port.
const FLOODS: usize = 100;

/// How long one answer may take in the crowd.
const PATIENCE: Duration = Duration::from_secs(20);

const TCP_BOTH_WAYS: [(Transport, &str); 2] =
    [(Transport::Tcp { streams: 2 }, ""), (Transport::Tcp { streams: 2 }, "-R")];
const SMALL_UDP: (Transport, &str) = (Transport::Udp { payload_bytes: 64, bits_per_second: 30_000_000 }, "");
/// From nothing but a header to two fragments, in bytes of payload.
const SIZES: [u16; 6] = [18, 200, 576, 1200, 1400, 2400];

#[test]
fn a_long_mixed_load_leaves_nothing_behind() -> Result<()> {
    let lasting = soak_time()?;
    let net = Topology::new("a soak of three hosts")?.wire(Wire::Nic).hosts(3)?;
    net.launch_together(&["node01"])?;
    net.wait_converged(secs(10))?;
    let attach = |name: &str| net.all().iter().map(|host| host.attach(name)).collect::<Result<Vec<_>>>();
    let (webs, dbs) = (attach("web")?, attach("db")?);
    let everybody: Vec<_> = webs.iter().chain(&dbs).collect();
    ping_all_pairs(&everybody)?;

    let descriptors = of_each(&net, Host::open_descriptors)?;
    let frames_before = of_each(&net, frames_in)?;
    let warm = load(&net, &webs, &dbs, lasting)?;
    let frames_after = of_each(&net, frames_in)?;
    let ports = lasting.as_secs() * net.all().len() as u64;
    let growth = GROWTH_BYTES + ports * PORT_BYTES;

    ping_all_pairs(&everybody)?;
    for (index, host) in net.all().iter().enumerate() {
        let name = host.name();
        let carried = frames_after[index] - frames_before[index];
        ensure!(
            carried > 1000 * lasting.as_secs(),
            "{name} had {carried} segments to carry, which is no load"
        );
        let (before, after) = (warm[index], memory(host)?);
        ensure!(after < before + growth, "{name} grew from {before} to {after} bytes");
        wait_until(&format!("{name} is at rest"), REST, || at_rest(host, descriptors[index]))?;
        host.wait_balanced(REST)?;
    }
    Ok(())
}

/// Nothing waits in a socket, and every descriptor of a port that went is closed.
fn at_rest(host: &Host, descriptors: usize) -> Result<()> {
    for worker in host.workers()? {
        ensure!(number(&worker, "socket_queued_bytes")? == 0, "datagrams wait: {worker}");
    }
    let open = host.open_descriptors()?;
    ensure!(open == descriptors, "{open} descriptors are open, {descriptors} were");
    Ok(())
}

/// Everything at once, until the time is over or something fails; the memory of each daemon after the warm-up.
fn load(net: &Topology, webs: &[Attached], dbs: &[Attached], lasting: Duration) -> Result<Vec<u64>> {
    let shift = Shift { clock: Stopwatch::start(), lasting, broken: AtomicBool::new(false) };
    let shift = &shift;
    std::thread::scope(|scope| {
        let mut loads = vec![
            scope.spawn(move || streams(shift, &webs[0], &dbs[1], &TCP_BOTH_WAYS)),
            scope.spawn(move || streams(shift, &webs[2], &dbs[0], &TCP_BOTH_WAYS)),
            scope.spawn(move || streams(shift, &webs[1], &dbs[2], &[SMALL_UDP])),
            scope.spawn(move || streams(shift, &dbs[2], &webs[0], &SIZES.map(of_size))),
            scope.spawn(move || floods(shift, &webs[1])),
        ];
        for (host, web) in net.all().iter().zip(webs) {
            loads.push(scope.spawn(move || pings(shift, web, dbs)));
            loads.push(scope.spawn(move || ports_come_and_go(shift, host, web)));
        }
        shift.wait(lasting / 5);
        let warm = of_each(net, memory);
        let ends =
            loads.into_iter().map(|load| load.join().unwrap_or_else(|_| Err(anyhow!("a load panicked"))));
        ends.collect::<Result<Vec<()>>>()?;
        warm
    })
}

/// The time of all loads: it is over for all when one fails.
struct Shift {
    clock: Stopwatch,
    lasting: Duration,
    broken: AtomicBool,
}

impl Shift {
    fn goes_on(&self) -> bool {
        self.clock.elapsed() < self.lasting && !self.broken.load(Ordering::Relaxed)
    }

    fn repeat(&self, what: &str, mut work: impl FnMut() -> Result<()>) -> Result<()> {
        while self.goes_on() {
            if let Err(error) = work() {
                self.broken.store(true, Ordering::Relaxed);
                return Err(error.context(format!("{what}, {:?} after the start", self.clock.elapsed())));
            }
        }
        Ok(())
    }

    fn wait(&self, until: Duration) {
        while self.goes_on() && self.clock.elapsed() < until {
            pause(secs(0.05));
        }
    }
}

/// One stream after the other. iperf3 gives a stream up when a datagram of its greeting is lost in the crowd, and
/// its server waits for the rest: then the next stream has a new server.
fn streams(shift: &Shift, from: &Attached, to: &Attached, kinds: &[(Transport, &str)]) -> Result<()> {
    let mut server = None;
    let (mut kinds, mut whole, mut given_up) = (kinds.iter().cycle(), 0, 0);
    shift.repeat("streams", || {
        let (transport, options) = kinds.next().context("no kinds of streams")?;
        let running = match server.take() {
            Some(running) => running,
            None => IperfServer::start(to.namespace(), to)?,
        };
        let Err(error) = running.measure(from.namespace(), *transport, secs(2), options) else {
            whole += 1;
            server = Some(running);
            return Ok(());
        };
        given_up += 1;
        ensure!(given_up <= 2 + whole / 4, "{given_up} streams given up, {whole} went well: {error:#}");
        Ok(())
    })
}

fn of_size(payload_bytes: u16) -> (Transport, &'static str) {
    (Transport::Udp { payload_bytes, bits_per_second: 20_000_000 }, "")
}

/// Broadcasts, and questions of ARP for somebody who does not exist.
fn floods(shift: &Shift, from: &Attached) -> Result<()> {
    shift.repeat("floods", || {
        from.namespace().broadcast(SocketAddr::from(([10, 47, 255, 255], 9)), FLOODS)?;
        from.namespace().send_datagrams(SocketAddr::from(([10, 47, 255, 254], 9)), &[vec![0; 18]])?;
        pause(secs(0.1));
        Ok(())
    })
}

/// Whatever else is going on: an answer comes.
fn pings(shift: &Shift, from: &Attached, to: &[Attached]) -> Result<()> {
    let mut to = to.iter().cycle();
    shift.repeat("pings", || {
        from.ping_within(to.next().context("nobody to ping")?, PATIENCE)?;
        pause(secs(0.05));
        Ok(())
    })
}

/// One container a second: made, attached, reached, detached and gone.
fn ports_come_and_go(shift: &Shift, host: &Host, neighbour: &Attached) -> Result<()> {
    let mut number = 0;
    shift.repeat("ports", || {
        number += 1;
        let guest = host.attach(&format!("{}-guest{number}", host.name()))?;
        guest.ping_within(neighbour, PATIENCE)?;
        host.detach(&guest)?;
        pause(secs(0.8));
        Ok(())
    })
}

fn soak_time() -> Result<Duration> {
    let Ok(text) = std::env::var("MESHNET_SOAK_S") else { return Ok(secs(SHORT_S)) };
    let seconds: u32 =
        text.parse().with_context(|| format!("MESHNET_SOAK_S={text} is no number of seconds"))?;
    ensure!(seconds >= 10, "MESHNET_SOAK_S={seconds}: nothing can be said of less than 10 s");
    Ok(secs(seconds))
}

fn of_each<T>(net: &Topology, look: impl Fn(&Host) -> Result<T>) -> Result<Vec<T>> {
    net.all().iter().map(look).collect()
}

fn memory(host: &Host) -> Result<u64> {
    Ok(host.usage()?.1)
}

fn frames_in(host: &Host) -> Result<u64> {
    number(&host.books()?, "in")
}
