//! Live media for players: `stream.mp4`, `stream.ts`, low-latency HLS and the page's
//! WebSocket.
//!
//! [`feed`] turns a reader's frames into pieces of fragmented MP4; [`mp4`] and
//! [`ws`] carry them. [`ts`] makes packets of a transport stream, [`hls`] answers from
//! the store. Memory per player is a piece or two: the reader has its own place in the
//! store, and the next piece is made when the last one is sent.

pub(super) mod egress;
mod feed;
pub(super) mod hls;
pub(super) mod mp4;
mod state;
pub(super) mod ts;
pub(super) mod ws;

use std::time::Duration;

use hyper::Uri;
use serde::Deserialize;

use super::extract::query;
use super::problem::Failure;
use crate::store::StartAt;

/// Longest wait for the first configuration; players give up not much later.
const FIRST_TIMEOUT: Duration = Duration::from_secs(10);
/// How far behind the newest frame playback begins, in milliseconds, unless the player says.
const TARGET_MS: u32 = 1_200;
/// Furthest, in milliseconds: what a store holds at least.
const TARGET_MS_MAX: u32 = 12_000;

/// What players say in the query; the rest of it is their own business.
#[derive(Deserialize)]
struct Wish {
    from_ms: Option<i64>,
    target_ms: Option<u32>,
    inline: Option<String>,
}

/// Where to start, and whether a new configuration follows in line.
fn wish(uri: &Uri) -> Result<(StartAt, bool), Failure> {
    let wish: Wish = query(uri)?;
    let target_ms = wish.target_ms.unwrap_or(TARGET_MS).min(TARGET_MS_MAX);
    let start = wish
        .from_ms
        .map_or(StartAt::Live { target_ms }, StartAt::FromMs);
    Ok((start, wish.inline.is_some_and(|inline| inline != "0")))
}
