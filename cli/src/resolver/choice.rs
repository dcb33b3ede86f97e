//! Whom to ask, in what order, and for how long: the servers in the order of the file, those that did not answer lately last,
//! twice round, and an answer or a failure before whoever asked gives up.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::message::{Message, rcode};

/// Most servers that are asked (resolv.conf(5) has three).
const MAX_SERVERS: usize = 6;
/// How long a server may take before the next one is asked, in the first round and in the second.
const FIRST: Duration = Duration::from_millis(800);
const SECOND: Duration = Duration::from_millis(1600);
/// How long a server may take by TCP, where several round trips pass before the answer.
const BY_TCP: Duration = Duration::from_millis(2500);
/// How long all of it may take: most resolvers ask again after five seconds (resolv.conf(5), `timeout`).
pub(crate) const PATIENCE: Duration = Duration::from_millis(4500);
/// For how long a server that did not answer is asked last.
const GRUDGE: Duration = Duration::from_secs(30);
/// Where name servers listen.
const PORT: u16 = 53;

/// From where a server is asked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Origin {
    /// From this host.
    Host,
    /// From the network namespace of the container, by device and inode.
    Container(u64, u64),
}

/// A server that may be asked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Server {
    pub(crate) from: Origin,
    pub(crate) addr: SocketAddr,
}

impl Server {
    pub(crate) fn new(from: Origin, ip: IpAddr) -> Self {
        Server { from, addr: SocketAddr::new(ip, PORT) }
    }
}

/// One question to one server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Attempt {
    pub(crate) server: Server,
    pub(crate) tcp: bool,
    /// How long it may take.
    pub(crate) limit: Duration,
}

/// What came of an attempt.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// The server answered this.
    Answer(Vec<u8>),
    /// It did not, in time or at all.
    Silence,
}

/// Which servers did not answer lately.
#[derive(Debug, Default)]
pub(crate) struct Grudges(BTreeMap<Server, Instant>);

impl Grudges {
    /// The servers in the order in which they are asked. Those of the container go before those of the host.
    pub(crate) fn order(&mut self, now: Instant, servers: Vec<Server>) -> Vec<Server> {
        self.0.retain(|_, until| now < *until);
        let (silent, mut order): (Vec<_>, Vec<_>) =
            servers.into_iter().partition(|server| self.0.contains_key(server));
        order.extend(silent);
        let mut seen = Vec::new();
        for server in order {
            if !seen.contains(&server) && seen.len() < MAX_SERVERS {
                seen.push(server);
            }
        }
        seen
    }

    fn bear(&mut self, now: Instant, server: Server) {
        self.0.insert(server, now + GRUDGE);
    }

    fn forgive(&mut self, server: Server) {
        self.0.remove(&server);
    }
}

/// A question on its way round the servers.
#[derive(Debug)]
pub(crate) struct Round {
    servers: Vec<Server>,
    /// The question came by TCP: so it goes on.
    tcp: bool,
    asked: usize,
    /// By TCP what came cut by UDP.
    again: Option<Server>,
    current: Option<Attempt>,
    deadline: Instant,
    /// The best that was said so far; better than nothing.
    poor: Option<Vec<u8>>,
}

impl Round {
    /// A question to these servers, in this order.
    pub(crate) fn new(now: Instant, servers: Vec<Server>, tcp: bool) -> Self {
        let deadline = now + PATIENCE;
        Round { servers, tcp, asked: 0, again: None, current: None, deadline, poor: None }
    }

    /// The next attempt; none: [`Self::poor`] is all there is.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Attempt> {
        let left = self.deadline.checked_duration_since(now).filter(|left| !left.is_zero())?;
        let attempt = match self.again.take() {
            Some(server) => Attempt { server, tcp: true, limit: BY_TCP.min(left) },
            None => {
                let round = self.asked / self.servers.len().max(1);
                let server = *self.servers.get(self.asked % self.servers.len().max(1))?;
                let limit = match (round, self.tcp) {
                    (0 | 1, true) => BY_TCP,
                    (0, false) => FIRST,
                    (1, false) => SECOND,
                    _ => return None,
                };
                self.asked += 1;
                Attempt { server, tcp: self.tcp, limit: limit.min(left) }
            }
        };
        self.current = Some(attempt);
        Some(attempt)
    }

    /// What came of the last attempt; gives the answer, if that is one.
    pub(crate) fn handle(
        &mut self,
        now: Instant,
        grudges: &mut Grudges,
        question: &Message<'_>,
        outcome: Outcome,
    ) -> Option<Vec<u8>> {
        let Attempt { server, tcp, .. } = self.current.take()?;
        let answer = match outcome {
            Outcome::Answer(answer) => answer,
            Outcome::Silence => {
                grudges.bear(now, server);
                return None;
            }
        };
        grudges.forgive(server);
        let message = Message::parse(&answer).filter(|message| message.answers(question));
        match message {
            Some(message) if message.is_truncated() && !tcp => self.again = Some(server),
            Some(message) if matches!(message.rcode(), rcode::NO_ERROR | rcode::NAME_ERROR) => {
                return Some(answer);
            }
            Some(_) => {}
            // It belongs to another question, or to none.
            None => return None,
        }
        // Refused or failed: another server may know more. Cut: the whole may still come.
        self.poor = Some(answer);
        None
    }

    /// The best that was said, when no server had an answer.
    pub(crate) fn poor(self) -> Option<Vec<u8>> {
        self.poor
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::tests::{answer, question, start};
    use super::*;

    fn server(last: u8) -> Server {
        Server::new(Origin::Host, [192, 0, 2, last].into())
    }

    /// What is asked of whom when each server does what it does, and the answer.
    fn go(
        round: &mut Round,
        grudges: &mut Grudges,
        does: impl Fn(Attempt) -> Outcome,
    ) -> (Vec<(u8, bool)>, Option<Vec<u8>>) {
        let (mut now, asked) = (start(), question(7, "a.org", None));
        let mut log = Vec::new();
        while let Some(attempt) = round.next(now) {
            let IpAddr::V4(ip) = attempt.server.addr.ip() else { panic!() };
            log.push((ip.octets()[3], attempt.tcp));
            let outcome = does(attempt);
            if outcome == Outcome::Silence {
                now += attempt.limit;
            }
            let done = round.handle(now, grudges, &Message::parse(&asked).unwrap(), outcome);
            if done.is_some() {
                return (log, done);
            }
        }
        (log, None)
    }

    fn says(code: u8) -> Outcome {
        Outcome::Answer(answer(&question(7, "a.org", None), code, 1, 60))
    }

    fn cut() -> Outcome {
        let Outcome::Answer(mut bytes) = says(0) else { panic!() };
        bytes[2] |= 2;
        Outcome::Answer(bytes)
    }

    #[test]
    fn the_first_server_is_asked_and_the_next_when_it_is_silent() {
        let (now, mut grudges) = (start(), Grudges::default());
        let mut round = Round::new(now, vec![server(1), server(2)], false);
        let (log, answer) =
            go(
                &mut round,
                &mut grudges,
                |at| {
                    if at.server == server(1) { Outcome::Silence } else { says(0) }
                },
            );
        assert_eq!((log, answer.is_some()), (vec![(1, false), (2, false)], true));
        let later = now + Duration::from_secs(5);
        assert_eq!(grudges.order(later, vec![server(1), server(2), server(1)]), [server(2), server(1)]);
        assert_eq!(grudges.order(later + GRUDGE, vec![server(1), server(2)]), [server(1), server(2)]);
    }

    #[test]
    fn it_ends_before_the_asker_gives_up() {
        let mut round = Round::new(start(), vec![server(1), server(2)], false);
        let (log, answer) = go(&mut round, &mut Grudges::default(), |_| Outcome::Silence);
        assert_eq!((log.len(), answer.is_some()), (4, false));
        assert_eq!(round.poor(), None);
        assert!(FIRST * 2 + SECOND * 2 > PATIENCE && PATIENCE < Duration::from_secs(5));
        let mut nobody = Round::new(start(), Vec::new(), false);
        assert_eq!(nobody.next(start()), None);
    }

    #[test]
    fn what_came_cut_is_fetched_by_tcp() {
        let mut round = Round::new(start(), vec![server(1)], false);
        let (log, answer) =
            go(&mut round, &mut Grudges::default(), |at| if at.tcp { says(0) } else { cut() });
        assert_eq!((log, answer.is_some()), (vec![(1, false), (1, true)], true));
        // A server that does not speak TCP: the cut answer is better than none.
        let mut round = Round::new(start(), vec![server(1)], false);
        let (_, answer) =
            go(&mut round, &mut Grudges::default(), |at| if at.tcp { Outcome::Silence } else { cut() });
        assert_eq!(answer, None);
        assert!(Message::parse(&round.poor().unwrap()).unwrap().is_truncated());
    }

    #[test]
    fn a_server_that_fails_is_not_the_last_word() {
        let mut round = Round::new(start(), vec![server(1), server(2)], true);
        let (log, answer) = go(&mut round, &mut Grudges::default(), |at| {
            if at.server == server(1) { says(5) } else { says(rcode::NAME_ERROR) }
        });
        assert_eq!((log, answer.is_some()), (vec![(1, true), (2, true)], true));
        let mut round = Round::new(start(), vec![server(1)], false);
        let (log, _) = go(&mut round, &mut Grudges::default(), |_| says(5));
        assert_eq!(log.len(), 2);
        assert_eq!(Message::parse(&round.poor().unwrap()).unwrap().rcode(), 5);
    }

    #[test]
    fn an_answer_to_another_question_is_none() {
        let mut round = Round::new(start(), vec![server(1)], false);
        let other = Outcome::Answer(answer(&question(7, "b.org", None), 0, 1, 60));
        let (_, answer) = go(&mut round, &mut Grudges::default(), |_| other.clone());
        assert_eq!((answer, round.poor()), (None, None));
    }
}
