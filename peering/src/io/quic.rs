//! The QUIC endpoint of this host: one UDP socket on the port of peering, for dialling and being dialled.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Weak};
use std::time::Duration;

use aws_lc_rs::hmac;
use blake2::{Blake2s256, Digest};
use nix::errno::Errno;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, Connecting, Connection, Endpoint, EndpointConfig, IdleTimeout, Incoming, Runtime,
    ServerConfig, TokioRuntime, TransportConfig, VarInt,
};
use quinn_proto::HashedConnectionIdGenerator;
use rustls::pki_types::CertificateDer;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::time::sleep;

use engine::types::PeerId;

use super::holder::udp_port_holder;
use super::reason;
use super::screen::{Counts, Screen};
use super::store::plain;
use super::tls::{Credentials, ServerCheck, peer_of};
use super::vacancy::Errors;
use crate::identity::Identity;
use crate::mesh::{IDLE_TIMEOUT, KEEP_ALIVE};

/// Bytes that a peer may send ahead of what was read: state comes in bursts, and hosts have many peers.
pub(super) const RECEIVE_WINDOW: u32 = 1 << 20;
/// The same until the peer has shown that it may join: its proof fits, and a crowd of strangers fills no memory.
const STRANGERS_WINDOW: u32 = 1024;
/// Bytes of datagrams kept for a reader, and for the network.
const DATAGRAM_BUFFER: usize = 64 * 1024;
/// What the other hosts are told at the end.
pub(super) const STOPPED: &str = "the host there stopped";
/// The name in the handshake; there is nothing to choose by it.
const SERVER_NAME: &str = "meshnet";

/// The port of peering cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody has it.
    #[error("UDP port {port} is in use by {holder}: stop it, or choose another port with --port")]
    InUse {
        /// The port.
        port: u16,
        /// Who has it, as far as it can be known.
        holder: String,
    },
    /// The address is no address of this host.
    #[error("{addr} is not an address of this host")]
    NotLocal {
        /// What was to be listened on.
        addr: IpAddr,
    },
    /// The operating system refused.
    #[error("cannot listen on UDP port {port}: {}", plain(.source))]
    Io {
        /// The port.
        port: u16,
        /// What was answered.
        source: io::Error,
    },
    /// The keys of this host were refused by TLS.
    #[error("the keys of this host cannot be used: {0}")]
    Tls(String),
}

/// The endpoint. Cloning is cheap.
#[derive(Clone, Debug)]
pub(super) struct Quic {
    endpoint: Endpoint,
    counts: Arc<Counts>,
    socket: Weak<Screen>,
    credentials: Arc<Credentials>,
    transport: Arc<TransportConfig>,
    listen: Option<IpAddr>,
}

impl Quic {
    /// Binds the port, on one address or on all: both families, or IPv4 alone where there is no IPv6.
    pub(super) fn bind(
        credentials: Credentials,
        identity: &Identity,
        listen: Option<IpAddr>,
        port: u16,
    ) -> Result<Self, BindError> {
        let refused = |error: io::Error| refused(error, listen, port);
        let socket = open(listen, port).map_err(refused)?;
        let errors = Errors::of(&socket).map_err(refused)?;
        let runtime = Arc::new(TokioRuntime);
        let [a, b, c, d, e, f, g, h, ..] = derived(identity, "connection ids");
        let ids_key = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        let inner = runtime.wrap_udp_socket(socket).map_err(refused)?;
        let counts = Arc::<Counts>::default();
        let screen = Arc::new(Screen::new(
            inner,
            errors,
            HashedConnectionIdGenerator::from_key(ids_key),
            counts.clone(),
        ));
        let socket = Arc::downgrade(&screen);
        let transport = Arc::new(transport());
        let server = server_config(&credentials, transport.clone())?;
        let config = endpoint_config(identity, ids_key);
        let endpoint =
            Endpoint::new_with_abstract_socket(config, Some(server), screen, runtime).map_err(refused)?;
        Ok(Quic { endpoint, counts, socket, credentials: Arc::new(credentials), transport, listen })
    }

    /// Where it listens.
    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// The one address it listens on, if it is one.
    pub(super) fn listen(&self) -> Option<IpAddr> {
        self.listen
    }

    /// What comes in, counted for as long as somebody wants to know.
    pub(super) fn counts(&self) -> Arc<Counts> {
        self.counts.clone()
    }

    /// Starts a handshake with the host at `addr`, which `check` will judge.
    pub(super) fn connect(&self, addr: SocketAddr, check: Arc<ServerCheck>) -> Result<Connecting, String> {
        let tls = self.credentials.client_config(check).map_err(|error| error.to_string())?;
        let crypto = QuicClientConfig::try_from(tls).map_err(|error| error.to_string())?;
        let mut config = ClientConfig::new(Arc::new(crypto));
        config.transport_config(self.transport.clone());
        self.endpoint.connect_with(config, addr, SERVER_NAME).map_err(|error| reason::connect(&error))
    }

    /// The next host that dials us; `None` once the endpoint is closed.
    pub(super) async fn accept(&self) -> Option<Incoming> {
        self.endpoint.accept().await
    }

    /// The socket, for who listens to what is said of its packets: they hold the port.
    pub(super) fn socket(&self) -> Option<Arc<Screen>> {
        self.socket.upgrade()
    }

    /// Closes what is left and waits until the peers know, or need not.
    pub(super) async fn close(&self) {
        self.endpoint.close(VarInt::from_u32(0), STOPPED.as_bytes());
        self.endpoint.wait_idle().await;
    }

    /// Lets go of the endpoint and waits until nothing holds the port any more.
    pub(super) async fn free_port(self) {
        let socket = self.socket;
        drop(self.endpoint);
        while socket.strong_count() > 0 {
            sleep(Duration::from_millis(2)).await;
        }
    }
}

/// Who is at the far end of a connection: both sides have proved their keys by now.
pub(super) fn peer(connection: &Connection) -> Option<PeerId> {
    let shown = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    peer_of(&shown)
}

fn open(listen: Option<IpAddr>, port: u16) -> io::Result<UdpSocket> {
    match listen {
        Some(ip) => open_on(SocketAddr::new(ip, port)),
        None => open_on((Ipv6Addr::UNSPECIFIED, port).into()).or_else(|error| match has_no_ipv6(&error) {
            true => open_on((Ipv4Addr::UNSPECIFIED, port).into()),
            false => Err(error),
        }),
    }
}

fn has_no_ipv6(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL | Errno::EPROTONOSUPPORT))
}

fn open_on(addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(!addr.ip().is_unspecified())?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

fn refused(error: io::Error, listen: Option<IpAddr>, port: u16) -> BindError {
    match (error.kind(), listen) {
        (io::ErrorKind::AddrInUse, _) => {
            let holder = udp_port_holder(port).unwrap_or_else(|| "another process".to_owned());
            BindError::InUse { port, holder }
        }
        (io::ErrorKind::AddrNotAvailable, Some(addr)) => BindError::NotLocal { addr },
        _ => BindError::Io { port, source: error },
    }
}

/// Packets of a connection from before a restart are known by the keys, which are the same at every start: they are
/// answered with a stateless reset (RFC 9000 section 10.3), so that the peer learns of the restart at its next keep-alive.
fn endpoint_config(identity: &Identity, ids_key: u64) -> EndpointConfig {
    let reset_key = hmac::Key::new(hmac::HMAC_SHA256, &derived(identity, "stateless reset"));
    let mut config = EndpointConfig::new(Arc::new(reset_key));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids_key)));
    config.supported_versions(vec![1]);
    // Packets without the fixed bit are none of ours (RFC 9287 would allow them).
    config.grease_quic_bit(false);
    config
}

/// A key that only this host knows, the same at every start. A signature of Ed25519 is such a secret as
/// long as it is told to nobody.
fn derived(identity: &Identity, label: &str) -> [u8; 32] {
    let words = format!("meshnet local key, never sent: {label}");
    Blake2s256::digest(identity.sign(words.as_bytes())).into()
}

fn server_config(
    credentials: &Credentials,
    transport: Arc<TransportConfig>,
) -> Result<ServerConfig, BindError> {
    let tls = credentials.server_config().map_err(|error| BindError::Tls(error.to_string()))?;
    let crypto = QuicServerConfig::try_from(tls).map_err(|error| BindError::Tls(error.to_string()))?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(transport);
    config.max_incoming(1024);
    config.incoming_buffer_size(16 * 1024);
    config.incoming_buffer_size_total(4 << 20);
    Ok(config)
}

fn transport() -> TransportConfig {
    let mut config = TransportConfig::default();
    config.keep_alive_interval(Some(KEEP_ALIVE));
    config.max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_TIMEOUT.as_millis() as u32))));
    // One ordered stream each way, and no other.
    config.max_concurrent_bidi_streams(VarInt::from_u32(0));
    config.max_concurrent_uni_streams(VarInt::from_u32(1));
    config.stream_receive_window(VarInt::from_u32(RECEIVE_WINDOW));
    config.receive_window(VarInt::from_u32(STRANGERS_WINDOW));
    config.send_window(u64::from(RECEIVE_WINDOW));
    config.datagram_receive_buffer_size(Some(DATAGRAM_BUFFER));
    config.datagram_send_buffer_size(DATAGRAM_BUFFER);
    config
}
