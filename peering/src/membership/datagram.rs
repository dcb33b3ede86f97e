//! Datagrams of the library: what kind they are, and those that this host writes itself.

use engine::types::PeerId;
use foca::State;

use super::Membership;
use super::member::MemberId;

impl Membership {
    /// Tells `peer` that it is suspected, if it is, so that it can deny it. The suspicion may be older than the
    /// news of it, which are told only a few times.
    pub fn confront(&mut self, peer: PeerId) {
        let known = self.foca.iter_membership_state().find(|member| member.id().peer == peer.0);
        let Some(suspect) = known.filter(|member| member.state() == State::Suspect) else { return };
        // An old incarnation of this host says nothing about it; the message is only about the other.
        let (src, dst) = (self.foca.identity().clone(), suspect.id().clone());
        let header = foca::Header { src, src_incarnation: 0, dst, message: foca::Message::Gossip };
        let one_update = 1_u16.to_be_bytes();
        if let (Ok(header), Ok(update)) = (postcard::to_allocvec(&header), postcard::to_allocvec(suspect)) {
            self.datagrams.push_back((peer, [&header[..], &one_update, &update].concat()));
        }
    }

    /// Asks a host whether it is there; [`Self::answer`] tells to which question an answer belongs.
    pub fn ask(&mut self, peer: PeerId, question: u8) {
        let known = self.foca.iter_members().find(|member| member.id().peer == peer.0);
        let Some(dst) = known.map(|member| member.id().clone()) else { return };
        let (src, message) = (self.foca.identity().clone(), foca::Message::Ping(question));
        if let Ok(bytes) = postcard::to_allocvec(&foca::Header { src, src_incarnation: 0, dst, message }) {
            self.datagrams.push_back((peer, bytes));
        }
    }

    /// True for a message that only spreads news: anybody may have it.
    pub fn is_news(bytes: &[u8]) -> bool {
        Self::header(bytes).is_some_and(|(header, _)| header.message == foca::Message::Gossip)
    }

    /// True for a message that is worth a connection of its own: a probe, or what belongs to one.
    pub fn is_worth_a_connection(bytes: &[u8]) -> bool {
        Self::header(bytes).is_some_and(|(header, _)| {
            !matches!(header.message, foca::Message::Gossip | foca::Message::TurnUndead | foca::Message::Feed)
        })
    }

    /// The number of the question that this is the answer to.
    pub fn answer(bytes: &[u8]) -> Option<u8> {
        Self::header(bytes).and_then(|(header, _)| match header.message {
            foca::Message::Ack(question) => Some(question),
            _ => None,
        })
    }

    /// The same news for somebody else; none if `peer` is not known.
    pub fn redirect(&self, bytes: &[u8], peer: PeerId) -> Option<Vec<u8>> {
        let (header, payload) = Self::header(bytes)?;
        let known = self.foca.iter_members().find(|member| member.id().peer == peer.0)?;
        let header = foca::Header { dst: known.id().clone(), ..header };
        let mut bytes = postcard::to_allocvec(&header).ok()?;
        bytes.extend_from_slice(payload);
        Some(bytes)
    }

    pub(super) fn header(bytes: &[u8]) -> Option<(foca::Header<MemberId>, &[u8])> {
        postcard::take_from_bytes(bytes).ok()
    }

    pub(super) fn readdress(&mut self, header: &foca::Header<MemberId>, payload: &[u8], peer: PeerId) {
        let known = self.foca.iter_membership_state().find(|member| member.id().peer == peer.0);
        let Some(dst) = known.map(|member| member.id().clone()) else { return };
        let header = foca::Header { dst, ..header.clone() };
        if let Ok(mut bytes) = postcard::to_allocvec(&header) {
            bytes.extend_from_slice(payload);
            self.datagrams.push_back((peer, bytes));
        }
    }
}
