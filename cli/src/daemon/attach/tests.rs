use super::super::ports::tests::intent;
use super::*;

fn request() -> AttachRequest {
    AttachRequest {
        container: "web".to_owned(),
        network: "mesh".to_owned(),
        ip: Vec::new(),
        name: None,
        mac: None,
        ifname: None,
        rate: None,
        no_spoof_check: false,
        aliases: Vec::new(),
        links: Vec::new(),
        dns: true,
        timeout_s: 30.0,
    }
}

#[test]
fn attaching_again_must_ask_for_what_is_there() {
    let web = intent(1);
    let container = Subject::Container;
    assert!(compare(&request(), container, &web).is_ok());
    let ip = vec!["10.32.0.2".parse().unwrap()];
    let same = AttachRequest { ip, name: Some("web".into()), ifname: Some("mesh0".into()), ..request() };
    assert!(compare(&same, container, &web).is_ok());
    let different = [
        AttachRequest { ip: vec!["10.32.0.3".parse().unwrap()], ..request() },
        AttachRequest { name: Some("db".into()), ..request() },
        AttachRequest { mac: Some("02:00:00:00:00:09".into()), ..request() },
        AttachRequest { ifname: Some("eth1".into()), ..request() },
        AttachRequest { rate: Some("1mbit".into()), ..request() },
        AttachRequest { no_spoof_check: true, ..request() },
        AttachRequest { aliases: vec!["app".into()], ..request() },
        AttachRequest { links: vec![("db".into(), "database".into())], ..request() },
        AttachRequest { dns: false, ..request() },
    ];
    let options = [
        "--ip",
        "--name",
        "--mac",
        "--ifname",
        "--rate",
        "--no-spoof-check",
        "--alias",
        "--link",
        "--no-dns",
    ];
    for (request, option) in different.iter().zip(options) {
        let failure = compare(request, container, &web).unwrap_err();
        assert_eq!(failure.code, code::ALREADY_ATTACHED);
        assert!(failure.message.contains(option), "{failure}");
    }
}

#[test]
fn an_exposed_host_goes_on_passing_what_it_passes() {
    let host = Intent { source: Source::Host, forwarding: Forwarding::Routed, ..intent(1) };
    let compare = |forwarding| compare(&request(), Subject::Host(forwarding), &host);
    assert!(compare(Forwarding::None).is_ok() && compare(Forwarding::Routed).is_ok());
    let failure = compare(Forwarding::Masqueraded).unwrap_err();
    assert!(failure.message.contains("--masquerade") && failure.to_string().contains("`meshnet hide"));
}

#[test]
fn of_two_families_only_the_one_that_was_named_counts() {
    let mut web = intent(1);
    web.addresses.push("fd00::2/64".parse::<ipnet::IpNet>().map(prefix).unwrap());
    let compare = |ip: &str| {
        let request = AttachRequest { ip: vec![ip.parse().unwrap()], ..request() };
        compare(&request, Subject::Container, &web)
    };
    assert!(compare("10.32.0.2").is_ok() && compare("fd00::2").is_ok());
    assert!(compare("10.32.0.3").is_err() && compare("fd00::3").is_err());
}

fn prefix(net: ipnet::IpNet) -> engine::types::IpPrefix {
    engine::types::IpPrefix { addr: net.addr(), len: net.prefix_len() }
}

#[test]
fn a_mac_address_is_local_and_depends_on_host_and_port() {
    let mac = mac_of(PeerId([1; 16]), PortId([2; 8]));
    assert!(mac.0[0] & 0x03 == 0x02);
    assert_eq!(mac, mac_of(PeerId([1; 16]), PortId([2; 8])));
    assert_ne!(mac, mac_of(PeerId([1; 16]), PortId([3; 8])));
    assert_ne!(mac, mac_of(PeerId([2; 16]), PortId([2; 8])));
}

#[test]
fn a_refusal_keeps_its_code_and_names_the_holder() {
    let error = AllocError::InUse { addr: "10.32.0.2".parse().unwrap(), holder: "db on node02".into() };
    let failure = refused(&error);
    assert_eq!(failure.code, "address_in_use");
    assert!(failure.message.contains("db on node02") && failure.hint.is_some());
}
