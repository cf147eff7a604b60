//! `/node` and `/nodes`: this node and those it knows.

use std::sync::Arc;

use astral_proto::api::{List, Node};
use astral_proto::ids::NodeId;
use axum::extract::{Path, State};
use axum::response::Response;
use hyper::{StatusCode, Uri};

use super::super::App;
use super::super::list::page;
use super::super::problem::Failure;
use super::json;

/// `GET /node`.
#[utoipa::path(
    get,
    path = "/api/v1/node",
    responses((status = 200, description = "This node", body = Node)),
)]
pub(in super::super) async fn this(State(app): State<Arc<App>>) -> Response {
    json(StatusCode::OK, &app.handle.node().await)
}

/// `DELETE /node`: the answer still goes out before the node stops.
#[utoipa::path(
    delete,
    path = "/api/v1/node",
    responses((status = 202, description = "The node leaves in good order")),
    security(("token" = [])),
)]
pub(in super::super) async fn shutdown(State(app): State<Arc<App>>) -> StatusCode {
    app.handle.shutdown();
    StatusCode::ACCEPTED
}

/// `GET /nodes`.
#[utoipa::path(
    get,
    path = "/api/v1/nodes",
    params(
        ("limit" = Option<u16>, Query, minimum = 1, maximum = 1000, description = "Most items; 100 unless given"),
        ("after" = Option<String>, Query, description = "The `next` of the page before"),
    ),
    responses((status = 200, description = "Known nodes, this one included", body = List<Node>)),
)]
pub(in super::super) async fn list(
    State(app): State<Arc<App>>,
    uri: Uri,
) -> Result<Response, Failure> {
    let place = |node: &Node| (node.name.clone(), node.uuid.to_string());
    let list = page(app.handle.nodes().await, &uri, place)?;
    Ok(json(StatusCode::OK, &list))
}

/// `GET /nodes/{uuid}`.
#[utoipa::path(
    get,
    path = "/api/v1/nodes/{uuid}",
    params(
        ("uuid" = NodeId, Path, description = "Id of the node"),
    ),
    responses((status = 200, description = "One node", body = Node)),
)]
pub(in super::super) async fn one(
    State(app): State<Arc<App>>,
    Path(text): Path<String>,
) -> Result<Response, Failure> {
    let id = node_id(&text)?;
    let this = app.handle.node().await;
    if this.uuid == id {
        return Ok(json(StatusCode::OK, &this));
    }
    let nodes = app.handle.nodes().await;
    let node = nodes.iter().find(|node| node.uuid == id);
    node.map(|node| json(StatusCode::OK, node))
        .ok_or_else(|| unknown(&text))
}

/// `DELETE /nodes/{uuid}`.
#[utoipa::path(
    delete,
    path = "/api/v1/nodes/{uuid}",
    params(
        ("uuid" = NodeId, Path, description = "Id of the node"),
    ),
    responses((status = 204, description = "Forgotten; it may come back when heard of again")),
    security(("token" = [])),
)]
pub(in super::super) async fn forget(
    State(app): State<Arc<App>>,
    Path(text): Path<String>,
) -> Result<StatusCode, Failure> {
    app.handle.forget(node_id(&text)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn node_id(text: &str) -> Result<NodeId, Failure> {
    text.parse().map_err(|_| unknown(text))
}

fn unknown(text: &str) -> Failure {
    Failure::unknown(format!("this node knows no node `{text}`"))
}
