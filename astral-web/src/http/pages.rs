//! Pages for people, without a script: the browser only links to the visitor's own node.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use askama::Template;
use astral_proto::api::web::{WebNode, WebStream};
use astral_proto::api::{LIMIT_DEFAULT, StreamState};
use astral_proto::ids::StreamId;
use axum::Router;
use axum::extract::{Extension, Path, State as Shared};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use hyper::{StatusCode, Uri};

use super::api::find;
use super::caller::Caller;
use super::problem::Failure;
use super::show::{self, Shelf};
use crate::catalog::Catalog;
use crate::state::State;

/// Nothing but our own style sheet, and in nobody's frame.
const POLICY: &str = "default-src 'none'; style-src 'self'; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'";

type Web = Shared<Arc<State>>;

pub(super) fn router() -> Router<Arc<State>> {
    Router::new()
        .route("/", get(index))
        .route("/streams/{slug}", get(stream))
        .route("/publish", get(async || page(StatusCode::OK, &Publish)))
        .route("/network", get(network))
        .route("/style.css", get(style))
        .fallback(missing)
}

struct Card {
    slug: String,
    name: String,
    publisher: String,
    state: &'static str,
    bitrate: String,
    viewers: u64,
    uptime: String,
}

impl Card {
    fn new(stream: &WebStream, catalog: &Catalog) -> Self {
        let publisher = catalog.nodes.row(stream.publisher.0);
        let name = publisher.and_then(|row| row.record.value().name.clone());
        Self {
            slug: stream.slug.clone(),
            name: stream.name.clone(),
            publisher: name.unwrap_or_else(|| stream.publisher.short()),
            state: match stream.state {
                StreamState::Live => "live",
                StreamState::Waiting => "waiting",
                StreamState::Paused => "paused",
                StreamState::Ended => "ended",
            },
            bitrate: format!(
                "{}.{} Mbit/s",
                stream.bitrate_bps / 1_000_000,
                stream.bitrate_bps / 100_000 % 10
            ),
            viewers: stream.viewers,
            uptime: uptime(&stream.started_at),
        }
    }
}

fn uptime(started_at: &str) -> String {
    let since = humantime::parse_rfc3339(started_at).ok();
    let since = since.and_then(|at| SystemTime::now().duration_since(at).ok());
    let minutes = since.map_or(0, |since: Duration| since.as_secs() / 60);
    match minutes {
        0 => "just started".to_owned(),
        1..60 => format!("for {minutes} min"),
        60..2880 => format!("for {} h {} min", minutes / 60, minutes % 60),
        _ => format!("for {} days", minutes / 1440),
    }
}

#[derive(Template)]
#[template(path = "index.html")]
struct Index {
    cards: Vec<Card>,
}

#[derive(Template)]
#[template(path = "stream.html")]
struct Stream {
    card: Card,
    id: StreamId,
    description: String,
    share: String,
}

#[derive(Template)]
#[template(path = "publish.html")]
struct Publish;

#[derive(Template)]
#[template(path = "network.html")]
struct Network {
    nodes: usize,
    streams: usize,
    supernodes: Vec<WebNode>,
}

#[derive(Template)]
#[template(path = "missing.html")]
struct Missing {
    detail: String,
    candidates: Vec<String>,
}

fn page(status: StatusCode, template: &impl Template) -> Response {
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (CACHE_CONTROL, "no-cache"),
    ];
    match template.render() {
        Ok(html) => (status, headers, html).into_response(),
        Err(error) => {
            Failure::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response()
        }
    }
}

async fn index(Shared(state): Web, Extension(Caller(caller)): Extension<Caller>) -> Response {
    let cards = {
        let catalog = state.catalog();
        let shelf = Shelf::new(&catalog, caller);
        let rows = catalog.streams(None).take(LIMIT_DEFAULT);
        rows.map(|row| Card::new(&shelf.stream(row), &catalog))
            .collect()
    };
    page(StatusCode::OK, &Index { cards })
}

async fn stream(
    Shared(state): Web,
    Extension(Caller(caller)): Extension<Caller>,
    Path(slug): Path<String>,
) -> Response {
    show_stream(&state, caller, &slug)
}

fn show_stream(state: &State, caller: IpAddr, slug: &str) -> Response {
    match find(state, caller, slug) {
        Ok(found) => {
            let card = Card::new(&found, &state.catalog());
            let WebStream {
                id,
                description,
                share,
                ..
            } = found;
            page(
                StatusCode::OK,
                &Stream {
                    card,
                    id,
                    description,
                    share,
                },
            )
        }
        Err(failure) => {
            let (status, detail, candidates) = failure.into_parts();
            page(status, &Missing { detail, candidates })
        }
    }
}

async fn network(Shared(state): Web, Extension(Caller(caller)): Extension<Caller>) -> Response {
    let network = {
        let catalog = state.catalog();
        Network {
            nodes: catalog.nodes.len(),
            streams: catalog.streams(None).count(),
            supernodes: show::supernodes(&catalog, caller),
        }
    };
    page(StatusCode::OK, &network)
}

async fn style() -> Response {
    let headers = [
        (CONTENT_TYPE, "text/css; charset=utf-8"),
        (CACHE_CONTROL, "max-age=3600"),
    ];
    (headers, include_str!("../../templates/style.css")).into_response()
}

/// Programs get a problem under the API's prefix, people a page.
async fn missing(uri: Uri) -> Response {
    let detail = "there is nothing at this path".to_owned();
    if uri.path().starts_with("/api/") {
        return Failure::new(StatusCode::NOT_FOUND, detail).into_response();
    }
    page(
        StatusCode::NOT_FOUND,
        &Missing {
            detail,
            candidates: Vec::new(),
        },
    )
}
