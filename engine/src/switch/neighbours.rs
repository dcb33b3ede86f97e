//! Who has this address? The switch knows, and answers in the place of whoever has it.
//!
//! Asked by a local port for an endpoint that was told of, or for the gateway, by ARP or by neighbour discovery. Never for the
//! asker's own address. A probe for duplicates (RFC 5227 section 2.1.1, RFC 4862 section 5.4) is answered too: for whoever asks
//! it means that the address is taken, and it is.

use std::net::{IpAddr, Ipv6Addr};
use std::ops::Deref;

use super::Port;
use crate::network::Network;
use crate::types::MacAddr;
use crate::wire::arp::{self, Arp};
use crate::wire::ether::{self, Ether};
use crate::wire::icmpv6::Icmpv6;
use crate::wire::ndp::{self, Solicitation};

/// A whole frame of the switch itself.
#[derive(Clone, Copy, Debug)]
pub struct Reply {
    bytes: [u8; ndp::FRAME_LEN],
    len: usize,
}

impl Default for Reply {
    fn default() -> Self {
        Reply { bytes: [0; ndp::FRAME_LEN], len: 0 }
    }
}

impl Deref for Reply {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl From<[u8; arp::FRAME_LEN]> for Reply {
    fn from(frame: [u8; arp::FRAME_LEN]) -> Self {
        let mut reply = Reply { len: frame.len(), ..Reply::default() };
        reply.bytes[..arp::FRAME_LEN].copy_from_slice(&frame);
        reply
    }
}

impl From<[u8; ndp::FRAME_LEN]> for Reply {
    fn from(bytes: [u8; ndp::FRAME_LEN]) -> Self {
        Reply { bytes, len: bytes.len() }
    }
}

/// The frame that tells everybody that `addr` is at `mac`.
pub fn announcement(addr: IpAddr, mac: MacAddr) -> Reply {
    match addr {
        IpAddr::V4(addr) => arp::announcement(addr, mac).into(),
        IpAddr::V6(addr) => ndp::announcement(addr, mac).into(),
    }
}

/// The answer to a question from `from`; none when somebody else has to answer, or nobody.
///
/// Questions from remotes are for the host that asks, or for the endpoint itself when a VTEP does.
pub(super) fn answer(network: &Network, from: Port, ether: &Ether<'_>) -> Option<Reply> {
    if ether.tags() != 0 || !matches!(from, Port::Tap(_)) {
        return None;
    }
    match ether.ethertype() {
        ether::ARP => answer_arp(network, ether),
        ether::IPV6 => answer_solicitation(network, ether),
        _ => None,
    }
}

fn answer_arp(network: &Network, ether: &Ether<'_>) -> Option<Reply> {
    let request = Arp::parse(ether.payload()).filter(Arp::is_question)?;
    let mac = network.holder(request.target_ip.into())?;
    let own = mac == ether.source() || mac == request.sender_mac;
    (!own).then(|| request.answer(mac).into())
}

fn answer_solicitation(network: &Network, ether: &Ether<'_>) -> Option<Reply> {
    let question = Solicitation::read(&Icmpv6::parse(ether.payload())?)?;
    let mac = holder(network, question.target)?;
    (mac != ether.source()).then(|| question.answer(mac, ether.source()).into())
}

/// The station that has `addr`, which may be link-local.
fn holder(network: &Network, addr: Ipv6Addr) -> Option<MacAddr> {
    let named = ndp::mac_of(addr);
    let known = |mac: &MacAddr| *mac == MacAddr::gateway(network.vni()) || network.pins().get(*mac).is_some();
    named.filter(known).or_else(|| network.holder(addr.into()))
}
