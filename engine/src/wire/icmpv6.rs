//! ICMPv6 messages (RFC 4443) and where they stand in their frame.

use std::net::Ipv6Addr;

use super::checksum::Sum;
use super::{ether, ipv6};
use crate::types::MacAddr;

/// The protocol number.
pub const PROTOCOL: u8 = 58;
/// Length of the header in bytes: type, code, checksum.
pub const LEN: usize = 4;
/// Where the checksum stands.
const CHECKSUM_OFFSET: usize = 2;

/// Multicast listener query (RFC 3810 section 5.1).
pub const LISTENER_QUERY: u8 = 130;
/// Multicast listener report of the first version (RFC 2710).
pub const LISTENER_REPORT: u8 = 131;
/// Multicast listener done of the first version (RFC 2710).
pub const LISTENER_DONE: u8 = 132;
/// Router solicitation (RFC 4861 section 4.1).
pub const ROUTER_SOLICITATION: u8 = 133;
/// Router advertisement (RFC 4861 section 4.2).
pub const ROUTER_ADVERTISEMENT: u8 = 134;
/// Neighbour solicitation (RFC 4861 section 4.3).
pub const SOLICITATION: u8 = 135;
/// Neighbour advertisement (RFC 4861 section 4.4).
pub const ADVERTISEMENT: u8 = 136;
/// Redirect (RFC 4861 section 4.5).
pub const REDIRECT: u8 = 137;
/// Multicast listener report of the second version (RFC 3810 section 5.2).
pub const LISTENER_REPORT_2: u8 = 143;

/// A message that is whole as far as type, code and checksum go. The checksum is not verified: whoever can send a wrong one
/// can send a right one.
#[derive(Clone, Copy, Debug)]
pub struct Icmpv6<'a> {
    /// Who sent it.
    pub source: Ipv6Addr,
    /// Who it is for.
    pub destination: Ipv6Addr,
    /// 255 when no router has passed it on.
    pub hop_limit: u8,
    /// What it is.
    pub kind: u8,
    /// What it is more closely.
    pub code: u8,
    /// What follows the checksum.
    pub body: &'a [u8],
}

impl<'a> Icmpv6<'a> {
    /// Reads the message of an IPv6 packet; none when it carries something else, or a piece of something.
    pub fn parse(packet: &'a [u8]) -> Option<Self> {
        let ip = ipv6::Ipv6::parse(packet).filter(|ip| ip.protocol() == PROTOCOL)?;
        let message = packet.get(ip.header_len()..ip.total_len())?;
        let (&[kind, code, _, _], body) = message.split_first_chunk::<LEN>()?;
        let (source, destination) = ip.addresses();
        Some(Icmpv6 { source, destination, hop_limit: ip.hop_limit(), kind, code, body })
    }
}

/// The group MAC address of an IPv6 multicast address (RFC 2464 section 7).
pub fn group_mac(group: Ipv6Addr) -> MacAddr {
    let [.., a, b, c, d] = group.octets();
    MacAddr([0x33, 0x33, a, b, c, d])
}

/// Who sends a message to whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    pub(super) from: (MacAddr, Ipv6Addr),
    pub(super) to: (MacAddr, Ipv6Addr),
    pub(super) hop_limit: u8,
}

/// Writes a frame with `message`, whose checksum is filled in, behind the extension headers `extension`, which begin with the
/// header number `next`.
pub(super) fn frame<const N: usize>(ends: Ends, (next, extension): (u8, &[u8]), message: &[u8]) -> [u8; N] {
    let mut frame = [0; N];
    let (source, destination) = (ends.from.1.octets(), ends.to.1.octets());
    let payload_len = (extension.len() + message.len()) as u16;
    let [high, low] = payload_len.to_be_bytes();
    let sum = Sum::default().bytes(&source).bytes(&destination);
    let sum = sum.word(u16::from(PROTOCOL)).word(message.len() as u16).bytes(message).checksum();
    let parts: [&[u8]; 6] = [
        &ether::header(ends.to.0, ends.from.0, ether::IPV6),
        &[0x60, 0, 0, 0, high, low, next, ends.hop_limit],
        &source,
        &destination,
        extension,
        message,
    ];
    let mut at = 0;
    for part in parts {
        if let Some(place) = frame.get_mut(at..at + part.len()) {
            place.copy_from_slice(part);
        }
        at += part.len();
    }
    let place = at - message.len() + CHECKSUM_OFFSET;
    if let Some(place) = frame.get_mut(place..place + 2) {
        place.copy_from_slice(&sum.to_be_bytes());
    }
    frame
}
