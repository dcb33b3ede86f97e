//! The micro-benchmarks: one list for the clock (criterion) and for the instruction counter (callgrind).

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use engine::counters::DropReason;
use engine::fdb::{Learned, MAX_LEARNED};
use engine::offload::cut::{Outbox, cut};
use engine::packet::MAX_FRAMES;
use engine::session::key::{LaneKeys, SplitKey};
use engine::session::mac::MacKeys;
use engine::session::noise::StaticKey;
use engine::session::sessions::Sessions;
use engine::session::suite::Suite;
use engine::switch::{Classes, Port};
use engine::types::{MacAddr, Vni};
use engine::wire::checksum::Sum;
use engine::wire::ether::Ether;
use engine::wire::ipv4::Ipv4;
use engine::wire::sealed::{Header, INITIATION, OVERHEAD};
use engine::wire::udp::Udp;
use engine::wire::virtio::VnetHeader;
use engine::wire::{ether, vxlan};

use crate::frames::{Stations, super_frame, udp_frame};
use crate::world::{Inward, MTU, Outward, RoundTrip, World, batch_of};

/// Segments of the super-frames that are cut and joined: what fits 64 KiB.
pub const SEGMENTS: usize = 45;

/// Something to be measured.
pub struct Case {
    /// Its name: the module, and what is done.
    pub name: &'static str,
    /// Sets it up.
    pub make: fn() -> Result<Work>,
}

/// One iteration.
pub type Work = Box<dyn FnMut()>;

/// All of them.
pub const ALL: &[Case] = &[
    Case { name: "wire: headers of a UDP frame", make: headers },
    Case { name: "wire: VXLAN and virtio-net headers", make: outer_headers },
    Case { name: "fdb: look up a pinned MAC of 1000", make: pinned },
    Case { name: "fdb: look up a learned MAC of 4096", make: looked_up },
    Case { name: "fdb: learn a known MAC of 4096", make: learned_again },
    Case { name: "checksum: 64 B", make: || checksum(64) },
    Case { name: "checksum: 1410 B", make: || checksum(1410) },
    Case { name: "checksum: 65000 B", make: || checksum(65_000) },
    Case { name: "fence: judge a UDP frame", make: judge },
    Case { name: "switch: classify 64 frames of a flow", make: classify },
    Case { name: "offload: cut 45 TCP segments", make: cut_large },
    Case { name: "offload: pass 64 small frames", make: cut_small },
    Case { name: "offload: join 45 TCP segments", make: join_large },
    Case { name: "offload: join 44 TCP segments of two flows in turns", make: join_two },
    Case { name: "path: a small frame out and one in", make: round_trip },
    Case { name: WRONG_MAC1, make: wrong_mac1 },
    Case { name: "seal: 64 B, aes-256-gcm", make: || seal(Suite::AesGcm, 64) },
    Case { name: "seal: 1400 B, aes-256-gcm", make: || seal(Suite::AesGcm, 1400) },
    Case { name: "seal: 8900 B, aes-256-gcm", make: || seal(Suite::AesGcm, 8900) },
    Case { name: "seal: 64 B, chacha20-poly1305", make: || seal(Suite::ChaChaPoly, 64) },
    Case { name: "seal: 1400 B, chacha20-poly1305", make: || seal(Suite::ChaChaPoly, 1400) },
    Case { name: "seal: 8900 B, chacha20-poly1305", make: || seal(Suite::ChaChaPoly, 8900) },
    Case { name: "open: 64 B, aes-256-gcm", make: || open(Suite::AesGcm, 64) },
    Case { name: "open: 1400 B, aes-256-gcm", make: || open(Suite::AesGcm, 1400) },
    Case { name: "open: 8900 B, aes-256-gcm", make: || open(Suite::AesGcm, 8900) },
    Case { name: "open: 64 B, chacha20-poly1305", make: || open(Suite::ChaChaPoly, 64) },
    Case { name: "open: 1400 B, chacha20-poly1305", make: || open(Suite::ChaChaPoly, 1400) },
    Case { name: "open: 8900 B, chacha20-poly1305", make: || open(Suite::ChaChaPoly, 8900) },
];

/// The case of an initiation for somebody else.
pub const WRONG_MAC1: &str = "session: refuse a wrong MAC1";

/// Lengths of the frames that are sealed and opened, in bytes.
pub const SEALED_SIZES: [usize; 3] = [64, 1400, 8900];

/// The name of the case that does this (`seal` or `open`) with so many bytes.
pub fn sealed_case(what: &str, size: usize, suite: Suite) -> String {
    format!("{what}: {size} B, {}", suite.name())
}

/// The case of this name.
pub fn find(name: &str) -> Option<&'static Case> {
    ALL.iter().find(|case| case.name == name)
}

fn world() -> Result<World> {
    World::new(10, 10)
}

fn headers() -> Result<Work> {
    let frame = udp_frame(&world()?.stations, 64);
    Ok(Box::new(move || {
        let ether = Ether::parse(black_box(&frame));
        let ip = ether.ok().and_then(|ether| Ipv4::parse(ether.payload()));
        let udp = ip.and_then(|ip| Udp::parse(frame.get(ether::LEN + ip.header_len()..)?));
        black_box(udp.map(|udp| udp.checksum()));
    }))
}

fn outer_headers() -> Result<Work> {
    let world = world()?;
    let frame = udp_frame(&world.stations, 64);
    let datagram = [&vxlan::header(Vni::MESH)[..], &frame].concat();
    let (vnet, frame) = super_frame(&world.stations, 2);
    let read = [&vnet.emit()[..], &frame].concat();
    Ok(Box::new(move || {
        black_box(vxlan::parse(black_box(&datagram)).is_ok());
        black_box(VnetHeader::parse(black_box(&read)).is_ok());
    }))
}

fn pinned() -> Result<Work> {
    let world = World::new(500, 500)?;
    let mac = world.stations.macs[1];
    Ok(Box::new(move || {
        let network = world.tables.network(Vni::MESH);
        black_box(network.and_then(|network| network.pins().get(black_box(mac))));
    }))
}

/// A full table.
fn learned() -> Result<(Learned, Port, MacAddr)> {
    let learned = Learned::default();
    let port = Port::Tap(world()?.port);
    let mac = |number: usize| {
        let [a, b, ..] = number.to_le_bytes();
        MacAddr([0x02, 0x20, 0, 0, a, b])
    };
    (0..MAX_LEARNED).for_each(|number| learned.learn(mac(number), port, 0));
    Ok((learned, port, mac(MAX_LEARNED / 2)))
}

fn looked_up() -> Result<Work> {
    let (learned, _, mac) = learned()?;
    Ok(Box::new(move || {
        black_box(learned.get(black_box(mac), 1));
    }))
}

fn learned_again() -> Result<Work> {
    let (learned, port, mac) = learned()?;
    Ok(Box::new(move || learned.learn(black_box(mac), port, 0)))
}

fn checksum(len: usize) -> Result<Work> {
    let bytes = vec![0x5a_u8; len];
    Ok(Box::new(move || {
        black_box(Sum::default().bytes(black_box(&bytes)).checksum());
    }))
}

fn judge() -> Result<Work> {
    let world = world()?;
    let frame = udp_frame(&world.stations, 64);
    ensure!(world.tables.judge(world.port, &frame).is_ok(), "the frame is held");
    Ok(Box::new(move || {
        black_box(world.tables.judge(world.port, black_box(&frame)).is_ok());
    }))
}

fn classify() -> Result<Work> {
    let world = world()?;
    let batch = batch_of(VnetHeader::default(), &udp_frame(&world.stations, 64), MAX_FRAMES)?;
    let (mut switch, mut classes) = (world.switch(), Classes::new());
    let (from, now) = (Port::Tap(world.port), world.epoch);
    Ok(Box::new(move || {
        switch.classify(now, from, Vni::MESH, black_box(&batch), &mut classes);
    }))
}

fn cut_large() -> Result<Work> {
    let world = world()?;
    let (vnet, frame) = super_frame(&world.stations, SEGMENTS);
    let mut outward = Outward::new(&world, vnet, &frame, 1)?;
    ensure!(outward.step() == SEGMENTS, "the super-frame was not cut");
    Ok(Box::new(move || {
        black_box(outward.step());
    }))
}

fn cut_small() -> Result<Work> {
    let world = world()?;
    let frame = udp_frame(&world.stations, 64);
    let mut outward = Outward::new(&world, VnetHeader::default(), &frame, MAX_FRAMES)?;
    ensure!(outward.step() == MAX_FRAMES, "frames were lost");
    Ok(Box::new(move || {
        black_box(outward.step());
    }))
}

fn join_large() -> Result<Work> {
    let world = world()?;
    let (datagrams, stride) = segments(&world.stations.reversed(), SEGMENTS)?;
    join(&world, &datagrams.concat(), stride, 1)
}

/// Two flows that take turns, segment by segment.
fn join_two() -> Result<Work> {
    let world = world()?;
    let one = world.stations.reversed();
    let two = Stations { port: one.port + 1, ..one };
    let (first, stride) = segments(&one, SEGMENTS / 2)?;
    let (second, _) = segments(&two, SEGMENTS / 2)?;
    let turns: Vec<u8> = first.into_iter().zip(second).flat_map(|(a, b)| [a, b].concat()).collect();
    join(&world, &turns, stride, 2)
}

/// What is received is joined to so many super-frames, or it is no measurement.
fn join(world: &World, received: &[u8], stride: usize, supers: usize) -> Result<Work> {
    let mut inward = Inward::new(world, received.to_vec(), stride);
    let joined = inward.step();
    ensure!(joined == supers, "{joined} frames came of segments that make {supers}");
    Ok(Box::new(move || {
        black_box(inward.step());
    }))
}

/// A super-frame as the datagrams that a peer cuts it into, and the length of the first.
fn segments(stations: &Stations, count: usize) -> Result<(Vec<Vec<u8>>, usize)> {
    let (vnet, frame) = super_frame(stations, count);
    let batch = batch_of(vnet, &frame, 1)?;
    let mut outbox = Outbox::new();
    let slot = batch.frames().first().context("an empty batch")?;
    let taken = cut(batch.arena(), slot, Vni::MESH, MTU, &mut outbox);
    ensure!(taken.is_ok() && outbox.datagrams().len() == count, "the super-frame was not cut");
    let datagrams = outbox.datagrams().iter();
    let datagrams: Vec<Vec<u8>> =
        datagrams.map(|datagram| outbox.pieces(datagram, batch.arena()).concat()).collect();
    let stride = datagrams.first().map_or(0, Vec::len);
    Ok((datagrams, stride))
}

fn round_trip() -> Result<Work> {
    let mut round_trip = RoundTrip::new(&world()?)?;
    Ok(Box::new(move || {
        black_box(round_trip.step());
    }))
}

/// An initiation under the key of somebody else, as it is refused before any arithmetic with keys.
fn wrong_mac1() -> Result<Work> {
    let now = Instant::now();
    let mut sessions = Sessions::new(now, StaticKey::new([1; 32]), 1, [2; 32]);
    let datagram = initiation(&STRANGER);
    let from = SocketAddr::from(([198, 18, 0, 1], vxlan::PORT));
    let refused = sessions.handle_datagram(now, from, &datagram);
    ensure!(refused == Err(DropReason::BadHandshake), "the initiation was taken");
    Ok(Box::new(move || {
        black_box(sessions.handle_datagram(now, from, black_box(&datagram)).is_err());
    }))
}

/// A key that nobody has.
pub const STRANGER: [u8; 32] = [3; 32];

/// One whose MAC1 is right for this key, and nothing else, of the usual length.
pub fn initiation(to: &[u8; 32]) -> Vec<u8> {
    let mut datagram = vec![INITIATION, Suite::AesGcm.number(), 0, 0];
    // What comes before the hashes when one pre-shared key is offered: number, Noise message, its payload of three words.
    datagram.resize(8 + 96 + 24, 0x5a);
    MacKeys::of(to).finish(&mut datagram, None);
    datagram
}

/// Keys of any sender.
fn lane_keys(suite: Suite) -> LaneKeys {
    LaneKeys::new(suite, &SplitKey::new([7; 32]))
}

/// From two pieces into a datagram, as a worker does: a head of its own, and the rest where it was read.
fn seal(suite: Suite, size: usize) -> Result<Work> {
    let (keys, content, mut counter) = (lane_keys(suite), vec![0x5a; size], 0);
    let mut datagram = vec![0; OVERHEAD + size];
    ensure!(keys.lane(0).is_some(), "no key");
    Ok(Box::new(move || {
        let Some(key) = keys.lane(0) else { return };
        counter += 1;
        let header = Header { lane: 0, receiver: 1, counter };
        let pieces = black_box(&content).split_at(vxlan::LEN).into();
        let sealed = key.seal_into(header, pieces, &mut datagram);
        assert!(black_box(sealed).is_ok(), "what fits is not sealed");
    }))
}

/// The datagram is copied first, since opening changes it.
fn open(suite: Suite, size: usize) -> Result<Work> {
    let (keys, mut content) = (lane_keys(suite), vec![0x5a; size]);
    let header = Header { lane: 0, receiver: 1, counter: 7 };
    let tag = keys.lane(0).context("no key")?.seal(header, &mut content);
    let sealed = [&header.to_bytes()[..], &content, &tag].concat();
    let mut datagram = sealed.clone();
    Ok(Box::new(move || {
        datagram.copy_from_slice(black_box(&sealed));
        let opened = keys.lane(0).is_some_and(|key| key.open(header, &mut datagram).is_ok());
        assert!(black_box(opened), "what was sealed does not open");
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_is_sealed_and_opened_with_both_suites() {
        for (size, suite) in SEALED_SIZES.iter().flat_map(|size| Suite::ALL.map(|suite| (*size, suite))) {
            assert!(["seal", "open"].iter().all(|what| find(&sealed_case(what, size, suite)).is_some()));
        }
    }

    #[test]
    fn every_case_can_be_set_up_and_run() {
        for case in ALL {
            let mut work = (case.make)().unwrap_or_else(|error| panic!("{}: {error:#}", case.name));
            work();
            work();
            assert!(find(case.name).is_some());
        }
    }
}
