//! Ports on a real kernel: made, moved, lost, found and opened again.

#![cfg(feature = "io")]
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests use clocks, threads and plain sockets"
)]

mod devices_support;

use std::io::{ErrorKind, IoSlice};
use std::net::UdpSocket;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use devices_support::{Container, eventually, ipv6_is_usable, namespace, prefix, sysctl};
use engine::io::device::{self, Device, DeviceError, Found, GSO_MAX_SIZE, PortSpec, QUEUE_LEN};
use engine::io::netlink::{Link, Netlink, Route};
use engine::io::netns::Netns;
use engine::io::tap::{Tap, TapError, VNET_HEADER_LEN};
use engine::io::watch::Watcher;
use engine::types::{MacAddr, PortId};
use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};

const NEIGHBOUR: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

fn spec(queues: usize) -> PortSpec {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let mut port = [0; 8];
    port[..4].copy_from_slice(&process.to_be_bytes());
    port[4..].copy_from_slice(&number.to_be_bytes());
    PortSpec {
        port: PortId(port),
        mac: MacAddr([2, 0, 0, 0, 0, 2]),
        addresses: vec![prefix("10.32.0.2", 12)],
        mtu: 1450,
        ifname: None,
        queues,
    }
}

/// As the daemon does: in the host's namespace.
fn create(host: &Netns, spec: &PortSpec, netns: &Netns) -> Result<Device, DeviceError> {
    host.run(|| device::create(spec, netns)).unwrap()
}

fn reopen(host: &Netns, spec: &PortSpec, found: &Found) -> Result<Device, DeviceError> {
    host.run(|| device::reopen(spec, found)).unwrap()
}

/// As the daemon does with a port that a former process has only just let go.
fn reopen_soon(host: &Netns, spec: &PortSpec, found: &Found) -> Device {
    let mut device = None;
    eventually("the port is free", || match reopen(host, spec, found) {
        Err(e) if e.is_retryable() => false,
        result => {
            device = Some(result.unwrap());
            true
        }
    });
    device.unwrap()
}

fn found(port: PortId) -> Option<Found> {
    device::find(&[port]).pop()
}

fn link(netns: &Netns, name: &str) -> Option<Link> {
    Netlink::open_in(netns).unwrap().link(name).unwrap()
}

fn names(netns: &Netns) -> Vec<String> {
    Netlink::open_in(netns).unwrap().links().unwrap().into_iter().map(|link| link.name).collect()
}

/// A wire whose end in `watched` vanishes with it, and takes the end in `from` along.
fn canary(from: &Netns, watched: &Netns) {
    Netlink::open_in(from).unwrap().add_veth("canary", "canary", Some(watched)).unwrap();
}

fn is_gone(from: &Netns) -> bool {
    link(from, "canary").is_none()
}

/// The next frame of any queue that `wanted` accepts, without its virtio-net header, and the header.
fn next_frame(device: &Device, wanted: impl Fn(&[u8]) -> bool) -> ([u8; VNET_HEADER_LEN], Vec<u8>) {
    let mut buffer = vec![0; 70_000];
    let mut result = None;
    eventually("a frame comes out", || {
        for queue in &device.queues {
            match queue.read(&mut buffer) {
                Ok(len) => {
                    let (header, frame) = buffer[..len].split_at(VNET_HEADER_LEN);
                    if wanted(frame) {
                        result = Some((header.try_into().unwrap(), frame.to_vec()));
                        return true;
                    }
                }
                Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock, "{e}"),
            }
        }
        false
    });
    result.unwrap()
}

/// An ARP packet about somebody else's address; a new port also announces its own (RFC 5227 section 2.3).
fn is_arp(frame: &[u8]) -> bool {
    frame[12..14] == [8, 6] && frame[28..32] != frame[38..42]
}

/// The payload, if the frame is a UDP packet over IPv4 to port 7000.
fn udp_payload(frame: &[u8]) -> Option<Vec<u8>> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    match (packet.net, packet.transport) {
        (Some(NetSlice::Ipv4(_)), Some(TransportSlice::Udp(udp))) if udp.destination_port() == 7000 => {
            Some(udp.payload().to_vec())
        }
        _ => None,
    }
}

fn write(device: &Device, header: [u8; VNET_HEADER_LEN], frame: &[u8]) {
    let parts = [IoSlice::new(&header), IoSlice::new(&frame[..7]), IoSlice::new(&frame[7..])];
    assert_eq!(device.queues[0].write_vectored(&parts).unwrap(), header.len() + frame.len());
}

/// What the neighbour 10.32.0.3 answers to an ARP request.
fn arp_reply(request: &[u8]) -> Vec<u8> {
    let mut reply = request.to_vec();
    reply[..6].copy_from_slice(&request[6..12]);
    reply[6..12].copy_from_slice(&NEIGHBOUR.0);
    reply[21] = 2;
    reply[22..28].copy_from_slice(&NEIGHBOUR.0);
    reply[28..32].copy_from_slice(&request[38..42]);
    reply[32..42].copy_from_slice(&request[22..32]);
    reply
}

fn datagram_in(payload: &[u8], to_port: u16) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(NEIGHBOUR.0, [2, 0, 0, 0, 0, 2])
        .ipv4([10, 32, 0, 3], [10, 32, 0, 2], 64)
        .udp(7000, to_port);
    let mut frame = Vec::new();
    builder.write(&mut frame, payload).unwrap();
    frame
}

/// Sends a datagram out of the container and one in.
fn frames_flow(device: &Device, container: &Netns) {
    let socket = container.run(|| UdpSocket::bind("10.32.0.2:0")).unwrap().unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket.send_to(b"out", "10.32.0.3:7000").unwrap();
    let out = |frame: &[u8]| is_arp(frame) || udp_payload(frame).is_some();
    let (_, mut frame) = next_frame(device, out);
    if is_arp(&frame) {
        write(device, [0; VNET_HEADER_LEN], &arp_reply(&frame));
        (_, frame) = next_frame(device, |frame| udp_payload(frame).is_some());
    }
    assert_eq!(udp_payload(&frame).unwrap(), b"out");
    assert_eq!(frame[..6], NEIGHBOUR.0);
    write(device, [0; VNET_HEADER_LEN], &datagram_in(b"in", socket.local_addr().unwrap().port()));
    let mut buffer = [0; 16];
    assert_eq!(socket.recv(&mut buffer).unwrap(), 2);
}

/// Sends one super-frame out of the container and one in; the neighbour must be known.
fn super_frames_flow(device: &Device, container: &Netns) {
    let socket = container.run(|| UdpSocket::bind("10.32.0.2:0")).unwrap().unwrap();
    nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::UdpGsoSegment, &1000).unwrap();
    socket.send_to(&[7; 30_000], "10.32.0.3:7000").unwrap();
    let (header, frame) = next_frame(device, |frame| udp_payload(frame).is_some());
    assert_eq!(udp_payload(&frame).unwrap().len(), 30_000);
    assert_eq!((header[0], header[1], u16::from_ne_bytes([header[4], header[5]])), (1, 5, 1000), "UDP_L4");
    // And back, as the kernel wants it: partial checksum, one length for all.
    let port = socket.local_addr().unwrap().port();
    let mut frame = datagram_in(&[9; 3000], port);
    let pseudo: u32 = [0x0a20, 0x0003, 0x0a20, 0x0002, 17, 3008].iter().sum();
    frame[40..42].copy_from_slice(&((pseudo & 0xffff) as u16 + (pseudo >> 16) as u16).to_be_bytes());
    let mut header = [0; VNET_HEADER_LEN];
    (header[0], header[1]) = (1, 5);
    for (at, value) in [(2, 42u16), (4, 1000), (6, 34), (8, 6)] {
        header[at..at + 2].copy_from_slice(&value.to_ne_bytes());
    }
    write(device, header, &frame);
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut buffer = [0; 4000];
    for _ in 0..3 {
        assert_eq!(socket.recv(&mut buffer).unwrap(), 1000);
    }
}

#[test]
fn a_new_port_is_as_it_should_be_and_frames_flow_both_ways() {
    for queues in [1, 3] {
        let (host, container) = (namespace(), namespace());
        let spec = spec(queues);
        let device = create(&host, &spec, &container).unwrap();
        assert_eq!((device.port, device.netns, device.pins_namespace), (spec.port, container.id(), false));
        assert_eq!((device.ifname.as_str(), device.queues.len()), ("mesh0", queues));
        assert_eq!(device.offloads.granted, ["csum", "tso4", "tso6", "uso4", "uso6"]);
        assert_eq!(device.offloads.refused, []);
        let link = link(&container, "mesh0").unwrap();
        assert_eq!(link.alias, Some(format!("meshnet:{}", spec.port)));
        assert_eq!((link.mac, link.mtu, link.txqueuelen), (Some(spec.mac), 1450, QUEUE_LEN));
        assert_eq!((link.gso_max_size, link.gso_ipv4_max_size), (GSO_MAX_SIZE, Some(GSO_MAX_SIZE)));
        assert_eq!((link.up, link.carrier, link.qdisc.as_str()), (true, true, "noqueue"));
        let tun = link.tun.unwrap();
        assert_eq!(
            (tun.multi_queue, tun.persistent, tun.queues),
            (queues > 1, true, if queues > 1 { queues as u32 } else { 0 })
        );
        let netlink = Netlink::open_in(&container).unwrap();
        let addresses: Vec<_> = netlink.addresses().unwrap();
        assert!(addresses.iter().any(|a| a.index == link.index && a.prefix == prefix("10.32.0.2", 12)));
        let connected =
            Route { destination: prefix("10.32.0.0", 12), gateway: None, index: Some(link.index) };
        assert!(netlink.routes().unwrap().contains(&connected));
        assert_eq!(names(&host), ["lo"]);
        frames_flow(&device, &container);
    }
}

#[test]
fn super_frames_go_both_ways_in_one_piece() {
    let (host, container) = (namespace(), namespace());
    let device = create(&host, &spec(1), &container).unwrap();
    frames_flow(&device, &container);
    super_frames_flow(&device, &container);
}

#[test]
fn a_port_made_outside_does_not_keep_a_dead_namespace_alive() {
    let host = namespace();
    let netns = namespace();
    canary(&host, &netns);
    let container = Container::start(&netns);
    let device = create(&host, &spec(2), &netns).unwrap();
    drop(netns);
    let mut buffer = [0; 2000];
    let read = |queue: &Tap, buffer: &mut [u8]| queue.read(buffer).map_err(|e| e.raw_os_error());
    std::thread::sleep(Duration::from_millis(50));
    while device.queues.iter().any(|queue| read(queue, &mut buffer).is_ok()) {}
    assert!(device.queues.iter().all(|queue| read(queue, &mut buffer) == Err(Some(libc::EAGAIN))));
    drop(container);
    eventually("the namespace is gone", || is_gone(&host));
    for queue in &device.queues {
        assert_eq!(read(queue, &mut buffer), Err(Some(libc::EBADFD)));
        let parts = [IoSlice::new(&[0; 80])];
        assert_eq!(queue.write_vectored(&parts).unwrap_err().raw_os_error(), Some(libc::EBADFD));
        let mut polled =
            [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(queue), nix::poll::PollFlags::POLLIN)];
        nix::poll::poll(&mut polled, nix::poll::PollTimeout::ZERO).unwrap();
        assert!(polled[0].revents().unwrap().contains(nix::poll::PollFlags::POLLERR));
    }
}

#[test]
fn a_closed_port_stays_is_found_and_carries_on() {
    for queues in [1, 3] {
        let (host, container) = (namespace(), namespace());
        let _process = Container::start(&container);
        let spec = spec(queues);
        let device = create(&host, &spec, &container).unwrap();
        let netlink = Netlink::open_in(&container).unwrap();
        let index = link(&container, "mesh0").unwrap().index;
        netlink.add_address(index, prefix("fd00:32::2", 64)).unwrap();
        let gateway = Some("10.32.0.1".parse().unwrap());
        for destination in [prefix("0.0.0.0", 0), prefix("203.0.113.0", 24)] {
            netlink.add_route(&Route { destination, gateway, index: None }).unwrap();
        }
        let state = || {
            let (mut addresses, mut routes) = (netlink.addresses().unwrap(), netlink.routes().unwrap());
            addresses.sort();
            routes.sort();
            (addresses, routes)
        };
        eventually("IPv6 settles", || ipv6_is_usable(&container, "mesh0") && state().1.len() >= 5);
        let before = state();
        let busy = found(spec.port).unwrap();
        let e = reopen(&host, &spec, &busy).unwrap_err();
        assert!(matches!(&e, DeviceError::Tap(TapError::Busy { name }) if name == "mesh0"), "{e}");
        assert!(e.is_retryable());
        drop(device);
        // Another test may be starting a process, which holds copies of all descriptors for a moment.
        eventually("no carrier", || !link(&container, "mesh0").unwrap().carrier);
        assert!(link(&container, "mesh0").unwrap().up);
        assert_eq!(state(), before);
        let found = found(spec.port).unwrap();
        assert_eq!((found.port, &found.netns, found.ifname.as_str()), (spec.port, &container, "mesh0"));
        let device = reopen_soon(&host, &spec, &found);
        assert_eq!((device.queues.len(), device.ifname.as_str()), (queues, "mesh0"));
        assert_eq!(device.offloads.granted, ["csum", "tso4", "tso6", "uso4", "uso6"]);
        assert!(device.pins_namespace);
        let opened = link(&container, "mesh0").unwrap();
        assert!(opened.carrier);
        assert_eq!((opened.qdisc.as_str(), opened.gso_max_size), ("noqueue", GSO_MAX_SIZE));
        assert_eq!(state(), before);
        frames_flow(&device, &container);
        super_frames_flow(&device, &container);
    }
}

#[test]
fn the_flags_of_the_device_decide_not_the_wish() {
    let (host, container) = (namespace(), namespace());
    let _process = Container::start(&container);
    for (made, wanted, opened) in [(1, 4, 1), (2, 1, 1), (2, 4, 4)] {
        let mut spec = spec(made);
        drop(create(&host, &spec, &container).unwrap());
        spec.queues = wanted;
        let device = reopen_soon(&host, &spec, &found(spec.port).unwrap());
        assert_eq!(device.queues.len(), opened);
        device::destroy(&container, spec.port).unwrap();
    }
}

#[test]
fn the_watch_tells_when_a_pinned_namespace_lost_its_last_other_holder() {
    let host = namespace();
    let netns = namespace();
    canary(&host, &netns);
    let container = Container::start(&netns);
    let spec = spec(1);
    drop(create(&host, &spec, &netns).unwrap());
    drop(netns);
    let device = reopen_soon(&host, &spec, &found(spec.port).unwrap());
    assert_eq!(device.netns, container.id);
    let (tell, told) = mpsc::channel();
    let watcher = Watcher::start(move |id| tell.send(id).unwrap()).unwrap();
    watcher.add(device.netns);
    // Another process takes over as holder.
    let heir = Container::start(&Netns::of_pid(container.pid()).unwrap());
    let id = container.id;
    drop(container);
    assert_eq!(told.recv_timeout(Duration::from_millis(700)), Err(mpsc::RecvTimeoutError::Timeout));
    let start = Instant::now();
    drop(heir);
    assert_eq!(told.recv_timeout(Duration::from_secs(5)), Ok(id));
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert!(!is_gone(&host), "the descriptor still keeps it");
    drop(device);
    eventually("the namespace is gone", || is_gone(&host));
    watcher.add(id);
    assert_eq!(told.recv_timeout(Duration::from_secs(5)), Ok(id), "one that is dead is told at once");
}

#[test]
fn a_descriptor_of_another_process_is_a_holder_too() {
    let netns = namespace();
    let (tell, told) = mpsc::channel();
    let watcher = Watcher::start(move |id| tell.send(id).unwrap()).unwrap();
    // `sleep` stays in our namespace and has the other one open as its standard input.
    let file = std::os::fd::AsFd::as_fd(&netns).try_clone_to_owned().unwrap();
    let mut holder = std::process::Command::new("sleep").arg("1000").stdin(file).spawn().unwrap();
    watcher.add(netns.id());
    assert_eq!(told.recv_timeout(Duration::from_millis(700)), Err(mpsc::RecvTimeoutError::Timeout));
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert_eq!(
        told.recv_timeout(Duration::from_secs(1)),
        Ok(netns.id()),
        "our own descriptor does not count"
    );
}

#[test]
fn destroying_a_port_removes_it_under_its_reader() {
    let (host, container) = (namespace(), namespace());
    let spec = spec(1);
    let device = create(&host, &spec, &container).unwrap();
    device::destroy(&container, spec.port).unwrap();
    device::destroy(&container, spec.port).unwrap();
    assert_eq!(names(&container), ["lo"]);
    assert_eq!(device.queues[0].read(&mut [0; 100]).unwrap_err().raw_os_error(), Some(libc::EBADFD));
    assert!(found(spec.port).is_none());
}

#[test]
fn devices_of_no_known_port_are_strays() {
    let (host, container) = (namespace(), namespace());
    let _process = Container::start(&container);
    let (known, stray) = (spec(1), spec(1));
    let _devices = [&known, &stray].map(|spec| create(&host, spec, &container).unwrap());
    // Other tests' ports are strays as well: look at this container only.
    let strays = device::strays(&[known.port]);
    let here: Vec<_> =
        strays.iter().filter(|found| found.netns == container).map(|found| found.port).collect();
    assert_eq!(here, [stray.port]);
}

#[test]
fn names_are_numbered_and_a_taken_one_is_refused() {
    let (host, container) = (namespace(), namespace());
    let named = |name: &str| PortSpec { ifname: Some(name.to_owned()), ..spec(1) };
    let first = create(&host, &spec(1), &container).unwrap();
    let third = create(&host, &named("mesh2"), &container).unwrap();
    let second = create(&host, &spec(1), &container).unwrap();
    let fourth = create(&host, &spec(1), &container).unwrap();
    let got = [&first, &second, &third, &fourth].map(|device| device.ifname.as_str());
    assert_eq!(got, ["mesh0", "mesh1", "mesh2", "mesh3"]);
    let e = create(&host, &named("mesh1"), &container).unwrap_err();
    assert!(matches!(&e, DeviceError::NameInUse { ifname } if ifname == "mesh1"), "{e}");
    for bad in ["", "a/b", "mesh%d", "a-name-that-is-too-long"] {
        let e = create(&host, &named(bad), &container).unwrap_err();
        assert!(matches!(&e, DeviceError::Tap(TapError::BadName { .. })), "{e}");
    }
    let again = PortSpec { port: first.port, ..spec(1) };
    let e = create(&host, &again, &container).unwrap_err();
    assert!(matches!(&e, DeviceError::Exists { ifname, .. } if ifname == "mesh0"), "{e}");
    assert_eq!(names(&container), ["lo", "mesh0", "mesh2", "mesh1", "mesh3"]);
}

#[test]
fn a_failure_in_the_middle_leaves_nothing_behind() {
    let (host, container) = (namespace(), namespace());
    let wrongs = [
        PortSpec { addresses: vec![prefix("10.32.0.2", 12), prefix("10.32.0.3", 33)], ..spec(2) },
        PortSpec { mtu: 20, ..spec(1) },
        PortSpec { mac: MacAddr::BROADCAST, ..spec(1) },
    ];
    for wrong in wrongs {
        let e = create(&host, &wrong, &container).unwrap_err();
        assert!(matches!(e, DeviceError::Netlink(_)), "{e}");
        assert_eq!((names(&host), names(&container)), (vec!["lo".to_owned()], vec!["lo".to_owned()]), "{e}");
    }
}

#[test]
fn a_container_with_ipv6_switched_off_gets_its_port() {
    let (host, container) = (namespace(), namespace());
    for which in ["all", "default", "lo"] {
        sysctl(&container, &format!("net/ipv6/conf/{which}/disable_ipv6"), "1");
    }
    let device = create(&host, &spec(1), &container).unwrap();
    frames_flow(&device, &container);
}

#[test]
fn ipv6_is_switched_on_for_a_port_that_has_an_address_of_it() {
    let (host, container) = (namespace(), namespace());
    // As Docker leaves its containers.
    sysctl(&container, "net/ipv6/conf/all/disable_ipv6", "1");
    sysctl(&container, "net/ipv6/conf/default/disable_ipv6", "1");
    let addresses = vec![prefix("10.32.0.2", 12), prefix("fd00:32::2", 64)];
    let _device = create(&host, &PortSpec { addresses: addresses.clone(), ..spec(1) }, &container).unwrap();
    let index = Netlink::open_in(&container).unwrap().links().unwrap().last().unwrap().index;
    let held = Netlink::open_in(&container).unwrap().addresses().unwrap();
    let held: Vec<_> = held.iter().filter(|it| it.index == index).map(|it| it.prefix).collect();
    assert!(addresses.iter().all(|prefix| held.contains(prefix)), "{held:?}");
}

#[test]
fn a_host_may_have_a_port_itself() {
    let host = namespace();
    let _process = Container::start(&host);
    let spec = spec(2);
    let device = create(&host, &spec, &host).unwrap();
    assert_eq!(names(&host), ["lo", "mesh0"]);
    frames_flow(&device, &host);
    drop(device);
    let device = reopen_soon(&host, &spec, &found(spec.port).unwrap());
    assert!(!device.pins_namespace, "its own namespace lives as long as the daemon");
    frames_flow(&device, &host);
}

#[test]
fn a_port_that_went_meanwhile_is_not_made_anew() {
    let (host, container) = (namespace(), namespace());
    let _process = Container::start(&container);
    let spec = spec(1);
    drop(create(&host, &spec, &container).unwrap());
    let found = found(spec.port).unwrap();
    device::destroy(&container, spec.port).unwrap();
    let e = reopen(&host, &spec, &found).unwrap_err();
    assert!(matches!(e, DeviceError::Gone { port } if port == spec.port), "{e}");
    assert_eq!(names(&container), ["lo"]);
}

#[test]
fn a_missing_tun_driver_is_named() {
    use nix::mount::{MsFlags, mount};
    let e = namespace().run(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(Some("none"), "/dev/net", Some("tmpfs"), MsFlags::empty(), none).unwrap();
        Tap::create("x", false).unwrap_err()
    });
    let e = e.unwrap();
    assert!(matches!(e, TapError::NoTun(_)) && e.to_string().contains("/dev/net/tun"), "{e}");
}

#[test]
fn an_interface_that_is_down_or_a_bad_header_cost_a_frame_only() {
    let (host, container) = (namespace(), namespace());
    let device = create(&host, &spec(1), &container).unwrap();
    let netlink = Netlink::open_in(&container).unwrap();
    let index = link(&container, "mesh0").unwrap().index;
    let bad_type = [0, 99, 0, 0, 0, 0, 0, 0, 0, 0];
    let behind_the_end = [1, 0, 0, 0, 0, 0, 0xff, 0x7f, 0, 0];
    let error = |header: &[u8], frame: &[u8]| {
        let parts = [IoSlice::new(header), IoSlice::new(frame)];
        device.queues[0].write_vectored(&parts).unwrap_err().raw_os_error()
    };
    let frame = datagram_in(b"x", 9);
    assert_eq!(error(&bad_type, &frame), Some(libc::EINVAL));
    assert_eq!(error(&behind_the_end, &frame), Some(libc::EINVAL));
    assert_eq!(error(&[0; 10], &frame[..13]), Some(libc::EINVAL));
    let many = vec![IoSlice::new(&[0]); 1025];
    assert_eq!(device.queues[0].write_vectored(&many).unwrap_err().raw_os_error(), Some(libc::EMSGSIZE));
    let down = engine::io::netlink::LinkChange { up: Some(false), ..Default::default() };
    netlink.set_link(index, &down).unwrap();
    assert_eq!(error(&[0; 10], &frame), Some(libc::EIO));
    netlink.set_up(index).unwrap();
    frames_flow(&device, &container);
}
