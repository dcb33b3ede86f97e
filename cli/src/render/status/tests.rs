use super::*;
use crate::shape::{
    Conservation, ControlPort, ControlSocket, DnsForwarded, DnsName, DnsStatus, NetworkStatus, Offload, Path,
    Port, Sealing, Unclaimed, Worker,
};

fn peer(nickname: &str, state: PeerState, path: Option<Path>) -> Peer {
    Peer {
        peer_id: "0a".repeat(16),
        nickname: nickname.into(),
        address: Some("192.0.2.2:6783".parse().unwrap()),
        state,
        path,
        reason: None,
        agreement: None,
        trust: None,
    }
}

pub(crate) fn example() -> Status {
    let path = Path { address: "192.0.2.2:4789".parse().unwrap(), kind: "plain".into(), mtu: 1450 };
    let target = TargetStatus {
        target: "node02".into(),
        peer_id: Some("0a".repeat(16)),
        state: TargetState::Established,
        reason: None,
        next_try_s: None,
    };
    let waiting = TargetStatus {
        target: "node09".into(),
        peer_id: None,
        state: TargetState::Waiting,
        reason: Some("no such name".into()),
        next_try_s: Some(1.25),
    };
    let owner = OwnerStatus {
        peer_id: "0b".repeat(16),
        nickname: "node01".into(),
        size: 1_048_576,
        used: 1,
        state: PeerState::Alive,
    };
    Status {
        version: "0.1.0".into(),
        peer_id: "0b".repeat(16),
        nickname: "node01".into(),
        cluster_id: Some("c1".into()),
        state_hash: "5a".into(),
        encryption: "off".into(),
        ready: true,
        peers: vec![peer("node02", PeerState::Alive, Some(path)), peer("node03", PeerState::Down, None)],
        connections: vec![target.clone()],
        targets: vec![target, waiting],
        ipam: vec![IpamStatus {
            network: "mesh".into(),
            range: "10.32.0.0/12".into(),
            state: IpamState::Ready,
            waiting_for: vec![],
            owned: 1_048_576,
            used: 1,
            free: 1_048_572,
            owners: vec![owner],
        }],
        rotation: None,
        dns: Some(DnsStatus {
            domain: "mesh.internal".into(),
            ttl_s: 5,
            upstreams: vec!["192.0.2.53".parse().unwrap()],
            forwarded: DnsForwarded { answered: 7, from_cache: 2, ..DnsForwarded::default() },
            names: vec![DnsName {
                network: "mesh".into(),
                name: "web".into(),
                aliases: vec!["app".into()],
                addresses: vec!["10.32.0.2".parse().unwrap()],
                services: vec![("_http._tcp".into(), 80)],
                peer_id: "0b".repeat(16),
                suspected: true,
            }],
        }),
        dataplane: Dataplane {
            control: ControlSocket {
                socket_buffer_bytes: 425_984,
                kernel_drops: 3,
                ..ControlSocket::default()
            },
            workers: vec![Worker { port_frames_in: 3, port_bytes_in: 300, ..Worker::default() }],
            ports: vec![Port {
                port: "01".repeat(8),
                container: "web".into(),
                network: "mesh".into(),
                ifname: "mesh0".into(),
                state: "running".into(),
                rate_bits_per_second: None,
                passing: None,
                no_spoof_check: false,
                frames_in: 3,
                bytes_in: 300,
                batches_in: 2,
                mean_batch_in: Some(1.5),
                segments_in: 40,
                super_frames_in: 1,
                drops: [("storm_limit".to_owned(), 5)].into(),
                queue_length: Some(500),
                kernel_drops_in: Some(7),
                kernel_drops_out: Some(0),
                ..Port::default()
            }],
            drops: [("storm_limit".to_owned(), 5), ("unknown_source".to_owned(), 2)].into(),
            conservation: Conservation { taken: 40, drops: 41, difference: -1, ..Conservation::default() },
            gateway: [("questions".to_owned(), 9), ("restarts".to_owned(), 0)].into(),
            offloads: vec![Offload { name: "uso".into(), granted: false, reason: Some("EINVAL".into()) }],
            unclaimed: vec![Unclaimed { port: "02".repeat(8), ifname: "mesh0".into(), netns: 4_026_532_000 }],
        },
        control_port: ControlPort {
            received: 9,
            foreign: 1,
            refused: [("wrong_secret".to_owned(), 3)].into(),
        },
        open: true,
        sealing: Sealing::default(),
        networks: vec![NetworkStatus {
            network: "mesh".into(),
            network_id: "0c".repeat(32),
            vni: 1,
            mtu: 1450,
            encrypted: false,
            used: true,
        }],
        warnings: vec![],
        events: vec![EventStatus {
            kind: "founded".into(),
            message: "a cluster was founded".into(),
            age_s: 3.7,
        }],
    }
}

#[test]
fn the_overview_shows_the_addresses_of_networks_that_are_used_here() {
    let mut status = example();
    let elsewhere = NetworkStatus { network: "blue".into(), used: false, ..status.networks[0].clone() };
    status.networks.push(elsewhere);
    status.ipam.push(IpamStatus { network: "blue".into(), ..status.ipam[0].clone() });
    let text = whole(&status);
    assert!(text.contains("Networks: 2 (1 used here)") && !text.contains("Network: blue"), "{text}");
    assert!(ipam(&status.ipam).contains("Network: blue"));
}

#[test]
fn the_overview_is_one_block_per_service() {
    let expected = format!(
        "
        Version: 0.1.0
           Host: {} (node01)
        Cluster: c1
          State: 5a
         Access: open: there is no secret, and anyone who can reach the control port may join
     Encryption: off (what containers send each other travels in clear)
          Ready: yes
       Networks: 1 (1 used here)
        Targets: 2 (1 established, 1 waiting)
    Connections: 1 (1 established)
          Peers: 2 (1 alive, 1 down)
   Control port: 9 datagrams, 1 of them foreign; 3 hosts refused

        Service: ipam
        Network: mesh
         Status: ready
          Range: 10.32.0.0/12
      Addresses: 1048576 owned, 1 used, 1048572 free

        Service: dns
         Domain: mesh.internal
            TTL: 5 s
       Upstream: 192.0.2.53
      Forwarded: 7 answered, 2 of them from the 0 answers that are kept; 0 failed, 0 refused; 0 asked
          Names: 1

        Service: dataplane
        Workers: 1
          Ports: 1 (1 running)
        Dropped: 7 segments
     No offload: uso
      Unclaimed: 1 interfaces, see `meshnet status dataplane`

          Event: 3 s ago, founded: a cluster was founded

",
        "0b".repeat(16)
    );
    assert_eq!(whole(&example()), expected);
}

#[test]
fn an_alive_host_without_a_path_is_an_alarm() {
    let mut status = example();
    status.peers[0].path = None;
    status.peers[0].reason = Some("no answer from 192.0.2.2:4789".into());
    assert!(whole(&status).contains("Peers: 2 (1 alive, 1 down), 1 without a data path"));
    assert!(peers(&status.peers).contains("no data path: no answer from 192.0.2.2:4789"));
}

#[test]
fn tables_show_what_there_is() {
    let status = example();
    let text = connections(&status.targets);
    assert!(text.lines().nth(2).unwrap().starts_with("node09  waiting      -"), "{text}");
    assert!(text.contains("in 1.2 s") && text.ends_with("no such name\n"), "{text}");
    assert!(ipam(&status.ipam).contains("100.0 %"));
    let text = dataplane(&status.dataplane);
    for cells in [
        "web mesh0 in 3 40 300 2 1.5 1",
        "web mesh0 out 0 0 0 0 - 0",
        "mesh0 running 500 7, 0",
        "5 storm_limit web mesh0: 5",
        "2 unknown_source -",
        "40 0 0 0 0 41 0 0 -1",
        "0 from ports 3 0 300 0 - -",
    ] {
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.lines().any(|line| words(line).ends_with(cells)), "{cells:?} in {text}");
    }
    assert!(
        text.contains("EINVAL") && text.contains("unclaimed: mesh0 in the namespace 4026532000"),
        "{text}"
    );
}

#[test]
fn names_are_shown_with_their_addresses_and_hosts() {
    let text = dns(&example());
    assert!(text.contains("mesh.internal") && text.contains("192.0.2.53"), "{text}");
    assert!(text.contains("app") && text.contains("10.32.0.2"), "{text}");
    assert!(text.contains("suspect") && text.contains("node01"), "{text}");
}

#[test]
fn the_json_has_the_fields_that_were_promised() {
    let json = serde_json::to_value(example()).unwrap();
    let fields = "version peer_id nickname cluster_id state_hash encryption ready peers connections targets ipam dns \
        dataplane events open";
    for field in fields.split_whitespace() {
        assert!(json.get(field).is_some(), "{field}");
    }
    assert_eq!((&json["dns"]["ttl_s"], &json["dns"]["names"][0]["suspected"]), (&5.into(), &true.into()));
    assert_eq!(json["peers"][0]["state"], "alive");
    assert_eq!(json["peers"][0]["path"]["kind"], "plain");
    assert!(json["peers"][1]["path"].is_null());
    assert_eq!(json["targets"][1]["next_try_s"], 1.25);
    assert_eq!(json["ipam"][0]["owners"][0]["size"], 1_048_576);
    assert_eq!(json["dataplane"]["drops"]["unknown_source"], 2);
}
