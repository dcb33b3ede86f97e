//! Neighbour discovery for IPv6 (RFC 4861): who has this address?

use std::net::Ipv6Addr;

use super::icmpv6::{self, Ends, Icmpv6};
use super::{ether, ipv6};
use crate::types::MacAddr;

/// Length of an advertisement in its frame, in bytes.
pub const FRAME_LEN: usize = ether::LEN + ipv6::LEN + MESSAGE_LEN;
/// An advertisement with the sender's link-layer address.
const MESSAGE_LEN: usize = icmpv6::LEN + 4 + 16 + 8;

/// All stations of the segment.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// No router may have passed on a message of neighbour discovery.
const HOP_LIMIT: u8 = 255;

/// The option with the link-layer address of the sender.
const SOURCE_MAC: u8 = 1;
/// The option with the link-layer address of the target.
const TARGET_MAC: u8 = 2;

/// Flags of an advertisement: it answers a question; it replaces what was known.
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

/// Somebody asks where an address is, or whether anybody has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Solicitation {
    /// Who asks; unspecified for whoever wants to take the address (RFC 4862 section 5.4.2).
    pub source: Ipv6Addr,
    /// The address in question.
    pub target: Ipv6Addr,
}

impl Solicitation {
    /// Reads one; none when the message is something else, or breaks a rule of RFC 4861 section 7.1.1.
    pub fn read(message: &Icmpv6<'_>) -> Option<Self> {
        if (message.kind, message.code, message.hop_limit) != (icmpv6::SOLICITATION, 0, HOP_LIMIT) {
            return None;
        }
        let target = target(message.body)?;
        let sound = !target.is_multicast() && macs(message.kind, message.body).is_some();
        sound.then_some(Solicitation { source: message.source, target })
    }

    /// True when it is asked whether anybody has the address, before it is taken.
    pub fn is_probe(&self) -> bool {
        self.source.is_unspecified()
    }

    /// The frame that answers it, asked by the station `asker`: the address is at `mac`. A probe is answered to everybody (RFC
    /// 4861 section 7.2.4).
    pub fn answer(&self, mac: MacAddr, asker: MacAddr) -> [u8; FRAME_LEN] {
        if self.is_probe() {
            return announcement(self.target, mac);
        }
        advertisement((mac, self.target), (asker, self.source), SOLICITED | OVERRIDE)
    }
}

/// The frame that tells everybody that `addr` is at `mac` (RFC 4861 section 7.2.6).
pub fn announcement(addr: Ipv6Addr, mac: MacAddr) -> [u8; FRAME_LEN] {
    advertisement((mac, addr), (icmpv6::group_mac(ALL_NODES), ALL_NODES), OVERRIDE)
}

fn advertisement(from: (MacAddr, Ipv6Addr), to: (MacAddr, Ipv6Addr), flags: u8) -> [u8; FRAME_LEN] {
    let mut message = [0; MESSAGE_LEN];
    (message[0], message[4]) = (icmpv6::ADVERTISEMENT, flags);
    message[8..24].copy_from_slice(&from.1.octets());
    message[24..26].copy_from_slice(&[TARGET_MAC, 1]);
    message[26..].copy_from_slice(&from.0.0);
    icmpv6::frame(Ends { from, to, hop_limit: HOP_LIMIT }, (icmpv6::PROTOCOL, &[]), &message)
}

/// The address that a solicitation or an advertisement is about.
pub fn target(body: &[u8]) -> Option<Ipv6Addr> {
    let octets = body.get(4..)?.first_chunk::<16>()?;
    Some(Ipv6Addr::from(*octets))
}

/// The link-layer addresses that a message of neighbour discovery of this kind tells of its sender or target; none when its
/// options are broken.
pub fn macs(kind: u8, body: &[u8]) -> Option<impl Iterator<Item = MacAddr>> {
    let fixed = match kind {
        icmpv6::ROUTER_SOLICITATION => 4,
        icmpv6::SOLICITATION | icmpv6::ADVERTISEMENT => 20,
        _ => return None,
    };
    let options = body.get(fixed..)?;
    let is_whole = Options(options).all(|option| option.is_some());
    let mac = |(kind, value): (u8, &[u8])| match kind {
        SOURCE_MAC | TARGET_MAC => value.first_chunk::<6>().map(|octets| MacAddr(*octets)),
        _ => None,
    };
    is_whole.then(|| Options(options).flatten().filter_map(mac))
}

/// The options of a message (RFC 4861 section 4.6); a none ends them: the rest is broken.
struct Options<'a>(&'a [u8]);

impl<'a> Iterator for Options<'a> {
    type Item = Option<(u8, &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        let &[kind, len, ..] = self.0 else {
            // Nothing, or a lonely byte.
            return (!std::mem::take(&mut self.0).is_empty()).then_some(None);
        };
        let len = usize::from(len) * 8;
        match (len, self.0.split_at_checked(len)) {
            (1.., Some((option, rest))) => {
                self.0 = rest;
                Some(Some((kind, option.get(2..).unwrap_or_default())))
            }
            _ => {
                self.0 = &[];
                Some(None)
            }
        }
    }
}

/// The link-local address that is made of a MAC address (RFC 4291 appendix A).
pub fn link_local(mac: MacAddr) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 0x02, b, c, 0xff, 0xfe, d, e, f])
}

/// The MAC address that a link-local address is made of, if it is made of one.
pub fn mac_of(addr: Ipv6Addr) -> Option<MacAddr> {
    match addr.octets() {
        [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a, b, c, 0xff, 0xfe, d, e, f] => {
            Some(MacAddr([a ^ 0x02, b, c, d, e, f]))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{Icmpv6Type, PacketHeaders, TransportHeader};

    use super::*;

    const ASKER: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const HOLDER: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
    const TARGET: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);

    /// A solicitation for [`TARGET`] as the payload of its frame, with these options.
    fn question(source: Ipv6Addr, options: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, (24 + options.len()) as u8, icmpv6::PROTOCOL, 255];
        packet.extend(source.octets());
        packet.extend(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 2).octets());
        packet.extend([icmpv6::SOLICITATION, 0, 0, 0, 0, 0, 0, 0]);
        packet.extend(TARGET.octets());
        packet.extend_from_slice(options);
        packet
    }

    fn read(packet: &[u8]) -> Option<Solicitation> {
        Solicitation::read(&Icmpv6::parse(packet)?)
    }

    /// What a frame says by another reader: who has what, flags, for whom; its checksum is right.
    fn told(frame: &[u8]) -> (MacAddr, u8, Ipv6Addr) {
        let parsed = PacketHeaders::from_ethernet_slice(frame).unwrap();
        let Some(etherparse::NetHeaders::Ipv6(ip, _)) = &parsed.net else { panic!("{parsed:?}") };
        let Some(TransportHeader::Icmpv6(icmp)) = &parsed.transport else { panic!("{parsed:?}") };
        let payload = parsed.payload.slice();
        assert_eq!(icmp.icmp_type.calc_checksum(ip.source, ip.destination, payload), Ok(icmp.checksum));
        assert!(matches!(icmp.icmp_type, Icmpv6Type::NeighborAdvertisement(_)), "{icmp:?}");
        assert_eq!((ip.source, ip.hop_limit), (TARGET.octets(), 255));
        let message = Icmpv6::parse(&frame[ether::LEN..]).unwrap();
        assert_eq!(target(message.body), Some(TARGET));
        (macs(message.kind, message.body).unwrap().next().unwrap(), message.body[0], message.destination)
    }

    #[test]
    fn a_question_is_answered_to_the_asker_and_a_probe_to_everybody() {
        let asker: Ipv6Addr = "fd00::1".parse().unwrap();
        let asked = read(&question(asker, &[SOURCE_MAC, 1, 2, 0, 0, 0, 0, 1])).unwrap();
        assert_eq!(asked, Solicitation { source: asker, target: TARGET });
        let frame = asked.answer(HOLDER, ASKER);
        assert_eq!(frame[..14], ether::header(ASKER, HOLDER, ether::IPV6));
        assert_eq!(told(&frame), (HOLDER, SOLICITED | OVERRIDE, asker));
        let probe = read(&question(Ipv6Addr::UNSPECIFIED, &[])).unwrap();
        assert!(probe.is_probe() && !asked.is_probe());
        let frame = probe.answer(HOLDER, ASKER);
        assert_eq!(frame[..6], [0x33, 0x33, 0, 0, 0, 1]);
        assert_eq!(told(&frame), (HOLDER, OVERRIDE, ALL_NODES));
    }

    #[test]
    fn what_breaks_a_rule_is_no_question() {
        let good = question(TARGET, &[]);
        assert!(read(&good).is_some());
        let with = |at: usize, byte| {
            let mut packet = good.clone();
            packet[at] = byte;
            read(&packet)
        };
        assert_eq!(with(7, 64), None, "a router passed it on");
        assert_eq!(with(ipv6::LEN, icmpv6::ADVERTISEMENT), None);
        assert_eq!(with(ipv6::LEN + 1, 1), None, "another code");
        assert_eq!(with(ipv6::LEN + 8, 0xff), None, "a group is nobody");
        assert_eq!(read(&question(TARGET, &[1, 0, 0, 0, 0, 0, 0, 0])), None, "an option without length");
        assert_eq!(read(&question(TARGET, &[1, 2, 0, 0, 0, 0, 0, 0])), None, "an option cut short");
        assert_eq!(read(&question(TARGET, &[1])), None);
    }

    #[test]
    fn a_link_local_address_is_made_of_a_mac_address() {
        let mac: MacAddr = "02:6d:65:00:00:01".parse().unwrap();
        let addr: Ipv6Addr = "fe80::6d:65ff:fe00:1".parse().unwrap();
        assert_eq!((link_local(mac), mac_of(addr)), (addr, Some(mac)));
        assert_eq!(mac_of("fe80::1".parse().unwrap()), None);
        assert_eq!(mac_of("fd00::6d:65ff:fe00:1".parse().unwrap()), None);
    }
}
