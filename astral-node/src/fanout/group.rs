//! One track's part of one group on its way to one child.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use astral_proto::wire::CloseCode;
use astral_proto::wire::control::Fetch;
use astral_proto::wire::media::GroupHeader;
use bytes::{Bytes, BytesMut};
use tokio::time::{Instant, timeout};
use tracing::debug;

use super::Route;
use crate::store::{Group, GroupCursor, Piece};
use crate::uplink::Class;

/// A child that has been behind for this long loses discardable frames: one that its
/// parent has just sent much at once, having been without for a time, is not behind.
const DISCARD_AFTER: Duration = Duration::from_millis(300);
/// Once the next group is open for this long, a group that is still being sent loses its
/// rest: it could only be late.
const LATE_AFTER: Duration = Duration::from_millis(1_500);
/// Until the next group is open for this long, the older one goes first: its last frames
/// are wanted sooner. Later it would only hold up what is live.
const IN_ORDER: Duration = Duration::from_millis(500);
/// A child this many frames behind within a group is behind.
const LAG_FRAMES: u32 = 15;
/// A child that is no further behind than this has caught up.
const LEVEL_FRAMES: u32 = 2;
/// Bytes written at a time: a chunk, its frame's header, and a short last chunk.
const WRITE_BYTES: usize = 20 * 1024;
/// How often a group that cannot be written is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// One uni stream's worth of work.
pub(super) struct Job {
    pub(super) group: Arc<Group>,
    /// First frame and chunk.
    pub(super) from: (u32, u32),
    pub(super) class: Class,
    /// Whether its track is the one that the others are measured by.
    pub(super) main: bool,
    /// Frames before this one have been written, or need not be: what a child that asks
    /// for them need not be sent again.
    pub(super) written: Arc<AtomicU32>,
}

/// How the sending of a group ended.
enum Outcome {
    /// All of it was sent.
    Sent,
    /// The rest would be too late.
    Late,
    /// It does not go on where it stopped; later frames may be there.
    Stuck,
}

/// A stream on its way.
///
/// When its ticket ends, what was written has [`LATE_AFTER`] to arrive. quinn alone would
/// finish it and never give up: what a link has lost while it was cut would be sent once
/// more when it is whole again, at the expense of those who are fed then.
struct Outgoing {
    /// `None` once it is in other hands.
    stream: Option<quinn::SendStream>,
    class: Class,
}

impl Outgoing {
    fn new(stream: quinn::SendStream, class: Class) -> Self {
        let _ = stream.set_priority(priority(class));
        Self {
            stream: Some(stream),
            class,
        }
    }

    fn stream(&mut self) -> &mut quinn::SendStream {
        self.stream.as_mut().expect("nobody has taken it")
    }

    /// All was written.
    async fn finish(mut self) {
        let class = self.class;
        finish(self.stream(), class).await;
        self.stream = None;
    }

    /// Takes back what has not arrived.
    fn reset(mut self) {
        if let Some(mut stream) = self.stream.take() {
            let _ = stream.reset((CloseCode::Late as u32).into());
        }
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        let runtime = tokio::runtime::Handle::try_current();
        if let (Some(mut stream), Ok(runtime)) = (self.stream.take(), runtime) {
            let class = self.class;
            runtime.spawn(async move { finish(&mut stream, class).await });
        }
    }
}

/// Waits for the acknowledgement, as a group is late also when it is only that.
async fn finish(stream: &mut quinn::SendStream, class: Class) {
    let _ = stream.finish();
    if timeout(LATE_AFTER, stream.stopped()).await.is_err() && class != Class::Control {
        let _ = stream.reset((CloseCode::Late as u32).into());
    }
}

/// Sends a group from frame and chunk `from` on, as it comes into the store.
pub(super) async fn send(route: Arc<Route>, mut job: Job) {
    loop {
        let opened = tokio::select! {
            opened = route.conn.open_uni() => opened,
            () = late(&route, &job) => return route.note_left_out(),
        };
        let Ok(stream) = opened else { return };
        let mut out = Outgoing::new(stream, job.class);
        let cursor = job.group.cursor(job.from.0, job.from.1);
        let mut sender = Sender::new(&route, &job);
        let outcome = tokio::select! {
            outcome = sender.pieces(out.stream(), cursor) => outcome,
            () = late(&route, &job) => Ok(Outcome::Late),
        };
        match outcome {
            Ok(Outcome::Sent) => return out.finish().await,
            Ok(Outcome::Late) => {
                let (track, number) = (job.group.track, job.group.group);
                debug!(
                    conn = route.id.0,
                    track,
                    group = number,
                    "rest of a group left out"
                );
                route.note_left_out();
                return out.reset();
            }
            Ok(Outcome::Stuck) => {
                out.reset();
                let stopped = job.written.load(Ordering::Relaxed);
                let Some(next) = job.group.next_from(stopped + 1) else {
                    return;
                };
                job.from = (next, 0);
            }
            // Stopped by the child, or the connection is gone.
            Err(_) => return,
        }
    }
}

/// Sends frames that a child missed and asked for, as far as they are in the store.
pub(super) async fn answer(route: Arc<Route>, group: Arc<Group>, fetch: Fetch, class: Class) {
    let Ok(stream) = route.conn.open_uni().await else {
        return;
    };
    let mut out = Outgoing::new(stream, class);
    let job = Job {
        group,
        from: (fetch.first, 0),
        class,
        main: false,
        written: Arc::default(),
    };
    let mut sender = Sender::new(&route, &job);
    let sent = sender.frames(out.stream(), fetch.first, fetch.count);
    let sent = timeout(LATE_AFTER, sent).await;
    if sent.is_ok_and(|sent| sent.is_ok()) {
        out.finish().await;
    } else {
        out.reset();
    }
}

/// Completes when what is left of a group could only be late; never for the catalog, nor
/// while the child catches up.
async fn late(route: &Route, job: &Job) {
    if job.class == Class::Control {
        std::future::pending::<()>().await;
    }
    let mut since = None;
    while since.is_none_or(|since: Instant| since.elapsed() <= LATE_AFTER) {
        tokio::time::sleep(LOOK_EVERY).await;
        if since.is_none() && !route.catches_up() && job.group.is_superseded() {
            since = Some(Instant::now());
        }
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
    job: &'a Job,
    superseded: Option<Instant>,
    behind: Option<Instant>,
}

impl<'a> Sender<'a> {
    fn new(route: &'a Route, job: &'a Job) -> Self {
        Self {
            route,
            job,
            superseded: None,
            behind: None,
        }
    }

    async fn pieces(
        &mut self,
        stream: &mut quinn::SendStream,
        mut cursor: GroupCursor,
    ) -> Result<Outcome, quinn::WriteError> {
        self.write(stream, self.header(self.job.from)).await?;
        loop {
            match cursor.next().await {
                Piece::Header {
                    index,
                    wire,
                    discardable,
                    ..
                } => {
                    self.job.written.store(index, Ordering::Relaxed);
                    if self.is_behind(index) && discardable {
                        self.route.note_left_out();
                        cursor.skip_frame();
                        continue;
                    }
                    self.write_with(stream, wire, &mut cursor).await?;
                    self.route.store.note_forwarded();
                }
                Piece::Chunk { bytes, .. } => self.write_with(stream, bytes, &mut cursor).await?,
                Piece::End { wire } => {
                    self.write(stream, wire).await?;
                    self.job.written.store(u32::MAX, Ordering::Relaxed);
                    return Ok(Outcome::Sent);
                }
                Piece::Gone if self.job.group.is_gone() => return Ok(Outcome::Late),
                Piece::Gone => return Ok(Outcome::Stuck),
            }
        }
    }

    /// Sends up to `count` frames from `first` on that are there, and the group's end if
    /// it comes next.
    async fn frames(
        &mut self,
        stream: &mut quinn::SendStream,
        first: u32,
        count: u32,
    ) -> Result<(), quinn::WriteError> {
        self.write(stream, self.header((first, 0))).await?;
        for index in first..first.saturating_add(count) {
            let Some(mut pieces) = self.job.group.complete(index) else {
                continue;
            };
            self.turn(pieces.iter().map(Bytes::len).sum()).await;
            stream.write_all_chunks(&mut pieces).await?;
            self.route.store.note_forwarded();
        }
        if let Some(end) = self.job.group.end_after(first.saturating_add(count)) {
            self.write(stream, end).await?;
        }
        Ok(())
    }

    fn header(&self, from: (u32, u32)) -> Bytes {
        let group = &self.job.group;
        let header = GroupHeader {
            ticket: self.route.ticket,
            track: group.track,
            epoch: group.epoch,
            group: group.group,
            first_frame: from.0,
            first_chunk: from.1,
            catalog: group.catalog(),
        };
        let mut bytes = BytesMut::with_capacity(GroupHeader::BYTES_MAX);
        header.encode(&mut bytes);
        bytes.freeze()
    }

    /// Writes a piece, and with it what is there of the same frame, up to about a
    /// chunk: a header in a packet of its own would wake the transport once more.
    async fn write_with(
        &mut self,
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
        &mut self,
        stream: &mut quinn::SendStream,
        bytes: Bytes,
    ) -> Result<(), quinn::WriteError> {
        self.turn(bytes.len()).await;
        stream.write_chunk(bytes).await
    }

    async fn turn(&mut self, len: usize) {
        let route = self.route;
        route.pace.room().await;
        // Without a limit nobody waits, and the order is of no account.
        let rank = route.uplink.limit().map_or(0, |_| self.rank());
        let (class, child) = (self.job.class, route.id.0);
        route.uplink.acquire(class, child, rank, len).await;
        route.pace.wrote(len);
        route.bytes.fetch_add(len as u64, Ordering::Relaxed);
    }

    /// Place among the child's groups; higher goes first. A child that catches up gets
    /// everything in order, and any other one the end of a group that is just over before
    /// the next group; of those that are older still, the newest first.
    fn rank(&mut self) -> u64 {
        let number = self.job.group.group;
        if self.route.catches_up() || self.age() < IN_ORDER {
            u64::MAX - number
        } else {
            number
        }
    }

    /// Time since a newer group opened.
    fn age(&mut self) -> Duration {
        if self.superseded.is_none() && self.job.group.is_superseded() {
            self.superseded = Some(Instant::now());
        }
        self.superseded
            .map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Whether the child cannot keep up. One that was never level with the stream is
    /// catching up, and loses nothing for it.
    fn is_behind(&mut self, index: u32) -> bool {
        let lag = self.job.group.reach().saturating_sub(index);
        let superseded = !self.age().is_zero();
        if self.job.main && !superseded && lag <= LEVEL_FRAMES {
            self.route.note_level();
        }
        if self.route.catches_up() || lag <= if superseded { LEVEL_FRAMES } else { LAG_FRAMES } {
            self.behind = None;
            return false;
        }
        let since = *self.behind.get_or_insert_with(Instant::now);
        since.elapsed() > DISCARD_AFTER
    }
}
