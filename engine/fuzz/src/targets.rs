//! One function for each target: any bytes in, no panic, and what must hold holds.

use std::collections::BTreeMap;

use engine::counters::DropReason;
use engine::fence::Fence;
use engine::offload::Intake;
use engine::offload::cut::{Outbox, cut as cut_frame};
use engine::offload::fragment::fragment;
use engine::offload::join::{Coalesce, Joined, Joiner, parts};
use engine::offload::too_big;
use engine::packet::{Batch, Slot};
use engine::session::keeper::{Identity, Keeper};
use engine::session::mac::{MACS_LEN, MacKeys};
use engine::session::noise::StaticKey;
use engine::session::psk::Psk;
use engine::session::sessions::REKEY_AFTER;
use engine::session::suite::Suite;
use engine::tables::RemoteIndex;
use engine::types::{MacAddr, PeerKeys, PortId, Vni};
use engine::wire::arp::Arp;
use engine::wire::checksum::Sum;
use engine::wire::ether::{self, Ether};
use engine::wire::group::Message;
use engine::wire::icmpv6::{self, Icmpv6};
use engine::wire::ipv4::Ipv4;
use engine::wire::ipv6::Ipv6;
use engine::wire::ndp::{self, Solicitation};
use engine::wire::probe::Probe;
use engine::wire::sealed;
use engine::wire::tcp::Tcp;
use engine::wire::udp::Udp;
use engine::wire::virtio::{self, VnetHeader};
use engine::wire::vxlan;

use crate::world::{Burst, World, addr, peer_id};

/// Every header view over the same bytes: what is accepted can be read.
pub fn wire(data: &[u8]) {
    if let Ok(ether) = Ether::parse(data) {
        assert_eq!(ether.payload().len() + ether.payload_offset(), data.len());
    }
    if let Some(ip) = Ipv4::parse(data) {
        assert!(ip.header_len() <= ip.total_len() && ip.total_len() <= data.len());
        let _ = (ip.header_is_intact(), ip.shared(), ip.pseudo_sum(0), ip.is_fragment());
    }
    if let Some(ip) = Ipv6::parse(data) {
        assert!(ip.total_len() <= data.len());
        let _ = (ip.header_len(), ip.shared(), ip.pseudo_sum(0), ip.is_fragment());
    }
    if let Some(tcp) = Tcp::parse(data) {
        assert!(tcp.header_len() <= data.len() && tcp.agrees(&tcp));
    }
    if let Some(arp) = Arp::parse(data) {
        assert!(
            !Arp::parse(&arp.answer(MacAddr::BROADCAST)[14..]).is_some_and(|answer| answer.is_question())
        );
    }
    if let Ok(probe) = Probe::parse(data) {
        assert_eq!(Probe::parse(&probe.emit()), Ok(probe));
        assert!(probe.reply(true).is_none_or(|reply| reply.emit().len() <= data.len()));
    }
    if let Ok((vni, frame)) = vxlan::parse(data) {
        assert_eq!(vxlan::parse(&[&vxlan::header(vni)[..], frame].concat()), Ok((vni, frame)));
    }
    if let Ok(vnet) = VnetHeader::parse(data) {
        assert_eq!(vnet.emit(), data[..virtio::LEN]);
    }
    if let Ok(header) = sealed::Header::parse(data) {
        assert_eq!(header.to_bytes(), data[..sealed::HEADER_LEN]);
        assert!(data.len() >= sealed::OVERHEAD && header.receiver != 0 && header.lane < sealed::LANES);
    }
    let _ = Udp::parse(data);
    neighbours_and_groups(data);
    fenced(data);
}

/// What speaks of neighbours and of multicast groups.
fn neighbours_and_groups(data: &[u8]) {
    let bounded = |message: Option<Message<'_>>| {
        if let Some(Message::Report(changes)) = message {
            assert!(changes.count() <= data.len());
        }
    };
    bounded(Message::igmp(data));
    let Some(message) = Icmpv6::parse(data) else { return };
    bounded(Message::mld(&message));
    if let Some(macs) = ndp::macs(message.kind, message.body) {
        assert!(macs.count() <= data.len());
    }
    if let Some(question) = Solicitation::read(&message) {
        let answer = question.answer(MacAddr::BROADCAST, MacAddr::default());
        let told = Icmpv6::parse(&answer[ether::LEN..]).expect("what is built can be read");
        assert_eq!((told.kind, ndp::target(told.body)), (icmpv6::ADVERTISEMENT, Some(question.target)));
    }
}

/// What passes a fence is in the name of its station.
fn fenced(data: &[u8]) {
    let mac = MacAddr([2, 0, 0, 0, 0, 1]);
    let passes = Fence::new(mac, &crate::world::addrs(mac)).judge(data).is_ok();
    if let (true, Some([_, _, _, _, _, _, source @ .., high, low])) =
        (passes, data.first_chunk::<{ ether::LEN }>())
    {
        assert_eq!(*source, mac.0);
        assert!([ether::IPV4, ether::IPV6, ether::ARP].contains(&u16::from_be_bytes([*high, *low])));
    }
}

/// A datagram of type 1, 2 or 3 for a host that waits for an answer of its peer: as it is, and with the MAC1 that anybody
/// can make. Nothing of it is believed; what goes back is shorter than what came.
#[allow(clippy::disallowed_methods, reason = "it starts at some instant; it is never asked again")]
pub fn handshake(data: &[u8]) {
    let now = std::time::Instant::now();
    let (key, theirs) = (StaticKey::new([1; 32]), StaticKey::new([2; 32]));
    let public = key.public();
    let (suites, psks) = (vec![Suite::AesGcm], vec![Psk::open()]);
    let mut keeper =
        Keeper::new(now, Identity { key, start: 1, suites, psks, renew_after: REKEY_AFTER, seed: [3; 32] });
    keeper.set_path(peer_id(1), Some(addr(1)));
    keeper.set_peer(peer_id(1), Some(&PeerKeys { noise: theirs.public(), suites: vec![1, 2, 9, 999] }));
    keeper.want(now, peer_id(1));
    let first = keeper.poll_transmit().map(|transmit| transmit.contents).unwrap_or_default();
    let number: [u8; 4] = first[4..8].try_into().unwrap_or_default();
    // The bytes cannot know by which number the answer has to name the question.
    let mut data = data.to_vec();
    let place = if data.first() == Some(&sealed::COOKIE) { 4..8 } else { 8..12 };
    if let Some(place) = data.get_mut(place).filter(|place| *place == [0xff; 4]) {
        place.copy_from_slice(&number);
    }
    let mut shown = data[..data.len().saturating_sub(MACS_LEN)].to_vec();
    MacKeys::of(&public).finish(&mut shown, None);
    for datagram in [&data, &shown] {
        assert!(keeper.handle_datagram(now, addr(7), datagram).is_err() || datagram[0] == sealed::COOKIE);
        while let Some(transmit) = keeper.poll_transmit() {
            assert!(transmit.contents.len() < datagram.len());
        }
    }
    let mut registry = engine::tables::Registry::new(now);
    assert!(!keeper.drain(&mut registry), "no session comes of it");
}

/// Two hosts with a session; the bytes say what becomes of each datagram that one sends the other. What arrives was sent,
/// and arrives once.
pub fn session(data: &[u8]) {
    let Some((&suite, steps)) = data.split_first() else { return };
    let mut world = World::sealed(2, &[Vni::MESH], Suite::ALL[usize::from(suite & 1)]);
    let mac = |i: usize| MacAddr([2, 0, 0, 0, 0, i as u8]);
    (0..2).for_each(|i| world.attach(i, Vni::MESH, port(i), Some(mac(i))));
    let (mut sent, mut came) = (0_u64, 0);
    for step in steps.chunks_exact(3).take(100) {
        let from = usize::from(step[0] & 1);
        let mut frame = [mac(1 - from).0, mac(from).0].concat();
        frame.extend_from_slice(&[0x12, 0x34]);
        frame.extend_from_slice(&sent.to_be_bytes());
        sent += 1;
        world.write(from, port(from), Vni::MESH, &[(VnetHeader::default(), frame)]);
        let last = world.wire.len().checked_sub(1);
        if let Some(last) = last {
            disturb(&mut world, last, step);
        }
        if step[0] & 0x80 != 0 {
            world.settle();
        }
    }
    world.settle();
    let mut numbers = std::collections::BTreeSet::new();
    for delivered in &world.delivered {
        let number =
            delivered.frame.get(14..22).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
        assert!(number.is_some_and(|number| number < sent && numbers.insert(number)), "{delivered:?}");
        came += 1;
    }
    assert!(came <= sent);
}

/// What a wire, or somebody on it, does to the last datagram.
fn disturb(world: &mut World, last: usize, step: &[u8]) {
    let (at, how) = (usize::from(step[1]), step[2]);
    let burst = world.wire[last].clone();
    match step[0] >> 1 & 0x0f {
        0..4 => {}
        4 => drop(world.wire.remove(last)),
        5 => world.wire.push(burst),
        6 => world.wire.swap(0, last),
        7 | 8 => {
            let len = burst.bytes.len().max(1);
            if let Some(byte) = world.wire[last].bytes.get_mut(at % len) {
                *byte ^= how;
            }
        }
        9 => world.wire[last].bytes.truncate(at),
        10 => world.wire[last].from = addr(usize::from(how & 0x7f)),
        11 => world.wire.push(Burst { from: burst.to, to: burst.from, ..burst }),
        12 => world.advance(std::time::Duration::from_secs(at as u64)),
        13 => {
            let host = usize::from(how & 1);
            world.restart(host, &[Vni::MESH], (Suite::AesGcm, 1 + u64::from(how), Psk::open()));
            let mac = MacAddr([2, 0, 0, 0, 0, host as u8]);
            world.attach(host, Vni::MESH, port(host), Some(mac));
            let other = MacAddr([2, 0, 0, 0, 0, 1 - host as u8]);
            world.attach(1 - host, Vni::MESH, port(1 - host), Some(other));
        }
        _ => drop(world.step()),
    }
}

/// A read from a TAP: MTU (2 bytes), then virtio-net header and frame. What is cut fits the MTU, in fragments if need be.
pub fn cut(data: &[u8]) {
    let Some((mtu, read)) = data.split_first_chunk::<2>() else { return };
    let (mtu, mut batch) = (u16::from_le_bytes(*mtu), Batch::new());
    let room = batch.room();
    let len = read.len().min(room.len());
    room[..len].copy_from_slice(&read[..len]);
    if batch.commit(len).is_err() {
        return;
    }
    let mut out = Outbox::new();
    let slot = &batch.frames()[0];
    let taken = match cut_frame(batch.arena(), slot, Vni::MESH, mtu, &mut out) {
        Err(DropReason::TooBig) => {
            let mut told = [0; too_big::MAX_LEN];
            let gateway = MacAddr::gateway(Vni::MESH);
            let len = too_big::answer(slot.frame(batch.arena()), mtu, gateway, |_| None, &mut told);
            assert!(len.is_none_or(|len| len <= told.len()));
            fragment(batch.arena(), slot, Vni::MESH, mtu, &mut out)
        }
        taken => taken,
    };
    assert_ne!(taken, Ok(Intake::Full), "an empty outbox takes any frame");
    assert_eq!(taken.is_ok(), !out.datagrams().is_empty());
    for datagram in out.datagrams() {
        let bytes = out.pieces(datagram, batch.arena()).concat();
        assert!(bytes.len() <= vxlan::LEN + 14 + usize::from(mtu));
        assert!(vxlan::parse(&bytes).is_ok_and(|(vni, _)| vni == Vni::MESH));
    }
    let covered: usize = out.runs(64, 65_000).map(|run| run.len()).sum();
    assert_eq!(covered, out.datagrams().len());
}

/// A receive: stride (2 bytes), MTU (2 bytes), then the buffer. Nothing is lost and nothing is invented. With the
/// highest bit of the MTU set, checksums are made right first, and what was joined is cut again.
pub fn join(data: &[u8]) {
    let Some((&[a, b, c, d], buffer)) = data.split_first_chunk::<4>() else { return };
    let (stride, mtu) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
    let (honest, mut arena) = (mtu & 0x8000 != 0, buffer.to_vec());
    let split: Vec<_> = parts(&arena, 0..arena.len() as u32, usize::from(stride)).collect();
    let mut frames = vec![];
    let (mut joiner, from) = (Joiner::new(Coalesce { tcp: true, udp: true }), a_remote());
    for part in split {
        let part = part.skip(vxlan::LEN);
        let range = part.frame.start as usize..part.frame.end as usize;
        if honest {
            repair(&mut arena[range.clone()]);
        }
        match joiner.push(&arena, from, Vni::MESH, mtu, part) {
            Ok(Intake::Taken) => frames.push(arena[range].to_vec()),
            Ok(Intake::Full) => break,
            Err(_) => {}
        }
    }
    joiner.finish();
    check_joined(&joiner, frames.len());
    if honest && arena.len() < usize::from(mtu) {
        let again = joiner.joined().iter().flat_map(|joined| cut_again(&joiner, joined, &arena)).collect();
        assert_eq!(by_flow(again), by_flow(frames));
    }
}

fn check_joined(joiner: &Joiner, taken: usize) {
    let segments: usize = joiner.joined().iter().map(|joined| usize::from(joined.segments)).sum();
    assert_eq!(segments, taken);
    for joined in joiner.joined() {
        let bodies: usize = joiner.bodies(joined).iter().map(ExactSizeIterator::len).sum();
        assert_eq!(joined.head.len() + bodies, joined.len as usize);
        let read = [&joined.vnet.emit()[..], &vec![0; joined.len as usize]].concat();
        assert_eq!(VnetHeader::parse(&read), Ok(joined.vnet), "the kernel takes it");
    }
}

fn a_remote() -> RemoteIndex {
    let mut world = World::new(2, &[Vni::MESH]);
    let tables = world.hosts[0].registry.tables();
    tables.source(addr(1).ip(), Vni::MESH).expect("hosts of a world know each other")
}

/// The frames that a joined frame stands for.
fn cut_again(joiner: &Joiner, joined: &Joined, arena: &[u8]) -> Vec<Vec<u8>> {
    let mut frame = joiner.head(joined).to_vec();
    for body in joiner.bodies(joined) {
        frame.extend_from_slice(&arena[body.start as usize..body.end as usize]);
    }
    if !joined.vnet.is_super() {
        return vec![frame];
    }
    let mut out = Outbox::new();
    let slot = Slot { vnet: joined.vnet, start: 0, end: frame.len() as u32 };
    assert_eq!(cut_frame(&frame, &slot, Vni::MESH, u16::MAX, &mut out), Ok(Intake::Taken));
    out.datagrams()
        .iter()
        .map(|datagram| out.pieces(datagram, &frame).concat()[vxlan::LEN..].to_vec())
        .collect()
}

/// Where a frame's IP packet and its transport are, and what the transport is.
struct Places {
    l3: usize,
    l4: usize,
    end: usize,
    protocol: u8,
    v6: bool,
}

fn places(frame: &[u8]) -> Option<Places> {
    let ether = Ether::parse(frame).ok()?;
    let l3 = ether.payload_offset();
    let (header, total, protocol, v6) = match ether.ethertype() {
        0x0800 => {
            let ip = Ipv4::parse(ether.payload()).filter(|ip| !ip.is_fragment())?;
            (ip.header_len(), ip.total_len(), ip.protocol(), false)
        }
        0x86dd => {
            let ip = Ipv6::parse(ether.payload())?;
            (ip.header_len(), ip.total_len(), ip.protocol(), true)
        }
        _ => return None,
    };
    let least = match protocol {
        6 => 20,
        17 => 8,
        _ => return None,
    };
    (total >= header + least).then_some(Places { l3, l4: l3 + header, end: l3 + total, protocol, v6 })
}

/// Makes the checksums of a frame right.
fn repair(frame: &mut [u8]) {
    let Some(at) = places(frame) else { return };
    let addresses = if at.v6 { at.l3 + 8..at.l3 + 40 } else { at.l3 + 12..at.l3 + 20 };
    let pseudo =
        Sum::default().bytes(&frame[addresses]).word(u16::from(at.protocol)).word((at.end - at.l4) as u16);
    let field = at.l4 + if at.protocol == 6 { 16 } else { 6 };
    frame[field..field + 2].fill(0);
    let sum = pseudo.bytes(&frame[at.l4..at.end]).nonzero_checksum();
    frame[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    if !at.v6 {
        frame[at.l3 + 10..at.l3 + 12].fill(0);
        let sum = Sum::default().bytes(&frame[at.l3..at.l4]).checksum();
        frame[at.l3 + 10..at.l3 + 12].copy_from_slice(&sum.to_be_bytes());
    }
}

/// The frames of each flow in order, without what may change on the way: padding, and the identification of packets
/// that are never cut.
fn by_flow(frames: Vec<Vec<u8>>) -> BTreeMap<Vec<u8>, Vec<Vec<u8>>> {
    let mut flows = BTreeMap::<_, Vec<_>>::new();
    for mut frame in frames {
        let Some(at) = places(&frame) else {
            flows.entry(vec![]).or_default().push(frame);
            continue;
        };
        if !at.v6 && frame[at.l3 + 6] & 0x40 != 0 {
            frame[at.l3 + 4..at.l3 + 6].fill(0);
            frame[at.l3 + 10..at.l3 + 12].fill(0);
        }
        frame.truncate(at.end);
        let addresses = if at.v6 { at.l3 + 8..at.l3 + 40 } else { at.l3 + 12..at.l3 + 20 };
        let key = [&frame[..at.l3], &frame[addresses], &frame[at.l4..at.l4 + 4], &[at.protocol]].concat();
        flows.entry(key).or_default().push(frame);
    }
    flows
}

/// Two hosts, two networks, four ports; the bytes say who writes what, and what comes from outside.
pub fn world(data: &[u8]) {
    let vnis = [Vni::MESH, Vni::new(7).unwrap_or(Vni::MESH)];
    let mut world = World::new(2, &vnis);
    for (i, vni) in [(0, vnis[0]), (1, vnis[0]), (2, vnis[1]), (3, vnis[1])] {
        let mac = MacAddr([2, 0, 0, 0, 0, i as u8]);
        world.attach(i % 2, vni, port(i), (i < 3).then_some(mac));
    }
    let mut rest = data;
    while let Some((&[what, len], after)) = rest.split_first_chunk::<2>() {
        let (bytes, after) = after.split_at(after.len().min(usize::from(len)));
        rest = after;
        act(&mut world, what, bytes);
    }
    world.settle();
    for delivered in &world.delivered {
        let on = (0..4).find(|&i| port(i) == delivered.port).map(|i| i % 2);
        assert_eq!(on, Some(delivered.host));
    }
}

fn port(i: usize) -> PortId {
    PortId([i as u8; 8])
}

fn act(world: &mut World, what: u8, bytes: &[u8]) {
    let i = usize::from(what >> 4) % 4;
    match what & 0x0f {
        0..8 => {
            let vni = if i < 2 { Vni::MESH } else { Vni::new(7).unwrap_or(Vni::MESH) };
            let Some((header, frame)) = bytes.split_first_chunk::<{ virtio::LEN }>() else { return };
            // The low bits repeat the frame's last byte: super-frames out of few bytes.
            let fill = frame.last().copied().unwrap_or_default();
            let mut frame = frame.to_vec();
            frame.resize(frame.len() + usize::from(what & 0x07) * 4000, fill);
            let read = [&header[..], &frame].concat();
            let Ok(vnet) = VnetHeader::parse(&read) else { return };
            world.write(i % 2, port(i), vni, &[(vnet, frame)]);
        }
        8..12 => {
            let stride = usize::from(what & 0x03) * 30;
            world.receive(&Burst { from: addr(1 - i % 2), to: addr(i % 2), stride, bytes: bytes.to_vec() });
        }
        12 => world.hosts[i % 2].registry.set_path(peer_id(1 - i % 2), (i < 2).then_some(addr(1 - i % 2))),
        13 => world.hosts[i % 2].registry.remove_port(port(i)),
        14 => world.advance(std::time::Duration::from_secs(u64::from(what))),
        _ => drop(world.step()),
    }
}
