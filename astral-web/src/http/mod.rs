//! The accept loop, and what a connection may cost: a place, a time, a head.

mod api;
mod body;
mod problem;
mod show;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;
use tracing::{debug, info, warn};

use crate::state::State;

/// Connections at a time; each has small buffers.
const CONNECTIONS_MAX: usize = 2048;
/// Longest that the head of a request may take, and a connection lie idle before the next.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest head of a request in bytes; hyper answers 431 to longer ones.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Longest life of a connection: nothing here is endless, and whoever does not read
/// must not keep a place. 8 MiB of a bandwidth check pass at 600 kbit/s.
const LIFE_MAX: Duration = Duration::from_secs(120);
/// Longest that answers may take to end at a stop; all of it has 5 s.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);
/// Pause after a failed accept: out of file descriptors is not cured by haste.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who asks: the canonical address of the connection's other end.
#[derive(Clone, Copy, Debug)]
struct Caller(IpAddr);

/// Serves until `stop`, then lets answers end for [`STOP_TIMEOUT`].
pub(crate) async fn serve(listener: TcpListener, state: Arc<State>, stop: CancellationToken) {
    let tasks = TaskTracker::new();
    let kill = CancellationToken::new();
    let router = api::router(state);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "http cannot accept");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            debug!(%peer, "http connection refused: no place");
            continue;
        };
        let (router, stop, kill) = (router.clone(), stop.clone(), kill.clone());
        tasks.spawn(async move {
            tokio::select! {
                _ = timeout(LIFE_MAX, connection(socket, peer, router, stop)) => {}
                () = kill.cancelled() => {}
            }
            drop(place);
        });
    }
    drop(listener);
    tasks.close();
    if timeout(STOP_TIMEOUT, tasks.wait()).await.is_err() {
        info!("http connections are cut: astral-web stops");
        kill.cancel();
        tasks.wait().await;
    }
}

async fn connection(socket: TcpStream, peer: SocketAddr, router: Router, stop: CancellationToken) {
    let _ = socket.set_nodelay(true);
    let caller = Caller(peer.ip().to_canonical());
    let service = service_fn(move |request| answer(router.clone(), caller, request));
    let mut serving = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(socket), service)
    );
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        debug!(%peer, %error, "http connection broke");
    }
}

async fn answer(
    router: Router,
    caller: Caller,
    request: Request<Incoming>,
) -> Result<Response, Infallible> {
    let mut request = request.map(Body::new);
    let public =
        request.method() != hyper::Method::POST && request.uri().path().starts_with("/api/");
    debug!(method = %request.method(), path = request.uri().path(), caller = %caller.0, "http");
    request.extensions_mut().insert(caller);
    let mut response = problem::normalise(router.oneshot(request).await?);
    let headers = response.headers_mut();
    let mut set = |name, value| {
        headers.insert(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    };
    set("x-content-type-options", "nosniff");
    set("referrer-policy", "no-referrer");
    if public {
        set("access-control-allow-origin", "*");
    }
    Ok(response)
}
