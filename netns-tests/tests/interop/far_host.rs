//! The data plane of a host, written a second time: probes, handshakes and frames on one socket, and a container that
//! answers.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use etherparse::{Icmpv4Type, PacketBuilder, SlicedPacket, TransportSlice};
use netns_tests::{Result, ensure, vxlan_header};

use super::noise::{Key, Suite, random};
use super::session::{Asked, Begun, COOKIE, INITIATION, RESPONSE, SEALED, Session, finish, give_cookie};

/// The lane in which it seals.
pub(crate) const LANE: u8 = 9;
/// How long a datagram is waited for before it is looked whether to go on.
const TICK: Duration = Duration::from_millis(20);
/// The flag of the header inside: the checksum is partial.
const PARTIAL: u8 = 0x01;

/// What happened.
#[derive(Default, Debug)]
pub(crate) struct Seen {
    pub(crate) probes: u32,
    pub(crate) initiations: u32,
    pub(crate) cookies_given: u32,
    pub(crate) keepalives: u32,
    pub(crate) frames: u32,
    pub(crate) partial: u32,
    pub(crate) lanes: std::collections::BTreeSet<u8>,
    pub(crate) in_clear: u32,
    /// Frames, by the number of their session.
    pub(crate) by_session: std::collections::BTreeMap<u32, u32>,
    /// What was not as the document says.
    pub(crate) wrong: Vec<String>,
}

/// The other end of the daemon's sessions.
pub(crate) struct FarHost {
    pub(crate) socket: UdpSocket,
    pub(crate) daemon: SocketAddr,
    pub(crate) suite: Suite,
    pub(crate) own: Key,
    pub(crate) peer: [u8; 32],
    pub(crate) psks: Vec<[u8; 32]>,
    /// The largest that the daemon's initiations said.
    pub(crate) last: Option<(u64, u64)>,
    /// What this host's next initiation says.
    pub(crate) stamp: (u64, u64),
    /// The newest session last.
    pub(crate) sessions: Vec<Session>,
    /// Asked for before an initiation is answered.
    pub(crate) cookie: Option<[u8; 16]>,
    pub(crate) begun: Option<Begun>,
    /// The cookie that the daemon gave.
    pub(crate) given: Option<[u8; 16]>,
    pub(crate) seen: Seen,
}

impl FarHost {
    /// Serves until `done`.
    pub(crate) fn serve(&mut self, done: impl Fn(&Self) -> bool) -> Result<()> {
        self.socket.set_read_timeout(Some(TICK))?;
        let mut bytes = [0; 2048];
        while !done(self) {
            let Ok((len, from)) = self.socket.recv_from(&mut bytes) else { continue };
            if let Err(error) = self.handle(&bytes[..len], from) {
                self.seen.wrong.push(format!("{error:#}"));
            }
        }
        Ok(())
    }

    fn handle(&mut self, datagram: &[u8], from: SocketAddr) -> Result<()> {
        match datagram.first() {
            Some(&INITIATION) => self.handle_initiation(datagram, from),
            Some(&RESPONSE) => self.handle_response(datagram, from),
            Some(&COOKIE) => {
                ensure!(from == self.daemon, "a cookie from {from}");
                // Others answer what was sent beside the initiation that counts.
                let begun = self.begun.as_ref().filter(|begun| begun.is_answered_by(datagram));
                if let Some(begun) = begun {
                    self.given = Some(begun.cookie(&self.peer, datagram)?);
                }
                Ok(())
            }
            Some(&SEALED) => self.handle_sealed(datagram),
            Some(6) => {
                self.seen.probes += 1;
                ensure!(from == self.daemon, "a probe from {from}");
                let answer = [&[6, 1, 0, 0][..], &datagram[4..12]].concat();
                self.socket.send_to(&answer, from)?;
                Ok(())
            }
            _ => {
                self.seen.in_clear += 1;
                Ok(())
            }
        }
    }

    fn handle_initiation(&mut self, datagram: &[u8], from: SocketAddr) -> Result<()> {
        self.seen.initiations += 1;
        ensure!(from == self.daemon, "an initiation from {from}");
        if let Some(cookie) = self.cookie
            && Asked::read(self.suite, &self.own, datagram, Some(&cookie)).is_err()
        {
            Asked::read(self.suite, &self.own, datagram, None)?;
            self.seen.cookies_given += 1;
            self.socket.send_to(&give_cookie(&self.own, &cookie, datagram)?, from)?;
            return Ok(());
        }
        let asked = Asked::read(self.suite, &self.own, datagram, self.cookie.as_ref())?;
        ensure!(asked.peer() == self.peer, "somebody else asks");
        ensure!(self.last.is_none_or(|last| last < asked.stamp), "{:?} after {:?}", asked.stamp, self.last);
        self.last = Some(asked.stamp);
        let psk = self.psks.iter().find(|psk| asked.ids.contains(&super::session::psk_id(psk)));
        let psk = *psk.ok_or_else(|| netns_tests::anyhow!("no common secret"))?;
        let (session, response) = asked.answer(&psk, self.stamp.0)?;
        self.sessions.push(session);
        self.socket.send_to(&response, from)?;
        Ok(())
    }

    fn handle_response(&mut self, datagram: &[u8], from: SocketAddr) -> Result<()> {
        ensure!(from == self.daemon, "a response from {from}");
        let Some(begun) = self.begun.take() else { return Ok(()) };
        let with = (&self.psks[..], self.cookie.as_ref());
        let (mut session, start) = begun.finish(&self.own, with, datagram)?;
        ensure!(self.last.is_none_or(|last| last.0 <= start), "start {start} after {:?}", self.last);
        // A keepalive at once: the other side may seal only after it has opened a frame.
        self.socket.send_to(&session.seal(LANE, &[])?, self.daemon)?;
        self.sessions.push(session);
        Ok(())
    }

    fn handle_sealed(&mut self, datagram: &[u8]) -> Result<()> {
        let number = u32::from_le_bytes(datagram[4..8].try_into()?);
        let session = self.sessions.iter_mut().find(|session| session.local == number);
        let session = session.ok_or_else(|| netns_tests::anyhow!("a frame of no session"))?;
        let opened = session.open(datagram)?;
        self.seen.lanes.insert(opened.lane);
        if opened.content.is_empty() {
            self.seen.keepalives += 1;
            return Ok(());
        }
        self.seen.frames += 1;
        *self.seen.by_session.entry(number).or_default() += 1;
        let (header, frame) = opened.content.split_at(8);
        let partial = header[1] & PARTIAL != 0;
        self.seen.partial += u32::from(partial);
        ensure!(header[0] == 0x08 && header[4..7] == vxlan_header(1)[4..7], "{header:02x?}");
        let (header, reply) = match answer(frame, partial)? {
            Some((reply, partial)) => {
                let mut header = vxlan_header(1);
                header[1] |= if partial { PARTIAL } else { 0 };
                (header, reply)
            }
            None => return Ok(()),
        };
        let sealed = session.seal(LANE, &[&header[..], &reply].concat())?;
        self.socket.send_to(&sealed, self.daemon)?;
        Ok(())
    }

    /// Sends an initiation.
    pub(crate) fn begin(&mut self) -> Result<()> {
        self.stamp.1 += 1;
        let with = (&self.psks[..], self.given.as_ref());
        let begun = Begun::new(self.suite, &self.own, &self.peer, self.stamp, with)?;
        self.socket.send_to(&begun.message, self.daemon)?;
        self.begun = Some(begun);
        Ok(())
    }

    /// Something for the daemon with a right MAC1 and nothing else that is right.
    pub(crate) fn nonsense(&self) -> Vec<u8> {
        finish([&[INITIATION, 9, 0, 0][..], &random::<132>()].concat(), &self.peer, None)
    }
}

/// What a container says to a frame, and whether the checksum of that is partial: to an echo request its reply; to a UDP
/// datagram the same, with a partial checksum if what came had one.
fn answer(frame: &[u8], partial: bool) -> Result<Option<(Vec<u8>, bool)>> {
    let Ok(packet) = SlicedPacket::from_ethernet(frame) else { return Ok(None) };
    let (Some(etherparse::LinkSlice::Ethernet2(link)), Some(etherparse::NetSlice::Ipv4(ip))) =
        (&packet.link, &packet.net)
    else {
        return Ok(None);
    };
    let (ours, theirs) = (ip.header().destination_addr(), ip.header().source_addr());
    let back =
        PacketBuilder::ethernet2(link.destination(), link.source()).ipv4(ours.octets(), theirs.octets(), 64);
    let mut reply = Vec::new();
    match packet.transport {
        Some(TransportSlice::Icmpv4(icmp)) => {
            let Icmpv4Type::EchoRequest(header) = icmp.icmp_type() else { return Ok(None) };
            back.icmpv4_echo_reply(header.id, header.seq).write(&mut reply, icmp.payload())?;
            Ok(Some((reply, false)))
        }
        Some(TransportSlice::Udp(udp)) => {
            let sum = pseudo_sum(theirs, ours, udp.slice());
            let field = udp.checksum();
            // Completed, the sum over everything is all ones.
            let whole = if partial { !fold(sum) } else { field };
            let over = if partial { pseudo_header(theirs, ours, udp.slice().len()) } else { 0 };
            ensure!(!partial || field == fold(over), "a partial checksum of {field:04x}");
            ensure!(partial || fold(sum) == 0xffff, "a wrong checksum of {whole:04x}");
            let payload = udp.payload();
            back.udp(udp.destination_port(), udp.source_port()).write(&mut reply, payload)?;
            if partial {
                let at = reply.len() - payload.len() - 2;
                let open = fold(pseudo_header(ours, theirs, 8 + payload.len()));
                reply[at..at + 2].copy_from_slice(&open.to_be_bytes());
            }
            Ok(Some((reply, partial)))
        }
        _ => Ok(None),
    }
}

/// The sum over the pseudo-header of UDP over IPv4 (RFC 768).
fn pseudo_header(from: Ipv4Addr, to: Ipv4Addr, len: usize) -> u32 {
    sum(&from.octets()) + sum(&to.octets()) + 17 + len as u32
}

fn pseudo_sum(from: Ipv4Addr, to: Ipv4Addr, segment: &[u8]) -> u32 {
    pseudo_header(from, to, segment.len()) + sum(segment)
}

fn sum(bytes: &[u8]) -> u32 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or_default());
    bytes.chunks(2).map(word).sum()
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
