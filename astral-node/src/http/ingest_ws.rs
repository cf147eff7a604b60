//! `GET /ingest/ws`: a browser's own encoder over a WebSocket (`astral.ingest.1`).
//!
//! The page's first message has the stream key: handshakes of pages carry no headers
//! of their own, and a key in the URL would be in logs. What the messages mean is
//! [`crate::ingest::frames`]'s business; here is the socket, with a limit and a time for
//! everything, and the codes it closes with:
//!
//! | code | when |
//! |---|---|
//! | 1000 | the page said that it was over, and everything is stored |
//! | 1001 | the node stops |
//! | 1009 | a message above the limit |
//! | 4001 | unknown stream key |
//! | 4002 | a codec that is not carried, or a configuration that cannot be used |
//! | 4003 | a message that is not what it should be, or none in time |
//! | 4009 | another encoder has the stream, or took it over |
//! | 4010 | the stream was ended |
//! | 4011 | this node could not do its part |

use std::sync::Arc;
use std::time::Duration;

use astral_media::packets::{HEADER, MAX_FRAME};
use axum::Extension;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::info;

use super::problem::Failure;
use super::{App, Caller};
use crate::ingest::frames::{FrameSource, FramesError, Said};
use crate::ingest::{SILENCE, SourceState};

/// The protocol's name in the handshake; pages that name none are taken as well.
const PROTOCOL: &str = "astral.ingest.1";
/// Longest message, in bytes.
const MESSAGE_BYTES_MAX: usize = HEADER + MAX_FRAME;
/// Longest wait for the first message.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest that the page may take to accept a message, all of which are short.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for the other side's part of closing.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Upgrades; whatever is wrong is said inside, since a page cannot see the status of a
/// handshake that failed.
#[utoipa::path(
    get,
    path = "/ingest/ws",
    responses((status = 101, description = "WebSocket for a browser's own encoder: the key and the tracks, then frames")),
)]
pub(super) async fn connect(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
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
        .protocols([PROTOCOL])
        .max_message_size(MESSAGE_BYTES_MAX)
        .max_frame_size(MESSAGE_BYTES_MAX)
        .on_upgrade(move |socket| async move {
            let kill = app.kill.clone();
            tokio::select! {
                () = session(&app, &caller, socket) => {}
                () = kill.cancelled() => {}
            }
            drop(counted);
        })
}

/// Why a socket is over.
#[derive(Debug)]
enum Over {
    /// The page said so; everything is stored.
    Ended,
    /// The page is gone, or fell silent.
    Gone,
    /// This node stops.
    Stopping,
    /// The page is told why.
    Refused(FramesError),
}

impl From<FramesError> for Over {
    fn from(error: FramesError) -> Self {
        Self::Refused(error)
    }
}

impl Over {
    /// Close code and, for errors, the words.
    fn close(&self) -> (u16, String) {
        let Self::Refused(error) = self else {
            return match self {
                Self::Ended => (1000, String::new()),
                Self::Gone | Self::Stopping | Self::Refused(_) => {
                    (1001, "the node is stopping".to_owned())
                }
            };
        };
        let code = match error {
            FramesError::UnknownKey => 4001,
            FramesError::Unsupported(_) => 4002,
            FramesError::Malformed(_) => 4003,
            FramesError::TooLong(_) => 1009,
            FramesError::Busy(_) => 4009,
            FramesError::Removed => 4010,
            FramesError::Failed(_) => 4011,
        };
        (code, error.to_string())
    }
}

async fn session(app: &App, caller: &Caller, mut socket: WebSocket) {
    let over = run(app, caller, &mut socket).await;
    info!(peer = %caller.peer, ?over, "browser's encoder disconnected");
    let (code, words) = over.close();
    if matches!(over, Over::Gone) {
        return;
    }
    let last = match over {
        Over::Ended => json!({"ended": true}),
        Over::Gone | Over::Stopping | Over::Refused(_) => json!({"error": words}),
    };
    if say(&mut socket, &last).await.is_ok() {
        close(&mut socket, code, &words).await;
    }
}

async fn run(app: &App, caller: &Caller, socket: &mut WebSocket) -> Over {
    let hello = tokio::select! {
        () = app.stop.cancelled() => return Over::Stopping,
        hello = timeout(HELLO_TIMEOUT, heard(socket)) => hello,
    };
    let hello = match hello {
        Ok(Ok(Heard::Text(hello))) => hello,
        Ok(Ok(Heard::Binary(_))) => return malformed("the first message is JSON with the key"),
        Ok(Ok(Heard::Closed { .. })) => return Over::Gone,
        Ok(Err(over)) => return over,
        Err(_) => return malformed("the first message did not come"),
    };
    let registry = app.handle.registry();
    let mut source = match FrameSource::open(registry, &hello, caller.peer).await {
        Ok(source) => source,
        Err(error) => return error.into(),
    };
    let over = match take(app, &mut source, socket).await {
        Ok(never) => match never {},
        Err(over) => over,
    };
    source.finish(matches!(over, Over::Ended)).await;
    over
}

/// Takes frames until something ends it.
async fn take(
    app: &App,
    source: &mut FrameSource,
    socket: &mut WebSocket,
) -> Result<std::convert::Infallible, Over> {
    let stream = app.handle.stream_by_id(source.stream()).await;
    let slug = stream.map_or_else(|_| source.stream().to_string(), |stream| stream.slug);
    let mut state = source.state();
    let epoch = state.borrow().epoch;
    say(socket, &json!({"ok": true, "slug": slug, "epoch": epoch})).await?;
    let replaced = source.replaced();
    let mut been = Been::default();
    loop {
        let heard = tokio::select! {
            biased;
            () = app.stop.cancelled() => return Err(Over::Stopping),
            () = replaced.cancelled() => return Err(source.over().into()),
            heard = timeout(SILENCE, heard(socket)) => heard.map_err(|_| Over::Gone)??,
            Ok(()) = state.changed() => {
                tell(socket, source, &mut state, &mut been).await?;
                continue;
            }
        };
        match heard {
            Heard::Binary(frame) => source.binary(&frame).await?,
            Heard::Text(text) => match source.text(&text).await? {
                Said::More => {}
                Said::End => return Err(Over::Ended),
            },
            Heard::Closed { clean: true } => return Err(Over::Ended),
            Heard::Closed { clean: false } => return Err(Over::Gone),
        }
        if source.asks_for_key() {
            say(socket, &json!({"need_key": true})).await?;
        }
    }
}

/// Where the stream stood when the page was last told.
#[derive(Default)]
struct Been {
    live: bool,
    ever_live: bool,
}

/// Tells where the stream stands. When it goes on after a pause, only a keyframe can begin it.
async fn tell(
    socket: &mut WebSocket,
    source: &mut FrameSource,
    state: &mut watch::Receiver<SourceState>,
    been: &mut Been,
) -> Result<(), Over> {
    let (live, epoch) = {
        let now = state.borrow_and_update();
        (now.live, now.epoch)
    };
    if live && !been.live && been.ever_live {
        source.resumed();
    }
    been.live = live;
    been.ever_live |= live;
    say(socket, &json!({"state": {"live": live, "epoch": epoch}})).await
}

/// What came.
enum Heard {
    Text(String),
    Binary(bytes::Bytes),
    /// `clean`: with the code that says that it was meant (1000).
    Closed {
        clean: bool,
    },
}

/// The next message that says something. Cancel safe.
async fn heard(socket: &mut WebSocket) -> Result<Heard, Over> {
    loop {
        return Ok(match socket.next().await {
            Some(Ok(Message::Text(text))) => Heard::Text(text.as_str().to_owned()),
            Some(Ok(Message::Binary(bytes))) => Heard::Binary(bytes),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
            Some(Ok(Message::Close(frame))) => Heard::Closed {
                clean: frame.is_some_and(|frame| frame.code == 1000),
            },
            Some(Err(error)) if is_too_long(&error) => {
                let words = format!("a message is longer than {MESSAGE_BYTES_MAX} bytes");
                return Err(FramesError::TooLong(words).into());
            }
            Some(Err(_)) | None => Heard::Closed { clean: false },
        });
    }
}

/// Whether the WebSocket's own limit was hit; its error has no type that shows it.
fn is_too_long(error: &axum::Error) -> bool {
    error.to_string().contains("too long")
}

fn malformed(words: &str) -> Over {
    FramesError::Malformed(words.to_owned()).into()
}

async fn say(socket: &mut WebSocket, words: &Value) -> Result<(), Over> {
    send(socket, Message::Text(words.to_string().into())).await
}

async fn send(socket: &mut WebSocket, message: Message) -> Result<(), Over> {
    match timeout(SEND_TIMEOUT, socket.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Over::Gone),
    }
}

/// Closes, and waits for the other side so that nothing sent before is lost.
async fn close(socket: &mut WebSocket, code: u16, reason: &str) {
    // A close frame has room for 123 bytes of words (RFC 6455 §5.5).
    let reason: String = reason.chars().take(40).collect();
    let frame = CloseFrame {
        code,
        reason: reason.into(),
    };
    if send(socket, Message::Close(Some(frame))).await.is_ok() {
        let _ = timeout(CLOSE_TIMEOUT, async {
            while let Some(Ok(_)) = socket.next().await {}
        })
        .await;
    }
}
