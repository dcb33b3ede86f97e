//! Addresses that are at another MAC address than before.
//!
//! A switch answers for the endpoints it was told of, so the new holder of an address asks for others without
//! being heard by them, and they would go on sending to the former one until they doubt it, after half a minute.

use std::collections::HashMap;
use std::net::IpAddr;

use foldhash::fast::RandomState;

use crate::fdb::Pins;
use crate::types::{MacAddr, Vni};

/// Addresses without a holder whose last one is remembered, per network.
const REMEMBERED: usize = 4096;

/// An address of a network that has another MAC address than before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moved {
    /// The network.
    pub vni: Vni,
    /// The address.
    pub addr: IpAddr,
    /// Where it is now.
    pub mac: MacAddr,
}

/// Where each address of a network was last, also of endpoints that are gone.
#[derive(Default, Debug)]
pub(super) struct Whereabouts {
    last: HashMap<IpAddr, MacAddr, RandomState>,
}

impl Whereabouts {
    /// Notes where addresses are now, and adds to `moved` those that were elsewhere before.
    pub(super) fn follow(&mut self, vni: Vni, pins: &Pins, moved: &mut Vec<Moved>) {
        let (first, mut known) = (moved.len(), 0);
        pins.each_addr(|addr, mac| {
            known += 1;
            if self.last.insert(addr, mac).is_some_and(|before| before != mac) {
                moved.push(Moved { vni, addr, mac });
            }
        });
        // Of the few that have moved: in order, whatever the table's.
        if let Some(moved) = moved.get_mut(first..) {
            moved.sort_unstable_by_key(|moved| moved.addr);
        }
        if self.last.len() > known + REMEMBERED {
            self.last.retain(|&addr, _| pins.mac_of(addr).is_some());
        }
    }
}
