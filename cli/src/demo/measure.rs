//! TCP throughput between two network namespaces: a sender and a receiver thread, and the processor time it takes.

#![allow(clippy::disallowed_types, reason = "load generators are sockets")]

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use engine::io::netns::Netns;
use nix::unistd::{SysconfVar, sysconf};
use socket2::SockRef;

use super::stop::Stop;

/// Left out of the figures at the start of a run: the congestion window opens here.
const WARM_UP: Duration = Duration::from_millis(250);
/// How long a connection may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often the threads look up from their work.
const TICK: Duration = Duration::from_millis(50);
const BUFFER_BYTES: usize = 128 * 1024;

/// One run of one stream.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Flow {
    /// Bytes the receiver read while the clock ran.
    pub(crate) bytes: u64,
    /// How long the clock ran.
    pub(crate) time: Duration,
    /// Processor time of the whole machine meanwhile, in seconds.
    pub(crate) cpu_seconds: f64,
}

impl Flow {
    /// Payload in 10^9 bits per second.
    pub(crate) fn gbit_per_s(&self) -> f64 {
        self.bytes as f64 * 8.0 / 1e9 / self.time.as_secs_f64()
    }

    /// Processor seconds for 10^9 bytes of payload.
    pub(crate) fn cpu_s_per_gb(&self) -> f64 {
        self.cpu_seconds / (self.bytes as f64 / 1e9)
    }
}

/// Sends one TCP stream from `from` to the address `to` of `receiver` for `time`.
pub(crate) fn tcp(from: &Netns, receiver: &Netns, to: Ipv4Addr, time: Duration, stop: &Stop) -> Result<Flow> {
    let run = &Run::default();
    let (port_tx, port_rx) = mpsc::channel();
    thread::scope(|scope| {
        let receiving = scope.spawn(move || receiver.run(|| run.receive(&port_tx))?);
        let sending = scope.spawn(move || {
            let port = port_rx.recv().context("the receiver of the stream did not start")?;
            from.run(|| run.send(SocketAddrV4::new(to, port)))?
        });
        let flow = run.watch(time, stop, || sending.is_finished() || receiving.is_finished());
        run.over.store(true, Ordering::Relaxed);
        let ends = [receiving.join(), sending.join()];
        for end in ends {
            end.unwrap_or_else(|_| Err(anyhow!("a thread of the measurement panicked")))?;
        }
        flow
    })
}

/// What the threads of a run share.
#[derive(Default)]
struct Run {
    received: AtomicU64,
    over: AtomicBool,
}

impl Run {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Waits for the stream to flow, lets it warm up, and takes the figures.
    fn watch(&self, time: Duration, stop: &Stop, ended: impl Fn() -> bool) -> Result<Flow> {
        let start = Instant::now();
        while self.received.load(Ordering::Relaxed) == 0 && !ended() && start.elapsed() < PATIENCE {
            stop.sleep(Duration::from_millis(1))?;
        }
        ensure!(!ended(), "the TCP stream ended before it was measured");
        stop.sleep(WARM_UP)?;
        let (cpu, bytes, start) = (busy_seconds()?, self.received.load(Ordering::Relaxed), Instant::now());
        stop.sleep(time)?;
        let (bytes, time) = (self.received.load(Ordering::Relaxed) - bytes, start.elapsed());
        let cpu_seconds = busy_seconds()? - cpu;
        ensure!(bytes > 0, "the TCP stream does not flow: no byte arrived in {:.1} s", time.as_secs_f64());
        Ok(Flow { bytes, time, cpu_seconds })
    }

    /// The thread of the receiver: tells its port, accepts one stream and counts its bytes.
    fn receive(&self, port: &mpsc::Sender<u16>) -> Result<()> {
        let listener =
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).context("cannot listen for the stream")?;
        listener.set_nonblocking(true)?;
        port.send(listener.local_addr()?.port()).context("the sender of the stream is gone")?;
        let Some(mut stream) = self.accept(&listener)? else { return Ok(()) };
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(TICK))?;
        let mut buffer = vec![0; BUFFER_BYTES];
        while !self.is_over() {
            match stream.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(bytes) => {
                    self.received.fetch_add(bytes as u64, Ordering::Relaxed);
                }
                Err(error) if may_go_on(&error) => {}
                // The sender ends its stream by a reset.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
                Err(error) => return Err(error).context("the stream broke at the receiver"),
            }
        }
        Ok(())
    }

    fn accept(&self, listener: &TcpListener) -> Result<Option<TcpStream>> {
        while !self.is_over() {
            match listener.accept() {
                Ok((stream, _)) => return Ok(Some(stream)),
                Err(error) if may_go_on(&error) => thread::sleep(Duration::from_millis(1)),
                Err(error) => return Err(error).context("cannot accept the stream"),
            }
        }
        Ok(None)
    }

    /// The thread of the sender: writes until the run is over, then resets the stream so that nothing of it is left
    /// in a queue when the next run starts.
    fn send(&self, to: SocketAddrV4) -> Result<()> {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::V4(to), PATIENCE)
            .with_context(|| format!("cannot connect to {to}"))?;
        SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        stream.set_write_timeout(Some(TICK))?;
        let payload = vec![0x6d; BUFFER_BYTES];
        while !self.is_over() {
            match stream.write(&payload) {
                Ok(_) => {}
                Err(error) if may_go_on(&error) => {}
                // The receiver left first.
                Err(_) if self.is_over() => return Ok(()),
                Err(error) => return Err(error).context("the stream broke at the sender"),
            }
        }
        Ok(())
    }
}

fn may_go_on(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

/// Seconds in which the processors of the machine were not idle, since it started (proc(5), /proc/stat).
pub(crate) fn busy_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    let ticks = busy_ticks(&stat).context("/proc/stat has no line of all processors")?;
    Ok(ticks as f64 / per_second as f64)
}

/// The first line: cpu user nice system idle iowait irq softirq steal guest guest_nice; guest is part of user.
fn busy_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.lines().next()?.strip_prefix("cpu ")?.split_ascii_whitespace();
    let mut next = || fields.next()?.parse::<u64>().ok();
    let (user, nice, system, _idle, _iowait) = (next()?, next()?, next()?, next()?, next()?);
    Some(user + nice + system + next()? + next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_told_in_bits_and_processor_seconds() {
        let flow = Flow { bytes: 500_000_000, time: Duration::from_secs(2), cpu_seconds: 1.5 };
        assert!((flow.gbit_per_s() - 2.0).abs() < 1e-9);
        assert!((flow.cpu_s_per_gb() - 3.0).abs() < 1e-9);
    }

    #[test]
    fn busy_is_everything_but_idle_and_waiting() {
        let stat = "cpu  10 2 30 1000 500 4 5 7 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        assert_eq!(busy_ticks(stat), Some(10 + 2 + 30 + 4 + 5));
        assert_eq!(busy_ticks("intr 1 2 3\n"), None);
    }

    #[test]
    fn a_stream_flows_from_the_sender_to_the_receiver() {
        let run = &Run::default();
        let (port_tx, port_rx) = mpsc::channel();
        let flow = thread::scope(|scope| {
            scope.spawn(move || run.receive(&port_tx).unwrap());
            let port = port_rx.recv().unwrap();
            scope.spawn(move || run.send(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)).unwrap());
            let flow = run.watch(Duration::from_millis(50), &Stop::default(), || false);
            run.over.store(true, Ordering::Relaxed);
            flow.unwrap()
        });
        assert!(flow.bytes > 0 && flow.time >= Duration::from_millis(50));
    }

    #[test]
    fn an_address_that_refuses_is_an_error_not_a_wait() {
        let started = Instant::now();
        let nobody = SocketAddrV4::new(Ipv4Addr::new(127, 255, 255, 254), 9);
        let error = Run::default().send(nobody).unwrap_err();
        assert!(error.to_string().contains("cannot connect"), "{error:#}");
        assert!(started.elapsed() < PATIENCE);
    }
}
