//! How the range of a network is cut: at most 4096 equal units, one address each up to a /20.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Most units of a pool.
pub const MAX_UNITS: u16 = 4096;
/// The logarithm of [`MAX_UNITS`].
const UNIT_BITS: u8 = 12;

/// The range cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PoolError {
    /// Network, gateway and broadcast leave nothing.
    #[error("the range {0} is too small: it needs at least two usable addresses")]
    TooSmall(IpNet),
    /// More than any network needs, and more than the arithmetic carries.
    #[error("the range {0} is too large: the prefix has at least 4 bits")]
    TooLarge(IpNet),
}

/// The geometry of one network's addresses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Pool {
    range: IpNet,
}

impl Pool {
    /// A pool of the range; host bits are cleared.
    ///
    /// # Errors
    /// The range has fewer than four addresses, or a prefix of fewer than four bits.
    pub fn new(range: IpNet) -> Result<Self, PoolError> {
        let range = range.trunc();
        if range.max_prefix_len() - range.prefix_len() < 2 {
            return Err(PoolError::TooSmall(range));
        }
        if range.prefix_len() < 4 {
            return Err(PoolError::TooLarge(range));
        }
        Ok(Pool { range })
    }

    /// The pool of a range that came out of [`Pool::range`].
    pub(super) fn of_checked(range: IpNet) -> Self {
        Pool { range }
    }

    /// The range.
    pub fn range(&self) -> IpNet {
        self.range
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
        self.range.max_prefix_len() - self.range.prefix_len()
    }

    fn base(&self) -> u128 {
        number(self.range.network())
    }

    fn addr(&self, offset: u128) -> IpAddr {
        let number = self.base() + offset;
        match self.range {
            IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX))),
            IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from(number)),
        }
    }

    /// The unit of an address; none outside the range.
    pub fn unit_of(&self, addr: IpAddr) -> Option<u16> {
        if !self.range.contains(&addr) {
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

    /// The first address after the network's own: that of the gateway on every host.
    pub fn gateway(&self) -> IpAddr {
        self.addr(1)
    }

    /// Why nobody may have an address of the range, if so: `network`, `gateway` or `broadcast`.
    pub fn reserved(&self, addr: IpAddr) -> Option<&'static str> {
        match addr {
            _ if addr == self.addr(0) => Some("network"),
            _ if addr == self.gateway() => Some("gateway"),
            IpAddr::V4(_) if addr == self.range.broadcast() => Some("broadcast"),
            _ => None,
        }
    }

    /// How many addresses of the units from `first` to `last` endpoints may have.
    pub fn usable(&self, first: u16, last: u16) -> u64 {
        let units = u128::from(last.saturating_sub(first)) + 1;
        let addresses = units << self.unit_shift();
        let reserved = [self.addr(0), self.gateway(), self.range.broadcast()];
        let within = |addr: &&IpAddr| {
            self.reserved(**addr).is_some()
                && self.unit_of(**addr).is_some_and(|u| (first..=last).contains(&u))
        };
        let taken = reserved.iter().filter(within).count();
        u64::try_from(addresses - taken as u128).unwrap_or(u64::MAX)
    }

    /// How many addresses of the whole range endpoints may have.
    pub fn size(&self) -> u64 {
        self.usable(0, self.units() - 1)
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
