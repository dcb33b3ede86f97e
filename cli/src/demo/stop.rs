//! Ctrl-C and SIGTERM as a flag that every wait of the demo looks at, so that its end is always orderly.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use thiserror::Error;

/// The longest time a wait goes on after a signal.
const SLICE: Duration = Duration::from_millis(20);

/// Somebody asked the demo to end.
#[derive(Debug, Error)]
#[error("interrupted")]
pub(crate) struct Interrupted;

/// Tells whether somebody asked the demo to end. Clones share the flag.
#[derive(Clone, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Takes over SIGINT, SIGTERM and SIGHUP. To be called before any other thread starts: they inherit the mask.
    pub(crate) fn on_signals() -> Result<Self> {
        let stop = Self::default();
        let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
        signals.thread_block().context("cannot hold back signals")?;
        let flag = stop.0.clone();
        thread::Builder::new()
            .name("demo-signals".into())
            .spawn(move || {
                if signals.wait().is_ok() {
                    flag.store(true, Ordering::Relaxed);
                }
            })
            .context("cannot start the thread that waits for signals")?;
        Ok(stop)
    }

    /// True once a signal arrived.
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// An error once a signal arrived.
    pub(crate) fn check(&self) -> Result<(), Interrupted> {
        if self.is_set() { Err(Interrupted) } else { Ok(()) }
    }

    /// Sleeps for `time`, or less when a signal arrives.
    pub(crate) fn sleep(&self, time: Duration) -> Result<(), Interrupted> {
        let end = Instant::now() + time;
        loop {
            self.check()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(SLICE));
        }
    }
}
