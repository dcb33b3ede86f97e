//! Connections between hosts, and what can go wrong with them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use peering::mesh::ConnId;
use rand::RngExt;
use rand::rngs::StdRng;

pub type PairId = u64;
/// A host, its number for the connection, and its life: an earlier life hears nothing.
pub type End = (usize, ConnId, u64);

/// A lost packet of a stream is sent again after so long.
const SENT_AGAIN: Duration = Duration::from_millis(25);

/// What travels on a connection.
pub enum Item {
    Message(Vec<u8>),
    Datagram(Vec<u8>),
    Close(String),
}

/// What the way from one host to another is like.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// The shortest time, and what comes on top at most. Datagrams overtake each other by it.
    pub latency: Duration,
    pub jitter: Duration,
    /// Part of the packets that are lost; streams send them again.
    pub loss: f64,
    /// Part of the datagrams that arrive twice.
    pub duplication: f64,
}

impl Link {
    /// How long something is on its way.
    pub fn delay(&self, rng: &mut StdRng) -> Duration {
        self.latency + self.jitter.mul_f64(rng.random_range(0.0..=1.0))
    }

    /// How much later it comes because packets of it were lost.
    pub fn repeats(&self, rng: &mut StdRng) -> Duration {
        let mut late = Duration::ZERO;
        while self.loss > 0.0 && rng.random_bool(self.loss.min(0.9)) {
            late += (self.latency + self.jitter) * 2 + SENT_AGAIN;
        }
        late
    }
}

/// The state of all wires.
pub struct Wires {
    /// Part of the packets that are lost where no link says otherwise.
    pub loss: f64,
    /// Part of the attempts to connect that fail.
    pub dial_failures: f64,
    /// The longest time from one host to another where no link says otherwise.
    pub latency: Duration,
    links: BTreeMap<(usize, usize), Link>,
    cuts: BTreeSet<(usize, usize)>,
    asleep: BTreeSet<usize>,
    pairs: BTreeMap<PairId, Pair>,
    by_end: BTreeMap<(usize, ConnId), (PairId, bool)>,
    count: PairId,
}

struct Pair {
    dialler: Option<End>,
    acceptor: Option<End>,
    accepted: bool,
    ends: (End, End),
    /// Nothing can have come through since then.
    silent_since: Option<Instant>,
    /// Last arrival to the dialler and to the acceptor.
    last: [Instant; 2],
    held: [Vec<Item>; 2],
    /// What would arrive later, to the dialler and to the acceptor, was lost with its sender.
    lost_from: [Option<Instant>; 2],
}

impl Default for Wires {
    fn default() -> Self {
        Wires {
            loss: 0.0,
            dial_failures: 0.0,
            latency: Duration::from_millis(10),
            links: BTreeMap::new(),
            cuts: BTreeSet::new(),
            asleep: BTreeSet::new(),
            pairs: BTreeMap::new(),
            by_end: BTreeMap::new(),
            count: 0,
        }
    }
}

impl Wires {
    /// What the way from one host to another is like.
    pub fn link(&self, from: usize, to: usize) -> Link {
        let (latency, jitter) = (self.latency.mul_f64(0.1), self.latency.mul_f64(0.9));
        let usual = Link { latency, jitter, loss: self.loss, duplication: 0.0 };
        self.links.get(&(from, to)).copied().unwrap_or(usual)
    }

    pub fn set_link(&mut self, from: usize, to: usize, link: Link) {
        self.links.insert((from, to), link);
    }

    /// Every way is the usual one again.
    pub fn clear_links(&mut self) {
        self.links.clear();
    }

    pub fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cuts.contains(&(from, to))
    }

    /// Cuts one way; the connections that fall silent by it are returned.
    pub fn cut(&mut self, now: Instant, from: usize, to: usize) -> Vec<PairId> {
        self.cuts.insert((from, to));
        self.look_for_silence(now)
    }

    /// Mends everything; what was held back is returned.
    pub fn heal(&mut self, now: Instant) -> Vec<(PairId, bool, Item)> {
        self.cuts.clear();
        let mut held = Vec::new();
        for (&id, pair) in &mut self.pairs {
            for (side, to_dialler) in [(0, true), (1, false)] {
                if pair.accepted || to_dialler {
                    held.extend(pair.held[side].drain(..).map(|item| (id, to_dialler, item)));
                }
            }
        }
        self.look_for_silence(now);
        held
    }

    /// A host neither hears nor says anything, or does again. The connections that fall silent are returned.
    pub fn set_asleep(&mut self, now: Instant, host: usize, asleep: bool) -> Vec<PairId> {
        if asleep {
            self.asleep.insert(host);
        } else {
            self.asleep.remove(&host);
        }
        self.look_for_silence(now)
    }

    /// Notes which connections carry nothing from now on, and which do again; the newly silent are returned.
    fn look_for_silence(&mut self, now: Instant) -> Vec<PairId> {
        let mut fell_silent = Vec::new();
        for (&id, pair) in &mut self.pairs {
            let (a, b) = (pair.ends.0.0, pair.ends.1.0);
            let cut = self.cuts.contains(&(a, b)) || self.cuts.contains(&(b, a));
            let asleep = self.asleep.contains(&a) || self.asleep.contains(&b);
            if !cut && !asleep && pair.dialler.is_some() && pair.acceptor.is_some() {
                pair.silent_since = None;
            } else if pair.silent_since.is_none() {
                pair.silent_since = Some(now);
                fell_silent.push(id);
            }
        }
        fell_silent
    }

    pub fn connect(&mut self, dialler: End, acceptor: End, now: Instant) -> PairId {
        self.count += 1;
        let pair = Pair {
            dialler: Some(dialler),
            acceptor: Some(acceptor),
            accepted: false,
            ends: (dialler, acceptor),
            silent_since: None,
            last: [now; 2],
            held: [Vec::new(), Vec::new()],
            lost_from: [None; 2],
        };
        self.by_end.insert((dialler.0, dialler.1), (self.count, false));
        self.by_end.insert((acceptor.0, acceptor.1), (self.count, true));
        self.pairs.insert(self.count, pair);
        self.count
    }

    pub fn ends(&self, pair: PairId) -> Option<(End, End)> {
        self.pairs.get(&pair).map(|pair| pair.ends)
    }

    /// The acceptor learns of the connection, and then gets what came early. Nothing: it never will.
    pub fn accept(&mut self, pair: PairId) -> Option<Vec<Item>> {
        let cuts = &self.cuts;
        let pair = self.pairs.get_mut(&pair)?;
        pair.accepted = !cuts.contains(&(pair.ends.0.0, pair.ends.1.0));
        pair.accepted.then(|| std::mem::take(&mut pair.held[1]))
    }

    /// The connection of a host's number, and whether what it sends goes to the dialler.
    pub fn pair_of(&self, host: usize, conn: ConnId) -> Option<(PairId, bool)> {
        self.by_end.get(&(host, conn)).copied()
    }

    pub fn end_of(&self, pair: PairId, dialler: bool) -> Option<End> {
        let pair = self.pairs.get(&pair)?;
        if dialler { pair.dialler } else { pair.acceptor }
    }

    /// From which host to which something travels.
    pub fn way(&self, pair: PairId, to_dialler: bool) -> Option<(usize, usize)> {
        let (dialler, acceptor) = self.ends(pair)?;
        Some(if to_dialler { (acceptor.0, dialler.0) } else { (dialler.0, acceptor.0) })
    }

    /// The moment at which a message may arrive without overtaking another.
    pub fn in_order(&mut self, pair: PairId, to_dialler: bool, at: Instant) -> Instant {
        let Some(pair) = self.pairs.get_mut(&pair) else { return at };
        let last = &mut pair.last[usize::from(!to_dialler)];
        *last = (*last).max(at);
        *last
    }

    /// What arrives: nothing while the way is cut, or while earlier messages are held back.
    pub fn pass(&mut self, now: Instant, id: PairId, to_dialler: bool, item: Item) -> Option<Item> {
        let way = self.way(id, to_dialler)?;
        let pair = self.pairs.get_mut(&id)?;
        let side = usize::from(!to_dialler);
        if pair.lost_from[side].is_some_and(|from| from <= now) {
            return None;
        }
        let held = &mut pair.held[side];
        let blocked = self.cuts.contains(&way) || !held.is_empty() || !(pair.accepted || to_dialler);
        match item {
            Item::Datagram(_) if blocked => None,
            item if blocked => {
                held.push(item);
                None
            }
            item => Some(item),
        }
    }

    /// A host lets go of its end.
    pub fn close(&mut self, host: usize, conn: ConnId) {
        let Some((id, to_dialler)) = self.by_end.remove(&(host, conn)) else { return };
        if let Some(pair) = self.pairs.get_mut(&id) {
            let end = if to_dialler { &mut pair.acceptor } else { &mut pair.dialler };
            *end = None;
            if pair.dialler.is_none() && pair.acceptor.is_none() {
                self.pairs.remove(&id);
            }
        }
    }

    /// A host is gone without a word, and what it sent is lost where it would arrive after `lost_from`. The other
    /// ends fall silent.
    pub fn abandon(&mut self, now: Instant, host: usize, lost_from: Instant) -> Vec<PairId> {
        let mut silent = Vec::new();
        for (&id, pair) in &mut self.pairs {
            for (side, end) in [(1, &mut pair.dialler), (0, &mut pair.acceptor)] {
                let Some((_, conn, _)) = end.filter(|(h, ..)| *h == host) else { continue };
                *end = None;
                self.by_end.remove(&(host, conn));
                pair.lost_from[side] = Some(lost_from);
                pair.silent_since.get_or_insert(now);
                silent.push(id);
            }
        }
        self.asleep.remove(&host);
        silent
    }

    /// True when an end of a connection is gone without a word.
    pub fn is_abandoned(&self, pair: PairId) -> bool {
        self.pairs.get(&pair).is_some_and(|pair| pair.lost_from.iter().any(Option::is_some))
    }

    /// The connections whose end at a host is gone without a word, and on which side that is.
    pub fn abandoned_by(&self, host: usize) -> Vec<(PairId, bool)> {
        let ends = |pair: &Pair| [(pair.ends.0.0, true, 1), (pair.ends.1.0, false, 0)];
        let gone = |(&id, pair): (&PairId, &Pair)| {
            let mut ends = ends(pair).into_iter();
            let end = ends.find(|(h, _, side)| *h == host && pair.lost_from[*side].is_some());
            end.map(|(_, to_dialler, _)| (id, to_dialler))
        };
        self.pairs.iter().filter_map(gone).collect()
    }

    /// Every connection between two hosts.
    pub fn between(&self, a: usize, b: usize) -> Vec<PairId> {
        let joins = |pair: &&Pair| {
            let hosts = (pair.ends.0.0, pair.ends.1.0);
            hosts == (a, b) || hosts == (b, a)
        };
        self.pairs.iter().filter(|(_, pair)| joins(pair)).map(|(id, _)| *id).collect()
    }

    /// True when nothing came through a connection since then.
    pub fn is_silent(&self, id: PairId, since: Instant) -> bool {
        self.pairs
            .get(&id)
            .is_some_and(|pair| !pair.accepted || pair.silent_since.is_some_and(|at| at <= since))
    }

    /// Forgets a connection and returns the ends that had it.
    pub fn remove(&mut self, pair: PairId) -> Vec<End> {
        let Some(pair) = self.pairs.remove(&pair) else { return Vec::new() };
        for (host, conn, _) in [pair.ends.0, pair.ends.1] {
            self.by_end.remove(&(host, conn));
        }
        [pair.dialler, pair.acceptor.filter(|_| pair.accepted)].into_iter().flatten().collect()
    }

    /// Connections that both ends have.
    pub fn live_between(&self, a: usize, b: usize) -> usize {
        let live = |id: &PairId| {
            self.pairs.get(id).is_some_and(|pair| pair.dialler.is_some() && pair.acceptor.is_some())
        };
        self.between(a, b).iter().filter(|id| live(id)).count()
    }
}
