//! `GET /openapi.json`: the API as the code has it (OpenAPI 3.1).

use std::sync::LazyLock;

use axum::response::{IntoResponse as _, Response};
use hyper::header::CONTENT_TYPE;
use utoipa::OpenApi as _;

use super::api;

/// The routes, each documented where it is.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "astral-web",
        description = "Directory of Astral's nodes and streams. Records are signed by whom they are about, \
                       and verified by whoever takes them; errors are RFC 9457 problems.",
    ),
    paths(
        api::bootstrap,
        api::nodes,
        api::submit_node,
        api::streams,
        api::submit_stream,
        api::stream,
        api::pong,
        api::ping,
        api::health,
        api::ready,
        api::metrics,
        document,
    )
)]
struct Document;

static TEXT: LazyLock<String> = LazyLock::new(|| {
    let document = Document::openapi();
    document.to_json().expect("a document is text and numbers")
});

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "probes",
    responses((status = 200, description = "OpenAPI 3.1", body = Object)))]
pub(super) async fn document() -> Response {
    ([(CONTENT_TYPE, "application/json")], TEXT.as_str()).into_response()
}
