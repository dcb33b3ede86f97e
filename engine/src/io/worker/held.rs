//! The first datagrams for a host with which there is no session yet: kept for a moment, since it is on its way.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
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

/// What is kept, oldest first.
#[derive(Default, Debug)]
pub(super) struct Held {
    waiting: VecDeque<Waiting>,
    /// Tells the control side whether there is anything: it wakes this worker then when it has published tables.
    told: Arc<AtomicBool>,
}

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
        let held = self.waiting.iter().filter(|waiting| waiting.to.0 == to.0).count();
        let before = self.waiting.len();
        let room = OF_A_HOST.saturating_sub(held).min(MOST - before);
        self.waiting.extend(datagrams.take(room).map(|[head, body]| Waiting {
            to,
            since: now,
            content: [head, body].concat(),
        }));
        (self.waiting.len() - before) as u64
    }

    /// With the flag by which the control side is told.
    pub(super) fn telling(told: Arc<AtomicBool>) -> Self {
        Held { waiting: VecDeque::new(), told }
    }

    /// Says whether anything waits; true if so. Tables that are published after it wake the worker; it has to look for those
    /// that were before.
    pub(super) fn tell(&self) -> bool {
        let waits = !self.waiting.is_empty();
        if self.told.load(Ordering::Relaxed) != waits {
            self.told.store(waits, Ordering::Relaxed);
        }
        if waits {
            // Either the control side sees the flag, or this worker sees its tables.
            fence(Ordering::SeqCst);
        }
        waits
    }

    /// How long the oldest may still wait.
    pub(super) fn patience(&self, now: Instant) -> Option<Duration> {
        let age = now.saturating_duration_since(self.waiting.front()?.since);
        Some(PATIENCE.saturating_sub(age))
    }
}

/// Gives what is `ready`, and, as false, what has waited too long, oldest first.
fn take(
    all: &mut VecDeque<Waiting>,
    now: Instant,
    ready: impl Fn(&Waiting) -> bool,
    mut give: impl FnMut(&Waiting, bool),
) {
    for _ in 0..all.len() {
        let Some(waiting) = all.pop_front() else { return };
        let ready = ready(&waiting);
        if ready || now.saturating_duration_since(waiting.since) >= PATIENCE {
            give(&waiting, ready);
        } else {
            all.push_back(waiting);
        }
    }
}

impl Output {
    /// Sends what was kept for hosts with which there is a session now, before anything that comes after it, and drops what
    /// has waited too long. `news`: the tables are others than they were at the last call.
    pub(super) fn release(&mut self, tables: &Tables, news: bool) {
        let Some(patience) = self.held.patience(self.now) else { return };
        if !news && !patience.is_zero() {
            return;
        }
        let mut all = std::mem::take(&mut self.held.waiting);
        let ready = |waiting: &Waiting| tables.epoch(waiting.to.0).is_some();
        take(&mut all, self.now, ready, |waiting, ready| match ready {
            true => self.send_held(tables, waiting),
            false => self.counters.dropped(DropReason::NoSession, 1),
        });
        // The same memory again.
        self.held.waiting = all;
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
        assert!(held.waiting.iter().all(|waiting| waiting.content.len() == 68));
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "any moment will do")]
    fn what_waits_is_given_in_order_and_costs_nothing_meanwhile() {
        let (start, mut held) = (Instant::now(), Held::default());
        assert!(!held.tell() && held.patience(start).is_none());
        for number in 0..6_u8 {
            let to = (RemoteIndex(u32::from(number % 2)), SourcePort::default());
            let at = start + Duration::from_millis(100) * u32::from(number);
            assert_eq!(held.keep(at, to, std::iter::once([&[number][..], &[]])), 1);
        }
        assert!(held.tell() && held.told.load(Ordering::Relaxed));
        assert_eq!(held.patience(start + Duration::from_millis(500)), Some(Duration::from_secs(1)));
        let room = held.waiting.capacity();
        let give = |held: &mut Held, after: u64, session: Option<u32>| {
            let mut given = Vec::new();
            let now = start + Duration::from_millis(after);
            take(
                &mut held.waiting,
                now,
                |w| Some(w.to.0.0) == session,
                |w, ready| given.push((w.content[0], ready)),
            );
            given
        };
        assert_eq!(give(&mut held, 600, None), []);
        assert_eq!(give(&mut held, 600, Some(1)), [(1, true), (3, true), (5, true)]);
        assert_eq!(give(&mut held, 1_700, Some(1)), [(0, false), (2, false)]);
        assert_eq!(held.waiting.capacity(), room);
        assert_eq!(give(&mut held, 1_700, Some(0)), [(4, true)]);
        assert!(!held.tell() && !held.told.load(Ordering::Relaxed));
    }
}
