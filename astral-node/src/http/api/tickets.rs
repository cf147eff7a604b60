//! `/tickets` and `/streams/{slug}/tickets`: who feeds whom, and asking for it.

use std::sync::Arc;

use astral_proto::api::{NewTicket, Ticket};
use astral_proto::ids::StreamId;
use axum::extract::{Path, State};
use axum::response::Response;
use hyper::{StatusCode, Uri};

use super::super::App;
use super::super::extract::Json;
use super::super::list::page;
use super::super::problem::Failure;
use super::json;
use crate::handle::Watched;

/// `GET /tickets`.
pub(in super::super) async fn list(
    State(app): State<Arc<App>>,
    uri: Uri,
) -> Result<Response, Failure> {
    let list = page(app.handle.tickets().await, &uri, place)?;
    Ok(json(StatusCode::OK, &list))
}

/// `GET /streams/{slug}/tickets`.
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
pub(in super::super) async fn make(
    State(app): State<Arc<App>>,
    Path(slug): Path<String>,
    Json(new): Json<NewTicket>,
) -> Result<Response, Failure> {
    let stream = app.handle.stream(&slug).await?.id;
    if let Some(destination) = new.destination {
        let ticket = app.handle.seed(stream, destination).await?;
        return Ok(json(StatusCode::CREATED, &ticket));
    }
    Ok(match app.handle.watch(stream).await? {
        Watched::New(ticket) => json(StatusCode::CREATED, &ticket),
        Watched::Already(ticket) => json(StatusCode::OK, &ticket),
        Watched::Own => json(StatusCode::OK, &()),
    })
}

/// `DELETE /streams/{slug}/tickets/{id}`.
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
