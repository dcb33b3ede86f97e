//! The messages of nf_tables (linux/netfilter/nf_tables.h, nfnetlink.h), as far as our rules need them.

use std::io;
use std::net::IpAddr;

use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST, NLMSG_ERROR};

use crate::types::IpPrefix;

/// The name of our tables.
const TABLE: &str = "meshnet";
/// `NF_ACCEPT`: what no rule speaks of passes.
pub(super) const ACCEPT_ALL: u32 = 1;
/// `NF_DROP`.
const NF_DROP: u32 = 0;

/// Length of `nlmsghdr` and of `nfgenmsg`.
const HEADERS_LEN: usize = 16 + 4;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM: u16 = 10;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const DELETE_TABLE: u16 = SUBSYSTEM << 8 | 2;
const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;
/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;
/// `NFT_REG_1`: where an expression leaves what the next one looks at.
const REGISTER: u32 = 1;
/// `NFT_REG_VERDICT`.
const VERDICT: u32 = 0;
/// Length of an interface's name in a register (`IFNAMSIZ`).
const NAME_LEN: usize = 16;

/// The table's family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Family {
    V4,
    V6,
}

/// A chain and where it hangs in the kernel's way of a packet.
pub(super) struct Chain {
    name: &'static str,
    kind: &'static str,
    hook: u32,
    priority: u32,
}

/// Packets that pass through this host.
pub(super) const FORWARD: Chain = Chain { name: "forward", kind: "filter", hook: 2, priority: 0 };
/// Packets on their way out.
pub(super) const POSTROUTING: Chain = Chain { name: "postrouting", kind: "nat", hook: 4, priority: 100 };

/// A condition or the end of a rule.
pub(super) enum Expression {
    /// By which interface: `NFT_META_IIFNAME` or `NFT_META_OIFNAME`, its name, and whether it is to be that one.
    Interface(u32, [u8; NAME_LEN], bool),
    /// Whether the source address is to be in the subnet.
    From(IpPrefix, bool),
    Drop,
    Masquerade,
}

impl Expression {
    const IIFNAME: u32 = 6;
    const OIFNAME: u32 = 7;

    pub(super) fn comes_by(ifname: &str) -> Self {
        Expression::Interface(Self::IIFNAME, padded(ifname), true)
    }

    pub(super) fn leaves_by(ifname: &str, wanted: bool) -> Self {
        Expression::Interface(Self::OIFNAME, padded(ifname), wanted)
    }

    pub(super) fn is_from(subnet: IpPrefix, wanted: bool) -> Self {
        Expression::From(subnet, wanted)
    }

    fn write(&self, list: &mut Vec<u8>) {
        match self {
            Expression::Interface(key, name, wanted) => {
                element(list, "meta", |data| {
                    number(data, 2, *key);
                    number(data, 1, REGISTER);
                });
                compare(list, name, *wanted);
            }
            Expression::From(subnet, wanted) => write_source(list, *subnet, *wanted),
            Expression::Drop => element(list, "immediate", |data| {
                number(data, 1, VERDICT);
                nested(data, 2, |value| nested(value, 2, |verdict| number(verdict, 1, NF_DROP)));
            }),
            Expression::Masquerade => element(list, "masq", |_| {}),
        }
    }
}

/// Source address into the register, masked, compared with the subnet.
fn write_source(list: &mut Vec<u8>, subnet: IpPrefix, wanted: bool) {
    const NETWORK_HEADER: u32 = 1;
    let (address, offset) = match subnet.addr {
        IpAddr::V4(addr) => (addr.octets().to_vec(), 12),
        IpAddr::V6(addr) => (addr.octets().to_vec(), 8),
    };
    let mask: Vec<u8> = (0..address.len()).map(|at| mask_byte(subnet.len, at)).collect();
    let network: Vec<u8> = address.iter().zip(&mask).map(|(address, mask)| address & mask).collect();
    let len = address.len() as u32;
    element(list, "payload", |data| {
        for (kind, value) in [(1, REGISTER), (2, NETWORK_HEADER), (3, offset), (4, len)] {
            number(data, kind, value);
        }
    });
    element(list, "bitwise", |data| {
        for (kind, value) in [(1, REGISTER), (2, REGISTER), (3, len)] {
            number(data, kind, value);
        }
        nested(data, 4, |value| attribute(value, 1, &mask));
        nested(data, 5, |value| attribute(value, 1, &vec![0; address.len()]));
    });
    compare(list, &network, wanted);
}

fn mask_byte(len: u8, at: usize) -> u8 {
    let ones = usize::from(len).saturating_sub(8 * at).min(8);
    !(0xff_u16 >> ones) as u8
}

fn compare(list: &mut Vec<u8>, with: &[u8], equal: bool) {
    element(list, "cmp", |data| {
        number(data, 1, REGISTER);
        number(data, 2, u32::from(!equal));
        nested(data, 3, |value| attribute(value, 1, with));
    });
}

fn padded(ifname: &str) -> [u8; NAME_LEN] {
    let mut name = [0; NAME_LEN];
    // The last byte stays zero: names are shorter.
    name.iter_mut().take(NAME_LEN - 1).zip(ifname.bytes()).for_each(|(to, from)| *to = from);
    name
}

/// One expression of a rule: `NFTA_LIST_ELEM` with name and data.
fn element(list: &mut Vec<u8>, name: &str, data: impl FnOnce(&mut Vec<u8>)) {
    nested(list, 1, |element| {
        text(element, 1, name);
        nested(element, 2, data);
    });
}

/// A transaction: all of it is done, or nothing.
pub(super) struct Batch {
    family: u8,
    bytes: Vec<u8>,
    sequence: u32,
}

impl Batch {
    /// An empty transaction for tables of this family.
    pub(super) fn new(family: Family) -> Self {
        let family = match family {
            Family::V4 => 2,
            Family::V6 => 10,
        };
        let mut batch = Batch { family, bytes: Vec::new(), sequence: 0 };
        batch.mark(BATCH_BEGIN);
        batch
    }

    pub(super) fn add_table(&mut self) {
        self.message(NEW_TABLE, NLM_F_CREATE, self.family, 0, |body| text(body, 1, TABLE));
    }

    pub(super) fn delete_table(&mut self) {
        self.message(DELETE_TABLE, 0, self.family, 0, |body| text(body, 1, TABLE));
    }

    pub(super) fn add_chain(&mut self, chain: &Chain, policy: u32) {
        self.message(NEW_CHAIN, NLM_F_CREATE, self.family, 0, |body| {
            text(body, 1, TABLE);
            text(body, 3, chain.name);
            nested(body, 4, |hook| {
                number(hook, 1, chain.hook);
                number(hook, 2, chain.priority);
            });
            number(body, 5, policy);
            text(body, 7, chain.kind);
        });
    }

    pub(super) fn add_rule(&mut self, chain: &Chain, rule: &[Expression]) {
        self.message(NEW_RULE, NLM_F_CREATE | NLM_F_APPEND, self.family, 0, |body| {
            text(body, 1, TABLE);
            text(body, 2, chain.name);
            nested(body, 4, |list| rule.iter().for_each(|expression| expression.write(list)));
        });
    }

    /// The whole, and the number of the message whose acknowledgement says that it was done.
    pub(super) fn finish(mut self) -> (Vec<u8>, u32) {
        let last = self.sequence;
        self.mark(BATCH_END);
        (self.bytes, last)
    }

    /// Begin and end name the subsystem instead of a family.
    fn mark(&mut self, kind: u16) {
        self.message(kind, 0, 0, SUBSYSTEM, |_| {});
    }

    fn message(&mut self, kind: u16, flags: u16, family: u8, resource: u16, body: impl FnOnce(&mut Vec<u8>)) {
        let acknowledged = if matches!(kind, BATCH_BEGIN | BATCH_END) { 0 } else { NLM_F_ACK };
        self.sequence += 1;
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(NLM_F_REQUEST | flags | acknowledged).to_ne_bytes());
        self.bytes.extend_from_slice(&self.sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&[family, 0]);
        self.bytes.extend_from_slice(&resource.to_be_bytes());
        body(&mut self.bytes);
        let len = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&len.to_ne_bytes());
    }
}

/// What the kernel's replies say of a transaction whose last message has this number; none: more is to come.
pub(super) fn outcome(mut replies: &[u8], last: u32) -> Option<io::Result<()>> {
    let word = |bytes: &[u8], at: usize| bytes.get(at..)?.first_chunk().copied();
    while let Some(len) = word(replies, 0).map(u32::from_ne_bytes) {
        let kind = replies.get(4..6).and_then(<[u8]>::first_chunk).map(|kind| u16::from_ne_bytes(*kind));
        let sequence = word(replies, 8).map(u32::from_ne_bytes);
        let error = word(replies, 16).map(i32::from_ne_bytes);
        match (kind, error) {
            (Some(NLMSG_ERROR), Some(0)) if sequence == Some(last) => return Some(Ok(())),
            (Some(NLMSG_ERROR), Some(error)) if error != 0 => {
                return Some(Err(io::Error::from_raw_os_error(error.saturating_neg())));
            }
            _ => {}
        }
        let next = (len as usize).max(HEADERS_LEN).next_multiple_of(4);
        replies = replies.get(next..).unwrap_or_default();
    }
    None
}

/// An attribute, padded to four bytes.
fn attribute(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    out.extend_from_slice(&((4 + value.len()) as u16).to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

fn number(out: &mut Vec<u8>, kind: u16, value: u32) {
    attribute(out, kind, &value.to_be_bytes());
}

fn text(out: &mut Vec<u8>, kind: u16, value: &str) {
    attribute(out, kind, &[value.as_bytes(), &[0]].concat());
}

fn nested(out: &mut Vec<u8>, kind: u16, write: impl FnOnce(&mut Vec<u8>)) {
    let mut inner = Vec::new();
    write(&mut inner);
    attribute(out, kind | NESTED, &inner);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_the_leading_bits() {
        let mask = |len| (0..4).map(|at| mask_byte(len, at)).collect::<Vec<_>>();
        assert_eq!([mask(0), mask(12), mask(32)], [[0; 4], [255, 240, 0, 0], [255; 4]]);
    }

    #[test]
    fn only_the_last_acknowledgement_and_any_error_count() {
        let reply = |sequence: u32, code: i32| {
            let mut bytes = [36_u32.to_ne_bytes(), [2, 0, 0, 0], sequence.to_ne_bytes(), [0; 4]].concat();
            bytes.extend_from_slice(&code.to_ne_bytes());
            bytes.resize(36, 0);
            bytes
        };
        assert!(outcome(&reply(3, 0), 4).is_none());
        assert!(outcome(&[reply(3, 0), reply(4, 0)].concat(), 4).unwrap().is_ok());
        let refused = outcome(&[reply(2, -libc::ENOENT), reply(4, 0)].concat(), 4).unwrap();
        assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::ENOENT));
        assert!(outcome(&[1, 0, 0], 4).is_none());
    }
}
