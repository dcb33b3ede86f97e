//! Copies of what passes: records of frames and datagrams, packed into chunks of fixed size.
//!
//! A chunk is allocated once and travels between the worker that fills it and whoever reads it. A record is
//! [`HEADER_LEN`] bytes and then what was copied; the encoding stays inside this process.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Bytes of a chunk: a super-frame fits with room to spare, and hundreds of small frames do.
pub const CHUNK_LEN: usize = 128 * 1024;

/// Bytes before what was copied of each frame.
pub const HEADER_LEN: usize = 8 + 4 + 4 + 1 + 2 + 2 + 16;

/// The most that is copied of one frame, in bytes: any of them whole.
pub const MAX_SNAPLEN: usize = 65_600;

/// Which way a frame goes, seen from the switch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// Into the switch: from a container, or from the underlay.
    In,
    /// Out of the switch.
    Out,
}

/// What is known of a frame beside its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// When it was seen, in nanoseconds since 1970.
    pub at_ns: u64,
    /// Which way it goes.
    pub direction: Direction,
    /// Its length in bytes, of which fewer may have been copied.
    pub len: u32,
    /// Of a datagram: the other host's address, and the UDP port on this side.
    pub underlay: Option<(SocketAddr, u16)>,
}

/// A frame as it was copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    /// What is known of it.
    pub header: Header,
    /// As much of it as was wanted.
    pub bytes: &'a [u8],
}

/// Records one after the other in a buffer that does not grow.
#[derive(Debug)]
pub struct Chunk {
    bytes: Vec<u8>,
}

impl Default for Chunk {
    fn default() -> Self {
        Self::new()
    }
}

impl Chunk {
    /// An empty chunk. Allocates; nothing else here does.
    pub fn new() -> Self {
        Chunk { bytes: Vec::with_capacity(CHUNK_LEN) }
    }

    /// Stands in where a chunk was taken away: has no room for any record, and allocates nothing.
    pub const fn placeholder() -> Self {
        Chunk { bytes: Vec::new() }
    }

    /// True when there is no record in it.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Forgets all records.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// Appends a frame that lies in `pieces`, at most `snaplen` bytes of it; false when there is no room, which is
    /// never so in an empty chunk. `header.len` is taken from the pieces.
    pub fn push<'a>(
        &mut self,
        header: Header,
        snaplen: usize,
        pieces: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> bool {
        let len: usize = pieces.clone().map(<[u8]>::len).sum();
        let captured = len.min(snaplen).min(MAX_SNAPLEN);
        if self.bytes.len() + HEADER_LEN + captured > CHUNK_LEN {
            return false;
        }
        self.put_header(&Header { len: len as u32, ..header }, captured as u32);
        let end = self.bytes.len() + captured;
        for piece in pieces {
            let room = end - self.bytes.len();
            self.bytes.extend_from_slice(piece.get(..room).unwrap_or(piece));
        }
        true
    }

    fn put_header(&mut self, header: &Header, captured: u32) {
        let (ip, port, own) = match header.underlay {
            Some((remote, own)) => (mapped(remote.ip()), remote.port(), own),
            None => (Ipv6Addr::UNSPECIFIED, 0, 0),
        };
        let flags = u8::from(header.direction == Direction::Out) | u8::from(header.underlay.is_some()) << 1;
        self.bytes.extend_from_slice(&header.at_ns.to_ne_bytes());
        self.bytes.extend_from_slice(&header.len.to_ne_bytes());
        self.bytes.extend_from_slice(&captured.to_ne_bytes());
        self.bytes.push(flags);
        self.bytes.extend_from_slice(&port.to_ne_bytes());
        self.bytes.extend_from_slice(&own.to_ne_bytes());
        self.bytes.extend_from_slice(&ip.octets());
    }

    /// The records, in the order they were put in.
    pub fn records(&self) -> impl Iterator<Item = Record<'_>> {
        let mut rest = self.bytes.as_slice();
        std::iter::from_fn(move || {
            let (record, behind) = read(rest)?;
            rest = behind;
            Some(record)
        })
    }
}

fn mapped(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

/// Takes a record off the front.
fn read(bytes: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let (at_ns, rest) = bytes.split_first_chunk()?;
    let (len, rest) = rest.split_first_chunk()?;
    let (captured, rest) = rest.split_first_chunk()?;
    let (&flags, rest) = rest.split_first()?;
    let (port, rest) = rest.split_first_chunk()?;
    let (own, rest) = rest.split_first_chunk()?;
    let (ip, rest) = rest.split_first_chunk::<16>()?;
    let (frame, rest) = rest.split_at_checked(u32::from_ne_bytes(*captured) as usize)?;
    let remote = SocketAddr::new(IpAddr::from(*ip).to_canonical(), u16::from_ne_bytes(*port));
    let header = Header {
        at_ns: u64::from_ne_bytes(*at_ns),
        direction: if flags & 1 == 0 { Direction::In } else { Direction::Out },
        len: u32::from_ne_bytes(*len),
        underlay: (flags & 2 != 0).then_some((remote, u16::from_ne_bytes(*own))),
    };
    Some((Record { header, bytes: frame }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(direction: Direction, underlay: Option<(SocketAddr, u16)>) -> Header {
        Header { at_ns: 1_700_000_000_123_456_789, direction, len: 0, underlay }
    }

    #[test]
    fn records_come_out_as_they_went_in() {
        let v4 = Some(("192.0.2.1:4789".parse().unwrap(), 40_000));
        let v6 = Some(("[2001:db8::1]:4790".parse().unwrap(), 4789));
        let mut chunk = Chunk::new();
        assert!(chunk.is_empty() && chunk.records().next().is_none());
        let pieces: [&[u8]; 3] = [b"head", b"", b"body"];
        for (direction, underlay) in [(Direction::In, v4), (Direction::Out, v6), (Direction::Out, None)] {
            assert!(chunk.push(header(direction, underlay), 6, pieces.into_iter()));
        }
        let records: Vec<_> = chunk.records().collect();
        assert_eq!(records.len(), 3);
        assert!(records.iter().all(|r| r.bytes == b"headbo" && r.header.len == 8));
        assert_eq!(records.iter().map(|r| r.header.underlay).collect::<Vec<_>>(), [v4, v6, None]);
        assert_eq!(records[0].header.at_ns, 1_700_000_000_123_456_789);
        assert_eq!([0, 1].map(|at: usize| records[at].header.direction), [Direction::In, Direction::Out]);
        chunk.clear();
        assert!(chunk.is_empty());
    }

    #[test]
    fn a_full_chunk_takes_nothing_more_and_never_grows() {
        let mut chunk = Chunk::new();
        let frame = vec![7; 70_000];
        let mut pushed = 0;
        while chunk.push(header(Direction::In, None), usize::MAX, [frame.as_slice()].into_iter()) {
            pushed += 1;
        }
        assert_eq!(pushed, CHUNK_LEN / (MAX_SNAPLEN + HEADER_LEN));
        assert!(chunk.push(header(Direction::In, None), 10, [frame.as_slice()].into_iter()));
        assert_eq!(chunk.bytes.capacity(), CHUNK_LEN);
        let lens: Vec<_> = chunk.records().map(|r| (r.bytes.len(), r.header.len)).collect();
        assert_eq!(lens, [(MAX_SNAPLEN, 70_000), (10, 70_000)]);
    }
}
