//! The accept loop, and what a connection may cost.
//!
//! Every connection is one task, and every wait in it has an end: heads of
//! requests ([`HEAD_TIMEOUT`]), bodies (by route), and peers that do not read
//! ([`super::stall`]). A WebSocket keeps its connection's place until it closes.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use hyper::Request;
use hyper::body::Incoming;
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

use super::guard::{Admission, Area, Guard};
use super::linger::Lingering;
use super::stall::Stall;
use super::{App, Caller, headers, problem, routes};
use crate::handle::Handle;

/// Connections at a time; a browser makes six, and a WebSocket per tab.
const CONNECTIONS_MAX: usize = 512;
/// Longest that the head of a request may take, and a connection lie idle before the next.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest head of a request in bytes; hyper answers 431 to longer ones.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Longest that answers may take to end once the node stops; all of it has 5 s.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause after a failed accept: out of file descriptors is not cured by haste.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What a connection gets for which there is no place.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    content-type: application/problem+json\r\ncontent-length: 120\r\n\
    retry-after: 2\r\nconnection: close\r\n\r\n\
    {\"type\":\"about:blank\",\"title\":\"Service Unavailable\",\"status\":503,\
    \"detail\":\"all 512 connections of this node are in use\"}";

/// Serves `listener` until `shutdown`; returns once all answers have ended,
/// endless ones included.
///
/// # Errors
/// If the listener has no address.
pub(crate) async fn serve(
    listener: TcpListener,
    handle: Handle,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let bound = listener.local_addr()?;
    let app = Arc::new(App {
        guard: Guard::new(&handle, bound),
        handle,
        stop: shutdown.clone(),
        kill: CancellationToken::new(),
        tasks: TaskTracker::new(),
        next_reader: AtomicU64::new(0),
    });
    let router = routes::router(&app);
    let mut accepting = pin!(accept(listener, &app, &router));
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = &mut accepting => {}
    }
    app.tasks.close();
    if timeout(STOP_TIMEOUT, app.tasks.wait()).await.is_err() {
        info!("http connections are cut: the node stops");
        app.kill.cancel();
        app.tasks.wait().await;
    }
    Ok(())
}

async fn accept(listener: TcpListener, app: &Arc<App>, router: &Router) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let (socket, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "http cannot accept");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            debug!(%peer, "http connection refused: no place");
            // As much as the socket takes at once: waiting would need a place.
            let _ = socket.try_write(FULL);
            continue;
        };
        let Ok(local) = socket.local_addr() else {
            continue;
        };
        let caller = Caller {
            peer: SocketAddr::new(peer.ip().to_canonical(), peer.port()),
            local: local.ip().to_canonical(),
            _place: Arc::new(place),
        };
        app.tasks
            .spawn(connection(socket, caller, Arc::clone(app), router.clone()));
    }
}

async fn connection(socket: TcpStream, caller: Caller, app: Arc<App>, router: Router) {
    let peer = caller.peer;
    let _ = socket.set_nodelay(true);
    let (stop, kill) = (app.stop.clone(), app.kill.clone());
    let service = service_fn(move |request| {
        answer(Arc::clone(&app), router.clone(), caller.clone(), request)
    });
    let mut serving = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(Stall::new(socket)), service)
            .with_upgrades()
    );
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            tokio::select! {
                ended = serving => ended,
                () = kill.cancelled() => return,
            }
        }
    };
    if let Err(error) = ended {
        debug!(%peer, %error, "http connection broke");
    }
}

async fn answer(
    app: Arc<App>,
    router: Router,
    caller: Caller,
    request: Request<Incoming>,
) -> Result<Response, Infallible> {
    let (mut parts, body) = request.into_parts();
    let body = Lingering::new(body, &parts.headers, app.tasks.clone());
    let area = Area::of(&parts);
    let cors = app.guard.cors(&parts);
    let response = match app.guard.admit(&parts, &caller) {
        Err(failure) => failure.into_response(),
        Ok(Admission::Preflight) => headers::preflight(),
        Ok(Admission::Go(access)) => {
            parts.extensions.insert(access);
            parts.extensions.insert(caller);
            let request = Request::from_parts(parts, Body::new(body));
            router.oneshot(request).await?
        }
    };
    Ok(headers::dress(problem::normalise(response), area, cors))
}

#[cfg(test)]
mod tests {
    use super::FULL;

    #[test]
    fn answer_of_a_full_node_has_the_length_it_claims() {
        let text = std::str::from_utf8(FULL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(&format!("content-length: {}\r\n", body.len())),
            "{}",
            body.len()
        );
        let problem: astral_proto::api::Problem = serde_json::from_str(body).unwrap();
        assert_eq!(problem.status, 503);
    }
}
