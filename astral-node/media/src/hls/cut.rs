//! Where parts begin and end.

/// When a frame is shown, and whether a decoder can start at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Decoding time in ticks of the track's timescale.
    pub dts: i64,
    /// Duration in ticks, as the publisher signed it.
    pub duration: u32,
    /// A decoder can start here.
    pub keyframe: bool,
}

impl Timing {
    pub(super) fn end(&self) -> i64 {
        self.dts.saturating_add(self.duration.into())
    }
}

/// Some frames of a group that are fetched together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Index of the first frame.
    pub first: u32,
    /// Number of frames, at least one.
    pub frames: u32,
    /// Duration in ticks.
    pub ticks: u64,
    /// A decoder can start with it.
    pub independent: bool,
}

/// Ticks of a timescale as microseconds, rounded down.
pub fn micros(ticks: u64, timescale: u32) -> u64 {
    let micros = u128::from(ticks) * 1_000_000 / u128::from(timescale.max(1));
    u64::try_from(micros).unwrap_or(u64::MAX)
}

/// The parts of one track's part of a group that are complete, given its first frames
/// without a hole; `over`: no more will come.
///
/// A part ends where one more frame like its last would make it longer than
/// `target_ticks`. That is known as soon as the last frame is here, and no frame that
/// comes later changes it. A single frame that is longer is a part of its own. A part
/// lasts from the end of the one before, so that all together last as long as the
/// segment whatever the rounding of an encoder's times.
pub fn cut(frames: &[Timing], over: bool, target_ticks: u64) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut first = 0;
    let mut start = frames.first().map_or(0, |frame| frame.dts);
    for (index, frame) in frames.iter().enumerate() {
        let ticks = frame.end().saturating_sub(start).max(0) as u64;
        let full = ticks.saturating_add(frame.duration.into()) > target_ticks;
        if full || (over && index + 1 == frames.len()) {
            parts.push(Part {
                first: first as u32,
                frames: (index + 1 - first) as u32,
                ticks,
                independent: frames[first].keyframe,
            });
            first = index + 1;
            start = frame.end();
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames(durations: &[u32]) -> Vec<Timing> {
        let mut dts = 1_000;
        durations
            .iter()
            .enumerate()
            .map(|(index, &duration)| {
                let timing = Timing {
                    dts,
                    duration,
                    keyframe: index == 0,
                };
                dts += i64::from(duration);
                timing
            })
            .collect()
    }

    /// Milliseconds of all parts but the last, of a group of 2 s of such frames.
    fn lengths(duration_us: u32) -> Vec<u64> {
        let count = 2_000_000 / duration_us;
        let parts = cut(&frames(&vec![duration_us; count as usize]), true, 215_000);
        let whole = parts.len() - 1;
        parts[..whole].iter().map(|part| part.ticks).collect()
    }

    #[test]
    fn usual_rates_of_pictures_and_sound_fill_at_least_85_percent_of_a_part() {
        // 10, 15, 20, 24, 25, 29.97, 30, 50, 60 pictures a second; bundles of AAC at
        // 48, 44.1 and 32 kHz, of Opus.
        let pictures = [100_000, 66_667, 50_000, 41_667, 40_000, 33_367, 33_333];
        let sound = [20_000, 16_667, 42_667, 46_440, 64_000, 40_000];
        for duration in pictures.into_iter().chain(sound) {
            for length in lengths(duration) {
                assert!(length <= 215_000, "{duration} us: {length}");
                assert!(length * 100 >= 215_000 * 85, "{duration} us: {length}");
            }
        }
    }

    #[test]
    fn frame_longer_than_a_part_is_one_and_only_the_first_part_begins_with_the_keyframe() {
        let parts = cut(&frames(&[500, 100, 100, 100]), false, 200);
        let shape: Vec<_> = parts.iter().map(|p| (p.first, p.frames, p.ticks)).collect();
        assert_eq!(shape, [(0, 1, 500), (1, 2, 200)]);
        assert!(parts[0].independent && !parts[1].independent);
    }

    proptest! {
        #[test]
        fn parts_never_change_when_more_comes(
            durations in prop::collection::vec(0u32..300, 1..80),
            known in 0usize..80,
        ) {
            let all = frames(&durations);
            let known = known.min(all.len());
            let early = cut(&all[..known], false, 215);
            let late = cut(&all, true, 215);
            prop_assert_eq!(&early[..], &late[..early.len()]);
            let mut next = 0;
            for part in &late {
                prop_assert_eq!(part.first, next);
                prop_assert!(part.frames > 0);
                next += part.frames;
            }
            prop_assert_eq!(next as usize, all.len());
        }

        #[test]
        fn any_times_are_cut_without_a_panic(
            times in prop::collection::vec((any::<i64>(), any::<u32>()), 0..20),
        ) {
            let frames: Vec<_> = times
                .into_iter()
                .map(|(dts, duration)| Timing { dts, duration, keyframe: false })
                .collect();
            cut(&frames, true, 215);
        }
    }
}
