//! A small DNS server in a namespace, as the world outside the overlay has them: it knows a few names and counts questions.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;

use crate::netns::Namespace;

/// What a datagram carries (RFC 1035 section 2.3.4).
const PLAIN_UDP: usize = 512;
/// For how long its answers may be kept, in seconds.
const TTL: u32 = 60;
const STEP: Duration = Duration::from_millis(20);

/// Names in lower case, and their addresses. Every other name does not exist.
type Zone = BTreeMap<String, Vec<Ipv4Addr>>;

/// A running server; it ends when this is dropped.
#[derive(Debug)]
pub struct NameServer {
    asked: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl NameServer {
    /// Answers on port 53 of an address of a namespace: each name with so many addresses, from 198.51.100.1 on.
    pub fn start(namespace: &Namespace, addr: IpAddr, names: &[(&str, u8)]) -> Result<Self> {
        let addresses = |count: u8| (1..=count).map(|last| Ipv4Addr::new(198, 51, 100, last)).collect();
        let zone: Zone = names.iter().map(|(name, count)| ((*name).to_owned(), addresses(*count))).collect();
        let (udp, tcp) = namespace.run(|| -> std::io::Result<_> {
            Ok((UdpSocket::bind((addr, 53))?, TcpListener::bind((addr, 53))?))
        })??;
        udp.set_read_timeout(Some(STEP))?;
        tcp.set_nonblocking(true)?;
        let (asked, ended) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let by_udp = {
            let (zone, asked, ended) = (zone.clone(), Arc::clone(&asked), Arc::clone(&ended));
            std::thread::spawn(move || serve_udp(&udp, &zone, &asked, &ended))
        };
        let by_tcp = {
            let (asked, ended) = (Arc::clone(&asked), Arc::clone(&ended));
            std::thread::spawn(move || serve_tcp(&tcp, &zone, &asked, &ended))
        };
        Ok(NameServer { asked, ended, threads: vec![by_udp, by_tcp] })
    }

    /// How many questions it was asked.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // It has nothing to tell.
            let _ = thread.join();
        }
    }
}

fn serve_udp(socket: &UdpSocket, zone: &Zone, asked: &AtomicUsize, ended: &AtomicBool) {
    let mut bytes = [0; 4096];
    while !ended.load(Ordering::Relaxed) {
        let Ok((len, from)) = socket.recv_from(&mut bytes) else { continue };
        asked.fetch_add(1, Ordering::Relaxed);
        if let Some(mut answer) = answer(&bytes[..len], zone) {
            if answer.len() > PLAIN_UDP {
                answer = cut(answer);
            }
            // Who asks has gone away.
            let _ = socket.send_to(&answer, from);
        }
    }
}

fn serve_tcp(listener: &TcpListener, zone: &Zone, asked: &AtomicUsize, ended: &AtomicBool) {
    while !ended.load(Ordering::Relaxed) {
        match listener.accept() {
            // A broken connection is the asker's affair.
            Ok((stream, _)) => drop(serve_stream(stream, zone, asked)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(STEP),
            Err(_) => return,
        }
    }
}

fn serve_stream(mut stream: TcpStream, zone: &Zone, asked: &AtomicUsize) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut len = [0; 2];
    stream.read_exact(&mut len)?;
    let mut bytes = vec![0; usize::from(u16::from_be_bytes(len))];
    stream.read_exact(&mut bytes)?;
    asked.fetch_add(1, Ordering::Relaxed);
    let answer = answer(&bytes, zone).unwrap_or_default();
    let len = u16::try_from(answer.len()).unwrap_or_default();
    stream.write_all(&[&len.to_be_bytes()[..], &answer].concat())
}

/// The answer to one question for A; of other types there is nothing.
fn answer(question: &[u8], zone: &Zone) -> Option<Vec<u8>> {
    let (name, end) = read_name(question)?;
    let mut bytes = question.get(..end + 4)?.to_vec();
    let is_a = bytes[end..end + 2] == [0, 1];
    let known = zone.get(&name);
    bytes[2] = 0x80 | (bytes[2] & 1);
    bytes[3] = if known.is_some() { 0x80 } else { 0x83 };
    bytes[6..12].fill(0);
    let addresses = known.filter(|_| is_a).map_or(&[][..], Vec::as_slice);
    bytes[7] = u8::try_from(addresses.len()).ok()?;
    for address in addresses {
        bytes.extend([0xc0, 12, 0, 1, 0, 1]);
        bytes.extend(TTL.to_be_bytes());
        bytes.extend([0, 4]);
        bytes.extend(address.octets());
    }
    if addresses.is_empty() {
        // Who has nothing says for how long: an SOA of the root.
        bytes[9] = 1;
        bytes.extend([0, 0, 6, 0, 1]);
        bytes.extend(TTL.to_be_bytes());
        bytes.extend([0, 22, 0, 0]);
        bytes.extend([0; 16]);
        bytes.extend(TTL.to_be_bytes());
    }
    Some(bytes)
}

/// Only the header and the question, and that there is more.
fn cut(mut answer: Vec<u8>) -> Vec<u8> {
    let end = read_name(&answer).map_or(answer.len(), |(_, end)| end + 4);
    answer.truncate(end);
    answer[2] |= 2;
    answer[6..12].fill(0);
    answer
}

/// The name in the question, in lower case, and where it ends.
fn read_name(message: &[u8]) -> Option<(String, usize)> {
    let (mut at, mut labels) = (12, Vec::new());
    loop {
        let len = usize::from(*message.get(at)?);
        at += 1;
        if len == 0 {
            return Some((labels.join("."), at));
        }
        labels.push(String::from_utf8_lossy(message.get(at..at + len)?).to_ascii_lowercase());
        at += len;
    }
}
