//! Before an epoch: which tracks will it have, and where does it begin?

use std::collections::VecDeque;

use super::{Promise, Tracks};
use crate::source::{Sample, SourceTrack};
use crate::timeline::{SECOND_NS, ticks_to_ns};
use crate::track::TrackKind;

/// Media time for which the second track's configuration is waited for, nanoseconds.
const SECOND_TRACK_NS: i64 = 250_000_000;
/// The same, if the encoder promised the track; also for how long sound waits for a picture.
const PROMISED_TRACK_NS: i64 = 1_500_000_000;
/// Sound that goes on in a new epoch lies at most so far before its picture, nanoseconds.
const SOUND_BACK_MAX_NS: i64 = SECOND_NS;
/// Samples held at most; 10 s of sound and video are about 800.
const HELD_SAMPLES_MAX: usize = 4096;
/// Bytes held at most, apart from the newest sample; as long as a group may be.
const HELD_BYTES_MAX: usize = 16 << 20;

/// A sample and the wall clock when it came.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) sample: Sample,
    /// Milliseconds since 1970.
    pub(super) wall_ms: u64,
}

/// The epoch that can be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) video: bool,
    pub(super) audio: bool,
    /// The source's time of its first frame, nanoseconds.
    pub(super) origin_ns: i64,
    /// The wall clock when that frame came.
    pub(super) wall_ms: u64,
    /// How far before the picture sound has a place, nanoseconds.
    pub(super) sound_back_ns: i64,
}

/// Samples that wait for an epoch: sound, and video from its first keyframe on.
#[derive(Debug, Default)]
pub(super) struct Opening {
    held: VecDeque<Held>,
    bytes: usize,
    /// The first keyframe's time, nanoseconds, and its arrival.
    key: Option<(i64, u64)>,
    /// The first held sound's time and arrival, as long as there is no keyframe.
    sound: Option<(i64, u64)>,
    /// Newest time of what was held, nanoseconds.
    newest_ns: i64,
    video_seen: bool,
    sound_back_ns: i64,
}

impl Opening {
    /// What comes after an epoch whose sound ended so long before its picture: sound that
    /// was sent a little behind it goes on where it was, nanoseconds.
    pub(super) fn after(sound_back_ns: i64) -> Self {
        Self {
            sound_back_ns: sound_back_ns.clamp(0, SOUND_BACK_MAX_NS),
            ..Self::default()
        }
    }

    /// Takes a sample, or drops it if it can be of no use.
    pub(super) fn hold(&mut self, kind: TrackKind, held: Held, tracks: &Tracks) {
        let Some(ns) = time_of(&held, tracks.get(kind)) else {
            return;
        };
        match kind {
            TrackKind::Video => self.video(ns, held, tracks),
            TrackKind::Audio => self.audio(ns, held, tracks),
        }
    }

    fn video(&mut self, ns: i64, held: Held, tracks: &Tracks) {
        self.video_seen = true;
        if self.key.is_some() {
            self.append(ns, held);
        } else if held.sample.keyframe {
            self.key = Some((ns, held.wall_ms));
            self.sound = None;
            // Sound that came first but belongs to the picture stays, behind it.
            let first_ns = ns.saturating_sub(self.sound_back_ns);
            let in_time = |at| at >= first_ns;
            self.retain(|other| time_of(other, tracks.audio.as_ref()).is_some_and(in_time));
            self.newest_ns = ns;
            self.bytes += held.sample.data.len();
            self.held.push_front(held);
        }
    }

    fn audio(&mut self, ns: i64, held: Held, tracks: &Tracks) {
        match self.key {
            Some((key_ns, _)) if ns < key_ns.saturating_sub(self.sound_back_ns) => return,
            Some(_) => {}
            None => self.make_room(tracks),
        }
        if self.key.is_none() && self.sound.is_none() {
            self.sound = Some((ns, held.wall_ms));
            self.newest_ns = ns;
        }
        self.append(ns, held);
    }

    fn append(&mut self, ns: i64, held: Held) {
        self.newest_ns = self.newest_ns.max(ns);
        self.bytes += held.sample.data.len();
        self.held.push_back(held);
    }

    /// Forgets the oldest sound: the keyframe that it would go with is late.
    fn make_room(&mut self, tracks: &Tracks) {
        while self.is_full() {
            let Some(oldest) = self.held.pop_front() else {
                return;
            };
            self.bytes -= oldest.sample.data.len();
            let front = self.held.front();
            self.sound = front.and_then(|front| {
                time_of(front, tracks.audio.as_ref()).map(|ns| (ns, front.wall_ms))
            });
        }
    }

    /// Whether no more should be held.
    pub(super) fn is_full(&self) -> bool {
        self.held.len() >= HELD_SAMPLES_MAX || self.bytes >= HELD_BYTES_MAX
    }

    /// Forgets the samples of a track that was configured anew.
    pub(super) fn forget(&mut self, kind: TrackKind, tracks: &Tracks) {
        for held in self.take() {
            let of = tracks.kind(&held.sample);
            if let Some(other) = of.filter(|other| *other != kind) {
                self.hold(other, held, tracks);
            }
        }
    }

    /// What can be opened now.
    pub(super) fn plan(&self, tracks: &Tracks) -> Option<Plan> {
        match self.key {
            Some(key) => self.plan_with_video(key, tracks),
            None => self.plan_without_video(self.sound?, tracks),
        }
    }

    fn plan_with_video(&self, (origin_ns, wall_ms): (i64, u64), tracks: &Tracks) -> Option<Plan> {
        let wait_ns = match tracks.promise {
            _ if tracks.audio.is_some() => 0,
            Some(Promise { audio: false, .. }) => 0,
            Some(Promise { audio: true, .. }) => PROMISED_TRACK_NS,
            None => SECOND_TRACK_NS,
        };
        let waited = self.newest_ns.saturating_sub(origin_ns) >= wait_ns;
        (waited || self.is_full()).then_some(Plan {
            video: true,
            audio: tracks.audio.is_some(),
            origin_ns,
            wall_ms,
            sound_back_ns: self.sound_back_ns,
        })
    }

    fn plan_without_video(
        &self,
        (origin_ns, wall_ms): (i64, u64),
        tracks: &Tracks,
    ) -> Option<Plan> {
        let no_video = matches!(tracks.promise, Some(Promise { video: false, .. }));
        let wait_ns = match &tracks.video {
            Some(_) if self.video_seen => return None,
            None if no_video => 0,
            Some(_) | None => PROMISED_TRACK_NS,
        };
        let waited = self.newest_ns.saturating_sub(origin_ns) >= wait_ns;
        (waited || self.is_full()).then_some(Plan {
            video: false,
            audio: true,
            origin_ns,
            wall_ms,
            sound_back_ns: 0,
        })
    }

    /// The held samples, for the epoch that opens.
    pub(super) fn take(&mut self) -> VecDeque<Held> {
        let empty = Self::after(self.sound_back_ns);
        std::mem::replace(self, empty).held
    }

    fn retain(&mut self, keep: impl Fn(&Held) -> bool) {
        self.held.retain(keep);
        self.bytes = self.held.iter().map(|held| held.sample.data.len()).sum();
    }
}

fn time_of(held: &Held, track: Option<&SourceTrack>) -> Option<i64> {
    ticks_to_ns(held.sample.dts, track?.timescale)
}
