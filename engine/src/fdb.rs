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
            if held.load(Ordering::Relaxed) != entry {
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
