//! Ping, from wherever.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::container::{Addressed, Container};
use crate::netns::Namespace;
use crate::process::{Outcome, Tool};
use crate::wait::Stopwatch;

/// What a ping that need not hurry may take.
const PATIENCE: Duration = Duration::from_secs(5);

impl Namespace {
    /// Pings until an answer comes; fails after `limit`. Returns how long it took.
    pub fn ping_within(&self, to: &impl Addressed, limit: Duration) -> Result<Duration> {
        let clock = Stopwatch::start();
        loop {
            let outcome = self.ping_once(to, "-W 0.5")?;
            if outcome.code == Some(0) {
                return Ok(clock.elapsed());
            }
            if clock.elapsed() >= limit {
                return Err(outcome
                    .ok()
                    .err()
                    .unwrap_or_else(|| anyhow::anyhow!("no answer"))
                    .context(format!("no answer from {} within {limit:?}", to.address())));
            }
        }
    }

    /// Pings with this many bytes of payload and "don't fragment"; three tries.
    pub fn ping_whole(&self, to: &impl Addressed, payload_bytes: usize) -> Result<()> {
        let options = format!("-W 1 -M do -s {payload_bytes}");
        let mut tries = (0..3).map(|_| self.ping_once(to, &options));
        let last = tries.find(|outcome| outcome.as_ref().map_or(true, |outcome| outcome.code == Some(0)));
        match last {
            Some(outcome) => outcome?.ok().map(drop),
            None => bail!("no answer from {} to {payload_bytes} bytes whole", to.address()),
        }
    }

    /// Pings with this many bytes of payload, which the sender's kernel may cut into fragments.
    pub fn ping_in_fragments(&self, to: &impl Addressed, payload_bytes: usize) -> Result<()> {
        self.ping_once(to, &format!("-W 2 -M dont -s {payload_bytes}"))?.ok().map(drop)
    }

    /// Fails when an answer comes within `time`.
    pub fn no_ping(&self, to: &impl Addressed, time: Duration) -> Result<()> {
        match self.ping_within(to, time) {
            Ok(after) => bail!("{} answered after {after:?} and should not", to.address()),
            Err(_) => Ok(()),
        }
    }

    /// One echo request; exit code 0 when it was answered.
    pub fn ping_once(&self, to: &impl Addressed, options: &str) -> Result<Outcome> {
        let address = to.address().to_string();
        Tool::new("ping").words("-n -c 1").words(options).args([address]).inside(self).outcome()
    }
}

impl Container {
    /// Pings; the answer must come within five seconds.
    pub fn ping(&self, to: &impl Addressed) -> Result<()> {
        self.ping_within(to, PATIENCE).map(drop)
    }

    /// Pings until an answer comes; fails after `limit`. Returns how long it took.
    pub fn ping_within(&self, to: &impl Addressed, limit: Duration) -> Result<Duration> {
        let ping = self.namespace().ping_within(to, limit);
        ping.map_err(|error| error.context(format!("{} pings", self.name())))
    }

    /// Pings with this many bytes of payload and "don't fragment"; three tries.
    pub fn ping_whole(&self, to: &impl Addressed, payload_bytes: usize) -> Result<()> {
        self.namespace().ping_whole(to, payload_bytes)
    }

    /// Fails when an answer comes within `time`.
    pub fn no_ping(&self, to: &impl Addressed, time: Duration) -> Result<()> {
        self.namespace().no_ping(to, time)
    }
}
