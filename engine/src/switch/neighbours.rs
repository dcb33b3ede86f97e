//! Who has this address? The switch knows, and answers in the place of whoever has it.
//!
//! Asked by a local port for an endpoint that was told of, or for the gateway. Never for the asker's own address. A probe for
//! duplicates (RFC 5227 section 2.1.1) is answered too: for whoever asks it means that the address is taken, and it is.

use super::{Port, Reply};
use crate::network::Network;
use crate::wire::arp::Arp;
use crate::wire::ether::{self, Ether};

/// The answer to a question from `from`; none when somebody else has to answer, or nobody.
///
/// Questions from remotes are for the host that asks, or for the endpoint itself when a VTEP does.
pub(super) fn answer(network: &Network, from: Port, ether: &Ether<'_>) -> Option<Reply> {
    if ether.ethertype() != ether::ARP || ether.tags() != 0 || !matches!(from, Port::Tap(_)) {
        return None;
    }
    let request = Arp::parse(ether.payload()).filter(Arp::is_question)?;
    let mac = network.holder(request.target_ip.into())?;
    let own = mac == ether.source() || mac == request.sender_mac;
    (!own).then(|| request.answer(mac))
}
