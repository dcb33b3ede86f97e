use std::collections::BTreeMap;

use hickory_proto::op::MessageType;
use proptest::prelude::*;

use super::*;
use crate::seam::{Service, Update};
use crate::types::{Holder, IpPrefix, PeerId, Vni};

const MESH: Vni = Vni::MESH;

fn vni(number: u32) -> Vni {
    Vni::new(number).unwrap()
}

fn network(vni: Vni, name: &str, gateways: &[(&str, u8)]) -> Update {
    let gateways =
        gateways.iter().map(|&(addr, len)| IpPrefix { addr: addr.parse().unwrap(), len }).collect();
    Update::SetNetwork { vni, name: name.into(), mtu: 1450, sealed: false, gateways }
}

fn entry(vni: Vni, id: u8, names: &[&str], addrs: &[&str]) -> Update {
    Update::SetNames {
        vni,
        holder: Holder { peer: PeerId([id; 16]), id: [id; 8] },
        names: names.iter().map(|&name| name.to_owned()).collect(),
        addrs: addrs.iter().map(|addr| addr.parse().unwrap()).collect(),
        services: Vec::new(),
        suspected: false,
    }
}

/// Three networks: the asker of [`ask`] is on `mesh` and on `backend`, not on `secret`.
fn names() -> Names {
    let mut names = Names::default();
    for update in [
        network(MESH, "mesh", &[("10.32.0.1", 12), ("fd00::1", 64)]),
        network(vni(2), "backend", &[("172.20.0.1", 16)]),
        network(vni(3), "secret", &[("172.30.0.1", 16)]),
        entry(MESH, 1, &["web", "app"], &["10.32.0.2", "fd00::2"]),
        entry(MESH, 2, &["db", "app"], &["10.32.0.3"]),
        entry(MESH, 3, &["web.old"], &["10.32.0.4"]),
        entry(MESH, 7, &["starting"], &[]),
        entry(vni(2), 4, &["web"], &["172.20.0.2"]),
        entry(vni(2), 5, &["queue"], &["172.20.0.3"]),
        entry(vni(3), 6, &["vault"], &["172.30.0.2"]),
    ] {
        names.apply(&update);
    }
    names
}

fn asker(forwards: bool) -> Asker {
    let links = vec![
        ("c5".to_owned(), "db".to_owned()),
        ("foo".into(), "queue.backend".into()),
        ("gone".into(), "x".into()),
    ];
    Asker { networks: vec![MESH, vni(2)], links, forwards }
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn outcome(names: &Names, asker: &Asker, message: &Message, limit: u16) -> Outcome {
    answer(names, asker, &message.to_vec().unwrap(), limit, &mut Nonces::new(1))
}

fn decoded(outcome: &Outcome) -> Message {
    let Outcome::Answer(answer) = outcome else { panic!("{outcome:?}") };
    Message::from_vec(&answer.message).unwrap()
}

/// What is answered: the code, and the records, sorted.
fn ask_as(asker: &Asker, name: &str, kind: RecordType) -> (ResponseCode, Vec<String>) {
    let reply = decoded(&outcome(&names(), asker, &question(name, kind), 1232));
    assert_eq!(
        (reply.id, reply.message_type, reply.recursion_desired),
        (0x1234, MessageType::Response, true)
    );
    let mut records: Vec<String> = reply.answers.iter().map(|record| record.data.to_string()).collect();
    records.sort();
    let negative = reply.authorities.iter().any(|record| record.record_type() == RecordType::SOA);
    let single = !name.trim_end_matches('.').contains('.');
    if reply.response_code != ResponseCode::Refused
        && !(single && reply.response_code == ResponseCode::NXDomain)
    {
        assert_eq!(negative, records.is_empty(), "who has nothing says for how long: {reply:?}");
    }
    (reply.response_code, records)
}

fn ask(name: &str, kind: RecordType) -> (ResponseCode, Vec<String>) {
    ask_as(&asker(true), name, kind)
}

fn found(records: &[&str]) -> (ResponseCode, Vec<String>) {
    (ResponseCode::NoError, records.iter().map(|&record| record.to_owned()).collect())
}

fn absent() -> (ResponseCode, Vec<String>) {
    (ResponseCode::NXDomain, Vec::new())
}

#[test]
fn a_name_is_found_in_all_its_forms() {
    for name in
        ["web", "web.", "WEB", "web.mesh", "web.mesh.", "Web.Mesh.mesh.INTERNAL", "web.mesh.mesh.internal."]
    {
        assert_eq!(ask(name, RecordType::A), found(&["10.32.0.2"]), "{name}");
    }
    assert_eq!(ask("web", RecordType::AAAA), found(&["fd00::2"]));
    assert_eq!(ask("web", RecordType::ANY), found(&["10.32.0.2", "fd00::2"]));
    assert_eq!(ask("web.old", RecordType::A), found(&["10.32.0.4"]), "a name may have dots");
    assert_eq!(ask("web.backend", RecordType::A), found(&["172.20.0.2"]));
    assert_eq!(ask("queue", RecordType::A), found(&["172.20.0.3"]), "on the second network");
}

#[test]
fn what_does_not_exist_and_what_has_no_such_record_are_told_apart() {
    assert_eq!(ask("db", RecordType::AAAA), found(&[]), "known, without an address of the family");
    assert_eq!(ask("web", RecordType::MX), found(&[]));
    assert_eq!(ask("starting", RecordType::A), found(&[]));
    assert_eq!(ask("mesh.mesh.internal", RecordType::A), found(&[]), "a network");
    assert_eq!(ask("nobody.mesh.mesh.internal", RecordType::A), absent());
    assert_eq!(ask("web.nowhere.mesh.internal", RecordType::A), absent());
    assert_eq!(ask("web.mesh.internal", RecordType::A), absent());
}

#[test]
fn names_of_other_networks_do_not_exist() {
    for name in ["vault", "vault.secret"] {
        let reply = outcome(&names(), &asker(true), &question(name, RecordType::A), 1232);
        assert_eq!(reply, Outcome::Forward { limit: PLAIN_LIMIT }, "{name}");
    }
    assert_eq!(ask("vault.secret.mesh.internal", RecordType::A), absent());
    assert_eq!(ask("2.0.30.172.in-addr.arpa", RecordType::PTR), absent());
}

#[test]
fn links_are_private_and_come_first() {
    assert_eq!(ask("c5", RecordType::A), found(&["10.32.0.3"]));
    assert_eq!(ask("C5.mesh.mesh.internal", RecordType::A), found(&["10.32.0.3"]), "with the search domain");
    assert_eq!(ask("foo", RecordType::A), found(&["172.20.0.3"]), "of another network");
    assert_eq!(ask("gone", RecordType::A), absent(), "what it stands for is gone: nobody else is asked");
    let stranger = Asker { networks: vec![MESH], links: vec![("web".into(), "db".into())], forwards: false };
    assert_eq!(ask_as(&stranger, "c5", RecordType::A), absent());
    assert_eq!(ask_as(&stranger, "web", RecordType::A), found(&["10.32.0.3"]));
    assert_eq!(ask_as(&stranger, "queue", RecordType::A), absent());
}

#[test]
fn addresses_have_names() {
    assert_eq!(ask("2.0.32.10.in-addr.arpa", RecordType::PTR), found(&["web.mesh.mesh.internal."]));
    assert_eq!(ask("3.0.20.172.in-addr.arpa.", RecordType::ANY), found(&["queue.backend.mesh.internal."]));
    let v6 = format!("2.{}0.0.d.f.ip6.arpa", "0.".repeat(27));
    assert_eq!(ask(&v6, RecordType::PTR), found(&["web.mesh.mesh.internal."]));
    assert_eq!(ask("99.0.32.10.in-addr.arpa", RecordType::PTR), absent());
    assert_eq!(ask("2.0.32.10.in-addr.arpa", RecordType::A), found(&[]));
    let foreign = outcome(&names(), &asker(true), &question("1.1.1.1.in-addr.arpa", RecordType::PTR), 1232);
    assert_eq!(foreign, Outcome::Forward { limit: PLAIN_LIMIT });
}

#[test]
fn the_domain_has_a_server() {
    let (code, records) = ask("mesh.internal", RecordType::SOA);
    assert_eq!(code, ResponseCode::NoError);
    assert!(records[0].starts_with("ns.mesh.internal. hostmaster.mesh.internal. "), "{records:?}");
    assert_eq!(ask("mesh.internal.", RecordType::NS), found(&["ns.mesh.internal."]));
    assert_eq!(ask("ns.mesh.internal", RecordType::A), found(&["10.32.0.1", "172.20.0.1"]));
    assert_eq!(ask("mesh.internal", RecordType::A), found(&[]));
}

#[test]
fn services_are_told_with_their_holder() {
    let mut names = names();
    let service = |id: u8, name: &str, port| Update::SetNames {
        vni: MESH,
        holder: Holder { peer: PeerId([id; 16]), id: [id; 8] },
        names: vec![name.to_owned()],
        addrs: vec![IpAddr::from([10, 32, 1, id])],
        services: vec![Service { name: "_http._tcp.shop".into(), port }],
        suspected: false,
    };
    names.apply(&service(20, "shop1", 8080));
    names.apply(&service(21, "shop2", 8081));
    let reply = decoded(&outcome(&names, &asker(true), &question("_HTTP._tcp.shop", RecordType::SRV), 1232));
    let records: BTreeSet<String> = reply.answers.iter().map(|record| record.data.to_string()).collect();
    let expected = ["0 0 8080 shop1.mesh.mesh.internal.", "0 0 8081 shop2.mesh.mesh.internal."];
    assert_eq!(records, expected.map(str::to_owned).into());
    assert_eq!(reply.additionals.len(), 2, "with their addresses");
    let empty = outcome(&names, &asker(true), &question("_http._tcp.shop", RecordType::A), 1232);
    assert_eq!((decoded(&empty).response_code, decoded(&empty).answers.len()), (ResponseCode::NoError, 0));
}

#[test]
fn who_does_not_forward_refuses_what_others_know() {
    let asker = asker(false);
    assert_eq!(ask_as(&asker, "www.example.com", RecordType::A), (ResponseCode::Refused, vec![]));
    assert_eq!(ask_as(&asker, ".", RecordType::NS), (ResponseCode::Refused, vec![]));
    assert_eq!(ask_as(&asker, "printer", RecordType::A), absent());
    assert_eq!(ask_as(&asker, "web", RecordType::A), found(&["10.32.0.2"]));
}

#[test]
fn the_question_keeps_its_case_and_the_answer_has_it() {
    let reply = decoded(&outcome(&names(), &asker(true), &question("wEb.MeSh", RecordType::A), 1232));
    let expected = Name::from_ascii("wEb.MeSh.").unwrap();
    assert!(
        reply.queries[0].name().eq_case(&expected) && reply.answers[0].name.eq_case(&expected),
        "{reply:?}"
    );
    assert_eq!((reply.answers[0].ttl, reply.authoritative, reply.recursion_available), (5, true, true));
}

#[test]
fn all_holders_come_in_turn_and_those_suspected_last() {
    let mut names = names();
    for id in 30..34 {
        names.apply(&entry(MESH, id, &["farm"], &[&format!("10.32.2.{id}")]));
    }
    let mut last = entry(MESH, 34, &["farm"], &["10.32.2.34"]);
    let Update::SetNames { suspected, .. } = &mut last else { panic!("{last:?}") };
    *suspected = true;
    names.apply(&last);
    let (mut chance, mut firsts) = (Nonces::new(7), BTreeMap::<String, u32>::new());
    let bytes = question("farm", RecordType::A).to_vec().unwrap();
    for _ in 0..400 {
        let reply = decoded(&answer(&names, &asker(true), &bytes, 1232, &mut chance));
        assert_eq!((reply.answers.len(), reply.answers[4].data.to_string().as_str()), (5, "10.32.2.34"));
        *firsts.entry(reply.answers[0].data.to_string()).or_default() += 1;
    }
    assert!(firsts.len() == 4 && firsts.values().all(|&times| times > 50), "{firsts:?}");
}

/// A name with `count` holders.
fn crowd(count: u8) -> Names {
    let mut names = names();
    (0..count).for_each(|id| names.apply(&entry(MESH, id, &["crowd"], &[&format!("10.40.0.{id}")])));
    names
}

#[test]
fn what_does_not_fit_says_so_and_holds_what_fits() {
    let (names, asker) = (crowd(200), asker(true));
    let mut asked = question("crowd", RecordType::A);
    let plain = outcome(&names, &asker, &asked, 1232);
    let Outcome::Answer(answer) = &plain else { panic!("{plain:?}") };
    assert!(
        answer.truncated && answer.message.len() <= PLAIN_LIMIT && answer.message.len() > PLAIN_LIMIT - 16
    );
    let reply = decoded(&plain);
    assert!(reply.truncation && reply.answers.len() > 25 && reply.edns.is_none());
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    asked.set_edns(edns);
    let wide = outcome(&names, &asker, &asked, 1232);
    let reply = decoded(&wide);
    assert!(
        reply.truncation && reply.answers.len() > 70 && reply.edns.is_some(),
        "no more than the network carries"
    );
    let whole = decoded(&outcome(&names, &asker, &asked, u16::MAX));
    assert!(!whole.truncation && whole.answers.len() == 200);
}

#[test]
fn what_is_no_question_is_not_answered_as_one() {
    let (names, asker) = (names(), asker(true));
    let code = |message: &Message| decoded(&outcome(&names, &asker, message, 1232)).response_code;
    let plain = question("web", RecordType::A);
    let mut other = plain.clone();
    other.metadata.op_code = OpCode::Update;
    assert_eq!(code(&other), ResponseCode::NotImp);
    let mut two = plain.clone();
    two.add_query(plain.queries[0].clone());
    assert_eq!(code(&two), ResponseCode::FormErr);
    let mut none = plain.clone();
    none.queries.clear();
    assert_eq!(code(&none), ResponseCode::FormErr);
    let mut chaos = plain.clone();
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(code(&chaos), ResponseCode::Refused);
    assert_eq!(code(&question("mesh.internal", RecordType::AXFR)), ResponseCode::Refused);
    let mut newer = plain.clone();
    let mut edns = Edns::new();
    edns.set_version(1);
    newer.set_edns(edns);
    // BADVERS, which has its number from BADSIG too.
    assert_eq!(u16::from(code(&newer)), 16);
    let mut reply = plain.clone();
    reply.metadata.message_type = MessageType::Response;
    assert_eq!(outcome(&names, &asker, &reply, 1232), Outcome::Drop);
    let bytes = plain.to_vec().unwrap();
    let mut chance = Nonces::new(1);
    assert_eq!(answer(&names, &asker, &bytes[..11], 1232, &mut chance), Outcome::Drop);
    let cut = answer(&names, &asker, &bytes[..bytes.len() - 1], 1232, &mut chance);
    assert_eq!(decoded(&cut).response_code, ResponseCode::FormErr);
}

#[test]
fn an_answer_of_others_is_passed_on_as_far_as_it_fits() {
    let mut whole = Message::response(1, OpCode::Query);
    let name = Name::from_ascii("www.example.com.").unwrap();
    whole.add_query(Query::query(name.clone(), RecordType::A));
    for last in 0..100 {
        whole.add_answer(Record::from_rdata(name.clone(), 60, address(IpAddr::from([192, 0, 2, last]))));
    }
    let bytes = whole.to_vec().unwrap();
    let passed = pass_on(0x4321, bytes.clone(), usize::from(u16::MAX)).unwrap();
    assert!(!passed.truncated && passed.message[..2] == [0x43, 0x21] && passed.message[2..] == bytes[2..]);
    let cut = pass_on(0x4321, bytes.clone(), PLAIN_LIMIT).unwrap();
    let reply = Message::from_vec(&cut.message).unwrap();
    assert!(cut.truncated && reply.truncation && reply.id == 0x4321 && reply.answers.is_empty());
    assert_eq!(reply.queries, whole.queries);
    assert_eq!(pass_on(1, question("x", RecordType::A).to_vec().unwrap(), PLAIN_LIMIT), None);
    assert_eq!(pass_on(1, vec![0; 3], PLAIN_LIMIT), None);
}

proptest! {
    /// Whatever comes: no panic, an answer is within its bounds and has the id of the question.
    #[test]
    fn any_bytes_are_answered_or_dropped(bytes in prop::collection::vec(any::<u8>(), 0..200), limit in 512..2000_u16) {
        if let Outcome::Answer(answer) = answer(&names(), &asker(true), &bytes, limit, &mut Nonces::new(1)) {
            prop_assert!(answer.message.len() <= usize::from(limit).max(PLAIN_LIMIT));
            prop_assert_eq!(&answer.message[..2], &bytes[..2]);
            prop_assert!(Message::from_vec(&answer.message).is_ok());
        }
    }

    /// The limit holds for any number of holders, and nothing that fits is left out.
    #[test]
    fn an_answer_fits(count in 0..120_u8, payload in 0..3000_u16, any in any::<bool>()) {
        let mut asked = question("crowd", if any { RecordType::ANY } else { RecordType::A });
        let mut edns = Edns::new();
        edns.set_max_payload(payload);
        asked.set_edns(edns);
        if count == 0 {
            return Ok(());
        }
        let reply = outcome(&crowd(count), &asker(true), &asked, 1400);
        let Outcome::Answer(answer) = &reply else { panic!("{reply:?}") };
        let limit = usize::from(payload.min(1400)).max(PLAIN_LIMIT);
        prop_assert!(answer.message.len() <= limit);
        let message = decoded(&reply);
        prop_assert_eq!(answer.truncated, message.answers.len() < usize::from(count));
        prop_assert!(!answer.truncated || answer.message.len() + 16 > limit);
        prop_assert!(message.edns.is_some());
    }
}
