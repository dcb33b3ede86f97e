//! The two sockets of the control thread, and how much of its time each may take.
//!
//! Anybody may send to them, from any address. While more waits than can be taken, a socket is read for a while and then rests
//! for a multiple of that, and the kernel drops what does not fit its buffer. Initiations have a socket of their own, so that
//! a flood of them leaves probes and answers alone; those that come by the other one, in a packet that begins with something
//! else, are not read.

use std::time::{Duration, Instant};

use crate::io::socket::DataSocket;

/// So long a socket is read at a time. A packet of many datagrams that goes on beyond it is not read to its end.
const SPEND: Duration = Duration::from_micros(200);
/// Rest for each time spent on initiations: all of them take a tenth of a processor.
const REST_OF_INITIATIONS: u32 = 9;
/// The same of everything else: half of a processor.
const REST_OF_ANSWERS: u32 = 1;

/// A socket, while it may be read.
pub(super) struct Door<'a> {
    pub(super) socket: &'a DataSocket,
    rest: u32,
    rests_until: Option<Instant>,
    /// It was read as long as it may be, and more may wait.
    busy: bool,
}

/// Both.
pub(super) fn doors<'a>(control: &'a DataSocket, initiations: &'a DataSocket) -> [Door<'a>; 2] {
    let door = |socket, rest| Door { socket, rest, rests_until: None, busy: false };
    [door(control, REST_OF_ANSWERS), door(initiations, REST_OF_INITIATIONS)]
}

impl Door<'_> {
    /// When it will be read again; none when it is.
    pub(super) fn rests_until(&self) -> Option<Instant> {
        self.rests_until
    }

    /// Reads it by `take`, which is told how long it may, and says whether there was anything.
    pub(super) fn read(&mut self, now: Instant, mut take: impl FnMut(&DataSocket, Instant) -> bool) {
        self.rests_until = self.rests_until.filter(|end| now < *end);
        if self.rests_until.is_some() {
            return;
        }
        let end = Instant::now() + SPEND;
        self.busy = true;
        while self.busy && Instant::now() < end {
            self.busy = take(self.socket, end);
        }
    }

    /// Lets it rest if it was busy, in proportion to the time since `begun`, answers included.
    pub(super) fn rest(&mut self, begun: Instant) {
        if std::mem::take(&mut self.busy) {
            self.rests_until = Some(Instant::now() + begun.elapsed() * self.rest);
        }
    }
}
