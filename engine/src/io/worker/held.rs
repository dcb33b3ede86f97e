//! The first datagrams for a host with which there is no session yet: kept for a moment, since it is on its way.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::time::{Duration, Instant};

use super::output::{Output, Route, port_of, send_failure, socket_for};
use crate::capture::Direction;
use crate::counters::DropReason;
use crate::session::sealed::seal_alone;
use crate::tables::Tables;

/// Datagrams kept for one host: the first flight of a connection.
const OF_A_HOST: usize = 32;
/// Datagrams that a worker keeps.
const MOST: usize = 256;
/// A handshake whose first message is lost still comes in time (`session::sessions`); what is older than that was sent again.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// How often it is looked whether there is a session now.
const LOOK: Duration = Duration::from_millis(5);

/// What is kept, oldest first.
#[derive(Default, Debug)]
pub(super) struct Held(VecDeque<Waiting>);

#[derive(Debug)]
struct Waiting {
    to: Route,
    since: Instant,
    /// VXLAN header and frame, as they will be sealed.
    content: Vec<u8>,
}

impl Held {
    /// Keeps as many datagrams as there is room for, each in two pieces; tells how many.
    pub(super) fn keep<'a>(
        &mut self,
        now: Instant,
        to: Route,
        datagrams: impl Iterator<Item = [&'a [u8]; 2]>,
    ) -> u64 {
        let held = self.0.iter().filter(|waiting| waiting.to.0 == to.0).count();
        let room = OF_A_HOST.saturating_sub(held).min(MOST - self.0.len());
        let before = self.0.len();
        self.0.extend(datagrams.take(room).map(|[head, body]| Waiting {
            to,
            since: now,
            content: [head, body].concat(),
        }));
        (self.0.len() - before) as u64
    }

    /// When it is to be looked again, from now on.
    pub(super) fn wait(&self) -> Option<Duration> {
        (!self.0.is_empty()).then_some(LOOK)
    }
}

impl Output {
    /// Sends what was kept for hosts with which there is a session now, before anything that comes after it, and drops what
    /// has waited too long.
    pub(super) fn release(&mut self, tables: &Tables) {
        if self.held.0.is_empty() {
            return;
        }
        for waiting in std::mem::take(&mut self.held.0) {
            if tables.epoch(waiting.to.0).is_some() {
                self.send_held(tables, &waiting);
            } else if self.now.saturating_duration_since(waiting.since) >= PATIENCE {
                self.counters.dropped(DropReason::NoSession, 1);
            } else {
                self.held.0.push_back(waiting);
            }
        }
        self.finish();
    }

    fn send_held(&mut self, tables: &Tables, waiting: &Waiting) {
        let (to, source) = waiting.to;
        let Some(remote) = tables.remote(to) else { return self.counters.dropped(DropReason::NoPath, 1) };
        let lane = self.sessions.lane;
        let sealed = tables.epoch(to).and_then(|epoch| seal_alone(epoch, lane, &waiting.content));
        let Some(datagram) = sealed else { return self.counters.dropped(DropReason::SessionUsedUp, 1) };
        let socket = socket_for(&self.socket, &self.pool, remote, source);
        let pieces = [IoSlice::new(&datagram)];
        if let Err(error) = socket.send(remote.addr, &pieces, None) {
            return self.counters.dropped(send_failure(&error), 1);
        }
        if self.lenses.see_underlay() {
            self.lenses.datagram((remote.addr, port_of(socket)), Direction::Out, &pieces);
        }
        self.sent.frames += 1;
        self.sent.segments += 1;
        self.sent.bytes += datagram.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offload::source_port::SourcePort;
    use crate::tables::RemoteIndex;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "any moment will do")]
    fn few_are_kept_for_each_host_and_for_all() {
        let now = Instant::now();
        let mut held = Held::default();
        let mut keep = |host, count| {
            let datagrams = std::iter::repeat_n([&[1_u8; 8][..], &[2; 60]], count);
            held.keep(now, (RemoteIndex(host), SourcePort::default()), datagrams)
        };
        assert_eq!([keep(0, 30), keep(0, 30), keep(0, 1)], [30, 2, 0]);
        let others: u64 = (1..100).map(|host| keep(host, 10)).sum();
        assert_eq!(others, MOST as u64 - 32);
        assert_eq!(held.wait(), Some(LOOK));
        assert!(held.0.iter().all(|waiting| waiting.content.len() == 68));
    }
}
