//! How a subnet of a network is cut: at most 4096 equal units, one address each up to a /20.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::IpNet;

use crate::plain;
use crate::records::SubnetRecord;

/// Most units of a pool.
pub const MAX_UNITS: u16 = 4096;
/// The logarithm of [`MAX_UNITS`].
const UNIT_BITS: u8 = 12;

/// The subnet cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PoolError {
    /// Network, gateway and broadcast leave nothing.
    #[error("{0} is too small: a subnet needs at least four addresses")]
    TooSmall(IpNet),
    /// More than any network needs, and more than the arithmetic carries.
    #[error("{0} is too large: the prefix of a subnet has at least 4 bits")]
    TooLarge(IpNet),
}

/// The geometry of one subnet's addresses. All of it is cut into units; addresses that nobody asks for in particular come
/// from its range alone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pool {
    record: SubnetRecord,
    /// The addresses that nobody may have, in order.
    reserved: Box<[IpAddr]>,
}

impl Pool {
    /// A pool of a whole subnet; host bits are cleared.
    ///
    /// # Errors
    /// It has fewer than four addresses, or a prefix of fewer than four bits.
    pub fn new(subnet: IpNet) -> Result<Self, PoolError> {
        Self::of(&SubnetRecord::whole(subnet))
    }

    /// The pool of a subnet.
    ///
    /// # Errors
    /// It has fewer than four addresses, or a prefix of fewer than four bits.
    pub fn of(record: &SubnetRecord) -> Result<Self, PoolError> {
        let subnet = record.subnet;
        if subnet.max_prefix_len() - subnet.prefix_len() < 2 {
            return Err(PoolError::TooSmall(subnet));
        }
        if subnet.prefix_len() < 4 {
            return Err(PoolError::TooLarge(subnet));
        }
        let ends = [subnet.network(), record.gateway].into_iter();
        let broadcast = Some(subnet.broadcast()).filter(IpAddr::is_ipv4);
        let mut reserved: Vec<IpAddr> =
            ends.chain(broadcast).chain(record.aux.iter().map(|(_, addr)| *addr)).collect();
        reserved.sort_unstable();
        reserved.dedup();
        Ok(Pool { record: record.clone(), reserved: reserved.into() })
    }

    /// The subnet.
    pub fn subnet(&self) -> IpNet {
        self.record.subnet
    }

    /// Where addresses are given from that nobody asks for in particular.
    pub fn range(&self) -> IpNet {
        self.record.range
    }

    /// True for a pool of IPv6 addresses.
    pub fn is_ipv6(&self) -> bool {
        self.record.gateway.is_ipv6()
    }

    /// How many units there are.
    pub fn units(&self) -> u16 {
        1 << self.host_bits().min(UNIT_BITS)
    }

    /// The logarithm of the number of addresses in a unit.
    fn unit_shift(&self) -> u8 {
        self.host_bits().saturating_sub(UNIT_BITS)
    }

    fn host_bits(&self) -> u8 {
        self.subnet().max_prefix_len() - self.subnet().prefix_len()
    }

    fn base(&self) -> u128 {
        number(self.subnet().network())
    }

    fn addr(&self, offset: u128) -> IpAddr {
        let number = self.base() + offset;
        match self.subnet() {
            IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX))),
            IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from(number)),
        }
    }

    /// The unit of an address; none outside the subnet.
    pub fn unit_of(&self, addr: IpAddr) -> Option<u16> {
        if !self.subnet().contains(&addr) {
            return None;
        }
        u16::try_from((number(addr) - self.base()) >> self.unit_shift()).ok()
    }

    /// The first and the last address of a unit.
    pub fn bounds(&self, unit: u16) -> (IpAddr, IpAddr) {
        let first = u128::from(unit) << self.unit_shift();
        (self.addr(first), self.addr(first + ((1 << self.unit_shift()) - 1)))
    }

    /// The address after another one.
    pub fn after(addr: IpAddr) -> Option<IpAddr> {
        match addr {
            IpAddr::V4(addr) => u32::from(addr).checked_add(1).map(|n| IpAddr::V4(n.into())),
            IpAddr::V6(addr) => u128::from(addr).checked_add(1).map(|n| IpAddr::V6(n.into())),
        }
    }

    /// The part of some units from which addresses are given.
    pub fn span(&self, first: u16, last: u16) -> Option<RangeInclusive<IpAddr>> {
        let range = self.range();
        let start = self.bounds(first).0.max(range.network());
        let end = self.bounds(last).1.min(range.broadcast());
        (start <= end).then_some(start..=end)
    }

    /// Why nobody may have an address of the subnet, if so: `network`, `gateway`, `broadcast` or `auxiliary`.
    pub fn reserved(&self, addr: IpAddr) -> Option<&'static str> {
        self.reserved.binary_search(&addr).ok()?;
        Some(match addr {
            _ if addr == self.addr(0) => "network",
            _ if addr == self.record.gateway => "gateway",
            IpAddr::V4(_) if addr == self.subnet().broadcast() => "broadcast",
            _ => "auxiliary",
        })
    }

    /// How many addresses of the units from `first` to `last` endpoints are given that ask for none in particular.
    pub fn usable(&self, first: u16, last: u16) -> u64 {
        let Some(span) = self.span(first, last) else { return 0 };
        let addresses = number(*span.end()) - number(*span.start()) + 1;
        let below = |addr: &IpAddr| self.reserved.partition_point(|reserved| reserved < addr);
        let upto = self.reserved.partition_point(|reserved| reserved <= span.end());
        let reserved = upto - below(span.start());
        u64::try_from(addresses - reserved as u128).unwrap_or(u64::MAX)
    }

    /// How many addresses of all units endpoints are given that ask for none in particular.
    pub fn size(&self) -> u64 {
        self.usable(0, self.units() - 1)
    }
}

impl plain::Plain for Pool {
    type Raw = SubnetRecord;
    fn to_raw(&self) -> SubnetRecord {
        self.record.clone()
    }
    fn from_raw(raw: SubnetRecord) -> Option<Self> {
        Pool::of(&raw).ok()
    }
}

fn number(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(addr) => u32::from(addr).into(),
        IpAddr::V6(addr) => addr.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(range: &str) -> Pool {
        Pool::new(range.parse().unwrap()).unwrap()
    }

    #[test]
    fn ranges_are_cut_once_into_equal_units() {
        for (range, units, per_unit) in [
            ("10.32.0.0/12", 4096, 256),
            ("10.32.0.0/20", 4096, 1),
            ("10.32.0.0/24", 256, 1),
            ("16.0.0.0/4", 4096, 1 << 16),
            ("fd00::/64", 4096, 1 << 52),
            ("10.0.0.0/30", 4, 1),
        ] {
            let pool = pool(range);
            assert_eq!(pool.units(), units, "{range}");
            let (first, last) = pool.bounds(units - 1);
            assert_eq!(number(last) - number(first) + 1, per_unit, "{range}");
            assert_eq!((pool.unit_of(first), pool.unit_of(last)), (Some(units - 1), Some(units - 1)));
        }
        assert!(Pool::new("10.0.0.0/31".parse().unwrap()).is_err());
    }

    #[test]
    fn a_range_is_a_part_of_the_units() {
        let record = SubnetRecord {
            range: "10.1.5.0/24".parse().unwrap(),
            gateway: "10.1.5.254".parse().unwrap(),
            aux: vec![("printer".to_owned(), "10.1.5.7".parse().unwrap())],
            ..SubnetRecord::whole("10.1.0.0/16".parse().unwrap())
        };
        let pool = Pool::of(&record).unwrap();
        assert_eq!((pool.units(), pool.size()), (4096, 254));
        assert_eq!((pool.usable(0, 79), pool.usable(80, 80), pool.usable(96, 4095)), (0, 15, 0));
        let reserved = |addr: &str| pool.reserved(addr.parse().unwrap());
        assert_eq!(reserved("10.1.5.7"), Some("auxiliary"));
        assert_eq!(reserved("10.1.5.254"), Some("gateway"));
        assert_eq!((reserved("10.1.0.1"), reserved("10.1.255.255")), (None, Some("broadcast")));
        assert_eq!(pool.unit_of("10.1.0.1".parse().unwrap()), Some(0));
    }

    #[test]
    fn nobody_gets_the_network_gateway_or_broadcast_address() {
        let pool = pool("10.32.0.5/12");
        let reserved = |addr: &str| pool.reserved(addr.parse().unwrap());
        assert_eq!(reserved("10.32.0.0"), Some("network"));
        assert_eq!(reserved("10.32.0.1"), Some("gateway"));
        assert_eq!(reserved("10.47.255.255"), Some("broadcast"));
        assert_eq!(reserved("10.32.0.2"), None);
        assert_eq!(pool.size(), (1 << 20) - 3);
        assert_eq!(pool.usable(1, 1), 256);
        assert_eq!(pool.unit_of("10.48.0.0".parse().unwrap()), None);
    }
}
