//! The daemon as the commands see it.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::failure::{Failure, FailureBody, code};
use crate::http;

/// Name of the socket in the run directory.
pub(crate) const SOCKET: &str = "meshnet.sock";

/// The header that tells the number of a capture.
pub(crate) const CAPTURE_NUMBER: &str = "meshnet-capture";

/// The daemon behind one run directory.
pub(crate) struct Client {
    socket: PathBuf,
}

impl Client {
    /// The daemon whose run directory is `run_dir`, running or not.
    pub(crate) fn new(run_dir: &Path) -> Self {
        Client { socket: run_dir.join(SOCKET) }
    }

    /// Asks for something.
    pub(crate) async fn get<A: DeserializeOwned>(&self, path: &str) -> Result<A, Failure> {
        self.call(Method::GET, path, None).await
    }

    /// Has something done.
    pub(crate) async fn post<A: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<A, Failure> {
        let body = serde_json::to_vec(body).map_err(Failure::internal)?;
        self.call(Method::POST, path, Some(body.into())).await
    }

    /// Asks for a capture: its number, and the body that goes on.
    pub(crate) async fn stream(&self, path: &str) -> Result<(u64, Incoming), Failure> {
        let sent = http::send(&self.socket, Method::GET, path, None).await;
        let response = sent.map_err(|e| self.unreachable(&e))?;
        if !response.status().is_success() {
            let status = response.status();
            let body = response.into_body().collect().await.map_err(Failure::internal)?;
            return Err(refusal(status, &body.to_bytes()));
        }
        let number = response.headers().get(CAPTURE_NUMBER).and_then(|value| value.to_str().ok());
        let number = number.and_then(|text| text.parse().ok());
        let number = number.ok_or_else(|| Failure::internal("the daemon's capture has no number"))?;
        Ok((number, response.into_body()))
    }

    async fn call<A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<A, Failure> {
        let (status, bytes) =
            http::fetch(&self.socket, method, path, body).await.map_err(|e| self.unreachable(&e))?;
        if status.is_success() {
            return serde_json::from_slice(&bytes).map_err(|e| {
                Failure::internal(format!("the daemon's answer cannot be read: {e}"))
                    .hint("are command and daemon of the same version? see `meshnet version`")
            });
        }
        Err(refusal(status, &bytes))
    }

    fn unreachable(&self, error: &std::io::Error) -> Failure {
        let socket = self.socket.display();
        match error.kind() {
            ErrorKind::PermissionDenied => {
                Failure::new(code::NOT_PERMITTED, format!("may not open {socket}"))
                    .hint("use root, or the group of the socket")
            }
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => Failure::new(
                code::NOT_RUNNING,
                format!("meshnet is not running: nothing answers on {socket}"),
            )
            .hint("start it with `meshnet launch`"),
            _ => Failure::new(code::NOT_RUNNING, format!("the daemon on {socket} went away: {error}"))
                .hint("its log says why"),
        }
    }
}

/// What the daemon said no with.
fn refusal(status: StatusCode, body: &[u8]) -> Failure {
    match serde_json::from_slice::<FailureBody>(body) {
        Ok(body) => body.error,
        Err(_) => {
            Failure::internal(format!("the daemon answered {status}: {}", String::from_utf8_lossy(body)))
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixListener;

    use super::*;

    /// A daemon that gives every question the same answer.
    fn daemon(run_dir: &Path, status: &str, body: &str) -> Client {
        let listener = UnixListener::bind(run_dir.join(SOCKET)).unwrap();
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 4096];
                assert!(stream.read(&mut request).await.unwrap() > 0);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        Client::new(run_dir)
    }

    #[tokio::test]
    async fn answers_and_failures_come_through() {
        let dir = tempfile::tempdir().unwrap();
        let nobody: Failure = Client::new(dir.path()).get::<u32>("/x").await.unwrap_err();
        assert_eq!(nobody.code, code::NOT_RUNNING);
        assert!(nobody.to_string().contains("meshnet launch"));
        assert_eq!(daemon(dir.path(), "200 OK", "7").get::<u32>("/x").await, Ok(7));

        let dir = tempfile::tempdir().unwrap();
        let failure = Failure::new(code::NAME_IN_USE, "taken").hint("choose another");
        let client = daemon(dir.path(), "409 Conflict", &failure.json());
        assert_eq!(client.post::<u32>("/x", &1).await, Err(failure));

        let dir = tempfile::tempdir().unwrap();
        let client = daemon(dir.path(), "500 Internal Server Error", "oops");
        assert_eq!(client.get::<u32>("/x").await.unwrap_err().code, code::INTERNAL);
    }

    #[tokio::test]
    async fn a_socket_nobody_listens_on_is_no_daemon() {
        let dir = tempfile::tempdir().unwrap();
        drop(std::os::unix::net::UnixListener::bind(dir.path().join(SOCKET)).unwrap());
        let failure = Client::new(dir.path()).get::<u32>("/x").await.unwrap_err();
        assert_eq!(failure.code, code::NOT_RUNNING);
    }
}
