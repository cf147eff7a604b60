//! The routes of the API.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use astral_proto::api::Problem;
use astral_proto::api::web::{Accepted, Bootstrap, Submission, WebNode, WebStream};
use astral_proto::api::{LIMIT_DEFAULT, LIMIT_MAX, List, PING_BYTES_MAX, Ping, Role};
use astral_proto::ids::sha256;
use astral_proto::record::{self, SignedNode, SignedStream};
use axum::body::{Body, Bytes};
use axum::extract::{Extension, Path, State as Shared};
use axum::http::{HeaderMap, HeaderValue, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use data_encoding::HEXLOWER;
use hyper::header::{ACCEPT, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use hyper::{Request, StatusCode};
use serde::Deserialize;

use super::body::{self, query};
use super::caller::Caller;
use super::problem::Failure;
use super::show::{self, Shelf};
use super::{openapi, pages};
use crate::catalog::{Found, Kind, LEASE_MS, Place, Row, Taken};
use crate::limits::Charge;
use crate::state::State;

/// Streams in a bootstrap answer.
const BOOTSTRAP_STREAMS_MAX: usize = 100;
/// [`LEASE_MS`] in seconds.
const LEASE_S: u32 = 30;
const _: () = assert!(LEASE_S as u64 * 1000 == LEASE_MS);

/// Names that are suggested for one that is not known.
const SUGGESTIONS_MAX: usize = 3;

/// What a bandwidth check is made of; one piece for all of them.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

type Web = Shared<Arc<State>>;

pub(super) fn router(state: Arc<State>) -> Router {
    let api = Router::new()
        .route("/bootstrap", get(bootstrap))
        .route("/nodes", get(nodes).post(submit_node))
        .route("/streams", get(streams).post(submit_stream))
        .route("/streams/{slug}", get(stream))
        .route("/ping", get(pong).post(ping));
    pages::router()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/openapi.json", get(openapi::document))
        .nest("/api/v1", api)
        .with_state(state)
}

/// Whether it is alive.
#[utoipa::path(get, path = "/health", tag = "probes",
    responses((status = 200, description = "It is", body = String, content_type = "text/plain")))]
pub(super) async fn health() -> &'static str {
    "ok\n"
}

/// Whether it serves: the directory is read before the listener opens.
#[utoipa::path(get, path = "/ready", tag = "probes",
    responses((status = 200, description = "It does", body = String, content_type = "text/plain")))]
pub(super) async fn ready() -> &'static str {
    "ready\n"
}

/// Counters for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "probes",
    responses((status = 200, description = "Metrics; OpenMetrics if `Accept` names it", content(
        (String = "text/plain; version=0.0.4; charset=utf-8"),
        (String = "application/openmetrics-text; version=1.0.0; charset=utf-8")))))]
pub(super) async fn metrics(Shared(state): Web, headers: HeaderMap) -> Result<Response, Failure> {
    let text = state.metrics.text(&state.catalog());
    let text = text.ok_or_else(|| {
        let detail = "the metrics are not readable";
        Failure::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    })?;
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    let (kind, text) = astral_proto::api::metrics::answer(text, accept);
    Ok(([(CONTENT_TYPE, kind)], text).into_response())
}

/// What a node needs to begin: supernodes, streams, and its address as it is seen here.
#[utoipa::path(get, path = "/api/v1/bootstrap", tag = "bootstrap",
    params(("if-none-match" = Option<String>, Header,
        description = "The `etag` of an earlier answer")),
    responses(
        (status = 200, description = "As things are", body = Bootstrap,
            headers(("etag" = String, description = "Names this answer"))),
        (status = 304, description = "As in the answer of that `etag`"),
        (status = 429, description = "The caller asks too much", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn bootstrap(
    Shared(state): Web,
    Extension(Caller(caller)): Extension<Caller>,
    headers: HeaderMap,
) -> Response {
    let answer = {
        let catalog = state.catalog();
        let shelf = Shelf::new(&catalog, caller);
        let top = catalog.top_streams().take(BOOTSTRAP_STREAMS_MAX);
        let streams = top.map(|row| shelf.stream(row)).collect();
        Bootstrap {
            address: caller.to_string(),
            supernodes: shelf.supernodes,
            streams,
            lease_s: LEASE_S,
        }
    };
    let body = serde_json::to_vec(&answer).expect("an answer is text and numbers");
    let tag = format!("\"{}\"", HEXLOWER.encode(&sha256(&body)[..16]));
    let mut response = if is_known(&headers, &tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(CONTENT_TYPE, "application/json")], body).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    headers.insert(
        ETAG,
        HeaderValue::from_str(&tag).expect("hexadecimal is a header value"),
    );
    response
}

/// Whether the caller has the answer of this `ETag` (RFC 9110 §13.1.2).
fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let mut fields = headers.get_all(IF_NONE_MATCH).iter();
    fields.any(|tags| {
        let mut tags = tags.to_str().unwrap_or("").split(',').map(str::trim);
        tags.any(|known| known == "*" || known.trim_start_matches("W/") == tag)
    })
}

/// Which part of a list.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct NodesQuery {
    /// Items of a page; 1 to 1,000, default 100.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// `next` of the page before.
    after: Option<String>,
    /// Only such nodes.
    #[param(inline)]
    role: Option<Role>,
}

/// Which part of a list.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct StreamsQuery {
    /// Items of a page; 1 to 1,000, default 100.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// `next` of the page before.
    after: Option<String>,
}

/// Checks what a list is asked for.
fn paging(limit: Option<usize>, after: Option<&str>) -> Result<(usize, Option<Place>), Failure> {
    let limit = limit.unwrap_or(LIMIT_DEFAULT);
    if limit == 0 || limit > LIMIT_MAX {
        return Err(Failure::unacceptable(format!(
            "`limit` is 1 to {LIMIT_MAX}"
        )));
    }
    let wrong = || Failure::unacceptable("`after` is not a cursor of this list");
    let read = |cursor: &str| {
        let json = HEXLOWER.decode(cursor.as_bytes()).ok()?;
        serde_json::from_slice(&json).ok()
    };
    let after = after.map(|cursor| read(cursor).ok_or_else(wrong));
    Ok((limit, after.transpose()?))
}

/// The first `limit` rows, and a cursor that is the last one's place in the order: what
/// comes or goes between two pages shifts nothing.
fn page<'a, T: Kind + 'a, S>(
    rows: impl Iterator<Item = &'a Row<T>>,
    limit: usize,
    show: impl Fn(&Row<T>) -> S,
) -> List<S> {
    let mut rows: Vec<_> = rows.take(limit + 1).collect();
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| more).map(|row| {
        let record = row.record.value();
        let place = serde_json::to_vec(&(record.name(), record.uuid()));
        HEXLOWER.encode(&place.expect("two strings are JSON"))
    });
    List {
        items: rows.into_iter().map(show).collect(),
        next,
    }
}

/// Nodes that are listed; addresses of supernodes only.
#[utoipa::path(get, path = "/api/v1/nodes", tag = "nodes", params(NodesQuery),
    responses(
        (status = 200, description = "A page of them, by name, then id", body = List<WebNode>),
        (status = 422, description = "A parameter is none", body = Problem,
            content_type = "application/problem+json"),
        (status = 429, description = "The caller asks too much", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn nodes(
    Shared(state): Web,
    Extension(Caller(caller)): Extension<Caller>,
    uri: Uri,
) -> Result<Json<List<WebNode>>, Failure> {
    let asked: NodesQuery = query(&uri)?;
    let (limit, after) = paging(asked.limit, asked.after.as_deref())?;
    let catalog = state.catalog();
    let wanted = asked.role.map(|role| match role {
        Role::Node => record::Role::Node,
        Role::Supernode => record::Role::Supernode,
    });
    let rows = catalog.nodes_for(caller.is_loopback(), after);
    let rows = rows.filter(|row| wanted.is_none_or(|role| row.record.value().role == role));
    Ok(Json(page(rows, limit, show::node)))
}

/// Listed streams.
#[utoipa::path(get, path = "/api/v1/streams", tag = "streams", params(StreamsQuery),
    responses(
        (status = 200, description = "A page of them, by name, then id", body = List<WebStream>),
        (status = 422, description = "A parameter is none", body = Problem,
            content_type = "application/problem+json"),
        (status = 429, description = "The caller asks too much", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn streams(
    Shared(state): Web,
    Extension(Caller(caller)): Extension<Caller>,
    uri: Uri,
) -> Result<Json<List<WebStream>>, Failure> {
    let asked: StreamsQuery = query(&uri)?;
    let (limit, after) = paging(asked.limit, asked.after.as_deref())?;
    let catalog = state.catalog();
    let shelf = Shelf::new(&catalog, caller);
    Ok(Json(page(catalog.streams(after), limit, |row| {
        shelf.stream(row)
    })))
}

/// One stream, by its slug or id; an unlisted one by its id only.
#[utoipa::path(get, path = "/api/v1/streams/{slug}", tag = "streams",
    params(("slug" = String, Path, description = "Slug, slug with a suffix, or id")),
    responses(
        (status = 200, description = "The stream", body = WebStream),
        (status = 400, description = "Not UTF-8", body = Problem,
            content_type = "application/problem+json"),
        (status = 404, description = "None of this name; `candidates` are near ones", body = Problem,
            content_type = "application/problem+json"),
        (status = 409, description = "Several; `candidates` has their ids", body = Problem,
            content_type = "application/problem+json"),
        (status = 429, description = "The caller asks too much", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn stream(
    Shared(state): Web,
    Extension(Caller(caller)): Extension<Caller>,
    Path(slug): Path<String>,
) -> Result<Json<WebStream>, Failure> {
    find(&state, caller, &slug).map(Json)
}

/// The stream that a slug or an id names.
///
/// # Errors
/// 404; 409 if it names several.
pub(super) fn find(state: &State, caller: IpAddr, slug: &str) -> Result<WebStream, Failure> {
    let catalog = state.catalog();
    match catalog.find(slug) {
        Found::One(row) => Ok(Shelf::new(&catalog, caller).stream(row)),
        Found::Many(candidates) => Err(Failure::ambiguous(candidates)),
        Found::Nothing => Err(Failure::unknown_stream(catalog.near(slug, SUGGESTIONS_MAX))),
    }
}

/// Lists a node, renews its lease, or takes it off (a tombstone).
#[utoipa::path(post, path = "/api/v1/nodes", tag = "nodes", request_body = Submission,
    responses(
        (status = 200, description = "Renewed, or taken off", body = Accepted),
        (status = 201, description = "Listed", body = Accepted),
        (status = 400, description = "Not JSON, not base64url, no record", body = Problem,
            content_type = "application/problem+json"),
        (status = 408, description = "The body did not come", body = Problem,
            content_type = "application/problem+json"),
        (status = 409, description = "This `seq` or a higher one is known", body = Problem,
            content_type = "application/problem+json"),
        (status = 413, description = "Too large", body = Problem,
            content_type = "application/problem+json"),
        (status = 415, description = "Not application/json", body = Problem,
            content_type = "application/problem+json"),
        (status = 422, description = "Forged, or an address that is not the caller's",
            body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "The caller or its network has too many", body = Problem,
            content_type = "application/problem+json"),
        (status = 503, description = "The directory is full", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn submit_node(
    Shared(state): Web,
    Extension(Caller(caller)): Extension<Caller>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let taken = async {
        admitted(&state, caller)?;
        let record = SignedNode::decode(&body::record(&headers, &body)?)?;
        let lease_s = lease_of(record.value());
        Ok((state.submit_node(record, caller).await?, lease_s))
    };
    answered(&state, "node", caller, taken.await)
}

/// Lists a stream, renews its lease, or takes it off (a tombstone).
#[utoipa::path(post, path = "/api/v1/streams", tag = "streams", request_body = Submission,
    responses(
        (status = 200, description = "Renewed, or taken off", body = Accepted),
        (status = 201, description = "Listed", body = Accepted),
        (status = 400, description = "Not JSON, not base64url, no record", body = Problem,
            content_type = "application/problem+json"),
        (status = 408, description = "The body did not come", body = Problem,
            content_type = "application/problem+json"),
        (status = 409, description = "This `seq` or a higher one is known", body = Problem,
            content_type = "application/problem+json"),
        (status = 413, description = "Too large", body = Problem,
            content_type = "application/problem+json"),
        (status = 415, description = "Not application/json", body = Problem,
            content_type = "application/problem+json"),
        (status = 422, description = "Forged", body = Problem,
            content_type = "application/problem+json"),
        (status = 429, description = "The caller or its network has too many", body = Problem,
            content_type = "application/problem+json"),
        (status = 503, description = "The directory is full", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn submit_stream(
    Shared(state): Web,
    Extension(Caller(caller)): Extension<Caller>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let taken = async {
        admitted(&state, caller)?;
        let record = SignedStream::decode(&body::record(&headers, &body)?)?;
        let lease_s = lease_of(record.value());
        Ok((state.submit_stream(record, caller).await?, lease_s))
    };
    answered(&state, "stream", caller, taken.await)
}

fn lease_of(record: &impl Kind) -> u32 {
    if record.is_tombstone() { 0 } else { LEASE_S }
}

fn admitted(state: &State, caller: IpAddr) -> Result<(), Failure> {
    let looked = state.limits.look(Charge::Refusal, caller, Instant::now());
    looked.map_err(|wait| {
        let detail = "too many submissions of this address were refused";
        Failure::too_many(detail, wait)
    })
}

fn answered(
    state: &State,
    kind: &'static str,
    caller: IpAddr,
    taken: Result<(Taken, u32), Failure>,
) -> Response {
    let response = match taken {
        Ok((taken, lease_s)) => {
            let status = match taken {
                Taken::New if lease_s > 0 => StatusCode::CREATED,
                Taken::New | Taken::Renewed => StatusCode::OK,
            };
            let address = caller.to_string();
            (status, Json(Accepted { lease_s, address })).into_response()
        }
        Err(failure) => {
            // Whoever is told to wait does not have to wait longer for it.
            if failure.status() < 500 && failure.status() != 429 {
                let _ = state
                    .limits
                    .charge(Charge::Refusal, caller, 1, Instant::now());
            }
            failure.into_response()
        }
    };
    state.metrics.submitted(kind, response.status().as_u16());
    response
}

/// How much a bandwidth check is to bring.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Size {
    /// Bytes; at most 8 MiB, default 0.
    bytes: Option<usize>,
}

/// Bytes to measure a way down by.
#[utoipa::path(get, path = "/api/v1/ping", tag = "bandwidth", params(Size),
    responses(
        (status = 200, description = "So many zeros", body = [u8],
            content_type = "application/octet-stream"),
        (status = 413, description = "More than 8 MiB", body = Problem,
            content_type = "application/problem+json"),
        (status = 422, description = "A parameter is none", body = Problem,
            content_type = "application/problem+json"),
        (status = 429, description = "The caller asks too much", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn pong(uri: Uri) -> Result<Response, Failure> {
    let Size { bytes } = query(&uri)?;
    let bytes = bytes.unwrap_or(0);
    if bytes > PING_BYTES_MAX {
        let detail = format!("`bytes` is at most {PING_BYTES_MAX}");
        return Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
    }
    let pieces = (0..bytes).step_by(ZEROS.len());
    let pieces = pieces.map(move |at| Ok::<_, Infallible>(&ZEROS[..ZEROS.len().min(bytes - at)]));
    let body = Body::from_stream(futures_util::stream::iter(pieces));
    let headers = [
        (CONTENT_TYPE, "application/octet-stream".to_owned()),
        (CACHE_CONTROL, "no-store".to_owned()),
        (CONTENT_LENGTH, bytes.to_string()),
    ];
    Ok((headers, body).into_response())
}

/// Takes bytes, and tells how many came and how long they took.
#[utoipa::path(post, path = "/api/v1/ping", tag = "bandwidth",
    request_body(content = Option<Vec<u8>>, content_type = "application/octet-stream"),
    responses(
        (status = 200, description = "They came", body = Ping),
        (status = 408, description = "The body did not come", body = Problem,
            content_type = "application/problem+json"),
        (status = 413, description = "More than 8 MiB", body = Problem,
            content_type = "application/problem+json"),
        (status = 429, description = "The caller asks too much", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn ping(request: Request<Body>) -> Result<Json<Ping>, Failure> {
    let begun = Instant::now();
    let bytes = body::count(request.into_body()).await?;
    let elapsed_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(Json(Ping { bytes, elapsed_ms }))
}
