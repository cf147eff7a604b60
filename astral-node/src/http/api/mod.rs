//! The JSON routes under `/api/v1`.

pub(super) mod events;
pub(super) mod links;
pub(super) mod node;
pub(super) mod ping;
pub(super) mod settings;
pub(super) mod streams;
pub(super) mod tickets;

use axum::response::{IntoResponse, Response};
use hyper::StatusCode;
use hyper::header::CONTENT_TYPE;
use serde::Serialize;

/// An answer in JSON.
fn json(status: StatusCode, value: &impl Serialize) -> Response {
    let body = serde_json::to_vec(value).expect("the API's types have text keys only");
    (status, [(CONTENT_TYPE, "application/json")], body).into_response()
}
