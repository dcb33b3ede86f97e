//! How far a flood goes: each kind of frame for many no further than somebody may want it.
//!
//! | frame | goes to |
//! | --- | --- |
//! | broadcast, a question nobody here can answer, a group of the link itself, an unknown station | everybody |
//! | a group that people join | its members, and VTEPs, whose stations' wishes are not known here |
//! | a report of such groups | the other hosts, when it is news for them; VTEPs |
//! | an announcement of what all hosts were told, the question for a router | VTEPs |
//!
//! What nobody is left for is dropped, by a name of its own.

use std::net::{IpAddr, Ipv6Addr};

use super::{Port, Switch};
use crate::counters::DropReason;
use crate::network::Network;
use crate::tables::{PortIndex, RemoteIndex};
use crate::types::MacAddr;
use crate::wire::arp::Arp;
use crate::wire::ether::{self, Ether};
use crate::wire::group::{Change, Changes, IGMP, Message, is_joinable};
use crate::wire::icmpv6::{self, Icmpv6};
use crate::wire::{ipv4, ipv6, ndp};

/// How far a flood goes. From a remote to local ports only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// To everybody on the network.
    All,
    /// To whoever has joined the group, and to VTEPs.
    Members(IpAddr),
    /// To other hosts and VTEPs.
    Remotes,
    /// To VTEPs.
    Vteps,
}

impl Switch {
    /// How far a frame goes that is not for one known station. Takes note of what it says of groups.
    pub(super) fn reach(
        &self,
        network: &Network,
        from: Port,
        ether: &Ether<'_>,
        now_s: u32,
    ) -> Result<Reach, DropReason> {
        if ether.tags() != 0 || !ether.destination().is_group() {
            return Ok(Reach::All);
        }
        let here = matches!(from, Port::Tap(_));
        match ether.ethertype() {
            ether::ARP if here && tells_known(network, ether) => self.vteps(network, DropReason::ToldAlready),
            ether::IPV4 => self.reach_v4(network, from, ether.payload(), now_s),
            ether::IPV6 => self.reach_v6(network, from, ether, now_s),
            _ => Ok(Reach::All),
        }
    }

    fn reach_v4(
        &self,
        network: &Network,
        from: Port,
        packet: &[u8],
        now_s: u32,
    ) -> Result<Reach, DropReason> {
        let Some(&[first, _, _, _, _, _, _, _, _, protocol, _, _, _, _, _, _, a, b, c, d]) =
            packet.first_chunk::<{ ipv4::LEN }>()
        else {
            return Ok(Reach::All);
        };
        let message = packet.get(usize::from(first & 0x0f) * 4..).filter(|_| protocol == IGMP);
        if let Some(Message::Report(changes)) = message.and_then(Message::igmp) {
            return self.report(network, from, &changes, now_s);
        }
        self.members(network, from, IpAddr::from([a, b, c, d]))
    }

    fn reach_v6(
        &self,
        network: &Network,
        from: Port,
        ether: &Ether<'_>,
        now_s: u32,
    ) -> Result<Reach, DropReason> {
        let packet = ether.payload();
        let Some(group) = packet.get(24..ipv6::LEN).and_then(<[u8]>::first_chunk::<16>) else {
            return Ok(Reach::All);
        };
        if let Some(message) = Icmpv6::parse(packet) {
            if let Some(Message::Report(changes)) = Message::mld(&message) {
                return self.report(network, from, &changes, now_s);
            }
            match (message.kind, from) {
                (icmpv6::ROUTER_SOLICITATION, Port::Tap(_)) => {
                    return self.vteps(network, DropReason::RouterSolicitation);
                }
                (icmpv6::ADVERTISEMENT, Port::Tap(_))
                    if advertises_known(network, ether.source(), &message) =>
                {
                    return self.vteps(network, DropReason::ToldAlready);
                }
                _ => {}
            }
        }
        self.members(network, from, Ipv6Addr::from(*group).into())
    }

    /// A frame for `group`.
    fn members(&self, network: &Network, from: Port, group: IpAddr) -> Result<Reach, DropReason> {
        let reach = if is_joinable(group) { Reach::Members(group) } else { return Ok(Reach::All) };
        self.or_dropped(network, from, reach, DropReason::NoMember)
    }

    fn vteps(&self, network: &Network, reason: DropReason) -> Result<Reach, DropReason> {
        let any = network.remotes().iter().any(|&remote| self.is_vtep(remote));
        if any { Ok(Reach::Vteps) } else { Err(reason) }
    }

    fn or_dropped(
        &self,
        network: &Network,
        from: Port,
        reach: Reach,
        reason: DropReason,
    ) -> Result<Reach, DropReason> {
        let (mut ports, mut remotes) = self.flood(from, network.vni(), reach);
        let any = ports.next().is_some() || remotes.next().is_some();
        if any { Ok(reach) } else { Err(reason) }
    }

    /// Takes note of a report, and passes it on when it is news for other hosts: somebody wants a group, or nobody here wants it
    /// any more.
    fn report(
        &self,
        network: &Network,
        from: Port,
        changes: &Changes<'_>,
        now_s: u32,
    ) -> Result<Reach, DropReason> {
        let joinable =
            || changes.clone().filter(|&(Change::Join(group) | Change::Leave(group))| is_joinable(group));
        let groups = network.groups();
        let (mut joined, mut full) = (false, false);
        for change in joinable() {
            if let Change::Join(group) = change {
                joined = true;
                full |= !groups.join(group, from, now_s);
            }
        }
        // A host that tells both speaks of one container; what others of its containers want it does not say with it.
        let leaves = !joined || matches!(from, Port::Tap(_));
        let mut left = false;
        for change in joinable().filter(|_| leaves) {
            if let Change::Leave(group) = change {
                groups.leave(group, from);
                left |= !network.ports().iter().any(|&port| groups.has(group, Port::Tap(port)));
            }
        }
        match from {
            _ if full => Err(DropReason::GroupLimit),
            Port::Tap(_) if joined || left => {
                self.or_dropped(network, from, Reach::Remotes, DropReason::GroupReport)
            }
            Port::Tap(_) | Port::Remote(_) => Err(DropReason::GroupReport),
        }
    }

    pub(super) fn is_vtep(&self, remote: RemoteIndex) -> bool {
        self.tables.remote(remote).is_some_and(|remote| remote.peer.is_none())
    }

    /// Whether a flood of this reach goes to a local port, and to a remote.
    pub(super) fn reaches_port(&self, network: &Network, reach: Reach, port: PortIndex) -> bool {
        match reach {
            Reach::All => true,
            Reach::Members(group) => network.groups().has(group, Port::Tap(port)),
            Reach::Remotes | Reach::Vteps => false,
        }
    }

    pub(super) fn reaches_remote(&self, network: &Network, reach: Reach, remote: RemoteIndex) -> bool {
        match reach {
            Reach::All | Reach::Remotes => true,
            Reach::Members(group) => {
                self.is_vtep(remote) || network.groups().has(group, Port::Remote(remote))
            }
            Reach::Vteps => self.is_vtep(remote),
        }
    }
}

/// Whether an ARP packet tells everybody what every host was told: that its sender has its address.
fn tells_known(network: &Network, ether: &Ether<'_>) -> bool {
    let announced = Arp::parse(ether.payload()).filter(|arp| !arp.is_question());
    announced.is_some_and(|arp| {
        arp.sender_mac == ether.source()
            && network.pins().mac_of(arp.sender_ip.into()) == Some(arp.sender_mac)
    })
}

/// The same of an advertisement of a neighbour.
fn advertises_known(network: &Network, source: MacAddr, message: &Icmpv6<'_>) -> bool {
    let target = ndp::target(message.body);
    target.is_some_and(|target| {
        network.pins().mac_of(target.into()) == Some(source)
            || (ndp::mac_of(target) == Some(source) && network.pins().get(source).is_some())
    })
}

/// Whether a frame from elsewhere claims an address of the gateway, which only this switch may.
pub(super) fn claims_gateway(network: &Network, ether: &Ether<'_>) -> bool {
    let claimed = match ether.ethertype() {
        ether::ARP => Arp::parse(ether.payload()).map(|arp| arp.sender_ip.into()),
        ether::IPV6 => {
            // The next header: ICMPv6, or one that it may stand behind.
            let next = ether.payload().get(6).filter(|next| matches!(**next, 0 | 60 | icmpv6::PROTOCOL));
            let message = next.and_then(|_| Icmpv6::parse(ether.payload()));
            let advertised = message.filter(|message| message.kind == icmpv6::ADVERTISEMENT);
            advertised.and_then(|message| ndp::target(message.body)).map(IpAddr::from)
        }
        _ => None,
    };
    claimed.is_some_and(|addr| network.is_gateway(addr))
}
