//! The accept loop, and what a connection may cost: a place, a time, a head.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use hyper::body::Incoming;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD,
    CONTENT_LENGTH, CONTENT_SECURITY_POLICY, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;
use tracing::{debug, info, warn};

use super::caller::{caller, site};
use super::problem::{self, Failure};
use super::{api, body, caller};
use crate::config::Network;
use crate::limits::{Charge, subject};
use crate::state::{State, lock};

/// Connections at a time; each has small buffers.
const CONNECTIONS_MAX: usize = 2048;
/// Connections of one caller; a browser makes six. Loopback and proxies have all.
const CONNECTIONS_PER_CALLER: u32 = 128;
/// Longest that the head of a request may take, and a connection lie idle before the next.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest that a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest head of a request in bytes; hyper answers 431 to longer ones.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Longest life of a connection: nothing here is endless, and whoever does not read
/// must not keep a place. 8 MiB of a bandwidth check pass at 600 kbit/s.
const LIFE_MAX: Duration = Duration::from_secs(120);
/// Longest that answers may take to end at a stop; all of it has 5 s.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);
/// Pause after a failed accept: out of file descriptors is not cured by haste.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Bytes of a bandwidth check that count as one more request.
const BYTES_PER_CHARGE: usize = 64 * 1024;
/// What a connection gets for which there is no place.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    content-type: application/problem+json\r\ncontent-length: 103\r\n\
    retry-after: 5\r\nconnection: close\r\n\r\n\
    {\"type\":\"about:blank\",\"title\":\"Service Unavailable\",\"status\":503,\
    \"detail\":\"all connections are in use\"}";

/// Where callers come in.
pub(crate) struct Door {
    pub(crate) listener: TcpListener,
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) trusted_proxies: Vec<Network>,
}

/// What all connections share.
struct App {
    state: Arc<State>,
    router: Router,
    tls: Option<TlsAcceptor>,
    trusted: Vec<Network>,
    places: Mutex<Places>,
    stop: CancellationToken,
}

/// Who has how many connections.
#[derive(Default)]
struct Places {
    all: usize,
    by_caller: BTreeMap<IpAddr, u32>,
}

/// A connection's place; dropped, it is free again.
struct Place {
    app: Arc<App>,
    who: Option<IpAddr>,
}

impl Place {
    fn take(app: &Arc<App>, peer: IpAddr) -> Option<Self> {
        let is_proxy = app.trusted.iter().any(|network| network.contains(peer));
        let who = subject(peer).filter(|_| !is_proxy);
        let mut places = lock(&app.places);
        if places.all >= CONNECTIONS_MAX {
            return None;
        }
        if let Some(who) = who {
            let count = places.by_caller.entry(who).or_insert(0);
            if *count >= CONNECTIONS_PER_CALLER {
                return None;
            }
            *count += 1;
        }
        places.all += 1;
        app.state.metrics.connections.inc();
        let app = Arc::clone(app);
        Some(Self { app, who })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = lock(&self.app.places);
        places.all -= 1;
        if let Some(who) = self.who
            && let Some(count) = places.by_caller.get_mut(&who)
        {
            *count -= 1;
            if *count == 0 {
                places.by_caller.remove(&who);
            }
        }
        self.app.state.metrics.connections.dec();
    }
}

/// Serves until `stop`, then lets answers end for [`STOP_TIMEOUT`].
pub(crate) async fn serve(door: Door, state: Arc<State>, stop: CancellationToken) {
    let tasks = TaskTracker::new();
    let kill = CancellationToken::new();
    let app = Arc::new(App {
        router: api::router(Arc::clone(&state)),
        state,
        tls: door.tls,
        trusted: door.trusted_proxies,
        places: Mutex::default(),
        stop: stop.clone(),
    });
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = door.listener.accept() => accepted,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "http cannot accept");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(place) = Place::take(&app, peer.ip().to_canonical()) else {
            debug!(%peer, "http connection refused: no place");
            app.state.metrics.connections_refused.inc();
            // As much as the socket takes at once: waiting would need a place. Over TLS
            // nobody could read it.
            if app.tls.is_none() {
                let _ = socket.try_write(FULL);
            }
            continue;
        };
        let kill = kill.clone();
        tasks.spawn(async move {
            tokio::select! {
                _ = timeout(LIFE_MAX, connection(socket, peer, Arc::clone(&place.app))) => {}
                () = kill.cancelled() => {}
            }
            drop(place);
        });
    }
    drop(door.listener);
    tasks.close();
    if timeout(STOP_TIMEOUT, tasks.wait()).await.is_err() {
        info!("http connections are cut: astral-web stops");
        kill.cancel();
        tasks.wait().await;
    }
}

async fn connection(socket: TcpStream, peer: SocketAddr, app: Arc<App>) {
    let _ = socket.set_nodelay(true);
    let Some(tls) = &app.tls else {
        return exchange(socket, peer, app).await;
    };
    match timeout(HANDSHAKE_TIMEOUT, tls.accept(socket)).await {
        Ok(Ok(socket)) => exchange(socket, peer, app).await,
        Ok(Err(error)) => debug!(%peer, %error, "no https with this caller"),
        Err(_) => debug!(%peer, "no https with this caller: the handshake takes too long"),
    }
}

async fn exchange(
    socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    app: Arc<App>,
) {
    let stop = app.stop.clone();
    let service = service_fn(move |request| answer(Arc::clone(&app), peer.ip(), request));
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
    app: Arc<App>,
    peer: IpAddr,
    request: Request<Incoming>,
) -> Result<Response, Infallible> {
    let (mut parts, body) = request.into_parts();
    let area = Area::of(parts.uri.path());
    let from = caller(peer, &parts.headers, &app.trusted);
    debug!(method = %parts.method, path = parts.uri.path(), caller = %from.0, "http");
    parts.extensions.insert(from);
    if let Some(site) = site(peer, &parts, app.tls.is_some(), &app.trusted) {
        parts.extensions.insert::<caller::Site>(site);
    }
    let public = area == Area::Api && matches!(parts.method, Method::GET | Method::HEAD);
    let charged = {
        let (charge, count) = (Charge::Request, cost(&parts));
        app.state
            .limits
            .charge(charge, from.0, count, Instant::now())
    };
    // A body is read before the answer: if it were left, the connection would end with it,
    // and whatever the caller has sent behind it.
    let checks_bandwidth = parts.method == Method::POST && parts.uri.path().ends_with("/ping");
    let body = if checks_bandwidth && charged.is_ok() {
        Ok(Body::new(body))
    } else {
        body::whole(Body::new(body)).await.map(Body::from)
    };
    let response = match (charged, body) {
        (Err(wait), _) => {
            app.state.metrics.limited.inc();
            Failure::too_many("this address asks too much", wait).into_response()
        }
        (Ok(()), Err(failure)) => failure.into_response(),
        (Ok(()), Ok(_)) if area == Area::Api && is_preflight(&parts) => preflight(),
        (Ok(()), Ok(body)) => {
            let request = Request::from_parts(parts, body);
            app.router.clone().oneshot(request).await?
        }
    };
    let response = dress(problem::normalise(response), public);
    app.state
        .metrics
        .answered(area.name(), response.status().as_u16());
    Ok(response)
}

/// What a path is, for counting and CORS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Area {
    Api,
    Probe,
    Page,
}

impl Area {
    fn of(path: &str) -> Self {
        match path {
            "/health" | "/ready" | "/metrics" => Self::Probe,
            "/openapi.json" => Self::Api,
            path if path.starts_with("/api/") => Self::Api,
            _ => Self::Page,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Probe => "probe",
            Self::Page => "page",
        }
    }
}

/// What a request counts for: a bandwidth check as much as it carries.
fn cost(parts: &Parts) -> u32 {
    if !parts.uri.path().ends_with("/ping") {
        return 1;
    }
    let asked = parts.uri.query().and_then(|query| {
        let pairs = query.split('&');
        pairs.filter_map(|pair| pair.strip_prefix("bytes=")).next()
    });
    let sent = parts.headers.get(CONTENT_LENGTH);
    let sent = sent.and_then(|length| length.to_str().ok());
    let bytes = |text: Option<&str>| text.and_then(|text| text.parse::<usize>().ok());
    let bytes = bytes(asked).unwrap_or(0).max(bytes(sent).unwrap_or(0));
    let most = astral_proto::api::PING_BYTES_MAX;
    let chunked = parts.method == Method::POST && sent.is_none();
    let bytes = if chunked { most } else { bytes.min(most) };
    1 + u32::try_from(bytes / BYTES_PER_CHARGE).unwrap_or(u32::MAX)
}

fn is_preflight(parts: &Parts) -> bool {
    parts.method == Method::OPTIONS && parts.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// Reading is for everybody's pages (Fetch §3.2.2); writing is for nodes.
fn preflight() -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    for (name, value) in [
        (ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD"),
        (ACCESS_CONTROL_ALLOW_HEADERS, "if-none-match"),
        (ACCESS_CONTROL_MAX_AGE, "7200"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Puts on what every answer carries; pages have a policy of their own already.
fn dress(mut response: Response, public: bool) -> Response {
    let headers = response.headers_mut();
    let nothing = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
    headers.entry(CONTENT_SECURITY_POLICY).or_insert(nothing);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if public {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        headers.insert(
            ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static("etag, retry-after"),
        );
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_of_a_full_server_has_the_length_it_claims() {
        let text = std::str::from_utf8(FULL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let length = format!("content-length: {}\r\n", body.len());
        assert!(head.contains(&length), "{}", body.len());
        let problem: astral_proto::api::Problem = serde_json::from_str(body).unwrap();
        assert_eq!(problem.status, 503);
    }

    #[test]
    fn bandwidth_check_counts_for_what_it_carries() {
        let cost = |method: &str, path: &str, length: Option<&str>| {
            let mut request = Request::builder().method(method).uri(path);
            if let Some(length) = length {
                request = request.header(CONTENT_LENGTH, length);
            }
            cost(&request.body(()).unwrap().into_parts().0)
        };
        assert_eq!(cost("GET", "/api/v1/streams", None), 1);
        assert_eq!(cost("GET", "/api/v1/ping?bytes=8388608", None), 129);
        assert_eq!(cost("GET", "/api/v1/ping?bytes=99999999999", None), 129);
        assert_eq!(cost("POST", "/api/v1/ping", Some("65536")), 2);
        assert_eq!(cost("POST", "/api/v1/ping", None), 129);
    }
}
