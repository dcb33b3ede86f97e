//! A container sends in its own name only: what speaks for others is held at its port, counted there by its reason, and shown.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::PacketBuilder;
use netns_tests::{
    Attached, Capture, Container, Host, Result, Topology, Value, anyhow, ensure, ethernet, icmp_echo, secs,
    vxlan, wait_until,
};

/// A station that nobody has.
const NOBODY: [u8; 6] = [2, 0, 0, 0, 0, 9];
const BROADCAST: [u8; 6] = [0xff; 6];
const ALL_NODES: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 32, 0, 1);

/// `web` and `near` on one host, `db` on another.
struct Bed {
    net: Topology,
    web: Attached,
    near: Attached,
    db: Attached,
}

#[derive(Clone, Copy)]
struct Station {
    mac: [u8; 6],
    ip: Ipv4Addr,
}

impl Station {
    fn of(attached: &Attached) -> Result<Self> {
        let mut mac = [0; 6];
        for (octet, text) in mac.iter_mut().zip(attached.mac.split(':')) {
            *octet = u8::from_str_radix(text, 16)?;
        }
        match attached.address {
            IpAddr::V4(ip) => Ok(Station { mac, ip }),
            IpAddr::V6(ip) => Err(anyhow!("{ip} is an IPv6 address")),
        }
    }

    /// The link-local address that is made of its MAC address.
    fn link_local(&self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.mac;
        Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
    }
}

impl Bed {
    fn new(promise: &str) -> Result<Self> {
        let net = Topology::new(promise)?.hosts(2)?;
        let (web, db) = net.web_and_db(&[])?;
        let near = net.host(0).attach("near")?;
        web.ping(&near)?;
        Ok(Bed { net, web, near, db })
    }

    fn host(&self) -> &Host {
        self.net.host(0)
    }

    /// How many segments of `web` were dropped for a reason.
    fn held(&self, reason: &str) -> Result<u64> {
        let port = self.host().port(&self.web)?;
        Ok(port.get("drops").and_then(|drops| drops.get(reason)).and_then(Value::as_u64).unwrap_or_default())
    }

    /// Sends frames from `web` and tells which of them came to `near` or `db`.
    fn arrived(&self, frames: &[Vec<u8>]) -> Result<Vec<bool>> {
        let filter = format!("ether src {} or ether src 02:00:00:00:00:09", self.web.mac);
        let watch = |at: &Attached| Capture::start(at.namespace(), &at.ifname, &filter, self.net.directory());
        let captures = [watch(&self.near)?, watch(&self.db)?];
        self.web.namespace().send_frames(&self.web.ifname, frames)?;
        let mut files = Vec::new();
        for capture in captures {
            files.extend(capture.stop_raw()?);
        }
        let came = |frame: &Vec<u8>| files.windows(frame.len()).any(|bytes| bytes == frame);
        Ok(frames.iter().map(came).collect())
    }
}

/// IPv6 from the station's link-local address to all nodes.
fn icmpv6(from: Station, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, payload.len() as u8, next, 255];
    packet.extend(from.link_local().octets());
    packet.extend(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).octets());
    packet.extend_from_slice(payload);
    ethernet(ALL_NODES, from.mac, 0x86dd, &packet)
}

fn arp(operation: u8, from: [u8; 6], sender: ([u8; 6], Ipv4Addr), target: Ipv4Addr) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, operation];
    packet.extend(sender.0);
    packet.extend(sender.1.octets());
    packet.extend([0; 6]);
    packet.extend(target.octets());
    ethernet(BROADCAST, from, 0x0806, &packet)
}

fn udp4(from: Station, to: ([u8; 6], Ipv4Addr), ports: (u16, u16), payload: &[u8]) -> Result<Vec<u8>> {
    let builder = PacketBuilder::ethernet2(from.mac, to.0).ipv4(from.ip.octets(), to.1.octets(), 64);
    let mut frame = Vec::new();
    builder.udp(ports.0, ports.1).write(&mut frame, payload)?;
    Ok(frame)
}

/// The frame behind a tag of this type and number.
fn tagged(frame: &[u8], tag: u16, vlan: u16) -> Vec<u8> {
    [&frame[..12], &tag.to_be_bytes(), &vlan.to_be_bytes(), &frame[12..]].concat()
}

/// What a container could do to others, and the reason for which it is held.
fn tricks(web: Station, db: Station) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let echo = |from, ip| icmp_echo((db.mac, db.ip), (from, ip), b"a container that lies");
    let neighbour = [&[136, 0, 0, 0, 0x20, 0, 0, 0][..], &[0xfd; 16], &[2, 1], &web.mac].concat();
    let advertisement = [134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    // From the port of servers to that of clients (RFC 8415 section 7.2).
    let dhcp6 = [&[2, 35, 2, 34, 0, 28, 0, 0][..], &[7; 20]].concat();
    let behind = |header: [u8; 8], message: &[u8]| [&header[..], message].concat();
    // Asked for, it has no answer.
    let nowhere = Ipv4Addr::new(10, 32, 200, 200);
    let everybody = (BROADCAST, Ipv4Addr::BROADCAST);
    Ok(vec![
        ("spoofed_mac", echo(NOBODY, web.ip)),
        ("spoofed_mac", arp(1, NOBODY, (web.mac, web.ip), nowhere)),
        ("spoofed_ip", echo(web.mac, Ipv4Addr::new(10, 32, 0, 99))),
        ("spoofed_ip", echo(web.mac, GATEWAY)),
        ("spoofed_ip", echo(web.mac, Ipv4Addr::UNSPECIFIED)),
        ("spoofed_neighbour", arp(2, web.mac, (web.mac, GATEWAY), db.ip)),
        ("spoofed_neighbour", arp(1, web.mac, (web.mac, GATEWAY), GATEWAY)),
        ("spoofed_neighbour", arp(1, web.mac, (web.mac, db.ip), db.ip)),
        ("spoofed_neighbour", arp(1, web.mac, (NOBODY, web.ip), nowhere)),
        ("spoofed_neighbour", icmpv6(web, 58, &neighbour)),
        ("tagged_frame", tagged(&echo(web.mac, web.ip), 0x8100, 10)),
        // What a kernel takes as untagged.
        ("tagged_frame", tagged(&echo(web.mac, GATEWAY), 0x8100, 0)),
        ("tagged_frame", tagged(&tagged(&echo(web.mac, GATEWAY), 0x8100, 10), 0x88a8, 20)),
        ("ethertype", ethernet(db.mac, web.mac, 0x88b5, b"a container that lies, in a language of its own")),
        ("dhcp_answer", udp4(web, everybody, (67, 68), &[2; 240])?),
        ("dhcp_answer", icmpv6(web, 17, &dhcp6)),
        ("router_advertisement", icmpv6(web, 58, &advertisement)),
        ("router_advertisement", icmpv6(web, 60, &behind([58, 0, 1, 4, 0, 0, 0, 0], &advertisement))),
        ("router_advertisement", icmpv6(web, 44, &behind([58, 0, 0, 1, 0, 0, 0, 7], &advertisement))),
        ("redirect", icmpv6(web, 58, &[137; 40])),
        ("group_query", icmpv6(web, 58, &[130, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0])),
        ("hidden_header", icmpv6(web, 44, &[60, 0, 0, 1, 0, 0, 0, 7])),
    ])
}

#[test]
fn what_speaks_for_others_is_held_at_the_port() -> Result<()> {
    let bed = Bed::new("a container that lies")?;
    let (web, db) = (Station::of(&bed.web)?, Station::of(&bed.db)?);
    let tricks = tricks(web, db)?;
    let mut before = Vec::new();
    for (reason, _) in &tricks {
        before.push(bed.held(reason)?);
    }
    let frames: Vec<_> = tricks.iter().map(|(_, frame)| frame.clone()).collect();
    for ((reason, frame), arrived) in tricks.iter().zip(bed.arrived(&frames)?) {
        ensure!(!arrived, "{reason}: it came through: {frame:02x?}");
    }
    wait_until("each is counted at its port", secs(3), || {
        for ((reason, _), before) in tricks.iter().zip(&before) {
            let sent = tricks.iter().filter(|(other, _)| other == reason).count() as u64;
            let held = bed.held(reason)? - before;
            // A kernel's own frames, as reports of groups, are held for none of these reasons.
            ensure!(held == sent, "{reason}: {held} of {sent}");
        }
        Ok(())
    })?;
    let shown = bed.host().run(&["status", "dataplane"])?;
    for (reason, _) in &tricks {
        ensure!(shown.contains(reason), "{reason} is not shown: {shown}");
    }
    let near = bed.host().port(&bed.near)?;
    ensure!(
        near.get("drops").is_none_or(|drops| drops.get("spoofed_ip").is_none()),
        "another port is blamed: {near}"
    );
    // It goes on in its own name.
    bed.web.ping(&bed.db)?;
    bed.web.ping(&bed.near)?;
    bed.host().wait_balanced(secs(5))
}

#[test]
fn a_lifted_check_lets_through_and_is_kept() -> Result<()> {
    let mut bed = Bed::new("a container that may say anything")?;
    bed.web = bed.host().lift_spoof_check(&bed.web)?;
    let (web, db) = (Station::of(&bed.web)?, Station::of(&bed.db)?);
    bed.web.ping(&bed.db)?;
    let tricks = tricks(web, db)?;
    let frames: Vec<_> = tricks.iter().map(|(_, frame)| frame.clone()).collect();
    let lifted = |bed: &Bed| -> Result<()> {
        let arrived = bed.arrived(&frames)?.into_iter();
        let missing: Vec<_> =
            tricks.iter().zip(arrived).filter(|(_, came)| !came).map(|(trick, _)| trick).collect();
        let drops: Vec<_> = bed.net.all().iter().map(Host::drops).collect::<Result<_>>()?;
        ensure!(missing.is_empty(), "{missing:02x?} did not come: {drops:?}");
        let shown = bed.host().run(&["status", "dataplane"])?;
        ensure!(shown.contains("sends in any name"), "it is not shown: {shown}");
        let port = bed.host().port(&bed.web)?;
        ensure!(port.get("no_spoof_check") == Some(&Value::Bool(true)), "{port}");
        Ok(())
    };
    lifted(&bed)?;
    // The next daemon knows it too.
    bed.host().kill_dead()?;
    bed.host().launch(&[])?;
    bed.web.ping_within(&bed.db, secs(5)).map(drop)?;
    lifted(&bed)?;
    // Asked for again it is another port.
    let again = bed.host().fails_with(
        &["attach", &bed.near.reference(), "--name", "near", "--no-spoof-check"],
        "already_attached",
    )?;
    ensure!(again.contains("--no-spoof-check"), "{again}");
    Ok(())
}

#[test]
fn the_fence_stands_again_after_the_daemon() -> Result<()> {
    let bed = Bed::new("a fence that is put up again")?;
    let (web, db) = (Station::of(&bed.web)?, Station::of(&bed.db)?);
    bed.host().kill_dead()?;
    bed.host().launch(&[])?;
    bed.web.ping_within(&bed.db, secs(5))?;
    let frame = icmp_echo((db.mac, db.ip), (web.mac, GATEWAY), b"a container that lies after a while");
    ensure!(bed.arrived(&[frame])? == [false], "it came through");
    ensure!(bed.held("spoofed_ip")? == 1, "it is not counted");
    Ok(())
}

#[test]
fn an_address_that_people_set_is_held_until_the_check_is_lifted() -> Result<()> {
    let mut bed = Bed::new("an address set by hand")?;
    let second = Ipv4Addr::new(10, 32, 9, 9);
    let set = |at: &Attached| at.namespace().ip(&format!("address add {second}/12 dev {}", at.ifname));
    set(&bed.web)?;
    let from_second = |bed: &Bed| bed.web.namespace().ping_once(&bed.db, &format!("-W 1 -I {second}"));
    ensure!(from_second(&bed)?.fails_with(1).is_ok(), "it may be used");
    ensure!(bed.held("spoofed_ip")? + bed.held("spoofed_neighbour")? > 0, "it is not counted");
    bed.web = bed.host().lift_spoof_check(&bed.web)?;
    set(&bed.web)?;
    from_second(&bed)?.ok().map(drop)
}

#[test]
fn a_container_is_not_heard_as_a_host() -> Result<()> {
    let bed = Bed::new("a container that speaks VXLAN")?;
    let (web, db) = (Station::of(&bed.web)?, Station::of(&bed.db)?);
    let inner = icmp_echo((db.mac, db.ip), (NOBODY, GATEWAY), b"a frame in a frame");
    let mut outer = Vec::new();
    for (vni, port) in [(1, 4789), (7, 4790)] {
        // For another container, for everybody: it is a datagram like any other.
        outer.push(udp4(web, (db.mac, db.ip), (port, 4789), &vxlan(vni, &inner))?);
        outer.push(udp4(web, (BROADCAST, Ipv4Addr::BROADCAST), (port, 4789), &vxlan(vni, &inner))?);
    }
    let capture = Capture::start(bed.db.namespace(), &bed.db.ifname, "udp port 4789", bed.net.directory())?;
    bed.web.namespace().send_frames(&bed.web.ifname, &outer)?;
    let file = capture.stop_raw()?;
    let whole = |frame: &[u8]| file.windows(frame.len()).filter(|bytes| *bytes == frame).count();
    let counts: Vec<_> = outer.iter().map(|frame| whole(frame)).collect();
    ensure!(counts == [1; 4], "the datagrams came so often as they were sent: {counts:?}");
    ensure!(whole(&inner) == outer.len(), "the frame inside came {} times, also alone", whole(&inner));
    Ok(())
}

#[test]
fn what_another_host_sends_in_the_number_of_a_network_stays_in_that_network() -> Result<()> {
    let net = Topology::new("the number of another network")?.hosts(2)?;
    net.host(0).launch(&[])?;
    net.host(1).launch(&["node01"])?;
    net.wait_converged(secs(10))?;
    net.host(1).run_line("network create red --subnet 10.99.0.0/16 --vni 7002")?;
    net.host(1).run_line("network create blue --subnet 10.98.0.0/16 --vni 7001")?;
    let on = |at: usize, name: &str, network: &str| {
        net.host(at).attach_with(&Container::new(name)?, &["--network", network])
    };
    let far = on(1, "far", "blue")?;
    wait_until("blue is known", secs(3), || net.host(0).inspect("blue").map(drop))?;
    let (web, red) = (on(0, "web", "blue")?, on(0, "red", "red")?);
    far.ping_within(&web, secs(5))?;

    let (to, from) = (Station::of(&web)?, Station::of(&far)?);
    let frame = icmp_echo((to.mac, to.ip), (from.mac, from.ip), b"a frame in a number");
    // Whether it came to `web`, and to `red`.
    let came = |vni: u32| -> Result<[bool; 2]> {
        let watch = |at: &Attached| Capture::start(at.namespace(), &at.ifname, "icmp", net.directory());
        let captures = (watch(&web)?, watch(&red)?);
        let data_port = (net.host(0).address(), 4789).into();
        net.host(1).namespace().send_datagrams(data_port, &[vxlan(vni, &frame)])?;
        let holds = |file: Vec<u8>| file.windows(frame.len()).any(|bytes| bytes == frame);
        Ok([holds(captures.0.stop_raw()?), holds(captures.1.stop_raw()?)])
    };
    ensure!(came(7001)? == [true, false], "in its own number it comes to web alone");
    let before = net.host(0).dropped("not_on_network")?;
    ensure!(came(7002)? == [false, false], "the other host is not on red");
    let counted = || {
        let held = net.host(0).dropped("not_on_network")? - before;
        if held == 1 { Ok(()) } else { Err(anyhow!("{held} are counted")) }
    };
    wait_until("it is counted", secs(3), counted)?;
    // Once it is, nobody has that station there.
    let other = on(1, "other", "red")?;
    other.ping_within(&red, secs(5))?;
    ensure!(!came(7002)?[0], "it came to web in the number of red");
    ensure!(came(7001)? == [true, false], "web is reached as before");
    Ok(())
}
