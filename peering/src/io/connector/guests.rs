//! How many may dial this host at the same time: all together, and from one address.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use engine::types::canonical;

/// Handshakes under way, the proof of the secret included, before a dialler must first show that it receives at its address.
const TRUSTED: usize = 32;
/// Handshakes under way with diallers that have shown it, all and those of one address.
const HANDSHAKES: usize = 256;
const HANDSHAKES_OF_ONE: usize = 128;
/// Connections that were dialled from elsewhere, all and those of one address: a NAT, or a LAN with IPv6, has many hosts.
const CONNECTIONS: usize = 4096;
const CONNECTIONS_OF_ONE: usize = 1024;

/// What becomes of a dialler.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Its handshake begins.
    Accept(Seat),
    /// It has to show first that it receives at its address (RFC 9000 section 8.1.2); nothing of it is kept.
    Retry,
    /// There are too many.
    Refuse,
}

/// Who is served. Clones are the same.
#[derive(Clone, Default, Debug)]
pub(super) struct Guests(Arc<Mutex<Books>>);

#[derive(Default, Debug)]
struct Books {
    all: Count,
    of: BTreeMap<IpAddr, Count>,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Count {
    handshakes: usize,
    connections: usize,
}

impl Guests {
    /// Judges a dialler; `proven` when it receives at its address. What does not is counted for no address: it may be
    /// somebody else's.
    pub(super) fn judge(&self, from: IpAddr, proven: bool) -> Verdict {
        let from = site(from);
        let mut books = self.books();
        let one = books.of.get(&from).copied().unwrap_or_default();
        let full = books.all.handshakes >= HANDSHAKES || books.all.connections >= CONNECTIONS;
        let share = one.handshakes >= HANDSHAKES_OF_ONE || one.connections >= CONNECTIONS_OF_ONE;
        if !proven && books.all.handshakes >= TRUSTED {
            return Verdict::Retry;
        }
        if full || proven && share {
            return Verdict::Refuse;
        }
        let from = proven.then_some(from);
        books.change(from, |count| count.handshakes += 1);
        Verdict::Accept(Seat { guests: self.clone(), from, stands: false })
    }

    /// Handshakes under way.
    #[cfg(test)]
    pub(super) fn handshakes(&self) -> usize {
        self.books().all.handshakes
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn change(&mut self, from: Option<IpAddr>, change: impl Fn(&mut Count)) {
        change(&mut self.all);
        if let Some(from) = from {
            let count = self.of.entry(from).or_default();
            change(count);
            if *count == Count::default() {
                self.of.remove(&from);
            }
        }
    }
}

/// The place of a dialler, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    guests: Guests,
    from: Option<IpAddr>,
    stands: bool,
}

impl Seat {
    /// The handshake is done: the dialler receives at this address.
    pub(super) fn stand(&mut self, from: IpAddr) {
        self.leave();
        self.from = Some(site(from));
        self.stands = true;
        self.guests.books().change(self.from, |count| count.connections += 1);
    }

    fn leave(&self) {
        self.guests.books().change(self.from, |count| match self.stands {
            true => count.connections -= 1,
            false => count.handshakes -= 1,
        });
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Of IPv6 the network: one host has as many addresses there as it likes.
fn site(addr: IpAddr) -> IpAddr {
    match canonical((addr, 0).into()).ip() {
        IpAddr::V6(addr) => Ipv6Addr::from_bits(addr.to_bits() & (u128::MAX << 64)).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat(guests: &Guests, from: [u8; 4], proven: bool) -> Seat {
        match guests.judge(from.into(), proven) {
            Verdict::Accept(seat) => seat,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn who_shows_no_address_takes_few_places_and_nobody_elses() {
        let guests = Guests::default();
        let victim = [192, 0, 2, 1];
        let forged: Vec<_> = (0..TRUSTED).map(|_| seat(&guests, victim, false)).collect();
        assert!(matches!(guests.judge(victim.into(), false), Verdict::Retry));
        let real: Vec<_> = (0..HANDSHAKES_OF_ONE).map(|_| seat(&guests, victim, true)).collect();
        assert!(matches!(guests.judge(victim.into(), true), Verdict::Refuse));
        let other = seat(&guests, [192, 0, 2, 2], true);
        drop((forged, real, other));
        assert!(guests.books().of.is_empty() && guests.books().all == Count::default());
    }

    #[test]
    fn all_together_have_a_limit() {
        let guests = Guests::default();
        let seats: Vec<_> = (0..=255).map(|n| seat(&guests, [198, 51, 100, n], true)).collect();
        assert_eq!(seats.len(), HANDSHAKES);
        assert!(matches!(guests.judge([192, 0, 2, 1].into(), true), Verdict::Refuse));
    }

    #[test]
    fn connections_of_one_address_have_a_limit_and_are_no_handshakes() {
        let guests = Guests::default();
        let from = [192, 0, 2, 1];
        let mut seats: Vec<_> = (0..CONNECTIONS_OF_ONE)
            .map(|_| {
                let mut seat = seat(&guests, from, false);
                seat.stand(from.into());
                seat
            })
            .collect();
        assert!(matches!(guests.judge(from.into(), true), Verdict::Refuse));
        seats.pop();
        drop(seat(&guests, from, true));
        drop(seats);
        assert!(guests.books().of.is_empty() && guests.books().all == Count::default());
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(site(ip("2001:db8::1")), site(ip("2001:db8::ffff:2")));
        assert_ne!(site(ip("2001:db8::1")), site(ip("2001:db8:0:1::1")));
        assert_eq!(site(ip("::ffff:192.0.2.1")), ip("192.0.2.1"));
    }
}
