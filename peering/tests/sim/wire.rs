//! Connections between hosts, and what can go wrong with them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use peering::mesh::ConnId;

pub type PairId = u64;
/// A host, its number for the connection, and its life: an earlier life hears nothing.
pub type End = (usize, ConnId, u64);

/// What travels on a connection.
pub enum Item {
    Message(Vec<u8>),
    Datagram(Vec<u8>),
    Close(String),
}

/// The state of all wires.
pub struct Wires {
    /// Part of the datagrams that are lost.
    pub loss: f64,
    /// Part of the attempts to connect that fail.
    pub dial_failures: f64,
    /// The longest time from one host to another.
    pub latency: Duration,
    cuts: BTreeSet<(usize, usize)>,
    pairs: BTreeMap<PairId, Pair>,
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
}

impl Default for Wires {
    fn default() -> Self {
        Wires {
            loss: 0.0,
            dial_failures: 0.0,
            latency: Duration::from_millis(10),
            cuts: BTreeSet::new(),
            pairs: BTreeMap::new(),
            count: 0,
        }
    }
}

impl Wires {
    pub fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cuts.contains(&(from, to))
    }

    /// Cuts one way; the connections that fall silent by it are returned.
    pub fn cut(&mut self, now: Instant, from: usize, to: usize) -> Vec<PairId> {
        self.cuts.insert((from, to));
        let pairs = self.between(from, to);
        for id in &pairs {
            self.pairs.get_mut(id).expect("listed").silent_since.get_or_insert(now);
        }
        pairs
    }

    /// Mends everything; what was held back is returned.
    pub fn heal(&mut self) -> Vec<(PairId, bool, Item)> {
        self.cuts.clear();
        let mut held = Vec::new();
        for (&id, pair) in &mut self.pairs {
            if pair.dialler.is_some() && pair.acceptor.is_some() {
                pair.silent_since = None;
            }
            for (side, to_dialler) in [(0, true), (1, false)] {
                held.extend(pair.held[side].drain(..).map(|item| (id, to_dialler, item)));
            }
        }
        held
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
        };
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
        let is = |end: &Option<End>| end.is_some_and(|(h, c, _)| (h, c) == (host, conn));
        self.pairs.iter().find_map(|(id, pair)| {
            if is(&pair.dialler) { Some((*id, false)) } else { is(&pair.acceptor).then_some((*id, true)) }
        })
    }

    pub fn end_of(&self, pair: PairId, dialler: bool) -> Option<End> {
        let pair = self.pairs.get(&pair)?;
        if dialler { pair.dialler } else { pair.acceptor }
    }

    /// The moment at which a message may arrive without overtaking another.
    pub fn in_order(&mut self, pair: PairId, to_dialler: bool, at: Instant) -> Instant {
        let Some(pair) = self.pairs.get_mut(&pair) else { return at };
        let last = &mut pair.last[usize::from(!to_dialler)];
        *last = (*last).max(at);
        *last
    }

    /// What arrives: nothing while the way is cut, or while earlier messages are held back.
    pub fn pass(&mut self, id: PairId, to_dialler: bool, item: Item) -> Option<Item> {
        let pair = self.pairs.get_mut(&id)?;
        let (dialler, acceptor) = (pair.ends.0.0, pair.ends.1.0);
        let way = if to_dialler { (acceptor, dialler) } else { (dialler, acceptor) };
        let held = &mut pair.held[usize::from(!to_dialler)];
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
        let Some((id, to_dialler)) = self.pair_of(host, conn) else { return };
        if let Some(pair) = self.pairs.get_mut(&id) {
            let end = if to_dialler { &mut pair.acceptor } else { &mut pair.dialler };
            *end = None;
            if pair.dialler.is_none() && pair.acceptor.is_none() {
                self.pairs.remove(&id);
            }
        }
    }

    /// A host is gone without a word; the other ends fall silent.
    pub fn abandon(&mut self, now: Instant, host: usize) -> Vec<PairId> {
        let mut silent = Vec::new();
        for (&id, pair) in &mut self.pairs {
            for end in [&mut pair.dialler, &mut pair.acceptor] {
                if end.is_some_and(|(h, ..)| h == host) {
                    *end = None;
                    pair.silent_since.get_or_insert(now);
                    silent.push(id);
                }
            }
        }
        silent
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
