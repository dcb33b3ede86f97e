//! The bytes of every message and record as they were first written: they must keep decoding, to the same.
//!
//! `tests/fixtures/*.hex` were written by this program on 2026-11-21, from the values below, with
//! `MESHNET_WRITE_FIXTURES=1`, which writes only files that do not exist. A new version of a kind gets a file
//! of its own; none is ever changed.

#![allow(clippy::unwrap_used, reason = "tests may fail")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use engine::types::{IpPrefix, MacAddr, NetworkId, PeerId, PortId, Vni};
use peering::gossip::{
    Digest, Line, Merge, PARTS, Parts, REVOKED, Range, RangeHash, Record, RecordStore, Slot, Stamp,
    StateHash, Version,
};
use peering::identity::Identity;
use peering::ipam::{Ipam, IpamOutput};
use peering::keyring::Keyring;
use peering::mesh::{AllocRequest, MESH_NETWORK, RequestId};
use peering::proto::{
    Absent, Answer, Ask, ClaimAnswer, ClaimRefusal, ClaimRequest, CloneSeen, Confirm, Confirmed, Hello,
    Member, Members, Message, Purpose, Release, Run, SpaceAnswer, SpaceRequest, Summary, Told, UnitTable,
    Vacant,
};
use peering::records::{
    Body, Cause, ClusterId, Encryption, EndpointRecord, Given, HostRecord, NameRecord, NetworkRecord, Phase,
    RemovalRecord, RotationRecord, ServiceRecord, SubnetRecord, TargetRecord, VtepRecord,
};
use peering::secret::{Secret, SecretName};

const NETWORK: NetworkId = NetworkId([0x4e; 32]);

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(format!("{name}.hex"))
}

/// The bytes of a fixture, written first if that is asked for and there is no file.
fn fixture(name: &str, bytes: &[u8]) -> Vec<u8> {
    let path = path(name);
    if !path.exists() && std::env::var_os("MESHNET_WRITE_FIXTURES").is_some() {
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let lines: Vec<&str> =
            digits.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        fs::write(&path, lines.join("\n") + "\n").unwrap();
    }
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pairs = digits.chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

fn runs() -> Vec<Run> {
    let (cluster, owner) = (ClusterId([0xc1; 16]), PeerId([0xa1; 16]));
    let other = PeerId([0xa2; 16]);
    vec![
        Run { first: 0, last: 2047, cluster, epoch: 1, owner },
        Run { first: 2048, last: 4095, cluster, epoch: 300, owner: other },
    ]
}

fn messages() -> Vec<(&'static str, Message)> {
    let table = UnitTable { network: NETWORK, range: "10.32.0.0/12".parse().unwrap(), runs: runs() };
    let line = Line { slot: Slot([7; 16]), stamp: Stamp { major: 3, minor: 1 << 40, tie: [8; 16] } };
    let digest = Digest { first: Slot([0; 16]), last: Slot([0xff; 16]), lines: vec![line] };
    let answer = Answer {
        round: 77,
        cluster: None,
        closure: vec![PeerId([1; 16]), PeerId([2; 16])],
        unresolved: vec!["node03".to_owned()],
        waiting_for: vec!["node04".to_owned()],
    };
    let upto = Version { incarnation: 7, sequence: 1 << 40 };
    let mut hashes = [RangeHash::default(); PARTS];
    hashes[3] = [0x33; 16];
    let hello = Hello {
        min_version: 1,
        max_version: 1,
        cluster: Some(ClusterId([0xc1; 16])),
        cedes: true,
        boot_nonce: u64::MAX,
        nickname: "node01".to_owned(),
        purpose: Purpose::Chosen,
        standing_ms: 86_400_000,
    };
    let member = Member { peer: PeerId([1; 16]), bump: 3 << 16, denials: 2, state: 1 };
    let members = Members { hash: u64::MAX, told: Told::All, members: vec![member] };
    let claim =
        |result| Message::ClaimAnswer(ClaimAnswer { id: 5, network: NETWORK, port: PortId([6; 8]), result });
    let request = ClaimRequest {
        id: 5,
        network: NETWORK,
        subnet: subnet(),
        addr: Some("10.32.0.9".parse().unwrap()),
        port: PortId([6; 8]),
        holder: "web".to_owned(),
    };
    vec![
        ("message-1-hello-v1", Message::Hello(hello)),
        (
            "message-2-summary-v1",
            Message::Summary(Summary { records: StateHash([1; 32]), units: StateHash([2; 32]) }),
        ),
        ("message-3-digest-v1", Message::Digest(digest)),
        ("message-4-pull-v1", Message::Pull(vec![Slot([7; 16]), Slot([9; 16])])),
        ("message-5-push-v1", Message::Push(vec![host_record()])),
        ("message-6-records-v1", Message::Records(vec![host_record(), host_record()])),
        ("message-7-units-v1", Message::Units(table.clone())),
        ("message-8-ask-v1", Message::Ask(Ask { round: 77, need: true })),
        ("message-9-answer-v1", Message::Answer(answer)),
        (
            "message-10-space-request-v1",
            Message::SpaceRequest(SpaceRequest {
                id: 1 << 60,
                network: NETWORK,
                subnet: subnet(),
                wanted: 682,
                free: 3,
            }),
        ),
        (
            "message-11-space-answer-v1",
            Message::SpaceAnswer(SpaceAnswer { id: 1 << 60, granted: table, free: 9 }),
        ),
        ("message-12-claim-request-v1", Message::ClaimRequest(request.clone())),
        ("message-12-claim-request-any-v1", Message::ClaimRequest(ClaimRequest { addr: None, ..request })),
        ("message-13-claim-granted-v1", claim(Ok("10.32.0.9".parse().unwrap()))),
        ("message-13-claim-in-use-v1", claim(Err(ClaimRefusal::InUse { holder: "db".to_owned() }))),
        ("message-13-claim-not-owner-v1", claim(Err(ClaimRefusal::NotOwner))),
        ("message-13-claim-full-v1", claim(Err(ClaimRefusal::Full))),
        (
            "message-13-claim-store-failed-v1",
            claim(Err(ClaimRefusal::StoreFailed { reason: "no space left".to_owned() })),
        ),
        ("message-14-release-v1", Message::Release(Release { network: NETWORK, id: 5 })),
        ("message-15-released-v1", Message::Released(Release { network: NETWORK, id: 5 })),
        ("message-19-leave-v1", Message::Leave),
        ("message-18-absent-v1", Message::Absent(Absent { peers: vec![PeerId([1; 16]), PeerId([2; 16])] })),
        (
            "message-21-clone-seen-v1",
            Message::CloneSeen(CloneSeen { addr: "192.0.2.7:6783".parse().unwrap() }),
        ),
        ("message-20-members-v1", Message::Members(members)),
        ("message-16-swim-v1", Message::Swim(vec![1, 2, 3])),
        (
            "message-17-ranges-v1",
            Message::Ranges(vec![Parts { range: Range { depth: 2, prefix: 0xa7 }, hashes }]),
        ),
        ("message-24-confirm-v1", Message::Confirm(Confirm { upto, holding: StateHash([3; 32]) })),
        ("message-25-confirmed-v1", Message::Confirmed(Confirmed { upto, same: true })),
        ("message-26-secret-request-v1", Message::SecretRequest(SecretName([0x5f; 8]))),
        ("message-27-secret-answer-v1", Message::SecretAnswer(secret())),
        ("message-28-vacant-v1", Message::Vacant(Vacant { peer: PeerId([0x3a; 16]) })),
    ]
}

fn secret() -> Secret {
    Secret::parse(&"5c".repeat(33)).unwrap()
}

fn identity() -> Identity {
    Identity::generate([0x1d; 32]).unwrap()
}

fn host() -> HostRecord {
    HostRecord {
        noise_key: [0x2e; 32],
        nickname: "node01".to_owned(),
        version: "0.1.0".to_owned(),
        data_addrs: vec!["192.0.2.1:4789".parse().unwrap(), "[2001:db8::1]:4789".parse().unwrap()],
        control_addrs: vec!["192.0.2.1:6783".parse().unwrap()],
        suites: vec![1, 2],
        encryption: Encryption::Auto,
        networks: vec![(NETWORK, Vni::MESH)],
        targets: vec![
            TargetRecord { name: "node02".to_owned(), peer: Some(PeerId([2; 16])) },
            TargetRecord { name: "node03:7000".to_owned(), peer: None },
        ],
        trusted: vec!["192.0.2.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
        secrets: vec![SecretName([0x5e; 8])],
    }
}

fn host_record() -> Vec<u8> {
    let me = identity();
    let record = RecordStore::new(me.peer_id()).put_host(&me, &host()).unwrap();
    record.bytes().to_vec()
}

fn endpoint() -> EndpointRecord {
    EndpointRecord {
        port: PortId([6; 8]),
        network: NETWORK,
        name: "web".to_owned(),
        aliases: vec!["www".to_owned(), "app".to_owned()],
        container: "web-1".to_owned(),
        mac: MacAddr([2, 1, 2, 3, 4, 5]),
        addresses: vec![
            IpPrefix { addr: "10.32.0.9".parse().unwrap(), len: 12 },
            IpPrefix { addr: "fd00::9".parse().unwrap(), len: 64 },
        ],
        ifname: "mesh0".to_owned(),
        running: true,
        docker_id: Some("d0c8".repeat(16)),
        claim_version: 300,
        given: Given { explicit: true, cluster: Some(ClusterId([0xc1; 16])), epoch: 300 },
    }
}

fn name() -> NameRecord {
    NameRecord {
        network: NETWORK,
        name: "printer.office".to_owned(),
        addresses: vec!["10.32.0.200".parse().unwrap(), "fd00::200".parse().unwrap()],
        services: vec![ServiceRecord { service: "_ipp._tcp".to_owned(), port: 631 }],
    }
}

fn network() -> NetworkRecord {
    NetworkRecord {
        network: NETWORK,
        name: "front".to_owned(),
        vni: Vni::new(4711).unwrap(),
        vni_given: true,
        subnets: vec![
            SubnetRecord {
                subnet: "10.7.0.0/16".parse().unwrap(),
                range: "10.7.5.0/24".parse().unwrap(),
                gateway: "10.7.5.254".parse().unwrap(),
                aux: vec![("printer".to_owned(), "10.7.5.9".parse().unwrap())],
            },
            SubnetRecord::whole("fd00:7::/64".parse().unwrap()),
        ],
        subnet_chosen: false,
        mtu: 1450,
        reclaim_after: Duration::from_secs(86_400),
        cluster: ClusterId([0xc1; 16]),
        encrypted: true,
        internal: true,
        labels: vec![("tier".to_owned(), "web".to_owned())],
        options: vec![("key".to_owned(), String::new())],
        created_s: 1_795_000_000,
    }
}

fn subnet() -> ipnet::IpNet {
    "10.32.0.0/12".parse().unwrap()
}

#[test]
fn messages_keep_their_bytes() {
    for (name, message) in messages() {
        let bytes = fixture(name, &message.encode());
        assert_eq!(Message::decode(&bytes).as_ref(), Ok(&message), "{name} is read as it was meant");
        assert_eq!(message.encode(), bytes, "{name} is written as it was");
    }
}

#[test]
fn records_keep_their_bytes() {
    let me = identity();
    let mut store = RecordStore::new(me.peer_id());
    let vtep = VtepRecord { network: NETWORK, addr: "198.51.100.7:8472".parse().unwrap() };
    let removal = RemovalRecord {
        peer: PeerId([0xa7; 16]),
        incarnation: 1 << 33,
        cause: Cause::Forced,
        nickname: "node03".to_owned(),
    };
    let revocation = RemovalRecord {
        peer: PeerId([0xa8; 16]),
        incarnation: REVOKED,
        cause: Cause::Revoked,
        nickname: "node04".to_owned(),
    };
    let rotation = RotationRecord {
        from: SecretName([0x5e; 8]),
        to: SecretName([0x5f; 8]),
        phase: Phase::Prefer,
        leave_behind: true,
        members: vec![PeerId([0xa6; 16]), PeerId([0xa8; 16])],
    };
    let written = [
        ("record-7-rotation-v1", store.put_rotation(&me, &rotation), Body::Rotation(rotation)),
        ("record-1-host-v1", store.put_host(&me, &host()), Body::Host(host())),
        ("record-2-endpoint-v1", store.put_endpoint(&me, &endpoint()), Body::Endpoint(endpoint())),
        ("record-3-vtep-v1", store.put_vtep(&me, &vtep), Body::Vtep(vtep)),
        ("record-4-network-v1", store.put_network(&me, &network()), Body::Network(network())),
        ("record-5-removal-v1", store.put_removal(&me, &removal), Body::Removal(removal)),
        ("record-5-revocation-v1", store.put_removal(&me, &revocation), Body::Removal(revocation)),
        ("record-4-network-gone-v1", store.delete_network(&me, NETWORK), Body::Network(network())),
        (
            "record-2-endpoint-gone-v1",
            store.delete_endpoint(&me, PortId([6; 8])),
            Body::Endpoint(endpoint().gone()),
        ),
    ];
    let floor = Version { incarnation: 1, sequence: 1 };
    store.rewrite(&me);
    let record = store.put_floor(&me, floor).unwrap();
    assert_eq!(record.bytes(), fixture("record-6-floor-v1", record.bytes()));
    assert_eq!(record.floor(), Some(floor));
    let named = ("record-8-name-v1", store.put_name(&me, &name()), Body::Name(name()));
    let mut reader = RecordStore::new(PeerId([0; 16]));
    for (name, written, body) in written.into_iter().chain([named]) {
        let written = written.unwrap();
        let bytes = fixture(name, written.bytes());
        assert_eq!(written.bytes(), bytes, "{name} is written as it was");
        let record = Record::parse(&bytes).unwrap();
        assert!(record.verify(), "{name}");
        assert_eq!(record.body(), &body, "{name} is read as it was meant");
        assert_eq!(record.signer(), me.peer_id());
        assert!(matches!(reader.insert(&bytes), Merge::Accepted { .. }), "{name}");
    }
}

#[test]
fn stored_states_keep_being_read() {
    let me = identity();
    let mut store = RecordStore::new(me.peer_id());
    store.put_host(&me, &host());
    let bytes = fixture("stored-records-v1", &store.save().unwrap());
    assert_eq!(RecordStore::restore(me.peer_id(), &bytes).unwrap().full_hash(), store.full_hash());

    let mut keyring = Keyring::new(Some(Secret::parse(&"5b".repeat(32)).unwrap()));
    keyring.take(secret(), keyring.preferred().unwrap());
    keyring.keep_only(secret().name());
    keyring.take(Secret::parse(&"5d".repeat(64)).unwrap(), secret().name());
    let bytes = fixture("stored-secrets-v1", &keyring.save().unwrap());
    assert_eq!(Keyring::restore(&bytes).as_ref(), Ok(&keyring));
    assert_eq!(*Keyring::restore(&bytes).unwrap().save().unwrap(), bytes);

    let mut ipam = Ipam::new(PeerId([3; 16]), [0; 32]);
    ipam.add_network(MESH_NETWORK, "mesh", &[SubnetRecord::whole(subnet())]).unwrap();
    let now = start();
    let what = AllocRequest {
        port: PortId([6; 8]),
        network: MESH_NETWORK,
        holder: "web".to_owned(),
        wanted: Vec::new(),
        without_ipv6: false,
    };
    ipam.allocate(now, RequestId(1), what.clone());
    let bytes = fixture("stored-addresses-v1", &ipam.save().unwrap());
    let mut ipam = Ipam::restore(PeerId([3; 16]), [0; 32], &bytes).unwrap();
    ipam.allocate(now, RequestId(2), what);
    ipam.write_started();
    ipam.handle_persisted(now, Ok(()));
    let result = Ok(vec![IpPrefix { addr: "10.32.0.2".parse().unwrap(), len: 12 }]);
    assert_eq!(ipam.poll_output(), Some(IpamOutput::Allocated { request: RequestId(2), result }));
}

/// Any moment will do: only differences count.
#[expect(clippy::disallowed_methods, reason = "the time has to begin somewhere")]
fn start() -> std::time::Instant {
    std::time::Instant::now()
}
