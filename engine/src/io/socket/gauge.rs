//! What the kernel says of a socket: how full it is, and what it threw away because it was.

#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use super::DataSocket;

// linux/sock_diag.h, `SK_MEMINFO_*`: places in the array that SO_MEMINFO fills.
const RMEM_ALLOC: usize = 0;
const RCVBUF: usize = 1;
const DROPS: usize = 8;
const VARS: usize = 9;

/// A way to ask for the state of a socket that somebody else reads and writes.
#[derive(Debug)]
pub struct Gauge {
    fd: OwnedFd,
}

/// The receiving side of a socket at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SocketLoad {
    /// Memory that waiting datagrams take, in bytes; more than their lengths.
    pub queued_bytes: u32,
    /// How much they may take.
    pub buffer_bytes: u32,
    /// Datagrams thrown away since the socket was made, most because the buffer was full. Starts again after 2^32.
    pub dropped: u32,
}

impl SocketLoad {
    /// Two sockets together.
    pub(crate) fn and(self, other: SocketLoad) -> Self {
        SocketLoad {
            queued_bytes: self.queued_bytes.saturating_add(other.queued_bytes),
            buffer_bytes: self.buffer_bytes.saturating_add(other.buffer_bytes),
            dropped: self.dropped.wrapping_add(other.dropped),
        }
    }
}

impl DataSocket {
    /// A gauge for this socket.
    pub fn gauge(&self) -> io::Result<Gauge> {
        Ok(Gauge { fd: self.as_fd().try_clone_to_owned()? })
    }
}

impl Gauge {
    /// Asks the kernel: one system call (`SO_MEMINFO`, since Linux 4.12).
    pub fn read(&self) -> io::Result<SocketLoad> {
        let mut vars = [0_u32; VARS];
        let mut len = mem::size_of_val(&vars) as libc::socklen_t;
        // SAFETY: the kernel writes at most `len` bytes to the live array, whose true length that is.
        let status = unsafe {
            let (level, option) = (libc::SOL_SOCKET, libc::SO_MEMINFO);
            libc::getsockopt(self.fd.as_raw_fd(), level, option, vars.as_mut_ptr().cast(), &raw mut len)
        };
        if status < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(SocketLoad { queued_bytes: vars[RMEM_ALLOC], buffer_bytes: vars[RCVBUF], dropped: vars[DROPS] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::netlink::Netlink;
    use crate::io::netns::Netns;

    #[test]
    fn a_full_buffer_is_seen_and_what_it_cost() {
        let netns = Netns::create().expect("needs root");
        let netlink = Netlink::open_in(&netns).unwrap();
        netlink.set_up(netlink.link("lo").unwrap().unwrap().index).unwrap();
        let group = netns.run(|| super::super::bind(None, 4789, 1)).unwrap().unwrap();
        let gauge = group.workers[0].gauge().unwrap();
        let empty = gauge.read().unwrap();
        assert_eq!((empty.queued_bytes, empty.dropped), (0, 0));
        assert!(empty.buffer_bytes > 0);

        let datagram = [io::IoSlice::new(&[0x08; 60_000])];
        let target = "127.0.0.1:4789".parse().unwrap();
        let sent = 2 * empty.buffer_bytes as usize / 60_000;
        for _ in 0..sent {
            assert_eq!(group.control.send(target, &datagram, None).unwrap(), 60_000);
        }
        let full = gauge.read().unwrap();
        assert!(full.queued_bytes > 0 && full.queued_bytes <= full.buffer_bytes + 0x2_0000, "{full:?}");
        let mut buffer = vec![0; 65_536];
        let received = std::iter::from_fn(|| group.workers[0].recv(&mut buffer).ok()).count();
        assert_eq!(received + full.dropped as usize, sent);
        assert!(full.dropped > 0 && received > 0);
    }
}
