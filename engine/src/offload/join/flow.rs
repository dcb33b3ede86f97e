//! Flows in progress: what the next frame must say to continue a super-frame.

use std::ops::Range;

use crate::offload::headers::Headers;
use crate::tables::RemoteIndex;
use crate::types::Vni;
use crate::wire::ether;
use crate::wire::ipv4::Ipv4;
use crate::wire::ipv6::Ipv6;
use crate::wire::tcp::{self, Tcp};
use crate::wire::udp::Udp;

/// How many flows are in progress at most. One more takes the place of another, round and round.
pub(super) const MAX_FLOWS: usize = 32;

/// The largest IP packet in bytes: what the length field of IPv4 can say.
const MAX_PACKET: usize = 65_535;

/// What is known of a frame's TCP or UDP checksum before it is looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sums {
    /// Nothing: one that looks partial is taken for partial.
    Guessed,
    /// It is partial, its sender says, and nobody else could have said it.
    Partial,
    /// It is not.
    Whole,
}

/// A frame with its origin and its headers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    pub(super) from: RemoteIndex,
    pub(super) vni: Vni,
    pub(super) frame: &'a [u8],
    pub(super) headers: Headers,
    pub(super) sums: Sums,
}

impl<'a> Candidate<'a> {
    /// Whether the frame may be part of a super-frame at all.
    ///
    /// TCP: data, ACK set, no flag but PSH, FIN and ECE. CWR is left out because it may stand in a first segment
    /// only, and there needs `VIRTIO_NET_HDR_GSO_ECN`, which is not negotiated. UDP: data, and a checksum, because
    /// segmenting makes one for every datagram.
    pub(super) fn is_joinable(&self) -> bool {
        const ALLOWED: u8 = tcp::ACK | tcp::PSH | tcp::FIN | tcp::ECE;
        if !self.headers.plain || self.headers.payload_len() == 0 {
            return false;
        }
        if self.headers.tcp {
            self.tcp().is_some_and(|tcp| tcp.flags() & tcp::ACK != 0 && tcp.flags() & !ALLOWED == 0)
        } else {
            Udp::parse(self.transport()).is_some_and(|udp| udp.checksum() != 0)
        }
    }

    /// PSH and FIN, which stand on the last segment of a super-frame only.
    pub(super) fn ending_flags(&self) -> u8 {
        if self.headers.tcp { self.tcp().map_or(0, |tcp| tcp.flags() & (tcp::PSH | tcp::FIN)) } else { 0 }
    }

    /// Whether every checksum is right, or partial.
    pub(super) fn is_intact(&self) -> bool {
        let (headers, frame) = (&self.headers, self.frame);
        headers.ip_is_intact(frame) && (self.is_partial() || headers.is_intact(frame))
    }

    /// Whether the checksum of the transport is partial.
    pub(super) fn is_partial(&self) -> bool {
        match self.sums {
            Sums::Guessed => self.headers.is_partial(self.frame),
            Sums::Partial => true,
            Sums::Whole => false,
        }
    }

    fn packet(&self) -> &'a [u8] {
        self.frame.get(usize::from(self.headers.l3)..self.headers.end as usize).unwrap_or_default()
    }

    fn transport(&self) -> &'a [u8] {
        self.frame.get(usize::from(self.headers.l4)..self.headers.end as usize).unwrap_or_default()
    }

    fn tcp(&self) -> Option<Tcp<'a>> {
        Tcp::parse(self.transport())
    }

    fn ports(&self) -> [u8; 4] {
        self.transport().first_chunk().copied().unwrap_or_default()
    }

    fn hash(&self) -> u32 {
        let (words, _) = self.headers.addresses().of(self.frame).as_chunks::<4>();
        let mix = |hash: u32, word: &[u8; 4]| {
            (hash.rotate_left(5) ^ u32::from_ne_bytes(*word)).wrapping_mul(0x9e37_79b1)
        };
        mix(words.iter().fold(self.from.0, mix), &self.ports())
    }

    /// Whether both are of one flow: same sender, network, Ethernet header, addresses, protocol and ports.
    fn is_same_flow(&self, other: &Candidate<'_>) -> bool {
        let ethernet = |c: &Candidate<'a>| c.frame.first_chunk::<{ ether::LEN }>().copied();
        let other_ethernet = other.frame.first_chunk::<{ ether::LEN }>().copied();
        self.from == other.from
            && self.vni == other.vni
            && (self.headers.tcp, self.headers.v6) == (other.headers.tcp, other.headers.v6)
            && self.ports() == other.ports()
            && ethernet(self) == other_ethernet
            && self.headers.addresses().of(self.frame) == other.headers.addresses().of(other.frame)
    }

    /// Whether the IP headers differ only where segments of one super-frame may: length, checksum and, counting
    /// up unless the packets are never cut (RFC 6864 section 4.1), identification.
    fn has_same_ip(&self, other: &Candidate<'_>, next_id: u16) -> bool {
        if self.headers.v6 {
            let shared = |packet| Ipv6::parse(packet).map(|ip| ip.shared());
            return shared(self.packet()) == shared(other.packet());
        }
        let (Some(a), Some(b)) = (Ipv4::parse(self.packet()), Ipv4::parse(other.packet())) else {
            return false;
        };
        a.shared() == b.shared() && (b.dont_fragment() || b.id() == next_id)
    }
}

/// A super-frame that may grow, or a frame that may become one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    hash: u32,
    from: RemoteIndex,
    vni: Vni,
    headers: Headers,
    sums: Sums,
    /// Place of the first frame in the arena.
    start: u32,
    /// Place of the super-frame in the joiner.
    pub(super) joined: u16,
    /// Whether the checksums of the first frame were found right.
    pub(super) verified: bool,
    /// Bytes of payload of the first segment: no later one has more.
    pub(super) size: u16,
    /// Bytes of the packet so far.
    packet_len: usize,
    next_seq: u32,
    next_id: u16,
}

/// Whether a frame continues a super-frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fit {
    /// It does, and more may follow.
    Continues,
    /// It does, as the last.
    Ends,
    /// It does not.
    No,
}

impl Flow {
    /// A flow that starts with `first`, which lies at `start` of the arena and is frame `joined` of the joiner.
    pub(super) fn new(first: &Candidate<'_>, start: u32, joined: usize) -> Self {
        let headers = first.headers;
        Flow {
            hash: first.hash(),
            from: first.from,
            vni: first.vni,
            headers,
            sums: first.sums,
            start,
            joined: joined as u16,
            verified: false,
            size: headers.payload_len() as u16,
            packet_len: headers.packet_headers_len() + headers.payload_len(),
            next_seq: first.tcp().map_or(0, |tcp| tcp.seq().wrapping_add(headers.payload_len() as u32)),
            next_id: Ipv4::parse(first.packet()).map_or(0, |ip| ip.id().wrapping_add(1)),
        }
    }

    /// The first frame again.
    pub(super) fn first<'a>(&self, arena: &'a [u8]) -> Candidate<'a> {
        let end = self.start.saturating_add(self.headers.end);
        let frame = arena.get(self.start as usize..end as usize).unwrap_or_default();
        Candidate { from: self.from, vni: self.vni, frame, headers: self.headers, sums: self.sums }
    }

    /// Place of the first frame in the arena, without padding.
    pub(super) fn first_range(&self) -> Range<u32> {
        self.start..self.start.saturating_add(self.headers.end)
    }

    /// Whether `next`, a joinable frame of this flow, continues it.
    pub(super) fn fit(&self, arena: &[u8], next: &Candidate<'_>) -> Fit {
        let first = self.first(arena);
        let len = next.headers.payload_len();
        let grows = len <= usize::from(self.size) && self.packet_len + len <= MAX_PACKET;
        if !grows || !first.has_same_ip(next, self.next_id) || !self.follows(&first, next) {
            return Fit::No;
        }
        if len < usize::from(self.size) || next.ending_flags() != 0 { Fit::Ends } else { Fit::Continues }
    }

    fn follows(&self, first: &Candidate<'_>, next: &Candidate<'_>) -> bool {
        if !self.headers.tcp {
            return true;
        }
        let (Some(a), Some(b)) = (first.tcp(), next.tcp()) else { return false };
        b.seq() == self.next_seq && a.agrees(&b)
    }

    /// Takes `next` in.
    pub(super) fn advance(&mut self, next: &Candidate<'_>) {
        let len = next.headers.payload_len();
        self.verified = true;
        self.packet_len += len;
        self.next_seq = self.next_seq.wrapping_add(len as u32);
        self.next_id = self.next_id.wrapping_add(1);
    }
}

/// The flows in progress, few enough to be looked through.
#[derive(Debug)]
pub(super) struct Flows {
    flows: Vec<Flow>,
    /// The place that is taken next when there is no room.
    next: usize,
}

impl Flows {
    pub(super) fn new() -> Self {
        Flows { flows: Vec::with_capacity(MAX_FLOWS), next: 0 }
    }

    pub(super) fn clear(&mut self) {
        self.flows.clear();
        self.next = 0;
    }

    /// The flow that `candidate` is of.
    pub(super) fn find(&self, arena: &[u8], candidate: &Candidate<'_>) -> Option<usize> {
        let hash = candidate.hash();
        let is_it = |flow: &Flow| flow.hash == hash && flow.first(arena).is_same_flow(candidate);
        self.flows.iter().position(is_it)
    }

    pub(super) fn get_mut(&mut self, at: usize) -> Option<&mut Flow> {
        self.flows.get_mut(at)
    }

    /// Starts a flow, in the place of another when there are too many.
    pub(super) fn open(&mut self, flow: Flow) {
        if self.flows.len() < MAX_FLOWS {
            self.flows.push(flow);
            return;
        }
        if let Some(place) = self.flows.get_mut(self.next) {
            *place = flow;
        }
        self.next = (self.next + 1) % MAX_FLOWS;
    }

    /// Ends a flow: what follows starts another super-frame.
    pub(super) fn close(&mut self, at: usize) {
        if at < self.flows.len() {
            self.flows.swap_remove(at);
        }
    }

    /// Ends all flows between two addresses, given as they stand in the packet.
    pub(super) fn close_between(&mut self, arena: &[u8], addresses: &[u8]) {
        self.flows.retain(|flow| flow.headers.addresses().of(flow.first(arena).frame) != addresses);
    }
}
