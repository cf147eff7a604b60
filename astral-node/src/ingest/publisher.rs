//! From named frames to signed ones in the store, and the marks that outlive a crash.
//!
//! Nothing is signed before it is covered by durable marks: its epoch, its group and the
//! end of its time are at or below them. So a node that starts again goes on behind the
//! marks, and no name is signed twice with different content. Marks are raised
//! [`GROUPS_AHEAD`] and [`TIME_AHEAD_NS`] ahead in the background, so that a running
//! stream does not wait for the disk; what a crash skips is at most that.
//!
//! One [`Publisher`] belongs to one stream and outlives its encoders' sessions, which
//! use it under their stream's lock. It does no I/O: it says which marks it needs
//! ([`Publisher::needs`], [`Publisher::would_like`]), and is told when they are durable
//! ([`Publisher::raised`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use astral_media::catalog::Catalog;
use astral_media::frame::Frame;
use astral_media::segmenter::{Options, Segmented, Start};
use astral_media::timeline::ticks_to_ns;
use astral_proto::ids::{SecretKey, StreamId};
use astral_proto::limits::GROUP_FRAMES_MAX;
use astral_proto::wire::media::{FrameHeader, GroupEnd, Signed};

use super::SessionError;
use crate::storage::{Marks, OwnStream};
use crate::store::{StreamStore, header_of};

/// Group numbers that are made durable ahead of the current one.
const GROUPS_AHEAD: u64 = 2;
/// Time on the timeline that is made durable ahead, in nanoseconds; raised again when
/// half of it is used.
const TIME_AHEAD_NS: i64 = 4_000_000_000;

/// Signs a stream's frames and keeps its place on the timeline.
pub(super) struct Publisher {
    id: StreamId,
    key: SecretKey,
    store: Arc<StreamStore>,
    /// Where the next epoch would start.
    next: Start,
    durable: Marks,
    catalog: Option<Catalog>,
    open: Option<Open>,
}

/// The open group: per track the frames signed, as long as its end is not.
struct Open {
    epoch: u32,
    group: u64,
    frames: BTreeMap<u8, u32>,
}

impl Publisher {
    pub(super) fn new(stream: &OwnStream, store: Arc<StreamStore>) -> Self {
        let marks = stream.marks;
        Self {
            id: stream.id(),
            key: stream.key(),
            store,
            next: Start {
                epoch: marks.epoch.saturating_add(1),
                group: marks.group.saturating_add(1),
                time_ns: marks.time_ns.max(0),
            },
            durable: marks,
            catalog: None,
            open: None,
        }
    }

    pub(super) fn store(&self) -> &StreamStore {
        &self.store
    }

    /// The newest catalog of this run.
    pub(super) fn catalog(&self) -> Option<&Catalog> {
        self.catalog.as_ref()
    }

    /// Where a new epoch starts: right behind all that has been signed.
    pub(super) fn next_start(&self) -> Start {
        self.next
    }

    /// What a new session's segmenter has to know of those before it.
    pub(super) fn options(&self) -> Options {
        Options {
            target_duration_ms: self.catalog.as_ref().and_then(|c| c.target_duration_ms),
            ..Options::default()
        }
    }

    /// The marks that must be durable before this may be signed; none if they are.
    pub(super) fn needs(&self, item: &Segmented) -> Option<Marks> {
        let item = self.marks_of(item);
        let is_covered = item.epoch <= self.durable.epoch
            && item.group <= self.durable.group
            && item.time_ns <= self.durable.time_ns;
        (!is_covered).then_some(ahead_of(item))
    }

    /// The marks that should be raised meanwhile, so that nobody has to wait later.
    pub(super) fn would_like(&self) -> Option<Marks> {
        let open = self.open.as_ref()?;
        let signed = Marks {
            epoch: open.epoch,
            group: open.group,
            time_ns: self.next.time_ns,
        };
        let is_near = self.durable.group < signed.group + GROUPS_AHEAD
            || self.durable.time_ns - signed.time_ns < TIME_AHEAD_NS / 2;
        is_near.then_some(ahead_of(signed))
    }

    /// These marks are durable now.
    pub(super) fn raised(&mut self, marks: Marks) {
        self.durable.raise(marks);
    }

    /// Signs and stores what [`Self::needs`] nothing any more.
    ///
    /// # Errors
    /// What the network could not carry.
    pub(super) fn publish(&mut self, item: Prepared) -> Result<(), SessionError> {
        assert!(
            self.needs(&item.item).is_none(),
            "marks are durable before anything is signed"
        );
        match item.item {
            Segmented::Catalog(catalog) => self.catalog_frame(catalog),
            Segmented::Frame(frame) => self.frame(frame, item.digest),
            Segmented::GroupEnd {
                track,
                epoch,
                group,
                ..
            } => {
                self.open_group(epoch, group);
                self.end_track(track)
            }
        }
    }

    /// Ends the open group, if there is one; a session that was in it cannot go on.
    pub(super) fn close(&mut self) {
        let tracks = self.open.iter().flat_map(|open| open.frames.keys());
        for track in tracks.copied().collect::<Vec<_>>() {
            // The store can only refuse the end of a group that it has forgotten.
            let _ = self.end_track(track);
        }
        self.open = None;
    }

    fn catalog_frame(&mut self, catalog: Catalog) -> Result<(), SessionError> {
        let payload = catalog.encode().map_err(|error| {
            SessionError::Unsupported(format!("this configuration cannot be sent on: {error}"))
        })?;
        let (len, chunks) = FrameHeader::digest(&payload);
        let (epoch, group) = (catalog.epoch, u64::from(catalog.version));
        let header = FrameHeader {
            track: 0,
            epoch,
            group,
            index: 0,
            order: 0,
            dts: catalog.timeline_start_ms,
            cts: 0,
            duration: 0,
            keyframe: true,
            discardable: false,
            no_keyframe: false,
            len,
            chunks,
        };
        self.next.epoch = self.next.epoch.max(epoch.saturating_add(1));
        let signed = Signed::<FrameHeader>::sign(self.id, &self.key, header);
        self.store.push_frame(signed, &payload)?;
        self.catalog = Some(catalog);
        self.sign_end(GroupEnd {
            track: 0,
            epoch,
            group,
            frames: 1,
        })
    }

    fn frame(&mut self, frame: Frame, digest: (u32, Vec<[u8; 32]>)) -> Result<(), SessionError> {
        if frame.index >= GROUP_FRAMES_MAX {
            return Err(SessionError::Unsupported(format!(
                "more than {GROUP_FRAMES_MAX} frames without a keyframe"
            )));
        }
        let end_ns = self.end_ns(&frame);
        let open = self.open_group(frame.epoch, frame.group);
        open.frames.insert(frame.track, frame.index + 1);
        self.next.time_ns = self.next.time_ns.max(end_ns);
        let header = header_of(&frame, digest);
        let signed = Signed::<FrameHeader>::sign(self.id, &self.key, header);
        self.store.push_frame(signed, &frame.payload)?;
        Ok(())
    }

    /// The record of this group, which takes the place of any other.
    fn open_group(&mut self, epoch: u32, group: u64) -> &mut Open {
        let is_open = |open: &Open| (open.epoch, open.group) == (epoch, group);
        if !self.open.as_ref().is_some_and(is_open) {
            self.close();
            self.next.epoch = self.next.epoch.max(epoch.saturating_add(1));
            self.next.group = self.next.group.max(group.saturating_add(1));
        }
        let tracks = self.catalog.iter().flat_map(|catalog| &catalog.tracks);
        let frames = tracks.map(|track| (track.id, 0));
        self.open.get_or_insert_with(|| Open {
            epoch,
            group,
            frames: frames.collect(),
        })
    }

    fn end_track(&mut self, track: u8) -> Result<(), SessionError> {
        let Some(open) = &mut self.open else {
            return Ok(());
        };
        let (epoch, group) = (open.epoch, open.group);
        match open.frames.remove(&track) {
            Some(frames) => self.sign_end(GroupEnd {
                track,
                epoch,
                group,
                frames,
            }),
            None => Ok(()),
        }
    }

    fn sign_end(&self, end: GroupEnd) -> Result<(), SessionError> {
        let signed = Signed::<GroupEnd>::sign(self.id, &self.key, end);
        Ok(self.store.end_group(signed)?)
    }

    fn marks_of(&self, item: &Segmented) -> Marks {
        match item {
            Segmented::Catalog(catalog) => Marks {
                epoch: catalog.epoch,
                group: catalog.first_group,
                time_ns: catalog.timeline_start_ms.saturating_mul(1_000_000),
            },
            Segmented::Frame(frame) => Marks {
                epoch: frame.epoch,
                group: frame.group,
                time_ns: self.end_ns(frame),
            },
            Segmented::GroupEnd { epoch, group, .. } => Marks {
                epoch: *epoch,
                group: *group,
                time_ns: 0,
            },
        }
    }

    /// End of a frame on the timeline; that of the newest frame if its track is unknown.
    fn end_ns(&self, frame: &Frame) -> i64 {
        let catalog = self.catalog.as_ref();
        let track = catalog.and_then(|catalog| catalog.track(frame.track));
        let end = frame.dts.saturating_add(i64::from(frame.duration));
        track
            .and_then(|track| ticks_to_ns(end, track.timescale))
            .unwrap_or(self.next.time_ns)
    }
}

/// What is asked to be durable when this is needed.
fn ahead_of(marks: Marks) -> Marks {
    Marks {
        epoch: marks.epoch,
        group: marks.group.saturating_add(GROUPS_AHEAD),
        time_ns: marks.time_ns.saturating_add(TIME_AHEAD_NS),
    }
}

/// Something to publish, hashed before its stream's lock is taken.
pub(super) struct Prepared {
    item: Segmented,
    digest: (u32, Vec<[u8; 32]>),
}

impl Prepared {
    pub(super) fn new(item: Segmented) -> Self {
        let digest = match &item {
            Segmented::Frame(frame) => FrameHeader::digest(&frame.payload),
            Segmented::Catalog(_) | Segmented::GroupEnd { .. } => (0, Vec::new()),
        };
        Self { item, digest }
    }

    pub(super) fn item(&self) -> &Segmented {
        &self.item
    }
}
