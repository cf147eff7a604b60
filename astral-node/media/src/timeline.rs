//! Stamps of one connection to the stream's one timeline.
//!
//! An *epoch* has one offset for all of its tracks, so that sound and picture stay
//! as far apart as the source put them. Nanoseconds and ticks are computed from
//! absolute stamps by 128-bit multiplication; rounded durations are never summed
//! (24 hours of summed milliseconds are off by minutes).
//!
//! - **Video** keeps its stamps. One that does not advance, by at most a second, is
//!   moved one tick behind the last; a hundred of those in a row are a new epoch.
//! - **Audio** counts samples: a stamp near the expected one is replaced by it, which
//!   makes exact times of milliseconds. A stamp ahead by more is a gap. Frames whose
//!   stamps lie behind keep their place until they are, on average, a whole frame
//!   behind; then one frame is left out.
//! - A stamp back by more than a second, or ahead of everything by more than ten, is
//!   a jump: the caller starts a new epoch, or puts sound back beside its picture.
//!
//! Stalls need nothing: the time of arrival plays no part here.

use std::collections::BTreeMap;

/// Nanoseconds in a second.
pub const SECOND_NS: i64 = 1_000_000_000;
/// Furthest step forward that is a gap and not a jump, nanoseconds.
pub const FORWARD_MAX_NS: i64 = 10 * SECOND_NS;
/// Stamps in a row that lie behind, after which the source's clock is not believed.
pub const REPAIRS_MAX: u32 = 100;
/// Highest supported number of ticks per second.
pub const TIMESCALE_MAX: u32 = crate::catalog::MAX_TIMESCALE;
/// Where time ends: 146 years, far from any overflow.
const TIME_MAX_NS: i64 = i64::MAX / 2;
/// Weight of the average of audio errors: each new one counts 1/32.
const AVERAGE: i64 = 32;

/// Ticks as nanoseconds, rounded down; `None` beyond ±292 years.
pub fn ticks_to_ns(ticks: i64, timescale: u32) -> Option<i64> {
    let ns = i128::from(ticks) * i128::from(SECOND_NS);
    i64::try_from(ns.div_euclid(timescale.max(1).into())).ok()
}

/// The first tick that is not before `ns`.
pub fn ns_to_ticks(ns: i64, timescale: u32) -> i64 {
    let scaled = i128::from(ns) * i128::from(timescale);
    let up = scaled + i128::from(SECOND_NS - 1);
    // Fits: a tick is at least 100 ns long.
    up.div_euclid(SECOND_NS.into()) as i64
}

/// What becomes of one stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admit {
    /// Its place on the timeline, ticks.
    Ok(i64),
    /// Its place, ticks, moved so that decoding times increase.
    Repaired {
        /// Decoding time, ticks.
        dts: i64,
        /// How much later than the source said, ticks; the presentation time stays.
        by: i64,
    },
    /// A jump: the epoch ends before this frame.
    NewEpoch(Jump),
    /// The frame has no place: it lies before the epoch's start, or sound is ahead of its stamps.
    Drop,
}

/// Why an epoch ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jump {
    /// More than a second back.
    Backward,
    /// More than ten seconds ahead of all tracks.
    Forward,
    /// More than [`REPAIRS_MAX`] stamps in a row did not advance.
    Stuck,
}

/// The clock of one epoch.
#[derive(Debug)]
pub struct Timeline {
    /// The source's time at the start of the epoch, and the stream's.
    origin_ns: i64,
    start_ns: i64,
    /// Newest decoding time of all tracks.
    newest_ns: i64,
    lanes: BTreeMap<u32, Lane>,
}

#[derive(Debug)]
struct Lane {
    timescale: u32,
    /// From the source's ticks to the stream's.
    offset: i64,
    /// Ticks before which nothing has a place.
    floor: i64,
    pace: Pace,
}

#[derive(Debug)]
enum Pace {
    Video { last: Option<i64>, repairs: u32 },
    Audio { sample_rate: u32, run: Option<Run> },
}

/// Audio frames without a gap.
#[derive(Debug)]
struct Run {
    first: i64,
    /// Samples per channel since then.
    samples: i64,
    /// Slow average of stamp minus expected stamp, times [`AVERAGE`].
    error: i64,
    /// Frames in a row that were more than two frames behind.
    behind: u32,
}

impl Timeline {
    /// An epoch that puts the source's time `origin_ns` at the stream's `start_ns`.
    pub fn new(origin_ns: i64, start_ns: i64) -> Self {
        Self {
            origin_ns,
            start_ns,
            newest_ns: start_ns,
            lanes: BTreeMap::new(),
        }
    }

    /// Adds a video track; `timescale` is 1 to [`TIMESCALE_MAX`].
    pub fn add_video(&mut self, track: u32, timescale: u32) {
        let pace = Pace::Video {
            last: None,
            repairs: 0,
        };
        self.add(self.start_ns, track, timescale, pace);
    }

    /// Adds an audio track; its frames are at least one tick long.
    pub fn add_audio(&mut self, track: u32, timescale: u32, sample_rate: u32) {
        self.add_audio_from(self.start_ns, track, timescale, sample_rate);
    }

    /// The same for a track that may begin before the epoch does, at `first_ns`.
    pub fn add_audio_from(&mut self, first_ns: i64, track: u32, timescale: u32, sample_rate: u32) {
        let run = None;
        self.add(first_ns, track, timescale, Pace::Audio { sample_rate, run });
    }

    fn add(&mut self, first_ns: i64, track: u32, timescale: u32, pace: Pace) {
        let shift = i128::from(self.start_ns) - i128::from(self.origin_ns);
        let scaled = 2 * shift * i128::from(timescale) + i128::from(SECOND_NS);
        // Fits: 65 bits, times 10⁷, divided by 10⁹.
        let offset = scaled.div_euclid(2 * i128::from(SECOND_NS)) as i64;
        let lane = Lane {
            timescale,
            offset,
            floor: ns_to_ticks(first_ns, timescale),
            pace,
        };
        self.lanes.insert(track, lane);
    }

    /// Gives the stamp of a picture of `track`, in its ticks, its place.
    pub fn admit(&mut self, track: u32, dts: i64) -> Admit {
        self.admit_frame(track, dts, 0)
    }

    /// Gives the stamp of a coded frame of sound, of so many samples per channel, its place.
    pub fn admit_audio(&mut self, track: u32, dts: i64, samples: u32) -> Admit {
        self.admit_frame(track, dts, samples)
    }

    fn admit_frame(&mut self, track: u32, dts: i64, samples: u32) -> Admit {
        let Some(lane) = self.lanes.get_mut(&track) else {
            return Admit::Drop;
        };
        let dts = dts.saturating_add(lane.offset);
        let Some(ns) = ticks_to_ns(dts, lane.timescale) else {
            return Admit::NewEpoch(if dts < 0 {
                Jump::Backward
            } else {
                Jump::Forward
            });
        };
        if ns > self.newest_ns.saturating_add(FORWARD_MAX_NS) {
            return Admit::NewEpoch(Jump::Forward);
        }
        if ns > TIME_MAX_NS {
            return Admit::Drop;
        }
        let admit = lane.admit(dts, samples);
        if let Admit::Ok(dts) | Admit::Repaired { dts, .. } = admit {
            let ns = ticks_to_ns(dts, lane.timescale).unwrap_or(ns);
            self.newest_ns = self.newest_ns.max(ns);
        }
        admit
    }

    /// Puts a track of sound whose stamps have nothing to do with the others' beside them:
    /// the stamp `dts` is at the newest time. Only for sources whose tracks have lost each
    /// other; what distance they had is not known any more.
    pub fn rebase_audio(&mut self, track: u32, dts: i64) {
        let expected = self.expected(track);
        let Some(lane) = self.lanes.get_mut(&track) else {
            return;
        };
        let newest = ns_to_ticks(self.newest_ns, lane.timescale);
        lane.floor = expected.map_or(newest, |expected| expected.max(newest));
        lane.offset = lane.floor.saturating_sub(dts);
        if let Pace::Audio { run, .. } = &mut lane.pace {
            *run = None;
        }
    }

    /// Where the audio frame after the last admitted one is expected, ticks.
    pub fn expected(&self, track: u32) -> Option<i64> {
        let lane = self.lanes.get(&track)?;
        match &lane.pace {
            Pace::Audio { sample_rate, run } => {
                Some(run.as_ref()?.expected(*sample_rate, lane.timescale))
            }
            Pace::Video { .. } => None,
        }
    }
}

impl Lane {
    fn admit(&mut self, dts: i64, samples: u32) -> Admit {
        let second = self.timescale.into();
        match &mut self.pace {
            Pace::Video { last, repairs } => match *last {
                None => first(dts, self.floor, |dts| *last = Some(dts)),
                Some(before) => video(dts, before, second, last, repairs),
            },
            Pace::Audio { sample_rate, run } => match run {
                None => first(dts, self.floor, |dts| *run = Some(Run::new(dts, samples))),
                Some(run) => run.admit(dts, samples, *sample_rate, self.timescale),
            },
        }
    }
}

/// So many samples in ticks, rounded to nearest.
fn samples_to_ticks(samples: i64, sample_rate: u32, timescale: u32) -> i64 {
    let rate = i128::from(sample_rate.max(1));
    let scaled = i128::from(samples) * i128::from(timescale);
    let ticks = (2 * scaled + rate).div_euclid(2 * rate);
    i64::try_from(ticks).unwrap_or(i64::MAX)
}

/// The first frame of a track: it may begin later than the epoch, not before it.
fn first(dts: i64, floor: i64, begin: impl FnOnce(i64)) -> Admit {
    // Rounding of the offset may put the very first frame one tick too early.
    if dts < floor - 1 {
        return Admit::Drop;
    }
    let dts = dts.max(floor);
    begin(dts);
    Admit::Ok(dts)
}

fn video(dts: i64, before: i64, second: i64, last: &mut Option<i64>, repairs: &mut u32) -> Admit {
    if dts > before {
        (*last, *repairs) = (Some(dts), 0);
        return Admit::Ok(dts);
    }
    if before.saturating_sub(dts) > second {
        return Admit::NewEpoch(Jump::Backward);
    }
    *repairs += 1;
    if *repairs > REPAIRS_MAX {
        return Admit::NewEpoch(Jump::Stuck);
    }
    let repaired = before + 1;
    *last = Some(repaired);
    Admit::Repaired {
        dts: repaired,
        by: repaired - dts,
    }
}

impl Run {
    fn new(first: i64, samples: u32) -> Self {
        Self {
            first,
            samples: samples.into(),
            error: 0,
            behind: 0,
        }
    }

    fn expected(&self, sample_rate: u32, timescale: u32) -> i64 {
        let ticks = samples_to_ticks(self.samples, sample_rate, timescale);
        self.first.saturating_add(ticks)
    }

    fn admit(&mut self, dts: i64, samples: u32, sample_rate: u32, timescale: u32) -> Admit {
        let second = i64::from(timescale);
        let length = samples_to_ticks(samples.into(), sample_rate, timescale);
        let expected = self.expected(sample_rate, timescale);
        let error = dts.saturating_sub(expected);
        if error < -second {
            return Admit::NewEpoch(Jump::Backward);
        }
        if error > near(length, second) {
            *self = Self::new(dts, samples);
            return Admit::Ok(dts);
        }
        self.behind = if error < -2 * length {
            self.behind + 1
        } else {
            0
        };
        if self.behind > REPAIRS_MAX {
            return Admit::NewEpoch(Jump::Stuck);
        }
        self.error += error - self.error / AVERAGE;
        if self.error < -length * AVERAGE {
            self.error += length * AVERAGE;
            return Admit::Drop;
        }
        self.samples += i64::from(samples);
        Admit::Ok(expected)
    }
}

/// How far a stamp may be ahead of the expected one: 1.5 ms or half a frame.
fn near(length: i64, second: i64) -> i64 {
    (length / 2).max(second * 3 / 2000)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn video(start_ns: i64) -> Timeline {
        let mut timeline = Timeline::new(0, start_ns);
        timeline.add_video(1, 90_000);
        timeline
    }

    fn audio() -> Timeline {
        let mut timeline = Timeline::new(0, 0);
        timeline.add_audio(2, 48_000, 48_000);
        timeline
    }

    #[test]
    fn millisecond_stamps_of_audio_become_exact() {
        for (sample_rate, hours) in [(48_000, 24), (44_100, 24)] {
            let mut timeline = Timeline::new(0, 0);
            timeline.add_audio(2, sample_rate, sample_rate);
            let rate = i64::from(sample_rate);
            for n in 0..hours * 3600 * rate / 1024 {
                let ms = (n * 1024 * 1000 + rate / 2) / rate;
                let stamp = (ms * rate + 500) / 1000;
                assert_eq!(timeline.admit_audio(2, stamp, 1024), Admit::Ok(n * 1024));
            }
        }
    }

    #[test]
    fn packets_of_changing_length_count_as_long_as_they_are() {
        let (mut timeline, mut start) = (audio(), 0);
        for samples in [960, 960, 2880, 120, 120, 960] {
            let stamp = (start + 24) / 48 * 48;
            assert_eq!(timeline.admit_audio(2, stamp, samples), Admit::Ok(start));
            start += i64::from(samples);
        }
    }

    #[test]
    fn a_gap_of_audio_stays_a_gap() {
        let mut timeline = audio();
        assert_eq!(timeline.admit_audio(2, 0, 1024), Admit::Ok(0));
        assert_eq!(timeline.admit_audio(2, 1024 + 512, 1024), Admit::Ok(1024));
        assert_eq!(timeline.admit_audio(2, 2048 + 513, 1024), Admit::Ok(2561));
        assert_eq!(timeline.expected(2), Some(2561 + 1024));
    }

    #[test]
    fn audio_that_runs_ahead_of_its_stamps_loses_single_frames() {
        let mut timeline = audio();
        let admits: Vec<Admit> = (0..2000)
            .map(|n| timeline.admit_audio(2, (n * 1000).max(0), 1024))
            .collect();
        let dropped = admits.iter().filter(|admit| **admit == Admit::Drop).count();
        assert!((40..=48).contains(&dropped), "{dropped} frames dropped");
        let expected = timeline.expected(2).unwrap();
        assert!((expected - 2_000_000).abs() < 4096);
    }

    #[test]
    fn stuck_audio_stamps_end_the_epoch() {
        let mut timeline = audio();
        let jump = (0..200)
            .map(|_| timeline.admit_audio(2, 0, 1024))
            .find(|admit| matches!(admit, Admit::NewEpoch(_)));
        assert_eq!(jump, Some(Admit::NewEpoch(Jump::Stuck)));
    }

    #[test]
    fn small_steps_back_of_video_are_repaired() {
        let mut timeline = video(0);
        assert_eq!(timeline.admit(1, 90_000), Admit::Ok(90_000));
        let repaired = Admit::Repaired { dts: 90_001, by: 1 };
        assert_eq!(timeline.admit(1, 90_000), repaired);
        let repaired = Admit::Repaired {
            dts: 90_002,
            by: 90_000,
        };
        assert_eq!(timeline.admit(1, 2), repaired);
        assert_eq!(
            timeline.admit(1, 1),
            Admit::NewEpoch(Jump::Backward),
            "more than a second back"
        );
    }

    #[test]
    fn a_hundred_repairs_in_a_row_are_enough() {
        let mut timeline = video(0);
        timeline.admit(1, 0);
        for _ in 0..100 {
            assert!(matches!(timeline.admit(1, 0), Admit::Repaired { .. }));
        }
        assert_eq!(timeline.admit(1, 0), Admit::NewEpoch(Jump::Stuck));
    }

    #[test]
    fn ten_seconds_ahead_are_a_gap_and_more_is_a_jump() {
        let mut timeline = video(0);
        timeline.admit(1, 0);
        assert_eq!(timeline.admit(1, 900_000), Admit::Ok(900_000));
        assert_eq!(timeline.admit(1, 1_800_001), Admit::NewEpoch(Jump::Forward));
    }

    #[test]
    fn a_track_that_pauses_while_another_goes_on_makes_no_jump() {
        let mut timeline = video(0);
        timeline.add_audio(2, 48_000, 48_000);
        timeline.admit_audio(2, 0, 1024);
        for second in 0..30 {
            assert!(matches!(timeline.admit(1, second * 90_000), Admit::Ok(_)));
        }
        assert_eq!(
            timeline.admit_audio(2, 29 * 48_000, 1024),
            Admit::Ok(29 * 48_000)
        );
    }

    #[test]
    fn tracks_keep_their_distance() {
        let mut timeline = Timeline::new(21_000_000, 5 * SECOND_NS);
        timeline.add_video(1, 90_000);
        timeline.add_audio(2, 48_000, 48_000);
        assert_eq!(timeline.admit(1, 21 * 90), Admit::Ok(450_000));
        assert_eq!(
            timeline.admit_audio(2, 0, 1024),
            Admit::Drop,
            "before the start"
        );
        assert_eq!(
            timeline.admit_audio(2, 42 * 48, 1024),
            Admit::Ok(240_000 + 21 * 48)
        );
    }

    #[test]
    fn absurd_stamps_are_jumps() {
        let mut timeline = video(0);
        timeline.admit(1, 0);
        assert_eq!(timeline.admit(1, i64::MAX), Admit::NewEpoch(Jump::Forward));
        assert_eq!(timeline.admit(1, i64::MIN), Admit::NewEpoch(Jump::Backward));
        assert_eq!(timeline.admit(9, 0), Admit::Drop);
    }

    proptest! {
        #[test]
        fn an_epoch_that_starts_at_an_end_never_goes_back(
            end in 0i64..1 << 40, timescale in 1u32..TIMESCALE_MAX, origin in any::<i32>(),
        ) {
            let start_ns = ticks_to_ns(end, timescale).unwrap();
            prop_assert_eq!(ns_to_ticks(start_ns, timescale), end);
            let origin_ns = ticks_to_ns(origin.into(), timescale).unwrap();
            let mut timeline = Timeline::new(origin_ns, start_ns);
            timeline.add_video(1, timescale);
            prop_assert_eq!(timeline.admit(1, origin.into()), Admit::Ok(end));
        }

        #[test]
        fn admitted_stamps_increase(
            stamps in prop::collection::vec((any::<bool>(), -9000i64..9000), 1..400),
        ) {
            let mut timeline = video(0);
            timeline.add_audio(2, 48_000, 48_000);
            let (mut raw, mut last) = ([0; 2], [-1; 2]);
            for (video, step) in stamps {
                let lane = usize::from(!video);
                raw[lane] += step;
                let admit = match video {
                    true => timeline.admit(1, raw[0]),
                    false => timeline.admit_audio(2, raw[1], 1024),
                };
                if let Admit::Ok(dts) | Admit::Repaired { dts, .. } = admit {
                    prop_assert!(dts > last[lane]);
                    last[lane] = dts;
                }
            }
        }
    }
}
