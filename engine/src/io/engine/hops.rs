//! How the kernel routes to other hosts, asked once for all who want to know.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::io::netlink::{Hop, Netlink};

/// What was asked since it was last forgotten.
#[derive(Default)]
pub(super) struct Hops(BTreeMap<IpAddr, Option<Hop>>);

impl Hops {
    /// Addresses or routes may have changed.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    /// Where a packet to `ip` leaves. What cannot be looked up is for now no way.
    pub(super) fn to(&mut self, netlink: &Netlink, ip: IpAddr) -> Option<Hop> {
        let ip = ip.to_canonical();
        *self.0.entry(ip).or_insert_with(|| netlink.route_to(ip).ok().flatten())
    }

    /// From which address of this host a datagram to `ip` leaves. `own` is the one that must be used, if there is one.
    pub(super) fn source(&mut self, netlink: &Netlink, own: Option<IpAddr>, ip: IpAddr) -> Option<IpAddr> {
        let hop = self.to(netlink, ip)?;
        own.map_or(Some(hop.source), |own| (own.is_ipv4() == hop.source.is_ipv4()).then_some(own))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::netns::Netns;

    #[test]
    fn the_kernel_says_where_a_datagram_would_leave_from() {
        let netns = Netns::create().expect("needs root");
        let netlink = Netlink::open_in(&netns).unwrap();
        let [here, own, elsewhere]: [IpAddr; 3] =
            ["127.0.0.1", "127.0.0.7", "192.0.2.1"].map(|ip| ip.parse().unwrap());
        let mut hops = Hops::default();
        assert_eq!(hops.source(&netlink, None, here), None, "it is down");
        netlink.set_up(netlink.link("lo").unwrap().unwrap().index).unwrap();
        assert_eq!(hops.source(&netlink, None, here), None, "it is asked once");
        hops.forget();
        assert_eq!(hops.source(&netlink, None, here), Some(here));
        assert_eq!(hops.source(&netlink, None, "::ffff:127.0.0.1".parse().unwrap()), Some(here));
        assert_eq!(hops.source(&netlink, Some(own), here), Some(own));
        assert_eq!(
            hops.source(&netlink, Some("::1".parse().unwrap()), here),
            None,
            "no way between families"
        );
        assert_eq!(hops.source(&netlink, None, elsewhere), None, "there is no route");
    }
}
