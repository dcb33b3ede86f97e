//! Who owns which unit: facts that merge the same everywhere.
//!
//! A fact is (cluster, epoch, owner). Of two facts about one unit the lower cluster id wins, then the
//! higher epoch, then the lower peer id: a total order, so the merge is commutative, associative and
//! idempotent. The runs are always in canonical form: sorted, apart, and equal neighbours joined.

use std::cmp::Reverse;

use blake2::{Blake2s256, Digest};
use engine::types::PeerId;
use serde::{Deserialize, Serialize};

use super::pool::MAX_UNITS;
use crate::plain;
use crate::proto::Run;
use crate::records::ClusterId;

/// The facts about the units of one pool.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Units {
    runs: Vec<Run>,
}

/// A fact about one unit.
type Fact = (ClusterId, u64, PeerId);

impl Units {
    /// All units of a new pool, owned by its founder at epoch 1.
    pub fn founded(units: u16, cluster: ClusterId, owner: PeerId) -> Self {
        let last = units.clamp(1, MAX_UNITS) - 1;
        Units { runs: vec![Run { first: 0, last, cluster, epoch: 1, owner }] }
    }

    /// The facts in canonical form.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// True while nothing is known of any unit.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The fact about a unit.
    pub fn get(&self, unit: u16) -> Option<&Run> {
        let at = self.runs.partition_point(|run| run.last < unit);
        self.runs.get(at).filter(|run| run.first <= unit)
    }

    /// The units of an owner, as ranges that include both ends.
    pub fn of(&self, owner: PeerId) -> impl Iterator<Item = (u16, u16)> {
        self.runs.iter().filter(move |run| run.owner == owner).map(|run| (run.first, run.last))
    }

    /// Takes facts over where they win; runs may come in any order and may overlap. Returns what changed, in
    /// canonical form: this is what other hosts may not know yet.
    pub fn merge(&mut self, facts: &[Run]) -> Vec<Run> {
        let mut changed = Vec::new();
        for fact in facts {
            self.merge_run(fact, &mut changed);
        }
        let mut news = Units::default();
        for fact in &changed {
            news.merge_run(fact, &mut Vec::new());
        }
        news.runs
    }

    /// Moves units to another owner, each one epoch up. Returns the new facts.
    pub fn grant(&mut self, ranges: &[(u16, u16)], owner: PeerId) -> Vec<Run> {
        let mut facts = Vec::new();
        for &(first, last) in ranges {
            let held = self.runs.iter().filter(|run| run.first <= last && first <= run.last);
            facts.extend(held.map(|run| Run {
                first: run.first.max(first),
                last: run.last.min(last),
                epoch: run.epoch.saturating_add(1),
                owner,
                ..*run
            }));
        }
        self.merge(&facts)
    }

    /// Feeds the canonical form to a hash.
    pub fn feed(&self, hash: &mut Blake2s256) {
        for run in &self.runs {
            hash.update(run.first.to_le_bytes());
            hash.update(run.last.to_le_bytes());
            hash.update(run.cluster.0);
            hash.update(run.epoch.to_le_bytes());
            hash.update(run.owner.0);
        }
    }

    fn merge_run(&mut self, fact: &Run, changed: &mut Vec<Run>) {
        if fact.first > fact.last || fact.last >= MAX_UNITS {
            return;
        }
        let start = self.runs.partition_point(|run| run.last < fact.first);
        let end = self.runs.partition_point(|run| run.first <= fact.last);
        // One neighbour on each side is replaced too, so that equal neighbours join.
        let (from, to) = (start.saturating_sub(1), (end + 1).min(self.runs.len()));
        let mut pieces = Vec::with_capacity(to - from + 2);
        let mut next = fact.first;
        for run in &self.runs[from..to] {
            if run.last < fact.first || run.first > fact.last {
                pieces.push(*run);
                continue;
            }
            if run.first > next {
                push_piece(&mut pieces, changed, fact, next, run.first - 1);
            }
            overlap(&mut pieces, changed, run, fact);
            next = run.last.saturating_add(1);
        }
        if next <= fact.last {
            push_piece(&mut pieces, changed, fact, next, fact.last);
        }
        self.runs.splice(from..to, canonical(pieces.into_iter()));
    }
}

/// The part of the new fact from `first` to `last`, where nothing older stands or loses.
fn push_piece(pieces: &mut Vec<Run>, changed: &mut Vec<Run>, fact: &Run, first: u16, last: u16) {
    let piece = Run { first, last, ..*fact };
    pieces.push(piece);
    changed.push(piece);
}

/// Cuts a known run where the new fact begins and ends, and lets the winner have the middle.
fn overlap(pieces: &mut Vec<Run>, changed: &mut Vec<Run>, run: &Run, fact: &Run) {
    let (first, last) = (run.first.max(fact.first), run.last.min(fact.last));
    if run.first < first {
        pieces.push(Run { last: first - 1, ..*run });
    }
    if rank(fact) > rank(run) {
        push_piece(pieces, changed, fact, first, last);
    } else {
        pieces.push(Run { first, last, ..*run });
    }
    if run.last > last {
        pieces.push(Run { first: last + 1, ..*run });
    }
}

/// Sorts runs that do not overlap, and joins equal neighbours.
fn canonical(runs: impl Iterator<Item = Run>) -> Vec<Run> {
    let mut sorted: Vec<Run> = runs.collect();
    sorted.sort_unstable_by_key(|run| run.first);
    let mut joined: Vec<Run> = Vec::with_capacity(sorted.len());
    for run in sorted {
        match joined.last_mut() {
            Some(before) if before.last.checked_add(1) == Some(run.first) && fact(before) == fact(&run) => {
                before.last = run.last;
            }
            _ => joined.push(run),
        }
    }
    joined
}

fn fact(run: &Run) -> Fact {
    (run.cluster, run.epoch, run.owner)
}

/// Greater wins.
fn rank(run: &Run) -> (Reverse<ClusterId>, u64, Reverse<PeerId>) {
    (Reverse(run.cluster), run.epoch, Reverse(run.owner))
}

/// How a run is written to disk: first, last, cluster, epoch, owner.
type RawRun = (u16, u16, ClusterId, u64, [u8; 16]);

impl plain::Plain for Units {
    type Raw = Vec<RawRun>;
    fn to_raw(&self) -> Self::Raw {
        self.runs.iter().map(|run| (run.first, run.last, run.cluster, run.epoch, run.owner.0)).collect()
    }
    fn from_raw(raw: Self::Raw) -> Option<Self> {
        let mut units = Units::default();
        let runs = raw.into_iter().map(|(first, last, cluster, epoch, owner)| Run {
            first,
            last,
            cluster,
            epoch,
            owner: PeerId(owner),
        });
        units.merge(&runs.collect::<Vec<_>>());
        Some(units)
    }
}

impl Serialize for Units {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        plain::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for Units {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        plain::deserialize(deserializer)
    }
}
