//! The UDP data socket: a group of sockets on one port, one per worker and two for control datagrams.
//!
//! [`bind`] makes the group; the kernel steers by the first payload byte ([`steering`]). A worker reads many
//! datagrams with one call ([`DataSocket::recv_batch`]) and writes many with one call, as one buffer that the
//! kernel cuts ([`DataSocket::send`]) or as separate messages ([`DataSocket::send_batch`]). Beside the group each
//! worker has a pool of sockets that only send ([`pools`]), for source ports by flow.

mod gauge;
mod group;
mod holder;
mod pool;
mod receive;
mod steering;
mod transmit;

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{io, net::SocketAddr};

pub use gauge::{Gauge, SocketLoad};
pub use group::{SocketError, SocketGroup, bind, kernel_has_ipv6};
pub use holder::{Holder, port_holder};
pub use pool::pools;
pub use receive::{Received, RecvBatch, SLOT_LEN};
pub use transmit::Transmit;

use crate::io::tap::Offloads;
use crate::types::canonical;

/// The most segments of one send: `UDP_MAX_SEGMENTS` of linux/udp.h was 64 before Linux 6.9, 128 since.
pub const MAX_SEGMENTS: usize = 64;
/// The most bytes of one send, all segments together: with the headers before it this is just under the
/// `gso_max_size` of 65 536 of most devices; above it the kernel cuts the buffer early, in software.
pub const MAX_SEND_BYTES: usize = 65_490;

/// One socket of the group. All calls take `&self` and never block.
#[derive(Debug)]
pub struct DataSocket {
    socket: socket2::Socket,
    /// Dual stack: IPv4 addresses must be mapped.
    ipv6: bool,
    segmentation: AtomicBool,
    /// What the kernel said when it refused an offload.
    refused_segmentation: OnceLock<String>,
    refused_gro: Option<String>,
}

impl DataSocket {
    /// The address it is bound to.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        let addr = self.socket.local_addr()?.as_socket();
        addr.map(canonical).ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))
    }

    /// True while the kernel cuts large sends (`UDP_SEGMENT`); once refused it stays off.
    pub fn segmentation(&self) -> bool {
        self.segmentation.load(Ordering::Relaxed)
    }

    /// What the kernel does for this socket: `udp_segment` and `udp_gro`.
    pub fn offloads(&self) -> Offloads {
        let mut offloads = Offloads::default();
        let refusals =
            [("udp_segment", self.refused_segmentation.get()), ("udp_gro", self.refused_gro.as_ref())];
        for (name, refusal) in refusals {
            match refusal {
                None => offloads.granted.push(name),
                Some(reason) => offloads.refused.push((name, reason.clone())),
            }
        }
        offloads
    }

    fn refuse_segmentation(&self, reason: &io::Error) {
        self.segmentation.store(false, Ordering::Relaxed);
        self.refused_segmentation.get_or_init(|| reason.to_string());
    }
}

impl AsFd for DataSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
