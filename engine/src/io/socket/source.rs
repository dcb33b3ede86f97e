//! The address that datagrams leave from.

#![allow(clippy::disallowed_types, reason = "io: asks by a socket")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

/// Any port will do: nothing is sent.
const PORT: u16 = 4789;

/// From which address of this host a datagram to `to` would leave now, as the kernel routes it; `own` is the address that
/// must be used, unless it is unspecified. None when it would not leave.
///
/// Call it in the namespace of the underlay.
pub fn source_of(own: IpAddr, to: IpAddr) -> Option<IpAddr> {
    let any = if to.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
    let from = if own.is_unspecified() { any } else { own.to_canonical() };
    let socket = UdpSocket::bind((from, 0)).ok()?;
    socket.connect((to, PORT)).ok()?;
    let source = socket.local_addr().ok()?.ip();
    (!source.is_unspecified()).then_some(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_where_a_datagram_would_leave_from() {
        let here = IpAddr::from(Ipv4Addr::LOCALHOST);
        let any = IpAddr::from(Ipv4Addr::UNSPECIFIED);
        assert_eq!(source_of(any, here), Some(here));
        assert_eq!(source_of(Ipv6Addr::UNSPECIFIED.into(), here), Some(here), "a socket for both families");
        let own = IpAddr::from([127, 0, 0, 7]);
        assert_eq!(source_of(own, here), Some(own));
        assert_eq!(source_of([192, 0, 2, 1].into(), here), None, "it is not this host's");
    }
}
