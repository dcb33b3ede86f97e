//! What can be asked of the daemon: HTTP/1.1 and JSON on the socket in the run directory.

use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::Listener;
use axum::{Json, Router};
use engine::capture::MAX_SNAPLEN;
use nix::unistd::Gid;
use peering::mesh::{MESH_NETWORK, RemoveError, Removed, Target};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixListener;
use tokio::sync::oneshot;

use super::attach::Subject;
use super::guest::{Guests, Welcome};
use super::{Daemon, attach, door, expose};
use crate::capture::pcapng;
use crate::client::{CAPTURE_NUMBER, SOCKET};
use crate::failure::{Failure, FailureBody, code};
use crate::shape::{
    AttachRequest, Attachment, CaptureTotals, CreateRequest, DetachRequest, Detached, DnsAddRequest,
    DnsRemoveRequest, DnsRemoved, ExposeRequest, Hello, HideRequest, Inspected, Listed, LookedUp,
    LookupRequest, Network, NetworkNames, RemoveRequest, RemovedNetworks, RemovedPeer, Reported, ResetDone,
    ResetRequest, RevokeRequest, RevokedPeer, RotateRequest, Status, Stopped, Targets, Vtep,
};

/// Everybody who may use the socket may use the daemon: root and the socket's group.
const MODE: u32 = 0o660;

type Answer<T> = Result<Json<T>, Failure>;
type Asked = State<Arc<Daemon>>;

/// Opens the socket in `run_dir`, in place of one that a dead daemon left there. The lock must be held, and the umask
/// keep everybody else out meanwhile.
pub(super) fn bind(run_dir: &std::path::Path, group: Option<Gid>) -> io::Result<UnixListener> {
    let path = run_dir.join(SOCKET);
    remove(run_dir)?;
    let listener = UnixListener::bind(&path)?;
    chown(&path, None, group.map(Gid::as_raw))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(MODE))?;
    Ok(listener)
}

/// Removes the socket from `run_dir`, if there is one.
pub(super) fn remove(run_dir: &std::path::Path) -> io::Result<()> {
    match std::fs::remove_file(run_dir.join(SOCKET)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Answers until the process ends. A connection that closes ends what was asked on it.
pub(super) async fn serve(daemon: Arc<Daemon>, socket: PathBuf, mut listener: UnixListener) {
    let (guests, router) = (Guests::new(socket), router(daemon));
    loop {
        let (stream, _) = Listener::accept(&mut listener).await;
        let (router, seat) = match guests.judge(&stream) {
            Welcome::In(seat) => (router.clone(), seat),
            Welcome::Out(failure, seat) => (refusing(failure), seat),
            Welcome::Away => continue,
        };
        tokio::spawn(async move {
            door::answer(stream, router).await;
            drop(seat);
        });
    }
}

/// Answers everything with this failure.
fn refusing(failure: Failure) -> Router {
    Router::new().fallback(async move || failure)
}

fn router(daemon: Arc<Daemon>) -> Router {
    Router::new()
        .route("/hello", get(hello))
        .route("/status", get(status))
        .route("/ps", get(ps))
        .route("/report", get(report))
        .route("/connect", post(connect))
        .route("/forget", post(forget))
        .route("/rmpeer", post(rmpeer))
        .route("/revoke", post(revoke))
        .route("/secret/rotate", post(rotate))
        .route("/attach", post(attach_container))
        .route("/detach", post(detach))
        .route("/expose", post(expose_host))
        .route("/hide", post(hide))
        .route("/dns/add", post(dns_add))
        .route("/dns/remove", post(dns_remove))
        .route("/dns/lookup", post(dns_lookup))
        .route("/networks", get(networks))
        .route("/network/create", post(network_create))
        .route("/network/inspect", post(network_inspect))
        .route("/network/rm", post(network_rm))
        .route("/network/prune", post(network_prune))
        .route("/vteps", get(vteps))
        .route("/vtep/add", post(vtep_add))
        .route("/vtep/rm", post(vtep_rm))
        .route("/capture", get(capture))
        .route("/capture/{number}", get(capture_totals))
        .route("/capture/{number}/end", post(capture_end))
        .route("/space", post(space))
        .route("/reset", post(reset))
        .route("/stop", post(stop))
        .with_state(daemon)
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = match &*self.code {
            code::INTERNAL => StatusCode::INTERNAL_SERVER_ERROR,
            code::BAD_USAGE => StatusCode::BAD_REQUEST,
            code::NOT_PERMITTED => StatusCode::FORBIDDEN,
            code::BUSY => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::CONFLICT,
        };
        (status, Json(FailureBody { error: self })).into_response()
    }
}

/// Reads a request's body; one that makes no sense is refused in our own form.
fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Failure> {
    serde_json::from_slice(body)
        .map_err(|e| Failure::new(code::BAD_USAGE, format!("the request cannot be read: {e}")))
}

#[derive(Deserialize)]
struct StatusQuery {
    #[serde(default)]
    thorough: bool,
}

async fn hello(State(daemon): Asked) -> Json<Hello> {
    Json(daemon.hello.clone())
}

async fn status(State(daemon): Asked, Query(query): Query<StatusQuery>) -> Answer<Status> {
    daemon.status(query.thorough).await.map(Json)
}

async fn ps(State(daemon): Asked) -> Json<Vec<Listed>> {
    Json(daemon.ps().await)
}

async fn report(State(daemon): Asked) -> Answer<Reported> {
    daemon.report().await.map(Json)
}

fn read_targets(texts: &[String]) -> Result<Vec<Target>, Failure> {
    let read = |text: &String| text.parse().map_err(|e: peering::mesh::ParseTargetError| e.to_string());
    let targets: Result<_, String> = texts.iter().map(read).collect();
    targets.map_err(|e| Failure::new(code::BAD_USAGE, e))
}

async fn connect(State(daemon): Asked, body: Bytes) -> Answer<Targets> {
    let request: Targets = read(&body)?;
    daemon.refuse_when_stopping()?;
    daemon.peering.connect(read_targets(&request.targets)?, request.replace).await;
    Ok(Json(request))
}

async fn forget(State(daemon): Asked, body: Bytes) -> Answer<Targets> {
    let request: Targets = read(&body)?;
    daemon.peering.forget(read_targets(&request.targets)?).await;
    Ok(Json(request))
}

async fn rmpeer(State(daemon): Asked, body: Bytes) -> Answer<RemovedPeer> {
    let RemoveRequest { peer, force } = read(&body)?;
    daemon.refuse_when_stopping()?;
    let done = daemon.peering.remove_peer(peer, force).await.map_err(|error| not_removed(&error))?;
    let Removed { peer, nickname, newly } = done;
    Ok(Json(RemovedPeer { peer_id: peer.to_string(), nickname, removed: newly }))
}

async fn revoke(State(daemon): Asked, body: Bytes) -> Answer<RevokedPeer> {
    let RevokeRequest { peer } = read(&body)?;
    daemon.refuse_when_stopping()?;
    let done = daemon.peering.revoke_peer(peer).await.map_err(|error| not_removed(&error))?;
    let Removed { peer, nickname, newly } = done;
    let open = daemon.peering.is_open();
    Ok(Json(RevokedPeer { peer_id: peer.to_string(), nickname, revoked: newly, open }))
}

async fn rotate(State(daemon): Asked, body: Bytes) -> Answer<()> {
    let request: RotateRequest = read(&body)?;
    daemon.refuse_when_stopping()?;
    daemon.rotate(request).await.map(Json)
}

fn not_removed(error: &RemoveError) -> Failure {
    let failure = Failure::new(error.code(), error.to_string());
    match error {
        RemoveError::Unknown(_) => failure.hint("see `meshnet status peers`"),
        RemoveError::Ambiguous { .. } => failure.hint("name it by its peer id"),
        RemoveError::Oneself(_) => failure.hint("run it on another host, or use `meshnet stop` here"),
        RemoveError::Alive(_) => failure.hint("stop it first, or remove it with --force: it will come back"),
        RemoveError::Clone(_) => failure.hint("run it on another host, or stop one of the two"),
        RemoveError::Stopping => failure,
    }
}

/// The work goes on in a task of its own: when the caller leaves, this future is dropped and the task, which
/// notices, undoes what was done.
async fn attach_container(State(daemon): Asked, body: Bytes) -> Answer<Attachment> {
    let request: AttachRequest = read(&body)?;
    let (caller, answer) = oneshot::channel();
    tokio::spawn(attach::attach(daemon, request, Subject::Container, caller));
    match answer.await {
        Ok(result) => result.map(Json),
        Err(_) => Err(Failure::internal("the attachment ended without an answer")),
    }
}

/// Not to be interrupted: a caller who leaves still leaves nothing half done.
async fn detach(State(daemon): Asked, body: Bytes) -> Answer<Detached> {
    let request: DetachRequest = read(&body)?;
    let work = tokio::spawn(async move { attach::detach(&daemon, request).await });
    work.await.map_err(Failure::internal)?.map(Json)
}

/// As [`attach_container`].
async fn expose_host(State(daemon): Asked, body: Bytes) -> Answer<Attachment> {
    let request: ExposeRequest = read(&body)?;
    let (caller, answer) = oneshot::channel();
    tokio::spawn(expose::expose(daemon, request, caller));
    match answer.await {
        Ok(result) => result.map(Json),
        Err(_) => Err(Failure::internal("the exposure ended without an answer")),
    }
}

/// As [`detach`].
async fn hide(State(daemon): Asked, body: Bytes) -> Answer<Detached> {
    let request: HideRequest = read(&body)?;
    let work = tokio::spawn(async move { expose::hide(&daemon, request).await });
    work.await.map_err(Failure::internal)?.map(Json)
}

async fn dns_add(State(daemon): Asked, body: Bytes) -> Answer<DnsAddRequest> {
    let request: DnsAddRequest = read(&body)?;
    daemon.dns_add(&request).await?;
    Ok(Json(request))
}

async fn dns_remove(State(daemon): Asked, body: Bytes) -> Answer<DnsRemoved> {
    let request: DnsRemoveRequest = read(&body)?;
    daemon.dns_remove(&request).await.map(Json)
}

async fn dns_lookup(State(daemon): Asked, body: Bytes) -> Answer<LookedUp> {
    let request: LookupRequest = read(&body)?;
    daemon.dns_lookup(&request).map(Json)
}

async fn networks(State(daemon): Asked) -> Json<Vec<Network>> {
    Json(daemon.list_networks().await)
}

/// A caller who leaves before there is a network has none made.
async fn network_create(State(daemon): Asked, body: Bytes) -> Answer<Network> {
    let request: CreateRequest = read(&body)?;
    daemon.create_network(request).await.map(Json)
}

async fn network_inspect(State(daemon): Asked, body: Bytes) -> Answer<Vec<Inspected>> {
    let request: NetworkNames = read(&body)?;
    daemon.inspect_networks(&request.networks).await.map(Json)
}

async fn network_rm(State(daemon): Asked, body: Bytes) -> Answer<RemovedNetworks> {
    let request: NetworkNames = read(&body)?;
    daemon.remove_networks(&request.networks).await.map(Json)
}

async fn network_prune(State(daemon): Asked, body: Bytes) -> Answer<RemovedNetworks> {
    let request: NetworkNames = read(&body)?;
    daemon.prune_networks(&request.networks).await.map(Json)
}

async fn vteps(State(daemon): Asked) -> Json<Vec<Vtep>> {
    Json(daemon.vteps().await)
}

async fn vtep_add(State(daemon): Asked, body: Bytes) -> Answer<Vtep> {
    let request: Vtep = read(&body)?;
    daemon.add_vtep(&request).await?;
    Ok(Json(request))
}

async fn vtep_rm(State(daemon): Asked, body: Bytes) -> Answer<Vtep> {
    let request: Vtep = read(&body)?;
    daemon.remove_vtep(&request).await?;
    Ok(Json(request))
}

#[derive(Deserialize)]
struct CaptureQuery {
    /// Without one, the underlay.
    port: Option<String>,
    #[serde(default = "whole")]
    snaplen: usize,
}

fn whole() -> usize {
    MAX_SNAPLEN
}

/// A pcapng stream that goes on until the port is closed or the caller leaves.
async fn capture(State(daemon): Asked, Query(query): Query<CaptureQuery>) -> Result<Response, Failure> {
    daemon.refuse_when_stopping()?;
    let (number, stream) = daemon.capture(query.port.as_deref(), query.snaplen)?;
    let headers =
        [(CONTENT_TYPE.as_str(), pcapng::MEDIA_TYPE.to_owned()), (CAPTURE_NUMBER, number.to_string())];
    Ok((headers, Body::new(stream)).into_response())
}

async fn capture_totals(State(daemon): Asked, Path(number): Path<u64>) -> Answer<CaptureTotals> {
    daemon.capture_totals(number).map(Json)
}

async fn capture_end(State(daemon): Asked, Path(number): Path<u64>) -> Answer<CaptureTotals> {
    daemon.end_capture(number).map(Json)
}

/// Somebody is going to need addresses: for the next five seconds this host counts as needing one.
async fn space(State(daemon): Asked) -> Json<()> {
    daemon.peering.want(MESH_NETWORK).await;
    Json(())
}

/// Not to be interrupted: a caller who leaves still leaves nothing half done.
async fn reset(State(daemon): Asked, body: Bytes) -> Answer<ResetDone> {
    let request: ResetRequest = read(&body)?;
    let state_dir = daemon.state_dir.clone();
    let work = tokio::spawn(async move { daemon.reset(request.force).await });
    work.await.map_err(Failure::internal)??;
    Ok(Json(ResetDone { reset: true, state_dir }))
}

async fn stop(State(daemon): Asked) -> Json<Stopped> {
    daemon.stop();
    Json(Stopped { stopped: true })
}
