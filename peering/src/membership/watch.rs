//! The neighbours of a host, asked in turn whether they are there: to each there is a connection, so a question costs
//! little, and a death is seen sooner than by probing hosts at random alone.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use engine::types::PeerId;

/// One neighbour is asked so often.
const PERIOD: Duration = Duration::from_secs(1);

/// A host from which something came this recently is not dead, whoever suspects it.
const HEARD: Duration = Duration::from_secs(2);

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// Ask whether it is there.
    Ask(PeerId),
    /// It did not answer.
    Suspect(PeerId),
}

/// Who is watched, and what came from whom.
#[derive(Default)]
pub(super) struct Watch {
    neighbours: VecDeque<PeerId>,
    heard: BTreeMap<PeerId, Instant>,
    asked: BTreeMap<PeerId, Asked>,
    next: Option<Instant>,
}

#[derive(Clone, Copy)]
struct Asked {
    first: Instant,
    again: bool,
}

impl Watch {
    /// These are watched from now on.
    pub(super) fn set_neighbours(&mut self, now: Instant, neighbours: Vec<PeerId>) {
        self.neighbours.retain(|peer| neighbours.contains(peer));
        let new: Vec<PeerId> =
            neighbours.into_iter().filter(|peer| !self.neighbours.contains(peer)).collect();
        self.neighbours.extend(new);
        self.asked.retain(|peer, _| self.neighbours.contains(peer));
        self.heard.retain(|_, at| now.saturating_duration_since(*at) <= HEARD);
        self.next = (!self.neighbours.is_empty()).then(|| self.next.unwrap_or(now + PERIOD));
    }

    /// Something came from a peer.
    pub(super) fn heard(&mut self, now: Instant, peer: PeerId) {
        self.heard.insert(peer, now);
        self.asked.remove(&peer);
    }

    /// True for a peer that was heard a moment ago.
    pub(super) fn spares(&self, now: Instant, peer: PeerId) -> bool {
        self.heard.get(&peer).is_some_and(|at| now.saturating_duration_since(*at) <= HEARD)
    }

    /// When [`Self::poll`] has something to do.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// What is to be done now, if anything; `patience` is how long an answer may take.
    pub(super) fn poll(&mut self, now: Instant, patience: Duration) -> Option<Step> {
        self.next.filter(|next| *next <= now)?;
        let late = |asked: &Asked, part: u32| now.saturating_duration_since(asked.first) >= patience / part;
        if let Some(peer) =
            self.asked.iter().find(|(_, asked)| asked.again && late(asked, 1)).map(|(peer, _)| *peer)
        {
            self.asked.remove(&peer);
            return Some(Step::Suspect(peer));
        }
        let slow = self.asked.iter_mut().find(|(_, asked)| !asked.again && late(asked, 2));
        if let Some((peer, asked)) = slow {
            asked.again = true;
            return Some(Step::Ask(*peer));
        }
        self.next = Some(now + PERIOD);
        let peer = self.neighbours.pop_front()?;
        self.neighbours.push_back(peer);
        let fresh = !self.asked.contains_key(&peer);
        if fresh {
            self.asked.insert(peer, Asked { first: now, again: false });
        }
        fresh.then_some(Step::Ask(peer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: PeerId = PeerId([1; 16]);
    const TWO: PeerId = PeerId([2; 16]);

    /// What is done within `time`, asked every 100 ms; `answers` answer at once.
    fn run(watch: &mut Watch, now: &mut Instant, time: Duration, answers: &[PeerId]) -> Vec<Step> {
        let (end, mut steps) = (*now + time, Vec::new());
        while *now < end {
            *now += Duration::from_millis(100);
            while let Some(step) = watch.poll(*now, Duration::from_secs(1)) {
                steps.push(step);
                if let Step::Ask(peer) = step
                    && answers.contains(&peer)
                {
                    watch.heard(*now, peer);
                }
            }
        }
        steps
    }

    #[test]
    fn neighbours_are_asked_in_turn_and_silent_ones_suspected_after_a_second_question() {
        #[expect(clippy::disallowed_methods, reason = "any moment will do")]
        let mut now = Instant::now();
        let mut watch = Watch::default();
        assert_eq!(watch.next(), None);
        watch.set_neighbours(now, vec![ONE, TWO]);
        let steps = run(&mut watch, &mut now, Duration::from_secs(4), &[ONE, TWO]);
        assert_eq!(steps.len(), 4, "{steps:?}");
        assert!(steps.iter().all(|step| matches!(step, Step::Ask(_))));
        assert!(watch.spares(now, ONE));
        let steps = run(&mut watch, &mut now, Duration::from_secs(4), &[ONE]);
        assert!(steps.contains(&Step::Suspect(TWO)) && !steps.contains(&Step::Suspect(ONE)), "{steps:?}");
        assert!(!watch.spares(now, TWO));
        watch.set_neighbours(now, Vec::new());
        assert_eq!(watch.next(), None);
    }
}
