//! Who has joined which multicast group of one network, as their reports say: ports of this host, and other hosts that have
//! members.
//!
//! A membership lasts as long as it is reported again in time; the switch asks for that itself, since there is no multicast
//! router (RFC 4541 section 2.1.1). Bounded in all and for each port.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use foldhash::fast::RandomState;

use crate::switch::Port;
use crate::wire::group::QUERY_INTERVAL_S;

/// Memberships of a network at most: as many as there are learned stations.
pub const MAX_MEMBERSHIPS: usize = 4096;

/// Groups that one container may join. Linux lets a socket join 20 (`igmp_max_memberships`).
pub const MAX_OF_PORT: usize = 128;

/// Groups that may be joined behind one other host.
pub const MAX_OF_REMOTE: usize = 1024;

/// Seconds after which a membership that was not reported again ends: two queries and the time for an answer (RFC 3376
/// section 8.4).
pub const MAX_AGE_S: u32 = 2 * QUERY_INTERVAL_S as u32 + 10;

/// The memberships of one network, shared by all workers and by successive tables. A lookup takes no lock.
#[derive(Default, Debug)]
pub struct Groups {
    /// When each was reported last, in seconds.
    entries: papaya::HashMap<(IpAddr, Port), AtomicU32, RandomState>,
    count: AtomicUsize,
    of_port: papaya::HashMap<Port, AtomicUsize, RandomState>,
}

impl Groups {
    /// Notes that there is a member behind `port`. False when there is no room for another one.
    pub fn join(&self, group: IpAddr, port: Port, now_s: u32) -> bool {
        let entries = self.entries.pin();
        if let Some(held) = entries.get(&(group, port)) {
            held.store(now_s, Ordering::Relaxed);
            return true;
        }
        let most = match port {
            Port::Tap(_) => MAX_OF_PORT,
            Port::Remote(_) => MAX_OF_REMOTE,
        };
        let of_port = self.of_port.pin();
        let own = of_port.get_or_insert_with(port, AtomicUsize::default);
        if own.load(Ordering::Relaxed) >= most || self.count.load(Ordering::Relaxed) >= MAX_MEMBERSHIPS {
            return false;
        }
        if entries.insert((group, port), AtomicU32::new(now_s)).is_none() {
            own.fetch_add(1, Ordering::Relaxed);
            self.count.fetch_add(1, Ordering::Relaxed);
        }
        true
    }

    /// Notes that there is no member behind `port` any more.
    pub fn leave(&self, group: IpAddr, port: Port) {
        if self.entries.pin().remove(&(group, port)).is_some() {
            // Another worker may have swept meanwhile: the next sweep counts anew.
            let less = |count: usize| Some(count.saturating_sub(1));
            let _ = self.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
            if let Some(own) = self.of_port.pin().get(&port) {
                let _ = own.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
            }
        }
    }

    /// Whether there is a member behind `port`, as far as was reported before the last sweep.
    pub fn has(&self, group: IpAddr, port: Port) -> bool {
        self.entries.pin().contains_key(&(group, port))
    }

    /// The ports with members, in order, each once.
    pub fn ports(&self) -> Vec<Port> {
        let entries = self.entries.pin();
        let mut ports: Vec<Port> = entries.keys().map(|&(_, port)| port).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// Ends memberships that were not reported again in time, and those behind a port that `alive` denies.
    pub fn sweep(&self, now_s: u32, alive: impl Fn(Port) -> bool) {
        let (entries, of_port) = (self.entries.pin(), self.of_port.pin());
        entries.retain(|&(_, port), seen_s| {
            now_s.saturating_sub(seen_s.load(Ordering::Relaxed)) <= MAX_AGE_S && alive(port)
        });
        self.count.store(entries.len(), Ordering::Relaxed);
        of_port.retain(|&port, _| alive(port));
        for (port, own) in &of_port {
            let left = entries.keys().filter(|(_, held)| held == port).count();
            own.store(left, Ordering::Relaxed);
        }
    }

    /// How many memberships there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::{PortIndex, RemoteIndex};

    const HERE: Port = Port::Tap(PortIndex(1));
    const THERE: Port = Port::Remote(RemoteIndex(1));

    fn group(number: usize) -> IpAddr {
        let [a, b, ..] = number.to_le_bytes();
        IpAddr::from([239, 1, b, a])
    }

    #[test]
    fn a_membership_ends_when_it_is_left_or_not_reported_again() {
        let groups = Groups::default();
        assert!(
            groups.join(group(1), HERE, 0)
                && groups.join(group(1), THERE, 0)
                && groups.join(group(2), HERE, 0)
        );
        groups.leave(group(2), HERE);
        groups.leave(group(2), HERE);
        assert!(groups.has(group(1), HERE) && !groups.has(group(2), HERE) && !groups.has(group(2), THERE));
        assert_eq!((groups.ports(), groups.len()), (vec![HERE, THERE], 2));
        groups.join(group(1), HERE, 200);
        groups.sweep(MAX_AGE_S + 1, |_| true);
        assert_eq!(groups.ports(), [HERE]);
        groups.sweep(MAX_AGE_S + 1, |port| port != HERE);
        assert!(groups.is_empty());
    }

    #[test]
    fn a_port_and_a_network_have_only_so_many() {
        let groups = Groups::default();
        let joined = |port, count: usize| (0..count).filter(|&n| groups.join(group(n), port, 0)).count();
        assert_eq!(joined(HERE, 2 * MAX_OF_PORT), MAX_OF_PORT);
        assert!(groups.join(group(0), HERE, 9), "what is known is renewed");
        groups.leave(group(0), HERE);
        assert!(groups.join(group(MAX_OF_PORT), HERE, 0) && !groups.join(group(0), HERE, 0));
        let all: usize = (1..10).map(|n| joined(Port::Remote(RemoteIndex(n)), 2 * MAX_OF_REMOTE)).sum();
        assert_eq!(all + MAX_OF_PORT, MAX_MEMBERSHIPS);
        groups.sweep(0, |port| port == HERE);
        assert_eq!((groups.len(), joined(THERE, 10)), (MAX_OF_PORT, 10));
    }
}
