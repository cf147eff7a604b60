//! Time of a clip that is played round and round: where each track stands in each
//! round, and when a frame is due.
//!
//! Everything is computed from the number of the round and never added up, so
//! that sound and picture stay together however long it runs.

use std::time::Duration;

use tokio::time::Instant;

/// Starts of tracks that differ by more are no encoder's priming: then the whole
/// clip is one round, with its gaps.
const SKEW_MAX_S: i64 = 1;
/// A sender that is later than this (the computer slept, the network stood) goes
/// on from where it is, and does not hurry after its clock.
const LATE_MAX: Duration = Duration::from_secs(2);

/// Where one track of the clip begins and ends, in its own ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// Ticks per second.
    pub(crate) timescale: u32,
    /// Decoding time of the first frame.
    pub(crate) start: i64,
    /// Decoding time of the last frame and its duration.
    pub(crate) end: i64,
}

/// A time in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ticks {
    count: i64,
    timescale: u32,
}

impl Ticks {
    fn new(count: i64, timescale: u32) -> Self {
        let timescale = timescale.max(1);
        Self { count, timescale }
    }

    /// Exact place in an order of times: ticks over the common denominator.
    fn before(self, other: Self) -> bool {
        let (a, b) = (i128::from(self.count), i128::from(other.count));
        a * i128::from(other.timescale) < b * i128::from(self.timescale)
    }

    /// `factor` times this, in ticks of another scale, rounded down.
    fn scaled(self, factor: i128, timescale: u32) -> i64 {
        let ticks = i128::from(self.count) * factor * i128::from(timescale);
        let ticks = ticks.div_euclid(i128::from(self.timescale));
        i64::try_from(ticks).unwrap_or(i64::MAX)
    }
}

/// The time of a clip in its rounds, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rounds {
    origin: Ticks,
    length: Ticks,
}

impl Rounds {
    /// Rounds of a clip with these tracks; none without a track that has a length.
    ///
    /// A round is as long as the longest track, so that no track overlaps itself.
    pub(crate) fn of(spans: &[Span]) -> Option<Self> {
        let earliest = |a: Ticks, b: Ticks| if b.before(a) { b } else { a };
        let latest = |a: Ticks, b: Ticks| if a.before(b) { b } else { a };
        let starts = || {
            spans
                .iter()
                .map(|span| Ticks::new(span.start, span.timescale))
        };
        let ends = || {
            spans
                .iter()
                .map(|span| Ticks::new(span.end, span.timescale))
        };
        let lengths = spans
            .iter()
            .map(|span| Ticks::new(span.end - span.start, span.timescale));
        let origin = starts().reduce(earliest)?;
        let skew = nanos(starts().reduce(latest)?) - nanos(origin);
        let length = if skew <= i128::from(SKEW_MAX_S) * 1_000_000_000 {
            lengths.reduce(latest)?
        } else {
            let whole = nanos(ends().reduce(latest)?) - nanos(origin);
            Ticks::new(i64::try_from(whole).ok()?, 1_000_000_000)
        };
        (length.count > 0).then_some(Self { origin, length })
    }

    /// What to add to a track's stamps in a round, counted from 0: the clip's
    /// earliest frame is at 0 in the first one.
    pub(crate) fn offset(&self, timescale: u32, round: u64) -> i64 {
        let passed = self.length.scaled(i128::from(round), timescale);
        passed.saturating_add(self.origin.scaled(-1, timescale))
    }
}

fn nanos(time: Ticks) -> i128 {
    i128::from(time.count) * 1_000_000_000 / i128::from(time.timescale)
}

/// A stamp as time since 0.
pub(crate) fn since_zero(ticks: i64, timescale: u32) -> Duration {
    let nanos = nanos(Ticks::new(ticks.max(0), timescale));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// When frames are due.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pacer {
    zero: Option<(Instant, Duration)>,
}

impl Pacer {
    /// The first frame asked for is due at once.
    pub(crate) fn new() -> Self {
        Self { zero: None }
    }

    /// When the frame at `at` of the clip's time is due.
    pub(crate) fn due(&mut self, at: Duration, now: Instant) -> Instant {
        let (start, base) = *self.zero.get_or_insert((now, at));
        let due = start + at.saturating_sub(base);
        if now.saturating_duration_since(due) > LATE_MAX {
            self.zero = Some((now, at));
            return now;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIDEO: Span = Span {
        timescale: 15_360,
        start: 0,
        end: 16 * 15_360,
    };
    /// 750 AAC frames, the first of them the encoder's priming.
    const AUDIO: Span = Span {
        timescale: 48_000,
        start: -1_024,
        end: 767 * 1_000 - 24,
    };

    fn length_ms(rounds: Rounds) -> i64 {
        rounds.offset(1_000, 1) - rounds.offset(1_000, 0)
    }

    #[test]
    fn a_round_is_as_long_as_the_longest_track() {
        let rounds = Rounds::of(&[VIDEO, AUDIO]).unwrap();
        assert_eq!(length_ms(rounds), 16_000);
        assert_eq!(rounds.offset(48_000, 0), 1_024);
        assert_eq!(rounds.offset(48_000, 1), 1_024 + 768_000);
        // 327.68 ticks of the video's clock: rounded down, once.
        assert_eq!(rounds.offset(15_360, 0), 327);
        assert_eq!(rounds.offset(15_360, 3), 327 + 3 * 16 * 15_360);
    }

    #[test]
    fn a_day_of_rounds_drifts_by_less_than_a_tick() {
        // 44.1 kHz sound under a picture of 30000/1001 per second: nothing divides.
        let video = Span {
            timescale: 30_000,
            start: 0,
            end: 301 * 1_001,
        };
        let audio = Span {
            timescale: 44_100,
            start: 0,
            end: 432 * 1_024,
        };
        let rounds = Rounds::of(&[audio, video]).unwrap();
        for round in [1, 7, 8_640, 1_000_000_000] {
            let video_s = rounds.offset(30_000, round) as f64 / 30_000.0;
            let audio_s = rounds.offset(44_100, round) as f64 / 44_100.0;
            assert!((video_s - audio_s).abs() < 1.0 / 30_000.0, "round {round}");
        }
        let per_round = |round| rounds.offset(44_100, round + 1) - rounds.offset(44_100, round);
        assert!((0..1_000).all(|round| per_round(round) >= audio.end));
    }

    #[test]
    fn no_stamp_is_negative_and_no_track_overlaps_itself() {
        let late = Span {
            timescale: 1_000,
            start: 700,
            end: 9_000,
        };
        for spans in [[VIDEO, AUDIO], [late, VIDEO], [late, AUDIO]] {
            let rounds = Rounds::of(&spans).unwrap();
            for span in spans {
                let at = |round| rounds.offset(span.timescale, round);
                assert!(span.start + at(0) >= 0);
                assert!((0..50).all(|round| span.end + at(round) <= span.start + at(round + 1)));
            }
        }
    }

    #[test]
    fn tracks_far_apart_make_one_round_of_the_whole_clip() {
        let intro = Span {
            timescale: 1_000,
            start: 0,
            end: 6_000,
        };
        let rest = Span {
            timescale: 1_000,
            start: 4_000,
            end: 10_000,
        };
        let rounds = Rounds::of(&[intro, rest]).unwrap();
        assert_eq!(length_ms(rounds), 10_000);
        assert_eq!(Rounds::of(&[]), None);
        let empty = Span { end: 0, ..intro };
        assert_eq!(Rounds::of(&[empty]), None);
    }

    #[test]
    fn a_late_sender_does_not_hurry_after_its_clock() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut pacer = Pacer::new();
        assert_eq!(pacer.due(10 * second, start), start);
        assert_eq!(pacer.due(11 * second, start), start + second);
        // A little late: the clock stays.
        assert_eq!(
            pacer.due(12 * second, start + 3 * second),
            start + 2 * second
        );
        // Far too late: a new clock.
        assert_eq!(
            pacer.due(13 * second, start + 60 * second),
            start + 60 * second
        );
        assert_eq!(
            pacer.due(14 * second, start + 60 * second),
            start + 61 * second
        );
    }
}
