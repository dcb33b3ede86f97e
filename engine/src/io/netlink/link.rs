//! Links: finding, changing, making and deleting network interfaces.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkExtentMask, LinkMessage,
};
use rtnetlink::packet_route::tc::{TcAttribute, TcHandle, TcMessage};
use rtnetlink::{LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVxlan};

use super::{Netlink, NetlinkError, attributes, number, string};
use crate::io::netns::Netns;
use crate::types::{MacAddr, Vni};

// linux/if_link.h
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_QDISC: u16 = 6;
const IFLA_MASTER: u16 = 10;
const IFLA_TXQLEN: u16 = 13;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_STATS64: u16 = 23;
const IFLA_GSO_MAX_SIZE: u16 = 41;
const IFLA_GSO_IPV4_MAX_SIZE: u16 = 63;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_TUN_PERSIST: u16 = 6;
const IFLA_TUN_MULTI_QUEUE: u16 = 7;
const IFLA_TUN_NUM_QUEUES: u16 = 8;
/// Places of `rx_dropped` and `tx_dropped` in `rtnl_link_stats64`, in bytes.
const RX_DROPPED: usize = 6 * 8;
const TX_DROPPED: usize = 7 * 8;
/// Length of `ifinfomsg` (linux/rtnetlink.h), which stands before the attributes.
const IFINFOMSG_LEN: usize = 16;

/// A network interface.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Link {
    /// Its number in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What kind of virtual device: `tun`, `veth`, `bridge`, `vxlan`.
    pub kind: Option<String>,
    /// Its alias.
    pub alias: Option<String>,
    /// Its Ethernet address.
    pub mac: Option<MacAddr>,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Administratively up (`IFF_UP`).
    pub up: bool,
    /// Up with carrier (`IFF_LOWER_UP`); a TAP device has it while a descriptor is attached.
    pub carrier: bool,
    /// The bridge it belongs to, by index.
    pub master: Option<u32>,
    /// Queue length in packets; of a TAP device the size of each ring, in super-frames.
    pub txqueuelen: u32,
    /// The longest super-frame it is given, in bytes.
    pub gso_max_size: u32,
    /// The same for IPv4, where the kernel keeps it apart (since 6.3).
    pub gso_ipv4_max_size: Option<u32>,
    /// Its root queueing discipline.
    pub qdisc: String,
    /// Of a TUN or TAP device: how it was made.
    pub tun: Option<TunSettings>,
    /// What it dropped; none where links are listed, which leaves that out.
    pub dropped: Option<LinkDrops>,
}

/// Frames that the driver of a link dropped since it was made (`rtnl_link_stats64`, linux/if_link.h).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct LinkDrops {
    /// On their way into the stack; of a TAP device, frames that were written to it.
    pub received: u64,
    /// On their way out; of a TAP device, frames for which its ring had no room.
    pub sent: u64,
}

/// The settings of a TUN or TAP device (`IFLA_TUN_*`, since Linux 4.20).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct TunSettings {
    /// Made for several queues (`IFF_MULTI_QUEUE`).
    pub multi_queue: bool,
    /// Outlives its descriptors.
    pub persistent: bool,
    /// Descriptors attached now, of a multi-queue device; of others the kernel does not tell, and this is 0.
    pub queues: u32,
}

/// What to change of a link, in one request. What is None stays.
#[derive(Clone, Copy, Default, Debug)]
pub struct LinkChange<'a> {
    /// A new name, in the namespace that it is moved to, if any. `mesh%d` means the next free number.
    pub name: Option<&'a str>,
    /// Move it into this namespace. A move sets the link down and takes its addresses and routes away.
    pub netns: Option<&'a Netns>,
    /// Its Ethernet address.
    pub mac: Option<MacAddr>,
    /// Its MTU in bytes.
    pub mtu: Option<u32>,
    /// Its alias.
    pub alias: Option<&'a str>,
    /// Its queue length.
    pub txqueuelen: Option<u32>,
    /// The longest super-frame it is given, in bytes, for both families.
    pub gso_max_size: Option<u32>,
    /// The bridge it shall belong to, by index; 0 for none.
    pub master: Option<u32>,
    /// Up or down.
    pub up: Option<bool>,
}

/// A kernel VXLAN device.
#[derive(Clone, Copy, Debug)]
pub struct VxlanSpec<'a> {
    /// The interface's name.
    pub name: &'a str,
    /// The network.
    pub vni: Vni,
    /// Where it sends what it has not learned.
    pub remote: IpAddr,
    /// Its own underlay address, if it must be a certain one.
    pub local: Option<IpAddr>,
    /// UDP port, its own and the destination's.
    pub port: u16,
}

impl Netlink {
    /// All links.
    pub fn links(&self) -> Result<Vec<Link>, NetlinkError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        self.list(&RouteNetlinkMessage::GetLink(message), || "list links".to_owned(), read)
    }

    /// The link of this name, if there is one.
    pub fn link(&self, name: &str) -> Result<Option<Link>, NetlinkError> {
        self.get(LinkUnspec::new_with_name(name).build(), || format!("look up {name}"))
    }

    /// The link with this index, if there is one.
    pub fn link_by_index(&self, index: u32) -> Result<Option<Link>, NetlinkError> {
        self.get(LinkUnspec::new_with_index(index).build(), || format!("look up link {index}"))
    }

    /// The first link with this alias, if there is one.
    pub fn link_by_alias(&self, alias: &str) -> Result<Option<Link>, NetlinkError> {
        Ok(self.links()?.into_iter().find(|link| link.alias.as_deref() == Some(alias)))
    }

    fn get(&self, message: LinkMessage, action: impl Fn() -> String) -> Result<Option<Link>, NetlinkError> {
        let mut found = None;
        match self.request(RouteNetlinkMessage::GetLink(message), 0, &action, |body| found = read(body)) {
            Ok(_) => Ok(found),
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Changes a link. Several changes in one request are not atomic: what comes after the one that fails is
    /// not done; the order is move, MAC, MTU, name, alias and the rest, up.
    pub fn set_link(&self, index: u32, change: &LinkChange<'_>) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::SetLink(change.message(index));
        self.change(message, 0, || match change.name {
            Some(name) => format!("set up link {index} as {name}"),
            None => format!("set up link {index}"),
        })
    }

    /// Sets a link up.
    pub fn set_up(&self, index: u32) -> Result<(), NetlinkError> {
        self.set_link(index, &LinkChange { up: Some(true), ..LinkChange::default() })
    }

    /// Takes the queueing discipline away, so that frames go to the driver at once.
    pub fn set_noqueue(&self, index: u32) -> Result<(), NetlinkError> {
        let mut message = TcMessage::with_index(index as i32);
        message.header.parent = TcHandle::ROOT;
        message.attributes.push(TcAttribute::Kind("noqueue".to_owned()));
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        self.change(RouteNetlinkMessage::NewQueueDiscipline(message), flags, || {
            format!("take the queueing discipline off link {index}")
        })
    }

    /// Makes a pair of virtual Ethernet devices, the second in another namespace if one is given.
    pub fn add_veth(&self, name: &str, peer: &str, peer_netns: Option<&Netns>) -> Result<(), NetlinkError> {
        let mut other = LinkUnspec::new_with_name(peer);
        if let Some(netns) = peer_netns {
            other = other.setns_by_fd(netns.as_fd().as_raw_fd());
        }
        let pair = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(InfoKind::Veth)
            .name(name)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(other.build())));
        let message = RouteNetlinkMessage::NewLink(pair.build());
        self.create(message, || format!("make the veth pair {name} and {peer}"))
    }

    /// Makes a bridge, down.
    pub fn add_bridge(&self, name: &str) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::NewLink(LinkMessageBuilder::<LinkBridge>::new(name).build());
        self.create(message, || format!("make the bridge {name}"))
    }

    /// Makes a kernel VXLAN device, down.
    pub fn add_vxlan(&self, spec: &VxlanSpec<'_>) -> Result<(), NetlinkError> {
        let mut device = LinkVxlan::new(spec.name, spec.vni.get()).port(spec.port);
        device = match spec.remote {
            IpAddr::V4(remote) => device.remote(remote),
            IpAddr::V6(remote) => device.remote6(remote),
        };
        device = match spec.local {
            Some(IpAddr::V4(local)) => device.local(local),
            Some(IpAddr::V6(local)) => device.local6(local),
            None => device,
        };
        let message = RouteNetlinkMessage::NewLink(device.build());
        self.create(message, || format!("make the VXLAN device {}", spec.name))
    }

    /// Deletes a link; success when it is gone already.
    pub fn delete_link(&self, index: u32) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::DelLink(LinkUnspec::new_with_index(index).build());
        match self.change(message, 0, || format!("delete link {index}")) {
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            result => result,
        }
    }
}

impl LinkChange<'_> {
    fn message(&self, index: u32) -> LinkMessage {
        let mut message = LinkUnspec::new_with_index(index);
        message = match self.up {
            Some(true) => message.up(),
            Some(false) => message.down(),
            None => message,
        };
        let gso = self.gso_max_size;
        let attributes = [
            self.netns.map(|netns| LinkAttribute::NetNsFd(netns.as_fd().as_raw_fd())),
            self.name.map(|name| LinkAttribute::IfName(name.to_owned())),
            self.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())),
            self.mtu.map(LinkAttribute::Mtu),
            self.alias.map(|alias| LinkAttribute::IfAlias(alias.to_owned())),
            self.txqueuelen.map(LinkAttribute::TxQueueLen),
            gso.map(LinkAttribute::GsoMaxSize),
            gso.map(LinkAttribute::GsoIpv4MaxSize),
            self.master.map(LinkAttribute::Controller),
        ];
        attributes
            .into_iter()
            .flatten()
            .fold(message, |message, attribute| message.append_extra_attribute(attribute))
            .build()
    }
}

/// Reads `ifinfomsg` and the attributes behind it.
fn read(body: &[u8]) -> Option<Link> {
    let (header, rest) = body.split_at_checked(IFINFOMSG_LEN)?;
    let flags = number(&header[8..])?;
    let mut link = Link {
        index: number(&header[4..])?,
        up: flags & libc::IFF_UP as u32 != 0,
        carrier: flags & libc::IFF_LOWER_UP as u32 != 0,
        ..Link::default()
    };
    for attribute in attributes(rest) {
        let value = attribute.value();
        match attribute.kind() {
            IFLA_IFNAME => link.name = string(value),
            IFLA_IFALIAS => link.alias = Some(string(value)),
            IFLA_ADDRESS => link.mac = value.try_into().ok().map(MacAddr),
            IFLA_MTU => link.mtu = number(value)?,
            IFLA_QDISC => link.qdisc = string(value),
            IFLA_MASTER => link.master = number(value),
            IFLA_TXQLEN => link.txqueuelen = number(value)?,
            IFLA_GSO_MAX_SIZE => link.gso_max_size = number(value)?,
            IFLA_GSO_IPV4_MAX_SIZE => link.gso_ipv4_max_size = number(value),
            IFLA_STATS64 => link.dropped = read_drops(value),
            IFLA_LINKINFO => read_kind(&mut link, value),
            _ => {}
        }
    }
    Some(link)
}

fn read_drops(stats: &[u8]) -> Option<LinkDrops> {
    let read = |at: usize| stats.get(at..)?.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes));
    Some(LinkDrops { received: read(RX_DROPPED)?, sent: read(TX_DROPPED)? })
}

fn read_kind(link: &mut Link, link_info: &[u8]) {
    for attribute in attributes(link_info) {
        match attribute.kind() {
            IFLA_INFO_KIND => link.kind = Some(string(attribute.value())),
            IFLA_INFO_DATA if link.kind.as_deref() == Some("tun") => {
                link.tun = Some(read_tun(attribute.value()));
            }
            _ => {}
        }
    }
}

fn read_tun(data: &[u8]) -> TunSettings {
    let mut tun = TunSettings::default();
    for attribute in attributes(data) {
        let value = attribute.value();
        match attribute.kind() {
            IFLA_TUN_PERSIST => tun.persistent = value.first() == Some(&1),
            IFLA_TUN_MULTI_QUEUE => tun.multi_queue = value.first() == Some(&1),
            IFLA_TUN_NUM_QUEUES => tun.queues = number(value).unwrap_or_default(),
            _ => {}
        }
    }
    tun
}
