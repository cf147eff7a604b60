//! From an encoder's samples to named frames: epochs, groups, numbers and times.
//!
//! It decides where epochs and groups begin, and gives every frame its name and its
//! place on the stream's timeline. It has no clock of its own, signs nothing, and
//! knows no container.
//!
//! ```text
//!              a track, its configuration, a keyframe
//!   Opening ────────────────────────────────────────────► Running ──finish──► Over
//!      ▲        Catalog (version 0), then frames             │
//!      └─────────────────────────────────────────────────────┘
//!           new configuration or jump in time: groups end, epoch + 1
//! ```
//!
//! **Opening** holds samples until it is known which tracks there are: the other
//! track's configuration is waited for, for 250 ms of media (1.5 s if the encoder
//! promised it). Video begins at a keyframe, and sound with it; without any picture
//! for 1.5 s of sound the stream is audio only.
//!
//! **Running** cuts groups (see `epoch`). New sound next to a running picture takes
//! effect at the picture's next keyframe, so that the picture does not stop for it. Nor
//! does a jump of the sound alone end an epoch that has a picture.

mod bundle;
mod epoch;
mod opening;

use std::collections::VecDeque;

use thiserror::Error;

use crate::catalog::Catalog;
use crate::frame::Frame;
use crate::opus::MIN_PACKET_SAMPLES;
use crate::source::{Sample, SourceEvent, SourceTrack};
use crate::timeline::{SECOND_NS, TIMESCALE_MAX};
use crate::track::TrackKind;
use epoch::{Epoch, Outcome};
use opening::{Held, Opening};

/// Number of the video track in [`Frame::track`].
pub const VIDEO: u8 = 1;
/// Number of the audio track in [`Frame::track`].
pub const AUDIO: u8 = 2;
/// Longest coded picture, bytes: 8 MiB, as long as the network carries.
pub const FRAME_BYTES_MAX: usize = 8 << 20;
/// Longest coded frame of sound, bytes; AAC has at most 6 KiB.
pub const AUDIO_FRAME_BYTES_MAX: usize = 64 << 10;

/// Epochs in a row, each shorter than a second, after which a source makes no sense.
const SHORT_EPOCHS_MAX: u32 = 100;

/// Where an epoch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// Its number.
    pub epoch: u32,
    /// Number of its first group.
    pub group: u64,
    /// Time of its first frame on the stream's timeline, nanoseconds; not negative.
    pub time_ns: i64,
}

/// What comes after everything that has been named so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// First epoch number that is free.
    pub epoch: u32,
    /// First group number that is free.
    pub group: u64,
    /// End of the last frame, nanoseconds.
    pub end_ns: i64,
}

impl From<Position> for Start {
    fn from(position: Position) -> Self {
        Self {
            epoch: position.epoch,
            group: position.group,
            time_ns: position.end_ns,
        }
    }
}

/// The publisher's wall clock when something arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wall {
    /// Milliseconds since 1970.
    pub unix_ms: u64,
}

/// What a stream keeps across its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Longest part that the catalog announces, milliseconds; default 215.
    ///
    /// Five frames of 40 ms, six of 33 or five bundles of AAC at 48 kHz (213.3 ms): a
    /// limit of 200 ms would cut those into four, 171 ms, below the 85 % that
    /// low-latency HLS asks for (rfc8216bis §4.4.4.9).
    pub part_target_ms: u32,
    /// Target duration that an earlier connection fixed, milliseconds: players do not
    /// expect it to change. Default none: fixed by the first two groups.
    pub target_duration_ms: Option<u32>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            part_target_ms: 215,
            target_duration_ms: None,
        }
    }
}

/// What comes out, in the order in which it is to be signed and sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segmented {
    /// The catalog of what follows: at an epoch's start, and when something in it changes.
    Catalog(Catalog),
    /// A named frame.
    Frame(Frame),
    /// A track's part of a group is complete; one for each track of the catalog.
    GroupEnd {
        /// Track number.
        track: u8,
        /// Its epoch.
        epoch: u32,
        /// Group number.
        group: u64,
        /// Frames of this track in the group; may be 0.
        frames: u32,
    },
}

/// Why a source cannot go on. Everything named so far stays valid; call
/// [`Segmenter::finish`] to end its groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SegmentError {
    /// Not 1 to 10,000,000 ticks per second, or audio frames shorter than a tick.
    #[error("track {track} has an impossible timescale of {timescale}")]
    Timescale {
        /// The container's track number.
        track: u32,
        /// Ticks per second.
        timescale: u32,
    },
    /// A frame longer than [`FRAME_BYTES_MAX`] or [`AUDIO_FRAME_BYTES_MAX`]; carries its length in bytes.
    #[error("frame of {0} bytes is too long")]
    FrameTooLong(usize),
    /// Much media came before [`Segmenter::begin`] was called.
    #[error("too much media before the stream was begun")]
    HeldTooMuch,
    /// More than a hundred jumps or new configurations, never a second apart.
    #[error(
        "the encoder's timestamps or configuration change again and again: a hundred times within seconds"
    )]
    Restless,
    /// No epoch number is left.
    #[error("epoch numbers are used up")]
    NumbersExhausted,
}

/// Turns one connection's source events into named frames.
#[derive(Debug)]
pub struct Segmenter {
    options: Options,
    /// Where the next epoch starts; `None` until [`begin`](Self::begin).
    next: Option<Start>,
    tracks: Tracks,
    stage: Stage,
    started: bool,
    /// Epochs in a row that were shorter than a second.
    short: u32,
}

/// The newest configuration of each track, and what the source promised.
#[derive(Debug, Default)]
struct Tracks {
    video: Option<SourceTrack>,
    audio: Option<SourceTrack>,
    promise: Option<Promise>,
}

#[derive(Clone, Copy, Debug)]
struct Promise {
    video: bool,
    audio: bool,
}

#[derive(Debug)]
enum Stage {
    Opening(Opening),
    Running(Box<Epoch>),
    Over,
}

impl Segmenter {
    /// A segmenter whose first epoch begins at `start`.
    pub fn new(start: Start, options: Options) -> Self {
        Self {
            next: Some(start),
            ..Self::waiting(options)
        }
    }

    /// A segmenter of a connection that has not taken its stream's slot: it holds what
    /// comes. Once it is [`ready`](Self::ready), call [`begin`](Self::begin) soon.
    pub fn waiting(options: Options) -> Self {
        Self {
            options,
            next: None,
            tracks: Tracks::default(),
            stage: Stage::Opening(Opening::default()),
            started: false,
            short: 0,
        }
    }

    /// Gives a [`waiting`](Self::waiting) segmenter its start, and returns what it held.
    /// Does nothing to one that has a start.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn begin(&mut self, start: Start) -> Result<Vec<Segmented>, SegmentError> {
        let mut out = Vec::new();
        if self.next.is_none() {
            self.next = Some(start);
            self.settle(&mut out)?;
        }
        Ok(out)
    }

    /// Takes one event of the source.
    ///
    /// # Errors
    /// [`SegmentError`]: this source cannot go on.
    pub fn push(&mut self, now: Wall, event: SourceEvent) -> Result<Vec<Segmented>, SegmentError> {
        let mut out = Vec::new();
        match event {
            SourceEvent::Track(track) => self.track(track, &mut out)?,
            SourceEvent::Sample(sample) => {
                let wall_ms = now.unix_ms;
                self.sample(Held { sample, wall_ms }, &mut out)?;
            }
            SourceEvent::Promised { video, audio } => {
                self.tracks.promise = Some(Promise { video, audio });
            }
            SourceEvent::End => out = self.finish(),
        }
        self.settle(&mut out)?;
        Ok(out)
    }

    /// Ends the open groups. What is pushed later is ignored.
    pub fn finish(&mut self) -> Vec<Segmented> {
        let mut out = Vec::new();
        if let Stage::Running(mut epoch) = std::mem::replace(&mut self.stage, Stage::Over) {
            self.next = Some(epoch.close(&mut out));
        }
        out
    }

    /// Whether this source is worth a stream: it has sent a configuration and, if it has
    /// video, a keyframe.
    pub fn ready(&self) -> bool {
        match &self.stage {
            Stage::Opening(opening) => self.started || opening.plan(&self.tracks).is_some(),
            Stage::Running(_) | Stage::Over => self.started,
        }
    }

    /// What comes after everything named so far: the [`Start`] of whoever comes next.
    /// `None` before [`begin`](Self::begin).
    pub fn position(&self) -> Option<Position> {
        let start = match &self.stage {
            Stage::Running(epoch) => epoch.end(),
            Stage::Opening(_) | Stage::Over => self.next?,
        };
        Some(Position {
            epoch: start.epoch,
            group: start.group,
            end_ns: start.time_ns,
        })
    }

    fn track(&mut self, track: SourceTrack, out: &mut Vec<Segmented>) -> Result<(), SegmentError> {
        check(&track)?;
        let kind = track.config.kind();
        let slot = self.tracks.slot(kind);
        // Of several tracks of a kind the first counts.
        if slot
            .as_ref()
            .is_some_and(|known| known.id != track.id || *known == track)
        {
            return Ok(());
        }
        *slot = Some(track);
        match &mut self.stage {
            Stage::Opening(opening) => opening.forget(kind, &self.tracks),
            Stage::Running(epoch) if kind == TrackKind::Audio && epoch.has_video() => {
                epoch.mute(out);
            }
            // A picture that comes to sound is let in at its first keyframe.
            Stage::Running(epoch) if !epoch.has(kind) => {}
            Stage::Running(_) => self.reopen(out)?,
            Stage::Over => {}
        }
        Ok(())
    }

    /// Takes a sample into whatever stage there is; opens nothing.
    fn sample(&mut self, held: Held, out: &mut Vec<Segmented>) -> Result<(), SegmentError> {
        let Some(kind) = self.tracks.kind(&held.sample) else {
            return Ok(());
        };
        check_length(kind, held.sample.data.len())?;
        let turned_away = match &mut self.stage {
            Stage::Over => return Ok(()),
            Stage::Running(epoch) => match epoch.push(kind, held, out) {
                Outcome::Done => return Ok(()),
                Outcome::NewEpoch(held) => held,
            },
            Stage::Opening(_) => return self.hold(kind, held),
        };
        self.reopen(out)?;
        self.hold(kind, turned_away)
    }

    fn hold(&mut self, kind: TrackKind, held: Held) -> Result<(), SegmentError> {
        if let Stage::Opening(opening) = &mut self.stage {
            opening.hold(kind, held, &self.tracks);
            let ready = opening.plan(&self.tracks).is_some();
            if opening.is_full() && ready && self.next.is_none() {
                return Err(SegmentError::HeldTooMuch);
            }
        }
        Ok(())
    }

    /// Opens an epoch if everything for it is there, and takes what was held into it;
    /// a jump among that opens the next one.
    fn settle(&mut self, out: &mut Vec<Segmented>) -> Result<(), SegmentError> {
        let mut backlog = VecDeque::new();
        while let (Stage::Opening(opening), Some(start)) = (&mut self.stage, self.next) {
            let Some(plan) = opening.plan(&self.tracks) else {
                match backlog.pop_front() {
                    Some(held) => self.sample(held, out)?,
                    None => return Ok(()),
                }
                continue;
            };
            let mut queue = opening.take();
            queue.append(&mut backlog);
            backlog = queue;
            let epoch = Epoch::open(start, plan, &self.tracks, &self.options, out);
            self.stage = Stage::Running(Box::new(epoch));
            self.started = true;
            self.replay(&mut backlog, out)?;
        }
        Ok(())
    }

    fn replay(
        &mut self,
        backlog: &mut VecDeque<Held>,
        out: &mut Vec<Segmented>,
    ) -> Result<(), SegmentError> {
        while matches!(self.stage, Stage::Running(_)) {
            let Some(held) = backlog.pop_front() else {
                break;
            };
            self.sample(held, out)?;
        }
        Ok(())
    }

    /// Ends the running epoch; the next one waits for a keyframe.
    fn reopen(&mut self, out: &mut Vec<Segmented>) -> Result<(), SegmentError> {
        if let Stage::Running(epoch) = &mut self.stage {
            self.options.target_duration_ms = epoch.target_duration_ms();
            let is_short = epoch.length_ns() < SECOND_NS;
            self.short = if is_short { self.short + 1 } else { 0 };
            let next = epoch.close(out);
            let opening = Opening::after(epoch.sound_back_ns());
            let exhausted = next.epoch == epoch.number();
            (self.next, self.stage) = (Some(next), Stage::Opening(opening));
            if exhausted {
                self.stage = Stage::Over;
                return Err(SegmentError::NumbersExhausted);
            }
            if self.short > SHORT_EPOCHS_MAX {
                self.stage = Stage::Over;
                return Err(SegmentError::Restless);
            }
        }
        Ok(())
    }
}

impl Tracks {
    fn slot(&mut self, kind: TrackKind) -> &mut Option<SourceTrack> {
        match kind {
            TrackKind::Video => &mut self.video,
            TrackKind::Audio => &mut self.audio,
        }
    }

    fn get(&self, kind: TrackKind) -> Option<&SourceTrack> {
        match kind {
            TrackKind::Video => self.video.as_ref(),
            TrackKind::Audio => self.audio.as_ref(),
        }
    }

    /// Which of the two tracks a sample belongs to; none if to neither, or if it is empty.
    fn kind(&self, sample: &Sample) -> Option<TrackKind> {
        let kinds = [TrackKind::Video, TrackKind::Audio];
        let mut of = kinds.into_iter().filter(|kind| {
            let track = self.get(*kind);
            track.is_some_and(|track| track.id == sample.track)
        });
        of.next().filter(|_| !sample.data.is_empty())
    }
}

/// Refuses timescales with which times could not be told apart or would overflow.
fn check(track: &SourceTrack) -> Result<(), SegmentError> {
    let tick_fits = match track.config.sound() {
        None => true,
        Some((sample_rate, _)) => {
            // Of packets that may differ, the shortest counts.
            let samples = track.config.frame_samples(&[]);
            let samples = u64::from(samples.unwrap_or(MIN_PACKET_SAMPLES));
            sample_rate > 0 && samples * u64::from(track.timescale) >= u64::from(sample_rate)
        }
    };
    if !(1..=TIMESCALE_MAX).contains(&track.timescale) || !tick_fits {
        return Err(SegmentError::Timescale {
            track: track.id,
            timescale: track.timescale,
        });
    }
    Ok(())
}

fn check_length(kind: TrackKind, bytes: usize) -> Result<(), SegmentError> {
    let max = match kind {
        TrackKind::Video => FRAME_BYTES_MAX,
        TrackKind::Audio => AUDIO_FRAME_BYTES_MAX,
    };
    if bytes > max {
        return Err(SegmentError::FrameTooLong(bytes));
    }
    Ok(())
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
