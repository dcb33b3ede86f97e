//! What a new network gets that people did not name: subnets and a number.
//!
//! Each choice begins at a place that follows from the network id, which is drawn at random: so two hosts that cannot
//! talk seldom choose the same.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use blake2::{Blake2s256, Digest};
use engine::types::{NetworkId, Vni};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::records::overlap;

/// Where IPv4 subnets are chosen from (RFC 1918): the first address, and how many of [`CHOSEN`] there are.
const POOLS: [(Ipv4Addr, u32); 2] = [(Ipv4Addr::new(10, 0, 0, 0), 4096), (Ipv4Addr::new(172, 16, 0, 0), 256)];
/// The prefix of a chosen IPv4 subnet.
const CHOSEN: u8 = 20;
/// The first number that is chosen; lower ones are for people, and for what is outside.
const FIRST_VNI: u32 = 4096;

/// A free IPv4 subnet; none: all that may be chosen overlap something.
pub(super) fn ipv4_subnet(network: NetworkId, taken: &[IpNet]) -> Option<IpNet> {
    let all: u32 = POOLS.iter().map(|(_, count)| count).sum();
    let start = number(b"meshnet subnet", network) % u64::from(all);
    let places = (0..u64::from(all)).map(|step| (start + step) % u64::from(all));
    places.filter_map(block).find(|block| !taken.iter().any(|other| overlap(*block, *other)))
}

fn block(place: u64) -> Option<IpNet> {
    let mut place = u32::try_from(place).ok()?;
    for (first, count) in POOLS {
        if place < count {
            let addr = u32::from(first) + (place << (32 - CHOSEN));
            return Ipv4Net::new(addr.into(), CHOSEN).ok().map(IpNet::V4);
        }
        place -= count;
    }
    None
}

/// The IPv6 subnet of a network: a unique local one (RFC 4193), whose 56 bits after the prefix follow from the id.
pub(super) fn ipv6_subnet(network: NetworkId) -> IpNet {
    let hash = hash(b"meshnet ula", network);
    let mut octets = [0; 16];
    octets[0] = 0xfd;
    octets[1..8].copy_from_slice(&hash[..7]);
    let subnet = Ipv6Net::new(Ipv6Addr::from(octets), 64);
    subnet.map_or_else(|_| IpNet::from(IpAddr::V6(Ipv6Addr::from(octets))), IpNet::V6)
}

/// The next free number from the one that follows from the id; none: there is no free one.
pub(super) fn vni(network: NetworkId, taken: &BTreeSet<Vni>) -> Option<Vni> {
    let count = Vni::MAX - FIRST_VNI + 1;
    let start = u32::try_from(number(b"meshnet vni", network) % u64::from(count)).unwrap_or(0);
    let places = (0..count).map(|step| FIRST_VNI + (start + step) % count);
    places.filter_map(Vni::new).find(|vni| !taken.contains(vni))
}

fn hash(what: &[u8], network: NetworkId) -> [u8; 32] {
    Blake2s256::new().chain_update(what).chain_update(network.0).finalize().into()
}

fn number(what: &[u8], network: NetworkId) -> u64 {
    hash(what, network).first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(byte: u8) -> NetworkId {
        NetworkId([byte; 32])
    }

    #[test]
    fn a_chosen_subnet_overlaps_nothing_that_is_known() {
        let mut taken: Vec<IpNet> = vec!["10.32.0.0/12".parse().unwrap(), "172.16.0.0/14".parse().unwrap()];
        for byte in 0..=255 {
            let subnet = ipv4_subnet(id(byte), &taken).unwrap();
            assert!(taken.iter().all(|other| !overlap(subnet, *other)), "{subnet}");
            assert_eq!(subnet.prefix_len(), CHOSEN);
            taken.push(subnet);
        }
        let all = ["10.0.0.0/8", "172.16.0.0/12"].map(|net| net.parse().unwrap());
        assert_eq!(ipv4_subnet(id(1), &all), None);
        let last: IpNet = "172.31.240.0/20".parse().unwrap();
        let but_the_last: Vec<IpNet> = (0..4096 + 255).filter_map(block).collect();
        assert_eq!(ipv4_subnet(id(1), &but_the_last), Some(last));
    }

    #[test]
    fn numbers_are_chosen_from_4096_on_and_once() {
        let mut taken = BTreeSet::new();
        for byte in 0..=255 {
            let first = vni(id(byte), &taken).unwrap();
            assert!(first.get() >= FIRST_VNI && taken.insert(first));
            assert_eq!(vni(id(byte), &BTreeSet::new()), Some(first), "it follows from the id");
            let next = vni(id(byte), &BTreeSet::from([first])).unwrap();
            assert_ne!(next, first);
        }
    }

    #[test]
    fn every_network_has_an_ipv6_subnet_of_its_own() {
        let subnets: BTreeSet<IpNet> = (0..=255).map(|byte| ipv6_subnet(id(byte))).collect();
        assert_eq!(subnets.len(), 256);
        let local: IpNet = "fd00::/8".parse().unwrap();
        assert!(subnets.iter().all(|subnet| local.contains(subnet) && subnet.prefix_len() == 64));
        assert!(subnets.iter().all(|subnet| subnet.trunc() == *subnet));
    }
}
