//! Who is alive, compared with another host: what both know becomes known to both.

use std::collections::BTreeMap;
use std::time::Instant;

use engine::types::PeerId;
use foca::State;

use super::member::MemberId;
use super::{MemberEvent, Membership};
use crate::proto;

impl Membership {
    /// A hash of who is alive, this host included: equal where the same hosts are taken for alive in the same starts.
    pub fn hash(&self) -> u64 {
        let own = digest(self.foca.identity());
        let others = self.foca.iter_members().map(|member| digest(member.id()));
        others.fold(own, u64::wrapping_add)
    }

    /// Everybody, this host included, for [`Self::merge`] elsewhere.
    pub fn members(&self) -> Vec<proto::Member> {
        let MemberId { peer, bump } = *self.foca.identity();
        let own = proto::Member { peer: PeerId(peer), bump, denials: 0, state: 0 };
        let others = self.foca.iter_membership_state().map(|member| proto::Member {
            peer: PeerId(member.id().peer),
            bump: member.id().bump,
            denials: member.incarnation(),
            state: match member.state() {
                State::Alive => 0,
                State::Suspect => 1,
                State::Down => 2,
            },
        });
        others.chain([own]).collect()
    }

    /// What another host knows of everybody. It is not told on: every host compares with others itself.
    pub fn merge(&mut self, now: Instant, members: &[proto::Member]) {
        if self.left {
            return;
        }
        self.outlive(now, members);
        let known: BTreeMap<[u8; 16], (u64, u16, State)> = self
            .foca
            .iter_membership_state()
            .map(|member| (member.id().peer, (member.id().bump, member.incarnation(), member.state())))
            .collect();
        let own = self.foca.identity().clone();
        // What an earlier start of this host was taken for does not matter any more.
        let others = members.iter().filter(|member| member.peer.0 != own.peer || member.bump == own.bump);
        let news = others.filter_map(|member| {
            let state = match member.state {
                0 => State::Alive,
                1 => State::Suspect,
                2 => State::Down,
                _ => return None,
            };
            let old = known.get(&member.peer.0);
            let news = old.is_none_or(|(bump, denials, held)| {
                member.bump > *bump
                    || (member.bump == *bump && is_news(*held, *denials, state, member.denials))
            });
            let id = MemberId { peer: member.peer.0, bump: member.bump };
            news.then(|| foca::Member::new(id, member.denials, state))
        });
        let news: Vec<_> = news.collect();
        let _refused = self.foca.apply_many(news.into_iter(), false, &mut self.runtime);
        self.absorb(now);
    }

    /// A start of this host that it does not remember, since its disk is lost, is known elsewhere: the next one is above
    /// it, or nobody would hear this host.
    fn outlive(&mut self, now: Instant, members: &[proto::Member]) {
        let own = self.foca.identity().clone();
        let starts = members.iter().filter(|member| member.peer.0 == own.peer).map(|member| member.bump);
        if let Some(last) = starts.max().filter(|last| *last > own.bump) {
            self.raise(now, last.saturating_add(1));
            self.events.push_back(MemberEvent::Rejoined(self.foca.identity().bump));
        }
    }
}

/// The order of what may be said of one start of a host.
fn is_news(held: State, held_denials: u16, state: State, denials: u16) -> bool {
    match (held, state) {
        (State::Down, _) => false,
        (_, State::Down) => true,
        (State::Alive, State::Suspect) => denials >= held_denials,
        _ => denials > held_denials,
    }
}

/// Peer ids are hashes already: their bytes and the bump, mixed as in the finalizer of splitmix64.
fn digest(id: &MemberId) -> u64 {
    let (low, high) = id.peer.split_at(8);
    let word = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_le_bytes);
    let mut z = word(low) ^ word(high).rotate_left(32) ^ id.bump.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
