//! One question to one name server, by UDP or by TCP (RFC 1035 section 4.2).

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use engine::io::netns::Netns;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, UdpSocket};

use super::super::ports::Intent;
use crate::resolver::choice::Attempt;
use crate::resolver::message::Message;

/// The longest message.
const MAX_BYTES: usize = 65_535;

/// Asks from this host.
pub(super) async fn from_here(attempt: Attempt, sent: &[u8]) -> io::Result<Vec<u8>> {
    with(socket(attempt)?, attempt, sent).await
}

/// A socket in the network namespace of a container, which lives as long as it.
pub(super) fn socket_in(intent: &Intent, attempt: Attempt) -> io::Result<Socket> {
    let netns = intent.present_netns().or_else(|| Netns::find(intent.netns_id()));
    let netns = netns.ok_or(io::ErrorKind::NotFound)?;
    netns.run(|| socket(attempt)).map_err(io::Error::other)?
}

/// Bound to a port that nobody can guess.
fn socket(attempt: Attempt) -> io::Result<Socket> {
    let addr = attempt.server.addr;
    let (kind, protocol) =
        if attempt.tcp { (Type::STREAM, Protocol::TCP) } else { (Type::DGRAM, Protocol::UDP) };
    let socket = Socket::new(Domain::for_address(addr), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if !attempt.tcp {
        let any: SocketAddr = match addr {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        socket.bind(&any.into())?;
        // Only the server is heard from then on.
        socket.connect(&addr.into())?;
    }
    Ok(socket)
}

/// Asks with a socket.
pub(super) async fn with(socket: Socket, attempt: Attempt, sent: &[u8]) -> io::Result<Vec<u8>> {
    if attempt.tcp {
        by_tcp(TcpSocket::from_std_stream(socket.into()), attempt.server.addr, sent).await
    } else {
        by_udp(&UdpSocket::from_std(socket.into())?, sent).await
    }
}

/// What answers another question is not what is waited for.
async fn by_udp(socket: &UdpSocket, sent: &[u8]) -> io::Result<Vec<u8>> {
    socket.send(sent).await?;
    let mut bytes = vec![0; MAX_BYTES];
    loop {
        let len = socket.recv(&mut bytes).await?;
        let answers = |asked| Message::parse(&bytes[..len]).is_some_and(|answer| answer.answers(&asked));
        if Message::parse(sent).is_some_and(answers) {
            bytes.truncate(len);
            return Ok(bytes);
        }
    }
}

async fn by_tcp(socket: TcpSocket, addr: SocketAddr, sent: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = socket.connect(addr).await?;
    let len = u16::try_from(sent.len()).map_err(io::Error::other)?;
    stream.write_all(&[&len.to_be_bytes()[..], sent].concat()).await?;
    let mut bytes = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::TcpListener;

    use super::*;
    use crate::resolver::choice::{Origin, Server};
    use crate::resolver::message::tests::{answer, question};

    fn attempt(addr: SocketAddr, tcp: bool) -> Attempt {
        Attempt { server: Server { from: Origin::Host, addr }, tcp, limit: Duration::from_secs(1) }
    }

    #[tokio::test]
    async fn the_answer_to_the_question_is_taken_and_no_other() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let addr = server.local_addr().unwrap();
        let asked = question(7, "a.org", None);
        let (told, other) = (answer(&asked, 0, 1, 60), answer(&question(8, "a.org", None), 0, 2, 60));
        let expected = told.clone();
        tokio::spawn(async move {
            let mut bytes = [0; 512];
            let (_, from) = server.recv_from(&mut bytes).await.unwrap();
            for datagram in [&b"garbage"[..], &other, &told] {
                server.send_to(datagram, from).await.unwrap();
            }
        });
        assert_eq!(from_here(attempt(addr, false), &asked).await.unwrap(), expected);
    }

    #[tokio::test]
    async fn a_long_answer_comes_by_tcp() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = server.local_addr().unwrap();
        let asked = question(7, "a.org", None);
        let told = answer(&asked, 0, 2000, 60);
        let expected = told.clone();
        tokio::spawn(async move {
            let (mut stream, _) = server.accept().await.unwrap();
            let mut bytes = vec![0; usize::from(stream.read_u16().await.unwrap())];
            stream.read_exact(&mut bytes).await.unwrap();
            stream.write_u16(told.len() as u16).await.unwrap();
            stream.write_all(&told).await.unwrap();
        });
        assert_eq!(from_here(attempt(addr, true), &asked).await.unwrap(), expected);
    }

    #[tokio::test]
    async fn where_nobody_listens_one_knows_at_once() {
        let gone = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let asked = question(7, "a.org", None);
        assert!(from_here(attempt(gone, false), &asked).await.is_err());
        assert!(from_here(attempt(gone, true), &asked).await.is_err());
    }
}
