//! Questions to the Docker engine over its unix socket.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use hyper::{Method, StatusCode};
use serde::Deserialize;
use thiserror::Error;

use super::events::Events;
use crate::http;

/// Where Docker listens unless `DOCKER_HOST` says otherwise.
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";
/// How long Docker may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why Docker could not be asked.
#[derive(Debug, Error)]
pub(crate) enum DockerError {
    /// `DOCKER_HOST` names something that is not a unix socket.
    #[error("DOCKER_HOST={0} is not supported: only unix:// is")]
    Unsupported(String),
    /// The socket does not answer.
    #[error("Docker does not answer on {}: {error}", socket.display())]
    Unreachable { socket: PathBuf, error: io::Error },
    /// Docker answered with an error of its own.
    #[error("Docker answered {status}: {message}")]
    Refused { status: StatusCode, message: String },
    /// The answer makes no sense.
    #[error("Docker's answer cannot be read: {0}")]
    Garbled(String),
}

/// The Docker engine of this host, there or not.
#[derive(Clone, Debug)]
pub(crate) struct Docker {
    socket: Result<PathBuf, String>,
}

/// A container Docker knows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Container {
    /// The full id, 64 hex digits.
    pub(crate) id: String,
    /// Its name, without the slash Docker puts before it.
    pub(crate) name: String,
    /// Its first process, while it runs.
    pub(crate) pid: Option<u32>,
    /// Whether it uses the host's network.
    pub(crate) host_network: bool,
}

impl Docker {
    /// The engine that `DOCKER_HOST` names, else the usual one.
    pub(crate) fn from_env() -> Self {
        Self::from_host(std::env::var("DOCKER_HOST").ok().as_deref())
    }

    /// The engine that `host`, the value of `DOCKER_HOST`, names.
    pub(crate) fn from_host(host: Option<&str>) -> Self {
        let socket = match host {
            None | Some("") => Ok(PathBuf::from(DEFAULT_SOCKET)),
            Some(host) => host.strip_prefix("unix://").map(PathBuf::from).ok_or_else(|| host.to_owned()),
        };
        Docker { socket }
    }

    /// What Docker knows of the container called `container`, a name, an id or the start of one.
    pub(crate) async fn inspect(&self, container: &str) -> Result<Option<Container>, DockerError> {
        let socket = self.socket()?;
        let path = format!("/containers/{}/json", http::escape(container));
        let fetched = in_time(http::fetch(&socket, Method::GET, &path, None)).await;
        let (status, body) = fetched.map_err(|error| DockerError::Unreachable { socket, error })?;
        match status {
            StatusCode::OK => parse_container(&body).map(Some),
            StatusCode::NOT_FOUND => Ok(None),
            status => Err(DockerError::Refused { status, message: refusal(&body) }),
        }
    }

    /// Starts to listen for containers that start, die, are removed, or come to or leave a network of Docker.
    pub(crate) async fn events(&self) -> Result<Events, DockerError> {
        let socket = self.socket()?;
        let filters =
            r#"{"type":["container","network"],"event":["start","die","destroy","connect","disconnect"]}"#;
        let path = format!("/events?filters={}", http::escape(filters));
        let sent = in_time(http::send(&socket, Method::GET, &path, None)).await;
        let response = sent.map_err(|error| DockerError::Unreachable { socket, error })?;
        match response.status() {
            StatusCode::OK => Ok(Events::new(response.into_body())),
            status => Err(DockerError::Refused { status, message: "no events".to_owned() }),
        }
    }

    fn socket(&self) -> Result<PathBuf, DockerError> {
        self.socket.clone().map_err(DockerError::Unsupported)
    }
}

/// An engine that hangs is as good as none.
async fn in_time<T>(answer: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(PATIENCE, answer).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// The part of `GET /containers/{id}/json` that is read.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    id: String,
    name: String,
    state: InspectedState,
    host_config: InspectedHostConfig,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedState {
    running: bool,
    /// 0 while no process exists, also between two runs of a restarting container.
    pid: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedHostConfig {
    network_mode: String,
}

#[derive(Deserialize)]
struct Refusal {
    message: String,
}

fn parse_container(body: &[u8]) -> Result<Container, DockerError> {
    let read: Inspected = serde_json::from_slice(body).map_err(|e| DockerError::Garbled(e.to_string()))?;
    Ok(Container {
        id: read.id,
        name: read.name.trim_start_matches('/').to_owned(),
        pid: Some(read.state.pid).filter(|pid| read.state.running && *pid != 0),
        host_network: read.host_config.network_mode == "host",
    })
}

fn refusal(body: &[u8]) -> String {
    match serde_json::from_slice::<Refusal>(body) {
        Ok(refusal) => refusal.message,
        Err(_) => String::from_utf8_lossy(body).trim().to_owned(),
    }
}

#[cfg(test)]
mod tests;
