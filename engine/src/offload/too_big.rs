//! What a container is told whose packet is too big for the way ahead: ICMP "fragmentation needed" (RFC 1191 section 4),
//! ICMPv6 "packet too big" (RFC 4443 section 3.2), from the gateway of its network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use super::fragment::IPV6_MIN_MTU;
use crate::types::MacAddr;
use crate::wire::checksum::Sum;
use crate::wire::ether::{self, Ether};
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::ipv6::{self, Ipv6};

/// The most that an answer quotes: what every IPv4 host takes, 576 bytes (RFC 1812 section 4.3.2.3), less its headers.
const QUOTE: usize = 576 - ipv4::LEN - ICMP_LEN;
/// Type, code, checksum, and the word that holds the MTU.
const ICMP_LEN: usize = 8;
/// Room for any answer, as an Ethernet frame.
pub const MAX_LEN: usize = ether::LEN + ipv6::LEN + ICMP_LEN + QUOTE;

/// `IPPROTO_ICMP` and `IPPROTO_ICMPV6`.
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const HOPS: u8 = 64;

/// Answers in a row, and how long until there is one more.
const BURST: u32 = 64;
const INTERVAL: Duration = Duration::from_millis(10);

/// How many answers are left.
#[derive(Debug)]
pub struct Limit {
    left: u32,
    since: Option<Instant>,
}

impl Default for Limit {
    fn default() -> Self {
        Limit { left: BURST, since: None }
    }
}

impl Limit {
    /// Whether another answer may be given now; takes it if so.
    pub fn admits(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        let earned = now.saturating_duration_since(since).as_millis() / INTERVAL.as_millis();
        if earned > 0 {
            self.left = self.left.saturating_add(u32::try_from(earned).unwrap_or(BURST)).min(BURST);
            self.since = Some(now);
        }
        let admitted = self.left > 0;
        self.left -= u32::from(admitted);
        admitted
    }
}

/// Writes the answer to the sender of `frame` into `out`, and gives its length; none where none is due: to what is no IP
/// packet, was sent to a group, is a later fragment, or tells of an error itself (RFC 1122 section 3.2.2).
///
/// `mtu` is what passes, in bytes. `from` is the MAC address of the gateway, `gateway` finds its address for a sender; where
/// it has none of that family, the answer comes from where the packet was to go.
pub fn answer(
    frame: &[u8],
    mtu: u16,
    from: MacAddr,
    gateway: impl Fn(IpAddr) -> Option<IpAddr>,
    out: &mut [u8; MAX_LEN],
) -> Option<usize> {
    let ether =
        Ether::parse(frame).ok().filter(|ether| ether.tags() == 0 && !ether.destination().is_group())?;
    let packet = ether.payload();
    let (header, body) = out.split_at_mut(ether::LEN);
    let len = match ether.ethertype() {
        ether::IPV4 => answer_ipv4(packet, mtu, gateway, body)?,
        ether::IPV6 => answer_ipv6(packet, mtu.max(IPV6_MIN_MTU), gateway, body)?,
        _ => return None,
    };
    let parts = [&ether.source().0[..], &from.0, &ether.ethertype().to_be_bytes()];
    let bytes = parts.into_iter().flatten();
    header.iter_mut().zip(bytes).for_each(|(to, byte)| *to = *byte);
    Some(ether::LEN + len)
}

fn answer_ipv4(
    packet: &[u8],
    mtu: u16,
    gateway: impl Fn(IpAddr) -> Option<IpAddr>,
    out: &mut [u8],
) -> Option<usize> {
    const TOO_BIG: [u8; 2] = [3, 4];
    const ERRORS: [u8; 5] = [3, 4, 5, 11, 12];
    const OFFSET: u16 = 0x1fff;
    let ip = Ipv4::parse(packet)?;
    let [source, destination] = [12, 16].map(|at| {
        packet.get(at..).and_then(<[u8]>::first_chunk::<4>).map_or(Ipv4Addr::UNSPECIFIED, |a| (*a).into())
    });
    let later = packet.get(6..8)?.first_chunk().is_some_and(|word| u16::from_be_bytes(*word) & OFFSET != 0);
    let error = ip.protocol() == ICMP && packet.get(ip.header_len()).is_none_or(|kind| ERRORS.contains(kind));
    let one = |addr: Ipv4Addr| !addr.is_unspecified() && !addr.is_multicast() && !addr.is_broadcast();
    if later || error || !one(source) || !one(destination) {
        return None;
    }
    let from = match gateway(source.into()) {
        Some(IpAddr::V4(gateway)) => gateway,
        _ => destination,
    };
    let quote = packet.get(..ip.total_len().min(QUOTE))?;
    let len = ipv4::LEN + ICMP_LEN + quote.len();
    let (header, icmp) = out.get_mut(..len)?.split_at_mut(ipv4::LEN);
    header.fill(0);
    (header[0], header[8], header[9]) = (0x45, HOPS, ICMP);
    header[12..16].copy_from_slice(&from.octets());
    header[16..20].copy_from_slice(&source.octets());
    ipv4::rewrite(header, len as u16, 0);
    put_icmp(icmp, TOO_BIG, u32::from(mtu), quote, Sum::default());
    Some(len)
}

fn answer_ipv6(
    packet: &[u8],
    mtu: u16,
    gateway: impl Fn(IpAddr) -> Option<IpAddr>,
    out: &mut [u8],
) -> Option<usize> {
    const TOO_BIG: [u8; 2] = [2, 0];
    const FIRST_QUESTION: u8 = 128;
    let ip = Ipv6::parse(packet)?;
    let [source, destination] = [8, 24].map(|at| {
        packet.get(at..).and_then(<[u8]>::first_chunk::<16>).map_or(Ipv6Addr::UNSPECIFIED, |a| (*a).into())
    });
    let kind = packet.get(ip.header_len());
    let error = ip.protocol() == ICMPV6 && kind.is_none_or(|kind| *kind < FIRST_QUESTION);
    let one = |addr: Ipv6Addr| !addr.is_unspecified() && !addr.is_multicast();
    if error || !one(source) || !one(destination) {
        return None;
    }
    let from = match gateway(source.into()) {
        Some(IpAddr::V6(gateway)) => gateway,
        _ => destination,
    };
    let quote = packet.get(..ip.total_len().min(QUOTE))?;
    let payload = ICMP_LEN + quote.len();
    let (header, icmp) = out.get_mut(..ipv6::LEN + payload)?.split_at_mut(ipv6::LEN);
    header.fill(0);
    (header[0], header[6], header[7]) = (0x60, ICMPV6, HOPS);
    header[8..24].copy_from_slice(&from.octets());
    header[24..40].copy_from_slice(&source.octets());
    ipv6::rewrite(header, payload as u16);
    let pseudo = Sum::default().bytes(&from.octets()).bytes(&source.octets());
    put_icmp(icmp, TOO_BIG, u32::from(mtu), quote, pseudo.word(u16::from(ICMPV6)).word(payload as u16));
    Some(ipv6::LEN + payload)
}

fn put_icmp(icmp: &mut [u8], [kind, code]: [u8; 2], mtu: u32, quote: &[u8], pseudo: Sum) {
    icmp[..4].copy_from_slice(&[kind, code, 0, 0]);
    icmp[4..ICMP_LEN].copy_from_slice(&mtu.to_be_bytes());
    icmp[ICMP_LEN..].copy_from_slice(quote);
    let sum = pseudo.bytes(icmp).checksum();
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
}
