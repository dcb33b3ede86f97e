//! Questions to the gateway of a network, from a container.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use netns_tests::Namespace;

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks for the IPv4 address of a name `count` times, one after the other. Milliseconds of each; whoever is not told one address
/// fails.
pub fn ask(from: &Namespace, gateway: IpAddr, name: &str, count: u16) -> Result<Vec<f64>> {
    from.run(|| -> Result<Vec<f64>> {
        let socket = UdpSocket::bind(("0.0.0.0", 0))?;
        socket.connect(SocketAddr::new(gateway, 53))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        (0..count).map(|id| once(&socket, name, id)).collect()
    })?
    .with_context(|| format!("asking {gateway} for {name}"))
}

fn once(socket: &UdpSocket, name: &str, id: u16) -> Result<f64> {
    let (start, mut answer) = (Instant::now(), [0; 1500]);
    socket.send(&message(name, id))?;
    let len = socket.recv(&mut answer)?;
    let took = start.elapsed();
    let head: [u8; 8] = answer[..len].first_chunk().copied().context("a short answer")?;
    ensure!(head[..2] == id.to_be_bytes(), "an answer to another question");
    let (code, answers) = (head[3] & 0x0f, u16::from_be_bytes([head[6], head[7]]));
    ensure!(code == 0 && answers == 1, "answered with code {code} and {answers} records");
    Ok(took.as_secs_f64() * 1e3)
}

/// A question of type A (RFC 1035 section 4.1).
pub fn message(name: &str, id: u16) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend_from_slice(label.as_bytes());
    }
    message.extend_from_slice(&[0, 0, 1, 0, 1]);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_as_the_standard_has_it() {
        let bytes = message("db.blue", 0x0102);
        assert_eq!(
            bytes,
            b"\x01\x02\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x02db\x04blue\x00\x00\x01\x00\x01"
        );
    }
}
