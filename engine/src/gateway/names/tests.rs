use proptest::prelude::*;

use super::*;
use crate::types::PeerId;

const NET: Vni = Vni::MESH;

fn holder(id: u8) -> Holder {
    Holder { peer: PeerId([id; 16]), id: [id; 8] }
}

fn set(id: u8, names: &[&str], addrs: &[[u8; 4]]) -> Update {
    Update::SetNames {
        vni: NET,
        holder: holder(id),
        names: names.iter().map(|&name| name.to_owned()).collect(),
        addrs: addrs.iter().map(|&addr| addr.into()).collect(),
        services: Vec::new(),
        suspected: false,
    }
}

fn addrs(names: &Names, name: &str) -> Vec<IpAddr> {
    let zone = names.zone(NET).into_iter();
    zone.flat_map(|zone| zone.holders(name).flat_map(|entry| entry.addrs.clone()).collect::<Vec<_>>())
        .collect()
}

#[test]
fn a_name_has_all_its_holders() {
    let mut names = Names::default();
    names.apply(&set(1, &["web", "App"], &[[10, 32, 0, 2]]));
    names.apply(&set(2, &["db", "app"], &[[10, 32, 0, 3]]));
    assert_eq!(addrs(&names, "app"), [IpAddr::from([10, 32, 0, 2]), [10, 32, 0, 3].into()]);
    assert_eq!(addrs(&names, "db"), [IpAddr::from([10, 32, 0, 3])]);
    names.apply(&Update::RemoveNames { vni: NET, holder: holder(1) });
    assert_eq!(addrs(&names, "app"), [IpAddr::from([10, 32, 0, 3])]);
    assert!(addrs(&names, "web").is_empty());
}

#[test]
fn a_changed_entry_replaces_the_one_before() {
    let mut names = Names::default();
    names.apply(&set(1, &["web"], &[[10, 32, 0, 2]]));
    names.apply(&set(1, &["www"], &[[10, 32, 0, 9]]));
    assert_eq!((addrs(&names, "web"), addrs(&names, "www").len()), (vec![], 1));
    let zone = names.zone(NET).unwrap();
    assert_eq!(zone.at([10, 32, 0, 2].into()).count(), 0);
    assert_eq!(zone.at([10, 32, 0, 9].into()).filter_map(Entry::first_name).collect::<Vec<_>>(), ["www"]);
}

#[test]
fn names_may_come_before_their_network_and_go_with_it() {
    let mut names = Names::default();
    names.apply(&set(1, &["web"], &[[10, 32, 0, 2]]));
    assert_eq!(names.zone(NET).map(Zone::name), Some(""));
    let gateways = vec![IpPrefix { addr: [10, 32, 0, 1].into(), len: 12 }];
    let network = Update::SetNetwork { vni: NET, name: "Mesh".into(), mtu: 1450, sealed: false, gateways };
    names.apply(&network);
    let zone = names.zone(NET).unwrap();
    assert_eq!((zone.name(), zone.covers([10, 47, 0, 1].into())), ("mesh", true));
    assert!(!zone.covers([10, 48, 0, 1].into()));
    assert_eq!(addrs(&names, "web").len(), 1);
    names.apply(&Update::RemoveNetwork { vni: NET });
    names.apply(&network);
    assert!(addrs(&names, "web").is_empty());
}

#[test]
fn a_port_asks_for_its_own_network_unless_more_is_told() {
    let (mut names, port) = (Names::default(), PortId([7; 8]));
    let own = Asker { networks: vec![NET], ..Asker::default() };
    assert_eq!(names.asker(port, NET), own);
    let networks = vec![NET, Vni::new(4096).unwrap()];
    let links = vec![("C5".to_owned(), "Container5".to_owned())];
    names.apply(&Update::SetAsker { port, networks: networks.clone(), links, forwards: true });
    let links = vec![("c5".to_owned(), "container5".to_owned())];
    assert_eq!(names.asker(port, NET), Asker { networks, links, forwards: true });
    names.remove_port(port);
    assert_eq!(names.asker(port, NET), own);
}

proptest! {
    /// After any changes the tables are as if they had been told what is left, and nothing else.
    #[test]
    fn what_is_left_is_all_there_is(
        changes in prop::collection::vec((0..4_u8, prop::collection::vec(0..5_u8, 0..4)), 0..40),
    ) {
        let (mut names, mut model) = (Names::default(), BTreeMap::new());
        for (id, called) in changes {
            if called.is_empty() {
                model.remove(&id);
                names.apply(&Update::RemoveNames { vni: NET, holder: holder(id) });
            } else {
                let words: Vec<String> = called.iter().map(|word| format!("n{word}")).collect();
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                names.apply(&set(id, &words, &[[10, 32, 0, called[0]]]));
                model.insert(id, called);
            }
        }
        for word in 0..5_u8 {
            let name = format!("n{word}");
            let called = model.values().filter(|called| called.contains(&word)).count();
            prop_assert_eq!(addrs(&names, &name).len(), called);
            let zone = names.zone(NET);
            let at = zone.map_or(0, |zone| zone.at([10, 32, 0, word].into()).count());
            prop_assert_eq!(at, model.values().filter(|called| called[0] == word).count());
        }
        let zone = names.zone(NET);
        let called: BTreeSet<u8> = model.values().flatten().copied().collect();
        prop_assert_eq!(zone.map_or(0, |zone| zone.by_name.len()), called.len());
        prop_assert_eq!(zone.map_or(0, |zone| zone.entries().len()), model.len());
    }
}
