//! The counters for Prometheus, over HTTP on an address of their own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::door::Benches;
use super::{Daemon, door};
use crate::failure::{Failure, code};
use crate::render::metrics;

/// Callers that are answered at the same time.
const MOST: usize = 32;
/// How long one may take altogether.
const VISIT: Duration = Duration::from_secs(10);
/// How long a page is good for.
const FRESH: Duration = Duration::from_millis(200);

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
pub(super) async fn serve(daemon: Arc<Daemon>, mut listener: TcpListener) {
    let page = Arc::new(Page { daemon, last: Mutex::default() });
    let router = Router::new().route("/metrics", get(show)).with_state(page);
    let mut benches = Benches::new(MOST);
    loop {
        let (stream, _) = Listener::accept(&mut listener).await;
        let answered = timeout(VISIT, door::answer(stream, router.clone()));
        benches.seat(tokio::spawn(answered).abort_handle());
    }
}

/// The page, made anew no more often than is worth it: anybody may ask.
struct Page {
    daemon: Arc<Daemon>,
    last: Mutex<Option<(Instant, String)>>,
}

async fn show(State(page): State<Arc<Page>>) -> Result<Response, Failure> {
    let mut last = page.last.lock().await;
    if last.as_ref().is_none_or(|(made, _)| made.elapsed() >= FRESH) {
        *last = Some((Instant::now(), metrics::exposition(&page.daemon.counted().await?)));
    }
    let text = last.as_ref().map(|(_, text)| text.clone()).unwrap_or_default();
    Ok(([(CONTENT_TYPE, metrics::MEDIA_TYPE)], text).into_response())
}
