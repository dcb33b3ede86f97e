//! Who wants which multicast groups: IGMP (RFC 1112, 2236, 3376) and MLD (RFC 2710, 3810).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::checksum::Sum;
use super::icmpv6::{self, Ends, Icmpv6};
use super::{ether, ipv4, ipv6};
use crate::types::MacAddr;

/// The protocol number of IGMP.
pub const IGMP: u8 = 2;

/// Types of IGMP messages: query, reports of the versions 1 and 2, leave, report of version 3.
const QUERY: u8 = 0x11;
const REPORT_1: u8 = 0x12;
const REPORT_2: u8 = 0x16;
const LEAVE: u8 = 0x17;
const REPORT_3: u8 = 0x22;

/// Types of records in a report with sources (RFC 3376 section 4.2.12, RFC 3810 section 5.2.12).
const IS_INCLUDE: u8 = 1;
const IS_EXCLUDE: u8 = 2;
const TO_INCLUDE: u8 = 3;
const TO_EXCLUDE: u8 = 4;
const ALLOW: u8 = 5;

/// What is said of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// It is wanted, from some sources at least.
    Join(IpAddr),
    /// It is not wanted any more.
    Leave(IpAddr),
}

/// A message about groups.
#[derive(Clone, Debug)]
pub enum Message<'a> {
    /// Somebody asks who wants what.
    Query,
    /// A station says what it wants.
    Report(Changes<'a>),
}

/// What a report says, group by group. A record that is cut short ends it.
#[derive(Clone, Debug)]
pub struct Changes<'a> {
    single: Option<Change>,
    records: &'a [u8],
    count: u16,
    /// Length of an address in bytes.
    width: usize,
}

impl<'a> Message<'a> {
    /// Reads an IGMP message, which is the payload of its packet.
    pub fn igmp(message: &'a [u8]) -> Option<Self> {
        let (&[kind, _, _, _, a, b, c, d], rest) = message.split_first_chunk::<8>()?;
        let group = IpAddr::from([a, b, c, d]);
        Some(match kind {
            QUERY => Message::Query,
            REPORT_1 | REPORT_2 => Message::one(Change::Join(group)),
            LEAVE => Message::one(Change::Leave(group)),
            REPORT_3 => Message::records(u16::from_be_bytes([c, d]), rest, 4),
            _ => return None,
        })
    }

    /// Reads an MLD message.
    pub fn mld(message: &Icmpv6<'a>) -> Option<Self> {
        let single = || Some(IpAddr::from(*message.body.get(4..)?.first_chunk::<16>()?));
        Some(match message.kind {
            icmpv6::LISTENER_QUERY => Message::Query,
            icmpv6::LISTENER_REPORT => Message::one(Change::Join(single()?)),
            icmpv6::LISTENER_DONE => Message::one(Change::Leave(single()?)),
            icmpv6::LISTENER_REPORT_2 => {
                let (&[_, _, high, low], rest) = message.body.split_first_chunk::<4>()?;
                Message::records(u16::from_be_bytes([high, low]), rest, 16)
            }
            _ => return None,
        })
    }

    fn one(change: Change) -> Self {
        Message::Report(Changes { single: Some(change), records: &[], count: 0, width: 0 })
    }

    fn records(count: u16, records: &'a [u8], width: usize) -> Self {
        Message::Report(Changes { single: None, records, count, width })
    }
}

impl Changes<'_> {
    /// The next record that says anything of a group.
    fn record(&mut self) -> Option<Change> {
        while self.count > 0 {
            self.count -= 1;
            let (&[kind, auxiliary, high, low], rest) = self.records.split_first_chunk::<4>()?;
            let sources = usize::from(u16::from_be_bytes([high, low]));
            let (group, rest) = rest.split_at_checked(self.width)?;
            self.records = rest.get(sources * self.width + usize::from(auxiliary) * 4..)?;
            let group = address(group)?;
            match (kind, sources) {
                (IS_EXCLUDE | TO_EXCLUDE, _) | (IS_INCLUDE | TO_INCLUDE | ALLOW, 1..) => {
                    return Some(Change::Join(group));
                }
                (TO_INCLUDE, 0) => return Some(Change::Leave(group)),
                _ => {}
            }
        }
        None
    }
}

impl Iterator for Changes<'_> {
    type Item = Change;

    fn next(&mut self) -> Option<Change> {
        let change = self.single.take().or_else(|| self.record());
        if change.is_none() {
            self.count = 0;
        }
        change
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    <[u8; 16]>::try_from(bytes).map(IpAddr::from).or_else(|_| v4()).ok()
}

/// Whether a group is one that people join: a multicast address that is not for the protocols of one link, which everybody gets
/// (RFC 4541 sections 2.1.2 and 3).
pub fn is_joinable(group: IpAddr) -> bool {
    match group {
        IpAddr::V4(group) => group.is_multicast() && group.octets()[..3] != [224, 0, 0],
        // The scope: interface and link are 1 and 2 (RFC 4291 section 2.7).
        IpAddr::V6(group) => group.is_multicast() && group.octets()[1] & 0x0f > 2,
    }
}

/// Seconds between two general queries (RFC 3376 section 8.2).
pub const QUERY_INTERVAL_S: u8 = 125;

/// How often a report may be lost (RFC 3376 section 8.1).
const ROBUSTNESS: u8 = 2;

/// Within a second: a port has one station, so that answers do not come all at once.
const RESPONSE_TENTHS: u8 = 10;

/// Length in bytes of an IGMP query in its frame: an IPv4 header with the router alert option, and the message.
pub const IGMP_QUERY_LEN: usize = ether::LEN + ipv4::LEN + 4 + 12;
/// Length in bytes of an MLD query in its frame.
pub const MLD_QUERY_LEN: usize = ether::LEN + ipv6::LEN + ROUTER_ALERT.len() + 28;

/// A hop-by-hop header with the router alert for MLD (RFC 2711 section 2.1), and padding.
const ROUTER_ALERT: [u8; 8] = [icmpv6::PROTOCOL, 0, 5, 2, 0, 0, 1, 0];

/// The frame that asks a station which IPv4 groups it wants, from `mac` with the address `source`.
pub fn igmp_query(mac: MacAddr, source: Ipv4Addr) -> [u8; IGMP_QUERY_LEN] {
    let all = Ipv4Addr::new(224, 0, 0, 1);
    let mut message = [QUERY, RESPONSE_TENTHS, 0, 0, 0, 0, 0, 0, ROBUSTNESS, QUERY_INTERVAL_S, 0, 0];
    let sum = Sum::default().bytes(&message).checksum();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    // Header of six words, internetwork control, time to live 1, router alert (RFC 3376 section 4, RFC 2113).
    let mut header = [0x46, 0xc0, 0, 36, 0, 0, 0x40, 0, 1, IGMP, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x94, 4, 0, 0];
    header[12..16].copy_from_slice(&source.octets());
    header[16..20].copy_from_slice(&all.octets());
    let sum = Sum::default().bytes(&header).checksum();
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut frame = [0; IGMP_QUERY_LEN];
    let (outer, rest) = frame.split_at_mut(ether::LEN);
    outer.copy_from_slice(&ether::header(MacAddr([1, 0, 0x5e, 0, 0, 1]), mac, ether::IPV4));
    let (own, rest) = rest.split_at_mut(header.len());
    own.copy_from_slice(&header);
    rest.copy_from_slice(&message);
    frame
}

/// The frame that asks a station which IPv6 groups it wants, from `mac` with its link-local address.
pub fn mld_query(mac: MacAddr) -> [u8; MLD_QUERY_LEN] {
    let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let mut message = [0; 28];
    message[0] = icmpv6::LISTENER_QUERY;
    // In milliseconds.
    message[4..6].copy_from_slice(&(u16::from(RESPONSE_TENTHS) * 100).to_be_bytes());
    (message[24], message[25]) = (ROBUSTNESS, QUERY_INTERVAL_S);
    let from = (mac, super::ndp::link_local(mac));
    let ends = Ends { from, to: (icmpv6::group_mac(all), all), hop_limit: 1 };
    icmpv6::frame(ends, (0, &ROUTER_ALERT), &message)
}

#[cfg(test)]
mod tests {
    use etherparse::PacketHeaders;

    use super::*;

    fn v4(last: u8) -> IpAddr {
        IpAddr::from([239, 1, 2, last])
    }

    fn changes(message: Option<Message<'_>>) -> Vec<Change> {
        match message {
            Some(Message::Report(changes)) => changes.collect(),
            other => panic!("{other:?}"),
        }
    }

    fn icmp(kind: u8, body: &[u8]) -> Icmpv6<'_> {
        let (source, destination) = (Ipv6Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED);
        Icmpv6 { source, destination, hop_limit: 1, kind, code: 0, body }
    }

    #[test]
    fn the_old_versions_speak_of_one_group() {
        for (kind, change) in
            [(REPORT_1, Change::Join(v4(3))), (REPORT_2, Change::Join(v4(3))), (LEAVE, Change::Leave(v4(3)))]
        {
            assert_eq!(changes(Message::igmp(&[kind, 0, 0, 0, 239, 1, 2, 3])), [change]);
        }
        assert!(matches!(Message::igmp(&[QUERY, 0, 0, 0, 0, 0, 0, 0]), Some(Message::Query)));
        assert!(Message::igmp(&[REPORT_2, 0, 0, 0, 239, 1, 2]).is_none());
        let group: Ipv6Addr = "ff05::77".parse().unwrap();
        let body = [&[0; 4][..], &group.octets()].concat();
        assert_eq!(changes(Message::mld(&icmp(131, &body))), [Change::Join(group.into())]);
        assert_eq!(changes(Message::mld(&icmp(132, &body))), [Change::Leave(group.into())]);
        assert!(Message::mld(&icmp(131, &body[..19])).is_none() && Message::mld(&icmp(135, &body)).is_none());
    }

    /// Records of all kinds with their sources and auxiliary words.
    fn records(addr: impl Fn(u8) -> Vec<u8>) -> Vec<u8> {
        let mut bytes = Vec::new();
        let kinds = [(1, 0), (1, 2), (2, 0), (3, 0), (3, 1), (4, 1), (5, 1), (6, 1), (9, 0)];
        for (number, (kind, sources)) in (1..).zip(kinds) {
            bytes.extend([kind, number % 3, 0, sources]);
            bytes.extend(addr(number));
            (0..sources).for_each(|_| bytes.extend(addr(200)));
            bytes.resize(bytes.len() + 4 * usize::from(number % 3), 0xaa);
        }
        bytes
    }

    #[test]
    fn the_newer_versions_speak_of_many_groups_and_of_sources() {
        let of_v4 = records(|last| vec![239, 1, 2, last]);
        let message = [&[REPORT_3, 0, 0, 0, 0, 0, 0, 9][..], &of_v4].concat();
        let expected = |group: &dyn Fn(u8) -> IpAddr| {
            let joins = [2, 3].map(|n| Change::Join(group(n)));
            let rest = [5, 6, 7].map(|n| Change::Join(group(n)));
            [&joins[..], &[Change::Leave(group(4))], &rest].concat()
        };
        assert_eq!(changes(Message::igmp(&message)), expected(&v4));
        let v6 = |last: u8| Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, last.into());
        let body = [&[0, 0, 0, 9][..], &records(|last| v6(last).octets().to_vec())].concat();
        assert_eq!(changes(Message::mld(&icmp(143, &body))), expected(&|last| v6(last).into()));
        // Cut anywhere: what was whole before is taken.
        for len in 8..message.len() {
            assert!(expected(&v4).starts_with(&changes(Message::igmp(&message[..len]))));
        }
    }

    #[test]
    fn what_everybody_gets_is_not_joined() {
        let joinable = |text: &str| is_joinable(text.parse().unwrap());
        assert!(
            ["224.0.1.1", "239.255.255.250", "232.1.1.1", "ff05::2", "ff3e::8000:1"]
                .iter()
                .all(|g| joinable(g))
        );
        assert!(
            !["224.0.0.251", "ff02::fb", "ff02::1:ff00:2", "ff01::1", "10.32.0.2", "fd00::1"]
                .iter()
                .any(|g| joinable(g))
        );
    }

    #[test]
    fn queries_are_sound_by_another_reader() {
        let mac = MacAddr([2, 0, 0, 0, 0, 9]);
        let frame = igmp_query(mac, Ipv4Addr::new(10, 32, 0, 1));
        let parsed = PacketHeaders::from_ethernet_slice(&frame).unwrap();
        let Some(etherparse::NetHeaders::Ipv4(ip, _)) = &parsed.net else { panic!("{parsed:?}") };
        assert_eq!((ip.header_checksum, ip.time_to_live), (ip.calc_header_checksum(), 1));
        let payload = &frame[ether::LEN + 24..];
        assert!(Sum::default().bytes(payload).is_intact());
        assert!(matches!(Message::igmp(payload), Some(Message::Query)));

        let frame = mld_query(mac);
        let message = Icmpv6::parse(&frame[ether::LEN..]).unwrap();
        assert!(matches!(Message::mld(&message), Some(Message::Query)));
        let parsed = PacketHeaders::from_ethernet_slice(&frame).unwrap();
        let Some(etherparse::NetHeaders::Ipv6(ip, _)) = &parsed.net else { panic!("{parsed:?}") };
        let Some(etherparse::TransportHeader::Icmpv6(icmp)) = &parsed.transport else { panic!("{parsed:?}") };
        let payload = parsed.payload.slice();
        assert_eq!(icmp.icmp_type.calc_checksum(ip.source, ip.destination, payload), Ok(icmp.checksum));
    }
}
