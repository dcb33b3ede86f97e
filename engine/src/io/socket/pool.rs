//! Sockets that only send: each has a source port of its own, so that the underlay can tell flows apart.

use std::io;
use std::net::SocketAddr;

use socket2::SockAddr;

use super::DataSocket;
use super::group::{attach_filter, open, set_option};
use super::steering::DROP_ALL;

/// Wanted receive buffer, bytes; the kernel makes it as small as it allows.
const NO_BUFFER: libc::c_int = 0;

/// For each of `workers` `count` sockets on its address. The kernel chooses the ports, the same for every worker: a flow
/// that another worker takes over keeps its source port, and yet no two workers share a socket. Call it in the
/// namespace in which `workers` were bound. Where a socket cannot be had, all pools are empty.
///
/// Whatever is sent to such a port is dropped by a filter before it takes room, and nobody reads.
pub fn pools(workers: &[DataSocket], count: usize) -> Vec<Vec<DataSocket>> {
    make(workers, count).unwrap_or_else(|error| {
        tracing::warn!("all flows share the data port: a socket to send from cannot be had: {error}");
        workers.iter().map(|_| Vec::new()).collect()
    })
}

fn make(workers: &[DataSocket], count: usize) -> io::Result<Vec<Vec<DataSocket>>> {
    let mut pools: Vec<Vec<DataSocket>> = workers.iter().map(|_| Vec::with_capacity(count)).collect();
    for _ in 0..count {
        let mut port = 0;
        for (worker, pool) in workers.iter().zip(&mut pools) {
            let sender = sender(worker, port)?;
            port = sender.local_addr()?.port();
            pool.push(sender);
        }
    }
    Ok(pools)
}

fn sender(like: &DataSocket, port: u16) -> io::Result<DataSocket> {
    // The wildcard of both families is told as an IPv6 address.
    let own = like.socket.local_addr()?;
    let ip = own.as_socket().ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))?.ip();
    let socket = open(ip)?;
    attach_filter(&socket, &mut DROP_ALL.to_vec())?;
    set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, &NO_BUFFER)?;
    socket.set_reuse_port(true)?;
    socket.bind(&SockAddr::from(SocketAddr::new(ip, port)))?;
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
            let (group, other) =
                (super::super::bind(None, 4789, 1).unwrap(), super::super::bind(None, 4790, 3).unwrap());
            let pools = pools(&other.workers, 16);
            (group, pools)
        });
        let (group, pools) = bound.unwrap();
        let data = &group.workers[0];
        let to = "127.0.0.1:4789".parse().unwrap();
        let ports = |pool: &Vec<DataSocket>| -> Vec<u16> {
            let port = |sender: &DataSocket| {
                sender.send(to, &[IoSlice::new(&[0x08; 60])], None).unwrap();
                let from = data.recv(&mut vec![0; 65_536]).unwrap().from;
                data.send(from, &[IoSlice::new(&[0x08; 60])], None).unwrap();
                let heard = sender.recv(&mut vec![0; 65_536]).map(|received| received.len);
                assert_eq!(heard.unwrap_err().kind(), io::ErrorKind::WouldBlock);
                from.port()
            };
            pool.iter().map(port).collect()
        };
        let all: Vec<Vec<u16>> = pools.iter().map(ports).collect();
        assert!(all.len() == 3 && all[1] == all[0] && all[2] == all[0], "every worker has the same: {all:?}");
        let mut one = all[0].clone();
        one.sort_unstable();
        one.dedup();
        assert!(one.len() == 16 && !one.contains(&4789), "{one:?}");
    }
}
