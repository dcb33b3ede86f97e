//! HTTP/1.1 over a unix socket: one connection for each request. The daemon's and Docker's sockets speak it.

use std::io;
use std::path::Path;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

/// Sends a request and returns the head of the answer, its body still to be read.
///
/// The connection lives as long as the body; dropping the future or the body closes it.
pub(crate) async fn send(
    socket: &Path,
    method: Method,
    path: &str,
    body: Option<Bytes>,
) -> io::Result<Response<Incoming>> {
    let stream = UnixStream::connect(socket).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(other)?;
    // The connection ends by itself once the request, and with it the sender and the body, is dropped.
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, "localhost")
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(body.unwrap_or_default()))
        .map_err(other)?;
    sender.send_request(request).await.map_err(other)
}

/// Sends a request and reads the whole answer.
pub(crate) async fn fetch(
    socket: &Path,
    method: Method,
    path: &str,
    body: Option<Bytes>,
) -> io::Result<(StatusCode, Bytes)> {
    let response = send(socket, method, path, body).await?;
    let status = response.status();
    let bytes = response.into_body().collect().await.map_err(other)?.to_bytes();
    Ok((status, bytes))
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}

/// The bytes of `text` that may not stand in a path segment, as `%XX` (RFC 3986 section 2.1).
pub(crate) fn escape(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~');
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_bytes_are_escaped() {
        assert_eq!(escape("we/b 1"), "we%2Fb%201");
        assert_eq!(escape("web_1.x-~"), "web_1.x-~");
    }
}
