//! `/streams`: what is on, and one's own streams.

use std::sync::Arc;

use astral_proto::api::{List, NewStream, Stream, StreamPatch};
use astral_proto::limits::DESCRIPTION_CHARS_MAX;
use astral_proto::slug::check_name;
use axum::Extension;
use axum::extract::{Path, State};
use axum::response::Response;
use hyper::header::{HeaderValue, LOCATION};
use hyper::{StatusCode, Uri};

use super::super::App;
use super::super::extract::Json;
use super::super::guard::Access;
use super::super::list::page;
use super::super::problem::Failure;
use super::json;

/// `GET /streams`.
#[utoipa::path(
    get,
    path = "/api/v1/streams",
    params(
        ("limit" = Option<u16>, Query, minimum = 1, maximum = 1000, description = "Most items; 100 unless given"),
        ("after" = Option<String>, Query, description = "The `next` of the page before"),
    ),
    responses((status = 200, description = "Known streams", body = List<Stream>)),
)]
pub(in super::super) async fn list(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    uri: Uri,
) -> Result<Response, Failure> {
    let place = |stream: &Stream| (stream.name.clone(), stream.id.to_string());
    let mut list = page(app.handle.streams().await, &uri, place)?;
    for stream in &mut list.items {
        with_ingest(&app, &access, stream);
    }
    Ok(json(StatusCode::OK, &list))
}

/// `GET /streams/{slug}`.
#[utoipa::path(
    get,
    path = "/api/v1/streams/{slug}",
    params(
        ("slug" = String, Path, description = "Slug, full slug, id or share link"),
    ),
    responses((status = 200, description = "One stream; the network is asked for up to 2 s", body = Stream)),
)]
pub(in super::super) async fn one(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    Path(slug): Path<String>,
) -> Result<Response, Failure> {
    let mut stream = app.handle.stream(&slug).await?;
    with_ingest(&app, &access, &mut stream);
    Ok(json(StatusCode::OK, &stream))
}

/// `POST /streams`.
#[utoipa::path(
    post,
    path = "/api/v1/streams",
    request_body = NewStream,
    responses((status = 201, description = "Published, with its `ingest`", body = Stream)),
    security(("token" = [])),
)]
pub(in super::super) async fn publish(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    Json(new): Json<NewStream>,
) -> Result<Response, Failure> {
    check_name(&new.name).map_err(|error| Failure::unacceptable(error.to_string()))?;
    let chars = new
        .description
        .as_ref()
        .map_or(0, |text| text.chars().count());
    if chars > DESCRIPTION_CHARS_MAX {
        return Err(Failure::unacceptable(format!(
            "a description has at most {DESCRIPTION_CHARS_MAX} characters; this one has {chars}"
        )));
    }
    let mut stream = app.handle.publish(new).await?;
    with_ingest(&app, &access, &mut stream);
    let mut response = json(StatusCode::CREATED, &stream);
    if let Ok(place) = HeaderValue::from_str(&format!("/api/v1/streams/{}", stream.id)) {
        response.headers_mut().insert(LOCATION, place);
    }
    Ok(response)
}

/// `PATCH /streams/{slug}`.
#[utoipa::path(
    patch,
    path = "/api/v1/streams/{slug}",
    params(
        ("slug" = String, Path, description = "Slug, full slug, id or share link"),
    ),
    request_body = StreamPatch,
    responses((status = 200, description = "Paused or resumed", body = Stream)),
    security(("token" = [])),
)]
pub(in super::super) async fn pause(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    Path(slug): Path<String>,
    Json(patch): Json<StreamPatch>,
) -> Result<Response, Failure> {
    let id = app.handle.stream(&slug).await?.id;
    let mut stream = app.handle.set_paused(id, patch.paused).await?;
    with_ingest(&app, &access, &mut stream);
    Ok(json(StatusCode::OK, &stream))
}

/// `DELETE /streams/{slug}`.
#[utoipa::path(
    delete,
    path = "/api/v1/streams/{slug}",
    params(
        ("slug" = String, Path, description = "Slug, full slug, id or share link"),
    ),
    responses((status = 204, description = "Ended for good")),
    security(("token" = [])),
)]
pub(in super::super) async fn end(
    State(app): State<Arc<App>>,
    Path(slug): Path<String>,
) -> Result<StatusCode, Failure> {
    let id = app.handle.stream(&slug).await?.id;
    app.handle.unpublish(id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The encoder's secret is for trusted callers only, wherever a stream is shown.
fn with_ingest(app: &App, access: &Access, stream: &mut Stream) {
    stream.ingest = access
        .trusted
        .then(|| app.handle.ingest_of(stream.id))
        .flatten();
}
