//! HTTP for whoever is let in, with a bound on all that a connection may hold: one request, a short head, a body of known
//! size, both within a time.

use std::collections::VecDeque;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::failure::{Failure, code};

/// How long the head of a request may take to arrive, and then its body.
const ARRIVAL: Duration = Duration::from_secs(5);
/// Bytes of a head; the least that hyper takes.
const MAX_HEAD: usize = 8 * 1024;
/// Bytes of a body: a thousand peers have room.
const MAX_BODY: usize = 256 * 1024;

/// Answers the one request of a connection. Dropping the future closes it.
pub(super) async fn answer(stream: impl AsyncRead + AsyncWrite + Unpin, router: Router) {
    answer_within(ARRIVAL, stream, router).await;
}

async fn answer_within(arrival: Duration, stream: impl AsyncRead + AsyncWrite + Unpin, router: Router) {
    let service = TowerToHyperService::new(router.layer(from_fn_with_state(arrival, whole)));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(arrival).max_buf_size(MAX_HEAD).keep_alive(false);
    // What goes wrong on a connection is the caller's to notice.
    let _ = http.serve_connection(TokioIo::new(stream), service).await;
}

/// Lets a request pass once all of it is here.
async fn whole(State(arrival): State<Duration>, request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    let refused = |why: String| Failure::new(code::BAD_USAGE, why).into_response();
    match timeout(arrival, to_bytes(body, MAX_BODY)).await {
        Ok(Ok(bytes)) => next.run(Request::from_parts(head, Body::from(bytes))).await,
        Ok(Err(_)) => refused(format!("the request is broken off, or longer than {MAX_BODY} bytes")),
        Err(_) => refused(format!("the request did not arrive within {arrival:?}")),
    }
}

/// The tasks that answer strangers: when there are too many, the oldest gives way. Who comes to ask is answered at once; who
/// comes to sit is the oldest soon.
pub(super) struct Benches {
    taken: VecDeque<AbortHandle>,
    most: usize,
}

impl Benches {
    pub(super) fn new(most: usize) -> Self {
        Benches { taken: VecDeque::new(), most }
    }

    pub(super) fn seat(&mut self, task: AbortHandle) {
        self.taken.retain(|task| !task.is_finished());
        if self.taken.len() >= self.most
            && let Some(oldest) = self.taken.pop_front()
        {
            oldest.abort();
        }
        self.taken.push_back(task);
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Bytes;
    use axum::routing::{get, post};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::task::{JoinHandle, yield_now};

    use super::*;

    const SOON: Duration = Duration::from_millis(100);

    /// A caller's end, and the task at the other end.
    fn call() -> (DuplexStream, JoinHandle<()>) {
        let (near, far) = duplex(1 << 20);
        let length = post(|body: Bytes| async move { body.len().to_string() });
        let router = Router::new().route("/length", length).route("/", get(|| async { "here" }));
        (near, tokio::spawn(answer_within(SOON, far, router)))
    }

    async fn said(mut near: DuplexStream) -> String {
        let mut text = Vec::new();
        near.read_to_end(&mut text).await.unwrap();
        String::from_utf8(text).unwrap()
    }

    #[tokio::test]
    async fn a_request_has_its_time_and_its_size() {
        let (mut near, _) = call();
        near.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\n\r\n").await.unwrap();
        let text = said(near).await;
        assert!(
            text.starts_with("HTTP/1.1 200 ") && text.matches("here").count() == 1,
            "one request: {text}"
        );

        let (near, task) = call();
        timeout(ARRIVAL, task).await.expect("who says nothing is sent away").unwrap();
        drop(near);

        let (mut near, _) = call();
        near.write_all(b"POST /length HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nslow").await.unwrap();
        let text = said(near).await;
        assert!(text.contains("bad_usage") && text.contains("within 100ms"), "{text}");

        let (mut near, _) = call();
        let long = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", "x".repeat(3 * MAX_HEAD));
        near.write_all(long.as_bytes()).await.unwrap();
        let text = said(near).await;
        assert!(text.starts_with("HTTP/1.1 431 "), "{text}");
    }

    #[tokio::test]
    async fn a_body_may_be_so_long() {
        for (len, code) in [(MAX_BODY, "HTTP/1.1 200 "), (MAX_BODY + 1, "HTTP/1.1 400 ")] {
            let (mut near, _) = call();
            let head = format!("POST /length HTTP/1.1\r\nHost: x\r\nContent-Length: {len}\r\n\r\n");
            near.write_all(head.as_bytes()).await.unwrap();
            near.write_all(&vec![b'x'; len]).await.unwrap();
            let text = said(near).await;
            assert!(text.starts_with(code), "{len}: {text}");
        }
    }

    #[tokio::test]
    async fn the_oldest_gives_way() {
        let mut benches = Benches::new(2);
        let tasks: Vec<_> = (0..3).map(|_| tokio::spawn(std::future::pending::<()>())).collect();
        tasks.iter().for_each(|task| benches.seat(task.abort_handle()));
        yield_now().await;
        assert_eq!(tasks.iter().map(JoinHandle::is_finished).collect::<Vec<_>>(), [true, false, false]);
        tasks[1].abort();
        yield_now().await;
        benches.seat(tokio::spawn(std::future::pending::<()>()).abort_handle());
        yield_now().await;
        assert!(!tasks[2].is_finished(), "there was room");
    }
}
