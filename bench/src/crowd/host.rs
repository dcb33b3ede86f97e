//! One simulated host: its mesh, its card, its processor, and what it has sent.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use engine::types::PeerId;
use peering::identity::Identity;
use peering::keyring::Keyring;
use peering::mesh::{ConnId, DEFAULT_DATA_PORT, DEFAULT_PORT, DialId, Mesh, MeshConfig, Target};
use peering::sealing::Sealing;

use super::wire::{Card, Inbox, Nanos};

/// One of the two ends of a connection: its number in the world, and whether this end dialled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct End {
    /// The connection.
    pub(super) pair: u64,
    /// This end dialled.
    pub(super) dialler: bool,
}

/// What travels on a connection.
pub(super) enum Item {
    /// On the stream.
    Message(Vec<u8>),
    /// Beside it.
    Datagram(Vec<u8>),
    /// The end, and why.
    Close(String),
}

/// Something that a host has to work on.
pub(super) enum Work {
    /// What came at once on a connection.
    Burst(ConnId, Vec<Item>),
    /// Somebody dials: the first packet came.
    Dialled { from: usize, life: u32, dial: DialId, since: Nanos },
    /// The far end answered the first packet.
    Answered { by: usize, dial: DialId, since: Nanos },
    /// A dialler's last packet of the handshake came.
    Finished { pair: u64 },
    /// An attempt came to nothing.
    DialFailed { dial: DialId, reason: &'static str },
    /// A connection fell silent.
    Silent { conn: ConnId },
    /// The time that the mesh named has come.
    Timer,
    /// The disk has written what it was given.
    Written,
}

/// What a host has sent and received.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Traffic {
    /// Bytes sent, everything around the payload included.
    pub(super) sent: u64,
    /// Bytes received.
    pub(super) received: u64,
    /// Messages and datagrams sent.
    pub(super) messages: u64,
    /// Handshakes finished, dialled or accepted.
    pub(super) handshakes: u64,
    /// Time of the processor that was used, in nanoseconds.
    pub(super) busy: Nanos,
}

/// A host.
pub(super) struct Host {
    /// Its place among the hosts.
    pub(super) number: usize,
    /// None while it is off.
    pub(super) mesh: Option<Mesh>,
    /// Counts the starts.
    pub(super) life: u32,
    /// Who it is.
    pub(super) peer: PeerId,
    /// Its card.
    pub(super) card: Card,
    /// Its processor.
    pub(super) inbox: Inbox<Work>,
    /// Its connections.
    pub(super) conns: BTreeMap<ConnId, End>,
    /// What it has sent so far.
    pub(super) traffic: Traffic,
    /// When the mesh wants to be woken, if that is planned.
    pub(super) timer: Option<Nanos>,
    /// The disk is busy.
    pub(super) writing: bool,
    /// Handshakes that this host was asked for and that are not finished.
    pub(super) handshakes: usize,
    next_conn: u64,
    disk: Option<Vec<u8>>,
    given: Option<Vec<u8>>,
}

impl Host {
    /// A host that is off.
    pub(super) fn new(number: usize, seed: u64) -> Self {
        let peer = identity(number, seed).peer_id();
        Host {
            number,
            mesh: None,
            life: 0,
            peer,
            card: Card::default(),
            inbox: Inbox::default(),
            conns: BTreeMap::new(),
            traffic: Traffic::default(),
            timer: None,
            writing: false,
            handshakes: 0,
            next_conn: 0,
            disk: None,
            given: None,
        }
    }

    /// Starts it, from what is on its disk.
    pub(super) fn start(&mut self, now: Instant, seed: u64, targets: &[usize]) {
        let addr = addr(self.number);
        self.life += 1;
        let mut chance = [0; 32];
        chance[..8].copy_from_slice(&seed.to_le_bytes());
        chance[8..16].copy_from_slice(&(self.number as u64).to_le_bytes());
        chance[16..20].copy_from_slice(&self.life.to_le_bytes());
        let config = MeshConfig {
            identity: identity(self.number, seed),
            nickname: name(self.number),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            boot_nonce: u64::from(self.life) << 32 | self.number as u64,
            port: DEFAULT_PORT,
            data_port: DEFAULT_DATA_PORT,
            advertise: vec![addr],
            data_addrs: vec![SocketAddr::new(addr.ip(), DEFAULT_DATA_PORT)],
            targets: targets.iter().map(|&number| target(number)).collect(),
            range: ipnet::Ipv4Net::new_assert(Ipv4Addr::new(10, 32, 0, 0), 12),
            range_given: false,
            mtu: 1450,
            reclaim_after: Duration::from_secs(24 * 3600),
            discovery: true,
            found: false,
            forgot: false,
            keyring: Keyring::default(),
            allowed: None,
            sealing: Sealing::default(),
            seed: chance,
        };
        self.mesh = Mesh::new(config, self.disk.as_deref(), now).ok();
    }

    /// The power goes off.
    pub(super) fn stop(&mut self) -> Vec<End> {
        self.mesh = None;
        self.inbox.clear();
        self.timer = None;
        self.writing = false;
        self.handshakes = 0;
        self.given = None;
        std::mem::take(&mut self.conns).into_values().collect()
    }

    /// A number for a new connection.
    pub(super) fn number_conn(&mut self, end: End) -> ConnId {
        self.next_conn += 1;
        let conn = ConnId(self.next_conn);
        self.conns.insert(conn, end);
        conn
    }

    /// The disk begins to write.
    pub(super) fn write(&mut self, state: Vec<u8>) {
        self.given = Some(state);
        self.writing = true;
    }

    /// The disk has written.
    pub(super) fn written(&mut self) {
        self.disk = self.given.take();
        self.writing = false;
    }
}

/// Where a host is.
pub(super) fn addr(number: usize) -> SocketAddr {
    let [.., high, low] = (number + 1).to_be_bytes();
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 200, high, low)), DEFAULT_PORT)
}

/// Who is at an address.
pub(super) fn host_at(addr: &SocketAddr) -> Option<usize> {
    match addr.ip() {
        IpAddr::V4(ip) => usize::from(u16::from_be_bytes([ip.octets()[2], ip.octets()[3]])).checked_sub(1),
        IpAddr::V6(_) => None,
    }
}

fn name(number: usize) -> String {
    format!("host{number:04}")
}

fn target(number: usize) -> Target {
    Target { host: addr(number).ip().to_string(), port: DEFAULT_PORT }
}

/// The host that a target names.
pub(super) fn host_of(target: &Target) -> Option<usize> {
    let ip = target.host.parse().ok()?;
    host_at(&SocketAddr::new(ip, target.port))
}

#[expect(clippy::expect_used, reason = "any seed makes an identity")]
fn identity(number: usize, seed: u64) -> Identity {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&(number as u64).to_le_bytes());
    Identity::generate(bytes).expect("any seed makes an identity")
}
