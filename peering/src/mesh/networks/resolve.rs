//! What the records of all networks mean together: two of one name, or with one number, may come from two sides of a
//! partition.
//!
//! The answer follows from the records alone, so hosts with equal records agree on it, in whatever order they came:
//!
//! - Of several networks with one name (letters count alike, large or small) the one with the lowest id has it. One that
//!   was created with the options of a lower one is the same network: its endpoints are on that one. Any other is shown as
//!   `NAME~` and the first six digits of its id.
//! - Of several networks with one number, one for which people named it goes before one that got it, then the lower id
//!   before the higher one. The others get the next free number from the one that follows from their ids.

use std::collections::{BTreeMap, BTreeSet};

use engine::types::{NetworkId, Vni};

use super::choose;
use crate::mesh::MESH_NETWORK;
use crate::records::NetworkRecord;

/// How a network is shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Shown {
    pub(super) name: String,
    pub(super) vni: Vni,
}

/// What becomes of each network.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Resolution {
    /// Those that are networks of their own.
    pub(super) shown: BTreeMap<NetworkId, Shown>,
    /// Those that are the same as another one, and which.
    pub(super) merged: BTreeMap<NetworkId, NetworkId>,
}

/// Looks at all networks together.
pub(super) fn resolve<'a>(records: impl Iterator<Item = &'a NetworkRecord>) -> Resolution {
    let mut named: BTreeMap<String, Vec<&NetworkRecord>> = BTreeMap::new();
    for record in records {
        named.entry(record.name.to_ascii_lowercase()).or_default().push(record);
    }
    let (mut names, mut merged) = (BTreeMap::new(), BTreeMap::new());
    for group in named.values_mut() {
        group.sort_by_key(|record| rank(record.network));
        let mut kept: Vec<&NetworkRecord> = Vec::new();
        for record in group.iter() {
            match kept.iter().find(|lower| is_same(lower, record)) {
                Some(lower) => drop(merged.insert(record.network, lower.network)),
                None => {
                    names.insert(record.network, (*record, shown_name(record, kept.is_empty())));
                    kept.push(record);
                }
            }
        }
    }
    let numbers = numbers(names.values().map(|(record, _)| *record));
    let shown = names
        .into_iter()
        .filter_map(|(network, (_, name))| Some((network, Shown { name, vni: *numbers.get(&network)? })));
    Resolution { shown: shown.collect(), merged }
}

/// The network `mesh` goes before all others.
fn rank(network: NetworkId) -> (bool, NetworkId) {
    (network != MESH_NETWORK, network)
}

fn shown_name(record: &NetworkRecord, first: bool) -> String {
    if first {
        return record.name.clone();
    }
    let [a, b, c, ..] = record.network.0;
    format!("{}~{a:02x}{b:02x}{c:02x}", record.name)
}

/// True when people asked for the same: what was chosen for them may differ.
fn is_same(one: &NetworkRecord, other: &NetworkRecord) -> bool {
    let vni = |record: &NetworkRecord| Some(record.vni).filter(|_| record.vni_given);
    one.network != MESH_NETWORK
        && vni(one) == vni(other)
        && one.subnet_chosen == other.subnet_chosen
        && given_subnets(one) == given_subnets(other)
        && has_ipv6(one) == has_ipv6(other)
        && (one.mtu, one.encrypted, one.internal) == (other.mtu, other.encrypted, other.internal)
        && (&one.labels, &one.options) == (&other.labels, &other.options)
}

fn has_ipv6(record: &NetworkRecord) -> bool {
    record.subnets.iter().any(|subnet| subnet.gateway.is_ipv6())
}

/// The subnets that people named.
fn given_subnets(record: &NetworkRecord) -> Vec<&crate::records::SubnetRecord> {
    let chosen = |subnet: &crate::records::SubnetRecord| match subnet.gateway.is_ipv4() {
        true => record.subnet_chosen,
        false => subnet.subnet == choose::ipv6_subnet(record.network),
    };
    record.subnets.iter().filter(|subnet| !chosen(subnet)).collect()
}

/// The number of each network.
fn numbers<'a>(records: impl Iterator<Item = &'a NetworkRecord>) -> BTreeMap<NetworkId, Vni> {
    let mut claims: Vec<&NetworkRecord> = records.collect();
    claims.sort_by_key(|record| (rank(record.network).0, !record.vni_given, record.network));
    let mut taken: BTreeSet<Vni> = claims.iter().map(|record| record.vni).collect();
    let mut owners: BTreeMap<Vni, NetworkId> = BTreeMap::from([(Vni::MESH, MESH_NETWORK)]);
    let mut losers: Vec<NetworkId> = Vec::new();
    for record in claims {
        let owner = *owners.entry(record.vni).or_insert(record.network);
        if owner != record.network || record.vni.get() == 0 {
            losers.push(record.network);
        }
    }
    let mut numbers: BTreeMap<NetworkId, Vni> =
        owners.into_iter().map(|(vni, network)| (network, vni)).collect();
    losers.sort_unstable();
    for loser in losers {
        if let Some(vni) = choose::vni(loser, &taken) {
            taken.insert(vni);
            numbers.insert(loser, vni);
        }
    }
    numbers
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::records::{ClusterId, SubnetRecord};

    fn network(id: u8, name: &str, vni: u32, vni_given: bool) -> NetworkRecord {
        let subnet = format!("10.{id}.0.0/20").parse().unwrap();
        NetworkRecord {
            network: NetworkId([id; 32]),
            name: name.to_owned(),
            vni: Vni::new(vni).unwrap(),
            vni_given,
            subnets: vec![SubnetRecord::whole(subnet)],
            subnet_chosen: true,
            mtu: 1450,
            reclaim_after: Duration::from_secs(1),
            cluster: ClusterId([1; 16]),
            encrypted: false,
            internal: false,
            labels: Vec::new(),
            options: Vec::new(),
            created_s: u64::from(id),
        }
    }

    fn name_of(resolution: &Resolution, id: u8) -> Option<&str> {
        resolution.shown.get(&NetworkId([id; 32])).map(|shown| shown.name.as_str())
    }

    #[test]
    fn the_lowest_id_keeps_a_name_and_what_is_the_same_joins_it() {
        let internal = NetworkRecord { internal: true, ..network(3, "Net", 4098, false) };
        let all = [network(2, "net", 4097, false), internal, network(1, "net", 4096, false)];
        let resolution = resolve(all.iter());
        assert_eq!(name_of(&resolution, 1), Some("net"));
        assert_eq!(name_of(&resolution, 3), Some("Net~030303"));
        assert_eq!(resolution.merged, BTreeMap::from([(NetworkId([2; 32]), NetworkId([1; 32]))]));
    }

    #[test]
    fn what_people_named_is_part_of_what_is_the_same() {
        let named = NetworkRecord { subnet_chosen: false, ..network(2, "net", 4097, false) };
        assert!(resolve([network(1, "net", 4096, false), named.clone()].iter()).merged.is_empty());
        let other =
            NetworkRecord { network: NetworkId([1; 32]), vni: Vni::new(5000).unwrap(), ..named.clone() };
        assert_eq!(resolve([other.clone(), named.clone()].iter()).merged.len(), 1);
        let given = NetworkRecord { vni_given: true, ..other };
        assert!(resolve([given, named].iter()).merged.is_empty());
    }

    #[test]
    fn a_number_that_people_named_beats_one_that_was_chosen_then_the_lower_id() {
        let all = [
            network(1, "a", 5000, false),
            network(2, "b", 5000, true),
            network(3, "c", 5000, true),
            network(4, "d", 1, true),
        ];
        let resolution = resolve(all.iter());
        let vni = |id: u8| resolution.shown[&NetworkId([id; 32])].vni.get();
        assert_eq!(vni(2), 5000);
        assert!([1, 3, 4].into_iter().all(|id| vni(id) >= 4096 && vni(id) != 5000));
    }

    #[test]
    fn the_name_and_the_number_of_mesh_are_its_own() {
        let mesh = NetworkRecord { network: MESH_NETWORK, ..network(0xe3, "mesh", 1, true) };
        let all = [network(1, "mesh", 1, true), mesh];
        let resolution = resolve(all.iter());
        assert_eq!(resolution.shown[&MESH_NETWORK], Shown { name: "mesh".to_owned(), vni: Vni::MESH });
        assert_eq!(name_of(&resolution, 1), Some("mesh~010101"));
    }

    fn networks() -> impl Strategy<Value = Vec<NetworkRecord>> {
        let one = (0u8..12, 0u8..3, 4096u32..4100, any::<bool>(), any::<bool>());
        let one = one.prop_map(|(id, name, vni, given, internal)| NetworkRecord {
            internal,
            ..network(id, &format!("net{name}"), vni, given)
        });
        // One record per network: the last one counts, as in the store.
        proptest::collection::vec(one, 0..12).prop_map(|all| {
            let by_id: BTreeMap<_, _> = all.into_iter().map(|record| (record.network, record)).collect();
            by_id.into_values().collect()
        })
    }

    proptest! {
        #[test]
        fn every_order_means_the_same_and_nothing_is_there_twice(mut all in networks(), turn in 0usize..12) {
            let resolution = resolve(all.iter());
            let turn = if all.is_empty() { 0 } else { turn % all.len() };
            all.rotate_left(turn);
            prop_assert_eq!(&resolve(all.iter()), &resolution);
            prop_assert_eq!(resolution.shown.len() + resolution.merged.len(), all.len());
            let names: BTreeSet<_> = resolution.shown.values().map(|shown| shown.name.as_str()).collect();
            let numbers: BTreeSet<_> = resolution.shown.values().map(|shown| shown.vni).collect();
            prop_assert_eq!((names.len(), numbers.len()), (resolution.shown.len(), resolution.shown.len()));
            prop_assert!(resolution.merged.values().all(|into| resolution.shown.contains_key(into)));
        }

        #[test]
        fn a_renumbering_that_was_written_down_changes_nothing(mut all in networks()) {
            let resolution = resolve(all.iter());
            for record in &mut all {
                if let Some(shown) = resolution.shown.get(&record.network).filter(|s| s.vni != record.vni) {
                    record.vni = shown.vni;
                }
            }
            let again = resolve(all.iter());
            for (network, shown) in &resolution.shown {
                prop_assert_eq!(again.shown.get(network).map(|s| s.vni), Some(shown.vni));
            }
        }
    }
}
