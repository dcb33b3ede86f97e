//! `names`: how many questions the gateway answers, how many are lost, and how long an answer takes. Needs root.

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a command-line program prints, reads the clock and has sockets"
)]

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bench::machine::Machine;
use bench::names::Names;
use bench::networks::question::message;
use bench::options::write_json;
use clap::Parser;
use netns_tests::Topology;

/// The gateway of the network `mesh` with the usual range.
const GATEWAY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 32, 0, 1)), 53);
/// A container on the same host.
const NAME: &str = "db.mesh.mesh.internal";
/// How long an answer is waited for after the last question.
const PATIENCE: Duration = Duration::from_secs(1);

/// Asks the gateway for a local name at a steady rate, from a container of one host
#[derive(Parser, Debug)]
#[command(name = "names")]
struct Args {
    /// Questions a second
    #[arg(long, value_name = "RATE", default_value_t = 10_000)]
    rate: u32,
    /// Length of the run
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    seconds: u32,
    /// Write all figures here too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let net = Topology::new("names under load")?.hosts(1)?;
    net.host(0).launch(&[])?;
    let (web, db) = (net.host(0).attach("web")?, net.host(0).attach("db")?);
    web.ping(&GATEWAY.ip())?;
    let times = web.namespace().run(|| ask(&args))??;
    drop((web, db, net.quiet()));
    let names = Names::new(Machine::read()?, args.rate, args.seconds, times);
    println!("{}\n\n{}", names.headline(), names.markdown());
    args.json.as_ref().map_or(Ok(()), |path| write_json(path, &names))
}

/// Sends at the rate, whatever comes back; how long each answer took.
fn ask(args: &Args) -> Result<Vec<Duration>> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(GATEWAY)?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let (start, total) = (Instant::now(), args.rate * args.seconds);
    let done = AtomicBool::new(false);
    let due = |number: u32| start + Duration::from_secs(1) * number / args.rate;
    std::thread::scope(|scope| {
        let receiver = scope.spawn(|| receive(&socket, &done, due, total));
        for number in 0..total {
            std::thread::sleep(due(number).saturating_duration_since(Instant::now()));
            socket.send(&message(NAME, number as u16))?;
        }
        std::thread::sleep(PATIENCE);
        done.store(true, Ordering::Relaxed);
        let times = receiver.join().map_err(|_| anyhow::anyhow!("the receiver failed"))??;
        ensure!(!times.is_empty(), "no answer at all");
        Ok(times)
    })
}

/// Takes answers until it is done. Ids come round: a number is the one last sent with that id. A time counts from when the question
/// was due, so that a sender who is late hides nothing.
fn receive(
    socket: &UdpSocket,
    done: &AtomicBool,
    due: impl Fn(u32) -> Instant,
    total: u32,
) -> Result<Vec<Duration>> {
    let (mut times, mut seen) = (Vec::with_capacity(total as usize), 0_u32);
    let mut answer = [0; 1500];
    while !done.load(Ordering::Relaxed) {
        let Ok(len) = socket.recv(&mut answer) else { continue };
        let now = Instant::now();
        let &[a, b, _, code, _, _, _, answers, ..] = &answer[..len] else { continue };
        ensure!(code & 0x0f == 0 && answers == 1, "answered with code {} and {answers} records", code & 0x0f);
        let step = u16::from_be_bytes([a, b]).wrapping_sub(seen as u16).cast_signed();
        let number = seen.wrapping_add_signed(i32::from(step));
        seen = seen.max(number);
        times.push(now.saturating_duration_since(due(number)));
    }
    Ok(times)
}
