//! `GET /live/{slug}/stream.mp4`: endless fragmented MP4 for players and tools.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Uri};
use tokio::time::timeout;

use super::super::problem::Failure;
use super::super::{App, Caller};
use super::egress::Egress;
use super::feed::{Feed, Part};
use super::{FIRST_TIMEOUT, wish};

/// Answers once there is something to play; ends at a new configuration unless
/// it is wanted in line, at the stream's end, and when the node stops.
#[utoipa::path(
    get,
    path = "/live/{slug}/stream.mp4",
    params(
        ("slug" = String, Path, description = "Slug, full slug, id or share link"),
        ("target_ms" = Option<u32>, Query, description = "How far behind the newest frame to begin"),
        ("from_ms" = Option<i64>, Query, description = "Begin at this time of the stream instead"),
        ("inline" = Option<String>, Query, description = "`1`: a new configuration follows in line, else it ends the answer"),
    ),
    responses((status = 200, description = "Fragmented MP4 from a keyframe on; endless", content_type = "video/mp4", body = Vec<u8>)),
)]
pub(in super::super) async fn stream(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(slug): Path<String>,
    method: Method,
    uri: Uri,
) -> Result<Response, Failure> {
    let (start, inline) = wish(&uri)?;
    let id = app.handle.resolve(&slug).await?;
    let headers = [(CONTENT_TYPE, "video/mp4")];
    if method == Method::HEAD {
        // Asking about the stream is not asking for it.
        return Ok(headers.into_response());
    }
    let mut feed = Feed::new(app.handle.open_live(id, start).await?);
    let init = timeout(FIRST_TIMEOUT, first_init(&mut feed))
        .await
        .ok()
        .flatten();
    let init = init.ok_or_else(|| Failure::not_now("the stream has nothing to play yet"))?;
    let running = Running {
        feed,
        egress: Egress::new(&app, &caller),
        init: init.clone(),
        inline,
    };
    let first = stream::iter([Ok(init)]);
    let bytes = first
        .chain(pieces(running))
        .take_until(app.stop.clone().cancelled_owned());
    Ok((headers, Body::from_stream(bytes)).into_response())
}

async fn first_init(feed: &mut Feed) -> Option<Bytes> {
    loop {
        match feed.next().await? {
            Part::Init { bytes, .. } => return Some(bytes),
            Part::Piece { .. } | Part::Gap { .. } => {}
        }
    }
}

struct Running {
    feed: Feed,
    egress: Egress,
    init: Bytes,
    inline: bool,
}

fn pieces(running: Running) -> impl Stream<Item = Result<Bytes, std::io::Error>> + Send {
    stream::unfold(running, |mut running| async {
        let (group, bytes) = running.next().await?;
        running.egress.charge(group, bytes.len()).await;
        Some((Ok(bytes), running))
    })
}

impl Running {
    /// The next bytes and their group; `None` at the end.
    async fn next(&mut self) -> Option<(u64, Bytes)> {
        loop {
            match self.feed.next().await? {
                Part::Piece { group, bytes } => return Some((group, bytes)),
                Part::Gap { .. } => {}
                // A new epoch whose configuration is the old one needs no new `moov`.
                Part::Init { bytes, .. } if bytes == self.init => {}
                Part::Init { .. } if !self.inline => return None,
                Part::Init { bytes, .. } => {
                    self.init = bytes.clone();
                    return Some((0, bytes));
                }
            }
        }
    }
}
