//! Routes of the main table.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};

use super::address::{family, ip};
use super::{Netlink, NetlinkError, attributes, number};
use crate::types::IpPrefix;

// linux/rtnetlink.h
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;
const RTA_METRICS: u16 = 8;
const RTAX_MTU: u16 = 2;
const RT_TABLE_MAIN: u8 = 254;
const RTN_UNICAST: u8 = 1;
const RTN_LOCAL: u8 = 2;
/// Length of `rtmsg`, which stands before the attributes.
const RTMSG_LEN: usize = 12;

/// A unicast route.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Route {
    /// Where to; a length of 0 is the default route.
    pub destination: IpPrefix,
    /// Through which router; None: directly.
    pub gateway: Option<IpAddr>,
    /// Through which link, by index; of a new route None lets the kernel choose by the gateway.
    pub index: Option<u32>,
}

/// Where a packet leaves, as the kernel would send it now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hop {
    /// Through which link, by index.
    pub index: u32,
    /// Through which router; None: directly.
    pub gateway: Option<IpAddr>,
    /// From which address.
    pub source: IpAddr,
}

impl Netlink {
    /// Where a packet to `addr` would leave, to an address of this host the loopback; none when it would not leave.
    pub fn route_to(&self, addr: IpAddr) -> Result<Option<Hop>, NetlinkError> {
        let (message, action) = question(addr);
        let mut found = None;
        match self.request(message, 0, &action, |body| found = read_hop(body)) {
            Ok(_) => Ok(found),
            Err(e) if is_unreachable(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The largest packet that leaves for `addr` whole, in bytes, as far as this host knows; none when none would leave.
    pub fn mtu_to(&self, addr: IpAddr) -> Result<Option<u32>, NetlinkError> {
        let (message, action) = question(addr);
        let mut found = None;
        match self.request(message, 0, &action, |body| found = Some((read_hop(body), read_mtu(body)))) {
            Ok(_) => {}
            Err(e) if is_unreachable(&e) => return Ok(None),
            Err(e) => return Err(e),
        }
        let Some((Some(hop), of_route)) = found else { return Ok(None) };
        let of_link = self.link_by_index(hop.index)?.map(|link| link.mtu);
        Ok(of_route.into_iter().chain(of_link).min())
    }

    /// The unicast routes of the main table, of both families.
    pub fn routes(&self) -> Result<Vec<Route>, NetlinkError> {
        let message = RouteNetlinkMessage::GetRoute(RouteMessage::default());
        self.list(&message, || "list routes".to_owned(), read)
    }

    /// Adds a route.
    pub fn add_route(&self, route: &Route) -> Result<(), NetlinkError> {
        let mut message = RouteMessage::default();
        message.header = RouteHeader {
            address_family: family(route.destination.addr),
            destination_prefix_length: route.destination.len,
            table: RT_TABLE_MAIN,
            protocol: RouteProtocol::Static,
            scope: if route.gateway.is_some() { RouteScope::Universe } else { RouteScope::Link },
            kind: RouteType::Unicast,
            ..RouteHeader::default()
        };
        if route.destination.len > 0 {
            message.attributes.push(RouteAttribute::Destination(route.destination.addr.into()));
        }
        message.attributes.extend(route.gateway.map(|gateway| RouteAttribute::Gateway(gateway.into())));
        message.attributes.extend(route.index.map(RouteAttribute::Oif));
        self.create(RouteNetlinkMessage::NewRoute(message), || {
            format!("add a route to {}", route.destination)
        })
    }
}

/// How the route to `addr` is asked for.
fn question(addr: IpAddr) -> (RouteNetlinkMessage, impl Fn() -> String) {
    let mut message = RouteMessage::default();
    message.header.address_family = family(addr);
    message.header.destination_prefix_length = if addr.is_ipv4() { 32 } else { 128 };
    message.attributes.push(RouteAttribute::Destination(addr.into()));
    (RouteNetlinkMessage::GetRoute(message), move || format!("look up the route to {addr}"))
}

fn is_unreachable(error: &NetlinkError) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENETUNREACH | libc::EHOSTUNREACH))
}

/// The MTU among the metrics of a route: set by people, or learned from ICMP.
fn read_mtu(body: &[u8]) -> Option<u32> {
    let (_, rest) = body.split_at_checked(RTMSG_LEN)?;
    let metrics = attributes(rest).find(|attribute| attribute.kind() == RTA_METRICS)?;
    attributes(metrics.value())
        .find(|metric| metric.kind() == RTAX_MTU)
        .and_then(|metric| number(metric.value()))
        .filter(|&mtu| mtu > 0)
}

/// Reads the `rtmsg` of one looked-up route.
fn read_hop(body: &[u8]) -> Option<Hop> {
    let (header, rest) = body.split_at_checked(RTMSG_LEN)?;
    let find = |kind| attributes(rest).find(|attribute| attribute.kind() == kind);
    let index = find(RTA_OIF).and_then(|attribute| number(attribute.value()))?;
    let gateway = find(RTA_GATEWAY).and_then(|attribute| ip(attribute.value()));
    let source = find(RTA_PREFSRC).and_then(|attribute| ip(attribute.value()))?;
    [RTN_UNICAST, RTN_LOCAL].contains(&header[7]).then_some(Hop { index, gateway, source })
}

/// Reads `rtmsg`: family, destination length, source length, tos, table, protocol, scope, type, flags.
fn read(body: &[u8]) -> Option<Route> {
    let (header, rest) = body.split_at_checked(RTMSG_LEN)?;
    let unspecified: IpAddr = match i32::from(header[0]) {
        libc::AF_INET => Ipv4Addr::UNSPECIFIED.into(),
        libc::AF_INET6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    if header[4] != RT_TABLE_MAIN || header[7] != RTN_UNICAST {
        return None;
    }
    let find = |kind| attributes(rest).find(|attribute| attribute.kind() == kind);
    let addr = find(RTA_DST).and_then(|attribute| ip(attribute.value())).unwrap_or(unspecified);
    Some(Route {
        destination: IpPrefix { addr, len: header[1] },
        gateway: find(RTA_GATEWAY).and_then(|attribute| ip(attribute.value())),
        index: find(RTA_OIF).and_then(|attribute| number(attribute.value())),
    })
}
