//! What cutting and joining need to know of a frame: where its headers end, and which flow it belongs to.

use crate::counters::DropReason;
use crate::wire::checksum::Sum;
use crate::wire::ether::{self, Ether};
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::ipv6::{self, Ipv6};
use crate::wire::tcp::{self, Tcp};
use crate::wire::udp::{self, Udp};
use crate::wire::virtio::{GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM, VnetHeader};

/// A frame as far as this module reads it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Inner {
    /// A whole TCP segment or UDP datagram.
    Flow(Headers),
    /// A part of some flow between two addresses that does not say of which: a fragment, or a transport header that
    /// contradicts itself.
    Piece(Addresses),
    /// Anything else.
    Other,
}

/// Where the two addresses of a packet stand, in bytes from the start of the frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Addresses {
    pub(super) start: u16,
    pub(super) len: u16,
}

/// Where the headers of a TCP segment or UDP datagram stand, in bytes from the start of the frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Headers {
    pub(super) l3: u16,
    pub(super) l4: u16,
    pub(super) payload: u16,
    /// Where the packet ends; padding may follow.
    pub(super) end: u32,
    pub(super) v6: bool,
    pub(super) tcp: bool,
    /// No tag, no IP options, no extension headers.
    pub(super) plain: bool,
}

impl Inner {
    /// Reads the headers of `frame`, which may be longer than 64 KiB only by its padding.
    pub(super) fn parse(frame: &[u8]) -> Result<Inner, DropReason> {
        let ether = Ether::parse(frame)?;
        let l3 = ether.payload_offset();
        let inner = match ether.ethertype() {
            ether::IPV4 => Self::parse_ipv4(l3, ether.payload()),
            ether::IPV6 => Self::parse_ipv6(l3, ether.payload()),
            _ => None,
        };
        Ok(inner.unwrap_or(Inner::Other))
    }

    fn parse_ipv4(l3: usize, packet: &[u8]) -> Option<Inner> {
        let ip = Ipv4::parse(packet)?;
        let addresses = Addresses { start: l3 as u16 + 12, len: 8 };
        if ip.is_fragment() {
            return Some(Inner::Piece(addresses));
        }
        let headers =
            Headers::parse(l3, ip.header_len(), packet.get(..ip.total_len())?, ip.protocol(), false);
        Some(Self::of(headers, ip.protocol(), addresses))
    }

    fn parse_ipv6(l3: usize, packet: &[u8]) -> Option<Inner> {
        let ip = Ipv6::parse(packet)?;
        let addresses = Addresses { start: l3 as u16 + 8, len: 32 };
        if ip.is_fragment() {
            return Some(Inner::Piece(addresses));
        }
        let headers = Headers::parse(l3, ip.header_len(), packet.get(..ip.total_len())?, ip.protocol(), true);
        Some(Self::of(headers, ip.protocol(), addresses))
    }

    fn of(headers: Option<Headers>, protocol: u8, addresses: Addresses) -> Inner {
        match headers {
            Some(headers) => Inner::Flow(headers),
            None if matches!(protocol, tcp::PROTOCOL | udp::PROTOCOL) => Inner::Piece(addresses),
            None => Inner::Other,
        }
    }
}

impl Headers {
    fn parse(l3: usize, l3_len: usize, packet: &[u8], protocol: u8, v6: bool) -> Option<Headers> {
        let transport = packet.get(l3_len..)?;
        let (tcp, l4_len) = match protocol {
            tcp::PROTOCOL => (true, Tcp::parse(transport)?.header_len()),
            udp::PROTOCOL => Udp::parse(transport).map(|_| (false, udp::LEN))?,
            _ => return None,
        };
        let l4 = l3 + l3_len;
        let plain = l3 == ether::LEN && l3_len == if v6 { ipv6::LEN } else { ipv4::LEN };
        Some(Headers {
            l3: l3 as u16,
            l4: u16::try_from(l4).ok()?,
            payload: u16::try_from(l4 + l4_len).ok()?,
            end: (l3 + packet.len()) as u32,
            v6,
            tcp,
            plain,
        })
    }

    /// Length of the payload in bytes.
    pub(super) fn payload_len(&self) -> usize {
        self.end as usize - usize::from(self.payload)
    }

    /// Length of the IP packet's headers in bytes.
    pub(super) fn packet_headers_len(&self) -> usize {
        usize::from(self.payload - self.l3)
    }

    /// Where the transport's checksum stands behind the start of its header.
    pub(super) fn checksum_offset(&self) -> u16 {
        (if self.tcp { tcp::CHECKSUM_OFFSET } else { udp::CHECKSUM_OFFSET }) as u16
    }

    pub(super) fn addresses(&self) -> Addresses {
        if self.v6 {
            Addresses { start: self.l3 + 8, len: 32 }
        } else {
            Addresses { start: self.l3 + 12, len: 8 }
        }
    }

    /// The sum of the pseudo-header for a transport header and payload of `len` bytes.
    pub(super) fn pseudo_sum(&self, frame: &[u8], len: usize) -> Sum {
        let protocol = if self.tcp { tcp::PROTOCOL } else { udp::PROTOCOL };
        let sum = Sum::default().bytes(self.addresses().of(frame));
        sum.word(u16::from(protocol)).word(len as u16)
    }

    /// Whether the checksum field holds the sum of the pseudo-header only, as the kernel leaves it where no wire
    /// was in between.
    pub(super) fn is_partial(&self, frame: &[u8]) -> bool {
        let at = usize::from(self.l4 + self.checksum_offset());
        let field = frame.get(at..at + 2).and_then(<[u8]>::first_chunk::<2>);
        let sum = self.pseudo_sum(frame, self.end as usize - usize::from(self.l4));
        field.is_some_and(|field| u16::from_be_bytes(*field) == sum.fold())
    }

    /// Whether header and payload of the transport agree with the checksum.
    pub(super) fn is_intact(&self, frame: &[u8]) -> bool {
        let transport = frame.get(usize::from(self.l4)..self.end as usize).unwrap_or_default();
        self.pseudo_sum(frame, transport.len()).bytes(transport).is_intact()
    }

    /// Whether the IP header agrees with its checksum; IPv6 has none.
    pub(super) fn ip_is_intact(&self, frame: &[u8]) -> bool {
        let header = frame.get(usize::from(self.l3)..usize::from(self.l4)).unwrap_or_default();
        self.v6 || Sum::default().bytes(header).is_intact()
    }

    /// Whether the transport header may stand before each of several segments: TCP without SYN, RST and URG, and
    /// UDP.
    pub(super) fn may_repeat(&self, frame: &[u8]) -> bool {
        const REPEATED: u8 = tcp::ACK | tcp::PSH | tcp::FIN | tcp::ECE | tcp::CWR;
        let flags = frame.get(usize::from(self.l4) + tcp::FLAGS_OFFSET);
        !self.tcp || flags.is_some_and(|flags| flags & !REPEATED == 0)
    }

    /// What the kernel is told of a frame whose checksum is partial.
    pub(super) fn partial(&self) -> VnetHeader {
        VnetHeader {
            flags: NEEDS_CSUM,
            csum_start: self.l4,
            csum_offset: self.checksum_offset(),
            ..VnetHeader::default()
        }
    }

    /// What the kernel is told of a super-frame with `gso_size` bytes of payload in each segment.
    pub(super) fn segmented(&self, gso_size: u16) -> VnetHeader {
        VnetHeader { gso_type: self.gso_type(), gso_size, hdr_len: self.payload, ..self.partial() }
    }

    /// How the kernel names super-frames of this kind.
    pub(super) fn gso_type(&self) -> u8 {
        match (self.tcp, self.v6) {
            (true, false) => GSO_TCPV4,
            (true, true) => GSO_TCPV6,
            (false, _) => GSO_UDP_L4,
        }
    }
}

impl Addresses {
    /// Both addresses.
    pub(super) fn of<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        frame.get(usize::from(self.start)..usize::from(self.start + self.len)).unwrap_or_default()
    }
}
