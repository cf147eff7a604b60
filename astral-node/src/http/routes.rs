//! The map of the node's paths (DESIGN §8).
//!
//! Whatever changes something stands inside [`change`]: there the token or the
//! guard value is asked for, before the body is looked at, and only where there
//! is such a route at all (404 and 405 come first).

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, delete, get, patch, post};

use super::api::{events, links, node, ping, settings, streams, tickets};
use super::guard::Access;
use super::problem::Failure;
use super::{App, ingest, ingest_ws, live, metrics, openapi, pages};

/// All routes.
pub(super) fn router(app: &Arc<App>) -> Router {
    Router::new()
        .nest("/api/v1", api())
        .route("/health", get(pages::health))
        .route("/ready", get(pages::ready))
        .route("/metrics", get(metrics::metrics))
        .route("/openapi.json", get(openapi::document))
        .route("/", get(pages::dashboard))
        .route("/publish", get(pages::publish))
        .route("/watch/{slug}", get(pages::watch))
        .route("/assets/{*path}", get(pages::assets::asset))
        .route("/ingest/ws", get(ingest_ws::connect))
        .route("/ingest/{key}", post(ingest::take).put(ingest::take))
        .route("/live/{slug}/stream.mp4", get(live::mp4::stream))
        .route("/live/{slug}/stream.ts", get(live::ts::stream))
        .route("/live/{slug}/ws", get(live::ws::connect))
        .route("/live/{slug}/{file}", get(live::hls::file))
        .with_state(Arc::clone(app))
}

fn api() -> Router<Arc<App>> {
    Router::new()
        .route(
            "/node",
            get(node::this).merge(change(delete(node::shutdown))),
        )
        .route("/events", get(events::stream))
        .route("/nodes", get(node::list))
        .route(
            "/nodes/{uuid}",
            get(node::one).merge(change(delete(node::forget))),
        )
        .route(
            "/streams",
            get(streams::list).merge(change(post(streams::publish))),
        )
        .route(
            "/streams/{slug}",
            get(streams::one).merge(change(patch(streams::pause).delete(streams::end))),
        )
        .route("/tickets", get(tickets::list))
        .route(
            "/streams/{slug}/tickets",
            get(tickets::of_stream).merge(change(post(tickets::make))),
        )
        .route(
            "/streams/{slug}/tickets/{id}",
            change(delete(tickets::revoke)),
        )
        .route("/streams/{slug}/ticket", change(delete(tickets::stop)))
        .route(
            "/settings",
            get(settings::show).merge(change(patch(settings::change))),
        )
        .route("/links", change(post(links::make)))
        .route("/ping", get(ping::send).post(ping::take))
}

/// A route that changes something.
fn change(routes: MethodRouter<Arc<App>>) -> MethodRouter<Arc<App>> {
    routes.route_layer(from_fn(trusted_only))
}

async fn trusted_only(request: Request, next: Next) -> Response {
    let access = request.extensions().get::<Access>();
    if access.is_some_and(|access| access.trusted) {
        return next.run(request).await;
    }
    let detail =
        "a change needs `Authorization: Bearer TOKEN`; the node's ready file has the token";
    Failure::unauthorised(detail).into_response()
}
