//! `/settings`: how this node is set, and changing that while it runs.

use std::sync::Arc;

use astral_proto::api::{Settings, SettingsPatch};
use axum::extract::State;
use axum::response::Response;
use hyper::StatusCode;
use serde::Deserialize;

use super::super::App;
use super::super::extract::Json;
use super::super::problem::Failure;
use super::json;

/// `GET /settings`.
#[utoipa::path(
    get,
    path = "/api/v1/settings",
    responses((status = 200, description = "Every option, where it comes from, and whether it can be changed now", body = Settings)),
)]
pub(in super::super) async fn show(State(app): State<Arc<App>>) -> Response {
    json(StatusCode::OK, &app.handle.settings())
}

/// What can be changed while the node runs; `null` goes back to the layer below.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "for the API's document; `LiveSettings` has the rules"
)]
struct Changes {
    /// Whether this node carries streams that others offer it; auto: while it is a supernode.
    accept_seeds: Option<Mode>,
    /// Web origins that may call the local API and play.
    #[schema(max_items = 64)]
    allow_origin: Option<Vec<WebOrigin>>,
    /// Name of this node for people.
    #[schema(
        min_length = 1,
        max_length = 100,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"
    )]
    name: Option<String>,
    /// Whether this node may be a supernode; auto: while there is none.
    supernode: Option<Mode>,
    /// Most upload to spend.
    upstream_limit: Option<Limit>,
    /// What is logged: -1 warnings to 2 everything.
    #[schema(minimum = -1, maximum = 2)]
    verbosity: Option<i8>,
}

/// Scheme, host and port.
#[derive(Deserialize, utoipa::ToSchema)]
#[schema(
    pattern = r"^https?://[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:([1-5]?[0-9]{1,4}|6[0-4][0-9]{3}))?$"
)]
#[expect(dead_code, reason = "for the API's document")]
struct WebOrigin(String);

/// Whether a node does something for others.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
enum Mode {
    /// When that makes sense.
    Auto,
    /// In any case.
    Always,
    /// In no case.
    Never,
}

/// An upload limit.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "for the API's document")]
enum Limit {
    /// A number.
    Bps(Bps),
    /// Words.
    Rate(Rate),
}

/// In bit/s; 0: never forward.
#[derive(Deserialize, utoipa::ToSchema)]
#[schema(minimum = 0, maximum = 1_000_000_000_000_u64)]
#[expect(dead_code, reason = "for the API's document")]
struct Bps(u64);

/// Like `20mbit`, `unlimited` or `learnt`.
#[derive(Deserialize, utoipa::ToSchema)]
#[schema(
    pattern = r"^(learnt|unlimited|[0-9]{1,3}(\.[0-9]{1,2})?([kKmM](bit|bps|B)|[gG]bit)(/s)?)$"
)]
#[expect(dead_code, reason = "for the API's document")]
struct Rate(String);

/// `PATCH /settings`: all or none of them.
#[utoipa::path(
    patch,
    path = "/api/v1/settings",
    request_body = Changes,
    responses((status = 200, description = "Changed, and kept over restarts", body = Settings)),
    security(("token" = [])),
)]
pub(in super::super) async fn change(
    State(app): State<Arc<App>>,
    Json(patch): Json<SettingsPatch>,
) -> Result<Response, Failure> {
    let settings = app.handle.change_settings(patch).await?;
    Ok(json(StatusCode::OK, &settings))
}
