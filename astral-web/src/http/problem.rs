//! Every refusal as `application/problem+json` (RFC 9457).

use std::time::Duration;

use astral_proto::api::Problem;
use astral_proto::record::RecordError;
use axum::response::{IntoResponse, Response};
use hyper::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{HeaderMap, StatusCode};

use crate::catalog::{LEASE_MS, Refusal};

/// Media type of a problem.
const PROBLEM_JSON: &str = "application/problem+json";
/// When a place may have become free.
const LEASE: Duration = Duration::from_millis(LEASE_MS);

/// A request that is not fulfilled.
#[derive(Debug)]
pub(super) struct Failure {
    problem: Box<Problem>,
    retry_after_s: Option<u64>,
}

impl Failure {
    /// A failure of this status; `detail` says what was wrong and what would help.
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            problem: Box::new(Problem {
                kind: "about:blank".to_owned(),
                title: status.canonical_reason().unwrap_or("Error").to_owned(),
                status: status.as_u16(),
                detail: detail.into(),
                candidates: Vec::new(),
            }),
            retry_after_s: None,
        }
    }

    /// 422: well-formed, but not acceptable.
    pub(super) fn unacceptable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
    }

    /// 409: a slug that means several streams.
    pub(super) fn ambiguous(candidates: Vec<String>) -> Self {
        let mut failure = Self::new(StatusCode::CONFLICT, "several streams have this slug");
        failure.problem.candidates = candidates;
        failure
    }

    /// 404: no stream of this name, though perhaps near ones.
    pub(super) fn unknown_stream(candidates: Vec<String>) -> Self {
        let detail = "no stream of this name is known here";
        let mut failure = Self::new(StatusCode::NOT_FOUND, detail);
        failure.problem.candidates = candidates;
        failure
    }

    /// Status, detail and candidates, for a page.
    pub(super) fn into_parts(self) -> (StatusCode, String, Vec<String>) {
        let status = StatusCode::from_u16(self.problem.status)
            .expect("a failure is made from a status code");
        (status, self.problem.detail, self.problem.candidates)
    }

    /// 429: the caller has to wait this long.
    pub(super) fn too_many(detail: impl Into<String>, wait: Duration) -> Self {
        let seconds = wait.as_millis().div_ceil(1000).max(1);
        Self::new(StatusCode::TOO_MANY_REQUESTS, detail)
            .after(u64::try_from(seconds).unwrap_or(u64::MAX))
    }

    /// The status of its answer.
    pub(super) fn status(&self) -> u16 {
        self.problem.status
    }

    /// The same with the seconds after which to try again.
    pub(super) fn after(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.problem.status)
            .expect("a failure is made from a status code");
        let body = serde_json::to_vec(&self.problem).expect("a problem is text and numbers");
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}

impl From<RecordError> for Failure {
    fn from(error: RecordError) -> Self {
        let status = match error {
            RecordError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            RecordError::Malformed(_) | RecordError::NotCanonical => StatusCode::BAD_REQUEST,
            RecordError::Signature | RecordError::Field(_) => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Self::new(status, error.to_string())
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let detail = refusal.to_string();
        match refusal {
            Refusal::Stale => Self::new(StatusCode::CONFLICT, detail),
            Refusal::Foreign(_) => Self::unacceptable(detail),
            Refusal::Crowded(_) => Self::too_many(detail, LEASE),
            Refusal::Full => Self::new(StatusCode::SERVICE_UNAVAILABLE, detail).after(30),
        }
    }
}

/// Makes a problem of an error that the router answered in its own words.
pub(super) fn normalise(response: Response) -> Response {
    let status = response.status();
    let fine = !status.is_client_error() && !status.is_server_error();
    let kind = response.headers().get(CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or("");
    if fine || kind == PROBLEM_JSON || kind.starts_with("text/html") {
        return response;
    }
    let mut kept = response.headers().clone();
    kept.remove(CONTENT_TYPE);
    kept.remove(CONTENT_LENGTH);
    let mut problem = Failure::new(status, detail_of(status, &kept)).into_response();
    problem.headers_mut().extend(kept);
    problem
}

fn detail_of(status: StatusCode, headers: &HeaderMap) -> String {
    let allowed = headers.get(ALLOW).and_then(|allow| allow.to_str().ok());
    match (status, allowed) {
        (StatusCode::NOT_FOUND, _) => "there is nothing at this path".to_owned(),
        (StatusCode::METHOD_NOT_ALLOWED, Some(allowed)) => format!("this path takes {allowed}"),
        _ => "the request could not be fulfilled".to_owned(),
    }
}
