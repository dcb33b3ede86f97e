//! Addresses that endpoint records of any host show: taken, whoever owns their units.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use engine::types::{PeerId, PortId};

use crate::records::{ClusterId, Given};

/// An endpoint: its host and its port there.
pub(super) type EndpointId = (PeerId, PortId);

/// Who shows an address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Holder {
    /// Its name for people.
    pub(super) name: String,
    /// How it came by the address.
    pub(super) given: Given,
    /// The version of its host's claim on its MAC address.
    pub(super) claim: u64,
}

/// The endpoints of one network by address, and their addresses.
#[derive(Default)]
pub(super) struct Taken {
    holders: BTreeMap<IpAddr, BTreeMap<EndpointId, Holder>>,
    addrs: BTreeMap<EndpointId, Vec<IpAddr>>,
}

impl Taken {
    /// An endpoint shows these addresses and no others.
    pub(super) fn set(&mut self, endpoint: EndpointId, addrs: &[IpAddr], holder: &Holder) {
        self.remove(endpoint);
        for &addr in addrs {
            self.holders.entry(addr).or_default().insert(endpoint, holder.clone());
        }
        self.addrs.insert(endpoint, addrs.to_vec());
    }

    /// An endpoint is gone. Returns what it showed.
    pub(super) fn remove(&mut self, endpoint: EndpointId) -> Vec<IpAddr> {
        let addrs = self.addrs.remove(&endpoint).unwrap_or_default();
        for addr in &addrs {
            if let Some(holders) = self.holders.get_mut(addr) {
                holders.remove(&endpoint);
                if holders.is_empty() {
                    self.holders.remove(addr);
                }
            }
        }
        addrs
    }

    /// True when somebody shows the address.
    pub(super) fn contains(&self, addr: IpAddr) -> bool {
        self.holders.contains_key(&addr)
    }

    /// Everybody who shows an address.
    pub(super) fn holders(&self, addr: IpAddr) -> impl Iterator<Item = (&EndpointId, &Holder)> {
        self.holders.get(&addr).into_iter().flatten()
    }

    /// All addresses that are shown, in order.
    pub(super) fn addrs(&self) -> impl Iterator<Item = IpAddr> {
        self.holders.keys().copied()
    }

    /// The addresses of a span that are shown, in order.
    pub(super) fn within(&self, span: RangeInclusive<IpAddr>) -> impl Iterator<Item = IpAddr> {
        self.holders.range(span).map(|(addr, _)| *addr)
    }

    /// The addresses that an endpoint shows.
    pub(super) fn of(&self, endpoint: EndpointId) -> &[IpAddr] {
        self.addrs.get(&endpoint).map_or(&[], Vec::as_slice)
    }

    /// The endpoints of a host, with their addresses.
    pub(super) fn of_peer(&self, peer: PeerId) -> impl Iterator<Item = (PortId, &[IpAddr])> {
        let range = (peer, PortId([0; 8]))..=(peer, PortId([0xff; 8]));
        self.addrs.range(range).map(|((_, port), addrs)| (*port, addrs.as_slice()))
    }

    /// Who keeps an address: of those that show it, the same one on every host that has the same records.
    pub(super) fn winner(&self, addr: IpAddr) -> Option<EndpointId> {
        let best = self.holders(addr).max_by_key(|(id, holder)| rank(**id, holder));
        best.map(|(id, _)| *id)
    }
}

/// Greater keeps the address: asked for by people; the lower cluster id; given later, when the unit had changed hands;
/// claimed later, as by a host that lost its keys and goes on as another one with the same ports; the lower peer id; the
/// lower port id. A total order, since no two endpoints have the same id.
fn rank((peer, port): EndpointId, holder: &Holder) -> impl Ord + use<> {
    let Given { explicit, cluster, epoch } = holder.given;
    let cluster = cluster.unwrap_or(ClusterId([0xff; 16]));
    (explicit, Reverse(cluster), epoch, holder.claim, Reverse(peer), Reverse(port))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn holder() -> impl Strategy<Value = (EndpointId, Holder)> {
        let given = (any::<bool>(), proptest::option::of(0u8..3), 0u64..3);
        ((0u8..4, 0u8..4), given, 0u64..3).prop_map(|((peer, port), (explicit, cluster, epoch), claim)| {
            let cluster = cluster.map(|id| ClusterId([id; 16]));
            ((PeerId([peer; 16]), PortId([port; 8])), of(Given { explicit, cluster, epoch }, claim))
        })
    }

    fn of(given: Given, claim: u64) -> Holder {
        Holder { name: String::new(), given, claim }
    }

    proptest! {
        #[test]
        fn everybody_chooses_the_same_winner_in_whatever_order_the_records_came(
            mut holders in proptest::collection::vec(holder(), 1..8),
            turn in 0usize..8,
        ) {
            // One record per endpoint: the last one counts, as in the store.
            let by_id: BTreeMap<EndpointId, Holder> = holders.iter().cloned().collect();
            holders = by_id.into_iter().collect();
            let addr = "10.32.0.2".parse().unwrap();
            let show = |holders: &[(EndpointId, Holder)]| {
                let mut taken = Taken::default();
                for (id, holder) in holders {
                    taken.set(*id, &[addr], holder);
                }
                taken.winner(addr)
            };
            let winner = show(&holders);
            let turn = turn % holders.len();
            holders.rotate_left(turn);
            prop_assert_eq!(show(&holders), winner);
            holders.reverse();
            prop_assert_eq!(show(&holders), winner);
            let winner = winner.unwrap();
            // With the winner and any other one alone, the winner still wins: no chain of losers goes round.
            for other in &holders {
                let pair: Vec<_> = holders.iter().filter(|h| h.0 == winner || h.0 == other.0).cloned().collect();
                prop_assert_eq!(show(&pair), Some(winner));
            }
        }
    }

    #[test]
    fn people_then_the_lower_cluster_then_the_later_gift_then_the_later_claim_then_the_lower_host_decide() {
        let addr = "10.32.0.2".parse().unwrap();
        let id = |peer: u8| (PeerId([peer; 16]), PortId([peer; 8]));
        let given =
            |explicit, cluster, epoch| Given { explicit, cluster: Some(ClusterId([cluster; 16])), epoch };
        let wins_with = |a: (Given, u64), b: (Given, u64)| {
            let mut taken = Taken::default();
            taken.set(id(1), &[addr], &of(a.0, a.1));
            taken.set(id(2), &[addr], &of(b.0, b.1));
            taken.winner(addr) == Some(id(1))
        };
        let wins = |a, b| wins_with((a, 1), (b, 1));
        assert!(!wins(given(false, 1, 9), given(true, 2, 1)));
        assert!(!wins(given(true, 2, 9), given(true, 1, 1)));
        assert!(!wins(given(false, 1, 1), given(false, 1, 2)));
        assert!(!wins_with((given(false, 1, 1), 1), (given(false, 1, 1), 2)));
        assert!(!wins_with((given(false, 1, 1), 2), (given(false, 1, 2), 1)));
        assert!(wins(given(false, 1, 1), given(false, 1, 1)));
        assert!(!wins(Given::default(), given(false, 0xfe, 0)), "a host that does not remember has no claim");
    }

    #[test]
    fn what_was_set_is_removed_as_a_whole() {
        let addrs = ["10.32.0.2".parse().unwrap(), "10.32.0.3".parse().unwrap()];
        let (one, two) = ((PeerId([1; 16]), PortId([1; 8])), (PeerId([2; 16]), PortId([1; 8])));
        let holder = Holder { name: "web".to_owned(), given: Given::default(), claim: 1 };
        let mut taken = Taken::default();
        taken.set(one, &addrs, &holder);
        taken.set(two, &addrs[..1], &holder);
        taken.set(one, &addrs[1..], &holder);
        assert_eq!(taken.holders(addrs[0]).map(|(id, _)| *id).collect::<Vec<_>>(), [two]);
        assert_eq!(taken.of_peer(one.0).collect::<Vec<_>>(), [(one.1, &addrs[1..])]);
        assert_eq!(taken.remove(one), addrs[1..]);
        assert!(!taken.contains(addrs[1]) && taken.of(one).is_empty());
        assert_eq!(taken.addrs().collect::<Vec<_>>(), [addrs[0]]);
    }
}
