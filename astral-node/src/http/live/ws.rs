//! `GET /live/{slug}/ws`: media and state for the watch page on one connection.
//!
//! Text messages are JSON with a `type`: `init` right before each binary init
//! segment, `state`, `gap`, and `error` before a close on our side. Every other
//! binary message is one whole moof+mdat. What the page says is not listened to.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use hyper::Uri;
use serde_json::json;
use tokio::time::timeout;
use tracing::debug;

use super::super::problem::Failure;
use super::super::{App, Caller};
use super::egress::Egress;
use super::feed::{Feed, Part};
use super::{state, wish};
use crate::store::StartAt;

/// Longest that a browser may take to accept one message.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for the other side's part of closing.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest message that is read, in bytes; nothing is expected but pings.
const MESSAGE_BYTES_MAX: usize = 4 * 1024;

/// Upgrades; whatever is wrong with the stream is said inside, since a page
/// cannot see the status of a handshake that failed.
#[utoipa::path(
    get,
    path = "/live/{slug}/ws",
    params(
        ("slug" = String, Path, description = "Slug, full slug, id or share link"),
        ("target_ms" = Option<u32>, Query, description = "How far behind the newest frame to begin"),
        ("from_ms" = Option<i64>, Query, description = "Begin at this time of the stream instead"),
    ),
    responses((status = 101, description = "WebSocket: binary messages are whole pieces of fMP4, text messages JSON")),
)]
pub(in super::super) async fn connect(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(slug): Path<String>,
    uri: Uri,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let start = match wish(&uri) {
        Ok((start, _)) => start,
        Err(failure) => return failure.into_response(),
    };
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => {
            let status = rejection.status();
            return Failure::new(status, "this path speaks WebSocket (RFC 6455)").into_response();
        }
    };
    // The upgraded socket runs in a task of its own, which stopping waits for.
    let counted = app.tasks.token();
    upgrade
        .max_message_size(MESSAGE_BYTES_MAX)
        .max_frame_size(MESSAGE_BYTES_MAX)
        .on_upgrade(move |socket| async move {
            let kill = app.kill.clone();
            tokio::select! {
                () = session(&app, &caller, &slug, start, socket) => {}
                () = kill.cancelled() => {}
            }
            drop(counted);
        })
}

/// Why a session is over.
enum Over {
    /// The page is gone, or does not take what it is sent.
    Gone,
    /// The page is told.
    Failed(Failure),
}

impl<E: Into<Failure>> From<E> for Over {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

async fn session(app: &App, caller: &Caller, slug: &str, start: StartAt, socket: WebSocket) {
    let mut socket = Socket(socket);
    let over = match play(app, caller, slug, start, &mut socket).await {
        Ok(never) => match never {},
        Err(over) => over,
    };
    debug!(peer = %caller.peer, slug, gone = matches!(over, Over::Gone), "live socket closed");
    if let Over::Failed(failure) = over {
        let problem = failure.problem;
        let text = json!({
            "type": "error", "status": problem.status,
            "title": problem.title, "detail": problem.detail,
        });
        let _ = socket.text(text.to_string()).await;
        socket.close(&problem.title).await;
    }
}

async fn play(
    app: &App,
    caller: &Caller,
    slug: &str,
    start: StartAt,
    socket: &mut Socket,
) -> Result<std::convert::Infallible, Over> {
    let stream = app.handle.stream(slug).await?;
    // Joining takes a while; the page can already show what is on.
    socket.text(state::message(&stream, None)).await?;
    let live = app.handle.open_live(stream.id, start).await?;
    let states = state::messages(app.handle.clone(), stream.id, Arc::clone(&live.store));
    let mut states = pin!(states);
    let parts = stream::unfold(Feed::new(live), |mut feed| async {
        feed.next().await.map(|part| (part, feed))
    });
    let mut parts = pin!(parts.fuse());
    let egress = Egress::new(app, caller);
    loop {
        tokio::select! {
            () = app.stop.cancelled() => return Err(Failure::not_now("the node is stopping").into()),
            heard = socket.0.recv() => match heard {
                Some(Ok(Message::Text(_) | Message::Binary(_) | Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(Over::Gone),
            },
            Some(text) = states.next() => socket.text(text).await?,
            Some(part) = parts.next() => socket.part(part, &egress).await?,
        }
    }
}

/// A WebSocket on which every message has its time.
struct Socket(WebSocket);

impl Socket {
    async fn part(&mut self, part: Part, egress: &Egress) -> Result<(), Over> {
        match part {
            Part::Init { mime, epoch, bytes } => {
                let text = json!({"type": "init", "mime": mime, "epoch": epoch});
                self.text(text.to_string()).await?;
                self.binary(0, bytes, egress).await
            }
            Part::Piece { group, bytes } => self.binary(group, bytes, egress).await,
            Part::Gap {
                track,
                from_ms,
                to_ms,
            } => {
                let text =
                    json!({"type": "gap", "track": track, "from_ms": from_ms, "to_ms": to_ms});
                self.text(text.to_string()).await
            }
        }
    }

    async fn text(&mut self, text: String) -> Result<(), Over> {
        self.send(Message::Text(text.into())).await
    }

    async fn binary(&mut self, group: u64, bytes: Bytes, egress: &Egress) -> Result<(), Over> {
        egress.charge(group, bytes.len()).await;
        self.send(Message::Binary(bytes)).await
    }

    async fn send(&mut self, message: Message) -> Result<(), Over> {
        match timeout(SEND_TIMEOUT, self.0.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Over::Gone),
        }
    }

    /// Closes, and waits for the other side so that nothing sent before is lost.
    async fn close(&mut self, reason: &str) {
        let frame = CloseFrame {
            code: close_code::AWAY,
            reason: reason.into(),
        };
        if self.send(Message::Close(Some(frame))).await.is_ok() {
            let _ = timeout(CLOSE_TIMEOUT, async {
                while let Some(Ok(_)) = self.0.recv().await {}
            })
            .await;
        }
    }
}
