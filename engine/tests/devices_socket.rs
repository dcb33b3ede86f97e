//! The UDP socket group on a real kernel, between two namespaces.

#![cfg(feature = "io")]
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests use clocks, threads and plain sockets"
)]

mod devices_support;

use std::collections::BTreeSet;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr, UdpSocket};

use devices_support::{eventually, namespace, sysctl, wired_pair};
use engine::io::ethtool;
use engine::io::netlink::{Netlink, VxlanSpec};
use engine::io::netns::Netns;
use engine::io::socket::{self, DataSocket, Holder, RecvBatch, SocketError, SocketGroup, Transmit};
use engine::types::Vni;
use engine::wire::sealed::{INITIATION, SEALED};

const PORT: u16 = 4789;

fn bind(netns: &Netns, workers: usize) -> SocketGroup {
    netns.run(|| socket::bind(None, PORT, workers)).unwrap().unwrap()
}

fn addr(ip: &str) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), PORT)
}

/// Reads until `count` datagrams are there: each with its sender and the index of the read that brought it.
fn receive(socket: &DataSocket, count: usize) -> Vec<(SocketAddr, Vec<u8>, usize)> {
    let mut batch = RecvBatch::new(8);
    let (mut datagrams, mut reads) = (Vec::new(), 0);
    eventually("datagrams arrive", || {
        if socket.recv_batch(&mut batch).is_ok() {
            for received in batch.received() {
                for range in received.datagrams() {
                    let bytes = batch.arena()[range.start as usize..range.end as usize].to_vec();
                    datagrams.push((received.from, bytes, reads));
                }
                reads += 1;
            }
        }
        datagrams.len() >= count
    });
    datagrams
}

/// Everything that waits, without waiting for more.
fn drain(socket: &DataSocket) -> Vec<Vec<u8>> {
    let mut buffer = vec![0; socket::SLOT_LEN];
    std::iter::from_fn(|| {
        let received = socket.recv(&mut buffer).ok()?;
        Some(buffer[..received.len as usize].to_vec())
    })
    .collect()
}

/// A VXLAN datagram around a UDP packet of the flow with this source port.
fn vxlan(ipv6: bool, source_port: u16) -> Vec<u8> {
    let mut datagram = vec![0x08, 0, 0, 0, 0, 0, 1, 0];
    datagram.extend([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
    if ipv6 {
        datagram.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, 17, 64]);
        datagram.extend([0xfd; 32]);
    } else {
        datagram.extend([0x08, 0x00, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 32, 0, 2, 10, 32, 0, 3]);
    }
    datagram.extend(source_port.to_be_bytes());
    datagram.extend([0, 53, 0, 8, 0, 0]);
    datagram
}

#[test]
fn control_datagrams_reach_their_sockets_and_sources_are_spread() {
    let [here, there] = wired_pair();
    let group = bind(&here, 3);
    let open = || -> Vec<UdpSocket> { (0..64).map(|_| UdpSocket::bind("[::]:0").unwrap()).collect() };
    let senders = there.run(open).unwrap();
    let sender = &senders[0];
    let controls: Vec<Vec<u8>> =
        (0..=255u8).filter(|byte| byte & 0x08 == 0 && *byte != SEALED).map(|byte| vec![byte; 40]).collect();
    for datagram in &controls {
        sender.send_to(datagram, "192.0.2.1:4789").unwrap();
    }
    for (number, sender) in (0..).zip(&senders) {
        for to in ["192.0.2.1:4789", "[fd00::1]:4789"] {
            sender.send_to(&vxlan(to.starts_with('['), number), to).unwrap();
            sender.send_to(&vxlan(to.starts_with('['), number + 100), to).unwrap();
        }
    }
    sender.send_to(&[0x08], "192.0.2.1:4789").unwrap();
    sender.send_to(&[SEALED; 40], "192.0.2.1:4789").unwrap();
    let (initiations, controls): (Vec<_>, Vec<_>) =
        controls.into_iter().partition(|datagram| datagram[0] == INITIATION);
    for (socket, sent) in [(&group.control, controls), (&group.initiations, initiations)] {
        let got = receive(socket, sent.len());
        assert_eq!(got.into_iter().map(|(_, bytes, _)| bytes).collect::<Vec<_>>(), sent);
        assert!(drain(socket).is_empty());
    }
    let (mut sources, mut total) = (BTreeSet::new(), 0);
    for worker in &group.workers {
        let mut buffer = vec![0; socket::SLOT_LEN];
        let own: Vec<_> = std::iter::from_fn(|| worker.recv(&mut buffer).ok()).map(|got| got.from).collect();
        assert!(own.len() > 32, "each worker gets its share: {}", own.len());
        total += own.len();
        let own: BTreeSet<_> = own.into_iter().collect();
        assert!(
            sources.is_disjoint(&own),
            "what comes from one port stays with one worker, whatever is inside"
        );
        sources.extend(own);
    }
    assert_eq!((total, sources.len()), (4 * 64 + 2, 2 * 64), "nothing is lost");
}

#[test]
fn one_worker_gets_all_vxlan_and_sealed_frames_and_nothing_else() {
    let [here, there] = wired_pair();
    let group = bind(&here, 1);
    let sender = there.run(|| UdpSocket::bind("[::]:0")).unwrap().unwrap();
    for first in [0x08, 0x00, 0x04, 0x0c, 0xff, 0x01] {
        sender.send_to(&[first; 20], "[fd00::1]:4789").unwrap();
    }
    let got = receive(&group.workers[0], 4);
    assert_eq!(got.iter().map(|(_, bytes, _)| bytes[0]).collect::<Vec<_>>(), [0x08, SEALED, 0x0c, 0xff]);
    assert_eq!(receive(&group.control, 1)[0].1[0], 0);
    assert_eq!(receive(&group.initiations, 1)[0].1[0], INITIATION);
}

#[test]
fn a_large_send_is_cut_by_the_kernel_and_arrives_in_one_read() {
    let [here, there] = wired_pair();
    let (from, to) = (bind(&there, 1), bind(&here, 1));
    let head = [0x08, 0, 0, 0, 0, 0, 1, 0];
    let body: Vec<u8> = (0..1400u32).map(|i| i as u8).collect();
    let mut parts: Vec<IoSlice<'_>> =
        (0..43).flat_map(|_| [IoSlice::new(&head), IoSlice::new(&body)]).collect();
    parts.extend([IoSlice::new(&head), IoSlice::new(&body[..600])]);
    for (to_addr, from_addr) in [("192.0.2.1", "192.0.2.2"), ("fd00::1", "fd00::2")] {
        let sent = from.workers[0].send(addr(to_addr), &parts, Some(1408)).unwrap();
        assert_eq!(sent, 43 * 1408 + 608);
        let got = receive(&to.workers[0], 44);
        assert_eq!(got.len(), 44);
        assert!(got.iter().all(|(_, _, read)| *read == 0), "one read");
        assert!(got.iter().all(|(sender, _, _)| *sender == addr(from_addr)), "{:?}", got[0].0);
        assert!(got[..43].iter().all(|(_, bytes, _)| bytes[..8] == head && bytes[8..] == body));
        assert_eq!(got[43].1.len(), 608);
    }
    assert!(from.workers[0].segmentation());
    let offloads = from.workers[0].offloads();
    assert_eq!((offloads.granted, offloads.refused), (vec!["udp_segment", "udp_gro"], vec![]));
}

#[test]
fn datagrams_that_the_wire_carries_apart_are_joined_or_come_alone() {
    let [here, there] = wired_pair();
    let off: Vec<_> = ethtool::CUTTING.iter().map(|feature| (*feature, false)).collect();
    there.run(|| ethtool::set_features("under0", &off)).unwrap().unwrap();
    let (from, to) = (bind(&there, 1), bind(&here, 1));
    let body: Vec<u8> = (0..40 * 1400u32).map(|i| (i / 1400) as u8 | 0x08).collect();
    for gro in [false, true] {
        here.run(|| ethtool::set_features("under0", &[(ethtool::GRO, gro)])).unwrap().unwrap();
        // The first may go to the neighbour cache only; what follows is a burst.
        from.workers[0].send(addr("192.0.2.1"), &[IoSlice::new(&body[..1400])], None).unwrap();
        receive(&to.workers[0], 1);
        from.workers[0].send(addr("192.0.2.1"), &[IoSlice::new(&body)], Some(1400)).unwrap();
        let got = receive(&to.workers[0], 40);
        let reads = got.last().unwrap().2 + 1;
        assert!(if gro { reads < 40 } else { reads == 40 }, "gro {gro}: {reads} reads");
        assert_eq!(got.into_iter().flat_map(|(_, bytes, _)| bytes).collect::<Vec<_>>(), body);
    }
}

#[test]
fn more_segments_than_the_kernel_takes_are_cut_here() {
    let [here, there] = wired_pair();
    let (from, to) = (bind(&there, 1), bind(&here, 1));
    let bytes = vec![0x08; 90_000];
    let parts = [IoSlice::new(&bytes)];
    assert_eq!(from.workers[0].send(addr("192.0.2.1"), &parts, Some(450)).unwrap(), 90_000);
    assert_eq!(receive(&to.workers[0], 200).len(), 200);
    assert!(from.workers[0].segmentation(), "the kernel was not asked, so it has not refused");
}

#[test]
fn a_batch_mixes_destinations_sizes_and_failures() {
    let [here, there] = wired_pair();
    let (from, to) = (bind(&there, 1), bind(&here, 1));
    let (small, large, run) = (vec![0x08; 60], vec![0x08; 2000], vec![0x08; 4000]);
    let parts = [[IoSlice::new(&small)], [IoSlice::new(&large)], [IoSlice::new(&run)]];
    let transmit =
        |to: &str, which: usize, size| Transmit { to: addr(to), parts: &parts[which], segment_size: size };
    let batch = [
        transmit("192.0.2.1", 0, None),
        transmit("192.0.2.1", 1, None), // longer than the wire takes, and must not be fragmented
        transmit("fd00::1", 2, Some(1300)),
        transmit("198.51.100.1", 0, None), // no route
        transmit("fd00::1", 0, Some(1300)),
    ];
    let mut failures = Vec::new();
    from.workers[0].send_batch(&batch, |index, e| failures.push((index, e.raw_os_error())));
    assert_eq!(failures, [(1, Some(libc::EMSGSIZE)), (3, Some(libc::ENETUNREACH))]);
    let lengths: Vec<_> = receive(&to.workers[0], 6).iter().map(|(_, bytes, _)| bytes.len()).collect();
    assert_eq!(lengths, [60, 1300, 1300, 1300, 100, 60]);
}

#[test]
fn an_empty_datagram_is_one_datagram() {
    let [here, there] = wired_pair();
    let group = bind(&here, 2);
    let sender = there.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
    sender.send_to(&[], "192.0.2.1:4789").unwrap();
    let got = receive(&group.workers[0], 1);
    assert_eq!(got[0].1, b"");
    let mut batch = RecvBatch::new(8);
    let e = group.control.recv_batch(&mut batch).unwrap_err();
    assert_eq!(e.kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn the_holder_of_the_port_is_named() {
    let netns = namespace();
    let held = netns.run(|| UdpSocket::bind(("127.0.0.1", PORT))).unwrap().unwrap();
    let e = netns.run(|| socket::bind(None, PORT, 1)).unwrap().unwrap_err();
    let SocketError::InUse { holder: Some(Holder::Process { pid, command }), .. } = &e else { panic!("{e}") };
    assert_eq!(*pid, std::process::id());
    assert!(e.to_string().contains(&format!("in use by process {pid} ({command})")), "{e}");
    drop(held);
    // A group of our own is found out too, although its sockets share their port.
    let group = bind(&netns, 2);
    let e = netns.run(|| socket::bind(None, PORT, 2)).unwrap().unwrap_err();
    assert!(matches!(e, SocketError::InUse { holder: Some(Holder::Process { .. }), .. }), "{e}");
    drop(group);
    bind(&netns, 2);
    assert_eq!(netns.run(|| socket::port_holder(PORT)).unwrap(), None);
}

#[test]
fn a_kernel_vxlan_device_is_seen_as_holder() {
    let netns = namespace();
    let netlink = Netlink::open_in(&netns).unwrap();
    let remote = "192.0.2.9".parse().unwrap();
    netlink.add_vxlan(&VxlanSpec { name: "vx0", vni: Vni::MESH, remote, local: None, port: PORT }).unwrap();
    netlink.set_up(netlink.link("vx0").unwrap().unwrap().index).unwrap();
    let e = netns.run(|| socket::bind(None, PORT, 1)).unwrap().unwrap_err();
    assert!(matches!(e, SocketError::InUse { holder: Some(Holder::Kernel), .. }), "{e}");
}

#[test]
fn one_address_can_be_listened_on() {
    let [here, there] = wired_pair();
    let listen = Some("192.0.2.1".parse().unwrap());
    let group = here.run(|| socket::bind(listen, PORT, 1)).unwrap().unwrap();
    let sender = there.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
    sender.send_to(&[0x08; 9], "192.0.2.1:4789").unwrap();
    let got = receive(&group.workers[0], 1);
    assert_eq!(got[0].0, SocketAddr::new("192.0.2.2".parse().unwrap(), sender.local_addr().unwrap().port()));
    assert_eq!(group.workers[0].local_addr().unwrap(), addr("192.0.2.1"));
    let e = group.workers[0].send(addr("fd00::2"), &[IoSlice::new(&[8])], None).unwrap_err();
    assert_eq!(e.raw_os_error(), Some(libc::EAFNOSUPPORT));
    let foreign: IpAddr = "203.0.113.1".parse().unwrap();
    let e = here.run(|| socket::bind(Some(foreign), PORT + 1, 1)).unwrap().unwrap_err();
    assert!(matches!(e, SocketError::NotLocal { ip } if ip == foreign), "{e}");
}

#[test]
fn without_ipv6_the_group_still_works() {
    let [here, there] = wired_pair();
    sysctl(&here, "net/ipv6/conf/all/disable_ipv6", "1");
    let group = bind(&here, 2);
    let sender = there.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
    sender.send_to(&[0x00; 9], "192.0.2.1:4789").unwrap();
    let got = receive(&group.control, 1);
    let back = [IoSlice::new(b"answer")];
    group.control.send(got[0].0, &back, None).unwrap();
    let mut buffer = [0; 16];
    let (len, from) = sender.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..len], from), (b"answer".as_slice(), addr("192.0.2.1")));
}
