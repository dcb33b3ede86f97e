//! Why a connection failed or ended, in words for people.

use std::io;

use quinn::{ConnectError, ConnectionError, TransportErrorCode};
use rustls::AlertDescription;

/// Why a connection ended, or a handshake failed.
pub(super) fn connection(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ApplicationClosed(close) => closing_words(&close.reason),
        ConnectionError::ConnectionClosed(close) => {
            transport(close.error_code, &closing_words(&close.reason))
        }
        ConnectionError::TransportError(error) => transport(error.code, &error.reason),
        ConnectionError::TimedOut => "no answer for 10 s".to_owned(),
        ConnectionError::Reset => "the host was restarted".to_owned(),
        ConnectionError::LocallyClosed => "closed by this host".to_owned(),
        ConnectionError::VersionMismatch => "no common version of QUIC".to_owned(),
        ConnectionError::CidsExhausted => "too many connections".to_owned(),
    }
}

/// What the other side said as it closed, made fit for a terminal.
fn closing_words(reason: &[u8]) -> String {
    const MAX_CHARS: usize = 200;
    let text: String =
        String::from_utf8_lossy(reason).chars().filter(|c| !c.is_control()).take(MAX_CHARS).collect();
    match text.is_empty() {
        true => "closed without a reason".to_owned(),
        false => text,
    }
}

fn transport(code: TransportErrorCode, detail: &str) -> String {
    match code {
        c if c == alert(AlertDescription::NoApplicationProtocol) => {
            "the host there speaks no meshnet".to_owned()
        }
        c if c == TransportErrorCode::CONNECTION_REFUSED => "connection refused".to_owned(),
        c if c == TransportErrorCode::NO_ERROR => "closed without a reason".to_owned(),
        _ => format!("the handshake or the connection broke: {detail}"),
    }
}

/// TLS alerts travel as QUIC errors (RFC 9001 section 4.8).
fn alert(alert: AlertDescription) -> TransportErrorCode {
    TransportErrorCode::crypto(u8::from(alert))
}

/// Why an attempt could not even start.
pub(super) fn connect(error: &ConnectError) -> String {
    match error {
        ConnectError::InvalidRemoteAddress(addr) if addr.port() == 0 => "port 0 is no port".to_owned(),
        ConnectError::InvalidRemoteAddress(addr) if addr.is_ipv6() => "no IPv6 on this host".to_owned(),
        ConnectError::EndpointStopping => "the daemon is stopping".to_owned(),
        other => other.to_string(),
    }
}

/// Why the network refused a datagram.
pub(super) fn network(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::HostUnreachable => "no route to the host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "network unreachable".to_owned(),
        io::ErrorKind::AddrNotAvailable => "no address of this host can reach it".to_owned(),
        _ => super::store::plain(error),
    }
}

/// Why a name has no address.
pub(super) fn lookup(host: &str, error: &io::Error) -> String {
    match error.to_string().contains("Temporary failure") {
        true => format!("name {host} not found: no name server answers"),
        false => format!("name {host} not found"),
    }
}
