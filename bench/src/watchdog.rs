//! A limit for a measurement, whatever it waits for.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cpu::children;

/// From one look for survivors to the next.
const AGAIN: Duration = Duration::from_millis(500);

/// Runs `work`. When it is not done within `limit`, kills by their ids the processes that were started meanwhile, so
/// that it ends, and fails. Daemons that ran before go on.
pub fn within<T>(limit: Duration, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let before = children();
    let (done, waiting) = channel::<()>();
    std::thread::scope(|scope| {
        let guard = scope.spawn(move || guard(limit, &waiting, &before));
        let result = work();
        drop(done);
        let bitten = guard.join().unwrap_or(false);
        if bitten { result.and_then(|_| anyhow::bail!("it ended late")) } else { result }
            .with_context(|| if bitten { format!("not done within {limit:?}") } else { "failed".to_owned() })
    })
}

/// True when it had to kill.
fn guard(limit: Duration, done: &Receiver<()>, before: &BTreeSet<u32>) -> bool {
    let mut bitten = false;
    let mut wait = limit;
    while done.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
        for pid in children().difference(before) {
            // Gone already: fine.
            let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
        }
        (bitten, wait) = (true, AGAIN);
    }
    bitten
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use netns_tests::Tool;

    use super::*;

    #[test]
    fn what_is_done_in_time_is_not_touched() {
        assert_eq!(within(Duration::from_secs(5), || Ok(7)).unwrap(), 7);
        assert!(within(Duration::from_secs(5), || -> Result<()> { anyhow::bail!("no") }).is_err());
    }

    #[test]
    fn what_hangs_is_killed_and_what_ran_before_is_not() {
        let mut bystander = Tool::new("sleep").args(["60"]).start().unwrap();
        let start = Instant::now();
        let error = within(Duration::from_millis(200), || Tool::new("sleep").args(["50"]).run()).unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(20));
        assert!(format!("{error:#}").contains("not done within 200ms"), "{error:#}");
        assert!(bystander.is_running());
    }
}
