//! Connections whose far end has the key of this host: it is this host itself, or a clone.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use engine::types::PeerId;

use super::backoff::REFUSED;
use super::target::Phase;
use super::{LOOK, Topology};
use crate::mesh::{ConnId, DialTarget};
use crate::proto::Purpose;

/// What a connection to this host itself is closed with.
pub(crate) const ONESELF: &str = "self";

/// A clone that waits asks another host so often whether it is wanted.
const WAITING_LOOK: Duration = Duration::from_secs(5);

impl Topology {
    /// Looks whether another host with the key of this one is at an address.
    pub fn seek_oneself(&mut self, addr: SocketAddr) {
        self.dial(DialTarget::Addr { addrs: vec![addr], peer: self.me }, Purpose::Demand);
    }

    /// The far end is this host itself: the target that led there is done with. The side that dialled closes, so that it
    /// does not lose the other's hello with the connection.
    pub fn met_oneself(&mut self, conn: ConnId) {
        let Some(entry) = self.conns.get(&conn) else { return };
        let aim = entry.named.as_ref().and_then(|target| self.targets.get_mut(target));
        if let Some(aim) = aim {
            (aim.phase, aim.reason) = (Phase::Oneself, Some(ONESELF.to_owned()));
        }
        if entry.dialled {
            self.close(conn, ONESELF);
        }
    }

    /// The far end is another host with the key of this one: the target that led there waits long.
    pub fn met_another(&mut self, now: Instant, conn: ConnId, reason: &str) {
        let named = self.conns.get(&conn).and_then(|entry| entry.named.as_ref());
        if let Some(aim) = named.and_then(|target| self.targets.get_mut(target)) {
            aim.phase = Phase::Waiting { until: now + REFUSED, refused: true };
            aim.reason = Some(reason.to_owned());
        }
    }

    /// The reason for which peers refused this host holds no more: they are tried again at once.
    pub fn try_refused_again(&mut self, now: Instant, because: impl Fn(&str) -> bool) {
        let me = self.me;
        let holds = |reason: &Option<String>| reason.as_deref().is_some_and(&because);
        for aim in self.targets.values_mut().filter(|aim| aim.peer != Some(me) && holds(&aim.reason)) {
            if let Phase::Waiting { until, refused: true } = &mut aim.phase {
                *until = now;
            }
        }
        for link in self.links.values_mut().filter(|link| link.refused && holds(&link.reason)) {
            link.next_try = now;
        }
        self.look_at = self.look_at.min(now);
    }

    /// A clone that waits connects to nobody but the targets, whoever dials it and, now and then, somebody it knows.
    pub fn set_waiting(&mut self, waiting: bool) {
        self.waiting = waiting;
    }

    /// A clone that waits asks the host that dialled it from there whether it is wanted.
    pub fn ask_back(&mut self, peer: PeerId, remote: SocketAddr) {
        if !self.is_busy(peer) {
            self.dial_at(peer, vec![remote], Purpose::Chosen);
        }
    }

    /// How long until the links are looked through again.
    pub(super) fn look(&self) -> Duration {
        if self.waiting { WAITING_LOOK } else { LOOK }
    }
}
