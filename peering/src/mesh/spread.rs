//! How records reach everybody: news are pushed at once, and everything is compared with one random partner a second.

use std::sync::Arc;

use engine::types::PeerId;
use rand::RngExt;
use rand::seq::IteratorRandom;

use super::budget::Budget;
use super::{ConnId, Endpoint, Mesh, MeshEvent, Output};
use crate::gossip::{Digest, MAX_RANGES, Merge, Parts, Range, Record, Slot, Step, kind};
use crate::proto::{Message, Summary};
use crate::records::{Body, EndpointRecord};

/// With so many connections or fewer, news go to all of them, else to so many chosen at random.
const FANOUT: usize = 6;

/// What one record of a range costs that has to be looked at, in bytes.
const WALKED: usize = 32;

/// One comparison in so many is with anybody who is connected, be it no partner.
const STRANGERS: u32 = 4;

/// So many other hosts are named to whoever connects: enough to go on by itself when everybody comes at once.
const ACQUAINTANCES: usize = 8;

impl Mesh {
    /// The first things a new connection carries: who this host is, whom else it knows that the peer may want to know,
    /// and what it holds.
    pub(super) fn introduce(&mut self, conn: ConnId, peer: PeerId) {
        let mut hosts = self.topology.acquaintances(peer, ACQUAINTANCES);
        hosts.push(self.me);
        let record =
            |peer| self.store.get(Slot::of(crate::gossip::Class::Owner, kind::HOST, peer, &[])).cloned();
        let records: Vec<Arc<Record>> = hosts.into_iter().filter_map(record).collect();
        self.transmit_all(conn, Message::push(&records));
        self.summarise(conn);
    }

    /// Starts a round of repair.
    pub(super) fn compare_with_anybody(&mut self) {
        if let Some(conn) = self.anybody() {
            self.summarise(conn);
        }
    }

    /// Somebody to compare with: mostly a partner, now and then any other that is connected, so that nothing rests on who
    /// is whose partner.
    pub(super) fn anybody(&mut self) -> Option<ConnId> {
        let partner = self.rng.random_range(0..STRANGERS) > 0;
        let peers = if partner { self.topology.partners() } else { self.topology.connected() };
        let peer = peers.into_iter().choose(&mut self.rng)?;
        self.topology.best(peer)
    }

    pub(super) fn handle_summary(&mut self, conn: ConnId, theirs: Summary) {
        let ours = self.summary();
        if ours.records == theirs.records {
            self.rest.note_compared(self.now);
        }
        if ours == theirs || !self.pay_repair(conn) {
            return;
        }
        if ours.records != theirs.records {
            self.tell(conn, vec![self.store.step(Range::ALL)]);
        }
        if ours.units != theirs.units {
            let tables = self.ipam.unit_tables();
            self.repair_with(conn, tables.into_iter().map(Message::Units).collect());
        }
    }

    /// Another host's hashes of ranges: goes on where they differ from those here.
    pub(super) fn handle_ranges(&mut self, conn: ConnId, ranges: &[Parts]) {
        let mut steps = Vec::new();
        for parts in ranges {
            if !self.pay_walk(conn) {
                break;
            }
            steps.extend(self.store.compare_parts(parts));
        }
        self.tell(conn, steps);
    }

    fn tell(&mut self, conn: ConnId, steps: Vec<Step>) {
        let (mut digests, mut ranges) = (Vec::new(), Vec::new());
        for step in steps {
            match step {
                Step::Lines(digest) => digests.push(Message::Digest(digest)),
                Step::Parts(parts) => ranges.push(*parts),
            }
        }
        let ranges = ranges.chunks(MAX_RANGES).map(|ranges| Message::Ranges(ranges.to_vec()));
        self.repair_with(conn, ranges.chain(digests).collect());
    }

    pub(super) fn handle_digest(&mut self, conn: ConnId, digest: &Digest) {
        let walked = self.store.expected_len(digest.first, digest.last).saturating_mul(WALKED);
        if !self.pay_walk(conn) || !self.pay_out(conn, walked) {
            return;
        }
        let mut difference = self.store.compare(digest);
        // What is sent costs the peer who asked for it; what it cannot pay now it finds missing in its next round.
        difference.send.retain(|record| self.pay_record(conn, record));
        self.transmit_all(conn, Message::records(&difference.send));
        if !difference.want.is_empty() {
            self.transmit_all(conn, vec![Message::Pull(difference.want)]);
        }
    }

    pub(super) fn handle_pull(&mut self, conn: ConnId, slots: &[Slot]) {
        let mut records = self.store.pull(slots);
        records.retain(|record| self.pay_record(conn, record));
        self.transmit_all(conn, Message::records(&records));
    }

    /// Records came from a peer: what is new is used and relayed, and what the peer lacks goes back.
    pub(super) fn handle_records(&mut self, conn: ConnId, from: PeerId, records: &[Vec<u8>]) {
        let (mut news, mut answer, mut returned) = (Vec::new(), Vec::new(), Vec::new());
        let mut overruled = Vec::new();
        for bytes in records {
            match self.store.insert(bytes) {
                Merge::Accepted { record, previous } => {
                    returned.extend(self.is_return(&record, previous.as_deref()).then(|| record.signer()));
                    overruled.extend(previous.filter(|previous| overrules(previous, &record)));
                    news.push(record);
                }
                Merge::Older(held) | Merge::Dead(held) => answer.push(held),
                Merge::Equal | Merge::Overtaken => {}
                // To find a forgery out costs much more than to send it.
                Merge::Invalid(_) if self.pay_walk(conn) => {}
                Merge::Invalid(_) => {
                    self.topology.close(conn, "too many forged records");
                    break;
                }
            }
        }
        if !news.is_empty() {
            self.outbox.change(self.now);
        }
        self.bury();
        for record in &news {
            self.apply(record);
        }
        for peer in returned {
            let text = format!("host {} ({peer}) was removed and came back", self.nickname(peer));
            self.note("host_returned", text);
        }
        self.push(&news, Some(from));
        self.heed_rotation(&news);
        self.transmit_all(conn, Message::records(&answer));
        self.restore_settings(&overruled);
        self.reassert();
        self.come_back();
    }

    /// Of two clusters that meet, the settings of the lower one count: whoever sees others take their place writes
    /// them again, above those.
    fn restore_settings(&mut self, overruled: &[Arc<Record>]) {
        for record in overruled {
            if let Body::Network(network) = record.body() {
                let written = self.store.put_network(&self.config.identity, network);
                self.wrote(written.as_slice());
            }
        }
    }

    /// This host wrote records: they are used here, stored, and told to everybody, in this order.
    pub(super) fn wrote(&mut self, records: &[Arc<Record>]) {
        if records.is_empty() {
            return;
        }
        self.outbox.guard();
        self.bury();
        for record in records {
            self.apply(record);
        }
        self.push(records, None);
    }

    /// If a peer remembers a life of this host that it does not remember itself, it goes on above that. Endpoints of
    /// that life are told first: their interfaces may still stand.
    fn reassert(&mut self) {
        let recalled: Vec<Endpoint> = self.store.recalled().map(EndpointRecord::endpoint).collect();
        recalled.into_iter().for_each(|endpoint| self.view.tell(MeshEvent::EndpointRecalled(endpoint)));
        let elsewhere = self.store.recalled_at();
        let records = self.store.reassert(&self.config.identity);
        elsewhere.into_iter().for_each(|addr| self.seek_the_other(addr));
        if !records.is_empty() {
            self.membership.raise(self.now, super::bump(self.store.incarnation()));
            self.wrote(&records);
        }
    }

    fn push(&mut self, news: &[Arc<Record>], except: Option<PeerId>) {
        if news.is_empty() {
            return;
        }
        let peers = self.topology.partners().into_iter().filter(|peer| Some(*peer) != except);
        let messages: Vec<Vec<u8>> = Message::push(news).iter().map(Message::encode).collect();
        for peer in peers.sample(&mut self.rng, FANOUT) {
            let Some(conn) = self.topology.best(peer) else { continue };
            for bytes in &messages {
                self.outbox.push_repairable(conn, bytes.clone());
            }
        }
    }

    /// Facts about units, to the same partners as records.
    pub(super) fn push_units(&mut self, message: &Message) {
        let bytes = message.encode();
        for peer in self.topology.partners().into_iter().sample(&mut self.rng, FANOUT) {
            if let Some(conn) = self.topology.best(peer) {
                self.outbox.push_repairable(conn, bytes.clone());
            }
        }
    }

    pub(super) fn summarise(&mut self, conn: ConnId) {
        let summary = self.summary();
        self.outbox.push(Output::Transmit { conn, bytes: Message::Summary(summary).encode() });
    }

    fn summary(&self) -> Summary {
        Summary { records: self.store.full_hash(), units: self.ipam.units_hash() }
    }

    /// Pays for a comparison, out of what this peer may ask and of what all may ask together.
    pub(super) fn pay_repair(&mut self, conn: ConnId) -> bool {
        self.repairs.begin(self.now) && self.pay_walk(conn)
    }

    pub(super) fn pay_walk(&mut self, conn: ConnId) -> bool {
        self.budgets.get_mut(&conn).is_some_and(Budget::pay_walk)
    }

    fn pay_out(&mut self, conn: ConnId, len: usize) -> bool {
        self.budgets.get_mut(&conn).is_some_and(|budget| budget.pay_out(len))
    }

    /// Pays for a record that a peer lacks, out of what this peer may ask and of what all may ask together.
    fn pay_record(&mut self, conn: ConnId, record: &Record) -> bool {
        let len = record.bytes().len();
        self.pay_out(conn, len) && self.repairs.pay_out(self.now, len)
    }

    /// Sends what repair needs, as far as all peers together may cost so much.
    pub(super) fn repair_with(&mut self, conn: ConnId, messages: Vec<Message>) {
        for message in messages {
            let bytes = message.encode();
            if self.repairs.pay_out(self.now, bytes.len()) {
                self.outbox.push_repairable(conn, bytes);
            }
        }
    }

    pub(super) fn transmit_all(&mut self, conn: ConnId, messages: Vec<Message>) {
        for message in messages {
            self.outbox.push_repairable(conn, message.encode());
        }
    }
}

/// True when the settings of a network that stood before are those of a lower cluster.
fn overrules(before: &Record, now: &Record) -> bool {
    match (before.body(), now.body()) {
        (Body::Network(before_it), Body::Network(now_it)) => {
            !before.deleted() && !now.deleted() && before_it.cluster < now_it.cluster
        }
        _ => false,
    }
}
