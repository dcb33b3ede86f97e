//! What is due of sessions, paths and ways each time that the control thread wakes.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::state::Control;
use crate::counters::DropReason;
use crate::io::netlink::Netlink;
use crate::path::ways::Look;
use crate::seam::Event;
use crate::session::signals::Signals;
use crate::tables::RemoteIndex;
use crate::wire::{probe, sealed};

/// How often workers are asked for which hosts they lack sessions, and which were heard elsewhere. Each costs a wake-up then,
/// and no more while frames for the one, or keepalives of the other, keep coming.
const WANTS: Duration = Duration::from_millis(100);
/// How often workers are asked for the hosts to which large datagrams flow.
const BULK: Duration = Duration::from_millis(200);

impl Control {
    /// Looks up how peers are reached that may be reached another way now, and shows those concerned where this host is.
    pub(super) fn follow_routes(&mut self, now: Instant, netlink: &Netlink, look: Option<Look>) {
        if let Some(look) = look {
            let paths: Vec<_> = match &look {
                Look::All => self.paths.paths().collect(),
                Look::Peers(peers) => {
                    peers.iter().filter_map(|&id| Some((id, self.paths.path(id)?))).collect()
                }
            };
            let hops = &mut self.hops;
            let ways = paths.into_iter().map(|(peer, addr)| (peer, addr, hops.to(netlink, addr.ip())));
            let moved = self.ways.handle_ways(now, &look, ways);
            moved.into_iter().for_each(|peer| self.paths.doubt(now, peer));
            if look == Look::All {
                self.tell(Event::UnderlayChanged);
            }
        }
        while let Some(peer) = self.ways.poll_show(now) {
            self.keeper.iter_mut().for_each(|keeper| keeper.show(peer));
        }
    }

    /// Does what the workers ask for, and what is due. `anyhow` also looks for sessions that have sealed much.
    pub(super) fn run_sessions(&mut self, now: Instant, signals: &Signals, anyhow: bool) {
        let Some(keeper) = &mut self.keeper else { return };
        let peer = |remote: RemoteIndex| self.registry.peer(remote);
        signals.heard.take().into_iter().filter_map(peer).for_each(|peer| keeper.handle_heard(now, peer));
        if now >= self.next_found && signals.found.any() {
            self.next_found = now + WANTS;
            for (remote, from) in signals.found.take() {
                let Some(peer) = peer(remote) else { continue };
                tracing::debug!(%peer, %from, "heard elsewhere than its frames go");
                self.paths.handle_heard(now, peer, from);
            }
        }
        if now >= self.next_wants && (signals.missing.any() || signals.lost.any()) {
            self.next_wants = now + WANTS;
            signals.missing.take().into_iter().filter_map(peer).for_each(|peer| keeper.want(now, peer));
            signals.lost.take().into_iter().filter_map(peer).for_each(|peer| keeper.want_anew(now, peer));
        }
        if anyhow || keeper.poll_timeout().is_some_and(|due| due <= now) {
            keeper.handle_timeout(now);
        }
    }

    /// Has the paths watched on which large datagrams flow, and those tried anew that have become too small.
    pub(super) fn watch_paths(&mut self, now: Instant, signals: &Signals) {
        for peer in signals.too_long.take().into_iter().filter_map(|remote| self.registry.peer(remote)) {
            self.paths.handle_too_long(now, peer);
        }
        if now >= self.next_bulk && signals.bulk.any() {
            self.next_bulk = now + BULK;
            for peer in signals.bulk.take().into_iter().filter_map(|remote| self.registry.peer(remote)) {
                self.paths.handle_bulk(now, peer);
            }
        }
    }

    /// Takes a datagram of a control socket, `first` of that for initiations. A packet of many datagrams goes where its first
    /// one belongs, so initiations may come by the other one; there they would take the time of probes.
    pub(super) fn handle_datagram(
        &mut self,
        now: Instant,
        (from, first): (SocketAddr, bool),
        bytes: &[u8],
    ) -> Result<(), DropReason> {
        match (bytes.first(), &mut self.keeper) {
            (Some(&sealed::INITIATION), _) if !first => Err(DropReason::HandshakeLimit),
            (Some(&(sealed::INITIATION | sealed::RESPONSE | sealed::COOKIE)), Some(keeper)) => {
                keeper.handle_datagram(now, from, bytes)
            }
            (Some(&probe::TYPE), _) => self.paths.handle_datagram(now, from, bytes),
            _ => Err(DropReason::NotOurs),
        }
    }

    /// When there is something to do next, on its own.
    pub(super) fn poll_timeout(&mut self, signals: &Signals) -> Option<Instant> {
        let bulk = signals.bulk.any().then_some(self.next_bulk);
        let wants = (signals.missing.any() || signals.lost.any()).then_some(self.next_wants);
        let wants = wants.into_iter().chain(signals.found.any().then_some(self.next_found));
        let sessions =
            self.keeper.as_mut().and_then(|keeper| keeper.poll_timeout().into_iter().chain(wants).min());
        self.paths
            .poll_timeout()
            .into_iter()
            .chain(sessions)
            .chain(self.ways.poll_timeout())
            .chain(bulk)
            .min()
    }
}
