//! One track's part of one group on its way to one child.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use astral_proto::wire::CloseCode;
use astral_proto::wire::media::GroupHeader;
use bytes::{Bytes, BytesMut};
use tokio::time::Instant;
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

/// Sends a group from frame and chunk `from` on, as it comes into the store.
pub(super) async fn send(route: Arc<Route>, group: Arc<Group>, from: (u32, u32), class: Class) {
    let Ok(mut stream) = route.conn.open_uni().await else {
        return;
    };
    let _ = stream.set_priority(priority(class));
    let mut sender = Sender {
        route: &route,
        group: &group,
        class,
        superseded: None,
    };
    let cursor = group.cursor(from.0, from.1);
    match sender.pieces(&mut stream, cursor, from).await {
        Ok(true) => {
            let _ = stream.finish();
            // Late also when it is only un-acknowledged.
            let _ = tokio::time::timeout(LATE_AFTER, stream.stopped()).await;
        }
        Ok(false) => {
            let (track, number) = (group.track, group.group);
            let late = sender.age().as_millis() as u64;
            debug!(
                conn = route.id.0,
                track,
                group = number,
                late,
                "rest of a group left out"
            );
            let _ = stream.reset((CloseCode::Late as u32).into());
        }
        // Stopped by the child, or the connection is gone.
        Err(_) => {}
    }
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
            let piece = cursor.next().await;
            if self.age() > LATE_AFTER {
                return Ok(false);
            }
            match piece {
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
                    self.write(stream, wire).await?;
                }
                Piece::Chunk { bytes, .. } => self.write(stream, bytes).await?,
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

    /// Waits for its turn, then writes.
    async fn write(
        &self,
        stream: &mut quinn::SendStream,
        bytes: Bytes,
    ) -> Result<(), quinn::WriteError> {
        let len = bytes.len();
        let route = self.route;
        route.pace.room().await;
        route
            .uplink
            .acquire(self.class, route.id.0, self.group.group, len)
            .await;
        route.pace.wrote(len);
        route.bytes.fetch_add(len as u64, Ordering::Relaxed);
        stream.write_chunk(bytes).await
    }

    /// Time since the next group of this track opened.
    fn age(&mut self) -> Duration {
        if self.superseded.is_none() && self.class != Class::Control {
            let newest = self.route.store.newest();
            let newer = (newest.epoch, newest.group) > (self.group.epoch, self.group.group);
            self.superseded = newer.then(Instant::now);
        }
        self.superseded
            .map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn is_behind(&mut self, index: u32) -> bool {
        self.age() > DISCARD_AFTER || self.group.reach().saturating_sub(index) > LAG_FRAMES
    }
}
