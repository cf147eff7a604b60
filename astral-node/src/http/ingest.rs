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
pub(super) async fn take(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(key): Path<String>,
    body: Body,
) -> Result<StatusCode, Failure> {
    let pieces = pieces(body);
    let outcome = tokio::select! {
        outcome = http::body(app.handle.registry(), &key, caller.peer, pieces) => outcome,
        () = app.stop.cancelled() => return Err(Failure::not_now("the node is stopping")),
    };
    let Err(error) = outcome else {
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
