//! Questions for names that are not ours, until somebody knows the answer.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::types::PortId;

/// How long a question waits for its answer. Who asks has given up by then.
pub const PATIENCE: Duration = Duration::from_secs(15);
/// How many wait at most. Docker's resolver has as many.
pub const MAX_OPEN: usize = 1024;
/// How many of them one port has at most.
pub const MAX_OPEN_OF_PORT: usize = 256;

/// The open questions, each with where its answer goes.
#[derive(Debug)]
pub(super) struct Questions<B> {
    open: BTreeMap<u64, Open<B>>,
    of_port: BTreeMap<PortId, usize>,
    next: u64,
}

/// A question that waits.
#[derive(Debug)]
pub(super) struct Open<B> {
    pub(super) port: PortId,
    /// Its id in the message.
    pub(super) id: u16,
    /// The longest answer that may be given, in bytes.
    pub(super) limit: usize,
    /// Where the answer goes.
    pub(super) back: B,
    until: Instant,
}

impl<B> Questions<B> {
    /// Begins to count at a number that nobody guesses who has heard of none.
    pub(super) fn new(first: u64) -> Self {
        Questions { open: BTreeMap::new(), of_port: BTreeMap::new(), next: first }
    }

    /// Notes a question and gives its number; none while too many wait.
    pub(super) fn ask(
        &mut self,
        now: Instant,
        port: PortId,
        (id, limit): (u16, usize),
        back: B,
    ) -> Option<u64> {
        let of_port = self.of_port.get(&port).copied().unwrap_or_default();
        if self.open.len() >= MAX_OPEN || of_port >= MAX_OPEN_OF_PORT {
            return None;
        }
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.open.insert(number, Open { port, id, limit, back, until: now + PATIENCE });
        self.of_port.insert(port, of_port + 1);
        Some(number)
    }

    /// Takes out a question that is answered; none when it does not wait any more.
    pub(super) fn take(&mut self, number: u64) -> Option<Open<B>> {
        let open = self.open.remove(&number)?;
        if let Some(count) = self.of_port.get_mut(&open.port) {
            *count -= 1;
            if *count == 0 {
                self.of_port.remove(&open.port);
            }
        }
        Some(open)
    }

    /// Takes out those that nobody has answered in time. They began to wait in the order of their numbers.
    pub(super) fn take_late(&mut self, now: Instant) -> Vec<Open<B>> {
        let mut late = Vec::new();
        while let Some((&number, _)) = self.open.first_key_value().filter(|(_, open)| open.until <= now) {
            late.extend(self.take(number));
        }
        late
    }

    /// When the next one is late.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.open.first_key_value().map(|(_, open)| open.until)
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "it starts at some instant; it is never asked again")]
mod tests {
    use super::*;

    #[test]
    fn questions_are_bounded_answered_once_and_end_in_time() {
        let (now, mut questions) = (Instant::now(), Questions::new(7));
        let port = |number: usize| PortId([number as u8; 8]);
        for port_number in 0..MAX_OPEN / MAX_OPEN_OF_PORT {
            for _ in 0..MAX_OPEN_OF_PORT {
                assert!(questions.ask(now, port(port_number), (1, 512), ()).is_some());
            }
            assert_eq!(questions.ask(now, port(port_number), (1, 512), ()), None, "of one port");
        }
        assert_eq!(questions.ask(now, port(99), (1, 512), ()), None, "of all");
        assert_eq!(questions.take(7).map(|open| (open.port, open.id)), Some((port(0), 1)));
        assert!(questions.take(7).is_none());
        assert!(questions.ask(now + PATIENCE / 2, port(0), (2, 512), ()).is_some());
        assert_eq!(questions.take_late(now + PATIENCE).len(), MAX_OPEN - 1);
        assert_eq!(questions.poll_timeout(), Some(now + PATIENCE / 2 + PATIENCE));
        assert_eq!(questions.take_late(now + 2 * PATIENCE).len(), 1);
        assert!(questions.of_port.is_empty() && questions.poll_timeout().is_none());
    }
}
