//! `GET /live/{slug}/stream.ts`: an endless transport stream for players and tools.
//!
//! Unlike fragmented MP4 it goes on over a new configuration, which the tables announce.

use std::sync::Arc;

use astral_media::catalog::Catalog;
use astral_media::frame::Frame;
use astral_media::ts::mux::{MuxError, TsMuxer};
use astral_proto::record::StreamState;
use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _, stream};
use hyper::header::CONTENT_TYPE;
use hyper::{Method, StatusCode, Uri};
use tokio::time::timeout;
use tracing::debug;

use super::super::problem::Failure;
use super::super::{App, Caller};
use super::egress::Egress;
use super::{FIRST_TIMEOUT, wish};
use crate::handle::{Live, ReaderGuard};
use crate::store::{LiveEvent, LiveReader};

/// Answers once it is known what there is to play; ends at the stream's end, at a
/// configuration that a transport stream cannot carry, and when the node stops.
#[utoipa::path(
    get,
    path = "/live/{slug}/stream.ts",
    params(
        ("slug" = String, Path, description = "Slug, full slug, id or share link"),
        ("target_ms" = Option<u32>, Query, description = "How far behind the newest frame to begin"),
        ("from_ms" = Option<i64>, Query, description = "Begin at this time of the stream instead"),
    ),
    responses((status = 200, description = "MPEG-TS from a keyframe on; endless", content_type = "video/mp2t", body = Vec<u8>)),
)]
pub(in super::super) async fn stream(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(slug): Path<String>,
    method: Method,
    uri: Uri,
) -> Result<Response, Failure> {
    let (start, _) = wish(&uri)?;
    let id = app.handle.resolve(&slug).await?;
    let headers = [(CONTENT_TYPE, "video/mp2t")];
    if method == Method::HEAD {
        // Asking about the stream is not asking for it.
        return Ok(headers.into_response());
    }
    let mut feed = Feed::new(app.handle.open_live(id, start).await?);
    let configured = timeout(FIRST_TIMEOUT, feed.configured()).await;
    match configured {
        Ok(Some(Ok(()))) => {}
        Ok(Some(Err(error))) => return Err(refusal(&error)),
        Ok(None) | Err(_) => return Err(Failure::not_now("the stream has nothing to play yet")),
    }
    let egress = Egress::new(&app, &caller);
    let bytes = pieces(feed, egress).take_until(app.stop.clone().cancelled_owned());
    Ok((headers, Body::from_stream(bytes)).into_response())
}

fn refusal(error: &MuxError) -> Failure {
    let words = format!("{error}; stream.mp4 has it");
    Failure::new(StatusCode::UNPROCESSABLE_ENTITY, words)
}

fn pieces(feed: Feed, egress: Egress) -> impl Stream<Item = Result<Bytes, std::io::Error>> + Send {
    stream::unfold((feed, egress), |(mut feed, egress)| async {
        let (group, bytes) = feed.next().await?;
        egress.charge(group, bytes.len()).await;
        Some((Ok(bytes), (feed, egress)))
    })
}

/// One player's source; the node knows of the reader until it is dropped.
struct Feed {
    reader: LiveReader,
    muxer: TsMuxer,
    _guard: ReaderGuard,
}

impl Feed {
    fn new(live: Live) -> Self {
        Self {
            reader: live.reader,
            muxer: TsMuxer::new(),
            _guard: live.guard,
        }
    }

    /// Waits for the first configuration; `None` when the stream is over before.
    async fn configured(&mut self) -> Option<Result<(), MuxError>> {
        loop {
            match self.reader.next().await {
                LiveEvent::Catalog(catalog) => return Some(self.muxer.catalog(&catalog)),
                LiveEvent::State(StreamState::Ended) => return None,
                LiveEvent::Frame(_) | LiveEvent::Lost { .. } | LiveEvent::State(_) => {}
            }
        }
    }

    /// The next packets and the group they are of; `None` at the end.
    async fn next(&mut self) -> Option<(u64, Bytes)> {
        loop {
            match self.reader.next().await {
                LiveEvent::Catalog(catalog) => self.configure(&catalog)?,
                LiveEvent::Frame(frame) => {
                    let bytes = self.write(&frame);
                    if !bytes.is_empty() {
                        return Some((frame.group, bytes));
                    }
                }
                LiveEvent::Lost { track, .. } => self.muxer.lost(track),
                LiveEvent::State(StreamState::Ended) => return None,
                LiveEvent::State(
                    StreamState::Live | StreamState::Waiting | StreamState::Paused,
                ) => {}
            }
        }
    }

    fn configure(&mut self, catalog: &Catalog) -> Option<()> {
        let configured = self.muxer.catalog(catalog);
        if let Err(error) = &configured {
            debug!(%error, epoch = catalog.epoch, "transport stream ends");
        }
        configured.ok()
    }

    fn write(&mut self, frame: &Frame) -> Bytes {
        let mut out = BytesMut::new();
        if let Err(error) = self.muxer.frame(frame, &mut out) {
            debug!(%error, track = frame.track, group = frame.group, "frame left out");
            self.muxer.lost(frame.track);
        }
        out.freeze()
    }
}
