//! `POST|PUT /ingest/{stream_key}`: an encoder's bytes over HTTP.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use bytes::Bytes;
use futures_util::{Stream, stream};
use http_body_util::BodyExt as _;
use hyper::StatusCode;
use tokio::time::timeout;
use tracing::info;

use super::problem::Failure;
use super::{App, Caller};
use crate::ingest::http::{self, IngestError};

/// Longest silence of an encoder before its connection is given up.
///
/// The stream itself waits for its encoder as long: it is the grace period of DESIGN §4.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Takes a body as long as it goes on; 204 at a clean end.
///
/// The key alone authorises: encoders cannot be taught headers.
#[utoipa::path(
    method(post, put),
    path = "/ingest/{key}",
    params(
        ("key" = String, Path, description = "The stream key"),
    ),
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "Fragmented MP4, MPEG-TS or FLV, told by its bytes; endless"),
    responses((status = 204, description = "The body came to a clean end")),
)]
pub(super) async fn take(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(key): Path<String>,
    body: Body,
) -> Result<StatusCode, Failure> {
    // In a task of its own: an encoder such as ffmpeg closes its connection right behind
    // the end of the body, and this future goes with the connection; its last frames must not.
    let (node, peer) = (Arc::clone(&app), caller.peer);
    let taking = app.tasks.spawn(async move {
        tokio::select! {
            outcome = http::body(node.handle.registry(), &key, peer, pieces(body)) => Some(outcome),
            () = node.stop.cancelled() => None,
        }
    });
    let outcome = match taking.await {
        Ok(Some(outcome)) => outcome,
        Ok(None) => return Err(Failure::not_now("the node is stopping")),
        Err(error) => {
            return Err(Failure::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                error.to_string(),
            ));
        }
    };
    let Err(error) = outcome else {
        info!(peer = %caller.peer, "http encoder has sent all it had");
        return Ok(StatusCode::NO_CONTENT);
    };
    info!(peer = %caller.peer, %error, "http encoder refused");
    Err(failure(&error))
}

fn failure(error: &IngestError) -> Failure {
    let status = match error {
        IngestError::UnknownKey => StatusCode::FORBIDDEN,
        IngestError::Busy(_) | IngestError::Removed => StatusCode::CONFLICT,
        IngestError::Unsupported(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        IngestError::Malformed(_) => StatusCode::UNPROCESSABLE_ENTITY,
        IngestError::Broken(_) => StatusCode::BAD_REQUEST,
        IngestError::Failed(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    Failure::new(status, error.to_string())
}

/// The data of a body, piece by piece as they come, with an end to silence.
fn pieces(body: Body) -> impl Stream<Item = Result<Bytes, axum::Error>> + Send {
    stream::unfold(Some(body), |body| async {
        let mut body = body?;
        loop {
            let frame = match timeout(SILENCE_MAX, body.frame()).await {
                Err(_) => return Some((Err(axum::Error::new("the encoder fell silent")), None)),
                Ok(None) => return None,
                Ok(Some(Err(error))) => return Some((Err(error), None)),
                Ok(Some(Ok(frame))) => frame,
            };
            if let Ok(data) = frame.into_data() {
                return Some((Ok(data), Some(body)));
            }
        }
    })
}
