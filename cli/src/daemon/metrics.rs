//! The counters for Prometheus, over HTTP on an address of their own.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use super::Daemon;
use crate::failure::{Failure, code};
use crate::render::metrics;

/// Takes the address, before anything else of the daemon is there.
pub(super) async fn bind(addr: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(addr).await.map_err(|e| {
        let message = format!("metrics cannot be served on {addr}: {e}");
        let (code, hint) = match e.kind() {
            std::io::ErrorKind::AddrInUse => {
                (code::PORT_IN_USE, "stop who has it, or choose another with --metrics-addr")
            }
            std::io::ErrorKind::AddrNotAvailable => {
                (code::ADDRESS_NOT_LOCAL, "choose an address of this host with --metrics-addr")
            }
            _ => (code::START_FAILED, "choose another address with --metrics-addr"),
        };
        Failure::new(code, message).hint(hint)
    })
}

/// Answers `GET /metrics` until the process ends, and nothing else.
pub(super) async fn serve(daemon: Arc<Daemon>, listener: TcpListener) {
    let router = Router::new().route("/metrics", get(show)).with_state(daemon);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!("metrics are not served any more: {error}");
    }
}

async fn show(State(daemon): State<Arc<Daemon>>) -> Result<Response, Failure> {
    let status = daemon.counted().await?;
    Ok(([(CONTENT_TYPE, metrics::MEDIA_TYPE)], metrics::exposition(&status)).into_response())
}
