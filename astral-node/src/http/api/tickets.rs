//! `/tickets` and `/streams/{slug}/tickets`: who feeds whom, and asking for it.

use std::sync::Arc;

use astral_proto::api::{List, NewTicket, Ticket};
use astral_proto::ids::StreamId;
use axum::extract::{Path, State};
use axum::response::Response;
use hyper::{StatusCode, Uri};

use super::super::App;
use super::super::extract::Json;
use super::super::list::page;
use super::super::problem::Failure;
use super::json;
use crate::handle::{Seeded, Watched};

/// `GET /tickets`.
#[utoipa::path(
    get,
    path = "/api/v1/tickets",
    params(
        ("limit" = Option<u16>, Query, minimum = 1, maximum = 1000, description = "Most items; 100 unless given"),
        ("after" = Option<String>, Query, description = "The `next` of the page before"),
    ),
    responses((status = 200, description = "Tickets between this node and others", body = List<Ticket>)),
)]
pub(in super::super) async fn list(
    State(app): State<Arc<App>>,
    uri: Uri,
) -> Result<Response, Failure> {
    let list = page(app.handle.tickets().await, &uri, place)?;
    Ok(json(StatusCode::OK, &list))
}

/// `GET /streams/{slug}/tickets`.
#[utoipa::path(
    get,
    path = "/api/v1/streams/{slug}/tickets",
    params(
        ("slug" = String, Path, description = "Slug, full slug, id or share link"),
        ("limit" = Option<u16>, Query, minimum = 1, maximum = 1000, description = "Most items; 100 unless given"),
        ("after" = Option<String>, Query, description = "The `next` of the page before"),
    ),
    responses((status = 200, description = "The stream's tickets", body = List<Ticket>)),
)]
pub(in super::super) async fn of_stream(
    State(app): State<Arc<App>>,
    Path(slug): Path<String>,
    uri: Uri,
) -> Result<Response, Failure> {
    let stream = app.handle.stream(&slug).await?.id;
    let list = page(tickets_of(&app, stream).await, &uri, place)?;
    Ok(json(StatusCode::OK, &list))
}

/// `POST /streams/{slug}/tickets`: receive the stream here, or seed it to another.
#[utoipa::path(
    post,
    path = "/api/v1/streams/{slug}/tickets",
    params(
        ("slug" = String, Path, description = "Slug, full slug, id or share link"),
    ),
    request_body = NewTicket,
    responses((status = 201, description = "Received here from now on, or there with a destination", body = Ticket), (status = 200, description = "Received already; null for one's own stream", body = Option<Ticket>), (status = 202, description = "The destination takes it, from another node or when there is room", body = Option<Ticket>), (status = 403, description = "The destination does not want it")),
    security(("token" = [])),
)]
pub(in super::super) async fn make(
    State(app): State<Arc<App>>,
    Path(slug): Path<String>,
    Json(new): Json<NewTicket>,
) -> Result<Response, Failure> {
    let stream = app.handle.stream(&slug).await?.id;
    if let Some(destination) = new.destination {
        return Ok(match app.handle.seed(stream, destination).await? {
            Seeded::New(ticket) => json(StatusCode::CREATED, &ticket),
            Seeded::Already(ticket) => json(StatusCode::OK, &ticket),
            Seeded::Elsewhere => json(StatusCode::ACCEPTED, &()),
        });
    }
    Ok(match app.handle.watch(stream).await? {
        Watched::New(ticket) => json(StatusCode::CREATED, &ticket),
        Watched::Already(ticket) => json(StatusCode::OK, &ticket),
        Watched::Own => json(StatusCode::OK, &()),
    })
}

/// `DELETE /streams/{slug}/tickets/{id}`.
#[utoipa::path(
    delete,
    path = "/api/v1/streams/{slug}/tickets/{id}",
    params(
        ("slug" = String, Path, description = "Slug, full slug, id or share link"),
        ("id" = String, Path, description = "Id of the ticket"),
    ),
    responses((status = 204, description = "Ended")),
    security(("token" = [])),
)]
pub(in super::super) async fn revoke(
    State(app): State<Arc<App>>,
    Path((slug, id)): Path<(String, String)>,
) -> Result<StatusCode, Failure> {
    let stream = app.handle.stream(&slug).await?.id;
    if !tickets_of(&app, stream)
        .await
        .iter()
        .any(|ticket| ticket.id == id)
    {
        return Err(Failure::unknown(format!("`{slug}` has no ticket `{id}`")));
    }
    app.handle.revoke(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /streams/{slug}/ticket`.
#[utoipa::path(
    delete,
    path = "/api/v1/streams/{slug}/ticket",
    params(
        ("slug" = String, Path, description = "Slug, full slug, id or share link"),
    ),
    responses((status = 204, description = "Not received here any more")),
    security(("token" = [])),
)]
pub(in super::super) async fn stop(
    State(app): State<Arc<App>>,
    Path(slug): Path<String>,
) -> Result<StatusCode, Failure> {
    let stream = app.handle.stream(&slug).await?.id;
    app.handle.stop(stream).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn tickets_of(app: &App, stream: StreamId) -> Vec<Ticket> {
    let mut tickets = app.handle.tickets().await;
    tickets.retain(|ticket| ticket.stream.id == stream);
    tickets
}

fn place(ticket: &Ticket) -> (String, String) {
    (ticket.stream.slug.clone(), ticket.id.clone())
}
