//! Writing: one buffer that the kernel cuts into equal datagrams (`UDP_SEGMENT`), or several messages in one
//! call; where the kernel refuses to cut, the same datagrams one by one.

#![allow(unsafe_code)]

use std::io::{self, IoSlice};
use std::mem::{self, MaybeUninit};
use std::net::{SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd};

use socket2::SockAddr;

use super::{DataSocket, MAX_SEGMENTS, MAX_SEND_BYTES};

/// Messages of one system call.
const MAX_MESSAGES: usize = 64;
/// Parts of all datagrams of one system call where we cut ourselves.
const MAX_VECTORS: usize = 512;
/// Room for one control message: `UDP_SEGMENT` with a `u16`.
const CONTROL_LEN: usize = 32;

/// Datagrams for one destination.
#[derive(Clone, Copy, Debug)]
pub struct Transmit<'a> {
    /// Where to.
    pub to: SocketAddr,
    /// The payload, gathered from these parts (at most 1024).
    pub parts: &'a [IoSlice<'a>],
    /// Length of each datagram in bytes; the last may be shorter. None: all of it is one datagram.
    pub segment_size: Option<u16>,
}

/// Who makes the datagrams of a [`Transmit`].
#[derive(Clone, Copy)]
enum Cutting {
    /// It is one datagram.
    None,
    /// The kernel cuts at this size.
    Kernel(u16),
    /// We cut at this size: the kernel has refused, or it is more than it takes at once.
    Here(u16),
}

/// Ancillary data of one message; aligned for `cmsghdr`.
#[repr(C, align(8))]
struct Control([u8; CONTROL_LEN]);

impl DataSocket {
    /// Sends one buffer, cut into datagrams of `segment_size` bytes. Returns the bytes that were accepted;
    /// fewer than given only where the kernel refused to cut and the rest met an error.
    ///
    /// Errors: `EAGAIN` ([`io::ErrorKind::WouldBlock`]), the send buffer is full: drop; `EMSGSIZE`, a datagram is
    /// longer than the device takes; `EHOSTUNREACH`, `ENETUNREACH`, `EPERM` (a firewall), `ENOBUFS`: drop.
    /// `EIO` and `EINVAL` for a cut send turn cutting off for good and are not reported.
    pub fn send(
        &self,
        to: SocketAddr,
        parts: &[IoSlice<'_>],
        segment_size: Option<u16>,
    ) -> io::Result<usize> {
        let transmit = Transmit { to, parts, segment_size };
        match self.cutting(&transmit) {
            Cutting::None => self.send_whole(&transmit, None),
            Cutting::Here(size) => self.send_cut(&transmit, size),
            Cutting::Kernel(size) => match self.send_whole(&transmit, Some(size)) {
                Err(e) if is_refusal(&e) => {
                    self.refuse_segmentation(&e);
                    self.send_cut(&transmit, size)
                }
                result => result,
            },
        }
    }

    /// Sends a batch with as few system calls as possible. Every message is tried; `failed` is called with the
    /// index of each that was not accepted and why. After `EAGAIN` the rest is refused with the same, untried.
    pub fn send_batch(&self, batch: &[Transmit<'_>], mut failed: impl FnMut(usize, io::Error)) {
        let mut done = 0;
        while done < batch.len() {
            match self.send_some(&batch[done..]) {
                Ok(sent) => done += sent,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    (done..batch.len()).for_each(|index| failed(index, io::ErrorKind::WouldBlock.into()));
                    return;
                }
                Err(e) => {
                    failed(done, e);
                    done += 1;
                }
            }
        }
    }

    /// Sends the first few messages, at least one; an error concerns the first.
    fn send_some(&self, batch: &[Transmit<'_>]) -> io::Result<usize> {
        let is_whole = |transmit: &&Transmit<'_>| !matches!(self.cutting(transmit), Cutting::Here(_));
        let run = batch.iter().take(MAX_MESSAGES).take_while(is_whole).count();
        if run > 1 {
            match self.send_messages(&batch[..run]) {
                // The first goes alone, so that a refusal to cut is told from other errors.
                Err(e) if is_refusal(&e) => {}
                result => return result,
            }
        }
        let [first, ..] = batch else { return Ok(0) };
        self.send(first.to, first.parts, first.segment_size).map(|_| 1)
    }

    fn cutting(&self, transmit: &Transmit<'_>) -> Cutting {
        let len: usize = transmit.parts.iter().map(|part| part.len()).sum();
        match transmit.segment_size {
            None | Some(0) => Cutting::None,
            Some(size) if usize::from(size) >= len => Cutting::None,
            Some(size) => {
                let fits = len <= MAX_SEND_BYTES && len <= usize::from(size) * MAX_SEGMENTS;
                if fits && self.segmentation() { Cutting::Kernel(size) } else { Cutting::Here(size) }
            }
        }
    }

    /// One message, cut by the kernel where a segment size is given.
    fn send_whole(&self, transmit: &Transmit<'_>, segment_size: Option<u16>) -> io::Result<usize> {
        let to = self.name(transmit.to)?;
        let mut control = Control::default();
        let header = header(&to, transmit.parts, segment_size.map(|size| control.segment(size)));
        // SAFETY: the header points to a live name, live parts and a live control buffer, with true lengths.
        let sent = unsafe { libc::sendmsg(self.as_fd().as_raw_fd(), &raw const header.msg_hdr, FLAGS) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    /// Several messages in one call, each cut by the kernel where it must be cut, up to the first that cannot be
    /// sent so. Returns how many were accepted.
    fn send_messages(&self, batch: &[Transmit<'_>]) -> io::Result<usize> {
        let mut names = [const { MaybeUninit::uninit() }; MAX_MESSAGES];
        let mut controls = [const { MaybeUninit::<Control>::uninit() }; MAX_MESSAGES];
        let mut headers = [const { MaybeUninit::uninit() }; MAX_MESSAGES];
        let mut count = 0;
        for ((transmit, name), control) in batch.iter().zip(&mut names).zip(&mut controls) {
            let Ok(to) = self.name(transmit.to) else { break };
            let control = match self.cutting(transmit) {
                Cutting::Kernel(size) => Some(control.write(Control::default()).segment(size)),
                Cutting::None => None,
                Cutting::Here(_) => break,
            };
            headers[count].write(header(name.write(to), transmit.parts, control));
            count += 1;
        }
        if count == 0 {
            // The caller tries the first alone and meets the reason.
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        // SAFETY: the first `count` headers are initialised and point to live names, parts and control buffers.
        unsafe { self.sendmmsg(headers.as_mut_ptr().cast(), count) }
    }

    /// The same datagrams without `UDP_SEGMENT`. Returns the bytes accepted; an error only if there were none.
    fn send_cut(&self, transmit: &Transmit<'_>, size: u16) -> io::Result<usize> {
        let to = self.name(transmit.to)?;
        let mut cutter = Cutter { parts: transmit.parts, skip: 0 };
        let mut accepted = 0;
        while !cutter.is_done() {
            match self.send_some_cut(&to, &mut cutter, size.into()) {
                Ok(bytes) => accepted += bytes,
                Err(e) if accepted == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(accepted)
    }

    /// The next few datagrams of `cutter`, in one call. Those that were not accepted are lost.
    fn send_some_cut(&self, to: &SockAddr, cutter: &mut Cutter<'_>, size: usize) -> io::Result<usize> {
        let mut vectors = [IoSlice::new(&[]); MAX_VECTORS];
        let mut ends = [0; MAX_MESSAGES];
        let mut count = 0;
        let mut used = 0;
        while count < MAX_MESSAGES && !cutter.is_done() {
            let Some(parts) = cutter.next_datagram(size, &mut vectors[used..]) else { break };
            used += parts;
            ends[count] = used;
            count += 1;
        }
        if count == 0 {
            return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
        }
        let mut headers = [const { MaybeUninit::uninit() }; MAX_MESSAGES];
        let mut start = 0;
        for (slot, end) in headers.iter_mut().zip(&ends[..count]) {
            slot.write(header(to, &vectors[start..*end], None));
            start = *end;
        }
        // SAFETY: the first `count` headers are initialised and point to the live name and live parts.
        let sent = unsafe { self.sendmmsg(headers.as_mut_ptr().cast(), count) }?;
        let sent_parts = ends[sent.saturating_sub(1)];
        Ok(vectors[..sent_parts].iter().map(|part| part.len()).sum())
    }

    /// Hands `count` messages to the kernel; returns how many it took, an error if it took none.
    ///
    /// # Safety
    /// `headers` points to `count` initialised headers whose pointers are alive, with true lengths.
    unsafe fn sendmmsg(&self, headers: *mut libc::mmsghdr, count: usize) -> io::Result<usize> {
        // SAFETY: as the caller promises.
        let sent = unsafe { libc::sendmmsg(self.as_fd().as_raw_fd(), headers, count as libc::c_uint, FLAGS) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    /// The destination in the form that this socket takes: IPv4 mapped on a dual-stack socket.
    fn name(&self, to: SocketAddr) -> io::Result<SockAddr> {
        match (to, self.ipv6) {
            (SocketAddr::V4(to), true) => {
                Ok(SockAddr::from(SocketAddrV6::new(to.ip().to_ipv6_mapped(), to.port(), 0, 0)))
            }
            (SocketAddr::V6(_), false) => Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT)),
            _ => Ok(SockAddr::from(to)),
        }
    }
}

const FLAGS: libc::c_int = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;

/// What old kernels answer where the device lacks checksum offload (`EIO`), and older ones that do not know
/// `UDP_SEGMENT` at all (`EINVAL`).
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL))
}

impl Default for Control {
    fn default() -> Self {
        Control([0; CONTROL_LEN])
    }
}

impl Control {
    /// Makes it one `UDP_SEGMENT` message (linux/udp.h) and returns the bytes in use.
    fn segment(&mut self, size: u16) -> &mut [u8] {
        let header = libc::cmsghdr {
            // SAFETY: pure arithmetic.
            cmsg_len: unsafe { libc::CMSG_LEN(mem::size_of::<u16>() as u32) } as _,
            cmsg_level: libc::SOL_UDP,
            cmsg_type: libc::UDP_SEGMENT,
        };
        let payload = mem::size_of::<libc::cmsghdr>();
        self.0[payload..payload + 2].copy_from_slice(&size.to_ne_bytes());
        // SAFETY: the buffer is aligned for `cmsghdr` and longer.
        unsafe { self.0.as_mut_ptr().cast::<libc::cmsghdr>().write(header) };
        // SAFETY: pure arithmetic.
        let space = unsafe { libc::CMSG_SPACE(mem::size_of::<u16>() as u32) } as usize;
        &mut self.0[..space]
    }
}

/// A message header; what it is made of must stay alive and in place until it is sent.
fn header(to: &SockAddr, parts: &[IoSlice<'_>], control: Option<&mut [u8]>) -> libc::mmsghdr {
    // SAFETY: `mmsghdr` is plain old data for which all zeros is a value.
    let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
    header.msg_hdr.msg_name = to.as_ptr().cast_mut().cast();
    header.msg_hdr.msg_namelen = to.len();
    // `IoSlice` has the layout of `iovec`, by std's guarantee; the kernel does not write to it.
    header.msg_hdr.msg_iov = parts.as_ptr().cast_mut().cast();
    header.msg_hdr.msg_iovlen = parts.len() as _;
    if let Some(control) = control {
        header.msg_hdr.msg_control = control.as_mut_ptr().cast();
        header.msg_hdr.msg_controllen = control.len() as _;
    }
    header
}

/// Cuts gathered bytes into datagrams without copying them.
#[derive(Clone, Copy)]
struct Cutter<'a> {
    parts: &'a [IoSlice<'a>],
    /// Bytes of the first part that are done.
    skip: usize,
}

impl<'a> Cutter<'a> {
    fn is_done(&self) -> bool {
        self.parts.iter().all(|part| part.is_empty())
    }

    /// Writes the parts of the next `size` bytes to `out` and returns their number; None, and nothing is
    /// consumed, when there is not enough room.
    fn next_datagram(&mut self, size: usize, out: &mut [IoSlice<'a>]) -> Option<usize> {
        let before = *self;
        let (mut need, mut used) = (size, 0);
        while let [first, rest @ ..] = self.parts {
            let take = need.min(first.len() - self.skip);
            if take > 0 {
                let Some(slot) = out.get_mut(used) else {
                    *self = before;
                    return None;
                };
                *slot = IoSlice::new(&first[self.skip..self.skip + take]);
                (need, used) = (need - take, used + 1);
            }
            if self.skip + take < first.len() {
                self.skip += take;
                break;
            }
            (self.parts, self.skip) = (rest, 0);
            if need == 0 {
                break;
            }
        }
        Some(used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::netlink::Netlink;
    use crate::io::netns::Netns;

    fn cut(parts: &[&[u8]], size: usize, room: usize) -> Vec<Vec<Vec<u8>>> {
        let parts: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let mut cutter = Cutter { parts: &parts, skip: 0 };
        let mut datagrams = Vec::new();
        while !cutter.is_done() {
            let mut out = vec![IoSlice::new(&[]); room];
            let Some(used) = cutter.next_datagram(size, &mut out) else { break };
            datagrams.push(out[..used].iter().map(|part| part.to_vec()).collect());
        }
        datagrams
    }

    #[test]
    fn parts_are_cut_at_the_segment_size_wherever_they_begin() {
        assert_eq!(
            cut(&[b"ab", b"cdef", b"", b"g"], 3, 4),
            [vec![b"ab".to_vec(), b"c".to_vec()], vec![b"def".to_vec()], vec![b"g".to_vec()]]
        );
        assert_eq!(cut(&[b"abcdef"], 2, 1).concat(), [b"ab", b"cd", b"ef"]);
        assert_eq!(cut(&[b"ab", b"cd"], 4, 4), [vec![b"ab".to_vec(), b"cd".to_vec()]]);
        assert!(cut(&[b"ab", b"cd"], 4, 1).is_empty(), "no room: nothing is taken");
    }

    #[test]
    fn where_the_kernel_refuses_to_cut_the_datagrams_leave_one_by_one() {
        let netns = Netns::create().expect("needs root");
        let netlink = Netlink::open_in(&netns).unwrap();
        netlink.set_up(netlink.link("lo").unwrap().unwrap().index).unwrap();
        let group = netns.run(|| super::super::bind(None, 4789, 1)).unwrap().unwrap();
        let [from, to] = [&group.control, &group.workers[0]];
        // Sends without a checksum cannot be cut: the kernel answers EINVAL.
        let on: libc::c_int = 1;
        let (fd, name) = (from.as_fd().as_raw_fd(), libc::SO_NO_CHECK);
        // SAFETY: the option reads one int that lives through the call.
        let status = unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, name, (&raw const on).cast(), 4) };
        assert_eq!(status, 0);
        let bytes: Vec<u8> = (0..50_300u32).map(|i| (i / 1000) as u8 | 0x08).collect();
        let parts: Vec<IoSlice<'_>> = bytes.chunks(700).map(IoSlice::new).collect();
        let target = "127.0.0.1:4789".parse().unwrap();
        let big = Transmit { to: target, parts: &parts, segment_size: Some(1000) };
        let small = [IoSlice::new(&[0x08; 60])];
        let small = Transmit { to: target, parts: &small, segment_size: None };
        from.send_batch(&[small, big, big, small], |index, e| panic!("{index}: {e}"));
        assert_eq!(from.send(target, &parts, Some(1000)).unwrap(), bytes.len());
        let mut buffer = vec![0; 65_536];
        let got: Vec<Vec<u8>> = std::iter::from_fn(|| {
            let received = to.recv(&mut buffer).ok()?;
            Some(buffer[..received.len as usize].to_vec())
        })
        .collect();
        let (one, many) = (vec![vec![0x08; 60]], bytes.chunks(1000).map(<[u8]>::to_vec).collect::<Vec<_>>());
        assert_eq!(got, [one.clone(), many.clone(), many.clone(), one, many].concat());
        assert!(!from.segmentation() && to.segmentation());
        let offloads = from.offloads();
        assert_eq!((offloads.granted, offloads.refused[0].0), (vec!["udp_gro"], "udp_segment"));
    }
}
