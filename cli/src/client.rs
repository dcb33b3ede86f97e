//! The daemon as the commands see it.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use hyper::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::failure::{Failure, FailureBody, code};
use crate::http;

/// Name of the socket in the run directory.
pub(crate) const SOCKET: &str = "meshnet.sock";

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
        match serde_json::from_slice::<FailureBody>(&bytes) {
            Ok(body) => Err(body.error),
            Err(_) => Err(Failure::internal(format!(
                "the daemon answered {status}: {}",
                String::from_utf8_lossy(&bytes)
            ))),
        }
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
