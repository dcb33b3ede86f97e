//! Reading: one call fills several slots of one arena, each with one datagram or, by `UDP_GRO`, several of
//! equal size and an optional shorter last one.

#![allow(unsafe_code)]

use std::io;
use std::mem::{self, MaybeUninit};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

use socket2::{SockAddr, SockAddrStorage};

use super::DataSocket;
use super::group::{ON, set_option};
use crate::types::canonical;

/// Bytes of one slot: no UDP payload, aggregated or not, is longer than 65 507.
pub const SLOT_LEN: usize = 65_536;
/// The most slots of a batch; their bookkeeping lives on the stack during a call.
const MAX_SLOTS: usize = 64;
/// From the start of one slot to that of the next. Not a power of two: else the starts of all slots, which is all
/// that small datagrams touch, would compete for the same few lines of the caches.
const SLOT_STRIDE: usize = SLOT_LEN + 33 * 64;
/// Slots of the first read, and of every read while little comes.
const FEW_SLOTS: usize = 8;
/// Bytes that one read shall bring at most, by the mean of the last: they stay within the second-level cache.
const READ_BYTES: usize = FEW_SLOTS * SLOT_LEN;
/// Room for the control messages that are asked for: `UDP_GRO` with an `int`, and one with an `in6_pktinfo`.
const CONTROL_LEN: usize = 64;

/// What one slot holds after a read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Received {
    /// Where the payload starts in the arena.
    pub start: u32,
    /// Length of the payload in bytes, all datagrams together.
    pub len: u32,
    /// Length of each datagram but the last, which may be shorter. Equal to `len` for a single one.
    pub stride: u32,
    /// The sender; an IPv4 address is never in the mapped form.
    pub from: SocketAddr,
    /// The address it was sent to, in the same form; none unless [`DataSocket::tell_destinations`] was called.
    pub to: Option<IpAddr>,
}

impl Received {
    /// Where the datagrams are in the arena. An empty datagram is one empty range.
    pub fn datagrams(&self) -> impl Iterator<Item = Range<u32>> + use<> {
        let (end, stride) = (self.start + self.len, self.stride.max(1));
        let more = (self.start + stride..end).step_by(stride as usize);
        std::iter::once(self.start).chain(more).map(move |at| at..end.min(at + stride))
    }
}

/// The arena of a worker and what the last read put there. Nothing is allocated after [`RecvBatch::new`].
///
/// How many slots a read fills follows the traffic: few when datagrams come aggregated or seldom, more and more
/// when reads come back full of small ones.
#[derive(Debug)]
pub struct RecvBatch {
    arena: Box<[u8]>,
    received: Vec<Received>,
    /// Slots of the next read.
    slots: usize,
}

impl RecvBatch {
    /// An arena of `slots` (1 to 64) slots of [`SLOT_LEN`] bytes. Memory is taken as slots are first used.
    pub fn new(slots: usize) -> Self {
        let slots = slots.clamp(1, MAX_SLOTS);
        let arena = vec![0; slots * SLOT_STRIDE].into_boxed_slice();
        RecvBatch { arena, received: Vec::with_capacity(slots), slots: slots.min(FEW_SLOTS) }
    }

    /// The bytes of all slots.
    pub fn arena(&self) -> &[u8] {
        &self.arena
    }

    /// The same, to open what is sealed where it lies.
    pub fn arena_mut(&mut self) -> &mut [u8] {
        &mut self.arena
    }

    /// What the last read brought, in the order of arrival.
    pub fn received(&self) -> &[Received] {
        &self.received
    }

    /// Forgets what was read.
    pub fn clear(&mut self) {
        self.received.clear();
    }

    /// Chooses the slots of the next read: twice as many after a full one, half as many after one that was not half
    /// full.
    fn adapt(&mut self) {
        let count = self.received.len();
        let bytes: usize = self.received.iter().map(|received| received.len as usize).sum();
        let most = (READ_BYTES * count / bytes.max(1)).clamp(FEW_SLOTS, MAX_SLOTS);
        let wanted = match count {
            _ if count >= self.slots => (self.slots * 2).min(most),
            _ if count * 2 < self.slots => (self.slots / 2).max(FEW_SLOTS),
            _ => self.slots.min(most),
        };
        self.slots = wanted.min(self.received.capacity());
    }
}

/// What the kernel fills besides the payload; in one place so that its parts live equally long.
struct Scratch {
    name: SockAddrStorage,
    control: Control,
    vector: libc::iovec,
}

/// Where the kernel puts the ancillary data of one message; aligned for `cmsghdr`.
#[repr(C, align(8))]
struct Control([u8; CONTROL_LEN]);

impl DataSocket {
    /// From now on it is told with what is received which address it was sent to.
    pub fn tell_destinations(&self) -> io::Result<()> {
        let (level, name) = match self.ipv6 {
            true => (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
            false => (libc::IPPROTO_IP, libc::IP_PKTINFO),
        };
        set_option(&self.socket, level, name, &ON)
    }

    /// Replaces the content of `batch` by what waits on the socket, up to one message per slot, in one system
    /// call. Returns the number of filled slots, at least 1; fewer than there are slots means that the
    /// socket is empty.
    ///
    /// Errors: `EAGAIN` ([`io::ErrorKind::WouldBlock`]), nothing waits. Anything else is transient too, and
    /// concerns an earlier datagram: try again.
    pub fn recv_batch(&self, batch: &mut RecvBatch) -> io::Result<usize> {
        batch.clear();
        let mut scratch = [const { MaybeUninit::uninit() }; MAX_SLOTS];
        let mut headers = [const { MaybeUninit::uninit() }; MAX_SLOTS];
        let mut slots = 0;
        for (slot, part) in batch.arena.chunks_exact_mut(SLOT_STRIDE).zip(&mut scratch).take(batch.slots) {
            headers[slots].write(header(part.write(Scratch::new(&mut slot[..SLOT_LEN]))));
            slots += 1;
        }
        let (fd, wait) = (self.as_fd().as_raw_fd(), libc::MSG_DONTWAIT);
        let first = headers.as_mut_ptr().cast();
        // SAFETY: the first `slots` headers are initialised; each points into its own scratch and through
        // that to its own slot of the arena, which are alive and not touched otherwise, with true lengths.
        let count = unsafe { libc::recvmmsg(fd, first, slots as libc::c_uint, wait, ptr::null_mut()) };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        for (index, header) in headers.iter().enumerate().take(count) {
            // SAFETY: headers below `count` (at most `slots`) were initialised above and filled by the kernel.
            let received = unsafe { received(header.assume_init_ref(), index * SLOT_STRIDE) };
            batch.received.extend(received);
        }
        batch.adapt();
        Ok(count)
    }

    /// Reads one message into `buffer`, which should have room for [`SLOT_LEN`] bytes: what does not fit is
    /// lost. Errors as [`DataSocket::recv_batch`].
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<Received> {
        let mut scratch = Scratch::new(buffer);
        let mut filled = header(&mut scratch);
        // SAFETY: the header points into `scratch` and through it to the caller's exclusive slice, with true
        // lengths.
        let len =
            unsafe { libc::recvmsg(self.as_fd().as_raw_fd(), &raw mut filled.msg_hdr, libc::MSG_DONTWAIT) };
        filled.msg_len = u32::try_from(len).map_err(|_| io::Error::last_os_error())?;
        // SAFETY: the kernel filled the header, and the scratch behind it is alive.
        unsafe { received(&filled, 0) }.ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))
    }
}

impl Scratch {
    fn new(buffer: &mut [u8]) -> Self {
        Scratch {
            name: SockAddrStorage::zeroed(),
            control: Control([0; CONTROL_LEN]),
            vector: libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() },
        }
    }
}

/// A message header for one read through `scratch`, which must stay where it is.
fn header(scratch: &mut Scratch) -> libc::mmsghdr {
    // SAFETY: `mmsghdr` is plain old data for which all zeros is a value.
    let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
    header.msg_hdr.msg_namelen = scratch.name.size_of();
    header.msg_hdr.msg_name = (&raw mut scratch.name).cast();
    header.msg_hdr.msg_iov = &raw mut scratch.vector;
    header.msg_hdr.msg_iovlen = 1;
    header.msg_hdr.msg_control = (&raw mut scratch.control).cast();
    header.msg_hdr.msg_controllen = CONTROL_LEN as _;
    header
}

/// Reads a filled header. None when the sender is not an IP address, which does not occur on a UDP socket.
///
/// # Safety
/// `header` was made by [`header`], the kernel filled it, and the scratch behind it is alive.
unsafe fn received(header: &libc::mmsghdr, start: usize) -> Option<Received> {
    let len = header.msg_len;
    // SAFETY: the name is a `SockAddrStorage` that was zeroed and then filled with `msg_namelen` bytes.
    let from = unsafe {
        SockAddr::new(header.msg_hdr.msg_name.cast::<SockAddrStorage>().read(), header.msg_hdr.msg_namelen)
    };
    // SAFETY: as the caller promises.
    let (stride, to) = unsafe { beside(&header.msg_hdr) };
    let stride = stride.unwrap_or(len);
    Some(Received { start: start as u32, len, stride, from: canonical(from.as_socket()?), to })
}

/// What the kernel says beside a message: the segment size of `UDP_GRO` (linux/udp.h), of which there is none for a single
/// datagram, and the address that it was sent to (ip(7), ipv6(7)). All datagrams of one message have the same one.
///
/// # Safety
/// The kernel filled `header`, and its control buffer is alive.
unsafe fn beside(header: &libc::msghdr) -> (Option<u32>, Option<IpAddr>) {
    let (mut stride, mut to) = (None, None);
    // SAFETY: the macros walk the control buffer within `msg_controllen`, which the kernel set; each kind of message has the
    // payload that it is read as here, without assuming alignment.
    unsafe {
        let mut at = libc::CMSG_FIRSTHDR(header);
        while let Some(message) = at.as_ref() {
            let data = libc::CMSG_DATA(at);
            match (message.cmsg_level, message.cmsg_type) {
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    let size = data.cast::<libc::c_int>().read_unaligned();
                    stride = u32::try_from(size).ok().filter(|size| *size > 0);
                }
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info = data.cast::<libc::in_pktinfo>().read_unaligned();
                    to = Some(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes()).into());
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info = data.cast::<libc::in6_pktinfo>().read_unaligned();
                    to = Some(IpAddr::from(Ipv6Addr::from(info.ipi6_addr.s6_addr)).to_canonical());
                }
                _ => {}
            }
            at = libc::CMSG_NXTHDR(header, at);
        }
    }
    (stride, to)
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use super::*;
    use crate::io::netlink::Netlink;
    use crate::io::netns::Netns;

    #[test]
    fn reads_grow_with_many_small_datagrams_and_stay_within_the_cache() {
        let from = "192.0.2.1:4789".parse().unwrap();
        let mut batch = RecvBatch::new(MAX_SLOTS);
        let mut read = |count: usize, len: u32| {
            batch.clear();
            batch.received.extend((0..count).map(|_| Received {
                start: 0,
                len,
                stride: len,
                from,
                to: None,
            }));
            batch.adapt();
            batch.slots
        };
        assert_eq!([read(8, 1472), read(16, 1472), read(32, 1472), read(64, 1472)], [16, 32, 64, 64]);
        assert_eq!([read(40, 1472), read(31, 1472), read(3, 1472)], [64, 32, 16]);
        assert_eq!([read(16, 65_000), read(8, 65_000), read(1, 100)], [8, 8, 8]);
        assert_eq!(RecvBatch::new(1).slots, 1);
    }

    #[test]
    fn where_datagrams_were_sent_to_is_told_on_request() {
        let netns = Netns::create().expect("needs root");
        let netlink = Netlink::open_in(&netns).unwrap();
        netlink.set_up(netlink.link("lo").unwrap().unwrap().index).unwrap();
        for (listen, target) in [(None, "127.0.0.7"), (None, "::1"), (Some("0.0.0.0"), "127.0.0.7")] {
            let listen = listen.map(|ip| ip.parse().unwrap());
            let group = netns.run(|| super::super::bind(listen, 4789, 1)).unwrap().unwrap();
            let (from, to): (_, IpAddr) = (&group.workers[0], target.parse().unwrap());
            let (bytes, mut batch) = ([0x08; 2500], RecvBatch::new(8));
            let mut read = || {
                from.send((to, 4789).into(), &[IoSlice::new(&bytes)], Some(1000)).unwrap();
                from.recv_batch(&mut batch).unwrap();
                let [first, ..] = batch.received() else { panic!("nothing came") };
                (first.len, first.stride, first.to)
            };
            assert_eq!(read(), (2500, 1000, None));
            from.tell_destinations().unwrap();
            assert_eq!(read(), (2500, 1000, Some(to)));
        }
    }

    #[test]
    fn datagrams_are_cut_at_the_stride() {
        let from = "192.0.2.1:4789".parse().unwrap();
        let cut = |start, len, stride| -> Vec<_> {
            Received { start, len, stride, from, to: None }.datagrams().collect()
        };
        assert_eq!(cut(100, 25, 10), [100..110, 110..120, 120..125]);
        assert_eq!(cut(0, 20, 10), [0..10, 10..20]);
        assert_eq!(cut(7, 9, 9), vec![7..16]);
        assert_eq!(cut(7, 0, 0), vec![7..7]);
    }
}
