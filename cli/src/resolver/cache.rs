//! Answers of other name servers, for as long as they say: also that there is nothing (RFC 2308).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::message::{Message, addressed};

/// Most answers that are kept.
const MAX_ANSWERS: usize = 4096;
/// Most bytes in them.
const MAX_BYTES: usize = 4 << 20;
/// The longest that something is kept, whatever it says: a day (RFC 8767 section 4 has a week for the most).
const LONGEST: Duration = Duration::from_secs(86_400);
/// The longest that nothing is kept (RFC 2308 section 5 finds one to three hours right).
const LONGEST_NOTHING: Duration = Duration::from_secs(3600);

/// Whose name servers gave an answer: others may give another one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Scope {
    /// Those of this host.
    Host,
    /// Those that the container in this network namespace had, by device and inode.
    Container(u64, u64),
}

type Key = (Scope, Vec<u8>);

#[derive(Debug)]
struct Kept {
    answer: Vec<u8>,
    since: Instant,
    until: Instant,
}

/// The answers that are kept.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    kept: BTreeMap<Key, Kept>,
    /// The same in the order in which they end.
    ends: BTreeSet<(Instant, Key)>,
    bytes: usize,
    hits: u64,
}

impl Cache {
    /// The answer to a question, as old as it is.
    pub(crate) fn find(&mut self, now: Instant, scope: Scope, question: &Message<'_>) -> Option<Vec<u8>> {
        let key = (scope, question.key()?);
        let kept = self.kept.get(&key).filter(|kept| now < kept.until)?;
        let aged = Message::parse(&kept.answer)?.aged(now.duration_since(kept.since));
        let answer = addressed(&aged, question)?;
        self.hits += 1;
        Some(answer)
    }

    /// Keeps the answer to a question, if it says for how long.
    pub(crate) fn keep(&mut self, now: Instant, scope: Scope, question: &Message<'_>, answer: &[u8]) {
        let (Some(key), Some(message)) = (question.key(), Message::parse(answer)) else { return };
        let longest = if message.has_answers() { LONGEST } else { LONGEST_NOTHING };
        let time = message.time_to_live().min(longest);
        if time.is_zero() || message.is_truncated() {
            return;
        }
        let key = (scope, key);
        self.remove(&key);
        self.bytes += answer.len();
        self.ends.insert((now + time, key.clone()));
        self.kept.insert(key, Kept { answer: answer.to_vec(), since: now, until: now + time });
        self.make_room();
    }

    /// The name servers are others now.
    pub(crate) fn forget(&mut self, scope: Scope) {
        let keys: Vec<Key> = self.kept.keys().filter(|(of, _)| *of == scope).cloned().collect();
        keys.iter().for_each(|key| self.remove(key));
    }

    /// How many answers are kept, those that have ended since included.
    pub(crate) fn len(&self) -> usize {
        self.kept.len()
    }

    /// How many questions needed no other server.
    pub(crate) fn hits(&self) -> u64 {
        self.hits
    }

    /// What ends first goes first.
    fn make_room(&mut self) {
        while self.kept.len() > MAX_ANSWERS || self.bytes > MAX_BYTES {
            let Some((_, key)) = self.ends.first().cloned() else { return };
            self.remove(&key);
        }
    }

    fn remove(&mut self, key: &Key) {
        if let Some(kept) = self.kept.remove(key) {
            self.bytes -= kept.answer.len();
            self.ends.remove(&(kept.until, key.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::rcode;
    use super::super::message::tests::{answer, question, start};
    use super::*;

    fn find(cache: &mut Cache, now: Instant, name: &str) -> Option<Vec<u8>> {
        cache.find(now, Scope::Host, &Message::parse(&question(9, name, None)).unwrap())
    }

    fn keep(cache: &mut Cache, now: Instant, name: &str, code: u8, addresses: u16, seconds: u32) {
        let asked = question(7, name, None);
        let told = answer(&asked, code, addresses, seconds);
        cache.keep(now, Scope::Host, &Message::parse(&asked).unwrap(), &told);
    }

    #[test]
    fn an_answer_is_kept_until_it_ends_and_ages_meanwhile() {
        let (mut cache, now) = (Cache::default(), start());
        keep(&mut cache, now, "a.org", rcode::NO_ERROR, 1, 60);
        keep(&mut cache, now, "b.org", rcode::NAME_ERROR, 0, 30);
        let later = find(&mut cache, now + Duration::from_secs(20), "A.org").unwrap();
        let later = Message::parse(&later).unwrap();
        assert_eq!((later.id(), later.time_to_live().as_secs()), (9, 40));
        assert!(find(&mut cache, now + Duration::from_secs(29), "b.org").is_some());
        assert!(find(&mut cache, now + Duration::from_secs(30), "b.org").is_none());
        assert!(find(&mut cache, now + Duration::from_secs(60), "a.org").is_none());
        assert_eq!(cache.hits(), 2);
    }

    #[test]
    fn what_says_no_time_is_not_kept() {
        let (mut cache, now) = (Cache::default(), start());
        keep(&mut cache, now, "a.org", rcode::NO_ERROR, 1, 0);
        keep(&mut cache, now, "b.org", rcode::SERVER_FAILURE, 1, 60);
        assert_eq!(cache.len(), 0);
        keep(&mut cache, now, "c.org", rcode::NO_ERROR, 1, 0x7fff_ffff);
        keep(&mut cache, now, "d.org", rcode::NAME_ERROR, 0, 0x7fff_ffff);
        assert!(find(&mut cache, now + LONGEST_NOTHING, "d.org").is_none());
        assert!(find(&mut cache, now + LONGEST_NOTHING, "c.org").is_some());
        assert!(find(&mut cache, now + LONGEST, "c.org").is_none());
    }

    #[test]
    fn other_servers_may_say_something_else() {
        let (mut cache, now) = (Cache::default(), start());
        keep(&mut cache, now, "a.org", rcode::NO_ERROR, 1, 60);
        let asked = question(7, "a.org", None);
        let asked = Message::parse(&asked).unwrap();
        assert!(cache.find(now, Scope::Container(1, 2), &asked).is_none());
        cache.forget(Scope::Container(1, 2));
        assert!(find(&mut cache, now, "a.org").is_some());
        cache.forget(Scope::Host);
        assert!(find(&mut cache, now, "a.org").is_none());
        assert_eq!((cache.len(), cache.bytes, cache.ends.len()), (0, 0, 0));
    }

    #[test]
    fn it_does_not_grow_without_end() {
        let (mut cache, now) = (Cache::default(), start());
        keep(&mut cache, now, "first.org", rcode::NO_ERROR, 1, 10);
        for number in 0..MAX_ANSWERS {
            keep(&mut cache, now, &format!("n{number}.org"), rcode::NO_ERROR, 1, 60);
            keep(&mut cache, now, &format!("n{number}.org"), rcode::NO_ERROR, 1, 61);
        }
        assert_eq!((cache.len(), cache.ends.len()), (MAX_ANSWERS, MAX_ANSWERS));
        assert!(find(&mut cache, now, "first.org").is_none(), "what ends first goes first");
        for number in 0..200 {
            keep(&mut cache, now, &format!("n{number}.org"), rcode::NO_ERROR, 3000, 60);
        }
        assert!(cache.bytes <= MAX_BYTES && cache.len() < MAX_ANSWERS);
    }
}
