//! One track's part of one group on its way to one child.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use astral_proto::wire::CloseCode;
use astral_proto::wire::media::GroupHeader;
use bytes::{Bytes, BytesMut};
use tokio::time::{Instant, timeout};
use tracing::debug;

use super::Route;
use crate::store::{Group, GroupCursor, Piece};
use crate::uplink::Class;

/// Once the next group is open for this long, a group that is still being sent
/// loses its discardable frames.
const DISCARD_AFTER: Duration = Duration::from_millis(200);
/// And after this long the rest of it: it could only be late.
const LATE_AFTER: Duration = Duration::from_millis(1_500);
/// A child this many frames behind within a group loses discardable ones.
const LAG_FRAMES: u32 = 15;
/// A child that was once no further behind than this has caught up.
const LEVEL_FRAMES: u32 = 2;
/// Bytes written at a time: a chunk, its frame's header, and a short last chunk.
const WRITE_BYTES: usize = 20 * 1024;
/// How often a group that cannot be written is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Sends a group from frame and chunk `from` on, as it comes into the store.
pub(super) async fn send(route: Arc<Route>, group: Arc<Group>, from: (u32, u32), class: Class) {
    let opened = tokio::select! {
        opened = route.conn.open_uni() => opened,
        () = late(&route, &group, class) => return,
    };
    let Ok(mut stream) = opened else { return };
    let _ = stream.set_priority(priority(class));
    let mut sender = Sender {
        route: &route,
        group: &group,
        class,
        superseded: None,
        was_level: false,
    };
    let cursor = group.cursor(from.0, from.1);
    let outcome = tokio::select! {
        outcome = sender.pieces(&mut stream, cursor, from) => outcome,
        () = late(&route, &group, class) => Ok(false),
    };
    match outcome {
        Ok(true) => {
            let _ = stream.finish();
            // Late also when it is only un-acknowledged.
            if timeout(LATE_AFTER, stream.stopped()).await.is_err() && class != Class::Control {
                let _ = stream.reset((CloseCode::Late as u32).into());
            }
        }
        Ok(false) => {
            let (track, number) = (group.track, group.group);
            debug!(
                conn = route.id.0,
                track,
                group = number,
                "rest of a group left out"
            );
            let _ = stream.reset((CloseCode::Late as u32).into());
        }
        // Stopped by the child, or the connection is gone.
        Err(_) => {}
    }
}

/// Completes when what is left of a group could only be late; never for the catalog.
async fn late(route: &Route, group: &Group, class: Class) {
    if class == Class::Control {
        std::future::pending::<()>().await;
    }
    let mut since = None;
    while since.is_none_or(|since: Instant| since.elapsed() <= LATE_AFTER) {
        tokio::time::sleep(LOOK_EVERY).await;
        if since.is_none() && is_superseded(route, group) {
            since = Some(Instant::now());
        }
    }
}

/// Whether a newer group of the stream is open.
fn is_superseded(route: &Route, group: &Group) -> bool {
    let newest = route.store.newest();
    (newest.epoch, newest.group) > (group.epoch, group.group)
}

fn priority(class: Class) -> i32 {
    match class {
        Class::Control => 3,
        Class::Audio => 2,
        Class::Video => 1,
    }
}

struct Sender<'a> {
    route: &'a Route,
    group: &'a Group,
    class: Class,
    superseded: Option<Instant>,
    was_level: bool,
}

impl Sender<'_> {
    /// True if the group was sent to its end, false if the rest is too late.
    async fn pieces(
        &mut self,
        stream: &mut quinn::SendStream,
        mut cursor: GroupCursor,
        from: (u32, u32),
    ) -> Result<bool, quinn::WriteError> {
        self.write(stream, self.header(from)).await?;
        loop {
            match cursor.next().await {
                Piece::Header {
                    index,
                    wire,
                    discardable,
                    ..
                } => {
                    if discardable && self.is_behind(index) {
                        cursor.skip_frame();
                        continue;
                    }
                    self.write_with(stream, wire, &mut cursor).await?;
                    self.route.store.note_forwarded();
                }
                Piece::Chunk { bytes, .. } => self.write_with(stream, bytes, &mut cursor).await?,
                Piece::End { wire } => {
                    self.write(stream, wire).await?;
                    return Ok(true);
                }
                Piece::Gone => return Ok(false),
            }
        }
    }

    fn header(&self, from: (u32, u32)) -> Bytes {
        let header = GroupHeader {
            ticket: self.route.ticket,
            track: self.group.track,
            epoch: self.group.epoch,
            group: self.group.group,
            first_frame: from.0,
            first_chunk: from.1,
            catalog: self.group.catalog(),
        };
        let mut bytes = BytesMut::with_capacity(GroupHeader::BYTES_MAX);
        header.encode(&mut bytes);
        bytes.freeze()
    }

    /// Writes a piece, and with it what is there of the same frame, up to about a
    /// chunk: a header in a packet of its own would wake the transport once more.
    async fn write_with(
        &self,
        stream: &mut quinn::SendStream,
        first: Bytes,
        cursor: &mut GroupCursor,
    ) -> Result<(), quinn::WriteError> {
        let mut len = first.len();
        let mut pieces = vec![first];
        while let Some(chunk) = cursor.ready_chunk(WRITE_BYTES.saturating_sub(len)) {
            len += chunk.len();
            pieces.push(chunk);
        }
        self.turn(len).await;
        stream.write_all_chunks(&mut pieces).await
    }

    /// Waits for its turn, then writes.
    async fn write(
        &self,
        stream: &mut quinn::SendStream,
        bytes: Bytes,
    ) -> Result<(), quinn::WriteError> {
        self.turn(bytes.len()).await;
        stream.write_chunk(bytes).await
    }

    async fn turn(&self, len: usize) {
        let route = self.route;
        route.pace.room().await;
        route
            .uplink
            .acquire(self.class, route.id.0, self.group.group, len)
            .await;
        route.pace.wrote(len);
        route.bytes.fetch_add(len as u64, Ordering::Relaxed);
    }

    /// Time since the next group of this track opened.
    fn age(&mut self) -> Duration {
        if self.superseded.is_none() && is_superseded(self.route, self.group) {
            self.superseded = Some(Instant::now());
        }
        self.superseded
            .map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Whether the child cannot keep up. One that was never level with the stream is
    /// catching up, and loses nothing for it.
    fn is_behind(&mut self, index: u32) -> bool {
        let lag = self.group.reach().saturating_sub(index);
        self.was_level |= lag <= LEVEL_FRAMES;
        self.was_level && (lag > LAG_FRAMES || self.age() > DISCARD_AFTER)
    }
}
