//! Binding the group of sockets.

#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::steering::{self, Instruction};
use super::{DataSocket, Holder, port_holder};

/// Wanted size of the socket buffers, bytes: what four TCP streams have under way at Linux's largest default window, so
/// that bulk traffic waits instead of being sent again (docs/decisions/0012-super-frames-whole.md). The kernel's
/// default holds three super-frames.
const BUFFER_LEN: libc::c_int = 16 << 20;
/// The same of the socket for initiations: what is read at a time, so that none is old when its turn comes.
const SMALL_BUFFER_LEN: libc::c_int = 256 << 10;
pub(super) const ON: libc::c_int = 1;
const OFF: libc::c_int = 0;

/// The sockets of one port.
#[derive(Debug)]
pub struct SocketGroup {
    /// One per worker: VXLAN datagrams and sealed frames, spread by where they come from.
    pub workers: Vec<DataSocket>,
    /// Everything else.
    pub control: DataSocket,
    /// But initiations, which anybody may send: they come in here.
    pub initiations: DataSocket,
}

/// Why the port could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody has the port.
    #[error("UDP port {} of {} is in use{}", .addr.port(), .addr.ip(), by(.holder.as_ref()))]
    InUse {
        /// What was asked for.
        addr: SocketAddr,
        /// Who has it, if that can be known.
        holder: Option<Holder>,
    },
    /// The address is not one of this host.
    #[error("{ip} is not an address of this host")]
    NotLocal {
        /// What was asked for.
        ip: IpAddr,
    },
    /// Anything else.
    #[error("cannot {action} on {addr}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// What was asked for.
        addr: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
}

fn by(holder: Option<&Holder>) -> String {
    holder.map_or_else(String::new, |holder| format!(" by {holder}"))
}

/// Binds `workers` data sockets and two control sockets on `port` in the namespace of the calling thread: on
/// all addresses of both families, on IPv4 alone where the host has no IPv6, or on `listen`.
///
/// The first socket is bound exclusively, so that another holder is found out, and joined by the others only then.
/// A datagram that arrives before the group is complete may lie in any of its sockets.
pub fn bind(listen: Option<IpAddr>, port: u16, workers: usize) -> Result<SocketGroup, SocketError> {
    let workers = workers.max(1);
    let (first, addr) = bind_first(listen, port)?;
    let failed = |action| move |source| SocketError::Io { action, addr, source };
    first.set_reuse_port(true).map_err(failed("share the port"))?;
    let addr = bound_addr(&first, addr);
    let mut sockets = vec![first];
    while sockets.len() < workers + 2 {
        let socket = open(addr.ip()).map_err(failed("open a socket"))?;
        socket.set_reuse_port(true).map_err(failed("share the port"))?;
        socket.bind(&SockAddr::from(addr)).map_err(failed("bind"))?;
        sockets.push(socket);
    }
    let small = sockets
        .last()
        .map_or(Ok(()), |last| set_option(last, libc::SOL_SOCKET, libc::SO_RCVBUF, &SMALL_BUFFER_LEN));
    small.map_err(failed("limit a buffer"))?;
    attach(&sockets[0], steering::program(workers as u32)).map_err(failed("attach the steering program"))?;
    let mut sockets: Vec<_> =
        sockets.into_iter().map(|socket| DataSocket::new(socket, addr.is_ipv6())).collect();
    let mut others = sockets.split_off(workers);
    let (control, initiations) = (others.swap_remove(0), others.swap_remove(0));
    Ok(SocketGroup { workers: sockets, control, initiations })
}

fn bind_first(listen: Option<IpAddr>, port: u16) -> Result<(Socket, SocketAddr), SocketError> {
    let both = [IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::UNSPECIFIED)];
    let wanted = listen.as_ref().map_or(both.as_slice(), std::slice::from_ref);
    let mut last = None;
    for ip in wanted {
        let addr = SocketAddr::new(*ip, port);
        match open(*ip).and_then(|socket| socket.bind(&SockAddr::from(addr)).map(|()| socket)) {
            Ok(socket) => return Ok((socket, addr)),
            Err(e) if lacks_ipv6(&e) && last.is_none() && listen.is_none() => last = Some((addr, e)),
            Err(e) => return Err(bind_error(addr, e)),
        }
    }
    let (addr, e) =
        last.unwrap_or_else(|| (SocketAddr::new(both[0], port), io::ErrorKind::Unsupported.into()));
    Err(bind_error(addr, e))
}

fn bind_error(addr: SocketAddr, source: io::Error) -> SocketError {
    match source.raw_os_error() {
        Some(libc::EADDRINUSE) => SocketError::InUse { addr, holder: port_holder(addr.port()) },
        Some(libc::EADDRNOTAVAIL) => SocketError::NotLocal { ip: addr.ip() },
        _ => SocketError::Io { action: "bind", addr, source },
    }
}

/// False where the kernel was built without IPv6, or booted with `ipv6.disable=1`: no namespace has it then.
pub fn kernel_has_ipv6() -> bool {
    !Socket::new(Domain::IPV6, Type::DGRAM, None).is_err_and(|error| lacks_ipv6(&error))
}

/// What the kernel answers for the IPv6 wildcard where IPv6 is compiled out or switched off at boot.
fn lacks_ipv6(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT | libc::EPFNOSUPPORT | libc::EADDRNOTAVAIL)
    )
}

/// The address with the port that the kernel chose, where 0 was asked for.
fn bound_addr(socket: &Socket, asked: SocketAddr) -> SocketAddr {
    socket.local_addr().ok().and_then(|addr| addr.as_socket()).unwrap_or(asked)
}

/// linux/in6.h; the other family's has the same number.
const IPV6_PMTUDISC_PROBE: libc::c_int = libc::IP_PMTUDISC_PROBE;

/// An unbound socket with all its settings but the offloads. It never fragments, and the kernel's own idea of the path does not
/// keep it from sending: what passes is found by probes, which nobody off the path can answer (RFC 8899 section 4.6).
pub(super) fn open(ip: IpAddr) -> io::Result<Socket> {
    let domain = if ip.is_ipv6() { Domain::IPV6 } else { Domain::IPV4 };
    let socket = Socket::new(domain, Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    if ip.is_ipv6() {
        socket.set_only_v6(!ip.is_unspecified())?;
        set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, &IPV6_PMTUDISC_PROBE)?;
    }
    set_option(&socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, &libc::IP_PMTUDISC_PROBE)?;
    grow(&socket, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF)?;
    grow(&socket, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)?;
    Ok(socket)
}

/// Asks for the wanted buffer beyond the limits of the system, or where that is not allowed, up to them.
fn grow(socket: &Socket, force: libc::c_int, ask: libc::c_int) -> io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, force, &BUFFER_LEN)
        .or_else(|_| set_option(socket, libc::SOL_SOCKET, ask, &BUFFER_LEN))
}

impl DataSocket {
    /// One of the group. The kernel joins the datagrams of a flow if *some* socket of the group has the option, found by a hash
    /// and not by the program (linux/net/ipv4/udp_offload.c, `udp4_gro_lookup_skb`): so all of them have it.
    fn new(socket: Socket, ipv6: bool) -> Self {
        let refused_gro = set_option(&socket, libc::SOL_UDP, libc::UDP_GRO, &ON).err();
        DataSocket::with(socket, ipv6, refused_gro)
    }

    /// One that is never read.
    pub(super) fn sender(socket: Socket, ipv6: bool) -> Self {
        DataSocket::with(socket, ipv6, None)
    }

    fn with(socket: Socket, ipv6: bool, refused_gro: Option<io::Error>) -> Self {
        // Asking is enough to learn whether the kernel knows the option; 0 leaves plain sends alone.
        let refused_segmentation = set_option(&socket, libc::SOL_UDP, libc::UDP_SEGMENT, &OFF).err();
        DataSocket {
            socket,
            ipv6,
            segmentation: AtomicBool::new(refused_segmentation.is_none()),
            refused_segmentation: refused_segmentation
                .map_or_else(OnceLock::new, |e| OnceLock::from(e.to_string())),
            refused_gro: refused_gro.map(|e| e.to_string()),
        }
    }
}

fn attach(socket: &Socket, mut instructions: Vec<Instruction>) -> io::Result<()> {
    let program = libc::sock_fprog { len: instructions.len() as u16, filter: instructions.as_mut_ptr() };
    set_option(socket, libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF, &program)
}

/// Lets through only what the program keeps.
pub(super) fn attach_filter(socket: &Socket, instructions: &mut [Instruction]) -> io::Result<()> {
    let program = libc::sock_fprog { len: instructions.len() as u16, filter: instructions.as_mut_ptr() };
    set_option(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

pub(super) fn set_option<T>(
    socket: &Socket,
    level: libc::c_int,
    name: libc::c_int,
    value: &T,
) -> io::Result<()> {
    let len = mem::size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of `value`, which lives through the call; where that is a program,
    // its caller keeps the instructions alive.
    let status = unsafe {
        libc::setsockopt(socket.as_fd().as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), len)
    };
    if status < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::netns::Netns;

    /// Makes `socket(AF_INET6, ...)` fail on the calling thread as it does on a kernel without IPv6 (seccomp(2)).
    fn take_ipv6_away() {
        let op = |code, k, jt, jf| Instruction { code, jt, jf, k };
        let refuse = libc::SECCOMP_RET_ERRNO | libc::EAFNOSUPPORT as u32;
        let mut filter = [
            op(0x20, 0, 0, 0), // the system call's number
            op(0x15, libc::SYS_socket as u32, 0, 3),
            op(0x20, 16, 0, 0), // the lower half of its first argument
            op(0x15, libc::AF_INET6 as u32, 0, 1),
            op(0x06, refuse, 0, 0),
            op(0x06, libc::SECCOMP_RET_ALLOW, 0, 0),
        ];
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
        // SAFETY: the program and its instructions live through the calls; the filter ends with the thread.
        let status = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
        };
        assert_eq!(status, 0, "{}", io::Error::last_os_error());
    }

    #[test]
    fn a_kernel_without_ipv6_gets_an_ipv4_group() {
        let netns = Netns::create().expect("needs root");
        let bound = netns.run(|| {
            take_ipv6_away();
            (bind(None, 4789, 2), bind(Some(Ipv6Addr::UNSPECIFIED.into()), 4790, 2))
        });
        let (group, asked_for_ipv6) = bound.unwrap();
        let group = group.unwrap();
        assert_eq!(group.workers[1].local_addr().unwrap(), "0.0.0.0:4789".parse().unwrap());
        assert!(matches!(asked_for_ipv6, Err(SocketError::Io { .. })));
    }
}
