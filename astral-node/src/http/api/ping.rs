//! `/ping`: round trip and bandwidth, in both directions.
//!
//! Neither changes anything, so neither needs the token on loopback.

use std::sync::Arc;
use std::time::{Duration, Instant};

use astral_proto::api::{PING_BYTES_MAX, Ping};
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use http_body_util::BodyExt as _;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE};
use hyper::{StatusCode, Uri};
use serde::Deserialize;
use tokio::time::timeout;

use super::super::extract::query;
use super::super::live::egress::Egress;
use super::super::problem::Failure;
use super::super::{App, Caller};
use super::json;

/// Bytes sent at a time.
const PIECE: usize = 64 * 1024;
/// Longest that a check may take.
const TAKE_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    #[serde(default)]
    bytes: usize,
}

/// `GET /ping?bytes=N`.
#[utoipa::path(
    get,
    path = "/api/v1/ping",
    params(
        ("bytes" = Option<u32>, Query, maximum = 8388608, description = "How many; none unless given"),
    ),
    responses((status = 200, description = "So many bytes", content_type = "application/octet-stream", body = Vec<u8>)),
)]
pub(in super::super) async fn send(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
) -> Result<Response, Failure> {
    let Wish { bytes } = query(&uri)?;
    if bytes > PING_BYTES_MAX {
        return Err(too_large());
    }
    let egress = Egress::new(&app, &caller);
    let zeros = stream::unfold((bytes, egress), |(left, egress)| async move {
        let len = left.min(PIECE);
        if len == 0 {
            return None;
        }
        egress.charge(0, len).await;
        let piece = Bytes::from_static(&[0; PIECE]).slice(..len);
        Some((Ok::<_, std::io::Error>(piece), (left - len, egress)))
    });
    let headers = [
        (CONTENT_TYPE, "application/octet-stream".to_owned()),
        (CONTENT_LENGTH, bytes.to_string()),
    ];
    Ok((headers, Body::from_stream(zeros)).into_response())
}

/// `POST /ping`: counts the body.
#[utoipa::path(
    post,
    path = "/api/v1/ping",
    request_body(content = Option<Vec<u8>>, content_type = "application/octet-stream", description = "At most 8 MiB"),
    responses((status = 200, description = "How many bytes came, and how long that took", body = Ping)),
)]
pub(in super::super) async fn take(body: Body) -> Result<Response, Failure> {
    let start = Instant::now();
    let count = timeout(TAKE_TIMEOUT, count(body)).await;
    let late = |_| Failure::new(StatusCode::REQUEST_TIMEOUT, "the body did not come");
    let ping = Ping {
        bytes: count.map_err(late)?? as u64,
        elapsed_ms: u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
    };
    Ok(json(StatusCode::OK, &ping))
}

async fn count(mut body: Body) -> Result<usize, Failure> {
    use hyper::body::Body as _;
    let mut bytes = 0;
    if body.size_hint().lower() > PING_BYTES_MAX as u64 {
        return Err(too_large());
    }
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failure::malformed(error.to_string()))?;
        bytes += frame.data_ref().map_or(0, Bytes::len);
        if bytes > PING_BYTES_MAX {
            return Err(too_large());
        }
    }
    Ok(bytes)
}

fn too_large() -> Failure {
    Failure::too_large(format!("a check has at most {PING_BYTES_MAX} bytes"))
}
