//! ARP for IPv4 over Ethernet (RFC 826).

use std::net::Ipv4Addr;

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::ether;
use crate::types::MacAddr;

/// Length of a packet in bytes.
pub const LEN: usize = 28;
/// Length of an untagged frame that carries one, in bytes, without padding.
pub const FRAME_LEN: usize = ether::LEN + LEN;

const HARDWARE_ETHERNET: u16 = 1;
const REQUEST: u16 = 1;
const REPLY: u16 = 2;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Raw {
    hardware: U16,
    protocol: U16,
    hardware_len: u8,
    protocol_len: u8,
    operation: U16,
    sender_mac: [u8; 6],
    sender_ip: [u8; 4],
    target_mac: [u8; 6],
    target_ip: [u8; 4],
}

/// An ARP packet that speaks of IPv4 and Ethernet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arp {
    /// 1 asks, 2 answers.
    pub operation: u16,
    /// Who speaks.
    pub sender_mac: MacAddr,
    /// The speaker's address; zero in a probe for duplicates.
    pub sender_ip: Ipv4Addr,
    /// The address in question.
    pub target_ip: Ipv4Addr,
}

impl Arp {
    /// Reads a packet; none when it is cut short or about other protocols. Padding behind it is ignored.
    pub fn parse(packet: &[u8]) -> Option<Self> {
        let (raw, _) = Raw::ref_from_prefix(packet).ok()?;
        let known = raw.hardware.get() == HARDWARE_ETHERNET
            && raw.protocol.get() == ether::IPV4
            && (raw.hardware_len, raw.protocol_len) == (6, 4);
        known.then(|| Arp {
            operation: raw.operation.get(),
            sender_mac: MacAddr(raw.sender_mac),
            sender_ip: raw.sender_ip.into(),
            target_ip: raw.target_ip.into(),
        })
    }

    /// True for a request that another may answer: no announcement (sender and target the same).
    pub fn is_question(&self) -> bool {
        self.operation == REQUEST && self.sender_ip != self.target_ip
    }

    /// The frame that answers this request: the address in question is at `mac`.
    pub fn answer(&self, mac: MacAddr) -> [u8; FRAME_LEN] {
        let raw = Raw {
            hardware: HARDWARE_ETHERNET.into(),
            protocol: ether::IPV4.into(),
            hardware_len: 6,
            protocol_len: 4,
            operation: REPLY.into(),
            sender_mac: mac.0,
            sender_ip: self.target_ip.octets(),
            target_mac: self.sender_mac.0,
            target_ip: self.sender_ip.octets(),
        };
        raw.in_frame(self.sender_mac, mac)
    }
}

impl Raw {
    fn in_frame(&self, to: MacAddr, from: MacAddr) -> [u8; FRAME_LEN] {
        let mut frame = [0; FRAME_LEN];
        let (header, packet) = frame.split_at_mut(ether::LEN);
        header.copy_from_slice(&ether::header(to, from, ether::ARP));
        packet.copy_from_slice(self.as_bytes());
        frame
    }
}

/// The broadcast frame that tells everybody that `addr` is at `mac` (RFC 5227 section 3).
pub fn announcement(addr: Ipv4Addr, mac: MacAddr) -> [u8; FRAME_LEN] {
    let raw = Raw {
        hardware: HARDWARE_ETHERNET.into(),
        protocol: ether::IPV4.into(),
        hardware_len: 6,
        protocol_len: 4,
        operation: REQUEST.into(),
        sender_mac: mac.0,
        sender_ip: addr.octets(),
        target_mac: [0; 6],
        target_ip: addr.octets(),
    };
    raw.in_frame(MacAddr::BROADCAST, mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKER: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const HOLDER: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

    fn request(sender: [u8; 4], target: [u8; 4]) -> [u8; LEN] {
        let mut packet = [0; LEN];
        packet[..8].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
        packet[8..14].copy_from_slice(&ASKER.0);
        packet[14..18].copy_from_slice(&sender);
        packet[24..].copy_from_slice(&target);
        packet
    }

    #[test]
    fn a_question_is_answered() {
        let question = Arp::parse(&request([10, 32, 0, 1], [10, 32, 0, 2])).unwrap();
        assert!(question.is_question());
        let frame = question.answer(HOLDER);
        assert_eq!(frame[..14], ether::header(ASKER, HOLDER, ether::ARP));
        let answer = Arp::parse(&frame[14..]).unwrap();
        assert_eq!((answer.operation, answer.sender_mac), (REPLY, HOLDER));
        assert_eq!((answer.sender_ip, answer.target_ip), (question.target_ip, question.sender_ip));
        assert!(!answer.is_question());
    }

    #[test]
    fn an_announcement_tells_everybody_and_asks_nobody() {
        let frame = announcement([10, 32, 0, 2].into(), HOLDER);
        assert_eq!(frame[..14], ether::header(MacAddr::BROADCAST, HOLDER, ether::ARP));
        let told = Arp::parse(&frame[14..]).unwrap();
        assert_eq!((told.operation, told.sender_mac), (REQUEST, HOLDER));
        assert_eq!((told.sender_ip, told.target_ip), ([10, 32, 0, 2].into(), [10, 32, 0, 2].into()));
        assert!(!told.is_question());
    }

    #[test]
    fn announcements_and_other_protocols_are_not_questions_but_probes_are() {
        assert!(Arp::parse(&request([0; 4], [10, 32, 0, 2])).unwrap().is_question());
        assert!(!Arp::parse(&request([10, 32, 0, 2], [10, 32, 0, 2])).unwrap().is_question());
        let mut foreign = request([10, 32, 0, 1], [10, 32, 0, 2]);
        foreign[1] = 6;
        assert_eq!(Arp::parse(&foreign), None);
        assert_eq!(Arp::parse(&foreign[..27]), None);
    }
}
