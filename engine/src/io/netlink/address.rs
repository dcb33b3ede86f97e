//! Addresses of interfaces.

use std::net::IpAddr;

use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Netlink, NetlinkError, attributes, number};
use crate::types::IpPrefix;

// linux/if_addr.h
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// Length of `ifaddrmsg`, which stands before the attributes.
const IFADDRMSG_LEN: usize = 8;

/// An address of an interface.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Address {
    /// The interface, by index.
    pub index: u32,
    /// The address and the length of its prefix.
    pub prefix: IpPrefix,
}

impl Netlink {
    /// All addresses of both families, link-local ones included.
    pub fn addresses(&self) -> Result<Vec<Address>, NetlinkError> {
        let message = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        self.list(&message, || "list addresses".to_owned(), read)
    }

    /// Gives a link an address, and with it the connected route. Success when the link has it already.
    pub fn add_address(&self, index: u32, prefix: IpPrefix) -> Result<(), NetlinkError> {
        let mut message = AddressMessage::default();
        message.header.index = index;
        message.header.prefix_len = prefix.len;
        message.header.family = family(prefix.addr);
        message.attributes.push(AddressAttribute::Local(prefix.addr));
        message.attributes.push(AddressAttribute::Address(prefix.addr));
        let action = || format!("add the address {prefix} to link {index}");
        match self.create(RouteNetlinkMessage::NewAddress(message), action) {
            Err(e) if e.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            result => result,
        }
    }

    /// Takes an address from a link. Success when the link has not got it.
    ///
    /// With the first IPv4 address of a subnet the kernel removes the others of it too, unless `promote_secondaries` is set
    /// (Documentation/networking/ip-sysctl.rst): add those that shall stay afterwards.
    pub fn remove_address(&self, index: u32, prefix: IpPrefix) -> Result<(), NetlinkError> {
        let mut message = AddressMessage::default();
        message.header.index = index;
        message.header.prefix_len = prefix.len;
        message.header.family = family(prefix.addr);
        message.attributes.push(AddressAttribute::Local(prefix.addr));
        let action = || format!("remove the address {prefix} from link {index}");
        match self.change(RouteNetlinkMessage::DelAddress(message), 0, action) {
            Err(e) if e.raw_os_error() == Some(libc::EADDRNOTAVAIL) => Ok(()),
            result => result,
        }
    }
}

pub(super) fn family(addr: IpAddr) -> AddressFamily {
    if addr.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// An address by the length of its bytes.
pub(super) fn ip(value: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(value).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from)).ok()
}

/// Reads `ifaddrmsg`. IPv4 has the own address in IFA_LOCAL (IFA_ADDRESS is the other end), IPv6 in IFA_ADDRESS.
fn read(body: &[u8]) -> Option<Address> {
    let (header, rest) = body.split_at_checked(IFADDRMSG_LEN)?;
    let find = |kind| attributes(rest).find(|attribute| attribute.kind() == kind);
    let addr = ip(find(IFA_LOCAL).or_else(|| find(IFA_ADDRESS))?.value())?;
    Some(Address { index: number(&header[4..])?, prefix: IpPrefix { addr, len: header[1] } })
}
