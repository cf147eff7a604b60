//! Pages for people. They work without a script; with it they stay up to date, copy, and
//! hear from the visitor's own node.
//!
//! Nothing here calls the visitor's node by itself: browsers block it, or ask (Local
//! Network Access). Pages link to it, and the opened page tells that it runs.

mod card;
mod network;
mod picture;
mod streams;

use std::sync::{Arc, LazyLock};

use askama::Template;
use astral_proto::ids::sha256;
use axum::Router;
use axum::extract::{Extension, State as Shared};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use data_encoding::HEXLOWER;
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH,
};
use hyper::{StatusCode, Uri};

use super::caller::Site;
use super::problem::Failure;
use crate::state::State;

/// Where a node's own pages are, unless its owner has put them elsewhere.
const OWN_NODE: &str = "http://127.0.0.1:8000";

type Web = Shared<Arc<State>>;

pub(super) fn router() -> Router<Arc<State>> {
    let style = asset(
        "text/css; charset=utf-8",
        include_str!("../../../templates/style.css"),
    );
    let script = asset(
        "text/javascript; charset=utf-8",
        include_str!("../../../templates/site.js"),
    );
    let icon = asset("image/svg+xml", include_str!("../../../templates/icon.svg"));
    Router::new()
        .route("/", get(streams::index))
        .route("/streams/{slug}", get(streams::stream))
        .route("/publish", get(publish))
        .route("/network", get(network::network))
        .route(
            "/style.css",
            get(async move |headers| style.answer(&headers)),
        )
        .route(
            "/site.js",
            get(async move |headers| script.answer(&headers)),
        )
        .route("/icon.svg", get(async move |headers| icon.answer(&headers)))
        .route("/favicon.ico", get(async || StatusCode::NO_CONTENT))
        .fallback(missing)
}

/// A file of ours.
struct Asset {
    kind: &'static str,
    text: &'static str,
    tag: LazyLock<HeaderValue, Box<dyn FnOnce() -> HeaderValue + Send>>,
}

fn asset(kind: &'static str, text: &'static str) -> Arc<Asset> {
    let tag = move || {
        let tag = format!("\"{}\"", HEXLOWER.encode(&sha256(text.as_bytes())[..8]));
        HeaderValue::from_str(&tag).expect("hexadecimal is a header value")
    };
    Arc::new(Asset {
        kind,
        text,
        tag: LazyLock::new(Box::new(tag)),
    })
}

impl Asset {
    /// Asked for again with each page, and sent again only when the program is another.
    fn answer(&self, headers: &HeaderMap) -> Response {
        let known = headers.get(IF_NONE_MATCH) == Some(&*self.tag);
        let mut response = if known {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            ([(CONTENT_TYPE, self.kind)], self.text).into_response()
        };
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(ETAG, self.tag.clone());
        response
    }
}

/// What a page may do besides showing itself.
#[derive(Default)]
struct Rights {
    /// Frame this origin, where a stream is played from.
    frame: Option<String>,
    /// Ask the visitor's own node, and frame it.
    own_node: bool,
}

impl Rights {
    /// Our own style and script and nothing else, in nobody's frame (CSP level 3).
    fn policy(&self) -> String {
        let node = if self.own_node { OWN_NODE } else { "" };
        let frame = match (&self.frame, self.own_node) {
            (Some(origin), _) => format!("{origin} {node}"),
            (None, true) => node.to_owned(),
            (None, false) => "'none'".to_owned(),
        };
        format!(
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
             connect-src 'self' {node}; frame-src {frame}; base-uri 'none'; form-action 'self'; \
             frame-ancestors 'none'"
        )
    }
}

fn page(status: StatusCode, template: &impl Template) -> Response {
    page_with(status, template, &Rights::default())
}

fn page_with(status: StatusCode, template: &impl Template, rights: &Rights) -> Response {
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8".to_owned()),
        (CONTENT_SECURITY_POLICY, rights.policy()),
        (CACHE_CONTROL, "no-cache".to_owned()),
    ];
    match template.render() {
        Ok(html) => (status, headers, html).into_response(),
        Err(error) => {
            Failure::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response()
        }
    }
}

#[derive(Template)]
#[template(path = "publish.html")]
struct Publish {
    here: &'static str,
    site: String,
}

async fn publish(site: Option<Extension<Site>>) -> Response {
    let here = "publish";
    let site = name_of(site);
    page(StatusCode::OK, &Publish { here, site })
}

/// This site as nodes are to be told of it.
fn name_of(site: Option<Extension<Site>>) -> String {
    match site {
        Some(Extension(Site(site))) => site,
        None => "http://web.example:8080".to_owned(),
    }
}

#[derive(Template)]
#[template(path = "missing.html")]
struct Missing {
    here: &'static str,
    title: &'static str,
    detail: String,
    candidates: Vec<String>,
}

/// Programs get a problem under the API's prefix, people a page.
async fn missing(uri: Uri) -> Response {
    let detail = "there is nothing at this path".to_owned();
    if uri.path().starts_with("/api/") {
        return Failure::new(StatusCode::NOT_FOUND, detail).into_response();
    }
    let (title, candidates) = ("Nothing here", Vec::new());
    let missing = Missing {
        here: "",
        title,
        detail,
        candidates,
    };
    page(StatusCode::NOT_FOUND, &missing)
}
