//! One epoch: places frames on the timeline, names them and cuts groups.
//!
//! A group starts at a video keyframe, unless the last group is younger than half a
//! second. Without a keyframe it ends at the target duration (10 s while that is
//! unknown) or at 16 MiB. Sound alone is cut every second. All tracks are cut at the
//! same moment, in order of arrival.

use bytes::Bytes;

use super::bundle::Bundle;
use super::opening::{Held, Plan};
use super::{AUDIO, Options, Segmented, Start, Tracks, VIDEO};
use crate::catalog::Catalog;
use crate::frame::Frame;
use crate::source::{Sample, SourceTrack};
use crate::timeline::{Admit, SECOND_NS, Timeline, ticks_to_ns};
use crate::track::{CodecConfig, Track, TrackKind};

/// A keyframe this close to a group's start opens no new group, nanoseconds.
const GROUP_MIN_NS: i64 = SECOND_NS / 2;
/// Length of a group of sound alone, nanoseconds.
const AUDIO_GROUP_NS: i64 = SECOND_NS;
/// Longest group, bytes: a quarter of what a store keeps of a stream.
const GROUP_BYTES_MAX: usize = 16 << 20;
/// Range of the target duration, milliseconds: short ones make many requests, long ones delay.
const TARGET_RANGE_MS: (u32, u32) = (2_000, 10_000);
/// Sound that has lost its picture is put back beside it after so many seconds: until
/// then the picture may follow its jump.
const ASTRAY_S: u64 = 2;
/// Groups whose lengths fix the target duration.
const GROUPS_MEASURED: usize = 2;

/// What became of a sample.
pub(super) enum Outcome {
    /// It was taken or dropped.
    Done,
    /// It belongs to the next epoch.
    NewEpoch(Held),
}

/// A running epoch with one open group.
#[derive(Debug)]
pub(super) struct Epoch {
    catalog: Catalog,
    timeline: Timeline,
    group: Group,
    video: Option<Video>,
    audio: Option<Audio>,
    /// The next keyframe starts a new epoch: a new configuration of sound waits for it.
    ends_at_keyframe: bool,
    measured: Vec<Measured>,
    start_ns: i64,
    /// End of the last frame, nanoseconds.
    end_ns: i64,
    /// End of the last sound, nanoseconds; none before the first.
    sound_end_ns: Option<i64>,
}

#[derive(Debug)]
struct Video {
    timescale: u32,
    last_dts: Option<i64>,
    /// Last distance between two decoding times, ticks.
    distance: Option<i64>,
}

#[derive(Debug)]
struct Audio {
    timescale: u32,
    config: CodecConfig,
    bundle: Option<Bundle>,
    /// Samples since the last frame that had a place on the timeline.
    astray: u64,
}

/// The open group.
#[derive(Debug)]
struct Group {
    number: u64,
    start_ns: i64,
    bytes: usize,
    order: u32,
    video_frames: u32,
    audio_frames: u32,
}

#[derive(Debug)]
struct Measured {
    length_ns: i64,
    bytes: usize,
}

/// A frame that has its place but no name.
struct Placed {
    dts: i64,
    cts: i32,
    duration: i64,
    keyframe: bool,
    discardable: bool,
    payload: Bytes,
}

impl Epoch {
    /// Opens an epoch and writes its first catalog. `plan` names tracks that are known.
    pub(super) fn open(
        start: Start,
        plan: Plan,
        tracks: &Tracks,
        options: &Options,
        out: &mut Vec<Segmented>,
    ) -> Self {
        let video = tracks.video.as_ref().filter(|_| plan.video);
        let audio = tracks.audio.as_ref().filter(|_| plan.audio);
        let epoch = Self {
            catalog: catalog(start, plan, options, [(VIDEO, video), (AUDIO, audio)]),
            timeline: timeline(start, plan, video, audio),
            group: Group::new(start.group, start.time_ns),
            video: video.map(|track| Video {
                timescale: track.timescale,
                last_dts: None,
                distance: None,
            }),
            audio: audio.map(|track| Audio {
                timescale: track.timescale,
                config: track.config.clone(),
                bundle: None,
                astray: 0,
            }),
            ends_at_keyframe: false,
            measured: Vec::new(),
            start_ns: start.time_ns,
            end_ns: start.time_ns,
            sound_end_ns: None,
        };
        out.push(Segmented::Catalog(epoch.catalog.clone()));
        epoch
    }

    /// Its length so far, nanoseconds.
    pub(super) fn length_ns(&self) -> i64 {
        self.end_ns.saturating_sub(self.start_ns)
    }

    /// How far its sound ended before its picture, nanoseconds.
    pub(super) fn sound_back_ns(&self) -> i64 {
        let end_ns = self.sound_end_ns.unwrap_or(self.end_ns);
        self.end_ns.saturating_sub(end_ns)
    }

    /// Its number.
    pub(super) fn number(&self) -> u32 {
        self.catalog.epoch
    }

    pub(super) fn has_video(&self) -> bool {
        self.video.is_some()
    }

    pub(super) fn has(&self, kind: TrackKind) -> bool {
        match kind {
            TrackKind::Video => self.video.is_some(),
            TrackKind::Audio => self.audio.is_some(),
        }
    }

    /// The target duration, once it is fixed, milliseconds.
    pub(super) fn target_duration_ms(&self) -> Option<u32> {
        self.catalog.target_duration_ms
    }

    /// What comes after this epoch.
    pub(super) fn end(&self) -> Start {
        Start {
            epoch: self.catalog.epoch.saturating_add(1),
            group: self.group.number.saturating_add(1),
            time_ns: self.end_ns,
        }
    }

    /// Ends the open group, and tells what comes next.
    pub(super) fn close(&mut self, out: &mut Vec<Segmented>) -> Start {
        self.end_group(out);
        self.end()
    }

    /// Drops sound until the next keyframe, where a new epoch brings its new configuration.
    pub(super) fn mute(&mut self, out: &mut Vec<Segmented>) {
        self.flush(out);
        self.ends_at_keyframe = true;
    }

    pub(super) fn push(
        &mut self,
        kind: TrackKind,
        held: Held,
        out: &mut Vec<Segmented>,
    ) -> Outcome {
        match kind {
            TrackKind::Video => self.push_video(held, out),
            TrackKind::Audio => self.push_audio(held, out),
        }
    }

    fn push_video(&mut self, held: Held, out: &mut Vec<Segmented>) -> Outcome {
        let sample = &held.sample;
        let epoch_ends = self.ends_at_keyframe || self.video.is_none();
        if epoch_ends && sample.keyframe {
            return Outcome::NewEpoch(held);
        }
        let Some(timescale) = self.video.as_ref().map(|video| video.timescale) else {
            return Outcome::Done;
        };
        let (dts, by) = match self.timeline.admit(sample.track, sample.dts) {
            Admit::Ok(dts) => (dts, 0),
            Admit::Repaired { dts, by } => (dts, by),
            Admit::NewEpoch(_) => return Outcome::NewEpoch(held),
            Admit::Drop => return Outcome::Done,
        };
        self.cut_before(dts, timescale, sample.data.len(), sample.keyframe, out);
        let placed = self.place(sample, dts, by);
        self.emit(VIDEO, timescale, placed, out);
        Outcome::Done
    }

    fn place(&mut self, sample: &Sample, dts: i64, by: i64) -> Placed {
        let duration = self
            .video
            .as_mut()
            .map_or(1, |video| video.duration(dts, sample.duration));
        Placed {
            dts,
            cts: saturated(i64::from(sample.cts) - by),
            duration,
            keyframe: sample.keyframe,
            discardable: sample.discardable,
            payload: sample.data.clone(),
        }
    }

    fn push_audio(&mut self, held: Held, out: &mut Vec<Segmented>) -> Outcome {
        let sample = &held.sample;
        let Some(audio) = self.audio.as_ref().filter(|_| !self.ends_at_keyframe) else {
            return Outcome::Done;
        };
        let timescale = audio.timescale;
        let Some(samples) = audio.config.frame_samples(&sample.data) else {
            return Outcome::Done;
        };
        let dts = match self.timeline.admit_audio(sample.track, sample.dts, samples) {
            Admit::Ok(dts) | Admit::Repaired { dts, .. } => dts,
            Admit::NewEpoch(_) if self.video.is_none() => return Outcome::NewEpoch(held),
            Admit::NewEpoch(_) | Admit::Drop => match self.astray(sample, samples) {
                Some(dts) => dts,
                None => return Outcome::Done,
            },
        };
        if let Some(audio) = &mut self.audio {
            audio.astray = 0;
        }
        let end = self.timeline.expected(sample.track).unwrap_or(dts + 1);
        self.cut_before(dts, timescale, sample.data.len(), false, out);
        self.gather(sample, dts, (end, samples), out);
        Outcome::Done
    }

    /// Sound without a place beside its picture does not end the picture's epoch: it is
    /// left out, and if that goes on, put where the picture is. Its dts then.
    fn astray(&mut self, sample: &Sample, samples: u32) -> Option<i64> {
        let audio = self.audio.as_mut()?;
        audio.astray += u64::from(samples);
        let (sample_rate, _) = audio.config.sound()?;
        if audio.astray < ASTRAY_S * u64::from(sample_rate) {
            return None;
        }
        self.timeline.rebase_audio(sample.track, sample.dts);
        match self.timeline.admit_audio(sample.track, sample.dts, samples) {
            Admit::Ok(dts) | Admit::Repaired { dts, .. } => Some(dts),
            Admit::NewEpoch(_) | Admit::Drop => None,
        }
    }

    /// Puts a codec frame that ends at `end` ticks and has so many samples into the
    /// bundle, which has no gap, and whose frames are equally long.
    fn gather(
        &mut self,
        sample: &Sample,
        dts: i64,
        (end, samples): (i64, u32),
        out: &mut Vec<Segmented>,
    ) {
        let open = self.audio.as_ref().and_then(|audio| audio.bundle.as_ref());
        if open.is_some_and(|bundle| bundle.end != dts || bundle.unit_samples != samples) {
            self.flush(out);
        }
        let Some(audio) = &mut self.audio else {
            return;
        };
        let new = || Bundle::new(dts, sample.cts, samples);
        let bundle = audio.bundle.get_or_insert_with(new);
        bundle.push(sample.data.clone(), end);
        let complete = bundle.is_complete(audio.timescale);
        let end_ns = ticks_to_ns(end, audio.timescale).unwrap_or(self.end_ns);
        self.end_ns = self.end_ns.max(end_ns);
        self.sound_end_ns = Some(end_ns);
        if complete {
            self.flush(out);
        }
    }

    /// Names the gathered sound.
    fn flush(&mut self, out: &mut Vec<Segmented>) {
        let Some(audio) = &mut self.audio else {
            return;
        };
        let Some(bundle) = audio.bundle.take() else {
            return;
        };
        let timescale = audio.timescale;
        let placed = Placed {
            dts: bundle.dts,
            cts: bundle.cts,
            duration: bundle.end - bundle.dts,
            keyframe: true,
            discardable: false,
            payload: bundle.payload(),
        };
        self.emit(AUDIO, timescale, placed, out);
    }

    /// Starts a new group before a frame, if it is time.
    fn cut_before(
        &mut self,
        dts: i64,
        timescale: u32,
        bytes: usize,
        keyframe: bool,
        out: &mut Vec<Segmented>,
    ) {
        let at_ns = ticks_to_ns(dts, timescale).unwrap_or(self.end_ns);
        let age_ns = at_ns.saturating_sub(self.group.start_ns);
        let at_keyframe = keyframe && age_ns >= GROUP_MIN_NS;
        let too_long = age_ns >= self.group_max_ns();
        let too_big = self.group.bytes > 0 && self.group.bytes + bytes > GROUP_BYTES_MAX;
        if at_keyframe || too_long || too_big {
            self.end_group(out);
            self.measure(age_ns, out);
            self.group = Group::new(self.group.number.saturating_add(1), at_ns);
        } else if age_ns > i64::from(TARGET_RANGE_MS.1) * 1_000_000 / 2 {
            self.fix_longest_target(out);
        }
    }

    /// A group that is already longer than half of the longest target decides it: OBS
    /// makes 8.3 s, and a player would wait for two of them.
    fn fix_longest_target(&mut self, out: &mut Vec<Segmented>) {
        if self.video.is_none() || self.catalog.target_duration_ms.is_some() {
            return;
        }
        self.catalog.target_duration_ms = Some(TARGET_RANGE_MS.1);
        self.catalog.version += 1;
        out.push(Segmented::Catalog(self.catalog.clone()));
    }

    fn group_max_ns(&self) -> i64 {
        if self.video.is_none() {
            return AUDIO_GROUP_NS;
        }
        let target_ms = self.catalog.target_duration_ms.unwrap_or(TARGET_RANGE_MS.1);
        i64::from(target_ms) * 1_000_000
    }

    fn end_group(&mut self, out: &mut Vec<Segmented>) {
        self.flush(out);
        for track in &self.catalog.tracks {
            out.push(Segmented::GroupEnd {
                track: track.id,
                epoch: self.catalog.epoch,
                group: self.group.number,
                frames: self.group.frames(track.id),
            });
        }
    }

    /// Fixes target duration and bitrate once enough groups are known.
    fn measure(&mut self, length_ns: i64, out: &mut Vec<Segmented>) {
        if self.measured.len() >= GROUPS_MEASURED {
            return;
        }
        let bytes = self.group.bytes;
        self.measured.push(Measured { length_ns, bytes });
        if self.measured.len() < GROUPS_MEASURED {
            return;
        }
        let target_ms = target_ms(&self.measured);
        self.catalog.target_duration_ms.get_or_insert(target_ms);
        self.catalog.bitrate_bps = Some(bitrate_bps(&self.measured));
        self.catalog.version += 1;
        out.push(Segmented::Catalog(self.catalog.clone()));
    }

    /// Gives a frame its name.
    fn emit(&mut self, track: u8, timescale: u32, placed: Placed, out: &mut Vec<Segmented>) {
        let end = placed.dts.saturating_add(placed.duration);
        let end_ns = ticks_to_ns(end, timescale).unwrap_or(self.end_ns);
        self.end_ns = self.end_ns.max(end_ns);
        self.group.bytes += placed.payload.len();
        let order = self.group.order;
        self.group.order += 1;
        let index = self.group.next_index(track);
        out.push(Segmented::Frame(Frame {
            track,
            epoch: self.catalog.epoch,
            group: self.group.number,
            index,
            order,
            dts: placed.dts,
            cts: placed.cts,
            duration: u32::try_from(placed.duration).unwrap_or(u32::MAX),
            keyframe: placed.keyframe,
            discardable: placed.discardable,
            no_keyframe: track == VIDEO && index == 0 && !placed.keyframe,
            payload: placed.payload,
        }));
    }
}

impl Video {
    /// The expected duration of the frame at `dts`, ticks: the container's word, else the
    /// last distance, else a thirtieth of a second; at most a second, since the end of an
    /// epoch's last frame is where the next epoch starts.
    fn duration(&mut self, dts: i64, said: Option<u32>) -> i64 {
        let second = i64::from(self.timescale);
        if let Some(last) = self.last_dts.replace(dts) {
            self.distance = Some(dts - last);
        }
        let said = said.map(i64::from).filter(|said| *said > 0);
        let guess = said.or(self.distance).unwrap_or(second / 30);
        guess.clamp(1, second)
    }
}

impl Group {
    fn new(number: u64, start_ns: i64) -> Self {
        Self {
            number,
            start_ns,
            bytes: 0,
            order: 0,
            video_frames: 0,
            audio_frames: 0,
        }
    }

    fn frames(&self, track: u8) -> u32 {
        match track {
            VIDEO => self.video_frames,
            _ => self.audio_frames,
        }
    }

    fn next_index(&mut self, track: u8) -> u32 {
        let frames = match track {
            VIDEO => &mut self.video_frames,
            _ => &mut self.audio_frames,
        };
        *frames += 1;
        *frames - 1
    }
}

fn catalog(
    start: Start,
    plan: Plan,
    options: &Options,
    tracks: [(u8, Option<&SourceTrack>); 2],
) -> Catalog {
    let tracks = tracks.into_iter().filter_map(|(id, track)| {
        track.map(|track| Track {
            id,
            timescale: track.timescale,
            config: track.config.clone(),
        })
    });
    Catalog {
        version: 0,
        epoch: start.epoch,
        first_group: start.group,
        // A segment is a group, so both go on by one at a time.
        first_sequence: start.group,
        target_duration_ms: options.target_duration_ms,
        part_target_ms: options.part_target_ms,
        timeline_start_ms: start.time_ns.div_euclid(1_000_000),
        wall_clock_start_ms: plan.wall_ms,
        bitrate_bps: None,
        tracks: tracks.collect(),
    }
}

fn timeline(
    start: Start,
    plan: Plan,
    video: Option<&SourceTrack>,
    audio: Option<&SourceTrack>,
) -> Timeline {
    let mut timeline = Timeline::new(plan.origin_ns, start.time_ns);
    if let Some(track) = video {
        timeline.add_video(track.id, track.timescale);
    }
    if let Some(track) = audio
        && let Some((sample_rate, _)) = track.config.sound()
    {
        let first_ns = start.time_ns.saturating_sub(plan.sound_back_ns);
        timeline.add_audio_from(first_ns, track.id, track.timescale, sample_rate);
    }
    timeline
}

/// Twice the longest group, so that a later, longer one still fits.
fn target_ms(measured: &[Measured]) -> u32 {
    let longest_ns = measured.iter().map(|group| group.length_ns).max();
    let twice_ms = longest_ns.unwrap_or(0).max(0) as u64 / 500_000;
    let (min, max) = TARGET_RANGE_MS;
    u32::try_from(twice_ms).unwrap_or(max).clamp(min, max)
}

fn bitrate_bps(measured: &[Measured]) -> u32 {
    let bits: u128 = measured.iter().map(|group| group.bytes as u128 * 8).sum();
    let length_ns: i64 = measured.iter().map(|group| group.length_ns).sum();
    let bps = bits * SECOND_NS as u128 / u128::from(length_ns.max(1) as u64);
    u32::try_from(bps).unwrap_or(u32::MAX)
}

fn saturated(value: i64) -> i32 {
    value.clamp(i32::MIN.into(), i32::MAX.into()) as i32
}
