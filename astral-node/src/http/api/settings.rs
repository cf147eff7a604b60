//! `/settings`: how this node is set, and changing that while it runs.

use std::sync::Arc;

use astral_proto::api::SettingsPatch;
use axum::extract::State;
use axum::response::Response;
use hyper::StatusCode;

use super::super::App;
use super::super::extract::Json;
use super::super::problem::Failure;
use super::json;

/// `GET /settings`.
pub(in super::super) async fn show(State(app): State<Arc<App>>) -> Response {
    json(StatusCode::OK, &app.handle.settings())
}

/// `PATCH /settings`: all or none of them.
pub(in super::super) async fn change(
    State(app): State<Arc<App>>,
    Json(patch): Json<SettingsPatch>,
) -> Result<Response, Failure> {
    let settings = app.handle.change_settings(patch).await?;
    Ok(json(StatusCode::OK, &settings))
}
