//! The forwarding database of one network: where each MAC address is.
//!
//! *Pinned* entries are told by the control plane and built into immutable tables: of several claims on a MAC
//! the winner is used, the losers are kept for the day it goes. *Learned* entries are seen in traffic, shared by
//! all workers, bounded in number, and age. A pinned entry beats a learned one.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use foldhash::fast::RandomState;

use crate::switch::Port;
use crate::tables::{PortIndex, RemoteIndex};
use crate::types::{Claim, Location, MacAddr, PeerId};

/// Learned entries a network has at most: more stations than a segment of this kind has behind its VTEPs, few
/// enough that a flood of forged sources costs no memory to speak of.
pub const MAX_LEARNED: usize = 4096;

/// Seconds after which a learned entry that was not seen again is forgotten (IEEE 802.1Q table 8-6).
pub const MAX_AGE_S: u32 = 300;

/// Seconds for which the time stamp of a learned entry is left as it is. A station that talks all the time is then
/// written once in so long, by one of the workers that hear it, and read by all of them from caches of their own; it
/// may be forgotten that much too early.
const REFRESH_S: u32 = 10;

/// The claims on the MAC addresses of one network, winners and losers.
#[derive(Clone, Default, Debug)]
pub struct Claims {
    by_mac: BTreeMap<MacAddr, Vec<Claimed>>,
}

/// One claim and what comes with it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Claimed {
    claim: Claim,
    location: Location,
    addrs: Vec<IpAddr>,
}

impl Claims {
    /// Adds a claim, in place of an earlier one of the same peer on the same MAC. True when something changed.
    pub fn insert(&mut self, mac: MacAddr, claim: Claim, location: Location, addrs: Vec<IpAddr>) -> bool {
        let claims = self.by_mac.entry(mac).or_default();
        let new = Claimed { claim, location, addrs };
        match claims.iter_mut().find(|held| held.claim.peer == claim.peer) {
            Some(held) if *held == new => return false,
            Some(held) => *held = new,
            None => claims.push(new),
        }
        true
    }

    /// Ends the claim of `peer` on `mac`. True when there was one.
    pub fn remove(&mut self, mac: MacAddr, peer: PeerId) -> bool {
        let Some(claims) = self.by_mac.get_mut(&mac) else { return false };
        let before = claims.len();
        claims.retain(|held| held.claim.peer != peer);
        let changed = claims.len() != before;
        if claims.is_empty() {
            self.by_mac.remove(&mac);
        }
        changed
    }

    /// The winners as a table for the switch. `resolve` says where a location is now, if anywhere.
    pub fn winners(&self, mut resolve: impl FnMut(Location) -> Option<Port>) -> Pins {
        let mut pins = Pins::default();
        let mut names: HashMap<IpAddr, Claim, RandomState> = HashMap::default();
        for (&mac, claims) in &self.by_mac {
            let Some(best) = claims.iter().reduce(|a, b| if b.claim.beats(a.claim) { b } else { a }) else {
                continue;
            };
            pins.by_mac.insert(mac, resolve(best.location));
            for &addr in &best.addrs {
                if names.get(&addr).is_none_or(|&held| best.claim.beats(held)) {
                    names.insert(addr, best.claim);
                    pins.by_addr.insert(addr, mac);
                }
            }
        }
        pins
    }
}

/// The pinned entries of one network. Immutable once built.
#[derive(Clone, Default, Debug)]
pub struct Pins {
    by_mac: HashMap<MacAddr, Option<Port>, RandomState>,
    by_addr: HashMap<IpAddr, MacAddr, RandomState>,
}

impl Pins {
    /// Where `mac` is pinned: none when it is not; some none when its port is not on this host now.
    pub fn get(&self, mac: MacAddr) -> Option<Option<Port>> {
        self.by_mac.get(&mac).copied()
    }

    /// The MAC address of the endpoint that has `addr`.
    pub fn mac_of(&self, addr: IpAddr) -> Option<MacAddr> {
        self.by_addr.get(&addr).copied()
    }

    /// Gives the addresses of all endpoints, in no order, each with the MAC address that has it.
    pub fn each_addr(&self, mut give: impl FnMut(IpAddr, MacAddr)) {
        for (&addr, &mac) in &self.by_addr {
            give(addr, mac);
        }
    }

    /// All of them, in order, with the port, if it is on this host or reachable now.
    pub fn list(&self) -> Vec<(MacAddr, Option<Port>)> {
        let mut all = Vec::with_capacity(self.by_mac.len());
        for (&mac, &port) in &self.by_mac {
            all.push((mac, port));
        }
        all.sort_unstable_by_key(|(mac, _)| *mac);
        all
    }

    /// How many MAC addresses are pinned.
    pub fn len(&self) -> usize {
        self.by_mac.len()
    }

    /// True when none is.
    pub fn is_empty(&self) -> bool {
        self.by_mac.is_empty()
    }
}

/// The learned entries of one network, shared by all workers and by successive tables.
///
/// An entry is one relaxed word, port and last second seen: nothing else depends on it, and a frame forwarded by
/// an entry that is a moment old is no worse than a frame sent a moment earlier.
#[derive(Default, Debug)]
pub struct Learned {
    entries: papaya::HashMap<MacAddr, AtomicU64, RandomState>,
    count: AtomicUsize,
}

impl Learned {
    /// Where `mac` was last seen, unless that is longer ago than [`MAX_AGE_S`]. `now_s` in seconds.
    pub fn get(&self, mac: MacAddr, now_s: u32) -> Option<Port> {
        let (port, seen_s) = unpack(self.entries.pin().get(&mac)?.load(Ordering::Relaxed));
        (now_s.saturating_sub(seen_s) <= MAX_AGE_S).then_some(port)
    }

    /// Notes that `mac` is behind `port`. A full table learns no new station; known ones still move.
    pub fn learn(&self, mac: MacAddr, port: Port, now_s: u32) {
        let entry = pack(port, now_s);
        let entries = self.entries.pin();
        if let Some(held) = entries.get(&mac) {
            let (known, seen_s) = unpack(held.load(Ordering::Relaxed));
            if known != port || now_s.saturating_sub(seen_s) >= REFRESH_S {
                held.store(entry, Ordering::Relaxed);
            }
            return;
        }
        let room = self.count.load(Ordering::Relaxed) < MAX_LEARNED;
        if room && entries.insert(mac, AtomicU64::new(entry)).is_none() {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Removes what is too old, and what is behind a port that `alive` denies.
    pub fn sweep(&self, now_s: u32, alive: impl Fn(Port) -> bool) {
        let entries = self.entries.pin();
        entries.retain(|_, held| {
            let (port, seen_s) = unpack(held.load(Ordering::Relaxed));
            now_s.saturating_sub(seen_s) <= MAX_AGE_S && alive(port)
        });
        self.count.store(entries.len(), Ordering::Relaxed);
    }

    /// The stations that are known, in no order, with the port and the seconds since each was last seen.
    pub fn list(&self, now_s: u32) -> Vec<(MacAddr, Port, u32)> {
        let entries = self.entries.pin();
        let all = entries.iter().map(|(&mac, held)| (mac, unpack(held.load(Ordering::Relaxed))));
        let fresh = all.map(|(mac, (port, seen_s))| (mac, port, now_s.saturating_sub(seen_s)));
        fresh.filter(|(.., age_s)| *age_s <= MAX_AGE_S).collect()
    }

    /// How many stations are known.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True when none is.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// The bit that tells a remote from a TAP in a packed entry.
const REMOTE: u32 = 1 << 31;

fn pack(port: Port, now_s: u32) -> u64 {
    let word = match port {
        Port::Tap(PortIndex(index)) => index,
        Port::Remote(RemoteIndex(index)) => index | REMOTE,
    };
    u64::from(word) << 32 | u64::from(now_s)
}

fn unpack(entry: u64) -> (Port, u32) {
    let word = (entry >> 32) as u32;
    let port = if word & REMOTE == 0 {
        Port::Tap(PortIndex(word))
    } else {
        Port::Remote(RemoteIndex(word & !REMOTE))
    };
    (port, entry as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::PortId;

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

    fn claim(version: u64, peer: u8) -> Claim {
        Claim { version, peer: PeerId([peer; 16]) }
    }

    fn mac(number: usize) -> MacAddr {
        let [a, b, ..] = number.to_le_bytes();
        MacAddr([2, 0, 0, 0, a, b])
    }

    #[test]
    fn an_entry_holds_a_port_and_a_second() {
        for port in [Port::Tap(PortIndex(0)), Port::Tap(PortIndex(77)), Port::Remote(RemoteIndex(77))] {
            assert_eq!(unpack(pack(port, u32::MAX)), (port, u32::MAX));
        }
    }

    #[test]
    fn a_doubly_used_address_is_that_of_the_better_claim() {
        let mut claims = Claims::default();
        let (here, there) = (Location::Port(PortId([1; 8])), Location::Peer(PeerId([9; 16])));
        let addrs = vec![IpAddr::from([10, 32, 0, 1])];
        assert!(claims.insert(mac(1), claim(1, 9), there, addrs.clone()));
        assert!(claims.insert(mac(2), claim(2, 1), here, addrs.clone()));
        assert!(!claims.insert(mac(2), claim(2, 1), here, addrs.clone()));
        let pins = claims.winners(|_| None);
        assert_eq!((pins.len(), pins.mac_of(addrs[0])), (2, Some(mac(2))));
        assert!(claims.remove(mac(2), PeerId([1; 16])) && !claims.remove(mac(2), PeerId([1; 16])));
        assert_eq!(claims.winners(|_| None).mac_of(addrs[0]), Some(mac(1)));
    }

    #[test]
    fn a_station_that_goes_on_is_written_rarely() {
        let learned = Learned::default();
        let (one, two) = (Port::Tap(PortIndex(1)), Port::Tap(PortIndex(2)));
        let stamp = || learned.entries.pin().get(&MAC).map(|held| held.load(Ordering::Relaxed));
        learned.learn(MAC, one, 100);
        (100..100 + REFRESH_S).for_each(|now_s| learned.learn(MAC, one, now_s));
        assert_eq!(stamp(), Some(pack(one, 100)));
        learned.learn(MAC, one, 100 + REFRESH_S);
        assert_eq!(stamp(), Some(pack(one, 100 + REFRESH_S)));
        learned.learn(MAC, two, 101 + REFRESH_S);
        assert_eq!(stamp(), Some(pack(two, 101 + REFRESH_S)), "a move is seen at once");
    }

    #[test]
    fn a_full_table_learns_nobody_new_but_known_stations_move() {
        let learned = Learned::default();
        let (one, two) = (Port::Tap(PortIndex(1)), Port::Remote(RemoteIndex(2)));
        (0..MAX_LEARNED + 10).for_each(|number| learned.learn(mac(number), one, 0));
        assert_eq!(learned.len(), MAX_LEARNED);
        assert_eq!(learned.get(mac(MAX_LEARNED + 1), 0), None);
        learned.learn(mac(0), two, 5);
        assert_eq!(learned.get(mac(0), 5), Some(two));
        learned.sweep(MAX_AGE_S + 1, |_| true);
        assert_eq!(learned.len(), 1);
        learned.learn(MAC, one, MAX_AGE_S);
        learned.sweep(MAX_AGE_S, |port| port == one);
        assert_eq!((learned.get(MAC, MAX_AGE_S), learned.get(mac(0), 5)), (Some(one), None));
    }
}
