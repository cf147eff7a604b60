//! Bodies and queries of requests, read strictly and within bounds.

use std::time::Duration;

use astral_proto::api::PING_BYTES_MAX;
use astral_proto::api::web::Submission;
use axum::body::Body;
use axum::extract::Query;
use data_encoding::BASE64URL_NOPAD;
use http_body_util::BodyExt as _;
use hyper::header::CONTENT_TYPE;
use hyper::{HeaderMap, StatusCode, Uri};
use serde::de::{DeserializeOwned, IgnoredAny};
use tokio::time::timeout;

use super::problem::Failure;

/// Longest submission: a record of 4 KiB in base64url, and room for spaces.
const SUBMISSION_BYTES_MAX: usize = 16 * 1024;
/// Longest that a submission may take to come.
const SUBMISSION_TIMEOUT: Duration = Duration::from_secs(10);
/// Most that is read of a body beyond its limit.
const LINGER_BYTES_MAX: usize = 1024 * 1024;
/// Longest that a bandwidth check may take to come.
const PING_TIMEOUT: Duration = Duration::from_secs(60);

/// A body in memory, as every route but the bandwidth check gets it.
///
/// # Errors
/// 413, 408; 400 if it breaks off.
pub(super) async fn whole(body: Body) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let body = read(body, SUBMISSION_BYTES_MAX, |data| {
        bytes.extend_from_slice(data);
    });
    let late = |_| Failure::new(StatusCode::REQUEST_TIMEOUT, "the body did not come");
    timeout(SUBMISSION_TIMEOUT, body).await.map_err(late)??;
    Ok(bytes)
}

/// The record of a submission, as it travels.
///
/// # Errors
/// 415; 400 for what is not JSON or base64url; 422 for JSON that does not fit.
pub(super) fn record(headers: &HeaderMap, body: &[u8]) -> Result<Vec<u8>, Failure> {
    let kind = headers.get(CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or("");
    let essence = kind.split(';').next().unwrap_or("").trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        let detail = "this route takes content-type: application/json";
        return Err(Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    parse(body)
}

fn parse(body: &[u8]) -> Result<Vec<u8>, Failure> {
    let malformed = |detail: String| Failure::new(StatusCode::BAD_REQUEST, detail);
    // What is wrong with the form comes before what is wrong with the content.
    serde_json::from_slice::<IgnoredAny>(body)
        .map_err(|error| malformed(format!("the body is not JSON: {error}")))?;
    let submission: Submission =
        serde_json::from_slice(body).map_err(|error| Failure::unacceptable(error.to_string()))?;
    BASE64URL_NOPAD
        .decode(submission.record.as_bytes())
        .map_err(|error| malformed(format!("`record` is not base64url: {error}")))
}

/// How many bytes a bandwidth check has sent.
///
/// # Errors
/// 413, 408.
pub(super) async fn count(body: Body) -> Result<u64, Failure> {
    let counting = read(body, PING_BYTES_MAX, |_| ());
    let late = || Failure::new(StatusCode::REQUEST_TIMEOUT, "the body did not come");
    timeout(PING_TIMEOUT, counting).await.map_err(|_| late())?
}

/// Reads a body to its end, gives its pieces to `take` while they are within `most`
/// bytes, and tells its length.
///
/// What is over is read for a while, too: a client that still writes when the connection
/// closes would see that instead of the answer.
///
/// # Errors
/// 413; 400 if it breaks off.
async fn read(mut body: Body, most: usize, mut take: impl FnMut(&[u8])) -> Result<u64, Failure> {
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| Failure::new(StatusCode::BAD_REQUEST, error.to_string()))?;
        let Some(data) = frame.data_ref() else {
            continue;
        };
        bytes += data.len();
        if bytes <= most {
            take(data);
        } else if bytes > most.saturating_add(LINGER_BYTES_MAX) {
            break;
        }
    }
    if bytes > most {
        let detail = format!("a body has at most {most} bytes here");
        return Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
    }
    Ok(bytes as u64)
}

/// The query of a request.
///
/// # Errors
/// 422 if it does not fit.
pub(super) fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Failure> {
    match Query::try_from_uri(uri) {
        Ok(Query(query)) => Ok(query),
        Err(error) => Err(Failure::unacceptable(error.body_text())),
    }
}
