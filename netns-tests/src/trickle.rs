//! A TCP stream of small messages, and how long nothing of it arrived.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};

use crate::container::Addressed;
use crate::netns::Namespace;
use crate::wait::pause;

/// Between two messages.
const STEP: Duration = Duration::from_millis(5);
/// A stream that brings nothing for so long is taken for dead.
const DEAD: Duration = Duration::from_secs(20);

/// A stream under way, message after message, each with its number.
#[derive(Debug)]
pub struct Trickle {
    stop: Arc<AtomicBool>,
    arrivals: Arc<Mutex<Arrivals>>,
    sender: JoinHandle<Result<u64>>,
    receiver: JoinHandle<Result<u64>>,
}

/// When the last message arrived, and the longest time between two.
#[derive(Debug)]
struct Arrivals {
    last: Instant,
    longest: Duration,
}

impl Trickle {
    /// Begins a stream to `port` of `to`, which is in the namespace `at`; the first message has arrived.
    pub fn start(from: &Namespace, (at, to): (&Namespace, &impl Addressed), port: u16) -> Result<Self> {
        let addr = SocketAddr::new(to.address(), port);
        let listener = at.run(|| TcpListener::bind(addr))??;
        let mut out = from.run(|| TcpStream::connect_timeout(&addr, Duration::from_secs(5)))??;
        let (mut into, _) = listener.accept()?;
        out.set_nodelay(true)?;
        into.set_read_timeout(Some(DEAD))?;
        out.write_all(&0_u64.to_le_bytes())?;
        into.read_exact(&mut [0; 8])?;
        let arrivals = Arrivals { last: Instant::now(), longest: Duration::ZERO };
        let (stop, arrivals) = (Arc::<AtomicBool>::default(), Arc::new(Mutex::new(arrivals)));
        let (stopped, noted) = (Arc::clone(&stop), Arc::clone(&arrivals));
        let sender = std::thread::spawn(move || send(out, &stopped));
        let receiver = std::thread::spawn(move || receive(into, &noted));
        Ok(Trickle { stop, arrivals, sender, receiver })
    }

    /// The longest time without a message since this was asked last, up to now.
    pub fn longest_gap(&self) -> Duration {
        let mut arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut arrivals.longest).max(arrivals.last.elapsed())
    }

    /// Ends it; every message must have arrived.
    pub fn finish(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sender.join().map_err(|_| anyhow!("the sender panicked"))??;
        let came = self.receiver.join().map_err(|_| anyhow!("the receiver panicked"))??;
        ensure!(sent == came, "{sent} messages were sent, {came} arrived");
        Ok(())
    }
}

fn send(mut out: TcpStream, stopped: &AtomicBool) -> Result<u64> {
    let mut number = 1_u64;
    while !stopped.load(Ordering::Relaxed) {
        out.write_all(&number.to_le_bytes())?;
        number += 1;
        pause(STEP);
    }
    Ok(number)
}

fn receive(mut into: TcpStream, arrivals: &Mutex<Arrivals>) -> Result<u64> {
    let (mut number, mut message) = (1_u64, [0; 8]);
    loop {
        match into.read_exact(&mut message) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(number),
            Err(error) => return Err(anyhow!("after {number} messages: {error}")),
        }
        ensure!(message == number.to_le_bytes(), "message {number} is {message:?}");
        let mut arrivals = arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        arrivals.longest = arrivals.longest.max(arrivals.last.elapsed());
        (number, arrivals.last) = (number + 1, Instant::now());
    }
}
