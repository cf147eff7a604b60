//! `/links`: a way for a browser into pages that ask for the token.

use std::sync::Arc;

use astral_proto::api::{Link, NewLink};
use axum::extract::State;
use axum::response::Response;
use hyper::header::HOST;
use hyper::{HeaderMap, StatusCode};

use super::super::App;
use super::super::extract::Json;
use super::super::links::{HOLDS, ONCE};
use super::super::problem::Failure;
use super::json;

/// Longest path, in characters.
const PATH_MAX: usize = 500;

/// `POST /links`.
#[utoipa::path(
    post,
    path = "/api/v1/links",
    request_body = NewLink,
    responses((status = 201, description = "A link that opens the page once", body = Link)),
    security(("token" = [])),
)]
pub(in super::super) async fn make(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Json(new): Json<NewLink>,
) -> Result<Response, Failure> {
    if !is_page(&new.path) {
        return Err(Failure::unacceptable(
            "`path` is that of a page: /, /publish or /watch/SLUG",
        ));
    }
    let secret = app.guard.links().make();
    let secret = secret.map_err(|error| Failure::not_now(error.to_string()))?;
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let (host, path) = (host.unwrap_or_default(), &new.path);
    let link = Link {
        url: format!("http://{host}{path}?{ONCE}={secret}"),
        expires_in_s: HOLDS.as_secs(),
    };
    Ok(json(StatusCode::CREATED, &link))
}

fn is_page(path: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "~.:@,%-[]".contains(c);
    match path.strip_prefix("/watch/") {
        Some(slug) => !slug.is_empty() && slug.len() <= PATH_MAX && slug.chars().all(fits),
        None => matches!(path, "/" | "/publish"),
    }
}
