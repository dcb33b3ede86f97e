//! Multicast goes to those who joined the group, and to no other host.

#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "a member of a group is a socket")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};

use netns_tests::{Attached, Capture, Host, Result, Topology, anyhow, ensure, pause, secs, wait_until};

const GROUP: Ipv4Addr = Ipv4Addr::new(239, 47, 1, 2);
const GROUP6: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0x47, 2);
const PORT: u16 = 4747;

/// A datagram of a length nobody else uses.
const MARK: [u8; 333] = [0x47; 333];

/// The number of the port of a container inside.
fn index(of: &Attached) -> Result<u32> {
    let index = of.namespace().run(|| std::fs::read_to_string("/proc/thread-self/net/dev_mcast"))?;
    let line = index?;
    let row = line.lines().find(|row| row.split_whitespace().nth(1) == Some(&of.ifname));
    let number = row.and_then(|row| row.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).ok_or_else(|| anyhow!("no {} in {line}", of.ifname))
}

/// A member of a group; it leaves when this is dropped.
fn join(at: &Attached, group: IpAddr) -> Result<UdpSocket> {
    let (IpAddr::V4(own), number) = (at.address, index(at)?) else { return Err(anyhow!("no IPv4 address")) };
    let socket = at.namespace().run(|| match group {
        IpAddr::V4(group) => {
            let socket = UdpSocket::bind(("0.0.0.0", PORT))?;
            socket.join_multicast_v4(&group, &own).map(|()| socket)
        }
        IpAddr::V6(group) => {
            let socket = UdpSocket::bind(("::", PORT))?;
            socket.join_multicast_v6(&group, number).map(|()| socket)
        }
    })??;
    socket.set_read_timeout(Some(secs(0.3)))?;
    Ok(socket)
}

/// Sends a marked datagram to a group.
fn send(from: &Attached, group: IpAddr) -> Result<()> {
    let to: SocketAddr = match group {
        IpAddr::V4(group) => (group, PORT).into(),
        IpAddr::V6(group) => SocketAddrV6::new(group, PORT, 0, index(from)?).into(),
    };
    from.namespace().send_datagrams(to, &[MARK.to_vec()])
}

/// Waits until what is sent to a group comes to a member.
fn hears(member: &UdpSocket, from: &Attached, group: IpAddr, limit: f64) -> Result<()> {
    wait_until(&format!("{group} is heard"), secs(limit), || {
        send(from, group)?;
        let mut room = [0; 500];
        let length = member.recv(&mut room)?;
        ensure!(room[..length] == MARK, "something else came");
        Ok(())
    })
}

/// How many of three marked datagrams leave the host of the sender for another one.
fn leave_for(net: &Topology, from: &Attached, to: &Host, group: IpAddr) -> Result<usize> {
    let host = net.host(0);
    // Whichever address of it carries its frames.
    let filter = format!("udp dst port 4789 and (dst host {} or dst host {})", to.address(), to.address6());
    let capture = Capture::start(host.namespace(), host.interface(), &filter, net.directory())?;
    (0..3).try_for_each(|_| send(from, group))?;
    let file = capture.stop_raw()?;
    Ok(file.windows(MARK.len()).filter(|bytes| *bytes == MARK).count())
}

fn cluster(promise: &str) -> Result<(Topology, [Attached; 4])> {
    let net = Topology::new(promise)?.hosts(3)?;
    let (web, db) = net.web_and_db(&[])?;
    net.host(2).launch(&["node01"])?;
    let (far, near) = (net.host(2).attach("far")?, net.host(0).attach("near")?);
    web.ping(&far)?;
    web.ping(&near)?;
    web.namespace().ip(&format!("route add 224.0.0.0/4 dev {}", web.ifname))?;
    Ok((net, [web, near, db, far]))
}

fn reaches_its_members_alone(group: IpAddr) -> Result<()> {
    let (net, [web, near, _db, far]) = cluster("a group")?;
    let count = |reason| net.host(0).dropped(reason);
    let nobody = count("no_member")?;
    send(&web, group)?;
    wait_until("it is held back", secs(3), || {
        ensure!(count("no_member")? > nobody, "{:?}", net.host(0).drops());
        Ok(())
    })?;
    let member = join(&far, group)?;
    hears(&member, &web, group, 3.0)?;
    ensure!(leave_for(&net, &web, net.host(1), group)? == 0, "it went to a host without a member");
    let sent = leave_for(&net, &web, net.host(2), group)?;
    ensure!(sent == 3, "{sent} of 3 went to the host of the member");
    // One beside the sender: nothing more leaves.
    let beside = join(&near, group)?;
    hears(&beside, &web, group, 3.0)?;
    ensure!(leave_for(&net, &web, net.host(1), group)? == 0, "it went to a host without a member");
    // The last one there goes.
    drop(member);
    wait_until("its host is told", secs(5), || {
        ensure!(leave_for(&net, &web, net.host(2), group)? == 0, "it still goes there");
        Ok(())
    })?;
    hears(&beside, &web, group, 3.0)?;
    drop(beside);
    pause(secs(0.5));
    net.host(0).wait_balanced(secs(5))
}

#[test]
fn an_ipv4_group_reaches_its_members_alone() -> Result<()> {
    reaches_its_members_alone(GROUP.into())
}

#[test]
fn an_ipv6_group_reaches_its_members_alone() -> Result<()> {
    reaches_its_members_alone(GROUP6.into())
}

#[test]
fn older_hosts_are_understood() -> Result<()> {
    let (_net, [web, _near, _db, far]) = cluster("IGMP 2 and MLD 1")?;
    let force = |family: &str, name: &str, version: &str| {
        far.namespace().sysctl(&format!("net/{family}/conf/{}/force_{name}_version", far.ifname), version)
    };
    force("ipv4", "igmp", "2")?;
    force("ipv6", "mld", "1")?;
    for group in [GROUP.into(), GROUP6.into()] {
        let member = join(&far, group)?;
        hears(&member, &web, group, 3.0)?;
    }
    Ok(())
}

#[test]
fn groups_are_known_again_after_either_daemon() -> Result<()> {
    let (net, [web, _near, _db, far]) = cluster("groups and daemons")?;
    let member = join(&far, GROUP.into())?;
    hears(&member, &web, GROUP.into(), 3.0)?;
    // The host of the member asks its containers, that of the sender is told by the others.
    for host in [2, 0] {
        net.host(host).kill_dead()?;
        net.host(host).launch(&[])?;
        web.ping_within(&far, secs(5))?;
        hears(&member, &web, GROUP.into(), 15.0)?;
    }
    ensure!(leave_for(&net, &web, net.host(1), GROUP.into())? == 0, "it goes to everybody");
    Ok(())
}

#[test]
fn groups_of_the_link_need_not_be_joined() -> Result<()> {
    let (_net, [web, _near, db, _far]) = cluster("mDNS")?;
    let group = Ipv4Addr::new(224, 0, 0, 251);
    let member = join(&db, group.into())?;
    hears(&member, &web, group.into(), 3.0)
}
