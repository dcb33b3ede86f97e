//! Which remotes are behind a device that cuts tunnelled super-frames itself.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use crate::io::ethtool;
use crate::io::netlink::{Hop, Netlink};
use crate::offload::tunnel::Through;

/// The feature of a device that segments TCP inside UDP tunnels, by its kernel name.
const TUNNEL_SEGMENTATION: &str = "tx-udp_tnl-segmentation";

/// How super-frames leave whole.
#[derive(Debug)]
pub struct Underlay {
    /// The address to send from, where it must be a certain one.
    own: Option<Ipv4Addr>,
}

impl Underlay {
    /// What is sent comes from `own`, or from the address that the route prefers.
    pub fn new(own: Option<IpAddr>) -> Self {
        let own = own.and_then(|own| match own.to_canonical() {
            IpAddr::V4(own) if !own.is_unspecified() => Some(own),
            _ => None,
        });
        Underlay { own }
    }

    /// The way to each of `addrs`, by the hop to it, that leads through such a device. Call it in the namespace of the
    /// underlay, which is that of `netlink` too.
    ///
    /// What cannot be found out is left out: its super-frames are cut here.
    pub fn ways(
        &self,
        netlink: &Netlink,
        addrs: impl IntoIterator<Item = (IpAddr, Option<Hop>)>,
    ) -> BTreeMap<IpAddr, Through> {
        let mut cuts = BTreeMap::new();
        let mut ways = BTreeMap::new();
        for (addr, hop) in addrs {
            let Some(Hop { index, source: IpAddr::V4(source), .. }) = hop else { continue };
            if *cuts.entry(index).or_insert_with(|| cuts_tunnels(netlink, index)) {
                ways.insert(addr, Through { ifindex: index, source: self.own.unwrap_or(source) });
            }
        }
        ways
    }
}

fn cuts_tunnels(netlink: &Netlink, index: u32) -> bool {
    let name = netlink.link_by_index(index).ok().flatten().map(|link| link.name);
    let features = name.and_then(|name| ethtool::features(&name).ok());
    features.is_some_and(|features| features.get(TUNNEL_SEGMENTATION).copied().unwrap_or_default())
}
