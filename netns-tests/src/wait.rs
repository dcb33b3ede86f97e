//! Waiting for a thing to become true, with a limit.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long to wait between two looks.
const STEP: Duration = Duration::from_millis(20);

/// `n` seconds; fractions allowed.
pub fn secs(n: impl Into<f64>) -> Duration {
    Duration::from_secs_f64(n.into())
}

/// Does nothing for a while. Only for a time that is itself the subject of the test.
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Looks at `condition` until it holds; fails with `what` after `limit`. Returns how long it took.
pub fn wait_for(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) -> Result<Duration> {
    let start = Instant::now();
    loop {
        if condition() {
            return Ok(start.elapsed());
        }
        if start.elapsed() >= limit {
            bail!("not within {limit:?}: {what}");
        }
        std::thread::sleep(STEP);
    }
}

/// Tries `attempt` until it succeeds; after `limit` fails with `what` and the last failure.
pub fn wait_until<T>(what: &str, limit: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(last) if start.elapsed() >= limit => {
                return Err(last.context(format!("not within {limit:?}: {what}")));
            }
            Err(_) => std::thread::sleep(STEP),
        }
    }
}

/// Time since a moment of a test.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts to count now.
    pub fn start() -> Self {
        Stopwatch(Instant::now())
    }

    /// The time since the start.
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}
