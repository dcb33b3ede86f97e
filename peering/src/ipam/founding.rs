//! The founding: who makes the cluster, so that no two hosts do.
//!
//! The *closure* of a host is itself, all hosts it knows, the peers that its targets resolved to, and
//! those that the targets of known hosts resolved to. A host that needs an address, while nobody it knows
//! belongs to a cluster, asks the lowest peer id of its closure, again each second. To be asked so is to need:
//! the need counts as the asked host's own for ten seconds. The host that is itself the lowest asks all the
//! others. An answer names the answerer's cluster, its closure, its targets at which nobody answered yet, and
//! whom it waits for. The asker adds that closure to its own. A host founds when
//!
//! 1. it is the lowest peer id of its closure,
//! 2. every other host of the closure answered in this round, less than [`FRESH`] ago, without a cluster,
//! 3. nobody in the closure, itself included, has an unresolved target.
//!
//! **Why two hosts cannot both found unless neither closure knows of the other.** An answerer writes the
//! asker into its `met` list, on disk, before the answer leaves; until it belongs to a cluster it never
//! forgets it. Let A found with closure S and B found with closure T, neither told to by `--found`.
//!
//! - *B is not in S.* If it were, B answered A without a cluster, so before B founded. From then on A is in
//!   B's closure, so in T; and by 1, A < B as B is in S, and B < A as A is in T. In the same way A is not in T.
//! - *S and T are disjoint.* Let Z be in both; by the above it is neither A nor B. So Z sent an answer that A
//!   used and one that B used. Say the one to A left first: then A was in Z's closure when Z answered B, so
//!   B added A to its own, and A is in T; if the other left first, B is in S. Both contradict the above.
//!
//! So two founders have closures without a common host: no host that either heard of had heard of the
//! other. A loss of messages only delays; a repeated or late answer only tells of a smaller closure, which
//! was added already; a crash loses the round but not `met`. A state that belongs to a cluster answers with
//! it, which ends the round of the asker. Outside the argument stands only a host that loses its disk, keeps
//! its key and founds within [`FRESH`] of an answer that it does not remember.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use engine::types::PeerId;

use crate::proto::{Answer, Ask, MAX_CLOSURE};
use crate::records::{ClusterId, MAX_TARGETS, TargetRecord};

/// How long an answer counts.
pub(super) const FRESH: Duration = Duration::from_secs(5);
/// How often a host that has not answered freshly is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How long a need that somebody else told of lasts; it is told again each second.
const NEED: Duration = Duration::from_secs(10);
/// How long nobody is asked after a host said that it belongs to a cluster: its units are on their way.
const PAUSE: Duration = Duration::from_secs(1);

/// How long nobody is asked after an own cluster was given up for another one.
const JOINING: Duration = Duration::from_secs(10);

/// Among more hosts than this the closure is not gone through at every word of one of them, but so often at most.
const CROWD: usize = 64;
const LOOK: Duration = Duration::from_millis(50);

/// What one host knows about the founding.
pub(super) struct Founding {
    own: PeerId,
    /// `--found`: found at the first need, without asking.
    pub(super) found: bool,
    targets: Vec<TargetRecord>,
    hosts: BTreeMap<PeerId, Vec<TargetRecord>>,
    met: BTreeSet<PeerId>,
    need_until: Option<Instant>,
    paused_until: Option<Instant>,
    /// An own cluster was given up for one whose units are on their way.
    joining: bool,
    /// When the closure was gone through last, and whether that is due again since.
    looked: Option<(Instant, bool)>,
    round: Option<Round>,
}

/// One run of questions.
struct Round {
    number: u64,
    asked: BTreeMap<PeerId, Instant>,
    answers: BTreeMap<PeerId, Heard>,
}

/// The last answer of a host in this round.
struct Heard {
    at: Instant,
    unresolved: Vec<String>,
    waiting_for: Vec<String>,
}

/// What to do now.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Step {
    /// Whom to ask, and what.
    pub(super) ask: Vec<(PeerId, Ask)>,
    /// Found now.
    pub(super) found: bool,
}

impl Founding {
    /// `joining`: an own cluster was given up, and no other one joined yet.
    pub(super) fn new(own: PeerId, met: BTreeSet<PeerId>, joining: bool) -> Self {
        Founding {
            own,
            found: false,
            targets: Vec::new(),
            hosts: BTreeMap::new(),
            met,
            need_until: None,
            paused_until: None,
            joining,
            looked: None,
            round: None,
        }
    }

    /// Hosts that must never be forgotten before there is a cluster.
    pub(super) fn met(&self) -> &BTreeSet<PeerId> {
        &self.met
    }

    pub(super) fn set_targets(&mut self, targets: Vec<TargetRecord>) {
        self.targets = targets;
    }

    pub(super) fn set_host(&mut self, peer: PeerId, targets: Vec<TargetRecord>) {
        self.hosts.insert(peer, targets);
    }

    /// A removed host is not waited for.
    pub(super) fn forget_host(&mut self, peer: PeerId) {
        self.hosts.remove(&peer);
    }

    /// All hosts that this one has heard of, itself included.
    pub(super) fn closure(&self) -> BTreeSet<PeerId> {
        let all_targets = self.targets.iter().chain(self.hosts.values().flatten());
        let resolved = all_targets.filter_map(|target| target.peer);
        let known = self.hosts.keys().chain(&self.met).copied();
        resolved.chain(known).chain([self.own]).collect()
    }

    /// The names at which nobody answered yet, as told by this host and by the records of others.
    fn unresolved(&self) -> BTreeSet<String> {
        let all_targets = self.targets.iter().chain(self.hosts.values().flatten());
        all_targets.filter(|target| target.peer.is_none()).map(|target| target.name.clone()).collect()
    }

    /// Answers a host that asks; it is remembered, so the caller writes the state before the answer leaves.
    /// `waiting_for` is what this host would show in its status.
    pub(super) fn handle_ask(
        &mut self,
        now: Instant,
        from: PeerId,
        ask: Ask,
        waiting_for: Vec<String>,
    ) -> Answer {
        if self.met.len() < MAX_CLOSURE {
            self.met.insert(from);
        }
        if ask.need {
            self.need_until = Some(now + NEED);
        }
        let mut unresolved: Vec<String> = self.unresolved().into_iter().collect();
        unresolved.truncate(MAX_TARGETS);
        let closure = self.closure().into_iter().take(MAX_CLOSURE).collect();
        Answer { round: ask.round, cluster: None, closure, unresolved, waiting_for }
    }

    pub(super) fn handle_answer(&mut self, now: Instant, from: PeerId, answer: Answer) {
        let Some(round) = self.round.as_mut().filter(|round| round.number == answer.round) else { return };
        if answer.cluster.is_some() {
            self.round = None;
            self.paused_until = Some(now + PAUSE);
            return;
        }
        if !round.asked.contains_key(&from) {
            return;
        }
        let Answer { unresolved, waiting_for, .. } = answer;
        round.answers.insert(from, Heard { at: now, unresolved, waiting_for });
        let room = MAX_CLOSURE.saturating_sub(self.met.len());
        self.met.extend(answer.closure.into_iter().take(room));
        self.met.remove(&self.own);
    }

    /// True while this host, or somebody who asked it, needs an address.
    pub(super) fn needed(&self, now: Instant, own_need: bool) -> bool {
        own_need || self.need_until.is_some_and(|until| now < until)
    }

    /// True when this host looked a moment ago and there is a crowd: it looks again at [`Self::next_timeout`].
    pub(super) fn is_too_soon(&mut self, now: Instant) -> bool {
        match self.looked {
            Some((at, _)) if self.hosts.len() > CROWD && now < at + LOOK => self.looked = Some((at, true)),
            _ => self.looked = Some((now, false)),
        }
        self.looked.is_some_and(|(_, due)| due)
    }

    /// Goes on with the round: call it after every change and at [`Self::next_timeout`].
    /// `number` is used if a new round begins.
    pub(super) fn step(&mut self, now: Instant, own_need: bool, number: u64) -> Step {
        if !self.needed(now, own_need) {
            self.round = None;
            return Step::default();
        }
        if self.found {
            return Step { found: true, ask: Vec::new() };
        }
        if self.paused_until.is_some_and(|until| now < until) {
            return Step::default();
        }
        let mut others = self.closure();
        others.remove(&self.own);
        let lowest = others.first().copied().filter(|peer| *peer < self.own);
        if lowest.is_some() && !own_need {
            self.round = None;
            return Step::default();
        }
        let complete = self.unresolved().is_empty() && others.len() < MAX_CLOSURE - 1;
        let round = self.round.get_or_insert_with(|| Round {
            number,
            asked: BTreeMap::new(),
            answers: BTreeMap::new(),
        });
        if complete && lowest.is_none() && others.iter().all(|peer| round.has_all_of(now, *peer)) {
            return Step { found: true, ask: Vec::new() };
        }
        let asked = lowest.map_or(others, |lowest| BTreeSet::from([lowest]));
        Step { found: false, ask: round.ask(now, &asked, own_need) }
    }

    /// When [`Self::step`] has something to do by itself.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let asks = self.round.as_ref().and_then(|round| round.asked.values().min()).map(|at| *at + ASK_AGAIN);
        let look = self.looked.filter(|(_, due)| *due).map(|(at, _)| at + LOOK);
        asks.into_iter().chain(look).chain(self.paused_until).chain(self.need_until).min()
    }

    /// Forgets timers that have passed. True: the wait for the units of another cluster is over.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let over = self.joining && self.paused_until.is_none_or(|until| until <= now);
        self.joining &= !over;
        self.paused_until = self.paused_until.filter(|until| now < *until);
        self.need_until = self.need_until.filter(|until| now < *until);
        over
    }

    /// There is a cluster: the round ends. Whom this host met stays, in case it gives its cluster up.
    pub(super) fn settle(&mut self) {
        self.need_until = None;
        self.paused_until = None;
        self.round = None;
    }

    /// This host gave a cluster up for one that it met: whose units are on their way.
    pub(super) fn give_way(&mut self, now: Instant) {
        self.found = false;
        self.round = None;
        self.paused_until = Some(now + JOINING);
        self.joining = true;
    }

    /// Whom the founding waits for: hosts without a fresh answer, and names at which nobody answered.
    pub(super) fn waiting_for(&self, now: Instant) -> (Vec<PeerId>, BTreeSet<String>) {
        let mut names = self.unresolved();
        let mut others = self.closure();
        others.remove(&self.own);
        let heard = |peer: PeerId| self.round.as_ref().and_then(|round| round.fresh(now, peer));
        if let Some(lowest) = others.first().copied().filter(|peer| *peer < self.own) {
            let Some(heard) = heard(lowest) else { return (vec![lowest], names) };
            names.extend(heard.waiting_for.iter().cloned());
            let lowest = Some(lowest).filter(|_| names.is_empty());
            return (lowest.into_iter().collect(), names);
        }
        names
            .extend(others.iter().filter_map(|peer| heard(*peer)).flat_map(|heard| heard.unresolved.clone()));
        others.retain(|peer| heard(*peer).is_none());
        (others.into_iter().collect(), names)
    }
}

impl Round {
    fn fresh(&self, now: Instant, peer: PeerId) -> Option<&Heard> {
        self.answers.get(&peer).filter(|heard| now < heard.at + FRESH)
    }

    fn has_all_of(&self, now: Instant, peer: PeerId) -> bool {
        self.fresh(now, peer).is_some_and(|heard| heard.unresolved.is_empty())
    }

    /// Asks everybody whose turn it is. Hosts that answered are asked again too: their answers must stay fresh.
    fn ask(&mut self, now: Instant, peers: &BTreeSet<PeerId>, need: bool) -> Vec<(PeerId, Ask)> {
        self.asked.retain(|peer, _| peers.contains(peer));
        let due = |peer: &PeerId| self.asked.get(peer).is_none_or(|at| *at + ASK_AGAIN <= now);
        let due: Vec<PeerId> = peers.iter().copied().filter(due).collect();
        self.asked.extend(due.iter().map(|peer| (*peer, now)));
        due.into_iter().map(|peer| (peer, Ask { round: self.number, need })).collect()
    }
}

/// A closure without its cluster, as a host that belongs to one answers.
pub(super) fn settled_answer(round: u64, cluster: ClusterId) -> Answer {
    Answer {
        round,
        cluster: Some(cluster),
        closure: Vec::new(),
        unresolved: Vec::new(),
        waiting_for: Vec::new(),
    }
}
