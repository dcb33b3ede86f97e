//! Which remotes are behind a device that cuts tunnelled super-frames itself.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use crate::io::ethtool;
use crate::io::netlink::{Netlink, NetlinkError};
use crate::offload::tunnel::Through;

/// The feature of a device that segments TCP inside UDP tunnels, by its kernel name.
const TUNNEL_SEGMENTATION: &str = "tx-udp_tnl-segmentation";

/// The routing table of the underlay.
#[derive(Debug)]
pub struct Underlay {
    netlink: Netlink,
    /// The address to send from, where it must be a certain one.
    own: Option<Ipv4Addr>,
}

impl Underlay {
    /// For the namespace of the calling thread. What is sent comes from `own`, or from the address that the route
    /// prefers.
    pub fn open(own: Option<IpAddr>) -> Result<Self, NetlinkError> {
        let own = own.and_then(|own| match own.to_canonical() {
            IpAddr::V4(own) if !own.is_unspecified() => Some(own),
            _ => None,
        });
        Ok(Underlay { netlink: Netlink::open()?, own })
    }

    /// The way to each of `addrs` that leads through such a device. Call it in the namespace of the underlay.
    ///
    /// What cannot be found out is left out: its super-frames are cut here.
    pub fn ways(&self, addrs: impl IntoIterator<Item = IpAddr>) -> BTreeMap<IpAddr, Through> {
        let mut cuts = BTreeMap::new();
        let mut ways = BTreeMap::new();
        for addr in addrs {
            if let IpAddr::V4(to) = addr
                && let Some(through) = self.way(to, &mut cuts)
            {
                ways.insert(addr, through);
            }
        }
        ways
    }

    fn way(&self, to: Ipv4Addr, cuts: &mut BTreeMap<u32, bool>) -> Option<Through> {
        let hop = self.netlink.route_to(to.into()).ok().flatten()?;
        let IpAddr::V4(source) = hop.source else { return None };
        let cuts = *cuts.entry(hop.index).or_insert_with(|| self.cuts_tunnels(hop.index));
        cuts.then_some(Through { ifindex: hop.index, source: self.own.unwrap_or(source) })
    }

    fn cuts_tunnels(&self, index: u32) -> bool {
        let name = self.netlink.link_by_index(index).ok().flatten().map(|link| link.name);
        let features = name.and_then(|name| ethtool::features(&name).ok());
        features.is_some_and(|features| features.get(TUNNEL_SEGMENTATION).copied().unwrap_or_default())
    }
}
