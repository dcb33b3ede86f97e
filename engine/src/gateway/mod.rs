//! The gateway of each network: what the switch itself answers at the gateway's address.
//!
//! Frames of local ports come in, each with the network it is of; frames to those ports, and questions for names that
//! are not ours, go out. Echo requests and questions over UDP are answered in one step; TCP is smoltcp's. Everything is
//! bounded, and whatever a container sends has at worst the end of its own connections as its effect.

pub mod dns;
pub mod domain;
pub mod names;
mod packet;
pub mod questions;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;

use crate::counters::DropReason;
use crate::counters::gateway::{GatewayCounters, count};
use crate::nonces::Nonces;
use crate::seam::Event;
use crate::session::chance::Chance;
use crate::tables::PortIndex;
use crate::types::{PortId, Vni};
use crate::wire::{ipv4, ipv6, tcp, udp};
use dns::{Answer, Outcome};
use names::Names;
use packet::{Ends, Packet, SYN};
use questions::Questions;
pub use stream::MAX_QUESTION;
use stream::Stream;

/// Where names are asked for.
const DNS_PORT: u16 = 53;
/// TCP connections of one port.
pub const MAX_STREAMS_OF_PORT: usize = 64;
/// TCP connections of all ports.
pub const MAX_STREAMS: usize = 512;
/// How many packets to ports where nobody listens are answered in a second, of all ports together (RFC 1812 section
/// 4.3.2.8 asks for such a limit).
pub const REFUSALS_PER_SECOND: u32 = 100;

/// A frame for the gateway, and where it came from.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// The worker that read it, and writes what is answered.
    pub lane: u8,
    /// The port that sent it, as the workers know it.
    pub index: PortIndex,
    /// The same, as everybody knows it.
    pub port: PortId,
    /// Its network.
    pub vni: Vni,
    /// The network's largest packet in bytes.
    pub mtu: u16,
    /// Its transport checksum is not complete: its sender is on this machine.
    pub partial: bool,
    /// The frame.
    pub frame: &'a [u8],
}

/// A frame of the gateway.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transmit {
    /// The worker that is to write it.
    pub lane: u8,
    /// The port it is for, as the workers know it.
    pub index: PortIndex,
    /// The same, as everybody knows it: the number may have got another owner meanwhile.
    pub port: PortId,
    /// The frame.
    pub frame: Vec<u8>,
}

/// Where answers go.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Way {
    lane: u8,
    index: PortIndex,
    port: PortId,
    ends: Ends,
}

/// Names a connection: who asks, from which port to which address.
type StreamKey = (PortIndex, Ends, u16);

/// Where the answer of somebody else goes.
#[derive(Clone, Copy, Debug)]
enum Back {
    Datagram(Way, u16),
    Stream(StreamKey),
}

/// The gateways of all networks of this host.
pub struct Gateway {
    /// What must not be guessed comes of it.
    chance: Chance,
    /// Who comes first among equals.
    turns: Nonces,
    streams: BTreeMap<StreamKey, (Way, Stream)>,
    questions: Questions<Back>,
    /// The second that refusals are counted in, and how many there were.
    refusals: (Option<Instant>, u32),
    counters: Arc<GatewayCounters>,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
}

impl Gateway {
    /// Nothing open yet. `seed` comes from the system's generator.
    pub fn new(seed: [u8; 32], counters: Arc<GatewayCounters>) -> Self {
        let mut chance = Chance::new(seed);
        let questions = Questions::new(chance.word());
        Gateway {
            turns: Nonces::new(chance.word()),
            chance,
            streams: BTreeMap::new(),
            questions,
            refusals: (None, 0),
            counters,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Takes a frame that a port of this host has sent to the gateway's MAC address.
    ///
    /// # Errors
    /// Why nothing comes of it: [`DropReason::GatewayMalformed`], [`DropReason::GatewayFragment`],
    /// [`DropReason::GatewayNoRoute`], [`DropReason::GatewayClosed`], [`DropReason::GatewayStreams`],
    /// [`DropReason::GatewayNoQuestion`].
    pub fn handle_frame(
        &mut self,
        now: Instant,
        names: &Names,
        incoming: &Incoming<'_>,
    ) -> Result<(), DropReason> {
        let packet = Packet::open(incoming.frame, incoming.partial)?;
        let gateways = names.zone(incoming.vni).map_or(&[][..], |zone| zone.gateways());
        if !gateways.iter().any(|gateway| gateway.addr == packet.ends.own) {
            return Err(DropReason::GatewayNoRoute);
        }
        let Incoming { lane, index, port, .. } = *incoming;
        let way = Way { lane, index, port, ends: packet.ends };
        if let Some(reply) = packet.echo() {
            count(&self.counters.pings);
            self.transmit(&way, reply);
            return Ok(());
        }
        match (packet.protocol, ports(packet.payload)) {
            (udp::PROTOCOL, Some((from, DNS_PORT))) => {
                self.handle_datagram(now, names, (&way, from), incoming, &packet)
            }
            (tcp::PROTOCOL, Some((from, DNS_PORT))) => {
                self.handle_segment(now, names, (&way, from), incoming, &packet)
            }
            (udp::PROTOCOL, Some(_)) => self.refuse(now, &way, || packet.port_unreachable()),
            (tcp::PROTOCOL, Some(_)) => self.refuse(now, &way, || packet.reset()),
            _ => Err(DropReason::GatewayClosed),
        }
    }

    /// One question over UDP.
    fn handle_datagram(
        &mut self,
        now: Instant,
        names: &Names,
        (way, from): (&Way, u16),
        incoming: &Incoming<'_>,
        packet: &Packet<'_>,
    ) -> Result<(), DropReason> {
        let datagram = udp::Udp::parse(packet.payload).and_then(|_| packet.payload.get(udp::LEN..));
        let message = datagram.ok_or(DropReason::GatewayMalformed)?;
        let header = if way.ends.own.is_ipv4() { ipv4::LEN } else { ipv6::LEN };
        // Answers are not cut into fragments.
        let limit = incoming.mtu.saturating_sub((header + udp::LEN) as u16);
        let answer = self.ask(now, names, incoming, (message, limit), Back::Datagram(*way, from))?;
        answer.into_iter().for_each(|answer| self.answer_datagram(way, from, &answer));
        Ok(())
    }

    /// Answers a message from the tables, or passes it to who may know; then there is no answer yet.
    fn ask(
        &mut self,
        now: Instant,
        names: &Names,
        incoming: &Incoming<'_>,
        (message, limit): (&[u8], u16),
        back: Back,
    ) -> Result<Option<Answer>, DropReason> {
        if !dns::is_question(message) {
            return Err(DropReason::GatewayNoQuestion);
        }
        count(&self.counters.questions);
        let asker = names.asker(incoming.port, incoming.vni);
        let answer = match dns::answer(names, &asker, message, limit, &mut self.turns) {
            Outcome::Answer(answer) => answer,
            Outcome::Drop => return Err(DropReason::GatewayNoQuestion),
            Outcome::Forward { limit } => {
                let id = message.first_chunk::<2>().map_or(0, |id| u16::from_be_bytes(*id));
                if let Some(question) = self.questions.ask(now, incoming.port, (id, limit), back) {
                    count(&self.counters.forwarded);
                    let tcp = matches!(back, Back::Stream(_));
                    let (port, message) = (incoming.port, message.to_vec());
                    self.events.push_back(Event::Question { question, port, message, tcp });
                    return Ok(None);
                }
                dns::fail(message, ResponseCode::ServFail).ok_or(DropReason::GatewayNoQuestion)?
            }
        };
        self.count_answer(&answer);
        Ok(Some(answer))
    }

    fn count_answer(&self, answer: &Answer) {
        count(match ResponseCode::from(0, answer.code as u8) {
            ResponseCode::NoError => &self.counters.answered,
            ResponseCode::NXDomain => &self.counters.nxdomain,
            _ => &self.counters.refused,
        });
        if answer.truncated {
            count(&self.counters.truncated);
        }
    }

    fn answer_datagram(&mut self, way: &Way, to: u16, answer: &Answer) {
        if let Some(frame) = way.ends.datagram((DNS_PORT, to), &answer.message) {
            self.transmit(way, frame);
        }
    }

    /// A segment of a connection, or the first of one.
    fn handle_segment(
        &mut self,
        now: Instant,
        names: &Names,
        (way, from): (&Way, u16),
        incoming: &Incoming<'_>,
        packet: &Packet<'_>,
    ) -> Result<(), DropReason> {
        let key = (way.index, way.ends, from);
        if !self.streams.contains_key(&key) {
            let flags = tcp::Tcp::parse(packet.payload).ok_or(DropReason::GatewayMalformed)?.flags();
            if flags & (SYN | tcp::ACK) != SYN {
                return self.refuse(now, way, || packet.reset());
            }
            self.open_stream(now, way, key, incoming.mtu)?;
        }
        if let Some((known, stream)) = self.streams.get_mut(&key) {
            // What comes through another queue is answered there.
            (known.lane, known.port) = (way.lane, way.port);
            stream.handle_packet(now, packet.ip);
        }
        self.serve(now, names, key, Some(incoming));
        Ok(())
    }

    /// Makes room for a connection: who has not shown yet that they hear us goes first.
    fn open_stream(&mut self, now: Instant, way: &Way, key: StreamKey, mtu: u16) -> Result<(), DropReason> {
        let of_port = self.streams.keys().filter(|(index, ..)| *index == way.index).count();
        if of_port >= MAX_STREAMS_OF_PORT || self.streams.len() >= MAX_STREAMS {
            let mut own = self.streams.iter().filter(|((index, ..), _)| *index == way.index);
            let opening = own.find(|(_, (_, stream))| stream.is_opening()).map(|(&key, _)| key);
            self.streams.remove(&opening.ok_or(DropReason::GatewayStreams)?);
        }
        let own = SocketAddr::new(way.ends.own, DNS_PORT);
        let stream = Stream::new(now, own, mtu, self.chance.word()).ok_or(DropReason::GatewayStreams)?;
        count(&self.counters.streams);
        self.streams.insert(key, (*way, stream));
        Ok(())
    }

    /// Answers what a connection asks, sends what it has to send, and forgets it once it is over. Without `incoming`
    /// nothing new was heard.
    fn serve(&mut self, now: Instant, names: &Names, key: StreamKey, incoming: Option<&Incoming<'_>>) {
        while let Some(incoming) = incoming
            && let Some(message) =
                self.streams.get_mut(&key).and_then(|(_, stream)| stream.poll_question(now))
        {
            let answer = self.ask(now, names, incoming, (&message, u16::MAX), Back::Stream(key));
            let Some((_, stream)) = self.streams.get_mut(&key) else { return };
            match answer {
                Ok(Some(answer)) => stream.answer(now, Some(&answer.message)),
                Ok(None) => {}
                Err(_) => stream.answer(now, None),
            }
        }
        let Some((way, stream)) = self.streams.get_mut(&key) else { return };
        stream.close_if_done(now);
        let (way, packets, over) = (*way, stream.take_packets(), stream.is_over());
        packets.into_iter().for_each(|packet| self.transmit(&way, way.ends.link(&packet)));
        if over {
            self.streams.remove(&key);
        }
    }

    /// Tells who sent it that nobody listens there, unless that was told often.
    fn refuse(
        &mut self,
        now: Instant,
        way: &Way,
        reply: impl FnOnce() -> Option<Vec<u8>>,
    ) -> Result<(), DropReason> {
        let (since, told) = &mut self.refusals;
        if since.is_none_or(|since| now.saturating_duration_since(since) >= Duration::from_secs(1)) {
            (*since, *told) = (Some(now), 0);
        }
        *told += 1;
        if *told <= REFUSALS_PER_SECOND {
            reply().into_iter().for_each(|reply| self.transmit(way, reply));
        }
        Err(DropReason::GatewayClosed)
    }

    /// Takes the answer of somebody else to a question. One that nobody waits for is dropped.
    pub fn handle_answer(&mut self, now: Instant, names: &Names, question: u64, message: Vec<u8>) {
        let Some(open) = self.questions.take(question) else { return };
        let answer = dns::pass_on(open.id, message, open.limit);
        if let Some(answer) = &answer {
            count(&self.counters.passed_on);
            if answer.truncated {
                count(&self.counters.truncated);
            }
        }
        match (open.back, answer) {
            (Back::Datagram(way, to), Some(answer)) => self.answer_datagram(&way, to, &answer),
            (Back::Datagram(..), None) => {}
            (Back::Stream(key), answer) => self.answer_stream(now, names, key, answer.as_ref()),
        }
    }

    fn answer_stream(&mut self, now: Instant, names: &Names, key: StreamKey, answer: Option<&Answer>) {
        if let Some((_, stream)) = self.streams.get_mut(&key) {
            stream.answer(now, answer.map(|answer| answer.message.as_slice()));
        }
        self.serve(now, names, key, None);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant, names: &Names) {
        for late in self.questions.take_late(now) {
            count(&self.counters.unanswered);
            if let Back::Stream(key) = late.back {
                self.answer_stream(now, names, key, None);
            }
        }
        let mut due = Vec::new();
        for (&key, (_, stream)) in &mut self.streams {
            if stream.poll_timeout(now) <= now {
                stream.handle_timeout(now);
                due.push(key);
            }
        }
        due.into_iter().for_each(|key| self.serve(now, names, key, None));
    }

    /// When [`Gateway::handle_timeout`] has something to do.
    pub fn poll_timeout(&mut self, now: Instant) -> Option<Instant> {
        let streams = self.streams.values_mut().map(|(_, stream)| stream.poll_timeout(now));
        streams.chain(self.questions.poll_timeout()).min()
    }

    /// How many TCP connections there are.
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// The next frame to write.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next question that somebody else may know.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn transmit(&mut self, way: &Way, frame: Vec<u8>) {
        let Way { lane, index, port, .. } = *way;
        self.transmits.push_back(Transmit { lane, index, port, frame });
    }
}

/// From which port to which, of UDP or TCP.
fn ports(payload: &[u8]) -> Option<(u16, u16)> {
    let &[a, b, c, d] = payload.first_chunk::<4>()?;
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}
