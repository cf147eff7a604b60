//! The pages, and the two probes.
//!
//! Pages are static but for their stream's name and slug and the guard value, which [`fill`]
//! escapes; everything else they ask of the API. What they load is in [`assets`].

pub(super) mod assets;

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use hyper::header::{ACCEPT, CONTENT_TYPE};
use hyper::{HeaderMap, StatusCode, Uri};

use super::App;
use super::guard::Access;
use super::problem::Failure;
use crate::handle::ApiError;

const WATCH_HTML: &str = include_str!("pages/watch.html");
const DASHBOARD_HTML: &str = include_str!("pages/dashboard.html");
const PUBLISH_HTML: &str = include_str!("pages/publish.html");

/// What the probes answer.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "only its form is of interest")]
pub(super) struct Probe {
    /// `ok` or `ready`.
    status: String,
}

/// `GET /health`: 200 while the process answers.
#[utoipa::path(
    get,
    path = "/health",
    responses((status = 200, description = "The process answers", body = Probe)),
)]
pub(super) async fn health() -> Response {
    json("{\"status\":\"ok\"}")
}

/// `GET /ready`: 200 after the first bootstrap round.
#[utoipa::path(
    get,
    path = "/ready",
    responses((status = 200, description = "The first bootstrap round is over", body = Probe)),
)]
pub(super) async fn ready(State(app): State<Arc<App>>) -> Result<Response, Failure> {
    if app.handle.is_ready() {
        return Ok(json("{\"status\":\"ready\"}"));
    }
    Err(Failure::not_now("the node is still looking for others"))
}

fn json(body: &'static str) -> Response {
    ([(CONTENT_TYPE, "application/json")], body).into_response()
}

/// `GET /`: the dashboard.
pub(super) async fn dashboard(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
) -> Response {
    owners(DASHBOARD_HTML, &app, &access)
}

/// `GET /publish`: the browser as an encoder, and recipes for others.
pub(super) async fn publish(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
) -> Response {
    owners(PUBLISH_HTML, &app, &access)
}

/// A page for the node's owner; without the guard value it asks for the token.
fn owners(page: &str, app: &App, access: &Access) -> Response {
    let status = match access.guard_for_page {
        true => StatusCode::OK,
        false => StatusCode::UNAUTHORIZED,
    };
    html(status, page, app, access, &[])
}

/// `GET /watch/{slug}`: the player.
///
/// A stream that nobody knows yet is a 404, and still a page for browsers,
/// since that goes on looking. Framed by another site it joins only after a
/// click: else any site could make this node download. Where strangers come by
/// the public name, the owner has agreed to that.
pub(super) async fn watch(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    Path(slug): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let (status, name) = match app.handle.stream(&slug).await {
        Ok(stream) => (StatusCode::OK, stream.name),
        Err(ApiError::Unknown(_)) if wants_html(&headers) => (StatusCode::NOT_FOUND, slug.clone()),
        Err(error) => return Err(error.into()),
    };
    let mut params = uri.query().unwrap_or("").split('&');
    let embedded = params.any(|param| param.split('=').next() == Some("embed"));
    let joins = if embedded && access.near {
        "click"
    } else {
        "at once"
    };
    let values = [
        ("{{slug}}", &*slug),
        ("{{name}}", &*name),
        ("{{joins}}", joins),
    ];
    Ok(html(status, WATCH_HTML, &app, &access, &values))
}

/// A page, with the guard value if its reader may change things.
fn html(
    status: StatusCode,
    page: &str,
    app: &App,
    access: &Access,
    values: &[(&str, &str)],
) -> Response {
    let guard = if access.guard_for_page {
        app.handle.guard()
    } else {
        ""
    };
    let values = [values, &[("{{guard}}", guard)]].concat();
    let page = fill(page, &values);
    (status, [(CONTENT_TYPE, "text/html; charset=utf-8")], page).into_response()
}

fn wants_html(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}

/// Puts values, escaped, where their names stand; what a value contains is not looked at again.
fn fill(page: &str, values: &[(&str, &str)]) -> String {
    let mut out = String::with_capacity(page.len() + 256);
    let mut rest = page;
    while let Some(at) = rest.find("{{") {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let found = values.iter().find(|(name, _)| rest.starts_with(name));
        let (name, text) = found.map_or(("{{", "{{".to_owned()), |(n, v)| (*n, escape(v)));
        out.push_str(&text);
        rest = &rest[name.len()..];
    }
    out + rest
}

/// Makes text harmless in HTML, inside quoted attributes too.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped_and_never_filled_in_themselves() {
        let page = fill(
            "<i a=\"{{slug}}\">{{guard}}{{x",
            &[("{{slug}}", "\"><b>{{guard}}&'"), ("{{guard}}", "g")],
        );
        assert_eq!(page, "<i a=\"&quot;&gt;&lt;b&gt;{{guard}}&amp;&#39;\">g{{x");
    }
}
