//! What a container sends arrives as it was sent, byte for byte: right, wrong, or unknown to the hosts in between.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use etherparse::PacketBuilder;
use netns_tests::{
    Addressed, Attached, Capture, Result, Topology, Trickle, anyhow, ensure, ethernet, icmp_echo, pause,
    secs, vxlan,
};

/// IP protocols that a switch need not know.
const GRE: u8 = 47;
const SCTP: u8 = 132;

/// One end of what is said.
#[derive(Clone, Copy)]
struct End {
    mac: [u8; 6],
    ip: Ipv4Addr,
}

fn end(of: &Attached) -> Result<End> {
    let IpAddr::V4(ip) = of.address() else { return Err(anyhow!("{} has no IPv4", of.name())) };
    let mac = of.mac.split(':').map(|part| u8::from_str_radix(part, 16)).collect::<Result<Vec<u8>, _>>()?;
    Ok(End { mac: mac.try_into().map_err(|_| anyhow!("{} is no MAC", of.mac))?, ip })
}

/// Frames from one container to the other, each of a flow of its own.
struct Writer {
    from: End,
    to: End,
}

impl Writer {
    fn tcp(&self, port: u16, sequence: u32, payload: &[u8]) -> Result<Vec<u8>> {
        let packet = PacketBuilder::ethernet2(self.from.mac, self.to.mac)
            .ipv4(self.from.ip.octets(), self.to.ip.octets(), 64)
            .tcp(port, 9, sequence, 1000)
            .ack(1);
        let mut frame = Vec::new();
        packet.write(&mut frame, payload)?;
        Ok(frame)
    }

    fn udp(&self, port: u16, payload: &[u8]) -> Result<Vec<u8>> {
        let packet = PacketBuilder::ethernet2(self.from.mac, self.to.mac)
            .ipv4(self.from.ip.octets(), self.to.ip.octets(), 64)
            .udp(port, 4790);
        let mut frame = Vec::new();
        packet.write(&mut frame, payload)?;
        Ok(frame)
    }

    fn ip(&self, protocol: u8, payload: &[u8]) -> Result<Vec<u8>> {
        let packet = PacketBuilder::ethernet2(self.from.mac, self.to.mac).ipv4(
            self.from.ip.octets(),
            self.to.ip.octets(),
            64,
        );
        let mut frame = Vec::new();
        packet.write(&mut frame, protocol.into(), payload)?;
        Ok(frame)
    }

    /// The same packet in two fragments.
    fn fragments(&self, whole: &[u8]) -> [Vec<u8>; 2] {
        let (head, payload) = whole.split_at(34);
        let cut = payload.len() / 16 * 8;
        let piece = |payload: &[u8], field: u16| {
            let mut ip = head[14..].to_vec();
            ip[2..4].copy_from_slice(&(20 + payload.len() as u16).to_be_bytes());
            ip[4..6].copy_from_slice(&[0x12, 0x34]);
            ip[6..8].copy_from_slice(&field.to_be_bytes());
            ip[10..12].fill(0);
            let sum: u32 = ip.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
            let sum = !(((sum & 0xffff) + (sum >> 16)) as u16);
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
            [&head[..14], &ip, payload].concat()
        };
        [piece(&payload[..cut], 0x2000), piece(&payload[cut..], cut as u16 / 8)]
    }

    /// Everything that somebody on the way might be tempted to touch.
    fn all(&self) -> Result<Vec<Vec<u8>>> {
        let bytes: Vec<u8> = (0..600_u32).map(|at| (at * 7 % 251) as u8).collect();
        let bent = |mut frame: Vec<u8>, back: usize| {
            let at = frame.len() - back;
            frame[at] ^= 0x55;
            frame
        };
        let (tcp, udp) = (self.tcp(1001, 5, &bytes)?, self.udp(1002, &bytes)?);
        let inner = self.tcp(1003, 5, &bytes)?;
        let gre = |frame: &[u8]| [&[0, 0, 0x65, 0x58], frame].concat();
        let mut no_sum = self.udp(1004, &bytes)?;
        no_sum[40..42].fill(0);
        let mut frames = vec![
            // Wrong checksums of TCP and UDP, in the payload and in the field itself.
            bent(tcp.clone(), 3),
            bent(tcp, 600),
            bent(self.tcp(1005, 9, &[])?, 3),
            bent(udp.clone(), 3),
            bent(self.udp(1006, &bytes)?, 601),
            no_sum,
            // Tunnels inside, with frames right and wrong.
            self.udp(1007, &vxlan(7, &inner))?,
            self.udp(1008, &vxlan(7, &bent(inner.clone(), 9)))?,
            bent(self.udp(1009, &vxlan(7, &inner))?, 9),
            self.ip(GRE, &gre(&inner))?,
            self.ip(GRE, &gre(&bent(inner, 9)))?,
            // Neither checksum is one that anybody would compute.
            self.ip(SCTP, &bytes[..64])?,
            self.ip(99, &bytes)?,
            bent(icmp_echo((self.to.mac, self.to.ip), (self.from.mac, self.from.ip), &bytes), 5),
            ethernet(self.to.mac, self.from.mac, 0x88b5, &bytes),
            // A wrong checksum of IPv4 itself, and of a packet with a tag.
            bent(self.udp(1010, &bytes)?, 600 + 8 + 9),
            [&udp[..12], &[0x81, 0, 0, 5], &bent(self.udp(1011, &bytes)?, 3)[12..]].concat(),
        ];
        frames.extend(self.fragments(&self.udp(1012, &bytes)?));
        frames.extend(self.fragments(&bent(self.tcp(1013, 5, &bytes)?, 3)));
        // A wrong segment between right ones: those may be joined, this one may not.
        for number in 0..5_u32 {
            let segment = self.tcp(1014, 5 + number * 600, &bytes)?;
            frames.push(if number == 2 { bent(segment, 3) } else { segment });
        }
        Ok(frames)
    }
}

/// The frames of a file of tcpdump (pcap-savefile(5)).
fn frames(file: &[u8]) -> Vec<&[u8]> {
    let mut frames = Vec::new();
    let mut rest = file.get(24..).unwrap_or_default();
    while let Some((head, more)) = rest.split_at_checked(16) {
        let length = head[8..12].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes)) as usize;
        let Some((frame, after)) = more.split_at_checked(length) else { break };
        frames.push(frame);
        rest = after;
    }
    frames
}

fn arrives_as_sent(net: &Topology, (web, db): &(Attached, Attached)) -> Result<()> {
    // Tagged frames and foreign types are among them.
    let web = &net.host(0).lift_spoof_check(web)?;
    web.ping(db)?;
    let writer = Writer { from: end(web)?, to: end(db)? };
    let sent = writer.all()?;
    let capture = Capture::start(db.namespace(), &db.ifname, "", net.directory())?;
    web.namespace().send_frames(&web.ifname, &sent)?;
    let file = capture.stop_raw()?;
    let came = frames(&file);
    for (number, frame) in sent.iter().enumerate() {
        let may_be_joined = number + 5 >= sent.len() && number + 3 != sent.len();
        let found = came.iter().filter(|came| **came == frame.as_slice()).count();
        ensure!(found == 1 || may_be_joined, "frame {number} came {found} times as it was: {frame:02x?}");
    }
    // The bytes of the flow with the wrong segment, whoever joined what.
    let of_flow = |frame: &&&[u8]| frame.get(34..36) == Some(&1014_u16.to_be_bytes()) && frame[23] == 6;
    let payload = |frames: Vec<&[u8]>| frames.iter().map(|frame| frame.len() - 54).sum::<usize>();
    let joined = payload(came.iter().filter(of_flow).copied().collect());
    ensure!(joined == 5 * 600, "{joined} bytes of 3000 came");
    Ok(())
}

#[test]
fn frames_arrive_as_they_were_sent() -> Result<()> {
    let net = Topology::new("sealed frames, byte for byte")?.hosts(2)?;
    arrives_as_sent(&net, &net.sealed_web_and_db(&[])?)?;
    let net = Topology::new("plain frames, byte for byte")?.hosts(2)?;
    arrives_as_sent(&net, &net.web_and_db(&[])?)
}

/// What the kernel of a container leaves to its device: the sums of plain datagrams, whose fields hold those of the pseudo-header
/// alone, and fragments, which have none.
#[test]
fn what_the_kernel_sends_arrives_with_the_sums_it_wrote() -> Result<()> {
    let net = Topology::new("partial checksums and fragments through a seal")?.hosts(2)?;
    let (web, db) = net.sealed_web_and_db(&[])?;
    let (from, to) = (end(&web)?, end(&db)?);
    let filter = format!("ip and src host {} and dst host {}", from.ip, to.ip);
    let out = Capture::start(web.namespace(), &web.ifname, &filter, net.directory())?;
    let into = Capture::start(db.namespace(), &db.ifname, &filter, net.directory())?;
    let datagrams: Vec<Vec<u8>> = (1..40_u8).map(|number| vec![number; 20 * usize::from(number)]).collect();
    web.namespace().send_datagrams(SocketAddr::new(to.ip.into(), 9), &datagrams)?;
    web.namespace().ping_in_fragments(&db, 5_000)?;
    let (out, into) = (out.stop_raw()?, into.stop_raw()?);
    let sorted = |file| {
        let mut all = frames(file);
        all.sort_unstable();
        all
    };
    let (sent, came) = (sorted(&out), sorted(&into));
    ensure!(sent.len() > datagrams.len() + 3, "{} frames were sent", sent.len());
    ensure!(sent == came, "{} frames were sent, {} came", sent.len(), came.len());
    // The folded, not inverted, sum of the pseudo-header (linux/virtio_net.h, VIRTIO_NET_HDR_F_NEEDS_CSUM).
    let is_partial = |frame: &&&[u8]| {
        let words = [&frame[26..34], &[0, 17], &frame[38..40]].concat();
        let sum: u32 = words.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
        let sum = (sum & 0xffff) + (sum >> 16);
        frame[23] == 17 && frame[40..42] == ((sum & 0xffff) as u16 + (sum >> 16) as u16).to_be_bytes()
    };
    let partial = came.iter().filter(is_partial).count();
    ensure!(partial >= datagrams.len(), "only {partial} sums are partial");
    Ok(())
}

#[test]
fn a_tunnel_of_the_containers_carries_streams_with_right_sums() -> Result<()> {
    let net = Topology::new("VXLAN inside of a sealed network")?.hosts(2)?;
    let (web, db) = net.sealed_web_and_db(&[])?;
    let inside = [Ipv4Addr::new(172, 31, 9, 1), Ipv4Addr::new(172, 31, 9, 2)];
    for (near, far, ip) in [(&web, &db, inside[0]), (&db, &web, inside[1])] {
        let namespace = near.namespace();
        let line =
            format!("type vxlan id 7 remote {} dstport 4789 noudpcsum dev {}", far.address(), near.ifname);
        namespace.ip(&format!("link add vx7 mtu 1300 {line}"))?;
        namespace.ip(&format!("address add {ip}/24 dev vx7"))?;
        namespace.ip("link set dev vx7 up")?;
    }
    // What leaves is not finished when it is captured.
    let filter = format!("udp port 4789 and src host {}", web.address());
    let capture = Capture::start(db.namespace(), &db.ifname, &filter, net.directory())?;
    let stream = Trickle::start(web.namespace(), (db.namespace(), &IpAddr::from(inside[1])), 7003)?;
    pause(secs(1));
    stream.finish()?;
    capture.checksums_are_right()
}
