//! Sockets that only send: each has a source port of its own, so that the underlay can tell flows apart.

use std::io;
use std::net::SocketAddr;

use socket2::SockAddr;

use super::DataSocket;
use super::group::{attach_filter, open, set_option};
use super::steering::DROP_ALL;

/// Wanted receive buffer, bytes; the kernel makes it as small as it allows.
const NO_BUFFER: libc::c_int = 0;

/// Up to `count` sockets on the address of `like`, each with a port that the kernel chooses. Call it in the namespace
/// in which `like` was bound. Where one cannot be had, there are fewer: what would leave from it leaves from others.
///
/// Whatever is sent to such a port is dropped by a filter before it takes room, and nobody reads.
pub fn pool(like: &DataSocket, count: usize) -> Vec<DataSocket> {
    let made: io::Result<Vec<_>> = (0..count).map(|_| sender(like)).collect();
    made.unwrap_or_else(|error| {
        tracing::warn!("all flows share the data port: a socket to send from cannot be had: {error}");
        Vec::new()
    })
}

fn sender(like: &DataSocket) -> io::Result<DataSocket> {
    // The wildcard of both families is told as an IPv6 address.
    let own = like.socket.local_addr()?;
    let ip = own.as_socket().ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))?.ip();
    let socket = open(ip)?;
    attach_filter(&socket, &mut DROP_ALL.to_vec())?;
    set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, &NO_BUFFER)?;
    socket.bind(&SockAddr::from(SocketAddr::new(ip, 0)))?;
    Ok(DataSocket::sender(socket, ip.is_ipv6()))
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use super::*;
    use crate::io::netlink::Netlink;
    use crate::io::netns::Netns;

    #[test]
    fn each_sends_from_a_port_of_its_own_and_hears_nothing() {
        let netns = Netns::create().expect("needs root");
        let netlink = Netlink::open_in(&netns).unwrap();
        netlink.set_up(netlink.link("lo").unwrap().unwrap().index).unwrap();
        let bound = netns.run(|| {
            let group = super::super::bind(None, 4789, 1).unwrap();
            let pool = pool(&group.workers[0], 16);
            (group, pool)
        });
        let (group, pool) = bound.unwrap();
        let data = &group.workers[0];
        let to = "127.0.0.1:4789".parse().unwrap();
        let mut ports: Vec<u16> = Vec::new();
        for sender in &pool {
            sender.send(to, &[IoSlice::new(&[0x08; 60])], None).unwrap();
            let from = data.recv(&mut vec![0; 65_536]).unwrap().from;
            data.send(from, &[IoSlice::new(&[0x08; 60])], None).unwrap();
            let heard = sender.recv(&mut vec![0; 65_536]).map(|received| received.len);
            assert_eq!(heard.unwrap_err().kind(), io::ErrorKind::WouldBlock);
            ports.push(from.port());
        }
        ports.sort_unstable();
        ports.dedup();
        assert!(ports.len() == 16 && !ports.contains(&4789), "{ports:?}");
    }
}
