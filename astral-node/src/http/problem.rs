//! Every refusal as `application/problem+json` (RFC 9457).

use astral_proto::api::Problem;
use axum::response::{IntoResponse, Response};
use hyper::header::{
    ALLOW, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use hyper::{HeaderMap, StatusCode};

use crate::handle::ApiError;

/// Media type of a problem.
pub(super) const PROBLEM_JSON: &str = "application/problem+json";
/// Seconds after which it makes sense to ask again (RFC 9110 §10.2.3).
///
/// A referral round takes less than this, and so does an encoder's reconnect.
const RETRY_AFTER_S: &str = "2";

/// A request that is not fulfilled: its problem, and the headers that go with it.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) problem: Box<Problem>,
    headers: HeaderMap,
}

impl Failure {
    /// A failure of this status; `detail` says what was wrong and what would help.
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let mut headers = HeaderMap::new();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
        }
        Self {
            problem: Box::new(Problem {
                kind: "about:blank".to_owned(),
                title: status.canonical_reason().unwrap_or("Error").to_owned(),
                status: status.as_u16(),
                detail: detail.into(),
                candidates: Vec::new(),
            }),
            headers,
        }
    }

    /// 400: not what HTTP or JSON look like.
    pub(super) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// 401: no token, or a wrong one.
    pub(super) fn unauthorised(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, detail).with(
            WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer realm=\"astral-node\""),
        )
    }

    /// 403: understood, and not allowed.
    pub(super) fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, detail)
    }

    /// 404: nothing of that name.
    pub(super) fn unknown(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// 413: more than a limit.
    pub(super) fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    }

    /// 422: well-formed, but not acceptable.
    pub(super) fn unacceptable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
    }

    /// 503: not now.
    pub(super) fn not_now(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }

    /// The same with one more header.
    pub(super) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
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
        headers.extend(self.headers);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        response
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        let detail = error.to_string();
        match error {
            ApiError::Unknown(_) => Self::unknown(detail),
            ApiError::Ambiguous(candidates) => {
                let mut failure = Self::new(StatusCode::CONFLICT, detail);
                failure.problem.candidates = candidates;
                failure
            }
            ApiError::NameTaken(_) | ApiError::Conflict(_) => {
                Self::new(StatusCode::CONFLICT, detail)
            }
            ApiError::NotOwn | ApiError::Refused(_) => Self::forbidden(detail),
            ApiError::Invalid(_) => Self::unacceptable(detail),
            ApiError::NoRoom(_) | ApiError::Ending => Self::not_now(detail),
            ApiError::Failed(_) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, detail),
        }
    }
}

/// Makes a problem of an error that the router or an extractor answered in its own words.
pub(super) fn normalise(response: Response) -> Response {
    let status = response.status();
    let fine = !status.is_client_error() && !status.is_server_error();
    let kind = response.headers().get(CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or("");
    if fine || kind == PROBLEM_JSON || kind.starts_with("text/html") {
        return response;
    }
    let mut headers = response.headers().clone();
    headers.remove(CONTENT_TYPE);
    headers.remove(CONTENT_LENGTH);
    let mut failure = Failure::new(status, detail_of(status, &headers));
    failure.headers.extend(headers);
    failure.into_response()
}

fn detail_of(status: StatusCode, headers: &HeaderMap) -> String {
    let allowed = headers.get(ALLOW).and_then(|allow| allow.to_str().ok());
    match (status, allowed) {
        (StatusCode::NOT_FOUND, _) => "there is nothing at this path".to_owned(),
        (StatusCode::METHOD_NOT_ALLOWED, Some(allowed)) => format!("this path takes {allowed}"),
        (StatusCode::BAD_REQUEST, _) => "the path is not UTF-8 once decoded".to_owned(),
        _ => "the request could not be fulfilled".to_owned(),
    }
}
