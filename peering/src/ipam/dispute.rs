//! Two endpoints with one address: who keeps it, and a new one for who does not.
//!
//! Two clusters that met, or space that was taken from a host that lives, leave addresses that are used twice. The
//! records of both stand on every host, so every host names the same winner ([`Taken::winner`]); the host of each
//! loser allocates another address and has its daemon change the interface. The same is done for an address that lies
//! outside the range that the network has now.
//!
//! ```text
//! record seen ──2 s──> allocate (as for any request) ──> Readdress ──> the daemon puts the endpoint again
//! ```
//!
//! [`Taken::winner`]: super::taken::Taken::winner

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use engine::types::{IpPrefix, NetworkId, PeerId, PortId};

use super::request::Pending;
use super::state::Stage;
use super::{Ipam, IpamOutput};
use crate::mesh::{AllocError, AllocRequest};
use crate::records::Given;

/// A container that moves shows up on its new host before its old one said that it is gone: that is no dispute.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the daemon may take to change an interface until it is told again.
const TELL_AGAIN: Duration = Duration::from_secs(10);

/// An address that a port of this host gives up.
pub(super) type Lost = (NetworkId, PortId, IpAddr);

/// How far that came.
pub(super) enum Dispute {
    /// Seen at this moment.
    Seen(Instant),
    /// A new address is being looked for.
    Asked,
    /// The daemon was told of the new address at this moment.
    Told(Instant, IpPrefix),
}

impl Dispute {
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        match self {
            Dispute::Seen(at) => Some(*at + PATIENCE),
            Dispute::Asked => None,
            Dispute::Told(at, _) => Some(*at + TELL_AGAIN),
        }
    }
}

impl Ipam {
    /// How an endpoint of this host came by its addresses, if it is given them now.
    pub fn given(&self, network: NetworkId, addrs: &[IpAddr], explicit: bool) -> Given {
        let known = self.state.networks.get(&network);
        let run = addrs.first().and_then(|addr| known?.run_of(*addr));
        Given { explicit, cluster: self.state.cluster, epoch: run.map_or(0, |run| run.epoch) }
    }

    /// True when this endpoint keeps the address: nobody else shows it, or none with a better right.
    pub fn keeps(&self, network: NetworkId, peer: PeerId, port: PortId, addr: IpAddr) -> bool {
        let winner = self.taken.get(&network).and_then(|taken| taken.winner(addr));
        winner.is_none_or(|winner| winner == (peer, port))
    }

    /// A port of this host has these addresses now and no others: what it had besides is free again.
    pub fn keep_only(&mut self, now: Instant, port: PortId, network: NetworkId, addrs: &[IpAddr]) {
        let coming: Vec<IpAddr> = self.coming(network, port).collect();
        let surplus = |addr: &IpAddr| !addrs.contains(addr) && !coming.contains(addr);
        if let Some(known) = self.state.networks.get_mut(&network) {
            for addr in known.local.of(self.own, port).into_iter().filter(surplus) {
                self.dirty |= known.local.release_one(addr, self.own, port);
            }
        }
        self.release_foreign(|foreign| {
            (foreign.network, foreign.port, foreign.stage) == (network, port, Stage::Held)
                && foreign.addr.as_ref().is_some_and(surplus)
        });
        self.progress(now);
    }

    /// Addresses that the daemon was told to give to a port.
    fn coming(&self, network: NetworkId, port: PortId) -> impl Iterator<Item = IpAddr> {
        let of_port = self.disputes.iter().filter(move |(lost, _)| (lost.0, lost.1) == (network, port));
        of_port.filter_map(|(_, dispute)| match dispute {
            Dispute::Told(_, prefix) => Some(prefix.addr),
            Dispute::Seen(_) | Dispute::Asked => None,
        })
    }

    /// Goes on with every dispute whose time has come.
    pub(super) fn settle_disputes(&mut self, now: Instant) {
        self.find_disputes(now);
        if self.state.cluster.is_none() {
            return;
        }
        let due = self.disputes.iter().filter(|(_, d)| d.next_timeout().is_some_and(|at| at <= now));
        for lost in due.map(|(lost, _)| *lost).collect::<Vec<_>>() {
            self.go_on_with(now, lost);
        }
    }

    /// Looks for addresses that were lost, if anything changed.
    pub(super) fn find_disputes(&mut self, now: Instant) {
        let contested = std::mem::take(&mut self.contested);
        if contested.is_empty() {
            return;
        }
        let lost = self.lost(&contested);
        let here = self.disputes.keys().filter(|(network, ..)| contested.contains(network));
        let over = here.filter(|known| !lost.contains(known)).copied();
        for lost in over.collect::<Vec<_>>() {
            self.disputes.remove(&lost);
            let replaced = |p: &Pending| p.replaces == Some(lost.2) && p.what.port == lost.1;
            for pending in self.pending.extract_if(.., |p| replaced(p)).collect::<Vec<_>>() {
                self.give_back(&pending);
            }
        }
        for lost in lost {
            self.disputes.entry(lost).or_insert(Dispute::Seen(now));
        }
    }

    /// The addresses that ports of this host show on these networks and must give up.
    fn lost(&self, networks: &BTreeSet<NetworkId>) -> BTreeSet<Lost> {
        let mut lost = BTreeSet::new();
        for &id in networks.iter().filter(|id| self.is_open(**id)) {
            let Some(taken) = self.taken.get(&id) else { continue };
            let known = self.state.networks.get(&id).filter(|network| !network.is_unfounded());
            for (port, addrs) in taken.of_peer(self.own) {
                let outside = |addr: IpAddr| {
                    known.is_some_and(|network| match network.space_of(addr) {
                        Some(space) => space.pool.reserved(addr).is_some(),
                        None => true,
                    })
                };
                let gives_up =
                    |addr: &&IpAddr| outside(**addr) || taken.winner(**addr) != Some((self.own, port));
                lost.extend(addrs.iter().filter(gives_up).map(|addr| (id, port, *addr)));
            }
        }
        lost
    }

    fn go_on_with(&mut self, now: Instant, lost: Lost) {
        let Some(dispute) = self.disputes.get_mut(&lost) else { return };
        if let Dispute::Told(at, prefix) = dispute {
            *at = now;
            let prefix = *prefix;
            return self.tell_readdress(lost, prefix);
        }
        *dispute = Dispute::Asked;
        let (network, port, addr) = lost;
        let name = self.taken.get(&network).and_then(|taken| {
            taken
                .holders(addr)
                .find(|(id, _)| **id == (self.own, port))
                .map(|(_, holder)| holder.name.clone())
        });
        let holder = name.unwrap_or_default();
        self.pending.push(Pending::replacement(
            addr,
            AllocRequest { port, network, holder, wanted: Vec::new(), without_ipv6: false },
        ));
    }

    /// The search for another address ended.
    pub(super) fn finish_replacement(
        &mut self,
        now: Instant,
        old: IpAddr,
        what: &AllocRequest,
        result: Result<Vec<IpPrefix>, AllocError>,
    ) {
        let lost = (what.network, what.port, old);
        let who = self.keeper(what.network, old);
        let (dispute, notice) = match result.map(|prefixes| prefixes.first().copied()) {
            Ok(Some(prefix)) => {
                let message =
                    format!("{} gives up {old}, which {who}, and gets {}", what.holder, prefix.addr);
                (Dispute::Told(now, prefix), ("container_readdressed", message))
            }
            Ok(None) | Err(_) => {
                let message =
                    format!("{} shares {old}, which {who}, and there is no other address", what.holder);
                // Looked for again: the patience counts from then.
                (Dispute::Seen(now + TELL_AGAIN), ("address_disputed", message))
            }
        };
        if let Dispute::Told(_, prefix) = dispute {
            self.tell_readdress(lost, prefix);
        }
        self.disputes.insert(lost, dispute);
        self.outputs.push_back(IpamOutput::Notice { kind: notice.0, message: notice.1 });
    }

    /// What becomes of an address that was given up, in words.
    fn keeper(&self, network: NetworkId, addr: IpAddr) -> String {
        let taken = self.taken.get(&network);
        let winner = taken.and_then(|taken| taken.winner(addr)).filter(|(peer, _)| *peer != self.own);
        let holder = winner.and_then(|winner| taken?.holders(addr).find(|(id, _)| **id == winner));
        match holder {
            Some(((peer, _), holder)) => format!("{} on {} keeps", holder.name, self.name_of(*peer)),
            None => "is no address of the network now".to_owned(),
        }
    }

    fn tell_readdress(&mut self, (network, port, old): Lost, new: IpPrefix) {
        self.outputs.push_back(IpamOutput::Readdress { network, port, old, new });
    }

    /// The addresses that a port has allocated and does not show yet: what replaces a lost one.
    pub(super) fn unshown(&self, network: NetworkId, port: PortId, have: Vec<IpAddr>) -> Vec<IpAddr> {
        let shown = self.taken.get(&network).map_or(&[][..], |taken| taken.of((self.own, port)));
        let coming: Vec<IpAddr> = self.coming(network, port).collect();
        have.into_iter().filter(|addr| !shown.contains(addr) && !coming.contains(addr)).collect()
    }
}
