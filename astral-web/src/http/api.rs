//! The routes.

use std::cmp::Reverse;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use astral_proto::api::web::{Accepted, Bootstrap, WebNode, WebStream};
use astral_proto::api::{LIMIT_DEFAULT, LIMIT_MAX, List, PING_BYTES_MAX, Ping, Role};
use astral_proto::ids::sha256;
use astral_proto::record::{self, SignedNode, SignedStream};
use axum::body::Body;
use axum::extract::{Extension, Path, State as Shared};
use axum::http::{HeaderMap, HeaderValue, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use data_encoding::HEXLOWER;
use hyper::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use hyper::{Request, StatusCode};
use serde::Deserialize;
use uuid::Uuid;

use super::Caller;
use super::body::{self, query};
use super::problem::Failure;
use super::show::{self, Shelf};
use crate::catalog::{Found, Kind, LEASE_MS, Row, Taken};
use crate::state::{State, WINDOW, now_ms};

/// Streams in a bootstrap answer.
const BOOTSTRAP_STREAMS_MAX: usize = 100;
/// [`LEASE_MS`] in seconds.
const LEASE_S: u32 = 30;
const _: () = assert!(LEASE_S as u64 * 1000 == LEASE_MS);

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
    Router::new()
        .route("/health", get(async || "ok\n"))
        // The directory is read before the listener opens.
        .route("/ready", get(async || "ready\n"))
        .nest("/api/v1", api)
        .with_state(state)
}

async fn bootstrap(
    Shared(state): Web,
    Extension(Caller(caller)): Extension<Caller>,
    headers: HeaderMap,
) -> Response {
    let answer = {
        let (catalog, now) = (state.catalog(), now_ms());
        let shelf = Shelf::new(&catalog, caller, now);
        let mut rows: Vec<_> = catalog.streams(None, now).collect();
        rows.sort_by_key(|row| {
            let record = row.record.value();
            (Reverse(record.viewers), record.id())
        });
        rows.truncate(BOOTSTRAP_STREAMS_MAX);
        Bootstrap {
            address: caller.to_string(),
            supernodes: show::supernodes(&catalog, caller, now),
            streams: rows.into_iter().map(|row| shelf.stream(row)).collect(),
            lease_s: LEASE_S,
        }
    };
    let body = serde_json::to_vec(&answer).expect("an answer is text and numbers");
    let tag = format!("\"{}\"", HEXLOWER.encode(&sha256(&body)[..16]));
    let known = headers
        .get(IF_NONE_MATCH)
        .and_then(|tags| tags.to_str().ok());
    let known = known.is_some_and(|tags| {
        tags.split(',')
            .any(|t| matches!(t.trim(), "*") || t.trim().trim_start_matches("W/") == tag)
    });
    let mut response = if known {
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Paging {
    limit: Option<usize>,
    after: Option<String>,
    role: Option<Role>,
}

impl Paging {
    fn of(uri: &Uri) -> Result<(Self, usize, Option<(String, Uuid)>), Failure> {
        let paging: Self = query(uri)?;
        let limit = paging.limit.unwrap_or(LIMIT_DEFAULT);
        if limit == 0 || limit > LIMIT_MAX {
            return Err(Failure::unacceptable(format!(
                "`limit` is 1 to {LIMIT_MAX}"
            )));
        }
        let wrong = || Failure::unacceptable("`after` is not a cursor of this list");
        let read = |cursor: &String| {
            let json = HEXLOWER.decode(cursor.as_bytes()).ok()?;
            serde_json::from_slice(&json).ok()
        };
        let after = paging
            .after
            .as_ref()
            .map(|cursor| read(cursor).ok_or_else(wrong));
        let after = after.transpose()?;
        Ok((paging, limit, after))
    }
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

async fn nodes(
    Shared(state): Web,
    Extension(Caller(caller)): Extension<Caller>,
    uri: Uri,
) -> Result<Json<List<WebNode>>, Failure> {
    let (paging, limit, after) = Paging::of(&uri)?;
    let catalog = state.catalog();
    let wanted = paging.role.map(|role| match role {
        Role::Node => record::Role::Node,
        Role::Supernode => record::Role::Supernode,
    });
    let rows = catalog.nodes_for(caller.is_loopback(), after, now_ms());
    let rows = rows.filter(|row| wanted.is_none_or(|role| row.record.value().role == role));
    Ok(Json(page(rows, limit, show::node)))
}

async fn streams(
    Shared(state): Web,
    Extension(Caller(caller)): Extension<Caller>,
    uri: Uri,
) -> Result<Json<List<WebStream>>, Failure> {
    let (paging, limit, after) = Paging::of(&uri)?;
    if paging.role.is_some() {
        return Err(Failure::unacceptable("streams have no `role`"));
    }
    let (catalog, now) = (state.catalog(), now_ms());
    let shelf = Shelf::new(&catalog, caller, now);
    Ok(Json(page(catalog.streams(after, now), limit, |row| {
        shelf.stream(row)
    })))
}

async fn stream(
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
    let (catalog, now) = (state.catalog(), now_ms());
    match catalog.find(slug, now) {
        Found::One(row) => Ok(Shelf::new(&catalog, caller, now).stream(row)),
        Found::Many(candidates) => Err(Failure::ambiguous(candidates)),
        Found::Nothing => Err(Failure::new(
            StatusCode::NOT_FOUND,
            "no stream of this name is known here",
        )),
    }
}

async fn submit_node(
    Shared(state): Web,
    Extension(Caller(caller)): Extension<Caller>,
    request: Request<Body>,
) -> Result<Response, Failure> {
    admitted(&state, caller)?;
    let taken = async {
        let record = SignedNode::decode(&body::record(request).await?)?;
        let lease = if record.value().is_tombstone() {
            0
        } else {
            LEASE_S
        };
        Ok((state.submit_node(record, caller).await?, lease))
    };
    accepted(&state, caller, taken.await)
}

async fn submit_stream(
    Shared(state): Web,
    Extension(Caller(caller)): Extension<Caller>,
    request: Request<Body>,
) -> Result<Response, Failure> {
    admitted(&state, caller)?;
    let taken = async {
        let record = SignedStream::decode(&body::record(request).await?)?;
        let lease = if record.value().is_tombstone() {
            0
        } else {
            LEASE_S
        };
        Ok((state.submit_stream(record, caller).await?, lease))
    };
    accepted(&state, caller, taken.await)
}

fn admitted(state: &State, caller: IpAddr) -> Result<(), Failure> {
    if state.is_barred(caller) {
        let detail = "too many refused submissions came from this address";
        return Err(Failure::new(StatusCode::TOO_MANY_REQUESTS, detail).after(WINDOW.as_secs()));
    }
    Ok(())
}

fn accepted(
    state: &State,
    caller: IpAddr,
    taken: Result<(Taken, u32), Failure>,
) -> Result<Response, Failure> {
    let (taken, lease_s) = taken.inspect_err(|_| state.failed(caller))?;
    let status = match taken {
        Taken::New if lease_s > 0 => StatusCode::CREATED,
        Taken::New | Taken::Renewed => StatusCode::OK,
    };
    let accepted = Accepted {
        lease_s,
        address: caller.to_string(),
    };
    Ok((status, Json(accepted)).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Size {
    bytes: Option<usize>,
}

async fn pong(uri: Uri) -> Result<Response, Failure> {
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

async fn ping(request: Request<Body>) -> Result<Json<Ping>, Failure> {
    let begun = Instant::now();
    let bytes = body::count(request.into_body()).await?;
    let elapsed_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(Json(Ping { bytes, elapsed_ms }))
}
