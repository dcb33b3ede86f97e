//! How the new secret of a rotation goes from host to host, and what becomes of those that were left behind.

use std::time::Duration;

use engine::types::PeerId;
use rand::seq::IteratorRandom;

use super::{ConnId, Mesh, Output};
use crate::proto::Message;
use crate::secret::{Secret, SecretName};

/// The new secret is given to nobody before the rotation is known here for so long, and the records here were found to be those
/// of another host meanwhile: a revocation that was said before it, on whatever host, is known by then.
const HOLD_BACK: Duration = Duration::from_secs(1);
/// In a cluster that changes all the time two hosts may hold the same records seldom: after so long they need not.
const HOLD_BACK_MAX: Duration = Duration::from_secs(10);
/// A host that lacks the new secret asks for it so often.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// So long after the former secret is not taken any more a connection with a host that has no other ends. Sessions of the data
/// plane end as soon.
const LEFT_AFTER: Duration = Duration::from_secs(10);

impl Mesh {
    pub(super) fn ask_for_secret(&mut self, to: SecretName, whom: &[PeerId]) {
        if self.secrets.asked.is_some_and(|at| self.now.saturating_duration_since(at) < ASK_EVERY) {
            return;
        }
        let connected = whom.iter().copied().filter(|peer| self.topology.best(*peer).is_some());
        let chosen = connected.choose(&mut self.rng);
        if let Some(peer) = chosen.or_else(|| whom.iter().copied().choose(&mut self.rng)) {
            self.secrets.asked = Some(self.now);
            self.send(peer, &Message::SecretRequest(to));
        }
    }

    /// A peer lacks the secret to which the cluster goes over. That it has proved another one says little, since others than
    /// hosts of the cluster may know that by now: it must have been one of them when the rotation began.
    pub(super) fn handle_secret_request(&mut self, conn: ConnId, peer: PeerId, name: SecretName) {
        let Some((record, _)) = self.store.rotation() else { return };
        let belongs = record.to == name && record.is_for(peer);
        if !belongs || self.barred(peer).is_some() || self.store.removed(peer) || !self.may_hand_out(name) {
            return;
        }
        if let Some(secret) = self.keyring().secret(name) {
            let bytes = Message::SecretAnswer(secret.clone()).encode();
            self.outbox.push(Output::Transmit { conn, bytes });
        }
    }

    fn may_hand_out(&self, name: SecretName) -> bool {
        let Some((_, since)) = self.secrets.known.filter(|(to, _)| *to == name) else { return false };
        let known_for = self.now.saturating_duration_since(since);
        let compared = self.rest.has_compared_since(since);
        known_for >= HOLD_BACK_MAX || (known_for >= HOLD_BACK && compared)
    }

    /// The secret that was asked for; any other is not taken.
    pub(super) fn handle_secret_answer(&mut self, secret: Secret) {
        let Some((record, _)) = self.store.rotation() else { return };
        let (from, to) = (record.from, record.to);
        let open = self.keyring().is_empty();
        if !open && self.secrets.asked.is_some() && secret.name() == to && !self.keyring().holds(to) {
            self.take_secret(secret, from);
            self.look_at_rotation();
        }
    }

    /// Ends what is left of connections that were proved with a secret of before, once.
    pub(super) fn cut_left_behind(&mut self) {
        if self.secrets.retired.take_if(|at| self.now.saturating_duration_since(*at) >= LEFT_AFTER).is_none()
        {
            return;
        }
        for peer in self.topology.connected() {
            if !self.has_what_is_taken(peer) {
                let reason = format!("retired secret: host {} takes another one than {peer} has", self.me);
                self.cut(peer, &reason);
                self.count_bar(&reason);
            } else if !self.store.rotation().is_some_and(|(record, _)| record.is_for(peer)) {
                // What it says it takes anybody may say: names are no secret. Whoever does have it is back at once.
                self.have_proved_again(peer);
            }
        }
    }

    fn have_proved_again(&mut self, peer: PeerId) {
        for conn in self.topology.connections_to(peer) {
            self.topology.close(conn, "the secret is to be proved again");
        }
    }

    fn has_what_is_taken(&self, peer: PeerId) -> bool {
        let takes = self.store.host(peer).map(|host| host.secrets.as_slice()).unwrap_or_default();
        takes.iter().any(|name| self.keyring().holds(*name))
    }

    /// This host has only a secret that the others do not take any more.
    pub(super) fn note_left_behind(&mut self) {
        if !std::mem::replace(&mut self.secrets.told_left, true) {
            let text = "this host's secret is no longer taken: the cluster went over to another one (`meshnet secret rotate`) \
                        while this host was away, or it joined after that began. Launch it with the secret that the other \
                        hosts have now";
            self.note("secret_retired", text.to_owned());
        }
    }
}
