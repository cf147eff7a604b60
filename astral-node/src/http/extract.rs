//! Bodies and queries of requests, read strictly.
//!
//! 415 for anything but JSON, 413 above [`JSON_BYTES_MAX`], 400 for what is not
//! JSON, 422 for JSON that does not fit: unknown fields, wrong types.

use std::time::Duration;

use axum::extract::{FromRequest, Query, Request};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::header::CONTENT_TYPE;
use hyper::{StatusCode, Uri};
use serde::de::{DeserializeOwned, IgnoredAny};
use tokio::time::timeout;

use super::problem::Failure;

/// Longest JSON body in bytes; a description has at most 1,000 characters.
const JSON_BYTES_MAX: usize = 64 * 1024;
/// Longest that a JSON body may take to come.
const JSON_TIMEOUT: Duration = Duration::from_secs(10);

/// A JSON body.
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for Json<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        let kind = request
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|v| v.to_str().ok());
        if !kind.is_some_and(is_json) {
            return Err(Failure::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "this route takes content-type: application/json",
            ));
        }
        let body = Limited::new(request.into_body(), JSON_BYTES_MAX).collect();
        let body = match timeout(JSON_TIMEOUT, body).await {
            Err(_) => {
                return Err(Failure::new(
                    StatusCode::REQUEST_TIMEOUT,
                    "the body did not come",
                ));
            }
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                return Err(Failure::too_large(format!(
                    "a body has at most {JSON_BYTES_MAX} bytes"
                )));
            }
            Ok(Err(error)) => return Err(Failure::malformed(error.to_string())),
            Ok(Ok(body)) => body.to_bytes(),
        };
        parse(&body).map(Self)
    }
}

fn is_json(kind: &str) -> bool {
    let essence = kind.split(';').next().unwrap_or("").trim();
    essence.eq_ignore_ascii_case("application/json")
}

/// Reads twice: what is wrong with the form comes before what is wrong with the content.
fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice::<IgnoredAny>(body)
        .map_err(|error| Failure::malformed(format!("the body is not JSON: {error}")))?;
    serde_json::from_slice(body).map_err(|error| Failure::unacceptable(error.to_string()))
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
