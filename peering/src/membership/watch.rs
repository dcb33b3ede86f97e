//! The neighbours of a host, asked in turn whether they are there: to each there is a connection, so a question costs
//! little, and a death is seen sooner than by probing hosts at random alone.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use engine::types::PeerId;

/// One neighbour is asked so often.
const PERIOD: Duration = Duration::from_secs(1);

/// A host from which something came this recently is not dead, whoever suspects it.
const HEARD: Duration = Duration::from_secs(2);

/// A death seldom comes alone: when one is near, all neighbours are asked at once, but not more often than this.
const HURRY: Duration = Duration::from_secs(5);

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// Ask whether it is there.
    Ask(PeerId),
    /// It did not answer so far: ask once more.
    AskAgain(PeerId),
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
    /// To be asked before it is their turn.
    urgent: Vec<PeerId>,
    hurried: Option<Instant>,
}

/// A question without an answer: when it is overdue, and whether it is the second one.
#[derive(Clone, Copy)]
struct Asked {
    until: Instant,
    again: bool,
}

impl Watch {
    /// These are watched from now on.
    pub(super) fn set_neighbours(&mut self, now: Instant, neighbours: Vec<PeerId>) {
        self.neighbours.retain(|peer| neighbours.contains(peer));
        let new: Vec<PeerId> =
            neighbours.into_iter().filter(|peer| !self.neighbours.contains(peer)).collect();
        self.neighbours.extend(new);
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

    /// Somebody is suspected, or dead.
    pub(super) fn hurry(&mut self, now: Instant) {
        if self.hurried.is_none_or(|last| now.saturating_duration_since(last) >= HURRY) {
            self.hurried = Some(now);
            self.urgent = self.neighbours.iter().copied().filter(|peer| !self.spares(now, *peer)).collect();
        }
    }

    /// There is a sign of the death of a peer: it is asked now.
    pub(super) fn sign(&mut self, peer: PeerId) {
        self.urgent.push(peer);
    }

    /// When [`Self::poll`] has something to do.
    pub(super) fn next(&self) -> Option<Instant> {
        self.asked.values().map(|asked| asked.until).chain(self.next).min()
    }

    /// What is to be done now, if anything; `patience` is how long two questions may go without an answer.
    pub(super) fn poll(&mut self, now: Instant, patience: Duration) -> Option<Step> {
        let until = now + patience / 2;
        if let Some((&peer, asked)) = self.asked.iter_mut().find(|(_, asked)| asked.until <= now) {
            if asked.again {
                self.asked.remove(&peer);
                return Some(Step::Suspect(peer));
            }
            *asked = Asked { until, again: true };
            return Some(Step::AskAgain(peer));
        }
        while let Some(peer) = self.urgent.pop() {
            if self.ask(peer, until) {
                return Some(Step::Ask(peer));
            }
        }
        self.next.filter(|next| *next <= now)?;
        self.next = Some(now + PERIOD);
        let peer = self.neighbours.pop_front()?;
        self.neighbours.push_back(peer);
        self.ask(peer, until).then_some(Step::Ask(peer))
    }

    /// False for a peer that was asked already.
    fn ask(&mut self, peer: PeerId, until: Instant) -> bool {
        let fresh = !self.asked.contains_key(&peer);
        if fresh {
            self.asked.insert(peer, Asked { until, again: false });
        }
        fresh
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
        run(&mut watch, &mut now, Duration::from_secs(1), &[ONE]);
        assert_eq!(watch.next(), None);
    }

    #[test]
    fn who_is_lost_owes_an_answer_though_it_is_no_neighbour_any_more() {
        #[expect(clippy::disallowed_methods, reason = "any moment will do")]
        let mut now = Instant::now();
        let mut watch = Watch::default();
        watch.set_neighbours(now, vec![ONE, TWO]);
        [ONE, TWO].into_iter().for_each(|peer| watch.heard(now, peer));
        [ONE, TWO].into_iter().for_each(|peer| watch.sign(peer));
        let mut steps = run(&mut watch, &mut now, Duration::from_millis(100), &[ONE]);
        watch.set_neighbours(now, Vec::new());
        steps.extend(run(&mut watch, &mut now, Duration::from_millis(1100), &[ONE]));
        assert_eq!(steps, [Step::Ask(TWO), Step::Ask(ONE), Step::AskAgain(TWO), Step::Suspect(TWO)]);
        assert_eq!(watch.next(), None);
    }

    #[test]
    fn in_a_hurry_all_are_asked_at_once_but_not_over_and_over() {
        #[expect(clippy::disallowed_methods, reason = "any moment will do")]
        let mut now = Instant::now();
        let mut watch = Watch::default();
        let many: Vec<PeerId> = (1..=20).map(|n| PeerId([n; 16])).collect();
        watch.set_neighbours(now, many.clone());
        watch.hurry(now);
        let asked = |steps: &[Step]| steps.iter().filter(|step| matches!(step, Step::Ask(_))).count();
        let steps = run(&mut watch, &mut now, Duration::from_millis(100), &many);
        assert_eq!(asked(&steps), many.len());
        watch.hurry(now);
        let steps = run(&mut watch, &mut now, Duration::from_secs(3), &many);
        assert!(asked(&steps) <= 3, "{steps:?}");
        now += HURRY;
        watch.hurry(now);
        let steps = run(&mut watch, &mut now, Duration::from_millis(1100), &many[1..]);
        assert_eq!(steps.iter().filter(|step| matches!(step, Step::Suspect(_))).count(), 1, "{steps:?}");
    }
}
