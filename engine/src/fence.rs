//! What a container may send: frames in its own name, and none that make others believe things of the network.
//!
//! A port has one station: the MAC address and the IP addresses that the control plane gave it, and the link-local address
//! that is made of the MAC address. A frame from it passes when
//!
//! - its source is that MAC address, and it is not tagged: a tag hides what is behind it;
//! - it is IPv4 or IPv6 from one of these addresses, or ARP that speaks of them: of anything else nobody can say in whose
//!   name it is;
//! - it says nothing that only the gateway or a server of the network may say: router advertisements, redirects, answers of
//!   DHCP, questions who wants which multicast groups;
//! - its headers can be followed up to the transport, so that none of this hides behind others (RFC 7112, RFC 7113).
//!
//! Whoever has no address yet may ask: a source of zeros is for DHCP, for probes of duplicates and for reports of groups. A
//! super-frame is judged by its head, which all its segments share.

#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr};

use crate::counters::DropReason;
use crate::types::MacAddr;
use crate::wire::arp::Arp;
use crate::wire::group::{IGMP, Message};
use crate::wire::{ether, icmpv6, ipv4, ipv6, ndp, tcp, udp};

/// ICMP, and its messages that say where to send what (RFC 792, RFC 1256).
const ICMP: u8 = 1;
const ICMP_REDIRECT: u8 = 5;
const ICMP_ROUTER_ADVERTISEMENT: u8 = 9;

/// UDP ports of DHCP: what servers send from, what clients send from.
const DHCP_SERVER: u16 = 67;
const DHCP_CLIENT: u16 = 68;
const DHCP6_SERVER: u16 = 547;

/// Extension headers of IPv6 (RFC 8200 section 4, RFC 4302, RFC 6275, RFC 7401, RFC 5533).
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;
const MOBILITY: u8 = 135;
const HIP: u8 = 139;
const SHIM6: u8 = 140;

/// How many extension headers are followed.
const MAX_EXTENSIONS: usize = 8;

/// The station behind a port, and what may be sent in its name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fence {
    mac: MacAddr,
    v4: Box<[[u8; 4]]>,
    /// The link-local address first.
    v6: Box<[[u8; 16]]>,
}

type Judgement = Result<(), DropReason>;

impl Fence {
    /// The station with this MAC address and these IP addresses.
    pub fn new(mac: MacAddr, addrs: &[IpAddr]) -> Self {
        let v4 = addrs.iter().filter_map(|addr| match addr {
            IpAddr::V4(addr) => Some(addr.octets()),
            IpAddr::V6(_) => None,
        });
        let v6 = addrs.iter().filter_map(|addr| match addr {
            IpAddr::V6(addr) => Some(addr.octets()),
            IpAddr::V4(_) => None,
        });
        let link_local = ndp::link_local(mac).octets();
        Fence { mac, v4: v4.collect(), v6: std::iter::once(link_local).chain(v6).collect() }
    }

    /// Its MAC address.
    pub fn mac(&self) -> MacAddr {
        self.mac
    }

    /// Judges a frame that came from the port.
    ///
    /// # Errors
    /// Why it may not pass. Frames shorter than their header pass: they go nowhere.
    #[inline]
    pub fn judge(&self, frame: &[u8]) -> Judgement {
        let Some((&header, packet)) = frame.split_first_chunk::<{ ether::LEN }>() else { return Ok(()) };
        let [_, _, _, _, _, _, source @ .., high, low] = header;
        if source != self.mac.0 {
            return Err(DropReason::SpoofedMac);
        }
        match u16::from_be_bytes([high, low]) {
            ether::IPV4 => self.judge_v4(packet),
            ether::IPV6 => self.judge_v6(packet),
            ether::ARP => self.judge_arp(packet),
            ether::VLAN | ether::SERVICE_VLAN => Err(DropReason::TaggedFrame),
            _ => Err(DropReason::Ethertype),
        }
    }

    fn judge_v4(&self, packet: &[u8]) -> Judgement {
        let header = packet.first_chunk::<{ ipv4::LEN }>().ok_or(DropReason::HiddenHeader)?;
        let &[first, _, _, _, _, _, offset_high, offset_low, _, protocol, _, _, a, b, c, d, ..] = header;
        if first >> 4 != 4 || first & 0x0f < 5 {
            return Err(DropReason::HiddenHeader);
        }
        let source = [a, b, c, d];
        let is_later_fragment = (offset_high & 0x1f, offset_low) != (0, 0);
        let mut nameless = false;
        if protocol != tcp::PROTOCOL && !is_later_fragment {
            let payload = packet.get(usize::from(first & 0x0f) * 4..).unwrap_or_default();
            nameless = judge_v4_payload(protocol, payload)?;
        }
        if self.v4.contains(&source) || (nameless && source == [0; 4]) {
            Ok(())
        } else {
            Err(DropReason::SpoofedIp)
        }
    }

    fn judge_v6(&self, packet: &[u8]) -> Judgement {
        let (header, payload) =
            packet.split_first_chunk::<{ ipv6::LEN }>().ok_or(DropReason::HiddenHeader)?;
        let &[first, _, _, _, _, _, next, _, ref addresses @ ..] = header;
        if first >> 4 != 6 {
            return Err(DropReason::HiddenHeader);
        }
        let mut nameless = false;
        if next != tcp::PROTOCOL {
            nameless = match transport_of(next, payload)? {
                Transport::Udp([high, low]) if u16::from_be_bytes([high, low]) == DHCP6_SERVER => {
                    return Err(DropReason::DhcpAnswer);
                }
                Transport::Icmp(message) => self.judge_icmpv6(message)?,
                Transport::Udp(_) | Transport::Other => false,
            };
        }
        let source = addresses.first_chunk::<16>();
        match source {
            Some(source) if self.v6.contains(source) || (nameless && *source == [0; 16]) => Ok(()),
            _ => Err(DropReason::SpoofedIp),
        }
    }

    /// Judges an ICMPv6 message; true when it may come from nobody.
    fn judge_icmpv6(&self, message: &[u8]) -> Result<bool, DropReason> {
        let header = message.split_first_chunk::<{ icmpv6::LEN }>();
        let (&[kind, ..], body) = header.ok_or(DropReason::HiddenHeader)?;
        match kind {
            icmpv6::ROUTER_ADVERTISEMENT => Err(DropReason::RouterAdvertisement),
            icmpv6::REDIRECT => Err(DropReason::Redirect),
            icmpv6::LISTENER_QUERY => Err(DropReason::GroupQuery),
            icmpv6::ADVERTISEMENT => {
                let target = ndp::target(body).ok_or(DropReason::HiddenHeader)?;
                let own = self.v6.contains(&target.octets()) && self.tells_own_mac(kind, body)?;
                if own { Ok(false) } else { Err(DropReason::SpoofedNeighbour) }
            }
            icmpv6::SOLICITATION | icmpv6::ROUTER_SOLICITATION => {
                if self.tells_own_mac(kind, body)? {
                    Ok(true)
                } else {
                    Err(DropReason::SpoofedNeighbour)
                }
            }
            icmpv6::LISTENER_REPORT | icmpv6::LISTENER_DONE | icmpv6::LISTENER_REPORT_2 => Ok(true),
            _ => Ok(false),
        }
    }

    /// Whether every link-layer address in the options of a message is the station's own.
    fn tells_own_mac(&self, kind: u8, body: &[u8]) -> Result<bool, DropReason> {
        let mut macs = ndp::macs(kind, body).ok_or(DropReason::HiddenHeader)?;
        Ok(macs.all(|mac| mac == self.mac))
    }

    fn judge_arp(&self, packet: &[u8]) -> Judgement {
        let arp = Arp::parse(packet).ok_or(DropReason::SpoofedNeighbour)?;
        let speaks = self.v4.contains(&arp.sender_ip.octets());
        let asks = arp.is_question() && arp.sender_ip == Ipv4Addr::UNSPECIFIED;
        if arp.sender_mac == self.mac && (speaks || asks) {
            Ok(())
        } else {
            Err(DropReason::SpoofedNeighbour)
        }
    }
}

/// Judges what an IPv4 packet carries; true when it may come from nobody.
fn judge_v4_payload(protocol: u8, payload: &[u8]) -> Result<bool, DropReason> {
    match (protocol, payload) {
        (udp::PROTOCOL, &[a, b, c, d, ..]) => {
            match (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])) {
                (DHCP_SERVER, _) => Err(DropReason::DhcpAnswer),
                ports => Ok(ports == (DHCP_CLIENT, DHCP_SERVER)),
            }
        }
        (ICMP, &[ICMP_REDIRECT, ..]) => Err(DropReason::Redirect),
        (ICMP, &[ICMP_ROUTER_ADVERTISEMENT, ..]) => Err(DropReason::RouterAdvertisement),
        (IGMP, _) => match Message::igmp(payload) {
            Some(Message::Query) => Err(DropReason::GroupQuery),
            Some(Message::Report(_)) => Ok(true),
            None => Ok(false),
        },
        (udp::PROTOCOL, _) | (ICMP, []) => Err(DropReason::HiddenHeader),
        _ => Ok(false),
    }
}

/// What an IPv6 packet carries, as far as it matters here.
enum Transport<'a> {
    /// UDP from this port.
    Udp([u8; 2]),
    /// This ICMPv6 message.
    Icmp(&'a [u8]),
    Other,
}

/// Follows the extension headers from `next`. What a later piece of a packet carries was judged with the first, which has to
/// have all headers (RFC 7112 section 5).
fn transport_of(mut next: u8, mut payload: &[u8]) -> Result<Transport<'_>, DropReason> {
    for _ in 0..=MAX_EXTENSIONS {
        let (len, following) = match (next, payload) {
            (udp::PROTOCOL, &[a, b, _, _, ..]) => return Ok(Transport::Udp([a, b])),
            (icmpv6::PROTOCOL, _) => return Ok(Transport::Icmp(payload)),
            (FRAGMENT, &[_, _, high, low, ..]) if u16::from_be_bytes([high, low]) & 0xfff8 != 0 => {
                return Ok(Transport::Other);
            }
            (FRAGMENT, &[following, ..]) => (8, following),
            (AUTHENTICATION, &[following, len, ..]) => ((usize::from(len) + 2) * 4, following),
            (HOP_BY_HOP | ROUTING | DESTINATION | MOBILITY | HIP | SHIM6, &[following, len, ..]) => {
                ((usize::from(len) + 1) * 8, following)
            }
            (
                udp::PROTOCOL
                | FRAGMENT
                | AUTHENTICATION
                | HOP_BY_HOP
                | ROUTING
                | DESTINATION
                | MOBILITY
                | HIP
                | SHIM6,
                _,
            ) => return Err(DropReason::HiddenHeader),
            _ => return Ok(Transport::Other),
        };
        (next, payload) = (following, payload.get(len..).ok_or(DropReason::HiddenHeader)?);
    }
    Err(DropReason::HiddenHeader)
}
