//! The stream's state as the page's WebSocket tells it: at every change and each second.

use std::sync::Arc;
use std::time::Duration;

use astral_proto::api::Stream as ApiStream;
use astral_proto::ids::StreamId;
use futures_util::{Stream, stream};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::handle::Handle;
use crate::store::StreamStore;

/// Shortest time between two messages: ten a second are more than eyes can follow.
const CHANGES_APART: Duration = Duration::from_millis(100);
/// Longest time between two messages.
const STEADY: Duration = Duration::from_secs(1);

#[derive(Serialize)]
struct State<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    stream: &'a ApiStream,
    edge_ms: Option<i64>,
    bitrate_bps: u64,
}

/// The message for a stream; its store is missing until the node receives it.
pub(super) fn message(stream: &ApiStream, store: Option<&StreamStore>) -> String {
    let mut shown = stream.clone();
    shown.ingest = None;
    let state = State {
        kind: "state",
        edge_ms: store.map(|store| store.newest().end_ms),
        bitrate_bps: store.map_or(shown.bitrate_bps, |store| store.stats().bitrate_bps),
        stream: &shown,
    };
    serde_json::to_string(&state).expect("the API's types have text keys only")
}

struct Watching {
    handle: Handle,
    id: StreamId,
    store: Arc<StreamStore>,
    changes: watch::Receiver<u64>,
    said: Option<ApiStream>,
    said_at: Instant,
}

/// Messages for ever.
pub(super) fn messages(
    handle: Handle,
    id: StreamId,
    store: Arc<StreamStore>,
) -> impl Stream<Item = String> + Send {
    let mut changes = handle.changes();
    // What the player has been told so far was said before there was a store.
    changes.mark_changed();
    let watching = Watching {
        changes,
        handle,
        id,
        store,
        said: None,
        said_at: Instant::now(),
    };
    stream::unfold(watching, |mut watching| async {
        let message = watching.next().await;
        Some((message, watching))
    })
}

impl Watching {
    async fn next(&mut self) -> String {
        loop {
            let due = self.changed_or_due().await;
            let now = self.handle.stream_by_id(self.id).await.ok();
            let Some(now) = now.filter(|now| due || self.said.as_ref() != Some(now)) else {
                self.said_at = if due { Instant::now() } else { self.said_at };
                continue;
            };
            self.said_at = Instant::now();
            let message = message(&now, Some(&self.store));
            self.said = Some(now);
            return message;
        }
    }

    /// Waits for a change, `false`, or until a message is due anyway, `true`.
    async fn changed_or_due(&mut self) -> bool {
        let due = self.said_at + STEADY;
        let changed = async {
            if self.changes.changed().await.is_err() {
                // The node is going; the socket will be told.
                std::future::pending::<()>().await;
            }
            sleep_until(self.said_at + CHANGES_APART).await;
        };
        tokio::select! {
            () = changed => false,
            () = sleep_until(due) => true,
        }
    }
}
