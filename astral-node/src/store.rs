//! TEMPORARY stand-in, replaced at the merge: a store that replays a script.

use std::collections::VecDeque;
use std::sync::Arc;

use astral_media::catalog::Catalog;
use astral_media::frame::Frame;
use astral_proto::record::StreamState;

/// Where a reader starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StartAt {
    Live { target_ms: u32 },
    FromMs(i64),
}

/// What a reader meets.
#[derive(Clone, Debug)]
pub(crate) enum LiveEvent {
    Catalog(Arc<Catalog>),
    Frame(Frame),
    Lost {
        track: u8,
        group: u64,
        from: u32,
        count: u32,
    },
    State(StreamState),
}

/// Newest position.
pub(crate) struct Newest {
    pub(crate) end_ms: i64,
}

/// Counters.
pub(crate) struct Stats {
    pub(crate) bitrate_bps: u64,
}

/// Frames of one stream.
pub(crate) struct StreamStore;

impl StreamStore {
    pub(crate) fn newest(&self) -> Newest {
        Newest { end_ms: 4_000 }
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats {
            bitrate_bps: 2_000_000,
        }
    }
}

/// A reader with its own place.
pub(crate) struct LiveReader {
    pub(crate) script: VecDeque<LiveEvent>,
    pub(crate) endless: bool,
}

impl LiveReader {
    pub(crate) async fn next(&mut self) -> LiveEvent {
        let Some(event) = self.script.pop_front() else {
            return std::future::pending().await;
        };
        if self.endless && self.script.is_empty() {
            self.script.push_back(event.clone());
            tokio::task::yield_now().await;
        }
        event
    }
}
