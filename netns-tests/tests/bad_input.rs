//! Whatever arrives on the ports or leaves the containers, it is counted by its reason and hurts nobody.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use netns_tests::{
    Attached, Capture, Host, IperfServer, Result, Topology, Transport, anyhow, bail, ensure, ethernet,
    icmp_echo, pause, secs, vxlan, vxlan_header, wait_until,
};

/// A payload length nobody else uses, to know a frame by.
const MARK: usize = 77;

struct Pair {
    net: Topology,
    web: Attached,
    db: Attached,
}

impl Pair {
    fn new(promise: &str) -> Result<Self> {
        let net = Topology::new(promise)?.hosts(3)?;
        net.host(0).launch(&[])?;
        net.host(1).launch(&["node01"])?;
        let web = net.host(0).attach("web")?;
        let db = net.host(1).attach("db")?;
        web.ping(&db)?;
        Ok(Pair { net, web, db })
    }

    /// The same with containers that may send anything.
    fn unchecked(self) -> Result<Self> {
        let web = self.net.host(0).lift_spoof_check(&self.web)?;
        let db = self.net.host(1).lift_spoof_check(&self.db)?;
        web.ping(&db)?;
        Ok(Pair { web, db, ..self })
    }

    /// Sends datagrams from a host to the data port of `node01`.
    fn send(&self, from: usize, datagrams: &[Vec<u8>]) -> Result<()> {
        self.net.host(from).namespace().send_datagrams(self.data_port(), datagrams)
    }

    fn data_port(&self) -> SocketAddr {
        (self.net.host(0).address(), 4789).into()
    }

    /// An echo request from `db` to `web` that carries [`MARK`] bytes.
    fn marked(&self) -> Result<Vec<u8>> {
        Ok(icmp_echo(
            (octets(&self.web.mac)?, v4(&self.web)?),
            (octets(&self.db.mac)?, v4(&self.db)?),
            &[0; MARK],
        ))
    }

    /// Fails unless `web` gets the marked frame after `send`.
    fn arrives(&self, send: impl Fn() -> Result<()>) -> Result<()> {
        let text = self.seen_in_web(send)?;
        if text.contains(&mark()) { Ok(()) } else { bail!("it did not arrive: {text:.1000}") }
    }

    /// Fails when `web` gets the marked frame after `send`, or when the reason is not counted.
    fn dropped(&self, reason: &str, send: impl Fn() -> Result<()>) -> Result<()> {
        let host = self.net.host(0);
        let before = host.dropped(reason)?;
        let text = self.seen_in_web(send)?;
        ensure!(!text.contains(&mark()), "{reason}: it arrived");
        wait_until(&format!("{reason} is counted"), secs(3), || {
            ensure!(host.dropped(reason)? > before, "{:?}", host.drops());
            Ok(())
        })
    }

    fn seen_in_web(&self, send: impl Fn() -> Result<()>) -> Result<String> {
        let capture = Capture::start(self.web.namespace(), &self.web.ifname, "icmp", self.net.directory())?;
        send()?;
        capture.stop()
    }

    fn is_well(&self) -> Result<()> {
        self.web.ping(&self.db)?;
        self.db.ping(&self.web)?;
        self.net.host(0).status()?;
        self.net.host(1).status().map(drop)
    }
}

fn mark() -> String {
    format!("length {}", MARK + 8)
}

fn v4(container: &Attached) -> Result<Ipv4Addr> {
    match container.address {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(address) => bail!("{address} is no IPv4 address"),
    }
}

fn octets(mac: &str) -> Result<[u8; 6]> {
    let octets: Vec<_> = mac.split(':').map(|part| u8::from_str_radix(part, 16)).collect::<Result<_, _>>()?;
    octets.try_into().map_err(|_| anyhow!("{mac} is no MAC address"))
}

#[test]
fn vxlan_is_taken_from_peers_and_from_nobody_else() -> Result<()> {
    let pair = Pair::new("VXLAN from a stranger")?;
    let frame = vxlan(1, &pair.marked()?);
    pair.arrives(|| pair.send(1, std::slice::from_ref(&frame)))?;
    pair.dropped("unknown_source", || pair.send(2, std::slice::from_ref(&frame)))?;
    pair.is_well()
}

#[test]
fn odd_flag_bits_are_ignored_but_for_gpe() -> Result<()> {
    let pair = Pair::new("VXLAN flag bits")?;
    let frame = pair.marked()?;
    let with = |change: fn(&mut [u8; 8])| {
        let mut header = vxlan_header(1);
        change(&mut header);
        [&header[..], &frame].concat()
    };
    let odd = with(|header| {
        header.iter_mut().zip([0xf3, 0xff, 0xff, 0xff, 0, 0, 0, 0xff]).for_each(|(a, b)| *a |= b)
    });
    pair.arrives(|| pair.send(1, std::slice::from_ref(&odd)))?;
    let gpe = with(|header| header[0] |= 0x04);
    pair.dropped("gpe", || pair.send(1, std::slice::from_ref(&gpe)))?;
    pair.is_well()
}

#[test]
fn unknown_networks_and_impossible_frames_are_counted() -> Result<()> {
    let pair = Pair::new("frames that cannot be")?;
    let frame = pair.marked()?;
    let (web, db) = (octets(&pair.web.mac)?, octets(&pair.db.mac)?);
    pair.dropped("unknown_vni", || pair.send(1, &[vxlan(77, &frame), vxlan(0x00ff_ffff, &frame)]))?;
    pair.dropped("truncated_vxlan", || pair.send(1, &[vec![0x08], vxlan_header(1)[..7].to_vec()]))?;
    pair.dropped("runt", || pair.send(1, &[vxlan(1, &[]), vxlan(1, &frame[..13])]))?;
    pair.dropped("group_source", || {
        pair.send(1, &[vxlan(1, &ethernet(web, [0xff; 6], 0x0800, &frame[14..]))])
    })?;
    pair.dropped("gateway_source", || {
        pair.send(1, &[vxlan(1, &ethernet(web, [0x02, 0x6d, 0x65, 0, 0, 1], 0x0800, &frame[14..]))])
    })?;
    pair.dropped("truncated_tag", || pair.send(1, &[vxlan(1, &ethernet(web, db, 0x8100, &[0]))]))?;
    pair.is_well()
}

#[test]
fn garbage_on_both_ports_is_survived() -> Result<()> {
    let pair = Pair::new("garbage")?;
    let daemons = [0, 1].map(|index| pair.net.host(index).daemon_pid());
    let before: u64 = pair.net.host(0).drops()?.values().sum();
    let garbage = garbage();
    for from in [1, 2] {
        for port in [4789, 6783] {
            let to = SocketAddr::from((pair.net.host(0).address(), port));
            pair.net.host(from).namespace().send_datagrams(to, &garbage)?;
        }
    }
    wait_until("it is counted", secs(5), || {
        let after: u64 = pair.net.host(0).drops()?.values().sum();
        ensure!(after > before + 100, "{before} became {after}");
        Ok(())
    })?;
    pair.is_well()?;
    ensure!([0, 1].map(|index| pair.net.host(index).daemon_pid()) == daemons, "a daemon was restarted");
    pair.net.wait_converged_among(2, secs(5))
}

/// Datagrams of every length up to 300 and some long ones, of every first byte, otherwise of noise that is
/// the same in every run.
fn garbage() -> Vec<Vec<u8>> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut noise = move || {
        // xorshift64 (Marsaglia 2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    let lengths = (0..300).chain([1400, 1472, 9000, 65_000]);
    let mut datagrams: Vec<Vec<u8>> = lengths.map(|length| (0..length).map(|_| noise()).collect()).collect();
    for first in 0..=255 {
        datagrams.push(std::iter::once(first).chain((0..80).map(|_| noise())).collect());
    }
    // Right VXLAN headers before noise reach the parsers behind them.
    datagrams.extend((0..200).map(|length| vxlan(1, &(0..length).map(|_| noise()).collect::<Vec<_>>())));
    datagrams
}

#[test]
fn tagged_frames_pass_with_their_tags() -> Result<()> {
    let pair = Pair::new("802.1Q")?.unchecked()?;
    let frame = icmp_echo(
        (octets(&pair.db.mac)?, v4(&pair.db)?),
        (octets(&pair.web.mac)?, v4(&pair.web)?),
        &[0; MARK],
    );
    let (addresses, packet) = (&frame[..12], &frame[12..]);
    let once = [addresses, &[0x81, 0x00, 0x00, 10], packet].concat();
    let twice = [addresses, &[0x88, 0xa8, 0x00, 20, 0x81, 0x00, 0x00, 10], packet].concat();
    let capture = Capture::start(pair.db.namespace(), &pair.db.ifname, "", pair.net.directory())?;
    pair.web.namespace().send_frames(&pair.web.ifname, &[once, twice])?;
    let text = capture.stop_with("-e")?;
    let seen = |words: &[&str]| text.lines().any(|line| words.iter().all(|word| line.contains(word)));
    ensure!(seen(&["802.1Q (0x8100)", "vlan 10,"]), "one tag: {text}");
    ensure!(seen(&["802.1Q-QinQ (0x88a8)", "vlan 20,", "vlan 10,"]), "two tags: {text}");
    pair.is_well()
}

#[test]
fn impossible_frames_from_a_container_are_counted() -> Result<()> {
    let pair = Pair::new("a container that sends nonsense")?;
    let (web, db) = (octets(&pair.web.mac)?, octets(&pair.db.mac)?);
    let from_web = |reason: &str, frame: Vec<u8>| {
        let before = pair.net.host(0).dropped(reason)?;
        pair.web.namespace().send_frames(&pair.web.ifname, &[frame])?;
        wait_until(&format!("{reason} is counted"), secs(3), || {
            ensure!(pair.net.host(0).dropped(reason)? > before, "{:?}", pair.net.host(0).drops());
            Ok(())
        })
    };
    from_web("group_source", ethernet(db, [0xff; 6], 0x0800, &[0; 60]))?;
    from_web("gateway_source", ethernet(db, [0x02, 0x6d, 0x65, 0, 0, 1], 0x0800, &[0; 60]))?;
    let own = (web, v4(&pair.web)?);
    from_web("hairpin_same_port", icmp_echo(own, own, &[0; 60]))?;
    from_web("truncated_tag", ethernet(db, web, 0x8100, &[0]))?;
    pair.is_well()
}

#[test]
fn fragments_pass_and_jumbo_frames_are_counted() -> Result<()> {
    let pair = Pair::new("fragments and jumbo frames")?;
    pair.web.namespace().ping_in_fragments(&pair.db, 6000)?;
    pair.web.namespace().ping_in_fragments(&pair.db, 60_000)?;

    let before = pair.net.host(0).dropped("too_big")?;
    pair.web.namespace().ip(&format!("link set dev {} mtu 9000", pair.web.ifname))?;
    ensure!(pair.web.ping_whole(&pair.db, 5000).is_err(), "a frame of 5000 bytes passed an MTU of 1450");
    ensure!(pair.net.host(0).dropped("too_big")? > before, "{:?}", pair.net.host(0).drops());
    pair.is_well()
}

#[test]
fn ipv6_inside_and_ipv6_switched_off() -> Result<()> {
    // Addresses that people set are not the port's own.
    let pair = Pair::new("IPv6 inside")?.unchecked()?;
    for (container, address) in [(&pair.web, "fd00::1/64"), (&pair.db, "fd00::2/64")] {
        container.namespace().ip(&format!("address add {address} dev {} nodad", container.ifname))?;
    }
    let to = IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 2]);
    pair.web.ping(&to)?;
    let server = IperfServer::start(pair.db.namespace(), &to)?;
    let report = server.measure(pair.web.namespace(), Transport::TCP, secs(1), "")?;
    ensure!(report.bits_per_second()? > 1e8, "{} bit/s over IPv6", report.bits_per_second()?);
    pair.is_well()
}

#[test]
fn hosts_without_ipv6_take_part() -> Result<()> {
    let net = Topology::new("IPv6 switched off")?.hosts(2)?;
    for conf in ["all", "default", "lo", "eth0"] {
        net.host(0).namespace().sysctl(&format!("net/ipv6/conf/{conf}/disable_ipv6"), "1")?;
    }
    net.host(0).launch(&[])?;
    net.host(1).launch(&["node01"])?;
    let web = netns_tests::Container::new("web")?;
    for conf in ["all", "default"] {
        web.namespace().sysctl(&format!("net/ipv6/conf/{conf}/disable_ipv6"), "1")?;
    }
    let web = net.host(0).attach_with(&web, &[])?;
    let db = net.host(1).attach("db")?;
    web.ping(&db)?;
    db.ping(&web)
}

#[test]
fn a_flood_is_held_back_and_ends() -> Result<()> {
    let pair = Pair::new("a storm")?;
    // Broadcasts as fast as one process can; the limit is the engine's, the order of magnitude is what counts.
    let flood = |host: &Host| host.dropped("storm_limit");
    let before = flood(pair.net.host(0))?;
    let broadcast = SocketAddr::from(([10, 47, 255, 255], 9));
    pair.web.namespace().broadcast(broadcast, 20_000)?;
    pause(secs(0.2));
    ensure!(flood(pair.net.host(0))? > before, "nothing was held back: {:?}", pair.net.host(0).drops());
    pair.is_well()
}
