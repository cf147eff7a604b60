//! What a node holds of one stream: a ring of groups that grows at one end and
//! is forgotten at the other, with readers that each have a cursor of their own.
//!
//! ```text
//!  publisher ─┐                        ┌─► GroupCursor (one child, one track): chunk by chunk
//!  receivers ─┴► StreamStore ─► Group ─┤
//!                  │  catalog          └─► GroupCursor …
//!                  └────────────────────► LiveReader (a local player): whole frames, in order
//! ```
//!
//! The store knows no peers and trusts none: headers come in with a verified
//! signature, and every chunk is checked against the hash in its header here.
//! Payload is shared [`Bytes`]; a reader never copies it, and a slow reader holds
//! nothing back, it finds its group [`Piece::Gone`].
//!
//! **Epochs** (DESIGN §3). The newest complete catalog names the current epoch.
//! Frames of an older epoch are refused, except into groups of the epoch just
//! before that were open when it changed, for [`LATE_EPOCH`]: the catalog travels
//! ahead of the media and would cut off their tail. Frames of a newer epoch are
//! kept aside, unseen by readers, until its catalog is there; the room for them
//! is [`PENDING_BYTES_MAX`], beyond it they are refused.
//!
//! **What is kept** (DESIGN §4): the last [`GROUPS_KEPT`] groups and all within
//! [`MEDIA_KEPT_MS`] of media time, which makes every node keep the same; at most
//! [`BYTES_MAX`] and [`GROUPS_MAX`], which win.

mod cursor;
mod group;
mod holes;
mod live;
mod rate;
mod ring;
mod segments;
#[cfg(test)]
mod tests;

use crate::lock::lock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use astral_media::catalog::Catalog;
use astral_media::frame::Frame;
use astral_proto::ids::{PublicKey, StreamId};
use astral_proto::overlay::Hole;
use astral_proto::record::StreamState;
use astral_proto::wire::control::Have;
use astral_proto::wire::media::{FrameHeader, GroupEnd, Signed, chunk_range};
use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;

pub(crate) use cursor::{GroupCursor, Piece};
pub(crate) use group::Group;
pub(crate) use live::{LiveEvent, LiveReader, StartAt};
use ring::Ring;
pub(crate) use segments::Fetched;

/// Groups that are kept however old they are.
pub(crate) const GROUPS_KEPT: usize = 7;
/// Media time that is kept, in milliseconds.
pub(crate) const MEDIA_KEPT_MS: i64 = 12_000;
/// Most bytes held for one stream, headers and bookkeeping included.
pub(crate) const BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most groups held: the shortest that the segmenter makes is half a second, so
/// this is over twice what [`MEDIA_KEPT_MS`] needs.
pub(crate) const GROUPS_MAX: usize = 64;
/// Highest group number: at ten groups a second it lasts 890,000 years.
pub(crate) const GROUP_NUMBER_MAX: u64 = 1 << 48;
/// Bytes of a newer epoch held while its catalog is not there: 4 s at 16 Mbit/s.
pub(crate) const PENDING_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Groups of a newer epoch held while its catalog is not there.
pub(crate) const PENDING_GROUPS_MAX: usize = 8;
/// Time after a change of epoch in which open groups of the one before are completed.
pub(crate) const LATE_EPOCH: Duration = Duration::from_secs(2);
/// How long a [`GroupCursor`] waits for a missing frame once a later one of its group is
/// complete.
pub(crate) const HOLE_PATIENCE: Duration = Duration::from_millis(500);
/// How long it waits for the rest of a frame, or of a group that is over: nothing of the
/// group could go on meanwhile, and a node that has lost its parent gets the rest from
/// another one.
pub(crate) const REST_PATIENCE: Duration = Duration::from_millis(1_500);
/// How long a [`LiveReader`] waits for a missing frame once a later one of its track is
/// complete: what a player of usual latency has in its buffer.
pub(crate) const LIVE_PATIENCE: Duration = Duration::from_millis(1_000);
/// How long it waits for a track that is behind the others as a whole.
pub(crate) const TRACK_PATIENCE: Duration = Duration::from_secs(3);
/// A frame that is missing for this long, though later ones are here, is a hole: not one
/// that another uni stream is just about to bring.
pub(crate) const HOLE_AFTER: Duration = Duration::from_millis(120);
/// Frames that whoever is level may be behind whoever is first.
pub(crate) const FRONT_FRAMES: u32 = 8;
/// Holes told at a time.
pub(crate) const HOLES_MAX: usize = 16;
/// Time after which a hole in a group that is over counts as lost.
pub(crate) const LOST_AFTER: Duration = Duration::from_secs(3);

/// What became of a frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admit {
    /// The frame is wanted from this chunk on.
    Wanted {
        /// First chunk that is missing.
        next_chunk: u32,
    },
    /// The frame is complete already.
    Have,
    /// Its group is forgotten already.
    Old,
}

/// Why something was not taken into the store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StoreError {
    /// A frame of an epoch that is over: late, or replayed.
    #[error("epoch {epoch} is over, the current one is {current}")]
    OldEpoch {
        /// Epoch of the frame.
        epoch: u32,
        /// Current epoch.
        current: u32,
    },
    /// The catalog of this newer epoch has not arrived, and the room for frames without it is used up.
    #[error("too much media of epoch {epoch} without its catalog")]
    CatalogMissing {
        /// Epoch of the frame.
        epoch: u32,
    },
    /// A catalog that cannot be read, or that is not what its name says.
    #[error("catalog: {0}")]
    BadCatalog(String),
    /// The publisher signed one name twice with different content.
    #[error("track {track} group {group} frame {index} was signed twice with different content")]
    Conflict {
        /// Track of the name.
        track: u8,
        /// Group of the name.
        group: u64,
        /// Frame of the name; for a group's end its count of frames.
        index: u32,
    },
    /// A chunk that is not what the publisher signed.
    #[error("chunk {chunk} of track {track} group {group} frame {index} does not verify")]
    BadChunk {
        /// Track.
        track: u8,
        /// Group.
        group: u64,
        /// Frame.
        index: u32,
        /// Chunk.
        chunk: u32,
    },
    /// A track that the epoch's catalog does not have.
    #[error("track {0} is not in the catalog")]
    UnknownTrack(u8),
    /// Something is over its limit.
    #[error("{what} is over its limit")]
    Limit {
        /// What.
        what: &'static str,
    },
}

/// Newest media in the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Newest {
    /// Current epoch.
    pub(crate) epoch: u32,
    /// Newest group.
    pub(crate) group: u64,
    /// Frames of its main track (video, else the first track) up to the last complete one.
    pub(crate) frames: u32,
    /// End of the newest complete frame of any track, on the stream's timeline.
    pub(crate) end_ms: i64,
}

/// What the store took in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stats {
    /// Complete frames, the catalog's not counted.
    pub(crate) frames: u64,
    /// Bytes of headers and payload.
    pub(crate) bytes: u64,
    /// Frames missing in groups that have been over for [`LOST_AFTER`]; falls if
    /// one is repaired after all.
    pub(crate) lost: u64,
    /// Groups missing altogether between others of the same epoch.
    pub(crate) lost_groups: u64,
    /// Rate of the last second.
    pub(crate) bitrate_bps: u64,
    /// Highest rate of any second of the last five.
    pub(crate) peak_bps: u64,
    /// When the last verified chunk arrived.
    pub(crate) last_chunk_at: Option<Instant>,
    /// The longest pause between chunks that is usual; zero while unknown.
    pub(crate) usual_gap: Duration,
    /// Bytes held now, bookkeeping included.
    pub(crate) held: usize,
    /// Frames written to children.
    pub(crate) forwarded: u64,
    /// Times that bytes did not verify.
    pub(crate) refused: u64,
}

/// All that is held of one stream; shared by its writers and readers.
pub(crate) struct StreamStore {
    id: StreamId,
    key: PublicKey,
    ring: Mutex<Ring>,
    /// Bumped when a group opens, or the catalog or the state changes.
    opened: watch::Sender<u64>,
    /// Bumped when anything happens that a [`LiveReader`] waits for.
    progress: watch::Sender<()>,
    forwarded: AtomicU64,
    refused: AtomicU64,
}

impl StreamStore {
    /// An empty store for the stream with this id and key.
    pub(crate) fn new(id: StreamId, key: PublicKey) -> Arc<Self> {
        Arc::new(Self {
            id,
            key,
            ring: Mutex::new(Ring::new(Instant::now())),
            opened: watch::Sender::new(0),
            progress: watch::Sender::new(()),
            forwarded: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        })
    }

    /// The stream.
    pub(crate) fn id(&self) -> StreamId {
        self.id
    }

    /// The key that its headers are signed with.
    pub(crate) fn key(&self) -> &PublicKey {
        &self.key
    }

    /// Takes in a frame's header, whose signature the caller has verified. Frames
    /// may come in any order, from several providers, and more than once.
    ///
    /// # Errors
    /// See [`StoreError`]. [`StoreError::OldEpoch`] and [`StoreError::CatalogMissing`]
    /// can happen with an honest provider: the rest of that uni stream is of no use.
    pub(crate) fn begin_frame(&self, header: Signed<FrameHeader>) -> Result<Admit, StoreError> {
        let now = Instant::now();
        let mut ring = lock(&self.ring);
        let before = ring.changes;
        let begun = ring.begin_frame(header, now);
        self.notify(ring, before);
        begun
    }

    /// Takes in the next chunk of a frame whose header is here. Any other chunk,
    /// or one of a frame that has been forgotten, is dropped without a word.
    /// `bytes` must not be a slice of a much larger buffer, which it would keep alive.
    ///
    /// # Errors
    /// [`StoreError::BadChunk`] if it is not what was signed, [`StoreError::BadCatalog`]
    /// if it completes a catalog that cannot be read, [`StoreError::CatalogMissing`].
    pub(crate) fn push_chunk(
        &self,
        track: u8,
        group: u64,
        index: u32,
        chunk: u32,
        bytes: Bytes,
    ) -> Result<(), StoreError> {
        let candidates = lock(&self.ring).candidates(track, group);
        let mut expected = false;
        for candidate in candidates {
            match candidate.check(index, chunk, &bytes) {
                None => {}
                Some(false) => expected = true,
                Some(true) => return self.append(&candidate, index, chunk, bytes),
            }
        }
        if expected {
            return Err(StoreError::BadChunk {
                track,
                group,
                index,
                chunk,
            });
        }
        Ok(())
    }

    fn append(
        &self,
        group: &Arc<Group>,
        index: u32,
        chunk: u32,
        bytes: Bytes,
    ) -> Result<(), StoreError> {
        let now = Instant::now();
        let mut ring = lock(&self.ring);
        let before = ring.changes;
        ring.make_room(group, bytes.len())?;
        let taken = ring.append(group, index, chunk, bytes, now);
        self.notify(ring, before);
        group.wake();
        taken
    }

    /// Takes in a whole frame of this node's own making, without checking its hashes.
    ///
    /// # Errors
    /// As [`Self::begin_frame`].
    pub(crate) fn push_frame(
        &self,
        header: Signed<FrameHeader>,
        payload: &Bytes,
    ) -> Result<Admit, StoreError> {
        let name = (header.value.epoch, header.value.track, header.value.group);
        let (index, len) = (header.value.index, header.value.len as usize);
        let now = Instant::now();
        let mut ring = lock(&self.ring);
        let before = ring.changes;
        let mut admit = ring.begin_frame(header, now);
        let group = match admit {
            Ok(Admit::Wanted { next_chunk: 0 }) => ring.find(name.0, name.1, name.2),
            _ => None,
        };
        if let Some(group) = &group {
            for chunk in 0..astral_proto::wire::media::chunk_count(len) {
                let bytes = payload.slice(chunk_range(len, chunk));
                if let Err(error) = ring.append(group, index, chunk as u32, bytes, now) {
                    admit = Err(error);
                }
            }
            group.set_payload(index, payload);
        }
        self.notify(ring, before);
        if let Some(group) = group {
            group.wake();
        }
        admit
    }

    /// Takes in a group's end, whose signature the caller has verified.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if there are more frames than it says, or another
    /// end says otherwise; and as [`Self::begin_frame`].
    pub(crate) fn end_group(&self, end: Signed<GroupEnd>) -> Result<(), StoreError> {
        let now = Instant::now();
        let mut ring = lock(&self.ring);
        let before = ring.changes;
        let ended = ring.end_group(end, now);
        self.notify(ring, before);
        ended
    }

    /// Refuses epochs before this one: the signed stream record says that it is current.
    pub(crate) fn require_epoch(&self, epoch: u32) {
        lock(&self.ring).require_epoch(epoch, Instant::now());
    }

    /// Where the stream stands, as its publisher says.
    pub(crate) fn state(&self) -> StreamState {
        lock(&self.ring).state
    }

    /// Sets where the stream stands.
    pub(crate) fn set_state(&self, state: StreamState) {
        let mut ring = lock(&self.ring);
        let before = ring.changes;
        ring.set_state(state);
        self.notify(ring, before);
    }

    /// The newest catalog.
    pub(crate) fn catalog(&self) -> Option<Arc<Catalog>> {
        lock(&self.ring).catalog()
    }

    /// The newest media.
    pub(crate) fn newest(&self) -> Newest {
        lock(&self.ring).newest()
    }

    /// What was taken in so far, and at which rate.
    pub(crate) fn stats(&self) -> Stats {
        Stats {
            forwarded: self.forwarded.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            ..lock(&self.ring).stats(Instant::now())
        }
    }

    /// Counts a frame that was written to a child.
    pub(crate) fn note_forwarded(&self) {
        self.forwarded.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts bytes that did not verify.
    pub(crate) fn note_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Bumps when a group opens, or the catalog or the state changes.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.opened.subscribe()
    }

    /// Where a provider is to go on: per track the newest groups with something
    /// missing, and everything after the newest group.
    pub(crate) fn open_groups(&self) -> Have {
        lock(&self.ring).open_groups()
    }

    /// What is missing though later frames are here, the oldest first; at most [`HOLES_MAX`].
    pub(crate) fn holes(&self) -> Vec<Hole> {
        lock(&self.ring).holes(Instant::now())
    }

    /// Whether a frame is one of the newest of the main track: not more than
    /// [`FRONT_FRAMES`] behind, as the ways to two providers differ in length.
    pub(crate) fn is_front(&self, track: u8, group: u64, index: u32) -> bool {
        let ring = lock(&self.ring);
        let newest = ring.newest();
        let main = ring.numbers.last_key_value().map(|(_, entry)| entry.epoch);
        main.and_then(|epoch| ring.main_track(epoch)) == Some(track)
            && (group, index.saturating_add(FRONT_FRAMES)) >= (newest.group, newest.frames)
    }

    /// Bytes of all tracks' parts of a group that are here.
    pub(crate) fn bytes_of(&self, number: u64) -> usize {
        let ring = lock(&self.ring);
        let entry = ring.numbers.get(&number);
        let groups = entry.into_iter().flat_map(|entry| entry.tracks.values());
        groups.map(|group| group.bytes()).sum()
    }

    /// One group of a track; for track 0 the newest catalog if it has this version.
    pub(crate) fn group(&self, track: u8, number: u64) -> Option<Arc<Group>> {
        lock(&self.ring).group(track, number)
    }

    /// The groups of a track, oldest first; for track 0 the newest catalog only.
    pub(crate) fn groups(&self, track: u8) -> Vec<Arc<Group>> {
        lock(&self.ring).groups(track)
    }

    /// Wakes readers after the lock is released, so that none wakes only to wait for it.
    fn notify(&self, ring: MutexGuard<'_, Ring>, before: ring::Changes) {
        let after = ring.changes;
        drop(ring);
        if after.opened != before.opened {
            self.opened.send_modify(|count| *count += 1);
        }
        if after != before {
            self.progress.send_replace(());
        }
    }
}

/// The header of a frame, given the length and chunk hashes of its payload
/// ([`FrameHeader::digest`]).
pub(crate) fn header_of(frame: &Frame, digest: (u32, Vec<[u8; 32]>)) -> FrameHeader {
    let (len, chunks) = digest;
    FrameHeader {
        track: frame.track,
        epoch: frame.epoch,
        group: frame.group,
        index: frame.index,
        order: frame.order,
        dts: frame.dts,
        cts: frame.cts,
        duration: frame.duration,
        keyframe: frame.keyframe,
        discardable: frame.discardable,
        no_keyframe: frame.no_keyframe,
        len,
        chunks,
    }
}
