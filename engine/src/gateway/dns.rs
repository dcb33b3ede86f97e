//! Answers to questions for names (RFC 1035).
//!
//! A message goes in, and what is to become of it comes out. Names of the asker's networks are answered from the
//! tables, with all their holders in random order; names that are not ours are for somebody else. The question is
//! repeated as it was asked, letter case included. Nothing here reads a clock or waits.

use std::collections::BTreeSet;
use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, NS, PTR, SOA, SRV};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};

use super::domain::{self, DOMAIN, Place, SERVER};
use super::names::{Asker, Entry, Names, Zone};
use crate::nonces::Nonces;

/// The longest message that everybody takes over UDP (RFC 1035 section 2.3.4).
pub const PLAIN_LIMIT: usize = 512;
/// The longest question that is taken over UDP, as it is told to who asks (RFC 9715 section 3).
const OWN_LIMIT: u16 = 1232;
/// Bytes of the header (RFC 1035 section 4.1.1).
pub const HEADER_LEN: usize = 12;
/// Bytes of an OPT record without options (RFC 6891 section 6.1.2).
const OPT_LEN: usize = 11;

/// What becomes of a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It is answered.
    Answer(Answer),
    /// It is a question for a name that is not ours, and may be asked for elsewhere. The limit is the longest
    /// answer over UDP that it allows.
    Forward {
        /// In bytes.
        limit: usize,
    },
    /// It is no question.
    Drop,
}

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The whole message.
    pub message: Vec<u8>,
    /// Its response code.
    pub code: u16,
    /// It did not fit and says so.
    pub truncated: bool,
}

/// Answers `message`, from a port that may ask as `asker` does, in at most `limit` bytes and what it allows itself.
/// `limit` is [`u16::MAX`] over TCP, where what a message allows is not looked at.
pub fn answer(names: &Names, asker: &Asker, message: &[u8], limit: u16, chance: &mut Nonces) -> Outcome {
    let Some(&[a, b, flags, ..]) = message.first_chunk::<HEADER_LEN>() else { return Outcome::Drop };
    let (id, is_response) = (u16::from_be_bytes([a, b]), flags & 0x80 != 0);
    if is_response {
        return Outcome::Drop;
    }
    let op_code = OpCode::from_u8(flags >> 3 & 0x0f);
    if op_code != OpCode::Query {
        return refuse(id, op_code, ResponseCode::NotImp);
    }
    let asked = Message::from_vec(message).ok();
    match asked.as_ref().map(|asked| (asked, asked.queries.as_slice())) {
        Some((asked, [query])) => {
            let limit = if limit == u16::MAX { usize::from(limit) } else { allowed(asked, limit) };
            Question { names, asker, asked, query, limit }.answer(chance)
        }
        Some(_) | None => refuse(id, op_code, ResponseCode::FormErr),
    }
}

/// The longest answer over UDP to `asked`.
fn allowed(asked: &Message, limit: u16) -> usize {
    let told = asked.edns.as_ref().map_or(0, Edns::max_payload);
    usize::from(told.min(limit)).max(PLAIN_LIMIT)
}

/// The answer of another server as it is passed on: with the id that was asked with, and cut to the question where it
/// is longer than `limit`. None when it is no answer at all.
pub fn pass_on(id: u16, mut message: Vec<u8>, limit: usize) -> Option<Answer> {
    let &[.., flags, code] = message.first_chunk::<4>()?;
    if flags & 0x80 == 0 || message.len() < HEADER_LEN {
        return None;
    }
    let truncated = message.len() > limit;
    if truncated {
        let whole = Message::from_vec(&message).ok()?;
        message = whole.truncate().to_vec().ok()?;
    }
    message.get_mut(..2)?.copy_from_slice(&id.to_be_bytes());
    Some(Answer { message, code: u16::from(code & 0x0f), truncated })
}

/// An answer of which nothing is known but the question: `code` says why there is none.
pub fn fail(message: &[u8], code: ResponseCode) -> Option<Answer> {
    let asked = Message::from_vec(message).ok()?;
    let mut reply = Message::error_msg(asked.id, asked.op_code, code);
    reply.metadata.recursion_desired = asked.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.queries.clone_from(&asked.queries);
    encode(&reply, PLAIN_LIMIT)
}

fn refuse(id: u16, op_code: OpCode, code: ResponseCode) -> Outcome {
    let reply = encode(&Message::error_msg(id, op_code, code), PLAIN_LIMIT);
    reply.map_or(Outcome::Drop, Outcome::Answer)
}

/// A well-formed question.
struct Question<'a> {
    names: &'a Names,
    asker: &'a Asker,
    asked: &'a Message,
    query: &'a Query,
    limit: usize,
}

/// The records of an answer.
#[derive(Default)]
struct Records {
    answers: Vec<RData>,
    additionals: Vec<Record>,
}

impl Question<'_> {
    fn answer(&self, chance: &mut Nonces) -> Outcome {
        if self.asked.edns.as_ref().is_some_and(|edns| edns.version() != 0) {
            return self.reply(ResponseCode::BADVERS, Records::default(), None);
        }
        let zone_transfer = matches!(self.query.query_type(), RecordType::AXFR | RecordType::IXFR);
        let our_class = matches!(self.query.query_class(), DNSClass::IN | DNSClass::ANY);
        if zone_transfer || !our_class {
            return self.reply(ResponseCode::Refused, Records::default(), None);
        }
        let name = text(self.query.name());
        match domain::place(self.names, self.asker, &name) {
            Place::Foreign if self.asker.forwards => Outcome::Forward { limit: self.limit },
            // Nobody else can know a name of one word; of others it is not ours to say that there are none.
            Place::Foreign if name.contains('.') || name.is_empty() => {
                self.reply(ResponseCode::Refused, Records::default(), None)
            }
            Place::Foreign => self.reply(ResponseCode::NXDomain, Records::default(), None),
            place => self.answer_ours(&place, chance),
        }
    }

    fn answer_ours(&self, place: &Place<'_>, chance: &mut Nonces) -> Outcome {
        let (exists, mut records) = match place {
            Place::Foreign | Place::Absent => (false, Records::default()),
            Place::Bare => (true, Records::default()),
            Place::Apex => (true, self.of_apex()),
            Place::Server => (true, self.of_server()),
            Place::Held { zone, name, holders } => (true, self.of_name(zone, name, holders, chance)),
            Place::Reverse { zone, holders } => (!holders.is_empty(), reverse(zone, holders, chance)),
        };
        let code = if exists { ResponseCode::NoError } else { ResponseCode::NXDomain };
        let wanted = self.query.query_type();
        records.answers.retain(|data| wanted == RecordType::ANY || data.record_type() == wanted);
        if !records.answers.is_empty() {
            return self.reply(code, records, None);
        }
        // Who has nothing to say says from which zone, and for how long (RFC 2308 section 3).
        self.reply(code, Records::default(), Some(self.origin(place)))
    }

    fn of_apex(&self) -> Records {
        let server = domain_name(SERVER);
        Records { answers: vec![RData::SOA(self.soa()), RData::NS(NS(server))], ..Records::default() }
    }

    fn of_server(&self) -> Records {
        let zones = self.asker.networks.iter().filter_map(|&vni| self.names.zone(vni));
        let gateways = zones.flat_map(|zone| zone.gateways().iter().map(|gateway| gateway.addr));
        Records { answers: gateways.map(address).collect(), ..Records::default() }
    }

    fn of_name(&self, zone: &Zone, name: &str, holders: &[&Entry], chance: &mut Nonces) -> Records {
        let (mut records, mut seen) = (Records::default(), BTreeSet::new());
        for entry in in_order(holders, chance) {
            let called = entry.names.iter().any(|known| known == name);
            let addrs = entry.addrs.iter().filter(|&&addr| called && seen.insert(addr));
            records.answers.extend(addrs.copied().map(address));
            for service in entry.services.iter().filter(|service| service.name == name) {
                let host = entry.first_name().unwrap_or_else(|| without_service(name));
                let Some(target) = full_name(zone, host) else { continue };
                let addrs = entry.addrs.iter().copied().map(address);
                let glue = addrs.map(|data| Record::from_rdata(target.clone(), self.names.ttl_s(), data));
                records.additionals.extend(glue);
                // Holders are equal: the order is the choice (RFC 2782).
                records.answers.push(RData::SRV(SRV::new(0, 0, service.port, target)));
            }
        }
        records
    }

    /// The zone that has no such record.
    fn origin(&self, place: &Place<'_>) -> Name {
        let asked = self.query.name();
        match place {
            Place::Reverse { .. } => asked.base_name(),
            _ if domain_name(DOMAIN).zone_of(asked) => asked.trim_to(2),
            _ => asked.clone(),
        }
    }

    fn soa(&self) -> SOA {
        let ttl = i32::try_from(self.names.ttl_s()).unwrap_or(i32::MAX);
        let people = domain_name("hostmaster.mesh.internal");
        SOA::new(domain_name(SERVER), people, 1, 3600, 600, 86_400, ttl.cast_unsigned())
    }

    /// The whole message. `nothing_in` is the zone to name where there is no record.
    fn reply(&self, code: ResponseCode, records: Records, nothing_in: Option<Name>) -> Outcome {
        let (asked, ttl) = (self.asked, self.names.ttl_s());
        let mut reply = Message::error_msg(asked.id, asked.op_code, code);
        reply.metadata.authoritative = !matches!(code, ResponseCode::Refused | ResponseCode::BADVERS);
        reply.metadata.recursion_desired = asked.recursion_desired;
        reply.metadata.recursion_available = self.asker.forwards;
        reply.metadata.checking_disabled = asked.checking_disabled;
        reply.add_query(self.query.clone());
        let record = |data| Record::from_rdata(self.query.name().clone(), ttl, data);
        reply.add_answers(records.answers.into_iter().map(record));
        reply.add_additionals(records.additionals);
        if let Some(origin) = nothing_in {
            reply.add_authority(Record::from_rdata(origin, ttl, RData::SOA(self.soa())));
        }
        if asked.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(OWN_LIMIT).set_version(0);
            reply.set_edns(edns);
        }
        encode(&reply, self.limit).map_or(Outcome::Drop, Outcome::Answer)
    }
}

/// The names of those who have an address.
fn reverse(zone: &Zone, holders: &[&Entry], chance: &mut Nonces) -> Records {
    let known = in_order(holders, chance).into_iter().filter_map(Entry::first_name);
    let names = known.filter_map(|name| full_name(zone, name));
    Records { answers: names.map(|name| RData::PTR(PTR(name))).collect(), ..Records::default() }
}

/// Shuffled, so that all get their share; those whose host does not answer last.
fn in_order<'a>(holders: &[&'a Entry], chance: &mut Nonces) -> Vec<&'a Entry> {
    let mut holders = holders.to_vec();
    for left in (1..holders.len()).rev() {
        let other = chance.next() % (left as u64 + 1);
        holders.swap(left, other as usize);
    }
    holders.sort_by_key(|entry| entry.suspected);
    holders
}

fn address(addr: IpAddr) -> RData {
    match addr {
        IpAddr::V4(addr) => RData::A(A(addr)),
        IpAddr::V6(addr) => RData::AAAA(AAAA(addr)),
    }
}

/// `_http._tcp.web` is offered by `web`.
fn without_service(name: &str) -> &str {
    let mut rest = name;
    while let Some((label, behind)) = rest.split_once('.').filter(|(label, _)| label.starts_with('_')) {
        debug_assert!(!label.is_empty());
        rest = behind;
    }
    rest
}

/// `name.network.mesh.internal`; none when it is too long for a name.
fn full_name(zone: &Zone, name: &str) -> Option<Name> {
    let labels = name.split('.').chain(zone.name().split('.')).chain(DOMAIN.split('.'));
    Name::from_labels(labels.map(str::as_bytes)).ok()
}

/// One of our own constants as a name.
fn domain_name(name: &str) -> Name {
    Name::from_labels(name.split('.').map(str::as_bytes)).unwrap_or_default()
}

/// A name in lower case, without the final dot. A dot within a label becomes something that no name has.
fn text(name: &Name) -> String {
    let label = |label: &[u8]| {
        let label = String::from_utf8_lossy(label).to_ascii_lowercase();
        label.replace('.', "\\.")
    };
    name.iter().map(label).collect::<Vec<_>>().join(".")
}

/// The message in at most `limit` bytes: what others may ask for again goes first, then as many answers as must, and it
/// says so (RFC 2181 section 9). Some resolvers use what there is.
fn encode(reply: &Message, limit: usize) -> Option<Answer> {
    let code = u16::from(reply.response_code);
    let whole = reply.to_vec().ok()?;
    if whole.len() <= limit {
        return Some(Answer { message: whole, code, truncated: false });
    }
    let mut reply = reply.clone();
    reply.additionals.clear();
    let whole = reply.to_vec().ok()?;
    if whole.len() <= limit {
        return Some(Answer { message: whole, code, truncated: false });
    }
    let edns = reply.edns.take();
    let room = limit.saturating_sub(if edns.is_some() { OPT_LEN } else { 0 });
    reply.answers.truncate(fitting(&reply, room)?);
    reply.authorities.clear();
    reply.edns = edns;
    reply.metadata.truncation = true;
    Some(Answer { message: reply.to_vec().ok()?, code, truncated: true })
}

/// How many answers fit into `room` bytes.
fn fitting(reply: &Message, room: usize) -> Option<usize> {
    let mut bytes = Vec::with_capacity(room);
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_max_size(u16::try_from(room).unwrap_or(u16::MAX));
    reply.emit(&mut encoder).ok()?;
    let &[.., a, b] = bytes.first_chunk::<8>()?;
    Some(usize::from(u16::from_be_bytes([a, b])))
}

/// Whether a message is a question at all: enough of it to be answered.
pub fn is_question(message: &[u8]) -> bool {
    message.len() >= HEADER_LEN && message.get(2).is_some_and(|flags| flags & 0x80 == 0)
}

#[cfg(test)]
mod tests;
