//! Packets for the gateway, opened, and the frames that answer them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::counters::DropReason;
use crate::types::MacAddr;
use crate::wire::checksum::Sum;
use crate::wire::ether::{self, Ether};
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::ipv6::{self, Ipv6};
use crate::wire::{tcp, udp};

/// ICMP (RFC 792).
pub(super) const ICMP: u8 = 1;
/// ICMP for IPv6 (RFC 4443).
pub(super) const ICMPV6: u8 = 58;

/// Hops that our packets may take: they take none.
const HOPS: u8 = 64;
/// As much of a refused packet as an error repeats (RFC 1812 section 4.3.2.3; RFC 4443 section 2.4 has more).
const REPEATED: usize = 548;
/// The length of an ICMP header with its second word, in bytes.
const ICMP_LEN: usize = 8;
/// TCP: the connection is refused (RFC 9293 section 3.1).
const RST: u8 = 0x04;
/// TCP: somebody begins a connection.
pub(super) const SYN: u8 = 0x02;

/// Two ends, each an address on the link and on the network.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Ends {
    /// Who asks, on the link.
    pub(super) mac: MacAddr,
    /// The gateway, on the link.
    pub(super) own_mac: MacAddr,
    /// Who asks.
    pub(super) peer: IpAddr,
    /// The address of the gateway.
    pub(super) own: IpAddr,
}

/// A packet whose headers are sound, and whose checksums are right.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet<'a> {
    pub(super) ends: Ends,
    pub(super) protocol: u8,
    /// The whole packet, without what pads the frame.
    pub(super) ip: &'a [u8],
    /// What the IP header carries.
    pub(super) payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Opens a frame. `partial`: its transport checksum is not complete, as its sender is on this machine.
    ///
    /// # Errors
    /// [`DropReason::GatewayMalformed`], [`DropReason::GatewayFragment`].
    pub(super) fn open(frame: &'a [u8], partial: bool) -> Result<Self, DropReason> {
        const MALFORMED: DropReason = DropReason::GatewayMalformed;
        let ether = Ether::parse(frame).map_err(|_| MALFORMED)?;
        let (bytes, macs) = (ether.payload(), (ether.source(), ether.destination()));
        let packet = match (ether.tags(), ether.ethertype()) {
            (0, ether::IPV4) => open_v4(macs, bytes)?,
            (0, ether::IPV6) => open_v6(macs, bytes)?,
            _ => return Err(MALFORMED),
        };
        if partial || packet.is_intact() { Ok(packet) } else { Err(MALFORMED) }
    }

    fn is_intact(&self) -> bool {
        let no_checksum = self.protocol == udp::PROTOCOL && self.payload.get(6..8) == Some(&[0, 0]);
        match (self.protocol, self.ends.peer) {
            (ICMP, IpAddr::V4(_)) => Sum::default().bytes(self.payload).is_intact(),
            (udp::PROTOCOL, IpAddr::V4(_)) if no_checksum => true,
            (udp::PROTOCOL | tcp::PROTOCOL | ICMPV6, _) => {
                self.ends.pseudo_sum(self.protocol, self.payload.len()).bytes(self.payload).is_intact()
            }
            // Of others the header is all that is looked at.
            _ => true,
        }
    }

    /// The answer to an echo request; none to other messages.
    pub(super) fn echo(&self) -> Option<Vec<u8>> {
        let answer = match (self.protocol, self.ends.peer, self.payload.first_chunk::<ICMP_LEN>()?) {
            (ICMP, IpAddr::V4(_), [8, 0, ..]) => 0,
            (ICMPV6, IpAddr::V6(_), [128, 0, ..]) => 129,
            _ => return None,
        };
        let mut message = self.payload.to_vec();
        *message.first_mut()? = answer;
        self.ends.finish(self.protocol, 2, &mut message);
        self.ends.frame(self.protocol, &message)
    }

    /// Tells who sent a datagram that nobody listens at its port.
    pub(super) fn port_unreachable(&self) -> Option<Vec<u8>> {
        let (protocol, head) = match self.ends.peer {
            IpAddr::V4(_) => (ICMP, [3, 3, 0, 0, 0, 0, 0, 0]),
            IpAddr::V6(_) => (ICMPV6, [1, 4, 0, 0, 0, 0, 0, 0]),
        };
        let mut message = head.to_vec();
        message.extend_from_slice(self.ip.get(..REPEATED).unwrap_or(self.ip));
        self.ends.finish(protocol, 2, &mut message);
        self.ends.frame(protocol, &message)
    }

    /// Refuses a TCP segment (RFC 9293 section 3.5.2); none is sent to one that refuses itself.
    pub(super) fn reset(&self) -> Option<Vec<u8>> {
        let segment = tcp::Tcp::parse(self.payload)?;
        let flags = segment.flags();
        if flags & RST != 0 {
            return None;
        }
        let &[a, b, c, d, _, _, _, _, e, f, g, h, ..] = self.payload.first_chunk::<{ tcp::LEN }>()?;
        let data = self.payload.len().saturating_sub(segment.header_len());
        let taken = u32::from(flags & SYN != 0) + u32::from(flags & tcp::FIN != 0);
        let (seq, ack, flags) = match flags & tcp::ACK {
            0 => (0, segment.seq().wrapping_add(data as u32).wrapping_add(taken), RST | tcp::ACK),
            _ => (u32::from_be_bytes([e, f, g, h]), 0, RST),
        };
        let mut reset = [c, d, a, b].to_vec();
        reset.extend_from_slice(&seq.to_be_bytes());
        reset.extend_from_slice(&ack.to_be_bytes());
        reset.extend_from_slice(&[0x50, flags, 0, 0, 0, 0, 0, 0]);
        self.ends.finish(tcp::PROTOCOL, tcp::CHECKSUM_OFFSET, &mut reset);
        self.ends.frame(tcp::PROTOCOL, &reset)
    }
}

fn open_v4((mac, own_mac): (MacAddr, MacAddr), bytes: &[u8]) -> Result<Packet<'_>, DropReason> {
    let view = Ipv4::parse(bytes).filter(Ipv4::header_is_intact).ok_or(DropReason::GatewayMalformed)?;
    if view.is_fragment() {
        return Err(DropReason::GatewayFragment);
    }
    let addr = |at: usize| Some(Ipv4Addr::from(*bytes.get(at..)?.first_chunk::<4>()?).into());
    let ends = addr(12).zip(addr(16)).map(|(peer, own)| Ends { mac, own_mac, peer, own });
    opened(ends, view.protocol(), bytes, view.header_len()..view.total_len())
}

fn open_v6((mac, own_mac): (MacAddr, MacAddr), bytes: &[u8]) -> Result<Packet<'_>, DropReason> {
    let view = Ipv6::parse(bytes).ok_or(DropReason::GatewayMalformed)?;
    if view.is_fragment() {
        return Err(DropReason::GatewayFragment);
    }
    let addr = |at: usize| Some(Ipv6Addr::from(*bytes.get(at..)?.first_chunk::<16>()?).into());
    let ends = addr(8).zip(addr(24)).map(|(peer, own)| Ends { mac, own_mac, peer, own });
    opened(ends, view.protocol(), bytes, view.header_len()..view.total_len())
}

fn opened(
    ends: Option<Ends>,
    protocol: u8,
    bytes: &[u8],
    payload: std::ops::Range<usize>,
) -> Result<Packet<'_>, DropReason> {
    let ip = bytes.get(..payload.end);
    let parts = ends.zip(ip).zip(bytes.get(payload));
    let ((ends, ip), payload) = parts.ok_or(DropReason::GatewayMalformed)?;
    Ok(Packet { ends, protocol, ip, payload })
}

impl Ends {
    /// The sum of the pseudo-header for a payload of `len` bytes. It is the same in both directions.
    fn pseudo_sum(&self, protocol: u8, len: usize) -> Sum {
        let addresses = match (self.peer, self.own) {
            (IpAddr::V4(peer), IpAddr::V4(own)) => Sum::default().bytes(&peer.octets()).bytes(&own.octets()),
            (IpAddr::V6(peer), IpAddr::V6(own)) => Sum::default().bytes(&peer.octets()).bytes(&own.octets()),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => Sum::default(),
        };
        addresses.word(u16::from(protocol)).word(len as u16)
    }

    /// Writes the checksum of a message to its place `at`.
    pub(super) fn finish(&self, protocol: u8, at: usize, message: &mut [u8]) {
        let Some(field) = message.get_mut(at..at + 2) else { return };
        field.fill(0);
        let pseudo = if protocol == ICMP { Sum::default() } else { self.pseudo_sum(protocol, message.len()) };
        let sum = pseudo.bytes(message);
        let sum = if protocol == udp::PROTOCOL { sum.nonzero_checksum() } else { sum.checksum() };
        if let Some(field) = message.get_mut(at..at + 2) {
            field.copy_from_slice(&sum.to_be_bytes());
        }
    }

    /// A datagram to who asks.
    pub(super) fn datagram(&self, (own, peer): (u16, u16), payload: &[u8]) -> Option<Vec<u8>> {
        let len = u16::try_from(udp::LEN + payload.len()).ok()?;
        let mut datagram = Vec::with_capacity(usize::from(len));
        for word in [own, peer, len, 0] {
            datagram.extend_from_slice(&word.to_be_bytes());
        }
        datagram.extend_from_slice(payload);
        self.finish(udp::PROTOCOL, udp::CHECKSUM_OFFSET, &mut datagram);
        self.frame(udp::PROTOCOL, &datagram)
    }

    /// A whole frame to who asks; none where `payload` is too long for a packet.
    pub(super) fn frame(&self, protocol: u8, payload: &[u8]) -> Option<Vec<u8>> {
        let mut packet = match (self.own, self.peer) {
            (IpAddr::V4(own), IpAddr::V4(peer)) => header_v4(own, peer, protocol, payload.len())?,
            (IpAddr::V6(own), IpAddr::V6(peer)) => header_v6(own, peer, protocol, payload.len())?,
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
        };
        packet.extend_from_slice(payload);
        Some(self.link(&packet))
    }

    /// A packet in a frame to who asks.
    pub(super) fn link(&self, packet: &[u8]) -> Vec<u8> {
        let kind = if self.own.is_ipv4() { ether::IPV4 } else { ether::IPV6 };
        let mut frame = Vec::with_capacity(ether::LEN + packet.len());
        frame.extend_from_slice(&ether::header(self.mac, self.own_mac, kind));
        frame.extend_from_slice(packet);
        frame
    }
}

/// Not to be cut: what is sent fits (RFC 6864 section 4.1 then wants no identification).
fn header_v4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, len: usize) -> Option<Vec<u8>> {
    let total = u16::try_from(ipv4::LEN + len).ok()?;
    let mut header = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, HOPS, protocol, 0, 0];
    header.extend_from_slice(&from.octets());
    header.extend_from_slice(&to.octets());
    ipv4::rewrite(&mut header, total, 0);
    Some(header)
}

fn header_v6(from: Ipv6Addr, to: Ipv6Addr, protocol: u8, len: usize) -> Option<Vec<u8>> {
    let len = u16::try_from(len).ok()?;
    let mut header = vec![0x60, 0, 0, 0, 0, 0, protocol, HOPS];
    header.extend_from_slice(&from.octets());
    header.extend_from_slice(&to.octets());
    ipv6::rewrite(&mut header, len);
    Some(header)
}
