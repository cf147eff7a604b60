//! One track's part of one group: frames by position, filled chunk by chunk.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use astral_proto::ids::SIGNATURE_LEN;
use astral_proto::limits::GROUP_FRAMES_MAX;
use astral_proto::wire::media::{FrameHeader, GroupEnd, Signed, chunk_count, chunk_range};
use bytes::{Bytes, BytesMut};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Admit, GroupCursor, HOLE_PATIENCE, LOST_AFTER, REST_PATIENCE, StoreError, lock};

/// What a frame costs beside its header's bytes and its payload: an estimate from
/// above of the map's entry, the parsed header and two allocations.
const FRAME_OVERHEAD: usize = 384;
/// What a chunk costs beside its payload: its [`Bytes`] and, for a while, its hash.
const CHUNK_OVERHEAD: usize = 64;
/// What an empty group costs.
pub(super) const GROUP_OVERHEAD: usize = 1024;

/// Bookkeeping and header of a frame, in bytes.
pub(super) fn frame_cost(header: &Signed<FrameHeader>) -> usize {
    FRAME_OVERHEAD + header.wire.len() + header.value.chunks.len() * CHUNK_OVERHEAD
}

/// One track's part of one group.
pub(crate) struct Group {
    /// Track number; 0 is the catalog.
    pub(crate) track: u8,
    /// Epoch.
    pub(crate) epoch: u32,
    /// Group number; for the catalog its version.
    pub(crate) group: u64,
    catalog: AtomicU32,
    inner: Mutex<Inner>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct Inner {
    frames: BTreeMap<u32, Slot>,
    end: Option<(Signed<GroupEnd>, Instant)>,
    superseded_at: Option<Instant>,
    gone: bool,
    bytes: usize,
    complete: u32,
    /// Frames up to the last complete one.
    reach: u32,
}

struct Slot {
    /// Without the chunk hashes once the frame is complete.
    header: FrameHeader,
    wire: Bytes,
    chunks: Vec<Bytes>,
    payload: Option<Bytes>,
    touched: Instant,
    complete_at: Option<Instant>,
}

/// What a chunk did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Appended {
    /// It was not the next one, or the frame is forgotten.
    Nothing,
    /// It was taken in.
    Chunk,
    /// It was the frame's last.
    Frame,
}

/// What a cursor finds at its place.
pub(super) enum Found {
    Header {
        wire: Bytes,
        keyframe: bool,
        discardable: bool,
        len: u32,
    },
    Chunk {
        bytes: Bytes,
        last: bool,
    },
    End(Bytes),
    /// Nothing yet; look again then, even if nothing changes.
    Wait(Option<Instant>),
    /// The frame does not come; the next that is there is this one.
    Skip(u32),
    Gone,
}

impl Group {
    pub(super) fn new(track: u8, epoch: u32, group: u64) -> Arc<Self> {
        Arc::new(Self {
            track,
            epoch,
            group,
            catalog: AtomicU32::new(0),
            inner: Mutex::default(),
            changed: watch::Sender::new(()),
        })
    }

    /// Version of the catalog, within the epoch, that these frames need.
    pub(crate) fn catalog(&self) -> u32 {
        self.catalog.load(Ordering::Relaxed)
    }

    pub(super) fn set_catalog(&self, version: u32) {
        self.catalog.store(version, Ordering::Relaxed);
    }

    /// A reader that begins at this chunk of this frame (its header comes all the same).
    pub(crate) fn cursor(self: &Arc<Self>, first_frame: u32, first_chunk: u32) -> GroupCursor {
        GroupCursor::new(
            Arc::clone(self),
            self.changed.subscribe(),
            first_frame,
            first_chunk,
        )
    }

    /// Whether it has been forgotten: its frames are no longer held.
    pub(crate) fn is_gone(&self) -> bool {
        lock(&self.inner).gone
    }

    /// Bytes of payload and headers held.
    pub(crate) fn bytes(&self) -> usize {
        lock(&self.inner).bytes
    }

    /// Whether a decoder can start at its first frame; none while that is not here.
    pub(crate) fn is_entry(&self) -> Option<bool> {
        let inner = lock(&self.inner);
        let first = inner.frames.get(&0)?;
        Some(first.header.keyframe && !first.header.no_keyframe)
    }

    /// Frames up to the last complete one.
    pub(crate) fn reach(&self) -> u32 {
        lock(&self.inner).reach
    }

    /// How many frames the publisher says it has, once that is known.
    pub(crate) fn frames(&self) -> Option<u32> {
        let inner = lock(&self.inner);
        inner.end.as_ref().map(|(end, _)| end.value.frames)
    }

    /// First frame, and first chunk of it, that is missing; none if nothing is.
    pub(crate) fn missing(&self) -> Option<(u32, u32)> {
        let inner = lock(&self.inner);
        if inner.is_complete() {
            return None;
        }
        let mut next = 0;
        for (&index, slot) in &inner.frames {
            if index != next || slot.complete_at.is_none() {
                break;
            }
            next += 1;
        }
        let chunks = inner.frames.get(&next).map_or(0, |slot| slot.chunks.len());
        Some((next, chunks as u32))
    }

    pub(super) fn begin(
        &self,
        header: Signed<FrameHeader>,
        now: Instant,
    ) -> Result<Admit, StoreError> {
        let mut inner = lock(&self.inner);
        if inner.gone {
            return Ok(Admit::Old);
        }
        let index = header.value.index;
        if let Some(slot) = inner.frames.get(&index) {
            return match slot {
                slot if signature(&slot.wire) != signature(&header.wire) => {
                    Err(self.conflict(index))
                }
                Slot {
                    complete_at: Some(_),
                    ..
                } => Ok(Admit::Have),
                slot => Ok(Admit::Wanted {
                    next_chunk: slot.chunks.len() as u32,
                }),
            };
        }
        if matches!(&inner.end, Some((end, _)) if index >= end.value.frames) {
            return Err(self.conflict(index));
        }
        inner.bytes += header.wire.len();
        let empty = header.value.len == 0;
        inner.frames.insert(
            index,
            Slot {
                header: header.value,
                wire: header.wire,
                chunks: Vec::new(),
                payload: empty.then(Bytes::new),
                touched: now,
                complete_at: empty.then_some(now),
            },
        );
        if empty {
            inner.completed(index);
        }
        drop(inner);
        // A header without a chunk is worth no reader's while.
        if !empty {
            return Ok(Admit::Wanted { next_chunk: 0 });
        }
        self.wake();
        Ok(Admit::Have)
    }

    fn conflict(&self, index: u32) -> StoreError {
        StoreError::Conflict {
            track: self.track,
            group: self.group,
            index,
        }
    }

    /// Whether these bytes are the chunk that the frame needs next; none if another is needed.
    pub(super) fn check(&self, index: u32, chunk: u32, bytes: &[u8]) -> Option<bool> {
        let (len, hash) = {
            let inner = lock(&self.inner);
            let slot = inner.frames.get(&index)?;
            if slot.complete_at.is_some() || slot.chunks.len() != chunk as usize {
                return None;
            }
            let hash = *slot.header.chunks.get(chunk as usize)?;
            (slot.header.len as usize, hash)
        };
        Some(
            bytes.len() == chunk_range(len, chunk as usize).len()
                && astral_proto::ids::sha256(bytes) == hash,
        )
    }

    /// Tells readers that there is more, once the caller has let go of its locks.
    pub(super) fn wake(&self) {
        self.changed.send_replace(());
    }

    /// Adds a chunk; [`Self::wake`] is the caller's to call.
    pub(super) fn append(&self, index: u32, chunk: u32, bytes: Bytes, now: Instant) -> Appended {
        let mut inner = lock(&self.inner);
        let inner = &mut *inner;
        let Some(slot) = inner.frames.get_mut(&index) else {
            return Appended::Nothing;
        };
        if slot.complete_at.is_some() || slot.chunks.len() != chunk as usize {
            return Appended::Nothing;
        }
        inner.bytes += bytes.len();
        slot.chunks.push(bytes);
        slot.touched = now;
        let complete = slot.chunks.len() == chunk_count(slot.header.len as usize);
        if complete {
            slot.complete_at = Some(now);
            slot.header.chunks = Vec::new();
            inner.completed(index);
        }
        if complete {
            Appended::Frame
        } else {
            Appended::Chunk
        }
    }

    /// Answers whether the end is new.
    pub(super) fn end(&self, end: Signed<GroupEnd>, now: Instant) -> Result<bool, StoreError> {
        let mut inner = lock(&self.inner);
        let frames = end.value.frames;
        if inner.gone {
            return Ok(false);
        }
        if let Some((known, _)) = &inner.end {
            return match known.value.frames == frames {
                true => Ok(false),
                false => Err(self.conflict(frames)),
            };
        }
        if matches!(inner.frames.last_key_value(), Some((&last, _)) if last >= frames) {
            return Err(self.conflict(frames));
        }
        inner.bytes += end.wire.len();
        inner.end = Some((end, now));
        drop(inner);
        self.changed.send_replace(());
        Ok(true)
    }

    /// A later group of the track is here.
    pub(super) fn supersede(&self, now: Instant) {
        let mut inner = lock(&self.inner);
        if inner.superseded_at.is_some() {
            return;
        }
        inner.superseded_at = Some(now);
        // Whoever reads a group that is complete waits for nothing.
        if inner.is_complete() {
            return;
        }
        drop(inner);
        self.changed.send_replace(());
    }

    /// Whether a later group of the track is here, or this one is forgotten: sound may be
    /// far ahead of the picture.
    pub(crate) fn is_superseded(&self) -> bool {
        let inner = lock(&self.inner);
        inner.gone || inner.superseded_at.is_some()
    }

    /// Forgets all frames; cursors find it gone.
    pub(super) fn evict(&self) {
        let mut inner = lock(&self.inner);
        *inner = Inner {
            gone: true,
            ..Inner::default()
        };
        drop(inner);
        self.changed.send_replace(());
    }

    /// Frames missing between `from` and the end as far as it is known, once the
    /// group has been over for long enough.
    pub(super) fn lost(&self, from_start: bool, now: Instant) -> u64 {
        let inner = lock(&self.inner);
        let over = inner.over_at();
        if over.is_none_or(|at| now.saturating_duration_since(at) < LOST_AFTER) {
            return 0;
        }
        inner.holes(from_start)
    }

    /// As [`Self::lost`], whether or not a frame might still come.
    pub(super) fn holes(&self, from_start: bool) -> u64 {
        lock(&self.inner).holes(from_start)
    }

    /// The first frame from this one on of which something is here.
    pub(crate) fn next_from(&self, index: u32) -> Option<u32> {
        let inner = lock(&self.inner);
        inner.frames.range(index..).next().map(|(index, _)| *index)
    }

    /// Header and chunks of a frame that is complete.
    pub(crate) fn complete(&self, index: u32) -> Option<Vec<Bytes>> {
        let inner = lock(&self.inner);
        let slot = inner.frames.get(&index)?;
        slot.complete_at?;
        let chunks = slot.chunks.iter().cloned();
        Some(std::iter::once(slot.wire.clone()).chain(chunks).collect())
    }

    /// The group's end, if it comes before this frame.
    pub(crate) fn end_after(&self, frame: u32) -> Option<Bytes> {
        let inner = lock(&self.inner);
        let (end, _) = inner.end.as_ref()?;
        (end.value.frames <= frame).then(|| end.wire.clone())
    }

    /// Runs of frames that have been missing for `after` though later ones are here, or
    /// the group is over: first and count. A missing end counts as one frame.
    pub(super) fn missing_runs(
        &self,
        from_start: bool,
        now: Instant,
        after: Duration,
    ) -> Vec<(u32, u32)> {
        let inner = lock(&self.inner);
        if inner.gone || inner.is_complete() {
            return Vec::new();
        }
        inner.missing_runs(from_start, now, after)
    }

    /// Whether a frame is complete, and since when.
    pub(super) fn complete_at(&self, index: u32) -> Option<Instant> {
        let inner = lock(&self.inner);
        inner.frames.get(&index)?.complete_at
    }

    /// Since when this frame, or one after it, is complete.
    pub(super) fn overtaken_at(&self, index: u32) -> Option<Instant> {
        let inner = lock(&self.inner);
        let later = inner.frames.range(index..);
        later.filter_map(|(_, slot)| slot.complete_at).min()
    }

    /// Decoding time and duration of a frame in ticks, and whether it is complete.
    pub(super) fn times(&self, index: u32) -> Option<(i64, u32, bool)> {
        let inner = lock(&self.inner);
        let slot = inner.frames.get(&index)?;
        let (dts, duration) = (slot.header.dts, slot.header.duration);
        Some((dts, duration, slot.complete_at.is_some()))
    }

    /// A complete frame: header and payload in one piece, which is made once for
    /// all readers and takes the place of the chunks it was made of.
    pub(super) fn whole(&self, index: u32) -> Option<(FrameHeader, Bytes)> {
        let mut inner = lock(&self.inner);
        let slot = inner.frames.get_mut(&index)?;
        slot.complete_at?;
        let Slot {
            header,
            chunks,
            payload,
            ..
        } = slot;
        let payload = payload.get_or_insert_with(|| join(chunks)).clone();
        Some((header.clone(), payload))
    }

    /// Calls `with` for each frame from the first on, up to one that is not complete.
    pub(super) fn each_complete(&self, mut with: impl FnMut(&FrameHeader)) {
        let inner = lock(&self.inner);
        for (next, (&index, slot)) in (0u32..).zip(&inner.frames) {
            if index != next || slot.complete_at.is_none() {
                return;
            }
            with(&slot.header);
        }
    }

    pub(super) fn set_payload(&self, index: u32, payload: &Bytes) {
        if let Some(slot) = lock(&self.inner).frames.get_mut(&index) {
            slot.payload = Some(payload.clone());
        }
    }

    /// What a cursor at this place gets next; `header_sent` says whether it has the
    /// frame's header.
    pub(super) fn look(&self, index: u32, chunk: u32, header_sent: bool, now: Instant) -> Found {
        let inner = lock(&self.inner);
        if inner.gone {
            return Found::Gone;
        }
        match inner.frames.get(&index) {
            // A header alone is no use to a reader, and a frame that got no further
            // can still be left out.
            Some(slot) if !header_sent && slot.is_behind(chunk) => inner.patience(index, None, now),
            Some(slot) if !header_sent => Found::Header {
                wire: slot.wire.clone(),
                keyframe: slot.header.keyframe,
                discardable: slot.header.discardable,
                len: slot.header.len,
            },
            Some(slot) => match slot.chunks.get(chunk as usize) {
                Some(bytes) => Found::Chunk {
                    bytes: bytes.clone(),
                    last: chunk as usize + 1 == chunk_count(slot.header.len as usize),
                },
                None => inner.patience(index, Some(slot.touched), now),
            },
            None => match &inner.end {
                Some((end, _)) if index >= end.value.frames => Found::End(end.wire.clone()),
                Some(_) | None => inner.patience(index, None, now),
            },
        }
    }
}

impl Slot {
    fn is_behind(&self, chunk: u32) -> bool {
        self.complete_at.is_none() && self.chunks.len() <= chunk as usize
    }
}

impl Inner {
    fn is_complete(&self) -> bool {
        matches!(&self.end, Some((end, _)) if self.complete == end.value.frames)
    }

    fn completed(&mut self, index: u32) {
        self.complete += 1;
        self.reach = self.reach.max(index + 1);
    }

    fn over_at(&self) -> Option<Instant> {
        let ended = self.end.as_ref().map(|(_, at)| *at);
        ended.into_iter().chain(self.superseded_at).min()
    }

    fn holes(&self, from_start: bool) -> u64 {
        let first = match self.frames.first_key_value() {
            Some((&first, _)) if !from_start => first,
            Some(_) | None => 0,
        };
        let seen = self
            .frames
            .last_key_value()
            .map_or(0, |(&last, _)| last + 1);
        let last = self.end.as_ref().map_or(seen, |(end, _)| end.value.frames);
        u64::from(last.saturating_sub(first).saturating_sub(self.complete))
    }

    fn missing_runs(&self, from_start: bool, now: Instant, after: Duration) -> Vec<(u32, u32)> {
        let is_due = |since: Instant| now.saturating_duration_since(since) >= after;
        if self.over_at().is_none() && self.complete == self.reach {
            return Vec::new();
        }
        let first = match self.frames.first_key_value() {
            Some((&first, _)) if !from_start => first,
            Some(_) | None => 0,
        };
        // From the end to the start: what is behind a hole shows that it is one.
        let mut runs = Vec::new();
        let mut later = self.over_at();
        let mut upper = match &self.end {
            Some((end, _)) => end.value.frames,
            // Everything from there on, and the end.
            None => u32::MAX,
        };
        for (&index, slot) in self.frames.range(first..).rev() {
            let Some(complete_at) = slot.complete_at else {
                if later.is_none_or(|since| !is_due(since.max(slot.touched))) {
                    push_run(&mut runs, index + 1, upper, later.filter(|at| is_due(*at)));
                    upper = index;
                }
                continue;
            };
            push_run(&mut runs, index + 1, upper, later.filter(|at| is_due(*at)));
            upper = index;
            later = Some(later.map_or(complete_at, |at| at.min(complete_at)));
        }
        push_run(&mut runs, first, upper, later.filter(|at| is_due(*at)));
        runs.reverse();
        runs
    }

    /// A frame is not there, or not all of it: wait, go behind the hole, or give up.
    fn patience(&self, index: u32, touched: Option<Instant>, now: Instant) -> Found {
        let later = self.frames.range(index + 1..);
        let overtaken = later.filter_map(|(_, slot)| slot.complete_at).min();
        let Some(since) = overtaken.into_iter().chain(self.over_at()).min() else {
            return Found::Wait(None);
        };
        let next = self.frames.range(index + 1..).next();
        let patience = match (touched, next) {
            (None, Some(_)) => HOLE_PATIENCE,
            (Some(_), _) | (None, None) => REST_PATIENCE,
        };
        let until = since.max(touched.unwrap_or(since)) + patience;
        if now < until {
            return Found::Wait(Some(until));
        }
        match (touched, next, &self.end) {
            // A payload of which a part is under way cannot be left out.
            (Some(_), _, _) => Found::Gone,
            (None, Some((&next, _)), _) => Found::Skip(next),
            (None, None, Some((end, _))) => Found::End(end.wire.clone()),
            (None, None, None) => Found::Gone,
        }
    }
}

/// Adds the frames from `first` to before `end`, if there are any and they are due.
fn push_run(runs: &mut Vec<(u32, u32)>, first: u32, end: u32, due: Option<Instant>) {
    if first < end && due.is_some() {
        runs.push((first, (end - first).min(GROUP_FRAMES_MAX)));
    }
}

/// The signature at the end of a signed thing. Two that are equal were made over
/// the same bytes, while the length in front of those could be written differently.
fn signature(wire: &Bytes) -> &[u8] {
    &wire[wire.len().saturating_sub(SIGNATURE_LEN)..]
}

/// One piece of memory for all chunks, of which they become slices.
fn join(chunks: &mut [Bytes]) -> Bytes {
    if let [only] = chunks {
        return only.clone();
    }
    let mut joined = BytesMut::with_capacity(chunks.iter().map(Bytes::len).sum());
    for chunk in chunks.iter() {
        joined.extend_from_slice(chunk);
    }
    let joined = joined.freeze();
    let mut at = 0;
    for chunk in chunks {
        let end = at + chunk.len();
        *chunk = joined.slice(at..end);
        at = end;
    }
    joined
}
