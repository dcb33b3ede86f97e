//! What the network says of packets that were sent: a machine whose daemon was killed answers that nobody listens there
//! (ICMP port unreachable), long before a silence would show it.
//!
//! QUIC does not ask for it. The kernel tells it on a queue beside the socket, if it is asked to, and once as the failure of the next call,
//! which QUIC takes for a lost packet.

use std::io::{self, IoSliceMut};
use std::net::{self, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Room for what comes with an error: the error itself, and the address that the packet came to.
const CONTROL: usize = 512;

/// The queue of errors of a socket.
#[derive(Debug)]
pub(super) struct Errors(net::UdpSocket);

/// Waits for errors.
pub(super) struct Listener(UdpSocket);

impl Errors {
    /// Has the kernel tell of errors from now on.
    pub(super) fn of(socket: &net::UdpSocket) -> io::Result<Self> {
        setsockopt(socket, sockopt::Ipv4RecvErr, &true)?;
        if socket.local_addr()?.is_ipv6() {
            setsockopt(socket, sockopt::Ipv6RecvErr, &true)?;
        }
        // Of its own, so that it can be waited for beside the socket.
        Ok(Errors(socket.try_clone()?))
    }

    /// Begins to wait for errors.
    pub(super) fn listen(&self) -> io::Result<Listener> {
        UdpSocket::from_std(self.0.try_clone()?).map(Listener)
    }
}

impl Listener {
    /// The next address where nobody listens.
    pub(super) async fn next(&self) -> io::Result<SocketAddr> {
        loop {
            let taken = self.0.async_io(Interest::ERROR, || Ok(read(&self.0)?)).await;
            match taken {
                Ok(Some(remote)) => return Ok(remote),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Takes one error from the queue: where nobody listens, or none if it says something else.
fn read(socket: &UdpSocket) -> nix::Result<Option<SocketAddr>> {
    let (mut packet, mut control) = ([0; 1], vec![0; CONTROL]);
    let mut packet = [IoSliceMut::new(&mut packet)];
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let told = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut packet, Some(&mut control), flags)?;
    let refused = told.cmsgs()?.any(|said| match said {
        ControlMessageOwned::Ipv4RecvErr(error, _) | ControlMessageOwned::Ipv6RecvErr(error, _) => {
            error.ee_errno == Errno::ECONNREFUSED as u32
        }
        _ => false,
    });
    Ok(told.address.filter(|_| refused).and_then(|address| socket_addr(&address)))
}

fn socket_addr(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddrV4::from(*v4).into());
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddrV6::from(*v6).into()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// Sends to an address where nobody listens any more, and then to one where somebody does; what is told.
    async fn told(bind: &str, listener: &str) -> (SocketAddr, SocketAddr, bool) {
        let socket = net::UdpSocket::bind(bind).unwrap();
        socket.set_nonblocking(true).unwrap();
        let errors = Errors::of(&socket).unwrap();
        let told = errors.listen().unwrap();
        let gone = net::UdpSocket::bind(listener).unwrap().local_addr().unwrap();
        let there = net::UdpSocket::bind(listener).unwrap();
        let mapped = |addr: SocketAddr| match (bind.starts_with('['), addr) {
            (true, SocketAddr::V4(v4)) => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()),
            _ => addr,
        };
        socket.send_to(b"anybody?", mapped(gone)).unwrap();
        let first = timeout(Duration::from_secs(5), told.next()).await.expect("it is told").unwrap();
        socket.send_to(b"anybody?", mapped(there.local_addr().unwrap())).unwrap();
        let more = timeout(Duration::from_millis(100), told.next()).await.is_ok();
        (engine::types::canonical(first), gone, more)
    }

    #[tokio::test]
    async fn it_is_told_where_nobody_listens_and_nothing_else_is() {
        for (bind, listener) in
            [("0.0.0.0:0", "127.0.0.1:0"), ("[::]:0", "127.0.0.1:0"), ("[::]:0", "[::1]:0")]
        {
            let (first, gone, more) = told(bind, listener).await;
            assert_eq!((first, more), (gone, false), "{bind} to {listener}");
        }
    }
}
